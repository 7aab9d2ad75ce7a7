"""Labels in and out of a ledger: formats, refusals with reasons, references that never mix in silence, kills."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.io import read as read_ase
from campaigns import TESTS, environment
from conftest import rattled_copper

from activelearn import exchange
from activelearn.errors import ConfigError
from activelearn.frames import Frames, Label, by_composition, make_origin, write_deepmd, write_extxyz
from activelearn.store import Ledger, LedgerWriter

PBE = exchange.declared("functional=PBE,includes_dispersion=false,code=VASP-6.4.2")
OTHER = exchange.declared("functional=PBE,includes_dispersion=true,code=VASP-6.4.2")
OUTCAR = Path(ase.__file__).parent / "test/testdata/vasp/OUTCAR_example_1"


def opened(folder):
    ledger = Ledger(folder)
    ledger.refresh()
    return ledger


def two_compositions():
    """Copper of 4 and of 8 atoms, two trajectories of the first."""
    small, large = rattled_copper(4), rattled_copper(2, random_seed=1, repeat=(2, 1, 1))
    walks = np.array(["w0", "w1", "w0", "w1"])
    return [replace(small, origin=make_origin(4, walk=walks)), replace(large, origin=make_origin(2, walk="w2"))]


def rows(parts):
    """One tuple of exact bytes per frame, sorted: what is compared, whatever the order."""
    return sorted(
        (
            part.symbols,
            *(getattr(part, name)[k].tobytes() for name in ("cell", "positions", "energy", "forces", "virial")),
        )
        for part in parts
        for k in range(len(part))
    )


# --- the ledger describes itself --------------------------------------------------------------------------------------


def written(folder, parts, identity=PBE, prefix="me"):
    writer = LedgerWriter(folder, prefix)
    for part in parts:
        for k in range(len(part)):
            label = Label(float(part.energy[k]), part.forces[k], part.virial[k], started=1.0, finished=2.0)
            writer.append(part.structure_key(k, identity["sha256"]), label, part[k], identity)
    writer.close()


def test_structures_labels_and_references_come_back_to_the_bit(tmp_path):
    parts = two_compositions()
    written(tmp_path, parts)
    ledger = opened(tmp_path)
    assert rows(ledger.structures(PBE["sha256"])) == rows(parts)
    assert ledger.references() == {PBE["sha256"]: PBE}
    assert ledger.structures(OTHER["sha256"]) == []
    assert [path.name for path in (tmp_path / "references").iterdir()] == [f"{PBE['sha256'][:16]}.json"]
    entry = ledger.entries()[0]
    assert (entry.key, entry.formula[:2], entry.started) == (ledger.keys()[0], "Cu", 1.0)


def test_structures_are_grouped_by_trajectory_and_do_not_depend_on_who_wrote_when(tmp_path):
    parts = two_compositions()
    written(tmp_path / "a", parts)
    written(tmp_path / "b", [parts[1], parts[0][[3, 0]]])
    written(tmp_path / "b", [parts[0][[2, 1]]])
    opened(tmp_path / "b").compact("me")
    one, two = (opened(tmp_path / name).structures(PBE["sha256"]) for name in "ab")
    assert sorted(len(part) for part in one) == [2, 2, 2]
    assert [part.origin["walk"].tolist() for part in one] == [part.origin["walk"].tolist() for part in two]
    for a, b in zip(one, two, strict=True):
        assert a.positions.tobytes() == b.positions.tobytes()
        assert (a.origin["walk"] == f"ledger-{a.structure_key(0, PBE['sha256'])[:12]}").all()


def test_a_refused_label_keeps_its_structure_and_is_never_exported(tmp_path, copper):
    nothing = Label(np.nan, np.full((4, 3), np.nan), np.full((3, 3), np.nan), refused="SCFError: no convergence")
    LedgerWriter(tmp_path, "me").append(copper.structure_key(0, PBE["sha256"]), nothing, copper[0], PBE)
    (entry,) = opened(tmp_path).entries()
    assert (entry.refused, entry.formula) == ("SCFError: no convergence", "Cu4")
    assert entry.read_frame().positions.tobytes() == copper.positions[:1].tobytes()
    with pytest.raises(ConfigError, match=r"no accepted label of VASP-6.4.2 \(PBE\) has its structure"):
        exchange.export_labels(opened(tmp_path), tmp_path / "x.npz", PBE)


def test_records_of_an_early_ledger_are_read_and_counted_but_have_no_structure(tmp_path, copper):
    """The bytes of such a record, as the first version of the ledger wrote them."""
    early = TESTS / "data" / "ledger" / "early.seg"
    (tmp_path / "early.seg").write_bytes(early.read_bytes())
    written(tmp_path, [copper])
    ledger = opened(tmp_path)
    assert len(ledger) == 5
    assert ledger["b" * 64].refused == "SCFError: no convergence"
    label = ledger["a" * 64]
    assert (label.energy, label.forces.tolist(), label.virial.tolist(), label.finished) == (
        -1.5,
        [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
        np.eye(3).tolist(),
        2.0,
    )
    assert [entry.formula for entry in ledger.entries()].count("") == 2
    assert rows(ledger.structures(PBE["sha256"])) == rows([copper])
    assert ledger.structures("") == []


# --- round trips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "exactly"), [("x.npz", True), ("deepmd", True), ("x.extxyz", False)])
def test_what_goes_out_comes_in_again(tmp_path, name, exactly):
    parts = two_compositions()
    assert exchange.import_labels(tmp_path / "a", [_file(tmp_path, parts)], PBE)[0] == 6
    assert exchange.export_labels(opened(tmp_path / "a"), tmp_path / name, PBE) == 6
    n, tally = exchange.import_labels(tmp_path / "b", [tmp_path / name], None if name == "x.npz" else PBE)
    assert (n, tally.counts) == (6, {})
    found = opened(tmp_path / "b").structures(PBE["sha256"])
    ours = opened(tmp_path / "a").structures(PBE["sha256"])
    if exactly:
        assert rows(found) == rows(ours)
    for a, b in zip(_by_energy(ours), _by_energy(found), strict=True):
        for quantity in ("energy", "positions", "cell", "forces", "virial"):
            assert np.allclose(getattr(a, quantity), getattr(b, quantity), rtol=0, atol=1e-8), quantity
    if name != "deepmd":  # trajectories stay apart, except in deepmd/npy, which has no place for them
        assert sorted(len(part) for part in found) == [2, 2, 2]
    n, tally = exchange.import_labels(tmp_path / "b", [tmp_path / name], PBE)
    assert (n, tally.counts) == (0, {"in the ledger already": 6})


def _file(folder, parts):
    path = folder / f"{len(list(folder.iterdir()))}.extxyz"
    write_extxyz(parts, path)
    return path


def _by_energy(parts):
    joined = by_composition(parts)
    return [part[np.argsort(part.energy)] for part in sorted(joined, key=lambda part: part.n_atoms)]


def test_deepmd_systems_of_mixed_composition_are_read(tmp_path, copper):
    """deepmd/npy/mixed: the types of each frame stand beside it (written by dpdata itself)."""
    import dpdata

    alloy = replace(copper, symbols=("Ag", "Cu", "Cu", "Cu"))
    for k, part in enumerate((copper, alloy)):
        write_deepmd([part], tmp_path / str(k), ["Ag", "Cu"])
    systems = [dpdata.LabeledSystem(str(next(p)), "deepmd/npy") for p in ((tmp_path / k).iterdir() for k in "01")]
    dpdata.MultiSystems(*systems).to("deepmd/npy/mixed", str(tmp_path / "mixed"))
    n, tally = exchange.import_labels(tmp_path / "l", [tmp_path / "mixed"], PBE)
    assert (n, tally.counts) == (6, {})
    parts = opened(tmp_path / "l").structures(PBE["sha256"])
    assert sorted(part.formula for part in parts) == ["Ag1Cu3", "Cu4"]
    (pure,) = (part for part in parts if part.formula == "Cu4")
    assert np.allclose(_by_energy([pure])[0].forces, _by_energy([copper])[0].forces, rtol=0, atol=1e-5)


def test_an_outcar_gives_the_free_energy_and_the_stress_with_our_sign(tmp_path):
    """A real run of VASP on 18 Ni atoms, from the tests of ASE; the numbers are read off the file by hand."""
    n, tally = exchange.import_labels(tmp_path, [OUTCAR], PBE)
    assert (n, tally.counts) == (1, {})
    (part,) = opened(tmp_path).structures(PBE["sha256"])
    text = OUTCAR.read_text()
    energies = [float(line.split()[4]) for line in text.splitlines() if "free  energy   TOTEN" in line]
    assert part.energy[0] == energies[-1]
    assert part.energy[0] != read_ase(OUTCAR, format="vasp-out").calc.results["energy"], (
        "not extrapolated to sigma -> 0"
    )
    pressure = [float(x) for x in text.split("in kB")[1].split()[:6]]  # VASP: xx yy zz xy yz zx, positive if squeezed
    xx, yy, zz, xy, yz, zx = np.array(pressure) * part.volume[0] / 1602.1766
    assert np.allclose(part.virial[0], [[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]], rtol=1e-6)
    assert abs(part.forces[0].sum(axis=0)).max() < 0.1


def test_an_unconverged_step_of_vasp_is_never_a_label(tmp_path):
    text = OUTCAR.read_text().replace("aborting loop because EDIFF is reached", "aborting loop EDIFF was not reached")
    path = tmp_path / "OUTCAR.1"
    path.write_text(text)
    n, tally = exchange.import_labels(tmp_path / "l", [path], PBE)
    assert (n, tally.counts) == (0, {"SCF not converged": 1})
    assert not (tmp_path / "l").exists(), "nothing is published"


# --- refusals ---------------------------------------------------------------------------------------------------------


def broken_frames(folder):
    """An extxyz of one good frame and one of each kind of trouble."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    images = rattled_copper(8).to_ase()

    def without(k, *names):
        results = {key: value for key, value in images[k].calc.results.items() if key not in names}
        images[k].calc = SinglePointCalculator(images[k], **results)

    without(1, "stress")
    without(2, "forces")
    without(3, "energy")
    images[4].calc.results["forces"][0, 0] = np.nan
    images[5].set_cell(images[5].cell[[1, 0, 2]])
    images[6].pbc = (True, True, False)
    images.append(images[0])
    write(folder / "broken.extxyz", images[:7] + images[8:])
    return folder / "broken.extxyz"


