"""VASP: a single point at one level of theory, run under custodian, one process group per job.

Files are written and output is read in ``workers/vasp_job.py``; here are the settings and what the labels
depend on. No POTCARs are shipped: they come from the user's own folder, and their checksums go into the
fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, PositiveInt, field_validator

from activelearn.config import FolderPath, Machine, Reference, ReferenceEngine, Section
from activelearn.config.bounds import Keyed, of
from activelearn.config.labelling import plain_functional
from activelearn.config.section import Mesh
from activelearn.engines.interpreters import has_module
from activelearn.engines.jobs import run_job, want_program, words
from activelearn.engines.process import Slot, worker_command
from activelearn.errors import ConfigError, problems_of

Tag = str | int | float | bool
#: The single point of Luo et al. (2024): PBE, 400 eV, 0.5 1/Å (VASP's spacing includes 2 pi), 1e-5 eV, no symmetry.
INCAR: Final[dict[str, Any]] = {
    "GGA": "PE",
    "ENCUT": 400,
    "KSPACING": 0.5,
    "EDIFF": 1.0e-5,
    "ISMEAR": 0,
    "SIGMA": 0.05,
    "ISPIN": 1,
    "ISYM": 0,
    "NSW": 0,
    "LWAVE": False,
    "LCHARG": False,
}
#: Grimme's D3 with zero damping (VASP has no three-body term).
IVDW: Final = {"zero": 11}
#: Parallelization, which is not part of the level of theory.
_PARALLEL: Final = {"NCORE", "NPAR", "KPAR", "NSIM", "LPLANE", "LSCALAPACK", "LSCALU"}


#: INCAR tags; numbers with a unit are in the table of bounds.
Tags = Annotated[
    dict[str, Tag | list[Tag]],
    Keyed(
        {
            "ENCUT": of("plane-wave cutoff"),
            "KSPACING": of("spacing of k-points"),
            "EDIFF": of("convergence of energies"),
            "SIGMA": of("smearing"),
            "NELM": of("number of SCF steps"),
        }
    ),
]


class VASP(Section):
    """A single point by VASP; the INCAR of :data:`INCAR` with these tags on top."""

    version: str = Field(description="Version of VASP, such as 6.4.2; every run is checked against it.")
    potcar_dir: FolderPath = Field(description="Folder of the POTCARs: <potcar_dir>/<name>/POTCAR.")
    potcars: dict[str, str] = Field(min_length=1, description="Name of the POTCAR of each element: {Na: Na_pv}.")
    incar: Tags = Field(default={}, description="INCAR tags on top of the defaults.")
    incar_for: dict[str, Tags] = Field(
        default={}, description="Additional tags for structures of exactly these elements: {O: {ISPIN: 2}, O-S: ...}."
    )
    kpoints: Mesh | None = Field(default=None, description="A Gamma-centred mesh; null: by KSPACING.")
    max_corrections: Annotated[PositiveInt, of("number of corrections")] = Field(
        default=5, description="Maximum number of restarts by custodian."
    )

    @field_validator("incar", "incar_for")
    @classmethod
    def _tags_are_written_as_vasp_does(cls, given: dict[str, Any]) -> dict[str, Any]:
        tags = {key for value in given.values() if isinstance(value, dict) for key in value} or set(given)
        if "IVDW" in tags:
            raise ValueError("IVDW is set by the reference's d3 - expected d3: {method: PBE, damping: zero} instead")
        for tag in {"NSW", "PSTRESS"} & tags:
            raise ValueError(f"{tag} in a single point - expected labels at zero pressure with fixed positions")
        flat = [given, *(value for value in given.values() if isinstance(value, dict))]
        if any(str(some.get("ISIF")).strip() in {"0", "1"} for some in flat):
            raise ValueError(
                "ISIF 0 or 1, which gives no stress or only its trace - expected 2, VASP's own default here"
            )
        if any(some.get("ML_LMLFF") for some in flat):
            raise ValueError("ML_LMLFF, VASP's own force field - expected labels from DFT")
        small = sorted(tag for tag in tags if tag != tag.upper())
        if small:
            raise ValueError(f"tags {small} - expected capital letters, such as ENCUT")
        return given


def incar(reference: Reference) -> dict[str, Any]:
    """Return the INCAR of a reference: the defaults, IVDW for its D3, and the user's tags."""
    settings = reference.settings(VASP)
    if "METAGGA" in settings.incar and "GGA" not in settings.incar:
        tags = {tag: value for tag, value in INCAR.items() if tag != "GGA"}
    else:
        tags = dict(INCAR)
    if settings.kpoints is not None:
        del tags["KSPACING"]
    if reference.d3 is not None:
        tags["IVDW"] = IVDW[reference.d3.damping]
    return {**tags, **settings.incar}


