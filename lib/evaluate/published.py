"""Published figures: a brief quotes what somebody else measured, and nothing is asked."""

from pathlib import Path
from typing import Any

import pandas as pd

from lib.brief import Deployment, Project
from lib.evaluate.answers import COLUMNS
from lib.evaluate.scoring import FIGURES_OF_CALLS

NEEDS = "published"
ASKS_ITEMS = False


def gather(brief: Project, deployments: list[Deployment], run: Path) -> pd.DataFrame:
    """No answers."""
    return pd.DataFrame(columns=COLUMNS)


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """The quoted accuracy of every deployment: no interval, no count."""
    return [
        {
            **dict.fromkeys(FIGURES_OF_CALLS, 0),
            "deployment": d.name,
            "repo_id": d.model,
            "comparable": "yes",
            "basis": f"published ({d.published.source}, {d.published.checked_on})",
            "metric": "accuracy",
            "value": d.published.quality,
            "primary": True,
        }
        for d in brief.deployments
        if d.published is not None
    ]
