"""Structure files in every room that reads them: all frames count, whatever stands between them."""

import gzip

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write

from activelearn import given, seeds
from activelearn.benchmark.parity import labelled_frames
from activelearn.check.study import _parity_frames
from activelearn.config import OwnGlasses, Series
from activelearn.errors import ConfigError
from activelearn.exchange import import_labels
from activelearn.exchange.deepmd_npy import systems_in
from activelearn.exchange.dpgen.labels import _systems
from activelearn.frames import Frames
from activelearn.structures import read_structures
from activelearn.writing import write_deepmd

SILICA = Series(
    name="silica",
    title="SiO2",
    compositions=[{"x": 0.0, "units": {"SiO2": 1.0}, "density_g_cm3": 2.2}],
    roles={"formers": {"Si": 4}, "anions": ["O"]},
    cutoffs_A={"Si-O": 2.0},
)
IDENTITY = {"functional": "none", "sha256": "0" * 64}


def copper(n=3, random_seed=0):
    """Copper in larger and larger cells, labelled by EMT."""
    images = []
    for k in range(n):
        atoms = bulk("Cu", a=3.6 + 0.01 * k, cubic=True)
        atoms.rattle(0.05, seed=random_seed + k)
        atoms.calc = EMT()
        atoms.get_forces()
        atoms.get_stress()
        images.append(atoms)
    return images


def with_gaps(path):
    """Put an empty line, and one of blanks, between the frames of a file."""
    lines = path.read_text().splitlines(keepends=True)
    n = int(lines[0]) + 2
    frames = ["".join(lines[k : k + n]) for k in range(0, len(lines), n)]
    path.write_text("\n".join(frames[:2]) + "  \n\n" + "".join(frames[2:]))
    return path


@pytest.fixture
def gaps(tmp_path):
    write(tmp_path / "a@1.extxyz", copper())
    return with_gaps(tmp_path / "a@1.extxyz")


def test_ase_itself_stops_at_an_empty_line(gaps):
    """The reason for `read_structures`; if this fails, ASE has changed."""
    assert len(read(gaps, ":", do_not_split_by_at_sign=True)) < 3


def test_all_frames_are_read_and_the_last_is_the_last(gaps, tmp_path):
    assert [image.cell[0, 0] for image in read_structures(gaps)] == pytest.approx([3.6, 3.61, 3.62])
    assert seeds.load_structure(gaps.name, tmp_path).cell[0, 0] == pytest.approx(3.62)
    assert [float(frame.cell[0, 0, 0]) for frame in labelled_frames(gaps, "")] == pytest.approx([3.6, 3.61, 3.62])


def test_line_ends_byte_order_marks_and_compression_change_nothing(gaps):
    text = gaps.read_text()
    for name, content in {
        "crlf.extxyz": text.replace("\n", "\r\n").encode(),
        "bom.xyz": ("\ufeff" + text).encode(),
        "small.extxyz.gz": gzip.compress(text.encode()),
    }.items():
        (gaps.parent / name).write_bytes(content)
        assert len(read_structures(gaps.parent / name)) == 3


def test_a_frame_that_is_cut_is_an_error(gaps):
    gaps.write_text("".join(gaps.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ConfigError, match="cannot be read"):
        labelled_frames(gaps, "")
    assert "cannot be read" in _parity_frames(str(gaps))[0]  # before the glasses are made, not after


def test_a_number_that_is_not_finite_is_an_error_before_anything_is_computed(tmp_path):
    images = copper()
    images[1].calc.results["forces"][0, 0] = np.nan
    write(tmp_path / "nan.extxyz", images)
    (said,) = _parity_frames(str(tmp_path / "nan.extxyz"))
    assert "frame 1: a number is not finite" in said


def test_glasses_of_a_file_with_empty_lines_are_all_of_them(tmp_path):
    images = []
    for k in range(3):
        image = bulk("SiO2", "fluorite", a=4.6 + 0.1 * k)
        image.info["id"] = f"g{k}"
        images.append(image)
    write(tmp_path / "silica.extxyz", images)
    ((*found,),) = given.read(OwnGlasses(files=(str(with_gaps(tmp_path / "silica.extxyz")),), series=SILICA))
    assert [glass.id for glass in found] == ["g0", "g1", "g2"]


def test_a_virial_is_the_stress_that_it_is(tmp_path):
    image = copper(1)[0]
    expected = Frames.from_ase(image)
    stress = image.calc.results.pop("stress")
    assert stress.any()
    image.info["virial"] = expected.virial[0]
    image.calc.results = {name: image.calc.results[name] for name in ("energy", "forces")}
    write(tmp_path / "v.extxyz", image)
    (found,) = labelled_frames(tmp_path / "v.extxyz", "")
    np.testing.assert_allclose(found.virial, expected.virial, atol=1e-6)


# --- deepmd systems behind links --------------------------------------------------------------------------------------


def test_linked_systems_count_and_each_once(tmp_path):
    """Data folders of links are usual; pathlib's rglob passes them over."""
    write_deepmd([Frames.from_ase(copper(2))], tmp_path / "real" / "one", ["Cu"])
    write_deepmd([Frames.from_ase(copper(2, 50))], tmp_path / "real" / "two", ["Cu"])
    data = tmp_path / "data"
    (data / "own").mkdir(parents=True)
    (data / "own" / "one").symlink_to(tmp_path / "real" / "one")
    (data / "two").symlink_to(tmp_path / "real" / "two")
    (data / "again").symlink_to(tmp_path / "real" / "two")
    (data / "up").symlink_to(data)
    assert len(systems_in(data)) == len(_systems(data)) == 2
    n, tally = import_labels(tmp_path / "ledger", [data], IDENTITY)
    assert (n, sum(tally.counts.values())) == (4, 0)
