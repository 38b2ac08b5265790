"""All exits at once by the task alone: BranchyNet, MSDNet, RightTool, ElasticBERT; and one exit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from eefast.labels import task_loss
from eefast.training.objectives import Exits, exit_logits_of, register_objective

if TYPE_CHECKING:
    from eefast.multi_exit import MultiExitOutput


@register_objective("fixed")
def fixed(
    output: MultiExitOutput,
    labels: Tensor,  # (B,)
) -> Tensor:
    """The task loss of the last exit alone: for models of a fixed, reduced depth.

    That is what early exits compete with ("-9L" in PABEE's and BEEM's tables, with 3 layers):

        backbone = AutoModel.from_pretrained(name, num_hidden_layers=3)
        model = eefast.attach_exits(backbone, exits=[3], objective="fixed")

    With one output (C = 1) it is the squared error.
    """
    return task_loss(exit_logits_of(output)[-1], labels)


@register_objective("branchynet", "msdnet", "righttool")
class Joint:
    """sum_i w_i CE(p_i, y), with w_i = 1 if not said otherwise.

    BranchyNet (Teerapittayanon et al., ICPR 2016): weights are hyper-parameters; more weight
    on early exits regularises, and its two-exit AlexNet has 1 and 0.3. MSDNet (Huang et al., ICLR
    2018, section 4): all 1 in its experiments. RightTool (Schwartz et al., ACL 2020): the plain
    sum; its exits read a learned mixture of all layers so far, these read their own layer.

    With one output (C = 1) CE is the squared error.

    Args:
        exits: of the model.
        weights: one for each exit, 0 or more and not all 0; None: all 1.

    Raises:
        ValueError: other weights.
    """

    def __init__(self, exits: Exits, *, weights: Sequence[float] | None = None) -> None:
        self._weights = [1.0] * exits.count if weights is None else checked(weights, exits)

    def __call__(
        self,
        output: MultiExitOutput,
        labels: Tensor,  # (B,)
    ) -> Tensor:
        """The loss, a scalar."""
        return weighted_sum(self._weights, output, labels)


@register_objective("elasticbert")
class ElasticBERT:
    """ElasticBERT (Liu et al., NAACL 2022): the sum of all exits, with balanced gradients.

        L = sum_i CE(p_i, y)

    The layers below exit i get the gradients of exits i to L; deeper sums are longer, and the
    exits would pull at the lower layers with unequal force. With gradient equilibrium (Li et al.,
    ICCV 2019) what reaches the output of exit i's layer is

        g_i = 1 / (L - i + 1) * (own exit's gradient) + (L - i) / (L - i + 1) * g_(i+1)'

    where g_(i+1)' is g_(i+1) after the layers between: the mean of the gradients of exits i to L
    instead of their sum. Heads get their own exit's gradient, unscaled. The released code does the
    same in fine-tuning; the paper's pre-training, with groups of exits, is not offered here.

    With one output (C = 1) CE is the squared error.
    """

    def __init__(self, exits: Exits) -> None:
        self._exits = exits

    def __call__(
        self,
        output: MultiExitOutput,
        labels: Tensor,  # (B,)
    ) -> Tensor:
        """The loss, a scalar."""
        return weighted_sum([1.0] * self._exits.count, output, labels)

    def gradient_factors(self, exit: int) -> tuple[float, float]:
        """Of the gradients from the head of `exit` (1-based), and from the layers above."""
        left = self._exits.count - exit + 1
        return 1 / left, (left - 1) / left


def weighted_sum(
    weights: Sequence[float],
    output: MultiExitOutput,
    labels: Tensor,  # (B,)
) -> Tensor:
    """sum_i w_i L_i of the task losses of all exits."""
    losses = zip(weights, exit_logits_of(output), strict=True)
    return torch.stack([weight * task_loss(logits, labels) for weight, logits in losses]).sum()


def checked(weights: Sequence[float], exits: Exits) -> list[float]:
    """Weights of the exits' losses, as numbers.

    Raises:
        ValueError: not as many as exits, negative or not finite ones, or only zeros.
    """
    numbers = [float(weight) for weight in weights]
    if (
        len(numbers) != exits.count
        or not any(numbers)
        or not all(0 <= weight < math.inf for weight in numbers)
    ):
        raise ValueError(
            f"weights must be {exits.count} numbers, one for each exit, 0 or more and not all 0; "
            f"got {weights}"
        )
    return numbers
