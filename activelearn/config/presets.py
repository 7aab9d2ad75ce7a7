"""Resolution of presets at any depth, and checksums of the models of a potential."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from activelearn.config.files import as_word, checksum, is_file, merged, preset_file, preset_names, read_yaml
from activelearn.config.lines import place
from activelearn.config.messages import nearest, validated
from activelearn.config.paths import MODEL_SUFFIXES, absolute, written
from activelearn.config.potential import Potential
from activelearn.errors import ConfigError

#: Sections of a campaign that may name a preset, and the folder of params/ that contains it.
PRESET_SECTIONS: Final = ("initial", "explore", "select", "label", "train")
_NUMBER: Final = re.compile(r"[-+]?\d*\.?\d*([eE][-+]?\d+)?")
_QUOTES: Final = ("'", '"')
#: A word of a LAMMPS line; a quoted word may contain spaces.
_WORD: Final = re.compile(r"""(?<!\S)"[^"]*"(?!\S)|(?<!\S)'[^']*'(?!\S)|\S+""")


def find(section: str, name_or_path: str | Path, where: Path | None = None) -> Path:
    """Return the YAML file of a path (as it is given) or of a preset of ``params/<section>/``; `where`: who names it.

    Raises
    ------
    ConfigError
        Neither exists.
    """
    path = Path(name_or_path)
    if is_file(path):
        return path
    preset = preset_file(section, str(name_or_path))
    if preset is None:
        hint = nearest(str(name_or_path), preset_names(section))
        named = f"{where}: {section}" if where is not None else section
        raise ConfigError(f"{named} {name_or_path}: neither a YAML file nor a preset - {hint} - see params/{section}/")
    return preset


def resolved(section: str, given: Any, where: Path) -> Any:  # noqa: ANN401 - raw YAML
    """Return raw YAML of a section with presets resolved at any depth; its strings know the files that contain them.

    Parameters
    ----------
    section
        A folder of ``params/``.
    given
        The name of a preset, a path, or a mapping (with ``preset: NAME`` and single keys over it).
    where
        The file that contains it.
    """
    if isinstance(given, str):
        near = where.parent / given
        path = near if is_file(near) else find(section, given, where)
        return resolved(section, read_yaml(path), path)
    return with_preset(section, written(given, where), where)


def with_preset(section: str, given: Any, where: Path) -> Any:  # noqa: ANN401 - raw YAML
    """Return the same with its strings unchanged; of a section of a campaign, text is the name of a preset."""
    if isinstance(given, str) and section in PRESET_SECTIONS:
        given = {"preset": given}
    if not isinstance(given, Mapping):
        return given
    data = dict(given)
    if "preset" in data:
        under = _preset(section, str(data.pop("preset")), where)
        if isinstance(data.get("series"), Mapping) and "preset" in data["series"]:
            under.pop("series", None)  # another series, not this one with keys of another
        data = merged(under, data)
    if section in {"glass", "glasses"} and "series" in data:
        data["series"] = resolved("series", data["series"], where)
    if section == "initial" and isinstance(data.get("md"), Mapping) and "driver" in data["md"]:
        data["md"] = {**data["md"], "driver": _driver(data["md"]["driver"], where)}
    if section == "benchmark" and isinstance(data.get("force_error"), Mapping) and data["force_error"].get("label"):
        data["force_error"] = {**data["force_error"], "label": resolved("label", data["force_error"]["label"], where)}
    return _potential(data, where) if section == "potential" else data


def _preset(section: str, name: str, where: Path) -> Any:  # noqa: ANN401 - raw YAML
    if section not in PRESET_SECTIONS:
        path = find(section, name, where)
        return written(resolved(section, read_yaml(path), path), where)
    template = preset_file(section, name)
    if template is None:
        hint = nearest(name, preset_names(section))
        at = place(str(where), (section, "preset"))
        raise ConfigError(f"{at}: {section}.preset: unknown preset {name!r} - {hint} - see params/{section}/")
    return read_yaml(template)  # its paths are relative to the file that uses it


