"""FireWorks at the edge: one Workflow per iteration, chunks as Fireworks, an embedded or a shared LaunchPad.

The only package that imports fireworks. A Firetask holds no science: it names a station of the campaign folder and
calls the functions of the plain loop. The LaunchPad only schedules; whatever it forgets is rebuilt from the folder.
"""

import contextlib
import sys

from activelearn.workflow.refusal import refused

try:
    with contextlib.redirect_stdout(sys.stderr):  # FireWorks prints where it found its settings
        import fireworks  # noqa: F401 - reads its settings now
except ImportError:
    raise
except Exception as error:  # noqa: BLE001 - anything that reading a YAML file raises
    raise refused(error) from None

from activelearn.workflow.drive import run_local as run_local
from activelearn.workflow.drive import run_study as run_study
from activelearn.workflow.firetasks import MAX_DETOURS as MAX_DETOURS
from activelearn.workflow.firetasks import Decide as Decide
from activelearn.workflow.firetasks import Gather as Gather
from activelearn.workflow.firetasks import RunChunk as RunChunk
from activelearn.workflow.firetasks import advance as advance
from activelearn.workflow.firetasks import build_workflow as build_workflow
from activelearn.workflow.launchpads import EmbeddedLaunchPad as EmbeddedLaunchPad
from activelearn.workflow.launchpads import SharedLaunchPad as SharedLaunchPad
from activelearn.workflow.launchpads import connect as connect
from activelearn.workflow.submit import submit as submit
