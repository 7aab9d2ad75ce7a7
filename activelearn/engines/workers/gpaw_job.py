"""One job for GPAW, started as ``mpiexec -n N gpaw python gpaw_job.py JOB.json``; writes result.json next to it.

The jobs are those of answering.py (label, md, relax), executed by all ranks in lockstep; the first one writes. An SCF
that does not converge raises in GPAW itself and comes back as {"refused": reason}. A label continues when the driver is
killed; it is kept for the next one.
"""

import hashlib
import importlib.metadata
import json
import os
import sys
import threading
import time
from pathlib import Path

from gpaw.mpi import world

# `gpaw python` runs a script with runpy, which does not add its folder to the path.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import answering  # type: ignore[import-not-found]
import single_points  # type: ignore[import-not-found]


def describe(request):
    """Return the version of GPAW and the sha256 of the PAW data sets it would read for this functional."""
    from gpaw import setup_paths

    sha = hashlib.sha256()
    for folder in setup_paths:
        for path in sorted(Path(folder).glob(f"*.{request['gpaw']['xc']}*")):
            sha.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return {
        "version": importlib.metadata.version("gpaw"),
        "weights_sha256": sha.hexdigest(),
        "d3_version": answering.d3_version(request),
    }


def load(request):
    """Return the GPAW calculator of a job, with D3 if requested."""
    from gpaw import GPAW, PW, FermiDirac

    settings, cell, pbc = request["gpaw"], request["structure"]["cell"], request["structure"]["pbc"]
    calculator = GPAW(
        mode=PW(settings["ecut_eV"]),
        xc=settings["xc"],
        kpts={"size": settings["kpts"] or single_points.mesh(cell, settings["kspacing_per_A"], pbc), "gamma": True},
        occupations=FermiDirac(settings["smearing_eV"]),
        convergence=settings["convergence"],
        maxiter=settings["max_scf_steps"],
        spinpol=settings["spin_polarized"],
        symmetry={"point_group": False},  # a rattled frame has none, and crystals are treated alike
        txt="gpaw.txt",
    )
    return answering.with_dispersion(calculator, request.get("d3"))


def main():
    """Execute the job."""
    path = Path(sys.argv[1])
    request = json.loads(path.read_text())
    started = time.time()
    begun = answering.begin(request, path.parent) if world.rank == 0 else []
    for one in begun:
        threading.Thread(target=one.watch, daemon=True).start()
    expected = int(os.environ.get("PMI_SIZE") or os.environ.get("OMPI_COMM_WORLD_SIZE") or 1)
    if world.size != expected:
        text = f"mpiexec started {expected} processes, but GPAW sees {world.size}: it was built with another MPI"
        answer = {"error": text, "started": started, "finished": started}
    else:
        answer = answering.answer(request, load, describe)
    if world.rank == 0:
        answering.finish(path, answer, begun)
    if answering.FAILURES & answer.keys() and world.size > 1:
        time.sleep(2.0 * (world.rank > 0))  # an error of only one rank leaves the others waiting for it
        world.abort(1)


if __name__ == "__main__":
    main()
