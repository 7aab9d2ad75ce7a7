"""The reference through its real worker: EMT to the bit, refusals apart from errors, a fingerprint without paths."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.emt import EMT
from campaigns import end_sessions
from pydantic import ValidationError

from activelearn.config import REFERENCES, Machine, Potential, Reference, ReferenceMD, Relax
from activelearn.engines import process
from activelearn.engines import reference as engine
from activelearn.engines.process import Slot
from activelearn.engines.references import ase as ase_engine
from activelearn.errors import ConfigError, EngineError, Unfit
from activelearn.frames import Frames
from activelearn.store.locks import namespace, process_started

HERE = str(Path(__file__).parent)
EMT_REFERENCE = Reference(
    calculator="ase.calculators.emt:EMT", package="ase", functional="none", includes_dispersion=False
)


def odd(name, arguments=None, **more):
    """One of the odd calculators; the worker is the same for all of them, for each takes seconds to begin."""
    given = {"which": name, **(arguments or {})}
    which = {"calculator": "odd_calculators:one_of", "arguments": given}
    return Reference(functional="none", includes_dispersion=False, **which, **more)


def alone(name, **more):
    """The same as the YAML names it, in a worker of its own."""
    return Reference(calculator=f"odd_calculators:{name}", functional="none", includes_dispersion=False, **more)


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    """One worker for all tests of this file: what one leaves behind must not disturb the next."""
    process.allow_engines()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", HERE)  # the odd calculators are found by the worker
        yield Slot(Machine(name="test"), tmp_path_factory.mktemp("logs"))
        end_sessions()


def in_process(frame: Frames, index=0):
    atoms = frame.without_labels().to_ase()[index]
    atoms.calc = EMT()
    forces = atoms.get_forces()
    return atoms.get_potential_energy(), forces, -atoms.get_stress(voigt=False) * atoms.get_volume()


# --- labels -----------------------------------------------------------------------------------------------------------


def test_a_label_is_that_of_the_calculator_to_the_bit(copper, slot):
    """Also after other structures: what was labelled before leaves no trace in the last bits."""
    for k in (0, 1, 2, 0):
        found = engine.label(EMT_REFERENCE, copper[k], slot)
        energy, forces, virial = in_process(copper[k])
        assert found.energy == energy
        assert np.array_equal(found.forces, forces)
        assert np.array_equal(found.virial, virial)
        assert found.refused is None
        assert 0.0 < found.started < found.finished


def test_the_structure_goes_over_to_the_bit(copper):
    sent = json.loads(json.dumps(engine.structure(copper, 2)))
    assert np.array_equal(np.array(sent["positions"]), copper.positions[2])
    assert np.array_equal(np.array(sent["cell"]), copper.cell[2])
    assert sent["symbols"] == ["Cu"] * 4
    assert sent["pbc"] == [True] * 3


def test_the_virial_is_minus_the_strain_derivative(copper, slot):
    found = engine.label(EMT_REFERENCE, copper[0], slot)
    h = 1e-5
    for i, j in ((0, 0), (1, 1), (1, 2)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * h
            strained = Frames(copper.symbols, copper.cell[:1] @ strain, copper.positions[:1] @ strain)
            energies.append(in_process(strained)[0])
        assert found.virial[i, j] == pytest.approx(-(energies[0] - energies[1]) / (2 * h), abs=1e-4)


def test_without_periodicity_there_is_no_virial(slot):
    molecule = Frames(("Cu", "Cu"), 10 * np.eye(3)[None], [[[0, 0, 0], [2.4, 0, 0]]], (False, False, False))
    assert np.isnan(engine.label(EMT_REFERENCE, molecule, slot).virial).all()


def test_the_energy_is_the_one_that_belongs_to_the_forces(copper, slot):
    assert engine.label(odd("Smeared"), copper[0], slot).energy == in_process(copper[0])[0] - 1.0


def test_what_a_calculator_prints_does_not_disturb(copper, slot):
    found = engine.label(odd("Chatty"), copper[0], slot)
    assert found.energy == in_process(copper[0])[0]
    assert "SCF step 1" in (slot.logs / "session-reference-0.log").read_text()
    assert "from a child process" in (slot.logs / "session-reference-0.log").read_text()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Unconverged", "SCFError: no convergence in 60 steps"),
        ("NotFinite", "CalculationFailed: non-finite energy, forces"),
        ("UnconvergedInWordsOfItsOwn", "KohnShamConvergenceError: did not converge"),
    ],
)
def test_a_physical_failure_is_a_label_with_its_reason(copper, slot, name, reason):
    found = engine.label(odd(name), copper[0], slot)
    assert found.refused.startswith(reason)
    assert np.isnan(found.energy)
    assert found.forces.shape == (4, 3)
    assert found.virial.shape == (3, 3)


@pytest.mark.parametrize(
    ("calculator", "sentence"),
    [
        ("odd_calculators:Broken", "OSError: licence server not found"),
        ("odd_calculators:Dies", "the worker died with return code -9"),
        ("odd_calculators:Hopeless", "KeyError: 'Cu'"),
    ],
)
def test_what_may_pass_or_be_of_the_structure_is_an_engine_error(copper, slot, calculator, sentence):
    broken = Reference(calculator=calculator, functional="none", includes_dispersion=False)
    with pytest.raises(EngineError, match=sentence):
        engine.label(broken, copper[0], slot)
    assert engine.label(EMT_REFERENCE, copper[0], slot).refused is None, "the slot continues"


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (alone("Absent"), "has no attribute 'Absent' - expected a class of that module"),
        (
            odd("Raises", arguments={"kind": "ValueError", "text": "7net-9 is no model"}),
            "ValueError: 7net-9 is no model",
        ),
        (alone("Gpu", arguments={"device": "cuda"}), "change arguments.device: cuda, for example to cpu"),
        (odd("NoStress"), "label.reference.stress: false"),
    ],
    ids=lambda what: what.calculator if isinstance(what, Reference) else "",
)
def test_what_no_retry_mends_is_no_engine_error_and_one_line(copper, slot, what, sentence):
    for job in (lambda: engine.label(what, copper[0].without_labels(), slot), lambda: run_md(copper, slot, 1, what)):
        with pytest.raises(Unfit, match=sentence) as raised:
            job()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("MemoryError", ""),
        ("RuntimeError", "CUDA out of memory. Tried to allocate 20.00 MiB"),
        ("ConnectionError", "Max retries exceeded"),
        ("OSError", "[Errno 28] No space left on device"),
        ("ImportError", "libtorch.so: cannot allocate memory in static TLS block"),
    ],
)
def test_what_may_be_otherwise_the_next_time_is_retried(copper, slot, kind, text):
    with pytest.raises(EngineError, match=kind):
        engine.label(odd("Raises", arguments={"kind": kind, "text": text}), copper[0], slot)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_an_energy_in_an_array_of_one_number_is_that_number(copper, slot, shape):
    single = odd("Single", arguments={"shape": shape}, precision="float32")
    found = engine.label(single, copper[0], slot)
    energy, forces, virial = in_process(copper[0])
    assert found.energy == pytest.approx(energy, rel=1e-6)
    assert found.forces == pytest.approx(forces, abs=1e-6)
    assert found.virial == pytest.approx(virial, abs=1e-5)
    frames, ended, *_ = run_md(copper, slot, 1, single)
    assert (ended, len(frames)) == ("finished", 3)
    assert relax(copper[0], slot, single, cell=True, max_steps=3)[1] == "not relaxed in 3 steps"


# --- one structure that a calculator cannot take ----------------------------------------------------------------------

ALONE = Frames(("Cu",), 12.0 * np.eye(3)[None], [[[6.0, 6.0, 6.0]]])


def test_a_structure_that_a_calculator_raises_on_is_refused_if_it_labels_another(copper, slot):
    found = engine.label(odd("Graph"), ALONE, slot, witnesses=lambda: [copper[0]])
    assert found.refused == "the reference raises ValueError: isolated atom in <object object at 0x>", "no address"
    assert engine.label(odd("Graph"), copper[0], slot).refused is None


def test_it_is_not_refused_if_no_structure_is_labelled(copper, slot):
    for what, witnesses in ((odd("Hopeless"), [copper[1]]), (odd("Graph"), [ALONE]), (odd("Graph"), [])):
        with pytest.raises(EngineError, match="Error"):
            engine.label(what, ALONE, slot, witnesses=lambda found=witnesses: found)


def test_it_is_not_refused_if_a_new_worker_labels_it(copper, slot, tmp_path):
    """A worker that went wrong by itself: a GPU in a bad state, a library half unloaded."""
    what = odd("OnceOnly", arguments={"note": str(tmp_path / "note")})
    assert engine.label(what, copper[0], slot, witnesses=lambda: [copper[1]]).refused is None


def test_trouble_of_the_machine_is_never_a_refusal(copper, slot):
    for name in ("Broken", "Dies"):
        with pytest.raises(EngineError):
            engine.label(odd(name), ALONE, slot, witnesses=lambda: [copper[0]])


def test_what_a_calculator_raises_in_a_job_is_how_it_ended_if_it_labels_the_elements_otherwise(copper, slot):
    ended = "ValueError: isolated atom in <object object at 0x>"
    assert relax(ALONE, slot, odd("Graph"))[:2] == (None, ended)
    assert run_md(ALONE, slot, 1, odd("Graph"))[:2] == (None, ended)
    tired = odd("Graph", arguments={"tired_after": 5})
    assert relax(copper[1], slot, tired, cell=True)[:2] == (None, "RuntimeError: after 5 structures")
    frames, end, *_ = run_md(copper, slot, 1, tired)
    assert end == "RuntimeError: after 5 structures (after step 3)"
    assert frames.origin["step"].tolist() == [0, 3], "the frames before it are kept"


def test_a_potential_without_stress_is_told_without_a_setting_that_it_lacks(copper, slot):
    ase = {"calculator": "odd_calculators:NoStress", "functional": "none", "includes_dispersion": False}
    what = Potential.model_validate({"name": "odd", "ase": ase}).statics()
    with pytest.raises(
        ConfigError, match=r"^potential: odd_calculators:NoStress: .* - choose a potential that has them$"
    ):
        relax(copper[0], slot, what, cell=True)


def test_it_is_an_engine_error_if_it_labels_nothing_or_a_new_worker_does_it(copper, slot, tmp_path):
    for calculator in ("Hopeless", "Broken", "Dies"):
        with pytest.raises(EngineError):
            relax(copper[0], slot, odd(calculator))
    once = odd("OnceOnly", arguments={"note": str(tmp_path / "note")})
    assert relax(copper[0], slot, once)[1] == "relaxed"


def test_a_label_that_takes_too_long_is_an_engine_error(copper, tmp_path, slot):
    hasty = Slot(Machine(label_timeout_s=0.5), tmp_path / "logs", index=1)
    engine.label(EMT_REFERENCE, copper[0], slot)
    with pytest.raises(EngineError, match=r"no answer within 0.5 s"):
        engine.label(odd("Slow"), copper[0], hasty)


# --- slots of a node --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Counted", "CountedWithAThread"])
def test_slots_share_what_was_loaded_unless_a_fork_would_lose_a_part_of_it(copper, slot, tmp_path, name):
    """Each computes in a process of its own, with the bits of one alone."""
    counted = alone(name, arguments={"note": str(tmp_path / "note")})
    slots = [Slot(Machine(name="test", slots=2), slot.logs, index) for index in range(2)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda at: engine.label(counted, copper[0], at), slots))
    for one in found:
        energy, forces, virial = in_process(copper[0])
        assert one.energy == energy
        assert np.array_equal(one.forces, forces)
        assert np.array_equal(one.virial, virial)
    told = [line.split() for line in (tmp_path / "note").read_text().splitlines()]
    made, at = ([pid for word, pid in told if word == which] for which in ("made", "at"))
    assert len(set(at)) == 2
    if name == "CountedWithAThread":
        assert set(at) < set(made), "each has loaded it, beside the one in which it was found out"
    else:
        assert len(made) == 1
        assert made[0] not in at


def test_with_a_driver_that_is_killed_its_session_ends_while_it_loads(slot, tmp_path):
    driver = f"""
        from pathlib import Path
        from activelearn.config import Machine, Reference
        from activelearn.engines import reference
        from activelearn.engines.process import Slot
        from activelearn.frames import Frames
        from ase.build import bulk
        what = {{"calculator": "odd_calculators:HungWhileLoading", "arguments": {{"note": {str(tmp_path / "note")!r}}}}}
        hung = Reference(functional="none", includes_dispersion=False, **what)
        slot = Slot(Machine(name="test", slots=2), Path({str(tmp_path)!r}))
        reference.label(hung, Frames.from_ase([bulk("Cu", cubic=True)]), slot)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(driver)])
    try:
        wait_until(lambda: (tmp_path / "note").is_file() and (tmp_path / "note").read_text().endswith("\n"), 60.0)
    finally:
        parent.kill()
        parent.wait()
    pid = int((tmp_path / "note").read_text().split()[1])
    wait_until(lambda: not process_started(pid), 5.0)


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


