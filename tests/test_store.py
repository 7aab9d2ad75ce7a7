"""The store: first writer wins, full disks lose nothing, claims and leases, a ledger that survives its writers."""

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from campaigns import dataset_summary
from hypothesis import given
from hypothesis import strategies as st

from activelearn import trees
from activelearn.config import Machine
from activelearn.config.yaml12 import dump
from activelearn.errors import ConfigError, Damaged, FolderHeld, StoreError
from activelearn.frames import FrameLabel, dataset_sha256
from activelearn.records import Explored, Task
from activelearn.store import Claim, Lease, Ledger, LedgerWriter, Store, verify
from activelearn.store import locks as locks_module
from activelearn.store.files import (
    HOST,
    file_sha256,
    publish,
    publish_json,
    publish_npz,
    publish_yaml,
    read_json,
    read_npz,
    unique_suffix,
)
from activelearn.store.folder import _union
from activelearn.store.journal import CLOSED
from activelearn.store.locks import process_started
from activelearn.store.references import identity_sha256


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- publishing -------------------------------------------------------------------------------------------------------


def test_the_first_writer_wins_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "deep" / "product"
    assert publish(path, b"first") is True
    assert publish(path, b"second") is False
    assert path.read_bytes() == b"first"
    assert names(path.parent) == ["product"]


