"""What the papers' released code saves, made small and random, and what its exits compute.

Key names and mathematics are written down here a second time, in plain torch: nothing of eefast and
no model of transformers is used.
"""

import json
import math

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

LAYERS, WIDTH, INNER, HEADS, EMBEDDED, VOCABULARY, CLASSES = 3, 16, 24, 2, 8, 50, 3
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "intermediate_size": INNER, "max_position_embeddings": 20,
    "hidden_dropout_prob": 0.1, "type_vocab_size": 2,
    "pruned_heads": {}, "output_past": True, "finetuning_task": "mrpc",  # as old files have
}  # fmt: skip
CONFIGS = {
    "bert": SIZES | {"hidden_act": "gelu"},  # DeeBERT's transformers wrote no model_type
    "roberta": SIZES | {"model_type": "roberta", "pad_token_id": 1, "layer_norm_eps": 1e-5},
    "albert": SIZES
    | {
        "model_type": "albert",
        "embedding_size": EMBEDDED,
        "hidden_act": "gelu",
    }  # not its class's default
    | {"classifier_dropout_prob": 0.2},
    "elasticbert": SIZES
    | {"model_type": "elasticbert", "num_output_layers": LAYERS, "max_output_layers": LAYERS},
}


class Saved(dict):
    """A state dict under construction."""

    def linear(self, name, out, width):
        self[f"{name}.weight"] = torch.randn(out, width) * width**-0.5 * 1.5
        self[f"{name}.bias"] = torch.randn(out) * 0.3

    def norm(self, name, width):
        self[f"{name}.weight"] = 1 + 0.2 * torch.randn(width)
        self[f"{name}.bias"] = torch.randn(width) * 0.2


def backbone(base):
    """Embeddings, layers and pooler as the code of each family saves them."""
    saved, narrow = Saved(), EMBEDDED if base == "albert" else WIDTH
    for name, rows in (("word", VOCABULARY), ("position", 20), ("token_type", 2)):
        saved[f"{base}.embeddings.{name}_embeddings.weight"] = torch.randn(rows, narrow)
    saved.norm(f"{base}.embeddings.LayerNorm", narrow)
    if base == "albert":
        saved.linear("albert.encoder.embedding_hidden_mapping_in", WIDTH, EMBEDDED)
        layer = "albert.encoder.albert_layer_groups.0.albert_layers.0"
        for part in ("query", "key", "value", "dense"):
            saved.linear(f"{layer}.attention.{part}", WIDTH, WIDTH)
        saved.norm(f"{layer}.attention.LayerNorm", WIDTH)
        saved.linear(f"{layer}.ffn", INNER, WIDTH)
        saved.linear(f"{layer}.ffn_output", WIDTH, INNER)
        saved.norm(f"{layer}.full_layer_layer_norm", WIDTH)
        saved.linear("albert.pooler", WIDTH, WIDTH)
        return saved
    for i in range(LAYERS):
        layer = f"{base}.encoder.layer.{i}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            saved.linear(f"{layer}.attention.{part}", WIDTH, WIDTH)
        saved.norm(f"{layer}.attention.output.LayerNorm", WIDTH)
        saved.linear(f"{layer}.intermediate.dense", INNER, WIDTH)
        saved.linear(f"{layer}.output.dense", WIDTH, INNER)
        saved.norm(f"{layer}.output.LayerNorm", WIDTH)
    if base != "elasticbert":
        saved.linear(f"{base}.pooler.dense", WIDTH, WIDTH)
    return saved


