"""Which models `dp compress` of DeePMD-kit 3.2 takes, by descriptor and backend: read in its source, and run."""

from __future__ import annotations

from typing import Final

from activelearn.engines.trainers.deepmd.blocks import Block, descriptors, kind

#: Activation functions that can be tabulated.
_TABULATED: Final = {"tanh", "gelu", "gelu_tf", "relu", "relu6", "softplus", "sigmoid"}
_PAIRS: Final = {"se_e2_a", "se_e2_r", "se_e3"}


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
