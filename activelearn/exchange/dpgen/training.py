"""The training block of DP-GEN (``default_training_param``) as the section ``train``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from activelearn.engines.backends import BACKENDS
from activelearn.engines.trainers.deepmd import blocks
from activelearn.exchange.dpgen.given import DpgenFolder, alias, whole
from activelearn.exchange.dpgen.keys import Fate
from activelearn.exchange.dpgen.told import DpgenReport

_BACKENDS: Final = {
    "tensorflow": "tensorflow",
    "pytorch": "pytorch",
    **dict.fromkeys(("pytorch-exportable", "pt-expt"), "pytorch-exportable"),
}
_SHAPES: Final = ("exp", "cosine", "wsd")
#: Keys of a model that belong to the campaign, or are obsolete in DeePMD-kit.
_OURS: Final = {"seed", "type_map", "coord_norm", "type_fitting_net"}
#: Default final learning rate of DeePMD-kit.
_STOP_LR: Final = 1.0e-8
#: Default number of steps between changes of the learning rate of DeePMD-kit.
_DECAY_STEPS: Final = 5000
#: The batch size rule that DP-GEN calls auto.
_AUTO: Final = "auto:32"
_OF_ATOMS: Final = re.compile(r"auto:\d+")


def train_of(given: DpgenFolder, report: DpgenReport) -> dict[str, Any]:
    """Return the section ``train`` of a campaign."""
    param = given.param
    block = _one_block(param.get("default_training_param"), report)
    training = dict(block.get("training") or {})
    n_steps = alias(training, "numb_steps", "stop_batch")
    if not n_steps:
        why = "no numb_steps in its training - expected a number of steps"
        if "use_smooth" in block or "sel_a" in block:
            why = (
                "the flat form of DeePMD-kit 0.x - expected the sections model, learning_rate, loss and training - "
                "write them"
            )
        report.refuse("default_training_param", why)
        return {}
    made: dict[str, Any] = {"n_members": whole(param.get("numb_models", 4)), "n_steps": whole(n_steps)}
    backend = str(param.get("train_backend", "tensorflow"))
    if backend not in _BACKENDS:
        report.refuse("train_backend", f"{backend} has no counterpart - expected one of {', '.join(_BACKENDS)}")
    made["backend"] = _BACKENDS.get(backend, "tensorflow")
    made["model"] = _model(block.get("model") or {}, given, report)
    made["batch_size"] = _batch(param)
    made["learning_rate"] = _learning_rate(block.get("learning_rate") or {}, int(n_steps), report)
    made["prefactors"] = _prefactors(block.get("loss") or {}, report)
    made |= _warm(param, made["learning_rate"], report)
    if "dp_compress" in param:
        made["compress"] = "always" if param["dp_compress"] else "never"
    if (fewest := whole(param.get("fp_task_min", 1) or 1)) > 1:
        made["min_new_frames"] = fewest
    return made


def last_ensemble(given: DpgenFolder, train: Mapping[str, Any], report: DpgenReport) -> list[Path]:
    """Return the models of DP-GEN's last training, if the first ensemble can start from their weights.

    These are the uncompressed ones; a network with automatic `sel` would be a different one.
    """
    suffixes = BACKENDS[train["backend"]].with_weights
    for iteration in reversed(given.iterations):
        folder = iteration / "00.train"
        found = (_model_of(folder, k, suffixes) for k in range(train["n_members"]))
        models = [model for model in takewhile(lambda model: model is not None, found) if model is not None]
        if models and len(models) == train["n_members"]:
            if _counts_neighbours(train["model"]):
                report.facts.append("the last ensemble is not used as a start: its network has an automatic sel")
                return []
            report.facts.append(f"the first training starts from the weights of {iteration.name} of DP-GEN")
            return models
    report.facts.append(
        f"the first training starts from random weights: no {train['n_members']} frozen models "
        f"({', '.join(suffixes) or 'of a format with weights'}) in any 00.train"
    )
    return []


def _counts_neighbours(model: Mapping[str, Any]) -> bool:
    """Return whether a network has an automatic `sel`, or is of an unsupported kind (which is reported)."""
    try:
        return blocks.limits_neighbours(model) and any(one.sel is None for one in blocks.spheres(model))
    except (LookupError, TypeError, ValueError):
        return True


def _model_of(folder: Path, member: int, suffixes: Sequence[str]) -> Path | None:
    """Return the frozen model of a member, not a compressed one."""
    names = [f"{name}{suffix}" for suffix in suffixes for name in (f"{member:03d}/frozen_model", f"graph.{member:03d}")]
    there = (folder / name for name in names)
    return next((path for path in there if path.is_file() and "compressed" not in path.resolve().name), None)


def _one_block(given: Any, report: DpgenReport) -> dict[str, Any]:  # noqa: ANN401 - raw JSON
    """Return the common block of all members; a list has one per member."""
    blocks = given if isinstance(given, list) else [given]
    plain = [_plain(block) for block in blocks if isinstance(block, Mapping)]
    if not plain:
        report.refuse("default_training_param", "missing - expected the training input of DeePMD-kit")
        return {}
    if any(block != plain[0] for block in plain):
        report.refuse(
            "default_training_param",
            "a list of different networks has no counterpart: members differ only in the random seed - keep one",
        )
    return dict(plain[0])


def _plain(value: Any) -> Any:  # noqa: ANN401 - raw JSON
    """Return a block without its comments and seeds."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if not str(key).startswith("_") and key != "seed"}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _model(block: Mapping[str, Any], given: DpgenFolder, report: DpgenReport) -> dict[str, Any]:
    kinds = block.get("type_map")
    if kinds is not None and list(kinds) != list(given.param["type_map"]):
        report.refuse(
            "default_training_param.model.type_map", f"{kinds} is not the type_map of the run - expected only one"
        )
    made: dict[str, Any] = _without(block)
    if "srtab_file_path" in given.param and "use_srtab" in made:
        made["use_srtab"] = str(given.path(str(given.param["srtab_file_path"])))
    return made


