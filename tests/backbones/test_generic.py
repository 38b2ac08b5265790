"""The generic backbone: families that have no adapter by hand, walked as the model itself does."""

import copy
import pickle
import threading

import pytest
import torch
import transformers as t
from torch import nn

from eefast import ExitTrace, MultiExitModel, attach_exits, compile, simulate
from eefast.backbones import GenericBackbone, gathered, study
from eefast.backbones.generic.signature import random_inputs
from eefast.policies import BEEM, Never

_TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 99,
}
_IMAGE = {
    **{k: v for k, v in _TEXT.items() if k != "vocab_size"},
    "image_size": 32,
    "patch_size": 8,
}
_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
FAMILIES = {
    "Bert": _TEXT,
    "Albert": _TEXT,
    "ModernBert": {**_TEXT, **_SPECIAL, "cls_token_id": 1, "sep_token_id": 2},
    "DebertaV2": {
        **_TEXT,
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
    },
    "Llama": {**_TEXT, **_SPECIAL},
    "Bloom": {"vocab_size": 99, "hidden_size": 32, "n_layer": 3, "n_head": 4, **_SPECIAL},
    "GPT2": {"vocab_size": 99, "n_embd": 32, "n_layer": 3, "n_head": 4, **_SPECIAL},
    "ViT": _IMAGE,
    "DeiT": _IMAGE,
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    "Swin": {
        "image_size": 32,
        "patch_size": 2,
        "embed_dim": 16,
        "depths": [1, 1, 1],
        "num_heads": [2, 2, 4],
        "window_size": 4,
    },
    "Wav2Vec2": {
        **_TEXT,
        "conv_dim": (16, 16),
        "conv_stride": (5, 4),
        "conv_kernel": (10, 8),
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
        "layerdrop": 0.0,
    },
}


def build(name):
    torch.manual_seed(0)
    config = getattr(t, f"{name}Config")(**FAMILIES[name])
    model = getattr(t, f"{name}Model")(config).eval()
    with torch.no_grad():  # zero biases and unit norms hide mistakes
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def walked(backbone, inputs, *kept):
    """States and vectors after each layer; rows are dropped after layer 1, after layer 2, ..."""
    backbone.check(inputs)
    hidden, context = backbone.start(inputs)
    states, vectors = [], []
    for i in range(1, backbone.depth + 1):
        hidden = backbone.layer(i, hidden, context)
        if i <= len(kept):
            hidden, context = hidden.index_select(0, kept[i - 1]), context.select(kept[i - 1])
        states.append(hidden)
        vectors.append(gathered(*backbone.readout(i, hidden, context)))
    return states, vectors


@pytest.mark.parametrize("name", FAMILIES)
def test_every_layer_gives_the_models_own_hidden_states(name):
    model = build(name)
    backbone = GenericBackbone(model, study(model))
    inputs = random_inputs(model, 3)
    with torch.no_grad():
        states, vectors = walked(backbone, inputs)
        theirs = model(**inputs, output_hidden_states=True).hidden_states
    if name not in ("ResNet", "Swin"):  # which record what follows a stage
        assert backbone.depth == len(theirs) - 1
        for ours, state in zip(states[:-1], theirs[1:-1], strict=True):
            torch.testing.assert_close(ours, state, rtol=0, atol=0)
    assert [v.shape[-1] for v in vectors] == list(backbone.widths)
    assert len(backbone.costs) == backbone.depth


