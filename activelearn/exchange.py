"""Exchange: labels that were paid for elsewhere come into a ledger, and those of a ledger go out.

Formats: ``extxyz`` (as ASE reads and writes it; eight decimals), ``deepmd`` (deepmd/npy systems, mixed ones too),
``outcar`` (VASP; the free energy, converged steps only) and ``npz`` (ours: to the bit, with the reference's identity).

A label without its reference is no label: whoever imports names a label preset of ours, whose fingerprint is computed
as campaigns do it, or declares what labelled. An import is published whole or not at all, and a structure that the
ledger has already is not written again: the same command after a kill does what is left.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.errors import ConfigError
from activelearn.frames import Frames, by_composition, make_origin, pack, unpack, write_deepmd, write_extxyz
from activelearn.store import Ledger, Store, disk_errors, read_npz
from activelearn.store.files import publish_npz, unique_suffix
from activelearn.store.ledger import publish_labels

if TYPE_CHECKING:
    from ase import Atoms

#: Prefix of the segments that imports publish.
PREFIX: Final = "import"
#: Why a frame is refused, and what to do about it.
REFUSALS: Final = {
    "no energy": "wanted energy, forces and stress, named as ASE names them - write them to the file",
    "no forces": "wanted energy, forces and stress, named as ASE names them - write them to the file",
    "no stress": "wanted the stress, for the training fits virials and a zero would be a lie - compute it (ISIF = 2)",
    "not periodic": "wanted a cell that is periodic in all directions - put the atoms into one",
    "no element": "wanted chemical symbols for all atoms - name the elements (type_map.raw)",
    "not finite": "wanted finite numbers only - compute the frame again",
    "left-handed cell": "wanted right-handed lattice vectors, for LAMMPS - swap two of them and compute it again",
    "SCF not converged": "wanted a converged one - compute it again with more electronic steps",
    "twice in these files": "wanted each structure once - nothing to do: the first counts",
    "in the ledger already": "wanted new structures - nothing to do: the label in the ledger stands",
    "in the ledger with another energy": "wanted one label a structure - the one in the ledger stands; is the "
    "reference really the same?",
}  # fmt: skip

#: Of them, those that say that nothing is lost.
THERE: Final = ("twice in these files", "in the ledger already", "in the ledger with another energy")


@dataclass
class Tally:
    """Frames that were not taken, by reason.

    Parameters
    ----------
    counts
        How many, by reason.
    first
        Where the first of them stands.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        """Count one frame."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, where)

    def sentences(self) -> list[str]:
        """Return one sentence a reason: how many, where, what was wanted and what to do."""
        return [
            f"{n} frame{'s' if n > 1 else ''} not taken: {reason} (first: {self.first[reason]}) - {REFUSALS[reason]}"
            for reason, n in self.counts.items()
        ]


@dataclass(frozen=True)
class Read:
    """One frame of a file: where it stands, what it is, and why it is no label, or None."""

    where: str
    frame: Frames
    reason: str | None = None


# --- who labelled -----------------------------------------------------------------------------------------------------


def identity_sha256(identity: Mapping[str, Any]) -> str:
    """Return the checksum of an identity (without its own ``sha256``), as it goes into the keys of labels."""
    content = {key: value for key, value in identity.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def declared(text: str) -> dict[str, Any]:
    """Return the identity of a reference that is not here, from ``functional=PBE,includes_dispersion=true,code=...``.

    Raises
    ------
    ConfigError
        One of the three is missing, or it is not ``key=value``.
    """
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    found: dict[str, Any] = {key.strip(): value.strip() for key, _, value in pairs}
    missing = [key for key in ("functional", "includes_dispersion", "code") if not found.get(key)]
    dispersion = {"true": True, "false": False}.get(str(found.get("includes_dispersion")).lower())
    if missing or dispersion is None or not all(re.fullmatch(r"\w+", key) and value for key, value in found.items()):
        problem = f"lacks {', '.join(missing)}" if missing else "cannot be read"
        raise ConfigError(
            f"--declare {text}: {problem} - wanted what labelled - for example: "
            "--declare functional=PBE,includes_dispersion=true,code=VASP-6.4.2"
        )
    identity = {"declared": True, **dict(sorted(found.items())), "includes_dispersion": dispersion}
    return {**identity, "sha256": identity_sha256(identity)}


def name_of(identity: Mapping[str, Any]) -> str:
    """Return a short name of a reference for people."""
    what = " ".join(str(identity[key]) for key in ("calculator", "engine", "code", "version") if identity.get(key))
    dispersion = " with dispersion" if identity.get("includes_dispersion") else ""
    return f"{what or 'unknown'} ({identity.get('functional', 'functional unknown')}{dispersion})"


def ledger_folder(folder: Path) -> Path:
    """Return the ledger of a campaign folder, or the folder itself if it is a ledger (or is to become one)."""
    if (folder / "campaign").is_dir():
        return Store.open(folder).ledger.folder
    return folder.absolute()


def opened(folder: Path) -> Ledger:
    """Return the ledger of a campaign folder or a ledger folder.

    Raises
    ------
    ConfigError
        There is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder - wanted a campaign folder or a ledger folder - check the path")
    ledger = Ledger(ledger_folder(folder))
    ledger.refresh()
    return ledger


