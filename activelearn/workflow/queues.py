"""What the batch system is asked for, in the words of FireWorks' queue adapter for Slurm."""

from __future__ import annotations

from activelearn.config import Queue


def queue_keys(queue: Queue) -> dict[str, str | int]:
    """Return the keys of FireWorks' SLURM template that a queue's settings fill in."""
    keys = {
        "queue": queue.partition,
        "walltime": queue.walltime,
        "nodes": queue.nodes,
        "ntasks": queue.ntasks,
        "cpus_per_task": queue.cpus_per_task,
        "mem": f"{round(1000 * queue.memory_GB)}M" if queue.memory_GB is not None else None,
        "gres": queue.gres,
        "account": queue.account,
        "qos": queue.qos,
        "constraint": queue.constraint,
    }
    return {key: value for key, value in keys.items() if value is not None}
