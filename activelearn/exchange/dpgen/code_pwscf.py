"""``fp_style: pwscf``: the namelists of pw.x in ``user_fp_params`` as the section ``espresso``.

DP-GEN's mesh has our spacing rule, with axes of an even number of points shifted by half a step (``monkhorst_pack``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from activelearn.exchange.dpgen import codes
from activelearn.exchange.dpgen.codes import DpgenCode, InputKeys
from activelearn.exchange.dpgen.given import DpgenFolder
from activelearn.exchange.dpgen.told import DpgenReport

#: pw.x's defaults of keys that ours sets to something else: Ry, and steps.
_CONV_THR, _MAX_STEPS = 1.0e-6, 100
_SMEARING: Final = {
    **dict.fromkeys(("gaussian", "gauss", "gau"), "gaussian"),
    **dict.fromkeys(("methfessel-paxton", "m-p"), "methfessel-paxton"),
    **dict.fromkeys(("marzari-vanderbilt", "cold", "m-v"), "cold"),
    **dict.fromkeys(("fermi-dirac", "f-d"), "fermi-dirac"),
}
#: Keys of &control without an effect on the numbers of a single point, and those set for each run.
_CONTROL: Final = (
    *("restart_mode", "outdir", "prefix", "pseudo_dir", "disk_io", "wf_collect", "wfcdir", "verbosity", "title"),
    *("max_seconds", "nstep", "etot_conv_thr", "forc_conv_thr", "tprnfor", "tstress", "iprint", "dt", "lkpoint_dir"),
)
#: Names of functionals with dispersion of their own.
_NON_LOCAL: Final = re.compile(r"vdw|rvv10", re.IGNORECASE)
#: What asks for another physics than that of a neutral, periodic crystal with a density functional.
_OTHER_PHYSICS: Final = (
    *("tot_charge", "noncolin", "lspinorb", "lda_plus_u", "assume_isolated", "nelec", "esm_bc", "lelfield", "lfcp"),
    *("tefield", "edir", "gate", "constrained_magnetization", "starting_spin_angle", "input_cell", "twochem"),
)
_D3_ZERO, _WITHOUT = 3, {"", "none"}


def _section(given: DpgenFolder) -> Mapping[str, Any]:
    found = given.param.get("user_fp_params")
    return found if isinstance(found, Mapping) else {}


def _system(given: DpgenFolder) -> dict[str, Any]:
    found = _section(given).get("system")
    return {str(key).lower(): value for key, value in found.items()} if isinstance(found, Mapping) else {}


def functional_of(given: DpgenFolder) -> str | None:
    """Return what is computed: pw.x's input_dft, else that of the pseudopotentials; None: unknown here."""
    system = _system(given)
    if codes.is_true(system.get("lda_plus_u", False)):
        return None
    dft = system.get("input_dft")
    return codes.named(str(dft)) if dft else codes.functional_of_upf(given)


def has_dispersion(given: DpgenFolder) -> bool:
    """Return whether labels include dispersion; DP-GEN writes ``vdw_corr='TS'`` where it makes the namelists itself."""
    system = _system(given)
    if not _section(given):
        return True
    return str(system.get("vdw_corr", "")).lower() not in _WITHOUT or bool(
        _NON_LOCAL.search(str(system.get("input_dft", "")))
    )


def settings(given: DpgenFolder, functional: str, report: DpgenReport) -> dict[str, Any]:
    """Return the section ``espresso``, and d3."""
    if not _section(given):
        report.refuse(
            "fp_params",
            "DP-GEN adds vdw_corr='TS' to it, dispersion by Tkatchenko and Scheffler, which has no counterpart - "
            "expected user_fp_params - give --reference",
        )
        return {}
    from ase.units import Ry

    made: dict[str, Any] = {
        "pseudo_dir": str(codes.files_folder(given)),
        "pseudopotentials": codes.by_element(given, "fp_pp_files", report),
        "monkhorst_pack": True,
    }
    outer = InputKeys(_section(given), "user_fp_params", report)
    made["kspacing_per_A"] = outer.take("kspacing", "espresso.kspacing_per_A, and monkhorst_pack: the same k-points")
    if made["kspacing_per_A"] is None:
        report.refuse("user_fp_params", "no kspacing, without which DP-GEN does not run - expected it in 1/Å")
    _control(InputKeys(_section(given).get("control"), "user_fp_params.control", report))
    system = InputKeys(_section(given).get("system"), "user_fp_params.system", report)
    electrons = InputKeys(_section(given).get("electrons"), "user_fp_params.electrons", report)
    outer.take("control"), outer.take("system"), outer.take("electrons")
    outer.drop(outer.names(), "no namelist that DP-GEN writes")
    made |= _cutoffs(system) | _smearing(system) | _spins(system, given, report)
    if (dft := system.take("input_dft", "espresso.xc")) is not None:
        made["xc"] = str(dft)
    d3 = _d3(system, functional)
    system.drop(("ibrav", "nat", "ntyp"), "the structure's")
    system.refuse_set(_OTHER_PHYSICS, "has no counterpart - give --reference")
    for name in system.names():
        if "(" in name and len(given.param["type_map"]) > 1:
            system.refuse(name, "numbers a type of each structure; ours are by element - give --reference")
    made["convergence_eV"] = Ry * codes.number(electrons.take("conv_thr", "espresso.convergence_eV", _CONV_THR))
    made["max_scf_steps"] = int(electrons.take("electron_maxstep", "espresso.max_scf_steps", _MAX_STEPS))
    electrons.drop(
        ("scf_must_converge", "startingpot", "startingwfc", "exx_maxstep"), "every run begins and ends alike: see docs"
    )
    # with symmetry pw.x adds points to a shifted mesh that has not the symmetry of the lattice: another energy
    told = {"nosym": codes.is_true(system.take("nosym", "passed on in espresso.input", False))}
    made["input"] = {**told, **system.rest("espresso.input"), **electrons.rest("espresso.input")}
    return {"espresso": made, **d3}


