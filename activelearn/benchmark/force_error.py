"""The true error of the forces along the path of every glass, from frames labelled by the reference.

The deviation of an ensemble shows where its members disagree, not how far all of them are from the reference: both are
reported for the same frames. Each frame is a task of its own, so a kill costs one label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from activelearn.benchmark.elements import unknown_elements
from activelearn.benchmark.property import Context, Findings, Observable, Product, Property
from activelearn.benchmark.replicas import Replicas, by_condition
from activelearn.config import ForceError, Label, Reference
from activelearn.engines import reference
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError, EngineError
from activelearn.frames import FloatArray, Frames
from activelearn.prediction import force_percentiles, mae_and_rmse
from activelearn.records import MadeGlass, Result, Task
from activelearn.store.glass_product import GlassPath

NAME: Final = "force_error"
#: The key of what labels the frames.
REFERENCE: Final = f"benchmark.{NAME}.label.reference"
#: Names of the results and their units, in the order of :attr:`AlongPath.numbers`.
_RESULTS: Final = {f"{NAME}_{what}": "eV/Å" for what in ("rmse", "p99", "max")}
_PER_DEVIATION: Final = f"{NAME}_per_deviation"


def spread(path: GlassPath, n_frames: int) -> list[int]:
    """Return which kept frames are nearest to times spread evenly over the whole path, each once."""
    times_ps = path.times_ps
    targets = np.linspace(times_ps[0], times_ps[-1], n_frames)
    return [int(row) for row in np.unique(np.abs(times_ps[:, None] - targets).argmin(axis=0))]


@dataclass(frozen=True, eq=False)
class AlongPath:
    """True error and force deviation of frames of one path.

    Parameters
    ----------
    error
        (n_frames, n_atoms, 3) forces of the potential minus those of the reference, eV/Å.
    max_devi_f
        (n_frames,) force deviation of the ensemble, eV/Å; NaN where none was evaluated, inf where it was not finite.
    """

    error: FloatArray
    max_devi_f: FloatArray

    @property
    def largest(self) -> FloatArray:
        """(n_frames,) largest error |dF| of an atom, eV/Å: what `max_devi_f` estimates."""
        return np.asarray(np.linalg.norm(self.error, axis=2).max(axis=1))

    @property
    def numbers(self) -> tuple[float, float, float]:
        """RMSE over components, 99th percentile and largest of |dF| of an atom, eV/Å."""
        return (
            mae_and_rmse(self.error)[1],
            force_percentiles(self.error.reshape(-1, 3))[1],
            float(self.largest.max()),
        )

    @property
    def per_deviation(self) -> float | None:
        """Median over frames of the ratio of largest error to force deviation; None without an ensemble."""
        is_known = np.isfinite(self.max_devi_f) & (self.max_devi_f > 0.0)
        return float(np.median(self.largest[is_known] / self.max_devi_f[is_known])) if is_known.any() else None

    def beyond(self, bound: float) -> str:
        """Return in how many frames error and deviation are at or above a bound (eV/Å), in words.

        Frames may be kept more often than the deviation is evaluated: those without one are not counted.
        """
        known = self.max_devi_f[~np.isnan(self.max_devi_f)]
        by_error, by_devi = int((self.largest >= bound).sum()), int((known >= bound).sum())
        beside = f"{by_devi} of {len(known)} by the deviation, where there is one" if len(known) else "no deviation"
        return f"at or above f_hi {by_error} of {len(self.error)} frames by their error, {beside}"


# --- the property -----------------------------------------------------------------------------------------------------


def plan(asked: ForceError, context: Context) -> list[Task]:
    """One task per frame of each glass."""
    _label(asked)
    return [
        Task(id=f"{NAME}-{glass.id}-{k:03d}", kind=NAME, parameters={"glass": glass.id, "row": row})
        for glass in context.glasses
        for k, row in enumerate(spread(context.path(glass), asked.n_frames))
    ]


def _label(asked: ForceError) -> Label:
    if asked.label is None:
        raise ConfigError(NO_REFERENCE)
    return asked.label


NO_REFERENCE: Final = (
    f"benchmark.{NAME}.label: none, and no campaign whose reference it could be - expected a reference for the frames "
    "- give a preset of params/label/, such as label: sevennet_0"
)


def run(task: Task, asked: ForceError, context: Context, slot: Slot) -> Product:
    """Have the potential and the reference label one frame.

    Returns
    -------
    arrays
        ``error`` (n_atoms, 3) eV/Å, the potential minus the reference.
    meta
        ``max_devi_f`` eV/Å, inf if it was not finite, None if none was evaluated; ``ended``: why there is no usable
        label, after a physical failure.
    """
    settings, row = _label(asked), task.parameters["row"]
    frame = context.path_of(task).frames[row : row + 1]
    bare, witnesses = frame.without_labels(), partial(_regular, frame)
    # The potential first: it costs next to nothing, and a computed label is lost if something fails after it.
    potential = context.potential_of(task).statics(slot.machine.python)
    mine = reference.label(potential, bare, slot, witnesses=witnesses)
    if mine.refused is not None:
        return {}, {"ended": f"the potential: {mine.refused}"}
    what = settings.reference
    reference.want_identity(what, slot, context.store.reference(what.name)["sha256"], record="reference.json")
    try:
        true = reference.label(what, bare, slot, witnesses=witnesses)
    except EngineError as error:
        # A calculator that does not answer would also take an hour for each element.
        unknown = () if "no answer within" in str(error) else unknown_elements(what, frame.symbols, slot)
        if not unknown:
            raise
        return {}, {"ended": f"the reference does not know {', '.join(unknown)}"}
    if (why := reference.refusal(true, settings)) is not None:
        return {}, {"ended": f"the reference: {why}"}
    devi = float(frame.origin["max_devi_f"][0])
    return {"error": mine.forces - true.forces}, {"max_devi_f": None if np.isnan(devi) else devi}


def _regular(frame: Frames) -> list[Frames]:
    return [reference.regular(frame)]


def results(asked: ForceError, context: Context, tasks: Sequence[Task]) -> Findings:
    """Return the errors of every glass, and their means over replicas."""
    findings, by = Findings(), f"against {_said(_label(asked).reference, context)}"
    for condition, glasses in by_condition(context.glasses):
        made: list[_Measured] = []
        for glass in glasses:
            found, lost = _along(glass, context, [t for t in tasks if t.parameters["glass"] == glass.id])
            if found is not None:
                made.append(_Measured(glass, found, lost))
            else:
                findings.lacks(NAME, f"{NAME} of {glass.id}", condition, lost)
        if made:
            replicas = Replicas(condition, [one.glass for one in made])
            window = context.study.potential(str(condition["potential"])).window
            findings.results += _of_each(replicas, made, by, window)
            findings.results += _means(replicas, made, by)
    return findings


@dataclass(frozen=True, eq=False)
class _Measured:
    """The findings on one glass, and in words what is missing."""

    glass: MadeGlass
    along: AlongPath
    lost: str


def _said(what: Reference, context: Context) -> str:
    """Return the reference in words: name, version and functional."""
    version = context.store.reference(what.name)["version"]
    return f"{what.name} {version} ({what.functional}{', with dispersion' if what.labels_include_dispersion else ''})"


def _along(glass: MadeGlass, context: Context, tasks: Sequence[Task]) -> tuple[AlongPath | None, str]:
    """Return the findings on one glass, and in words which frames have no error and why; empty: all have one."""
    products = [context.product(task) for task in tasks]
    ended = Counter(str(meta["ended"]) for _, meta in products if "ended" in meta)
    errors = [arrays["error"] for arrays, meta in products if "ended" not in meta]
    devi = [meta["max_devi_f"] for _, meta in products if "ended" not in meta]
    found = AlongPath(np.array(errors), np.array(devi, dtype=np.float64)) if errors else None
    return found, ", ".join(f"{n} of {len(tasks)} frames without: {why}" for why, n in ended.items())


def _of_each(
    replicas: Replicas, made: Sequence[_Measured], by: str, window: tuple[float, float] | None
) -> list[Result]:
    found = []
    for measured in made:
        glass, one = measured.glass, measured.along
        note = "; ".join(filter(None, [by, one.beyond(window[1]) if window is not None else "", measured.lost]))
        mine = Replicas({**replicas.condition, "replica": glass.replica}, [glass])
        values = dict(zip(_RESULTS, one.numbers, strict=True))
        said = [mine.result(name, _RESULTS[name], [value], note) for name, value in values.items()]
        if one.per_deviation is not None:
            said.append(mine.result(_PER_DEVIATION, "1", [one.per_deviation], note))
        found += [result.model_copy(update={"n_samples": len(one.error), "uncertainty": None}) for result in said]
    return found


def _means(replicas: Replicas, made: Sequence[_Measured], by: str) -> list[Result]:
    rows: NDArray[np.float64] = np.array([one.along.numbers for one in made])
    note = f"{by}; mean over glasses of {min(len(one.along.error) for one in made)} frames or more"
    found = [replicas.result(name, unit, rows[:, k].tolist(), note) for k, (name, unit) in enumerate(_RESULTS.items())]
    ratios = [ratio for one in made if (ratio := one.along.per_deviation) is not None]
    return found + ([replicas.result(_PER_DEVIATION, "1", ratios, note)] if ratios else [])


PROPERTY = Property(
    NAME,
    ForceError,
    run,
    results,
    plan,
    runs_potential=True,
    observables={f"{NAME}_(?:rmse|p99|max)": Observable("eV/Å"), _PER_DEVIATION: Observable("1")},
)
