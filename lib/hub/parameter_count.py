"""The parameters of a decoder, counted from its config.json."""

from __future__ import annotations

from typing import Any

__all__ = ["count", "counted", "defaulted"]

# Decoders whose blocks are what is counted below, as read in transformers 4.57 and vLLM 0.11.
GATED = """aya baichuan bailing_moe cohere cohere2 deepseek deepseek_v2 deepseek_v3 deepseek_v32
    dots1 ernie4_5 ernie4_5_moe exaone4 gemma gemma2 gemma3_text gemma4_text glm glm4 glm4_moe
    glm_moe_dsa gpt_oss granite hunyuan_v1_dense internlm2 internlm3 kimi_k2 llama
    llama4_text mimo mimo_v2_flash minimax_m2 ministral ministral3 mistral mixtral olmo olmo2
    olmo3 olmoe phi3 phimoe qwen2 qwen2_5_vl qwen2_5_vl_text qwen2_moe qwen2_vl qwen3 qwen3_5_text
    qwen3_5_moe_text qwen3_moe qwen3_next qwen3_vl_moe_text qwen3_vl_text seed_oss smollm3
    stablelm""".split()
UNGATED = "apertus arcee nemotron nemotron_h phi starcoder2".split()
TIED = ("gemma", "cohere")  # the class ties the embeddings unless config.json says otherwise
# Parts that change the count and are not known here.
UNKNOWN = """hidden_size_per_layer_input routed_expert_hidden_size moe_latent_size block_configs
    num_hash_layers n_hash_layers zero_expert_num moe_intermediate_size_list altup_num_inputs
    ngram_vocab_size_ratio""".split()
# config.json leaves out what equals the default of the class (transformers 4.57).
DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
    }
}
LARGEST = 2**40


def count(settings: dict[str, Any], *names: str) -> int | None:
    """The first of these settings that is a whole number above zero and not absurd."""
    for name in names:
        value = settings.get(name)
        if type(value) is int and 0 < value < LARGEST:
            return value
    return None


