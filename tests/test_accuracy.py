"""True force errors beside the verdict: measured, said in one wording, warned of, and demanded if a campaign asks."""

import json
from dataclasses import replace

import numpy as np
import pytest
from campaigns import SMALL, cli, run_plain, tiny
from hypothesis import given
from hypothesis import strategies as st
from test_capacity import labelling_of, seal_record, selection_of

from activelearn import loop, select, status
from activelearn.config import Machine, Select
from activelearn.records import Ensemble, Errors, Iteration, Member
from activelearn.select.accuracy import Accuracy, interval
from activelearn.show import status_table
from activelearn.store import Store
from activelearn.store.files import publish_json

# --- the interval -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.data())
def test_the_interval_is_that_of_scipy(n, data):
    from scipy.stats import binomtest

    k = data.draw(st.integers(0, n))
    theirs = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert interval(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0.0 <= interval(k, n)[0] <= k / n <= interval(k, n)[1] <= 1.0


def test_the_interval_of_none_is_everything():
    assert interval(0, 0) == (0.0, 1.0)
    assert interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.2, 0.5])
def test_the_interval_holds_the_true_share(share):
    """In 95 % of 5000 audits of 60 frames; Wilson's interval is known to lie between 91 and 99 % there."""
    found = np.random.default_rng(7).binomial(60, share, 5000)
    inside = np.mean([interval(int(k), 60)[0] <= share <= interval(int(k), 60)[1] for k in found])
    assert 0.91 < inside < 0.995


# --- what is measured -------------------------------------------------------------------------------------------------


def errors(p99):
    values = {"n_frames": 9, "energy_rmse_meV_per_atom": 1.0, "energy_mae_meV_per_atom": 1.0}
    return Errors(**values, force_rmse=0.03, force_mae=0.02, force_p99=p99)


def of_errors(*p99):
    model = {"random_seed": 1, "model": "m/0.pb", "sha256": "0", "n_steps": 1}
    members = tuple(Member(index=k, **model, held_out=None if p is None else errors(p)) for k, p in enumerate(p99))
    return Ensemble(iteration=0, trained_in=0, type_map=("Cu",), members=members)


def test_an_audit_by_a_narrower_window_is_an_audit_of_a_part():
    """Of frames below 0.1 alone: the frames from 0.1 to 0.12 that the last window accepts had no chance."""
    pairs = [(0.05, 0.9)]
    records = [record(0), record(1, calibration=pairs, f_lo=0.1), record(2, calibration=pairs, f_lo=0.12, n_pooled=2)]
    assert select.accuracy_of(records, Select()).n_audited == 1
    records = [record(0), record(1, calibration=pairs, f_lo=0.13), record(2, calibration=pairs, f_lo=0.12, n_pooled=2)]
    assert select.accuracy_of(records, Select()).n_audited == 2


def record(index, *, calibration=(), p99=(0.1, 0.3), **selection):
    """A closed iteration; `calibration`: (deviation, error) of what was labelled in it."""
    return Iteration(
        index=index,
        campaign_sha256="0",
        versions={},
        selection=selection_of(index, why="", is_converged=False, **selection) if selection or index else None,
        labelling=labelling_of(index, {}).model_copy(update={"calibration": tuple(calibration)}),
        ensemble=of_errors(*p99),
        seconds={},
        products={},
    )


def test_the_p99_is_the_mean_over_the_members_that_walked():
    """Those of the iteration before, and not those trained on what the pass found."""
    records = [record(0, p99=(0.1, 0.3)), record(1, p99=(0.7, 0.9))]
    assert select.accuracy_of(records, Select()).held_out_p99 == pytest.approx(0.2)
    assert of_errors(0.1, None).force_p99 == pytest.approx(0.1)
    assert of_errors(None, None).force_p99 is None
    assert of_errors().force_p99 is None
    assert select.accuracy_of(records[:1], Select()) is None, "no pass yet"
    sealed = [record(0), record(1, held_out_p99=0.25)]
    assert select.accuracy_of(sealed, Select()).held_out_p99 == 0.25


