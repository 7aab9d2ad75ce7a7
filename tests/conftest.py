"""Shared fixtures: small copper structures with labels, the toy campaign, a campaign folder, one slot."""

import compileall
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from campaigns import SMALL, TINY, cli, end_sessions, machine_file, run_plain
from cluster.servers import Missing, MongoServer, SlurmCluster
from hypothesis import settings

import activelearn
from activelearn.config import Machine, load_campaign
from activelearn.engines import process
from activelearn.engines.process import Slot
from activelearn.frames import Frames
from activelearn.records import End
from activelearn.store import Store

# A shell that starts the tests in the background has Ctrl-C ignored, by all that they start, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A busy machine is no counterexample: only pytest-timeout limits how long a test takes.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


def pytest_configure(config):
    """Compile the package once where bytecode is not written (PYTHONDONTWRITEBYTECODE).

    Else each of the hundreds of processes that tests start compiles it again: 0.4 of the 1.1 CPU-s of a ``check``.
    """
    if sys.dont_write_bytecode and not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(activelearn.__file__).parent, quiet=2)


def pytest_xdist_auto_num_workers(config):
    """Two processes for the whole default run; one for chosen tests or marks, which may want the machine to itself."""
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    is_default = config.option.markexpr == config.getini("addopts")[-1] and not config.option.keyword
    return 2 if is_whole and is_default and config.option.capture != "no" else 0


def pytest_collection_modifyitems(items):
    """Files that start engines come first, so that at the end of the run no process waits for the other one.

    The others, whose tests take milliseconds, fill up what is left (--no-loadscope-reorder lets the order stand).
    """
    starts = {item.path for item in items if item.get_closest_marker("engines")}
    items.sort(key=lambda item: item.path not in starts)


def rattled_copper(n_frames=3, *, random_seed=0, repeat=(1, 1, 1), amplitude=0.1):
    """Cubic copper cells, rattled and labelled by EMT."""
    rng = np.random.default_rng(random_seed)
    images = []
    for _ in range(n_frames):
        atoms = bulk("Cu", cubic=True) * repeat
        atoms.set_cell(atoms.cell[:] @ (np.eye(3) + rng.uniform(-0.02, 0.02, (3, 3))), scale_atoms=True)
        atoms.positions += rng.uniform(-amplitude, amplitude, atoms.positions.shape)
        atoms.calc = EMT()
        atoms.get_forces()
        atoms.get_stress()
        images.append(atoms)
    return Frames.from_ase(images)


@pytest.fixture
def copper():
    return rattled_copper()


@pytest.fixture
def campaign():
    return load_campaign("copper_emt")


@pytest.fixture
def machine():
    return Machine(name="test", slots=2)


@pytest.fixture
def store(tmp_path, campaign):
    """A campaign folder with iterations 0 and 1 open; nothing is published in it."""
    made = Store.create(tmp_path / "campaign", campaign)
    made.open_iteration(0, campaign)
    made.open_iteration(1, campaign)
    return made


@pytest.fixture
def slot(tmp_path, machine):
    """A slot whose sessions end with the test."""
    process.allow_engines()
    yield Slot(machine, tmp_path / "logs")
    end_sessions()


@pytest.fixture
def memory(monkeypatch):
    """Return a function that opens LaunchPads by the name of their database; they last as long as the test."""
    import fireworks.core.launchpad  # half a second
    import mongomock

    from activelearn.workflow import SharedLaunchPad

    client = mongomock.MongoClient()
    monkeypatch.setattr(fireworks.core.launchpad, "MongoClient", lambda *_, **__: client)
    monkeypatch.setattr(fireworks.core.launchpad, "GRIDFS_FALLBACK_COLLECTION", None)

    def launchpad(name="glass", host="db.site"):
        return SharedLaunchPad.from_dict({"host": host, "port": 27017, "name": name, "strm_lvl": "CRITICAL"})

    return launchpad


def made_once(tmp_path_factory, name, make):
    """Return a folder that `make` fills and what it returns, a text; nobody may write into it afterwards.

    Of several processes of pytest-xdist, whose temporary folders stand side by side, the first one makes it for all.
    """
    ours = tmp_path_factory.getbasetemp()
    place = (ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours) / name
    place.mkdir(exist_ok=True)
    folder, told = place / "made", place / "told.json"
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed or was killed
            folder.mkdir()
            told.write_text(make(folder))
    return folder, told.read_text()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The tiny campaign through the plain loop, two slots: (Store, End). Nobody may write into it."""

    def make(folder):
        return run_plain(folder / "campaign", TINY, Machine(slots=2, **SMALL))[1].model_dump_json()

    folder, end = made_once(tmp_path_factory, "undisturbed", make)
    return Store(folder / "campaign"), End.model_validate_json(end)


@pytest.fixture(scope="session")
def ended(tmp_path_factory):
    """A tiny campaign run to its bound by the command line: (folder, CompletedProcess). Nobody may write into it."""

    def make(folder):
        shutil.copy(TINY, folder / "tiny.yaml")
        machine_file(folder / "machine.yaml", slots=2)
        done = cli("run", "tiny.yaml", "--folder", "c", "--machine", "machine.yaml", cwd=folder)
        return json.dumps([done.args, done.returncode, done.stdout, done.stderr])

    folder, done = made_once(tmp_path_factory, "ended", make)
    return folder / "c", subprocess.CompletedProcess(*json.loads(done))


@pytest.fixture(scope="session")
def mongo(tmp_path_factory):
    """A MongoDB wire-protocol server of our own: a MongoServer. A test that kills it restarts it."""
    try:
        server = MongoServer(tmp_path_factory.mktemp("mongo"))
    except Missing as missing:
        pytest.skip(str(missing))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A Slurm of our own, which this machine plays: a SlurmCluster."""
    try:
        node = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    except Missing as missing:
        pytest.skip(str(missing))
    yield node
    node.stop()


def pytest_terminal_summary(terminalreporter):
    """Print what each fault of the chaos tests did."""
    underfire = sys.modules.get("underfire")
    if underfire is not None and underfire.TABLE:
        terminalreporter.section("faults")
        for line in (underfire.HEAD, *underfire.TABLE):
            terminalreporter.write_line(str(line))
