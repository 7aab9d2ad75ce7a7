"""Foundations of SevenNet: checkpoints by the names of sevenn's own loader, with their metadata.

A checkpoint is read without torch, and nothing in it is carried out. Nothing is downloaded: of the names those count
whose files are there, in the wheel (7net-0, 7net-0_22may2024, 7net-l3i5, 7net-mf-0) or where sevenn has put them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from activelearn.config.files import expanded, is_file
from activelearn.engines.interpreters import folders_of
from activelearn.engines.trainers.finetuning.checkpoints import Content, Foundation, asked

#: Name -> its file, below the folders in which sevenn looks (``pretrained_name_to_path`` of sevenn 0.13).
NAMES: Final = {
    "7net-0": "SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
    "7net-0_22may2024": "SevenNet_0__22May2024/checkpoint_sevennet_0.pth",
    "7net-l3i5": "SevenNet_l3i5/checkpoint_l3i5.pth",
    "7net-mf-0": "SevenNet_MF_0/checkpoint_sevennet_mf_0.pth",
    "7net-mf-ompa": "SevenNet_MF_ompa/checkpoint_sevennet_mf_ompa.pth",
    "7net-omat": "SevenNet_omat/checkpoint_sevennet_omat.pth",
    "7net-omni": "SevenNet_omni/checkpoint_sevennet_omni.pth",
    "7net-omni-i8": "SevenNet_omni_i8/checkpoint_sevennet_omni_i8.pth",
    "7net-omni-i12": "SevenNet_omni_i12/checkpoint_sevennet_omni_i12.pth",
}
#: Where sevenn stores downloads if it cannot write into its own folder.
_CACHE: Final = "~/.cache/sevennet"


def canonical(name: str) -> str:
    """Return a name of sevenn as spelled in :data:`NAMES`; sevenn accepts several spellings."""
    found = name.lower().replace("sevennet-", "7net-", 1)
    return "7net-0" if found in {"7net-0_11july2024", "7net-0_11jul2024"} else found


def path_of(name: str, python: str | None = None) -> Path | None:
    """Return the file of a name, for the sevenn of an interpreter (null: this one), or of a path; None if missing."""
    path = expanded(name)
    if is_file(path):
        return path.absolute()
    inside = NAMES.get(canonical(name))
    if inside is None:
        return None
    folders = [folder / "sevenn" / "pretrained_potentials" for folder in folders_of(python)]
    return next((path for folder in (*folders, expanded(_CACHE)) if is_file(path := folder / inside)), None)


def read(path: Path) -> Foundation | None:
    """Return what a checkpoint says; None if it is not there, or none of SevenNet's."""
    return asked(path, _about)


def _about(content: Content) -> Foundation:
    config = content.root["config"]
    modal_map = dict(config.get("_modal_map") or {})
    return Foundation(
        elements=frozenset(map(str, config["chemical_species"])),
        cutoff_A=float(config["cutoff"]),
        kinds=tuple(map(str, modal_map)),
        kind=str(config["default_modal"]) if modal_map and "default_modal" in config else None,
    )
