"""A worker without a driver: carries out one station of a campaign folder, as the workers of a LaunchPad do.

python rival.py FOLDER STATION ITERATION MACHINE
"""

import sys
from pathlib import Path

from activelearn import loop
from activelearn.config import load_machine
from activelearn.engines import process
from activelearn.store import Store
from activelearn.tasks import carry_out

if __name__ == "__main__":
    folder, station, iteration, machine = sys.argv[1:]
    try:
        carry_out(loop.STATIONS[station], Store.open(Path(folder)), int(iteration), load_machine(Path(machine)))
    finally:
        process.close_sessions()
