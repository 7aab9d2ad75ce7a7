"""Data from sealed products: force deviations, learning curves, forces of labels, neighbours; and disk usage."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn import capacity, geometry
from activelearn.config import Campaign
from activelearn.frames import FloatArray, Frames, unpack
from activelearn.records import End, Iteration
from activelearn.store import Store
from activelearn.store.files import read_npz

#: Number of the densest last labelled frames in which neighbours are counted.
_DENSEST: Final = 20
#: Two frames are strains of one structure if their atoms deviate at most this from the strain, Å rms, ...
_SAME_A: Final = 0.5
#: ... and the strain is within these limits.
_STRAINS: Final = (1.0e-3, 0.06)
#: Maximum number of pairs of frames whose energies are compared with forces and virials.
_MOST_PAIRS: Final = 400
#: Edges of the bins of force deviations, eV/Å.
EDGES: Final[FloatArray] = np.geomspace(0.01, 10.0, 61)
#: Maximum number of points of a learning curve that are shown.
_MOST_POINTS: Final = 200


@dataclass(frozen=True)
class Fill:
    """Largest number of neighbours of one kind, and the limit of the models."""

    kind: str
    most: int
    room: int
    rcut: float


@dataclass(frozen=True)
class Disk:
    """Disk usage of a folder: files and bytes without models and scratch, bytes of models, free bytes."""

    n_files: int
    n_bytes: int
    n_bytes_models: int
    n_bytes_free: int


@dataclass(frozen=True, eq=False)
class Worst:
    """A frame, and the (n_atoms,) error |dF| of the force on each of its atoms, eV/Å."""

    frame: Frames
    error: FloatArray


@dataclass(frozen=True, eq=False)
class Doubted:
    """The frame that the members agree on least, of those that the walks of a pass have kept.

    Parameters
    ----------
    iteration
        The pass.
    frame
        One frame, Å.
    deviation
        (n_atoms,) force deviation of each atom, eV/Å.
    symbols, deviations
        (n,) element and force deviation (eV/Å) of every atom of the worst kept frame of each walk of the pass.
    """

    iteration: int
    frame: Frames
    deviation: FloatArray
    symbols: NDArray[np.str_]
    deviations: FloatArray

    def rms(self, which: NDArray[np.bool_]) -> float:
        """Return the root mean square of the deviations of some atoms, eV/Å.

        Parameters
        ----------
        which
            (n,) mask.
        """
        return float(np.sqrt((self.deviations[which] ** 2).mean()))


@dataclass(frozen=True, eq=False)
class Residual:
    """Forces on the last labelled frames: of the model that drove the walk, and of the reference.

    Parameters
    ----------
    iteration
        Iteration that labelled them; the model was not trained on them.
    symbols
        (n,) element of every atom of every frame.
    model, reference
        (n, 3) eV/Å.
    worst
        The frame with the largest error of an atom; None if not stored.
    """

    iteration: int
    symbols: NDArray[np.str_]
    model: FloatArray
    reference: FloatArray
    worst: Worst | None = None

    def rms(self, which: NDArray[np.bool_]) -> float:
        """Return the root mean square error of the components of some atoms, eV/Å.

        Parameters
        ----------
        which
            (n,) mask.
        """
        return float(np.sqrt(((self.model[which] - self.reference[which]) ** 2).mean()))


@dataclass(frozen=True)
class Slope:
    """Consistency of energies with forces and virials between strains of a structure.

    Parameters
    ----------
    value
        Ratio of actual energy differences to those given by virials; 1 if consistent.
    n_pairs
        Number of pairs of frames.
    """

    value: float
    n_pairs: int


@dataclass(frozen=True, eq=False)
class DeviationCounts:
    """Force deviations of the frames of one stage in one pass.

    Parameters
    ----------
    iteration, stage
        Iteration and stage.
    counts
        (60,) number of frames by bin of :data:`EDGES`; values outside count in the first or last bin.
    """

    iteration: int
    stage: str
    counts: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MemberCurve:
    """The learning curve of one member.

    Parameters
    ----------
    station, iteration, member
        Identification; the station is ``train`` or ``final``.
    columns
        Names of the columns, ``step`` first.
    rows
        (n_rows, n_columns) of each column, in the units of the trainer (eV/Å of ``rmse_f_trn``).
    """

    station: str
    iteration: int
    member: int
    columns: tuple[str, ...]
    rows: FloatArray


def fill_of(store: Store, campaign: Campaign, last: int | None) -> tuple[Fill, ...]:
    """Return how full `sel` is, in the densest frames of the last iteration that added any, and of the first."""
    if last is None:
        return ()
    held = capacity.of_models(campaign, store)
    added = [k for k in range(last + 1) if store.n_training_frames(k) > 0]
    frames = [part[k] for i in sorted({added[0], added[-1]}) for part in store.training(i) for k in range(len(part))]
    frames = [frame for frame in frames if all(frame.pbc)] if added and held else []
    frames = sorted(frames, key=lambda frame: float(frame.volume[0]) / frame.n_atoms)[:_DENSEST]
    found = []
    for one in held if frames else ():
        most = np.max([geometry.most_neighbours(frame, one.rcut, one.kinds) for frame in frames], axis=0)
        rows = zip(one.kinds, most.tolist(), one.sel, strict=True)
        found += [Fill(kind, n, room, one.rcut) for kind, n, room in rows]
    return tuple(found)


def residual_of(store: Store, records: Sequence[Iteration]) -> Residual | None:
    """Return model and reference forces of the last iteration that labelled walks."""
    walked = [r.index for r in records if r.selection is not None and r.labelling.calibration]
    if not walked:
        return None
    arrays = read_npz(store.whole(store.chosen_file(walked[-1])))[0]
    driving = {}
    for p, part in enumerate(unpack(arrays)):
        if f"{p}/model_forces" in arrays:
            steps = part.origin["step"].tolist()
            driving.update(
                {(str(part.origin["walk"][0]), step): arrays[f"{p}/model_forces"][k] for k, step in enumerate(steps)}
            )
    symbols: list[str] = []
    model: list[NDArray[Any]] = []
    reference: list[NDArray[Any]] = []
    worst: Worst | None = None
    for part in store.training(walked[-1]):
        for k in range(len(part)):
            key = (str(part.origin["walk"][k]), int(part.origin["step"][k]))
            if key in driving and part.forces is not None:
                symbols += part.symbols
                model.append(driving[key])
                reference.append(part.forces[k])
                error = np.linalg.norm(model[-1] - part.forces[k], axis=1).astype(np.float64)
                if worst is None or error.max() > worst.error.max():
                    worst = Worst(part[k], error)
    if not model:
        return None
    forces = [np.concatenate(side).astype(np.float64) for side in (model, reference)]
    return Residual(walked[-1], np.array(symbols), forces[0], forces[1], worst)


def doubted_of(store: Store, records: Sequence[Iteration]) -> Doubted | None:
    """Return the worst kept frame of the last pass; None if its walks did not publish deviations of atoms."""
    index = next((r.index for r in reversed(records) if r.selection is not None), None)
    plan = store.find_plan("explore", index) if index is not None else None
    if index is None or plan is None:
        return None
    found: dict[str, tuple[NDArray[np.str_], FloatArray]] = {}
    for task in plan.tasks:
        arrays, _ = store.read_some("explore", index, task.id, ["kept/symbols", "worst_devi_f"])
        if "worst_devi_f" in arrays:
            found[task.id] = arrays["kept/symbols"], arrays["worst_devi_f"].astype(np.float64)
    if not found:
        return None
    worst = max(found, key=lambda name: float(found[name][1].max()))
    arrays, _ = store.read_product("explore", index, worst)
    frame = Frames.from_arrays(arrays, "kept/")[int(arrays["worst_kept"])]
    symbols, deviations = (np.concatenate(side) for side in zip(*found.values(), strict=True))
    return Doubted(index, frame, found[worst][1], symbols, deviations)


def slope_of_initial(store: Store, records: Sequence[Iteration]) -> Slope | None:
    """Return :func:`slope_of` of the initial data."""
    return slope_of(store.training(0)) if records else None


def slope_of(parts: Sequence[Frames]) -> Slope | None:
    """Return the consistency of energies and virials of labelled frames between strains of a structure.

    For two frames a, b with the same atoms, E_b - E_a is -(W_a + W_b)/2 : e - (F_a + F_b)/2 . u to the third order in
    the strain e and the displacements u beyond it (W: virial, eV; F: forces, eV/Å). The slope is that of E_b - E_a plus
    the second term against the first, by least squares; None without pairs that differ in strain. Of SevenNet-0 on
    Na3PS4 between 0.80 (scales 0.99 to 1.01, where the second term is as large) and 1.04; a wrong sign gives -1.

    Parameters
    ----------
    parts
        Labelled frames, Å, eV, eV/Å; the first frame of each trajectory is used.
    """
    pairs: list[tuple[float, float]] = []
    groups: dict[tuple[str, ...], list[Frames]] = {}
    for part in parts:
        for k in np.flatnonzero((part.origin["step"] == 0) & part.has_virial):
            groups.setdefault(part.symbols, []).append(part[int(k)])
    for frames in groups.values():
        for i, a in enumerate(frames):
            pairs += [pair for b in frames[i + 1 :] if (pair := _pair(a, b)) is not None]
            if len(pairs) >= _MOST_PAIRS:
                break
    said, found = (np.array(side) for side in zip(*pairs, strict=True)) if pairs else (np.empty(0), np.empty(0))
    total = float((said**2).sum())
    return Slope(float((said * found).sum()) / total, len(pairs)) if total > 0.0 else None


def _pair(a: Frames, b: Frames) -> tuple[float, float] | None:
    """Return the energy difference of two frames by virials, and the actual one, eV; None if not a pair."""
    if a.virial is None or b.virial is None or not all(a.pbc) or not all(b.pbc):
        return None
    strain = np.linalg.solve(a.cell[0], b.cell[0]) - np.eye(3)
    strain = (strain + strain.T) / 2.0
    moved = b.fractional()[0] - a.fractional()[0]
    moved -= np.rint(moved)
    moved -= moved.mean(axis=0)
    u = moved @ (a.cell[0] + b.cell[0]) / 2.0
    if (
        not _STRAINS[0] < float(np.abs(strain).max()) < _STRAINS[1]
        or float(np.sqrt((u**2).sum(axis=1).mean())) > _SAME_A
    ):
        return None
    forces = (a.label("forces")[0] + b.label("forces")[0]) / 2.0
    # The mean of both ends of the linear strain from a to b is exact to second order.
    logarithmic = strain - strain @ strain / 2.0
    said = -float(((a.virial[0] + b.virial[0]) / 2.0 * logarithmic).sum())
    by_forces = float((forces * u).sum())
    found = float(b.label("energy")[0] - a.label("energy")[0]) + by_forces
    is_clear = math.isfinite(found) and abs(said) > abs(by_forces)  # else the error of the second term dominates
    return (said, found) if is_clear else None


def disk_of(folder: Path) -> Disk:
    """Return the disk usage of a folder; models are counted separately, scratch and claims not at all."""
    n_files = n_bytes = n_models = 0
    for path in folder.rglob("*"):
        top = path.relative_to(folder).parts[0]
        if top in {"scratch", "claims", "begun"} or not path.is_file():
            continue
        size = path.stat().st_size
        n_files += 1
        n_models += size if top == "models" else 0
        n_bytes += 0 if top == "models" else size
    return Disk(n_files, n_bytes, n_models, shutil.disk_usage(folder).free)


def deviations_of(store: Store, records: Sequence[Iteration]) -> tuple[DeviationCounts, ...]:
    """Return the force deviations of the last pass, and of the first pass that walked each of its stages."""
    passes = [r for r in records if r.selection is not None]
    walked = [(r.index, list(dict.fromkeys(cell.stage for cell in r.selection.cells))) for r in passes if r.selection]
    if not walked:
        return ()
    last, stages = walked[-1]
    first = {stage: next(index for index, names in walked if stage in names) for stage in stages}
    requested: dict[int, list[str]] = {last: list(stages)}
    for stage, index in first.items():
        if index != last:
            requested.setdefault(index, []).append(stage)
    found = []
    for index in sorted(requested):
        counts = {stage: np.zeros(len(EDGES) - 1, dtype=np.int64) for stage in requested[index]}
        for task in store.plan("explore", index).tasks:
            stage = str(task.parameters["stage"])
            if stage in counts:
                arrays, _ = store.read_some("explore", index, task.id, ["max_devi_f"])
                counts[stage] += _binned(arrays.get("max_devi_f", np.empty(0)))
        found += [DeviationCounts(index, stage, one) for stage, one in counts.items()]
    return tuple(found)


def _binned(values: NDArray[Any]) -> NDArray[np.int64]:
    finite = np.clip(values[np.isfinite(values)], EDGES[0], EDGES[-1] * (1.0 - 1.0e-9))
    return np.asarray(np.histogram(finite, EDGES)[0], dtype=np.int64)


def learning_curves_of(store: Store, records: Sequence[Iteration], end: End | None) -> tuple[MemberCurve, ...]:
    """Return the learning curves of the last training of the loop, and of final models trained from scratch."""
    if not records:
        return ()
    requested = [("train", records[-1].ensemble.trained_in)]
    if end is not None and store.is_sealed("final", end.iteration):
        requested.append(("final", end.iteration))
    found = []
    for station, iteration in requested:
        plan = store.find_plan(station, iteration)
        for k, task in enumerate(plan.tasks if plan is not None else ()):
            arrays, meta = store.read_some(station, iteration, task.id, ["learning_curve"])
            rows = arrays.get("learning_curve")
            if rows is not None and len(rows):
                every = -(-len(rows) // _MOST_POINTS)
                columns = tuple(meta["learning_curve_columns"])
                found.append(MemberCurve(station, iteration, k, columns, np.asarray(rows[::every], dtype=np.float64)))
    return tuple(found)
