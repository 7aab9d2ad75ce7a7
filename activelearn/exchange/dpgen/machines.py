"""A machine file of DP-GEN (dpdispatcher, api_version 1.0) as a machine profile."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from activelearn.config.machine import SECRET
from activelearn.exchange.dpgen.given import DpgenFolder, alias, whole
from activelearn.exchange.dpgen.keys import Fate
from activelearn.exchange.dpgen.told import DpgenReport

#: The three kinds of work of DP-GEN, and the corresponding stations.
STATIONS: Final = {
    "train": ("train", "final"),
    "model_devi": ("explore", "glass", "benchmark"),
    "fp": ("prepare", "initial", "label", "light"),
}
#: Batch systems beside Slurm, by their batch_type, that have a queue adapter.
_SYSTEMS: Final = {"pbs": "pbs", "torque": "torque", "lsf": "lsf"}
#: Batch systems whose words a profile has; the Shell has none.
QUEUES: Final = ("slurm", "slurmjobarray", "pbs", "torque", "sge", "lsf")
SHELLS: Final = ("shell",)
#: Flags of batch systems, and the equivalent key of a queue.
_FLAGS: Final = (
    (r"#SBATCH\s+(?:-t\s*|--time[= ])(\S+)", "walltime"),
    (r"#PBS\s+-l\s+walltime=(\S+)", "walltime"),
    (r"#BSUB\s+-W\s*(\S+)", "walltime"),
    (r"#SBATCH\s+--mem[= ](\d+(?:\.\d+)?)\s*G\S*", "memory_GB"),
    (r"#SBATCH\s+(?:-A\s*|--account[= ])(\S+)", "account"),
    (r"#SBATCH\s+(?:-q\s*|--qos[= ])(\S+)", "qos"),
    (r"#SBATCH\s+(?:-C\s*|--constraint[= ])(\S+)", "constraint"),
    (r"#SBATCH\s+--gres[= ](\S+)", "gres"),
    (r"#SBATCH\s+(?:-p\s*|--partition[= ])(\S+)", "partition"),
)
_WALLTIME: Final = re.compile(r"(?:(\d+)-)?(\d+):(\d+)(?::(\d+))?")


def machine_of(given: DpgenFolder, name: str, report: DpgenReport) -> dict[str, Any] | None:
    """Return a machine profile as raw YAML; None: there is no machine file, or it cannot be one (reported)."""
    if given.machine_file is None:
        report.facts.append("no machine.json: no machine profile was made")
        return None
    sections = {kind: _section(given.machine.get(kind)) for kind in STATIONS}
    report.facts += [
        f"{given.machine_file.name}: {kind} has {len(several)} machines, and the first counts, as in DP-GEN"
        for kind in STATIONS
        if isinstance(several := given.machine.get(kind), list) and len(several) > 1
    ]
    why = _reason(sections)
    if why is not None:
        report.facts.append(f"{given.machine_file.name}: no machine profile was made: {why}")
        return None
    places = {kind: _place(section, kind, report) for kind, section in sections.items()}
    made: dict[str, Any] = {
        "name": name,
        "places": places,
        "stations": {station: kind for kind, stations in STATIONS.items() for station in stations},
    }
    retries = [int(s["machine"]["retry_count"]) for s in sections.values() if "retry_count" in s["machine"]]
    if retries:
        made["max_attempts"] = max(1, *retries)
    kinds = {_batch(section) for section in sections.values()}
    if kinds & set(QUEUES) - {*_SYSTEMS, "slurm", "slurmjobarray"}:
        report.facts.append(
            f"batch_type {', '.join(sorted(kinds))}: the profile has the options of the queue; the adapters that "
            "`activelearn machine --init` writes are for Slurm, unless stated otherwise: check them before you submit"
        )
    return made


def _section(given: Any) -> dict[str, Any]:  # noqa: ANN401 - raw JSON
    """Return the settings of one kind of work; of a list the first item, as in DP-GEN."""
    one = given[0] if isinstance(given, list) and given else given
    found = dict(one) if isinstance(one, Mapping) else {}
    for key in ("machine", "resources"):
        found[key] = dict(found.get(key) or {})
    return found


def _batch(section: Mapping[str, Any]) -> str:
    found = alias(section["machine"], "batch_type", default=section["resources"].get("batch_type", ""))
    return str(found).lower()


def _reason(sections: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return why no profile can be made, or None."""
    for kind, section in sections.items():
        batch = _batch(section)
        if not batch:
            return f"{kind} has no batch_type (the form of before api_version 1.0); start from machine --init slurm"
        if batch not in {*QUEUES, *SHELLS}:
            return f"batch_type {batch} of {kind} has no counterpart; start from activelearn machine --init slurm"
    return None


