"""``activelearn seeds``: show the shipped crystals as a table, one by one, as JSON, or as structure files."""

from __future__ import annotations

import contextlib
import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from activelearn.cli import app, streams
from activelearn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from activelearn.seeds import Seed

_KINDS = (
    "experiment: coordinates refined from diffraction",
    "calculated: relaxed by DFT or a potential",
    "model: derived, placed or hypothetical; a starting point, not to be cited",
)


class Format(StrEnum):
    """Structure file formats that can be written; the value is also the file suffix."""

    vasp = "vasp"
    cif = "cif"
    extxyz = "extxyz"


@app.command()
def seeds(
    names: Annotated[list[str] | None, typer.Argument(help="Ids; with --elements: chemical symbols.")] = None,
    elements: Annotated[
        bool, typer.Option("--elements", help="List only crystals made of these elements: --elements Na P S")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything known about each as JSON.")] = False,
    write: Annotated[Path | None, typer.Option(help="Folder to write a structure file of each crystal to.")] = None,
    file_format: Annotated[Format, typer.Option("--format", help="Format of the files of --write.")] = Format.vasp,
) -> None:
    """List the crystals that campaigns can start from; with ids, print everything about each.

    Wherever a campaign expects a seed, the path of your own CIF, POSCAR or extxyz file works as well as an id.
    """
    found = _of_elements(names or []) if elements else _of_ids(names or [])
    if write is None:
        streams.is_all()
    if as_json and write is None:
        print(json.dumps([_facts(seed) for seed in found], indent=1, ensure_ascii=False))
        return
    if write is not None and found:
        _write(found, write, file_format)
    elif names and not elements:
        for seed in found:
            _print_facts(seed)
    elif found:
        _print_table(found)
    for line in _lacking(found, names or []) if elements else ():
        print(line)


# --- which ------------------------------------------------------------------------------------------------------------


def _of_ids(names: list[str]) -> list[Seed]:
    """Return the seeds with these ids in this order, or all seeds sorted by formula."""
    from activelearn.seeds import load_seed, seed_names

    if names:
        return [load_seed(name) for name in dict.fromkeys(names)]
    return sorted((load_seed(name) for name in seed_names()), key=lambda seed: (seed.formula, seed.id))


def _of_elements(symbols: list[str]) -> list[Seed]:
    """Return the seeds made only of these elements, sorted by formula."""
    from ase.data import chemical_symbols

    wrong = [symbol for symbol in symbols if symbol not in chemical_symbols[1:]]
    if wrong or not symbols:
        got = " ".join(wrong) or "none"
        raise ConfigError(f"--elements: got {got} - expected chemical symbols - such as: --elements {_there()}")
    return [seed for seed in _of_ids([]) if seed.elements <= set(symbols)]


def _lacking(found: list[Seed], symbols: list[str]) -> Iterator[str]:
    """Yield which of the elements occur in none of the crystals, and what to do about it."""
    there = {element for seed in found for element in seed.elements}
    if lacking := [symbol for symbol in dict.fromkeys(symbols) if symbol not in there]:
        yield (
            f"no shipped crystal of {' '.join(dict.fromkeys(symbols))} contains {' '.join(lacking)} (shipped are "
            f"crystals of {_there()}); start from your own: seed: my.cif (CIF, POSCAR, extxyz ...)"
        )


def _there() -> str:
    """Return the elements of all shipped crystals."""
    return " ".join(sorted({element for seed in _of_ids([]) for element in seed.elements}))


# --- how --------------------------------------------------------------------------------------------------------------


def _print_table(found: list[Seed]) -> None:
    from rich.table import Table
    from rich.text import Text

    from activelearn.show import console_of

    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("id", "formula", "phase", "group", "g/cm3", "kind", "confidence"):
        # Only the phase is truncated in a narrow terminal; the other columns are short.
        table.add_column(name, no_wrap=name != "phase", justify="right" if name == "g/cm3" else "left")
    for seed in found:
        phase = Text(seed.name, no_wrap=True, overflow="ellipsis")
        density = f"{seed.checks.density_g_cm3:.3f}"
        rests_on = seed.confidence.removeprefix("verified from ").split()[0].rstrip(":,;")  # file, memory or derived
        table.add_row(seed.id, seed.formula, phase, seed.space_group.symbol, density, seed.kind, rests_on)
    console = console_of(markup=False)  # names of crystals are not markup
    console.print(table)
    for kind in _KINDS:
        console.print(kind, soft_wrap=True)
    console.print(f"{len(found)} crystals; details of one: activelearn seeds ID", soft_wrap=True)


def _facts(seed: Seed) -> dict[str, Any]:
    """Return the contents of a seed file and derived values: elements, volume, heights of the conventional cell."""
    from activelearn.seeds import heights

    atoms = seed.to_atoms()
    return seed.model_dump(mode="json") | {
        "elements": sorted(seed.elements),
        "volume_A3": round(float(atoms.get_volume()), 3),
        "heights_A": [round(float(height), 3) for height in heights(atoms.cell.array)],
    }


def _print_facts(seed: Seed) -> None:
    from activelearn.show import console_of

    console = console_of(markup=False)
    console.print(seed.id, style="bold")
    for name, value in _lines(seed, _facts(seed)):
        if value:
            console.print(f"  {name:<12}{value}", soft_wrap=True)


def _lines(seed: Seed, facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    cell, group, z = seed.cell, seed.space_group, seed.formula_units
    yield "formula", seed.formula
    yield "phase", seed.name
    yield "kind", next(kind for kind in _KINDS if kind.startswith(seed.kind))
    yield "group", f"{group.symbol} ({group.number}), Hall {group.hall_number}: {group.hall_symbol}"
    yield "cell", f"{cell.a:g}  {cell.b:g}  {cell.c:g} Å   {cell.alpha:g}  {cell.beta:g}  {cell.gamma:g}°"
    yield "heights", "  ".join(f"{height:.2f}" for height in facts["heights_A"]) + " Å, perpendicular"
    yield "content", f"{seed.n_atoms} atoms of {len(seed.sites)} sites, Z = {z}, {facts['volume_A3'] / z:.2f} Å3 each"
    yield "density", f"{seed.checks.density_g_cm3:g} g/cm3"
    yield "shortest", "  ".join(f"{pair} {length:g}" for pair, length in seed.checks.shortest_A.items()) + " Å"
    for name in ("source", "provenance", "confidence", "note"):
        yield name, getattr(seed, name)
    yield "licence", seed.licence_note


def _write(found: list[Seed], folder: Path, file_format: Format) -> None:
    """Write the conventional cells, one file each, without overwriting anything."""
    from ase.io import write

    paths = [folder / f"{seed.id}.{file_format}" for seed in found]
    there = [str(path) for path in paths if path.exists()]
    if there:
        raise ConfigError(
            f"{there[0]}: exists - expected new files, since nothing is overwritten - choose another folder"
        )
    # POSCAR groups atoms by element.
    more = {"direct": True, "sort": True} if file_format is Format.vasp else {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for seed, path in zip(found, paths, strict=True):
            atoms = seed.to_atoms()
            # Only extxyz can store these.
            atoms.info = {name: getattr(seed, name) for name in ("id", "kind", "source", "confidence")}
            write(path, atoms, format=file_format.value, **more)
    except OSError as error:
        for path in paths:  # what was written before the disk was full
            with contextlib.suppress(OSError):
                path.unlink()
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror or error}) - expected a writable folder - choose another"
        ) from None
    print(f"{len(paths)} files in {folder}; use one in a campaign by its path: seed: {paths[0] if paths else ''}")
