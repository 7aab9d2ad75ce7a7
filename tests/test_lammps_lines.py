"""Lines for LAMMPS in a YAML: what they may say is a list, and LAMMPS tries them before anything is paid for."""

import re
import time
from pathlib import Path

import pytest
import yaml
from campaigns import TINY, end_sessions, in_process, tiny
from test_config import COLD, refusal, small

from activelearn.check import check, check_study
from activelearn.config import (
    Machine,
    Potential,
    Stage,
    Study,
    lammps_lines,
    load_campaign,
    load_glass,
    load_potential,
    parse_campaign,
)
from activelearn.config.section import SEALED
from activelearn.engines import deepmd, trials
from activelearn.engines.lammps import read_dump
from activelearn.engines.process import Slot
from activelearn.engines.trials import made_up, try_stage
from activelearn.errors import ConfigError, EngineError
from activelearn.store import Store, StudyStore

LOCAL = Machine(min_free_disk_GB=0.0)


def stage(lines, ensemble="custom"):
    """A stage of lines and, without one of theirs, of an integrator."""
    return Stage(name="own", ensemble=ensemble, temperatures_K=(300,), n_steps=20, every=5, lammps=lines)


# --- what is refused --------------------------------------------------------------------------------------------------

FILES = [
    "print x file ../../../outside.txt",
    "print x append /outside.txt",
    'print "x" screen no file y',
    "write_data /outside.data",
    "write_dump all custom x id",
    "write_restart x",
    "write_coeff x",
    "dump d all custom 1 /outside.traj id x",
    "dump d all image 1 x.jpg type type",
    "fix p all print 1 x file /outside.txt",
    "fix p all print 1 x",
    "fix a all ave/time 1 1 1 c_thermo_temp file ../x",
    "fix a all ave/time 1 1 1 c_thermo_temp append x",
    "fix a all ave/chunk 1 1 1 c x file y",
    "fix a all ave/correlate 1 1 1 c_thermo_temp file y",
    "fix a all ave/histo 1 1 1 0 1 9 c_thermo_temp 'file' y",
    "fix a all electron/stopping 10.0 /etc/passwd",
    "fix a all gle 6 300 300 1 smart.A",
    "fix a all tmd 1 x 100 y",
    "fix a all orient/fcc 0 1 1 0.2 0.4 x y",
    "fix a all phonon 10 100 100 GAMMA /x",
    "fix a all ttm 1 1 1 1 1 0 0 1 1 1 file /etc/passwd",
    "fix a all colvars /etc/passwd",
    "fix a all plumed plumedfile x",
    "fix a all wall/table zlo 0 x y 1",
    "fix a all rigid single infile /etc/passwd",
    "fix a all saed/vtk 1 1 1 c_x file y",
    "compute a all saed 0.02 Cu",
    "compute a all sna/atom 1.4 0.95 6 2.0 0.5",
    "compute a all pace x.yace",
    "variable v getenv HOME",
    "variable v file /etc/hostname",
    "variable v atomfile /etc/hostname",
    "variable v equal is_file(/etc/passwd)",
    "fix a all addforce $(is_file(/x)) 0 0",
    "variable v index /etc/passwd",
    "variable v string file",
    "variable v string 'file x'",
    'variable v format pressure "%g file /x"',
    "velocity all scale $(300:%g file)",
    "velocity all scale ${pressure:%s}",
    "read_data x",
    "read_dump x 0 x y z",
    "include /etc/passwd",
    "log /outside.log",
    "group2ndx x",
    "ndx2group x",
    "molecule m /etc/passwd",
    "pair_write 1 1 10 r 1 2 x y",
    "restart 10 x",
    "info all out append x",
]
PROGRAMS = [
    "shell rm -rf /",
    "\tshell\tls",
    "sh&\nell ls",
    "'shell' ls",
    '"shell" ls',
    '"""shell""" ls',
    "# a comment &\n&\nx\nshell ls",
    "# \"\"\"\nfix a all nve\n\"\"\"",
    "# new line\u2028shell ls",
    "fix a all nve\x0bshell ls",
    "fix a all nve\rshell ls",
    "fix a all nve # \x85shell ls",
    'if "1 == 1" then "shell ls"',
    "if $(v_every) then 'shell ls'",
    'run 10 every 1 "shell ls"',
    "run 1\nshell ls",
    "jump SELF",
    "label x",
    "next x",
    "python f source here 'import os'",
    "python x input 1",
    "variable v python f",
    "variable v equal py_f(1)",
    "variable v uloop 10",
    "variable v world a b",
    "${c} ls",
    "$(1) ls",
    "plugin load /x.so",
    "fix a all python/invoke 1 end_of_step f",
    "fix a all python/move m.C",
    "fix a all external pf/callback 1 1",
    "fix a all imd 1234",
    "fix a all ipi host 1234",
    "fix a all mdi/qm",
    "mdi engine",
    "message client md file x",
    "kim init x metal",
    "geturl https://example.org",
    "quit",
    "“shell” ls",
]  # fmt: skip
BOOKKEEPING = [
    *("run 10", "minimize 0 0 1 1", "thermo 1", "thermo_style one", "thermo_modify line multi", "timestep 0.002"),
    *("pair_style zero 5", "pair_coeff * *", "pair_modify shift yes", "reset_timestep 0", "set type 1 type 2"),
    *("create_atoms 1 single 0 0 0", "delete_atoms overlap 1 all all", "change_box all x scale 2", "replicate 2 2 2"),
    *("dump_modify walk sort off", "undump walk", "units real", "atom_modify sort 0 0", "run_style respa 2 2"),
    *("fix dynamics all nve", "fix\tstrain all deform 1 x erate 0.1", "unfix dynamics", "fix 'dynamics' all nve"),
    *("fix dyn&\namics all nve", "ru&\nn 5", "ru&  \nn 5", "group all subtract all x", "group all clear"),
    *("fix a all gcmc 10 1 1 1 29494 300 -0.5 0.01", "fix a all atom/swap 1 1 29494 300 types 1 2"),
    *("fix a all deposit 10 1 100 1 region x", "fix a all halt 10 v_every > 1", "fix a all evaporate 1 1 x 1"),
    *("fix a all dt/reset 1 NULL NULL 0.1", "fix a all adapt 1 pair zero x 1 1 v_every", "fix a all set 1 1 type 2"),
    *("fix a all box/relax iso 0", "fix a all neb 1.0", "neigh_modify exclude type 1 1", "neigh_modify include x"),
    *("neigh_modify delay 0 exclude group a b", "suffix omp", "package omp 4", "fix a all nve &", "# and so on &"),
    *(
        "fix model_forces all viscous 1",
        "variable every index 3",
        "variable temperature delete",
        "neigh_modify once yes",
    ),
    *("fix", "fix a all", "variable x", "variable x-y equal 1", "compute a all", "frobnicate 1 2"),
    *("fix a all nve 'x", "fix a all ave/time 1 1 1 v_x", "velocity all create ${T} 1", "velocity all create $", "$("),
    *(
        "variable x equal 1 + 2",
        "variable x equal v_y",
        "velocity all set ${x} 0 0\nvariable x equal 1",
        "fix a a nv'e'",
    ),
]


