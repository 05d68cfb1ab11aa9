"""How many parameters a model has, where the sources disagree."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

__all__ = ["in_name", "packed", "reconcile"]

AGREE = 0.10
# Elements of these types are halves or quarters of a weight, or scales; a few are only buffers.
PACKED = re.compile(r"(U8|I8|I32|F4|F8_E\w+)")
SHARE = 0.05
# 80B in Qwen3-Next-80B-A3B; not the active A3B, the effective E4B nor the 8x7B of a mixture.
NAMED = r"(?i)(?:^|[-_ ])(\d+(?:\.\d+)?)([BM])(?=$|[-_ .])"


def in_name(repo_ids: pd.Series[str]) -> pd.Series[float]:
    """The total that a repository's name states, in billions; missing where it states none."""
    found = repo_ids.astype("str").str.replace(r"^.*/", "", regex=True).str.extract(NAMED)
    unit = found[1].str.upper().map({"B": 1.0, "M": 1e-3}).astype(float)
    return found[0].astype(float) * unit


def packed(models: pd.DataFrame) -> pd.Series[bool]:
    """Whether the published weights are quantized, so that the Hub may miscount them.

    Told by `quantization`; where config.json is silent (NVFP4 keeps it in another file), by the
    types of the tensors in `params_by_dtype`.
    """
    types = _optional(models, "params_by_dtype")
    seen = {text: _is_packed(str(text)) for text in types.dropna().unique()}
    return _optional(models, "quantization").notna() | types.map(seen).eq(True)


def _is_packed(types: str) -> bool:
    counts = {kind: float(n) for kind, n in re.findall(r"(\w+):(\d+)", types)}
    part = sum(n for kind, n in counts.items() if PACKED.fullmatch(kind))
    return part > SHARE * sum(counts.values())


def reconcile(models: pd.DataFrame) -> pd.DataFrame:
    """Settle the parameter count of every model and say on what basis.

    The stated count (vendor, card) is compared with the Hub's sum of tensors, which is wrong for
    packed four-bit weights, with the arithmetic of config.json where it is known, and failing
    all with the name. Two that agree within 10 % win against a third; otherwise the stated one
    decides, and the difference stays visible in `params_basis`.

    Args:
        models: With `repo_id total_params_b hub_params_b`, and where known `config_params_b`,
            `quantization` and `params_by_dtype` of the published weights.

    Returns:
        The models with `total_params_b` settled and `params_basis` added.
    """
    stated, hub = models["total_params_b"], models["hub_params_b"]
    config = _optional(models, "config_params_b").astype(float)
    in_parts = packed(models)
    name = in_name(models["repo_id"])
    both = stated.notna() & hub.notna()
    agree = both & _near(hub, stated)
    for_stated, for_hub = _near(config, stated), _near(config, hub)
    counted = _text(hub)
    arithmetic = _text(config)
    cases: list[tuple[pd.Series[bool], pd.Series[float], pd.Series[str] | str]] = [
        (agree & for_stated, stated, "stated, Hub and config.json agree"),
        (agree, stated, "stated, Hub agrees"),
        (both & for_stated, stated, "stated, config.json agrees; the Hub counts " + counted),
        (both & for_hub & ~in_parts, hub, "Hub, config.json agrees; stated " + _text(stated)),
        (both, stated, "stated; the Hub counts " + counted),
        (stated.notna(), stated, "stated"),
        (hub.notna() & in_parts & config.notna() & ~for_hub, config,
         "config.json; the Hub counts packed weights: " + counted),
        (hub.notna() & for_hub, hub, "Hub, config.json agrees"),
        (hub.notna() & _near(config, name), config,
         "config.json, name agrees; the Hub counts " + counted),
        (hub.notna() & in_parts & config.isna() & name.notna() & ~_near(hub, name), name,
         "name; the Hub counts packed weights: " + counted),
        (hub.notna() & config.notna(), hub, "Hub; config.json counts " + arithmetic),
        (hub.notna(), hub, "Hub"),
        (config.notna(), config, "config.json"),
        (name.notna(), name, "name"),
    ]  # fmt: skip
    conditions = [condition.to_numpy(dtype=bool) for condition, _, _ in cases]
    totals = [total.to_numpy(dtype=float) for _, total, _ in cases]
    basis = [np.broadcast_to(np.asarray(text, dtype=object), len(models)) for _, _, text in cases]
    return models.assign(
        total_params_b=np.select(conditions, totals, default=float("nan")),
        params_basis=np.select(conditions, basis, default="unknown").astype(str),
    )


def _near(count: pd.Series[float], other: pd.Series[float]) -> pd.Series[bool]:
    return (count - other).abs() <= AGREE * other


def _text(counts: pd.Series[float]) -> pd.Series[str]:
    return counts.map("{:,.4g}B".format).astype("str")


def _optional(models: pd.DataFrame, column: str) -> pd.Series:
    if column in models.columns:
        return models[column]
    return pd.Series(np.nan, index=models.index, dtype=object)
