"""Labels of DP-GEN: its initial data, ``02.fp/data.*``, and outputs that it had not yet collected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from activelearn import exchange
from activelearn.errors import ConfigError
from activelearn.exchange import physics
from activelearn.exchange.deepmd_npy import read_deepmd, systems_in
from activelearn.exchange.dpgen.given import DpgenFolder, number
from activelearn.exchange.dpgen.keys import Fate
from activelearn.exchange.dpgen.told import DpgenReport
from activelearn.exchange.files import read
from activelearn.exchange.reads import Read, with_walk

#: By fp_style, the output of a task and its format, as collected by DP-GEN.
OUTPUTS: Final[Mapping[str, tuple[str, str]]] = {
    "vasp": ("OUTCAR", "outcar"),
    "pwscf": ("output", "qe"),
    "cp2k": ("output", "cp2k"),
    "abacus": (".", "abacus"),
    "siesta": ("output", "siesta/output"),
    "gaussian": ("output", "gaussian/log"),
    "pwmat": ("OUT.MLMD", "pwmat/output"),
}
#: Endings of what somebody packed to save space.
_PACKED: Final = (".tar", ".tgz", ".gz", ".xz", ".bz2", ".zst", ".zip", ".7z")
#: Parts of a path, and allowed characters, that name a trajectory.
_N_PARTS, _MOST_LETTERS = 4, 90


@dataclass(frozen=True)
class LabelSource:
    """One source of labels of DP-GEN.

    Parameters
    ----------
    path
        A file, a system, or a folder of systems.
    kind
        Its format, as in ``labels import --format``.
    is_output
        Whether it is the output of one task, which may have failed.
    """

    path: Path
    kind: str
    is_output: bool = False


def sources_of(given: DpgenFolder, report: DpgenReport) -> list[LabelSource]:
    """Return the sources of labels: initial data first, then the iterations in order."""
    found = [*_initial(given, report)]
    for iteration in given.iterations:
        folders = sorted((iteration / "02.fp").glob("data.*"))
        gathered = {path.name.partition(".")[2]: _systems(path) for path in folders}
        whole = {system for system, ones in gathered.items() if _is_whole(ones)}
        outputs = [(system, one) for system, one in _outputs(given, iteration) if system not in whole]
        found += [one for system, ones in gathered.items() if system not in dict(outputs) for one in ones]
        found += [one for _, one in outputs]
    packed = [given.folder.glob("iter.*"), given.folder.glob("iter.*/02.fp*"), given.folder.glob("iter.*/02.fp/*")]
    report.facts += [
        f"{path.relative_to(given.folder)}: is packed, and labels in it are not taken - unpack it and import again"
        for paths in packed
        for path in sorted(paths)
        if path.name.endswith(_PACKED) and path.is_file()
    ]
    there = {number(iteration) for iteration in given.iterations}
    if missing := [k for k in range(given.n_done) if k not in there]:
        report.facts.append(f"record.dpgen: iterations {missing[0]} to {missing[-1]} are done, and not all are here")
    return found


def _systems(path: Path) -> list[LabelSource]:
    """Return the deepmd systems in a folder, or the folder if it is one."""
    return [LabelSource(system, "deepmd") for system in systems_in(path)] if path.is_dir() else []


def _is_whole(gathered: list[LabelSource]) -> bool:
    """Return whether there are systems, all with energies and forces: DP-GEN may have been killed as it wrote them."""

    def has(system: Path, name: str) -> bool:
        return (system / f"{name}.raw").is_file() or any(system.glob(f"set.*/{name}.npy"))

    return bool(gathered) and all(has(one.path, name) for one in gathered for name in ("energy", "force"))


def _initial(given: DpgenFolder, report: DpgenReport) -> Iterator[LabelSource]:
    prefix = given.path(str(given.param.get("init_data_prefix", "./")))
    for name in given.param.get("init_data_sys") or []:
        path = prefix / str(name)
        if path.is_file():
            yield LabelSource(path, "deepmd/hdf5")
        elif systems := _systems(path):
            yield from systems
        else:
            report.say("init_data_sys", Fate.CHANGED, "missing data were not taken: see the facts")
            report.facts.append(f"init_data_sys: no labelled system at {path}")


def _outputs(given: DpgenFolder, iteration: Path) -> Iterator[tuple[str, LabelSource]]:
    """Yield the outputs of tasks, each with the number of its system: DP-GEN collects them system by system."""
    style, params = str(given.param.get("fp_style")), given.param.get("fp_params") or {}
    name, kind = OUTPUTS.get(style, ("", ""))
    if style == "custom" and isinstance(params, Mapping):
        name, kind = str(params.get("output_fn", "")), str(params.get("output_fmt", ""))
    if not name:
        return
    for task in sorted((iteration / "02.fp").glob("task.*")):
        path = task if name == "." else task / name
        if path.exists() and (name != "." or any(task.glob("OUT.*"))):
            yield task.name.split(".")[1], LabelSource(path, kind, is_output=True)


def import_all(given: DpgenFolder, ledger: Path, identity: Mapping[str, Any], report: DpgenReport) -> int:
    """Read all labels of DP-GEN into a ledger; return their number.

    Parameters
    ----------
    given, report
        DP-GEN's input, and the report of what was refused, and why.
    ledger
        The folder.
    identity
        Identity of the reference that labelled.
    """
    reads: list[Read] = []
    n_torn = 0
    sources = sources_of(given, report)
    for source in sources:
        try:
            found = [_of_its_own_walk(one, source, given) for one in _reader(source, given)()]
            reads += physics.judged(found)
        except ConfigError as error:
            if not source.is_output:
                raise
            n_torn += 1
            report.facts.append(f"not read: {error.problems[0]}")
    if not reads:
        return 0
    n, tally = exchange.publish_reads(ledger, reads, identity)
    n_outputs = sum(source.is_output for source in sources) - n_torn
    places = "1 place" if len(sources) == 1 else f"{len(sources)} places"
    report.facts.append(f"{n} labels of {exchange.name_of(identity)} taken from {places}")
    if n_outputs:
        report.facts.append(f"{n_outputs} of them from outputs that DP-GEN had not collected")
    report.facts += tally.sentences()
    return n


def _of_its_own_walk(one: Read, source: LabelSource, given: DpgenFolder) -> Read:
    """Return a frame with a trajectory named after its location, since all iterations have a ``data.000``."""
    if one.frame is None:
        return one
    path = source.path
    name = path.relative_to(given.folder) if path.is_relative_to(given.folder) else Path(*path.parts[-_N_PARTS:])
    return replace(one, frame=with_walk(one.frame, str(name)[-_MOST_LETTERS:]))


def _reader(source: LabelSource, given: DpgenFolder) -> Callable[[], Iterator[Read] | list[Read]]:
    if source.kind == "deepmd":  # without type_map.raw the types are those of the run, as for DeePMD-kit itself
        return partial(read_deepmd, source.path, tuple(given.param["type_map"]))
    return partial(read, source.path, source.kind)
