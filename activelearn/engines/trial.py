"""The trial of a reference before expensive use: labels of a few small structures, and derivatives for one of them.

Problems are reported in one line. The worker is the one that will label, so nothing is loaded twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from activelearn.config import Reference
from activelearn.engines import derivatives
from activelearn.engines.process import Slot
from activelearn.engines.reference import ask, to_label
from activelearn.engines.unfit import complaint, said
from activelearn.errors import EngineError, TaskFailed, Unfit, one_line
from activelearn.frames import FrameLabel, Frames

#: If a label takes longer (s), the ten further ones for comparing forces and stress with the energy are skipped.
PATIENCE_S: Final = 20.0
#: Volume per atom (Å3) above which a cell is mostly empty (an isolated atom), and its stress is not compared.
_VOID_A3: Final = 200.0


@dataclass(frozen=True)
class Sample:
    """A structure to try.

    Parameters
    ----------
    frame
        One frame, as small as possible.
    larger
        The same as a supercell, for calculators that cannot handle small cells.
    is_optional
        Whether a calculator may raise on it: an isolated atom, which is then refused and counted.
    is_made_up
        Whether a refusal is acceptable: elements on a lattice, whose SCF may not converge.
    """

    frame: Frames
    larger: Frames | None = None
    is_optional: bool = False
    is_made_up: bool = False


@dataclass
class Outcome:
    """Findings of a trial: problems, infrastructure failures, and notes."""

    problems: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Add the findings of another trial."""
        self.problems += other.problems
        self.faults += other.faults
        self.notes += other.notes

    def want_none(self) -> None:
        """Raise Unfit with the problems, if there are any; TaskFailed if only infrastructure is at fault."""
        if self.problems:
            raise Unfit(*self.problems, *self.faults)
        if self.faults:
            raise TaskFailed("\n".join(self.faults))


def tried(
    reference: Reference,
    samples: Sequence[Sample],
    compares: bool,
    slot: Slot,
    where: str,
    refusal: Callable[[FrameLabel], str | None] = lambda _: None,
) -> Outcome:
    """Try a reference on a few structures.

    Parameters
    ----------
    reference, samples
        The reference, and the structures to label.
    compares
        Whether forces and stress are compared with the energy, once; if not, one (expensive) label is enough.
    slot
        Where it runs.
    where
        Prefix of the lines: the key of the reference.
    refusal
        Returns why a label would be refused by the campaign, or None.
    """
    trial = _Trial(reference, slot, where, refusal)
    for sample in samples:
        trial.label(sample)
        if trial.is_over:
            return trial.outcome
        if trial.first is not None and not compares:
            break
    if trial.first is None and trial.failed:
        trial.say(f"labels none of the structures, such as {trial.failed[0]}", "a label of one of them")
    else:
        trial.outcome.notes += [f"note: {where}: {reference.name}: not labelled: {line}" for line in trial.failed]
    if compares and trial.first is not None:
        trial.compare(*trial.first)
    return trial.outcome


class _Trial:
    """A running trial."""

    def __init__(
        self, reference: Reference, slot: Slot, where: str, refusal: Callable[[FrameLabel], str | None]
    ) -> None:
        self.reference, self.slot, self.where, self.refusal = reference, slot, where, refusal
        self.outcome = Outcome()
        self.is_over = False
        self.failed: list[str] = []
        self.first: tuple[Frames, FrameLabel] | None = None

    def say(self, what: str, expected: str, step: str = "") -> None:
        """Add a problem."""
        step = step or f"check the settings of {self.where}, or choose another calculator"
        self.outcome.problems.append(f"{self.where}: {self.reference.name}: {what} - expected {expected} - {step}")

    def label(self, sample: Sample) -> None:
        """Label one structure, and record the outcome."""
        frame, found = sample.frame, self._ask(sample.frame)
        if "unable" in found and sample.larger is not None:
            frame, found = sample.larger, self._ask(sample.larger)
        of = f"{frame.formula} ({frame.n_atoms} atoms)"
        if "refused" in found and sample.is_made_up:
            self.outcome.notes.append(f"note: {self.where}: {self.reference.name}: {of}: {said(found['refused'])}")
        elif "refused" in found or ("unable" in found and sample.is_optional):
            self.failed.append(f"{of}: {said(found.get('refused', found.get('unable', '')))}")
        elif "unable" in found:
            log = f"; traceback: {found['log']}" if "log" in found else ""
            what = f"raises {said(found['unable'])} on {of}"
            self.say(what, "a label of every system", f"check that it knows all elements and settings{log}")
            self.is_over = True
        elif "lacks" in found or "unfit" in found:
            self.outcome.problems.append(complaint(self.reference, found, self.where))
            self.is_over = True
        elif "energy" in found:
            label = to_label(found, frame.n_atoms)
            if (refused := self.refusal(label)) is not None and not sample.is_made_up:
                self.failed.append(f"{of}: {refused}")
            else:
                self.first = self.first or (frame, label)

    def _ask(self, frame: Frames) -> dict[str, Any]:
        """Return the answer to a label; a second infrastructure failure ends the trial."""
        for is_last in (False, True):
            try:
                return ask(self.reference, "label", self.slot, frame)
            except EngineError as error:
                what = str(error).splitlines()[0]
                if is_last or "no answer within" in what or "took more than" in what:
                    self._blame(what, error, frame)
                    break
        return {}

    def _blame(self, what: str, error: EngineError, frame: Frames) -> None:
        """Record that there is no answer, and why; the trial is over."""
        of_session = self.slot.logs / f"session-reference-{self.slot.index}.log"
        log = of_session if error.folder is None else error.folder / "worker.log"
        expected, step = f"a label of {frame.formula} ({frame.n_atoms} atoms)", f"see its log: {log}"
        if "no such program" in what:
            self.say(what, expected, step)
        else:
            more = ", or raise label_timeout_s of the machine profile" if "no answer within" in what else ""
            again = "fix the cause, and run the same command again"
            what, _, own = what.partition(" - expected ")
            what, expected = what.partition(" - ")[0], own.partition(" - ")[0] or expected
            line = f"{self.where}: {self.reference.name}: {what} - expected {expected} - {step}{more}; {again}"
            self.outcome.faults.append(one_line(line))
        self.is_over = True

    def compare(self, frame: Frames, label: FrameLabel) -> None:
        """Compare forces and stress with the energy, unless that is too expensive."""
        is_dense = all(frame.pbc) and float(frame.volume[0]) < _VOID_A3 * frame.n_atoms
        if label.finished - label.started > PATIENCE_S or not is_dense:
            return
        wrong, notes = derivatives.compared(frame, self._label, has_stress=self.reference.stress)
        for line in wrong:
            self.say(
                line, "eV/Å for forces and eV/Å3 for the stress, positive if it pulls (ASE)", "correct the calculator"
            )
        self.outcome.notes += [f"note: {self.where}: {self.reference.name}: {line}" for line in notes]

    def _label(self, frame: Frames) -> FrameLabel | None:
        found = self._ask(frame)
        return to_label(found, frame.n_atoms) if "energy" in found else None
