"""The guides say what is true: every command in them is typed, in their order, and ends as they promise.

A command stands in a block of bash, or in code inside a sentence. ``activelearn`` is typed in this process, all else in
a shell. What is neither typed nor in LONG or ELSEWHERE, each with its reason, is an error: so new commands are covered.
"""

import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import fireworks.scripts.qlaunch_run
import fireworks.scripts.rlaunch_run
import pytest
import typer.main
import yaml
from ase.io import write
from campaigns import TESTS, environment, in_process
from conftest import rattled_copper
from dpgen_folder import dpgen_folder

from activelearn import study
from activelearn.check import check
from activelearn.cli import app
from activelearn.config import (
    Machine,
    load_benchmark,
    load_campaign,
    load_glass,
    load_machine,
    load_potential,
    load_study,
)
from activelearn.records import Glasses, Melt
from activelearn.seeds import load_seed
from activelearn.store import StudyStore

ROOT = TESTS.parent
GUIDES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for pattern in (
        "README.md",
        "CONTRIBUTING.md",
        "params/*.md",
        "params/*/README.md",
        "docs/*.md",
        "tests/performance/README.md",
    )
    for path in sorted(ROOT.glob(pattern))
    if path.name != "faults.md"  # what it advises is compared with what is printed: tests/test_faults.py
}
#: A finished campaign of the kind of the quickstart, with its glass: tests/data/folders/ORIGIN.md.
QUICKSTART = TESTS / "data" / "folders" / "49996e5-quickstart.tar.gz"
MACHINE = Machine(name="test", slots=2, min_free_disk_GB=0.0)
CLI = typer.main.get_command(app)
VERBS = "|".join(CLI.commands)
#: Code inside a sentence that is a command, with words after it: `doctor --fix` is one of ours, too.
INLINE = re.compile(rf"(?:\.venv/bin/)?activelearn (?:{VERBS})\b.*|(?:{VERBS}) [-a-z.].*|pytest .*", re.DOTALL)

# --- what is typed for a command, where that is not the command itself ------------------------------------------------

#: Words that stand for something, and what it is in the folder of the tests.
MEANT = {
    "runs/NAME": "runs/quickstart",
    "DIR": "exported",
    "POTENTIAL": "sevennet_0",
    "ID": "Na3PS4_P-421c",
    "FOLDER": "runs/quickstart",
    "LEDGER": "ledger",
    "FILES": "data.extxyz more.extxyz",
    "PRESET": "emt",
    "--potentials A B": "--potentials sevennet_0 sevennet_0_d3",
}
#: Commands of which a part is left out; "..." is the rest.
COMPLETED = {
    "activelearn labels list / export / import": "activelearn labels list runs/quickstart",
    "activelearn benchmark ... --cited mine.csv": "activelearn benchmark sevennet_0 --series na4p2s7o --x 1 --cited "
    "mine.csv",
    "activelearn labels import LEDGER FILES ... --reference PRESET": "activelearn labels import ledger data.extxyz "
    "more.extxyz --reference emt",
    "labels import --reference": "labels import ledger data.extxyz --reference emt",
    "glass --check": "glass sevennet_0 --series na3ps4o",
    "benchmark --check": "benchmark sevennet_0 --series na3ps4o",
    "submit ... --folder NEW": "submit my.yaml --machine cluster/machine.yaml -l cluster/my_launchpad.yaml --folder "
    "runs/new",
    "submit ... --refuse-infrastructure-failures 5": "submit my.yaml --machine cluster/machine.yaml -l "
    "cluster/my_launchpad.yaml --refuse-infrastructure-failures 5",
    "activelearn submit ... -l new_launchpad.yaml --move": "activelearn submit my.yaml --machine cluster/machine.yaml "
    "-l new_launchpad.yaml --move",
    "activelearn finetune runs/NAME --foundation mace.model ...": "activelearn finetune runs/quickstart --foundation "
    "mace.model --python python3 --to ft",
    "activelearn rlaunch -l ... -w ... rapidfire --nlaunches infinite": "activelearn rlaunch "
    "-l cluster/my_launchpad.yaml -w cluster/my_fworker_cpu.yaml rapidfire --nlaunches infinite",
    "activelearn import-dpgen DIR": "activelearn import-dpgen old --to old.yaml --reference emt --same",
    "activelearn labels export": "activelearn labels export runs/quickstart --to labels.npz",
    "check --plan": "check my.yaml --plan",
    "check --try": "check copper_emt --try",
    "check -l": "check my.yaml --machine cluster/machine.yaml -l cluster/my_launchpad.yaml",
    "labels list": "labels list runs/quickstart",
    "status --verify": "status runs/quickstart --verify",
    "activelearn status --json": "activelearn status runs/quickstart --json",
    "activelearn check": "activelearn check my.yaml",
    "doctor --fix": "doctor -l cluster/my_launchpad.yaml --fix",
    "machine --init": "machine --init cluster/machine.yaml",
    "run --wait": "run my.yaml --wait",
}
#: Commands that last: what is done with each instead of typing it, and why. Words of the others are never changed.
LONG = {
    r"run .*slurm_allocation": ("parse", "needs an allocation of Slurm: tests/cluster/test_allocation.py"),
    r"run .*": ("check", "a whole campaign; `check` reads the same words and looks at all that they need"),
    r"glass .*": ("--check", "melts and quenches for minutes to days"),
    r"benchmark --glasses (?!.*--check).*": ("type", "measures what is there: seconds"),
    r"benchmark (?!.*--check).*": ("--check", "the same, and measures"),
    r"machine --smoke .*": ("parse", "starts every engine, or waits for workers: tests/test_smoke.py, tests/cluster"),
    r"[qr]launch .*": ("parse", "does not end: tests/cluster"),
    r"finetune .*": ("parse", "needs mace-torch and a checkpoint: tests/engines/test_mace_trainer.py"),
}
#: Beginnings of commands of programs that the tests do not have. Our own commands in such lines are still run.
ELSEWHERE = {
    "python3 -m venv": "installs: CI does, in the words of the README",
    ".venv/bin/pip install": "the same",
    "torch-venv/bin/pip install": "installs 6 GB: the step torch of CI does",
    ".venv/bin/pytest": "these tests",
    ".venv/bin/sphinx-build": "the step docs of CI does",
    "sudo apt-get": "installs: the step DFT codes of CI does",
    "ls /usr/share/espresso": "of the same package",
    "squeue": "Slurm",
    "sbatch": "Slurm",
    "salloc": "Slurm",
    "tests/cluster/slurm_up.sh": "installs Slurm where it is not: tests/cluster uses it",
    "tests/cluster/slurm_down.sh": "the same",
    "pytest -m": "measures time: that its files are there is a test below",
    ".venv/bin/python tests/performance/": "measures time: tests/test_scripts.py runs their parts",
}
#: What ends otherwise than with 0: by the beginning of what is typed.
EXITS = {"doctor": {0, 1}}
#: Commands that do something without a word more.
ALONE = {"schema", "seeds", "init"}
#: Packages that a guide tells its reader to install, and the tests may have to do without.
PIP = ("chgnet",)