def test_every_frame_that_is_not_taken_is_counted_with_its_reason_and_place(tmp_path):
    path = broken_frames(tmp_path)
    n, tally = exchange.import_labels(tmp_path / "l", [path], PBE)
    reasons = (
        "no stress", "no forces", "no energy", "not finite", "left-handed cell", "not periodic", "twice in these files"
    )  # fmt: skip
    assert n == 1
    assert tally.counts == dict.fromkeys(reasons, 1)
    assert all(
        line.startswith("1 frame not taken: ") and " - wanted " in line and line.count(" - ") == 2
        for line in tally.sentences()
    )
    assert f"no stress (first: {path} frame 1) - wanted the stress" in tally.sentences()[0]


def test_a_second_label_of_a_structure_does_not_replace_the_first(tmp_path, copper):
    exchange.import_labels(tmp_path, [_file(tmp_path, [copper])], PBE)
    shifted = replace(copper, energy=copper.energy + 1.0)
    n, tally = exchange.import_labels(tmp_path, [_file(tmp_path, [shifted])], PBE)
    assert (n, tally.counts) == (0, {"in the ledger with another energy": 3})
    assert sorted(_by_energy(opened(tmp_path).structures(PBE["sha256"]))[0].energy) == sorted(copper.energy)


def test_one_damaged_file_stops_the_import_before_anything_is_published(tmp_path, copper):
    good, bad = _file(tmp_path, [copper]), tmp_path / "bad.extxyz"
    bad.write_text("4\nLattice=broken\nCu 0 0\n")
    with pytest.raises(ConfigError, match=r"bad.extxyz: cannot be read as extxyz .* nothing was imported"):
        exchange.import_labels(tmp_path / "l", [good, bad], PBE)
    assert not (tmp_path / "l").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.extxyz", "no such file"),
        ("notes.txt", "the name does not tell the format"),
        ("empty", "no type.raw in it"),
    ],
)
def test_files_that_are_no_labels_are_named(tmp_path, name, said):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=said):
        exchange.import_labels(tmp_path / "l", [tmp_path / name], PBE)


