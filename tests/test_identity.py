"""Whose a folder is: identities that no copy shares, segments of writers that live, formats of other versions."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from campaigns import SMALL, beside, cli, dataset_summary, environment, machine_file

from activelearn import trees
from activelearn.check import check
from activelearn.config import Campaign, Machine
from activelearn.engines.workers.answering import BegunLabel
from activelearn.errors import ConfigError, FolderHeld, StoreError
from activelearn.export import export
from activelearn.frames import FrameLabel
from activelearn.records import Labelling
from activelearn.store import Lease, Ledger, LedgerWriter, Store, StudyStore, begun
from activelearn.store.locks import is_gone, this_process
from activelearn.store.version import FORMAT, MIGRATIONS, format_of

FOLDERS = Path(__file__).parent / "data" / "folders"


def label(energy: float) -> FrameLabel:
    return FrameLabel(energy, np.zeros((1, 3)), np.zeros((3, 3)))


def labels_of(folder: Path) -> set[str]:
    ledger = Ledger(folder)
    ledger.refresh()
    return set(ledger.keys())


@pytest.fixture
def created(tmp_path, campaign):
    return Store.create(tmp_path / "campaign", campaign)


# --- identity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd", ["", "../..", "/", ".", "0123abcd", "0123456789abcdef0123456789abcdef\n", "X" * 32, "\x00" * 32, "é" * 32]
)
def test_an_odd_identity_is_a_sentence_and_nothing_is_removed(created, tmp_path, odd):
    """An empty one, or "../..", named the whole scratch folder and what is above it."""
    scratch = tmp_path / "scratch"
    (scratch / "thesis").mkdir(parents=True)
    (scratch / "thesis" / "data").write_text("three years of work")
    (created.folder / "campaign" / "uuid").write_bytes(odd.encode("latin-1"))
    machine = Machine(scratch=str(scratch))
    for deed in (created.settle, lambda: created.sweep(machine), lambda: created.scratch(machine, "a")):
        with pytest.raises(StoreError, match="expected the 32 hexadecimal digits"):
            deed()
    with pytest.raises(StoreError, match="32 hexadecimal digits"):
        created.compact_labels()
    assert (scratch / "thesis" / "data").read_text() == "three years of work"
    assert sorted(path.name for path in scratch.iterdir()) == ["thesis"]


def test_what_others_keep_in_our_scratch_area_is_left_and_named(created, tmp_path, caplog):
    machine = Machine(scratch=str(tmp_path / "scratch"))
    theirs = tmp_path / "scratch" / created.uuid[:8] / "theirs"
    theirs.mkdir(parents=True)
    ours = created.scratch(machine, "a")
    created.sweep(machine)
    assert theirs.is_dir()
    assert not ours.exists()
    assert "not marked as made by activelearn" in caplog.text
    assert "theirs" in caplog.text


def test_a_lost_identity_is_made_anew(created):
    before = created.uuid
    (created.folder / "campaign" / "uuid").unlink()
    created.settle()
    assert created.uuid != before
    assert len(created.uuid) == 32


def test_a_moved_folder_is_the_same(created, tmp_path):
    before = created.uuid
    created.settle()
    created.folder.rename(tmp_path / "elsewhere")
    moved = Store.open(tmp_path / "elsewhere")
    moved.settle()
    assert moved.uuid == before


def test_a_folder_that_was_restored_to_its_place_is_the_same(created, tmp_path):
    before = created.uuid
    shutil.copytree(created.folder, tmp_path / "backup")
    shutil.rmtree(created.folder)
    shutil.copytree(tmp_path / "backup", created.folder)
    created.settle()
    assert created.uuid == before


@pytest.mark.parametrize("how", ["cp -r", "cp -a", "cp -al"])
def test_a_copy_takes_an_identity_of_its_own_and_the_original_keeps_its(created, tmp_path, caplog, how):
    """Also one of hard links, as rsync --link-dest makes them; and what was submitted is the original."""
    before = created.uuid
    created.submissions.submit("host/db", "1")
    subprocess.run([*how.split(), created.folder, tmp_path / "copy"], check=True)
    copy = Store.open(tmp_path / "copy")
    copy.settle()
    again = copy.uuid
    copy.settle()
    created.settle()
    assert again == copy.uuid != before == created.uuid
    assert f"it was copied from {created.folder}" in caplog.text
    assert copy.submissions.current() is None
    assert created.submissions.current() is not None


def test_who_moves_a_folder_away_and_a_copy_in_its_place_has_two_identities(created, tmp_path):
    """Both would pass for the one that was there: the copy by its path, the original by its inode."""
    created.settle()
    kept = created.folder.rename(tmp_path / "kept")
    shutil.copytree(kept, created.folder)
    for folder in (created.folder, kept, created.folder, kept):
        Store.open(folder).settle()
    assert Store.open(kept).uuid != Store.open(created.folder).uuid


def test_a_copy_whose_directory_has_the_inode_of_the_original_is_a_copy(created, tmp_path):
    """Snapshots of btrfs and ZFS, and file systems that were filled alike, repeat inodes."""
    created.settle()
    shutil.copytree(created.folder, tmp_path / "snapshot")
    place = tmp_path / "snapshot" / "campaign" / "place.json"
    inode = place.parent.stat().st_ino
    place.write_text(json.dumps({**json.loads(place.read_text()), "inode": inode}))
    snapshot = Store.open(tmp_path / "snapshot")
    snapshot.settle()
    assert snapshot.uuid != created.uuid


def test_a_moved_folder_with_a_link_in_its_old_place_is_the_same(created, tmp_path):
    before = created.uuid
    created.settle()
    moved = created.folder.rename(tmp_path / "disk")
    created.folder.symlink_to(moved)
    for folder in (moved, created.folder):
        Store.open(folder).settle()
        assert Store.open(folder).uuid == before


@pytest.mark.parametrize("damage", ["", "[]", "null", "{", "3"])
def test_a_damaged_place_costs_the_identity_and_nothing_else(created, damage):
    before = created.uuid
    (created.folder / "campaign" / "place.json").write_text(damage)
    created.settle()
    assert created.uuid != before
    again = created.uuid
    created.settle()
    assert created.uuid == again


@pytest.mark.parametrize("how", ["cp -r", "cp -a", "cp -al"])
def test_a_copy_of_a_folder_that_is_driven_is_free(created, tmp_path, how):
    """It said that the original's driver held the copy, and asked the user to stop it."""
    claim = created.turn("a")
    note = created.folder / "begun" / "k.note"
    with Lease(created.folder):
        assert claim.acquire()
        BegunLabel({**begun.Begun(created.folder, "k").request(60.0), "note": str(note)})
        subprocess.run([*how.split(), created.folder, tmp_path / "copy"], check=True)
        copy = Store.open(tmp_path / "copy")
        with Lease(copy.folder):
            assert copy.turn("a").acquire()
            assert begun.Begun(copy.folder, "k").worker() is None
        with pytest.raises(FolderHeld):
            Lease(created.folder).__enter__()
        assert begun.Begun(created.folder, "k").worker() is not None
        assert not created.turn("a").acquire()