@pytest.mark.parametrize("line", [*FILES, *PROGRAMS, *BOOKKEEPING])
def test_a_line_that_is_not_on_the_list_is_refused_in_one_line(line):
    said = refusal(explore__stages=[{**COLD, "lammps": f"fix md all nve\n{line}", "ensemble": "custom"}])
    assert re.fullmatch(r"x\.yaml: explore\.stages\.0\.lammps: line [1-9].* - expected .* - .*", said)


@pytest.mark.parametrize(
    ("lines", "what", "wanted"),
    [
        ("fix heat all langevn 300 300 0.1 1", "style langevn is not allowed", "such as langevin"),
        ("fix heat all langevin ${tmperature} 300 0.1 1", "there is no variable tmperature", "such as temperature"),
        ("variable big equal 2\nvelocity all scale $(v_bigg*3)", "there is no variable bigg", "such as big"),
        ("variable a equal v_prssure", "there is no variable prssure", "such as pressure"),
        ("FIX heat all langevin 300 300 0.1 1", "the command FIX is not allowed", "expected fix, or another"),
        ("fix heat all Langevin 300 300 0.1 1", "style Langevin is not allowed", "such as langevin"),
        ("computte x all pe", "the command computte is not allowed", "expected compute, or another"),
        ("variable v loop 10", "variables of style loop are not allowed", "one of: atom, delete, equal"),
        ("velocity all scale ${b}\nvariable b equal 1", "b is defined further down", "such as b"),
    ],
)  # fmt: skip
def test_a_misspelt_name_is_told_with_the_one_that_was_meant(lines, what, wanted):
    with pytest.raises(ValueError, match=re.escape(what)) as caught:
        lammps_lines.check_lines(lines)
    assert wanted in str(caught.value)


