"""The product of a glass: what the glass station publishes of one melt-quench, and of the pore that was cut into it.

This module alone knows the names in the archive ``glass/<task>.npz``; others use :class:`GlassProduct`, and the
analyses :func:`glasses_of` and :func:`path_of`. The names are fixed: folders of earlier versions are read by them.

Arrays of the dense path; those of the porous one are the same with ``pore/`` before them::

    frames/symbols, cell ...   kept frames of all segments, in order (Frames.arrays); absent if none was kept
    frame_segment              (n_frames,) index of the segment of each
    frame_time_ps              (n_frames,) since the start of its segment
    frame_velocities           (n_frames, n_atoms, 3) Å/fs; absent unless the study keeps them
    thermo/segment, time_ps, temperature_K, potential_energy, pressure_bar, volume, max_devi_f   (n_rows,)
    final/symbols, cell ...    the last configuration, one frame; absent unless the path was finished
    final_velocities           (n_atoms, 3) Å/ps, of the same

Meta: ``ended, segments, analysed, n_judged, outside_share, above_f_lo_share, n_overflow, overflow_share, overflow,
resumed, seconds, started, finished`` of the dense path, see :class:`GlassPath`; ``pore`` the same of the porous one.
With a pore ``finished`` is the time at which the pore was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.errors import StoreError
from activelearn.frames import FloatArray, Frames
from activelearn.records import Glasses, MadeGlass
from activelearn.store.study import GLASS, ONCE, StudyStore

Arrays = Mapping[str, NDArray[Any]]
IntArray = NDArray[np.int64]
_PORE: Final = "pore"
#: How the id of a porous glass ends.
PORE_ENDING: Final = f"-{_PORE}"
_META: Final = ("ended", "n_judged", "outside_share", "resumed", "seconds", "started", "finished")
#: What older products lack, by the name that shows whether it is known: for potentials with a limit on neighbours (up
#: to commit 3afdc58); for those with a window (up to 885217c).
_LATER: Final = {
    "overflow_share": ("n_overflow", "overflow_share", "overflow"),
    "above_f_lo_share": ("above_f_lo_share",),
}


@dataclass(frozen=True, eq=False)
class Thermo:
    """Rows of the thermo table of a path.

    Parameters
    ----------
    segment
        (n_rows,) index of the segment of each row.
    time_ps
        (n_rows,) since the start of the segment, 0 included.
    temperature_K, potential_energy, pressure_bar, volume
        (n_rows,) K, eV, bar (positive in compression), Å^3.
    max_devi_f
        (n_rows,) force deviation of the ensemble, eV/Å; NaN where there is none.
    """

    segment: IntArray
    time_ps: FloatArray
    temperature_K: FloatArray
    potential_energy: FloatArray
    pressure_bar: FloatArray
    volume: FloatArray
    max_devi_f: FloatArray

    def __len__(self) -> int:
        return len(self.segment)

    def __getitem__(self, which: NDArray[Any]) -> Thermo:
        """Return the rows of a mask or of indices."""
        return Thermo(**{column.name: getattr(self, column.name)[which] for column in fields(self)})


def no_frames() -> Frames:
    """Return Frames of a path that ended before its first frame was kept: no frames, no atoms."""
    return Frames((), np.empty((0, 3, 3)), np.empty((0, 0, 3)))


@dataclass(frozen=True, eq=False)
class GlassPath:
    """A schedule carried out, to its end or to where it failed: the path to a dense glass, or to a porous one.

    Parameters
    ----------
    segments
        Names of the segments of the whole schedule, including those that were not reached.
    analysed
        Indices of the segments whose frames and rows are averaged over.
    ended
        "finished", or the segment and why not: "melt: non-finite", "quench: too hot: 8200 K at 3.1 ps" ...
    frames
        Kept frames of all segments, in order, wrapped, without labels; none of a path that failed before the first.
    frame_segment
        (n_frames,) index of the segment of each frame.
    frame_time_ps
        (n_frames,) since the start of its segment.
    frame_velocities
        (n_frames, n_atoms, 3) Å/fs; None unless the study keeps them.
    thermo
        Rows of the thermo table of all segments, denser than the frames.
    end
        The last configuration, one frame, not wrapped; None unless the path was finished.
    end_velocities
        (n_atoms, 3) Å/ps, of `end`.
    n_judged, outside_share, above_f_lo_share
        Rows with a force deviation, and the shares of them outside the trust window and at or above its f_lo (None: not
        judged; the latter also for older products).
    n_overflow, overflow_share, overflow
        Kept frames in which an atom has more neighbours than the models hold, their share (None: not known), and by how
        many in the first of them: ``S 61 of 56``.
    resumed
        How often a segment was continued from a restart file.
    seconds
        Running time of the engines; a pause after a kill is not counted.
    started, finished
        Unix times.
    """

    segments: tuple[str, ...]
    analysed: tuple[int, ...]
    ended: str
    frames: Frames
    frame_segment: IntArray
    frame_time_ps: FloatArray
    thermo: Thermo
    frame_velocities: FloatArray | None = None
    end: Frames | None = None
    end_velocities: FloatArray | None = None
    n_judged: int = 0
    outside_share: float | None = None
    above_f_lo_share: float | None = None
    n_overflow: int = 0
    overflow_share: float | None = None
    overflow: str = ""
    resumed: int = 0
    seconds: float = 0.0
    started: float = 0.0
    finished: float = 0.0

    @property
    def is_finished(self) -> bool:
        """Whether the whole schedule was carried out."""
        return self.end is not None

    @property
    def last(self) -> Frames:
        """The last kept frame; of a finished path it is `end`, wrapped."""
        return self.frames[-1:]

    @property
    def analysed_frames(self) -> Frames:
        """The frames of the segments that are analysed."""
        return self.frames[np.flatnonzero(np.isin(self.frame_segment, self.analysed))]

    @property
    def analysed_thermo(self) -> Thermo:
        """The rows of the segments that are analysed."""
        return self.thermo[np.isin(self.thermo.segment, self.analysed)]

    @property
    def segment_of_frames(self) -> NDArray[np.str_]:
        """(n_frames,) name of the segment of each frame."""
        return np.array(self.segments)[self.frame_segment]

    @property
    def times_ps(self) -> FloatArray:
        """(n_frames,) times of the frames since the start of the path, ps."""
        rows = self.thermo
        ends = np.array([rows.time_ps[rows.segment == i].max(initial=0.0) for i in range(len(self.segments))])
        return np.asarray(self.frame_time_ps + (np.cumsum(ends) - ends)[self.frame_segment])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of the archive."""
        out: dict[str, NDArray[Any]] = {}
        if len(self.frames):
            out |= self.frames.arrays("frames/")
            out |= {"frame_segment": self.frame_segment, "frame_time_ps": self.frame_time_ps}
            out |= {} if self.frame_velocities is None else {"frame_velocities": self.frame_velocities}
        out |= {f"thermo/{column.name}": getattr(self.thermo, column.name) for column in fields(Thermo)}
        if self.end is not None and self.end_velocities is not None:
            out |= {"final_velocities": self.end_velocities, **self.end.arrays("final/")}
        return out

    def meta(self) -> dict[str, Any]:
        """Return the meta of the archive."""
        later = [name for key, names in _LATER.items() if getattr(self, key) is not None for name in names]
        values = {name: getattr(self, name) for name in (*_META, *later)}
        return {**values, "segments": list(self.segments), "analysed": list(self.analysed)}

    @classmethod
    def from_arrays(cls, arrays: Arrays, meta: Mapping[str, Any]) -> GlassPath:
        """Rebuild from :meth:`arrays` and :meth:`meta`."""
        has_frames, is_finished = "frame_segment" in arrays, "final_velocities" in arrays
        return cls(
            segments=tuple(meta["segments"]),
            analysed=tuple(meta["analysed"]),
            frames=Frames.from_arrays(arrays, "frames/") if has_frames else no_frames(),
            frame_segment=arrays["frame_segment"] if has_frames else np.empty(0, dtype=np.int64),
            frame_time_ps=arrays["frame_time_ps"] if has_frames else np.empty(0),
            thermo=Thermo(**{column.name: arrays[f"thermo/{column.name}"] for column in fields(Thermo)}),
            frame_velocities=arrays.get("frame_velocities"),
            end=Frames.from_arrays(arrays, "final/") if is_finished else None,
            end_velocities=arrays["final_velocities"] if is_finished else None,
            **{name: meta[name] for name in _META},
            **{name: meta[name] for names in _LATER.values() for name in names if name in meta},
        )


