"""docs/faults.md says what is printed: every fault of its table is made, and ends in the message that stands there.

A row is the source: its id finds what makes the fault in FAULTS, ``<...>`` in its message is any text.
"""

import contextlib
import os
import re
import resource
import shutil
import subprocess
import tarfile

import numpy as np
import pytest
import typer.main
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from campaigns import TESTS, TINY, command, environment, in_process, machine_file, tiny
from conftest import rattled_copper
from environments import environment as made_environment
from test_glass import direct
from test_study import SOFT, TINY_GLASS

from activelearn.cli import app
from activelearn.config import load_campaign
from activelearn.store import Lease, Store
from activelearn.store.files import publish_json

PAGE = (TESTS.parent / "docs" / "faults.md").read_text(encoding="utf-8")
#: id, fault, message, next, exit code
ROW = re.compile(r"^\| `([a-z0-9-]+)` \| (.+?) \| `(.+)` \| `(.+)` \| (\d+) \|$", re.MULTILINE)
#: What is undone when a test has ended.
UNDONE = contextlib.ExitStack()
#: Of a MongoDB that is not there.
SILENT = "host: 127.0.0.1\nport: 1\nname: x\nmongoclient_kwargs: {serverSelectionTimeoutMS: 200}\n"
DECLARED = "functional=PBE,includes_dispersion=false,code=VASP-6.4.2"
EMT = {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False}


def campaign(verb="check", **changes):
    """Return what types `check` (or another verb) of the tiny campaign with changes by dotted key."""

    def made(here):
        tiny(here / "my.yaml", **changes)
        return (verb, "my.yaml", "--machine", machine_file(here / "machine.yaml"))

    return made


def by_espresso(**settings):
    """Return a reference of Quantum ESPRESSO, whose program and files are not there."""
    own = {"version": "7.2", "pseudo_dir": "pseudo", "pseudopotentials": {"Cu": "Cu.UPF"}, "ecut_eV": 500.0, **settings}
    what = {"engine": "espresso", "command": "true", "functional": "PBE", "includes_dispersion": False}
    return {**what, "espresso": own}


def written(text, *typed, name="my.yaml"):
    """Return what types `check` (or other words) beside a file that says this."""

    def made(here):
        (here / name).write_text(text)
        return typed or ("check", name)

    return made


def edited(old, new):
    """Return what types `check` of the tiny campaign with a text in place of another."""
    return written(TINY.read_text().replace(old, new))


def machine(**settings):
    """Return what types `check` with such a machine."""
    return lambda here: ("check", TINY, "--machine", machine_file(here / "machine.yaml", **settings))


def structure(content, name="my.cif", **system):
    """Return what types `check` of a campaign that begins at a file with this content."""

    def made(here):
        (here / name).write_text(content)
        return campaign(initial__systems=[{"seed": name, **system}])(here)

    return made


