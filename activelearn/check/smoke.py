"""The smoke test of a place: what is installed, whether LAMMPS starts as in a walk, and what would go wrong.

Runs on the node itself, with the interpreter, launcher and variables of the machine profile. Finding problems
is its purpose, so they are written down and never raised.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from activelearn import trees
from activelearn.check import agreement
from activelearn.check.agreement import Standard
from activelearn.config import Campaign, Machine, Train, trainer_of
from activelearn.config.machine import n_cpus
from activelearn.config.section import SEALED
from activelearn.config.trainer import DEFAULT, TRAINERS
from activelearn.config.training import default_train
from activelearn.engines import lammps
from activelearn.engines.backends import BACKENDS
from activelearn.engines.deepmd import FIND_VERSIONS
from activelearn.engines.process import Slot, close_sessions, run_command, tail_of
from activelearn.engines.requirements import trains_by
from activelearn.errors import ActiveLearnError, EngineError
from activelearn.loop import FIRST, STATIONS
from activelearn.versions import installed

#: Beyond this clock skew, claims and heartbeats of live workers are mistaken for dead ones, s.
LARGEST_SKEW_S: Final = 30.0
#: Stations that train models, or run them: of most campaigns they want deepmd-kit and LAMMPS.
MODEL_STATIONS: Final = frozenset(station.name for station in STATIONS.values() if station.runs_models)
#: Time-out of one question to the engines, s; on a cold network disk, TensorFlow's import takes minutes.
PATIENCE_S: Final = 300.0
_OURS: Final = ("activelearn", "fireworks")
_THEIRS: Final = (
    *("deepmd-kit", "lammps", "ase", "numpy", "tensorflow", "tensorflow-cpu", "torch"),
    "nvidia-cuda-runtime-cu12",
)
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_INPUT: Final = "units metal\ninfo styles pair out log\n"


@dataclass(frozen=True)
class Probe:
    """What was found at a place.

    Parameters
    ----------
    place
        Its name in the machine profile, or that of the profile if it has no places.
    host, python
        Node and interpreter of the engines (behind the launcher, if there is one).
    cpu
        Its model.
    versions
        Versions of packages; those of the engines' interpreter take precedence over the worker's own.
    lammps
        Version of the LAMMPS that started with DeePMD's pair style; empty if none did, or no station here needs it.
    trains_by
        Backends of DeePMD-kit that the engines' interpreter has; also empty if no station here needs one.
    gpus
        Lines of ``nvidia-smi -L``.
    cuda_visible_devices
        Value seen by the engines of each slot (None: not set).
    compared
        Difference of the forces of one frame from those of the login node in words, or why it is not known.
    n_slots, n_cores
        Tasks in parallel; cores that this process may use.
    free_disk_GB
        Of the folder.
    file_clock_s
        Clock of the folder's file server, minus ours.
    time
        Our clock at the end, seconds since the epoch.
    seconds
        Duration.
    problems
        Problems, ``where: what - expected - next``; indented lines of a log may follow.
    """

    place: str
    host: str = ""
    python: str = ""
    cpu: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    lammps: str = ""
    trains_by: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    cuda_visible_devices: tuple[str | None, ...] = ()
    compared: str = ""
    n_slots: int = 0
    n_cores: int = 0
    free_disk_GB: float = 0.0
    file_clock_s: float = 0.0
    time: float = 0.0
    seconds: float = 0.0
    problems: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Probe:
        """Return what :meth:`to_dict` wrote."""
        names = ("trains_by", "gpus", "cuda_visible_devices", "problems")
        tuples = {key: tuple(data[key]) for key in names if key in data}
        return cls(**{**data, **tuples})


def wants_of(campaign: Campaign) -> dict[str, Any]:
    """Return what a campaign needs at its places, JSON-able.

    Returns
    -------
    dict
        ``train``, the section of its trainer, ``type_map``, its elements, and ``driving``, the stations that want
        models for nothing but the MD of the initial data (driver self): the first of an iteration asks who moves
        atoms, and the second has them moved.
    """
    driving = [station.name for station in FIRST[:2]] if campaign.initial.drives_itself else []
    train = campaign.train.model_dump(mode="json")
    return {"train": train, "type_map": list(campaign.type_map), "driving": driving}


def _train_of(wants: Mapping[str, Any]) -> Train:
    """Return the section of the trainer that is meant; DeePMD-kit's where no campaign is."""
    if "train" not in wants:
        return default_train()
    found: Train = TRAINERS.find(wants["train"]["trainer"]).settings.model_validate(wants["train"], context=SEALED)
    return found


