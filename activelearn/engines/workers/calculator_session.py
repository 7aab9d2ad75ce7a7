"""A session that labels structures with any ASE calculator, in any interpreter that has numpy and ase.

Started by path; never imports activelearn. One JSON object per line on standard input, one per line on standard
output (see answering.py); output of a calculator goes to standard error, and its standard input is empty.

A session for all slots of a node loads a calculator once and forks a worker per slot before the first calculation, so
that results are those of a separate process. A calculator that has started threads, files, or processes by then cannot
be forked (CUDA, for example): the answer is {"alone": [reasons]}, and each slot gets its own session.
"""

import contextlib
import ctypes
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import answering  # type: ignore[import-not-found]  # a neighbour, by path

PR_SET_PDEATHSIG = 1
_calculators: dict[str, Any] = {}
_begun: list[Any] = []  # the current label, or one whose answer the driver may not have published


def load(request):
    """Return the calculator of ``module:Class`` and keyword arguments: loaded once, reset for each structure.

    With "only" in the request it replaces all others, such as the members of earlier ensembles.
    """
    spec = {name: request.get(name) for name in ("calculator", "arguments", "d3")}
    key = json.dumps(spec, sort_keys=True)
    if key not in _calculators:
        if request.get("only"):
            _calculators.clear()
        module, name = spec["calculator"].split(":")
        make = getattr(importlib.import_module(module), name)
        one_thread()
        made = make(**as_paths(spec["arguments"]))
        if not hasattr(made, "get_forces"):
            raise TypeError(f"{spec['calculator']} makes a {type(made).__name__}, which is not an ASE calculator")
        _calculators[key] = with_numbers(answering.with_dispersion(made, spec["d3"]))
        one_thread()
    answering.forget(_calculators[key])
    return _calculators[key]


def as_paths(arguments):
    """Return keyword arguments with the file of a MACE as a path, since mace takes a string for a glob pattern."""
    return {
        key: Path(value) if key == "model_paths" and isinstance(value, str) and Path(value).is_file() else value
        for key, value in arguments.items()
    }


def with_numbers(calculator):
    """Make a calculator return energies as numbers, since ASE's optimizers cannot print an array of one."""
    energy = calculator.get_potential_energy
    calculator.get_potential_energy = lambda *args, **more: answering.number(energy(*args, **more))
    return calculator


def one_thread():
    """Limit torch to one thread if the calculator has imported it (importing it for EMT would cost seconds)."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def find_weights(name):
    """Return the path of ``package:path`` or of a plain path."""
    if ":" in name and not Path(name).is_file():
        package, inside = name.split(":", 1)
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"package {package} is not installed")
        return Path(spec.submodule_search_locations[0]) / inside
    return Path(name).expanduser()


def describe(request):
    """Return version of the package and sha256 of the weights, for the fingerprint of the labels."""
    package = request.get("package") or request["calculator"].split(":")[0].split(".")[0]
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    weights = request.get("weights")
    sha = hashlib.sha256(find_weights(weights).read_bytes()).hexdigest() if weights else None
    return {
        "version": version,
        "weights_sha256": sha,
        "arguments": without_paths(request["arguments"]),
        "d3_version": answering.d3_version(request),
    }


def without_paths(value):
    """Return arguments with every file, deep inside or in a line, replaced by the sha256 of its content."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and Path(value).expanduser().is_file():
        return "sha256:" + hashlib.sha256(Path(value).expanduser().read_bytes()).hexdigest()
    if isinstance(value, str) and "/" in value and len(value.split()) > 1:  # a line for LAMMPS
        return " ".join(without_paths(word) for word in value.split())
    return value


def watch_driver(parent, driver):
    """End this process when the driver is gone (kill -9), also during a job, unless its label is to be kept.

    Under a launcher such as srun the parent stays alive, but the other end of the requests is closed.
    """
    requests = select.poll()
    requests.register(driver, 0)  # only a hang-up, which is always reported
    while os.getppid() == parent and not requests.poll(1000):
        pass
    for begun in _begun:  # the main thread publishes it, which removes its record
        begun.watch()
    os._exit(1)


