"""How many parameters a model has, where the sources disagree."""

from __future__ import annotations

import re

import pandas as pd

__all__ = ["in_name", "packed", "settle"]

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
