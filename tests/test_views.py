"""The Python face: ``import activelearn as al``; campaigns and studies looked at, nothing written."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from campaigns import SMALL, TINY, dataset_summary, end_sessions, tiny
from test_study import followed  # noqa: F401 - a fixture

import activelearn as al
from activelearn.config import Machine, Study
from activelearn.errors import ConfigError
from activelearn.records import Iteration
from activelearn.store import Store, StudyStore


def contents(folder):
    """Every file with its time and checksum."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path, path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]


@pytest.fixture
def view(undisturbed):
    """The finished tiny campaign, which must stay as it is."""
    before = contents(undisturbed[0].folder)
    yield al.open(undisturbed[0].folder)
    assert contents(undisturbed[0].folder) == before, "a view writes nothing"


def test_the_face_is_named_and_nothing_else_is():
    assert set(dir(al)) == {"Frames", "__version__", "analysis", "load", "open", "run"}
    assert al.load("quickstart").name == "quickstart"
    with pytest.raises(AttributeError, match="no attribute 'opened'"):
        al.opened  # noqa: B018 - the misspelt name is looked up


def test_the_face_is_lazy():
    code = "import sys, activelearn as al; print(len([m for m in sys.modules if m.startswith('activelearn')]))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "1\n"


@pytest.mark.engines
class TestOfACampaign:
    def test_records_are_typed_and_the_end_is_told(self, view, undisturbed):
        store, end = undisturbed
        assert [type(record) for record in view.iterations] == [Iteration] * 3
        assert (view.end.iteration, view.end.message) == (end.iteration, end.message)
        assert view.campaign == store.latest_campaign()
        assert repr(view).startswith("<campaign tiny_copper: 3 iterations, ")
        assert view.studies == []
        assert view.status()["folder"] == str(view.folder)

    def test_frames_are_those_of_the_data_set(self, view):
        last = view.iterations[-1].labelling
        assert sum(map(len, view.frames())) == last.dataset_frames
        assert sum(len(part) for i in range(3) for part in view.frames(i)) == last.dataset_frames
        assert sum(map(len, view.held_out())) == view.iterations[0].labelling.held_out
        assert all(part.is_labelled for part in [*view.frames(), *view.held_out()])

    def test_the_calculators_are_the_final_models(self, view):
        frames = view.held_out()[0]
        atoms, forces = frames.to_ase()[0], []
        for index, model in enumerate(view.models()):
            assert model.is_file()
            atoms.calc = view.calculator(index)
            forces.append(atoms.get_forces())
        assert len(forces) == len(view.ensemble().members)
        errors = [np.sqrt(np.mean((one - frames.forces[0]) ** 2)) for one in forces]
        assert max(errors) < 10.0 * view.ensemble().force_rmse
        assert not np.array_equal(forces[0], forces[1])
        assert {path.name for path in view.models(0)}.isdisjoint(path.name for path in view.models())

    def test_rows_are_what_pandas_takes(self, view):
        counts, errors, seconds = view.counts(), view.errors(), view.seconds()
        walked = sum(record.selection.counts.walked for record in view.iterations if record.selection is not None)
        assert sum(row["walked"] for row in counts) == walked
        assert {row["iteration"] for row in counts} == {1, 2}
        for rows in (counts, errors, seconds):
            assert len({tuple(row) for row in rows}) == 1, "every row has the same keys"
            assert all(not isinstance(value, dict | list | tuple) for row in rows for value in row.values())
        whole = [row for row in errors if row["composition"] is None and row["iteration"] == 0]
        assert [row["member"] for row in whole] == [member.index for member in view.iterations[0].ensemble.members]

    def test_what_is_not_there_is_said(self, view):
        with pytest.raises(ConfigError, match="iterations 0 to 2 closed, iteration 7 is not"):
            view.frames(7)
        with pytest.raises(ConfigError, match="calculator 9 - expected 0 to"):
            view.calculator(9)
        with pytest.raises(ConfigError, match="models are not compressed"):
            view.models(0, compressed=True)