WORKER = process.worker_command("calculator_session.py", None)[1]
LABEL = {
    "job": "label",
    "calculator": "ase.calculators.emt:EMT",
    "arguments": {},
    "structure": {"symbols": ["Cu"], "positions": [[0, 0, 0]], "cell": (3.6 * np.eye(3)).tolist(), "pbc": [True] * 3},
}


def test_where_nothing_tells_what_a_calculator_has_begun_each_slot_loads_its_own(tmp_path):
    """Such as a kernel without CONFIG_PROC_CHILDREN, a sandbox, or macOS."""
    code = f"""
        import os, runpy, sys
        listed = os.listdir
        def listdir(path="."):
            if str(path).startswith("/proc"):
                raise FileNotFoundError(path)
            return listed(path)
        os.listdir = listdir
        sys.path.insert(0, {str(Path(WORKER).parent)!r})
        sys.argv = ["calculator_session.py", "shared"]
        runpy.run_path({WORKER!r}, run_name="__main__")
    """
    process.allow_engines()
    worker = process.Session([sys.executable, "-c", textwrap.dedent(code)], log=tmp_path / "log")
    try:
        answer = worker.request({**LABEL, "slot": 0, "fresh": False}, timeout_s=60.0)
    finally:
        worker.close()
    assert answer == {"alone": ["what cannot be told without /proc"]}


