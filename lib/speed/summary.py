"""What loads showed: latency of every load, the capacity, and who could not be measured."""

import itertools
import math
from collections import Counter
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from lib import stats
from lib.brief import Deployment, Project
from lib.speed import estimate
from lib.speed.queue_model import MISSES
from lib.speed.results import bound, load_results
from lib.tables import Row, rows

LOAD = """deployment repo_id offered_rps achieved_rps p50_s p95_s ttft_p95_s
    ttft_content_p95_s itl_p95_s n errors cached_share backlog verdict disturbed stopped_early
    within_slo source loop latency_from concurrency prompt_tokens completion_tokens""".split()
CAPACITY = """deployment repo_id max_rps low high p95_s p95_low p95_high n basis method binds
    disturbed slo_s ttft_p95_s ttft_low ttft_high itl_p95_s itl_low itl_high""".split()
P95S = {  # by the column of requests
    "latency_s": ("p95_s", "p95_low", "p95_high"),
    "ttft_s": ("ttft_p95_s", "ttft_low", "ttft_high"),
    "itl_s": ("itl_p95_s", "itl_low", "itl_high"),
}
NAN = math.nan


def silent_deployments(requests: pd.DataFrame) -> dict[str, str]:
    """Which deployments failed every request of their first load, each with a sentence."""
    sent = requests.reindex(columns=["deployment", "probe", "outcome", "error"])
    alive = sent.loc[(sent["outcome"] == "ok") | (sent["probe"] > 1), "deployment"]
    errors = sent.loc[~sent["deployment"].isin(alive), ["deployment", "error"]].dropna()
    first = errors.drop_duplicates("deployment").itertuples(index=False)
    text = "{!r}: no request of the first probe was answered: {}"
    return {str(name): text.format(str(name), error) for name, error in first}


def _loads(sent: pd.DataFrame) -> dict[Any, dict[Any, Any]]:
    """The loads of one deployment by number, each with its requests; not the warm-up."""
    head = ["purpose", "offered_rps", "stopped", "waited"]
    loads = sent[sent["offered_rps"] > 0].groupby("probe")
    return {n: load[head].iloc[0].to_dict() | {"requests": rows(load)} for n, load in loads}


def summarise(
    requests: pd.DataFrame, *, slo_s: float, results: list[Row] | None = None
) -> pd.DataFrame:
    """One row per load, with `LOAD`; `verdict` is `passed`, `failed` or `unresolved`.

    Those of `load_results` stand below with their `source`, which is "" where we measured.
    `backlog` is how many more requests were in flight at the end than at the beginning. `errors`
    of the first load count those of the warm-up too: no failure is out of sight.
    """
    table = []
    for name, sent in requests.groupby("deployment"):
        unseen = (sent.loc[sent["offered_rps"] == 0, "outcome"] == "failed").sum()
        for number, record in _loads(sent).items():
            load = sent[sent["probe"] == number]
            ok, latency = load[load["outcome"] == "ok"], load["latency_s"]
            rps, (verdict, backlog) = record["offered_rps"], estimate.verdict(record, slo_s)
            row = {"deployment": name, "repo_id": load["repo_id"].iloc[0], "offered_rps": rps}
            row |= {f"p{p}_s": stats.quantile(latency, p / 100)[0] for p in (50, 95)}
            for token in ("ttft", "ttft_content", "itl"):
                row[f"{token}_p95_s"] = stats.quantile(ok[f"{token}_s"].dropna(), 0.95)[0]
            cached = ok["cached_tokens"].sum(min_count=1) / max(ok["prompt_tokens"].sum(), 1)
            within = verdict != "failed" and estimate.late_requests(record, slo_s).mean() <= MISSES
            row |= {"verdict": verdict, "backlog": backlog, "within_slo": within}
            row |= {"achieved_rps": estimate.throughput(record), "cached_share": cached}
            errors, unseen = (load["outcome"] == "failed").sum() + unseen, 0
            row |= {"n": len(load), "errors": errors, "disturbed": estimate.disturbance(record)}
            row["stopped_early"] = (load["outcome"] == "cut").any()
            table.append(row | {"source": "", "loop": "open", "latency_from": "schedule"})
    return pd.DataFrame([*table, *(results or [])], columns=LOAD)


