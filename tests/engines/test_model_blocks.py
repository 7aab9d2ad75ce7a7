"""Any model block of DeePMD-kit as `train.model`: what it may be, what is said of others, and what becomes of it."""

import copy
import importlib.util
import json
import resource
import sys

import pytest
import yaml
from pydantic import ValidationError

from activelearn import capacity, geometry
from activelearn.check import check
from activelearn.config import Machine, TrainingRun, load_campaign, parse_campaign, trainer_of
from activelearn.config.moved import moved
from activelearn.config.reading import difference
from activelearn.engines import backends
from activelearn.engines.trainers.deepmd import TRAINER, dargs, inputs
from activelearn.engines.trainers.deepmd.blocks import filled, shells
from activelearn.engines.trainers.deepmd.rules import impossible
from activelearn.engines.trainers.deepmd.settings import DeePMDTrain
from activelearn.errors import ConfigError
from activelearn.store import Store

needs_deepmd = pytest.mark.skipif(
    importlib.util.find_spec("deepmd") is None, reason="pip install 'deepmd-kit[cpu,lmp]==3.2.0'"
)
RUN = TrainingRun(n_steps=1000, random_seeds=(11, 22, 33))
PAIRS = {"type": "se_e2_a", "rcut": 5.0, "rcut_smth": 0.5, "neuron": [8, 16], "axis_neuron": 4}
RADIAL = {"type": "se_e2_r", "rcut": 4.0, "rcut_smth": 0.5, "neuron": [8, 16]}
ATTENTION = {"type": "se_atten", "rcut": 5.0, "rcut_smth": 0.5, "neuron": [8, 16], "attn_layer": 0}
DPA2 = {
    "type": "dpa2",
    "repinit": {"rcut": 5.0, "rcut_smth": 0.5, "nsel": "auto"},
    "repformer": {"rcut": 3.5, "rcut_smth": 0.5, "nsel": 40},
}
DPA3 = {"type": "dpa3", "repflow": {"e_rcut": 5.0, "e_rcut_smth": 4.0, "a_rcut": 3.5, "a_rcut_smth": 3.0}}
FIT = {"neuron": [16, 16]}
TABLE = {"use_srtab": "/tables/zbl.txt", "smin_alpha": 0.1, "sw_rmin": 0.8, "sw_rmax": 1.2}


def model(descriptor=PAIRS, fitting=FIT, **more):
    return {"descriptor": descriptor, "fitting_net": fitting, **more}


def hybrid(*parts):
    return {"type": "hybrid", "list": list(parts)}


def total(*parts, weights="sum", **more):
    return {"type": "linear_ener", "models": list(parts), "weights": weights, **more}


def dpa4(descriptor=None, **more):
    made = {"type": "dpa4", "lmax": 1, **(descriptor or {})}
    return {"type": "dpa4", "descriptor": made, "fitting_net": {"type": "dpa4_ener"}, **more}


def changed(section, **changes):
    return {name: value for name, value in {**section, **changes}.items() if value is not None}


def train(block, **more):
    return DeePMDTrain.model_validate({"model": block, **more})


def made(settings, type_map=("Cu",), sel=((60,),)):
    return inputs.training_input(settings, RUN, type_map=type_map, sel=sel, systems=["data"])


@pytest.fixture
def data():
    """The copper campaign as raw data, without its networks."""
    raw = yaml.safe_load(load_campaign("copper_emt").to_yaml())
    for name in ("descriptor", "fitting", "precision"):
        del raw["train"][name]
    return raw


def campaign(data, block, **more):
    raw = copy.deepcopy(data)
    raw["train"].update(model=block, **more)
    return parse_campaign(raw, where="x")


# --- what becomes of it -----------------------------------------------------------------------------------------------


def test_the_short_form_written_out_gives_the_same_input_to_the_byte():
    short = DeePMDTrain.model_validate({"descriptor": {"rcut": 5.0, "neuron": [8, 16]}, "precision": "float32"})
    long = train(short.block)
    assert json.dumps(made(short)) == json.dumps(made(long))
    assert long.block["descriptor"] == {
        "type": "se_e2_a", "sel": "auto", "rcut": 5.0, "rcut_smth": 2.0, "neuron": [8, 16], "axis_neuron": 16,
        "type_one_side": False, "resnet_dt": False, "precision": "float32",
    }  # fmt: skip
    assert TRAINER.Mflop(short, ((60,),)) == TRAINER.Mflop(long, ((60,),)) > 0
    assert TRAINER.compresses(short)
    assert TRAINER.compresses(long)
    assert TRAINER.same_networks(short, long)