# --- in ---------------------------------------------------------------------------------------------------------------


def import_labels(
    folder: Path, paths: Sequence[Path], identity: Mapping[str, Any] | None, file_format: str | None = None
) -> tuple[int, Tally]:
    """Read labelled structures and publish those that are fit into a ledger, all at once.

    Parameters
    ----------
    folder
        The ledger; made if missing.
    paths
        Files, or folders of deepmd/npy systems.
    identity
        Of the reference that labelled them; None: that of our npz files.
    file_format
        One of :data:`FORMATS`; None: by the names of the files.

    Returns
    -------
    int, Tally
        How many labels were new, and the frames not taken, by reason.

    Raises
    ------
    ConfigError
        A file cannot be read, or nobody says what labelled; nothing is imported then.
    """
    reads: list[Read] = []
    for path in paths:
        kind = file_format or format_of(path)
        identity = _one_identity(path, kind, identity)
        reads += _read(path, kind)
    if identity is None:
        raise ConfigError(
            f"{paths[0]}: does not say what labelled it - wanted the reference, for labels of two references must not "
            "mix - give --reference PRESET, or --declare functional=...,includes_dispersion=...,code=..."
        )
    ledger = Ledger(folder)
    ledger.refresh()
    tally = Tally()
    fit = list(_fit(reads, ledger, str(identity["sha256"]), tally))
    n = publish_labels(folder, PREFIX, fit, identity)
    ledger.compact(PREFIX)
    return n, tally


def _one_identity(path: Path, kind: str, identity: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the identity that holds for all files, or refuse a file that names another one."""
    own = read_npz(path)[1].get("reference") if kind == "npz" and path.is_file() else None
    if own is not None and (not isinstance(own, dict) or own.get("sha256") != identity_sha256(own)):
        raise ConfigError(  # the checksum becomes part of a file's name
            f"{path}: its reference does not have the checksum that it names - wanted a file as activelearn labels "
            "export writes it - have it exported again"
        )
    if own is not None and identity is not None and own["sha256"] != identity["sha256"]:
        raise ConfigError(
            f"{path}: labelled by {name_of(own)}, sha256 {own['sha256'][:12]}, not by {name_of(identity)}, "
            f"{str(identity['sha256'])[:12]} - wanted one reference an import - import it alone, without --reference"
        )
    return own if identity is None else identity


def _fit(reads: Iterable[Read], ledger: Ledger, reference: str, tally: Tally) -> Iterator[Frames]:
    """Yield the frames that are fit and new; the others are counted."""
    seen: set[str] = set()
    there = {entry.key: entry.energy for entry in ledger.entries()}
    for read in reads:
        reason = read.reason or _unfit(read.frame)
        key = "" if reason else read.frame.structure_key(0, reference)
        if reason is None and key in seen:
            reason = "twice in these files"
        if reason is None and key in there:
            assert read.frame.energy is not None  # it is fit
            is_same = there[key] == read.frame.energy[0]
            reason = "in the ledger already" if is_same else "in the ledger with another energy"
        if reason is not None:
            tally.add(reason, read.where)
            continue
        seen.add(key)
        yield read.frame


def _unfit(frame: Frames) -> str | None:
    """Return why a frame cannot be a label, or None."""
    from ase.data import atomic_numbers

    if frame.energy is None:
        return "no energy"
    if frame.forces is None:
        return "no forces"
    if not all(frame.pbc) or frame.volume[0] == 0.0:
        return "not periodic"
    if frame.virial is None:
        return "no stress"
    if not all(atomic_numbers.get(symbol) for symbol in set(frame.symbols)):
        return "no element"
    if not all(np.isfinite(x).all() for x in (frame.cell, frame.positions, frame.energy, frame.forces, frame.virial)):
        return "not finite"
    return "left-handed cell" if np.linalg.det(frame.cell[0]) < 0.0 else None


# --- files ------------------------------------------------------------------------------------------------------------


def format_of(path: Path) -> str:
    """Return the format that the name of a file stands for.

    Raises
    ------
    ConfigError
        There is no such file, or its name says nothing.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file - wanted labelled structures - check the path")
    if path.is_dir():
        return "deepmd"
    if path.suffix in {".extxyz", ".xyz"}:
        return "extxyz"
    if path.suffix == ".npz":
        return "npz"
    if "OUTCAR" in path.name:
        return "outcar"
    raise ConfigError(f"{path}: the name does not tell the format - wanted one of {', '.join(FORMATS)} - give --format")


def _read(path: Path, kind: str) -> list[Read]:
    try:
        return list(FORMATS[kind](path))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{path}: cannot be read as {kind} ({type(error).__name__}: {error}) - wanted a whole file of that format "
            "- mend it, leave it out or give another --format; nothing was imported"
        ) from error