def test_content_is_durable_before_its_name_and_the_name_before_it_counts(tmp_path, monkeypatch):
    calls, real_fsync, real_link = [], os.fsync, os.link

    def fsync(descriptor):
        calls.append("folder" if Path(f"/proc/self/fd/{descriptor}").resolve() == tmp_path else "file")
        real_fsync(descriptor)

    def link(source, target):
        calls.append("link")
        real_link(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    publish(tmp_path / "product", b"x")
    assert calls == ["file", "link", "folder"]


def test_of_many_writers_at_once_one_wins(tmp_path):
    path, won, barrier = tmp_path / "product", [], threading.Barrier(8)

    def write(k):
        barrier.wait()
        if publish(path, bytes([k]) * 100_000):
            won.append(k)

    threads = [threading.Thread(target=write, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert path.read_bytes() == bytes(won) * 100_000
    assert names(tmp_path) == ["product"]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full - free some space, then run the same command again; nothing is lost"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only - mount it writable"),
        (errno.EACCES, "permission denied - make the folder writable"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_full_disk_gets_its_sentence_and_leaves_what_was_there(tmp_path, monkeypatch, call, number, reason):
    publish(tmp_path / "old", b"old")

    def fail(*_args, **_more):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        broken.setattr(os, call, fail)
        with pytest.raises(StoreError) as caught:
            publish(tmp_path / "new", b"new")
    assert f"{tmp_path / 'new'}: cannot be written: {reason}" in str(caught.value)
    assert names(tmp_path) == ["old"], "no half product, no temporary file"
    assert publish(tmp_path / "new", b"new")


def test_other_errors_of_the_system_are_not_dressed_up(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "bad disk")))
    with pytest.raises(OSError, match="bad disk"):
        publish(tmp_path / "x", b"x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_disk_that_is_really_full(tmp_path):
    """A symbolic link to /dev/full as the temporary file: the write itself fails."""
    from activelearn.store import files

    suffix = "host-1-abcdefabcdef"
    (tmp_path / f".product.{suffix}").symlink_to("/dev/full")
    original, files.unique_suffix = files.unique_suffix, lambda: suffix
    try:
        with pytest.raises(StoreError, match="the disk is full"):
            publish(tmp_path / "product", b"x" * 100)
    finally:
        files.unique_suffix = original
    assert names(tmp_path) == []


def test_json_and_npz_come_back(tmp_path):
    publish_json(tmp_path / "a.json", {"x": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"x": [1, 2.5, None]}
    arrays = {"kept/positions": np.arange(6.0).reshape(2, 3), "text": np.array(["a", "bc"]), "none": np.empty((0, 3))}
    publish_npz(tmp_path / "a.npz", arrays, {"ended": "finished", "n": 3})
    back, meta = read_npz(tmp_path / "a.npz")
    assert meta == {"ended": "finished", "n": 3}
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)


def test_damaged_json_names_the_file_to_remove(tmp_path):
    (tmp_path / "plan.json").write_text('{"tasks": [')
    with pytest.raises(
        StoreError, match=r"plan.json: damaged \(.*\) - expected it as it was written - while its iteration is open"
    ):
        read_json(tmp_path / "plan.json")


@pytest.mark.parametrize("how", ["half", "one bit", "empty", "no meta", "text"])
def test_a_damaged_archive_is_recognised(tmp_path, how):
    path = tmp_path / "a.npz"
    publish_npz(path, {"x": np.arange(1000.0)}, {})
    content = bytearray(path.read_bytes())
    if how == "half":
        content = content[: len(content) // 2]
    elif how == "one bit":
        content[len(content) // 3] ^= 1
    elif how == "empty":
        content = b""
    elif how == "text":
        content = b"not an archive"
    path.write_bytes(content)
    if how == "no meta":
        np.savez(path, x=np.arange(3))
    with pytest.raises(StoreError, match=r"a\.npz: damaged product"):
        read_npz(path)


def test_the_checksum_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_temporary_names_are_all_different():
    assert len({unique_suffix() for _ in range(1000)}) == 1000


# --- the folder -------------------------------------------------------------------------------------------------------


def test_create_open_and_refuse(tmp_path, campaign):
    with pytest.raises(
        ConfigError, match="no campaign here - expected a campaign folder - start one with: activelearn run"
    ):
        Store.open(tmp_path / "c")
    made = Store.create(tmp_path / "c", campaign)
    assert Store.create(tmp_path / "c", campaign).uuid == made.uuid
    assert Store.open(tmp_path / "c").latest_campaign() == campaign


def test_a_kill_while_a_campaign_is_created_is_mended(tmp_path, campaign, monkeypatch):
    """Killed between the two files of a new campaign: the next create makes both, and the uuid is never missing."""
    from activelearn.store import folder as module

    def killed(path, text):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "publish_yaml", killed)
        with pytest.raises(KeyboardInterrupt):
            Store.create(tmp_path, campaign)
    assert len(Store.create(tmp_path, campaign).uuid) == 32
    assert Store.open(tmp_path).latest_campaign() == campaign


def test_a_campaign_that_another_version_wrote_without_the_keys_of_this_one_is_the_same(tmp_path, campaign):
    """Its iterations are sealed with the keys of the version that opens them; the file of before stays as it was."""
    store = Store.create(tmp_path / "c", campaign)
    (file,) = store.campaign_files()
    before = campaign.model_dump(mode="json")
    for key in ("trainer", "backend", "model", "compress"):
        del before["train"][key]
    file.unlink()
    publish_yaml(file, dump(before))
    store.open_iteration(0, Store.open(store.folder).latest_campaign())
    assert Store.open(store.folder).latest_campaign() == campaign
    other = campaign.model_copy(update={"random_seed": campaign.random_seed + 1})
    store.open_iteration(1, other)
    with pytest.raises(StoreError, match=r"campaign/001\.yaml: gone"):
        Store.open(store.folder).latest_campaign()


def test_accepted_campaigns_that_were_swapped_are_told_of(store, campaign):
    """Each is whole, and the last of them would be that of the next iteration."""
    store.accept(campaign.model_copy(update={"select": campaign.select.model_copy(update={"f_lo": 0.2})}))
    first, second = store.campaign_files()
    old, new = first.read_bytes(), second.read_bytes()
    first.write_bytes(new)
    second.write_bytes(old)
    with pytest.raises(Damaged, match=r"campaign/001\.yaml: damaged \(it is number 000 of the campaigns"):
        Store.open(store.folder).latest_campaign()
    assert any("campaign/000.yaml: damaged (it is number 001" in line for line in verify(store).problems)


def test_an_accepted_change_is_for_iterations_to_come(store, campaign):
    changed = campaign.model_copy(update={"select": campaign.select.model_copy(update={"f_lo": 0.2})})
    store.accept(changed)
    assert store.latest_campaign() == changed
    fresh = Store.open(store.folder)
    assert fresh.campaign(1) == campaign, "it keeps what it was sealed to"
    fresh.open_iteration(1, changed)
    assert Store.open(store.folder).campaign(1) == campaign, "the first to open it wins"
    fresh.open_iteration(2, changed)
    assert fresh.campaign(2).select.f_lo == 0.2
    assert fresh.opened_iterations() == [0, 1, 2]


def test_what_an_unopened_iteration_left_behind_goes_with_the_change(store, campaign):
    for i in (1, 2):
        publish_json(store.iteration_folder(i) / "reference.json", {"sha256": identity_sha256({})})
        publish_json(store.iteration_folder(i) / "sel.json", [4])
    store.accept(campaign.model_copy(update={"description": "new"}))
    assert (store.iteration_folder(1) / "reference.json").exists(), "open: sealed to it"
    assert not (store.iteration_folder(2) / "reference.json").exists()
    assert not (store.iteration_folder(2) / "sel.json").exists()


def tasks(*ids):
    return [Task(id=name, kind="toy") for name in ids]


def test_a_plan_is_frozen_once(store):
    assert store.find_plan("explore", 1) is None
    with pytest.raises(StoreError, match=r"iter-001/explore/plan\.json: gone - expected"):
        store.plan("explore", 1)
    first = store.freeze_plan("explore", 1, tasks("a", "b"), 2)
    later = store.freeze_plan("explore", 1, tasks("c"), 5)
    assert later == first == store.plan("explore", 1)
    assert (first.n_chunks, [task.id for task in first.tasks]) == (2, ["a", "b"])


def test_a_plan_with_one_task_twice_is_refused(store):
    with pytest.raises(StoreError, match="plan of explore in iteration 1 names a task twice"):
        store.freeze_plan("explore", 1, tasks("a", "a"), 1)


def test_pending_is_planned_and_not_published(store):
    plan = store.freeze_plan("explore", 1, tasks("a", "b", "c"), 1)
    assert store.publish_product("explore", 1, "b", {"x": np.arange(3)}, {}) is True
    assert store.publish_product("explore", 1, "b", {"x": np.arange(4)}, {}) is False
    assert [task.id for task in store.pending(plan)] == ["a", "c"]
    assert [task.id for task in store.pending(plan, plan.tasks[1:])] == ["c"]
    assert read_npz(store.product("explore", 1, "b"))[0]["x"].tolist() == [0, 1, 2]


def test_a_damaged_product_is_put_aside_and_pending_again(store):
    plan = store.freeze_plan("explore", 1, tasks("a", "b"), 1)
    for task in plan.tasks:
        store.publish_product("explore", 1, task.id, {"x": np.arange(100.0)}, {})
    path = store.product("explore", 1, "a")
    path.write_bytes(path.read_bytes()[:-300])
    assert [task.id for task in store.damaged_products(plan)] == ["a"]
    assert [task.id for task in store.pending(plan)] == ["a"]
    assert any(name.startswith("a.npz.damaged-") for name in names(path.parent)), "kept for a look, never deleted"
    assert store.damaged_products(plan) == []


def closed(store):
    """Iteration 1 with two products, sealed and closed."""
    plan = store.freeze_plan("explore", 1, tasks("a", "b"), 1)
    for k, task in enumerate(plan.tasks):
        store.publish_product("explore", 1, task.id, {"x": np.arange(10.0) + k}, {"k": k})
    store.archive_products(1)
    assert store.product("explore", 1, "a").is_file(), "nothing is packed before the iteration is closed"
    store.seal("explore", 1, Explored(iteration=1, stages=(), products={}))
    publish_json(store.iteration_file(1), {})
    return store.station_folder("explore", 1)


def test_products_of_a_closed_iteration_are_packed_and_read_as_before(store):
    folder = closed(store)
    before = [store.read_product("explore", 1, name) for name in ("a", "b")]
    store.archive_products(1)
    assert names(folder) == ["plan.json", "products.zip", "result.json"]
    content = (folder / "products.zip").read_bytes()
    for (arrays, meta), name in zip(before, ("a", "b"), strict=True):
        packed, packed_meta = store.read_product("explore", 1, name)
        assert np.array_equal(packed["x"], arrays["x"])
        assert packed_meta == meta
    store.archive_products(1)
    assert (folder / "products.zip").read_bytes() == content


def test_a_pack_that_changes_under_a_reader_is_read_anew(store):
    folder = closed(store)
    store.archive_products(1)
    pack, content = folder / "products.zip", (folder / "products.zip").read_bytes()
    before = store.read_product("explore", 1, "a")
    for damage in (content[:-100], content.replace(b"x.npy", b"y.npy"), b""):
        pack.write_bytes(damage)
        with pytest.raises(Damaged, match=r"products\.zip"):
            store.read_product("explore", 1, "a")
    pack.write_bytes(content)
    assert np.array_equal(store.read_product("explore", 1, "a")[0]["x"], before[0]["x"])


def test_a_kill_while_products_are_packed_loses_nothing(store, monkeypatch):
    folder = closed(store)

    def killed(self, missing_ok=False):
        if self.suffix == ".npz":
            raise KeyboardInterrupt
        os.remove(self)  # noqa: PTH107 - unlink is what we replace

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            store.archive_products(1)
    store.product("explore", 1, "a").unlink()  # killed after the first of two
    assert [store.read_product("explore", 1, name)[1]["k"] for name in ("a", "b")] == [0, 1]
    store.archive_products(1)
    assert names(folder) == ["plan.json", "products.zip", "result.json"]
    assert [store.read_product("explore", 1, name)[1]["k"] for name in ("a", "b")] == [0, 1]


def test_a_damaged_pack_has_its_sentence(store):
    folder = closed(store)
    store.archive_products(1)
    (folder / "products.zip").write_bytes((folder / "products.zip").read_bytes()[:-40])
    with pytest.raises(StoreError, match=r"products\.zip: damaged pack of products, a\.npz cannot be read"):
        store.read_product("explore", 1, "a")


def test_a_sealed_result_is_sealed_once(store):
    assert not store.is_sealed("explore", 1)
    store.seal("explore", 1, Explored(iteration=1, stages=("cold",), products={}))
    store.seal("explore", 1, Explored(iteration=1, stages=("warm",), products={}))
    assert store.is_sealed("explore", 1)
    assert store.result("explore", 1, Explored).stages == ("cold",)


def test_the_data_set_is_in_the_order_of_iterations(store, copper):
    store.seal_frames(store.dataset_file(1), [copper[2:]])
    store.seal_frames(store.dataset_file(0), [copper[:1], copper[1:2]])
    parts = store.dataset(1)
    assert [part.positions[0, 0, 0] for part in parts] == [copper.positions[k, 0, 0] for k in range(3)]
    assert dataset_summary(store, 1) == (3, dataset_sha256([copper[0], copper[1], copper[2]]))
    assert dataset_summary(store, 0)[0] == 2


def test_a_model_is_published_under_its_checksum(store, tmp_path):
    (tmp_path / "frozen.pb").write_bytes(b"abc")
    assert store.publish_model(tmp_path / "frozen.pb") == (
        "models/ba7816bf8f01cfea.pb",
        file_sha256(tmp_path / "frozen.pb"),
    )
    assert (store.folder / "models/ba7816bf8f01cfea.pb").read_bytes() == b"abc"
    assert store.model("models/ba7816bf8f01cfea.pb") == store.folder / "models/ba7816bf8f01cfea.pb"


@pytest.mark.parametrize("content", [b"ab", b"xyz", b"", None])
def test_a_model_that_is_not_what_its_name_says_is_refused(store, content):
    """An engine would read half a model, or other weights, without a word."""
    path = store.folder / "models/ba7816bf8f01cfea.pb"
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=r"ba7816bf8f01cfea\.pb: damaged or gone"):
        store.model("models/ba7816bf8f01cfea.pb")


@pytest.mark.parametrize("length", [0, 5, 40, 400, 1000, -1])
def test_half_a_stored_campaign_is_refused(store, length):
    """It may be valid YAML, and another campaign."""
    path = store.iteration_folder(1) / "campaign.yaml"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StoreError, match=r"iter-001/campaign\.yaml: damaged"):
        store.campaign(1)


def test_random_numbers_depend_on_campaign_iteration_station_and_task_alone(store, campaign, tmp_path):
    other = Store.create(tmp_path / "other", campaign.model_copy(update={"random_seed": 8}))
    other.open_iteration(0, other.latest_campaign())
    draws = [
        store.rng(0, "explore", "a").random(),
        store.rng(1, "explore", "a").random(),
        store.rng(0, "label", "a").random(),
        store.rng(0, "explore", "b").random(),
        other.rng(0, "explore", "a").random(),
    ]
    assert len(set(draws)) == 5
    assert Store.open(store.folder).rng(0, "explore", "a").random() == draws[0]


def test_failures_are_counted_by_session(store):
    (task,) = tasks("a")
    assert [store.record_failure("label", 1, task, "s1", "boom") for _ in range(2)] == [1, 2]
    assert store.record_failure("label", 1, task, "s2", "boom") == 1
    assert store.record_failure("label", 1, tasks("ab")[0], "s1", "boom") == 1
    assert len(store.failures(1)) == 4
    assert store.failures(0) == []


def test_sweep_takes_temporaries_and_scratch_and_nothing_else(store, machine):
    kept = [store.folder / ".gitignore", store.folder / "iter-001" / ".hidden", store.folder / "claims" / "c.txt"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    store.publish_product("explore", 1, "a", {}, {})
    dead = [
        store.folder / f".machine.{unique_suffix()}",
        store.station_folder("explore", 1) / f".b.npz.{unique_suffix()}",
    ]
    for path in dead:
        path.write_text("half")
    scratch = store.scratch(machine, "001", "a")
    (scratch / "log").write_text("x")
    assert store.claim("explore", 1, tasks("b")[0]).acquire(), "of a worker that is alive"
    before = {path for path in store.folder.rglob("*") if path.is_file()}
    store.sweep(machine)
    after = {path for path in store.folder.rglob("*") if path.is_file()}
    assert before - after == {*dead, scratch / "log", scratch / trees.MARK}


def test_scratch_is_kept_if_the_machine_says_so(store):
    keeper = Machine(keep_scratch=True)
    folder = store.scratch(keeper, "a")
    store.drop_scratch(folder, keeper)
    store.sweep(keeper)
    assert folder.is_dir()
    store.drop_scratch(folder, Machine())
    assert not folder.exists()


def test_scratch_elsewhere(store, tmp_path):
    fast = Machine(scratch=str(tmp_path / "fast"))
    folder = store.scratch(fast, "a", "b")
    assert folder.parent == tmp_path / "fast" / store.uuid[:8]
    assert folder.name.startswith("a-b-")
    store.sweep(fast)
    assert not folder.exists()


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spans", "length"),
    [
        ([], 0),
        ([(1, 3)], 2),
        ([(1, 3), (2, 5)], 4),
        ([(5, 6), (1, 2)], 2),
        ([(1, 9), (2, 3)], 8),
        ([(3, 1)], 0),
        ([(1, 2), (2, 3)], 2),
    ],
)
def test_union(spans, length):
    assert _union(spans) == length


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8))
def test_union_counts_each_second_once(spans):
    assert _union(spans) == len({second for a, b in spans for second in range(a, b)})


