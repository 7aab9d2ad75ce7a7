"""``activelearn import-dpgen``: a folder of DP-GEN becomes a campaign, a machine profile and a ledger."""

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
    folder: Annotated[Path, typer.Argument(help="Folder of DP-GEN: param.json, machine.json, iter.*; only read.")],
    to: Annotated[Path, typer.Option(help="The campaign's YAML to write; what it needs goes to NAME-dpgen/.")] = Path(
        "my.yaml"
    ),
    reference: Annotated[
        str | None,
        typer.Option(help="What labels from now on: a preset of params/label/, or a YAML. Default: VASP, by INCAR."),
    ] = None,
    declare: Annotated[
        str | None,
        typer.Option(help="What labelled, if no file says it: functional=...,includes_dispersion=true,code=..."),
    ] = None,
    same: Annotated[
        bool, typer.Option("--same", help="--reference is what labelled in DP-GEN, to the version and the weights.")
    ] = False,
    remaining: Annotated[
        bool, typer.Option("--remaining", help="Stages of the jobs alone that DP-GEN has not finished.")
    ] = False,
    param: Annotated[str | None, typer.Option(help="Name of the campaign's file; default param.json (.yaml).")] = None,
    machine: Annotated[
        str | None, typer.Option(help="Name of the machine's file; default machine.json (.yaml), if there is one.")
    ] = None,
    trust: TrustOption = False,
) -> None:
    """Read a folder of DP-GEN (0.10 to 0.14) and write a campaign that goes on with its labels.

    What was taken, changed and left out stands in NAME-dpgen/report.md, each key with its reason; what cannot be
    expressed and may not be left out is refused. Key by key, habit by habit: docs/coming-from-dpgen.md.
    """
    from activelearn.exchange import dpgen

    if same and (reference is None or declare is not None):
        raise ConfigError(
            "--same: says that --reference is what labelled - wanted --reference, and no --declare - give it, or leave "
            "--same out"
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
    print(f"next: activelearn check {typed(to)}")
