"""The bill of `check --plan`: exact counts, honest seconds; and the paper's campaigns pass `check` as they are."""

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from activelearn import explore
from activelearn.check import check, cost
from activelearn.config import (
    ForceError,
    Glass,
    Machine,
    Reactions,
    Speeds,
    load_campaign,
    load_machine,
    load_potential,
    load_series,
    load_train,
)
from activelearn.inherited import NOTHING
from activelearn.records import Seconds

ROOT = Path(__file__).resolve().parent.parent
FAKE_VASP = ROOT / "tests" / "data" / "vasp" / "fake_vasp.py"


def potcars(folder):
    """Lay down POTCARs that name their element, as those of the user would."""
    for element, name in {"Na": "Na_pv", "P": "P", "S": "S", "O": "O"}.items():
        (folder / name).mkdir(parents=True)
        text = f"  PAW_PBE {name} 01Jan2000\n   VRHFIN ={element}: s2p3\n   LEXCH  = PE\n"
        text += f"   TITEL  = PAW_PBE {name} 01Jan2000\n"
        (folder / name / "POTCAR").write_text(text + "END of PSCTR-controll parameters\n End of Dataset\n")
    return folder


@pytest.fixture
def na3ps4o(tmp_path):
    """The paper's campaign with the three things that are the user's to say: command, POTCARs, version."""
    data = yaml.safe_load((ROOT / "params" / "campaign" / "na3ps4o.yaml").read_text())
    data["label"]["reference"] = {
        "command": f"{sys.executable} {FAKE_VASP}",
        "vasp": {"potcar_dir": str(potcars(tmp_path / "potpaw"))},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data))
    return load_campaign(path)


def test_the_papers_campaign_passes_check_where_its_programs_are(na3ps4o, tmp_path):
    found = check(na3ps4o, load_machine(), tmp_path / "run")
    assert found.problems == []
    text = "\n".join(found.facts)
    assert "120 trajectories, 1320 labels by vasp" in text.replace("VASP", "vasp")
    assert "Na48O5P16S59 (128 atoms" in text
    assert na3ps4o.final.n_steps == 4_000_000
    assert (na3ps4o.select.f_lo, na3ps4o.select.f_hi) == (0.15, 0.35)
    bill = cost.estimate(na3ps4o, load_machine(), None)
    assert {item.seconds for item in bill.one_pass if item.station == "label"} == {None}, "nobody declared VASP's speed"
    assert any("the total is not known" in line for line in cost.lines(bill))


def test_without_its_programs_it_says_which_and_where(tmp_path):
    found = check(load_campaign("na3ps4o"), load_machine(), tmp_path / "run")
    assert any("label.reference" in problem for problem in found.problems)


def test_the_same_with_a_universal_potential_has_a_whole_bill(tmp_path):
    campaign = load_campaign("na3ps4o_mlip")
    assert check(campaign, load_machine(), tmp_path / "run").problems == []
    bill = cost.estimate(campaign, load_machine(), None)
    assert all(item.seconds is not None for item in (*bill.initial, *bill.one_pass, *bill.final))
    assert any("on" in line and "slots" in line for line in cost.lines(bill))
    assert bill.files < 2000
    assert bill.megabytes < 1000


def test_counts_of_the_bill_are_those_of_the_campaign():
    bill = cost.estimate(load_campaign("quickstart"), Machine(), None)
    assert [(i.station, i.n_tasks, i.n_frames) for i in bill.initial] == [
        ("prepare", 4, 0),
        ("initial", 24, 384),
        ("train", 4, 0),
    ]
    assert [(i.station, i.n_tasks, i.n_frames) for i in bill.one_pass] == [
        ("explore crystal", 9, 369),
        ("explore melt", 12, 492),
        ("explore glass", 9, 279),
        ("label", 100, 100),
        ("train", 4, 0),
    ]
    assert [(i.station, i.n_tasks) for i in bill.final] == [("final compression", 4), ("glass", 3)]
    assert {i.source for i in (*bill.initial, *bill.one_pass, *bill.final)} == {"not known"}, "no speeds were declared"


def test_benchmarks_and_the_glasses_of_others_are_counted_without_a_time_and_in_no_sum():
    campaign = load_campaign("quickstart")
    asked = campaign.model_copy(update={"potentials": (load_potential("emt"),)})
    bill = cost.estimate(asked, load_machine("local"), None)
    found = {item.station: item.n_tasks for item in bill.apart}
    n_crystals = len(campaign.benchmark.crystals.seeds)
    assert found.pop("crystals") == 2 * n_crystals
    tables = dict.fromkeys(("density", "free_volume", "rdf", "network", "coordination"), 6)
    assert found == {"glass of others": 3, "force_error": 6 * campaign.benchmark.force_error.n_frames} | tables
    said = cost.lines(bill)
    assert any(line.split()[:2] == ["density", "6"] and "not known" in line for line in said)
    assert any(line.startswith("at most 8 passes: ") for line in said), "the rest still has a sum"


