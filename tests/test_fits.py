"""Ranks, slots, CPUs and GPUs of a place: what cannot be run side by side is refused before any job."""

import re

import pytest
from campaigns import in_process, machine_file, tiny

from activelearn.check.fits import contradictions, crowded, started
from activelearn.config import Machine, load_campaign, load_machine, preset_names
from activelearn.config.machine import n_gpus


def campaign_with(command):
    campaign = load_campaign("copper_emt")
    reference = campaign.label.reference.model_copy(update={"command": command})
    return campaign.model_copy(update={"label": campaign.label.model_copy(update={"reference": reference})})


def machine_with(command=None, *, lammps=None, environment=None, queue=None, **place):
    asked = {"cpus_per_task": 16} if queue is None else queue
    whole = {"queue": asked, "lammps": lammps, "environment": environment or {}, **place}
    return Machine.model_validate({"name": "m", "places": {"cpu": whole}})


@pytest.mark.parametrize(
    ("command", "ranks", "cpus"),
    [
        ("mpirun -n 32 vasp_std", 32, None),
        ("/opt/mpi/bin/mpiexec -np 4 lmp", 4, None),
        ("mpiexec.hydra -bind-to none -n 8 gpaw python", 8, None),
        ("env OMP_NUM_THREADS=1 mpirun --np 2 x", 2, 1),
        ("srun --ntasks=4 --cpus-per-task=2 lmp", 4, 2),
        ("srun -n4 -c 2 lmp", 4, 2),
        ("mpirun vasp_std", None, None),
        ("vasp_std -n 4", None, None),
        ("mpirun -n $SLURM_NTASKS vasp_std", None, None),
        (None, None, None),
    ],
)
def test_what_a_command_starts(command, ranks, cpus):
    found = started(command)
    assert (found.ranks, found.cpus) == (ranks, cpus)


@pytest.mark.parametrize(
    ("gres", "n"),
    [
        ("gpu:4", 4),
        ("gpu", 1),
        ("gpu:a100:2", 2),
        ("gpu:a100", 1),
        ("gpu:1080ti:4", 4),
        ("tmp:100,gpu:2", 2),
        ("3", 3),
        ("fpga:1", None),
    ],
)
def test_gpus_of_a_request(gres, n):
    assert n_gpus(gres) == n


@pytest.mark.parametrize(
    ("command", "place", "said"),
    [
        ("mpirun -n 32 vasp_std", {"slots": 16}, "'mpirun -n 32 vasp_std' takes 32 CPUs, and a job has 16"),
        ("mpirun -n 8 vasp_std", {"slots": 4}, "cpu.slots: 4 slots, .* 32 of the 16 .* - write slots: 2, or"),
        ("mpirun -n 8 vasp_std", {}, r"16 slots \(null: one for each CPU\), .* - write slots: 2, or"),
        ("srun -n 4 -c 4 vasp_std", {"slots": 2}, "takes 16 CPUs in each: 32 of the 16"),
        ("env OMP_NUM_THREADS=4 mpirun -n 8 vasp_std", {"slots": 1}, "takes 32 CPUs, and a job has 16"),
        ("mpirun -n 8 -genv OMP_NUM_THREADS 4 vasp_std", {"slots": 1}, "takes 32 CPUs, and a job has 16"),
        ("mpirun -x OMP_NUM_THREADS=4 -np 8 vasp_std", {"slots": 1}, "takes 32 CPUs, and a job has 16"),
        (None, {"slots": 8, "environment": {"OMP_NUM_THREADS": "4"}}, "an engine with OMP_NUM_THREADS=4 takes 4 CPUs"),
        (None, {"slots": 20}, "cpu.slots: 20 slots, and at station .* an engine takes 1 CPU in each: 20 of the 16"),
        (
            None,
            {"lammps": "mpiexec -n 4 lmp", "slots": 8},
            "at station explore 'mpiexec -n 4 lmp' takes 4 CPUs in each",
        ),
        (
            "mpirun -n 8 vasp_std",
            {"slots": 2, "launcher": "srun --exact --ntasks=1 --cpus-per-task=1"},
            "cpu.launcher: .* gives a task 1 CPUs, .* takes 8 - .* say --cpus-per-task=8",
        ),
        (None, {"gpus": [0, 1, 2, 3], "queue": {"gres": "gpu:2"}}, r"cpu.gpus: \[0, 1, 2, 3\], and a job asks for 2"),
        (
            None,
            {"slots": 4, "queue": {"gres": "gpu:2", "cpus_per_task": 4}, "launcher": "srun --exact --gpus-per-task=1"},
            "cpu.slots: 4 slots, whose launcher takes 1 GPU for each, .* - write slots: 2",
        ),
        (
            None,
            {"slots": 1, "queue": {"gres": "gpu:2", "cpus_per_task": 4}, "launcher": "srun --exact --gpus=4"},
            "cpu.launcher: takes 4 GPUs for each task, and a job asks for 2 .* - ask for more, or take fewer",
        ),
    ],
)
def test_what_contradicts_is_said_with_what_would_do(command, place, said):
    found = contradictions(campaign_with(command), machine_with(**place))
    assert found
    assert re.search(said, found[0]), found


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("mpirun -n 16 vasp_std", {"slots": 1}),
        ("mpirun -n 8 vasp_std", {"slots": 2}),
        ("mpirun vasp_std", {"slots": 16}),
        ("mpirun -n 32 vasp_std", {"queue": {"partition": "whole-nodes"}, "slots": 1}),
        ("mpirun -n 32 vasp_std", {"queue": {"ntasks": 32}, "slots": 1}),
        (None, {"gpus": [0, 1], "queue": {"gres": "gpu:2", "cpus_per_task": 4}, "slots": 4}),
        ("mpirun -n 4 vasp_std", {"slots": 4, "launcher": "srun --exact --ntasks=1 --cpus-per-task=4"}),
        (None, {}),
    ],
)
def test_what_fits_is_not_refused(command, place):
    assert contradictions(campaign_with(command), machine_with(**place)) == []


def test_presets_do_not_contradict():
    for name in preset_names("machine"):
        assert contradictions(load_campaign("copper_emt"), load_machine(name)) == [], name


def test_on_this_machine_more_ranks_than_cores_are_unusual_and_not_refused(monkeypatch):
    monkeypatch.setattr("activelearn.check.fits.n_cpus", lambda: 16)
    assert crowded(campaign_with("mpirun -n 32 vasp_std"), Machine(slots=1))[0].startswith("machine: at station ")
    assert crowded(campaign_with("mpirun -n 16 vasp_std"), Machine(slots=1)) == []
    assert crowded(campaign_with(None), Machine(slots=40)) == []


def test_check_says_it(tmp_path):
    """The case that `check` called ok: 16 CPUs, 16 slots, each `mpirun -n 32`."""
    label = {"preset": "gpaw_pbe", "reference": {"command": "mpirun -n 32 gpaw python"}}
    whole = tiny(tmp_path / "c.yaml", label=label)
    place = {"queue": {"cpus_per_task": 16, "partition": "cpu"}, "slots": 16}
    machine = machine_file(tmp_path / "m.yaml", places={"cpu": place})
    done = in_process("check", whole, "--machine", machine, "--folder", tmp_path / "c")
    assert done.returncode == 2
    assert "'mpirun -n 32 gpaw python' takes 32 CPUs, and a job has 16 - expected at most as many" in done.stderr
