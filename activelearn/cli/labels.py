"""``activelearn labels``: list, export and import the labels of a ledger."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from activelearn import trees
from activelearn.cli import TrustOption, app, streams, want_trusted
from activelearn.config import load_label, load_machine
from activelearn.config.presets import find
from activelearn.errors import ConfigError, StoreError, typed

if TYPE_CHECKING:
    from activelearn.store import Ledger

labels = typer.Typer(
    name="labels", help="List, export and import the labels of a ledger.", no_args_is_help=True, add_completion=False
)
FolderArgument = Annotated[Path, typer.Argument(help="Campaign folder, or ledger folder (label.ledger).")]


@labels.command("list")
def list_labels(
    folder: FolderArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read and verify every record, not only the indexes.")] = (
        False
    ),
) -> None:
    """Show the labels of a ledger by reference and composition; corrupt files are reported with exit code 1."""
    streams.is_all()
    from activelearn import exchange

    ledger = exchange.opened(folder)
    damage = ledger.verify() if verify else ledger.damage()
    rows = summary(ledger)
    if as_json:
        found = {"references": ledger.references(), "labels": rows, "damage": damage}
        print(json.dumps(found, indent=1, ensure_ascii=False))
    elif rows:
        _print_table(rows)
    else:
        print(f"no labels in {ledger.folder}")
    _tell(damage)


def _tell(damage: list[str]) -> None:
    """Report what is corrupt, and end with the exit code of a fault if anything is."""
    for line in damage:
        print(f"damaged: {line}", file=sys.stderr)
    if damage:
        raise typer.Exit(StoreError.exit_code)


@labels.command("export")
def export_labels(
    folder: FolderArgument,
    to: Annotated[Path, typer.Option(help="New file (.extxyz, .npz) or new folder (deepmd/npy).")],
    file_format: Annotated[
        Literal["extxyz", "deepmd", "npz", "mace", "nequip", "gpumd"] | None,
        typer.Option(
            "--format", help="Default: by suffix of --to. mace, nequip, gpumd: extxyz with the key names of that code."
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="First digits of the reference's sha256, if there are several references.")
    ] = None,
) -> None:
    """Write all accepted labels of one reference, with their structures.

    From a corrupt ledger, all intact labels are written, the damage is reported, and the exit code is 1.
    """
    from activelearn import exchange

    ledger = exchange.opened(folder)
    identity = exchange.one_reference(ledger, reference)
    n = exchange.export_labels(ledger, to, identity, file_format)
    print(f"{n} labels of {exchange.name_of(identity)} in {to}")
    _tell(ledger.damage())


@labels.command("import")
def import_labels(
    folder: FolderArgument,
    files: Annotated[
        list[Path], typer.Argument(help="Files: extxyz, OUTCAR, vasprun.xml, outputs of other codes, deepmd/npy ...")
    ],
    reference: Annotated[
        str | None,
        typer.Option(help="What labelled them: a preset of params/label/ or a YAML (a campaign YAML works too)."),
    ] = None,
    declare: Annotated[
        str | None,
        typer.Option(
            help="What labelled them, if it is not installed here: functional=...,includes_dispersion=true,code=..."
        ),
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="extxyz, deepmd, outcar, npz, vasprun, qe, cp2k, aims, gpaw, abacus, a name of dpdata, or ase/NAME. "
            "Default: recognised by name and first lines.",
        ),
    ] = None,
    keys: Annotated[
        str | None,
        typer.Option(help="Key names in extxyz, if not ASE's: energy=REF_energy,forces=REF_forces,..."),
    ] = None,
    trust: TrustOption = False,
) -> None:
    """Import labels from elsewhere into a ledger: all valid ones, or none; refused frames are counted by reason.

    A campaign uses them with initial.from_ledger.
    """
    from activelearn import exchange

    if reference is not None and declare is not None:
        raise ConfigError("--reference and --declare: both given - expected one of them - leave one out")
    identity = fingerprint_of(reference, trust=trust) if reference is not None else None
    if declare is not None:
        identity = exchange.declared(declare)
    place = exchange.ledger_folder(folder)
    n, tally = exchange.import_labels(place, files, identity, file_format, keys)
    for line in tally.sentences():
        print(line)
    there = sum(count for reason, count in tally.counts.items() if reason in exchange.THERE)
    if n + there == 0:
        step = "fix the problems listed above" if tally.counts else "it holds no frame at all: write it again"
        raise ConfigError(f"{files[0]}: no usable frame - expected at least one label - {step}")
    if identity is not None:
        takes = f"[{identity['sha256'][:12]}]" if identity.get("declared") else "true, with the same label.reference"
        print(f"to use them in a campaign: label.ledger: {place} and initial.from_ledger: {takes}")
    print(f"{n} labels imported into {place} ({there} already present); see: activelearn labels list {typed(folder)}")


def fingerprint_of(name_or_path: str, *, trust: bool) -> dict[str, Any]:
    """Return the identity of a label preset's reference, computed by the engine itself as in campaigns."""
    from activelearn.check.trust import read_noted
    from activelearn.engines import process
    from activelearn.engines.process import Slot
    from activelearn.engines.reference import fingerprint

    found, named = read_noted(lambda: load_label(name_or_path), find("label", name_or_path), "label")
    want_trusted(named, None, trust=trust)
    what = found.reference
    process.allow_engines()
    with trees.temporary() as logs:
        try:
            return fingerprint(what, Slot(load_machine(), logs))
        finally:
            process.close_sessions()


