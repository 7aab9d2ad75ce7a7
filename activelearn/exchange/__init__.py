"""Exchange: labels that were paid for elsewhere come into a ledger, and those of a ledger go out.

Formats: ``extxyz`` (as ASE reads and writes it; eight decimals), ``deepmd`` (deepmd/npy systems, mixed ones too, and
deepmd/raw), ``outcar`` (VASP; the free energy, converged steps only), ``npz`` (ours: to the bit, with the reference's
identity), and outputs of other codes (docs/labels.md). What cannot be true is refused with its number
(:mod:`activelearn.exchange.physics`), and what is there already in another format or orientation counts once
(:mod:`activelearn.exchange.same`).

A label without its reference is no label: whoever imports names a label preset of ours, whose fingerprint is computed
as campaigns do it, or declares what labelled. An import is published whole or not at all, and a structure that the
ledger has already is not written again: the same command after a kill does what is left.
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

#: Beside the systems of a deepmd folder of ours: what labelled them.
REFERENCE: Final = "reference.json"
#: Prefix of the journals that imports publish.
PREFIX: Final = "import"
#: Why a frame is refused, and what to do about it.
REFUSALS: Final = {
    "no energy": "expected energy and forces, named as ASE names them - write them to the file",
    "no forces": "expected energy and forces, named as ASE names them - write them to the file",
    "only the trace of the stress": "expected all six components, which VASP has with ISIF = 2 or 3 - compute it again",
    "no atoms": "expected one atom at least - nothing to do: there is nothing to learn in it",
    "not periodic": "expected a cell that is periodic in all directions - put the atoms into one",
    "no element": "expected chemical symbols for all atoms - name the elements (type_map.raw)",
    "not finite": "expected finite numbers only - compute the frame again",
    "left-handed cell": "expected right-handed lattice vectors, for LAMMPS - swap two of them and compute it again",
    "SCF not converged": "expected a loop that converged before its iterations were used up - allow more of them",
    "not finished": "expected a step with its end, which a run that was stopped does not have - nothing to do",
    "of a machine-learned force field": "expected what the electrons gave - nothing to do: the other steps count",
    "not whole": "expected all numbers of the step - take the whole output, or compute it again",
    "no positions": "expected the atoms of that step, which CP2K writes to PROJECT-pos-1.xyz (cells: PROJECT-1.cell) "
    "- put the files beside the output",
    "forces without those on fixed atoms": "expected the forces on all atoms - compute it again without constraints",
    "damaged": "expected whole numbers of columns, lines and atoms - fix it, or nothing: the other frames count",
    "two values of one label": "expected one value a label - say which with --keys, or take the other one out",
    "stress against virial": "expected virial = -volume x stress, ASE's sign - take the wrong one out of the file",
    physics.IMPOSSIBLE: "expected eV and Å - convert it before the import",
    physics.ON_TOP: "expected atoms farther apart than any bond is short - convert nm to Å, or compute it again",
    physics.NET_FORCE: "expected all forces as they were computed, those on fixed atoms too - write them out again",
    physics.UNITS: "expected eV and eV/Å, and forces that point downhill - convert it before the import",
    physics.STRESS_UNITS: "expected eV/Å^3, positive in tension, or a virial in eV - convert it before the import",
    physics.APART: "expected each frame with its own energy and forces, without kinetic energy - write it out again",
    physics.OUTLIER: "expected energies that the forces explain - nothing to do, or compute it again",
    "twice in these files": "expected each structure once - nothing to do: the first counts",
    same.COPY: "expected each structure once - nothing to do: the first counts",
    same.OTHER_ENERGY: "expected one label a structure - the first counts; is the reference really the same?",
    "in the ledger already": "expected new structures - nothing to do: the label in the ledger stands",
    "in the ledger with another energy": "expected one label a structure - the one in the ledger stands; is the "
    "reference really the same?",
}  # fmt: skip

#: What labels are taken without, and what follows; VASP has a stress with ISIF = 2.
LACKING: Final = {
    "no stress": "the training fits no virial on them",
    "zeros for a stress, but not for the forces": "taken without a stress, so the training fits no virial on them",
}

#: Of the refusals, those that say that nothing is lost.
THERE: Final = (
    "twice in these files",
    same.COPY,
    same.OTHER_ENERGY,
    "in the ledger already",
    "in the ledger with another energy",
)


@dataclass
class Tally:
    """Frames that were not taken, by reason.

    Parameters
    ----------
    counts
        How many, by reason.
    first
        Where the first of them stands, and the first of those in `lacking`.
    lacking
        Frames that were taken all the same, by what they lack.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    lacking: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str, where: str) -> None:
        """Count one frame."""
        self.counts[reason] += 1
        self.first.setdefault(reason, where)

    def take(self, lacks: str | None, where: str) -> None:
        """Count one frame that is taken, if it lacks something."""
        if lacks is not None:
            self.lacking[lacks] += 1
            self.first.setdefault(lacks, where)

    def sentences(self) -> list[str]:
        """Return one sentence a reason: how many, where, what was wanted and what to do."""
        return [
            f"{n} frame{'s' if n > 1 else ''} not taken: {reason} (first: {self.first[reason]}) - {REFUSALS[reason]}"
            for reason, n in self.counts.items()
        ] + [
            f"{n} label{'s' if n > 1 else ''} with {lacks} (first: {self.first[lacks]}): {LACKING[lacks]}"
            for lacks, n in self.lacking.items()
        ]


