"""transformers' classification pipelines, whose answers to a compiled model say `exit_layer` too.

Importing eefast registers them for their tasks. For models that are not eefast's they make
transformers' own pipelines.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

from transformers import (
    AudioClassificationPipeline,
    ImageClassificationPipeline,
    TextClassificationPipeline,
)
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils.generic import ModelOutput

from eefast.multi_exit import MultiExitModel
from eefast.runtime import CompiledModel


class _EarlyExitPipeline:
    """What the pipelines below have beside those that they replace, `theirs`."""

    theirs: ClassVar[type]
    model: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        model = kwargs.get("model", args[0] if args else None)
        if isinstance(model, CompiledModel | MultiExitModel):
            return super().__new__(cls)
        return cls.theirs(*args, **kwargs)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.model, MultiExitModel):
            warnings.warn(
                "pipeline: a MultiExitModel runs at full depth. For early exits compile it: "
                "pipeline(task, model=eefast.compile(model, policy), ...), where model is "
                "eefast.MultiExitModel.from_pretrained(folder)",
                stacklevel=4,
            )

    def check_model_type(self, supported_models: Any) -> None:
        """eefast's models are supported, and no others come here."""

    def _forward(self, *args: Any, **kwargs: Any) -> ModelOutput:
        # What is read below, and no more: a batch is taken apart sample by sample.
        output = super()._forward(*args, **kwargs)  # type: ignore[misc]
        return ModelOutput({k: output[k] for k in ("logits", "exit_layer") if k in output})

    def postprocess(self, model_outputs: Any, *args: Any, **kwargs: Any) -> Any:
        """transformers' answer, a dictionary or several, with `exit_layer` in each."""
        answer = super().postprocess(model_outputs, *args, **kwargs)  # type: ignore[misc]
        if "exit_layer" in model_outputs:
            layer = int(model_outputs["exit_layer"][0])
            for label in [answer] if isinstance(answer, dict) else answer:
                label["exit_layer"] = layer
        return answer


class EarlyExitTextClassificationPipeline(_EarlyExitPipeline, TextClassificationPipeline):
    """For "text-classification"."""

    theirs = TextClassificationPipeline


class EarlyExitImageClassificationPipeline(_EarlyExitPipeline, ImageClassificationPipeline):
    """For "image-classification"."""

    theirs = ImageClassificationPipeline


class EarlyExitAudioClassificationPipeline(_EarlyExitPipeline, AudioClassificationPipeline):
    """For "audio-classification"."""

    theirs = AudioClassificationPipeline


_OURS: dict[str, type[_EarlyExitPipeline]] = {
    "text-classification": EarlyExitTextClassificationPipeline,
    "image-classification": EarlyExitImageClassificationPipeline,
    "audio-classification": EarlyExitAudioClassificationPipeline,
}
for task, ours in _OURS.items():
    # `register_pipeline` would warn at each import, and have saved pipelines carry this file.
    tasks = PIPELINE_REGISTRY.supported_tasks
    known = tasks[task]["impl"]  # a class, or where it lies
    name = known.rpartition(".")[2] if isinstance(known, str) else known.__name__
    if name == ours.theirs.__name__:  # and not a user's own
        tasks[task] = {**tasks[task], "impl": ours}