@dataclass(frozen=True, eq=False)
class GlassProduct:
    """What one task of the glass station publishes.

    Parameters
    ----------
    dense
        From the packing to the glass.
    porous
        From the glass with the pore onwards; None if no pore is requested, or the dense path was not finished.
    """

    dense: GlassPath
    porous: GlassPath | None = None

    @property
    def judged_porous(self) -> GlassPath | None:
        """The porous path, judged by the worse of itself and of the dense one it is cut from.

        For both together the share would be small, and the stamp wrong: a melt is long, and everything that is measured
        after it may be outside the window.
        """
        if self.porous is None:
            return None
        worse = max(self.dense, self.porous, key=lambda path: path.outside_share or 0.0)
        fuller = max(self.dense, self.porous, key=lambda path: path.overflow_share or 0.0)
        return replace(
            self.porous,
            n_judged=worse.n_judged,
            outside_share=worse.outside_share,
            above_f_lo_share=worse.above_f_lo_share,
            n_overflow=fuller.n_overflow,
            overflow_share=fuller.overflow_share,
            overflow=fuller.overflow,
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of the archive."""
        inner = self.porous.arrays() if self.porous is not None else {}
        return {**self.dense.arrays(), **{f"{_PORE}/{name}": array for name, array in inner.items()}}

    def meta(self) -> dict[str, Any]:
        """Return the meta of the archive."""
        if self.porous is None:
            return self.dense.meta()
        inner = self.porous.meta()
        return {**self.dense.meta(), _PORE: inner, "finished": inner["finished"]}

    @classmethod
    def from_arrays(cls, arrays: Arrays, meta: Mapping[str, Any]) -> GlassProduct:
        """Rebuild from :meth:`arrays` and :meth:`meta`."""
        dense = GlassPath.from_arrays(arrays, meta)
        if _PORE not in meta:
            return cls(dense)
        prefix = f"{_PORE}/"
        inner = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        return cls(dense, GlassPath.from_arrays(inner, meta[_PORE]))


# --- in the folder of a study -----------------------------------------------------------------------------------------


def made_id(task_id: str, *, is_porous: bool) -> str:
    """Return the id of a glass (:class:`~activelearn.records.MadeGlass`): that of its task, or a second one."""
    return f"{task_id}{PORE_ENDING}" if is_porous else task_id


def publish_glass(store: StudyStore, task_id: str, product: GlassProduct) -> bool:
    """Publish what a task has made; False if another process was first."""
    return store.publish_product(GLASS, ONCE, task_id, product.arrays(), product.meta())


def read_glass(store: StudyStore, task_id: str) -> GlassProduct:
    """Return what a task has made.

    Raises
    ------
    StoreError
        The product is missing or damaged.
    """
    return GlassProduct.from_arrays(*store.read_product(GLASS, ONCE, task_id))


def all_glasses_of(store: StudyStore) -> Glasses:
    """Return the sealed glasses, including those that were lost; none if the study makes none."""
    return store.result(GLASS, ONCE, Glasses) if store.is_sealed(GLASS, ONCE) else Glasses(glasses=())


def glasses_of(store: StudyStore) -> tuple[MadeGlass, ...]:
    """Return the glasses that were finished, dense and porous."""
    return all_glasses_of(store).made


def task_of(store: StudyStore, glass: MadeGlass) -> tuple[str, bool]:
    """Return the task whose product has the path of a glass, and whether it is the second one there.

    A porous glass is the second path of the dense one that it is cut from; one that was given has a product of its own.
    """
    plan = store.find_plan(GLASS, ONCE)
    has_own = plan is not None and any(task.id == glass.id for task in plan.tasks)
    if not glass.is_porous or has_own:
        return glass.id, False
    return glass.id.removesuffix(PORE_ENDING), True


def has_path(store: StudyStore, glass: MadeGlass) -> bool:
    """Return whether there is a path of a glass: there is none of a pore that was never cut."""
    task, is_second = task_of(store, glass)
    return not is_second or _PORE in store.read_meta(GLASS, ONCE, task)


def path_of(store: StudyStore, glass: MadeGlass) -> GlassPath:
    """Return the path of a glass: for a porous one, the part after the pore was cut.

    Raises
    ------
    StoreError
        The product is missing or damaged, or the pore was never cut.
    """
    task, is_second = task_of(store, glass)
    product = read_glass(store, task)
    found = product.porous if is_second else product.dense
    if found is None:
        raise StoreError(f"{glass.id}: {glass.stamp} - expected a dense glass to cut the pore from - look at that one")
    return found


def end_of(store: StudyStore, glass: MadeGlass) -> Frames | None:
    """Return the last configuration of a glass, one frame, Å; None for one that was not finished.

    Raises
    ------
    StoreError
        The product is missing or damaged.
    """
    task, is_second = task_of(store, glass)
    prefix = f"{_PORE}/final/" if is_second else "final/"
    names = [f"{prefix}{name}" for name in ("symbols", "pbc", "cell", "positions")]
    arrays, _ = store.read_some(GLASS, ONCE, task, names)
    return Frames.from_arrays(arrays, prefix).wrapped() if len(arrays) == len(names) else None


def thermo_of(store: StudyStore, glass: MadeGlass) -> tuple[tuple[str, ...], tuple[int, ...], Thermo]:
    """Return the thermo table of the path of a glass, without reading its frames.

    Returns
    -------
    segments, analysed
        Names of the segments, and the indices of those that are averaged over.
    thermo
        (n_rows,) columns in ps, K, eV, bar, Å^3, eV/Å.

    Raises
    ------
    StoreError
        The product is missing or damaged, or the pore was never cut.
    """
    task, is_second = task_of(store, glass)
    prefix = f"{_PORE}/" if is_second else ""
    names = [f"{prefix}thermo/{column.name}" for column in fields(Thermo)]
    arrays, meta = store.read_some(GLASS, ONCE, task, names)
    if is_second:
        meta = meta.get(_PORE, {})
    if len(arrays) < len(names) or "segments" not in meta:
        raise StoreError(f"{glass.id}: {glass.stamp} - expected a path with a thermo table - look at the dense one")
    columns = {name.removeprefix(f"{prefix}thermo/"): array for name, array in arrays.items()}
    return tuple(meta["segments"]), tuple(meta["analysed"]), Thermo(**columns)
