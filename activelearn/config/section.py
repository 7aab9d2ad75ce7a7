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

#: Context in which documents of a folder are read: a rule for what people write that came later is not for them.
SEALED: Final = {"is_sealed": True}


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def sections(cls) -> dict[str, type[Section]]:
        """Return the sections that it may have beside its fields, by key."""
        return {}

    @classmethod
    def alternatives(cls) -> list[type[Section]]:
        """Return the sections that may stand in its place, each with fields of its own."""
        return []


class Document(Section):
    """A section that is sealed by itself, resolved."""

    def to_yaml(self) -> str:
        """Return it as it is resolved; reading it back gives an equal one."""
        return dump(self.model_dump(mode="json"), width=110)

    @property
    def sha256(self) -> str:
        """Its checksum, as it is resolved; of a campaign the machine is no part."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def is_sealed(info: ValidationInfo) -> bool:
    """Return whether what is validated stands in a folder already, and is not what somebody writes now."""
    return bool((info.context or {}).get("is_sealed"))


def want_pairs_once(name: str, pairs: Iterable[str]) -> None:
    """Refuse a pair of elements named twice, by :data:`Pair` either way round: P-S and S-P are one."""
    named: dict[frozenset[str], str] = {}
    for pair in pairs:
        elements = frozenset(pair.split("-"))
        if elements in named:
            what = f"{name} names a pair twice ({named[elements]} and {pair})"
            raise ValueError(f"{what} - expected each once - remove one of them")
        named[elements] = pair


def as_name(*words: str) -> str:
    """Return a :data:`Name` of words, of which one may be the name of a file; empty if nothing of them is left."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", "-".join(words)).lstrip("-._+")[:60].rstrip("-.")


def want_different(name: str, values: Sequence[float]) -> None:
    """Refuse a number named twice: the tasks of the two would have one name."""
    written = [f"{value:g}" for value in values]
    if len(set(written)) < len(written):
        raise ValueError(f"{name} wants different numbers (to six digits), got {list(values)}")
