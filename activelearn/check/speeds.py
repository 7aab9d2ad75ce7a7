"""Speeds for a bill where a machine profile declares none: those of the profile `local`, and said to be so."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from activelearn.check.cost import DFT, Bill, Item
from activelearn.check.fits import started
from activelearn.check.programs import asked
from activelearn.config import Campaign, Machine, Reference, load_machine

#: The profile whose speeds are the defaults, and the engine whose label time stands for that of other DFT codes.
_OF: Final = "local"
_DFT: Final = "gpaw"
_FIELDS: Final = ("md_Mflop_per_s", "train_Mflop_per_s")


def filled(machine: Machine, campaign: Campaign) -> tuple[Machine, list[str]]:
    """Return a profile with a speed of everything that a campaign does, as far as anybody has measured one.

    Returns
    -------
    machine
        What it declares counts; what it lacks is as in the profile `local`.
    said
        In words, which those are; nothing if it lacks none.
    """
    own, default = machine.speeds, load_machine(_OF).speeds
    lacking = {name: getattr(default, name) for name in _FIELDS if getattr(own, name) is None}
    said = [f"{name} {value:g}" for name, value in lacking.items()]
    labels = dict(own.label_s_per_atom)
    for reference in _references(campaign):
        key = reference.calculator or reference.engine
        if key in labels or reference.engine in labels:
            continue
        seconds, why = _label_s(reference, default.label_s_per_atom)
        if seconds is not None:
            labels[key] = seconds
            said.append(f"a label of {key} {seconds:.3g} s an atom{why}")
    starts = {**default.start_s, **own.start_s}
    speeds = own.model_copy(update={**lacking, "label_s_per_atom": labels, "start_s": starts})
    return machine.model_copy(update={"speeds": speeds}), said


def _references(campaign: Campaign) -> list[Reference]:
    measured = campaign.benchmark.force_error if campaign.benchmark is not None else None
    return [*asked(campaign), *([measured.label.reference] if measured is not None and measured.label else [])]


def label_s(reference: Reference, machine: Machine) -> tuple[float | None, str]:
    """Return the seconds of a label per atom of one slot, and whether they are ``declared`` or a ``default``."""
    own = machine.speeds.label_s_per_atom
    for key in (reference.calculator, reference.engine):
        if key in own:
            return own[key], "declared"
    return _label_s(reference, load_machine(_OF).speeds.label_s_per_atom)[0], "default"


def _label_s(reference: Reference, known: dict[str, float]) -> tuple[float | None, str]:
    """Return the seconds of a label per atom of one slot, and whose they are if not its own."""
    key = reference.calculator or reference.engine
    if key in known:
        return known[key], ""
    if reference.engine not in DFT:
        return None, ""
    ranks = started(reference.command).ranks or 1
    return known[_DFT] / ranks, f" (as {_DFT} has on one core, {known[_DFT]:g}, over {ranks} ranks)"


def with_defaults(bill: Bill, by_default: Bill) -> Bill:
    """Return a bill whose unknown times are those of the same bill by default speeds, marked ``default``."""

    def known(items: tuple[Item, ...], others: tuple[Item, ...]) -> tuple[Item, ...]:
        return tuple(
            replace(other, source="default") if item.seconds is None and other.seconds is not None else item
            for item, other in zip(items, others, strict=True)
        )

    return replace(
        bill,
        initial=known(bill.initial, by_default.initial),
        one_pass=known(bill.one_pass, by_default.one_pass),
        final=known(bill.final, by_default.final),
        apart=known(bill.apart, by_default.apart),
        dft=by_default.dft,
    )


def line(machine: Machine, said: list[str]) -> str:
    """Return in a line what default times are made of."""
    return (
        f"default: profile {machine.name} does not declare these speeds; taken from profile {_OF}, one core per slot: "
        f"{', '.join(said)} - measure and declare them (machine.speeds)"
    )
