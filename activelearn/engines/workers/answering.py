"""Common code of workers: jobs with an ASE calculator, and labels that outlive their driver.

Imported by its neighbours, which are started by path in any interpreter that has numpy and ase; never imports
activelearn. Units: eV, Å, eV/Å, fs, K. Stress and virial follow ASE: virial = -volume * stress.

Requests: {"job": "describe", ...}, {"job": "label", "structure": ...}, {"job": "md", "structure": ..., ...},
{"job": "relax", "structure": ..., ...}, {"job": "dynamics", "structure": ..., ...} (see calculator_dynamics.py). A
physical failure (no convergence, non-finite numbers) comes back as {"refused": reason}; a calculator that lacks what
is requested (forces, a stress) as {"lacks": text}. For any other exception the answer tells whether a second attempt
may help: {"unfit": text}, the calculator is not available (not imported, not constructed, no GPU); {"unable": text},
it was constructed and raised on this structure; {"error": text}, transient failures (memory, network, disk), which the
caller treats as infrastructure. The traceback goes to standard error. An {"unable": text} that is repeated and given
as "known" in the request ends the job like a physical failure. With "stress": false in the request the
virial is null. A label may come with "keep": if the driver is killed meanwhile, it is finished nevertheless,
and kept for the next driver (see activelearn/store/begun.py).
"""

import hashlib
import importlib.metadata
import json
import os
import re
import socket
import time
import traceback
import uuid
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed, PropertyNotImplementedError, SCFError

#: Cutoffs of D3 (Å): VASP's own for pairs and coordination numbers; pairs fade out over the last 4 Å, because with a
#: sharp end the stress is not the derivative of the energy (0.01 eV in the virial of 16 atoms of Na3PS4).
D3_CUTOFF = {"disp2": 50.2, "cn": 20.0, "width2": 4.0}

#: Answers that are neither a label nor a refusal: these are never published.
FAILURES = frozenset({"lacks", "unfit", "unable", "error"})
#: Messages of libraries about a missing GPU.
NO_GPU = re.compile(
    r"no (cuda|nvidia|gpu)|not (compiled|linked) with (cuda|support)|cuda (is )?(not available|unavailable)"
    r"|cuda\.is_available\(\) is false|invalid device ordinal|no kernel image|driver (version is insufficient|on your "
    r"system is too old)|unknown backend|no platforms that are instances of",
    re.IGNORECASE,
)
#: Messages of failures that a retry may cure.
PASSING = re.compile(
    r"out of memory|cannot allocate|too many open files|no space left|input/output error|stale file handle|time(d )?out"
    r"|temporarily unavailable|connection|network is|busy|cuda error|cudnn|cublas|licen[cs]e",
    re.IGNORECASE,
)
_GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
#: Parts of messages of exceptions that differ between processes.
ADDRESS = re.compile(r"0x[0-9a-fA-F]+")

#: Seconds between heartbeats of a worker without a driver, for drivers on other hosts.
BEAT_S = 5.0


def forget(calculator):
    """Make a calculator, and the parts of a sum, forget earlier structures."""
    for part in (calculator, *getattr(getattr(calculator, "mixer", None), "calcs", ())):
        if hasattr(part, "reset"):  # a neighbour list kept from another structure would change the last bits
            part.reset()
        elif hasattr(part, "results"):  # ASE's sum has no reset
            part.results = {}


def with_dispersion(calculator, d3):
    """Return the sum of a calculator and D3(zero) without its three-body term, or the calculator if `d3` is None."""
    if not d3:
        return calculator
    from ase.calculators.mixing import SumCalculator
    from dftd3.ase import DFTD3

    dispersion = DFTD3(method=d3["method"], damping="d3" + d3["damping"], realspace_cutoff=D3_CUTOFF)
    # It has a free energy without declaring it; a sum has only what all its parts declare.
    dispersion.implemented_properties = ["energy", "free_energy", "forces", "stress"]
    return SumCalculator([calculator, dispersion])


def d3_version(request):
    """Return what the dispersion of a reference depends on besides its method, or None if there is none."""
    return {"dftd3": importlib.metadata.version("dftd3"), "cutoff_A": D3_CUTOFF} if request.get("d3") else None