def test_the_line_is_told_by_its_number_and_as_it_is_typed():
    with pytest.raises(ValueError, match=r"line 3 'fix c all nvee # last': the fix style nvee is not allowed"):
        lammps_lines.check_lines("# first\n\nfix c all & \n nvee # last\n")


# --- what is allowed --------------------------------------------------------------------------------------------------

#: From the manual's examples, in units metal; each is run by LAMMPS after the integrator of its ensemble.
NVE = "fix md all nve\n"
ALLOWED = [
    "fix md all nvt temp ${temperature} ${to_temperature} $(100.0*v_timestep)",
    "fix md all npt temp 300.0 300.0 0.1 iso 0.0 0.0 1.0",
    "fix md all npt temp 300 300 0.1 aniso 0 0 1 drag 0.2 mtk yes",
    "fix md all npt temp 300 300 0.1 x 1 1 1 y 1 1 1 couple none fixedpoint 0 0 0",
    "fix md all nph iso ${pressure} ${pressure} 1.0\nfix t all langevin 300 300 0.1 ${seed} zero yes",
    "fix md all nvk",
    "fix md all nvt/sllod temp 300 300 0.1\nfix d all deform 1 xy erate 0.001 remap v",
    "fix md all nve/limit 0.1",
    "fix md all npt/cauchy temp 300 300 0.1 iso 0 0 1",
    "group rest id > 8\ngroup cluster id 1:8\nfix md rest nve\nfix r cluster rigid single",
    "group left id <= 16\nfix md left nve\nfix w left viscous 0.1",
    *(
        NVE + line
        for line in (
            "fix h all langevin 300 300 0.1 ${seed} tally yes scale 1 1.5",
            "fix h all temp/berendsen 300 300 0.1",
            "fix h all temp/csvr 300 300 0.1 ${seed}",
            "fix h all temp/csld 300 300 0.1 54324",
            "fix h all temp/rescale 100 300 300 0.02 0.5",
            "fix h all press/langevin iso 0 0 1 temp 300 300 4711",
            "fix s all spring/self 10.0 xyz",
            "fix s all spring tether 50 0 0 0 0",
            "fix s all spring/rg 5.0 NULL",
            "fix f all addforce 0.1 0 0 every 2",
            "variable kick atom 0.1*sin(x/4)\nfix f all addforce v_kick 0 0",
            "variable ramp equal ramp(0,0.1)\nfix f all setforce v_ramp NULL NULL",
            "fix f all aveforce 0 0 NULL",
            "fix m all momentum 100 linear 1 1 1 angular rescale",
            "fix m all recenter INIT INIT INIT",
            "fix v all viscous 0.05",
            "fix d all deform 1 x erate 0.001 y volume z volume",
            "fix h all heat 1 0.1",
            "fix h all ehex 1 0.1",
            "fix c all thermal/conductivity 100 z 20",
            "fix c all viscosity 100 x z 20",
            "fix a all accelerate/cos 0.00002\ncompute c all viscosity/cos",
            "region ball sphere 7 7 7 20\nfix w all wall/region ball harmonic 1.0 0.0 2.0",
            "region r block 0 5 INF INF 0 5 units box\ngroup r region r\nfix p r planeforce 1 0 0",
            "fix p all drag 5 5 5 0.1 2",
            "fix p all gravity 0.01 vector 0 0 -1",
            "fix p all indent 0.1 sphere 7 7 7 3",
            "fix a all ave/time 1 1 1 c_thermo_temp mode scalar",
            "compute m all msd com yes\nfix a all vector 1 c_m[4]",
            "compute t all temp/com\nfix h all langevin 300 300 0.1 7\nfix_modify h temp t",
            "compute s all stress/atom NULL\ncompute p all reduce sum c_s[1]",
            "compute c all coord/atom cutoff 4.0\nvariable n equal count(all)",
            "compute_modify thermo_temp dynamic/dof yes extra/dof 0",
            "velocity all zero angular\nvelocity all scale ${temperature}",
            "displace_atoms all random 0.1 0.1 0.1 ${seed}",
            "mass 1 24.0",
            "neighbor 2.0 bin\nneigh_modify delay 0 every 1 check yes",
            'print "T = ${temperature} K, $(v_timestep*1000:%.2f) fs"',
            "variable T index 300 400\nvelocity all scale $T",
            "variable a equal 2 # two\nvariable b equal 'v_a ^ 2 + 1'\nvelocity all scale $(v_b*(v_a+1))",
            "fix h all langevin 300 300 &\n 0.1 7",
            "fix h all langevin 300 300 0.1 7  # then run &\nrun 5",
            "fix dynamics2 all momentum 100 linear 1 1 1\nunfix dynamics2",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("lines", ALLOWED)
def test_what_a_custom_ensemble_wants_is_allowed(lines):
    assert stage(lines).lammps == lines


def test_the_suffix_of_an_accelerator_is_no_other_style():
    assert stage("fix md all nvt/omp temp 300 300 0.1\nfix l all langevin/kk 300 300 0.1 7")


def test_a_second_integrator_is_refused_by_any_name():
    for lines in ("fix md all nvt/omp temp 300 300 0.1", "fix md all nvk", "fix md all rigid/nve/small molecule"):
        with pytest.raises(ValueError, match=r"contains an integrator \(.*\), and so does ensemble npt-iso"):
            Stage(name="x", ensemble="npt-iso", temperatures_K=(9,), pressures_bar=(0,), n_steps=20, lammps=lines)


# --- LAMMPS tries them ------------------------------------------------------------------------------------------------


def tried(lines, folder, machine=LOCAL):
    return try_stage(stage(lines), made_up(64 * ["Na"]), ["Na"], Slot(machine, folder))


SOME = [pytest.param(lines, marks=[pytest.mark.slow] if i % 8 else []) for i, lines in enumerate(ALLOWED)]


@pytest.mark.parametrize("lines", SOME)
def test_lammps_takes_what_is_allowed(lines, tmp_path):
    assert tried(lines, tmp_path) is None


@pytest.mark.parametrize(
    ("lines", "said", "line"),
    [
        ("fix md all nvt temp 3 3", "Illegal fix nvt temp command: missing argument(s)", "fix md all nvt temp 3 3"),
        ("fix m all nve\nfix h nobody viscous 0.1", "Could not find fix group ID nobody", "fix h nobody viscous 0.1"),
        ("fix m all nve\ncompute t all temp/partial 1", "Illegal compute temp/partial", "compute t all temp/partial"),
        ("fix m all nve\nfix a all addforce c_none[1] 0 0", "Expected floating point parameter instead of", "fix a"),
        ("fix m all nve\nvariable f atom foo(x)\nfix a all addforce v_f 0 0", "Invalid", ""),
        ("fix m all qtb temp 300\nfix n all nve", "is part of the QTB package which is not enabled", "fix m all qtb"),
        ("fix m all nve\nfix n all nvt temp 3 3 1", "One or more atoms are time integrated more than once", ""),
        ("fix m all langevin 3 3 1 7", "No fixes with time integration, atoms won't move", ""),
        ("fix m all npt temp 3 3 1 iso 0 0 1 drag", "Illegal fix npt drag command: missing argument(s)", "fix m"),
    ],
)  # fmt: skip
def test_what_lammps_says_of_a_line_is_returned(lines, said, line, tmp_path):
    found = tried(lines, tmp_path)
    assert said in found.said
    assert "src/" not in found.said
    assert found.line.startswith(line)


def test_the_forces_that_are_kept_are_those_of_the_model_and_of_no_thermostat(tmp_path):
    assert tried("fix m all nve\nfix h all langevin 300 300 0.1 7\nfix p all addforce 1 0 0", tmp_path) is None
    rows = read_dump(tmp_path / "walk.lammpstrj", 8)[3]
    assert rows.shape[1:] == (8, 3)
    assert not rows.any(), "of pair_style zero"


def test_a_lammps_of_the_site_is_tried_by_its_command(tmp_path):
    paths = deepmd.library_environment(None)
    program = Path(paths["LAMMPS_PLUGIN_PATH"]).parents[1] / "lammps" / "lmp"
    site = LOCAL.model_copy(update={"lammps": f"{program} -nocite", "environment": paths})
    assert tried("fix a all nve\nfix b all langevin 300", tmp_path, site).said == "Illegal fix langevin command"


def test_a_lammps_that_does_not_start_is_no_fault_of_the_lines(tmp_path):
    with pytest.raises(EngineError, match="LAMMPS ended with return code 1 - expected it to run"):
        tried("fix a all nve", tmp_path, LOCAL.model_copy(update={"lammps": "false"}))


@pytest.mark.slow
def test_a_package_without_the_program_is_tried_by_its_library(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "_LMP", "raise SystemExit(1)")
    assert tried("fix a all nve\nfix b all langevin 300", tmp_path).said == "Illegal fix langevin command"
    end_sessions()


def copper(**changes):
    return parse_campaign(small(explore__stages=[{**COLD, "ensemble": "custom", **changes}], **SMALLER), where="x.yaml")


SMALLER = {"stop": {"min_walks": 2, "min_frames": 2}}


def test_check_gives_the_lines_to_lammps(tmp_path):
    began = time.monotonic()
    lines = "fix md all nve\n\nfix heat  all langevin ${temperature} ${temperature} 0.1  # no seed\n"
    (line,) = check(copper(lammps=lines), LOCAL, tmp_path / "campaign").problems
    assert line == (
        "explore.stages.0.lammps: line 3 'fix heat all langevin ${temperature} ${temperature} 0.1 # no seed': "
        "LAMMPS says: Illegal fix langevin command - expected lines that LAMMPS accepts - fix it (docs.lammps.org)"
    )
    assert time.monotonic() - began < 10.0
    assert check(copper(lammps=lines.replace("0.1 ", "0.1 ${seed}")), LOCAL, tmp_path / "campaign").problems == []
    assert list(tmp_path.iterdir()) == [], "looking leaves no trace"


def test_a_line_that_lammps_refuses_at_its_first_step_is_told(tmp_path):
    lines = "fix md all nve\nvariable kick equal c_kik\nfix push all addforce v_kick 0 0"
    (line,) = check(copper(lammps=lines), LOCAL, tmp_path / "campaign").problems
    assert line.startswith("explore.stages.0.lammps: its lines: LAMMPS says: Variable kick: ")


def test_lines_are_tried_on_the_atoms_of_a_packing(tmp_path):
    packed = {"packed": {"units": {"Na2S": 3, "P2S5": 1}, "n_units": 16, "density_g_cm3": 2.0}}
    changes = {"type_map": ["Na", "P", "S"], "initial": {"systems": [packed]}, **SMALLER}
    for n, n_problems in ((1, 0), (4, 1)):
        lines = f"fix md all nve\nmass {n} 22.0"
        data = small(explore__stages=[{**COLD, "ensemble": "custom", "lammps": lines}], **changes)
        found = check(parse_campaign(data, where="x.yaml"), LOCAL, tmp_path / "campaign")
        assert len([line for line in found.problems if "LAMMPS says" in line]) == n_problems


def test_lines_for_a_cluster_are_not_tried_and_that_is_said(tmp_path):
    found = check(copper(lammps="fix a all nvt temp 1 1"), LOCAL, tmp_path / "campaign", here=False)
    assert found.problems == []
    assert "note: the lammps lines of cold were not tried, since LAMMPS is on the nodes" in str(found.facts)


# --- potentials -------------------------------------------------------------------------------------------------------

ARGON = {"pair_style": "lj/cut 6.0", "pair_coeff": ["* * 0.0103 3.4"], "elements": ["Ar"]}


def said_of(folder, **changes):
    potential = Potential(name="argon", lammps=ARGON | changes, functional="none", includes_dispersion=True)
    asked = Study(name="s", potentials=(potential,), benchmark={"crystals": {"seeds": ["Cu_Fm-3m"]}})
    return [line for line in check_study(asked, LOCAL).problems if line.startswith("potential")]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"pair_style": "lj/cutt 6.0"}, "Unrecognized pair style 'lj/cutt'"),
        ({"pair_style": "lj/cut"}, "Illegal pair_style command (at: pair_style lj/cut)"),
        ({"pair_coeff": ["* * 0.0103"]}, "Incorrect args for pair coefficients (at: pair_coeff * * 0.0103)"),
        ({"pair_coeff": ["* * 0.0103 long"]}, "Expected floating point parameter instead of 'long'"),
        ({"pair_coeff": ["1 1 0.0103 3.4"], "elements": ["Ar", "Kr"]}, "All pair coeffs are not set"),
        ({"pair_style": "eam/alloy", "pair_coeff": ["* * none Ar"]}, "cannot open eam/alloy potential file none"),
        ({"pair_style": "hybrid lj/cut 6.0 zero 6", "pair_coeff": ["* * zero"]}, "hybrid sub-style lj/cut is not used"),
    ],
)  # fmt: skip
def test_a_pair_style_is_tried_before_a_study(changes, said, tmp_path):
    found = said_of(tmp_path, **changes)
    assert len(found) == (said is not None)
    for line in found:
        assert line.startswith("potential argon: LAMMPS says: ")
        assert said in line
        assert line.endswith("for these elements - fix the section lammps (docs.lammps.org)")


