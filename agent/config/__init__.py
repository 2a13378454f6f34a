"""The run file: `load_run(path)` reads it, `RunConfig` is what it says."""

from agent.config.ablations import Ablations
from agent.config.arr_coc import ArrCoc
from agent.config.cloud import Budget, Cloud
from agent.config.describe import FieldDoc, describe_fields
from agent.config.learning import Data, Tokenizer, Training
from agent.config.load import RunFileError, load_run
from agent.config.machine import Accelerators, Machine, StageMachine
from agent.config.model import Connector, Language, Model, Vision
from agent.config.run import RunConfig
from agent.config.sections import (
    Checkpoint,
    PriceCap,
    Stage,
    Supervision,
    Trained,
    Workload,
)
from agent.config.spike import Spike
from agent.config.tracking import TensorBoard, Tracking, Wandb
from agent.config.units import Cadence, format_seconds, parse_seconds
from agent.config.write import run_file_text
from agent.config.yaml_file import Mistake

__all__ = [
    "Ablations",
    "Accelerators",
    "ArrCoc",
    "Budget",
    "Cadence",
    "Checkpoint",
    "Cloud",
    "Connector",
    "Data",
    "FieldDoc",
    "Language",
    "Machine",
    "Mistake",
    "Model",
    "PriceCap",
    "RunConfig",
    "RunFileError",
    "Spike",
    "Stage",
    "StageMachine",
    "Supervision",
    "TensorBoard",
    "Tokenizer",
    "Tracking",
    "Trained",
    "Training",
    "Vision",
    "Wandb",
    "Workload",
    "describe_fields",
    "format_seconds",
    "load_run",
    "parse_seconds",
    "run_file_text",
]
