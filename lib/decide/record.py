"""The decision record: what was picked or refused, by which rule, from which inputs."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from lib import artifacts
from lib.brief.project import Project
from lib.decide import decision
from lib.endpoints import admission
from lib.endpoints.serving import machine
from lib.errors import PlaybookError
from lib.tables import DATA

__all__ = ["write"]

LIBRARIES = ("huggingface_hub", "openai", "pandas", "scipy", "statsmodels", "xllamacpp")


def write(
    brief: Project,
    run: Path,
    *,
    table: pd.DataFrame,
    checks: pd.DataFrame,
    metadata: pd.DataFrame,
    shortlist: pd.DataFrame,
) -> dict[str, Any]:
    """Choose, and write `06_decision.json`.

    Args:
        brief: The brief.
        run: The run directory.
        table: From `decision.qualify`.
        checks: From `decision.check`.
        metadata: Step 3's table: revisions and what was not verified.
        shortlist: Step 2's table: every model and why it is out.

    Returns:
        The record as written.

    Raises:
        PlaybookError: A deployment has figures that steps 1 to 3 do not let through.
    """
    verdicts = admission.admit(brief, shortlist, metadata)
    verdicts = verdicts[verdicts["deployment"].isin(table["deployment"])]
    if len(barred := verdicts[verdicts["admitted"] == "no"]):
        raise PlaybookError(
            f"deployment {barred['deployment'].iloc[0]!r} has figures but may not be chosen:"
            f" {barred['why'].iloc[0]}; run steps 4 and 5 again, or take it out of the brief"
        )
    order, rule = decision.choose(table, brief.objective)
    undecided = (table["qualifies"] == "not decided").any()
    outcome = "picked" if order else "not decided" if undecided else "none qualifies"
    chosen = [_configuration(name, table, metadata) for name in order[:2]]
    pick, runner_up = [*chosen, None, None][:2]
    candidates = table.loc[table["standing"] == "candidate", "deployment"]
    tested = checks[checks["deployment"].isin(candidates)]
    missed = None if order else decision.nearest_miss(tested)
    record = {
        "project": {
            "name": brief.name,
            "task": brief.task,
            "objective": brief.objective,
            "metric": ", ".join(dict.fromkeys(table["metric"])),
        },
        "outcome": outcome,
        "summary": _summary(brief, outcome, pick, missed, table),
        "pick": pick,
        "runner_up": runner_up,
        "tie_group": _tie_group(table, pick),
        "tie_rule": rule,
        "nearest_miss": missed,
        "requirements": checks.to_dict("records"),
        "rejected": _rejected(brief, table, shortlist, metadata, order),
        "stability": decision.stability(table, brief).to_dict("records"),
        "unverified": _unverified(metadata, table),
        "basis": _basis(table, metadata),
        "machine": machine(),
        "versions": {name: version(name) for name in LIBRARIES},
        "inputs": _inputs(brief, run),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    plain: dict[str, Any] = _plain(record)
    artifacts.save_json(plain, run, "06_decision.json")
    return plain


def _configuration(name: str, table: pd.DataFrame, metadata: pd.DataFrame) -> dict[str, Any]:
    row = table[table["deployment"] == name].iloc[0]
    facts = metadata[metadata["repo_id"] == row["repo_id"]].iloc[0]
    return {
        "deployment": name,
        "model": row["repo_id"],
        "revision": facts["revision"],
        "license": facts["license"],
        "verdict": facts["verdict"],
        "conditions": facts["conditions"],
        "exception": facts["exception"],
        "hardware": row["hardware"],
    }


def _summary(
    brief: Project,
    outcome: str,
    pick: dict[str, Any] | None,
    missed: dict[str, Any] | None,
    table: pd.DataFrame,
) -> str:
    if pick is not None:
        row = table[table["deployment"] == pick["deployment"]].iloc[0]
        published = str(row["basis"]).startswith("published")
        how = "on published figures only" if published else row["basis"]
        return (
            f"{pick['deployment']} ({pick['model']}) is the {brief.objective} configuration that"
            f" meets every requirement, {how}."
        )
    if missed is None:
        return "Nothing was measured, so nothing can be chosen."
    lead = (
        "No configuration is shown to qualify yet" if outcome == "not decided" else "None qualifies"
    )
    return f"{lead}; the nearest is {missed['deployment']}: {missed['would_have_to_give']}."


def _tie_group(table: pd.DataFrame, pick: dict[str, Any] | None) -> list[str]:
    """The configurations whose quality a paired test cannot tell from the pick's."""
    if pick is None:
        return []
    group = table.loc[table["deployment"] == pick["deployment"], "tie_group"].iloc[0]
    return [str(name) for name in table.loc[table["tie_group"] == group, "deployment"]]


