"""Labels in and out of a ledger: formats, refusals with reasons, references that never mix in silence, kills."""

import shutil
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
from activelearn.frames import FrameLabel, Frames, by_composition, make_origin
from activelearn.store import Ledger, LedgerWriter
from activelearn.store.journal import frames_of
from activelearn.writing import write_deepmd, write_extxyz

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
            label = FrameLabel(float(part.energy[k]), part.forces[k], part.virial[k], started=1.0, finished=2.0)
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
    nothing = FrameLabel(np.nan, np.full((4, 3), np.nan), np.full((3, 3), np.nan), refused="SCFError: no convergence")
    LedgerWriter(tmp_path, "me").append(copper.structure_key(0, PBE["sha256"]), nothing, copper[0], PBE)
    (entry,) = opened(tmp_path).entries()
    assert (entry.refused, entry.formula) == ("SCFError: no convergence", "Cu4")
    assert frames_of([entry], [entry.read_numbers()]).positions.tobytes() == copper.positions[:1].tobytes()
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


def test_the_forces_on_fixed_atoms_come_in_as_they_were_computed(tmp_path, copper):
    """ASE gives them as zeros when it is asked for forces; the file has what the calculator stored."""
    from ase.constraints import FixAtoms
    from ase.io import write

    images = copper.to_ase()
    for image in images:
        image.set_constraint(FixAtoms([0]))
    write(tmp_path / "fixed.extxyz", images)
    assert not read_ase(tmp_path / "fixed.extxyz").get_forces()[0].any()
    exchange.import_labels(tmp_path / "l", [tmp_path / "fixed.extxyz"], PBE)
    found = _by_energy(opened(tmp_path / "l").structures(PBE["sha256"]))[0]
    assert np.allclose(found.forces, _by_energy([copper])[0].forces, rtol=0, atol=1e-7)
    assert np.abs(found.forces[:, 0]).max() > 0.01


def padded(folder):
    """Write copper of 4 and of 8 atoms as one mixed set: dpdata fills the small frames up with atoms of type -1."""
    import dpdata

    parts = two_compositions()
    systems = write_deepmd(parts, folder / "plain", ["Ag", "Cu"])
    together = dpdata.MultiSystems(*(dpdata.LabeledSystem(str(path), "deepmd/npy") for path in systems))
    together.to("deepmd/npy/mixed", str(folder / "mixed"), atom_numb_pad=8, prec=np.float64)
    (system,) = (path.parent for path in (folder / "mixed").rglob("type.raw"))
    assert (np.load(system / "set.000" / "real_atom_types.npy") == -1).sum() == 4 * 4
    return system, parts


def test_virtual_atoms_that_fill_up_a_mixed_set_are_dropped(tmp_path):
    system, parts = padded(tmp_path)
    n, tally = exchange.import_labels(tmp_path / "l", [system], PBE)
    assert (n, tally.counts) == (6, {})
    assert rows(opened(tmp_path / "l").structures(PBE["sha256"])) == rows(parts), "to the bit"


def put(name, change):
    """Return an edit of one array of a set."""

    def edit(system):
        path = system / "set.000" / f"{name}.npy"
        np.save(path, change(np.load(path)))

    return edit


def at(row, column, value):
    """Return a change of one number of an array."""

    def change(array):
        array[row, column] = value
        return array

    return change


def text(name, content):
    """Return an edit of one text file of a system."""
    return lambda system: (system / name).write_text(content)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (put("real_atom_types", at(0, 1, -1)), "type -1 before a real atom - expected it only at the end of a frame"),
        (put("real_atom_types", at(0, 1, -2)), "type -2 - expected 0 to 1, since type_map.raw has 2 names"),
        (put("real_atom_types", at(0, 1, 2)), "type 2 - expected 0 to 1, since type_map.raw has 2 names"),
        (put("real_atom_types", lambda x: x[:, :6]), r"shape \(6, 6\) - expected 6 frames of 8 whole numbers"),
        (put("real_atom_types", lambda x: x + 0.5), "expected 6 frames of 8 whole numbers"),
        (put("real_atom_types", lambda x: np.where(x < 0, np.nan, x)), "float64 of .* expected 6 frames of 8 whole"),
        (put("force", lambda x: x + 0.1), "forces on virtual atoms of type -1 - expected zeros"),
        (put("energy", lambda x: x[:4]), "energy.npy: 4 frames of 1 numbers - expected 6 of 1, as coord.npy has"),
        (put("box", lambda x: np.vstack([x, x])), "box.npy: 12 frames of 9 numbers - expected 6 of 9"),
        (put("coord", lambda x: x[:, :-1]), "coord.npy: 23 numbers per frame - expected three per atom"),
        (text("type.raw", "0 0 0 0"), "type.raw: types of 4 atoms, but .*coord.npy has positions of 8"),
        (text("type.raw", "0 " * 9), "type.raw: types of 9 atoms, but .*coord.npy has positions of 8"),
        (text("type.raw", "0 0 0 0 1 1 1 1"), "real_atom_types.npy: other types than in .*type.raw - expected zeros"),
        (text("type_map.raw", "Ag"), "type 1 - expected 0 to 0, since type_map.raw has 1 names"),
    ],
)
def test_arrays_that_contradict_each_other_are_refused_not_guessed(tmp_path, edit, sentence):
    system, _ = padded(tmp_path)
    edit(system)
    with pytest.raises(ConfigError, match=sentence) as refused:
        exchange.import_labels(tmp_path / "l", [system], PBE)
    assert str(refused.value).count(" - ") == 2
    assert not (tmp_path / "l").exists()


