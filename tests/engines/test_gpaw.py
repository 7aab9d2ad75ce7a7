"""GPAW as a reference: its settings and k-points here, and two real labels where an interpreter with GPAW is found."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from activelearn import seeds
from activelearn.config import Machine, Reference
from activelearn.engines import process, reference
from activelearn.engines.process import Slot
from activelearn.engines.references import gpaw
from activelearn.errors import EngineError
from activelearn.frames import Frames

#: The interpreter of a venv with GPAW, or `gpaw` on the PATH.
PYTHON = os.environ.get("ACTIVELEARN_GPAW_PYTHON")
GPAW = shutil.which("gpaw", path=str(Path(PYTHON).parent) if PYTHON else None)
#: The MPI that GPAW was built with comes first: a venv with deepmd-kit has a different one.
MPIEXEC = os.environ.get("ACTIVELEARN_GPAW_MPIEXEC", "mpiexec -n 2")
needs_gpaw = pytest.mark.skipif(
    GPAW is None, reason="no GPAW: set ACTIVELEARN_GPAW_PYTHON to the python of its venv (params/label/gpaw_pbe.yaml)"
)


def gpaw_reference(command=f"{MPIEXEC} {GPAW} python", **settings):
    return Reference(engine="gpaw", command=command, functional="PBE", includes_dispersion=False, gpaw=settings)


@pytest.fixture
def slot(tmp_path, monkeypatch):
    process.allow_engines()
    for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):  # a container runs as root
        monkeypatch.setenv(name, "1")
    return Slot(Machine(name="test"), tmp_path / "logs")


def na3ps4() -> Frames:
    """Two 16-atom cells of tetragonal Na3PS4: a rattled one, and the same a little further along a random direction."""
    rng = np.random.default_rng(1)
    crystal = Frames.from_ase([seeds.load_structure("Na3PS4_P-421c", Path())])
    first = crystal.positions + rng.normal(0.0, 0.05, crystal.positions.shape)
    second = first + rng.normal(0.0, 0.01, first.shape)
    return Frames(crystal.symbols, np.repeat(crystal.cell, 2, axis=0), np.concatenate([first, second]))


def test_the_fingerprint_has_not_changed(slot, monkeypatch):
    """A ledger of before the engines had a module each is as good as ever."""
    told = {"version": "24.6.0", "weights_sha256": "0" * 64, "d3_version": None}
    monkeypatch.setattr(gpaw, "ask", lambda *_, **__: told)
    found = reference.fingerprint(gpaw_reference(kpts=(2, 1, 1), ecut_eV=520.0), slot)
    assert found["sha256"] == "fdc5c1026177ed215a9ab6fc9d5b93e8c2f30326ae623579e7cb21a97ed86625"


@pytest.mark.slow
@pytest.mark.needs_gpaw
@needs_gpaw
@pytest.mark.timeout(1200)
def test_two_real_labels_agree_on_energy_and_forces(slot):
    """The trapezoid of the forces along the way is the difference of the free energies (error: third order)."""
    frames = na3ps4()
    a, b = (reference.label(gpaw_reference(), frames[k], slot) for k in range(2))
    for label in (a, b):
        assert label.refused is None
        print(f"GPAW: {label.finished - label.started:.0f} s, {label.energy:.6f} eV")
        assert np.linalg.norm(label.forces.sum(axis=0)) / frames.n_atoms < 0.01
    step = frames.positions[1] - frames.positions[0]
    work = -float((step * (a.forces + b.forces)).sum()) / 2.0
    assert abs(b.energy - a.energy) > 0.01
    assert b.energy - a.energy == pytest.approx(work, abs=2e-4)


@pytest.mark.needs_gpaw
@needs_gpaw
def test_an_scf_that_does_not_converge_is_refused_never_a_label(slot):
    label = reference.label(gpaw_reference(max_scf_steps=2, kpts=(2, 1, 1), ecut_eV=200.0), na3ps4()[0], slot)
    assert "ConvergenceError" in label.refused
    assert np.isnan(label.energy)


@pytest.mark.needs_gpaw
@needs_gpaw
def test_the_fingerprint_knows_version_data_sets_and_settings_but_not_the_ranks(slot):
    found = [
        reference.fingerprint(gpaw_reference(command=f"{mpiexec} {GPAW} python", **settings), slot)
        for mpiexec, settings in ((MPIEXEC, {}), (MPIEXEC.replace("2", "1"), {}), (MPIEXEC, {"ecut_eV": 500.0}))
    ]
    assert found[0] == found[1]
    assert found[0]["sha256"] != found[2]["sha256"]
    assert len(found[0]["weights_sha256"]) == 64
    assert "bin" not in str(found[0])


def test_a_missing_mpiexec_is_an_engine_error(slot):
    with pytest.raises(EngineError, match="no-such-mpiexec: no such program"):
        reference.label(gpaw_reference(command="no-such-mpiexec -n 2 gpaw python"), na3ps4()[0], slot)


def test_a_worker_that_ends_without_a_result_is_an_engine_error(slot):
    with pytest.raises(EngineError, match="ended without a result"):
        reference.label(gpaw_reference(command="false"), na3ps4()[0], slot)
