"""Random faults on a real campaign: after each, the same command continues to the same data set, bit for bit."""

import contextlib
import os
import subprocess
import warnings

import numpy as np
import pytest
from faults import FAULTS, WANT_DISK, WANT_MODES
from lives import kill_group
from underfire import Missed, Over, Row, UnderFire, note, without_privileges

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1800)]
#: Where faults fall, in the order of the campaign: station, iteration, tasks, and how long to wait at most (s).
PLACES = (("initial", 0, 6, 0.5), ("train", 0, 2, 6.0), ("explore", 1, 4, 1.0), ("label", 1, 8, 0.4))
PLACES += (("train", 1, 2, 6.0), ("final", 1, 2, 3.0))
#: One of each kind for every day: fault, station, iteration, tasks done before, and how long after that at most. The
#: last one falls when a training is yet to come, so that no machine is too fast for any of them.
HANDFUL = (
    ("worker SIGKILL", "initial", 0, 1, 0.2),
    ("driver SIGKILL", "initial", 0, 3, 0.5),
    ("dp or lmp SIGTERM", "train", 0, 0, 3.0),
    ("driver SIGTERM", "train", 0, 0, 2.0),
    ("clock jumps", "train", 0, 0, 1.0),
    ("lmp missing", "explore", 1, 0, 0.0),
    ("engine hangs", "explore", 1, 0, 0.0),
    ("product cut short", "explore", 1, 1, 0.2),
    ("disk full", "label", 1, 1, 0.2),
    ("folders not writable", "label", 1, 2, 0.2),
    ("two workers", "label", 1, 3, 0.0),
)
N_FAULTS = int(os.environ.get("ACTIVELEARN_FAULTS", "200"))
PER_CAMPAIGN = 20


@pytest.fixture
def disk(tmp_path):
    """Mount a small file system; None, with the reason, where that is not permitted."""
    where = tmp_path / "disk"
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", where]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        yield None
        return
    yield where
    subprocess.run(["umount", "-l", where], check=True)


def can_strike(name: str, disk) -> bool:
    """Return whether a fault can be made here; if not, a row of the table and a warning say why."""
    reason = "mount is not permitted here (needs root)" if name in WANT_DISK and disk is None else ""
    if name in WANT_MODES and os.geteuid() == 0 and not without_privileges():
        reason = "no setpriv, and root may write everywhere"
    if reason:
        note(Row(name, 0, "-", told=reason, outcome="not made"))
        warnings.warn(f"fault '{name}' was not made: {reason}", stacklevel=2)
    return not reason


def bear(life: UnderFire, strikes) -> None:
    """Let a campaign be struck, and see it to its end. What comes too late for its station is a lost node instead."""
    try:
        with contextlib.suppress(Over):
            for name, *moment in strikes:
                try:
                    life.strike(FAULTS[name], *moment)
                except Missed:
                    life.strike(FAULTS["node lost"], *moment)
        life.to_the_end()
    finally:
        if life.is_running():
            kill_group(life.running)


def test_one_fault_of_each_kind(undisturbed, tmp_path, disk):
    """Eleven faults strike one campaign at random moments of the stations that they are meant for."""
    how = {"disk": disk, "random_seed": 20261123, "final__compress": False}  # none strikes the final models
    life = UnderFire(tmp_path, undisturbed[0], **how)
    strikes = [strike for strike in HANDFUL if can_strike(strike[0], disk)]
    bear(life, strikes)
    assert len(life.rows) == len(strikes), "the campaign ended before it was struck by all"


def drawn(random_seed: int, n_faults: int) -> list[tuple]:
    """Return faults of all kinds at moments all over the campaign, in its order."""
    rng = np.random.default_rng(random_seed)
    names = [name for _ in range(-(-n_faults // len(FAULTS))) for name in rng.permutation(list(FAULTS))][:n_faults]
    moments = []
    for name in names:
        places = [k for k, place in enumerate(PLACES) if place[0] in FAULTS[name].stations]
        k = int(rng.choice(places))
        station, iteration, n_tasks, longest_s = PLACES[k]
        moments.append((k, int(rng.integers(n_tasks)), (name, station, iteration, longest_s)))
    return [(name, station, i, n, delay) for _, n, (name, station, i, delay) in sorted(moments, key=lambda m: m[:2])]


@pytest.mark.slow
@pytest.mark.parametrize("random_seed", range(1, 1 + -(-N_FAULTS // PER_CAMPAIGN)))
def test_faults_at_any_moment(undisturbed, tmp_path, disk, random_seed):
    """Twenty faults strike a campaign at random moments; $ACTIVELEARN_FAULTS says how many in all."""
    n_faults = min(PER_CAMPAIGN, N_FAULTS - PER_CAMPAIGN * (random_seed - 1))
    life = UnderFire(tmp_path, undisturbed[0], disk=disk, random_seed=random_seed)
    bear(life, [strike for strike in drawn(random_seed, n_faults) if can_strike(strike[0], disk)])
