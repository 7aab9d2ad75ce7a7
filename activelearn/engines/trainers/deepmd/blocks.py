"""A model block of DeePMD-kit, the section ``model`` of its ``input.json``: locations of its parts, for all kinds.

Kinds of descriptors and their keys are those of DeePMD-kit 3.2 (Zeng et al., J. Chem. Theory Comput. 21, 4375 (2025)).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from activelearn.config.moved import here
from activelearn.config.trainer import Room, Shell

Block = Mapping[str, Any]
#: Keys and list indices that lead to a part of a block.
At = tuple[str | int, ...]


@dataclass(frozen=True)
class Keys:
    """Location of a cutoff in a kind of descriptor.

    Parameters
    ----------
    inside
        Section of the descriptor; None: the descriptor itself.
    rcut, rcut_smth, sel
        Names of the keys; None if there is none.
    default_A
        Default cutoff and start of the smoothing, Å; None: required.
    by_element
        Whether `sel` has one number per element.
    is_limit
        Whether neighbours beyond `sel` are dropped.
    only_with
        Key that must be true for it.
    """

    inside: tuple[str, ...] = ()
    rcut: str = "rcut"
    rcut_smth: str | None = "rcut_smth"
    sel: str | None = "sel"
    default_A: tuple[float, float] | None = (6.0, 0.5)
    by_element: bool = False
    is_limit: bool = True
    only_with: str | None = None


_BY_ELEMENT: Final = (Keys(by_element=True),)
_TOGETHER: Final = (Keys(),)
#: The cutoffs of each kind of descriptor.
KINDS: Final[Mapping[str, tuple[Keys, ...]]] = {
    "se_e2_a": _BY_ELEMENT,
    "se_e2_r": _BY_ELEMENT,
    "se_e3": _BY_ELEMENT,
    "se_a_tpe": _BY_ELEMENT,
    "se_a_ebd_v2": _BY_ELEMENT,
    "se_atten": _TOGETHER,
    "se_atten_v2": _TOGETHER,
    "se_e3_tebd": _TOGETHER,
    "dpa2": (
        Keys(("repinit",), sel="nsel", default_A=None),
        Keys(("repformer",), sel="nsel", default_A=None),
        Keys(
            ("repinit",),
            rcut="three_body_rcut",
            rcut_smth="three_body_rcut_smth",
            sel="three_body_sel",
            default_A=(4.0, 0.5),
            only_with="use_three_body",
        ),
    ),
    "dpa3": tuple(
        Keys(("repflow",), rcut=f"{of}_rcut", rcut_smth=f"{of}_rcut_smth", sel=f"{of}_sel", default_A=None)
        for of in "ea"
    ),
    "dpa4": (Keys(rcut_smth=None, is_limit=False),),
    "dpa4c": (Keys(rcut_smth=None, sel=None, is_limit=False),),
}
_TABLE: Final = Keys(rcut_smth=None, default_A=None)
#: Other names of kinds of descriptors and models.
_SAME: Final = {
    **dict.fromkeys(("se_a",), "se_e2_a"),
    **dict.fromkeys(("se_r",), "se_e2_r"),
    **dict.fromkeys(("se_at", "se_t", "se_a_3be"), "se_e3"),
    **dict.fromkeys(("se_a_ebd",), "se_a_tpe"),
    **dict.fromkeys(("se_a_tpe_v2",), "se_a_ebd_v2"),
    **dict.fromkeys(("dpa1",), "se_atten"),
    **dict.fromkeys(("DPA4", "SeZM", "sezm"), "dpa4"),
    **dict.fromkeys(("DPA4C",), "dpa4c"),
}
#: Keys whose value is the path of a table.
TABLES: Final = ("use_srtab", "tab_file")


@dataclass(frozen=True)
class Sphere:
    """One cutoff of a block.

    Parameters
    ----------
    at
        Path of the section that contains it.
    section, keys
        That section, and the names of its keys.
    """

    at: At
    section: Block
    keys: Keys

    @property
    def rcut(self) -> float:
        """Cutoff, Å."""
        return float(self.section.get(self.keys.rcut, (self.keys.default_A or (0.0,))[0]))

    @property
    def rcut_smth(self) -> float | None:
        """Start of the smoothing, Å; None if not set by a key."""
        if self.keys.rcut_smth is None:
            return None
        return float(self.section.get(self.keys.rcut_smth, (self.keys.default_A or (0.0, 0.0))[1]))

    @property
    def sel(self) -> tuple[int, ...] | None:
        """Maximum numbers of neighbours set by the user, as in :class:`activelearn.config.Shell`."""
        given = None if self.keys.sel is None else self.section.get(self.keys.sel)
        if given is None or given == "auto":
            return None
        numbers = tuple(given) if isinstance(given, Sequence) else (given,)
        return numbers if self.keys.by_element else (sum(numbers),)


def dotted(at: At, prefix: str = "train.model") -> str:
    """Return a path in dotted form: ``train.model.descriptor.rcut``."""
    return ".".join([prefix, *map(str, at)])


def kind(section: Block, default: str = "") -> str:
    """Return the ``type``, by its canonical name."""
    name = str(section.get("type", default))
    return _SAME.get(name, name)


def models(block: Block, at: At = ()) -> Iterator[tuple[At, Block]]:
    """Yield path and block of each summand of a model; itself if it is not a sum."""
    if kind(block) == "linear_ener":
        for i, one in enumerate(block["models"]):
            yield from models(one, (*at, "models", i))
    else:
        yield at, block


def descriptors(block: Block) -> Iterator[tuple[At, Block]]:
    """Yield path and section of each descriptor that is not a hybrid, in order."""
    for at, model in models(block):
        if "descriptor" in model:
            yield from _single(model["descriptor"], (*at, "descriptor"), kind(model))


def _single(descriptor: Block, at: At, model: str) -> Iterator[tuple[At, Block]]:
    if kind(descriptor, model) == "hybrid":
        for i, one in enumerate(descriptor["list"]):
            yield from _single(one, (*at, "list", i), model)
    else:
        yield at, descriptor


def fitting_nets(block: Block) -> Iterator[tuple[At, Block]]:
    """Yield path and section of each fitting net, in order."""
    for at, model in models(block):
        if "fitting_net" in model:
            yield (*at, "fitting_net"), model["fitting_net"]


def spheres(block: Block) -> list[Sphere]:
    """Return the cutoffs of a block, the longest first."""
    found = []
    for at, descriptor in descriptors(block):
        for keys in KINDS[kind(descriptor, "dpa4")]:  # the only kind whose type may be omitted
            section = descriptor
            for name in keys.inside:
                section = section[name]
            if keys.only_with is None or section.get(keys.only_with):
                found.append(Sphere((*at, *keys.inside), section, keys))
    found += [Sphere(at, model, _TABLE) for at, model in models(block) if kind(model) == "pairtab"]
    return sorted(found, key=lambda one: -one.rcut)


def shells(block: Block) -> tuple[Shell, ...]:
    """Return the neighbour shells of the models of a block, the longest cutoff first."""
    return tuple(
        Shell(one.rcut, dotted((*one.at, one.keys.sel or "sel")), one.sel, counts_elements=one.keys.by_element)
        for one in spheres(block)
    )


def limits_neighbours(block: Block) -> bool:
    """Return whether any part of a model drops neighbours beyond `sel`."""
    return any(one.keys.is_limit for one in spheres(block))


def is_compiled(block: Block) -> bool:
    """Return whether `dp freeze` compiles a model, with g++ (PyTorch: DPA-4, for any suffix)."""
    return any(kind(one, "dpa4").startswith("dpa4") for _, one in descriptors(block))


def Mflop(block: Block, sel: Room) -> float | None:
    """Return the multiply-adds (millions) of one forward evaluation of an atom; None unless it is a pure se_e2_a."""
    (_, d), *others = descriptors(block)
    if others or kind(d) != "se_e2_a" or kind(block, "standard") != "standard":
        return None
    embedding = tuple(d.get("neuron", (10, 20, 40)))
    n_neighbours = sum(sel[0]) / 2.0  # `sel` is for the densest cell
    per_neighbour = sum(a * b for a, b in pairwise((1, *embedding))) + 4 * embedding[-1]
    return float(n_neighbours * per_neighbour + fitting_products(block)) / 1e6


def fitting_products(block: Block) -> int:
    """Return the multiply-adds of one forward evaluation of the fitting net after a se_e2_a."""
    (_, d), *_ = descriptors(block)
    fitting, last = block.get("fitting_net", {}), tuple(d.get("neuron", (10, 20, 40)))[-1]
    axis = d.get("axis_neuron", d.get("n_axis_neuron", 4))
    widths = (last * axis, *fitting.get("neuron", fitting.get("n_neuron", (120, 120, 120))), 1)
    return sum(a * b for a, b in pairwise(widths))


def filled(block: Block, type_map: Sequence[str], sel: Room, random_seeds: Sequence[int]) -> dict[str, Any]:
    """Return a block as read by DeePMD-kit, with the settings of the campaign and the member.

    Parameters
    ----------
    block
        As in the campaign.
    type_map
        Elements, in the order of the types; each part of a sum gets them, too.
    sel
        Maximum number of neighbours of each shell; empty if no part of the model has a limit.
    random_seeds
        For the first descriptor and the first fitting net; those of others are derived from them.
    """
    made: dict[str, Any] = _copy(block)
    kinds = list(type_map)
    for _, model in [((), made), *models(made)]:
        assert isinstance(model, dict)
        model["type_map"] = kinds
    for one, room in zip(spheres(made), sel or [()] * len(spheres(made)), strict=True):
        _make_room(one, room)
    for i, (at, section) in enumerate(descriptors(made)):
        _seed(section, random_seeds[0], i)
        if sel:
            _widen(section, [one for one in spheres(made) if one.at[: len(at)] == at])
    for i, (_, section) in enumerate(fitting_nets(made)):
        _seed(section, random_seeds[1], i)
    for i, (_, model) in enumerate(models(made), 1):
        if "type_embedding" in model:
            _seed(model["type_embedding"], random_seeds[0], -i)
    return {"type_map": made.pop("type_map"), **made}


def _copy(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a copy without shared parts, with the current paths of tables."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return here(value) if isinstance(value, str) else value


def _make_room(sphere: Sphere, room: Sequence[int]) -> None:
    section, key = sphere.section, sphere.keys.sel
    assert isinstance(section, dict)
    if key is None:
        return
    if room:
        section[key] = list(room) if sphere.keys.by_element else room[0]
    elif sphere.sel is None:
        section.pop(key, None)  # "auto" would need statistics that we skip


def _widen(descriptor: Block, nested: Sequence[Sphere]) -> None:
    """Make `sel` of longer cutoffs at least that of shorter ones; DPA-2 requires more, even if there are none."""
    least = 0
    for one in reversed(nested):
        if len(nested) > 1 and one.keys.sel is not None and not one.keys.by_element:
            assert isinstance(one.section, dict)
            one.section[one.keys.sel] = max(one.section[one.keys.sel], least)
            least = one.section[one.keys.sel] + (kind(descriptor) == "dpa2")


def _seed(section: Block, random_seed: int, i: int) -> None:
    """Give a part of a model its seed: the first the given one, the others derived ones."""
    assert isinstance(section, dict)
    rng = np.random.default_rng([random_seed, abs(i), int(i < 0)])
    section["seed"] = random_seed if i == 0 else int(rng.integers(1, 2**31 - 1))
