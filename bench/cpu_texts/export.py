"""The trained model, at full depth and cut, for OpenVINO."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.cpu_texts import CUT, DEPTH, NEVER, PEERS
from bench.cpu_texts.data import model, texts
from eefast import MultiExitModel

CALIBRATION_TEXTS = 300
"""Of the validation split, for NNCF: as many as it takes by default."""


@torch.no_grad()
def export(folder: Path) -> dict[str, dict[str, Path]]:
    """By engine and policy, the files; in a process of its own, as in `bench.cpu_peers.export`."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import nncf
    import openvino as ov

    trained = model().eval()
    drawn = [
        {name: ids.numpy() for name, ids in text.items()}
        for text in texts("validation").inputs[:CALIBRATION_TEXTS]
    ]
    files: dict[str, dict[str, Path]] = {name: {} for name in PEERS}
    for title, layers in ((NEVER, trained.layers.depth), (CUT, DEPTH)):
        converted = ov.convert_model(
            AtDepth(trained, layers),
            example_input=texts("test").inputs[0],
            input=[
                (name, ov.PartialShape([-1, -1]), ov.Type.i64)
                for name in ("input_ids", "attention_mask")
            ],
        )
        quantised = nncf.quantize(
            converted.clone(),
            nncf.Dataset(drawn),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(drawn),
        )
        for name, network in zip(PEERS, (converted, quantised), strict=True):
            files[name][title] = folder / f"{PEERS[name]}-{layers}.xml"
            ov.save_model(network, files[name][title], compress_to_fp16=False)
    return files


class AtDepth(nn.Module):
    """The logits [1, C] of one exit, without the layers after it and the other exits."""

    def __init__(self, trained: MultiExitModel, layers: int) -> None:
        super().__init__()
        backbone: Any = copy.deepcopy(trained.backbone)
        backbone.encoder.layer = backbone.encoder.layer[:layers]
        backbone.pooler = None
        self._backbone = backbone
        self._heads = trained.heads
        self._exit = trained.config.exits.index(layers) + 1

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self._backbone(input_ids, attention_mask, return_dict=True).last_hidden_state
        logits: Tensor = self._heads(self._exit, hidden[:, 0])[0]
        return logits
