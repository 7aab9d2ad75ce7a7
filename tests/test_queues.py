"""PBS, Torque and LSF beside Slurm: what a job asks for, how it is submitted, counted and found again.

The programs cannot be installed here (no package of Debian has them). Stand-ins take their places: each refuses a
script as its original does (by the documented forms of its directives), and prints lines in the shapes of its manual.
"""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from campaigns import in_process
from fireworks.queue.queue_adapter import QueueAdapterBase
from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter
from pydantic import ValidationError

from activelearn.config import Machine, Queue, load_machine
from activelearn.config.machine import n_cpus
from activelearn.engines.process import Slot
from activelearn.errors import ConfigError
from activelearn.workflow import worker
from activelearn.workflow.doctor.picture import Picture
from activelearn.workflow.queues import jobs_of, queue_keys
from activelearn.workflow.site import initialise

#: Reads a batch script as the program does (a file of qsub, the standard input of bsub), and refuses what it does not
#: know before it prints the number of the job.
STAND_IN = r"""#!{python}
import os, re, sys
from pathlib import Path
lines = (Path(sys.argv[1]).read_text() if len(sys.argv) > 1 else sys.stdin.read()).splitlines()
Path(os.environ["HERE"], "submitted").write_text("\n".join(lines))
if not lines[0].startswith("#!/bin/bash"):
    sys.exit("no interpreter in the first line")
for line in lines:
    if line.startswith("#{word}") and not re.fullmatch({known!r}, line):
        sys.exit("unknown directive: " + line)
print({said!r})
"""
_OF_PBS = r"#PBS (-N [A-Za-z][\w-]{0,14}|-q \w+|-A \w+|-j oe|-l walltime=\d+:\d\d:\d\d|-l %s)"
PBS = _OF_PBS % r"select=\d+:ncpus=\d+(:mpiprocs=\d+)?(:mem=\d+mb)?(:ngpus=\d+)?(:\w+=\w+)?"
TORQUE = _OF_PBS % r"nodes=\d+:ppn=\d+(:gpus=\d+)?(:\w+)?(,mem=\d+mb)?"
LSF = (
    r'#BSUB (-J \S+|-q \w+|-n \d+|-W \d+:\d\d|-P \w+|-[oe] \S+%J\S+|-gpu "num=\d+"'
    r'|-R "(span\[hosts=1\]|span\[ptile=\d+\]|rusage\[mem=\d+MB\]|select\[[^]]+\])")'
)
SYSTEMS = {
    "pbs": ("qsub", "PBS", PBS, "4711.pbs-server"),
    "torque": ("qsub", "PBS", TORQUE, "4711.torque.example"),
    "lsf": ("bsub", "BSUB", LSF, "Job <4711> is submitted to queue <gpu>."),
}
PBS_QSTAT = """
pbs-server:
                                                            Req'd  Req'd   Elap
Job ID          Username Queue    Jobname    SessID NDS TSK Memory Time  S Time
--------------- -------- -------- ---------- ------ --- --- ------ ----- - -----
4711.pbs-server me       gpu      iter-000-t    --    1   4   30gb 24:00 Q   --
4712.pbs-server me       gpu      iter-000-e  77120   1   4   30gb 24:00 R 00:11
4713.pbs-server me       cpu      iter-000-l  77121   1  16   60gb 24:00 R 00:12
"""
LSF_BJOBS = "4711       me      gpu\n4712       me      gpu\n4713       me      cpu\n"


def profile(folder, system, **queue):
    """Write a preset as a profile, of that batch system, with other settings of the GPU queue."""
    preset = Path(__file__).parent.parent / "params/machine" / f"{'pbs' if system == 'torque' else system}.yaml"
    whole = yaml.safe_load(preset.read_text())
    for place in whole["places"].values():
        place["queue"]["system"] = system
    whole["places"]["gpu"]["queue"] |= queue
    folder.mkdir(exist_ok=True)
    (folder / "machine.yaml").write_text(yaml.safe_dump(whole))
    return folder / "machine.yaml"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A folder of stand-ins, first on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HERE", str(tmp_path))

    def add(name, text):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    return add


