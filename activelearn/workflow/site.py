"""The FireWorks config folder of a site: the LaunchPad, the workers, and how jobs are submitted to the queue.

``my_launchpad.yaml``, ``machine.yaml``, ``FW_config.yaml`` and the template of batch scripts belong to the user once
they are there. The workers and queue adapters are derived from the machine profile and rewritten with it, unless they
have been edited.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from activelearn.config import Machine, Place, Queue, load_machine
from activelearn.config.files import preset_file
from activelearn.config.yaml12 import Dumper
from activelearn.errors import ConfigError, typed
from activelearn.workflow.queues import NAME_LENGTHS, Q_TYPES, TEMPLATES, queue_keys

#: Only the user may read it.
_PRIVATE: Final = 0o600
LAUNCHPAD: Final = """\
# Where the MongoDB of the LaunchPad is (FireWorks' own file). The only file that holds a password: keep it at mode 600,
# out of git and out of the campaign folder. Every node reads it, so it must be on a disk that all of them see.
host: localhost  # edit: the server's name as the *compute nodes* know it
port: 27017
name: activelearn  # edit: the database; many campaigns can share one, but not those of two people
# username: me
# password: secret
# authsource: admin  # the database with the user account; default: the one above

# TLS, as pymongo's MongoClient expects it:
# mongoclient_kwargs: {tls: true, tlsCAFile: /path/to/ca.pem}

# Or one URI instead of host, port, username and password (MongoDB Atlas provides one):
# uri_mode: true
# host: mongodb+srv://me:secret@cluster0.example.mongodb.net/?authSource=admin
"""
FW_CONFIG: Final = """\
# Settings of FireWorks. `activelearn qlaunch` and `rlaunch` find them beside my_launchpad.yaml; FireWorks' own commands
# (lpad) need: export FW_CONFIG_FILE=<this file>. One in the working directory or in ~/.fireworks takes precedence.
PING_TIME_SECS: 60  # a running job pings every minute (default: every hour) ...
RUN_EXPIRATION_SECS: 300  # ... and is considered lost after five without a ping (default: four hours)
RESERVATION_EXPIRATION_SECS: 1209600  # longer than any wait in the queue, s: two weeks
WFLOCK_EXPIRATION_SECS: 300  # a worker killed while it held a Workflow's lock leaves it locked ...
WFLOCK_EXPIRATION_KILL: true  # ... and after this time the lock is broken instead of raising an error
QUEUE_UPDATE_INTERVAL: 1  # s between two submissions (default 5)
QUEUE_RETRY_ATTEMPTS: 10  # of squeue; the pauses double
QUEUE_JOBNAME_MAXLEN: 40  # enough for iteration, station and chunk (15: the limit of older PBS and of Torque)
RAPIDFIRE_SLEEP_SECS: 10  # s between two queries of the LaunchPad
PRINT_FW_JSON: false  # all jobs share one launch folder, and would overwrite each other's
REMOVE_USELESS_DIRS: false  # the shared folder must be kept
"""
#: slurmd signals the batch shell too; one without a trap dies immediately, and Slurm then kills processes that are
#: still cleaning up.
_TRAP: Final = "trap : TERM"


@dataclass(frozen=True)
class ClusterFiles:
    """A config folder, and the profile it is for.

    Parameters
    ----------
    folder
        Absolute.
    profile
        The machine profile's YAML, absolute.
    machine
        Its content.
    written
        Names of the files that were written by this call.
    """

    folder: Path
    profile: Path
    machine: Machine
    written: tuple[str, ...] = ()

    @property
    def launchpad(self) -> Path:
        """my_launchpad.yaml."""
        return self.folder / "my_launchpad.yaml"


def initialise(name_or_path: str, to: Path | None = None) -> ClusterFiles:
    """Write the config folder of a machine profile; files of the user's are never overwritten.

    Parameters
    ----------
    name_or_path
        A preset, which is copied as ``machine.yaml`` to be edited; or a profile's YAML.
    to
        The folder; default: that of the profile's YAML, ``cluster`` for a preset.

    Raises
    ------
    ConfigError
        The profile is wrong, or what would be written was edited by hand.
    """
    machine = load_machine(name_or_path)
    given = Path(name_or_path)
    preset = None if given.is_file() else preset_file("machine", name_or_path)
    folder = (to or (Path("cluster") if preset is not None else given.parent)).absolute()
    profile = folder / "machine.yaml" if preset is not None else given.absolute()
    if preset is not None and profile.exists():
        raise ConfigError(
            f"{profile}: exists - expected a new folder for the preset {name_or_path} - activelearn machine --init "
            f"{shlex.quote(str(profile))} rewrites its workers and adapters; or choose another --to"
        )
    site = ClusterFiles(folder, profile, machine)
    derived = {name: _stamped(text, profile) for name, text in _derived(site).items()}
    _refuse_edited(site, derived)
    theirs = {"my_launchpad.yaml": LAUNCHPAD, "FW_config.yaml": _config(machine), **_templates(machine)}
    if preset is not None:
        theirs["machine.yaml"] = preset.read_text(encoding="utf-8")
    new = {name: text for name, text in theirs.items() if not (folder / name).exists()} | derived
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in new.items():
            _write(folder / name, text)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror or error}) - expected a folder - choose another with --to"
        ) from None
    return replace(site, written=tuple(sorted(new)))


def _config(machine: Machine) -> str:
    """Return FireWorks' settings, with job names as long as every batch system of the profile takes them."""
    most = min((NAME_LENGTHS[place.queue.system] for place in machine.places.values()), default=NAME_LENGTHS["slurm"])
    return FW_CONFIG.replace(f"MAXLEN: {NAME_LENGTHS['slurm']}", f"MAXLEN: {most}")


