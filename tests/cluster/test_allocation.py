"""`activelearn run` inside one Slurm allocation: a job step per slot, over its nodes, and none left behind."""

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from campaigns import TINY, command, dataset_summary, environment

from activelearn.config import load_machine
from activelearn.store import Store

pytestmark = [pytest.mark.needs_slurm, pytest.mark.engines, pytest.mark.timeout(900)]
PROFILE = "slurm_allocation"
#: Where odd_calculators.py stands.
ODD = Path(__file__).resolve().parent.parent / "engines"


def wait_until(condition, *, timeout_s, what):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {what()}"
        time.sleep(0.1)


def engines_in(folder: Path) -> dict[int, str]:
    """Return the processes that work in a folder, by id: this machine plays all nodes, so these are all there are."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_zombie = (process / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
            if not is_zombie and (process / "cwd").readlink().is_relative_to(folder):
                found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
    return found


class Job:
    """A batch job of two nodes with one task each, which continues the tiny campaign."""

    def __init__(self, slurm, folder: Path, name: str) -> None:
        self.slurm, self.output = slurm, folder.parent / f"{name}.out"
        script = folder.parent / f"{name}.sh"
        words = command("run", TINY, "--folder", folder, "--machine", PROFILE)
        script.write_text(f"#!/bin/bash\nexec nice {' '.join(words)}\n")
        asked = ("--parsable", "--nodes=2", "--ntasks=2", "--no-requeue", f"--output={self.output}")
        where = f"--export=ALL,PATH={environment()['PATH']}"
        self.id = slurm.run("sbatch", *asked, where, str(script)).strip()

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it runs any more."""
        asked = ("--noheader", f"--jobs={self.id}", "--states=all", "--format=%T")
        return self.slurm.run("squeue", *asked).strip() not in {"PENDING", "RUNNING", "COMPLETING"}

    def nodes_of_steps(self) -> list[str]:
        """Return the nodes of the steps that run engines."""
        lines = self.slurm.run("squeue", "--steps", "--noheader", f"--jobs={self.id}", "--format=%i %N").splitlines()
        return sorted(line.split()[1] for line in lines if line.split()[0].split(".")[1].isdigit())

    def said(self) -> str:
        """Return what it printed."""
        return self.output.read_text() if self.output.exists() else "nothing"


def test_a_campaign_in_an_allocation_survives_scancel_and_ends_with_the_undisturbed_data_set(
    slurm, undisturbed, tmp_path
):
    folder = tmp_path / "campaign"
    job = Job(slurm, folder, "first")
    wait_until((folder / "iter-000/train").is_dir, timeout_s=200, what=job.said)
    wait_until(lambda: job.nodes_of_steps() == ["n1", "n2"], timeout_s=60, what=job.nodes_of_steps)
    wait_until(lambda: len(engines_in(folder)) >= 2, timeout_s=60, what=job.said)
    slurm.run("scancel", job.id)
    wait_until(lambda: not engines_in(folder), timeout_s=15, what=lambda: engines_in(folder))
    wait_until(lambda: job.has_ended, timeout_s=30, what=job.said)
    assert "stopped on request; everything finished is published" in job.said()

    job, widest = Job(slurm, folder, "second"), 0
    deadline = time.monotonic() + 600
    while not job.has_ended and time.monotonic() < deadline:
        widest = max(widest, len(job.nodes_of_steps()))
        time.sleep(0.5)
    assert "not converged after 2 iterations" in job.said()
    assert widest == 2, "never more steps than slots, or they would wait for one another"
    assert dataset_summary(Store(folder), 2) == dataset_summary(undisturbed[0], 2)
    assert engines_in(folder) == {}
    assert slurm.run("squeue", "--steps", "--noheader", f"--jobs={job.id}") == ""


# --- what process.py relies on, with the launcher of the profile ------------------------------------------------------

DRIVER = """
    import json, os, sys, threading, time
    from pathlib import Path
    from activelearn.config import load_machine
    from activelearn.engines import process
    from activelearn.engines.process import Session, Slot, run_command, session, worker_command
    from activelearn.errors import ActiveLearnError
    here = Path(sys.argv[1])
    machine = load_machine("slurm_allocation")
    ours = {"SITE": "here", **machine.environment}
    slot = Slot(machine.model_copy(update={"grace_s": 5.0, "environment": ours}), here)

    def command(*words, **more):
        return run_command(words, here, log=here / "log", **{"timeout_s": 60.0, "slot": slot, **more})

    def worker(name, slot=slot):
        def make():
            return Session(worker_command("calculator_session.py", None), log=here / name, slot=slot)

        return session((name, *slot.key), make)

    def label(name, slot=slot, calculator="ase.calculators.emt:EMT", n=1):
        cell = [[3, 0, 0], [0, 3, 0], [0, 0, 3]]
        one = {"symbols": ["Cu"], "positions": [[0, 0, 0]], "cell": cell, "pbc": [True] * 3}
        job = {"job": "label", "calculator": calculator, "arguments": {}, "structure": one, "padding": "x" * n}
        return worker(name, slot).request(job, timeout_s=120)

    def said(run):
        begin = time.monotonic()
        try:
            answer = run()
        except ActiveLearnError as error:
            answer = f"{type(error).__name__}: {error}"
        return answer, time.monotonic() - begin
"""


