"""Energies of reactions from relaxed crystals: a test of their sign with a potential, before any glass is made.

With e the energy of a relaxed crystal per formula unit and n > 0 the coefficients of a balanced reaction, the energy is

    E = sum over right of n e - sum over left of n e,

negative if the reaction goes to the right. Zero-point energy and entropy are not included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn import seeds
from activelearn.benchmark import crystals
from activelearn.benchmark.property import Condition, Context, Findings, Observable, Property
from activelearn.benchmark.replicas import stamped
from activelearn.config import Reaction, Reactions
from activelearn.config.messages import nearest
from activelearn.errors import ConfigError
from activelearn.frames import Frames
from activelearn.records import Result, Task

NAME: Final = "reactions"
#: Tolerance for the atoms of an element on the two sides of a reaction, for rounding.
_BALANCED: Final = 1.0e-6


def coefficients(reaction: Reaction) -> dict[str, float]:
    """Return how many formula units of each crystal there are more on the right than on the left, by its name."""
    names = dict.fromkeys((*reaction.left, *reaction.right))
    return {name: reaction.right.get(name, 0.0) - reaction.left.get(name, 0.0) for name in names}


def written(reaction: Reaction) -> str:
    """Return the reaction in one line: ``NaPS3 + 0.5 Na2S -> 0.5 Na4P2S7``."""
    sides = (
        " + ".join(name if n == 1.0 else f"{n:g} {name}" for name, n in side.items())
        for side in (reaction.left, reaction.right)
    )
    return " -> ".join(sides)


# --- what is requested ------------------------------------------------------------------------------------------------


def elements_of(asked: Reactions) -> dict[str, dict[str, float]]:
    """Return how many atoms of each element are in a formula unit, by the names of the crystals in the equations.

    Raises
    ------
    ConfigError
        Some are neither seeds nor files, or cannot be read; one line each.
    """
    found: dict[str, dict[str, float]] = {}
    wrong: list[str] = []
    known = {*asked.crystals, *seeds.seed_names()}
    for name in dict.fromkeys(name for one in asked.equations.values() for name in coefficients(one)):
        if name not in known:
            hint = nearest(name, sorted(known))
            wrong.append(
                f"benchmark.{NAME}.equations: {name}: neither a seed nor a name in {NAME}.crystals - {hint} - all "
                "seeds: activelearn seeds"
            )
            continue
        try:
            found[name] = _formula(asked.structure(name))
        except ConfigError as error:
            wrong += [f"benchmark.{NAME}.crystals: {line}" for line in error.problems]
    if wrong:
        raise ConfigError(*wrong)
    return found


def _formula(crystal: str) -> dict[str, float]:
    symbols = seeds.load_structure(crystal, Path()).get_chemical_symbols()
    n_units = int(crystals.facts(crystal, symbols)["formula_units"])
    return {element: symbols.count(element) / n_units for element in dict.fromkeys(symbols)}


def unbalanced(asked: Reactions, elements: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Yield a line for each reaction that does not balance, with the elements that do not.

    Parameters
    ----------
    asked
        The equations.
    elements
        From :func:`elements_of`.
    """
    for name, reaction in asked.equations.items():
        sides = [_atoms(side, elements) for side in (reaction.left, reaction.right)]
        differ = [
            f"{element} {before:g} -> {after:g}"
            for element in dict.fromkeys([*sides[0], *sides[1]])
            if abs((after := sides[1].get(element, 0.0)) - (before := sides[0].get(element, 0.0))) > _BALANCED
        ]
        if differ:
            units = ", ".join(f"{one} is {_word(elements[one])}" for one in coefficients(reaction))
            yield (
                f"benchmark.{NAME}.equations.{name}: {written(reaction)} is not balanced: {', '.join(differ)} - "
                f"expected the same number of atoms of each element on both sides ({units}) - fix the coefficients"
            )


