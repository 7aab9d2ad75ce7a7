"""A study whose glasses are given structures: products as the glass station publishes them, nothing was run."""

import numpy as np

from activelearn.config import Study
from activelearn.frames import Frames
from activelearn.records import Glasses, MadeGlass
from activelearn.store import StudyStore
from activelearn.store.study import BENCHMARK, GLASS, ONCE

SERIES = {
    "name": "toy",
    "title": "Na3PS4-xOx",
    "compositions": [
        {"x": 0.0, "units": {"Na2S": 1.5, "P2S5": 0.5}, "density_g_cm3": 2.0},
        {"x": 0.5, "units": {"Na2S": 1.5, "P2S5": 0.4, "P2O5": 0.1}, "density_g_cm3": 2.0},
    ],
    "roles": {"formers": {"P": 3}, "anions": ["S", "O"], "modifiers": {"Na": 1}, "carrier": "Na"},
    "cutoffs_A": {"P-S": 2.5, "P-O": 2.0, "Na-S": 3.5},
}
SEGMENTS = [
    {"name": "quench", "temperature_K": 1000, "to_temperature_K": 300, "ps": 1.0},
    {"name": "relax", "ensemble": "npt-iso", "temperature_K": 300, "ps": 1.0, "is_analysed": True},
]


def study_of(**benchmark) -> Study:
    toy = {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False}
    return Study.model_validate(
        {
            "name": "toy",
            "potentials": [{"name": "toy (EMT)", "ase": toy}],
            "glass": {"series": SERIES, "n_atoms": 64, "segments": SEGMENTS},
            "benchmark": benchmark,
        }
    )


def glass_product(frames: Frames, volume):
    """The last half of the frames is of the analysed segment; the thermo table has the given volumes, Å^3, in it."""
    n, m = len(frames), len(volume)
    segment = (np.arange(n) >= n // 2).astype(int)
    arrays = {
        **frames.arrays("frames/"),
        "frame_segment": segment,
        "frame_time_ps": np.arange(n, dtype=float),
        "final_velocities": np.zeros((frames.n_atoms, 3)),
        "thermo/segment": np.repeat([0, 1], [3, m]),
        "thermo/volume": np.concatenate([[1.0, 2.0, 3.0], volume]),
    }
    return arrays, {"ended": "finished", "segments": ["quench", "relax"], "analysed": [1], "n_judged": 0}


def study_folder(path, study, replicas, *, x=0.0, volumes=None) -> StudyStore:
    """Return a study folder with sealed glasses of one condition: one replica for each of the given Frames."""
    store = StudyStore.create(path, study)
    made = []
    for k, frames in enumerate(replicas):
        glass = MadeGlass(
            id=f"toy-EMT-x{x:g}-{k}",
            potential="toy (EMT)",
            x=x,
            replica=k,
            formula=frames.formula,
            n_atoms=frames.n_atoms,
            ended="finished",
        )
        volume = frames.volume if volumes is None else volumes[k]
        store.publish_product(GLASS, ONCE, glass.id, *glass_product(frames, volume))
        made.append(glass)
    store.seal(GLASS, ONCE, Glasses(glasses=tuple(made)))
    return store


def findings_of(prop, study, store):
    """Plan, run and gather one property."""
    tasks = prop.plan(study, store)
    for task in tasks:
        store.publish_product(BENCHMARK, ONCE, task.id, *prop.run(task, store, slot=None))
    return prop.results(study, store, tasks)


def number(found, name, **condition):
    """Return the one result of this name and condition."""
    matching = [r for r in found.results if r.name == name and condition.items() <= r.condition.items()]
    assert len(matching) == 1, [r.condition for r in matching]
    return matching[0]
