"""What a trainer is: ours and those of other packages are found in one table, each by the name in `train.trainer`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

from activelearn.config.foreign import guard
from activelearn.config.machine import Machine
from activelearn.config.training import Train
from activelearn.plugins import Group

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from activelearn.frames import Frames

S = TypeVar("S", bound=Train)
#: A slot (:class:`activelearn.engines.process.Slot`): the contract stands below the engines.
AnySlot = Any
#: Of a campaign that names no trainer.
DEFAULT: Final = "deepmd"


@dataclass(frozen=True)
class Shell:
    """The neighbours that a model looks at within one cutoff.

    Parameters
    ----------
    rcut
        Cutoff, Å.
    where
        The key that sets `sel`: ``train.descriptor.sel``.
    sel
        Most neighbours that the user wants room for: (n_elements,) of each element, or (1,) of all together; None: from
        the densest cell that the guards allow.
    counts_elements
        Whether each element has room of its own; else all together have.
    """

    rcut: float
    where: str
    sel: tuple[int, ...] | None = None
    counts_elements: bool = True


#: Most neighbours of each shell, in their order: of each element, or of all together.
Room = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class TrainingData:
    """What all members of an ensemble learn from.

    Parameters
    ----------
    folder
        What :meth:`Trainer.write_data` wrote.
    type_map
        Order of the elements.
    sel
        Most neighbours of each shell.
    """

    folder: Path
    type_map: tuple[str, ...]
    sel: Room


@dataclass(frozen=True)
class TrainingRun:
    """What differs between the trainings of one campaign.

    Parameters
    ----------
    n_steps
        Gradient steps.
    random_seeds
        Three: of the descriptor, of the fitting net, of the batches.
    start_from
        What the weights come from: an earlier model, or what its training kept for that; None: random ones.
    learning_rate_factor
        On the start of the learning rate: below 1 after a divergence.
    checkpoints
        Whether it is to go on after a kill.
    restart
        Checkpoint in the folder of the training to go on from; then `start_from` sets the learning rate alone.
    """

    n_steps: int
    random_seeds: tuple[int, ...]
    start_from: Path | None = None
    learning_rate_factor: float = 1.0
    checkpoints: bool = False
    restart: str | None = None

    @property
    def warm(self) -> bool:
        """Whether the weights come from an earlier model."""
        return self.start_from is not None


@dataclass(frozen=True)
class Faster:
    """What the faster form of one model saves and costs, from the size of its network alone.

    All times are CPU times of one core: the one on which they were measured, whichever it is.

    Parameters
    ----------
    saved_us
        Saved of one evaluation of one atom in MD, µs.
    making_s
        Of making it, once, s.
    file_MB, memory_MB
        Size of its file; and more memory in a walk.
    """

    saved_us: float
    making_s: float
    file_MB: float = 0.0
    memory_MB: float = 0.0


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training has left.

    Parameters
    ----------
    model
        The file that MD and :meth:`Trainer.evaluate` read.
    columns, curve
        Learning curve: names of the columns, ``step`` first, and (n_rows, n_columns) of numbers (eV, Å), maybe no row.
        By the column ``rmse_f_trn`` (eV/Å) trainings are told that learnt nothing, or were cut short.
    weights
        What the next warm start begins from, if not the model.
    resumed_from
        Steps from which it went on after a kill.
    notes
        More for its record, JSON-able.
    """

    model: Path
    columns: list[str]
    curve: NDArray[np.float64]
    weights: Path | None = None
    resumed_from: tuple[int, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


class Trainer(ABC, Generic[S]):
    """All there is to know of a way to train an ensemble, and of the models it makes.

    Attempts after a divergence, warm starts, held-out errors and early verdicts are those of :mod:`activelearn.train`,
    the same for every trainer.
    """

    #: The section ``train`` of a campaign that names this trainer.
    settings: ClassVar[type[Train]]
    #: Keys of it that are fixed for all iterations of a campaign, as prefixes of dotted keys below ``train.``.
    fixed: ClassVar[tuple[str, ...]] = ()
    #: Key of the start of the learning rate, which is lowered after a divergence, for advice; None: it has none.
    learning_rate: ClassVar[str | None] = None
    #: What makes the net larger, for advice.
    larger: ClassVar[str] = "take a larger net"
    #: What makes models less prone to holes, for advice.
    smoother: ClassVar[str] = "the cutoff"
    #: What a training must be, for the advice after it has diverged at every learning rate.
    stays: ClassVar[str] = "a training whose loss stays finite"
    #: What the models are, for messages.
    kind: ClassVar[str] = "model"
    #: Whether LAMMPS runs its models, by the lines of :meth:`pair`; else ASE drives walks, with :meth:`calculator`.
    runs_in_lammps: ClassVar[bool] = True
    #: Whether the lines of :meth:`pair` write the force deviation to ``model_devi.out`` of LAMMPS in DeePMD-kit's
    #: format; else it is evaluated afterwards on the frames of a walk.
    writes_deviation: ClassVar[bool] = True
    #: Packages of the interpreter that trains which its models depend on: those that `machine --smoke` asks for.
    packages: ClassVar[tuple[str, ...]] = ()
    #: What a gradient step takes, in evaluations of its frames by :meth:`calculator`, where :meth:`Mflop` is not known:
    #: `check --plan` has the time of one from ``machine.speeds.label_s_per_atom``. None: not known either.
    step_evaluations: ClassVar[float | None] = None

    def __init_subclass__(cls, **more: Any) -> None:  # noqa: ANN401 - of its metaclass
        """Have what a trainer of another package raises, or answers wrongly, told in a sentence."""
        super().__init_subclass__(**more)
        if not cls.__module__.startswith("activelearn."):
            guard(cls)

    # --- the settings -------------------------------------------------------------------------------------------------

    def contradictions(self, train: S, type_map: Sequence[str]) -> list[str]:
        """Return what of the settings does not fit the elements, a line each; said when the YAML is read."""
        return []

    def impossible(self, train: S) -> list[str]:
        """Return what of the settings cannot be, a line each: ``train.KEY: what - wanted - next``."""
        return []

    def unusual(self, train: S) -> list[str]:
        """Return what is possible and hardly meant, a line each: ``train.KEY: what - usual is``."""
        return []

    def problems(self, train: S, machine: Machine) -> list[str]:
        """Return what it lacks on this machine, a line each."""
        return []

    def notes(self, train: S, machine: Machine) -> list[str]:
        """Return what is good to know of it on this machine, a line each."""
        return []

    @abstractmethod
    def shells(self, train: S) -> tuple[Shell, ...]:
        """Return the neighbours that its models look at, the longest cutoff first; at least one."""

    def limits_neighbours(self, train: S) -> bool:
        """Return whether its models drop neighbours beyond a fixed number (`sel`)."""
        return True

    def Mflop(self, train: S, sel: Room) -> float | None:
        """Return the multiply-adds (millions) of one forward evaluation of one atom, or None if they are not known."""
        return None

    def weight_of_virials(self, train: S) -> str | None:
        """Return the setting that weighs virials in the loss, as ``KEY = VALUE``; None where they are not learnt."""
        return None

    def batch_frames(self, train: S, n_atoms: float) -> int:
        """Return how many frames of so many atoms one gradient step evaluates."""
        return 1

    def same_networks(self, before: S, now: S) -> bool:
        """Return whether weights trained with the settings `before` fit those of `now`."""
        return before.trains_like(now)

    def begins_from(self, train: S) -> tuple[Path, ...]:
        """Return the files whose weights the first ensemble begins with, one a member; none: random weights."""
        return ()

    # --- training -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def write_data(self, folder: Path, parts: Sequence[Frames], train: S, type_map: Sequence[str]) -> None:
        """Write the labelled frames as its program reads them, once for all members."""

    def data_key(self, train: S) -> Any:  # noqa: ANN401 - JSON
        """Return what of the settings :meth:`write_data` depends on, JSON-able."""
        return None

    @abstractmethod
    def train(self, folder: Path, train: S, run: TrainingRun, data: TrainingData, slot: AnySlot) -> Trained | None:
        """Train one member in `folder`; return None if the training diverged.

        Raises
        ------
        EngineError
            The program crashed or took too long.
        """

    def take_over(
        self,
        left: Sequence[Path],
        folder: Path,
        train: S,
        run: TrainingRun,
        slot: AnySlot,
    ) -> str | None:
        """Copy the newest whole checkpoint of killed tries of a training to `folder`; return its name.

        None: there is none, or it keeps none; the training begins at zero.
        """
        return None

    def compress(
        self,
        folder: Path,
        model: Path,
        train: S,
        data: TrainingData,
        slot: AnySlot,
        *,
        finer: bool = False,
    ) -> Path | None:
        """Return the faster form of a model, written to `folder`; None: it has none.

        With `finer` it is the closest to the model that there is: asked for where the forces of the other differ.
        """
        return None

    def compresses(self, train: S) -> bool:
        """Return whether models of these settings have a faster form."""
        return False

    def faster(self, train: S, sel: Room) -> Faster | None:
        """Return what that form saves and costs; None: it has none, or that is not known (``auto`` is never, then)."""
        return None

    def holds_from_A(self, folder: Path) -> tuple[float, float] | None:
        """Return the distances (Å) from which on that form holds, as :meth:`compress` has told them in `folder`.

        The first is the shortest of the training data, to which it is exact; below the second it says nothing of the
        model any more. None: it holds all that the model does, or is not known.
        """
        return None

    # --- the models ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def evaluate(self, folder: Path, model: Path, parts: Sequence[Frames], slot: AnySlot) -> list[Frames]:
        """Return frames with the energy (eV), forces (eV/Å) and virial (eV) that a model predicts."""

    def evaluate_all(
        self, folder: Path, models: Sequence[Path], parts: Sequence[Frames], slot: AnySlot
    ) -> list[list[Frames]]:
        """Return what each of several models of one campaign predicts, as :meth:`evaluate` does of one."""
        places = [folder / f"evaluated-{k}" for k in range(len(models))]
        for place in places:
            place.mkdir()
        return [self.evaluate(place, model, parts, slot) for place, model in zip(places, models, strict=True)]

    def pair(self, models: Sequence[str], type_map: Sequence[str], every: int) -> list[str]:
        """Return the lines of LAMMPS that declare an ensemble: the first model drives.

        Every trainer has them whose models LAMMPS runs.

        Parameters
        ----------
        models
            Names of the files, as LAMMPS finds them.
        type_map
            Elements, in the order of the atom types.
        every
            Steps between two force deviations; 0: none is wanted, the first model alone drives.
        """
        return []

    def export_notes(self, train: S) -> tuple[str, ...]:
        """Return comments for an exported LAMMPS input: what its programs print that means nothing."""
        return ()

    def suffix(self, train: S) -> str:
        """Return how the names of its models end, such as ``.pb``."""
        return ""

    @abstractmethod
    def calculator(self, model: Path) -> dict[str, Any]:
        """Return a model as an ASE calculator: ``calculator`` (module:Class), ``arguments`` and ``package``."""

    @abstractmethod
    def potential(
        self, models: Sequence[str], sha256: Sequence[str], type_map: Sequence[str], window: tuple[float, float]
    ) -> dict[str, Any]:
        """Return an ensemble as the part of a potential (glasses, benchmarks) that says what it is.

        That is ``deepmd``, ``lammps``, or ``ase`` without its functional; of the last, an argument that is the file of
        the model stands in ``weights``, too, once there are models.

        Parameters
        ----------
        models, sha256
            Names of the files, of which a line for LAMMPS is made as they stand, and their checksums; those of the
            files that lines name belong into ``files_sha256``. Before there are any models, no checksums.
        type_map
            Elements, in the order of the atom types.
        window
            Trust window (f_lo, f_hi), eV/Å.
        """

    def versions(self, train: S, slot: AnySlot) -> dict[str, str]:
        """Return the versions of the packages that the models depend on, of the interpreter that trains."""
        return {}


TRAINERS: Final = Group(
    "activelearn.trainers",
    {name: f"activelearn.engines.trainers.{name}:TRAINER" for name in ("deepmd", "mace", "sevennet")},
    "activelearn.config.trainer:Trainer",
)


def trainer_of(train: Train) -> Trainer[Any]:
    """Return the trainer that a section `train` names.

    Raises
    ------
    ConfigError
        There is none, or the package that adds it is broken.
    """
    found: Trainer[Any] = TRAINERS.find(train.trainer)
    return found


def all_trainers() -> Iterator[tuple[str, Trainer[Any]]]:
    """Yield name and trainer of all that can be imported; broken packages are told to who asks for them."""
    from activelearn.errors import ConfigError

    for name in TRAINERS.names():
        try:
            yield name, TRAINERS.find(name)
        except ConfigError:
            continue
