"""``fp_style: abacus``: the keys of INPUT and the mesh of KPT as the section ``abacus``.

ABACUS' kspacing is in 1/bohr with 2 pi in it; its meshes are Gamma-centred unless a shift is given, as ours are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from activelearn.config.labelling import plain_functional
from activelearn.engines.references.abacus import D3_OF_PBE, FUNCTIONALS
from activelearn.exchange.dpgen import codes
from activelearn.exchange.dpgen.codes import DpgenCode, InputKeys
from activelearn.exchange.dpgen.given import DpgenFolder
from activelearn.exchange.dpgen.keys import Fate
from activelearn.exchange.dpgen.told import DpgenReport

_SMEARING: Final = {
    **dict.fromkeys(("gauss", "gaussian"), "gaussian"),
    **dict.fromkeys(("cold", "m-v"), "cold"),
    "f-d": "fermi-dirac",
    "m-p": "methfessel-paxton",
    "fixed": "fixed",
}
#: ABACUS' defaults: of scf_thr by basis, of the width in Ry, of steps.
_SCF_THR: Final = {"pw": 1.0e-9, "lcao": 1.0e-7}
_WIDTH, _MAX_STEPS = 0.015, 100
#: Keys that are set for each run, or have no effect on its numbers.
_OF_A_RUN: Final = (
    *("suffix", "calculation", "cal_force", "cal_stress", "pseudo_dir", "orbital_dir", "stru_file", "kpoint_file"),
    *("ntype", "out_chg", "out_level", "out_stru", "out_pot", "out_bandgap", "out_band", "out_dos", "symmetry_prec"),
    *("init_chg", "init_wfc", "read_file_dir", "device"),
)
_OTHER_PHYSICS: Final = (
    *("deepks_scf", "deepks_out_labels", "deepks_model", "deepks_descriptor_lmax", "noncolin", "lspinorb", "nelec"),
    *(
        "dft_plus_u",
        "efield_flag",
        "dip_cor_flag",
        "gate_flag",
        "imp_sol",
        "nelec_delta",
        "sc_mag_switch",
    ),
)
_DFT: Final = "ksdft"
_N_MESH = 6


def _input(given: DpgenFolder) -> tuple[str, Mapping[str, Any]]:
    """Return the keys of INPUT and the key of DP-GEN that has them: user_fp_params, else the file fp_incar."""
    own = given.param.get("user_fp_params")
    if isinstance(own, Mapping):
        return "user_fp_params", own
    name = given.param.get("fp_incar")
    path = given.path(name) if isinstance(name, str) else None
    if path is None or not path.is_file():
        return "fp_incar", {}
    lines = (
        line.split("#")[0].split("//")[0].split(maxsplit=1) for line in path.read_text(errors="replace").splitlines()
    )
    return "fp_incar", {words[0]: words[1].strip() for words in lines if len(words) > 1}


def _lower(given: DpgenFolder) -> dict[str, Any]:
    return {str(key).lower(): value for key, value in _input(given)[1].items()}


def functional_of(given: DpgenFolder) -> str | None:
    """Return what is computed: dft_functional, else that of the pseudopotentials; None: unknown here."""
    keys = _lower(given)
    if not codes.is_off(keys.get("dft_plus_u", 0)):
        return None
    dft = keys.get("dft_functional")
    if not dft or str(dft).lower() == "default":
        return codes.functional_of_upf(given)
    known = next((plain for plain, words in FUNCTIONALS.items() if words.lower() == str(dft).lower()), None)
    return codes.named(known or str(dft))


def has_dispersion(given: DpgenFolder) -> bool:
    """Return whether labels include dispersion."""
    return not codes.is_off(_lower(given).get("vdw_method"))


def settings(given: DpgenFolder, functional: str, report: DpgenReport) -> dict[str, Any]:
    """Return the section ``abacus``, and d3."""
    where, section = _input(given)
    if not section:
        report.refuse(where, "no INPUT of ABACUS - expected its keys in user_fp_params, or a file fp_incar")
        return {}
    from ase.units import Ry

    keys = InputKeys(section, where, report)
    made = _files(keys, given, report)
    if (cutoff := keys.take("ecutwfc", "abacus.ecut_eV, Ry to eV")) is None:
        keys.refuse("ecutwfc", "missing, and its default depends on the version - expected the number, Ry")
    else:
        made["ecut_eV"] = Ry * codes.number(cutoff)
    made |= _own_functional(keys, functional) | _smearing(keys) | _k_points(keys, given, report) | _spins(keys)
    made["scf_thr"] = codes.number(keys.take("scf_thr", "abacus.scf_thr", _SCF_THR.get(made["basis"], 0.0)))
    made["max_scf_steps"] = int(codes.number(keys.take("scf_nmax", "abacus.max_scf_steps", _MAX_STEPS)))
    d3 = _d3(keys, functional)
    keys.drop(("symmetry",), "only that of time (0): structures of walks have no other")
    keys.drop(_OF_A_RUN, "set for each run")
    if str(keys.change("esolver_type", "a density functional", _DFT)).lower() != _DFT:
        keys.refuse("esolver_type", f"expected {_DFT}")
    keys.refuse_set(_OTHER_PHYSICS, "has no counterpart - give --reference")
    if given.param.get("fp_dpks_descriptor"):
        report.say("fp_dpks_descriptor", Fate.LEFT_OUT, "DeePKS has no counterpart")
    made["input"] = keys.rest("abacus.input")
    if where == "fp_incar":
        report.say("fp_incar", Fate.TAKEN, "its keys: see the campaign's label.reference")
    return {"abacus": made, **d3}


def _files(keys: InputKeys, given: DpgenFolder, report: DpgenReport) -> dict[str, Any]:
    """Return basis, pseudopotentials and orbitals."""
    basis = str(keys.take("basis_type", "abacus.basis", "pw")).lower()
    if basis not in _SCF_THR:
        keys.refuse("basis_type", f"{basis} - expected pw or lcao - give --reference")
    made: dict[str, Any] = {
        "basis": basis,
        "pseudo_dir": str(codes.files_folder(given)),
        "pseudopotentials": codes.by_element(given, "fp_pp_files", report),
    }
    if basis == "lcao":
        made["orbital_dir"] = made["pseudo_dir"]
        made["orbitals"] = codes.by_element(given, "fp_orb_files", report)
    elif given.param.get("fp_orb_files"):
        report.say("fp_orb_files", Fate.LEFT_OUT, "plane waves have no orbitals")
    return made


def _own_functional(keys: InputKeys, functional: str) -> dict[str, str]:
    """Return ABACUS' name of a functional where ours is another one."""
    dft = str(keys.take("dft_functional", "functional, abacus.xc", "default"))
    is_ours = FUNCTIONALS.get(plain_functional(functional)) == dft.upper()
    return {} if is_ours or dft.lower() == "default" else {"xc": dft}