def _atoms(side: Mapping[str, float], elements: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for name, n in side.items():
        for element, in_unit in elements[name].items():
            total[element] = total.get(element, 0.0) + n * in_unit
    return total


def _word(formula: Mapping[str, float]) -> str:
    return "".join(f"{element}{n:g}" if n != 1.0 else element for element, n in formula.items())


# --- the property -----------------------------------------------------------------------------------------------------


def plan(asked: Reactions, context: Context) -> list[Task]:
    """One task per potential and crystal, regardless of how many reactions it is in."""
    return crystals.relaxations(NAME, asked, context)


def results(asked: Reactions, context: Context, tasks: Sequence[Task]) -> Findings:
    """Return the energy of every reaction with every potential."""
    findings, now = Findings(), context.store.places.now  # a frozen plan has the original paths of files
    products = {(t.parameters["potential"], now(str(t.parameters["crystal"]))): context.product(t) for t in tasks}
    for potential in dict.fromkeys(potential for potential, _ in products):
        for name, reaction in asked.equations.items():
            condition: Condition = {"potential": potential, "reaction": name}
            of_each = {one: products[potential, asked.structure(one)] for one in coefficients(reaction)}
            failed = {one: meta["ended"] for one, (arrays, meta) in of_each.items() if not arrays}
            if failed:
                findings.lacks(NAME, f"reaction {name} with {potential}", condition, _reasons(failed))
                continue
            relaxed = {one: (Frames.from_arrays(arrays, "relaxed/"), meta) for one, (arrays, meta) in of_each.items()}
            findings.results.append(reacted(reaction, relaxed, condition))
    return findings


def _reasons(failed: Mapping[str, str]) -> str:
    """Return why crystals could not be relaxed, grouped by reason."""
    whys = dict.fromkeys(failed.values())
    return "; ".join(f"{', '.join(one for one in failed if failed[one] == why)}: {why}" for why in whys)


def reacted(
    reaction: Reaction, relaxed: Mapping[str, tuple[Frames, Mapping[str, Any]]], condition: Condition
) -> Result:
    """Return the energy of one reaction, eV.

    Parameters
    ----------
    reaction
        Coefficients of formula units.
    relaxed
        For each crystal by its name: one labelled frame, and as meta ``is_relaxed``, ``ended``, ``pressure_GPa``;
        ``factors`` of the supercell; ``formula_units`` and ``kind`` of the unit cell.
    condition
        Of the result.
    """
    energy = sum(n * per_unit(*relaxed[name]) for name, n in coefficients(reaction).items())
    return Result(
        name="reaction_energy",
        value=energy,
        unit="eV",
        uncertainty=None,
        n_samples=1,
        condition=condition,
        stamp=stamped(None, [meta for _, meta in relaxed.values()]),
        note=f"{written(reaction)}, 0 K; {_ends(relaxed)}",
    )


def per_unit(frame: Frames, meta: Mapping[str, Any]) -> float:
    """Return the energy of a relaxed crystal per formula unit, eV."""
    assert frame.energy is not None  # it was relaxed
    return float(frame.energy[0]) / (int(meta["formula_units"]) * int(np.prod(meta["factors"])))


def _ends(relaxed: Mapping[str, tuple[Frames, Mapping[str, Any]]]) -> str:
    """Return for each crystal its origin, whether it was relaxed, and the largest remaining force."""
    said = []
    for name, (frame, meta) in relaxed.items():
        assert frame.forces is not None  # it was relaxed
        left = f"{np.linalg.norm(frame.forces[0], axis=1).max():.2g} eV/Å"
        pressure = "" if meta["is_relaxed"] else f" and {meta['pressure_GPa']:.2f} GPa"
        said.append(f"{name} ({meta['kind']}) {meta['ended']}, {left}{pressure} left")
    return "; ".join(said)


PROPERTY = Property(
    NAME,
    Reactions,
    crystals.run,
    results,
    plan,
    needs_glass=False,
    observables={"reaction_energy": Observable("eV", low=-np.inf, of=("reaction",))},
)
