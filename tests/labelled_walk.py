"""A true walk of Cu6Au2 by EMT, and the same as VASP would write it."""

import warnings
from dataclasses import replace

import numpy as np
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin

from activelearn.frames import Frames, make_origin


def trajectory(n=16, step_fs=4.0, temperature_K=900.0, seed=1):
    """A true walk of Cu6Au2 in a triclinic cell."""
    rng = np.random.RandomState(seed)
    atoms = bulk("Cu", cubic=True, a=3.75) * (2, 1, 1)
    atoms.set_chemical_symbols(["Cu"] * 6 + ["Au"] * 2)
    atoms.set_cell(atoms.cell[:] @ np.array([[1, 0.02, 0], [0, 1, 0.03], [0.01, 0, 1]]), scale_atoms=True)
    atoms.positions += 0.4 + rng.normal(0, 0.05, (8, 3))
    atoms.calc = EMT()
    atoms.set_momenta(rng.normal(size=(8, 3)) * np.sqrt(2 * temperature_K * units.kB * atoms.get_masses())[:, None])
    images = []

    def keep():
        image = atoms.copy()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        image.calc = SinglePointCalculator(image, **results)
        images.append(image)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dynamics = Langevin(atoms, step_fs * units.fs, temperature_K=temperature_K, friction=0.01 / units.fs, rng=rng)
        dynamics.attach(keep)
        dynamics.run(n - 1)
    frames = Frames.from_ase(images)
    return replace(frames, origin=make_origin(len(frames), walk="walk"))


def outcar_text(frames):
    """An OUTCAR in the layout of VASP 6, with the blocks that count."""
    kinds, rule = list(dict.fromkeys(frames.symbols)), " " + "-" * 60
    lines = [" vasp.6.4.2 20Jul23 complex", *[f" POTCAR:    PAW_PBE {kind} 01Jan2000" for kind in kinds] * 2]
    lines += [f"   VRHFIN ={kind}: synthetic" for kind in kinds]
    lines += [f"   number of dos      NEDOS =    301   number of ions     NIONS = {frames.n_atoms:6d}"]
    lines += ["   ions per type =  " + "".join(f"{frames.symbols.count(kind):6d}" for kind in kinds)]
    lines += ["   NELM   =     60;   NELMIN=  2; NELMDL= -5", "   ISIF   =      2    stress and relaxation", ""]
    for k in range(len(frames)):
        cell, energy = frames.cell[k], frames.energy[k]
        kbar = (frames.virial[k] / frames.volume[k] / units.GPa * 10.0)[[0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 2, 0]]
        lines += [f"------------------- Iteration {k + 1:6d}({n:4d})  -------------------" for n in (1, 2, 3)]
        lines += ["------------------- aborting loop because EDIFF is reached -------------------", ""]
        lines += ["  FORCE on cell =-STRESS in cart. coord.  units (eV):", "  in kB   " + _row(kbar, 12, 5), ""]
        lines += ["      direct lattice vectors                 reciprocal lattice vectors"]
        lines += ["  " + _row([*a, *b], 14, 9) for a, b in zip(cell, np.linalg.inv(cell).T, strict=True)]
        lines += ["", " POSITION                                       TOTAL-FORCE (eV/Angst)", rule]
        lines += [
            _row(x, 13, 5) + "  " + _row(f, 14, 6) for x, f in zip(frames.positions[k], frames.forces[k], strict=True)
        ]
        lines += [rule, "    total drift:      0.000000      0.000000      0.000000", "", ""]
        lines += [
            "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)",
            rule,
            f"  free  energy   TOTEN  = {energy:18.8f} eV",
            "",
        ]
        lines += [f"  energy  without entropy= {energy:18.8f}  energy(sigma->0) = {energy:18.8f}", "", rule]
    return "\n".join(lines) + "\n"


def _row(numbers, width, digits):
    return "".join(f"{x:{width}.{digits}f}" for x in numbers)