def test_what_is_of_the_campaign_and_of_the_member_is_filled_in_and_the_rest_stays():
    block = model(hybrid({**PAIRS, "sel": "auto"}, RADIAL, ATTENTION), {"neuron": [16], "resnet_dt": False})
    before = copy.deepcopy(block)
    found = made(train(block), ("Cu", "Au"), ((80, 60), (100,), (40, 30)))["model"]
    assert block == before, "the settings are never written into"
    assert found["type_map"] == ["Cu", "Au"]
    pairs, radial, attention = found["descriptor"]["list"]
    assert [pairs["sel"], radial["sel"], attention["sel"]] == [[80, 60], [40, 30], 100]
    assert found["fitting_net"] == {"neuron": [16], "resnet_dt": False, "seed": 22}
    assert {**pairs, "sel": None, "seed": None} == {**PAIRS, "sel": None, "seed": None}


def test_every_part_that_draws_numbers_has_a_seed_of_its_own_that_hangs_on_the_member():
    parts = [model(hybrid(PAIRS, RADIAL)), model(ATTENTION), model(PAIRS, type_embedding={"neuron": [2]})]

    def drawn(seeds):
        found = filled(total(*parts), ["Cu"], [(8,)] * 4, seeds)["models"]
        both = [one["seed"] for one in found[0]["descriptor"]["list"]]
        rest = [one["descriptor"]["seed"] for one in found[1:]]
        return [*both, *rest, *(one["fitting_net"]["seed"] for one in found), found[2]["type_embedding"]["seed"]]

    first, same, other = drawn((1, 2, 3)), drawn((1, 2, 3)), drawn((4, 5, 6))
    assert first == same
    assert len({*first, *other}) == 2 * len(first) == 16
    assert (first[0], first[4]) == (1, 2), "as in the short form"
    assert all(isinstance(seed, int) and 0 < seed < 2**31 for seed in first)


@pytest.mark.parametrize(
    ("block", "wanted"),
    [
        (model(), [(5.0, "descriptor.sel", None, True)]),
        (model({**PAIRS, "sel": [40]}), [(5.0, "descriptor.sel", (40,), True)]),
        (model(ATTENTION), [(5.0, "descriptor.sel", None, False)]),
        (model({**ATTENTION, "sel": 70}), [(5.0, "descriptor.sel", (70,), False)]),
        (model({**ATTENTION, "sel": [40, 30]}), [(5.0, "descriptor.sel", (70,), False)]),
        (model({"type": "se_e2_a"}), [(6.0, "descriptor.sel", None, True)]),
        (
            model(hybrid(RADIAL, PAIRS)),
            [(5.0, "descriptor.list.1.sel", None, True), (4.0, "descriptor.list.0.sel", None, True)],
        ),
        (
            model(DPA2),
            [(5.0, "descriptor.repinit.nsel", None, False), (3.5, "descriptor.repformer.nsel", (40,), False)],
        ),
        (
            model({**DPA2, "repinit": {**DPA2["repinit"], "use_three_body": True}}),
            [
                (5.0, "descriptor.repinit.nsel", None, False),
                (4.0, "descriptor.repinit.three_body_sel", None, False),
                (3.5, "descriptor.repformer.nsel", (40,), False),
            ],
        ),
        (
            model(DPA3),
            [(5.0, "descriptor.repflow.e_sel", None, False), (3.5, "descriptor.repflow.a_sel", None, False)],
        ),
        (dpa4(), [(6.0, "descriptor.sel", None, False)]),
        (
            total(model(), {"type": "pairtab", "tab_file": "/t.txt", "rcut": 3.0, "sel": 20}),
            [(5.0, "models.0.descriptor.sel", None, True), (3.0, "models.1.sel", (20,), False)],
        ),
    ],
)
def test_each_cutoff_has_its_neighbours(block, wanted):
    found = TRAINER.shells(train(block))
    assert [(one.rcut, one.where, one.sel, one.counts_elements) for one in found] == [
        (rcut, f"train.model.{where}", sel, counts) for rcut, where, sel, counts in wanted
    ]


