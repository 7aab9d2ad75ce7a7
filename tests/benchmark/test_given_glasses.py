"""Glasses that one has: the table of those that are given is the table of those that are made; and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ase.io import read, write
from campaigns import in_process
from carried import one_worker
from made_glasses import SERIES, folder_of_products, glass_path
from test_every_glass import ASKED, DENSE, DYNAMICS, LJ, OFF, SHORT, board_of, product_of, study_of
from test_html_page import unpacked

from activelearn import study as studies
from activelearn.benchmark.property import Context
from activelearn.config.yaml12 import dump
from activelearn.engines.process import Slot
from activelearn.records import Glasses
from activelearn.store import StudyStore
from activelearn.store.files import read_object
from activelearn.store.glass_product import GlassProduct
from activelearn.store.study import GLASS, ONCE

STRUCTURE = {**OFF, "density": True, "rdf": {}, "network": {}, "coordination": True, "free_volume": True}


@pytest.fixture
def slot(tmp_path, machine):
    return Slot(machine, tmp_path)


@pytest.fixture
def made(tmp_path, slot):
    """A study with two glasses that were made, measured as always; its scoreboard and its store."""
    shaken = np.random.default_rng(5).normal(scale=0.03, size=DENSE.positions.shape)
    other = DENSE.__class__(DENSE.symbols, DENSE.cell * 1.01, DENSE.positions * 1.01 + shaken)
    products = [GlassProduct(glass_path(one, one.volume[len(one) // 2 :])) for one in (DENSE, other)]
    return board_of(tmp_path / "made", STRUCTURE, products, slot)


def numbers(board):
    return {
        (r.name, json.dumps(r.condition, sort_keys=True)): (r.value, r.uncertainty, r.n_samples) for r in board.results
    }


def asked_file(folder, **asked):
    path = folder / "asked.yaml"
    path.write_text(dump({**OFF, "dynamics": DYNAMICS, **asked}))
    return path


def series_file(folder):
    path = folder / "mine.yaml"
    path.write_text(dump(study_of({}).glass.series.model_dump(mode="json", exclude_none=True)))
    return path


def measured(folder, *arguments, asked):
    """Run the command, and return its scoreboard."""
    to = folder / "given"
    done = in_process("benchmark", *arguments, "--benchmark", asked_file(folder, **asked), "--folder", to)
    assert done.returncode == 0, done.stderr
    return studies.scoreboard_of(StudyStore.open(to)), done.stdout


def test_the_glasses_of_a_study_give_the_same_table_to_the_last_digit(made, tmp_path):
    board, store = made
    found, said = measured(tmp_path, "--glasses", store.folder, asked=STRUCTURE)
    assert numbers(found) == numbers(board)
    assert len(numbers(board)) > 20
    assert found.potentials == ("toy (EMT)",), "who made them"
    assert "network" in found.asked
    assert "note: not measured" not in said
    assert (tmp_path / "given" / "tables" / "scoreboard.md").is_file()


def test_the_frames_of_a_glass_as_extxyz_give_the_same_table(made, tmp_path):
    board, store = made
    images = []
    for glass in store.result(GLASS, ONCE, Glasses).glasses:
        atoms = studies_frames(store, glass)
        for image in atoms:
            image.info = {"id": glass.id, "potential": glass.potential, "x": glass.x, "replica": glass.replica}
        images += atoms
    write(tmp_path / "my.extxyz", images)
    found, said = measured(
        tmp_path, "--glasses", tmp_path / "my.extxyz", "--series", series_file(tmp_path), asked=STRUCTURE
    )
    mine, of_before = numbers(found), numbers(board)
    assert mine.keys() == of_before.keys()
    for key, (value, error, n) in of_before.items():
        assert mine[key][0] == pytest.approx(value, rel=1e-6, abs=1e-9), key
        assert mine[key][1] == pytest.approx(error, rel=1e-4, abs=1e-7), key
        assert mine[key][2] == n
    assert "Na12P4S16 (x = 0), 2 frames of my.extxyz, made by toy (EMT)" in said


@pytest.mark.parametrize("form", ["folder", "extxyz"])
def test_the_kept_glasses_of_the_quickstart_give_the_table_that_was_kept(form, tmp_path):
    """The record of a real campaign: its table was written when its glasses were made."""
    store = StudyStore.open(unpacked("49996e5-quickstart.tar.gz", tmp_path / "kept") / "study-002")
    board = studies.scoreboard_of(store)
    given = ["--glasses", store.folder]
    if form == "extxyz":
        (glass,) = store.result(GLASS, ONCE, Glasses).glasses
        images = studies_frames(store, glass)
        for image in images:
            image.info = {"id": glass.id, "potential": glass.potential, "x": glass.x, "replica": glass.replica}
        write(tmp_path / "my.extxyz", images)
        given = ["--glasses", tmp_path / "my.extxyz", "--series", "na3ps4o"]
    done = in_process("benchmark", *given, "--folder", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    mine, kept = numbers(studies.scoreboard_of(StudyStore.open(tmp_path / "again"))), numbers(board)
    assert mine.keys() == kept.keys()
    assert len(kept) > 20
    for key, (value, *_) in kept.items():
        is_density = form == "extxyz" and key[0] in {"density", "volume_per_atom"}  # of frames, not of thermo rows
        assert mine[key][0] == pytest.approx(value, rel=1e-3 if is_density else 1e-6, abs=1e-9), key


def studies_frames(store, glass):
    from activelearn.store.glass_product import path_of

    return path_of(store, glass).analysed_frames.without_labels().to_ase()


def test_the_same_command_continues_and_another_file_of_that_name_is_refused(tmp_path):
    write(tmp_path / "my.extxyz", DENSE.to_ase())
    options = ("--glasses", tmp_path / "my.extxyz", "--series", series_file(tmp_path))
    measured(tmp_path, *options, asked={"rdf": {}})
    measured(tmp_path, *options, asked={"rdf": {}})
    write(tmp_path / "my.extxyz", DENSE[1:].to_ase())
    done = in_process(
        "benchmark", *options, "--benchmark", asked_file(tmp_path, rdf={}), "--folder", tmp_path / "given"
    )
    assert done.returncode == 2
    assert "my.extxyz is not what this study started with" in done.stderr


def test_frames_without_an_id_are_one_glass_of_each_composition_and_each_file_another(tmp_path):
    for name, rows in (("a", slice(0, 2)), ("b", slice(2, 4))):
        write(tmp_path / f"{name}.extxyz", DENSE[rows].to_ase())
    options = [word for name in "ab" for word in ("--glasses", tmp_path / f"{name}.extxyz")]
    found, _ = measured(tmp_path, *options, "--series", series_file(tmp_path), asked={"density": True})
    assert [(g.id, g.potential, g.x, g.n_atoms) for g in found.glasses] == [("a", "a", 0.0, 32), ("b", "b", 0.0, 32)]
    assert all("not known whether it melted" in g.melted and g.stamp == "not judged" for g in found.glasses)


def test_without_a_potential_what_runs_one_is_named_and_left_out(tmp_path):
    write(tmp_path / "my.extxyz", DENSE.to_ase())
    options = ("--glasses", tmp_path / "my.extxyz", "--series", series_file(tmp_path))
    _, said = measured(tmp_path, *options, asked={"rdf": {}, "bulk_modulus": SHORT})
    assert "note: not measured, since no potential is given to run (--potentials): bulk_modulus" in said
    done = in_process("benchmark", *options, "--benchmark", asked_file(tmp_path, bulk_modulus=SHORT, maps=False))
    assert done.returncode == 2
    assert "bulk_modulus need a potential to run" in done.stderr


@pytest.mark.engines
def test_each_potential_is_run_with_each_glass_that_is_given(made, slot, tmp_path):
    """Its bulk modulus by the potential that made it is one column; that by another is another."""
    glass = product_of("whole")
    asked = {**OFF, "bulk_modulus": SHORT}
    folder_of_products(tmp_path / "source", study_of({**asked, "density": True}), [glass])
    for name, style in (("toy (EMT)", "0.0103 3.4"), ("softer", "0.0080 3.4")):
        of_lammps = {**LJ["lammps"], "pair_coeff": [f"* * {style}"]}
        (tmp_path / f"{name[:4]}.yaml").write_text(dump({**LJ, "name": name, "lammps": of_lammps}))
    with one_worker(tmp_path):
        found, _ = measured(
            tmp_path,
            *(tmp_path / "toy .yaml", tmp_path / "soft.yaml", "--glasses", tmp_path / "source"),
            asked={"density": True, "bulk_modulus": SHORT},
        )
    by = {r.condition["potential"]: r.value for r in found.results if r.name == "bulk_modulus"}
    assert by.keys() == {"toy (EMT)", "softer"}
    assert 0.0 < by["softer"] < by["toy (EMT)"]
    assert {r.condition["potential"] for r in found.results if r.name == "density"} == {"toy (EMT)"}, "one structure"


def test_the_force_deviations_of_a_glass_are_those_of_the_potential_that_made_it(tmp_path):
    """Beside the errors of another potential they would be taken for its own."""
    frames = replace(DENSE, origin=DENSE.origin.copy())
    frames.origin["max_devi_f"] = 0.2
    product = GlassProduct(glass_path(frames, frames.volume))
    folder_of_products(tmp_path / "source", study_of({**OFF, "density": True}), [product])
    for name in ("toy (EMT)", "softer"):
        (tmp_path / f"{name[:4]}.yaml").write_text(dump({**LJ, "name": name}))
    potentials = (tmp_path / "toy .yaml", tmp_path / "soft.yaml")
    measured(tmp_path, *potentials, "--glasses", tmp_path / "source", asked={"density": True})
    store = StudyStore.open(tmp_path / "given")
    context = Context(store.study, store, runs_potential=True)
    of = {glass.potential: context.path(glass).frames.origin["max_devi_f"] for glass in context.glasses}
    assert (of["toy (EMT)"] == 0.2).all()
    assert np.isnan(of["softer"]).all()


def spoilt(**changes):
    image = DENSE[0].to_ase()[0]
    for name, change in changes.items():
        change(image) if callable(change) else setattr(image, name, change)
    return image


def _nan(image):
    image.positions[3, 1] = np.nan


def _overlap(image):
    image.positions[1] = image.positions[0] + 0.1


def _chlorine(image):
    image.symbols[0] = "Cl"


def _with(**info):
    return [spoilt(x=lambda image, info=one: image.info.update(info)) for one in _spread(info)]


def _spread(info):
    n = max(len(value) if isinstance(value, list) else 1 for value in info.values())
    return [{key: value[k] if isinstance(value, list) else value for key, value in info.items()} for k in range(n)]


BAD = {
    "another x": (_with(x=7.5), "x=7.5 in a comment line is not in series toy (x = 0, 0.5, 1) - "),
    "x in words": (_with(x="none"), "x=none in a comment line - expected a number - "),
    "half a replica": (_with(replica=0.5), "replica=0.5 in a comment line - expected a whole number from 0 on - "),
    "a negative replica": (_with(replica=-1), "replica=-1 in a comment line - expected a whole number from 0 on - "),
    "a negative rate": (_with(cooling_rate_K_per_ps=-5), "cooling_rate_K_per_ps=-5 in a comment line - expected a num"),
    "no rate": (_with(cooling_rate_K_per_ps=float("nan")), "cooling_rate_K_per_ps=nan in a comment line - expected a"),
    "a rate in words": (_with(cooling_rate_K_per_ps="fast"), "cooling_rate_K_per_ps=fast in a comment line - expect"),
    "two potentials in one": (_with(potential=["a", "b"]), "its frames have potential=a and potential=b, and are one"),
    "two replicas in one": (_with(replica=[0, 1]), "its frames have replica=0 and replica=1, and are one glass - exp"),
    "two rates in one": (_with(id="g", cooling_rate_K_per_ps=[1.0, 2.0]), "g: its frames have cooling_rate_K_per_ps="),
    "no cell": (spoilt(pbc=False), "frame 0: no periodic cell - "),
    "not a number": (spoilt(x=_nan), "frame 0: a coordinate is not finite - "),
    "overlapping atoms": (spoilt(x=_overlap), "frame 0: atoms 0 and 1 overlap, 0.17 Å apart - "),
    "another element": (spoilt(x=_chlorine), "Cl1Na12P4S15 is no composition of series toy (x = 0, 0.5, 1) - "),
    "another composition": (DENSE[0].to_ase()[0][:16], "is no composition of series toy"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_glass_costs_a_line(what, tmp_path):
    image, line = BAD[what]
    write(tmp_path / "bad.extxyz", image)
    done = in_process("benchmark", "--glasses", tmp_path / "bad.extxyz", "--series", series_file(tmp_path))
    assert done.returncode == 2
    assert f"{tmp_path}/bad.extxyz: " in done.stderr
    assert line in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_other_bad_input_costs_a_line(tmp_path):
    series, mine = series_file(tmp_path), tmp_path / "my.extxyz"
    mine.write_bytes(b"\x00\x01 no structure")
    write(tmp_path / "good.extxyz", DENSE.to_ase())
    (tmp_path / "empty").mkdir()
    mixed = [DENSE[0].to_ase()[0], DENSE[0].to_ase()[0][::-1]]
    write(tmp_path / "mixed.extxyz", mixed)
    for arguments, line in (
        (("--glasses", mine, "--series", series), "cannot be read ("),
        (("--glasses", tmp_path / "none.extxyz", "--series", series), "no such file - "),
        (("--glasses", tmp_path / "empty", "--series", series), "no study - "),
        (("--glasses", tmp_path / "good.extxyz"), "--glasses without --series - "),
        (
            ("--glasses", tmp_path / "good.extxyz", "--series", series, "--x", "0"),
            "--glasses together with --glass, --x",
        ),
        (("--glasses", tmp_path / "good.extxyz", mine, "--series", series), "a structure file, not a potential - "),
        (("--glasses", tmp_path / "mixed.extxyz", "--series", series), "their atoms in different orders - "),
        (
            ("--glasses", tmp_path / "good.extxyz", "--glasses", tmp_path / "good.extxyz", "--series", series),
            "good names 2 glasses",
        ),
    ):
        done = in_process("benchmark", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert line in done.stderr
        assert "Traceback" not in done.stderr


def test_the_series_of_a_study_is_taken_from_it_and_its_losses_are_told(tmp_path):
    folder_of_products(tmp_path / "source", study_of(STRUCTURE), [product_of("whole"), product_of("blown up")])
    to = tmp_path / "given"
    done = in_process(
        "benchmark", "--glasses", tmp_path / "source", "--benchmark", asked_file(tmp_path, rdf={}), "--folder", to
    )
    assert done.returncode == 3, done.stderr
    assert "died in quench: non-finite" in done.stdout
    assert read_object(StudyStore(to).folder / "potentials.json") == {}


def test_glasses_in_the_yaml_of_a_study(tmp_path):
    write(tmp_path / "my.extxyz", DENSE.to_ase())
    study = {"name": "mine", "potentials": [], "glasses": {"files": ["my.extxyz"], "series": SERIES}}
    (tmp_path / "study.yaml").write_text(dump({**study, "benchmark": {**OFF, "density": True}}))
    done = in_process("benchmark", "--study", tmp_path / "study.yaml", "--folder", tmp_path / "given")
    assert done.returncode == 0, done.stderr
    assert len(read(tmp_path / "given" / "glass" / "my.extxyz", index=":")) == 1
    (tmp_path / "study.yaml").write_text(dump({**study, "glasses": None, "benchmark": {**OFF, "density": True}}))
    done = in_process("benchmark", "--study", tmp_path / "study.yaml", "--folder", tmp_path / "other")
    assert (done.returncode, "potentials: none - expected one or more" in done.stderr) == (2, True)


def test_the_asked_properties_are_those_of_the_other_test():
    assert set(STRUCTURE) - {"maps"} <= {name.split(" ")[0] for name in ASKED}


def test_a_porous_glass_that_is_given_as_a_file_is_measured_as_one(tmp_path):
    """`activelearn glass` writes such files: glass/<id>-pore.extxyz, with that id in the comment line."""
    image = DENSE[-1:].to_ase()[0]
    image.info = {"id": "cut-pore", "potential": "toy", "x": 0.0}
    write(tmp_path / "cut-pore.extxyz", image)
    options = ("--glasses", tmp_path / "cut-pore.extxyz", "--series", series_file(tmp_path))
    found, said = measured(tmp_path, *options, asked={"density": True, "rdf": {}})
    assert "glass cut-pore: Na12P4S16 (x = 0), 1 frame of cut-pore.extxyz, made by toy" in said
    assert [(g.id, g.is_porous) for g in found.glasses] == [("cut-pore", True)]
    assert found.results
    assert all(r.value is not None for r in found.results)
