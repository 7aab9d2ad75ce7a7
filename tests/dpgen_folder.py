"""Folders of DP-GEN as its users have them, of our own making: copper, labelled by ASE's EMT."""

import json
from pathlib import Path

import numpy as np
from ase.io import write
from conftest import rattled_copper

from activelearn.frames import Frames
from activelearn.writing import write_deepmd

NETWORK = {
    "model": {
        "type_map": ["Cu"],
        "descriptor": {
            "type": "se_e2_a",
            "sel": [60],
            "rcut": 4.0,
            "rcut_smth": 0.5,
            "neuron": [4, 8],
            "axis_neuron": 2,
            "resnet_dt": False,
            "seed": 1,
            "_comment": "small",
        },
        "fitting_net": {"neuron": [16, 16], "resnet_dt": True, "seed": 1},
    },
    "learning_rate": {"type": "exp", "start_lr": 0.01, "decay_steps": 20, "stop_lr": 1.0e-4},
    "loss": {"start_pref_e": 0.02, "limit_pref_e": 1, "start_pref_f": 1000, "limit_pref_f": 50},
    "training": {"numb_steps": 60, "disp_freq": 20, "save_freq": 60, "seed": 1, "training_data": {"systems": []}},
}
PARAM = {
    "type_map": ["Cu"],
    "mass_map": "auto",
    "init_data_prefix": "data",
    "init_data_sys": ["init"],
    "sys_configs_prefix": "starts",
    "sys_configs": [["POSCAR-0*"], ["POSCAR-10"]],
    "numb_models": 2,
    "default_training_param": NETWORK,
    "model_devi_dt": 0.002,
    "model_devi_skip": 0,
    "model_devi_f_trust_lo": 0.1,
    "model_devi_f_trust_hi": 0.3,
    "model_devi_jobs": [
        {"sys_idx": [0], "temps": [200, 400], "trj_freq": 2, "nsteps": 20, "ensemble": "nvt", "_idx": "00"},
        {"sys_idx": [0], "temps": [200, 400], "trj_freq": 2, "nsteps": 20, "ensemble": "nvt", "_idx": "01"},
        {"sys_idx": ["0:2"], "temps": [300], "press": [1, 5000], "trj_freq": 2, "nsteps": 40, "ensemble": "npt-t"},
    ],
    "fp_style": "custom",
    "fp_task_max": 10,
    "fp_task_min": 2,
    "fp_params": {
        "input_fmt": "vasp/poscar",
        "input_fn": "POSCAR",
        "output_fmt": "deepmd/hdf5",
        "output_fn": "out.hdf5",
    },
}
SHELL = {
    "command": "true",
    "machine": {"batch_type": "Shell", "context_type": "LazyLocalContext", "local_root": "./"},
    "resources": {"number_node": 1, "cpu_per_node": 1, "gpu_per_node": 0, "queue_name": "", "group_size": 1},
}
MACHINE = {
    "api_version": "1.0",
    **{kind: {**SHELL, "command": word} for kind, word in (("train", "dp"), ("model_devi", "lmp"), ("fp", "true"))},
}
#: What its labels are by.
EMT = "functional=none,includes_dispersion=false,code=EMT"


def changed(section, **changes):
    """Return a copy with changes by dotted key (``default_training_param__model``); None takes a key out."""
    made = json.loads(json.dumps(section))  # not deepcopy, which keeps what is shared shared
    for key, value in changes.items():
        *path, last = key.split("__")
        place = made
        for name in path:
            place = place.setdefault(name, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return made


def dpgen_folder(path: Path, machine=MACHINE, **changes) -> Path:
    """Write a folder in which one iteration is done: 6 labels of initial data, 3 of the iteration."""
    path.mkdir(parents=True)
    (path / "param.json").write_text(json.dumps(changed(PARAM, **changes), indent=1))
    if machine is not None:
        (path / "machine.json").write_text(json.dumps(machine, indent=1))
    (path / "starts").mkdir()
    for k, name in enumerate(("00", "01", "10")):
        frame = rattled_copper(1, random_seed=20 + k, repeat=(2, 2, 2), amplitude=0.02)
        write(path / "starts" / f"POSCAR-{name}", frame.to_ase()[0], format="vasp", direct=False)
    for k in range(2):
        write_deepmd([rattled_copper(3, random_seed=k)], path / "data" / "init" / f"walk-{k}", ["Cu"])
    write_system(path / "iter.000000" / "02.fp" / "data.000", rattled_copper(3, random_seed=7, repeat=(2, 2, 2)))
    (path / "iter.000000" / "01.model_devi").mkdir()
    (path / "record.dpgen").write_text("".join(f"0 {k}\n" for k in range(9)))
    return path


def write_system(folder: Path, frames: Frames, precision=np.float64) -> None:
    """Write a system as DP-GEN gathers labels: deepmd/raw and deepmd/npy beside each other."""
    folder.mkdir(parents=True)
    arrays = {
        "coord": frames.positions,
        "box": frames.cell,
        "energy": frames.label("energy"),
        "force": frames.label("forces"),
        "virial": frames.label("virial"),
    }
    (folder / "set.000").mkdir()
    for name, values in arrays.items():
        rows = values.reshape(len(frames), -1)
        np.savetxt(folder / f"{name}.raw", rows)
        np.save(folder / "set.000" / f"{name}.npy", (rows[:, 0] if name == "energy" else rows).astype(precision))
    (folder / "type.raw").write_text("0\n" * frames.n_atoms)
    (folder / "type_map.raw").write_text("Cu\n")


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return every file below a folder with its bytes and its time: what must not change."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
