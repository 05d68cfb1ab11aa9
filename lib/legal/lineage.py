"""Where a model comes from: a derivative is never freer than what it was made of."""

from __future__ import annotations

import pandas as pd

__all__ = ["ancestors", "bases", "with_hub_bases"]


def bases(models: pd.DataFrame) -> dict[str, list[str]]:
    """The direct base models of each repository; a merge has several."""
    known = models.dropna(subset=["base_model"])
    listed = known["base_model"].astype(str).str.split(";")
    return {
        repo_id: [base.strip() for base in given if base.strip() and base.strip() != repo_id]
        for repo_id, given in zip(known["repo_id"], listed, strict=True)
    }


def ancestors(repo_id: str, direct: dict[str, list[str]]) -> list[str]:
    """Everything a model builds on, nearest first; a cycle ends where it closes."""
    found: list[str] = []
    queue = list(direct.get(repo_id, []))
    while queue:
        base = queue.pop(0)
        if base != repo_id and base not in found:
            found.append(base)
            queue += direct.get(base, [])
    return found


def with_hub_bases(judged: pd.DataFrame, pulled: pd.DataFrame) -> pd.DataFrame:
    """The catalogue with the base models that the Hub names added to its own."""
    told = pulled.dropna(subset=["base_models"]).drop_duplicates("repo_id")
    on_hub = judged["repo_id"].map(told.set_index("repo_id")["base_models"])
    both = [
        ";".join(dict.fromkeys(part for text in pair if pd.notna(text) for part in text.split(";")))
        for pair in zip(judged["base_model"], on_hub, strict=True)
    ]
    return judged.assign(base_model=pd.Series(both, index=judged.index).replace("", None))
