"""Codes that run one structure at a time: what their settings have in common, and how a job is handed to their worker.

The input is written and the output is read in ``workers/NAME_job.py``, by what ``workers/single_points.py`` says a run
is worth; here stand the settings, what the labels depend on, and what is wrong before any job.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, field_validator

from activelearn.config import Machine, Reference, Section
from activelearn.config.bounds import of
from activelearn.config.labelling import plain_functional
from activelearn.config.section import Element, Mesh
from activelearn.engines.jobs import run_job, want_program, words
from activelearn.engines.process import Slot, worker_command
from activelearn.errors import ConfigError

#: What a code's own input takes: a word, a number, yes or no.
Tag = str | int | float | bool
#: Elements that a structure is exactly of, in the order of the alphabet: O, Na-O.
Elements = Annotated[str, Field(pattern=r"^[A-Z][a-z]?(-[A-Z][a-z]?)*$")]


def _version(value: object) -> object:
    if isinstance(value, int | float):
        raise ValueError(f"{value} is a number to YAML, where 7.10 is 7.1 - expected it in quotes: '{value}'")
    return value


#: A version as the code prints it.
Version = Annotated[str, BeforeValidator(_version)]


class SinglePoint(Section):
    """The settings of all codes that run one structure at a time."""

    version: Version = Field(description="Version as the code prints it; every run is checked against it.")
    kspacing_per_A: Annotated[PositiveFloat, of("spacing of k-points")] = Field(
        default=0.5, description="Largest k-point spacing, 2 pi included (1/Å), as VASP's KSPACING; Gamma-centred."
    )
    kpoints: Mesh | None = Field(
        default=None, description="The same Gamma-centred mesh for all structures; null: by kspacing_per_A."
    )
    smearing_eV: Annotated[PositiveFloat, of("smearing")] = Field(default=0.05, description="Its width (eV).")
    spin_polarized: bool = Field(default=False, description="Whether all structures are spin-polarised.")
    spin_polarized_for: tuple[Elements, ...] = Field(
        default=(), description="Spin-polarised are structures of exactly these elements: [O, Na-O]."
    )
    initial_moments: dict[Element, Annotated[float, of("magnetic moment")]] = Field(
        default={}, description="Moment that an atom begins with where spins are polarised (µB); missing: 1."
    )
    max_scf_steps: Annotated[PositiveInt, of("number of SCF steps")] = Field(
        default=100, description="A label whose electronic loop uses them all is refused."
    )

    @field_validator("spin_polarized_for")
    @classmethod
    def _elements_stand_in_order(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for one in given:
            ordered = "-".join(sorted(set(one.split("-"))))
            if one != ordered:
                raise ValueError(f"{one}: elements out of order - expected each once, in alphabetical order: {ordered}")
        return given

    def has_spin(self, elements: Iterable[str]) -> bool:
        """Return whether a structure of these elements is spin-polarised."""
        return self.spin_polarized or "-".join(sorted(set(elements))) in self.spin_polarized_for


def ask(
    reference: Reference, slot: Slot, worker: str, known: Mapping[str, Any], message: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the answer of a code's worker to one job.

    Parameters
    ----------
    reference, slot
        As of :class:`activelearn.config.ReferenceEngine`.
    worker
        Its script in ``workers/``.
    known
        Data of each element, under the key of the settings that names them: ``{"pseudopotentials": {...}}``.
    message
        The job, its request, and what only that worker needs.

    Raises
    ------
    ConfigError
        An element of the structure has no data.
    EngineError
        The program is not there, or the run failed.
    """
    settings = reference.settings(SinglePoint)
    command = words(reference)
    want_program(command, slot)
    elements = set(message.get("structure", {}).get("symbols", ()))
    for key, of_element in known.items():
        if lacking := sorted(elements - of_element.keys()):
            raise ConfigError(
                f"{reference.where}.{reference.engine}.{key}: none for {', '.join(lacking)} - expected one for every "
                "element - add it"
            )
    common = {
        "command": command,
        "where": f"{reference.where}.{reference.engine}",
        "version": settings.version,
        "kpoints": settings.kpoints,
        "kspacing_per_A": settings.kspacing_per_A,
        "spin": settings.has_spin(elements),
        "moments": settings.initial_moments,
        "max_scf_steps": settings.max_scf_steps,
        **{key: {kind: of_element[kind] for kind in sorted(elements)} for key, of_element in known.items()},
    }
    return run_job(worker_command(worker, reference.python), {**common, **message}, slot)


