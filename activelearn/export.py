"""Export: the models and the data of a campaign, with inputs that run as they are, checksums and a model card."""

from __future__ import annotations

import shutil
from pathlib import Path

from activelearn import loop, starts
from activelearn.config import Campaign
from activelearn.engines import lammps
from activelearn.errors import ConfigError
from activelearn.frames import write_deepmd, write_extxyz
from activelearn.records import Ensemble, Iteration
from activelearn.store import Store
from activelearn.store.files import file_sha256, unique_suffix

_IN_LAMMPS = """# Molecular dynamics with the exported force field; run it in this folder with:  lmp -in in.lammps
# The deviation of the four members goes to model_devi.out: frames above {f_hi:g} eV/A are outside what was learnt.
units           metal
boundary        p p p
atom_style      atomic
box             tilt large
read_data       start.lmp
neighbor        1.0 bin
pair_style      deepmd {models} out_file model_devi.out out_freq 20
pair_coeff      * * {types}
velocity        all create {temperature:g} 12345 dist gaussian mom yes
fix             dynamics all nvt temp {temperature:g} {temperature:g} 0.1
timestep        {timestep:g}
thermo          20
thermo_style    custom step temp pe press vol
dump            walk all custom 20 walk.lammpstrj id type element x y z
dump_modify     walk sort id element {types}
run             100
"""

_ASE_EXAMPLE = '''"""The force field in ASE: energy, forces, stress and ten steps. Run: python ase_example.py"""

from pathlib import Path

from ase import units
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from deepmd.calculator import DP

here = Path(__file__).parent
atoms = read(here / "start.extxyz")
atoms.calc = DP(model=str(here / "{model}"))
print(f"energy {{atoms.get_potential_energy():.6f}} eV, largest force {{abs(atoms.get_forces()).max():.4f}} eV/Å")
print("stress (eV/Å^3, ASE's sign):", atoms.get_stress())

MaxwellBoltzmannDistribution(atoms, temperature_K={temperature:g})
dynamics = Langevin(atoms, timestep={timestep:g} * units.fs, temperature_K={temperature:g}, friction=0.01 / units.fs)
dynamics.run(10)
print(f"after 10 steps: {{atoms.get_temperature():.0f}} K")
'''


def export(store: Store, to: Path) -> list[Path]:
    """Write models, inputs, data, model card and checksums to a new folder.

    Parameters
    ----------
    store
        A campaign whose final models stand.
    to
        The folder to make.

    Returns
    -------
    list of Path
        The files written, relative to `to`.

    Raises
    ------
    ConfigError
        The campaign has no final models yet, or `to` has something in it.
    """
    iterations = store.iterations()
    is_ended = loop.verdict(store) is not None  # it was, but an accepted change lets it go on
    if not iterations or not is_ended or not store.is_sealed("final", iterations[-1].index):
        raise ConfigError(
            f"{store.folder}: no final models yet - wanted a campaign that has ended - go on with: "
            f"activelearn run {store.latest_campaign().name} --folder {store.folder}"
        )
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"{to}: is not empty - wanted a new folder, for nothing is overwritten - choose another --to")
    last = iterations[-1]
    ensemble = store.result("final", last.index, Ensemble)
    work = to.absolute().with_name(f".{to.name}.{unique_suffix()}")
    try:
        work.mkdir(parents=True)
        _write_all(store, work, ensemble, iterations)
        if to.exists():
            to.rmdir()
        work.rename(to)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return sorted(path.relative_to(to) for path in to.rglob("*") if path.is_file())


