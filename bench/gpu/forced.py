"""Exits forced to a recorded distribution, with every head on the way really computed.

A policy such as `Budgeted` would skip the exits before the one wanted, and with them the cost in
question. So the policy is `Confidence`, and its live table says where all samples exit: a
confidence never reaches 2 and always reaches 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import ROOT
from eefast import CompiledModel, RuntimeStats
from eefast.policies import Confidence

REPORT = ROOT / "docs" / "demo" / "tweets" / "report.json"
POLICY = Confidence(2.0)
SEED = 20
NEVER, ALWAYS = 2.0, 0.0


def recorded_histogram(report: Path = REPORT, policy: str = "BEEM-A") -> list[int]:
    """How many test samples exited at each exit under a policy of the demo."""
    policies = json.loads(report.read_text())["rows"]
    return next(row["exit_histogram"] for row in policies if row["name"] == policy)


def layer_shares(histogram: Sequence[int], layers: int) -> list[float]:
    """The share of samples that exit after each of `layers`; sums to 1.

    Exit i of n stands for the i-th n-th of the layers, which share its samples evenly.

    Raises:
        ValueError: layers that the exits cannot share.
    """
    each, rest = divmod(layers, len(histogram))
    if rest or not each:
        raise ValueError(f"{layers} layers cannot stand for {len(histogram)} exits")
    return [count / sum(histogram) / each for count in histogram for _ in range(each)]


def draw_depths(shares: Sequence[float], batch: int, calls: int, seed: int = SEED) -> list[int]:
    """The layer after which each call's last sample exits: the maximum of `batch` draws.

    Rows stay in the batch until the last sample exits: in graphs always, in run-ahead for batches
    of up to 4096 tokens.
    """
    drawn = np.random.default_rng(seed).choice(len(shares), size=(calls, batch), p=shares)
    return [int(depth) + 1 for depth in drawn.max(axis=1)]


class ForcedDepth:
    """Makes all samples of a compiled model exit at one chosen exit; compile with `POLICY`."""

    def __init__(self, fast: CompiledModel) -> None:
        self._fast = fast
        exits = len(fast.policy_table)
        self._tables = []
        for depth in range(1, exits + 1):
            table = fast.policy_table.clone()
            table[: depth - 1, 1] = NEVER
            table[depth - 1 :, 1] = ALWAYS
            self._tables.append(table)

    def set(self, depth: int) -> None:
        """From the next call on, all samples exit after exit `depth`; enqueues one small copy."""
        self._fast.policy_table.copy_(self._tables[depth - 1])


def check(
    fast: CompiledModel, forced: ForcedDepth, inputs: Mapping[str, Any], depths: Sequence[int]
) -> float:
    """Check that samples exit where they are told to, with every earlier head computed; not timed.

    Args:
        depths: to try.

    Returns:
        The layers run in vain, on average.

    Raises:
        AssertionError: a call does not.
    """
    wasted = 0
    for depth in depths:
        forced.set(depth)
        fast.stats = RuntimeStats()
        exits = fast(**inputs).exit_layer.tolist()
        (stats,) = fast.stats.calls
        fast.stats = None
        if set(exits) != {depth}:
            raise AssertionError(f"forced to exit after {depth}, samples exited after {exits}")
        needed = stats.layers_run - stats.layers_wasted
        if needed != depth or stats.exit_steps < depth:
            raise AssertionError(f"forced to {depth}: {stats}")
        wasted += stats.layers_wasted
    return wasted / len(depths)


def tensor_inputs(
    batch: int, length: int, vocabulary: int, device: torch.device | str
) -> dict[str, torch.Tensor]:
    """Random tokens and a mask that hides nothing, as a tokenizer gives it; both [B, T] int64."""
    ids = torch.randint(1, vocabulary, (batch, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids.to(device), "attention_mask": torch.ones_like(ids).to(device)}
