"""One segment of molecular dynamics by ASE: Nosé-Hoover chains, as in LAMMPS' ``fix nvt`` and ``fix npt``.

Imported by answering.py, with the calculator of its neighbours; never imports activelearn. Differences of ASE's
integrators from LAMMPS' are removed here: the thermostat counts 3N - 3 degrees of freedom (the centre of mass rests),
along a ramp its masses follow the target, those of the barostat do not; in the full cell the barostat has the six that
do not rotate it.

The state of a segment is in one file, the checkpoint, written atomically; the integrator is restored exactly. What
a calculator carries over between steps (a neighbour list with a skin changes the last bits) is reset at every row of
the table, resumed or not, so that a segment continued from a row is identical to an undisturbed one.
"""

import os
import time
import zipfile
from typing import Any

import numpy as np
from ase import units
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, MaskedMTKNPT, NoseHooverChainNVT

#: Length of the chains of thermostat and barostat.
CHAIN = 3
#: Wall-clock seconds after which a checkpoint is written at the next row; after twice as long, at any step.
CHECKPOINT_S = 60.0
PS = 1000.0 * units.fs


class SegmentRun:
    """A running segment: request, integrator, output so far.

    Parameters
    ----------
    atoms
        The start, with its calculator.
    request
        ``ensemble``, ``temperature_K``, ``end_K``, ``pressure_bar``, ``velocities`` (Å/ps), ``timestep_fs``,
        ``temperature_damping_ps``, ``pressure_damping_ps``, ``n_steps``, ``thermo_every``, ``restart_every``,
        ``frames`` (steps), ``keep_velocities`` (of frames), ``max_temperature_factor``, ``coldest_target_K``,
        ``checkpoint`` (path). It may have ``n_steps_of_ramp``, after which a ramp (and a deformation) would be at its
        end, and ``final_cell`` (Å): then the cell is driven there in NVT, and the atoms with it. With ``others``, the
        calculators of the other members of an ensemble, it has ``deviation_every`` (steps).
    forget
        Called with the calculator, makes it forget earlier structures.
    """

    def __init__(self, atoms, request, forget):
        self.atoms, self.request = atoms, request
        self.frame_steps = set(request["frames"])
        self.n_steps_of_ramp = request.get("n_steps_of_ramp", request["n_steps"])
        self.cells_driven: Any = None  # first and last
        if request.get("final_cell") is not None:
            self.cells_driven = atoms.cell.array.copy(), np.array(request["final_cell"])
        velocities = np.array(request["velocities"]) / PS
        masses = atoms.get_masses()[:, None]
        atoms.set_velocities(velocities - (masses * velocities).sum(axis=0) / masses.sum())
        self.integrator = integrator_of(atoms, request)
        self.parts = {"": self.integrator, "thermostat": self.integrator._thermostat}
        if hasattr(self.integrator, "_barostat"):
            self.parts["barostat"] = self.integrator._barostat
        self.step, self.resumed, self.started = 0, 0, time.time()
        self.rows, self.positions, self.cells, self.velocities = [], [], [], []
        self.others, self.forget, self.deviations = request.get("others", ()), forget, []
        move = self.integrator._integrate_q

        def move_and_forget(delta):
            """Reset between the last use of the old forces and the first of the new: no force is computed twice."""
            if self.step % request["thermo_every"] == 0:
                forget(atoms.calc)
            move(delta)
            if self.cells_driven is not None:
                self.deform()

        self.integrator._integrate_q = move_and_forget

    @property
    def is_row(self):
        """Whether the step has a row in the table."""
        return self.step % self.request["thermo_every"] == 0

    @property
    def time_ps(self):
        """Time since the start, ps."""
        return self.step * self.request["timestep_fs"] / 1000.0

    def target_K(self):
        """Return the imposed temperature of the step, K."""
        begin, end = self.request["temperature_K"], self.request["end_K"]
        return begin + (end - begin) * self.step / self.n_steps_of_ramp

    def deform(self):
        """Set the cell imposed at the step, and move the atoms with it, as LAMMPS' fix deform does.

        Called between the old forces and the new, so that none is computed twice.
        """
        first, last = self.cells_driven
        cell = first + (last - first) * self.step / self.n_steps_of_ramp
        self.integrator._q = self.integrator._q @ np.linalg.solve(self.atoms.cell.array, cell)
        self.atoms.set_cell(cell)

    def temperature_K(self):
        """Return the temperature of the step, K."""
        degrees = max(1, 3 * len(self.atoms) - 3)
        return float(2.0 * self.atoms.get_kinetic_energy() / (degrees * units.kB))

    def advance(self):
        """Make one step, with the temperature that is imposed at its end, as LAMMPS does."""
        self.step += 1
        thermostat, kT = self.integrator._thermostat, units.kB * self.target_K()
        growth = kT / thermostat._kT
        thermostat._kT = kT
        thermostat._Q *= growth
        thermostat._p_eta *= growth  # the chain keeps its velocities
        if "barostat" in self.parts:
            self.parts["barostat"]._kT = kT
        self.integrator.step()

    def what_is_wrong(self):
        """Return why the segment cannot continue, or None."""
        hot_K = self.temperature_K()
        if not (np.isfinite(hot_K) and np.isfinite(self.atoms.positions).all() and np.isfinite(self.atoms.cell).all()):
            return "non-finite"
        target_K = max(self.target_K(), self.request["coldest_target_K"])
        if hot_K > self.request["max_temperature_factor"] * target_K:
            return f"too hot: {hot_K:.0f} K at {self.time_ps:g} ps"
        return None

    def keep(self):
        """Store the row of the step, if it has one, and its frame; return what is wrong with them, or None."""
        if self.is_row and (wrong := self.keep_row()):
            return wrong
        if self.others and self.step % self.request["deviation_every"] == 0:
            self.deviations.append((self.step, deviation := self.max_devi_f()))
            if not np.isfinite(deviation):
                return "non-finite"
        if self.step in self.frame_steps:
            self.positions.append(self.atoms.positions.copy())
            self.cells.append(self.atoms.cell.array.copy())
            if self.request["keep_velocities"]:
                self.velocities.append(self.atoms.get_velocities() * PS)
        return None

    def max_devi_f(self):
        """Return the force deviation of the ensemble, as activelearn/select/window.py has it, eV/Å."""
        atoms, forces = self.atoms.copy(), [self.atoms.get_forces()]
        for calculator in self.others:
            self.forget(calculator)
            atoms.calc = calculator
            forces.append(atoms.get_forces())
        spread = np.array(forces) - np.mean(forces, axis=0)
        return float(np.sqrt((spread**2).sum(axis=-1).mean(axis=0)).max())

    def keep_row(self):
        """Store the row of the step; return what is wrong with it, or None."""
        atoms = self.atoms
        forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False, include_ideal_gas=True)
        results = atoms.calc.results
        energy = float(np.squeeze(results["free_energy"] if "free_energy" in results else atoms.get_potential_energy()))
        row = [self.temperature_K(), energy, float(-np.trace(stress) / 3.0 / units.bar), float(atoms.get_volume())]
        if not (np.isfinite(row).all() and np.isfinite(forces).all()):
            return "non-finite"
        self.rows.append(row)
        return None

    def save(self, ended=""):
        """Write everything to the checkpoint atomically: a kill leaves the old one or the new one."""
        n_atoms = len(self.atoms)
        state = {f"{part}/{name}": value for part, one in self.parts.items() for name, value in numbers_of(one).items()}
        path = self.request["checkpoint"]
        with open(path + ".tmp", "wb") as stream:
            np.savez(
                stream,
                step=self.step,
                resumed=self.resumed,
                ended=ended,
                rows=np.reshape(self.rows, (-1, 4)),
                positions=np.reshape(self.positions, (-1, n_atoms, 3)),
                cells=np.reshape(self.cells, (-1, 3, 3)),
                velocities=np.reshape(self.velocities, (-1, n_atoms, 3)),
                deviations=np.reshape(self.deviations, (-1, 2)),
                last_positions=self.atoms.positions,
                last_cell=self.atoms.cell.array,
                last_velocities=self.atoms.get_velocities() * PS,
                started=self.started,
                finished=time.time(),
                **state,
            )
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(path + ".tmp", path)

    def resume(self):
        """Continue from the checkpoint; return whether there is an intact one."""
        try:
            with open(self.request["checkpoint"], "rb") as stream, np.load(stream) as archive:
                saved = dict(archive)
        except (FileNotFoundError, ValueError, EOFError, zipfile.BadZipFile):
            return False
        self.step, self.resumed = int(saved["step"]), int(saved["resumed"]) + 1
        self.rows = saved["rows"].tolist()
        self.positions, self.cells = list(saved["positions"]), list(saved["cells"])
        self.velocities = list(saved.get("velocities", ()))  # an earlier version kept none
        self.deviations = list(saved.get("deviations", ()))  # nor these
        for part, one in self.parts.items():
            for name in numbers_of(one):
                value = saved[f"{part}/{name}"]
                setattr(one, name, value if value.ndim else float(value))
        if self.cells_driven is not None:
            self.atoms.set_cell(saved["last_cell"])
        self.integrator._update_atoms()
        return True


