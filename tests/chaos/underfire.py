"""A campaign that is struck by faults: reaching the moment, striking, judging what stands after it, and the table."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from campaigns import TESTS, environment, machine_file
from lives import HardLife, calculations, digests_published, n_done, start, wait_for_the_end_of

from activelearn.frames import Frames
from activelearn.store import Ledger, Store
from activelearn.store.files import HOST

HERE = Path(__file__).resolve().parent
#: The reference labels here as slowly as this (s), so that there is time to be struck.
LABEL_S = 0.3
#: Nothing here takes longer than this, however busy the machine (s).
PATIENCE_S = 400.0


# --- what stands ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Standing:
    """What a campaign has published at a moment."""

    files: dict[str, str]  # name -> sha256, packed or not
    stamps: dict[str, int]  # when it was written; of those that are not packed
    labels: dict[str, str]  # key in the ledger -> sha256 of the numbers
    digests: frozenset[str]  # of the structures whose label stands


def standing(folder: Path) -> Standing:
    """Read all that is published, while others may be packing and compacting it."""
    for _ in range(50):
        with contextlib.suppress(FileNotFoundError):  # packed meanwhile
            store = Store(folder)
            files, stamps = _files(folder)
            return Standing(files, stamps, _labels(folder), frozenset(digests_published(store)))
    raise AssertionError(f"{folder} does not keep still")


def _files(folder: Path) -> tuple[dict[str, str], dict[str, int]]:
    files, stamps = {}, {}
    for pattern in ("iter-*/*.npz", "iter-*/*.json", "iter-*/*/*.npz", "iter-*/*/*.json", "dataset/*", "models/*"):
        for path in folder.glob(pattern):
            if not path.name.startswith("."):
                name = str(path.relative_to(folder))
                files[name], stamps[name] = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns
    for path in folder.glob("iter-*/*/products.zip"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                files[str(path.relative_to(folder).with_name(name))] = hashlib.sha256(archive.read(name)).hexdigest()
    return files, stamps


def _labels(folder: Path) -> dict[str, str]:
    ledger, found = Ledger(folder / "labels"), {}
    ledger.refresh()
    for key in ledger.keys():  # noqa: SIM118 - a Ledger is no mapping
        label = ledger[key]
        numbers = np.array([label.energy]).tobytes() + label.forces.tobytes() + label.virial.tobytes()
        found[key] = hashlib.sha256(numbers).hexdigest()
    return found


def reference_tasks(undisturbed: Store) -> list[str]:
    """Return, for each task of the reference, the digest of its structure (of an MD: of where it starts)."""

    def digest(part: Frames, k: int) -> str:
        return hashlib.sha256(part.cell[k].tobytes() + part.positions[k].tobytes()).hexdigest()

    plan = undisturbed.plan("initial", 0)
    starts = [Frames.from_arrays(undisturbed.read_product("initial", 0, task.id)[0]) for task in plan.tasks]
    chosen = undisturbed.frames(undisturbed.chosen_file(1))
    return [digest(part, 0) for part in starts] + [digest(part, k) for part in chosen for k in range(len(part))]


# --- the table --------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """One fault and what came of it."""

    fault: str
    random_seed: int
    when: str
    told: str = "-"
    labels: tuple[int, int] = (0, 0)  # published before the fault, and before the next one
    repeated: int = 0
    outcome: str = "not known"

    def __str__(self) -> str:
        before, after = self.labels
        told = self.told if len(self.told) <= 110 else self.told[:107] + "..."
        return (
            f"{self.fault:<24} {self.random_seed:>4}  {self.when:<24} {before:>3} -> {after:<3} {self.repeated:>3}  "
            f"{self.outcome:<9} {told}"
        )


HEAD = f"{'fault':<24} {'seed':>4}  {'when':<24} {'labels':<10} rep.  {'outcome':<9} what the user was told"
#: All rows of this session, for the terminal summary.
TABLE: list[Row] = []


def note(row: Row) -> None:
    """Add a row to the table of the session, and to the file of $ACTIVELEARN_FAULT_TABLE."""
    TABLE.append(row)
    if path := os.environ.get("ACTIVELEARN_FAULT_TABLE"):
        is_new = not Path(path).exists()
        with Path(path).open("a", encoding="utf-8") as stream:
            stream.write((HEAD + "\n" if is_new else "") + f"{row}\n")


# --- a campaign under fire --------------------------------------------------------------------------------------------


class Over(Exception):
    """The campaign came to its end before it could be struck."""


class Missed(Exception):
    """The campaign has gone on, and there is nothing left here that the fault could strike."""


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Parameters
    ----------
    name
        In the table.
    strike
        ``(campaign under fire, random numbers)``. When it returns, the same command may be given again: what it broke
        outside the campaign folder (a disk, a program) it has repaired, and what the user must have been told it has
        looked for.
    stations
        Where it can strike.
    at_rest
        The driver has been stopped before.
    least
        Number of tasks of the station that are done before.
    costs
        Maximum number of tasks in progress that it interrupts; None: those of all slots.
    """

    name: str
    strike: Callable[["UnderFire", np.random.Generator], None]
    stations: tuple[str, ...]
    at_rest: bool = False
    least: int = 0
    costs: int | None = None