def test_dpa4_drops_no_neighbour_and_has_no_room_to_be_found():
    settings = train(dpa4())
    assert not TRAINER.limits_neighbours(settings)
    assert "sel" not in made(settings, sel=())["model"]["descriptor"]
    assert "sel" not in made(train(dpa4({"sel": "auto"})), sel=())["model"]["descriptor"], "its statistics are skipped"
    assert made(train(dpa4({"sel": 90})), sel=())["model"]["descriptor"]["sel"] == 90
    assert all(TRAINER.limits_neighbours(train(one)) for one in (model(), model(DPA2), model(DPA3), model(ATTENTION)))


def test_a_campaign_has_room_within_each_cutoff_from_its_densest_cell(data):
    found = campaign(data, model(hybrid(RADIAL, PAIRS, {**ATTENTION, "sel": 77})))
    alone = capacity.of_campaign(campaign(data, model()))
    outer, together, inner = capacity.of_campaign(found)
    assert (outer,) == alone
    assert together == (77,)
    assert inner[0] < outer[0]
    assert found.cutoff_A == 5.0
    held = geometry.capacities(found.train, found.type_map, (outer, together, inner))
    assert [(one.rcut, one.kinds) for one in held] == [(5.0, ("Cu",)), (5.0, geometry.ANY), (4.0, ("Cu",))]


def test_a_campaign_of_dpa4_has_no_room_to_seal_and_refuses_no_frame_for_it(data, tmp_path):
    found = campaign(data, dpa4({"rcut": 4.5}), backend="pytorch")
    assert capacity.of_campaign(found) == ()
    assert found.cutoff_A == 4.5
    store = Store.create(tmp_path / "c", found)
    store.open_iteration(0, found)
    (store.iteration_folder(0) / "sel.json").write_text("[]")
    assert store.sel() == ()
    assert capacity.of_models(found, store) == ()
    assert capacity.problems(found, store) == []


@pytest.mark.parametrize(("block", "outer"), [(model(DPA2), 41), (model(DPA3), 40)])
def test_longer_cutoffs_have_room_for_what_shorter_ones_have(block, outer):
    """DPA-2 ends with an AssertionError unless they have more."""
    descriptor = made(train(block), sel=((28,), (40,)))["model"]["descriptor"]
    found = descriptor["repflow"] if "repflow" in descriptor else {**descriptor["repinit"], **descriptor["repformer"]}
    first = found["e_sel"] if "e_sel" in found else descriptor["repinit"]["nsel"]
    assert (first, found.get("a_sel", found.get("nsel"))) == (outer, 40)


@pytest.mark.parametrize(
    ("block", "on_tensorflow"),
    [
        (model(), True),
        (model(RADIAL), True),
        (model(hybrid(PAIRS, RADIAL)), True),
        (model({**PAIRS, "resnet_dt": True}), False),
        (model({**PAIRS, "activation_function": "silu"}), False),
        (model(ATTENTION), False),
        (model({**ATTENTION, "tebd_input_mode": "strip"}), True),
        (model({**ATTENTION, "tebd_input_mode": "strip", "attn_layer": 2}), False),
        (model(hybrid(PAIRS, {**ATTENTION, "tebd_input_mode": "strip"})), False),
        (model(**TABLE), True),
        (dpa4(), False),
        (model(DPA3), False),
    ],
)
def test_models_are_compressed_if_every_descriptor_can_be(block, on_tensorflow):
    assert TRAINER.compresses(train(block)) == on_tensorflow


def test_lammps_keeps_a_map_of_atoms_for_compiled_models_alone():
    """DPA-4 ends LAMMPS without it; inputs of other models stay as they were."""
    for models, wanted in ((["a.pt2", "b.pt2"], 2), (["a.pth", "b.pth"], 1), (["a.pb"], 1)):
        lines = backends.atom_style(TRAINER.pair(models, ["Cu"], 10)).splitlines()
        assert lines == ["atom_style      atomic", "atom_modify     map yes"][:wanted]


def test_other_networks_are_others():
    before = train(model())
    assert TRAINER.same_networks(before, train(model(), n_steps=77))
    assert not TRAINER.same_networks(before, train(model({**PAIRS, "axis_neuron": 3})))
    assert not TRAINER.same_networks(before, train(model(fitting={"neuron": [16, 17]})))
    assert TRAINER.Mflop(before, ((60,),)) is not None
    assert TRAINER.Mflop(train(model(ATTENTION)), ((60,),)) is None