def test_stopped_time_is_not_counted(store):
    """Two sessions with a gap: [90, 130] and [200, ...]; the plan at 100, sealed at 250; three tasks on two slots."""
    store.freeze_plan("label", 1, tasks("a"), 1)
    os.utime(store.station_folder("label", 1) / "plan.json", (100.0, 100.0))
    sessions = store.folder / "sessions"
    sessions.mkdir()
    for name, start, last_beat in (("20260101T000000-a", 90.0, 130.0), ("20260101T000100-b", 200.0, 210.0)):
        (sessions / name).write_text(repr(start))
        os.utime(sessions / name, (last_beat, last_beat))
    spans = [(110.0, 120.0), (115.0, 130.0), (205.0, 215.0), (20.0, 50.0)]  # the last was paid before the plan
    found = store.seconds("label", 1, spans, 250.0)
    assert found.wall == 30.0 + 50.0
    assert found.engine == 20.0 + 10.0
    assert found.engine_total == 10.0 + 15.0 + 10.0
    assert found.other == 50.0
    assert found.n_tasks == 4


# --- claims -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def living():
    """Another process of this host."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process.pid
    process.kill()
    process.wait()


def hold(path, *, host=HOST, pid=1, started="1", token="theirs", age=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": host, "pid": pid, "started": started, "token": token, "since": 0.0}))
    then = time.time() - age
    os.utime(path, (then, then))


def test_a_claim_is_exclusive_and_released(tmp_path):
    first, second = Claim(tmp_path / "a.json"), Claim(tmp_path / "a.json")
    assert first.acquire()
    assert not second.acquire()
    holder = second.holder()
    assert (holder["pid"], holder["host"], holder["token"]) == (os.getpid(), HOST, first.token)
    second.release()
    assert first.path.exists(), "only the holder releases"
    first.release()
    assert first.holder() is None
    assert second.acquire()
    assert names(tmp_path) == ["a.json"]


def test_of_many_claimants_one_wins(tmp_path):
    claims, won, barrier = [Claim(tmp_path / "a.json") for _ in range(8)], [], threading.Barrier(8)

    def take(claim):
        barrier.wait()
        if claim.acquire():
            won.append(claim)

    threads = [threading.Thread(target=take, args=(claim,)) for claim in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert won[0].holder()["token"] == won[0].token


def test_a_claim_of_a_dead_process_of_this_host_is_broken_at_once(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    hold(tmp_path / "a.json", pid=process.pid)
    claim = Claim(tmp_path / "a.json")
    assert claim.acquire()
    assert claim.holder()["token"] == claim.token
    assert names(tmp_path) == ["a.json"]


def test_a_zombie_holds_nothing(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    started = process_started(process.pid)
    assert started not in {"", "unknown"}
    process.stdout.read()
    deadline = time.monotonic() + 5.0
    while process_started(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    hold(tmp_path / "a.json", pid=process.pid, started=started)
    assert Claim(tmp_path / "a.json").acquire()
    process.wait()


def test_a_claim_of_a_living_process_is_not_broken_however_old(tmp_path, living):
    hold(tmp_path / "a.json", pid=living, started=process_started(living), age=1e6)
    assert not Claim(tmp_path / "a.json").acquire()


def test_a_process_number_used_again_is_another_process(tmp_path, living):
    hold(tmp_path / "a.json", pid=living, started="12345")
    assert Claim(tmp_path / "a.json").acquire()


def test_elsewhere_the_heartbeat_decides(tmp_path):
    path = tmp_path / "a.json"
    hold(path, host="node7", age=100.0)
    assert not Claim(path).acquire()
    assert Claim(path, stale_after_s=90.0).acquire()
    hold(path, host="node7", age=130.0)
    assert Claim(path).acquire(), "two minutes of silence"


def test_a_heartbeat_of_tomorrow_is_as_stale_as_one_of_yesterday(tmp_path):
    """A clock was set back after its holder had died: it must not be waited for until then."""
    path = tmp_path / "a.json"
    hold(path, host="node7", age=-100.0)
    assert not Claim(path).acquire(), "a clock that is a little off"
    hold(path, host="node7", age=-86_400.0)
    assert Claim(path).acquire()


def test_a_sealed_result_that_is_gone_is_said_so(store):
    with pytest.raises(StoreError, match=r"result\.json: gone - .* - restore it"):
        store.result("explore", 1, Explored)


def test_a_lock_that_cannot_be_removed_does_not_hide_why(tmp_path, monkeypatch):
    """The disk went read-only: what is raised on the way out is that, not the lock's own trouble."""
    claim = Claim(tmp_path / "a.json")
    assert claim.acquire()

    def refuse(*_args, **_more):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        claim.release()
    assert claim.is_ours()


