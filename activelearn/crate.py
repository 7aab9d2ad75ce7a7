"""RO-Crate: what an export holds, and how it came to be, as JSON-LD that archives and search engines read.

By the library rocrate (extra ``report``): files with sizes and checksums, models with window and held-out errors, the
programs with their versions, and the campaign as the action that made one of the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from activelearn import learning, select
from activelearn.ending import ended
from activelearn.errors import ConfigError, StoreError
from activelearn.final_models import FinalChoice
from activelearn.records import Iteration
from activelearn.store import Store
from activelearn.store.files import file_sha256

#: Of the specification.
VERSION: Final = "1.2"
NAME: Final = "ro-crate-metadata.json"
#: Media types by suffix; others are not known.
_TYPES: Final = {
    ".json": "application/json",
    ".md": "text/markdown",
    ".py": "text/x-python",
    ".yaml": "application/yaml",
    **dict.fromkeys((".extxyz", ".lammps", ".lmp", ".raw"), "text/plain"),
}


def want_library() -> None:
    """Raise ConfigError where rocrate is not installed."""
    try:
        import rocrate.rocrate  # noqa: F401
    except ImportError:
        raise ConfigError(
            "--ro-crate: rocrate is missing - expected version 0.16 (extra report) - pip install 'rocrate>=0.16,<0.17'"
        ) from None


def describe(store: Store, folder: Path, final: FinalChoice, iterations: Sequence[Iteration], models: set[str]) -> None:
    """Write the metadata of an export into its folder, and read them back.

    Parameters
    ----------
    store
        The campaign.
    folder
        Of the export; all files that are in it are described.
    final, iterations
        The models that the campaign hands on, and its records.
    models
        File names of the models.

    Raises
    ------
    StoreError
        What was written is not what is read.
    """
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    crate, last = ROCrate(version=VERSION), iterations[-1]
    campaign = store.campaign(last.index)
    crate.name, crate.description = campaign.name, campaign.description or f"Force field of campaign {campaign.name}"

    def context(key: str, kind: str, **properties: Any) -> Any:  # noqa: ANN401 - of an untyped library
        return crate.add(ContextEntity(crate, f"#{key}", {"@type": kind, **properties}))

    said = "None is stated here: choose one before you publish."
    crate.license = context("licence", "CreativeWork", name="no licence stated", description=said)
    facts = [context(f"fact-{k}", "PropertyValue", **fact) for k, fact in enumerate(_facts(store, final, iterations))]
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        files[name] = crate.add_file(path, name, properties=_file(path))
    crate.root_dataset["variableMeasured"] = facts
    for name in models:
        files[name]["description"] = f"Model of {', '.join(campaign.type_map)}; limits and errors: model_card.md"
    programs = [
        context(f"program-{name}", "SoftwareApplication", name=name, version=version, softwareVersion=version)
        for name, version in last.versions.items()
    ]
    data = [entity for name, entity in files.items() if name.startswith("dataset/")]
    action = {"name": f"campaign {campaign.name}", "description": ended(store).message, "instrument": programs}
    made = {"object": [files["campaign.yaml"]], "result": [*(files[name] for name in sorted(models)), *data]}
    crate.root_dataset["mentions"] = [context("campaign", "CreateAction", **action | made)]
    text = json.dumps(crate.metadata.generate(), indent=1, ensure_ascii=False)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")
    _want_readable(folder, set(files))


def _file(path: Path) -> dict[str, Any]:
    """Return the description of a file."""
    found = {"name": path.name, "contentSize": str(path.stat().st_size), "sha256": file_sha256(path)}
    return found | ({"encodingFormat": _TYPES[path.suffix]} if path.suffix in _TYPES else {})


def _facts(store: Store, final: FinalChoice, iterations: Sequence[Iteration]) -> Iterator[Mapping[str, Any]]:
    """Yield numbers of the models with their units and what they are of."""
    campaign = store.campaign(iterations[-1].index)
    f_lo, f_hi = select.last_window(campaign, store)
    yield {"name": "trust window, lower end", "value": f_lo, "unitText": "eV/Å"}
    yield {"name": "trust window, upper end", "value": f_hi, "unitText": "eV/Å"}
    yield {"name": "training frames", "value": iterations[-1].labelling.dataset_frames}
    errors = learning.mean_errors(final.ensemble.members)
    if errors is not None:
        of = f"{errors.n_frames} held-out frames, mean over {len(final.ensemble.members)} members"
        yield {"name": "force RMSE", "value": errors.force_rmse, "unitText": "eV/Å", "description": of}
        energy = errors.energy_rmse_meV_per_atom
        yield {"name": "energy RMSE", "value": energy, "unitText": "meV/atom", "description": of}


def _want_readable(folder: Path, names: set[str]) -> None:
    """Read the metadata as anybody would, and compare."""
    from rocrate.rocrate import ROCrate

    try:
        read = ROCrate(str(folder))
        found = {entity.id for entity in read.data_entities} if read.name else set()
    except (ValueError, KeyError) as error:
        raise StoreError(f"{folder / NAME}: cannot be read back ({error}); please report this") from error
    if found != names:
        odd = ", ".join(sorted(found ^ names)[:3])
        raise StoreError(
            f"{folder / NAME}: is not read as it was written ({odd}) - expected each file once; please report this"
        )
