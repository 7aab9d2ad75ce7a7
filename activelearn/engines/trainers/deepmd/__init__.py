"""DeePMD-kit: deep potentials in LAMMPS (Zeng et al., J. Chem. Phys. 159, 054801 (2023))."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, Final

from activelearn.config import Machine, Train, here
from activelearn.config.files import is_file
from activelearn.config.trainer import Faster, Room, Shell, Trained, Trainer, TrainingData, TrainingRun
from activelearn.engines import deepmd, requirements
from activelearn.engines.backends import BACKENDS, DEFAULT
from activelearn.engines.interpreters import lacking_deepmd
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import blocks, checkpoints, compression, dargs, inputs, rules, training
from activelearn.engines.trainers.deepmd.settings import DeePMDTrain
from activelearn.errors import EngineError
from activelearn.frames import Frames
from activelearn.writing import write_deepmd

#: File with the loss bound, next to the training data.
_BOUND: Final = "largest_loss.json"
#: Comments of an exported LAMMPS input, by backend session.
_NOTES: Final = {
    "tensorflow": (
        "# The 30 lines before LAMMPS starts are notes of DeePMD-kit and TensorFlow, which look for CUDA (libcudart);",
        "# they are harmless without a GPU. `lmp -in in.lammps 2> notes.txt` hides them; errors of",
        "# LAMMPS are still shown.",
    ),
    "pytorch": (
        "# Use the lmp of an environment with DeePMD-kit[torch,lmp] and nvidia-cuda-runtime-cu12: without the",
        "# latter it ends after its banner with code 245, even without a GPU.",
    ),
}


class DeePMD(Trainer[DeePMDTrain]):
    """The trainer ``deepmd``."""

    settings: ClassVar[type[Train]] = DeePMDTrain
    fixed: ClassVar[tuple[str, ...]] = ("backend", "descriptor.", "model.")
    learning_rate: ClassVar[str | None] = "train.learning_rate.start"
    larger: ClassVar[str] = "use a larger net (train.fitting, or fitting_net of train.model)"
    smoother: ClassVar[str] = "train.descriptor.rcut_smth, or that of train.model (smaller)"
    stays: ClassVar[str] = f"a training whose loss stays finite and below {inputs.DIVERGED:g} times that of zero forces"
    kind: ClassVar[str] = "frozen"

    # --- the settings -------------------------------------------------------------------------------------------------

    def contradictions(self, train: DeePMDTrain, type_map: Sequence[str]) -> list[str]:
        """Return conflicts with the elements."""
        return [*_contradictions(train, type_map)]

    def impossible(self, train: DeePMDTrain) -> list[str]:
        """Return impossible networks, and trainings that would learn nothing or never start."""
        found = [*_networks(train), *_starts(train)]
        asked = dargs.interpreter(None)
        return found if found or train.model is None or asked is None else _of_dargs(train, asked)

    def problems(self, train: DeePMDTrain, machine: Machine) -> list[str]:
        """Return missing parts of the training interpreter, missing files of a model block, and its errors.

        The last only if just the training interpreter can check it; see :meth:`impossible`.
        """
        backend = BACKENDS[train.backend]
        where = f"train.backend: {train.backend}"
        compiles = backend.suffixes[0] == ".pt2" or (backend.session == "pytorch" and blocks.is_compiled(train.block))
        places = [machine.at(station) for station in ("train", "explore")] if train.backend == DEFAULT else []
        found = list(dict.fromkeys(line for place in places for line in lacking_deepmd(place)))
        found = found or requirements.problems(backend, machine, where=where, compiles=compiles)
        if train.model is None:
            return found
        found += rules.missing_tables(train.model)
        asked = dargs.interpreter(machine.python)
        return found if dargs.interpreter(None) is not None or asked is None else [*found, *_of_dargs(train, asked)]

    def notes(self, train: DeePMDTrain, machine: Machine) -> list[str]:
        """Return which interpreter trains if it must be a separate one, and whether a model block cannot be checked."""
        found = requirements.notes(BACKENDS[train.backend], machine)
        if train.model is None or dargs.interpreter(machine.python) is not None:
            return found
        return [*found, "train.model is not checked here: no deepmd-kit in this interpreter or in machine.python"]

    def unusual(self, train: DeePMDTrain) -> list[str]:
        """Return rising rates, a training without forces, and unusual numbers of a model block."""
        found = [*_rising_rates(train), *(rules.unusual(train.model) if train.model is not None else ())]
        if not any(train.prefactors.force):
            found.append("train.prefactors.force: 0 to 0 - usual is learning from forces")
        return found

    def shells(self, train: DeePMDTrain) -> tuple[Shell, ...]:
        """Return one shell per cutoff of the model."""
        if train.model is None:
            return (Shell(train.descriptor.rcut, "train.descriptor.sel", train.descriptor.sel),)
        return blocks.shells(train.model)

    def limits_neighbours(self, train: DeePMDTrain) -> bool:
        """Return whether any part of the model drops neighbours beyond `sel`; DPA-4 does not."""
        return blocks.limits_neighbours(train.block)

    def Mflop(self, train: DeePMDTrain, sel: Room) -> float | None:
        """Return the multiply-adds of the embedding net per neighbour and of the fitting net per atom, forward.

        Only for se_e2_a; not known for others.
        """
        return blocks.Mflop(train.block, sel)

    def weight_of_virials(self, train: DeePMDTrain) -> str | None:
        """Return the prefactors of the virial if they are not 0."""
        virial = train.prefactors.virial
        return f"train.prefactors.virial = {list(virial)}" if any(virial) else None

    def batch_frames(self, train: DeePMDTrain, n_atoms: float) -> int:
        """Return the frames of a batch; of ``auto:N``, as many as have N atoms."""
        batch = train.batch_size
        return ceil(float(batch.partition(":")[2] or 32) / n_atoms) if isinstance(batch, str) else batch

    def same_networks(self, before: DeePMDTrain, now: DeePMDTrain) -> bool:
        """Return whether the complete model blocks are equal."""
        return before.block == now.block

    def begins_from(self, train: DeePMDTrain) -> tuple[Path, ...]:
        """Return the models named by the user."""
        return tuple(Path(here(name)) for name in train.start_from or ())

    # --- training -----------------------------------------------------------------------------------------------------

    def write_data(self, folder: Path, parts: Sequence[Frames], train: DeePMDTrain, type_map: Sequence[str]) -> None:
        """Write the frames as deepmd/npy systems, and the loss above which a training on them has diverged."""
        systems = write_deepmd(parts, folder, type_map)
        inputs.write_element_weights(systems, train, type_map)
        (folder / _BOUND).write_text(json.dumps(inputs.loss_bound(train, parts)))

    def data_key(self, train: DeePMDTrain) -> Any:  # noqa: ANN401 - JSON
        """Return the weights of the elements, their format, and the prefactor used for the bound."""
        key = [train.element_weights or {}, train.prefactors.force[0]]
        repeated = BACKENDS[train.backend].atom_weights
        return [*key, repeated] if repeated > 1 else key

    def train(
        self, folder: Path, train: DeePMDTrain, run: TrainingRun, data: TrainingData, slot: Slot
    ) -> Trained | None:
        """Train and freeze one member; see :meth:`activelearn.config.Trainer.train`."""
        backend = BACKENDS[train.backend]
        setting = _setting(train, run, data)
        average = checkpoints.kept(folder, inputs.averaged_steps(train, run.n_steps), backend)
        weights = training.Weights(run.start_from, run.restart, average)
        bound = float(json.loads((data.folder / _BOUND).read_text()))
        model = training.train_member(folder, setting, slot, largest_loss=bound, weights=weights, backend=backend)
        if model is None:
            return None
        columns, curve = training.learning_curve(folder / inputs.CURVE)
        return Trained(
            model,
            columns,
            curve,
            weights=None
            if model.suffix in backend.with_weights
            else training.trained_checkpoint(folder, setting, weights, backend),
            resumed_from=checkpoints.resumed_from(folder),
            notes={"averaged_steps": average} if average else {},
        )

    def take_over(
        self, left: Sequence[Path], folder: Path, train: DeePMDTrain, run: TrainingRun, slot: Slot
    ) -> str | None:
        """Copy the newest intact checkpoint, and earlier ones that the model will average."""
        average = inputs.averaged_steps(train, run.n_steps)
        return checkpoints.take_over(left, folder, slot, average, BACKENDS[train.backend])

    def compresses(self, train: DeePMDTrain) -> bool:
        """Return whether `dp compress` supports every descriptor of the model."""
        return BACKENDS[train.backend].compresses and compression.is_possible(train.block, train.backend)

    def compress(
        self, folder: Path, model: Path, train: DeePMDTrain, data: TrainingData, slot: Slot, *, finer: bool = False
    ) -> Path | None:
        """Tabulate the embedding net; the shortest distance in the data sets the range of the table."""
        setting = _setting(train, TrainingRun(1, (1, 1, 1)), data)
        return training.compress(folder, model, setting, slot, training.FINER if finer else training.STEP)

    def faster(self, train: DeePMDTrain, sel: Room) -> Faster | None:
        """Return the savings and cost of `dp compress` with TensorFlow; known only for se_e2_a.

        PyTorch saves 2.5 (paper) to 6 times (tiny) as much (docs/backends.md), so this is a lower bound there.
        """
        return compression.faster(train.block, sel)

    def holds_from_A(self, folder: Path) -> tuple[float, float] | None:
        """Return the shortest distance of the training data, and the end of the coarse table, from dp's own output."""
        return training.holds_from_A(folder)

    # --- the models ---------------------------------------------------------------------------------------------------

    def evaluate(self, folder: Path, model: Path, parts: Sequence[Frames], slot: Slot) -> list[Frames]:
        """Return frames with the labels that a model predicts."""
        return training.evaluate(folder, model, parts, slot)

    def pair(self, models: Sequence[str], type_map: Sequence[str], every: int) -> list[str]:
        """Return the pair style with the deviation of the ensemble."""
        deviation = f" out_file model_devi.out out_freq {every}" if every else ""
        return [f"pair_style      deepmd {' '.join(models)}{deviation}", f"pair_coeff      * * {' '.join(type_map)}"]

    def pair_of_walks(self, models: Sequence[str], type_map: Sequence[str], every: int) -> list[str]:
        """Return the same, with the deviation of each atom after that of the frame."""
        style, *rest = self.pair(models, type_map, every)
        is_ours = every and "deepmd" in style.split()  # a subclass may have a style of its own
        return [f"{style} atomic" if is_ours else style, *rest]

    def export_notes(self, train: DeePMDTrain) -> tuple[str, ...]:
        """Return a comment on harmless notes of TensorFlow, or on which `lmp` runs models of PyTorch."""
        return _NOTES[BACKENDS[train.backend].session]

    def suffix(self, train: DeePMDTrain) -> str:
        """Return the suffix of the backend."""
        return BACKENDS[train.backend].suffixes[0]

    def calculator(self, model: Path) -> dict[str, Any]:
        """Return DeePMD-kit's own ASE calculator."""
        arguments = {"model": str(model)}
        return {"calculator": "deepmd.calculator:DP", "arguments": arguments, "package": "deepmd-kit"}

    def potential(
        self,
        models: Sequence[str],
        sha256: Sequence[str],
        type_map: Sequence[str],
        window: tuple[float, float],
    ) -> dict[str, Any]:
        """Return the models as a potential of kind ``deepmd``."""
        return {"deepmd": {"models": tuple(models), "sha256": tuple(sha256), "window": window}}

    def versions(self, train: DeePMDTrain, slot: Slot) -> dict[str, str]:
        """Return the versions of DeePMD-kit and its backend library, in the training interpreter."""
        return deepmd.versions(slot.machine.python, BACKENDS[train.backend].packages)


