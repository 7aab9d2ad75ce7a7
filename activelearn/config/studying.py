"""Reading potentials, series, glasses, benchmarks, studies and cited numbers from YAML (and CSV)."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from activelearn.config.benchmark import Benchmark, Cited
from activelearn.config.files import absolute, merged, preset_file, preset_names, read_yaml, shipped
from activelearn.config.glass import Glass, Series
from activelearn.config.labelling import Reference
from activelearn.config.messages import nearest, validated
from activelearn.config.potential import Potential
from activelearn.config.section import Section
from activelearn.config.study import Study
from activelearn.errors import ConfigError

#: Sections that may name a preset or be one: the key, and the folder of params/ it comes from.
SECTIONS: Final = ("glass", "benchmark", "series")
_NUMBER: Final = re.compile(r"[-+]?\d*\.?\d*([eE][-+]?\d+)?")
#: How the files of models end; an argument that ends so and is no file is a mistake.
MODEL_SUFFIXES: Final = {".model", ".pt", ".pth", ".pb", ".ckpt", ".tar", ".jit"}
_COLUMNS: Final = (
    "property",
    "value",
    "uncertainty",
    "bound",
    "unit",
    "source",
    "series",
    "x",
    "crystal",
    "temperature_K",
    "pair",
)


class _Numbers(Section):
    """A file of cited numbers."""

    cited: tuple[Cited, ...]


def find(section: str, name_or_path: str | Path) -> Path:
    """Return the YAML file of a path or of a preset of ``params/<section>/``.

    Raises
    ------
    ConfigError
        There is neither.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path.absolute()
    preset = preset_file(section, str(name_or_path))
    if preset is None:
        hint = nearest(str(name_or_path), preset_names(section))
        raise ConfigError(
            f"{section} {name_or_path}: neither a YAML file nor a preset - {hint} - see params/{section}/"
        )
    return preset


def resolved(section: str, given: Any, where: Path) -> Any:  # noqa: ANN401 - raw YAML
    """Return raw YAML of a section with presets put in, however deep, and paths made absolute.

    Parameters
    ----------
    section
        ``glass``, ``benchmark``, ``series`` or ``potential``.
    given
        The name of a preset, a path, or a mapping (with ``preset: NAME`` and single keys over it).
    where
        The file it stands in; relative paths are taken from its folder.
    """
    if isinstance(given, str):
        near = where.parent / given
        path = near if near.is_file() else find(section, given)
        return resolved(section, read_yaml(path), path)
    if not isinstance(given, Mapping):
        return given
    data = dict(given)
    if "preset" in data:
        path = find(section, str(data.pop("preset")))
        under = resolved(section, read_yaml(path), path)
        if isinstance(data.get("series"), Mapping) and "preset" in data["series"]:
            under.pop("series", None)  # another series, not this one with keys of another over it
        data = merged(under, data)
    if section == "glass" and "series" in data:
        data["series"] = resolved("series", data["series"], where)
    if section == "series" and isinstance(data.get("geometry"), Mapping):
        data["geometry"] = {formula: absolute(path, where.parent) for formula, path in data["geometry"].items()}
    if section == "potential":
        data = _potential(data, where)
    if section == "benchmark":
        data = _measured(data, where.parent)
    return data


