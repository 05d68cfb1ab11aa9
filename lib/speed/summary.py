"""What loads showed: latency of every load, the capacity, and who could not be measured."""

import math
from typing import Any

import pandas as pd

from lib import stats
from lib.brief import Deployment, Project
from lib.speed import estimate
from lib.speed.estimate import throughput
from lib.tables import rows

LOAD = """deployment repo_id in_flight offered_rps achieved_rps p50_s p95_s ttft_p95_s
    ttft_content_p95_s n errors cached_share backlog verdict disturbed stopped_early
    within_slo""".split()
CAPACITY = """deployment repo_id max_rps low high p95_s p95_low p95_high n basis method binds
    disturbed""".split()
NAN = math.nan


def unmeasured(requests: pd.DataFrame) -> dict[str, str]:
    """Which deployments failed every request of their first load, each with a sentence."""
    sent = requests.reindex(columns=["deployment", "probe", "outcome", "error"])
    alive = sent.loc[(sent["outcome"] == "ok") | (sent["probe"] > 1), "deployment"]
    errors = sent.loc[~sent["deployment"].isin(alive), ["deployment", "error"]].dropna()
    first = errors.drop_duplicates("deployment").itertuples(index=False)
    text = "{!r}: no request of the first probe was answered: {}"
    return {str(name): text.format(str(name), error) for name, error in first}


def _records(sent: pd.DataFrame) -> list[dict[Any, Any]]:
    """The loads of one deployment, each with its requests."""
    head = ["purpose", "in_flight", "offered_rps", "stopped"]
    loads = [load for _, load in sent.groupby("probe")]
    return [load[head].iloc[0].to_dict() | {"requests": rows(load)} for load in loads]


def summarise(requests: pd.DataFrame, *, slo_s: float) -> pd.DataFrame:
    """One row per load, with `LOAD`; closed loops have `in_flight`, open ones `offered_rps`.

    `verdict` is `passed`, `failed` or `unresolved`, of open loops; `backlog` is how many more
    requests were in flight in the last third than in the first.
    """
    table = []
    for (name, _), load in requests.groupby(["deployment", "probe"]):
        (record,) = _records(load)
        ok, latency = load[load["outcome"] == "ok"], load["latency_s"]
        closed, cut = record["in_flight"] > 0, (load["outcome"] == "cut").any()
        verdict, backlog = ("", NAN) if closed else estimate.verdict(record, slo_s)
        rate = NAN if closed else record["offered_rps"]
        row = [name, load["repo_id"].iloc[0], record["in_flight"], rate, throughput(record)]
        content = ok["ttft_content_s"].dropna()
        figures = (latency, 0.5), (latency, 0.95), (ok["ttft_s"].dropna(), 0.95), (content, 0.95)
        row += [stats.quantile(values, p)[0] for values, p in figures]
        cached = ok["cached_tokens"].sum() / max(ok["prompt_tokens"].sum(), 1)
        cached = cached if ok["cached_tokens"].notna().any() else NAN
        row += [len(load), (load["outcome"] == "failed").sum(), cached, backlog, verdict]
        table.append([*row, estimate.disturbed(record), cut, verdict == "passed"])
    return pd.DataFrame(table, columns=LOAD)


def capacity(
    brief: Project, requests: pd.DataFrame, *, deployments: list[Deployment] | None = None
) -> pd.DataFrame:
    """The Poisson rate at which 5 % miss the SLO, `max_rps`, with its interval.

    `high` is missing where no load broke it: `max_rps` is then at least that. `method` says how it
    was found, `binds` what is missed beyond it. `p95_s` is that at `min_rps`, or at half of
    `max_rps` where the brief has none.
    """
    table: list[tuple[Any, ...]] = []
    for deployment in brief.deployments if deployments is None else deployments:
        if (figures := deployment.published) and deployment.endpoint is None:
            basis = f"published ({figures.source}, {figures.checked_on})"
            rest = [NAN] * 5, 0, basis, "published", "", False
            table.append((deployment.name, deployment.model, figures.max_rps, *rest[0], *rest[1:]))
    measured = requests[~requests["deployment"].isin(unmeasured(requests))]
    slo_s = brief.requirements.slo_s
    for name, sent in measured.groupby("deployment", sort=False):
        records = estimate.usable(_records(sent))
        answer = estimate.assess(records, slo_s)
        low, middle, high = (bound if math.isfinite(bound) else NAN for bound in answer[:3])
        if math.isnan(high):  # no load broke it
            middle = low
        at = brief.requirements.min_rps or middle / 2
        p95 = estimate.p95_at(records, answer, at)
        unquiet = any(map(estimate.disturbed, records))
        if unquiet:  # it decides nothing
            low, high, p95 = 0.0, NAN, (p95[0], NAN, NAN)
        how = "measured here", answer.method, estimate.binds(records, slo_s), unquiet
        who = name, sent["repo_id"].iloc[0]
        table.append((*who, middle, low, high, *p95, len(sent), *how))
    return pd.DataFrame(table, columns=CAPACITY)
