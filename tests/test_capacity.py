"""No label in vain: elements of no first system get room, and what the models cannot hold is refused before."""

import warnings

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from campaigns import SMALL, cli, machine_file, tiny

from activelearn import capacity, initial, label, loop, prepare
from activelearn.check import check
from activelearn.config import Machine, System, load_campaign
from activelearn.errors import ConfigError
from activelearn.frames import make_origin
from activelearn.loop import accept_changed
from activelearn.records import InitialData, Iteration, Labelling, Selection
from activelearn.store import Store
from activelearn.store.files import file_sha256, publish_json, read_json
from activelearn.store.references import identity_sha256
from activelearn.tasks import carry_out, gather

MACHINE = Machine(slots=2, **SMALL)
#: What activelearn 0.1 sealed for copper and gold within 4 Å when no first system had gold.
OLD_SEL = [48, 4]
FIRST = (prepare.STATION, initial.STATION, label.STATION)


def gold(folder, *, a=4.08):
    """A system of fcc gold in a file of the user's."""
    write(folder / "gold.extxyz", bulk("Au", a=a, cubic=True) * (2, 2, 2))
    file = folder / "gold.extxyz"
    return System(seed=str(file), supercell=(1, 1, 1), sha256=file_sha256(file))


def copper_and_gold(folder, **changes):
    """The tiny campaign of copper, with gold in its type_map and copies that are not moved by MD."""
    given = {"type_map": ["Cu", "Au"], "initial__md": None, **changes}
    return load_campaign(tiny(folder / "campaign.yaml", **given))


def with_systems(campaign, *systems):
    start = campaign.initial.model_copy(update={"systems": (*campaign.initial.systems, *systems)})
    return campaign.model_copy(update={"initial": start})


def begun(folder, campaign, sel=None):
    """A campaign whose iteration 0 is open, with the `sel` of an older version if one is given."""
    store = Store.create(folder / "run", campaign)
    if sel is not None:
        publish_json(store.iteration_folder(0) / "sel.json", sel)
    loop.next_phase(store).begin(MACHINE)
    return store


def carried_out(store, iteration, stations=FIRST):
    """Carry out the stations that need no training."""
    for station in stations:
        carry_out(station, store, iteration, MACHINE)
        gather(station, store, iteration, MACHINE)


# --- before any label -------------------------------------------------------------------------------------------------


def test_a_new_campaign_has_room_for_an_element_of_no_first_system(tmp_path):
    campaign = copper_and_gold(tmp_path)
    alone = load_campaign(tiny(tmp_path / "copper.yaml"))
    ((room,),) = capacity.of_campaign(alone)
    assert capacity.of_campaign(campaign) == ((room, room),), "as if gold took every place"
    assert capacity.problems(with_systems(campaign, gold(tmp_path)), begun(tmp_path, campaign)) == []


def test_a_system_that_an_old_campaign_cannot_hold_is_refused_at_check(tmp_path):
    campaign = copper_and_gold(tmp_path)
    store = begun(tmp_path, campaign, OLD_SEL)
    (line,) = check(with_systems(campaign, gold(tmp_path)), MACHINE, store.folder).problems
    # 18 neighbours at the smallest scale of 0.98 (12 at 2.83 Å, 6 at 4.00 Å), and a tenth for thermal motion.
    assert line.startswith("systems: gold.extxyz has more neighbours within 4 Å than sel holds (Au 20 of 4), and ")
    assert str(store.folder / "iter-000" / "sel.json") in line
    assert f"another --folder, with label.ledger: {store.folder / 'labels'}" in line


def test_what_an_old_campaign_holds_is_no_problem_and_its_limits_are_said(tmp_path):
    campaign = copper_and_gold(tmp_path)
    store = begun(tmp_path, campaign, [24, 4])
    dense = System(packed={"units": {"Cu": 1}, "n_atoms": 48, "density_g_cm3": 3.0, "tolerance_A": 2.2})
    found = check(with_systems(campaign, dense), MACHINE, store.folder)
    assert found.problems == []
    assert "ensemble: 2 members, sel {'Cu': 24, 'Au': 4} within 4 Å" in found.facts, "the sealed one"
    (note,) = [fact for fact in found.facts if fact.startswith("note: sel does not hold 1Cu ")]
    assert "walks compressed that far leave the region" in note


def test_a_system_that_cannot_be_held_is_not_accepted_and_no_label_is_computed(tmp_path):
    campaign = copper_and_gold(tmp_path)
    store = begun(tmp_path, campaign, OLD_SEL)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=r"gold\.extxyz has more neighbours .* \(Au 20 of 4\)"):
        accept_changed(store, with_systems(campaign, gold(tmp_path)), accept=True)
    assert store.latest_campaign() == campaign
    after = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    assert set(after) - set(before) <= {gold_file := (tmp_path / "gold.extxyz").relative_to(tmp_path)}, gold_file


