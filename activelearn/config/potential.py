"""A potential: anything that drives molecular dynamics and statics in glass production and benchmarks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, PositiveFloat, ValidationInfo, model_validator

from activelearn.config import lammps_lines
from activelearn.config.bounds import of
from activelearn.config.files import as_word
from activelearn.config.labelling import D3, Reference
from activelearn.config.program import Program, runs_in_lammps
from activelearn.config.section import Element, ForceDeviation, Section, is_sealed

Title = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ()._+-]*$", max_length=60)]
#: One LAMMPS line: separators of commands and substitutions are refused.
Line = Annotated[str, Field(pattern=r"^[^\n\r&;$`]+$")]
#: The path of a model in a LAMMPS input: it cannot contain a line break.
ModelPath = Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$")]
#: Suffixes of models that LAMMPS runs, one or an ensemble; DeePMD-kit selects its backend by suffix.
DEEPMD_SUFFIXES: Final = (".pb", ".pth", ".pt2")
#: Other formats of DeePMD-kit 3.2, and why they are not used (measured: docs/backends.md).
NOT_DRIVEN: Final = {
    ".dp": "its forces are silently NaN, since that format has no derivatives",
    ".pt": "a checkpoint, which LAMMPS does not read",
    ".savedmodel": "two of them crash LAMMPS on a CPU, and one alone has no force deviation",
    **dict.fromkeys((".pte", ".jax", ".hlo"), "LAMMPS does not read that format"),
}


class DeePMDModels(Section):
    """One frozen DeePMD model, or an ensemble, whose first model drives and whose members give the force deviation."""

    models: Annotated[tuple[ModelPath, ...], Program()] = Field(
        min_length=1, description="Frozen models (.pb, .pth, .pt2), all in the same format."
    )
    sha256: tuple[str, ...] = Field(
        default=(), description="Checksums of the models; filled in when a potential is read."
    )
    window: tuple[ForceDeviation, ForceDeviation] | None = Field(
        default=None, description="Trust window (f_lo, f_hi) of an ensemble (eV/Å); null: deviations are not monitored."
    )

    @model_validator(mode="after")
    def _is_driven(self, info: ValidationInfo) -> DeePMDModels:
        if is_sealed(info):
            return self
        found = list(dict.fromkeys(PurePath(model).suffix for model in self.models))
        if len(found) > 1:
            raise ValueError(
                f"models end in {' and '.join(found)} - expected one format, since a LAMMPS session has the "
                "libraries of one backend"
            )
        if found[0] not in DEEPMD_SUFFIXES:
            why = NOT_DRIVEN.get(found[0], "DeePMD-kit recognises formats by suffix, and not this one")
            expected = f"{', '.join(DEEPMD_SUFFIXES[:-1])} or {DEEPMD_SUFFIXES[-1]}"
            raise ValueError(f"{self.models[0]}: {why} - expected {expected}, as written by dp freeze")
        return self

    @model_validator(mode="after")
    def _check(self) -> DeePMDModels:
        _want_ascending(self.window)
        if self.window is not None and len(self.models) < 2:
            raise ValueError("window with one model - expected an ensemble of two or more, or no window")
        _want_different(self.models, self.sha256)
        return self


class LammpsStyle(Section):
    """Any pair style of LAMMPS in units metal."""

    pair_style: Annotated[Line, Program(runs_in_lammps)] = Field(
        description="Arguments of `pair_style`, such as: eam/alloy."
    )
    pair_coeff: Annotated[tuple[Line, ...], Program(runs_in_lammps)] = Field(
        min_length=1, description="Arguments of each `pair_coeff`."
    )
    elements: tuple[Element, ...] = Field(min_length=1, description="Elements, in the order of the atom types.")
    files_sha256: dict[str, str] = Field(default={}, description="Checksums of files named above; filled in when read.")

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> LammpsStyle:
        if not is_sealed(info):
            lines = [f"pair_coeff {line}" for line in self.pair_coeff]
            lammps_lines.check_style(f"pair_style {self.pair_style}", *lines)
        return self


class Committee(Section):
    """The other members of an ensemble whose first is the ASE calculator: with it they give the force deviation."""

    argument: str = Field(description="The argument of `ase` that is the file of a member, such as: model.")
    models: Annotated[tuple[ModelPath, ...], Program()] = Field(min_length=1, description="Files of the other members.")
    sha256: tuple[str, ...] = Field(default=(), description="Of the models; filled in when a potential is read.")
    window: tuple[ForceDeviation, ForceDeviation] | None = Field(
        default=None, description="Trust window (f_lo, f_hi) of the ensemble (eV/Å); null: deviations are not judged."
    )

    @model_validator(mode="after")
    def _check(self) -> Committee:
        _want_ascending(self.window)
        _want_different(self.models, self.sha256)
        return self


def _want_ascending(window: tuple[float, float] | None) -> None:
    if window is not None and window[0] >= window[1]:
        raise ValueError(f"window {list(window)} - expected f_lo below f_hi, such as [0.15, 0.35]")


def _want_different(models: Sequence[str], sha256: Sequence[str]) -> None:
    if len(set(models)) < len(models) or len(set(sha256)) < len(sha256):
        raise ValueError("models contains duplicates - expected different models, since a model agrees with itself")


def _with_weights(calculator: Reference, change: Callable[[str], str]) -> Reference:
    weights = calculator.weights
    named = [key for key, value in calculator.arguments.items() if weights is not None and value == weights]
    if not named or weights is None:
        return calculator
    now = change(weights)
    arguments = {**calculator.arguments, **dict.fromkeys(named, now)}
    return calculator.model_copy(update={"weights": now, "arguments": arguments})


class Statics(Reference):
    """The ASE calculator of a potential."""

    where: ClassVar[str] = "potential"


class Potential(Section):
    """One potential with the physics it declares; exactly one of `ase`, `deepmd` and `lammps` defines it."""

    name: Title = Field(description="Name in tables and figures.")
    ase: Reference | None = Field(default=None, description="An ASE calculator, as in a campaign's label.reference.")
    committee: Committee | None = Field(
        default=None, description="Of ase: the other members of its ensemble, and the trust window."
    )
    deepmd: DeePMDModels | None = None
    lammps: LammpsStyle | None = None
    functional: str | None = Field(
        default=None, description="For deepmd and lammps: the functional that it reproduces, such as PBE."
    )
    includes_dispersion: bool | None = Field(
        default=None, description="For deepmd and lammps: whether it includes dispersion."
    )
    d3: D3 | None = Field(default=None, description="For deepmd and lammps: dispersion to add.")
    timestep_fs: Annotated[PositiveFloat, of("time step")] | None = Field(
        default=None, description="Replaces the time step of the schedule."
    )

    @classmethod
    def learnt(cls, name: str, said: Mapping[str, Any], reference: Reference) -> Potential:
        """Return the ensemble of a campaign, as declared by its trainer, with the reference that it was trained on."""
        physics: dict[str, Any] = {
            "functional": reference.functional,
            "includes_dispersion": reference.labels_include_dispersion,
        }
        if "ase" in said:  # it contains them
            return cls.model_validate({"name": name, **said, "ase": {**said["ase"], **physics}})
        return cls(name=name, **said, **physics)

    @model_validator(mode="after")
    def _is_one_thing(self) -> Potential:
        kinds = [kind for kind in ("ase", "deepmd", "lammps") if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(f"got {kinds or 'none'} of ase, deepmd and lammps - expected exactly one")
        if self.committee is not None and self.committee.argument not in (self.ase.arguments if self.ase else {}):
            raise ValueError(
                f"committee.argument {self.committee.argument} - expected an argument of `ase`, which is the file of "
                "its first member"
            )
        if self.ase is not None:
            doubled = [key for key in ("functional", "includes_dispersion", "d3") if getattr(self, key) is not None]
            if doubled:
                raise ValueError(f"{', '.join(doubled)} next to ase - expected it inside `ase`, with the calculator")
            if self.ase.engine != "ase":
                raise ValueError(
                    f"ase.engine {self.ase.engine} - expected an ASE calculator, since a static code cannot drive MD"
                )
            if not self.ase.stress:
                raise ValueError("ase.stress: false - expected a potential with stress, for glasses and benchmarks")
        elif self.functional is None or self.includes_dispersion is None:
            raise ValueError("expected functional (PBE, r2SCAN, none ...) and includes_dispersion (true or false)")
        return self

    @model_validator(mode="after")
    def _has_dispersion_once(self) -> Potential:
        if self.d3 is not None and self.includes_dispersion:
            raise ValueError("d3 on a potential with includes_dispersion: true - expected dispersion once, not twice")
        if self.d3 is not None:
            self.d3.want_parameters_of(str(self.functional))
        return self

    @property
    def slug(self) -> str:
        """The name as part of file names."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-")

    @property
    def physics(self) -> str:
        """Functional and dispersion in words: ``PBE + D3(zero)``."""
        functional = self.functional if self.ase is None else self.ase.functional
        has_it = self.includes_dispersion if self.ase is None else self.ase.includes_dispersion
        d3 = self.d3 if self.ase is None else self.ase.d3
        added = f" + D3({d3.damping})" if d3 is not None else " with dispersion" if has_it else ""
        return f"{functional}{added}"

    @property
    def window(self) -> tuple[float, float] | None:
        """The trust window of an ensemble, eV/Å; None where no force deviation can be judged."""
        ensemble = self.deepmd or self.committee
        return None if ensemble is None else ensemble.window

    @property
    def others(self) -> list[dict[str, Any]]:
        """The arguments of the ASE calculators of the other members, where there are any."""
        if self.ase is None or self.committee is None:
            return []
        return [{**self.ase.arguments, self.committee.argument: model} for model in self.committee.models]

    @property
    def files(self) -> dict[str, str]:
        """The files of its models, or that its lines for LAMMPS name, with their sha256 where that is known.

        Of an ASE calculator those of the other members: its own is in its identity.
        """
        if ensemble := self.deepmd or self.committee:
            return dict(zip(ensemble.models, ensemble.sha256, strict=False))
        return {} if self.lammps is None else self.lammps.files_sha256

    def with_files(self, change: Callable[[str], str]) -> Potential:
        """Return it with other paths of its model files, or of the files named in its LAMMPS lines.

        For an ASE calculator, this is also the argument that equals ``weights``.
        """
        if self.ase is not None:
            committee = self.committee
            if committee is not None:
                committee = committee.model_copy(update={"models": tuple(map(change, committee.models))})
            return self.model_copy(update={"ase": _with_weights(self.ase, change), "committee": committee})
        if self.deepmd is not None:
            models = tuple(change(model) for model in self.deepmd.models)
            return self.model_copy(update={"deepmd": self.deepmd.model_copy(update={"models": models})})
        if self.lammps is None or not self.files:
            return self
        files = {path: change(path) for path in self.files}
        words = {as_word(path): as_word(now) for path, now in files.items()}

        def renamed(line: str) -> str:
            return " ".join(words.get(word, word) for word in line.split(" "))

        changed = {
            "pair_style": renamed(self.lammps.pair_style),
            "pair_coeff": tuple(renamed(line) for line in self.lammps.pair_coeff),
            "files_sha256": {files[path]: sha256 for path, sha256 in self.files.items()},
        }
        return self.model_copy(update={"lammps": self.lammps.model_copy(update=changed)})

    def statics(self, python: str | None = None) -> Statics:
        """Return the ASE calculator that gives energies, forces and stress of this potential.

        Parameters
        ----------
        python
            Interpreter of the engines, where it is not this one; an ASE calculator has its own, but for that of an
            ensemble that names none: its models run where they were trained.
        """
        if self.ase is not None:
            own = self.ase.python or (python if self.committee is not None else None)
            return Statics.model_construct(self.ase.model_fields_set, **{**dict(self.ase), "python": own})
        shared: dict[str, Any] = {
            "functional": self.functional,
            "includes_dispersion": self.includes_dispersion,
            "d3": self.d3,
            "python": python,
        }
        if self.deepmd is not None:
            model = {"model": self.deepmd.models[0]}
            return Statics(calculator="deepmd.calculator:DP", arguments=model, package="deepmd-kit", **shared)
        assert self.lammps is not None  # one of the three
        arguments: dict[str, Any] = {
            "lmpcmds": [
                f"pair_style {self.lammps.pair_style}",
                *(f"pair_coeff {line}" for line in self.lammps.pair_coeff),
            ],
            "atom_types": {element: i for i, element in enumerate(self.lammps.elements, 1)},
            "keep_alive": True,
        }
        return Statics(
            calculator="ase.calculators.lammpslib:LAMMPSlib", arguments=arguments, package="lammps", **shared
        )