# --- how it is written ------------------------------------------------------------------------------------------------


def test_a_sealed_campaign_has_one_form_and_reads_back_equal(data):
    short = load_campaign("copper_emt")
    long = campaign(data, model())
    for one in (short, long):
        assert parse_campaign(yaml.safe_load(one.to_yaml()), where="x", is_sealed=True) == one
    assert "descriptor" not in long.train.model_dump()
    assert "rcut" in yaml.safe_load(long.to_yaml())["train"]["model"]["descriptor"]
    changes = difference(long, campaign(data, model({**PAIRS, "rcut": 5.5})))
    assert changes == ["train.model.descriptor.rcut: 5.0 -> 5.5"]
    fixed = tuple(f"train.{key}" for key in trainer_of(long.train).fixed)
    both = [*difference(short, long), *difference(long, short)]
    assert any(line.startswith(fixed) for line in both), "from one form to the other, too"


def test_the_short_form_beside_it_is_refused_and_null_takes_that_of_a_preset_away(tmp_path, data):
    with pytest.raises(ValidationError, match=r"descriptor, precision define them again - expected only one of them"):
        train(model(), descriptor={"rcut": 5.0}, precision="float32")
    data["train"] = {"preset": "quick", "model": model()}
    file = tmp_path / "my.yaml"
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match="from a preset: descriptor: null"):
        load_campaign(file)
    data["train"] |= {"descriptor": None, "fitting": None, "precision": None}
    file.write_text(yaml.safe_dump(data))
    found = load_campaign(file).train
    assert (found.model, found.n_steps) == (model(), 1500)


def test_a_table_is_found_from_the_folder_of_the_yaml(tmp_path, data):
    data["train"]["model"] = model(**{**TABLE, "use_srtab": "tables/zbl.txt"})
    file = tmp_path / "my.yaml"
    file.write_text(yaml.safe_dump(data))
    lost = load_campaign(file)
    assert TRAINER.problems(lost.train, Machine()) == [
        (
            "train.model.use_srtab: no file tables/zbl.txt - expected a table of pair energies, by a path relative to "
            "the folder of the YAML (with its suffix) or an absolute path - check the path"
        )
    ]
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "zbl.txt").write_text("0.1 1.0\n")
    found = load_campaign(file)
    table = str(tmp_path / "tables" / "zbl.txt")
    assert found.train.model["use_srtab"] == table
    assert TRAINER.problems(found.train, Machine()) == []
    (tmp_path / "tables").rename(tmp_path / "moved")
    now = moved(found, {table: str(tmp_path / "moved" / "zbl.txt")})
    assert now == found, "it keeps the name that it was begun with"
    assert TRAINER.problems(now.train, Machine()) == []
    assert made(now.train)["model"]["use_srtab"] == str(tmp_path / "moved" / "zbl.txt")


