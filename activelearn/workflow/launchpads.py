"""LaunchPads: one in the memory of this process, and the shared one of a cluster."""

from __future__ import annotations

import re
import secrets
import uuid
from pathlib import Path
from typing import Any, Final

import fireworks.core.launchpad
import pymongo
import pymongo.errors
from fireworks import FWorker, LaunchPad
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from activelearn.errors import ActiveLearnError, ConfigError
from activelearn.loop import Phase

_QUIET: Final = "CRITICAL"
#: How long a server may take to answer before it is considered unreachable.
ANSWER_S: Final = 5.0
#: Keys of a my_launchpad.yaml; those of TLS are in mongoclient_kwargs (the ssl_* of old FireWorks are ignored).
_KEYS: Final = frozenset({"host", "name", "port", "username", "password", "authsource", "uri_mode"}) | frozenset(
    {"mongoclient_kwargs", "logdir", "strm_lvl", "user_indices", "wf_user_indices"}
)
#: Types of the values of these keys for pymongo, and the advice for others.
_KINDS: Final[dict[str, tuple[type, str]]] = {
    **dict.fromkeys(("host", "name", "username", "password", "authsource"), (str, "a text - put it in quotes")),
    "port": (int, "a whole number - write it without quotes"),
    **dict.fromkeys(("strm_lvl", "logdir"), (str, "a text, or leave it out - fix it")),
    "uri_mode": (bool, "true or false, without quotes - fix it"),
    "mongoclient_kwargs": (dict, "a mapping, such as {tls: true} - fix it"),
}
_WANTED: Final = "expected the my_launchpad.yaml of FireWorks - activelearn machine --init slurm writes one"
_NO_LAUNCHPAD: Final = (
    "not that of a LaunchPad ({}) - expected host, port, name, strm_lvl and logdir as FireWorks takes them - "
    "activelearn machine --init slurm"
)


class EmbeddedLaunchPad(LaunchPad):  # type: ignore[misc]
    """A LaunchPad in the memory of this process (mongomock); no other process can see it, and nothing is lost with it.

    Parameters
    ----------
    phase
        What its Firetasks work on, in the folder that the driver has open: sealed files are read once and not by each
        of them. None: they open their folder themselves.

    Attributes
    ----------
    error
        The exception that a Firetask raised.
    """

    def __init__(self, phase: Phase | None = None) -> None:
        try:
            import mongomock
        except ImportError as error:
            raise ConfigError(
                "mongomock: not installed - expected for the embedded LaunchPad - pip install 'activelearn[local]'"
            ) from error
        self.phase = phase
        self.error: ActiveLearnError | None = None
        module = fireworks.core.launchpad
        saved = module.MongoClient, module.GRIDFS_FALLBACK_COLLECTION
        module.MongoClient, module.GRIDFS_FALLBACK_COLLECTION = mongomock.MongoClient, None
        try:
            super().__init__(strm_lvl=_QUIET)
        finally:
            module.MongoClient, module.GRIDFS_FALLBACK_COLLECTION = saved
        self.reset("", require_password=False)

    def ping_launch(self, launch_id: int, ptime: Any = None, checkpoint: Any = None) -> None:  # noqa: ANN401
        """Do nothing: the heartbeat thread would race with completion (mongomock is not atomic there)."""


class SharedLaunchPad(LaunchPad):  # type: ignore[misc]
    """The LaunchPad of a cluster, in a MongoDB; FireWorks' own with two changes.

    Ids are read from the document *after* the increment: a store that does not isolate reading the document before it
    from other writers assigns an id twice. And loading from a file returns one of this class.
    """

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> SharedLaunchPad:
        """Return the LaunchPad that a dictionary (of my_launchpad.yaml) describes."""
        return cls(**{key: value for key, value in d.items() if key in _KEYS})

    @property
    def identity(self) -> str:
        """Its address: host, port and database, without credentials."""
        return identity(self.host, self.port, self.name, uri_mode=self.uri_mode)

    def get_new_fw_id(self, quantity: int = 1) -> int:
        """Return the first of `quantity` unique ids of Fireworks."""
        return self._new_id("next_fw_id", quantity)

    def get_new_launch_id(self) -> int:
        """Return a unique id of a launch."""
        return self._new_id("next_launch_id", 1)

    def _new_id(self, counter: str, quantity: int) -> int:
        after = self.fw_id_assigner.find_one_and_update(
            {}, {"$inc": {counter: quantity}}, return_document=pymongo.ReturnDocument.AFTER
        )
        if after is None:
            raise ValueError(
                f"{self.identity}: an empty database - run `activelearn submit` again, which sets it up again"
            )
        return int(after[counter]) - quantity

    def future_run_exists(self, fworker: FWorker | None = None) -> bool:
        """Return whether there is or will be something to run, even while an iteration's last Firework adds the next.

        FireWorks only considers Fireworks with children, so workers would leave at the end of each iteration.
        """
        at_work = {"state": {"$in": ["READY", "RESERVED", "RUNNING"]}}
        return super().future_run_exists(fworker) or self.workflows.find_one(at_work) is not None

    def prepare(self) -> str:
        """Initialise the database if it is empty; one in use is left alone. Return its identity.

        Launches are not counted from 1: workers of a database that was dropped may be alive, and their last updates,
        which refer to a launch by its id, would complete another Firework here.
        """
        if self.workflows.find_one() is None:
            if self.fw_id_assigner.find_one() is None:
                self.reset("", require_password=False)
            self.fw_id_assigner.update_one({}, {"$set": {"next_launch_id": 1 + secrets.randbelow(2**30)}})
        new = {"uuid": uuid.uuid4().hex}
        self.db.activelearn.update_one({"_id": "database"}, {"$setOnInsert": new}, upsert=True)
        return database_id(self) or new["uuid"]


