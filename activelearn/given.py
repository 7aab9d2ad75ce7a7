"""Glasses that one has: read from structure files or from the folder of a study, and published as if made here.

A structure file is extended XYZ (or what else ASE reads). Its frames are those of one glass for each composition, or,
where their comment lines have an ``id``, for each ``id``; ``potential``, ``x``, ``replica`` and
``cooling_rate_K_per_ps`` are taken from there, too, as ``activelearn glass`` writes them. The folder of a study gives
its glasses as they are: all analysed frames, thermo tables and stamps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from activelearn import packing, starts
from activelearn.config import Composition, OwnGlasses, Series
from activelearn.config.files import is_file
from activelearn.config.section import as_name
from activelearn.engines.dynamics import FINISHED
from activelearn.errors import ConfigError
from activelearn.frames import Frames, formula_of
from activelearn.records import MadeGlass, Melt, Task
from activelearn.store import StudyStore
from activelearn.store.glass_product import (
    PORE_ENDING,
    GlassPath,
    GlassProduct,
    Thermo,
    all_glasses_of,
    has_path,
    read_glass,
    task_of,
)
from activelearn.store.study import GLASS, ONCE
from activelearn.structures import read_structures

if TYPE_CHECKING:
    from ase import Atoms

#: No two atoms of matter are closer, Å.
MIN_DISTANCE_A: Final = 0.5
#: A glass is of a composition if no element is off by more atoms than this: cells are rounded to whole atoms.
_MAX_OFF: Final = 0.5
#: Two numbers x are one composition if they differ by less, since files round them.
_SAME_X: Final = 1.0e-4
_SEGMENT: Final = "given"
#: Most lines printed on one file: further ones say the same.
_MOST_LINES: Final = 5
_NOT_KNOWN: Final = "its melt is not in the files"


@dataclass(frozen=True, eq=False)
class OwnGlass:
    """One glass of a file, or of the folder of a study.

    Parameters
    ----------
    id
        Its name, unique in a study: that in the file, or one made of the name of the file.
    records
        What is sealed of it; with the porous glass that was cut from it, two.
    read
        Returns its frames: those of a study are many, and read when they are needed.
    """

    id: str
    records: tuple[MadeGlass, ...]
    read: Callable[[], GlassProduct]

    def n_frames(self) -> list[int]:
        """Return how many frames of each record are analysed."""
        product = self.read()
        paths = [product.dense if record.id == self.id else product.porous for record in self.records]
        return [len(path.analysed_frames) if path is not None else 0 for path in paths]


def read(given: OwnGlasses) -> list[list[OwnGlass]]:
    """Return the glasses of each file, in their order.

    Raises
    ------
    ConfigError
        One line for each problem: a file cannot be read, a frame is no glass of the series ...
    """
    found: list[list[OwnGlass]] = []
    problems: list[str] = []
    for file in given.files:
        try:
            found.append(_of(file, given.series))
        except ConfigError as error:
            problems += [*error.problems[:_MOST_LINES]]
            if len(error.problems) > _MOST_LINES:
                problems.append(f"{file}: {len(error.problems) - _MOST_LINES} more frames like these")
    ids = Counter(glass.id.lower() for glasses in found for glass in glasses)
    twice = [(name, n) for name, n in ids.items() if n > 1]
    problems += [
        f"glasses: {name} names {n} glasses (capital letters do not count) - expected different names - rename a "
        "file, or change the id of its frames"
        for name, n in twice
    ]
    if problems:
        raise ConfigError(*problems)
    return found


def with_compositions(given: OwnGlasses) -> OwnGlasses:
    """Return the same with the compositions that its glasses have; see :func:`read` for what is raised."""
    xs = {record.x for glasses in read(given) for glass in glasses for record in glass.records}
    return given.model_copy(update={"x": tuple(sorted(xs))})


def series_of(folder: Path) -> Series | None:
    """Return the series of the glasses in the folder of a study; None: it is no such folder."""
    if not (folder / "study.yaml").is_file():
        return None
    made = StudyStore.open(folder).study.of_glasses
    return None if made is None else made.series


def said(given: OwnGlasses) -> list[str]:
    """Return one line on each glass, as `check` shows it."""
    lines = []
    for file, glasses in zip(given.files, read(given), strict=True):
        for glass in glasses:
            for record, n in zip(glass.records, glass.n_frames(), strict=True):
                made_by = "" if record.potential == _origin(file) else f", made by {record.potential}"
                lines.append(
                    f"glass {record.id}: {record.formula} (x = {record.x:g}), {n} frame{'s' if n != 1 else ''} of "
                    f"{Path(file).name}{made_by}"
                )
    return lines


# --- for the station --------------------------------------------------------------------------------------------------


def plan(given: OwnGlasses) -> list[Task]:
    """One task per glass."""
    return [
        Task(id=glass.id, kind=GLASS, parameters={"file": k})
        for k, glasses in enumerate(read(given))
        for glass in glasses
    ]


def of_task(task: Task, given: OwnGlasses) -> OwnGlass:
    """Return the glass that a task publishes; see :func:`read` for what is raised."""
    glasses = _of(given.files[task.parameters["file"]], given.series)
    return next(glass for glass in glasses if glass.id == task.id)


# --- files ------------------------------------------------------------------------------------------------------------


def _of(file: str, series: Series) -> list[OwnGlass]:
    """Return the glasses of a file, or of a folder."""
    path = Path(file)
    if path.is_dir():
        return _of_study(path, series)
    if not is_file(path):
        raise ConfigError(
            f"{file}: no such file - expected structures of glasses (extended XYZ), or the folder of a study - check "
            "the path"
        )
    stat = path.stat()
    return list(_of_file(file, series.model_dump_json(), stat.st_mtime_ns, stat.st_size))


def _of_study(folder: Path, series: Series) -> list[OwnGlass]:
    """Return the glasses of a study as they are sealed there.

    Raises
    ------
    ConfigError
        It is no study, its glasses are not finished, or they are of no composition of the series.
    """
    if not (folder / "study.yaml").is_file():
        raise ConfigError(
            f"{folder}: no study - expected the folder of one, such as runs/quickstart/study-004, or a structure file "
            "- check the path"
        )
    store = StudyStore.open(folder)
    if not store.is_sealed(GLASS, ONCE):
        raise ConfigError(
            f"{folder}: its glasses are not finished - expected a study that has made them - see: activelearn status "
            f"{folder}"
        )
    by_task: dict[str, list[MadeGlass]] = {}
    for record in all_glasses_of(store).glasses:
        if record.is_finished:
            _composition(Counter(packing.atoms_of({record.formula: 1})), series, record.x, f"{folder}: {record.id}")
        by_task.setdefault(task_of(store, record)[0], []).append(record)
    return [
        OwnGlass(name, tuple(one for one in records if has_path(store, one)), partial(read_glass, store, name))
        for name, records in by_task.items()
    ]


@lru_cache(maxsize=4)
def _of_file(file: str, series_json: str, *_changed: int) -> tuple[OwnGlass, ...]:
    """Return the glasses of a structure file; a file that is read for many tasks is read once."""
    series, images = Series.model_validate_json(series_json), _images(file)
    problems = [f"{file}: frame {k}: {why}" for k, image in enumerate(images) if (why := _unfit(image)) is not None]
    if problems:
        raise ConfigError(*problems)
    groups: dict[tuple[str, str], list[Atoms]] = {}
    for image in images:
        name = image.info.get("id")
        formula = formula_of(image.get_chemical_symbols())
        groups.setdefault((str(name) if isinstance(name, str | int) else "", formula), []).append(image)
    found: list[OwnGlass] = []
    for (name, formula), frames in groups.items():
        try:
            found.append(_glass(file, name, frames, series, found, is_alone=len(groups) == 1))
        except ConfigError as error:
            problems += error.problems
        except ValueError:  # of Frames.concatenate
            problems.append(
                f"{file}: frames of {name or formula} have their atoms in different orders - expected one glass with "
                "one order - write an id of its own into the comment line of each glass (id=...), or one file for each"
            )
    if problems:
        raise ConfigError(*problems)
    return tuple(found)


def _images(file: str) -> list[Atoms]:
    try:
        images = read_structures(Path(file))
    except Exception as error:  # noqa: BLE001 - of ASE's parsers: any kind
        why = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"{file}: cannot be read ({why}) - expected structures in a format that ASE reads, best extended XYZ - "
            "write it again with ase.io.write"
        ) from None
    if not images:
        raise ConfigError(f"{file}: holds no structure - expected one frame or more - check the file")
    return images


def _unfit(image: Atoms) -> str | None:
    """Return why one frame is no glass, or None."""
    from matscipy.neighbours import neighbour_list

    cell, positions = image.cell.array, image.positions
    if len(image) == 0:
        return "no atoms - expected a glass - remove the frame"
    if not (np.isfinite(cell).all() and np.isfinite(positions).all()):
        return "a coordinate is not finite - expected numbers - remove the frame"
    if not image.pbc.all() or abs(np.linalg.det(cell)) < MIN_DISTANCE_A**3:
        return 'no periodic cell - expected bulk glass, Lattice="..." and pbc="T T T" in its comment line - add them'
    i, j, d = neighbour_list("ijd", cell=cell, positions=positions, pbc=image.pbc, cutoff=MIN_DISTANCE_A)
    if len(d) == 0:
        return None
    k = int(d.argmin())
    return (
        f"atoms {i[k]} and {j[k]} overlap, {d[k]:.2g} Å apart - expected {MIN_DISTANCE_A:g} Å or more - check the unit "
        "(Å) and the cell"
    )


def _glass(
    file: str, name: str, images: Sequence[Atoms], series: Series, before: Sequence[OwnGlass], *, is_alone: bool
) -> OwnGlass:
    """Return one glass: frames of one composition with one id."""
    parts = [starts.right_handed(Frames.from_ase(image).without_labels()) for image in images]
    frames = Frames.concatenate(parts).wrapped()
    where = f"{file}: {name}" if name else file
    info, formula = _stated(images, where), frames.formula
    composition = _composition(Counter(frames.symbols), series, info.get("x"), where)
    own = name or ("" if is_alone else formula)
    glass_id = as_name(name) if name else as_name(*filter(None, [Path(file).stem, own]))
    potential = str(info.get("potential", _origin(file)))
    rate = info.get("cooling_rate_K_per_ps")
    is_porous = glass_id.endswith(PORE_ENDING)
    formers = tuple(element for element in series.roles.formers if element in frames.symbols)
    record = MadeGlass(
        id=glass_id,
        potential=potential,
        x=composition.x,
        replica=0,
        cooling_rate_K_per_ps=None if rate is None else float(rate),
        is_porous=is_porous,
        formula=formula,
        n_atoms=frames.n_atoms,
        ended=FINISHED,
        density_g_cm3=float(frames.density[-1]),
        melt=Melt(formers=formers, is_melted=None, why=_NOT_KNOWN),
    )
    same = [one for glass in before for one in glass.records if _is_replica(one, record)]
    replica = int(info.get("replica", len(same)))
    if replica in {one.replica for one in same}:
        replica = 1 + max(one.replica for one in same)
    product = GlassProduct(_path(frames))
    return OwnGlass(glass_id, (record.model_copy(update={"replica": replica}),), lambda: product)


#: Keys of a comment line that say which row and column a glass belongs to, what is expected, and whether a number is.
_STATED: Final[dict[str, tuple[str, Callable[[float], bool]]]] = {
    "x": ("a number", math.isfinite),
    "replica": ("a whole number from 0 on", lambda given: given >= 0 and given == int(given)),
    "cooling_rate_K_per_ps": ("a number above 0 (K/ps)", lambda given: 0.0 < given < math.inf),
}


def _stated(images: Sequence[Atoms], where: str) -> dict[str, Any]:
    """Return what the comment lines of one glass say of it, the same in all of its frames.

    Raises
    ------
    ConfigError
        Two frames differ in it, or it is no such number.
    """
    found: dict[str, Any] = {}
    for key in ("potential", *_STATED):
        given = list(dict.fromkeys(str(image.info[key]) for image in images if key in image.info))
        if len(given) > 1:
            raise ConfigError(
                f"{where}: its frames have {key}={given[0]} and {key}={given[1]}, and are one glass - expected one "
                "value - write an id of its own into the comment line of each glass (id=...), or one file for each"
            )
        if given:
            found[key] = next(image.info[key] for image in images if key in image.info)
    for key, (expected, is_fit) in _STATED.items():
        value = found.get(key, 1.0)
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not is_fit(value):
            raise ConfigError(f"{where}: {key}={value} in a comment line - expected {expected} - fix it or remove it")
    return found


def _is_replica(one: MadeGlass, other: MadeGlass) -> bool:
    def of(glass: MadeGlass) -> tuple[object, ...]:
        return glass.potential, glass.x, glass.cooling_rate_K_per_ps, glass.is_porous

    return of(one) == of(other)


def _path(frames: Frames) -> GlassPath:
    """Return frames as a path of one segment, all of which is analysed; nothing but their volumes is known."""
    n = len(frames)
    index, unknown = np.zeros(n, dtype=np.int64), np.full(n, np.nan)
    times = np.arange(n, dtype=np.float64)
    return GlassPath(
        segments=(_SEGMENT,),
        analysed=(0,),
        ended=FINISHED,
        frames=frames,
        frame_segment=index,
        frame_time_ps=times,
        thermo=Thermo(index, times, unknown, unknown, unknown, frames.volume, unknown),
        end=frames[-1:],
        end_velocities=np.zeros((frames.n_atoms, 3)),
    )


def _origin(file: str) -> str:
    """Return who made the glasses of a file that does not say it."""
    return Path(file).stem


def _composition(atoms: Mapping[str, int], series: Series, x: float | None, where: str) -> Composition:
    """Return the composition of a series that a glass has.

    Raises
    ------
    ConfigError
        It has none of them, or not that of the x which is given with it.
    """
    off = {c.x: _off(atoms, c) for c in series.compositions}
    best = min(series.compositions, key=lambda c: off[c.x])
    known = ", ".join(f"{c.x:g}" for c in series.compositions)
    if x is not None:
        same = [c for c in series.compositions if abs(c.x - float(x)) < _SAME_X]
        if not same:
            raise ConfigError(
                f"{where}: x={x:g} in a comment line is not in series {series.name} (x = {known}) - expected one of "
                "them - fix it or remove it"
            )
        best = same[0]
    if off[best.x] <= _MAX_OFF:
        return best
    raise ConfigError(
        f"{where}: {formula_of(atoms)} is no composition of series {series.name} (x = {known}) - expected one of them, "
        "to half an atom - choose another --series, or write one (params/GLASSES.md)"
    )


def _off(atoms: Mapping[str, int], composition: Composition) -> float:
    """Return by how many atoms the element that is farthest off is, in a cell of as many atoms."""
    unit: dict[str, float] = {}
    for formula, amount in composition.units.items():
        for element, n in packing.atoms_of({formula: 1}).items():
            unit[element] = unit.get(element, 0.0) + amount * n
    share = sum(atoms.values()) / math.fsum(unit.values())
    return max(abs(atoms.get(e, 0) - share * unit.get(e, 0.0)) for e in {*atoms, *unit})
