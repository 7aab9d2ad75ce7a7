"""The reference: what labels. Any ASE calculator, in a session of its own interpreter, one per slot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from activelearn.config import Reference, ReferenceMD
from activelearn.engines.process import Session, Slot, session, worker_command
from activelearn.errors import ConfigError
from activelearn.frames import Frames, Label, make_origin

#: References whose identity was found to be the sealed one, by slot.
_identical: Final[set[tuple[str, ...]]] = set()


def _request(reference: Reference, job: str, slot: Slot, *, timeout_s: float, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    key = ("reference", reference.python or "", reference.calculator, str(slot.index))

    def make() -> Session:
        log = slot.logs / f"session-reference-{slot.index}.log"
        return Session(worker_command("ase_worker.py", reference.python), log=log)

    message = {"job": job, "calculator": reference.calculator, "arguments": reference.arguments, **more}
    return session(key, make).request(message, timeout_s=timeout_s)


def fingerprint(reference: Reference, slot: Slot) -> dict[str, Any]:
    """Return the identity of the reference's labels: engine, version, weights, settings, precision; never a path.

    Returns
    -------
    dict
        JSON-able; ``sha256`` is the fingerprint that goes into every label's key.
    """
    found = _request(
        reference,
        "describe",
        slot,
        timeout_s=slot.machine.label_timeout_s,
        package=reference.package,
        weights=reference.weights,
    )
    identity: dict[str, Any] = {
        "calculator": reference.calculator,
        "version": found["version"],
        "weights_sha256": found["weights_sha256"],
        "arguments": found["arguments"],
        "functional": reference.functional,
        "includes_dispersion": reference.includes_dispersion,
        "precision": reference.precision,
        "threads": 1,
    }
    identity["sha256"] = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return identity


def want_identity(reference: Reference, slot: Slot, sha256: str) -> None:
    """Refuse to label with another reference than the one that an iteration is sealed to (asked once per slot).

    Raises
    ------
    ConfigError
        The package or the weights were changed in the middle of an iteration.
    """
    asked = (reference.model_dump_json(), slot.machine.name, str(slot.index), sha256)
    if asked in _identical:
        return
    found = fingerprint(reference, slot)
    if found["sha256"] != sha256:
        raise ConfigError(
            f"label.reference: {reference.calculator} is now {found['version']} (weights sha256 "
            f"{found['weights_sha256']}), which is not what this iteration is sealed to - wanted the same version, "
            "weights and arguments for all its labels - install the version of iter-*/reference.json and run again"
        )
    _identical.add(asked)


def structure(frame: Frames, index: int = 0) -> dict[str, Any]:
    """Return one frame as JSON; Python prints float64 so that it is read back to the bit."""
    return {
        "symbols": list(frame.symbols),
        "positions": frame.positions[index].tolist(),
        "cell": frame.cell[index].tolist(),
        "pbc": list(frame.pbc),
    }


def label(reference: Reference, frame: Frames, slot: Slot) -> Label:
    """Label one frame.

    Raises
    ------
    EngineError
        Infrastructure failed. A physical failure is a Label with ``refused`` set.
    """
    answer = _request(reference, "label", slot, timeout_s=slot.machine.label_timeout_s, structure=structure(frame))
    return _to_label(answer, frame.n_atoms)


def _to_label(answer: Mapping[str, Any], n_atoms: int) -> Label:
    refused = answer.get("refused")
    nothing = {"energy": np.nan, "forces": np.full((n_atoms, 3), np.nan), "virial": np.full((3, 3), np.nan)}
    found: Mapping[str, Any] = nothing if refused else answer
    return Label(
        energy=float(found["energy"]),
        forces=np.array(found["forces"]),
        virial=np.array(found["virial"]),
        refused=refused,
        started=float(answer["started"]),
        finished=float(answer["finished"]),
    )


def molecular_dynamics(
    reference: Reference, start: Frames, md: ReferenceMD, *, temperature_K: float, random_seed: int, slot: Slot
) -> tuple[Frames | None, str, float, float]:
    """Run short NVT Langevin dynamics with the reference.

    Returns
    -------
    frames, ended, started, finished
        Labelled frames (None if it failed physically), how it ended, and Unix times.
    """
    answer = _request(
        reference,
        "md",
        slot,
        timeout_s=slot.machine.label_timeout_s,
        structure=structure(start),
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
    frames = Frames(
        symbols=start.symbols,
        cell=np.repeat(start.cell, len(rows), axis=0),
        positions=np.array([row["positions"] for row in rows]),
        pbc=start.pbc,
        energy=np.array([row["energy"] for row in rows]),
        forces=np.array([row["forces"] for row in rows]),
        virial=np.array([row["virial"] for row in rows]),
        origin=origin,
    )
    return frames, "finished", started, finished
