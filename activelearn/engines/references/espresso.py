"""Quantum ESPRESSO: a single point by pw.x, one process group per job.

The input is written and the output is read in ``workers/espresso_job.py``. Pseudopotentials come from the user's own
folder (UPF files), and their checksums go into the fingerprint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PositiveFloat

from activelearn.config import FolderPath, Machine, Reference, ReferenceEngine
from activelearn.config.bounds import of
from activelearn.config.labelling import plain_functional
from activelearn.config.section import Element
from activelearn.engines.process import Slot
from activelearn.engines.references import single_point, upf
from activelearn.engines.references.single_point import SinglePoint, Tag
from activelearn.errors import problems_of

_SMEARING: Final = {
    "gaussian": "gaussian",
    "fermi-dirac": "fermi-dirac",
    "methfessel-paxton": "mp",
    "cold": "cold",
}
#: Grimme's D3 in pw.x: 3 is zero damping.
_D3: Final = {"zero": 3}
#: What every input has.
_FIXED: Final[dict[str, Tag]] = {
    "calculation": "scf",
    "restart_mode": "from_scratch",
    "prefix": "label",
    "outdir": "./out",
    "pseudo_dir": "./",
    "disk_io": "none",
    "tprnfor": True,
    "tstress": True,
    "ibrav": 0,
    "nosym": True,
}
#: Keys of pw.x that are ours, and where they are set.
_OURS: Final = {
    **dict.fromkeys(("calculation", "nstep", "ion_dynamics"), "a single point here"),
    **dict.fromkeys(("outdir", "prefix", "pseudo_dir", "restart_mode", "max_seconds", "disk_io"), "set for each run"),
    **dict.fromkeys(("tprnfor", "tstress"), "always on: a label has forces and stress"),
    **dict.fromkeys(("ibrav", "nat", "ntyp", "celldm", "a", "b", "c"), "the structure's"),
    **dict.fromkeys(("ecutwfc", "ecutrho"), "espresso.ecut_eV and espresso.ecut_density_eV"),
    **dict.fromkeys(("occupations", "smearing", "degauss"), "espresso.smearing and espresso.smearing_eV"),
    **dict.fromkeys(("nspin", "starting_magnetization"), "espresso.spin_polarized and espresso.initial_moments"),
    **dict.fromkeys(("vdw_corr", "dftd3_version", "dftd3_threebody", "london"), "the reference's d3"),
    **dict.fromkeys(("conv_thr", "electron_maxstep", "scf_must_converge"), "espresso.convergence_eV and max_scf_steps"),
    "input_dft": "espresso.xc",
    "remove_rigid_rot": "none: forces stay as computed",
    "pressure": "none: labels are computed without external pressure",
}


class Espresso(SinglePoint):
    """A single point by pw.x of Quantum ESPRESSO: plane waves and pseudopotentials."""

    pseudo_dir: FolderPath = Field(description="Folder of the pseudopotentials.")
    pseudopotentials: dict[Element, str] = Field(
        min_length=1, description="UPF file of each element: {Si: Si.pbe-n-rrkjus_psl.1.0.0.UPF}."
    )
    ecut_eV: Annotated[PositiveFloat, of("plane-wave cutoff")] = Field(
        description="Plane-wave cutoff of the wave functions (eV; pw.x's ecutwfc is in Ry, 13.6057 eV)."
    )
    ecut_density_eV: Annotated[PositiveFloat, of("cutoff of the density")] | None = Field(
        default=None,
        description="Cutoff of the density (eV); null: four times ecut_eV, too little for ultrasoft and PAW.",
    )
    xc: str | None = Field(
        default=None, description="pw.x's name of the functional (input_dft); null: that of the pseudopotentials."
    )
    monkhorst_pack: bool = Field(
        default=False,
        description="Shift the mesh by half a step along axes with an even number of k-points, as DP-GEN.",
    )
    smearing: Literal["gaussian", "fermi-dirac", "methfessel-paxton", "cold", "fixed"] = Field(
        default="gaussian", description="Smearing of the occupations; cold: Marzari-Vanderbilt; fixed: none."
    )
    convergence_eV: Annotated[PositiveFloat, of("convergence of energies")] = Field(
        default=1.0e-5, description="Estimated error of the energy at which the electronic loop ends (conv_thr, eV)."
    )
    input: dict[str, Tag] = Field(
        default={}, description="More keys of pw.x's namelists: {mixing_beta: 0.3, nosym: false}."
    )


def keys_of(reference: Reference) -> dict[str, Tag]:
    """Return the keys of pw.x's input that are the same for all structures; energies in Ry."""
    from ase.units import Ry

    settings = reference.settings(Espresso)
    keys: dict[str, Tag] = {
        **_FIXED,
        "ecutwfc": settings.ecut_eV / Ry,
        "conv_thr": settings.convergence_eV / Ry,
        "electron_maxstep": settings.max_scf_steps,
    }
    if settings.ecut_density_eV is not None:
        keys["ecutrho"] = settings.ecut_density_eV / Ry
    if settings.xc is not None:
        keys["input_dft"] = settings.xc
    if settings.smearing == "fixed":
        keys["occupations"] = "fixed"
    else:
        keys |= {"occupations": "smearing", "smearing": _SMEARING[settings.smearing]}
        keys["degauss"] = settings.smearing_eV / Ry
    if reference.d3 is not None:
        keys |= {"vdw_corr": "grimme-d3", "dftd3_version": _D3[reference.d3.damping], "dftd3_threebody": False}
    return {**keys, **settings.input}