def _control(keys: InputKeys) -> None:
    kind = str(keys.change("calculation", "a single point, as ever", "scf")).lower()
    if kind != "scf":
        keys.refuse("calculation", f"{kind} - expected scf: a label is a single point")
    keys.drop(_CONTROL, "set for each run")
    keys.refuse_set(keys.names(), "has no counterpart - give --reference")


def _cutoffs(keys: InputKeys) -> dict[str, float]:
    from ase.units import Ry

    made = {}
    for name, ours in (("ecutwfc", "ecut_eV"), ("ecutrho", "ecut_density_eV")):
        if (value := keys.take(name, f"espresso.{ours}, Ry to eV")) is not None:
            made[ours] = Ry * codes.number(value)
    if "ecut_eV" not in made:
        keys.refuse("ecutwfc", "missing - expected the cutoff, Ry")
    return made


def _smearing(keys: InputKeys) -> dict[str, Any]:
    from ase.units import Ry

    occupations = str(keys.take("occupations", "espresso.smearing", "fixed")).lower()
    width = keys.take("degauss", "espresso.smearing_eV, Ry to eV")
    kind = codes.smearing_name(keys.take("smearing", "espresso.smearing", "gaussian"))
    if occupations == "fixed":
        return {"smearing": "fixed"}
    if occupations != "smearing":
        keys.refuse("occupations", f"{occupations} - expected smearing or fixed - give --reference")
    elif kind not in _SMEARING:
        keys.refuse("smearing", f"{kind} - expected one of {', '.join(sorted(_SMEARING))}")
    elif not width or codes.number(width) <= 0.0:
        keys.refuse("degauss", "missing, so pw.x has no width - expected it in Ry")
    else:
        return {"smearing": _SMEARING[kind], "smearing_eV": Ry * codes.number(width)}
    return {}


def _spins(keys: InputKeys, given: DpgenFolder, report: DpgenReport) -> dict[str, Any]:
    """Return the keys of spins; pw.x's starting_magnetization is a share of the valence electrons of a type."""
    from activelearn.engines.references import upf

    n_spins = int(keys.take("nspin", "espresso.spin_polarized", 1))
    starts = [name for name in keys.names() if name.startswith("starting_magnetization")]
    if n_spins == 1:
        keys.drop(starts, "without nspin = 2 it is not used")
        return {}
    kinds, files = given.param["type_map"], given.param.get("fp_pp_files") or []
    moments = dict.fromkeys(kinds, 0.0)
    for name in starts:
        (place,) = re.findall(r"\((\d+)\)", name) or ["0"]
        i = int(place) - 1
        path = codes.files_folder(given) / str(files[i]) if 0 <= i < min(len(kinds), len(files)) else None
        if path is None or not path.is_file():
            keys.refuse(name, "a share of the valence electrons, which the UPF file says - expected that file here")
            continue
        moments[kinds[i]] = float(keys.take(name, "espresso.initial_moments, µB")) * float(upf.head(path)["valence"])
    if n_spins != len(("up", "down")):
        keys.refuse("nspin", f"{n_spins} - expected 1 or 2: spins that are not collinear have no counterpart")
    if starts and len(kinds) > 1:
        report.facts.append(
            "starting_magnetization(i): i is taken for the place in type_map, as with all elements there"
        )
    return {"spin_polarized": True, "initial_moments": moments}


def _d3(keys: InputKeys, functional: str) -> dict[str, Any]:
    kind = str(keys.take("vdw_corr", "d3", "none")).lower()
    version = int(keys.take("dftd3_version", "d3.damping", _D3_ZERO))
    has_three_bodies = codes.is_true(keys.take("dftd3_threebody", "d3", True))
    if kind in _WITHOUT:
        return {}
    if kind not in {"grimme-d3", "dft-d3"} or version != _D3_ZERO:
        what = f"{kind}{f' version {version}' if 'd3' in kind else ''}"
        keys.refuse("vdw_corr", f"{what} - expected none, or dft-d3 of version 3 (zero damping) - give --reference")
    elif has_three_bodies:
        keys.refuse("vdw_corr", "with the three-body term (pw.x's default) - expected dftd3_threebody: false")
    return {"d3": {"method": functional, "damping": "zero"}}


CODE: Final = DpgenCode(
    engine="espresso",
    name="QE",
    program="pw.x",
    output="output",
    version=re.compile(r"Program PWSCF v\.(\S+) starts"),
    arguments=re.compile(r"(?:^|\s)-(?:in|i|inp|input)\s+\S+"),
    functional=functional_of,
    has_dispersion=has_dispersion,
    settings=settings,
)
