"""The table of quantities: what is impossible is refused, what is unusual is told, and no field is forgotten."""

import time
import types
from math import inf, nextafter
from pathlib import Path
from typing import Annotated, Union, get_args, get_origin

import ase.build
import ase.io
import numpy as np
import pytest
import yaml
from campaigns import SMALL, beside, machine_file, tiny

import activelearn
from activelearn.check import check, check_study
from activelearn.config import (
    Benchmark,
    Campaign,
    Machine,
    Study,
    bounds,
    load_benchmark,
    load_campaign,
    load_glass,
    load_label,
    load_machine,
    load_potential,
    load_series,
    parse_campaign,
    placed,
    preset_names,
)
from activelearn.config.section import Section
from activelearn.engines.references.abacus import Abacus
from activelearn.engines.references.aims import Aims
from activelearn.engines.references.cp2k import CP2K
from activelearn.engines.references.espresso import Espresso
from activelearn.engines.references.gpaw import GPAW
from activelearn.engines.references.vasp import VASP
from activelearn.errors import ConfigError
from activelearn.store import Store

ROOT = Path(__file__).resolve().parent.parent
MACHINE = Machine(**SMALL)
#: Numbers without a unit or a usual size: indices, seeds, places on an axis, meshes, and what others have measured.
FREE = {"random_seed", "gpus", "systems", "x", "kpoints", "kpts", "value", "uncertainty", "report"}
PARTS = {
    "benchmark": load_benchmark, "label": load_label, "machine": load_machine, "potential": load_potential,
    "series": load_series, "campaign": load_campaign,
}  # fmt: skip


def told(name, value):
    """Return what is said of one number of a quantity."""

    class One(Section):
        value: Annotated[float, bounds.of(name)]

    return bounds.outliers(One(value=value), "here")


@pytest.mark.parametrize("row", bounds.TABLE.values(), ids=bounds.TABLE)
def test_every_row_keeps_its_ranges(row):
    (least, most), (low, high) = row.possible, row.usual
    assert least <= low < high <= most
    for value in (low, high):
        assert told(row.name, value) == []
    for value in {least, most} - {low, high}:
        (found,) = told(row.name, value)
        assert found.is_possible
        assert f"usual is {row.written(row.usual)} ({row.name}; {row.source})" in str(found)
    for value in (nextafter(least, -inf), nextafter(most, inf)):
        (found,) = told(row.name, value)
        assert not found.is_possible
        assert str(found).startswith(f"here.value: {value:g}")
        assert str(found).endswith(f"expected {row.written(row.possible)} ({row.name}) - fix it")


def untied(kind, at):
    """Yield the places of numbers in a type that have no row."""
    origin, inside = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and issubclass(kind, Section):
        yield from untied_of(kind, at)
    elif origin is Annotated:
        if not any(isinstance(mark, bounds.Quantity) for mark in inside[1:]):
            yield from untied(inside[0], at)
    elif origin in {Union, types.UnionType, tuple, list}:
        for one in inside:
            yield from untied(one, at)
    elif origin is dict:
        yield from untied(inside[1], at)
    elif kind in {int, float}:
        yield at


def untied_of(section, at):
    for name, info in section.model_fields.items():
        if name not in FREE:
            yield from untied(info.rebuild_annotation(), f"{at}.{name}")


def test_every_number_of_our_yaml_has_a_row():
    sections = [Campaign, Study, Machine, VASP, GPAW, Espresso, CP2K, Abacus, Aims]
    found = {place for section in sections for place in untied_of(section, section.__name__)}
    assert {place for place in found if not place.startswith("VASP.incar") and not place.endswith(".input")} == set()


def test_a_number_without_a_row_is_seen():
    class Forgotten(Section):
        width_A: dict[str, tuple[float, ...] | None]

    assert list(untied_of(Forgotten, "F")) == ["F.width_A"]


@pytest.mark.parametrize("section", PARTS)
def test_every_preset_is_usual(section):
    for name in preset_names(section):
        assert list(map(str, bounds.outliers(PARTS[section](name)))) == [], name


@pytest.mark.parametrize("name", preset_names("glass"))
def test_every_preset_of_a_glass_is_usual(name):
    assert bounds.outliers(load_glass(name, series=load_series("na3ps4o").model_dump(mode="json"))) == []


def table():
    """Return the table as lines of Markdown."""
    lines = ["| quantity | unit | possible | usual | source |", "|---|---|---|---|---|"]
    for q in bounds.TABLE.values():
        ends = [f"{low:g} to {high:g}" for low, high in (q.possible, q.usual)]
        lines.append(f"| {' | '.join([q.name, q.unit, *ends, q.source])} |")
    return lines