# --- what follows from the profile ------------------------------------------------------------------------------------


def categories(machine: Machine) -> dict[str, Place]:
    """Return the categories of a profile's Fireworks, each with its (first) place.

    Raises
    ------
    ConfigError
        Two places of one category need different shells, but share one adapter.
    """
    found: dict[str, Place] = {}
    names: dict[str, str] = {}
    for name, place in machine.places.items():
        category = place.category or name
        first = found.setdefault(category, place)
        names.setdefault(category, name)
        if (first.setup, first.environment) != (place.setup, place.environment):
            raise ConfigError(
                f"places.{name}: category {category} is that of {names[category]} too, and setup or environment differ "
                "- expected the same, as they share one queue adapter - give them the same, or two categories"
            )
    return found


def has_queue(place: Place) -> bool:
    """Return whether a place uses a batch system."""
    return place.queue != Queue()


def _derived(site: ClusterFiles) -> dict[str, str]:
    """Return the files of workers and adapters, by name."""
    found = categories(site.machine)
    files = {} if found else {"my_fworker.yaml": _yaml(_worker(site.machine.name, ""))}
    for category, place in found.items():
        files[f"my_fworker_{category}.yaml"] = _yaml(_worker(f"{site.machine.name}-{category}", category))
        if has_queue(place):
            files[f"my_qadapter_{category}.yaml"] = _yaml(adapter(site, category, place))
    return files


def _templates(machine: Machine) -> dict[str, str]:
    """Return the templates of batch scripts of the systems for which FireWorks' own do not do, by name."""
    systems = {place.queue.system for place in machine.places.values() if has_queue(place)}
    return {_template(system): TEMPLATES[system] for system in sorted(systems & TEMPLATES.keys())}


def _template(system: str) -> str:
    """Return the name of the file in which the template of batch scripts stands."""
    return f"my_{system}_template.txt"


def _worker(name: str, category: str) -> dict[str, Any]:
    return {"name": name, "category": category, "query": "{}"}


def adapter(site: ClusterFiles, category: str, place: Place) -> dict[str, Any]:
    """Return FireWorks' queue adapter of a category; queue settings of the Fireworks override those in it."""
    before = [_TRAP, f"export FW_CONFIG_FILE={_word(site.folder / 'FW_config.yaml')}", *place.setup]
    variables = {**site.machine.environment, **place.environment}
    before += [f"export {name}={_word(value)}" for name, value in variables.items()]
    system = place.queue.system
    template = {"_fw_template_file": str(site.folder / _template(system))} if system in TEMPLATES else {}
    found: dict[str, Any] = {
        "_fw_name": "CommonAdapter",
        "_fw_q_type": Q_TYPES[place.queue.system],
        "_fw_timeout": 30,  # of squeue and its like, s
        **template,
        "rocket_launch": f"{program()} rlaunch {_files(site, category)} singleshot",
        **queue_keys(place.queue),
        "pre_rocket": "\n".join(before),
    }
    for key, value in found.items():
        if "$$" in str(value):
            raise ConfigError(
                f"{site.profile}: $$ in {key} of category {category} - expected none, as FireWorks drops such a line - "
                "write $BASHPID"
            )
    return found


def program() -> str:
    """Return the shell command of this interpreter's ``activelearn``, for any working directory."""
    script = Path(sys.executable).with_name("activelearn")
    if script.is_file():
        return _word(script)
    return f"{_word(sys.executable)} -c 'from activelearn.cli import main; main()'"


