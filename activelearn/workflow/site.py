"""The FireWorks config folder of a site: where the LaunchPad is, who works, and how jobs are sent to the queue.

``my_launchpad.yaml``, ``machine.yaml``, ``FW_config.yaml`` and the template of batch scripts belong to the user once
they are there. The workers and queue adapters follow from the machine profile and are written anew with it, unless
somebody has edited them.
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
# out of git and out of the campaign folder. Every node reads it, so it lies on a disk that all of them see.
host: localhost  # edit: the server's name as the *compute nodes* know it
port: 27017
name: activelearn  # edit: the database; many campaigns fit into one, but not those of two people
# username: me
# password: secret
# authsource: admin  # the database that knows the user; default: the one above

# TLS, as pymongo's MongoClient wants it:
# mongoclient_kwargs: {tls: true, tlsCAFile: /path/to/ca.pem}

# Or one URI instead of host, port, username and password (MongoDB Atlas gives one out):
# uri_mode: true
# host: mongodb+srv://me:secret@cluster0.example.mongodb.net/?authSource=admin
"""
FW_CONFIG: Final = """\
# Settings of FireWorks. `activelearn qlaunch` and `rlaunch` find them beside my_launchpad.yaml; FireWorks' own commands
# (lpad) want: export FW_CONFIG_FILE=<this file>. One in the working directory or in ~/.fireworks would count before it.
PING_TIME_SECS: 60  # a running job says so every minute (default: every hour) ...
RUN_EXPIRATION_SECS: 300  # ... and is lost after five without a word (default: four hours)
RESERVATION_EXPIRATION_SECS: 1209600  # longer than any wait in the queue, s: two weeks
WFLOCK_EXPIRATION_SECS: 300  # a worker killed while it held a Workflow's lock leaves it locked ...
WFLOCK_EXPIRATION_KILL: true  # ... and after this time the lock is taken, not an error raised
QUEUE_UPDATE_INTERVAL: 1  # s between two submissions (default 5)
QUEUE_RETRY_ATTEMPTS: 10  # that squeue may fail; the pauses double
QUEUE_JOBNAME_MAXLEN: 40  # enough for iteration, station and chunk (15: all that older PBS and Torque take)
RAPIDFIRE_SLEEP_SECS: 10  # s between two looks at the LaunchPad
PRINT_FW_JSON: false  # all jobs share one launch folder, and would write it over each other
REMOVE_USELESS_DIRS: false  # the same folder must stay
"""
#: slurmd signals the batch shell too; one without a trap dies at once, and Slurm then kills what still cleans up.
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
        What it says.
    written
        Names of the files that were written now.
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
            f"{profile}: exists - wanted a new folder for the preset {name_or_path} - activelearn machine --init "
            f"{shlex.quote(str(profile))} writes its workers and adapters anew; or choose another --to"
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
            f"{folder}: cannot be written ({error.strerror or error}) - wanted a folder - choose another with --to"
        ) from None
    return replace(site, written=tuple(sorted(new)))


def _config(machine: Machine) -> str:
    """Return FireWorks' settings, with job names as long as every batch system of the profile takes them."""
    most = min((NAME_LENGTHS[place.queue.system] for place in machine.places.values()), default=NAME_LENGTHS["slurm"])
    return FW_CONFIG.replace(f"MAXLEN: {NAME_LENGTHS['slurm']}", f"MAXLEN: {most}")


# --- what follows from the profile ------------------------------------------------------------------------------------


def categories(machine: Machine) -> dict[str, Place]:
    """Return the categories of a profile's Fireworks, each with the (first) place it stands for.

    Raises
    ------
    ConfigError
        Two places of one category want another shell: one adapter serves both.
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
                "- wanted the same, for one queue adapter serves both - give them the same, or two categories"
            )
    return found


def has_queue(place: Place) -> bool:
    """Return whether a place asks a batch system for anything."""
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
    """Return FireWorks' queue adapter of a category; the Fireworks' own queue settings count before those in it."""
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
                f"{site.profile}: $$ in {key} of category {category} - wanted none, for FireWorks drops such a line - "
                "write $BASHPID"
            )
    return found


def program() -> str:
    """Return how this interpreter's ``activelearn`` is called from anywhere, for a shell."""
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
    return f"# Follows from {profile.name}: edit that, and write this anew with: {how}\n# as written: {digest}\n{text}"


def _is_as_written(path: Path) -> bool:
    first, _, rest = path.read_text(encoding="utf-8").partition("\n")
    second, _, body = rest.partition("\n")
    digest = hashlib.sha256(body.encode()).hexdigest()[:16]
    return first.startswith("# Follows from ") and second == f"# as written: {digest}"


def _refuse_edited(site: ClusterFiles, derived: dict[str, str]) -> None:
    """Refuse to write over what somebody has edited, or has made by other means."""
    there = [path for name in derived if (path := site.folder / name).exists()]
    problems = [
        f"{path}: was edited by hand - wanted it as it was written, to write it anew - move it away, and say "
        f"what it says in {site.profile.name} (queue, setup)"
        for path in there
        if path.read_text(encoding="utf-8") != derived[path.name] and not _is_as_written(path)
    ]
    if problems:
        raise ConfigError(*problems)


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all; nobody else may read the one that is for a password, at no time."""
    mode = _PRIVATE if path.name == "my_launchpad.yaml" else 0o666  # of which the umask takes
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
    """Return what starts the workers of a category, by the files that stand beside my_launchpad.yaml.

    They send jobs to the queue; without an adapter for it the worker is one on this machine.
    """
    folder, suffix = launchpad.absolute().parent, f"_{category}" if category else ""
    worker, adapter = (folder / f"my_{kind}{suffix}.yaml" for kind in ("fworker", "qadapter"))
    files = f"-l {_word(launchpad.absolute())}" + (f" -w {_word(worker)}" if worker.is_file() else "")
    if adapter.is_file():
        return f"activelearn qlaunch -r -d 10 {files} -q {_word(adapter)} --launch_dir {_word(folder)} rapidfire -m 50"
    return f"activelearn rlaunch {files} rapidfire --nlaunches infinite"


def worker_lines(machine: Machine, launchpad: Path) -> list[str]:
    """Return what starts the workers of all categories of a profile."""
    return [worker_line(launchpad, category) for category in _category_names(machine)]


def _category_names(machine: Machine) -> list[str]:
    return list(dict.fromkeys(place.category or name for name, place in machine.places.items())) or [""]


def next_lines(site: ClusterFiles) -> list[str]:
    """Return what a person types next, in this order."""
    profile, launchpad = _word(site.profile), _word(site.launchpad)
    where = f"--machine {profile} -l {launchpad}"
    return [
        f"1. edit {launchpad} (host, database, user, password; it stays at mode 600)",
        f"2. edit {profile} (partitions, account, setup), then:  activelearn machine --init {profile}",
        f"3. what is wrong so far:  activelearn check CAMPAIGN {where}",
        "4. the workers; they stay when you log out, and may be ended (kill) and started again at any time:",
        *(f"     {_in_background(site, category)}" for category in _category_names(site.machine)),
        f"5. one tiny job to each place:  activelearn machine --smoke {where}",
        f"6. the campaign:  activelearn submit CAMPAIGN {where}",
        "7. look at it:  activelearn status runs/NAME",
        f"   something hangs:  activelearn doctor -l {launchpad}",
    ]


def _in_background(site: ClusterFiles, category: str) -> str:
    log = site.folder / (f"workers_{category}.log" if category else "workers.log")
    return f"nohup {worker_line(site.launchpad, category)} >> {_word(log)} 2>&1 &"
