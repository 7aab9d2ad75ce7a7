"""The starting structures of DP-GEN's walks, ``sys_configs``: read as in DP-GEN, and written as extxyz."""

from __future__ import annotations

import contextlib
import glob
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from activelearn.exchange.dpgen.given import DpgenFolder
from activelearn.exchange.dpgen.keys import Fate
from activelearn.exchange.dpgen.told import DpgenReport
from activelearn.frames import Frames
from activelearn.seeds import heights
from activelearn.writing import write_extxyz


@dataclass(frozen=True)
class DpgenStarts:
    """The structures of all systems, in one list.

    Parameters
    ----------
    frames
        One frame each.
    of_system
        Indices in `frames` of the structures of each system of DP-GEN; a system without structures is missing.
    """

    frames: list[Frames] = field(default_factory=list)
    of_system: dict[int, list[int]] = field(default_factory=dict)

    @property
    def lowest_A(self) -> float | None:
        """The smallest perpendicular height of a cell, Å; None if there is none."""
        return min((float(heights(frame.cell[0]).min()) for frame in self.frames), default=None)

    def write(self, folder: Path) -> list[str]:
        """Write one extxyz per structure; return the names of the files."""
        folder.mkdir()
        names = {
            i: f"system-{system:03d}-{k:04d}.extxyz"
            for system, numbers in self.of_system.items()
            for k, i in enumerate(numbers)
        }
        for i, frame in enumerate(self.frames):
            write_extxyz([frame], folder / names[i])
        return [names[i] for i in range(len(self.frames))]


def starts_of(given: DpgenFolder, systems: Sequence[int], report: DpgenReport) -> DpgenStarts:
    """Return the structures of some systems; missing and unreadable ones are reported.

    Parameters
    ----------
    given
        DP-GEN's input.
    systems
        Numbers of the systems used in jobs.
    report
        The report.
    """
    found = DpgenStarts()
    configs = given.param.get("sys_configs") or []
    fmt = str(given.param.get("sys_format", "vasp/poscar"))
    problems: list[str] = []
    for system in systems:
        numbers = found.of_system.setdefault(system, [])
        if system >= len(configs):
            problems.append(f"system {system}: sys_configs has {len(configs)}")
            continue
        for path in _files(given, configs[system]):
            frame = _read(path, fmt, given.param["type_map"])
            if isinstance(frame, str):
                problems.append(f"system {system}: {path.name}: {frame}")
                continue
            numbers.append(len(found.frames))
            found.frames.append(frame)
        if not numbers:
            problems.append(f"system {system}: no structure at {', '.join(map(str, configs[system]))}")
    if problems:
        report.say(
            "sys_configs", Fate.CHANGED, "walks start from labelled frames if there is no structure: see the facts"
        )
        report.facts += [f"sys_configs: {problem}" for problem in problems]
    return found


def _files(given: DpgenFolder, patterns: Any) -> list[Path]:  # noqa: ANN401 - raw JSON
    prefix = str(given.param.get("sys_configs_prefix", ""))
    names = [patterns] if isinstance(patterns, str) else patterns
    requested = [Path(prefix).expanduser() / str(name) for name in names]
    # The folder of the run is no pattern, even where its name has brackets.
    found = [sorted(glob.glob(str(pattern), root_dir=given.folder)) for pattern in requested]  # noqa: PTH207 - also absolute
    return [given.folder / path for paths in found for path in paths]


def _read(path: Path, fmt: str, type_map: Sequence[str]) -> Frames | str:
    """Return the first frame of a structure, or why it cannot be read."""
    import dpdata

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            data = dpdata.System(str(path), fmt=fmt, type_map=list(type_map)).data
        symbols = tuple(data["atom_names"][kind] for kind in data["atom_types"])
        cell = np.asarray(data["cells"], dtype=np.float64)[:1]
        positions = np.asarray(data["coords"], dtype=np.float64)[:1]
    except Exception as error:  # noqa: BLE001 - whatever a parser of dpdata stumbles over
        return f"cannot be read as {fmt} ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
    if data.get("nopbc"):
        return "is not periodic"
    return Frames(symbols=symbols, cell=cell, positions=positions, pbc=(True, True, True))
