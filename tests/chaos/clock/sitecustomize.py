"""A clock that jumps: on the path of what the tests of faults start, it adds the seconds in the file $CHAOS_CLOCK.

Every Python process of a campaign asks it: driver, workers of the engines, rivals. The file may change at any moment.
"""

import os
import time

_time, _strftime, _localtime = time.time, time.strftime, time.localtime


def _jumped() -> float:
    try:
        with open(os.environ["CHAOS_CLOCK"]) as stream:
            return _time() + float(stream.read() or 0.0)
    except (KeyError, OSError, ValueError):
        return _time()


time.time = _jumped
time.localtime = lambda seconds=None: _localtime(_jumped() if seconds is None else seconds)
time.strftime = lambda form, when=None: _strftime(form, time.localtime() if when is None else when)