def test_audited_frames_of_one_ensemble_count_and_nothing_else():
    """Window 0.1 to 0.2: candidates and rescued frames are no audit, nor are the frames of the ensemble before."""
    first = [(0.05, 0.9)] * 5
    second = [(0.05, 0.9), (0.099, 0.5), (0.1, 0.9), (0.3, 4.0)]
    third = [(0.02, 0.51), (0.08, 0.1), (0.15, 0.9)]
    records = [record(0), record(1, calibration=first), record(2, calibration=second)]
    records.append(record(3, calibration=third, n_pooled=2))
    found = select.accuracy_of(records, Select(max_error=0.5))
    assert (found.n_audited, found.n_false) == (4, 2), "an error of just 0.5 is accepted"
    alone = select.accuracy_of([*records[:3], record(3, calibration=third)], Select(max_error=0.5))
    assert (alone.n_audited, alone.n_false) == (2, 1)


def test_a_pass_that_is_not_pooled_is_no_audit_either():
    """The walks of the second pass went nowhere: the verdict on the third is on the first and the third."""
    pairs = [(0.05, 0.9)]
    records = [
        record(0),
        record(1, calibration=[(0.05, 0.1)]),
        record(2, calibration=pairs, unexplored_stages=("warm",)),
    ]
    records.append(record(3, calibration=[(0.05, 0.2)], n_pooled=2))
    found = select.accuracy_of(records, Select())
    assert (found.n_audited, found.n_false) == (2, 0)


# --- what is said -----------------------------------------------------------------------------------------------------


def accuracy(p99=0.2, n_audited=60, n_false=1):
    return Accuracy(p99, n_audited, n_false, max_error=0.5, false_accept_rate=0.05, window=(0.15, 0.35))


def test_the_numbers_are_said_with_what_they_are_of():
    assert accuracy().said == (
        "held-out P99 of the force error 0.2 eV/Å; false-accept rate 1.7 % (95 % interval 0.3 to 8.9 %): 1 of 60 "
        "audited frames err by more than 0.5 eV/Å"
    )
    assert accuracy(p99=None, n_audited=0, n_false=0).said == (
        "held-out P99 of the force error not known; false-accept rate not known (select.audit_frames measures it)"
    )
    asked = replace(accuracy(n_audited=0, n_false=0), is_audited=True).false_accepts
    assert asked == "false-accept rate not known (no accurate frame has been labelled)"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (accuracy(), ()),
        (accuracy(p99=None, n_audited=0, n_false=0), ()),
        (accuracy(p99=0.349), ()),
        (accuracy(p99=0.35), ("P99 of the force error, 0.35 eV/Å, is not below f_hi = 0.35 eV/Å",)),
        (accuracy(n_false=5), ()),  # 8.3 %, but 3.6 % is possible
        (accuracy(n_false=9), ("at least 8.1 % of the frames below f_lo = 0.15 eV/Å err by more than 0.5 eV/Å",)),
        (accuracy(p99=1.5, n_false=60), ("P99", "at least 94.0 %")),
    ],
)
def test_it_warns_where_they_contradict_the_window(found, words):
    assert len(found.warnings) == len(words)
    for warning, word in zip(found.warnings, words, strict=True):
        assert warning.startswith("WARNING: ")
        assert word in warning


@pytest.fixture
def ended(tmp_path, campaign):
    """Return a function that makes a campaign folder which has ended with a pass of `is_converged`."""

    def made(*, is_converged, p99=0.6, calibration=()):
        store = Store.create(tmp_path / "c", campaign)
        index = 1 if is_converged else campaign.stop.max_iterations
        for i in range(index):
            seal_record(store, i, labelling_of(i, {}))
        walked = selection_of(index, is_converged=is_converged, why="converged: 0.3 % candidates")
        learnt = labelling_of(index, {}).model_copy(update={"calibration": calibration})
        seal_record(store, index, learnt, selection=walked)
        for i in range(index + 1):
            sealed = json.loads(store.iteration_file(i).read_text())
            store.iteration_file(i).unlink()
            publish_json(store.iteration_file(i), sealed | {"ensemble": of_errors(p99).model_dump(mode="json")})
        return store

    return made