def test_a_driver_in_another_container_of_the_same_host_name_is_judged_by_its_heartbeat(created):
    """Its process cannot be seen, so it was taken for dead at once, and two drove one folder."""
    held = Lease(created.folder)
    assert held.claim.acquire()
    lock = held.claim.path
    lock.write_text(json.dumps({**json.loads(lock.read_text()), "pids": "pid:[1]", "pid": 2**22 + 1}))
    assert not Lease(created.folder).claim.acquire()
    os.utime(lock, (1.0, 1.0))
    assert Lease(created.folder).claim.acquire()


def test_a_folder_that_is_moved_while_it_is_driven_is_held(created, tmp_path):
    with Lease(created.folder):
        moved = created.folder.rename(tmp_path / "moved")
        with pytest.raises(FolderHeld):
            Lease(moved).__enter__()


@pytest.mark.parametrize(
    "name",
    ["machine.yaml", "lease.json", "claims/2023.json", "begun/mine.note", "models/best.pb", "iter-000/a.npz"],
)
def test_nothing_is_begun_where_something_else_has_our_names(tmp_path, campaign, name):
    """With --folder . the user's own machine.yaml was written over, and old files of claims/ and begun/ swept away."""
    theirs = tmp_path / "work" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    with pytest.raises(ConfigError, match=f"contains {name.split('/')[0]}, .* - choose another --folder"):
        Store.create(tmp_path / "work", campaign)
    assert [path for path in (tmp_path / "work").rglob("*") if path.is_file()] == [theirs]
    assert check(campaign, Machine(), tmp_path / "work").problems


