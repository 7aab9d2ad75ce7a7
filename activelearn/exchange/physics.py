"""Plausibility of labels from elsewhere: bounds of single frames, and energies of trajectories against their forces.

Between two similar frames, the energy changes by the work of the forces (trapezoid rule) and of the
stress. The remainder is of third order: for EMT dynamics, less than 0.1 of the change while no atom moves by more than
0.3 Å in a step, for any thermostat or barostat, and 0.4 of it even at steps of 0.9 Å. Energies in Hartree, forces
in kcal/mol/Å, gradients instead of forces, a stress in GPa, arrays shifted by a frame or shuffled: all of
these are detected without any reference. Energy and forces both in kcal/mol agree with each other and go undetected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from activelearn.exchange.reads import Read
from activelearn.frames import Frames
from activelearn.units import EV_PER_A3_IN_GPA

Floats = NDArray[np.float64]

#: Impossible values. All-electron energies of the heaviest atoms are -1.5e6 eV; H2 has 0.74 Å.
MAX_ENERGY_PER_ATOM, MAX_FORCE, MAX_STRESS_GPA = 3.0e6, 1.0e3, 3.0e3  # eV, eV/Å, GPa
MIN_DISTANCE, MIN_HEIGHT = 0.3, 0.5  # Å; of the cell
MIN_VOLUME_PER_ATOM, MAX_VOLUME_PER_ATOM, MAX_COORDINATE = 0.5, 1.0e6, 1.0e6  # Å^3, Å^3, Å
#: Forces add up to zero except for the drift of a grid: tolerance per atom (eV/Å), relative to their root mean square,
#: and in total, for few atoms on a coarse grid (eV/Å).
MAX_DRIFT, MAX_DRIFT_SHARE, MAX_DRIFT_IN_ALL = 0.05, 0.1, 0.3

#: Tolerance of the symmetry of a virial, relative to its largest component (and to 1 eV).
MAX_ASYMMETRY: Final = 0.05

#: Sum of the forces, eV/Å, above which an atom without any was held: where symmetry leaves it none, the others cancel.
MAX_SUM_BY_SYMMETRY: Final = 0.01

#: Tolerance of symmetry, Å, and the largest structure in which it is sought.
SYMMETRY, MAX_SYMMETRY_SOUGHT = 1.0e-3, 2000

#: Reasons, as in the refusals.
IMPOSSIBLE: Final = "impossible numbers"
ON_TOP: Final = "atoms on top of each other"
NET_FORCE: Final = "forces that do not add up to zero"
FIXED: Final = "forces without those on fixed atoms"
ZERO_ENERGY: Final = "zero for an energy, but not for the forces"
ZERO_FORCES: Final = "zeros for forces, in a structure without symmetry"
UNITS: Final = "energy and forces in different units"
STRESS_UNITS: Final = "energy and stress in different units"
APART: Final = "energy and forces that do not belong together"
OUTLIER: Final = "an energy far from those of its neighbours"

#: Two frames are close if no atom moves farther (Å) and no strain is larger.
CLOSE, CLOSE_STRAIN = 0.3, 0.02
#: Cells that differ by less than this strain are equal within rounding: the stress does no work.
SAME_CELL: Final = 1.0e-6
#: Beyond this distance (Å), the work of the forces is meaningless.
NEAR: Final = 1.0
#: Pairs needed for a verdict: on a factor, on factors of forces and stress, without one, over long steps.
FEW, SOME, MANY, LOTS = 4, 6, 8, 16
#: Maximum number of frames whose energies are checked together.
BLOCK: Final = 500
#: Fraction of the energy changes over close pairs that the work of correct forces leaves at most.
MISFIT: Final = 0.4
#: Work of the stress, relative to that of the forces, below which it does not affect the balance.
MINOR: Final = 0.2
#: A change of the energy below this is noise of the electronic loop, eV.
NOISE: Final = 0.01


def judged(reads: Sequence[Read]) -> list[Read]:
    """Return what was read of one file; implausible frames have the reason, and the numbers in their location.

    Parameters
    ----------
    reads
        The frames of one file, in its order.
    """
    found = [_possible(one) for one in reads]
    walks: dict[tuple[object, ...], list[int]] = {}
    for k, one in enumerate(found):
        if is_label(one):
            walks.setdefault((_frame(one).symbols, str(_frame(one).origin["walk"][0])), []).append(k)
    for rows in walks.values():
        for block in np.array_split(rows, max(1, round(len(rows) / BLOCK))):
            for i, reason, detail in _wrong(Frames.concatenate([_frame(found[k]) for k in block])):
                one = found[block[i]]
                found[block[i]] = replace(one, where=f"{one.where}: {detail}", reason=reason)
    return found


def is_label(one: Read) -> bool:
    """Return whether there is a frame with at most the stress missing."""
    return one.frame is not None and one.reason in {None, "no stress"}


def _frame(one: Read) -> Frames:
    assert one.frame is not None  # is_label
    return one.frame


def _possible(one: Read) -> Read:
    if not is_label(one):
        return one
    if (reason := unfit(_frame(one))) is not None:
        return replace(one, reason=reason)
    found = _impossible(_frame(one))
    return one if found is None else replace(one, where=f"{one.where}: {found[1]}", reason=found[0])


def unfit(frame: Frames) -> str | None:
    """Return why one frame cannot be a label, regardless of its numbers, or None."""
    from ase.data import atomic_numbers

    if frame.n_atoms == 0:
        return "no atoms"
    if frame.energy is None:
        return "no energy"
    if frame.forces is None:
        return "no forces"
    if not all(frame.pbc) or frame.volume[0] == 0.0:
        return "not periodic"
    if not all(atomic_numbers.get(symbol) for symbol in set(frame.symbols)):
        return "no element"
    numbers = (frame.cell, frame.positions, frame.energy, frame.forces, 0.0 if frame.virial is None else frame.virial)
    if not all(np.isfinite(x).all() for x in numbers):
        return "not finite"
    return "left-handed cell" if np.linalg.det(frame.cell[0]) < 0.0 else None


def _impossible(frame: Frames) -> tuple[str, str] | None:
    """Return why one labelled frame is implausible, with the number, or None."""
    n, volume, cell = frame.n_atoms, float(frame.volume[0]), frame.cell[0]
    forces, virial = frame.label("forces")[0], np.zeros((3, 3))
    if frame.virial is not None and np.isfinite(frame.virial).all():
        virial = frame.virial[0]
    stress = virial / volume * EV_PER_A3_IN_GPA
    height = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0).max()
    ranges = (
        ("energy per atom, eV", abs(float(frame.label("energy")[0])) / n, 0.0, MAX_ENERGY_PER_ATOM),
        ("force, eV/Å", float(np.abs(forces).max()), 0.0, MAX_FORCE),
        ("stress, GPa", float(np.abs(stress).max()), 0.0, MAX_STRESS_GPA),
        ("volume per atom, Å^3", volume / n, MIN_VOLUME_PER_ATOM, MAX_VOLUME_PER_ATOM),
        ("height of the cell, Å", float(height), MIN_HEIGHT, MAX_COORDINATE),
        ("coordinate, Å", float(np.abs(frame.positions).max()), 0.0, MAX_COORDINATE),
    )
    for what, value, low, high in ranges:
        if not low <= value <= high:
            return IMPOSSIBLE, f"{what}: {value:.4g}, possible {low:g} to {high:g}"
    if np.abs(virial - virial.T).max() > MAX_ASYMMETRY * (1.0 + np.abs(virial).max()):
        return "damaged", "a virial that is not symmetric"
    if (close := _closest(frame)) is not None:
        return ON_TOP, close
    drift, size = float(np.linalg.norm(forces.sum(axis=0))) / n, float(np.sqrt((forces**2).sum(axis=1).mean()))
    if (zeros := _zeros(frame, drift * n)) is not None:
        return zeros
    if drift > max(MAX_DRIFT, MAX_DRIFT_SHARE * size, MAX_DRIFT_IN_ALL / n):
        return NET_FORCE, f"{drift:.3g} eV/Å per atom remain, with a root mean square of {size:.3g}"
    return None


def _zeros(frame: Frames, net_force: float) -> tuple[str, str] | None:
    """Return the reason if zeros stand for numbers that were not computed, or None.

    An atom has exactly no force where symmetry says so, or out of reach of the others; either way the forces on the
    others cancel. CP2K and dpdata's reader of ASE trajectories print zeros for fixed atoms.
    """
    forces, energy = frame.label("forces")[0], float(frame.label("energy")[0])
    is_still = ~forces.any(axis=1)
    if is_still.all():
        is_known = frame.n_atoms < 3 or frame.n_atoms > MAX_SYMMETRY_SOUGHT or _has_symmetry(frame)
        return None if is_known else (ZERO_FORCES, f"{frame.n_atoms} atoms")
    if energy == 0.0:
        return ZERO_ENERGY, f"{np.abs(forces).max():.3g} eV/Å is the largest force"
    if is_still.any() and net_force > MAX_SUM_BY_SYMMETRY:
        n = int(is_still.sum())
        return FIXED, f"{n} atom{'s have' if n > 1 else ' has'} none at all, and {net_force:.3g} eV/Å remain"
    return None


def _has_symmetry(frame: Frames) -> bool:
    """Return whether there is more than the identity, within 0.001 Å; without it no force vanishes."""
    import spglib

    _, numbers = np.unique(frame.symbols, return_inverse=True)
    cell = (frame.cell[0].tolist(), frame.fractional()[0].tolist(), (numbers + 1).tolist())
    found = spglib.get_symmetry(cell, symprec=SYMMETRY)
    return found is None or len(found["rotations"]) > 1


def _closest(frame: Frames) -> str | None:
    """Return the closest pair of atoms, in words, if it is closer than any bond."""
    from matscipy.neighbours import neighbour_list

    i, j, d = neighbour_list(
        "ijd", cell=frame.cell[0], positions=frame.positions[0], pbc=frame.pbc, cutoff=MIN_DISTANCE
    )
    if len(d) == 0:
        return None
    k = int(d.argmin())
    return f"atoms {i[k]} and {j[k]} ({frame.symbols[i[k]]}, {frame.symbols[j[k]]}) {d[k]:.3g} Å apart"


# --- trajectories -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Steps:
    """Changes between adjacent frames of a trajectory; one row per pair.

    Parameters
    ----------
    change
        (n_pairs,) change of the energy, eV.
    forces, stress
        (n_pairs,) work of the forces and of the stress, eV.
    bound
        (n_pairs,) upper bound of the error of both, eV.
    close
        (n_pairs,) whether the step is small.
    near
        (n_pairs,) whether the step is not too large.
    """

    change: Floats
    forces: Floats
    stress: Floats
    bound: Floats
    close: NDArray[np.bool_]
    near: NDArray[np.bool_]

    @classmethod
    def of(cls, frames: Frames) -> _Steps:
        cells = (frames.cell[:-1] + frames.cell[1:]) / 2.0
        moved = np.diff(frames.fractional(), axis=0)
        moved = (moved - np.round(moved)) @ cells
        force, strain = frames.label("forces"), np.linalg.solve(cells, np.diff(frames.cell, axis=0))
        length = np.linalg.norm(moved, axis=2)
        by_forces = -0.5 * ((force[1:] + force[:-1]) * moved).sum(axis=(1, 2))
        virial = np.full_like(frames.cell, np.nan) if frames.virial is None else frames.virial.copy()
        virial[~virial.any(axis=(1, 2))] = np.nan  # zeros stand for a stress that was not computed
        by_stress = np.nan_to_num(-0.5 * ((virial[1:] + virial[:-1]) * strain).sum(axis=(1, 2)))
        size = np.abs(strain).max(axis=(1, 2))
        has_work = np.isfinite(virial[1:] + virial[:-1]).all(axis=(1, 2)) | (size < SAME_CELL)  # of the stress
        turned = (np.linalg.norm(np.diff(force, axis=0), axis=2) * length).sum(axis=1)
        return cls(
            change=np.diff(frames.label("energy")),
            forces=by_forces,
            stress=by_stress,
            bound=NOISE + 2.0 * (np.abs(by_forces) + np.abs(by_stress) + turned),
            close=has_work & (length.max(axis=1) < CLOSE) & (size < CLOSE_STRAIN),
            near=has_work & (length.max(axis=1) < NEAR),
        )

    def misfit(self) -> float:
        """Return the median of the change left unexplained by the work, relative to the larger of the two."""
        work = self.forces + self.stress
        size = np.median(np.maximum(np.abs(self.change), np.abs(work))[self.close])
        left = np.median(np.abs(self.change - work)[self.close])
        return float(left / size) if size > NOISE / 2.0 else 0.0


def _wrong(frames: Frames) -> Iterator[tuple[int, str, str]]:
    """Yield the inconsistent frames of a piece of a trajectory: number, reason, numbers."""
    if len(frames) <= FEW:
        return
    steps = _Steps.of(frames)
    found = _coarse_factor(steps, frames.n_atoms)
    if found is None and steps.close.sum() >= FEW:
        found = _factor(steps, frames.n_atoms) or _unrelated(steps, frames)
    if found is not None:
        yield from ((i, *found) for i in range(len(frames)))
        return
    left = np.where(steps.close, steps.change - steps.forces - steps.stress, 0.0)
    beyond = np.sign(left) * (np.abs(left) > steps.bound)
    for i in np.flatnonzero(beyond[:-1] * beyond[1:] < 0.0) + 1:  # up and down again, or down and up
        yield int(i), OUTLIER, f"{left[i - 1]:+.4g} eV against the work of the forces from the frame before it"


def _factor(steps: _Steps, n_atoms: int) -> tuple[str, str] | None:
    """Return the reason if the energy changes by a constant times the work of the forces or of the stress."""
    rows = np.stack([steps.forces, steps.stress], axis=1)[steps.close]
    change = steps.change[steps.close]
    size = float(change.std())
    has_stress = rows[:, 1].std() > 0.02 * size and len(rows) >= SOME
    rows = rows[:, : 1 + has_stress]
    if max(size, float(rows.std(axis=0).max())) < NOISE / 2.0:
        return None
    factors = np.linalg.lstsq(rows, change, rcond=None)[0]
    left = ((change - rows @ factors) ** 2).sum() / max((change**2).sum(), NOISE**2)
    if left > 0.05:
        return None
    by_forces = float(factors[0])
    if not 0.6 < by_forces < 1.6 and rows[:, 0].std() * abs(by_forces) > 0.5 * size:
        return UNITS, _told(by_forces, n_atoms, len(rows))
    spread = float(rows[:, -1].std()) / max(size, NOISE)
    if has_stress and not 0.2 < factors[1] < 5.0 and (spread > 1.0 or spread * abs(factors[1]) > 0.3):
        told = f"over {len(rows)} steps the energy changes by {factors[1]:.4g} times the work of the stress"
        return STRESS_UNITS, told + (", as if its sign were the other one" if factors[1] < 0.0 else "")
    return None


def _coarse_factor(steps: _Steps, n_atoms: int) -> tuple[str, str] | None:
    """Return the reason if over long steps the energy follows the work of the forces with a wrong factor."""
    change, work = steps.change[steps.near], (steps.forces + steps.stress)[steps.near]
    if len(work) < LOTS or not work.any() or not change.any():
        return None
    factor = float(work @ change / (work @ work))
    if (work @ change) ** 2 < 0.5 * (work @ work) * (change @ change) or 0.2 < factor < 5.0:
        return None
    return UNITS, _told(factor, n_atoms, len(work))


def _told(factor: float, n_atoms: int, n: int) -> str:
    told = f"over {n} steps the energy changes by {factor:.3g} times the work of the forces"
    return told + _unit(factor, n_atoms)


def _unit(factor: float, n_atoms: int) -> str:
    """Return the unit that explains such a factor; empty if there is none."""
    from ase import units

    known = {
        "the energy were in Hartree": 1.0 / units.Hartree,
        "the energy were in Rydberg": 1.0 / units.Rydberg,
        "the energy were in kcal/mol": units.mol / units.kcal,
        "the energy were in kJ/mol": units.mol / units.kJ,
        "the energy were in meV": 1000.0,
        "the energy were that of one atom": 1.0 / n_atoms,
        "the forces were in Hartree/Bohr": units.Hartree / units.Bohr,
        "the forces were in Rydberg/Bohr": units.Rydberg / units.Bohr,
        "the forces were in eV/Bohr": 1.0 / units.Bohr,
        "the forces were in kcal/mol/Å": units.kcal / units.mol,
        "the forces were in kJ/mol/Å": units.kJ / units.mol,
        "the forces were in kJ/mol/nm": units.kJ / units.mol / units.nm,
        "the forces were gradients, of the other sign": -1.0,
    }
    words, nearest = min(known.items(), key=lambda item: abs(item[1] / factor - 1.0))
    return f", as if {words}" if abs(nearest / factor - 1.0) < 0.15 else ""


def _unrelated(steps: _Steps, frames: Frames) -> tuple[str, str] | None:
    """Return the reason if energy and forces are unrelated, or belong to adjacent frames."""
    n = int(steps.close.sum())
    if n < MANY or steps.stress.std() > MINOR * steps.forces.std():
        return None
    misfit = steps.misfit()
    names: tuple[Literal["energy", "forces"], ...] = ("energy", "forces")
    here = {"the frame after": slice(1, None), "the frame before": slice(None, -1)}
    for (which, there), others in zip(here.items(), reversed(here.values()), strict=True):
        for name in names:
            kept: dict[str, Any] = {name: frames.label(name)[there]}
            shifted = replace(frames[others], **kept)
            if misfit > 0.005 and _Steps.of(shifted).misfit() < misfit / 5.0:
                other = "forces" if name == "energy" else "energy"
                return APART, f"over {n} steps the {name} of {which} fits the {other} of a frame, not its own"
    if misfit > MISFIT:
        return APART, f"over {n} steps the work of the forces leaves {misfit:.0%} of the energy's changes unexplained"
    return None
