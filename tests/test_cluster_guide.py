"""The cluster guide says what is true: its words are those that a person sees (its commands: tests/test_guides.py)."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from activelearn.config import Machine, Place, load_machine, preset_names
from activelearn.workflow.site import initialise, worker_line

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "params" / "machine" / "README.md").read_text(encoding="utf-8")
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "activelearn").rglob("*.py"))


def commands() -> dict[str, list[str]]:
    """Return the words of every ``activelearn`` command of the guide, by its text; what is left out (...) is `x`."""
    blocks = [block.replace("\\\n", " ") for block in re.findall(r"```bash\n(.*?)```", GUIDE, flags=re.DOTALL)]
    inline = re.findall(r"`(activelearn [^`]+)`", GUIDE)
    found = re.findall(r"activelearn ([a-z]+\b[^#;&>'\n]*)", "\n".join([*blocks, *inline]))
    return {f"activelearn {text.strip()}": shlex.split(text.replace("...", "x")) for text in found}


def test_it_goes_from_nothing_to_the_first_iteration_in_this_order():
    part = GUIDE[GUIDE.index("## A.") : GUIDE.index("**`machine.yaml`.**")]
    typed = "\n".join(re.findall(r"```bash\n(.*?)```", part, flags=re.DOTALL))
    order = ["machine --init slurm", "machine --init cluster", "check", "qlaunch", "machine --smoke", "submit"]
    order += ["status", "doctor"]
    assert re.findall(rf"activelearn ({'|'.join(order)})", typed) == [*order, "doctor"]


def test_its_workers_are_those_that_init_prints(tmp_path):
    site = initialise("slurm", tmp_path / "cluster")
    (line,) = (words for words in commands().values() if words[0] == "qlaunch")
    ours = worker_line(site.launchpad, "gpu").replace(f"{tmp_path}/", "")
    assert shlex.split(ours)[1:] == [word.replace("$place", "gpu") for word in line]


def test_its_profiles_are_the_presets():
    table = GUIDE[: GUIDE.index("**First**")]
    cells = re.findall(r"^\| (`[a-z_`, ]+`) \|", table, flags=re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"[a-z_]+", cell)} == set(preset_names("machine"))


def test_the_keys_it_names_are_those_of_a_profile():
    keys = set(Machine.model_fields) | set(Place.model_fields)
    named = {
        "chunks", "slots", "stations", "gpus", "setup", "python", "lammps", "launcher", "environment", "checkpoints",
        "max_attempts", "grace_s", "walk_timeout_s", "label_timeout_s", "train_timeout_s",
    }  # fmt: skip
    assert named <= keys
    assert [key for key in named if f"`{key}" not in GUIDE] == []


def test_the_words_of_srun_are_those_of_the_profile():
    machine = load_machine("slurm_allocation")
    assert machine.launcher is not None
    words = {word for word in machine.launcher.split() if word in {"--exact", "--mem=0", "--export=ALL", "--mpi=none"}}
    assert len(words) == 4
    words |= {f"{name}={value}" for name, value in machine.environment.items()}
    assert [word for word in words if f"`{word}`" not in GUIDE] == []


@pytest.mark.parametrize(
    "said",
    [
        "all places work", "no answer from", "expected a free folder", "STOPPED", "healthy",
        '"idle"', '"reserved"', '"lost"', '"lock"', '"torn"', '"import"',
    ],
)  # fmt: skip
def test_what_it_says_a_person_sees_is_what_is_printed(said):
    assert said in SOURCES
    assert said.strip('"') in GUIDE


def test_the_laptop_edits_what_a_laptop_lacks(tmp_path):
    """Its sed line, applied to the profile that --init writes."""
    site = initialise("slurm", tmp_path / "cluster")
    (line,) = re.findall(r"^sed .*$", GUIDE, flags=re.MULTILINE)
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True)
    places = load_machine(site.profile).places
    for place in places.values():
        assert (place.queue.gres, place.queue.memory_GB, place.queue.cpus_per_task) == (None, None, 1)
    assert (places["gpu"].gpus, places["gpu"].slots) == ((), 1)


def test_it_is_short_enough_to_be_read():
    assert len(GUIDE.splitlines()) <= 240
