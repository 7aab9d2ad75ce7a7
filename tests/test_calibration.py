"""Calibration: the true error of a force against its deviation, the window that follows, and what status says of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activelearn import export, label, select, study
from activelearn.config import Select
from activelearn.frames import FrameLabel, make_origin
from activelearn.records import Ensemble, Labelling, Member
from activelearn.select import FrameClass
from activelearn.select.calibration import LAST_LABELLED, MIN_PAIRS, fit, force_error, last_pairs
from activelearn.store.files import publish_json
from activelearn.store.references import identity_sha256

CALIBRATED = Select(window="calibrated")


def drawn(n, ratio=2.0, sigma=0.0, random_seed=0):
    """Pairs whose error is `ratio` times the deviation, with lognormal noise."""
    rng = np.random.default_rng(random_seed)
    deviation = rng.uniform(0.05, 0.5, n)
    return list(zip(deviation, deviation * ratio * np.exp(sigma * rng.normal(size=n)), strict=True))


def labelled(store, iteration, calibration):
    record = Labelling(
        iteration=iteration, labelled=0, held_out=0, refused={}, dataset_frames=0, dataset_sha256="0",
        labels_computed=0, labels_adopted=0, labels_reused=0, calibration=tuple(calibration),
    )  # fmt: skip
    store.seal("label", iteration, record)


# --- the error --------------------------------------------------------------------------------------------------------


def test_the_error_of_a_frame_is_the_longest_error_vector():
    model, reference = np.zeros((2, 2, 3, 3))
    model[0, 1] = [3.0, 4.0, 0.0]
    reference[1, 2] = [0.0, 0.0, -0.25]
    reference[1, 0] = [0.1, 0.1, 0.1]
    assert force_error(model, reference) == pytest.approx([5.0, 0.25])
    found = select.pairs(np.array([0.123456, 0.2]), model.astype(np.float32), reference)
    assert found == ((0.1235, 5.0), (0.2, 0.25))
    assert select.pairs(np.empty(0), model[:0], reference[:0]) == ()


def test_the_pairs_of_an_iteration_are_in_its_record(store, campaign, copper):
    """Three walks' frames, one of them refused, one adopted from reference MD: pairs of what a model drove alone."""
    publish_json(store.iteration_folder(1) / "reference.json", {"sha256": identity_sha256({})})
    publish_json(store.iteration_folder(0) / "sel.json", [200])
    nothing = {"labelled": 0, "held_out": 0, "refused": {}, "dataset_frames": 0, "dataset_sha256": ""}
    counts = {"labels_computed": 0, "labels_adopted": 0, "labels_reused": 0}
    store.seal("label", 0, Labelling(iteration=0, **nothing, **counts))
    bare = copper.without_labels()
    origin = make_origin(3, walk="w0", step=[5, 10, 15], max_devi_f=[0.2, 0.3, 0.4])
    driven = type(bare)(bare.symbols, bare.cell, bare.positions, bare.pbc, origin=origin)
    forces = copper.forces + np.array([0.3, 0.0, 0.4])
    store.seal_frames(store.dataset_file(0), [])
    store.seal_frames(store.chosen_file(1), [driven], {"0/model_forces": forces.astype(np.float32)})
    tasks = label.plan(campaign, store, 1)
    store.freeze_plan("label", 1, tasks, 1)
    for k, task in enumerate(tasks):
        refused = "SCF" if k == 1 else None
        found = FrameLabel(float(copper.energy[k]), copper.forces[k], copper.virial[k], refused=refused)
        store.ledger_writer.append(task.parameters["key"], found)
    found = label.gather(campaign, store, 1)
    assert found.labelled == 2
    assert found.calibration == ((0.2, 0.5), (0.4, 0.5))
    assert Labelling.model_validate_json(found.model_dump_json()) == found
    assert found.rescued == 1, "0.4 eV/Å is past the window"


# --- the window -------------------------------------------------------------------------------------------------------


def test_a_known_ratio_is_recovered():
    """Error = 2 x deviation: an error of 0.5 is reached at a deviation of 0.25, and f_hi keeps its ratio."""
    f_lo, f_hi = fit(drawn(200), Select(max_error=0.5))
    assert f_lo == pytest.approx(0.25, rel=1e-3)
    assert f_hi / f_lo == pytest.approx(0.35 / 0.15, rel=1e-3)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3])
