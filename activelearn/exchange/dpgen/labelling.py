"""The reference: INCAR and POTCARs of DP-GEN as the section ``label``; and that of existing labels, from its files.

A reference is more than its INCAR: tags that DP-GEN's INCAR leaves to VASP are written out if our defaults
differ, so that the same input is computed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from activelearn.config.engine import REFERENCES
from activelearn.engines.references.vasp import INCAR
from activelearn.exchange.dpgen import code_abacus, code_cp2k, code_pwscf, codes
from activelearn.exchange.dpgen.given import DpgenFolder
from activelearn.exchange.dpgen.keys import Fate
from activelearn.exchange.dpgen.told import DpgenReport

#: VASP's own defaults (VASP wiki, 6.4) of tags that our INCAR sets to something else.
_VASPS: Final[Mapping[str, Any]] = {"EDIFF": 1.0e-4, "ISMEAR": 1, "SIGMA": 0.2}
#: Tags of an INCAR that belong to MD and relaxations, or are set by other keys.
_NOT_OURS: Final = {
    *("SYSTEM", "NSW", "IBRION", "ISIF", "EDIFFG", "POTIM", "PSTRESS", "IVDW", "LWAVE", "LCHARG", "NWRITE", "ISTART"),
    *("ICHARG", "NBLOCK", "SMASS", "TEBEG", "TEEND"),
}
_GGA: Final = {"PE": "PBE", "PS": "PBEsol", "RP": "RPBE", "91": "PW91", "AM": "AM05"}
#: Tags that our engine does not allow for PBE, since each means another functional.
_NAMING: Final = ("METAGGA", "LHFCALC", "LDAU")
#: IVDW without dispersion, and with D3 with zero damping, which a reference adds itself.
_NO_IVDW, _D3_ZERO = 0, 11
_VERSION: Final = re.compile(r"vasp\.(\d+\.\d+\.\d+)")
#: By fp_style, the codes whose input is translated; VASP's is here.
CODES: Final = {"pwscf": code_pwscf.CODE, "cp2k": code_cp2k.CODE, "abacus": code_abacus.CODE}
_EXAMPLE: Final = "--declare functional=PBE,includes_dispersion=false,code=VASP-6.4.2"


@dataclass(frozen=True)
class Incar:
    """The tags of an INCAR, by upper-case name; each a number, a boolean, a list of them, or a text."""

    tags: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Incar:
        """Return the tags of a file; comments begin with ``#`` or ``!``, and ``;`` separates tags on a line."""
        text = path.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ")
        lines = (re.split(r"[#!]", line, maxsplit=1)[0] for line in text.splitlines())
        pairs = (part.partition("=") for line in lines for part in line.split(";"))
        return cls({name.strip().upper(): _value(value.strip()) for name, equals, value in pairs if equals})

    @property
    def functional(self) -> str:
        """Its name, as far as the tags determine it; a POTCAR that is not PAW_PBE is refused by the engine."""
        base = str(self.tags.get("METAGGA", "")).replace("R2SCAN", "r2SCAN")
        if not base or base in {"NONE", "--"}:
            base = _GGA.get(str(self.tags.get("GGA", "PE")), str(self.tags.get("GGA")))
        if self.tags.get("LHFCALC") is True:
            base = "HSE06" if float(self.tags.get("HFSCREEN", 0.0)) > 0.0 else f"{base}0"
        return f"{base}+U" if self.tags.get("LDAU") is True else base

    @property
    def ivdw(self) -> int:
        """The kind of dispersion."""
        return int(self.tags.get("IVDW", _NO_IVDW)) or int(bool(self.tags.get("LUSE_VDW")))


def _value(text: str) -> Any:  # noqa: ANN401 - of an INCAR
    words = [_word(word) for word in text.split()]
    if len(words) == 1:
        return words[0]
    return words if words and not any(isinstance(word, str) for word in words) else text