def _source(path: Path) -> str:
    """Return the trajectory that the frames of a file belong to: its name and its folder's, no more of the path."""
    return f"{path.absolute().parent.name}/{path.name}"[-96:]


def _from_atoms(image: Atoms, walk: str) -> tuple[Frames, str | None]:
    """Return one frame, and which label it lacks, if any."""
    results = image.calc.results if image.calc is not None else {}
    lacking = [name for name in ("energy", "forces", "stress") if name not in results]
    frame = Frames.from_ase([image])
    found = image.info.get("walk")
    name = found if isinstance(found, str) and found and "=" not in found else walk  # ASE misreads an empty value
    reason = f"no {lacking[0]}" if lacking and not (lacking == ["stress"] and not image.pbc.all()) else None
    return _with_walk(frame, name), reason


def _with_walk(frame: Frames, walk: str) -> Frames:
    return replace(frame, origin=make_origin(len(frame), walk=walk))


def _read_extxyz(path: Path) -> Iterator[Read]:
    from ase.io import iread

    for k, image in enumerate(iread(path, ":", format="extxyz")):
        frame, reason = _from_atoms(image, _source(path))
        yield Read(f"{path} frame {k}", frame, reason)


def _read_outcar(path: Path) -> Iterator[Read]:
    """Read the ionic steps of VASP; the energy is TOTEN, the free energy that the forces belong to."""
    from ase.io import read

    converged = _converged(path)
    for k, image in enumerate(read(path, ":", format="vasp-out")):
        frame, reason = _from_atoms(image, _source(path))
        yield Read(f"{path} step {k}", frame, reason if converged[k] else "SCF not converged")


def _converged(path: Path) -> list[bool]:
    """Return for every ionic step of an OUTCAR whether its electronic loop ended because EDIFF was reached."""
    steps, reached = [], False
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if "aborting loop because EDIFF is reached" in line:
                reached = True
            elif "FREE ENERGIE OF THE ION-ELECTRON SYSTEM" in line:
                steps.append(reached)
                reached = False
    return steps


def _read_deepmd(path: Path) -> Iterator[Read]:
    """Read all deepmd/npy systems below a folder; they are plain numpy arrays, taken as they stand, to the bit."""
    systems = sorted(file.parent for file in path.rglob("type.raw"))
    if not systems:
        raise ConfigError(f"{path}: no type.raw in it - wanted a folder of deepmd/npy systems - check the path")
    for system in systems:
        for folder in sorted(system.glob("set.*")):
            yield from _read_set(system, folder)


