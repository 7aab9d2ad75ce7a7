"""The trial of a reference: one line for each of its faults before a job is paid, and none for what is right."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from campaigns import end_sessions

from activelearn.config import Machine, Reference
from activelearn.engines import process
from activelearn.engines.process import Slot
from activelearn.engines.trial import Sample, tried
from activelearn.errors import TaskFailed
from activelearn.frames import Frames

COPPER = Sample(Frames.from_ase([bulk("Cu", cubic=True)]))
SODIUM = Sample(Frames.from_ase([bulk("Na", cubic=True)]))
ALONE = Sample(Frames(("Cu",), 12.0 * np.eye(3)[None], [[[6.0, 6.0, 6.0]]]), is_optional=True)


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    process.allow_engines()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        yield Slot(Machine(name="test"), tmp_path_factory.mktemp("logs"))
        end_sessions()


def reference(calculator, **more):
    return Reference(**{"calculator": calculator, "functional": "PBE", "includes_dispersion": False, **more})


def odd(name, **arguments):
    """One of the odd calculators; the worker is the same for all of them, for each takes seconds to begin."""
    return reference("odd_calculators:one_of", arguments={"which": name, **arguments})


def trial(what, slot, *samples, compares=True):
    return tried(what, samples or (COPPER,), compares, slot, "label.reference")


@pytest.mark.parametrize(
    "what",
    [
        reference("ase.calculators.emt:EMT"),
        reference("ase.calculators.morse:MorsePotential", arguments={"r0": 2.6}),
        odd("Single"),
        odd("Single", shape=(1, 1)),
        odd("Single", shape=()),
        odd("Chatty"),
        odd("Reads"),
        odd("Smeared"),
        odd("Mistaken", stress=1.1, forces=0.9),
    ],
    ids=lambda what: f"{what.calculator} {what.arguments}",
)
def test_a_calculator_that_is_right_is_right(what, slot):
    found = trial(what, slot)
    assert (found.problems, found.notes) == ([], [])


@pytest.mark.skipif(importlib.util.find_spec("dftd3") is None, reason="pip install 'activelearn[local]' (dftd3)")
def test_so_is_the_sum_with_dispersion(slot):
    assert trial(reference("ase.calculators.emt:EMT", d3={"method": "PBE"}), slot).problems == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"stress": 160.2}, r"its stress is 160 times the derivative of its energy \(as if in GPa\)"),
        ({"stress": -1602.2}, r"stress is -1600 times .* \(as if in kbar, of opposite sign\)"),
        ({"stress": -1.0}, r"stress is -1 times .* \(of opposite sign\)"),
        ({"stress": 1.0 / 183.6}, r"stress is 0.0054 times .* \(as if in Hartree/Bohr3\)"),
        ({"stress": 0.0}, r"stress is 0 times the derivative of its energy - expected"),
        ({"kind": "trace"}, r"stress is .* to .* times the derivative of its energy - expected"),
        ({"kind": "virial"}, r"stress is .* \(as if in virials, eV\)"),
        ({"forces": 1.0 / 51.42}, r"forces are 0.019 times .* \(as if in Hartree/Bohr\)"),
        ({"kind": "stale", "forces": 0.0}, r"its stress is not zero where its energy does not change - expected"),
        ({"stress": 0.148}, r"stress is 0.15 times .* \(as if in eV/Bohr3, or energy and stress in atomic units\)"),
        ({"forces": 0.0}, r"forces are 0 times the derivative of its energy - expected"),
        ({"forces": 10.0}, r"forces are 10 times .* \(as if in eV/nm\)"),
        ({"forces": -1.0}, r"forces are -1 times .* \(of opposite sign\)"),
    ],
    ids=str,
)
def test_forces_and_stress_that_are_no_derivatives_of_the_energy(arguments, sentence, slot):
    (line,) = trial(odd("Mistaken", **arguments), slot).problems
    assert line.startswith("label.reference: odd_calculators:one_of: its ")
    assert re.search(sentence, line)
    assert " - expected eV/Å for forces and eV/Å3 for the stress, positive if it pulls (ASE) - " in line


def test_a_stress_that_is_somewhat_off_is_worth_a_note(slot):
    found = trial(odd("Mistaken", stress=1.3), slot)
    assert found.problems == []
    assert found.notes == [
        "note: label.reference: odd_calculators:one_of: its stress is 1.3 times the derivative of its energy"
    ]


def test_an_energy_that_is_not_smooth_is_not_compared(slot):
    found = trial(odd("Mistaken", kind="rough"), slot)
    assert found.problems == []
    assert found.notes[0].endswith("were not compared with the energy: its energy is not smooth")


def test_what_costs_a_run_of_a_code_is_labelled_once_and_not_compared(slot):
    assert trial(odd("Mistaken", stress=160.2), slot, COPPER, SODIUM, compares=False).problems == []


def test_a_lattice_that_does_not_converge_is_worth_a_note(slot):
    found = trial(odd("Unconverged"), slot, Sample(COPPER.frame, is_made_up=True))
    assert found.problems == []
    assert "SCFError" in found.notes[0]


def test_without_a_stress_only_forces_are_compared(slot):
    found = trial(odd("NoStress").model_copy(update={"stress": False}), slot)
    assert (found.problems, found.notes) == ([], [])


@pytest.mark.parametrize(
    ("what", "sentences"),
    [
        (reference("no_such_package:X"), ["No module named 'no_such_package'", "pip install no_such_package"]),
        (reference("ase.calculators.emtt:EMT"), ["No module named 'ase.calculators.emtt'", "check its name"]),
        (reference("odd_calculators:Absent"), ["has no attribute 'Absent'", "check calculator: module:Class"]),
        (reference("odd_calculators:factory"), ["odd_calculators:factory makes a str, which is not an ASE calculator"]),
        (reference("os:getcwd"), ["os:getcwd makes a str, which is not an ASE calculator"]),
        (odd("Mistaken", no_such="argument"), ["TypeError", "check calculator and arguments"]),
        (odd("NoStress"), ["stress property not implemented", "label.reference.stress: false"]),
        (odd("Raises", kind="RuntimeError", text="Found no NVIDIA driver on your system"), ["select the CPU"]),
        (odd("Raises", kind="FileNotFoundError", text="w.pth"), ["FileNotFoundError: w.pth", "check the path"]),
        (odd("Mistaken", kind="few forces"), ["forces of shape (3, 3), not (4, 3)"]),
        (odd("Mistaken", kind="two energies"), ["an energy of shape (2,), not one number"]),
        (odd("Mistaken", kind="stress of atoms"), ["a stress of shape (4, 6), not an array of (6,) or (3, 3)"]),
        (odd("Raises"), ["RuntimeError - expected"]),
        (odd("NotFinite"), ["labels none of the structures", "non-finite energy, forces"]),
        (odd("Unconverged"), ["labels none of the structures", "SCFError: no convergence"]),
        (odd("Hopeless"), ["KeyError: 'Cu' on Cu4 (4 atoms)"]),
        (odd("Ends"), ["SystemExit: bad input"]),
    ],
    ids=lambda what: what.arguments.get("which", what.calculator) if isinstance(what, Reference) else "",
)
def test_what_is_wrong_is_said_in_one_line(what, sentences, slot):
    (line,) = trial(what, slot).problems
    assert line.startswith(f"label.reference: {what.calculator}: ")
    assert " - expected " in line
    assert "\n" not in line
    for sentence in sentences:
        assert sentence in line


def test_a_gpu_that_is_not_here_is_told_with_the_setting(slot):
    (line,) = trial(reference("odd_calculators:Gpu", arguments={"device": "cuda:0"}), slot).problems
    assert "Torch not compiled with CUDA enabled - expected the GPU that it requests - " in line
    assert "change arguments.device: cuda:0, for example to cpu" in line
    log = Path(line.partition("traceback: ")[2])
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Dies", "the worker died with return code -9 - expected a label of Cu4 (4 atoms) - see its log: "),
        ("Slow", "no answer within 2 s - expected a label of Cu4 (4 atoms) - see its log: "),
        ("Broken", "licence server not found - expected a label of Cu4 (4 atoms) - see its log: "),
    ],
)
def test_what_infrastructure_kept_from_the_trial_is_no_bad_input(slot, tmp_path, name, sentence):
    found = trial(odd(name), Slot(Machine(label_timeout_s=2.0), tmp_path, index=1) if name == "Slow" else slot)
    with pytest.raises(TaskFailed) as refused:
        found.want_none()
    line = str(refused.value)
    assert sentence in line
    assert ("raise label_timeout_s" in line) == (name == "Slow")
    assert line.endswith("fix the cause, and run the same command again")
    assert refused.value.exit_code == 1


def test_an_element_that_it_lacks_is_told_with_the_structure(slot):
    (line,) = trial(reference("ase.calculators.emt:EMT"), slot, COPPER, SODIUM).problems
    assert "NotImplementedError: No EMT-potential for Na on Na2 (2 atoms)" in line


def test_a_structure_that_need_not_be_labelled_is_worth_a_note(slot):
    found = trial(odd("Graph"), slot, COPPER, ALONE)
    assert found.problems == []
    (line,) = found.notes
    assert line.startswith("note: label.reference: odd_calculators:one_of: not labelled: Cu1 (1 atoms): ValueError")


def test_nothing_but_such_structures_is_a_fault(slot):
    (line,) = trial(odd("Graph"), slot, ALONE).problems
    assert "labels none of the structures" in line


def test_a_cell_too_small_for_a_calculator_is_tried_as_a_supercell(slot):
    small, large = (Frames.from_ase([bulk("Cu", cubic=True) * n]) for n in (1, 2))
    found = trial(odd("MinimumImage"), slot, Sample(small, large), compares=False)
    assert (found.problems, found.notes) == ([], [])


def test_an_interpreter_that_is_not_there(slot):
    (line,) = trial(reference("ase.calculators.emt:EMT", python="/no/such/python"), slot).problems
    assert "/no/such/python: no such program" in line
    assert trial(reference("ase.calculators.emt:EMT", python=sys.executable), slot).problems == []
