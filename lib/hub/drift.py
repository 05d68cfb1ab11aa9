"""What the Hub says now against the catalogue and the last run, and what that changes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pandas as pd
import yaml

from lib import tables
from lib.brief import Project
from lib.errors import PlaybookError
from lib.hub.facts import Facts, facts_from_hub
from lib.hub.search import describer
from lib.legal import JUDGED, VERDICTS, ancestors, base_names, bases, judge, keys_on_hub, same_names
from lib.sizing import COUNTS_AGREE, packed_weights, shortlist, wanted_tiers
from lib.tables import Row, rows
from lib.untrusted import as_text

# What step 3 takes from the Hub where it verified it: the rest of step 2's table stands.
SHAPE = ["layers", "kv_heads", "head_dim", "context_length"]
FROM_HUB = ["kv_layout", "quantization", "params_by_dtype"]
# `field`: licence, size, context, gated, base model or name; `against`: catalogue or previous run.
DRIFT = dict.fromkeys(["repo_id", "field", "against", "old", "new"], "str") | {
    "accepted": "bool", "consequence": "str", "changes_verdict": "bool"
}  # fmt: skip
USABLE = ("allowed", "conditional")
MOST = 10  # drifts that stop a run, in its message
SHOWN_ONLY = {
    "licence text": "shown only: not the text that data/licenses.csv sums up, have it read again",
    "gated": "shown only: somebody must accept the terms on the model's page before it loads",
    "name": "shown only: write the new name in data/models.csv",
}

Change = tuple[str, str, str]


def reconcile(
    judged: pd.DataFrame, sized: pd.DataFrame, pulled: pd.DataFrame, previous: Facts, brief: Project
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Find where the Hub says something else, and go through steps 1 and 2 with what it says.

    `previous` is from `recall`. Returned are all models, sized and judged on what the Hub says; a
    row per drift, with the columns `DRIFT`; what `hub.accept_drift` accepts for nothing.
    """
    drifts, models = list[Row](), sized
    if facts := facts_from_hub(pulled):
        drifts = compare(sized, facts, previous, brief)
        models = _hub_sizes(_hub_verdicts(judged, pulled, drifts, brief), pulled, drifts, brief)
    was, now = ({row["repo_id"]: row for row in rows(table)} for table in (sized, models))
    for drift in drifts:
        text, changes = consequence(drift, was[drift["repo_id"]], now[drift["repo_id"]])
        drift.update(consequence=text, changes_verdict=changes)
    drift_keys = {(drift["repo_id"].lower(), drift["field"]) for drift in drifts}
    unused = [
        f"hub.accept_drift: {entry.model} shows no drift of its {entry.field} in this run"
        for entry in brief.hub.accept_drift
        if (entry.model.lower(), entry.field) not in drift_keys
    ]
    return models, pd.DataFrame(drifts, columns=list(DRIFT)).astype(DRIFT), unused


def compare(models: pd.DataFrame, facts: Facts, previous: Facts, brief: Project) -> list[Row]:
    """What the Hub says differently from the catalogue and from an earlier pull.

    What either leaves blank is no drift, but a licence or base model that is gone is.
    """
    accepted = {(entry.model.lower(), entry.field) for entry in brief.hub.accept_drift}
    licenses = tables.licenses()
    catalogue, keys = {row["repo_id"]: row for row in rows(models)}, keys_on_hub(rows(licenses))
    read = licenses.set_index("license")["text_sha256"].dropna()
    drifts, direct, ids = [], bases(models), same_names(models)
    for repo_id, hub in facts.items():
        changes = [("catalogue", *change) for change in _versus(catalogue[repo_id], hub, keys)]
        on_hub = {ids.get(n.lower(), n).lower() for n in base_names(hub["base_models"])}
        old = catalogue[repo_id]["base_model"]
        if on_hub - {name.lower() for name in direct.get(repo_id, [])}:
            changes.append(("catalogue", "base model", old, hub["base_models"]))
        text = str(read.get(catalogue[repo_id]["license"], hub["license_sha256"]))
        if hub["license_sha256"] and text != hub["license_sha256"]:
            changes.append(("catalogue", "licence text", text[:12], hub["license_sha256"][:12]))
        since = _since(previous.get(repo_id, hub), hub)
        for against, field, *texts in [*changes, *(("previous run", *change) for change in since)]:
            old, new = (as_text(text) or "none" for text in texts)
            drift = {"repo_id": repo_id, "field": field, "against": against, "old": old, "new": new}
            drifts.append(drift | {"accepted": (repo_id.lower(), field) in accepted})
    return drifts