# --- finding ----------------------------------------------------------------------------------------------------------


def commands(guide):
    """Yield every command of a guide in its order: lines of blocks of bash, and code inside sentences."""
    code = re.compile(r"^ *```bash\n(.*?)^ *```|(?<!`)`([^`]+)`(?!`)", re.DOTALL | re.MULTILINE)
    for block, inline in code.findall(GUIDES[guide]):
        if block:
            yield from lines(block)
        elif INLINE.fullmatch(inline) and len(inline.split()) > 1:
            yield " ".join(inline.split())


def lines(block):
    """Yield the commands of a block of bash: a heredoc and a loop are one, what is joined by && is two; no comments."""
    joined = block.replace("\\\n", " ")
    for one in re.findall(r"^cat .*<<'END'\n.*?^END$|^for .*?^done$", joined, re.DOTALL | re.MULTILINE):
        joined = joined.replace(one, one.replace("\n", "\0"))
    for line in joined.splitlines():
        if "\0" in line:
            yield line.replace("\0", "\n")
        elif bare := re.sub(r"\s+#\s.*", "", line).strip():
            yield from bare.split(" && ") if not bare.startswith("cd ") else [bare]


def ours(command):
    """Return the commands of activelearn in a command: inside a loop, after nohup, in a heredoc, or all of it."""
    found = re.findall(rf"(?:^|(?<=[\s/]))activelearn ((?:{VERBS})\b[^;&>'\n]*)", command)
    bare = not found and re.fullmatch(rf"(?:{VERBS}) [^=]*", command)
    return [command] if bare else [one.strip() for one in found]


def typed(command):
    """Return what is typed for a command: with and without each thing in brackets, and real names in their places."""
    completed = COMPLETED.get(command, command)
    for word, meant in MEANT.items():
        completed = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w/])", meant, completed)
    optional = re.findall(r"\[([^\]]+)\]", completed) if "'" not in completed else []
    plain = " ".join(re.sub(r"\[[^\]]+\]", "", completed).split()) if optional else completed
    return [plain, *(f"{plain} {words}" for words in optional)]


# --- typing -----------------------------------------------------------------------------------------------------------


class Understood(Exception):
    """The words were taken apart; what they ask for is not done."""


