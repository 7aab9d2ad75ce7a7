"""``activelearn labels`` as a user has it."""

import json
import re
import sys
from types import SimpleNamespace

import pytest
from campaigns import cli
from conftest import rattled_copper

from activelearn.cli import main
from activelearn.writing import write_extxyz

DECLARED = "functional=PBE,includes_dispersion=false,code=VASP-6.4.2"


@pytest.fixture
def labels(tmp_path, monkeypatch, capsys):
    """Run ``activelearn labels ARGUMENTS`` in this process (a new one costs seconds) beside copper.extxyz."""
    write_extxyz([rattled_copper(3)], tmp_path / "copper.extxyz")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["activelearn", "labels", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return SimpleNamespace(returncode=ended.value.code, stdout=printed.out, stderr=printed.err)

    return run


@pytest.fixture
def ledger(labels, tmp_path):
    """A ledger of three copper frames under a declared reference."""
    done = labels("import", "ledger", "copper.extxyz", "--declare", DECLARED)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 labels imported into" in done.stdout
    assert re.search(r"label.ledger: .*/ledger and initial.from_ledger: \[[0-9a-f]{12}\]\n", done.stdout)
    return tmp_path / "ledger"


def test_the_command_of_a_user_with_the_fingerprint_of_a_preset(labels, tmp_path):
    done = cli("labels", "import", "ledger", "copper.extxyz", "--reference", "emt", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(labels("list", "ledger", "--json").stdout)
    (identity,) = found["references"].values()
    assert (identity["calculator"], identity["functional"]) == ("ase.calculators.emt:EMT", "none")


def test_a_ledger_is_listed_by_reference_and_composition(labels, ledger):
    done = labels("list", "ledger")
    assert done.returncode == 0
    assert "VASP-6.4.2" in done.stdout
    assert "3 labels, 0 refused" in done.stdout
    found = json.loads(labels("list", "ledger", "--json").stdout)
    (row,) = found["labels"]
    assert (row["composition"], row["labels"], row["refused"]) == ("Cu4", 3, {})
    assert found["references"][row["reference"]]["functional"] == "PBE"
    low, high = row["energy_per_atom_eV"]
    assert low <= high


def test_two_references_are_told_apart_and_exported_by_name(labels, ledger):
    done = labels("import", "ledger", "copper.extxyz", "--declare", DECLARED.replace("false", "true"))
    assert "3 labels imported" in done.stdout
    rows = json.loads(labels("list", "ledger", "--json").stdout)["labels"]
    assert sorted(row["name"] for row in rows) == ["VASP-6.4.2 (PBE with dispersion)", "VASP-6.4.2 (PBE)"]
    refused = labels("export", "ledger", "--to", "out.npz")
    assert refused.returncode == 2
    assert "expected the labels of one - give --reference, one of: " in refused.stderr
    done = labels("export", "ledger", "--to", "out.npz", "--reference", rows[0]["reference"][:8])
    assert done.stdout == f"3 labels of {rows[0]['name']} in out.npz\n"


def test_what_is_refused_is_said_and_an_import_of_nothing_fails(labels, tmp_path):
    (tmp_path / "bare.extxyz").write_text('1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nCu 0 0 0\n')
    done = labels("import", "ledger", "bare.extxyz", "--declare", DECLARED)
    assert done.returncode == 2
    assert "1 frame not taken: no energy (first: bare.extxyz frame 0) - expected energy and forces" in done.stdout
    assert "bare.extxyz: no usable frame - " in done.stderr
    assert not (tmp_path / "ledger").exists()


def test_the_same_import_again_changes_nothing(labels, ledger):
    before = {path.name: path.read_bytes() for path in ledger.rglob("*") if path.is_file()}
    done = labels("import", "ledger", "copper.extxyz", "--declare", DECLARED)
    assert done.returncode == 0
    assert "3 frames not taken: in the ledger already" in done.stdout
    assert "0 labels imported" in done.stdout
    assert before == {path.name: path.read_bytes() for path in ledger.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("import", "l", "copper.extxyz"), "does not say what labelled it"),
        (("import", "l", "copper.extxyz", "--reference", "emtt"), "did you mean 'emt'?"),
        (("import", "l", "copper.extxyz", "--reference", "emt", "--declare", "a=b"), "both given"),
        (("list", "nowhere"), "nowhere: no such folder"),
    ],
)
def test_what_is_wrong_is_one_sentence(labels, arguments, said):
    done = labels(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_damage_is_listed_and_what_is_whole_is_exported_with_exit_code_1(labels, ledger, tmp_path):
    (journal,) = ledger.glob("*.seg")
    content = bytearray(journal.read_bytes())
    content[200] ^= 1
    journal.write_bytes(content)
    listed = labels("list", "ledger")
    assert listed.returncode == 1
    assert "2 labels, 0 refused" in listed.stdout
    assert f"damaged: {journal}: damaged or truncated: 1 of the 3 labels" in listed.stderr
    assert listed.stderr.count(" - ") == 2
    assert len(json.loads(labels("list", "ledger", "--json", "--verify").stdout)["damage"]) == 1
    done = labels("export", "ledger", "--to", "out.npz")
    assert (done.returncode, done.stdout) == (1, "2 labels of VASP-6.4.2 (PBE) in out.npz\n")
    assert "damaged: " in done.stderr
    assert (tmp_path / "out.npz").is_file()


def test_a_reference_that_was_edited_is_named_and_nothing_is_exported_under_it(labels, ledger):
    (reference,) = (ledger / "references").iterdir()
    reference.write_text(reference.read_text().replace("PBE", "LDA"))
    assert labels("list", "ledger").returncode == 1
    done = labels("export", "ledger", "--to", "out.npz")
    assert done.returncode == 2
    assert "not one reference" in done.stderr
    assert f"{reference}: checksum mismatch" in done.stderr
