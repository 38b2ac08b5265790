"""Evaluation: what a model's policies answer and how fast, beside fixed depth and transformers."""

from eefast.evaluation.evaluate import evaluate
from eefast.evaluation.full_depth import FullDepth
from eefast.evaluation.result import NEVER, TRANSFORMERS, Evaluation, Row, Timing, draw_trade_off
from eefast.evaluation.splits import (
    SPLITS,
    Chooser,
    FixedDepth,
    Repeated,
    Spread,
    pooled,
    repeated_splits,
)

__all__ = [
    "NEVER",
    "SPLITS",
    "TRANSFORMERS",
    "Chooser",
    "Evaluation",
    "FixedDepth",
    "FullDepth",
    "Repeated",
    "Row",
    "Spread",
    "Timing",
    "draw_trade_off",
    "evaluate",
    "pooled",
    "repeated_splits",
]
