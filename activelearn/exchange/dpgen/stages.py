"""Jobs of exploration (``model_devi_jobs``) as stages: each job is a region, which is repeated until it is quiet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import ascii_lowercase
from typing import Any, Final

from activelearn.config import Stop
from activelearn.errors import ConfigError
from activelearn.exchange.dpgen.given import DpgenFolder, alias, whole
from activelearn.exchange.dpgen.systems import DpgenStarts
from activelearn.exchange.dpgen.templates import isotopes, masses_in, stages_of_template
from activelearn.exchange.dpgen.told import DpgenReport

ENSEMBLES: Final = {
    "nvt": "nvt",
    "nve": "custom",
    **dict.fromkeys(("npt", "npt-i", "npt-iso"), "npt-iso"),
    **dict.fromkeys(("npt-a", "npt-aniso"), "npt-aniso"),
    **dict.fromkeys(("npt-t", "npt-tri"), "npt-tri"),
}
#: The integrator of an NVE walk.
_NVE: Final = "fix md all nve"
_LOWER, _UPPER = "model_devi_f_trust_lo", "model_devi_f_trust_hi"
#: DP-GEN's default dampings, ps.
_TAUT, _TAUP = 0.1, 0.5


@dataclass(frozen=True)
class DpgenJob:
    """One job that can be a stage.

    Parameters
    ----------
    numbers
        Numbers of this and of later equivalent jobs.
    systems
        Numbers of the systems of DP-GEN.
    asked
        Keys of the stage that do not depend on its systems.
    part
        Suffix of this stage if a job has several (a template); empty for the only one.
    """

    numbers: tuple[int, ...]
    systems: tuple[int, ...]
    asked: dict[str, Any] = field(default_factory=dict)
    part: str = ""

    @property
    def name(self) -> str:
        """Name of the stage."""
        first, last = self.numbers[0], self.numbers[-1]
        return f"job-{first:02d}{self.part}" if first == last else f"job-{first:02d}-to-{last:02d}{self.part}"

    def with_next(self, other: DpgenJob) -> DpgenJob | None:
        """Return both as one, if the other is equivalent except for systems; else None."""
        if (self.asked, self.part) != (other.asked, other.part):
            return None
        systems = tuple(dict.fromkeys((*self.systems, *other.systems)))
        return replace(self, numbers=(*self.numbers, *other.numbers), systems=systems)


def jobs_of(given: DpgenFolder, report: DpgenReport, *, remaining: bool) -> list[DpgenJob]:
    """Return the jobs that can be stages; the others are reported.

    Parameters
    ----------
    given, report
        DP-GEN's input, and the report.
    remaining
        Whether jobs of finished iterations are left out.
    """
    found: list[DpgenJob] = []
    left: dict[str, list[int]] = {}
    first = given.n_done if remaining else 0
    if first:
        report.facts.append(f"jobs of the {first} finished iterations are left out, as requested by --remaining")
    before: list[DpgenJob] = []
    for k, job in enumerate(given.jobs[first:], first):
        made = _of_job(given, job, k)
        if isinstance(made, str):
            left.setdefault(made, []).append(k)
            continue
        joined = [one.with_next(other) for one, other in zip(before, made, strict=False)]
        if len(before) == len(made) and None not in joined:
            made = [one for one in joined if one is not None]
            del found[-len(made) :]
        found += made
        before = made
    for why, numbers in left.items():
        report.facts.append(f"model_devi_jobs {', '.join(map(str, numbers))} left out: {why}")
    return found


def _of_job(given: DpgenFolder, job: Mapping[str, Any], k: int) -> list[DpgenJob] | str:
    """Return the stages of a job, one per window and condition of its template; or why it has none."""
    if not job.get("sys_idx"):
        return "without sys_idx"
    asked: list[dict[str, Any]] | str = _reason(job) or []
    if "template" in job:
        asked = stages_of_template(given, job)
        if isinstance(asked, str):
            return f"{asked}: write its stage by hand (ensemble custom, lammps: the lines of the integrator)"
    elif isinstance(asked, str):
        return asked
    else:
        asked = [_asked(given.param, job)]
    by_window: dict[tuple[float, float], list[int]] = {}
    for system in expanded(job["sys_idx"]):
        by_window.setdefault(window_in(given.param, job, system), []).append(system)
    everywhere = widest(given)
    found = [
        ({**one, **({} if window == everywhere else dict(zip(("f_lo", "f_hi"), window, strict=True)))}, tuple(systems))
        for window, systems in by_window.items()
        for one in asked
    ]
    letters = ascii_lowercase if len(found) <= len(ascii_lowercase) else [f"{i:03d}" for i in range(len(found))]
    parts = [f"-{letters[i]}" if len(found) > 1 else "" for i in range(len(found))]
    return [DpgenJob((k,), systems, one, part) for (one, systems), part in zip(found, parts, strict=True)]


def expanded(sys_idx: Sequence[Any]) -> tuple[int, ...]:
    """Return numbers of systems, for which DP-GEN allows ranges such as ``"0:4"`` and ``"0:10:2"``."""
    numbers: list[int] = []
    for one in sys_idx:
        if isinstance(one, str):
            first, *more = (int(word) for word in one.split(":"))
            numbers += range(first, *more) if more else [first]
        else:
            numbers.append(whole(one))
    if any(number < 0 for number in numbers):
        raise ValueError(f"sys_idx {min(numbers)} - expected numbers of systems from 0 on")
    return tuple(numbers)


def _reason(job: Mapping[str, Any]) -> str | None:
    """Return why a job cannot be a stage, or None."""
    for key in ("nbeads", "pka_e"):
        if job.get(key) is not None:
            return f"{key} has no counterpart"
    ensemble = alias(job, "ensemble", "ens")
    if ensemble not in ENSEMBLES:
        return f"ensemble {ensemble} - expected one of {', '.join(ENSEMBLES)}"
    required = {
        "temps": alias(job, "temps", "Ts"),
        "nsteps": job.get("nsteps"),
        "trj_freq": alias(job, "trj_freq", "t_freq", "traj_freq"),
        "press": alias(job, "press", "Ps") if ENSEMBLES[ensemble].startswith("npt") else True,
    }
    lacking = [key for key, value in required.items() if not value]
    return f"without {', '.join(lacking)}" if lacking else None


def _asked(param: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of the stage of a job that do not depend on its systems."""
    ensemble = ENSEMBLES[alias(job, "ensemble", "ens")]
    n_steps = whole(job["nsteps"])
    made: dict[str, Any] = {
        "ensemble": ensemble,
        "temperatures_K": _numbers(alias(job, "temps", "Ts")),
        "n_steps": n_steps,
        "every": min(whole(alias(job, "trj_freq", "t_freq", "traj_freq")), n_steps),
        "timestep_fs": round(1000.0 * float(job.get("dt", param.get("model_devi_dt", 0.002))), 9),
        "temperature_damping_ps": float(job.get("taut", param.get("model_devi_taut", _TAUT))),
    }
    if ensemble.startswith("npt"):
        made["pressures_bar"] = _numbers(alias(job, "press", "Ps"))
        made["pressure_damping_ps"] = float(job.get("taup", param.get("model_devi_taup", _TAUP)))
    lines = [_NVE] if ensemble == "custom" else []
    if lines := [*mass_lines(param), *lines]:
        made["lammps"] = "\n".join(lines)
    return made


