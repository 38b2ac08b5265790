"""Files of a model for the engines that do not read it from PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.cpu_peers import LENGTHS
from bench.cpu_peers.models import HEADS, SHAPES, make, texts

CALIBRATION_TEXTS = 16
"""Of each length, for NNCF."""

_NAMES = ["input_ids", "attention_mask"]


def export(shape: str, folder: Path) -> dict[str, str]:
    """Write all files to a folder, and say what could not be written, and why.

    In a process of its own: OpenVINO and NNCF report every use to their makers, in processes that
    compete with this one. They do without where that package is missing, and here it is.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    failed = {}
    for name, write in EXPORTS.items():
        try:
            with torch.no_grad():
                write(shape, folder)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    return failed


def openvino(shape: str, folder: Path) -> None:
    """openvino.xml: any length, weights in fp32."""
    import openvino as ov

    tokens = ov.PartialShape([1, -1])
    converted = ov.convert_model(
        _Logits(make(shape)),
        example_input=texts(32)[0],
        input=[(name, tokens, ov.Type.i64) for name in _NAMES],
    )
    ov.save_model(converted, folder / "openvino.xml", compress_to_fp16=False)


def nncf(shape: str, folder: Path) -> None:
    """openvino-int8.xml: weights and activations by NNCF, after training."""
    import nncf
    import openvino as ov

    drawn = [
        {name: ids.numpy() for name, ids in text.items()}
        for length in LENGTHS
        for text in texts(length, CALIBRATION_TEXTS, seed=1)
    ]
    quantised = nncf.quantize(
        ov.Core().read_model(folder / "openvino.xml"),
        nncf.Dataset(drawn),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(drawn),
    )
    ov.save_model(quantised, folder / "openvino-int8.xml", compress_to_fp16=False)


def onnx(shape: str, folder: Path) -> None:
    """exported.onnx, and fused.onnx with ONNX Runtime's operators for attention and norms."""
    from onnxruntime.transformers import optimizer

    for attention, path in _onnx_files(folder):
        torch.onnx.export(
            _Logits(make(shape, attn_implementation=attention)),
            tuple(texts(32)[0].values()),
            path,
            dynamo=False,
            opset_version=17,
            input_names=_NAMES,
            output_names=["logits"],
            dynamic_axes={name: {1: "tokens"} for name in _NAMES},
        )
    path = folder / "fused.onnx"
    fused = optimizer.optimize_model(
        str(path), "bert", num_heads=HEADS, hidden_size=SHAPES[shape]["hidden_size"]
    )
    fused.save_model_to_file(str(path))


def onnx_int8(shape: str, folder: Path) -> None:
    """Both with weights in int8, a scale per channel; activations are quantised at each call."""
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for _, path in _onnx_files(folder):
        quantize_dynamic(
            path,
            path.with_stem(f"{path.stem}-int8"),
            weight_type=QuantType.QInt8,
            per_channel=True,
            # What ONNX cannot infer of the operators that are ONNX Runtime's own.
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )


EXPORTS: dict[str, Callable[[str, Path], None]] = {
    "openvino": openvino,
    "openvino-int8": nncf,
    "onnx": onnx,
    "onnx-int8": onnx_int8,
}


def _onnx_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """With the attention that each is exported with: the optimizer knows the plain one alone."""
    yield "sdpa", folder / "exported.onnx"
    yield "eager", folder / "fused.onnx"


class _Logits(nn.Module):
    """A classifier that takes and gives tensors alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self._model(input_ids, attention_mask, return_dict=True).logits
        return logits