def _without(value: Any) -> Any:  # noqa: ANN401 - raw JSON
    if isinstance(value, Mapping):
        return {key: _without(item) for key, item in value.items() if key not in _OURS}
    return [_without(item) for item in value] if isinstance(value, list) else value


def _batch(param: Mapping[str, Any]) -> int | str:
    """Return one rule for the size of batches: that of all systems if they have the same, else DP-GEN's default."""
    sizes: set[Any] = set()
    for key in ("init_batch_size", "sys_batch_size"):
        value = param.get(key, "auto")
        sizes |= set(value) if isinstance(value, list) else {value}
    (size, *others) = sizes or {"auto"}
    if others or (isinstance(size, str) and not _OF_ATOMS.fullmatch(size)):
        return _AUTO
    return size if isinstance(size, str) else whole(size)


def _learning_rate(given: Mapping[str, Any], n_steps: int, report: DpgenReport) -> dict[str, Any]:
    shape = str(given.get("type", "exp"))
    if shape not in _SHAPES:
        report.refuse("default_training_param.learning_rate.type", f"{shape} - expected one of {', '.join(_SHAPES)}")
    start = float(given.get("start_lr", 1.0e-3))
    stop = given.get("stop_lr")
    if stop is None and "decay_rate" in given:
        n_falls = n_steps / whole(given.get("decay_steps", _DECAY_STEPS))
        stop = max(start * float(given["decay_rate"]) ** n_falls, 1.0e-12)
    made: dict[str, Any] = {"start": start, "stop": float(f"{float(stop or _STOP_LR):.6g}")}
    return made if shape == "exp" else {"shape": shape, **made}


def _prefactors(loss: Mapping[str, Any], report: DpgenReport) -> dict[str, Any]:
    if (kind := str(loss.get("type", "ener"))) != "ener":
        report.refuse(
            "default_training_param.loss.type", f"{kind} - expected ener, since energies and forces are learnt"
        )
    usual = {"energy": ("e", 0.02, 1.0), "force": ("f", 1000.0, 1.0), "virial": ("v", 0.0, 0.0)}
    return {
        name: [float(loss.get(f"start_pref_{letter}", start)), float(loss.get(f"limit_pref_{letter}", limit))]
        for name, (letter, start, limit) in usual.items()
    }


def _warm(param: Mapping[str, Any], rate: dict[str, Any], report: DpgenReport) -> dict[str, Any]:
    """Return the keys of a warm start; its learning rate is added to `rate`."""
    first = param.get("training_reuse_iter")
    if first is None and not param.get("training_init_model"):
        for key in ("training_reuse_numb_steps", "training_reuse_stop_batch", "training_reuse_start_lr"):
            if param.get(key) is not None:
                report.say(key, Fate.LEFT_OUT, "without training_reuse_iter nothing is reused")
        return {}
    made: dict[str, Any] = {"warm_start": True}
    if first is None:
        return made
    n_steps = alias(param, "training_reuse_numb_steps", "training_reuse_stop_batch")
    if n_steps:
        made["warm_n_steps"] = whole(n_steps)
    if param.get("training_reuse_start_lr"):
        rate["warm_start"] = float(param["training_reuse_start_lr"])
    return made