def _setting(train: DeePMDTrain, run: TrainingRun, data: TrainingData) -> dict[str, Any]:
    systems = [str(path) for path in sorted(data.folder.iterdir()) if path.is_dir()]
    return inputs.training_input(train, run, type_map=data.type_map, sel=data.sel, systems=systems)


def _of_dargs(train: DeePMDTrain, python: str) -> list[str]:
    """Return DeePMD-kit's own errors on a model block, with placeholders for `sel` and seeds."""
    block, room = train.block, tuple((1,) for _ in blocks.spheres(train.block))
    filled = blocks.filled(block, ["H"], room, (1, 1, 1))
    try:
        return dargs.problems(filled, block, train.backend, python)
    except EngineError as error:
        return [f"train.model: cannot be checked ({error}) - expected a working deepmd-kit - fix {python}"]


def _contradictions(train: DeePMDTrain, type_map: Sequence[str]) -> Iterator[str]:
    """Yield conflicts with the elements."""
    if train.model is not None:
        yield from rules.contradictions(train.model, type_map)
    sel = train.descriptor.sel
    if sel is not None and len(sel) != len(type_map):
        yield f"train.descriptor.sel has {len(sel)} numbers for {len(type_map)} elements"
    unknown = set(train.element_weights or ()) - set(type_map)
    if unknown:
        names = ", ".join(sorted(unknown))
        yield f"train.element_weights names {names} - expected elements of type_map, {list(type_map)}"