def probe(
    machine: Machine,
    place: str,
    folder: Path,
    *,
    token: str | None = None,
    wants: Mapping[str, Any] = _NOTHING,
    login: Callable[[], Path] | None = None,
) -> Probe:
    """Probe a place from the node that this process runs on.

    Parameters
    ----------
    machine
        The whole profile.
    place
        One of the places to which `machine` assigns stations.
    folder
        On the disk that all nodes share.
    token
        Name of a file in `folder` that shows that it is the same folder.
    wants
        What a campaign needs: :func:`wants_of`; without one, DeePMD-kit.
    login
        Returns the file of :func:`at_login` with which the forces of models are compared; None: they are not.
    """
    began = time.monotonic()
    stations, train = machine.stations_by_place()[place], _train_of(wants)
    trainer, is_deepmd = trainer_of(train), train.trainer == DEFAULT
    models = [name for name in stations if name in MODEL_STATIONS]
    moving = [name for name in stations if name in wants.get("driving", ())]
    here = machine.at(stations[0]).model_copy(update={"walk_timeout_s": PATIENCE_S})
    problems: list[str] = []
    found: dict[str, Any] = {"host": socket.gethostname(), "versions": installed(*_OURS)}
    found |= {"n_slots": here.n_slots, "n_cores": n_cpus()}
    found |= _look(problems, lambda: _look_at_folder(folder, token))
    # Where the engines would work: the machine's scratch, or next to the campaign, which all nodes see.
    chosen = Path(here.scratch) if here.scratch else folder
    with trees.temporary(chosen if chosen.is_dir() else None) as scratch:
        slots = [Slot(here, scratch, index=k) for k in range(here.n_slots)]
        found["cuda_visible_devices"] = tuple(_visible(slot) for slot in slots)
        asked = _look(problems, lambda: _ask_engines(slots[0], trainer.packages))
        found |= {**asked, "versions": {**found["versions"], **asked.get("versions", {})}}
        if asked:
            found |= _look(problems, lambda: _list_gpus(slots[0]))
        if asked and not is_deepmd and (models or moving):
            problems += trainer.problems(train, here.model_copy(update={"places": {}}))
        elif asked and models:
            found["trains_by"] = trains_by(here.python, asked["versions"])
        elif asked and moving:
            what_for = f"{moving[-1]} (initial.md.driver: self)"
            _look(problems, lambda: _want_deepmd(slots[0], asked["versions"], what_for))
        if asked and models and trainer.runs_in_lammps:
            found |= _look(problems, lambda: _start_lammps(slots[0], asked["versions"], wants_deepmd=is_deepmd))
        if models and login is not None and not problems:
            found |= _look(problems, lambda: _compare(login(), train, slots[0], found, problems))
        close_sessions()
    seen = Probe(place, **found, time=time.time(), seconds=time.monotonic() - began)
    problems += _contradictions(seen, here, needs_deepmd=is_deepmd and bool(models))
    return dataclasses.replace(seen, problems=tuple(f"{place} ({seen.host}): {line}" for line in problems))


