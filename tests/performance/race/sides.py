"""One run of each side of the race, measured from the initial data to the first pass below the bounds."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from meter import Measured, measure

#: Of our stations and of DP-GEN's numbered tasks: the phase they count as.
OURS = {"explore": "explore", "select": "explore", "label": "label", "train": "train"}
DPGENS = {0: "train", 1: "train", 2: "train", 3: "explore", 4: "explore", 5: "explore", 6: "explore", 7: "label"}
_TASK = re.compile(r"(\S+ \S+),(\d+) - INFO : -+iter\.(\d+) task (\d+)")
_CLASS = re.compile(r"(\S+ \S+),(\d+) - INFO : system (\d+) (\w+) *: +(\d+) in +(\d+)")


@dataclass(frozen=True)
class Pass:
    """What one pass of exploration found: counts of walks, frames, and frames of two classes."""

    walks: int
    frames: int
    candidates: int
    failed: int

    def is_below(self, candidate_share: float, failed_share: float) -> bool:
        """Return whether the shares are below their bounds."""
        frames = max(self.frames, 1)
        return self.candidates / frames < candidate_share and self.failed / frames < failed_share


@dataclass(frozen=True)
class Phase:
    """A stretch of a run: its name, its iteration, and what it cost."""

    name: str
    iteration: int
    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Run:
    """One run of one side.

    Parameters
    ----------
    side
        ``ours``, ``baseline``, ``dpgen, wheel's lmp`` or ``dpgen, bare lmp``.
    is_below
        Whether its last pass was below the bounds.
    wall_s, cpu_s
        From the initial data to the classes of that pass.
    peak_MB
        Largest sum of proportional set sizes until then.
    whole_cpu_s
        CPU to the end of the command.
    passes, phases
        In order.
    labels
        That were paid for after the initial data.
    models
        Those that walked in the last pass.
    files, megabytes
        In the folder, at the end.
    series
        Unix time, CPU s, MB.
    """

    side: str
    is_below: bool
    wall_s: float
    cpu_s: float
    whole_cpu_s: float
    peak_MB: float
    passes: tuple[Pass, ...]
    phases: tuple[Phase, ...]
    labels: int
    models: tuple[str, ...]
    files: int
    megabytes: float
    series: list[tuple[float, float, float]] = field(repr=False)

    def write(self, path: Path) -> None:
        """Write all numbers as JSON; a run that was cut short leaves none."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self), indent=1))
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> Run:
        """Return what :meth:`write` wrote."""
        found = json.loads(path.read_text())
        found |= {"passes": tuple(Pass(**one) for one in found["passes"])}
        found |= {"phases": tuple(Phase(**one) for one in found["phases"]), "models": tuple(found["models"])}
        return cls(**found)

    def cpu_of(self, phase: str) -> float:
        """Return the CPU s of all phases of a name."""
        return sum(one.cpu_s for one in self.phases if one.name == phase)

    @property
    def walk_s(self) -> float:
        """CPU s of one walk, with all that exploration costs."""
        return self.cpu_of("explore") / sum(one.walks for one in self.passes)


def median(runs: Sequence[Run], of: str) -> float:
    """Return the median of an attribute over the rounds."""
    return statistics.median(getattr(run, of) for run in runs)


def _of_folder(folder: Path) -> dict[str, Any]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {"files": len(files), "megabytes": sum(path.stat().st_size for path in files) / 1e6}


# --- activelearn, this one or an earlier one --------------------------------------------------------------------------


