"""Whether a model block can be read at all: errors reported when the YAML is read, with their keys."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from activelearn.config.messages import nearest
from activelearn.engines.trainers.deepmd.blocks import KINDS, TABLES, At, Block, Keys, kind

#: Supported kinds of models: alone, or as a part of a sum.
_ALONE: Final = {"standard", "dpa4", "linear_ener"}
_IN_A_SUM: Final = {"standard", "pairtab"}
#: Why others are not supported.
_NO_MODELS: Final = {
    "frozen": "it learns nothing, and hides its number of neighbours",
    "pairtab": "it learns nothing by itself; use it in the models of linear_ener",
    "inner_potential": "it is only for DPA-4, with bridging_method",
    "pairwise_dprc": "it is for QM/MM, for which a campaign has no data",
    "linear_ener": "a sum cannot be part of a sum",
    "dpa4": "it cannot be part of a sum",
}
#: Unsupported kinds of descriptors, and why.
_NO_DESCRIPTORS: Final = {
    "loc_frame": "its forces jump when neighbours swap order, so MD does not conserve energy",
    "se_a_mask": "it is for systems without a cell with a varying number of atoms",
}


@dataclass(frozen=True)
class Misshapen:
    """One error: where, the value, and what was expected."""

    at: At
    value: Any
    said: str


def misshapen(block: Any) -> Iterator[Misshapen]:  # noqa: ANN401 - raw YAML
    """Yield the errors of a block from YAML."""
    strange = [*_strange(block, ())]
    yield from strange
    if not strange:
        yield from _model(block, (), _ALONE)


def _strange(value: Any, at: At) -> Iterator[Misshapen]:  # noqa: ANN401 - raw YAML
    """Yield values that JSON does not have."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                yield Misshapen(at, key, f"the key {key!r} is not a text - expected keys of DeePMD-kit")
            else:
                yield from _strange(item, (*at, key))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _strange(item, (*at, i))
    elif isinstance(value, float) and not math.isfinite(value):
        yield Misshapen(at, value, f"got {value} - expected a finite number")
    elif value is not None and not isinstance(value, str | int | float):
        yield Misshapen(at, value, f"got {value!r} - expected a number, a text, true or false, a list or a mapping")


def _mapping(section: Any, at: At, key: str, expected: str) -> Iterator[Misshapen]:  # noqa: ANN401 - raw YAML
    """Yield an error if `key` of a section is not a mapping."""
    if key not in section:
        yield Misshapen((*at, key), None, f"missing - expected {expected}")
    elif not isinstance(section[key], Mapping):
        yield Misshapen((*at, key), section[key], f"got {section[key]!r} - expected {expected}")


def _model(block: Block, at: At, taken: set[str]) -> Iterator[Misshapen]:
    name = kind(block, "standard")
    if name not in taken:
        why = _NO_MODELS.get(name, "no such kind of model")
        yield Misshapen((*at, "type"), name, f"{name}: {why} - expected {_one_of(sorted(taken))}")
        return
    for key in TABLES:
        if key in block and not isinstance(block[key], str):
            yield Misshapen((*at, key), block[key], f"got {block[key]!r} - expected the path of a table")
    if name == "linear_ener":
        yield from _sum(block, at)
    elif name == "pairtab":
        yield from _cutoff(block, at, Keys(rcut_smth=None, default_A=None))
    else:
        wrong = [*_mapping(block, at, "descriptor", "a descriptor of DeePMD-kit")]
        yield from wrong or _descriptor(block["descriptor"], (*at, "descriptor"), name)
        for key in ("fitting_net", "type_embedding"):
            if key in block:
                yield from _mapping(block, at, key, "a mapping of keys of DeePMD-kit")


def _sum(block: Block, at: At) -> Iterator[Misshapen]:
    parts = block.get("models")
    if not isinstance(parts, list | tuple) or not parts:
        yield Misshapen((*at, "models"), parts, f"got {parts!r} - expected a list of models")
        return
    for i, one in enumerate(parts):
        if isinstance(one, Mapping):
            yield from _model(one, (*at, "models", i), _IN_A_SUM)
        else:
            yield Misshapen((*at, "models", i), one, f"got {one!r} - expected a model")
    if not any(isinstance(one, Mapping) and "descriptor" in one for one in parts):
        yield Misshapen(
            (*at, "models"), parts, "none of them learns anything - expected at least one with a descriptor"
        )


def _descriptor(section: Any, at: At, model: str, *, in_list: bool = False) -> Iterator[Misshapen]:  # noqa: ANN401 - raw YAML
    if not isinstance(section, Mapping):
        yield Misshapen(at, section, f"got {section!r} - expected a descriptor of DeePMD-kit")
        return
    name = kind(section, "dpa4" if model == "dpa4" else "")
    if name == "hybrid" and not in_list:
        parts = section.get("list")
        if not isinstance(parts, list | tuple) or not parts:
            yield Misshapen((*at, "list"), parts, f"got {parts!r} - expected a list of descriptors")
        else:
            for i, one in enumerate(parts):
                yield from _descriptor(one, (*at, "list", i), model, in_list=True)
    elif name not in KINDS:
        why = "a hybrid in a hybrid" if name == "hybrid" else _NO_DESCRIPTORS.get(name, "no such descriptor")
        known = [*KINDS, *([] if in_list else ["hybrid"])]
        hint = "expected another" if name in {"hybrid", *_NO_DESCRIPTORS} else nearest(name, known)
        said = f"{name}: {why} - {hint}" if name else f"missing - expected {nearest(name, known)}"
        yield Misshapen((*at, "type"), name, said)
    else:
        yield from _cutoffs(section, at, KINDS[name])


def _cutoffs(section: Block, at: At, kinds: tuple[Keys, ...]) -> Iterator[Misshapen]:
    for keys in kinds:
        here: Any = section
        for name in keys.inside:
            missing = [*_mapping(here, at, name, f"the section {name} of {kind(section)}")]
            if missing:
                if keys.only_with is None:
                    yield from missing
                break
            here = here[name]
        else:
            if keys.only_with is None or here.get(keys.only_with):
                yield from _cutoff(here, (*at, *keys.inside), keys)


def _cutoff(section: Block, at: At, keys: Keys) -> Iterator[Misshapen]:
    """Yield errors of cutoff, smoothing and `sel`, which the campaign itself uses."""
    for key in filter(None, (keys.rcut, keys.rcut_smth)):
        value = section.get(key)
        if key not in section and keys.default_A is not None:
            continue
        if key not in section:
            yield Misshapen((*at, key), None, "missing - expected a distance, Å")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            yield Misshapen((*at, key), value, f"got {value!r} - expected a distance above 0, Å")
    if keys.sel is not None and keys.sel in section:
        given = section[keys.sel]
        counts = given if isinstance(given, list | tuple) else [given]
        are_numbers = bool(counts) and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in counts)
        is_list = isinstance(given, list | tuple)
        if given is not None and given != "auto" and not (are_numbers and (is_list or not keys.by_element)):
            expected = "a number per element" if keys.by_element else "a number of neighbours"
            also = "; ours is from the densest cell that the guards allow" if str(given).startswith("auto") else ""
            yield Misshapen((*at, keys.sel), given, f"got {given!r} - expected {expected}, or auto{also}")


def _one_of(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