def test_deepmd_systems_without_virial_or_names_are_refused(tmp_path, copper):
    (system,) = write_deepmd([copper], tmp_path / "d", ["Cu"])
    (system / "set.000" / "virial.npy").unlink()
    assert exchange.import_labels(tmp_path / "l", [tmp_path / "d"], PBE)[1].counts == {"no stress": 3}
    (system / "type_map.raw").unlink()
    np.save(system / "set.000" / "virial.npy", np.zeros((3, 9)))
    assert exchange.import_labels(tmp_path / "l", [tmp_path / "d"], PBE)[1].counts == {"no element": 3}


# --- references -------------------------------------------------------------------------------------------------------


def test_a_declaration_says_functional_dispersion_and_code():
    assert {key: PBE[key] for key in ("functional", "includes_dispersion", "code")} == {
        "functional": "PBE",
        "includes_dispersion": False,
        "code": "VASP-6.4.2",
    }
    again = exchange.declared("code=VASP-6.4.2, includes_dispersion=False, functional=PBE")
    assert again == PBE, "the order and the spaces do not matter"
    assert exchange.declared("functional=PBE,includes_dispersion=false,code=VASP-6.4.2,encut_eV=400") != PBE


@pytest.mark.parametrize("text", ["", "functional=PBE", "functional=PBE,includes_dispersion=maybe,code=x", "a,b,c"])
def test_a_poor_declaration_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="for example: --declare functional=PBE,includes_dispersion=true,code=VASP"):
        exchange.declared(text)


