"""The graph runtime on a stand-in for CUDA graphs."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eefast import RuntimeStats, attach_exits, compile
from eefast.policies import PABEE, Budgeted, Confidence, Entropy, Never
from tests.backbones.families import CAPTURED, PAD, grid_id, model_of
from tests.models import inputs_for, tiny_model
from tests.runtime.graph.on_stand_in import close, compiled, padded_reference, same
from tests.runtime.questions import Questions
from tests.runtime.test_direct import POLICIES

MIXED = Confidence(0.6)  # some of 24 samples exit at every exit
NODES = ["nested", "flat"]


@pytest.fixture(scope="module")
def model():
    return tiny_model(cascade=True)


def with_exits(family, attention, dtype):
    model = attach_exits(model_of(family, attention, dtype), num_labels=3).eval()
    torch.manual_seed(1)
    with torch.no_grad():  # later exits are surer
        for number, classifier in enumerate(model.heads.classifiers, 1):
            classifier.weight.normal_(0, 0.02 * 5 ** (number - 1))
    return model


def shown(length, samples=3, seed=0):
    """Tokens whose samples have some of their ends hidden."""
    generator = torch.Generator().manual_seed(97 * seed + length)
    ids = torch.randint(PAD + 1, 60, (samples, length), generator=generator)
    hidden = torch.arange(length) >= torch.randint(1, length + 1, (samples, 1), generator=generator)
    return {"input_ids": ids.masked_fill(hidden, PAD), "attention_mask": (~hidden).long()}


@pytest.mark.filterwarnings("ignore:captured shapes do not all fit")
@pytest.mark.parametrize(
    ("family", "attention", "dtype", "nodes"),
    [(*case, NODES[i // 2 % 2]) for i, case in enumerate(CAPTURED)],  # both with both dtypes
    ids=grid_id,
)
def test_every_family(family, attention, dtype, nodes):
    model = with_exits(family, attention, dtype)
    fast, device = compiled(model, MIXED, nodes=nodes, length_buckets=[16, 24])
    exits = set()
    for seed, (length, threshold) in enumerate([(9, 0.6), (16, 0.6), (3, 0.4), (9, 0.5)]):
        inputs = shown(length, seed=seed)
        if seed % 2:
            del inputs["attention_mask"]
        fast.policy = Confidence(threshold)
        out = fast(**inputs)
        same(out, padded_reference(model, fast.policy, 16, PAD, **inputs))
        exits.update(out.exit_layer.tolist())
    assert len(exits) > 1
    assert device.opened == 1
    # Discarded for another shape, and captured again.
    fast._runtime._memory_limit = device.captures[0].reserved_bytes + 1
    for samples in (1, 3):
        inputs = shown(9, samples, seed=samples)
        same(fast(**inputs), padded_reference(model, fast.policy, 16, PAD, **inputs))
    assert [capture.closed for capture in device.captures] == [True, True, False]


@pytest.mark.parametrize("policy", [*POLICIES, MIXED, Confidence(0.0)], ids=repr)
@pytest.mark.parametrize(("samples", "nodes"), [(1, NODES[0]), (24, NODES[1])])
def test_it_answers_as_the_direct_runtime(model, policy, samples, nodes):
    fast, _ = compiled(model, policy, nodes=nodes)
    for seed in range(3):
        inputs = inputs_for(model, samples, seed=seed, padded=True)
        close(fast(**inputs), compile(model, policy)(**inputs))


@pytest.mark.filterwarnings("ignore:captured shapes do not all fit")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=12)
@given(
    calls=st.lists(
        st.tuples(
            st.integers(1, 3),  # samples
            st.integers(1, 20),  # tokens
            st.sampled_from([0.0, 0.5, 0.7, 2.0]),  # threshold
            st.booleans(),  # with a mask
            st.integers(0, 99),  # seed
        ),
        min_size=1,
        max_size=8,
    ),
    nodes=st.sampled_from(NODES),
    shapes=st.integers(1, 4),  # that memory has room for
)
def test_no_history_changes_an_answer(model, calls, nodes, shapes):
    fast, device = compiled(model, MIXED, nodes=nodes, length_buckets=[5, 12, 20])
    fast(torch.ones(1, 20, dtype=torch.int64))
    fast._runtime._memory_limit = shapes * 3 * device.captures[0].reserved_bytes
    for samples, length, threshold, mask, seed in calls:
        inputs = inputs_for(model, samples, length, seed=seed, padded=mask)
        if not mask:
            del inputs["attention_mask"]
        fast.policy = Confidence(threshold)
        bucket = next(b for b in (5, 12, 20) if b >= length)
        same(fast(**inputs), padded_reference(model, fast.policy, bucket, 0, **inputs))


@pytest.mark.parametrize("nodes", NODES)
def test_layers_behind_the_last_exit_needed_are_not_run(model, nodes):
    fast, device = compiled(model, MIXED, nodes=nodes)
    inputs = inputs_for(model, 3)
    for needed in (2, 1, 4, 3):
        fast.policy = Confidence([0.0 if exit == needed else 2.0 for exit in range(1, 5)])
        assert fast(**inputs).exit_layer.tolist() == [needed] * 3
        (capture,) = device.captures
        assert capture.graph.bodies_run == needed - 1
    assert capture.graph.if_nodes == 3
    assert capture.graph.depth == (3 if nodes == "nested" else 1)


def test_a_call_is_one_replay_and_asks_nothing(model):
    fast, device = compiled(model, MIXED)
    inputs = inputs_for(model, 24)
    fast(**inputs)
    before = device.replays
    with Questions() as questions:
        fast(**inputs)
    assert (device.replays - before, questions.count) == (1, 0)
    with Questions() as questions:  # which finds every read
        compile(model, MIXED, runtime="sync")(**inputs)
    assert questions.count >= 4


@pytest.mark.parametrize(
    "policy", [Confidence(0.9), Confidence([0.3, 0.4, 0.5, 0.6])], ids=["one", "each"]
)
def test_new_thresholds_need_no_new_capture(model, policy):
    fast, device = compiled(model, MIXED)
    inputs = inputs_for(model, 24)
    fast(**inputs)
    fast.policy = policy
    close(fast(**inputs), compile(model, policy)(**inputs))
    fast.policy_table[:, 1] = 0.55
    close(fast(**inputs), compile(model, Confidence(0.55))(**inputs))
    assert device.opened == 1


def test_another_kind_of_policy_is_captured_and_kept(model):
    fast, device = compiled(model, MIXED)
    inputs = inputs_for(model, 24)
    for policy in (MIXED, Entropy(0.5), PABEE(1), Budgeted(2), Never()) * 2:
        fast.policy = policy
        close(fast(**inputs), compile(model, policy)(**inputs))
    assert device.opened == 5


def test_a_head_that_is_only_read_is_seen_after_a_new_policy():
    model = tiny_model(cascade=True)
    fast, device = compiled(model, Budgeted(3))
    inputs = inputs_for(model, 3)
    fast(**inputs)
    model.heads.classifiers[0] = torch.nn.Linear(32, 3)
    fast.policy = Budgeted(3)
    close(fast(**inputs), compile(model, Budgeted(3))(**inputs))
    fast.policy = Budgeted(3)
    fast(**inputs)
    assert device.opened == 2


def test_results_stay_what_they_are(model):
    fast, _ = compiled(model, MIXED)
    first, second = inputs_for(model, 5), inputs_for(model, 5, seed=1)
    out = fast(**first)
    fast(**second)
    close(out, compile(model, MIXED)(**first))


@pytest.mark.parametrize("kind", ["positions", "embeds", "types", "float mask"])
def test_other_inputs(kind):
    model = with_exits("bert", "sdpa", torch.float32)
    fast, device = compiled(model, MIXED)
    for seed in range(2):
        inputs = shown(7, seed=seed)
        if kind == "positions":
            inputs["position_ids"] = torch.arange(1, 8).expand(3, -1) + seed
        elif kind == "embeds":
            ids = inputs.pop("input_ids")
            inputs["inputs_embeds"] = model.get_input_embeddings()(ids).detach()
        elif kind == "types":
            inputs["token_type_ids"] = inputs["input_ids"] % 3
        else:
            inputs["attention_mask"] = inputs["attention_mask"] * 0.5
        same(fast(**inputs), padded_reference(model, MIXED, 16, PAD, **inputs))
    # With token types and mask or without: the same graph. A mask of another dtype: another.
    fast(**{name: value for name, value in shown(7).items() if name == "input_ids"})
    assert device.opened == (1 if kind == "types" else 2)


def test_weights_changed_in_place_are_seen_and_replaced_ones_after_a_new_policy():
    model = tiny_model()
    fast, device = compiled(model, Budgeted(1))
    inputs = inputs_for(model, 4)
    fast(**inputs)
    with torch.no_grad():
        model.heads.classifiers[0].weight.zero_()
        model.heads.classifiers[0].bias.copy_(torch.tensor([0.0, 5.0, 0.0]))
    assert fast(**inputs).prediction.tolist() == [1] * 4
    assert device.opened == 1
    model.heads.classifiers[0].bias = torch.nn.Parameter(torch.tensor([5.0, 0.0, 0.0]))
    fast.policy = fast.policy
    assert fast(**inputs).prediction.tolist() == [0] * 4
    model.set_attn_implementation("eager")
    fast.policy = fast.policy
    fast(**inputs)
    assert device.opened == 3


class Twice(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, hidden, mask):
        return self.inner(self.inner(hidden, mask), mask)


def test_a_module_put_around_the_same_weights_is_seen_after_a_new_policy():
    model = tiny_model()
    fast, _ = compiled(model, Never())
    inputs = inputs_for(model, 4)
    before = fast(**inputs)
    model.backbone.encoder.layer[1] = Twice(model.backbone.encoder.layer[1])
    fast.policy = fast.policy
    after = fast(**inputs)
    close(after, compile(model, Never())(**inputs))
    assert not torch.allclose(after.logits, before.logits, atol=1e-2)


def test_compiled_layers():
    model = tiny_model()
    wanted = compile(tiny_model(), MIXED)
    for layer in model.backbone.encoder.layer:
        layer.compile(backend="aot_eager")
    fast, _ = compiled(model, MIXED)
    for seed in range(2):
        inputs = inputs_for(model, 5, seed=seed, padded=True)
        close(fast(**inputs), wanted(**inputs))


def test_counting(model):
    fast, _ = compiled(model, MIXED)
    inputs = inputs_for(model, 24)
    fast(**inputs)
    fast.stats = RuntimeStats()
    outs = [fast(**inputs)]
    fast.policy = Confidence(0.0)
    outs.append(fast(**inputs))
    for stats, out in zip(fast.stats.calls, outs, strict=True):
        needed = int(out.exit_layer.max())
        assert (stats.samples, stats.layers_run, stats.layers_wasted) == (24, needed, 0)
        assert (stats.exit_steps, stats.host_syncs, stats.evictions) == (needed, 0, 0)
        # Token ids, mask, table, graph, results; token types are 0 as they were.
        assert stats.kernel_launches == 5


@pytest.mark.parametrize("nodes", NODES)
def test_many_exits(nodes):
    model = tiny_model(layers=40)
    fast, device = compiled(model, MIXED, nodes=nodes)
    inputs = inputs_for(model, 1)
    close(fast(**inputs), compile(model, MIXED)(**inputs))
    assert device.captures[0].graph.if_nodes == 39


def test_autocast_does_not_reach_into_a_graph(model):
    inputs = inputs_for(model, 4)
    plain, _ = compiled(model, MIXED)
    wanted = plain(**inputs)
    fast, _ = compiled(model, MIXED)
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            same(fast(**inputs), wanted)


def test_modules_replaced_again_and_again(model):
    model = tiny_model()
    fast, device = compiled(model, Never())
    inputs = inputs_for(model, 2)
    for number in range(12):  # an address may be reused
        kind = (torch.nn.ReLU, torch.nn.Tanh, torch.nn.Sigmoid)[number % 3]
        model.backbone.encoder.layer[0].intermediate.intermediate_act_fn = kind()
        fast.policy = fast.policy
        close(fast(**inputs), compile(model, Never())(**inputs))
    assert [capture.closed for capture in device.captures] == [True] * 11 + [False]
