"""What trainers have in common whose members are fine-tuned from a foundation that LAMMPS does not run."""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import numpy as np

from activelearn.config import Machine
from activelearn.config.files import checksum, is_file
from activelearn.config.trainer import Shell, Trained, Trainer, TrainingData, TrainingRun
from activelearn.engines import deepmd
from activelearn.engines.interpreters import has_module, version_of
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd.checkpoints import resumed_from
from activelearn.engines.trainers.deepmd.inputs import CURVE
from activelearn.engines.trainers.deepmd.training import learning_curve
from activelearn.engines.trainers.finetuning import training
from activelearn.engines.trainers.finetuning.checkpoints import Foundation
from activelearn.engines.trainers.finetuning.settings import FineTuned, Replay
from activelearn.errors import ConfigError, EngineError
from activelearn.frames import Frames, npz_bytes, pack
from activelearn.structures import read_structures

log = logging.getLogger(__name__)
F = TypeVar("F", bound=FineTuned)
#: A training has diverged when its force error is this multiple of the RMS of the forces (or of 1 eV/Å).
DIVERGED: Final = 10.0
#: File of that bound, next to the training data.
_BOUND: Final = "largest_error.json"
#: A replay of fewer bytes is read whole before anything runs; of a larger one, its first structure.
READ_WHOLE: Final = 50_000_000
#: Energies that are farther apart than this in the precision of a training are worth a warning, eV per atom.
COARSE: Final = 1.0e-3
#: Cutoff of a foundation that is not here to be asked, Å.
_CUTOFF_A: Final = 5.0


