"""Jobs whose LAMMPS input is a template: a plain one becomes a stage like any other; everything else is reported.

DP-GEN substitutes each combination of the values of ``rev_mat`` for their keys, one key after the other, and rewrites
``dump`` and ``pair_style``. Of the rest, the integrator, the time step and the run define the stage; other fixes
and groups become the stage's own lines. A template that does anything else has no stage.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from activelearn.config import lammps_lines
from activelearn.errors import ConfigError
from activelearn.exchange.dpgen.given import DpgenFolder, alias
from activelearn.frames import masses_of

#: Commands that our inputs contain anyway.
_OURS: Final = {
    *("units", "boundary", "atom_style", "atom_modify", "box", "read_data", "change_box", "neighbor"),
    *("neigh_modify", "pair_style", "pair_coeff", "thermo", "thermo_style", "thermo_modify", "dump", "dump_modify"),
    *(
        "restart",
        "reset_timestep",
        "log",
        "echo",
        "newton",
        "processors",
        "print",
        "timer",
        "clear",
        "plugin",
        "write_data",
    ),
}
#: Those of them that must have the same arguments as ours.
_MUST_BE: Final = {
    "units": ("metal",),
    "boundary": ("p", "p", "p"),
    "atom_style": ("atomic",),
    "change_box": ("all", "triclinic"),
}
#: A branch between a first start and a continuation, which is all that an `if` may be.
_BRANCH: Final = re.compile(r'if\s+"\$\{restart\}')
#: Commands that a stage may have as its own lines.
_THEIRS: Final = {"fix", "group", "region", "compute", "unfix", "fix_modify", "variable"}
#: LAMMPS' own time step in metal units, ps.
_TIMESTEP_PS: Final = 0.001
_FIRST_START: Final = re.compile(r'if\s+"\$\{restart\}\s*==\s*0"\s+then\s+"([^"]*)"')
_SCALAR: Final = {"equal", "string", "index"}
#: A mass that differs from the standard one by more than this share is another isotope.
_SAME_MASS: Final = 0.02


@dataclass
class Asked:
    """The stage of one combination of values.

    Parameters
    ----------
    temperatures_K
        At the beginning and at the end of the walk; None if not set by a thermostat.
    pressure_bar
        None: constant volume.
    stage
        Other keys of the stage.
    lines
        The stage's own lines.
    masses
        By atom type, amu.
    """

    temperatures_K: tuple[float, float] | None = None
    pressure_bar: float | None = None
    stage: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    masses: dict[int, float] = field(default_factory=dict)


def stages_of_template(given: DpgenFolder, job: Mapping[str, Any]) -> list[dict[str, Any]] | str:
    """Return the keys of the stages of a job, without their systems; or why there are none."""
    template = job.get("template") or {}
    path = given.path(str(template.get("lmp", "")))
    if "plm" in template or not template.get("lmp"):
        return "PLUMED is not started"
    if job.get("sys_rev_mat"):
        return "sys_rev_mat: conditions that differ by system need separate stages"
    if not path.is_file():
        return f"no template {path}"
    every = alias(job, "trj_freq", "t_freq", "traj_freq")
    if not every:
        return "without trj_freq"
    text = path.read_text(encoding="utf-8", errors="replace")
    values = (job.get("rev_mat") or {}).get("lmp") or {}
    found = []
    for combination in itertools.product(*(values[key] for key in values)):
        one = _read(_revised(text, dict(zip(values, combination, strict=True))), int(every))
        if not isinstance(one, str):
            masses = {**masses_in(given.param), **one.masses}  # those of a template count
            one = _finished(one, isotopes(given.param["type_map"], masses))
        if isinstance(one, str):
            return f"its template {path.name} has {one}"
        found.append(one)
    return _grouped(found)


def _revised(text: str, values: Mapping[str, Any]) -> str:
    for key, value in values.items():
        text = text.replace(key, str(value))
    return text


def _commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command, with variables substituted; for an `if`, what the first start does."""
    known: dict[str, str] = {}
    for line in re.sub(r"&[ \t]*\n", " ", text).splitlines():
        bare = re.sub(r"\$\{(\w+)\}", lambda found: known.get(found[1], found[0]), line.partition("#")[0]).strip()
        if _BRANCH.match(bare):
            first = _FIRST_START.match(bare)
            bare = first[1] if first else ""
        words = bare.split()
        if len(words) == 4 and words[0] == "variable" and words[2] in _SCALAR and _number(words[3]) is not None:
            known[words[1]] = words[3]
        elif words:
            yield words


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _read(text: str, every: int) -> Asked | str:
    """Return the stage of an input, or what in it has no counterpart."""
    made = Asked(stage={"every": every, "timestep_fs": round(1000.0 * _TIMESTEP_PS, 9)})
    for words in _commands(text):
        name, rest = words[0], words[1:]
        if name in _MUST_BE and tuple(rest) != _MUST_BE[name]:
            return f"{' '.join(words)} - expected {name} {' '.join(_MUST_BE[name])}"
        if name == "pair_style" and rest[:1] != ["deepmd"]:
            return f"{' '.join(words)} - expected pair_style deepmd, since DP-GEN puts its models there"
        if name in _OURS:
            continue
        wrong = _take(made, name, rest, words)
        if wrong is not None:
            return wrong
    if "n_steps" not in made.stage:
        return "no run"
    if made.stage["n_steps"] < every:
        return f"{made.stage['n_steps']} steps, fewer than trj_freq"
    return made


