"""A label engine that another package adds: installed by pip beside ours, no line of ours changed."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase.build import bulk
from ase.calculators.lj import LennardJones
from campaigns import cli, environment, machine_file, tiny

from activelearn.config import REFERENCES

pytest.importorskip("pip", reason="a virtual environment without pip")

OURS = [*REFERENCES.built_in]
EPSILON, SIGMA, CUTOFF = 0.4, 2.3, 5.5
MODULE = '''
"""Lennard-Jones pairs, shifted to zero at the cutoff, in numpy; parameters from a file."""

import hashlib
import itertools
import json
import time
from pathlib import Path

import numpy as np
from pydantic import Field, PositiveFloat

from activelearn.config import FilePath, ReferenceEngine, Section


class Pairs(Section):
    """Lennard-Jones pairs."""

    parameters: FilePath = Field(description="JSON with epsilon (eV) and sigma (A).")
    cutoff_A: PositiveFloat = Field(default=5.5, description="Where pairs end.")


def ask(reference, job, slot, *, structure, **request):
    started = time.time()
    if job != "label":
        return {"refused": f"no {job} with pairs", "started": started, "finished": started}
    settings = reference.settings(Pairs)
    numbers, end = json.loads(Path(settings.parameters).read_text()), settings.cutoff_A
    epsilon, sigma = numbers["epsilon"], numbers["sigma"]
    cell, positions = np.array(structure["cell"]), np.array(structure["positions"])
    reach = [int(end // height) + 2 for height in 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)]
    shift = 4.0 * epsilon * ((sigma / end) ** 12 - (sigma / end) ** 6)
    energy, forces, virial = 0.0, np.zeros_like(positions), np.zeros((3, 3))
    for image in itertools.product(*(range(-n, n + 1) for n in reach)):
        apart = positions[None] + np.array(image) @ cell - positions[:, None]
        square = (apart**2).sum(axis=2)
        near = (square < end**2) & (square > 1e-12)
        power = np.where(near, sigma**2 / np.where(near, square, 1.0), 0.0) ** 3
        energy += 0.5 * (4.0 * epsilon * (power**2 - power) - shift)[near].sum()
        slope = -24.0 * epsilon * (2.0 * power**2 - power) / np.where(near, square, 1.0)
        forces += (slope[:, :, None] * apart).sum(axis=1)
        virial -= 0.5 * np.einsum("ij,ija,ijb->ab", slope, apart, apart)
    numbers = {"energy": energy, "forces": forces.tolist(), "virial": virial.tolist()}
    return {**numbers, "started": started, "finished": time.time()}


def identity(reference, slot):
    content = Path(reference.settings(Pairs).parameters).read_bytes()
    settings = {"cutoff_A": reference.settings(Pairs).cutoff_A}
    return {"version": "1.5", "weights_sha256": hashlib.sha256(content).hexdigest(), "arguments": settings}


def check_settings(reference):
    if reference.functional != "none":
        raise ValueError(f"functional {reference.functional} - expected none: pairs know no electrons")


def problems(reference, machine, where):
    path = Path(reference.settings(Pairs).parameters)
    if path.is_file():
        return []
    return [f"{where}.pairs.parameters: no file {path} - expected epsilon and sigma - check the path"]


ENGINE = ReferenceEngine(
    ask=ask,
    identity=identity,
    settings=Pairs,
    movable=("parameters",),
    check_settings=check_settings,
    problems=problems,
)
'''
#: Labels the first frame of a campaign's reference; prints the label and the fingerprint as JSON.
DRIVER = """
    import json, sys
    from pathlib import Path
    import ase.io
    from activelearn.config import Machine, load_campaign
    from activelearn.engines import reference
    from activelearn.engines.process import Slot
    from activelearn.frames import Frames
    what, slot = load_campaign(sys.argv[1]).label.reference, Slot(Machine(), Path(sys.argv[2]))
    label = reference.label(what, Frames.from_ase([ase.io.read(sys.argv[3])]), slot)
    arrays = {"energy": label.energy, "forces": label.forces.tolist(), "virial": label.virial.tolist()}
    print(json.dumps([label.refused, arrays, reference.fingerprint(what, slot)]))
