"""What is removed is ours, below the root, and behind no link; everything else stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from activelearn import trees


def kept(folder):
    """Return a folder of somebody else, with a file in it."""
    folder.mkdir(parents=True)
    (folder / "data").write_text("three years of work")
    return folder / "data"


def test_a_marked_folder_goes_with_everything_in_it(tmp_path):
    ours = trees.make(tmp_path / "scratch" / "ours")
    (ours / "deep" / "deeper").mkdir(parents=True)
    (ours / "deep" / "file").write_text("x")
    assert trees.remove(ours, tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_folder_without_a_mark_stays(tmp_path):
    data = kept(tmp_path / "scratch" / "thesis")
    assert not trees.remove(data.parent, tmp_path / "scratch")
    assert data.is_file()


def test_making_a_folder_that_is_there_does_not_make_it_ours(tmp_path):
    data = kept(tmp_path / "thesis")
    assert trees.make(tmp_path / "thesis") == tmp_path / "thesis"
    assert not trees.remove(tmp_path / "thesis", tmp_path)
    assert data.is_file()


@pytest.mark.parametrize("name", ["", ".", "..", "../..", "../other", "/", "sub/../../other"])
def test_nothing_but_what_is_below_the_root_goes(tmp_path, name):
    root = tmp_path / "a" / "scratch"
    for folder in (tmp_path / "a", root, tmp_path / "a" / "other", root / "sub"):
        trees.make(folder)
    assert not trees.remove(root / name, root)
    assert all(path.is_dir() for path in (root, root / "sub", tmp_path / "a" / "other"))


def test_no_link_leads_to_what_is_removed(tmp_path):
    root, elsewhere = tmp_path / "scratch", trees.make(tmp_path / "elsewhere")
    trees.make(elsewhere / "inner")
    root.mkdir()
    (root / "link").symlink_to(elsewhere)
    assert not trees.remove(root / "link", root)
    assert not trees.remove(root / "link" / "inner", root)
    assert trees.clear(root, root.parent) == [root / "link"]
    assert (elsewhere / "inner").is_dir()


def test_a_mark_that_is_a_link_is_none(tmp_path):
    data = kept(tmp_path / "scratch" / "thesis")
    (data.parent / trees.MARK).symlink_to(trees.make(tmp_path / "ours") / trees.MARK)
    assert not trees.remove(data.parent, tmp_path / "scratch")
    assert data.is_file()


def test_links_in_a_folder_go_and_what_they_point_to_stays(tmp_path):
    data = kept(tmp_path / "thesis")
    ours = trees.make(tmp_path / "scratch" / "ours")
    (ours / "to-a-folder").symlink_to(data.parent)
    (ours / "to-a-file").symlink_to(data)
    os.link(data, ours / "hard-link")
    assert trees.remove(ours, tmp_path / "scratch")
    assert data.read_text() == "three years of work"


def test_the_root_may_be_reached_by_a_link(tmp_path):
    """As /scratch often is one to the disk that holds it."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "scratch").symlink_to(tmp_path / "disk")
    ours = trees.make(tmp_path / "scratch" / "ours")
    assert trees.remove(ours, tmp_path / "scratch")
    assert list((tmp_path / "disk").iterdir()) == []


def test_of_an_area_without_a_mark_what_is_ours_goes(tmp_path):
    area = tmp_path / "scratch" / "0123abcd"
    data = kept(area / "thesis")
    trees.make(area / "ours")
    (area / "note").write_text("x")
    assert trees.clear(area, area.parent) == [area / "note", area / "thesis"]
    assert data.is_file()
    assert not (area / "ours").exists()


def test_an_area_that_is_not_there_is_clear(tmp_path):
    assert trees.clear(tmp_path / "none", tmp_path) == []


def test_what_a_kill_leaves_of_a_removal_is_still_ours(tmp_path, monkeypatch):
    """The mark goes last: the next run removes the rest."""
    ours = trees.make(tmp_path / "ours")
    for name in ("a", "z", ".hidden"):
        (ours / name).mkdir()

    def killed(path, **_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            trees.remove(ours, tmp_path)
    assert trees.is_marked(ours)
    assert trees.remove(ours, tmp_path)


def test_a_temporary_folder_goes_with_its_block(tmp_path):
    with trees.temporary(tmp_path) as folder:
        (folder / "a").mkdir()
        assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "full folder", "link", "link to nothing"])
def test_nothing_is_renamed_over_what_is_there(tmp_path, kind):
    made, to = trees.make(tmp_path / "made"), tmp_path / "to"
    if kind == "file":
        to.write_text("mine")
    elif kind == "full folder":
        kept(to)
    else:
        to.symlink_to(tmp_path / "nowhere" if kind == "link to nothing" else kept(tmp_path / "thesis").parent)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    assert not trees.rename(made, to)
    assert not trees.rename(made / trees.MARK, to)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_an_empty_folder_may_be_replaced(tmp_path):
    made = trees.make(tmp_path / "made")
    (tmp_path / "to").mkdir()
    assert trees.rename(made, tmp_path / "to")
    assert trees.is_marked(tmp_path / "to")


HOLDER = """
import sys, pathlib
from activelearn import trees
with trees.temporary() as folder:
    (folder / "log").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""


def holder(place):
    """Return a process with a temporary folder in `place`, and that folder."""
    words, env = [sys.executable, "-c", HOLDER], {**os.environ, "TMPDIR": str(place)}
    process = subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, place / Path(process.stdout.readline().strip()).name


def test_what_a_kill_leaves_goes_with_the_next_temporary_folder_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(trees.tempfile, "tempdir", str(tmp_path))
    (killed, left), (alive, used) = holder(tmp_path), holder(tmp_path)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    theirs, older, unmarked = (tmp_path / f"activelearn-{name}" for name in ("theirs", "older", "unmarked"))
    kept(unmarked)
    for folder in (theirs, older):
        kept(folder)
        (folder / trees.MARK).touch()
    (theirs / trees.MARK).write_bytes(trees._held().replace(b"-", b"+"))  # of another boot, or another machine
    (tmp_path / "activelearn-link").symlink_to(left)
    with trees.temporary() as folder:
        assert folder.is_dir()
        assert not left.exists()
    assert all((one / "data").is_file() for one in (theirs, older, unmarked))
    assert (used / "log").is_file()
    alive.communicate("")
    assert not used.exists()