def _take(made: Asked, name: str, rest: Sequence[str], words: Sequence[str]) -> str | None:
    """Process one command; return what is wrong with it, or None."""
    line = " ".join(words)
    if name == "timestep" and _number(rest[0]) is not None:
        made.stage["timestep_fs"] = round(1000.0 * float(rest[0]), 9)
    elif name == "run" and rest[0].isdigit() and "n_steps" not in made.stage and set(rest[1:]) <= {"upto"}:
        made.stage["n_steps"] = int(rest[0])
    elif name == "velocity" and rest[1] == "create" and _number(rest[2]) is not None:
        made.temperatures_K = made.temperatures_K or (float(rest[2]), float(rest[2]))
    elif name == "velocity" and rest[1] == "zero":
        pass
    elif name == "fix" and rest[1] == "all" and rest[2] in {"nvt", "npt"} and "ensemble" not in made.stage:
        return _integrator(made, rest[2], rest[3:])
    elif name == "mass" and len(rest) == 2 and rest[0].isdigit() and _number(rest[1]) is not None:
        made.masses[int(rest[0])] = float(rest[1])
    elif name in _THEIRS:
        made.lines.append(line)
    else:
        return f"{line!r}, which no stage supports"
    return None


def _integrator(made: Asked, kind: str, words: Sequence[str]) -> str | None:
    """Process ``fix ... nvt`` or ``npt``; return what has no counterpart, or None."""
    keys = {words[i]: [_number(word) for word in words[i + 1 : i + 4]] for i in range(0, len(words), 4)}
    strange = sorted(set(keys) - {"temp", "iso", "aniso", "tri"})
    coupling = [key for key in keys if key != "temp"]
    if strange or "temp" not in keys or len(coupling) != (kind == "npt"):
        return f"fix {kind} {' '.join(words)} - expected temp, and one of iso, aniso, tri for npt"
    if any(len(numbers) != 3 or None in numbers for numbers in keys.values()):
        return f"fix {kind} {' '.join(words)} - expected numbers"
    start, stop, damping = (float(number or 0.0) for number in keys["temp"])
    made.temperatures_K = (start, stop)
    made.stage |= {"ensemble": "nvt", "temperature_damping_ps": damping}
    for key in coupling:
        first, last, damping = (float(number or 0.0) for number in keys[key])
        if first != last:
            return f"a pressure that changes from {first:g} to {last:g} bar"
        made.pressure_bar = first
        made.stage |= {"ensemble": f"npt-{key}", "pressure_damping_ps": damping}
    return None


def masses_in(param: Mapping[str, Any]) -> dict[int, float]:
    """Return the masses (amu) of ``mass_map`` by atom type; none where it says ``auto``."""
    given = param.get("mass_map") or "auto"
    if given == "auto":
        return {}
    if not isinstance(given, list) or len(given) != len(param["type_map"]):
        raise ConfigError("mass_map: expected auto, or one mass per element of type_map - fix it")
    return {i: float(mass) for i, mass in enumerate(given, 1) if isinstance(mass, int | float)}


def isotopes(type_map: Sequence[str], masses: Mapping[int, float]) -> list[str]:
    """Return a LAMMPS line for each mass (amu, by atom type) that is not that of the standard isotope."""
    standard = dict(enumerate(masses_of(tuple(type_map)).tolist(), 1))
    return [
        f"mass {i} {mass:g}"
        for i, mass in masses.items()
        if i not in standard or abs(mass - standard[i]) > _SAME_MASS * standard[i]
    ]


def _finished(made: Asked, masses: Sequence[str]) -> Asked | str:
    """Return the stage of an input, with its own masses and lines if they are allowed."""
    if "ensemble" not in made.stage:
        if not any(line.startswith("fix ") for line in made.lines):
            return "no integrator"
        made.stage["ensemble"] = "custom"
    if made.temperatures_K is None:
        return "no temperature (velocity all create, or a thermostat)"
    if lines := [*masses, *made.lines]:
        try:
            lammps_lines.check_lines("\n".join(lines))
        except ValueError as error:
            return f"lines that no stage may have: {error}"
        made.stage["lammps"] = "\n".join(lines)
    return made


def _grouped(found: Sequence[Asked]) -> list[dict[str, Any]]:
    """Return as few stages as possible: one if all temperatures are combined with all pressures."""
    groups: list[tuple[dict[str, Any], list[Asked]]] = []
    for one in found:
        same = next((members for stage, members in groups if stage == one.stage), None)
        if same is None:
            groups.append((one.stage, [one]))
        else:
            same.append(one)
    made = []
    for stage, members in groups:
        heats = [*dict.fromkeys(one.temperatures_K for one in members if one.temperatures_K is not None)]
        pressures = [*dict.fromkeys(one.pressure_bar for one in members)]
        cells = {(one.temperatures_K, one.pressure_bar) for one in members}
        blocks = [(heats, pressures)] if len(cells) == len(heats) * len(pressures) else _by_pressure(cells, pressures)
        made += [{**stage, **_conditions(h, p)} for h, p in blocks]
    return made


def _by_pressure(
    cells: set[tuple[tuple[float, float] | None, float | None]], pressures: Sequence[float | None]
) -> list[tuple[list[tuple[float, float]], list[float | None]]]:
    return [(sorted(h for h, q in cells if q == p and h is not None), [p]) for p in pressures]


def _conditions(heats: Sequence[tuple[float, float]], pressures: Sequence[float | None]) -> dict[str, Any]:
    constant = [start for start, stop in heats if start == stop]
    ramps = [[start, stop] for start, stop in heats if start != stop]
    made: dict[str, Any] = {}
    if constant:
        made["temperatures_K"] = constant
    if ramps:
        made["ramps_K"] = ramps
    if pressures != [None]:
        made["pressures_bar"] = [p for p in pressures if p is not None]
    return made
