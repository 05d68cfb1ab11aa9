"""Where the Hub says something else than the catalogue or the last run, and what it changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import pandas as pd
import yaml

from lib.brief.sections import Acceptance
from lib.errors import PlaybookError
from lib.hub.facts import Row, by_repo, number, recall, remember, verified
from lib.hub.model_info import as_text
from lib.hub.relicensing import hub_names, relicense, relicensed

__all__ = [
    "found",
    "listed",
    "mark",
    "recall",
    "relicense",
    "relicensed",
    "remember",
    "stop",
    "unused",
    "weigh",
]

COLUMNS = ["repo_id", "field", "against", "old", "new"]
CATALOGUE = """hub_license license hub_params_b total_params_b context_length base_model""".split()
STEPS = ["verdict", "tier", "shortlisted"]
USABLE = ("allowed", "conditional")
AGREE = 0.10
MOST = 10

Change = tuple[str, str, str]


def found(
    models: pd.DataFrame,
    metadata: pd.DataFrame,
    previous: pd.DataFrame | None = None,
    *,
    licenses: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """List what the Hub says differently from the catalogue and from an earlier pull.

    Only rows verified against the Hub are compared. What the catalogue or the Hub leaves blank
    is no drift, but a licence or base model that is gone is. A size drifts when it is more than
    10 % off every count the catalogue has: the Hub miscounts packed weights, so it may hold two.

    Args:
        models: Rows of the catalogue (`tables.models`) or of a later step.
        metadata: From `hub.pull`.
        previous: An earlier pull of the same project, from `recall`.
        licenses: From `tables.licenses`: the Hub's names for a licence, used where the
            catalogue has no `hub_license`.

    Returns:
        One row per change, in the order of `metadata`: `repo_id field against old new`; `field`
        is `licence|size|context|gated|base model|name`, `against` `catalogue|previous run`.
    """
    names = {} if licenses is None else hub_names(licenses)
    catalogue = by_repo(models, CATALOGUE)
    earlier = {} if previous is None else verified(previous)
    rows = []
    for repo_id, hub in verified(metadata).items():
        told = [("catalogue", change) for change in _versus(catalogue.get(repo_id), hub, names)]
        told += [("previous run", change) for change in _since(earlier.get(repo_id), hub)]
        for against, (field, old, new) in told:
            rows.append((repo_id, field, against, as_text(old) or "none", as_text(new) or "none"))
    return pd.DataFrame(rows, columns=COLUMNS, dtype="str")


def _versus(row: Row | None, hub: Row, names: dict[str, set[str]]) -> Iterator[Change]:
    """Where the Hub contradicts the catalogue."""
    if row is None:
        return
    license_ = str(row["hub_license"] or row["license"] or "")
    tags = {str(hub["license_on_hub"] or "").lower()}
    if hub["license_name"] and hub["license_name"] == hub["license_on_hub"]:
        tags.add("other")  # a licence has a name where its tag is `other`
    known = {license_.lower()}
    if not row["hub_license"]:
        known |= names.get(license_.lower(), set())
    if license_ and not known & tags:
        yield "licence", license_, hub["license_on_hub"] or "none"
    sizes = [size for key in CATALOGUE[2:4] if (size := number(row[key]))]
    now = _params(hub)
    if now and sizes and all(_apart(now, size) for size in sizes):
        yield "size", _billions(sizes[0]), _billions(now)
    yield from _context(row, hub)
    if hub["gated"] not in (None, "no"):
        yield "gated", "not recorded", hub["gated"]
    base, on_hub_bases = _set(row["base_model"]), _set(hub["base_models"])
    if base and on_hub_bases and not base & on_hub_bases:
        yield "base model", row["base_model"], hub["base_models"]
    if hub["renamed_to"]:
        yield "name", hub["repo_id"], hub["renamed_to"]


def _since(old: Row | None, hub: Row) -> Iterator[Change]:
    """What changed on the Hub since an earlier pull."""
    if old is None:
        return
    licenses = [str(row["license_on_hub"] or "none") for row in (old, hub)]
    if licenses[0].lower() != licenses[1].lower():
        yield "licence", licenses[0], licenses[1]
    before, now = _params(old), _params(hub)
    if before and now and _apart(now, before):
        yield "size", _billions(before), _billions(now)
    yield from _context(old, hub)
    if old["gated"] and hub["gated"] and old["gated"] != hub["gated"]:
        yield "gated", old["gated"], hub["gated"]
    if _set(old["base_models"]) != _set(hub["base_models"]):
        yield "base model", old["base_models"] or "none", hub["base_models"] or "none"


def _context(old: Row, hub: Row) -> Iterator[Change]:
    before, now = number(old["context_length"]), number(hub["context_length"])
    if before and now and before != now:
        yield "context", f"{before:,.0f} tokens", f"{now:,.0f} tokens"


def mark(drifts: pd.DataFrame, accepted: Iterable[Acceptance]) -> pd.DataFrame:
    """Add `accepted`: whether the brief's `hub.accept_drift` names the model and the field."""
    keys = {(entry.model.lower(), entry.field) for entry in accepted}
    rows = zip(drifts["repo_id"].str.lower(), drifts["field"], strict=True)
    named = [row in keys for row in rows]
    return drifts.assign(accepted=pd.Series(named, index=drifts.index, dtype=bool))


