"""The compiled model as a drop-in: policies, outputs, pipelines, and what it refuses."""

import copy
import pickle
import warnings
from dataclasses import replace

import pytest
import torch
from accelerate.utils import send_to_device
from transformers import Trainer, TrainingArguments
from transformers.utils import ModelOutput

import eefast
from eefast import (
    EarlyExitOutput,
    MultiExitModel,
    attach_exits,
    compile,
    record_trace,
    simulate,
)
from eefast.policies import BEEM, PABEE, Budgeted, Confidence, Never
from eefast.runtime.registry import RUNTIMES
from tests.backbones.families import model_of, tokens
from tests.models import inputs_for, tiny_model


@pytest.fixture
def model():
    return tiny_model()


def test_output_is_a_model_output_in_the_callers_terms(model):
    inputs = inputs_for(model, 4)
    out = compile(model, Confidence(0.7))(**inputs)
    assert isinstance(out, ModelOutput)
    assert list(out.keys()) == ["logits", "prediction", "exit_layer", "score"]
    assert out["logits"] is out.logits
    assert out[0] is out.logits
    assert torch.equal(out.prediction, out.logits.argmax(-1))
    assert out.logits.dtype == torch.float32
    as_constructed = EarlyExitOutput(**out)
    assert vars(as_constructed) == vars(out)
    assert list(as_constructed.items()) == list(out.items())


def test_it_accepts_what_the_model_accepts(model):
    inputs, fast = inputs_for(model, 4), compile(model, Confidence(0.7))
    wanted = fast(**inputs).logits
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert torch.equal(fast(ids).logits, wanted)
    assert torch.equal(fast(ids, mask, torch.zeros_like(ids)).logits, wanted)
    assert torch.equal(fast(input_ids=ids, return_dict=False)[0], wanted)
    positions = torch.arange(ids.shape[1])[None]
    assert torch.equal(fast(ids, position_ids=positions).logits, wanted)
    embedded = model.backbone.embeddings.word_embeddings(ids)
    torch.testing.assert_close(fast(inputs_embeds=embedded).logits, wanted)
    with pytest.raises(TypeError, match="no_such_thing"):
        fast(ids, no_such_thing=1)


def test_labels_give_the_loss_of_the_answers(model):
    inputs, labels = inputs_for(model, 4), torch.tensor([0, 1, 2, 1])
    out = compile(model, Confidence(0.7))(**inputs, labels=labels)
    torch.testing.assert_close(out.loss, torch.nn.functional.cross_entropy(out.logits, labels))
    with pytest.raises(ValueError, match=r"labels must be in \[0, 3\)"):
        compile(model, Never())(**inputs, labels=torch.tensor([0, 1, 2, 3]))


def test_results_stay_as_they_are_when_the_model_is_called_again(model):
    fast = compile(model, Confidence(0.7))
    first = fast(**inputs_for(model, 4, seed=1))
    copy = {name: value.clone() for name, value in first.items()}
    fast(**inputs_for(model, 4, seed=2))
    assert all(torch.equal(first[name], value) for name, value in copy.items())


def test_a_new_policy_or_threshold_counts_from_the_next_call(model):
    inputs, fast = inputs_for(model, 4), compile(model, Never())
    assert fast(**inputs).exit_layer.tolist() == [4] * 4
    fast.policy = Confidence(0.0)
    assert fast(**inputs).exit_layer.tolist() == [1] * 4
    fast.policy = replace(fast.policy, threshold=1.1)
    assert fast(**inputs).exit_layer.tolist() == [4] * 4
    fast.policy_table[1, 1] = 0.0
    assert fast(**inputs).exit_layer.tolist() == [2] * 4


def test_a_policy_that_does_not_fit_leaves_the_old_one(model):
    fast = compile(model, Budgeted(2))
    with pytest.raises(ValueError, match="2 values, the model has 4 exits"):
        fast.policy = Confidence([0.5, 0.6])
    assert fast.policy == Budgeted(2)
    assert fast(**inputs_for(model, 1)).exit_layer.item() == 2


def test_a_name_takes_the_stored_policy(model):
    stored = BEEM([0.1, 0.2, 0.3, 0.4], 0.25)
    model.set_policy(stored)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compile(model, "beem").policy == stored
        assert compile(model, policy="never").policy == Never(num_classes=3)


def test_a_name_without_a_stored_policy_warns_and_takes_the_papers(model):
    with pytest.warns(UserWarning, match="no calibrated policy 'pabee'.*eefast.calibrate"):
        assert compile(model, "pabee").policy == PABEE(2, num_classes=3)


