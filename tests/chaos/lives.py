"""Campaigns that are killed: starting, watching and killing a driver, and what of its work must have survived."""

import collections
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from campaigns import command, dataset_summary, environment, machine_file, tiny

from activelearn import loop, trees
from activelearn.frames import Frames
from activelearn.store import Ledger, Store
from activelearn.store.files import is_whole

#: A reference that notes every structure it is asked for in the file of $LOGGED_EMT.
LOGGED = {"calculator": "logged_emt:LoggedEMT", "package": "ase", "functional": "none", "includes_dispersion": False}


# --- starting, watching, killing --------------------------------------------------------------------------------------


def start(
    campaign: Path, folder: Path, *more, env: dict[str, str] | None = None, here: Path | None = None, words=()
) -> subprocess.Popen:
    """Start ``activelearn run`` in a session of its own, after `words`; its output goes to output.txt of `here`.

    Default: the folder that the campaign folder is in.
    """
    here = here or folder.parent
    with (here / "output.txt").open("ab") as log:
        return subprocess.Popen(
            [*words, *command("run", campaign, "--folder", folder, *more)],
            cwd=here,
            env=env or environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def alive_in(session: int) -> list[int]:
    """Return the processes of a session, zombies not counted."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rsplit(")", 1)[1].split()
            if int(fields[3]) == session and fields[0] not in {"Z", "X"}:
                found.append(int(path.parent.name))
    return found


def wait_until(condition, running: subprocess.Popen, *, timeout_s: float = 200.0, what: str = "") -> None:
    """Wait until `condition` holds or the run has ended by itself."""
    deadline = time.monotonic() + timeout_s
    while not condition() and running.poll() is None:
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain: {what or condition}"
        time.sleep(0.01)


def wait_for_the_end_of(session: int, *, timeout_s: float = 5.0) -> None:
    """Wait until no process of a session is left."""
    deadline = time.monotonic() + timeout_s
    while alive_in(session):
        assert time.monotonic() < deadline, f"still there after {timeout_s} s: {alive_in(session)}"
        time.sleep(0.02)


def kill_group(running: subprocess.Popen) -> None:
    """Kill -9 the driver and all its engines at once, as a lost node does."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    wait_for_the_end_of(running.pid)


# --- what has survived ------------------------------------------------------------------------------------------------


def n_done(store: Store, station: str, iteration: int) -> int:
    """Return how many tasks of a station are published; -1 if it is not planned."""
    plan = store.find_plan(station, iteration)
    return -1 if plan is None else len(plan.tasks) - len(store.pending(plan, by=loop.STATIONS[station].published))


def counts_of(store: Store) -> list:
    """Return what the records say of the walks, frames and labels of each iteration."""
    records = store.iterations()
    cells = [record.selection.cells if record.selection is not None else () for record in records]
    labels = [record.labelling.model_dump(exclude={"labels_computed", "labels_reused"}) for record in records]
    return list(zip(cells, labels, strict=True))


def keys_in_segments(folder: Path) -> list[str]:
    """Return the keys of all records of all segments, one by one (each is a ledger of its own here)."""
    keys = []
    for path in sorted(folder.glob("*.seg")):
        alone = folder.parent / "one-segment"
        alone.mkdir()
        shutil.copy(path, alone)
        ledger = Ledger(alone)
        ledger.refresh()
        keys += list(ledger._entries)
        shutil.rmtree(alone)
    return keys


def assert_tidy(store: Store) -> None:
    """No claims, no lease, no temporary files, no scratch, few files."""
    assert not list(store.folder.glob("claims/*"))
    assert not list(store.folder.glob("begun/*"))
    assert not (store.folder / "lease.json").exists()
    assert not [path for path in store.folder.rglob(".*") if path.is_file() and path.name != trees.MARK]
    assert not [path for path in store.folder.glob("scratch/*") if path.is_dir()]  # a run with nothing to do makes none
    assert sum(path.is_file() for path in store.folder.rglob("*")) < 200


def digests_published(store: Store) -> set[str]:
    """Return the sha256 of cell and positions of every structure whose label stands: in the ledger or in a product."""
    found = set()

    def add(part) -> None:
        for k in range(len(part)):
            found.add(hashlib.sha256(part.cell[k].tobytes() + part.positions[k].tobytes()).hexdigest())

    plan = store.find_plan("initial", 0) if store.opened_iterations() else None
    for task in plan.tasks if plan is not None else ():
        path = store.product("initial", 0, task.id)
        if store.is_sealed("initial", 0) or (path.is_file() and is_whole(path)):
            add(Frames.from_arrays(store.read_product("initial", 0, task.id)[0]))
    ledger = Ledger(store.folder / "labels")
    ledger.refresh()
    for iteration in store.opened_iterations():
        if store.chosen_file(iteration).is_file():
            fingerprint = store.fingerprint(iteration)["sha256"]
            for part in store.frames(store.chosen_file(iteration)):
                for k in range(len(part)):
                    if part.structure_key(k, fingerprint) in ledger:
                        add(part[k])
    return found


def calculations(log: Path) -> collections.Counter:
    """Return how often the reference was asked for each structure."""
    lines = log.read_text().splitlines() if log.exists() else []
    return collections.Counter(line.split()[0] for line in lines)


class HardLife:
    """The tiny campaign with a reference that logs what it computes, started and killed again and again.

    Its folder is ``c`` in `place` (default: `here`); `changes` are those of the campaign.
    """

    def __init__(self, here: Path, place: Path | None = None, **changes) -> None:
        self.here = here
        self.campaign = tiny(here / "tiny.yaml", label__reference=LOGGED, **changes)
        self.log = here / "calculations.txt"
        self.store = Store((place or here) / "c")
        self.n_runs = 0
        self.paid_for: dict[str, int] = {}
        self.running: subprocess.Popen | None = None

    def begin(self) -> subprocess.Popen:
        """Start or continue the campaign, each time with other slots and chunks."""
        k = self.n_runs
        self.n_runs += 1
        chunks = dict.fromkeys(("initial", "explore", "label", "train", "final"), 1 + k % 3)
        machine = machine_file(self.here / f"machine-{k}.yaml", slots=1 + k % 2, chunks=chunks)
        logged = {"LOGGED_EMT": str(self.log), "LOGGED_EMT_AFTER_TRIAL_IN": str(self.store.folder)}
        env = environment(**logged, LOGGED_EMT_SLEEP="0.1")
        return start(self.campaign, self.store.folder, "--machine", machine, env=env)

    def n_done(self, station: str, iteration: int) -> int:
        """Return how many tasks are published, -1 before there is a plan (or a folder)."""
        return n_done(self.store, station, iteration) if (self.store.folder / "campaign" / "uuid").exists() else -1

    def at_work(self) -> str:
        """Return the first station that is not sealed."""
        step = loop.next_phase(self.store) if self.store.campaign_files() else None
        stations = step.stations if step is not None else ()
        return next((one.name for one in stations if not self.store.is_sealed(one.name, step.iteration)), "between")

    def kill(self, running: subprocess.Popen) -> str:
        """Kill -9 all of it, see that nothing published was computed again, and return the station at work."""
        kill_group(running)
        times = calculations(self.log)
        if self.store.campaign_files():
            for digest in digests_published(self.store):
                assert times[digest] == self.paid_for.setdefault(digest, times[digest])
        return self.at_work()

    def assert_nothing_lost(self, undisturbed: Store, n_kills: int) -> None:
        """The data set, the counts and the ledger are those of an undisturbed run; little was computed twice."""
        store, output = Store(self.store.folder), (self.here / "output.txt").read_text()
        last = store.latest_campaign().stop.max_iterations
        assert dataset_summary(store, last) == dataset_summary(undisturbed, last)
        assert counts_of(store) == counts_of(undisturbed)[: last + 1]
        keys = keys_in_segments(store.folder / "labels")
        assert len(keys) == len(set(keys)) == sum(record.labelling.labelled for record in store.iterations())
        assert_tidy(store)
        spent = [seconds for record in store.iterations() for seconds in record.seconds.values()]
        assert all(seconds.engine <= seconds.wall + 1e-6 for seconds in spent), "work without a driver"
        times = calculations(self.log)
        assert {digest: times[digest] for digest in self.paid_for} == self.paid_for, "a published label was made again"
        assert max(times.values()) <= 1 + n_kills
        again = sum(times.values()) - len(times)
        assert again <= n_kills * 2 * 11, "at most one unpublished task of each slot is repeated, 11 structures each"
        assert "Traceback" not in output
