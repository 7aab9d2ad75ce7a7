"""Read-only views of a campaign or a study: what :func:`activelearn.open` returns to a notebook or a script.

Nothing is written to the folder and no lease is taken: a running campaign may be read, up to what has been sealed.
Tables are lists of rows (dictionaries with the same keys), as ``pandas.DataFrame`` takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activelearn import ending, final_models, status, study
from activelearn.benchmark import station as benchmark
from activelearn.config import Campaign, Study, trainer_of
from activelearn.engines.trainers import calculator_of
from activelearn.errors import ActiveLearnError, ConfigError, typed
from activelearn.frames import FloatArray, Frames
from activelearn.records import Curve, End, Ensemble, Errors, Iteration, MadeGlass
from activelearn.report.behind import losses
from activelearn.store import Store, StudyStore, read_npz
from activelearn.store.glass_product import GlassPath, all_glasses_of, path_of

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

Row = dict[str, Any]


def open_folder(folder: str | Path) -> CampaignView | StudyView:
    """Open the folder of a campaign or of a study, to read from it.

    Parameters
    ----------
    folder
        Such as ``runs/quickstart``, or the ``study-004`` in it.

    Raises
    ------
    ConfigError
        The folder contains neither.
    StoreError
        A newer version of activelearn wrote it.
    """
    path = Path(folder).expanduser()
    if (path / "study.yaml").is_file():
        return StudyView(StudyStore.open(path))
    return CampaignView(Store.open(path))


class CampaignView:
    """A campaign, read-only.

    Parameters
    ----------
    store
        Its folder.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def __repr__(self) -> str:
        n, end = len(self.iterations), self.end
        return f"<campaign {self.campaign.name}: {n} iterations, {end.message if end is not None else 'not ended'}>"

    @property
    def folder(self) -> Path:
        """The folder, absolute."""
        return self._store.folder

    @property
    def campaign(self) -> Campaign:
        """The settings of the campaign, as they were last accepted."""
        return self._store.latest_campaign()

    @property
    def iterations(self) -> list[Iteration]:
        """The records of the iterations that are closed, in order."""
        return self._store.iterations()

    @property
    def end(self) -> End | None:
        """How the loop ended, or None if it continues."""
        return ending.verdict(self._store) if self.iterations else None

    @property
    def studies(self) -> list[StudyView]:
        """The glasses and benchmarks of the final models, if the campaign has any."""
        return [StudyView(one) for one in self._store.studies()]

    def status(self) -> dict[str, Any]:
        """Return what ``activelearn status --json`` prints."""
        return status.as_dict(self._store)

    def frames(self, iteration: int | None = None) -> list[Frames]:
        """Return the training frames that an iteration added, with their labels, each Frames of one composition.

        Parameters
        ----------
        iteration
            Its index; null: the whole data set, in the order (iteration, walk, step).

        Raises
        ------
        ConfigError
            The iteration is not closed.
        """
        last = self._closed(iteration)
        return self._store.dataset(last) if iteration is None else self._store.training(last)

    def held_out(self) -> list[Frames]:
        """Return the labelled frames that are never trained on: whole trajectories set aside at the beginning."""
        return self._store.held_out(self._closed(None))

    def ensemble(self, iteration: int | None = None) -> Ensemble:
        """Return the record of the models that an iteration passed on.

        Parameters
        ----------
        iteration
            Its index; null: the final models, or those of the last iteration if there are none yet.
        """
        last = self._closed(iteration)
        if iteration is None and self._store.is_sealed("final", last):
            return final_models.chosen(self._store, last).ensemble
        return next(record.ensemble for record in self.iterations if record.index == last)

    def models(self, iteration: int | None = None, *, compressed: bool = False) -> list[Path]:
        """Return the files of frozen models, verified against their checksums.

        Parameters
        ----------
        iteration
            As for :meth:`ensemble`.
        compressed
            The tabulated models, which are faster: final models have them unless ``final.compress`` is false, and those
            of the loop where it explores with them (``train.compress``).

        Raises
        ------
        ConfigError
            There are no compressed ones.
        StoreError
            A file is damaged.
        """
        members = self.ensemble(iteration).members
        names = [member.compressed if compressed else member.model for member in members]
        if (missing := names.count(None)) > 0:
            raise ConfigError(
                f"{self.folder}: {missing} of {len(names)} models are not compressed - expected final models with "
                "final.compress: true, or train.compress: always - use compressed=False"
            )
        return [self._store.model(name) for name in names if name is not None]

    def calculator(self, index: int = 0, iteration: int | None = None) -> Calculator:
        """Return one model as an ASE calculator: energy (eV), forces (eV/Å), stress (eV/Å^3).

        It is that of the trainer. In DeePMD-kit's, atoms that are periodic in one direction count as periodic in all
        three, so that a slab needs more vacuum than the cutoff (``findings/deepmd-calculator-slab.sh``).

        Parameters
        ----------
        index
            Of the member, 0 to 3 in an ensemble of four.
        iteration
            As for :meth:`ensemble`.

        Raises
        ------
        ConfigError
            There is no such member, or the package of the calculator is not in this interpreter.
        """
        models = self.models(iteration)
        if not 0 <= index < len(models):
            raise ConfigError(f"calculator {index} - expected 0 to {len(models) - 1}, the members of the ensemble")
        trainer = trainer_of(self._store.campaign(self.ensemble(iteration).trained_in).train)
        return calculator_of(trainer, models[index])

    def counts(self) -> list[Row]:
        """Return one row for each cell of the exploration matrix and each pass: its conditions, counts and shares."""
        return [
            {
                "iteration": record.index,
                **cell.model_dump(exclude={"counts", "along"}),
                **cell.counts.model_dump(),
                "candidate_share": cell.counts.share("candidate"),
                "failed_share": cell.counts.share("failed"),
                "f_lo": record.selection.f_lo,
                "f_hi": record.selection.f_hi,
            }
            for record in self.iterations
            if record.selection is not None
            for cell in record.selection.cells
        ]

    def errors(self) -> list[Row]:
        """Return one row for each training and member: steps, and the errors on the held-out frames.

        Energies in meV/atom, forces in eV/Å; ``composition`` is a formula, or null for all held-out frames together.
        """
        rows: list[Row] = []
        for record in self.iterations:
            if record.ensemble.trained_in != record.index:
                continue  # the models of an earlier iteration, passed on
            for member in record.ensemble.members:
                start = {"iteration": record.index, "member": member.index, "n_steps": member.n_steps}
                found: list[tuple[str | None, Errors | None]] = [
                    (None, member.held_out),
                    *member.by_composition.items(),
                ]
                rows += [{**start, "composition": name, **e.model_dump()} for name, e in found if e is not None]
        return rows

    def seconds(self) -> list[Row]:
        """Return one row for each iteration and station: where the time went, s."""
        return [
            {"iteration": record.index, "station": name, **spent.model_dump(), "other": spent.other}
            for record in self.iterations
            for name, spent in record.seconds.items()
        ]

    def _closed(self, iteration: int | None) -> int:
        closed = [record.index for record in self.iterations]
        if not closed or (iteration is not None and iteration not in closed):
            there = f"iterations {closed[0]} to {closed[-1]}" if closed else "no iteration"
            raise ConfigError(
                f"{self.folder}: {there} closed, iteration {iteration if iteration is not None else 0} is not - "
                f"expected a closed iteration - see: activelearn status {typed(self.folder)}"
            )
        return closed[-1] if iteration is None else iteration


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a figure, with its numbers.

    Parameters
    ----------
    curve
        What it is: name, label, axes with their units, condition, stamp.
    x, y
        (n,) in the units of the axes.
    error
        (n,) standard error over replicas, or None.
    """

    curve: Curve
    x: FloatArray
    y: FloatArray
    error: FloatArray | None = None


class StudyView:
    """A study, read-only: glasses made with potentials, and the properties measured.

    Parameters
    ----------
    store
        Its folder.
    """

    def __init__(self, store: StudyStore) -> None:
        self._store = store

    def __repr__(self) -> str:
        try:
            name = self.study.name
        except ActiveLearnError:  # such as a package that is gone; what is written can still be read
            name = self.folder.name
        return f"<study {name}: {len(self.glasses)} glasses, {len(self.results())} results>"

    @property
    def folder(self) -> Path:
        """The folder, absolute."""
        return self._store.folder

    @property
    def study(self) -> Study:
        """The settings."""
        return self._store.study

    @property
    def glasses(self) -> tuple[MadeGlass, ...]:
        """All glasses, including those that were not finished (see ``ended``)."""
        return all_glasses_of(self._store).glasses

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be measured, and why."""
        board = study.scoreboard_of(self._store)
        return () if board is None else board.problems

    @property
    def losses(self) -> str | None:
        """Which glasses died and what was not measured, as the command says at its end; None if nothing was lost."""
        return losses(study.scoreboard_of(self._store), self.glasses)

    def path(self, glass: MadeGlass | str) -> GlassPath:
        """Return how a glass was made: its frames, segments and thermo rows.

        Parameters
        ----------
        glass
            It, or its id.

        Raises
        ------
        ConfigError
            There is no such glass.
        """
        found = {made.id: made for made in self.glasses}
        name = glass if isinstance(glass, str) else glass.id
        if name not in found:
            raise ConfigError(f"{self.folder}: no glass {name} - expected one of: {', '.join(found) or 'none there'}")
        return path_of(self._store, found[name])

    def results(self) -> list[Row]:
        """Return one row for each number: value, unit, uncertainty, condition, and the experimental value."""
        found = () if (board := study.scoreboard_of(self._store)) is None else board.results
        names = sorted({name for result in found for name in result.condition})
        unknown: Row = dict.fromkeys(names)
        return [{**unknown, **result.condition, **result.model_dump(exclude={"condition"})} for result in found]

    def lines(self, name: str | None = None) -> list[Line]:
        """Return the lines of the figures.

        Parameters
        ----------
        name
            Such as ``rdf``, ``msd``, ``evolution``; null: all.
        """
        board = study.scoreboard_of(self._store)
        if board is None:
            return []
        arrays: Mapping[str, FloatArray] = read_npz(self._store.whole(benchmark.curves_file(self._store)))[0]
        return [
            Line(curve, arrays[f"{curve.key}/x"], arrays[f"{curve.key}/y"], arrays.get(f"{curve.key}/error"))
            for curve in board.curves
            if name in {None, curve.name}
        ]