class FineTuner(Trainer[F]):
    """A trainer of fine-tuned foundations.

    ASE drives the walks of its models; sessions of its own interpreter train and evaluate them.
    """

    learning_rate: ClassVar[str | None] = "train.learning_rate.start"
    smoother: ClassVar[str] = "a lower train.learning_rate.start, fewer n_steps, or train.replay"
    stays: ClassVar[str] = f"a training whose force error stays below {DIVERGED:g} times the RMS of the forces"
    runs_in_lammps: ClassVar[bool] = False
    #: Measured of 7net-0: 2.7 at 16 atoms, 3.8 at 64 (docs/foundations.md).
    step_evaluations: ClassVar[float | None] = 3.3
    #: What its sessions are.
    worker: ClassVar[training.Worker]
    #: Module of the package, and the oldest version of it.
    module: ClassVar[str]
    oldest: ClassVar[tuple[int, ...]]
    #: Whose foundations, and by which key the kind of labels is named that one of several has.
    whose: ClassVar[str]
    key: ClassVar[str]
    #: Name of a model, and the argument of its calculator that is the file.
    model: ClassVar[str]
    argument: ClassVar[str]
    #: Whether a replay may have labels of its own, which a second head learns.
    has_heads: ClassVar[bool] = False

    # --- what each says of itself -------------------------------------------------------------------------------------

    @abstractmethod
    def path_of(self, foundation: str, python: str | None = None) -> Path | None:
        """Return the file of a foundation, for an interpreter (null: this one); None: not there."""

    @abstractmethod
    def read(self, path: Path) -> Foundation | None:
        """Return what a file says of itself; None: it is no foundation, or cannot be read."""

    @abstractmethod
    def not_there(self, train: F) -> list[str]:
        """Return what is wrong with a foundation that is no file."""

    def lacking(self, train: F, python: str | None) -> list[str]:
        """Return what else an interpreter lacks, which has the package."""
        return []

    def options(self, train: F) -> dict[str, str | None]:
        """Return what the network has to be told."""
        return {self.key: getattr(train, self.key)}

    # --- the settings -------------------------------------------------------------------------------------------------

    def find(self, train: F, python: str | None = None) -> Foundation | None:
        """Return what the foundation says of itself, as far as it is here to be asked."""
        path = self.path_of(train.foundation, python)
        return None if path is None else self.read(path)

    def contradictions(self, train: F, type_map: Sequence[str]) -> list[str]:
        """Return the elements that the foundation does not know, as far as it is here to be asked."""
        found = self.find(train)
        unknown = [] if found is None else sorted(set(type_map) - found.elements)
        if not unknown:
            return []
        what = f"{named(train)} does not know {', '.join(unknown)}"
        return [f"train.foundation: {what} - expected a foundation for all elements of type_map - choose another"]

    def impossible(self, train: F) -> list[str]:
        """Return what is wrong with the foundation, its kind of labels, and the replayed structures."""
        path = self.path_of(train.foundation)
        wrong = self.not_there(train) if path is None else self._wrong_file(train, path)
        return [*wrong, *self._wrong_replay(train)]

    def _wrong_file(self, train: F, path: Path) -> list[str]:
        found, name, kind = self.read(path), named(train), getattr(train, self.key)
        if found is None:
            what = f"{name} is not a checkpoint of {self.whose} - expected one as written by {self.module}"
            return [f"train.foundation: {what} - check the path"]
        if found.kinds and kind not in found.kinds:
            what = "none is named" if kind is None else f"{kind} is not one of them"
            listed = ", ".join(found.kinds)
            return [f"train.{self.key}: {name} knows {listed}, and {what} - expected that of the labels - choose one"]
        if kind is not None and not found.kinds:
            what = f"{kind}, and {name} has no {self.key}s"
            return [f"train.{self.key}: {what} - expected null - leave it out"]
        return []

    def _wrong_replay(self, train: F) -> list[str]:
        replay, found = train.replay, self.find(train)
        if replay is None:
            return []
        if replay.labels == "own" and not self.has_heads:
            what = f"own, and models of {self.whose} have no second head that could learn them here"
            return [f"train.replay.labels: {what} - expected foundation - leave it out, or take train.trainer: mace"]
        try:
            is_short = not is_file(Path(replay.file)) or Path(replay.file).stat().st_size < READ_WHOLE
            replayed(replay, found, ":" if is_short else "0")
        except ConfigError as error:
            return list(error.problems)
        return []

    def problems(self, train: F, machine: Machine) -> list[str]:
        """Return where the interpreter that trains has not the package, an old one, or not the foundation."""
        pythons = dict.fromkeys(machine.at(station).python for station in ("train", "explore"))
        return [line for python in pythons for line in self._lacking(train, python)]

    def _lacking(self, train: F, python: str | None) -> list[str]:
        here, install = python or "this interpreter", self.worker.install
        expected = f"needed for train.trainer: {self.worker.trainer}"
        if not has_module(self.module, python):
            return [f"machine.python: {here} has no {self.worker.package} - {expected} - {install}"]
        version = version_of(self.worker.package, python)
        numbers = tuple(map(int, filter(str.isdigit, (version or "").split(".")[: len(self.oldest)])))
        if len(numbers) == len(self.oldest) and numbers < self.oldest:
            oldest = ".".join(map(str, self.oldest))
            what = f"{here} has {self.worker.package} {version} - expected {oldest} or later"
            return [f"machine.python: {what} - {install}"]
        return self.lacking(train, python)

    def shells(self, train: F) -> tuple[Shell, ...]:
        """Return the cutoff of one layer: messages reach as many times as far as there are layers."""
        found = self.find(train)
        return (Shell(_CUTOFF_A if found is None else found.cutoff_A, "train.foundation"),)

    def limits_neighbours(self, train: F) -> bool:
        """Return False: no neighbour is dropped."""
        return False

    def weight_of_virials(self, train: F) -> str | None:
        """Return the weight of the stress if it is not 0."""
        return f"train.stress_weight = {train.stress_weight:g}" if train.stress_weight else None

    def batch_frames(self, train: F, n_atoms: float) -> int:
        """Return the frames of a step, those of a replay among them."""
        return train.batch_size + (train.replay.n_frames if train.replay else 0)

    def same_networks(self, before: F, now: F) -> bool:
        """Return whether both began as the same foundation."""
        one, other = ((train.foundation, self.options(train)) for train in (before, now))
        return one == other

    # --- training -----------------------------------------------------------------------------------------------------

    def write_data(self, folder: Path, parts: Sequence[Frames], train: F, type_map: Sequence[str]) -> None:
        """Write the frames, those of a replay, and the force error beyond which a training on them has diverged."""
        (folder / training.DATA).write_bytes(npz_bytes(pack(parts)))
        precision = getattr(train, "precision", "float32")
        if (coarse := coarseness(parts, precision)) > COARSE:
            log.warning(
                "train.trainer %s: energies as large as those of the labels are up to %.2g meV per atom apart in %s, "
                "and are learnt and predicted no better - expected a reference with pseudopotentials, or a trainer in "
                "float64 (mace)",
                *(self.worker.trainer, 1000.0 * coarse, precision),
            )
        if train.replay is not None:
            (folder / training.REPLAY).write_bytes(npz_bytes(pack(replayed(train.replay, self.find(train)))))
        squares = np.concatenate([part.label("forces").ravel() ** 2 for part in parts])
        (folder / _BOUND).write_text(json.dumps(DIVERGED * max(1.0, float(np.sqrt(squares.mean())))))

    def data_key(self, train: F) -> Any:  # noqa: ANN401 - JSON
        """Return the checksum of the replay, and whose labels it has."""
        replay = train.replay
        return None if replay is None else [checksum(Path(replay.file)), replay.labels]

    def train(self, folder: Path, train: F, run: TrainingRun, data: TrainingData, slot: Slot) -> Trained | None:
        """Fine-tune one member; see :meth:`activelearn.config.Trainer.train`."""
        foundation = self.path_of(train.foundation, slot.machine.python)
        if foundation is None:
            raise EngineError(f"train.foundation: {named(train)} is gone - expected the checkpoint - restore it")
        bound = float(json.loads((data.folder / _BOUND).read_text()))
        job = {**training.job_of(train, run, foundation, data.folder, self.model), **self.options(train)}
        job["watch"] = {"file": CURVE, "largest": bound}
        if self.worker.answer(job, folder, slot, timeout_s=slot.machine.train_timeout_s)["diverged"]:
            return None
        columns, curve = learning_curve(folder / CURVE)
        notes = json.loads((folder / training.NOTES).read_text())
        return Trained(folder / self.model, columns, curve, resumed_from=resumed_from(folder), notes=notes)

    def take_over(self, left: Sequence[Path], folder: Path, train: F, run: TrainingRun, slot: Slot) -> str | None:
        """Copy the newest whole checkpoint; the training that continues from it makes the same model."""
        return training.take_over(left, folder)

    # --- the models ---------------------------------------------------------------------------------------------------

    def evaluate(self, folder: Path, model: Path, parts: Sequence[Frames], slot: Slot) -> list[Frames]:
        """Return frames with the labels that a model predicts, in batches."""
        return self.worker.evaluate(folder, [model], parts, slot)[0]

    def evaluate_all(
        self, folder: Path, models: Sequence[Path], parts: Sequence[Frames], slot: Slot
    ) -> list[list[Frames]]:
        """Return what each model predicts: in one process, in which the network is built once, one model at a time."""
        return self.worker.evaluate(folder, models, parts, slot)

    def evaluate_foundation(self, folder: Path, train: F, parts: Sequence[Frames], slot: Slot) -> list[Frames]:
        """Return what the foundation predicts as it is."""
        path = self.path_of(train.foundation, slot.machine.python)
        assert path is not None  # see `impossible` and `problems`
        return self.worker.evaluate(folder, [path], parts, slot, options=self.options(train))[0]

    def suffix(self, train: F) -> str:
        """Return that of its models."""
        return Path(self.model).suffix

    def potential(
        self, models: Sequence[str], sha256: Sequence[str], type_map: Sequence[str], window: tuple[float, float]
    ) -> dict[str, Any]:
        """Return the first member as an ASE calculator, and the others as its committee."""
        weights = {"weights": models[0]} if sha256 else {}  # else it is not there yet
        said = self.read(Path(models[0]))
        precision = (said.precision if said else None) or "float32"
        ase = {**self.calculator(Path(models[0])), **weights, "precision": precision}
        if len(models) == 1:
            return {"ase": ase}
        committee = {"argument": self.argument, "models": models[1:], "sha256": sha256[1:], "window": window}
        return {"ase": ase, "committee": committee}

    def versions(self, train: F, slot: Slot) -> dict[str, str]:
        """Return the versions of what the models are computed with, and the checksum of the foundation."""
        found = deepmd.versions(slot.machine.python, self.packages)
        path = self.path_of(train.foundation, slot.machine.python)
        sha256 = None if path is None else checksum(path)
        return {**found, "foundation": f"{named(train)} sha256 {sha256}"}


