"""What frozen models say of themselves, read without TensorFlow, and frames with more neighbours than they hold."""

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from activelearn.check import check_study
from activelearn.check.glass import check_glass
from activelearn.config import Machine, Potential, Study, load_glass
from activelearn.engines import frozen
from activelearn.engines.frozen import Frozen
from activelearn.frames import Frames
from activelearn.records import Ensemble

engines = pytest.mark.engines


def copper(*lattice_constants):
    """Frames of 4 atoms of fcc copper: 18 neighbours within 4 Å at 3.61 Å (12 at 2.55, 6 at 3.61), then 24 at 4.42."""
    return Frames.from_ase([bulk("Cu", a=a, cubic=True) for a in lattice_constants])


@pytest.fixture(scope="module")
def models(undisturbed):
    """The store of the tiny campaign, and one of its final models, frozen and compressed by DeePMD-kit."""
    store = undisturbed[0]
    member = store.result("final", store.iterations()[-1].index, Ensemble).members[0]
    return store, store.model(member.model), store.model(member.compressed)


def potential(*files):
    physics = {"functional": "none", "includes_dispersion": False}
    return Potential.model_validate({"name": "dp", "deepmd": {"models": [str(file) for file in files]}, **physics})


# --- reading ----------------------------------------------------------------------------------------------------------


@engines
def test_a_frozen_model_and_a_compressed_one_say_what_they_were_trained_with(models):
    store, model, compressed = models
    wanted = Frozen(store.latest_campaign().type_map, store.latest_campaign().train.descriptor.rcut, store.sel()[0])
    assert [frozen.read(model), frozen.read(compressed)] == [wanted, wanted]
    assert frozen.models_of(potential(model, compressed)) == [wanted], "those that are alike once"