def summary(ledger: Ledger) -> list[dict[str, Any]]:
    """Return one row per reference and composition: labels, refusals by reason, range of the energy."""
    known = ledger.references()
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    row_of: dict[tuple[object, int], dict[str, Any]] = {}
    refused: dict[int, Counter[str]] = {}
    energies: dict[int, list[float]] = {}
    for entry in ledger.entries(ordered=False):
        row = row_of.get((entry.family, entry.n_atoms))
        if row is None:
            composition = entry.formula or f"{entry.n_atoms} atoms, structure unknown"
            new = _row(known, entry.reference, composition)
            row = row_of[entry.family, entry.n_atoms] = rows.setdefault((entry.reference, composition), new)
        if entry.refused is not None:
            refused.setdefault(id(row), Counter())[entry.refused] += 1
        else:
            energies.setdefault(id(row), []).append(entry.energy / entry.n_atoms)
            row["without_virial"] += not entry.has_virial
    for row in rows.values():
        row["refused"] = dict(sorted(refused.get(id(row), Counter()).items()))
        if found := energies.get(id(row)):
            row["labels"], row["energy_per_atom_eV"] = len(found), (min(found), max(found))
    return [rows[key] for key in sorted(rows)]


def _row(known: Mapping[str, Any], reference: str, composition: str) -> dict[str, Any]:
    from activelearn import exchange

    return {
        "reference": reference or None,
        "name": exchange.name_of(known[reference]) if reference in known else "unknown",
        "composition": composition,
        "labels": 0,
        "without_virial": 0,
        "refused": {},
        "energy_per_atom_eV": None,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in ("reference", "labelled by", "composition", "labels", "energy (eV/atom)", "refused"):
        table.add_column(name, justify="right" if name == "labels" else "left")
    for row in rows:
        span = row["energy_per_atom_eV"]
        table.add_row(
            (row["reference"] or "unknown")[:12],
            row["name"],
            row["composition"],
            f"{row['labels']}" + (f" ({row['without_virial']} without a virial)" if row["without_virial"] else ""),
            f"{span[0]:.4f} to {span[1]:.4f}" if span else "",
            "; ".join(f"{n} {reason}" for reason, n in row["refused"].items()),
        )
    Console().print(table)
    n_refused = sum(sum(row["refused"].values()) for row in rows)
    print(f"{sum(row['labels'] for row in rows)} labels, {n_refused} refused")


app.add_typer(labels)
