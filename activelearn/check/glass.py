"""Check the glasses of a study, and describe them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from activelearn import packing
from activelearn.config import (
    Composition,
    Glass,
    OwnGlasses,
    Pore,
    Segment,
    Study,
    load_glass,
    load_series,
    preset_names,
)
from activelearn.engines import dynamics, frozen
from activelearn.errors import ConfigError
from activelearn.glass import crystal_of, is_porous, unit_of

#: A cell may be this many times as large as requested.
_LARGEST_RATIO: Final = 2


def check_glass(study: Study, glass: Glass) -> tuple[list[str], list[str]]:
    """Return lines about the glasses that will be made, and their problems."""
    facts, problems = [], []
    for composition in glass.compositions:
        try:
            facts.append(f"glass x = {composition.x:g}: {_start_words(glass, composition)}")
            if glass.pore is not None and is_porous(glass.pore, composition):
                facts.append(f"glass x = {composition.x:g}: {_pore_words(glass.pore, composition, glass)}")
        except ConfigError as error:
            problems += [f"glass x = {composition.x:g}: {line}" for line in error.problems]
    facts += [*_schedules(study, glass), _count(study, glass)]
    return facts, [*problems, *_wrong_segments(glass), *strangers(study, glass)]


def resized(glass: Glass | None) -> Iterator[str]:
    """Yield a note on each composition whose cell does not have the requested size, printed before a run."""
    for composition, asked, found, what in _sizes(glass):
        if found != asked:
            yield f"note: glass x = {composition.x:g} has {found} {what}, the exact cell nearest to {asked}"


def far_sizes(glass: Glass | None) -> list[str]:
    """Return unusual cells, more than twice as large as requested, unless both presets are shipped (quick, na3ps4o)."""
    found = [one for one in _sizes(glass) if one[2] > _LARGEST_RATIO * one[1]]
    if glass is None or not found or _is_shipped(glass):
        return []
    return [
        f"glass.n_{what.split()[-1]}: x = {composition.x:g} has {n} {what}, the exact cell nearest to {asked} - usual "
        f"is at most twice the requested size - request {n}, or choose another x"
        for composition, asked, n, what in found
    ]


def _sizes(glass: Glass | None) -> Iterator[tuple[Composition, int, int, str]]:
    """Yield each packed composition, the requested size, the size of its cell, and the unit of both."""
    if glass is None:
        return
    for composition in glass.compositions:
        with contextlib.suppress(ConfigError):  # it cannot be packed, which is reported elsewhere
            packed = packing.of_glass(glass, composition) if composition.crystal is None else None
            if packed is not None and glass.n_atoms is not None and packed.n_atoms is not None:
                yield composition, glass.n_atoms, packed.n_atoms, "atoms"
            elif packed is not None and glass.n_units is not None and packed.n_units is not None:
                yield composition, glass.n_units, packed.n_units, "formula units"


def _is_shipped(glass: Glass) -> bool:
    """Return whether series and size are those of presets, which fit each other as well as possible."""
    shipped = [load_glass(name) for name in preset_names("glass")]
    sizes = {(one.n_atoms, one.n_units) for one in shipped}
    return glass.series.name in preset_names("series") and (glass.n_atoms, glass.n_units) in sizes


def _start_words(glass: Glass, composition: Composition) -> str:
    if composition.crystal is None:
        packed = packing.of_glass(glass, composition)
        n_atoms = packing.atoms_of(packing.counts_of(packed)).total()
        nearest = ""
        if glass.n_atoms not in {None, n_atoms}:
            nearest = f", the exact cell nearest to {glass.n_atoms} atoms"
        elif packed.n_units != glass.n_units:
            nearest = f", the cell of whole units nearest to {glass.n_units} formula units"
        return packing.describe(packed) + nearest
    frame, density = crystal_of(glass, composition), composition.density_g_cm3
    return f"{frame.formula} ({frame.n_atoms} atoms, the crystal {composition.crystal} at {density:.2f} g/cm3)"


def _pore_words(pore: Pore, composition: Composition, glass: Glass) -> str:
    """Return what a pore removes.

    Raises
    ------
    ConfigError
        Half of the glass would be removed; the rest would not be a glass with a pore.
    """
    packed, unit = packing.of_glass(glass, composition), unit_of(composition, glass)
    box, n_atoms = packing.box_of(packed), packing.atoms_of(packing.counts_of(packed)).total()
    n_inside = math.pi * pore.diameter_A**3 / 6.0 / box**3 * n_atoms
    n_gone = math.ceil(n_inside / unit.total()) * unit.total()
    name = "".join(f"{element}{n if n > 1 else ''}" for element, n in sorted(unit.items()))
    if pore.diameter_A >= box or 2 * n_gone > n_atoms:
        raise ConfigError(
            f"glass.pore: a sphere of {pore.diameter_A:g} Å in a box of {box:.1f} Å, completed to whole {name}, "
            f"removes {n_gone} of {n_atoms} atoms - expected at least half of the glass left - raise n_atoms, or lower "
            "diameter_A"
        )
    return f"pore of {pore.diameter_A:g} Å: about {n_inside:.0f} atoms; removes whole {name}, {n_gone} atoms or more"


def _schedules(study: Study, glass: Glass) -> Iterator[str]:
    """Yield one line per schedule of a glass, with its steps, since potentials may have their own time steps."""
    timesteps = sorted({dynamics.timestep_of(potential, glass.dynamics) for potential in study.potentials})
    rates = glass.cooling_rates_K_per_ps
    paths = [(f"schedule at {rate:g} K/ps", glass.schedule(rate)) for rate in rates] or [("schedule", glass.segments)]
    if glass.pore is not None:
        paths.append(("schedule of the pore", glass.pore.segments))
    for name, segments in paths:
        ps = sum(segment.duration_ps for segment in segments)
        steps = [sum(dynamics.steps_of(s, glass.dynamics, fs).n_steps for s in segments) for fs in timesteps]
        counted = " or ".join(f"{n:,} steps of {fs:g} fs" for n, fs in zip(steps, timesteps, strict=True))
        yield f"{name}: {'; '.join(map(_words, segments))} = {ps:g} ps, {counted}"


def _count(study: Study, glass: Glass) -> str:
    each = glass.n_replicas * (len(glass.cooling_rates_K_per_ps) or 1) * len(study.potentials)
    n_compositions = len(glass.compositions)
    n_porous = sum(glass.pore is not None and is_porous(glass.pore, c) for c in glass.compositions) * each
    factors = {
        "potential": len(study.potentials),
        "composition": n_compositions,
        "replica": glass.n_replicas,
        "cooling rate": len(glass.cooling_rates_K_per_ps),
    }
    counted = ", ".join(f"{n} {what}{'s' if n > 1 else ''}" for what, n in factors.items() if n)
    again = f", {n_porous} of them again with a pore" if n_porous else ""
    return f"glasses: {each * n_compositions} of {glass.series.title} ({counted}){again}"


def _words(segment: Segment) -> str:
    ramp = f" to {segment.end_K:g}" if segment.to_temperature_K is not None else ""
    pressure = f" {segment.pressure_bar:g} bar" if segment.is_npt else ""
    analysed = ", analysed" if segment.is_analysed else ""
    return (
        f"{segment.name} {segment.ensemble} {segment.temperature_K:g}{ramp} K{pressure} "
        f"{segment.duration_ps:g} ps{analysed}"
    )


def _wrong_segments(glass: Glass) -> Iterator[str]:
    """Yield segments that should not be averaged over or lack their ensemble, and a pore that is not measured."""
    pore = glass.pore.segments if glass.pore is not None else ()
    for segment in (*glass.segments, *pore):
        if segment.pressure_bar and not segment.is_npt:
            yield (
                f"glass.segments: {segment.name} has pressure_bar {segment.pressure_bar:g}, and ensemble nvt fixes the "
                "cell - expected an npt ensemble - set ensemble: npt-iso, or remove pressure_bar"
            )
        if segment.is_analysed and segment.end_K != segment.temperature_K:
            yield (
                f"glass.segments: {segment.name} is analysed during a ramp from {segment.temperature_K:g} to "
                f"{segment.end_K:g} K - expected averages at one temperature - analyse a later segment"
            )
    if pore and not any(segment.is_analysed for segment in pore):
        yield "glass.pore.segments: none has is_analysed: true - expected one - set it on the last, for example"


def strangers(study: Study, glass: Glass | OwnGlasses) -> Iterator[str]:
    """Yield the potentials that do not know an element of the series."""
    elements = packing.elements_of(unit for composition in glass.compositions for unit in composition.units)
    for potential in study.potentials:
        if unknown := frozen.unknown_to(potential, elements):
            known = frozen.elements_of(potential) or set()
            own = [f"{c.x:g}" for c in glass.series.compositions if packing.elements_of(c.units) <= known]
            fitting = [f"--x {','.join(own)}"] * bool(own)
            if isinstance(glass, Glass):
                fitting += map(str, series_of(known, glass))
            yield (
                f"potential {potential.name}: does not know {', '.join(unknown)} of series {glass.series.name} - "
                f"expected all its elements - {choice(fitting, known)}, or choose another potential"
            )


class Fitting(NamedTuple):
    """A shipped series, or those x of it that fit; as a string, the options for it: ``--series X --x 0,0.5``."""

    series: str
    x: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the options that select it."""
        return f"--series {self.series}" + f" --x {','.join(self.x)}" * bool(self.x)

    @property
    def keys(self) -> str:
        """The YAML keys that select it."""
        return f"series: {self.series}" + f" with x: [{', '.join(self.x)}]" * bool(self.x)


def series_of(known: set[str] | None, glass: Glass) -> list[Fitting]:
    """Return the shipped series of these elements that fit into such cells.

    Parameters
    ----------
    known
        Elements; None: all.
    glass
        With the requested number of atoms or formula units.
    """
    found = []
    for name in preset_names("series"):
        made = glass.model_copy(update={"series": load_series(name), "x": None, "pore": None})
        of_known = [c for c in made.compositions if known is None or packing.elements_of(c.units) <= known]
        fit = tuple(f"{composition.x:g}" for composition in of_known if _fits(made, composition))
        if fit:
            found.append(Fitting(name, fit if len(fit) < len(made.compositions) else ()))
    return found


def choice(fitting: Sequence[str], known: set[str]) -> str:
    """Return what to choose: a fitting series, or else a series to write."""
    if fitting:
        return f"choose {' or '.join(fitting)}"
    return f"write a series of {', '.join(sorted(known))} (params/GLASSES.md)"


def _fits(glass: Glass, composition: Composition) -> bool:
    """Return whether there is a cell of that stoichiometry near the requested number of atoms."""
    try:
        packing.counts_of(glass.packed(composition))
    except ConfigError:
        return False
    return True
