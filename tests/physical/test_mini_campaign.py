"""`mini_na3ps4o` for real: every mode of exploration in twenty minutes, and then a melt whose atoms stay apart."""

import json
import time
from itertools import combinations_with_replacement

import numpy as np
import pytest
from ase.geometry import get_distances
from campaigns import cli

from activelearn import geometry, starts
from activelearn.config import Condition, Machine, Stage
from activelearn.engines import lammps, process
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import TRAINER
from activelearn.frames import Frames
from activelearn.records import Ensemble
from activelearn.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
MELT = Stage(name="melt", temperatures_K=(1400.0,), n_steps=4000, every=20, timestep_fs=1.0)


@pytest.fixture(scope="module")
def campaign_folder(tmp_path_factory):
    """The finished campaign, and its seconds."""
    folder = tmp_path_factory.mktemp("mini") / "run"
    began = time.monotonic()
    done = cli("run", "mini_na3ps4o", "--folder", folder, cwd=folder.parent, timeout=3000)
    print(done.stdout)
    assert done.returncode in {0, 3}, done.stderr
    return folder, time.monotonic() - began


def test_every_mode_of_exploration_runs_in_twenty_minutes(campaign_folder):
    folder, seconds = campaign_folder
    store = Store.open(folder)
    campaign = store.campaign(0)
    last = next(record.selection for record in reversed(store.iterations()) if record.selection is not None)
    assert set(last.stages) == {stage.name for stage in campaign.explore.stages}, "all stages joined"
    walked = {cell.stage: cell for cell in last.cells}
    assert set(walked) == set(last.stages)
    assert {cell.mode for cell in last.cells} >= {"isotropic", "uniaxial-x", "shear-yz"}
    assert any(cell.to_temperature_K == 2000.0 for cell in last.cells)
    assert all(len(cell.along) == 5 for cell in last.cells if cell.mode is not None)
    assert sum(record.selection.mined for record in store.iterations() if record.selection is not None) > 0
    found = json.loads(cli("status", folder, "--json", cwd=folder.parent).stdout)
    assert found["calibration"]["n_pairs"] >= 50
    print(cli("status", folder, cwd=folder.parent).stdout)
    print(f"mini_na3ps4o: {seconds:.0f} s, {len(store.iterations())} iterations")
    assert seconds < 1200.0, "twenty minutes on two idle cores"


def shortest(frames: Frames) -> dict[str, float]:
    """Shortest distance of every pair of elements over all frames, Å."""
    kinds = sorted(set(frames.symbols))
    index = {kind: [i for i, symbol in enumerate(frames.symbols) if symbol == kind] for kind in kinds}
    found = {}
    for a, b in combinations_with_replacement(kinds, 2):
        least = np.inf
        for cell, positions in zip(frames.cell, frames.positions, strict=True):
            distances = get_distances(positions[index[a]], positions[index[b]], cell=cell, pbc=True)[1]
            least = min(least, float(distances[distances > 1e-9].min()))
        found[f"{a}-{b}"] = least
    return found


@pytest.mark.parametrize("system", [0, 1])
def test_no_atoms_overlap_in_a_melt_at_1400_K_with_the_final_model(campaign_folder, system, tmp_path):
    """Luo et al. had to add elements and SO2 after atoms of one element overlapped in long MD."""
    store = Store.open(campaign_folder[0])
    campaign = store.latest_campaign()
    final = store.result("final", store.iterations()[-1].index, Ensemble)
    models = [str(store.folder / member.model) for member in final.members]
    start = starts.structures(campaign, store, campaign.explored_systems[system])[0]
    drive = lammps.Drive(Condition(1400.0), velocity_seed=7)
    lammps.write_data(tmp_path / "conf.lmp", start, campaign.type_map)
    process.allow_engines()
    try:
        text = lammps.walk_input(MELT, drive, TRAINER.pair(models, campaign.type_map, MELT.every))
        walk, _, _ = lammps.timed_walk(tmp_path, text, start.symbols, Slot(Machine(), tmp_path))
    finally:
        process.close_sessions()
    assert walk.ended == "finished"
    frames = Frames(start.symbols, walk.cell, walk.positions)
    print(f"\n{start.formula} at 1400 K, {len(frames)} frames over {MELT.n_steps * MELT.timestep_fs / 1000:g} ps:")
    for pair, distance in shortest(frames).items():
        print(f"  shortest {pair} {distance:.2f} Å")
    print(f"  deviation: median {np.median(walk.max_devi_f):.2f}, largest {walk.max_devi_f.max():.2f} eV/Å")
    assert geometry.first_outside(frames, campaign.select.guards) is None
