"""What is sealed is read as it was sealed: a finished campaign, changed in one place in ways that are valid."""

import json
import shutil

import numpy as np
import pytest
from campaigns import TINY, beside, cli, machine_file, unpack_products

from activelearn.errors import Damaged, StoreError
from activelearn.records import Labelling
from activelearn.store import Store, verify
from activelearn.store.files import publish_yaml


@pytest.fixture
def copy(undisturbed, tmp_path):
    """A copy of the finished campaign, which a test may change."""
    return Store.open(shutil.copytree(undisturbed[0].folder, tmp_path / "c"))


def edited(path, change):
    """Change a JSON document, and write it whole."""
    data = json.loads(path.read_bytes())
    change(data)
    path.write_text(json.dumps(data, indent=1))


def another_energy(path):
    """Add 1000 eV to every label of a data set, and write a whole archive."""
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{name: array + 1000.0 if name.endswith("energy") else array for name, array in arrays.items()})


@pytest.mark.engines
def test_a_whole_campaign_is_verified_and_nothing_is_written(copy):
    before = {path: path.stat().st_mtime_ns for path in copy.folder.rglob("*")}
    found = verify(Store.open(copy.folder))
    assert found.problems == []
    assert found.n_files > 40
    assert found.n_bytes > 1e5
    assert {path: path.stat().st_mtime_ns for path in copy.folder.rglob("*")} == before


@pytest.mark.engines
def test_what_is_not_what_was_sealed_is_told_by_who_reads_it_and_by_verify(copy):
    edited(copy.iteration_file(0), lambda data: data["ensemble"]["members"][0].update(n_steps=1))
    edited(copy.sealed("label", 1), lambda data: data.update(labelled=12345))
    another_energy(copy.dataset_file(2))
    copy.held_out_file(0).unlink()
    store = Store.open(copy.folder)
    for read in (
        store.iterations,
        lambda: store.result("label", 1, Labelling),
        lambda: store.training(2),
        lambda: store.held_out(2),
    ):
        with pytest.raises(Damaged):
            read()
    said = "\n".join(verify(Store.open(copy.folder)).problems)
    for name in ("iter-000/iteration.json", "iter-001/label/result.json", "dataset/iter-002.npz"):
        assert name in said


@pytest.mark.engines
@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("iter-000/campaign.yaml", r"iter-000/campaign\.yaml: gone"),
        ("iter-001", r"iter-001/campaign\.yaml: gone"),
        ("iter-002", r"iter-002/campaign\.yaml: gone"),
        ("iter-001/iteration.json", r"iter-001/iteration\.json: gone .* rebuilt"),
    ],
)
def test_an_iteration_never_vanishes(copy, lost, said):
    path = copy.folder / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(StoreError, match=said):
        Store.open(copy.folder).iterations()
    assert any(lost in problem for problem in verify(Store.open(copy.folder)).problems)


@pytest.mark.engines
def test_a_station_that_the_record_names_never_counts_as_not_begun(copy):
    shutil.rmtree(copy.station_folder("label", 1))
    with pytest.raises(Damaged, match=r"iter-001/label/result\.json: gone"):
        Store.open(copy.folder).is_sealed("label", 1)


@pytest.mark.engines
def test_a_damaged_product_is_not_packed_and_stays(copy):
    unpack_products(copy.iteration_folder(1))
    product = sorted(copy.station_folder("explore", 1).glob("*.npz"))[0]
    product.write_bytes(product.read_bytes()[:100])
    with pytest.raises(Damaged, match=rf"explore/{product.name}: damaged \(sha256"):
        Store.open(copy.folder).archive_products(1)
    assert product.is_file()
    assert not product.with_name("products.zip").exists()


@pytest.mark.engines
def test_a_pack_that_was_cut_behind_a_product_is_damaged(copy):
    """What is left ends as an archive does: with the list of the arrays of that product."""
    pack = copy.station_folder("explore", 1) / "products.zip"
    content = pack.read_bytes()
    pack.write_bytes(content[: content.index(b"PK\5\6") + 22])
    assert any("explore/products.zip" in line and "not a product" in line for line in verify(copy).problems)


@pytest.mark.engines
def test_a_whole_campaign_in_place_of_that_of_an_iteration_is_told(copy):
    path = copy.iteration_folder(0) / "campaign.yaml"
    publish_yaml(path.with_name("other"), copy.campaign(0).model_copy(update={"description": "x"}).to_yaml())
    path.with_name("other").replace(path)
    with pytest.raises(Damaged, match=r"iter-000/campaign.yaml: damaged"):
        Store.open(copy.folder).iterations()


@pytest.mark.engines
def test_a_changed_product_in_a_pack_is_told_by_its_name(copy, tmp_path):
    folder = copy.station_folder("explore", 1)
    unpack_products(copy.iteration_folder(1))
    product = sorted(folder.glob("*.npz"))[0]
    shutil.copy(sorted(folder.glob("*.npz"))[1], product)
    from activelearn.store.files import archive_files

    (folder / "products.zip").write_bytes(archive_files(sorted(folder.glob("*.npz"))))
    for path in folder.glob("*.npz"):
        path.unlink()
    with pytest.raises(Damaged, match=rf"products\.zip/{product.name}: damaged"):
        Store.open(copy.folder).read_product("explore", 1, product.stem)


def asked(*arguments, cwd):
    done = (cli if "run" in arguments else beside)(*arguments, cwd=cwd)  # a run ends the sessions of its process
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.engines
def test_verify_tells_of_labels_whose_journal_is_gone_and_of_all_that_status_refuses(copy):
    for path in (copy.folder / "labels").glob("*.seg*"):
        path.unlink()
    (copy.folder / "submitted.json").mkdir()
    (copy.folder / "iter-000" / "sel.json").unlink()
    (copy.folder / "iter-000" / "sel.json").mkdir()
    code, said = asked("status", "--verify", copy.folder, cwd=copy.folder)
    assert code == 1
    assert "18 of the 18 labels of iteration 0 are not in it" in said
    assert "submitted.json: damaged (a folder in place of a file" in said
    assert "iter-000/sel.json: gone" in said


@pytest.mark.engines
def test_a_campaign_whose_resolved_files_are_gone_is_no_ledger_and_no_new_campaign(copy):
    shutil.rmtree(copy.folder / "campaign")
    for words in (("labels", "list"), ("status",), ("run", TINY, "--folder")):
        code, said = asked(*words, copy.folder, cwd=copy.folder)
        assert (code, "campaign/000.yaml: gone" in said) == (2, True)


@pytest.mark.engines
def test_a_reference_of_an_earlier_version_is_compared_with_its_own_checksum(copy):
    for result in copy.iteration_folder(0).glob("*/result.json"):
        edited(result, lambda data: [data.pop(key) for key in ("files", "seal")])
    edited(copy.iteration_file(0), lambda data: (data.pop("seal"), data.update(products={})))
    edited(copy.iteration_folder(0) / "reference.json", lambda data: (data.pop("seal"), data.update(functional="PBE")))
    with pytest.raises(Damaged, match=r"reference\.json: damaged \(checksum mismatch"):
        Store.open(copy.folder).fingerprint(0)


@pytest.mark.engines
def test_a_folder_in_place_of_a_kept_answer_is_a_sentence(copy):
    (copy.folder / "begun" / "x.json").mkdir(parents=True)
    code, said = asked(
        "run",
        TINY,
        "--folder",
        copy.folder,
        "--machine",
        "m.yaml",
        cwd=machine_file(copy.folder.parent / "m.yaml").parent,
    )
    assert code == 1
    assert "begun/x.json: Is a directory - expected" in said