def test_unknown_names(model):
    with pytest.raises(ValueError, match=r"unknown policy 'hope'; there are .*'beem'"):
        compile(model, "hope")
    with pytest.raises(ValueError, match=r"runtime must be 'auto' or one of .*'sync'"):
        compile(model, Never(), runtime="warp")
    with pytest.raises(ValueError, match="impl must be 'auto' or one of"):
        compile(model, Never(), impl="warp")


def test_what_cannot_be_compiled(model):
    with pytest.raises(TypeError, match=r"got BertModel: .*eefast\.attach_exits"):
        compile(model.backbone, Never())
    with pytest.raises(TypeError, match=r"float16: use .*bfloat16, or impl='reference'"):
        compile(model, Never(), dtype=torch.float16)
    with pytest.raises(ValueError, match="no runtime for device meta"):
        compile(tiny_model().to("meta"), Never())
    with pytest.raises(ValueError, match="'direct' runs on 'cpu', the model is on meta"):
        compile(tiny_model().to("meta"), Never(), runtime="direct")
    with pytest.raises(ValueError, match="'runahead' runs on 'cuda', the model is on cpu"):
        compile(model, Never(), runtime="runahead")


def test_regression_exits_where_its_output_settles_or_at_a_fixed_depth():
    model = tiny_model(classes=1)
    inputs = inputs_for(model, 8)
    labels = torch.arange(8.0)
    out = compile(model, Budgeted(2))(**inputs, labels=labels)
    torch.testing.assert_close(out.logits, model(**inputs).exit_logits[1])
    assert out.loss.isfinite()
    trace = record_trace(model, [{**inputs, "labels": labels[:, None]}])
    moves = trace.logits[..., 0].diff(dim=0).abs()
    policy = PABEE(1, moves[0].median().item() * 1.01)
    out, wanted = compile(model, policy)(**inputs), simulate(policy, trace)
    assert torch.equal(out.exit_layer.long(), wanted.exit_layer)
    assert len(set(wanted.exit.tolist())) > 1  # or the test shows nothing
    torch.testing.assert_close(out.prediction, wanted.prediction)
    torch.testing.assert_close(out.prediction, out.logits[:, 0])
    with pytest.raises(ValueError, match=r"regression.*use PABEE\(patience, tolerance\), Never"):
        compile(model, Confidence(0.9))
    with pytest.warns(UserWarning, match="no calibrated"), pytest.raises(ValueError, match="regr"):
        compile(model)


def test_sequences_longer_than_the_model_takes(model):
    with pytest.raises(ValueError, match="41 tokens per sequence; wanted 1 to 40"):
        compile(model, Never())(torch.ones(1, 41, dtype=torch.int64))


def test_attributes_of_a_transformers_model(model, tmp_path):
    fast = compile(model, PABEE(1))
    assert fast.config is model.config
    assert fast.device == model.device
    assert fast.dtype == torch.float32
    assert fast.eval() is fast
    assert not fast.training
    with pytest.raises(RuntimeError, match="for inference: train the MultiExitModel"):
        fast.train()
    assert fast.num_parameters() == model.num_parameters()
    fast.save_pretrained(tmp_path)
    assert isinstance(MultiExitModel.from_pretrained(tmp_path), MultiExitModel)
    with pytest.raises(TypeError, match=r"eefast\.compile"):
        eefast.CompiledModel.from_pretrained(tmp_path)


def test_token_types_are_left_out_where_the_family_has_none():
    model = attach_exits(model_of("distilbert", "sdpa", torch.float32), num_labels=3).eval()
    inputs = tokens()  # as tokenizers give them all the same
    types = torch.zeros_like(inputs["input_ids"])
    fast = compile(model, Never())
    wanted = model(**inputs).logits
    torch.testing.assert_close(model(**inputs, token_type_ids=types).logits, wanted)
    torch.testing.assert_close(fast(**inputs, token_type_ids=types).logits, wanted)


@pytest.mark.parametrize(("runtime", "known"), [("direct", "none"), ("sync", "none")])
def test_options_that_a_runtime_does_not_have(model, runtime, known):
    with pytest.raises(TypeError, match=rf"runtime '{runtime}' has no \['depth'\]; it has {known}"):
        compile(model, Never(), runtime=runtime, options={"depth": 2})


