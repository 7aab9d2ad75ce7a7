"""``fp_style: cp2k``: the sections of ``user_fp_params``, or of the template ``external_input_path``, as ``cp2k``.

DP-GEN puts the sections of ``user_fp_params`` on top of defaults of its own; a template has CP2K's. Both are written
out where ours differ.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Final

from activelearn.config.labelling import plain_functional
from activelearn.engines.references.cp2k import FUNCTIONALS, merged
from activelearn.exchange.dpgen import codes
from activelearn.exchange.dpgen.codes import DpgenCode, InputKeys
from activelearn.exchange.dpgen.given import DpgenFolder
from activelearn.exchange.dpgen.keys import Fate
from activelearn.exchange.dpgen.told import DpgenReport

#: What stands below user_fp_params in DP-GEN 0.10 to 0.14, of keys that ours sets; cutoffs in Ry.
_DPGENS: Final = {"CUTOFF": 400.0, "REL_CUTOFF": 50.0, "EPS_SCF": 1.0e-6, "MAX_SCF": 50, "EPS_DEFAULT": "1.0E-12"}
#: CP2K's own defaults of them.
_CP2KS: Final = {"CUTOFF": 280.0, "REL_CUTOFF": 40.0, "EPS_SCF": 1.0e-5, "MAX_SCF": 50}
#: CP2K's own R_CUTOFF of D3, Å.
_D3_CUTOFF_A: Final = 10.5835442
_FILES: Final = "cp2k_basis_pp_file"
_SPINS: Final = ("uks", "lsd", "spin_polarized", "unrestricted_kohn_sham")
_QUICKSTEP: Final = {"qs", "quickstep"}
_N_MESH = 3


def _user(given: DpgenFolder) -> tuple[str, Mapping[str, Any]]:
    """Return the sections with names in capital letters, and the key of DP-GEN that has them."""
    for where in ("user_fp_params", "fp_params"):
        if isinstance(given.param.get(where), Mapping):
            return where, merged({}, _sections(given.param[where]))
    return "external_input_path", _template(given)


def _sections(value: Any) -> Any:  # noqa: ANN401 - raw JSON
    """Return sections as our engine has them: one that is given often is a list (DP-GEN: a list for each key)."""
    if not isinstance(value, Mapping):
        return value
    lists = {key: item for key, item in value.items() if isinstance(item, list)}
    if single := [key for key in value if key not in lists] if lists else []:
        raise ValueError(
            f"user_fp_params: {single[0]} is one value beside lists ({', '.join(map(str, lists))}) - expected a list, "
            "too, with a value for each of the sections"
        )
    if lists:
        return [_sections(dict(zip(lists, row, strict=True))) for row in zip(*lists.values(), strict=True)]
    return {str(key): _sections(item) for key, item in value.items()}


def _template(given: DpgenFolder) -> Mapping[str, Any]:
    """Return the sections of an input file of CP2K; empty: there is none."""
    from ase.calculators.cp2k import InputSection, parse_input

    name = given.param.get("external_input_path")
    path = given.path(name) if isinstance(name, str) else None
    if path is None or not path.is_file():
        return {}
    lines = [" ".join(line.split("#")[0].split()) for line in path.read_text(errors="replace").splitlines()]
    if other := [line for line in lines if line.startswith("@") and not line.upper().startswith("@INCLUDE")]:
        raise ValueError(
            f"{path.name}: {other[0]}: preprocessor lines are not read - expected the lines that they make"
        )

    def tree(section: InputSection) -> dict[str, Any]:
        found: dict[str, Any] = {} if section.params is None else {"_": section.params}
        for line in section.keywords:
            key, _, value = line.partition(" ")
            found[key.upper()] = value
        for below in section.subsections:
            old, new = found.get(below.name), tree(below)
            found[below.name] = new if old is None else [*(old if isinstance(old, list) else [old]), new]
        return found

    return tree(parse_input("\n".join(lines)))


def _below(tree: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    found: Any = tree
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def functional_of(given: DpgenFolder) -> str | None:
    """Return what is computed, where XC_FUNCTIONAL is one that our engine writes alike; None: unknown here."""
    where, tree = _user(given)
    section = _below(tree, "FORCE_EVAL", "DFT", "XC")
    usual = {"_": "PBE"} if where != "external_input_path" else None
    own = section.get("XC_FUNCTIONAL", usual)
    if "HF" in section or "PLUS_U_METHOD" in _below(tree, "FORCE_EVAL", "DFT"):
        return None
    if isinstance(own, Mapping) and "_" in own:
        own = {**own, "_": str(own["_"]).upper()}
    same = next((plain for plain, words in FUNCTIONALS.items() if merged({}, words) == own), None)
    if same is None and isinstance(own, Mapping) and own.keys() == {"_", "PBE"} and own["_"] in {"NONE", ""}:
        same = next((plain for plain, words in FUNCTIONALS.items() if merged({}, words) == {"PBE": own["PBE"]}), None)
    return None if same is None else codes.named(same)


def has_dispersion(given: DpgenFolder) -> bool:
    """Return whether labels include dispersion."""
    found = _below(_user(given)[1], "FORCE_EVAL", "DFT", "XC", "VDW_POTENTIAL")
    return bool(found) and not codes.is_off(found.get("POTENTIAL_TYPE", found.get("DISPERSION_FUNCTIONAL")))


def settings(given: DpgenFolder, functional: str, report: DpgenReport) -> dict[str, Any]:
    """Return the section ``cp2k``, and d3."""
    where, tree = _user(given)
    if not tree:
        report.refuse("user_fp_params", "no input of CP2K - expected its sections, or a file external_input_path")
        return {}
    is_template = where == "external_input_path"
    usual = _CP2KS if is_template else _DPGENS
    if is_template:
        report.say(where, Fate.TAKEN, "its sections: see the campaign's label.reference")
    at = f"{where}.FORCE_EVAL"
    force, sections = _below(tree, "FORCE_EVAL"), _below(tree, "FORCE_EVAL", "DFT")
    outer, dft = InputKeys(force, at, report), InputKeys(sections, f"{at}.DFT", report)
    made = _kinds(InputKeys(force.get("SUBSYS"), f"{at}.SUBSYS", report), given, report)
    made |= _files(dft, given, report)
    ours: dict[str, Any] = {}
    made |= _grid(InputKeys(sections.get("MGRID"), f"{at}.DFT.MGRID", report), usual, ours)
    made |= _loop(InputKeys(sections.get("SCF"), f"{at}.DFT.SCF", report), usual, ours)
    made |= _k_points(InputKeys(sections.get("KPOINTS"), f"{at}.DFT.KPOINTS", report))
    d3 = _xc(InputKeys(sections.get("XC"), f"{at}.DFT.XC", report), functional, functional_of(given), ours)
    made |= d3.pop("cp2k", {})
    made |= _electrons(dft, given)
    for name in ("mgrid", "scf", "kpoints", "xc"):
        dft.take(name)
    if str(_below(sections, "POISSON").get("PERIODIC", "XYZ")).upper() != "XYZ":
        dft.refuse("poisson", "not periodic - expected PERIODIC XYZ")
    if not is_template:
        ours["QS"] = {"EPS_DEFAULT": usual["EPS_DEFAULT"], **(dft.take("qs", "passed on in cp2k.input") or {})}
    dft.drop(("print", "wfn_restart_file_name"), "set for each run")
    ours |= dft.rest("cp2k.input")
    _others(outer)
    made["input"] = _globals(tree, where, report)
    force_eval = {**outer.rest("cp2k.input"), **({"DFT": ours} if ours else {})}
    made["input"] |= {"FORCE_EVAL": force_eval} if force_eval else {}
    return {"cp2k": made, **d3}


def _others(outer: InputKeys) -> None:
    outer.take("dft"), outer.take("subsys")
    if str(outer.take("method", "Quickstep", "qs")).lower() not in _QUICKSTEP:
        outer.refuse("method", "expected QS: no other method has a counterpart")
    outer.drop(("stress_tensor", "print"), "always on, analytical")


def _globals(tree: Mapping[str, Any], where: str, report: DpgenReport) -> dict[str, Any]:
    """Return what is passed on of GLOBAL; report the other sections of the input."""
    keys = InputKeys(tree.get("GLOBAL"), f"{where}.GLOBAL", report)
    keys.drop(("project", "project_name", "run_type", "print_level", "walltime"), "set for each run")
    others = InputKeys(tree, where, report)
    others.take("force_eval"), others.take("global")
    others.drop(("motion", "ext_restart"), "a single point from scratch")
    for name in others.names():
        others.refuse(name, "has no counterpart - give --reference")
    left = keys.rest("cp2k.input")
    return {"GLOBAL": left} if left else {}


def _kinds(keys: InputKeys, given: DpgenFolder, report: DpgenReport) -> dict[str, Any]:
    """Return basis sets and pseudopotentials by element."""
    kinds = keys.take("kind", "cp2k.basis, cp2k.potentials") or []
    keys.drop(("cell", "coord"), "the structure's")
    for name in keys.names():
        keys.refuse(name, "has no counterpart - give --reference")
    found = {str(kind.get("_")): kind for kind in (kinds if isinstance(kinds, list) else [kinds])}
    elements = list(given.param["type_map"])
    if lacking := [kind for kind in elements if kind not in found]:
        keys.refuse("kind", f"none for {', '.join(lacking)} - expected BASIS_SET and POTENTIAL of every element")
        return {}
    made: dict[str, Any] = {"basis": {}, "potentials": {}}
    for kind in elements:
        own = InputKeys({key: value for key, value in found[kind].items() if key != "_"}, f"{keys.where}.KIND", report)
        for name, ours in (("basis_set", "basis"), ("potential", "potentials")):
            if (value := own.take(name, f"cp2k.{ours}")) is None:
                own.refuse(name, f"none for {kind} - expected its name")
            else:  # "ORB DZVP-..." and "GTH GTH-PBE-..." are their long forms
                made[ours][kind] = str(value).split()[-1]
        own.drop(
            [name for name in own.names() if name == "element" and str(own.take(name)) == kind], "its name says so"
        )
        for name in own.names():
            own.refuse(name, "has no counterpart - give --reference")
    return made


def _files(dft: InputKeys, given: DpgenFolder, report: DpgenReport) -> dict[str, Any]:
    """Return where basis sets and pseudopotentials are: one folder, and names in it or full paths."""
    made: dict[str, Any] = {}
    folder = None
    for key, ours, usual in (
        ("basis_set_file_name", "basis_files", f"./{_FILES}/BASIS_MOLOPT"),
        ("potential_file_name", "potential_files", f"./{_FILES}/GTH_POTENTIALS"),
    ):
        path = PurePath(str(dft.take(key, f"cp2k.data_dir, cp2k.{ours}", usual)))
        here = given.path(str(path.parent))
        folder = folder or here
        made[ours] = [path.name if here == folder else str(here / path.name)]
        if not (here / path.name).is_file():
            report.facts.append(
                f"no file {here / path.name} - expected CP2K's data there: correct label.reference.cp2k.data_dir"
            )
    return {"data_dir": str(folder), **made}


def _grid(keys: InputKeys, usual: Mapping[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    from ase.units import Hartree, Ry

    made = {}
    for name in ("cutoff", "rel_cutoff"):
        value = str(keys.take(name, f"cp2k.{name}_eV, Ry to eV", usual[name.upper()]))
        unit, words = re.fullmatch(r"(?:\[(\w+)\])?\s*(\S+)", value.strip()).groups()  # type: ignore[union-attr]
        factor = {"ry": Ry, "ev": 1.0, "hartree": Hartree}.get((unit or "Ry").lower(), math.nan)
        made[f"{name}_eV"] = factor * codes.number(words)
    if left := keys.rest("cp2k.input"):
        ours["MGRID"] = left
    return made


def _loop(keys: InputKeys, usual: Mapping[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    from ase.units import kB

    made: dict[str, Any] = {
        "eps_scf": codes.number(keys.take("eps_scf", "cp2k.eps_scf", usual["EPS_SCF"])),
        "max_scf_steps": int(keys.take("max_scf", "cp2k.max_scf_steps", usual["MAX_SCF"])),
        "smearing": "fixed",
    }
    smear = keys.take("smear", "cp2k.smearing, cp2k.smearing_eV, K to eV")
    if isinstance(smear, Mapping) and str(smear.get("_")).strip(".").upper() not in {"F", "FALSE", "OFF", "NO"}:
        own = {str(key).lower(): value for key, value in smear.items()}
        if str(own.get("method", "")).lower() != "fermi_dirac" or not codes.is_true(own.get("_", "")):
            keys.refuse("SMEAR", "expected ON, with METHOD FERMI_DIRAC: no other one has a counterpart")
        words = str(own.get("electronic_temperature", own.get("electronic_temp", 300.0))).replace("[K]", "")
        made |= {"smearing": "fermi-dirac", "smearing_eV": kB * codes.number(words)}
    keys.drop(("scf_guess", "print", "ignore_convergence_failure"), "every run begins and ends alike: see docs")
    if left := keys.rest("cp2k.input"):
        ours["SCF"] = left
    return made


def _k_points(keys: InputKeys) -> dict[str, Any]:
    """Return the mesh: ours are Gamma-centred, which Monkhorst and Pack's are where a number is odd."""
    words = str(keys.take("scheme", "cp2k.kpoints", "GAMMA")).split()
    keys.drop(
        ("symmetry", "full_grid", "verbose", "parallel_group_size", "eps_geo", "wavefunctions"), "the same numbers"
    )
    for name in keys.names():
        keys.refuse(name, "has no counterpart - give --reference")
    kind, numbers = words[0].upper(), [codes.number(word) for word in words[1:]]
    if kind in {"GAMMA", "NONE"}:
        return {"kpoints": [1, 1, 1]}
    mesh, shifts = [int(n) for n in numbers[:_N_MESH]], numbers[_N_MESH:]
    centred = [0.0 if n % 2 else 0.5 / n for n in mesh]
    is_ours = kind == "MONKHORST-PACK" and all(n % 2 for n in mesh) and len(mesh) == _N_MESH
    is_ours |= kind == "MACDONALD" and all(
        math.isclose(*pair, abs_tol=1e-8) for pair in zip(shifts, centred, strict=True)
    )
    if not is_ours:
        keys.refuse("SCHEME", f"{' '.join(words)} - expected a Gamma-centred mesh - give --reference")
    return {"kpoints": mesh}