def parse(words, monkeypatch):
    """Take the words of a command apart, and no more."""
    name, *arguments = words
    if name not in {"qlaunch", "rlaunch"}:
        CLI.commands[name].make_context(name, arguments)
        return
    module = {"qlaunch": fireworks.scripts.qlaunch_run, "rlaunch": fireworks.scripts.rlaunch_run}[name]

    def stop(args, *_):
        assert args.command in {"rapidfire", "singleshot"}
        raise Understood

    with monkeypatch.context() as patch:
        patch.setattr(module, "do_launch" if name == "qlaunch" else "_validate_config_file_paths", stop)
        with pytest.raises(Understood):
            getattr(module, name)(arguments)


def as_check(words):
    """Return the words of a `run` as those of a `check`, which has not all of its options."""
    known = {option for parameter in CLI.commands["check"].params for option in parameter.opts}
    return ["check", *(word for word in words[1:] if not word.startswith("-") or word in known), "--folder", "new"]


def type_ours(words, monkeypatch):
    """Type the words after `activelearn`; of what is long do what LONG says. A name without words asks for help."""
    line = " ".join(words)
    how = next((how for pattern, (how, _) in LONG.items() if re.fullmatch(pattern, line)), "type")
    if words[0] not in ALONE and len(words) == 1:
        words = [*words, "--help"]
    if how != "type":
        parse(words, monkeypatch)
    if how == "parse":
        return
    words = as_check(words) if how == "check" else [*words, "--check"] if how == "--check" else words
    looked = what_is_looked_at(words)
    if looked in LOOKED_AT:
        return
    done = in_process(*words)
    lacks = [name for name in PIP if re.search(rf"has no {name}\b.*pip install {name}\b", done.stderr)]
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode in EXITS.get(words[0], {2} if lacks else {0}), f"{line}\n{done.stdout}{done.stderr}"
    if looked is not None:
        LOOKED_AT.add(looked)
    if words[0] == "init":  # and edited
        path = Path(words[1])
        path.write_text(path.read_text().replace("name: quickstart", "name: my"))


#: What was checked and ended as it should: guides that say the same of the same files have it typed once.
LOOKED_AT = set()


def what_is_looked_at(words):
    """Return the words of a check (or of a smoke test), the files of the reader and his runs: its end depends on these.

    None: of another command, which changes something.
    """
    if words[0] != "check" and not {"--check", "--smoke"} & {*words}:
        return None
    files = sorted([*Path().glob("*.yaml"), *Path().glob("*.csv"), *Path("cluster").glob("*")])
    texts = [(str(path), path.read_text().replace(str(Path.cwd()), "HERE")) for path in files]
    return (*words, *texts, *sorted(map(str, Path("runs").glob("*"))))