def _measured(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a benchmark whose structure files and labelled frames have absolute paths."""
    crystals, parity = data.get("crystals"), data.get("parity")
    if isinstance(crystals, Mapping) and isinstance(crystals.get("seeds"), list):
        data["crystals"] = {**crystals, "seeds": [absolute(seed, folder) for seed in crystals["seeds"]]}
    if isinstance(parity, Mapping) and "frames" in parity:
        data["parity"] = {**parity, "frames": absolute(parity["frames"], folder)}
    return data


def _potential(data: dict[str, Any], where: Path) -> dict[str, Any]:
    folder = where.parent
    if isinstance(data.get("ase"), Mapping):
        data["ase"] = _calculator(dict(data["ase"]), where)
    if isinstance(data.get("deepmd"), Mapping) and isinstance(data["deepmd"].get("models"), list):
        models = [str(absolute(model, folder)) for model in data["deepmd"]["models"]]
        sums = [_sha256(model, f"{where}: deepmd.models", "a frozen model (.pb)") for model in models]
        data["deepmd"] = {**data["deepmd"], "models": models, "sha256": sums}
    if isinstance(data.get("lammps"), Mapping):
        data["lammps"] = _style(dict(data["lammps"]), where)
    return data


def _calculator(given: dict[str, Any], where: Path) -> dict[str, Any]:
    """Return a reference with the preset of params/label/ that it names, and absolute paths."""
    named = given["arguments"] if isinstance(given.get("arguments"), Mapping) else {}
    if "preset" in given:
        name = str(given.pop("preset"))
        label = read_yaml(find("label", name))
        given = merged(label["reference"], given)
    for key in ("python", "weights"):
        if key in given:
            given[key] = absolute(given[key], where.parent)
    arguments = given.get("arguments")
    if isinstance(arguments, Mapping):
        given["arguments"] = {key: absolute(value, where.parent) for key, value in arguments.items()}
    for key, value in named.items():
        if isinstance(value, str) and Path(value).suffix in MODEL_SUFFIXES:
            _sha256(str(absolute(value, where.parent)), f"{where}: ase.arguments.{key}", "the file of a model")
    return given


def _style(style: dict[str, Any], where: Path) -> dict[str, Any]:
    files: dict[str, str] = {}

    def with_paths(key: str, line: Any) -> Any:  # noqa: ANN401 - raw YAML
        words = [str(absolute(word, where.parent)) for word in str(line).split()]
        wanted = "the file that the style reads"
        files.update({word: _sha256(word, f"{where}: lammps.{key}", wanted) for word in words if _is_file_name(word)})
        return " ".join(words)

    if isinstance(style.get("pair_coeff"), list):
        style["pair_coeff"] = [with_paths("pair_coeff", line) for line in style["pair_coeff"]]
    if isinstance(style.get("pair_style"), str):
        style["pair_style"] = with_paths("pair_style", style["pair_style"])
    return {**style, "files_sha256": files}


def _is_file_name(word: str) -> bool:
    """Return whether a word of a LAMMPS line is a file: no style has a dot in its name, and numbers no letter."""
    return Path(word).is_file() or (Path(word).suffix[1:2].isalpha() and not _NUMBER.fullmatch(word))


def _sha256(file: str, where: str, wanted: str) -> str:
    if not Path(file).is_file():
        raise ConfigError(f"{where}: {file}: no such file - wanted {wanted} - check the path")
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def load_potential(name_or_path: str | Path) -> Potential:
    """Read a potential from a YAML path or a preset of params/potential/.

    Raises
    ------
    ConfigError
        There is no such preset or file, or it says something else.
    """
    path = find("potential", name_or_path)
    return validated(Potential, resolved("potential", read_yaml(path), path), str(path))


def load_series(name_or_path: str | Path) -> Series:
    """Read a composition series from a YAML path or a preset of params/series/."""
    path = find("series", name_or_path)
    return validated(Series, resolved("series", read_yaml(path), path), str(path))


def load_glass(name_or_path: str | Path, **over: Any) -> Glass:  # noqa: ANN401 - keys of a Glass
    """Read a melt-quench from a YAML path or a preset of params/glass/, single keys overridden."""
    path = find("glass", name_or_path)
    data = resolved("glass", read_yaml(path), path)
    if not isinstance(data, Mapping):
        return validated(Glass, data, str(path))
    data = dict(resolved("glass", dict(data) | over, path))
    if over.keys() & {"n_atoms", "n_units"}:
        data = {key: value for key, value in data.items() if key not in {"n_atoms", "n_units"} or key in over}
    return validated(Glass, data, str(path))


def load_benchmark(name_or_path: str | Path) -> Benchmark:
    """Read what is measured from a YAML path or a preset of params/benchmark/."""
    path = find("benchmark", name_or_path)
    return validated(Benchmark, resolved("benchmark", read_yaml(path), path), str(path))


def load_study(path: Path, cited: Iterable[Cited] = ()) -> Study:
    """Read a whole study; `potentials`, `glass` and `benchmark` may name presets."""
    data = read_yaml(path)
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path}: not a mapping - wanted keys such as name, potentials, glass - see params/study/")
    data = dict(data)
    if isinstance(data.get("potentials"), list):
        data["potentials"] = [resolved("potential", given, path) for given in data["potentials"]]
    for section in ("glass", "benchmark"):
        if data.get(section) is not None:
            data[section] = resolved(section, data[section], path)
    study = validated(Study, data, str(path))
    return with_cited(study, cited)


def with_cited(study: Study, more: Iterable[Cited] = ()) -> Study:
    """Return the study with the user's own numbers and, after them, the shipped ones of it; the first one counts."""
    series = study.glass.series.name if study.glass is not None else None
    crystals = study.benchmark.crystals.seeds if study.benchmark is not None and study.benchmark.crystals else ()
    concerned = [c for c in (*more, *shipped_numbers()) if c.series == series or c.crystal in crystals]
    own = list(study.cited)
    return study.model_copy(update={"cited": tuple(own + [c for c in concerned if c not in own])})


def shipped_numbers() -> tuple[Cited, ...]:
    """Return the cited numbers of params/cited/."""
    files = sorted((shipped("params") / "cited").glob("*.yaml"))
    return tuple(number for file in files for number in validated(_Numbers, read_yaml(file), str(file)).cited)


def load_numbers(path: Path) -> tuple[Cited, ...]:
    """Read a user's digitised points from a CSV.

    Parameters
    ----------
    path
        Columns property, value, unit, source, and where they apply uncertainty, series, x, crystal, temperature_K, pair
        (such as Na-S), bound (above or below). An empty cell is none.

    Raises
    ------
    ConfigError
        A column is unknown or missing, or a number is none; the line is named.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(row for row in stream if not row.startswith("#")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error}) - wanted a CSV with columns {', '.join(_COLUMNS)}"
        ) from error
    found = []
    for i, row in enumerate(rows, 1):
        given: dict[str, Any] = {key: value.strip() for key, value in row.items() if key and (value or "").strip()}
        if "pair" in given:
            given["pair"] = tuple(given["pair"].split("-"))
        found.append(validated(Cited, {**given, "status": "user"}, f"{path}: row {i}"))
    return tuple(found)


def reference_of(preset: str) -> Reference:
    """Return the reference of a preset of params/label/."""
    return validated(Reference, read_yaml(find("label", preset))["reference"], preset)