def _electrons(dft: InputKeys, given: DpgenFolder) -> dict[str, Any]:
    """Return the keys of spins; DP-GEN's multiplicity is 1, or 2 where the number of electrons is odd."""
    dft.refuse_set(("charge",), "charged cells have no counterpart")
    said = [dft.take(name, "cp2k.spin_polarized", "F") for name in _SPINS]
    has_spin = any(map(codes.is_true, said))
    multiplicity = int(dft.take("multiplicity", "cp2k.initial_moments: moments of 0", 1) or 1)
    if has_spin and multiplicity != 1:
        dft.refuse(
            "MULTIPLICITY", f"{multiplicity} for all structures - expected none, or initial_moments - give --reference"
        )
    moments = dict.fromkeys(given.param["type_map"], 0.0)
    return {"spin_polarized": True, "initial_moments": moments} if has_spin else {}


def _xc(keys: InputKeys, functional: str, read: str | None, ours: dict[str, Any]) -> dict[str, Any]:
    """Return d3 and its cutoff; a functional that our engine does not write is passed on."""
    own = keys.take("xc_functional", "functional")
    vdw = keys.take("vdw_potential", "d3")
    left = keys.rest("cp2k.input")
    if read is None and own is not None:
        left["XC_FUNCTIONAL"] = own
    if left:
        ours["XC"] = left
    if not isinstance(vdw, Mapping):
        return {}
    pair = vdw.get("PAIR_POTENTIAL")
    found = {str(key): str(value) for key, value in pair.items()} if isinstance(pair, Mapping) else {}
    known = {"TYPE", "PARAMETER_FILE_NAME", "REFERENCE_FUNCTIONAL", "R_CUTOFF", "CALCULATE_C9_TERM", "VERBOSE_OUTPUT"}
    method = found.get("REFERENCE_FUNCTIONAL", "")
    is_ours = found.get("TYPE") == "DFTD3" and not codes.is_true(found.get("CALCULATE_C9_TERM", "F"))
    if not is_ours or found.keys() - known or plain_functional(method) != plain_functional(functional):
        keys.refuse(
            "VDW_POTENTIAL",
            f"expected D3 with zero damping (TYPE DFTD3) and the parameters of {functional}, without the three-body "
            f"term, and of other keys none but {', '.join(sorted(known))} - give --reference",
        )
    cutoff = codes.number(re.sub(r"\[angstrom\]", "", found.get("R_CUTOFF", str(_D3_CUTOFF_A)), flags=re.IGNORECASE))
    return {"d3": {"method": codes.named(method), "damping": "zero"}, "cp2k": {"d3_cutoff_A": cutoff}}


CODE: Final = DpgenCode(
    engine="cp2k",
    name="CP2K",
    program="cp2k.psmp",
    output="output",
    version=re.compile(r"CP2K\| version string:\s+CP2K version (\S+)"),
    arguments=re.compile(r"(?:^|\s)(?:-[io]\s+)?\S+\.(?:inp|out)\b|\s-o\s+\S+"),
    functional=functional_of,
    has_dispersion=has_dispersion,
    settings=settings,
)