def test_a_label_whose_answer_nobody_has_read_is_kept(tmp_path):
    """The host of its worker closes the socket with the answer in it, which is no end of file for the worker."""
    driver = {"pid": os.getpid(), "started": process_started(os.getpid()), "namespace": namespace()}
    keep = {"note": f"{tmp_path}/begun/k.note", "path": f"{tmp_path}/begun/k.json", "token": "t", "limit_s": 60.0}
    line = json.dumps({**LABEL, "id": 1, "keep": {**keep, "driver": driver}})
    code = f"""
        import select, socket, sys, threading
        sys.path.insert(0, {str(Path(WORKER).parent)!r})
        import calculator_session
        ours, theirs = socket.socketpair()
        ours.sendall({line!r}.encode() + b"\\n")
        def leave():
            select.select([ours], [], [])
            ours.close()
        threading.Thread(target=leave).start()
        calculator_session.work(theirs.makefile("r"), theirs.makefile("w"))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "begun").iterdir()] == ["k.json"]


def test_a_worker_that_dies_leaves_its_neighbours_alone(copper, slot):
    slots = [Slot(Machine(name="test", slots=2), slot.logs, index) for index in range(2)]
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(engine.label, odd("Slow"), copper[0], slots[1])
        assert engine.label(EMT_REFERENCE, copper[0], slots[0]).refused is None
        with pytest.raises(EngineError, match="the worker died with return code -9"):
            engine.label(odd("Dies"), copper[0], slots[0])
        assert engine.label(odd("Single", arguments={"shape": ()}), copper[0], slots[0]).refused is None
        process.close_sessions("reference")
        with pytest.raises(EngineError, match="the worker died with return code -9"):
            slow.result()


# --- molecular dynamics -----------------------------------------------------------------------------------------------

MD = ReferenceMD(n_steps=7, every=3, timestep_fs=4.0, friction_per_ps=10.0)


def run_md(start, slot, random_seed, reference=EMT_REFERENCE, **more):
    return engine.molecular_dynamics(
        reference, start[:1].without_labels(), MD, temperature_K=400.0, random_seed=random_seed, slot=slot, **more
    )


def test_md_is_a_function_of_its_seed(copper, slot):
    first, ended, started, finished = run_md(copper, slot, 1)
    again, *_ = run_md(copper, slot, 1)
    other, *_ = run_md(copper, slot, 2)
    assert ended == "finished"
    assert started < finished
    for name in ("positions", "energy", "forces", "virial"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    assert not np.array_equal(first.positions[1], other.positions[1])
    assert np.array_equal(first.positions[0], copper.positions[0]), "step 0 is the start"


def test_md_labels_are_those_of_the_calculator(copper, slot):
    frames, *_ = run_md(copper, slot, 3)
    assert frames.origin["step"].tolist() == [0, 3, 6], "every third of seven steps"
    assert (frames.origin["temperature_K"] == 400.0).all()
    for k in range(len(frames)):
        energy, forces, virial = in_process(frames, k)
        assert frames.energy[k] == pytest.approx(energy, abs=1e-10)
        assert frames.forces[k] == pytest.approx(forces, abs=1e-10)
        assert frames.virial[k] == pytest.approx(virial, abs=1e-10)
    assert np.array_equal(frames.cell, np.repeat(copper.cell[:1], 3, axis=0)), "NVT"


def temperatures_of_free_atoms(elements, slot, friction_per_ps=50.0):
    """Return the mean temperatures (K), by element, of eight atoms without forces at 300 K, from their displacements.

    The momenta of n atoms of mass m, when the centre of mass of all (mass M) rests, have 3 (n - n m / M) degrees of
    freedom, 3N - 3 in all. In a step, a Brownian particle covers a little less than its speed would.
    """
    start = Frames.from_ase([Atoms(elements, 4.0 * np.indices((2, 2, 2)).reshape(3, 8).T, cell=[8, 8, 8], pbc=True)])
    md = ReferenceMD(n_steps=1500, every=1, timestep_fs=4.0, friction_per_ps=friction_per_ps)
    frames, *_ = engine.molecular_dynamics(odd("Free"), start, md, temperature_K=300.0, random_seed=5, slot=slot)
    masses = start.to_ase()[0].get_masses()
    drift = masses @ (frames.positions[-1] - frames.positions[0]) / masses.sum()
    assert np.abs(drift).max() < 1e-9, "the centre of mass rests"
    x = friction_per_ps * 0.004
    covered = 2.0 * (x - 1.0 + np.exp(-x)) / x**2
    mean_square = (np.diff(frames.positions, axis=0) ** 2).sum(axis=2).mean(axis=0) / (4.0 * units.fs) ** 2
    found = {}
    for element in sorted(set(start.symbols)):
        mine = np.array(start.symbols) == element
        degrees = 3.0 * (mine.sum() - masses[mine].sum() / masses.sum())
        found[element] = (masses * mean_square)[mine].sum() / degrees / units.kB / covered
    return found


def test_md_has_its_temperature_with_3n_minus_3_degrees_of_freedom(slot):
    """ASE's own way to keep the centre of mass at rest: lithium 483 K, copper 356 K."""
    assert temperatures_of_free_atoms("Li4Cu4", slot) == pytest.approx({"Li": 300.0, "Cu": 300.0}, rel=0.1)