def ask(reference: Reference, job: str, slot: Slot, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return the answer of one run to one job; see ``workers/vasp_job.py``."""
    settings = reference.settings(VASP)
    command = words(reference)
    want_program(command, slot)  # custodian's own message would hide it
    elements = set(request["structure"]["symbols"])
    message = {
        "job": job,
        "command": command,
        "incar": {**incar(reference), **settings.incar_for.get("-".join(sorted(elements)), {})},
        "kpoints": settings.kpoints,
        "potcars": {element: str(path) for element, path in potcars(reference).items() if element in elements},
        "version": settings.version,
        "max_corrections": settings.max_corrections,
        **request,
    }
    lacking = sorted(elements - set(settings.potcars))
    if lacking:
        raise ConfigError(
            f"label.reference.vasp.potcars: none for {', '.join(lacking)} - expected the POTCAR of every element - add "
            "it"
        )
    return run_job(worker_command("vasp_job.py", reference.python), message, slot)


def identity(reference: Reference, _slot: Slot) -> dict[str, Any]:
    """Return version, POTCARs by checksum, and tags.

    Raises
    ------
    ConfigError
        A POTCAR is missing or is another element's.
    """
    settings = reference.settings(VASP)
    sums = {element: _checked(element, path, reference.functional) for element, path in potcars(reference).items()}
    arguments = {
        "incar": _physics(incar(reference)),
        "incar_for": {kind: tags for kind, all_ in settings.incar_for.items() if (tags := _physics(all_))},
        "kpoints": settings.kpoints and list(settings.kpoints),
        "potcars": sums,
    }
    whole = hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()
    return {"version": settings.version, "weights_sha256": whole, "arguments": arguments, "d3_version": "IVDW = 11"}


def _physics(tags: Mapping[str, Any]) -> dict[str, Any]:
    return {tag: value for tag, value in tags.items() if tag not in _PARALLEL}


def potcars(reference: Reference) -> dict[str, Path]:
    """Return the path of each element's POTCAR."""
    settings = reference.settings(VASP)
    root = Path(settings.potcar_dir).expanduser()
    return {element: root / name / "POTCAR" for element, name in settings.potcars.items()}


def _checked(element: str, path: Path, functional: str) -> dict[str, str]:
    where = f"label.reference.vasp.potcars.{element}"
    if not path.is_file():
        raise ConfigError(
            f"{where}: no file {path} - expected the POTCAR of {element} - check potcar_dir and the name (unpack it if "
            "it is compressed)"
        )
    content = path.read_bytes()
    titles = [line.split("=", 1)[1].split() for line in content.decode("latin-1").splitlines() if "TITEL" in line]
    if len(titles) != 1 or titles[0][1].split("_")[0] != element:
        found = ", ".join(" ".join(title) for title in titles) or "nobody"
        raise ConfigError(f"{where}: {path} is of {found} - expected one of {element} - check the name")
    if functional == "PBE" and titles[0][0] != "PAW_PBE":
        raise ConfigError(f"{where}: {path} is {titles[0][0]} - expected PAW_PBE for functional PBE - check potcar_dir")
    return {"titel": " ".join(titles[0]), "sha256": hashlib.sha256(content).hexdigest()}


def _check_settings(reference: Reference) -> None:
    settings = reference.settings(VASP)
    tags = {tag for some in (settings.incar, *settings.incar_for.values()) for tag, value in some.items() if value}
    if not reference.includes_dispersion and (adding := sorted({"LUSE_VDW", "LVDW"} & tags)):
        raise ValueError(
            f"vasp.incar: {adding[0]} adds dispersion, and includes_dispersion is false - expected true, or d3 in its "
            "place"
        )
    named = {"GGA", "METAGGA", "LHFCALC", "LDAU"} & reference.settings(VASP).incar.keys()
    if (plain_functional(reference.functional) == "pbe") is bool(named):
        raise ValueError(
            f"functional {reference.functional} with {sorted(named) or 'no GGA or METAGGA'} in vasp.incar - expected "
            "PBE (GGA = PE by default), or the tag of another functional"
        )


def _problems(reference: Reference, _machine: Machine, where: str) -> list[str]:
    problems = []
    if not has_module("custodian", reference.python):
        problems.append(f"{where}: no custodian here - needed to run VASP - pip install custodian")
    return problems + problems_of(_checked, ((*one, reference.functional) for one in potcars(reference).items()))


ENGINE: Final = ReferenceEngine(
    ask=ask,
    identity=identity,
    needs=frozenset({"command"}),
    settings=VASP,
    movable=("potcar_dir", "max_corrections"),
    check_settings=_check_settings,
    problems=_problems,
    elements=lambda reference: frozenset(reference.settings(VASP).potcars),
)