def to_atoms(structure):
    """Build Atoms from symbols, positions, cell and pbc."""
    return Atoms(structure["symbols"], positions=structure["positions"], cell=structure["cell"], pbc=structure["pbc"])


def number(energy):
    """Return an energy as a number; networks return arrays of shape (1,) or (1, 1)."""
    found = np.asarray(energy, dtype=np.float64)
    if found.size != 1:
        raise ValueError(f"an energy of shape {found.shape}, not one number")
    return float(found.reshape(()))


def properties(atoms, request):
    """Return energy (force-consistent), forces and virial (None if there is none) of the calculator on `atoms`."""
    forces = np.asarray(atoms.get_forces(), dtype=np.float64)
    if forces.shape != (len(atoms), 3):
        raise ValueError(f"forces of shape {forces.shape}, not {(len(atoms), 3)}")
    results = atoms.calc.results
    energy = number(
        results.get("free_energy", results["energy"] if "energy" in results else atoms.get_potential_energy())
    )
    virial = None
    if request.get("stress", True) and atoms.pbc.all():
        virial = (-stress_of(atoms) * atoms.get_volume()).tolist()
    # Atoms at NaN have no neighbours, hence finite zero forces.
    if not all(np.isfinite(value).all() for value in (atoms.positions, energy, forces, virial or 0.0)):
        raise CalculationFailed("non-finite energy, forces or stress")
    return {"energy": energy, "forces": forces.tolist(), "virial": virial}


def stress_of(atoms):
    """Return the (3, 3) stress of the calculator on `atoms`, eV/Å3."""
    try:
        return atoms.get_stress(voigt=False)
    except (AssertionError, AttributeError):  # from ASE, which needs an array of six or of 3 x 3 without saying so
        shape = np.shape(atoms.calc.results.get("stress"))
        if isinstance(atoms.calc.results.get("stress"), np.ndarray) and shape in {(6,), (3, 3)}:
            raise
        raise ValueError(f"a stress of shape {shape}, not an array of (6,) or (3, 3)") from None


def label(atoms, request):
    """Label one structure."""
    return properties(atoms, request)


#: Coordinates (Å) that no atom reaches in MD; much larger ones are dominated by round-off.
FARTHEST_A = 1.0e4


class RestingNoise:
    """Normal random numbers that keep the centre of mass at rest, drawn along the other 3N - 3 degrees of freedom.

    ASE's Langevin has an option for this, ``fixcm``, but it keeps the kinetic energy of all 3N, so that N atoms are
    N / (N - 1) times too hot (8 atoms: 339 K at 300), and free atoms the hotter the lighter they are (deprecated in
    ASE 3.28; its successor, the constraint FixCom, would take the net force out of the labels).

    Parameters
    ----------
    masses
        (n_atoms,) masses, in any unit.
    rng
        Random numbers.
    """

    def __init__(self, masses, rng):
        self.rng = rng
        self.axis = np.sqrt(masses / masses.sum())[:, None]

    def standard_normal(self, size):
        """Return (n_atoms, 3) numbers whose sum over atoms, weighted by sqrt(mass), is zero."""
        drawn = self.rng.standard_normal(size)
        return drawn - self.axis * (self.axis * drawn).sum(axis=0)


def md(atoms, request):
    """Run NVT Langevin dynamics and return every n-th frame with its labels (including step 0).

    The temperature is that of 3N - 3 degrees of freedom, as everywhere here. After a physical failure, the frames
    before it are returned, with the reason in ``ended``.
    """
    from ase.md.langevin import Langevin

    masses, kT = atoms.get_masses(), units.kB * request["temperature_K"]
    noise = RestingNoise(masses, np.random.default_rng(request["random_seed"]))
    atoms.set_velocities(np.sqrt(kT / masses)[:, None] * noise.standard_normal((len(atoms), 3)))
    dynamics = Langevin(
        atoms,
        timestep=request["timestep_fs"] * units.fs,
        temperature_K=request["temperature_K"],
        friction=request["friction_per_ps"] / (1000.0 * units.fs),
        rng=noise,
        fixcm=False,
    )
    frames = []
    try:
        for step in range(0, request["n_steps"] + 1, request["every"]):
            if step:
                dynamics.run(request["every"])
            if np.abs(atoms.positions).max() > FARTHEST_A:
                raise CalculationFailed(f"the atoms flew apart, farther than {FARTHEST_A:g} Å")
            frames.append({"step": step, "positions": atoms.positions.tolist(), **properties(atoms, request)})
    except Exception as error:
        if not frames or not is_end(error, request):
            raise
        return {"frames": frames, "ended": f"{told(error)} (after step {frames[-1]['step']})"}
    return {"frames": frames, "ended": "finished"}


