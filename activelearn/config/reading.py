"""Read campaigns, studies, their parts, machine profiles and cited numbers; compare two campaigns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from activelearn.config.benchmark import Benchmark, Cited
from activelearn.config.campaign import Campaign
from activelearn.config.files import checksum, is_file, merged, preset_file, preset_names, read_yaml, shipped
from activelearn.config.glass import Glass, Series
from activelearn.config.labelling import Label
from activelearn.config.lines import place
from activelearn.config.machine import Machine
from activelearn.config.messages import T, nearest, validated
from activelearn.config.paths import written
from activelearn.config.potential import Potential
from activelearn.config.presets import PRESET_SECTIONS, find, resolved, with_preset
from activelearn.config.section import Section
from activelearn.config.study import Study
from activelearn.config.trainer import DEFAULT, TRAINERS
from activelearn.config.training import Train
from activelearn.errors import ConfigError

#: A line of `check` that may start with the dotted path of a value.
_BEGUN: Final = re.compile(r"(unusual: |)((?:[a-z][\w-]*(?:\.[\w-]+)*(?=:| \())?)(.*)", re.DOTALL)


def placed(lines: Iterable[str], file: str | Path | None, machine: str | None) -> list[str]:
    """Return lines of `check`, with file and line if they start with a key such as ``explore.stages.0.n_walks``.

    Parameters
    ----------
    lines
        Some start with ``unusual:``.
    file, machine
        YAML of the campaign or study, and of the machine profile, or the names of presets.
    """
    found = []
    for line in lines:
        unusual, dotted, rest = _BEGUN.findall(line)[0]
        at = tuple(int(part) if part.isdecimal() else part for part in dotted.split("."))
        name, section = (machine, "machine") if at[0] == "machine" else (file, "campaign")
        at = at[1:] if section == "machine" else at * (at[0] in {*Campaign.model_fields, *Study.model_fields})
        path = str(find(section, name)) if name is not None else ""
        where = place(path, at)
        if dotted == "machine.slots" and name is not None and not _says_slots(path, rest):
            found.append(f"{unusual}--slots{rest}")  # which overrides it
            continue
        found.append(f"{unusual}{where}: {dotted}{rest}" if where != path else line)
    return found


def _says_slots(machine: str, said: str) -> bool:
    """Return whether the number of slots in a line is set in the machine profile."""
    given = read_yaml(Path(machine))
    slots = given.get("slots") if isinstance(given, Mapping) else None
    return isinstance(slots, int) and re.match(rf": {slots:g}\b", said) is not None


# --- campaigns --------------------------------------------------------------------------------------------------------


def load_campaign(name_or_path: str | Path) -> Campaign:
    """Read a campaign from a YAML path or a preset's name, presets resolved.

    Raises
    ------
    ConfigError
        One line per problem, each ``where: what - expected - next``.
    """
    path = Path(name_or_path) if is_file(Path(name_or_path)) else find_campaign(name_or_path)  # reported as typed
    given = _with_presets(read_yaml(path), str(path))
    return _with_checksums(validated(Campaign, written(given, path), str(path)))


def find_campaign(name_or_path: str | Path) -> Path:
    """Return the YAML file of a path or of a preset's name."""
    path = Path(name_or_path)
    if is_file(path):
        return path.absolute()
    if preset := preset_file("campaign", str(name_or_path)):
        return preset
    if path.suffix in {".yaml", ".yml"} or path.is_dir():
        raise ConfigError(f"{path}: no such file - expected a campaign's YAML - write one with: activelearn init")
    names = preset_names("campaign")
    raise ConfigError(
        f"{name_or_path}: neither a YAML file nor a preset - {nearest(str(name_or_path), names)} - "
        "write your own with: activelearn init"
    )


def parse_campaign(data: Any, *, where: str, is_sealed: bool = False) -> Campaign:  # noqa: ANN401 - raw YAML
    """Validate raw YAML (or a sealed one) into a Campaign; see :func:`load_campaign`. Its paths are not changed."""
    return validated(Campaign, _with_presets(data, where), where, is_sealed=is_sealed)


def _with_presets(data: Any, where: str) -> dict[str, Any]:  # noqa: ANN401 - raw YAML
    if not isinstance(data, Mapping):
        raise ConfigError(
            f"{where}: not a mapping - expected keys such as name, type_map, initial - see: activelearn init"
        )
    given = {
        key: with_preset(key, value, Path(where)) if key in PRESET_SECTIONS else value for key, value in data.items()
    }
    teacher = given.get("teacher")
    if isinstance(teacher, Mapping) and "train" in teacher:
        given["teacher"] = {**teacher, "train": with_preset("train", teacher["train"], Path(where))}
    return _with_study_presets(given, Path(where))


