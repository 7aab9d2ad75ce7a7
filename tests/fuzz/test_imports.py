"""Damaged files of labels: no traceback, no hang, and nothing wrong that comes in without a word.

Files of each format are made from one true trajectory of EMT, damaged by seeded mutations, and imported into a fresh
ledger. What lands there must be frames of the undamaged file, to the bit, and what is missing must be counted with a
reason. Some mutations make another valid file (one digit of a coordinate): nobody can know, so those may differ.

ACTIVELEARN_FUZZ_IMPORTS=N makes N mutations in the slow test.
"""

import os
import shutil
import time
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from ase import units
from foreign_outputs import siesta
from labelled_walk import outcar_text, trajectory
from test_foreign_formats import OUTPUTS, text_file

from activelearn import exchange
from activelearn.errors import ConfigError
from activelearn.store import Ledger
from activelearn.writing import write_deepmd, write_extxyz

PBE = exchange.declared("functional=PBE,includes_dispersion=false,code=VASP-6.4.2")
N_FRAMES = 16
LONGEST_S = 60.0  # on a machine that does more than this


#: Outputs of other codes, and what makes them.
FOREIGN = {kind: make for kind, (make, _) in OUTPUTS.items()}
FOREIGN["siesta/aimd_output"] = text_file("siesta.out", siesta)


# --- files of each format ---------------------------------------------------------------------------------------------


def written(folder, frames, kind):
    """Write the frames in a format and return the path to import."""
    if kind == "extxyz":
        write_extxyz([frames], folder / "x.extxyz")
        return folder / "x.extxyz"
    if kind == "outcar":
        (folder / "OUTCAR").write_text(outcar_text(frames))
        return folder / "OUTCAR"
    if kind in FOREIGN:
        return FOREIGN[kind](folder, frames)
    if kind == "npz":
        exchange.import_labels(folder / "first", [written(folder, frames, "extxyz")], PBE)
        ledger = Ledger(folder / "first")
        ledger.refresh()
        exchange.export_labels(ledger, folder / "x.npz", PBE)
        return folder / "x.npz"
    (system,) = write_deepmd([frames], folder / "dp", ["Au", "Cu"])
    if kind == "raw":
        for path in (system / "set.000").glob("*.npy"):
            values = np.load(path)
            np.savetxt(system / f"{path.stem}.raw", values.reshape(len(values), -1), fmt="%.12f")
        shutil.rmtree(system / "set.000")
    return system


# --- mutations: each says what nobody can know of it ------------------------------------------------------------------

#: Nothing; that there were more frames; that the numbers were others.
NOTHING, LESS, ANYTHING = (), ("lost",), ("lost", "foreign")


def text_mutation(rng, path):
    """Damage a text file by lines or by bytes."""
    lines = path.read_text().splitlines()
    k, kind = (
        int(rng.integers(len(lines))),
        str(rng.choice(["drop", "double", "blank", "cut", "column", "word", "digit"])),
    )
    words = lines[k].split(" ")
    full = [i for i, word in enumerate(words) if word]
    i = int(rng.choice(full)) if full else None
    if kind == "drop":
        del lines[k]
    elif kind == "double":
        lines.insert(k, lines[k])
    elif kind == "blank":
        lines.insert(k, "")
    elif kind == "cut":
        del lines[k:]
    elif i is None:
        lines.insert(k, "x")
    elif kind == "column":
        words.insert(i, "0.5") if rng.random() < 0.5 else words.pop(i)
        lines[k] = " ".join(words)
    elif kind == "word":
        words[i] = str(rng.choice(["nan", "*****", "x", "1e300", "-inf"]))
        lines[k] = " ".join(words)
    else:
        at = int(rng.integers(len(words[i])))
        words[i] = words[i][:at] + str(rng.integers(10)) + words[i][at + 1 :]
        lines[k] = " ".join(words)
    path.write_text("\n".join(lines) + "\n")
    return f"{path.name} line {k + 1}: {kind}: {lines[k][:60] if k < len(lines) else ''}", {
        "digit": ANYTHING,
        "cut": LESS,
    }.get(kind, NOTHING)


