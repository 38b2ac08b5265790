"""BERT-base and MiniLM shapes from end to end, with forced exits."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from bench.gpu import forced
from bench.gpu.nvml import Nvml, joules_per_call
from bench.gpu.timing import Gpu
from bench.gpu.variants import ALL, EARLY, FULL, ONE_LAYER, Setup, Variant, compiles
from bench.shapes import SHAPES
from eefast import MultiExitModel
from eefast.measure import medians, summary, take_turns

DTYPE = torch.float16
CALLS = 30
"""Draws per round; all variants get the same ones."""

TIMING_S = 8.0
"""For the timed calls of a row."""

COMPILING_S = 30.0
"""For torch.compile of a variant, as long as it is not known here."""

WARM_UP = 4
"""Calls before anything is timed: torch.compile's reduce-overhead replays from the third on."""

LOGITS_MAY_DIFFER = 0.05
"""float16 through 12 layers, summed in another order; the logits are of the size of 1."""


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    model: str
    batch: int
    length: int
    energy: bool = False

    @property
    def name(self) -> str:
        return f"{self.model}, batch {self.batch}, length {self.length}"


# The most important come first: time may run out.
ROWS = tuple(
    Row(model, batch, length, energy=model == "BERT-base" and length == 128 and batch in (1, 32))
    for batch, length in ((1, 128), (1, 32), (8, 128), (32, 128), (8, 32), (32, 32))
    for model in SHAPES
)


def measure(
    gpu: Gpu,
    model: MultiExitModel,
    row: Row,
    *,
    seconds: float,
    names: Sequence[str] = tuple(ALL),
    without: Mapping[str, str] | None = None,
    expected_s: dict[str, float] | None = None,
    at: Callable[[str | None], None] = lambda name: None,
    nvml: Nvml | None = None,
    rounds: tuple[int, int] = (3, 40),
) -> dict[str, Any]:
    """Times, checks and energy of one row.

    Args:
        seconds: for all of it; what would take too long to compile is skipped.
        names: the variants, of `ALL`.
        without: variants to skip, and why.
        expected_s: how long variants took to compile before, by name; updated.
        at: called with the variant that is being prepared, and with None when all are.
        nvml: for energy and clocks.
        rounds: at least and at most, each of `CALLS` calls per variant and clock.

    Raises:
        RuntimeError: the GPU is no longer usable.
    """
    start, layers = time.monotonic(), model.layers.depth
    shares = forced.layer_shares(forced.recorded_histogram(), layers)
    depths = forced.draw_depths(shares, row.batch, CALLS)
    vocabulary = model.config.backbone_config.vocab_size
    setup = Setup(model, forced.tensor_inputs(row.batch, row.length, vocabulary, gpu.device))
    gc.collect()  # the graphs of the row before hold memory
    if any(map(compiles, names)):
        torch._dynamo.reset()  # otherwise shapes become symbols, and their number is limited
    made: dict[str, Variant] = {}
    variants: dict[str, dict[str, Any]] = {}
    for name in names:
        begun = time.monotonic()
        if without and name in without:
            variants[name] = {"error": without[name]}
            continue
        expected = (expected_s or {}).get(name, COMPILING_S)
        if compiles(name) and begun - start + expected + TIMING_S > seconds:
            variants[name] = {"skipped": "no time left to compile it"}
            continue
        at(name)
        try:
            variant = ALL[name](setup)
            for _ in range(WARM_UP):
                variant.ready(depths[0])()
            gpu.synchronize()
        except Exception as error:
            variants[name] = {"error": f"{type(error).__name__}: {error}"}
            gpu.synchronize()
        else:
            made[name] = variant
            variants[name] = {"ready_s": time.monotonic() - begun}
            if expected_s is not None:
                expected_s[name] = time.monotonic() - begun
    at(None)
    left = seconds - (time.monotonic() - start)
    times = take_turns(
        {name: variant.ready for name, variant in made.items()},
        {"wall": gpu.wall, "device": gpu.on_device},
        depths,
        seconds=max(2.0, min(left, TIMING_S)),
        rounds=rounds,
    )
    clocks = nvml.clocks() if nvml else None
    for name, variant in made.items():
        variants[name] |= {clock: summary(of_clock[name]) for clock, of_clock in times.items()}
        variants[name] |= _checked(variant, setup, depths, made)
    gpu.synchronize()
    result = {
        "model": row.model,
        "batch": row.batch,
        "length": row.length,
        "dtype": str(model.dtype).removeprefix("torch."),
        "layers": layers,
        "depths": depths,
        "layer_speedup": layers * len(depths) / sum(depths),
        "variants": variants,
        "layer_host_us": _layer_host_us(gpu, setup),
        "clocks": clocks,
    }
    result |= conclusions(result)
    if row.energy and nvml is not None:
        result["energy"] = _energy(gpu, made, depths, result["fastest_full_depth"], nvml)
    return result