@pytest.mark.parametrize("name", FAMILIES)
def test_dropped_rows_change_nothing_for_those_that_stay(name):
    model = build(name)
    backbone = GenericBackbone(model, study(model))
    inputs = random_inputs(model, 3)
    with torch.no_grad():
        _, whole = walked(backbone, inputs)
        _, rest = walked(backbone, inputs, torch.tensor([2, 0]), torch.tensor([1]))  # twice
    torch.testing.assert_close(rest[0], whole[0][[2, 0]], rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(rest[1:], whole[1:], strict=True):
        torch.testing.assert_close(ours, theirs[:1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_compiled_as_the_full_model(name):
    model = attach_exits(build(name), num_labels=3)
    inputs = random_inputs(model.backbone, 3)
    with torch.no_grad():
        full = model(**inputs)
    policy = BEEM.cost(model.num_exits, 1.2)
    model.set_policy(policy)
    trace = ExitTrace(torch.stack(full.exit_logits), torch.zeros(3, dtype=torch.int64))
    out = compile(model, policy=Never())(**inputs)
    torch.testing.assert_close(out.logits, full.logits, rtol=1e-4, atol=1e-4)
    early = compile(model, policy="beem")(**inputs)
    expected = simulate(policy, trace)
    assert early.exit_layer.tolist() == expected.exit_layer.tolist()
    assert early.prediction.tolist() == expected.prediction.tolist()
    for row, exit in enumerate(early.exit_layer.tolist()):
        at_exit = full.exit_logits[exit - 1][row]
        torch.testing.assert_close(early.logits[row], at_exit, rtol=1e-4, atol=1e-4)


def test_a_last_token_is_found_on_either_side_of_the_padding():
    model = build("GPT2")
    backbone = GenericBackbone(model, study(model))
    ids = torch.tensor([[5, 6, 7, 0], [0, 8, 9, 10]])
    mask = (ids != 0).long()
    with torch.no_grad():
        states, vectors = walked(backbone, {"input_ids": ids, "attention_mask": mask})
        normed = model.ln_f(states[1])
    torch.testing.assert_close(vectors[1], torch.stack((normed[0, 2], normed[1, 3])))


def test_the_last_token_is_the_task_models_whatever_the_mask_says():
    """Where padding and the end are one token, a sequence that ends with it ends before it."""
    torch.manual_seed(0)
    config = t.LlamaConfig(**{**FAMILIES["Llama"], "pad_token_id": 2, "num_labels": 3})
    task = t.LlamaForSequenceClassification(config).eval()
    model = attach_exits(task)
    ids = torch.tensor([[5, 6, 7, 2], [3, 8, 9, 10]])
    for mask in (torch.ones_like(ids), (ids != 2).long()):
        inputs = {"input_ids": ids, "attention_mask": mask}
        with torch.no_grad():
            torch.testing.assert_close(model(**inputs).logits, task(**inputs).logits)


def test_padded_sound_does_not_count():
    """A hidden vector stands for many samples of sound; the mask is of samples."""
    config = {**FAMILIES["Wav2Vec2"], "feat_extract_norm": "layer", "do_stable_layer_norm": True}
    torch.manual_seed(0)
    model = attach_exits(t.Wav2Vec2Model(t.Wav2Vec2Config(**config)).eval(), num_labels=3)
    sound, mask = torch.randn(2, 800), torch.ones(2, 800, dtype=torch.int64)
    sound[1, 400:], mask[1, 400:] = 0, 0
    with torch.no_grad():
        both = model(input_values=sound, attention_mask=mask).logits
        alone = model(input_values=sound[1:, :400]).logits
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-4)


def test_masks_that_come_and_go_between_calls():
    # A mask that hides nothing is dropped by transformers: which tensors belong to samples differs.
    model = build("Llama")
    backbone = GenericBackbone(model, study(model))
    padded = random_inputs(model, 3)
    plain = {"input_ids": padded["input_ids"], "attention_mask": torch.ones(3, 12).long()}
    kept = torch.tensor([1, 2])
    with torch.no_grad():
        for inputs in (plain, padded, plain, padded):
            _, whole = walked(backbone, inputs)
            _, rest = walked(backbone, inputs, kept)
            torch.testing.assert_close(rest[2], whole[2][kept], rtol=1e-4, atol=1e-4)


def test_positions_of_each_sample_follow_their_rows():
    model = build("Llama")
    backbone = GenericBackbone(model, study(model))
    ids = random_inputs(model, 3)["input_ids"]
    positions = torch.stack([torch.arange(12) * (i + 1) for i in range(3)])
    inputs, kept = {"input_ids": ids, "position_ids": positions}, torch.tensor([2, 1])
    with torch.no_grad():
        _, whole = walked(backbone, inputs)
        _, rest = walked(backbone, inputs, kept)
    torch.testing.assert_close(rest[2], whole[2][kept], rtol=1e-4, atol=1e-4)


def test_the_study_leaves_no_trace():
    model = build("ModernBert").train()
    model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    study(model)
    assert torch.equal(torch.rand(1), expected)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_threads_share_a_model():
    model = build("ModernBert")
    backbone = GenericBackbone(model, study(model))
    inputs = random_inputs(model, 3)
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state
    wrong = []

    def work(mine):
        with torch.no_grad():
            for _ in range(20):
                if mine:
                    got = model.final_norm(walked(backbone, inputs)[0][-1])
                else:
                    got = model(**inputs).last_hidden_state
                if not torch.allclose(got, expected, atol=1e-5):
                    wrong.append(mine)

    threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_layer_that_was_replaced_is_seen():
    model = build("ViT")
    backbone = GenericBackbone(model, study(model))
    inputs = random_inputs(model, 2)
    with torch.no_grad():
        before = walked(backbone, inputs)[0]
        model.layers[1] = copy.deepcopy(model.layers[0])
        after = walked(backbone, inputs)[0]
        model.layers = nn.ModuleList([model.layers[0]] * 3)
        list_after = walked(backbone, inputs)[0]
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])
    assert not torch.allclose(after[2], list_after[2])
    model.layers = model.layers[:2]
    with pytest.raises(ValueError, match="layers 2 are gone"):
        backbone.start(inputs)


