"""Command lines of all commands and options, with words at random: done, or refused in words; never a traceback.

None of them starts anything that lasts: campaigns have ended, studies are only checked, servers do not exist. More by
``-m slow``, and others by ``ACTIVELEARN_FUZZ_LINES=<random seed>``.
"""

import collections
import os
import random
import tarfile
from pathlib import Path

import pytest
import typer.main
from campaigns import TESTS, in_process, machine_file, tiny
from conftest import rattled_copper

from activelearn.cli import app
from activelearn.engines.process import close_sessions
from activelearn.writing import write_extxyz

SEED = int(os.environ.get("ACTIVELEARN_FUZZ_LINES", "0"))
#: CPU of one, with the programs that it starts, s; what waits for ever meets the time limit of the test.
LONGEST_S = 10.0
GROUP = typer.main.get_command(app)
COMMANDS = {(name,): one for name, one in GROUP.commands.items() if not hasattr(one, "commands")} | {
    (name, inner): two for name, one in GROUP.commands.items() for inner, two in getattr(one, "commands", {}).items()
}
#: What a command begins with, so that it does not last: a folder that has ended, a look only.
BEGINS = {"run": ["--folder", "runs/copper"], "glass": ["--check"], "benchmark": ["--check"]}
#: Options that would undo that, or start engines.
LEFT_OUT = {"run": {"--folder"}, "machine": {"--smoke"}}
#: Words that may be typed by mistake in place of any other.
WORDS = (
    "", " ", "\t", "\n", "-", "--", "---", "-x", "--no-such", "=", "a=b", "0", "1", "-1", "1.5", "1e400", "nan",
    "-inf", "9" * 30, "1_000", "٣", "x" * 300, "n" * 5000, "ü", "日本", "a\u0301", "\u202e", "\U0001f600", "\udcff",
    "\x1b[31m", "*", "?", "~", "$HOME", "$(id)", "`id`", ";", "| cat", "&", "> x", "'", '"', "\\", "%s", "{}", "[/]",
    "[bold]", "a,b", "0,0.5", ",", "None", "null", "true", "/", "//", ".", "./", "/dev/null", "/nosuch/x", "nosuch",
    "nosuch.yaml", "a_folder", "empty.yaml", "empty.yaml/x", "binary.yaml", "my.yaml", "machine.yaml", "loop",
    "dangling.yaml", "data.extxyz", "data.csv", "runs", "runs/copper", "runs/copper/campaign/000.yaml",
    "runs/copper/uuid", "new", "new/deeper", "new.extxyz", "slurm", "na3ps4o", "structure", "quick", "sevennet_0",
    "extxyz", "deepmd", "PBE", "Cu_Fm-3m", "Cu", "Na", "functional=PBE,includes_dispersion=false,code=x", "energy=E",
    "--help", "--version",
)  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with something of every kind in it."""
    close_sessions()  # those that other tests keep: the command that ends one would be charged with all its CPU time
    folder = tmp_path / "here"
    (folder / "a_folder").mkdir(parents=True)
    (folder / "runs").mkdir()
    monkeypatch.chdir(folder)
    with tarfile.open(TESTS / "data" / "folders" / "3afdc58-campaign.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    (folder / "campaign").rename(folder / "runs" / "copper")
    (folder / "empty.yaml").touch()
    (folder / "binary.yaml").write_bytes(bytes(range(256)))
    (folder / "data.csv").write_text("property,value\ndensity,x\n")
    (folder / "dangling.yaml").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    tiny(folder / "my.yaml")
    machine_file(folder / "machine.yaml")
    write_extxyz([rattled_copper(2)], folder / "data.extxyz")
    return folder


def line(rng):
    """Return the words of a command at random: options of its own and others', values that fit and that do not."""
    name = rng.choice(list(COMMANDS))
    ours = [*COMMANDS[name].params]
    left_out = LEFT_OUT.get(name[0], set())
    typed = []
    for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4, 6])):
        one = rng.choice(ours) if ours and rng.random() < 0.9 else None
        if one is None or one.param_type_name == "argument":
            typed.append(word(one, rng))
        elif not left_out & set(one.opts):
            option = rng.choice(one.opts)
            value = [] if getattr(one, "is_flag", False) or rng.random() < 0.05 else [word(one, rng)]
            joined = option.startswith("--") and rng.random() < 0.2
            typed += [f"{option}={''.join(value)}"] if joined else [option, *value]
    for one in ours:  # mostly with what it cannot do without
        if one.required and rng.random() < 0.8:
            typed += [word(one, rng)] if one.param_type_name == "argument" else [one.opts[-1], word(one, rng)]
    if rng.random() < 0.1:
        typed = rng.sample(typed, len(typed))
    before = rng.choice([[], [], [], [], [], [], [], [rng.choice(["--version", "--help", "--folder", "-x", "", "--"])]])
    return [*before, *name, *BEGINS.get(name[0], []), *typed]


