"""Labels that a campaign inherits: those in its ledger, from other campaigns or imported, join its initial data.

Labels of two references have two energy scales, so only labels of the campaign's own reference join, unless others are
named (``initial.from_ledger: [ab12cd34ef56]``); the mixing is recorded. What joins is sealed with the initial data,
with its labels and with who labelled, so that a ledger that grows or is lost later changes nothing.

Frames of one trajectory are near-duplicates: a trajectory stays together when validation frames are set aside, and one
that has more than half of the frames of its composition is never set aside.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from activelearn import geometry
from activelearn.config import Campaign
from activelearn.engines.reference import may_be
from activelearn.errors import ConfigError, typed
from activelearn.frames import Frames, unpack
from activelearn.store import Ledger, Store, read_npz
from activelearn.store.journal import Entry

#: Largest number of structures that are read to see what a ledger offers, ...
LOOKED_AT: Final = 500
#: ... and of these, those whose neighbours are counted: the densest one of each composition.
DENSEST: Final = 50
#: Of the array of JSON text beside the frames.
_NAME: Final = "inherited"


@dataclass(frozen=True)
class Inherited:
    """What joins the initial data.

    Parameters
    ----------
    parts
        Labelled Frames, one per composition and trajectory, in the order of their keys.
    references
        sha256 of the reference of each part.
    identities
        The identities of these references.
    passed_over
        Labels that do not join, by reason.
    """

    parts: list[Frames] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    identities: dict[str, Any] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)

    def beside(self, first: int) -> dict[str, NDArray[Any]]:
        """Return what is sealed beside the frames, of which the inherited ones are those from part `first` on."""
        if not self.references and not self.passed_over:
            return {}
        parts = {str(first + i): sha for i, sha in enumerate(self.references)}
        found = {"parts": parts, "identities": self.identities, "passed_over": self.passed_over}
        return {_NAME: np.array(json.dumps(found))}


def sealed_references(arrays: Mapping[str, NDArray[Any]]) -> dict[int, dict[str, Any]]:
    """Return the identity of the reference of every inherited part, from what is sealed with the chosen frames."""
    found = _sealed(arrays)
    return {int(part): found["identities"][sha] for part, sha in found.get("parts", {}).items()}


def sealed_passed_over(arrays: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Return how many labels of the ledger did not join, by reason."""
    return dict(_sealed(arrays).get("passed_over", {}))


