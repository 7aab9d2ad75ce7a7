"""Every command in every place: awkward names, folders that have moved, disks that take nothing.

A campaign and two studies are finished once; each cell of the matrix works on a copy, in this process.
"""

import contextlib
import hashlib
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from campaigns import cli, command, end_sessions, environment, machine_file, tiny

from activelearn.cli import main
from activelearn.engines import process
from activelearn.store import Store, StudyStore

pytestmark = pytest.mark.engines
COPPER = {
    "name": "copper",
    "title": "Cu",
    "compositions": [{"x": 0.0, "units": {"Cu": 1}, "density_g_cm3": 8.5}],
    "roles": {"formers": {"Cu": 1}, "anions": ["O"]},
    "cutoffs_A": {"Cu-O": 2.2},
}
GLASS = {
    "series": COPPER,
    "n_atoms": 16,
    "n_replicas": 1,
    "dynamics": {"timestep_fs": 1.0, "thermo_every_ps": 0.005},
    "segments": [{"name": "glass", "temperature_K": 100, "ps": 0.01, "n_frames": 2, "is_analysed": True}],
}
EMT = {"calculator": "ase.calculators.emt:EMT", "package": "ase", "functional": "none", "includes_dispersion": False}
COMMANDS = {
    "run": ("run", "t.yaml", "--folder", "c", "--machine", "m.yaml"),
    "status": ("status", "c"),
    "export": ("export", "c", "--to", "models"),
    "glass": ("glass", "p.yaml", "--glass", "g.yaml", "--folder", "g", "--machine", "m.yaml", "--accept-unusual"),
    "benchmark": ("benchmark", "p.yaml", "--benchmark", "b.yaml", "--folder", "b", "--machine", "m.yaml"),
    "labels": ("labels", "export", "c", "--to", "labels.xyz"),
    "submit": ("submit", "t.yaml", "-l", "my_launchpad.yaml", "--folder", "c", "--machine", "m.yaml"),
}
#: Exit codes where all is well: the campaign has ended without convergence.
WELL = {"run": 3}
#: What these commands say in the last line where all is well.
SAID = {
    "run": "next: activelearn status",
    "export": "files in models; to run:",
    "labels": "labels",
    "submit": "if it hangs:",
}


@pytest.fixture
def give(capsys, monkeypatch):
    """Return a function that gives a command in this process, and returns its exit code and what it said."""

    def given(*words, cwd) -> tuple[int, str, str]:
        before = Path.cwd()
        monkeypatch.setattr(sys, "argv", ["activelearn", *map(str, words)])
        capsys.readouterr()
        process.allow_engines()
        try:
            monkeypatch.chdir(cwd)
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            os.chdir(before)
            end_sessions()
        return ended.value.code or 0, *capsys.readouterr()

    return given


@pytest.fixture(scope="module")
def made(undisturbed, tmp_path_factory):
    """A folder with the files of a user, a finished campaign and two finished studies. Nobody may write into it."""
    here = tmp_path_factory.mktemp("made")
    tiny(here / "t.yaml")
    machine_file(here / "m.yaml", slots=2)
    (here / "p.yaml").write_text(yaml.safe_dump({"name": "EMT", "ase": EMT}))
    (here / "g.yaml").write_text(yaml.safe_dump(GLASS))
    (here / "cu.vasp").write_text("copper\n3.6\n1 0 0\n0 1 0\n0 0 1\nCu\n4\nDirect\n0 0 0\n0 .5 .5\n.5 0 .5\n.5 .5 0\n")
    (here / "b.yaml").write_text(yaml.safe_dump({"crystals": {"seeds": ["cu.vasp"]}}))
    (here / "my_launchpad.yaml").write_text("host: db.site\nname: glass\n")
    shutil.copytree(undisturbed[0].folder, here / "c")
    for name in ("glass", "benchmark"):
        done = cli(*COMMANDS[name], cwd=here)
        assert done.returncode == 0, done.stderr
    return here


