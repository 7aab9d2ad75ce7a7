"""Standard streams that are closed, full, or of another encoding than UTF-8: each command in a process of its own."""

import subprocess
import sys
import warnings

import pytest
from campaigns import command, environment

from activelearn.cli import main, streams

#: A C locale without Python's own cures of it.
PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def shell(line, cwd, **variables):
    """Give a line to bash, in which activelearn stands for the command."""
    done = subprocess.run(
        ["bash", "-c", line.replace("activelearn", command()[0])],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8:strict"])
def test_a_listing_is_whole_in_any_encoding(tmp_path, encoding):
    code, out, err = shell("activelearn check copper_emt", tmp_path, PYTHONIOENCODING=encoding)
    assert (code, err) == (0, b"")
    text = out.decode(encoding.split(":")[0])
    assert f"within 5 {'A' if encoding == 'ascii' else 'Å'}" in text
    assert "\\x" not in text


def test_a_locale_without_umlauts_prints_tables_and_writes_utf_8(tmp_path):
    code, out, _ = shell("activelearn seeds Na2S_Fm-3m && activelearn init c.yaml", tmp_path, **PLAIN)
    assert code == 0
    assert b"A3 each" in out
    assert (tmp_path / "c.yaml").read_text(encoding="utf-8")


def test_a_name_that_is_no_unicode_is_printed_as_it_can_be(tmp_path):
    code, _, err = shell("activelearn status $'l\\xe4ufe'", tmp_path)
    assert code == 2
    assert b"\\udce4ufe: no campaign here" in err


@pytest.mark.parametrize(("line", "read"), [("schema | head -1", b"{\n"), ("run --help | true", b"")])
def test_a_listing_that_nobody_reads_on_ends_as_cat_does(tmp_path, line, read):
    assert shell(f"set -o pipefail; activelearn {line}", tmp_path) == (141, read, b"")


@pytest.mark.parametrize("closed", [">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_from_the_first_are_no_fault(tmp_path, closed):
    """Otherwise the next file that is opened has the number of one, and is printed into."""
    code, _, err = shell(f"activelearn init c.yaml {closed}", tmp_path)
    assert (code, err) == (0, b"")
    assert (tmp_path / "c.yaml").read_text(encoding="utf-8").endswith("\n")
    assert "written from preset" not in (tmp_path / "c.yaml").read_text(encoding="utf-8")


def test_a_listing_on_a_full_disk_says_so(tmp_path):
    code, _, err = shell("activelearn seeds > /dev/full", tmp_path)
    assert code == 1
    assert err.decode().startswith("error: standard output: cannot be written (No space left on device) - expected")
    assert len(err.splitlines()) == 1


def test_what_does_something_does_it_though_its_output_is_lost(tmp_path):
    code, _, err = shell("activelearn init c.yaml > /dev/full", tmp_path)
    assert code == 0
    assert (
        err == b"standard output cannot be written (No space left on device): output from now on is lost, and "
        b"nothing else\n"
    )
    assert (tmp_path / "c.yaml").is_file()


def test_a_narrow_dumb_terminal_shows_all(tmp_path):
    code, out, err = shell("activelearn seeds", tmp_path, TERM="dumb", COLUMNS="10", LINES="1")
    assert (code, err) == (0, b"")
    assert b"59 crystals" in out


@pytest.mark.parametrize("line", ["run copper_emt", "seeds --write x", "labels list x"])
def test_a_working_directory_that_is_gone_is_a_sentence(tmp_path, line):
    (tmp_path / "gone").mkdir()
    code, _, err = shell(f"cd gone && rmdir ../gone && activelearn {line}", tmp_path)
    assert code == 2
    assert err.startswith(b"error: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("variables", [{"HOME": "/nonexistent"}, {"TMPDIR": "/dev/null"}])
def test_a_home_or_a_place_for_temporary_files_that_is_not_there_is_no_fault(tmp_path, variables):
    code, out, err = shell("activelearn check copper_emt", tmp_path, **variables)
    assert (code, err) == (0, b"")
    assert out.endswith(b"ok: activelearn run copper_emt\n")


def test_signs_that_an_encoding_lacks_are_written_plainly():
    streams.prepare()
    assert "5 Å ± 1 → █░ ☃".encode("ascii", "plain") == b"5 A +- 1 -> #. \\u2603"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", "plain")


def test_a_warning_of_a_library_is_a_note_in_one_line_and_once(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["activelearn", "schema", "--machine"])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.raises(SystemExit):
            main()
        warnings.warn("odd\n  file", stacklevel=1)
        warnings.warn("odd file", RuntimeWarning, stacklevel=1)
    assert capsys.readouterr().err == "note: odd file\n"
