"""Campaigns through `activelearn submit` and `activelearn rlaunch`, on a MongoDB wire-protocol server, no queue."""

from types import SimpleNamespace

import pytest
from campaigns import cli, dataset_summary
from cluster.workers import Submitted, contents, nearly_ended, wait_for

from activelearn import loop

pytestmark = [pytest.mark.needs_mongo, pytest.mark.timeout(600)]
#: Rockets of one worker until half of the labels of iteration 1 are made: 12 of iteration 0, 5 of iteration 1.
UNTIL_HALF = 17
TWO = dict.fromkeys(("initial", "explore", "label", "train", "final"), 2)


@pytest.fixture(scope="module")
def hard_way(mongo, tmp_path_factory):
    """Submitted twice; half-way the database is dropped; submitted again, and worked off by two workers."""
    ours = Submitted(tmp_path_factory.mktemp("wire"), mongo, slots=1, chunks=TWO)
    told = [ours.submit()]
    n_fireworks = len(ours.fireworks())
    told.append(ours.submit())
    n_after = len(ours.fireworks())
    assert ours.start_worker("--nlaunches", UNTIL_HALF).wait(300) == 0, ours.said()
    before_drop = ours.calculations()
    mongo.drop(ours.launchpad.name)
    told.append(ours.submit())
    first, second = ours.start_worker(), ours.start_worker()
    wait_for(lambda: first.poll() is not None or second.poll() is not None, timeout_s=400, what="the end of a worker")
    ended_at_first_exit = loop.next_phase(ours.store) is None
    assert {first.wait(300), second.wait(300)} == {0}, ours.said()
    return SimpleNamespace(
        ours=ours,
        told=told,
        n_fireworks=(n_fireworks, n_after),
        before_drop=before_drop,
        ended_at_first_exit=ended_at_first_exit,
    )


@pytest.mark.engines
def test_submit_says_what_to_type_next_and_a_second_one_adds_nothing(hard_way):
    first, second, third = hard_way.told
    assert (first.returncode, second.returncode, third.returncode) == (0, 0, 0), [one.stderr for one in hard_way.told]
    assert "iteration 0 of c added to" in first.stdout
    assert f"activelearn rlaunch -l {hard_way.ours.file}" in first.stdout
    assert "nothing added" in second.stdout
    assert hard_way.n_fireworks[0] == hard_way.n_fireworks[1] > 0
    assert "iteration 1 of c added to" in third.stdout
    assert "from the products of the folder" in third.stdout


@pytest.mark.engines
def test_the_data_set_is_that_of_the_plain_loop(undisturbed, hard_way):
    assert [worker.returncode for worker in hard_way.ours.workers] == [0, 0, 0], hard_way.ours.said()
    assert loop.verdict(hard_way.ours.store) == undisturbed[1]
    assert dataset_summary(hard_way.ours.store, 2) == dataset_summary(undisturbed[0], 2)


@pytest.mark.engines
def test_no_structure_was_labelled_twice_although_the_database_was_lost(hard_way):
    times = hard_way.ours.calculations()
    assert 0 < len(hard_way.before_drop) < len(times)
    assert set(times.values()) == {1}


@pytest.mark.engines
def test_every_firework_ran_once_and_both_workers_took_part(hard_way):
    launches = [len(one["launches"]) + len(one["archived_launches"]) for one in hard_way.ours.fireworks()]
    assert hard_way.ours.states() == {"COMPLETED": len(launches)}
    assert set(launches) == {1}
    for number in (1, 2):
        assert "Task completed" in (hard_way.ours.here / "workers" / str(number) / "output").read_text()


@pytest.mark.engines
def test_workers_stay_until_the_campaign_has_ended(hard_way):
    """Not until one of them decides on the next iteration, when nothing is there to be run."""
    assert hard_way.ended_at_first_exit


@pytest.mark.engines
def test_the_password_is_in_no_file_but_the_users_own(hard_way):
    """Campaign folder, launch folders, what the workers said; and what submit said."""
    password = hard_way.ours.mongo.password
    assert password in hard_way.ours.file.read_text()
    assert hard_way.ours.files_with(password) == []
    assert not any(password in one.stdout + one.stderr for one in hard_way.told)


# --- one folder, one LaunchPad ----------------------------------------------------------------------------------------


@pytest.fixture
def nearly_done(undisturbed, mongo, tmp_path):
    return nearly_ended(undisturbed, mongo, tmp_path)


def test_another_launchpad_is_refused_until_the_folder_is_moved_to_it(nearly_done, mongo):
    ours = nearly_done
    assert ours.submit().returncode == 0
    (ours.here / "other").mkdir()
    theirs, ours.file = ours.file, mongo.launchpad_file(ours.here / "other")
    before = contents(ours.folder)
    refused = ours.submit()
    assert refused.returncode == 2
    assert f"was submitted to {mongo.host}:{mongo.port}/" in refused.stderr
    assert "--move" in refused.stderr
    assert mongo.password not in refused.stderr
    assert contents(ours.folder) == before

    moved = ours.submit("--move")
    assert moved.returncode == 0, moved.stderr
    before = contents(ours.folder)
    ours.file, here = theirs, ours.file
    assert ours.start_worker().wait(60) == 0, ours.said()
    assert contents(ours.folder) == before, "Fireworks of the LaunchPad that was left end quietly"
    assert "FIZZLED" not in ours.states()

    ours.file = here
    assert ours.start_worker().wait(60) == 0, ours.said()
    assert loop.next_phase(ours.store) is None


def test_run_takes_over_and_the_fireworks_end_quietly(nearly_done):
    ours = nearly_done
    assert ours.submit().returncode == 0
    done = cli("run", ours.campaign, "--folder", ours.folder, "--machine", ours.machine, cwd=ours.here)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "this run takes over" in done.stdout
    before = contents(ours.folder)
    assert ours.start_worker().wait(60) == 0, ours.said()
    assert contents(ours.folder) == before
    assert "FIZZLED" not in ours.states()
    assert "Traceback" not in ours.said()
    again = ours.submit()
    assert again.returncode == 0
    assert "nothing left to do" in again.stdout


def test_a_server_that_does_not_answer_is_one_line_without_a_password(nearly_done, mongo):
    mongo.kill()
    try:
        refused = nearly_done.submit()
    finally:
        mongo.restart()
    assert refused.returncode == 2
    assert f"no answer from {mongo.host}:{mongo.port}/" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert mongo.password not in refused.stdout + refused.stderr


@pytest.mark.engines
def test_a_campaign_whose_folder_moves_half_way_ends_with_the_same_data(mongo, undisturbed, tmp_path):
    (tmp_path / "here").mkdir()
    ours = Submitted(tmp_path / "here", mongo, slots=1, chunks=TWO)
    ours.submit()
    assert ours.start_worker("--nlaunches", UNTIL_HALF).wait(300) == 0, ours.said()
    ours.folder = ours.folder.rename(tmp_path / "moved")
    again = ours.submit()
    assert "the folder has moved" in again.stdout, again.stdout + again.stderr
    assert ours.start_worker().wait(400) == 0, ours.said()
    assert loop.verdict(ours.store) == undisturbed[1]
    assert dataset_summary(ours.store, 2) == dataset_summary(undisturbed[0], 2)
    assert set(ours.states()) == {"COMPLETED"}
    assert not (ours.here / "c").exists(), "the previous folder was not made again"