def ask(reference: Reference, job: str, slot: Slot, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return the answer of one run to one job; see ``workers/espresso_job.py``."""
    paths = files(reference)
    known: dict[str, dict[str, Any]] = {"pseudopotentials": {element: str(path) for element, path in paths.items()}}
    symbols = set(request.get("structure", {}).get("symbols", ()))
    if reference.settings(Espresso).has_spin(symbols):
        there = {element: path for element, path in paths.items() if element in symbols and path.is_file()}
        known["valences"] = {element: upf.head(path)["valence"] for element, path in there.items()}
    shifted = reference.settings(Espresso).monkhorst_pack
    message = {"job": job, "input": keys_of(reference), "monkhorst_pack": shifted, **request}
    return single_point.ask(reference, slot, "espresso_job.py", known, message)


def identity(reference: Reference, _slot: Slot) -> dict[str, Any]:
    """Return version, pseudopotentials by checksum, and the keys of the input.

    Raises
    ------
    ConfigError
        A pseudopotential is missing, another element's, or another functional's.
    """
    sums = {element: _checked(reference, element, path) for element, path in files(reference).items()}
    without = ["pseudo_dir", "pseudopotentials"]
    if not reference.settings(Espresso).monkhorst_pack:  # labels of before this key have the same fingerprint
        without.append("monkhorst_pack")
    return single_point.identity(reference, sums, _FIXED, without=without, d3_version="pw.x, dftd3_version = 3")


def files(reference: Reference) -> dict[str, Path]:
    """Return the path of each element's pseudopotential."""
    settings = reference.settings(Espresso)
    root = Path(settings.pseudo_dir).expanduser().absolute()
    return {element: root / name for element, name in settings.pseudopotentials.items()}


def _checked(reference: Reference, element: str, path: Path) -> dict[str, str]:
    functional = reference.functional if reference.settings(Espresso).xc is None else None
    where = f"{reference.where}.espresso.pseudopotentials.{element}"
    return upf.checked(where, element, path, functional, "or set espresso.xc")


def _check_settings(reference: Reference) -> None:
    settings = reference.settings(Espresso)
    single_point.want_known(reference, settings.xc, upf.FUNCTIONALS, "espresso.xc")
    if settings.xc is not None and plain_functional(settings.xc) != plain_functional(reference.functional):
        raise ValueError(f"espresso.xc {settings.xc} but functional {reference.functional} - expected the same")
    if settings.ecut_density_eV is not None and settings.ecut_density_eV < 4.0 * settings.ecut_eV:
        raise ValueError(
            f"espresso.ecut_density_eV {settings.ecut_density_eV:g} below four times ecut_eV {settings.ecut_eV:g} - "
            "expected 4 times (norm-conserving) to 12 times (ultrasoft)"
        )
    is_polarized = settings.spin_polarized or settings.spin_polarized_for
    if settings.smearing == "fixed" and is_polarized and "tot_magnetization" not in map(str.lower, settings.input):
        raise ValueError(
            "espresso.smearing fixed with polarised spins - pw.x then wants the moment of the cell - expected another "
            "smearing, or input: {tot_magnetization: ...} (µB)"
        )
    single_point.want_free((key.partition("(")[0] for key in settings.input), _OURS, "espresso")
    single_point.want_no_dispersion(reference, settings.input, r"xdm", "espresso")
    if settings.input:
        from ase.io.espresso_namelist.keys import ALL_KEYS

        known = {key for keys in ALL_KEYS["pw"].values() for key in keys}
        unknown = [key for key in settings.input if key.partition("(")[0].lower() not in known]
        if unknown:
            raise ValueError(f"espresso.input: {', '.join(unknown)}: no keys of pw.x's namelists - expected such keys")


def _problems(reference: Reference, machine: Machine, where: str) -> list[str]:
    problems = single_point.lacking_program(reference, machine, where, r"pw\.x")
    return problems + problems_of(_checked, ((reference, *one) for one in files(reference).items()))


ENGINE: Final = ReferenceEngine(
    ask=ask,
    identity=identity,
    needs=frozenset({"command"}),
    settings=Espresso,
    movable=("pseudo_dir",),
    check_settings=_check_settings,
    problems=_problems,
    elements=lambda reference: frozenset(reference.settings(Espresso).pseudopotentials),
)
