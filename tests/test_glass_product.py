"""The product of a glass: what is written is read again, and the archives of earlier versions are, too."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from activelearn.frames import Frames
from activelearn.store import read_npz
from activelearn.store.glass_product import GlassPath, GlassProduct, Thermo, no_frames

ROOT = Path(__file__).parent
#: Made by version 3afdc58: KAr3-xNex, 32 atoms, two segments (one frame and two), then a pore of 6 Å (one frame).
EARLIER = ROOT / "data" / "glass" / "porous-3afdc58.npz"


def same(a, b) -> bool:
    """Whether two values of a path are the same to the last bit."""
    if isinstance(a, Frames):
        a, b = a.arrays(), b.arrays()
        return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)
    if isinstance(a, Thermo):
        return all(same(getattr(a, one.name), getattr(b, one.name)) for one in fields(Thermo))
    return a.tobytes() == b.tobytes() if isinstance(a, np.ndarray) else a == b


def are_alike(a: GlassPath, b: GlassPath) -> bool:
    return all(same(getattr(a, one.name), getattr(b, one.name)) for one in fields(GlassPath))


@pytest.fixture
def earlier():
    return GlassProduct.from_arrays(*read_npz(EARLIER))


def test_the_product_of_an_earlier_version_is_read(earlier):
    dense, porous = earlier.dense, earlier.porous
    assert (dense.segments, dense.analysed, dense.ended) == (("melt", "glass"), (1,), "finished")
    assert dense.segment_of_frames.tolist() == ["melt", "glass", "glass"]
    assert (dense.frames.formula, porous.frames.formula) == ("Ar20K8Ne4", "Ar15K6Ne3")
    assert (len(dense.analysed_frames), len(porous.analysed_frames)) == (2, 1)
    assert (len(dense.thermo), len(dense.analysed_thermo), len(porous.thermo)) == (8, 5, 3)
    assert porous.end.cell == pytest.approx(dense.end.cell)
    assert dense.end_velocities.shape == (32, 3)


def test_every_name_and_number_of_an_earlier_version_is_written_as_it_was(earlier):
    arrays, meta = read_npz(EARLIER)
    written = earlier.arrays()
    assert written.keys() == arrays.keys()
    assert all(written[name].tobytes() == array.tobytes() for name, array in arrays.items())
    assert json.loads(json.dumps(earlier.meta())) == meta


def test_what_is_written_is_read_again(earlier):
    again = GlassProduct.from_arrays(earlier.arrays(), earlier.meta())
    assert are_alike(again.dense, earlier.dense)
    assert are_alike(again.porous, earlier.porous)
    assert GlassProduct.from_arrays(earlier.dense.arrays(), earlier.dense.meta()).porous is None


def test_velocities_of_frames_are_there_if_the_study_keeps_them(earlier):
    assert not [name for name in earlier.arrays() if "frame_velocities" in name]
    assert earlier.dense.frame_velocities is None
    velocities = np.random.default_rng(1).normal(size=earlier.dense.frames.positions.shape)
    product = replace(earlier, dense=replace(earlier.dense, frame_velocities=velocities))
    again = GlassProduct.from_arrays(product.arrays(), product.meta())
    assert np.array_equal(again.dense.frame_velocities, velocities)
    assert again.porous.frame_velocities is None


def test_a_path_that_failed_before_its_first_frame_is_read_again(earlier):
    lost = {"ended": "melt: non-finite", "frames": no_frames(), "end": None, "end_velocities": None}
    path = replace(earlier.dense, **lost, frame_segment=np.empty(0, dtype=np.int64), frame_time_ps=np.empty(0))
    found = GlassProduct.from_arrays(*[GlassProduct(path).arrays(), GlassProduct(path).meta()]).dense
    assert are_alike(found, path)
    assert not found.is_finished
    assert (len(found.last), len(found.analysed_frames), found.segment_of_frames.tolist()) == (0, 0, [])


def test_a_porous_glass_is_judged_by_the_worse_of_its_path_and_that_of_the_dense_one(earlier):
    def judged(dense, porous):
        product = GlassProduct(
            replace(earlier.dense, n_judged=8, outside_share=dense),
            replace(earlier.porous, n_judged=3, outside_share=porous),
        )
        return product.judged_porous.n_judged, product.judged_porous.outside_share

    assert judged(0.5, 0.1) == (8, 0.5)
    assert judged(0.1, 0.5) == (3, 0.5)
    assert GlassProduct(earlier.dense).judged_porous is None


def test_no_other_module_knows_the_names_in_the_archive():
    package = ROOT.parent / "activelearn"
    names = re.compile(
        r"""["'](frames/|thermo/|final/|pore/|frame_segment|frame_time_ps|frame_velocities|final_velocities|-pore)"""
    )
    found = {path.name for path in package.rglob("*.py") if names.search(path.read_text())}
    assert found == {"glass_product.py"}