def type_in_a_shell(command, folder):
    """Type a command of other programs; an editor changes nothing."""
    env = environment(EDITOR="true")
    done = subprocess.run(["bash", "-ec", command], cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


# --- the folder in which they are typed -------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch, memory):  # a LaunchPad in memory
    """A folder as a reader of the guides has it: this repository's, a quickstart that has ended, files of his own."""
    here = tmp_path / "repository"
    for name in ("evening", "quickstart"):
        with tarfile.open(QUICKSTART) as archive:
            archive.extractall(here / "runs", filter="data")
        (here / "runs" / "quickstart").rename(here / "runs" / name)
    (here / ".venv").symlink_to(sys.prefix)
    for name in ("params", "tests"):
        (here / name).symlink_to(ROOT / name)
    monkeypatch.chdir(here)
    write("my.cif", load_seed("Na3PS4_P-421c").to_atoms())
    for name, seed in (("data", 1), ("more", 2)):
        write(f"{name}.extxyz", rattled_copper(2, random_seed=seed).to_ase())
    for text in GUIDES.values():
        for name, block in re.findall(r"^```yaml\n# (\S+\.yaml)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            Path(name).write_text(block)
        for block in re.findall(r"^```csv\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            Path("mine.csv").write_text(block)
    Path("new_launchpad.yaml").write_text("host: elsewhere\nport: 27017\nname: new\n")
    Path("new_launchpad.yaml").chmod(0o600)
    dpgen_folder(here / "old")
    type_ours(["init", "my.yaml"], monkeypatch)
    type_ours(["machine", "--init", "slurm", "--to", "cluster"], monkeypatch)
    shutil.copy("cluster/my_launchpad.yaml", ".")
    return here


@pytest.mark.engines
@pytest.mark.parametrize("guide", [guide for guide in GUIDES if next(commands(guide), None)])
def test_every_command_of_a_guide_ends_as_it_says(guide, folder, monkeypatch):
    for command in dict.fromkeys(commands(guide)):
        if first := re.search(r"activelearn (?:init (\S+)|machine --init \w+ --to (\S+))", command):
            remove(folder / (first[1] or first[2]))
        mine = [words for one in typed(command) for words in ours(one)]
        for words in mine:
            type_ours(shlex.split(words.replace("$place", "cpu")), monkeypatch)
        if not mine and not any(command.startswith(beginning) for beginning in ELSEWHERE):
            type_in_a_shell(command, folder)


@pytest.mark.parametrize(
    "wrong", ["status runs/nosuch", "status runs/quickstart --jsn", "glass emt --series nosuch", "qlaunch rapid"]
)
def test_a_wrong_command_would_be_seen(wrong, folder, monkeypatch):
    with pytest.raises((AssertionError, SystemExit)):
        type_ours(wrong.split(), monkeypatch)


def remove(path):
    """Take away what a guide begins with, and the folder of the tests has already."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def test_the_readme_shows_how_glasses_are_told_of(folder, monkeypatch):
    """In form: whatever its numbers are, but as many of them. Its other lines: tests/test_cli.py."""
    found = study.glasses_of  # of a version that did not look whether they had melted
    new = {"melt": Melt(formers=("P",), is_melted=True, ps=24.5, msd_A2=8, overlap=0), "above_f_lo_share": 0.1}
    made = Glasses(
        glasses=[one.model_copy(update=new) for one in found(StudyStore(folder / "runs/quickstart/study-002")).glasses]
    )
    monkeypatch.setattr(study, "glasses_of", lambda _: made)
    shown = re.findall(r"^(?:glass|scoreboard).*", GUIDES["README.md"], re.MULTILINE)
    assert len(shown) == 2
    printed = in_process("status", "runs/quickstart").stdout.splitlines()
    for line in shown:
        form = re.sub(r"\d+(?:\\\.\d+)?", r"[\\d.]+", re.escape(line))
        assert [one for one in printed if re.fullmatch(form, one)], line


# --- the YAML in them -------------------------------------------------------------------------------------------------


def yaml_blocks():
    for guide, text in GUIDES.items():
        for k, block in enumerate(re.findall(r"^( *)```yaml\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)):
            yield pytest.param(yaml.safe_load(block[1]), id=f"{guide}-{k}")


@pytest.mark.parametrize("block", list(yaml_blocks()))
def test_every_yaml_is_one_that_is_accepted(block, tmp_path, monkeypatch):
    """A part of a campaign in the quickstart, a potential with a name, a schedule over the quick one, or a whole."""
    monkeypatch.chdir(tmp_path)
    write("my.cif", load_seed("Na3PS4_P-421c").to_atoms())
    for name in re.findall(r"[\w.-]+\.(?:pb|yaml|model|pt|eam\.alloy|eam)\b", str(block)):
        Path(name).write_text(f"{{name: {name}, ase: {{preset: emt}}}}")
    whole = yaml.safe_load((ROOT / "params" / "campaign" / "quickstart.yaml").read_text())
    part = {"explore": {"stages": block}} if isinstance(block, list) else block
    if "systems" in part:
        part = {"initial": {**part, "held_out_fraction": 0.5}, "type_map": ["Na", "P", "S", "O"]}
    if part.keys() & {"ase", "deepmd", "lammps"}:
        assert load_potential(saved({"name": "x", **part})).name
    elif "potentials" in part:
        assert load_study(saved(part)).potentials
    elif "segments" in part:
        assert load_glass(saved({"preset": "quick", **part})).segments
    elif "report" in part:
        assert load_machine(saved({"name": "mine", **part})).finding_bounds
    elif part.keys() & {"crystals", "force_error", "reactions"}:
        assert load_benchmark(saved(part)).asked
    else:
        campaign = load_campaign(saved({key: value for key, value in {**whole, **part}.items() if key != "glass"}))
        found = check(campaign, MACHINE, tmp_path / "c", here=False)
        assert [problem for problem in found.problems if not lacks_here(problem)] == []


def lacks_here(problem):
    """Whether a campaign of a guide lacks what is a reader's own: weights, VASP, labels, pseudopotentials."""
    return bool(re.search(r"/path/to/|vasp|label\.ledger|LEDGER|expected the data of every element", problem))


def saved(data):
    path = Path("x.yaml")
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


# --- tests that they name ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guide", GUIDES)
def test_the_files_that_it_names_are_there(guide):
    named = set(re.findall(r"`((?:tests|findings|activelearn|params|docs)/[\w./-]+\w)`", GUIDES[guide]))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_performance_tests_are_there_under_their_mark():
    table = set(re.findall(r"`(test_\w+\.py)`", GUIDES["tests/performance/README.md"]))
    assert table == {path.name for path in (TESTS / "performance").glob("test_*.py")}
    assert all("mark.performance" in (TESTS / "performance" / name).read_text() for name in table)