def _files(site: ClusterFiles, category: str) -> str:
    worker = f"my_fworker_{category}.yaml" if category else "my_fworker.yaml"
    return f"-l {_word(site.launchpad)} -w {_word(site.folder / worker)}"


def _word(text: Path | str) -> str:
    return shlex.quote(str(text))


class _Blocks(Dumper):
    """Writes lines as lines."""


def _lines(dumper: Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Blocks.add_representer(str, _lines)


def _yaml(data: dict[str, Any]) -> str:
    return yaml.dump(data, Dumper=_Blocks, sort_keys=False, width=10_000)


# --- files ------------------------------------------------------------------------------------------------------------


def _stamped(text: str, profile: Path) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    how = f"activelearn machine --init {typed(profile.name)}"
    return f"# Follows from {profile.name}: edit that, and write this again with: {how}\n# as written: {digest}\n{text}"


def _is_as_written(path: Path) -> bool:
    first, _, rest = path.read_text(encoding="utf-8").partition("\n")
    second, _, body = rest.partition("\n")
    digest = hashlib.sha256(body.encode()).hexdigest()[:16]
    return first.startswith("# Follows from ") and second == f"# as written: {digest}"


def _refuse_edited(site: ClusterFiles, derived: dict[str, str]) -> None:
    """Refuse to overwrite a file that was edited, or made by other means."""
    there = [path for name in derived if (path := site.folder / name).exists()]
    problems = [
        f"{path}: was edited by hand - expected it unedited, to rewrite it - move it away, and put its settings into "
        f"{site.profile.name} (queue, setup)"
        for path in there
        if path.read_text(encoding="utf-8") != derived[path.name] and not _is_as_written(path)
    ]
    if problems:
        raise ConfigError(*problems)


def _write(path: Path, text: str) -> None:
    """Write a file completely or not at all; the one for a password is never readable by others."""
    mode = _PRIVATE if path.name == "my_launchpad.yaml" else 0o666  # reduced by the umask
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(fresh, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
            stream.write(text)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


# --- what to type -----------------------------------------------------------------------------------------------------


def worker_line(launchpad: Path, category: str) -> str:
    """Return the command that starts the workers of a category, with the files beside my_launchpad.yaml.

    They submit jobs to the queue; without an adapter the worker runs on this machine.
    """
    folder, suffix = launchpad.absolute().parent, f"_{category}" if category else ""
    worker, adapter = (folder / f"my_{kind}{suffix}.yaml" for kind in ("fworker", "qadapter"))
    files = f"-l {_word(launchpad.absolute())}" + (f" -w {_word(worker)}" if worker.is_file() else "")
    if adapter.is_file():
        return f"activelearn qlaunch -r -d 10 {files} -q {_word(adapter)} --launch_dir {_word(folder)} rapidfire -m 50"
    return f"activelearn rlaunch {files} rapidfire --nlaunches infinite"


def worker_lines(machine: Machine, launchpad: Path) -> list[str]:
    """Return the commands that start the workers of all categories of a profile."""
    return [worker_line(launchpad, category) for category in _category_names(machine)]


def _category_names(machine: Machine) -> list[str]:
    return list(dict.fromkeys(place.category or name for name, place in machine.places.items())) or [""]


def next_lines(site: ClusterFiles) -> list[str]:
    """Return the next steps for the user, in order."""
    profile, launchpad = _word(site.profile), _word(site.launchpad)
    where = f"--machine {profile} -l {launchpad}"
    return [
        f"1. edit {launchpad} (host, database, user, password; it stays at mode 600)",
        f"2. edit {profile} (partitions, account, setup), then:  activelearn machine --init {profile}",
        f"3. check:  activelearn check CAMPAIGN {where}",
        "4. start the workers; they survive a logout, and may be stopped (kill) and restarted at any time:",
        *(f"     {_in_background(site, category)}" for category in _category_names(site.machine)),
        f"5. send one tiny job to each place:  activelearn machine --smoke {where}",
        f"6. submit the campaign:  activelearn submit CAMPAIGN {where}",
        "7. follow it:  activelearn status runs/NAME",
        f"   if something hangs:  activelearn doctor -l {launchpad}",
    ]


def _in_background(site: ClusterFiles, category: str) -> str:
    log = site.folder / (f"workers_{category}.log" if category else "workers.log")
    return f"nohup {worker_line(site.launchpad, category)} >> {_word(log)} 2>&1 &"
