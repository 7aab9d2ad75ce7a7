"""Did it melt: paths made up so that the answer is known, then a crystal and a liquid of real runs; and who says so.

Runs are of copper-like atoms by Lennard-Jones in LAMMPS, started as a crystal.
"""

from dataclasses import replace

import numpy as np
import pytest
from ase.io import read
from boards import board_of
from pydantic import ValidationError
from test_glass import DYNAMICS, carried_out, engines, lj, sealed, study_of, worker  # noqa: F401 - a fixture

from activelearn import analysis, glass
from activelearn.benchmark.replicas import Replicas
from activelearn.config import Glass, Machine, load_glass
from activelearn.frames import Frames
from activelearn.melting import displacements, melt_of
from activelearn.records import MadeGlass, Melt
from activelearn.report import write_figures, write_tables
from activelearn.report.figures.sheet import suffix
from activelearn.report.stamps import doubts, is_doubted, legend, marks, worst
from activelearn.show import study_report
from activelearn.store import StudyStore
from activelearn.store.glass_product import GlassPath, Thermo, path_of
from activelearn.store.study import GLASS, ONCE
from activelearn.tasks import gather

BOX_A = 12.0
#: A crystal of PS4 units and sodium in that box: 8 P, 32 S, 24 Na.
SYMBOLS = ("P",) * 8 + ("S",) * 32 + ("Na",) * 24
P, S, NA = slice(0, 8), slice(8, 40), slice(40, 64)


def hold(name, temperature_K, **more):
    return {"name": name, "temperature_K": temperature_K, "ps": 1.0, **more}


def ramp(name, begin_K, end_K, **more):
    return hold(name, begin_K, to_temperature_K=end_K, **more)


COLD = hold("glass", 300, is_analysed=True)
MELT_QUENCH = [hold("melt", 1000), ramp("quench", 1000, 300), COLD]


def glass_of(segments=MELT_QUENCH) -> Glass:
    made = load_glass("quick", series="na3ps4o", x=[0.0]).model_dump(mode="json")
    return Glass.model_validate(made | {"segments": segments})


def crystal():
    """(64, 3) Å: P on a lattice, four S around each, Na between."""
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * BOX_A / 2.0
    bonds = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 2.05 / np.sqrt(3.0)
    sodium = np.concatenate([corners + BOX_A / 4.0 * np.eye(3)[i] for i in range(3)])
    return np.concatenate([corners, (corners[:, None] + bonds).reshape(-1, 3), sodium])


def path_of_melt(positions, ended="finished", segment=0) -> GlassPath:
    """A path whose frames (n_frames, 64, 3) are of one segment, wrapped as the engines leave them."""
    n = len(positions)
    frames = Frames(SYMBOLS, np.tile(BOX_A * np.eye(3), (n, 1, 1)), positions).wrapped()
    reached = np.arange(3)
    return GlassPath(
        segments=("melt", "quench", "glass"),
        analysed=(2,),
        ended=ended,
        frames=frames,
        frame_segment=np.full(n, segment),
        frame_time_ps=np.linspace(0.1, 1.0, n),
        thermo=Thermo(reached, np.ones(3), *[np.zeros(3)] * 5),
        end=frames[-1:] if ended == "finished" else None,
        end_velocities=np.zeros((64, 3)) if ended == "finished" else None,
    )


def rattling(n_frames=10, amplitude_A=0.25):
    rng = np.random.default_rng(3)
    return crystal() + rng.normal(0.0, amplitude_A, (n_frames, 64, 3))


def diffusing(step_A=0.8, n_frames=20):
    """Atoms that walk at random, and how far each P is from where it began (no atom is heavy: their drift is taken)."""
    rng = np.random.default_rng(4)
    steps = rng.normal(0.0, step_A, (n_frames, 64, 3))
    masses = Frames(SYMBOLS, BOX_A * np.eye(3)[None], crystal()[None]).masses
    steps -= (steps * masses[:, None]).sum(axis=1, keepdims=True) / masses.sum()
    walked = crystal() + np.cumsum(steps, axis=0)
    return walked, np.linalg.norm(walked[-1] - walked[0], axis=1)[P]


