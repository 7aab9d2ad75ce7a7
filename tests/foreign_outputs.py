# ruff: noqa: E501 - lines as the codes write them
"""Outputs as other codes write them, made from frames whose labels are known: small, but with the lines that count.

Each function takes Frames (of one composition) and returns text, or writes a folder. `unconverged` is the number of a
step whose electronic loop did not converge. An energy that is printed beside the free energy
differs from it by OFFSET, so that a reader that takes the wrong one is seen.
"""

import numpy as np
from ase.data import atomic_numbers
from ase.units import GPa, create_units

#: eV; the energy without the entropy (or extrapolated) is by so much above the free energy.
OFFSET = 0.75
HARTREE, BOHR = create_units("2018")["Hartree"], create_units("2018")["Bohr"]
RYDBERG, BOHR_QE = create_units("2006")["Rydberg"], create_units("2006")["Bohr"]


def rows(array, form="{:16.8f}", before="", after=""):
    return "".join(f"{before}{' '.join(form.format(x) for x in row)}{after}\n" for row in array)


def printed_stress(frames, k):
    """eV/Å^3, positive in compression, as most codes print it."""
    return frames.virial[k] / frames.volume[k]


# --- VASP -------------------------------------------------------------------------------------------------------------


def _varray(name, array):
    return f'<varray name="{name}">\n{rows(array, "{:.8f}", "<v> ", "</v>")}</varray>\n'


def vasprun(frames, unconverged=None, nelm=12, isif=2, pstress_kbar=0.0, has_stress=True):
    atoms = "".join(f"<rc><c>{symbol}</c><c>1</c></rc>" for symbol in frames.symbols)
    text = (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n<generator/>\n'
        f'<parameters><separator name="electronic"><i type="int" name="NELM">{nelm}</i></separator>'
        f'<i type="int" name="ISIF">{isif}</i><i name="PSTRESS">{pstress_kbar}</i></parameters>\n'
        f'<atominfo><array name="atoms"><set>{atoms}</set></array></atominfo>\n'
    )
    for k in range(len(frames)):
        energy = frames.energy[k] + pstress_kbar * 0.1 * GPa * frames.volume[k]
        energies = (
            f'<energy><i name="e_fr_energy">{energy:.8f}</i><i name="e_wo_entrp">{energy + OFFSET:.8f}</i>'
            f'<i name="e_0_energy">{energy + OFFSET / 2:.8f}</i></energy>\n'
        )
        kbar = printed_stress(frames, k) / (0.1 * GPa)
        text += (
            "<calculation>\n"
            + f"<scstep>{energies}</scstep>\n" * (nelm if k == unconverged else 5)
            + f"<structure><crystal>{_varray('basis', frames.cell[k])}</crystal>"
            + _varray("positions", frames.fractional()[k])
            + "</structure>\n"
            + _varray("forces", frames.forces[k])
            + (_varray("stress", kbar) if has_stress else "")
            + f"{energies}</calculation>\n"
        )
    return text + "</modeling>\n"


# --- Quantum ESPRESSO -------------------------------------------------------------------------------------------------