def test_a_set_without_the_types_that_another_set_of_the_system_has_is_refused(tmp_path):
    """All of its atoms would be of type 0: that is what type.raw of a mixed system says."""
    system, _ = padded(tmp_path)
    shutil.copytree(system / "set.000", system / "set.001")
    (system / "set.001" / "real_atom_types.npy").unlink()
    with pytest.raises(
        ConfigError, match=r"set.001: no real_atom_types.npy, which .*set.000 has - expected it in every"
    ):
        exchange.import_labels(tmp_path / "l", [system], PBE)
    assert not (tmp_path / "l").exists()


def test_a_frame_of_virtual_atoms_alone_is_no_label(tmp_path):
    system, parts = padded(tmp_path)
    put("real_atom_types", at(0, slice(None), -1))(system)
    put("force", at(0, slice(None), 0.0))(system)
    n, tally = exchange.import_labels(tmp_path / "l", [system], PBE)
    assert (n, tally.counts) == (sum(map(len, parts)) - 1, {"no atoms": 1})


@pytest.mark.parametrize("types", ["1 1 1", "1 1 1 1 1", "1 1 1 -1", "1 1 1 2"])
def test_the_types_of_a_plain_system_are_checked_too(tmp_path, copper, types):
    (system,) = write_deepmd([copper], tmp_path / "d", ["Ag", "Cu"])
    (system / "type.raw").write_text(types)
    with pytest.raises(ConfigError, match=r"type.raw: type"):
        exchange.import_labels(tmp_path / "l", [tmp_path / "d"], PBE)


def test_a_system_without_npy_sets_is_named(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "type.raw").write_text("0")
    with pytest.raises(ConfigError, match=r"d: contains no set.* and no coord.raw - expected deepmd/npy or"):
        exchange.import_labels(tmp_path / "l", [tmp_path / "d"], PBE)


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


def edited(folder, *pairs, name="OUTCAR"):
    """Write the recorded OUTCAR with these texts replaced, each of which stands in it."""
    text = OUTCAR.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return path


def imported(folder, path):
    """Return formulas and refusals of an import of one file into a new ledger."""
    n, tally = exchange.import_labels(folder / "l", [path], PBE)
    assert n or not (folder / "l").exists(), "nothing is published"
    return sorted(part.formula for part in opened(folder / "l").structures(PBE["sha256"])), tally.counts


LOOP_ENDS, N_ITERATIONS = "aborting loop because EDIFF is reached", 63
NELM = "NELM   =    120;"


def test_an_unconverged_step_of_vasp_is_never_a_label(tmp_path):
    path = edited(tmp_path, (LOOP_ENDS, "aborting loop EDIFF was not reached (unconverged)"))
    assert imported(tmp_path, path) == ([], {"SCF not converged": 1})


@pytest.mark.parametrize(
    ("nelm", "is_taken"),
    [
        (f"NELM   =    {N_ITERATIONS + 1};", True),
        (f"NELM   =    {N_ITERATIONS};", False),
        ("NELM   =     15;", False),
        (f"NELM = 15 ; NELM   =    {N_ITERATIONS + 1};", True),  # an echo of INCAR before it
        ("", False),  # VASP's own default, 60
    ],
)
def test_a_step_that_used_up_its_iterations_is_refused_whatever_vasp_prints(tmp_path, nelm, is_taken):
    """VASP 5.4.4 prints that EDIFF is reached when the loop ends at NELM, too."""
    path = edited(tmp_path, (NELM, nelm))
    assert LOOP_ENDS in path.read_text()
    assert imported(tmp_path, path) == ((["Ni18"], {}) if is_taken else ([], {"SCF not converged": 1}))


