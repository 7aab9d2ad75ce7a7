"""``export --ro-crate``: the metadata name every file, are read by others, and are all or nothing."""

import hashlib
import sys

import pytest
from campaigns import in_process
from test_html_page import unpacked

rocrate = pytest.importorskip("rocrate.rocrate", reason="pip install 'rocrate>=0.16,<0.17'")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return unpacked("49996e5-quickstart.tar.gz", tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    to = tmp_path_factory.mktemp("crate") / "models"
    done = in_process("export", finished, "--to", to, "--ro-crate")
    assert done.returncode == 0, done.stderr
    return to


def test_every_file_stands_in_it_with_its_checksum(exported):
    crate = rocrate.ROCrate(str(exported))
    there = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert {one.id for one in crate.data_entities} == there - {"ro-crate-metadata.json", "SHA256SUMS"}
    for one in crate.data_entities:
        content = (exported / one.id).read_bytes()
        assert one["sha256"] == hashlib.sha256(content).hexdigest()
        assert int(one["contentSize"]) == len(content)
    assert "  ro-crate-metadata.json\n" in (exported / "SHA256SUMS").read_text()


def test_it_says_what_it_is_of_and_how_it_was_made(exported):
    crate = rocrate.ROCrate(str(exported))
    assert crate.name == "quickstart"
    assert crate.license["name"] == "no licence stated"
    facts = {one["name"]: one for one in crate.root_dataset["variableMeasured"]}
    assert facts["force RMSE"]["unitText"] == "eV/Å"
    assert facts["trust window, lower end"]["value"] < facts["trust window, upper end"]["value"]
    (action,) = crate.get_by_type("CreateAction")
    assert {"dataset/training.extxyz"} < {one.id for one in action["result"]}
    assert any(
        one.id.startswith(("compressed-", "frozen-", "pb-")) or one.id.endswith(".pb") for one in action["result"]
    )
    assert "activelearn" in {one["name"] for one in action["instrument"]}


def test_nothing_is_overwritten(finished, exported):
    before = sorted(exported.iterdir())
    done = in_process("export", finished, "--to", exported, "--ro-crate")
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert sorted(exported.iterdir()) == before


def test_without_the_library_a_line_says_what_installs_it(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rocrate.rocrate", None)
    done = in_process("export", finished, "--to", tmp_path / "to", "--ro-crate")
    assert done.returncode == 2
    assert "pip install 'rocrate>=0.16,<0.17'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_read_back_as_it_was_written_is_not_exported(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("activelearn.crate.NAME", "other.json")
    done = in_process("export", finished, "--to", tmp_path / "to", "--ro-crate")
    assert done.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_it_is_not_of_the_data_set_of_dp_gen(finished, tmp_path):
    done = in_process("export", finished, "--to", tmp_path / "to", "--ro-crate", "--dpgen")
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
