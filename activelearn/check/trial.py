"""The trial: what a campaign or a study computes with labels a few small structures before the first job.

A trial that passed is remembered in the folder, by the fingerprint of the reference, so that it costs nothing to go on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from activelearn import inherited, initial, label, loop, samples, seeds, trees
from activelearn.config import Campaign, Machine, Potential, Reference, Study
from activelearn.engines import process
from activelearn.engines.process import Slot
from activelearn.engines.reference import fingerprint
from activelearn.engines.trial import Outcome, Sample, tried
from activelearn.errors import ActiveLearnError, EngineError, Unfit
from activelearn.frames import Frames
from activelearn.store import Folder, Store, StudyStore
from activelearn.store.files import read_object, replace_json, sealed
from activelearn.study import is_done, planned

#: Structures of which a code that is started by a command should label one, the smallest first.
_EXPENSIVE: Final = 3


def try_campaign(campaign: Campaign, machine: Machine, folder: Path) -> list[str]:
    """Try the reference and the potentials of a campaign that may not have begun; return what is worth to be known.

    Raises
    ------
    Unfit
        One line each: what is wrong. The log of the worker is kept then, and named.
    """
    what, at = campaign.label.reference, machine.at("label")
    found = Outcome()
    with _kept_if_it_fails() as logs:
        _identity(what, Slot(at, logs))
        found.add(_try_reference(campaign, *_asked(campaign, Store(folder), what), Slot(at, logs)))
        for potential in campaign.potentials:
            study = planned(campaign, potential)
            found.add(_try_potential(potential, study, machine, logs))
        found.want_none()
    return found.notes


def try_in(store: Store, machine: Machine, say: Callable[[str], None] = lambda _: None) -> list[str]:
    """Try the reference of a campaign in its folder, unless it has passed before or labels nothing any more.

    Parameters
    ----------
    store, machine
        The folder, and where it labels.
    say
        Is told that a trial begins, which loads a model, and may label for minutes.

    Raises
    ------
    Unfit
        One line each: what is wrong.
    """
    phase = loop.next_phase(store)
    if phase is None or phase.name != "loop":
        return []
    campaign = store.latest_campaign()
    what, slot = campaign.label.reference, Slot(machine.at("label"), store.logs())
    opened = store.opened_iterations()
    identity = store.fingerprint(opened[-1]) if opened else _identity(what, slot)
    chosen, compares = _asked(campaign, store, what)
    passed = _Passed(store, [identity["sha256"], what.python], chosen)
    if passed:
        return []
    say(f"trying label.reference on small structures first: {what.name}")
    return passed.note(_try_reference(campaign, chosen, compares, slot))


def try_study(
    store: StudyStore, study: Study, machine: Machine, say: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Try the potentials of a study that was begun in its folder, unless they have passed before.

    Parameters
    ----------
    store, study, machine
        The folder, what is asked for, and where it runs.
    say
        Is told that a trial begins.

    Raises
    ------
    Unfit
        One line each: what is wrong.
    """
    if is_done(store, study):
        return []
    identities = read_object(store.whole(store.folder / "potentials.json"))
    chosen = [sample for one in study.potentials for sample in _samples_of(study, one.statics(machine.python))]
    passed, found = _Passed(store, [identities], chosen), Outcome()
    if passed:
        return []
    if chosen:
        say(f"trying on small structures first: {', '.join(one.name for one in store.study.potentials)}")
    for potential in store.study.potentials:
        found.add(_try_potential(potential, study, machine, store.logs()))
    return passed.note(found)


class _Passed:
    """The note of a trial that passed; one that is damaged or missing means that there was none."""

    def __init__(self, store: Folder, identity: Sequence[object], chosen: Sequence[Sample]) -> None:
        keys = [sample.frame.structure_key(0, "") for sample in chosen]
        name = hashlib.sha256(json.dumps([identity, keys], sort_keys=True).encode()).hexdigest()[:12]
        self.path = store.folder / f"tried-{name}.json"

    def __bool__(self) -> bool:
        try:
            return read_object(self.path).get("passed") is True
        except (FileNotFoundError, ActiveLearnError):
            return False

    def note(self, found: Outcome) -> list[str]:
        """Remember what passed, and return its notes; raise Unfit with what is wrong."""
        found.want_none()
        replace_json(self.path, sealed({"passed": True, "notes": found.notes}))
        return found.notes


