"""``activelearn finetune``: fine-tune a MACE foundation model on a campaign's data."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from activelearn.cli import MachineOption, TrustOption, app, machine_of, want_trusted
from activelearn.errors import ConfigError, typed

if TYPE_CHECKING:
    from activelearn.store import Store


@app.command()
def finetune(
    campaign: Annotated[Path, typer.Argument(help="Campaign folder whose data set is trained on.")],
    foundation: Annotated[Path, typer.Option(help="Checkpoint of a MACE foundation model (.model).")],
    python: Annotated[str, typer.Option(help="Python interpreter with mace-torch, such as mace-venv/bin/python.")],
    to: Annotated[Path, typer.Option(help="Folder to write to; the same command continues there.")],
    name: Annotated[str | None, typer.Option(help="Name of the new model; default FT-<foundation>.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Number of passes over the data set; default 50.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="Learning rate; default 1e-4.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Frames per step; default 4.")] = None,
    device: Annotated[str | None, typer.Option(help="Device: cpu (default) or cuda.")] = None,
    e0s: Annotated[
        str | None, typer.Option("--e0s", help="Atomic energies: estimated (default), foundation, average, or a table.")
    ] = None,
    random_seed: Annotated[int | None, typer.Option(min=0)] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Additional argument for mace_run_train, such as --option=--ema.")
    ] = None,
    machine: MachineOption = "local",
    trust: TrustOption = False,
) -> None:
    """Fine-tune a MACE foundation model (all weights, no replay) on the data set of a campaign."""
    from activelearn import finetune as room
    from activelearn.engines import process
    from activelearn.store import Store

    program = shutil.which(python)
    if program is None:
        raise ConfigError(
            f"--python {python}: no such program - expected an interpreter with mace-torch - python3 -m venv mace-venv "
            "&& mace-venv/bin/pip install mace-torch"
        )
    how = room.settings(
        foundation,
        name,
        n_epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        device=device,
        atomic_energies=e0s,
        random_seed=random_seed,
        options=tuple(option) if option else None,
    )
    profile, named = machine_of(machine)
    want_trusted(named, None, trust=trust)
    store = Store.open(campaign)
    try:
        potential, errors = room.finetune(store, how, str(Path(program).absolute()), to.absolute(), profile)
    finally:
        process.close_sessions()
    print(f"force RMSE on held-out frames: {errors['before']:.3f} eV/Å before, {errors['after']:.3f} after")
    print(f"next: activelearn benchmark {typed(potential)} {_series(store)}")


def _series(store: Store) -> str:
    """Return the option that benchmarks the model on a glass of the campaign's elements."""
    from activelearn.check.glass import series_of
    from activelearn.config import load_glass

    elements = store.latest_campaign().type_map
    if found := series_of(set(elements), load_glass("quick")):
        return str(found[0])
    return f"--series YAML    (a series of {', '.join(elements)}, see params/GLASSES.md)"
