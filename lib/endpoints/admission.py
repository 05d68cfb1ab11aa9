"""Which deployments may be asked: the verdict, the host's country and the supply chain."""

from __future__ import annotations

import pandas as pd

from lib.brief.project import Deployment, Policy, Project

__all__ = ["admit", "host_objection"]


def admit(brief: Project, shortlist: pd.DataFrame, metadata: pd.DataFrame) -> pd.DataFrame:
    """Say which deployments of the brief may be asked, and why the others are not.

    Args:
        brief: The brief.
        shortlist: Step 2's table, with `why` for every model.
        metadata: Step 3's table, with the verdict after licence drift and, where they were
            judged, `supply_verdict supply_reasons` (only `pass` is admitted) and `shortlisted
            why` with the Hub's facts.

    Returns:
        One row per deployment: `deployment repo_id admitted verdict why exception`. The baseline
        may be a closed model: `verdict` is `baseline` where steps 1 to 3 do not know it.
    """
    after = metadata.set_index("repo_id")
    why = shortlist.set_index("repo_id")["why"]
    rows = []
    for deployment in brief.deployments:
        repo_id = deployment.model
        verdict, exception, reason = "", "", ""
        if repo_id in after.index:
            verdict = str(after.at[repo_id, "verdict"])
            exception = str(after.at[repo_id, "exception"])
        barred = host_objection(deployment, brief.policy)
        barred = barred or _resized(repo_id, after) or _supply(repo_id, after)
        if verdict in ("allowed", "conditional"):
            reason = barred or "on the shortlist"
        elif verdict:
            reason = f"step 3: {verdict}"
        elif deployment.baseline:
            verdict, reason = (
                "baseline",
                barred or "what is in use today: compared with, not chosen",
            )
        else:
            reason = why.get(repo_id, "not in data/models.csv: add it, with its licence and source")
        ok = verdict in ("allowed", "conditional", "baseline") and not barred
        rows.append((deployment.name, repo_id, "yes" if ok else "no", verdict, reason, exception))
    columns = ["deployment", "repo_id", "admitted", "verdict", "why", "exception"]
    return pd.DataFrame(rows, columns=columns)


def _resized(repo_id: str, after: pd.DataFrame) -> str:
    """Why a model is off the shortlist with the Hub's facts; empty where it is not."""
    if "shortlisted" not in after.columns or repo_id not in after.index:
        return ""
    return "" if after.at[repo_id, "shortlisted"] else "step 3: " + str(after.at[repo_id, "why"])


def _supply(repo_id: str, after: pd.DataFrame) -> str:
    """Why the supply-chain gate keeps a model out; empty where it does not."""
    if "supply_verdict" not in after.columns or repo_id not in after.index:
        return ""
    verdict, reasons = after.loc[repo_id, ["supply_verdict", "supply_reasons"]]
    if verdict == "pass":
        return ""
    if verdict == "fail":
        return f"supply chain: fail: {reasons}"
    told = reasons if pd.notna(reasons) and reasons else "not verified"
    return f"supply chain: unknown: {told}; run step 3 with the Hub reachable"


def host_objection(deployment: Deployment, policy: Policy) -> str:
    """Why a deployment's host may not be sent an item; empty where it may."""
    limited = policy.host_countries is not None or policy.denied_countries
    endpoint = deployment.endpoint
    if not limited or endpoint is None or endpoint.local or endpoint.recorded:
        return ""
    if deployment.host is None:
        return "its host is not in the brief: give deployments.host.provider and country"
    country = deployment.host.country
    allowed = policy.host_countries is None or country in policy.host_countries
    if allowed and country not in policy.denied_countries:
        return ""
    return f"its host {deployment.host.provider} is in {country}, which the policy does not allow"