def _rejected(
    brief: Project,
    table: pd.DataFrame,
    shortlist: pd.DataFrame,
    metadata: pd.DataFrame,
    order: list[str],
) -> list[dict[str, str]]:
    """Every model and configuration that is out, with the step and the rule."""
    out: list[dict[str, str]] = []
    for row in shortlist[~shortlist["shortlisted"]].itertuples():
        legal = str(row.why).startswith("step 1")
        rule = f"{row.verdict}: {row.reasons}" if legal else row.why
        out.append({"what": str(row.repo_id), "step": "1" if legal else "2", "rule": str(rule)})
    for row in metadata[metadata["verdict"].isin(["review", "blocked"])].itertuples():
        out.append({"what": str(row.repo_id), "step": "3", "rule": f"{row.verdict}: {row.reasons}"})
    asked = set(brief_models := [d.model for d in brief.deployments])
    asked |= {entry["what"] for entry in out}
    for repo_id in sorted(set(metadata["repo_id"]) - asked):
        out.append({"what": repo_id, "step": "4", "rule": "no deployment of it in the brief"})
    measured = set(table["deployment"])
    for deployment, repo_id in zip(brief.deployments, brief_models, strict=True):
        if deployment.name not in measured:
            rule = f"not asked: {repo_id} did not pass steps 1 to 3"
            out.append({"what": deployment.name, "step": "4", "rule": rule})
    for row in table.itertuples():
        if row.qualifies != "yes":
            out.append({"what": str(row.deployment), "step": "6", "rule": str(row.why)})
        elif row.deployment not in order[:1]:
            rule = f"qualifies; preferred was {order[0]}"
            out.append({"what": str(row.deployment), "step": "6", "rule": rule})
    return out


def _unverified(metadata: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    told = []
    offline = metadata[metadata["metadata_source"] == "catalogue"]
    if len(offline):
        dates = offline["retrieved_at"].astype(str)
        told.append(
            f"{len(offline)} of {len(metadata)} shortlisted models were not verified against the"
            f" Hub: their facts are the catalogue's, of {dates.min()} to {dates.max()}, and no"
            " revision is pinned."
        )
    for row in metadata[metadata["problem"] != ""].itertuples():
        told.append(f"{row.repo_id}: {row.problem}")
    if table["basis"].str.startswith("published").any():
        told.append("Quality and speed are published figures; nothing was measured here.")
    for basis in sorted(set(table["price_basis"].dropna())):
        if basis.startswith("assumed"):
            told.append(f"Some prices are assumptions: {basis}.")
    told.append("The licence table is a reading aid, not legal advice.")
    return told


def _basis(table: pd.DataFrame, metadata: pd.DataFrame) -> list[str]:
    prices = [
        f"Price of {row.deployment}: {row.price}, {row.price_basis}" for row in table.itertuples()
    ]
    sources = metadata["metadata_source"].value_counts()
    return [
        f"Quality and speed: {', '.join(sorted(set(table['basis'])))} ({machine()})",
        "Model facts: " + ", ".join(f"{source} ({n})" for source, n in sources.items()),
        *prices,
    ]


def _inputs(brief: Project, run: Path) -> dict[str, str]:
    """SHA-256 of everything the decision was made from: brief, items, tables, artefacts."""
    files = [*DATA.glob("*.csv"), *brief.folder.glob("*.yaml"), brief.items_path]
    hashes = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()
    }
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    made = {file: facts["sha256"] for file, facts in manifest.items() if not file.startswith("06")}
    return dict(sorted((hashes | made).items()))


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: both are null there."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return None if pd.isna(value) else value.item() if hasattr(value, "item") else value
