"""Bounds of numbers: every quantity of our YAML with its unit, possible and usual range, and the source.

The type of a field refers to its row: ``timestep_fs: Annotated[PositiveFloat, of("time step")]``. Impossible values
are refused and unusual ones need acceptance in ``check`` and in all commands that compute; a sealed campaign is read as
it is. The table is also in docs/bounds.md.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from math import inf
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel

Range = tuple[float, float]


@dataclass(frozen=True)
class Quantity:
    """A row of the table.

    Parameters
    ----------
    name, unit
        In words; an empty unit for a pure number.
    possible, usual
        Inclusive limits, in that unit.
    source
        Source of the usual range.
    mistaken
        Other units that may have been meant, and their conversion factors to ours.
    """

    name: str
    unit: str
    possible: Range
    usual: Range
    source: str
    mistaken: Mapping[str, float] = field(default_factory=dict, hash=False)

    def said(self, value: float) -> str:
        """Return the number with its unit, and the unit that may have been meant."""
        written = f"{value:g} {self.unit}".rstrip()
        low, high = self.usual
        meant = next((unit for unit, factor in self.mistaken.items() if low <= value * factor <= high), None)
        if meant is None or low <= value <= high:
            return written
        ours = f"{value * self.mistaken[meant]:g} {self.unit}".rstrip()
        kind = f"in {self.unit}" if self.unit else "a pure number"
        return f"{written} (it is {kind}: was {value:g} meant in {meant}, {ours}?)"

    def written(self, ends: Range) -> str:
        """Return a range in words."""
        low, high = ends
        if high == inf:
            words = f"{low:g} or more"
        elif low == -inf:
            words = f"at most {high:g}"
        else:
            words = f"{low:g} to {high:g}"
        return f"{words} {self.unit}".rstrip()


@dataclass(frozen=True)
class Outlier:
    """A number outside the usual range: where it is, its value, and whether it is possible at all."""

    where: str
    value: float
    quantity: Quantity

    @property
    def is_possible(self) -> bool:
        """Whether it may be accepted."""
        low, high = self.quantity.possible
        return low <= self.value <= high

    def __str__(self) -> str:
        """Return a sentence: a problem, or an unusual value."""
        q = self.quantity
        if self.is_possible:
            return f"{self.where}: {q.said(self.value)} - usual is {q.written(q.usual)} ({q.name}; {q.source})"
        return f"{self.where}: {q.said(self.value)} - expected {q.written(q.possible)} ({q.name}) - fix it"


_PER_CENT: Final = {"per cent": 0.01}
_ENERGY: Final = {"meV": 1.0e-3, "Hartree": 27.2114, "kcal/mol": 0.0433641}
_FORCE: Final = {"meV/Å": 1.0e-3, "Hartree/Bohr": 51.4221}
_LENGTH: Final = {"nm": 10.0, "pm": 0.01, "m": 1.0e10}
_TIME: Final = {"fs": 1.0e-3, "ns": 1.0e3, "s": 1.0e12}
_HERE: Final = "our choice"
_LUO: Final = "Luo et al. 2024"
_MD: Final = "LAMMPS manual"
_DEEPMD: Final = "DeePMD-kit manual"
_ROWS: Final = (
    # exploring
    Quantity("time step", "fs", (0.01, 50), (0.05, 10), _MD, {"ps": 1.0e3, "s": 1.0e15}),
    Quantity("temperature", "K", (0.1, 1.0e5), (1, 1.0e4), f"{_LUO}: 10 to 2000", {"eV": 11604.5, "kK": 1.0e3}),
    Quantity("pressure", "bar", (-1.0e8, 1.0e8), (-1.0e5, 1.0e5), f"{_LUO}: 0 to 50000", {"Pa": 1.0e-5, "kPa": 0.01}),
    Quantity("strain of a walk", "", (-0.9, 9), (-0.6, 1.5), f"{_LUO}: 0.5", _PER_CENT),
    Quantity("scale of lengths", "", (0.3, 3), (0.5, 2), f"{_LUO}: 0.95 to 1.05", _PER_CENT),
    Quantity("displacement", "Å", (0, 2), (0, 0.5), f"{_LUO}: 0.01", _LENGTH),
    Quantity(
        "displacement between frames of a relaxation", "Å", (0.001, 10), (0.05, 1), "a bond is 1 to 3 Å long", _LENGTH
    ),
    Quantity("strain of a distortion", "", (0, 0.5), (0, 0.2), f"{_LUO}: 0.03", _PER_CENT),
    Quantity("thermostat damping", "ps", (1.0e-3, 100), (0.01, 20), f"{_MD}: 100 time steps", _TIME),
    Quantity("barostat damping", "ps", (0.01, 1000), (0.05, 100), f"{_MD}: 1000 time steps", _TIME),
    Quantity("friction", "1/ps", (1.0e-3, 1.0e4), (0.01, 1000), "ASE manual", {"1/fs": 1.0e3}),
    Quantity("number of MD steps", "", (1, 1.0e9), (1, 1.0e7), f"{_LUO}: 20000"),
    Quantity("number of steps between frames", "", (1, 1.0e8), (1, 1.0e5), _HERE),
    Quantity("number of walks", "", (1, 1.0e5), (1, 2000), _HERE),
    Quantity("number of copies", "", (1, 1.0e5), (1, 1000), f"{_LUO}: 10"),
    Quantity("number of packings", "", (1, 1000), (1, 100), _HERE),
    Quantity("number of repetitions", "", (1, 50), (1, 20), _HERE),
    Quantity("number of atoms of a labelled cell", "", (1, 2.0e4), (1, 2000), _HERE),
    Quantity("number of formula units of a labelled cell", "", (1, 1.0e4), (1, 1000), _HERE),
    Quantity("height of a cell", "Å", (1, 200), (2, 60), _HERE, _LENGTH),
    Quantity("edge of the box of isolated atoms", "Å", (5, 200), (8, 50), _HERE, _LENGTH),
    Quantity("distance in sums of covalent radii", "", (0.1, 10), (0.3, 5), _HERE, _PER_CENT),
    Quantity("share of held-out frames", "", (0, 0.9), (0.01, 0.5), _HERE, _PER_CENT),
    Quantity("number of passes", "", (1, 1.0e5), (1, 1000), f"{_LUO}: 95"),
    # packing and glass
    Quantity("density", "g/cm3", (0.01, 40), (0.2, 23), "osmium: 22.6", {"kg/m3": 1.0e-3}),
    Quantity("distance of packed units", "Å", (0.3, 5), (0.8, 3.5), "Packmol manual: 2", _LENGTH),
    Quantity("amount of a unit", "", (1.0e-4, 1.0e6), (1.0e-3, 1000), _HERE),
    Quantity("number of atoms of a glass", "", (1, 1.0e6), (1, 1.0e5), f"{_LUO}: 1600"),
    Quantity("number of formula units of a glass", "", (1, 1.0e6), (1, 5.0e4), _HERE),
    Quantity("number of replicas", "", (1, 1000), (1, 50), f"{_LUO}: 5"),
    Quantity("duration", "ps", (1.0e-3, 1.0e8), (1.0e-3, 1.0e6), f"{_LUO}: 50000", _TIME),
    Quantity("interval", "ps", (1.0e-4, 1.0e6), (1.0e-3, 1.0e4), _HERE, _TIME),
    Quantity("cooling rate", "K/ps", (1.0e-6, 1.0e7), (1.0e-4, 1.0e5), f"{_LUO}: 2.2", {"K/s": 1.0e-12, "K/fs": 1.0e3}),
    Quantity("number of frames kept", "", (1, 1.0e7), (1, 1.0e5), _HERE),
    Quantity("cutoff of a bond or shell", "Å", (0.3, 20), (0.7, 8), _HERE, _LENGTH),
    Quantity("diameter of a pore", "Å", (1, 500), (3, 100), f"{_LUO}: 14", _LENGTH),
    Quantity("factor on a temperature", "", (1, 1000), (1.2, 20), _HERE),
    Quantity("charge of an ion", "e", (1, 8), (1, 6), "periodic table"),
    Quantity("coordination number", "", (1, 24), (2, 12), "periodic table"),
    Quantity("share of a path", "", (0, 1), (0, 0.5), _HERE, _PER_CENT),
    # relaxing
    Quantity("force left by a relaxation", "eV/Å", (1.0e-6, 50), (1.0e-5, 5), f"{_LUO}: 0.01", _FORCE),
    Quantity("number of relaxation steps", "", (1, 1.0e6), (1, 1.0e4), _HERE),
    # selecting
    Quantity("force deviation", "eV/Å", (1.0e-8, 50), (1.0e-3, 10), f"{_LUO}: 0.15 to 0.35", _FORCE),
    Quantity("force error", "eV/Å", (1.0e-8, 50), (1.0e-3, 10), f"{_LUO}: 0.21", _FORCE),
    Quantity("fraction of covalent distances", "", (0, 1.2), (0.3, 0.9), _HERE, _PER_CENT),
    Quantity("shortest distance", "Å", (0.2, 5), (0.5, 3.5), "covalent radii", _LENGTH),
    Quantity("ratio of volumes", "", (0.01, 100), (0.1, 10), _HERE, _PER_CENT),
    Quantity("cell angle", "deg", (0.1, 89), (5, 80), _HERE, {"rad": 57.29578}),
    Quantity("share of false accepts", "", (0, 1), (1.0e-4, 0.3), _HERE, _PER_CENT),
    Quantity("distance of descriptors", "", (0, 10), (0, 1), _HERE),
    Quantity("number of labels", "", (0, 1.0e6), (0, 1.0e4), f"{_LUO}: 15902 in 95 passes"),
    Quantity("number of frames of a walk", "", (0, 1.0e5), (0, 100), _HERE),
    Quantity("share", "", (0, 1), (0, 1), "definition", _PER_CENT),
    Quantity("share that is called quiet", "", (0, 0.99), (0, 0.3), f"{_LUO}: 0.01", _PER_CENT),
    Quantity("factor on the training", "", (0.1, 100), (1, 10), _HERE),
    Quantity("number of frames of a verdict", "", (1, 1.0e7), (1, 1.0e5), _HERE),
    # labelling
    Quantity("largest force of a label", "eV/Å", (0.1, 1.0e4), (2, 500), "DP-GEN examples", _FORCE),
    Quantity("net force", "eV/Å", (1.0e-8, 10), (1.0e-6, 1), _HERE, _FORCE),
    Quantity("spread of energies", "eV/atom", (1.0e-3, 1000), (0.1, 100), _HERE, _ENERGY),
    Quantity("plane-wave cutoff", "eV", (50, 5000), (150, 2000), f"{_LUO}: 400", {"Ry": 13.60569, "Hartree": 27.2114}),
    Quantity("cutoff of the density", "eV", (100, 50000), (600, 20000), _HERE, {"Ry": 13.60569, "Hartree": 27.2114}),
    Quantity("cutoff of D3", "Å", (3, 200), (8, 60), "CP2K manual: 10.6; VASP wiki: 50.2", _LENGTH),
    Quantity("magnetic moment", "µB", (-20, 20), (-10, 10), _HERE),
    Quantity("spacing of k-points", "1/Å", (0.01, 10), (0.05, 2), f"{_LUO}: 0.5", {"1/nm": 0.1}),
    Quantity("smearing", "eV", (1.0e-4, 10), (1.0e-3, 1), "GPAW manual", {"meV": 1.0e-3, "K": 8.617e-5}),
    Quantity("convergence of energies", "eV", (1.0e-12, 0.1), (1.0e-9, 1.0e-3), f"{_LUO}: 1e-5", _ENERGY),
    Quantity("convergence criterion", "", (1.0e-12, 1), (1.0e-10, 0.1), "GPAW manual"),
    Quantity("number of SCF steps", "", (1, 1.0e5), (10, 2000), "GPAW manual"),
    Quantity("number of corrections", "", (1, 1000), (1, 20), "custodian manual"),
    # training
    Quantity("number of models", "", (2, 100), (2, 20), f"{_LUO}: 4"),
    Quantity("cutoff of the descriptor", "Å", (1.5, 20), (2.5, 12), f"{_LUO}: 6", _LENGTH),
    Quantity("start of the smoothing", "Å", (1.0e-3, 20), (0.1, 11), f"{_LUO}: 2", _LENGTH),
    Quantity("number of neighbours", "", (1, 5000), (1, 1000), _DEEPMD),
    Quantity("width of a layer", "", (1, 1.0e4), (1, 1000), f"{_LUO}: 25 to 240"),
    Quantity("number of axis neurons", "", (1, 500), (1, 64), f"{_DEEPMD}: 4 to 16"),
    Quantity("number of gradient steps", "", (1, 1.0e9), (1, 2.0e7), f"{_LUO}: 4000000"),
    Quantity("number of frames a batch", "", (1, 1.0e5), (1, 1000), _DEEPMD),
    # Tiny nets on EMT copper (wsd, 600 steps) had force errors of 0.06 of the RMS force at a rate of 0.02, 0.04
    # at 0.1, 0.58 at 0.3; at 1.0 some predict no force at all, with a finite loss.
    Quantity("learning rate", "", (1.0e-15, 10), (1.0e-12, 0.1), f"{_LUO}: 0.001; above 0.1 little is learnt"),
    Quantity("prefactor of the loss", "", (0, 1.0e8), (0, 1.0e5), f"{_LUO}: 0.02 to 1000"),
    Quantity("weight of an element", "", (1.0e-4, 1.0e4), (0.01, 100), _HERE),
    Quantity("number of checkpoints", "", (2, 20), (2, 20), _HERE),
    # benchmarks
    Quantity("bin of distances", "Å", (1.0e-4, 2), (5.0e-3, 0.5), _HERE, _LENGTH),
    Quantity("range of distances", "Å", (1, 500), (2, 100), _HERE, _LENGTH),
    Quantity("elastic strain", "", (-0.05, 0.05), (-0.03, 0.03), f"{_LUO}: 0.01", _PER_CENT),
    Quantity("shift of a cutoff", "Å", (0, 3), (0, 1), _HERE, _LENGTH),
    # machines
    Quantity("number of tasks at a time", "", (1, 1.0e5), (1, 2000), _HERE),
    Quantity("number of nodes", "", (1, 1.0e5), (1, 1000), "Slurm manual"),
    Quantity("number of tries", "", (1, 1000), (1, 20), _HERE),
    Quantity("time limit", "s", (1.0e-3, 1.0e9), (1.0e-3, 1.0e7), _HERE, {"ms": 1.0e-3}),
    Quantity("time of grace", "s", (0, 1.0e5), (0, 3600), _HERE, {"ms": 1.0e-3}),
    Quantity("memory", "GB", (0.01, 1.0e5), (0.1, 1.0e4), "Slurm manual", {"MB": 1.0e-3, "bytes": 1.0e-9}),
    Quantity("free disk", "GB", (0, 1.0e6), (0, 1.0e4), _HERE, {"MB": 1.0e-3, "bytes": 1.0e-9}),
    Quantity("time of a label", "s/atom", (1.0e-9, 1.0e7), (1.0e-6, 1.0e5), _HERE),
    Quantity("time of a start", "s", (1.0e-6, 1.0e6), (1.0e-3, 1.0e4), _HERE, {"ms": 1.0e-3}),
    Quantity("pace", "s", (1.0e-6, 1.0e4), (1.0e-3, 10.0), _HERE, {"ms": 1.0e-3}),
    Quantity("speed of a network", "Mflop/s", (1.0e-3, 1.0e12), (1, 1.0e9), _HERE, {"flop/s": 1.0e-6}),
)
#: Every quantity, by name.
TABLE: Final = {quantity.name: quantity for quantity in _ROWS}


@dataclass(frozen=True)
class Keyed:
    """The rows for some keys of a mapping, such as the tags of another program."""

    rows: Mapping[str, Quantity] = field(hash=False)


def of(name: str) -> Quantity:
    """Return the row of a quantity, for the type of a field."""
    return TABLE[name]


def numbers(section: BaseModel, *at: object) -> Iterator[tuple[str, float, Quantity]]:
    """Yield location, value and row of every number of a section that has a row, at any depth."""
    for name, info in type(section).model_fields.items():
        yield from _numbers(info.rebuild_annotation(), getattr(section, name), (*at, name))
    for name, value in (section.model_extra or {}).items():
        yield from _numbers(Any, value, (*at, name))


def _numbers(kind: Any, value: object, at: tuple[object, ...]) -> Iterator[tuple[str, float, Quantity]]:  # noqa: ANN401 - a type expression
    row = next((mark for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, Quantity)), None)
    if isinstance(value, BaseModel):
        yield from numbers(value, *at)
    elif row is not None and isinstance(value, int | float) and not isinstance(value, bool):
        yield ".".join(map(str, at)), float(value), row
    else:
        for part, item, key in _parts(kind, value):
            yield from _numbers(part, item, (*at, *key))


def _parts(kind: Any, value: object) -> Iterator[tuple[Any, object, tuple[object, ...]]]:  # noqa: ANN401 - a type expression
    """Yield type, value and key of the parts of a value, or of its possible types."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        tags = next((mark.rows for mark in inside[1:] if isinstance(mark, Keyed)), {})
        given = value if isinstance(value, Mapping) else {}
        yield from ((Annotated[float, row], given[key], (key,)) for key, row in tags.items() if key in given)
        yield inside[0], value, ()
    elif origin in {Union, types.UnionType}:
        yield from ((one, value, ()) for one in inside)
    elif origin is dict and isinstance(value, Mapping):
        yield from ((inside[1], item, (key,)) for key, item in value.items())
    elif origin is tuple and isinstance(value, tuple):
        kinds = repeat(inside[0]) if inside[-1] is Ellipsis else inside
        yield from ((one, item, (i,)) for i, (one, item) in enumerate(zip(kinds, value, strict=False)))


def outliers(section: BaseModel, *at: object) -> list[Outlier]:
    """Return the unusual numbers of a section, each with its location below `at`."""
    return [
        Outlier(where, value, row)
        for where, value, row in numbers(section, *at)
        if not row.usual[0] <= value <= row.usual[1]
    ]
