"""The reference, which computes labels. Every engine answers the same jobs (label, md, relax) with the same JSON.

Engines are defined in :class:`activelearn.config.ReferenceEngine`; those of this package are in ``references/``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from activelearn.config import Label, Reference, ReferenceMD, Relax, at_hand, engine_of
from activelearn.config.paths import missing_models
from activelearn.engines import process
from activelearn.engines.process import Slot, tail_of
from activelearn.engines.unfit import complaint, said
from activelearn.errors import ConfigError, EngineError, Unfit
from activelearn.frames import FloatArray, FrameLabel, Frames, make_origin
from activelearn.geometry import lattice

#: Density of that lattice, 1/Å3: neighbours are 3.5 Å apart, farther than any bond.
_LATTICE_DENSITY: Final = 0.0233
#: References whose identity has been found to match the sealed one, by slot and workers.
_identical: Final[set[tuple[Any, ...]]] = set()


def fingerprint(reference: Reference, slot: Slot, where: str | None = None) -> dict[str, Any]:
    """Return the identity of the reference's labels: engine, version, weights, settings, precision; never a path.

    Parameters
    ----------
    reference, slot
        The reference, and where it runs.
    where
        The key named in messages; None: that of a campaign.

    Returns
    -------
    dict
        JSON-able; ``sha256`` is the fingerprint that goes into every label's key.

    Raises
    ------
    Unfit
        Weights or data sets are missing.
    ConfigError
        A model file that it names is missing.
    """
    found = want_answer(reference, engine_of(reference.engine).identity(at_hand(reference), slot), where)
    if missing := [*missing_models(found["arguments"], f"{reference.name}: arguments")]:
        raise ConfigError(*missing)  # a name is not a checksum: with the file present, it would be another reference
    identity = _settings(reference) | {
        "version": found["version"],
        "weights_sha256": found["weights_sha256"],
        "arguments": found["arguments"],
    }
    if reference.d3 is not None:
        identity["d3"]["version"] = found["d3_version"]
    identity["sha256"] = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return identity


def _settings(reference: Reference) -> dict[str, Any]:
    """Return the part of an identity that is known without starting the engine."""
    known: dict[str, Any] = {
        "calculator": reference.calculator or reference.engine,
        "functional": reference.functional,
        "includes_dispersion": reference.labels_include_dispersion,
        "precision": reference.precision,
        "threads": 1,
    }
    if not reference.stress:
        known["stress"] = False  # without virials, its labels differ from those of a reference with stress
    if reference.d3 is not None:  # no key without it, so that older labels stay valid
        known["d3"] = reference.d3.model_dump()
    return known


def may_be(reference: Reference, identity: Mapping[str, Any]) -> bool:
    """Return whether an identity can be that of a reference, as far as known without starting the engine.

    It never matches labels imported with ``--declare``, whose origin is not known exactly.
    """
    known, d3 = _settings(reference), identity.get("d3") or {}
    told = {"stress": None, **identity, "d3": {key: value for key, value in d3.items() if key != "version"}}
    return all(told.get(key) == known.get(key, {} if key == "d3" else None) for key in {"stress", "d3", *known})


def want_identity(reference: Reference, slot: Slot, sha256: str, record: str = "") -> None:
    """Refuse to label with a reference other than the one with which an iteration or a study started.

    This is checked once per worker of the slot, since a new worker may load newly installed packages.

    Parameters
    ----------
    reference, slot
        The reference, and where it runs.
    sha256
        The sealed fingerprint.
    record
        The file of the folder that contains it; empty: that of the iteration.

    Raises
    ------
    ConfigError
        The package or the weights have changed.
    """
    asked = (reference.model_dump_json(), slot.machine.name, slot.index, sha256)
    if (*asked, process.lives("reference", slot)) in _identical:
        return
    found = fingerprint(reference, slot)
    if found["sha256"] != sha256:
        raise ConfigError(
            f"{reference.where}: {reference.name} is now {found['version']} (weights sha256 "
            f"{found['weights_sha256']}), which is not what this {'study' if record else 'iteration'} is sealed with - "
            f"expected the same version, weights and arguments throughout - install the version of "
            f"{record or f'iter-*/{reference.identity_file}'} and run again"
        )
    _identical.add((*asked, process.lives("reference", slot)))


def structure(frame: Frames, index: int = 0) -> dict[str, Any]:
    """Return one frame as JSON; Python prints float64 so that it round-trips exactly."""
    return {
        "symbols": list(frame.symbols),
        "positions": frame.positions[index].tolist(),
        "cell": frame.cell[index].tolist(),
        "pbc": list(frame.pbc),
    }


def ask(reference: Reference, job: str, slot: Slot, start: Frames, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return the raw answer to a job on one frame, including failures of the calculator."""
    request |= {} if reference.stress else {"stress": False}
    return engine_of(reference.engine).ask(at_hand(reference), job, slot, structure=structure(start), **request)


