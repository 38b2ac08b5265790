"""Embeddings of tokens in one op: against those of transformers, in fp64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import eefast
from eefast.lowering.embeddings import TokenEmbeddings, embeddings_of
from eefast.lowering.packed import without_padding
from eefast.policies import Never

from ..backbones.families import PAD
from ..models import tiny_model
from .test_program import case

FAMILIES = ["bert", "roberta", "electra", "distilbert", "mpnet", "modernbert"]
NUMBERS = [
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool),
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
]
embed_tokens = torch.ops.eefast.embed_tokens


def ids(batch: int, length: int) -> Tensor:
    """With padding in the middle of some texts."""
    g = torch.Generator().manual_seed(batch * 100 + length)
    return torch.randint(PAD, PAD + 9, (batch, length), generator=g)


def calls(takes: Any) -> list[dict[str, Tensor]]:
    plain = [{"input_ids": ids(*shape)} for shape in ((1, 1), (3, 17), (40, 20))]
    every_other = ids(3, 34)[:, ::2]
    made = [
        *plain,
        {"input_ids": ids(2, 9).int()},
        {"input_ids": every_other},
        {"input_ids": ids(1, 9).expand(4, -1)},
    ]
    if "token_type_ids" in takes:
        made += [
            {"input_ids": ids(3, 9), "token_type_ids": torch.arange(9 * rows).view(rows, 9) % 2}
            for rows in (1, 3)
        ]
    if "position_ids" in takes:
        made += [
            {"input_ids": ids(3, 9), "position_ids": torch.arange(9 * rows).view(rows, 9) + 2}
            for rows in (1, 3)
        ]
    return made


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_an_op_computes_what_the_embeddings_of_transformers_do(name):
    """At most twice the error that those have in float32, and two roundings of the result."""
    own, exact = case(name, "eager")
    embed = embeddings_of(own)
    assert embed is not None
    for inputs in calls(own.takes):
        theirs, measure = own.start(inputs)[0], exact.start(inputs)[0]
        assert measure.dtype == torch.float64
        rounding = torch.finfo(torch.float32).eps * measure.abs().max()
        allowed = 2 * (theirs.double() - measure).abs().max() + 2 * rounding
        ours = embed(inputs, ragged=False)[0]
        assert ours.shape == theirs.flatten(0, 1).shape
        assert (ours.view_as(measure).double() - measure).abs().max() <= allowed, inputs


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_each_text_is_embedded_as_alone(name):
    embed, batch = embeddings_of(case(name, "eager")[0]), ids(40, 20)
    assert embed is not None
    together = embed({"input_ids": batch}, ragged=False)[0]
    for text, wanted in zip(batch, together.split(20), strict=True):
        assert torch.equal(embed({"input_ids": text[None]}, ragged=False)[0], wanted)
    assert embed({"input_ids": batch[:0]}, ragged=False)[0].shape == (0, together.shape[-1])


@torch.no_grad()
def test_the_tables_stay_the_models_own():
    model = tiny_model()
    embed, inputs = embeddings_of(model.layers), {"input_ids": ids(2, 5)}
    assert embed is not None
    before = embed(inputs, ragged=False)[0]
    model.backbone.embeddings.word_embeddings.weight[PAD:] += 1
    after = embed(inputs, ragged=False)[0]
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, model.layers.start(inputs)[0].flatten(0, 1))


@pytest.mark.parametrize("dtype", NUMBERS)
@torch.no_grad()
def test_a_mask_with_a_zero_hides_something(dtype):
    embed, batch = embeddings_of(tiny_model().layers), ids(2, 5)
    assert embed is not None

    def hides(mask: Tensor | None) -> bool:
        inputs = {"input_ids": batch}
        return embed(inputs if mask is None else {**inputs, "attention_mask": mask}, ragged=False)[
            2
        ]

    mask = torch.ones(2, 5, dtype=dtype)
    assert not hides(mask)
    assert not hides(None)
    for place in ((0, 0), (1, 4)):
        for zero in (0.0, -0.0):
            hiding = mask.clone()
            hiding[place] = zero
            assert hides(hiding)
    assert hides(hiding[1:].expand(2, -1))


MASKS = [
    # of one text; how many of its tokens there are without the padding behind, and whether one of
    # these is hidden
    ([1, 1, 1, 1, 1], 5, False),
    ([1, 1, 1, 0, 0], 3, False),
    ([1, 0, 0, 0, 0], 1, False),
    ([0, 0, 1, 1, 1], 5, True),
    ([1, 0, 1, 0, 0], 3, True),
    ([0, 1, 0, 0, 0], 2, True),
    ([0, 0, 0, 0, 0], 5, True),
]


@pytest.mark.parametrize("texts", [MASKS, MASKS[:3], MASKS[1:2], []], ids=len)
@torch.no_grad()
def test_padding_behind_a_text_is_left_out(texts):
    """By the op, and, where embeddings are not its own, from the padded ones."""
    model = tiny_model().layers
    embed, batch = embeddings_of(model), ids(len(texts), 5)
    assert embed is not None
    mask = torch.tensor([shown for shown, *_ in texts], dtype=torch.int64).view(-1, 5)
    inputs = {"input_ids": batch, "attention_mask": mask}
    rows, lengths, hides = embed(inputs, ragged=True)
    assert lengths.tolist() == [length for _, length, _ in texts]
    assert hides == any(hidden for *_, hidden in texts)
    padded = embed(inputs, ragged=False)[0].view(len(texts), 5, 32)
    of_texts = [text[:length] for text, (_, length, _) in zip(padded, texts, strict=True)]
    assert torch.equal(rows, torch.cat([*of_texts, padded[:0].flatten(0, 1)]))
    other_rows, other_lengths = without_padding(padded, mask)
    assert torch.equal(other_rows, rows)
    assert torch.equal(other_lengths, lengths)


def _hooked(embeddings: Any) -> None:
    embeddings.LayerNorm.register_forward_hook(lambda *_: None)


def _limited(embeddings: Any) -> None:
    embeddings.word_embeddings.max_norm = 1.0


def _wider(embeddings: Any) -> None:
    embeddings.position_embeddings = nn.Embedding(40, 64)


def _no_table(embeddings: Any) -> None:
    embeddings.word_embeddings = nn.Linear(32, 32)


def _other_norm(embeddings: Any) -> None:
    embeddings.LayerNorm = nn.Identity()


def _other_types(embeddings: Any) -> None:
    embeddings.token_type_ids[0, 3] = 1


def _other_places(embeddings: Any) -> None:
    embeddings.position_ids = embeddings.position_ids.flip(1)


def _training(embeddings: Any) -> None:
    embeddings.dropout.train()


@pytest.mark.parametrize(
    "change",
    [_hooked, _limited, _wider, _no_table, _other_norm, _other_types, _other_places, _training],
)
def test_what_computes_something_else_stays_as_it_is(change):
    model = tiny_model()
    assert isinstance(embeddings_of(model.layers), TokenEmbeddings)
    change(model.backbone.embeddings)
    assert embeddings_of(model.layers) is None


@pytest.mark.parametrize("name", ["albert", "electra-narrow"])
def test_narrow_embeddings_stay_as_they_are(name):
    assert embeddings_of(case(name, "eager")[0]) is None


def test_other_precisions_stay_as_they_are():
    assert embeddings_of(case("bert", "eager", torch.bfloat16)[0]) is None


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": torch.tensor([[3, 99]])}, "input_ids: got 3 to 99; wanted 0 to 98"),
        ({"input_ids": torch.tensor([[3, -1]])}, "input_ids: got -1 to 3"),
        (
            {"input_ids": torch.tensor([[3]]), "token_type_ids": torch.tensor([[2]])},
            "token_type_ids: got 2 to 2",
        ),
        (
            {"input_ids": torch.tensor([[3]]), "position_ids": torch.tensor([[40]])},
            "position_ids: got 40 to 40",
        ),
    ],
)
def test_ids_that_a_table_does_not_have_are_refused(inputs, message):
    fast = eefast.compile(tiny_model(), Never(), dtype="float32")
    with pytest.raises(ValueError, match=message):
        fast(**inputs)


def test_embeddings_that_are_given_are_taken():
    model = tiny_model()
    fast, given = eefast.compile(model, Never(), dtype="float32"), torch.randn(2, 5, 32)
    wanted = eefast.compile(model, Never())(inputs_embeds=given).logits
    torch.testing.assert_close(fast(inputs_embeds=given).logits, wanted, rtol=1e-4, atol=1e-4)


def test_arguments_of_the_op():
    table, vector = torch.randn(9, 4), torch.ones(4)
    some = torch.zeros(2, 3, dtype=torch.int64)

    def run(
        ids=some,
        types=None,
        places=None,
        mask=None,
        tables=(table, table, table),
        norm=(vector, vector),
    ):
        return embed_tokens(ids, types, places, mask, *tables, *norm, 1e-5, -1, False)

    assert run()[0].shape == (6, 4)
    for change, message in [
        ({"ids": some[0]}, r"ids must be \[samples, tokens\]"),
        ({"ids": some.float()}, "ids must be int64 or int32"),
        ({"types": some[:, :2]}, r"types must be int64 or int32 \[2, 3\]"),
        ({"places": some.expand(2, 3)[[0, 0, 1]]}, "places must be int64"),
        ({"types": some, "tables": (table, None, table)}, "types must be None without"),
        ({"places": some, "tables": (table, table, None)}, "places must be None without"),
        ({"mask": some[0]}, r"mask must be \[2, 3\]"),
        ({"mask": some[:1]}, r"mask must be \[2, 3\]"),
        ({"mask": some.to(torch.complex64)}, "mask must be of numbers"),
        ({"ids": some + 9}, "ids must be in 0..8, got 9"),
        ({"ids": torch.zeros(1, 10, dtype=torch.int64)}, "places must be in 0..8, got 9"),
        ({"tables": (table[:, ::2], None, None)}, "token_table must be float32"),
        ({"tables": (table, torch.randn(9, 5), None)}, "type_table must be float32"),
        ({"norm": (vector[:3], vector)}, r"weight must be float32 \[4\]"),
        ({"norm": (vector, vector.double())}, r"bias must be float32 \[4\]"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            run(**change)