def test_false_accepts_are_as_rare_as_was_asked(rate):
    """On new frames from the same distribution, at the edge of the window, over many calibrations (4 sigma)."""
    settings = Select(max_error=0.4, false_accept_rate=rate)
    missed, n = [], 300
    for random_seed in range(n):
        f_lo, _ = fit(drawn(100, 1.5, 0.4, random_seed), settings)
        new = np.random.default_rng(10_000 + random_seed).normal(size=200)
        missed.append((f_lo * 1.5 * np.exp(0.4 * new) > 0.4).mean())
    assert np.mean(missed) == pytest.approx(rate, abs=rate / 100 * 4 + 4 * np.std(missed) / np.sqrt(n))
    assert np.mean(missed) < rate + 4 * np.std(missed) / np.sqrt(n)


@given(st.floats(0.01, 0.5), st.floats(0.01, 0.5), st.floats(0.05, 3.0), st.floats(0.1, 10.0))
def test_the_window_is_sane_and_monotone(rate, more, max_error, ratio):
    pairs = drawn(150, ratio, 0.5)
    settings = Select(max_error=max_error, false_accept_rate=rate)
    f_lo, f_hi = fit(pairs, settings)
    assert 0.0 < f_lo < f_hi < settings.rescue.max_devi_f
    lax = fit(pairs, settings.model_copy(update={"false_accept_rate": min(rate + more, 0.99)}))
    wide = fit(pairs, settings.model_copy(update={"max_error": max_error * (1 + more)}))
    assert lax[0] >= f_lo, "more false accepts allowed, wider accepted"
    assert wide[0] >= f_lo, "a larger error allowed, wider accepted"


def test_too_few_pairs_give_no_window():
    assert fit(drawn(MIN_PAIRS - 1), Select()) is None
    assert fit(drawn(MIN_PAIRS), Select()) is not None
    assert fit(drawn(MIN_PAIRS), Select(false_accept_rate=0.01)) is None, "a rate of 1 % needs 99"
    assert fit(drawn(99), Select(false_accept_rate=0.01)) is not None
    assert fit([(0.0, 0.1)] * 100, Select()) is None, "no deviation, no ratio"
    assert fit([(0.1, 0.0)] * 100, Select()) is None


def test_the_window_of_an_iteration_is_that_of_the_iterations_before_it(store, campaign):
    calibrated = campaign.model_copy(update={"select": CALIBRATED})
    fixed = (CALIBRATED.f_lo, CALIBRATED.f_hi)
    assert select.window_of(calibrated, store, 1) == fixed, "nothing yet"
    labelled(store, 1, drawn(30, 1.0))
    assert select.window_of(calibrated, store, 2) == fixed, "too few"
    labelled(store, 2, drawn(30, 1.0))
    assert select.window_of(calibrated, store, 3) == fit(drawn(30, 1.0) * 2, CALIBRATED)
    assert select.window_of(calibrated, store, 2) == fixed, "later results change nothing"
    assert select.window_of(campaign, store, 3) == (campaign.select.f_lo, campaign.select.f_hi), "fixed is fixed"


def test_only_the_last_labelled_iterations_count(store):
    for k, ratio in enumerate([9.0, 1.0, 2.0, None, 3.0], start=1):
        labelled(store, k, [] if ratio is None else [(0.1, round(0.1 * ratio, 4))])
    assert last_pairs(store, 6) == [(0.1, 0.1), (0.1, 0.2), (0.1, 0.3)]
    assert len(last_pairs(store, 6)) == LAST_LABELLED
    assert last_pairs(store, 1) == []


def test_the_selection_is_sealed_with_the_window_it_was_made_with(store, campaign):
    from test_select import fabricate

    labelled(store, 1, drawn(100, 1.0))
    store.open_iteration(2, campaign)
    calibrated = campaign.model_copy(update={"select": CALIBRATED.model_copy(update={"max_error": 0.6})})
    fabricate(store, calibrated, 4 * [("cold", [0.1] * 5 + [0.7] * 5, None)], iteration=2)
    found = select.STATION.gather(calibrated, store, 2)
    assert (found.f_lo, found.f_hi) == pytest.approx((0.6, 1.4), rel=1e-3)
    assert (found.counts.accurate, found.counts.candidate) == (20, 20)


