"""Base of all sections of a campaign: immutable, unknown keys refused."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationInfo

from activelearn.config.bounds import of
from activelearn.config.yaml12 import dump

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=60)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Element = Annotated[str, Field(pattern=r"^[A-Z][a-z]?$")]
Mesh = tuple[PositiveInt, PositiveInt, PositiveInt]
Pair = Annotated[str, Field(pattern=r"^[A-Z][a-z]?-[A-Z][a-z]?$")]
BatchRule = Annotated[str, Field(pattern=r"^auto(:[1-9][0-9]*)?$")]
Temperature = Annotated[PositiveFloat, of("temperature")]
Share = Annotated[Fraction, of("share")]
ForceLeft = Annotated[PositiveFloat, of("force left by a relaxation")]
ForceDeviation = Annotated[PositiveFloat, of("force deviation")]
NumberOfLabels = Annotated[PositiveInt, of("number of labels")]

#: Context in which documents of a folder are read: rules for user input that were added later do not apply to them.
SEALED: Final = {"is_sealed": True}


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def sections(cls) -> dict[str, type[Section]]:
        """Return the sections that it may have in addition to its fields, by key."""
        return {}

    @classmethod
    def alternatives(cls) -> list[type[Section]]:
        """Return the sections that may replace it, each with its own fields."""
        return []


class Document(Section):
    """A section that is sealed as a document of its own, resolved."""

    def to_yaml(self) -> str:
        """Return it in resolved form; reading it back gives an equal one."""
        return dump(self.model_dump(mode="json"), width=110)

    @property
    def sha256(self) -> str:
        """Checksum of its resolved form; the machine is not part of a campaign."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def is_sealed(info: ValidationInfo) -> bool:
    """Return whether a sealed document is validated, and not new user input."""
    return bool((info.context or {}).get("is_sealed"))


def want_pairs_once(name: str, pairs: Iterable[str]) -> None:
    """Refuse a pair of elements named twice, in either order (:data:`Pair`): P-S equals S-P."""
    named: dict[frozenset[str], str] = {}
    for pair in pairs:
        elements = frozenset(pair.split("-"))
        if elements in named:
            what = f"{name} names a pair twice ({named[elements]} and {pair})"
            raise ValueError(f"{what} - expected each once - remove one of them")
        named[elements] = pair


def as_name(*words: str) -> str:
    """Return a :data:`Name` of words, one of which may be a file name; empty if nothing is left of them."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", "-".join(words)).lstrip("-._+")[:60].rstrip("-.")


def want_different(name: str, values: Sequence[float]) -> None:
    """Refuse duplicate numbers, whose tasks would have the same name."""
    written = [f"{value:g}" for value in values]
    if len(set(written)) < len(written):
        raise ValueError(f"{name} needs different numbers (to six digits), got {list(values)}")