def test_md_begins_at_its_temperature(slot):
    """Mean over a hundred starts, of the first femtosecond; ASE's way: 343 K."""
    start = Frames.from_ase([Atoms("Cu8", 4.0 * np.indices((2, 2, 2)).reshape(3, 8).T, cell=[8, 8, 8], pbc=True)])
    md = ReferenceMD(n_steps=1, every=1, timestep_fs=1.0, friction_per_ps=0.01)
    squares = []
    for seed in range(100):
        frames, *_ = engine.molecular_dynamics(odd("Free"), start, md, temperature_K=300.0, random_seed=seed, slot=slot)
        squares.append((np.diff(frames.positions, axis=0) ** 2).sum() / units.fs**2)
    mass = start.to_ase()[0].get_masses()[0]
    assert mass * np.mean(squares) / 21 / units.kB == pytest.approx(300.0, rel=0.09)


def test_a_lone_atom_stays_where_it_is(slot):
    start = Frames.from_ase([Atoms("Cu", cell=[4, 4, 4], pbc=True)])
    frames, ended, *_ = engine.molecular_dynamics(odd("Free"), start, MD, temperature_K=300.0, random_seed=1, slot=slot)
    assert ended == "finished"
    assert np.abs(frames.positions).max() < 1e-12


def test_md_that_fails_from_the_start_says_why(copper, slot):
    frames, ended, started, finished = run_md(copper, slot, 1, odd("Unconverged"))
    assert frames is None
    assert ended == "SCFError: no convergence in 60 steps"
    assert started <= finished


