"""FireWorks at the edge: one Workflow per iteration, chunks as Fireworks, an embedded or a shared LaunchPad.

The only package that imports fireworks. A Firetask holds no science: it names a station of the campaign folder and
calls the functions of the plain loop. The LaunchPad only schedules; whatever it forgets is rebuilt from the folder.
"""

import contextlib
import sys

from activelearn.workflow.refusal import refused

try:
    with contextlib.redirect_stdout(sys.stderr):  # where it found settings is not what was asked for
        import fireworks  # noqa: F401 - reads its settings now
except ImportError:
    raise
except Exception as error:  # noqa: BLE001 - whatever reading a YAML file raises
    raise refused(error) from None

from activelearn.workflow.drive import run_local, run_study
from activelearn.workflow.firetasks import MAX_DETOURS, Decide, Gather, RunChunk, advance, build_workflow
from activelearn.workflow.launchpads import EmbeddedLaunchPad, SharedLaunchPad, connect
from activelearn.workflow.submit import submit

__all__ = [
    "MAX_DETOURS",
    "Decide",
    "EmbeddedLaunchPad",
    "Gather",
    "RunChunk",
    "SharedLaunchPad",
    "advance",
    "build_workflow",
    "connect",
    "run_local",
    "run_study",
    "submit",
]
