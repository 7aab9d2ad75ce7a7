"""Labels without a virial: never zeros or NaN in its place, in no file and no training, and each time it is said."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ase.io import read
from campaigns import tiny
from conftest import rattled_copper

from activelearn import exchange, prediction, pressures
from activelearn.config import Campaign, TrainingRun, load_campaign
from activelearn.engines.trainers.deepmd import inputs, training
from activelearn.errors import ConfigError
from activelearn.frames import Frames, make_origin, npz_bytes, pack, unpack
from activelearn.store.files import publish_npz
from activelearn.store.journal import label_of
from activelearn.writing import write_deepmd, write_extxyz

DECLARED = exchange.declared("functional=PBE,includes_dispersion=false,code=VASP-6.4.2")


@pytest.fixture
def mixed(copper):
    """Three frames, of which the second has no virial."""
    virial = copper.virial.copy()
    virial[1] = np.nan
    return replace(copper, virial=virial, origin=make_origin(3, walk="a"))


def test_the_rule_holds_through_all_that_frames_do(mixed, tmp_path):
    assert mixed.has_virial.tolist() == [True, False, True]
    assert mixed[1].virial is None
    assert mixed[[0, 1]].has_virial.tolist() == [True, False]
    assert Frames.from_ase(mixed.to_ase()).has_virial.tolist() == [True, False, True]
    assert "stress" not in mixed.to_ase()[1].calc.results
    assert Frames.concatenate([mixed[1], mixed[1]]).virial is None
    (tmp_path / "a.npz").write_bytes(npz_bytes(pack([mixed, mixed[1]])))
    first, second = unpack(np.load(tmp_path / "a.npz"))
    assert first.virial.tobytes() == mixed.virial.tobytes(), "to the bit"
    assert second.virial is None
    assert np.isnan(label_of(mixed, 1).virial).all()
    assert label_of(mixed[1].without_labels(), 0) is None


def test_files_leave_out_what_is_not_there(mixed, tmp_path):
    with_virial, without = write_deepmd([mixed], tmp_path / "d", ["Cu"])
    assert np.array_equal(np.load(with_virial / "set.000" / "virial.npy").reshape(-1, 3, 3), mixed.virial[[0, 2]])
    assert len(np.load(without / "set.000" / "energy.npy")) == 1
    assert not list(without.rglob("virial*"))
    write_extxyz([mixed], tmp_path / "a.extxyz")
    assert ["stress" in image.calc.results for image in read(tmp_path / "a.extxyz", ":")] == [True, False, True]


@pytest.mark.parametrize("kind", ["npz", "extxyz", "deepmd"])
def test_they_come_in_and_go_out_and_come_in_again(mixed, tmp_path, kind):
    publish_npz(tmp_path / "a.npz", pack([mixed]), {})
    n, tally = exchange.import_labels(tmp_path / "one", [tmp_path / "a.npz"], DECLARED)
    assert n == 3
    (said,) = tally.sentences()
    assert said.startswith("1 label with no stress (first: ")
    assert said.endswith("part 0 frame 1): no virial is fitted for them")
    ledger = exchange.opened(tmp_path / "one")
    assert sorted(entry.has_virial for entry in ledger.entries()) == [False, True, True]
    to = tmp_path / {"npz": "b.npz", "extxyz": "b.extxyz", "deepmd": "b"}[kind]
    assert exchange.export_labels(ledger, to, DECLARED) == 3
    assert exchange.import_labels(tmp_path / "two", [to], DECLARED)[0] == 3
    again = exchange.opened(tmp_path / "two")
    assert sorted(entry.has_virial for entry in again.entries()) == [False, True, True]
    if kind == "npz":
        assert again.keys() == ledger.keys()
        assert [again.frame(e.key).virial is None for e in again.entries()] == [
            not e.has_virial for e in again.entries()
        ]


def test_zeros_that_stand_for_a_stress_are_left_out_and_said(copper, tmp_path):
    virial = copper.virial.copy()
    virial[[0, 2]] = 0.0
    write_extxyz([replace(copper, virial=virial)], tmp_path / "a.extxyz")
    n, tally = exchange.import_labels(tmp_path / "ledger", [tmp_path / "a.extxyz"], DECLARED)
    (said,) = tally.sentences()
    assert n == 3
    assert said.startswith("2 labels with zeros for a stress, but not for the forces (first: ")
    assert sorted(e.has_virial for e in exchange.opened(tmp_path / "ledger").entries()) == [False, False, True]


def test_a_virial_of_which_a_part_is_missing_is_no_label(copper, tmp_path):
    copper.virial[1, 0, 0] = np.nan
    publish_npz(tmp_path / "a.npz", pack([copper]), {})
    n, tally = exchange.import_labels(tmp_path / "ledger", [tmp_path / "a.npz"], DECLARED)
    assert (n, tally.counts) == (2, {"not finite": 1})


def test_errors_are_those_of_the_frames_that_have_one(mixed):
    predicted = replace(mixed, virial=np.nan_to_num(mixed.virial) + 0.02)
    found = prediction.errors([predicted], [mixed])
    assert found.virial_rmse_meV_per_atom == pytest.approx(5.0)
    assert prediction.errors([predicted], [replace(mixed, virial=None)]).virial_mae_meV_per_atom is None
    json.loads(found.model_dump_json())


def test_deepmd_leaves_them_out_of_the_loss(tmp_path, slot):
    """The virials of the frames that have one are wrong by 50 eV: a training sees it, and its curve stays readable."""
    parts = [rattled_copper(4, random_seed=3, repeat=(2, 2, 2))]
    parts[0].virial[:2] = np.nan
    campaign = load_campaign(tiny(tmp_path / "c.yaml", train__prefactors={"force": [1.0, 1.0], "virial": [1.0, 1.0]}))
    systems = [str(path) for path in write_deepmd(parts, tmp_path / "d", ["Cu"])]
    setting = inputs.training_input(
        campaign.train, TrainingRun(20, (1, 2, 3)), type_map=["Cu"], sel=((60,),), systems=systems
    )
    bound = inputs.loss_bound(campaign.train, parts)
    assert training.train_member(tmp_path, setting, slot, largest_loss=bound) is not None
    names, curve = training.learning_curve(tmp_path / inputs.CURVE)
    virials = curve[:, names.index("rmse_v_trn")]
    assert np.isnan(virials).any(), "rows of batches without"
    assert np.isfinite(virials).any(), "rows of batches with"
    assert np.isfinite(curve[:, names.index("rmse_trn")]).all()
    (found,) = training.evaluate(tmp_path, tmp_path / "frozen.pb", [parts[0].without_labels()], slot)
    assert found.has_virial.all()


# --- what is said -----------------------------------------------------------------------------------------------------


def toy(tmp_path, **changes) -> Campaign:
    return load_campaign(tiny(tmp_path / "c.yaml", **changes))


PRESSED = [{"name": "press", "ensemble": "npt-iso", "temperatures_K": [300], "pressures_bar": [0.0], "n_steps": 50}]


def test_a_stage_that_wants_pressures_is_named_with_the_share(tmp_path):
    pressed = toy(tmp_path, explore__stages=PRESSED)
    (line,) = pressures.notes(pressed, 1, 4, "labels of the ledger")
    assert line.startswith(
        "1 of 4 labels of the ledger (25 %) have no virial, and pressures are needed for stage press"
    )
    assert pressures.notes(pressed, 0, 4, "labels") == []
    (line,) = pressures.notes(toy(tmp_path), 1, 4, "labels")
    assert line == "1 of 4 labels (25 %) have no virial: the training fits no virial on them"


def test_prefactors_that_weigh_nothing_are_said(tmp_path):
    weighed = toy(tmp_path, train__prefactors={"virial": [0.02, 1.0]})
    (line,) = pressures.notes(weighed, 4, 4, "labels")
    assert line.endswith("train.prefactors.virial = [0.02, 1.0] has no effect")
    assert "has no effect" not in pressures.notes(weighed, 3, 4, "labels")[0]


def test_a_reference_without_stress_relaxes_no_cells_and_is_no_potential(tmp_path):
    stressless = {"label__reference__stress": False}
    (line,) = pressures.notes_of_reference(toy(tmp_path, **stressless))
    assert line.startswith("labels of label.reference have no virial (stress: false)")
    with pytest.raises(ConfigError, match=r"initial.relax.cell: true relaxes to zero stress.* - expected"):
        toy(tmp_path, initial__relax={"cell": True}, **stressless)
    ase = {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False, "stress": False}
    with pytest.raises(ConfigError, match=r"ase.stress: false - expected a potential with stress"):
        toy(tmp_path, potentials=[{"name": "emt", "ase": ase}])