def carried_out(reference: Reference, start: Frames, slot: Slot, job: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Return the answer to a job that moves atoms.

    If the calculator raises, and does so again in a new worker that can label its start or a lattice of its elements,
    the structure is at fault, and the exception is recorded as a physical failure of the job.

    Parameters
    ----------
    reference, start, slot
        The driver, one frame, and where it runs.
    job
        Name of the job; keyword arguments go into the request.

    Raises
    ------
    Unfit, EngineError
        See :func:`want_answer`.
    """
    answer = job()
    if "unable" in answer:
        first, answer = answer, job(fresh=True)
        if "unable" in answer and _alike(answer["unable"]) == _alike(first["unable"]):
            others = (start.without_labels(), regular(start))
            if any("energy" in ask(reference, "label", slot, other) for other in others):
                answer = job(known=answer["unable"])
    return want_answer(reference, answer)


def regular(frame: Frames) -> Frames:
    """Return a lattice of the elements of a frame, which a calculator for them should be able to label."""
    return lattice(set(frame.symbols), _LATTICE_DENSITY)


def want_answer(reference: Reference, answer: dict[str, Any], where: str | None = None) -> dict[str, Any]:
    """Return an answer after checking for errors.

    Raises
    ------
    Unfit
        The calculator is not available, or lacks what was requested; a retry would fail as well.
    EngineError
        It raised on this structure.
    """
    if "lacks" in answer or "unfit" in answer:
        raise Unfit(complaint(reference, answer, where))
    if "unable" in answer:
        raise EngineError(str(answer["unable"]), tail=tail_of(Path(answer.get("log", ""))))
    return answer


def _ask(reference: Reference, job: str, slot: Slot, start: Frames, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return carried_out(reference, start, slot, partial(ask, reference, job, slot, start, **request))


def label(
    reference: Reference,
    frame: Frames,
    slot: Slot,
    *,
    keep: Mapping[str, Any] | None = None,
    witnesses: Callable[[], Sequence[Frames]] = tuple,
) -> FrameLabel:
    """Label one frame.

    Parameters
    ----------
    reference, frame, slot
        The reference, the frame to label, and where it runs.
    keep
        Where the label is stored if this process is killed (see :meth:`activelearn.store.begun.Begun.request`).
        Not under a launcher, whose separate process group would survive a kill of all.
    witnesses
        Structures that the reference should be able to label. If it raises on this frame, and again in a new worker
        that labels one of them, the frame is at fault, and its label is refused. Without any, this is not determined.

    Raises
    ------
    EngineError
        Infrastructure failed. A physical failure is a FrameLabel with ``refused`` set.
    Unfit
        The calculator is not available, or has no forces, or no stress.
    """
    kept = {} if keep is None or slot.launcher else {"keep": dict(keep)}
    answer = ask(reference, "label", slot, frame, **kept)
    if "unable" in answer and (others := witnesses()):
        answer = _tried_again(reference, frame, slot, answer, others)
    return to_label(want_answer(reference, answer), frame.n_atoms)


def _tried_again(
    reference: Reference, frame: Frames, slot: Slot, failed: dict[str, Any], others: Sequence[Frames]
) -> dict[str, Any]:
    """Return the answer of a new worker; a refusal if it fails again but labels another structure."""
    again = ask(reference, "label", slot, frame, fresh=True)
    if "unable" not in again or _alike(again["unable"]) != _alike(failed["unable"]):
        return again  # it may pass: a label, or another failure to retry
    if any("energy" in ask(reference, "label", slot, other) for other in others):
        times = {key: again[key] for key in ("started", "finished")}
        return {"refused": f"the reference raises {_alike(again['unable'])}", **times}
    return again


def _alike(text: str) -> str:
    """Return the message of an exception without what differs from process to process."""
    return re.sub(r"0x[0-9a-fA-F]+", "0x", said(text))


def to_label(answer: Mapping[str, Any], n_atoms: int) -> FrameLabel:
    """Return the label in an answer.

    Raises
    ------
    EngineError
        It is not a valid label, or has another number of atoms.
    """
    refused = answer.get("refused")
    nothing = {"energy": np.nan, "forces": np.full((n_atoms, 3), np.nan), "virial": np.full((3, 3), np.nan)}
    found: Mapping[str, Any] = nothing if refused else answer
    try:
        return FrameLabel(
            energy=float(found["energy"]),
            forces=np.array(found["forces"], dtype=np.float64).reshape(n_atoms, 3),
            virial=_virial(found),
            refused=refused,
            started=float(answer["started"]),
            finished=float(answer["finished"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(f"not the label of {n_atoms} atoms ({type(error).__name__}: {error})") from error


def refusal(label: FrameLabel, settings: Label) -> str | None:
    """Return why a label is not usable for training, or None.

    Parameters
    ----------
    label
        From the ledger.
    settings
        Holds the caps (eV/Å).
    """
    if label.refused is not None:
        return label.refused
    is_whole = np.isfinite(label.virial).all() or np.isnan(label.virial).all()  # or there is none
    if not (np.isfinite(label.energy) and np.isfinite(label.forces).all() and is_whole):
        return "not finite"
    largest = float(np.linalg.norm(label.forces, axis=1).max())
    if largest > settings.max_force:
        return f"force above {settings.max_force:g} eV/Å"
    net = float(np.linalg.norm(label.forces.sum(axis=0))) / len(label.forces)
    if net > settings.max_net_force:
        return f"net force above {settings.max_net_force:g} eV/Å per atom"
    return None


def _virial(answer: Mapping[str, Any]) -> FloatArray:
    """Return the (3, 3) virial of an answer, eV; NaN if it has none."""
    given = answer["virial"]
    return np.full((3, 3), np.nan) if given is None else np.array(given, dtype=np.float64).reshape(3, 3)


def molecular_dynamics(
    reference: Reference, start: Frames, md: ReferenceMD, *, temperature_K: float, random_seed: int, slot: Slot
) -> tuple[Frames | None, str, float, float]:
    """Run short NVT Langevin dynamics with the reference, or with a driver.

    Returns
    -------
    frames, ended, started, finished
        Labelled frames (those before a physical failure, None if there is none), how it ended ("finished", or the
        reason), and Unix times.
    """
    answer = _ask(
        reference,
        "md",
        slot,
        start,
        n_steps=md.n_steps,
        every=md.every,
        timestep_fs=md.timestep_fs,
        temperature_K=temperature_K,
        friction_per_ps=md.friction_per_ps,
        random_seed=random_seed,
    )
    started, finished = float(answer["started"]), float(answer["finished"])
    if "refused" in answer:
        return None, str(answer["refused"]), started, finished
    rows = answer["frames"]
    origin = make_origin(len(rows), step=[row["step"] for row in rows], temperature_K=temperature_K)
    frames = _labelled(start, [{"cell": start.cell[0], **row} for row in rows], origin)
    return frames, str(answer["ended"]), started, finished


def relax(reference: Reference, start: Frames, settings: Relax, slot: Slot) -> tuple[Frames | None, str, float, float]:
    """Relax positions, or positions and cell, with the reference.

    Parameters
    ----------
    reference, start
        The reference, and one frame.
    settings
        When it ends, whether the cell is relaxed to zero stress, and which frames of the path are returned.
    slot
        Where it runs.

    Returns
    -------
    frames, ended, started, finished
        Frames of the path, if any are requested, and the last frame, with their labels (``origin["step"]``: steps
        taken), None after a physical failure; how it ended ("relaxed", "not relaxed in N steps", or the reason of the
        failure); and Unix times.
    """
    request = {"fmax": settings.fmax, "max_steps": settings.max_steps, "relax_cell": settings.cell}
    answer = _ask(reference, "relax", slot, start, **request, frame_every_A=settings.frame_every_A)
    started, finished = float(answer["started"]), float(answer["finished"])
    if "refused" in answer:
        return None, str(answer["refused"]), started, finished
    n_steps, path = answer["n_steps"], answer.get("path", [])  # an engine of another package may know no path
    ended = "relaxed" if answer["is_relaxed"] else f"not relaxed in {n_steps} steps"
    rows = [*path, answer]
    origin = make_origin(len(rows), step=[*(row["step"] for row in path), n_steps])
    return _labelled(start, rows, origin), ended, started, finished


def _labelled(start: Frames, rows: list[dict[str, Any]], origin: np.ndarray[Any, np.dtype[np.void]]) -> Frames:
    arrays = {name: np.array([row[name] for row in rows]) for name in ("cell", "positions", "energy", "forces")}
    virial = np.array([_virial(row) for row in rows])
    return Frames(symbols=start.symbols, pbc=start.pbc, origin=origin, virial=virial, **arrays)