def integrator_of(atoms, request):
    """Return ASE's integrator of an ensemble, with the degrees of freedom as in LAMMPS."""
    thermal = {
        "timestep": request["timestep_fs"] * units.fs,
        "temperature_K": request["temperature_K"],
        "tdamp": request["temperature_damping_ps"] * PS,
        "tchain": CHAIN,
    }
    pressing = {
        "pressure_au": request["pressure_bar"] * units.bar,
        "pdamp": request["pressure_damping_ps"] * PS,
        "pchain": CHAIN,
    }
    ensemble = request["ensemble"]
    made: Any
    if ensemble == "nvt":
        made = NoseHooverChainNVT(atoms, **thermal)
    elif ensemble == "npt-iso":
        made = IsotropicMTKNPT(atoms, **thermal, **pressing)
    elif ensemble == "npt-aniso":
        made = MaskedMTKNPT(atoms, **thermal, **pressing, mask=(True, True, True))
        made._h0_basis = np.eye(3)  # along x, y and z, for any cell angles
    else:
        made = MTKNPT(atoms, **thermal, **pressing)
        made._barostat._cell_dof = 6  # its momentum is symmetric: it never rotates the cell
    if ensemble != "nvt":
        made._barostat._R[0] = made._barostat._R[-1]  # ASE's is heavier; the average over time is the same
    thermostat, n_moving = made._thermostat, max(1, len(atoms) - 1)  # atoms whose 3 n degrees of freedom there are
    thermostat._Q[0] *= n_moving / thermostat._num_atoms_global
    thermostat._num_atoms_global = n_moving
    return made


