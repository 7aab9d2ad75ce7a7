"""Trainings that learnt nothing or were cut short, and final models that are worse than those of the loop."""

import re
import shutil

import numpy as np
import pytest
from campaigns import SMALL, beside, cli, end_sessions, machine_file, run_plain, tiny

from activelearn import ending, export, final_models, learning, loop, prediction, show, status, study
from activelearn.config import Machine
from activelearn.engines import process
from activelearn.records import Ensemble, Errors, Member
from activelearn.store import Store
from activelearn.store.files import file_sha256

COLUMNS = ["step", "rmse_trn", "rmse_e_trn", "rmse_f_trn", "lr"]
MACHINE = Machine(slots=2, **SMALL)


def curve(force_errors):
    """A learning curve of 100 steps, a row each second step."""
    rows = np.zeros((len(force_errors), len(COLUMNS)))
    rows[:, 0] = np.linspace(0, 100, len(force_errors))
    rows[:, 3] = force_errors
    return rows


def test_how_far_a_training_fell_by_hand():
    """Steps 10 to 30 lie at 0.6 (but for one bad batch), the second half at 0.2."""
    errors = np.full(51, 0.4)
    errors[5:16], errors[25:] = 0.6, 0.2
    errors[8] = 90.0
    assert learning.of_curve(COLUMNS, curve(errors)) == pytest.approx((3.0, 0.2))
    assert learning.of_curve(COLUMNS, curve(np.full(51, 0.3))) == pytest.approx((1.0, 0.3))


def test_what_a_curve_does_not_say_is_not_known():
    assert learning.of_curve(COLUMNS[:3], curve(np.ones(51))[:, :3]) == (None, None), "no force was trained"
    assert learning.of_curve(COLUMNS, curve([0.9, 0.7])) == (None, 0.7), "one step"


def test_the_rms_of_forces_is_about_zero(copper):
    assert prediction.force_rms([copper[:1], copper[1:]]) == pytest.approx(np.sqrt((copper.forces**2).mean()))
    assert prediction.force_rms([copper.without_labels()]) is None
    assert prediction.errors([copper], [copper]).force_rms_of_reference == prediction.force_rms([copper])


def errors(force_rmse, *, rms=1.0, p99=None, n_frames=3):
    return Errors(
        n_frames=n_frames, energy_rmse_meV_per_atom=1.0, energy_mae_meV_per_atom=1.0, force_rmse=force_rmse,
        force_mae=force_rmse, force_p99=p99, force_rms_of_reference=rms,
    )  # fmt: skip


def members(*force_rmse, fall=None, n_steps=60, p99=None, **more):
    return tuple(
        Member(
            index=k, random_seed=1, model=f"models/{k}.pb", sha256="0", n_steps=n_steps, force_fall=fall,
            held_out=errors(value, p99=value if p99 is None else p99, **more),
        )
        for k, value in enumerate(force_rmse)
    )  # fmt: skip


def ensemble(*force_rmse, **more):
    return Ensemble(iteration=4, trained_in=2, type_map=("Cu",), members=members(*force_rmse, **more))


def test_models_that_learnt_nothing_are_named_with_their_figures():
    (said,) = learning.problems_of(ensemble(0.2, 0.84, 0.9, rms=1.2))
    assert said.startswith("members 1, 2 of iteration 2 learnt nothing: ")
    assert "on the held-out frames is 0.70 to 0.75 of the RMS of the forces, 1.2 eV/Å" in said
    assert "raise train.n_steps (60)" in said
    assert learning.in_short(ensemble(0.2, 0.84, 0.9, rms=1.2)) == ["members 1, 2 learnt nothing"]
    (one,) = learning.problems_of(ensemble(0.2, 0.84, rms=1.2))
    assert one.startswith("member 1 of iteration 2 learnt nothing: its force RMSE on the held-out frames is 0.70 of")


