"""How much memory a model takes: its weights, and the cache of keys and values layer by layer."""

import math
import re

import numpy as np
import pandas as pd

# Where the layers are not known, the cache counts as a fifth of the weights.
CACHE_SHARE = 0.2
# Activations and the runtime took 2 to 11 % of the memory in five published vLLM logs.
RUNTIME = 1.05
AGREE = 0.25
GIB = 2**30
LAYERS = re.compile(r"(\d+)x(\d+)(?:@(\d+))?")
FACTS = ["file_gb", "state_bytes", "layers", "kv_heads", "head_dim"]


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
        kv_layout: As `lib.sizing.model_config` writes it: `COUNTxELEMENTS[@WINDOW]` per kind of
            layer, joined by `;`.
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
) -> pd.DataFrame:
    """Add what every model takes in memory: `weights_gb kv_gb memory_gb memory_basis`.

    Weights are parameters times bytes, or the repository's own files where these hold about
    that much (within 25 %). The cache comes from `kv_layout`; failing that from `layers`,
    `kv_heads` and `head_dim`, an upper bound because every layer then keeps the whole context;
    failing that it is a fifth of the weights. Activations and the runtime add 5 %.

    Args:
        models: With `total_params_b`; other columns may be missing or blank, among them
            `file_gb`, the size of the repository's weight files.
        bytes_per_param: Of the precision to serve at.
        context_tokens: Tokens of one request, prompt and answer.
        concurrent_requests: Requests in memory at once.
    """
    facts = models.reindex(columns=FACTS).astype("Float64").astype(float)
    computed = models["total_params_b"] * bytes_per_param
    files = facts["file_gb"]
    weights = files.where((files - computed).abs() <= AGREE * computed, computed)
    layout = models.reindex(columns=["kv_layout"])["kv_layout"]
    sizes = {
        text: cache_gb(text, context_tokens=context_tokens) for text in layout.dropna().unique()
    }
    by_layer = layout.map(sizes).astype(float) + facts["state_bytes"].fillna(0.0) / 1e9
    # Keys and values, in two bytes each.
    plain = 4 * facts["layers"] * facts["kv_heads"] * facts["head_dim"] * context_tokens / 1e9
    cache = (by_layer.fillna(plain) * concurrent_requests).fillna(weights * CACHE_SHARE)
    memory = RUNTIME * (weights + cache)
    basis = np.select(
        [memory.isna(), by_layer.notna(), plain.notna()],
        ["unknown", "every layer of config.json", "all layers at full context: upper bound"],
        default="weights plus 20 %",
    )
    return models.assign(weights_gb=weights, kv_gb=cache, memory_gb=memory, memory_basis=basis)


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
    columns = ["kv_layout", "kv_heads", "kv_dtype", "tensor_parallel"]
    predicted = []
    for layout, heads, dtype, devices in measurements[columns].itertuples(index=False):
        size = 1.0 if dtype.startswith("fp8") else 2.0
        split = 1 if math.isnan(heads) else min(devices, int(heads))
        token_gb = cache_gb(layout, context_tokens=1, bytes_per_element=size)
        predicted.append(1e6 * token_gb / split)
    measured = measurements["kv_gib"] * GIB / measurements["kv_tokens"] / 1e3
    table = measurements.assign(measured_kb=measured, predicted_kb=predicted)
    return table.assign(error=table["predicted_kb"] / table["measured_kb"] - 1)
