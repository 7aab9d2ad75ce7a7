"""A whole campaign of silicon whose labels Quantum ESPRESSO makes: a few, as small as they can be."""

import shutil
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write
from campaigns import cli, machine_file, tiny

from activelearn.check import check
from activelearn.config import Machine, load_campaign
from activelearn.store import Store

PSEUDO = Path("/usr/share/espresso/pseudo")
needs_espresso = pytest.mark.skipif(
    shutil.which("pw.x") is None or not (PSEUDO / "Si.pz-vbc.UPF").is_file(),
    reason="no pw.x with pseudopotentials: apt-get install quantum-espresso quantum-espresso-data",
)


def silicon(here: Path, pseudo: str = "Si.pz-vbc.UPF", kind: str = "Si", **changes) -> Path:
    """Write a campaign of eight silicon atoms at Gamma."""
    write(here / "si8.vasp", bulk("Si", cubic=True))
    espresso = {
        "version": "6.7MaX",
        "pseudo_dir": str(PSEUDO),
        "pseudopotentials": {kind: pseudo},
        "ecut_eV": 160.0,
        "kpoints": [1, 1, 1],
        "smearing_eV": 0.05,
    }
    reference = {"engine": "espresso", "command": "pw.x", "functional": "LDA", "includes_dispersion": False}
    return tiny(
        here / "si.yaml",
        type_map=["Si"],
        initial__systems=[{"seed": "si8.vasp"}],
        initial__md=None,
        initial__copies=2,
        select__max_frames=2,
        label__reference={**reference, "espresso": espresso},
        stop__max_iterations=1,
        **changes,
    )


def test_check_names_what_the_engine_lacks(tmp_path):
    """A file that is not there, and an element of the systems that no file is named for."""
    machine = Machine(name="test", min_free_disk_GB=0.0)
    lines = check(load_campaign(silicon(tmp_path, "none.UPF")), machine, tmp_path / "c").problems
    assert [line for line in lines if f"pseudopotentials.Si: no file {PSEUDO}/none.UPF" in line]
    lines = check(load_campaign(silicon(tmp_path, "Al.pz-vbc.UPF", "Al")), machine, tmp_path / "c").problems
    assert [
        line for line in lines if line.startswith("label.reference.espresso: no data for Si - expected the data of")
    ]


@pytest.mark.slow
@pytest.mark.needs_espresso
@needs_espresso
@pytest.mark.timeout(1800)
def test_a_campaign_is_labelled_by_real_runs(tmp_path):
    """Checked, tried and run by its command; every frame is labelled or counted."""
    file, machine = silicon(tmp_path), machine_file(tmp_path / "m.yaml", slots=1)
    done = cli("check", file, "--machine", machine, "--try", cwd=tmp_path, timeout=600.0)
    assert done.returncode == 0, done.stdout + done.stderr
    done = cli("run", file, "--folder", tmp_path / "c", "--machine", machine, cwd=tmp_path, timeout=1500.0)
    assert done.returncode in {0, 3}, done.stdout[-2000:] + done.stderr[-4000:]
    store = Store.open(tmp_path / "c")
    keys = store.ledger.keys()
    labels = [store.ledger[key] for key in keys]
    assert len(labels) >= 4
    assert all(label.refused is None for label in labels)
    assert all(-110.0 < label.energy / 8 < -105.0 for label in labels), "eV an atom, of this pseudopotential"
    assert not list((tmp_path / "c" / "scratch").rglob("pw.out"))