@pytest.mark.parametrize(("force_rmse", "fall", "is_short"), [(0.5, 1.4, True), (0.5, 1.2, False), (0.2, 1.9, False)])
def test_a_training_is_cut_short_if_it_fell_for_long_and_came_to_little(force_rmse, fall, is_short):
    found = learning.problems_of(ensemble(force_rmse, force_rmse, fall=fall), steps="final.n_steps")
    assert [re.findall("was cut short|raise final.n_steps", line) for line in found] == (
        [["was cut short", "raise final.n_steps"]] if is_short else []
    )


def test_without_held_out_frames_the_training_itself_is_judged():
    bare = members(0.1)[0].model_copy(update={"held_out": None})
    assert learning.unexplained(bare) is None
    known = bare.model_copy(update={"training_force_rmse": 0.9, "training_force_rms": 1.0})
    found = Ensemble(iteration=0, trained_in=0, type_map=("Cu",), members=(known,))
    assert "force RMSE on the training batches is 0.90 of the RMS" in learning.problems_of(found)[0]
    assert not learning.is_judged(found.model_copy(update={"members": (bare,)}))


def test_records_of_older_versions_have_no_problems():
    old = ensemble(0.9, rms=None)
    assert learning.problems_of(old) == []
    assert not learning.is_judged(old)


@pytest.mark.parametrize(
    ("final", "of_loop", "word", "is_worse"),
    [
        (members(0.30, 0.32), members(0.18, 0.19), "worse than", True),
        (members(0.15, 0.16), members(0.18, 0.19), "better than", False),
        (members(0.18, 0.22), members(0.18, 0.20), "about as good as", False),
        (members(0.18, 0.19, p99=2.0), members(0.18, 0.19, p99=1.0), "worse than", True),
        (members(0.15, 0.16, p99=2.0), members(0.18, 0.19, p99=1.0), "about as good as", False),
    ],
)
def test_two_ensembles_are_compared_by_more_than_their_spread(final, of_loop, word, is_worse):
    said, found = final_models.compared(final, of_loop, 3)
    assert f"final models (60 steps) are {word} those of iteration 3 (60 steps)" in said
    assert found is is_worse


def test_the_spread_is_that_between_members():
    said, _ = final_models.compared(members(0.30, 0.32), members(0.10, 0.20), 3)
    expected = np.sqrt((0.0002 + 0.005) / 2.0)  # of two members: half the square of their difference
    assert f"held-out force RMSE 0.310 against 0.150 (spread {expected:.3f})" in said


def test_what_cannot_be_compared_says_so():
    bare = tuple(member.model_copy(update={"held_out": None}) for member in members(0.3, 0.3))
    assert final_models.compared(bare, bare, 3) == (
        "final models (60 steps) and those of iteration 3 (60 steps) are not compared: no held-out frames",
        False,
    )
    said, is_worse = final_models.compared(members(0.9, 0.9, n_frames=4), members(0.1, 0.1), 3)
    assert "held-out frames have been added" in said
    assert not is_worse


# --- for real ---------------------------------------------------------------------------------------------------------


def run_on(store):
    """Continue a campaign by the plain loop in this process."""
    process.allow_engines()
    try:
        loop.run_campaign(store, MACHINE)
    finally:
        end_sessions()


@pytest.fixture(scope="module")
def unlearnt(tmp_path_factory):
    """A campaign whose models had one step, so that they agree on next to no force: (Store, End)."""
    folder = tmp_path_factory.mktemp("unlearnt")
    campaign = tiny(
        folder / "tiny.yaml",
        train__n_steps=1,
        select__f_lo=0.9,
        select__f_hi=1.0,
        select__audit_frames=3,
        stop__candidate_share=0.01,
        stop__max_iterations=4,
        final__compress=False,
    )
    return run_plain(folder / "campaign", campaign, MACHINE)