def test_a_heartbeat_keeps_a_claim_fresh(tmp_path):
    path = tmp_path / "a.json"
    claim = Claim(path)
    assert claim.acquire()
    os.utime(path, (1.0, 1.0))
    claim.heartbeat()
    assert time.time() - path.stat().st_mtime < 60.0
    claim.release()
    claim.heartbeat()  # gone: no error


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"host": "x"'])
def test_a_damaged_lock_file_holds_nothing(tmp_path, content):
    """It appears complete, so only a failing disk damages it; a driver that is alive takes its lease for lost."""
    path = tmp_path / "lease.json"
    path.write_text(content)
    with Lease(tmp_path) as lease:
        assert lease.claim.is_ours()
        assert not list(tmp_path.glob(".broken*"))


def test_a_fresh_lock_taken_by_mistake_is_put_back(tmp_path):
    """We saw a stale holder; before we broke it, another breaker did and took the lock: theirs must stay."""
    path = tmp_path / "a.json"
    hold(path, host="node7", age=1e6, token="stale")
    ours = Claim(path)
    stale = ours.holder()
    theirs = Claim(path)
    assert theirs.acquire()
    ours._break(stale)
    assert theirs.holder()["token"] == theirs.token
    assert not ours._create()
    assert names(tmp_path) == ["a.json"]


