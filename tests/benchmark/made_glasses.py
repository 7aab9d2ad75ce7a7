"""A study whose glasses are given structures: products as the glass station publishes them, nothing was run."""

import numpy as np

from activelearn.benchmark.property import Context
from activelearn.benchmark.station import asked_of
from activelearn.config import Study
from activelearn.engines.reference import fingerprint
from activelearn.frames import Frames
from activelearn.records import Glasses, MadeGlass
from activelearn.store import StudyStore
from activelearn.store.files import publish_json, sealed
from activelearn.store.glass_product import GlassPath, GlassProduct, Thermo, made_id, publish_glass
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


def thermo_of(segment, volume) -> Thermo:
    """Rows of these segments and volumes, Å^3; all else is zero and not judged."""
    zero = np.zeros(len(volume))
    return Thermo(np.asarray(segment), zero, zero, zero, zero, np.asarray(volume, dtype=float), zero * np.nan)


def glass_path(frames: Frames, volume, **more) -> GlassPath:
    """The last half of the frames is of the analysed segment; the thermo table has the given volumes, Å^3, in it."""
    n, m = len(frames), len(volume)
    whole = {
        "segments": ("quench", "relax"),
        "analysed": (1,),
        "ended": "finished",
        "frames": frames,
        "frame_segment": (np.arange(n) >= n // 2).astype(int),
        "frame_time_ps": np.arange(n, dtype=float),
        "thermo": thermo_of(np.repeat([0, 1], [3, m]), [1.0, 2.0, 3.0, *volume]),
        "end": frames[-1:],
        "end_velocities": np.zeros((frames.n_atoms, 3)),
    }
    return GlassPath(**whole | more)


def study_folder(path, study, replicas, *, x=0.0, volumes=None) -> StudyStore:
    """Return a study folder with sealed glasses of one condition: one replica for each of the given Frames."""
    volumes = [frames.volume for frames in replicas] if volumes is None else volumes
    paths = [glass_path(frames, volume) for frames, volume in zip(replicas, volumes, strict=True)]
    return folder_of_products(path, study, [GlassProduct(one) for one in paths], x=x)


def folder_of_products(path, study, products, *, x=0.0) -> StudyStore:
    """Return a study folder with these products sealed, replicas of one condition, as the glass station does it."""
    store = StudyStore.create(path, study)
    made = []
    for k, product in enumerate(products):
        name = f"toy-EMT-x{x:g}-{k}"
        publish_glass(store, name, product)
        for is_porous, one in ((False, product.dense), (True, product.porous)):
            if one is not None:
                made.append(_sealed(made_id(name, is_porous=is_porous), one, x=x, replica=k, is_porous=is_porous))
    store.seal(GLASS, ONCE, Glasses(glasses=tuple(made)))
    return store


def _sealed(name, path, **more) -> MadeGlass:
    formula = path.frames.formula if len(path.frames) else "unknown"
    known = {"potential": "toy (EMT)", "formula": formula, "n_atoms": path.frames.n_atoms, "ended": path.ended}
    return MadeGlass(id=name, **known, **more)


def planned(prop, study, store):
    """Return the tasks of one property, as the station plans them: none if the study does not ask for it."""
    return [task for one, asked in asked_of(study) if one is prop for task in one.tasks(asked, Context(study, store))]


def run_one(prop, task, store, slot=None):
    """Return what a task of a property publishes."""
    (asked,) = [asked for one, asked in asked_of(store.study) if one is prop]
    return prop.run(task, asked, Context(store.study, store), slot)


def sealed_reference(study, store, slot):
    """Seal who labels frames of the paths, if anybody is asked to, as a study begins."""
    if study.benchmark.force_error is not None and study.benchmark.force_error.label is not None:
        what = study.benchmark.force_error.label.reference
        publish_json(store.reference_file, sealed({what.name: fingerprint(what, slot)}))


def results_of(prop, study, store, tasks):
    """Return what was found, as the station gathers it."""
    (asked,) = [asked for one, asked in asked_of(study) if one is prop]
    return prop.results(asked, Context(study, store), tasks)


def findings_of(prop, study, store, slot=None):
    """Plan, run and gather one property."""
    sealed_reference(study, store, slot)
    tasks = planned(prop, study, store)
    for task in tasks:
        store.publish_product(BENCHMARK, ONCE, task.id, *run_one(prop, task, store, slot))
    return results_of(prop, study, store, tasks)


def number(found, name, **condition):
    """Return the one result of this name and condition."""
    matching = [r for r in found.results if r.name == name and condition.items() <= r.condition.items()]
    assert len(matching) == 1, [r.condition for r in matching]
    return matching[0]
