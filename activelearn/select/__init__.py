"""Select: classify frames by the force deviation of the ensemble, and pick from the trust window.

Everything except the station and the calibration is numpy on plain arrays; any station may import it.
"""

from __future__ import annotations

from activelearn.select import reach as reach
from activelearn.select.accuracy import accuracy_after as accuracy_after
from activelearn.select.accuracy import accuracy_of as accuracy_of
from activelearn.select.calibration import f_hi_by_walk as f_hi_by_walk
from activelearn.select.calibration import last_window as last_window
from activelearn.select.calibration import pairs as pairs
from activelearn.select.calibration import summary as summary
from activelearn.select.calibration import window_of as window_of
from activelearn.select.keeping import mined as mined
from activelearn.select.keeping import worth_keeping as worth_keeping
from activelearn.select.pooling import cell_of as cell_of
from activelearn.select.station import STATION as STATION
from activelearn.select.verdict import held_back as held_back
from activelearn.select.verdict import over as over
from activelearn.select.verdict import p99 as p99
from activelearn.select.window import FrameClass as FrameClass
from activelearn.select.window import atomic_deviation as atomic_deviation
from activelearn.select.window import classify_walk as classify_walk
from activelearn.select.window import force_deviation as force_deviation