def relax(atoms, request):
    """Relax positions (and the cell, if requested) until every force is below `fmax` or `max_steps` are done.

    With ``frame_every_A`` in the request, ``path`` has the first frame, and one whenever an atom has moved this far (Å)
    since the last of them, with labels: the calculator has computed them anyway.
    """
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    optimizer = FIRE(FrechetCellFilter(atoms) if request["relax_cell"] else atoms, logfile=None)
    every = request["frame_every_A"]
    path: list[dict[str, object]] = []

    def here():
        moved = {"positions": atoms.positions.tolist(), "cell": atoms.cell.tolist()}
        return {**moved, **properties(atoms, request)}

    def keep():
        far = not path or np.linalg.norm(atoms.positions - path[-1]["positions"], axis=1).max() >= every
        if far:
            path.append({**here(), "step": optimizer.get_number_of_steps()})

    if every is not None:
        optimizer.attach(keep)
    is_relaxed = bool(optimizer.run(fmax=request["fmax"], steps=request["max_steps"]))
    return {**here(), "n_steps": optimizer.get_number_of_steps(), "is_relaxed": is_relaxed, "path": path}


def dynamics(atoms, request):
    """Run a segment with our calculator."""
    import calculator_dynamics  # type: ignore[import-not-found]  # a neighbour, by path

    def end_of(error):
        return told(error) if is_end(error, request) else None

    return calculator_dynamics.run(atoms, request, forget, end_of)


JOBS = {"label": label, "md": md, "relax": relax, "dynamics": dynamics}


def is_physical(error):
    """Return whether the structure, and not the machine, is at fault (GPAW has its own convergence errors)."""
    known = (SCFError, CalculationFailed, FloatingPointError, np.linalg.LinAlgError)
    return isinstance(error, known) or any("ConvergenceError" in kind.__name__ for kind in type(error).__mro__)


def told(error):
    """Return a description of an exception that is the same in every process."""
    return ADDRESS.sub("0x", f"{type(error).__name__}: {error}".removesuffix(": "))


def is_end(error, request):
    """Return whether an exception ends the job: a physical failure, or one that is known to recur in any worker."""
    return is_physical(error) or ("known" in request and told(error) == request["known"])


def may_pass(error):
    """Return whether a retry may succeed: memory, network, disk, a GPU in use."""
    for _ in range(10):  # exceptions raised while handling another
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and not isinstance(error, _GONE)):
            return True
        if error is None or PASSING.search(str(error)):
            return error is not None
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def kind_of(error, is_loaded, request):
    """Return the answer for an exception: see the top of this file."""
    if is_end(error, request):
        return "refused"
    if isinstance(error, PropertyNotImplementedError):
        return "lacks"
    if NO_GPU.search(str(error)):
        return "unfit"
    if may_pass(error):
        return "error"
    return "unable" if is_loaded and not isinstance(error, ImportError) else "unfit"


def answer(request, load, describe=None):
    """Execute one request; failures are answers, too.

    Parameters
    ----------
    request
        The job.
    load
        Called with the request, returns the calculator.
    describe
        Called with the request of a job "describe", returns what the labels depend on.
    """
    started, is_loaded = time.time(), False
    try:
        if request["job"] == "describe":
            out = describe(request)
        else:
            calculator = load(request)
            others = [load({**request, "arguments": arguments}) for arguments in request.get("others", ())]
            is_loaded = True
            out = {}
            if request["job"] != "load":
                atoms = to_atoms(request["structure"])
                atoms.calc = calculator
                out = JOBS[request["job"]](atoms, {**request, "others": others})
    except (Exception, SystemExit) as error:
        kind = kind_of(error, is_loaded, request)
        out = {kind: str(error) if kind == "lacks" else told(error)}
        if kind in FAILURES - {"lacks"}:
            traceback.print_exc()
    return {**out, "started": started, "finished": time.time()}