def pwscf(frames, unconverged=None, has_stress=True):
    alat = 7.5 * BOHR_QE
    tau = "".join(
        f"{i + 1:10d}           {symbol}  tau({i + 1:4d}) = ({x:12.7f} {y:12.7f} {z:12.7f}  )\n"
        for i, (symbol, (x, y, z)) in enumerate(zip(frames.symbols, frames.positions[0] / alat, strict=True))
    )
    axes = rows(frames.cell[0] / alat, "{:10.6f}", "               a(1) = ( ", " )")
    text = (
        "     Program PWSCF v.6.7MaX starts on 29Nov2026 at 12: 0: 0\n\n"
        f"     number of atoms/cell      = {len(frames.symbols):12d}\n     celldm(1)=   7.500000  celldm(2)=   0.000000\n\n"
        f"     crystal axes: (cart. coord. in units of alat)\n{axes}\n"
        "     Cartesian axes\n\n     site n.     atom                  positions (alat units)\n"
        f"{tau}\n     number of k points=     1\n                       cart. coord. in units 2pi/alat\n"
        "        k(    1) = (   0.0000000   0.0000000   0.0000000), wk =   2.0000000\n\n"
        "     Self-consistent Calculation\n"
    )
    for k in range(len(frames)):
        if k:
            positions = rows(frames.positions[k], "{:14.9f}").splitlines()
            text += (
                "CELL_PARAMETERS (angstrom)\n" + rows(frames.cell[k], "{:14.9f}") + "\nATOMIC_POSITIONS (angstrom)\n"
            )
            text += "".join(f"{s:4s}{row}\n" for s, row in zip(frames.symbols, positions, strict=True))
            text += "\n     Self-consistent Calculation\n"
        energy = frames.energy[k] / RYDBERG
        text += f"\n     iteration #  1     ecut=    30.00 Ry     beta= 0.70\n     total energy              = {energy:.8f} Ry\n"
        text += "     End of self-consistent calculation\n\n          k = 0.0000 0.0000 0.0000 (   113 PWs)   bands (ev):\n\n"
        if k == unconverged:
            text += "     convergence NOT achieved after 100 iterations: stopping\n"
        else:
            text += f"!    total energy              = {energy:17.8f} Ry\n"
            text += f"     smearing contrib. (-TS)   = {-OFFSET / RYDBERG:17.8f} Ry\n"
        forces = frames.forces[k] / (RYDBERG / BOHR_QE)
        text += "\n     Forces acting on atoms (cartesian axes, Ry/au):\n\n"
        text += "".join(
            f"     atom {i + 1:4d} type  1   force = {x:13.8f} {y:13.8f} {z:13.8f}\n"
            for i, (x, y, z) in enumerate(forces)
        )
        if has_stress:
            stress = printed_stress(frames, k) / (RYDBERG / BOHR_QE**3)
            text += "\n     Computing stress (Cartesian axis) and pressure\n\n"
            text += "          total   stress  (Ry/bohr**3)                   (kbar)     P=       -1.00\n"
            text += rows(np.hstack([stress, stress]), "{:13.8f}")
        text += "\n"
    return text + "     JOB DONE.\n"


# --- CP2K -------------------------------------------------------------------------------------------------------------


def cp2k(frames, unconverged=None, version=2023, stress_unit="GPa", kind="MD", project="run"):
    """The log of a run; :func:`cp2k_xyz` makes the file of positions beside it."""
    per_unit = {"GPa": GPa, "bar": 1e-4 * GPa}[stress_unit]
    text = (
        " DBCSR| Multiplication driver                                               BLAS\n"
        "  **** **** ******  **  PROGRAM STARTED AT               2026-11-29 12:00:00.000\n"
        f" CP2K| version string:                                          CP2K version {version}.1\n"
        f" GLOBAL| Project name                                                        {project}\n"
        f" GLOBAL| Run type                                                     {kind}\n"
        f" CELL| Volume [angstrom^3]:         {frames.volume[0]:.6f}\n"
    )
    for name, vector in zip("abc", frames.cell[0], strict=True):
        text += f" CELL| Vector {name} [angstrom]:   {' '.join(f'{x:12.8f}' for x in vector)}   |{name}| =    4.0\n"
    text += " CELL| Periodicity                                                           XYZ\n"
    kinds = list(dict.fromkeys(frames.symbols))
    text += "".join(f"  {i + 1}. Atomic kind: {s:2s}       Number of atoms:       1\n" for i, s in enumerate(kinds))
    text += "\n MODULE QUICKSTEP: ATOMIC COORDINATES IN ANGSTROM\n\n   Atom Kind Element     X    Y    Z    Z(eff)   Mass\n\n"
    for i, (symbol, xyz) in enumerate(zip(frames.symbols, frames.positions[0], strict=True)):
        numbers = " ".join(f"{x:15.8f}" for x in xyz)
        text += f"{i + 1:7d} {kinds.index(symbol) + 1:4d} {symbol:2s}  {atomic_numbers[symbol]:3d} {numbers}   11.0000     63.5460\n"
    text += "\n\n"
    for k in range(len(frames)):
        converged = "run NOT converged ***" if k == unconverged else "run converged in    12 steps ***"
        unit = "[hartree]" if version >= 2024 else "[a.u.]:"
        text += f"\n  *** SCF {converged}\n\n  Total energy: {(frames.energy[k] + OFFSET) / HARTREE:25.14f}\n"
        text += f"\n ENERGY| Total FORCE_EVAL ( QS ) energy {unit}  {frames.energy[k] / HARTREE:25.15f}\n\n"
        forces = frames.forces[k] / (HARTREE / BOHR)
        if version >= 2024:
            text += "\n FORCES| Atomic forces [hartree/bohr]\n FORCES|   Atom     x      y      z     |f|\n"
            text += "".join(
                f" FORCES| {i + 1:6d} {' '.join(f'{x:15.8E}' for x in f)} 1.0E-02\n" for i, f in enumerate(forces)
            )
            text += " FORCES| Sum     0.0 0.0 0.0 0.0\n"
        else:
            text += "\n ATOMIC FORCES in [a.u.]\n\n # Atom   Kind   Element          X              Y              Z\n"
            text += "".join(
                f"{i + 1:7d} {1:6d}      {s:2s}  {' '.join(f'{x:15.8f}' for x in f)}\n"
                for i, (s, f) in enumerate(zip(frames.symbols, forces, strict=True))
            )
            text += " SUM OF ATOMIC FORCES           0.0 0.0 0.0 0.0\n"
        stress = printed_stress(frames, k) / per_unit
        head = f"\n STRESS| Analytical stress tensor [{stress_unit}]\n STRESS|                x          y          z\n"
        text += head + "".join(
            f" STRESS|      {name}  {' '.join(f'{x:19.11E}' for x in row)}\n"
            for name, row in zip("xyz", stress, strict=True)
        )
        text += " STRESS| 1/3 Trace         0.0\n\n"
    return text


