"""DeePMD-kit: deep potentials in LAMMPS (Zeng et al., J. Chem. Phys. 159, 054801 (2023))."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, Final

from activelearn.config import Train
from activelearn.config.trainer import Faster, Room, Shell, Trained, Trainer, TrainingData, TrainingRun
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd import checkpoints, inputs, training
from activelearn.engines.trainers.deepmd.settings import DeePMDTrain
from activelearn.frames import Frames
from activelearn.versions import installed
from activelearn.writing import write_deepmd

#: Where the loss bound stands beside the training data.
_BOUND: Final = "largest_loss.json"


class DeePMD(Trainer[DeePMDTrain]):
    """The trainer ``deepmd``."""

    settings: ClassVar[type[Train]] = DeePMDTrain
    fixed: ClassVar[tuple[str, ...]] = ("descriptor.",)
    larger: ClassVar[str] = "take a larger net (train.fitting)"
    smoother: ClassVar[str] = "train.descriptor.rcut_smth (smaller)"
    stays: ClassVar[str] = (
        f"a training whose loss stays finite and below {inputs.DIVERGED:g} times that of no force at all"
    )
    kind: ClassVar[str] = "frozen"

    # --- the settings -------------------------------------------------------------------------------------------------

    def contradictions(self, train: DeePMDTrain, type_map: Sequence[str]) -> list[str]:
        """Return what does not fit the elements."""
        return [*_contradictions(train, type_map)]

    def impossible(self, train: DeePMDTrain) -> list[str]:
        """Return what no network could be, and a training that would learn nothing, or never begin."""
        return [*_networks(train)]

    def unusual(self, train: DeePMDTrain) -> list[str]:
        """Return rates that rise, and a training without forces."""
        found = [*_rising_rates(train)]
        if not any(train.prefactors.force):
            found.append("train.prefactors.force: 0 to 0 - usual is learning from forces")
        return found

    def shells(self, train: DeePMDTrain) -> tuple[Shell, ...]:
        """Return the one of the descriptor."""
        return (Shell(train.descriptor.rcut, "train.descriptor.sel", train.descriptor.sel),)

    def Mflop(self, train: DeePMDTrain, sel: Room) -> float:
        """Return the multiply-adds of the embedding net per neighbour and of the fitting net per atom, forward."""
        d = train.descriptor
        n_neighbours = sum(sel[0]) / 2.0  # `sel` holds the densest cell
        embedding = sum(a * b for a, b in pairwise((1, *d.neuron)))
        return (n_neighbours * (embedding + 4 * d.neuron[-1]) + _fitting_products(train)) / 1e6

    def weight_of_virials(self, train: DeePMDTrain) -> str | None:
        """Return the prefactors of the virial if they are not 0."""
        virial = train.prefactors.virial
        return f"train.prefactors.virial = {list(virial)}" if any(virial) else None

    def batch_frames(self, train: DeePMDTrain, n_atoms: float) -> int:
        """Return the frames of a batch; of ``auto:N``, as many as have N atoms."""
        batch = train.batch_size
        return ceil(float(batch.partition(":")[2] or 32) / n_atoms) if isinstance(batch, str) else batch

    def same_networks(self, before: DeePMDTrain, now: DeePMDTrain) -> bool:
        """Return whether descriptor, fitting net and precision are the same."""
        return (before.descriptor, before.fitting, before.precision) == (now.descriptor, now.fitting, now.precision)

    # --- training -----------------------------------------------------------------------------------------------------

    def write_data(self, folder: Path, parts: Sequence[Frames], train: DeePMDTrain, type_map: Sequence[str]) -> None:
        """Write the frames as deepmd/npy systems, and the loss beyond which a training on them has diverged."""
        systems = write_deepmd(parts, folder, type_map)
        inputs.write_element_weights(systems, train, type_map)
        (folder / _BOUND).write_text(json.dumps(inputs.loss_bound(train, parts)))

    def data_key(self, train: DeePMDTrain) -> Any:  # noqa: ANN401 - JSON
        """Return the weights of the elements and the prefactor that the bound is made with."""
        return [train.element_weights or {}, train.prefactors.force[0]]

    def train(
        self, folder: Path, train: DeePMDTrain, run: TrainingRun, data: TrainingData, slot: Slot
    ) -> Trained | None:
        """Train and freeze one member; see :meth:`activelearn.config.Trainer.train`."""
        average = checkpoints.kept(folder, inputs.averaged_steps(train, run.n_steps))
        frozen = training.train_member(
            folder,
            _setting(train, run, data),
            slot,
            largest_loss=float(json.loads((data.folder / _BOUND).read_text())),
            weights=training.Weights(run.start_from, run.restart, average),
        )
        if frozen is None:
            return None
        columns, curve = training.learning_curve(folder / inputs.CURVE)
        notes = {"averaged_steps": average} if average else {}
        return Trained(frozen, columns, curve, resumed_from=checkpoints.resumed_from(folder), notes=notes)

    def take_over(
        self, left: Sequence[Path], folder: Path, train: DeePMDTrain, run: TrainingRun, slot: Slot
    ) -> str | None:
        """Copy the newest whole checkpoint, and those before it that the model will be the mean of."""
        return checkpoints.take_over(left, folder, slot, inputs.averaged_steps(train, run.n_steps))

    def compresses(self, train: DeePMDTrain) -> bool:  # noqa: ARG002 - of the contract
        """Return whether `dp compress` takes the descriptor."""
        return True

    def compress(self, folder: Path, model: Path, train: DeePMDTrain, data: TrainingData, slot: Slot) -> Path:
        """Tabulate the embedding net; the shortest distance in the data sets the range of the table."""
        return training.compress(folder, model, _setting(train, TrainingRun(1, (1, 1, 1)), data), slot)

    def faster(self, train: DeePMDTrain, sel: Room) -> Faster:
        """Return what `dp compress` saves and costs: the embedding net at every place of `sel` becomes a table.

        Fitted to CPU times of deepmd-kit 3.2.0 (TensorFlow, four members, 16 to 512 atoms) on one core of 2026, saved
        of an evaluation of 128 atoms (measured): paper with a `sel` of 332 in all 49 ms (59), of 116 17 ms (17.5);
        standard 0.7 ms (0.4), quick 0.03 ms (0.03). A small network is no slower than its table.
        """
        d = train.descriptor
        embedding = sum(a * b for a, b in pairwise((1, *d.neuron)))
        each_us = max(0.0, 2.1e-4 * embedding - 1.6e-3 * d.neuron[-1]) * (
            1.0 if train.precision == "float64" else 1 / 3
        )
        n_types = len(sel[0])
        width = (n_types if d.type_one_side else n_types**2) * d.neuron[-1] / 100.0
        net_MB = n_types * _fitting_products(train) * (8 if train.precision == "float64" else 4) / 1e6
        return Faster(
            saved_us=sum(sel[0]) * each_us,
            making_s=2.2 + 0.25 * width,
            file_MB=net_MB + 0.9 * width,
            memory_MB=6.0 * width,
        )

    def holds_from_A(self, folder: Path) -> tuple[float, float] | None:
        """Return the shortest distance of the training data, and where the coarse table ends, from dp's own output."""
        return training.holds_from_A(folder)

    # --- the models ---------------------------------------------------------------------------------------------------

    def evaluate(self, folder: Path, model: Path, parts: Sequence[Frames], slot: Slot) -> list[Frames]:
        """Return frames with the labels that a model predicts."""
        return training.evaluate(folder, model, parts, slot)

    def pair(self, models: Sequence[str], type_map: Sequence[str], every: int) -> list[str]:
        """Return the pair style with the deviation of the ensemble."""
        deviation = f" out_file model_devi.out out_freq {every}" if every else ""
        return [f"pair_style      deepmd {' '.join(models)}{deviation}", f"pair_coeff      * * {' '.join(type_map)}"]

    def calculator(self, model: Path) -> dict[str, Any]:
        """Return DeePMD-kit's own ASE calculator."""
        arguments = {"model": str(model)}
        return {"calculator": "deepmd.calculator:DP", "arguments": arguments, "package": "deepmd-kit"}

    def potential(self, models: Sequence[str], sha256: Sequence[str], window: tuple[float, float]) -> dict[str, Any]:
        """Return the models as a potential of kind ``deepmd``."""
        return {"deepmd": {"models": tuple(models), "sha256": tuple(sha256), "window": window}}

    def versions(self, slot: Slot) -> dict[str, str]:  # noqa: ARG002 - of the contract
        """Return the versions of DeePMD-kit and of what it computes with."""
        return installed("deepmd-kit", "tensorflow-cpu", "lammps")


