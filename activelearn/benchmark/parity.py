"""Errors of energies, forces and virials against labelled frames, from any reference.

Potentials of different origin have different zeros of energy: energies are compared as they are, and after a shift per
element has been removed that is the least-squares fit to the differences. Energies and virials are per atom.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn import prediction
from activelearn.benchmark.elements import unknown_elements
from activelearn.benchmark.property import Condition, Context, Findings, Product, Property
from activelearn.benchmark.replicas import stamped
from activelearn.config import Parity, Reference
from activelearn.engines import frozen, reference
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError, EngineError
from activelearn.frames import FloatArray, FrameLabel, Frames, unpack
from activelearn.records import Curve, Missing, Result, Task
from activelearn.store import read_npz
from activelearn.store.files import file_sha256
from activelearn.structures import read_structures

NAME: Final = "parity"
#: The held-out set of a campaign, copied into the folder of its study.
HELD_OUT: Final = "held-out.npz"
#: Frames per task.
CHUNK: Final = 100
#: Largest number of points of a scatter plot, and how many of them are those with the largest errors.
MAX_POINTS: Final = 5000
_WORST: Final = 250

# --- arrays -----------------------------------------------------------------------------------------------------------


def element_shifts(difference: FloatArray, counts: NDArray[np.int64]) -> FloatArray:
    """Return the energy per atom of each element that explains most of the differences of energies, eV.

    Parameters
    ----------
    difference
        (n_frames,) potential minus reference, eV.
    counts
        (n_frames, n_elements) numbers of atoms.

    Returns
    -------
    FloatArray
        (n_elements,): least squares of what is per atom; the minimum-norm solution where the compositions do not
        distinguish the elements.
    """
    n_atoms = counts.sum(axis=1)
    return np.asarray(np.linalg.lstsq(counts / n_atoms[:, None], difference / n_atoms, rcond=None)[0])


def thinned(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return at most :data:`MAX_POINTS` of the points (n,), x and y of any unit: the worst, and others at random."""
    if len(x) <= MAX_POINTS:
        return x, y
    by_error = np.argsort(-np.abs(y - x), kind="stable")
    others = rng.choice(by_error[_WORST:], MAX_POINTS - _WORST, replace=False)
    chosen = np.sort(np.concatenate([by_error[:_WORST], others]))
    return x[chosen], y[chosen]


@dataclass(frozen=True)
class SideBySide:
    """Labels of a reference and a potential on the same frames; of each two numbers the reference's comes first.

    Parameters
    ----------
    elements
        Columns of `counts`.
    counts
        (n_frames, n_elements) atoms.
    energy
        (n_frames, 2) eV.
    forces
        (atoms of all frames, 2, 3) eV/Å.
    virial
        (n_frames, 2, 3, 3) eV; NaN where there is none.
    """

    elements: tuple[str, ...]
    counts: NDArray[np.int64]
    energy: FloatArray
    forces: FloatArray
    virial: FloatArray

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """(n_frames,) counts of atoms."""
        return np.asarray(self.counts.sum(axis=1))

    @property
    def shifts(self) -> FloatArray:
        """(n_elements,) differences of the zeros of energy, eV; see :func:`element_shifts`."""
        return element_shifts(self.energy[:, 1] - self.energy[:, 0], self.counts)

    @property
    def shifted_energy(self) -> FloatArray:
        """(n_frames,) the potential's energy with the reference's zero, eV."""
        return np.asarray(self.energy[:, 1] - self.counts @ self.shifts)

    def errors(self) -> Iterator[tuple[str, float, str, int]]:
        """Yield name, value, unit and number of frames of every measure."""
        n, per_atom = len(self.energy), 1000.0 / self.n_atoms
        has_virial = np.isfinite(self.virial).all(axis=(1, 2, 3))
        force = self.forces[:, 1] - self.forces[:, 0]
        virial = (self.virial[:, 1] - self.virial[:, 0]) * per_atom[:, None, None]
        for name, values, unit, n_frames in (
            ("energy_{}", (self.energy[:, 1] - self.energy[:, 0]) * per_atom, "meV/atom", n),
            ("energy_{}_shifted", (self.shifted_energy - self.energy[:, 0]) * per_atom, "meV/atom", n),
            ("force_{}", force, "eV/Å", n),
            ("virial_{}", virial[has_virial], "meV/atom", int(has_virial.sum())),
        ):
            if n_frames:
                mae, rmse = prediction.mae_and_rmse(values)
                yield name.format("mae"), mae, unit, n_frames
                yield name.format("rmse"), rmse, unit, n_frames
        for percent, value in zip((95, 99), prediction.force_percentiles(force), strict=True):
            yield f"force_p{percent}", value, "eV/Å", n


# --- the labelled frames ----------------------------------------------------------------------------------------------


def _source(asked: Parity, context: Context) -> Path | None:
    """Return the file of the labelled frames, or None if there is none."""
    if asked.frames is not None:
        return Path(asked.frames)
    held_out = context.store.folder / HELD_OUT
    return held_out if held_out.is_file() else None


