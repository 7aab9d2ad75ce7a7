"""StudyStore: the folder of a study, which is a campaign's ``study-<iteration>/`` or a folder of its own.

::

    format.json, uuid, place.json  see :mod:`activelearn.store.version`, :mod:`activelearn.store.identity`
    study.yaml                   the resolved study
    label.json                   how benchmark.force_error.label runs now, if that has changed since
    potentials.json  structures.json  identities of the potentials; checksums of crystals and molecules that are files
    reference.json               what labels frames of the paths of glasses (benchmark.force_error)
    moved.json                   see :mod:`activelearn.store.places`
    glass/plan.json, <glass>.npz, result.json, <glass>.extxyz
    benchmark/plan.json, <task>.npz, result.json, curves.npz
    tables/  figures/            written from the sealed results on each request
    report.html                  what :mod:`activelearn.page` writes for a study on its own
    work/                        restart files of runs that are not finished
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from activelearn import trees
from activelearn.config import Label, Machine, Study, at_hand
from activelearn.config.messages import validated
from activelearn.config.yaml12 import as_written
from activelearn.errors import ConfigError
from activelearn.store.files import disk_errors, gone, read_object, read_yaml, replace_json, sealed
from activelearn.store.folder import Folder
from activelearn.store.identity import Identity
from activelearn.store.places import Places

GLASS: Final = "glass"
BENCHMARK: Final = "benchmark"
#: A study has no iterations: its stations are carried out once.
ONCE: Final = 0


class StudyStore(Folder):
    """One study folder.

    Parameters
    ----------
    folder
        Its path; made absolute.
    """

    missing = "no study here - expected a folder made by activelearn glass or activelearn benchmark"
    names = (GLASS, BENCHMARK, "tables", "figures", "work")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._study: Study | None = None
        self.places = Places(self.folder / "moved.json")

    @classmethod
    def create(cls, folder: Path, study: Study) -> StudyStore:
        """Start a study in `folder`, or open it if the same study is there.

        Raises
        ------
        ConfigError
            There is another study, or something else whose files the study would overwrite.
        """
        store = cls(folder)
        store.begin_with(store.study_file, study.to_yaml())
        if not store.is_of(study):
            raise ConfigError(
                f"{folder}: contains another study ({store.study.name}) - expected the same, or an empty folder - "
                "choose another --folder"
            )
        return store

    def is_begun(self) -> bool:
        """Return whether there is a study in the folder.

        Raises
        ------
        Damaged
            There was one, as it contains results.
        """
        if self.study_file.exists():
            return True
        if any(self.folder.glob("*/plan.json")):
            raise gone(self.study_file)
        return False

    def is_of(self, study: Study) -> bool:
        """Return whether this folder holds that study."""
        begun = self._sealed_study()
        return begun.computed() == self.places.of_given(study, [begun]).computed()

    def follow(self, study: Study) -> None:
        """Use the current paths of moved files, and the current command of the reference.

        Call it only with the lease held.
        """
        if self.places.note(study, [self._sealed_study()]):
            self._study = None
        label = at_hand(study).true_label
        if label is not None and label != self.study.true_label:
            replace_json(self._label_file, sealed(label.model_dump(mode="json")))
            self._study = None

    @property
    def study_file(self) -> Path:
        """Path of the resolved study."""
        return self.folder / "study.yaml"

    @property
    def study(self) -> Study:
        """The resolved study, with absolute paths, by which its files are opened now."""
        if self._study is None:
            now = at_hand(self.places.of_sealed(self._sealed_study()))
            self._study = self._as_run_now(_with_absolute_models(now, self.folder))
        return self._study

    @property
    def _label_file(self) -> Path:
        return self.folder / "label.json"

    def _as_run_now(self, study: Study) -> Study:
        """Return the study with the interpreter and the command by which its reference runs now."""
        if study.benchmark is None or study.benchmark.force_error is None or not self._label_file.is_file():
            return study
        label = validated(Label, read_object(self._label_file), str(self._label_file), is_sealed=True)
        asked = study.benchmark.force_error.model_copy(update={"label": label})
        return study.model_copy(update={"benchmark": study.benchmark.model_copy(update={"force_error": asked})})

    def structures(self) -> dict[str, Path]:
        """Return where files of crystals, molecules and given glasses are now, by the paths that were sealed."""
        study = self._sealed_study()
        named = [*study.benchmark.structures] if study.benchmark is not None else []
        if study.glass is not None:
            named += [one.crystal for one in study.glass.compositions if one.crystal is not None]
            named += study.glass.series.geometry.values()
        if study.glasses is not None:
            named += study.glasses.files
        found = {name: Path(self.places.now(name)) for name in named if Path(name).is_absolute()}
        return {name: path / GLASS / "result.json" if path.is_dir() else path for name, path in found.items()}

    def reference(self, name: str) -> dict[str, Any]:
        """Return the identity of what labels frames of the paths of glasses, as sealed at the start of the study."""
        return dict(read_object(self.whole(self.reference_file))[name])

    @property
    def potentials_file(self) -> Path:
        """Where the identities of its potentials stand: it is begun when they do."""
        return self.folder / "potentials.json"

    @property
    def reference_file(self) -> Path:
        """Path of that identity."""
        return self.folder / "reference.json"

    def _sealed_study(self) -> Study:
        text = read_yaml(self.whole(self.study_file))
        return validated(Study, as_written(text, str(self.study_file)), str(self.study_file), is_sealed=True)

    @property
    def identity(self) -> Identity:
        """The identity of the study."""
        return Identity(self.folder)

    @property
    def title(self) -> str:
        """The name of the study."""
        return self.study.name

    def at_work(self) -> list[tuple[Folder, int]]:
        """Return where its stations are running."""
        return [(self, ONCE)]

    def settings(self, iteration: int) -> Study:  # noqa: ARG002 - a study has no iterations
        """Return the study."""
        return self.study

    def station_folder(self, station: str, iteration: int) -> Path:  # noqa: ARG002 - a study has no iterations
        """Return the folder of a station."""
        return self.folder / station

    def beside(self, iteration: int) -> list[str]:  # noqa: ARG002 - a study has no iterations
        """Return which published files are in no station's folder."""
        return [
            self.study_file.name,
            self.potentials_file.name,
            "structures.json",
            self.reference_file.name,
            "held-out.npz",
        ]

    def results_of(self, path: Path) -> Iterable[Path]:  # noqa: ARG002 - all of them
        """Return the sealed results."""
        return self.folder.glob("*/result.json")

    def work_folder(self, station: str, task_id: str) -> Path:
        """Make and return the folder of a task's restart files; it survives a kill and is removed with the product."""
        folder = self.folder / "work" / f"{station}-{task_id}"
        with disk_errors(folder):
            return trees.make(folder)

    def drop_work(self, station: str, task_id: str, machine: Machine) -> None:
        """Remove the restart files of a published task, unless the machine profile keeps scratch."""
        if not machine.keep_scratch:
            trees.remove(self.folder / "work" / f"{station}-{task_id}", self.folder)


def _with_absolute_models(study: Study, folder: Path) -> Study:
    """Return a study with absolute paths of the models of its campaign, which it names from its folder."""

    def absolute(file: str) -> str:
        return os.path.normpath(folder / file)

    return study.model_copy(update={"potentials": tuple(one.with_files(absolute) for one in study.potentials)})
