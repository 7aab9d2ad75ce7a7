"""The FireWorks config folder: what `activelearn machine --init` writes is read by FireWorks, Slurm's shell and us."""

import json
import os
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml
from fireworks import FWorker, LaunchPad
from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter
from typer.testing import CliRunner

from activelearn.cli import app
from activelearn.config import Machine, Queue, load_machine
from activelearn.errors import ConfigError
from activelearn.workflow.queues import queue_keys
from activelearn.workflow.site import categories, initialise, next_lines, worker_line

FILES = {"FW_config.yaml", "machine.yaml", "my_launchpad.yaml"} | {
    f"my_{kind}_{category}.yaml" for kind in ("fworker", "qadapter") for category in ("cpu", "gpu")
}


@pytest.fixture
def site(tmp_path):
    return initialise("slurm", tmp_path / "cluster")


def profile(folder: Path, **settings) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "machine.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def script_of(folder: Path, category: str) -> str:
    """Return the batch script that FireWorks makes of an adapter."""
    return CommonAdapter.from_file(str(folder / f"my_qadapter_{category}.yaml")).get_script_str(str(folder))


def bash(script: str, *, cwd: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
    env = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), **environment}
    return subprocess.run(["bash"], input=script, env=env, cwd=cwd, capture_output=True, text=True, check=check)


# --- what is there ----------------------------------------------------------------------------------------------------


def test_a_folder_has_a_worker_and_an_adapter_for_each_category(site):
    assert {path.name for path in site.folder.iterdir()} == FILES == set(site.written)
    assert load_machine(site.profile) == load_machine("slurm")


def test_only_the_user_may_read_the_file_for_the_password(site):
    assert stat.S_IMODE(site.launchpad.stat().st_mode) == 0o600


def test_fireworks_reads_the_launchpad_without_asking_the_server(site):
    launchpad = LaunchPad.from_file(str(site.launchpad))
    assert (launchpad.host, launchpad.port, launchpad.name) == ("localhost", 27017, "activelearn")
    assert launchpad.username is None


def test_what_is_commented_out_of_the_launchpad_is_right_when_it_is_commented_in(site):
    text = site.launchpad.read_text()
    for key in ("username", "password", "authsource", "mongoclient_kwargs"):
        text = text.replace(f"# {key}:", f"{key}:")
    described = yaml.safe_load(text)
    assert described["authsource"] == "admin"
    assert described["mongoclient_kwargs"] == {"tls": True, "tlsCAFile": "/path/to/ca.pem"}
    uri = yaml.safe_load("\n".join(line.removeprefix("# ") for line in text.splitlines()[-2:]))
    assert uri["uri_mode"] is True
    assert uri["host"].startswith("mongodb+srv://")


def test_each_worker_takes_the_fireworks_of_its_category(site):
    for category in ("cpu", "gpu"):
        worker = FWorker.from_file(str(site.folder / f"my_fworker_{category}.yaml"))
        assert worker.query["spec._category"] == category
        assert worker.name == f"slurm-{category}"