def test_iterations_that_fortran_has_no_room_for_are_counted(tmp_path):
    path = edited(tmp_path, (f"(  {N_ITERATIONS})", "(****)"), (NELM, f"NELM   =    {N_ITERATIONS};"))
    assert imported(tmp_path, path) == ([], {"SCF not converged": 1})


def test_runs_that_were_put_one_after_the_other_keep_their_atoms_and_their_nelm(tmp_path):
    """The third one was killed in its first loop, and a fourth came after it."""
    paths = [
        edited(tmp_path, name="1"),
        edited(tmp_path, ("PAW_PBE Ni 02Aug2007", "PAW_PBE Cu 22Jun2005"), name="2"),
        edited(tmp_path, name="3"),
        edited(tmp_path, (NELM, "NELM   =     15;"), name="4"),
    ]
    texts = [path.read_text() for path in paths]
    texts[2] = texts[2][: len(texts[2]) // 2]
    (tmp_path / "OUTCAR").write_text("".join(texts))
    assert imported(tmp_path, tmp_path / "OUTCAR") == (["Cu18", "Ni18"], {"SCF not converged": 1, "not finished": 1})


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_a_compressed_outcar_gives_the_same_label(tmp_path, suffix):
    import importlib

    packer = importlib.import_module({"gz": "gzip", "xz": "lzma"}.get(suffix, suffix))
    (tmp_path / f"OUTCAR.{suffix}").write_bytes(packer.compress(OUTCAR.read_bytes()))
    exchange.import_labels(tmp_path / "a", [OUTCAR], PBE)
    exchange.import_labels(tmp_path / "b", [tmp_path / f"OUTCAR.{suffix}"], PBE)
    assert opened(tmp_path / "a").keys() == opened(tmp_path / "b").keys()


def force_field_step(text):
    """Return what VASP prints of a step of its own force field: other numbers, marked as machine-learned."""
    body = text[text.index("  in kB  ") : text.index("  energy  without entropy")]
    body = body.replace("-4.29429", "-9.99999").replace("TOTAL-FORCE (eV/Angst)", "TOTAL-FORCE (eV/Angst) (ML)")
    body = body.replace("FREE ENERGIE", "ML FREE ENERGIE").replace(
        "energy   TOTEN  =       -68", "energy ML TOTEN = -77"
    )
    return "  ML FORCE on cell =-STRESS in cart. coord. units (eV/cell)\n" + body


def test_steps_of_a_force_field_that_vasp_learned_on_the_fly_are_no_labels(tmp_path):
    """One before the electronic loop, one within it, and one after it, as learning runs have them."""
    plain = OUTCAR.read_text()
    exchange.import_labels(tmp_path / "plain", [OUTCAR], PBE)
    end = plain.index("\n", plain.index("energy  without entropy"))
    start = plain.rindex("\n", 0, plain.index("Iteration    1(   1)"))
    within = plain.rindex("\n", 0, plain.index("Iteration    1(   9)"))
    step = "\n" + force_field_step(plain)
    path = tmp_path / "OUTCAR"
    path.write_text(plain[:start] + step + plain[start:within] + step + plain[within:end] + step + plain[end:])
    n, tally = exchange.import_labels(tmp_path / "l", [path], PBE)
    assert (n, tally.counts) == (1, {"of a machine-learned force field": 3})
    ours, theirs = (opened(tmp_path / name).structures(PBE["sha256"]) for name in ("l", "plain"))
    assert rows(ours) == rows(theirs)
    path.write_text(plain[:start] + step + step)
    assert imported(tmp_path / "only", path) == ([], {"of a machine-learned force field": 2})


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (("ISIF   =      2", "ISIF   =      1"), "only the trace of the stress"),
        (("TOTAL-FORCE (eV/Angst)", ""), "no forces"),
    ],
)
def test_a_step_without_the_whole_stress_or_the_forces_is_refused_and_says_so(tmp_path, edit, reason):
    assert imported(tmp_path, edited(tmp_path, edit)) == ([], {reason: 1})


@pytest.mark.parametrize(
    "edit", [("  in kB   ", "  in bar  "), ("    -4.50342     0.50047", "    ************ 0.50047")]
)
@pytest.mark.filterwarnings("ignore:Found badly formatted stress line")
def test_a_step_of_which_no_stress_is_printed_is_taken_without_and_says_so(tmp_path, edit):
    n, tally = exchange.import_labels(tmp_path / "l", [edited(tmp_path, edit)], PBE)
    assert (n, tally.counts, tally.lacking) == (1, {}, {"no stress": 1})
    (part,) = opened(tmp_path / "l").structures(PBE["sha256"])
    assert part.virial is None


