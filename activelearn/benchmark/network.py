"""The network of glasses as a property: counts averaged over frames and replicas, and where bridging anions cross.

The definitions are in :mod:`activelearn.benchmark.census`. No paper reports its cutoffs, so every number is given with
its change when all of them are shifted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.benchmark.census import bond_cutoffs, census, unit_names
from activelearn.benchmark.property import ELEMENT, Condition, Context, Findings, Observable, Product, Property
from activelearn.benchmark.replicas import NO_FRAMES, Replicas, mean_and_error, measured, over
from activelearn.config import Glass, Network, Roles
from activelearn.engines.process import Slot
from activelearn.records import Result, Task


def plan(asked: Network, context: Context) -> list[Task]:
    """Return one task per glass."""
    bond_cutoffs(context.series)  # a cutoff that is missing is missed before anything runs
    return context.tasks_of("network")


def run(task: Task, asked: Network, context: Context, slot: Slot) -> Product:
    """Count the network of one glass.

    Returns
    -------
    arrays
        ``values/<name>`` (3, n_analysed): with cutoffs shifted by -, 0 and + `Network.cutoff_shift_A`;
        ``chains/<name>`` (k,) mean over the analysed frames; if the evolution is requested ``evolution/<name>``
        (n_frames,) of all frames, with ``segment``, ``temperature_K`` and ``time_ps`` of each.
    meta
        Nothing.
    """
    series, path = context.series, context.path_of(task)
    if len(path.analysed_frames) == 0:
        return {}, {"ended": NO_FRAMES}
    shifts = (-asked.cutoff_shift_A, 0.0, asked.cutoff_shift_A)
    found = [census(path.analysed_frames, bond_cutoffs(series, shift), series.roles) for shift in shifts]
    arrays: dict[str, NDArray[Any]] = {
        f"values/{name}": np.array([one.values[name] for one in found]) for name in found[1].values
    }
    arrays |= {f"chains/{name}": percent.mean(axis=0) for name, percent in found[1].chains.items()}
    if asked.evolution and context.study.glasses is None:  # the schedule of glasses that were given is not known
        of_all = census(path.frames, bond_cutoffs(series), series.roles)
        arrays |= {f"evolution/{name}": value for name, value in of_all.values.items()}
        arrays |= {"segment": path.segment_of_frames, "time_ps": path.frame_time_ps}
        arrays |= {"temperature_K": path.frames.origin["temperature_K"]}
    return arrays, {}


def _names(replicas: Replicas, prefix: str) -> list[str]:
    """Return the counts, by the names of the arrays under a prefix."""
    return [key.removeprefix(prefix) for key in replicas.arrays[0] if key.startswith(prefix)]


def _means(replicas: Replicas, name: str, shift: int = 1) -> list[float]:
    """Return for each replica the mean over its frames that have this value."""
    rows = [arrays[f"values/{name}"][shift] for arrays in replicas.arrays]
    return [float(row[np.isfinite(row)].mean()) for row in rows if np.isfinite(row).any()]


def results(asked: Network, context: Context, tasks: Sequence[Task]) -> Findings:
    """Average over replicas; add the dependence on the cutoffs, the crossing of bridging anions, and the evolution."""
    findings = Findings()
    conditions, roles = measured(context, tasks, findings), context.series.roles
    for replicas in conditions:
        _add_numbers(findings, replicas, asked.cutoff_shift_A, roles)
        _add_chain_sizes(findings, replicas)
        if "segment" in replicas.arrays[0]:
            _add_evolution(findings, replicas, context.glass)
    _add_crossings(findings, conditions, roles)
    return findings


def _add_numbers(findings: Findings, replicas: Replicas, shift_A: float, roles: Roles) -> None:
    where = _said(replicas.condition)
    for name in _names(replicas, "values/"):
        values = _means(replicas, name)
        if name == "bridging_rule":
            if any(abs(value) > 1e-9 for value in values):
                findings.problems.append(
                    f"network of {where}: bridging anions do not match the sum over units: {values}"
                )
        elif not values and name == "charge_rule":
            high = f"a {'/'.join(roles.formers)} of more than {roles.coordination} neighbours in every frame"
            findings.problems.append(f"charge_rule of {where}: not applicable: {high}")
        elif values and (any(values) or not _is_beyond(name, roles)):
            note = _note(replicas, name, shift_A)
            findings.results.append(replicas.result(name, _unit(name), values, note))


def _note(replicas: Replicas, name: str, shift_A: float) -> str | None:
    """Return how a number changes with the cutoffs, and from how many frames it is if not all."""
    said = []
    if shift_A:
        value, (less, more) = np.mean(_means(replicas, name)), (_means(replicas, name, k) for k in (0, 2))
        changes = [f"{np.mean(means) - value:+.2g}" if means else "none" for means in (less, more)]
        said.append(f"±{shift_A:g} Å: {' / '.join(changes)}")
    has_it = np.concatenate([np.isfinite(arrays[f"values/{name}"][1]) for arrays in replicas.arrays])
    if not has_it.all():
        said.append(f"of {100 * has_it.mean():.0f} % of the frames")
    return "; ".join(said) or None


def _unit(name: str) -> str:
    return "1" if name == "charge_rule" or name.endswith("_chain_length") else "%"


def _is_beyond(name: str, roles: Roles) -> bool:
    """Return whether this is a P^n with more bridges than the former has charges: reported only if there are any."""
    return any(
        name == f"{former}{n}" for former, z in roles.formers.items() for n in range(z + 1, roles.coordination + 1)
    )


def _said(condition: Condition) -> str:
    return ", ".join(f"{value}" if key == "potential" else f"{key} = {value}" for key, value in condition.items())


def _key(name: str, replicas: Replicas, *more: str) -> str:
    return "/".join(["network", name, *map(str, replicas.condition.values()), *more])


def _add_chain_sizes(findings: Findings, replicas: Replicas) -> None:
    for label in _names(replicas, "chains/"):
        rows = [arrays[f"chains/{label}"] for arrays in replicas.arrays]
        widest = max(len(row) for row in rows)
        mean, error = mean_and_error([np.pad(row, (0, widest - len(row))) for row in rows])
        axes, key = ("atoms in the chain", f"share of {label} (%)"), _key("chain_sizes", replicas, label)
        curve = replicas.curve("chain_sizes", label, axes, key)
        findings.add_curve(curve, np.arange(2, widest), mean[2:], None if error is None else error[2:])


def _add_evolution(findings: Findings, replicas: Replicas, glass: Glass) -> None:
    """Add one line per unit and segment: against the imposed temperature where it falls, against time elsewhere."""
    legs = {leg.name: leg for leg in (*glass.segments, *(glass.pore.segments if glass.pore is not None else ()))}
    first, roles = replicas.arrays[0], glass.series.roles
    requested = {f"{anion}_in_chains": anion for anion in roles.anions}
    for former in roles.formers:
        requested |= dict.fromkeys(unit_names(former, roles), former)
    for segment in dict.fromkeys(str(name) for name in first["segment"]):
        leg = legs.get(segment)
        falls = leg is not None and leg.end_K < leg.temperature_K
        column, x_name = ("temperature_K", "T (K)") if falls else ("time_ps", "t (ps)")
        x = first[column][first["segment"] == segment]
        for name in _names(replicas, "evolution/"):
            if name in requested:
                rows = [arrays[f"evolution/{name}"][arrays["segment"] == segment] for arrays in replicas.arrays]
                axes, key = (x_name, f"share of {requested[name]} (%)"), _key("evolution", replicas, segment, name)
                curve = replicas.curve("evolution", name, axes, key, segment=segment)
                findings.add_curve(curve, x, *mean_and_error(rows))


def _add_crossings(findings: Findings, conditions: Sequence[Replicas], roles: Roles) -> None:
    """Add the x at which two anions bridge (or do not) equally often, for every potential and cooling rate."""
    lines: dict[tuple[Any, ...], list[Replicas]] = {}
    for replicas in conditions:
        key = tuple(item for item in replicas.condition.items() if item[0] != "x")
        lines.setdefault(key, []).append(replicas)
    for key, members in lines.items():
        if len(members) < 2:
            continue
        line = sorted(members, key=lambda replicas: float(replicas.condition["x"]))
        for prefix in ("B", "NB"):
            for a, b in combinations(sorted(roles.anions), 2):
                name, pair = f"crossing_{prefix}{a}_{prefix}{b}", (f"{prefix}{a}", f"{prefix}{b}")
                found = list(_crossings(line, *pair))
                if not found:
                    findings.problems.append(f"{name} of {_said(dict(key))}: no crossing within the series")
                    continue
                findings.results.append(
                    Result(
                        name=name,
                        value=found[0][0],
                        unit="1",
                        uncertainty=found[0][1],
                        n_samples=min(len(replicas) for replicas in line),
                        condition=dict(key),
                        stamp=over(line, dict(key)).stamp,
                        note=f"the first of {len(found)} crossings" if len(found) > 1 else None,
                    )
                )


def _crossings(line: Sequence[Replicas], a: str, b: str) -> Iterator[tuple[float, float | None]]:
    """Yield x and its standard error wherever the mean curves of `a` and `b`, linear between compositions, cross.

    Between x_1 and x_2 with differences d_1 and d_2 it is x = x_1 + (x_2 - x_1) d_1 / (d_1 - d_2); their standard
    errors are propagated. Compositions of equal shares are skipped: the curves may touch, or neither anion be present.
    """
    points = []
    for replicas in line:
        if a not in _names(replicas, "values/"):
            continue  # a composition without anions
        mean, error = mean_and_error(np.subtract(_means(replicas, a), _means(replicas, b)))
        if mean != 0.0:
            points.append((float(replicas.condition["x"]), float(mean), None if error is None else float(error)))
    for (x_1, d_1, error_1), (x_2, d_2, error_2) in pairwise(points):
        if d_1 * d_2 < 0.0:
            slope = (x_2 - x_1) / (d_1 - d_2) ** 2
            carried = None if error_1 is None or error_2 is None else slope * math.hypot(d_2 * error_1, d_1 * error_2)
            yield x_1 + (x_2 - x_1) * d_1 / (d_1 - d_2), carried


_SHARE: Final = Observable("%", high=100.0)
PROPERTY = Property(
    "network",
    Network,
    run,
    results,
    plan,
    observables={
        rf"{ELEMENT}[0-9]": _SHARE,
        rf"{ELEMENT}1{ELEMENT}": _SHARE,
        rf"{ELEMENT}(?:[23]c|2ES|2_corner|_other)": _SHARE,
        rf"(?:B|NB|free_){ELEMENT}": _SHARE,
        rf"{ELEMENT}_(?:in_chains|chains_of_three)": _SHARE,
        rf"{ELEMENT}_chain_length": Observable("1"),
        "former_chains|three_bonded_anions": _SHARE,
        rf"free_{ELEMENT}_in_chains|{ELEMENT}-{ELEMENT}_bonds": _SHARE,
        "charge_rule": Observable("1", low=-math.inf),
        rf"crossing_N?B{ELEMENT}_N?B{ELEMENT}": Observable("1", of=()),
    },
)