def test_labels_of_nobody_and_of_two_references_are_refused(tmp_path, copper):
    path = _file(tmp_path, [copper])
    with pytest.raises(ConfigError, match="does not say what labelled it"):
        exchange.import_labels(tmp_path / "l", [path], None)
    exchange.import_labels(tmp_path / "l", [path], PBE)
    exchange.export_labels(opened(tmp_path / "l"), tmp_path / "x.npz", PBE)
    with pytest.raises(
        ConfigError, match=r"labelled by VASP-6.4.2 \(PBE\).* not by VASP-6.4.2 \(PBE with dispersion\)"
    ):
        exchange.import_labels(tmp_path / "l", [tmp_path / "x.npz"], OTHER)


def test_an_export_names_one_reference(tmp_path, copper):
    path = _file(tmp_path, [copper])
    for identity in (PBE, OTHER):
        assert exchange.import_labels(tmp_path / "l", [path], identity)[0] == 3, "the same structures, another key"
    ledger = opened(tmp_path / "l")
    with pytest.raises(ConfigError, match="wanted the labels of one - give --reference, one of: "):
        exchange.one_reference(ledger, None)
    with pytest.raises(ConfigError, match="begins with 'ffffffff'"):
        exchange.one_reference(ledger, "ffffffff")
    assert exchange.one_reference(ledger, OTHER["sha256"][:8]) == OTHER


def test_nothing_is_overwritten_by_an_export_and_a_failed_one_leaves_nothing(tmp_path, copper, monkeypatch):
    exchange.import_labels(tmp_path / "l", [_file(tmp_path, [copper])], PBE)
    ledger = opened(tmp_path / "l")
    (tmp_path / "x.npz").touch()
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        exchange.export_labels(ledger, tmp_path / "x.npz", PBE)
    with pytest.raises(ConfigError, match=r"cannot be written as \.pdf"):
        exchange.export_labels(ledger, tmp_path / "x.pdf", PBE)

    def killed(parts, path):
        path.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(exchange, "write_extxyz", killed)
    with pytest.raises(KeyboardInterrupt):
        exchange.export_labels(ledger, tmp_path / "y.extxyz", PBE)
    assert not list(tmp_path.glob("*y.extxyz*"))


# --- kills ------------------------------------------------------------------------------------------------------------

#: Imports a file and, just before the n-th call of a function of `os`, is killed.
IMPORT = """
import os, signal, sys
from pathlib import Path
from activelearn import exchange

folder, path, name, n = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
real, calls = getattr(os, name), []

def deadly(*arguments):
    calls.append(1)
    if len(calls) == n:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)

setattr(os, name, deadly)
identity = exchange.declared("functional=PBE,includes_dispersion=false,code=VASP-6.4.2")
exchange.import_labels(folder, [path], identity)
"""


@pytest.mark.parametrize(
    ("name", "n", "n_left"),
    [("fsync", 1, 0), ("fsync", 3, 0), ("link", 2, 0), ("fsync", 4, 3)],
    ids=["reference written", "labels written", "labels durable", "labels published"],
)
def test_a_kill_in_an_import_leaves_all_or_nothing_and_a_second_does_the_rest(tmp_path, copper, name, n, n_left):
    folder, path = tmp_path / "l", _file(tmp_path, [copper])
    command = [sys.executable, "-c", IMPORT, str(folder), str(path), name, str(n)]
    done = subprocess.run(command, env=environment(), check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert len(opened(folder)) == n_left
    imported, tally = exchange.import_labels(folder, [path], PBE)
    assert (imported, sum(tally.counts.values())) == (3 - n_left, n_left)
    assert rows(opened(folder).structures(PBE["sha256"])) == rows([Frames.from_ase(read_ase(path, ":"))])
    assert not [file for file in folder.rglob(".*") if file.is_file()], "nor is anything left lying about"


def test_many_imports_make_few_files(tmp_path):
    for k in range(4):
        exchange.import_labels(tmp_path / "l", [_file(tmp_path, [rattled_copper(2, random_seed=k)])], PBE)
    assert len(list((tmp_path / "l").glob("*.seg"))) == 1
    assert len(opened(tmp_path / "l")) == 8