# --- who labelled -----------------------------------------------------------------------------------------------------


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
            f"--declare {text}: {problem} - expected what labelled - for example: "
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
    if (folder / "campaign").is_dir() or Store(folder).is_begun():
        return Store.open(folder).ledger.folder
    return folder.absolute()


def opened(folder: Path) -> Ledger:
    """Return the ledger of a campaign folder or a ledger folder; whoever asks for it tells of its damage.

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
    """Read labelled structures and publish those that are fit into a ledger, all at once.

    Parameters
    ----------
    folder
        The ledger; made if missing.
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
        How many labels were new, and the frames not taken, by reason.

    Raises
    ------
    ConfigError
        A file cannot be read, or nobody says what labelled; nothing is imported then.
    """
    reads: list[Read] = []
    names = None if keys is None else parsed_keys(keys)
    for path in paths:
        kind = file_format or format_of(path)
        identity = _one_identity(path, kind, identity)
        reads += physics.judged(read(path, kind, names))
    if identity is None:
        raise ConfigError(
            f"{paths[0]}: does not say what labelled it - expected the reference, for labels of two references must "
            "not mix - give --reference PRESET, or --declare functional=...,includes_dispersion=...,code=..."
        )
    return publish_reads(folder, reads, identity)


def publish_reads(folder: Path, reads: Sequence[Read], identity: Mapping[str, Any]) -> tuple[int, Tally]:
    """Publish what was read and judged and is fit and new into a ledger, all at once; see :func:`import_labels`.

    Parameters
    ----------
    folder
        The ledger; made if missing.
    reads
        Frames, judged (:func:`activelearn.exchange.physics.judged`).
    identity
        Of the reference that labelled them.

    Returns
    -------
    int, Tally
        How many labels were new, and the frames not taken, by reason.
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
    """Return the reference that a file of ours names, or a deepmd folder of ours, or the folder that it stands in."""
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
    """Return the identity that holds for all files, or refuse a file that names another one."""
    own = _own_identity(path, kind)
    if own is not None and (not isinstance(own, dict) or own.get("sha256") != identity_sha256(own)):
        raise ConfigError(  # the checksum becomes part of a file's name
            f"{path}: its {'reference' if kind == 'npz' else REFERENCE} does not have the checksum that it names - "
            "expected a file as activelearn labels export writes it - have it exported again"
        )
    if own is not None and identity is not None and own["sha256"] != identity["sha256"]:
        raise ConfigError(
            f"{path}: labelled by {name_of(own)}, sha256 {own['sha256'][:12]}, not by {name_of(identity)}, "
            f"{str(identity['sha256'])[:12]} - expected one reference an import - import it alone, without "
            "--reference and --declare"
        )
    return own if identity is None else identity


def _fit(reads: Iterable[Read], ledger: Ledger, reference: str, tally: Tally) -> Iterator[Frames]:
    """Yield the frames that are fit and new; the others are counted."""
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
    """Return one frame, without zeros that stand for a stress that was never computed; and what it lacks."""
    no_stress, zeros = LACKING
    if frame.virial is None:
        return frame, no_stress
    if frame.forces is not None and frame.forces.any() and not frame.virial.any():
        return replace(frame, virial=None), zeros
    return frame, None


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
    raise ConfigError(
        f"{ledger.folder}: {what} - expected the labels of one - give --reference, one of: {listed}", *ledger.damage()
    )


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
        ``extxyz``, ``deepmd``, ``npz``, or extended XYZ in the names of a program
        (:data:`activelearn.writing.DIALECTS`); None: by the name, a folder if it has no suffix.

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
    if kind not in {"extxyz", "deepmd", "npz", *DIALECTS}:
        raise ConfigError(
            f"{to}: cannot be written as {kind or to.suffix} - expected extxyz, deepmd or npz - give --format"
        )
    if to.exists():
        raise ConfigError(f"{to}: exists - expected a new name, for nothing is overwritten - choose another --to")
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
                    f"{to}: was made by somebody else meanwhile - expected a new name - choose another --to"
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
