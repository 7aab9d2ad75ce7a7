"""A stand-in for GPAW, as far as gpaw_job.py knows it: EMT that takes 1.5 s and notes what it was asked for."""

import os
from pathlib import Path

from logged_emt import LoggedEMT

os.environ["LOGGED_EMT_SLEEP"] = "1.5"
setup_paths = [Path(__file__).parent]


def PW(cutoff):  # noqa: N802 - GPAW's name
    return cutoff


def FermiDirac(width):  # noqa: N802 - GPAW's name
    return width


class GPAW(LoggedEMT):
    """Takes GPAW's settings and heeds none."""

    def __init__(self, **settings):
        super().__init__()
        assert {"mode", "xc", "kpts", "occupations", "convergence", "maxiter"} <= settings.keys()
