"""Export of every kind of campaign: whatever it started from, and whatever its last stage is, the examples run.

Initial data of every kind of start are made by the real stations, with EMT; the models are those of the tiny campaign,
trained once. One LAMMPS and one Python run all examples that differ.
"""

import re
import shlex
import shutil
import subprocess
import sys
from itertools import product
from typing import get_args

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write
from campaigns import SMALL, cli, end_sessions, environment, run_plain, tiny

from activelearn import export, loop, starts
from activelearn.config import Campaign, Machine, load_campaign
from activelearn.config.stages import Mode, Stage
from activelearn.engines import process
from activelearn.errors import ConfigError
from activelearn.final_models import FinalChoice
from activelearn.frames import Frames
from activelearn.records import Ensemble
from activelearn.store import Store
from activelearn.tasks import carry_out, gather

#: Copper at two thirds of its density: room for Packmol.
PACKED = {"packed": {"units": {"Cu": 1}, "n_atoms": 32, "density_g_cm3": 6.0, "tolerance_A": 2.2}}
CRYSTAL = {"seed": "Cu_Fm-3m", "supercell": [2, 2, 2]}
FILE = {"seed": "mine.extxyz", "supercell": [2, 2, 2]}
#: Changes of the tiny campaign, by what it starts from.
STARTS = {
    "crystal": {"initial__systems": [CRYSTAL]},
    "structure file that is gone": {"initial__systems": [FILE]},
    "left-handed cell": {"initial__systems": [FILE | {"seed": "left.extxyz"}]},
    "relaxed crystal": {"initial__systems": [CRYSTAL], "initial__relax": {"fmax": 0.05}},
    "packed": {"initial__systems": [PACKED]},
    "crystal, and walks from a packing": {"initial__systems": [CRYSTAL], "explore__systems": [PACKED]},
    "isolated atoms, too": {"initial__systems": [CRYSTAL], "initial__isolated": {}},
    "every cell too low": {"initial__systems": [CRYSTAL], "initial__min_height_A": 7.2, "initial__scales": [0.98]},
}
HEATS = {
    "constant": {"temperatures_K": [100]},
    "ramp": {"ramps_K": [[50, 100]]},
    "both": {"temperatures_K": [80, 120], "ramps_K": [[300, 20]]},
}
ENSEMBLES = {
    "nvt": {"ensemble": "nvt"},
    **{name: {"ensemble": name, "pressures_bar": [0.0, 1000.0]} for name in ("npt-iso", "npt-aniso", "npt-tri")},
    "custom": {"ensemble": "custom", "lammps": "fix md all nve"},
    "custom with pressure": {
        "ensemble": "custom",
        "pressures_bar": [1.0],
        "lammps": "fix md all nph iso ${pressure} ${pressure} 1.0",
    },
    "nvt and a line": {"ensemble": "nvt", "lammps": "fix more all langevin ${temperature} ${temperature} 1.0 ${seed}"},
    **{f"deformed {mode}": {"deformations": [mode], "strains": [0.02, -0.02]} for mode in get_args(Mode)},
}
BEGINNINGS = ("systems", "dataset")
FIRST_K = {"constant": 100.0, "ramp": 50.0, "both": 80.0}
MACHINE = Machine(slots=1, **SMALL)


def stages():
    """Every kind of stage: (name, stage, temperature at which its first walk begins)."""
    for (ensemble, more), (heat, temperatures), start in product(ENSEMBLES.items(), HEATS.items(), BEGINNINGS):
        values = {"name": "last", "n_steps": 20, "every": 2, "timestep_fs": 2.0, "start": start}
        yield f"{ensemble}, {heat}, {start}", Stage.model_validate(values | more | temperatures), FIRST_K[heat]