def unused(drifts: pd.DataFrame, accepted: Iterable[Acceptance]) -> list[str]:
    """Acceptances that no drift of this run answers to: harmless, and perhaps out of date."""
    seen = set(zip(drifts["repo_id"].str.lower(), drifts["field"], strict=True))
    return [
        f"hub.accept_drift: {entry.model} shows no drift of its {entry.field} in this run"
        for entry in accepted
        if (entry.model.lower(), entry.field) not in seen
    ]


def weigh(
    drifts: pd.DataFrame,
    before: pd.DataFrame,
    after: pd.DataFrame,
    *,
    accepted: Iterable[Acceptance] = (),
) -> pd.DataFrame:
    """Say what each drift means: whether it changes the verdict, the tier or the shortlist.

    Args:
        drifts: From `found`.
        before: Step 2's table, judged with the catalogue's facts: `verdict tier shortlisted`.
        after: The same, judged with the Hub's facts; a column that one lacks is not compared.
        accepted: The brief's `hub.accept_drift`.

    Returns:
        The drifts with `accepted` (bool), `consequence` (in words) and `changes_verdict` (bool)
        added. A licence or base model can change the verdict, a size the tier, a size or a
        context the shortlist.
    """
    marked = mark(drifts, accepted)
    columns = [name for name in STEPS if name in before.columns and name in after.columns]
    was, now = by_repo(before, columns), by_repo(after, columns)
    told = [
        _consequence(field, was.get(repo_id, {}), now.get(repo_id, {}), taken)
        for repo_id, field, taken in marked[["repo_id", "field", "accepted"]].to_numpy()
    ]
    texts = pd.Series([text for text, _ in told], index=marked.index, dtype="str")
    changes = pd.Series([change for _, change in told], index=marked.index, dtype=bool)
    return marked.assign(consequence=texts, changes_verdict=changes)


def _consequence(field: str, was: Row, now: Row, accepted: bool) -> tuple[str, bool]:
    """What one drift means in words, and whether it changes what steps 1 and 2 said."""
    verdicts = [row.get("verdict") or "not judged" for row in (was, now)]
    tiers = [row.get("tier") or "unknown" for row in (was, now)]
    listed = [bool(row.get("shortlisted")) for row in (was, now)]
    # A verdict that admits no more takes a model off the shortlist, whatever its size.
    barred = (verdicts[0] in USABLE) != (verdicts[1] in USABLE)
    moved = listed[0] != listed[1] and not barred
    place = ["not shortlisted", "now shortlisted", "no longer shortlisted", "still shortlisted"]
    standing = place[2 * listed[0] + listed[1]]
    if field in ("licence", "base model"):
        if verdicts[0] == verdicts[1]:
            known = f": {verdicts[0]} before and after" if was.get("verdict") else ""
            return f"shown only{known}", False
        why = "it answers for what its base is bound to"
        if field == "licence":
            why = "the permission was given for another text"
            why = "judged on what the Hub says now" if accepted else why
        return f"{verdicts[0]} → {verdicts[1]}: {why}", True
    if field == "size" and tiers[0] != tiers[1]:
        return f"tier {tiers[0]} → {tiers[1]}: {standing}", True
    if field in ("size", "context") and moved:
        return standing, True
    notes = {
        "gated": ": somebody must accept the terms on the model's page before it loads",
        "name": ": write the new name in data/models.csv",
    }
    return "shown only" + notes.get(field, ""), False


def listed(drifts: pd.DataFrame) -> dict[str, str]:
    """The drifts of each model in one text."""
    texts = drifts["field"] + ": " + drifts["against"] + " " + drifts["old"] + ", Hub "
    joined = (texts + drifts["new"]).groupby(drifts["repo_id"]).agg("; ".join)
    return {str(repo_id): text for repo_id, text in joined.items()}


def stop(weighed: pd.DataFrame, *, stop_on: str, deployed: Iterable[str]) -> None:
    """Stop the run where a drift changes a verdict and nobody has accepted it.

    Args:
        weighed: From `weigh`.
        stop_on: `shortlisted`: any of the models; `deployed`: only those in `deployed`.
        deployed: The models of the brief's deployments.

    Raises:
        PlaybookError: Lists the drifts, and what to add to the brief to accept them.
    """
    grave = weighed[weighed["changes_verdict"] & ~weighed["accepted"]]
    if stop_on == "deployed":
        grave = grave[grave["repo_id"].str.lower().isin([model.lower() for model in deployed])]
    rows = grave.drop_duplicates(["repo_id", "field"]).to_dict("records")
    if not rows:
        return
    listed = "; ".join(
        f"{as_text(row['repo_id'])}: {row['field']} {row['old']} → {row['new']}"
        f" ({row['consequence']})"
        for row in rows[:MOST]
    )
    more = f"; and {len(rows) - MOST} more" if len(rows) > MOST else ""
    entries = [
        {"model": row["repo_id"], "field": row["field"], "reason": "…"} for row in rows[:MOST]
    ]
    key = yaml.safe_dump({"accept_drift": entries}, default_flow_style=True, allow_unicode=True,
                         sort_keys=False, width=math.inf).strip()  # fmt: skip
    raise PlaybookError(
        f"the Hub no longer says what steps 1 and 2 judged: {listed}{more}. Correct"
        f" data/models.csv and run from step 1, or accept it in the brief: hub: {key}"
    )


def _params(hub: Row) -> float | None:
    return number(hub["params_b"]) or number(hub["gguf_params_b"])


def _apart(new: float, old: float) -> bool:
    return abs(new - old) - AGREE * old > 1e-9


def _billions(size: float) -> str:
    return f"{size:,.4g}B"


def _set(names: object) -> set[str]:
    return {part.strip().lower() for part in str(names or "").split(";")} - {""}
