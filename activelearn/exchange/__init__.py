"""Exchange: import of labels from elsewhere into a ledger, and export of the labels of a ledger.

Formats: ``extxyz`` (as ASE reads and writes it; eight decimals), ``deepmd`` (deepmd/npy systems, mixed ones too, and
deepmd/raw), ``outcar`` (VASP; the free energy, converged steps only), ``npz`` (ours: exact, with the reference's
identity), and outputs of other codes (docs/labels.md). Impossible labels are refused with the offending number
(:mod:`activelearn.exchange.physics`), and structures already present in another format or orientation count once
(:mod:`activelearn.exchange.same`).

A label needs its reference: an import names one of our label presets, whose fingerprint is computed
as in campaigns, or declares what labelled. An import is published completely or not at all, and a structure that the
ledger already has is not written again: the same command after a kill does the rest.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from activelearn import trees
from activelearn.errors import ConfigError, typed
from activelearn.exchange import physics, same
from activelearn.exchange.extxyz import parsed_keys
from activelearn.exchange.files import format_of, read
from activelearn.exchange.reads import Read
from activelearn.exchange.texts import readable
from activelearn.frames import Frames, by_composition, pack
from activelearn.store import Ledger, Store, disk_errors, read_npz
from activelearn.store.files import publish_npz
from activelearn.store.ledger import publish_labels
from activelearn.store.references import identity_sha256
from activelearn.writing import DIALECTS, OURS, write_deepmd, write_extxyz

#: File next to the systems of our deepmd folders: what labelled them.
REFERENCE: Final = "reference.json"
#: Prefix of the journals that imports publish.
PREFIX: Final = "import"
#: Reasons for refusing a frame, with what was expected and what to do.
REFUSALS: Final = {
    "no energy": "expected energy and forces, with ASE's names - write them to the file",
    "no forces": "expected energy and forces, with ASE's names - write them to the file",
    "only the trace of the stress": "expected all six components, which VASP has with ISIF = 2 or 3 - compute it again",
    "no atoms": "expected at least one atom - nothing to do",
    "not periodic": "expected a cell that is periodic in all directions - put the atoms into one",
    physics.ZERO_ENERGY: "expected the energy that the forces belong to - write the file again with it",
    physics.ZERO_FORCES: "expected the forces on all atoms - write the file again with them",
    "no element": "expected chemical symbols for all atoms - name the elements (type_map.raw)",
    "not finite": "expected only finite numbers - compute the frame again",
    "left-handed cell": "expected right-handed lattice vectors, for LAMMPS - swap two of them and compute it again",
    "SCF not converged": "expected an SCF that converges within its maximum number of iterations - allow more",
    "not finished": "expected a completed step; the run was stopped within it - nothing to do",
    "of a machine-learned force field": "expected results of DFT - nothing to do: the other steps count",
    "not whole": "expected all numbers of the step - use the complete output, or compute it again",
    "no positions": "expected the atoms of that step, which CP2K writes to PROJECT-pos-1.xyz (cells: PROJECT-1.cell) "
    "- put the files next to the output",
    physics.FIXED: "expected the forces on all atoms - compute it again without constraints",
    "damaged": "expected whole numbers of columns, lines and atoms - fix it, or do nothing: the other frames count",
    "two values of one label": "expected one value per label - choose with --keys, or remove the other one",
    "stress against virial": "expected virial = -volume x stress, ASE's sign - remove the wrong one from the file",
    physics.IMPOSSIBLE: "expected eV and Å - convert it before the import",
    physics.ON_TOP: "expected distances longer than the shortest bond - convert nm to Å, or compute it again",
    physics.NET_FORCE: "expected all forces as computed, including those on fixed atoms - write them again",
    physics.UNITS: "expected eV and eV/Å, and forces that point downhill - convert it before the import",
    physics.STRESS_UNITS: "expected eV/Å^3, positive in tension, or a virial in eV - convert it before the import",
    physics.APART: "expected each frame with its own energy and forces, without kinetic energy - write it again",
    physics.OUTLIER: "expected energies consistent with the forces - nothing to do, or compute it again",
    "twice in these files": "expected each structure once - nothing to do: the first one counts",
    same.COPY: "expected each structure once - nothing to do: the first one counts",
    same.OTHER_ENERGY: "expected one label per structure - the first one counts; check that the reference is the same",
    "in the ledger already": "expected new structures - nothing to do: the label in the ledger is kept",
    "in the ledger with another energy": "expected one label per structure - the one in the ledger is kept; check the "
    "reference",
}  # fmt: skip

#: What an accepted label may lack, and the consequence; VASP has a stress with ISIF = 2.
LACKING: Final = {
    "no stress": "no virial is fitted for them",
    "zeros for a stress, but not for the forces": "taken without a stress, so no virial is fitted for them",
}

#: The refusals with which nothing is lost.
THERE: Final = (
    "twice in these files",
    same.COPY,
    same.OTHER_ENERGY,
    "in the ledger already",
    "in the ledger with another energy",
)


@dataclass
class Tally:
    """Frames that were not accepted, by reason.

    Parameters
    ----------
    counts
        Number of frames, by reason.
    first
        Location of the first of them, and of the first of those in `lacking`.
    lacking
        Frames that were accepted nevertheless, by what they lack.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    lacking: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str, where: str) -> None:
        """Count one frame."""
        self.counts[reason] += 1
        self.first.setdefault(reason, where)

    def take(self, lacks: str | None, where: str) -> None:
        """Count one accepted frame, if it lacks something."""
        if lacks is not None:
            self.lacking[lacks] += 1
            self.first.setdefault(lacks, where)

    def sentences(self) -> list[str]:
        """Return one sentence per reason: how many, where, what was expected and what to do."""
        return [
            f"{n} frame{'s' if n > 1 else ''} not taken: {reason} (first: {self.first[reason]}) - {REFUSALS[reason]}"
            for reason, n in self.counts.items()
        ] + [
            f"{n} label{'s' if n > 1 else ''} with {lacks} (first: {self.first[lacks]}): {LACKING[lacks]}"
            for lacks, n in self.lacking.items()
        ]


