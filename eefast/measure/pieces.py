"""What each layer and each exit step costs on its own: in milliseconds, and in FLOPs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from eefast.backbones import Inputs, gathered
from eefast.measure.timing import Call, take_turns

if TYPE_CHECKING:
    from eefast.multi_exit import MultiExitModel

Ready = Callable[[], Call]
"""Makes a call ready, which may be made once."""


class Parts(NamedTuple):
    """One call of a compiled model in pieces (see `eefast.runtime.parts`)."""

    device: torch.device
    layers: tuple[Ready, ...]  # layer 1 first
    exits: tuple[Ready, ...]  # exit 1 first


class Profile(NamedTuple):
    """Milliseconds of each piece: the median over the rounds."""

    layers: npt.NDArray[np.float64]  # (inputs, layers)
    exits: npt.NDArray[np.float64]  # (inputs, exits)


@torch.inference_mode()
def profile(parts: Sequence[Parts], *, rounds: int = 30, progress: bool = False) -> Profile:
    """Time every layer and every exit step, for each of some inputs.

    In a round each piece runs once with each input, in an order shuffled anew, so that whatever
    slows the machine for a while slows all alike. One more round comes first and does not count.
    On devices other than the CPU a time is that until the device is done, launch included.

    Args:
        parts: of each input, all of one model.
        rounds: how often each piece is timed.
        progress: show a progress bar, if stderr is a terminal.

    Raises:
        ValueError: no inputs, or `rounds` below 1.
    """
    if not parts:
        raise ValueError("parts must hold one input or more, got none")
    if rounds < 1:
        raise ValueError(f"rounds must be 1 or more, got {rounds}")

    def of(kind: int, index: int) -> Callable[[Parts], Call]:
        return lambda parts: (parts.layers, parts.exits)[kind][index]()

    first = parts[0]
    counts = len(first.layers), len(first.exits)
    names = [(kind, index) for kind in (0, 1) for index in range(counts[kind])]
    times = take_turns(
        {f"{kind} {index}": of(kind, index) for kind, index in names},
        {"wall": _clock(first.device)},
        parts,
        rounds=(rounds, rounds),
        progress=progress,
    )["wall"]
    medians = {name: np.median(of_one, axis=0) for name, of_one in times.items()}
    layers, exits = (
        np.stack([medians[f"{kind} {index}"] for index in range(counts[kind])], axis=1)
        for kind in (0, 1)
    )
    return Profile(layers, exits)


@torch.no_grad()
def flops(model: MultiExitModel, inputs: Inputs) -> tuple[list[int], list[int]]:
    """FLOPs of each layer and of each exit's head, as torch's flop counter counts them.

    That is matrix products, two for a multiplication with its addition: no biases, norms,
    activations or softmax, and nothing of a decision.

    Raises:
        ValueError: inputs that the model cannot take.
    """
    from torch.utils.flop_counter import FlopCounterMode  # which imports Triton

    backbone, exits = model.layers, model.config.exits
    backbone.check(inputs)
    layers: list[int] = []
    heads: list[int] = []
    # The counter does not know every fused attention; this one is made of matrix products.
    with sdpa_kernel(SDPBackend.MATH):
        hidden, context = backbone.start(inputs)
        for layer in range(1, backbone.depth + 1):
            with FlopCounterMode(display=False) as counted:
                hidden = backbone.layer(layer, hidden, context)
            layers.append(counted.get_total_flops())
            if layer in exits:
                with FlopCounterMode(display=False) as counted:
                    vectors = gathered(*backbone.readout(layer, hidden, context))
                    model.heads(len(heads) + 1, vectors)
                heads.append(counted.get_total_flops())
    return layers, heads


def _clock(device: torch.device) -> Callable[[Call], float]:
    """Milliseconds until the device has done what a call asked for."""

    def wait() -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    def read(call: Call) -> float:
        wait()
        start = time.perf_counter_ns()
        call()
        wait()
        return (time.perf_counter_ns() - start) / 1e6

    return read