# --- paths whose answer is known --------------------------------------------------------------------------------------


def test_a_crystal_that_vibrates_has_not_melted():
    found = melt_of(path_of_melt(rattling()), glass_of())
    assert found.is_melted is False
    assert (found.formers, found.overlap) == (("P",), 1.0)
    assert found.msd_A2 == pytest.approx(6 * 0.25**2, rel=0.5), "two moments of a vibration"
    assert found.ps == pytest.approx(0.9)
    rms = np.sqrt(found.msd_A2)
    assert (
        found.said == f"NOT MELTED: P moved {rms:.2f} Å rms in 0.9 ps of melt, 100 % are within 1 Å of where they were"
    )


def test_formers_that_diffuse_are_followed_across_the_boundaries():
    walked, moved_A = diffusing()
    found = melt_of(path_of_melt(walked), glass_of())
    assert found.is_melted is True
    assert found.msd_A2 == pytest.approx((moved_A**2).mean(), rel=1e-9)
    assert found.overlap == (moved_A <= 1.0).mean()
    assert found.said.startswith(f"P moved {np.sqrt(found.msd_A2):.2f} Å rms")
    far = diffusing(n_frames=200)[0][::8]
    assert np.abs(far[-1] - far[0])[P].max() > BOX_A, "more than a cell away"
    assert displacements(path_of_melt(far).frames, ("P",)).max() > BOX_A


def test_a_crystal_that_drifts_as_a_whole_has_not_moved():
    drift_A = np.linspace(0.0, 30.0, 10)[:, None, None] * np.array([1.0, 0.3, 0.0])
    still, drifting = (melt_of(path_of_melt(rattling() + d), glass_of()) for d in (0.0, drift_A))
    assert drifting.is_melted is False
    assert drifting.msd_A2 == pytest.approx(still.msd_A2, rel=1e-6)


def test_neither_a_fast_ion_nor_anions_that_turn_about_their_former_melt_anything():
    positions, (walked, _) = rattling(), diffusing(n_frames=10)
    positions[:, NA] = walked[:, NA]
    angle = np.linspace(0.0, np.pi, 10)[:, None]
    around = crystal()[S] - np.repeat(crystal()[P], 4, axis=0)
    turned = [around @ np.array([[np.cos(a), np.sin(a), 0], [-np.sin(a), np.cos(a), 0], [0, 0, 1]]) for [a] in angle]
    positions[:, S] += np.array(turned) - around
    frames = path_of_melt(positions).frames
    assert min((displacements(frames, (e,)) ** 2).mean() for e in ("Na", "S")) > 4.0, "they did move"
    assert melt_of(path_of_melt(positions), glass_of()).is_melted is False


@pytest.mark.parametrize(
    ("moved_A", "msd_A2", "overlap", "is_melted"),
    [
        ([8.0, 0, 0, 0, 0, 0, 0, 0], 8.0, 7 / 8, False),  # one vacancy's neighbour has hopped
        ([1.5] * 8, 2.25, 0.0, False),  # a transition from one crystal to another
        ([0.5] * 4 + [4.0] * 4, 8.125, 0.5, False),  # half of the cell is crystal
        ([0.5] * 3 + [3.0] * 5, 5.71875, 3 / 8, True),
        ([2.1] * 8, 4.41, 0.0, True),
    ],
)
def test_a_melt_wants_both_the_mean_and_most_of_the_formers_to_have_moved(moved_A, msd_A2, overlap, is_melted):
    positions = np.tile(crystal(), (5, 1, 1))
    alternating = np.array([[1.0 if k % 2 else -1.0, 0, 0] for k in range(8)])
    paced = np.linspace(0.0, 1.0, 5)[:, None, None]
    positions[:, P] += paced * alternating * np.array(moved_A)[:, None]
    masses = path_of_melt(positions).frames.masses
    drift = (positions[:, P] - crystal()[P]).sum(axis=1) * masses[0] / masses[NA].sum()
    positions[:, NA] -= drift[:, None]  # the sodium makes up for it: nothing drifts
    found = melt_of(path_of_melt(positions), glass_of())
    assert (found.msd_A2, found.overlap) == (pytest.approx(msd_A2), overlap)
    assert found.is_melted is is_melted


