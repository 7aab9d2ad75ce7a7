"""Errors of predictions against labels: one definition for the training station, for parity and for fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from activelearn.frames import FloatArray, Frames
from activelearn.records import Errors


def mae_and_rmse(difference: FloatArray) -> tuple[float, float]:
    """Return mean absolute and root mean square of differences (n, ...) of any unit."""
    return float(np.abs(difference).mean()), float(np.sqrt((difference**2).mean()))


def force_percentiles(difference: FloatArray) -> tuple[float, float]:
    """Return the 95th and the 99th percentile of the lengths of error vectors (n_atoms, 3), eV/Å."""
    p95, p99 = np.percentile(np.linalg.norm(difference, axis=1), (95.0, 99.0)).tolist()
    return p95, p99


def force_rms(parts: Sequence[Frames]) -> float | None:
    """Return the root mean square of the labelled forces about zero, per component, eV/Å; None without any."""
    squares = [(float((part.forces**2).sum()), part.forces.size) for part in parts if part.forces is not None]
    n = sum(size for _, size in squares)
    return float(np.sqrt(sum(total for total, _ in squares) / n)) if n else None


def errors(predicted: Sequence[Frames], reference: Sequence[Frames]) -> Errors | None:
    """Return the errors of predictions against labels, or None without frames.

    Energies and virials per atom (meV/atom), forces per component (eV/Å); percentiles are those of the length of the
    error vector of each atom.

    Parameters
    ----------
    predicted, reference
        The same frames in the same order, with energy and forces; virials count in frames where both have one.
    """
    return errors_of(predicted, reference) if reference else None


def errors_of(predicted: Sequence[Frames], reference: Sequence[Frames]) -> Errors:
    """Return the same of at least one frame; see :func:`errors`.

    Raises
    ------
    ValueError
        There are no frames, or one is without energy or forces.
    """
    e, f, v = [], [], []
    for p, r in zip(predicted, reference, strict=True):
        e.append((p.label("energy") - r.label("energy")) / r.n_atoms * 1000.0)
        f.append((p.label("forces") - r.label("forces")).reshape(-1, 3))
        if p.virial is not None and r.virial is not None and (has := p.has_virial & r.has_virial).any():
            v.append((p.virial[has] - r.virial[has]).ravel() / r.n_atoms * 1000.0)
    de, df = np.concatenate(e), np.concatenate(f)
    (energy_mae, energy_rmse), (force_mae, force_rmse) = mae_and_rmse(de), mae_and_rmse(df)
    virial_mae, virial_rmse = mae_and_rmse(np.concatenate(v)) if v else (None, None)
    p95, p99 = force_percentiles(df)
    return Errors(
        n_frames=len(de),
        energy_rmse_meV_per_atom=energy_rmse,
        energy_mae_meV_per_atom=energy_mae,
        force_rmse=force_rmse,
        force_mae=force_mae,
        force_p95=p95,
        force_p99=p99,
        virial_rmse_meV_per_atom=virial_rmse,
        virial_mae_meV_per_atom=virial_mae,
        force_rms_of_reference=force_rms(reference),
    )


def errors_by_composition(predicted: Sequence[Frames], reference: Sequence[Frames]) -> dict[str, Errors]:
    """Return :func:`errors` by formula of the cell, sorted."""
    found = {}
    for formula in sorted({part.formula for part in reference}):
        chosen = [k for k, part in enumerate(reference) if part.formula == formula]
        found[formula] = errors_of([predicted[k] for k in chosen], [reference[k] for k in chosen])
    return found
