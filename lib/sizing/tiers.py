"""Parameter counts to tiers, memory and the smallest machine that holds a model."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from lib.brief import Size
from lib.errors import PlaybookError, did_you_mean
from lib.sizing import memory

# Billions of total parameters, the lower bound included; what lies outside is `between`.
BOUNDS = {"low": (0.0, 32.0), "medium": (70.0, 250.0), "high": (300.0, float("inf"))}
TIERS = list(BOUNDS)
# Four-bit files hold scales, and embeddings in more bits: 0.59 to 0.70 bytes in published logs.
BYTES = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.6, "fp4": 0.6}
# A CPU reads every active weight for every token; beyond this it is too slow to serve.
CPU_ACTIVE_LIMIT_B = 2.0


def tier_of_closed(name: str, closed_models: pd.DataFrame) -> str:
    """The tier of open models that replaces a closed model.

    Raises:
        PlaybookError: The table has no such closed model; names the nearest.
    """
    tiers = closed_models.set_index("closed_model")["tier"]
    if name not in tiers.index:
        hint = did_you_mean(name, tiers.index, most=3, otherwise="give size.tier")
        raise PlaybookError(f"size.replaces: {name!r} is not in data/closed_models.csv; {hint}")
    return str(tiers[name])


def wanted_tiers(size: Size, closed_models: pd.DataFrame) -> list[str]:
    """The tiers a brief looks at: its own, and one down where fine-tuning is planned."""
    if size.tier == "any":
        return [*TIERS, "between"]
    tier = size.tier or tier_of_closed(size.replaces or "", closed_models)
    place = TIERS.index(tier)
    return TIERS[max(place - (size.fine_tuning == "planned"), 0) : place + 1]


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
    # Count, tier, memory, machine.
    sized = settle(judged)
    sized["tier"] = tier_of(sized["total_params_b"])
    sized = memory.estimate(
        sized,
        bytes_per_param=BYTES[size.precision],
        context_tokens=size.context_tokens,
        concurrent_requests=size.concurrent_requests,
    )
    active = sized["active_params_b"].fillna(sized["total_params_b"])
    sized["fits_on"] = _smallest(sized["memory_gb"], active, hardware)
    # The first objection that holds is why a model is not shortlisted.
    tier, in_tier = sized["tier"], sized["tier"].isin(tiers)
    lineage = "a base model, listed only because others were made from it"
    wanted = f"wanted {' or '.join(tiers)}"
    objections = [
        (~sized["verdict"].isin(["allowed", "conditional"]), "step 1: " + sized["verdict"]),
        (sized["listed_for"] == "lineage", lineage),
        (tier == "unknown", "parameter count unknown"),
        ((tier == "between") & ~in_tier, f"between the tiers; {wanted}"),
        (~in_tier, "tier " + tier + f"; {wanted}"),
        (sized["fits_on"].isna(), "no machine in data/hardware.csv holds it"),
    ]
    barred, texts = zip(*objections, strict=True)
    sized["shortlisted"] = ~np.logical_or.reduce(barred)
    fits = "tier " + tier + ", fits on " + sized["fits_on"].fillna("")
    sized["why"] = np.select(barred, texts, default=fits)
    # A context that is too short is said, and bars nothing.
    short = sized["shortlisted"] & (sized["context_length"] < size.context_tokens)
    note = f" tokens is less than the {size.context_tokens:,} of size.context_tokens"
    context = sized.loc[short, "context_length"].map("; context {:,.0f}".format).astype("str")
    sized.loc[short, "why"] += context + note
    return sized


def _smallest(
    memory_gb: pd.Series[float], active_b: pd.Series[float], hardware: pd.DataFrame
) -> pd.Series[str]:
    """The machine with the least usable memory that holds each model, or missing."""
    ladder = hardware.sort_values(["usable_gb", "usd_per_hour"], kind="stable")
    columns = []
    for machines in (ladder, ladder[~ladder["hardware"].str.startswith("cpu-")]):
        place = np.searchsorted(machines["usable_gb"].to_numpy(), memory_gb.to_numpy())
        names = pd.Series([*machines["hardware"], None], dtype="str").take(place)
        columns.append(names.set_axis(memory_gb.index))
    return columns[0].where(active_b <= CPU_ACTIVE_LIMIT_B, columns[1])


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


AGREE = 0.10
# Elements of these types are halves or quarters of a weight, or scales; a few are only buffers.
PACKED = re.compile(r"(U8|I8|I32|F4|F8_E\w+)")
SHARE = 0.05
# 80B in Qwen3-Next-80B-A3B; not the active A3B, the effective E4B nor the 8x7B of a mixture.
NAMED = r"(?i)(?:^|[-_ ])(\d+(?:\.\d+)?)([BM])(?=$|[-_ .])"


def in_name(repo_ids: pd.Series[str]) -> pd.Series[float]:
    """The total that a repository's name states, in billions; missing where it states none."""
    parts = repo_ids.astype("str").str.replace(r"^.*/", "", regex=True).str.extract(NAMED)
    unit = parts[1].str.upper().map({"B": 1.0, "M": 1e-3}).astype(float)
    return parts[0].astype(float) * unit


def packed(models: pd.DataFrame) -> pd.Series[bool]:
    """Whether the published weights are quantized, so that the Hub may miscount them.

    Told by `quantization`; where config.json is silent (NVFP4 keeps it in another file), by the
    types of the tensors in `params_by_dtype`. Either column may be missing.
    """
    facts = models.reindex(columns=["quantization", "params_by_dtype"])
    return facts["quantization"].notna() | facts["params_by_dtype"].map(_is_packed).astype(bool)


def _is_packed(types: object) -> bool:
    counts = {kind: float(n) for kind, n in re.findall(r"(\w+):(\d+)", str(types))}
    part = sum(n for kind, n in counts.items() if PACKED.fullmatch(kind))
    return part > SHARE * sum(counts.values())


def settle(models: pd.DataFrame) -> pd.DataFrame:
    """Settle the parameter count of every model and say on what basis.

    The stated count (vendor, card) decides. Failing that the Hub's sum of tensors does, which is
    wrong for packed four-bit weights: there it must agree with the name within 10 %, or else
    the name decides.

    Args:
        models: With `repo_id total_params_b hub_params_b`, and where they are known
            `quantization params_by_dtype` of the published weights.

    Returns:
        The models with `total_params_b` settled and `params_basis` added: what the count is
        taken from, and what the Hub counts where that is something else.
    """
    stated, hub, name = models["total_params_b"], models["hub_params_b"], in_name(models["repo_id"])
    trusted = hub.notna() & (~packed(models) | _near(hub, name))
    count = hub.map("{:,.4g}B".format).astype("str")
    basis = pd.Series("unknown", index=models.index, dtype="str").case_when(
        [
            (stated.notna() & _near(hub, stated), "stated, Hub agrees"),
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
    return (count - other).abs() <= AGREE * other
