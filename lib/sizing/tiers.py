"""Parameter counts to tiers, memory and the smallest machine that holds a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lib.brief import Deployment, Size
from lib.errors import PlaybookError, did_you_mean

# Billions of total parameters, the lower bound included; what lies outside is `between`.
BOUNDS = {"low": (0.0, 32.0), "medium": (70.0, 250.0), "high": (300.0, float("inf"))}
TIERS = list(BOUNDS)
# Bytes a weight by what a brief, config.json or file's name calls a precision; the first that is
# in it. Four-bit files hold scales, and embeddings in more bits.
PRECISIONS = [
    (r"w4|fp4|int4|q4|nf4|4[- ]?bit|awq|gptq", 0.6),
    (r"w8|fp8|int8|q8|8[- ]?bit", 1.0),
    (r"q[56]|[56][- ]?bit", 0.8),
    (r"q[23]|[23][- ]?bit", 0.45),
    (r"(b|fp?)16|float16|half", 2.0),
    (r"f(p|loat)?32", 4.0),
]
# A CPU reads every active weight for every token; beyond this it is too slow to serve.
CPU_ACTIVE_LIMIT_B = 2.0
# How far two counts of the same weights may lie apart, and files from parameters times bytes.
COUNTS_AGREE, FILES_AGREE = 0.10, 0.25
# A file with fewer bytes a weight holds an adapter, or a part.
LEAST_BYTES = 0.3
# Elements of these types are halves or quarters of a weight, or scales; a few are only buffers.
PACKED, PACKED_SHARE = re.compile(r"(U8|U32|I8|I32|F4|F8_E\w+)"), 0.05
# 80B in Qwen3-Next-80B-A3B; not the active A3B, the effective E4B nor the 8x7B of a mixture.
NAMED = r"(?i)(?:^|[-_ ])(\d+(?:\.\d+)?)([BM])(?=$|[-_ .])"
# Where the layers are not known, the cache counts as a fifth of the weights.
CACHE_SHARE, GUESSED = 0.2, "weights plus 20 %"
OUTSIDE = "outside the tier"
# Activations and the runtime took 2 to 11 % of the memory in five published vLLM logs.
RUNTIME = 1.05
MEMORY_FACTS = ["file_gb", "layers", "kv_heads", "head_dim"]


def wanted_tiers(size: Size, closed_models: pd.DataFrame) -> list[str]:
    """The tiers a brief looks at: its own, and one down where fine-tuning is planned.

    A closed model to be replaced that is not in the table is a PlaybookError.
    """
    if size.tier == "any":
        return [*TIERS, "between"]
    tiers, name = closed_models.set_index("closed_model")["tier"], size.replaces
    if name and name not in tiers.index:
        hint = did_you_mean(name, tiers.index, most=3, otherwise="give size.tier")
        raise PlaybookError(f"size.replaces: {name!r} is not in data/closed_models.csv; {hint}")
    place = TIERS.index(str(tiers[name] if name else size.tier))
    return TIERS[max(place - (size.fine_tuning == "planned"), 0) : place + 1]


def tier_of(total_params_b: pd.Series[float]) -> pd.Series[str]:
    """Tier by total parameters: low < 32B, medium 70-250B, high >= 300B, `between` otherwise."""
    inside = [
        total_params_b.between(low, high, inclusive="left" if tier == "low" else "both")
        for tier, (low, high) in BOUNDS.items()
    ]
    names = np.select([*inside, total_params_b.notna()], [*TIERS, "between"], default="unknown")
    return pd.Series(names, index=total_params_b.index)


def shortlist(
    judged: pd.DataFrame,
    hardware: pd.DataFrame,
    size: Size,
    *,
    tiers: list[str],
    deployments: Sequence[Deployment] = (),
) -> pd.DataFrame:
    """Size every model of step 1 and say which are shortlisted and why the others are not.

    A model that one of the `deployments` names is on the list outside the tier too. Memory bars no
    model, since somebody else may host it. Adds `tier total_params_b params_basis weights_gb kv_gb
    memory_gb memory_basis fits_on too_small shortlisted why`.
    """
    # Count, tier, memory, machine.
    sized = settle(judged)
    sized["tier"] = tier = tier_of(sized["total_params_b"])
    sized = estimate(sized, size)
    active = sized["active_params_b"].fillna(sized["total_params_b"])
    sized["fits_on"] = _smallest(sized["memory_gb"], active, hardware)
    sized["too_small"] = _too_small(sized, hardware, size, deployments)
    # The first objection that holds is why a model is not shortlisted.
    wanted, standing = f"; wanted {' or '.join(tiers)}", "tier " + tier
    outside, between = ~tier.isin(tiers), standing.replace("tier between", "between the tiers")
    unnamed = ~sized["repo_id"].isin([deployment.model for deployment in deployments])
    lineage = "a base model, listed only because others were made from it"
    objections = [
        (~sized["verdict"].isin(["allowed", "conditional"]), "step 1: " + sized["verdict"]),
        (unnamed & (sized["listed_for"] == "lineage"), lineage),
        (unnamed & (tier == "unknown"), "parameter count unknown"),
        (unnamed & outside, between + wanted),
    ]
    masks, texts = zip(*objections, strict=True)
    sized["shortlisted"] = ~np.logical_or.reduce(masks)
    machine = ", fits on " + sized["fits_on"].fillna("no machine of data/hardware.csv")
    fits = standing + machine.mask(sized["memory_gb"].isna(), ", memory unknown")
    fits = fits.mask(outside, f"{OUTSIDE}: " + standing + wanted)
    sized["why"] = np.select(masks, texts, default=fits)
    # A context that is too short is said, and bars nothing.
    short = sized["shortlisted"] & (sized["context_length"] < size.context_tokens)
    note = f" tokens is less than the {size.context_tokens:,} of size.context_tokens"
    context = sized.loc[short, "context_length"].map("; context {:,.0f}".format).astype("str")
    sized.loc[short, "why"] += context + note
    return sized


def _too_small(
    sized: pd.DataFrame, hardware: pd.DataFrame, size: Size, deployments: Sequence[Deployment]
) -> pd.Series[str]:
    """For each model, a line for every deployment whose machine cannot hold it and one request."""
    room_of: dict[Any, float] = hardware.set_index("hardware")["usable_gb"].to_dict()
    size = size.model_copy(update={"concurrent_requests": 1})
    lines = dict[str, list[str]]()
    for deployment in deployments:
        endpoint, room = deployment.endpoint, room_of.get(deployment.hardware)
        if endpoint is None or endpoint.recorded or room is None:
            continue
        precision = deployment.precision or (endpoint.gguf or "").rpartition("/")[2]
        fit = estimate(sized[sized["repo_id"] == deployment.model], size, precision=precision)
        least = fit["memory_gb"].where(fit["memory_basis"] != GUESSED, RUNTIME * fit["weights_gb"])
        for memory in least[least > room]:
            text = f"{deployment.hardware} holds {room:,.3g} GB, the model takes {memory:,.3g} GB"
            text += " or more: give its precision if it is lower, or another hardware"
            lines.setdefault(deployment.model, []).append(f"{deployment.name}: {text}")
    texts = {model: "\n".join(by_deployment) for model, by_deployment in lines.items()}
    return sized["repo_id"].map(texts).astype("str").fillna("")


def _smallest(
    memory_gb: pd.Series[float], active_b: pd.Series[float], hardware: pd.DataFrame
) -> pd.Series[str]:
    """The machine with the least usable memory that holds each model, or missing."""
    every = hardware.sort_values(["usable_gb", "usd_per_hour"], kind="stable")
    names = [
        np.array([*machines["hardware"], None])[np.searchsorted(machines["usable_gb"], memory_gb)]
        for machines in (every, every[~every["hardware"].str.startswith("cpu-")])
    ]
    return pd.Series(np.where(active_b <= CPU_ACTIVE_LIMIT_B, *names), memory_gb.index, dtype="str")


def benchmark_points(
    sized: pd.DataFrame, published: pd.DataFrame, *, benchmark: str
) -> pd.DataFrame:
    """Published scores of one benchmark beside the size of each model, best variant only."""
    scores = published[published["benchmark"] == benchmark]
    if scores.empty:
        names = ", ".join(sorted(published["benchmark"].unique()))
        raise PlaybookError(f"benchmark {benchmark!r} is not in published_scores; known: {names}")
    best = scores.sort_values("score", ascending=False).drop_duplicates("repo_id")
    best = best[["repo_id", "score", "unit", "kind", "source_url", "checked_on"]]
    sizes = sized[["repo_id", "family", "total_params_b", "tier", "verdict"]]
    return sizes.merge(best, on="repo_id").dropna(subset=["total_params_b"])


def settle(models: pd.DataFrame) -> pd.DataFrame:
    """Settle `total_params_b` of every model; `params_basis` says what it is taken from.

    The stated count decides, failing that the Hub's sum of tensors; that of packed weights must
    agree with the name, or the name decides.
    """
    stated, hub, name = models["total_params_b"], models["hub_params_b"], in_name(models["repo_id"])
    trusted = hub.notna() & (~packed_weights(models) | _near(hub, name))
    count = hub.map("{:,.4g}B".format).astype("str")
    basis = pd.Series("unknown", index=models.index, dtype="str").case_when(
        [
            (_near(hub, stated), "stated, Hub agrees"),
            (stated.notna() & hub.notna(), "stated; the Hub counts " + count),
            (stated.notna(), "stated"),
            (trusted, "Hub"),
            (name.notna() & hub.notna(), "name; the Hub counts packed weights: " + count),
            (name.notna(), "name"),
        ]
    )
    total = stated.fillna(hub.where(trusted)).fillna(name)
    return models.assign(total_params_b=total, params_basis=basis)


def _near(count: pd.Series[float], other: pd.Series[float]) -> pd.Series[bool]:
    return (count - other).abs() <= COUNTS_AGREE * other


def in_name(repo_ids: pd.Series[str]) -> pd.Series[float]:
    """The total that a repository's name states, in billions; missing where it states none."""
    parts = repo_ids.astype("str").str.replace(r"^.*/", "", regex=True).str.extract(NAMED)
    return parts[0].astype(float) * parts[1].str.upper().map({"B": 1.0, "M": 1e-3}).astype(float)


