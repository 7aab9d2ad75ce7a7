"""A campaign that begins with labels alone: no systems, half of the labels without a stress; to its exported models."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from campaigns import SMALL, end_sessions, run_plain, tiny
from conftest import rattled_copper

from activelearn import exchange, export
from activelearn.check import check, cost, inherits
from activelearn.cli.labels import fingerprint_of
from activelearn.config import Machine, load_campaign
from activelearn.engines import process
from activelearn.errors import ConfigError
from activelearn.frames import make_origin
from activelearn.records import InitialData, Labelling
from activelearn.store import Store
from activelearn.store.ledger import publish_labels

PBE = exchange.declared("functional=PBE,includes_dispersion=false,code=VASP-6.4.2")
MACHINE = Machine(slots=1, **SMALL)
ALONE = {"initial": {"from_ledger": True, "held_out_fraction": 0.25}, "train__n_steps": 20}
ALONE |= {"train__min_new_frames": 8, "final__compress": False}  # two trainings are enough
ALONE |= {"train__prefactors": {"force": [1000.0, 50.0], "virial": [0.02, 1.0]}, "stop__max_iterations": 1}


@pytest.fixture(scope="module")
def emt():
    """The identity of the campaigns' reference."""
    process.allow_engines()
    yield fingerprint_of("emt", trust=False)
    end_sessions()


def donate(folder, identity, *, walks="aaabbbcccddd", has_virial=True, symbols=None, random_seed=5):
    """Put frames of 32 atoms into a ledger; without a virial those of the walks c and d, or all."""
    if not walks:
        return
    part = rattled_copper(len(walks), random_seed=random_seed, repeat=(2, 2, 2))
    part = replace(part, origin=make_origin(len(walks), walk=np.array(list(walks))), symbols=symbols or part.symbols)
    part.virial[np.isin(list(walks), ["c", "d"]) | (not has_virial)] = np.nan
    publish_labels(folder, "import", [part], identity)


def asked(folder, **changes):
    return load_campaign(tiny(folder / "c.yaml", label__ledger=str(folder / "led"), **{**ALONE, **changes}))


@pytest.fixture(scope="module")
def ended(tmp_path_factory, emt):
    """The campaign, run to its end: once for all that is asked of it."""
    folder = tmp_path_factory.mktemp("alone")
    donate(folder / "led", emt)
    asked(folder)
    store, _ = run_plain(folder / "run", folder / "c.yaml", MACHINE)
    return store


def test_it_begins_with_the_labels_and_walks_from_them(ended):
    initial, labels = ended.result("initial", 0, InitialData), ended.result("label", 0, Labelling)
    assert (initial.from_ledger, initial.n_frames, initial.walks, len(initial.held_out)) == (12, 12, (), 1)
    assert (labels.labels_computed, labels.labels_reused, labels.held_out, labels.dataset_frames) == (0, 12, 3, 9)
    n_without = sum(int((~part.has_virial).sum()) for part in ended.dataset(0))
    assert labels.dataset_without_virial == n_without in {3, 6}
    assert {task.parameters["system"] for task in ended.plan("explore", 1).tasks} == {None}
    assert ended.iterations()[-1].selection.counts.walked > 0
    assert ended.result("label", 1, Labelling).dataset_without_virial == n_without, "EMT has a stress"


def test_its_models_and_data_are_exported(ended, tmp_path):
    export.export(ended, tmp_path / "out")
    systems = sorted((tmp_path / "out" / "dataset" / "deepmd" / "training").iterdir())
    assert [(system / "set.000" / "virial.npy").is_file() for system in systems] == [True, False]
    card = (tmp_path / "out" / "model_card.md").read_text()
    assert "of these frames have no virial: pressures were not fitted on them" in card
    assert (tmp_path / "out" / "start.lmp").is_file()