def test_run_with_accept_changes_ends_with_one_sentence_and_no_label(tmp_path):
    campaign = copper_and_gold(tmp_path)
    store = begun(tmp_path, campaign, OLD_SEL)
    grown = with_systems(campaign, gold(tmp_path))
    (tmp_path / "grown.yaml").write_text(grown.to_yaml())
    machine = machine_file(tmp_path / "machine.yaml")
    words = ("run", "grown.yaml", "--folder", store.folder, "--machine", machine, "--accept-changes")
    done = cli(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: systems: gold.extxyz has more neighbours")
    assert len(done.stderr.strip().splitlines()) == 1
    assert len(store.campaign_files()) == 1
    assert not (store.folder / "labels").exists() or not list((store.folder / "labels").iterdir())


def test_an_iteration_is_not_opened_with_what_an_older_version_has_accepted(tmp_path):
    campaign = copper_and_gold(tmp_path)
    store = begun(tmp_path, campaign, OLD_SEL)
    store.accept(with_systems(campaign, gold(tmp_path)))
    with pytest.raises(ConfigError, match=r"gold\.extxyz has more neighbours"):
        loop.CampaignPhase(1, loop.FIRST, store).begin(MACHINE)
    assert store.opened_iterations() == [0]


def test_check_says_so_of_a_system_that_an_older_version_has_begun_with(tmp_path):
    """It is too late to refuse it: the campaign may continue with the others."""
    campaign = copper_and_gold(tmp_path)
    store = begun(tmp_path, with_systems(campaign, gold(tmp_path)), OLD_SEL)
    found = check(store.latest_campaign(), MACHINE, store.folder)
    assert found.problems == []
    assert (
        "note: sel does not hold gold.extxyz (Au 20 of 4): its labels are refused and its walks end at once"
        in found.facts
    )


def test_other_elements_are_left_to_the_refusal_of_changes(tmp_path):
    store = begun(tmp_path, copper_and_gold(tmp_path), OLD_SEL)
    other = copper_and_gold(tmp_path, type_map=["Cu", "Ag", "Au"])
    (problem,) = check(with_systems(other, gold(tmp_path)), MACHINE, store.folder).problems
    assert "fixed for all its iterations" in problem
    with pytest.raises(ConfigError, match="fixed for all its iterations"):
        accept_changed(store, other, accept=True)


@pytest.mark.parametrize(
    ("sel", "system", "said"),
    [
        # fcc copper within 4 Å: 12 at 2.55 Å and 6 at 3.61 Å; at the scale 0.9 also 24 at 3.98 Å
        ([12, 4], None, "[12, 4] is too small for Cu32, which has [18, 0] neighbours within 4 Å (Cu 18 of 12)"),
        (
            [20, 4],
            None,
            "[20, 4] is too small for Cu32, which has [42, 0] neighbours within 4 Å at the scale 0.9 (Cu 42",
        ),
        ([44, 4], "Au", "[44, 4] is too small for 1Au, which has [0, 9] neighbours within 4 Å (Au 9 of 4)"),
        ([44, 20], "Au", None),
    ],
)
def test_a_sel_of_the_users_own_that_is_too_small_for_a_first_system(tmp_path, sel, system, said):
    campaign = copper_and_gold(tmp_path, train__descriptor__sel=sel, initial__scales=[0.9, 1.0])
    if system is not None:
        # 10 g/cm3 are 0.0306 atoms/Å3 and 8.2 in the sphere; of the smallest scale, 11.2
        packed = {"units": {"Au": 1}, "n_atoms": 24, "density_g_cm3": 10.0}
        campaign = with_systems(campaign, System(packed=packed))
    found = [line for line in check(campaign, MACHINE, tmp_path / "none").problems if "train.descriptor.sel" in line]
    assert [line.startswith(f"train.descriptor.sel: {said}") for line in found] == ([] if said is None else [True])


# --- while it runs ----------------------------------------------------------------------------------------------------


@pytest.mark.engines
def test_a_new_campaign_learns_what_is_added(tmp_path, slot):
    """Gold beside copper: in the type_map from the start, in a system later, as the guide says."""
    campaign = copper_and_gold(tmp_path)
    store = begun(tmp_path, campaign)
    carried_out(store, 0)
    grown = with_systems(campaign, gold(tmp_path))
    accept_changed(store, grown, accept=True)
    loop.phase_of(store, 1).begin(MACHINE)
    carried_out(store, 1)
    record = store.result("label", 1, Labelling)
    assert (record.labelled, record.refused) == (6, {})
    assert {part.formula for part in store.frames(store.dataset_file(1))} == {"Au32"}


@pytest.mark.engines
def test_a_frame_that_cannot_be_held_costs_no_label_and_is_counted(tmp_path, slot):
    """An iteration that an older version has opened: every frame of gold is refused, none is labelled."""
    campaign = copper_and_gold(tmp_path)
    store = begun(tmp_path, campaign, OLD_SEL)
    carried_out(store, 0)
    n_labels = len(store.ledger.entries())
    open_as_before(store, with_systems(campaign, gold(tmp_path)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # numpy's, of means of nothing
        carried_out(store, 1)
    record = store.result("label", 1, Labelling)
    assert record.refused == {"more neighbours than sel holds": 6}
    assert (record.labelled, record.labels_computed, record.labels_reused) == (0, 0, 0)
    store.ledger.refresh()
    assert len(store.ledger.entries()) == n_labels


@pytest.mark.engines
def test_no_reference_dynamics_is_run_from_a_start_that_cannot_be_held(tmp_path, slot):
    campaign = copper_and_gold(tmp_path, initial__md={"n_steps": 10, "every": 5, "temperatures_K": [300]})
    store = begun(tmp_path, campaign, OLD_SEL)
    seal_nothing(store, 0)
    open_as_before(store, with_systems(campaign, gold(tmp_path)))
    carried_out(store, 1)
    walks = store.result("initial", 1, InitialData).walks
    assert {walk.ended for walk in walks} == {"more neighbours than sel holds"}
    assert store.result("initial", 1, InitialData).failed == walks, "each is shown with its reason"
    assert store.result("label", 1, Labelling).refused == {"more neighbours than sel holds": 6}
    assert store.ledger.entries() == []


def open_as_before(store, campaign):
    """Open iteration 1 as a version did that did not look at `sel`."""
    store.accept(campaign)
    publish_json(store.iteration_folder(1) / "reference.json", read_json(store.iteration_folder(0) / "reference.json"))
    store.open_iteration(1, campaign)


def seal_nothing(store, iteration):
    """Seal the labels of an iteration as if there were none."""
    store.seal("label", iteration, labelling_of(iteration, {}))


def labelling_of(iteration, refused):
    names = ("labelled", "held_out", "dataset_frames", "labels_computed", "labels_adopted", "labels_reused")
    return Labelling(iteration=iteration, refused=refused, dataset_sha256="", **dict.fromkeys(names, 0))


def test_only_frames_without_labels_are_left_out_of_the_plan(store, campaign, copper):
    """Fcc copper has 42 neighbours within 5 Å; a label that was paid for is adopted, for others can use it."""
    publish_json(store.iteration_folder(0) / "sel.json", [20])
    publish_json(store.iteration_folder(0) / "reference.json", {"sha256": identity_sha256({})})
    bare = copper.without_labels()
    far = type(bare)(bare.symbols, bare.cell * 1.6, bare.positions * 1.6, origin=make_origin(3, walk="far"))
    store.seal_frames(store.chosen_file(0), [copper, bare, far])
    plan = label.plan(campaign, store, 0)
    assert [(task.parameters["part"], task.parameters["frame"]) for task in plan] == [
        (p, k) for p in (0, 2) for k in range(3)
    ]


# --- what is said at the end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("is_converged", "said"), [(True, "quiet at last"), (False, "not converged after 2 ")])
def test_the_end_of_a_campaign_that_could_not_learn_what_was_added_says_what_helps(tmp_path, is_converged, said):
    store = begun(tmp_path, copper_and_gold(tmp_path), OLD_SEL)
    walked = selection_of(2, is_converged=is_converged, why="quiet at last")
    data = InitialData(iteration=1, walks=(), n_frames=126, held_out=())
    seal_record(store, 0, labelling_of(0, {}))
    seal_record(store, 1, labelling_of(1, {"more neighbours than sel holds": 126}), initial=data)
    seal_record(store, 2, labelling_of(2, {}), selection=walked)
    message = loop.verdict(store).message
    assert message.startswith(said)
    assert "the added systems, of which 126 labels were refused: they have more neighbours than sel holds" in message
    ledger = f"label.ledger: {store.folder / 'labels'} and initial.from_ledger: true"
    assert message.endswith(f"another --folder, with {ledger} (no label is computed twice)")


def selection_of(iteration, **more):
    names = ("chosen", "rescued")
    empty = dict.fromkeys(("cells", "walks", "quiet_stages"), ())
    stages = {"stages": ("warm",), "next_stages": ("warm",), "passed_over": {}}
    given = {"f_lo": 0.1, "f_hi": 0.2, "is_rescue": False, **stages, **empty, **dict.fromkeys(names, 0), **more}
    return Selection(iteration=iteration, **given)


def seal_record(store, index, labelling, **more):
    """Open and close an iteration of which only the counts are known."""
    store.open_iteration(index, store.latest_campaign())
    ensemble = {"iteration": index, "trained_in": 0, "type_map": ("Cu", "Au"), "members": ()}
    given = {"campaign_sha256": store.latest_campaign().sha256, "versions": {}, "seconds": {}, "products": {}, **more}
    record = Iteration(index=index, labelling=labelling, ensemble=ensemble, **given)
    publish_json(store.iteration_file(index), record.model_dump(mode="json"))


# --- known answers ----------------------------------------------------------------------------------------------------


def test_the_reason_names_elements_with_what_they_have_and_what_there_is():
    from activelearn.geometry import without_room

    assert without_room(np.array([61, 8, 5]), ("S", "P", "O"), (56, 8, 4)) == "S 61 of 56, O 5 of 4"
    assert without_room(np.array([56.0000001, 8.0]), ("S", "P"), (57, 8)) == ""
