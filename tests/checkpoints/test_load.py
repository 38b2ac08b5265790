"""Checkpoints of released code: every exit against the code's own mathematics, and refusals."""

import pickle
import re
import warnings

import pytest
import torch
import torch.nn.functional as F

import eefast
from eefast import load_checkpoint
from tests.checkpoints import released

CASES = {
    "pabee": ("bert", released.with_classifiers, {}),
    "beem1": ("albert", released.with_classifiers, {}),
    "pcee": ("bert", released.with_classifiers, {}),
    "pabee, RoBERTa on its pooler": ("roberta", released.with_classifiers, {}),
    "beem1, RoBERTa's own heads": ("roberta", released.with_classifiers, {"own_heads": True}),
    "deebert": ("bert", released.with_highways, {}),
    "deebert, RoBERTa": ("roberta", released.with_highways, {}),
    "berxit": ("bert", released.with_highways, {"berxit": True}),
    "berxit, ALBERT": ("albert", released.with_highways, {}),
    "elasticbert": ("elasticbert", released.with_poolers, {}),
    "elasticbert, no poolers": ("elasticbert", released.with_poolers, {"poolers": False}),
}


def made(case):
    base, make, options = CASES[case]
    torch.manual_seed(len(case))
    arguments = () if base == "elasticbert" else (base,)
    return base, *make(*arguments, **options)


@pytest.mark.parametrize("case", CASES)
def test_every_exit_computes_what_the_released_code_computes(tmp_path, case):
    base, saved, exits = made(case)
    released.write(tmp_path, saved, base, safetensors="RoBERTa" in case)
    format = case.partition(",")[0]
    with pytest.warns(UserWarning, match=f"read as format=.*{format}") as warned:
        model = load_checkpoint(tmp_path)
    assert len(warned) == 1
    with warnings.catch_warnings():  # who names the format is not told
        warnings.simplefilter("error")
        given = load_checkpoint(tmp_path, format=format)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), given.parameters(), strict=True)
    )
    assert not model.training
    assert (model.num_exits, model.num_classes) == (released.LAYERS, released.CLASSES)

    ids = torch.randint(2, released.VOCABULARY, (4, 9))
    mask = (torch.arange(9) < torch.tensor([9, 5, 1, 7])[:, None]).long()
    ids = torch.where(mask == 1, ids, 1 if base == "roberta" else 0)
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask)
        read = released.read_by_exits(saved, base, exits, ids, mask)
        for logits, x, (_, name) in zip(output.exit_logits, read, exits, strict=True):
            wanted = F.linear(x, saved[f"{name}.weight"], saved[f"{name}.bias"])
            torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-5)
        if format == "berxit" and base == "bert":
            learned = f"{base}.encoder.lte_classifier"
            for score, x in zip(output.exit_scores, read, strict=True):
                wrong = F.linear(x, saved[f"{learned}.weight"], saved[f"{learned}.bias"]).sigmoid()
                torch.testing.assert_close(score, 1 - wrong[:, 0], rtol=1e-4, atol=1e-5)
        else:
            assert output.exit_scores is None


def test_what_config_json_says_is_kept(tmp_path):
    base, saved, _ = made("beem1")
    names = {"0": "no", "1": "perhaps", "2": "yes"}
    config = released.CONFIGS[base] | {"id2label": names}
    model = load_checkpoint(released.write(tmp_path, saved, base, config), "beem1")
    assert model.config.id2label == {0: "no", 1: "perhaps", 2: "yes"}
    assert model.config.head_dropout == 0.2
    assert model.config.share_pooler
    assert model.config.backbone_config.hidden_act == "gelu"


def test_a_loaded_model_is_saved_loaded_and_compiled_like_any(tmp_path):
    base, saved, _ = made("berxit")
    model = load_checkpoint(released.write(tmp_path / "released", saved, base), "berxit")
    model.save_pretrained(tmp_path / "ours")
    again = eefast.MultiExitModel.from_pretrained(tmp_path / "ours")
    fast = eefast.compile(again, eefast.policies.BERxiT(0.5), impl="reference")
    ids = torch.randint(2, released.VOCABULARY, (3, 6))
    with torch.no_grad():
        wanted = torch.stack(model(input_ids=ids).exit_logits)
    out = fast(input_ids=ids)
    torch.testing.assert_close(out.logits, wanted[out.exit_layer.long() - 1, range(3)])


def without(key):
    return lambda saved: saved.pop(key)


