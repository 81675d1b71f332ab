"""Small models of transformers for the conformance suite: configurations with random weights."""

from __future__ import annotations

from typing import Any

from autokd.config import TransformersDetector

NUM_QUERIES = 12


def _under(part: str, keys: dict[str, Any]) -> dict[str, Any]:
    return {f"{part}.{name}": value for name, value in keys.items()}


_STAGES = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
_RESNET = _under("backbone_config", {**_STAGES, "layer_type": "basic"})
_HGNET = _under(
    "backbone_config",
    {
        "embedding_size": 8,
        "hidden_sizes": [16, 16, 16, 16],
        "depths": [1, 1, 1, 1],
        "stem_channels": [3, 8, 8],
        "stage_in_channels": [8, 16, 16, 16],
        "stage_mid_channels": [8, 8, 8, 8],
        "stage_out_channels": [16, 16, 16, 16],
        "stage_num_blocks": [1, 1, 1, 1],
        "stage_numb_of_layers": [1, 1, 1, 1],
    },
)
_DETR = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "num_queries": NUM_QUERIES,
    **_RESNET,
}
_RT_DETR = {
    "d_model": 16,
    "encoder_hidden_dim": 16,
    "encoder_in_channels": [8, 16, 16],
    "decoder_in_channels": [16, 16, 16],
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "decoder_layers": 2,
    "num_queries": NUM_QUERIES,
    "num_denoising": 10,
    "hidden_expansion": 0.5,
}
_D_FINE = {**_RT_DETR, "encoder_in_channels": [16, 16, 16], "decoder_n_points": [2, 2, 2], **_HGNET}
_LW_DETR = {
    "d_model": 16,
    "decoder_layers": 2,
    "decoder_ffn_dim": 16,
    "decoder_self_attention_heads": 2,
    "decoder_cross_attention_heads": 2,
    "num_queries": NUM_QUERIES,
    "group_detr": 2,
}
_VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 1}

CONFIGS: dict[str, dict[str, Any]] = {
    "detr": {**_DETR, "auxiliary_loss": True},
    "conditional_detr": _DETR,
    "deformable_detr": {
        **_DETR,
        "d_model": 32,
        "num_feature_levels": 4,
        "backbone_config.out_features": ["stage2", "stage3", "stage4"],
    },
    "rt_detr": {**_RT_DETR, **_RESNET},
    "rt_detr_v2": {**_RT_DETR, **_RESNET},
    "d_fine": _D_FINE,
    "deimv2": _D_FINE,
    "yolos": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "num_detection_tokens": NUM_QUERIES,
        "image_size": [96, 128],
    },
    "rf_detr": {
        **_LW_DETR,
        **_under(
            "backbone_config",
            {**_VIT, "image_size": 96, "patch_size": 16, "num_windows": 1, "out_features": ["stage1", "stage2"]},
        ),
    },
}
"""Model type -> keys of a small model."""
STRIDES = {
    "detr": (32,),
    "conditional_detr": (32,),
    "deformable_detr": (8, 16, 32, 64),
    "rt_detr": (8, 16, 32),
    "rt_detr_v2": (8, 16, 32),
    "d_fine": (8, 16, 32),
    "deimv2": (8, 16, 32),
    "yolos": (16,),
    "rf_detr": (16,),
}


def section(model_type: str, **settings: Any) -> TransformersDetector:
    """Return the section of a small model with random weights."""
    keys = {"model_type": model_type, **CONFIGS[model_type], **settings.pop("config", {})}
    return TransformersDetector(framework="transformers", config=keys, **settings)
