"""The reference: what labels. Every engine answers the same jobs (label, md, relax) with the same JSON.

What an engine is: :class:`activelearn.config.ReferenceEngine`; those of this package are in ``references/``.
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

from activelearn.config import Label, Reference, ReferenceMD, at_hand, engine_of
from activelearn.config.paths import missing_models
from activelearn.engines import process
from activelearn.engines.process import Slot, tail_of
from activelearn.engines.unfit import complaint, said
from activelearn.errors import ConfigError, EngineError, Unfit
from activelearn.frames import FloatArray, FrameLabel, Frames, make_origin
from activelearn.geometry import lattice

#: Of that lattice, 1/Å3: neighbours are 3.5 Å apart, wider than any bond.
_LATTICE_DENSITY: Final = 0.0233
#: References whose identity was found to be the sealed one, by slot and the lives of its workers.
_identical: Final[set[tuple[Any, ...]]] = set()


def fingerprint(reference: Reference, slot: Slot, where: str | None = None) -> dict[str, Any]:
    """Return the identity of the reference's labels: engine, version, weights, settings, precision; never a path.

    Parameters
    ----------
    reference, slot
        What labels, and where it runs.
    where
        The key that messages name; None: that of a campaign.

    Returns
    -------
    dict
        JSON-able; ``sha256`` is the fingerprint that goes into every label's key.

    Raises
    ------
    Unfit
        Weights or data sets are not there.
    ConfigError
        The file of a model that it names is not there.
    """
    found = want_answer(reference, engine_of(reference.engine).identity(at_hand(reference), slot), where)
    if missing := [*missing_models(found["arguments"], f"{reference.name}: arguments")]:
        raise ConfigError(*missing)  # its name is no checksum: the file, once it is there, would be another reference
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
    """Return that part of an identity which is known before the engine is asked."""
    known: dict[str, Any] = {
        "calculator": reference.calculator or reference.engine,
        "functional": reference.functional,
        "includes_dispersion": reference.labels_include_dispersion,
        "precision": reference.precision,
        "threads": 1,
    }
    if not reference.stress:
        known["stress"] = False  # its labels have no virial, so they are not those of a reference that has one
    if reference.d3 is not None:  # no key without it: the labels of before stay valid
        known["d3"] = reference.d3.model_dump()
    return known


def may_be(reference: Reference, identity: Mapping[str, Any]) -> bool:
    """Return whether an identity can be that of a reference, by what is known before the engine is asked.

    Never that of labels that were imported with ``--declare``: nobody knows what computed them.
    """
    known, d3 = _settings(reference), identity.get("d3") or {}
    told = {"stress": None, **identity, "d3": {key: value for key, value in d3.items() if key != "version"}}
    return all(told.get(key) == known.get(key, {} if key == "d3" else None) for key in {"stress", "d3", *known})


def want_identity(reference: Reference, slot: Slot, sha256: str, record: str = "") -> None:
    """Refuse to label with another reference than the one that an iteration, or a study, began with.

    It is asked once for each life of the slot's worker: a new one may have loaded what was installed meanwhile.

    Parameters
    ----------
    reference, slot
        What labels, and where.
    sha256
        The fingerprint that was sealed.
    record
        The file of the folder that has it; empty: that of the iteration.

    Raises
    ------
    ConfigError
        The package or the weights were changed since.
    """
    asked = (reference.model_dump_json(), slot.machine.name, slot.index, sha256)
    if (*asked, process.lives("reference", slot)) in _identical:
        return
    found = fingerprint(reference, slot)
    if found["sha256"] != sha256:
        raise ConfigError(
            f"{reference.where}: {reference.name} is now {found['version']} (weights sha256 "
            f"{found['weights_sha256']}), which is not what this {'study' if record else 'iteration'} is sealed to - "
            f"expected the same version, weights and arguments throughout - install the version of "
            f"{record or f'iter-*/{reference.identity_file}'} and run again"
        )
    _identical.add((*asked, process.lives("reference", slot)))


def structure(frame: Frames, index: int = 0) -> dict[str, Any]:
    """Return one frame as JSON; Python prints float64 so that it is read back to the bit."""
    return {
        "symbols": list(frame.symbols),
        "positions": frame.positions[index].tolist(),
        "cell": frame.cell[index].tolist(),
        "pbc": list(frame.pbc),
    }


def ask(reference: Reference, job: str, slot: Slot, start: Frames, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return the answer to a job on one frame as it came, failures of the calculator included."""
    request |= {} if reference.stress else {"stress": False}
    return engine_of(reference.engine).ask(at_hand(reference), job, slot, structure=structure(start), **request)