def with_last_stage(campaign: Campaign, stage: Stage) -> Campaign:
    stages = (*campaign.explore.stages, stage)
    return campaign.model_copy(update={"explore": campaign.explore.model_copy(update={"stages": stages})})


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Stores whose initial data are labelled, by what they start from: {kind: Store}."""
    here, found = tmp_path_factory.mktemp("begun"), {}
    atoms = bulk("Cu", cubic=True)
    process.allow_engines()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(here)
            for kind, changes in STARTS.items():
                write("mine.extxyz", atoms)
                write("left.extxyz", left_handed(atoms))
                more = {"initial__copies": 2, "initial__md": None, **changes}
                store = Store.create(here / kind, load_campaign(tiny(here / "tiny.yaml", **more)))
                step = loop.phase_of(store, 0)
                step.begin(MACHINE)
                for station in step.stations[:-1]:  # all but the training
                    carry_out(station, store, 0, MACHINE)
                    gather(station, store, 0, MACHINE)
                found[kind] = store
            for path in (here / "mine.extxyz", here / "left.extxyz"):
                path.unlink()
    finally:
        end_sessions()
    return found


def left_handed(atoms):
    swapped = atoms.copy()
    swapped.set_cell(atoms.cell[[1, 0, 2]], scale_atoms=False)
    assert np.linalg.det(swapped.cell) < 0
    return swapped


@pytest.fixture(scope="module")
def examples(begun, undisturbed, tmp_path_factory):
    """Examples that differ, {(start, temperature): folder}: one of every start, and of every heat from a crystal."""
    here = tmp_path_factory.mktemp("examples")
    models = []
    for member in undisturbed[0].iterations()[-1].ensemble.members:
        models.append(f"frozen-{member.index}.pb")
        shutil.copyfile(undisturbed[0].model(member.model), here / models[-1])
    found = {}
    for name, stage, first_K in stages():
        for kind, store in begun.items():
            if (kind, first_K) in found or not (kind == "crystal" or name == "nvt, constant, systems"):
                continue
            folder = found[kind, first_K] = here / f"{len(found):03d}"
            folder.mkdir()
            export.write_examples(store, with_last_stage(store.campaign(0), stage), folder, [f"../{m}" for m in models])
    return found


@pytest.mark.engines
def test_the_input_of_every_stage_begins_at_the_temperature_of_its_first_walk(begun, tmp_path):
    """So those of the same temperature are one and the same, and are run once."""
    store, texts = begun["crystal"], {}
    for name, stage, first_K in stages():
        export.write_examples(store, with_last_stage(store.campaign(0), stage), tmp_path, ["a.pb", "b.pb"])
        text = (tmp_path / "in.lammps").read_text()
        assert f"velocity        all create {first_K:g} " in text, name
        assert f" temp {first_K:g} {first_K:g} " in text, name
        assert texts.setdefault(first_K, text) == text, name
    assert len(texts) == len(HEATS)


@pytest.mark.engines
def test_the_start_is_a_frame_of_the_sealed_initial_data_that_a_walk_may_start_from(begun):
    for kind, store in begun.items():
        campaign, parts = store.campaign(0), store.dataset(0)
        start = export.start_of(store, campaign)
        assert not start.is_labelled
        assert np.linalg.det(start.cell[0]) > 0
        assert any(np.array_equal(start.positions[0], frame) for part in parts for frame in part.positions), kind
        assert starts.is_fit(start, campaign.min_height_A) == (kind != "every cell too low")
        assert start.n_atoms == 32, kind


def test_of_the_frames_that_are_fit_the_least_strained_is_the_start(store, copper):
    origin = copper.origin.copy()
    origin["strain"] = [0.02, -0.01, 0.01]
    cells = Frames(copper.symbols, 2.0 * copper.cell, copper.positions, origin=origin)
    atom = Frames(("Cu",), 15.0 * np.eye(3)[None], np.zeros((1, 1, 3)))
    store.seal_frames(store.dataset_file(0), [atom, cells])
    campaign = store.campaign(0)
    assert np.array_equal(export.start_of(store, campaign).positions, cells.positions[1:2])
    store.dataset_file(0).unlink()
    store.seal_frames(store.dataset_file(0), [atom])
    assert export.start_of(store, campaign).n_atoms == 1, "better than none"


@pytest.mark.engines
def test_lammps_runs_the_input_of_every_start_and_stage(examples, tmp_path):
    lines = [f'clear\nshell cd "{folder}"\ninclude in.lammps' for folder in examples.values()]
    (tmp_path / "in.all").write_text("\n".join(lines) + "\n")
    done = run("lmp", "-in", "in.all", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for kind, folder in examples.items():
        deviation = np.loadtxt(folder / "model_devi.out")
        assert deviation.shape == (6, 7), kind  # 100 steps, each 20th
        assert np.isfinite(deviation).all(), kind


ALL = """
import runpy, sys
for script in sys.argv[1:]:
    runpy.run_path(script)
