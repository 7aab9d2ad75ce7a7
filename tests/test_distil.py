"""A teacher: what it may be, which of its labels count, what they are called, and a whole campaign with one."""

import json

import numpy as np
import pytest
import yaml
from campaigns import cli, in_process, machine_file, tiny
from conftest import rattled_copper
from lives import kill_group, n_done, start, wait_until

from activelearn import distil, exchange, loop, taught
from activelearn.config import Machine, load_campaign
from activelearn.engines.reference import may_be
from activelearn.errors import ConfigError
from activelearn.frames import Frames
from activelearn.records import Ensemble, Member
from activelearn.store import Store
from activelearn.store.files import publish_json
from activelearn.taught import Taught, identity_of

#: What labels: a sibling of the foundation, trained on the same data.
SIBLING = {
    "calculator": "sevenn.calculator:SevenNetCalculator",
    "arguments": {"model": "7net-0_22may2024", "device": "cpu"},
    "package": "sevenn",
    "functional": "PBE",
    "includes_dispersion": False,
    "precision": "float32",
}
TEACHER = {
    "train": {"trainer": "sevennet", "n_members": 2, "n_steps": 6, "batch_size": 2},
    "max_devi_f": 0.05,
    "n_walks": 1,
    "md": {"n_steps": 20, "every": 5, "timestep_fs": 2.0, "temperatures_K": [300, 600]},
}
#: Four atoms of copper, so that a step of MD takes 30 ms.
SMALL = {
    "systems": [{"seed": "Cu_Fm-3m", "supercell": [1, 1, 1]}],
    "min_height_A": 3.0,
    "scales": [1.0],
    "perturb": {"positions_A": 0.05, "cell_fraction": 0.01},
    "copies": 4,
    "md": {"n_steps": 10, "every": 5, "timestep_fs": 4.0, "temperatures_K": [300], "friction_per_ps": 10.0},
    "held_out_fraction": 0.25,
}


def labelled(forces, energy=0.0, virial=None):
    """Return frames with these forces (n_frames, n_atoms, 3)."""
    forces = np.array(forces, dtype=float)
    n, atoms, _ = forces.shape
    bare = Frames(("Cu",) * atoms, np.tile(np.eye(3) * 9.0, (n, 1, 1)), np.zeros((n, atoms, 3)))
    return bare.with_labels(np.full(n, energy), forces, virial)


def told(**more):
    """Return what a teacher has labelled."""
    given = {"iteration": 0, "identity": {"calculator": "teacher", "sha256": "t"}, "walks": (), "max_devi_f": 0.3}
    given |= {"evaluated": 10, "labelled": 8, "refused": {}, "sha256": "s", "held_out": None, "calibration": ()}
    return Taught(**(given | more))


# --- what may be asked ------------------------------------------------------------------------------------------------