def _with_study_presets(data: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """Return a study, or a campaign, with the presets of the study resolved."""
    given = dict(data)
    if isinstance(given.get("potentials"), list):
        given["potentials"] = [resolved("potential", one, where) for one in given["potentials"]]
    for section in ("glass", "glasses", "benchmark"):
        if given.get(section) is not None:
            given[section] = resolved(section, given[section], where)
    return given


def _with_checksums(campaign: Campaign) -> Campaign:
    """Return the campaign with the checksums of its structure files, as far as they exist."""
    data = campaign.model_dump(mode="json")
    known = {path.stem for path in shipped("seeds").glob("*.yaml")}
    for section in ("initial", "explore"):
        for system in data[section]["systems"] or ():
            if system["packed"]:
                sums = {formula: checksum(Path(path)) for formula, path in system["packed"]["geometry"].items()}
                system["packed"]["sha256"] = {f: s for f, s in sums.items() if s} | system["packed"]["sha256"]
            elif system["seed"] not in known:
                system["sha256"] = system["sha256"] or checksum(Path(system["seed"]))
    return Campaign.model_validate(data)


def difference(old: Campaign, new: Campaign) -> list[str]:
    """Return one line per changed key: ``select.f_lo: 0.15 -> 0.2``."""
    before, after = (dict(_flat(c.model_dump(mode="json"))) for c in (old, new))
    return [
        f"{key}: {before.get(key, '(not set)')} -> {after.get(key, '(not set)')}"
        for key in before | after
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


# --- parts of campaigns and studies -----------------------------------------------------------------------------------


def load_label(name_or_path: str | Path) -> Label:
    """Read a reference with its acceptance criteria: a preset of params/label/, a YAML like one, or a campaign YAML.

    Raises
    ------
    ConfigError
        There is no such preset or file, or it is invalid.
    """
    path = find("label", name_or_path)
    data = read_yaml(path)
    if isinstance(data, Mapping) and "label" in data:
        return load_campaign(path).label
    return validated(Label, written(with_preset("label", data, path), path), str(path))


def load_train(name_or_path: str | Path, over: Mapping[str, Any]) -> Train:
    """Read the section of a trainer: a preset of params/train/ or a YAML like one, with some keys over it.

    Raises
    ------
    ConfigError
        There is no such preset, file or trainer, or it says something else.
    """
    path = find("train", name_or_path)
    data = read_yaml(path)
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path}: not a mapping - expected keys such as trainer, n_steps - see params/train/")
    given = merged(with_preset("train", data, path), over)
    kind = TRAINERS.find(str(given.get("trainer", DEFAULT))).settings
    found: Train = validated(kind, written(given, path), str(path))
    return found


def load_machine(name_or_path: str | Path = "local") -> Machine:
    """Read a machine profile from a YAML path or a preset's name."""
    path = find("machine", name_or_path)
    return validated(Machine, written(read_yaml(path), path), str(path))


def load_potential(name_or_path: str | Path) -> Potential:
    """Read a potential from a YAML path or a preset of params/potential/.

    Raises
    ------
    ConfigError
        There is no such preset or file, or it is invalid.
    """
    return _load(Potential, "potential", name_or_path)


def load_series(name_or_path: str | Path) -> Series:
    """Read a composition series from a YAML path or a preset of params/series/."""
    return _load(Series, "series", name_or_path)


def load_benchmark(name_or_path: str | Path) -> Benchmark:
    """Read the properties to measure from a YAML path or a preset of params/benchmark/."""
    return _load(Benchmark, "benchmark", name_or_path)


def _load(model: type[T], section: str, name_or_path: str | Path) -> T:
    path = find(section, name_or_path)
    return validated(model, resolved(section, read_yaml(path), path), str(path))


def load_glass(name_or_path: str | Path, **over: Any) -> Glass:  # noqa: ANN401 - keys of a Glass
    """Read a melt-quench from a YAML path or a preset of params/glass/, single keys overridden."""
    path = find("glass", name_or_path)
    data = resolved("glass", read_yaml(path), path)
    if isinstance(data, Mapping):
        own, data = data.get("series"), resolved("glass", {**data, **over}, path)
        if "x" not in over and _name_in(own) not in {None, _name_in(data.get("series"))}:
            data = {key: value for key, value in data.items() if key != "x"}  # it belongs to the other series
        if over.keys() & {"n_atoms", "n_units"}:
            data = {key: value for key, value in data.items() if key not in {"n_atoms", "n_units"} or key in over}
    return validated(Glass, data, str(path))


def _name_in(series: Any) -> Any:  # noqa: ANN401 - raw YAML
    return series.get("name") if isinstance(series, Mapping) else None


# --- studies ----------------------------------------------------------------------------------------------------------


def is_study(name_or_path: str | Path) -> bool:
    """Return whether a YAML is a whole study, and not a campaign: it has potentials (or glasses) and trains none."""
    path = Path(name_or_path)
    data = read_yaml(path) if is_file(path) else None
    return (
        isinstance(data, Mapping) and bool({"potentials", "glasses"} & {*data}) and not {"type_map", "train"} & {*data}
    )


def load_study(path: Path, cited: Iterable[Cited] = ()) -> Study:
    """Read a whole study; `potentials`, `glass` and `benchmark` may name presets."""
    data = read_yaml(path)
    if not isinstance(data, Mapping):
        raise ConfigError(
            f"{path}: not a mapping - expected keys such as name, potentials, glass - see params/GLASSES.md"
        )
    return with_cited(validated(Study, _with_study_presets(data, path), str(path)), cited)


def with_cited(study: Study, more: Iterable[Cited] = ()) -> Study:
    """Return the study with the user's own numbers and, after them, the shipped ones of it; the first one counts."""
    series = study.of_glasses.series.name if study.of_glasses is not None else None
    asked = study.benchmark or Benchmark()
    crystals = asked.crystals.seeds if asked.crystals is not None else ()
    equations = asked.reactions.equations if asked.reactions is not None else {}
    concerned = [
        c for c in (*more, *shipped_numbers()) if c.series == series or c.crystal in crystals or c.reaction in equations
    ]
    own = list(study.cited)
    return study.model_copy(update={"cited": tuple(own + [c for c in concerned if c not in own])})


class _Numbers(Section):
    """A file of cited numbers."""

    cited: tuple[Cited, ...]


def shipped_numbers() -> tuple[Cited, ...]:
    """Return the cited numbers of params/cited/."""
    files = sorted((shipped("params") / "cited").glob("*.yaml"))
    return tuple(number for file in files for number in validated(_Numbers, read_yaml(file), str(file)).cited)
