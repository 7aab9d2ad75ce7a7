"""The station: count and judge one pass, choose the frames to label, and determine the next pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn import descriptor, learning
from activelearn.config import Campaign, Condition, Select
from activelearn.frames import Frames
from activelearn.records import CellCounts, Counts, Ensemble, Explored, Reach, Selection, Task, WalkRecord
from activelearn.select.anchors import anchors, array_name
from activelearn.select.calibration import window_of
from activelearn.select.keeping import Indices
from activelearn.select.picking import Pool, pick
from activelearn.select.pooling import cell_of, passes_before, pooled
from activelearn.select.reach import unexplored
from activelearn.select.verdict import Judged, inside_by_design, judge, wants_rescue, why
from activelearn.select.window import FrameClass, FrameClasses, count
from activelearn.store import Store
from activelearn.tasks import Station

#: Number of parts in which the frames of a ramp or a deformation are counted.
N_ALONG: Final = 5
#: Stage, and what is imposed on the walk: one cell of the exploration matrix.
Cell = tuple[str, Condition]


def plan(campaign: Campaign, store: Store, iteration: int) -> list[Task]:
    """Selection needs no engine, so it has no tasks."""
    return []


def gather(campaign: Campaign, store: Store, iteration: int) -> Selection:
    """Count the pass, choose what is labelled, and determine what the next pass explores."""
    walks, records, refused = _read_walks(campaign, store, iteration)
    cells = _cells(walks, refused)
    stages = store.result("explore", iteration, Explored).stages
    window = window_of(campaign, store, iteration)
    found = _found(campaign, store, iteration, walks, cells, window)
    judged = found.judged
    is_rescue = not (judged.is_converged or found.unlearnt) and wants_rescue(
        inside_by_design(cells, campaign), campaign.select, is_quiet=found.is_quiet
    )
    chosen, passed_over = _taken(campaign, store, iteration, walks, found, is_rescue=is_rescue)
    _seal_chosen(campaign, store, iteration, walks, chosen)
    taken = [walk.kept_classes[rows] for walk, rows in zip(walks, chosen, strict=True)]
    of_class = {one: sum(int((part == one).sum()) for part in taken) for one in FrameClass}
    selection = Selection(
        iteration=iteration,
        f_lo=window[0],
        f_hi=window[1],
        stages=stages,
        cells=tuple(cells),
        walks=tuple(records),
        chosen=of_class[FrameClass.CANDIDATE],
        mined=sum(int(walk.kept_mined[frames].sum()) for walk, frames in zip(walks, chosen, strict=True)),
        rescued=of_class[FrameClass.FAILED],
        audited=of_class[FrameClass.ACCURATE],
        is_rescue=is_rescue,
        passed_over=passed_over,
        quiet_stages=judged.quiet,
        unexplored_stages=tuple(found.nowhere),
        next_stages=tuple(s.name for s in campaign.explore.stages[: len(stages) + judged.is_advancing]),
        is_converged=judged.is_converged,
        is_bounded=judged.is_bounded,
        learnt_nothing=bool(found.unlearnt),
        why="",
        n_pooled=found.n_pooled,
        pooled=found.pooled,
        held_out_p99=found.held_out_p99,
        is_inaccurate=judged.is_inaccurate,
    )
    unexplored = "; ".join(found.nowhere.values())
    said = why(selection, campaign, judged, unexplored=unexplored, unlearnt=found.unlearnt)
    return selection.model_copy(update={"why": said})


@dataclass(frozen=True)
class _Found:
    """The findings of a pass, together with the earlier ones of the same ensemble."""

    judged: Judged
    is_quiet: bool  # by its shares alone, or with those before it: nothing more to learn from it
    n_pooled: int
    pooled: tuple[CellCounts, ...]
    held_out_p99: float | None
    nowhere: dict[str, str]  # stages that went nowhere, and why
    unlearnt: str  # which models learnt nothing


def _found(
    campaign: Campaign,
    store: Store,
    iteration: int,
    walks: Sequence[_Walk],
    cells: Sequence[CellCounts],
    window: tuple[float, float],
) -> _Found:
    ensemble = store.result("train", iteration - 1, Ensemble)
    stages = store.result("explore", iteration, Explored).stages
    before = passes_before(campaign, store, iteration, stages, window)
    together = pooled(cells, before) if before else ()
    n_passes = _n_passes(store, iteration, stages)
    nowhere = _unexplored(walks, campaign)
    judged = judge(together or cells, stages, n_passes, campaign, ensemble.force_p99, unexplored=nowhere)
    # Too few frames are no reason for a rescue: passes of one ensemble add up to enough.
    any_number = campaign.model_copy(
        update={"stop": campaign.stop.model_copy(update={"min_frames": 1, "min_walks": 1})}
    )
    walked = tuple(name for name in stages if any(cell.stage == name for cell in cells))
    alone = judge(cells, walked, n_passes, any_number, unexplored=nowhere)
    # A rescue moves no atoms of a stage that went nowhere.
    is_quiet = len(nowhere) in (len(stages) - len(judged.quiet), len(walked) - len(alone.quiet))
    unlearnt = learning.in_short(ensemble)[0] if is_quiet and learning.learnt_nothing(ensemble) else ""
    if unlearnt:
        judged = replace(judged, is_converged=False, is_bounded=False, is_advancing=False, is_inaccurate=False)
    return _Found(judged, is_quiet, 1 + len(before), together, ensemble.force_p99, nowhere, unlearnt)


def _taken(
    campaign: Campaign, store: Store, iteration: int, walks: Sequence[_Walk], found: _Found, *, is_rescue: bool
) -> tuple[list[Indices], dict[str, int]]:
    """Return, per walk, the frames that are labelled; and the candidates that are not, by reason."""
    n_candidates = sum(int((walk.classes == FrameClass.CANDIDATE).sum()) for walk in walks)
    chosen = _audited(walks, campaign.select, store.rng(iteration, "select", "audit"))
    if found.unlearnt:  # their deviations do not justify any label
        nothing = [np.empty(0, dtype=np.intp)] * len(walks)
        return nothing, {"models that learnt nothing": n_candidates} if n_candidates else {}
    if found.judged.is_converged:
        return chosen, {"converged": n_candidates} if n_candidates else {}
    lost = [True] * len(walks) if is_rescue else _lost(walks, campaign.select)
    passed_over = _choose(chosen, walks, lost, campaign, store, iteration)
    not_kept = n_candidates - sum(int((walk.kept_classes == FrameClass.CANDIDATE).sum()) for walk in walks)
    if not_kept:  # a walk keeps no more than one iteration may label
        passed_over["cap per iteration"] = passed_over.get("cap per iteration", 0) + not_kept
    return chosen, passed_over


class _Walk:
    """One product of explore, as selection sees it."""

    def __init__(self, task: Task, arrays: dict[str, NDArray[Any]], meta: dict[str, Any], sha256: str) -> None:
        self.cell = cell_of(task)
        self.system: int | None = task.parameters["system"]
        self.classes: FrameClasses = arrays["kind"]
        self.kept_classes: FrameClasses = arrays["kept_kind"]
        self.kept_mined: NDArray[np.bool_] = arrays.get("kept_mined", np.zeros(len(self.kept_classes), dtype=bool))
        self.kept = Frames.from_arrays(arrays, "kept/")
        self.kept.origin["iteration"] = meta["iteration"]
        self.model_forces: NDArray[np.float32] | None = arrays.get("kept_model_forces")
        self.descriptor: NDArray[np.float32] | None = arrays.get("kept_descriptor")
        names = ("ended", "first_bad_step", "log_tail")
        found = {n: meta[n] for n in names} | {"reach": meta.get("reach")}  # older products have none
        self.record = WalkRecord(id=task.id, stage=meta["stage"], sha256=sha256, **found)


def _unexplored(walks: Sequence[_Walk], campaign: Campaign) -> dict[str, str]:
    """Return the stages whose walks went nowhere, with the reason."""
    groups: dict[Cell, list[Reach | None]] = {}
    for walk in walks:
        groups.setdefault(walk.cell, []).append(walk.record.reach)
    return unexplored(groups, campaign.explore.stages)


def _counted(cell: Cell, counts: Counts, kinds: Sequence[FrameClasses]) -> CellCounts:
    stage, condition = cell
    is_driven = condition.mode is not None or condition.to_temperature_K is not None
    fifths = zip(*(np.array_split(kind, N_ALONG) for kind in kinds), strict=True) if is_driven else ()
    along = tuple(count(parts) for parts in fifths)
    return CellCounts(stage=stage, **condition._asdict(), counts=counts, along=along)


def _read_walks(campaign: Campaign, store: Store, iteration: int) -> tuple[list[_Walk], list[WalkRecord], list[Cell]]:
    """Return the walks, the records of all planned ones, and the cells of those refused by the user's consent."""
    sealed = store.result("explore", iteration, Explored).products
    walks, records, refused = [], [], []
    for task in store.plan("explore", iteration).tasks:
        arrays, meta = store.read_product("explore", iteration, task.id)
        if "refused" in meta:
            stage, ended = str(task.parameters["stage"]), f"refused: {meta['refused']}"
            records.append(WalkRecord(id=task.id, stage=stage, ended=ended, sha256=sealed[task.id]))
            refused.append(cell_of(task))
            continue
        walk = _Walk(task, arrays, meta, sealed[task.id])
        if campaign.select.needs_descriptor and walk.descriptor is None:
            walk.descriptor = descriptor.of_frames(walk.kept, campaign.type_map)
        walks.append(walk)
        records.append(walk.record)
    return walks, records, refused


