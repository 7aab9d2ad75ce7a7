"""CP2K: a single point by Quickstep (Gaussians and plane waves), one process group per job.

The input is written and the output is read in ``workers/cp2k_job.py``. Basis sets and pseudopotentials are entries of
the files that come with CP2K: the entry of each element is looked up here, goes into the fingerprint as it stands, and
is written beside the input, so that what was hashed is what is used, wherever CP2K looks for data on a node.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PositiveFloat

from activelearn.config import FolderPath, Machine, Reference, ReferenceEngine
from activelearn.config.bounds import of
from activelearn.config.labelling import plain_functional
from activelearn.config.section import Element
from activelearn.engines.process import Slot
from activelearn.engines.references import single_point
from activelearn.engines.references.single_point import SinglePoint
from activelearn.errors import ConfigError, problems_of

#: A section of CP2K's input: keywords and sections by name, "_" its parameter; a list is one that is given often.
Tree = dict[str, Any]
#: What stands in XC_FUNCTIONAL.
FUNCTIONALS: Final[dict[str, Tree]] = {
    "pbe": {"_": "PBE"},
    "pbesol": {"PBE": {"PARAMETRIZATION": "PBESOL"}},
    "revpbe": {"PBE": {"PARAMETRIZATION": "REVPBE"}},
    "lda": {"_": "PADE"},
    "blyp": {"_": "BLYP"},
    "tpss": {"_": "TPSS"},
    "scan": {"MGGA_X_SCAN": {}, "MGGA_C_SCAN": {}},
    "r2scan": {"MGGA_X_R2SCAN": {}, "MGGA_C_R2SCAN": {}},
}
#: The words of those that have one.
_WORDS: Final = {name: tree.get("_") for name, tree in FUNCTIONALS.items()}
#: What the names of pseudopotentials say of the functional that they were made for.
_MADE_FOR: Final = {"pbe": ("PBE",), "lda": ("PADE", "LDA"), "blyp": ("BLYP",)}
#: What every input has.
_FIXED: Final[Tree] = {
    "GLOBAL": {"PROJECT": "label", "RUN_TYPE": "ENERGY_FORCE", "PRINT_LEVEL": "MEDIUM"},
    "FORCE_EVAL": {
        "METHOD": "QUICKSTEP",
        "STRESS_TENSOR": "ANALYTICAL",
        "DFT": {
            "BASIS_SET_FILE_NAME": "BASIS",
            "POTENTIAL_FILE_NAME": "POTENTIAL",
            "SCF": {"SCF_GUESS": "ATOMIC", "PRINT": {"RESTART": {"_": "OFF"}}},
        },
        "PRINT": {"FORCES": {"_": "ON"}, "STRESS_TENSOR": {"_": "ON"}},
    },
}
#: Sections and keywords of CP2K that are ours, and where they are set.
_OURS: Final = {
    "global/run_type": "a single point here",
    "global/project": "set for each run",
    "global/walltime": "none: a time limit must not decide what is labelled",
    "motion": "a single point here",
    "force_eval/rescale_forces": "none: forces are the slope of the energy",
    "force_eval/method": "Quickstep here",
    "force_eval/stress_tensor": "always analytical",
    "force_eval/print/forces": "always on",
    "force_eval/print/stress_tensor": "always on",
    "force_eval/subsys": "the structure's",
    "force_eval/dft/basis_set_file_name": "cp2k.basis_files",
    "force_eval/dft/potential_file_name": "cp2k.potential_files",
    "force_eval/dft/mgrid/cutoff": "cp2k.cutoff_eV",
    "force_eval/dft/mgrid/rel_cutoff": "cp2k.rel_cutoff_eV",
    "force_eval/dft/kpoints": "cp2k.kspacing_per_A and cp2k.kpoints",
    "force_eval/dft/uks": "cp2k.spin_polarized",
    "force_eval/dft/multiplicity": "cp2k.initial_moments",
    "force_eval/dft/scf/smear": "cp2k.smearing",
    "force_eval/dft/scf/max_scf": "cp2k.max_scf_steps",
    "force_eval/dft/scf/eps_scf": "cp2k.eps_scf",
    "force_eval/dft/scf/ignore_convergence_failure": "never: an SCF that did not converge is refused",
    "force_eval/dft/xc/vdw_potential/pair_potential": "the reference's d3",
}


class CP2K(SinglePoint):
    """A single point by CP2K's Quickstep: Gaussian basis sets, GTH pseudopotentials, the density on a grid."""

    data_dir: FolderPath = Field(description="Folder of CP2K's data: BASIS_MOLOPT, GTH_POTENTIALS, dftd3.dat ...")
    basis_files: tuple[str, ...] = Field(default=("BASIS_MOLOPT",), min_length=1, description="Files of basis sets.")
    potential_files: tuple[str, ...] = Field(
        default=("GTH_POTENTIALS",), min_length=1, description="Files of pseudopotentials."
    )
    basis: dict[Element, str] = Field(
        min_length=1,
        description="Basis set of each element: {Si: DZVP-MOLOPT-SR-GTH}; needs the same keys as potentials.",
    )
    potentials: dict[Element, str] = Field(
        min_length=1, description="Pseudopotential of each element: {Si: GTH-PBE-q4}."
    )
    cutoff_eV: Annotated[PositiveFloat, of("cutoff of the density")] = Field(
        default=8000.0, description="Cutoff of the finest grid of the density (eV; CP2K's CUTOFF is in Ry: 588 Ry)."
    )
    rel_cutoff_eV: Annotated[PositiveFloat, of("cutoff of the density")] = Field(
        default=800.0, description="Cutoff that assigns Gaussians to grids (eV; REL_CUTOFF: 59 Ry)."
    )
    d3_cutoff_A: Annotated[PositiveFloat, of("cutoff of D3")] = Field(
        default=50.2, description="Of the pairs of d3 (R_CUTOFF, Å)."
    )
    smearing: Literal["fermi-dirac", "fixed"] = Field(
        default="fermi-dirac", description="Smearing of the occupations; fixed: none. CP2K 2023 has no others."
    )
    eps_scf: Annotated[PositiveFloat, of("convergence criterion")] = Field(
        default=1.0e-6, description="Convergence threshold of the density (CP2K's EPS_SCF)."
    )
    input: dict[str, Any] = Field(
        default={},
        description="More of the input, section by section: {FORCE_EVAL: {DFT: {QS: {EPS_DEFAULT: 1e-12}}}}.",
    )