def _fitting_products(train: DeePMDTrain) -> int:
    """Return the multiply-adds of one forward evaluation of a fitting net."""
    d = train.descriptor
    return sum(a * b for a, b in pairwise((d.neuron[-1] * d.axis_neuron, *train.fitting, 1)))


def _setting(train: DeePMDTrain, run: TrainingRun, data: TrainingData) -> dict[str, Any]:
    systems = [str(path) for path in sorted(data.folder.iterdir()) if path.is_dir()]
    return inputs.training_input(train, run, type_map=data.type_map, sel=data.sel, systems=systems)


def _contradictions(train: DeePMDTrain, type_map: Sequence[str]) -> Iterator[str]:
    """Yield what does not fit the elements."""
    sel = train.descriptor.sel
    if sel is not None and len(sel) != len(type_map):
        yield f"train.descriptor.sel has {len(sel)} numbers for {len(type_map)} elements"
    unknown = set(train.element_weights or ()) - set(type_map)
    if unknown:
        names = ", ".join(sorted(unknown))
        yield f"train.element_weights names {names} - wanted elements of type_map, {list(type_map)}"


def _networks(train: DeePMDTrain) -> Iterator[str]:
    descriptor, factors = train.descriptor, train.prefactors
    for where, layers in (("descriptor.neuron", descriptor.neuron), ("fitting", train.fitting)):
        if not layers:
            yield f"train.{where}: is empty - wanted a layer or more - leave it out, or give widths such as [25, 50]"
    if descriptor.neuron and descriptor.axis_neuron > descriptor.neuron[-1]:
        yield (
            f"train.descriptor.axis_neuron: {descriptor.axis_neuron} - wanted at most the width of the last layer of "
            f"neuron, {descriptor.neuron[-1]} - lower it"
        )
    if not any((*factors.energy, *factors.force, *factors.virial)):
        yield "train.prefactors: are all 0 - wanted one above 0, or nothing is learnt - leave them out"


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
                f"train.learning_rate: {end} = {stop:g} is above {begin} = {start:g} - usual is a fall: the rate never "
                f"rises, so it would stay at {start:g}"
            )


TRAINER: Final = DeePMD()
