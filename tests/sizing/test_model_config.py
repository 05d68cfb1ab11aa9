"""config.json read with distrust: context, layers and cache of models that are known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lib.sizing.model_config import config_facts

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
QWEN3_MOE = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "sliding_window": None,
    "use_sliding_window": False,
    "tie_word_embeddings": False,
}
DEEPSEEK = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "auto_map": {"AutoModel": "modeling_deepseek.DeepseekV3Model"},
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "moe_layer_freq": 1,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "vocab_size": 129280,
    "max_position_embeddings": 163840,
    "quantization_config": {"quant_method": "fp8"},
}
GPT_OSS = {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_local_experts": 128,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 36,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 201088,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 18,
    "max_position_embeddings": 131072,
    "quantization_config": {"quant_method": "mxfp4"},
}
GEMMA = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 3840,
        "intermediate_size": 15360,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "sliding_window": 1024,
    },
    "vision_config": {"hidden_size": 1152},
}


@pytest.mark.parametrize(
    ("config", "layout"),
    [
        (LLAMA, "32x2048"),
        (QWEN3_MOE, "48x1024"),
        (DEEPSEEK, "61x576"),
        (GPT_OSS, "18x1024;18x1024@128"),
        (GEMMA, "8x4096;40x4096@1024"),
        (LLAMA | {"sliding_window": 4096, "model_type": "mistral"}, "32x2048@4096"),
        (QWEN3_MOE | {"sliding_window": 4096}, "48x1024"),  # a window that is switched off
        (LLAMA | {"num_key_value_heads": 32}, "32x8192"),
    ],
)
def test_cache_by_layer(config: dict[str, Any], layout: str) -> None:
    assert config_facts(config)["kv_layout"] == layout


def test_a_hybrid_has_few_layers_of_cache() -> None:
    found = config_facts(
        {
            "model_type": "qwen3_next",
            "hidden_size": 2048,
            "num_hidden_layers": 48,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "head_dim": 256,
            "full_attention_interval": 4,
            "linear_num_key_heads": 16,
            "linear_key_head_dim": 128,
            "linear_num_value_heads": 32,
            "linear_value_head_dim": 128,
            "linear_conv_kernel_dim": 4,
        }
    )
    assert found["kv_layout"] == "12x1024"
    mamba = LLAMA | {"num_hidden_layers": 6, "hybrid_override_pattern": "M-M*EM"}
    assert config_facts(mamba)["kv_layout"] == "1x2048"
    gemma4 = GPT_OSS | {"global_head_dim": 128, "num_global_key_value_heads": 2}
    assert config_facts(gemma4)["kv_layout"] == "18x512;18x1024@128"


def test_what_is_recorded() -> None:
    found = config_facts(DEEPSEEK)
    assert found["layers"] == 61
    assert found["remote_code"] is True
    assert found["quantization"] == "fp8"
    assert found["context_length"] == 163840
    assert config_facts(LLAMA)["remote_code"] is False
    assert config_facts(LLAMA)["quantization"] is None
    assert config_facts(LLAMA)["head_dim"] == 128
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40960}
    assert config_facts(QWEN3_MOE | {"rope_scaling": yarn})["context_length"] == 163840


@pytest.mark.parametrize(
    "changes",
    [
        {"layer_types": ["full_attention"] * 31},  # one too few
        {"layer_types": ["full_attention"] * 31 + ["brand_new_attention"]},
        {"layer_types": 7},
        {"ssm_cfg": {"d_state": 16}},  # a part whose cache is not known
        {"hybrid_layer_pattern": [0] * 32},  # with narrow heads in some layers
        {"attn_layer_period": 8, "attn_layer_offset": 4},
        {"linear_attn_config": {"full_attn_layers": [4]}},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": "32"},
        {"num_hidden_layers": True},
        {"is_encoder_decoder": True},
    ],
)
def test_no_layout_is_better_than_a_wrong_one(changes: dict[str, Any]) -> None:
    if changes == {"layer_types": 7}:  # nonsense is passed over
        assert config_facts(LLAMA | changes)["kv_layout"] == "32x2048"
    else:
        assert config_facts(LLAMA | changes)["kv_layout"] is None


@pytest.mark.parametrize(
    "config",
    [None, 7, "text", [], {}, {"text_config": []}, {"architectures": "x"}, {"auto_map": 1}],
)
def test_what_is_no_configuration(config: object) -> None:
    found = config_facts(config)
    assert found.pop("remote_code") is False
    assert set(found.values()) == {None}


@pytest.mark.parametrize("value", [None, -1, 0, "8", 8.5, True, [], {}, 2**70, float("nan")])
def test_wrong_types_become_null_and_nothing_breaks(value: object) -> None:
    for config in (LLAMA, QWEN3_MOE, DEEPSEEK, GPT_OSS):
        for key in config:
            found = config_facts(config | {key: value})
            json.dumps(found)
            assert found["kv_layout"] is None or "x" in found["kv_layout"]


@pytest.mark.parametrize(
    ("indexers", "layout"),
    [
        (None, "4x704"),
        (["full"] * 4, "4x704"),
        (["full", "shared", "shared", "full"], "2x704;2x576"),
        (["full", "shared", "shared", "full", "full"], "2x704;2x576"),  # one more for MTP
        (["shared"] * 4, "4x576"),
        ("shared", "4x704"),
    ],
)
def test_a_layer_that_shares_an_indexer_keeps_no_index_keys(indexers: object, layout: str) -> None:
    config = {"model_type": "glm_moe_dsa", "num_hidden_layers": 4, "num_attention_heads": 2}
    config |= {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "index_head_dim": 128}
    assert config_facts(config | {"indexer_types": indexers})["kv_layout"] == layout


def test_mlx_weights_are_quantized() -> None:
    mlx = {"quantization": {"group_size": 64, "bits": 4}}
    assert config_facts(mlx)["quantization"] == "mlx 4-bit"
    assert config_facts({"quantization": "none"})["quantization"] is None
