"""How many labels of a costly reference a teacher saves: one student, trained from scratch and distilled.

    .venv/bin/python tests/performance/distillation.py FOLDER --minutes 60
    .venv/bin/python tests/performance/distillation.py FOLDER --reference 7net-l3i5 --modal "" --minutes 60
    .venv/bin/python tests/performance/distillation.py FOLDER --table

Structures are those of ``recipes/``: frames of Na3PS4 of 24 to 48 atoms, melt to crystal, to train on; and frames of 96
atoms from other packings (300 to 1100 K), held out. The costly reference is 7net-mf-0 with its modal R2SCAN, another
functional than that of the foundation, unless ``--reference`` and ``--modal`` name another; the labels in ``recipes/``
are not used. The teacher is a committee that begins as 7net-0 and is fine-tuned on n labels by the preset
`sevennet_finetune`, with fewer members and steps and a higher rate; it labels the other structures where its members
agree. The student is the preset `quick`, one net. Rows:

* from scratch: the student on n labels of the reference;
* distilled: the student on the same n labels and those of the teacher;
* zero labels: 7net-0 as it is, and the student on its labels alone.

Whether a reference is a fair test says one number that needs no training, which is printed first: the force RMSE of the
foundation as it is. Where that is not clearly above the student's floor (from scratch on all structures) no label can
be saved.

Labels of the held-out frames measure all rows alike and are not counted. Each piece is written to
``results-STEPS.json`` (STEPS: those of the student's training, ``--steps``) when it is done and skipped when it is
there: the same command after a kill continues. What a teacher labels is kept, too, for students of another number of
steps. With ``--minutes`` no piece begins after so many CPU minutes in all. One process works at a time, with one
thread.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import ase.io
import numpy as np
from test_recipes import ELEMENTS, cpu_of_children
from test_recipes import HERE as STRUCTURES

from activelearn.config import Machine, TrainingRun, trainer_of
from activelearn.config.files import preset_file, read_yaml
from activelearn.config.trainer import TrainingData
from activelearn.config.training import Train
from activelearn.distil import committee
from activelearn.engines import process
from activelearn.engines.process import Slot
from activelearn.engines.trainers.deepmd.settings import DeePMDTrain
from activelearn.engines.trainers.sevennet import TRAINER, foundations
from activelearn.engines.trainers.sevennet.settings import SevenNetTrain
from activelearn.frames import FloatArray, Frames, by_composition, pack, unpack
from activelearn.prediction import errors
from activelearn.select import pairs
from activelearn.store.files import publish_npz, read_npz, replace_json

FOUNDATION = "7net-0"
#: Structures to train on; every so-many-th of the held-out ones is measured on.
N_POOL, HELD_OUT_EVERY = 100, 3
#: Neighbours within 5 Å of Na, P and S that the student holds: more than these structures have.
SEL = ((20, 10, 22),)
MEMBERS, STEPS, BATCH, MAX_DEVI_F = 2, 40, 1, 0.3
#: For so few steps: a member of ten labels has 0.048 eV/Å on ten others of the pool, and 0.068 with the preset's 1e-3.
RATE = {"start": 4.0e-3, "stop": 1.0e-4}
COVERAGE = 0.9
#: Row and number of labels, in the order of their worth: for the first random seed, and then for each other one. Five
#: times as many labels as a distilled row stand beside it: 5 and 25, 10 and 50, 20 and all.
FIRST = (
    *(("scratch", 5), ("scratch", 25), ("distilled", 5), ("scratch", 10), ("scratch", N_POOL), ("distilled", 10)),
    *(("scratch", 50), ("distilled", 20), ("zero", 0), ("scratch", 20), ("scratch", 40), ("scratch", 80)),
)
OTHERS = (
    *(("scratch", 5), ("scratch", 25), ("distilled", 5), ("scratch", N_POOL), ("distilled", 20), ("scratch", 20)),
    ("scratch", 80),
)
LAST = (("distilled", 40), ("distilled", 80))
SEEDS = 3


@dataclass
class Work:
    """The folder of the results, where pieces are worked on, and the reference: a foundation, and its modal if any."""

    folder: Path
    slot: Slot
    reference: str
    modal: str
    steps: int

    def scratch(self, name: str) -> Path:
        """Return an empty folder."""
        path = self.folder / "scratch" / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def labelled(self, name: str, parts: Sequence[Frames], foundation: str, modal: str = "") -> list[Frames]:
        """Return frames with the labels of a foundation as it is; they are computed once."""
        path = self.folder / f"{'-'.join(filter(None, (name, 'by', foundation, modal)))}.npz"
        if not path.is_file():
            models, options = [foundations.path_of(foundation)], {"modal": modal or None}
            (found,) = TRAINER.worker.evaluate(self.scratch(name), models, parts, self.slot, options=options)
            publish_npz(path, pack(found), {})
        return unpack(read_npz(path)[0])

    def trained(self, name: str, train: Train, parts: Sequence[Frames], seed: Sequence[int]) -> Path:
        """Return a model that was trained on labelled frames."""
        folder, trainer = self.scratch(name), trainer_of(train)
        (folder / "data").mkdir()
        trainer.write_data(folder / "data", parts, train, ELEMENTS)
        seeds = np.random.default_rng(seed).integers(1, 2**31 - 1, size=3).tolist()
        run = TrainingRun(train.n_steps, tuple(seeds))
        found = trainer.train(folder, train, run, TrainingData(folder / "data", ELEMENTS, SEL), self.slot)
        if found is None:
            raise SystemExit(f"{name} diverged")
        return found.model


def singles(name: str) -> list[Frames]:
    """Return the structures of a file, without labels, each by itself."""
    images = ase.io.read(STRUCTURES / name, ":")
    return [Frames.from_ase([image]).without_labels() for image in images]


@dataclass(frozen=True)
class Data:
    """Structures with the labels of the reference: to train on, and held out."""

    pool: list[Frames]
    held_out: list[Frames]

    @classmethod
    def of(cls, work: Work) -> Data:
        """Return the data of all rows; the reference labels each structure once."""
        found = singles("train.extxyz.gz")
        order = np.random.default_rng(0).permutation(len(found))[:N_POOL]
        whose = (work.reference, work.modal)
        pool = work.labelled("pool", [found[k] for k in order], *whose)
        return cls(pool, work.labelled("held-out", singles("held_out.extxyz.gz")[::HELD_OUT_EVERY], *whose))

    def drawn(self, n: int, seed: int) -> tuple[list[Frames], list[Frames]]:
        """Return `n` structures and the others; those of more labels of one seed begin with those of fewer."""
        order = np.random.default_rng([1, seed]).permutation(len(self.pool))
        return [self.pool[k] for k in order[:n]], [self.pool[k] for k in order[n:]]


def quick(n_steps: int) -> DeePMDTrain:
    """Return the student."""
    return DeePMDTrain.model_validate({**read_yaml(preset_file("train", "quick")), "n_steps": n_steps})


def fine_tuning() -> SevenNetTrain:
    """Return the teacher."""
    preset = read_yaml(preset_file("train", "sevennet_finetune"))
    fewer = {"n_members": MEMBERS, "n_steps": STEPS, "batch_size": BATCH, "learning_rate": RATE}
    return SevenNetTrain.model_validate({**preset, **fewer})


def student(work: Work, name: str, parts: Sequence[Frames], data: Data, seed: int) -> list[Frames]:
    """Return what a student that was trained on these frames says of the held-out ones."""
    train = quick(work.steps)
    model = work.trained(f"{name}-student", train, by_composition(parts), [2, seed])
    return trainer_of(train).evaluate(work.scratch(f"{name}-evaluation"), model, data.held_out, work.slot)


def against(predicted: Sequence[Frames], labels: Sequence[Frames]) -> dict[str, float]:
    """Return the errors that the table has."""
    found = errors(predicted, labels)
    return {"force": found.force_rmse, "energy": found.energy_rmse_meV_per_atom, "force_p99": found.force_p99}


# --- the rows ---------------------------------------------------------------------------------------------------------


def from_scratch(work: Work, data: Data, n: int, seed: int) -> dict[str, object]:
    """Return the errors of a student on `n` labels of the reference."""
    predicted = student(work, f"scratch-{n}-{seed}", data.drawn(n, seed)[0], data, seed)
    return {"student against reference": against(predicted, data.held_out)}


def taught_by(work: Work, data: Data, n: int, seed: int) -> tuple[list[Frames], FloatArray, float]:
    """Return what a teacher of `n` labels says of the other structures, then the held-out ones; it is trained once.

    Beside the frames: the force deviation of each, eV/Å; CPU seconds that were spent on it before.
    """
    path = work.folder / f"taught-{n}-{seed}.npz"
    is_there = path.is_file()
    if not is_there:
        begun, (labelled, others) = cpu_of_children(), data.drawn(n, seed)
        folder = work.folder / f"teacher-{n}-{seed}"
        folder.mkdir(exist_ok=True)
        models = [folder / f"{member}.pth" for member in range(MEMBERS)]
        for member, path_of_model in enumerate(models):
            if not path_of_model.is_file():
                name, parts = f"distilled-{n}-{seed}-{member}", by_composition(labelled)
                model = work.trained(name, fine_tuning(), parts, [3, seed, member])
                shutil.copy(model, folder / "unfinished")
                (folder / "unfinished").rename(path_of_model)
        parts, spread = committee(TRAINER.evaluate_all(folder, models, [*others, *data.held_out], work.slot))
        publish_npz(path, {**pack(parts), "max_devi_f": np.concatenate(spread)}, {"cpu_s": cpu_of_children() - begun})
    arrays, meta = read_npz(path)
    spread = arrays.pop("max_devi_f")
    return unpack(arrays), spread, meta["cpu_s"] if is_there else 0.0


def distilled(work: Work, data: Data, n: int, seed: int) -> dict[str, object]:
    """Return the three errors of a distillation with `n` labels of the reference."""
    labelled, others = data.drawn(n, seed)
    predicted, spread, cpu_s = taught_by(work, data, n, seed)
    taught, teacher = predicted[: len(others)], predicted[len(others) :]
    good = [part for part, one in zip(taught, spread[: len(others)], strict=True) if one < MAX_DEVI_F]
    predicted = student(work, f"distilled-{n}-{seed}", [*labelled, *good], data, seed)
    calibration = [
        pair
        for mine, its, one in zip(teacher, data.held_out, spread[len(others) :], strict=True)
        for pair in pairs(np.array([one]), mine.forces, its.forces)
    ]
    return {
        "labelled by the teacher": len(good),
        "refused": len(taught) - len(good),
        "teacher against reference": against(teacher, data.held_out),
        "teacher against reference, pool": against(taught, others),
        "student against teacher": against(predicted, teacher),
        "student against reference": against(predicted, data.held_out),
        "calibration": calibration,
        "cpu_s before": cpu_s,
    }


def zero_labels(work: Work, data: Data, _: int, seed: int) -> dict[str, object]:
    """Return the same of the foundation as it is."""
    bare = [part.without_labels() for part in data.held_out]
    teacher = work.labelled("held-out", bare, FOUNDATION)
    taught = work.labelled("pool", [part.without_labels() for part in data.pool], FOUNDATION)
    predicted = student(work, f"zero-{seed}", taught, data, seed)
    return {
        "labelled by the teacher": len(taught),
        "teacher against reference": against(teacher, data.held_out),
        "teacher against reference, pool": against(taught, data.pool),
        "student against teacher": against(predicted, teacher),
        "student against reference": against(predicted, data.held_out),
    }


NAMES = {"zero": "zero labels", "scratch": "from scratch", "distilled": "distilled"}
ROWS = {"zero": zero_labels, "scratch": from_scratch, "distilled": distilled}


def pieces() -> list[tuple[str, int, int]]:
    """Return (row, labels, random seed) of all pieces, in their order."""
    others = [(row, n, seed) for seed in range(1, SEEDS) for row, n in OTHERS]
    return [*((*one, 0) for one in FIRST), *others, *((*one, 0) for one in LAST)]


# --- the table --------------------------------------------------------------------------------------------------------


def table(results: dict[str, dict[str, object]]) -> str:
    """Return the table: means over the random seeds, and the range where there are several."""
    columns = ("teacher against reference", "student against teacher", "student against reference")
    lines = [
        f"| labels | row | seeds | {' | '.join(columns)} | its P99 | labels of the teacher | CPU min a seed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows: dict[tuple[int, str], list[dict[str, object]]] = {}
    for result in results.values():
        if "row" in result:
            rows.setdefault((result["labels"], result["row"]), []).append(result)
    for (n, row), found in sorted(rows.items(), key=lambda one: (one[0][0], -ord(one[0][1][0]))):
        cells = [_spread([one[column]["force"] for one in found if column in one]) for column in columns]
        p99 = np.mean([one[columns[-1]]["force_p99"] for one in found])
        given = [one["labelled by the teacher"] for one in found if "labelled by the teacher" in one]
        minutes = np.mean([one["cpu_s"] + one.get("cpu_s before", 0.0) for one in found]) / 60.0
        taught = f"{np.mean(given):.0f}" if given else "-"
        lines.append(
            f"| {n} | {NAMES[row]} | {len(found)} | {' | '.join(cells)} | {p99:.2f} | {taught} | {minutes:.1f} |"
        )
    return "\n".join([*lines, "", *_calibrated(results)])


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    several = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{several}"


def _calibrated(results: dict[str, dict[str, object]]) -> Iterator[str]:
    """Yield what the largest force error of trusted frames stays within (conformal), by the number of labels."""
    by_n: dict[int, list[str]] = {}
    for result in results.values():
        if "calibration" in result:
            trusted = sorted(error for deviation, error in result["calibration"] if deviation < MAX_DEVI_F)
            rank = ceil((len(trusted) + 1) * COVERAGE)
            bound = f"{trusted[rank - 1]:.2f}" if 0 < rank <= len(trusted) else "not known"
            said = f"{bound} ({len(trusted)} of {len(result['calibration'])} frames)"
            by_n.setdefault(result["labels"], []).append(said)
    for n, said in sorted(by_n.items()):
        yield f"{n} labels: largest force error of trusted held-out frames, {COVERAGE:.0%}, eV/Å: {', '.join(said)}"


def main() -> None:
    """Do what is left, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0, help="CPU minutes after which no piece begins.")
    parser.add_argument("--table", action="store_true", help="Print the table of what there is.")
    parser.add_argument("--reference", default="7net-mf-0", help="The costly one: a foundation that is in sevenn.")
    parser.add_argument("--modal", default="R2SCAN", help='Of its labels; "" of a foundation without modals.')
    parser.add_argument("--steps", type=int, default=1500, help="Of the training of a student (preset quick: 1500).")
    parser.add_argument("--only", default="", help="Pieces, such as scratch-25-0,distilled-5-0; default: all.")
    asked = parser.parse_args()
    file = asked.folder / f"results-{asked.steps}.json"
    results = json.loads(file.read_text()) if file.is_file() else {}
    if not asked.table:
        asked.folder.mkdir(parents=True, exist_ok=True)
        setting = {"reference": asked.reference, "modal": asked.modal, "foundation": FOUNDATION}
        if results.setdefault("setting", {**setting, "cpu_s": 0.0}) != {**setting, "cpu_s": 0.0}:
            parser.error(f"{file} is of {results['setting']} - expected {setting} - use another folder")
        folder = asked.folder.absolute()
        work = Work(folder, Slot(Machine(slots=1), folder), asked.reference, asked.modal, asked.steps)
        process.allow_engines()
        try:
            measure(work, file, results, asked)
        finally:
            process.close_sessions()
    print(table(results))