def test_a_full_disk_is_no_claim_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", full)
        with pytest.raises(StoreError, match="the disk is full"):
            Claim(tmp_path / "a.json").acquire()
    assert names(tmp_path) == []


# --- the lease --------------------------------------------------------------------------------------------------------


def test_a_second_driver_is_refused_and_told_who_holds_the_folder(tmp_path):
    with Lease(tmp_path), pytest.raises(FolderHeld) as caught, Lease(tmp_path):
        pass
    assert f"driven by process {os.getpid()} on {HOST} since " in str(caught.value)
    assert "wait for it with --wait" in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_lease_is_released_also_after_an_error(tmp_path):
    with contextlib.suppress(ZeroDivisionError), Lease(tmp_path):
        raise ZeroDivisionError
    assert not (tmp_path / "lease.json").exists()
    with Lease(tmp_path):
        pass
    assert len(names(tmp_path / "sessions")) == 2


def test_a_driver_that_waits_gets_the_folder(tmp_path):
    first = Lease(tmp_path)
    first.__enter__()
    got = []

    def wait():
        with Lease(tmp_path, wait=True):
            got.append(time.monotonic())

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    assert got == []
    released = time.monotonic()
    first.__exit__(None, None, None)
    thread.join(5.0)
    assert got
    assert got[0] >= released


