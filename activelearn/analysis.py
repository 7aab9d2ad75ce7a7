"""The analyses of glasses as pure functions: arrays or :class:`~activelearn.frames.Frames` in, numbers out.

They are those of the benchmark, without studies and folders. Lengths are in Å, times in ps, energies in eV; what each
takes and returns, with shapes, units and sources, is in its docstring. Cells may be triclinic, and periodic images
are included, so a primitive cell gives the same result as its supercell::

    from ase.io import read
    from activelearn import Frames, analysis

    frames = Frames.from_ase(read("glass.xyz", ":"))
    g = analysis.pair_distribution(frames, bin_A=0.05, r_max_A=8.0)
    peak, minimum = analysis.first_shell(g.r, g.g[0, 1])

Structure: :func:`pair_distribution`, :func:`first_shell`, :func:`number_within`, :func:`find_bonds`,
:func:`chain_sizes`, :func:`coordination`, :func:`network` (units P^n, bridging anions, chains, defects),
:func:`free_volume` with :func:`ionic_radii`. Roles of elements are an :class:`activelearn.config.Roles`.

Transport: :func:`unwrap` (:class:`CannotFollow`: the cell changes too much between frames),
:func:`without_drift`, :func:`mean_square_displacement`, :func:`diffusion_coefficient`, :func:`conductivity`,
:func:`arrhenius`.

Elasticity: :func:`bulk_modulus` (of pressures), :func:`stiffness` (of stresses), :func:`elastic_moduli` (of a
stiffness).

Replicas: :func:`mean_and_error`. Ensembles: :func:`force_deviation`, as exploration judges frames by.
"""

from __future__ import annotations

from activelearn.benchmark.bonds import chain_sizes, find_bonds
from activelearn.benchmark.bulk_modulus import fit as bulk_modulus
from activelearn.benchmark.census import census as network
from activelearn.benchmark.coordination import coordination
from activelearn.benchmark.displacement import (
    arrhenius,
    conductivity,
    diffusion_coefficient,
    mean_square_displacement,
)
from activelearn.benchmark.elastic import moduli as elastic_moduli
from activelearn.benchmark.elastic import stiffness
from activelearn.benchmark.free_volume import free_share as free_volume
from activelearn.benchmark.free_volume import ionic_radii
from activelearn.benchmark.rdf import first_shell, number_within, pair_distribution
from activelearn.benchmark.replicas import mean_and_error
from activelearn.select.window import force_deviation
from activelearn.trajectory import CannotFollow, unwrap, without_drift

__all__ = [
    "CannotFollow",
    "arrhenius",
    "bulk_modulus",
    "chain_sizes",
    "conductivity",
    "coordination",
    "diffusion_coefficient",
    "elastic_moduli",
    "find_bonds",
    "first_shell",
    "force_deviation",
    "free_volume",
    "ionic_radii",
    "mean_and_error",
    "mean_square_displacement",
    "network",
    "number_within",
    "pair_distribution",
    "stiffness",
    "unwrap",
    "without_drift",
]
