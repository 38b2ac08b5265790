"""Small random models of every family, inputs for them, and what to compare them by."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from eefast.backbones import Backbone, Context, backbone_for

PAD = 1
VOCABULARY = 60
LONGEST = 24
LAYERS = 3
TOKEN_TYPES = 3

_SHAPE = {
    "vocab_size": VOCABULARY,
    "pad_token_id": PAD,
    "num_hidden_layers": LAYERS,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    # Wide enough for the attention to differ from a plain mean, and a mask from no mask.
    "initializer_range": 0.3,
}


@dataclass(frozen=True)
class Family:
    """How a family's test model is made, and what its inputs may be."""

    prefix: str  # of its transformers classes
    positions: int = LONGEST  # rows of the position table
    token_types: bool = True
    attention: tuple[str, ...] = ("sdpa", "eager")
    additive: bool = True  # its mask is added to the scores
    captured: bool = True  # its layers make no tensor on the host
    blocks: int = 1  # entries of output_hidden_states per layer
    last: str = ""  # the last layer's path, where output_hidden_states ends with the normed one
    config: dict[str, Any] = field(default_factory=dict)


_MODERN = {
    # Where a window holds padding only, transformers gives NaN in fp64, which is the measure here.
    "local_attention": 16,
    "embedding_dropout": 0.1,
    "mlp_dropout": 0.1,
    **dict.fromkeys(("bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id"), 2),
}

_DEBERTA = {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
}

FAMILIES = {
    "bert": Family("Bert"),
    # Two rows of its position table come before the first token's.
    "roberta": Family("Roberta", positions=LONGEST + 2),
    "electra": Family("Electra", config={"embedding_size": 32}),
    "electra-narrow": Family("Electra", config={"embedding_size": 12}),
    "distilbert": Family("DistilBert", token_types=False, config={"hidden_dim": 48}),
    "albert": Family("Albert", config={"embedding_size": 12}),
    # Five layers of three groups: their sizes differ, and rounding decides which are larger.
    "albert-groups": Family(
        "Albert",
        config={"embedding_size": 12, "num_hidden_groups": 3, "num_hidden_layers": 5},
    ),
    "albert-blocks": Family(
        "Albert",
        blocks=2,
        config={"embedding_size": 12, "num_hidden_groups": 2, "inner_group_num": 2},
    ),
    # transformers has no sdpa for it.
    "mpnet": Family("MPNet", positions=LONGEST + 2, token_types=False, attention=("eager",)),
    # v3's settings; it has no sdpa either.
    "deberta-v2": Family(
        "DebertaV2", attention=("eager",), additive=False, captured=False, config=_DEBERTA
    ),
    # One layer that sees all tokens, and two with a window of eight on each side.
    "modernbert": Family("ModernBert", token_types=False, last="layers.2", config=_MODERN),
    "modernbert-mean": Family(
        "ModernBert",
        token_types=False,
        last="layers.2",
        config={**_MODERN, "classifier_pooling": "mean"},
    ),
}

# (family, attention implementation): the grid of the tests in fp32
PAIRS = [(name, attention) for name, family in FAMILIES.items() for attention in family.attention]
GRID = [
    (name, attention, dtype)
    for name, attention in PAIRS
    for dtype in (torch.float32, torch.bfloat16)
]
CAPTURED = [case for case in GRID if FAMILIES[case[0]].captured]


def grid_id(value: Any) -> str:
    """A short name of a grid value for pytest."""
    return str(value).removeprefix("torch.")


def build(name: str, attention: str = "eager", task: str = "Model", **config: Any) -> Any:
    """A new random model in eval mode, in fp32: the base model or a task model (`task`)."""
    family = FAMILIES[name]
    settings = {**_SHAPE, "max_position_embeddings": family.positions, **family.config, **config}
    if family.token_types:
        settings["type_vocab_size"] = TOKEN_TYPES
    made = getattr(transformers, f"{family.prefix}Config")(**settings)
    made._attn_implementation = attention
    torch.manual_seed(0)
    model = getattr(transformers, f"{family.prefix}{task}")(made).eval()
    with (
        torch.no_grad()
    ):  # transformers starts with zero biases and unit norms, which hide mistakes
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@cache
def model_of(name: str, attention: str, dtype: torch.dtype) -> Any:
    """The base model in `dtype`, shared by the tests; do not change it."""
    return build(name, attention).to(dtype)


@cache
def exact_model_of(name: str, attention: str, dtype: torch.dtype) -> Any:
    """The fp64 model with exactly the weights of `model_of`: the measure of rounding errors."""
    return copy.deepcopy(model_of(name, attention, dtype)).double()


def tokens(batch: int = 3, length: int = 10, padding: str | None = None) -> dict[str, Tensor]:
    """Random tokens; with `padding` ("right" or "left"), sample i has 2 i of them padded."""
    generator = torch.Generator().manual_seed(batch * 100 + length)
    input_ids = torch.randint(PAD + 1, VOCABULARY, (batch, length), generator=generator)
    if padding is None:
        return {"input_ids": input_ids}
    attention_mask = torch.ones(batch, length, dtype=torch.int64)
    for sample in range(batch):
        shown = length - 2 * sample
        hidden = slice(shown, None) if padding == "right" else slice(None, length - shown)
        attention_mask[sample, hidden] = 0
    input_ids[attention_mask == 0] = PAD
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def their_states(name: str, model: PreTrainedModel, **inputs: Tensor) -> list[Tensor]:
    """transformers' hidden states before layer 1 and after each layer."""
    last: list[Tensor] = []
    path = FAMILIES[name].last
    hook = path and model.get_submodule(path).register_forward_hook(lambda *c: last.append(c[-1]))
    states = model(**inputs, output_hidden_states=True).hidden_states
    if hook:
        hook.remove()
    assert states is not None
    states = [*states[:-1], *last] if last else states
    return list(states[:: FAMILIES[name].blocks])


def our_states(backbone: Backbone, **inputs: Tensor) -> list[Tensor]:
    """The adapter's hidden states before layer 1 and after each layer."""
    return drive(backbone, *started(backbone, **inputs))


def started(backbone: Backbone, **inputs: Tensor) -> tuple[Tensor, Any]:
    """The hidden states before layer 1 and the context, of inputs that pass the check."""
    backbone.check(inputs)
    return backbone.start(inputs)


def drive(backbone: Backbone, hidden: Tensor, context: Context, after: int = 0) -> list[Tensor]:
    """`hidden`, which comes after layer `after`, and the states after each layer that follows."""
    states = [hidden]
    for index in range(after + 1, backbone.depth + 1):
        states.append(backbone.layer(index, states[-1], context))
    return states


def assert_as_exact(ours: Tensor, theirs: Tensor, exact: Tensor) -> None:
    """Our error against fp64 is at most twice theirs (plus two roundings of the result).

    Both errors are sums of the same kind of roundings in another order, so they are of one size;
    the two roundings are for results that transformers happens to hit exactly.
    """
    rounding = 2 * torch.finfo(ours.dtype).eps * exact.abs().max()
    allowed = 2 * (theirs.double() - exact).abs().max() + rounding
    error = (ours.double() - exact).abs().max()
    assert error <= allowed, f"error {error:.3g}, allowed {allowed:.3g}"


def adapter(name: str, attention: str = "eager", dtype: torch.dtype = torch.float32) -> Backbone:
    """The adapter around `model_of`."""
    return backbone_for(model_of(name, attention, dtype))
