"""A repository's config.json, read with distrust: context, layers and cache layout."""

import re
from itertools import groupby
from typing import Any

from lib.untrusted import as_dict, as_list, as_text

NESTED = ("text_config", "llm_config", "language_config")
CONTEXT = "max_position_embeddings n_positions max_seq_len max_sequence_length seq_length".split()
MAX_LAYERS, LARGEST = 2000, 2**40
FULL, SLIDING, NO_CACHE = "full", "sliding", "none"  # recurrent layers keep a small state instead
UNINDEXED = "full, with the index keys of an earlier layer"  # sparse attention of GLM 5.2
TYPES = dict.fromkeys(("full_attention", "attention", "deepseek_sparse_attention"), FULL)
TYPES |= dict.fromkeys(("sliding_attention", "chunked_attention"), SLIDING)
TYPES |= dict.fromkeys(("linear_attention", "mamba", "mamba2", "moe", "mlp"), NO_CACHE)
# Settings that give the kinds of layers one by one: transformers, Nemotron-H, MiniMax.
LAYER_SETTINGS: dict[str, tuple[type, dict[Any, str]]] = {
    "layer_types": (list, TYPES),
    "layers_block_type": (list, TYPES),
    "hybrid_override_pattern": (str, {"*": FULL} | dict.fromkeys("M-E", NO_CACHE)),
    "attn_type_list": (list, {0: NO_CACHE, 1: FULL}),
}
# One layer in so many attends to everything, where the class says so and config.json need not.
PATTERN = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4, "llama4_text": 4, "gpt_oss": 2}
ALL_SLIDE = {"mistral", "mixtral", "phi3", "starcoder2"}
OPTIONAL_WINDOW = re.compile(r"qwen[23]|dots1")  # a window counts only with use_sliding_window
# Parts whose cache these rules do not know: better no layout than a wrong one.
UNKNOWN = re.compile(
    r"(mamba|ssm|linear|lru|rwkv|conv_|delta|lightning|retention|compress|sparse_attention"
    r"|block_configs|cross_attention_layers|attn_layer|hybrid|kv_share|num_kv_shared|swa_|cla_)"
)
NOT_CACHE = re.compile(r"linear_bias|conv_(kernel|bias)_?")
# config.json leaves out what equals the default of the class (transformers 4.57).
GEMMA3 = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}
DEFAULTS = {"gemma3_text": GEMMA3 | {"max_position_embeddings": 131072}}


def config_facts(config: object) -> dict[str, Any]:
    """The facts of a raw config.json; null where it does not say or has parts not known here.

    `kv_layout` is `COUNTxELEMENTS[@WINDOW]` per kind of layer, joined by `;`: so many layers keep
    so many cache elements a token, over at most so many tokens.
    """
    root = as_dict(config)
    nested = next(filter(None, (as_dict(root.get(key)) for key in NESTED)), {})
    outer = {k: v for k, v in root.items() if k not in ("model_type", "hidden_size")}
    text = outer | nested if nested else root
    text = DEFAULTS.get(str(text.get("model_type")), {}) | text
    kinds = _kinds(text)
    heads, width = _count(text, "num_attention_heads", "n_head"), _count(text, "hidden_size")
    head_dim = _count(text, "head_dim", "attention_head_dim")
    if head_dim is None and heads and width and width % heads == 0:
        head_dim = width // heads
    latent = _count(text, "kv_lora_rank") is not None
    return {
        "context_length": _context(text),
        "layers": _layers(text),
        "kv_heads": None if latent else _count(text, "num_key_value_heads"),
        "head_dim": None if latent else head_dim,
        "kv_layout": _layout(text, kinds, head_dim) if kinds else None,
        "quantization": _quantization(root, text),
        "remote_code": bool(as_dict(root.get("auto_map")) or as_dict(text.get("auto_map"))),
    }


def _count(settings: dict[str, Any], *names: str) -> int | None:
    """The first of these settings that is a whole number above zero and not absurd."""
    values = (settings.get(name) for name in names)
    return next((n for n in values if type(n) is int and 0 < n < LARGEST), None)


def _context(text: dict[str, Any]) -> int | None:
    """The longest context; what a YaRN factor reaches where that is more."""
    context = _count(text, *CONTEXT)
    scaling = as_dict(text.get("rope_scaling")) or as_dict(text.get("rope_parameters"))
    factor, trained = scaling.get("factor"), _count(scaling, "original_max_position_embeddings")
    yarn = scaling.get("rope_type", scaling.get("type")) == "yarn"
    if context and trained and yarn and isinstance(factor, int | float) and 1 <= factor <= 1000:
        return max(context, round(trained * factor))
    return context


def _layers(text: dict[str, Any]) -> int | None:
    layers = _count(text, "num_hidden_layers", "n_layer")
    layers = layers or len(as_list(text.get("layers_block_type")))
    return layers if 0 < layers <= MAX_LAYERS else None


