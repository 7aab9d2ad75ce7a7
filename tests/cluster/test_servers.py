"""The servers of these tests do what the tests rely on."""

import stat

import pymongo
import pymongo.errors
import pytest
import yaml


@pytest.mark.needs_mongo
def test_what_the_server_answered_survives_a_kill_and_strangers_are_refused(mongo, tmp_path):
    path = mongo.launchpad_file(tmp_path)
    described = yaml.safe_load(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with mongo.client() as client:
        client[described["name"]].things.insert_one({"_id": 1})
    mongo.kill()
    mongo.restart()
    with mongo.client() as client:
        assert client[described["name"]].things.count_documents({}) == 1
        mongo.drop(described["name"])
        assert client[described["name"]].things.count_documents({}) == 0
    with (
        pymongo.MongoClient(mongo.host, mongo.port) as stranger,
        pytest.raises(pymongo.errors.OperationFailure, match="authentication"),
    ):
        stranger[described["name"]].things.find_one()


@pytest.mark.needs_slurm
def test_a_job_runs_in_the_partition_that_it_asked_for(slurm):
    assert slurm.run("srun", "--partition=gpu", "sh", "-c", "echo $SLURM_JOB_PARTITION") == "gpu\n"
    names = slurm.run("srun", "--partition=cpu", "--nodes=2", "sh", "-c", "echo $SLURMD_NODENAME")
    assert sorted(names.split()) == ["n1", "n2"]
