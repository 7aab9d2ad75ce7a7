"""Import from DP-GEN: a folder of ``dpgen run`` becomes a campaign that continues from its results.

``param.json`` becomes a campaign, ``machine.json`` a machine profile, all finished labels a ledger. The treatment of
each key is in one table (:mod:`activelearn.exchange.dpgen.param_keys`); what cannot be expressed and must not be
left out is refused before anything is written. The DP-GEN folder is only read.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from activelearn import trees
from activelearn.config import load_campaign, load_label, load_machine
from activelearn.config.presets import find
from activelearn.config.section import as_name
from activelearn.config.yaml12 import dump
from activelearn.errors import ConfigError, typed
from activelearn.exchange import declared
from activelearn.exchange.dpgen import labelling, labels, machines, reselection, stages, systems, training
from activelearn.exchange.dpgen.given import DpgenFolder, scalars, whole
from activelearn.exchange.dpgen.given import read_folder as read_folder
from activelearn.exchange.dpgen.keys import Fate as Fate
from activelearn.exchange.dpgen.told import DpgenReport, as_markdown, refused_by_table

#: Files next to the campaign YAML, in a folder with its name.
LEDGER, STRUCTURES, POTCARS, MODELS = "labels", "structures", "potcars", "models"
MACHINE, REPORT = "machine.yaml", "report.md"
#: Where the campaign is until all that it needs has its name.
_DRAFT: Final = ".campaign.yaml"
#: Keys of DP-GEN that say how labels are computed.
FP_KEYS: Final = (
    *("fp_incar", "fp_pp_path", "fp_pp_files", "fp_orb_files", "fp_kpt_file", "k_points", "fp_dpks_descriptor"),
    *("fp_params", "user_fp_params", "external_input_path"),
)
#: A failed frame may be rescued up to this times the upper bound of the window, if the usual bound is below it.
_RESCUED: Final = 2.0
#: DP-GEN's number of labels of a system, if none is given.
_N_LABELS: Final = 200


@dataclass(frozen=True)
class DpgenRequest:
    """Settings of an import.

    Parameters
    ----------
    to
        The campaign's YAML, new.
    reference
        Reference for new labels: a preset of ``params/label/`` or a YAML like one; None: from INCAR and POTCARs.
    declare
        Reference of the existing labels: ``functional=...,includes_dispersion=...,code=...``; None: from its files.
    identity
        Fingerprint of the reference of the existing labels, if that is `reference` itself.
    remaining
        Whether only jobs of unfinished iterations become stages.
    """

    to: Path
    reference: str | None = None
    declare: str | None = None
    identity: Mapping[str, Any] | None = None
    remaining: bool = False

    @property
    def beside(self) -> Path:
        """Folder of all files that the campaign needs."""
        return self.to.with_name(f"{self.to.stem}-dpgen")


@dataclass(frozen=True)
class Imported:
    """Result of an import from DP-GEN.

    Parameters
    ----------
    given, report
        Its contents, and the report.
    files
        Written files, the campaign first.
    n_labels
        Labels in the ledger.
    """

    given: DpgenFolder
    report: DpgenReport
    files: tuple[Path, ...]
    n_labels: int


def import_dpgen(given: DpgenFolder, request: DpgenRequest) -> Imported:
    """Write a campaign, a machine profile, a ledger and a report; either all of them appear, or none.

    Raises
    ------
    ConfigError
        Something cannot be expressed, or an output file exists.
    """
    is_left = (request.beside / _DRAFT).is_file() and not request.to.exists()
    for path in (request.to, request.beside):
        if path.exists() and not is_left:
            raise ConfigError(
                f"{path}: exists - expected a new name, since nothing is overwritten - choose another --to"
            )
    report = DpgenReport()
    _refuse_what_has_no_counterpart(given, report)
    _want_nothing_refused(given, report)
    place = request.to.absolute().parent
    place.mkdir(parents=True, exist_ok=True)
    with trees.temporary(place) as work:
        made = work / request.beside.name
        made.mkdir()
        with _readable(given.param_file, work):
            n_labels, campaign = _campaign(given, request, made, report)
            _want_nothing_refused(given, report)
            draft = work / request.to.name
            draft.write_text(_commented(campaign, given, request), encoding="utf-8")
            load_campaign(draft)
        with _readable(given.machine_file or given.folder, work):
            profile = machines.machine_of(given, as_name(request.to.stem) or "cluster", report)
            if profile is not None:
                (made / MACHINE).write_text(dump(profile, width=110), encoding="utf-8")
                load_machine(made / MACHINE)
        report.facts += _again(given)
        (made / REPORT).write_text(as_markdown(report, given), encoding="utf-8")
        names = sorted(path.name for path in made.iterdir())
        (made / _DRAFT).write_text(draft.read_text(encoding="utf-8"), encoding="utf-8")
        if is_left:
            _want_the_same(made, request.beside)
        for path, to in ((made, request.beside), (request.beside / _DRAFT, request.to)):
            if not ((is_left and path == made) or trees.rename(path.absolute(), to.absolute())):
                raise ConfigError(
                    f"{to}: was created by another process meanwhile - expected a new name - choose another --to"
                )
    return Imported(given, report, (request.to, *(request.beside / name for name in names)), n_labels)


def _want_the_same(made: Path, left: Path) -> None:
    """Refuse to finish an import that was killed before its campaign had its name, if it was not the same one."""
    for name in (_DRAFT, REPORT):
        if (made / name).read_bytes() != (left / name).read_bytes():
            raise ConfigError(
                f"{left}: is of an import with other options or inputs that was killed - expected the same command, or "
                "a new name - remove it, or choose another --to"
            )


@contextmanager
def _readable(file: Path, work: Path) -> Iterator[None]:
    """Report invalid DP-GEN input, or values invalid in a campaign, with the file of DP-GEN.

    Parameters
    ----------
    file
        Of DP-GEN.
    work
        Folder of the draft, which is never shown.
    """
    try:
        yield
    except ConfigError as error:
        drafts = f"{work}/"
        lines = (line.replace(drafts, "") for line in error.problems)
        raise ConfigError(*(line if str(file) in line else f"{file}: {line}" for line in lines)) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        what = " ".join(str(error).split())[:160]
        raise ConfigError(
            f"{file}: is not in DP-GEN's format ({type(error).__name__}: {what}) - expected an input that dpgen run "
            "accepts - correct it, or remove the key"
        ) from error


def _refuse_what_has_no_counterpart(given: DpgenFolder, report: DpgenReport) -> None:
    from ase.data import atomic_numbers

    kinds = given.param.get("type_map")
    if not isinstance(kinds, list) or not kinds:
        report.refuse("type_map", "missing - expected the elements")
    elif strange := [kind for kind in kinds if not atomic_numbers.get(kind)]:
        report.refuse("type_map", f"{', '.join(map(str, strange))} - expected chemical elements")
    for key, why in refused_by_table(given.param):
        report.refuse(key, why)
    for key, value in scalars(given.param):
        report.refuse(key, f"{value!r} - expected a list")
    if not given.param.get("model_devi_jobs"):
        report.refuse("model_devi_jobs", "missing - expected at least one job")


def _want_nothing_refused(given: DpgenFolder, report: DpgenReport) -> None:
    if report.refused:
        raise ConfigError(*(f"{given.param_file}: {line}" for line in report.refused))


def _campaign(given: DpgenFolder, request: DpgenRequest, made: Path, report: DpgenReport) -> tuple[int, dict[str, Any]]:
    """Return the number of labels, and the campaign as raw YAML; its files are written to `made`."""
    train = training.train_of(given, report)
    window = stages.window_of(given, report)
    _want_nothing_refused(given, report)
    jobs = stages.jobs_of(given, report, remaining=request.remaining)
    if not jobs:
        why = "; ".join(fact for fact in report.facts if fact.startswith("model_devi_jobs "))
        report.refuse("model_devi_jobs", f"no job is left that can be a stage ({why}) - expected at least one")
    used = sorted({system for job in jobs for system in job.systems})
    starts = systems.starts_of(given, used, report)
    identity = request.identity or _declared(given, request, report)
    label = _label(given, request, made, report)
    _want_nothing_refused(given, report)
    assert identity is not None
    n_labels = labels.import_all(given, made / LEDGER, identity, report)
    beside = request.beside.name
    train |= _start_from(given, train, request, made, report)
    names = starts.write(made / STRUCTURES) if starts.frames else []
    crystals = [{"seed": f"{beside}/{STRUCTURES}/{name}", "supercell": [1, 1, 1]} for name in names]
    initial: dict[str, Any] = {"from_ledger": _from_ledger(request, identity)}
    if not n_labels:
        report.facts.append("no label was found: initial data are generated from the structures, as in any campaign")
        initial = {"systems": crystals}
        if not crystals:
            report.refuse("init_data_sys", "neither labels nor structures were found - expected at least one of them")
    lowest = _least_height(starts, train)
    explore = {
        **({"systems": crystals} if crystals and n_labels else {}),
        "perturb": {"positions_A": 0.0, "cell_fraction": 0.0},
        "stages": stages.stages_of(jobs, starts),
    }
    ledger = {"ledger": f"{beside}/{LEDGER}"} if n_labels else {}
    return n_labels, {
        "name": as_name(request.to.stem) or "campaign",
        "description": f"from DP-GEN: {given.folder.name}, iterations done: {given.n_done}",
        "type_map": given.param["type_map"],
        "initial": {**initial, **lowest},
        "explore": explore,
        "select": _select(given, window, jobs),
        "label": {**label, **ledger},
        "train": train,
        "stop": {"max_iterations": max(20, 3 * len(jobs))},
    }


def _start_from(
    given: DpgenFolder, train: Mapping[str, Any], request: DpgenRequest, made: Path, report: DpgenReport
) -> dict[str, Any]:
    """Return the models from which the first ensemble starts, copied to `made`."""
    models = training.last_ensemble(given, train, report)
    if not models:
        return {}
    (made / MODELS).mkdir()
    names = [f"{k:03d}{model.suffix}" for k, model in enumerate(models)]
    for name, model in zip(names, models, strict=True):
        shutil.copyfile(model, made / MODELS / name)
    return {"start_from": [f"{request.beside.name}/{MODELS}/{name}" for name in names]}


def _from_ledger(request: DpgenRequest, identity: Mapping[str, Any]) -> bool | list[str]:
    return True if request.identity is not None else [str(identity["sha256"])[:12]]


def _declared(given: DpgenFolder, request: DpgenRequest, report: DpgenReport) -> Mapping[str, Any] | None:
    """Return the identity of the existing labels, declared or read."""
    said = request.declare or labelling.what_labelled(given, report)
    if said is None:
        return None
    if request.declare is None:
        report.facts.append(f"reference of the existing labels, from DP-GEN's files: {said}")
    return declared(said)


def _label(given: DpgenFolder, request: DpgenRequest, made: Path, report: DpgenReport) -> dict[str, Any]:
    """Return the section ``label``; POTCARs are linked, not copied."""
    if request.reference is not None:
        return _named(request.reference, report)
    found = labelling.label_of(given, request.declare, report)
    if report.refused or "vasp" not in found["reference"]:
        return found
    folder = made / POTCARS
    folder.mkdir()
    for kind, path in labelling.potcars_of(given, report).items():
        (folder / kind).mkdir()
        (folder / kind / "POTCAR").symlink_to(path)
    vasp = found["reference"]["vasp"]
    vasp["potcar_dir"] = f"{request.beside.name}/{POTCARS}"
    vasp["potcars"] = {kind: kind for kind in vasp["potcars"]}
    return found


def _named(reference: str, report: DpgenReport) -> dict[str, Any]:
    """Return the section of a preset, or of a YAML by its path relative to the campaign's folder."""
    report.say("fp_style", Fate.CHANGED, f"labels are those of --reference {reference}")
    for key in FP_KEYS:
        report.say(key, Fate.LEFT_OUT, f"labels are those of --reference {reference}")
    file = find("label", reference)
    if Path(reference).is_file():
        return load_label(file).model_dump(mode="json", exclude_defaults=True, exclude={"ledger"})
    return {"preset": reference}