"""


def wheel(folder: Path) -> Path:
    """Write the wheel of a package of one module that adds an engine."""
    info = "pairs_labels-1.5.dist-info"
    files = {
        "pairs_labels.py": MODULE,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: pairs-labels\nVersion: 1.5\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[activelearn.references]\npairs = pairs_labels:ENGINE\n",
    }
    path = folder / "pairs_labels-1.5-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD")))
    return path


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment of a user who has installed the package."""
    folder = tmp_path_factory.mktemp("installed")
    words = ["install", "--quiet", "--no-index", "--no-deps", "--target", folder / "site", wheel(folder)]
    subprocess.run([sys.executable, "-m", "pip", *map(str, words)], check=True)
    env = environment()
    return {**env, "PYTHONPATH": os.pathsep.join([str(folder / "site"), env["PYTHONPATH"]])}


@pytest.fixture
def campaign(tmp_path):
    """A campaign of copper whose labels are of pairs, and the path to their parameters, from its own folder."""
    (tmp_path / "lj.json").write_text(json.dumps({"epsilon": EPSILON, "sigma": SIGMA}))
    reference = {"engine": "pairs", "functional": "none", "includes_dispersion": False}
    return tiny(tmp_path / "c.yaml", label__reference=reference | {"pairs": {"parameters": "./lj.json"}})


def checked(campaign, env, **changes):
    """Return what `activelearn check` says of the campaign with other keys of its reference."""
    data = yaml.safe_load(campaign.read_text())
    data["label"]["reference"] |= changes
    campaign.write_text(yaml.safe_dump(data))
    machine = machine_file(campaign.parent / "machine.yaml")
    return cli("check", campaign, "--machine", machine, cwd=campaign.parent.parent, env=env)


def test_it_labels_and_its_path_is_taken_from_the_campaigns_folder(installed, campaign, tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(atoms.cell[:] @ (np.eye(3) + np.tril(np.full((3, 3), 0.02))), scale_atoms=True)
    atoms.rattle(0.1, seed=3)
    atoms.write(tmp_path / "start.extxyz")
    atoms = ase.io.read(tmp_path / "start.extxyz")  # eight digits of it
    words = [sys.executable, "-c", "import textwrap\nexec(textwrap.dedent('''" + DRIVER + "'''))"]
    words += [campaign, tmp_path / "logs", tmp_path / "start.extxyz"]
    done = subprocess.run(map(str, words), env=installed, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    refused, label, fingerprint = json.loads(done.stdout)
    assert refused is None
    atoms.calc = LennardJones(epsilon=EPSILON, sigma=SIGMA, rc=CUTOFF)
    assert label["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(label["forces"], atoms.get_forces(), atol=1e-9)
    np.testing.assert_allclose(label["virial"], -atoms.get_stress(voigt=False) * atoms.get_volume(), atol=1e-9)
    assert fingerprint["calculator"] == "pairs"
    assert fingerprint["weights_sha256"] == hashlib.sha256((tmp_path / "lj.json").read_bytes()).hexdigest()
    assert str(tmp_path) not in json.dumps(fingerprint)


def test_check_says_what_it_lacks(installed, campaign):
    assert "label.reference" not in checked(campaign, installed).stderr
    done = checked(campaign, installed, pairs={"parameters": "no.json"})
    assert done.returncode == 2
    assert (
        "label.reference.pairs.parameters: no file no.json - expected epsilon and sigma - check the path" in done.stderr
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pairs": {"cutof_A": 4.0}}, "label.reference.pairs.cutof_A: unknown key - did you mean 'cutoff_A'?"),
        ({"pairs": {}}, "label.reference.pairs.parameters: missing - expected JSON with epsilon (eV) and sigma (A)"),
        ({"functional": "PBE"}, "functional PBE - expected none: pairs know no electrons"),
        ({"pairs": None}, "engine pairs with nothing - expected ['pairs']"),
        (
            {"engine": "pears"},
            f"label.reference.engine: got 'pears' - expected {', '.join(map(repr, OURS))} or 'pairs'",
        ),
    ],
)
def test_its_settings_are_checked_as_ours_are(installed, campaign, changes, sentence):
    done = checked(campaign, installed, **changes)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_it_is_in_the_schema_where_it_is_installed_only(installed, tmp_path):
    for env, engines in ((installed, {*OURS, "pairs"}), (None, {*OURS})):
        reference = json.loads(cli("schema", cwd=tmp_path, env=env).stdout)["$defs"]["Reference"]
        assert set(reference["properties"]["engine"]["enum"]) == engines
        assert engines - {"ase"} <= set(reference["properties"])
        assert ("pairs" in reference["properties"]) is (env is not None)


def test_without_its_package_the_campaign_is_refused_in_a_sentence(campaign, tmp_path):
    done = checked(campaign, environment())
    assert done.returncode == 2
    *names, last = map(repr, OURS)
    assert f"label.reference.engine: got 'pairs' - expected {', '.join(names)} or {last} (or the package" in done.stderr