def _cells(walks: Sequence[_Walk], refused: Sequence[Cell]) -> list[CellCounts]:
    groups: dict[Cell, list[FrameClasses]] = {}
    for walk in walks:
        groups.setdefault(walk.cell, []).append(walk.classes)
    cells = []
    for cell in [*groups, *(cell for cell in dict.fromkeys(refused) if cell not in groups)]:
        kinds = groups.get(cell, [])
        found = count(kinds).model_copy(update={"refused_walks": refused.count(cell)})
        cells.append(_counted(cell, found, kinds))
    return cells


def _n_passes(store: Store, iteration: int, stages: tuple[str, ...]) -> int:
    """Return how many passes the newest stage has had, this one included."""
    n = 1
    for i in range(iteration - 1, 0, -1):
        if (earlier := store.find_result("select", i, Selection)) is None:
            continue  # a pass that only added data
        if earlier.stages != stages:
            break
        n += 1
    return n


def _audited(walks: Sequence[_Walk], settings: Select, rng: np.random.Generator) -> list[Indices]:
    """Return, per walk, the accurate frames to label as an audit: each of the pass is equally likely."""
    n_accurate = np.array([int((walk.classes == FrameClass.ACCURATE).sum()) for walk in walks], dtype=np.int64)
    n = min(settings.audit_frames, int(n_accurate.sum()))
    shares = rng.multivariate_hypergeometric(n_accurate, n) if n else np.zeros(len(walks), dtype=np.int64)
    kept = [
        np.flatnonzero(walk.kept_classes == FrameClass.ACCURATE) for walk in walks
    ]  # a random sample of at least as many
    return [np.sort(rng.choice(frames, int(k), replace=False)) for frames, k in zip(kept, shares, strict=True)]


