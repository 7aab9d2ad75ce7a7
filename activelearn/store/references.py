"""References of a ledger: ``references/<sha16>.json`` describes each reference that labelled, once.

The checksum of an identity goes into the keys of its labels, so it is compared whenever an identity is read: an edited
one (another functional) is not the identity of any label.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from activelearn.store.files import publish_json

#: Folder of the identities in a ledger.
REFERENCES: Final = "references"


def identity_sha256(identity: Mapping[str, Any]) -> str:
    """Return the checksum of an identity (without its own ``sha256``), as it goes into the keys of labels."""
    content = {key: value for key, value in identity.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def reference_file(folder: Path, sha256: str) -> Path:
    """Return the path of the identity with this checksum in a ledger."""
    return folder / REFERENCES / f"{sha256[:16]}.json"


def publish_reference(folder: Path, identity: Mapping[str, Any]) -> None:
    """Publish the identity of a reference, once and before its first label, so that no label is without it."""
    path = reference_file(folder, str(identity["sha256"]))
    if not path.is_file():
        publish_json(path, dict(identity))


def read_references(folder: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the identities of a ledger by their sha256, and one sentence for each file that is not one."""
    known: dict[str, dict[str, Any]] = {}
    said = []
    for path in sorted((folder / REFERENCES).glob("*.json")):
        try:
            identity = json.loads(path.read_bytes())
            sha = identity_sha256(identity)
            if identity["sha256"] != sha:
                problem = "checksum mismatch: its content does not have the sha256 in it"
            elif path != reference_file(folder, sha):
                problem = f"contains reference {sha[:16]}, not the one in its name"
            else:
                known[sha] = identity
                continue
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            problem = "damaged"
        said.append(
            f"{path}: {problem} - expected the identity of what labelled, as it was written - restore the file from a "
            "copy; until then the origin of its labels is unknown, and they are not exported"
        )
    return known, said
