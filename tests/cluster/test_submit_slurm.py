"""The tiny campaign from `activelearn submit` to convergence, by `activelearn qlaunch -r` over two Slurm partitions."""

import collections
import shlex
import subprocess
from types import SimpleNamespace

import pytest
import yaml
from campaigns import BIN, TESTS, command, tiny
from cluster.workers import LOGGED, Submitted

from activelearn import loop

pytestmark = [pytest.mark.needs_mongo, pytest.mark.needs_slurm, pytest.mark.engines, pytest.mark.timeout(900)]
PLACES = {
    "cpu": {"queue": {"partition": "cpu", "walltime": "00:20:00"}},
    "gpu": {"queue": {"partition": "gpu", "walltime": "00:20:00"}},
}
STATIONS = {"light": "cpu", "initial": "cpu", "explore": "cpu", "label": "cpu", "train": "gpu", "final": "gpu"}
#: Jobs in the queue of one partition at a time.
N_JOBS = 2


def write_config(ours: Submitted, name: str):
    """Write my_fworker and my_qadapter of a category, and FW_config.yaml, as `machine --init slurm` does."""
    worker = {"name": name, "category": [name], "query": "{}"}
    (ours.here / f"my_fworker_{name}.yaml").write_text(yaml.safe_dump(worker))
    files = ["-l", ours.file, "-w", ours.here / f"my_fworker_{name}.yaml"]
    # A login shell of the job begins with a PATH of its own.
    setup = f"export PATH={shlex.quote(str(BIN))}:$PATH PYTHONPATH={shlex.quote(str(TESTS))}"
    adapter = {
        "_fw_name": "CommonAdapter",
        "_fw_q_type": "SLURM",
        "rocket_launch": shlex.join(["activelearn", "rlaunch", *map(str, files), "singleshot"]),
        "queue": "nowhere",  # the Firework says where
        "pre_rocket": setup,
    }
    (ours.here / f"my_qadapter_{name}.yaml").write_text(yaml.safe_dump(adapter))
    (ours.here / "FW_config.yaml").write_text(yaml.safe_dump({"QUEUE_UPDATE_INTERVAL": 0, "QSTAT_FREQUENCY": 1}))


def start_queue(ours: Submitted, name: str, slurm) -> subprocess.Popen:
    """Start ``activelearn qlaunch -r rapidfire`` for a category; what it says goes to a file."""
    here = ours.here / f"queue-{name}"
    here.mkdir()
    files = ("-l", ours.file, "-w", ours.here / f"my_fworker_{name}.yaml", "-q", ours.here / f"my_qadapter_{name}.yaml")
    rapid = ("rapidfire", "--maxjobs_queue", N_JOBS, "--sleep", "1")
    with (here / "output").open("wb") as log:
        return subprocess.Popen(
            command("qlaunch", "-r", *files, *rapid),
            cwd=here,
            env=ours.environment(FW_CONFIG_FILE=str(ours.here / "FW_config.yaml"), **slurm.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def through_slurm(mongo, slurm, tmp_path_factory):
    """The tiny campaign that calls itself converged where less than half of the frames are candidates."""
    here = tmp_path_factory.mktemp("slurm-campaign")
    chunks = {"explore": 2, "train": 2}
    ours = Submitted(here, mongo, slots=1, places=PLACES, stations=STATIONS, chunks=chunks)
    ours.campaign = tiny(here / "tiny.yaml", label__reference=LOGGED, stop__candidate_share=0.5)
    submitted = ours.submit()
    assert submitted.returncode == 0, submitted.stderr
    for name in PLACES:
        write_config(ours, name)
    queues = [start_queue(ours, name, slurm) for name in PLACES]
    codes = [queue.wait(600) for queue in queues]
    said = "\n".join(path.read_text() for path in sorted(here.glob("queue-*/output")))
    return SimpleNamespace(ours=ours, codes=codes, said=said, jobs=slurm.finished_jobs())


def test_it_converges_and_the_data_set_is_that_of_the_plain_loop(undisturbed, through_slurm):
    ours = through_slurm.ours
    assert through_slurm.codes == [0, 0], through_slurm.said
    assert ours.states().keys() == {"COMPLETED"}, through_slurm.said
    end = loop.verdict(ours.store)
    assert end is not None, through_slurm.said
    assert end.converged, end.message
    assert end.iteration == 2
    assert ours.store.dataset_summary(2) == undisturbed[0].dataset_summary(2)


def test_every_firework_was_one_job_in_the_partition_of_its_station(through_slurm):
    """What Slurm noted of the job against what the Firework is; nothing was computed twice."""
    launches = {one["fw_id"]: one for one in through_slurm.ours.launchpad.launches.find({})}
    partitions = collections.Counter()
    for firework in through_slurm.ours.fireworks():
        reserved = [one for one in launches[firework["fw_id"]]["state_history"] if one["state"] == "RESERVED"]
        job = through_slurm.jobs[str(reserved[0]["reservation_id"])]
        is_training = "runchunk" in firework["name"] and ("train" in firework["name"] or "final" in firework["name"])
        assert job["Partition"] == ("gpu" if is_training else "cpu"), firework["name"]
        assert job["JobState"] == "COMPLETED", firework["name"]
        partitions[job["Partition"]] += 1
    assert partitions["gpu"] == 3 * 2 + 1, "two chunks of each training, one of the final models"
    assert set(through_slurm.ours.calculations().values()) == {1}


def test_no_job_wrote_the_password(through_slurm):
    assert through_slurm.ours.files_with(through_slurm.ours.mongo.password) == []
