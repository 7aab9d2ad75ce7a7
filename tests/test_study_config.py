"""Glasses, benchmarks and studies as YAML: presets resolve, what cannot be is refused, steps add up."""

import numpy as np
import pytest

from activelearn.config import (
    Benchmark,
    Dynamics,
    Glass,
    Pore,
    Segment,
    Series,
    Study,
    load_benchmark,
    load_glass,
    load_series,
    load_study,
    preset_names,
    shipped_numbers,
    with_cited,
)
from activelearn.config.section import SEALED
from activelearn.engines.dynamics import State, steps_of, thermal_velocities
from activelearn.errors import ConfigError
from activelearn.frames import Frames
from activelearn.units import AMU_A2_PER_PS2_IN_EV, BOLTZMANN_EV_PER_K

SERIES = {
    "name": "toy",
    "title": "Na2S-P2S5",
    "compositions": [
        {"x": 0.0, "units": {"Na2S": 1.5, "P2S5": 0.5}, "density_g_cm3": 2.0},
        {"x": 0.5, "units": {"Na2S": 1.5, "P2S5": 0.4, "P2O5": 0.1}, "density_g_cm3": 2.0},
    ],
    "roles": {"formers": {"P": 3}, "anions": ["S", "O"], "modifiers": {"Na": 1}, "carrier": "Na"},
    "cutoffs_A": {"P-S": 2.5, "P-O": 2.0},
}
SEGMENTS = [
    {"name": "melt", "temperature_K": 1000, "ps": 1.0},
    {"name": "quench", "temperature_K": 1000, "to_temperature_K": 300, "rate_K_per_ps": 350},
    {"name": "relax", "ensemble": "npt-iso", "temperature_K": 300, "ps": 1.0, "is_analysed": True},
]


def glass(**over):
    return Glass.model_validate({"series": SERIES, "n_atoms": 64, "segments": SEGMENTS} | over)


def test_a_segment_is_judged_by_more_than_its_first_frame():
    assert glass(dynamics={"deviation_every_ps": 1.0}).dynamics.deviation_every_ps == 1.0
    with pytest.raises(
        ValueError, match=r"deviation_every_ps 1.5 in a segment melt of 1 ps, so that only its first frame"
    ):
        glass(dynamics={"deviation_every_ps": 1.5})


@pytest.mark.parametrize("name", preset_names("benchmark"))
def test_every_preset_of_a_benchmark_loads(name):
    assert load_benchmark(name)


@pytest.mark.parametrize("name", preset_names("series"))
def test_every_series_loads_and_its_cutoffs_cover_its_bonds(name):
    series = load_series(name)
    for former in series.roles.formers:
        assert any(series.cutoff_A(former, anion) for anion in series.roles.anions)


@pytest.mark.parametrize("name", preset_names("glass"))
def test_every_schedule_loads(name):
    assert load_glass(name).compositions