def _write_all(store: Store, folder: Path, ensemble: Ensemble, iterations: list[Iteration]) -> None:
    last = iterations[-1].index
    campaign = store.campaign(last)
    for member in ensemble.members:
        shutil.copyfile(store.model(member.model), folder / f"frozen-{member.index}.pb")
        if member.compressed is not None:
            shutil.copyfile(store.model(member.compressed), folder / f"compressed-{member.index}.pb")
    kind = "compressed" if ensemble.members[0].compressed is not None else "frozen"
    _write_inputs(campaign, folder, [f"{kind}-{member.index}.pb" for member in ensemble.members])
    training, held_out = store.dataset(last), store.held_out(last)
    (folder / "dataset").mkdir()
    for name, parts in (("training", training), ("held-out", held_out)):
        write_extxyz(parts, folder / "dataset" / f"{name}.extxyz")
        write_deepmd(parts, folder / "dataset" / "deepmd" / name, campaign.type_map)
    (folder / "campaign.yaml").write_text(campaign.to_yaml())
    (folder / "model_card.md").write_text(model_card(store, ensemble, iterations))
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{file_sha256(path)}  {path.relative_to(folder)}" for path in paths]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def _write_inputs(campaign: Campaign, folder: Path, models: list[str]) -> None:
    system = (campaign.explore.systems or campaign.initial.systems)[0]
    start = starts.crystal(system, campaign.min_height_A)
    stage = campaign.explore.stages[-1]
    lammps.write_data(folder / "start.lmp", start, campaign.type_map)
    write_extxyz([start], folder / "start.extxyz")
    values = {"temperature": stage.temperatures_K[0], "f_hi": campaign.select.f_hi}
    types = " ".join(campaign.type_map)
    text = _IN_LAMMPS.format(models=" ".join(models), types=types, timestep=stage.timestep_fs / 1000.0, **values)
    (folder / "in.lammps").write_text(text)
    text = _ASE_EXAMPLE.format(model=models[0], timestep=stage.timestep_fs, temperature=values["temperature"])
    (folder / "ase_example.py").write_text(text)


def model_card(store: Store, ensemble: Ensemble, iterations: list[Iteration]) -> str:
    """Return the model card: what it is for, data, window, held-out errors, versions, hashes."""
    last = iterations[-1]
    campaign = store.campaign(last.index)
    end = loop.verdict(store)
    assert end is not None  # export wants an ended campaign
    reference = store.fingerprint(last.index)
    asked = next((r.selection for r in reversed(iterations) if r.selection is not None), campaign.select)
    window = f"{asked.f_lo:g} to {asked.f_hi:g} eV/Å"
    engine = f"{reference['calculator']} {reference['version']}, functional {reference['functional']}"
    learnt = last.labelling if campaign.final.n_steps is not None else iterations[ensemble.trained_in].labelling
    deterministic = campaign.label.reference.deterministic
    dispersion = "included" if reference["includes_dispersion"] else "not included"
    lines = [
        f"# {campaign.name}",
        "",
        campaign.description,
        "",
        f"- state: {end.message}",
        f"- elements (order of types): {' '.join(campaign.type_map)}",
        f"- trust window: {window} (max force deviation of {len(ensemble.members)} members)",
        f"- labels: {'the same bits for the same input' if deterministic else 'not bit-reproducible'} (declared)",
        f"- reference: {engine}, dispersion {dispersion}, weights sha256 {reference['weights_sha256']}",
        f"- training data: {learnt.dataset_frames} frames, sha256 {learnt.dataset_sha256}",
        f"- trained in iteration {learnt.iteration}; dataset/ holds all {last.labelling.dataset_frames} frames",
        f"- campaign sha256: {last.campaign_sha256}",
        "",
        "## Region explored",
        "",
    ]
    lines += [f"- {stage.name}: {stage.ensemble}, {stage.matrix}" for stage in campaign.explore.stages]
    lines += ["", "## Held-out errors (whole trajectories, never trained on)", ""]
    heads = (
        "member",
        "frames",
        "force RMSE (eV/Å)",
        "force MAE (eV/Å)",
        "force P99 (eV/Å)",
        "energy RMSE (meV/atom)",
        "steps",
        "sha256",
    )
    lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for m in ensemble.members:
        if m.held_out is not None:
            e = m.held_out
            p99 = "-" if e.force_p99 is None else f"{e.force_p99:.4f}"
            numbers = f"{e.force_rmse:.4f} | {e.force_mae:.4f} | {p99} | {e.energy_rmse_meV_per_atom:.2f}"
            lines.append(f"| {m.index} | {e.n_frames} | {numbers} | {m.n_steps} | {m.sha256[:16]}... |")
    lines += ["", *(f"- {line}" for line in ensemble.resumed)] if ensemble.resumed else []
    lines += ["", "## Iterations", "", "| iteration | verdict | data set |", "|---|---|---|"]
    for record in iterations:
        why = record.selection.why if record.selection is not None else "initial data"
        lines.append(f"| {record.index} | {why} | {record.labelling.dataset_frames} |")
    lines += ["", "## Versions", ""]
    lines += [f"- {name} {version}" for name, version in last.versions.items()]
    lines += ["", "Checksums of all files: SHA256SUMS (`sha256sum -c SHA256SUMS`).", ""]
    return "\n".join(lines)
