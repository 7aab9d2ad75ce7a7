"""Pace: how fast the cores of this machine are compared with the one whose speeds a machine profile declares.

Runs arithmetic that networks consist of (products, tanh, indexing; 0.12 s, three times) on as many
cores as the machine has slots, since cores that share a cache or a clock are slower together. CPU time is measured:
other load counts only as far as it slows down the engines, too. SevenNet took 1.68 to 1.78 times as long as
the arithmetic when both were 2.5 times slower than on the idle machine.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from activelearn.config import Machine
from activelearn.config.machine import n_cpus

#: float32 values of one array, rounds of arithmetic, and number of timings. All data, including the indices (0.3 MB),
#: fit into the cache of any core: with four times as many values, times varied by a factor of 1.5 between runs.
_N, _ROUNDS, _TIMES = 16_384, 6_000, 3


def slower(machine: Machine) -> float:
    """Return how much slower this machine is than the one whose speeds a profile declares; 1 if not known.

    Speeds of places refer to nodes other than this one.
    """
    declared = machine.speeds.pace_s
    return 1.0 if declared is None or machine.places else seconds(machine.n_slots) / declared


def said(machine: Machine, found: float) -> list[str]:
    """Return a line with the scaling of declared seconds, or, without a declared pace, with that of this machine."""
    declared, ours = machine.speeds.pace_s, "machine.speeds.pace_s"
    if machine.places:
        return []
    if declared is None:
        here_s = seconds(machine.n_slots)
        return [
            f"declared seconds are those of profile {machine.name}, not scaled: {ours} is {here_s:.3g} on this machine"
        ]
    pair = f"{found * declared:.3g} on this machine, now, and {declared:.3g} in profile {machine.name}"
    return [f"declared seconds are scaled by {found:.2g}: {ours} is {pair}"]


def seconds(n_slots: int) -> float:
    """Return the CPU s of the arithmetic on one core while `n_slots` cores do it; the shortest of several times."""
    n = max(1, min(n_slots, n_cpus()))
    with ThreadPoolExecutor(n) as pool:
        return min(sum(pool.map(_arithmetic, range(n))) / n for _ in range(_TIMES))


def _arithmetic(seed: int) -> float:
    """Return the CPU s of this thread; numpy releases the interpreter while it works on an array."""
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