def work(requests, out):
    """Answer requests in sequence until the input ends."""
    threading.Thread(target=watch_driver, args=(os.getppid(), requests.fileno()), daemon=True).start()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the reader is gone
        for line in requests:
            request = json.loads(line)
            with contextlib.suppress(OSError):  # a full disk is reported by the driver
                _begun[:] = []
                _begun[:] = answering.begin(request)
            found = answering.answer(request, load, describe)
            if answering.FAILURES & found.keys():
                _calculators.clear()  # a failed calculator may be incomplete; the next request creates a new one
            out.write(json.dumps({**found, "id": request["id"]}) + "\n")
            out.flush()
    for begun in _begun:  # its record exists: no driver has published it
        begun.keep(found)


@contextlib.contextmanager
def watched(driver):
    """End this process if the driver disappears within the block, even if a loading library hangs."""
    me = os.getpid()
    watcher = os.fork()
    if watcher == 0:
        requests = select.poll()
        requests.register(driver, 0)  # only a hang-up
        while os.getppid() == me and not requests.poll(1000):
            pass
        if os.getppid() == me:
            os.kill(me, signal.SIGKILL)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(watcher, signal.SIGKILL)
        os.waitpid(watcher, 0)


def fork(others):
    """Return the worker of a slot: a fork with the loaded calculator, before its first calculation.

    It closes the sockets of `others`, which otherwise would not hang up when the host is gone.
    """
    ours, theirs = socket.socketpair()
    host, pid = os.getpid(), os.fork()
    if pid == 0:
        try:
            for one in (ours, *others):
                one.close()
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == host:
                work(theirs.makefile("r"), theirs.makefile("w"))
        except BaseException:  # it must not continue as a copy of the host
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    theirs.close()
    return Child(pid, ours)


