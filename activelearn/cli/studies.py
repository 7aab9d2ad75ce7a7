"""``activelearn glass`` and ``activelearn benchmark``: work with any potential, without a campaign."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from activelearn.cli import (
    MachineOption,
    SlotsOption,
    TrustOption,
    UnusualOption,
    WaitOption,
    app,
    carry_out,
    machine_of,
    refuse_problems_of_study,
    say,
    say_found,
    say_programs,
    told_with_lines,
    want_accepted,
    want_trusted,
)
from activelearn.config import (
    Benchmark,
    CitedPoint,
    Glass,
    OwnGlasses,
    Potential,
    Study,
    load_benchmark,
    load_glass,
    load_points,
    load_potential,
    load_series,
    load_study,
    preset_names,
    with_cited,
)
from activelearn.config.paths import MODEL_SUFFIXES
from activelearn.config.presets import find
from activelearn.config.section import as_name
from activelearn.errors import ConfigError, typed

if TYPE_CHECKING:
    from activelearn.check.potential_speeds import Speed
    from activelearn.check.trust import Named
    from activelearn.config import Machine

PotentialArgument = Annotated[
    list[str] | None,
    typer.Argument(help="Potentials: presets, YAML files, or campaign folders (their final models)."),
]
PotentialsOption = Annotated[
    list[str] | None, typer.Option("--potentials", "--potential", help="Same as the arguments.")
]
SeriesOption = Annotated[str | None, typer.Option(help="Compositions: a preset of params/series/ or a YAML.")]
GlassOption = Annotated[
    str | None, typer.Option("--glass", help="Melt-quench: a preset of params/glass/ or a YAML; default quick.")
]
XOption = Annotated[str | None, typer.Option("--x", help="Only these compositions, such as 0,0.15.")]
AtomsOption = Annotated[
    int | None, typer.Option("--atoms", min=1, help="Number of atoms per cell; overrides the preset.")
]
ReplicasOption = Annotated[int | None, typer.Option("--replicas", min=1, help="Number of glasses per composition.")]
SeedOption = Annotated[int, typer.Option("--random-seed", min=0, help="Random seed of packings and velocities.")]
FolderOption = Annotated[
    Path | None, typer.Option(help="Study folder; default: in runs/, named after series and potentials.")
]
_BESIDE_STUDY: Final = (
    "--study together with potentials, --series, --x or --glasses - expected all of them in that YAML - leave them out"
)
_BESIDE_GLASSES: Final = (
    "--glasses together with --glass, --x, --atoms or --replicas - expected either existing glasses, or glasses to be "
    "made - remove one of the two"
)
#: How the names of structure files end, which are not potentials.
_STRUCTURES: Final = {".extxyz", ".xyz", ".cif", ".vasp", ".traj"}
CheckOption = Annotated[bool, typer.Option("--check", help="Show what would be done, and exit.")]


@app.command()
def glass(
    names: PotentialArgument = None,
    potentials: PotentialsOption = None,
    series: SeriesOption = None,
    preset: GlassOption = None,
    x: XOption = None,
    atoms: AtomsOption = None,
    replicas: ReplicasOption = None,
    random_seed: SeedOption = 1,
    folder: FolderOption = None,
    machine: MachineOption = "local",
    slots: SlotsOption = None,
    only_check: CheckOption = False,
    accept_unusual: UnusualOption = False,
    trust: TrustOption = False,
    wait: WaitOption = False,
) -> None:
    """Make glasses by melt-quench with one or more potentials; run the same command again after an interruption.

    Exit codes: 0 all glasses made, 3 some glasses failed, 2 bad input, 1 failure, 130/143 interrupted.
    """
    chosen, named = _potentials(potentials, names)
    if series is None and preset is None:
        raise ConfigError(_no_series(chosen, atoms))
    made = _glass(preset, series, x=x, atoms=atoms, replicas=replicas)
    _say_series(made, series)
    study = Study(name=_name(made, chosen), random_seed=random_seed, potentials=chosen, glass=made)
    _run(study, named, _How(folder, machine, slots, only_check, accept_unusual, trust, wait))


@app.command()
def benchmark(
    names: PotentialArgument = None,
    potentials: PotentialsOption = None,
    series: SeriesOption = None,
    preset: GlassOption = None,
    measured: Annotated[
        str, typer.Option("--benchmark", help="Properties to measure: a preset of params/benchmark/ or a YAML.")
    ] = "structure",
    cited: Annotated[
        list[Path] | None, typer.Option("--cited", help="CSV with your own digitised points (see params/cited).")
    ] = None,
    study: Annotated[
        Path | None, typer.Option("--study", help="One YAML with the whole study, instead of options.")
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--glasses", help="Existing glasses, instead of making any: extxyz files or a study folder."),
    ] = None,
    x: XOption = None,
    atoms: AtomsOption = None,
    replicas: ReplicasOption = None,
    random_seed: SeedOption = 1,
    folder: FolderOption = None,
    machine: MachineOption = "local",
    slots: SlotsOption = None,
    only_check: CheckOption = False,
    accept_unusual: UnusualOption = False,
    trust: TrustOption = False,
    wait: WaitOption = False,
) -> None:
    """Compare potentials on crystals and on glasses of a series, and with experiment where a value is cited.

    Exit codes: 0 everything measured, 3 finished with losses, 2 bad input, 1 failure, 130/143 interrupted.
    """
    from activelearn.check.trust import read_noted

    points = [point for path in cited or [] for point in load_points(path)]
    numbers = [point.number for point in points]
    if study is not None:
        if potentials or names or series or x or given:
            raise ConfigError(_BESIDE_STUDY)
        path = study
        whole, named = read_noted(lambda: load_study(path, numbers), path, "study")
    elif given:
        if preset or x or atoms or replicas:
            raise ConfigError(_BESIDE_GLASSES)
        chosen, named = _potentials(potentials, names) if potentials or names else ((), [])
        whole = with_cited(_of_given(given, series, chosen, random_seed, load_benchmark(measured)), numbers)
    else:
        chosen, named = _potentials(potentials, names)
        made = _glass(preset, series, x=x, atoms=atoms, replicas=replicas) if series or preset else None
        name = _name(made, chosen) if made is not None else as_name(Path(measured).stem, chosen[0].slug)
        _say_series(made, series)
        asked = load_benchmark(measured)
        whole = Study(name=name, random_seed=random_seed, potentials=chosen, glass=made, benchmark=asked)
        whole = with_cited(whole, numbers)
    _run(whole, named, _How(folder, machine, slots, only_check, accept_unusual, trust, wait), study, points)


def _potentials(
    options: Sequence[str] | None, arguments: Sequence[str] | None
) -> tuple[tuple[Potential, ...], list[Named]]:
    """Return the potentials, and the programs that their files name."""
    from activelearn.check.trust import read_noted

    names = [*(options or []), *(arguments or [])]
    if not names:
        raise ConfigError(
            "no potential - expected at least one: presets such as sevennet_0, YAML files, campaign folders - "
            "activelearn benchmark --potentials sevennet_0 runs/quickstart --series na3ps4o --x 0"
        )
    read = [read_noted(partial(_potential, name), _file_of(name), "potential") for name in names]
    return tuple(one for one, _ in read), [program for _, programs in read for program in programs]


def _file_of(name: str) -> Path:
    """Return the YAML of a potential, or the campaign folder whose models it is."""
    return Path(name) if Path(name).is_dir() else find("potential", name)


def _potential(name: str) -> Potential:
    folder = Path(name)
    if folder.suffix in _STRUCTURES:
        raise ConfigError(
            f"{name}: a structure file, not a potential - expected a preset, a YAML or a campaign folder - for an "
            f"existing glass, use: --glasses {typed(name)}"
        )
    if (folder / "campaign").is_dir():
        from activelearn.store import Store
        from activelearn.study import potential_of

        return potential_of(Store.open(folder))
    if folder.suffix in MODEL_SUFFIXES or folder.is_dir():
        raise ConfigError(
            f"{name}: a model file does not state its physics - expected a YAML with name, functional and "
            "includes_dispersion, or a campaign folder - see params/potential/README.md"
        )
    return load_potential(name)


def _of_given(
    files: Sequence[str], series: str | None, chosen: tuple[Potential, ...], random_seed: int, asked: Benchmark
) -> Study:
    """Return the study of glasses that one has, of which the files and the series are named."""
    from activelearn.given import series_of, with_compositions

    found = next(filter(None, map(series_of, map(Path, files))), None) if series is None else load_series(series)
    if found is None:
        names = " or ".join(preset_names("series"))
        raise ConfigError(
            "--glasses without --series - expected their series, whose cutoffs and roles of elements "
            f"the analyses use - add --series {names}, or write one (params/GLASSES.md)"
        )
    own = with_compositions(OwnGlasses(files=tuple(str(Path(file).absolute()) for file in files), series=found))
    name = as_name(found.name, *(Path(file).stem for file in files), *(one.slug for one in chosen))
    return Study(name=name, random_seed=random_seed, potentials=chosen, glasses=own, benchmark=asked)


def _say_series(made: Glass | None, series: str | None) -> None:
    """Print which series is used if no option names one."""
    if made is not None and series is None:
        print(f"series {made.series.name} ({made.series.title}), as named by --glass; to change it: --series")


def _no_series(potentials: Sequence[Potential], atoms: int | None) -> str:
    """Return the message that --series is missing, with the shipped series whose elements all potentials know."""
    from activelearn.check.glass import series_of
    from activelearn.engines import frozen

    each = [known for known in map(frozen.elements_of, potentials) if known is not None]
    known = set.intersection(*each) if each else None
    found = series_of(known, _glass(None, None, x=None, atoms=atoms, replicas=None))
    of = f" of {', '.join(sorted(known))}" if known else ""
    next_ = f"such as: {' or '.join(map(str, found))}" if found else f"write a series{of}, see params/GLASSES.md"
    return f"no --series - expected the compositions of the glass, a preset of params/series/ or a YAML - {next_}"


def _glass(preset: str | None, series: str | None, *, x: str | None, atoms: int | None, replicas: int | None) -> Glass:
    over = {
        "series": load_series(series).model_dump(mode="json") if series is not None else None,
        "x": _numbers(x) if x is not None else None,
        "n_atoms": atoms,
        "n_replicas": replicas,
    }
    made = load_glass(preset or "quick", **{key: value for key, value in over.items() if value is not None})
    if atoms is not None:
        _want_cells(made, atoms)
    return made


def _want_cells(glass: Glass, n_atoms: int) -> None:
    """Refuse a given number of atoms that does not suit a composition; that of a preset is adjusted instead."""
    from activelearn import packing

    sizes = {c.x: packing.smallest_size(c.units) for c in glass.compositions}
    found = {x: packing.nearest_size(n_atoms, size) for x, size in sizes.items()}
    wrong = [f"x = {x:g} ({n} atoms)" for x, n in found.items() if not packing.is_near(n, n_atoms)]
    if wrong:
        right = ",".join(f"{x:g}" for x, n in found.items() if packing.is_near(n, n_atoms))
        advice = f", or add --x {right}" if right else ""
        raise ConfigError(
            f"--atoms {n_atoms}: the nearest cells with exact stoichiometry are far from it at {', '.join(wrong)} - "
            f"expected a number that suits every x - use --atoms {math.lcm(*sizes.values())}{advice}, or leave out "
            "--atoms (each x then has its own number)"
        )


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise ConfigError(f"--x {text}: not numbers - expected compositions such as --x 0,0.15") from None


def _name(glass: Glass, potentials: Sequence[Potential]) -> str:
    return as_name(glass.series.name, *(potential.slug for potential in potentials))


class _How(NamedTuple):
    """Options common to `glass` and `benchmark`: where a study is carried out, and what the user accepts."""

    folder: Path | None
    machine: str
    slots: int | None
    only_check: bool
    accept: bool
    trust: bool
    wait: bool


def _run(
    study: Study, named: Sequence[Named], how: _How, file: Path | None = None, points: Sequence[CitedPoint] = ()
) -> None:
    profile, more = machine_of(how.machine, how.slots)
    place = (how.folder or Path("runs") / study.name).absolute()
    want_trusted([*named, *more], place, trust=how.trust)
    with told_with_lines(file, how.machine):
        found = refuse_problems_of_study(study, profile, place, points)
        say_found(found, file, how.machine)
        if not how.only_check:
            want_accepted(found.unusual, place, accept=how.accept)
    if not how.only_check:
        raise typer.Exit(carry_out(study, place, profile, found.unusual, points, wait=how.wait))


def _say_bill(study: Study, machine: Machine, place: Path, tried: Mapping[str, Speed] | None = None) -> None:
    """Print what a study takes, line by line."""
    from activelearn.check import pace
    from activelearn.check.study_cost import study_lines
    from activelearn.store import StudyStore

    slower, store = pace.slower(machine), StudyStore(place)
    begun = store if store.is_begun() and store.is_of(study) else None
    lines = study_lines(study, machine, slower, store=begun, tried=tried)
    print("\n" + "\n".join([*lines, *pace.said(machine, slower)]) + "\n")


def _bill_of_elsewhere(study: Study, machine: Machine, place: Path) -> None:
    """Print the bill where nothing is wrong but what this machine lacks, such as a login node without the engines."""
    from activelearn.check import check_study

    if not check_study(study, machine, here=False).problems:
        _say_bill(study, machine, place)
        say("the estimate assumes a machine that has what is missing here:")


def check_whole(
    file: Path,
    folder: Path | None,
    machine: str,
    slots: int | None,
    *,
    plan: bool,
    tries: bool,
    launchpad: Path | None,
    trust: bool = False,
) -> None:
    """Check the YAML of a whole study, as `check` does that of a campaign: facts, the bill, and what to type."""
    from activelearn.check.trust import read_noted
    from activelearn.store import Consent

    study, named = read_noted(lambda: load_study(file), file, "study")
    profile, more = machine_of(machine, slots)
    place = (folder or Path("runs") / study.name).absolute()
    if tries or trust:
        want_trusted([*named, *more], place, trust=trust)
    speeds: dict[str, Speed] = {}
    with told_with_lines(file, machine):
        try:
            found = refuse_problems_of_study(study, profile, place, launchpad=launchpad)
        except ConfigError:
            if plan:
                _bill_of_elsewhere(study, profile, place)
            raise
        if tries:
            from activelearn.check.trial import try_potentials

            notes, speeds = try_potentials(study, profile, say)
            found = replace(found, facts=[*found.facts, *notes, "tried: the potentials work"])
    say_found(found, file, machine)
    wants_trust = say_programs([*named, *more], place)
    if plan:
        _say_bill(study, profile, place, speeds)
    words = (
        ["benchmark", "--study", typed(file)]
        if launchpad is None
        else ["submit", typed(file), "-l", shlex.quote(str(launchpad))]
    )
    last = slots if launchpad is None else None
    asked = (("--folder", folder), ("--machine", None if machine == "local" else machine), ("--slots", last))
    words += [word for option, value in asked if value is not None for word in (option, shlex.quote(str(value)))]
    words += ["--accept-unusual"] * bool(Consent(place).not_accepted(found.unusual)) + ["--trust"] * wants_trust
    print("ok: activelearn " + " ".join(words))