def carried_out(reference: Reference, start: Frames, slot: Slot, job: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Return the answer to a job that moves atoms.

    If the calculator raises on it, and alike in a new worker that labels the start of it or a lattice of its elements,
    the structure is at fault: what it raises is how the job ended then, as a physical failure is.

    Parameters
    ----------
    reference, start, slot
        What moves the atoms, one frame, and where.
    job
        Asks for it; keyword arguments go into the request.

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
    """Return a lattice of the elements of a frame, which a calculator that knows them should be able to label."""
    return lattice(set(frame.symbols), _LATTICE_DENSITY)


def want_answer(reference: Reference, answer: dict[str, Any], where: str | None = None) -> dict[str, Any]:
    """Return an answer that is one.

    Raises
    ------
    Unfit
        The calculator cannot be had, or has not what was asked for: a retry would fail as well.
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
        What labels, what is labelled, and where.
    keep
        Where the label is kept if this process is killed meanwhile (see :meth:`activelearn.store.begun.Begun.request`).
        Not under a launcher: that has a process group of its own, and what it starts would survive a kill of all.
    witnesses
        Structures that the reference should be able to label. If it raises on this frame, and again in a new worker
        that labels one of them, the frame is at fault, and its label is refused. Without any that is not found out.

    Raises
    ------
    EngineError
        Infrastructure failed. A physical failure is a FrameLabel with ``refused`` set.
    Unfit
        The calculator cannot be had, or has no forces, or no stress.
    """
    kept = {} if keep is None or slot.launcher else {"keep": dict(keep)}
    answer = ask(reference, "label", slot, frame, **kept)
    if "unable" in answer and (others := witnesses()):
        answer = _tried_again(reference, frame, slot, answer, others)
    return to_label(want_answer(reference, answer), frame.n_atoms)


def _tried_again(
    reference: Reference, frame: Frames, slot: Slot, failed: dict[str, Any], others: Sequence[Frames]
) -> dict[str, Any]:
    """Return the answer of a new worker, a refusal if it fails alike and labels another structure."""
    again = ask(reference, "label", slot, frame, fresh=True)
    if "unable" not in again or _alike(again["unable"]) != _alike(failed["unable"]):
        return again  # it may pass: a label, or one more failure to be retried
    if any("energy" in ask(reference, "label", slot, other) for other in others):
        times = {key: again[key] for key in ("started", "finished")}
        return {"refused": f"the reference raises {_alike(again['unable'])}", **times}
    return again


def _alike(text: str) -> str:
    """Return the message of an exception without what differs from process to process."""
    return re.sub(r"0x[0-9a-fA-F]+", "0x", said(text))


def to_label(answer: Mapping[str, Any], n_atoms: int) -> FrameLabel:
    """Return what the answer to a label says.

    Raises
    ------
    EngineError
        It is no such answer, or one for another number of atoms.
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
    """Return why a label is not fit for training, or None.

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


def relax(
    reference: Reference, start: Frames, *, fmax: float, max_steps: int, relax_cell: bool, slot: Slot
) -> tuple[Frames | None, str, float, float]:
    """Relax positions, or positions and cell, with the reference.

    Parameters
    ----------
    reference, start
        What relaxes, and one frame.
    fmax
        Largest force that may remain, eV/Å.
    max_steps
        Bound on the number of steps.
    relax_cell
        Whether the cell is relaxed too, to zero stress.
    slot
        Where.

    Returns
    -------
    frame, ended, started, finished
        The last frame with its labels (``origin["step"]``: steps taken), None after a physical failure; how it ended
        ("relaxed", "not relaxed in N steps", or the reason of the failure); and Unix times.
    """
    answer = _ask(reference, "relax", slot, start, fmax=fmax, max_steps=max_steps, relax_cell=relax_cell)
    started, finished = float(answer["started"]), float(answer["finished"])
    if "refused" in answer:
        return None, str(answer["refused"]), started, finished
    ended = "relaxed" if answer["is_relaxed"] else f"not relaxed in {answer['n_steps']} steps"
    return _labelled(start, [answer], make_origin(1, step=answer["n_steps"])), ended, started, finished


def _labelled(start: Frames, rows: list[dict[str, Any]], origin: np.ndarray[Any, np.dtype[np.void]]) -> Frames:
    arrays = {name: np.array([row[name] for row in rows]) for name in ("cell", "positions", "energy", "forces")}
    virial = np.array([_virial(row) for row in rows])
    return Frames(symbols=start.symbols, pbc=start.pbc, origin=origin, virial=virial, **arrays)