def conclusions(row: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from the times of a row: the fastest engine of full depth, a layer's time, and
    for each variant with exits its speed-up over that engine, alone and over the layers'."""
    sound = {name: v for name, v in row["variants"].items() if "wall" in v and "error" not in v}
    wall = {name: variant["wall"]["us"] for name, variant in sound.items()}
    full = {name: us for name, us in wall.items() if name in FULL}
    fastest = min(full, key=full.__getitem__) if full else None
    speedups = {
        name: {"over_fastest": full[fastest] / us, "of_layers": full[fastest] / us
               / row["layer_speedup"]}
        for name, us in wall.items() if fastest is not None and name not in full
        and name != ONE_LAYER
    }  # fmt: skip
    layer_us = None
    if ONE_LAYER in wall and "Never(), graph" in wall:
        layer_us = (wall["Never(), graph"] - wall[ONE_LAYER]) / (row["layers"] - 1)
    return {"fastest_full_depth": fastest, "speedups": speedups, "layer_us": layer_us}


def _checked(
    variant: Variant, setup: Setup, depths: Sequence[int], made: Mapping[str, Variant]
) -> dict[str, Any]:
    """Check that samples exited where they had to, and that another variant's logits agree."""
    found: dict[str, Any] = {}
    different = sorted(set(depths))
    try:
        if variant.fast is not None and variant.forced is not None:
            found["layers_wasted"] = forced.check(
                variant.fast, variant.forced, setup.inputs, different
            )
        judges = EARLY if variant.forced is not None else FULL
        judge = next((made[name] for name in judges if name in made), None)
        if judge is not None and made.get(ONE_LAYER) is not variant:
            apart = max(float((variant.logits(d) - judge.logits(d)).abs().max()) for d in different)
            found["logits_differ_by"] = apart
            if not apart <= LOGITS_MAY_DIFFER:
                found["error"] = f"logits differ by {apart} from another variant's"
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"
    return found


@torch.inference_mode()
def _layer_host_us(gpu: Gpu, setup: Setup) -> float:
    """What the host takes to enqueue one layer on a stream."""
    layers = setup.model.layers
    hidden, context = layers.start(setup.inputs)

    def call() -> None:
        x = hidden
        for layer in range(1, layers.depth + 1):
            x = layers.layer(layer, x, context)

    return medians({"": call}, gpu.enqueue, seconds=0.5, rounds=(5, 50))[""] / layers.depth


def _energy(
    gpu: Gpu, made: Mapping[str, Variant], depths: Sequence[int], fastest: str | None, nvml: Nvml
) -> dict[str, Any]:
    """Energy of a call, of variants with exits and of the fastest without."""
    found: dict[str, Any] = {}
    for name in [*(n for n in EARLY if n in made), *([fastest] if fastest else [])]:

        def run(variant: Variant = made[name]) -> int:
            for depth in depths:
                variant.ready(depth)()
            gpu.synchronize()
            return len(depths)

        found[name] = None
        with suppress(ZeroDivisionError):
            found[name] = joules_per_call(nvml.energy_mj, run, seconds=1.0)
    return found