def _versus(row: Row, hub: Row, keys: dict[str, list[str]]) -> Iterator[Change]:
    """Where the Hub contradicts the catalogue."""
    text, on_hub = str(row["hub_license"] or row["license"] or ""), hub["license"].lower()
    spellings = [on_hub]
    if on_hub.startswith("other: "):  # the catalogue may have the tag alone, or the name alone
        spellings += ["other", on_hub.removeprefix("other: ")]
    if not row["hub_license"]:
        spellings += keys.get(on_hub, [])
    if text and text.lower() not in spellings:
        yield "licence", text, hub["license_on_hub"]
    yield from _measures([row["hub_params_b"], row["total_params_b"]], row, hub)
    if hub["gated"] not in (None, "no"):
        yield "gated", "not recorded", hub["gated"]
    if hub["renamed_to"]:
        yield "name", hub["repo_id"], hub["renamed_to"]


def _since(old: Row, hub: Row) -> Iterator[Change]:
    """What changed on the Hub since an earlier pull."""
    if (old["license_on_hub"] or "").lower() != (hub["license_on_hub"] or "").lower():
        yield "licence", old["license_on_hub"], hub["license_on_hub"]
    yield from _measures([old["params_b"] or old["gguf_params_b"]], old, hub)
    if old["gated"] and hub["gated"] and old["gated"] != hub["gated"]:
        yield "gated", old["gated"], hub["gated"]
    before, now = ({*base_names((row["base_models"] or "").lower())} for row in (old, hub))
    if before != now:
        yield "base model", old["base_models"], hub["base_models"]


def _measures(counts: list[float | None], old: Row, hub: Row) -> Iterator[Change]:
    """A size that is none of the counts, and another context."""
    sizes, size = [count for count in counts if count], hub["params_b"] or hub["gguf_params_b"]
    if size and sizes and all(abs(size - count) - COUNTS_AGREE * count > 1e-9 for count in sizes):
        yield "size", f"{sizes[0]:,.4g}B", f"{size:,.4g}B"
    before, now = old["context_length"], hub["context_length"]
    if before and now and before != now:
        yield "context", f"{before:,.0f} tokens", f"{now:,.0f} tokens"


def _ancestry(judged: pd.DataFrame, pulled: pd.DataFrame) -> pd.DataFrame:
    """Rows of what the models were made from and step 1 did not know, as the Hub describes it."""
    describe = describer(tables.models(), tables.licenses(), "")
    first, by_name = {name for name, base in bases(judged).items() if not base}, dict[str, Row]()
    for row in rows(pulled, ["repo_id", "ancestry"]):
        for base in json.loads(row["ancestry"] or "[]"):
            owners = {name.split("/")[0].lower() for name in (row["repo_id"], base["repo_id"])}
            if row["repo_id"] in first and len(owners) == 1:
                base["base_models"] = base["base_models"] or "none"
            by_name.setdefault(base["repo_id"].lower(), describe(base | {"task": None}))
    table = pd.DataFrame(list(by_name.values()), columns=judged.columns).astype(judged.dtypes)
    return table[~table["repo_id"].str.lower().isin([*same_names(judged)])]


def _hub_verdicts(
    judged: pd.DataFrame, pulled: pd.DataFrame, drifts: list[Row], brief: Project
) -> pd.DataFrame:
    """Step 1's table, stricter where the Hub's base models and licences make it so, never milder.

    A licence drift that nobody accepted makes a model `review`.
    """
    # The licences that somebody accepted, as keys of the table where they have one.
    licenses, ids, facts = tables.licenses(), judged["repo_id"], facts_from_hub(pulled)
    keys, changes = keys_on_hub(rows(licenses)), [d for d in drifts if d["field"] == "licence"]
    texts = {d["repo_id"]: facts[d["repo_id"]]["license"] for d in changes if d["accepted"]}
    for repo_id, name in texts.items():
        meant = keys.get(name.lower(), [])
        texts[repo_id] = meant[0] if len(meant) == 1 else name or None
    notes = {
        d["repo_id"]: f"licence drift: {d['against']} {d['old']}, Hub {d['new']}"
        for d in reversed(changes)
        if not d["accepted"]
    }
    # The catalogue with them, and with the base models that the Hub adds, judged.
    on_hub = ids.map({repo_id: hub["base_models"] for repo_id, hub in facts.items()})
    now = judged.assign(
        license=judged["license"].mask(ids.isin(texts), ids.map(texts)).astype("str"),
        base_model=judged["base_model"].fillna("") + ";" + on_hub.astype("str").fillna(""),
    )
    every = pd.concat([now, _ancestry(judged, pulled)], ignore_index=True)
    again = judge(every, licenses, brief).head(len(now))
    # The stricter of two verdicts for each model that this touches.
    before, after, results = bases(judged), bases(every), []
    for row, new in zip(rows(judged), rows(again), strict=True):
        repo_id, made_of = row["repo_id"], ancestors(row["repo_id"], after)
        if made_of != ancestors(repo_id, before) or {repo_id, *made_of} & texts.keys():
            row = max(new, row, key=lambda one: VERDICTS.index(one["verdict"]))
        inherited = "; ".join(f"base {base}: {notes[base]}" for base in made_of if base in notes)
        if note := notes.get(repo_id, inherited):
            verdict = "blocked" if row["verdict"] == "blocked" else "review"
            row |= {"verdict": verdict, "reasons": f"{row['reasons']}; {note}"}
        results.append(row)
    table = pd.DataFrame(results, judged.index, ["license", *JUDGED])
    return judged.assign(**table.astype("str"))