def test_md_that_fails_midway_gives_back_the_frames_before(copper, slot):
    frames, ended, *_ = run_md(copper, slot, 1, odd("NotFinite", arguments={"after": 5}))
    whole, *_ = run_md(copper, slot, 1)
    assert ended == "CalculationFailed: non-finite energy, forces or stress (after step 3)"
    assert frames.origin["step"].tolist() == [0, 3]
    assert np.array_equal(frames.positions, whole.positions[:2])
    assert np.array_equal(frames.forces, whole.forces[:2])


def test_md_that_breaks_is_an_engine_error(copper, slot):
    with pytest.raises(EngineError, match="licence server"):
        run_md(copper, slot, 1, odd("Broken"))


# --- relaxation -------------------------------------------------------------------------------------------------------


def relax(frame, slot, reference=EMT_REFERENCE, **more):
    settings = Relax(**{"fmax": 0.01, "max_steps": 200, "cell": False, **more})
    return engine.relax(reference, frame.without_labels(), settings, slot)


def test_positions_relax_in_their_cell(copper, slot):
    frame, ended, started, finished = relax(copper[0], slot)
    assert ended == "relaxed"
    assert started < finished
    assert np.linalg.norm(frame.forces[0], axis=1).max() < 0.01
    assert np.array_equal(frame.cell, copper.cell[:1])
    energy, forces, virial = in_process(frame)
    assert frame.energy[0] == pytest.approx(energy, abs=1e-10)
    assert frame.forces[0] == pytest.approx(forces, abs=1e-10)
    assert frame.virial[0] == pytest.approx(virial, abs=1e-10)
    assert frame.origin["step"][0] > 1