def adapter_of(folder, category="gpu"):
    return CommonAdapter.from_file(str(folder / f"my_qadapter_{category}.yaml"))


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_job_is_submitted_with_directives_that_the_system_knows_and_its_number_is_read(system, programs, tmp_path):
    submit, word, known, said = SYSTEMS[system]
    programs(submit, STAND_IN.format(python=sys.executable, word=word, known=known, said=said))
    site = initialise(str(profile(tmp_path / "cluster", system, account="mine", walltime="2-06:30:00")))
    for category in ("cpu", "gpu"):
        adapter = adapter_of(site.folder, category)
        adapter["job_name"] = "iter-000-explore-of-a-long-name"[: 15 if system != "lsf" else 40]
        (tmp_path / "FW_submit.script").write_text(adapter.get_script_str(str(tmp_path)))
        assert adapter.submit_to_queue(str(tmp_path / "FW_submit.script")) == "4711"
    script = (tmp_path / "submitted").read_text()
    wanted = {
        "pbs": ("-l select=1:ncpus=4:mem=30000mb:ngpus=1", "-l walltime=54:30:00", "-A mine", "-q gpu"),
        "torque": ("-l nodes=1:ppn=4:gpus=1,mem=30000mb", "-l walltime=54:30:00"),
        "lsf": ("-n 4", '-R "span[hosts=1]"', '-R "rusage[mem=30000MB]"', '-gpu "num=1"', "-W 54:30", "-P mine"),
    }[system]
    assert [one for one in wanted if f"#{word} {one}\n" not in script] == []
    assert f"rlaunch -l {site.launchpad} -w {site.folder / 'my_fworker_gpu.yaml'} singleshot" in script
    assert "$$" not in script


@pytest.mark.parametrize("system", ["pbs", "lsf"])
def test_a_directive_that_a_system_does_not_know_would_be_seen(system, programs, tmp_path):
    """FireWorks' own templates are not what these stand-ins take: the tests above can fail."""
    submit, word, known, said = SYSTEMS[system]
    programs(submit, STAND_IN.format(python=sys.executable, word=word, known=known, said=said))
    kind = {"pbs": "PBS", "lsf": "LoadSharingFacility"}[system]
    theirs = CommonAdapter(kind, queue="gpu", walltime="24:00:00", ntasks=4, nnodes=1, ppnode=4, rocket_launch="x")
    (tmp_path / "script").write_text(theirs.get_script_str(str(tmp_path)))
    assert theirs.submit_to_queue(str(tmp_path / "script")) is None


@pytest.mark.parametrize(("system", "program", "listing"), [("pbs", "qstat", PBS_QSTAT), ("lsf", "bjobs", LSF_BJOBS)])
def test_fireworks_counts_the_jobs_of_a_queue(system, program, listing, programs, tmp_path):
    programs(program, f"#!/bin/sh\ncat <<'END'\n{listing.rstrip()}\nEND\n")
    site = initialise(str(profile(tmp_path / "cluster", system)))
    assert adapter_of(site.folder).get_njobs_in_queue(username="me") == 2


def test_jobs_of_a_user_whose_name_qstat_cuts_are_counted(programs, tmp_path, monkeypatch):
    """As FireWorks counts, there are none: more are submitted than `qlaunch -m` allows."""
    listing = PBS_QSTAT.replace(" me       ", " cyclead* ")
    programs("qstat", f"#!/bin/sh\ncat <<'END'\n{listing.rstrip()}\nEND\n")
    adapter = adapter_of(initialise(str(profile(tmp_path / "cluster", "pbs"))).folder)
    monkeypatch.setattr(CommonAdapter, "_parse_njobs", worker._COUNT)  # other tests of this process have cured it
    monkeypatch.setattr(QueueAdapterBase, "get_script_str", QueueAdapterBase.get_script_str)
    assert adapter.get_njobs_in_queue(username="cycleadmin") == 0
    worker._cure([])
    assert adapter.get_njobs_in_queue(username="cycleadmin") == 2


def test_jobs_that_have_ended_are_not_among_those_that_wait():
    torque = """Job ID                    Name             User            Time Use S Queue
------------------------- ---------------- --------------- -------- - -----
4711.torque                iter-000-t       me              00:00:10 C gpu
4712.torque                iter-000-e       me              0        Q gpu
4713[].torque              somebody         you             0        R cpu
"""
    assert [*jobs_of(torque)] == ["4712", "4713"]
    assert [*jobs_of(PBS_QSTAT)] == ["4711", "4712", "4713"]
    assert [*jobs_of("4711\n4712\n")] == ["4711", "4712"]
    assert [*jobs_of("No unfinished job found\n")] == []


