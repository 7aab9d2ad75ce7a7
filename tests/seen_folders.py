"""What a page sees, made up for the tests of its findings and pictures: no engine has seen any of it."""

import dataclasses
from pathlib import Path

import numpy as np

from activelearn.config import Machine, load_campaign
from activelearn.frames import Frames
from activelearn.page.landscape import Landscape
from activelearn.page.products import DeviationCounts, Disk, Doubted, Fill, MemberCurve, Residual, Slope
from activelearn.page.seen import Seen, SeenCampaign, SeenPath, SeenStudy
from activelearn.records import (
    CellCounts,
    Counts,
    End,
    Ensemble,
    Errors,
    InitialData,
    Iteration,
    Labelling,
    MadeGlass,
    Melt,
    Member,
    Missing,
    Reach,
    Result,
    Scoreboard,
    Seconds,
    Selection,
    WalkRecord,
)
from activelearn.select.accuracy import Accuracy
from activelearn.select.calibration import CalibrationSummary
from activelearn.store import Store
from activelearn.store.files import publish_json
from activelearn.store.glass_product import Thermo

WINDOW = (0.15, 0.35)


def errors(force_rmse=0.1, *, mae=1.0, energy_rmse=1.3, n_frames=100, p99=0.3, rms=1.0):
    return Errors(
        n_frames=n_frames, energy_rmse_meV_per_atom=energy_rmse, energy_mae_meV_per_atom=mae, force_rmse=force_rmse,
        force_mae=0.7 * force_rmse, force_p95=0.8 * p99, force_p99=p99, virial_rmse_meV_per_atom=10.0,
        virial_mae_meV_per_atom=8.0, force_rms_of_reference=rms,
    )  # fmt: skip


def ensemble(trained_in, rmse=(0.1, 0.11, 0.1, 0.12), *, by=None, fall=1.0, attempts=1, **more):
    """By: errors by composition, the same of every member."""
    found = tuple(
        Member(
            index=k, random_seed=k, model=f"models/{k}.pb", sha256="0" * 64, n_steps=1000, held_out=errors(one, **more),
            by_composition=by or {}, force_fall=fall, attempts=attempts if k == 0 else 1,
        )
        for k, one in enumerate(rmse)
    )  # fmt: skip
    return Ensemble(iteration=trained_in, trained_in=trained_in, type_map=("Cu",), members=found)


def without_held_out(trained_in):
    made = ensemble(trained_in)
    members = tuple(m.model_copy(update={"held_out": None}) for m in made.members)
    return made.model_copy(update={"members": members})


def cell(stage="warm", temperature_K=300.0, *, accurate=100, candidate=0, failed=0, out=0, walks=4):
    walked = accurate + candidate + failed + out
    kinds = {"accurate": accurate, "candidate": candidate, "failed": failed, "out_of_region": out}
    counts = Counts(walked=walked, walks=walks, **kinds)
    return CellCounts(stage=stage, temperature_K=temperature_K, counts=counts)


def walk(k, ended="finished", *, stage="warm", displacement=0.3):
    reach = Reach(walked_fs=1000.0, displacement=displacement, flight=0.05, temperature_K=300.0, imposed_K=300.0)
    return WalkRecord(id=f"{stage}-{k}", stage=stage, ended=ended, sha256="0" * 64, reach=reach)


def selection(index, *cells, walks=(), stages=("warm",), **more):
    given = {
        "iteration": index, "f_lo": WINDOW[0], "f_hi": WINDOW[1], "stages": stages, "cells": cells or (cell(),),
        "walks": tuple(walks), "chosen": 5, "rescued": 0, "is_rescue": False, "passed_over": {}, "quiet_stages": (),
        "next_stages": stages, "is_converged": False, "why": "continues: made up", "held_out_p99": 0.3,
    }  # fmt: skip
    return Selection(**given | more)


def seconds(wall=100.0, engine=95.0, *, total=180.0, tasks=8):
    return Seconds(wall=wall, engine=engine, engine_total=total, n_tasks=tasks)


