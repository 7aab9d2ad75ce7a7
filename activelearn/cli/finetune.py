"""``activelearn finetune``: fine-tune a foundation on a campaign's data."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from activelearn.cli import MachineOption, TrustOption, app, machine_of, want_trusted
from activelearn.errors import ConfigError, typed

if TYPE_CHECKING:
    from activelearn.store import Store


@app.command()
def finetune(
    campaign: Annotated[Path, typer.Argument(help="Campaign folder with the data set to train on.")],
    to: Annotated[Path, typer.Option(help="Folder to write; the same command continues there.")],
    train: Annotated[
        str, typer.Option(metavar="PRESET|YAML", help="Settings of the training: a preset of params/train/ or a YAML.")
    ] = "mace_finetune",
    foundation: Annotated[
        str | None, typer.Option(help="Foundation, instead of that of --train, such as a MACE file (.model).")
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="Interpreter with the package (mace-venv/bin/python); default: the machine's.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new potential; default FT-<foundation>.")] = None,
    epochs: Annotated[float | None, typer.Option(min=0.0, help="Number of epochs, instead of n_steps.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help="Initial learning rate; it decays a hundredfold.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Number of frames per step.")] = None,
    replay: Annotated[
        Path | None, typer.Option(help="Structures to replay, labelled by the foundation itself.")
    ] = None,
    head: Annotated[str | None, typer.Option(help="Head to use, of a MACE foundation with several.")] = None,
    random_seed: Annotated[int, typer.Option(min=0, help="Random seed of the order of the data.")] = 1,
    machine: MachineOption = "local",
    trust: TrustOption = False,
) -> None:
    """Fine-tune a foundation (all weights) on the data set of a campaign; see docs/foundations.md."""
    from activelearn import finetune as room
    from activelearn.check.trust import read_noted
    from activelearn.config import find, load_train
    from activelearn.engines import process
    from activelearn.engines.trainers.finetuning.settings import FineTuned
    from activelearn.store import Store

    profile, named = machine_of(machine)
    given: dict[str, Any] = {"batch_size": batch_size, "head": head}
    given = {key: value for key, value in given.items() if value is not None}
    if foundation is not None:
        given["foundation"] = str(Path(foundation).absolute()) if Path(foundation).is_file() else foundation
    if learning_rate is not None:
        given["learning_rate"] = {"start": learning_rate, "stop": 0.01 * learning_rate, "warm_start": None}
    if replay is not None:
        given["replay"] = {"file": str(replay.absolute())}
    section, more = read_noted(lambda: load_train(train, given), find("train", train), "train")
    want_trusted([*named, *(one for one in more if one.key not in given)], None, trust=trust)
    if not isinstance(section, FineTuned):
        raise ConfigError(f"--train {train}: fine-tunes no foundation - expected a preset such as mace_finetune")
    if python is not None:
        profile = profile.model_copy(update={"python": _program(python)})
    store = Store.open(campaign)
    if epochs is not None:
        section = section.model_copy(update={"n_steps": room.n_steps_of(store, epochs, section.batch_size)})
    name = name or f"FT-{Path(section.foundation).stem}"
    try:
        potential, errors = room.finetune(store, section, to.absolute(), profile, name, random_seed)
    finally:
        process.close_sessions()
    print(f"force RMSE on held-out frames: {errors['before']:.3f} eV/Å before, {errors['after']:.3f} after")
    print(f"next: activelearn benchmark {typed(potential)} {_series(store)}")


def _program(python: str) -> str:
    program = shutil.which(python)
    if program is None:
        raise ConfigError(
            f"--python {python}: no such program - expected an interpreter with mace-torch - python3 -m venv mace-venv "
            "&& mace-venv/bin/pip install mace-torch"
        )
    return str(Path(program).absolute())


def _series(store: Store) -> str:
    """Return the option that benchmarks the model on a glass of the campaign's elements."""
    from activelearn.check.glass import series_of
    from activelearn.config import load_glass

    elements = store.latest_campaign().type_map
    if found := series_of(set(elements), load_glass("quick")):
        return str(found[0])
    return f"--series YAML    (a series of {', '.join(elements)}, see params/GLASSES.md)"