def test_a_campaign_without_a_teacher_keeps_its_checksum_and_one_with_a_teacher_is_read_back(tmp_path):
    without = load_campaign(tiny(tmp_path / "a.yaml"))
    assert "teacher" not in without.model_dump(mode="json")
    assert "teacher" not in without.to_yaml()
    preset = {**TEACHER, "train": {"preset": "sevennet_finetune", "n_steps": 7}}
    campaign = load_campaign(tiny(tmp_path / "b.yaml", teacher=preset))
    assert (campaign.teacher.train.n_steps, campaign.teacher.train.n_members) == (7, 4)
    assert campaign.teacher.n_frames == 1 * 2 * 4
    (tmp_path / "again.yaml").write_text(campaign.to_yaml())
    assert load_campaign(tmp_path / "again.yaml") == campaign
    assert campaign.of_teacher.train == campaign.teacher.train
    assert campaign.of_teacher.teacher is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"teacher": TEACHER}, None),
        ({"teacher": {**TEACHER, "md": {"driver": "self"}}}, "md.driver: the first member of the teacher drives its"),
        ({"teacher": {**TEACHER, "md": {"temperatures_K": [300, 300]}}}, "md.temperatures_K needs different numbers"),
        ({"teacher": {**TEACHER, "md": {"n_steps": 5, "every": 9}}}, "md.every = 9 of n_steps = 5 steps - expected a"),
        ({"teacher": {**TEACHER, "walks": 3}}, "teacher.walks"),
        ({"teacher": {"max_devi_f": 0.2}}, "teacher.train"),
        ({"teacher": {**TEACHER, "train": {"trainer": "nobody"}}}, "teacher.train"),
        ({"teacher": {**TEACHER, "train": {"preset": "nothing"}}}, "train.preset: unknown preset 'nothing'"),
        ({"teacher": {**TEACHER, "train": {**TEACHER["train"], "foundation": "7net-1"}}}, "train.foundation: 7net-1"),
        ({"teacher": {**TEACHER, "train": {"n_steps": 9}}}, "teacher.train.trainer: models of deepmd hold a fixed"),
        ({"teacher": TEACHER, "initial__held_out_fraction": 0.0}, "teacher: there will be no held-out frames"),
        ({"teacher": TEACHER, "type_map": ["Cu", "Po"]}, "teacher.train.foundation: 7net-0 does not know Po"),
    ],
)  # fmt: skip
def test_check_says_what_a_teacher_cannot_be(tmp_path, more, said):
    campaign = tiny(tmp_path / "c.yaml", **more)
    done = in_process(
        "check", campaign, "--machine", machine_file(tmp_path / "m.yaml"), "--folder", tmp_path / "c", "--plan"
    )
    if said is None:
        assert done.returncode == 0, done.stderr
        assert "teacher: 2 members by sevennet, trained on these labels for 6 steps; it labels up to 8" in done.stdout
        assert "teach" in done.stdout
        assert "distil" in done.stdout
    else:
        assert done.returncode == 2
        assert said in done.stderr


def test_a_teacher_is_fixed_once_its_campaign_has_begun(tmp_path):
    campaign = load_campaign(tiny(tmp_path / "a.yaml", teacher=TEACHER))
    store = Store.create(tmp_path / "c", campaign)
    store.open_iteration(0, campaign)
    for other in ({**TEACHER, "max_devi_f": 0.1}, None):
        changed = load_campaign(tiny(tmp_path / "b.yaml", **({"teacher": other} if other else {})))
        with pytest.raises(ConfigError, match="teacher"):
            loop.changed(store, changed)


def test_a_teacher_comes_between_the_first_labels_and_the_first_models_and_never_again(tmp_path):
    for teacher in (None, TEACHER):
        name = "without" if teacher is None else "with"
        campaign = load_campaign(tiny(tmp_path / f"{name}.yaml", **({} if teacher is None else {"teacher": teacher})))
        store = Store.create(tmp_path / name, campaign)
        extra = [] if teacher is None else ["teach", "distil"]
        first = ["prepare", "initial", "label", *extra, "train"]
        assert [station.name for station in loop.next_phase(store).stations] == first
        store.open_iteration(0, campaign)
        assert [station.name for station in loop.phase_of(store, 0).stations] == first
        assert {"teach", "distil"} <= loop.STATIONS.keys()


def test_it_works_where_models_are_trained_and_walks_are_made():
    places = {"gpu": {"slots": 2}, "cpu": {"slots": 7}}
    stations = {"train": "gpu", "explore": "cpu", "label": "cpu"}
    machine = Machine.model_validate({"places": places, "stations": stations, "chunks": {"train": 3, "explore": 5}})
    assert [machine.at(name).n_slots for name in ("teach", "distil")] == [2, 7]
    assert [machine.n_chunks(name) for name in ("teach", "distil")] == [3, 5]
    assert [machine.category(name) for name in ("teach", "distil")] == ["gpu", "cpu"]
    assert [Machine().category(name) for name in ("teach", "distil")] == ["train", "explore"]


# --- which labels count -----------------------------------------------------------------------------------------------