def test_options_reach_the_runtime(model, monkeypatch):
    def runtime(*args, **options):
        given.append(options)

    given = []
    runtime.device_type, runtime.options = None, frozenset({"depth"})
    monkeypatch.setitem(RUNTIMES, "runahead", runtime)
    options = {"depth": 2}
    fast = compile(model, Never(), runtime="runahead", options=options)
    options["depth"] = 3  # up to the caller
    copy.deepcopy(fast)
    assert given == [{"depth": 2}] * 2


def test_warm_up_runs_each_shape(model):
    fast = compile(model, Never())
    fast.warm_up([(1, 4), (2, 40)])
    with pytest.raises(ValueError, match="got 41 tokens"):
        fast.warm_up([(1, 41)])
    with pytest.raises(ValueError, match=r"1 sample or more, got \(0, 4\)"):
        fast.warm_up([(0, 4)])
    with pytest.raises(TypeError, match=r"pairs .samples, tokens. or inputs by name, got 1"):
        fast.warm_up((1, 32))
    with pytest.raises(TypeError, match="shapes must be a list of shapes, got 3"):
        fast.warm_up(3)
    with pytest.raises(ValueError, match="got 41 tokens"):
        fast.warm_up([{"input_ids": torch.ones(1, 41, dtype=torch.int64)}])
    fast.warm_up([inputs_for(model, 2)])
    model.train()
    with pytest.raises(RuntimeError, match="training mode"):
        fast.warm_up([(1, 4)])
    model.eval()


def test_dropout_is_off_even_if_the_model_was_in_training(model):
    inputs = inputs_for(model, 4)
    wanted = compile(model, Never())(**inputs).logits
    assert torch.equal(compile(model.train(), Never())(**inputs).logits, wanted)


def test_outputs_can_be_rebuilt_copied_and_pickled(model):
    out = compile(model, Confidence(0.7))(**inputs_for(model, 4))
    for twin in (
        send_to_device(out, "cpu"),
        type(out)(dict(out)),
        type(out)(**out),
        copy.copy(out),
        pickle.loads(pickle.dumps(out)),
    ):
        assert list(twin) == list(out)
        assert all(torch.equal(twin[name], out[name]) for name in out)
        assert torch.equal(twin.exit_layer, out.exit_layer)


def test_a_policy_assigned_in_inference_mode_can_still_be_written(model):
    with torch.inference_mode():
        fast = compile(model, Confidence(2.0))
    fast.policy_table[0, 1] = 0.0
    assert fast(**inputs_for(model, 1)).exit_layer.item() == 1


def test_trainer_evaluates_a_compiled_model(model, tmp_path):
    ids = inputs_for(model, 6)["input_ids"]
    data = [{"input_ids": row, "labels": 1} for row in ids]
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", bf16=True)
    trainer = Trainer(compile(model, Confidence(0.7)), arguments, eval_dataset=data)
    assert trainer.predict(data).predictions.shape == (6, 3)


def test_what_is_no_policy_is_named(model):
    fast = compile(model, Never())
    for bad in ("pabee", PABEE, None, 0.9):
        with pytest.raises(TypeError, match="policy must be a Policy"):
            fast.policy = bad
    for options in ("depth", 5, ["depth"]):
        with pytest.raises(TypeError, match="options must be a dictionary, got"):
            compile(model, Never(), options=options)
    with pytest.raises(TypeError, match="stats must be a RuntimeStats or None, got 5"):
        fast.stats = 5
    assert fast.stats is None


def test_torch_compile_leaves_it_as_it_is(model):
    fast = compile(model, Confidence(0.7))
    traced = torch.compile(fast)
    for samples in (5, 1):
        inputs = inputs_for(model, samples)
        wanted, got = fast(**inputs), traced(**inputs)
        assert list(got) == list(wanted)
        assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    fast.policy_table[0, 1] = 0.0
    assert traced(**inputs).exit_layer.tolist() == [1]


def test_what_is_printed_is_short(model):
    fast, inputs = compile(model, Confidence(0.7)), inputs_for(model, 2)
    assert repr(fast) == (
        "CompiledModel(bert, exits=[1, 2, 3, 4], policy='confidence', runtime='direct', "
        "impl='auto')"
    )
    assert repr(fast(**inputs)) == (
        "EarlyExitOutput(logits=[2, 3] float32, prediction=[2] int32, exit_layer=[2] int32, "
        "score=[2] float32)"
    )
    assert repr(model(**inputs, labels=torch.tensor([0, 1]))).endswith(
        ", logits=[2, 3] float32, exit_logits=4 x [2, 3] float32)"
    )