def test_elements_that_are_not_in_the_file_of_a_potential(tmp_path):
    file = tmp_path / "Si.sw"
    file.write_text("Si Si Si 2.1683 2.0951 1.80 21.0 1.20 -0.333333333333 7.049556277 0.6022245584 4.0 0.0 0.0\n")
    style = {"pair_style": "sw", "pair_coeff": [f"* * {file} Si"], "elements": ["Si"]}
    assert said_of(tmp_path, **style) == []
    (line,) = said_of(tmp_path, **(style | {"pair_coeff": [f"* * {file} Ge"], "elements": ["Ge"]}))
    assert "LAMMPS says" in line


@pytest.mark.parametrize(
    ("style", "coefficients", "what"),
    [
        ("python 6.0", "* * potentials.LJ Cu", "python in 'pair_style python 6.0' runs Python"),
        ("hybrid/overlay zero 5 python 6.0", "* * zero", "runs Python"),
        ("mliap unified model.pt 0", "* * Cu", "unified in"),
        ("mliap model mliappy m.pt descriptor sna d", "* * Cu", "mliappy in"),
        ("deepmd a.pb b.pb out_file /x out_freq 1", "* * Cu", "out_file in"),
    ],
)  # fmt: skip
def test_a_pair_style_that_runs_python_or_writes_is_refused(style, coefficients, what):
    with pytest.raises(ValueError, match=re.escape(what)):
        Potential(
            name="x",
            lammps={"pair_style": style, "pair_coeff": [coefficients], "elements": ["Cu"]},
            functional="none",
            includes_dispersion=False,
        )