def test_models_are_known_by_the_window_of_the_last_pass(store, campaign, copper, tmp_path):
    """Not by the one the campaign began with: the model card, the examples and the stamps of glasses say one thing."""
    from test_select import fabricate

    labelled(store, 1, drawn(100, 1.0))
    window = CALIBRATED.model_copy(update={"max_error": 0.6})
    calibrated = campaign.model_copy(update={"select": window})
    assert select.last_window(calibrated, store) == (window.f_lo, window.f_hi), "no pass yet"
    store.open_iteration(2, calibrated)
    fabricate(store, calibrated, 4 * [("cold", [0.1] * 5, None)], iteration=2)
    found = select.STATION.gather(calibrated, store, 2)
    store.seal("select", 2, found)
    members = [Member(index=k, random_seed=k, model=f"{k}.pb", sha256=str(k), n_steps=1) for k in range(2)]
    store.seal("final", 2, Ensemble(iteration=2, trained_in=1, type_map=("Cu",), members=tuple(members)))
    assert found.f_hi > 2 * window.f_hi
    assert study.potential_of(store).window == (found.f_lo, found.f_hi)
    store.seal_frames(store.dataset_file(0), [copper])
    export.write_examples(store, calibrated, tmp_path, ["0.pb", "1.pb"])
    assert f"frames above {found.f_hi:g} eV/A are outside" in (tmp_path / "in.lammps").read_text()


# --- audit and status -------------------------------------------------------------------------------------------------


def test_every_accurate_frame_is_as_likely_to_be_audited(store, campaign):
    """Walks of 4 and of 40 accurate frames, 3 audited: each frame 3 times in 44 (binomial, 4 sigma)."""
    settings = campaign.select.model_copy(update={"audit_frames": 3})
    hits, n = np.zeros(44), 1500
    for random_seed in range(n):
        rng = np.random.default_rng(random_seed)
        walks, at = [], []
        for first, length in ((0, 4), (4, 40)):
            kind = np.full(length, FrameClass.ACCURATE, dtype=np.int8)
            kept = select.worth_keeping(kind, np.full(length, 0.1), settings, rng)
            assert len(kept) == 3
            walks.append(type("Walk", (), {"classes": kind, "kept_classes": kind[kept]}))
            at.append(first + kept)
        audited = select.station._audited(walks, settings, rng)
        assert sum(map(len, audited)) == 3
        for places, frames in zip(at, audited, strict=True):
            hits[places[frames]] += 1
    share = 3 / 44
    assert np.abs(hits / n - share).max() < 4 * np.sqrt(share * (1 - share) / n)


@pytest.mark.parametrize(("deviation", "is_converged"), [([0.1] * 30, True), ([0.1] * 20 + [0.2] * 30, False)])
def test_audited_frames_are_labelled_and_counted_within_the_cap(store, campaign, deviation, is_converged):
    """Of a converged pass too: its verdict rests on them."""
    from test_select import fabricate

    one_stage = campaign.explore.model_copy(update={"stages": campaign.explore.stages[:1]})
    audit = campaign.select.model_copy(update={"audit_frames": 7})
    campaign = campaign.model_copy(update={"select": audit, "explore": one_stage})
    fabricate(store, campaign, 8 * [("cold", deviation, None)])
    found = select.STATION.gather(campaign, store, 1)
    assert found.is_converged == is_converged
    assert found.audited == 7
    assert found.chosen == (0 if is_converged else audit.max_frames - 7)
    assert found.chosen + sum(found.passed_over.values()) == found.counts.candidate
    sealed = np.concatenate([part.origin["max_devi_f"] for part in store.frames(store.chosen_file(1))])
    assert ((sealed < 0.15).sum(), len(sealed)) == (7, 7 + found.chosen)


def test_status_says_how_well_the_deviation_tells_the_error(store, campaign):
    assert select.summary(store) is None
    pairs = [(0.1, 0.2)] * 6 + [(0.1, 0.9)] * 2 + [(0.2, 0.3)] * 5 + [(0.2, 0.8)] * 4 + [(0.5, 5.0)] * 3
    labelled(store, 1, pairs)
    found = select.summary(store)
    assert (found.n_pairs, found.f_lo, found.f_hi, found.max_error) == (20, 0.15, 0.35, 0.5)
    assert (found.n_accurate, found.false_accepts) == (8, 2)
    assert (found.n_candidates, found.false_rejects) == (9, 5)
    assert found.ratio == pytest.approx(tuple(np.quantile([e / d for d, e in pairs], (0.05, 0.5, 0.95))))


def test_members_that_agree_to_the_last_digit_are_no_fault_of_status(store, campaign):
    """Audited frames of a crystal at rest: each deviation is 0.0, and there is no ratio to speak of."""
    labelled(store, 1, ((0.0, 0.4), (0.0, 0.1)))
    assert select.summary(store) is None
