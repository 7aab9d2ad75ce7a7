"""Reading YAML: presets, overrides, relative paths, and the difference of two campaigns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from activelearn.config.campaign import Campaign
from activelearn.config.files import absolute, merged, preset_file, preset_names, read_yaml, shipped
from activelearn.config.labelling import Label
from activelearn.config.machine import Machine
from activelearn.config.messages import nearest, validated
from activelearn.config.studying import resolved
from activelearn.errors import ConfigError

#: Sections of a campaign that may name a preset, and the folder of params/ it comes from.
PRESET_SECTIONS: Final = ("initial", "explore", "select", "label", "train")


def load_campaign(name_or_path: str | Path) -> Campaign:
    """Read a campaign from a YAML path or a preset's name, presets resolved.

    Raises
    ------
    ConfigError
        One line per problem, each ``where: what - wanted - next``.
    """
    path = find_campaign(name_or_path)
    return _with_absolute_paths(parse_campaign(read_yaml(path), where=str(path)), path.parent)


def find_campaign(name_or_path: str | Path) -> Path:
    """Return the YAML file of a path or of a preset's name."""
    path = Path(name_or_path)
    if path.is_file():
        return path.absolute()
    if preset := preset_file("campaign", str(name_or_path)):
        return preset
    if path.suffix in {".yaml", ".yml"} or path.is_dir():
        raise ConfigError(f"{path}: no such file - wanted a campaign's YAML - write one with: activelearn init")
    names = preset_names("campaign")
    raise ConfigError(
        f"{name_or_path}: neither a YAML file nor a preset - {nearest(str(name_or_path), names)} - "
        "write your own with: activelearn init"
    )


def parse_campaign(data: Any, *, where: str) -> Campaign:  # noqa: ANN401 - raw YAML
    """Validate raw YAML into a Campaign; see :func:`load_campaign`."""
    if not isinstance(data, Mapping):
        raise ConfigError(
            f"{where}: not a mapping - wanted keys such as name, type_map, initial - see: activelearn init"
        )
    given = dict(data)
    for section in PRESET_SECTIONS:
        if isinstance(given.get(section), Mapping) and "preset" in given[section]:
            given[section] = _with_preset(section, given[section], where)
    for section in ("glass", "benchmark"):
        if given.get(section) is not None:
            given[section] = resolved(section, given[section], Path(where))
    if isinstance(given.get("potentials"), list):
        given["potentials"] = [resolved("potential", one, Path(where)) for one in given["potentials"]]
    return validated(Campaign, given, where)


def _with_absolute_paths(campaign: Campaign, folder: Path) -> Campaign:
    """Return the campaign with its relative paths taken from `folder`: workers run in other working directories."""
    data = campaign.model_dump(mode="json")
    known = {path.stem for path in shipped("seeds").glob("*.yaml")}
    for section in ("initial", "explore"):
        for system in data[section]["systems"] or ():
            if system["packed"]:
                geometry = system["packed"]["geometry"]
                geometry |= {formula: absolute(path, folder) for formula, path in geometry.items()}
                sums = {formula: _checksum(Path(path)) for formula, path in geometry.items()}
                system["packed"]["sha256"] = {f: s for f, s in sums.items() if s} | system["packed"]["sha256"]
            elif system["seed"] not in known:
                system["seed"] = absolute(system["seed"], folder)
                system["sha256"] = system["sha256"] or _checksum(Path(system["seed"]))
    _make_paths_absolute(data["label"]["reference"], folder)
    if data["label"]["ledger"]:
        data["label"]["ledger"] = str((folder / Path(data["label"]["ledger"]).expanduser()).absolute())
    return Campaign.model_validate(data)


def _make_paths_absolute(reference: dict[str, Any], folder: Path) -> None:
    for settings, keys in ((reference, ("python", "weights")), (reference["arguments"], reference["arguments"])):
        settings |= {key: absolute(settings[key], folder) for key in keys}
    if reference["vasp"]:
        place = Path(reference["vasp"]["potcar_dir"]).expanduser()
        reference["vasp"]["potcar_dir"] = str((folder / place).absolute())


def load_label(name_or_path: str | Path) -> Label:
    """Read what labels, and how it is accepted: a preset of params/label/, a YAML like one, or a campaign's YAML.

    Raises
    ------
    ConfigError
        There is no such preset or file, or it says something else.
    """
    path = _given_or_preset("label", name_or_path)
    if path is None:
        hint = nearest(str(name_or_path), preset_names("label"))
        raise ConfigError(f"label {name_or_path}: neither a YAML file nor a preset - {hint} - see params/label/")
    data = read_yaml(path)
    if isinstance(data, Mapping) and "label" in data:
        return load_campaign(path).label
    if isinstance(data, Mapping) and "preset" in data:
        data = _with_preset("label", data, str(path))
    found = validated(Label, data, str(path)).model_dump(mode="json")
    _make_paths_absolute(found["reference"], path.absolute().parent)
    return Label.model_validate(found)


def _given_or_preset(section: str, name_or_path: str | Path) -> Path | None:
    path = Path(name_or_path)
    return path if path.is_file() else preset_file(section, str(name_or_path))


def _checksum(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def load_machine(name_or_path: str | Path = "local") -> Machine:
    """Read a machine profile from a YAML path or a preset's name."""
    path = _given_or_preset("machine", name_or_path)
    if path is None:
        hint = nearest(str(name_or_path), preset_names("machine"))
        raise ConfigError(f"machine {name_or_path}: neither a YAML file nor a preset - {hint} - see params/machine/")
    machine = validated(Machine, read_yaml(path), str(path))
    folder = path.absolute().parent
    scratch = machine.scratch and str(folder / Path(machine.scratch).expanduser())
    return machine.model_copy(update={"scratch": scratch, "python": absolute(machine.python, folder)})


def difference(old: Campaign, new: Campaign) -> list[str]:
    """Return one line per changed key: ``select.f_lo: 0.15 -> 0.2``."""
    before, after = (dict(_flat(c.model_dump(mode="json"))) for c in (old, new))
    keys = [*before, *(key for key in after if key not in before)]
    return [
        f"{key}: {before.get(key, '(not there)')} -> {after.get(key, '(not there)')}"
        for key in keys
        if before.get(key) != after.get(key)
    ]


def _flat(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - JSON
    pairs: list[tuple[Any, Any]] = []
    if isinstance(data, dict) and data:
        pairs = list(data.items())
    elif isinstance(data, list) and any(isinstance(item, dict) for item in data):
        pairs = list(enumerate(data))
    if not pairs:
        yield prefix, data
    for key, value in pairs:
        yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))


def _with_preset(section: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    path = preset_file(section, str(given["preset"]))
    if path is None:
        hint = nearest(str(given["preset"]), preset_names(section))
        raise ConfigError(
            f"{where}: {section}.preset: unknown preset {given['preset']!r} - {hint} - see params/{section}/"
        )
    found: dict[str, Any] = merged(read_yaml(path), {key: value for key, value in given.items() if key != "preset"})
    return found
