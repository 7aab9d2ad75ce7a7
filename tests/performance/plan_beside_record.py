"""What `check --plan` says beforehand beside what a campaign then took, station by station, in seconds of one slot.

``python tests/performance/plan_beside_record.py FOLDER`` reads the record of a campaign folder (``status --json``)
and bills what was done as `check --plan` would bill it on this machine now. ``--write FILE`` keeps the record, as those
in ``tests/data/plan``, which ``tests/test_scripts.py`` compares with the bill of the profile `local` as it is declared:
record it on a machine that does nothing else. ``--slots`` were those of the run, ``most_steps`` the steps of the walks
that shared a process (1: each had its own).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from activelearn import explore
from activelearn.check import cost, pace
from activelearn.config import Campaign, Machine, load_machine
from activelearn.status import as_dict
from activelearn.store import Store

#: Station: its tasks, and the seconds of all of them.
Record = dict[str, dict[str, Any]]


def record_of(found: dict[str, Any]) -> Record:
    """Return the stations of a ``status --json``; trainings are told apart, for the first has other steps."""
    out: Record = {}
    for iteration in found["iterations"]:
        for station, seconds in iteration["seconds"].items():
            if not seconds["tasks"]:
                continue
            name = station if station != "train" else f"train, {'later' if iteration['index'] else 'first'}"
            entry = out.setdefault(name, {"tasks": 0, "engine_total": 0.0})
            entry["tasks"] += seconds["tasks"]
            entry["engine_total"] += seconds["engine_total"]
            for cell in iteration["cells"] if station == "explore" else ():
                walks = entry.setdefault("walks", {})
                walks[cell["stage"]] = walks.get(cell["stage"], 0) + cell["counts"]["walks"]
    glasses = [glass["seconds"] for study in found["studies"] for glass in study["glasses"]]
    return out | ({"glass": {"tasks": len(glasses), "engine_total": sum(glasses)}} if glasses else {})


def billed(campaign: Campaign, machine: Machine, slower: float, record: Record) -> dict[str, float]:
    """Return what the stations of a record are billed, for as many tasks as it has."""
    bill = cost.estimate(campaign, machine, None, slower=slower)
    first, each = ({i.station: i for i in items} for items in ((*bill.initial, *bill.final), bill.one_pass))
    out = {}
    for name, entry in record.items():
        if name == "prepare":  # billed to its bound: a relaxation ends when the forces are small
            continue
        if name == "explore":
            of_stage = [(each.get(f"explore {stage}"), n) for stage, n in entry["walks"].items()]
            if None not in (item for item, _ in of_stage):  # no stage has gone since
                out[name] = sum((item.seconds or 0.0) * n / item.n_tasks for item, n in of_stage if item)
            continue
        station, _, which = name.partition(", ")
        items = first if which == "first" or station not in each else each
        if station in items:
            item = items[station]
            out[name] = (item.seconds or 0.0) * entry["tasks"] / item.n_tasks
    return out


def main() -> None:
    """Print the table, and keep the record if that is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    store = Store.open(given.folder)
    record = record_of(as_dict(store))
    machine = load_machine("local").model_copy(update={"slots": given.slots})
    found = billed(store.latest_campaign(), machine, slower := pace.slower(machine), record)
    print(f"this machine takes {slower:.2f} times as long as that of profile local\n")
    print("| station | tasks | billed, s | recorded, s | ratio |\n|---|---|---|---|---|")
    for name, entry in record.items():
        if name in found:
            s = entry["engine_total"]
            print(f"| {name} | {entry['tasks']} | {found[name]:.1f} | {s:.1f} | {found[name] / s:.2f} |")
    if given.write is not None:
        asked = {"campaign": store.latest_campaign().name, "slots": given.slots, "most_steps": explore.MOST_STEPS}
        content = asked | {"stations": record}
        given.write.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
