"""What an interpreter lacks for a backend is seen on its disk: made-up environments, and torch is in none of them."""

import sys
import time

import pytest
from environments import environment

from activelearn.check import smoke
from activelearn.check.study import check_study
from activelearn.config import Machine, Potential, Study
from activelearn.config.trainer import trainer_of
from activelearn.engines import interpreters, requirements
from activelearn.engines.backends import BACKENDS
from activelearn.engines.trainers.deepmd.settings import DeePMDTrain

PYTORCH, TENSORFLOW = BACKENDS["pytorch"], BACKENDS["tensorflow"]
WHERE = "train.backend: pytorch"
INSTALL = (
    "python3 -m venv torch-venv && torch-venv/bin/pip install 'deepmd-kit[torch,lmp]==3.2.0' nvidia-cuda-runtime-cu12 "
    "ase, and machine.python: torch-venv/bin/python"
)


def lacks(python, backend=PYTORCH, **settings):
    compiles = settings.pop("compiles", False)
    machine = Machine(python=str(python), **settings)
    return requirements.problems(backend, machine, where=WHERE, compiles=compiles)


def test_an_interpreter_with_what_deepmd_was_compiled_with_lacks_nothing(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # other tests of this process may have imported it
    python = environment(tmp_path, torch="2.11.0")
    assert lacks(python) == []
    assert requirements.notes(PYTORCH, Machine(python=str(python))) == [
        f"{python} trains and runs the models: deepmd-kit 3.2.0, torch 2.11.0; others keep this interpreter"
    ]
    assert "torch" not in sys.modules


@pytest.mark.parametrize("version", ["2.11.0+cu130", "2.11.1"])
def test_another_build_of_the_same_release_is_the_same(tmp_path, version):
    assert lacks(environment(tmp_path, torch=version)) == []


def test_torch_that_is_not_there_is_told_with_what_installs_it(tmp_path):
    python = environment(tmp_path)
    assert lacks(python) == [f"{WHERE}: {python} has no torch - expected a separate interpreter for it - {INSTALL}"]


def test_torch_of_another_release_is_told_with_both(tmp_path):
    python = environment(tmp_path, torch="2.13.0+cpu")
    (line,) = lacks(python)
    assert line == (
        f"{WHERE}: {python} has torch 2.13.0+cpu, and its deepmd-kit 3.2.0 was compiled with 2.11.0 - expected a "
        f"separate interpreter for it - {INSTALL}"
    )


def test_a_deepmd_that_was_built_without_pytorch_is_told(tmp_path):
    python = environment(tmp_path, torch="2.11.0", compiled="[CONFIG]\nPT_VERSION = \n")
    (line,) = lacks(python)
    assert f"{WHERE}: the deepmd-kit of {python} was built without torch - " in line


@pytest.mark.parametrize("compiled", [None, "no settings", "[CONFIG]\n", "[OTHER]\nPT_VERSION = 2.11.0\n"])
def test_what_cannot_be_told_is_nothing_wrong(tmp_path, compiled):
    assert lacks(environment(tmp_path, torch="2.13.0", compiled=compiled)) == []


def test_no_interpreter_lacks_nothing_for_that_is_told_elsewhere():
    assert lacks("/no/such/python") == []


def test_the_runtime_of_cuda_counts_where_lammps_is_a_program_of_its_own(tmp_path, monkeypatch):
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    python = environment(tmp_path, torch="2.11.0", cudart="libcudart.so.13")
    program = str(tmp_path / "bin" / "lmp")
    assert lacks(python) == [], "in a session torch brings its own"
    note = requirements.notes(PYTORCH, Machine(python=str(python)))[1]
    assert note.startswith(f"{python} has no libcudart.so.12: the models run here, and not by `lmp` from a shell - ")
    (line,) = lacks(python, lammps=f"mpirun -n 2 {program}")
    assert line.startswith(f"machine.lammps: mpirun -n 2 {program} fails to start with models of PyTorch, since ")
    assert "pip install nvidia-cuda-runtime-cu12, into it" in line
    assert lacks(python, lammps="lmp_of_the_site") == [], "what is linked to another runtime is not ours to judge"
    (tmp_path / "libcudart.so.12").touch()
    assert lacks(python, lammps=program, environment={"LD_LIBRARY_PATH": str(tmp_path)}) == []


def test_models_that_are_compiled_want_a_compiler_on_this_machine(tmp_path, monkeypatch):
    python = environment(tmp_path, torch="2.11.0")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.delenv("CXX", raising=False)
    assert lacks(python) == []
    (line,) = lacks(python, compiles=True)
    assert "compiled when they are frozen (.pt2), and there is no g++ on the PATH - expected a C++ compiler - " in line
    assert lacks(python, compiles=True, places={"gpu": {}}) == [], "its nodes have a PATH of their own"
    monkeypatch.setenv("CXX", sys.executable)
    assert lacks(python, compiles=True) == []


def test_the_interpreter_of_the_place_that_trains_counts(tmp_path):
    good = environment(tmp_path / "good", torch="2.11.0")
    bad = environment(tmp_path / "bad")
    places = {"gpu": {"python": str(good)}, "cpu": {}}
    machine = Machine(python=str(bad), places=places, stations=dict.fromkeys(("train", "explore"), "gpu"))
    assert requirements.problems(PYTORCH, machine, where=WHERE) == []
    machine = machine.model_copy(update={"stations": {"train": "gpu", "explore": "cpu"}})
    (line,) = requirements.problems(PYTORCH, machine, where=WHERE)
    assert f"{bad} has no torch" in line


def test_tensorflow_is_looked_for_as_well(tmp_path):
    python = environment(tmp_path, torch="2.11.0")
    (line,) = lacks(python, TENSORFLOW)
    assert line.endswith(
        "has no tensorflow - expected pip install 'deepmd-kit[cpu,lmp]==3.2.0' - " + TENSORFLOW.install
    )
    assert requirements.notes(TENSORFLOW, Machine(python=str(python)))[0].endswith(TENSORFLOW.install)
    assert requirements.notes(TENSORFLOW, Machine()) == []
    (tmp_path / "lib" / "python3.11" / "site-packages" / "deepmd" / "lib" / "run_config.ini").unlink()
    for folder in ("deepmd/lib", "deepmd"):
        (tmp_path / "lib" / "python3.11" / "site-packages" / folder).rmdir()
    assert lacks(python, TENSORFLOW) == [], "without deepmd-kit, which is told once"


def test_with_engines_elsewhere_a_named_interpreter_is_looked_at_all_the_same(tmp_path):
    bad = environment(tmp_path, torch="2.13.0")
    (note,) = requirements.notes(PYTORCH, Machine(python=str(bad)))
    assert note == lacks(bad)[0]
    assert requirements.notes(PYTORCH, Machine(python="/on/another/disk/python")) == []


def test_the_trainer_says_it_at_check_in_a_moment(tmp_path, monkeypatch):
    python = environment(tmp_path, torch="2.13.0")
    machine = Machine(python=str(python))
    begin = time.process_time()
    (line,) = trainer_of(DeePMDTrain()).problems(DeePMDTrain(backend="pytorch"), machine)
    assert time.process_time() - begin < 1.0
    assert line.startswith("train.backend: pytorch: ")
    python = environment(tmp_path / "whole", torch="2.11.0")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    dpa4 = {"type": "dpa4", "descriptor": {"type": "dpa4", "rcut": 4.5}, "fitting_net": {"type": "dpa4_ener"}}
    for train in (
        DeePMDTrain.model_construct(backend="pytorch", model=dpa4),
        DeePMDTrain(backend="pytorch-exportable"),
    ):
        assert "no g++" in trainer_of(train).problems(train, Machine(python=str(python)))[0]


def test_models_of_pytorch_want_it_in_a_study_too(tmp_path):
    python = environment(tmp_path, tensorflow="2.21.0")
    (tmp_path / "a.pth").touch()
    physics = {"functional": "none", "includes_dispersion": False}
    potential = Potential.model_validate({"name": "dp", "deepmd": {"models": [str(tmp_path / "a.pth")]}, **physics})
    study = Study.model_validate(
        {"name": "toy", "potentials": [potential], "benchmark": {"crystals": {"seeds": ["Cu_Fm-3m"]}}}
    )
    problems = check_study(study, Machine(python=str(python))).problems
    assert [line for line in problems if line.startswith(f"potential dp: models .pth: {python} has no torch - ")]


# --- the smoke test ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("versions", "wanted"),
    [
        ({"tensorflow-cpu": "2.21.0", "torch": "2.13.0"}, ("tensorflow",)),
        ({"tensorflow-cpu": "2.21.0", "torch": "2.11.0"}, ("tensorflow", "pytorch", "pytorch-exportable")),
        ({"torch": "2.11.0+cu130"}, ("pytorch", "pytorch-exportable")),
        ({"torch": "2.13.0"}, ()),
        ({}, ()),
    ],
)
def test_a_place_says_what_its_interpreter_trains_by(tmp_path, versions, wanted):
    python = environment(tmp_path)
    seen = smoke.Probe("gpu", python=str(python), versions={"deepmd-kit": "3.2.0", **versions}, n_slots=1, n_cores=2)
    seen = smoke.dataclasses.replace(seen, trains_by=requirements.trains_by(str(python), versions))
    assert seen.trains_by == wanted
    said = [*smoke._contradictions(seen, Machine(slots=1), needs_deepmd=True)]
    assert [line for line in said if line.startswith("deepmd-kit has no backend here (no TensorFlow and ")] == said
    assert bool(said) == (not wanted)
    assert not said or ("torch 2.13.0, not the one" in said[0]) == ("torch" in versions)
    assert smoke.Probe.from_dict(seen.to_dict()) == seen


