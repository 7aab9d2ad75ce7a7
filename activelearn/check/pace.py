"""Pace: how fast the cores of this machine are beside the one whose speeds a machine profile declares.

Some arithmetic that networks are made of (products, tanh, values picked by an index; 0.12 s, three times), on as many
cores as the machine has slots, for cores that share a cache or a clock are slower together. CPU time is taken: what
else runs here counts only by as much as it makes the engines slower, too. SevenNet took 1.68 to 1.78 times as long as
the arithmetic when both were 2.5 times as slow as on the idle machine.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from activelearn.config import Machine
from activelearn.config.machine import n_cpus

#: float32 values of one array, rounds of arithmetic, and how often they are timed. All of it, the indices too (0.3 MB),
#: stays in the cache of any core: four times as many values took 1.0 to 1.5 times as long from one run to the next.
_N, _ROUNDS, _TIMES = 16_384, 6_000, 3


def slower(machine: Machine) -> float:
    """Return how many times as long this machine takes as the one whose speeds a profile declares; 1 if that is open.

    Speeds with places of their own are those of other nodes than the one that asks.
    """
    declared = machine.speeds.pace_s
    return 1.0 if declared is None or machine.places else seconds(machine.n_slots) / declared


def said(machine: Machine, found: float) -> list[str]:
    """Return in a line what declared seconds were scaled by; without a pace to compare with, what this machine has."""
    declared, ours = machine.speeds.pace_s, "machine.speeds.pace_s"
    if machine.places:
        return []
    if declared is None:
        here_s = seconds(machine.n_slots)
        return [
            f"declared seconds are as in profile {machine.name}, not scaled: {ours} is {here_s:.3g} on this machine"
        ]
    pair = f"{found * declared:.3g} on this machine, now, and {declared:.3g} in profile {machine.name}"
    return [f"declared seconds are scaled by {found:.2g}: {ours} is {pair}"]


def seconds(n_slots: int) -> float:
    """Return the CPU s that the arithmetic takes on one core while `n_slots` do it: the shortest of some times."""
    n = max(1, min(n_slots, n_cpus()))
    with ThreadPoolExecutor(n) as pool:
        return min(sum(pool.map(_arithmetic, range(n))) / n for _ in range(_TIMES))


def _arithmetic(seed: int) -> float:
    """Return the CPU s of this thread; numpy gives the interpreter up while it works on an array."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(_N, dtype=np.float32)
    where: Final = rng.permutation(_N)
    made = np.empty_like(values)
    began = time.thread_time()
    for _ in range(_ROUNDS):
        np.multiply(values, 1.01, out=made)
        np.tanh(made, out=made)
        np.take(made, where, out=values, mode="clip")
    return time.thread_time() - began
