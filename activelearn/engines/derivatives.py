"""Whether stress and forces are the derivatives of the energy: central differences on one distorted structure.

Typical mistakes are units and signs (GPa, kbar, Hartree/Bohr, pressure instead of stress, only its trace), which
are large factors or signs. The limits are therefore wide: calculators in single precision, with forces predicted by
a separate network, or with the Pulay stress of plane waves pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from activelearn import units
from activelearn.frames import FloatArray, FrameLabel, Frames

#: Strain and largest displacement of an atom (Å) of a central difference.
STRAIN: Final = 4.0e-3
DISPLACEMENT_A: Final = 1.0e-2
#: Ratio of given to numerical derivative that is an error, and one that is worth a note.
WRONG: Final = 1.5
NOTED: Final = 1.15
#: Derivatives smaller than this fraction of the largest are not used for ratios.
_SMALL: Final = 0.1
#: Noise of an energy in single precision, relative to the energy.
_NOISE: Final = 1.0e-6
#: Relative agreement of differences over a step and half a step if the energy is smooth.
_SMOOTH: Final = 0.25
#: The structure is far from equilibrium: compressed, sheared and different along x, y and z, its atoms displaced (Å).
_DISTORTION: Final = np.array([[-0.06, 0.03, 0.02], [0.03, 0.03, -0.025], [0.02, -0.025, -0.05]])
_RATTLE_A: Final = 0.04
#: Directions of strain: isotropic, and two to which a pressure does not contribute.
STRAINS: Final = {
    "isotropic": np.eye(3) / np.sqrt(3.0),
    "uniaxial": np.diag([-0.5, 1.0, -0.5]) / np.sqrt(1.5),
    "shear": np.array([[0.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -1.0, 0.0]]) / np.sqrt(6.0),
}
_HARTREE_EV, _BOHR_A = 27.211386, 0.529177
_OF_STRESS: Final = {
    "GPa": units.EV_PER_A3_IN_GPA,
    "kbar": 10.0 * units.EV_PER_A3_IN_GPA,
    "bar": 1.0e4 * units.EV_PER_A3_IN_GPA,
    "Hartree/Bohr3": _BOHR_A**3 / _HARTREE_EV,
    "Ry/Bohr3": 2.0 * _BOHR_A**3 / _HARTREE_EV,
    "eV/Bohr3, or energy and stress in atomic units": _BOHR_A**3,
}
_OF_FORCES: Final = {
    "Hartree/Bohr": _BOHR_A / _HARTREE_EV,
    "Ry/Bohr": 2.0 * _BOHR_A / _HARTREE_EV,
    "eV/Bohr, or energy and forces in atomic units": _BOHR_A,
    "eV/nm": 10.0,
    "kcal/mol/Å": 23.0605,
    "kJ/mol/Å": 96.4853,
    "kJ/mol/nm": 964.853,
}
#: Labels a frame; None if it has no label.
Labeller = Callable[[Frames], FrameLabel | None]


class NotCompared(Exception):
    """Nothing can be compared: there is no label, or the energy is not smooth."""


def distorted(frame: Frames) -> Frames:
    """Return a frame that is compressed, sheared and rattled, always in the same way."""
    rattle = np.random.default_rng(0).normal(0.0, _RATTLE_A, frame.positions.shape)
    moved = Frames(frame.symbols, frame.cell, frame.positions + rattle, frame.pbc)
    return _strained(moved, _DISTORTION)


def compared(frame: Frames, label: Labeller, *, has_stress: bool) -> tuple[list[str], list[str]]:
    """Compare forces and stress of a calculator with its energy.

    Parameters
    ----------
    frame
        One frame, periodic in all directions.
    label
        What labels it; about ten labels are computed.
    has_stress
        Whether there is a stress to compare.

    Returns
    -------
    wrong, notes
        One phrase each: errors, and notes.
    """
    start = distorted(frame)
    wrong: list[str] = []
    notes: list[str] = []
    try:
        found = _labelled(start, label)
        given, numerical = _along_forces(start, found, label)
        _judge("forces", np.array([given]), np.array([numerical]), _OF_FORCES, wrong, notes)
        if has_stress and np.isfinite(found.virial).all():
            pairs = np.array([_along(start, found, strain, label) for strain in STRAINS.values()])
            volume = float(start.volume[0])
            names = {**_OF_STRESS, "virials, eV": volume}
            _judge("stress", pairs[:, 0], pairs[:, 1], names, wrong, notes)
    except NotCompared as reason:
        notes.append(f"forces and stress were not compared with the energy: {reason}")
    return wrong, notes


def _labelled(frame: Frames, label: Labeller) -> FrameLabel:
    found = label(frame)
    if found is None or found.refused is not None:
        raise NotCompared(
            found.refused if found is not None and found.refused else "a distorted structure has no label"
        )
    return found


def _strained(frame: Frames, strain: FloatArray) -> Frames:
    whole = np.eye(3) + strain
    return Frames(frame.symbols, frame.cell @ whole, frame.positions @ whole, frame.pbc)


def _along(start: Frames, found: FrameLabel, strain: FloatArray, label: Labeller) -> tuple[float, float]:
    """Return the derivative of the energy along a strain, eV: from the stress, and by differences."""

    def energy(step: float) -> float:
        return _labelled(_strained(start, step * strain), label).energy

    given = -float((found.virial * strain).sum())
    return given, _difference(energy, STRAIN, given, found.energy)


def _along_forces(start: Frames, found: FrameLabel, label: Labeller) -> tuple[float, float]:
    """Return the derivative of the energy along the forces, eV/Å: from these, and by differences.

    Zero forces are compared along displacements that break the symmetry of the cell.
    """
    way = found.forces if found.forces.any() else np.random.default_rng(1).normal(size=found.forces.shape)
    way = way / float(np.abs(way).max())

    def energy(step: float) -> float:
        moved = Frames(start.symbols, start.cell, start.positions + step * way[None], start.pbc)
        return _labelled(moved, label).energy

    given = -float((found.forces * way).sum())
    return given, _difference(energy, DISPLACEMENT_A, given, found.energy)


def _difference(energy: Callable[[float], float], step: float, given: float, around: float) -> float:
    """Return a central difference; if it contradicts the given value, one over half the step must agree with it.

    Raises
    ------
    NotCompared
        They disagree: the energy is not smooth (a cutoff without a switch, a basis that changes with the cell).
    """
    numerical = (energy(step) - energy(-step)) / (2.0 * step)
    noise = _NOISE * abs(around) / step
    if abs(numerical - given) <= noise:
        return given
    if not _is_near(given, numerical, NOTED):
        again = (energy(step / 2.0) - energy(-step / 2.0)) / step
        if abs(again - numerical) > _SMOOTH * abs(numerical) + 2.0 * noise:
            raise NotCompared("its energy is not smooth")
    return numerical


def _is_near(given: float, numerical: float, factor: float) -> bool:
    return numerical * given > 0.0 and 1.0 / factor <= given / numerical <= factor


def _judge(
    what: str, given: FloatArray, numerical: FloatArray, names: dict[str, float], wrong: list[str], notes: list[str]
) -> None:
    """Add the findings on one kind of derivative."""
    are = "are" if what == "forces" else "is"
    if ((numerical == 0.0) & (given != 0.0)).any():
        wrong.append(f"its {what} {are} not zero where its energy does not change")
        return
    clear = np.maximum(np.abs(given), np.abs(numerical)) > _SMALL * np.abs(numerical).max()
    pairs = [(float(a), float(b)) for a, b in zip(given[clear], numerical[clear], strict=True) if a != b]
    if all(_is_near(a, b, NOTED) for a, b in pairs):
        return
    factors = sorted(a / b if b else np.inf for a, b in pairs)
    low, high = (f"{float(f'{factor:.2g}') + 0.0:g}" for factor in (factors[0], factors[-1]))  # 160, and never -0
    times = low if low == high else f"{low} to {high}"
    line = f"its {what} {are} {times} times the derivative of its energy"
    if all(_is_near(a, b, WRONG) for a, b in pairs):
        notes.append(line)
    else:
        wrong.append(line + "".join(f" ({guess})" for guess in _guesses(factors, names)))


def _guesses(factors: list[float], names: dict[str, float]) -> Iterator[str]:
    """Yield explanations of factors that agree."""
    middle = float(np.median(factors))
    if not all(_is_near(factor, middle, NOTED) for factor in factors):
        return
    if _is_near(middle, -1.0, NOTED):
        yield "of opposite sign"
    sign = ", of opposite sign" if middle < 0.0 else ""
    yield from (f"as if in {name}{sign}" for name, factor in names.items() if _is_near(abs(middle), factor, NOTED))
