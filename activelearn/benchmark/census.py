"""The network of a glass: units of the formers, bridging anions, chains and defects.

Elements are those of the series' roles. For example, with phosphorus and sulfur: for each P, c is the number of bonded
anions, b of those that bridge (bonded to two or more formers), p of bonded formers; P^n has n = b + p.

Sources: Bertani & Pedone's analysis of Na4P2S7-xOx glasses (units, chains, bridging anions); Luo et al. 2024. Neither
reports its cutoffs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, combinations_with_replacement
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn.benchmark.bonds import Bonds, BoolArray, Cutoffs, IntArray, chain_sizes, find_bonds, sharing_pairs
from activelearn.config import Roles, Series
from activelearn.errors import ConfigError
from activelearn.frames import FloatArray, Frames

#: Frames that are processed together: enough to make Python's overhead negligible, few enough for the memory.
_BLOCK_ATOMS: Final = 200_000


def bond_cutoffs(series: Series, shift_A: float = 0.0) -> dict[tuple[str, str], float]:
    """Return the cutoffs of all pairs of formers and anions, Å, each increased by `shift_A`.

    Raises
    ------
    ConfigError
        A pair of former and anion has none.
    """
    roles = series.roles
    found: dict[tuple[str, str], float] = {}
    for a, b in combinations_with_replacement((*roles.formers, *roles.anions), 2):
        cutoff = series.cutoff_A(a, b)
        if cutoff is not None:
            found[a, b] = cutoff + shift_A
        elif a in roles.formers and b in roles.anions:
            raise ConfigError(
                f"series {series.name}: cutoffs_A: no {a}-{b} - expected the cutoff of every former and anion "
                f"- add {{{a}-{b}: ...}}"
            )
    return found


@dataclass(frozen=True, eq=False)
class BondNetwork:
    """Formers and anions of some frames as a graph; atoms are numbered through all frames, see :class:`Bonds`.

    Parameters
    ----------
    symbols
        (n_atoms,) of one frame.
    bonds
        Among formers and anions.
    roles
        The roles of the elements.
    """

    symbols: NDArray[np.str_]
    bonds: Bonds
    roles: Roles

    def is_one_of(self, *elements: str) -> BoolArray:
        """(n_numbers,) whether each atom is of these elements."""
        return np.tile(np.isin(self.symbols, elements), self.bonds.n_frames)

    @cached_property
    def is_former(self) -> BoolArray:
        """(n_numbers,) mask of the formers."""
        return self.is_one_of(*self.roles.formers)

    @cached_property
    def is_anion(self) -> BoolArray:
        """(n_numbers,) mask of the anions."""
        return self.is_one_of(*self.roles.anions)

    @cached_property
    def n_formers(self) -> IntArray:
        """(n_numbers,) counts of formers that each atom is bonded to: p of a former, n_P of an anion."""
        return self.counted(self.is_former[self.bonds.j])

    @cached_property
    def n_anions(self) -> IntArray:
        """(n_numbers,) counts of anions that each atom is bonded to: c of a former."""
        return self.counted(self.is_anion[self.bonds.j])

    @cached_property
    def is_bridging(self) -> BoolArray:
        """(n_numbers,) mask of the anions bonded to two or more formers."""
        return self.is_anion & (self.n_formers >= 2)

    @cached_property
    def n_bridging(self) -> IntArray:
        """(n_numbers,) counts of bridging anions that each atom is bonded to: b of a former."""
        return self.counted(self.is_bridging[self.bonds.j])

    @cached_property
    def n(self) -> IntArray:
        """(n_numbers,) n of P^n: counts of bridging anions and formers that a former is bonded to."""
        return self.n_bridging + self.n_formers

    def counted(self, which: BoolArray) -> IntArray:
        """Return (n_numbers,) counts: how many of the bonds of a mask (n_bonds,) begin at each atom."""
        return np.bincount(self.bonds.i[which], minlength=self.bonds.n_numbers)

    def per_frame(self, of_atoms: NDArray[Any]) -> FloatArray:
        """Return (n_frames,) sums over the atoms of each frame, in the unit of what is summed (n_numbers,)."""
        sums: FloatArray = of_atoms.reshape(self.bonds.n_frames, self.bonds.n_atoms).sum(axis=1, dtype=np.float64)
        return sums

    def percent(self, which: BoolArray, of: BoolArray) -> FloatArray:
        """Return (n_frames,) how many of the atoms `of` are `which`, %; masks (n_numbers,)."""
        return 100.0 * self.per_frame(which & of) / self.per_frame(of)

    def sizes(self, of: BoolArray) -> IntArray:
        """Return (n_numbers,) counts: atoms in the chain of atoms `of` that each of them is in; 0 of the others."""
        return np.where(of, chain_sizes(self.bonds[of[self.bonds.i] & of[self.bonds.j]]), 0)


@dataclass(frozen=True, eq=False)
class Census:
    """What is counted in a network.

    Parameters
    ----------
    values
        By name, (n_frames,): % unless the name says otherwise; NaN where a frame has none.
    chains
        By the formers (P, or Si-P) and by anion, (n_frames, largest + 1): % of these atoms that are in chains of k
        atoms (k = 1: in none).
    """

    values: dict[str, FloatArray]
    chains: dict[str, FloatArray]


def census(frames: Frames, cutoffs: Cutoffs, roles: Roles) -> Census:
    """Count units, bridging anions, chains and defects of a glass network, frame by frame.

    Parameters
    ----------
    frames
        Any cells, including small ones: every periodic image counts.
    cutoffs
        Å, of (former, anion), and of (former, former) and (anion, anion) if bonds between them are to be counted; see
        :func:`bond_cutoffs`.
    roles
        The roles of the elements.

    Returns
    -------
    Census
        ``values["P1"]`` (n_frames,) % of the phosphorus atoms, ``values["BO"]`` % of the anions ...; see :func:`units`,
        :func:`anions`, :func:`charge_rule` and :func:`bridging_rule`. Of no frames: empty.
    """
    n_block = max(1, _BLOCK_ATOMS // max(1, frames.n_atoms))
    parts = [_census(frames[k : k + n_block], cutoffs, roles) for k in range(0, len(frames), n_block)]
    if not parts:
        return Census({}, {})
    values = {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values}
    chains = {}
    for name in parts[0].chains:
        widest = max(part.chains[name].shape[1] for part in parts)
        padded = [np.pad(c, ((0, 0), (0, widest - c.shape[1]))) for c in (part.chains[name] for part in parts)]
        chains[name] = np.concatenate(padded)
    return Census(values, chains)


def _census(frames: Frames, cutoffs: Cutoffs, roles: Roles) -> Census:
    network = BondNetwork(np.array(frames.symbols), find_bonds(frames, cutoffs), roles)
    values: dict[str, FloatArray] = {}
    chains: dict[str, FloatArray] = {}
    if network.is_former.any():
        values |= units(network)
        by_size = chains["-".join(roles.formers)] = _by_size(network, network.is_former)
        values["former_chains"] = by_size[:, 3:].sum(axis=1)
    if network.is_anion.any():
        values |= anions(network)
    for anion in roles.anions:
        if anion in frames.symbols and (anion, anion) in cutoffs:
            chains[anion] = _by_size(network, network.is_one_of(anion))
            values |= dict(_chain_values(anion, chains[anion]))
    if network.is_former.any():
        values["charge_rule"] = charge_rule(network)
        values["bridging_rule"] = bridging_rule(network)
    return Census(values, chains)


def unit_names(former: str, roles: Roles) -> tuple[str, ...]:
    """Return the names of the units of a former, such as P0 ... P4, P1P, P3c, P2ES, P2_corner, P_other."""
    full = roles.coordination
    more = (f"1{former}", f"{full - 1}c", "2ES", "2_corner", "_other")
    return tuple(f"{former}{which}" for which in (*range(full + 1), *more))


def units(network: BondNetwork) -> dict[str, FloatArray]:
    """Return the shares (n_frames,) of the units of every former, % of its atoms.

    With P for the former's symbol: ``P0`` ... ``P4`` by n (the last is "or more"); ``P1P``, two of the same element
    with three anions each, bonded, without bridges (they are in P1, too); ``P3c``, one neighbour fewer than
    `Roles.coordination`; ``P2ES``, shares two or more anions with one other former; ``P2_corner``, n = 2 and does not;
    ``P_other``, any other coordination. See :func:`unit_names`.
    """
    full, n, bonds = network.roles.coordination, network.n, network.bonds
    n_neighbours = network.n_anions + network.n_formers
    in_pair = (network.n_formers == 1) & (network.n_bridging == 0) & (network.n_anions == full - 1)
    shares_edge = np.zeros(bonds.n_numbers, dtype=bool)
    shares_edge[sharing_pairs(bonds[network.is_bridging[bonds.i] & network.is_former[bonds.j]], 2)] = True
    found: dict[str, FloatArray] = {}
    for former in network.roles.formers:
        is_it = network.is_one_of(former)
        if not is_it.any():
            continue
        candidate = in_pair & is_it
        has_partner = network.counted(candidate[bonds.i] & candidate[bonds.j]) > 0
        masks = (
            *(n == k for k in range(full)),
            n >= full,
            candidate & has_partner,
            n_neighbours == full - 1,
            shares_edge,
            (n == 2) & ~shares_edge,
            (n_neighbours < full - 1) | (n_neighbours > full),
        )
        names = unit_names(former, network.roles)
        found |= {name: network.percent(mask, is_it) for name, mask in zip(names, masks, strict=True)}
    return found


def anions(network: BondNetwork) -> dict[str, FloatArray]:
    """Return the types of the anions, % of all anions.

    Of each anion, such as S: ``BS`` (bonded to two or more formers), ``NBS`` (one), ``free_S`` (none), and of the free
    ones ``free_S_in_chains``. Of all: ``three_bonded_anions`` (to three or more formers), ``O-S_bonds`` (anions bonded
    to one of another element): defects.

    Returns
    -------
    dict
        (n_frames,) % by name.
    """
    bonds, all_anions = network.bonds, network.is_anion
    n_formers = network.n_formers
    masks: dict[str, BoolArray] = {}
    for anion in network.roles.anions:
        is_it = network.is_one_of(anion)
        is_free = is_it & (n_formers == 0)
        masks |= {
            f"B{anion}": is_it & (n_formers >= 2),
            f"NB{anion}": is_it & (n_formers == 1),
            f"free_{anion}": is_free,
        }
        if (anion, anion) in bonds.pairs:
            masks[f"free_{anion}_in_chains"] = is_free & (network.counted(is_it[bonds.j]) > 0)
    masks["three_bonded_anions"] = n_formers >= 3
    for a, b in combinations(sorted(network.roles.anions), 2):
        is_a, is_b = network.is_one_of(a), network.is_one_of(b)
        between = (is_a[bonds.i] & is_b[bonds.j]) | (is_b[bonds.i] & is_a[bonds.j])
        masks[f"{a}-{b}_bonds"] = network.counted(between) > 0
    return {name: network.percent(mask, all_anions) for name, mask in masks.items()}


def _by_size(network: BondNetwork, of: BoolArray) -> FloatArray:
    """Return (n_frames, largest + 1) % of the atoms `of` in chains of k of them, at least 4 columns."""
    sizes, n_frames = network.sizes(of), network.bonds.n_frames
    n_columns = max(4, int(sizes.max()) + 1)
    frame = np.arange(len(sizes)) // network.bonds.n_atoms
    counts = np.bincount((frame * n_columns + sizes)[of], minlength=n_frames * n_columns).reshape(n_frames, n_columns)
    percent: FloatArray = 100.0 * counts / counts.sum(axis=1, keepdims=True)
    return percent


def _chain_values(anion: str, percent: FloatArray) -> Iterator[tuple[str, FloatArray]]:
    """Yield the statistics of the chains of an anion; without chains their length is NaN."""
    in_chains = percent[:, 2:].sum(axis=1)
    n_chains = percent[:, 2:] / np.arange(2, percent.shape[1])  # in % of the atoms: only ratios are used
    total = n_chains.sum(axis=1)
    total[total == 0.0] = np.nan
    yield f"{anion}_in_chains", in_chains
    yield f"{anion}_chain_length", in_chains / total
    yield f"{anion}_chains_of_three", 100.0 * n_chains[:, 1] / total


def charge_rule(network: BondNetwork) -> FloatArray:
    """Return (n_frames,) the imbalance of charge between units with free anions and modifiers, per former.

    With z the charge of a former's unit without bridges, F the number of formers, z_M the charge of a modifier:

        [sum over formers (z - n) + 2 N_free - 2 N_XX - sum over anions max(n_F - 2, 0)] / F - [sum z_M N_M] / F.

    N_XX counts bonds between anions. It follows from the balance of charges: a former has 2 `Roles.coordination` - z,
    less one per bond to a former, less two (a lone pair) per neighbour that is missing; an anion -2, and two of them
    two less together if bonded. A frame with a former of more neighbours is not covered (NaN). A nonzero value means
    that the composition is not balanced, that an element has another valence, or that stretched bonds are counted as
    broken.
    """
    roles, bonds = network.roles, network.bonds
    n_all = network.per_frame(network.is_former)
    charge = sum(z * network.is_one_of(former) for former, z in roles.formers.items()) - network.n
    free = network.is_anion & (network.n_formers == 0)
    excess = np.maximum(network.n_formers - 2, 0) * network.is_anion
    ends = network.n_anions * network.is_anion  # a bond between anions has two
    modifiers = sum(z * network.is_one_of(modifier) for modifier, z in roles.modifiers.items())
    total = charge * network.is_former + 2 * free - ends - excess - modifiers * np.ones(bonds.n_numbers, dtype=np.int64)
    is_too_high = network.is_former & (network.n_anions + network.n_formers > roles.coordination)
    return np.where(network.per_frame(is_too_high) > 0, np.nan, network.per_frame(total) / n_all)


def bridging_rule(network: BondNetwork) -> FloatArray:
    """Return (n_frames,) bridging anions minus their number by the units, per former: zero if the count is right.

    N_B = [sum over formers of (n - p)] / 2 where every bridge joins two formers (with p instead of P1P so that other
    bonds between formers are covered); NaN in a frame with an anion bonded to three.
    """
    n_all = network.per_frame(network.is_former)
    ends = network.per_frame((network.n - network.n_formers) * network.is_former)
    is_threefold = network.is_anion & (network.n_formers > 2)
    missed = (network.per_frame(network.is_bridging) - ends / 2) / n_all
    return np.where(network.per_frame(is_threefold) > 0, np.nan, missed)
