"""Run DP-GEN 0.14.0 in small, and keep of its folder what the tests read: ``python record.py VENV [ARCHIVE]``.

VENV is a virtual environment of DP-GEN: ``pip install dpgen==0.14.0 'deepmd-kit[cpu,lmp]==3.2.0' ase``. Copper, by
ASE's EMT (``fp_style: custom``), two iterations with windows of their own and an ensemble after them; all inputs are
ours. What it takes: some eight minutes of one core, most of them polls of DP-GEN.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from dpgen_folder import MACHINE, NETWORK, PARAM, changed, dpgen_folder  # noqa: E402

#: What of a run is kept, and under which name; models are, so that an ensemble can be a start.
KEPT = (
    *("param.json", "machine.json", "record.dpgen", "starts/*", "data/**/*.raw", "data/**/*.npy"),
    *("iter.*/01.model_devi/cur_job.json", "iter.*/01.model_devi/task.*/model_devi.out"),
    *("iter.*/01.model_devi/task.*/job.json", "iter.*/02.fp/*.out", "iter.*/02.fp/data.*/**/*.raw"),
    *("iter.*/02.fp/data.*/**/*.npy", "iter.*/02.fp/task.*/out.hdf5", "iter.000002/00.train/graph.*.pb"),
)
LABELLER = '''"""One label of DP-GEN: POSCAR to out.hdf5, by ASE's EMT."""
import dpdata
from ase.calculators.emt import EMT
from ase.io import read

atoms = read("POSCAR", format="vasp")
atoms.calc = EMT()
atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
dpdata.LabeledSystem(atoms, fmt="ase/structure").to("deepmd/hdf5", "out.hdf5")
'''


def inputs():
    """Return param.json: two jobs, each with a window of its own, and a window by system beside them."""
    jobs = [
        {"sys_idx": [0], "temps": [300, 900], "trj_freq": 4, "nsteps": 80, "ensemble": "nvt", "_idx": "00"},
        {
            "sys_idx": [0, 1],
            "temps": [600],
            "press": [1.0],
            "trj_freq": 4,
            "nsteps": 80,
            "ensemble": "npt",
            "_idx": "01",
            "model_devi_f_trust_lo": 0.06,
            "model_devi_f_trust_hi": {"0": 0.08, "1": 0.07},
        },
    ]
    network = changed(NETWORK, training__numb_steps=400, learning_rate__decay_steps=20)
    return changed(
        PARAM,
        model_devi_jobs=jobs,
        default_training_param=network,
        dp_train_skip_neighbor_stat=True,
        model_devi_f_trust_lo={"0": 0.1, "1": 0.1},
        model_devi_f_trust_hi={"0": 0.15, "1": 0.3},
        fp_task_max=4,
        fp_task_min=1,
        model_devi_clean_traj=True,
        ratio_failed=0.5,
    )


def machine(venv, folder):
    """Return machine.json: everything in the shell of this computer."""
    environment = folder / "environment.sh"
    variables = {"OMP_NUM_THREADS": 1, "DP_INTRA_OP_PARALLELISM_THREADS": 1, "DP_INTER_OP_PARALLELISM_THREADS": 1}
    lines = [f"export {name}={value}" for name, value in variables.items()] + [f'export PATH="{venv}/bin:$PATH"']
    environment.write_text("\n".join(lines) + "\n")
    (folder / "label.py").write_text(LABELLER)
    made = changed(MACHINE, fp__command=f"{venv}/bin/python {folder}/label.py")
    for kind in ("train", "model_devi", "fp"):
        made[kind]["resources"] |= {"group_size": 100, "source_list": [str(environment)], "para_deg": 1}
    return made


def run(venv, folder):
    """Run ``dpgen run`` in a new folder."""
    dpgen_folder(folder, **inputs())
    for path in sorted((folder / "iter.000000").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (folder / "iter.000000").rmdir()
    (folder / "record.dpgen").unlink()
    (folder / "machine.json").write_text(json.dumps(machine(venv, folder), indent=1))
    env = {**os.environ, "PATH": f"{venv}/bin:{os.environ['PATH']}"}
    subprocess.run([f"{venv}/bin/dpgen", "run", "param.json", "machine.json"], cwd=folder, env=env, check=True)


def anonymous(info):
    """Return a member of the archive without its owner."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def keep(folder, to):
    """Pack what is read of a run, without the paths of this computer."""
    plain = json.loads((folder / "machine.json").read_text())
    for kind in ("train", "model_devi", "fp"):
        plain[kind]["resources"]["source_list"] = ["environment.sh"]
    plain["fp"]["command"] = "python label.py"
    (folder / "machine.json").write_text(json.dumps(plain, indent=1))
    paths = sorted({path for pattern in KEPT for path in folder.glob(pattern) if path.is_file()})
    with tarfile.open(to, "w:xz") as archive:
        for path in paths:
            archive.add(path.resolve(), arcname=str(path.relative_to(folder.parent)), filter=anonymous)
    print(f"{len(paths)} files, {to.stat().st_size / 1e3:.0f} kB")


def main():
    """Run it, and keep what is read."""
    to = Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "copper.tar.xz"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "copper"
        run(Path(sys.argv[1]).absolute(), folder)
        keep(folder, to)


if __name__ == "__main__":
    main()
