"""The decision record: what was picked or refused, by which rule, from which inputs."""

import math
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pandas import DataFrame as Frame

from lib import artifacts
from lib.brief import Project
from lib.decide.decision import TIES, choose, nearest_miss
from lib.decide.steps import funnel, provenance, serving
from lib.endpoints import admit, machine, model_objection
from lib.errors import PlaybookError
from lib.sizing import OUTSIDE
from lib.tables import Row, number, rows

LIBRARIES = "genai_prices huggingface_hub openai pandas scipy statsmodels xllamacpp".split()
FACTS = ["revision", "license", "verdict", "conditions", "exception"]
VERSION = 1  # of data/schemas/decision-1.json
# What people read of a run, beside its tables.
OUTPUTS = "06_tradeoffs.parquet 06_bom.json *.html *.jsonl overrides.yaml figures/*".split()
NOT_PRICED = "not used, since no load was offered to divide it by"


def decision_record(
    brief: Project, run: Path, *, table: Frame, checks: Frame, metadata: Frame, shortlist: Frame,
    outlook: Row,
) -> Row:  # fmt: skip
    """Choose from `qualify`'s table, and say everything that the choice rests on.

    PlaybookError where a deployment has figures that steps 1 to 3 do not let through.
    """
    verdicts = admit(brief, shortlist, metadata)
    has_figures = verdicts["deployment"].isin(table["deployment"])
    for row in verdicts[has_figures & (verdicts["admitted"] == "no")].itertuples():
        what = f"deployment {row.deployment!r} has figures but may not be chosen: {row.why}"
        raise PlaybookError(f"{what}; run steps 4 and 5 again, or take it out of the brief")
    choice = _choice(brief, table, checks, metadata, outlook)
    pick = choice["pick"]
    outside = verdicts[verdicts["why"].str.startswith(OUTSIDE)].set_index("deployment")["why"]
    limits = {str(name): f"{name} is {why}." for name, why in outside.items()}
    names = ", ".join(model.repo_id for model in brief.models)
    attestation = f"Licence, country and size of {names} are as attested in project.yaml."
    record = {
        "record_version": VERSION,
        "brief": brief.model_dump(mode="json"),
        "project": {key: getattr(brief, key) for key in ("name", "task", "objective")}
        | {"metric": ", ".join(dict.fromkeys(table["metric"]))},
        **outlook,
        **choice,
        # JSON has no NaN and no infinity: both are null there.
        "requirements": rows(checks.replace([math.inf, -math.inf], math.nan)),
        "funnel": funnel(shortlist, metadata, verdicts, table),
        "serving": serving(brief, pick["deployment"], pick["revision"]) if pick else "",
        "not_asked": rows(verdicts[verdicts["admitted"] == "no"], ["deployment", "repo_id", "why"]),
        "rejected": _rejections(shortlist, metadata, verdicts, table, pick),
        "unverified": [*[attestation] * bool(names), *limits.values(), *_caveats(metadata, table)],
        "basis": _basis(metadata, table),
        **provenance(brief, table),
        "machine": machine(),
        "versions": {name: version(name) for name in LIBRARIES},
        "overrides": artifacts.overrides(run),
        "inputs": {k: v for k, v in artifacts.inputs(run).items() if k[:2] != "06"},
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    subject = (pick or choice["provisional"] or {"deployment": ""})["deployment"]
    texts = [_summary(record, table), limits.get(subject, "")]
    return record | {"summary": " ".join(filter(None, texts))}


def _choice(brief: Project, table: Frame, checks: Frame, metadata: Frame, outlook: Row) -> Row:
    """The pick and the next best, or the provisional choice and the nearest miss; and the ties."""
    order, rule = choose(table, brief.objective)
    facts = table[["deployment", "repo_id", "hardware"]].merge(metadata[["repo_id", *FACTS]])
    facts = facts.rename(columns={"repo_id": "model"}).set_index("deployment", drop=False)
    if provisional := outlook["provisional"]:
        provisional = rows(facts.loc[[provisional["deployment"]]])[0] | provisional
    pick, runner_up = [*rows(facts.loc[order[:2]]), None, None][:2]
    candidates = table.loc[table["standing"] == "candidate", "deployment"].tolist()
    near = [provisional["deployment"]] if provisional else candidates
    has_open = (table["qualifies"] == "not decided").any()
    # Those that qualify and cannot be told apart from the pick.
    better = table.set_index("deployment")["beaten_by"].str.split(", ")
    equals = [o for p in order[:1] for o in order if o not in better[p] and p not in better[o]]
    outcome = "picked" if order else "not decided" if has_open else "none qualifies"
    miss = None if order else nearest_miss(checks[checks["deployment"].isin(near)])
    roles = {"pick": pick, "runner_up": runner_up, "provisional": provisional, "nearest_miss": miss}
    return roles | {"outcome": outcome, "tie_group": equals, "tie_rule": rule}


def write_decision(record: Row, run: Path) -> None:
    """Write `06_decision.json` with the hashes of all that people read in the run, last of all."""
    outputs = [path for pattern in OUTPUTS for path in sorted(run.glob(pattern))]
    hashes = {path.relative_to(run).as_posix(): artifacts.sha256(path) for path in outputs}
    seals = {"outputs": hashes, "manifest": artifacts.manifest_digest(run)}
    artifacts.save_json(record | seals, run, artifacts.RECORD)


def _summary(record: Row, table: Frame) -> str:
    if pick := record["pick"]:
        row = table.set_index("deployment").loc[pick["deployment"]]
        basis = str(row["basis"])
        how = "on published figures only" if basis.startswith("published") else basis
        who, objective = f"{pick['deployment']} ({pick['model']})", record["project"]["objective"]
        lead = f"{who} is the {objective} configuration that meets every requirement, {how}."
        if TIES[objective] in record["tie_rule"]:
            lead = f"{who} meets every requirement, {how}; it goes first in a tie for {objective}."
        if math.isnan(row["usd_per_month"]):
            return lead
        month = f"${number(row['usd_per_month'])} a month {row['cost_basis']}"
        return f"{lead} It costs {month}{row['machines'] and ': ' + row['machines']}."
    if not (miss := record["nearest_miss"]):
        return "Nothing was measured, so nothing can be chosen."
    has_open = record["outcome"] == "not decided"
    lead = "No configuration is shown to qualify yet" if has_open else "None qualifies"
    role = "provisional" if record["provisional"] else "the nearest"
    return f"{lead}; {role} is {miss['deployment']}: {miss['would_have_to_give']}."


def _rejections(
    shortlist: Frame, metadata: Frame, verdicts: Frame, table: Frame, pick: Row | None
) -> list[Row]:
    """Every model and configuration that is out, with the step and the rule."""
    exits = [
        (row["repo_id"], "1", f"{row['verdict']}: {row['reasons']}")
        if row["why"].startswith("step 1")
        else (row["repo_id"], "2", row["why"])
        for row in rows(shortlist[~shortlist["shortlisted"]])
    ]
    for row in rows(metadata):
        objection = f"{row['verdict']}: {row['reasons']}"
        rule = objection if row["verdict"] in ("review", "blocked") else model_objection(row)
        exits += [(row["repo_id"], "3", rule.removeprefix("step 3: "))] if rule else []
    idle = set(metadata["repo_id"]) - {*verdicts["repo_id"], *(what for what, *_ in exits)}
    exits += [(repo_id, "4", "no deployment of it in the brief") for repo_id in sorted(idle)]
    for row in rows(verdicts[~verdicts["deployment"].isin(table["deployment"])]):
        rule = "no figures of it: run steps 4 and 5 again"
        rule = f"not asked: {row['why']}" if row["admitted"] == "no" else rule
        exits.append((row["deployment"], "4", rule))
    name = pick["deployment"] if pick else ""
    others = table[table["deployment"] != name]
    why = others["why"].mask(others["qualifies"] == "yes", f"qualifies; preferred was {name}")
    exits += [(name, "6", rule) for name, rule in zip(others["deployment"], why, strict=True)]
    return [{"what": what, "step": step, "rule": rule} for what, step, rule in exits]


def _caveats(metadata: Frame, table: Frame) -> list[str]:
    """What a reader must know before relying on it."""
    sentences = []
    dates = metadata.loc[metadata["metadata_source"] == "catalogue", "retrieved_at"].astype(str)
    if len(dates):
        models = f"{len(dates)} of {len(metadata)} shortlisted models were not verified"
        facts = f"the catalogue's, of {dates.min()} to {dates.max()}, and no revision is pinned"
        sentences.append(f"{models} against the Hub: their facts are {facts}.")
    problems = metadata[metadata["problem"] != ""]
    sentences += list(problems["repo_id"] + ": " + problems["problem"])
    if table["basis"].str.startswith("published").any():
        sentences.append("Quality and speed are published figures; nothing was measured here.")
    for row in rows(table[table["basis"].str.contains(", load read")]):
        read = row["basis"].rpartition(", load ")[2]
        sentences.append(f"The load of {row['deployment']} is {read}: not measured here.")
    if table["cost_basis"].str.startswith("at full use").any():
        sentences.append("The brief states no traffic: costs are those of machines at full use.")
    guesses = table.loc[table["price_basis"].str.startswith("assumed", na=False), "deployment"]
    sentences += [f"Assumed is the price of {', '.join(guesses)}."] * (len(guesses) > 0)
    return [*sentences, "The licence table is a reading aid, not legal advice."]


def _basis(metadata: Frame, table: Frame) -> list[str]:
    sources = metadata["metadata_source"].value_counts()
    prices = (table["price"] + ", " + table["price_basis"]).fillna(NOT_PRICED)
    return [
        f"Quality and speed: {', '.join(sorted(set(table['basis'])))} ({machine()})",
        "Model facts: " + ", ".join(f"{source} ({n})" for source, n in sources.items()),
        "Cost: " + ", ".join(sorted(set(table["cost_basis"].dropna()))),
        *("Price of " + table["deployment"] + ": " + prices),
    ]
