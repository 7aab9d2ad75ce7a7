"""What the batch system is asked for, in the words of FireWorks' queue adapters.

FireWorks' own templates for PBS and LSF know neither memory nor GPUs (nor, for LSF, a project, or how many hosts), and
the one for LSF has no interpreter. So these systems have our own templates, which are in the config folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from activelearn.config import Queue
from activelearn.errors import ConfigError

#: What FireWorks replaces by a variable of the worker.
_VARIABLE: Final = re.compile(r"\$(\w+|\{[^}]*\})", re.ASCII)
#: FireWorks' names of the batch systems: how a job is submitted, its number is read, and those that wait are counted.
Q_TYPES: Final = {"slurm": "SLURM", "pbs": "PBS", "torque": "PBS", "lsf": "LoadSharingFacility"}
#: Characters of a job's name: 15 are allowed by PBS before 2020 and by Torque.
NAME_LENGTHS: Final = {"slurm": 40, "pbs": 15, "torque": 15, "lsf": 40}
_REST: Final = """
$${pre_rocket}
cd $${launch_dir}
$${rocket_launch}
$${post_rocket}
"""
_PBS: Final = """\
#!/bin/bash -l
#PBS -N $${job_name}
#PBS -q $${queue}
#PBS -l $${resources}
#PBS -l walltime=$${walltime}
#PBS -A $${account}
#PBS -j oe
"""
_LSF: Final = """\
#!/bin/bash -l
#BSUB -J $${job_name}
#BSUB -q $${queue}
#BSUB -n $${ntasks}
#BSUB -R "$${span}"
#BSUB -R "$${memory}"
#BSUB -R "$${select}"
#BSUB -gpu "$${gpu}"
#BSUB -W $${walltime}
#BSUB -P $${account}
#BSUB -o $${job_name}-%J.out
#BSUB -e $${job_name}-%J.error
"""
#: Templates by batch system; Slurm has FireWorks' own.
TEMPLATES: Final = {"pbs": _PBS + _REST, "torque": _PBS + _REST, "lsf": _LSF + _REST}
#: What says which jobs wait or run, by its program; the number of each stands first in a line.
LISTERS: Final = {
    "squeue": ("squeue", "--noheader", "--format=%A"),
    "bjobs": ("bjobs", "-u", "all", "-noheader", "-o", "jobid"),
    "qstat": ("qstat",),
}
#: What shows one job, by the batch system.
_SHOWS: Final = {"slurm": "squeue -j", "pbs": "qstat", "torque": "qstat", "lsf": "bjobs"}
_NUMBER: Final = re.compile(r"^\s*(\d+)", re.MULTILINE)
#: A line of Torque's qstat on a job that has ended, which it shows for minutes: ``123.server name user 00:01 C batch``.
_ENDED: Final = re.compile(r"^\s*\d.*\s[CFX]\s+\S+\s*$\n?", re.MULTILINE)


def queue_keys(queue: Queue) -> dict[str, str | int]:
    """Return the keys of a template that a queue's settings fill in: of FireWorks' SLURM, or of one of ours."""
    keys: dict[str, str | int | None] = {"queue": queue.partition, "account": queue.account}
    if queue.system == "slurm":
        keys |= {
            "walltime": queue.walltime,
            "nodes": queue.nodes,
            "ntasks": queue.ntasks,
            "cpus_per_task": queue.cpus_per_task,
            "mem": f"{_megabytes(queue)}M" if queue.memory_GB is not None else None,
            "gres": queue.gres,
            "qos": queue.qos,
            "constraint": queue.constraint,
        }
    elif queue.system == "lsf":
        keys |= {
            "walltime": _hours(queue, seconds=False),
            "ntasks": queue.n_cpus or queue.nodes,
            "span": "span[hosts=1]" if queue.nodes == 1 else f"span[ptile={_cpus_of_node(queue)}]",
            "memory": f"rusage[mem={_megabytes(queue)}MB]" if queue.memory_GB is not None else None,
            "select": f"select[{queue.constraint}]" if queue.constraint is not None else None,
            "gpu": f"num={queue.n_gpus}" if queue.n_gpus is not None else None,
        }
    else:
        keys |= {"walltime": _hours(queue, seconds=True), "resources": _resources(queue)}
    return {key: value for key, value in keys.items() if value is not None}


def _resources(queue: Queue) -> str:
    """Return what PBS (or Torque) is asked for: chunks with their CPUs, memory and GPUs."""
    cpus = _cpus_of_node(queue)
    if queue.system == "torque":
        words = [f"nodes={queue.nodes}:ppn={cpus}"]
        words += [f"gpus={queue.n_gpus}"] if queue.n_gpus is not None else []
        words += [queue.constraint] if queue.constraint is not None else []
        memory = f",mem={_megabytes(queue) * queue.nodes}mb" if queue.memory_GB is not None else ""
        return ":".join(words) + memory
    words = [f"select={queue.nodes}", f"ncpus={cpus}"]
    words += [f"mpiprocs={-(-queue.ntasks // queue.nodes)}"] if queue.ntasks > 1 else []
    words += [f"mem={_megabytes(queue)}mb"] if queue.memory_GB is not None else []
    words += [f"ngpus={queue.n_gpus}"] if queue.n_gpus is not None else []
    words += [queue.constraint] if queue.constraint is not None else []
    return ":".join(words)


def _cpus_of_node(queue: Queue) -> int:
    return -(-(queue.n_cpus or queue.nodes) // queue.nodes)


def _megabytes(queue: Queue) -> int:
    return round(1000 * (queue.memory_GB or 0.0))


def _hours(queue: Queue, *, seconds: bool) -> str | None:
    """Return a walltime without days, which PBS and LSF do not know; LSF takes hours and minutes (60, too)."""
    if queue.walltime is None:
        return None
    days, _, time = queue.walltime.rpartition("-")
    hours, minutes, rest = map(int, time.split(":"))
    hours += 24 * int(days or 0)
    return f"{hours:02d}:{minutes:02d}:{rest:02d}" if seconds else f"{hours}:{minutes + (rest > 0):02d}"


def jobs_of(listing: str) -> Iterator[str]:
    """Yield the numbers of the jobs that wait or run, by what a program of :data:`LISTERS` has printed."""
    yield from _NUMBER.findall(_ENDED.sub("", listing))


def shown_by(queue: Queue, job: str) -> str:
    """Return the command that shows a job."""
    return f"{_SHOWS[queue.system]} {job}"


def want_no_variable(folder: Path) -> None:
    """Refuse a folder whose path a worker would change.

    Raises
    ------
    ConfigError
        There is a ``$name`` in its path.
    """
    if variable := _VARIABLE.search(str(folder)):
        raise ConfigError(
            f"{folder}: {variable[0]} in the path - expected a path without it for a LaunchPad, as FireWorks "
            "substitutes the worker's variable of that name - rename it (a campaign folder may be moved), and run "
            "the same command again"
        )
