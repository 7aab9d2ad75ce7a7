"""Campaign and Machine: YAML that cannot lie.

A campaign says *what* is computed; a machine profile says *where*, and never changes a number of the physics. Presets
(``params/<section>/<name>.yaml``) are resolved here, single keys override them, and the resolved copy is what is hashed
and sealed with the campaign. Below this module nobody sees a dict.
"""

from __future__ import annotations

from activelearn.config import bounds as bounds
from activelearn.config.benchmark import UNUSED_OF_LABEL as UNUSED_OF_LABEL
from activelearn.config.benchmark import Benchmark as Benchmark
from activelearn.config.benchmark import BulkModulus as BulkModulus
from activelearn.config.benchmark import Cited as Cited
from activelearn.config.benchmark import Crystals as Crystals
from activelearn.config.benchmark import Diffusion as Diffusion
from activelearn.config.benchmark import Elastic as Elastic
from activelearn.config.benchmark import ForceError as ForceError
from activelearn.config.benchmark import Network as Network
from activelearn.config.benchmark import Parity as Parity
from activelearn.config.benchmark import Rdf as Rdf
from activelearn.config.benchmark import Reaction as Reaction
from activelearn.config.benchmark import Reactions as Reactions
from activelearn.config.benchmark import property_of as property_of
from activelearn.config.campaign import Campaign as Campaign
from activelearn.config.cited import CitedPoint as CitedPoint
from activelearn.config.cited import load_points as load_points
from activelearn.config.engine import REFERENCES as REFERENCES
from activelearn.config.engine import ReferenceEngine as ReferenceEngine
from activelearn.config.engine import engine_of as engine_of
from activelearn.config.exploring import Initial as Initial
from activelearn.config.exploring import Isolated as Isolated
from activelearn.config.exploring import Perturb as Perturb
from activelearn.config.exploring import ReferenceMD as ReferenceMD
from activelearn.config.exploring import Relax as Relax
from activelearn.config.exploring import System as System
from activelearn.config.files import preset_names as preset_names
from activelearn.config.files import shipped as shipped
from activelearn.config.glass import Composition as Composition
from activelearn.config.glass import Dynamics as Dynamics
from activelearn.config.glass import Glass as Glass
from activelearn.config.glass import Pore as Pore
from activelearn.config.glass import Roles as Roles
from activelearn.config.glass import Segment as Segment
from activelearn.config.glass import Series as Series
from activelearn.config.labelling import D3 as D3
from activelearn.config.labelling import Driver as Driver
from activelearn.config.labelling import Label as Label
from activelearn.config.labelling import Reference as Reference
from activelearn.config.machine import LIGHT as LIGHT
from activelearn.config.machine import Machine as Machine
from activelearn.config.machine import Place as Place
from activelearn.config.machine import Queue as Queue
from activelearn.config.machine import Speeds as Speeds
from activelearn.config.messages import nearest as nearest
from activelearn.config.moved import at_hand as at_hand
from activelearn.config.moved import here as here
from activelearn.config.packing import Packed as Packed
from activelearn.config.paths import FilePath as FilePath
from activelearn.config.paths import FolderPath as FolderPath
from activelearn.config.potential import DeePMDModels as DeePMDModels
from activelearn.config.potential import LammpsStyle as LammpsStyle
from activelearn.config.potential import Potential as Potential
from activelearn.config.presets import PRESET_SECTIONS as PRESET_SECTIONS
from activelearn.config.program import Program as Program
from activelearn.config.program import programs as programs
from activelearn.config.reading import difference as difference
from activelearn.config.reading import find_campaign as find_campaign
from activelearn.config.reading import load_benchmark as load_benchmark
from activelearn.config.reading import load_campaign as load_campaign
from activelearn.config.reading import load_glass as load_glass
from activelearn.config.reading import load_label as load_label
from activelearn.config.reading import load_machine as load_machine
from activelearn.config.reading import load_potential as load_potential
from activelearn.config.reading import load_series as load_series
from activelearn.config.reading import load_study as load_study
from activelearn.config.reading import parse_campaign as parse_campaign
from activelearn.config.reading import placed as placed
from activelearn.config.reading import shipped_numbers as shipped_numbers
from activelearn.config.reading import with_cited as with_cited
from activelearn.config.section import Section as Section
from activelearn.config.selecting import Guards as Guards
from activelearn.config.selecting import Rescue as Rescue
from activelearn.config.selecting import Select as Select
from activelearn.config.selecting import Stop as Stop
from activelearn.config.stages import Condition as Condition
from activelearn.config.stages import Stage as Stage
from activelearn.config.study import Study as Study
from activelearn.config.trainer import TRAINERS as TRAINERS
from activelearn.config.trainer import Faster as Faster
from activelearn.config.trainer import Room as Room
from activelearn.config.trainer import Shell as Shell
from activelearn.config.trainer import Trained as Trained
from activelearn.config.trainer import Trainer as Trainer
from activelearn.config.trainer import TrainingData as TrainingData
from activelearn.config.trainer import TrainingRun as TrainingRun
from activelearn.config.trainer import trainer_of as trainer_of
from activelearn.config.training import Train as Train
