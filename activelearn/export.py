"""Export: the models and the data of a campaign, with inputs that run as they are, checksums and a model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from activelearn import capacity, crate, final_models, learning, select, starts, taught, trees
from activelearn.config import Campaign, trainer_of
from activelearn.ending import ended, verdict
from activelearn.engines import backends, lammps
from activelearn.errors import ConfigError, typed
from activelearn.final_models import FinalChoice
from activelearn.frames import Frames
from activelearn.records import Ensemble, Iteration, Labelling
from activelearn.store import Store
from activelearn.store.files import disk_errors, file_sha256
from activelearn.writing import write_deepmd, write_extxyz

_IN_LAMMPS = """# Molecular dynamics with the exported force field; run in this folder with:  lmp -in in.lammps
{notes}units           metal
boundary        p p p
{atoms}
box             tilt large
read_data       start.lmp
neighbor        1.0 bin
{pair}
velocity        all create {temperature:g} 12345 dist gaussian mom yes
fix             dynamics all nvt temp {temperature:g} {temperature:g} 0.1
timestep        {timestep:g}
thermo          20
thermo_style    custom step temp pe press vol
dump            walk all custom 20 walk.lammpstrj id type element x y z
dump_modify     walk sort id element {types}
run             100
"""

#: Of an ensemble whose LAMMPS style writes its deviation, and of one whose style does not.
_DEVIATION = {
    True: (
        "# The deviation of the members goes to model_devi.out: frames above {f_hi:g} eV/A are outside the training "
        "region."
    ),
    False: "# One member drives; frames where the members deviate by {f_hi:g} eV/A are outside the training region.",
}

_ASE_EXAMPLE = '''"""The force field in ASE: energy, forces, stress and ten steps. Run: python ase_example.py"""

from pathlib import Path

from ase import units
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from {module} import {name}

here = Path(__file__).parent
atoms = read(here / "start.extxyz")
atoms.calc = {name}({arguments})
print(f"energy {{atoms.get_potential_energy():.6f}} eV, largest force {{abs(atoms.get_forces()).max():.4f}} eV/Å")
print("stress (eV/Å^3, ASE's sign):", atoms.get_stress())

MaxwellBoltzmannDistribution(atoms, temperature_K={temperature:g})
dynamics = Langevin(atoms, timestep={timestep:g} * units.fs, temperature_K={temperature:g}, friction=0.01 / units.fs)
dynamics.run(10)
print(f"after 10 steps: {{atoms.get_temperature():.0f}} K")
'''


def export(store: Store, to: Path, *, as_crate: bool = False) -> list[Path]:
    """Write models, inputs, data, model card and checksums to a new folder.

    Parameters
    ----------
    store
        A campaign whose final models are finished.
    to
        The folder to make.
    as_crate
        Whether it is a RO-Crate, too: ``ro-crate-metadata.json`` describes it.

    Returns
    -------
    list of Path
        The files written, relative to `to`.

    Raises
    ------
    ConfigError
        The campaign has no final models yet, or `to` has something in it.
    """
    if as_crate:
        crate.want_library()
    iterations = store.iterations()
    is_ended = verdict(store) is not None  # it was, but an accepted change lets it continue
    if not iterations or not is_ended or not store.is_sealed("final", iterations[-1].index):
        raise ConfigError(
            f"{store.folder}: no final models yet - expected a campaign that has ended - continue with: "
            f"activelearn run {typed(store.campaign_files()[-1])} --folder {typed(store.folder)}"
        )
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"{to}: is not empty - expected a new folder (nothing is overwritten) - choose another --to")
    if to.is_symlink() or to.absolute() == Path.cwd():
        what = "a link" if to.is_symlink() else "the current folder"
        raise ConfigError(f"{to}: is {what} - expected a new folder - choose another --to")
    last = iterations[-1]
    final = final_models.chosen(store, last.index)
    with disk_errors(to):
        to.absolute().parent.mkdir(parents=True, exist_ok=True)
        with trees.temporary(to.absolute().parent) as work:
            made = work / "export"
            made.mkdir()
            names = _write_all(store, made, final, iterations)
            if as_crate:
                crate.describe(store, made, final, iterations, names)
            _write_checksums(made)
            if not trees.rename(made, to):
                raise ConfigError(
                    f"{to}: was created by another process meanwhile - expected a new folder - choose another"
                )
    return sorted(path.relative_to(to) for path in to.rglob("*") if path.is_file())


def _write_all(store: Store, folder: Path, final: FinalChoice, iterations: list[Iteration]) -> set[str]:
    """Write all but the checksums; return the names of the models."""
    last, ensemble = iterations[-1].index, final.ensemble
    campaign = store.campaign(last)
    names: dict[int, str] = {}
    for member in ensemble.members:
        for kind, model in ((trainer_of(campaign.train).kind, member.model), ("compressed", member.compressed)):
            if model is not None:
                names[member.index] = f"{kind}-{member.index}{Path(model).suffix}"  # the faster form, if there is one
                shutil.copyfile(store.model(model), folder / names[member.index])
    write_examples(store, campaign, folder, [*names.values()])
    training, held_out = store.dataset(last), store.held_out(last)
    (folder / "dataset").mkdir()
    for name, parts in (("training", training), ("held-out", held_out)):
        write_extxyz(parts, folder / "dataset" / f"{name}.extxyz")
        write_deepmd(parts, folder / "dataset" / "deepmd" / name, campaign.type_map)
    (folder / "campaign.yaml").write_text(campaign.to_yaml(), encoding="utf-8")
    (folder / "model_card.md").write_text(model_card(store, final, iterations), encoding="utf-8")
    return set(names.values())


def _write_checksums(folder: Path) -> None:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{file_sha256(path)}  {path.relative_to(folder)}" for path in paths]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n", encoding="utf-8")


def start_of(store: Store, campaign: Campaign) -> Frames:
    """Return where the example runs start: one frame of the sealed initial data, right-handed, without labels.

    It is there whatever the campaign began with (a crystal, a structure file that is gone by now, a packing), and the
    models have learnt it. Of the frames that a walk may start from it is the one nearest to its unstrained cell, and
    of these the first; any other frame only if none is fit.
    """
    parts = store.training(0)

    def rank(place: tuple[Frames, int]) -> tuple[bool, float]:
        part, k = place
        return not starts.is_fit(part[k], campaign.min_height_A), abs(float(part.origin["strain"][k]))

    part, k = min(((part, k) for part in parts for k in range(len(part))), key=rank)
    return starts.right_handed(part[k].without_labels())


def write_examples(store: Store, campaign: Campaign, folder: Path, models: list[str]) -> None:
    """Write a start, a LAMMPS input (of models that LAMMPS runs) and an ASE script that run as they are.

    That is NVT at the temperature at which the first walks of the last stage begin.

    Parameters
    ----------
    store, campaign
        Whose initial data are sealed, and what its last iteration is sealed to.
    folder
        Where they are written, and where the models are.
    models
        File names of the models.
    """
    start, trainer = start_of(store, campaign), trainer_of(campaign.train)
    write_extxyz([start], folder / "start.extxyz")
    if trainer.runs_in_lammps:
        lammps.write_data(folder / "start.lmp", start, campaign.type_map)
        text = _lammps_input(store, campaign, models)
        (folder / "in.lammps").write_text(text, encoding="utf-8")
    stage, said = campaign.explore.stages[-1], trainer.calculator(folder / models[0])
    temperature = stage.conditions[0].temperature_K
    module, _, name = said["calculator"].partition(":")
    arguments = ", ".join(
        f"{key}=str(here / {models[0]!r})" if value == str(folder / models[0]) else f"{key}={value!r}"
        for key, value in said["arguments"].items()
    )
    text = _ASE_EXAMPLE.format(
        module=module, name=name, arguments=arguments, timestep=stage.timestep_fs, temperature=temperature
    )
    (folder / "ase_example.py").write_text(text, encoding="utf-8")


def _lammps_input(store: Store, campaign: Campaign, models: list[str]) -> str:
    """Return the LAMMPS input of the example."""
    trainer, stage = trainer_of(campaign.train), campaign.explore.stages[-1]
    _, f_hi = select.last_window(campaign, store)
    pair = "\n".join(trainer.pair(models, campaign.type_map, 20))
    notes = [*trainer.export_notes(campaign.train), _DEVIATION[trainer.writes_deviation].format(f_hi=f_hi)]
    values = {
        "atoms": backends.atom_style([pair]),
        "temperature": stage.conditions[0].temperature_K,
        "timestep": stage.timestep_fs / 1000.0,
        "types": " ".join(campaign.type_map),
    }
    return _IN_LAMMPS.format(pair=pair, notes="".join(f"{line}\n" for line in notes), **values)


def _cutoff_lines(store: Store, campaign: Campaign) -> list[str]:
    held = capacity.of_models(campaign, store)
    if not held:
        return [f"- cutoff: {campaign.cutoff_A:g} Å"]
    return [
        f"- cutoff: {one.rcut:g} Å; neighbours of an atom within it that the models hold (sel): "
        + ", ".join(f"{kind} {n}" for kind, n in zip(one.kinds, one.sel, strict=True))
        + "; beyond that the farthest are dropped silently, and the deviation does not show it"
        for one in held
    ]


def _held_out_errors(ensemble: Ensemble) -> list[str]:
    """Return the held-out errors of every member as a table, or that there are none."""
    rows = []
    for m in ensemble.members:
        if m.held_out is not None:
            e = m.held_out
            p99 = "-" if e.force_p99 is None else f"{e.force_p99:.4f}"
            numbers = f"{e.force_rmse:.4f} | {e.force_mae:.4f} | {p99} | {e.energy_rmse_meV_per_atom:.2f}"
            rows.append(f"| {m.index} | {e.n_frames} | {numbers} | {m.n_steps} | {m.sha256[:16]}... |")
    heads = (
        "| member | frames | force RMSE (eV/Å) | force MAE (eV/Å) | force P99 (eV/Å) | energy RMSE (meV/atom) "
        "| steps | sha256 |"
    )
    table = [heads, "|" + "---|" * 8, *rows]
    return table if rows else ["Not known: no frame was set aside (initial.held_out_fraction)."]


def _learnt(final: FinalChoice) -> list[str]:
    """Return what is known of how well the models were trained, in lines of the card."""
    found = list(final.said)
    if not final.is_from_scratch or final.is_of_loop:
        found += learning.problems_of(final.ensemble)
    if not learning.is_judged(final.ensemble):
        found.append(
            "it is not known whether the models learnt anything: no held-out frames, or trained by an older version"
        )
    return [f"- {line}" for line in found]


def _drivers(iterations: list[Iteration]) -> list[str]:
    """Return what moved the atoms of initial data, where that was not the reference."""
    drivers = {made.driver["sha256"]: made.driver for record in iterations if (made := record.initial) and made.driver}
    return [
        f"- MD of the initial data: by {driver['calculator']} {driver['version']}, weights sha256 "
        f"{driver['weights_sha256']}, arguments {json.dumps(driver['arguments'])}; the reference labelled its frames"
        for driver in drivers.values()
    ]


def _without_virial(learnt: Labelling) -> list[str]:
    n = learnt.dataset_without_virial
    return [f"- {n} of these frames have no virial: pressures were not fitted on them"] if n else []


def model_card(store: Store, final: FinalChoice, iterations: list[Iteration]) -> str:
    """Return the model card: what it is for, data, window, held-out errors, versions, hashes."""
    last, ensemble = iterations[-1], final.ensemble
    campaign = store.campaign(last.index)
    end = ended(store)
    reference = store.fingerprint(last.index)
    f_lo, f_hi = select.last_window(campaign, store)
    window = f"{f_lo:g} to {f_hi:g} eV/Å"
    engine = f"{reference['calculator']} {reference['version']}, functional {reference['functional']}"
    is_new = final.is_from_scratch and not final.is_of_loop
    learnt = last.labelling if is_new else iterations[ensemble.trained_in].labelling
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
        *_cutoff_lines(store, campaign),
        f"- labels: {'the same bits for the same input' if deterministic else 'not bit-reproducible'} (declared)",
        f"- reference: {engine}, dispersion {dispersion}, weights sha256 {reference['weights_sha256']}",
        *_drivers(iterations),
        f"- training data: {learnt.dataset_frames} frames, sha256 {learnt.dataset_sha256}",
        *_without_virial(learnt),
        *(f"- {line}" for line in taught.said(store)),
        f"- trained in iteration {learnt.iteration}; dataset/ holds all {last.labelling.dataset_frames} frames",
        f"- campaign sha256: {last.campaign_sha256}",
        "",
        "## Region explored",
        "",
    ]
    lines += [f"- {stage.name}: {stage.ensemble}, {stage.matrix}" for stage in campaign.explore.stages]
    lines += ["", "## Held-out errors (whole trajectories, never trained on)", ""]
    lines += _held_out_errors(ensemble)
    lines += ["", *said] if (said := _learnt(final)) else []
    made = [*ensemble.compression, *ensemble.resumed]
    lines += ["", *(f"- {line}" for line in made)] if made else []
    lines += ["", "## Iterations", "", "| iteration | verdict | data set |", "|---|---|---|"]
    for record in iterations:
        why = record.selection.why if record.selection is not None else "initial data"
        lines.append(f"| {record.index} | {why} | {record.labelling.dataset_frames} |")
    lines += ["", "## Versions", ""]
    lines += [f"- {name} {version}" for name, version in last.versions.items()]
    lines += ["", "Checksums of all files: SHA256SUMS (`sha256sum -c SHA256SUMS`).", ""]
    return "\n".join(lines)