def _lost(walks: Sequence[_Walk], settings: Select) -> list[bool]:
    """Return, per walk, whether its system failed almost everywhere, however well the others do.

    Without a rescue of its own, a system unknown to the ensemble would never get a label: none of its frames is in the
    window.
    """
    groups: dict[int | None, list[FrameClasses]] = {}
    for walk in walks:
        groups.setdefault(walk.system, []).append(walk.classes)
    lost = {system: count(kinds).share("failed") > settings.rescue.failed_share for system, kinds in groups.items()}
    return [lost[walk.system] for walk in walks]


def _choose(
    chosen: list[Indices],
    walks: Sequence[_Walk],
    lost: Sequence[bool],
    campaign: Campaign,
    store: Store,
    iteration: int,
) -> dict[str, int]:
    """Add the picks: candidates, and early failed frames of lost walks; return the candidates passed over."""
    settings, rng = campaign.select, store.rng(iteration, "select")
    cells = list(dict.fromkeys(walk.cell for walk in walks))
    before = anchors(campaign, store, iteration) if settings.needs_descriptor else None
    passed_over: dict[str, int] = {}
    failed = [
        np.flatnonzero((w.kept_classes == FrameClass.FAILED) & is_lost) for w, is_lost in zip(walks, lost, strict=True)
    ]
    candidates = [np.flatnonzero(walk.kept_classes == FrameClass.CANDIDATE) for walk in walks]
    left_to_failed = min(sum(map(len, failed)), int(settings.rescue.share * settings.max_frames))
    for kind, frames, reserved in ((FrameClass.CANDIDATE, candidates, left_to_failed), (FrameClass.FAILED, failed, 0)):
        known = None if before is None else np.concatenate([before, *_descriptors(walks, chosen)])
        pool = _pool(walks, frames, [cells.index(walk.cell) for walk in walks], known)
        room = max(settings.max_frames - reserved - sum(len(taken) for taken in chosen), 0)
        taken, left = pick(pool, settings, room, rng)
        index = np.concatenate([*frames, np.empty(0, dtype=np.intp)])
        for w in range(len(walks)):
            chosen[w] = np.union1d(chosen[w], index[taken[pool.walk[taken] == w]]).astype(np.intp)
        if kind == FrameClass.CANDIDATE:
            passed_over = left
    return passed_over