def test_an_outcar_that_breaks_off_has_no_last_step(tmp_path):
    text = OUTCAR.read_text()
    whole, end = tmp_path / "OUTCAR", text.index("free  energy   TOTEN")
    whole.write_text(text + text[:end])
    assert imported(tmp_path / "a", whole) == (["Ni18"], {"not finished": 1})
    whole.write_text(text[:end])
    with pytest.raises(ConfigError, match=r"OUTCAR: contains no finished ionic step - expected an OUTCAR of a run"):
        exchange.import_labels(tmp_path / "l", [whole], PBE)


def test_a_run_that_was_killed_within_its_energies_hides_nothing_of_the_next(tmp_path):
    """The head of the next run stands where its energies would: it is read as the head that it is."""
    killed = edited(tmp_path, name="killed").read_text()
    following = edited(tmp_path, ("PAW_PBE Ni 02Aug2007", "PAW_PBE Cu 22Jun2005"), name="next").read_text()
    ends = [
        killed.index("FREE ENERGIE") + 60,
        killed.index("free  energy   TOTEN") + 50,
        killed.index("  energy  without"),
    ]
    for k, end in enumerate(ends):
        (tmp_path / "OUTCAR").write_text(killed[:end] + following)
        assert imported(tmp_path / str(k), tmp_path / "OUTCAR") == (["Cu18"], {"not finished": 1})


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
    reasons = ("no forces", "no energy", "not finite", "left-handed cell", "not periodic", "twice in these files")
    assert n == 2
    assert tally.counts == dict.fromkeys(reasons, 1)
    assert all(
        line.startswith("1 frame not taken: ") and " - expected " in line and line.count(" - ") == 2
        for line in tally.sentences()[:-1]
    )
    assert f"no forces (first: {path} frame 2) - expected energy and forces" in tally.sentences()[0]
    assert tally.sentences()[-1].startswith(f"1 label with no stress (first: {path} frame 1): ")


def test_a_second_label_of_a_structure_does_not_replace_the_first(tmp_path, copper):
    exchange.import_labels(tmp_path, [_file(tmp_path, [copper])], PBE)
    shifted = replace(copper, energy=copper.energy + 1.0)
    n, tally = exchange.import_labels(tmp_path, [_file(tmp_path, [shifted])], PBE)
    assert (n, tally.counts) == (0, {"in the ledger with another energy": 3})
    assert sorted(_by_energy(opened(tmp_path).structures(PBE["sha256"]))[0].energy) == sorted(copper.energy)


def test_one_damaged_file_stops_the_import_before_anything_is_published(tmp_path, copper):
    good, bad = _file(tmp_path, [copper]), tmp_path / "bad.extxyz"
    bad.write_text("no\nstructure\n")
    with pytest.raises(ConfigError, match=r"bad.extxyz: cannot be read as extxyz.* nothing was imported"):
        exchange.import_labels(tmp_path / "l", [good, bad], PBE)
    assert not (tmp_path / "l").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.extxyz", "no such file"),
        ("notes.txt", "format not recognised"),
        ("empty", "contains no type.raw"),
    ],
)
def test_files_that_are_no_labels_are_named(tmp_path, name, said):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=said):
        exchange.import_labels(tmp_path / "l", [tmp_path / name], PBE)


def test_deepmd_systems_without_virial_are_taken_without_and_those_without_names_refused(tmp_path, copper):
    (system,) = write_deepmd([copper], tmp_path / "d", ["Cu"])
    (system / "set.000" / "virial.npy").unlink()
    assert exchange.import_labels(tmp_path / "a", [tmp_path / "d"], PBE)[1].lacking == {"no stress": 3}
    np.save(system / "set.000" / "virial.npy", np.zeros((3, 9)))
    (lacking,) = exchange.import_labels(tmp_path / "b", [tmp_path / "d"], PBE)[1].lacking.items()
    assert lacking == ("zeros for a stress, but not for the forces", 3)
    (system / "type_map.raw").unlink()
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
    with pytest.raises(ConfigError, match="expected the labels of one - give --reference, one of: "):
        exchange.one_reference(ledger, None)
    with pytest.raises(ConfigError, match="starts with 'ffffffff'"):
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

    def killed(parts, path, dialect):
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
    [("fsync", 1, 0), ("fsync", 3, 0), ("fsync", 5, 0), ("link", 3, 0), ("fsync", 6, 3)],
    ids=["format written", "reference written", "labels written", "labels durable", "labels published"],
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
