"""Servers for the tests of clusters: a MongoDB wire-protocol server and a Slurm, real and each our own.

Both are asked for by the environment, as .ci/run does, so that a plain pytest starts nothing on anybody's machine:
ACTIVELEARN_SECANTUS (path of secantusd-py, of an interpreter of its own) and ACTIVELEARN_SLURM=1.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pymongo
import pymongo.errors
import yaml

HERE = Path(__file__).resolve().parent
#: How long a server may take to start on a busy machine, s.
PATIENCE_S = 60.0


class Missing(Exception):
    """A server that was not requested or is not available here."""


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class MongoServer:
    """secantusd-py in a process of its own, with a user and a password; what was answered survives a kill -9.

    Attributes
    ----------
    host, port
        Where it listens; a restart does not change them.
    user, password
        Of the one user, in the database `admin`. The password is new for each server: a test may grep for it.
    """

    host = "127.0.0.1"
    user = "firework"

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        if not (program := os.environ.get("ACTIVELEARN_SECANTUS")):
            raise Missing("needs_mongo: ACTIVELEARN_SECANTUS is not set; .ci/run sets it")
        if not (found := shutil.which(program)):
            raise Missing(f"needs_mongo: no program {program!r} (ACTIVELEARN_SECANTUS); .ci/run installs it")
        self.folder = folder
        self.port = free_port()
        self.password = f"never-on-disk-{secrets.token_hex(8)}"
        self.process: subprocess.Popen | None = None
        storage = ["--storage-path", str(folder / "db"), "--cache-size", "256M"]
        self._command = [found, "--standalone", "--host", self.host, "--port", str(self.port), *storage]
        self._start()  # once without --auth: there is no user yet
        with pymongo.MongoClient(self.host, self.port) as client:
            client.admin.command("createUser", self.user, pwd=self.password, roles=[{"role": "root", "db": "admin"}])
        self.stop()
        self._command += ["--auth", *(["--sync-on-commit"] if durable else [])]
        self._start()

    @property
    def uri(self) -> str:
        """User, password, host and port as one string."""
        return f"mongodb://{self.user}:{self.password}@{self.host}:{self.port}/?authSource=admin"

    def client(self) -> pymongo.MongoClient:
        """Return a new connection; close it (``with``)."""
        return pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=5000)

    def launchpad_file(self, folder: Path, name: str | None = None) -> Path:
        """Write my_launchpad.yaml of a database (None: a fresh one) into a folder, mode 600, and return its path."""
        path = folder / "my_launchpad.yaml"
        where = {"host": self.host, "port": self.port, "name": name or f"test_{secrets.token_hex(6)}"}
        who = {"username": self.user, "password": self.password, "authsource": "admin"}
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump({**where, **who}, sort_keys=False))
        return path

    def drop(self, name: str) -> None:
        """Drop a database, as an administrator does who needs the space."""
        with self.client() as client:
            client.drop_database(name)

    def kill(self) -> None:
        """Kill -9 the server."""
        self._end(self.process.kill)

    def stop(self) -> None:
        """Let the server end in its own way."""
        self._end(self.process.terminate)

    def restart(self) -> None:
        """Start it again, on the same port and the same storage, and wait until it answers."""
        with contextlib.suppress(ProcessLookupError):
            self.kill()
        self._start()

    def _end(self, how) -> None:
        how()
        self.process.wait(PATIENCE_S)

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"secantusd-py did not come up: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with pymongo.MongoClient(self.host, self.port, serverSelectionTimeoutMS=500) as client:
                client.admin.command("ping")
        except pymongo.errors.OperationFailure:  # it asks for credentials
            return True
        except pymongo.errors.PyMongoError:
            return False
        return True


class SlurmCluster:
    """A Slurm in a folder, on free ports: partitions `cpu` and `gpu` (no GPU is needed), both of the nodes n1 and n2.

    This machine plays both nodes.

    Attributes
    ----------
    environment
        What sbatch and its kin want to know: SLURM_CONF. Merge it into the environment of what submits.
    """

    def __init__(self, folder: Path) -> None:
        if os.environ.get("ACTIVELEARN_SLURM") != "1":
            raise Missing("needs_slurm: ACTIVELEARN_SLURM=1 is not set; .ci/run sets it (and installs Slurm)")
        self.folder = folder
        done = subprocess.run(
            [HERE / "slurm_up.sh", folder, "2"], capture_output=True, text=True, check=False, timeout=600
        )
        if done.returncode == 3:  # the packages
            raise Missing(f"needs_slurm: {done.stderr.strip().splitlines()[-1]}")
        if done.returncode != 0:
            raise RuntimeError(f"slurm_up.sh: {done.stdout[-1000:]}{done.stderr[-2000:]}")
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *command: str) -> str:
        """Run squeue, scancel and the like, and return what it says."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout

    def finished_jobs(self) -> dict[str, dict[str, str]]:
        """Return what Slurm itself noted of each finished job (Partition, JobState, Name, ...), by id."""
        path = self.folder / "jobs.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        jobs = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        return {job["JobId"]: job for job in jobs}

    def stop(self) -> None:
        """End all jobs and the daemons that we started."""
        subprocess.run([HERE / "slurm_down.sh", self.folder], check=False, capture_output=True, timeout=60)