def _potential(data: dict[str, Any], where: Path) -> dict[str, Any]:
    if isinstance(data.get("ase"), Mapping):
        data["ase"] = _calculator(dict(data["ase"]), where)
    for key, kind in (("deepmd", "a frozen model (.pb, .pth, .pt2)"), ("committee", "the file of a member")):
        if isinstance(data.get(key), Mapping) and isinstance(data[key].get("models"), list):
            models = [str(absolute(model)) for model in data[key]["models"]]
            sums = [_sha256(model, f"{where}: {key}.models", kind) for model in models]
            data[key] = {**data[key], "models": models, "sha256": sums}
    if isinstance(data.get("lammps"), Mapping):
        data["lammps"] = _style(dict(data["lammps"]), where)
    return data


def _calculator(given: dict[str, Any], where: Path) -> dict[str, Any]:
    """Return a reference with its preset of params/label/ resolved; a model that it names must exist."""
    named = given["arguments"] if isinstance(given.get("arguments"), Mapping) else {}
    for key, value in named.items():
        if isinstance(value, str) and Path(value).suffix in MODEL_SUFFIXES:
            _sha256(str(absolute(value)), f"{where}: ase.arguments.{key}", "a model file")
    return _with_label(given, where)


def _with_label(given: dict[str, Any], where: Path) -> dict[str, Any]:
    """Return a reference with its preset of params/label/ resolved."""
    if "preset" in given:
        name = str(given.pop("preset"))
        label = read_yaml(find("label", name, where))
        if not isinstance(label, Mapping) or not isinstance(label.get("reference"), Mapping):
            what = f"{name} has no reference"
            raise ConfigError(f"{place(str(where), ('ase', 'preset'))}: {what} - expected a YAML as in params/label/")
        given = merged(written(label["reference"], where), given)
    return given


def _driver(given: Any, where: Path) -> Any:  # noqa: ANN401 - raw YAML
    """Return the calculator of a preset of params/label/ or params/potential/, or of a file like one."""
    if isinstance(given, Mapping):
        return _with_label(dict(given), where)
    if not isinstance(given, str) or given == "self":
        return given
    near = where.parent / given
    path = near if is_file(near) else preset_file("label", given) or preset_file("potential", given)
    if path is None:
        hint = nearest(given, ["self", *sorted({*preset_names("label"), *preset_names("potential")})])
        at = place(str(where), ("initial", "md", "driver"))
        raise ConfigError(
            f"{at}: initial.md.driver: {given}: neither a YAML file nor a preset - {hint} - see params/label/ and "
            "params/potential/"
        )
    data, path = read_yaml(path), path.absolute()
    if isinstance(data, Mapping) and isinstance(data.get("reference"), Mapping):
        return _with_label(written(dict(data["reference"]), path), path)
    potential = validated(Potential, resolved("potential", data, path), str(path))
    return potential.statics().model_dump(mode="json", exclude_defaults=True)


def _style(style: dict[str, Any], where: Path) -> dict[str, Any]:
    files: dict[str, str] = {}

    def with_path(word: str, key: str) -> str:
        name = word[1:-1] if word[0] in _QUOTES and word[-1] == word[0] else word
        file = str(absolute(written(name, where)))
        if not (_is_file_name(file) or name.startswith(("/", "./", "../", "~"))):
            return word
        files[file] = _sha256(file, f"{where}: lammps.{key}", "the file that the style reads")
        return as_word(file)

    def with_paths(key: str, line: Any) -> Any:  # noqa: ANN401 - raw YAML
        return " ".join(with_path(word, key) for word in _WORD.findall(str(line)))

    if isinstance(style.get("pair_coeff"), list):
        style["pair_coeff"] = [with_paths("pair_coeff", line) for line in style["pair_coeff"]]
    if isinstance(style.get("pair_style"), str):
        style["pair_style"] = with_paths("pair_style", style["pair_style"])
    return {**style, "files_sha256": files}


def _is_file_name(word: str) -> bool:
    """Return whether a word of a LAMMPS line is a file: styles contain no dot, and numbers no letter."""
    return is_file(Path(word)) or (Path(word).suffix[1:2].isalpha() and not _NUMBER.fullmatch(word))


def _sha256(file: str, where: str, expected: str) -> str:
    found = checksum(Path(file))
    if found is None:
        raise ConfigError(f"{where}: {file}: no such file - expected {expected} - check the path")
    return found
