"""Parameter counts to tiers, memory and the smallest machine that holds a model."""

from __future__ import annotations

import difflib

import numpy as np
import pandas as pd

from lib.brief.project import Size
from lib.errors import PlaybookError
from lib.hub.facts import verified
from lib.sizing import memory
from lib.sizing.parameters import packed, reconcile

__all__ = [
    "BOUNDS",
    "TIERS",
    "benchmark_points",
    "resize",
    "shortlist",
    "tier_of_closed",
    "wanted_tiers",
]

# Billions of total parameters, the lower bound included; what lies outside is `between`.
BOUNDS = {"low": (0.0, 32.0), "medium": (70.0, 250.0), "high": (300.0, float("inf"))}
TIERS = list(BOUNDS)
FROM_CONFIG = """kv_layout state_bytes quantization config_params_b
    params_by_dtype""".split()
# Four-bit files hold scales, and embeddings in more bits: 0.59 to 0.70 bytes in published logs.
BYTES = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.6, "fp4": 0.6}
# A CPU reads every active weight for every token; beyond this it is too slow to serve.
CPU_ACTIVE_LIMIT_B = 2.0


def tier_of_closed(name: str, closed_models: pd.DataFrame) -> str:
    """The tier of open models that replaces a closed model.

    Raises:
        PlaybookError: The table has no such closed model; names the nearest.
    """
    known = closed_models.set_index("closed_model")["tier"]
    if name not in known.index:
        close = difflib.get_close_matches(name, list(known.index), n=3)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "give size.tier"
        raise PlaybookError(f"size.replaces: {name!r} is not in data/closed_models.csv; {hint}")
    return str(known[name])


def wanted_tiers(size: Size, closed_models: pd.DataFrame) -> list[str]:
    """The tiers a brief looks at: its own, and one down where fine-tuning is planned."""
    if size.tier == "any":
        return [*TIERS, "between"]
    tier = size.tier or tier_of_closed(size.replaces or "", closed_models)
    below = TIERS[max(TIERS.index(tier) - 1, 0)]
    return sorted({tier, below if size.fine_tuning == "planned" else tier}, key=TIERS.index)


def tier_of(total_params_b: pd.Series[float]) -> pd.Series[str]:
    """Tier by total parameters: low < 32B, medium 70-250B, high >= 300B, `between` otherwise."""
    size = total_params_b
    inside = [
        size.between(low, high, inclusive="left" if tier == "low" else "both")
        for tier, (low, high) in BOUNDS.items()
    ]
    names = np.select([*inside, size.notna()], [*TIERS, "between"], default="unknown")
    return pd.Series(names, index=size.index)


def shortlist(
    judged: pd.DataFrame, hardware: pd.DataFrame, size: Size, *, tiers: list[str]
) -> pd.DataFrame:
    """Size every model of step 1 and say which are shortlisted and why the others are not.

    Args:
        judged: From `legal.judge`, with the catalogue's counts.
        hardware: From `tables.hardware`.
        size: The brief's `size` section; its precision sets the bytes a parameter takes.
        tiers: The tiers wanted, from `wanted_tiers`.

    Returns:
        All models with `tier total_params_b active_params_b params_basis weights_gb kv_gb
        memory_gb memory_basis fits_on shortlisted why` added.
    """
    sized = reconcile(judged)
    sized["tier"] = tier_of(sized["total_params_b"])
    sized = memory.estimate(
        sized,
        bytes_per_param=BYTES[size.precision],
        context_tokens=size.context_tokens,
        concurrent_requests=size.concurrent_requests,
    )
    active = sized["active_params_b"].fillna(sized["total_params_b"])
    sized["fits_on"] = _smallest(sized["memory_gb"], active, hardware)
    usable = sized["verdict"].isin(["allowed", "conditional"])
    candidate = sized["listed_for"] != "lineage"
    in_tier = sized["tier"].isin(tiers)
    sized["shortlisted"] = usable & candidate & in_tier & sized["fits_on"].notna()
    wanted = " or ".join(tiers)
    sized["why"] = np.select(
        [
            ~usable,
            ~candidate,
            sized["tier"] == "unknown",
            (sized["tier"] == "between") & ~in_tier,
            ~in_tier,
            sized["fits_on"].isna(),
        ],
        [
            "step 1: " + sized["verdict"],
            "a base model, listed only because others were made from it",
            "parameter count unknown",
            f"between the tiers; wanted {wanted}",
            "tier " + sized["tier"] + f"; wanted {wanted}",
            "no machine in data/hardware.csv holds it",
        ],
        default="tier " + sized["tier"] + ", fits on " + sized["fits_on"].fillna(""),
    )
    if "context_length" not in sized.columns:
        return sized
    short = sized["shortlisted"] & (sized["context_length"] < size.context_tokens)
    note = "; context " + sized["context_length"].map("{:,.0f}".format) + " tokens is less than"
    sized.loc[short, "why"] += note[short] + f" the {size.context_tokens:,} of size.context_tokens"
    return sized