@pytest.mark.parametrize("word", ["/etc/nothing", "../potentials", "./folder/", "~/x"])
def test_a_path_in_a_pair_style_is_a_file_with_a_checksum(word, tmp_path):
    file = tmp_path / "p.yaml"
    style = {"pair_style": f"hdnnp 6 dir {word}", "pair_coeff": ["* * Cu"], "elements": ["Cu"]}
    file.write_text(yaml.safe_dump({"name": "x", "functional": "none", "includes_dispersion": False, "lammps": style}))
    with pytest.raises(ConfigError, match="no such file - expected the file that the style reads - check the path"):
        load_potential(str(file))


# --- folders that were begun before -----------------------------------------------------------------------------------


def test_a_folder_is_read_whatever_its_lines_were_allowed_to_say_and_a_changed_campaign_goes_on_in_it(tmp_path):
    (warm,) = yaml.safe_load(TINY.read_text())["explore"]["stages"]
    old, new = (tmp_path / f"{name}.yaml" for name in ("old", "new"))
    tiny(old, explore__stages=[warm | {"lammps": "dump mine all custom 10 mine.traj id"}])
    tiny(new, explore__stages=[warm])
    data = yaml.safe_load(old.read_text())
    sealed = parse_campaign(data, where="old", is_sealed=True)
    store = Store.create(tmp_path / "c", sealed)
    assert in_process("status", store.folder).returncode == 0
    assert Store(store.folder).latest_campaign() == sealed
    refused = in_process("run", old, "--folder", store.folder)
    assert refused.returncode == 2
    assert re.search(r"old\.yaml:\d+: explore\.stages\.0\.lammps: line 1 'dump mine .* is not allowed", refused.stderr)
    assert in_process("check", new, "--folder", store.folder).returncode == 0
    store.accept(load_campaign(new))
    assert Store(store.folder).latest_campaign().explore.stages[0].lammps == ""


