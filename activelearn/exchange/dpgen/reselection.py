"""Reclassification of the frames of an iteration from its stored ``model_devi.out``, compared with DP-GEN's own.

DP-GEN writes ``02.fp/candidate.shuffled.SSS.out``, ``rest_accurate.*`` and ``rest_failed.*`` of each system: folder and
step of every frame of the class (unless ``detailed_report_make_fp`` is false).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from activelearn.errors import ConfigError
from activelearn.exchange.dpgen.given import DpgenFolder, number, whole
from activelearn.exchange.dpgen.stages import bound_in
from activelearn.frames import FloatArray
from activelearn.select.window import FrameClass, FrameClasses, classify

#: Folder of a walk: system and number.
_TASK: Final = re.compile(r"task\.\d+\.\d+")
#: Step, and largest, smallest and mean deviation of virials and forces.
_N_COLUMNS = 7
#: The column of the largest deviation of virials and of forces in model_devi.out.
_VIRIAL, _FORCE = 1, 4
#: DP-GEN's own bound of virials: none.
_NO_BOUND: Final = 1.0e10
#: DP-GEN's file names of the classes.
LISTS: Final = {
    FrameClass.ACCURATE: "rest_accurate",
    FrameClass.CANDIDATE: "candidate",
    FrameClass.FAILED: "rest_failed",
}

#: Folder of a walk and MD step: one frame.
Frame = tuple[str, int]


@dataclass(frozen=True)
class Reselected:
    """The frames of one system in one iteration, by class.

    Parameters
    ----------
    iteration, system
        Numbers.
    ours
        Our classification.
    dpgens
        As listed by DP-GEN; None if it wrote no lists.
    """

    iteration: int
    system: int
    ours: dict[FrameClass, set[Frame]]
    dpgens: dict[FrameClass, set[Frame]] | None = field(default=None)

    @property
    def is_same(self) -> bool:
        """Whether every frame has the same class as in DP-GEN."""
        return self.ours == self.dpgens

    def __str__(self) -> str:
        """Return the counts in one line."""
        counts = ", ".join(f"{len(self.ours[one])} {one.name.lower()}" for one in LISTS)
        if self.dpgens is None:
            beside = "DP-GEN wrote no lists"
        elif self.is_same:
            beside = "the same frames as DP-GEN's lists"
        else:
            theirs = ", ".join(f"{len(self.dpgens[one])} {one.name.lower()}" for one in LISTS)
            beside = f"DP-GEN's lists: {theirs}"
        return f"iteration {self.iteration}, system {self.system}: {counts} ({beside})"


def reselected(given: DpgenFolder) -> tuple[list[Reselected], list[str]]:
    """Return the frames of every iteration and system that has deviations, in order, and what cannot be read.

    Raises
    ------
    ConfigError
        The run uses another classification.
    """
    _want_plain(given)
    found: list[Reselected] = []
    unread: list[str] = []
    for iteration in given.iterations:
        walks: dict[str, list[Path]] = {}
        for task in sorted((iteration / "01.model_devi").glob("task.*")):
            if _TASK.fullmatch(task.name) and (task / "model_devi.out").is_file():
                walks.setdefault(task.name.split(".")[1], []).append(task)
        for system, folders in walks.items():
            try:
                found.append(_system(given, iteration, system, folders))
            except ConfigError as error:
                unread += error.problems
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                place = f"{iteration.name}, system {system}"
                unread.append(f"{place}: its frames are not classified again: {type(error).__name__}: {error}")
    return found, unread


def _want_plain(given: DpgenFolder) -> None:
    """Refuse runs whose frames are not classified by two bounds of the deviation of a frame."""
    for key in ("model_devi_adapt_trust_lo", "cluster_cutoff", "model_devi_f_avg_relative"):
        if given.param.get(key):
            raise ConfigError(
                f"{given.param_file}: {key}: frames are not classified by two bounds of a deviation in eV/Å, so they "
                "are not reclassified - expected a run without it - nothing to do: labels do not depend on it"
            )


def _system(given: DpgenFolder, iteration: Path, system: str, walks: list[Path]) -> Reselected:
    job_file = iteration / "01.model_devi" / "cur_job.json"
    job = json.loads(job_file.read_text(encoding="utf-8")) if job_file.is_file() else {}
    bounds = {
        kind: [bound_in(given.param, job, f"model_devi_{kind}_trust_{end}", int(system)) for end in ("lo", "hi")]
        for kind in "fv"
    }
    forces, virials = (tuple(_NO_BOUND if one is None else one for one in bounds[kind]) for kind in "fv")
    ours: dict[FrameClass, set[Frame]] = {one: set() for one in LISTS}
    for walk in walks:
        steps, rows = _deviations(walk / "model_devi.out", whole(given.param.get("model_devi_skip") or 0))
        kinds = classes(rows[:, _FORCE], rows[:, _VIRIAL], forces, virials)
        for step, kind in zip(steps.tolist(), kinds.tolist(), strict=True):
            ours[FrameClass(kind)].add((walk.name, step))
    return Reselected(number(iteration), int(system), ours, _lists(iteration / "02.fp", system))


def _deviations(path: Path, skip: int) -> tuple[FloatArray, FloatArray]:
    """Return steps (n,) and rows (n, 7) of a file; the last of several rows of one step counts (DP-GEN 0.14)."""
    try:
        rows = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be read ({error}) - expected rows of seven numbers - restore it") from None
    if rows.size == 0:
        return np.empty(0, dtype=np.int64), np.empty((0, _N_COLUMNS))
    if rows.shape[1] < _N_COLUMNS or not np.isfinite(rows[:, 0]).all():
        raise ConfigError(f"{path}: has {rows.shape[1]} columns - expected step and six deviations - restore it")
    _, last = np.unique(rows[::-1, 0], return_index=True)
    rows = rows[np.sort(len(rows) - 1 - last)]
    rows = rows[rows[:, 0] >= skip]
    return rows[:, 0].astype(np.int64), rows


def classes(
    max_devi_f: FloatArray, max_devi_v: FloatArray, forces: tuple[float, ...], virials: tuple[float, ...]
) -> FrameClasses:
    """Return the class of each frame as in DP-GEN: candidate if forces or virials are, else the worse.

    Parameters
    ----------
    max_devi_f, max_devi_v
        (n_frames,) largest deviations, eV/Å and eV.
    forces, virials
        Lower and upper bound of each.
    """
    by_force = classify(max_devi_f, *forces)
    by_virial = classify(max_devi_v, *virials)
    worse = np.maximum(by_force, by_virial)
    is_candidate = (by_force == FrameClass.CANDIDATE) | (by_virial == FrameClass.CANDIDATE)
    found: FrameClasses = np.where(is_candidate, np.int8(FrameClass.CANDIDATE), worse).astype(np.int8)
    return found


def _lists(folder: Path, system: str) -> dict[FrameClass, set[Frame]] | None:
    found: dict[FrameClass, set[Frame]] = {}
    for one, name in LISTS.items():
        path = folder / f"{name}.shuffled.{system}.out"
        if not path.is_file():
            return None
        rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        found[one] = {(Path(words[0]).name, int(words[1])) for words in rows}
    return found
