"""`activelearn seeds`: the table, one crystal in full, JSON, filters, and files that a campaign takes."""

import json
import os
import subprocess

import pytest
from ase.io import read
from campaigns import beside, command, environment
from typer.testing import CliRunner

from activelearn.cli import app
from activelearn.seeds import load_seed, load_structure, seed_names


def said(*arguments) -> str:
    """Return what ``activelearn seeds ARGUMENTS`` prints into a pipe."""
    done = CliRunner().invoke(app, ["seeds", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def listed(*arguments) -> list[str]:
    """Return the ids in the table."""
    return [line.split()[0] for line in said(*arguments).splitlines() if line.split()[0] in seed_names()]


# --- the table --------------------------------------------------------------------------------------------------------


def test_every_seed_stands_in_the_table_once_in_the_order_of_the_formulas():
    ids = listed()
    assert sorted(ids) == seed_names()
    assert ids == sorted(ids, key=lambda name: (load_seed(name).formula, name))


def test_a_row_says_what_the_file_says():
    lines = said().splitlines()
    (row,) = [line for line in lines if line.startswith("Na4P2O7_P212121 ")]
    assert row.split()[1:6] == ["Na4P2O7", "sodium", "pyrophosphate,", "295", "K"]
    assert row.split()[6:] == ["P2_12_12_1", "2.595", "experiment", "file"]
    (row,) = [line for line in lines if line.startswith("SO2_Aea2 ")]
    assert row.split()[-4:] == ["Aea2", "1.922", "experiment", "memory"]
    (row,) = [line for line in lines if line.startswith("Na3PO3S_R3c ")]
    assert row.split()[-4:] == ["R3c", "2.474", "calculated", "derived"]
    assert lines[0].split() == ["id", "formula", "phase", "group", "g/cm3", "kind", "confidence"]
    assert f"{len(seed_names())} crystals" in lines[-1]


def test_a_pipe_gets_plain_lines_of_at_most_100_characters():
    text = said()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert "…" in text, "long names give way, ids and numbers do not"


def test_a_terminal_is_used_in_its_full_width(tmp_path):
    ours, theirs = os.openpty()
    env = environment(COLUMNS="220", TERM="xterm")
    done = subprocess.run(command("seeds", "--elements", "Na", "P", "S"), cwd=tmp_path, env=env, stdout=theirs)
    os.close(theirs)
    text = b""
    while chunk := _rest(ours):
        text += chunk
    os.close(ours)
    assert done.returncode == 0
    assert "beta-Na3PS4 cubic (ordered average: split Na 24f site put on 6b)" in text.decode()


def _rest(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the other end is closed
        return b""


@pytest.mark.parametrize("more", [[], ["--write", "new"]])
def test_an_element_that_no_crystal_has_is_told_beside_the_crystals_of_the_others(more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = said("--elements", "Li", "P", "S", *more)
    assert ("P4S10_P-1" in text) == (not more)
    told = "no shipped crystal of Li P S contains Li (shipped are crystals of Cu Na O P S); start from your own"
    assert told in text.splitlines()[-1]
    assert said("--elements", "Xe", *more).startswith("no shipped crystal of Xe contains Xe")
    assert json.loads(said("--elements", "Xe", "--json")) == []
    assert "no shipped" not in said("--elements", "Na", "P", "S", "O")


def test_elements_are_the_only_ones_in_the_crystals_listed():
    ids = listed("--elements", "Na", "P", "S")
    assert {"Na3PS4_P-421c", "Na_bcc", "P4S10_P-1", "NaP_P212121"} <= set(ids)
    assert all(load_seed(name).elements <= {"Na", "P", "S"} for name in ids)
    assert set(seed_names()) - set(ids) == {name for name in seed_names() if load_seed(name).elements & {"O", "Cu"}}
    assert listed("--elements", "Cu") == ["Cu_Fm-3m"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--elements", "li", "S", "X"], "--elements: got li X - expected chemical symbols - such as"),
        (["--elements"], "--elements: got none - expected chemical symbols - such as: --elements Cu Na O P S"),
        (["Na3PS4"], "seed Na3PS4: unknown - did you mean 'Na3PS4_"),
        (["P4S10_P1"], "did you mean 'P4S10_P-1'? - all of them: activelearn seeds"),
    ],
)
def test_what_is_not_there_is_refused_with_the_nearest(tmp_path, arguments, sentence):
    done = beside("seeds", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert sentence in done.stderr
    assert done.stdout == ""


# --- one crystal, and JSON --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Na3PO3S_R3c", "S_P212121", "P4O10_R3c"])
def test_one_seed_is_told_in_full(name):
    seed, text = load_seed(name), said(name)
    assert text.startswith(name)
    for part in (seed.name, seed.source, seed.provenance, seed.confidence, seed.note, seed.licence_note, seed.kind):
        assert part in text
    assert f"{seed.space_group.symbol} ({seed.space_group.number})" in text
    assert f"{seed.cell.a:g}  {seed.cell.b:g}  {seed.cell.c:g} Å" in text
    assert f"{seed.n_atoms} atoms of {len(seed.sites)} sites" in text
    for pair, length in seed.checks.shortest_A.items():
        assert f"{pair} {length:g}" in text


def test_several_seeds_are_told_one_after_the_other():
    text = said("Na_hcp", "Na_bcc", "Na_hcp")
    assert [line for line in text.splitlines() if not line.startswith(" ")] == ["Na_hcp", "Na_bcc"]


def test_json_holds_everything():
    found = json.loads(said("--json"))
    assert sorted(entry["id"] for entry in found) == seed_names()
    (entry,) = [entry for entry in found if entry["id"] == "Na3PS4_P-421c"]
    assert entry["space_group"]["number"] == 114
    assert entry["kind"] == "experiment"
    assert len(entry["sites"]) == 4
    assert entry["elements"] == ["Na", "P", "S"]
    assert entry["volume_A3"] == pytest.approx(6.952**2 * 7.0757, abs=1e-3)
    assert entry["heights_A"] == pytest.approx([6.952, 6.952, 7.0757], abs=1e-3)


def test_json_of_some_is_a_list_of_some():
    assert [entry["id"] for entry in json.loads(said("Na_bcc", "Cu_Fm-3m", "--json"))] == ["Na_bcc", "Cu_Fm-3m"]


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["vasp", "cif", "extxyz"])
def test_a_file_that_was_written_is_the_crystal_again(tmp_path, suffix):
    names = ["P4S10_P-1", "Na3PO4_P-421c", "S_R-3"]
    told = said(*names, "--write", tmp_path / "new" / "cells", "--format", suffix)
    assert told.startswith("3 files in ")
    for name in names:
        seed = load_seed(name)
        path = tmp_path / "new" / "cells" / f"{name}.{suffix}"
        found, wanted = load_structure(str(path), tmp_path), seed.to_atoms()
        assert found.symbols.formula.count() == wanted.symbols.formula.count()
        assert found.cell.cellpar() == pytest.approx(wanted.cell.cellpar(), abs=1e-6)
        # The same crystal, whatever the order of the atoms: all distances agree, element by element.
        for symbol in set(wanted.get_chemical_symbols()):
            ours, theirs = (a[[s == symbol for s in a.get_chemical_symbols()]] for a in (found, wanted))
            distances = [sorted(a.get_all_distances(mic=True).ravel()) for a in (ours, theirs)]
            assert distances[0] == pytest.approx(distances[1], abs=1e-4)


def test_a_poscar_lists_like_atoms_together(tmp_path):
    said("Na4P2O7_P212121", "--write", tmp_path)
    lines = (tmp_path / "Na4P2O7_P212121.vasp").read_text().splitlines()
    assert lines[5].split() == ["Na", "O", "P"]
    assert lines[6].split() == ["16", "28", "8"]


def test_an_extxyz_says_where_it_comes_from(tmp_path):
    said("O2_alpha_exp", "--write", tmp_path, "--format", "extxyz")
    assert read(tmp_path / "O2_alpha_exp.extxyz").info["kind"] == "model"


def test_all_of_some_elements_can_be_written(tmp_path):
    said("--elements", "Na", "S", "--write", tmp_path, "--format", "cif")
    assert {path.stem for path in tmp_path.iterdir()} == set(listed("--elements", "Na", "S"))


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "Na_fcc.vasp").write_text("mine")
    done = beside("seeds", "Na_bcc", "Na_fcc", "--write", ".", cwd=tmp_path)
    assert done.returncode == 2
    assert "Na_fcc.vasp: exists - expected new files" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["Na_fcc.vasp"], "not even the others"
    assert (tmp_path / "Na_fcc.vasp").read_text() == "mine"


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    done = beside("seeds", "Na_bcc", "--write", "file/cells", cwd=tmp_path)
    assert done.returncode == 2
    assert "file/cells: cannot be written (Not a directory)" in done.stderr