def test_gradients_reach_embeddings_and_every_layer():
    model = attach_exits(build("Llama"), num_labels=3).train()
    inputs = random_inputs(model.backbone, 3)
    model(**inputs, labels=torch.tensor([0, 1, 2])).loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert without == []


def test_saved_and_loaded_without_a_study(tmp_path, monkeypatch):
    model = attach_exits(build("GPT2"), num_labels=3)
    inputs = random_inputs(model.backbone, 3)
    model.save_pretrained(tmp_path)
    monkeypatch.setattr("eefast.multi_exit.study", None)
    monkeypatch.setattr("eefast.backbones.registry.study", None)
    loaded = MultiExitModel.from_pretrained(tmp_path)
    for other in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            assert torch.equal(other.eval()(**inputs).logits, model(**inputs).logits)


def test_an_empty_batch():
    model = attach_exits(build("ResNet"), num_labels=3)
    out = model(pixel_values=torch.empty(0, 3, 32, 32))
    assert [logits.shape for logits in out.exit_logits] == [(0, 3)] * 4


class Doubling(t.LlamaModel):
    """Does something between its layers, which no walk can know of."""

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        hidden = self.embed_tokens(input_ids)
        rotary = self.rotary_emb(hidden, torch.arange(hidden.shape[1])[None])
        for layer in self.layers:
            hidden = 2 * layer(hidden, position_embeddings=rotary)
        return t.modeling_outputs.BaseModelOutput(last_hidden_state=hidden)


def test_a_model_that_works_between_its_layers_is_refused():
    model = Doubling(t.LlamaConfig(**FAMILIES["Llama"]))
    wanted = r"between layers 1 and 2 the model changes.*register_backbone\('llama'\)"
    with pytest.raises(ValueError, match=wanted):
        attach_exits(model)


def test_unknown_inputs_are_refused():
    model = attach_exits(build("Swin"), num_labels=2)
    with pytest.raises(TypeError, match="input_ids"):
        model(pixel_values=torch.zeros(1, 3, 32, 32), input_ids=torch.ones(1, 2).long())
    assert isinstance(model.layers, GenericBackbone)
    assert isinstance(model.layers.model, nn.Module)