def numbers_of(part):
    """Return all numbers of an integrator, thermostat or barostat, by name."""
    return {name: value for name, value in vars(part).items() if isinstance(value, float | np.ndarray)}


def run(atoms, request, forget, end_of):
    """Run or continue a segment to its end; all output is in the checkpoint.

    Parameters
    ----------
    atoms, request, forget
        As in :class:`SegmentRun`.
    end_of
        Returns, for an exception, how the segment has ended; None to raise it.
    """
    segment = SegmentRun(atoms, request, forget)
    try:
        ended = segment.what_is_wrong() if segment.resume() else segment.what_is_wrong() or segment.keep()
        saved = time.monotonic()
        while ended is None and segment.step < request["n_steps"]:
            segment.advance()
            ended = segment.what_is_wrong() or segment.keep()
            waited = time.monotonic() - saved
            is_due = segment.step % request["restart_every"] == 0 or waited > CHECKPOINT_S * (2 - segment.is_row)
            if ended is None and is_due and segment.step < request["n_steps"]:
                segment.save()
                saved = time.monotonic()
    except Exception as error:
        if (words := end_of(error)) is None:
            raise
        ended = f"{words} at {segment.time_ps:g} ps"
    segment.save(ended or "finished")
    return {"ended": ended or "finished", "resumed": segment.resumed}