def test_what_it_began_with_is_known_without_its_ledger(ended, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(ended.folder, folder)
    campaign = ended.latest_campaign()
    campaign = campaign.model_copy(update={"label": campaign.label.model_copy(update={"ledger": str(tmp_path)})})
    found = check(campaign, MACHINE, folder)
    assert found.problems == []
    assert "from the ledger: 12 labels that joined at the start of the campaign" in found.facts
    assert cost.estimate(campaign, MACHINE, Store(folder), inherits(campaign, folder)[2]).one_pass


# --- before it begins -------------------------------------------------------------------------------------------------


def test_check_and_its_plan_count_what_is_there(tmp_path, emt):
    donate(tmp_path / "led", emt)
    campaign = asked(tmp_path)
    found = check(campaign, MACHINE, tmp_path / "run")
    assert found.problems == []
    assert {
        "systems: none, walks start from labelled structures",
        "initial: 12 existing labels",
        "ensemble: 2 members, sel {'Cu': 48} within 4 Å",
        "note: 6 of 12 labels of the ledger (50 %) have no virial: the training fits no virial on them",
    } <= set(found.facts)
    assert all(stage.start == "dataset" for stage in campaign.explore.stages)
    bill = cost.estimate(campaign, MACHINE, None, inherits(campaign, tmp_path / "run")[2])
    assert [(item.station, item.n_tasks) for item in bill.initial] == [("train", 2)]


def test_one_trajectory_cannot_be_held_out_and_that_is_said(tmp_path, emt):
    donate(tmp_path / "led", emt, walks="aaaaaa")
    facts = check(asked(tmp_path), MACHINE, tmp_path / "r").facts
    assert any(fact.startswith("note: no label will be held out") for fact in facts)
    (problem,) = check(asked(tmp_path, stop__max_force_error_p99=0.3), MACHINE, tmp_path / "r").problems
    assert problem.startswith("stop.max_force_error_p99: ")


@pytest.mark.parametrize(
    ("how", "changes", "said"),
    [
        ({"walks": ""}, {}, r"of the labels in .*led none can join - expected at least 2"),
        ({"walks": "a"}, {}, r"of the labels in .*led 1 can join - expected at least 2"),
        ({"symbols": ("Ag",) * 32}, {}, r"none can join \(others have Ag, which type_map lacks\)"),
        ({}, {"train__descriptor__rcut": 9.0}, r"none is a start for walks - expected cells with .* at least 9 Å"),
        ({}, {"initial": {"from_ledger": ["ffffff"]}}, r"0 references begin with ffffff"),
    ],
)
def test_wrong_uses_are_refused_before_any_job(tmp_path, emt, how, changes, said):
    donate(tmp_path / "led", emt, **how)
    problems = check(asked(tmp_path, **changes), MACHINE, tmp_path / "r").problems
    assert any(re.search(said, line) for line in problems)
    with pytest.raises(ConfigError, match=said):
        run_plain(tmp_path / "r", tmp_path / "c.yaml", MACHINE)
    assert not (tmp_path / "r" / "iter-000").exists() or not list((tmp_path / "r" / "iter-000").glob("*.json"))


def test_labels_of_another_reference_alone_are_refused_when_it_begins(tmp_path, emt):
    donate(tmp_path / "led", PBE)
    asked(tmp_path)
    with pytest.raises(ConfigError, match=r"no label of this campaign's reference .* - expected the same"):
        run_plain(tmp_path / "r", tmp_path / "c.yaml", MACHINE)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"initial": {}}, "initial: systems is empty - expected at least one, or from_ledger: true"),
        ({"initial": {"systems": [], "from_ledger": False}}, "initial: systems is empty"),
        (
            {"explore__stages": [{"name": "x", "temperatures_K": [9], "n_steps": 20, "start": "systems"}]},
            "start: dataset",
        ),
    ],
)
def test_nothing_to_begin_with_is_refused_by_the_file_itself(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        asked(tmp_path, **changes)


def test_systems_for_walks_alone_are_fine(tmp_path, emt):
    donate(tmp_path / "led", emt)
    system = {"seed": "Cu_Fm-3m", "supercell": [2, 2, 2]}
    campaign = asked(tmp_path, explore__systems=[system])
    assert {stage.start for stage in campaign.explore.stages} == {"systems"}
    assert check(campaign, MACHINE, tmp_path / "run").problems == []
