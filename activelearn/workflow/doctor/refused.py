"""Jobs that the queue keeps refusing: what it says is in the log of `qlaunch`, beside my_launchpad.yaml.

The LaunchPad knows nothing of a refusal: FireWorks reserves a Firework, is refused its job, and gives it back, again
and again. `activelearn qlaunch` prints the queue's own words, and the guide sends them to ``workers_<category>.log``.
"""

from __future__ import annotations

import ast
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from activelearn.workflow.doctor.picture import Flow
from activelearn.workflow.doctor.words import Finding, counted

#: So much of the end of a log is read, and so old it may be, bytes and s.
_TAIL: Final = 100_000
_RECENT_S: Final = 3600.0
#: What FireWorks prints of a job that was refused (bytes, as Python writes them), and of one that was taken.
_REFUSED: Final = re.compile(r"The error response reads: (b(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"))")
_TAKEN: Final = re.compile(r"job_id is \S+")
#: What the words of Slurm, PBS and LSF are about, by key of a place's queue; the first that matches counts.
_ABOUT: Final = (
    (r"(?i)submit ?limit|MaxSubmit|too many jobs|job limit|pending job.*(limit|threshold)|would exceed.*limit", "many"),
    (r"(?i)invalid partition|unknown queue|queue (does not exist|is not enabled)|no such queue", "partition"),
    (r"(?i)account|project", "account"),
    (r"(?i)\bqos\b", "qos"),
    (r"(?i)time ?limit|walltime|RUNLIMIT", "walltime"),
    (r"(?i)gres|generic resource|\bgpus?\b", "gres"),
    (r"(?i)memory|\bmem\b", "memory_GB"),
    (r"(?i)node configuration|cpus?|ncpus|processors|unknown resource", "cpus_per_task, memory_GB, gres"),
    (r"(?i)feature|constraint", "constraint"),
)
_MANY: Final = "lower the number after -m of qlaunch, or chunks in machine.yaml: the site limits how many may wait"


def refused_categories(flows: Iterable[Flow], file: Path) -> Iterator[tuple[str, Finding]]:
    """Yield the categories with READY Fireworks whose jobs were refused last, each with the queue's own words.

    Parameters
    ----------
    flows
        The Workflows that may wait for nothing but workers.
    file
        my_launchpad.yaml, beside which the logs of `qlaunch` stand.
    """
    ready = Counter(
        category
        for flow in flows
        for fw_id in flow.in_state("READY")
        if (category := flow.fireworks[fw_id]["spec"].get("_category"))
    )
    for category, n in sorted(ready.items()):
        said = last_refusal(file.absolute().parent, category)
        if said is None:
            continue
        log, words = said
        what = f"{counted(n, 'READY Firework')} of category {category}: the queue refuses the job: {words!r} ({log})"
        yield category, Finding("refused", what, _advice(words, category))


def last_refusal(folder: Path, category: str) -> tuple[str, str] | None:
    """Return the log and the words of a queue that refused the last job of a category; None: it took it."""
    for log in (folder / f"workers_{category}.log", folder / "workers.log"):
        try:
            if time.time() - log.stat().st_mtime > _RECENT_S:
                continue
            with log.open("rb") as stream:
                stream.seek(max(0, log.stat().st_size - _TAIL))
                text = stream.read().decode(errors="replace")
        except OSError:
            continue
        refused, taken = [*_REFUSED.finditer(text)], [*_TAKEN.finditer(text)]
        if refused and (not taken or taken[-1].start() < refused[-1].start()):
            return log.name, _plain(refused[-1][1])
    return None


def _plain(literal: str) -> str:
    """Return the words of a queue in one line, from the bytes that FireWorks prints."""
    words = ast.literal_eval(literal).decode(errors="replace")
    return " / ".join(line.strip() for line in words.splitlines() if line.strip()) or "nothing at all"


def _advice(words: str, category: str) -> str:
    about = next((key for pattern, key in _ABOUT if re.search(pattern, words)), None)
    if about == "many":
        return _MANY
    keys = f"queue.{about}" if about is not None else "queue"
    return (
        f"correct {keys} of the place of {category} in the machine profile; activelearn machine --init YAML writes the "
        "adapters from it, and `activelearn submit` again brings it to what waits"
    )