def array_mutation(rng, path):
    """Damage one array of a set."""
    values = np.load(path)
    changes = {
        "cut": lambda x: x[: len(x) // 2],
        "longer": lambda x: np.concatenate([x, x[:1]]),
        "transposed": lambda x: x.T if x.ndim > 1 else x[:-1],
        "nan": lambda x: np.where(np.arange(x.size).reshape(x.shape) == rng.integers(x.size), np.nan, x),
        "huge": lambda x: x * 1.0e200,
        "half precision": lambda x: x.astype(np.float16),
        "whole numbers": lambda x: x.astype(int),
        "complex": lambda x: x.astype(complex),
        "text": lambda x: x.astype(str),
        "a column less": lambda x: x[:, :-1] if x.ndim > 1 else x[1:],
        "three axes": lambda x: x.reshape(len(x), 3, -1) if x.size > len(x) else x[None, None],
        "scalar": lambda x: np.float64(1.0),
    }
    if path.stem in {"energy", "force"}:
        changes |= {
            "in Hartree": lambda x: x / units.Hartree,
            "in kcal/mol": lambda x: x * units.mol / units.kcal,
            "of the other sign": lambda x: -x,
            "of the next frame": lambda x: np.roll(x, -1, axis=0),
            "of the frame before": lambda x: np.roll(x, 1, axis=0),
        }
    name = str(rng.choice(sorted(changes)))
    np.save(path, changes[name](values))
    return f"{path.stem} {name}", NOTHING


def folder_mutation(rng, system):
    """Damage a deepmd system."""
    arrays = sorted((system / "set.000").glob("*.npy"))
    kind = str(rng.choice(["array", "array", "array", "bytes", "empty", "missing", "types", "names"]))
    if kind == "array":
        return array_mutation(rng, arrays[rng.integers(len(arrays))])
    path = arrays[rng.integers(len(arrays))]
    if kind == "bytes":
        path.write_bytes(path.read_bytes()[: int(rng.integers(path.stat().st_size))])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "missing":
        path.unlink()
    elif kind == "types":
        types = (system / "type.raw").read_text().split()
        types[rng.integers(8)] = str(rng.choice(["7", "-1", "x", "", "0.5"]))
        (system / "type.raw").write_text("\n".join(types))
    else:
        (system / "type_map.raw").write_text(str(rng.choice(["Au", "Au\nAu", "Au\nXx", "", "A\x00u\nCu"])))
    return f"{path.stem} {kind}" if kind in {"bytes", "empty", "missing"} else kind, NOTHING


def npz_mutation(rng, path):
    """Damage an npz: its bytes, or its arrays before they are written again."""
    content = bytearray(path.read_bytes())
    kind = str(rng.choice(["bytes", "cut", "array", "missing"]))
    if kind == "bytes":
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        return kind, ANYTHING  # of a date, or of the names in the directory: nothing that is read
    if kind == "cut":
        path.write_bytes(content[: int(rng.integers(len(content)))])
        return kind, NOTHING
    arrays = dict(np.load(path, allow_pickle=False))
    name = str(rng.choice(sorted(arrays)))
    if kind == "missing":
        del arrays[name]
    else:
        value = arrays[name]
        arrays[name] = (
            [value[:-1], value[:0], np.concatenate([value, value])][rng.integers(3)] if value.ndim else value[None]
        )
    np.savez(path, **arrays)
    return f"{name} {kind}", NOTHING


def mutated(rng, path, kind):
    if kind in {"extxyz", "outcar"}:
        return text_mutation(rng, path)
    if kind == "raw" or kind in FOREIGN:
        folder = path if path.is_dir() else path.parent
        files = sorted(folder.glob("*.raw")) or sorted(file for file in folder.rglob("*") if file.is_file())
        return text_mutation(rng, files[rng.integers(len(files))])
    return npz_mutation(rng, path) if kind == "npz" else folder_mutation(rng, path)


# --- the fuzzer -------------------------------------------------------------------------------------------------------


def rows(folder):
    """One tuple of exact bytes a label; of one without a virial, the last is empty."""
    ledger = Ledger(folder)
    ledger.refresh()
    return {
        (
            part.symbols,
            *(getattr(part, name)[k].tobytes() for name in ("cell", "positions", "energy", "forces")),
            part.virial[k].tobytes() if part.has_virial[k] else b"",
        )
        for part in ledger.structures(PBE["sha256"])
        for k in range(len(part))
    }


KINDS = ("extxyz", "deepmd", "raw", "outcar", "npz", *FOREIGN)
FORMATS = {"raw": "deepmd"}


def fuzz(folder, n, seed):
    """Return how many mutations were told, harmless or another valid file; and those that came in without a word."""
    frames = trajectory(N_FRAMES)  # CP2K writes the first one twice, with eight and with ten decimals
    frames = replace(frames, cell=np.round(frames.cell, 8), positions=np.round(frames.positions, 8))
    clean, truth = {}, {}
    for kind in KINDS:
        (folder / kind / "clean").mkdir(parents=True)
        clean[kind] = written(folder / kind / "clean", frames, kind)
        n_new, tally = exchange.import_labels(folder / kind / "ledger", [clean[kind]], PBE, FORMATS.get(kind, kind))
        assert (n_new, tally.counts) == (N_FRAMES, {}), (kind, tally.sentences())
        truth[kind] = rows(folder / kind / "ledger")
    counts, silent = Counter(), []
    for i in range(n):
        rng, kind = np.random.default_rng([seed, i]), KINDS[i % len(KINDS)]
        place = folder / "now"
        shutil.copytree(folder / kind / "clean", place)
        path = place / clean[kind].relative_to(folder / kind / "clean")
        what, allowed = mutated(rng, path, kind)
        started, said = time.monotonic(), False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _, tally = exchange.import_labels(place / "ledger", [path], PBE, FORMATS.get(kind, kind))
            said = bool(tally.counts or tally.lacking)
        except ConfigError as error:
            said = error
        if said and isinstance(said, ConfigError):
            assert str(said).count(" - ") >= 2, said
            assert str(place) in str(said), said
        assert time.monotonic() - started < LONGEST_S, (kind, i, what)
        there = rows(place / "ledger") if (place / "ledger").is_dir() else set()
        whole = truth[kind] | ({(*row[:-1], b"") for row in truth[kind]} if said else set())
        foreign, lost = there - whole, {row[:-1] for row in truth[kind]} - {row[:-1] for row in there}
        if (foreign and "foreign" not in allowed) or (lost and not said and "lost" not in allowed):
            silent.append(
                f"{kind} {i}: {what}: {len(foreign)} foreign, {len(lost)} lost, {'told' if said else 'silent'}"
            )
        counts[kind, "other valid file" if foreign else "told" if said else "lost" if lost else "harmless"] += 1
        shutil.rmtree(place)
    print(f"{n} damaged imports:", ", ".join(f"{kind} {how} {k}" for (kind, how), k in sorted(counts.items())))
    print("\n".join(silent))
    return silent


def test_no_damaged_file_brings_in_wrong_labels_in_silence(tmp_path):
    assert fuzz(tmp_path, 200, seed=1) == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_many_damaged_files_bring_in_no_wrong_labels_in_silence(tmp_path):
    assert fuzz(tmp_path, int(os.environ.get("ACTIVELEARN_FUZZ_IMPORTS", "3000")), seed=2) == []