def _smearing(keys: InputKeys) -> dict[str, Any]:
    from ase.units import Ry

    kind = codes.smearing_name(keys.take("smearing_method", "abacus.smearing", ""))
    width = keys.take("smearing_sigma", "abacus.smearing_eV, Ry to eV", _WIDTH)
    keys.refuse_set(("smearing_sigma_temp",), "expected smearing_sigma, Ry, in its place")
    if kind not in _SMEARING:
        what = kind or "missing, and its default depends on the version"
        keys.refuse("smearing_method", f"{what} - expected one of {', '.join(sorted(_SMEARING))}")
        return {}
    made = {"smearing": _SMEARING[kind]}
    return made if kind == "fixed" else {**made, "smearing_eV": Ry * codes.number(width)}


def _k_points(keys: InputKeys, given: DpgenFolder, report: DpgenReport) -> dict[str, Any]:
    """Return the mesh, which DP-GEN takes from kspacing, gamma_only, k_points and fp_kpt_file, the first of them."""
    from ase.units import Bohr

    kind = str(keys.take("kmesh_type", "Gamma-centred", "gamma")).lower()
    keys.refuse_set(("koffset",), "shifts the mesh, and ours is Gamma-centred - give --reference")
    if kind != "gamma":
        keys.refuse("kmesh_type", f"{kind} - expected gamma: our meshes are Gamma-centred - give --reference")
    spacing = keys.take("kspacing", "abacus.kspacing_per_A, 1/bohr to 1/Å")
    is_gamma = codes.is_true(keys.take("gamma_only", "abacus.kpoints", 0))
    others = [key for key in ("k_points", "fp_kpt_file") if given.param.get(key)]
    if not codes.is_off(spacing):
        words = spacing if isinstance(spacing, list) else str(spacing).split()
        spacings = {codes.number(word) for word in words}
        _unused(others, "kspacing", report)
        if len(spacings) != 1:
            keys.refuse("kspacing", "differs by axis - expected one number, 1/bohr - give --reference")
        elif is_gamma:
            keys.refuse(
                "gamma_only", "beside kspacing: which of them counts depends on the basis - expected one of them"
            )
        return {"kspacing_per_A": min(spacings) / Bohr}
    if is_gamma or not others:
        _unused(others, "gamma_only", report)
        return {"kpoints": [1, 1, 1]}
    _unused(others[1:], others[0], report)
    mesh = given.param["k_points"] if others[0] == "k_points" else _of_file(given)
    report.say(others[0], Fate.TAKEN, "abacus.kpoints")
    if not isinstance(mesh, list) or len(mesh) != _N_MESH or any(codes.number(x) for x in mesh[3:]):
        report.refuse(others[0], "expected a Gamma-centred mesh, n1 n2 n3 0 0 0 - give --reference")
        return {}
    return {"kpoints": [int(n) for n in mesh[:3]]}