def cp2k_xyz(frames, skip=()):
    """The file of positions (PROJECT-pos-1.xyz)."""
    text = ""
    for k in range(len(frames)):
        if k not in skip:
            text += (
                f"{len(frames.symbols):8d}\n i = {k:8d}, time = {k:12.3f}, E = {frames.energy[k] / HARTREE:20.10f}\n"
            )
            lines = zip(frames.symbols, rows(frames.positions[k], "{:20.10f}").splitlines(), strict=True)
            text += "".join(f"{s:>3s} {line}\n" for s, line in lines)
    return text


def cp2k_cells(frames):
    """The file of cells (PROJECT-1.cell)."""
    table = [[k, 0.5 * k, *frames.cell[k].ravel(), frames.volume[k]] for k in range(len(frames))]
    return "#   Step   Time [fs]       Ax [Angstrom] ...\n" + rows(table, "{:.10f}")


# --- FHI-aims ---------------------------------------------------------------------------------------------------------


def aims(frames, unconverged=None, has_stress=True, constrained=False):
    def geometry(k):
        vectors = rows(frames.cell[k], "{:16.8f}", "  lattice_vector ")
        lines = zip(rows(frames.positions[k], "{:16.8f}").splitlines(), frames.symbols, strict=True)
        return vectors.replace("lattice_vector ", "lattice_vector   ") + "".join(
            f"            atom   {x}  {s}\n" for x, s in lines
        )

    n = len(frames.symbols)
    text = (
        "          Invoking FHI-aims ...\n\n  | Number of atoms                   :" + f"{n:9d}\n"
        "  Input geometry:\n  | Unit cell:\n" + rows(frames.cell[0], "{:16.8f}", "  |  ")
        + "  | Atomic structure:\n  |       Atom                x [A]            y [A]            z [A]\n"
    )  # fmt: skip
    for i, (symbol, row) in enumerate(zip(frames.symbols, rows(frames.positions[0]).splitlines(), strict=True)):
        text += f"  |{i + 1:5d}: Species {symbol:8s} {row}\n"
    text += "\n  Complete information for previous time-step:\n" if len(frames) > 1 else "\n"
    for k in range(len(frames)):
        text += "\n  Begin self-consistency loop: Re-initialization.\n" if k else ""
        text += "\n  Begin self-consistency iteration #    1\n"
        text += f"  | Electronic free energy        :  {frames.energy[k] / HARTREE:.8f} Ha  {frames.energy[k]:.8f} eV\n"
        text += (
            "  Self-consistency cycle not yet converged.\n"
            if k == unconverged
            else "  Self-consistency cycle converged.\n"
        )
        if has_stress:
            bar = "  +-------------------------------------------------------------------+\n"
            text += f"{bar}  |      Analytical stress tensor - Symmetrized           |\n  |  Cartesian components [eV/A**3]   |\n{bar}"
            text += "  |                x                y                z      |\n  |                                        |\n"
            text += "".join(
                f"  |  {name}  {' '.join(f'{x:16.8f}' for x in row)}   |\n"
                for name, row in zip("xyz", -printed_stress(frames, k), strict=True)
            )
            text += bar
        text += (
            "\n  Energy and forces in a compact form:\n"
            f"  | Total energy uncorrected      :   {frames.energy[k] + OFFSET:.15E} eV\n"
            f"  | Total energy corrected        :   {frames.energy[k] + OFFSET / 2:.15E} eV\n"
            f"  | Electronic free energy        :   {frames.energy[k]:.15E} eV\n"
        )
        cleaned = ", then relaxation constraints were applied" if constrained else ""
        text += f"  Total atomic forces (unitary forces were cleaned{cleaned}) [eV/Ang]:\n"
        text += "".join(
            f"  | {i + 1:4d} {' '.join(f'{x:27.15E}' for x in f)}\n" for i, f in enumerate(frames.forces[k])
        )
        text += "\n  Atomic structure (and velocities) as used in the preceding time step:\n" + geometry(k)
    return text + "\n\n          Have a nice day.\n"