def resize(
    judged: pd.DataFrame,
    metadata: pd.DataFrame,
    drifts: pd.DataFrame,
    hardware: pd.DataFrame,
    size: Size,
    *,
    tiers: list[str],
) -> pd.DataFrame:
    """Step 2 again with what the Hub says: layers, files, context, and a size that drifted.

    The Hub's count replaces the stated one only where it drifted and the weights are not packed,
    because of packed weights the Hub counts too few or too many.

    Args:
        judged: The catalogue with the verdicts after the Hub.
        metadata: From `hub.pull`.
        drifts: From `drift.found`.
        hardware: From `tables.hardware`.
        size: The brief's `size` section.
        tiers: The tiers wanted, from `wanted_tiers`.
    """
    told = metadata[metadata["repo_id"].isin(verified(metadata))].drop_duplicates("repo_id")
    facts = told.set_index("repo_id").reindex(judged["repo_id"]).set_axis(judged.index)
    table = judged.copy()
    for column in FROM_CONFIG:
        table[column] = facts.get(column)
    table["file_gb"] = facts.get("weights_gb")
    for column in ("layers", "kv_heads", "head_dim", "context_length"):
        table[column] = facts[column].astype("Float64").astype(float).fillna(table[column])
    by_tensors, by_gguf = (facts[name].astype(float) for name in ("params_b", "gguf_params_b"))
    count = by_tensors.fillna(by_gguf)
    moved = table["repo_id"].isin(drifts.loc[drifts["field"] == "size", "repo_id"])
    moved &= count.notna() & ~packed(facts)
    table.loc[moved, "hub_params_b"] = count[moved]
    table.loc[moved, "total_params_b"] = float("nan")
    return shortlist(table, hardware, size, tiers=tiers)


def _smallest(
    memory_gb: pd.Series[float], active_b: pd.Series[float], hardware: pd.DataFrame
) -> pd.Series[str]:
    """The machine with the least usable memory that holds each model, or missing."""
    frames = []
    for machines, members in (
        (hardware, active_b <= CPU_ACTIVE_LIMIT_B),
        (hardware[~hardware["hardware"].str.startswith("cpu-")], ~(active_b <= CPU_ACTIVE_LIMIT_B)),
    ):
        ladder = machines.sort_values(["usable_gb", "usd_per_hour"], kind="stable")
        needed = memory_gb[members]
        place = np.searchsorted(ladder["usable_gb"].to_numpy(), needed.to_numpy(), side="left")
        names = dict(enumerate(ladder["hardware"]))
        found = pd.Series(place, index=needed.index).map(names).astype("str")
        frames.append(found.where(needed.notna()))
    return pd.concat(frames).reindex(memory_gb.index)


def benchmark_points(
    sized: pd.DataFrame, published: pd.DataFrame, *, benchmark: str
) -> pd.DataFrame:
    """Published scores of one benchmark beside the size of each model, best variant only.

    Raises:
        PlaybookError: `data/published_scores.csv` has no such benchmark.
    """
    scores = published[published["benchmark"] == benchmark]
    if scores.empty:
        known = ", ".join(sorted(published["benchmark"].unique()))
        raise PlaybookError(f"benchmark {benchmark!r} is not in published_scores; known: {known}")
    best = scores.sort_values("score", ascending=False).drop_duplicates("repo_id")
    columns = ["repo_id", "score", "unit", "kind", "source_url", "checked_on"]
    sizes = sized[["repo_id", "family", "total_params_b", "tier", "verdict"]]
    return sizes.merge(best[columns], on="repo_id").dropna(subset=["total_params_b"])
