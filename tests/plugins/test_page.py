"""The package on the page about plug-ins: installed as it stands there, it labels, measures, and is checked."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ase.build import bulk
from ase.calculators.lj import LennardJones
from campaigns import cli, environment, machine_file, tiny
from test_study import COPPER, DYNAMICS, SEGMENTS

from activelearn.config import ReferenceEngine, Train, Trainer

pytest.importorskip("pip", reason="a virtual environment without pip")

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
EMT = {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False}
NOTHING = {"rdf": None, "network": None, "coordination": False, "free_volume": False, "maps": False}
LABEL = """
import json, sys
from pathlib import Path
from ase.build import bulk
from activelearn.config import Machine, ReferenceMD, load_campaign
from activelearn.engines import process, reference
from activelearn.engines.process import Slot
from activelearn.frames import Frames
process.allow_engines()
what, slot = load_campaign(sys.argv[1]).label.reference, Slot(Machine(), Path(sys.argv[2]))
copper = Frames.from_ase([bulk("Cu", cubic=True)])
label, known = reference.label(what, copper, slot), reference.fingerprint(what, slot)
md = ReferenceMD(n_steps=2, every=1)
frames, ended, *_ = reference.molecular_dynamics(what, copper, md, temperature_K=100.0, random_seed=1, slot=slot)
process.close_sessions()
print(json.dumps([label.energy, known["calculator"], known["arguments"], len(frames), ended]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment of a user who has installed the package of the page."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name, text in re.findall(r"^```\w+\n# (\S+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
        (source / name).write_text(text, encoding="utf-8")
    modules = ["my_nearest.py", "my_pairs.py", "my_trainer.py"]
    assert sorted(path.name for path in source.iterdir()) == [*modules, "pyproject.toml"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", target]
    subprocess.run([sys.executable, "-m", "pip", "install", *offline, source], check=True)
    env = environment()
    return {**env, "PYTHONPATH": os.pathsep.join([str(target), env["PYTHONPATH"]])}


@pytest.fixture
def campaign(tmp_path):
    """A campaign with the line of the page."""
    line = re.search(r"`label: (\{.*?\})`", PAGE, flags=re.DOTALL).group(1)
    return tiny(tmp_path / "c.yaml", label__reference=yaml.safe_load(line)["reference"])


def test_its_engine_labels_and_runs_dynamics(installed, campaign, tmp_path):
    words = [sys.executable, "-c", LABEL, campaign, tmp_path / "logs"]
    done = subprocess.run(map(str, words), env=installed, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    energy, name, arguments, n_frames, ended = json.loads(done.stdout)
    copper = bulk("Cu", cubic=True)
    copper.calc = LennardJones(epsilon=0.4, sigma=2.3, rc=5.5)
    assert energy == pytest.approx(copper.get_potential_energy(), abs=1e-9)
    assert (name, n_frames, ended) == ("my_pairs", 3, "finished")
    assert arguments == {"epsilon": 0.4, "sigma": 2.3, "rc": 5.5}


def test_check_accepts_the_campaign_and_says_what_is_wrong_with_it(installed, campaign, tmp_path):
    machine = machine_file(tmp_path / "machine.yaml")
    done = cli("check", campaign, "--machine", machine, cwd=tmp_path, env=installed)
    assert done.returncode == 0, done.stderr
    assert "labels by my_pairs" in done.stdout
    campaign.write_text(campaign.read_text().replace("sigma_A: 2.3", "sigma: 2.3"))
    done = cli("check", campaign, "--machine", machine, cwd=tmp_path, env=installed)
    assert done.returncode == 2
    assert "label.reference.my_pairs.sigma: unknown key - did you mean 'sigma_A'?" in done.stderr


@pytest.mark.engines
def test_its_property_is_measured(installed, tmp_path):
    line = re.search(r"`benchmark: (\{nearest: .*?\}\})`", PAGE).group(1)
    glass = {"series": COPPER, "n_atoms": 32, "n_replicas": 2, "dynamics": DYNAMICS, "segments": SEGMENTS}
    study = {"name": "page", "potentials": [{"name": "EMT", "ase": EMT}], "glass": glass}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({**study, "benchmark": {**NOTHING, **yaml.safe_load(line)}}))
    machine = machine_file(tmp_path / "machine.yaml", slots=1)
    words = ("benchmark", "--study", tmp_path / "s.yaml", "--machine", machine, "--folder", "study")
    done = cli(*words, cwd=tmp_path, env=installed)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = list(csv.DictReader((tmp_path / "study" / "tables" / "results.csv").open(encoding="utf-8")))
    (row,) = [row for row in rows if row["name"] == "nearest"]
    assert 2.0 < float(row["value"]) < 2.8, "copper"
    assert [path.name for path in (tmp_path / "study" / "figures").glob("nearest*")] == ["nearest_atoms.png"]


def test_the_schema_has_the_settings_of_both(installed, tmp_path):
    kinds = json.loads(cli("schema", cwd=tmp_path, env=installed).stdout)["$defs"]
    pairs, _ = kinds["Reference"]["properties"]["my_pairs"]["anyOf"]
    assert pairs["properties"]["epsilon_eV"]["description"] == "Depth (eV)."
    nearest, _ = kinds["Benchmark"]["properties"]["nearest"]["anyOf"]
    assert nearest["properties"]["cutoff_A"]["default"] == 5.0


def test_the_page_says_every_field_of_an_engine():
    assert [name for name in ReferenceEngine.__dataclass_fields__ if f"`{name}" not in PAGE] == []


def test_the_page_says_every_answer_of_a_trainer_and_every_key_that_all_have():
    answers = [name for name in vars(Trainer) if not name.startswith("_")]
    assert {"settings", "pair"} <= {*answers, *Trainer.__annotations__}
    asked = {*answers, *Trainer.__annotations__, *Train.model_fields} - {"trainer"}
    assert [name for name in sorted(asked) if f"`{name}`" not in PAGE] == []
