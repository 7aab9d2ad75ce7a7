"""FHI-aims: an all-electron single point in numerical atom-centred orbitals, one process group per job.

The input is written and the output is read in ``workers/aims_job.py``. The species defaults of each element come from
the folder that the user names; their text goes into control.in and, by checksum, into the fingerprint. FHI-aims has no
D3: it is added by the dftd3 package, as it is for GPAW.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PositiveFloat

from activelearn.config import FolderPath, Machine, Reference, ReferenceEngine
from activelearn.config.bounds import of
from activelearn.config.labelling import plain_functional
from activelearn.config.section import Element
from activelearn.engines.interpreters import has_module
from activelearn.engines.jobs import run_job
from activelearn.engines.process import Slot, worker_command
from activelearn.engines.references import single_point
from activelearn.engines.references.single_point import SinglePoint, Tag
from activelearn.errors import ConfigError, problems_of

_SMEARING: Final = {"gaussian": "gaussian", "fermi-dirac": "fermi", "methfessel-paxton": "methfessel-paxton 1"}
#: FHI-aims' names of functionals.
FUNCTIONALS: Final = {
    **{name: name for name in ("pbe", "pbesol", "revpbe", "rpbe", "blyp", "pbe0", "b3lyp")},
    "lda": "pw-lda",
    "scan": "dfauto scan",
}
#: What every input has.
_FIXED: Final[dict[str, Tag]] = {
    "compute_forces": True,
    "compute_analytical_stress": True,
    "relativistic": "atomic_zora scalar",
}
#: Keys of control.in that are ours, and where they are set.
_OURS: Final = {
    "xc": "aims.xc",
    "spin": "aims.spin_polarized",
    "default_initial_moment": "aims.initial_moments",
    "occupation_type": "aims.smearing and aims.smearing_eV",
    "sc_iter_limit": "aims.max_scf_steps",
    "sc_accuracy_rho": "aims.sc_accuracy_rho",
    **dict.fromkeys(("k_grid", "k_grid_density", "k_offset"), "aims.kspacing_per_A and aims.kpoints"),
    **dict.fromkeys(("compute_forces", "compute_analytical_stress", "compute_numerical_stress"), "always on"),
    **dict.fromkeys(("relax_geometry", "relax_unit_cell", "md_run", "md_mb_init"), "a single point here"),
    **dict.fromkeys(
        ("restart", "elsi_restart", "walltime"), "none: every run starts from scratch, without a time limit"
    ),
}


class Aims(SinglePoint):
    """A single point by FHI-aims: all electrons, numerical atom-centred orbitals."""

    species_dir: FolderPath = Field(description="Folder of species defaults: .../species_defaults/defaults_2020/light.")
    species: tuple[Element, ...] = Field(min_length=1, description="File of each element in it: 11_Na_default ...")
    xc: str | None = Field(default=None, description="FHI-aims' name of the functional; null: from `functional`.")
    smearing: Literal["gaussian", "fermi-dirac", "methfessel-paxton"] = Field(
        default="gaussian", description="Of the occupations."
    )
    sc_accuracy_rho: Annotated[PositiveFloat, of("convergence criterion")] = Field(
        default=1.0e-5, description="Convergence threshold of the density (FHI-aims' sc_accuracy_rho)."
    )
    input: dict[str, Tag] = Field(default={}, description="More keys of control.in: {relativistic: none}.")


def keys_of(reference: Reference) -> dict[str, Tag]:
    """Return the keys of control.in that are the same for all structures; energies in eV, as FHI-aims has them."""
    settings = reference.settings(Aims)
    return {
        **_FIXED,
        "xc": settings.xc or FUNCTIONALS[plain_functional(reference.functional)],
        "occupation_type": _occupations(settings),
        "sc_accuracy_rho": settings.sc_accuracy_rho,
        "sc_iter_limit": settings.max_scf_steps,
        **settings.input,
    }


def _occupations(settings: Aims) -> str:
    kind, *order = _SMEARING[settings.smearing].split()
    return " ".join([kind, f"{settings.smearing_eV!r}", *order])


def ask(reference: Reference, job: str, slot: Slot, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return the answer of one run to one job; see ``workers/aims_job.py``."""
    known = {"species": {element: str(path) for element, path in files(reference).items()}}
    message = {"job": job, "input": keys_of(reference), "d3": _d3(reference), **request}
    return single_point.ask(reference, slot, "aims_job.py", known, message)


def identity(reference: Reference, slot: Slot) -> dict[str, Any]:
    """Return version, species defaults by checksum, and settings.

    Raises
    ------
    ConfigError
        A file is missing or another element's.
    """
    sums = {element: _checked(reference, element, path) for element, path in files(reference).items()}
    told: dict[str, Any] = {}
    if reference.d3 is not None:
        request = {"job": "describe", "d3": _d3(reference)}
        told = run_job(worker_command("aims_job.py", reference.python), request, slot)
    without = ("species_dir", "species")
    return single_point.identity(reference, sums, _FIXED, without=without, d3_version=told.get("d3_version"))


def _d3(reference: Reference) -> dict[str, Any] | None:
    return None if reference.d3 is None else reference.d3.model_dump()


def files(reference: Reference) -> dict[str, Path]:
    """Return the path of each element's species defaults."""
    from ase.data import atomic_numbers

    settings = reference.settings(Aims)
    root = Path(settings.species_dir).expanduser().absolute()
    return {kind: root / f"{atomic_numbers.get(kind, 0):02d}_{kind}_default" for kind in settings.species}


def _checked(reference: Reference, element: str, path: Path) -> dict[str, str]:
    where = f"{reference.where}.aims.species.{element}"
    if not path.is_file():
        raise ConfigError(f"{where}: no file {path} - expected the species defaults of {element} - check species_dir")
    named = re.findall(r"^\s*species\s+(\S+)", path.read_text(errors="replace"), re.MULTILINE)
    if named != [element]:
        found = ", ".join(named) or "none"
        raise ConfigError(f"{where}: {path} is of species {found} - expected {element} alone - take FHI-aims' own file")
    return {"sha256": single_point.sha256(path)}


def _check_settings(reference: Reference) -> None:
    settings = reference.settings(Aims)
    single_point.want_known(reference, settings.xc, FUNCTIONALS, "aims.xc")
    single_point.want_same(reference, settings.xc, FUNCTIONALS, "aims.xc")
    single_point.want_free(settings.input, _OURS, "aims")
    single_point.want_no_dispersion(reference, settings.input, r"vdw.*|many_body_dispersion.*|d(ft)?d[34].*", "aims")


def _problems(reference: Reference, machine: Machine, where: str) -> list[str]:
    problems = single_point.lacking_program(reference, machine, where, r"aims\S*")
    if reference.d3 is not None and not has_module("dftd3", reference.python):
        here = reference.python or "this interpreter"
        problems.append(f"{where}.d3: {here} has no dftd3 - expected it for the dispersion - pip install dftd3")
    return problems + problems_of(_checked, ((reference, *one) for one in files(reference).items()))


ENGINE: Final = ReferenceEngine(
    ask=ask,
    identity=identity,
    needs=frozenset({"command"}),
    settings=Aims,
    movable=("species_dir",),
    check_settings=_check_settings,
    problems=_problems,
    elements=lambda reference: frozenset(reference.settings(Aims).species),
)
