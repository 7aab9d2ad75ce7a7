"""The force deviation of models whose LAMMPS style writes none: evaluated by each of them on the frames of the walk."""

from pathlib import Path

import numpy as np
import pytest
from test_explore import walk_of

from activelearn import explore, select, starts
from activelearn.config import trainer_of
from activelearn.engines import lammps, links
from activelearn.engines.trainers.deepmd import DeePMD
from activelearn.frames import Frames
from activelearn.page.products import doubted_of
from activelearn.records import Ensemble


@pytest.mark.engines
def test_a_deviation_that_is_evaluated_afterwards_is_that_of_lammps(undisturbed, slot, tmp_path):
    store, _ = undisturbed
    campaign = store.campaign(1)
    trainer, stage = trainer_of(campaign.train), campaign.explore.stages[-1]
    models = [store.model(member.model) for member in store.result("train", 1, Ensemble).members]
    start = starts.right_handed(store.dataset(0)[0][0].without_labels())
    lammps.write_data(tmp_path / "conf.lmp", start, campaign.type_map)
    pair = trainer.pair_of_walks(links.link_models(models, tmp_path), campaign.type_map, stage.every)
    what = lammps.walk_input(stage, lammps.Drive(stage.conditions[0], velocity_seed=7), pair)
    theirs, *_ = lammps.timed_walk(tmp_path, what, start.symbols, slot)
    ours = explore.with_deviation(theirs, start, trainer, models, tmp_path, slot)
    assert len(ours.step) == stage.n_frames
    np.testing.assert_allclose(ours.max_devi_f, theirs.max_devi_f, atol=1e-6)
    np.testing.assert_allclose(ours.devi_f, theirs.devi_f, atol=1e-6)
    np.testing.assert_allclose(theirs.devi_f.max(axis=1), theirs.max_devi_f, rtol=1e-6)
    assert theirs.max_devi_f.max() > 0.01


@pytest.mark.engines
def test_a_walk_publishes_the_deviation_of_each_atom_of_its_worst_kept_frame(undisturbed, slot, tmp_path):
    store, _ = undisturbed
    campaign = store.campaign(2)
    models = [store.model(member.model) for member in store.result("train", 1, Ensemble).members]
    n = 0
    for task in store.plan("explore", 2).tasks:
        arrays, _ = store.read_product("explore", 2, task.id)
        kept = Frames.from_arrays(arrays, "kept/")
        assert ("worst_devi_f" in arrays) == (len(kept) > 0)
        if len(kept) == 0:
            continue
        n += 1
        worst = int(arrays["worst_kept"])
        assert worst == kept.origin["max_devi_f"].argmax()
        frames = kept[worst].without_labels()
        (tmp_path / task.id).mkdir()
        predicted = trainer_of(campaign.train).evaluate_all(tmp_path / task.id, models, [frames], slot)
        deviation = select.atomic_deviation(np.array([part.label("forces") for (part,) in predicted]))
        np.testing.assert_allclose(arrays["worst_devi_f"], deviation[0], atol=1e-6)
    assert n > 0
    doubted = doubted_of(store, store.iterations())
    assert doubted.iteration == 2
    assert doubted.deviation.max() == pytest.approx(doubted.frame.origin["max_devi_f"][0], rel=1e-6)
    assert doubted.symbols.tolist() == ["Cu"] * (n * doubted.frame.n_atoms), "a frame of each walk that kept any"
    assert doubted.deviations.max() == doubted.deviation.max()


class Doubles(DeePMD):
    """The forces of member k are k everywhere; those of the last are no numbers from a frame on."""

    def evaluate(self, folder, model, parts, slot):
        (frames,) = parts
        forces = np.full((len(frames), frames.n_atoms, 3), float(model.name))
        if model.name == "2":
            forces[3:, 1] = np.nan
        return [frames.with_labels(np.zeros(len(frames)), forces, None)]


def test_a_walk_is_cut_where_the_evaluated_deviation_is_no_number(slot, tmp_path):
    start, walk = walk_of(np.full(5, np.nan))
    found = explore.with_deviation(walk, start, Doubles(), [Path("0"), Path("2")], tmp_path, slot)
    assert (found.step.tolist(), found.ended) == (walk.step[:3].tolist(), "non-finite")
    np.testing.assert_allclose(found.max_devi_f, np.sqrt(3.0))
    np.testing.assert_allclose(found.devi_f, np.sqrt(3.0))
    assert all(
        len(rows) == 3 for rows in (found.devi_f, found.cell, found.positions, found.forces, found.temperature_K)
    )
