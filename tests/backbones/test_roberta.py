"""XLM-RoBERTa and CamemBERT, which are RoBERTa by another name."""

import pytest
import torch
import transformers
from torch import Tensor

from eefast.backbones import backbone_for
from eefast.backbones.families import RobertaBackbone

from .families import LONGEST, build, our_states, tokens


@pytest.mark.parametrize("prefix", ["XLMRoberta", "Camembert"])
@pytest.mark.parametrize("padding", [None, "left"])
def test_they_are_walked_as_transformers_walks_them(prefix: str, padding: str | None) -> None:
    roberta = build("roberta")
    config = getattr(transformers, f"{prefix}Config")(
        **{k: v for k, v in roberta.config.to_diff_dict().items() if k != "model_type"}
    )
    model = getattr(transformers, f"{prefix}Model")(config).eval()
    model.load_state_dict(roberta.state_dict())
    model.set_attn_implementation("eager")
    backbone = backbone_for(model)
    assert isinstance(backbone, RobertaBackbone)
    assert backbone.max_length == LONGEST
    inputs: dict[str, Tensor] = tokens(padding=padding)
    with torch.no_grad():
        theirs = model(**inputs, output_hidden_states=True).hidden_states
        ours = our_states(backbone, **inputs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