@lru_cache(maxsize=2)
def labelled_frames(path: Path, sha256: str) -> tuple[Frames, ...]:
    """Return the frames of an extxyz, or of an archive of :func:`activelearn.frames.pack`, one by one.

    Raises
    ------
    ConfigError
        The file cannot be read, or a frame has no energy or no forces, or a number that is not finite.
    """
    expected = "expected an extxyz with energy and forces (and stress) in every frame"
    if path.suffix == ".npz":
        found = tuple(part[k] for part in unpack(read_npz(path)[0]) for k in range(len(part)))
    else:
        try:
            found = tuple(Frames.from_ase([atoms]) for atoms in read_structures(path))
        except Exception as error:  # ASE's readers raise anything
            raise ConfigError(f"benchmark.parity.frames: {path}: cannot be read ({error}) - {expected}") from error
    bare = [k for k, frame in enumerate(found) if not frame.is_labelled]
    if bare or not found:
        what = f"frame {bare[0]} has no energy or no forces" if bare else "no frames"
        raise ConfigError(f"benchmark.parity.frames: {path}: {what} - {expected} - label it, or choose another file")
    for k, frame in enumerate(found):
        numbers = (frame.positions, frame.cell, frame.label("energy"), frame.label("forces"))
        if not all(np.isfinite(x).all() for x in numbers):
            raise ConfigError(
                f"benchmark.parity.frames: {path}: frame {k}: a number is not finite - {expected} - remove the frame"
            )
    return found


def _chosen(frames: Sequence[Frames], at_most: int) -> list[Frames]:
    """Return frames evenly spaced."""
    rows = np.unique(np.round(np.linspace(0, len(frames) - 1, min(at_most, len(frames)))).astype(int))
    return [frames[k] for k in rows]


# --- the property -----------------------------------------------------------------------------------------------------


def plan(asked: Parity, context: Context) -> list[Task]:
    """One task per potential and hundred frames; a single one that reports it if there are no frames."""
    path = _source(asked, context)
    if path is None:
        return [Task(id=f"{NAME}-none", kind=NAME)]
    if not path.is_file():
        raise ConfigError(
            f"benchmark.parity.frames: no file {path} - expected labelled frames (extxyz) - check the path"
        )
    sha256 = file_sha256(path)
    n = len(_chosen(labelled_frames(path, sha256), asked.max_frames))
    return [
        Task(
            id=f"{NAME}-{potential.slug}-{begin // CHUNK:03d}",
            kind=NAME,
            parameters={"potential": potential.name, "begin": begin, "end": min(begin + CHUNK, n), "sha256": sha256},
        )
        for potential in context.study.potentials
        for begin in range(0, n, CHUNK)
    ]


def run(task: Task, asked: Parity, context: Context, slot: Slot) -> Product:
    """Label some of the frames with one potential."""
    if not task.parameters:
        return {}, {
            "ended": "no frames: the study does not belong to a campaign with a held-out set, and parity.frames is null"
        }
    path = _source(asked, context)
    found = file_sha256(path) if path is not None and path.is_file() else "no such file"
    if path is None or found != task.parameters["sha256"]:
        raise ConfigError(
            f"benchmark.parity.frames: {path} is not the file that this study started with (sha256 {found}) - expected "
            f"sha256 {task.parameters['sha256']} - restore it, or choose another --folder"
        )
    frames = _chosen(labelled_frames(path, found), asked.max_frames)
    elements = sorted({symbol for frame in frames for symbol in frame.symbols})
    potential = context.potential_of(task)
    statics = potential.statics(slot.machine.python)
    mine = frames[task.parameters["begin"] : task.parameters["end"]]
    labels, lost = _labelled(statics, mine, slot)
    pairs = [(frame, label) for frame, label in zip(mine, labels, strict=True) if label is not None]
    where = path.name if asked.frames is not None else "the campaign's held-out set"
    crowding = frozen.crowding(potential, [frame for frame, _ in pairs])
    return _side_by_side(pairs, elements), {"elements": elements, "lost": lost, "frames": where, **crowding}


def _labelled(statics: Reference, frames: Sequence[Frames], slot: Slot) -> tuple[list[FrameLabel | None], list[str]]:
    """Return the label of every frame or None, and for every None the reason."""
    labels: list[FrameLabel | None] = []
    lost: list[str] = []
    unknown: set[str] = set()
    for frame in frames:
        label: FrameLabel | None = None
        if not unknown & set(frame.symbols):
            try:
                others = partial(_regular, frame)
                label = reference.label(statics, frame.without_labels(), slot, witnesses=others)
            except EngineError:
                unknown |= set(unknown_elements(statics, frame.symbols, slot))
                if not unknown:
                    raise
        if label is None:
            lost.append(f"the potential does not know {', '.join(sorted(unknown & set(frame.symbols)))}")
        elif label.refused:
            lost.append(label.refused)
        labels.append(None if label is None or label.refused else label)
    return labels, lost


