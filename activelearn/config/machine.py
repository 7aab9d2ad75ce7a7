"""A machine profile: where and how a campaign runs, never what it computes."""

from __future__ import annotations

import os
import re
import shlex
from typing import Annotated, Final, Literal, get_args

from pydantic import (
    AfterValidator,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from activelearn.config.bounds import of
from activelearn.config.paths import FolderPath, ProgramPath
from activelearn.config.program import Program
from activelearn.config.section import Name, Section

TasksAtATime = Annotated[PositiveInt, of("number of tasks at a time")]

ChunkedStation = Literal["prepare", "initial", "explore", "label", "train", "final", "glass", "benchmark"]
#: Stations that run where others do, in as many chunks.
ALIKE: Final = {"teach": "train", "distil": "explore"}
#: Category of the Fireworks that compute almost nothing: select, gather, decide.
LIGHT: Final = "light"


def _is_some_time(given: str) -> str:
    if not given.strip("0-:"):
        raise ValueError(f"{given} is no time at all - expected one that a job can run in, such as 24:00:00")
    return given


Walltime = Annotated[str, StringConstraints(pattern=r"^(\d+-)?\d{1,2}:[0-5]\d:[0-5]\d$"), AfterValidator(_is_some_time)]
#: A word of the batch system: no white space, no shell syntax.
Word = Annotated[str, StringConstraints(pattern=r"^[\w.:,=+/@%-]+$")]
#: How many CPUs a job has here, as Slurm, Torque and LSF say it. (NCPUS, the word of PBS, may be anybody's.)
_CPUS_OF_JOB: Final = ("SLURM_CPUS_ON_NODE", "PBS_NUM_PPN", "LSB_DJOB_NUMPROC")
#: Names of environment variables that hold secrets.
SECRET: Final = re.compile(r"(?i)passw|passphrase|secret|token|credential|api_?key|mongo.*ur[il]")


class Speeds(Section):
    """Speed of one slot, only for the cost estimate of `check --plan`; times measured in the campaign folder win."""

    label_s_per_atom: dict[str, Annotated[PositiveFloat, of("time of a label")]] = Field(
        default={}, description="Seconds of a label per atom, by calculator (module:Class) or engine (vasp, cp2k)."
    )
    start_s: dict[str, Annotated[PositiveFloat, of("time of a start")]] = Field(
        default={},
        description="Seconds until an engine is ready, once per node: by calculator, engine, or `trainer`.",
    )
    md_Mflop_per_s: Annotated[PositiveFloat, of("speed of a network")] | None = Field(
        default=None,
        description="DeePMD in LAMMPS, a network of 1 Mflop per atom: operations per second, as `check --plan` counts "
        "them.",
    )
    train_Mflop_per_s: Annotated[PositiveFloat, of("speed of a network")] | None = Field(
        default=None, description="The same for dp train."
    )
    pace_s: Annotated[PositiveFloat, of("pace")] | None = Field(
        default=None,
        description="CPU time of the arithmetic of `check --plan` on this slot, as printed by it (s): declared times "
        "are scaled by its time on the current machine. null: no scaling.",
    )


def _words(text: str) -> str:
    try:
        shlex.split(text)
    except ValueError as error:
        raise ValueError(f"cannot be split into words ({error}) - expected a command as in a shell") from None
    return text


def n_cpus() -> int:
    """Return how many CPUs this process may use: of a batch job its own, also where no cgroup hides the others."""
    visible = len(os.sched_getaffinity(0))
    names = [*_CPUS_OF_JOB, *(["NCPUS"] if "PBS_JOBID" in os.environ else [])]
    ours = (os.environ.get(name, "") for name in names)
    return min([visible, *(int(n) for n in ours if n.isdigit() and int(n) > 0)])


def n_gpus(gres: str | None) -> int | None:
    """Return how many GPUs ``gpu:4``, ``gpu:1080ti:4``, ``gpu`` or ``4`` are; None: it does not say."""
    for one in (gres or "").split(","):
        found = re.fullmatch(r"(?:gres[:/])?gpu(?::(?!\d+$)[\w.-]+)?(?::(\d+))?|(\d+)", one)
        if found is not None:
            return int(found[1] or found[2] or 1)
    return None


#: A program and its arguments.
Command = Annotated[str, AfterValidator(_words)]
#: Variables; some determine what is loaded (LD_PRELOAD, PYTHONPATH).
Environment = Annotated[dict[Name, str], Program()]


class Queue(Section):
    """What the batch system is asked for: the same keys, with units in their names, for each of them."""

    system: Literal["slurm", "pbs", "torque", "lsf"] = Field(
        default="slurm", description="The batch system; pbs: PBS Professional and OpenPBS."
    )
    partition: Word | None = Field(default=None, description="Partition (Slurm) or queue (PBS and LSF, required).")
    walltime: Walltime | None = Field(default=None, description="HH:MM:SS or D-HH:MM:SS.")
    nodes: Annotated[PositiveInt, of("number of nodes")] = 1
    ntasks: TasksAtATime = 1
    cpus_per_task: TasksAtATime | None = None
    memory_GB: Annotated[PositiveFloat, of("memory")] | None = Field(default=None, description="Of a node.")
    gres: Word | None = Field(default=None, description="Such as gpu:4; on PBS and LSF, GPUs only.")
    account: Word | None = Field(default=None, description="Account; the project of LSF.")
    qos: Word | None = Field(default=None, description="Of Slurm alone.")
    constraint: Word | None = Field(
        default=None,
        description="A feature (Slurm), another resource such as gpu_model=a100 (PBS), what select[] takes (LSF).",
    )

    @model_validator(mode="after")
    def _check(self) -> Queue:
        if self.system == "slurm":
            return self
        if self.partition is None:
            raise ValueError(
                f"partition: null - expected the name of a queue of {self.system}: FireWorks counts the jobs that "
                "wait in it, and otherwise submits without end"
            )
        if self.qos is not None:
            raise ValueError(f"qos: {self.qos} - expected null, since {self.system} has no such option - remove it")
        if self.gres is not None and self.n_gpus is None:
            raise ValueError(f"gres: {self.gres} - expected only GPUs, such as gpu:1 - correct it")
        return self

    @property
    def n_cpus(self) -> int | None:
        """The CPUs that a job asks for; None: it asks for nodes or a partition, and says no number."""
        if self.cpus_per_task is None and self.ntasks == 1:
            return None
        return max(self.nodes, self.ntasks) * (self.cpus_per_task or 1)

    @property
    def n_gpus(self) -> int | None:
        """The GPUs that each node of a job is asked for; None: none, or `gres` does not say."""
        return n_gpus(self.gres)


class Place(Section):
    """Where the Fireworks of one or more stations run; null values are taken from the machine profile."""

    category: Name | None = Field(default=None, description="Category of the FireWorker; null: the name of the place.")
    queue: Queue = Queue()
    slots: TasksAtATime | None = Field(default=None, description="Tasks of one Firework run in parallel.")
    gpus: tuple[NonNegativeInt, ...] | None = Field(
        default=None, description="CUDA devices; shared among the slots. (): none. null: all visible ones."
    )
    setup: Annotated[tuple[str, ...], Program()] = Field(
        default=(), description="Bash lines run before the worker starts, such as module load cuda."
    )
    environment: Environment = Field(default={}, description="Environment variables of every engine.")
    python: Annotated[str | None, Program()] = None
    lammps: Annotated[Command | None, Program()] = None
    launcher: Annotated[Command | None, Program()] = None


class Report(Section):
    """The page that is written when a campaign or a study ends."""

    bounds: dict[Name, FiniteFloat] = Field(
        default={}, description="Bounds of findings by their key, in the unit of docs/report.md."
    )


class Machine(Section):
    """Where and how: slots, chunks, commands, limits. Neither part of the campaign nor of its hash."""

    name: Name = "local"
    places: dict[Name, Place] = Field(default={}, description="Kinds of nodes, such as cpu and gpu.")
    stations: dict[ChunkedStation | Literal["light"], Name] = Field(
        default={},
        description="Place of each station ('light': select, gather, decide); missing: the first place.",
    )
    launcher: Annotated[Command | None, Program()] = Field(
        default=None,
        description="Launcher of every engine, such as 'srun --exact --nodes=1 --ntasks=1 --cpus-per-task=1'.",
    )
    gpus: tuple[NonNegativeInt, ...] | None = Field(
        default=None, description="CUDA devices; shared among the slots. (): none. null: all visible ones."
    )
    environment: Environment = Field(default={}, description="Environment variables of every engine.")
    slots: TasksAtATime | None = Field(default=None, description="Tasks run in parallel; null: one per core.")
    chunks: dict[ChunkedStation, TasksAtATime] = Field(default={}, description="Fireworks per station; missing: 1.")
    python: Annotated[ProgramPath | None, Program()] = Field(
        default=None, description="Python interpreter with deepmd-kit and lammps; null: this one."
    )
    lammps: Annotated[Command | None, Program()] = Field(
        default=None,
        description="Command of LAMMPS, such as 'mpirun -n 4 lmp'; null: that of deepmd-kit, started once per node.",
    )
    max_attempts: Annotated[PositiveInt, of("number of tries")] = Field(
        default=3, description="Attempts at a task that fails on infrastructure."
    )
    grace_s: Annotated[NonNegativeFloat, of("time of grace")] = Field(
        default=10.0, description="Time from SIGTERM to SIGKILL for an engine past its time-out."
    )
    checkpoints: bool = Field(
        default=False,
        description="A killed training continues from its last checkpoint, for trainings longer than a walltime. "
        "Recorded; the models are then not bitwise identical to those of an undisturbed run.",
    )
    walk_timeout_s: Annotated[PositiveFloat, of("time limit")] = 24 * 3600.0
    label_timeout_s: Annotated[PositiveFloat, of("time limit")] = 24 * 3600.0
    train_timeout_s: Annotated[PositiveFloat, of("time limit")] = 7 * 24 * 3600.0
    keep_scratch: bool = False
    scratch: FolderPath | None = Field(
        default=None, description="Fast local disk; null: scratch/ of the campaign folder."
    )
    report: bool | Report = Field(
        default=True,
        description="Write report.html when a campaign or a study ends; a section sets bounds of its findings.",
    )
    min_free_disk_GB: Annotated[NonNegativeFloat, of("free disk")] = 1.0
    speeds: Speeds = Speeds()

    @property
    def finding_bounds(self) -> dict[str, float]:
        """Bounds of the findings of a page, by their key."""
        return {} if isinstance(self.report, bool) else self.report.bounds

    @property
    def n_slots(self) -> int:
        """Parallel tasks: as given, or the tasks of the Slurm allocation that a launcher uses, or the cores."""
        if self.slots is not None:
            return self.slots
        if self.launcher is not None and os.environ.get("SLURM_NTASKS", "").isdigit():
            return int(os.environ["SLURM_NTASKS"])
        return n_cpus()

    def n_chunks(self, station: str) -> int:
        """Number of Fireworks of a station."""
        return next((n for name, n in self.chunks.items() if name == ALIKE.get(station, station)), 1)

    def place_name(self, station: str) -> str | None:
        """Return the name of the place of a station (or of `LIGHT`); None if the profile has no places."""
        if not self.places:
            return None
        station = ALIKE.get(station, station)
        return next((place for name, place in self.stations.items() if name == station), next(iter(self.places)))

    def stations_by_place(self) -> dict[str, list[str]]:
        """Return the stations of each place that has any; without places, all at the profile itself."""
        found: dict[str, list[str]] = {}
        for station in (*get_args(ChunkedStation), LIGHT):
            found.setdefault(self.place_name(station) or self.name, []).append(station)
        return found

    def __str__(self) -> str:
        """Return one line on what runs where."""
        if not self.places:
            return f"machine {self.name}: {self.n_slots} slots, one thread each"
        where = (f"{place} for {', '.join(stations)}" for place, stations in self.stations_by_place().items())
        return f"machine {self.name}: {'; '.join(where)}"

    def category(self, station: str) -> str:
        """Return the category of a station's Fireworks; without places that is the station's own name."""
        place = self.place_name(station)
        return ALIKE.get(station, station) if place is None else self.places[place].category or place

    def at(self, station: str) -> Machine:
        """Return the profile for a station, with the settings of its place."""
        name = self.place_name(station)
        if name is None:
            return self
        place = self.places[name]
        own = {key: getattr(place, key) for key in ("slots", "gpus", "python", "lammps", "launcher")}
        told = {key: value for key, value in own.items() if value is not None}
        return self.model_copy(update={**told, "environment": {**self.environment, **place.environment}})

    @model_validator(mode="after")
    def _want_no_secrets(self) -> Machine:
        for environment in (self.environment, *(place.environment for place in self.places.values())):
            for name in filter(SECRET.search, environment):
                raise ValueError(
                    f"environment.{name} - expected no secret, since the profile is copied into the campaign folder - "
                    "set it in the shell that starts the workers"
                )
        return self

    @model_validator(mode="after")
    def _want_known_places(self) -> Machine:
        for station, place in self.stations.items():
            if place not in self.places:
                known = ", ".join(self.places) or "none"
                raise ValueError(
                    f"stations.{station}: no place {place!r} - expected one of `places` (defined: {known})"
                )
        return self