def test_a_campaign_begins_beside_what_has_other_names(tmp_path, campaign):
    for name in ("campaign.yaml", "campaign/mine.yaml", "scratch/mine.txt", "notes/.old-2024-abcdefabcdef"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    store = Store.create(tmp_path, campaign)
    store.settle()
    store.sweep(Machine())
    assert store.latest_campaign() == campaign
    assert sum(path.is_file() and path.read_text() == "mine" for path in tmp_path.rglob("*")) == 4


def test_a_study_is_not_begun_over_somebody_elses_tables(tmp_path):
    unpack("study", tmp_path)
    study = StudyStore.open(tmp_path / "study").study
    (tmp_path / "mine" / "tables").mkdir(parents=True)
    with pytest.raises(ConfigError, match="contains tables"):
        StudyStore.create(tmp_path / "mine", study)


@pytest.mark.parametrize("what", ["a file", "a broken link"])
def test_a_scratch_that_cannot_be_is_a_sentence_before_anything_runs(tmp_path, campaign, what):
    odd = tmp_path / "odd"
    odd.write_text("mine") if what == "a file" else odd.symlink_to(tmp_path / "nowhere")
    (line,) = check(campaign, Machine(scratch=str(odd), min_free_disk_GB=0.0), tmp_path / "campaign").problems
    assert f"machine.scratch {odd}: {odd} is {what} - expected a folder" in line


def test_studies_in_a_copied_campaign_are_copies_too(tmp_path, created):
    unpack("study", created.folder)
    (created.folder / "study").rename(created.folder / "study-001")
    created.settle()
    before = StudyStore(created.folder / "study-001").uuid
    shutil.copytree(created.folder, tmp_path / "copy")
    Store.open(tmp_path / "copy").settle()
    assert StudyStore(tmp_path / "copy" / "study-001").uuid != before
    assert StudyStore(created.folder / "study-001").uuid == before


# --- segments belong to a writer --------------------------------------------------------------------------------------


def test_compacting_leaves_the_segment_that_somebody_else_writes_to(tmp_path):
    """Two copies of a folder, one shared ledger: the one closes its iteration while the other labels."""
    original, copy = LedgerWriter(tmp_path, "abcdef12"), LedgerWriter(tmp_path, "abcdef12")
    original.append("a" * 8, label(1.0))
    copy.append("b" * 8, label(2.0))
    copy.close()
    Ledger(tmp_path).compact("abcdef12")
    original.append("c" * 8, label(3.0))
    original.close()
    assert labels_of(tmp_path) == {"a" * 8, "b" * 8, "c" * 8}
    Ledger(tmp_path).compact("abcdef12")
    assert len(list(tmp_path.glob("*.seg"))) == 1
    assert labels_of(tmp_path) == {"a" * 8, "b" * 8, "c" * 8}


WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from activelearn.frames import FrameLabel
from activelearn.store import LedgerWriter
writer = LedgerWriter(Path(sys.argv[1]), "abcdef12")
writer.append(sys.argv[2], FrameLabel(1.0, np.zeros((1, 3)), np.zeros((3, 3))))
print("written", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("fate", ["lives", "was killed"])
def test_the_segment_of_a_process_is_compacted_when_that_is_gone(tmp_path, fate):
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path, "theirs"], env=environment(), stdout=subprocess.PIPE
    )
    try:
        assert child.stdout.readline() == b"written\n"
        if fate == "was killed":
            child.kill()
            child.wait()
        writer = LedgerWriter(tmp_path, "abcdef12")
        writer.append("ours", label(1.0))
        writer.close()
        theirs = [path for path in tmp_path.glob("*.seg") if f"-{child.pid}-" in path.name]
        Ledger(tmp_path).compact("abcdef12")
        assert theirs[0].is_file() == (fate == "lives")
        assert labels_of(tmp_path) == {"ours", "theirs"}
    finally:
        child.kill()
        child.communicate()


