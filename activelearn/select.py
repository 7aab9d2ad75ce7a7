"""Select: accurate, candidate or failed by the force deviation of the ensemble, and what is picked from the window.

The deviation of a frame is eps = max_i sqrt( (1/M) sum_k |F_ik - <F_i>|^2 ) over M members, in the population form: the
column ``max_devi_f`` of LAMMPS' model_devi.out (Zhang et al., Comput. Phys. Commun. 253, 107206 (2020), eq. 5).
Everything but the station at the end is numpy on plain arrays; any station may import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.config import Campaign, Select, Stop
from activelearn.frames import FloatArray, Frames
from activelearn.records import CellCounts, Counts, Explored, Selection, Task, WalkRecord
from activelearn.store import Store
from activelearn.tasks import Station

KindArray = NDArray[np.int8]
#: Stage, temperature (K) and pressure (bar, or None): one cell of the exploration matrix.
Cell = tuple[str, float, float | None]


class Kind(IntEnum):
    """What a frame is to the trust window."""

    ACCURATE = 0
    CANDIDATE = 1
    FAILED = 2
    OUT_OF_REGION = 3


_NAMES: Final = {
    Kind.ACCURATE: "accurate",
    Kind.CANDIDATE: "candidate",
    Kind.FAILED: "failed",
    Kind.OUT_OF_REGION: "out_of_region",
}


def force_deviation(forces: FloatArray) -> FloatArray:
    """Return (n_frames,) max over atoms of the standard deviation of the force over the ensemble, eV/Å.

    Parameters
    ----------
    forces
        (n_members, n_frames, n_atoms, 3), eV/Å.
    """
    spread = forces - forces.mean(axis=0, keepdims=True)
    per_atom = np.sqrt((spread**2).sum(axis=-1).mean(axis=0))
    deviation: FloatArray = per_atom.max(axis=-1)
    return deviation


def classify(max_devi_f: FloatArray, f_lo: float, f_hi: float) -> KindArray:
    """Return the class of each frame: accurate < f_lo <= candidate < f_hi <= failed; not finite is failed.

    Parameters
    ----------
    max_devi_f
        (n_frames,) eV/Å.
    f_lo, f_hi
        The trust window, eV/Å.
    """
    kind = np.full(len(max_devi_f), Kind.FAILED, dtype=np.int8)
    kind[max_devi_f < f_hi] = Kind.CANDIDATE
    kind[max_devi_f < f_lo] = Kind.ACCURATE
    return kind


def classify_walk(
    max_devi_f: FloatArray,
    *,
    n_planned: int,
    window: tuple[float, float],
    outside_from: int | None,
    is_broken: bool = False,
) -> KindArray:
    """Return the class of every *planned* frame of a walk.

    Frames that a walk never reached because it broke (lost atoms, NaN) are failed, as are all after the first that is
    not finite, however healthy they look; frames from `outside_from` on are out of the region, reached or not.

    Parameters
    ----------
    max_devi_f
        (n_whole,) of the frames reached, eV/Å.
    n_planned
        Frames that the walk should have.
    window
        f_lo, f_hi in eV/Å.
    outside_from
        First frame past a geometry guard, or None.
    is_broken
        Whether the walk ended by itself (lost atoms, NaN): then frames never reached are failed even past a guard.
    """
    kind = np.full(n_planned, Kind.FAILED, dtype=np.int8)
    bad = np.flatnonzero(~np.isfinite(max_devi_f))
    n_good = min(len(max_devi_f) if len(bad) == 0 else int(bad[0]), n_planned)
    kind[:n_good] = classify(max_devi_f[:n_good], *window)
    if outside_from is not None:
        kind[outside_from : len(max_devi_f) if is_broken else n_planned] = Kind.OUT_OF_REGION
    return kind


def worth_keeping(
    kind: KindArray, max_devi_f: FloatArray, select: Select, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Return the frames of a walk that selection may want, in step order.

    Candidates (at most as many as one iteration may label), and the earliest failed frames below the rescue bound:
    the way into a hole of the potential is where labels teach most.
    """
    candidates = np.flatnonzero(kind == Kind.CANDIDATE)
    most = min(select.max_frames, select.max_per_walk or select.max_frames)
    if len(candidates) > most:
        candidates = np.sort(rng.choice(candidates, most, replace=False))
    beyond = np.flatnonzero(~(max_devi_f < select.rescue.max_devi_f))
    way_in = kind[: beyond[0]] if len(beyond) else kind
    failed = np.flatnonzero(way_in == Kind.FAILED)
    return np.union1d(candidates, failed[: select.rescue.frames_per_walk])


def count(kinds: Sequence[KindArray]) -> Counts:
    """Return the counts of some walks."""
    joined = np.concatenate([*kinds, np.empty(0, dtype=np.int8)])
    totals = {name: int((joined == kind).sum()) for kind, name in _NAMES.items()}
    return Counts(walked=len(joined), walks=len(kinds), **totals)


