"""Displacements of atoms and derived quantities: diffusion coefficient, conductivity, activation energy.

Pure functions on arrays. Times are in ps, diffusion coefficients in Å^2/ps until they become a result.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from activelearn.errors import ConfigError
from activelearn.frames import FloatArray
from activelearn.units import BOLTZMANN_EV_PER_K, S_PER_CM_K

#: 1 Å^2/ps in cm^2/s.
A2_PER_PS_IN_CM2_PER_S: Final = 1.0e-4
#: Exponents of the growth of the MSD that count as diffusion: MSD ~ t^1.
DIFFUSIVE: Final = (0.8, 1.2)
#: A mean square displacement below this is motion in a cage, Å^2.
LEAST_MSD_A2: Final = 9.0
#: Smallest number of points for the fit of a line.
LEAST_POINTS: Final = 3
#: Largest number of intervals for kinisi: their covariance is dense, and neighbours add no information.
_BAYESIAN_INTERVALS: Final = 50
#: Relative tolerance of evenly spaced times, which may be rounded.
_EVEN: Final = 1.0e-3
_COLUMNS_AT_ONCE: Final = 512


def mean_square_displacement(unwrapped: FloatArray, *, single_origin: bool = False) -> FloatArray:
    """Return the mean square displacement of some atoms at every lag.

    Over all time origins it takes O(n log n) by Fourier transforms: sum ``|r(m+k) - r(m)|^2`` is two sums of squares
    minus twice the autocorrelation (Calandrini et al., Collection SFN 12, 201 (2011)).

    Parameters
    ----------
    unwrapped
        (n_frames, n_atoms, 3) Å, evenly spaced in time.
    single_origin
        Displacements from the first frame alone.

    Returns
    -------
    FloatArray
        (n_frames,) Å^2; lag 0 first.

    Raises
    ------
    ValueError
        There are no frames or no atoms.
    """
    n_frames, n_atoms = unwrapped.shape[:2]
    if not n_frames * n_atoms:
        raise ValueError(f"mean square displacement of {n_atoms} atoms in {n_frames} frames - expected one or more")
    if single_origin:
        return np.asarray(((unwrapped - unwrapped[0]) ** 2).sum(axis=(1, 2)) / n_atoms)
    columns = np.asarray(unwrapped, dtype=np.float64).reshape(n_frames, -1)
    squares, power, n_padded = np.zeros(n_frames), np.float64(0.0), 1 << (2 * n_frames - 1).bit_length()
    for begin in range(0, columns.shape[1], _COLUMNS_AT_ONCE):
        # Displacements do not depend on the origin; small numbers lose no digits in the difference below.
        rows = columns[:, begin : begin + _COLUMNS_AT_ONCE].T
        rows = rows - rows.mean(axis=1, keepdims=True)
        squares += (rows**2).sum(axis=0)
        power = power + (np.abs(np.fft.rfft(rows, n_padded, axis=1)) ** 2).sum(axis=0)
    correlation = np.fft.irfft(power, n_padded)[:n_frames]
    ends = np.concatenate([[0.0], np.cumsum(squares[:-1] + squares[:0:-1])])
    msd = (2.0 * squares.sum() - ends - 2.0 * correlation) / (n_atoms * np.arange(n_frames, 0, -1))
    msd[0] = 0.0
    return np.asarray(np.maximum(msd, 0.0))


# --- the line --------------------------------------------------------------------------------------------------------


def window_rows(n_frames: int, window: tuple[float, float]) -> NDArray[np.int64]:
    """Return the lags inside a window (shares of the run), as indices (n,); lag n_frames - 1 is the whole run."""
    lag = np.arange(n_frames)
    last, tolerance = n_frames - 1, 1.0e-9 * n_frames
    inside = (lag >= window[0] * last - tolerance) & (lag <= window[1] * last + tolerance) & (lag > 0)
    return np.flatnonzero(inside)


def diffusion_coefficient(
    time_ps: FloatArray, msd: FloatArray, window: tuple[float, float], *, use_slope: bool = True
) -> float:
    """Return D in Å^2/ps: slope/6 of the MSD in the window, or the mean of MSD/(6t) there.

    Parameters
    ----------
    time_ps, msd
        (n_frames,) evenly spaced lags, ps, and Å^2.
    window
        Shares of the run, such as (0.50, 0.95).
    use_slope
        False: as in the papers.

    Raises
    ------
    ValueError
        The lags are not evenly spaced, of another number, or fewer than three of them are in the window.
    """
    rows = window_rows(len(msd), window)
    steps = np.diff(np.asarray(time_ps, dtype=np.float64))
    if len(steps) + 1 != len(msd) or not (steps > 0.0).all() or not np.allclose(steps, steps.mean(), rtol=_EVEN):
        raise ValueError(
            f"D of {len(msd)} mean square displacements at {len(time_ps)} times - expected as many, evenly spaced, ps"
        )
    if len(rows) < LEAST_POINTS:
        raise ValueError(f"D of {len(rows)} points in the window {window} - expected {LEAST_POINTS} or more")
    if use_slope:
        return float(np.polyfit(time_ps[rows], msd[rows], 1)[0]) / 6.0
    return float((msd[rows] / (6.0 * time_ps[rows])).mean())


def growth_exponent(time_ps: FloatArray, msd: FloatArray, window: tuple[float, float]) -> float:
    """Return the exponent n of MSD ~ t^n in the window: 1 is diffusion, 2 is free flight; NaN where nothing moves.

    Parameters
    ----------
    time_ps, msd
        (n_frames,) ps and Å^2.
    window
        Shares of the run.
    """
    rows = window_rows(len(msd), window)
    if (msd[rows] <= 0.0).any():
        return float("nan")
    return float(np.polyfit(np.log(time_ps[rows]), np.log(msd[rows]), 1)[0])


def doubts(time_ps: FloatArray, msd: FloatArray, window: tuple[float, float]) -> tuple[str, ...]:
    """Return why no diffusion coefficient should be taken from an MSD; nothing if it has converged.

    Parameters
    ----------
    time_ps, msd
        (n_frames,) ps and Å^2.
    window
        Shares of the run.
    """
    found = []
    exponent = growth_exponent(time_ps, msd, window)
    if not DIFFUSIVE[0] <= exponent <= DIFFUSIVE[1]:
        found.append(f"MSD grows as t^{exponent:.2f}" if np.isfinite(exponent) else "MSD does not grow")
    end = float(msd[window_rows(len(msd), window)[-1]])
    if end < LEAST_MSD_A2:
        found.append(f"MSD ends at {end:.2g} Å2, below (3 Å)2")
    return tuple(found)


def conductivity(D: float, n_per_A3: float, temperature_K: float, charge: int = 1) -> float:
    """Return the Nernst-Einstein conductivity n (z e)^2 D/(k T), S/cm (Haven ratio 1).

    Parameters
    ----------
    D
        Å^2/ps.
    n_per_A3
        Carriers per volume of the whole cell, pores included, 1/Å^3.
    charge
        z of a carrier.

    Raises
    ------
    ValueError
        The temperature is not above 0 K.
    """
    if not temperature_K > 0.0:
        raise ValueError(f"conductivity at {temperature_K} K - expected a temperature above 0 K")
    return S_PER_CM_K * n_per_A3 * charge**2 * D / temperature_K


# --- activation energy -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arrhenius:
    """The line ln(sigma T) = ln(prefactor) - E/(k T).

    Parameters
    ----------
    energy_eV, error_eV
        Activation energy and its standard error; None where two points do not determine it.
    prefactor
        S K/cm.
    """

    energy_eV: float
    error_eV: float | None
    prefactor: float

    def sigma_T(self, temperature_K: FloatArray) -> FloatArray:
        """Return (n,) sigma T of the line, S K/cm, at (n,) temperatures, K."""
        return np.asarray(self.prefactor * np.exp(-self.energy_eV / (BOLTZMANN_EV_PER_K * temperature_K)))


def arrhenius(
    temperature_K: Sequence[float], sigma: Sequence[float], errors: Sequence[float | None] | None = None
) -> Arrhenius:
    """Fit ln(sigma T) against 1/T by least squares.

    Parameters
    ----------
    temperature_K, sigma
        Two or more; K and S/cm.
    errors
        Standard errors of sigma, S/cm. If all are given the fit is weighted, and the error of the energy follows from
        them (increased where the points scatter more than that); otherwise from the scatter about the line.

    Raises
    ------
    ValueError
        There are not two temperatures above 0 K, or a conductivity is not a positive number.
    """
    T, values = np.asarray(temperature_K, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    if len(set(T.tolist())) < 2 or not ((T > 0.0) & (values > 0.0) & np.isfinite(T * values)).all():
        raise ValueError(
            f"activation energy of sigma = {values.tolist()} S/cm at {T.tolist()} K - expected positive numbers at two "
            "or more temperatures"
        )
    is_weighted = errors is not None and all(error for error in errors)
    weights = values / np.asarray(errors, dtype=np.float64) if is_weighted else np.ones_like(values)
    design = np.stack([-1.0 / (BOLTZMANN_EV_PER_K * T), np.ones_like(T)], axis=1) * weights[:, None]
    observed = np.log(values * T) * weights
    covariance = np.linalg.inv(design.T @ design)
    fit = covariance @ design.T @ observed
    n_free = len(T) - 2
    scatter = float(((observed - design @ fit) ** 2).sum()) / n_free if n_free else 0.0
    variance = float(covariance[0, 0]) * (max(1.0, scatter) if is_weighted else scatter)
    has_error = is_weighted or n_free > 0
    return Arrhenius(float(fit[0]), float(np.sqrt(variance)) if has_error else None, float(np.exp(fit[1])))


# --- kinisi ----------------------------------------------------------------------------------------------------------


def want_kinisi() -> None:
    """Raise a ConfigError if kinisi is missing: before days of MD, not after."""
    if importlib.util.find_spec("kinisi") is None:
        raise ConfigError(
            "benchmark.diffusion.bayesian: kinisi is not installed in this environment - expected it for the estimate "
            "of D - pip install 'activelearn[analysis]', or set bayesian: false"
        )


def bayesian_diffusion(
    unwrapped: FloatArray, interval_ps: float, window: tuple[float, float], random_seed: int
) -> tuple[float, float]:
    """Return mean and standard deviation of kinisi's posterior of D, Å^2/ps.

    MSD and its variances over all time origins, and the regression with their covariance, are kinisi's (McCluskey et
    al., J. Chem. Theory Comput. 21, 79 (2025)); unwrapping atoms and removing drift is done here.

    The fit begins where the mean square displacement exceeds (3 Å)^2, at the latest where the window begins, and ends
    with the window. Long lags have few independent steps: of 30 random walks (60 atoms, 300 frames, D = 0.25) it gave
    0.250 with a scatter of 0.006 and a posterior of 0.008; from the start of the window 0.231 with a scatter of 0.052
    and a posterior that was too narrow, 0.033 (the slope: 0.244, 0.044).

    Parameters
    ----------
    unwrapped
        (n_frames, n_atoms, 3) Å, of the carrier.
    interval_ps
        Between frames.
    random_seed
        Of its Markov chains.

    Raises
    ------
    ConfigError
        kinisi is not installed.
    """
    want_kinisi()
    import scipp
    from kinisi.diffusion import Diffusion
    from kinisi.displacement import calculate_msd

    rows, is_out = window_rows(len(unwrapped), window), mean_square_displacement(unwrapped) >= LEAST_MSD_A2
    begin = min(int(np.argmax(is_out)), rows[0]) if is_out.any() else rows[0]
    lags = np.unique(np.round(np.linspace(begin, rows[-1], _BAYESIAN_INTERVALS)).astype(np.int64))
    # kinisi uses the last interval as the length of the run, from which it derives the numbers of independent steps.
    lags = np.append(lags[lags < len(unwrapped) - 1], len(unwrapped) - 1)
    trajectory = SimpleNamespace(
        displacements=scipp.array(
            dims=["obs", "particle", "dimension"], values=unwrapped[1:] - unwrapped[0], unit="angstrom"
        ),
        dt_index=scipp.array(dims=["time interval"], values=lags),
        dt=scipp.array(dims=["time interval"], values=lags * interval_ps, unit="ps"),
        dimensionality=3 * scipp.units.dimensionless,
    )
    found = calculate_msd(trajectory, progress=False)
    found["da"] = found["da"]["time interval", : len(lags) - 1]
    regression = Diffusion(found)
    state = np.random.get_state()  # noqa: NPY002 - kinisi seeds numpy's global generator: its state is restored
    try:
        seeded = np.random.RandomState(random_seed)
        regression.bayesian_regression(found["da"].coords["time interval"][0], progress=False, random_state=seeded)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    draws = np.asarray(regression.gradient.values) / 6.0
    return float(draws.mean()), float(draws.std(ddof=1))
