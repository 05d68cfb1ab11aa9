"""Which deployments may be asked: the verdict, the host's country and the supply chain."""

from typing import Any

import pandas as pd

from lib.brief import Deployment, Project
from lib.errors import PlaybookError
from lib.legal import host_objection
from lib.tables import rows

COLUMNS = ["deployment", "repo_id", "admitted", "verdict", "why", "exception"]
CLEARED = {
    "allowed": "on the shortlist",
    "conditional": "on the shortlist",
    "baseline": "what is in use today: compared with, not chosen",
}
UNKNOWN = "not in data/models.csv: add it, with its licence and source"


def admit(brief: Project, shortlist: pd.DataFrame, metadata: pd.DataFrame) -> pd.DataFrame:
    """Which deployments may be asked, and why the others not: a row for each, with `COLUMNS`.

    Step 3's `metadata` has the verdict after drift and, where judged, `shortlisted why` and
    `supply_verdict supply_reasons`. Steps 1 to 3 may not know the baseline, a closed model.
    """
    facts_by_model = {row["repo_id"]: row for row in rows(metadata)}
    why_by_model = dict(zip(shortlist["repo_id"], shortlist["why"], strict=True))
    table = []
    for deployment in brief.deployments:
        facts = facts_by_model.get(deployment.model, {})
        verdict = facts.get("verdict") or ("baseline" if deployment.baseline else "")
        if verdict in CLEARED:
            objection = host_objection(deployment, brief.policy) or _objection(facts)
        else:
            reason = why_by_model.get(deployment.model, UNKNOWN)
            objection = f"step 3: {verdict}" if verdict else reason
        row = [deployment.name, deployment.model, "no" if objection else "yes", verdict]
        table.append([*row, objection or CLEARED[verdict], facts.get("exception") or ""])
    return pd.DataFrame(table, columns=COLUMNS)


def admitted(brief: Project, verdicts: pd.DataFrame) -> list[Deployment]:
    """The deployments that `admit` lets through; PlaybookError where it lets none."""
    names = set(verdicts.loc[verdicts["admitted"] == "yes", "deployment"])
    if not names:
        first = verdicts.iloc[0]
        raise PlaybookError(
            f"no deployment of {brief.name!r} may be asked; {first['deployment']}: {first['why']}"
        )
    return [deployment for deployment in brief.deployments if deployment.name in names]


def _objection(facts: dict[str, Any]) -> str:
    """Why step 3 keeps a model out with the Hub's facts; empty where it does not."""
    if not facts.get("shortlisted", True):
        return f"step 3: {facts['why']}"
    if (supply := facts.get("supply_verdict", "pass")) == "pass":
        return ""
    state = "fail" if supply == "fail" else "unknown"
    hint = "" if supply == "fail" else "; run step 3 with the Hub reachable"
    return f"supply chain: {state}: {facts.get('supply_reasons') or 'not verified'}{hint}"