def _look(problems: list[str], find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what was found; what prevented the probe is a problem."""
    try:
        return find()
    except (ActiveLearnError, OSError, ValueError) as error:
        problems.append(str(error))
        return {}


def _look_at_folder(folder: Path, token: str | None) -> dict[str, Any]:
    next_ = "give --folder on a disk that all nodes share"
    if not folder.is_dir():
        raise EngineError(f"{folder}: is not visible from this node - expected a shared folder - {next_}")
    if token is not None and not (folder / token).is_file():
        raise EngineError(f"{folder}: is another folder on this node - expected the same folder everywhere - {next_}")
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".smoke-") as written:
        written.write(b"x")
        written.flush()
        skew = Path(written.name).stat().st_mtime - time.time()
    return {"free_disk_GB": shutil.disk_usage(folder).free / 1e9, "file_clock_s": skew}


def at_login(machine: Machine, wants: Mapping[str, Any], folder: Path) -> Path:
    """Train a tiny model here, on a CPU, and write it to `folder` with its forces of one frame; return the file.

    The interpreter is that of the profile, else the first of a place in which the models run here. Where none does, the
    file says why.

    Parameters
    ----------
    machine
        The whole profile.
    wants
        What a campaign needs: :func:`wants_of`; without one, DeePMD-kit.
    folder
        On the disk that all nodes share.
    """
    train, why_not = _train_of(wants), ""
    for python in dict.fromkeys([machine.python, *(machine.at(name).python for name in sorted(MODEL_STATIONS))]):
        own: dict[str, Any] = {"python": python, "lammps": None, "launcher": None, "places": {}, "slots": 1, "gpus": []}
        patience = dict.fromkeys(("walk_timeout_s", "label_timeout_s", "train_timeout_s"), PATIENCE_S)
        here = machine.model_copy(update={**own, **patience, "stations": {}})
        try:
            lacks = trainer_of(train).problems(train, here)
            if not lacks:
                return _standard(here, train, wants.get("type_map", ("Cu",)), folder).write(folder)
            why_not = why_not or lacks[0]
        except (ActiveLearnError, OSError, ValueError) as error:
            why_not = why_not or str(error).splitlines()[0]
        finally:
            close_sessions()
    return Standard(socket.gethostname(), why_not=why_not).write(folder)


def _standard(here: Machine, train: Train, type_map: Sequence[str], folder: Path) -> Standard:
    with trees.temporary() as scratch:
        slot = Slot(here, scratch)
        asked = _ask_engines(slot, trainer_of(train).packages)
        device = _device(asked["cpu"], (), slot)
        where = Standard(asked["host"], device, {**installed(*_OURS), **asked["versions"]})
        return agreement.standard(where, train, type_map, slot, folder)


def _visible(slot: Slot) -> str | None:
    """Return the GPUs that the engines of a slot see; empty: none, None: all."""
    return slot.environment.get("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES"))


def _device(cpu: str, gpus: Sequence[str], slot: Slot) -> str:
    """Return the CPU of a slot, and the GPUs of its node if it may use them."""
    visible = _visible(slot)
    which = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible})"
    return f"{cpu} with {', '.join(gpus)}{which}" if gpus and visible != "" else cpu


def _compare(file: Path, train: Train, slot: Slot, found: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Return the difference of the forces from those of the login node in words; too large a one is a problem."""
    theirs = Standard.read(file)
    if theirs.why_not:
        return {"compared": f"forces are not compared: {theirs.host} has none to compare with: {theirs.why_not}"}
    if lacks := trainer_of(train).problems(train, slot.machine.model_copy(update={"places": {}})):
        return {"compared": f"forces are not compared: {lacks[0]}"}
    differs = theirs.what_differs(_device(found["cpu"], found.get("gpus", ()), slot), found["versions"])
    next_ = "install the same versions at both, or compare the drivers and CUDA libraries of the two"
    try:
        difference = theirs.difference(file.parent / theirs.model, train, slot)
    except ActiveLearnError as error:
        what = f"a model that {theirs.host} trained cannot be evaluated ({str(error).splitlines()[0]})"
        problems.append(f"{what} - expected its forces - {differs} - {next_}")
        return {}
    said = (
        f"forces differ by {difference:.1e} eV/Å from those of {theirs.host} (largest force {theirs.largest:.2g} eV/Å)"
    )
    if not difference < theirs.tolerance:
        problems.append(f"{said} - expected less than {theirs.tolerance:.1e} eV/Å - {differs} - {next_}")
    return {"compared": said}


def _ask_engines(slot: Slot, packages: Sequence[str]) -> dict[str, Any]:
    """Return host, interpreter and versions of the engines."""
    command = [slot.machine.python or sys.executable, "-c", FIND_VERSIONS, *dict.fromkeys((*_THEIRS, *packages))]
    log = slot.logs / "versions"
    done = run_command(command, slot.logs, log=log, timeout_s=PATIENCE_S, slot=slot)
    answers = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("{")]
    if done.return_code != 0 or not answers:
        raise EngineError(
            f"the interpreter of the engines ended with return code {done.return_code} - expected one with deepmd-kit "
            "and lammps - see python and launcher in the profile",
            command=[*slot.launcher, command[0]],
            tail=tail_of(log, 5),
        )
    found: dict[str, Any] = json.loads(answers[-1])
    return found