def hidden_states(saved, base, ids, mask):
    """What comes out of every layer, [B, T, D] each."""
    eps = 1e-5 if base == "roberta" else 1e-12

    def linear(x, name):
        return F.linear(x, saved[f"{name}.weight"], saved[f"{name}.bias"])

    def norm(x, name):
        width = x.shape[-1:]
        return F.layer_norm(x, width, saved[f"{name}.weight"], saved[f"{name}.bias"], eps)

    def attended(x, query, key, value):
        q, k, v = (
            linear(x, name).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for name in (query, key, value)
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        weights = (scores + (1 - mask[:, None, None].float()) * -10000).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)

    positions = torch.arange(ids.shape[1])[None]
    if base == "roberta":  # numbers what is not padding, from 2 on
        shown = (ids != 1).long()
        positions = shown.cumsum(1) * shown + 1
    tables = {n: saved[f"{base}.embeddings.{n}_embeddings.weight"] for n in ("word", "position")}
    x = tables["word"][ids] + tables["position"][positions]
    x = x + saved[f"{base}.embeddings.token_type_embeddings.weight"][0]
    x = norm(x, f"{base}.embeddings.LayerNorm")
    after = []
    if base == "albert":
        x = linear(x, "albert.encoder.embedding_hidden_mapping_in")
    for i in range(LAYERS):
        if base == "albert":
            layer = "albert.encoder.albert_layer_groups.0.albert_layers.0"
            a = f"{layer}.attention"
            y = attended(x, f"{a}.query", f"{a}.key", f"{a}.value")
            x = norm(x + linear(y, f"{a}.dense"), f"{a}.LayerNorm")
            y = F.gelu(linear(x, f"{layer}.ffn"))
            x = norm(x + linear(y, f"{layer}.ffn_output"), f"{layer}.full_layer_layer_norm")
        else:
            layer = f"{base}.encoder.layer.{i}"
            a = f"{layer}.attention"
            y = attended(x, f"{a}.self.query", f"{a}.self.key", f"{a}.self.value")
            x = norm(x + linear(y, f"{a}.output.dense"), f"{a}.output.LayerNorm")
            y = F.gelu(linear(x, f"{layer}.intermediate.dense"))
            x = norm(x + linear(y, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        after.append(x)
    return after


def with_classifiers(base, own_heads=False):
    """PABEE, BEEM1, PCEE-BERT; with `own_heads`, RoBERTa's classification head at every exit."""
    saved = backbone(base)
    pooler = "albert.pooler" if base == "albert" else f"{base}.pooler.dense"
    exits = []
    for i in range(LAYERS):
        if own_heads:
            saved.linear(f"classifiers.{i}.dense", WIDTH, WIDTH)
            saved.linear(f"classifiers.{i}.out_proj", CLASSES, WIDTH)
            exits.append((f"classifiers.{i}.dense", f"classifiers.{i}.out_proj"))
        else:
            saved.linear(f"classifiers.{i}", CLASSES, WIDTH)
            exits.append((pooler, f"classifiers.{i}"))
    return saved, exits


def with_highways(base, berxit=False):
    """DeeBERT and BERxiT: a highway for every layer, the last one of them not in use."""
    saved, exits = backbone(base), []
    for i in range(LAYERS):
        highway = f"{base}.encoder.highway.{i}"
        saved.linear(f"{highway}.pooler.dense", WIDTH, WIDTH)
        saved.linear(f"{highway}.classifier", CLASSES, WIDTH)
        exits.append((f"{highway}.pooler.dense", f"{highway}.classifier"))
    saved.linear("classifier", CLASSES, WIDTH)
    exits[-1] = ("albert.pooler" if base == "albert" else f"{base}.pooler.dense", "classifier")
    if berxit:
        saved.linear(f"{base}.encoder.lte_classifier", 1, WIDTH)
        for key in [key for key in saved if key.startswith(f"{base}.")]:
            saved["core" + key.removeprefix(base)] = saved[key]
    return saved, exits


def with_poolers(poolers=True):
    """ElasticBERT, dynamic."""
    saved, exits = backbone("elasticbert"), []
    saved["elasticbert.embeddings.position_ids"] = torch.arange(20)[None]
    for i in range(LAYERS):
        saved.linear(f"classifiers.{i}", CLASSES, WIDTH)
        pooler = f"elasticbert.encoder.pooler.{i}.dense" if poolers else None
        if pooler is not None:
            saved.linear(pooler, WIDTH, WIDTH)
        exits.append((pooler, f"classifiers.{i}"))
    return saved, exits


def read_by_exits(saved, base, exits, ids, mask):
    """What the classifier of each exit reads, [B, D] each."""
    first_tokens = [after[:, 0] for after in hidden_states(saved, base, ids, mask)]
    return [
        x
        if pooler is None
        else torch.tanh(F.linear(x, saved[f"{pooler}.weight"], saved[f"{pooler}.bias"]))
        for x, (pooler, _) in zip(first_tokens, exits, strict=True)
    ]


def write(folder, saved, base, config=None, safetensors=False):
    """The folder that the code would have written."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[base] if config is None else config))
    if safetensors:
        save_file(dict(saved), folder / "model.safetensors")
    else:
        # Their torch was older than 1.6 and knew no other kind of file.
        path = folder / "pytorch_model.bin"
        torch.save(dict(saved), path, _use_new_zipfile_serialization=False)
    return folder