def potential(**keys):
    """Return what types a look at glasses of such a potential."""

    def made(here):
        (here / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", **keys}))
        return ("glass", "mine.yaml", "--series", "na3ps4o", "--x", "0", "--check")

    return made


def modelled(*files):
    """Return what types a look at glasses of models in such files."""

    def made(here):
        for name in files:
            (here / name).write_text(name)
        return potential(deepmd={"models": [*files]}, functional="PBE", includes_dispersion=False)(here)

    return made


def style(*words, **more):
    """Return what types a look at glasses of a pair style of LAMMPS: the line, then what each element pair has."""
    lines = {"pair_style": words[0], "pair_coeff": [*words[1:]] or ["* *"], "elements": ["Na", "P", "S"]}
    return potential(lammps=lines, functional="none", includes_dispersion=False, **more)


def lines(text):
    """Return what types `check` of a campaign whose stage has lines for LAMMPS."""
    return campaign(explore__stages=[{**WARM, "lammps": text}])


def tried(calculator, **arguments):
    """Return what tries a calculator of tests/engines/odd_calculators.py."""

    def made(here):
        patch = UNDONE.enter_context(pytest.MonkeyPatch.context())
        patch.syspath_prepend(TESTS / "engines")
        patch.setenv("PYTHONPATH", str(TESTS / "engines"))
        reference = {**EMT, "calculator": f"odd_calculators:{calculator}", "arguments": arguments}
        return (*campaign(label__reference=reference)(here), "--try")

    return made


def on_torch(compiled=False, cudart="libcudart.so.12", lammps=False, **versions):
    """Return what types `check` of a campaign on PyTorch, in an environment that has such distributions by name."""

    def made(here):
        patch = UNDONE.enter_context(pytest.MonkeyPatch.context())
        patch.delenv("LD_LIBRARY_PATH", raising=False)
        python = made_environment(here / "venv", cudart=cudart, **versions)
        block = {"type": "dpa4", "descriptor": {"type": "dpa4"}, "fitting_net": {"type": "dpa4_ener"}}
        no_short_form = dict.fromkeys(("train__descriptor", "train__fitting", "train__precision"))
        if compiled:
            patch.setenv("PATH", str(here))
            patch.delenv("CXX", raising=False)
        tiny(
            here / "my.yaml", train__backend="pytorch", **({"train__model": block, **no_short_form} if compiled else {})
        )
        settings = {"python": str(python), **({"lammps": str(python.parent / "lmp")} if lammps else {})}
        return ("check", "my.yaml", "--machine", machine_file(here / "machine.yaml", **settings))

    return made


def from_elsewhere(here):
    """A campaign of others, in a folder that is not below the working folder."""
    tiny(here / "theirs.yaml", label__reference={**EMT, "calculator": "their_package:Calc"})
    (here / "mine").mkdir()
    os.chdir(here / "mine")
    return ("run", "../theirs.yaml")


def words(*typed):
    """Return what types these words."""
    return lambda _: typed


def in_allocation(*programs):
    """Return what types `check` with a machine that needs srun, with only these programs on the PATH."""

    def made(here):
        for name in programs:
            (here / name).write_text("#!/bin/sh\n")
            (here / name).chmod(0o755)
        patch = UNDONE.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("PATH", str(here))
        patch.delenv("SLURM_JOB_ID", raising=False)
        return ("check", TINY, "--machine", "slurm_allocation")

    return made


def finished(here, damage=None, *typed):
    """Unpack a finished campaign, damage it, and look at it."""
    folder = here / "runs" / "copper"
    with tarfile.open(TESTS / "data" / "folders" / "3afdc58-campaign.tar.gz") as archive:
        archive.extractall(here, filter="data")
    folder.parent.mkdir()
    shutil.move(here / "campaign", folder)
    if damage is not None:
        damage(folder)
    return typed or ("status", "--verify", "runs/copper")


def damaged(damage, *typed):
    """Return what looks at a finished campaign that is damaged."""

    return lambda here: finished(here, damage, *typed)


def labelled(here, name="data.extxyz"):
    write(here / name, rattled_copper(2).to_ase())


def importing(change, *more, name="data.extxyz", declare=DECLARED):
    """Return what imports two labels of copper that are changed."""

    def made(here):
        labelled(here)
        change(here)
        return ("labels", "import", "ledger", name, *(["--declare", declare] if declare else []), *more)

    return made


def held(here):
    """A folder that another driver holds: this process."""
    finished(here)
    UNDONE.enter_context(Lease(here / "runs" / "copper"))
    return ("run", "runs/copper/campaign/000.yaml", "--folder", "runs/copper", "--accept-unusual")


def other_crystal(here):
    """A campaign whose crystal file was replaced after it began."""
    write(here / "my.vasp", bulk("Cu", cubic=True))
    file = tiny(here / "my.yaml", initial__systems=[{"seed": "my.vasp", "supercell": [2, 2, 2]}])
    store = Store.create(here / "runs" / "copper", load_campaign(file))
    publish_json(store.iteration_folder(0) / "sel.json", [100])
    store.open_iteration(0, load_campaign(file))
    write(here / "my.vasp", bulk("Cu", a=3.7, cubic=True))
    return ("run", "my.yaml", "--folder", "runs/copper", "--accept-unusual")


def full_disk(here):
    """An export where no file may have a byte."""
    typed = finished(here, None, "export", "runs/copper", "--to", "models")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    UNDONE.callback(resource.setrlimit, resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    return typed


def full_output(here):
    """A listing whose output is on a full disk: CompletedProcess."""
    typed = command("seeds")
    with open("/dev/full", "w") as full:
        done = subprocess.run(typed, cwd=here, env=environment(), stdout=full, stderr=-1, text=True)
    return subprocess.CompletedProcess(typed, done.returncode, "", done.stderr)


def nowhere(here):
    """A working directory that is gone."""
    (here / "gone").mkdir()
    os.chdir(here / "gone")
    (here / "gone").rmdir()
    return ("status", "runs/copper")


def dying(here):
    """A glass of atoms that repel each other in steps that are far too long."""
    wild = {**SOFT, "name": "wild", "timestep_fs": 10.0, "lammps": {**SOFT["lammps"], "pair_coeff": ["* * 5.0 3.5"]}}
    for name, data in (("wild", wild), ("tiny", TINY_GLASS)):
        (here / f"{name}.yaml").write_text(yaml.safe_dump(data))
    machine_file(here / "machine.yaml", lammps=direct().lammps)
    return ("glass", "wild.yaml", "--glass", "tiny.yaml", "--machine", "machine.yaml", "--accept-unusual")


def declared(here):
    """Labels of another code in the ledger that a campaign begins with."""
    assert in_process(*importing(lambda _: None)(here)).returncode == 0
    return campaign(label={"ledger": "ledger", "reference": EMT}, initial__from_ledger=True)(here)


def begun(here):
    """A campaign that has just begun, whose models are requested."""
    Store.create(here / "begun", load_campaign(TINY))
    return ("export", "begun", "--to", "models")


def stopped(here):
    """A run that is asked to stop while it works: CompletedProcess."""
    typed = command("run", TINY, "--machine", machine_file(here / "machine.yaml"))
    run = subprocess.Popen(typed, cwd=here, env=environment(), stdout=-1, stderr=-2, text=True)
    said = next(line for line in run.stdout if line.startswith("iteration 0"))
    run.terminate()
    said += run.communicate(timeout=120)[0]
    return subprocess.CompletedProcess(typed, run.returncode, said, "")


def initialised(here):
    """A second `machine --init` in the same place."""
    typed = ("machine", "--init", "slurm", "--to", "cluster")
    assert in_process(*typed).returncode == 0
    return typed


def replaced(name, old, new):
    """Return what puts one text in place of another in a file of a folder."""

    def change(folder):
        path = folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def flipped(pattern):
    """Return what changes one byte of a file of a folder."""

    def change(folder):
        path = sorted(folder.glob(pattern))[0]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return change


def removed(pattern):
    return lambda folder: sorted(folder.glob(pattern))[0].unlink()


def study(**keys):
    def made(here):
        data = {"name": "mine", "potentials": ["emt"], "benchmark": {"preset": "structure"}, **keys}
        (here / "study.yaml").write_text(yaml.safe_dump(data))
        return ("benchmark", "--study", "study.yaml", "--check")

    return made


def crystal(change, **system):
    """Return what checks a campaign that begins at a crystal that is changed."""

    def made(here):
        atoms = bulk("Cu", cubic=True) * (2, 2, 2)
        change(atoms)
        write(here / "my.extxyz", atoms)
        return campaign(initial__systems=[{"seed": "my.extxyz", **system}])(here)

    return made


def with_nan_in_parity(here):
    """A study whose labelled frames have a force that is not a number."""
    atoms = bulk("Cu", cubic=True)
    forces = np.zeros((len(atoms), 3))
    forces[1, 2] = np.nan
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=forces)
    atoms.write(here / "mine.extxyz")
    return study(benchmark={"parity": {"frames": "mine.extxyz"}})(here)


def glasses(change=None, formula="Na3PS4", file="my.extxyz"):
    """Return what types a look at glasses that one has, after a change of the atoms."""

    def made(here):
        atoms = Atoms(formula, positions=3.0 * np.arange(24.0).reshape(8, 3), cell=(80.0, 80.0, 80.0), pbc=True)
        if change is not None:
            change(atoms)
        atoms.write(here / "my.extxyz")
        return ("benchmark", "--glasses", file, "--series", "na3ps4o", "--check")

    return made


def smoke(**settings):
    """Return what sends a probe through a machine whose interpreter is not there: it has no engine to start."""
    return lambda here: (
        *("machine", "--smoke", "--machine"),
        machine_file(here / "machine.yaml", python="/no/such/python", **settings),
    )


def nan(atoms):
    atoms.positions[3] = np.nan


def cited(text, *more):
    def made(here):
        (here / "mine.csv").write_text(text)
        glasses = ("--series", "na3ps4o", "--x", "0")
        return ("benchmark", "sevennet_0", *glasses, "--cited", "mine.csv", "--check", *more)

    return made


def point(line):
    return cited(f"property,value,unit,source,series,x\n{line}\n")


#: Copper and sodium, which EMT does not know.
SODIUM = [{"seed": "Cu_Fm-3m", "supercell": [2, 2, 2]}, {"seed": "Na_bcc", "n_atoms": 54}]
WARM = {"name": "warm", "temperatures_K": [200], "n_walks": 4, "n_steps": 20, "every": 2}

#: What makes each fault: a function of an empty folder that returns the words to type there.
FAULTS = {
    # the campaign's YAML
    "no-campaign": words("check", "nosuch.yaml"),
    "no-preset": words("run", "quickstrat"),
    "yaml-syntax": written("name: [unclosed\ntype_map: [Cu]\n"),
    "yaml-tab": written("name: x\n\ttype_map: [Cu]\n"),
    "yaml-twice": edited("select: {f_lo: 0.10,", "select: {f_lo: 0.20, f_lo: 0.10,"),
    "yaml-not-a-mapping": written("- a\n- b\n"),
    "yaml-tag": written("name: !!python/object/apply:os.getcwd []\n"),
    "yaml-empty": written(""),
    "unknown-key": campaign(select__f_low=0.1),
    "missing-key": edited("type_map: [Cu]\n", ""),
    "text-for-a-number": campaign(train__n_steps="many"),
    "quoted-number": campaign(train__n_steps="60"),
    "wrong-type": campaign(type_map=5),
    "window-order": campaign(select__f_lo=0.3),
    "impossible-number": campaign(initial__md__timestep_fs=0.0005),
    "unusual-number": campaign(initial__md__timestep_fs=0.02, verb="run"),
    "no-element": campaign(type_map=["Cu", "Xx"]),
    "type-map-lacks": campaign(type_map=["Ag"]),
    "no-systems": campaign(initial__systems=[]),
    "frames-short": campaign(stop__min_frames=1000),
    "one-initial-frame": campaign(initial__scales=[1.0], initial__copies=1, initial__md=None),
    # structures
    "no-seed": campaign(initial__systems=[{"seed": "Cu_Fm-3n"}]),
    "no-structure-file": campaign(initial__systems=[{"seed": "nosuch.cif"}]),
    "structure-unreadable": structure("this is no CIF\n"),
    "structure-nan": crystal(nan),
    "structure-no-cell": crystal(lambda atoms: atoms.set_cell(np.zeros((3, 3)))),
    "structure-not-periodic": crystal(lambda atoms: atoms.set_pbc((True, True, False))),
    "cell-too-low": campaign(initial__systems=[{"seed": "Cu_Fm-3m", "supercell": [1, 1, 1]}]),
    "structure-poscar": structure("copper, by hand\n", "POSCAR"),
    "guards-twice": campaign(select__guards={"min_distances_A": {"Ag-Cu": 1.0, "Cu-Ag": 2.0}}, type_map=["Ag", "Cu"]),
    "guards-exclude": campaign(select__guards={"min_distances_A": {"Cu-Cu": 3.0}}),
    "guard-of-no-element": campaign(select__guards={"min_distances_A": {"Cu-Qq": 2.0}}),
    "packing-parts": campaign(
        type_map=["Na", "P", "S", "Cu"],
        initial__systems=[{"packed": {"units": {"Na2S": 1.5}, "n_units": 1, "density_g_cm3": 1.5}}],
    ),
    "seeds-elements": words("seeds", "--elements", "Xx"),
    "seeds-unknown": words("seeds", "Na3PS4"),
    # what labels
    "no-calculator": campaign(label__reference={**EMT, "calculator": "nomodule.here:Calc"}),
    "calculator-form": campaign(label__reference={**EMT, "calculator": "nomodule"}),
    "no-module": campaign(label__reference={**EMT, "calculator": "ase.calculators.emtt:EMT"}),
    "no-class": campaign(label__reference={**EMT, "calculator": "ase.calculators.emt:Emt"}),
    "no-model": campaign(label__reference={**EMT, "arguments": {"model_path": "nosuch.model"}}),
    "reference-lacks": campaign(type_map=["Cu", "Na"], initial__systems=SODIUM),
    "driver-lacks": campaign(type_map=["Cu", "Na"], initial__systems=SODIUM, initial__md__driver="emt",
                             label__reference={**EMT, "calculator": "ase.calculators.lj:LennardJones"}),
    "no-driver": campaign(initial__md__driver="emtt"),
    "try-no-calculator": tried("factory"),
    "try-arguments": tried("Mistaken", no_such="argument"),
    "try-no-stress": tried("NoStress"),
    "try-no-gpu": tried("Gpu", device="cuda:0"),
    "try-raises": tried("Hopeless"),
    "try-stress-unit": tried("Mistaken", stress=160.2),
    "try-stress-sign": tried("Mistaken", stress=-1.0),
    "from-elsewhere": from_elsewhere,
    "no-weights": campaign(label__reference={**EMT, "weights": "nosuch.pt"}),
    "label-preset": campaign(label={"preset": "sevennet_00"}),
    "dispersion-twice": campaign(label__reference={**EMT, "includes_dispersion": True, "d3": {"method": "PBE"}}),
    "d3-functional": campaign(label__reference={**EMT, "functional": "SCAN", "d3": {"method": "PBE"}}),
    "no-functional": campaign(label__reference={k: v for k, v in EMT.items() if k != "functional"}),
    "vasp-tag": campaign(
        label__reference={"engine": "vasp", "functional": "PBE", "includes_dispersion": False,
                          "vasp": {"version": "6.4.2", "potcar_dir": ".", "potcars": {"Cu": "Cu"},
                                   "incar": {"GGA": "PE", "ISIF": 0}}},
    ),
    "dft-file": campaign(label__reference=by_espresso()),
    "dft-version": campaign(label__reference=by_espresso(version=7.2)),
    "dft-functional": campaign(label__reference={**by_espresso(), "functional": "r2SCAN"}),
    "dft-key": campaign(label__reference=by_espresso(input={"ecutwfc": 40.0})),
    # LAMMPS
    "no-lammps": machine(lammps="no_such_lmp -q"),
    "lammps-line": lines("run 100"),
    "lammps-program": lines("shell ls"),
    "lammps-command": lines("velocty all create 300 1"),
    "lammps-style": lines("fix heat all langevinn 300 300 0.1 1"),
    "lammps-file": lines("fix mean all ave/time 1 1 1 c_thermo_temp file mean.txt"),
    "lammps-variable": lines("fix heat all langevin ${temperature_K} 300 0.1 1"),
    "lammps-name": lines("fix dynamics all nve"),
    "lammps-refuses": lines("fix heat all langevin 300 300 0.1"),
    "stage-name-twice": campaign(explore__stages=2 * [WARM]),
    "stage-without-systems": campaign(explore__stages=[{**WARM, "systems": []}]),
    "stage-too-short": campaign(explore__stages=[{**WARM, "every": 50}]),
    "strain-impossible": campaign(explore__stages=[{**WARM, "deformations": ["isotropic"], "strains": [-1.0]}]),
    "stages-none": campaign(explore__stages=[]),
    # training
    "no-deepmd": machine(python="/no/such/python"),
    "backend-jax": campaign(train__backend="jax"),
    "no-torch": on_torch(),
    "torch-release": on_torch(torch="2.13.0"),
    "torch-lmp": on_torch(torch="2.11.0", cudart="libcudart.so.13", lammps=True),
    "no-compiler": on_torch(torch="2.11.0", compiled=True),
    "sel-short": campaign(train__descriptor__sel=[4]),
    "axis-neuron": campaign(train__descriptor__axis_neuron=20),
    "foundation-missing": campaign(train={"trainer": "mace", "foundation": "/no/such.model"}),
    "replay-missing": campaign(train={"trainer": "sevennet", "replay": {"file": "/no/such.xyz"}}),
    "replay-own": campaign(train={"trainer": "sevennet", "replay": {"file": "/no/such.xyz", "labels": "own"}}),
    "one-member": campaign(train__n_members=1),
    "prefactors-zero": campaign(train__prefactors={"energy": [0, 0], "force": [0, 0], "virial": [0, 0]}),
    "learning-rate-rises": campaign(train__learning_rate={"start": 1e-4, "stop": 1e-2}, verb="run"),
    "rescue-below": campaign(select__rescue__max_devi_f=0.2),
    "teacher-trainer": campaign(teacher={"train": {"n_steps": 9}}),
    "teacher-held-out": campaign(initial__held_out_fraction=0.0, teacher={"train": {"trainer": "sevennet"}}),
    "element-weights": campaign(train__element_weights={"Ag": 2.0}),
    "no-held-out": campaign(initial__held_out_fraction=0.0, stop__max_force_error_p99=0.5),
    # machines and folders
    "machine-key": machine(slot=2),
    "machine-secret": machine(environment={"MONGO_PASSWORD": "x"}),
    "machine-disk": machine(min_free_disk_GB=1e6),
    "folder-is-a-file": written("", "check", TINY, "--folder", "taken", name="taken"),
    "folder-name": words("check", TINY, "--folder", "two\nlines"),
    "folder-long": words("check", TINY, "--folder", "n" * 300),
    "name-of-two-lines": words("export", "two\nlines", "--to", "models"),
    "folder-empty": words("status", "."),
    "folder-missing": words("export", "nosuch", "--to", "models"),
    "folder-held": held,
    "other-crystal": other_crystal,
    "disk-full": full_disk,
    "output-full": full_output,
    "nowhere": nowhere,
    "changed-campaign": damaged(None, "run", TINY, "--folder", "runs/copper", "--accept-unusual"),
    "not-converged": damaged(None, "run", "runs/copper/campaign/000.yaml", "--folder", "runs/copper",
                             "--accept-unusual"),
    "newer-format": damaged(lambda folder: (folder / "format.json").write_text('{"format": 99, "version": "9.0"}')),
    "record-gone": damaged(removed("iter-000/iteration.json")),
    "model-damaged": damaged(flipped("models/*.pb")),
    "dataset-damaged": damaged(flipped("dataset/iter-001.npz")),
    "not-ended": begun,
    "export-taken": damaged(None, "export", "runs/copper", "--to", "runs"),
    "init-exists": written("", "init", "my.yaml"),
    "init-unwritable": words("init", "nosuch/my.yaml"),
    # ledger and imports
    "no-ledger": words("labels", "list", "nosuch"),
    "ledger-other-reference": declared,
    "import-no-file": importing(lambda here: None, name="nosuch.extxyz"),
    "import-unnamed": importing(lambda here: None, declare=None),
    "import-both": importing(lambda here: None, "--reference", "emt"),
    "import-declare": importing(lambda here: None, declare="functional=PBE"),
    "import-format": importing(lambda here: (here / "data.foo").write_text("x"), name="data.foo"),
    "import-unknown-format": importing(lambda here: None, "--format", "vaspp/xml"),
    "import-nothing-fit": importing(
        lambda here: (here / "data.extxyz").write_text(
            '1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nCu 0 0 0\n')),
    "import-keys": importing(lambda here: None, "--keys", "energy:E"),
    "import-deepmd": importing(lambda here: (here / "set").mkdir(), "--format", "deepmd", name="set"),
    "import-outcar": importing(lambda here: (here / "OUTCAR").write_text("nothing\n"), name="OUTCAR"),
    "ledger-damaged": damaged(flipped("labels/*.seg"), "labels", "list", "runs/copper", "--verify"),
    "reference-damaged": damaged(
        lambda folder: replaced(sorted((folder / "labels/references").iterdir())[0].name, "EMT", "XYZ")(
            folder / "labels/references"), "labels", "list", "runs/copper"),
    "labels-export-format": damaged(None, "labels", "export", "runs/copper", "--to", "out.csv"),
    # cluster
    "launchpad-missing": words("doctor", "-l", "nosuch.yaml"),
    "launchpad-key": written("[1, 2]", "doctor", "-l", "l.yaml", name="l.yaml"),
    "launchpad-silent": written(SILENT, "doctor", "-l", "l.yaml", name="l.yaml"),
    "machine-init-taken": initialised,
    "machine-nothing": words("machine"),
    "smoke-python": smoke(),
    "smoke-slots": smoke(slots=999),
    "smoke-disk": smoke(min_free_disk_GB=1e6),
    "worker-without-command": words("rlaunch", "-l", "my_launchpad.yaml"),
    "machine-preset": words("check", TINY, "--machine", "slurmm"),
    "allocation-none": in_allocation("srun"),
    "allocation-no-srun": in_allocation(),
    "place-unknown": machine(places={"cpu": {}}, stations={"train": "gpu"}),
    # glasses, benchmarks, potentials
    "no-potential": words("benchmark", "--series", "na3ps4o"),
    "model-alone": written("", "benchmark", "a.pb", name="a.pb"),
    "potential-lacks": potential(
        lammps={"pair_style": "lj/cut 6.0", "pair_coeff": ["* * 0.05 2.3"], "elements": ["Na", "P"]},
        functional="none", includes_dispersion=False),
    "pair-style": style("lj/cutt 6.0", "* * 0.05 2.3"),
    "pair-coeff": style("lj/cut 6.0", "* * 0.05"),
    "pair-file": style("eam/alloy", "* * nosuch.eam.alloy Na P S"),
    "pair-python": style("python 5.0", "* * zero"),
    "potential-two-kinds": potential(ase={"preset": "emt"}, lammps={"pair_style": "zero 5", "pair_coeff": ["* *"],
                                                                    "elements": ["Cu"]}),
    "potential-dp": modelled("a.dp"),
    "potential-mixed": modelled("a.pb", "b.pth"),
    "potential-no-model": potential(deepmd={"models": ["a.pb"]}, functional="PBE", includes_dispersion=False),
    "glass-x": words("glass", "sevennet_0", "--series", "na3ps4o", "--x", "0.7", "--check"),
    "glass-x-text": words("glass", "sevennet_0", "--series", "na3ps4o", "--x", "none", "--check"),
    "glass-series": words("glass", "sevennet_0", "--series", "na3ps4", "--check"),
    "no-series": words("glass", "sevennet_0", "--check"),
    "atoms-not-all": words("glass", "sevennet_0", "--series", "na3ps4o", "--atoms", "128", "--check"),
    "losses": dying,
    "benchmark-nothing": words("benchmark", "sevennet_0", "--check"),
    "glass-atoms": words("glass", "sevennet_0", "--series", "na3ps4o", "--x", "0.15", "--atoms", "100", "--check"),
    "study-nothing": study(benchmark=None),
    "glasses-missing": glasses(file="nosuch.extxyz"),
    "glasses-no-study": glasses(file="."),
    "glasses-unreadable": written(
        *("2\nno cell\nNa 0 0\n", "benchmark", "--glasses", "my.extxyz", "--series", "na3ps4o", "--check"),
        name="my.extxyz",
    ),
    "glasses-nan": glasses(nan),
    "glasses-no-cell": glasses(lambda atoms: atoms.set_pbc((True, True, False))),
    "glasses-overlap": glasses(lambda atoms: atoms.positions.__setitem__(1, atoms.positions[0] + 0.1)),
    "glasses-composition": glasses(formula="Na4P2S2"),
    "study-options": words("benchmark", "emt", "--study", "study.yaml"),
    "parity-frames": study(benchmark={"parity": {"frames": "nosuch.extxyz"}}),
    "diffusion-window": study(
        potentials=["sevennet_0"],
        glass={"preset": "quick", "series": "na3ps4o", "x": [0.0]},
        benchmark={"diffusion": {"temperatures_K": [600.0, 800.0], "ps": 50.0, "window": [0.95, 0.5]}},
    ),
    "pressure-nvt": study(
        potentials=["sevennet_0"],
        glass={
            "series": "na3ps4o",
            "x": [0.0],
            "n_atoms": 64,
            "segments": [{"name": "glass", "temperature_K": 300, "ps": 1, "pressure_bar": 10.0, "is_analysed": True}],
        },
        benchmark=None,
    ),
    "parity-nan": with_nan_in_parity,
    "force-error-label": study(
        potentials=["sevennet_0"],
        glass={"preset": "quick", "series": "na3ps4o", "x": [0.0]},
        benchmark={"force_error": {}},
    ),
    "force-error-unused": study(
        potentials=["sevennet_0"],
        glass={"preset": "quick", "series": "na3ps4o", "x": [0.0]},
        benchmark={"force_error": {"label": {"preset": "sevennet_0", "max_energy_spread": 2.0}}},
    ),
    "cited-columns": cited("a,b\n1,2\n"),
    "cited-missing": words("benchmark", "emt", "--cited", "nosuch.csv", "--check"),
    "cited-property": point("densty,2.0,g/cm3,mine,na3ps4o,0"),
    "cited-unit": point("density,2000,kg/m3,mine,na3ps4o,0"),
    "cited-number": point('density,"2,000.5",g/cm3,mine,na3ps4o,0'),
    "cited-cells": point("density,2,12,g/cm3,mine,na3ps4o,0"),
    "cited-unused": point("density,2.0,g/cm3,mine,na3ps4o,0.77"),
    "finetune-python": words("finetune", "runs/x", "--foundation", "m", "--python", "nosuch/python", "--to", "ft"),
    # the command line, signals and exit codes
    "stopped": stopped,
    "no-command": words("statsu", "quickstart"),
    "no-option": words("run", "quickstart", "--slot", "2"),
    "option-value": words("run", "quickstart", "--slots", "0"),
}  # fmt: skip


@pytest.mark.parametrize("row", [pytest.param(row, id=row[0]) for row in ROW.findall(PAGE)])
def test_a_fault_ends_in_the_message_of_the_table(row, tmp_path, monkeypatch):
    name, _, message, advice, code = row
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    with UNDONE:
        made = FAULTS[name](tmp_path)
        done = made if isinstance(made, subprocess.CompletedProcess) else in_process(*made)
    said = (done.stdout + done.stderr).replace(f"{tmp_path}/", "")  # seen from where it was typed
    assert re.search(pattern(message), said), said
    assert re.search(pattern(advice), said), said
    assert done.returncode == int(code)
    assert "Traceback" not in said


def pattern(text):
    """Return a text of the table as a regular expression: <this> is anything, and nothing else is."""
    return ".*".join(re.escape(part) for part in re.split(r"<[^<>]+>", text.replace("\\|", "|")))


def test_every_fault_that_can_be_made_is_in_the_table_once():
    names = [row[0] for row in ROW.findall(PAGE)]
    assert sorted(names) == sorted(FAULTS)
    assert len(names) >= 60
    known = typer.main.get_command(app).commands
    assert set(re.findall(r"activelearn ([a-z]+)", "\n".join(row[3] for row in ROW.findall(PAGE)))) <= set(known)
    assert len(re.findall(r"^\| `", PAGE, re.MULTILINE)) == len(names), "every row is read"