class Child:
    """The worker of a slot as the host sees it: its process, our end of its socket, and its current request."""

    def __init__(self, pid, ours):
        self.pid, self.socket, self.id, self.text = pid, ours, None, b""

    def ask(self, request):
        """Pass on a request."""
        self.id = request["id"]
        with contextlib.suppress(OSError):  # its death is detected when reading from it
            self.socket.sendall(json.dumps(request).encode() + b"\n")

    def read(self):
        """Return the received lines, and whether there may be more."""
        try:
            piece = self.socket.recv(1 << 20)
        except ConnectionResetError:
            piece = b""
        *lines, self.text = (self.text + piece).split(b"\n")
        return lines, bool(piece)

    def reap(self):
        """Wait for its end; return its code."""
        self.socket.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Host:
    """Loads each calculator once, and forks a child for each slot.

    Parameters
    ----------
    requests
        File descriptor of the requests; each says its ``slot``.
    out
        Where the answers go.
    """

    def __init__(self, requests, out):
        self.requests, self.out, self.text = requests, out, b""
        self.before = belongings()  # now, since describing a calculator may import it
        self.in_the_way: set[str] = set()  # what a calculator has started that prevents a fork
        self.children: dict[int, Child] = {}  # by slot

    def serve(self):
        """Pass requests to the children and return their answers, until the driver is gone."""
        parent, is_open = os.getppid(), True
        while is_open and os.getppid() == parent:
            ready = self.ready()
            if self.in_the_way and not ready and all(one.id is None for one in self.children.values()):
                break  # all slots have been told
            for slot, child in list(self.children.items()):
                if child.socket.fileno() in ready:
                    self.relay(slot, child)
            if self.requests in ready:
                piece = os.read(self.requests, 1 << 20)
                *lines, self.text = (self.text + piece).split(b"\n")
                for line in lines:
                    self.take(json.loads(line))
                is_open = bool(piece)
        for child in self.children.values():
            child.socket.close()
        for child in self.children.values():  # a label to be kept is finished
            os.waitpid(child.pid, 0)

    def ready(self):
        """Wait at most a second; return the readable file descriptors."""
        poll = select.poll()
        for descriptor in (self.requests, *(one.socket.fileno() for one in self.children.values())):
            poll.register(descriptor, select.POLLIN)
        return {descriptor for descriptor, _ in poll.poll(1000)}

    def take(self, request):
        """Execute a request, or end a job."""
        if "end" in request:
            for child in self.children.values():
                if child.id == request["end"]:
                    os.kill(child.pid, request["signal"])  # its end is seen as any other
            return
        slot, number = request["slot"], {"id": request["id"]}
        if request.pop("fresh") and slot in self.children:
            child = self.children.pop(slot)
            os.kill(child.pid, signal.SIGKILL)
            child.reap()
        if request["job"] == "describe":
            self.say({**self.carry_out(request), **number})
            return
        if slot not in self.children:
            failed = self.begin(slot, request)
            if failed:
                self.say({**failed, **number})
                return
        self.children[slot].ask(request)

    def begin(self, slot, request):
        """Load a calculator and fork the worker of a slot; return what prevents this, if anything."""
        if self.before is None:
            self.in_the_way.add("what cannot be told without /proc")
        found = {} if self.in_the_way else self.carry_out({**request, "job": "load"})
        self.in_the_way |= self.begun()
        if self.in_the_way or answering.FAILURES & found.keys():
            _calculators.clear()
            if not self.in_the_way:
                return found
            alone = sorted(self.in_the_way)
            print("loaded in each slot, for a fork would lose or share", *alone, file=sys.stderr, flush=True)
            return {"alone": alone}
        self.children[slot] = fork([one.socket for one in self.children.values()])
        return {}

    def carry_out(self, request):
        """Answer a request ourselves; without a driver, wait only for children that may be computing labels."""
        with contextlib.nullcontext() if self.children else watched(self.requests):
            return answering.answer(request, load, describe)

    def begun(self):
        """Return what calculators have started, after waiting at most a second for ending threads."""
        if self.before is None:
            return set()
        if "tqdm" in sys.modules and (monitor := sys.modules["tqdm"].tqdm.monitor) is not None:
            monitor.exit()  # the thread that watches over a progress bar, such as one that was shown while loading
        ours = {f"process {one.pid}" for one in self.children.values()}
        ours |= {opened(one.socket.fileno()) for one in self.children.values()}
        deadline = time.monotonic() + 1.0
        while (found := belongings() - self.before - ours) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def relay(self, slot, child):
        """Pass on the output of a child; its death is an error of its current job."""
        lines, is_open = child.read()
        for line in lines:
            child.id = None
            self.say(json.loads(line))
        if not is_open:
            del self.children[slot]
            code = child.reap()
            if child.id is not None:
                self.say({"id": child.id, "error": f"the worker died with return code {code}"})

    def say(self, answer):
        """Write one line; a dead driver is detected when reading."""
        with contextlib.suppress(BrokenPipeError):
            self.out.write(json.dumps(answer) + "\n")
            self.out.flush()


def opened(number):
    """Return a description of a file descriptor."""
    return f"file {number} {os.readlink(f'/proc/self/fd/{number}')}"


def belongings():
    """Return what this process has that a fork would share or lose: threads, open files, children.

    None if unknown: on macOS, in some sandboxes, and with a kernel without CONFIG_PROC_CHILDREN.
    """
    pid = os.getpid()
    try:
        found = {f"thread {number}" for number in os.listdir("/proc/self/task")}
        found |= {f"process {one}" for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
        numbers = os.listdir("/proc/self/fd")
    except OSError:
        return None
    for number in numbers:
        with contextlib.suppress(FileNotFoundError):  # the listing itself
            found.add(opened(number))
    return found


def main():
    """Answer requests until standard input closes: one at a time, or ("shared") one in each slot."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the driver, which ends us
    requests, out = os.dup(0), os.fdopen(os.dup(1), "w")
    os.dup2(
        os.open(os.devnull, os.O_RDONLY), 0
    )  # a program started by a calculator, such as mpirun, would consume them
    os.dup2(2, 1)
    out.write(json.dumps({"id": 0, "ready": True}) + "\n")
    out.flush()
    if "shared" in sys.argv[1:]:
        Host(requests, out).serve()
    else:
        work(os.fdopen(requests), out)


if __name__ == "__main__":
    main()
