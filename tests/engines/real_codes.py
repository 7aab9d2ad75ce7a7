"""What the tests of codes that run one structure at a time share: workers by path, and labels against differences."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np

from activelearn.engines import process, reference
from activelearn.errors import EngineError
from activelearn.frames import Frames

WORKERS = Path(process.__file__).with_name("workers")


def worker(name):
    """Import a worker, which is started by path."""
    path = WORKERS / f"{name}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    sys.path.insert(0, str(WORKERS))  # as Python does
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


def in_process(module, engine, monkeypatch, folder):
    """Carry out the jobs of a worker in this process, in folders that stay."""

    def run_job(_command, request, _slot):
        job = folder / f"job-{len(list(folder.glob('job-*')))}"
        job.mkdir()
        request = json.loads(json.dumps(request))
        one = module.single_points
        answer = one.answering.answer(request, lambda request: one.loaded(module.CODE, request, job))
        if {"error", "unable"} & answer.keys():
            raise EngineError(answer.get("error", answer.get("unable")))
        return answer

    monkeypatch.setattr(engine, "run_job", run_job)


def moved(frame, atom, axis, step):
    """Return the frame with one atom moved."""
    positions = frame.positions.copy()
    positions[0, atom, axis] += step
    return Frames(frame.symbols, frame.cell, positions)


def strained(frame, i, j, step):
    """Return the frame with one component of the strain (symmetric)."""
    strain = np.eye(3)
    strain[i, j] += step / 2.0
    strain[j, i] += step / 2.0
    return Frames(frame.symbols, frame.cell @ strain, frame.positions @ strain)


def slope(what, make, step, slot, of=lambda label: label.energy):
    """Return the central difference of what is labelled along `make`(step)."""
    low, high = (of(reference.label(what, make(sign * step), slot)) for sign in (-1.0, 1.0))
    return (high - low) / (2.0 * step)
