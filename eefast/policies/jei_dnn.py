"""JEI-DNN: leave where a gate, trained on the exit's uncertainty, opens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eefast.ops import Gain, Keep, ScorerKind
from eefast.ops.signals import NEGATIVE_SLOPE
from eefast.policies.base import Columns, Policy
from eefast.policies.values import number


@dataclass(frozen=True, eq=False)
class JEIDNN(Policy):
    """JEI-DNN (Regol, Chataoui and Coates, ICLR 2024): S_l = g_l >= threshold.

        g_l = sigmoid(a_l C_l + b_l (1 - H_l) + c_l)

    g_l, the probability of leaving at exit l where no exit before was left, is a linear of the
    exit's uncertainty. Objective "jei-dnn" trains gates with the exits, and
    `eefast.calibrate("jei-dnn", trace)` for exits that are trained. The paper's gates read two more
    signals, the entropy of the squared probabilities and the margin between the two highest ones,
    which no scorer here has. (For two classes the margin is 2 C - 1, and nothing is missing.)

    The released code decides by another number than the gate: a_l >= 0.5, where a_l is g_l over
    prod_(j<l) (1 - a_j), clipped to [0, 1]. With weighted losses g_l is first replaced by max(0,
    min(g_l, 1 - sum_(j<l) g_j)). So there g_l stands for the probability of exit l itself. A scorer
    sees the scores of earlier exits, but neither products nor quotients of them, so this is not
    offered.

    Args:
        gates: a, b and c of all exits but the last, [L - 1, 3] float32.
        threshold: 0.5 is the released code's.
        num_classes: C, which the scorer has to know.
    """

    name = "jei-dnn"
    keep, gain, scorer = Keep.NEVER, Gain.SCORE, ScorerKind.NETWORK

    gates: Tensor
    threshold: float = 0.5

    def __post_init__(self) -> None:
        gates: Any = self.gates
        if not isinstance(gates, Tensor) or gates.dim() != 2 or gates.shape[1] != 3:
            got = list(gates.shape) if isinstance(gates, Tensor) else type(gates).__name__
            raise ValueError(f"{self.name}: gates must be a tensor [L - 1, 3], got {got}")
        gates = gates.detach().float().cpu()
        if not gates.isfinite().all():
            raise ValueError(f"{self.name}: gates must be finite, got {gates}")
        object.__setattr__(self, "gates", gates)
        threshold = number(self.name, "threshold", self.threshold, 0)
        object.__setattr__(self, "threshold", threshold)
        if self.num_classes is None:
            raise ValueError(f"{self.name}: num_classes must be given, got None")

    def scorer_weights(self, exit: int) -> Tensor:
        """The gate as two units.

        A leaky ReLU bends; of x and -x together it makes x (1 + its slope).
        """
        assert self.num_classes is not None
        weights = torch.zeros(2, self.num_classes + exit + 4, dtype=torch.float32, device="cpu")
        if exit <= len(self.gates):  # at the last exit all leave
            confidence, certainty, bias = self.gates[exit - 1]
            weights[0, self.num_classes] = confidence
            weights[0, self.num_classes + 1] = certainty
            weights[0, -2] = bias
            weights[1] = -weights[0]
            weights[:, -1] = torch.tensor([1.0, -1.0]) / (1 + NEGATIVE_SLOPE)
        return weights

    def columns(self, num_exits: int) -> Columns:
        if len(self.gates) != num_exits - 1:
            raise ValueError(
                f"{self.name}: there are {len(self.gates)} gates, the model has {num_exits} exits, "
                "of which all but the last have one"
            )
        return Columns(thresholds=self.threshold)
