"""Back to DP-GEN: the data set of a campaign by iteration, and a ``param.json`` that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from activelearn import select, trees
from activelearn.config import Campaign, TrainingRun
from activelearn.engines.trainers.deepmd import inputs
from activelearn.engines.trainers.deepmd.settings import DeePMDTrain
from activelearn.errors import ConfigError, typed
from activelearn.store import Store, disk_errors
from activelearn.writing import write_deepmd

#: Folders of the data: initial, by iteration, and held out.
INITIAL, ITERATIONS, HELD_OUT = "data.init", "data.iters", "data.held_out"


def write_back(store: Store, to: Path) -> str:
    """Write the labelled data of a campaign in DP-GEN's layout to a new folder; return a message.

    Raises
    ------
    ConfigError
        Nothing is labelled yet, or `to` exists.
    """
    if to.exists():
        raise ConfigError(f"{to}: exists - expected a new folder, since nothing is overwritten - choose another --to")
    sealed = [k for k in store.opened_iterations() if store.is_sealed("label", k)]
    if not sealed:
        raise ConfigError(
            f"{store.folder}: nothing is labelled yet - expected iteration 0 - continue with: activelearn run"
        )
    campaign = store.campaign(sealed[-1])
    with disk_errors(to):
        to.absolute().parent.mkdir(parents=True, exist_ok=True)
        with trees.temporary(to.absolute().parent) as work:
            made = work / "dpgen"
            made.mkdir()
            n = _write_data(store, campaign, sealed, made)
            text = json.dumps(_param(store, campaign, to, made), indent=1)
            (made / "param.json").write_text(text + "\n", encoding="utf-8")
            if not trees.rename(made, to.absolute()):
                raise ConfigError(
                    f"{to}: was created by another process meanwhile - expected a new folder - choose another"
                )
    return (
        f"{n} labelled frames of {len(sealed)} iterations in {to}; {typed(to / 'param.json')} refers to them: add "
        "sys_configs, model_devi_jobs and the keys of fp_style"
    )


def _write_data(store: Store, campaign: Campaign, sealed: list[int], made: Path) -> int:
    """Write the data of each iteration in DP-GEN's layout; return the number of frames."""
    n = 0
    for k in sealed:
        parts = store.training(k)
        n += sum(len(part) for part in parts)
        if parts:
            place = made / INITIAL if k == 0 else made / ITERATIONS / f"iter.{k:06d}" / "02.fp" / "data.000"
            write_deepmd(parts, place, campaign.type_map)
    if held_out := store.held_out(sealed[-1]):
        write_deepmd(held_out, made / HELD_OUT, campaign.type_map)
    return n


def _param(store: Store, campaign: Campaign, to: Path, made: Path) -> dict[str, Any]:
    """Return the part of a ``param.json`` that follows from a campaign."""
    f_lo, f_hi = select.last_window(campaign, store)
    train = campaign.train
    found: dict[str, Any] = {
        "type_map": list(campaign.type_map),
        "mass_map": "auto",
        "init_data_prefix": str(to.absolute()),
        "init_data_sys": [name for name in (INITIAL, ITERATIONS) if (made / name).is_dir()],
        "numb_models": train.n_members,
        "model_devi_f_trust_lo": f_lo,
        "model_devi_f_trust_hi": f_hi,
        "model_devi_skip": 0,
        "model_devi_dt": campaign.explore.stages[0].timestep_fs / 1000.0,
        "fp_task_max": campaign.select.max_frames,
        "fp_task_min": train.min_new_frames,
    }
    if isinstance(train, DeePMDTrain):
        run = TrainingRun(train.n_steps, (1, 1, 1))
        sel = store.sel()
        found["train_backend"] = train.backend
        found["default_training_param"] = inputs.training_input(
            train, run, type_map=campaign.type_map, sel=sel, systems=()
        )
    return found
