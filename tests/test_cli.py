"""The command line: its exit codes, and what it says; most of it as a user has it, in a subprocess."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
import yaml
from campaigns import (
    BIN,
    TESTS,
    TINY,
    beside,
    cli,
    command,
    dataset_summary,
    environment,
    machine_file,
    tiny,
    unpack_products,
)
from typer.testing import CliRunner

import activelearn
from activelearn.cli import app
from activelearn.config import find_campaign, load_campaign
from activelearn.store import Store


@pytest.fixture
def copied(ended, tmp_path):
    """A copy of the ended campaign that a test may change, with the YAML it was run with: (folder, YAML)."""
    shutil.copytree(ended[0], tmp_path / "c")
    shutil.copy(ended[0].parent / "machine.yaml", tmp_path / "machine.yaml")
    return tmp_path / "c", tiny(tmp_path / "tiny.yaml")


# --- run --------------------------------------------------------------------------------------------------------------


@pytest.mark.engines
def test_a_run_to_the_bound_exits_3_and_says_what_is_left(ended):
    folder, done = ended
    assert done.returncode == 3, done.stderr
    n_left = Store(folder).iterations()[-1].selection.counts.candidate
    assert f"not converged after 2 iterations (stop.max_iterations): {n_left} candidates" in done.stdout
    assert "next: activelearn status c;  activelearn export c --to models-tiny_copper" in done.stdout


@pytest.mark.engines
def test_without_a_terminal_progress_is_plain_lines(ended):
    _, done = ended
    assert "\x1b" not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "campaign tiny_copper: fcc copper at 200 K, too small to converge"
    for i in (0, 1, 2):
        assert any(line.startswith(f"iteration {i}: ") for line in lines)
        assert any(re.match(rf"iteration {i}  train +\d/2", line) for line in lines)
    assert all("was cut short" in line for line in done.stderr.splitlines()), "its trainings of 60 steps are"


README = (TESTS.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.engines
@pytest.mark.parametrize("shown", re.findall(r"^iteration \d.*", README, re.MULTILINE))
def test_the_readme_shows_what_a_run_prints(shown, ended):
    """In form: whatever its numbers and stages are; "..." is any rest. This one never converges."""
    shown = shown.replace("converged: ", "continues: ").replace("; held-out P99", "; ... held-out P99")
    form = re.sub(r"\d+(?:\\\.\d+)?", r"[\\d.]+", re.escape(shown)).replace(r"\.\.\.", ".*").replace("hot", r"\w+")
    assert [line for line in ended[1].stdout.splitlines() if re.match(form, line)], ended[1].stdout


@pytest.mark.engines
def test_a_run_through_the_command_line_gives_the_data_set_of_the_plain_loop(ended, undisturbed):
    assert dataset_summary(Store(ended[0]), 2) == dataset_summary(undisturbed[0], 2)


@pytest.mark.engines
def test_running_an_ended_campaign_again_says_the_same_at_once(copied):
    folder, campaign = copied
    begin = time.monotonic()
    done = cli("run", campaign, "--folder", folder, "--machine", "machine.yaml", cwd=folder.parent)
    assert done.returncode == 3
    assert "not converged after 2 iterations" in done.stdout
    assert time.monotonic() - begin < 20.0


# --- check ------------------------------------------------------------------------------------------------------------


def test_a_campaign_whose_name_looks_like_an_option_is_named_so_that_it_can_be_pasted(tmp_path):
    shutil.copy(TINY, tmp_path / "-my tiny.yaml")
    done = beside("check", "--slots", "1", "--", "-my tiny.yaml", cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "ok: activelearn run './-my tiny.yaml' --slots 1"


def test_check_shows_what_will_be_done(tmp_path):
    shutil.copy(TINY, tmp_path / "tiny.yaml")
    begin = time.monotonic()
    done = cli("check", "tiny.yaml", "--machine", machine_file(tmp_path / "m.yaml", slots=2), cwd=tmp_path)
    assert time.monotonic() - begin < 10.0  # 3 s on an idle machine
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[-1] == f"ok: activelearn run tiny.yaml --machine {tmp_path / 'm.yaml'}"
    assert "systems: Cu32 (32 atoms)" in lines
    assert "initial: 6 trajectories, 18 labels by ase.calculators.emt:EMT (none)" in lines
    assert "stage warm: nvt, 200 K; 4 walks of 20 steps, 44 frames per pass" in lines
    assert "window: 0.1 to 0.24 eV/Å, at most 8 labels per iteration" in lines
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.yaml", "tiny.yaml"], "check leaves nothing behind"


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"trainn": {}}, "trainn: unknown key - did you mean 'train'?"),
        ({"select__f_low": 0.1}, "select.f_low: unknown key - did you mean 'f_lo'?"),
        ({"train__n_steps": "many"}, "train.n_steps: got 'many' - expected"),
        ({"select__f_lo": 0.3}, "f_lo = 0.3 eV/Å must be below f_hi = 0.24 eV/Å"),
        (
            {"type_map": ["Ag"]},
            "type_map: lacks Cu of Cu32 - expected every element of the systems - type_map: ['Ag', 'Cu']",
        ),
        ({"initial__systems": [{"seed": "Cu_Fm-3n"}]}, "did you mean 'Cu_Fm-3m'?"),
        ({"initial__systems": [{"seed": "Cu_Fm-3m", "supercell": [1, 1, 1]}]}, "perpendicular height"),
        ({"label__reference__calculator": "nomodule.here:Calc"}, "has no nomodule - expected nomodule.here:Calc"),
        ({"label__reference__weights": "/no/such.pt"}, "label.reference.weights: no file /no/such.pt"),
        ({"stop__min_frames": 1000}, "44 frames from 4 walks per pass - expected at least stop.min_frames = 1000"),
    ],
)
def test_a_bad_campaign_is_one_line_and_exit_2(tmp_path, changes, wanted):
    campaign = tiny(tmp_path / "bad.yaml", **changes)
    done = beside("check", campaign, "--machine", machine_file(tmp_path / "m.yaml"), cwd=tmp_path)
    assert done.returncode == 2
    assert wanted in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert " - " in done.stderr, "where: what - expected - next"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"lammps": "no_such_lmp -q"}, "machine.lammps: no program 'no_such_lmp' on the PATH - expected LAMMPS"),
        ({"python": "/no/such/python"}, "machine.python: /no/such/python has no deepmd - expected deepmd-kit"),
        ({"min_free_disk_GB": 1e6}, "GB free - expected machine.min_free_disk_GB = 1e+06"),
        ({"slot": 2}, "slot: unknown key - did you mean 'slots'?"),
    ],
)
def test_a_machine_that_cannot_do_it_is_exit_2(tmp_path, settings, wanted):
    done = beside("check", TINY, "--machine", machine_file(tmp_path / "m.yaml", **settings), cwd=tmp_path)
    assert done.returncode == 2
    assert wanted in done.stderr
    assert "Traceback" not in done.stderr


def test_every_problem_is_told_at_once(tmp_path):
    campaign = tiny(tmp_path / "bad.yaml", trainn={}, select__f_lo=-1.0, stop__max_iterations=0)
    done = cli("check", campaign, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "taken").write_text("")
    done = beside("check", TINY, "--folder", "taken", cwd=tmp_path)
    assert done.returncode == 2
    assert "is a file - expected a folder" in done.stderr


@pytest.mark.parametrize("text", ["name: [unclosed\ntype_map: [Cu]\n", "a: b: c\n", "\tname: x\n", "- a\n- b\n", ""])
def test_broken_yaml_is_one_line_with_its_place(tmp_path, text):
    (tmp_path / "broken.yaml").write_text(text)
    for verb in ("check", "run"):
        done = beside(verb, "broken.yaml", cwd=tmp_path)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "broken.yaml" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_run_checks_first_and_makes_no_folder(tmp_path):
    campaign = tiny(tmp_path / "bad.yaml", type_map=["Ag"])
    done = cli("run", campaign, "--folder", "c", cwd=tmp_path)
    assert done.returncode == 2
    assert "type_map: lacks Cu" in done.stderr
    assert not (tmp_path / "c").exists()


def test_an_unknown_preset_names_the_nearest(tmp_path):
    done = beside("run", "coper_emt", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'copper_emt'?" in done.stderr


# --- status -----------------------------------------------------------------------------------------------------------


@pytest.mark.engines
def test_status_is_a_table(ended):
    done = cli("status", ended[0], cwd=ended[0].parent)
    assert done.returncode == 0
    assert "tiny_copper  (ended)" in done.stdout
    for word in ("walked", "accur.", "cand.", "failed", "labels", "refused", "F RMSE", "warm: continues: "):
        assert word in done.stdout
    assert "not converged after 2 iterations" in done.stdout


@pytest.mark.engines
def test_status_as_json_has_what_was_promised(ended):
    """Issue 2, point 3: counts, held-out force RMSE, seconds split into engine and other, data set size and sha256."""
    done = beside("status", ended[0], "--json", cwd=ended[0].parent)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert (found["name"], found["state"], found["converged"], found["next"]) == ("tiny_copper", "ended", False, None)
    assert [row["index"] for row in found["iterations"]] == [0, 1, 2]
    for row in found["iterations"]:
        assert row["held_out_force_rmse_eV_per_A"] > 0.0
        assert row["refused"] == {}
        assert row["labelled"] > 0
        assert set(row["dataset"]) == {"frames", "sha256"}
        assert re.fullmatch("[0-9a-f]{64}", row["dataset"]["sha256"])
        for spent in row["seconds"].values():
            assert spent["engine"] + spent["other"] == pytest.approx(spent["wall"], abs=1e-6)
    assert found["iterations"][0]["counts"] is None
    for row in found["iterations"][1:]:
        names = {"walked", "accurate", "candidate", "failed", "out_of_region", "chosen", "rescued"}
        assert names <= set(row["counts"])
        assert row["counts"]["chosen"] + row["counts"]["rescued"] == row["labelled"]
    assert found["iterations"][2]["dataset"]["sha256"] == dataset_summary(Store(ended[0]), 2)[1]


@pytest.mark.parametrize("verb", ["status", "export"])
def test_a_folder_without_a_campaign_is_exit_2(tmp_path, verb):
    done = beside(verb, tmp_path, *(["--to", "x"] if verb == "export" else []), cwd=tmp_path)
    assert done.returncode == 2
    assert "no campaign here - expected a campaign folder - start one with: activelearn run" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_status_of_a_campaign_that_has_just_begun(tmp_path):
    from activelearn.config import load_campaign

    Store.create(tmp_path / "c", load_campaign(TINY))
    done = beside("status", "c", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["state"], found["iterations"], found["next"]) == ("open", [], {"iteration": 0, "part": "loop"})
    assert beside("status", "c", cwd=tmp_path).returncode == 0


# --- export -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(ended):
    to = ended[0].parent / "models"
    done = cli("export", ended[0], "--to", to, cwd=ended[0].parent)
    assert done.returncode == 0, done.stderr
    return to


@pytest.mark.engines
def test_export_writes_models_inputs_data_and_card(exported):
    names = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert {f"{kind}-{i}.pb" for kind in ("frozen", "compressed") for i in (0, 1)} <= names
    assert {"in.lammps", "start.lmp", "start.extxyz", "ase_example.py", "model_card.md", "SHA256SUMS"} <= names
    assert {"campaign.yaml", "dataset/training.extxyz", "dataset/held-out.extxyz"} <= names
    assert "dataset/deepmd/training/000-Cu32/type.raw" in names
    assert not [name for name in names if name.startswith(".")]


@pytest.mark.engines
def test_the_checksums_are_right_and_of_all_files(exported):
    done = subprocess.run(
        ["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=exported, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    listed = {line.split("  ", 1)[1] for line in (exported / "SHA256SUMS").read_text().splitlines()}
    there = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert listed == there - {"SHA256SUMS"}


@pytest.mark.engines
def test_the_lammps_input_runs_as_it_is(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "m")
    done = subprocess.run(
        ["lmp", "-in", "in.lammps"],
        cwd=tmp_path / "m",
        env=environment(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Total wall time" in done.stdout
    rows = [line for line in (tmp_path / "m" / "model_devi.out").read_text().splitlines() if line.strip()[0].isdigit()]
    assert len(rows) == 6  # 100 steps, each 20th


@pytest.mark.engines
def test_the_ase_example_runs_as_it_is(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "m")
    done = subprocess.run(
        [sys.executable, "ase_example.py"],
        cwd=tmp_path / "m",
        env=environment(OMP_NUM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3"),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"energy -?\d+\.\d{6} eV, largest force \d", done.stdout)
    assert re.search(r"after 10 steps: \d+ K", done.stdout)


@pytest.mark.engines
def test_the_exported_data_set_loads_and_is_that_of_the_campaign(exported, ended):
    import dpdata
    import numpy as np
    from ase.io import read

    parts = Store(ended[0]).dataset(2)
    n_frames = sum(len(part) for part in parts)
    found = dpdata.LabeledSystem(str(exported / "dataset" / "deepmd" / "training" / "000-Cu32"), fmt="deepmd/npy")
    images = read(exported / "dataset" / "training.extxyz", index=":")
    assert len(found) == len(images) == n_frames
    assert np.array_equal(found["coords"], np.concatenate([part.positions for part in parts]))
    assert np.array_equal(found["energies"], np.concatenate([part.energy for part in parts]))
    forces = np.concatenate([part.forces for part in parts])
    virial = np.concatenate([part.virial for part in parts])
    assert np.array_equal(found["forces"], forces)
    assert np.array_equal(found["virials"], virial)
    assert np.array([image.get_forces() for image in images]) == pytest.approx(forces, abs=1e-7)
    stress = np.array([-image.get_stress(voigt=False) * image.get_volume() for image in images])
    assert stress == pytest.approx(virial, abs=1e-6)
    assert len(read(exported / "dataset" / "held-out.extxyz", index=":")) == 3


@pytest.mark.engines
def test_the_model_card_says_what_it_is(exported, ended):
    card = (exported / "model_card.md").read_text()
    assert "- cutoff: 4 Å; neighbours of an atom within it that the models hold (sel): Cu 48; beyond that" in card
    last = Store(ended[0]).iterations()[-1]
    for word in (
        "# tiny_copper",
        "not converged after 2 iterations",
        "0.1 to 0.24 eV/Å",
        last.labelling.dataset_sha256,
        last.campaign_sha256,
        "deepmd-kit",
        f"{last.ensemble.members[1].held_out.force_rmse:.4f}",
    ):
        assert word in card


@pytest.mark.engines
def test_export_overwrites_nothing(ended, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine.txt").write_text("mine")
    done = cli("export", ended[0], "--to", "m", cwd=tmp_path)
    assert done.returncode == 2
    assert "is not empty - expected a new folder" in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["m", "mine.txt"]


@pytest.mark.engines
def test_export_wants_an_ended_campaign(copied):
    folder, _ = copied
    shutil.rmtree(folder / "iter-002" / "final")
    done = cli("export", folder, "--to", "m", cwd=folder.parent)
    assert done.returncode == 2
    assert "no final models yet - expected a campaign that has ended" in done.stderr
    assert not (folder.parent / "m").exists()


@pytest.mark.engines
def test_a_campaign_that_goes_on_after_its_end_is_not_exported(copied):
    """The bound was raised: the models of the old end are not the last word, and nobody meets an assertion."""
    folder, _ = copied
    store = Store(folder)
    settings = store.latest_campaign()
    store.accept(settings.model_copy(update={"stop": settings.stop.model_copy(update={"max_iterations": 3})}))
    done = cli("export", folder, "--to", "m", cwd=folder.parent)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert json.loads(cli("status", folder, "--json", cwd=folder.parent).stdout)["state"] == "open"


# --- a changed campaign -----------------------------------------------------------------------------------------------


@pytest.mark.engines
def test_a_changed_campaign_is_refused_with_the_difference(copied):
    folder, _ = copied
    changed = tiny(folder.parent / "changed.yaml", select__f_lo=0.12, train__n_steps=80)
    done = cli("run", changed, "--folder", folder, "--machine", "machine.yaml", cwd=folder.parent)
    assert done.returncode == 2
    assert "  select.f_lo: 0.1 -> 0.12" in done.stderr
    assert "  train.n_steps: 60 -> 80" in done.stderr
    assert "--accept-changes" in done.stderr
    assert len(Store(folder).campaign_files()) == 1
    assert not (folder / "lease.json").exists()


@pytest.mark.engines
@pytest.mark.parametrize("change", [{"type_map": ["Cu", "Ag"]}, {"train__descriptor__rcut": 4.2}, {"name": "other"}])
def test_what_is_fixed_cannot_be_changed(copied, change):
    folder, _ = copied
    changed = tiny(folder.parent / "changed.yaml", **change)
    done = beside(
        "run", changed, "--folder", folder, "--machine", "machine.yaml", "--accept-changes", cwd=folder.parent
    )
    assert done.returncode == 2
    assert "fixed for all its iterations" in done.stderr
    assert len(Store(folder).campaign_files()) == 1


@pytest.mark.engines
def test_a_window_changed_between_explore_and_label_counts_from_the_next_iteration(copied):
    """Iteration 2 has explored: it keeps its window; the new bound opens iteration 3 with the new one."""
    folder, _ = copied
    shutil.rmtree(folder / "iter-002" / "final")
    unpack_products(folder / "iter-002")
    for station in ("select", "label", "train"):
        shutil.rmtree(folder / "iter-002" / station)
    (folder / "iter-002" / "iteration.json").unlink()
    (folder / "iter-002" / "chosen.npz").unlink()
    sealed = (folder / "iter-002" / "campaign.yaml").read_text()
    window = {"select__f_lo": 0.11, "select__f_hi": 0.3}
    changed = tiny(folder.parent / "changed.yaml", **window, stop__max_iterations=3, final__compress=False)
    arguments = ("--folder", folder, "--machine", "machine.yaml", "--accept-changes")
    done = cli("run", changed, *arguments, cwd=folder.parent)
    assert done.returncode == 3, done.stderr
    assert "they take effect after iteration 2, which keeps what it was sealed to" in done.stdout
    assert "  select.f_lo: 0.1 -> 0.11" in done.stdout
    records = Store(folder).iterations()
    assert [(r.selection.f_lo, r.selection.f_hi) for r in records[1:]] == [(0.1, 0.24), (0.1, 0.24), (0.11, 0.3)]
    assert (folder / "iter-002" / "campaign.yaml").read_text() == sealed
    assert yaml.safe_load((folder / "iter-003" / "campaign.yaml").read_text())["select"]["f_lo"] == 0.11
    assert records[2].campaign_sha256 != records[3].campaign_sha256
    # the same command again: nothing has changed any more
    again = cli("run", changed, "--folder", folder, "--machine", "machine.yaml", cwd=folder.parent)
    assert again.returncode == 3
    assert "changes accepted" not in again.stdout


# --- a terminal, and the small verbs ----------------------------------------------------------------------------------


@pytest.mark.engines
def test_on_a_terminal_progress_is_live(copied):
    """The end of a campaign on a pseudo-terminal: the bars of rich, and no crash."""
    import pty

    folder, campaign = copied
    shutil.rmtree(folder / "iter-002" / "final")
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        command("run", campaign, "--folder", folder, "--machine", "machine.yaml"),
        cwd=folder.parent,
        env=environment(TERM="xterm-256color"),
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    said = b""
    try:
        while piece := os.read(leader, 4096):
            said += piece
    except OSError:
        pass  # the last process has closed the terminal
    finally:
        os.close(leader)
    assert process.wait(60) == 3
    assert b"\x1b[" in said
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())
    assert re.search(r"iteration 2  final .*[█░]", text)
    assert "not converged" in text
    assert "Traceback" not in text


def test_version(tmp_path):
    done = cli("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"activelearn {activelearn.__version__}\n")


def test_help_names_the_verbs(tmp_path):
    done = cli("--help", cwd=tmp_path)
    assert done.returncode == 0
    for verb in ("run", "check", "status", "export", "init", "schema"):
        assert verb in done.stdout


def test_init_writes_a_campaign_that_checks(tmp_path):
    done = cli("init", "mine.yaml", "--from", "copper_emt", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "activelearn check mine.yaml" in done.stdout
    assert (tmp_path / "mine.yaml").read_text().startswith("#"), "with its comments"
    machine = machine_file(tmp_path / "m.yaml")
    assert cli("check", "mine.yaml", "--machine", machine, cwd=tmp_path).returncode == 0
    again = beside("init", "mine.yaml", "--from", "copper_emt", cwd=tmp_path)
    assert again.returncode == 2
    assert "exists - expected a new file" in again.stderr


@pytest.mark.parametrize(
    ("file", "name"),
    [
        *(("my glass (2).yaml", "my-glass-2"), ("42.yaml", "42"), ("true.yaml", "true"), ("Läufe.yml", "L-ufe")),
        *(("-.yaml", "campaign"), ("n" * 100 + ".yaml", "n" * 60)),
        *(("quickstart.yaml", "quickstart-2"), ("sub/1e5.yaml", "1e5-3")),
    ],
)
def test_init_names_a_campaign_after_its_file_where_no_other_runs(tmp_path, monkeypatch, file, name):
    """After the quickstart another campaign of that name was refused by its folder."""
    monkeypatch.chdir(tmp_path)
    for taken in ("runs/quickstart", "runs/1e5", "runs/1e5-2", "sub"):
        (tmp_path / taken).mkdir(parents=True)
    done = CliRunner().invoke(app, ["init", "--", file])
    assert done.exit_code == 0, done.output
    assert f"name: {name}; runs in runs/{name}" in done.output
    written, preset = (tmp_path / file).read_text(), find_campaign("quickstart").read_text()
    assert load_campaign(tmp_path / file).name == name
    assert [line for line in written.splitlines() if not line.startswith("name:")] == [
        line for line in preset.splitlines() if not line.startswith("name:")
    ], "with its comments"


def test_init_keeps_the_comment_behind_the_name_of_ones_own_campaign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tiny(tmp_path / "own.yaml").read_text().replace("name: tiny_copper", "name: 'old one'  # of before")
    (tmp_path / "own.yaml").write_text(own)
    assert CliRunner().invoke(app, ["init", "new.yaml", "--from", "own.yaml"]).exit_code == 0
    assert (tmp_path / "new.yaml").read_text() == own.replace("'old one'", "new")


def test_init_says_why_it_cannot_write(tmp_path):
    done = beside("init", "no/such/folder/mine.yaml", "--from", "copper_emt", cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


def test_schema_is_the_json_schema_of_campaigns_and_machines(tmp_path):
    done = cli("schema", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert {"name", "type_map", "initial", "explore", "label", "train", "stop"} <= set(found["properties"])
    assert found["additionalProperties"] is False
    machine = json.loads(beside("schema", "--machine", cwd=tmp_path).stdout)
    assert "slots" in machine["properties"]


def test_the_installed_script_is_the_one_tested():
    assert (BIN / "activelearn").is_file()
    assert hashlib.sha256((BIN / "activelearn").read_bytes()).hexdigest()