def test_the_label_of_a_committee_is_the_mean_and_its_deviation_that_of_the_worst_atom():
    one = labelled([[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]]], energy=1.0)
    two = labelled([[[3.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.0, 2.0, 0.5]]], energy=2.0)
    (mean,), (deviation,) = distil.committee([[one], [two]])
    assert mean.forces[:, :, 0].tolist() == [[2.0, 0.0], [0.0, 0.0]]
    assert mean.energy.tolist() == [1.5, 1.5]
    assert mean.virial is None
    assert deviation == pytest.approx([1.0, 0.25])
    virials = [np.full((2, 3, 3), value) for value in (1.0, 4.0)]
    (mean,), _ = distil.committee(
        [[labelled(one.forces, virial=virials[0])], [labelled(two.forces, virial=virials[1])]]
    )
    assert (mean.virial == 2.5).all()


def test_a_label_counts_below_the_bound_with_room_and_if_the_reference_might_have_given_it(tmp_path):
    campaign = load_campaign(tiny(tmp_path / "c.yaml", teacher=TEACHER, label__max_force=9.0))
    store = Store.create(tmp_path / "c", campaign)
    publish_json(store.iteration_folder(0) / "sel.json", [60])
    frame = rattled_copper(1)
    part = Frames.concatenate([frame] * 6).with_labels(np.zeros(6), np.zeros((6, frame.n_atoms, 3)), None)
    part.forces[4, :2, 0] = 10.0, -10.0
    part.forces[5, 0, 0] = np.inf
    deviation = np.array([0.0, 0.0499, 0.05, np.nan, 0.0, 0.0])
    good, refused = distil._acceptable(part, deviation, campaign, store)
    assert good.origin["max_devi_f"] == pytest.approx([0.0, 0.0499])
    assert refused == {"force deviation at or above 0.05 eV/Å": 2, "force above 9 eV/Å": 1, "not finite": 1}
    (store.iteration_folder(0) / "sel.json").unlink()
    publish_json(store.iteration_folder(0) / "sel.json", [3])
    crowded, refused = distil._acceptable(part, deviation, campaign, Store(store.folder))
    assert len(crowded) == 0
    assert sum(refused.values()) == 6


@pytest.mark.parametrize(("n", "bound"), [(0, None), (8, None), (9, 0.9), (19, 1.8), (100, 9.1)])
def test_the_bound_on_the_error_is_the_conformal_quantile_of_the_trusted_frames(n, bound):
    pairs = [(0.1, 0.1 * (k + 1)) for k in range(n)] + [(0.3, 99.0), (float("nan"), 99.0)]
    found = told(calibration=tuple(pairs))
    assert len(found.trusted) == n
    assert found.error_bound == (None if bound is None else pytest.approx(bound))


# --- what they are called ---------------------------------------------------------------------------------------------


def teacher_of(*weights):
    members = [Member(index=k, random_seed=k, model="m", sha256=sha, n_steps=1) for k, sha in enumerate(weights)]
    return Ensemble(iteration=0, trained_in=0, type_map=("Cu",), members=members, versions={"sevenn": "0.13.0"})


def test_the_label_of_a_teacher_is_never_taken_for_one_of_the_reference(tmp_path):
    campaign = load_campaign(tiny(tmp_path / "c.yaml", teacher=TEACHER, label__reference=SIBLING))
    reference = {"sha256": "ab" * 32, "functional": "PBE", "includes_dispersion": False}
    found = identity_of(reference, campaign, teacher_of("a", "b"))
    assert not may_be(campaign.label.reference, found)
    assert found["teacher_of"] == reference["sha256"] != found["sha256"]
    assert exchange.name_of(found).startswith("teacher (sevennet, mean of 2 members)")
    assert exchange.name_of(found).endswith("(PBE by a teacher)")
    others = [
        identity_of(reference, campaign, teacher_of("a", "c")),
        identity_of({**reference, "sha256": "cd" * 32}, campaign, teacher_of("a", "b")),
    ]
    assert len({one["sha256"] for one in (found, *others)}) == 3