@pytest.mark.engines
class TestModelsThatLearntNothing:
    def test_they_do_not_converge_however_well_they_agree(self, unlearnt):
        store, end = unlearnt
        selection = store.iterations()[1].selection
        assert selection.counts.accurate == selection.counts.walked, "all is quiet"
        assert (selection.learnt_nothing, selection.is_converged) == (True, False)
        assert (end.converged, end.exit_code, end.iteration) == (False, 3, 1)
        assert selection.why.startswith(
            "not converged, though quiet, for members 0, 1 learnt nothing: 0.0 % candidates"
        )
        assert end.message.startswith(f"{selection.why}; members 0, 1 of iteration 0 learnt nothing: ")
        assert "raise train.n_steps (1)" in end.message
        assert ", and run again with --accept-changes; false-accept rate not known" in end.message
        assert end.message.count("held-out P99 of the force error ") == 1, "but for the warning"

    def test_no_label_is_paid_for_on_their_word(self, unlearnt):
        assert unlearnt[0].iterations()[1].labelling.labelled == 0, "not even an audit"

    def test_it_stands_in_the_line_of_the_iteration_in_status_and_on_the_card(self, unlearnt, tmp_path):
        store, _ = unlearnt
        assert "members 0, 1 learnt nothing" in show.iteration_line(store.iterations()[0])
        found = status.as_dict(store)
        assert "learnt nothing" in found["iterations"][0]["problems"][0]
        assert found["iterations"][1]["problems"] == [], "said once, where they were trained"
        assert found["converged"] is False
        export.export(store, tmp_path / "to")
        assert "- members 0, 1 of iteration 0 learnt nothing: " in (tmp_path / "to" / "model_card.md").read_text()

    def test_a_longer_training_is_tried_when_it_is_asked_for(self, unlearnt, tmp_path):
        store = Store(shutil.copytree(unlearnt[0].folder, tmp_path / "c"))
        settings = store.latest_campaign()
        store.accept(settings.model_copy(update={"train": settings.train.model_copy(update={"n_steps": 60})}))
        assert loop.verdict(store) is None
        step = loop.next_phase(store)
        assert (step.iteration, step.name) == (2, "loop")
        run_on(store)
        records = store.iterations()
        assert {member.n_steps for member in records[2].ensemble.members} == {60}
        assert records[2].ensemble.trained_in == 2
        assert learning.learnt_nothing(records[2].ensemble) == ()
        assert not records[3].selection.learnt_nothing, "the models of before are judged, not those of the end"


@pytest.fixture(scope="module")
def worse(tmp_path_factory):
    """A campaign whose final models had two steps: (Store, its YAML). Nobody may write into it."""
    folder = tmp_path_factory.mktemp("worse")
    campaign = tiny(folder / "tiny.yaml", stop__max_iterations=1, final__n_steps=2)
    return run_plain(folder / "campaign", campaign, MACHINE)[0], campaign


def sums_in(folder):
    return [file_sha256(folder / f"frozen-{k}.pb") for k in (0, 1)]