def measure(work: Work, file: Path, results: dict[str, dict[str, object]], asked: argparse.Namespace) -> None:
    """Carry out the pieces that are left, and write each down."""
    begun, data = cpu_of_children(), Data.of(work)
    if "reference" not in results:
        bare = [part.without_labels() for part in data.held_out]
        untuned = against(work.labelled("held-out", bare, FOUNDATION), data.held_out)
        results["reference"] = {"foundation as it is": untuned, "cpu_s": cpu_of_children() - begun}
        replace_json(file, results)
        print(results["reference"], flush=True)
    only = set(filter(None, asked.only.split(",")))
    for row, n, seed in pieces():
        name = f"{row}-{n}-{seed}"
        if only and name not in only:
            continue
        if sum(result["cpu_s"] for result in results.values()) > 60.0 * asked.minutes:
            print(f"stopped before {name}: {asked.minutes:g} CPU minutes are spent")
            return
        if name not in results:
            begun = cpu_of_children()
            found = {"row": row, "labels": n, "seed": seed, **ROWS[row](work, data, n, seed)}
            results[name] = {**found, "cpu_s": cpu_of_children() - begun}
            replace_json(file, results)
            print(name, {key: value for key, value in results[name].items() if key != "calibration"}, flush=True)
            shutil.rmtree(work.folder / "scratch")


if __name__ == "__main__":
    main()
