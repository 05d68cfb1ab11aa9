"""Where a model comes from: a derivative is never freer than what it was made of."""

from __future__ import annotations

import pandas as pd

__all__ = ["ancestors", "bases"]


def bases(models: pd.DataFrame) -> dict[str, list[str]]:
    """The direct base models of each repository; a merge has several."""
    made = models.dropna(subset=["base_model"])
    names = made["base_model"].astype(str).str.split(";")
    return {
        repo_id: [base.strip() for base in cell if base.strip() and base.strip() != repo_id]
        for repo_id, cell in zip(made["repo_id"], names, strict=True)
    }


def ancestors(repo_id: str, direct: dict[str, list[str]]) -> list[str]:
    """Everything a model builds on, nearest first; a cycle ends where it closes."""
    lineage: list[str] = []
    queue = list(direct.get(repo_id, []))
    while queue:
        base = queue.pop(0)
        if base != repo_id and base not in lineage:
            lineage.append(base)
            queue += direct.get(base, [])
    return lineage