def test_a_material_without_formers_is_judged_by_all_atoms():
    path = path_of_melt(diffusing()[0])
    sodium = Frames(("Na",) * 64, path.frames.cell, path.frames.positions)
    found = melt_of(replace(path, frames=sodium), glass_of())
    assert (found.formers, found.is_melted) == ((), True)
    assert found.said.startswith("all atoms moved ")


# --- what is not known ------------------------------------------------------------------------------------------------


def test_what_cannot_be_known_is_said_to_be_so():
    jumping = path_of_melt(rattling())
    cells = jumping.frames.cell.copy()
    cells[4] *= 1.6
    for path, segments, why in (
        (path_of_melt(rattling(1)), MELT_QUENCH, "1 frame kept of melt, needs n_frames of 2 or more"),
        (path_of_melt(rattling(), segment=1), MELT_QUENCH, "0 frames kept of melt"),
        (path_of_melt(rattling(), ended="melt: lost atoms at 0.4 ps"), MELT_QUENCH, "it died before the end of melt"),
        (
            path_of_melt(rattling()),
            [ramp("heat", 300, 1000), ramp("quench", 1000, 300), COLD],
            "none is marked is_melt",
        ),
        (replace(jumping, frames=replace(jumping.frames, cell=cells)), MELT_QUENCH, "melt: frames 3 and 4: the cell"),
    ):
        found = melt_of(path, glass_of(segments))
        assert (found.is_melted, found.msd_A2) == (None, None)
        assert why in found.said
        assert found.said.startswith("not known whether it melted: ")
    late = path_of_melt(rattling(), ended="quench: lost atoms at 0.4 ps")
    assert melt_of(late, glass_of()).is_melted is False, "its melt was whole"


@pytest.mark.parametrize(
    ("segments", "melt"),
    [
        (MELT_QUENCH, (0,)),
        ([ramp("heat", 300, 1400), hold("melt", 1400), ramp("quench", 1400, 300), COLD], (1,)),
        ([hold("first", 1400), hold("second", 1400, ensemble="npt-iso"), ramp("quench", 1400, 300), COLD], (0, 1)),
        ([hold("melt", 1400), COLD], (0,)),  # quenched at once
        ([hold("a", 1400), hold("b", 900), hold("c", 1400), COLD], (0, 1, 2)),
        ([hold("begin", 300), ramp("heat", 300, 1400), ramp("quench", 1400, 300), COLD], ()),  # 300 K is no melt
        ([hold("begin", 300), ramp("heat", 300, 1400, is_melt=True), ramp("quench", 1400, 300), COLD], (1,)),
        ([hold("melt", 900, is_melt=True), hold("spike", 1400), COLD], (0,)),
        ([COLD], ()),
        ([ramp("heat", 300, 900), hold("hot", 900, is_analysed=True)], ()),  # a liquid that is looked at
    ],
)
def test_the_melt_is_the_hottest_hold_before_a_colder_segment_or_what_is_marked(segments, melt):
    assert glass_of(segments).melt == melt


def test_every_preset_has_a_melt_and_a_pore_has_none():
    assert all(glass.melt for glass in map(load_glass, ("quick", "luo2024", "bertani2026", "luo2024_porous")))
    made = load_glass("luo2024_porous").model_dump(mode="json")
    made["pore"]["segments"][0]["is_melt"] = True
    with pytest.raises(ValidationError, match="expected it only in the segments that make the dense glass"):
        Glass.model_validate(made)


# --- real runs --------------------------------------------------------------------------------------------------------