def _list_gpus(slot: Slot) -> dict[str, Any]:
    """Return the lines of ``nvidia-smi -L``; a node without that program has no usable GPU."""
    if shutil.which("nvidia-smi") is None and not slot.launcher:
        return {}
    log = slot.logs / "gpus"
    run_command(["nvidia-smi", "-L"], slot.logs, log=log, timeout_s=60.0, slot=slot)
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    return {"gpus": tuple(line.split(" (UUID")[0] for line in lines if line.startswith("GPU "))}


def _want_deepmd(slot: Slot, versions: dict[str, str], what_for: str) -> dict[str, Any]:
    """Refuse an interpreter without deepmd-kit."""
    if "deepmd-kit" not in versions:
        python = slot.machine.python or sys.executable
        install = "pip install 'deepmd-kit[cpu,lmp]' or [gpu,cu12,lmp]"
        raise EngineError(f"{python} has no deepmd-kit - needed for {what_for} - {install}")
    return {}


def _start_lammps(slot: Slot, versions: dict[str, str], *, wants_deepmd: bool) -> dict[str, Any]:
    """Return the version of LAMMPS, started as for a walk, if it knows DeePMD's pair style (where that is needed)."""
    if wants_deepmd:
        _want_deepmd(slot, versions, "train, explore and glass")
    code = lammps.run_input(slot.logs, _INPUT, slot)
    log = slot.logs / "log.lammps"
    said = log.read_text(errors="replace") if log.is_file() else ""
    if code != 0 or not said.startswith("LAMMPS ("):
        raise EngineError(
            f"LAMMPS ended with return code {code} - expected it to start - see python and lammps in the profile",
            command=shlex.split(slot.machine.lammps or ""),
            tail=tail_of(slot.logs / "lammps.out", 5),
        )
    if wants_deepmd and "deepmd" not in said.split():
        raise EngineError(
            "LAMMPS has no pair style deepmd - expected DeePMD's plugin - set `lammps` to null for deepmd-kit's own"
        )
    return {"lammps": said.splitlines()[0].removeprefix("LAMMPS (").split(")")[0].split(" - ")[0]}


def _contradictions(seen: Probe, machine: Machine, *, needs_deepmd: bool) -> Iterator[str]:
    """Yield contradictions between the profile and the node."""
    is_known = bool(seen.python)  # otherwise the engines could not be asked
    if machine.gpus and is_known and max(machine.gpus) >= len(seen.gpus):
        yield (
            f"the profile assigns CUDA device {max(machine.gpus)}, but nvidia-smi shows {len(seen.gpus)} GPUs - "
            "expected devices 0 to n - 1 of the job - fix gres of the queue, or gpus of the place"
        )
    elif machine.gpus and needs_deepmd and "tensorflow-cpu" in seen.versions and "pytorch" not in seen.trains_by:
        yield "deepmd-kit uses tensorflow-cpu - expected it to use the GPUs - pip install 'deepmd-kit[gpu,cu12,lmp]'"
    if needs_deepmd and "deepmd-kit" in seen.versions and not seen.trains_by:
        torch = (
            f"torch {seen.versions['torch']}, not the one that it was compiled with" if "torch" in seen.versions else ""
        )
        what = f"no TensorFlow and {torch or 'no torch'}"
        expected = "; or ".join({one.install: one.name for one in BACKENDS.values()})
        yield f"deepmd-kit has no backend here ({what}) - expected one of its backends - {expected}"
    if seen.n_slots > seen.n_cores and not machine.launcher:
        yield (
            f"{seen.n_slots} slots on {seen.n_cores} cores - expected one core per slot - raise cpus_per_task of the "
            "queue, or lower slots of the place"
        )
    if 0.0 < seen.free_disk_GB < machine.min_free_disk_GB:
        yield (
            f"{seen.free_disk_GB:.2f} GB free - expected machine.min_free_disk_GB = {machine.min_free_disk_GB:g} - "
            "free some, or give another --folder"
        )
    if abs(seen.file_clock_s) > LARGEST_SKEW_S:
        yield (
            f"the clock of the file server differs by {seen.file_clock_s:+.0f} s - expected less than "
            f"{LARGEST_SKEW_S:g} s, else live workers are mistaken for dead ones - tell the administrators (NTP)"
        )
