"""Fireworks that wait for a worker of their category, where there seems to be none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from activelearn.units import duration
from activelearn.workflow.doctor.picture import STALE_S, Flow, Picture, last_sign
from activelearn.workflow.doctor.words import Finding, counted
from activelearn.workflow.site import worker_line

_AT_WORK = ("RESERVED", "RUNNING")


def idle_categories(
    picture: Picture, flows: Iterable[Flow], file: Path, *, but: Container[str] = ()
) -> Iterator[Finding]:
    """Yield the categories in which something has been READY for long, without a worker at work or in the queue.

    A worker counts as long as it has a Firework, even in the queue, or had one within the last minutes: it then looks
    for the next one. Workers of all campaigns count, and those without a category, which take everything.

    Parameters
    ----------
    picture
        The LaunchPad.
    flows
        The Workflows that may wait for nothing but workers.
    file
        my_launchpad.yaml.
    but
        Categories of which something else is said.
    """
    ready: dict[str, list[float]] = defaultdict(list)
    for flow in flows:
        for fw_id in flow.in_state("READY"):
            if category := flow.fireworks[fw_id]["spec"].get("_category"):
                ready[category].append(flow.changed(fw_id))
    launches, fireworks = picture.launchpad.launches, picture.launchpad.fireworks
    for category, since in sorted(ready.items()):
        if category in but:
            continue
        if picture.age(max(since)) <= STALE_S or fireworks.find_one({"spec._category": category, **_busy()}):
            continue
        theirs = {"fworker.category": {"$in": [category, ""]}}
        if launches.find_one({**theirs, **_busy()}):
            continue
        last = max(map(last_sign, launches.find(theirs, {"state_history": 1})), default=None)
        if last is not None and picture.age(last) <= STALE_S:
            continue
        seen = ", ".join(sorted(filter(None, launches.distinct("fworker.category")))) or "none"
        have = "has" if len(since) == 1 else "have"
        nobody = "no worker of this category has taken any" + (
            "" if last is None else f" for {duration(picture.age(last))}"
        )
        yield Finding(
            "idle",
            f"{counted(len(since), 'READY Firework')} of category {category} {have} waited for "
            f"{duration(picture.age(min(since)))}, and {nobody} (categories of the workers seen so far: {seen})",
            f"start one: {worker_line(file, category)} (unless a job of it is pending in the queue: without -r, "
            "qlaunch leaves no trace here)",
        )


def _busy() -> dict[str, object]:
    return {"state": {"$in": list(_AT_WORK)}}