def _place(section: Mapping[str, Any], kind: str, report: DpgenReport) -> dict[str, Any]:
    """Return one kind of node."""
    resources, is_shell = section["resources"], _batch(section) in SHELLS
    made: dict[str, Any] = {}
    n_gpus = whole(resources.get("gpu_per_node") or 0)
    if not is_shell:
        system = _SYSTEMS.get(_batch(section), "slurm")
        made["queue"] = {
            **({"system": system} if system != "slurm" and resources.get("queue_name") else {}),
            **_queue(resources, n_gpus, kind, report),
        }
    if n_gpus or not is_shell:
        made["gpus"] = list(range(n_gpus))
    if (side_by_side := whole(resources.get("para_deg") or 1)) > 1:
        made["slots"] = side_by_side
    elif is_shell:
        made["slots"] = 1
    setup = [*_setup(resources), *_exports(resources.get("envs") or {}, kind, report)]
    if setup:
        made["setup"] = setup
    if plain := {k: str(v) for k, v in (resources.get("envs") or {}).items() if _is_plain(k, v)}:
        made["environment"] = plain
    return {**made, **_programs(str(section.get("command", "")), kind)}


def _queue(resources: Mapping[str, Any], n_gpus: int, kind: str, report: DpgenReport) -> dict[str, Any]:
    """Return the resources requested from the batch system."""
    made: dict[str, Any] = {"nodes": whole(resources.get("number_node") or 1)}
    if resources.get("queue_name"):
        made["partition"] = str(resources["queue_name"])
    if resources.get("cpu_per_node"):
        made["cpus_per_task"] = whole(resources["cpu_per_node"])
    if n_gpus:
        made["gres"] = f"gpu:{n_gpus}"
    left = []
    for flag in resources.get("custom_flags") or []:
        key, value = next(((k, m[1]) for p, k in _FLAGS if (m := re.match(p, str(flag).strip()))), (None, ""))
        value = _walltime(value) if key == "walltime" else value
        if key is None or value is None:
            left.append(str(flag))
        else:
            made[key] = float(value) if key == "memory_GB" else value
    if left:
        report.say(f"{kind}.resources.custom_flags", Fate.CHANGED, f"add by hand, if needed: {'; '.join(left)}")
    return made


def _walltime(text: str) -> str | None:
    """Return a walltime as HH:MM:SS, or None if it is invalid; LSF gives hours and minutes."""
    found = _WALLTIME.fullmatch(text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(number) for number in found.groups(default="0"))
    days, hours = divmod(24 * days + hours, 24)
    return f"{f'{days}-' if days else ''}{hours:02d}:{minutes:02d}:{seconds:02d}"


def _setup(resources: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of bash before the work, in dpdispatcher's order."""
    if resources.get("module_purge"):
        yield "module purge"
    yield from (f"module unload {name}" for name in resources.get("module_unload_list") or [])
    yield from (f"module load {name}" for name in resources.get("module_list") or [])
    yield from (f"source {name}" for name in resources.get("source_list") or [])
    yield from map(str, resources.get("prepend_script") or [])


def _is_plain(name: str, value: Any) -> bool:  # noqa: ANN401 - raw JSON
    return isinstance(value, str | int | float) and "$" not in str(value) and not SECRET.search(name)


def _exports(envs: Mapping[str, Any], kind: str, report: DpgenReport) -> Iterator[str]:
    """Yield lines for the variables that a shell must expand; what looks like a secret is reported, never copied."""
    for name, value in envs.items():
        if SECRET.search(name):
            report.say(f"{kind}.resources.envs.{name}", Fate.LEFT_OUT, "looks like a secret: set it in your shell")
        elif not _is_plain(name, value):
            values = value if isinstance(value, list) else [value]
            yield from (f'export {name}="{one}"' for one in values)


def _programs(command: str, kind: str) -> dict[str, str]:
    """Return the keys of a place that set the commands."""
    words = command.split()
    if not words:
        return {}
    if kind == "train":
        beside = Path(words[0]).parent / "python"
        return {"python": str(beside)} if words[0].startswith("/") and beside.is_file() else {}
    if kind == "model_devi":
        plain = _without_inputs(words)
        return {} if plain == ["lmp"] else {"lammps": " ".join(plain)}
    return {}


def _without_inputs(words: list[str]) -> list[str]:
    """Return a command of LAMMPS without the options that our inputs replace."""
    kept: list[str] = []
    skip = 0
    for word in words:
        if skip:
            skip -= 1
        elif word in {"-i", "-in"}:
            skip = 1
        elif word in {"-v", "-var"}:
            skip = 2
        else:
            kept.append(word)
    return kept