def test_cell_and_positions_relax_to_the_crystal(copper, slot):
    frame, ended, *_ = relax(copper[1], slot, cell=True)
    assert ended == "relaxed"
    assert np.abs(frame.virial).max() < 0.05
    assert frame.volume[0] / 4 == pytest.approx(3.59**3 / 4, rel=0.01), "EMT's copper"


#: The answer to `relax` of an engine of another package, as docs/plugins.md has it.
THEIRS = """
from activelearn.config import ReferenceEngine

def ask(reference, job, slot, *, structure, **request):
    n = len(structure["symbols"])
    labels = {"energy": -1.0, "forces": [[0.0, 0.0, 0.0]] * n, "virial": [0.0] * 9}
    found = {"positions": structure["positions"], "cell": structure["cell"], **labels}
    return {**found, "n_steps": 7, "is_relaxed": False, "started": 1.0, "finished": 2.0}

ENGINE = ReferenceEngine(ask=ask, identity=lambda reference, slot: {})
"""


def test_an_engine_of_another_package_relaxes_without_a_path(copper, slot, tmp_path, monkeypatch):
    (tmp_path / "their_engine.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(REFERENCES.built_in, "theirs", "their_engine:ENGINE")
    what = Reference(engine="theirs", functional="none", includes_dispersion=False)
    frame, ended, *_ = relax(copper[0], slot, what, frame_every_A=0.5)
    assert (len(frame), ended, frame.origin["step"].tolist()) == (1, "not relaxed in 7 steps", [7])


def test_relaxation_out_of_steps_or_out_of_physics_says_so(copper, slot):
    frame, ended, *_ = relax(copper[0], slot, max_steps=3)
    assert ended == "not relaxed in 3 steps"
    assert frame.energy[0] < in_process(copper[0])[0]
    frame, ended, *_ = relax(copper[0], slot, odd("Unconverged"))
    assert frame is None
    assert ended == "SCFError: no convergence in 60 steps"


# --- engines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, r"engine ase with nothing - expected \['calculator'\]"),
        ({"engine": "gpaw", "gpaw": {}}, r"engine gpaw with \['gpaw'\] - expected \['command', 'gpaw'\]"),
        ({"engine": "gpaw", "gpaw": {"xc": "RPBE"}, "command": "gpaw python"}, "gpaw.xc RPBE but functional PBE"),
        ({"calculator": "a:B", "command": "x"}, r"engine ase with \['calculator', 'command'\]"),
        ({"engine": "castep", "calculator": "a:B"}, "Input should be 'ase', 'gpaw'"),
        (
            {"engine": "vasp", "command": "vasp_std", "vasp": {"incar": {"IVDW": 12}}},
            "IVDW is set by the reference's d3",
        ),
        ({"engine": "vasp", "command": "vasp_std", "vasp": {"incar_for": {"O": {"IVDW": 0}}}}, "IVDW is set by"),
        (
            {"engine": "vasp", "command": "vasp_std", "vasp": {"incar": {"encut": 400}}},
            "expected capital letters",
        ),
        ({"engine": "vasp", "command": "vasp_std", "vasp": {"incar": {"NSW": 10}}}, "NSW in a single point"),
        ({"engine": "vasp", "command": "vasp_std", "vasp": {"incar": {"METAGGA": "R2SCAN"}}}, "functional PBE with"),
    ],
)
def test_an_engine_gets_what_it_wants_and_nothing_of_the_others(given, sentence):
    if "vasp" in given:
        given["vasp"] = {"version": "6.4.2", "potcar_dir": "potpaw", "potcars": {"Na": "Na_pv"}, **given["vasp"]}
    with pytest.raises(ValidationError, match=sentence):
        Reference.model_validate({"functional": "PBE", "includes_dispersion": False, **given})


