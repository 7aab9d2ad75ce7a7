"""VASP: a single point at one level of theory, run under custodian, one process group per job.

The files are written and the output is read in ``vasp_worker.py``; here stand the settings and what the labels depend
on. Nobody's POTCARs are shipped: they come from the user's own folder, and their checksums go into the fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Final

from activelearn.config import VASP, Reference
from activelearn.engines.jobs import run_job, words
from activelearn.engines.process import Slot, worker_command
from activelearn.errors import ConfigError, EngineError

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
#: How the work is spread over processes: no part of the level of theory.
_PARALLEL: Final = {"NCORE", "NPAR", "KPAR", "NSIM", "LPLANE", "LSCALAPACK", "LSCALU"}


def incar(reference: Reference) -> dict[str, Any]:
    """Return the INCAR of a reference: the defaults, IVDW for its D3, and the user's tags."""
    settings = _settings(reference)
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
    """Return the answer of one run to one job; see ``vasp_worker.py``."""
    settings = _settings(reference)
    command = words(reference)
    is_here = shutil.which(command[0], path=slot.environment.get("PATH")) is not None
    if not (is_here or slot.launcher):  # custodian's own message would drown it
        raise EngineError(
            f"{command[0]}: no such program - wanted it on the PATH - see: activelearn check", command=command
        )
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
            f"label.reference.vasp.potcars: none for {', '.join(lacking)} - wanted the POTCAR of every element - add it"
        )
    return run_job(worker_command("vasp_worker.py", reference.python), message, slot)


def identity(reference: Reference, _slot: Slot) -> dict[str, Any]:
    """Return version, POTCARs by checksum, and tags.

    Raises
    ------
    ConfigError
        A POTCAR is missing or is another element's.
    """
    settings = _settings(reference)
    sums = {element: _checked(element, path, reference.functional) for element, path in potcars(reference).items()}
    arguments = {
        "incar": {tag: value for tag, value in incar(reference).items() if tag not in _PARALLEL},
        "incar_for": settings.incar_for,
        "kpoints": settings.kpoints and list(settings.kpoints),
        "potcars": sums,
    }
    whole = hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()
    return {"version": settings.version, "weights_sha256": whole, "arguments": arguments, "d3_version": "IVDW = 11"}


def potcars(reference: Reference) -> dict[str, Path]:
    """Return the path of each element's POTCAR."""
    settings = _settings(reference)
    root = Path(settings.potcar_dir).expanduser()
    return {element: root / name / "POTCAR" for element, name in settings.potcars.items()}


def _checked(element: str, path: Path, functional: str) -> dict[str, str]:
    where = f"label.reference.vasp.potcars.{element}"
    if not path.is_file():
        raise ConfigError(
            f"{where}: no file {path} - wanted the POTCAR of {element} - check potcar_dir and the name (unpack it if "
            "it is compressed)"
        )
    content = path.read_bytes()
    titles = [line.split("=", 1)[1].split() for line in content.decode("latin-1").splitlines() if "TITEL" in line]
    if len(titles) != 1 or titles[0][1].split("_")[0] != element:
        found = ", ".join(" ".join(title) for title in titles) or "nobody"
        raise ConfigError(f"{where}: {path} is of {found} - wanted one of {element} - check the name")
    if functional == "PBE" and titles[0][0] != "PAW_PBE":
        raise ConfigError(f"{where}: {path} is {titles[0][0]} - wanted PAW_PBE for functional PBE - check potcar_dir")
    return {"titel": " ".join(titles[0]), "sha256": hashlib.sha256(content).hexdigest()}


def _settings(reference: Reference) -> VASP:
    assert reference.vasp is not None  # the config says so for engine vasp
    return reference.vasp