@pytest.mark.engines
class TestFinalModelsThatAreWorse:
    def test_those_of_the_loop_are_exported_and_why_is_said(self, worse, tmp_path):
        store, _ = worse
        explored = store.iterations()[-1].ensemble
        done = beside("export", store.folder, "--to", tmp_path / "to", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert sums_in(tmp_path / "to") == [member.sha256 for member in explored.members]
        assert (tmp_path / "to" / "compressed-1.pb").is_file(), "ready to be used, as any final model"
        card = (tmp_path / "to" / "model_card.md").read_text()
        line = "final models (2 steps) are worse than those of iteration 1 (60 steps): held-out force RMSE "
        for said in (card, done.stdout):
            assert line in said
            assert "the models of iteration 1 are kept - raise final.n_steps (2) and stop.max_iterations" in said
        figures = [float(text) for text in re.search(r"RMSE ([\d.]+) against ([\d.]+)", card).groups()]
        final = store.result("final", 1, Ensemble)
        assert figures == pytest.approx([final.force_rmse, explored.force_rmse], abs=6e-4)

    def test_status_and_the_end_of_a_run_say_it(self, worse, tmp_path):
        store, campaign = worse
        folder = shutil.copytree(store.folder, tmp_path / "c")
        machine = machine_file(tmp_path / "machine.yaml")
        done = cli("run", campaign, "--folder", folder, "--machine", machine, cwd=tmp_path)
        assert done.returncode == 3, done.stderr
        shown = beside("status", folder, cwd=tmp_path)
        for said in (done.stdout, shown.stdout):
            assert "final models (2 steps) are worse than those of iteration 1" in said
        found = status.as_dict(Store(folder))["final"]
        assert (found["kept"], found["is_worse"]) == ("loop", True)
        assert found["held_out"]["force_rmse"] == pytest.approx(store.iterations()[-1].ensemble.force_rmse)

    def test_told_otherwise_the_others_are_exported_and_nothing_is_trained(self, worse, tmp_path):
        store, _ = worse
        folder = shutil.copytree(store.folder, tmp_path / "c")
        trained = store.result("final", 1, Ensemble).members
        told = tiny(tmp_path / "told.yaml", stop__max_iterations=1, final={"n_steps": 2, "keep": "trained"})
        before = {path: path.stat().st_mtime_ns for path in (folder / "models").iterdir()}
        machine = machine_file(tmp_path / "machine.yaml")
        done = cli("run", told, "--folder", folder, "--machine", machine, "--accept-changes", cwd=tmp_path)
        assert done.returncode == 3, done.stderr
        assert "final.keep takes effect immediately" in done.stdout
        assert "the final models are kept nevertheless" in done.stdout
        assert {path: path.stat().st_mtime_ns for path in (folder / "models").iterdir()} == before
        export.export(Store(folder), tmp_path / "to")
        assert sums_in(tmp_path / "to") == [member.sha256 for member in trained]
        assert "are worse than those of iteration 1" in (tmp_path / "to" / "model_card.md").read_text()
        assert study.potential_of(Store(folder)).deepmd.sha256 == tuple(m.compressed_sha256 for m in trained)

    def test_glasses_are_made_of_those_that_are_kept(self, worse):
        store, _ = worse
        kept = final_models.chosen(store, 1)
        assert kept.is_of_loop
        assert study.potential_of(store).deepmd.sha256 == tuple(m.compressed_sha256 for m in kept.ensemble.members)

    def test_the_choice_does_not_reopen_a_campaign(self, worse):
        store, _ = worse
        settings = store.latest_campaign()
        told = settings.model_copy(update={"final": settings.final.model_copy(update={"keep": "trained"})})
        assert not ending._is_reopened(store, 1, told)

    def test_a_folder_of_an_older_version_keeps_what_it_trained(self, worse, tmp_path):
        """It has no second set, but the comparison is reported."""
        store = Store(shutil.copytree(worse[0].folder, tmp_path / "c"))
        final = store.result("final", 1, Ensemble)
        file = store.sealed("final", 1)
        file.unlink()
        store.seal("final", 1, final.model_copy(update={"of_loop": ()}))
        found = final_models.chosen(Store(store.folder), 1)
        assert found.ensemble.members == final.members
        assert (found.is_of_loop, found.is_worse) == (False, True)
        assert "the final models are kept nevertheless" in found.said[0]


@pytest.mark.engines
def test_the_figures_of_a_real_training_are_those_of_its_curve_and_its_data(undisturbed):
    """Sealed as gathered; without held-out frames the forces of the training data are what is compared with."""
    store = undisturbed[0]
    sealed = store.iterations()[1].ensemble.members
    tasks = store.plan("train", 1).tasks
    bare = [member.model_copy(update={"held_out": None}) for member in sealed]
    for member, task, found in zip(sealed, tasks, learning.with_curves(bare, tasks, store, "train", 1), strict=True):
        assert member.training_force_rms is None
        assert (found.force_fall, found.training_force_rmse) == (member.force_fall, member.training_force_rmse)
        rows = store.read_product("train", 1, task.id)[0]["learning_curve"]
        assert rows[:, 3].min() < found.training_force_rmse < rows[:, 3].max()
        assert found.training_force_rms == prediction.force_rms(store.dataset(1))
        assert learning.unexplained(found) == found.training_force_rmse / found.training_force_rms
        assert member.held_out.force_rms_of_reference == prediction.force_rms(store.held_out(1))


def test_one_member_that_learnt_nothing_is_one():
    (said,) = learning.problems_of(ensemble(0.2, 0.9))
    assert said.startswith("member 1 of iteration 2 learnt nothing: its force RMSE on the held-out frames is 0.90 of ")
