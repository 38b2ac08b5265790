"""Layers and exits in one op: as one by one, bit by bit."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import eefast
from eefast.lowering import PRECISIONS, PackedBackbone
from eefast.ops import ExitState, _native
from eefast.policies import Budgeted, Confidence, Never, ShallowDeep, Voting
from eefast.runtime import RuntimeStats

from ..models import inputs_for, plan_for, tiny_model
from .test_direct import POLICIES

EVERY_KIND = [*POLICIES, Voting(0.7), ShallowDeep(0.7)]
CALLS = [(1, False), (1, True), (9, False), (40, True)]


class Ops(TorchDispatchMode):
    """Counts the ops of this package."""

    def __enter__(self):
        self.called: Counter[str] = Counter()
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "eefast":
            self.called[func._schema.name.removeprefix("eefast::")] += 1
        return func(*args, **(kwargs or {}))


def compiled(policy, precision="float32", runtime="auto", **options):
    return eefast.compile(tiny_model(**options), policy, dtype=precision, runtime=runtime)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("options", [{"head": "linear"}, {"head": "pooler", "cascade": True}])
def test_one_op_does_what_the_stages_do_one_by_one(options, precision):
    """The sync runtime runs stage by stage, and evicts nothing."""
    fast, plain = (
        compiled(Never(), precision, **options),
        compiled(Never(), precision, "sync", **options),
    )
    for policy, (batch, padded) in itertools.product(EVERY_KIND, CALLS):
        fast.policy = plain.policy = policy
        inputs = inputs_for(tiny_model(), batch, seed=batch, padded=padded)
        ours, theirs = fast(**inputs), plain(**inputs)
        for name in ("exit_layer", "prediction", "score", "logits"):
            assert torch.equal(ours[name], theirs[name]), (policy, batch, name)


def test_a_text_is_one_op_from_the_embeddings_to_the_answer():
    fast = compiled(Confidence(threshold=1.0))
    with Ops() as ops:
        fast(**inputs_for(tiny_model(), 1))
    assert ops.called["packed_stages"] == 1
    assert set(ops.called) == {"begin_call", "embed_tokens", "packed_stages"}


def test_a_batch_is_one_op_and_those_who_exit_are_evicted():
    fast, inputs = compiled(Confidence(threshold=0.6)), inputs_for(tiny_model(), 40)
    fast.stats = stats = RuntimeStats()
    with Ops() as ops:
        exits = fast(**inputs).exit_layer
    assert len(exits.unique()) > 2
    [call] = stats.calls
    assert ops.called["packed_stages"] == 1
    assert 0 < call.evictions < len(exits.unique())


def test_stats_count_what_one_op_did():
    fast = compiled(Never())
    for policy, layers, steps in ((Never(), 4, 1), (Confidence(threshold=1.0), 4, 4)):
        fast.policy, fast.stats = policy, RuntimeStats()
        fast(**inputs_for(tiny_model(), 1))
        [call] = fast.stats.calls
        assert (call.layers_run, call.exit_steps) == (layers, steps)


def test_a_policy_or_weights_that_are_changed_hold_from_the_next_call_on():
    model = tiny_model()
    fast, inputs = compiled(Never()), inputs_for(model, 3)
    before = fast(**inputs)
    fast.policy = Budgeted(1)
    assert (fast(**inputs).exit_layer == 1).all()
    fast.policy = Never()
    assert torch.equal(fast(**inputs).logits, before.logits)
    with torch.no_grad():
        for parameter in fast.model.heads.parameters():
            parameter.mul_(2)
    assert not torch.equal(fast(**inputs).logits, before.logits)


def test_other_embeddings_are_taken_when_the_policy_is_assigned():
    fast = compiled(Never())
    fast.model.backbone.resize_token_embeddings(120, mean_resizing=False)
    fast.policy = Never()
    ids = torch.tensor([[3, 119]])
    backbone = fast.backbone
    with torch.inference_mode():
        torch.testing.assert_close(
            backbone.start({"input_ids": ids})[0], fast.model.layers.start({"input_ids": ids})[0]
        )
    assert fast(input_ids=ids).logits.isfinite().all()


def test_another_implementation_runs_stage_by_stage():
    model, policy = tiny_model(), Confidence(threshold=1.0)
    fast = eefast.compile(model, policy, dtype="float32", impl="reference")
    assert isinstance(fast.backbone, PackedBackbone)
    with Ops() as ops:
        output = fast(**inputs_for(model, 3))
    assert (ops.called["packed_stages"], ops.called["packed_blocks"]) == (0, 4)
    wanted = eefast.compile(model, policy, dtype="float32")(**inputs_for(model, 3))
    torch.testing.assert_close(output.logits, wanted.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("samples", [0, 1, 5])
def test_a_call_begins_as_it_does_without_the_extension(monkeypatch, samples):
    plan = plan_for(Confidence(threshold=0.5), tiny_model())
    table, state = plan.begin(samples, 3, "cpu")
    monkeypatch.setattr(_native, "AVAILABLE", False)
    plain_table, plain = plan.begin(samples, 3, "cpu")
    for ours, other in zip((table, *state[:5]), (plain_table, *plain[:5]), strict=True):
        assert torch.equal(ours, other)
        assert ours.dtype == other.dtype
        assert ours.is_contiguous()
    table += 1  # a copy
    assert torch.equal(plan.table, plain_table)


def test_arguments_of_begin_call():
    begin, table = torch.ops.eefast.begin_call, torch.zeros(2, 3)
    with pytest.raises(RuntimeError, match=r"samples must be in 0\.\..*got -1"):
        begin(-1, 3, table)
    with pytest.raises(RuntimeError, match=r"table must be \[exits, 3\]"):
        begin(1, 3, table[0])
    with pytest.raises(RuntimeError, match="table must be Float"):
        begin(1, 3, table.double())


def test_arguments_of_packed_stages():
    fast = compiled(Confidence(threshold=1.0))
    plan, backbone, inputs = fast._plan, fast.backbone, inputs_for(tiny_model(), 2)
    with torch.inference_mode():
        hidden, lengths, tokens, _ = backbone.start_ragged(inputs)
        blocks = backbone.layers.blocks(range(1, 3))
        head = [part for part in plan.stages[0].head if part is not None]
        which = sum((part is not None) << i for i, part in enumerate(plan.stages[0].head))
        steps = [stage.step for stage in plan.stages[:2]]
        vector = torch.ones(32)

        def run(
            x=hidden,
            lengths=lengths,
            tokens=tokens,
            counts=(1, 1),
            norm=(None, None),
            heads=head * 2,
            given=(which, which),
            steps=steps,
        ):
            state = ExitState.start(2, 3, 4)
            torch.ops.eefast.packed_stages(
                x, lengths, tokens, blocks, counts, None, None, [], 0.0, False, *norm, 1e-5, heads,
                given, steps, plan.table, *state[:5], None, None,
            )  # fmt: skip
            return state

        assert run().running[:2].all()
        assert run(norm=(vector, vector)).running[:2].all()
        for change, message in [
            ({"x": hidden[1:]}, rf"x must be float32 \[{len(hidden)}, 32\]"),
            ({"x": hidden[:, :31]}, "x must be float32"),
            ({"x": hidden[None]}, "x must be float32"),
            ({"lengths": lengths[:0], "x": hidden[:0]}, "at least one sample"),
            ({"lengths": lengths.int()}, "lengths must be int64"),
            ({"lengths": lengths[None]}, "lengths must be int64"),
            ({"lengths": lengths * 0}, f"lengths must be in 1..{tokens}, got 0"),
            ({"tokens": 1}, "lengths must be in 1..1"),
            (
                {"lengths": lengths[:1], "x": hidden[: lengths[0]]},
                "hidden has 1 rows for 2 samples",
            ),
            ({"counts": [1]}, "counts must add up to 2 blocks; got 1"),
            ({"counts": [2]}, "for each of 1 stages; got 2 and 2"),
            ({"counts": [2, 0]}, "counts must be in 1..2, got 0"),
            ({"norm": (vector, None)}, "must be given together"),
            ({"norm": (vector, vector[1:])}, r"norm_bias must be float32 \[32\]"),
            ({"heads": head}, "heads has fewer tensors"),
            ({"heads": head * 3}, "tensors; given says"),
            ({"given": [which, 1]}, "an exit has no weight"),
            ({"steps": [steps[0], 0]}, "exit must be in 1..4, got 0"),
        ]:
            with pytest.raises(RuntimeError, match=message):
                run(**change)