@pytest.mark.parametrize(("program", "line"), [("squeue", "7"), ("bjobs", "7"), ("qstat", "7.server a b 0 R q")])
def test_the_doctor_asks_the_batch_system_that_is_there(program, line, programs, tmp_path, monkeypatch):
    programs(program, f"#!/bin/sh\necho '{line}'\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))  # whatever batch system this machine has
    picture = Picture(None, None, (), 300.0, 300.0, None, {})
    assert (picture.is_gone("7"), picture.is_gone("8"), picture.is_gone(None)) == (False, True, False)


@pytest.mark.parametrize("system", ["pbs", "lsf"])
def test_the_preset_is_written_and_its_folder_says_what_to_type(system, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = in_process("machine", "--init", system, "--to", "site")
    assert done.returncode == 0, done.stderr
    assert "activelearn qlaunch -r" in done.stdout
    names = {path.name for path in (tmp_path / "site").iterdir()}
    assert {f"my_{system}_template.txt", "my_qadapter_cpu.yaml", "my_qadapter_gpu.yaml", "machine.yaml"} <= names
    assert load_machine(tmp_path / "site/machine.yaml") == load_machine(system)
    template = tmp_path / "site" / f"my_{system}_template.txt"
    template.write_text(template.read_text().replace("#!/bin/bash -l", "#!/bin/bash -l\n# a line of the site"))
    assert in_process("machine", "--init", "site/machine.yaml").returncode == 0
    assert "# a line of the site" in template.read_text(), "it is the user's as soon as it is there"
    assert stat.S_IMODE((tmp_path / "site" / "my_launchpad.yaml").stat().st_mode) == 0o600
    longest = re.search(r"QUEUE_JOBNAME_MAXLEN: (\d+)", (tmp_path / "site" / "FW_config.yaml").read_text())[1]
    assert longest == {"pbs": "15", "lsf": "40"}[system]


@pytest.mark.parametrize(
    ("queue", "said"),
    [
        ({"system": "pbs"}, "partition: null - expected the name of a queue of pbs"),
        ({"system": "lsf", "partition": "q", "qos": "high"}, "qos: high - expected null, since lsf"),
        ({"system": "pbs", "partition": "q", "gres": "fpga:1"}, "gres: fpga:1 - expected only GPUs"),
        ({"system": "sge", "partition": "q"}, "Input should be 'slurm', 'pbs', 'torque' or 'lsf'"),
    ],
)
def test_what_a_system_has_no_word_for_is_refused(queue, said):
    with pytest.raises(ValidationError) as error:
        Queue.model_validate(queue)
    assert said in str(error.value)


def test_several_nodes():
    two = {"partition": "q", "nodes": 2, "ntasks": 8, "cpus_per_task": 4}
    assert queue_keys(Queue(system="pbs", **two))["resources"] == "select=2:ncpus=16:mpiprocs=4"
    assert queue_keys(Queue(system="torque", **two))["resources"] == "nodes=2:ppn=16"
    lsf = queue_keys(Queue(system="lsf", **two))
    assert (lsf["ntasks"], lsf["span"]) == (32, "span[ptile=16]")


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_CPUS_ON_NODE": "1"},
        {"PBS_JOBID": "7.server", "NCPUS": "1"},
        {"PBS_NUM_PPN": "1"},
        {"LSB_JOBID": "7", "LSB_DJOB_NUMPROC": "1"},
    ],
)
def test_a_job_has_the_cpus_that_it_asked_for(variables, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert n_cpus() == 1


def test_a_variable_of_somebody_else_counts_for_nothing(monkeypatch):
    before = n_cpus()
    monkeypatch.setenv("NCPUS", "1")
    monkeypatch.setenv("LSB_DJOB_NUMPROC", "none")
    assert n_cpus() == before


def test_qsub_is_not_here():
    """If it is one day, the tests should have it."""
    assert subprocess.run(["bash", "-c", "type qsub bsub"], capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize(
    ("visible", "gpus", "used"),
    [
        (None, (0, 1), ["0", "1"]),
        ("2,3", (0, 1), ["2", "3"]),
        ("1,2", (0, 1), ["1", "2"]),
        ("0,1", (0, 1), ["0", "1"]),
        ("GPU-8f1,GPU-3c2", (0, 1), ["GPU-8f1", "GPU-3c2"]),
        ("1,3", (3,), ["3"]),
        ("", (0,), ["0"]),
        ("5", (0, 1), ["0", "1"]),
    ],
)
def test_slots_take_the_gpus_of_the_job_and_not_the_first_of_the_node(visible, gpus, used, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    machine = Machine(gpus=gpus, slots=2 * len(gpus))
    own = [Slot(machine, tmp_path, index=i).own["CUDA_VISIBLE_DEVICES"] for i in range(2 * len(gpus))]
    assert own == 2 * used


def test_ranks_that_do_not_divide_by_the_nodes_have_room_on_them():
    asked = queue_keys(Queue(system="pbs", partition="x", nodes=2, ntasks=3, cpus_per_task=4))
    assert asked["resources"] == "select=2:ncpus=6:mpiprocs=2"


@pytest.mark.parametrize(
    ("walltime", "said"),
    [
        ("00:00:00", "00:00:00 is no time at all - expected one that a job can run in, such as 24:00:00"),
        ("0-00:00:00", "0-00:00:00 is no time at all"),
        ("24:60:00", "places.cpu.queue.walltime: got '24:60:00' - expected a text that fits"),
        ("24:00:99", "places.cpu.queue.walltime: got '24:00:99' - expected a text that fits"),
    ],
)
def test_a_time_that_no_job_can_have_is_refused(tmp_path, walltime, said):
    file = tmp_path / "m.yaml"
    file.write_text(f"places: {{cpu: {{queue: {{system: pbs, partition: cpu, walltime: '{walltime}'}}}}}}\n")
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_machine(str(file))
