"""The bill on a login node: what is missing there keeps nobody from a price, and what nobody declared is marked so."""

import re

from campaigns import in_process, machine_file, tiny

from activelearn.check import speeds
from activelearn.config import Machine, load_campaign, load_machine

VASP = {
    "engine": "vasp",
    "command": "mpirun -n 4 vasp_std",
    "functional": "PBE",
    "includes_dispersion": False,
    "vasp": {"version": "6.4.2", "potcar_dir": "nowhere", "potcars": {"Cu": "Cu"}, "incar": {"ENCUT": 300.0}},
}


def vasp_campaign(folder):
    return tiny(folder / "c.yaml", label={"reference": VASP})


def test_a_login_node_without_vasp_and_potcars_gets_a_bill_and_then_what_is_missing(tmp_path):
    done = in_process("check", vasp_campaign(tmp_path), "--plan", "--folder", tmp_path / "c")
    assert done.returncode == 2
    assert "expected the POTCAR of Cu" in done.stderr
    (label,) = re.findall(r"^  label .*", done.stdout.partition("one pass")[2], re.MULTILINE)
    assert label.split()[-1] == "default"
    assert "a label of vasp 2.5 s an atom (as gpaw has on one core, 10, over 4 ranks)" in done.stdout
    assert done.stdout.rstrip().endswith("a machine that has what is missing here:")
    assert not re.search(r"whole is not known", done.stdout)


def test_what_is_wrong_with_the_campaign_itself_has_no_bill(tmp_path):
    place = {"queue": {"cpus_per_task": 2, "partition": "q"}}
    machine = machine_file(tmp_path / "m.yaml", places={"cpu": place})
    done = in_process("check", vasp_campaign(tmp_path), "--plan", "--machine", machine, "--folder", tmp_path / "c")
    assert (done.returncode, "slot time" in done.stdout) == (2, False)
    assert "takes 4 CPUs, and a job has 2" in done.stderr


def test_declared_speeds_count_and_only_what_is_lacking_is_filled():
    campaign, local = load_campaign("quickstart"), load_machine("local")
    assert speeds.filled(local, campaign)[1] == []
    bare = Machine.model_validate({"name": "m", "speeds": {"md_Mflop_per_s": 7.0}})
    whole, said = speeds.filled(bare, campaign)
    assert whole.speeds.md_Mflop_per_s == 7.0
    assert whole.speeds.train_Mflop_per_s == local.speeds.train_Mflop_per_s
    assert [one.split(" ")[0] for one in said] == ["train_Mflop_per_s", "a"]
    assert "a label of sevenn.calculator:SevenNetCalculator 0.0049 s an atom" in said[1]
