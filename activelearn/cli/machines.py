"""``activelearn machine``: write the config folder of a cluster, and send one tiny job to each kind of node."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from activelearn.cli import TrustOption, app, machine_of, want_trusted
from activelearn.config import Machine, load_campaign
from activelearn.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from activelearn.check.smoke import Probe


@app.command()
def machine(
    init: Annotated[
        str | None,
        typer.Option(metavar="PRESET|YAML", help="Write FireWorks' config folder: --init slurm, pbs or lsf."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="For --init: the folder; default ./cluster, or the folder of the YAML.")
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Probe every place (kind of node) of the profile: versions, GPUs.")
    ] = False,
    profile: Annotated[str, typer.Option("--machine", help="For --smoke: a machine profile or preset.")] = "local",
    launchpad: Annotated[
        Path | None,
        typer.Option(
            "-l", "--launchpad", help="For --smoke: my_launchpad.yaml; without it, the probes run on this machine."
        ),
    ] = None,
    folder: Annotated[Path, typer.Option(help="For --smoke: a folder that all nodes must see.")] = Path(),
    campaign: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET|YAML", help="For --smoke: the campaign to run; looks for the programs that it needs."
        ),
    ] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout-s", min=1.0, help="For --smoke -l: time to wait for workers (s).")
    ] = 600.0,
    trust: TrustOption = False,
) -> None:
    """Set up a cluster (--init) and test it before a campaign (--smoke). See params/machine/README.md.

    Exit codes of --smoke: 0 all places work, 1 problems found (one sentence each).
    """
    if (init is not None) == smoke:
        raise ConfigError(
            "machine: got neither or both of --init and --smoke - expected one of them - try: --init slurm"
        )
    if init is not None:
        _initialise(init, to)
        return
    chosen, named = machine_of(profile)
    want_trusted(named, None, trust=trust)
    wants = _wants(campaign)
    if launchpad is None:
        _report(_here(chosen, folder, wants))
    else:
        _report(_there(chosen, launchpad, folder, timeout_s, wants))


def _initialise(name_or_path: str, to: Path | None) -> None:
    from activelearn.workflow.site import initialise, next_lines

    site = initialise(name_or_path, to)
    print(f"{site.folder}: " + ", ".join(site.written), *next_lines(site), sep="\n")


def _wants(campaign: str | None) -> dict[str, Any]:
    """Return what a campaign needs at its places."""
    from activelearn.check.smoke import wants_of

    return {} if campaign is None else wants_of(load_campaign(campaign))


def _here(profile: Machine, folder: Path, wants: Mapping[str, Any]) -> list[Probe | str]:
    """Probe every place from this process, as if this computer were all of them."""
    from activelearn import trees
    from activelearn.check.smoke import at_login, probe

    with trees.temporary() as ours:
        login = cache(lambda: at_login(profile, wants, ours))
        return [
            probe(profile, place, folder.absolute(), wants=wants, login=login) for place in profile.stations_by_place()
        ]


def _there(
    profile: Machine, launchpad: Path, folder: Path, timeout_s: float, wants: Mapping[str, Any]
) -> list[Probe | str]:
    """Probe every place with a job of its own."""
    from activelearn.check.smoke import at_login
    from activelearn.workflow import connect
    from activelearn.workflow.smoke import sent

    pad = connect(launchpad)
    pad.prepare()
    if not folder.is_dir():
        raise ConfigError(f"--folder {folder}: no such folder - expected a folder that all nodes see - create it")
    print("training a tiny model here first, to compare the forces of one frame with those of each place", flush=True)
    prepare = partial(at_login, profile, wants)
    with sent(profile, pad, folder.absolute(), launchpad, wants=wants, prepare=prepare) as jobs:
        print(f"one job each for {', '.join(jobs.fireworks)}; waiting for workers, up to {timeout_s:g} s", flush=True)
        return list(jobs.wait(timeout_s).values())


def _report(found: Iterable[Probe | str]) -> None:
    """Print the table of what was found; raise the problems."""
    from rich.table import Table

    from activelearn.show import console_of

    table, problems, compared = Table(box=None, padding=(0, 2, 0, 0)), [], []
    for name in ("place", "host", "slots/cores", "versions", "LAMMPS", "GPUs", "CUDA per slot", "free GB", "s"):
        table.add_column(name, overflow="fold")
    for one in found:
        if isinstance(one, str):
            problems.append(one)
        else:
            table.add_row(*_row(one))
            problems += one.problems
            compared += [f"{one.place}: {one.compared}"] if one.compared else []
    if table.row_count:
        console_of(140, markup=False).print(table)
    if compared:
        print(*compared, sep="\n")
    if problems:
        raise EngineError("\n".join(problems))
    print("all places work")


def _row(seen: Probe) -> Iterable[str]:
    yield seen.place
    yield seen.host
    yield f"{seen.n_slots}/{seen.n_cores}"
    by = f"\nby {', '.join(seen.trains_by)}" if seen.trains_by else ""
    yield "\n".join(f"{name} {version}" for name, version in seen.versions.items())
    yield (seen.lammps or "-") + by
    yield "\n".join(seen.gpus) or "none"
    visible = ["unset" if one is None else one or "hidden" for one in seen.cuda_visible_devices]
    yield visible[0] if len(set(visible)) == 1 else " ".join(visible)
    yield f"{seen.free_disk_GB:.0f}"
    yield f"{seen.seconds:.1f}"
