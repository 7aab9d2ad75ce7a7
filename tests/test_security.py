"""Security: what is read runs nothing, what is named stays in its folder, and no secret reaches a message or a file."""

import ast
import io
import json
import os
import pickle
import traceback
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import rattled_copper
from test_architecture import dotted, modules_of
from test_config import COLD, refusal
from test_study_config import SEGMENTS, SERIES

import activelearn
from activelearn import exchange
from activelearn.config import DeePMDModels, LammpsStyle, Machine, Potential, Queue, load_machine
from activelearn.engines.process import run_command
from activelearn.engines.trainers.finetuning import checkpoints
from activelearn.errors import ConfigError, EngineError
from activelearn.frames import npz_bytes, pack
from activelearn.records import Task
from activelearn.store import Ledger
from activelearn.store.files import archive_files, read_archived, read_array, read_npz
from activelearn.tasks import Station, carry_out
from activelearn.writing import write_extxyz

# --- nothing that is read is run --------------------------------------------------------------------------------------

PACKAGE = Path(activelearn.__file__).parent
#: Names that nobody needs who reads data only.
BANNED = {
    *(f"yaml.{name}" for name in ("unsafe_load", "unsafe_load_all", "full_load", "full_load_all", "load_all")),
    *(f"yaml.{name}" for name in ("Loader", "CLoader", "FullLoader", "CFullLoader", "UnsafeLoader", "CUnsafeLoader")),
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "shutil.unpack_archive",
    "tempfile.mktemp", "eval", "exec", "compile",
}  # fmt: skip
#: A pickle is read here without its classes: the test below.
INERT_READER = ("engines/trainers/finetuning/checkpoints.py", "pickle")
BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "tarfile"}


def unsafe(source):
    """Yield what would run, or write where it is told, what a file says."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            yield from (name for name in modules if name.partition(".")[0] in BANNED_MODULES)
            yield from (f"{module}.{name}" for module in modules for name in names if f"{module}.{name}" in BANNED)
        elif isinstance(node, ast.Name | ast.Attribute) and dotted(node) in BANNED:
            yield dotted(node)
        elif isinstance(node, ast.Call):
            yield from _unsafe_call(node)


def _unsafe_call(node):
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    name = dotted(node.func)
    for keyword in ("shell", "allow_pickle"):
        value = keywords.get(keyword)
        if value is not None and not (isinstance(value, ast.Constant) and value.value is False):
            yield f"{keyword} in {name}"
    if name in {"yaml.load"} and "Loader" not in keywords:
        yield "yaml.load without a loader"
    if name == "torch.load" and "weights_only" not in keywords:
        yield "torch.load of anything"
    if isinstance(node.func, ast.Attribute) and node.func.attr in {"extract", "extractall"}:
        yield f"{node.func.attr}: names in an archive become paths"


def test_no_module_runs_what_a_file_says():
    found = {(module.path, what) for module in modules_of(PACKAGE) for what in unsafe(module.source)}
    assert found == {INERT_READER}


def test_the_one_reader_of_pickles_carries_nothing_out(tmp_path):
    """In the place of every class and function that a checkpoint names stands an inert one."""
    path = tmp_path / "trap.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"model": Trap(tmp_path / "made"), "cutoff": 5.0}))
    root = checkpoints.Content(path).root
    assert (root["cutoff"], root["model"].name, root["model"].given) == (5.0, "posix.mkdir", (str(tmp_path / "made"),))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "source",
    [
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "from yaml import full_load",
        "import pickle",
        "from pickle import loads",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=trusted)",
        "eval(text)",
        "exec(text)",
        "subprocess.run(words, shell=True)",
        "os.system(text)",
        "zipfile.ZipFile(path).extractall(folder)",
        "import tarfile",
        "torch.load(path)",
    ],
)
def test_that_rule_sees(source):
    assert list(unsafe(source))


def test_that_rule_lets_pass_what_only_reads():
    safe = "yaml.safe_load(t)\nyaml.load(t, Loader=yaml.SafeLoader)\nnp.load(p, allow_pickle=False)\nmodel.eval(x)\n"
    assert list(unsafe(safe + "np.load(p)\nsubprocess.run(w, shell=False)\narchive.read(name)")) == []


def test_a_yaml_that_wants_to_run_something_is_no_campaign(tmp_path):
    path = tmp_path / "machine.yaml"
    path.write_text(f"name: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    with pytest.raises(ConfigError, match=r"machine\.yaml:1: name: tag tag:yaml.org,2002:python"):
        load_machine(path)
    assert not (tmp_path / "made").exists()


class Trap:
    """Pickled, it makes a folder when it is read."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_pickles_in_the_files_of_others_are_not_opened(tmp_path):
    trap = np.array([Trap(tmp_path / "made")], dtype=object)
    np.savez(tmp_path / "labels.npz", meta=trap)
    system = tmp_path / "system" / "set.000"
    system.mkdir(parents=True)
    (system.parent / "type.raw").write_text("0\n")
    np.save(system / "coord.npy", trap)
    for path in (tmp_path / "labels.npz", tmp_path / "system"):
        with pytest.raises(Exception, match=r"allow_pickle|pickled"):
            exchange.import_labels(tmp_path / "ledger", [path], PBE)
    assert not (tmp_path / "made").exists()


