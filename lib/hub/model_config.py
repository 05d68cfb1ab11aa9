"""A repository's config.json, read with distrust: context, layers, cache layout, parameters."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any

from lib.hub.model_info import as_dict, as_text
from lib.hub.parameter_count import count, counted, defaulted

__all__ = ["described"]

NESTED = ("text_config", "llm_config", "language_config")
CONTEXT = "max_position_embeddings n_positions max_seq_len max_sequence_length seq_length".split()
MAX_LAYERS = 2000
FULL, SLIDING, LINEAR, MAMBA, MLP, MOE = "full", "sliding", "linear", "mamba", "mlp", "moe"
TYPES = {
    "full_attention": FULL,
    "attention": FULL,
    "deepseek_sparse_attention": FULL,
    "sliding_attention": SLIDING,
    "chunked_attention": SLIDING,
    "linear_attention": LINEAR,
    "mamba": MAMBA,
    "mamba2": MAMBA,
    "moe": MOE,
    "mlp": MLP,
}
NEMOTRON = {"*": FULL, "M": MAMBA, "-": MLP, "E": MOE}
# One layer in so many attends to everything, where the class says so and config.json need not.
PATTERN = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4, "llama4_text": 4, "gpt_oss": 2}
ALL_SLIDE = {"mistral", "mixtral", "phi3", "starcoder2"}
OPTIONAL_WINDOW = re.compile(r"qwen[23]|dots1")  # a window counts only with use_sliding_window
# Parts whose cache these rules do not know: better no layout than a wrong one.
UNKNOWN = re.compile(
    r"(mamba|ssm|linear|lru|rwkv|conv_|delta|lightning|retention|compress|sparse_attention"
    r"|block_configs|cross_attention_layers|attn_layer|hybrid|kv_share|num_kv_shared|swa_|cla_)"
)
NOT_CACHE = re.compile(r"mamba_ssm_(cache_)?dtype|linear_bias|conv_(kernel|bias)_?")


def described(config: object) -> dict[str, Any]:
    """The facts of a raw config.json; null where it does not say or has parts not known here.

    Args:
        config: The parsed file, whatever its type. Text models inside multimodal ones are found.

    Returns:
        `architecture context_length layers kv_heads head_dim experts experts_active kv_layout
        state_bytes quantization remote_code config_params_b config_active_b`. `kv_layout` is
        `COUNTxELEMENTS[@WINDOW]` per kind of layer, joined by `;`: so many layers keep so many
        cache elements a token, over at most so many tokens. `state_bytes` is what recurrent
        layers keep per sequence. The counts of parameters, in billions, are of the text part.
    """
    root = as_dict(config)
    text = _text_part(root)
    kinds = _kinds(text)
    heads, width = count(text, "num_attention_heads", "n_head"), count(text, "hidden_size")
    head_dim = count(text, "head_dim", "attention_head_dim")
    if head_dim is None and heads and width and width % heads == 0:
        head_dim = width // heads
    latent = count(text, "kv_lora_rank") is not None
    experts = count(text, "num_local_experts", "n_routed_experts", "num_experts")
    total, active = counted(text, kinds) if kinds else (None, None)
    names = root.get("architectures")
    return {
        "architecture": as_text(names[0]) if isinstance(names, list) and names else None,
        "context_length": _context(text),
        "layers": _layers(text),
        "kv_heads": None if latent else count(text, "num_key_value_heads"),
        "head_dim": None if latent else head_dim,
        "experts": experts,
        "experts_active": experts
        and count(text, "num_experts_per_tok", "num_experts_per_token", "top_k_experts"),
        "kv_layout": _layout(text, kinds, head_dim) if kinds else None,
        "state_bytes": _state_bytes(text, kinds) if kinds else None,
        "quantization": _quantization(root, text),
        "remote_code": bool(as_dict(root.get("auto_map")) or as_dict(text.get("auto_map"))),
        "config_params_b": total and total / 1e9,
        "config_active_b": active and active / 1e9,
    }


def _text_part(root: dict[str, Any]) -> dict[str, Any]:
    """The decoder's own settings, over those of the whole model."""
    for key in NESTED:
        nested = as_dict(root.get(key))
        if nested:
            outer = {k: v for k, v in root.items() if k not in ("model_type", "hidden_size")}
            return defaulted(outer | nested)
    return defaulted(root)


