"""``activelearn import-dpgen``: convert a DP-GEN folder to a campaign, a machine profile and a ledger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from activelearn.cli import TrustOption, app
from activelearn.cli.labels import fingerprint_of
from activelearn.errors import ConfigError, typed


@app.command("import-dpgen")
def import_dpgen(
    folder: Annotated[Path, typer.Argument(help="DP-GEN folder: param.json, machine.json, iter.*; never modified.")],
    to: Annotated[Path, typer.Option(help="Campaign YAML to write; the files it needs go to NAME-dpgen/.")] = Path(
        "my.yaml"
    ),
    reference: Annotated[
        str | None,
        typer.Option(
            help="Reference for new labels: a preset of params/label/ or a YAML. Default: VASP with the INCAR found."
        ),
    ] = None,
    declare: Annotated[
        str | None,
        typer.Option(
            help="Reference of existing labels, if no file states it: functional=...,includes_dispersion=true,code=..."
        ),
    ] = None,
    same: Annotated[
        bool,
        typer.Option("--same", help="--reference is exactly what DP-GEN labelled with, including version and weights."),
    ] = False,
    remaining: Annotated[
        bool, typer.Option("--remaining", help="Create stages only for jobs that DP-GEN has not finished.")
    ] = False,
    param: Annotated[str | None, typer.Option(help="Name of the parameter file; default param.json (.yaml).")] = None,
    machine: Annotated[
        str | None, typer.Option(help="Name of the machine file; default machine.json (.yaml), if present.")
    ] = None,
    trust: TrustOption = False,
) -> None:
    """Read a folder of DP-GEN (0.10 to 0.14) and write a campaign that continues with its labels.

    NAME-dpgen/report.md lists each key that was taken, changed or left out, with the reason; what cannot be
    expressed and must not be left out is refused. For details, see docs/coming-from-dpgen.md.
    """
    from activelearn.exchange import dpgen

    if same and (reference is None or declare is not None):
        raise ConfigError(
            "--same: states that --reference made the labels - expected --reference and no --declare - add it or "
            "leave --same out"
        )
    given = dpgen.read_folder(folder, param, machine)
    identity: Mapping[str, Any] | None = None
    if same and reference is not None:
        identity = fingerprint_of(reference, trust=trust)
    made = dpgen.import_dpgen(given, dpgen.DpgenRequest(to, reference, declare, identity, remaining))
    for fact in made.report.facts:
        print(fact)
    for name, told in made.report.keys(given):
        counts = ", ".join(
            f"{n} {fate.value}" for fate in dpgen.Fate if (n := sum(len(one.keys) for one in told if one.fate is fate))
        )
        print(f"{name}: {counts}")
        for one in told:
            if one.fate is not dpgen.Fate.TAKEN:
                print(f"  {one}")
    print(f"written: {', '.join(map(str, made.files))}")
    profile = next((path for path in made.files if path.name == dpgen.MACHINE), None)
    print(f"next: activelearn check {typed(to)}{f' --machine {typed(profile)}' if profile else ''}")