class BegunLabel:
    """A label being computed, recorded where a later driver looks for it; needed as long as the record exists."""

    def __init__(self, keep, folder=None):
        self.note, self.path, self.token = Path(keep["note"]), Path(keep["path"]), keep["token"]
        self.folder = folder and str(folder)
        self.driver, self.is_done = keep["driver"], False
        self.beaten = time.monotonic()
        self.deadline = self.beaten + keep["limit_s"]
        self.note.parent.mkdir(exist_ok=True)
        pid = os.getpid()
        me = {"host": socket.gethostname(), "pid": pid, "started": process_started(pid), "token": self.token}
        begun = self.note.parent  # distinguishes the record from one in a copy, as in activelearn/store/locks.py
        place = {"path": str(begun.resolve()), "inode": begun.stat().st_ino}
        more = {"since": time.time(), "driver": self.driver, "folder": self.folder, "place": place, "pids": namespace()}
        write_whole(self.note, json.dumps({**me, **more}), os.replace)

    def has_driver(self):
        """Return whether the driver is alive."""
        return process_started(self.driver["pid"]) == self.driver["started"]

    def is_awaited(self):
        """Return whether the record exists and is ours, and the label is within its time; renew the heartbeat."""
        try:
            if json.loads(self.note.read_text())["token"] != self.token:
                return False
            if time.monotonic() > self.beaten + BEAT_S:
                os.utime(self.note)
                self.beaten = time.monotonic()
        except FileNotFoundError:
            return False
        except (OSError, ValueError):
            pass  # a transient file system error removes nothing
        return time.monotonic() < self.deadline

    def keep(self, found):
        """Publish the answer if it is a label or a refusal, and remove the record."""
        if not self.is_awaited():
            return
        if not FAILURES & found.keys():
            text = json.dumps({"key": self.path.stem, "folder": self.folder, "answer": found})
            write_whole(self.path, hashlib.sha256(text.encode()).hexdigest() + "\n" + text, os.link)
        self.is_done = True
        self.note.unlink(missing_ok=True)

    def watch(self):
        """End this process when the driver is gone and the label is no longer needed."""
        while not self.is_done and (self.has_driver() or self.is_awaited()):
            time.sleep(1.0)
        if not self.is_done:
            os._exit(1)


def begin(request, folder=None):
    """Return the started label of a request in a list; an empty list if it is not to be kept.

    If the driver is already gone, nothing is started, since a new one may have looked before our record existed.
    """
    keep = request.get("keep")
    if not keep or keep["driver"]["namespace"] != namespace():  # in a container, where nobody can see that we are alive
        return []
    begun = BegunLabel(keep, folder)
    if not begun.has_driver():
        begun.note.unlink(missing_ok=True)
        os._exit(1)
    return [begun]


def finish(path, found, begun):
    """Write the result of a job next to it, atomically, and keep it for a later driver."""
    part = path.with_name("result.json.part")
    part.write_text(json.dumps(found))
    part.rename(path.with_name("result.json"))
    for one in begun:
        one.keep(found)


def namespace():
    """Return the namespace in which our process ids are valid."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def process_started(pid):
    """Return when a process started (clock ticks since boot), as in activelearn/store/locks.py."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return "" if namespace() else "unknown"
    return "" if fields[0] in {"Z", "X"} else fields[19]


def write_whole(path, text, put):
    """Write a file under a temporary name and `put` it in place (os.replace, or os.link, where the first one wins)."""
    for is_last in (False, False, True):
        temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}")
        try:
            with temporary.open("w") as stream:
                stream.write(text)
                stream.flush()
                if put is os.link:
                    os.fsync(stream.fileno())
            put(temporary, path)
        except FileExistsError:
            pass
        except FileNotFoundError:  # a starting driver removes temporary files
            if is_last:
                raise
            continue
        finally:
            temporary.unlink(missing_ok=True)
        return
