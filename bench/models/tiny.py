"""A small random base model of any family of transformers."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto as auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

# By the name of the setting; a family has some of them.
_SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embed_dim"), 32),
    **dict.fromkeys(("embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 3),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    "num_key_value_heads": 4,
    "head_dim": 8,
    "d_kv": 8,
    **dict.fromkeys(("intermediate_size", "d_ff", "n_inner", "hidden_dim", "d_inner"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim", "dff"), 48),
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    **dict.fromkeys(("vocab_size", "n_words"), 160),
    "max_position_embeddings": 64,
    "n_positions": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
    "image_size": 32,
    "patch_size": 8,
    "layerdrop": 0.0,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "mamba_expand": 2,
}

_SPEECH: dict[str, Any] = {
    "conv_dim": (16, 16),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
_PYRAMID: dict[str, Any] = {"embed_dim": 16, "depths": [1, 1, 1], "num_heads": [2, 2, 4]}

_STAGES: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}

_FAMILIES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("hubert", "unispeech", "unispeech-sat", "wav2vec2", "wavlm", "wav2vec2-conformer"), _SPEECH
    ),
    "data2vec-audio": _SPEECH,
    **{name: {**_SPEECH, "squeeze_factor": 1} for name in ("sew", "sew-d")},
    **{
        name: {**_PYRAMID, "patch_size": 2, "window_size": 4}
        for name in ("swin", "swinv2", "donut-swin")
    },
    **{name: {**_STAGES, "patch_size": 4} for name in ("convnext", "convnextv2")},
    "audio-spectrogram-transformer": {"max_length": 48, "num_mel_bins": 32},
    "whisper": {"num_mel_bins": 16, "max_source_positions": 20, "max_target_positions": 20},
    "resnet": {**_STAGES, "embedding_size": 8},
    "regnet": {**_STAGES, "embedding_size": 8, "groups_width": 8},
    "bit": {**_STAGES, "embedding_size": 8, "num_groups": 1},
    "hiera": {"embed_dim": 16, "image_size": [64, 64]},
    "canine": {"num_hash_buckets": 64},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "gptj": {"rotary_dim": 4},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "lilt": {"hidden_size": 48},
    "levit": {"hidden_sizes": [16, 32, 48], "depths": [1, 1, 1], "num_attention_heads": [2, 2, 2],
              "key_dim": [8, 8, 8], "image_size": 64, "patch_size": 16, "hidden_dim": 48},
    "mobilevitv2": {"image_size": 64, "patch_size": 2},
    "mobilevit": {"image_size": 64, "patch_size": 2},
    "xmod": {"default_language": "en_XX"},
    "zamba2": {"layers_block_type": ["mamba", "mamba", "hybrid", "mamba"], "num_hidden_layers": 4},
    "cohere_compass_text": {"layer_types": ["full_attention", "sliding_attention"] * 2},
    "funnel": {"block_sizes": [2, 2], "num_hidden_layers": None},
    "efficientnet": {"hidden_dim": 2560},
    "xlnet": {"d_head": 8},
    "mistral4": {"head_dim": 16, "rope_parameters": None},
    "layoutlmv3": {
        "coordinate_size": 6, "shape_size": 4, "input_size": 32, "visual_embed": False,
    },
    "tapas": {"type_vocab_sizes": [3, 16, 16, 2, 2, 10, 10]},
    "reformer": {
        "attn_layers": ["local", "local", "local"], "axial_pos_shape": (4, 4),
        "axial_pos_embds_dim": (16, 16), "is_decoder": False,
    },
}  # fmt: skip


TASKS: dict[str, Any] = {
    "Text": auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "Images": auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    "Audio": auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
}


def tiny(model_type: str) -> PreTrainedModel:
    """A classifier of the family, with four layers or so, in evaluation mode."""
    config = small_config(CONFIG_MAPPING[model_type], _FAMILIES.get(model_type, {}))
    config.num_labels = 3
    name = next(mapping[model_type] for mapping in TASKS.values() if model_type in mapping)
    model_class = getattr(transformers, name if isinstance(name, str) else name[0])
    torch.manual_seed(0)
    model: PreTrainedModel = model_class._from_config(config).eval()
    with torch.no_grad():  # zero biases and unit norms hide mistakes
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def small_config(config_class: Any, own: dict[str, Any]) -> PretrainedConfig:
    """A config of that class, with what is known to be large made small."""
    default = config_class()
    settings: dict[str, Any] = {}
    names = set(inspect.signature(config_class.__init__).parameters) | set(default.to_dict())
    for name, value in _SMALL.items():
        if (
            name in names
            and name not in own
            and not isinstance(getattr(default, name, None), list | tuple | dict)
        ):
            settings[name] = value
    for name, sub in (getattr(config_class, "sub_configs", None) or {}).items():
        made = getattr(default, name, None)
        if made is not None and sub is not None:
            settings[name] = small_config(type(made), {}).to_dict()
    settings = {name: value for name, value in {**settings, **own}.items() if value is not None}
    return config_class(**settings)  # type: ignore[no-any-return]
