"""GPAW: plane-wave density functional theory, one process group under mpiexec per job, in a venv of its own."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field, PositiveFloat, PositiveInt

from activelearn.config import Reference, ReferenceEngine, Section
from activelearn.config.bounds import of
from activelearn.config.labelling import plain_functional
from activelearn.config.section import Mesh
from activelearn.engines.jobs import run_job, words
from activelearn.engines.process import Slot, worker_command


class GPAW(Section):
    """Plane-wave density functional theory by GPAW: forces and stress of the free energy."""

    xc: str | None = Field(default=None, description="GPAW's name of the functional; null: `functional`.")
    ecut_eV: Annotated[PositiveFloat, of("plane-wave cutoff")] = Field(
        default=400.0, description="Plane-wave cutoff (eV)."
    )
    kspacing_per_A: Annotated[PositiveFloat, of("spacing of k-points")] = Field(
        default=0.5, description="Largest k-point spacing, including 2 pi (1/Å)."
    )
    kpts: Mesh | None = Field(default=None, description="The same mesh for all structures; null: by kspacing_per_A.")
    smearing_eV: Annotated[PositiveFloat, of("smearing")] = Field(
        default=0.05, description="Width of the Fermi-Dirac distribution (eV)."
    )
    convergence: dict[str, Annotated[PositiveFloat, of("convergence criterion")]] = Field(
        default={"energy": 1.0e-5, "density": 1.0e-5},
        description="GPAW's criteria: energy (eV per valence electron), density, eigenstates, forces.",
    )
    max_scf_steps: Annotated[PositiveInt, of("number of SCF steps")] = Field(
        default=200, description="A label whose SCF needs more steps is refused."
    )
    spin_polarized: bool = False


def ask(reference: Reference, job: str, slot: Slot, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return the answer of one run to one job; see ``workers/gpaw_job.py``."""
    worker = worker_command("gpaw_job.py", None)[-1]
    message = {"job": job, "d3": reference.d3 and reference.d3.model_dump(), **_settings(reference), **request}
    return run_job([*words(reference), worker], message, slot)


def identity(reference: Reference, slot: Slot) -> dict[str, Any]:
    """Return version of GPAW, sha256 of its PAW data sets, and settings; the number of ranks is the machine's."""
    return {**ask(reference, "describe", slot), "arguments": _settings(reference)["gpaw"]}


def _settings(reference: Reference) -> dict[str, Any]:
    settings = reference.settings(GPAW)
    return {"gpaw": {**settings.model_dump(mode="json"), "xc": settings.xc or reference.functional}}


def _check_settings(reference: Reference) -> None:
    xc = reference.settings(GPAW).xc or reference.functional
    if (
        plain_functional(xc) != plain_functional(reference.functional) and "+" not in xc
    ):  # GGA_X_...+GGA_C_...: libxc's own names
        raise ValueError(f"gpaw.xc {xc} but functional {reference.functional} - expected the same functional")


ENGINE: Final = ReferenceEngine(
    ask=ask, identity=identity, needs=frozenset({"command"}), settings=GPAW, check_settings=_check_settings
)