def test_the_lease_of_a_killed_driver_is_taken_over(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from activelearn.store import Lease
Lease(Path({str(tmp_path)!r})).__enter__()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert (tmp_path / "lease.json").exists()
    with Lease(tmp_path):
        pass


def test_a_session_says_when_its_driver_lived(tmp_path, monkeypatch):
    monkeypatch.setattr(locks_module, "HEARTBEAT_S", 0.05)
    before = time.time()
    with Lease(tmp_path) as lease:
        os.utime(lease.claim.path, (1.0, 1.0))
        time.sleep(0.3)
        assert lease.claim.path.stat().st_mtime > 1.0, "the heartbeat continues by itself"
    assert before <= float(lease.session.read_text()) <= time.time()
    assert lease.session.stat().st_mtime >= before + 0.25


# --- the ledger -------------------------------------------------------------------------------------------------------


def label(k, **more):
    rng = np.random.default_rng(k)
    fields = {"energy": float(k), "forces": rng.normal(size=(k % 3 + 1, 3)), "virial": rng.normal(size=(3, 3)), **more}
    return FrameLabel(**fields)


def same(a, b):
    return (
        np.array_equal(a.forces, b.forces)
        and np.array_equal(a.virial, b.virial)
        and (a.energy, a.refused, a.started, a.finished) == (b.energy, b.refused, b.started, b.finished)
    )


def opened(folder):
    ledger = Ledger(folder)
    ledger.refresh()
    return ledger


def segments(folder):
    return sorted(folder.glob("*.seg"))


def test_what_is_appended_is_there_at_once_and_after_reopening(tmp_path):
    reader, writer = opened(tmp_path), LedgerWriter(tmp_path, "me")
    for k in range(3):
        writer.append(f"key{k}", label(k, started=1.0 + k, finished=2.0 + k))
        assert f"key{k}" not in reader
        reader.refresh()
        assert same(reader[f"key{k}"], label(k, started=1.0 + k, finished=2.0 + k))
    assert reader.span("key1") == (2.0, 3.0)
    assert reader.find("other") is None
    writer.close()
    writer.append("key3", label(3))
    again = opened(tmp_path)
    assert len(again) == 4
    assert all(same(again[f"key{k}"], reader[f"key{k}"]) for k in range(3))
    assert len(segments(tmp_path)) == 2, "closed, then a new segment"


def test_a_refused_label_is_a_label_with_its_reason(tmp_path):
    nothing = FrameLabel(np.nan, np.full((2, 3), np.nan), np.full((3, 3), np.nan), refused="SCFError: no convergence")
    LedgerWriter(tmp_path, "me").append("k", nothing)
    ledger = opened(tmp_path)
    assert ledger.refusal("k") == "SCFError: no convergence"
    assert np.isnan(ledger["k"].energy)
    assert ledger["k"].forces.shape == (2, 3)


@given(arrays_seed=st.integers(0, 1000), n_atoms=st.integers(1, 5))
def test_labels_come_back_to_the_bit(tmp_path_factory, arrays_seed, n_atoms):
    folder = tmp_path_factory.mktemp("ledger")
    rng = np.random.default_rng(arrays_seed)
    values = rng.integers(0, 2**63, size=(n_atoms, 3), dtype=np.int64).view(np.float64)
    given_label = FrameLabel(float(rng.normal()) * 1e-300, values, rng.normal(size=(3, 3)))
    LedgerWriter(folder, "me").append("k", given_label)
    found = opened(folder)["k"]
    assert found.forces.tobytes() == values.tobytes()
    assert found.energy == given_label.energy


def written(folder, prefix, ks):
    writer = LedgerWriter(folder, prefix)
    for k in ks:
        writer.append(f"key{k}", label(k))
    writer.close()
    return segments(folder)[-1]


def begun(folder, prefix, ks):
    """Return a segment that its writer has not closed: the bytes of the last record are its last."""
    path = written(folder, prefix, ks)
    path.write_bytes(path.read_bytes().removesuffix(CLOSED))
    path.with_name(f"{path.name}.idx").unlink()
    return path


@pytest.mark.parametrize("cut", [1, 30, 100])
def test_a_record_cut_off_by_a_kill_is_ignored_and_later_segments_are_read(tmp_path, cut):
    first = begun(tmp_path, "a", [0, 1])
    first.write_bytes(first.read_bytes()[:-cut])
    written(tmp_path, "b", [2])
    ledger = opened(tmp_path)
    assert [f"key{k}" in ledger for k in range(3)] == [True, False, True]
    assert same(ledger["key0"], label(0))


def test_a_record_that_is_just_being_written_is_read_when_it_is_whole(tmp_path):
    segment = begun(tmp_path, "a", [0, 1])
    content = segment.read_bytes()
    segment.write_bytes(content[:-5])
    ledger = opened(tmp_path)
    assert "key1" not in ledger
    segment.write_bytes(content)
    ledger.refresh()
    assert same(ledger["key1"], label(1))


@pytest.mark.parametrize("where", [0, 3, 6, 15, 40, 60, -1])
def test_a_damaged_byte_costs_one_record(tmp_path, where):
    """In the magic number, a length, the checksum, the header or the payload of the second of three."""
    segment = begun(tmp_path, "a", [0])
    start = segment.stat().st_size
    segment.unlink()
    segment = begun(tmp_path, "a", [0, 1])
    end = segment.stat().st_size
    segment.unlink()
    segment = written(tmp_path, "a", [0, 1, 2])
    content = bytearray(segment.read_bytes())
    content[end + where if where < 0 else start + where] ^= 0x10
    segment.write_bytes(content)
    ledger = opened(tmp_path)
    assert [f"key{k}" in ledger for k in range(3)] == [True, False, True]
    assert same(ledger["key2"], label(2))
    written(tmp_path, "a", [3])
    ledger.compact("a")
    compacted = opened(tmp_path)
    assert [f"key{k}" in compacted for k in range(4)] == [True, False, True, True]


def test_of_two_writers_the_first_counts_whoever_reads(tmp_path):
    one, two = LedgerWriter(tmp_path, "me"), LedgerWriter(tmp_path, "me")
    one.append("k", label(1))
    two.append("k", label(2))
    first = opened(tmp_path)["k"].energy
    assert opened(tmp_path)["k"].energy == first
    one.close()
    two.close()
    opened(tmp_path).compact("me")
    assert len(segments(tmp_path)) == 1
    assert opened(tmp_path)["k"].energy == first
    late = LedgerWriter(tmp_path, "me")
    late.append("k", label(3))
    late.close()
    assert opened(tmp_path)["k"].energy == first, "a compacted label is the elder"
    opened(tmp_path).compact("me")
    assert opened(tmp_path)["k"].energy == first


def test_compaction_keeps_every_label_and_removes_the_old_segments(tmp_path):
    for k in range(4):
        written(tmp_path, "me", [k])
    other = written(tmp_path, "you", [9])
    ledger = opened(tmp_path)
    ledger.compact("me")
    left = segments(tmp_path)
    assert len(left) == 2
    assert other in left, "of another campaign on a shared ledger"
    fresh = opened(tmp_path)
    assert len(fresh) == 5
    assert all(same(fresh[f"key{k}"], label(k)) for k in (0, 1, 2, 3, 9))
    assert all(same(ledger[f"key{k}"], label(k)) for k in (0, 1, 2, 3, 9)), "also through the one that compacted"
    ledger.compact("me")
    assert segments(tmp_path) == left, "one segment is compact already"


def test_a_kill_in_a_compaction_loses_nothing(tmp_path, monkeypatch):
    for k in range(3):
        written(tmp_path, "me", [k])

    def killed(self, missing_ok=False):
        raise KeyboardInterrupt

    ledger = opened(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            ledger.compact("me")
    fresh = opened(tmp_path)
    assert len(fresh) == 3
    fresh.compact("me")
    assert len(segments(tmp_path)) == 1
    assert all(same(opened(tmp_path)[f"key{k}"], label(k)) for k in range(3))


def test_a_reader_survives_a_compaction_by_somebody_else(tmp_path):
    for k in range(3):
        written(tmp_path, "me", [k])
    reader = opened(tmp_path)
    opened(tmp_path).compact("me")
    written(tmp_path, "me", [5])
    assert same(reader["key1"], label(1))
    reader.refresh()
    assert all(same(reader[f"key{k}"], label(k)) for k in (0, 1, 2, 5))


class NearlyFull:
    """A stream on a disk with `room` bytes left: a write takes what fits, the next one fails, as the kernel does it."""

    def __init__(self, stream, room):
        self.stream, self.room = stream, room

    def write(self, data):
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self.stream.write(bytes(data)[: self.room])
        self.room -= taken
        return taken

    def __getattr__(self, name):
        return getattr(self.stream, name)


@pytest.mark.parametrize("room", [0, 1, 50, 300])
def test_a_disk_that_fills_up_in_a_record_loses_that_label_only(tmp_path, monkeypatch, room):
    """A short write raises nothing by itself: it must not count as published, and nothing may follow it."""
    writer = LedgerWriter(tmp_path, "me")
    real = LedgerWriter._open
    monkeypatch.setattr(LedgerWriter, "_open", lambda self: NearlyFull(real(self), room))
    if room == 300:
        writer.append("key0", label(0))  # one fits
    with pytest.raises(StoreError, match="the disk is full - free some space"):
        writer.append("key1", label(1))
    monkeypatch.setattr(LedgerWriter, "_open", real)
    writer.append("key1", label(1))
    writer.append("key2", label(2))
    ledger = opened(tmp_path)
    assert [f"key{k}" in ledger for k in range(3)] == [room == 300, True, True]
    assert same(ledger["key1"], label(1))


def test_many_threads_write_one_ledger(tmp_path):
    writer = LedgerWriter(tmp_path, "me")
    threads = [threading.Thread(target=lambda k=k: writer.append(f"key{k}", label(k))) for k in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger = opened(tmp_path)
    assert len(segments(tmp_path)) == 1
    assert all(same(ledger[f"key{k}"], label(k)) for k in range(16))


def test_a_store_labels_into_its_ledger_or_the_shared_one(store, campaign, tmp_path):
    task = Task(id="00000", kind="label", parameters={"key": "k"})
    plan = store.freeze_plan("label", 1, [task], 1)
    assert store.pending(plan, by="ledger") == [task]
    store.ledger_writer.append("k", label(1))
    assert store.pending(plan, by="ledger") == []
    assert segments(store.folder / "labels")
    shared = campaign.model_copy(
        update={"label": campaign.label.model_copy(update={"ledger": str(tmp_path / "shared")})}
    )
    other = Store.create(tmp_path / "other", shared)
    other.ledger_writer.append("k2", label(2))
    assert [path.name.split("-")[0] for path in segments(tmp_path / "shared")] == [other.uuid[:8]]


def test_an_empty_or_missing_folder_is_an_empty_ledger(tmp_path):
    assert len(opened(tmp_path / "none")) == 0
    opened(tmp_path / "none").compact("me")
    assert replace(label(1), refused="x").refused == "x"


def test_a_driver_that_lost_its_lease_stops(tmp_path, monkeypatch):
    """A process frozen for minutes looks dead to another host; it must not continue along with the new driver."""
    monkeypatch.setattr(locks_module, "HEARTBEAT_S", 0.02)
    lost = threading.Event()
    with Lease(tmp_path, on_lost=lost.set) as lease:
        assert not lost.wait(0.2)
        other = Claim(lease.claim.path)
        lease.claim.path.unlink()
        assert other.acquire()
        assert lost.wait(5.0)
    assert lease.is_lost
    assert other.is_ours(), "and it does not take the lease of the other with it"


def test_a_driver_whose_lease_is_damaged_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(locks_module, "HEARTBEAT_S", 0.02)
    lost = threading.Event()
    with Lease(tmp_path, on_lost=lost.set) as lease:
        lease.claim.path.write_bytes(b"\x00\x00")
        assert lost.wait(5.0)


def test_a_file_system_that_hiccups_does_not_end_the_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(locks_module, "HEARTBEAT_S", 0.02)
    beats = []

    def hiccup(self):
        beats.append(1)
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Claim, "heartbeat", hiccup)
    with Lease(tmp_path):
        deadline = time.monotonic() + 5.0
        while len(beats) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert len(beats) >= 3


def test_a_lost_part_of_the_data_set_is_not_passed_over(store, copper):
    store.seal_frames(store.dataset_file(0), [copper])
    with pytest.raises(StoreError, match=r"iter-001.npz: gone - .* - restore it"):
        store.dataset(1)


def test_a_sealed_station_has_nothing_pending(store):
    plan = store.freeze_plan("explore", 0, tasks("a", "b"), 1)
    assert len(store.pending(plan)) == 2
    store.seal("explore", 0, Explored(iteration=0, stages=(), products={}))
    assert store.pending(plan) == []


def test_a_label_of_another_process_is_seen_before_it_is_paid_for(store):
    task = Task(id="00000", kind="label", parameters={"key": "k"})
    assert not store.is_published("label", 0, task, by="ledger")
    elsewhere = LedgerWriter(store.folder / "labels", "other")
    elsewhere.append("k", FrameLabel(1.0, np.zeros((2, 3)), np.zeros((3, 3))))
    assert store.is_published("label", 0, task, by="ledger")