# --- the fingerprint --------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_content_never_of_place(slot, tmp_path):
    places = [tmp_path / "here" / "w.pth", tmp_path / "there" / "other-name.pth"]
    for place in places:
        place.parent.mkdir()
        place.write_bytes(b"weights")
    made = [
        engine.fingerprint(odd("Settings", weights=str(place), arguments={"model": str(place), "mode": "a"}), slot)
        for place in places
    ]
    assert made[0] == made[1]
    assert str(tmp_path) not in json.dumps(made)
    places[0].write_bytes(b"other weights")
    other = engine.fingerprint(odd("Settings", weights=str(places[0])), slot)
    assert other["weights_sha256"] != made[0]["weights_sha256"]


def test_what_changes_a_label_changes_the_fingerprint(slot, tmp_path):
    (tmp_path / "w").write_bytes(b"1")
    plain = odd("Settings", arguments={"a": 1})
    variants = [
        plain,
        plain.model_copy(update={"arguments": {"a": 2}}),
        plain.model_copy(update={"arguments": {"b": 1}}),
        plain.model_copy(update={"calculator": "odd_calculators:Smeared", "arguments": {}}),
        plain.model_copy(update={"functional": "PBE"}),
        plain.model_copy(update={"includes_dispersion": True}),
        plain.model_copy(update={"precision": "float32"}),
        plain.model_copy(update={"weights": str(tmp_path / "w")}),
        plain.model_copy(update={"package": "numpy"}),
    ]
    found = [engine.fingerprint(reference, slot)["sha256"] for reference in variants]
    assert len(set(found)) == len(found)
    assert engine.fingerprint(plain, slot)["sha256"] == found[0]


def test_the_fingerprint_of_emt(slot):
    import ase

    found = engine.fingerprint(EMT_REFERENCE, slot)
    assert found["version"] == ase.__version__
    assert found["threads"] == 1
    assert found["weights_sha256"] is None
    assert len(found["sha256"]) == 64


