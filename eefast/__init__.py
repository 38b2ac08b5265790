"""eefast: early-exit transformers whose wall-clock speed-up follows their layer speed-up."""

from eefast import pipelines, policies  # pipelines register themselves
from eefast.attach import attach_exits
from eefast.backbones import Backbone, Context, Inputs, register_backbone
from eefast.calibration import calibrate
from eefast.checkpoints import load_checkpoint
from eefast.config import MultiExitConfig
from eefast.multi_exit import MultiExitModel, MultiExitOutput
from eefast.runtime import CompiledModel, EarlyExitOutput, RuntimeStats, compile
from eefast.traces import (
    ExitTrace,
    Simulation,
    oracle,
    pareto_front,
    record_trace,
    simulate,
    trade_off,
)

__version__ = "0.1.0"

__all__ = [
    "Backbone",
    "CompiledModel",
    "Context",
    "EarlyExitOutput",
    "ExitTrace",
    "Inputs",
    "MultiExitConfig",
    "MultiExitModel",
    "MultiExitOutput",
    "RuntimeStats",
    "Simulation",
    "attach_exits",
    "calibrate",
    "compile",
    "load_checkpoint",
    "oracle",
    "pareto_front",
    "pipelines",
    "policies",
    "record_trace",
    "register_backbone",
    "simulate",
    "trade_off",
]