"""


@pytest.mark.engines
def test_the_ase_script_of_every_start_and_temperature_runs(examples, tmp_path):
    scripts = [str(folder / "ase_example.py") for folder in examples.values()]
    done = run(sys.executable, "-c", ALL, *scripts, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(re.findall(r"energy -?\d+\.\d{6} eV, largest force \d", done.stdout)) == len(examples)
    assert len(re.findall(r"after 10 steps: \d+ K", done.stdout)) == len(examples)


def run(*words, cwd):
    """Run a command as a user would, from the shell."""
    alone = environment(OMP_NUM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")
    return subprocess.run(words, cwd=cwd, env=alone, capture_output=True, text=True, timeout=250, check=False)


@pytest.mark.engines
def test_the_card_of_models_without_held_out_frames_says_so(undisturbed):
    store, records = undisturbed[0], undisturbed[0].iterations()
    last = store.result("final", records[-1].index, Ensemble)
    bare = tuple(member.model_copy(update={"held_out": None}) for member in last.members)
    title = "## Held-out errors (whole trajectories, never trained on)\n\n"
    assert f"{title}| member |" in export.model_card(store, FinalChoice(last), records)
    card = export.model_card(store, FinalChoice(last.model_copy(update={"members": bare})), records)
    assert f"{title}Not known: no frame was set aside (initial.held_out_fraction).\n\n- it is not known whether" in card


@pytest.mark.engines
def test_the_command_that_goes_on_can_be_pasted_as_it_stands(tmp_path):
    """The name of a campaign is no file: the one in the folder is."""
    store = Store.create(tmp_path / "a folder", load_campaign(tiny(tmp_path / "tiny.yaml")))
    with pytest.raises(ConfigError, match="with: activelearn run") as refused:
        export.export(store, tmp_path / "to")
    words = shlex.split(str(refused.value).partition("with: activelearn run ")[2])
    assert load_campaign(words[0]) == store.latest_campaign()
    assert words[1:] == ["--folder", str(store.folder)]


# --- whole campaigns --------------------------------------------------------------------------------------------------


def want_whole(folder, changes):
    """Run a campaign, look at it, export it, and run both examples as they are."""
    store, end = run_plain(folder / "c", tiny(folder / "tiny.yaml", **changes), Machine(slots=2, **SMALL))
    assert end.exit_code == 3
    done = cli("status", "c", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = cli("export", "c", "--to", "m", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = run("lmp", "-in", "in.lammps", cwd=folder / "m")
    assert done.returncode == 0, done.stdout[-2000:]
    done = run(sys.executable, "ase_example.py", cwd=folder / "m")
    assert done.returncode == 0, done.stderr[-2000:]
    return store, read(folder / "m" / "start.extxyz")


STAGE = {"name": "last", "n_walks": 2, "n_steps": 20, "every": 2, "timestep_fs": 2.0}
SHORT = {"stop__max_iterations": 1, "stop__min_frames": 10, "stop__min_walks": 1, "initial__md": None}


@pytest.mark.engines
def test_a_campaign_of_packings_and_ramps_alone_is_run_and_exported(tmp_path):
    """Both at once: an amorphous start has no crystal, and a stage of ramps no constant temperature."""
    stage = STAGE | {"ramps_K": [[50, 100]], "start": "dataset"}
    changes = SHORT | {"initial__systems": [PACKED], "explore__stages": [stage], "final__compress": False}
    store, start = want_whole(tmp_path, changes)
    assert any(np.allclose(start.positions, frame) for part in store.dataset(0) for frame in part.positions)
    assert "temp 50 50" in (tmp_path / "m" / "in.lammps").read_text()


SLOW = [(kind, "ramp", "nvt") for kind in STARTS] + [("packed", "both", ensemble) for ensemble in ENSEMBLES]


@pytest.mark.slow
@pytest.mark.engines
@pytest.mark.parametrize(("kind", "heat", "ensemble"), SLOW)
def test_a_campaign_of_every_start_and_stage_is_run_and_exported(tmp_path, monkeypatch, kind, heat, ensemble):
    monkeypatch.chdir(tmp_path)
    write("mine.extxyz", bulk("Cu", cubic=True))
    write("left.extxyz", left_handed(bulk("Cu", cubic=True)))
    changes = SHORT | STARTS[kind] | {"explore__stages": [STAGE | HEATS[heat] | ENSEMBLES[ensemble]]}
    want_whole(tmp_path, changes)