def pick(
    walk: NDArray[np.intp], cell: NDArray[np.intp], settings: Select, room: int, rng: np.random.Generator
) -> tuple[NDArray[np.intp], dict[str, int]]:
    """Choose frames at random under the caps per walk, per cell of the matrix and per iteration.

    Parameters
    ----------
    walk, cell
        (n_frames,) which walk and cell each frame is of.
    settings
        Holds the caps.
    room
        How many may be chosen in all.
    rng
        Random numbers.

    Returns
    -------
    chosen
        Sorted indices.
    passed_over
        Frames not chosen, by the cap that stopped them.
    """
    taken: list[int] = []
    per_walk: dict[int, int] = {}
    per_cell: dict[int, int] = {}
    passed_over: dict[str, int] = {}
    for i in rng.permutation(len(walk)):
        w, c = int(walk[i]), int(cell[i])
        reason = None
        if settings.max_per_walk is not None and per_walk.get(w, 0) >= settings.max_per_walk:
            reason = "cap per walk"
        elif settings.max_per_cell is not None and per_cell.get(c, 0) >= settings.max_per_cell:
            reason = "cap per cell"
        elif len(taken) >= room:
            reason = "cap per iteration"
        if reason is not None:
            passed_over[reason] = passed_over.get(reason, 0) + 1
            continue
        taken.append(int(i))
        per_walk[w] = per_walk.get(w, 0) + 1
        per_cell[c] = per_cell.get(c, 0) + 1
    return np.array(sorted(taken), dtype=np.intp), passed_over


def is_quiet(counts: Counts, stop: Stop) -> bool:
    """Return whether candidates and failed frames are both below their bounds, over enough frames and walks."""
    return (
        counts.refused_walks == 0
        and counts.in_region >= stop.min_frames
        and counts.walks >= stop.min_walks
        and counts.share("candidate") < stop.candidate_share
        and counts.share("failed") < stop.failed_share
        and counts.out_of_region <= stop.out_of_region_share * counts.walked
    )


def wants_rescue(counts: Counts, settings: Select, *, is_quiet: bool) -> bool:
    """Return whether a pass taught too little by its window alone.

    Nearly everything failed (or left the region), or there is nothing in the window although the pass is not quiet:
    the loop would go round without learning.
    """
    lost = (counts.failed + counts.out_of_region) / max(counts.walked, 1)
    return lost > settings.rescue.failed_share or (counts.candidate == 0 and not is_quiet)


# --- the station ------------------------------------------------------------------------------------------------------


def plan(campaign: Campaign, store: Store, iteration: int) -> list[Task]:
    """Selection needs no engine, so it has no tasks."""
    return []


def run(task: Task, store: Store, iteration: int, slot: object) -> None:
    """There is no task to run."""
    raise ValueError(f"select has no tasks, got {task.id}")


def gather(campaign: Campaign, store: Store, iteration: int) -> Selection:
    """Count the pass, choose what is labelled, and say what the next pass explores."""
    walks, records, refused = _read_walks(store, iteration)
    cells = _cells(walks, refused)
    counts = Counts.total(cell.counts for cell in cells)
    stages = store.result("explore", iteration, Explored).stages
    quiet = tuple(name for name in stages if is_quiet(_of_stage(cells, name), campaign.stop))
    is_last = len(stages) == len(campaign.explore.stages)
    is_converged = is_last and len(quiet) == len(stages)
    is_rescue = not is_converged and wants_rescue(counts, campaign.select, is_quiet=len(quiet) == len(stages))
    rng = store.rng(iteration, "select")
    if is_converged:
        chosen, passed_over = _nothing(walks), {"converged": counts.candidate} if counts.candidate else {}
    else:
        chosen, passed_over = _choose(walks, cells, campaign.select, rng, is_rescue=is_rescue)
        not_kept = counts.candidate - sum(int((walk.kept_kind == Kind.CANDIDATE).sum()) for walk in walks)
        if not_kept:  # a walk keeps no more than one iteration may label
            passed_over["cap per iteration"] = passed_over.get("cap per iteration", 0) + not_kept
    parts = [walk.kept[frames] for walk, frames in zip(walks, chosen, strict=True) if len(frames)]
    store.seal_frames(store.chosen_file(iteration), parts)
    n_rescued = sum(int((w.kept_kind[f] == Kind.FAILED).sum()) for w, f in zip(walks, chosen, strict=True))
    is_advancing = not is_last and len(quiet) == len(stages)
    return Selection(
        iteration=iteration,
        f_lo=campaign.select.f_lo,
        f_hi=campaign.select.f_hi,
        stages=stages,
        cells=tuple(cells),
        walks=tuple(records),
        chosen=sum(len(frames) for frames in chosen) - n_rescued,
        rescued=n_rescued,
        is_rescue=is_rescue,
        passed_over=passed_over,
        quiet_stages=quiet,
        next_stages=tuple(s.name for s in campaign.explore.stages[: len(stages) + is_advancing]),
        is_converged=is_converged,
        why=_why(
            counts,
            campaign,
            is_converged=is_converged,
            is_rescue=is_rescue,
            is_advancing=is_advancing,
            n_rescued=n_rescued,
        ),
    )