def _networks(train: DeePMDTrain) -> Iterator[str]:
    if train.model is not None:
        yield from rules.impossible(train.model, train.backend)
    descriptor, factors = train.descriptor, train.prefactors
    for where, layers in (("descriptor.neuron", descriptor.neuron), ("fitting", train.fitting)):
        if not layers:
            yield f"train.{where}: is empty - expected at least one layer - leave it out, or set widths like [25, 50]"
    if descriptor.neuron and descriptor.axis_neuron > descriptor.neuron[-1]:
        yield (
            f"train.descriptor.axis_neuron: {descriptor.axis_neuron} - expected at most the width of the last layer of "
            f"neuron, {descriptor.neuron[-1]} - lower it"
        )
    if train.model is None and not descriptor.type_one_side and not BACKENDS[train.backend].two_sides:
        yield (
            f"train.descriptor.type_one_side: false - expected true: {train.backend} of DeePMD-kit 3.2 can train false "
            "but cannot freeze it - set it, or train.backend: pytorch"
        )
    if not any((*factors.energy, *factors.force, *factors.virial)):
        yield "train.prefactors: are all 0 - expected one above 0, else nothing is learnt - leave them out"


def _starts(train: DeePMDTrain) -> Iterator[str]:
    """Yield problems of the models from which the first ensemble starts."""
    where, names = "train.start_from", train.start_from or ()
    suffixes = BACKENDS[train.backend].with_weights
    if names and len(names) != train.n_members:
        yield f"{where}: {len(names)} models for {train.n_members} members - expected one per member - name as many"
    for name in names:
        if Path(name).suffix not in suffixes:
            which = " or ".join(suffixes) or f"none, since models of {train.backend} do not contain weights"
            yield f"{where}: {name} - expected {which} - leave it out, or choose another backend"
        elif not is_file(Path(here(name))):
            yield f"{where}: no file {name} - expected a frozen model - check the path"
    unsaid = [shell.where for shell in TRAINER.shells(train) if shell.sel is None] if names else []
    for key in unsaid if TRAINER.limits_neighbours(train) else []:
        yield f"{where}: {key} is determined automatically - expected the numbers of these models - set them"


def _rising_rates(train: DeePMDTrain) -> Iterator[str]:
    rate = train.learning_rate
    ends = [("start", rate.start, "stop", rate.stop)]
    if train.warm_start:
        first = ("start", rate.start) if rate.warm_start is None else ("warm_start", rate.warm_start)
        last = ("stop", rate.stop) if rate.warm_stop is None else ("warm_stop", rate.warm_stop)
        ends.append((*first, *last))
    for begin, start, end, stop in dict.fromkeys(ends):
        if stop > start:
            yield (
                f"train.learning_rate: {end} = {stop:g} is above {begin} = {start:g} - usual is a decreasing rate: it "
                f"never rises, so it would stay at {start:g}"
            )


TRAINER: Final = DeePMD()