def make_initial_data(command: Path, campaign: Path, folder: Path, n_slots: int) -> None:
    """Run a campaign up to its first training, and stop it there: a kill costs nothing that is published."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    words = [str(command), "run", str(campaign), "--folder", str(folder), "--slots", str(n_slots)]
    planned = folder / "iter-000" / "train" / "plan.json"
    measured = measure(words, folder=folder.parent, log=folder.with_suffix(".log"), until=planned.exists)
    if not planned.exists():
        raise SystemExit(f"{' '.join(words)}: ended with code {measured.exit_code} - see {folder.with_suffix('.log')}")


def run_ours(side: str, command: Path, campaign: Path, initial: Path, folder: Path, n_slots: int) -> Run:
    """Continue from a copy of the initial data to the end."""
    shutil.copytree(initial, folder, symlinks=True)
    words = [str(command), "run", str(campaign), "--folder", str(folder), "--slots", str(n_slots)]
    measured = measure(words, folder=folder.parent, log=folder.with_suffix(".log"))
    if measured.exit_code not in (0, 3):
        raise SystemExit(f"{' '.join(words)}: ended with code {measured.exit_code} - see {folder.with_suffix('.log')}")
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("iter-*/iteration.json"))]
    last = records[-1]["index"]
    end = (folder / f"iter-{last:03d}" / "select" / "result.json").stat().st_mtime
    return Run(
        side=side,
        is_below=measured.exit_code == 0,
        wall_s=end - measured.began,
        cpu_s=measured.cpu_at(end),
        whole_cpu_s=measured.cpu_s,
        peak_MB=measured.peak_until(end),
        passes=tuple(_our_pass(record["selection"]) for record in records[1:]),
        phases=tuple(_our_phases(folder, measured, end)),
        labels=sum(record["labelling"]["labels_computed"] for record in records[1:]),
        models=tuple(str(folder / member["model"]) for member in records[-2]["ensemble"]["members"]),
        series=measured.series,
        **_of_folder(folder),
    )


def _our_pass(selection: dict[str, Any]) -> Pass:
    """Return one pass, its frames those in the region, as the verdict counts them."""
    counts = [cell["counts"] for cell in selection["cells"]]
    candidates, failed = (sum(one[name] for one in counts) for name in ("candidate", "failed"))
    return Pass(len(selection["walks"]), candidates + failed + sum(c["accurate"] for c in counts), candidates, failed)


def _our_phases(folder: Path, measured: Measured, end: float) -> Iterator[Phase]:
    """Yield the stations: each begins when its plan is frozen and ends when its result is sealed."""
    for result in sorted(folder.glob("iter-*/*/result.json"), key=lambda path: path.stat().st_mtime):
        ended, plan = result.stat().st_mtime, result.with_name("plan.json")
        if result.parent.name not in OURS or not measured.began < ended <= end:
            continue
        began = max(measured.began, plan.stat().st_mtime if plan.exists() else ended)
        iteration = int(result.parent.parent.name.removeprefix("iter-"))
        yield Phase(OURS[result.parent.name], iteration, ended - began, measured.cpu_between(began, ended))


# --- DP-GEN -----------------------------------------------------------------------------------------------------------


def run_dpgen(side: str, dpgen: Path, folder: Path, bounds: tuple[float, float], n_stages: int) -> Run:
    """Run DP-GEN in its folder until a pass over all stages is below the bounds."""
    log = folder / "dpgen.log"

    def is_below() -> bool:
        passes = passes_of(log.read_text()) if log.exists() else {}
        return any(k >= n_stages - 1 and one.is_below(*bounds) for k, (_, one) in passes.items())

    words = [str(dpgen), "run", "param.json", "machine.json"]
    measured = measure(words, folder=folder, log=folder / "dpgen.out", until=is_below)
    passes = passes_of(log.read_text()) if log.exists() else {}
    if not passes:
        raise SystemExit(f"{' '.join(words)}: ended with code {measured.exit_code} - see {log}, {folder}/dpgen.out")
    last = max(passes)
    end = passes[last][0]
    n_walks = [len(list(folder.glob(f"iter.{k:06d}/01.model_devi/task.*"))) for k in passes]
    return Run(
        side=side,
        is_below=is_below(),
        wall_s=end - measured.began,
        cpu_s=measured.cpu_at(end),
        whole_cpu_s=measured.cpu_s,
        peak_MB=measured.peak_until(end),
        passes=tuple(
            Pass(n, one.frames, one.candidates, one.failed)
            for n, (_, one) in zip(n_walks, passes.values(), strict=True)
        ),
        phases=tuple(_dpgens_phases(log.read_text(), measured, end)),
        labels=sum(len(list(folder.glob(f"iter.{k:06d}/02.fp/task.*"))) for k in range(last)),
        models=tuple(map(str, sorted(folder.glob(f"iter.{last:06d}/00.train/graph.*.pb")))),
        series=measured.series,
        **_of_folder(folder),
    )


def _unix(moment: str, milliseconds: str) -> float:
    """Return the Unix time of an entry of dpgen.log, which has the local one."""
    return time.mktime(time.strptime(moment, "%Y-%m-%d %H:%M:%S")) + int(milliseconds) / 1000.0


def passes_of(text: str) -> dict[int, tuple[float, Pass]]:
    """Return of each pass whose frames were classed when that was and what it found; DP-GEN counts no walks.

    System k of ``sys_configs`` has the starts of pass k, so the number of the system is that of the pass.
    """
    found: dict[int, dict[str, tuple[float, int, int]]] = {}
    for moment, ms, system, name, n, of in _CLASS.findall(text):
        found.setdefault(int(system), {})[name] = (_unix(moment, ms), int(n), int(of))
    return {
        k: (max(at for at, _, _ in one.values()), Pass(0, one["candidate"][2], one["candidate"][1], one["failed"][1]))
        for k, one in sorted(found.items())
        if {"candidate", "failed", "accurate"} <= set(one)
    }


def _dpgens_phases(text: str, measured: Measured, end: float) -> Iterator[Phase]:
    entries = [(_unix(moment, ms), int(i), int(task)) for moment, ms, i, task in _TASK.findall(text)]
    ends = [began for began, _, _ in entries[1:]] + [end]
    for (began, iteration, task), ended in zip(entries, ends, strict=True):
        if began < end:
            until = min(ended, end)
            name = DPGENS.get(task, "label")
            yield Phase(name, iteration, until - began, measured.cpu_between(began, until))