def identity(
    reference: Reference,
    sums: Mapping[str, Any],
    fixed: Mapping[str, Any],
    *,
    without: Collection[str] = (),
    d3_version: object = None,
) -> dict[str, Any]:
    """Return what the labels depend on: version, data of the elements, settings as they are given, fixed keys.

    Parameters
    ----------
    reference
        What labels.
    sums
        Data of each element: checksums and titles, never a path.
    fixed
        More input for the code, with its own keywords; units are those of the settings (eV), whose
        conversion may differ in the last digit from one version of ASE to the next.
    without
        Keys of the settings that name files.
    d3_version
        What its dispersion is, if it has one.
    """
    settings = reference.settings(SinglePoint)
    told = settings.model_dump(mode="json", exclude={"version", *without})
    whole = hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()
    return {
        "version": settings.version,
        "weights_sha256": whole,
        "arguments": {**told, "fixed": dict(fixed), "data": dict(sums)},
        "d3_version": d3_version,
    }


def want_known(reference: Reference, given: str | None, known: Collection[str], key: str) -> None:
    """Refuse a functional that this engine has no words for, unless the user gives the code's own.

    Raises
    ------
    ValueError
        It is not known, and `given` is None.
    """
    if given is None and plain_functional(reference.functional) not in known:
        raise ValueError(
            f"functional {reference.functional} has no name in engine {reference.engine} "
            f"({', '.join(sorted(known))}) - expected one of them, or the code's own words in {key}"
        )


def want_same(reference: Reference, given: str | None, known: Mapping[str, object], key: str) -> None:
    """Refuse a code's own words of a functional that are those of another one.

    Parameters
    ----------
    reference
        What labels.
    given
        The words; None: none.
    known
        Words of each functional, by its plain name.
    key
        Where they are given.

    Raises
    ------
    ValueError
        They are known, and another functional's.
    """
    plain = plain_functional(given or "")
    names = {plain_functional(words): name for name, words in known.items() if isinstance(words, str)}
    meant = names.get(plain, plain if plain in known else None)
    if meant is not None and meant != plain_functional(reference.functional):
        raise ValueError(f"{key} {given} but functional {reference.functional} - expected the same")


def want_no_dispersion(reference: Reference, given: Iterable[str], adding: str, engine: str) -> None:
    r"""Refuse keys of a code's own input that add a dispersion which the reference denies.

    Parameters
    ----------
    reference
        What labels.
    given
        Keys of the user, in any case.
    adding
        A regular expression of the keys that add dispersion, such as ``xdm|vdw_.*``.
    engine
        For the message.

    Raises
    ------
    ValueError
        There is one, and ``includes_dispersion`` is false.
    """
    found = [key for key in given if re.fullmatch(adding, key.lower())]
    if found and not reference.includes_dispersion:
        raise ValueError(
            f"{engine}.input: {found[0]} adds dispersion, and includes_dispersion is false - expected true, or d3 in "
            "its place"
        )


def want_free(given: Iterable[str], taken: Mapping[str, str], engine: str) -> None:
    """Refuse keys of a code's own input that say again, or otherwise, what our settings say.

    Parameters
    ----------
    given
        Keys of the user, in any case.
    taken
        Keys that are written already, with where they are set.
    engine
        For the message.

    Raises
    ------
    ValueError
        One of them is taken.
    """
    for key in given:
        if (where := taken.get(key.lower())) is not None:
            raise ValueError(f"{engine}.input: {key} is {where} - expected only keys that nothing else sets")


#: Words before the program that a command starts: `mpirun -n 4 pw.x`.
_STARTERS: Final = re.compile(r"(?:^|/)(?:mpirun|mpiexec(?:\.\w+)?|orterun|srun|prun|aprun|jsrun|env|nice|taskset)$")


def lacking_program(reference: Reference, machine: Machine, where: str, program: str) -> list[str]:
    r"""Return whether a code that `mpirun` or its like starts is not on this machine.

    Parameters
    ----------
    reference, machine, where
        As of :class:`activelearn.config.ReferenceEngine`.
    program
        A regular expression of the program's name, such as ``pw\.x``; other words are not looked for.
    """
    first, *others = words(reference) or [""]
    if machine.launcher or not _STARTERS.search(first):
        return []  # the program itself, which is looked for anyhow, or what starts it in a container
    named = next((word for word in others if re.search(rf"(?:^|/){program}$", word)), None)
    if named is None or shutil.which(named) is not None:
        return []
    what = f"{where}.command: no program {named!r} on the PATH, which {first} is to start"
    return [f"{what} - expected {reference.engine} there - give its full path"]


def sha256(path: Path) -> str:
    """Return the checksum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