def _kinds(text: dict[str, Any]) -> list[str] | None:
    """What every layer keeps: null where that is not known."""
    layers = _layers(text)
    if layers is None or text.get("is_encoder_decoder") is True:
        return None
    kinds = _by_layer(text)
    period = _count(text, "full_attention_interval")
    if not kinds and period and _count(text, "linear_num_value_heads"):  # Qwen3-Next
        kinds = [NO_CACHE if (place + 1) % period else FULL for place in range(layers)]
    if not kinds:
        parts = [key for key, value in text.items() if value and UNKNOWN.search(key)]
        kinds = list(_pattern(text, layers) or []) if all(map(NOT_CACHE.fullmatch, parts)) else []
    by_layer = [kind for kind in kinds if kind and (kind != SLIDING or _window(text))]
    for place, indexer in enumerate(as_list(text.get("indexer_types"))[: len(by_layer)]):
        if indexer == "shared" and by_layer[place] == FULL:
            by_layer[place] = UNINDEXED
    return by_layer if len(by_layer) == len(kinds) == layers else None


def _by_layer(text: dict[str, Any]) -> list[str | None]:
    """Layer kinds that config.json lists one by one, null for one that is not known."""
    for setting, (shape, names) in LAYER_SETTINGS.items():
        if isinstance(text.get(setting), shape):
            plain = (kind if type(kind) in (int, str) else None for kind in text[setting])
            return [names.get(kind) for kind in plain]
    return []


def _pattern(text: dict[str, Any], layers: int) -> list[str] | None:
    """Attention in every layer, over a window in some."""
    name, switch = str(text.get("model_type")), text.get("use_sliding_window")
    optional = OPTIONAL_WINDOW.match(name)
    if not _window(text) or switch is False or (optional and switch is not True):
        return [FULL] * layers
    pattern = text.get("sliding_window_pattern", text.get("_sliding_window_pattern"))
    period = pattern if type(pattern) is int and pattern > 0 else PATTERN.get(name)
    if period:
        return [SLIDING if (place + 1) % period else FULL for place in range(layers)]
    return [SLIDING] * layers if name in ALL_SLIDE else None


def _window(text: dict[str, Any]) -> int | None:
    return _count(text, "sliding_window", "attention_chunk_size")


def _layout(text: dict[str, Any], kinds: list[str], head_dim: int | None) -> str | None:
    """The cache of every kind of layer; grouped, in the order of the layers."""
    elements = {FULL: _elements(text, head_dim), SLIDING: _elements(text, head_dim, sliding=True)}
    elements[UNINDEXED] = _elements(text | {"index_head_dim": None}, head_dim)
    shared = text.get("num_kv_shared_layers") or 0
    if type(shared) is not int or not 0 <= shared < len(kinds):
        return None
    caching = sorted(kind for kind in kinds[: len(kinds) - shared] if kind in elements)
    if any(elements[kind] is None for kind in caching):
        return None
    parts = [
        f"{len(list(group))}x{elements[kind]}" + (f"@{_window(text)}" if kind == SLIDING else "")
        for kind, group in groupby(caching)
    ]
    return ";".join(parts) or None


def _elements(text: dict[str, Any], head_dim: int | None, *, sliding: bool = False) -> int | None:
    """Cache elements a layer keeps for a token: keys and values, or the latent of MLA."""
    latent, rope = _count(text, "kv_lora_rank"), _count(text, "qk_rope_head_dim")
    if latent is not None:
        return latent + rope + (_count(text, "index_head_dim") or 0) if rope else None
    heads, values = _count(text, "num_key_value_heads"), _count(text, "v_head_dim") or head_dim
    if heads is None and "num_key_value_heads" not in text:
        heads = _count(text, "num_attention_heads", "n_head")
    if not sliding and (wide := _count(text, "global_head_dim")):  # Gemma 4
        heads, head_dim, values = _count(text, "num_global_key_value_heads") or heads, wide, wide
    return heads * (head_dim + values) if heads and head_dim and values else None


def _quantization(root: dict[str, Any], text: dict[str, Any]) -> str | None:
    """Method and bits of published weights, as `fp8`, `awq 4-bit`, `compressed-tensors 8-bit`."""
    settings = as_dict(root.get("quantization_config") or text.get("quantization_config"))
    mlx = as_dict(root.get("quantization"))  # MLX: `group_size` and `bits`, and no method
    settings = settings or ({"quant_method": "mlx"} | mlx if mlx.get("bits") else {})
    method = as_text(settings.get("quant_algo")) or as_text(settings.get("quant_method"))
    groups = as_dict(settings.get("config_groups")).values()
    weights = [as_dict(as_dict(group).get("weights")) for group in groups]
    bits = [_count(settings, "bits"), *(_count(one, "num_bits") for one in weights)]
    bits += [4 if settings.get("load_in_4bit") is True else None]
    size = next(filter(None, bits), None)
    return f"{method} {size}-bit" if method and size else method
