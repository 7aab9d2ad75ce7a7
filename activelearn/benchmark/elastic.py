"""Elastic constants from finite strains, and the moduli of an isotropic solid by Hill.

A structure is relaxed to zero stress at 0 K, strained by +-d along each of the six Voigt strains (for a shear, d is the
engineering strain gamma = 2 e), and its positions relaxed. Order: xx, yy, zz, yz, xz, xy; stress is positive in
tension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from activelearn.benchmark.property import Context, Findings, Observable, Product, Property
from activelearn.benchmark.replicas import Replicas, measured
from activelearn.benchmark.straining import (
    VOIGT,
    Failed,
    Relaxer,
    crowding,
    pressure_GPa,
    strained,
    stress_GPa,
    unrelaxed_note,
)
from activelearn.config import Elastic
from activelearn.engines import dynamics
from activelearn.engines.process import Slot
from activelearn.frames import FloatArray, Frames
from activelearn.records import Result, Task

NAME: Final = "elastic"
_COMPONENTS: Final = ("xx", "yy", "zz", "yz", "xz", "xy")


def voigt_strain(j: int, value: float) -> FloatArray:
    """Return the symmetric (3, 3) strain, a pure number, of Voigt component j (0 to 5).

    A shear of `value` (the engineering strain) is value/2 on either side of the diagonal.
    """
    strain = np.zeros((3, 3))
    a, b = VOIGT[0][j], VOIGT[1][j]
    strain[a, b] += 0.5 * value
    strain[b, a] += 0.5 * value
    return strain


def stiffness(stress: FloatArray, strain: float) -> FloatArray:
    """Return C_ij = [s_i(+d_j) - s_i(-d_j)] / (2 d_j), not symmetrised, in the unit of the stress.

    Parameters
    ----------
    stress
        (6, 2, 6): by strain j, sign (+, -) and component i; positive in tension, any unit (GPa here).
    strain
        d, the same for all six; a pure number, for a shear the engineering strain.

    Returns
    -------
    NDArray
        (6, 6).
    """
    return np.asarray((stress[:, 0] - stress[:, 1]).T / (2.0 * strain))


@dataclass(frozen=True)
class Moduli:
    """Moduli of a polycrystal, or a glass: bounds and Hill's means, in the unit of the stiffness."""

    bulk_voigt: float
    bulk_reuss: float
    shear_voigt: float
    shear_reuss: float

    @property
    def bulk(self) -> float:
        """Hill's bulk modulus."""
        return 0.5 * (self.bulk_voigt + self.bulk_reuss)

    @property
    def shear(self) -> float:
        """Hill's shear modulus."""
        return 0.5 * (self.shear_voigt + self.shear_reuss)

    @property
    def youngs(self) -> float:
        """Young's modulus of Hill's means: 9BG/(3B + G)."""
        return 9.0 * self.bulk * self.shear / (3.0 * self.bulk + self.shear)

    @property
    def poisson(self) -> float:
        """Poisson's ratio of Hill's means: (3B - 2G)/(6B + 2G)."""
        return (3.0 * self.bulk - 2.0 * self.shear) / (6.0 * self.bulk + 2.0 * self.shear)


def moduli(c: FloatArray) -> Moduli:
    """Return the bounds of Voigt and Reuss and the means of Hill (R. Hill, Proc. Phys. Soc. A 65 (1952) 349).

    Parameters
    ----------
    c
        (6, 6) stiffness, Voigt order xx, yy, zz, yz, xz, xy; any unit (GPa here), which the moduli have. Of
        :func:`stiffness`, which is not quite symmetric, the symmetric part counts.

    Raises
    ------
    numpy.linalg.LinAlgError
        It is singular: some strain costs no energy.
    """
    c = (c + c.T) / 2.0
    s = np.asarray(np.linalg.inv(c), dtype=np.float64)

    def sums(m: FloatArray) -> tuple[float, float, float]:
        shears = m[3, 3] + m[4, 4] + m[5, 5]
        return float(np.trace(m[:3, :3])), float(m[0, 1] + m[0, 2] + m[1, 2]), float(shears)

    (axes, between, shears), (axes_s, between_s, shears_s) = sums(c), sums(s)
    return Moduli(
        bulk_voigt=(axes + 2.0 * between) / 9.0,
        bulk_reuss=1.0 / (axes_s + 2.0 * between_s),
        shear_voigt=(axes - between + 3.0 * shears) / 15.0,
        shear_reuss=15.0 / (4.0 * axes_s - 4.0 * between_s + 3.0 * shears_s),
    )


def cubic_means(c: FloatArray) -> tuple[float, float, float]:
    """Return C11, C12 and C44 of a (6, 6) stiffness, each the mean over the three axes, in its unit (GPa here)."""
    c12 = (c[0, 1] + c[0, 2] + c[1, 2]) / 3.0
    return float(np.trace(c[:3, :3]) / 3.0), float(c12), float(np.trace(c[3:, 3:]) / 3.0)


