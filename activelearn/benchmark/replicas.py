"""Replicas: the measurements on the glasses of one condition; numbers and lines with standard errors and stamps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from activelearn.benchmark.property import Arrays, Condition, Context, Findings
from activelearn.frames import FloatArray
from activelearn.records import Curve, MadeGlass, Result, Task
from activelearn.stamping import CROWDED, NOT_JUDGED, UNSTABLE, UNTRUSTED, crowded, is_trusted, joined

#: Why there is nothing to average: no segment of the path is analysed (possible for that of a pore).
NO_FRAMES: Final = "no analysed frames"
#: The reason in the meta of a run that was finished.
_FINISHED: Final = "finished"


def mean_and_error(values: ArrayLike) -> tuple[FloatArray, FloatArray | None]:
    """Return the mean over replicas and its standard error.

    Parameters
    ----------
    values
        (n_replicas, ...) numbers, or lines of one length; of any unit.

    Returns
    -------
    mean, error
        (...,) in the units of the numbers; the error is the sample standard deviation divided by the root of n, None
        for one replica.
    """
    array = np.asarray(values, dtype=np.float64)
    error = None if len(array) < 2 else np.asarray(array.std(axis=0, ddof=1) / math.sqrt(len(array)))
    return np.asarray(array.mean(axis=0)), error


@dataclass(frozen=True, eq=False)
class Replicas:
    """The measurements on the replicas of one condition.

    Parameters
    ----------
    condition
        The condition that their numbers are labelled with.
    glasses, arrays, metas
        For each replica: the glass, and what was published.
    runs
        For each replica whose run was itself judged (``outside_share`` in its meta): the glass, with the verdict on the
        run in place of the path that it came from.
    """

    condition: Condition
    glasses: list[MadeGlass] = field(default_factory=list)
    arrays: list[Arrays] = field(default_factory=list)
    metas: list[dict[str, Any]] = field(default_factory=list)
    runs: list[MadeGlass] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.glasses)

    @property
    def stamp(self) -> str | None:
        """The worst stamp of the glasses and of runs with them: least movement, and most untrusted frames."""
        glasses = [*self.glasses, *self.runs]
        judged = [glass for glass in glasses if glass.is_trusted is not None]
        worst = max(judged, key=_doubt) if judged else next(iter(glasses), None)
        crystals = [glass.melt for glass in self.glasses if glass.melt is not None and glass.melt.is_melted is False]
        least = min(crystals, key=lambda melt: (-(melt.overlap or 0.0), melt.msd_A2 or 0.0), default=None)
        trust = stamped(None if worst is None else worst.trust, self.metas)
        return joined([None if least is None else least.said, trust])

    def result(
        self,
        name: str,
        unit: str,
        values: Sequence[float],
        note: str | None = None,
        unstable: str | None = None,
        **more: str,
    ) -> Result:
        """Return the mean of some values, one for each replica that has it.

        Parameters
        ----------
        name, unit, values
            Of the number.
        note
            Remark for the reader.
        unstable
            Why no stable solid can have it; None: it is possible.
        more
            Added to the condition.
        """
        mean, error = mean_and_error(values)
        return Result(
            name=name,
            value=float(mean),
            unit=unit,
            uncertainty=None if error is None else float(error),
            n_samples=len(values),
            condition={**self.condition, **more},
            stamp=self.stamp if unstable is None else joined([f"{UNSTABLE}: {unstable}", self.stamp]),
            note=note,
        )

    def curve(self, name: str, label: str, axes: tuple[str, str], key: str | None = None, **more: str) -> Curve:
        """Return one line of a figure.

        Parameters
        ----------
        name, label
            The figure, and the name of the line in it; see :class:`~activelearn.records.Curve`.
        axes
            Names of x and y, with their units.
        key
            Key of its numbers; None: name, condition and label.
        more
            Added to the condition.
        """
        condition = {**self.condition, **more}
        return Curve(
            key=key or "/".join([name, *map(str, condition.values()), label]),
            name=name,
            label=label,
            x_name=axes[0],
            y_name=axes[1],
            condition=condition,
            stamp=self.stamp,
        )


def measured(context: Context, tasks: Sequence[Task], found: Findings, **more: float) -> list[Replicas]:
    """Return the measurements on the glasses, one group for every condition that has any, in the order of the glasses.

    Parameters
    ----------
    context
        The study.
    tasks
        Of one property, one per glass.
    found
        Failed measurements are added to its problems: a product with ``{"ended": reason}`` in its meta.
    more
        Added to the conditions.
    """
    by_glass = {task.parameters["glass"]: task for task in tasks}
    groups = (
        replicas_of(context, [(glass, by_glass[glass.id]) for glass in glasses], {**condition, **more}, found)
        for condition, glasses in by_condition(glass for glass in context.glasses if glass.id in by_glass)
    )
    return [group for group in groups if len(group)]


def replicas_of(
    context: Context, runs: Iterable[tuple[MadeGlass, Task]], condition: Condition, found: Findings
) -> Replicas:
    """Return the products of the replicas of one condition; see :func:`measured`."""
    replicas = Replicas(condition)
    for glass, task in runs:
        arrays, meta = context.product(task)
        if meta.get("ended", _FINISHED) != _FINISHED:
            at = f" at {task.parameters['temperature_K']:g} K" if "temperature_K" in task.parameters else ""
            found.lacks(task.kind, f"{task.kind} of {glass.id}{at}", condition, meta["ended"])
            continue
        replicas.glasses.append(glass)
        replicas.arrays.append(arrays)
        replicas.metas.append(meta)
        if "outside_share" in meta and (meta["n_judged"] or meta.get("n_overflow")):
            replicas.runs.append(_judged(glass, meta, context.max_outside_share))
    return replicas


def over(groups: Sequence[Replicas], condition: Condition) -> Replicas:
    """Return the replicas of several conditions together, for a number derived from all of them."""
    rows = {f.name: [one for group in groups for one in getattr(group, f.name)] for f in fields(Replicas)[1:]}
    return Replicas(condition, **rows)


def by_condition(glasses: Iterable[MadeGlass]) -> list[tuple[Condition, list[MadeGlass]]]:
    """Return the replicas of every condition, in the order they come."""
    groups: dict[tuple[Any, ...], list[MadeGlass]] = {}
    for glass in glasses:
        condition: Condition = {"potential": glass.potential, "x": glass.x}
        if glass.cooling_rate_K_per_ps is not None:
            condition["cooling_rate_K_per_ps"] = glass.cooling_rate_K_per_ps
        if glass.is_porous:
            condition["porous"] = "yes"
        groups.setdefault(tuple(condition.items()), []).append(glass)
    return [(dict(key), group) for key, group in groups.items()]


# --- stamps -----------------------------------------------------------------------------------------------------------


def _judged(glass: MadeGlass, meta: Mapping[str, Any], max_outside_share: float) -> MadeGlass:
    """Return a glass with the verdict on a run that started from it."""
    nothing = {"n_overflow": 0, "overflow_share": None, "overflow": ""}
    seen = {name: meta.get(name, otherwise) for name, otherwise in nothing.items()}
    seen |= {"above_f_lo_share": meta.get("above_f_lo_share")}
    seen |= {name: meta[name] for name in ("n_judged", "outside_share")}
    trusted = is_trusted(meta["outside_share"], seen["n_overflow"], max_outside_share)
    return glass.model_copy(update={**seen, "is_trusted": trusted})


def _doubt(glass: MadeGlass) -> tuple[bool, float]:
    return not glass.is_trusted, max(glass.outside_share or 0.0, glass.overflow_share or 0.0)


def stamped(stamp: str | None, metas: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the stamp of some numbers, UNTRUSTED where a structure had more neighbours than the models hold.

    Parameters
    ----------
    stamp
        Whether the glasses that they come from can be trusted, if any.
    metas
        Of their tasks, each with what :func:`activelearn.engines.frozen.crowding` found.
    """
    full = [meta for meta in metas if meta.get("n_overflow")]
    if not full or CROWDED in (stamp or ""):
        return stamp
    worst = max(full, key=lambda meta: float(meta["overflow_share"]))
    said = crowded(str(worst["overflow"]), float(worst["overflow_share"]))
    before = "" if stamp is None or stamp == NOT_JUDGED else stamp.removeprefix(f"{UNTRUSTED}: ")
    return f"{UNTRUSTED}: {joined([before, said])}"