def _word(word: str) -> Any:  # noqa: ANN401 - of an INCAR
    if re.fullmatch(r"\.?(T|TRUE)\.?", word, re.IGNORECASE):
        return True
    if re.fullmatch(r"\.?(F|FALSE)\.?", word, re.IGNORECASE):
        return False
    for kind in (int, float):
        try:
            return kind(re.sub(r"(?<=\d)[dD](?=[-+]?\d)", "e", word))
        except ValueError:
            continue
    return word.upper() if word.isalnum() else word


def incar_of(given: DpgenFolder) -> Incar | None:
    """Return the INCAR of a run with VASP labels, if it exists."""
    name = given.param.get("fp_incar")
    path = None if not isinstance(name, str) else given.path(name)
    return Incar.read(path) if given.param.get("fp_style") == "vasp" and path is not None and path.is_file() else None


def version_of(given: DpgenFolder) -> str | None:
    """Return the version of VASP that labelled, from the first output."""
    for output in sorted(given.folder.glob("iter.*/02.fp/task.*/OUTCAR")):
        with output.open(encoding="utf-8", errors="replace") as lines:
            found = _VERSION.search(next(lines, ""))
        if found:
            return found[1]
    return None


def what_labelled(given: DpgenFolder, report: DpgenReport) -> str | None:
    """Return what labelled, in the form of ``--declare``, from the files of the run; None: it must be declared."""
    style = given.param.get("fp_style")
    if style in CODES:
        return _what_code_labelled(given, report)
    incar, version = incar_of(given), version_of(given)
    if incar is None or version is None:
        lacking = "no INCAR" if style == "vasp" and incar is None else "no OUTCAR with a version"
        why = lacking if style == "vasp" else f"fp_style {style} does not determine its functional"
        report.refuse("fp_style", f"{why}, and a label needs its reference - expected {_EXAMPLE}")
        return None
    dispersion = "true" if incar.ivdw else "false"
    return f"functional={incar.functional},includes_dispersion={dispersion},code=VASP-{version}"


def _what_code_labelled(given: DpgenFolder, report: DpgenReport) -> str | None:
    code = CODES[given.param["fp_style"]]
    functional, version = code.functional(given), codes.version_of(given, code, {})
    if functional is None or version is None:
        lacking = "its functional is not known" if functional is None else f"no {code.output} with a version"
        report.refuse("fp_style", f"{lacking}, and a label needs its reference - expected {_example(code)}")
        return None
    dispersion = "true" if code.has_dispersion(given) else "false"
    return f"functional={functional},includes_dispersion={dispersion},code={code.name}-{version}"


def _example(code: codes.DpgenCode) -> str:
    return f"--declare functional=PBE,includes_dispersion=false,code={code.name}-VERSION (as {code.name} prints it)"


def _label_of_code(given: DpgenFolder, declared: str | None, report: DpgenReport) -> dict[str, Any]:
    """Return the section ``label`` of a run whose labels are by a code of :data:`CODES`."""
    code = CODES[given.param["fp_style"]]
    said = {
        key.strip(): value.strip() for key, _, value in (part.partition("=") for part in (declared or "").split(","))
    }
    version = codes.version_of(given, code, said)
    functional = code.functional(given) or said.get("functional")
    if (version is None or functional is None) and not report.refused:
        report.refuse("fp_style", f"functional or version is not known - expected {_example(code)}")
    made = code.settings(given, functional or "PBE", report)  # all that is refused is said together
    if not report.refused:
        made[code.engine]["version"] = version
    return {
        "reference": {
            "engine": code.engine,
            "command": codes.command_of(given, code, report),
            "functional": functional,
            "includes_dispersion": code.has_dispersion(given) and "d3" not in made,
            "deterministic": False,
            **made,
        }
    }


