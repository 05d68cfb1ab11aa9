"""Parameter counts to tiers, memory and the smallest machine that holds a model."""

from __future__ import annotations

import difflib

import numpy as np
import pandas as pd

from lib.errors import PlaybookError
from lib.project import Size

__all__ = [
    "BOUNDS",
    "TIERS",
    "benchmark_points",
    "reconcile",
    "shortlist",
    "tier_of_closed",
    "wanted_tiers",
]

# Billions of total parameters, the lower bound included; what lies outside is `between`.
BOUNDS = {"low": (0.0, 32.0), "medium": (70.0, 250.0), "high": (300.0, float("inf"))}
TIERS = list(BOUNDS)
BYTES = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5, "fp4": 0.5}
# Weights are not all: a fifth more for the KV cache and the runtime until step 3 knows better.
OVERHEAD = 1.2
# A CPU reads every active weight for every token; beyond this it is too slow to serve.
CPU_ACTIVE_LIMIT_B = 2.0
AGREE = 0.10


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


def reconcile(models: pd.DataFrame) -> pd.DataFrame:
    """Settle the parameter count of every model and say on what basis.

    The stated count (vendor, card) wins over the Hub's sum of tensors, which is wrong for
    packed four-bit weights; a difference above 10 % stays visible in `params_basis`.

    Returns:
        The models with `total_params_b` settled and `params_basis` added.
    """
    stated, on_hub = models["total_params_b"], models["hub_params_b"]
    agree = (stated - on_hub).abs() <= AGREE * stated
    basis = np.select(
        [
            stated.notna() & on_hub.notna() & agree,
            stated.notna() & on_hub.notna(),
            stated.notna(),
            on_hub.notna(),
        ],
        ["stated, Hub agrees", "stated, Hub differs", "stated", "Hub"],
        default="unknown",
    )
    differs = basis == "stated, Hub differs"
    text = "stated; the Hub counts " + on_hub.map("{:,.4g}B".format)
    return models.assign(
        total_params_b=stated.fillna(on_hub),
        params_basis=np.where(differs, text, basis),
    )


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
        All models with `tier total_params_b active_params_b params_basis memory_gb fits_on
        shortlisted why` added; `memory_gb` is weights at the precision plus 20 %.
    """
    sized = reconcile(judged)
    sized["tier"] = tier_of(sized["total_params_b"])
    sized["memory_gb"] = sized["total_params_b"] * BYTES[size.precision] * OVERHEAD
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
    return sized


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
