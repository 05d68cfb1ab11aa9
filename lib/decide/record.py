"""The decision record: what was picked or refused, by which rule, from which inputs."""

import hashlib
import json
import math
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from lib import artifacts, endpoints
from lib.brief import Project
from lib.decide.decision import choose, nearest_miss, stability
from lib.endpoints import machine
from lib.errors import PlaybookError
from lib.tables import DATA

LIBRARIES = ("huggingface_hub", "openai", "pandas", "scipy", "statsmodels", "xllamacpp")
FACTS = ["revision", "license", "verdict", "conditions", "exception"]
Record = dict[str, Any]


def write_decision(
    brief: Project,
    run: Path,
    *,
    table: pd.DataFrame,
    checks: pd.DataFrame,
    metadata: pd.DataFrame,
    shortlist: pd.DataFrame,
) -> Record:
    """Choose from `qualify`'s table, and write `06_decision.json`; returns it as written.

    Raises:
        PlaybookError: A deployment has figures that steps 1 to 3 (`shortlist`, `metadata`) do
            not let through.
    """
    verdicts = endpoints.admit(brief, shortlist, metadata)
    has_figures = verdicts["deployment"].isin(table["deployment"])
    for row in verdicts[has_figures & (verdicts["admitted"] == "no")].itertuples():
        raise PlaybookError(
            f"deployment {row.deployment!r} has figures but may not be chosen: {row.why};"
            " run steps 4 and 5 again, or take it out of the brief"
        )
    # The pick and the next best, or the nearest miss of what could have been picked.
    order, rule = choose(table, brief.objective)
    facts = metadata.set_index("repo_id")
    pick, runner_up = [*(_configuration(name, table, facts) for name in order[:2]), None, None][:2]
    candidates = table.loc[table["standing"] == "candidate", "deployment"]
    miss = None if order else nearest_miss(checks[checks["deployment"].isin(candidates)])
    undecided = (table["qualifies"] == "not decided").any()
    outcome = "picked" if order else "not decided" if undecided else "none qualifies"
    group = table.loc[table["deployment"].isin(order[:1]), "tie_group"]
    record = {
        "project": {key: getattr(brief, key) for key in ("name", "task", "objective")}
        | {"metric": ", ".join(dict.fromkeys(table["metric"]))},
        "outcome": outcome,
        "summary": _summary(pick, miss, outcome, table, brief.objective),
        "pick": pick,
        "runner_up": runner_up,
        "tie_group": list(table.loc[table["tie_group"].isin(group), "deployment"]),
        "tie_rule": rule,
        "nearest_miss": miss,
        "requirements": checks.to_dict("records"),
        "rejected": _rejected(brief, table, shortlist, metadata, order),
        "stability": stability(table, brief).to_dict("records"),
        "unverified": _unverified(metadata, table),
        "basis": _basis(metadata, table),
        "machine": machine(),
        "versions": {name: version(name) for name in LIBRARIES},
        "inputs": _inputs(brief, run),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    plain: Record = _plain(record)
    artifacts.save_json(plain, run, "06_decision.json")
    return plain


def _configuration(name: str, table: pd.DataFrame, facts: pd.DataFrame) -> Record:
    row = table.set_index("deployment").loc[name]
    model = {"deployment": name, "model": row["repo_id"], "hardware": row["hardware"]}
    return model | dict(zip(FACTS, facts.loc[row["repo_id"], FACTS], strict=True))


def _summary(
    pick: Record | None, miss: Record | None, outcome: str, table: pd.DataFrame, objective: str
) -> str:
    if pick is not None:
        basis = str(table.set_index("deployment").at[pick["deployment"], "basis"])
        how = "on published figures only" if basis.startswith("published") else basis
        return (
            f"{pick['deployment']} ({pick['model']}) is the {objective} configuration that"
            f" meets every requirement, {how}."
        )
    if miss is None:
        return "Nothing was measured, so nothing can be chosen."
    undecided = "No configuration is shown to qualify yet"
    lead = undecided if outcome == "not decided" else "None qualifies"
    return f"{lead}; the nearest is {miss['deployment']}: {miss['would_have_to_give']}."


def _rejected(
    brief: Project,
    table: pd.DataFrame,
    shortlist: pd.DataFrame,
    metadata: pd.DataFrame,
    order: list[str],
) -> list[dict[str, str]]:
    """Every model and configuration that is out, with the step and the rule."""
    out: list[tuple[str, str, str]] = []
    for row in shortlist[~shortlist["shortlisted"]].itertuples():
        legal = str(row.why).startswith("step 1")
        rule = f"{row.verdict}: {row.reasons}" if legal else str(row.why)
        out.append((str(row.repo_id), "1" if legal else "2", rule))
    for row in metadata[metadata["verdict"].isin(["review", "blocked"])].itertuples():
        out.append((str(row.repo_id), "3", f"{row.verdict}: {row.reasons}"))
    asked_models = {deployment.model for deployment in brief.deployments} | {
        what for what, _, _ in out
    }
    for repo_id in sorted(set(metadata["repo_id"]) - asked_models):
        out.append((repo_id, "4", "no deployment of it in the brief"))
    for deployment in brief.deployments:
        if deployment.name not in set(table["deployment"]):
            rule = f"not asked: {deployment.model} did not pass steps 1 to 3"
            out.append((deployment.name, "4", rule))
    for row in table[~table["deployment"].isin(order[:1])].itertuples():
        lost = f"qualifies; preferred was {order[0]}" if row.qualifies == "yes" else str(row.why)
        out.append((str(row.deployment), "6", lost))
    return [{"what": what, "step": step, "rule": rule} for what, step, rule in out]


def _unverified(metadata: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """What a reader must know before relying on it."""
    sentences = []
    offline = metadata[metadata["metadata_source"] == "catalogue"]
    dates = offline["retrieved_at"].astype(str)
    if len(dates):
        sentences.append(
            f"{len(dates)} of {len(metadata)} shortlisted models were not verified against the"
            f" Hub: their facts are the catalogue's, of {dates.min()} to {dates.max()}, and no"
            " revision is pinned."
        )
    problems = metadata[metadata["problem"] != ""]
    sentences.extend(problems["repo_id"] + ": " + problems["problem"])
    if table["basis"].str.startswith("published").any():
        sentences.append("Quality and speed are published figures; nothing was measured here.")
    bases = sorted(set(table["price_basis"].dropna()))
    sentences += [f"Some prices are assumptions: {b}." for b in bases if b.startswith("assumed")]
    return [*sentences, "The licence table is a reading aid, not legal advice."]


def _basis(metadata: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    sources = metadata["metadata_source"].value_counts()
    return [
        f"Quality and speed: {', '.join(sorted(set(table['basis'])))} ({machine()})",
        "Model facts: " + ", ".join(f"{source} ({n})" for source, n in sources.items()),
        *(f"Price of {r.deployment}: {r.price}, {r.price_basis}" for r in table.itertuples()),
    ]


def _inputs(brief: Project, run: Path) -> dict[str, str]:
    """SHA-256 of everything the decision was made from: brief, items, tables, artefacts."""
    files = [*DATA.glob("*.csv"), *brief.folder.glob("*.yaml"), brief.items_path]
    hashes = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    artefacts = {
        file: facts["sha256"] for file, facts in manifest.items() if not file.startswith("06")
    }
    return dict(sorted((hashes | artefacts).items()))


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: both are null there."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    value = value.item() if hasattr(value, "item") else value
    return None if pd.isna(value) or value in (math.inf, -math.inf) else value
