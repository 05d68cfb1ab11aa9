"""How much memory a model takes: its weights, and the cache of keys and values layer by layer."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd

__all__ = ["against_measurements", "cache_gb", "estimate"]

# Where the layers are not known, the cache counts as a fifth of the weights.
CACHE_SHARE = 0.2
# Activations and the runtime took 2 to 11 % of the memory in five published vLLM logs.
RUNTIME = 1.05
AGREE = 0.25
GIB = 2**30
LAYERS = re.compile(r"(\d+)x(\d+)(?:@(\d+))?")


def cache_gb(
    kv_layout: str,
    *,
    context_tokens: int,
    concurrent_requests: int = 1,
    state_bytes: float = 0.0,
    bytes_per_element: float = 2.0,
) -> float:
    """The cache of keys and values, in GB of 1e9 bytes.

    Args:
        kv_layout: As `lib.model_config.described` writes it: `COUNTxELEMENTS[@WINDOW]` per kind
            of layer, joined by `;`.
        context_tokens: Prompt and answer of one request; a layer with a window keeps no more
            than the window.
        concurrent_requests: Requests in memory at once.
        state_bytes: What recurrent layers keep for each request, whatever its length.
        bytes_per_element: 2 for a cache in BF16, 1 for FP8.
    """
    elements = sum(
        int(count) * int(size) * min(context_tokens, int(window or context_tokens))
        for count, size, window in LAYERS.findall(kv_layout)
    )
    return concurrent_requests * (elements * bytes_per_element + state_bytes) / 1e9


def estimate(
    models: pd.DataFrame,
    *,
    bytes_per_param: float,
    context_tokens: int,
    concurrent_requests: int,
    bytes_per_element: float = 2.0,
) -> pd.DataFrame:
    """Add what every model takes in memory: `weights_gb kv_gb memory_gb memory_basis`.

    Weights are parameters times bytes, or the repository's own files where these hold about
    that much (within 25 %). The cache comes from `kv_layout`; failing that from `layers`,
    `kv_heads` and `head_dim`, an upper bound because every layer then keeps the whole context;
    failing that it is a fifth of the weights. Activations and the runtime add 5 %; five
    published vLLM logs show 2 to 11 %.

    Args:
        models: With `total_params_b`; other columns may be missing or blank, among them
            `file_gb`, the size of the repository's weight files.
        bytes_per_param: Of the precision to serve at.
        context_tokens: Tokens of one request, prompt and answer.
        concurrent_requests: Requests in memory at once.
        bytes_per_element: Of the cache.
    """
    table = models.copy()
    computed = table["total_params_b"] * bytes_per_param
    files = _column(table, "file_gb")
    own = (files - computed).abs() <= AGREE * computed
    table["weights_gb"] = files.where(own, computed)
    layout = table["kv_layout"] if "kv_layout" in table.columns else pd.Series(None, table.index)
    sizes = {
        text: cache_gb(
            str(text), context_tokens=context_tokens, bytes_per_element=bytes_per_element
        )
        for text in layout.dropna().unique()
    }
    state = _column(table, "state_bytes").fillna(0.0) / 1e9
    by_layer = layout.map(sizes).astype(float) + state
    shape = [_column(table, name) for name in ("layers", "kv_heads", "head_dim")]
    plain = 2 * shape[0] * shape[1] * shape[2] * context_tokens * bytes_per_element / 1e9
    cache = (by_layer.fillna(plain) * concurrent_requests).fillna(table["weights_gb"] * CACHE_SHARE)
    table["kv_gb"] = cache
    table["memory_gb"] = RUNTIME * (table["weights_gb"] + cache)
    known = table["memory_gb"].notna()
    table["memory_basis"] = np.select(
        [~known, by_layer.notna(), plain.notna()],
        ["unknown", "every layer of config.json", "all layers at full context: upper bound"],
        default="weights plus 20 %",
    )
    return table


def against_measurements(measurements: pd.DataFrame) -> pd.DataFrame:
    """Compare the cache's arithmetic with what an engine logged on start.

    An engine logs how much memory it keeps for the cache and how many tokens fit in; the layers
    say how many bytes a token takes at full context. Tensor parallelism splits KV heads, never
    below one a device, and leaves a latent cache whole on every device.

    Args:
        measurements: From `tables.memory_measurements`, sizes for one device as logged.

    Returns:
        The rows with `measured_kb predicted_kb` (bytes of 1e3, per token and device) and
        `error` (predicted over measured, less one) added.
    """
    table = measurements.copy()
    table["measured_kb"] = table["kv_gib"] * GIB / table["kv_tokens"] / 1e3
    rows = table[["kv_layout", "kv_heads", "kv_dtype", "tensor_parallel"]].itertuples(index=False)
    table["predicted_kb"] = [_token_kb(*row) for row in rows]
    return table.assign(error=table["predicted_kb"] / table["measured_kb"] - 1)


def _token_kb(kv_layout: str, kv_heads: float, kv_dtype: str, tensor_parallel: int) -> float:
    """Bytes of 1e3 that one more token takes on one device, far inside every window."""
    split = 1 if math.isnan(kv_heads) else min(tensor_parallel, int(kv_heads))
    size = 1.0 if kv_dtype.startswith("fp8") else 2.0
    return 1e6 * cache_gb(kv_layout, context_tokens=1, bytes_per_element=size) / split


def _column(table: pd.DataFrame, name: str) -> pd.Series[float]:
    if name not in table.columns:
        return pd.Series(float("nan"), index=table.index)
    return table[name].astype("Float64").astype(float)