# --- archives ---------------------------------------------------------------------------------------------------------

PBE = exchange.declared("functional=PBE,includes_dispersion=false,code=VASP-6.4.2")
OUTSIDE = ["../outside.npy", "../../outside.npy", "/tmp/activelearn-outside.npy", "..\\outside.npy"]


@pytest.fixture
def nest(tmp_path):
    """A folder deep in an empty one; in the end nothing else may be there."""
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    yield folder
    strangers = [path for path in tmp_path.rglob("*") if folder not in [path, *path.parents] and path.is_file()]
    assert strangers == []
    assert not Path("/tmp/activelearn-outside.npy").exists()


def labels_file(path, reference, members=()):
    path.write_bytes(npz_bytes({**pack([rattled_copper()]), "meta": np.array(json.dumps({"reference": reference}))}))
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    with zipfile.ZipFile(path, "a") as archive:
        for name in members:
            archive.writestr(name, buffer.getvalue())
    return path


def test_names_in_an_archive_of_labels_write_nothing_outside(nest):
    path = labels_file(nest / "labels.npz", PBE, OUTSIDE)
    assert read_array(path, "nothing") is None
    n, _ = exchange.import_labels(nest / "ledger", [path], None)
    assert n == 3
    assert sorted(path.name for path in nest.iterdir()) == ["labels.npz", "ledger"]


@pytest.mark.parametrize("sha256", ["../../outside", "/tmp/activelearn-outside", "", "0" * 64, None])
def test_a_reference_with_a_name_for_a_checksum_is_refused(nest, sha256):
    """It becomes part of a file's name in the ledger."""
    path = labels_file(nest / "labels.npz", {**PBE, "sha256": sha256})
    with pytest.raises(
        ConfigError, match="does not have the checksum that it names - expected a file written by activelearn"
    ):
        exchange.import_labels(nest / "ledger", [path], None)
    assert not (nest / "ledger").exists()


def test_trajectory_names_of_others_are_no_paths(nest):
    """``walk=`` of an extxyz is theirs; it stands in the ledger as text."""
    path = nest / "labels.extxyz"
    write_extxyz([rattled_copper()], path)
    path.write_text(path.read_text().replace("Properties=", "walk=../../../outside Properties="))
    assert exchange.import_labels(nest / "ledger", [path], PBE)[0] == 3
    ledger = Ledger(nest / "ledger")
    ledger.refresh()
    assert exchange.export_labels(ledger, nest / "out", PBE) == 3
    assert exchange.export_labels(ledger, nest / "out.extxyz", PBE) == 3


def test_packed_products_are_read_in_memory_whatever_their_names(nest):
    archive = nest / "products.zip"
    member = nest / "walk.npz"
    member.write_bytes(npz_bytes({"x": np.zeros(1), "meta": np.array("{}")}))
    archive.write_bytes(archive_files([member]))
    with zipfile.ZipFile(archive, "a") as opened:
        for name in OUTSIDE:
            opened.writestr(name, member.read_bytes())
    for name in ("walk.npz", *OUTSIDE[:3]):
        assert read_npz(archive, read_archived(archive, name))[0]["x"].tolist() == [0.0]


# --- names ------------------------------------------------------------------------------------------------------------

ESCAPES = ["../../outside", "/tmp/outside", "..", ".", "a/b", "a\\b", "a\nb", "a b;rm", "$(rm)", "-rf", ""]
CALCULATOR = {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False}


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize(
    ("where", "changes"),
    [
        ("name", lambda name: {"name": name}),
        ("explore.stages.0.name", lambda name: {"explore__stages": [{**COLD, "name": name}]}),
        ("type_map.1", lambda name: {"type_map": ["Cu", name]}),
        ("glass.series.name", lambda name: {"glass": {"series": {**SERIES, "name": name}, "segments": SEGMENTS}}),
        (
            "glass.segments.0.name",
            lambda name: {"glass": {"series": SERIES, "segments": [{**SEGMENTS[0], "name": name}, *SEGMENTS[1:]]}},
        ),
    ],
)
def test_a_name_that_is_a_path_is_refused(where, changes, name):
    """Names become files, and elements words of a LAMMPS input."""
    assert f"x.yaml: {where}: got {name!r} - expected" in refusal(**changes(name))


