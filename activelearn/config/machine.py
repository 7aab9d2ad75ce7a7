"""A machine profile: where and how, never what."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from activelearn.config.section import Name, Section

ChunkedStation = Literal["prepare", "initial", "explore", "label", "train", "final", "glass", "benchmark"]


class Speeds(Section):
    """How fast one slot is, for the cost estimate of `check --plan` alone; measured ones of a campaign folder win."""

    label_s_per_atom: dict[str, PositiveFloat] = Field(
        default={}, description="Seconds of a label per atom, by calculator (module:Class) or engine (vasp, gpaw)."
    )
    md_Mflop_per_s: PositiveFloat | None = Field(
        default=None, description="DeePMD in LAMMPS: network operations per second, as `cost` counts them."
    )
    train_Mflop_per_s: PositiveFloat | None = Field(default=None, description="The same of dp train.")


class Machine(Section):
    """Where and how: slots, chunks, commands, limits. Not part of the campaign nor of its hash."""

    name: Name = "local"
    slots: PositiveInt | None = Field(default=None, description="Tasks at a time; null: one per core.")
    chunks: dict[ChunkedStation, PositiveInt] = Field(default={}, description="Fireworks per station; missing: 1.")
    python: str | None = Field(default=None, description="Interpreter with deepmd-kit and lammps; null: this one.")
    lammps: str | None = Field(
        default=None,
        description="Command of LAMMPS, such as 'mpirun -n 4 lmp'; null: the one of deepmd-kit, started once per slot.",
    )
    max_attempts: PositiveInt = Field(default=3, description="Tries of a task that infrastructure killed.")
    walk_timeout_s: PositiveFloat = 24 * 3600.0
    label_timeout_s: PositiveFloat = 24 * 3600.0
    train_timeout_s: PositiveFloat = 7 * 24 * 3600.0
    keep_scratch: bool = False
    scratch: str | None = Field(default=None, description="Fast local disk; null: scratch/ of the campaign folder.")
    min_free_disk_GB: NonNegativeFloat = 1.0
    speeds: Speeds = Speeds()

    @property
    def n_slots(self) -> int:
        """Tasks that run side by side."""
        return self.slots or len(os.sched_getaffinity(0))

    def n_chunks(self, station: str) -> int:
        """Fireworks of a station."""
        return next((n for name, n in self.chunks.items() if name == station), 1)
