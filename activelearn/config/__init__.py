"""Campaign and Machine: YAML that cannot lie.

A campaign says *what* is computed; a machine profile says *where*, and never changes a number of the physics. Presets
(``params/<section>/<name>.yaml``) are resolved here, single keys override them, and the resolved copy is what is hashed
and sealed with the campaign. Below this module nobody sees a dict.
"""

from __future__ import annotations

from activelearn.config.campaign import Campaign
from activelearn.config.exploring import Initial, Isolated, Perturb, ReferenceMD, Relax, System
from activelearn.config.labelling import D3, GPAW, VASP, Label, Reference
from activelearn.config.machine import Machine, Speeds
from activelearn.config.messages import nearest
from activelearn.config.packing import Packed
from activelearn.config.reading import (
    PRESET_SECTIONS,
    difference,
    find_campaign,
    load_campaign,
    load_label,
    load_machine,
    parse_campaign,
    preset_names,
    shipped,
)
from activelearn.config.section import Section
from activelearn.config.selecting import Guards, Rescue, Select, Stop
from activelearn.config.stages import BOOKKEEPING, Condition, Explore, Stage
from activelearn.config.training import Descriptor, FinalModels, LearningRate, Prefactors, Train

__all__ = [
    "BOOKKEEPING",
    "D3",
    "GPAW",
    "PRESET_SECTIONS",
    "VASP",
    "Campaign",
    "Condition",
    "Descriptor",
    "Explore",
    "FinalModels",
    "Guards",
    "Initial",
    "Isolated",
    "Label",
    "LearningRate",
    "Machine",
    "Packed",
    "Perturb",
    "Prefactors",
    "Reference",
    "ReferenceMD",
    "Relax",
    "Rescue",
    "Section",
    "Select",
    "Speeds",
    "Stage",
    "Stop",
    "System",
    "Train",
    "difference",
    "find_campaign",
    "load_campaign",
    "load_label",
    "load_machine",
    "nearest",
    "parse_campaign",
    "preset_names",
    "shipped",
]
