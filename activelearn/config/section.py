"""Base of all sections of a campaign: immutable, unknown keys refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=60)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Element = Annotated[str, Field(pattern=r"^[A-Z][a-z]?$")]
Pair = Annotated[str, Field(pattern=r"^[A-Z][a-z]?-[A-Z][a-z]?$")]
BatchRule = Annotated[str, Field(pattern=r"^auto(:[1-9][0-9]*)?$")]


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def want_different(name: str, values: Sequence[float]) -> None:
    """Refuse a number named twice: the tasks of the two would have one name."""
    written = [f"{value:g}" for value in values]
    if len(set(written)) < len(written):
        raise ValueError(f"{name} wants different numbers (to six digits), got {list(values)}")