def plus(**tensors):
    return lambda saved: saved.update({k.replace("__", "."): v for k, v in tensors.items()})


ONE = torch.zeros(1)
REFUSED = [
    ("pabee", without("classifiers.1.bias"), r"it lacks classifiers\.1\.bias$"),
    ("pabee", without("bert.encoder.layer.2.output.dense.weight"), r"lacks bert\.encoder\.layer"),
    ("pabee", plus(lm_head=ONE, classifiers__3__bias=ONE), "besides classifiers.3.bias, lm_head$"),
    ("pabee", plus(classifiers__0__bias=ONE), r"shape classifiers\.0\.bias \[1\] instead of \[3\]"),
    ("pabee", plus(albert__embeddings__word_embeddings__weight=ONE), r"got \['bert', 'albert'\]"),
    ("pabee", without("bert.embeddings.word_embeddings.weight"), r"got \['bert', 'classifiers'\]"),
    ("deebert", plus(classifiers__0__bias=ONE), "format= one of .*'pabee'.*'deebert', 'berxit'"),
    ("berxit", plus(core__pooler__dense__bias=ONE), "bert.pooler.dense.bias and core.* differ"),
    ("berxit", plus(core__other=ONE), "has besides core.other"),
    ("deebert", plus(bert__encoder__Qmodule_classifier__bias=ONE), "has besides .*Qmodule"),
]


@pytest.mark.parametrize(("case", "change", "words"), REFUSED)
@pytest.mark.filterwarnings("ignore:.*read as format")
def test_what_does_not_fit_is_refused_and_listed(tmp_path, case, change, words):
    base, saved, _ = made(case)
    change(saved)
    with pytest.raises(ValueError, match=words):
        load_checkpoint(released.write(tmp_path, saved, base))


@pytest.mark.parametrize(
    ("format", "config", "words"),
    [
        ("mue", {}, "format must be one of .*'beem1'.*, got 'mue'"),
        ("elasticbert", {}, "format 'elasticbert' has no backbone 'bert'"),
        ("deebert", {}, "lacks bert.encoder.highway.0.classifier.bias, .* besides classifiers.0"),
        ("pabee", {"model_type": "roberta"}, "has model_type 'roberta', the weights 'bert'"),
        ("pabee", {"num_hidden_layers": 4}, "lacks bert.encoder.layer.3.*classifiers.3"),
        ("pabee", {"num_hidden_layers": "3"}, "config.json describes no .*'num_hidden_layers'"),
        ("pabee", {"num_hidden_layers": 0}, "config.json describes no model of type 'bert'"),
        ("pabee", {"hidden_act": "foo"}, "config.json describes no .*foo"),
        ("pabee", [], r"config.json must hold an object, got \[\]"),
    ],
)
def test_a_format_or_a_config_that_does_not_fit(tmp_path, format, config, words):
    base, saved, _ = made("pabee")
    config = config and released.CONFIGS[base] | config
    released.write(tmp_path, saved, base, None if config == {} else config)
    with pytest.raises(ValueError, match=words):
        load_checkpoint(tmp_path, format)


def test_other_models_have_no_format(tmp_path):
    saved = released.backbone("bert")
    saved.linear("classifier", 2, released.WIDTH)
    with pytest.raises(
        ValueError, match=r"no format .* \['classifier.bias', 'classifier.weight'\]"
    ):
        load_checkpoint(released.write(tmp_path, saved, "bert"))


class Code:
    def __reduce__(self):
        return print, ("this ran",)


def test_weights_are_data_only(tmp_path, capsys):
    released.write(tmp_path, {}, "bert")
    bad = tmp_path / "pytorch_model.bin"
    for content in (
        pickle.dumps(Code(), 2),
        b"PK\x03\x04 cut off",
        b"",
        b"P",
        b"a text",
        b"\x80\x02X\x01\x00\x00\x00\x85.",
    ):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=r"pytorch_model\.bin cannot be read as weights"):
            load_checkpoint(tmp_path)
    torch.save([1], bad)
    with pytest.raises(ValueError, match="must hold tensors by name, got a list"):
        load_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read as weights"):
        load_checkpoint(tmp_path)
    assert "this ran" not in capsys.readouterr().out


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"no checkpoint folder {tmp_path}/x")):
        load_checkpoint(tmp_path / "x")
    with pytest.raises(FileNotFoundError, match=r"it has no config\.json"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json holds no JSON"):
        load_checkpoint(tmp_path)