# --- what labelled ----------------------------------------------------------------------------------------------------


def declared(text: str) -> dict[str, Any]:
    """Return the identity of an external reference, from ``functional=PBE,includes_dispersion=true,code=...``.

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
            f"--declare {text}: {problem} - expected what labelled - for example: "
            "--declare functional=PBE,includes_dispersion=true,code=VASP-6.4.2"
        )
    identity = {"declared": True, **dict(sorted(found.items())), "includes_dispersion": dispersion}
    return {**identity, "sha256": identity_sha256(identity)}


def name_of(identity: Mapping[str, Any]) -> str:
    """Return a short human-readable name of a reference."""
    what = " ".join(str(identity[key]) for key in ("calculator", "engine", "code", "version") if identity.get(key))
    dispersion = " with dispersion" if identity.get("includes_dispersion") else ""
    return f"{what or 'unknown'} ({identity.get('functional', 'functional unknown')}{dispersion})"


def ledger_folder(folder: Path) -> Path:
    """Return the ledger of a campaign folder, or the folder itself if it is a ledger (or will become one)."""
    if (folder / "campaign").is_dir() or Store(folder).is_begun():
        return Store.open(folder).ledger.folder
    return folder.absolute()


def opened(folder: Path) -> Ledger:
    """Return the ledger of a campaign folder or a ledger folder; the caller reports its damage.

    Raises
    ------
    ConfigError
        There is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder - expected a campaign folder or a ledger folder - check the path")
    ledger = Ledger(ledger_folder(folder), warn=False)
    ledger.refresh()
    return ledger


# --- in ---------------------------------------------------------------------------------------------------------------


