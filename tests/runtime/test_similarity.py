"""Exits by similarity in every runtime: against the plain loop of the paper, sample by sample.

The graph runtime is in graph/test_similarity.py.
"""

import pytest
import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2Model

from eefast import RuntimeStats, attach_exits, compile, record_trace, simulate
from eefast.backbones import gathered
from eefast.policies import MuE, Never
from eefast.runtime.direct import DirectRuntime
from eefast.runtime.runahead import RunAheadRuntime
from eefast.runtime.sync import SyncRuntime
from tests.models import inputs_for, tiny_model
from tests.runtime.stand_in import Instant
from tests.runtime.test_direct import TOLERANCE

SAMPLES = 24


def gpt2(**options):
    """Causal: the last token is read, after a norm."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=99, n_embd=32, n_layer=4, n_head=4, n_positions=40)
    special = dict(pad_token_id=0, bos_token_id=1, eos_token_id=1)
    config = GPT2Config(**sizes, **special, initializer_range=0.1)
    return attach_exits(GPT2Model(config), num_labels=3, share_head=True, **options).eval()


MODELS = {"bert": lambda: tiny_model(share_head=True, head="pooler"), "gpt2": gpt2}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]()


@torch.inference_mode()
def by_the_paper(model, threshold, inputs):
    """Exit layer, logits and similarity of each sample alone."""
    layers, answers, similarities = [], [], []
    for n in range(len(inputs["input_ids"])):
        length = int(inputs["attention_mask"][n].sum())
        alone = {name: values[n : n + 1, :length] for name, values in inputs.items()}
        backbone = model.layers
        hidden, context = backbone.start(alone)
        vector = gathered(*backbone.readout(0, hidden, context))
        for layer in range(1, backbone.depth + 1):
            hidden = backbone.layer(layer, hidden, context)
            before, vector = vector, gathered(*backbone.readout(layer, hidden, context))
            similarity = F.cosine_similarity(vector.float(), before.float())
            if similarity > threshold:
                break
        layers.append(layer)
        answers.append(model.heads(backbone.depth, vector)[0])
        similarities.append(similarity)
    return torch.tensor(layers).int(), torch.cat(answers), torch.cat(similarities)


def threshold_for(model, inputs):
    """Amid the similarities, in the widest gap nearby: no rounding decides."""
    labels = torch.zeros(len(inputs["input_ids"]), dtype=torch.int64)
    trace = record_trace(model, [{**inputs, "labels": labels}], keep=["similarity"])
    met = trace.similarity[:-1].flatten().sort().values
    middle = met[len(met) // 3 : 2 * len(met) // 3]
    gap = (middle[1:] - middle[:-1]).argmax()
    return ((middle[gap] + middle[gap + 1]) / 2).item()


RUNTIMES = {
    "direct": DirectRuntime,
    "sync": SyncRuntime,
    "runahead": lambda *args: RunAheadRuntime(*args, new_queue=Instant),
}


@pytest.mark.parametrize("impl", ["reference", "cpp"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_answers_as_the_papers_loop(model, runtime, impl):
    inputs = inputs_for(model, SAMPLES, padded=True)
    threshold = threshold_for(model, inputs)
    layers, logits, similarity = by_the_paper(model, threshold, inputs)
    assert len(set(layers.tolist())) > 2
    fast = compile(model, MuE(threshold), impl=impl)
    fast._runtime = RUNTIMES[runtime](model.layers, model.num_classes, impl)
    fast.stats = RuntimeStats()
    for rows in (slice(None), slice(3, 4), slice(0, 0), slice(5, 9)):
        out = fast(**{name: values[rows] for name, values in inputs.items()})
        assert torch.equal(out.exit_layer, layers[rows])
        assert torch.equal(out.prediction, logits[rows].argmax(-1).int())
        torch.testing.assert_close(out.logits, logits[rows], **TOLERANCE)
        torch.testing.assert_close(out.score, similarity[rows], **TOLERANCE)
    first = fast.stats.calls[0]
    assert first.layers_run == layers.max()
    assert (first.evictions > 0) == (runtime == "direct")


def test_no_head_is_computed_on_the_way(model, monkeypatch):
    import eefast.runtime.batch as module

    found, calls = module.implementation, []

    def implementation(*args, op="exit_step", **kwargs):
        overload = found(*args, op=op, **kwargs)
        return lambda *given: calls.append(op) or overload(*given)

    monkeypatch.setattr(module, "implementation", implementation)
    inputs = inputs_for(model, 5)
    compile(model, MuE(2.0))(**inputs)
    assert calls == ["similarity_step"] * 4 + ["exit_step"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_recorded_is_what_the_compiled_model_decides_by(name, dtype):
    model = MODELS[name]().to(dtype)
    inputs = inputs_for(model, 120, padded=True)
    batch = {**inputs, "labels": torch.zeros(120, dtype=torch.int64)}
    trace = record_trace(model, [batch], keep=["similarity"])
    assert trace.similarity.dtype == torch.float32
    for threshold in trace.similarity.quantile(torch.tensor([0.3, 0.6])).tolist():
        wanted = simulate(MuE(threshold), trace)
        assert wanted.exit_histogram.count_nonzero() > 2
        for out in (
            compile(model, MuE(threshold), runtime=runtime)(**inputs)
            for runtime in ("direct", "sync")
        ):
            assert torch.equal(out.exit_layer, wanted.exit_layer.int())
            assert torch.equal(out.prediction, wanted.prediction.int())
            assert torch.equal(out.score, wanted.score)
            assert torch.equal(out.logits, trace.logits[wanted.exit - 1, torch.arange(120)])


@pytest.mark.parametrize(
    "options", [{}, dict(share_head=True, exits=[2, 4])], ids=["own heads", "every second layer"]
)
def test_models_that_cannot_are_refused(options):
    model = tiny_model(**options)
    wanted = r"'mue' compares .*an exit after every layer and one head for all"
    with pytest.raises(ValueError, match=wanted):
        compile(model, MuE(0.9))
    fast = compile(model, Never())
    with pytest.raises(ValueError, match=wanted):
        fast.policy = MuE(0.9)
    assert fast.policy == Never()
    with pytest.raises(ValueError, match=wanted):
        model.set_policy(MuE(0.9))
    batch = {**inputs_for(model, 2), "labels": torch.zeros(2, dtype=torch.int64)}
    with pytest.raises(ValueError, match="needs a model with an exit after every layer and one"):
        record_trace(model, [batch], keep=["similarity"])


def test_embeddings_of_another_width_are_refused_before_the_first_layer():
    model = tiny_model(share_head=True)
    start = model.layers.start
    model.layers.start = lambda inputs: (start(inputs)[0][..., :8], None)
    with pytest.raises(ValueError, match=r"compares the embedding with layer 1.*widths 8 and 32"):
        compile(model, MuE(0.9))(**inputs_for(model, 2))


def test_an_implementation_without_the_op_is_refused_when_the_policy_is_given():
    fast = compile(tiny_model(share_head=True), Never())
    fast.impl = "cuda"
    with pytest.raises(ValueError, match="impl='cuda' has no similarity_step; impl='triton'"):
        fast.policy = MuE(0.9)
    assert fast.policy == Never()
