"""A run of DP-GEN 0.14.0 itself (tests/data/dpgen/ORIGIN.md): its classes, labels and ensemble, and on from there."""

import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import yaml
from ase.calculators.emt import EMT
from campaigns import TESTS, beside, in_process

from activelearn.check import check
from activelearn.config import Machine, load_campaign
from activelearn.exchange import dpgen
from activelearn.exchange.dpgen import reselection
from activelearn.select import FrameClass
from activelearn.store import Ledger, Store

RECORD = TESTS / "data" / "dpgen" / "copper.tar.xz"
HERE = Machine(name="test", slots=2, min_free_disk_GB=0.0)


@pytest.fixture(scope="module")
def run_of_dpgen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dpgen")
    with tarfile.open(RECORD) as archive:
        archive.extractall(folder, filter="data")
    return folder / "copper"


@pytest.fixture
def over(run_of_dpgen, tmp_path, monkeypatch):
    """The run, taken over as copper.yaml."""
    monkeypatch.chdir(tmp_path)
    done = in_process("import-dpgen", run_of_dpgen, "--to", "copper.yaml", "--reference", "emt", "--same")
    assert done.returncode == 0, done.stderr
    return tmp_path, done.stdout


def test_every_frame_has_the_class_that_dpgen_gave_it(run_of_dpgen):
    found, unread = reselection.reselected(dpgen.read_folder(run_of_dpgen))
    assert unread == []
    assert [(one.iteration, one.system) for one in found] == [(0, 0), (1, 0), (1, 1)]
    assert all(one.is_same for one in found), [str(one) for one in found]
    totals = {kind: sum(len(one.ours[kind]) for one in found) for kind in reselection.LISTS}
    assert totals == {FrameClass.ACCURATE: 11, FrameClass.CANDIDATE: 4, FrameClass.FAILED: 132}


def test_another_window_would_be_seen(run_of_dpgen, tmp_path):
    given = dpgen.read_folder(run_of_dpgen)
    moved = {**given.param, "model_devi_f_trust_hi": {"0": 0.2, "1": 0.3}}
    other = dpgen.DpgenFolder(given.folder, given.param_file, moved)
    assert not all(one.is_same for one in reselection.reselected(other)[0])


def test_its_labels_are_those_of_the_reference(over):
    folder, said = over
    assert "frames of 3 of 3 (iteration, system) are classified as by DP-GEN" in said
    ledger = Ledger(folder / "copper-dpgen" / "labels")
    ledger.refresh()
    (reference,) = ledger.references()
    parts = ledger.structures(reference)
    n_frames = {n: sum(len(part) for part in parts if part.n_atoms == n) for n in (4, 32)}
    assert n_frames == {4: 6, 32: 4}, "initial data, and a label for each candidate"
    for part in parts:
        for k, atoms in enumerate(part.without_labels().to_ase()):
            atoms.calc = EMT()
            assert atoms.get_potential_energy() == pytest.approx(part.label("energy")[k], abs=1.0e-6)
            np.testing.assert_allclose(atoms.get_forces(), part.label("forces")[k], atol=1.0e-6)


def test_the_campaign_has_its_windows_and_its_ensemble(over):
    folder, said = over
    campaign = load_campaign(folder / "copper.yaml")
    windows = [(s.name, *s.window((campaign.select.f_lo, campaign.select.f_hi))) for s in campaign.explore.stages]
    assert windows == [("job-00", 0.1, 0.15), ("job-01-a", 0.06, 0.08), ("job-01-b", 0.06, 0.07)]
    assert len(campaign.train.start_from) == campaign.train.n_members == 2
    assert "the first training starts from the weights of iter.000002 of DP-GEN" in said
    assert check(campaign, HERE, folder / "runs" / "copper").problems == []


@pytest.mark.engines
def test_it_goes_on(over):
    """The first training begins with DP-GEN's weights, on its labels, and the next iteration runs."""
    folder, _ = over
    path = folder / "copper.yaml"
    document = yaml.safe_load(path.read_text())
    document["train"] |= {"warm_n_steps": 50}
    document["stop"] |= {"max_iterations": 1}
    document["select"] |= {"max_frames": 4}
    path.write_text(yaml.safe_dump(document))
    done = beside("run", "copper.yaml", "--slots", "2", "--accept-unusual", cwd=folder)
    assert done.returncode in {0, 3}, done.stderr
    store = Store(folder / "runs" / "copper")
    first, second, *_ = store.iterations()
    assert first.labelling.labels_computed == 0
    assert {member.n_steps for member in first.ensemble.members} == {50}
    assert [task.parameters["warm"] for task in store.plan("train", 0).tasks] == [True, True]
    assert second.selection.counts.walked > 100


@pytest.mark.slow
def test_the_record_can_be_made_anew(tmp_path, pytestconfig):
    """With a virtual environment of DP-GEN in DPGEN_VENV."""
    venv = os.environ.get("DPGEN_VENV")
    if not venv:
        pytest.skip(
            "no DPGEN_VENV: python3 -m venv V && V/bin/pip install dpgen==0.14.0 'deepmd-kit[cpu,lmp]==3.2.0' ase"
        )
    script = RECORD.with_name("record.py")
    done = subprocess.run(
        [sys.executable, str(script), venv, str(tmp_path / "new.tar.xz")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(tmp_path / "new.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    assert all(one.is_same for one in reselection.reselected(dpgen.read_folder(tmp_path / "copper"))[0])