def record(index, found=None, *, models=None, labelled=20, refused=None, frames=None, spent=None, failures=0, **more):
    """An iteration; `found` is its selection, without which it is initial data."""
    labelling = {
        "iteration": index, "labelled": labelled, "held_out": 0, "refused": refused or {},
        "dataset_frames": frames if frames is not None else 100 + 20 * index, "dataset_sha256": "0" * 64,
        "labels_computed": labelled, "labels_adopted": 0, "labels_reused": 0,
    }  # fmt: skip
    own = {name: more.pop(name) for name in ("calibration", "dataset_without_virial") if name in more}
    return Iteration(
        index=index,
        campaign_sha256="0" * 64,
        versions={"activelearn": "0"},
        selection=found,
        labelling=Labelling(**labelling | own),
        ensemble=models or ensemble(index),
        seconds=spent if spent is not None else {"explore": seconds(), "train": seconds()},
        infrastructure_failures=failures,
        products={},
        **more,
    )


def campaign(name="copper_emt", **changes):
    return load_campaign(name).model_copy(update=changes)


def stage_named(*names, last=None, **changes):
    """The campaign of copper with stages of these names; it ends after iteration `last`, if not before."""
    made = campaign()
    stages = tuple(made.explore.stages[0].model_copy(update={"name": name, **changes}) for name in names)
    stop = made.stop if last is None else made.stop.model_copy(update={"max_iterations": last})
    return made.model_copy(update={"explore": made.explore.model_copy(update={"stages": stages}), "stop": stop})


def of_campaign(*records, **more):
    given = {"campaign": stage_named("warm"), "records": records} | more
    return Seen(SeenCampaign(**given))


def passes(*shares, stage="warm"):
    """Iterations whose passes have these shares of candidates (%), each with an ensemble of its own."""
    cells = [cell(stage, accurate=1000 - round(10 * share), candidate=round(10 * share)) for share in shares]
    walked = [record(k, selection(k, one, stages=(stage,))) for k, one in enumerate(cells, 1)]
    return (record(0), *walked)


def accuracy(p99=0.3, *, audited=0, wrong=0):
    return Accuracy(p99, audited, wrong, max_error=0.5, false_accept_rate=0.05, window=WINDOW, is_audited=audited > 0)


def calibration(median):
    return CalibrationSummary(100, *WINDOW, 0.5, (0.5 * median, median, 2.0 * median), 10, 0, 90, 30)


def residual(error_of_P):
    """Errors of P as given and of S 0.1, eV/Å; 200 atoms of each."""
    symbols = np.repeat(["P", "S"], 200)
    reference = np.zeros((400, 3))
    return Residual(3, symbols, reference + np.where(symbols == "P", error_of_P, 0.1)[:, None], reference)


def doubted(deviation_of_P):
    """Deviations of P as given and of S 0.1, eV/Å; 200 atoms of each. The worst frame is two atoms of them."""
    symbols = np.repeat(["P", "S"], 200)
    frame = Frames(("P", "S"), 9.0 * np.eye(3)[None], np.array([[[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]]]))
    return Doubted(1, frame, np.array([deviation_of_P, 0.1]), symbols, np.where(symbols == "P", deviation_of_P, 0.1))


def fill(most):
    return (Fill("S", most, 40, 6.0),)


def landscape():
    """A frame of each origin, at places of their own."""
    at = np.array([[0.0, 0.0], [1.0, 0.5], [2.0, 0.1], [3.0, 1.0], [0.1, 0.1]])
    return Landscape(np.arange(5), np.array([0, 1, 1, 1, 0]), ("Cu32",) * 5, at, (0.7, 0.2), n_frames=125)


def disk(n_files=100, gb=0.1, free_gb=50.0):
    return Disk(n_files, int(gb * 1e9), int(1e8), int(free_gb * 1e9))


def initial(n_failed):
    walks = tuple(walk(k, "non-finite" if k < n_failed else "finished", stage="initial") for k in range(10))
    return InitialData(iteration=0, walks=walks, n_frames=100, held_out=())


def end(**more):
    return End(**{"converged": True, "iteration": 2, "exit_code": 0, "message": "converged: made up"} | more)


# --- studies ----------------------------------------------------------------------------------------------------------


def glass(replica=0, **more):
    melt = Melt(formers=("P",), is_melted=True, ps=20.0, msd_A2=16.0, overlap=0.1)
    given = {
        "id": f"toy-x0-r{replica}", "potential": "toy", "x": 0.0, "replica": replica, "formula": "Na3PS4", "n_atoms": 8,
        "ended": "finished", "density_g_cm3": 2.0, "n_judged": 100, "outside_share": 0.0, "above_f_lo_share": 0.1,
        "is_trusted": True, "melt": melt, "seconds": 10.0,
    }  # fmt: skip
    return MadeGlass(**given | more)


