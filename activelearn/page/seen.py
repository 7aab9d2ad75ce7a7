"""Data of the page: the records of a campaign and of its studies, and contents of sealed products.

Read once, for both findings and figures. Unreadable parts are listed, and the rest is shown nevertheless.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from activelearn import final_models, loop, select, status, study, taught
from activelearn.benchmark import station as benchmark
from activelearn.config import Campaign, load_machine
from activelearn.ending import verdict
from activelearn.errors import ActiveLearnError, one_line
from activelearn.final_models import FinalChoice
from activelearn.frames import FloatArray, Frames
from activelearn.page.landscape import Landscape, landscape_of
from activelearn.page.products import (
    DeviationCounts,
    Disk,
    Doubted,
    Fill,
    MemberCurve,
    Residual,
    Slope,
    deviations_of,
    disk_of,
    doubted_of,
    fill_of,
    learning_curves_of,
    residual_of,
    slope_of_initial,
)
from activelearn.page.shots import MOST, Shot, refused_of, starts_of
from activelearn.records import End, Iteration, MadeGlass, Scoreboard
from activelearn.select.accuracy import Accuracy
from activelearn.select.calibration import CalibrationSummary
from activelearn.status import StationProgress
from activelearn.store import Store, StudyStore
from activelearn.store.files import read_npz
from activelearn.store.glass_product import Thermo, end_of, thermo_of

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class SeenCampaign:
    """What is known about a campaign; None: not known (yet).

    Parameters
    ----------
    campaign
        As last accepted.
    file
        Its YAML in the folder, resolved.
    records
        Records of closed iterations.
    end
        How the loop ended.
    at_work
        Running stations.
    next_phase
        What comes next, in words; None if nothing.
    accuracy, calibration, final
        Of the models.
    slots
        Parallel tasks, from the machine profile of the last run.
    fill
        Neighbours in the densest last labelled frames.
    residual
        Forces on last labelled frames.
    doubted
        The frame of the last pass that the members agree on least.
    slope
        Whether energies, forces and virials of the labels agree.
    disk
        Disk usage of the folder.
    deviations, curves
        Of the walks and trainings shown.
    starts, refused
        Structures: what walks start from, and frames that were chosen and not added.
    landscape
        The data set in the plane.
    teacher
        What is said of a teacher, one sentence each.
    """

    campaign: Campaign
    file: str = "campaign/000.yaml"
    records: tuple[Iteration, ...] = ()
    end: End | None = None
    at_work: tuple[StationProgress, ...] = ()
    next_phase: str | None = None
    accuracy: Accuracy | None = None
    calibration: CalibrationSummary | None = None
    final: FinalChoice | None = None
    slots: int | None = None
    fill: tuple[Fill, ...] = ()
    residual: Residual | None = None
    doubted: Doubted | None = None
    slope: Slope | None = None
    disk: Disk | None = None
    deviations: tuple[DeviationCounts, ...] = ()
    curves: tuple[MemberCurve, ...] = ()
    starts: tuple[Shot, ...] = ()
    refused: tuple[Shot, ...] = ()
    landscape: Landscape | None = None
    teacher: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class SeenPath:
    """The thermo table of the path of a glass: names of its segments, indices of those averaged over, rows."""

    segments: tuple[str, ...]
    analysed: tuple[int, ...]
    thermo: Thermo

    @property
    def times_ps(self) -> FloatArray:
        """(n_rows,) times of the rows since the start of the path, ps."""
        rows = self.thermo
        ends = np.array([rows.time_ps[rows.segment == i].max(initial=0.0) for i in range(len(self.segments))])
        return np.asarray(rows.time_ps + (np.cumsum(ends) - ends)[rows.segment])


@dataclass(frozen=True, eq=False)
class SeenStudy:
    """What is known about a study.

    Parameters
    ----------
    name, folder
        Of the study.
    glasses
        All planned and sealed ones.
    board
        The results; None if not yet.
    windows
        Trust window (f_lo, f_hi) by potential, eV/Å.
    paths
        By id of the glass.
    curves
        Arrays of the curves of the board.
    ends
        Last configurations, by id of the glass; for some.
    """

    name: str
    folder: Path = Path()
    glasses: tuple[MadeGlass, ...] = ()
    board: Scoreboard | None = None
    windows: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    paths: Mapping[str, SeenPath] = field(default_factory=dict)
    curves: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    ends: Mapping[str, Frames] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Seen:
    """What is known about a folder: a campaign (None: a study by itself), its studies, and what could not be read."""

    campaign: SeenCampaign | None = None
    studies: tuple[SeenStudy, ...] = ()
    unread: tuple[str, ...] = ()


class _Tries:
    """Reads items in sequence, and records what cannot be read."""

    def __init__(self) -> None:
        self.unread: list[str] = []

    def tried(self, what: str, read: Callable[[], T], otherwise: T) -> T:
        """Return the result of `read`, or else the default."""
        try:
            return read()
        except (ActiveLearnError, OSError, KeyError, ValueError) as error:
            self.unread.append(f"{what}: {one_line(str(error)) or type(error).__name__}")
            return otherwise


# --- a campaign -------------------------------------------------------------------------------------------------------


def see_campaign(store: Store) -> Seen:
    """Return what is known about a campaign and the studies in its folder."""
    reader, campaign = _Tries(), store.latest_campaign()
    records = tuple(store.iterations())
    end = verdict(store) if records else None
    last = records[-1].index if records else None
    seen = SeenCampaign(
        campaign=campaign,
        file=store.campaign_files()[-1].relative_to(store.folder).as_posix(),
        records=records,
        end=end,
        at_work=tuple(reader.tried("stations at work", lambda: status.progress(store), [])),
        next_phase=reader.tried("what comes next", lambda: _next(store), None),
        accuracy=reader.tried("accuracy", lambda: _accuracy(store, records), None),
        calibration=reader.tried("calibration", lambda: select.summary(store), None),
        final=reader.tried("final models", lambda: _final(store, end), None),
        slots=reader.tried("machine profile", lambda: _slots(store), None),
        fill=reader.tried("neighbours", lambda: fill_of(store, campaign, last), ()),
        residual=reader.tried("forces of labelled frames", lambda: residual_of(store, records), None),
        doubted=reader.tried("atoms of the worst frame", lambda: doubted_of(store, records), None),
        slope=reader.tried("energies and virials of the initial data", lambda: slope_of_initial(store, records), None),
        deviations=reader.tried("walks of the last pass", lambda: deviations_of(store, records), ()),
        curves=reader.tried("learning curves", lambda: learning_curves_of(store, records, end), ()),
        disk=reader.tried("files", lambda: disk_of(store.folder), None),
        starts=reader.tried("starting structures", lambda: starts_of(store, campaign), ()),
        refused=reader.tried("refused frames", lambda: refused_of(store, records), ()),
        landscape=reader.tried("descriptors", lambda: landscape_of(store, campaign, records), None),
        teacher=tuple(reader.tried("teacher", lambda: taught.said(store), [])),
    )
    places = reader.tried("studies", partial(store.studies, None), list[StudyStore]())
    return Seen(seen, tuple(_seen_study(one, reader) for one in places), tuple(reader.unread))


def _next(store: Store) -> str | None:
    phase = loop.next_phase(store)
    if phase is None:
        return None
    what = {"loop": f"iteration {phase.iteration}", "final": "the final models", "study": "glasses and benchmarks"}
    return what[phase.name]


def _accuracy(store: Store, records: Sequence[Iteration]) -> Accuracy | None:
    last = max((record.index for record in records if record.selection is not None), default=0)
    return select.accuracy_of(records, store.campaign(last).select) if records else None


def _final(store: Store, end: End | None) -> FinalChoice | None:
    if end is None or not store.is_sealed("final", end.iteration):
        return None
    return final_models.chosen(store, end.iteration)


def _slots(store: Store) -> int | None:
    path = store.folder / "machine.yaml"
    return load_machine(str(path)).slots if path.is_file() else None


# --- a study ----------------------------------------------------------------------------------------------------------


def see_study(store: StudyStore) -> Seen:
    """Return what is known about a standalone study."""
    reader = _Tries()
    found = _seen_study(store, reader)
    return Seen(None, (found,), tuple(reader.unread))


def _seen_study(store: StudyStore, reader: _Tries) -> SeenStudy:
    made = reader.tried(f"{store.folder.name}: glasses", lambda: study.glasses_of(store), None)
    board = reader.tried(f"{store.folder.name}: scoreboard", lambda: study.scoreboard_of(store), None)
    asked = reader.tried(f"{store.folder.name}: study", lambda: store.study, None)
    glasses = made.glasses if made is not None else ()
    paths = {}
    for glass in glasses:
        path = reader.tried(f"{store.folder.name}: {glass.id}", partial(_path, store, glass), None)
        if path is not None:
            paths[glass.id] = path
    curves: Mapping[str, NDArray[Any]] = {}
    if board is not None and board.curves:
        curves = reader.tried(f"{store.folder.name}: curves", partial(_curves, store), {})
    ends = {}
    for glass in [one for one in glasses if one.is_finished][:MOST]:
        end = reader.tried(f"{store.folder.name}: {glass.id}", partial(end_of, store, glass), None)
        if end is not None:
            ends[glass.id] = end
    return SeenStudy(
        ends=ends,
        name=asked.name if asked is not None else store.folder.name,
        folder=store.folder,
        glasses=glasses,
        board=board,
        windows={p.name: p.window for p in asked.potentials if p.window is not None} if asked is not None else {},
        paths=paths,
        curves=curves,
    )


def _path(store: StudyStore, glass: MadeGlass) -> SeenPath:
    return SeenPath(*thermo_of(store, glass))


def _curves(store: StudyStore) -> Mapping[str, NDArray[Any]]:
    return read_npz(store.whole(benchmark.curves_file(store)))[0]
