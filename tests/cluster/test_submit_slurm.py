"""The tiny campaign from `activelearn submit` to convergence, by `activelearn qlaunch -r` over two Slurm partitions."""

import collections
import subprocess
from types import SimpleNamespace

import pytest
from campaigns import SMALL, cli, command, dataset_summary, run_plain, tiny
from cluster.workers import LOGGED, Submitted, wait_for

from activelearn import loop
from activelearn.config import Machine

pytestmark = [pytest.mark.needs_mongo, pytest.mark.needs_slurm, pytest.mark.engines, pytest.mark.timeout(900)]
#: Two places of one category: what is asked for is what the Firework says, not what the adapter of its worker does.
PLACES = {
    "cpu": {"queue": {"partition": "cpu", "walltime": "00:20:00"}},
    "quick": {"category": "cpu", "queue": {"partition": "cpu", "walltime": "00:05:00"}},
    "gpu": {"queue": {"partition": "gpu", "walltime": "00:20:00"}},
}
STATIONS = {"light": "quick", "train": "gpu", "final": "gpu"}
TIMEOUT_S = 600.0


def start_queue(ours: Submitted, name: str, slurm) -> subprocess.Popen:
    """Start ``activelearn qlaunch -r rapidfire`` for a category; what it says goes to a file."""
    files = ("-l", ours.file, "-w", ours.here / f"my_fworker_{name}.yaml", "-q", ours.here / f"my_qadapter_{name}.yaml")
    rapid = ("rapidfire", "--maxjobs_queue", 2, "--sleep", 1)
    with (ours.here / f"queue-{name}").open("wb") as log:
        return subprocess.Popen(
            command("qlaunch", "-r", "-d", 1, *files, "--launch_dir", ours.here, *rapid),
            cwd=ours.here,
            env=ours.environment(FW_CONFIG_FILE=str(ours.here / "FW_config.yaml"), **slurm.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def has_ended(ours: Submitted) -> bool:
    return loop.next_phase(ours.store) is None and ours.states().keys() == {"COMPLETED"}


@pytest.fixture(scope="module")
def through_slurm(mongo, slurm, tmp_path_factory):
    """The tiny campaign that calls itself converged where less than half of the frames are candidates."""
    here = tmp_path_factory.mktemp("slurm-campaign")
    ours = Submitted(here, mongo, slots=1, places=PLACES, stations=STATIONS, chunks={"explore": 2, "train": 2})
    ours.campaign = tiny(here / "tiny.yaml", label__reference=LOGGED, stop__candidate_share=0.5)
    made = cli("machine", "--init", ours.machine, cwd=here)
    assert made.returncode == 0, made.stderr
    submitted = ours.submit("--accept-unusual")
    assert submitted.returncode == 0, submitted.stderr
    others = slurm.finished_jobs()
    queues = [start_queue(ours, name, slurm) for name in ("cpu", "gpu")]
    try:
        wait_for(lambda: has_ended(ours), timeout_s=TIMEOUT_S, what=f"the end of the campaign: see {here}")
        wait_for(lambda: slurm.run("squeue", "-h") == "", timeout_s=30, what="an empty queue")
    finally:
        for queue in queues:
            queue.kill()
            queue.wait()
    said = "\n".join(path.read_text() for path in sorted(here.glob("queue-*")))
    jobs = {number: job for number, job in slurm.finished_jobs().items() if number not in others}
    return SimpleNamespace(ours=ours, said=said, jobs=jobs)


def test_it_converges_and_the_data_set_is_that_of_the_plain_loop(through_slurm, tmp_path):
    ours = through_slurm.ours
    end = loop.verdict(ours.store)
    assert end.converged, end.message
    same = tiny(tmp_path / "same.yaml", stop__candidate_share=0.5)  # its EMT tells nobody what it computes
    plain, end_of_plain = run_plain(tmp_path / "plain", same, Machine(slots=2, **SMALL))
    assert (end.iteration, end.message) == (end_of_plain.iteration, end_of_plain.message)
    assert dataset_summary(ours.store, end.iteration) == dataset_summary(plain, end.iteration)


def test_every_firework_was_one_job_in_the_partition_of_its_station(through_slurm):
    """What Slurm noted of the job against what the Firework is; nothing was computed twice."""
    launches = {one["fw_id"]: one for one in through_slurm.ours.launchpad.launches.find({})}
    partitions = collections.Counter()
    for firework in through_slurm.ours.fireworks():
        reserved = [one for one in launches[firework["fw_id"]]["state_history"] if one["state"] == "RESERVED"]
        job = through_slurm.jobs[str(reserved[0]["reservation_id"])]
        station, task = firework["name"].split()[1:3]
        is_training = station in {"train", "final"} and task.startswith("runchunk")
        assert job["JobState"] == "COMPLETED", firework["name"]
        assert job["Partition"] == ("gpu" if is_training else "cpu"), firework["name"]
        assert job["TimeLimit"] == ("20" if task.startswith("runchunk") else "5"), firework["name"]
        partitions[job["Partition"]] += 1
    assert len(through_slurm.jobs) == partitions.total()
    assert partitions["gpu"] == 3 * 2 + 1, "two chunks of each training, one of the final models"
    assert set(through_slurm.ours.calculations().values()) == {1}


def test_no_job_wrote_the_password(through_slurm):
    assert through_slurm.ours.files_with(through_slurm.ours.mongo.password) == []