def _context(text: dict[str, Any]) -> int | None:
    """The longest context; what a YaRN factor reaches where that is more."""
    context = count(text, *CONTEXT)
    scaling = as_dict(text.get("rope_scaling")) or as_dict(text.get("rope_parameters"))
    factor, trained = scaling.get("factor"), count(scaling, "original_max_position_embeddings")
    kind = scaling.get("rope_type", scaling.get("type"))
    if context and trained and kind == "yarn" and isinstance(factor, int | float):
        return max(context, round(trained * factor)) if 1 <= factor <= 1000 else context
    return context


def _layers(text: dict[str, Any]) -> int | None:
    listed = text.get("layers_block_type")
    layers = count(text, "num_hidden_layers", "n_layer")
    layers = layers or (len(listed) if isinstance(listed, list) else None)
    return layers if layers and layers <= MAX_LAYERS else None


def _kinds(text: dict[str, Any]) -> list[str] | None:
    """What every layer keeps: null where that is not known."""
    layers = _layers(text)
    if layers is None or text.get("is_encoder_decoder") is True:
        return None
    listed = _listed(text, layers)
    kinds = _periodic(text, layers) if listed is None else listed
    if kinds is not None:
        return kinds if len(kinds) == layers else None
    if any(UNKNOWN.search(k) and not NOT_CACHE.fullmatch(k) and v for k, v in text.items()):
        return None
    return _windowed(text, layers)


def _listed(text: dict[str, Any], layers: int) -> list[str] | None:
    """Layer kinds that config.json lists one by one; none at all where one is not known."""
    kinds: list[str | None] = []
    types = text.get("layer_types", text.get("layers_block_type"))
    nemotron, binary = text.get("hybrid_override_pattern"), text.get("hybrid_layer_pattern")
    linear = as_dict(text.get("linear_attn_config"))
    if isinstance(types, list):
        kinds = [TYPES.get(kind) if isinstance(kind, str) else None for kind in types]
    elif isinstance(nemotron, str):
        kinds = [NEMOTRON.get(kind) for kind in nemotron]
    elif isinstance(binary, list):  # MiMo V2
        kinds = [{0: FULL, 1: SLIDING}.get(kind) if type(kind) is int else None for kind in binary]
    elif isinstance(full := linear.get("full_attn_layers"), list):  # Kimi Linear counts from 1
        kinds = [FULL if place + 1 in full else LINEAR for place in range(layers)]
    elif isinstance(softmax := text.get("attn_type_list"), list):  # MiniMax
        kinds = [{0: LINEAR, 1: FULL}.get(kind) if type(kind) is int else None for kind in softmax]
    if not kinds:
        return None
    if None in kinds or (SLIDING in kinds and not _window(text)):
        return []
    return [kind for kind in kinds if kind is not None]


def _periodic(text: dict[str, Any], layers: int) -> list[str] | None:
    """Hybrids that give a period: Jamba, Qwen3-Next."""
    period, offset = count(text, "attn_layer_period"), text.get("attn_layer_offset")
    if period and type(offset) is int:
        return [FULL if place % period == offset else MAMBA for place in range(layers)]
    period = count(text, "full_attention_interval")
    if period and count(text, "linear_num_value_heads"):
        return [LINEAR if (place + 1) % period else FULL for place in range(layers)]
    return None


def _windowed(text: dict[str, Any], layers: int) -> list[str] | None:
    """Attention in every layer, over a window in some."""
    name, window = str(text.get("model_type")), _window(text)
    optional = OPTIONAL_WINDOW.match(name) and text.get("use_sliding_window") is not True
    if not window or optional or text.get("use_sliding_window") is False:
        return [FULL] * layers
    pattern = text.get("sliding_window_pattern", text.get("_sliding_window_pattern"))
    if isinstance(pattern, str) and pattern and set(pattern) <= {"L", "G"}:  # EXAONE
        return [SLIDING if pattern[i % len(pattern)] == "L" else FULL for i in range(layers)]
    period = pattern if type(pattern) is int and pattern > 0 else PATTERN.get(name)
    if period:
        return [SLIDING if (place + 1) % period else FULL for place in range(layers)]
    if OPTIONAL_WINDOW.match(name):
        first = text.get("max_window_layers")
        if not isinstance(first, int) or first < 0:
            return None
        return [FULL if place < first else SLIDING for place in range(layers)]
    return [SLIDING] * layers if name in ALL_SLIDE else None


def _window(text: dict[str, Any]) -> int | None:
    return count(text, "sliding_window", "attention_chunk_size")


