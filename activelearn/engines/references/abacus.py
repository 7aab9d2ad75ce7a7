"""ABACUS: a single point in plane waves or numerical atomic orbitals, one process group per job.

The input is written and the output is read in ``workers/abacus_job.py``. Pseudopotentials (UPF) and orbitals come from
the user's own folders, and their checksums go into the fingerprint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PositiveFloat

from activelearn.config import FolderPath, Machine, Reference, ReferenceEngine
from activelearn.config.bounds import of
from activelearn.config.labelling import plain_functional
from activelearn.config.section import Element
from activelearn.engines.process import Slot
from activelearn.engines.references import single_point, upf
from activelearn.engines.references.single_point import SinglePoint, Tag
from activelearn.errors import ConfigError, problems_of

_SMEARING: Final = {
    "gaussian": "gauss",
    "fermi-dirac": "fd",
    "methfessel-paxton": "mp",
    "cold": "cold",
    "fixed": "fixed",
}
#: ABACUS' names of functionals (dft_functional).
FUNCTIONALS: Final = {"pbe": "PBE", "pbesol": "PBESOL", "lda": "LDA", "blyp": "BLYP", "scan": "SCAN", "hse": "HSE"}
#: What every input has; symmetry 0 keeps that of time alone, as VASP's ISYM = 0.
_FIXED: Final[dict[str, Tag]] = {
    "suffix": "label",
    "calculation": "scf",
    "cal_force": 1,
    "cal_stress": 1,
    "symmetry": 0,
    "pseudo_dir": "./",
    "orbital_dir": "./",
    "out_chg": 0,
}
#: D3(zero) with the parameters of PBE, said in full: versions differ in whether they look them up.
D3_OF_PBE: Final[dict[str, Tag]] = {
    "vdw_method": "d3_0",
    "vdw_s6": 1.0,
    "vdw_s8": 0.722,
    "vdw_a1": 1.217,
    "vdw_a2": 1.0,
    "vdw_abc": 0,
}
#: Keys of ABACUS that are ours, and where they are set.
_OURS: Final = {
    **dict.fromkeys(_FIXED, "set for each run"),
    **dict.fromkeys(("stru_file", "kpoint_file", "ntype"), "set for each run"),
    **dict.fromkeys(D3_OF_PBE, "the reference's d3"),
    **dict.fromkeys(("gamma_only", "kspacing"), "abacus.kspacing_per_A and abacus.kpoints"),
    **dict.fromkeys(
        ("smearing_method", "smearing_sigma", "smearing_sigma_temp"), "abacus.smearing and abacus.smearing_eV"
    ),
    "basis_type": "abacus.basis",
    "ecutwfc": "abacus.ecut_eV",
    "dft_functional": "abacus.xc",
    "nspin": "abacus.spin_polarized",
    "scf_thr": "abacus.scf_thr",
    "scf_nmax": "abacus.max_scf_steps",
}


class Abacus(SinglePoint):
    """A single point by ABACUS: plane waves (pw) or numerical atomic orbitals (lcao)."""

    basis: Literal["pw", "lcao"] = Field(default="pw", description="Plane waves, or numerical atomic orbitals.")
    pseudo_dir: FolderPath = Field(description="Folder of the pseudopotentials.")
    pseudopotentials: dict[Element, str] = Field(min_length=1, description="UPF file of each element.")
    orbital_dir: FolderPath | None = Field(default=None, description="Folder of the orbitals (lcao).")
    orbitals: dict[Element, str] = Field(default={}, description="File of the orbitals of each element (lcao).")
    ecut_eV: Annotated[PositiveFloat, of("plane-wave cutoff")] = Field(
        description="Plane-wave cutoff (eV; ABACUS' ecutwfc is in Ry); for lcao, of its grid."
    )
    xc: str | None = Field(default=None, description="ABACUS' name of the functional; null: from `functional`.")
    smearing: Literal["gaussian", "fermi-dirac", "methfessel-paxton", "cold", "fixed"] = Field(
        default="gaussian", description="Smearing of the occupations; cold: Marzari-Vanderbilt; fixed: none."
    )
    scf_thr: Annotated[PositiveFloat, of("convergence criterion")] = Field(
        default=1.0e-7, description="Convergence threshold of the density (ABACUS' scf_thr)."
    )
    input: dict[str, Tag] = Field(default={}, description="More keys of INPUT: {mixing_beta: 0.4, ks_solver: dav}.")


def keys_of(reference: Reference) -> dict[str, Tag]:
    """Return the keys of INPUT that are the same for all structures; energies in Ry."""
    from ase.units import Ry

    settings = reference.settings(Abacus)
    keys: dict[str, Tag] = {
        **_FIXED,
        "basis_type": settings.basis,
        "ecutwfc": settings.ecut_eV / Ry,
        "dft_functional": settings.xc or FUNCTIONALS[plain_functional(reference.functional)],
        "scf_thr": settings.scf_thr,
        "scf_nmax": settings.max_scf_steps,
        "smearing_method": _SMEARING[settings.smearing],
    }
    if settings.smearing != "fixed":
        keys["smearing_sigma"] = settings.smearing_eV / Ry
    return {**keys, **(D3_OF_PBE if reference.d3 is not None else {}), **settings.input}


def ask(reference: Reference, job: str, slot: Slot, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return the answer of one run to one job; see ``workers/abacus_job.py``."""
    known: dict[str, Mapping[str, str]] = {
        key: {element: str(path) for element, path in of_element.items()} for key, of_element in files(reference)
    }
    message = {"job": job, "input": keys_of(reference), **request}
    return single_point.ask(reference, slot, "abacus_job.py", known, message)


