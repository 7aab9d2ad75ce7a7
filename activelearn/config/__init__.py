"""Campaign and Machine: YAML that cannot lie.

A campaign says *what* is computed; a machine profile says *where*, and never changes a number of the physics. Presets
(``params/<section>/<name>.yaml``) are resolved here, single keys override them, and the resolved copy is what is hashed
and sealed with the campaign. Below this module nobody sees a dict.
"""

from __future__ import annotations

from activelearn.config.campaign import Campaign
from activelearn.config.exploring import Explore, Initial, Perturb, ReferenceMD, Stage, System
from activelearn.config.labelling import Label, Reference
from activelearn.config.machine import Machine
from activelearn.config.messages import nearest
from activelearn.config.reading import (
    PRESET_SECTIONS,
    difference,
    find_campaign,
    load_campaign,
    load_machine,
    parse_campaign,
    preset_names,
    shipped,
)
from activelearn.config.section import Section
from activelearn.config.selecting import Guards, Rescue, Select, Stop
from activelearn.config.training import Descriptor, FinalModels, LearningRate, Prefactors, Train

__all__ = [
    "PRESET_SECTIONS",
    "Campaign",
    "Descriptor",
    "Explore",
    "FinalModels",
    "Guards",
    "Initial",
    "Label",
    "LearningRate",
    "Machine",
    "Perturb",
    "Prefactors",
    "Reference",
    "ReferenceMD",
    "Rescue",
    "Section",
    "Select",
    "Stage",
    "Stop",
    "System",
    "Train",
    "difference",
    "find_campaign",
    "load_campaign",
    "load_machine",
    "nearest",
    "parse_campaign",
    "preset_names",
    "shipped",
]