def _regular(frame: Frames) -> list[Frames]:
    return [reference.regular(frame)]


def _side_by_side(pairs: Sequence[tuple[Frames, FrameLabel]], elements: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a :class:`SideBySide`; a virial is NaN where a frame has none, or is not periodic."""
    counts = np.array([[frame.symbols.count(one) for one in elements] for frame, _ in pairs], dtype=np.int64)
    virial = np.full((len(pairs), 2, 3, 3), np.nan)
    forces = [np.empty((0, 2, 3))]
    energy = np.empty((len(pairs), 2))
    for k, (frame, label) in enumerate(pairs):
        energy[k] = frame.label("energy")[0], label.energy
        forces.append(np.stack([frame.label("forces")[0], label.forces], axis=1))
        if frame.virial is not None and all(frame.pbc):
            virial[k] = frame.virial[0], label.virial
    return {
        "counts": counts.reshape(-1, len(elements)),
        "energy": energy,
        "forces": np.concatenate(forces),
        "virial": virial,
    }


def results(asked: Parity, context: Context, tasks: Sequence[Task]) -> Findings:
    """Return the errors of every potential, and the points of its figures."""
    findings = Findings()
    if not tasks[0].parameters:
        why = context.product(tasks[0])[1]["ended"]
        findings.problems.append(f"parity: {why}")
        findings.missing += [
            Missing(measured_by=NAME, condition={"potential": potential.name}, why=why)
            for potential in context.study.potentials
        ]
        return findings
    for potential in context.study.potentials:
        mine = [context.product(task) for task in tasks if task.parameters["potential"] == potential.name]
        lost = [reason for _, meta in mine for reason in meta["lost"]]
        for reason in dict.fromkeys(lost):
            why = f"{lost.count(reason)} frames without: {reason}"
            findings.lacks(NAME, f"parity of {potential.name}", {"potential": potential.name}, why)
        arrays = {name: np.concatenate([one[name] for one, _ in mine]) for name in mine[0][0]}
        if len(arrays["energy"]):
            pairs = SideBySide(elements=tuple(mine[0][1]["elements"]), **arrays)
            rng = context.rng(NAME)
            note, stamp = f"against {mine[0][1]['frames']}", _stamp([meta for _, meta in mine], len(pairs.energy))
            findings.extend(compared(pairs, {"potential": potential.name}, note, rng, stamp=stamp))
    return findings


def _stamp(metas: Sequence[dict[str, Any]], n_frames: int) -> str | None:
    """Return the stamp of errors on frames in which the potential dropped neighbours, or None."""
    full = [meta for meta in metas if meta.get("n_overflow")]
    share = sum(meta["n_overflow"] for meta in full) / n_frames
    return stamped(None, [{**meta, "overflow_share": share} for meta in full[:1]])


def compared(
    pairs: SideBySide, condition: Condition, note: str, rng: np.random.Generator, *, stamp: str | None = None
) -> Findings:
    """Return the errors of one potential and the points of its figures.

    Parameters
    ----------
    pairs
        At least one frame.
    condition, note, stamp
        Of the results.
    rng
        Thins the points of the figures.
    """
    removed = ", ".join(f"{one} {shift:+.4f}" for one, shift in zip(pairs.elements, pairs.shifts, strict=True))
    findings = Findings()
    for name, value, unit, n_frames in pairs.errors():
        said = f"{note}; less {removed} eV/atom" if name.endswith("_shifted") else note
        findings.results.append(
            Result(
                name=name,
                value=value,
                unit=unit,
                uncertainty=None,
                n_samples=n_frames,
                condition=condition,
                stamp=stamp,
                note=said,
            )
        )
    forces = pairs.forces.transpose(1, 0, 2).reshape(2, -1)
    energies = np.stack([pairs.energy[:, 0], pairs.shifted_energy]) / pairs.n_atoms
    has_virial = np.isfinite(pairs.virial).all(axis=(1, 2, 3))
    virials = (pairs.virial / pairs.n_atoms[:, None, None, None])[has_virial].transpose(1, 0, 2, 3).reshape(2, -1)
    for kind, what, points in (
        ("force", "force component (eV/Å)", forces),
        ("energy", "energy less a shift per element (eV/atom)", energies),
        *((("virial", "virial component (eV/atom)", virials),) if has_virial.any() else ()),
    ):
        curve = Curve(
            key=f"parity_{kind}-{condition['potential']}",
            name=f"parity_{kind}",
            label=str(condition["potential"]),
            x_name=f"reference: {what.replace(' less a shift per element', '')}",
            y_name=f"potential: {what}",
            condition=condition,
            stamp=stamp,
        )
        findings.add_curve(curve, *thinned(points[0], points[1], rng))
    return findings


PROPERTY = Property(NAME, Parity, run, results, plan, needs_glass=False)