def test_gpus_are_used_by_pytorch_beside_a_tensorflow_for_cpus():
    seen = smoke.Probe("gpu", python="x", versions={"deepmd-kit": "3.2.0", "tensorflow-cpu": "2.21.0"}, gpus=("GPU 0",))
    seen = smoke.dataclasses.replace(seen, n_slots=1, n_cores=2, trains_by=("tensorflow",))
    assert "uses tensorflow-cpu" in next(smoke._contradictions(seen, Machine(gpus=[0]), needs_deepmd=True))
    seen = smoke.dataclasses.replace(seen, trains_by=("tensorflow", "pytorch"))
    assert [*smoke._contradictions(seen, Machine(gpus=[0]), needs_deepmd=True)] == []


# --- interpreters -----------------------------------------------------------------------------------------------------


def test_versions_of_this_interpreter_and_of_another_are_read_from_disk(tmp_path):
    python = environment(tmp_path, torch="2.11.0")
    assert interpreters.version_of("torch", str(python)) == "2.11.0"
    assert interpreters.version_of("no-such-thing", str(python)) is None
    assert interpreters.version_of("torch", "/no/such/python") is None
    assert interpreters.version_of("numpy", None) is not None


def test_an_interpreter_with_torch_and_without_deepmd_is_told(tmp_path):
    python = environment(tmp_path, torch="2.11.0")
    (tmp_path / "lib" / "python3.11" / "site-packages" / "deepmd").rename(tmp_path / "elsewhere")
    (line,) = lacks(python)
    assert line == f"{WHERE}: {python} has no deepmd - expected a separate interpreter for it - {INSTALL}"


def test_of_the_default_backend_the_places_that_train_and_explore_are_looked_at(tmp_path):
    """A profile whose own interpreter has nothing is well where the places have all, and the other way round."""
    whole, bare = environment(tmp_path / "whole", tensorflow="2.21.0"), environment(tmp_path / "bare")
    (tmp_path / "bare" / "lib" / "python3.11" / "site-packages" / "deepmd").rename(tmp_path / "elsewhere")
    stations = {"train": "gpu", "explore": "gpu"}
    for own, theirs, n in ((bare, whole, 0), (whole, bare, 1)):
        machine = Machine(python=str(own), places={"gpu": {"python": str(theirs)}, "cpu": {}}, stations=stations)
        found = trainer_of(DeePMDTrain()).problems(DeePMDTrain(), machine)
        assert len(found) == n, found


def test_an_empty_name_of_a_compiler_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "")
    lacks(environment(tmp_path, torch="2.11.0"), compiles=True)