def packed_weights(models: pd.DataFrame) -> pd.Series[bool]:
    """Whether the published weights are quantized, so that the Hub may miscount them."""
    facts = models.reindex(columns=["quantization", "params_by_dtype"])
    return facts["quantization"].notna() | facts["params_by_dtype"].map(_is_packed).astype(bool)


def _is_packed(types: object) -> bool:
    counts = {kind: float(n) for kind, n in re.findall(r"(\w+):(\d+)", str(types))}
    part = sum(n for kind, n in counts.items() if PACKED.fullmatch(kind))
    return part > PACKED_SHARE * sum(counts.values())


def cache_gb(kv_layout: str, context_tokens: int) -> float:
    """One request's keys and values in BF16, in 1e9 bytes; `kv_layout` is as in `config_facts`."""
    elements = sum(
        int(count) * int(size) * min(context_tokens, int(window or context_tokens))
        for count, size, window in re.findall(r"(\d+)x(\d+)(?:@(\d+))?", kv_layout)
    )
    return elements * 2 / 1e9


def bytes_of(precision: object) -> float:
    """The bytes of a weight at a precision in anybody's words; missing where none is known."""
    words = str(precision).lower()
    return next((size for words_of, size in PRECISIONS if re.search(words_of, words)), np.nan)


def estimate(models: pd.DataFrame, size: Size, *, precision: str = "") -> pd.DataFrame:
    """Add what every model takes in memory: `weights_gb kv_gb memory_gb memory_basis`.

    Weights are parameters times bytes, at the `precision` of a deployment, else the brief's or
    that of the published ones (`quantization`) where it is lower; or the files (`file_gb`) where
    these hold about that much or, with no deployment's precision, less.
    The cache comes from `kv_layout`, else from `layers kv_heads head_dim`, else it is a fifth of
    the weights. Any column but `total_params_b` may be missing or blank.
    """
    facts = models.reindex(columns=MEMORY_FACTS).astype("Float64").astype(float)
    published = models.reindex(columns=["quantization"])["quantization"].map(bytes_of).astype(float)
    planned, each = bytes_of(size.precision), bytes_of(precision)
    per_weight = published.where(published < planned, planned) if np.isnan(each) else each
    total, files = models["total_params_b"], facts["file_gb"]
    computed = total * per_weight
    agree = (files - computed).abs() <= FILES_AGREE * computed
    fewer = (files < computed) & (files > LEAST_BYTES * total) & np.isnan(each)
    weights = files.where(agree | fewer, computed)
    layout, tokens = models.reindex(columns=["kv_layout"])["kv_layout"], size.context_tokens
    by_layer = layout.map(lambda text: cache_gb(text, tokens), na_action="ignore").astype(float)
    # Keys and values in two bytes each; an upper bound, as if every layer kept the whole context.
    plain = 4 * facts["layers"] * facts["kv_heads"] * facts["head_dim"] * tokens / 1e9
    cache = by_layer.fillna(plain) * size.concurrent_requests
    cache = cache.fillna(weights * CACHE_SHARE)
    memory = RUNTIME * (weights + cache)
    basis = np.select(
        [memory.isna(), by_layer.notna(), plain.notna()],
        ["unknown", "every layer of config.json", "all layers at full context: upper bound"],
        default=GUESSED,
    )
    return models.assign(weights_gb=weights, kv_gb=cache, memory_gb=memory, memory_basis=basis)


def against_measurements(measurements: pd.DataFrame) -> pd.DataFrame:
    """Compare the cache's arithmetic with what an engine logged on start.

    Adds `measured_kb predicted_kb` (1e3 bytes per token and device) and their relative `error`.
    """
    elements = measurements["kv_layout"].map(lambda layout: cache_gb(layout, 1) * 1e6 / 2)
    size = np.where(measurements["kv_dtype"].str.startswith("fp8"), 1, 2)
    split = measurements["kv_heads"].clip(upper=measurements["tensor_parallel"])
    predicted = elements * size / split.fillna(1)  # a latent cache is whole on each device
    measured = measurements["kv_gib"] * 2**30 / measurements["kv_tokens"] / 1e3
    table = measurements.assign(measured_kb=measured, predicted_kb=predicted)
    return table.assign(error=predicted / measured - 1)