def test_the_page_has_the_table():
    page = (ROOT / "docs" / "bounds.md").read_text()
    assert page.endswith("\n".join(table()) + "\n"), "print table() again"


def test_the_unit_that_was_meant_is_named():
    assert "was 0.025 meant in eV, 290.113 K?" in str(told("temperature", 0.025)[0])
    assert "was 98 meant in per cent, 0.98?" in str(told("scale of lengths", 98.0)[0])
    assert "was 150 meant in meV/Å, 0.15 eV/Å?" in str(told("force deviation", 150.0)[0])
    assert "was 0.6 meant in nm, 6 Å?" in str(told("cutoff of the descriptor", 0.6)[0])
    assert "meant" not in str(told("temperature", 1.0e7)[0])


def test_tags_of_vasp_have_bounds():
    settings = VASP(
        version="6.4.2", potcar_dir="/p", potcars={"Cu": "Cu"}, incar={"ENCUT": 30, "ISMEAR": 0, "SIGMA": 0.1}
    )
    (found,) = bounds.outliers(settings)
    assert str(found).startswith("incar.ENCUT: 30 eV (it is in eV: was 30 meant in Ry, 408.171 eV?) - expected 50")


# --- check ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def data():
    """The copper campaign as raw data."""
    return yaml.safe_load(load_campaign("copper_emt").to_yaml())


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        ("initial.scales", [], "initial.scales: is empty"),
        ("explore.start_scales", [1.0, 1.0], "explore.start_scales: [1.0, 1.0] - expected different values"),
        ("explore.stages.0.systems", [], "explore.stages.0.systems: is empty"),
        ("explore.stages.0.timestep_fs", 0.002, "explore.stages.0.timestep_fs: 0.002 fs (it is in fs: was 0.002 meant"),
        ("train.fitting", [], "train.fitting: is empty"),
        ("train.descriptor.axis_neuron", 400, "train.descriptor.axis_neuron: 400 - expected at most the width"),
        ("train.prefactors", {"energy": [0, 0], "force": [0, 0], "virial": [0, 0]}, "train.prefactors: are all 0"),
        ("train.min_new_frames", 100000, "train.min_new_frames: 100000 - expected at most what the campaign can"),
        ("initial.copies", 10**9, "initial.copies: 1e+09 - expected 1 to 100000 (number of copies)"),
        ("initial.copies", 10**5, None),
        ("initial.systems.0.n_atoms", 10**9, "initial.systems.0.n_atoms: 1e+09 - expected 1 to 20000 (number of atoms"),
        ("initial.systems.0.supercell", [50, 50, 50], "initial.systems.0: system Cu_Fm-3m 50x50x50: 500000 atoms"),
        ("explore.stages.0.n_steps", 10**9, "walks x conditions x frames: "),
        ("select.guards", {"min_distances_A": {"Zz-Cu": 1.5}}, "min_distances_A.Zz-Cu: Zz is not an element"),
        ("select.guards", {"min_distances_A": {"Cu-Cu": 250.0}}, "250 Å (it is in Å: was 250 meant in pm, 2.5 Å?)"),
        ("label.reference", {"functional": "foo", "d3": {"method": "foo"}}, "label.reference.d3.method: foo: dftd3"),
        ("machine", {"label_timeout_s": 1.0e12}, "machine.label_timeout_s: 1e+12 s - expected 0.001 to 1e+09 s"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_at_once(data, tmp_path, keys, value, said):
    machine = MACHINE
    if keys == "machine":
        machine = MACHINE.model_copy(update=value)
    else:
        *path, last = keys.split(".")
        place = data
        for key in path:
            place = place[int(key) if isinstance(place, list) else key]
        place[last] = {**place[last], **value} if isinstance(value, dict) and place.get(last) else value
        if last in {"n_atoms", "supercell"}:
            place["supercell" if last == "n_atoms" else "n_atoms"] = None
    began = time.monotonic()
    found = check(parse_campaign(data, where="x"), machine, tmp_path / "c")
    assert time.monotonic() - began < 10.0
    assert [line for line in found.problems if said is not None and said in line] or (said is None and found.unusual)


def test_a_structure_with_nan_is_refused_by_its_atom(data, tmp_path):
    atoms = ase.build.bulk("Cu", cubic=True)
    atoms.positions[1, 0] = np.nan
    ase.io.write(tmp_path / "nan.extxyz", atoms)
    data["initial"]["systems"] = [{"seed": str(tmp_path / "nan.extxyz")}]
    (line,) = check(parse_campaign(data, where="x"), MACHINE, tmp_path / "c").problems
    assert f"{tmp_path / 'nan.extxyz'}: atom 1 (from 0) is [nan, " in line


def test_neighbours_are_not_counted_where_there_are_too_many(data, tmp_path):
    atoms = ase.build.bulk("Cu", cubic=True) * (5, 5, 5)
    atoms.set_cell(atoms.cell * 0.2, scale_atoms=True)
    ase.io.write(tmp_path / "dense.extxyz", atoms)
    data["initial"] |= {"systems": [{"seed": str(tmp_path / "dense.extxyz"), "n_atoms": 4000}], "min_height_A": 3.0}
    data["train"]["descriptor"] |= {"rcut": 15.0}
    found = check(parse_campaign(data, where="x"), MACHINE, tmp_path / "c").problems
    assert any("neighbours per atom of Cu4000 within 15 Å, at the highest density" in line for line in found)


def test_a_study_is_judged_too(tmp_path):
    glass = load_glass("quick", series=load_series("na3ps4o").model_dump(mode="json"), n_atoms=10**9)
    study = Study(name="s", potentials=(load_potential("emt"),), glass=glass, benchmark=Benchmark())
    found = check_study(study, MACHINE).problems
    assert found == ["glass.n_atoms: 1e+09 - expected 1 to 1e+06 (number of atoms of a glass) - fix it"]


def test_a_sealed_campaign_is_read_whatever_it_says(data, tmp_path):
    data["explore"]["stages"][0]["timestep_fs"] = 0.002
    Store.create(tmp_path / "c", parse_campaign(data, where="x"))
    assert Store.open(tmp_path / "c").latest_campaign().explore.stages[0].timestep_fs == 0.002


def test_what_is_unusual_wants_to_be_accepted(tmp_path):
    campaign = tiny(tmp_path / "t.yaml", label__max_force=1.0)
    place = ("--folder", "c", "--machine", machine_file(tmp_path / "m.yaml"))
    done = beside("check", campaign, *place, cwd=tmp_path)
    line_n = campaign.read_text().splitlines().index("  max_force: 1.0") + 1
    what = f"{campaign}:{line_n}: label.max_force: 1 eV/Å (it is in eV/Å: was 1 meant in Hartree/Bohr, 51.4221 eV/Å?)"
    line = f"unusual: {what} - usual is 2 to 500 eV/Å (largest force of a label; DP-GEN examples)"
    assert done.returncode == 0, done.stderr
    assert line in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1].endswith(" --accept-unusual")
    done = beside("run", campaign, *place, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {line} - fix it, or add --accept-unusual if it is intended\n"
    assert not (tmp_path / "c").exists()


def test_lines_of_check_have_the_line_of_their_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("name: x\nexplore:\n  preset: luo2024\n  stages:\n  - name: s\n    n_walks: 5\n")
    said = {
        "explore.stages.0.n_walks: 5": "c.yaml:6: explore.stages.0.n_walks: 5",
        "unusual: explore.stages.0 (s): short": "unusual: c.yaml:5: explore.stages.0 (s): short",
        "explore.perturb.positions_A: 9": "params/explore/luo2024.yaml:",
        "machine.slots: 0": "--slots: 0",
        "packmol: no such program": "packmol: no such program",
        "glass x = 0: no": "glass x = 0: no",
    }
    found = placed(said, "c.yaml", "local")
    assert all(words in line for line, words in zip(found, said.values(), strict=True)), found
    assert [line for line in found[3:] if ".yaml" in line] == []


def test_slots_of_the_command_line_are_not_told_with_the_line_of_a_profile(tmp_path):
    file = tiny(tmp_path / "c.yaml")
    profile = machine_file(tmp_path / "m.yaml", slots=3)
    over = beside("check", file, "--machine", profile, "--slots", "5000", cwd=tmp_path)
    assert "\nunusual: --slots: 5000 - usual is" in over.stdout
    machine_file(profile, slots=5000)
    assert f"\nunusual: {profile}:" in beside("check", file, "--machine", profile, cwd=tmp_path).stdout


def test_a_run_from_python_tells_bounds_with_the_line_of_the_file(tmp_path):
    file = tiny(tmp_path / "c.yaml", train__n_steps=2_000_000_000)
    with pytest.raises(ConfigError, match=r"c\.yaml:\d+: train\.n_steps: 2e\+09 - expected"):
        activelearn.run(file, tmp_path / "run")
    assert not (tmp_path / "run").exists()
