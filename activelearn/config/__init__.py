"""Campaign and Machine: YAML that cannot lie.

A campaign says *what* is computed; a machine profile says *where*, and never changes a number of the physics. Presets
(``params/<section>/<name>.yaml``) are resolved here, single keys override them, and the resolved copy is what is hashed
and sealed with the campaign. Below this module nobody sees a dict.
"""

from __future__ import annotations

from activelearn.config.benchmark import (
    Benchmark,
    BulkModulus,
    Cited,
    Crystals,
    Diffusion,
    Elastic,
    Network,
    Parity,
    Rdf,
)
from activelearn.config.campaign import Campaign
from activelearn.config.exploring import Initial, Isolated, Perturb, ReferenceMD, Relax, System
from activelearn.config.files import preset_names, shipped
from activelearn.config.glass import Composition, Dynamics, Glass, Pore, Relaxing, Roles, Segment, Series
from activelearn.config.labelling import D3, GPAW, VASP, Label, Reference
from activelearn.config.machine import LIGHT, Machine, Place, Queue, Speeds
from activelearn.config.messages import nearest
from activelearn.config.packing import Packed
from activelearn.config.potential import DeePMDModels, LammpsStyle, Potential
from activelearn.config.reading import (
    PRESET_SECTIONS,
    difference,
    find_campaign,
    load_campaign,
    load_label,
    load_machine,
    parse_campaign,
)
from activelearn.config.section import Section
from activelearn.config.selecting import Guards, Rescue, Select, Stop
from activelearn.config.stages import BOOKKEEPING, Condition, Explore, Stage
from activelearn.config.study import Study
from activelearn.config.studying import (
    load_benchmark,
    load_glass,
    load_numbers,
    load_potential,
    load_series,
    load_study,
    shipped_numbers,
    with_cited,
)
from activelearn.config.training import Descriptor, FinalModels, LearningRate, Prefactors, Train

__all__ = [
    "BOOKKEEPING",
    "D3",
    "GPAW",
    "LIGHT",
    "PRESET_SECTIONS",
    "VASP",
    "Benchmark",
    "BulkModulus",
    "Campaign",
    "Cited",
    "Composition",
    "Condition",
    "Crystals",
    "DeePMDModels",
    "Descriptor",
    "Diffusion",
    "Dynamics",
    "Elastic",
    "Explore",
    "FinalModels",
    "Glass",
    "Guards",
    "Initial",
    "Isolated",
    "Label",
    "LammpsStyle",
    "LearningRate",
    "Machine",
    "Network",
    "Packed",
    "Parity",
    "Perturb",
    "Place",
    "Pore",
    "Potential",
    "Prefactors",
    "Queue",
    "Rdf",
    "Reference",
    "ReferenceMD",
    "Relax",
    "Relaxing",
    "Rescue",
    "Roles",
    "Section",
    "Segment",
    "Select",
    "Series",
    "Speeds",
    "Stage",
    "Stop",
    "Study",
    "System",
    "Train",
    "difference",
    "find_campaign",
    "load_benchmark",
    "load_campaign",
    "load_glass",
    "load_label",
    "load_machine",
    "load_numbers",
    "load_potential",
    "load_series",
    "load_study",
    "nearest",
    "parse_campaign",
    "preset_names",
    "shipped",
    "shipped_numbers",
    "with_cited",
]
