"""The LAMMPS input of a segment: potential, thermostat and barostat, output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from activelearn.config import D3, Dynamics, Potential, Segment
from activelearn.engines.backends import atom_style
from activelearn.engines.dynamics import Steps, timestep_of
from activelearn.errors import ConfigError
from activelearn.frames import make_origin

#: Cutoffs of the dispersion energy and of its coordination numbers, Å.
D3_CUTOFFS: Final = (30.0, 20.0)
#: LAMMPS' name of a damping ("zero" is also a pair style there, so ambiguous in a hybrid).
_DAMPING: Final = {"zero": "original"}
#: Blow-ups are detected relative to this temperature if the imposed one is lower, K.
COLDEST_TARGET: Final = 300.0


def elements_of(potential: Potential, symbols: Sequence[str]) -> list[str]:
    """Return the elements in the order of LAMMPS' atom types.

    Raises
    ------
    ConfigError
        A pair style of the user's own has no atom type for an element of the structure.
    """
    present = sorted(set(symbols))
    if potential.lammps is None:
        return present
    unknown = sorted(set(present) - set(potential.lammps.elements))
    if unknown:
        raise ConfigError(
            f"potential {potential.name}: no atom type for {', '.join(unknown)} - expected all elements of the glass "
            "in lammps.elements - add them"
        )
    return list(potential.lammps.elements)


def head_lines(begin: str, pair: Sequence[str] = ()) -> list[str]:
    """Return the first lines of every input; `begin` reads the atoms, `pair` follows."""
    return [
        "units           metal",
        "boundary        p p p",
        *atom_style(pair).splitlines(),
        "box             tilt large",
        begin,
        "neighbor        1.0 bin",
    ]


def pair_lines(potential: Potential, elements: Sequence[str], out_freq: int) -> list[str]:
    """Return the lines that declare a potential.

    Parameters
    ----------
    potential
        DeePMD models or a pair style.
    elements
        In the order of the atom types.
    out_freq
        Steps between force deviations of an ensemble.
    """
    if potential.deepmd is not None:
        style = f"deepmd {' '.join(potential.deepmd.models)}"
        if len(potential.deepmd.models) > 1:
            style += f" out_file model_devi.out out_freq {out_freq}"
        coefficients = [f"* * {' '.join(elements)}"]
    else:
        assert potential.lammps is not None  # one of the two
        style, coefficients = potential.lammps.pair_style, list(potential.lammps.pair_coeff)
    more = []
    if potential.d3 is not None:
        style, coefficients = _with_dispersion(style, coefficients, potential.d3, elements)
        # Thousands of atoms are within 30 Å of an atom; the default of 2000 would stop the run.
        more = ["neigh_modify    one 50000 page 500000"]
    return [f"pair_style      {style}", *(f"pair_coeff      {line}" for line in coefficients), *more]


def _with_dispersion(style: str, coefficients: Sequence[str], d3: D3, elements: Sequence[str]) -> tuple[str, list[str]]:
    """Overlay D3 on a pair style: a plain style is repeated in each of its coefficients."""
    name = style.split(maxsplit=1)[0]
    if name == "hybrid/overlay":
        named = list(coefficients)
    elif name.startswith("hybrid"):
        raise ConfigError(f"pair_style {name} with d3 - expected hybrid/overlay, or a plain style - change lammps")
    else:
        style = f"hybrid/overlay {style}"
        named = [" ".join([*line.split()[:2], name, *line.split()[2:]]) for line in coefficients]
    far, near = D3_CUTOFFS
    style += f" dispersion/d3 {_DAMPING[d3.damping]} {d3.method.lower()} {far} {near}"
    return style, [*named, f"* * dispersion/d3 {' '.join(elements)}"]


@dataclass(frozen=True)
class Run:
    """One segment with all settings of its input.

    Parameters
    ----------
    potential, segment, dynamics
        The potential, the conditions, and the integration.
    steps
        The segment in steps.
    elements
        In the order of the atom types.
    """

    potential: Potential
    segment: Segment
    dynamics: Dynamics
    steps: Steps
    elements: tuple[str, ...]

    @property
    def timestep_ps(self) -> float:
        """Time step, ps."""
        return timestep_of(self.potential, self.dynamics) / 1000.0

    def target_K(self, step: int) -> float:
        """Return the imposed temperature at a step, K."""
        s = self.segment
        return s.temperature_K + (s.end_K - s.temperature_K) * step / self.steps.n_steps

    def origin_of(self, steps: Sequence[int]) -> NDArray[np.void]:
        """Return the origin (n,) of frames at some steps: imposed temperature and pressure (K, bar), no deviation."""
        pressure_bar = self.segment.pressure_bar if self.segment.is_npt else 0.0
        temperature_K = [self.target_K(step) for step in steps]
        return make_origin(
            len(steps), walk=self.segment.name, step=steps, temperature_K=temperature_K, pressure_bar=pressure_bar
        )

    def hottest_K(self, step: int) -> float:
        """Return the temperature above which a run has blown up, K."""
        return self.dynamics.max_temperature_factor * max(self.target_K(step), COLDEST_TARGET)


def segment_input(run: Run, data: str, restart: str | None = None, begun: int = 0) -> str:
    """Return the input of a segment, from its start or from a restart file.

    Parameters
    ----------
    run
        The segment.
    data
        File of the start, relative to the working directory.
    restart
        File to continue from instead; it contains the state of thermostat and barostat under the names of their fixes.
    begun
        Step of the restart file.
    """
    steps = run.steps
    if restart is None:
        begin, still = f"read_data       {data}", ["velocity        all zero linear"]
    else:
        begin, still = f"read_restart    {restart}", []
    pair = pair_lines(run.potential, run.elements, steps.deviation_every)
    lines = [
        *head_lines(begin, pair),
        *pair,
        *still,
        f"timestep        {run.timestep_ps:.10g}",
        _thermostat(run, begun),
        *_halt(run),
        f"thermo          {steps.thermo_every}",
        "thermo_style    custom step temp pe press vol",
        "thermo_modify   flush yes",
        "variable        frames file frames.steps",
        "variable        next_frame equal next(frames)",
        "dump            frames all custom 1 frames.lammpstrj id type x y z vx vy vz",
        "dump_modify     frames every v_next_frame sort id format float %.17g flush yes",
        f"restart         {steps.restart_every} restart.a restart.b",
        f"run             {steps.n_steps} upto start 0 stop {steps.n_steps}",
    ]
    return "\n".join([f"# segment {run.segment.name}", *lines, ""])


def _thermostat(run: Run, begun: int) -> str:
    """Return the fix of the ensemble.

    LAMMPS sets the mass of the barostat once, proportional to the target temperature at the start of a run, times the
    square of the damping time. A continued ramp gets the damping time that reproduces the original mass.
    """
    s, d = run.segment, run.dynamics
    fix = f"temp {s.temperature_K:.10g} {s.end_K:.10g} {d.temperature_damping_ps:.10g}"
    if not s.is_npt:
        return f"fix             dynamics all nvt {fix}"
    mode = s.ensemble.removeprefix("npt-")
    damping_ps = d.pressure_damping_ps * (run.target_K(0) / run.target_K(begun)) ** 0.5
    pressure = f"{mode} {s.pressure_bar:.10g} {s.pressure_bar:.10g} {damping_ps:.17g}"
    return f"fix             dynamics all npt {fix} {pressure}"


def _halt(run: Run) -> list[str]:
    """Return the lines that stop a blown-up run; written as "not colder than", so that NaN stops it, too."""
    target = f"ramp({run.segment.temperature_K:.10g},{run.segment.end_K:.10g})"
    at_least = f"ternary(v_target>{COLDEST_TARGET:g},v_target,{COLDEST_TARGET:g})"
    return [
        f"variable        target equal {target}",
        f"variable        is_hot equal !(temp<{run.dynamics.max_temperature_factor:.10g}*{at_least})",
        f"fix             hot all halt {run.steps.thermo_every} v_is_hot == 1 error soft message no",
    ]
