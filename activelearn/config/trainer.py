"""Definition of a trainer; ours and those of other packages are in one table, by the name in `train.trainer`."""

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
#: A slot (:class:`activelearn.engines.process.Slot`): the contract is independent of the engines.
AnySlot = Any
#: Default of a campaign that names no trainer.
DEFAULT: Final = "deepmd"


@dataclass(frozen=True)
class Shell:
    """The neighbours of a model within one cutoff.

    Parameters
    ----------
    rcut
        Cutoff, Å.
    where
        The key that sets `sel`: ``train.descriptor.sel``.
    sel
        Maximum numbers of neighbours set by the user: (n_elements,) per element, or (1,) for all together; None: from
        the densest cell that the guards allow.
    counts_elements
        Whether neighbours are limited per element; else all together.
    """

    rcut: float
    where: str
    sel: tuple[int, ...] | None = None
    counts_elements: bool = True


#: Maximum number of neighbours of each shell, in order: per element, or of all together.
Room = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class TrainingData:
    """Training data common to all members of an ensemble.

    Parameters
    ----------
    folder
        What :meth:`Trainer.write_data` wrote.
    type_map
        Order of the elements.
    sel
        Maximum number of neighbours of each shell.
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
        Source of the initial weights: an earlier model, or what its training stored for this; None: random.
    learning_rate_factor
        Factor on the initial learning rate: below 1 after a divergence.
    checkpoints
        Whether it can continue after a kill.
    restart
        Checkpoint in the folder of the training to continue from; `start_from` then only affects the learning rate.
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


#: Multiply-adds (millions) of a plain network in LAMMPS that take a µs on the core whose times `Faster` has.
_MFLOP_PER_US: Final = 3.3e-3
#: No network was found to take less than this share of its time when compressed.
_LEAST_SHARE: Final = 0.25


@dataclass(frozen=True)
class Faster:
    """Savings and cost of compressing one model, from the size of its network alone.

    All times are CPU times of the core on which they were measured.

    Parameters
    ----------
    saved_us
        Saved per atom and evaluation in MD, µs.
    making_s
        One-time cost of making it, s.
    file_MB, memory_MB
        Size of its file, and additional memory in a walk.
    """

    saved_us: float
    making_s: float
    file_MB: float = 0.0
    memory_MB: float = 0.0

    def Mflop(self, plain: float) -> float:
        """Return the multiply-adds (millions) of a plain network that takes as long, from those of the model itself."""
        return max(_LEAST_SHARE * plain, plain - self.saved_us * _MFLOP_PER_US)


@dataclass(frozen=True, eq=False)
class Trained:
    """Result of a training.

    Parameters
    ----------
    model
        The file that MD and :meth:`Trainer.evaluate` read.
    columns, curve
        Learning curve: names of the columns, ``step`` first, and (n_rows, n_columns) of numbers (eV, Å), maybe no row.
        The column ``rmse_f_trn`` (eV/Å) shows trainings that learnt nothing or were cut short.
    weights
        What the next warm start uses, if not the model.
    resumed_from
        Steps from which it continued after a kill.
    notes
        Additional entries of its record, JSON-able.
    """

    model: Path
    columns: list[str]
    curve: NDArray[np.float64]
    weights: Path | None = None
    resumed_from: tuple[int, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


class Trainer(ABC, Generic[S]):
    """A method to train an ensemble, and the properties of its models.

    Attempts after a divergence, warm starts, held-out errors and early verdicts are in :mod:`activelearn.train`,
    the same for every trainer.
    """

    #: The section ``train`` of a campaign that names this trainer.
    settings: ClassVar[type[Train]]
    #: Keys that are fixed for all iterations of a campaign, as prefixes of dotted keys below ``train.``.
    fixed: ClassVar[tuple[str, ...]] = ()
    #: Key of the initial learning rate, which is lowered after a divergence, for advice (None if there is none).
    learning_rate: ClassVar[str | None] = None
    #: What makes the net larger, for advice.
    larger: ClassVar[str] = "use a larger net"
    #: What makes models less prone to holes, for advice.
    smoother: ClassVar[str] = "the cutoff"
    #: What a training must be, for the advice after it has diverged at every learning rate.
    stays: ClassVar[str] = "a training whose loss stays finite"
    #: What the models are, for messages.
    kind: ClassVar[str] = "model"
    #: Whether LAMMPS runs its models, with the lines of :meth:`pair`; else ASE drives walks, with :meth:`calculator`.
    runs_in_lammps: ClassVar[bool] = True
    #: Whether the lines of :meth:`pair` write the force deviation to ``model_devi.out`` of LAMMPS in DeePMD-kit's
    #: format; else it is evaluated afterwards on the frames of a walk.
    writes_deviation: ClassVar[bool] = True
    #: Packages that the models depend on in the interpreter that trains, which `machine --smoke` looks for.
    packages: ClassVar[tuple[str, ...]] = ()
    #: What a gradient step takes, in evaluations of its frames by :meth:`calculator`, where :meth:`Mflop` is not known:
    #: `check --plan` has the time of one from ``machine.speeds.label_s_per_atom``. None: not known either.
    step_evaluations: ClassVar[float | None] = None

    def __init_subclass__(cls, **more: Any) -> None:  # noqa: ANN401 - of its metaclass
        """Report exceptions and wrong return values of trainers of other packages in one sentence."""
        super().__init_subclass__(**more)
        if not cls.__module__.startswith("activelearn."):
            guard(cls)

    # --- the settings -------------------------------------------------------------------------------------------------

    def contradictions(self, train: S, type_map: Sequence[str]) -> list[str]:
        """Return conflicts of the settings with the elements, one line each; reported when the YAML is read."""
        return []

    def impossible(self, train: S) -> list[str]:
        """Return impossible settings, one line each: ``train.KEY: what - expected - next``."""
        return []

    def unusual(self, train: S) -> list[str]:
        """Return suspicious settings, one line each: ``train.KEY: what - usual is``."""
        return []

    def problems(self, train: S, machine: Machine) -> list[str]:
        """Return what is missing on this machine, one line each."""
        return []

    def notes(self, train: S, machine: Machine) -> list[str]:
        """Return notes about it on this machine, one line each."""
        return []

    @abstractmethod
    def shells(self, train: S) -> tuple[Shell, ...]:
        """Return the neighbour shells of its models, the longest cutoff first; at least one."""

    def limits_neighbours(self, train: S) -> bool:
        """Return whether its models drop neighbours beyond a fixed number (`sel`)."""
        return True

    def Mflop(self, train: S, sel: Room) -> float | None:
        """Return the multiply-adds (millions) of one forward evaluation of one atom, or None if they are not known."""
        return None

    def weight_of_virials(self, train: S) -> str | None:
        """Return the setting that weights virials in the loss, as ``KEY = VALUE``; None if they are not trained on."""
        return None

    def batch_frames(self, train: S, n_atoms: float) -> int:
        """Return the number of frames with `n_atoms` atoms per gradient step."""
        return 1

    def same_networks(self, before: S, now: S) -> bool:
        """Return whether weights trained with the settings `before` fit those of `now`."""
        return before.trains_like(now)

    def begins_from(self, train: S) -> tuple[Path, ...]:
        """Return the files with the initial weights of the first ensemble, one per member; none: random weights."""
        return ()

    # --- training -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def write_data(self, folder: Path, parts: Sequence[Frames], train: S, type_map: Sequence[str]) -> None:
        """Write the labelled frames in the format of its program, once for all members."""

    def data_key(self, train: S) -> Any:  # noqa: ANN401 - JSON
        """Return the settings that :meth:`write_data` depends on, JSON-able."""
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
        """Copy the newest intact checkpoint of killed attempts at a training to `folder`; return its name.

        None: there is none, or none are kept; the training starts from scratch.
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
        """Write the compressed form of a model to `folder` and return it; None: it has none.

        With `finer`, it is as close to the model as possible, for models whose usual compressed form differs in forces.
        """
        return None

    def compresses(self, train: S) -> bool:
        """Return whether models of these settings can be compressed."""
        return False

    def faster(self, train: S, sel: Room) -> Faster | None:
        """Return the savings and cost of compression; None: not possible or not known (``auto`` then means never)."""
        return None

    def holds_from_A(self, folder: Path) -> tuple[float, float] | None:
        """Return the distances (Å) above which the compressed form is valid, as recorded by :meth:`compress`.

        The first is the shortest of the training data, down to which it is exact; below the second it differs from the
        model. None: it is valid wherever the model is, or this is not known.
        """
        return None

    # --- the models ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def evaluate(self, folder: Path, model: Path, parts: Sequence[Frames], slot: AnySlot) -> list[Frames]:
        """Return frames with the energy (eV), forces (eV/Å) and virial (eV) that a model predicts."""

    def evaluate_all(
        self, folder: Path, models: Sequence[Path], parts: Sequence[Frames], slot: AnySlot
    ) -> list[list[Frames]]:
        """Return what each of several models of one campaign predicts, as :meth:`evaluate` does for one."""
        places = [folder / f"evaluated-{k}" for k in range(len(models))]
        for place in places:
            place.mkdir()
        return [self.evaluate(place, model, parts, slot) for place, model in zip(places, models, strict=True)]

    def pair(self, models: Sequence[str], type_map: Sequence[str], every: int) -> list[str]:
        """Return the lines of LAMMPS that declare an ensemble: the first model drives.

        Required for trainers whose models LAMMPS runs.

        Parameters
        ----------
        models
            Names of the files, as seen by LAMMPS.
        type_map
            Elements, in the order of the atom types.
        every
            Steps between evaluations of the force deviation; 0: never, and only the first model is loaded.
        """
        return []

    def pair_of_walks(self, models: Sequence[str], type_map: Sequence[str], every: int) -> list[str]:
        """Return the lines of :meth:`pair` for a walk, which may also write the deviation of each atom."""
        return self.pair(models, type_map, every)

    def export_notes(self, train: S) -> tuple[str, ...]:
        """Return comments for an exported LAMMPS input about harmless output of its programs."""
        return ()

    def suffix(self, train: S) -> str:
        """Return the suffix of its models, such as ``.pb``."""
        return ""

    @abstractmethod
    def calculator(self, model: Path) -> dict[str, Any]:
        """Return a model as an ASE calculator: ``calculator`` (module:Class), ``arguments`` and ``package``."""

    @abstractmethod
    def potential(
        self, models: Sequence[str], sha256: Sequence[str], type_map: Sequence[str], window: tuple[float, float]
    ) -> dict[str, Any]:
        """Return an ensemble as the part of a potential (glasses, benchmarks) that defines it.

        That is ``deepmd``, ``lammps``, or ``ase`` without its functional; for the last, an argument that is the file of
        the model is also given as ``weights``, once there are models.

        Parameters
        ----------
        models, sha256
            Names of the files, as used in LAMMPS lines, and their checksums; those of
            files named in lines belong in ``files_sha256``. Empty before there are models.
        type_map
            Elements, in the order of the atom types.
        window
            Trust window (f_lo, f_hi), eV/Å.
        """

    def versions(self, train: S, slot: AnySlot) -> dict[str, str]:
        """Return the versions of the packages that the models depend on, in the training interpreter."""
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
    """Yield name and trainer of all that can be imported; broken packages are reported when they are used."""
    from activelearn.errors import ConfigError

    for name in TRAINERS.names():
        try:
            yield name, TRAINERS.find(name)
        except ConfigError:
            continue