def coarseness(parts: Sequence[Frames], precision: str) -> float:
    """Return the largest distance of neighbouring energies in a precision, eV per atom, at those of labelled frames.

    That of all electrons may be 1e5 eV per atom, of which float32 has seven digits.
    """
    largest = ((np.abs(part.label("energy")).max().astype(precision), part.n_atoms) for part in parts if len(part))
    return max((float(np.spacing(energy)) / n_atoms for energy, n_atoms in largest), default=0.0)


def named(train: FineTuned) -> str:
    """Return the foundation in a word: a name, or that of the file."""
    return Path(train.foundation).name


def replayed(replay: Replay, foundation: Foundation | None, index: str = ":") -> list[Frames]:
    """Return the structures of a replay, with their labels if these are to be learnt.

    Parameters
    ----------
    replay
        The file, and whose labels.
    foundation
        That learns them; None: not known here.
    index
        Which structures of the file, as ASE has it.

    Raises
    ------
    ConfigError
        The file cannot be read, or holds what cannot be learnt.
    """
    found = []
    for k, atoms in enumerate(_images(replay, index)):
        frame = Frames.from_ase([atoms])
        numbers = (frame.cell, frame.positions, *(x for x in (frame.energy, frame.forces) if x is not None))
        if frame.n_atoms == 0 or not all(np.isfinite(x).all() for x in numbers):
            what = "a number that is not finite" if frame.n_atoms else "no atoms"
            raise ConfigError(
                f"train.replay.file: {Path(replay.file).name} has {what} in structure {k} (from 0) - expected finite "
                "numbers - take it out"
            )
        if foundation is not None and (unknown := sorted(set(frame.symbols) - foundation.elements)):
            raise ConfigError(_strangers(replay, unknown))
        if replay.labels == "own" and (frame.energy is None or frame.forces is None):
            raise ConfigError(
                f"train.replay.labels: own, and {Path(replay.file).name} has {frame.formula} without energy or forces "
                "- expected both of every structure - label them, or take labels: foundation"
            )
        found.append(frame.without_labels() if replay.labels == "foundation" else frame)
    return found


def _strangers(replay: Replay, unknown: Sequence[str]) -> str:
    what = f"{Path(replay.file).name} holds {', '.join(unknown)}, which the foundation does not know"
    return f"train.replay.file: {what} - expected only elements that it knows - remove these structures"


def _images(replay: Replay, index: str) -> list[Any]:
    """Return structures of the file of a replay."""
    path, where = Path(replay.file), "train.replay.file"
    if not is_file(path):
        raise ConfigError(f"{where}: no file {path} - expected structures that ASE reads - check the path")
    try:
        return read_structures(path, index)
    except Exception as error:  # of any format, any
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        what = f"{path.name} cannot be read ({said})"
        raise ConfigError(f"{where}: {what} - expected structures that ASE reads - convert it") from error