def test_fireworks_knows_every_key_of_its_config(site):
    """It raises on a key that it does not know."""
    config = site.folder / "FW_config.yaml"
    code = "import json, fireworks.fw_config as c; print(json.dumps({k: getattr(c, k) for k in %r}))"
    written = yaml.safe_load(config.read_text())
    done = subprocess.run(
        [sys.executable, "-c", code % sorted(written)],
        env={"FW_CONFIG_FILE": str(config), "PATH": "/usr/bin:/bin", "HOME": str(site.folder)},
        cwd=site.folder.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == written
    assert written["PING_TIME_SECS"] == 60
    assert written["RUN_EXPIRATION_SECS"] == 300


# --- the batch script -------------------------------------------------------------------------------------------------


def test_the_batch_script_asks_for_what_the_profile_says(site):
    script = script_of(site.folder, "gpu")
    wanted = {"partition=gpu", "time=24:00:00", "gres=gpu:1", "cpus-per-task=4", "mem=30000M", "nodes=1", "ntasks=1"}
    assert wanted < {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert "--account" not in script
    assert f"rlaunch -l {site.launchpad} -w {site.folder / 'my_fworker_gpu.yaml'} singleshot" in script
    assert f"{Path(sys.executable).with_name('activelearn')} rlaunch" in script


def test_setup_and_variables_stand_before_the_worker_whatever_is_in_them(tmp_path):
    """The script is run, with the worker and the clean-up taken out."""
    folder = tmp_path / "a folder; with $HOME & 'quotes'"
    cpu = {
        "queue": {"partition": "cpu"},
        "setup": ["set -f", 'echo "$SITE" | tr a-z A-Z'],
        "environment": {"B": "$(x)"},
    }
    initialise(str(profile(folder, name="my", places={"cpu": cpu}, environment={"A": "it's; rm"})))
    script = script_of(folder, "cpu")
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    head = script[: script.index("cd ")] + '\nprintf "%s|" "$A" "$B" "$FW_CONFIG_FILE"; trap -p TERM'
    said = bash(head, cwd=folder, SITE="modules").stdout
    assert said == f"MODULES\nit's; rm|$(x)|{folder / 'FW_config.yaml'}|trap -- ':' SIGTERM\n"


@pytest.mark.parametrize(
    ("job", "error", "kept"),
    [("train-7", "", False), ("train-7", "Traceback (most recent call last):", True), ("mine", "", True)],
    ids=["went well", "failed", "somebody else's files"],
)
def test_only_the_output_of_jobs_that_failed_is_kept(tmp_path, job, error, kept):
    """A worker ends as one under Slurm does, which opens the two files for it."""
    code = f"import sys; from activelearn.workflow.worker import _tidy; print({error!r}, file=sys.stderr); _tidy()"
    out, err = tmp_path / f"{job}.out", tmp_path / f"{job}.error"
    env = {**os.environ, "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "7"}
    with out.open("w") as stdout, err.open("w") as stderr:
        subprocess.run([sys.executable, "-c", code], env=env, stdout=stdout, stderr=stderr, check=True)
    assert [out.exists(), err.exists()] == [kept, kept]


def test_a_line_that_fireworks_would_drop_is_refused(tmp_path):
    places = {"cpu": {"queue": {"partition": "cpu"}, "setup": ["mkdir /tmp/$$"]}}
    with pytest.raises(ConfigError, match=r"\$\$ in pre_rocket of category cpu"):
        initialise(str(profile(tmp_path, places=places)))
    assert [path.name for path in tmp_path.iterdir()] == ["machine.yaml"]


def test_the_keys_of_a_queue_are_those_of_fireworks_template(site):
    queue = Queue(
        partition="p", walltime="01:00:00", cpus_per_task=2, memory_GB=0.5, gres="gpu:1", account="a", qos="q",
        constraint="c",
    )  # fmt: skip
    adapter = CommonAdapter.from_file(str(site.folder / "my_qadapter_cpu.yaml"))
    adapter.update(queue_keys(queue))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # FireWorks warns of keys that its template lacks
        script = adapter.get_script_str(str(site.folder))
    for line in ("partition=p", "time=01:00:00", "cpus-per-task=2", "mem=500M", "gres=gpu:1", "account=a", "qos=q"):
        assert f"#SBATCH --{line}\n" in script
    assert queue_keys(Queue()) == {"nodes": 1, "ntasks": 1}


# --- places and categories --------------------------------------------------------------------------------------------


def test_places_share_a_category_if_they_share_the_shell():
    like = {"queue": {"partition": "cpu"}, "setup": ["module load x"]}
    machine = Machine.model_validate({"places": {"cpu": like, "small": {**like, "category": "cpu", "slots": 1}}})
    assert list(categories(machine)) == ["cpu"]
    other = {"category": "cpu", "setup": ["module load y"]}
    with pytest.raises(ConfigError, match=r"places\.small: category cpu is that of cpu too"):
        categories(Machine.model_validate({"places": {"cpu": like, "small": other}}))


def test_a_place_without_a_queue_has_a_worker_and_no_adapter(tmp_path):
    site = initialise("workstation", tmp_path / "w")
    assert not list(site.folder.glob("my_qadapter*"))
    assert "rlaunch" in worker_line(site.launchpad, "gpu")
    assert "my_fworker_gpu.yaml" in worker_line(site.launchpad, "gpu")


def test_a_profile_without_places_has_one_worker_for_everything(tmp_path):
    site = initialise("local", tmp_path / "w")
    assert FWorker.from_file(str(site.folder / "my_fworker.yaml")).category == ""
    assert any("my_fworker.yaml" in line for line in next_lines(site))


# --- again ------------------------------------------------------------------------------------------------------------


def test_an_edited_profile_gives_new_adapters_and_leaves_the_users_files(site):
    site.profile.write_text(site.profile.read_text().replace("partition: gpu", "partition: a100"))
    site.launchpad.write_text("host: mine\nname: mine\n")
    again = initialise(str(site.profile))
    assert again.folder == site.folder
    assert set(again.written) == {name for name in FILES if "worker" in name or "adapter" in name}
    assert "--partition=a100" in script_of(site.folder, "gpu")
    assert site.launchpad.read_text() == "host: mine\nname: mine\n"


def test_an_adapter_that_was_edited_is_not_written_over(site):
    adapter = site.folder / "my_qadapter_gpu.yaml"
    adapter.write_text(adapter.read_text() + "mail_user: me\n")
    before = {path: path.read_text() for path in site.folder.iterdir()}
    with pytest.raises(ConfigError, match=r"my_qadapter_gpu.yaml: was edited by hand .* move it away"):
        initialise(str(site.profile))
    assert {path: path.read_text() for path in site.folder.iterdir()} == before


def test_the_same_profile_again_changes_nothing(site):
    before = {path: path.read_text() for path in site.folder.iterdir()}
    initialise(str(site.profile))
    assert {path: path.read_text() for path in site.folder.iterdir()} == before


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_the_folder_and_says_what_to_type_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["machine", "--init", "slurm"])
    assert done.exit_code == 0, done.output
    folder = tmp_path / "cluster"
    assert {path.name for path in folder.iterdir()} == FILES
    for words in ("submit CAMPAIGN", "--smoke", "doctor -l", "status"):
        assert words in done.output
    for category in ("cpu", "gpu"):
        (line,) = [line for line in done.output.splitlines() if f"my_qadapter_{category}" in line and "qlaunch" in line]
        assert f"qlaunch -r -d 10 -l {folder / 'my_launchpad.yaml'}" in line


def test_a_second_folder_is_not_written_over_the_first(site):
    with pytest.raises(ConfigError, match="exists - expected a new folder"):
        initialise("slurm", site.folder)


def test_the_command_wants_one_of_its_two_deeds():
    done = CliRunner().invoke(app, ["machine"])
    assert isinstance(done.exception, ConfigError)
    assert "--init slurm" in str(done.exception)
