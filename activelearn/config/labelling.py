"""The reference: what labels, and what makes a label acceptable."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from activelearn.config.section import Section

Mesh = tuple[PositiveInt, PositiveInt, PositiveInt]
Tag = str | int | float | bool


class D3(Section):
    """Grimme's D3 dispersion, added to a reference that has none; the three-body term is off."""

    method: str = Field(default="PBE", description="The functional that its parameters are for.")
    damping: Literal["zero"] = "zero"


class GPAW(Section):
    """Plane-wave density functional theory by GPAW: forces and stress of the free energy."""

    xc: str | None = Field(default=None, description="GPAW's name of the functional; null: `functional`.")
    ecut_eV: PositiveFloat = Field(default=400.0, description="Plane-wave cutoff (eV).")
    kspacing_per_A: PositiveFloat = Field(default=0.5, description="Largest k-point spacing, 2 pi included (1/Å).")
    kpts: Mesh | None = Field(default=None, description="The same mesh for all structures; null: by kspacing_per_A.")
    smearing_eV: PositiveFloat = Field(default=0.05, description="Width of the Fermi-Dirac distribution (eV).")
    convergence: dict[str, PositiveFloat] = Field(
        default={"energy": 1.0e-5, "density": 1.0e-5},
        description="GPAW's criteria: energy (eV per valence electron), density, eigenstates, forces.",
    )
    max_scf_steps: PositiveInt = Field(default=200, description="An SCF that needs more is refused.")
    spin_polarized: bool = False


class VASP(Section):
    """A single point by VASP; the INCAR of :data:`activelearn.engines.vasp.INCAR` with these tags on top."""

    version: str = Field(description="Version of VASP that labels, such as 6.4.2; every run is checked against it.")
    potcar_dir: str = Field(description="Folder of the POTCARs: <potcar_dir>/<name>/POTCAR.")
    potcars: dict[str, str] = Field(min_length=1, description="Name of the POTCAR of each element: {Na: Na_pv}.")
    incar: dict[str, Tag | list[Tag]] = Field(default={}, description="INCAR tags on top of the defaults.")
    incar_for: dict[str, dict[str, Tag | list[Tag]]] = Field(
        default={}, description="More tags for structures of exactly these elements: {O: {ISPIN: 2}, O-S: ...}."
    )
    kpoints: Mesh | None = Field(default=None, description="A Gamma-centred mesh; null: by KSPACING.")
    max_corrections: PositiveInt = Field(default=5, description="Restarts that custodian may try.")

    @field_validator("incar", "incar_for")
    @classmethod
    def _tags_are_written_as_vasp_does(cls, given: dict[str, Any]) -> dict[str, Any]:
        tags = {key for value in given.values() if isinstance(value, dict) for key in value} or set(given)
        if "IVDW" in tags:
            raise ValueError("IVDW is set by the reference's d3 - wanted d3: {method: PBE, damping: zero} instead")
        for tag in {"NSW", "PSTRESS"} & tags:
            raise ValueError(f"{tag} in a single point - wanted labels at zero pressure and fixed positions")
        small = sorted(tag for tag in tags if tag != tag.upper())
        if small:
            raise ValueError(f"tags {small} - wanted capital letters, such as ENCUT")
        return given


#: What each engine wants of a reference, and no other engine has.
_NEEDS: Final[dict[str, set[str]]] = {"ase": {"calculator"}, "gpaw": {"gpaw", "command"}, "vasp": {"vasp", "command"}}


