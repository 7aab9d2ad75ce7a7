"""Labels in formats read by dpdata and ASE, by their names: ``abacus/md``, ``deepmd/hdf5``, ``ase/traj`` ...

Formats that dpdata or ASE read incorrectly, or without checking convergence, always have our own readers,
see docs/labels.md. For the others, numbers are the library's; the same refusals apply to all.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, Final, TypeVar

import numpy as np

from activelearn.errors import ConfigError
from activelearn.exchange.reads import Read, from_atoms, source
from activelearn.exchange.texts import are_numbered, readable, whole_lines
from activelearn.frames import Frames, make_origin

T = TypeVar("T")

#: Names of dpdata and ASE for which our own readers are used.
OURS: Final = {
    **dict.fromkeys(("vasp/outcar", "ase/vasp-out"), "outcar"),
    **dict.fromkeys(("vasp/xml", "xml", "ase/vasp-xml"), "vasprun"),
    **dict.fromkeys(("qe/pw/scf", "ase/espresso-out"), "qe"),
    **dict.fromkeys(("cp2k/output", "cp2k/aimd_output"), "cp2k"),
    **dict.fromkeys(("fhi_aims/md", "fhi_aims/output", "fhi_aims/scf", "ase/aims-output"), "aims"),
    "ase/gpaw-out": "gpaw",
    **dict.fromkeys(("deepmd/npy", "deepmd/raw", "deepmd/comp", "deepmd/npy/mixed"), "deepmd"),
    **dict.fromkeys(("quip/gap/xyz", "quip/gap/xyz_file", "gpumd/xyz", "mace/xyz", "nequip/xyz"), "extxyz"),
    "ase/extxyz": "extxyz",
    **{f"abacus{how}/{what}": "abacus" for how in ("", "/pw", "/lcao") for what in ("scf", "md", "relax")},
}
#: Formats of ASE that hold energies and forces of periodic structures, apart from those that we read ourselves.
ASE_FORMATS: Final = (
    "abinit-gsr", "abinit-out", "castep-castep", "castep-geom", "castep-md", "db", "elk", "gpw", "json", "nwchem-out",
    "onetep-out", "qbox", "traj",
)  # fmt: skip
#: dpdata's reader of these asks ASE for forces with constraints applied, so ASE reads them here.
_BY_ASE: Final = {"ase/structure": "ase/traj"}
#: For these, dpdata returns unconverged steps as labels, with a warning; for the others it drops them.
_KEEPS_UNCONVERGED: Final = ("openmx/md",)
#: Cell that dpdata uses for atoms without one, Å.
_MADE_UP_CELL: Final = 100.0 * np.eye(3)
_ABACUS_NOT_CONVERGED: Final = "convergence has not been achieved"
_ABACUS_ROW: Final = re.compile(r"\s*(\d+)\s+[A-Z]")


def names() -> list[str]:
    """Return the formats of labels of dpdata and ASE."""
    from dpdata.format import Format

    of_dpdata = [
        name
        for name, kind in Format.get_formats().items()
        if kind.from_labeled_system is not Format.from_labeled_system or "mixed" in name
    ]
    return sorted({*OURS, *of_dpdata, *(f"ase/{name}" for name in ASE_FORMATS)})


def reader(name: str, ours: Mapping[str, Callable[[Path], Iterator[Read]]]) -> Callable[[Path], Iterator[Read]]:
    """Return the reader of a format: ours, or that of dpdata or ASE.

    Raises
    ------
    ConfigError
        There is no such format; similar names are given.
    """
    name = _BY_ASE.get(name, name)
    if OURS.get(name, name) in ours:
        return ours[OURS.get(name, name)]
    known = [*ours, *names()]
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=4, cutoff=0.5) or list(ours)
        raise ConfigError(
            f"--format {name}: no such format of labels - expected one of ours ({', '.join(ours)}), a name of dpdata "
            f"or ase/ and a name of ASE - did you mean {', '.join(near)}?"
        )
    if name.startswith("siesta/"):
        return partial(read_siesta, name=name)
    return partial(_read_ase if name.startswith("ase/") else _read_dpdata, name=name)


def _read_ase(path: Path, name: str) -> Iterator[Read]:
    from ase.io import read
    from ase.stress import full_3x3_to_voigt_6_stress

    images = _quietly(path, name, lambda: list(read(path, ":", format=name.removeprefix("ase/"))))[0]
    for k, image in enumerate(images):
        if image.calc is not None and np.shape(image.calc.results.get("stress")) == (3, 3):
            image.calc.results["stress"] = full_3x3_to_voigt_6_stress(image.calc.results["stress"])
        yield Read(f"{path} frame {k}", *from_atoms(image, source(path)))


def _read_dpdata(path: Path, name: str) -> Iterator[Read]:
    systems, said = _quietly(path, name, lambda: _systems(path, name))
    is_unconverged = "unconverged" in said or "not converge" in said
    if is_unconverged and name in _KEEPS_UNCONVERGED:
        raise ConfigError(
            f"{path}: dpdata reports unconverged steps ({said}), but not which, and returns all - expected "
            "only converged steps - remove the others from the file"
        )
    if is_unconverged:
        yield Read(f"{path} ({said})", None, "SCF not converged")
    n = 0
    for data in systems:
        for read in _frames(data, path, n):
            n += 1
            yield read
    if n == 0 and not is_unconverged:
        raise ConfigError(
            f"{path}: dpdata finds no frame as {name}{': ' if said else ''}{said} - expected labels - check the "
            "path and the format, and whether the run ended"
        )


def _systems(path: Path, name: str) -> list[dict[str, Any]]:
    """Return the data of the systems of a file as dpdata reads them; never merged, since some may lack virials."""
    import dpdata
    from dpdata.format import Format

    kind = Format.get_formats()[name]
    if "mixed" in name:
        found = dpdata.MultiSystems().load_systems_from_file(str(path), fmt=name)
        return [system.data for system in found]
    if kind.from_multi_systems is Format.from_multi_systems:
        return [dpdata.LabeledSystem(str(path), fmt=name).data]
    whole = dpdata.LabeledSystem(str(path), fmt=name).data if "hdf5" in name else {}
    if len(whole.get("coords", ())):
        return [whole]
    return [dpdata.LabeledSystem(part, fmt=name).data for part in kind().from_multi_systems(str(path))]


def _frames(data: Mapping[str, Any], path: Path, begin: int) -> Iterator[Read]:
    symbols = tuple(str(data["atom_names"][kind]) for kind in data["atom_types"])
    for k, positions in enumerate(data["coords"]):
        cell = np.asarray(data["cells"][k], dtype=np.float64)
        is_periodic = not data.get("nopbc", False) and not np.array_equal(cell, _MADE_UP_CELL)
        forces, virials = data.get("forces"), data.get("virials")
        frame = Frames(
            symbols=symbols,
            cell=cell[None],
            positions=positions[None],
            pbc=(is_periodic, is_periodic, is_periodic),
            energy=np.array([data["energies"][k]]) if "energies" in data else None,
            forces=forces[k][None] if forces is not None and len(forces) else None,
            virial=None if virials is None else virials[k][None],
            origin=make_origin(1, walk=source(path)),
        )
        is_lacking = virials is None and is_periodic and frame.is_labelled
        yield Read(f"{path} frame {begin + k}", frame, "no stress" if is_lacking else None)


# --- ABACUS -----------------------------------------------------------------------------------------------------------


def read_abacus(path: Path) -> Iterator[Read]:
    """Read a run of ABACUS from its folder, by dpdata; the steps that did not converge, which it drops, are counted.

    Raises
    ------
    ConfigError
        It is not a folder of ABACUS, or dpdata cannot assign forces to steps.
    """
    if not (path / "INPUT").is_file():
        raise ConfigError(f"{path}: contains no INPUT - expected the folder of an ABACUS run - give that folder")
    lines = [line.split() for line in (path / "INPUT").read_text(errors="replace").splitlines()]
    tags = {words[0]: words[1] for words in lines if len(words) > 1}
    what, suffix = tags.get("calculation", "scf"), tags.get("suffix", "ABACUS")
    log = path / f"OUT.{suffix}" / f"running_{what}.log"
    if not log.is_file():
        raise ConfigError(f"{log}: no such file - expected the log of the run that INPUT describes - check the folder")
    said = log.read_text(errors="replace").lower()
    n = said.count(_ABACUS_NOT_CONVERGED)
    if n and "relax" in what:
        raise ConfigError(
            f"{log}: {n} steps did not converge, and dpdata cannot assign the forces of the others - "
            "expected a relaxation with converged steps - compute its structures again, one by one (scf)"
        )
    _check_dump(log.parent / "MD_dump")
    stru = path / tags.get("stru_file", "STRU")
    if stru.is_file() and re.search(r"^[A-Z]+_[A-Z]+\s*\Z", stru.read_text(errors="replace"), re.MULTILINE):
        raise ConfigError(f"{stru}: ends with a heading - expected the complete file - copy it from the run again")
    for _ in range(n):
        yield Read(str(log), None, "SCF not converged")
    for _ in re.findall(r"final etot is\s+-?(?:nan|inf)", said):
        yield Read(str(log), None, "not finite")  # dpdata drops them
    if n == 0 or what != "scf":
        for read in _read_dpdata(path, f"abacus/{'relax' if 'relax' in what else what}"):
            if read.reason != "SCF not converged":
                yield read


def _check_dump(path: Path) -> None:
    """Refuse an MD_dump whose steps differ in layout, since dpdata counts lines and columns."""
    if not path.is_file():
        return
    blocks: list[list[str]] = []
    for line in whole_lines(path):
        if line.startswith("MDSTEP"):
            blocks.append([])
        if blocks and line.strip():
            found = _ABACUS_ROW.match(line)
            is_constant = line.startswith("LATTICE_CONSTANT")
            blocks[-1].append(line if is_constant else f"{len(line.split())} columns {found and found[1]}")
    for k, block in enumerate(blocks):
        if block != blocks[0]:
            raise ConfigError(
                f"{path}: step {k} does not have the lines and columns of the first one - expected the complete "
                "file - copy it from the run again; nothing was imported"
            )


# --- SIESTA -----------------------------------------------------------------------------------------------------------

#: A line of the electronic loop: iteration, Harris energy, E_KS, free energy (eV), and two numbers more at least.
_SIESTA_LOOP: Final = re.compile(r"\s*(?:scf|siesta):\s+\d+\s+\S+\s+(-?\d+\.\d+)\s+(-?\d+\.\d+)\s+\S+\s+\S+")
#: The last line of a loop and the line of its step have the same E_KS, to four decimals or more.
_SAME_ENERGY: Final = 2e-3
_SIESTA_STEP: Final = "siesta: E_KS(eV) ="
_SIESTA_ROWS: Final = (
    re.compile(r"(?:\s*\S+){3}\s+\d+\s+(\d+)\s+[A-Z]"),
    re.compile(r"\s*(\d+)(?:\s+-?\d+\.\d+){3}\s*$"),
)
_SIESTA_NOT_CONVERGED: Final = re.compile(r"SCF_NOT_CONV|SCF did not converge")


def read_siesta(path: Path, name: str) -> Iterator[Read]:
    """Read an output of SIESTA by dpdata, with the free energy, and the virial with its sign turned.

    SIESTA prints its stress positive in tension (the pressure that it prints below is minus a third of the trace), and
    dpdata 1.1.0 uses it times the volume as the virial.

    Raises
    ------
    ConfigError
        dpdata cannot read it, or finds another number of steps than there are energies.
    """
    reads = list(_read_dpdata(path, name))
    energies: list[tuple[float, bool]] = []
    last, energy, is_converged = float("nan"), float("nan"), True
    for line in whole_lines(path):
        if found := _SIESTA_LOOP.match(line):
            last, energy = float(found[1]), float(found[2])
        elif _SIESTA_NOT_CONVERGED.search(line):
            is_converged = False
        elif _SIESTA_STEP in line:
            is_same = abs(float(line.split()[-1]) - last) < _SAME_ENERGY
            energies.append((energy if is_same else float("nan"), is_converged))
            last, energy, is_converged = float("nan"), float("nan"), True
    if len(energies) != len(reads):
        raise ConfigError(
            f"{path}: {len(energies)} energies, but dpdata reads {len(reads)} steps - expected as many - use the "
            "output of one complete run, and siesta/aimd_output if it has several steps"
        )
    lines = list(whole_lines(path))
    headings = ("outcoor: Atomic coordinates", "siesta: Atomic forces")
    is_whole = all(are_numbered(lines, *table, 1) for table in zip(headings, _SIESTA_ROWS, strict=True))
    n_tables = {sum(heading in line for line in lines) for heading in (*headings, "outcell:", "Stress tensor (static)")}
    if not is_whole or n_tables != {len(reads)}:
        raise ConfigError(
            f"{path}: atoms, forces, cells or stresses are missing or duplicated, and dpdata would use others in "
            "their place - expected the complete output - copy it from the run again"
        )
    for read, (free, has_converged) in zip(reads, energies, strict=True):
        if not has_converged or read.frame is None:
            yield Read(read.where, None, read.reason or "SCF not converged")
            continue
        virial = None if read.frame.virial is None else -read.frame.virial
        yield Read(read.where, replace(read.frame, energy=np.array([free]), virial=virial), read.reason)


# --- readers that print, warn and fail --------------------------------------------------------------------------------


#: Time-out of reading a file: seconds, and bytes per second. Some libraries hang on an incomplete file.
_SECONDS: Final = 60.0
_BYTES_PER_SECOND: Final = 1e5


def _in_time(path: Path, name: str, read: Callable[[], T]) -> T:
    """Return what a library reads, in a thread that is abandoned if it does not end."""
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(read())
        except BaseException as error:  # noqa: BLE001 - raised again by result()
            answer.set_exception(error)

    files = [path] if path.is_file() else path.rglob("*")
    seconds = _SECONDS + sum(file.stat().st_size for file in files if file.is_file()) / _BYTES_PER_SECOND
    Thread(target=work, daemon=True).start()
    try:
        return answer.result(seconds)
    except FutureTimeout as error:
        raise ConfigError(
            f"{path}: reading it as {name} does not end ({seconds:.0f} s) - expected a complete file of that "
            "format - fix it, leave it out or give another --format; nothing was imported"
        ) from error


def _quietly(path: Path, name: str, read: Callable[[], T]) -> tuple[T, str]:
    """Return what a library reads, and its output and warnings in one line, without printing them.

    Raises
    ------
    ConfigError
        It fails in any way: the file is not of that format, or incomplete.
    """
    if not path.exists() and not list(path.absolute().parent.glob(f"{path.name}.*")):  # some names are beginnings
        raise ConfigError(f"{path}: no such file - expected labelled structures - check the path")
    screen = io.StringIO()
    with (
        readable(path, name),
        warnings.catch_warnings(record=True) as warned,
        contextlib.redirect_stdout(screen),
        contextlib.redirect_stderr(screen),
    ):
        warnings.simplefilter("always")
        found = _in_time(path, name, read)
    ours = [str(w.message) for w in warned if not issubclass(w.category, DeprecationWarning | FutureWarning)]
    return found, " ".join(" ".join(dict.fromkeys([*screen.getvalue().splitlines(), *ours])).split())[:200]