def lowest_eigenvalue(c: FloatArray) -> float:
    """Return the lowest eigenvalue of a symmetric (6, 6) stiffness, in its unit (GPa here): stable if positive."""
    return float(np.linalg.eigvalsh(c).min())


def relaxed_stiffness(relaxer: Relaxer, start: Frames, strain: float) -> Product:
    """Return the stiffness of a structure (GPa) at zero stress and 0 K.

    Returns
    -------
    arrays, meta
        ``stiffness`` (6, 6) symmetrised; ``pressure_GPa`` that remains, ``asymmetry_GPa`` the largest
        |C_ij - C_ji|/2, and ``n_unrelaxed`` of 13 relaxations.

    Raises
    ------
    Failed
        The potential returned non-finite numbers.
    """
    free, is_relaxed = relaxer.relaxed("zero-stress", start, relax_cell=True)
    stress, n_unrelaxed = np.empty((6, 2, 6)), int(not is_relaxed)
    for j, component in enumerate(_COMPONENTS):
        for k, value in enumerate((strain, -strain)):
            name = f"strain-{component}{value:+g}"
            frame, is_relaxed = relaxer.relaxed(name, strained(free, voigt_strain(j, value)))
            stress[j, k] = stress_GPa(frame)[0]
            n_unrelaxed += not is_relaxed
    c = stiffness(stress, strain)
    meta: dict[str, Any] = {
        "pressure_GPa": float(pressure_GPa(free)[0]),
        "asymmetry_GPa": float(np.abs(c - c.T).max() / 2.0),
        "n_unrelaxed": n_unrelaxed,
    }
    return {"stiffness": (c + c.T) / 2.0}, meta


# --- the property -----------------------------------------------------------------------------------------------------


def run(task: Task, asked: Elastic, context: Context, slot: Slot) -> Product:
    """Return the stiffness of one glass."""
    potential, folder = context.potential_of(task), context.folder(task)
    relaxer = Relaxer(potential.statics(slot.machine.python), slot, asked.fmax, asked.max_steps, folder)
    try:
        arrays, meta = relaxed_stiffness(relaxer, context.path_of(task).last, asked.strain)
    except Failed as failed:
        return {}, {"ended": str(failed)}
    if np.linalg.matrix_rank(arrays["stiffness"]) < len(_COMPONENTS):
        return {}, {"ended": "its stiffness is singular (a strain costs no energy), so there are no moduli"}
    return arrays, {"ended": dynamics.FINISHED, **meta, **crowding(potential, folder)}


def results(asked: Elastic, context: Context, tasks: Sequence[Task]) -> Findings:
    """Average over replicas."""
    findings = Findings()
    for replicas in measured(context, tasks, findings, temperature_K=0.0):
        findings.results += _numbers(replicas)
    return findings


def _numbers(replicas: Replicas) -> list[Result]:
    matrices = [arrays["stiffness"] for arrays in replicas.arrays]
    hill = [moduli(c) for c in matrices]
    means = np.array([cubic_means(c) for c in matrices])
    note, unstable = "0 K" + unrelaxed_note(replicas.metas), _instability(matrices)
    isotropic = float((means[:, 0] - means[:, 1]).mean() / 2.0)
    values = {
        "C11": (means[:, 0], f"mean of C11, C22, C33; {note}"),
        "C12": (means[:, 1], f"mean of C12, C13, C23; {note}"),
        "C44": (means[:, 2], f"mean of C44, C55, C66; (C11 - C12)/2 = {isotropic:.3g} GPa if isotropic; {note}"),
        "bulk_modulus_hill": (np.array([m.bulk for m in hill]), note),
        "shear_modulus": (np.array([m.shear for m in hill]), note),
        "youngs_modulus": (np.array([m.youngs for m in hill]), note),
        "poisson_ratio": (np.array([m.poisson for m in hill]), note),
    }
    return [
        replicas.result(name, "1" if name == "poisson_ratio" else "GPa", of_replicas.tolist(), said, unstable)
        for name, (of_replicas, said) in values.items()
    ]


def _instability(matrices: Sequence[FloatArray]) -> str | None:
    lowest = [lowest_eigenvalue(c) for c in matrices]
    n = sum(value <= 0.0 for value in lowest)
    if n == 0:
        return None
    return f"{n} of {len(lowest)} not positive definite (lowest eigenvalue {min(lowest):.2g} GPa)"


_OF: Final = ("x", "temperature_K")
PROPERTY = Property(
    NAME,
    Elastic,
    run,
    results,
    runs_potential=True,
    observables={
        "C11|C44|bulk_modulus_hill|shear_modulus|youngs_modulus": Observable("GPa", high=2000.0, of=_OF),
        "C12": Observable("GPa", low=-2000.0, high=2000.0, of=_OF),
        "poisson_ratio": Observable("1", low=-1.0, high=0.5, of=_OF),
    },
    temperatures_K=lambda _: (0.0,),
)