def test_a_label_of_a_writer_that_is_killed_during_compaction_is_kept(tmp_path, monkeypatch):
    """It wrote after its segment had been read, and was gone when it was looked for."""
    writer = WRITER.replace(
        "time.sleep(60)", "input(); writer.append('last', FrameLabel(1.0, np.zeros((1, 3)), np.eye(3)))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", writer + "print(flush=True); time.sleep(60)", tmp_path, "first"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def after_the_last_words(process):
        if child.poll() is None:
            child.stdin.write(b"\n")
            child.stdin.flush()
            child.stdout.readline()
            child.kill()
            child.wait()
        return is_gone(process)

    try:
        assert child.stdout.readline() == b"written\n"
        ours = LedgerWriter(tmp_path, "abcdef12")
        ours.append("ours", label(1.0))
        ours.close()
        monkeypatch.setattr("activelearn.store.compaction.is_gone", after_the_last_words)
        Ledger(tmp_path).compact("abcdef12")
        assert len(list(tmp_path.glob("*.seg"))) == 1
        assert labels_of(tmp_path) == {"ours", "first", "last"}
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("key", ["host", "boot", "pids"])
def test_a_process_that_cannot_be_seen_from_here_is_not_gone_for_sure(key):
    dead = {**this_process(), "pid": 2**22 + 1}
    assert is_gone(dead)
    assert not is_gone({**dead, key: "elsewhere"})
    assert not is_gone({})
    assert not is_gone(this_process())
    assert is_gone({**this_process(), "started": "1"}), "its number was given out again"


def test_segments_of_earlier_versions_stay_and_their_compacted_ones_are_merged(tmp_path):
    """Whether they are still written to is unknown; all labels are found nevertheless."""
    unpack("campaign", tmp_path)
    labels = tmp_path / "campaign" / "labels"
    (old,) = labels.glob("*.seg")
    known, prefix = labels_of(labels), old.name.partition("-")[0]
    without_a_note = labels / f"{prefix}-20261129T000000-node-7-0123456789ab.seg"
    shutil.copy(old, without_a_note)
    writer = LedgerWriter(labels, prefix)
    writer.append("new", label(1.0))
    writer.close()
    Ledger(labels).compact(prefix)
    assert without_a_note.is_file()
    assert not old.exists()
    assert len(list(labels.glob("*.seg"))) == 2
    assert labels_of(labels) == known | {"new"}


# --- formats ----------------------------------------------------------------------------------------------------------


def unpack(kind: str, to: Path) -> Path:
    """Unpack a folder that commit 3afdc58 made."""
    with tarfile.open(FOLDERS / f"3afdc58-{kind}.tar.gz") as archive:
        archive.extractall(to, filter="data")
    return to / kind


def newer(folder: Path) -> None:
    (folder / "format.json").write_text(json.dumps({"format": FORMAT + 1, "version": "9.0"}))


def test_every_folder_and_ledger_says_its_format(created):
    writer = created.ledger_writer
    writer.append("k", label(1.0))
    writer.close()
    assert format_of(created.folder) == format_of(created.folder / "labels") == FORMAT


@pytest.mark.parametrize("command", ["status", "run", "export", "labels"])
def test_a_folder_of_a_newer_version_is_refused_in_a_sentence(tmp_path, command):
    folder = unpack("campaign", tmp_path)
    newer(folder if command != "labels" else folder / "labels")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    words = {
        "status": ("status", folder),
        "run": ("run", folder / "campaign" / "000.yaml", "--folder", folder),
        "export": ("export", folder, "--to", tmp_path / "models"),
        "labels": ("labels", "list", folder),
    }
    done = beside(*words[command], cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    assert f"has format {FORMAT + 1}, written by activelearn 9.0" in done.stderr
    assert "pip install --upgrade activelearn" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def with_ledger(campaign: Campaign, ledger: Path | None) -> Campaign:
    return campaign.model_copy(update={"label": campaign.label.model_copy(update={"ledger": ledger and str(ledger)})})


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_campaign_whose_ledger_is_of_a_newer_version_is_refused_before_anything_is_made(
    tmp_path, campaign, is_shared
):
    """`check` said ok, and `run` made a folder before it refused."""
    ledger = tmp_path / "L" if is_shared else tmp_path / "campaign" / "labels"
    ledger.mkdir(parents=True)
    newer(ledger)
    campaign = with_ledger(campaign, ledger if is_shared else None)
    (line,) = check(campaign, Machine(min_free_disk_GB=0.0), tmp_path / "campaign").problems
    assert line.startswith(f"{ledger}: has format {FORMAT + 1}")


def test_a_ledger_that_is_a_file_is_refused_before_a_label_is_paid_for(tmp_path, campaign):
    (tmp_path / "L").write_text("mine")
    (line,) = check(
        with_ledger(campaign, tmp_path / "L"), Machine(min_free_disk_GB=0.0), tmp_path / "campaign"
    ).problems
    assert line.startswith(f"label.ledger {tmp_path / 'L'}: {tmp_path / 'L'} is a file - expected a folder")


def test_no_label_is_written_into_a_ledger_of_a_newer_version(tmp_path):
    writer = LedgerWriter(tmp_path, "me")
    newer(tmp_path)
    with pytest.raises(StoreError, match="pip install --upgrade"):
        writer.append("k", label(1.0))
    assert list(tmp_path.glob("*.seg")) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "1"}', '{"format": 0}', '{"format": true}'])
def test_a_damaged_format_is_said_so(created, text):
    (created.folder / "format.json").write_text(text)
    with pytest.raises(StoreError, match=r"format\.json: damaged"):
        Store.open(created.folder)


def test_a_migration_is_carried_out_once_under_the_lease(tmp_path, monkeypatch):
    folder, done = unpack("campaign", tmp_path), []
    monkeypatch.setitem(MIGRATIONS, 0, done.append)
    for _ in range(2):
        Store.open(folder).settle()
    assert done == [folder, folder / "labels"]
    assert format_of(folder) == FORMAT


def test_a_campaign_of_3afdc58_is_read(tmp_path):
    """What it says has not changed: the data set, the labels, the verdict, the models."""
    folder = unpack("campaign", tmp_path)
    assert format_of(folder) == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = beside("status", folder, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [iteration["index"] for iteration in found["iterations"]] == [0, 1]
    store = Store.open(folder)
    raw = json.loads((folder / "iter-001" / "iteration.json").read_text())
    assert found["iterations"][1]["verdict"] == raw["selection"]["why"]
    assert found["iterations"][1]["counts"]["candidate"] == store.iterations()[1].selection.judged.candidate == 7
    assert found["accuracy"]["held_out_p99"] == pytest.approx(0.99, abs=0.01), "of its sealed models: it was not said"
    sealed = store.result("label", 1, Labelling)
    assert dataset_summary(store, 1) == (sealed.dataset_frames, sealed.dataset_sha256)
    assert len(labels_of(folder / "labels")) == sealed.dataset_frames + len(store.held_out(1)[0])
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before, "nothing is written"


@pytest.mark.engines
def test_a_campaign_of_3afdc58_is_exported_and_goes_on(tmp_path):
    folder = unpack("campaign", tmp_path)
    machine = machine_file(tmp_path / "m.yaml", slots=2)
    exported = cli("export", folder, "--to", tmp_path / "models", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    changed = tmp_path / "more.yaml"
    text = (folder / "campaign" / "000.yaml").read_text().replace("max_iterations: 1", "max_iterations: 2")
    changed.write_text(text)
    first = Store.open(folder).result("label", 1, Labelling)
    done = beside(*("run", changed, "--folder", folder, "--machine", machine, "--accept-changes"), cwd=tmp_path)
    assert done.returncode in {0, 3}, done.stderr
    store = Store.open(folder)
    assert [record.index for record in store.iterations()] == [0, 1, 2]
    assert store.result("label", 1, Labelling) == first
    assert format_of(folder) == format_of(folder / "labels") == FORMAT
    again = beside("run", changed, "--folder", folder, "--machine", machine, cwd=tmp_path)
    assert again.returncode == done.returncode


@pytest.mark.engines
def test_a_study_of_3afdc58_that_died_at_its_porous_glass_comes_to_its_end(tmp_path):
    """Its glasses stand; only the benchmark is carried out."""
    folder = unpack("study", tmp_path)
    made = (folder / "glass" / "soft-x0.5-r0.npz").read_bytes()
    study = tmp_path / "study.yaml"
    study.write_text((folder / "study.yaml").read_text())
    machine = machine_file(tmp_path / "m.yaml", slots=1)
    done = cli("benchmark", "--study", study, "--folder", folder, "--machine", machine, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (folder / "glass" / "soft-x0.5-r0.npz").read_bytes() == made
    assert "porous" in (folder / "tables" / "scoreboard.md").read_text()


def test_a_copied_campaign_never_removes_the_scratch_of_the_original(tmp_path, campaign):
    """Both on one scratch disk; the original is at work."""
    machine = Machine(**SMALL, scratch=str(tmp_path / "scratch"))
    original = Store.create(tmp_path / "a", campaign)
    original.settle()
    at_work = original.scratch(machine, "001-train")
    shutil.copytree(original.folder, tmp_path / "b")
    copy = Store.open(tmp_path / "b")
    copy.settle()
    copy.sweep(machine)
    assert trees.is_marked(at_work)


def test_an_export_onto_a_link_or_the_folder_one_is_in_or_below_a_file_is_a_sentence(tmp_path, monkeypatch):
    """The first two said that somebody had made it meanwhile, or were a fault of the program."""
    store = Store.open(unpack("campaign", tmp_path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("mine")
    for to, said in ((Path(), "the current folder"), (tmp_path / "link", "is a link")):
        with pytest.raises(ConfigError, match=f"{said}.* - expected a new folder"):
            export(store, to)
    with pytest.raises(StoreError, match="a file where a folder is expected"):
        export(store, tmp_path / "file" / "models")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["campaign", "file", "here", "link"]