def in_allocation(slurm, folder: Path, code: str) -> str:
    """Run code after DRIVER in an allocation of one CPU, and return what it prints."""
    script = folder / "driver.py"
    script.write_text(textwrap.dedent(DRIVER) + textwrap.dedent(code))
    done = subprocess.run(
        ["salloc", "--quiet", "--nodes=1", "--ntasks=1", "--time=5", sys.executable, script, folder],
        env={**os.environ, **slurm.environment, "PYTHONPATH": str(ODD)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def test_codes_variables_and_long_lines_come_through_srun(slurm, tmp_path):
    output = in_allocation(
        slurm,
        tmp_path,
        """
        print([command("sh", "-c", f"exit {code}").return_code for code in (0, 3)])
        print(command("sh", "-c", "kill -SEGV $$").return_code)
        print(command("sh", "-c", "echo $SITE $OMP_NUM_THREADS").tail[-1])
        print("energy" in label("a", n=1_000_000))
        """,
    )
    # A signal is 128 and its number: for LAMMPS' physical errors a code must be below that.
    assert output.splitlines() == ["[0, 3]", "139", "here 1", "True"]


def test_one_cpu_is_enough_for_a_slot_that_does_one_thing_after_another_or_under_mpiexec(slurm, tmp_path):
    output = in_allocation(
        slurm,
        tmp_path,
        """
        for name in ("a", "b", "a"):
            print("energy" in label(name))
        print(command("true").return_code)
        mpiexec = str(Path(sys.executable).with_name("mpiexec"))
        said = command(mpiexec, "-n", "2", "echo", "here", timeout_s=20.0)
        print(said.return_code, said.tail.count("here"))
        """,
    )
    # Hydra may add that it could not pass its standard input on to programs that had ended already.
    assert output.splitlines() == ["True", "True", "True", "0", "0 2"]


def test_past_its_time_and_at_a_stop_the_step_ends(slurm, tmp_path):
    output = in_allocation(
        slurm,
        tmp_path,
        """
        deaf = ("sh", "-c", "trap '' TERM; echo $$ >> pids; sleep 600; sleep 600")
        answer, seconds = said(lambda: command(*deaf, timeout_s=1.0))
        print(answer.splitlines()[0][:30], seconds < 30.0)
        threading.Timer(1.0, process.stop_engines).start()
        answer, seconds = said(lambda: command(*deaf))
        print(answer[:31], seconds < 30.0)
        process.allow_engines()
        threading.Timer(3.0, process.stop_engines).start()
        answer, seconds = said(lambda: label("a", calculator="odd_calculators:Slow"))
        print(answer[:31], seconds < 30.0)
        """,
    )
    stopped = "Interrupted: stopped on request True"
    assert output.splitlines() == ["EngineError: sh took more than True", stopped, stopped]
    assert engines_in(tmp_path) == {}


SLOW = 'label("a", calculator="odd_calculators:Slow")'


@pytest.mark.parametrize(
    ("busy", "group"),
    [('label("a")', False), (SLOW, False), (SLOW, True), ('command("sleep", "600")', True)],
    ids=["idle", "in a session's job", "in a job, with its process group", "in a command, with its process group"],
)
def test_a_driver_that_is_killed_leaves_no_step(slurm, tmp_path, busy, group):
    output = in_allocation(
        slurm,
        tmp_path,
        f"""
        import signal, subprocess
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            {busy}
            threading.Event().wait()
        squeue = ["squeue", "--steps", "--noheader", "--format=%i", "--jobs", os.environ["SLURM_JOB_ID"]]

        def steps():
            lines = subprocess.run(squeue, capture_output=True, text=True, check=True).stdout.split()
            return [line for line in lines if line.split(".")[1].isdigit()]

        while not steps():
            time.sleep(0.1)
        time.sleep(2.0)
        os.{"killpg" if group else "kill"}(child, signal.SIGKILL)
        os.waitpid(child, 0)
        begin = time.monotonic()
        while steps() and time.monotonic() < begin + 30.0:
            time.sleep(0.1)
        print(steps())
        """,
    )
    assert output == "[]\n"
    assert {pid: line for pid, line in engines_in(tmp_path).items() if "driver.py" not in line} == {}


def test_the_profile_has_a_slot_for_each_task(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "64")
    assert load_machine(PROFILE).n_slots == 64