@pytest.mark.parametrize("name", [name for name in ESCAPES if name != "a b;rm"] + ["a;rm"])
def test_a_potential_with_a_path_for_a_name_is_refused(name):
    text = refusal(potentials=[{"name": name, "ase": CALCULATOR}])
    assert f"x.yaml: potentials.0.name: got {name!r} - expected" in text


def test_a_potential_named_with_dots_and_spaces_makes_plain_file_names():

    found = Potential.model_validate({"name": "A.. (b) ..+-c", "ase": CALCULATOR})
    assert found.slug == "A..-b-..-c"


@pytest.mark.parametrize("name", ["../label/emt", "/etc/passwd", "../../secret", ""])
@pytest.mark.parametrize("section", ["train", "glass", "select"])
def test_a_preset_is_a_name_and_no_path(section, name):
    text = refusal(**{section: {"preset": name}})
    assert "preset" in text or "neither a YAML file nor" in text
    assert "see params/" in text


@pytest.mark.parametrize("line", ["pair.pb\nshell rm -rf x", "pair.pb\rshell", "a\x00b"])
def test_the_path_of_a_model_is_one_line_of_a_lammps_input(line):
    with pytest.raises(ValueError, match=r"models\.0\n  String should match pattern"):
        DeePMDModels.model_validate({"models": [line]})


@pytest.mark.parametrize("line", ["eam\nshell ls", "eam &", "eam ${x}", "eam; ls", "eam `ls`"])
def test_a_pair_style_is_one_command(line):
    with pytest.raises(ValueError, match="pair_style\n  String should match pattern"):
        LammpsStyle.model_validate({"pair_style": line, "pair_coeff": ["* * x Cu"], "elements": ["Cu"]})


@pytest.mark.parametrize("line", ["shell ls", "python x input 1", "${every} ls", "sh&\nell ls", "'shell' ls", "log x"])
def test_the_lines_of_a_stage_start_no_program(line):
    assert "is not allowed in a stage - expected one of: compute" in refusal(explore__stages=[{**COLD, "lammps": line}])


# --- the batch system -------------------------------------------------------------------------------------------------

SMUGGLED = ["cpu; rm -rf /", "cpu\nrm", "cpu\n", "$(rm)", "`rm`", "cpu && rm", "cpu|rm", "cpu>x", "'cpu'", '"cpu"', ""]


@pytest.mark.parametrize("word", [*SMUGGLED, "cpu #", "cpu\\", "{{x}}", "$HOME", "~"])
@pytest.mark.parametrize("key", ["partition", "gres", "account", "qos", "constraint", "walltime"])
def test_a_word_of_the_batch_system_smuggles_nothing_into_a_script(key, word):
    with pytest.raises(ValueError, match=f"{key}\n  String should match pattern"):
        Queue.model_validate({key: word})


def test_words_of_batch_systems_pass():
    words = {"partition": "cpu,gpu-long", "gres": "gpu:a100:4", "account": "prj_1.x@y", "constraint": "a=b/c%2+d"}
    assert Queue.model_validate({**words, "walltime": "1-12:00:00"}).partition == "cpu,gpu-long"


@pytest.mark.parametrize("name", ESCAPES)
def test_places_and_categories_are_names(name):
    """They become parts of the names of my_fworker_<category>.yaml."""
    for settings in ({"places": {name: {}}}, {"places": {"cpu": {"category": name}}}, {"name": name}):
        with pytest.raises(ValueError, match="String should match pattern"):
            Machine.model_validate(settings)


# --- secrets ----------------------------------------------------------------------------------------------------------

HUSH = "hush-5up3rs3cret"


@pytest.mark.parametrize("name", ["DB_PASSWORD", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "API_KEY", "MONGODB_URI"])
@pytest.mark.parametrize("place", [False, True])
def test_a_machine_profile_takes_no_secrets(tmp_path, name, place):
    """It is copied into the campaign folder for the workers."""
    environment = {"environment": {name: HUSH}}
    path = tmp_path / "m.yaml"
    path.write_text(yaml.safe_dump({"places": {"cpu": environment}} if place else environment))
    with pytest.raises(ConfigError, match=rf"environment\.{name} - expected no secret") as caught:
        load_machine(path)
    assert HUSH not in str(caught.value)


def test_variables_of_engines_are_no_secrets():
    Machine(environment={"OMP_PLACES": "cores", "LM_LICENSE_FILE": "1@h", "VASP_PP_PATH": "x", "KEYS": "k"})