UNREADABLE = [
    (model({**PAIRS, "rcut": "six"}), "descriptor.rcut", "got 'six' - expected a distance above 0, Å"),
    (model({**PAIRS, "rcut": -6.0}), "descriptor.rcut", "got -6.0 - expected a distance above 0, Å"),
    (model({**PAIRS, "rcut": float("inf")}), "descriptor.rcut", "got inf - expected a finite number"),
    (model({**PAIRS, "sel": 60}), "descriptor.sel", "got 60 - expected a number per element, or auto"),
    (model({**PAIRS, "sel": [0]}), "descriptor.sel", "got [0] - expected a number per element, or auto"),
    (
        model({**PAIRS, "sel": "auto:1.5"}),
        "descriptor.sel",
        "got 'auto:1.5' - expected a number per element, or auto; ours is from the densest cell",
    ),
    (model({**ATTENTION, "sel": "many"}), "descriptor.sel", "got 'many' - expected a number of neighbours, or auto"),
    (
        model({**PAIRS, "type": "se_e2_b"}),
        "descriptor.type",
        "se_e2_b: no such descriptor - did you mean 'se_e2_r'?",
    ),
    (model(changed(PAIRS, type=None)), "descriptor", "type is missing - expected one of: "),
    (model({"type": "loc_frame"}), "descriptor.type", "loc_frame: its forces jump when neighbours swap order"),
    (model(hybrid(hybrid(PAIRS))), "descriptor.list.0.type", "hybrid: a hybrid in a hybrid - expected another"),
    (model(hybrid()), "descriptor.list", "got [] - expected a list of descriptors"),
    (model("se_e2_a"), "descriptor", "got 'se_e2_a' - expected a descriptor of DeePMD-kit"),
    (
        model(changed(DPA2, repformer=None)),
        "descriptor",
        "repformer is missing - expected the section repformer of dpa2",
    ),
    (model({"type": "dpa3", "repflow": {"e_rcut": 5.0}}), "descriptor.repflow", "e_rcut_smth is missing - expected a"),
    ({"fitting_net": FIT}, "", "descriptor is missing - expected a descriptor of DeePMD-kit"),
    (model(fitting=3), "fitting_net", "got 3 - expected a mapping of keys of DeePMD-kit"),
    ({"type": "frozen", "model_file": "a.pb"}, "type", "frozen: it learns nothing, and hides its number of neighbours"),
    (
        {"type": "pairwise_dprc"},
        "type",
        "pairwise_dprc: it is for QM/MM, for which a campaign has no data - expected dpa4, linear_ener",
    ),
    (total(), "models", "got [] - expected a list of models"),
    (total({"type": "pairtab", "tab_file": "a.txt", "rcut": 3.0, "sel": 9}), "models", "none of them learns anything"),
    (total(dpa4()), "models.0.type", "dpa4: it cannot be part of a sum - expected pairtab or standard"),
    (model(use_srtab=3), "use_srtab", "got 3 - expected the path of a table"),
    (model({**PAIRS, 3: 4}), "descriptor", "the key 3 is not a text - expected keys of DeePMD-kit"),
]


@pytest.mark.parametrize(("block", "where", "said"), UNREADABLE, ids=[str(i) for i in range(len(UNREADABLE))])
def test_a_block_that_cannot_be_read_is_refused_at_the_key_that_is_wrong(block, where, said, data):
    with pytest.raises(ConfigError) as error:
        campaign(data, block)
    at = ".".join(filter(None, ("train.model", where)))
    assert [line for line in error.value.problems if line.startswith(f"x: {at}: {said}")], error.value.problems
    assert len(error.value.problems) == 1 or where == "models"


def test_of_a_file_the_line_is_told(tmp_path, data):
    data["train"]["model"] = model({**PAIRS, "rcut": "six"})
    file = tmp_path / "my.yaml"
    file.write_text(yaml.safe_dump(data))
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "rcut: six" in text)
    with pytest.raises(ConfigError, match=rf"my.yaml:{line}: train.model.descriptor.rcut: got 'six' - expected a dist"):
        load_campaign(file)


# --- what it may not be -----------------------------------------------------------------------------------------------

