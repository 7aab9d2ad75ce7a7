"""A my_launchpad.yaml is read as FireWorks reads it, and what is wrong in it is told without a word of its secrets."""

import pytest

from activelearn.config import Machine
from activelearn.errors import ConfigError
from activelearn.workflow import launchpads
from activelearn.workflow.doctor.checks import launchpad_problems

QUOTES = "expected a text - put it in quotes"
ESCAPED = "expected %40 for @, %3A for :, %2F for /"


@pytest.fixture
def refusal(tmp_path, monkeypatch):
    monkeypatch.setattr(launchpads, "ANSWER_S", 0.2)

    def refused(text):
        path = tmp_path / "my_launchpad.yaml"
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            launchpads.connect(path)
        said = str(caught.value)
        assert str(path) in said
        assert not any(part in said for part in ("2024", "hush", "s3cret"))
        return said

    return refused


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("password: 20240101", f"password: FireWorks reads it as a number - {QUOTES}"),
        ("password: 2024e5", f"password: FireWorks reads it as a number - {QUOTES}"),
        ("password: 2024_01", f"password: FireWorks reads it as a number - {QUOTES}"),
        ("password: 2024-01-01", f"password: FireWorks reads it as a date - {QUOTES}"),
        ("password: true", f"password: FireWorks reads it as true or false - {QUOTES}"),
        ("username: 2024", f"username: FireWorks reads it as a number - {QUOTES}"),
        ("authsource: [hush]", f"authsource: FireWorks reads it as a list - {QUOTES}"),
        ("port: '2024'", "port: FireWorks reads it as a text - expected a whole number - write it without quotes"),
        ("port: 1.5", "port: FireWorks reads it as a number - expected a whole number"),
        ("strm_lvl: LOUD", "expected host, port, name, strm_lvl and logdir as FireWorks takes them"),
        ("logdir: /no/such/folder", "expected host, port, name, strm_lvl and logdir as FireWorks takes them"),
        ("logdir: [1]", "logdir: FireWorks reads it as a list - expected a text"),
        ("uri_mode: yes", "uri_mode: FireWorks reads it as a text - expected true or false"),
        ("mongoclient_kwargs: hush", "mongoclient_kwargs: FireWorks reads it as a text - expected a mapping"),
        ("name: 2024", "cannot be read (DuplicateKeyError)"),
        ("password: '2024\n", "cannot be read (ScannerError)"),
        ("password: " + "[" * 5000, "cannot be read"),
    ],
)
def test_a_value_of_another_kind_is_told(refusal, line, sentence):
    assert sentence in refusal(f"host: 127.0.0.1\nname: glass\n{line}\n")


@pytest.mark.parametrize(
    "line", ["password: '20240101'", "password: no", "password: s3cret", 'username: "2024"\npassword: x']
)
def test_a_text_is_taken(refusal, line):
    """`no` is a text to FireWorks, whatever it is to PyYAML."""
    assert "no answer from 127.0.0.1:1/glass" in refusal(f"host: 127.0.0.1\nport: 1\nname: glass\n{line}\n")


@pytest.mark.parametrize(
    "password", ["s3cret@x", "s3cret:x", "s3cret/x", "1/s3cret", "s3cret?x", "s3cret#x", "s3cret%x", "[s3cret"]
)
def test_a_password_that_is_not_escaped_in_a_uri_is_told(refusal, password):
    uri = f"mongodb://me:{password}@127.0.0.1:1/glass"
    assert ESCAPED in refusal(f"host: '{uri}'\nname: glass\nuri_mode: true\n")


def test_an_escaped_one_is_taken(refusal):
    uri = "mongodb://me:s3cret%40%3A%2F@127.0.0.1:1/glass"
    assert "no answer from 127.0.0.1:1" in refusal(f"host: '{uri}'\nname: glass\nuri_mode: true\n")


def test_a_uri_that_lacks_its_host_does_not_tell_its_password(refusal):
    assert "expected host, port, name" in refusal("host: mongodb://me:s3cret\nname: glass\nuri_mode: true\n")


def test_a_numeric_password_that_others_may_read_is_told(tmp_path):
    path = tmp_path / "my_launchpad.yaml"
    path.write_text("host: 127.0.0.1\nname: glass\npassword: 0\n")
    path.chmod(0o644)
    problems, _ = launchpad_problems(path, Machine())
    assert any("others may read it" in problem for problem in problems)
    assert any(QUOTES in problem for problem in problems)