def _pool(
    walks: Sequence[_Walk], frames: Sequence[Indices], cells: Sequence[int], before: NDArray[np.float32] | None
) -> Pool:
    n_frames = [len(part) for part in frames]
    deviation = [walk.kept.origin["max_devi_f"][part] for walk, part in zip(walks, frames, strict=True)]
    found = _descriptors(walks, frames)
    return Pool(
        walk=np.repeat(np.arange(len(walks)), n_frames),
        cell=np.repeat(np.array(cells, dtype=np.intp), n_frames),
        max_devi_f=np.concatenate([*deviation, np.empty(0)]),
        descriptor=np.concatenate(found) if found else None,
        anchors=before,
    )


def _descriptors(walks: Sequence[_Walk], chosen: Sequence[Indices]) -> list[NDArray[np.float32]]:
    return [walk.descriptor[part] for walk, part in zip(walks, chosen, strict=True) if walk.descriptor is not None]


def _seal_chosen(
    campaign: Campaign, store: Store, iteration: int, walks: Sequence[_Walk], chosen: Sequence[Indices]
) -> None:
    """Publish the chosen frames, with the forces of the driving model and their descriptors."""
    picked = [(walk, frames) for walk, frames in zip(walks, chosen, strict=True) if len(frames)]
    extra: dict[str, NDArray[Any]] = {
        f"{p}/model_forces": walk.model_forces[frames]
        for p, (walk, frames) in enumerate(picked)
        if walk.model_forces is not None
    }
    if campaign.select.needs_descriptor and picked:
        extra[array_name(campaign)] = np.concatenate(_descriptors(walks, chosen))
    store.seal_frames(store.chosen_file(iteration), [walk.kept[frames] for walk, frames in picked], extra)


STATION = Station("select", plan, None, gather)