def database_id(launchpad: LaunchPad) -> str | None:
    """Return the identity of a LaunchPad's database, whatever its address; a dropped one has none."""
    found = launchpad.db.activelearn.find_one({"_id": "database"})
    return None if found is None else str(found["uuid"])


def identity(host: str, port: int | None, name: str, *, uri_mode: bool) -> str:
    """Return host, port and database of a LaunchPad; user and password are removed, wherever they are."""
    where = re.sub(r"^[\w+]+://", "", host).rpartition("@")[2].split("?")[0].split("/")[0]
    where = re.sub(r":(?!\d+(,|$))[^,]*", "", where)  # no port: a password whose host is missing
    return f"{where}/{name}" if uri_mode else f"{where}:{port or 27017}/{name}"


def connect(path: Path) -> SharedLaunchPad:
    """Return the LaunchPad of a my_launchpad.yaml whose server answers.

    Raises
    ------
    ConfigError
        There is no such file, it is not that of a LaunchPad, the server does not answer, or authentication failed. No
        message contains credentials.
    """
    described = _described(path)
    by_uri = bool(described.get("uri_mode"))
    where = identity(str(described["host"]), described.get("port"), described["name"], uri_mode=by_uri)
    patience = {"serverSelectionTimeoutMS": int(1000 * ANSWER_S), **(described.get("mongoclient_kwargs") or {})}
    try:
        launchpad = SharedLaunchPad.from_dict({"strm_lvl": _QUIET, **described, "mongoclient_kwargs": patience})
        launchpad.connection.admin.command("ping")
        launchpad.fw_id_assigner.find_one()
    except pymongo.errors.OperationFailure as error:  # it answers with an error
        said = (error.details or {}).get("codeName", "refused")
        raise ConfigError(
            f"{path}: authentication failed at {where} ({said}) - expected a user who may read and write that database "
            "- fix username, password and authsource in it"
        ) from None
    except (pymongo.errors.PyMongoError, ValueError, TypeError, AttributeError, OSError) as error:
        if _is_unescaped(str(described["host"])):
            raise ConfigError(
                f"{path}: host: user or password of the URI contains a reserved character - expected %40 "
                "for @, %3A for :, %2F for /, %25 for % (and so on: urllib.parse.quote_plus) - fix it"
            ) from None
        if isinstance(error, pymongo.errors.ConfigurationError):
            raise ConfigError(f"{path}: {_misfit(where, error)}") from None
        if not isinstance(error, pymongo.errors.PyMongoError):
            raise ConfigError(f"{path}: {_NO_LAUNCHPAD.format(type(error).__name__)}") from None
        patience_s = patience["serverSelectionTimeoutMS"] / 1000
        raise ConfigError(
            f"{path}: no answer from {where} within {patience_s:g} s ({type(error).__name__}) - expected a MongoDB "
            "that this machine can reach - start it, or fix host and port (a firewall? TLS?)"
        ) from None
    return launchpad


def _misfit(where: str, error: pymongo.errors.ConfigurationError) -> str:
    """Return why pymongo is incompatible with a server or its description; its own text may quote secrets."""
    ours = f"pymongo {pymongo.version}"
    if least := re.search(r"requires at least [^(]*\(MongoDB ([\d.]+)\)", str(error)):
        return (
            f"the MongoDB of {where} is too old for {ours} - expected MongoDB {least[1]} or newer - ask for an upgrade"
        )
    if "only supports up to" in str(error):
        return f"the MongoDB of {where} is too new for {ours} - expected one that it supports - pip install -U pymongo"
    return (
        f"{ours} does not accept the description of {where} ({type(error).__name__}) - expected host, authsource and "
        "mongoclient_kwargs as pymongo defines them - escape special characters in a URI's user and password (%40 for "
        "@)"
    )


def _is_unescaped(host: str) -> bool:
    """Return whether what may be user and password of a URI has characters that are not percent-encoded."""
    credentials, at, _ = host.partition("://")[2].rpartition("@")
    return bool(at) and re.search(r"[/?#\[\]@]|:.*:|%(?![0-9A-Fa-f]{2})", credentials) is not None


def read_as_fireworks(path: Path) -> Any:  # noqa: ANN401 - raw YAML
    """Return the content of one of FireWorks' own files as FireWorks reads it, which differs from PyYAML.

    Raises
    ------
    ConfigError
        It does not exist or is not YAML; its text is not quoted, as it may contain a password.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file - {_WANTED}") from None
    except (OSError, ValueError, YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{path}{line}: cannot be read ({type(error).__name__}) - {_WANTED}") from None


def _described(path: Path) -> dict[str, Any]:
    found = read_as_fireworks(path)
    if not isinstance(found, dict) or not found.get("host") or not found.get("name"):
        raise ConfigError(f"{path}: no host or no name - {_WANTED}")
    if unknown := sorted(key for key in map(str, found) if key not in _KEYS and not key.startswith("ssl")):
        keys = "expected the keys of FireWorks' LaunchPad - activelearn machine --init slurm writes one"
        raise ConfigError(f"{path}: unknown {', '.join(unknown)} - {keys}")
    for key, (kind, expected) in _KINDS.items():
        value = found.get(key)
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise ConfigError(f"{path}: {key}: FireWorks reads it as {_kind(value)} - expected {expected}")
    return found


def _kind(value: Any) -> str:  # noqa: ANN401 - raw YAML
    """Return the type of a value, never the value, which may be a password."""
    numbers = dict.fromkeys((int, float), "a number")
    names = {bool: "true or false", **numbers, str: "a text", list: "a list", dict: "a mapping"}
    return names.get(type(value), "a date")