def _hub_sizes(
    judged: pd.DataFrame, pulled: pd.DataFrame, drifts: list[Row], brief: Project
) -> pd.DataFrame:
    """Step 2 again with what the Hub says: layers, files, context, and a size that drifted."""
    from_hub = pulled[pulled["repo_id"].isin(facts_from_hub(pulled))].drop_duplicates("repo_id")
    facts = from_hub.set_index("repo_id").reindex(judged["repo_id"]).set_axis(judged.index)
    shape = facts[SHAPE].astype("Float64").astype(float).fillna(judged[SHAPE])
    packing = facts[FROM_HUB].fillna(judged.reindex(columns=FROM_HUB))
    count = facts["params_b"].astype(float).fillna(facts["gguf_params_b"].astype(float))
    size_drifts = [drift["repo_id"] for drift in drifts if drift["field"] == "size"]
    resized = judged["repo_id"].isin(size_drifts) & ~packed_weights(facts)
    table = judged.assign(
        **packing,
        **shape,
        file_gb=facts["weights_gb"].fillna(judged.reindex(columns=["file_gb"])["file_gb"]),
        hub_params_b=judged["hub_params_b"].mask(resized, count),
        total_params_b=judged["total_params_b"].mask(resized),
    )
    tiers = wanted_tiers(brief.size, tables.closed_models())
    machines, deployments = tables.hardware(), brief.deployments
    return shortlist(table, machines, brief.size, tiers=tiers, deployments=deployments)


def consequence(drift: Row, was: Row, now: Row) -> tuple[str, bool]:
    """What one drift means in words, and whether it changes what steps 1 and 2 said."""
    if drift["field"] in ("licence", "base model"):
        if was["verdict"] == now["verdict"]:
            return f"shown only: {was['verdict']} before and after", False
        why = "it answers for what its base is bound to"
        if drift["field"] == "licence":
            why = "the permission was given for another text"
            why = "judged on what the Hub says now" if drift["accepted"] else why
        return f"{was['verdict']} → {now['verdict']}: {why}", True
    changes = was["shortlisted"] != now["shortlisted"]
    words = ("still", "no longer") if was["shortlisted"] else ("not", "now")
    standing = f"{words[changes]} shortlisted"
    if drift["field"] == "size" and was["tier"] != now["tier"]:
        return f"tier {was['tier']} → {now['tier']}: {standing}", True
    # A verdict that admits no more takes a model off the shortlist, whatever its size.
    same_use = (was["verdict"] in USABLE) == (now["verdict"] in USABLE)
    if drift["field"] in ("size", "context") and changes and same_use:
        return standing, True
    return SHOWN_ONLY.get(drift["field"], "shown only"), False


def drift_texts(drifts: pd.DataFrame, repo_ids: pd.Series[str]) -> pd.Series[str]:
    """All drifts of each model in one text, empty where there are none."""
    texts = drifts["field"] + ": " + drifts["against"] + " " + drifts["old"] + ", Hub "
    joined = (texts + drifts["new"]).groupby(drifts["repo_id"]).agg("; ".join)
    return repo_ids.map(joined).astype("str").fillna("")


def stop_on_drift(drifts: pd.DataFrame, brief: Project) -> None:
    """PlaybookError where a drift changes a verdict and nobody accepted it: says how to do so."""
    grave = drifts[drifts["changes_verdict"] & ~drifts["accepted"]]
    if brief.hub.stop_on == "deployed":
        deployed = [deployment.model.lower() for deployment in brief.deployments]
        grave = grave[grave["repo_id"].str.lower().isin(deployed)]
    if grave.empty:
        return
    grave, texts, entries = grave.drop_duplicates(["repo_id", "field"]), [], []
    for row in rows(grave.head(MOST)):
        change = f"{row['field']} {row['old']} → {row['new']}"
        texts.append(f"{row['repo_id']}: {change} ({row['consequence']})")
        entries.append({"model": row["repo_id"], "field": row["field"], "reason": "…"})
    texts += [f"and {len(grave) - MOST} more"] * (len(grave) > MOST)
    key = {"hub": {"accept_drift": entries}}
    problem = "\n- ".join(["the Hub no longer says what steps 1 and 2 judged:", *texts])
    way = "Correct data/models.csv and run from step 1, or accept it in the brief:\n"
    way += yaml.safe_dump(key, allow_unicode=True, sort_keys=False).strip()
    raise PlaybookError(f"{problem}\n{way}")