#: Values that fit a parameter of this name.
FITTING = {
    "campaign": ["my.yaml", "runs/copper", "runs/copper/campaign/000.yaml"], "folder": ["runs/copper", "new"],
    "machine": ["machine.yaml", "local", "slurm"], "names": ["Cu_Fm-3m", "sevennet_0", "runs/copper"],
    "potentials": ["runs/copper"], "series": ["na3ps4o"], "files": ["data.extxyz"], "to": ["new", "new.extxyz"],
    "declare": ["functional=PBE,includes_dispersion=false,code=x"], "file_format": ["extxyz", "vasp"],
    "x": ["0", "0,0.15"], "cited": ["data.csv"], "init": ["slurm", "machine.yaml"], "preset": ["quick"],
    "slots": ["2"], "atoms": ["64"], "replicas": ["1"],
}  # fmt: skip


def word(parameter, rng):
    fitting = FITTING.get(parameter.name if parameter is not None else "", [])
    return rng.choice(fitting) if fitting and rng.random() < 0.6 else rng.choice(WORDS)


def wrong_with(typed):
    """Return what became of a command line: the exit code, or what is wrong with it."""
    begun = sum(os.times()[:4])
    try:
        done = in_process(*typed)
    except BaseException as error:  # noqa: BLE001 - it is what is looked for
        return f"wrong: {type(error).__name__}: {str(error)[:300]}"
    if (took_s := sum(os.times()[:4]) - begun) > LONGEST_S:
        return f"wrong: {took_s:.0f} s"
    if done.returncode not in {0, 1, 2, 3}:
        return f"wrong: exit code {done.returncode}"
    if "Traceback" in done.stdout + done.stderr:
        return f"wrong: {done.stderr[-300:]}"
    if done.returncode in {1, 2} and not done.stdout + done.stderr:
        return "wrong: not one word"
    odd = [one for one in done.stderr.splitlines() if one.startswith("error: ") and " - " not in one]
    return f"wrong: {odd}" if odd else str(done.returncode)


def typed_at_random(n, seed, folder):
    outside = sorted(folder.parent.iterdir())
    counts, bad = collections.Counter(), []
    for k in range(n):
        typed = line(random.Random(1_000_003 * seed + k))
        verdict = wrong_with(typed)
        counts[verdict.split(":")[0]] += 1
        if ":" in verdict:
            bad.append(f"{k}: activelearn {typed}: {verdict}")
        assert sorted(folder.parent.iterdir()) == outside, typed
        assert Path.cwd() == folder, typed
    print(f"\ncommand lines (seed {seed}): {n} typed, exit codes {dict(counts)}")
    assert not bad, "\n".join(bad)
    assert min(counts["0"], counts["2"]) > 0


def test_any_command_line_ends_in_words(here):
    typed_at_random(200, SEED, here)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_many_command_lines(here):
    typed_at_random(3000, SEED + 1, here)
