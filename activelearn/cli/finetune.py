"""``activelearn finetune``: a foundation MACE goes on with a campaign's data."""

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
    campaign: Annotated[Path, typer.Argument(help="Campaign folder whose data set is learnt.")],
    foundation: Annotated[Path, typer.Option(help="Checkpoint of a foundation MACE (.model).")],
    python: Annotated[str, typer.Option(help="Interpreter with mace-torch, such as mace-venv/bin/python.")],
    to: Annotated[Path, typer.Option(help="Folder to write; the same command goes on in it.")],
    name: Annotated[str | None, typer.Option(help="Of the new model; default FT-<foundation>.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the data set; default 50.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="Default 1e-4.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Frames a step; default 4.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu (default) or cuda.")] = None,
    e0s: Annotated[
        str | None, typer.Option("--e0s", help="Atomic energies: estimated (default), foundation, average, or a table.")
    ] = None,
    random_seed: Annotated[int | None, typer.Option(min=0)] = None,
    option: Annotated[list[str] | None, typer.Option(help="More words for mace_run_train: --option=--ema")] = None,
    machine: MachineOption = "local",
    trust: TrustOption = False,
) -> None:
    """Fine-tune a foundation MACE (all weights, no replay) on the data set of a campaign."""
    from activelearn import finetune as room
    from activelearn.engines import process
    from activelearn.store import Store

    program = shutil.which(python)
    if program is None:
        raise ConfigError(
            f"--python {python}: no such program - wanted an interpreter with mace-torch - python3 -m venv mace-venv "
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
    """Return the option that puts the model to a glass of the campaign's own elements."""
    from activelearn.check.glass import series_of
    from activelearn.config import load_glass

    elements = store.latest_campaign().type_map
    if found := series_of(set(elements), load_glass("quick")):
        return str(found[0])
    return f"--series YAML    (a series of {', '.join(elements)}, see params/GLASSES.md)"
