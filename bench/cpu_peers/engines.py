"""The engines, each with the ways in which it can be set up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

import eefast
from bench.cpu_peers.models import SHAPES, make
from eefast.policies import Never

Run = Callable[..., Any]
"""From input_ids and attention_mask, [1, T], to logits, [1, 2]."""

Precision = Literal["float32", "bfloat16", "int8"]
OURS, PEER, REFERENCE = "ours", "peer", "reference"


class Setup(NamedTuple):
    """What an engine is set up for."""

    shape: str
    length: int
    folder: Path  # of the exported files
    threads: int


class Engine(NamedTuple):
    """How to set an engine up."""

    precision: Precision
    role: str
    ways: Callable[[Setup], Mapping[str, Run]]  # by name; the fastest is the one that counts
    export: str = ""  # what it needs of `bench.cpu_peers.export`: its inputs are then NumPy's


def transformers(setup: Setup) -> dict[str, Run]:
    """The model itself."""
    model = make(setup.shape)
    return {"": torch.inference_mode()(lambda **inputs: model(**inputs).logits)}


def ours(precision: Precision) -> Callable[[Setup], dict[str, Run]]:
    """A model that never exits, with the classifier of the others as its one exit."""

    def ways(setup: Setup) -> dict[str, Run]:
        last = SHAPES[setup.shape]["num_hidden_layers"]
        model = eefast.attach_exits(make(setup.shape), exits=[last], head="pooler", init="keep")
        fast = eefast.compile(model, Never(), dtype=precision)
        return {fast.lowering: lambda **inputs: fast(**inputs).logits}

    return ways


def compiled(dtype: torch.dtype) -> Callable[[Setup], dict[str, Run]]:
    """torch.compile with frozen weights, for this length alone."""

    def ways(setup: Setup) -> dict[str, Run]:
        torch._inductor.config.freezing = True
        model = torch.compile(make(setup.shape).to(dtype), dynamic=False)
        return {"": torch.no_grad()(lambda **inputs: model(**inputs).logits)}

    return ways


def openvino(file: str, *rest: str) -> Callable[[Setup], dict[str, Run]]:
    """OpenVINO for any length and for this one alone.

    Args:
        file: of the model.
        rest: precisions that are tried for what the file does not say the precision of.
    """

    def ways(setup: Setup) -> dict[str, Run]:
        return {
            f"{shapes}, {hint}": openvino_request(setup.folder / file, length, setup.threads, hint)
            for hint in openvino_hints(rest)
            for shapes, length in (("any length", -1), ("one length", setup.length))
        }

    return ways


def openvino_hints(wanted: Sequence[str]) -> list[str]:
    """Those precisions that OpenVINO has on this processor.

    Raises:
        RuntimeError: it has none of them.
    """
    import openvino as ov

    able = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    usable = [hint for hint in wanted if hint == "f32" or hint.upper() in able]
    if not usable:
        raise RuntimeError(f"OpenVINO has no {' or '.join(wanted)} on this processor")
    return usable


def openvino_request(file: Path, length: int, threads: int, hint: str) -> Run:
    """A model set up for single texts of a length, or of any (-1)."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(file)
    model.reshape({put.any_name: ov.PartialShape([1, length]) for put in model.inputs})
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": hint,
    }
    request = core.compile_model(model, "CPU", config).create_infer_request()
    return lambda **inputs: request.infer(inputs, share_inputs=True)[0]


def onnxruntime(suffix: str) -> Callable[[Setup], dict[str, Run]]:
    """ONNX Runtime on the model as it was exported, and with its own fused operators."""

    def ways(setup: Setup) -> dict[str, Run]:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = setup.threads
        sessions = {
            name: ort.InferenceSession(
                setup.folder / f"{name}{suffix}.onnx", options, providers=["CPUExecutionProvider"]
            )
            for name in ("exported", "fused")
        }
        return {name: _session(session) for name, session in sessions.items()}

    return ways


def _session(session: Any) -> Run:
    return lambda **inputs: session.run(None, inputs)[0]


JUDGE = "transformers fp32"
"""What the others' logits are compared with."""

ENGINES: dict[str, Engine] = {
    JUDGE: Engine("float32", REFERENCE, transformers),
    "eefast fp32": Engine("float32", OURS, ours("float32")),
    "eefast bf16": Engine("bfloat16", OURS, ours("bfloat16")),
    "eefast int8": Engine("int8", OURS, ours("int8")),
    "OpenVINO fp32": Engine("float32", PEER, openvino("openvino.xml", "f32"), "openvino"),
    "OpenVINO bf16": Engine("bfloat16", PEER, openvino("openvino.xml", "bf16"), "openvino"),
    "OpenVINO int8": Engine(
        "int8", PEER, openvino("openvino-int8.xml", "f32", "bf16"), "openvino-int8"
    ),
    "ONNX Runtime fp32": Engine("float32", PEER, onnxruntime(""), "onnx"),
    "ONNX Runtime int8": Engine("int8", PEER, onnxruntime("-int8"), "onnx-int8"),
    "torch.compile fp32": Engine("float32", PEER, compiled(torch.float32)),
    "torch.compile bf16": Engine("bfloat16", PEER, compiled(torch.bfloat16)),
}
