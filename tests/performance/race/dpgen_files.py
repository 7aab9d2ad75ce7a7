"""The campaign of the race, written for DP-GEN: ``param.json``, ``machine.json``, a LAMMPS template, starts.

Network, loss, learning rate and steps are what :func:`activelearn.engines.trainers.deepmd.inputs.training_input` writes
for our own trainings, so that both sides train alike by construction. The rest is what a careful user of DP-GEN writes:
no neighbour statistics (``dp_train_skip_neighbor_stat``), warm trainings (``training_reuse_*``) with all frames equally
likely (``auto:1``), jobs in the shell where the files are (Shell, LazyLocalContext), one group of tasks with as many of
them side by side as there are cores (``para_deg``), a labeller that loads its model once a core, and a LAMMPS template,
for a job of DP-GEN has one ensemble and a template walks several.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import write

from activelearn import starts
from activelearn.config import Campaign, Room, Stage, TrainingRun
from activelearn.engines.process import ONE_THREAD
from activelearn.engines.trainers.deepmd import inputs
from activelearn.frames import masses_of

#: Passes that are prepared; DP-GEN's user fixes them beforehand, and the race stops at the first below the bounds.
N_PASSES = 8
#: What machine.json calls the newest version that DP-GEN knows.
DEEPMD_VERSION = "3.2.0"
#: Of temperature and pressure, as our stages have them by default, ps.
TEMPERATURE_DAMPING_PS, PRESSURE_DAMPING_PS = 0.1, 1.0
TEMPLATE = """units           metal
boundary        p p p
atom_style      atomic
box             tilt large
read_data       conf.lmp
change_box      all triclinic
{masses}
neighbor        1.0 bin
pair_style      deepmd
pair_coeff      * *
velocity        all create V_TEMP V_SEED dist gaussian mom yes
timestep        {timestep_ps:g}
fix             dynamics all V_ENS
thermo          {every}
thermo_style    custom step temp pe press vol
dump            dpgen_dump
dump_modify     dpgen_dump sort id
run             {n_steps}
"""


@dataclass(frozen=True)
class Place:
    """Where DP-GEN runs, and with what.

    Parameters
    ----------
    folder
        Of the run.
    start
        With ``data``, the systems of initial data.
    bin
        Folder of the programs of its virtual environment.
    n_slots
        Tasks side by side.
    lmp
        The command of LAMMPS.
    libraries
        Variables that this command needs.
    """

    folder: Path
    start: Path
    bin: Path
    n_slots: int
    lmp: str
    libraries: dict[str, str]


def write_all(campaign: Campaign, sel: Room, place: Place) -> None:
    """Write all that ``dpgen run param.json machine.json`` reads in the folder of a place."""
    folder = place.folder
    folder.mkdir(parents=True)
    stages = campaign.explore.stages
    first = stages[0]
    masses = "\n".join(f"mass            {i} {m:.6f}" for i, m in enumerate(masses_of(campaign.type_map), 1))
    text = TEMPLATE.format(
        masses=masses, timestep_ps=first.timestep_fs / 1000.0, every=first.every, n_steps=first.n_steps
    )
    (folder / "lmp.in").write_text(text)
    write_starts(campaign, folder / "starts", first.n_walks)
    reference = campaign.label.reference
    asked = {"calculator": reference.calculator, "arguments": reference.arguments, "type_map": list(campaign.type_map)}
    _write_json(folder / "calculator.json", asked)
    for name, libraries in (("environment.sh", {}), ("lammps.sh", place.libraries)):  # those of LAMMPS for it alone
        variables = {**ONE_THREAD, **libraries, "PATH": f"{place.bin}:$PATH"}
        (folder / name).write_text("".join(f'export {key}="{value}"\n' for key, value in variables.items()))
    _write_json(folder / "machine.json", machine(place))
    systems = sorted(path.name for path in (place.start / "data").iterdir())
    _write_json(folder / "param.json", param(campaign, sel, place, systems))


def write_starts(campaign: Campaign, folder: Path, n_each: int) -> None:
    """Write the starts of every pass: the crystal at each linear scale, randomly distorted, as our walks begin."""
    folder.mkdir()
    rng = np.random.default_rng(campaign.random_seed)
    crystal = starts.crystal(campaign.explored_systems[0], campaign.min_height_A)
    scales = campaign.explore.start_scales
    for k in range(N_PASSES):
        for i in range(n_each):
            frame = starts.distorted(crystal, campaign.explore.perturb, rng, scale=scales[i % len(scales)])
            write(folder / f"pass-{k}-{i}.vasp", frame.to_ase()[0], format="vasp", sort=True, direct=False)


def param(campaign: Campaign, sel: Room, place: Place, systems: Sequence[str]) -> dict[str, Any]:
    """Return ``param.json``."""
    train, stages = campaign.train, campaign.explore.stages
    run = TrainingRun(train.n_steps, (1, 1, 1))
    training = inputs.training_input(train, run, type_map=campaign.type_map, sel=sel, systems=())
    window = {"model_devi_f_trust_lo": campaign.select.f_lo, "model_devi_f_trust_hi": campaign.select.f_hi}
    return {
        "type_map": list(campaign.type_map),
        "mass_map": masses_of(campaign.type_map).tolist(),
        "init_data_prefix": str(place.start / "data"),
        "init_data_sys": list(systems),
        "init_batch_size": [train.batch_size] * len(systems),
        "sys_configs_prefix": str(place.folder / "starts"),
        "sys_configs": [[f"pass-{k}-{i}.vasp" for i in range(stages[0].n_walks)] for k in range(N_PASSES)],
        "sys_format": "vasp/poscar",
        "sys_batch_size": [train.batch_size] * N_PASSES,
        "numb_models": train.n_members,
        "default_training_param": training,
        "dp_train_skip_neighbor_stat": True,
        "training_reuse_iter": 1,
        "training_reuse_numb_steps": train.warm_n_steps or train.n_steps,
        "training_reuse_start_lr": train.learning_rate.warm_start or train.learning_rate.start,
        "training_reuse_old_ratio": "auto:1",
        "dp_compress": False,
        "model_devi_dt": stages[0].timestep_fs / 1000.0,
        "model_devi_skip": 0,
        "model_devi_clean_traj": True,
        "model_devi_merge_traj": True,
        **window,
        "model_devi_jobs": [job(campaign, stages[: k + 1], k) | window for k in range(N_PASSES)],
        "fp_style": "custom",
        "fp_task_max": campaign.select.max_frames,
        "fp_task_min": train.min_new_frames,
        "ratio_failed": 0.2,
        "shuffle_poscar": False,
        "fp_params": {
            "input_fmt": "vasp/poscar",
            "input_fn": "conf.poscar",
            "output_fmt": "deepmd/hdf5",
            "output_fn": "out.hdf5",
        },
    }


def job(campaign: Campaign, stages: Sequence[Stage], k: int) -> dict[str, Any]:
    """Return the job of one pass over some stages: the first pass has the first alone, as ours begins.

    Keys of ``rev_mat`` are put in one after the other, so V_ENS comes first and the V_TEMP in its text after it.
    """
    first = stages[0]
    for stage in stages[1:]:
        if (stage.n_steps, stage.every, stage.timestep_fs, stage.temperatures_K, stage.n_walks) != (
            *(first.n_steps, first.every, first.timestep_fs),
            *(first.temperatures_K, first.n_walks),
        ):
            raise ValueError(f"stage {stage.name} differs from {first.name} in more than its ensemble: one template")
    varied = {
        "V_ENS": [ensemble(stage) for stage in stages],
        "V_TEMP": list(first.temperatures_K),
        "V_SEED": [campaign.random_seed + 131 * k],
    }
    return {"sys_idx": [k], "trj_freq": first.every, "template": {"lmp": "lmp.in"}, "rev_mat": {"lmp": varied}}


def ensemble(stage: Stage) -> str:
    """Return the words of LAMMPS' fix for the ensemble of a stage."""
    heat = f"temp V_TEMP V_TEMP {TEMPERATURE_DAMPING_PS:g}"
    if stage.ensemble == "nvt":
        return f"nvt {heat}"
    (bar,) = stage.pressures_bar
    return f"npt {heat} {stage.ensemble.removeprefix('npt-')} {bar:g} {bar:g} {PRESSURE_DAMPING_PS:g}"


def machine(place: Place) -> dict[str, Any]:
    """Return ``machine.json``: each phase is one group of tasks, `n_slots` of them side by side."""
    here = {"batch_type": "Shell", "context_type": "LazyLocalContext", "local_root": "./", "remote_root": "./"}
    python, labeller = place.bin / "python", Path(__file__).with_name("dpgen_label.py")
    words = shlex.join([str(python), str(labeller), str(place.folder / "calculator.json")])
    phases = {}
    for name, command, environment in (
        ("train", "dp", "environment.sh"),
        ("model_devi", place.lmp, "lammps.sh"),
        ("fp", f"test -s out.hdf5 || {words}", "environment.sh"),
    ):
        resources = {
            "number_node": 1,
            "cpu_per_node": 1,
            "gpu_per_node": 0,
            "queue_name": "",
            "group_size": 1000,
            "para_deg": place.n_slots,
            "source_list": [str(place.folder / environment)],
        }
        phases[name] = {"command": command, "machine": here, "resources": resources}
    return {"api_version": "1.0", "deepmd_version": DEEPMD_VERSION, **phases}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1))