def path(volume=200.0, *, outside=(), spread=1.0, seed=0):
    """Rows of a melt (1000 K) and of a glass (300 K), 50 each; those of these numbers are outside the window."""
    rng = np.random.default_rng(seed)
    segment = np.repeat([0, 1], 50)
    deviation = np.full(100, 0.1)
    deviation[list(outside)] = 0.9
    rows = Thermo(
        segment=segment,
        time_ps=np.tile(np.linspace(0.0, 9.8, 50), 2),
        temperature_K=np.where(segment == 0, 1000.0, 300.0),
        potential_energy=np.zeros(100),
        pressure_bar=np.zeros(100),
        volume=volume + spread * rng.normal(size=100),
        max_devi_f=deviation,
    )
    return SeenPath(("melt", "glass"), (1,), rows)


def result(name="density", value=2.0, *, unit="g/cm3", uncertainty=0.02, cited=None, **more):
    condition = {"potential": "toy", "x": 0.0} | more.pop("condition", {})
    reference = {"reference_value": cited, "reference_uncertainty": 0.02, "reference_source": "A. Author, 2020"}
    return Result(
        name=name, value=value, unit=unit, uncertainty=uncertainty, n_samples=3, condition=condition,
        **(reference if cited is not None else {}), **more,
    )  # fmt: skip


def board(*results, n_missing=0, **more):
    missing = tuple(Missing(measured_by="rdf", condition={"potential": "toy"}, why="too few") for _ in range(n_missing))
    given = {
        "study": "toy", "potentials": ("toy",), "physics": {"toy": "PBE"}, "versions": {"toy": "1"},
        "results": results, "curves": (), "missing": missing,
    }  # fmt: skip
    return Scoreboard(**given | more)


def of_study(*glasses, paths=None, **more):
    given = {"name": "toy", "folder": Path("study-002"), "windows": {"toy": WINDOW}, "glasses": glasses}
    return Seen(None, (SeenStudy(**given | {"paths": paths or {}} | more),))


def everything(name="made up", stage="warm", **more):
    """A campaign with all that a page shows, and its study."""
    cells = (cell(stage, 300.0, candidate=30), cell(stage, 900.0, failed=20))
    walked = selection(1, *cells, walks=[walk(0, stage=stage)], stages=(stage,))
    records = (record(0, initial=initial(1)), record(1, walked, calibration=((0.2, 0.4), (0.3, 0.5))))
    counts = np.arange(60, dtype=np.int64)
    curve = MemberCurve("train", 1, 0, ("step", "rmse_f_trn"), np.array([[0.0, 1.0], [500.0, 0.2], [1000.0, 0.1]]))
    made = dataclasses.replace(
        of_campaign(*records).campaign,
        campaign=stage_named(stage).model_copy(update={"name": name}),
        end=end(),
        accuracy=accuracy(0.4),
        calibration=calibration(2.0),
        residual=residual(0.3),
        slope=Slope(1.0, 20),
        fill=fill(30),
        disk=disk(),
        deviations=(DeviationCounts(1, stage, counts),),
        landscape=landscape(),
        curves=(curve,),
        **more,
    )
    paths = {f"toy-x0-r{k}": path(seed=k) for k in range(2)}
    study = of_study(glass(0), glass(1), paths=paths, board=board(result(cited=2.2)))
    return Seen(made, study.studies)


# --- in a folder ------------------------------------------------------------------------------------------------------


def close(store, one):
    """Seal what an iteration has found, and write its record, as a run does when it closes it."""
    if one.selection is not None:
        store.seal("select", one.index, one.selection)
    store.seal("label", one.index, one.labelling)
    store.seal("train", one.index, one.ensemble)
    publish_json(store.iteration_file(one.index), one.model_dump(mode="json"))


def folder_of(seen, folder):
    """Write the records of a campaign, and the slots of its machine, into a folder; return it."""
    store = Store.create(folder, seen.campaign.campaign)
    for one in seen.campaign.records:
        store.open_iteration(one.index, seen.campaign.campaign)
        close(store, one)
    if seen.campaign.slots is not None:
        store.save_machine(Machine(slots=seen.campaign.slots))
    return store.folder