# --- a whole campaign -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    """A campaign with a teacher, killed while it is taught and while it labels; its folder and the last output."""
    place = tmp_path_factory.mktemp("distilled")
    campaign = tiny(
        place / "c.yaml",
        name="distilled",
        teacher=TEACHER,
        initial=SMALL,
        label__reference=SIBLING,
        stop__max_iterations=1,
    )
    machine = machine_file(place / "m.yaml", slots=1)
    store = Store(place / "c")
    for station in ("teach", "distil"):
        running = start(campaign, store.folder, "--machine", machine)
        wait_until(lambda name=station: n_done(store, name, 0) >= 1, running, timeout_s=900.0, what=station)
        kill_group(running)
        assert not store.is_sealed(station, 0), "in the midst of it"
    done = cli("run", campaign, "--machine", machine, "--folder", store.folder, cwd=place, timeout=1500)
    assert done.returncode == 3, done.stdout + done.stderr
    return Store.open(store.folder), done.stdout


@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.timeout(3600)
class TestACampaignWithATeacher:
    def test_three_errors_are_told_in_the_end_in_status_on_the_page_and_in_the_card(self, distilled, tmp_path):
        store, said = distilled
        lines = taught.said(store)
        assert lines[0].startswith("teacher (sevennet, mean of 2 members): labelled ")
        names = ("teacher against reference", "student against teacher", "student against reference")
        assert all(name in lines[1] for name in names)
        assert all(line in said for line in lines)
        status = cli("status", store.folder, "--json", cwd=tmp_path)
        state = json.loads(status.stdout)["teacher"]
        assert state["said"] == lines
        assert all(state[name.replace(" ", "_")]["force_rmse"] > 0.0 for name in names)
        assert state["teacher_against_reference"]["n_frames"] == sum(len(part) for part in store.held_out(0))
        cli("report", store.folder, cwd=tmp_path)
        assert "student against teacher" in (store.folder / "report.html").read_text()
        assert cli("export", store.folder, "--to", tmp_path / "m", cwd=tmp_path).returncode == 0
        assert lines[0] in (tmp_path / "m" / "model_card.md").read_text()

    def test_its_labels_stand_in_the_ledger_as_its_own_and_in_no_data_set(self, distilled, tmp_path):
        store, _ = distilled
        found = taught.find(store)
        assert 0 < found.labelled <= found.evaluated == 8
        assert found.labelled + sum(found.refused.values()) == found.evaluated
        listed = json.loads(cli("labels", "list", store.folder, "--json", cwd=tmp_path).stdout)
        by = {row["reference"]: row["labels"] for row in listed["labels"]}
        assert by[found.identity["sha256"]] == found.labelled
        assert by.keys() == {found.identity["sha256"], store.fingerprint(0)["sha256"]}
        keys = {part.structure_key(k, "") for part in store.dataset(1) for k in range(len(part))}
        own = store.frames(store.taught_file(0))
        assert not keys & {part.structure_key(k, "") for part in own for k in range(len(part))}
        mixed = cli("labels", "export", store.folder, "--to", tmp_path / "all.extxyz", cwd=tmp_path)
        assert mixed.returncode == 2
        assert not (tmp_path / "all.extxyz").exists()

    def test_it_is_whole_and_the_students_have_learnt_from_both(self, distilled, tmp_path):
        store, _ = distilled
        verified = cli("status", store.folder, "--verify", cwd=tmp_path)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        campaign = store.campaign(0)
        parts, sha256 = taught.learnt_beside(campaign, store), taught.sha256_beside(campaign, store)
        assert sum(len(part) for part in parts) == taught.find(store).labelled
        assert sha256 == taught.find(store).sha256
        for record in store.iterations():
            assert all(member.against_teacher is not None for member in record.ensemble.members)

    def test_another_campaign_takes_the_labels_of_the_reference_alone(self, distilled, tmp_path):
        store, _ = distilled
        data = yaml.safe_load((store.folder.parent / "c.yaml").read_text())
        data["label"]["ledger"] = str(store.folder / "labels")
        data["initial"]["from_ledger"] = True
        (tmp_path / "next.yaml").write_text(yaml.safe_dump(data))
        done = cli("check", tmp_path / "next.yaml", "--folder", tmp_path / "next", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        n = sum(len(part) for part in store.dataset(1)) + sum(len(part) for part in store.held_out(0))
        assert f"{n} of PBE (" in done.stdout