def test_an_error_of_an_engine_and_its_record_do_not_have_the_environment(store, tmp_path, monkeypatch):
    monkeypatch.setenv("INHERITED", HUSH)

    def run(task, *_):
        env = {"GIVEN": HUSH}
        try:
            run_command(["sleep", "60"], tmp_path, log=tmp_path / "log", timeout_s=0.1, env=env)
        finally:
            with pytest.raises(EngineError) as missing:
                run_command(["no-such-program"], tmp_path, log=tmp_path / "log", timeout_s=1.0, env=env)
            assert HUSH not in str(missing.value)

    station = Station("train", lambda *_: [Task(id="t", kind="toy", parameters={})], run, lambda *_: None)
    with pytest.raises(Exception, match="sleep took more than") as caught:
        carry_out(station, store, 1, Machine(max_attempts=2))
    assert HUSH not in "".join(traceback.format_exception(caught.value))
    records = list((store.folder / "failures").glob("*.json"))
    assert len(records) == 2
    assert [path for path in store.folder.rglob("*") if path.is_file() and HUSH.encode() in path.read_bytes()] == []


@pytest.mark.engines
def test_no_file_of_a_finished_campaign_has_the_environment(undisturbed):
    values = {name: value for name, value in os.environ.items() if len(value) > 40 and os.path.sep in value}
    assert "PATH" in values
    files = [path for path in undisturbed[0].folder.rglob("*") if path.is_file()]
    found = [(path.name, name) for name, it in values.items() for path in files if it.encode() in path.read_bytes()]
    assert found == []


def test_a_fault_of_the_program_does_not_print_the_values_of_its_variables():
    """Typer's own tracebacks would show local variables, a LaunchPad's password among them."""
    from activelearn.cli import app

    assert not (app.pretty_exceptions_enable and app.pretty_exceptions_show_locals)


# --- credentials of the LaunchPad -------------------------------------------------------------------------------------

DESCRIBED = {
    "by its own keys": {"host": "127.0.0.1", "port": 9, "name": "fw", "username": "me", "password": HUSH},
    "by a URI": {"host": f"mongodb://me:{HUSH}@127.0.0.1:9/fw", "name": "fw", "uri_mode": True},
    "password with signs": {"host": f"mongodb://me:a%40/{HUSH}@127.0.0.1:9/fw", "name": "fw", "uri_mode": True},
    "two at signs": {"host": f"mongodb://me:a@{HUSH}@127.0.0.1:9/fw", "name": "fw", "uri_mode": True},
    "a query": {"host": f"mongodb://127.0.0.1:9/?password={HUSH}", "name": "fw", "uri_mode": True},
    "no scheme": {"host": f"me:{HUSH}@127.0.0.1:9/fw", "name": "fw", "uri_mode": True},
    "no URI mode": {"host": f"mongodb://me:{HUSH}@127.0.0.1:9/fw", "name": "fw"},
    "no scheme, no URI mode": {"host": f"me:{HUSH}@127.0.0.1", "port": 9, "name": "fw"},
    "port in words": {"host": "127.0.0.1", "port": HUSH, "name": "fw"},
    "a wrong option": {"host": "127.0.0.1", "port": 9, "name": "fw", "mongoclient_kwargs": {"tls": HUSH}},
    "a misspelt key": {"host": "127.0.0.1", "name": "fw", "pasword": HUSH},
    "no name": {"host": f"mongodb://me:{HUSH}@127.0.0.1:9/fw"},
}


@pytest.fixture
def impatient(monkeypatch):
    launchpads = pytest.importorskip("activelearn.workflow.launchpads")
    if not hasattr(launchpads, "connect"):
        pytest.skip("workflow.launchpads.connect is not built yet")
    monkeypatch.setattr(launchpads, "ANSWER_S", 0.3)
    return launchpads


@pytest.mark.parametrize("described", DESCRIBED.values(), ids=DESCRIBED)
def test_no_message_about_a_launchpad_has_its_password(tmp_path, impatient, described, capfd, caplog):
    path = tmp_path / "my_launchpad.yaml"
    path.write_text(yaml.safe_dump(described))
    with pytest.raises(ConfigError) as caught:
        impatient.connect(path)
    printed = capfd.readouterr()
    told = "".join(traceback.format_exception(caught.value)) + printed.out + printed.err + caplog.text
    assert HUSH not in told
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", [f"host: [{HUSH}", f"password: {HUSH}\n  host: x: y", f"{HUSH}", f"- {HUSH}"])
def test_a_launchpad_file_that_is_no_yaml_is_not_quoted(tmp_path, impatient, text):
    path = tmp_path / "my_launchpad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        impatient.connect(path)
    assert HUSH not in "".join(traceback.format_exception(caught.value))