IMPOSSIBLE = [
    (
        model({**PAIRS, "seed": 1}),
        "train.model.descriptor.seed: 1 - expected none: each member has its own, drawn from random_seed",
    ),
    (model(hybrid(PAIRS, {**RADIAL, "seed": 0})), "train.model.descriptor.list.1.seed: 0 - expected none"),
    (model(fitting={"seed": 5}), "train.model.fitting_net.seed: 5 - expected none"),
    (model(type_embedding={"seed": 5}), "train.model.type_embedding.seed: 5 - expected none"),
    (model({**PAIRS, "rcut_smth": 5.0}), "train.model.descriptor.rcut_smth: 5 Å - expected less than the cutoff, 5 Å"),
    (
        model({"type": "se_e2_a", "rcut": 1.5, "rcut_smth": 1.6}),
        "train.model.descriptor.rcut_smth: 1.6 Å - expected less th",
    ),
    (model({**PAIRS, "neuron": []}), "train.model.descriptor.neuron: is empty - expected at least one layer"),
    (model({**PAIRS, "neuron": [8, -3]}), "train.model.descriptor.neuron: [8, -3] - expected widths of 1 or more"),
    (model({**PAIRS, "neuron": 8}), "train.model.descriptor.neuron: got 8 - expected a list of whole numbers"),
    (model({**PAIRS, "axis_neuron": 17}), "train.model.descriptor.axis_neuron: 17 - expected at most the width of the"),
    (model(fitting={"n_neuron": []}), "train.model.fitting_net.n_neuron: is empty"),
    (
        model(fitting={"type": "dos"}),
        "train.model.fitting_net.type: dos - expected ener, for energies and forces",
    ),
    (
        model(fitting={"numb_fparam": 1}),
        "train.model.fitting_net.numb_fparam: 1 - expected none: labels have no fra",
    ),
    (model(spin={"use_spin": [True]}), "train.model.spin: a campaign has no magnetic forces as labels"),
    (model(modifier={"type": "dipole_charge"}), "train.model.modifier: it needs a second model, of dipoles"),
    (
        model({"type": "dpa4"}),
        (
            "train.model.descriptor.type: dpa4 in a model of another type trains but cannot be frozen "
            "- expected train.model.type: dpa4 - set it, with fitting_net.type: dpa4_ener"
        ),
    ),
    (
        model({**DPA2, "repformer": {**DPA2["repformer"], "rcut": 5.0}}),
        "train.model.descriptor.repformer.rcut: 5 Å - expected less than repinit.rcut, 5 Å - lower it",
    ),
    (
        model({**DPA3, "repflow": {**DPA3["repflow"], "a_rcut": 5.5}}),
        "train.model.descriptor.repflow.a_rcut: 5.5 Å - expected at most repflow.e_rcut, 5 Å - lower it",
    ),
    (
        model(use_srtab="/zbl.txt"),
        "train.model.smin_alpha: got None - expected a number, together with use_srtab - add it",
    ),
    (model(**{**TABLE, "sw_rmin": 1.3}), "train.model.sw_rmin: 1.3 Å - expected less than sw_rmax, 1.2 Å - lower it"),
    (total(model(), model(), weights=[1.0]), "train.model.weights: 1 for 2 models - expected one for each"),
    (total(model(), weights="max"), "train.model.weights: got 'max' - expected sum, mean or a list of numbers"),
    (
        total(model(), {"type": "pairtab", "tab_file": "/a.txt", "rcut": 3.0, "sel": 9}),
        "train.model.models.1.type: pairtab does not train on TensorFlow (DeePMD-kit 3.2 stops before the first step)",
    ),
    (
        model(bridging_method="ZBL"),
        "train.model.bridging_method: ZBL trains only with DPA-4 - expected train.model.type",
    ),
    (total(model(), shared_dict={"d": PAIRS}), "train.model.shared_dict: shared parts are not supported"),
    (model({**PAIRS, "rcut": 0.6}), "train.model.descriptor.rcut: 0.6 Å"),
]


@pytest.mark.parametrize(("block", "said"), IMPOSSIBLE, ids=[str(i) for i in range(len(IMPOSSIBLE))])
def test_what_would_only_fail_later_or_be_wrong_in_silence_is_refused(block, said):
    (found,) = TRAINER.impossible(train(block))
    assert found.startswith(said)
    assert found.count(" - ") == 2


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (model({**PAIRS, "sel": [40, 30]}), "train.model.descriptor.sel has 2 numbers for 1 elements"),
        (model(type_map=["Au"]), r"train.model.type_map is \['Au'\], but the campaign's is \['Cu'\]"),
        (total(model(type_map=["Au"])), r"train.model.models.0.type_map is \['Au'\]"),
    ],
)
def test_what_does_not_fit_the_elements_is_refused(block, said, data):
    with pytest.raises(ConfigError, match=said):
        campaign(data, block)
    assert campaign(data, model(type_map=["Cu"])).train.model["type_map"] == ["Cu"]


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (
            model(**TABLE),
            "train.model.descriptor.type: se_e2_a in a sum, or with a pair table, does not train on PyTo",
        ),
        (total(model(ATTENTION), model(PAIRS)), "train.model.models.1.descriptor.type: se_e2_a in a sum"),
        (model(RADIAL), "train.model.descriptor.type_one_side: false is trained as if it were true by pytorch"),
        (model(hybrid(PAIRS, RADIAL)), "train.model.descriptor.list.1.type_one_side: false"),
    ],
)
def test_what_pytorch_makes_another_thing_of_is_refused_there_alone(block, said):
    (found,) = TRAINER.impossible(train(block, backend="pytorch"))
    assert found.startswith(said)
    assert found.count(" - ") == 2
    assert not [*impossible(block, "tensorflow")]


