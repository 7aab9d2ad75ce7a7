"""Every engine against itself and against the others: virial = -dE/dstrain, forces, and the force deviation."""

import importlib.util

import numpy as np
import pytest
from ase.build import bulk
from campaigns import SMALL, TINY, end_sessions

from activelearn.config import Condition, Label, Machine, load_campaign
from activelearn.engines import deepmd, lammps, process, reference
from activelearn.engines.trainers.deepmd import TRAINER, training
from activelearn.frames import Frames
from activelearn.select.window import force_deviation

pytestmark = pytest.mark.engines
#: Conversion of the virial's pressure from eV/Å^3 to LAMMPS' bar.
BAR = 1.602176634e6
STRAIN = 1.0e-4

FORCES_INPUT = """
units           metal
boundary        p p p
atom_style      atomic
box             tilt large
read_data       conf.lmp
neighbor        1.0 bin
pair_style      deepmd {model}
pair_coeff      * * {types}
thermo_style    custom step temp pe press vol pxx pyy pzz pxy pxz pyz
thermo_modify   format float %.15g
dump            forces all custom 1 forces.lammpstrj id fx fy fz
dump_modify     forces sort id format float %.17g
run             0
"""


def rattled(symbols="Cu", n_atoms=32) -> Frames:
    """One low-symmetry frame: a sheared, rattled cell, in LAMMPS' orientation."""
    rng = np.random.default_rng(4)
    atoms = bulk("Cu", cubic=True).repeat(2) if symbols == "Cu" else bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.set_cell(atoms.cell[:] @ (np.eye(3) + np.tril(rng.uniform(-0.03, 0.03, (3, 3)))), scale_atoms=True)
    atoms.positions += rng.uniform(-0.1, 0.1, atoms.positions.shape)
    return Frames.from_ase([atoms])


def strained(frame: Frames, i: int, j: int, epsilon: float) -> Frames:
    """Return the frame under the symmetric strain epsilon on (i, j): rows of cell and positions times (1 + strain)."""
    strain = np.eye(3)
    strain[i, j] += epsilon / 2.0
    strain[j, i] += epsilon / 2.0
    return Frames(frame.symbols, frame.cell @ strain, frame.positions @ strain, frame.pbc)


def virial_by_strain(frame: Frames, energies) -> np.ndarray:
    """Return -dE/dstrain by central differences; `energies` gives the energies of a list of frames."""
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    frames = [strained(frame, i, j, sign * STRAIN) for i, j in pairs for sign in (1.0, -1.0)]
    found = np.asarray(energies(frames)).reshape(-1, 2)
    virial = np.zeros((3, 3))
    for (i, j), (plus, minus) in zip(pairs, found, strict=True):
        virial[i, j] = virial[j, i] = -(plus - minus) / (2.0 * STRAIN)
    return virial


def forces_by_displacement(frame: Frames, energies, atoms=(0, 5), step=1.0e-4) -> np.ndarray:
    """Return -dE/dx of some atoms by central differences, (n, 3)."""
    frames = []
    for atom in atoms:
        for axis in range(3):
            for sign in (1.0, -1.0):
                moved = frame.positions.copy()
                moved[0, atom, axis] += sign * step
                frames.append(Frames(frame.symbols, frame.cell, moved, frame.pbc))
    found = np.asarray(energies(frames)).reshape(-1, 2)
    return (-(found[:, 0] - found[:, 1]) / (2.0 * step)).reshape(len(atoms), 3)


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    process.allow_engines()
    yield process.Slot(Machine(slots=1, **SMALL), tmp_path_factory.mktemp("logs"))
    end_sessions()


@pytest.fixture(scope="module")
def models(undisturbed):
    store = undisturbed[0]
    return [store.folder / member.model for member in store.iterations()[-1].ensemble.members]


def test_emt_virial_and_forces_are_those_of_its_energy(slot):
    settings = load_campaign(TINY).label.reference
    frame = rattled()
    found = reference.label(settings, frame, slot)

    def energies(frames):
        return [reference.label(settings, one, slot).energy for one in frames]

    assert found.virial == pytest.approx(virial_by_strain(frame, energies), abs=2e-4)
    assert np.abs(found.virial).max() > 1.0
    assert found.forces[[0, 5]] == pytest.approx(forces_by_displacement(frame, energies), abs=1e-5)
    assert found.virial == pytest.approx(found.virial.T, abs=1e-9)


def test_a_compressed_crystal_has_a_positive_virial(slot):
    """The house: virial = -V * stress of ASE, so -dE/dstrain. Compression: expanding lowers the energy."""
    settings = load_campaign(TINY).label.reference
    atoms = bulk("Cu", cubic=True, a=3.4)
    found = reference.label(settings, Frames.from_ase([atoms]), slot)
    assert (np.diag(found.virial) > 0).all()
    atoms = bulk("Cu", cubic=True, a=3.8)
    found = reference.label(settings, Frames.from_ase([atoms]), slot)
    assert (np.diag(found.virial) < 0).all()