def tree_of(reference: Reference) -> Tree:
    """Return the input that is the same for all structures; energies in eV, which ``[eV]`` states in the input."""
    from ase.units import kB

    settings = reference.settings(CP2K)
    functional = FUNCTIONALS.get(plain_functional(reference.functional))
    ours: Tree = {
        "MGRID": {"CUTOFF": f"[eV] {settings.cutoff_eV!r}", "REL_CUTOFF": f"[eV] {settings.rel_cutoff_eV!r}"},
        "SCF": {"MAX_SCF": settings.max_scf_steps, "EPS_SCF": settings.eps_scf},
        "XC": {} if functional is None or _has_functional(settings) else {"XC_FUNCTIONAL": functional},
    }
    if settings.smearing != "fixed":
        smear = {"_": "ON", "METHOD": "FERMI_DIRAC", "ELECTRONIC_TEMPERATURE": settings.smearing_eV / kB}
        ours["SCF"] |= {"SMEAR": smear, "ADDED_MOS": -1, "MIXING": {"METHOD": "BROYDEN_MIXING", "ALPHA": 0.4}}
    if reference.d3 is not None:
        pair = {
            "TYPE": "DFTD3",
            "PARAMETER_FILE_NAME": "dftd3.dat",
            "REFERENCE_FUNCTIONAL": reference.d3.method,
            "R_CUTOFF": f"[angstrom] {settings.d3_cutoff_A!r}",
            "CALCULATE_C9_TERM": False,
        }
        ours["XC"]["VDW_POTENTIAL"] = {"POTENTIAL_TYPE": "PAIR_POTENTIAL", "PAIR_POTENTIAL": pair}
    return merged(merged(_FIXED, {"FORCE_EVAL": {"DFT": ours}}), settings.input)


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> Tree:
    """Return a tree with a second one merged over it; names in capital letters, as CP2K ignores case."""
    found: Tree = {key.upper(): value for key, value in one.items()}
    for key, value in other.items():
        below = found.get(key.upper())
        is_section = isinstance(below, Mapping) and isinstance(value, Mapping)
        if isinstance(below, Mapping) and not is_section:
            raise ValueError(f"cp2k.input: {key} is {str(value)[:40]} - expected a mapping, since it is a section")
        found[key.upper()] = merged(below, value) if is_section else _upper(value)  # type: ignore[arg-type]
    return found