def _identity(what: Reference, slot: Slot) -> dict[str, Any]:
    """Return the identity of a reference; raise Unfit, in a line, if it cannot even be asked for that."""
    try:
        return fingerprint(what, slot)
    except EngineError as error:
        said = str(error).splitlines()[0]
        mend = f"try: {what.command}" if what.command is not None else f"look into its log: {slot.logs}"
        raise Unfit(
            f"label.reference: {what.name}: {said} - wanted it to start and to tell its version - {mend}"
        ) from error


def _asked(campaign: Campaign, store: Store, what: Reference) -> tuple[list[Sample], bool]:
    """Return the structures of a trial, and whether derivatives are compared: not of a code that is started."""
    offered: tuple[Frames, ...] = ()
    if not campaign.systems:
        is_joined = store.is_sealed("initial", 0)
        ledger = inherited.ledger_of(campaign, store.folder)
        offered = (inherited.joined(store) if is_joined else inherited.offered(campaign, ledger, None)).frames
    chosen = samples.of_campaign(campaign, offered)
    if what.command is not None:
        return chosen[:_EXPENSIVE], False
    if (settings := campaign.initial.isolated) is not None:
        alone = {len(symbols): symbols for symbols in reversed(initial.isolated(campaign))}
        frames = [initial.isolated_frames(settings, alone[n])[-1] for n in sorted(alone)]
        chosen += [Sample(frame, is_optional=True) for frame in frames]
    return chosen, True


def _try_reference(campaign: Campaign, chosen: Sequence[Sample], compares: bool, slot: Slot) -> Outcome:
    """Try the reference of a campaign; a label that it would refuse is none."""
    refusal = partial(label.refusal, settings=campaign.label)
    return tried(campaign.label.reference, chosen, compares, slot, "label.reference", refusal)


def _try_potential(potential: Potential, study: Study, machine: Machine, logs: Path) -> Outcome:
    """Try one potential on what the study asks of it."""
    what = potential.statics(machine.python)
    chosen, slot = _samples_of(study, what), Slot(machine.at("benchmark"), logs)
    if not chosen:
        return Outcome()
    return tried(what, chosen, what.command is None, slot, f"potential {potential.name}")


def _samples_of(study: Study, what: Reference) -> list[Sample]:
    """Return a lattice of each composition of glasses; and crystals, of which a potential may lack an element."""
    glass, asked = study.glass, study.benchmark
    compositions = [glass.packed(composition) for composition in glass.compositions] if glass is not None else []
    named = asked.crystals.seeds if asked is not None and asked.crystals is not None else ()
    cells = [Frames.from_ase([seeds.load_structure(name, Path.cwd())]).without_labels() for name in named]
    crystals = samples.smallest([Sample(cell, is_optional=True) for cell in cells])
    chosen = samples.lattices(compositions, []) + crystals
    return chosen if what.command is None else chosen[:_EXPENSIVE]


@contextmanager
def _kept_if_it_fails() -> Iterator[Path]:
    """Yield a folder for logs, with engines allowed; it goes, but for a log whose traceback a line names."""
    process.allow_engines()
    with trees.temporary() as logs, process.stopping_on_signals():
        try:
            yield logs
        except Unfit as error:
            raise Unfit(*(_with_kept_log(line, logs) for line in error.problems)) from None
        finally:
            process.close_sessions()


def _with_kept_log(line: str, logs: Path) -> str:
    for log in logs.rglob("*.log"):
        if str(log) in line:
            with tempfile.NamedTemporaryFile(prefix="activelearn-trial-", suffix=".log", delete=False) as kept:
                shutil.copyfile(log, kept.name)
            return line.replace(str(log), kept.name)
    return line