def identity(reference: Reference, _slot: Slot) -> dict[str, Any]:
    """Return version, pseudopotentials and orbitals by checksum, and settings.

    Raises
    ------
    ConfigError
        A file is missing, another element's, or another functional's.
    """
    sums = {
        key: {element: _checked(reference, key, element, path) for element, path in of_element.items()}
        for key, of_element in files(reference)
    }
    without = ("pseudo_dir", "pseudopotentials", "orbital_dir", "orbitals")
    return single_point.identity(reference, sums, _FIXED, without=without, d3_version={"ABACUS": D3_OF_PBE})


def files(reference: Reference) -> Iterator[tuple[str, dict[str, Path]]]:
    """Yield what is kept in files (pseudopotentials, of lcao orbitals too), with the path of each element's."""
    settings = reference.settings(Abacus)
    for key, folder, names in (
        ("pseudopotentials", settings.pseudo_dir, settings.pseudopotentials),
        ("orbitals", settings.orbital_dir, settings.orbitals),
    ):
        if folder is not None:
            root = Path(folder).expanduser().absolute()
            yield key, {element: root / name for element, name in names.items()}


def _checked(reference: Reference, key: str, element: str, path: Path) -> dict[str, str]:
    where = f"{reference.where}.abacus.{key}.{element}"
    if key == "pseudopotentials":
        is_named = plain_functional(reference.functional) in upf.FUNCTIONALS and reference.settings(Abacus).xc is None
        functional = reference.functional if is_named else None
        return upf.checked(where, element, path, functional, "or set abacus.xc")
    if not path.is_file():
        raise ConfigError(f"{where}: no file {path} - expected the orbitals of {element} - check orbital_dir")
    named = [line.split()[-1] for line in path.read_text(errors="replace").splitlines()[:20] if line[:7] == "Element"]
    if named != [element]:
        what = f"of {named[0]}" if named else "no file of orbitals"
        raise ConfigError(f"{where}: {path} is {what} - expected the orbitals of {element} - check the name")
    return {"sha256": single_point.sha256(path)}


def _check_settings(reference: Reference) -> None:
    settings = reference.settings(Abacus)
    single_point.want_known(reference, settings.xc, FUNCTIONALS, "abacus.xc")
    single_point.want_same(reference, settings.xc, FUNCTIONALS, "abacus.xc")
    single_point.want_free(settings.input, _OURS, "abacus")
    is_lcao = settings.basis == "lcao"
    if is_lcao is not (
        settings.orbital_dir is not None and settings.orbitals.keys() == settings.pseudopotentials.keys()
    ):
        raise ValueError(
            f"abacus.basis {settings.basis} with orbitals of {', '.join(settings.orbitals) or 'no element'} - expected "
            "orbital_dir and orbitals of every element for lcao, and neither of them for pw"
        )
    if reference.d3 is not None and plain_functional(reference.d3.method) != "pbe":
        raise ValueError(f"d3.method {reference.d3.method} with engine abacus - expected PBE, whose parameters we know")


def _problems(reference: Reference, machine: Machine, where: str) -> list[str]:
    problems = single_point.lacking_program(reference, machine, where, r"abacus\S*")
    named = ((reference, key, *one) for key, of_element in files(reference) for one in of_element.items())
    return problems + problems_of(_checked, named)


ENGINE: Final = ReferenceEngine(
    ask=ask,
    identity=identity,
    needs=frozenset({"command"}),
    settings=Abacus,
    movable=("pseudo_dir", "orbital_dir"),
    check_settings=_check_settings,
    problems=_problems,
    elements=lambda reference: frozenset(reference.settings(Abacus).pseudopotentials),
)