# --- GPAW -------------------------------------------------------------------------------------------------------------


def gpaw(frames, has_stress=True):
    text = "\n  ___ ___ ___ _ _ _  \n |   |   |_  | | | | \n | | | | | . | | | | \n |__ |  _|___|_____|  26.6.0\n |___|_|             \n\n"
    for k in range(len(frames)):
        text += "Positions:\n"
        text += "".join(
            f"{i:4d} {s:2s} {' '.join(f'{x:14.8f}' for x in xyz)}    ( 0.0000,  0.0000,  0.0000)\n"
            for i, (s, xyz) in enumerate(zip(frames.symbols, frames.positions[k], strict=True))
        )
        text += "\nUnit cell:\n           periodic     x           y           z      points  spacing\n"
        text += "".join(
            f"  {n}. axis:    yes  {' '.join(f'{x:13.8f}' for x in vector)}    12     0.2\n"
            for n, vector in zip("123", frames.cell[k], strict=True)
        )
        text += "\nConverged after 12 iterations.\n\nEnergy contributions relative to reference atoms: (reference = -1.0)\n\n"
        text += f"Kinetic:        +10.0\nEntropy (-ST):   {-OFFSET:.6f}\n--------------------------\n"
        text += f"Free energy:   {frames.energy[k]:+.8f}\nExtrapolated:  {frames.energy[k] + OFFSET / 2:+.8f}\n\n"
        if has_stress:
            text += "Stress tensor:\n" + rows(-printed_stress(frames, k), "{:12.8f}") + "\n"
        text += "Forces in eV/Ang:\n" + "".join(
            f"{i:3d} {s:2s} {' '.join(f'{x:12.8f}' for x in f)}\n"
            for i, (s, f) in enumerate(zip(frames.symbols, frames.forces[k], strict=True))
        )
        text += "\n"
    return text


# --- ABACUS -----------------------------------------------------------------------------------------------------------