def defaulted(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings completed with the defaults of their class, where it is known to leave some out."""
    return DEFAULTS.get(str(settings.get("model_type")), {}) | settings


def counted(text: dict[str, Any], kinds: list[str]) -> tuple[int | None, int | None]:
    """Total and active parameters of the text part, without norms, biases and draft heads.

    Args:
        text: The decoder's settings.
        kinds: What every layer is, from `lib.model_config`.
    """
    name = str(text.get("model_type"))
    width, words = count(text, "hidden_size"), count(text, "vocab_size")
    known = name in GATED or name in UNGATED
    if not known or not width or not words or any(text.get(key) for key in UNKNOWN):
        return None, None
    tied = text.get("tie_word_embeddings", name.startswith(TIED))
    total = active = words * width * (1 if tied is True else 2)
    for place, kind in enumerate(kinds):
        mixer: int | None = 0
        block: tuple[int, int] | None = (0, 0)
        if kind not in ("mlp", "moe"):
            mixer = _mixer(text, width, kind)
        if name != "nemotron_h":
            block = _block(text, width, routed=_is_routed(text, place))
        elif not mixer:
            block = _block(text, width, routed=kind == "moe")
        if mixer is None or block is None:
            return None, None
        total += mixer + block[0]
        active += mixer + block[1]
    return total, active


def _mixer(text: dict[str, Any], width: int, kind: str) -> int | None:
    """Parameters of a layer's attention, or of what stands in for it."""
    if kind == "linear":
        return _delta_net(text, width)
    if kind == "mamba":
        return _mamba(text, width)
    return _latent(text, width) if count(text, "kv_lora_rank") else _heads(text, width, kind)


def _heads(text: dict[str, Any], width: int, kind: str) -> int | None:
    """Queries, keys, values and output of grouped-query attention."""
    queries = count(text, "num_attention_heads")
    size = count(text, "head_dim", "attention_head_dim")
    size = size or (width // queries if queries else None)
    keys = count(text, "num_key_value_heads") or queries
    value_size = count(text, "v_head_dim") or size
    projections = 2
    if kind == "sliding" and count(text, "swa_num_key_value_heads"):
        queries, keys = (count(text, f"swa_num_{n}_heads") for n in ("attention", "key_value"))
    elif kind == "full" and count(text, "global_head_dim"):
        size = value_size = count(text, "global_head_dim")
        keys = count(text, "num_global_key_value_heads") or keys
        projections = 1 if text.get("attention_k_eq_v") is True else 2
    if not (queries and keys and size and value_size):
        return None
    gate = 2 if text.get("attn_output_gate") is True or _gated_queries(text) else 1
    kept = keys * (size + value_size) if projections == 2 else keys * size
    return width * (queries * size * gate + kept + queries * value_size)


def _gated_queries(text: dict[str, Any]) -> bool:
    return text.get("model_type") == "qwen3_next"


def _latent(text: dict[str, Any], width: int) -> int | None:
    """Multi-head latent attention, with the indexer of sparse attention where there is one."""
    heads, latent = count(text, "num_attention_heads"), count(text, "kv_lora_rank")
    rope, nope = count(text, "qk_rope_head_dim"), count(text, "qk_nope_head_dim")
    value = count(text, "v_head_dim")
    if not (heads and latent and rope and nope and value):
        return None
    rank = count(text, "q_lora_rank")
    queries = heads * (nope + rope)
    total = rank * (width + queries) if rank else width * queries
    total += width * (latent + rope) + latent * heads * (nope + value) + heads * value * width
    index_heads, index_size = count(text, "index_n_heads"), count(text, "index_head_dim")
    if index_heads and index_size:
        total += (rank or width) * index_heads * index_size + width * (index_size + index_heads)
    return total


def _delta_net(text: dict[str, Any], width: int) -> int | None:
    """The gated delta net of Qwen3-Next: four projections in, two gates, one out."""
    names = "linear_num_key_heads linear_key_head_dim linear_num_value_heads linear_value_head_dim"
    keys, key_dim, values, value_dim = (count(text, name) for name in names.split())
    if not (keys and key_dim and values and value_dim):
        return None
    return width * (2 * keys * key_dim + 3 * values * value_dim + 2 * values)


def _mamba(text: dict[str, Any], width: int) -> int | None:
    """A Mamba-2 mixer."""
    heads, size = count(text, "mamba_num_heads"), count(text, "mamba_head_dim")
    groups, state = count(text, "n_groups"), count(text, "ssm_state_size")
    if not (heads and size and groups and state):
        return None
    return width * (3 * heads * size + 2 * groups * state + heads)


def _is_routed(text: dict[str, Any], place: int) -> bool:
    """Whether this layer is a mixture of experts."""
    if not count(text, "num_local_experts", "n_routed_experts", "num_experts"):
        return False
    frequency, dense = text.get("moe_layer_freq"), text.get("mlp_only_layers")
    if isinstance(frequency, list):
        return place < len(frequency) and frequency[place] == 1
    if isinstance(dense, list) and place in dense:
        return False
    first = text.get("first_k_dense_replace", text.get("moe_layer_start_index", 0))
    if type(first) is int and place < first:
        return False
    step = count(text, "decoder_sparse_step", "interleave_moe_layer_step")
    if step:
        return (place + 1) % step == 0
    return type(frequency) is not int or frequency < 1 or place % frequency == 0


def _block(text: dict[str, Any], width: int, *, routed: bool) -> tuple[int, int] | None:
    """Total and active parameters of a layer's feed-forward part."""
    matrices = 2 if text.get("model_type") in UNGATED else 3
    inner = count(text, "intermediate_size", "ffn_hidden_size")
    if not routed:
        dense = count(text, "intermediate_size_mlp") or inner
        return (matrices * width * dense, matrices * width * dense) if dense else None
    experts = count(text, "num_local_experts", "n_routed_experts", "num_experts")
    chosen = count(text, "num_experts_per_tok", "num_experts_per_token", "top_k_experts")
    size = count(text, "moe_intermediate_size") or inner
    if not (experts and chosen and size):
        return None
    shared = count(text, "moe_shared_expert_intermediate_size", "shared_expert_intermediate_size")
    if shared is None:
        shared = size * (count(text, "n_shared_experts", "num_shared_experts") or 0)
    if text.get("model_type") == "llama4_text":
        shared = size
    elif text.get("enable_moe_block") is True:  # Gemma 4 keeps its dense part beside the experts
        shared = inner or 0
    router, expert = width * experts, matrices * width * size
    common = router + matrices * width * shared
    return common + experts * expert, common + chosen * expert