def without_privileges() -> list[str]:
    """Return the words that start a program for which the modes of files count, for root, too."""
    if os.geteuid() != 0:
        return []
    words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
    works = shutil.which("setpriv") and subprocess.run([*words, "--", "true"], capture_output=True).returncode == 0
    return [*words, "--"] if works else []


class UnderFire(HardLife):
    """The tiny campaign of one iteration (and the final models), struck by one fault after another.

    Parameters
    ----------
    here
        Folder of the files of the user.
    undisturbed
        The campaign that nobody disturbed.
    disk
        A small file system of its own, to be filled up and made read-only; None: not permitted here.
    random_seed
        Of all that happens to it.
    changes
        Of the campaign, by dotted key.
    """

    def __init__(self, here: Path, undisturbed: Store, *, disk: Path | None, random_seed: int, **changes) -> None:
        super().__init__(here, disk, stop__max_iterations=1, **changes)
        self.disk, self.random_seed, self.undisturbed = disk, random_seed, undisturbed
        self.words = without_privileges()
        self.tasks = reference_tasks(undisturbed)
        self.clock = here / "clock.txt"
        self.clock.write_text("0")
        self.slots = 2
        self.n_struck = 0
        self.rows: list[Row] = []
        self.read_to = 0
        self.last: Standing | None = None
        self.n_repeated = 0  # labels and reference MDs, so far
        self.n_failed = 0  # tasks, when the last fault struck
        self.owed = 0  # those of the reference that failed and are yet to be computed again
        self.bound = 0  # how many may have been: those in hand when a fault struck
        self.forgiven: set[str] = set()  # names and digests of what a fault has destroyed
        self.begun: set[Path] = set()  # tasks of dp and lmp that the last death interrupted

    # --- the driver

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(TESTS), str(HERE / "clock")])
        more = {"LOGGED_EMT": str(self.log), "LOGGED_EMT_SLEEP": str(LABEL_S), "CHAOS_CLOCK": str(self.clock)}
        return environment(PYTHONPATH=path, LOGGED_EMT_AFTER_TRIAL_IN=str(self.store.folder), **more)

    def machine(self, **settings) -> Path:
        """Write the machine profile of the next driver or worker: other slots and chunks each time."""
        k = self.n_runs
        self.n_runs += 1
        self.slots = 1 if k % 4 == 3 else 2
        chunks = dict.fromkeys(("initial", "explore", "label", "train", "final"), 1 + k % 3)
        settings = {"slots": self.slots, "chunks": chunks, "grace_s": 0.5, **settings}
        return machine_file(self.here / f"machine-{k}.yaml", **settings)

    def begin(self, **settings) -> subprocess.Popen:
        """Give the one command."""
        machine = self.machine(**settings)
        options = {"env": self.environment(), "here": self.here, "words": self.words}
        self.running = start(self.campaign, self.store.folder, "--machine", machine, **options)
        return self.running

    def is_running(self) -> bool:
        return self.running is not None and self.running.poll() is None

    def ended(self) -> int:
        """Wait for the end of the driver; return its exit code."""
        code = self.running.wait(PATIENCE_S)
        wait_for_the_end_of(self.running.pid, timeout_s=PATIENCE_S)  # its engines, too; one that imports, after that
        self.begun = begun_in_vain(self.store)
        return code

    def down(self) -> None:
        """Have the driver stopped, if it is not, as Ctrl-C would."""
        if self.is_running():
            self.interrupt(self.slots)
            self.running.terminate()
            assert self.ended() in {143, -signal.SIGTERM, 3}, self.output()
            if self.running.returncode == 3:
                raise Over

    def output(self) -> str:
        return (self.here / "output.txt").read_text(errors="replace") if (self.here / "output.txt").exists() else ""

    def told(self) -> str:
        """Return what the user was told since the last time, but for the progress."""
        text = self.output()[self.read_to :]
        self.read_to += len(text)
        is_progress = re.compile(r"campaign |folder |iteration \d|\s|\d+ s at the|next: |not converged|$")
        lines = text.replace(f"{self.store.folder}", "FOLDER").replace(f"{self.here}/", "").splitlines()
        assert "Traceback" not in text, "a traceback:\n" + text
        return " | ".join(line for line in lines if not is_progress.match(line)) or "-"

    # --- waiting for the moment

    def reach(self, station: str, iteration: int, n_before: int, *, at_rest: bool = False) -> None:
        """Run the campaign until a station has this number of tasks done, or further."""
        deadline = time.monotonic() + PATIENCE_S
        while not (self.n_done(station, iteration) >= n_before and (at_rest or self.is_at_work())):
            if not self.is_running():
                if self.running is not None and self.running.returncode == 3:
                    raise Over
                self.begin()
            assert time.monotonic() < deadline, f"{station} is not reached:\n{self.output()[-3000:]}"
            time.sleep(0.03)

    def is_at_work(self) -> bool:
        """Return whether the driver has a task in hand."""
        mark = f'"pid": {self.running.pid},' if self.is_running() else "nobody"
        with contextlib.suppress(FileNotFoundError):
            return any(mark in path.read_text() for path in self.store.folder.glob("claims/[0-9]*.json"))
        return False

    def workers(self, name: bytes = b"engines/workers/") -> list[int]:
        """Return the workers of the driver, all or those of a name."""
        return [child for child in children(self.running.pid) if name in command_of(child)]

    def engines(self) -> list[int]:
        """Return the dp and lmp that are at work: what the workers have forked."""
        return [child for worker in self.workers(b"deepmd_session.py") for child in children(worker)]

    def when(self) -> str:
        """Return where the campaign stands, in words."""
        store = Store(self.store.folder)
        station, opened = self.at_work(), store.opened_iterations() if store.campaign_files() else []
        iteration = opened[-1] if opened else 0
        return f"{iteration} {station}, {max(n_done(store, station, iteration), 0)} done"

    # --- striking and judging

    def strike(self, fault: Fault, station: str, iteration: int, n_before: int, delay_s: float) -> None:
        """Let a fault strike at a moment; its row is finished when the next one is to strike.

        Raises
        ------
        Over
            The campaign has ended already.
        Missed
            It has gone on.
        """
        rng = np.random.default_rng([self.random_seed, self.n_struck])
        self.reach(station, iteration, max(n_before, fault.least), at_rest=fault.at_rest)
        self.judge()
        if fault.at_rest:
            self.down()
            self.judge()
        else:
            time.sleep(float(rng.uniform(0.0, delay_s)))
            if not self.is_running():
                raise Over
        row = Row(fault.name, self.random_seed, self.when(), labels=(len(self.last.labels) if self.last else 0, 0))
        self.told()
        self.n_failed = self.n_failures()
        self.begun = set()
        self.interrupt(self.slots if fault.costs is None else fault.costs)
        try:
            fault.strike(self, rng)
        except AssertionError as error:
            row.told, row.outcome = str(error).splitlines()[0], "FAILED"
            note(row)
            raise
        self.n_struck += 1
        self.rows.append(row)
        if self.running.poll() is not None and self.running.returncode != 3:
            self.begin()

    def interrupt(self, n_tasks: int) -> None:
        """Allow for this number of labels (or reference MDs) to be computed again, if any are in progress."""
        self.bound += 0 if self.at_work() in {"train", "final"} else n_tasks

    def n_failures(self) -> int:
        return sum(1 for _ in (self.store.folder / "failures").glob("*.json"))

    def judge(self) -> None:
        """See that what stood at the last look still stands and was not computed again; finish the last row."""
        if not self.store.campaign_files():
            return
        now, times = standing(self.store.folder), calculations(self.log)
        row = self.rows[-1] if self.rows and self.rows[-1].outcome == "not known" else None
        try:
            again, told = self._compare(now, times), self.told()
        except AssertionError as error:
            if row is not None:
                row.outcome, row.told = "FAILED", str(error).splitlines()[0]
                note(row)
            raise
        if row is not None:
            row.labels, row.told, row.outcome = (row.labels[0], len(now.labels)), told, "same"
            row.repeated = self._count_lost(row, again)
            note(row)
        self.last = now

    def _count_lost(self, row: Row, again: int) -> int:
        """Return how many tasks a fault cost: interrupted with the driver, or failed, or seen to be computed again."""
        failed = self.n_failures() - self.n_failed
        lost = (len(self.begun) or failed) + max(again - self.owed, 0)
        self.owed = max(self.owed - again, 0) + (failed if row.when.split()[1] in {"initial,", "label,"} else 0)
        return lost

    def _compare(self, now: Standing, times: dict[str, int]) -> int:
        """Return how many unpublished tasks of the reference were repeated since the last look."""
        last = self.last or Standing({}, {}, {}, frozenset())
        for name, sha256 in last.files.items():
            assert name in self.forgiven or now.files.get(name) == sha256, f"{name} is lost or different"
            is_same = name not in now.stamps or name not in last.stamps or now.stamps[name] == last.stamps[name]
            assert name in self.forgiven or is_same, f"{name} was written again"
        for key, sha256 in last.labels.items():
            assert now.labels.get(key) == sha256, f"label {key} is lost or different"
        for digest in now.digests:
            paid = self.paid_for.setdefault(digest, times[digest])
            assert times[digest] == paid, f"a published label was computed again: {digest}"
        return self._count_repeated(times)

    def _count_repeated(self, times: dict[str, int]) -> int:
        """Return how many tasks of the reference were repeated since the last look: one of each slot for each fault.

        What a fault interrupted may be taken up late, so the bound holds for all faults together.
        """
        repeated = sum(max(times[digest] - 1, 0) for digest in self.tasks if digest not in self.forgiven)
        again, self.n_repeated = repeated - self.n_repeated, repeated
        assert repeated <= self.bound, f"{repeated} unpublished labels were repeated, expected at most {self.bound}"
        return again

    def destroy(self, change: Callable[[], None], name: str = "") -> None:
        """Destroy something published: what is gone may be made again, and nothing else."""
        before = standing(self.store.folder)
        change()
        self.store = Store(self.store.folder)  # it knows nothing of before
        left, labels = frozenset(digests_published(self.store)), _labels(self.store.folder)
        for digest in before.digests - left:
            self.paid_for.pop(digest, None)
        self.forgiven |= {name, *(before.digests - left)}
        kept = {key: sha256 for key, sha256 in before.labels.items() if key in labels}
        self.last = Standing(before.files, before.stamps, kept, left)

    def to_the_end(self) -> None:
        """Continue to the end with the same command, and compare with the undisturbed campaign."""
        for _ in range(4):  # a task that was struck three times stops the driver, which says so
            if not self.is_running() and (self.running is None or self.running.returncode != 3):
                self.begin()
            if self.ended() == 3:
                break
            assert self.running.returncode == 1, self.output()[-3000:]
        self.judge()
        n_faults = len(self.rows)
        assert self.running.returncode == 3, self.output()[-3000:]
        self.assert_nothing_lost(self.undisturbed, n_faults)


# --- processes and traces ---------------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """Return the children of a process, zombies not counted."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == pid and fields[0] not in {"Z", "X"}:
                found.append(int(path.parent.name))
    return found


def command_of(pid: int) -> bytes:
    """Return the command line of a process, nothing if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def begun_in_vain(store: Store) -> set[Path]:
    """Return the products of the trainings and walks that were begun and are not published: their scratch is left."""
    found = set()
    for path in (store.folder / "scratch").glob("*/"):
        named = re.fullmatch(rf"(final|\d{{3}}-train|\d{{3}})-(.+)-{re.escape(HOST)}-\d+-[0-9a-f]{{12}}", path.name)
        if named:
            iteration, _, station = named[1].replace("final", "001-final").partition("-")
            found.add(store.product(station or "explore", int(iteration), named[2]))
    return {path for path in found if not path.is_file() and not path.with_name("products.zip").is_file()}