@engines
def test_half_a_model_says_nothing(models, tmp_path):
    content = models[1].read_bytes()
    for n in (0, 1, 100, len(content) // 2):
        (tmp_path / f"{n}.pb").write_bytes(content[:n])
        assert frozen.read(tmp_path / f"{n}.pb") is None


@pytest.mark.parametrize("content", [b"", b"\xff" * 2000, b"PK\x03\x04 a zip", b"\x0a\x05abc", bytes(range(256))])
def test_what_is_no_graph_says_nothing(tmp_path, content):
    (tmp_path / "model.pth").write_bytes(content)
    assert frozen.read(tmp_path / "model.pth") is None
    assert frozen.read(tmp_path) is None
    assert frozen.read(tmp_path / "none.pb") is None


def message(number, content):
    return bytes([number << 3 | 2, len(content)]) + content


def node(name, tensor):
    return message(1, message(1, name) + message(5, message(1, b"value") + message(2, message(8, tensor))))


def graph(path: Path, type_map, rcut, sel):
    """Write the three constants as TensorFlow 2 does: an array as bytes, one number as a value."""
    numbers = b"".join(n.to_bytes(4, "little") for n in sel)
    stored = message(4, numbers) if len(sel) > 1 else bytes([7 << 3 | 2, 1, sel[0]])
    path.write_bytes(
        node(b"model_attr/tmap", b"\x08\x07" + message(8, type_map))
        + node(b"descrpt_attr/rcut", b"\x08\x02" + message(6, np.float64(rcut).tobytes()))
        + node(b"descrpt_attr/sel", b"\x08\x03" + stored)
    )
    return frozen.read(path)


def test_constants_are_read_however_they_are_stored(tmp_path):
    assert graph(tmp_path / "a.pb", b"Na P S", 6.0, [80, 20, 90]) == Frozen(("Na", "P", "S"), 6.0, (80, 20, 90))
    assert graph(tmp_path / "b.pb", b"Cu", 5.0, [88]) == Frozen(("Cu",), 5.0, (88,))


def test_a_descriptor_that_counts_all_elements_together_is_judged_so(tmp_path):
    found = graph(tmp_path / "a.pb", b"Cu Au", 4.0, [17])
    assert found == Frozen(("Cu", "Au"), 4.0, (17,))
    assert found.overflow(copper(3.61)) == (1, "all elements 18 of 17")
    assert found.overflow(copper(4.1)) == (0, ""), "12 neighbours: the next are at 4.10 Å"


def test_a_constant_without_its_tensor_says_nothing(tmp_path):
    attribute = message(5, message(1, b"value"))
    (tmp_path / "a.pb").write_bytes(message(1, message(1, b"model_attr/tmap") + attribute))
    assert frozen.read(tmp_path / "a.pb") is None


def test_a_sel_that_cannot_be_understood_is_none(tmp_path):
    assert graph(tmp_path / "a.pb", b"Na P S", 6.0, [80, 20]) == Frozen(("Na", "P", "S"), 6.0, ())


# --- PyTorch ----------------------------------------------------------------------------------------------------------

SE_A = {"type": "se_e2_a", "rcut": 4.5, "rcut_smth": 0.5, "sel": [60, 50]}
DPA2 = {"type": "dpa2", "repinit": {"rcut": 4.5, "nsel": 60}, "repformer": {"rcut": 4.0, "nsel": 24}}
CU_AU = ("Cu", "Au")


class Opens:
    """Makes a file when its pickle is carried out, as any pickle might."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def torch_file(path, descriptor, *more, entry="frozen/data.pkl", **block):
    """Write a zip as TorchScript does: a pickle in which the model block is one text."""
    script = json.dumps({"type_map": ["Cu", "Au"], "descriptor": descriptor, "fitting_net": {}, **block})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, pickle.dumps({"a": "{no JSON", "model_def_script": script, "more": more}, protocol=2))
        archive.writestr("frozen/constants.pkl", b"")
    return path


def exported(path, descriptor, kind, **block):
    """Write a zip as the exporter of PyTorch does: the model block is an entry."""
    with zipfile.ZipFile(path, "w") as archive:
        script = {"type_map": ["Cu", "Au"], "descriptor": descriptor, "fitting_net": {}, **block}
        archive.writestr("model/extra/model_def_script.json", json.dumps(script))
        archive.writestr("model/extra/metadata.json", json.dumps({"lower_input_kind": kind}))
    return path


@pytest.mark.parametrize(
    ("descriptor", "wanted"),
    [
        (SE_A, Frozen(CU_AU, 4.5, (60, 50))),
        ({"type": "se_atten", "rcut": 5.0, "sel": 70}, Frozen(CU_AU, 5.0, (70,))),
        ({"type": "dpa1", "rcut": 5.0, "sel": [40, 30]}, Frozen(CU_AU, 5.0, (70,))),
        (DPA2, Frozen(CU_AU, 4.5, (60,), (Frozen(CU_AU, 4.0, (24,)),))),
        (
            {"type": "hybrid", "list": [SE_A, SE_A, {"type": "se_e2_r", "rcut": 6.0, "sel": [80, 70]}]},
            Frozen(CU_AU, 6.0, (80, 70), (Frozen(CU_AU, 4.5, (60, 50)),)),
        ),
        ({"type": "dpa4", "rcut": 4.5, "sel": 60}, Frozen(CU_AU, 4.5)),
        ({**SE_A, "sel": [60]}, Frozen(CU_AU, 4.5, (60,))),
        ({**SE_A, "sel": [60, 50, 40]}, Frozen(CU_AU, 4.5)),
    ],
    ids=["se_e2_a", "dpa1", "dpa1-by-element", "dpa2", "hybrid", "dpa4", "one-number", "too-many"],
)
def test_a_model_of_pytorch_says_it_in_its_model_block(tmp_path, descriptor, wanted):
    assert frozen.read(torch_file(tmp_path / "a.pth", descriptor)) == wanted


def test_a_pickle_is_taken_apart_and_never_carried_out(tmp_path):
    made = tmp_path / "made"
    assert frozen.read(torch_file(tmp_path / "a.pth", SE_A, Opens(made))) == Frozen(CU_AU, 4.5, (60, 50))
    assert not made.exists()


def test_an_exported_model_cuts_as_it_was_exported(tmp_path):
    dpa1 = {"type": "se_atten", "rcut": 5.0, "sel": 70}
    assert frozen.read(exported(tmp_path / "a.pt2", SE_A, "nlist")) == Frozen(CU_AU, 4.5, (60, 50))
    assert frozen.read(exported(tmp_path / "b.pt2", dpa1, "graph")) == Frozen(CU_AU, 5.0), "a graph has all neighbours"
    dpa4 = {"rcut": 4.5, "sel": 60}
    assert frozen.read(exported(tmp_path / "c.pt2", dpa4, "edge_vec", type="dpa4")) == Frozen(CU_AU, 4.5)


@pytest.mark.parametrize("spoil", ["cut", "no-block", "other", "bad-json", "unknown"])
def test_half_a_model_of_pytorch_says_nothing(tmp_path, spoil):
    path = torch_file(tmp_path / "a.pth", {"type": "se_x"} if spoil == "unknown" else SE_A)
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:200])
    if spoil in ("no-block", "other", "bad-json"):
        text = {"no-block": "text", "other": '{"type_map": 3}', "bad-json": '{"type_map": '}[spoil]
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("frozen/data.pkl", pickle.dumps([text]))
    assert frozen.read(path) is None


def test_neighbours_are_counted_within_each_cutoff(tmp_path):
    found = frozen.read(torch_file(tmp_path / "a.pth", DPA2))
    assert found.overflow(copper(3.61, 4.2)) == (0, ""), "18 within 4 Å, 42 within 4.5"
    assert found.overflow(copper(3.1)) == (1, "all elements 42 of 24")
    assert frozen.crowding(potential(tmp_path / "a.pth"), [copper(3.1, 3.61)])["overflow_share"] == 0.5


# --- judging ----------------------------------------------------------------------------------------------------------


def test_frames_are_counted_and_the_first_says_by_how_many():
    model = Frozen(("Cu",), 4.0, (18,))
    assert model.overflow(copper(3.61, 3.5, 3.2, 3.61, 3.2)) == (2, "Cu 42 of 18"), "24 more at 3.92 Å"
    assert model.overflow(copper(3.61, 4.5)) == (0, "")
    assert model.overflow(copper(3.61)[:0]) == (0, "")


def test_a_cell_that_has_collapsed_is_counted_without_its_neighbours():
    count, words = Frozen(("Cu",), 4.0, (18,)).overflow(copper(3.61, 0.2))
    assert count == 1
    assert words == f"Cu {np.ceil(4 / 0.2**3 * 4 / 3 * np.pi * 4.0**3):.0f} of 18"


def test_a_molecule_needs_no_cell():
    atoms = Frames(("Cu",) * 3, np.zeros((1, 3, 3)), np.array([[[0.0, 0, 0], [0, 0, 3.9], [0, 0, 7.8]]]), (False,) * 3)
    assert Frozen(("Cu",), 4.0, (1,)).overflow(atoms) == (1, "Cu 2 of 1")
    assert Frozen(("Cu",), 4.0, (2,)).overflow(atoms) == (0, "")


def test_frames_that_are_not_finite_or_not_of_its_elements_are_not_counted():
    model, frames = Frozen(("Cu",), 4.0, (12,)), copper(3.61, 3.61)
    frames.positions[0, 0, 0] = np.nan
    assert model.overflow(frames) == (1, "Cu 18 of 12")
    assert Frozen(("Au",), 4.0, (12,)).overflow(frames) == (0, "")


@engines
def test_a_potential_is_judged_by_its_models(models):
    dp = potential(models[2])
    fits, full = copper(3.6), copper(2.8, 2.7, 3.6)  # at 2.8 Å 54 neighbours, at 2.7 Å 54
    assert models[0].sel() == ((48,),)
    assert frozen.crowding(dp, [fits]) == {"n_overflow": 0, "overflow_share": 0.0, "overflow": ""}
    found = frozen.crowding(dp, [fits, full])
    assert found == {"n_overflow": 2, "overflow_share": 0.5, "overflow": "Cu 54 of 48"}


def test_what_has_no_sel_is_not_judged():
    toy = {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False}
    emt = Potential.model_validate({"name": "toy", "ase": toy})
    assert frozen.crowding(emt, [copper(2.0)]) == {"n_overflow": 0, "overflow_share": None, "overflow": ""}


# --- elements ---------------------------------------------------------------------------------------------------------


@engines
def test_a_series_with_an_element_that_the_models_lack_is_refused_at_check(models):
    made = load_glass("quick", series="na4p2s7o", x=[2.5], n_atoms=130)
    study = Study(name="toy", potentials=(potential(models[1]),), glass=made)
    _, problems = check_glass(study, study.glass)
    (line,) = problems
    assert line.startswith("potential dp: does not know Na, O, P, S of series na4p2s7o - expected all its elements - ")


@engines
def test_check_says_what_the_models_hold(models):
    study = Study.model_validate(
        {"name": "toy", "potentials": [potential(models[1])], "benchmark": {"crystals": {"seeds": ["Cu_Fm-3m"]}}}
    )
    facts = check_study(study, Machine(), here=False).facts
    assert facts[0].endswith("1 DeePMD model, deviation not monitored, sel Cu 48 within 4 Å, MD by LAMMPS")


def test_a_potential_of_emt_says_which_elements_it_has():
    from ase.calculators.emt import parameters

    emt = {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False}
    potential = Potential.model_validate({"name": "emt", "ase": emt})
    assert frozen.elements_of(potential) == parameters.keys()
    assert frozen.unknown_to(potential, ["Cu", "Na"]) == ["Na"]
    other = potential.model_copy(update={"ase": potential.ase.model_copy(update={"python": "/other/python"})})
    assert frozen.unknown_to(other, ["Cu", "Na"]) == [], "another interpreter may have another EMT"