class Reference(Section):
    """What labels: an ASE calculator in its own interpreter, GPAW, or VASP; each with D3 on top if it has none."""

    engine: Literal["ase", "gpaw", "vasp"] = "ase"
    calculator: str | None = Field(
        default=None, pattern=r"^[\w.]+:\w+$", description="module:Class of an ASE calculator (engine ase)."
    )
    arguments: dict[str, Any] = Field(default={}, description="Keyword arguments of the class.")
    package: str | None = Field(default=None, description="PyPI name of the package (version, install line).")
    python: str | None = Field(default=None, description="Interpreter to run it in; null: this one.")
    command: str | None = Field(
        default=None, description="How GPAW or VASP is started: 'mpiexec -n 2 gpaw python', 'srun vasp_std'."
    )
    weights: str | None = Field(
        default=None, description="Weights to be hashed: a path, or package:path inside an installed package."
    )
    functional: str = Field(description="What it reproduces, such as PBE; 'none' for a toy.")
    includes_dispersion: bool = Field(description="Whether dispersion is already in it.")
    d3: D3 | None = Field(default=None, description="Dispersion to be added: {method: PBE, damping: zero}.")
    gpaw: GPAW | None = Field(default=None, description="Settings of engine gpaw.")
    vasp: VASP | None = Field(default=None, description="Settings of engine vasp.")
    precision: Literal["float32", "float64"] = "float64"
    deterministic: bool = Field(default=True, description="Same input, same bits (at one thread).")

    @property
    def name(self) -> str:
        """What labels, in two words: ``sevenn.calculator:SevenNetCalculator + D3(zero)``."""
        return f"{self.calculator or self.engine}{f' + D3({self.d3.damping})' if self.d3 else ''}"

    @property
    def labels_include_dispersion(self) -> bool:
        """Whether dispersion is in the labels: in the reference itself, or added as D3."""
        return self.includes_dispersion or self.d3 is not None

    @model_validator(mode="after")
    def _says_what_its_engine_wants(self) -> Reference:
        wanted = _NEEDS[self.engine]
        given = {key for keys in _NEEDS.values() for key in keys if getattr(self, key) is not None}
        if given != wanted:
            raise ValueError(f"engine {self.engine} with {sorted(given) or 'nothing'} - wanted {sorted(wanted)} of it")
        return self

    @model_validator(mode="after")
    def _has_dispersion_once(self) -> Reference:
        if self.d3 is None:
            return self
        if self.includes_dispersion:
            raise ValueError("d3 on a reference with includes_dispersion: true - wanted dispersion once, not twice")
        if plain_functional(self.d3.method) != plain_functional(self.functional):
            raise ValueError(
                f"d3.method {self.d3.method} on functional {self.functional} - wanted D3 with the parameters of the "
                "functional that it is added to"
            )
        return self

    @model_validator(mode="after")
    def _functional_is_the_one_that_is_run(self) -> Reference:
        xc = (self.gpaw and self.gpaw.xc) or self.functional
        if (
            plain_functional(xc) != plain_functional(self.functional) and "+" not in xc
        ):  # GGA_X_...+GGA_C_...: libxc's own words
            raise ValueError(f"gpaw.xc {xc} but functional {self.functional} - wanted the same")
        if self.vasp is not None:
            named = {"GGA", "METAGGA", "LHFCALC", "LDAU"} & self.vasp.incar.keys()
            if (plain_functional(self.functional) == "pbe") is bool(named):
                raise ValueError(
                    f"functional {self.functional} with {sorted(named) or 'no GGA or METAGGA'} in vasp.incar - wanted "
                    "PBE (GGA = PE by default), or the tag of another functional"
                )
        return self


def plain_functional(functional: str) -> str:
    """Return the name of a functional without the marks that people write differently."""
    return functional.replace("-", "").replace("_", "").lower()


class Label(Section):
    """The reference and what makes one of its labels acceptable."""

    reference: Reference
    max_force: PositiveFloat = Field(default=50.0, description="A larger force on any atom refuses the label (eV/Å).")
    max_net_force: PositiveFloat = Field(default=0.05, description="Largest |sum of forces| / n_atoms (eV/Å).")
    max_energy_spread: PositiveFloat | None = Field(
        default=5.0, description="Farthest from the median of its formula in the iteration (eV/atom); null: any."
    )
    ledger: str | None = Field(default=None, description="A shared ledger folder; null: labels/ of the campaign.")