def copper(temperature_K, ps):
    """A study of one glass of fcc copper-like atoms, which boil at about 1,500 K."""
    series = {
        "name": "copper",
        "title": "Cu",
        "compositions": [{"x": 0.0, "units": {"Cu": 1}, "density_g_cm3": 8.3, "crystal": "Cu_Fm-3m"}],
        "roles": {"formers": {"Cu": 1}, "anions": ["S"]},
        "cutoffs_A": {"Cu-Cu": 3.3},
    }
    style = {"pair_style": "lj/cut 6.0", "pair_coeff": ["* * 0.1 2.34"], "elements": ["Cu"]}
    segments = [
        hold("melt", temperature_K, n_frames=10) | {"ps": ps},
        ramp("quench", temperature_K, 100, n_frames=2),
        hold("glass", 100, n_frames=2, is_analysed=True),
    ]
    return study_of(lj() | {"lammps": style}, series=series, n_atoms=108, x=None, segments=segments, dynamics=DYNAMICS)


@engines
@pytest.mark.parametrize(("temperature_K", "ps", "is_melted"), [(400, 1.0, False), (4000, 3.0, True)])
@pytest.mark.usefixtures("worker")
def test_a_run_below_melting_is_stamped_and_its_structure_agrees(tmp_path, capsys, temperature_K, ps, is_melted):
    store = carried_out(copper(temperature_K, ps), tmp_path)
    one = sealed(store)[0]
    assert one.ended == "finished"
    assert (one.melt.is_melted, one.melt.formers) == (is_melted, ("Cu",))
    path = path_of(store, one)
    in_melt = path.frames[np.flatnonzero(path.frame_segment == 0)[5:]]
    found = analysis.pair_distribution(in_melt, bin_A=0.1, r_max_A=5.3)
    beyond = found.g[0, 0][found.r > 3.1]
    assert bool(beyond.max() < 5.0 * beyond.min()) is is_melted, "shells of a lattice, or of a liquid"
    assert ("NOT MELTED" in one.stamp) is not is_melted
    structure = store.folder / one.structure
    assert read(structure).info["stamp"] == one.stamp
    written = structure.read_bytes()
    structure.write_bytes(written.replace(b"moved", b"stood"))  # an older version was killed while it gathered
    store.sealed(GLASS, ONCE).unlink()
    gather(glass.STATION, StudyStore.open(store.folder), ONCE, Machine())
    assert structure.read_bytes() == written
    study_report(store)
    said = capsys.readouterr().out
    assert one.melted in said
    assert ("NOT MELTED" in said) is not is_melted


# --- who says so ------------------------------------------------------------------------------------------------------

STILL = "NOT MELTED: P moved 0.40 Å rms in 1.8 ps of melt, 97 % are within 1 Å of where they were"
STILLER = STILL.replace("0.40", "0.20").replace("97 %", "100 %")
UNTRUSTED = "UNTRUSTED: 6.0 % of frames outside the window, 31.0 % at or above f_lo"


def made(replica=0, *, melt=None, outside_share=None, **more) -> MadeGlass:
    """A glass of a potential, judged as its shares say."""
    return MadeGlass(
        id=f"r{replica}",
        potential="mine",
        x=0.0,
        replica=replica,
        formula="Na3PS4",
        n_atoms=64,
        ended="finished",
        n_judged=0 if outside_share is None else 100,
        outside_share=outside_share,
        above_f_lo_share=None if outside_share is None else 0.31,
        is_trusted=None if outside_share is None else outside_share <= 0.05,
        melt=melt,
        **more,
    )


def still(msd_A2=0.16, overlap=0.97):
    return Melt(formers=("P",), is_melted=False, ps=1.8, msd_A2=msd_A2, overlap=overlap)


LIQUID = Melt(formers=("P",), is_melted=True, ps=1.8, msd_A2=9.0, overlap=0.05)


def test_a_glass_says_both_whether_it_melted_and_whether_it_is_trusted():
    assert made(melt=still(), outside_share=0.06).stamp == f"{STILL}; {UNTRUSTED}"
    assert made(melt=still()).stamp == f"{STILL}; not judged"
    assert made(melt=LIQUID, outside_share=0.06).stamp == UNTRUSTED
    assert made(melt=LIQUID).melted == "P moved 3.00 Å rms in 1.8 ps of melt, 5 % are within 1 Å of where they were"
    assert made(outside_share=0.06).stamp == UNTRUSTED, "one of an older version: nothing is known of its melt"
    assert made().melted == "not known whether it melted: made by an older version"
    unknown = Melt(formers=("P",), is_melted=None, why="one frame")
    assert made(melt=unknown).stamp == "not judged"
    assert made(melt=unknown).melted == "not known whether it melted: one frame"