def test_the_end_says_them_once_and_status_too(ended, capsys):
    """A folder of an earlier version: its verdict stands as it was sealed, and the P99 is added to it."""
    store = ended(is_converged=True, calibration=((0.05, 0.2), (0.05, 0.7)))
    end = loop.verdict(store)
    assert (end.converged, end.exit_code) == (True, 0)
    assert end.message.startswith("converged: 0.3 % candidates; held-out P99 of the force error 0.6 eV/Å; false-accept")
    assert "1 of 2 audited frames err by more than 0.5 eV/Å; WARNING: the held-out P99" in end.message
    found = status.as_dict(store)
    assert found["message"] == end.message
    assert found["accuracy"]["said"] in end.message
    assert (found["accuracy"]["audited"], found["accuracy"]["false_accepts"]) == (2, 1)
    json.dumps(found)
    status_table(found)
    printed = capsys.readouterr().out
    assert printed.count(found["accuracy"]["said"]) == 1
    assert printed.count(found["accuracy"]["warnings"][0]) == 1


def test_a_campaign_that_is_not_converged_says_them_too(ended):
    store = ended(is_converged=False, p99=0.1)
    message = loop.verdict(store).message
    assert message.startswith("not converged after 6 iterations")
    assert message.endswith(
        "; held-out P99 of the force error 0.1 eV/Å; false-accept rate not known (select.audit_frames measures it)"
    )


# --- a real campaign that demands more --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demanding(tmp_path_factory):
    """A campaign whose window calls everything accurate, and whose P99 no model reaches: (YAML, Store, End)."""
    folder = tmp_path_factory.mktemp("demanding")
    campaign = tiny(
        folder / "tiny.yaml",
        select={"f_lo": 8.0, "f_hi": 9.0, "rescue": {"max_devi_f": 10.0}},
        stop__candidate_share=0.01,
        stop__max_iterations=5,
        stop__max_force_error_p99=1e-6,
        final__compress=False,
    )
    return campaign, *run_plain(folder / "campaign", campaign, Machine(slots=2, **SMALL))


@pytest.mark.engines
def test_a_quiet_pass_with_too_large_an_error_ends_when_there_is_nothing_to_learn(demanding):
    _, store, end = demanding
    assert (end.converged, end.exit_code, end.iteration) == (False, 3, 1), "at once, and not after five passes"
    selection = store.iterations()[1].selection
    assert selection.is_inaccurate
    assert not selection.is_converged
    assert selection.counts.accurate == selection.counts.walked > 0
    p99 = np.mean([member.held_out.force_p99 for member in store.iterations()[0].ensemble.members])
    assert selection.held_out_p99 == pytest.approx(p99)
    assert end.message.startswith(
        "not converged: the held-out P99 of the force error is above stop.max_force_error_p99"
    )
    for word in ("1e-06 eV/Å", "finds nothing to label", "train.n_steps", f"{p99:.3g} eV/Å", "--accept-changes"):
        assert word in end.message


@pytest.mark.engines
def test_what_the_end_advises_helps(demanding, tmp_path):
    """Longer training with nothing new to learn; then a bound that the models meet."""
    _, store, _ = demanding
    folder, machine = store.folder, tmp_path / "machine.yaml"
    machine.write_text(json.dumps({**SMALL, "slots": 2}))
    place = ("--folder", folder, "--machine", machine, "--accept-changes", "--accept-unusual")
    shared = {
        "select": {"f_lo": 8.0, "f_hi": 9.0, "rescue": {"max_devi_f": 10.0}},
        "stop__candidate_share": 0.01,
        "final__compress": False,
    }
    longer = tiny(
        tmp_path / "longer.yaml", **shared, train__n_steps=90, stop__max_iterations=2, stop__max_force_error_p99=1e-6
    )
    done = cli("run", longer, *place, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "held back by the held-out force error (stop.max_force_error_p99: 1e-06 eV/Å)" in done.stdout
    found = Store(folder).iterations()[2]
    assert (found.ensemble.trained_in, found.labelling.labelled) == (2, 0)
    assert {member.n_steps for member in found.ensemble.members} == {90}
    assert found.selection.n_pooled == 2, "the same ensemble walked again"
    assert found.selection.judged.walks == 2 * found.selection.counts.walks
    met = tiny(
        tmp_path / "met.yaml", **shared, train__n_steps=90, stop__max_iterations=3, stop__max_force_error_p99=10.0
    )
    done = cli("run", met, *place, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "converged: 0.0 % candidates, 0.0 % failed of 44 frames from 4 walks; held-out P99" in done.stdout