def test_deepmd_virial_and_forces_are_those_of_its_energy(slot, models, tmp_path):
    frame = rattled()
    (found,) = training.evaluate(tmp_path, models[0], [frame], slot)

    def energies(frames):
        joined = Frames.concatenate(frames)
        return training.evaluate(tmp_path, models[0], [joined], slot)[0].energy

    assert found.virial[0] == pytest.approx(virial_by_strain(frame, energies), abs=2e-4)
    assert np.abs(found.virial[0]).max() > 1.0
    assert found.forces[0][[0, 5]] == pytest.approx(forces_by_displacement(frame, energies), abs=1e-5)


def test_lammps_has_the_energy_forces_and_stress_of_the_model(slot, models, tmp_path):
    frame = rattled()
    lammps.write_data(tmp_path / "conf.lmp", frame, ["Cu"])
    (tmp_path / "in.lammps").write_text(FORCES_INPUT.format(model=models[0], types="Cu"))
    job = {"job": "lammps", "input": "in.lammps"}
    assert deepmd.run_job(job, tmp_path, "lammps.out", slot, timeout_s=120.0) == 0
    lines = (tmp_path / "log.lammps").read_text().splitlines()
    head = next(k for k, line in enumerate(lines) if line.split()[:2] == ["Step", "Temp"])
    values = dict(zip(lines[head].split(), map(float, lines[head + 1].split()), strict=True))
    forces = np.loadtxt((tmp_path / "forces.lammpstrj").read_text().splitlines()[9:])[:, 1:]
    (found,) = training.evaluate(tmp_path, models[0], [frame], slot)
    assert values["PotEng"] == pytest.approx(found.energy[0], abs=1e-8)
    assert forces == pytest.approx(found.forces[0], abs=1e-8)
    pressure = np.array([values[name] for name in ("Pxx", "Pyy", "Pzz", "Pxy", "Pxz", "Pyz")])
    v = (
        found.virial[0] / frame.volume[0] * BAR
    )  # LAMMPS' pressure is the virial over the volume: no kinetic part at 0 K
    assert pressure == pytest.approx([v[0, 0], v[1, 1], v[2, 2], v[0, 1], v[0, 2], v[1, 2]], rel=1e-5, abs=1.0)


def test_the_force_deviation_is_that_of_lammps_on_a_real_walk(slot, models, tmp_path):
    """Ours, from the members' forces on the dumped frames, against model_devi.out of the walk itself."""
    campaign = load_campaign(TINY)
    start = rattled()
    lammps.write_data(tmp_path / "conf.lmp", start, ["Cu"])
    drive = lammps.Drive(Condition(300.0), velocity_seed=11)
    text = lammps.walk_input(
        campaign.explore.stages[0],
        drive,
        TRAINER.pair([str(model) for model in models], campaign.type_map, campaign.explore.stages[0].every),
    )
    walk = lammps.run_walk(tmp_path, text, start.symbols, slot)
    assert walk.ended == "finished"
    assert walk.step.tolist() == list(range(0, 21, 2))
    frames = Frames(start.symbols, walk.cell, walk.positions)
    predicted = [training.evaluate(tmp_path, model, [frames], slot)[0] for model in models]
    ours = force_deviation(np.array([one.forces for one in predicted]))
    assert ours == pytest.approx(walk.max_devi_f, rel=2e-5)
    assert walk.max_devi_f.min() > 1e-3
    assert predicted[0].energy == pytest.approx(walk.potential_energy, abs=1e-5), "the first model drives the walk"
    assert not np.allclose(predicted[1].energy, walk.potential_energy, atol=1e-5)


def test_a_rotated_cell_means_the_same_to_lammps(slot, models, tmp_path):
    """A cell that is not lower triangular is rotated for LAMMPS; the energy does not change."""
    frame = rattled()
    rng = np.random.default_rng(9)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.linalg.det(q))
    turned = Frames(frame.symbols, frame.cell @ q, frame.positions @ q, frame.pbc)
    cell, positions = lammps.lower_triangular(turned.cell[0], turned.positions[0])
    assert cell == pytest.approx(frame.cell[0], abs=1e-9)
    back = Frames(frame.symbols, cell[None], positions[None])
    one, two = training.evaluate(tmp_path, models[0], [frame, back], slot)
    assert one.energy == pytest.approx(two.energy, abs=1e-9)


@pytest.mark.skipif(importlib.util.find_spec("sevenn") is None, reason="pip install 'activelearn[local]' (sevenn)")
def test_sevennet_virial_and_forces_are_those_of_its_energy(slot):
    """Single precision: the differences are taken wider and trusted less."""
    settings = Label.model_validate(load_campaign("quickstart").label.model_dump()).reference
    frame = rattled("NaCl")
    found = reference.label(settings, frame, slot)

    def virial_entry(i, j, epsilon):
        pair = [reference.label(settings, strained(frame, i, j, s * epsilon), slot).energy for s in (1.0, -1.0)]
        return -(pair[0] - pair[1]) / (2.0 * epsilon)

    for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)):
        assert found.virial[i, j] == pytest.approx(virial_entry(i, j, 5e-3), abs=0.05), (i, j)
    assert np.abs(found.virial).max() > 0.3

    def energies(frames):
        return [reference.label(settings, one, slot).energy for one in frames]

    assert found.forces[[0, 5]] == pytest.approx(forces_by_displacement(frame, energies, step=0.01), abs=0.02)
