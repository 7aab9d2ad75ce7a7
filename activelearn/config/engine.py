"""Definition of a label engine; ours and those of other packages are in one table, by the name in `engine`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from activelearn.config.machine import Machine
from activelearn.config.section import Section
from activelearn.plugins import Group

if TYPE_CHECKING:
    from activelearn.config.labelling import Reference


@dataclass(frozen=True)
class ReferenceEngine:
    """Everything about a code that labels.

    Parameters
    ----------
    ask
        ``ask(reference, job, slot, **request)`` returns the answer to a job (label, md, relax), JSON-able: energy (eV),
        forces (eV/Å), virial (eV; None with ``stress=False`` in the request), started and finished (Unix times), or
        ``refused``, the reason of a physical failure; see ``engines/workers/answering.py``. Other failures raise
        :class:`activelearn.errors.EngineError`.
    identity
        ``identity(reference, slot)`` returns what the labels depend on: version, weights_sha256, arguments (settings,
        never a path), and d3_version if there is a d3.
    needs
        Required keys of the reference, out of `calculator` and `command`; the other one is refused.
    settings
        Its section, under its name: ``label.reference.vasp``. A path in it is a ``FilePath`` or a ``FolderPath``.
    movable
        Keys of its section that set where and how it runs, not what it computes; they may change during a campaign.
    check_settings
        Raises ValueError if the reference contradicts itself.
    elements
        Those that it can label, as far as its settings tell; None: not known without starting it.
    problems
        ``problems(reference, machine, where)`` returns what is missing on this machine, one line each.
    """

    ask: Callable[..., dict[str, Any]]
    identity: Callable[..., dict[str, Any]]
    needs: frozenset[str] = frozenset()
    settings: type[Section] | None = None
    movable: tuple[str, ...] = ()
    check_settings: Callable[[Reference], None] = lambda _reference: None
    elements: Callable[[Reference], frozenset[str] | None] = lambda _reference: None
    problems: Callable[[Reference, Machine, str], list[str]] = lambda *_: []


#: The label engines of this package.
_NAMES: Final = ("ase", "gpaw", "vasp", "espresso", "cp2k", "abacus", "aims")
REFERENCES: Final = Group(
    "activelearn.references",
    {name: f"activelearn.engines.references.{name}:ENGINE" for name in _NAMES},
    "activelearn.config.engine:ReferenceEngine",
)


def engine_of(name: str) -> ReferenceEngine:
    """Return the label engine of a name.

    Raises
    ------
    ConfigError
        There is none, or the package that adds it is broken.
    """
    found: ReferenceEngine = REFERENCES.find(name)
    return found
