"""Models that `dp compress` of DeePMD-kit 3.2 supports (from its source, and tested), and what it saves."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from activelearn.config.trainer import Faster, Room
from activelearn.engines.trainers.deepmd.blocks import Block, descriptors, fitting_products, kind

#: Activation functions that can be tabulated.
_TABULATED: Final = {"tanh", "gelu", "gelu_tf", "relu", "relu6", "softplus", "sigmoid"}
_PAIRS: Final = {"se_e2_a", "se_e2_r", "se_e3", "se_a_ebd_v2"}


def is_possible(block: Block, backend: str) -> bool:
    """Return whether every descriptor of a model can be tabulated."""
    if kind(block, "standard") != "standard" or "type_embedding" in block:
        return False
    if "use_srtab" in block and backend != "tensorflow":
        return False
    parts = [section for _, section in descriptors(block)]
    if len(parts) > 1 and any(kind(one) not in _PAIRS for one in parts):
        return False  # on TensorFlow it finds the layers of se_atten in a hybrid by their names alone, and none
    return all(_is_possible(one) for one in parts)


def _is_possible(section: Block) -> bool:
    name = kind(section)
    if section.get("resnet_dt", False) or str(section.get("activation_function", "tanh")).lower() not in _TABULATED:
        return False
    if name in _PAIRS:
        return True
    if name in {"se_atten", "se_atten_v2"}:  # attention cannot be tabulated, nor types that enter with the distances
        is_strip = name == "se_atten_v2" or _strips(section)
        return section.get("attn_layer", 2) == 0 and is_strip
    return False


def _strips(section: Block) -> bool:
    if section.get("stripped_type_embedding") is not None:
        return bool(section["stripped_type_embedding"])
    return bool(section.get("tebd_input_mode", "concat") == "strip")


def faster(block: Block, sel: Room) -> Faster | None:
    """Return the savings and cost of `dp compress`, which tabulates the embedding net at every entry of `sel`.

    Fitted to CPU times of deepmd-kit 3.2.0 (TensorFlow, four members, 16 to 512 atoms) on one core of 2026, saved of an
    evaluation of 128 atoms (measured): paper with a total `sel` of 332 49 ms (59), of 116 17 ms (17.5); standard
    0.7 ms (0.4), quick 0.03 ms (0.03). A small network is no slower than its table. Except for se_e2_a, this is
    not known.
    """
    (_, d), *others = descriptors(block)
    if others or kind(d) != "se_e2_a" or kind(block, "standard") != "standard":
        return None
    embedding = tuple(d.get("neuron", (10, 20, 40)))
    products = sum(a * b for a, b in pairwise((1, *embedding)))
    is_float32 = d.get("precision") == "float32"
    each_us = max(0.0, 2.1e-4 * products - 1.6e-3 * embedding[-1]) / (3.0 if is_float32 else 1.0)
    n_types = len(sel[0])
    width = (n_types if d.get("type_one_side", False) else n_types**2) * embedding[-1] / 100.0
    net_MB = n_types * fitting_products(block) * (4 if is_float32 else 8) / 1e6
    return Faster(
        saved_us=sum(sel[0]) * each_us,
        making_s=2.2 + 0.25 * width,
        file_MB=net_MB + 0.9 * width,
        memory_MB=6.0 * width,
    )
