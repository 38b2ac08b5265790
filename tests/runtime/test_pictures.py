"""Every runtime drives a backbone that knows neither tokens nor BERT's inputs."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from eefast.backbones import Backbone, Context
from eefast.ops import Gain, HeadWeights, Keep, ScorerKind
from eefast.policies import Columns, Confidence, Policy, Voting
from eefast.runtime.direct import DirectRuntime
from eefast.runtime.graph import GraphRuntime
from eefast.runtime.plan import Plan
from eefast.runtime.runahead import RunAheadRuntime
from eefast.runtime.sync import SyncRuntime
from tests.runtime.graph.stand_in import StandInDevice
from tests.runtime.stand_in import Instant

DEPTH, WIDTH, CLASSES = 3, 8, 4
POLICY = Confidence(0.85)


class Brightness(Context):
    """Of each picture, what the layers scale by."""

    def __init__(self, scale):
        self.scale = scale

    def select(self, rows):
        return Brightness(self.scale[rows])


class Pictures(Backbone):
    """Patches of pictures, mixed layer by layer; an exit reads their mean."""

    takes = {"pixel_values": "BCHW", "scale": "B"}  # noqa: RUF012
    main_inputs = ("pixel_values",)

    def start(self, inputs):
        patches = inputs["pixel_values"].flatten(2).mT  # (B, HW, C)
        return patches, Brightness(inputs["scale"])

    def layer(self, index, hidden, context):
        return hidden + self.model.layers[index - 1](hidden) * context.scale[:, None, None]

    def readout(self, index, hidden, context):
        return hidden.mean(1), None


class Model(nn.Module):
    device, dtype = torch.device("cpu"), torch.float32

    class config:  # noqa: N801
        model_type, _attn_implementation = "pictures", "eager"

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH))


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return Pictures(Model().requires_grad_(False), [WIDTH] * DEPTH)


@pytest.fixture(scope="module")
def plan():
    return plan_of(POLICY)


def plan_of(policy):
    torch.manual_seed(1)
    heads = [HeadWeights(None, None, 3 * torch.randn(CLASSES, WIDTH), None) for _ in range(DEPTH)]
    return Plan.make(policy, range(1, DEPTH + 1), heads, CLASSES, torch.device("cpu"))


def pictures(samples):
    torch.manual_seed(samples)
    return {"pixel_values": torch.randn(samples, WIDTH, 4, 4), "scale": torch.rand(samples) + 0.5}


def by_hand(backbone, plan, inputs):
    """Exit layer and logits of each sample, one by one."""
    hidden, context = backbone.start(inputs)
    layers = torch.zeros(len(hidden), dtype=torch.int32)
    answers = torch.zeros(len(hidden), CLASSES)
    for layer in range(1, DEPTH + 1):
        hidden = backbone.layer(layer, hidden, context)
        logits = hidden.mean(1) @ plan.stages[layer - 1].head.weight.T
        sure = (logits.softmax(-1).amax(-1) >= POLICY.threshold) | (layer == DEPTH)
        now = (layers == 0) & sure
        layers[now], answers[now] = layer, logits[now]
    return layers, answers


RUNTIMES = {
    "direct": DirectRuntime,
    "sync": SyncRuntime,
    "runahead": lambda *args: RunAheadRuntime(*args, new_queue=Instant),
    "graph": lambda *args: GraphRuntime(*args, device=StandInDevice()),
}


@pytest.mark.parametrize("name", RUNTIMES)
@torch.inference_mode()
def test_it_answers_as_a_loop_by_hand(backbone, plan, name):
    runtime = RUNTIMES[name](backbone, CLASSES, "auto")
    for samples in (1, 24, 0, 5):
        inputs = pictures(samples)
        layers, answers = by_hand(backbone, plan, inputs)
        assert samples < 24 or set(layers.tolist()) == {1, 2, 3}
        state = runtime.run(plan, inputs)
        assert torch.equal(state.exit_layer, layers)
        torch.testing.assert_close(state.logits, answers)
    runtime.close()


class LastPatch(Pictures):
    """An exit reads the last patch, found by its offset into all patches of the batch."""

    def readout(self, index, hidden, context):
        rows, patches, _ = hidden.shape
        return hidden.flatten(0, 1), torch.arange(1, rows + 1) * patches - 1


@pytest.mark.parametrize("name", RUNTIMES)
@torch.inference_mode()
def test_vectors_are_read_by_their_offsets(backbone, plan, name):
    runtime = RUNTIMES[name](LastPatch(backbone.model, backbone.widths), CLASSES, "auto")

    class ByHand(Pictures):
        def readout(self, index, hidden, context):
            return hidden[:, -1].contiguous(), None

    by_view = SyncRuntime(ByHand(backbone.model, backbone.widths), CLASSES, "reference")
    inputs = pictures(24)
    state, wanted = runtime.run(plan, inputs), by_view.run(plan, inputs)
    assert len(set(wanted.exit_layer.tolist())) > 1
    assert torch.equal(state.exit_layer, wanted.exit_layer)
    torch.testing.assert_close(state.logits, wanted.logits)


@dataclass(frozen=True)
class Learned(Policy):
    """A network over what the exits so far have said, and its earlier scores."""

    name = "test-network-at-run-time"
    keep, gain, scorer = Keep.NEVER, Gain.SCORE, ScorerKind.NETWORK

    def columns(self, num_exits):
        return Columns(thresholds=0.46)

    def scorer_weights(self, exit):
        return torch.randn(3, CLASSES + 4 + exit, generator=torch.Generator().manual_seed(exit))


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("policy", [Voting(2), Learned()], ids=repr)
@torch.inference_mode()
def test_votes_and_learned_scores_are_kept_through_a_call(backbone, policy, name):
    runtime, plan = RUNTIMES[name](backbone, CLASSES, "auto"), plan_of(policy)
    reference = SyncRuntime(backbone, CLASSES, "reference")
    met = set()
    for samples in (24, 1, 5, 24):
        inputs = pictures(samples)
        state, wanted = runtime.run(plan, inputs), reference.run(plan, inputs)
        met |= set(wanted.exit_layer.tolist())
        assert torch.equal(state.exit_layer, wanted.exit_layer)
        assert torch.equal(state.prediction, wanted.prediction)
        torch.testing.assert_close(state.logits, wanted.logits)
        torch.testing.assert_close(state.score, wanted.score)
    assert len(met) > 1


@pytest.mark.parametrize("name", RUNTIMES)
def test_misfits_are_refused_at_the_door(backbone, plan, name):
    runtime, inputs = RUNTIMES[name](backbone, CLASSES, "auto"), pictures(3)
    for wrong, message in [
        ({"pixel_values": torch.ones(3, 4)}, r"pixel_values: .* wanted \[B, C, H, W\]"),
        ({"scale": torch.ones(2)}, r"scale: got shape \[2\]; wanted \[3\], as pixel_values"),
        ({"input_ids": torch.ones(3, 4)}, "input_ids: a pictures model takes none"),
    ]:
        with pytest.raises(ValueError, match=message):
            runtime.run(plan, {**inputs, **wrong})
    with pytest.raises(ValueError, match=r"pixel_values: got none, only \['scale'\]"):
        runtime.run(plan, {"scale": inputs["scale"]})


def test_what_cannot_be_padded_is_captured_as_it_is(backbone, plan):
    with pytest.raises(ValueError, match="length_buckets: the model has no tokens to pad"):
        GraphRuntime(backbone, CLASSES, "auto", length_buckets=[8], device=StandInDevice())
    device = StandInDevice()
    runtime = GraphRuntime(backbone, CLASSES, "auto", device=device)
    with torch.inference_mode():
        for inputs in (pictures(2), pictures(2), pictures(3)):
            runtime.run(plan, inputs)
        smaller = pictures(3)["pixel_values"][..., :2].contiguous()
        runtime.run(plan, {**pictures(3), "pixel_values": smaller})
    assert device.opened == 3
