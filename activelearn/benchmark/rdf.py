"""Partial pair distribution functions g_ab(r), running coordination numbers, and first shells.

g_ab(r) = <number of b at r from an a> / (rho_b x volume of the shell), where the volume of the shell is the exact
(4/3) pi (r2^3 - r1^3), not 4 pi r^2 dr, and rho_b = N_b / <V> (for a = b too, so an ideal gas of N atoms has
(N - 1) / N up to half its cell). All periodic images are counted, so r may exceed half the cell.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn import seeds
from activelearn.benchmark.property import Context, Findings, Observable, Product, Property
from activelearn.benchmark.replicas import NO_FRAMES, Replicas, mean_and_error, measured
from activelearn.config import Rdf, Series
from activelearn.engines.process import Slot
from activelearn.frames import FloatArray, Frames
from activelearn.records import Task

#: Width (standard deviation, Å) of the Gaussian with which g(r) is smoothed before its extrema are located.
SMOOTHING_A: Final = 0.1
#: Number of distances computed at a time: fits into the cache of a core.
_AT_A_TIME: Final = 16_384


@dataclass(frozen=True, eq=False)
class PairDistribution:
    """All partial g(r) of some frames.

    Parameters
    ----------
    elements
        (n_elements,) of the first two axes of the arrays.
    edges
        (n_bins + 1,) of the shells, Å.
    g
        (n_elements, n_elements, n_bins) symmetric in the first two.
    coordination
        (n_elements, n_elements, n_bins) atoms of the second element nearer to one of the first than ``edges[1:]``.
    """

    elements: tuple[str, ...]
    edges: FloatArray
    g: FloatArray
    coordination: FloatArray

    @property
    def r(self) -> FloatArray:
        """(n_bins,) midpoints of the shells, Å."""
        middles: FloatArray = (self.edges[1:] + self.edges[:-1]) / 2
        return middles


def pair_distribution(frames: Frames, bin_A: float = 0.05, r_max_A: float | None = None) -> PairDistribution:
    """Return all partial g(r), averaged over frames of a periodic cell of any shape.

    Parameters
    ----------
    frames
        One or more; their cells may differ (rho_b uses the mean volume).
    bin_A
        Width of a shell, Å.
    r_max_A
        Range, Å; rounded down to whole shells. None: half the smallest perpendicular height of all frames.

    Returns
    -------
    PairDistribution
        g(r) of every pair of elements, a pure number, and running coordination numbers; defined in the docstring of
        this module (M. P. Allen, D. J. Tildesley, Computer Simulation of Liquids, 2nd ed. (2017), section 2.6).

    Raises
    ------
    ValueError
        A direction is not periodic, there are no frames, or a number in them is not finite.
    """
    if not len(frames) or not (np.isfinite(frames.positions).all() and np.isfinite(frames.cell).all()):
        what = "a coordinate that is not finite" if len(frames) else "no frames"
        raise ValueError(f"g(r) of {frames.formula}: {what} - expected one frame or more, of finite numbers")
    if not all(frames.pbc):
        raise ValueError(
            f"g(r) of {frames.formula}: pbc {frames.pbc} - expected a cell that is periodic along all axes"
        )
    if r_max_A is None:
        r_max_A = min(float(seeds.heights(cell).min()) for cell in frames.cell) / 2
    n_bins = math.floor(r_max_A / bin_A * (1.0 + 1.0e-12))
    elements = tuple(sorted(set(frames.symbols)))
    kind = np.array([elements.index(symbol) for symbol in frames.symbols])
    counts = sum(
        (pair_counts(frames.positions[k], frames.cell[k], kind, bin_A, n_bins) for k in range(len(frames))),
        start=np.zeros((len(elements), len(elements), n_bins), dtype=np.int64),
    )
    edges: FloatArray = bin_A * np.arange(n_bins + 1, dtype=np.float64)
    n_of_kind = np.bincount(kind)
    per_atom = counts / (len(frames) * n_of_kind[:, None, None])
    rho = n_of_kind / frames.volume.mean()
    shells = 4.0 / 3.0 * math.pi * np.diff(edges**3)
    return PairDistribution(elements, edges, per_atom / (rho[None, :, None] * shells), per_atom.cumsum(axis=2))


def pair_counts(
    positions: FloatArray, cell: FloatArray, kind: NDArray[np.integer[Any]], bin_A: float, n_bins: int
) -> NDArray[np.int64]:
    """Count the pairs of atoms by kinds and distance, including images, each from both of its ends.

    Every difference of fractional coordinates is brought to [-1/2, 1/2], and those lattice vectors are added to it
    that can lead to a distance in range: for r up to half the smallest height only the zero vector, as the nearest
    image is then the only one. Atoms are not sorted into cells: at r = L/2 half of all pairs count.

    Parameters
    ----------
    positions
        (n_atoms, 3) Å.
    cell
        (3, 3) Å, rows are lattice vectors.
    kind
        (n_atoms,) index of each atom's kind: 0, 1, ... n_kinds - 1.
    bin_A, n_bins
        Shells: [0, bin), [bin, 2 bin) ... Å.

    Returns
    -------
    NDArray
        (n_kinds, n_kinds, n_bins) counts.
    """
    n_images = np.ceil(bin_A * n_bins / seeds.heights(cell) - 0.5 - 1.0e-9).astype(int).clip(min=0)
    shifts = np.array(list(itertools.product(*(range(-n, n + 1) for n in n_images)))) @ cell
    fractional = np.linalg.solve(cell.T, positions.T)
    of_kind = [np.ascontiguousarray(fractional[:, kind == k]) for k in range(int(kind.max()) + 1)]
    counts = np.zeros((len(of_kind), len(of_kind), n_bins), dtype=np.int64)
    for a, b in itertools.combinations_with_replacement(range(len(of_kind)), 2):
        for from_, to, weight in _blocks(of_kind[a], None if a == b else of_kind[b]):
            counts[a, b] += weight * _histogram(from_, to, cell, shifts, (bin_A, n_bins))
        if a == b:  # an atom is not its own neighbour, but its images are
            counts[a, a, :1] -= of_kind[a].shape[1]
        counts[b, a] = counts[a, b]
    return counts


def _blocks(a: FloatArray, b: FloatArray | None) -> Iterator[tuple[FloatArray, FloatArray, int]]:
    """Split the pairs of a and b (None: a with itself) into blocks: some, with which, and how often they count."""
    others = a if b is None else b
    size = max(1, _AT_A_TIME // max(1, others.shape[1]))
    for begin in range(0, a.shape[1], size):
        some = a[:, begin : begin + size]
        if b is None:
            yield some, some, 1
            yield some, a[:, begin + size :], 2
        else:
            yield some, b, 1


def _histogram(
    from_: FloatArray, to: FloatArray, cell: FloatArray, shifts: FloatArray, bins: tuple[float, int]
) -> NDArray[np.int64]:
    """Return the (n_bins,) histogram of distances between (3, n) and (3, m) fractional coordinates."""
    bin_A, n_bins = bins
    steps = to[:, None, :] - from_[:, :, None]
    steps -= np.rint(steps)
    vectors = cell.T @ steps.reshape(3, -1)
    counts = np.zeros(n_bins + 1, dtype=np.int64)  # the last: out of range
    for shift in shifts:
        moved = vectors + shift[:, None] if len(shifts) > 1 else vectors
        distances = np.sqrt(np.einsum("kn,kn->n", moved, moved))
        shell = np.minimum(distances * (1.0 / bin_A), n_bins).astype(np.intp)
        counts += np.bincount(shell, minlength=n_bins + 1)
    return counts[:n_bins]


# --- first shells -----------------------------------------------------------------------------------------------------


def first_shell(r: FloatArray, g: FloatArray) -> tuple[float | None, float | None]:
    """Return the first peak and the first minimum of a g(r), Å; None where there is none.

    Parameters
    ----------
    r, g
        (n_bins,) midpoints of shells of equal width, Å, and g(r), a pure number.

    Notes
    -----
    For the smoothed g(r) (:data:`SMOOTHING_A`): the first peak is the highest point of the first stretch above 1,
    refined by a parabola; the first minimum is the lowest point between it and the next stretch above 1, or the middle
    of the lowest stretch where that is flat (an empty gap).
    """
    smooth = _smoothed(g, float(r[1] - r[0])) if len(r) > 1 else g
    turns = np.flatnonzero(np.diff(smooth > 1.0, prepend=False)).tolist()
    if len(turns) < 2:
        return None, None
    peak = turns[0] + int(np.argmax(smooth[turns[0] : turns[1]]))
    if len(turns) < 3:
        return _top(r, smooth, peak), None
    valley = smooth[turns[1] : turns[2]]
    lowest = turns[1] + np.flatnonzero(valley == valley.min())
    return _top(r, smooth, peak), float(r[lowest[[0, -1]]].mean())


def _smoothed(g: FloatArray, bin_A: float) -> FloatArray:
    """Return g(r) convolved with a Gaussian truncated at three standard deviations."""
    reach = math.ceil(3.0 * SMOOTHING_A / bin_A)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) * bin_A / SMOOTHING_A) ** 2)
    smooth: FloatArray = np.convolve(np.pad(g, reach, mode="edge"), weights / weights.sum(), mode="valid")
    return smooth


def _top(r: FloatArray, g: FloatArray, peak: int) -> float:
    """Return where the parabola through the highest bin and its neighbours has its maximum, Å."""
    if peak == 0:
        return float(r[0])
    before, at, after = g[peak - 1 : peak + 2].tolist()
    bend = before - 2.0 * at + after
    return float(r[peak] + (0.5 * (before - after) / bend * (r[1] - r[0]) if bend < 0.0 else 0.0))


def number_within(edges: FloatArray, coordination: FloatArray, r_A: float | None) -> float | None:
    """Return a running coordination number at any distance (linear between the edges of shells); None beyond them.

    Parameters
    ----------
    edges
        (n_bins + 1,) of the shells, Å.
    coordination
        (n_bins,) numbers of neighbours nearer than ``edges[1:]``.
    r_A
        Distance, Å; None gives None.
    """
    if r_A is None or r_A > edges[-1] + 1.0e-9:
        return None
    return float(np.interp(r_A, edges, [0.0, *coordination]))


# --- the property -----------------------------------------------------------------------------------------------------


def plan(asked: Rdf, context: Context) -> list[Task]:
    """Return one task per glass."""
    return context.tasks_of("rdf", asked.model_dump())


def run(task: Task, asked: Rdf, context: Context, slot: Slot) -> Product:
    """Average g(r) over the analysed frames of a glass."""
    frames = context.path_of(task).analysed_frames
    if len(frames) == 0:
        return {}, {"ended": NO_FRAMES}
    found = pair_distribution(frames, asked.bin_A, asked.r_max_A)
    arrays = {"edges": found.edges, "g": found.g, "coordination": found.coordination}
    return arrays, {"elements": found.elements, "n_frames": len(frames)}


def results(asked: Rdf, context: Context, tasks: Sequence[Task]) -> Findings:
    """Return peaks, minima, coordination numbers and lines of every pair and condition."""
    found = Findings()
    series = context.series
    for replicas in measured(context, tasks, found):
        distributions = _over_one_range(replicas)
        for pair in pairs_of(distributions[0].elements, series):
            found.extend(of_pair(replicas, distributions, pair, series.cutoff_A(*pair)))
    return found


def pairs_of(elements: Sequence[str], series: Series) -> list[tuple[str, str]]:
    """Return every pair once, named as in the cutoffs of the series, else modifier, former, anion in this order."""
    known = [*series.roles.modifiers, *series.roles.formers, *series.roles.anions]
    ordered = [e for e in known if e in elements] + sorted(set(elements) - set(known))
    pairs = itertools.combinations_with_replacement(ordered, 2)
    return [(b, a) if f"{b}-{a}" in series.cutoffs_A else (a, b) for a, b in pairs]


def _over_one_range(replicas: Replicas) -> list[PairDistribution]:
    """Return the findings on each replica, up to the range of the smallest."""
    n, elements = min(arrays["g"].shape[-1] for arrays in replicas.arrays), tuple(replicas.metas[0]["elements"])
    return [
        PairDistribution(elements, p["edges"][: n + 1], p["g"][..., :n], p["coordination"][..., :n])
        for p in replicas.arrays
    ]


def of_pair(
    replicas: Replicas, distributions: Sequence[PairDistribution], pair: tuple[str, str], cutoff_A: float | None
) -> Findings:
    """Return the findings for a pair (a, b) in one condition: its first shell, and g(r) and n(r) as lines.

    There is a coordination number (b around a) up to the cutoff and one up to the first minimum of each replica: the
    condition ``within`` distinguishes them.
    """
    found, label = Findings(), "-".join(pair)
    first, r, edges = distributions[0], distributions[0].r, distributions[0].edges
    if len(r) == 0:
        found.problems.append(f"g(r) of {label}, {replicas.condition}: the cell is too small for one shell")
        return found
    a, b = (first.elements.index(element) for element in pair)
    g = np.array([one.g[a, b] for one in distributions])
    running = np.array([one.coordination[a, b] for one in distributions])
    peaks, minima = zip(*(first_shell(r, one) for one in g), strict=True)

    def add(name: str, unit: str, values: Iterable[float | None], within: str | None = None) -> None:
        seen = [value for value in values if value is not None]
        note, more = (f"{pair[1]} around {pair[0]}", {"within": within}) if within else (None, {})
        if seen:
            found.results.append(replicas.result(name, unit, seen, note, pair=label, **more))

    add("rdf_peak", "Å", peaks)
    add("rdf_minimum", "Å", minima)
    if cutoff_A is not None:
        numbers = [number_within(edges, n, cutoff_A) for n in running]
        add("coordination_number", "1", numbers, f"{cutoff_A:g} Å")
    numbers = [number_within(edges, n, least) for n, least in zip(running, minima, strict=True)]
    add("coordination_number", "1", numbers, "first minimum")
    for name, x, lines in (("rdf", r, g), ("running_coordination", edges[1:], running)):
        axes = ("r (Å)", "g(r)" if name == "rdf" else f"{pair[1]} around {pair[0]}")
        found.add_curve(replicas.curve(name, label, axes), x, *mean_and_error(lines))
    return found


_OF: Final = ("x", "pair")
PROPERTY = Property(
    "rdf",
    Rdf,
    run,
    results,
    plan,
    observables={
        "rdf_peak": Observable("Å", high=100.0, of=_OF),
        "rdf_minimum": Observable("Å", high=100.0, of=_OF),
        "coordination_number": Observable("1", high=100.0, of=_OF),
    },
)