@pytest.mark.parametrize("descriptor", [PAIRS, RADIAL])
def test_pytorch_exportable_wants_nets_of_one_element(descriptor):
    (found,) = TRAINER.impossible(train(model(descriptor), backend="pytorch-exportable"))
    assert found.startswith("train.model.descriptor.type_one_side: false cannot be frozen by pytorch-exportable")
    assert TRAINER.impossible(train(model({**descriptor, "type_one_side": True}), backend="pytorch-exportable")) == []
    assert not TRAINER.compresses(train(model({**descriptor, "type_one_side": True}), backend="pytorch-exportable"))


def test_tables_of_pairs_train_on_pytorch_beside_embedded_types():
    pairs = {"type": "pairtab", "tab_file": "/a.txt", "rcut": 3.0, "sel": 9}
    for block in (total(model(ATTENTION), pairs), model(ATTENTION, **TABLE), model(hybrid(PAIRS, ATTENTION), **TABLE)):
        assert TRAINER.impossible(train(block, backend="pytorch")) == []
    (found,) = TRAINER.impossible(train(total(pairs, model(ATTENTION)), backend="pytorch"))
    assert found.startswith("train.model.models.0.type: pairtab - expected it after a model that learns")


def test_se_a_tpe_wants_one_element(data):
    block = model({**PAIRS, "type": "se_a_tpe"})
    assert campaign(data, block)
    data["type_map"] = ["Cu", "Au"]
    with pytest.raises(ConfigError, match="se_a_tpe does not train on more than one element"):
        campaign(data, block)


def test_odd_numbers_are_asked_about():
    (found,) = TRAINER.unusual(train(model({**PAIRS, "rcut": 1.8})))
    assert found.startswith("train.model.descriptor.rcut: 1.8 Å - usual is 2.5 to 12 Å")


# --- what DeePMD-kit says itself --------------------------------------------------------------------------------------

#: Block, backend, sentence.
OF_DARGS = [
    (
        model({**changed(PAIRS, rcut=None), "rcutt": 5.0}),
        "tensorflow",
        "train.model.descriptor.rcutt: unknown to DeePMD-kit - did you mean 'rcut'? - rename or remove it",
    ),
    (
        model(desc=3),
        "tensorflow",
        "train.model.desc: unknown to DeePMD-kit - see its manual for valid keys - re",
    ),
    (
        model(hybrid(PAIRS, {**RADIAL, "axis": 3})),
        "tensorflow",
        "train.model.descriptor.list.1.axis: unknown to DeePMD-kit",
    ),
    ({"descriptor": PAIRS}, "tensorflow", "train.model.fitting_net: missing - expected by DeePMD-kit - add it"),
    (
        model({**PAIRS, "type_one_side": "yes"}),
        "tensorflow",
        "train.model.descriptor.type_one_side: got 'yes' - expected true or false - fix it",
    ),
    (
        model(fitting={"rcond": "x"}),
        "tensorflow",
        "train.model.fitting_net.rcond: got 'x' - expected null or a number - fix it",
    ),
    (
        model(fitting={"type": "enr"}),
        "tensorflow",
        "train.model.fitting_net.type: enr is not a kind that DeePMD-kit has here - did you mean 'ener'? - fix it",
    ),
    (
        dpa4({"so2_attn_res": "foo"}),
        "pytorch",
        (
            "train.model.descriptor.so2_attn_res: got 'foo' - expected what DeePMD-kit accepts (must be one of 'none', "
            "'independent', or 'dependent') - fix it"
        ),
    ),
    (
        model(DPA3),
        "tensorflow",
        ("train.model.descriptor.type: dpa3 is not on TensorFlow - expected PyTorch - train.backend: pytorch"),
    ),
    (
        model(hybrid(PAIRS, DPA2)),
        "tensorflow",
        "train.model.descriptor.list.1.type: dpa2 is not on TensorFlow",
    ),
    (
        model(pair_exclude_types=[[0, 0]]),
        "tensorflow",
        "train.model.pair_exclude_types: is not on TensorFlow - expected PyTorch - train",
    ),
    (
        model({**PAIRS, "type": "se_a_tpe"}),
        "pytorch",
        "train.model.descriptor.type: se_a_tpe is not on PyTorch - expected TensorFlow - train.backend: tensorflow",
    ),
    (
        model({**PAIRS, "activation_function": "tanhh"}),
        "tensorflow",
        "train.model.descriptor.activation_function: got 'tanhh' - did you mean 'tanh'? - fix it",
    ),
    (
        model(fitting={"precision": "float31"}),
        "tensorflow",
        "train.model.fitting_net.precision: got 'float31' - did you mean 'float32'? - fix it",
    ),
]
#: Blocks and backends that are right.
RIGHT = [
    (model(), "tensorflow"),
    (model({**PAIRS, "_comment": "mine", "sel": [60]}), "tensorflow"),
    (model({**PAIRS, "type": "se_a", "activation_function": "Tanh"}), "pytorch"),
    (model(hybrid(PAIRS, RADIAL)), "tensorflow"),
    (model(ATTENTION), "tensorflow"),
    (model(DPA2), "pytorch"),
    (model(DPA3), "pytorch"),
    (dpa4(), "pytorch"),
    (model(**TABLE), "tensorflow"),
    (model({**ATTENTION, "tebd_input_mode": "strip"}), "tensorflow"),
    (total(model(), model(RADIAL)), "tensorflow"),
]


