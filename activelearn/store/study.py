"""StudyStore: the folder of a study, which is a campaign's ``study-<iteration>/`` or a folder of its own.

::

    study.yaml                   the resolved study
    glass/plan.json, <glass>.npz, result.json, <glass>.extxyz
    benchmark/plan.json, <task>.npz, result.json, curves.npz
    tables/  figures/            written anew from the sealed results whenever asked
    work/                        restart files of runs that are not finished
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Final

import yaml

from activelearn.config import Machine, Potential, Study
from activelearn.errors import ConfigError
from activelearn.store.files import disk_errors, publish, publish_yaml, read_yaml
from activelearn.store.folder import Folder

GLASS: Final = "glass"
BENCHMARK: Final = "benchmark"
#: Prefix of the arrays of the porous variant in the product of a glass.
PORE: Final = "pore/"
#: A study has no iterations: its stations are carried out once.
ONCE: Final = 0


class StudyStore(Folder):
    """One study folder.

    Parameters
    ----------
    folder
        Its path; made absolute.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._study: Study | None = None

    @classmethod
    def create(cls, folder: Path, study: Study) -> StudyStore:
        """Start a study in `folder`, or open it if the same study is there.

        Raises
        ------
        ConfigError
            Another study is there.
        """
        store = cls(folder)
        if not store.study_file.is_file():
            publish(store.folder / "uuid", uuid.uuid4().hex.encode())
            publish_yaml(store.study_file, study.to_yaml())
        if not store.is_of(study):
            raise ConfigError(
                f"{folder}: holds another study ({store.study.name}) - wanted the same, or an empty folder - choose "
                "another --folder"
            )
        return store

    def is_of(self, study: Study) -> bool:
        """Return whether this folder holds that study."""
        return self._sealed_study().sha256 == study.sha256

    @classmethod
    def open(cls, folder: Path) -> StudyStore:
        """Open an existing study folder.

        Raises
        ------
        ConfigError
            There is no study in `folder`.
        """
        store = cls(folder)
        if not store.study_file.is_file():
            raise ConfigError(
                f"{folder}: no study here - wanted a folder made by activelearn glass or activelearn benchmark"
            )
        return store

    @property
    def study_file(self) -> Path:
        """Where the resolved study stands."""
        return self.folder / "study.yaml"

    @property
    def study(self) -> Study:
        """The resolved study; models that it names from its own folder (those of a campaign) have absolute paths."""
        if self._study is None:
            self._study = _with_absolute_models(self._sealed_study(), self.folder)
        return self._study

    def _sealed_study(self) -> Study:
        return Study.model_validate(yaml.safe_load(read_yaml(self.study_file)))

    @property
    def uuid(self) -> str:
        """Identity of the study, the same wherever the folder is moved."""
        return (self.folder / "uuid").read_text()

    def settings(self, iteration: int) -> Study:  # noqa: ARG002 - a study has no iterations
        """Return the study."""
        return self.study

    def station_folder(self, station: str, iteration: int) -> Path:  # noqa: ARG002 - a study has no iterations
        """Return the folder of a station."""
        return self.folder / station

    def work_folder(self, station: str, task_id: str) -> Path:
        """Make and return the folder of a task's restart files; it outlives a kill and goes with the product."""
        folder = self.folder / "work" / f"{station}-{task_id}"
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def drop_work(self, station: str, task_id: str, machine: Machine) -> None:
        """Remove the restart files of a published task, unless the machine profile keeps scratch."""
        if not machine.keep_scratch:
            shutil.rmtree(self.folder / "work" / f"{station}-{task_id}", ignore_errors=True)


def _with_absolute_models(study: Study, folder: Path) -> Study:
    def absolute(potential: Potential) -> Potential:
        if potential.deepmd is None:
            return potential
        models = tuple(os.path.normpath(folder / model) for model in potential.deepmd.models)
        return potential.model_copy(update={"deepmd": potential.deepmd.model_copy(update={"models": models})})

    return study.model_copy(update={"potentials": tuple(absolute(potential) for potential in study.potentials)})
