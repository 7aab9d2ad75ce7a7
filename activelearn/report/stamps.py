"""Stamps: numbers that need a caveat, and how tables and figures show it.

UNTRUSTED: the path left the window of its potential. NOT MELTED: the melt has not left its start. UNSTABLE: no
stable solid has such a value. A caveat is a reservation in the note of a result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from activelearn.records import Curve, Result
from activelearn.stamping import MELT_WANTS, NOT_MELTED, UNSTABLE, UNTRUSTED, joined

CAVEAT: Final = "caveat"
_TRUST: Final = "trust"
#: Signs of a doubt in a table.
MARKS: Final = {UNTRUSTED: "†", NOT_MELTED: "¶", UNSTABLE: "‡", CAVEAT: "§"}
#: Phrases in the note of an unreliable number.
_CAVEATS: Final = ("not converged", "not finished in the steps allowed", "not relaxed", "at constant volume")
#: The kinds of doubt in a stamp, in order, and the extent of each; for the last all that follows.
_EXTENTS: Final = {UNSTABLE: "[^;]*", NOT_MELTED: "[^;]*", UNTRUSTED: ".*"}
#: For these, a table shows the worst of a potential once, since their text contains shares.
_OF_GLASSES: Final = (UNTRUSTED, NOT_MELTED)
#: Beginning of the note of a fit, followed by what was left out.
_FITTED: Final = "from "


def stamp_of(shown: Result | Curve) -> str | None:
    """Return the stamp of a number or line; older studies have UNSTABLE in the note, or not at all."""
    if isinstance(shown, Curve) or UNSTABLE in (shown.stamp or ""):
        return shown.stamp
    noted = re.search(rf"{UNSTABLE}: [^;]*", shown.note or "")
    is_negative = shown.unit == "GPa" and shown.name != "C12" and shown.value <= 0.0
    said = noted.group() if noted else f"{UNSTABLE}: not positive" if is_negative else None
    return "; ".join(filter(None, (said, shown.stamp))) or None


def is_doubted(shown: Result | Curve) -> bool:
    """Return whether a number or line is hollow or dashed in a figure: UNTRUSTED, NOT MELTED or UNSTABLE."""
    return bool(doubts(shown).keys() & _EXTENTS.keys())


def is_unstable(shown: Result | Curve) -> bool:
    """Return whether no stable solid has this value, which is then not averaged."""
    return UNSTABLE in doubts(shown)


def doubts(shown: Result | Curve) -> dict[str, str]:
    """Return the doubts in words, by kind (the keys of MARKS)."""
    found = {kind: text for kind, text in _parts(stamp_of(shown) or "").items() if kind in _EXTENTS}
    note = (shown.note if isinstance(shown, Result) else None) or ""
    caveats = [caveat for caveat in _CAVEATS if caveat in note and not note.startswith(_FITTED)]
    return found | ({CAVEAT: ", ".join(caveats)} if caveats else {})


def marks(shown: Iterable[Result]) -> str:
    """Return the marks of all doubts of some results."""
    found = {kind for one in shown for kind in doubts(one)}
    return "".join(sign for kind, sign in MARKS.items() if kind in found)


def worst(stamps: Iterable[str | None]) -> str | None:
    """Return the worst of every kind of doubt: the larger share; UNTRUSTED before any other trust."""
    found: dict[str, list[str]] = {UNSTABLE: [], NOT_MELTED: [], _TRUST: []}
    for stamp in stamps:
        for kind, text in _parts(stamp or "").items():
            found[kind if kind in found else _TRUST].append(text)
    return joined(max(texts, key=_weight) for texts in found.values() if texts)


def _weight(text: str) -> tuple[bool, bool, float]:
    shares = [float(share) for share in re.findall(r"([0-9.]+) %(?! at or above f_lo)", text)]
    return UNTRUSTED in text, bool(shares), max(shares, default=0.0)


def _parts(stamp: str) -> dict[str, str]:
    """Return the parts of a stamp by the kind of doubt; the rest, such as a tolerated share, as trust."""
    found: dict[str, str] = {}
    for kind, extent in _EXTENTS.items():
        if said := re.search(f"{kind}: {extent}", stamp):
            found[kind] = said.group()
            stamp = stamp.replace(said.group(), "").strip("; ")
    return found | ({_TRUST: stamp} if stamp else {})


def by_potential(shown: Iterable[Result | Curve]) -> dict[str, str]:
    """Return the worst stamp of every potential among the results or curves, in order."""
    found: dict[str, str] = {}
    for one in shown:
        potential, stamp = one.condition.get("potential"), stamp_of(one)
        if potential is not None and stamp is not None:
            found[str(potential)] = worst([found.get(str(potential)), stamp]) or stamp
    return found


def legend(results: Sequence[Result]) -> list[str]:
    """Return one line per doubt: its mark, what it is, and the potential, numbers and compositions."""
    found: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        for kind, text in doubts(result).items():
            key = (kind, str(result.condition.get("potential", "")), "" if kind in _OF_GLASSES else text)
            found.setdefault(key, []).append(result)
    order = list(MARKS)
    lines = []
    for (kind, potential, text), mine in sorted(found.items(), key=lambda item: order.index(item[0][0])):
        said = text or worst(doubts(one)[kind] for one in mine)
        names = f": {', '.join(dict.fromkeys(one.name for one in mine))}" if text else ""
        xs = sorted({float(one.condition["x"]) for one in mine if "x" in one.condition})
        where = f" at x = {', '.join(f'{x:g}' for x in xs)}" if xs else ""
        more = "" if text else "; the largest share" + (f"; {MELT_WANTS}" if kind == NOT_MELTED else "")
        lines.append(f"{MARKS[kind]} {said} ({potential}{names}{where}{more}).")
    return lines
