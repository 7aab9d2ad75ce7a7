"""Shared fixtures: small copper structures with labels, the toy campaign, a campaign folder, one slot."""

import signal
import sys

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from campaigns import SMALL, TINY, end_sessions, run_plain
from cluster.servers import Missing, MongoServer, SlurmCluster
from hypothesis import settings

from activelearn.config import Machine, load_campaign
from activelearn.engines import process
from activelearn.engines.process import Slot
from activelearn.frames import Frames
from activelearn.store import Store

# A shell that starts the tests in the background has Ctrl-C ignored, by all that they start, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A busy machine is no counterexample: only pytest-timeout limits how long a test takes.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


def pytest_xdist_auto_num_workers(config):
    """Two processes for the whole default run; one for chosen tests or marks, which may want the machine to itself."""
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    is_default = config.option.markexpr == config.getini("addopts")[-1] and not config.option.keyword
    return 2 if is_whole and is_default and config.option.capture != "no" else 0


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


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The tiny campaign through the plain loop, two slots: (Store, End). Nobody may write into it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return run_plain(folder / "campaign", TINY, Machine(slots=2, **SMALL))


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