def test_a_reaction_is_as_many_relaxations_as_it_has_crystals():
    campaign = load_campaign("quickstart")
    asked = {"equations": {"cool": {"left": {"Na3PS4_I-43m": 1}, "right": {"Na3PS4_P-421c": 1}}}}
    benchmark = campaign.benchmark.model_copy(update={"reactions": Reactions.model_validate(asked)})
    bill = cost.estimate(campaign.model_copy(update={"benchmark": benchmark}), load_machine("local"), None)
    assert next(item.n_tasks for item in bill.apart if item.station == "reactions") == 2


def test_the_bill_of_glasses_has_their_pores():
    """One of two compositions gets a pore, for as long as the melt-quench took."""
    campaign = load_campaign("quickstart")
    segments = [{"name": "melt", "temperature_K": 900, "ps": 4.0}, {"name": "rest", "temperature_K": 300, "ps": 6.0}]
    hollow = [{"name": "hollow", "temperature_K": 300, "ps": 10.0, "is_analysed": True}]
    segments[1]["is_analysed"] = True
    series = load_series("na3ps4o")
    first, second = (composition.x for composition in series.compositions[:2])
    whole = {"series": series, "x": [first, second], "n_atoms": 400, "segments": segments}
    seconds = []
    for pore in (None, {"segments": hollow, "x": [first]}, {"segments": hollow}):
        glass = Glass.model_validate(whole | {"pore": pore})
        asked = campaign.model_copy(update={"glass": glass})
        bill = cost.estimate(asked, Machine(speeds=Speeds(md_Mflop_per_s=1000.0)), None)
        seconds.append(next(item for item in bill.final if item.station == "glass").seconds)
    assert np.allclose(np.array(seconds) / seconds[0], [1.0, 1.5, 2.0])


def test_a_larger_network_costs_more_and_a_faster_machine_less():
    quick, paper = load_campaign("quickstart"), load_campaign("na3ps4o_mlip")
    assert cost.network_Mflop(paper) > 20 * cost.network_Mflop(quick)
    slow, fast = (Machine(speeds=Speeds(train_Mflop_per_s=v)) for v in (100.0, 1000.0))
    seconds = [cost.estimate(paper, m, None).one_pass[-1].seconds for m in (slow, fast)]
    assert 9.0 < seconds[0] / seconds[1] < 10.0


def test_walks_are_billed_by_the_atoms_of_the_systems_of_their_stage():
    """Of the two systems of `evening`, 32 and 48 atoms; labels of a pass by those of its frames."""
    evening, machine = load_campaign("evening"), load_machine("local")
    found = []
    for systems in ((0,), (1,), None):
        stages = tuple(stage.model_copy(update={"systems": systems}) for stage in evening.explore.stages)
        explore_ = evening.explore.model_copy(update={"stages": stages})
        bill = cost.estimate(evening.model_copy(update={"explore": explore_}), machine, None)
        found.append({item.station: item.seconds for item in bill.one_pass})
    assert found[0].keys() == found[1].keys()
    for station in ("explore melt", "label"):
        crystal, packing, both = (one[station] for one in found)
        assert crystal < both < packing
        assert 1.2 < packing / crystal < 1.501
    assert found[0]["train"] == found[1]["train"]


def test_short_walks_share_what_it_takes_to_load_the_models_as_they_share_processes():
    """As many processes as :func:`activelearn.explore.processes_of` makes of the pass, whichever stage they are of."""
    campaign = load_campaign("quickstart")
    stages = campaign.explore.stages
    walked = [stage for stage in stages for _ in range(stage.n_walks * len(stage.conditions))]
    models = [f"{k}.pb" for k in range(campaign.train.n_members)]
    seconds = []
    for n_slots in (1, 9, 1000):
        machine = Machine(slots=n_slots, speeds=Speeds(md_Mflop_per_s=1000.0))
        bill = cost.estimate(campaign, machine, None)
        explored = [item.seconds for item in bill.one_pass if item.station.startswith("explore ")]
        n_processes = len(set(explore.processes_of(campaign, [(stage, models) for stage in walked], n_slots)))
        seconds.append((n_processes, sum(explored)))
    assert seconds[0][0] < seconds[1][0] < seconds[2][0] == len(walked)
    for n_processes, whole in seconds[:2]:
        assert seconds[2][1] - whole == pytest.approx((len(walked) - n_processes) * cost.WALK_START_S)