def _numbers(given: Sequence[Any]) -> list[float]:
    """Return distinct numbers, in order."""
    return [*dict.fromkeys(float(one) for one in given)]


def mass_lines(param: Mapping[str, Any]) -> list[str]:
    """Return a LAMMPS line for each element that is not the standard isotope."""
    return isotopes(param["type_map"], masses_in(param))


def stages_of(jobs: Sequence[DpgenJob], starts: DpgenStarts) -> list[dict[str, Any]]:
    """Return the stages of jobs.

    Each start is walked at each condition, as in DP-GEN; if there are too few walks or frames for a verdict, there are
    more of them, with other velocities.
    """
    return [_stage(job, starts) for job in jobs]


def _stage(job: DpgenJob, starts: DpgenStarts) -> dict[str, Any]:
    numbers = [i for system in job.systems for i in starts.of_system.get(system, [])]
    asked, stop = job.asked, Stop()
    n_heats = len(asked.get("temperatures_K", ())) + len(asked.get("ramps_K", ()))
    n_conditions = n_heats * len(asked.get("pressures_bar", (None,)))
    n_frames = asked["n_steps"] // asked["every"] + 1
    n_walks = max(
        len(numbers),
        math.ceil(stop.min_walks / n_conditions),
        math.ceil(stop.min_frames / (n_conditions * n_frames)),
    )
    where: dict[str, Any] = {"systems": numbers} if numbers else {"start": "dataset"}
    return {"name": job.name, **asked, **where, "n_walks": n_walks}


def window_of(given: DpgenFolder, report: DpgenReport) -> tuple[float, float]:
    """Return f_lo and f_hi (eV/Å) of the campaign: the widest of all; stages have their own."""
    if not _bounds(given, _LOWER) or not _bounds(given, _UPPER):
        report.refuse(_LOWER, "no bounds of the force deviation - expected two numbers in eV/Å")
        return 0.15, 0.35
    return widest(given)


def widest(given: DpgenFolder) -> tuple[float, float]:
    """Return the smallest lower and the largest upper bound of the force deviation, eV/Å."""
    return min(_bounds(given, _LOWER)), max(_bounds(given, _UPPER))


def window_in(param: Mapping[str, Any], job: Mapping[str, Any], system: int) -> tuple[float, float]:
    """Return the window (eV/Å) of a system in a job: that of the job takes precedence."""
    lower, upper = (bound_in(param, job, key, system) for key in (_LOWER, _UPPER))
    if lower is None or upper is None:
        key = _LOWER if lower is None else _UPPER
        raise ConfigError(f"{key}: none for system {system} - expected one for every system of a job - add it")
    return lower, upper


def bound_in(param: Mapping[str, Any], job: Mapping[str, Any], key: str, system: int) -> float | None:
    """Return a bound of a system in a job; None: there is none.

    Parameters
    ----------
    param, job
        The run, and the job, which takes precedence.
    key
        Such as ``model_devi_f_trust_lo``.
    system
        Number of the system, for bounds that are a list or a mapping.
    """
    found = job.get(key) if job.get(key) is not None else param.get(key)
    if isinstance(found, list):
        found = found[system] if system < len(found) else None
    elif isinstance(found, Mapping):
        found = found.get(str(system))
    return None if found is None else float(found)


def _bounds(given: DpgenFolder, key: str) -> list[float]:
    found: list[float] = []
    for section in (given.param, *given.jobs):
        value = section.get(key)
        if isinstance(value, Mapping):
            found += [float(one) for one in value.values()]
        elif isinstance(value, list):
            found += [float(one) for one in value]
        elif value is not None:
            found.append(float(value))
    return found