class _Walk:
    """One product of explore, as selection sees it."""

    def __init__(self, task: Task, arrays: dict[str, NDArray[Any]], meta: dict[str, Any], sha256: str) -> None:
        self.cell = _cell_of(task)
        self.kind: KindArray = arrays["kind"]
        self.kept_kind: KindArray = arrays["kept_kind"]
        self.kept = Frames.from_arrays(arrays, "kept/")
        self.kept.origin["iteration"] = meta["iteration"]
        names = ("ended", "first_bad_step", "log_tail")
        self.record = WalkRecord(id=task.id, stage=meta["stage"], sha256=sha256, **{n: meta[n] for n in names})


def _cell_of(task: Task) -> Cell:
    p = task.parameters
    return str(p["stage"]), float(p["temperature_K"]), p["pressure_bar"]


def _read_walks(store: Store, iteration: int) -> tuple[list[_Walk], list[WalkRecord], list[Cell]]:
    """Return the walks, the records of all planned ones, and the cells of those refused by the user's consent."""
    plan = store.plan("explore", iteration)
    sealed = store.result("explore", iteration, Explored).products
    assert plan is not None  # explore is sealed
    walks, records, refused = [], [], []
    for task in plan.tasks:
        arrays, meta = store.read_product("explore", iteration, task.id)
        if "refused" in meta:
            stage, ended = str(task.parameters["stage"]), f"refused: {meta['refused']}"
            records.append(WalkRecord(id=task.id, stage=stage, ended=ended, sha256=sealed[task.id]))
            refused.append(_cell_of(task))
        else:
            walks.append(_Walk(task, arrays, meta, sealed[task.id]))
            records.append(walks[-1].record)
    return walks, records, refused


def _cells(walks: Sequence[_Walk], refused: Sequence[Cell]) -> list[CellCounts]:
    groups: dict[Cell, list[KindArray]] = {}
    for walk in walks:
        groups.setdefault(walk.cell, []).append(walk.kind)
    cells = []
    for cell in [*groups, *(cell for cell in dict.fromkeys(refused) if cell not in groups)]:
        found = count(groups.get(cell, [])).model_copy(update={"refused_walks": refused.count(cell)})
        cells.append(CellCounts(stage=cell[0], temperature_K=cell[1], pressure_bar=cell[2], counts=found))
    return cells


def _of_stage(cells: Sequence[CellCounts], stage: str) -> Counts:
    return Counts.total(cell.counts for cell in cells if cell.stage == stage)


def _nothing(walks: Sequence[_Walk]) -> list[NDArray[np.intp]]:
    return [np.empty(0, dtype=np.intp) for _ in walks]


def _choose(
    walks: Sequence[_Walk],
    cells: Sequence[CellCounts],
    settings: Select,
    rng: np.random.Generator,
    *,
    is_rescue: bool,
) -> tuple[list[NDArray[np.intp]], dict[str, int]]:
    """Return, per walk, the kept frames to label; candidates first, then, in a rescue, early failed frames."""
    names = [(cell.stage, cell.temperature_K, cell.pressure_bar) for cell in cells]
    chosen: list[list[int]] = [[] for _ in walks]
    passed_over: dict[str, int] = {}
    room = settings.max_frames
    for kind in (Kind.CANDIDATE, Kind.FAILED) if is_rescue else (Kind.CANDIDATE,):
        pool = [(w, int(f)) for w, walk in enumerate(walks) for f in np.flatnonzero(walk.kept_kind == kind)]
        walk_of = np.array([w for w, _ in pool], dtype=np.intp)
        cell_of = np.array([names.index(walks[w].cell) for w, _ in pool], dtype=np.intp)
        taken, left = pick(walk_of, cell_of, settings, room, rng)
        room -= len(taken)
        for i in taken:
            chosen[pool[i][0]].append(pool[i][1])
        if kind == Kind.CANDIDATE:
            passed_over = left
    return [np.array(sorted(frames), dtype=np.intp) for frames in chosen], passed_over


def _why(
    counts: Counts, campaign: Campaign, *, is_converged: bool, is_rescue: bool, is_advancing: bool, n_rescued: int
) -> str:
    shares = f"{100 * counts.share('candidate'):.1f} % candidates, {100 * counts.share('failed'):.1f} % failed"
    over = f"{shares} of {counts.in_region} frames from {counts.walks} walks"
    if counts.out_of_region:
        over += f" ({counts.out_of_region} frames out of the region)"
    if counts.refused_walks:
        over += f"; {counts.refused_walks} walks refused by consent, so the region is not whole"
    if is_converged:
        return f"converged: {over}"
    if is_advancing:
        return f"quiet, the next stage joins: {over}"
    if is_rescue:
        bound = campaign.select.rescue.max_devi_f
        if n_rescued == 0:
            return f"rescue: {over}; but no early failed frame was below {bound:g} eV/Å"
        return f"rescue: {over}; {n_rescued} early failed frames below {bound:g} eV/Å are labelled, training is longer"
    return f"goes on: {over}"


STATION = Station("select", plan, run, gather)