def _sealed(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(str(arrays[_NAME])) if _NAME in arrays else {}
    return found


def from_ledger(campaign: Campaign, store: Store, iteration: int, own: Sequence[Frames]) -> Inherited:
    """Return the labels of the ledger that join the initial data.

    Parameters
    ----------
    campaign
        Says whether, and of which references.
    store
        The ledger, and what the iteration is sealed to.
    iteration
        Whose reference is the campaign's own.
    own
        The initial frames of the campaign itself: a label of one of them does not join twice.

    Raises
    ------
    ConfigError
        A reference that is named is not in the ledger, or it has labels of other references only.
    """
    if not campaign.initial.from_ledger:
        return Inherited()
    store.ledger.refresh()
    references = requested_references(campaign, store.ledger, store.fingerprint(iteration)["sha256"])
    known = store.ledger.references()
    found = Inherited(identities={sha: known[sha] for sha in references if sha in known})
    held = geometry.capacities(campaign.train, campaign.type_map, store.sel())
    seen = {part.structure_key(k, "") for part in own for k in range(len(part))}
    for reference in references:
        for part in store.ledger.structures(reference):
            rows = []
            for k in range(len(part)):
                reason = _unfit(part[k], campaign, held, seen)
                if reason is None:
                    rows.append(k)
                    seen.add(part.structure_key(k, ""))
                else:
                    found.passed_over[reason] += 1
            if rows:
                found.parts.append(part[rows])
                found.references.append(reference)
    for entry in store.ledger.entries():
        if entry.refused is None and not (entry.reference in references and entry.symbols):
            named = f"label of another reference, {entry.reference[:12]}"
            found.passed_over[named if entry.reference else "label without its structure or reference"] += 1
    return found


def requested_references(campaign: Campaign, ledger: Ledger, own: str | None) -> list[str]:
    """Return the references whose labels join, the campaign's own first.

    Parameters
    ----------
    campaign
        ``initial.from_ledger`` names the others by the beginnings of their sha256.
    ledger
        Where they must be.
    own
        sha256 of the campaign's own reference; None: it is not known yet, and each that may be it joins.

    Raises
    ------
    ConfigError
        See :func:`from_ledger`.
    """
    asked, known = campaign.initial.from_ledger, ledger.references()
    possible = [own] if own is not None else _possible(campaign, ledger)
    listed = "; ".join(f"{sha[:12]} {identity.get('functional')}" for sha, identity in known.items()) or "none there"
    named = []
    for beginning in asked if isinstance(asked, tuple) else ():
        matches = [sha for sha in known if sha.startswith(beginning)]
        if len(matches) != 1:
            raise ConfigError(
                f"initial.from_ledger: {len(matches)} references begin with {beginning} in {ledger.folder} - expected "
                f"one of: {listed} - see: activelearn labels list {typed(ledger.folder)}"
            )
        named += matches
    if asked is True and known and not set(possible) & set(known):
        which = own[:12] if own is not None else campaign.label.reference.name
        mixed = ", ".join(sha[:12] for sha in known)
        raise ConfigError(
            f"initial.from_ledger: no label of this campaign's reference ({which}) in {ledger.folder}, only of: "
            f"{listed} - expected the same reference (two energy scales in one data set spoil the models) - leave it "
            f"out, or, if they are on the energy scale of label.reference, name them: from_ledger: [{mixed}]"
        )
    return list(dict.fromkeys([*possible, *named]))


def _possible(campaign: Campaign, ledger: Ledger) -> list[str]:
    """Return the references of a ledger that may be the campaign's own, which has not been called yet."""
    return [sha for sha, identity in ledger.references().items() if may_be(campaign.label.reference, identity)]


def _unfit(frame: Frames, campaign: Campaign, held: Sequence[geometry.Capacity], seen: set[str]) -> str | None:
    """Return why a label of the ledger does not join, or None."""
    unknown = sorted(set(frame.symbols) - set(campaign.type_map))
    if unknown:
        return f"elements not in type_map: {', '.join(unknown)}"
    if frame.structure_key(0, "") in seen:
        return "the structure is there already"
    return None if all(capacity.holds(frame) for capacity in held) else geometry.NO_ROOM


def families(parts: Sequence[Frames]) -> Mapping[str, str]:
    """Return the trajectories that may be set aside for validation, each with its composition."""
    total: Counter[str] = Counter()
    of_walk: Counter[str] = Counter()  # of one part or, if its atoms come in two orders, of several
    for part in parts:
        total[part.formula] += len(part)
        of_walk[str(part.origin["walk"][0])] += len(part)
    named = {str(part.origin["walk"][0]): part.formula for part in parts}
    return {walk: f"ledger {formula}" for walk, formula in named.items() if 2 * of_walk[walk] <= total[formula]}


@dataclass(frozen=True)
class Offer:
    """What a ledger offers to a campaign, by the headers of its records; few structures are read.

    Parameters
    ----------
    ledger
        Its folder.
    counts
        Accepted labels with a structure, by reference.
    n, n_without_virial
        Of them, labels that may join by reference and elements, and those of these without a virial.
    lacking
        Elements of the others of these references that ``type_map`` lacks.
    has_held_out
        Whether trajectories can be set aside for validation.
    frames
        Of those that may join, evenly over the compositions.
    """

    ledger: Path | None = None
    counts: Counter[str] = field(default_factory=Counter)
    n: int = 0
    n_without_virial: int = 0
    lacking: tuple[str, ...] = ()
    has_held_out: bool = False
    frames: tuple[Frames, ...] = ()

    @property
    def densest(self) -> list[Frames]:
        """The densest frame of each composition, at most :data:`DENSEST`, the densest first."""
        found: dict[str, tuple[float, Frames]] = {}
        for frame in self.frames:
            volume = float(frame.volume[0]) / frame.n_atoms
            if frame.formula not in found or volume < found[frame.formula][0]:
                found[frame.formula] = volume, frame
        return [frame for _, frame in sorted(found.values(), key=lambda one: one[0])[:DENSEST]]


#: Of a campaign that takes none.
NOTHING: Final = Offer()


def offered(campaign: Campaign, ledger: Ledger, own: str | None) -> Offer:
    """Return what a ledger offers.

    Parameters
    ----------
    campaign
        Says whether labels join, and of which references.
    ledger
        Refreshed.
    own
        sha256 of the campaign's own reference; None: it is not known yet.

    Raises
    ------
    ConfigError
        See :func:`from_ledger`.
    """
    if not campaign.initial.from_ledger:
        return NOTHING
    references = requested_references(campaign, ledger, own)
    whole = [entry for entry in ledger.entries() if entry.refused is None and entry.symbols]
    unknown = {symbols: set(symbols.split()) - set(campaign.type_map) for symbols in {e.symbols for e in whole}}
    requested = [entry for entry in whole if entry.reference in references]
    fit = [entry for entry in requested if not unknown[entry.symbols]]
    formulas = Counter(entry.formula for entry in fit)
    trajectories = Counter((entry.formula, entry.symbols, entry.walk) for entry in fit)
    apart = Counter(formula for (formula, _, _), n in trajectories.items() if 2 * n <= formulas[formula])
    return Offer(
        ledger=ledger.folder,
        counts=Counter(entry.reference for entry in whole),
        n=len(fit),
        n_without_virial=sum(not entry.has_virial for entry in fit),
        lacking=tuple(sorted({element for entry in requested for element in unknown[entry.symbols]})),
        has_held_out=any(n > 1 for n in apart.values()),
        frames=tuple(frame for e in _evenly(fit) if (frame := ledger.frame(e.key)) is not None),
    )


def joined(store: Store) -> Offer:
    """Return the labels that a campaign has started with, whatever its ledger offers by now."""
    arrays, _ = read_npz(store.chosen_file(0))
    parts = unpack(arrays)
    found = [parts[p] for p in sealed_references(arrays)]
    return Offer(
        n=sum(len(part) for part in found),
        n_without_virial=sum(int((~part.has_virial).sum()) for part in found),
        has_held_out=any(n > 1 for n in Counter(families(found).values()).values()),
        frames=tuple(part[0] for part in found[:LOOKED_AT]),
    )


def _evenly(entries: Sequence[Entry]) -> list[Entry]:
    """Return at most :data:`LOOKED_AT` entries, the same number of each composition where there are enough."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.formula, []).append(entry)
    n_each = max(1, LOOKED_AT // max(1, len(groups)))
    found = []
    for group in list(groups.values())[:LOOKED_AT]:
        found += [group[k] for k in np.unique(np.linspace(0, len(group) - 1, min(n_each, len(group))).astype(int))]
    return found


def ledger_of(campaign: Campaign, folder: Path) -> Ledger:
    """Return the ledger of a campaign in a folder, existing or not, refreshed."""
    ledger = Ledger(Store(folder).ledger_of(campaign))
    ledger.refresh()
    return ledger


def said(offer: Offer, campaign: Campaign, identities: Mapping[str, Any]) -> list[str]:
    """Return, before anything runs, how many labels come from which reference, and whether any can be held out."""
    what = [
        f"{n} of {identities[sha].get('functional')} ({sha[:12]})"
        for sha, n in offer.counts.items()
        if sha in identities
    ]
    found = [f"from the ledger: {', '.join(what) or 'no'} labels in {offer.ledger}"]
    if offer.lacking:
        found.append(f"note: labels with {', '.join(offer.lacking)}, which type_map lacks, do not join")
    if offer.n and not campaign.initial.systems and campaign.initial.held_out_fraction and not offer.has_held_out:
        found.append(
            "note: no label will be held out: frames of one trajectory are near-duplicates, and a trajectory with "
            "more than half of the frames of its composition is never set aside; each file that is imported "
            "separately is a trajectory"
        )
    return found