def test_the_fingerprint_of_a_plain_reference_has_not_changed(slot, monkeypatch):
    """A ledger of before the engines gpaw and vasp is as good as ever: no key was added."""
    monkeypatch.setattr(ase_engine, "ask", lambda *_, **__: {"version": "1", "weights_sha256": None, "arguments": {}})
    assert (
        engine.fingerprint(EMT_REFERENCE, slot)["sha256"]
        == "cc31b6e5bbc0c2eec8952fb6b7cc55f09d2f3d59d0b211e7f8afd0b9161db320"
    )


def test_weights_that_are_not_there_are_told_with_the_path(slot, tmp_path):
    with pytest.raises(Unfit, match=r"FileNotFoundError.*check the path"):
        engine.fingerprint(odd("Settings", weights=str(tmp_path / "none")), slot)
    with pytest.raises(Unfit, match="package no_such_package is not installed"):
        engine.fingerprint(odd("Settings", weights="no_such_package:w.pth"), slot)


def test_an_upgrade_in_the_middle_of_an_iteration_is_refused(slot, monkeypatch):
    emt = Reference(calculator="ase.calculators.emt:EMT", package="ase", functional="none", includes_dispersion=False)
    sealed = engine.fingerprint(emt, slot)["sha256"]
    monkeypatch.setattr(engine, "_identical", set())
    engine.want_identity(emt, slot, sealed)
    monkeypatch.setattr(engine, "fingerprint", None)
    engine.want_identity(emt, slot, sealed)  # asked once
    other = {"sha256": "other", "version": "9.9", "weights_sha256": None}
    monkeypatch.setattr(engine, "fingerprint", lambda *_: other)
    monkeypatch.setattr(engine, "_identical", set())
    with pytest.raises(ConfigError, match=r"is now 9.9 .* which is not what this iteration is sealed with"):
        engine.want_identity(emt, slot, sealed)


def test_weights_that_are_replaced_while_no_worker_lives_are_found_by_the_next_one(slot, tmp_path):
    weights = tmp_path / "w.pth"
    weights.write_text("one")
    which = odd("Settings", weights=str(weights))
    sealed = engine.fingerprint(which, slot)["sha256"]
    engine.want_identity(which, slot, sealed)
    weights.write_text("other")
    engine.want_identity(which, slot, sealed)  # asked once: the worker that lives has loaded the first
    process.close_sessions("reference")  # as the exploration of the next iteration does
    with pytest.raises(ConfigError, match="is not what this iteration is sealed with"):
        engine.want_identity(which, slot, sealed)
    weights.write_text("one")
    engine.want_identity(which, slot, sealed)
    weights.write_text("other")
    (pid,) = process.lives("reference", slot)[1:]
    os.kill(pid, signal.SIGKILL)
    while process.lives("reference", slot)[1:]:
        time.sleep(0.02)
    with pytest.raises(ConfigError, match="is not what this iteration is sealed with"):
        engine.want_identity(which, slot, sealed)


# --- without a stress -------------------------------------------------------------------------------------------------


def test_a_calculator_without_stress_is_named_once_with_the_way_to_go_on(copper, slot):
    with pytest.raises(ConfigError, match=r"NoStress: .*stress.* - expected .* label.reference.stress: false"):
        engine.label(alone("NoStress"), copper[:1].without_labels(), slot)


def test_labels_of_a_reference_that_says_so_have_no_virial(copper, slot):
    declared = odd("NoStress", stress=False)
    label, whole = (engine.label(one, copper[:1].without_labels(), slot) for one in (declared, EMT_REFERENCE))
    assert np.isnan(label.virial).all()
    assert label.refused is None
    assert (label.energy, label.forces.tolist()) == (whole.energy, whole.forces.tolist())
    frames, ended, *_ = run_md(copper, slot, 1, declared)
    assert (ended, frames.virial) == ("finished", None)
    relaxed, *_ = engine.relax(declared, copper[:1], Relax(fmax=0.5, max_steps=2, cell=False), slot)
    assert relaxed.is_labelled
    assert relaxed.virial is None
    with pytest.raises(ConfigError, match=r"label\.reference\.stress is false"):
        engine.relax(declared, copper[:1], Relax(fmax=0.5, max_steps=2), slot)
    identities = [engine.fingerprint(one, slot) for one in (odd("NoStress"), declared)]
    assert identities[0]["sha256"] != identities[1]["sha256"], "their labels are not taken for each other"