def label_of(given: DpgenFolder, declared: str | None, report: DpgenReport) -> dict[str, Any]:
    """Return the section ``label`` of a run whose input is translated.

    Parameters
    ----------
    given, report
        DP-GEN's input, and the report.
    declared
        What labelled, in the form of ``--declare``: its ``code=VASP-6.4.2`` gives the version if there is no output.
    """
    style, incar = given.param.get("fp_style"), incar_of(given)
    if style in CODES:
        return _label_of_code(given, declared, report)
    if style != "vasp" or incar is None:
        what = "no INCAR at fp_incar" if style == "vasp" else f"{style} is not supported"
        there = ", ".join(REFERENCES.names())
        report.refuse(
            "fp_style",
            f"{what} - expected a reference for new labels, with the same settings (available engines: {there}) - "
            "give --reference, a preset of params/label/ or a YAML like one",
        )
        return {}
    version = version_of(given) or _declared_version(declared)
    if version is None:
        report.refuse("fp_style", f"no OUTCAR gives the version of VASP - expected {_EXAMPLE}")
    potcars = potcars_of(given, report)
    reference: dict[str, Any] = {
        "engine": "vasp",
        "command": _command(given),
        "vasp": {
            "version": version,
            "potcar_dir": None,
            "potcars": dict.fromkeys(potcars),
            "incar": _tags(incar, report),
        },
        "functional": incar.functional,
        "includes_dispersion": False,
        "deterministic": False,
    }
    if incar.ivdw == _D3_ZERO:
        reference["d3"] = {"method": incar.functional, "damping": "zero"}
    elif incar.ivdw != _NO_IVDW:
        report.refuse(
            "fp_incar", f"IVDW = {incar.ivdw} - expected none, or 11 (D3 with zero damping) - give --reference"
        )
    return {"reference": reference}


def _declared_version(declared: str | None) -> str | None:
    found = re.search(r"code=vasp[-. ]?(\d+\.\d+\.\d+)", declared or "", re.IGNORECASE)
    return found[1] if found else None


def _command(given: DpgenFolder) -> str:
    """Return the command of VASP from the machine file, without parts that hide failures."""
    section = given.machine.get("fp")
    section = section[0] if isinstance(section, list) and section else section
    found = str(section.get("command", "")) if isinstance(section, Mapping) else ""
    return re.sub(r"\s*\|\|\s*:\s*$", "", found).strip() or "vasp_std"


def _tags(incar: Incar, report: DpgenReport) -> dict[str, Any]:
    """Return the tags of a reference: those of the INCAR, and VASP's defaults where ours differ."""
    tags = {name: value for name, value in incar.tags.items() if name not in _NOT_OURS}
    if tags.get("GGA") == "PE":
        del tags["GGA"]
    tags = {name: value for name, value in tags.items() if not (name in _NAMING and value in {False, "NONE"})}
    if "ENCUT" not in tags:
        report.refuse("fp_incar", "no ENCUT, which VASP would take from the POTCARs - expected the number - add it")
    unsaid = {name: value for name, value in _VASPS.items() if name not in tags}
    if unsaid:
        said = ", ".join(f"{name} = {value:g}" for name, value in unsaid.items())
        report.facts.append(f"fp_incar: {said} written out, since these are VASP's defaults and not ours")
    if "ISYM" not in tags:
        report.facts.append(f"fp_incar: ISYM = {INCAR['ISYM']}, our default: no symmetry, the same numbers")
    return {**tags, **unsaid}


def potcars_of(given: DpgenFolder, report: DpgenReport) -> dict[str, Path]:
    """Return the POTCAR of each element: fp_pp_files are in the order of the types."""
    kinds, files = list(given.param["type_map"]), list(given.param.get("fp_pp_files") or [])
    if len(files) != len(kinds):
        report.refuse(
            "fp_pp_files", f"{len(files)} files for {len(kinds)} elements - expected one per element - give --reference"
        )
        return {}
    prefix = given.path(str(given.param.get("fp_pp_path", "./")))
    found = {kind: prefix / str(name) for kind, name in zip(kinds, files, strict=True)}
    for kind, path in found.items():
        if not path.is_file():
            report.say(
                "fp_pp_files", Fate.CHANGED, f"no file {path} - put the POTCAR of {kind} there, or edit potcar_dir"
            )
    return found