def test_so_are_pairs_of_elements_that_it_names_twice():
    twice = {"P-S": 1.5, "S-P": 1.6}
    data = load_campaign("na3ps4o").model_dump(mode="json")
    data["select"]["guards"]["min_distances_A"] = twice
    data["initial"]["isolated"] = {"dimers": list(twice)}
    with pytest.raises(ConfigError) as refused:
        parse_campaign(data, where="x")
    assert len(refused.value.problems) == 2
    found = parse_campaign(data, where="x", is_sealed=True)
    assert found.select.guards.min_distances_A == twice


def test_so_is_a_study_whose_pair_style_is_refused_by_now(tmp_path):
    style = {"pair_style": "mliap unified x.pt 0", "pair_coeff": ["* * Cu"], "elements": ["Cu"]}
    physics = {"functional": "none", "includes_dispersion": False}
    asked = {"glass": load_glass("quick").model_dump(mode="json")}
    data = {"name": "s", "potentials": [{"name": "one", "lammps": style, **physics}], **asked}
    with pytest.raises(ValueError, match="runs Python"):
        Study.model_validate(data)
    store = StudyStore.create(tmp_path / "s", Study.model_validate(data, context=SEALED))
    assert StudyStore(store.folder).study.potentials[0].lammps.pair_style == style["pair_style"]