def capacity(
    brief: Project, requests: pd.DataFrame, *, deployments: list[Deployment] | None = None
) -> pd.DataFrame:
    """The Poisson rate at which 5 % miss the SLO, `max_rps`, with its interval.

    `high` is missing where no load broke it: `max_rps` is then at least that. `method` says how it
    was found, `binds` what is missed beyond it. `p95_s` is that of the loads from `min_rps`, or
    half of `max_rps`, to `low`: more load is not faster; `ttft_p95_s` and `itl_p95_s` are of the
    same, missing where tokens were not counted in every answer. What was disturbed, or modelled
    without a load to confirm it, decides nothing: only what passed undisturbed is borne. Of
    `load_results` it is their `bound`. No endpoint bears more than its `limits` allow.
    """
    deployments = brief.deployments if deployments is None else deployments
    slo_s, results = brief.requirements.slo_s, load_results(brief, deployments)
    limits = {deployment.name: deployment.limits for deployment in deployments}
    table = list[Row]()
    for key, group in groupby(results, lambda load: str(load["deployment"])):
        loads = [*group]
        tokens = estimate.tokens_taken(loads, estimate.LONG)
        allowed = estimate.allowed_rps(limits[key], calls=1, tokens=tokens)
        if row := bound(loads, slo_s):
            table.append(_bounded(row, allowed))
    for deployment in deployments:
        if (figures := deployment.published) and deployment.endpoint is None:
            basis = f"published ({figures.source}, {figures.checked_on})"
            row = {"deployment": deployment.name, "repo_id": deployment.model, "n": 0}
            row |= {"max_rps": figures.max_rps, "basis": basis, "method": "published"}
            row |= {"binds": "", "disturbed": False}
            allowed = estimate.allowed_rps(deployment.limits, calls=1, tokens=estimate.LONG)
            table.append(_bounded(row, allowed))
    measured = requests[~requests["deployment"].isin(silent_deployments(requests))]
    for name, sent in measured.groupby("deployment", sort=False):
        loads = estimate.conclusive_loads(list(_loads(sent).values()))
        answer = estimate.assess(loads, slo_s, brief.requirements.max_ttft_p95_s)
        low, middle, high = answer[:3]
        if high == math.inf:  # no load broke it
            middle, high = low or NAN, NAN
        least = brief.requirements.min_rps or middle / 2
        # Several machines may bear min_rps together; how far apart tokens come no queue can say.
        leasts = {"itl_s": least if least <= low else middle / 2}
        disturbed = any(map(estimate.disturbance, loads))
        row = {"deployment": name, "repo_id": sent["repo_id"].iloc[0], "n": len(sent)}
        row |= {"max_rps": middle, "low": low, "high": high, "disturbed": disturbed}
        undecided = disturbed or answer.method == "modelled"
        if undecided:  # what passed undisturbed is borne
            quiet = [one for one in loads if not estimate.disturbance(one)]
            passes = [r["offered_rps"] for r in quiet if estimate.verdict(r, slo_s)[0] == "passed"]
            least_rps = max(passes, default=0.0)
            row |= {"low": least_rps, "high": NAN}
            row["max_rps"] = float(np.fmax(middle, least_rps or NAN))
        for column, names in P95S.items():
            value, *bounds = _p95(loads, leasts.get(column, least), low, column)
            row |= dict(zip(names, [value, *([NAN] * 2 if undecided else bounds)], strict=True))
        missed = [estimate.reasons(r, slo_s) for load in loads for r in load["requests"]]
        binds = Counter(itertools.chain.from_iterable(missed)).most_common(1)
        row |= {"basis": "measured here", "method": answer.method, "slo_s": slo_s}
        row |= {"binds": "".join(reason for reason, _ in binds)}
        table.append(_bounded(row, sent["allowed_rps"].astype(float).min()))
    return pd.DataFrame(table, columns=CAPACITY)


def _bounded(row: Row, allowed_rps: float) -> Row:
    """A capacity where more than so much is refused, whatever the machine could do."""
    high = row["high"] if "high" in row else row["max_rps"]
    if not allowed_rps < math.inf or high < allowed_rps or row["max_rps"] == 0:
        return row
    ends = {"low": min(row["low"], allowed_rps), "high": allowed_rps} if "low" in row else {}
    most = float(np.minimum(row["max_rps"], allowed_rps))
    return row | ends | {"max_rps": most, "binds": "limits of the endpoint"}


def _p95(loads: list[Row], least: float, most: float, column: str) -> tuple[float, float, float]:
    """The 95th percentile at such loads; the tokens of what was not answered never came."""
    requests = [load["requests"] for load in loads if least <= load["offered_rps"] <= most]
    values = [
        r[column] if column == "latency_s" or r["outcome"] == "ok" else math.inf
        for r in itertools.chain.from_iterable(requests)
        if column != "itl_s" or r["completion_tokens"] != 1  # which has nothing between tokens
    ]
    return (NAN, NAN, NAN) if pd.isna(values).any() else stats.quantile(values, 0.95)
