"""transformers at full depth gives what the multi-exit model gives at its last exit."""

import pytest
import torch
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel

from eefast import attach_exits
from eefast.evaluation import FullDepth
from tests.backbones.families import FAMILIES, build, tokens
from tests.models import tiny_model


def gpt2():
    return GPT2Model(GPT2Config(vocab_size=60, n_embd=32, n_layer=3, n_head=4, pad_token_id=1))


def llama():
    config = LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, pad_token_id=1,
    )  # fmt: skip
    return LlamaModel(config)


MADE = {
    **{name: lambda name=name: build(name, FAMILIES[name].attention[0]) for name in FAMILIES},
    "gpt2": gpt2,  # walked; reads the last token, after a norm; has a cache
    "llama": llama,
}


@pytest.mark.parametrize("head", ["linear", "pooler"])
@pytest.mark.parametrize("name", MADE)
def test_its_logits_are_the_last_exits(name, head):
    torch.manual_seed(0)
    model = attach_exits(MADE[name]().eval(), head=head, num_labels=3).eval()
    inputs = tokens(padding="right")
    wanted = model(**inputs).logits
    full = FullDepth(model, inputs)
    torch.testing.assert_close(full.prepared(inputs)(), wanted, rtol=1e-4, atol=1e-5)
    other = tokens(batch=2, length=7)
    other = {**other, "attention_mask": torch.ones_like(other["input_ids"])}
    torch.testing.assert_close(full.prepared(other)(), model(**other).logits, rtol=1e-4, atol=1e-5)


def test_it_runs_the_models_own_forward_and_leaves_nothing_behind():
    model = tiny_model()
    inputs = {"input_ids": torch.tensor([[4, 5, 6]])}
    full = FullDepth(model, inputs)
    calls = []
    hook = model.backbone.register_forward_hook(lambda *_: calls.append("forward"))
    call = full.prepared(inputs)
    assert calls == []  # preparing runs no layer
    call()
    hook.remove()
    assert calls == ["forward"]
    assert not any(module._forward_hooks for module in model.modules())