@pytest.fixture
def launchpad(memory, monkeypatch):
    """The LaunchPad that my_launchpad.yaml names, in memory."""
    pad = memory()
    for module in ("activelearn.workflow", "activelearn.workflow.doctor.checks"):
        monkeypatch.setattr(f"{module}.connect", lambda _: pad)
    return pad


def files_of(folder: Path) -> dict[str, str]:
    """Return the files below a folder with their checksums; an empty folder has none."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


# --- where it works ---------------------------------------------------------------------------------------------------


def moved(made, tmp_path) -> Path:
    """A copy that was begun elsewhere, and was moved from there."""
    before = Path(shutil.copytree(made, tmp_path / "before"))
    for store in (Store(before / "c"), StudyStore(before / "g"), StudyStore(before / "b")):
        store.settle()
    return before.rename(tmp_path / "after")


def named(name):
    def copied(made, tmp_path) -> Path:
        return Path(shutil.copytree(made, tmp_path / name))

    return copied


PLACES = {
    "blank": named("my runs"),
    "umlaut": named("Läufe ☃"),
    "250 characters": named("n" * 250),
    "moved": moved,
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("place", PLACES)
def test_a_command_works_in_any_place(made, launchpad, tmp_path, give, name, place):
    code, out, err = give(*COMMANDS[name], cwd=PLACES[place](made, tmp_path))
    assert (code, [line for line in err.splitlines() if "identity of its own" not in line]) == (WELL.get(name, 0), [])
    assert SAID.get(name, "") in out


# --- where nothing can be written -------------------------------------------------------------------------------------


@contextlib.contextmanager
def read_only(folder: Path):
    """Have a folder that nothing can be written to; root may write wherever a mount does not forbid it."""
    if os.geteuid() != 0:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        return
    for options in ("bind", "bind,remount,ro"):
        done = subprocess.run(["mount", "-o", options, folder, folder], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"root, and nothing can be mounted: {done.stderr}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@contextlib.contextmanager
def full(_folder: Path):
    """Have a disk that takes no byte more, as far as this process and its children see."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


DISKS = {"read-only": read_only, "full": full}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("disk", DISKS)
def test_a_disk_that_takes_nothing_is_a_sentence_and_costs_nothing(made, launchpad, tmp_path, give, name, disk):
    here = Path(shutil.copytree(made, tmp_path / "here"))
    for store in (Store(here / "c"), StudyStore(here / "g"), StudyStore(here / "b")):
        store.settle()  # it is a copy
    before = files_of(here)
    with DISKS[disk](here):
        code, _, err = give(*COMMANDS[name], cwd=here)
    assert files_of(here) == before
    if name == "status":
        assert (code, err) == (0, "")
        return
    assert code in {1, 2}
    assert err.startswith("error: "), err
    assert len(err.splitlines()) == 1, err
    assert launchpad.workflows.count_documents({}) == 0


def test_what_stands_on_a_read_only_disk_can_be_exported_to_another(made, tmp_path, give):
    here = Path(shutil.copytree(made, tmp_path / "here"))
    with read_only(here):
        code, _, err = give("export", here / "c", "--to", "models", cwd=tmp_path)
        assert (code, err) == (0, "")
        code, _, err = give("labels", "export", here / "c", "--to", "l.xyz", cwd=tmp_path)
        assert (code, err) == (0, "")


def test_a_run_whose_output_nobody_reads_any_more_ends_as_it_would(made, tmp_path):
    """A `tee` that ends: it ended with exit code 1, and not one word."""
    here = Path(shutil.copytree(made, tmp_path / "here"))
    Store(here / "c").settle()
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command(*COMMANDS["run"]), cwd=here, env=environment(), stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert done.returncode == WELL["run"]
    assert done.stderr == b"standard output is closed: output from now on is lost, and nothing else\n"