def test_what_a_folder_has_measured_wins(undisturbed, machine):
    """Trainings of other lengths are told apart: what is declared of them is scaled to what all of them took."""
    store, _ = undisturbed
    campaign = store.campaign(0)
    bill, declared = (cost.estimate(campaign, load_machine(), of) for of in (store, None))
    trained = [(r.index, r.seconds["train"]) for r in store.iterations() if r.seconds["train"].n_tasks]
    assert len(trained) > 1
    took = sum(s.engine_total for _, s in trained)
    items = [next(item for item in of.initial if item.station == "train") for of in (bill, declared)]
    later = [of.one_pass[-1] for of in (bill, declared)]
    assert items[0].source == later[0].source == "measured"
    assert items[0].seconds + (len(trained) - 1) * later[0].seconds == pytest.approx(took)
    assert items[0].seconds / later[0].seconds == pytest.approx(items[1].seconds / later[1].seconds)
    assert isinstance(trained[0][1], Seconds)


def test_the_final_training_is_scaled_as_the_trainings_that_were_measured_and_its_compression_too(undisturbed):
    store, _ = undisturbed
    campaign = store.campaign(0)
    longest = campaign.final.model_copy(update={"n_steps": 50_000, "compress": True})
    campaign = campaign.model_copy(update={"final": longest})
    found, declared = (
        {item.station: item for item in (*of.initial, *of.final)}
        for of in (cost.estimate(campaign, load_machine(), begun, slower=2.0) for begun in (store, None))
    )
    ratio = found["train"].seconds / declared["train"].seconds
    for station in ("final", "final compression"):
        assert found[station].source == "measured"
        assert found[station].seconds == pytest.approx(ratio * declared[station].seconds), station
    silent = cost.estimate(campaign, Machine(), store)
    assert {item.source for item in silent.final if item.station.startswith("final")} == {"not known"}, "other steps"


def test_labels_of_glasses_are_scaled_as_all_that_is_declared_and_a_dft_engine_is_named():
    campaign = load_campaign("quickstart")
    asked = campaign.benchmark.model_copy(update={"force_error": ForceError()})
    one, two = (
        cost.estimate(campaign.model_copy(update={"benchmark": asked}), load_machine(), None, slower=slower)
        for slower in (1.0, 2.0)
    )
    seconds = [next(i.seconds for i in bill.apart if i.station == "force_error") for bill in (one, two)]
    assert seconds[1] == pytest.approx(2.0 * seconds[0])
    assert not any("linear in the number of atoms" in line for line in cost.lines(one))
    by_vasp = Machine(speeds=Speeds(label_s_per_atom={"vasp": 10.0}))
    dft = load_campaign("na3ps4o")
    bill = cost.estimate(dft.model_copy(update={"benchmark": asked, "glass": campaign.glass}), by_vasp, None)
    assert any("linear in the number of atoms; vasp takes longer" in line for line in cost.lines(bill))


def test_what_declared_seconds_were_scaled_by_is_said_where_there_are_any():
    campaign = load_campaign("quickstart")
    assert cost.estimate(campaign, load_machine(), None).is_declared
    assert not cost.estimate(campaign, Machine(), None).is_declared


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, "not known"), (3.0, "3 s"), (300.0, "5.0 min"), (8000.0, "2.2 h"), (9e5, "10.4 d")]
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert cost._duration(seconds) == said


def test_fine_tuned_foundations_are_billed_by_the_time_of_their_calculator():
    """Against what was measured (docs/foundations.md): 400 steps of two frames of 64 atoms, 15 min of a member."""
    tuned = load_train("sevennet_finetune", {})
    campaign = load_campaign("na3ps4o_mlip").model_copy(update={"train": tuned})
    bill = cost.estimate(campaign, load_machine(), None)
    n_atoms = cost._Meter(campaign, load_machine(), [], NOTHING, 1.0).n_atoms
    training = next(item for item in bill.initial if item.station == "train")
    per_atom = load_machine().speeds.label_s_per_atom["sevenn.calculator:SevenNetCalculator"]
    assert training.seconds == pytest.approx(4 * 400 * 2 * n_atoms * 3.3 * per_atom, rel=0.02)
    assert training.seconds / (4 * n_atoms) == pytest.approx(15 * 60 / 64, rel=0.15)
    walks = [item for item in bill.one_pass if item.station.startswith("explore")]
    assert all(item.seconds for item in walks)
    unknown = campaign.model_copy(update={"train": load_train("mace_finetune", {})})
    bill = cost.estimate(unknown, load_machine(), None)
    assert any("the total is not known" in line for line in cost.lines(bill)), "a MACE of the user's, of any size"
    declared = Machine(speeds=Speeds(label_s_per_atom={"mace.calculators:MACECalculator": 0.01}))
    bill = cost.estimate(unknown, declared, None)
    assert next(item for item in bill.initial if item.station == "train").source == "declared"