def test_the_numbers_of_replicas_are_stamped_with_the_one_that_moved_least_and_the_one_least_trusted():
    glasses = [
        made(0, melt=LIQUID, outside_share=0.06),
        made(1, melt=still(), outside_share=0.01),
        made(2, melt=still(0.04, 1.0), outside_share=0.02),
    ]
    replicas = Replicas({"potential": "mine", "x": 0.0}, glasses)
    assert replicas.stamp == f"{STILLER}; {UNTRUSTED}"
    full = Replicas({}, glasses[1:], metas=[{"n_overflow": 1, "overflow_share": 0.5, "overflow": "S 61 of 56"}])
    assert full.stamp == (
        f"{STILLER}; UNTRUSTED: 2.0 % of frames outside the window, 31.0 % at or above f_lo; "
        "more neighbours than sel holds: S 61 of 56 in 50.0 % of frames"
    )
    assert Replicas({}, [made(melt=LIQUID)]).stamp == "not judged"


def test_doubts_are_told_apart_and_the_worst_of_each_is_kept():
    replicas = Replicas({"potential": "mine", "x": 0.0}, [made(melt=still(), outside_share=0.06)])
    one = replicas.result("bulk_modulus", "GPa", [-1.0], unstable="1 of 3")
    assert doubts(one) == {"UNSTABLE": "UNSTABLE: 1 of 3", "NOT MELTED": STILL, "UNTRUSTED": UNTRUSTED}
    assert is_doubted(one)
    assert marks([one]) == "†¶‡"
    mild = "1.0 % of frames outside the window, 99.0 % at or above f_lo"
    assert worst([f"{STILL}; {mild}", STILLER, UNTRUSTED]) == f"{STILLER}; {UNTRUSTED}"
    assert worst([mild, "2.0 % of frames outside the window"]).startswith("2.0 %"), "f_lo bounds no trust"
    assert worst([f"{STILL}; not judged", None]) == f"{STILL}; not judged"
    crystal_only = replicas.curve("rdf", "P-S", ("r (Å)", "g(r)")).model_copy(update={"stamp": STILL})
    assert is_doubted(crystal_only)
    assert suffix([crystal_only]) == " (NOT MELTED)"
    wanted = "a melt needs 2 Å rms or more and fewer than 50 % there: melt longer, or hotter"
    assert legend([one])[1] == f"¶ {STILL} (mine at x = 0; the largest share; {wanted})."


def test_not_melted_stands_in_every_table_and_figure(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    board, arrays = board_of(1, (0.0, 1.0))
    stamp = f"{STILL}; not judged"

    def stamped(shown):
        return [one.model_copy(update={"stamp": stamp if one.stamp else None}) for one in shown]

    board = board.model_copy(update={"results": (*stamped(board.results),), "curves": (*stamped(board.curves),)})
    glass = made(melt=still()).model_copy(update={"potential": board.potentials[0]})
    tables = {
        path.name: path.read_text() for path in write_tables(board.model_copy(update={"glasses": (glass,)}), tmp_path)
    }
    assert f"¶ {STILL}" in tables["scoreboard.md"]
    assert f"| not judged | {STILL} |" in tables["scoreboard.md"]
    assert all(stamp in tables[name] for name in ("scoreboard.csv", "scoreboard.json", "results.csv"))
    seen = {}

    def saved(figure, path, **_):
        seen[path.name] = [text.get_text() for text in figure.texts]

    monkeypatch.setattr(Figure, "savefig", saved)
    write_figures(board, arrays, tmp_path)
    of_glasses = {name: texts for name, texts in seen.items() if not name.startswith(("parity", "crystals"))}
    assert len(of_glasses) > 5
    silent = [name for name, texts in of_glasses.items() if not any("NOT MELTED" in text for text in texts)]
    assert not silent