def _unused(names: list[str], first: str, report: DpgenReport) -> None:
    for name in names:
        report.say(name, Fate.LEFT_OUT, f"{first} stands before it, as in DP-GEN")


def _of_file(given: DpgenFolder) -> list[str] | None:
    """Return the six numbers of a KPT file with a Gamma-centred mesh; None: it has something else."""
    path = given.path(str(given.param["fp_kpt_file"]))
    text = path.read_text(errors="replace") if path.is_file() else ""
    rows = [words for line in text.splitlines() if (words := line.split("#")[0].split("//")[0].split())]
    is_mesh = len(rows) > _N_MESH // 2 and rows[1] == ["0"]
    numbers = rows[3][:_N_MESH] if is_mesh else []
    is_gamma = is_mesh and (
        rows[2][0].lower() == "gamma"
        or (rows[2][0].lower() in {"mp", "monkhorst-pack"} and all(int(n) % 2 for n in numbers[:3]))
    )
    return numbers if is_gamma else None


def _spins(keys: InputKeys) -> dict[str, Any]:
    """Return whether spins are polarised; DP-GEN's STRU has moments of zero, for which ABACUS begins with 1 each."""
    n_spins = int(codes.number(keys.take("nspin", "abacus.spin_polarized", 1)))
    if n_spins not in {1, 2}:
        keys.refuse("nspin", f"{n_spins} - expected 1 or 2: spins that are not collinear have no counterpart")
    return {"spin_polarized": True} if n_spins == 2 else {}


def _d3(keys: InputKeys, functional: str) -> dict[str, Any]:
    kind = str(keys.take("vdw_method", "d3", "none")).lower()
    own = {name: keys.take(name, "d3") for name in D3_OF_PBE if name in keys}
    if codes.is_off(kind):
        return {}
    if kind != "d3_0" or plain_functional(functional) != "pbe":
        keys.refuse("vdw_method", f"{kind} of {functional} - expected none, or d3_0 of PBE - give --reference")
    for name, value in own.items():
        ours = D3_OF_PBE[name]
        same = codes.is_true(value) == bool(ours) if name == "vdw_abc" else codes.number(value) == ours
        if not same and str(value).lower() != "default":
            keys.refuse(name, f"{value} - expected {ours}, the parameter of PBE - give --reference")
    return {"d3": {"method": functional, "damping": "zero"}}


CODE: Final = DpgenCode(
    engine="abacus",
    name="ABACUS",
    program="abacus",
    output="OUT.ABACUS/running_scf.log",
    version=re.compile(r"^\s+ABACUS v(\S+)"),
    arguments=re.compile(r"(?!)"),
    functional=functional_of,
    has_dispersion=has_dispersion,
    settings=settings,
)