def import_labels(
    folder: Path,
    paths: Sequence[Path],
    identity: Mapping[str, Any] | None,
    file_format: str | None = None,
    keys: str | None = None,
) -> tuple[int, Tally]:
    """Read labelled structures and publish the valid ones into a ledger, all at once.

    Parameters
    ----------
    folder
        The ledger; created if missing.
    paths
        Files, or folders of deepmd systems.
    identity
        Of the reference that labelled them; None: that of our npz files and of our deepmd folders.
    file_format
        One of :data:`activelearn.exchange.files.FORMATS`, a name of dpdata, or ``ase/`` and a name of ASE; None: by the
        names of the files and their first lines.
    keys
        Names of labels in extended XYZ, if they are not ASE's: ``energy=REF_energy,forces=REF_forces``.

    Returns
    -------
    int, Tally
        Number of new labels, and the frames not taken, by reason.

    Raises
    ------
    ConfigError
        A file cannot be read, or the reference is not given; nothing is then imported.
    """
    reads: list[Read] = []
    names = None if keys is None else parsed_keys(keys)
    for path in paths:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ConfigError(
                f"{path}: a pipe or a device - expected a file or a folder, since labels are read more than once - "
                "write it to a file first; nothing was imported"
            )
        kind = file_format or format_of(path)
        identity = _one_identity(path, kind, identity)
        reads += physics.judged(read(path, kind, names))
    if identity is None:
        raise ConfigError(
            f"{paths[0]}: does not say what labelled it - expected the reference, since labels of two references must "
            "not mix - give --reference PRESET, or --declare functional=...,includes_dispersion=...,code=..."
        )
    return publish_reads(folder, reads, identity)


def publish_reads(folder: Path, reads: Sequence[Read], identity: Mapping[str, Any]) -> tuple[int, Tally]:
    """Publish valid and new labels into a ledger, all at once; see :func:`import_labels`.

    Parameters
    ----------
    folder
        The ledger; created if missing.
    reads
        Frames, checked (:func:`activelearn.exchange.physics.judged`).
    identity
        Of the reference that labelled them.

    Returns
    -------
    int, Tally
        Number of new labels, and the frames not taken, by reason.
    """
    ledger = Ledger(folder)
    ledger.refresh()
    tally, sha = Tally(), str(identity["sha256"])
    fresh = same.without_copies([*reads], ledger, sha, f"{PREFIX}-")
    fit = list(_fit(fresh, ledger, sha, tally))
    n = publish_labels(folder, PREFIX, fit, identity)
    ledger.compact(PREFIX)
    return n, tally


def _own_identity(path: Path, kind: str) -> object:
    """Return the reference named by one of our files or deepmd folders, or by the folder that contains it."""
    if kind == "npz" and path.is_file():
        with readable(path, kind):
            return read_npz(path)[1].get("reference")
    places = (path, path.parent) if (path / "type.raw").is_file() else (path,)
    for beside in (place / REFERENCE for place in places if kind == "deepmd"):
        if beside.is_file():
            try:
                return json.loads(beside.read_text()) or {}
            except ValueError:
                return {}
    return None