def _least_height(starts: systems.DpgenStarts, train: Mapping[str, Any]) -> dict[str, float]:
    """Return the bound on heights of cells, if a structure is lower than the cutoff; DP-GEN has no such bound."""
    rcut, lowest = _longest(train.get("model")), starts.lowest_A
    return {"min_height_A": int(100.0 * lowest) / 100.0} if lowest is not None and lowest < rcut else {}


def _longest(value: Any) -> float:  # noqa: ANN401 - raw JSON
    """Return the longest cutoff that a model names, Å; DeePMD-kit's default if it names none."""
    if isinstance(value, Mapping):
        own = [
            float(item) for key, item in value.items() if str(key).endswith("rcut") and isinstance(item, int | float)
        ]
        return max(
            [*own, *(_longest(item) for item in value.values() if isinstance(item, Mapping | list))], default=0.0
        )
    return max((_longest(item) for item in value), default=0.0) if isinstance(value, list) else 0.0


def _select(given: DpgenFolder, window: tuple[float, float], jobs: list[stages.DpgenJob]) -> dict[str, Any]:
    f_lo, f_hi = window
    most = max((len(job.systems) for job in jobs), default=1)
    of_a_system = given.param.get("fp_task_max")
    made: dict[str, Any] = {
        "f_lo": f_lo,
        "f_hi": f_hi,
        "max_frames": whole(_N_LABELS if of_a_system is None else of_a_system) * most,
    }
    if f_hi >= 1.5:
        made["rescue"] = {"max_devi_f": _RESCUED * f_hi}
    return made


def _commented(campaign: Mapping[str, Any], given: DpgenFolder, request: DpgenRequest) -> str:
    beside = request.beside.name
    return (
        f"# From {given.param_file.name} of DP-GEN. For the treatment of each key, see {beside}/{REPORT}.\n"
        f"# Next: activelearn check {typed(request.to.name)}\n"
        + dump(dict(campaign), width=110, default_flow_style=None)
    )


def _again(given: DpgenFolder) -> list[str]:
    """Return the classification of the stored frames compared with DP-GEN's own lists."""
    try:
        found, unread = reselection.reselected(given)
    except ConfigError as error:
        return [*error.problems]
    compared = [one for one in found if one.dpgens is not None]
    if not compared:
        return unread
    same = sum(one.is_same for one in compared)
    said = f"frames of {same} of {len(compared)} (iteration, system) are classified as by DP-GEN"
    return [said, *(str(one) for one in compared if not one.is_same), *unread]