@needs_deepmd
def test_deepmd_itself_is_asked_and_its_answer_told_in_our_words():
    """All in one process of it, which is most of the time; nothing else finds these."""
    asked = [(block, backend) for block, backend, _ in OF_DARGS] + RIGHT
    assert not any(TRAINER.impossible(train(block)) for block, backend in RIGHT if backend == "tensorflow")
    rooms = [[(1,)] * len(shells(block)) for block, _ in asked]
    whole = [filled(block, ["H"], sel, (1, 1, 1)) for (block, _), sel in zip(asked, rooms, strict=True)]
    found = dargs.findings([(one, backend) for one, (_, backend) in zip(whole, asked, strict=True)], sys.executable)
    said = [
        [dargs.sentence(one, block, backend) for one in each]
        for each, (block, backend) in zip(found, asked, strict=True)
    ]
    for one, (_, _, wanted) in zip(said, OF_DARGS, strict=False):
        assert len(one) == 1
        assert one[0].startswith(wanted)
        assert one[0].count(" - ") == 2
    assert said[len(OF_DARGS) :] == [[] for _ in RIGHT]


@needs_deepmd
def test_a_check_of_a_block_takes_less_than_a_second_of_one_core(data, tmp_path):
    block = model({**PAIRS, "rcutt": 5.0, "neuron": [9, 18]})
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    (found,) = TRAINER.impossible(train(block))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert found.startswith("train.model.descriptor.rcutt: unknown to DeePMD-kit")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"CPU-s of the check of a model block (RUSAGE_CHILDREN): {spent:.2f}")
    assert 0.0 < spent < 1.0
    machine = Machine(min_free_disk_GB=0.0)
    assert check(campaign(data, block), machine, tmp_path / "campaign").problems == [found]


def test_where_there_is_no_deepmd_a_note_says_so(data, monkeypatch):
    monkeypatch.setattr(dargs, "has_module", lambda *_: False)
    settings = campaign(data, model(fitting={"type": "ener", "unheard": 1})).train
    assert TRAINER.impossible(settings) == []
    assert TRAINER.problems(settings, Machine()) == []
    assert TRAINER.notes(settings, Machine()) == [
        "train.model is not checked here: no deepmd-kit in this interpreter or in machine.python"
    ]


@needs_deepmd
def test_the_interpreter_of_the_machine_is_asked_where_ours_cannot(data, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    machine = Machine(python=str(python))
    monkeypatch.setattr(dargs, "has_module", lambda _, python: python == machine.python)
    settings = campaign(data, model(fitting={"unheard": 1})).train
    assert TRAINER.impossible(settings) == []
    assert TRAINER.notes(settings, machine) == []
    (found,) = TRAINER.problems(settings, machine)
    assert found.startswith("train.model.fitting_net.unheard: unknown to DeePMD-kit")


def test_a_deepmd_that_does_not_run_is_told(data, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho broken; exit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(dargs, "has_module", lambda _, one: one == str(python))
    (found,) = TRAINER.problems(campaign(data, model()).train, Machine(python=str(python)))
    assert found.startswith("train.model: cannot be checked (")