def _one_identity(path: Path, kind: str, identity: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the identity that holds for all files, or refuse a file that names a different one."""
    own = _own_identity(path, kind)
    if own is not None and (not isinstance(own, dict) or own.get("sha256") != identity_sha256(own)):
        raise ConfigError(  # the checksum becomes part of a file's name
            f"{path}: its {'reference' if kind == 'npz' else REFERENCE} does not have the checksum that it names - "
            "expected a file written by activelearn labels export - export it again"
        )
    if own is not None and identity is not None and own["sha256"] != identity["sha256"]:
        raise ConfigError(
            f"{path}: labelled by {name_of(own)}, sha256 {own['sha256'][:12]}, not by {name_of(identity)}, "
            f"{str(identity['sha256'])[:12]} - expected one reference per import - import it separately, without "
            "--reference and --declare"
        )
    return own if identity is None else identity


def _fit(reads: Iterable[Read], ledger: Ledger, reference: str, tally: Tally) -> Iterator[Frames]:
    """Yield the valid and new frames; the others are counted."""
    seen: set[str] = set()
    there = {entry.key: entry.energy for entry in ledger.entries()}
    for one in reads:
        if one.frame is None or not physics.is_label(one):
            tally.add(str(one.reason), one.where)
            continue
        frame, lacks = _without_zeros(one.frame)
        key = frame.structure_key(0, reference)
        if key in seen:
            tally.add("twice in these files", one.where)
        elif key in there:
            is_same = there[key] == frame.label("energy")[0]
            tally.add("in the ledger already" if is_same else "in the ledger with another energy", one.where)
        else:
            seen.add(key)
            tally.take(lacks, one.where)
            yield frame


def _without_zeros(frame: Frames) -> tuple[Frames, str | None]:
    """Return one frame, without zeros in place of a stress that was not computed; and what it lacks."""
    no_stress, zeros = LACKING
    if frame.virial is None:
        return frame, no_stress
    if frame.forces is not None and frame.forces.any() and not frame.virial.any():
        return replace(frame, virial=None), zeros
    return frame, None


# --- out --------------------------------------------------------------------------------------------------------------


def one_reference(ledger: Ledger, beginning: str | None) -> dict[str, Any]:
    """Return the identity of the reference whose sha256 starts so, or of the only one.

    Raises
    ------
    ConfigError
        There is none, or more than one: labels of two references are never mixed silently.
    """
    known = ledger.references()
    found = [identity for sha, identity in known.items() if sha.startswith(beginning or "")]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(f"{sha[:12]} {name_of(identity)}" for sha, identity in known.items()) or "none there"
    what = f"no reference, or more than one, starts with {beginning!r}" if beginning else "not one reference"
    raise ConfigError(
        f"{ledger.folder}: {what} - expected the labels of one - give --reference, one of: {listed}", *ledger.damage()
    )


def export_labels(ledger: Ledger, to: Path, identity: Mapping[str, Any], file_format: str | None = None) -> int:
    """Write all accepted labels of one reference to a new file or folder; it appears complete.

    Parameters
    ----------
    ledger
        The ledger to read.
    to
        The new file (extxyz, npz) or folder (deepmd).
    identity
        Identity of the reference.
    file_format
        ``extxyz``, ``deepmd``, ``npz``, or extended XYZ with the key names of a program
        (:data:`activelearn.writing.DIALECTS`); None: by suffix, a folder if there is none.

    Returns
    -------
    int
        Number of labels written.

    Raises
    ------
    ConfigError
        `to` exists, or there is nothing to write.
    """
    kind = file_format or {".extxyz": "extxyz", ".xyz": "extxyz", ".npz": "npz", "": "deepmd"}.get(to.suffix, "")
    if kind not in {"extxyz", "deepmd", "npz", *DIALECTS}:
        raise ConfigError(
            f"{to}: cannot be written as {kind or to.suffix} - expected extxyz, deepmd or npz - give --format"
        )
    if to.exists():
        raise ConfigError(f"{to}: exists - expected a new name, since nothing is overwritten - choose another --to")
    parts = ledger.structures(str(identity["sha256"]))
    if not parts:
        raise ConfigError(
            f"{ledger.folder}: no accepted label of {name_of(identity)} has its structure - expected at least one - "
            f"see: activelearn labels list {typed(ledger.folder)}",
            *ledger.damage(),
        )
    with disk_errors(to):
        to.absolute().parent.mkdir(parents=True, exist_ok=True)
        with trees.temporary(to.absolute().parent) as work:
            made = work / f"labels{to.suffix}"
            _write(parts, made, kind, identity)
            if not trees.rename(made, to):
                raise ConfigError(
                    f"{to}: was created by another process meanwhile - expected a new name - choose another --to"
                )
    return sum(len(part) for part in parts)


def _write(parts: list[Frames], to: Path, kind: str, identity: Mapping[str, Any]) -> None:
    if kind == "npz":
        publish_npz(to, pack(parts), {"reference": dict(identity)})
    elif kind == "extxyz" or kind in DIALECTS:
        write_extxyz(by_composition(parts), to, DIALECTS.get(kind, OURS))
    else:
        write_deepmd(parts, to, sorted({symbol for part in parts for symbol in part.symbols}))
        (to / REFERENCE).write_text(json.dumps(dict(identity), indent=1) + "\n")