def abacus(folder, frames, unconverged=None, has_stress=True, kind="md"):
    """The folder of a run: INPUT, STRU, OUT.ABACUS."""
    out = folder / "OUT.ABACUS"
    out.mkdir(parents=True)
    (folder / "INPUT").write_text(f"INPUT_PARAMETERS\ncalculation {kind}\ncal_force 1\ncal_stress {int(has_stress)}\n")
    kinds = sorted(set(frames.symbols), key=frames.symbols.index)
    stru = "ATOMIC_SPECIES\n" + "".join(f"{s} 1.0 {s}.upf\n" for s in kinds)
    stru += f"\nLATTICE_CONSTANT\n{1 / BOHR:.12f}\n\nLATTICE_VECTORS\n" + rows(frames.cell[0], "{:.10f}")
    stru += "\nATOMIC_POSITIONS\nCartesian\n"
    for s in kinds:
        own = [x for name, x in zip(frames.symbols, frames.positions[0], strict=True) if name == s]
        stru += f"\n{s}\n0.0\n{len(own)}\n" + rows(own, "{:.10f}", after=" 1 1 1")
    (folder / "STRU").write_text(stru)
    kbar = [printed_stress(frames, k) / (0.1 * GPa) for k in range(len(frames))]
    log, dump = "", ""
    for k in range(len(frames)):
        if k == unconverged:
            log += "\n !! convergence has not been achieved\n"
        else:
            log += f"\n final etot is {frames.energy[k]:.10f} eV\n"
        if kind == "scf":
            log += "\n TOTAL-FORCE (eV/Angstrom)\n ------------\n" + "".join(
                f" {s}{i + 1} {' '.join(f'{x:.10f}' for x in f)}\n"
                for i, (s, f) in enumerate(zip(frames.symbols, frames.forces[k], strict=True))
            )
            log += "\n TOTAL-STRESS (KBAR)\n -----------\n" + rows(kbar[k], "{:.10f}", " ") if has_stress else ""
        dump += f"MDSTEP:  {k}\nLATTICE_CONSTANT: 1.000000000000 Angstrom\nLATTICE_VECTORS\n" + rows(
            frames.cell[k], "{:.12f}"
        )
        dump += "VIRIAL (kbar)\n" + rows(kbar[k], "{:.12f}") if has_stress else ""
        dump += "INDEX    LABEL    POSITION (Angstrom)    FORCE (eV/Angstrom)\n" + "".join(
            f"{i} {s} {' '.join(f'{x:.12f}' for x in (*xyz, *f))}\n"
            for i, (s, xyz, f) in enumerate(zip(frames.symbols, frames.positions[k], frames.forces[k], strict=True))
        )
        dump += "\n\n"
    (out / f"running_{kind}.log").write_text(log)
    if kind == "md":
        (out / "MD_dump").write_text(dump)


# --- SIESTA -----------------------------------------------------------------------------------------------------------


def siesta(frames, unconverged=None):
    """One step: the output of a single point; several: of molecular dynamics. The stress is positive in tension."""
    kinds = list(dict.fromkeys(frames.symbols))
    is_single = len(frames) == 1
    text = f"redata: Number of Atomic Species                = {len(kinds):4d}\n"
    text += "".join(
        f"Species number: {i + 1:4d} Atomic number: {atomic_numbers[s]:4d} Label: {s}\n" for i, s in enumerate(kinds)
    )
    text += f"initatomlists: Number of atoms, orbitals, and projectors:  {len(frames.symbols):6d}    60    80\n\n"
    for k in range(len(frames)):
        text += "outcoor: Atomic coordinates (Ang):\n" + "".join(
            f"{' '.join(f'{x:14.8f}' for x in xyz)} {kinds.index(s) + 1:3d} {i + 1:8d} {s}\n"
            for i, (s, xyz) in enumerate(zip(frames.symbols, frames.positions[k], strict=True))
        )
        text += "\noutcell: Unit cell vectors (Ang):\n" + rows(frames.cell[k], "{:12.8f}", "    ") + "\n"
        energy = f"{frames.energy[k] + 2 * OFFSET:.6f}  {frames.energy[k] + OFFSET:.6f}  {frames.energy[k]:.6f}"
        text += "        iscf     Eharris(eV)        E_KS(eV)     FreeEng(eV)     dDmax    Ef(eV) dHmax(eV)\n"
        text += f"   scf:    1  -1.000000  -1.000000  -1.000000  1.0 -3.0  2.0\n   scf:    9  {energy}  0.000050 -3.0  0.000100\n"
        text += "SCF_NOT_CONV: SCF did not converge in maximum number of steps\n" if k == unconverged else ""
        text += f"siesta: E_KS(eV) =  {frames.energy[k] + OFFSET:18.4f}\n\nsiesta: Atomic forces (eV/Ang):\n"
        text += (
            "".join(f"{i + 1:6d} {' '.join(f'{x:12.6f}' for x in f)}\n" for i, f in enumerate(frames.forces[k]))
            + "----------------------------------------\n"
        )
        stress, pressure = -printed_stress(frames, k), np.trace(printed_stress(frames, k)) / 3 / (0.1 * GPa)
        text += "\nsiesta: Stress tensor (static) (eV/Ang**3):\n"
        text += rows(stress, "{:12.6f}", "siesta: " if is_single else "     ")
        text += f"\nsiesta: Pressure (static): {pressure:20.8f}  kBar\n\n"
    return text
