"""A worker that is killed where it hurts: python dying_worker.py my_launchpad.yaml claim|launch|lock.

Killed by SIGKILL, by itself: after the claim of a Firework, after its launch was noted and the Firework does not know
of it, or when it has finished a Firework and holds the lock of the Workflow to say so.
"""

import sys

from doctored import kill_myself

from activelearn.workflow import SharedLaunchPad
from activelearn.workflow.worker import rlaunch

_update = SharedLaunchPad._update_wf


def update_until_completed(self, workflow, updated):
    """Change a Workflow; die instead if a Firework of it is COMPLETED now."""
    if any(workflow.id_fw[fw_id].state == "COMPLETED" for fw_id in updated):
        kill_myself()
    _update(self, workflow, updated)


if __name__ == "__main__":
    launchpad, where = sys.argv[1:]
    name, death = {
        "claim": ("get_new_launch_id", kill_myself),
        "launch": ("_upsert_fws", kill_myself),
        "lock": ("_update_wf", update_until_completed),
    }[where]
    setattr(SharedLaunchPad, name, death)
    sys.exit(rlaunch(["-l", launchpad, "singleshot"]))