def _upper(value: Any) -> Any:  # noqa: ANN401 - a part of the input
    if isinstance(value, Mapping):
        return {key.upper(): _upper(part) for key, part in value.items()}
    return [_upper(part) for part in value] if isinstance(value, list) else value


def paths_in(tree: Mapping[str, Any], above: str = "") -> list[str]:
    """Return all that a tree names, sections too: ``force_eval/dft/scf``."""
    found: list[str] = []
    for key, value in tree.items():
        here = f"{above}{key.lower()}"
        found.append(here)
        for part in value if isinstance(value, list) else [value]:
            found += paths_in(part, f"{here}/") if isinstance(part, Mapping) else []
    return found


def _has_functional(settings: CP2K) -> bool:
    return "force_eval/dft/xc/xc_functional" in paths_in(settings.input)


def _named_functional(settings: CP2K) -> str | None:
    """Return the word after XC_FUNCTIONAL in the user's own input, if there is one."""
    found: Any = _upper(settings.input)
    for key in ("FORCE_EVAL", "DFT", "XC", "XC_FUNCTIONAL"):
        found = found.get(key) if isinstance(found, Mapping) else None
    word = found.get("_") if isinstance(found, Mapping) else found
    return word if isinstance(word, str) else None


def ask(reference: Reference, job: str, slot: Slot, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return the answer of one run to one job; see ``workers/cp2k_job.py``."""
    settings = reference.settings(CP2K)
    known: dict[str, Mapping[str, Any]] = {"basis": settings.basis, "potentials": settings.potentials}
    elements = set(request.get("structure", {}).get("symbols", ())) & settings.basis.keys() & settings.potentials.keys()
    data = {kind: entries(reference, kind) for kind in sorted(elements)}
    d3_file = str(_data_dir(reference) / "dftd3.dat") if reference.d3 is not None else None
    message = {"job": job, "input": tree_of(reference), "data": data, "d3_file": d3_file, **request}
    return single_point.ask(reference, slot, "cp2k_job.py", known, message)


def identity(reference: Reference, _slot: Slot) -> dict[str, Any]:
    """Return version, entries of basis sets and pseudopotentials by checksum, and settings.

    Raises
    ------
    ConfigError
        A file, an entry, or the pseudopotential of this functional is missing.
    """
    settings = reference.settings(CP2K)
    texts = {kind: entries(reference, kind) for kind in sorted(settings.basis)}
    sums = {
        kind: {key: hashlib.sha256(text.encode()).hexdigest() for key, text in found.items()}
        for kind, found in texts.items()
    }
    version = None
    if reference.d3 is not None:
        version = {"dftd3.dat": single_point.sha256(_d3_file(reference)), "cutoff_A": settings.d3_cutoff_A}
    files = ("data_dir", "basis_files", "potential_files", "d3_cutoff_A")  # the cutoff is in d3_version
    return single_point.identity(reference, sums, _FIXED, without=files, d3_version=version)


def _data_dir(reference: Reference) -> Path:
    return Path(reference.settings(CP2K).data_dir).expanduser().absolute()


def _d3_file(reference: Reference) -> Path:
    path = _data_dir(reference) / "dftd3.dat"
    if not path.is_file():
        raise ConfigError(
            f"{reference.where}.cp2k.data_dir: no file {path} - expected the parameters of D3, which come with CP2K - "
            "copy it there"
        )
    return path


def entries(reference: Reference, element: str) -> dict[str, str]:
    """Return the entries of an element's basis set and pseudopotential, as they stand in CP2K's files.

    Raises
    ------
    ConfigError
        There is none of that name, or the pseudopotential is for another functional.
    """
    settings = reference.settings(CP2K)
    found = {}
    for key, names, name in (
        ("basis", settings.basis_files, settings.basis[element]),
        ("potentials", settings.potential_files, settings.potentials[element]),
    ):
        where = f"{reference.where}.cp2k.{key}.{element}"
        texts = []
        for file_name in names:
            path = _data_dir(reference) / file_name
            if not path.is_file():
                raise ConfigError(
                    f"{where}: no file {path} - expected a file of CP2K's data - check data_dir and {key} files"
                )
            texts.append(path.read_text(errors="replace"))
        entry = next((entry for text in texts if (entry := _entry(text, element, name)) is not None), None)
        if entry is None:
            raise ConfigError(
                f"{where}: no {name} of {element} in {', '.join(names)} - expected an entry of that name - correct it, "
                "or name its file"
            )
        found[key] = entry
    return found


def _entry(text: str, element: str, name: str) -> str | None:
    """Return an entry of a file of basis sets or potentials: a line ``Si NAME ALIAS ...``, and numbers below it."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "!"))]
    heads = [i for i, line in enumerate(lines) if re.match(r"\s*[A-Z][a-zA-Z]?\s+[A-Za-z]", line)]
    for i, j in zip(heads, [*heads[1:], len(lines)], strict=True):
        kind, *names = lines[i].split()
        if kind.upper() == element.upper() and name in names:
            return "\n".join([f"{element} {name}", *lines[i + 1 : j], ""])
    return None


def _check_settings(reference: Reference) -> None:
    settings = reference.settings(CP2K)
    if settings.basis.keys() != settings.potentials.keys():
        differ = ", ".join(sorted(settings.basis.keys() ^ settings.potentials.keys()))
        raise ValueError(f"cp2k.basis and cp2k.potentials differ in {differ} - expected both for every element")
    own = "cp2k.input's XC_FUNCTIONAL" if _has_functional(settings) else None
    single_point.want_known(reference, own, FUNCTIONALS, "cp2k.input: FORCE_EVAL/DFT/XC/XC_FUNCTIONAL")
    paths = paths_in(settings.input)
    single_point.want_free(paths, _OURS, "cp2k")
    if others := [path for path in paths if path.split("/")[0] not in {"global", "force_eval"}]:
        raise ValueError(f"cp2k.input: {others[0].upper()} - expected sections of GLOBAL and FORCE_EVAL, for one point")
    single_point.want_same(reference, _named_functional(settings), _WORDS, "cp2k.input: XC_FUNCTIONAL")
    single_point.want_no_dispersion(reference, paths, r"force_eval/dft/xc/vdw_potential", "cp2k")
    tree_of(reference)  # sections that are none
    marks = _MADE_FOR.get(plain_functional(reference.functional), ())
    for element, name in settings.potentials.items():
        if marks and own is None and not any(mark in name.upper() for mark in marks):
            raise ValueError(
                f"cp2k.potentials.{element}: {name} is not for {reference.functional} by its name - expected one with "
                f"{' or '.join(marks)} in it, such as GTH-{marks[0]}-q4"
            )


def _problems(reference: Reference, machine: Machine, where: str) -> list[str]:
    problems = single_point.lacking_program(reference, machine, where, r"cp2k(\.\w+)?")
    problems += problems_of(_d3_file, [(reference,)] if reference.d3 is not None else [])
    return problems + problems_of(entries, ((reference, element) for element in reference.settings(CP2K).basis))


ENGINE: Final = ReferenceEngine(
    ask=ask,
    identity=identity,
    needs=frozenset({"command"}),
    settings=CP2K,
    movable=("data_dir",),
    check_settings=_check_settings,
    problems=_problems,
    elements=lambda reference: frozenset(reference.settings(CP2K).basis),
)