def _read_set(system: Path, folder: Path) -> Iterator[Read]:
    kinds = (system / "type_map.raw").read_text().split() if (system / "type_map.raw").is_file() else []
    coordinates = np.load(folder / "coord.npy", allow_pickle=False).astype(np.float64)
    n = len(coordinates)
    found: dict[str, NDArray[np.float64] | None] = {
        name: np.load(path, allow_pickle=False).astype(np.float64)
        if (path := folder / f"{name}.npy").is_file()
        else None
        for name in ("box", "energy", "force", "virial")
    }
    is_periodic = found["box"] is not None and not (system / "nopbc").is_file()
    types = np.loadtxt(system / "type.raw", dtype=int, ndmin=1)[None, :].repeat(n, axis=0)
    if (folder / "real_atom_types.npy").is_file():  # deepmd/npy/mixed: each frame has its own composition
        types = np.load(folder / "real_atom_types.npy", allow_pickle=False)

    def row(name: str, k: int, *shape: int) -> NDArray[np.float64] | None:
        values = found[name]
        return None if values is None else values[k].reshape(1, *shape)

    for k in range(n):
        box, energy = row("box", k, 3, 3), row("energy", k, 1)
        frame = Frames(
            symbols=tuple(kinds[kind] if kind < len(kinds) else "X" for kind in types[k]),
            cell=np.zeros((1, 3, 3)) if box is None else box,
            positions=coordinates[k].reshape(1, -1, 3),
            pbc=(is_periodic, is_periodic, is_periodic),
            energy=None if energy is None else energy[:, 0],
            forces=row("force", k, types.shape[1], 3),
            virial=row("virial", k, 3, 3),
            origin=make_origin(1, walk=_source(system)),
        )
        yield Read(f"{folder} frame {k}", frame)


def _read_npz(path: Path) -> Iterator[Read]:
    for p, part in enumerate(unpack(read_npz(path)[0])):
        for k in range(len(part)):
            yield Read(f"{path} part {p} frame {k}", _with_walk(part[k], str(part.origin["walk"][k]) or _source(path)))


FORMATS: Final[dict[str, Callable[[Path], Iterator[Read]]]] = {
    "extxyz": _read_extxyz,
    "deepmd": _read_deepmd,
    "outcar": _read_outcar,
    "npz": _read_npz,
}


# --- out --------------------------------------------------------------------------------------------------------------


def one_reference(ledger: Ledger, beginning: str | None) -> dict[str, Any]:
    """Return the identity of the reference whose sha256 begins so, or of the only one there is.

    Raises
    ------
    ConfigError
        There is none, or more than one: labels of two references are never mixed in silence.
    """
    known = ledger.references()
    found = [identity for sha, identity in known.items() if sha.startswith(beginning or "")]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(f"{sha[:12]} {name_of(identity)}" for sha, identity in known.items()) or "none there"
    what = f"no reference, or more than one, begins with {beginning!r}" if beginning else "not one reference"
    raise ConfigError(f"{ledger.folder}: {what} - wanted the labels of one - give --reference, one of: {listed}")


def export_labels(ledger: Ledger, to: Path, identity: Mapping[str, Any], file_format: str | None = None) -> int:
    """Write all accepted labels of one reference to a new file or folder; it appears whole.

    Parameters
    ----------
    ledger
        Where they are.
    to
        The new file (extxyz, npz) or folder (deepmd).
    identity
        Of the reference.
    file_format
        ``extxyz``, ``deepmd`` or ``npz``; None: by the name, a folder if it has no suffix.

    Returns
    -------
    int
        How many labels were written.

    Raises
    ------
    ConfigError
        `to` exists, or there is nothing to write.
    """
    kind = file_format or {".extxyz": "extxyz", ".xyz": "extxyz", ".npz": "npz", "": "deepmd"}.get(to.suffix, "")
    if kind not in {"extxyz", "deepmd", "npz"}:
        raise ConfigError(
            f"{to}: cannot be written as {kind or to.suffix} - wanted extxyz, deepmd or npz - give --format"
        )
    if to.exists():
        raise ConfigError(f"{to}: exists - wanted a new name, for nothing is overwritten - choose another --to")
    parts = ledger.structures(str(identity["sha256"]))
    if not parts:
        raise ConfigError(
            f"{ledger.folder}: no accepted label of {name_of(identity)} has its structure - wanted at least one - see: "
            "activelearn labels list"
        )
    work = to.absolute().with_name(f".{to.name}.{unique_suffix()}")
    with disk_errors(to):
        work.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(parts, work, kind, identity)
            os.rename(work, to)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            if work.is_file():
                work.unlink()
    return sum(len(part) for part in parts)


def _write(parts: list[Frames], to: Path, kind: str, identity: Mapping[str, Any]) -> None:
    if kind == "npz":
        publish_npz(to, pack(parts), {"reference": dict(identity)})
    elif kind == "extxyz":
        write_extxyz(by_composition(parts), to)
    else:
        write_deepmd(parts, to, sorted({symbol for part in parts for symbol in part.symbols}))
        (to / "reference.json").write_text(json.dumps(dict(identity), indent=1) + "\n")
