"""What is on disk of an interpreter and of a calculator: nothing is imported, nothing started."""

import sys

import pytest

from activelearn.engines.interpreters import has_module, lacking


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that would leave a note if it were imported; its folder."""
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "glassy"
    (folder / "inner").mkdir(parents=True)
    note = f"open({str(tmp_path / 'imported')!r}, 'w').close()\n"
    (folder / "__init__.py").write_text(note)
    (folder / "inner" / "__init__.py").write_text(note + "from .deep import *\n")
    (folder / "calc.py").write_text(
        note + "try:\n    from fast import Fast\nexcept ImportError:\n    Fast = None\n"
        "if Fast:\n    class Slow: pass\nelse:\n    def make(): pass\na, (b, Tuple) = 1, (2, 3)\nTyped: int = 3\n"
    )
    (folder / "lazy.py").write_text(note + "def __getattr__(name): return name\n")
    (folder / "broken.py").write_text("def (:\n")
    (folder / "binary.so").write_bytes(b"\x7fELF")
    yield folder
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("name", ["Fast", "Slow", "make", "a", "Tuple", "Typed"])
def test_every_name_that_a_module_binds_is_there(package, name):
    assert lacking(f"glassy.calc:{name}") is None


@pytest.mark.parametrize(
    ("calculator", "said"),
    [
        ("glassy.calc:Fst", "glassy.calc has no Fst (it has Fast)"),
        ("glassy.calc:Whatever", "glassy.calc has no Whatever"),
        ("glassy.calk:Fast", "no module glassy.calk"),
        ("glassy:Fast", "glassy has no Fast"),
        ("glass_y:Fast", "no module glass_y"),
        ("ase.calculators.emt:EMTT", "ase.calculators.emt has no EMTT (it has EMT)"),
        ("ase.calculators.emtt:EMT", "no module ase.calculators.emtt"),
        ("os:getcwd", "os is a module of the standard library, which has no calculators"),
        ("collections.abc:Callable", "collections is a module of the standard library, which has no calculators"),
    ],
)
def test_what_is_surely_not_there_is_said(package, calculator, said):
    assert lacking(calculator) == said


@pytest.mark.parametrize(
    "calculator", ["glassy.inner:X", "glassy.lazy:X", "glassy.broken:X", "glassy.binary:X", "ase.calculators.emt:EMT"]
)
def test_of_what_cannot_be_told_nothing_is_said(package, calculator):
    assert lacking(calculator) is None


def venv(folder, *, settings="include-system-site-packages = false\n"):
    """A virtual environment as far as a look can tell; its interpreter would leave a note."""
    (folder / "bin").mkdir(parents=True)
    site = folder / "lib" / "python3.12" / "site-packages"
    site.mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(f"#!/bin/sh\ntouch {folder}/ran\n")
    python.chmod(0o755)
    (folder / "pyvenv.cfg").write_text(settings)
    return str(python), site


def test_packages_of_another_environment_are_looked_for_in_its_folders(tmp_path):
    python, site = venv(tmp_path / "one")
    assert not has_module("mace", python)
    (site / "mace").mkdir()
    assert has_module("mace", python)
    (tmp_path / "source" / "tblite").mkdir(parents=True)
    (site / "tblite.pth").write_text(f"{tmp_path / 'source'}\n")
    assert has_module("tblite", python)
    assert not has_module("gpaw", python)
    (site / "__editable__.x.pth").write_text("import finder\n")
    assert has_module("gpaw", python), "a finder may find anything"
    assert not (tmp_path / "one" / "ran").exists()


def test_of_other_interpreters_nothing_can_be_told(tmp_path):
    python, _ = venv(tmp_path / "both", settings="include-system-site-packages = true\n")
    assert has_module("mace", python)
    assert has_module("mace", "/bin/sh")
    assert not has_module("mace", "/no/such/python")
    assert has_module("ase", sys.executable)
    assert not has_module("ase_of_mars", sys.executable)