def test_nothing_closed_is_said(tmp_path, campaign):
    Store.create(tmp_path / "c", campaign)
    view = al.open(tmp_path / "c")
    assert (view.iterations, view.end, view.counts(), view.errors()) == ([], None, [], [])
    with pytest.raises(ConfigError, match="no iteration closed"):
        view.frames()
    with pytest.raises(ConfigError, match="no campaign here"):
        al.open(tmp_path)


@pytest.mark.engines
def test_a_study_is_looked_at_through_its_campaign_or_by_itself(followed):  # noqa: F811 - the fixture
    folder = followed[0].folder
    (view,) = al.open(folder).studies
    assert view.study == al.open(folder / "study-002").study
    assert [glass.id for glass in view.glasses] == [glass.id for glass in view.glasses if glass.ended == "finished"]
    path = view.path(view.glasses[0])
    assert (path.frames.n_atoms, path.ended) == (32, "finished")
    with pytest.raises(ConfigError, match="no glass nobody's - expected one of: "):
        view.path("nobody's")
    rows = view.results()
    assert {"name", "value", "unit", "uncertainty", "potential", "x"} <= set(rows[0])
    assert len({tuple(row) for row in rows}) == 1
    lines = view.lines("rdf")
    assert lines
    assert all(len(line.x) == len(line.y) > 0 for line in lines)
    assert len(view.lines()) >= len(lines)


def test_a_study_whose_package_is_gone_can_be_looked_at(tmp_path):
    emt = {"calculator": "ase.calculators.emt:EMT", "functional": "none", "includes_dispersion": False}
    crystals = {"crystals": {"seeds": ["Cu_Fm-3m"]}}
    study = Study.model_validate({"name": "toy", "potentials": [{"name": "EMT", "ase": emt}], "benchmark": crystals})
    StudyStore.create(tmp_path / "s", study)
    assert repr(al.open(tmp_path / "s")) == f"<study {study.name}: 0 glasses, 0 results>"
    gone = study.to_yaml().replace("benchmark:\n", "benchmark:\n  somebodys: true\n").encode()
    sealed = f"# sha256 {hashlib.sha256(gone).hexdigest()}\n".encode() + gone
    (tmp_path / "s" / "study.yaml").write_bytes(sealed)
    view = al.open(tmp_path / "s")
    assert repr(view) == "<study s: 0 glasses, 0 results>"
    with pytest.raises(ConfigError, match="somebodys: unknown key"):
        _ = view.study


@pytest.mark.engines
def test_a_campaign_runs_from_python_to_the_same_data_set(tmp_path, undisturbed, caplog):
    file = tiny(tmp_path / "tiny.yaml", final__compress=False)  # which takes as long as a training
    try:
        end = al.run(file, tmp_path / "run", Machine(slots=2, **SMALL))
    finally:
        end_sessions()
    assert end == undisturbed[1]
    assert dataset_summary(Store(tmp_path / "run"), 2) == dataset_summary(undisturbed[0], 2)
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert 'id="figure-learning-final"' in text, "the page of the whole campaign"
    again = Machine(slots=2, report=False, **SMALL)
    (tmp_path / "run" / "report.html").unlink()
    assert al.run(al.load(file), tmp_path / "run", again) == end, "nothing is left to do"
    assert not (tmp_path / "run" / "report.html").exists()
    (tmp_path / "run" / "report.html").mkdir()
    assert al.run(file, tmp_path / "run", Machine(slots=2, **SMALL)) == end, "a page that cannot be written is harmless"
    (line,) = [one.getMessage() for one in caplog.records if "no page of run: " in one.getMessage()]
    assert "report.html" in line


def test_what_is_wrong_is_said_before_anything_is_begun(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file - expected a folder"):
        al.run(TINY, tmp_path / "file" / "run")
    assert (tmp_path / "file").is_file()
