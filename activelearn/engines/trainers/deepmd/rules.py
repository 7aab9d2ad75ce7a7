"""Rules for readable model blocks, beyond what DeePMD-kit's own dargs reject.

Some errors DeePMD-kit detects itself, after minutes of training or at its end; others are silent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from activelearn.config import bounds
from activelearn.config.moved import here
from activelearn.engines.backends import BACKENDS
from activelearn.engines.trainers.deepmd.blocks import (
    KINDS,
    TABLES,
    At,
    Block,
    Sphere,
    descriptors,
    dotted,
    fitting_nets,
    kind,
    models,
    spheres,
)

#: Unsupported keys, and why.
_REFUSED: Final = {
    "spin": "a campaign has no magnetic forces as labels, and LAMMPS needs another pair style for it (deepspin)",
    "modifier": "it needs a second model, of dipoles",
    "compress": "models are compressed by train.compress and final.compress",
    "finetune_head": "there is no model with heads to start from",
    "shared_dict": "shared parts are not supported: write them where they are used",
    "lora": "there is no model to adapt",
}
#: Keys of descriptors and fitting nets that need data which a campaign does not have.
_WITHOUT_DATA: Final = {
    "numb_fparam": "frame parameters",
    "numb_aparam": "atomic parameters",
    "dim_case_embd": "cases",
    "use_aparam_as_mask": "atomic parameters",
    "add_chg_spin_ebd": "charges and multiplicities",
}
_ENERGIES: Final = {"ener", "dpa4_ener", "sezm_ener"}
#: Cutoffs, the first of which is the inner one, by kind of descriptor; for DPA-2 they must also differ.
_INNER: Final = {
    "dpa2": ((("repformer",), "rcut"), (("repinit",), "rcut")),
    "dpa3": ((("repflow",), "a_rcut"), (("repflow",), "e_rcut")),
}


def impossible(block: Block, backend: str) -> Iterator[str]:
    """Yield what must not enter a training, one line each."""
    yield from _ours(block)
    yield from _refused(block)
    for at, section in descriptors(block):
        yield from _widths(section, at)
        yield from _without_data(section, at)
        yield from _inner(section, at)
    for at, section in fitting_nets(block):
        yield from _widths(section, at)
        yield from _without_data(section, at)
        if str(section.get("type", "ener")) not in _ENERGIES:
            yield f"{dotted((*at, 'type'))}: {section['type']} - expected ener, for energies and forces - fix it"
    for sphere in spheres(block):
        yield from _smoothing(sphere)
    for at, model in models(block):
        yield from _short_range(model, at)
        yield from _on_pytorch(block, model, at) if backend != "tensorflow" else ()
        yield from _one_side(model, at, backend)
    yield from _dpa4_alone(block)
    yield from _sums(block, backend)
    yield from (str(one) for one in _outliers(block) if not one.is_possible)


def unusual(block: Block) -> list[str]:
    """Return suspicious values, one line each."""
    return [str(one) for one in _outliers(block) if one.is_possible]


def contradictions(block: Block, type_map: Sequence[str]) -> Iterator[str]:
    """Yield conflicts with the elements, one line each."""
    for at, model in [((), block), *models(block)]:
        given = model.get("type_map")
        if given is not None and (not isinstance(given, list | tuple) or list(given) != list(type_map)):
            yield (
                f"{dotted((*at, 'type_map'))} is {given}, but the campaign's is {list(type_map)} - expected only one - "
                "leave out that of the model"
            )
    for one in spheres(block):
        given = one.section.get(one.keys.sel or "")
        if isinstance(given, list | tuple) and len(given) != len(type_map):
            yield f"{dotted((*one.at, one.keys.sel or ''))} has {len(given)} numbers for {len(type_map)} elements"
    for at, section in descriptors(block):
        if kind(section) == "se_a_tpe" and len(type_map) > 1:
            yield (
                f"{dotted((*at, 'type'))}: {section['type']} does not train on more than one element (DeePMD-kit 3.2 "
                "ends at the first step) - expected se_atten, which embeds types as well"
            )


def tables(block: Block) -> Iterator[tuple[At, str]]:
    """Yield path and value of the keys that name a file."""
    for at, model in models(block):
        yield from (((*at, key), model[key]) for key in TABLES if key in model)


def missing_tables(block: Block) -> Iterator[str]:
    """Yield the missing files of a block, one line each."""
    for at, value in tables(block):
        if (
            not Path(here(value)).is_absolute() or not Path(here(value)).is_file()
        ):  # if from a YAML, it is absolute if it exists
            yield (
                f"{dotted(at)}: no file {value} - expected a table of pair energies, by a path relative to the folder "
                "of the YAML (with its suffix) or an absolute path - check the path"
            )


def _ours(block: Block) -> Iterator[str]:
    """Yield the seeds of a block, since those of the members are drawn."""
    embeddings = [((*at, "type_embedding"), m["type_embedding"]) for at, m in models(block) if "type_embedding" in m]
    for at, section in [*descriptors(block), *fitting_nets(block), *embeddings]:
        if section.get("seed") is not None:
            yield (
                f"{dotted((*at, 'seed'))}: {section['seed']} - expected none: each member has its own, drawn from "
                "random_seed - leave it out"
            )


def _refused(block: Block) -> Iterator[str]:
    for at, model in dict([((), block), *models(block)]).items():
        if str(model.get("bridging_method", "none")).lower() != "none" and kind(model) != "dpa4":
            yield (
                f"{dotted((*at, 'bridging_method'))}: {model['bridging_method']} trains only with DPA-4 - expected "
                "train.model.type: dpa4, or use_srtab - leave it out"
            )
        for key, why in _REFUSED.items():
            if model.get(key):
                yield f"{dotted((*at, key))}: {why} - expected a model without it - leave it out"


def _widths(section: Block, at: At) -> Iterator[str]:
    """Yield invalid layers; for a width of 0, dpa4_ener chooses one."""
    name = next((name for name in ("neuron", "n_neuron") if name in section), "neuron")
    layers = section.get(name, [1])
    least = 0 if str(section.get("type")) in {"dpa4_ener", "sezm_ener"} else 1
    where = dotted((*at, name))
    if not isinstance(layers, list | tuple) or not all(isinstance(n, int) for n in layers):
        yield f"{where}: got {layers!r} - expected a list of whole numbers - fix it"
        return
    if not layers:
        yield f"{where}: is empty - expected at least one layer - leave it out, or give widths such as [25, 50]"
        return
    if min(layers) < least:
        yield f"{where}: {list(layers)} - expected widths of {least} or more - fix it"
    axis = next((key for key in ("axis_neuron", "n_axis_neuron") if key in section), "axis_neuron")
    n_axis = section.get(axis)
    if name in section and isinstance(n_axis, int) and n_axis > layers[-1] > 0:
        yield (
            f"{dotted((*at, axis))}: {n_axis} - expected at most the width of the last layer of neuron, {layers[-1]} - "
            "lower it"
        )


def _without_data(section: Block, at: At) -> Iterator[str]:
    for key, what in _WITHOUT_DATA.items():
        if section.get(key):
            yield f"{dotted((*at, key))}: {section[key]!r} - expected none: labels have no {what} - leave it out"


def _inner(section: Block, at: At) -> Iterator[str]:
    """Yield an inner cutoff that is larger than the outer one."""
    for (inside, key), (of, outer) in [_INNER[kind(section)]] if kind(section) in _INNER else []:
        inner_A, outer_A = section[inside[0]][key], section[of[0]][outer]
        if inner_A > outer_A or (inner_A == outer_A and kind(section) == "dpa2"):
            expected = "less than" if kind(section) == "dpa2" else "at most"
            yield (
                f"{dotted((*at, *inside, key))}: {inner_A:g} Å - expected {expected} {'.'.join((*of, outer))}, "
                f"{outer_A:g} Å - lower it"
            )


def _smoothing(sphere: Sphere) -> Iterator[str]:
    smooth = sphere.rcut_smth
    if smooth is not None and smooth >= sphere.rcut:
        where = dotted((*sphere.at, sphere.keys.rcut_smth or ""))
        yield f"{where}: {smooth:g} Å - expected less than the cutoff, {sphere.rcut:g} Å - lower it"


def _dpa4_alone(block: Block) -> Iterator[str]:
    """Yield a DPA-4 in a model of another type, which trains but cannot be frozen."""
    for at, section in descriptors(block):
        if kind(section) == "dpa4" and kind(block) != "dpa4":
            yield (
                f"{dotted((*at, 'type'))}: {section['type']} in a model of another type trains but cannot be "
                "frozen - expected train.model.type: dpa4 - set it, with fitting_net.type: dpa4_ener"
            )


def _short_range(model: Block, at: At) -> Iterator[str]:
    """Yield missing settings of a pair table that takes over at short distances."""
    if "use_srtab" not in model:
        return
    for key in ("smin_alpha", "sw_rmin", "sw_rmax"):
        value = model.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{dotted((*at, key))}: got {value!r} - expected a number, together with use_srtab - add it"
            return
    if not 0 <= model["sw_rmin"] < model["sw_rmax"]:
        yield (
            f"{dotted((*at, 'sw_rmin'))}: {model['sw_rmin']:g} Å - expected less than sw_rmax, {model['sw_rmax']:g} Å "
            "- lower it"
        )


def _on_pytorch(block: Block, model: Block, at: At) -> Iterator[str]:
    """Yield what dargs wrongly report as supported by PyTorch, or what differs there."""
    kinds = [(where, kind(section), section) for where, section in descriptors(model)]
    by_element = {name for name, keys in KINDS.items() if keys[0].by_element}
    if kinds and {name for _, name, _ in kinds} <= by_element and ("use_srtab" in model or block is not model):
        yield (
            f"{dotted((*at, *kinds[0][0], 'type'))}: {kinds[0][1]} in a sum, or with a pair table, does not train "
            "on PyTorch, which needs type embedding - expected a descriptor such as se_atten - choose one, or "
            "train.backend: tensorflow"
        )


def _one_side(model: Block, at: At, backend: str) -> Iterator[str]:
    """Yield nets per pair of elements that a backend trains as nets per element, or cannot freeze."""
    for where, section in descriptors(model):
        name = kind(section)
        is_other = name == "se_e2_r" and backend == "pytorch"
        if section.get("type_one_side", False) or not (is_other or name in {"se_e2_a", "se_e2_r"}):
            continue
        if is_other or not BACKENDS[backend].two_sides:
            why = "is trained as if it were true" if is_other else "cannot be frozen"
            yield (
                f"{dotted((*at, *where, 'type_one_side'))}: false {why} by {backend} of DeePMD-kit 3.2 - expected true "
                "- set it"
            )


def _sums(block: Block, backend: str) -> Iterator[str]:
    """Yield problems of a sum of models."""
    if kind(block) != "linear_ener":
        return
    parts, weights = block["models"], block.get("weights")
    if isinstance(weights, list | tuple) and len(weights) != len(parts):
        yield f"train.model.weights: {len(weights)} for {len(parts)} models - expected one for each - fix it"
    elif isinstance(weights, str) and weights not in {"sum", "mean"}:
        yield f"train.model.weights: got {weights!r} - expected sum, mean or a list of numbers - fix it"
    pairs = next((i for i, one in enumerate(parts) if kind(one) == "pairtab"), None)
    if backend == "tensorflow" and pairs is not None:
        yield (
            f"train.model.models.{pairs}.type: pairtab does not train on TensorFlow (DeePMD-kit 3.2 stops before the "
            "first step) - expected another backend, or use_srtab - train.backend: pytorch"
        )
    elif pairs == 0:
        yield (
            "train.model.models.0.type: pairtab - expected it after a model that learns, from which DeePMD-kit takes "
            "the elements - change the order"
        )


def _outliers(block: Block) -> Iterator[bounds.Outlier]:
    """Yield the numbers with a row in the table of docs/bounds.md."""
    for where, value, row in _numbers(block):
        if not row.usual[0] <= value <= row.usual[1]:
            yield bounds.Outlier(where, value, row)


def _numbers(block: Block) -> Iterator[tuple[str, float, bounds.Quantity]]:
    for one in spheres(block):
        yield dotted((*one.at, one.keys.rcut)), one.rcut, bounds.of("cutoff of the descriptor")
        if one.rcut_smth is not None:
            at = (*one.at, one.keys.rcut_smth or "")
            yield dotted(at), one.rcut_smth, bounds.of("start of the smoothing")
        for n in one.sel or ():
            yield dotted((*one.at, one.keys.sel or "")), n, bounds.of("number of neighbours")
    for at, section in [*descriptors(block), *fitting_nets(block)]:
        for i, n in enumerate(_list(section, "neuron")):
            yield dotted((*at, "neuron", i)), n, bounds.of("width of a layer")


def _list(section: Block, key: str) -> list[int]:
    found: Any = section.get(key)
    is_list = isinstance(found, list | tuple)
    return [n for n in found if isinstance(n, int) and n > 0] if is_list else []