def _layout(text: dict[str, Any], kinds: list[str], head_dim: int | None) -> str | None:
    """The cache of every kind of layer; grouped, in the order of the layers."""
    elements = {FULL: _elements(text, head_dim), SLIDING: _elements(text, head_dim, sliding=True)}
    shared = text.get("num_kv_shared_layers") or 0
    if type(shared) is not int or not 0 <= shared < len(kinds):
        return None
    own = [kind for kind in kinds[: len(kinds) - shared] if kind in elements]
    if any(elements[kind] is None for kind in own):
        return None
    parts = [
        f"{len(list(group))}x{elements[kind]}" + (f"@{_window(text)}" if kind == SLIDING else "")
        for kind, group in groupby(sorted(own))
    ]
    return ";".join(parts) or None


def _elements(text: dict[str, Any], head_dim: int | None, *, sliding: bool = False) -> int | None:
    """Cache elements a layer keeps for a token: keys and values, or the latent of MLA."""
    latent, rope = count(text, "kv_lora_rank"), count(text, "qk_rope_head_dim")
    if latent is not None:
        return latent + rope + (count(text, "index_head_dim") or 0) if rope else None
    heads, values = count(text, "num_key_value_heads"), count(text, "v_head_dim") or head_dim
    if heads is None and "num_key_value_heads" not in text:
        heads = count(text, "num_attention_heads", "n_head")
    if sliding and count(text, "swa_num_key_value_heads"):
        heads, head_dim = count(text, "swa_num_key_value_heads"), count(text, "swa_head_dim")
        values = count(text, "swa_v_head_dim") or head_dim
    elif not sliding and (wide := count(text, "global_head_dim")):  # Gemma 4
        heads, head_dim, values = count(text, "num_global_key_value_heads") or heads, wide, wide
    return heads * (head_dim + values) if heads and head_dim and values else None


def _state_bytes(text: dict[str, Any], kinds: list[str]) -> int | None:
    """What the recurrent layers keep per sequence: states of 4 bytes, convolutions of 2."""
    total = 0
    for kind in (LINEAR, MAMBA):
        if layers := kinds.count(kind):
            sizes = _linear_state(text) if kind == LINEAR else _mamba_state(text)
            if sizes is None:
                return None
            total += layers * (4 * sizes[0] + 2 * sizes[1])
    return total


def _linear_state(text: dict[str, Any]) -> tuple[int, int] | None:
    """Elements of state and convolution: gated delta net (Qwen3-Next) or KDA (Kimi Linear)."""
    kda = as_dict(text.get("linear_attn_config"))
    heads, size = count(kda, "num_heads"), count(kda, "head_dim")
    kernel = count(kda, "short_conv_kernel_size")
    if heads and size and kernel:
        return heads * size * size, 3 * heads * size * (kernel - 1)
    names = "linear_num_key_heads linear_key_head_dim linear_num_value_heads linear_value_head_dim"
    keys, key_dim, values, value_dim, kernel = (
        count(text, name) for name in [*names.split(), "linear_conv_kernel_dim"]
    )
    if not (keys and key_dim and values and value_dim and kernel):
        return None
    return values * key_dim * value_dim, (2 * keys * key_dim + values * value_dim) * (kernel - 1)


def _mamba_state(text: dict[str, Any]) -> tuple[int, int] | None:
    """Elements of state and convolution: Mamba-2, or Mamba as in Jamba."""
    kernel = count(text, "conv_kernel", "mamba_d_conv")
    state = count(text, "ssm_state_size", "mamba_d_state")
    heads = count(text, "mamba_num_heads", "mamba_n_heads")
    size = count(text, "mamba_head_dim", "mamba_d_head")
    groups = count(text, "n_groups", "mamba_n_groups")
    if not (kernel and state):
        return None
    if heads and size and groups:
        return heads * size * state, (heads * size + 2 * groups * state) * (kernel - 1)
    expand, width = count(text, "mamba_expand"), count(text, "hidden_size")
    if heads or not (expand and width):
        return None
    return expand * width * state, expand * width * (kernel - 1)


def _quantization(root: dict[str, Any], text: dict[str, Any]) -> str | None:
    """Method and bits of published weights, as `fp8`, `awq 4-bit`, `compressed-tensors 8-bit`."""
    found = as_dict(root.get("quantization_config") or text.get("quantization_config"))
    method = as_text(found.get("quant_algo")) or as_text(found.get("quant_method"))
    groups = as_dict(found.get("config_groups")).values()
    weights = [as_dict(as_dict(group).get("weights")) for group in groups]
    bits = count(found, "bits") or next(filter(None, (count(w, "num_bits") for w in weights)), None)
    bits = bits or (4 if found.get("load_in_4bit") is True else None)
    return (f"{method} {bits}-bit" if bits else method) if method else None