def test_single_keys_of_a_preset_are_overridden():
    made = load_glass("quick", series=SERIES, n_units=8, x=[0.5], n_replicas=2)
    assert (made.n_atoms, made.n_units, made.n_replicas) == (None, 8, 2)
    assert [c.x for c in made.compositions] == [0.5]


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"x": [0.7]}, "expected compositions of series toy"),
        ({"n_units": 3}, "exactly one of n_atoms and n_units"),
        ({"segments": SEGMENTS[:2]}, "is_analysed"),
        ({"segments": [SEGMENTS[0], *SEGMENTS]}, "different names"),
        ({"segments": [{"name": "a", "temperature_K": 300, "rate_K_per_ps": 5, "is_analysed": True}]}, "needs a ramp"),
        ({"segments": [{"name": "a", "temperature_K": 300, "is_analysed": True}]}, "one of ps and rate_K_per_ps"),
        ({"cooling_rates_K_per_ps": [5, 5]}, "different numbers"),
        ({"series": SERIES | {"cutoffs_A": {"P-S": 2.5, "S-P": 2.6}}}, "names a pair twice"),
        ({"series": SERIES | {"roles": SERIES["roles"] | {"anions": ["S", "P"]}}}, "two roles"),
        ({"series": SERIES | {"roles": SERIES["roles"] | {"carrier": "Li"}}}, "one of the modifiers"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(over, said):
    with pytest.raises(ValueError, match=said):
        glass(**over)


def test_a_cooling_rate_replaces_those_of_falling_ramps_only():
    made = glass(cooling_rates_K_per_ps=[700.0])
    heat = Segment(name="heat", temperature_K=300, to_temperature_K=1000, rate_K_per_ps=10)
    made = made.model_copy(update={"segments": (heat, *made.segments)})
    assert [segment.duration_ps for segment in made.schedule(700.0)] == [70.0, 1.0, 1.0, 1.0]
    assert [segment.duration_ps for segment in made.schedule()] == [70.0, 1.0, 2.0, 1.0]


def test_a_pore_names_compositions_that_are_made():
    pore = {"segments": [{"name": "pore", "temperature_K": 300, "ps": 1.0}], "x": [3.0]}
    with pytest.raises(ValueError, match=r"3\.0"):
        glass(pore=pore)
    assert Pore.model_validate({"segments": pore["segments"]}).diameter_A == 14.0


@pytest.mark.parametrize(
    ("ps", "timestep_fs", "n_frames"), [(1.0, 1.0, 4), (0.05, 2.0, 20), (7.3, 2.0, 3), (100.0, 1.0, 1)]
)
def test_frames_of_a_segment_are_rows_evenly_spaced_and_the_last_step_is_one(ps, timestep_fs, n_frames):
    segment = Segment(name="a", temperature_K=300, ps=ps, n_frames=n_frames)
    steps = steps_of(segment, Dynamics(thermo_every_ps=0.1), timestep_fs)
    assert steps.n_steps % steps.thermo_every == 0
    assert (steps.frames % steps.thermo_every == 0).all()
    assert steps.frames[-1] == steps.n_steps
    assert len(steps.frames) == min(n_frames, steps.n_steps // steps.thermo_every)
    assert abs(steps.n_steps * timestep_fs / 1000.0 - ps) <= 0.05 + 1e-9
    assert np.ptp(np.diff(steps.frames)) <= steps.thermo_every if len(steps.frames) > 2 else True


def test_cadences_know_nothing_of_each_other_and_are_the_rows_unless_given():
    segment, rows = Segment(name="a", temperature_K=300, ps=1.0, n_frames=4), Dynamics(thermo_every_ps=0.1)
    plain = steps_of(segment, rows, 1.0)
    assert (plain.thermo_every, plain.deviation_every, plain.frames.tolist()) == (100, 100, [200, 500, 800, 1000])
    own = steps_of(segment, rows.model_copy(update={"deviation_every_ps": 0.03, "frame_every_ps": 0.3}), 1.0)
    assert (own.n_steps, own.thermo_every, own.restart_every) == (1000, 100, plain.restart_every)
    assert (own.deviation_every, own.frames.tolist()) == (30, [100, 400, 700, 1000]), "the last included"
    late = steps_of(segment, rows.model_copy(update={"frame_every_ps": 5.0}), 1.0)
    assert late.frames.tolist() == [1000]


def test_thermal_velocities_have_exactly_the_temperature_and_no_drift():
    frame = Frames(("Na", "P", "S", "S"), np.eye(3)[None] * 8.0, np.random.default_rng(1).random((1, 4, 3)) * 8)
    state = State(frame, thermal_velocities(frame, 500.0, np.random.default_rng(2)))
    masses = np.array([22.98976928, 30.973761998, 32.06, 32.06])
    kinetic = 0.5 * (masses[:, None] * state.velocities**2).sum() * AMU_A2_PER_PS2_IN_EV
    assert kinetic / (0.5 * 9 * BOLTZMANN_EV_PER_K) == pytest.approx(500.0)
    assert (masses[:, None] * state.velocities).sum(axis=0) == pytest.approx(np.zeros(3), abs=1e-9)
    assert frame.density[0] == pytest.approx(masses.sum() * 1.66053906660 / 512.0)


def test_a_study_in_one_file_names_presets_and_files_beside_it(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: toy\nase: {preset: emt}\n")
    (tmp_path / "study.yaml").write_text(
        "name: s\npotentials: [mine.yaml, emt]\nglass: {preset: quick, series: na3ps4o, x: [0]}\nbenchmark: structure\n"
    )
    study = load_study(tmp_path / "study.yaml")
    assert study.potentials[0].name == "toy"
    assert study.glass.series.name == "na3ps4o"
    assert Study.model_validate(study.model_dump(mode="json")).sha256 == study.sha256


def test_a_wrong_preset_inside_a_study_is_named(tmp_path):
    (tmp_path / "study.yaml").write_text("name: s\npotentials: [sevenet_0]\nbenchmark: structure\n")
    with pytest.raises(ConfigError, match="sevennet_0"):
        load_study(tmp_path / "study.yaml")


def test_only_numbers_that_concern_a_study_stand_beside_it():
    series = Series.model_validate(SERIES | {"name": "na3ps4o"})
    potential = {"name": "toy", "lammps": {"pair_style": "lj/cut 5", "pair_coeff": ["* * 1 1"], "elements": ["Na"]}}
    study = Study.model_validate(
        {"name": "s", "potentials": [potential | {"functional": "none", "includes_dispersion": False}]}
        | {"glass": glass(series=series)}
    )
    found = with_cited(study).cited
    assert {number.series for number in found} <= {"na3ps4o"}
    assert all(number.status != "memory_low" for number in shipped_numbers())


def test_a_series_named_over_a_preset_takes_the_place_of_its_own(tmp_path):
    (tmp_path / "g.yaml").write_text(
        "preset: quick\nn_atoms: 128\nseries: {preset: na3ps4o, compositions: [{x: 0, units: {Na2S: 1.5, P2S5: 0.5}, "
        "density_g_cm3: 2.0}]}\n"
    )
    found = load_glass(tmp_path / "g.yaml")
    assert (found.series.name, found.series.title, len(found.compositions)) == ("na3ps4o", "Na3PS4-xOx", 1)


def test_compositions_of_a_preset_are_not_those_of_another_series():
    assert load_glass("luo2024_porous").x == (0.0,)
    assert load_glass("luo2024_porous", series="na3ps4o").x == (0.0,)
    assert load_glass("luo2024_porous", series="na2o_sio2").x is None
    assert load_glass("luo2024_porous", series="na2o_sio2", x=[0.2]).x == (0.2,)


def test_what_is_wrong_with_a_study_names_the_command_of_studies(tmp_path):
    (tmp_path / "s.yaml").write_text("{name: s, potentials: [emt, emt], benchmark: crystals}")
    with pytest.raises(
        ConfigError, match=r"names, .* - fix it and run: activelearn benchmark --check --study .*s.yaml$"
    ):
        load_study(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"diffusion": {"window": [0.95, 0.5]}}, "holds 0 of 2000 frames"),
        ({"diffusion": {"window": [0.5, 0.9], "n_frames": 5}}, "holds 2 of 5 frames"),
        ({"diffusion": {"temperatures_K": [300, 300.0]}}, "needs different numbers"),
        ({"bulk_modulus": {"strains": [-1.0e-9, 0.0, 1.0e-9]}}, "range of 0.001 or more"),
        ({"elastic": {"strain": 1.0e-9}}, "greater than or equal to 0.0001"),
    ],
)
def test_what_could_not_be_measured_is_refused_before_the_runs(asked, said):
    with pytest.raises(ValueError, match=said):
        Benchmark.model_validate(asked)
    sealed = Benchmark.model_validate({"diffusion": {"window": [0.95, 0.5]}}, context=SEALED)
    assert sealed.diffusion.window == (0.95, 0.5)
