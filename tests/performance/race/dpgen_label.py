"""One label of DP-GEN (``fp_style: custom``): the first task of a job loads the model once and labels all its siblings.

``python dpgen_label.py CALCULATOR.json`` in the folder of a task, with the interpreter of DP-GEN. A careful user of
DP-GEN would do it so, for a universal potential takes seconds to load and a tenth of a second to label. Jobs that run
side by side share the tasks by a lock on each.
"""

import fcntl
import json
import sys
import time
from importlib import import_module
from pathlib import Path

import dpdata
from ase.io import read

WRITTEN = "out.hdf5"


def calculator(asked):
    """Return the ASE calculator that ``calculator.json`` names."""
    module, _, name = asked["calculator"].partition(":")
    return getattr(import_module(module), name)(**asked["arguments"])


def label(task, found, type_map):
    """Label the frame of a task unless somebody has, or is at it."""
    out = task / WRITTEN
    with (task / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        if out.exists():
            return
        frame = read(task / "conf.poscar", format="vasp")
        frame.calc = found
        frame.get_potential_energy(), frame.get_forces(), frame.get_stress()
        part = out.with_name("part.hdf5")
        dpdata.LabeledSystem(frame, fmt="ase/structure", type_map=type_map).to("deepmd/hdf5", str(part))
        part.rename(out)


def main():
    here = Path.cwd()
    asked = json.loads(Path(sys.argv[1]).read_text())
    found = calculator(asked)
    for task in [*sorted(here.parent.glob("task.*")), here]:
        label(task, found, asked["type_map"])
    while not (here / WRITTEN).exists():  # a sibling job is at it; its lock ends with it, should it die
        time.sleep(0.1)
        label(here, found, asked["type_map"])


main()
