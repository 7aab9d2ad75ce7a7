"""EMT that leaves a trace: which structures it was asked for, to find labels that were paid for twice."""

import hashlib
import os
import time
from pathlib import Path

from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT


class LoggedEMT(EMT):
    """Append the sha256 of cell and positions to the file of $LOGGED_EMT at every calculation, fsynced."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        folder = os.environ.get("LOGGED_EMT_AFTER_TRIAL_IN")
        if folder is not None and not any(Path(folder).glob("tried-*.json")):
            return  # the trial before the first job is neither counted nor slow
        digest = hashlib.sha256(atoms.cell.array.tobytes() + atoms.positions.tobytes()).hexdigest()
        descriptor = os.open(Path(os.environ["LOGGED_EMT"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, f"{digest} {os.getpid()}\n".encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        time.sleep(float(os.environ.get("LOGGED_EMT_SLEEP", "0")))  # a label that takes its time can be killed in it
