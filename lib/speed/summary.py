"""What a load showed: latency of every load, the capacity, and who could not be measured."""

import math
from typing import Any

import pandas as pd

from lib import stats
from lib.brief import Deployment, Project

MISSES = 0.05  # p95 within the SLO means at most this share outside it
LOAD = """deployment repo_id offered_rps achieved_rps p50_s p95_s ttft_p95_s ttft_content_p95_s n
    errors stopped_early within_slo""".split()
CAPACITY = "deployment repo_id max_rps low high p95_s p95_low p95_high n basis".split()
NAN = math.nan


def unmeasured(requests: pd.DataFrame) -> dict[str, str]:
    """Which deployments failed every request of their first probe, each with a sentence."""
    sent = requests.reindex(columns=["deployment", "probe", "outcome", "error"])
    alive = sent.loc[(sent["outcome"] == "ok") | (sent["probe"] > 1), "deployment"]
    errors = sent.loc[~sent["deployment"].isin(alive), ["deployment", "error"]].dropna()
    first = errors.drop_duplicates("deployment").itertuples(index=False)
    text = "{!r}: no request of the first probe was answered: {}"
    return {str(name): text.format(str(name), error) for name, error in first}


def summarise(requests: pd.DataFrame, *, slo_s: float) -> pd.DataFrame:
    """One row per deployment and offered load, with `LOAD`; `stopped_early`: at least so late."""
    rows = []
    for (name, rate), probe in requests.groupby(["deployment", "offered_rps"]):
        ok, latency = probe[probe["outcome"] == "ok"], probe["latency_s"]
        # The same load may have been offered in more than one probe.
        planned = probe.groupby("probe")["planned"].first().sum()
        span_s = (ok["due_s"] + ok["latency_s"]).groupby(ok["probe"]).max().sum()
        missed = ((probe["outcome"] != "ok") | (latency > slo_s)).sum()
        row = [name, probe["repo_id"].iloc[0], rate, len(ok) / span_s if span_s else NAN]
        content = ok.get("ttft_content_s", pd.Series(dtype=float)).dropna()
        figures = (latency, 0.5), (latency, 0.95), (ok["ttft_s"], 0.95), (content, 0.95)
        row += [stats.quantile(values, p)[0] for values, p in figures]
        row += [len(probe), (probe["outcome"] == "failed").sum(), (probe["outcome"] == "cut").any()]
        rows.append([*row, missed <= MISSES * planned])
    return pd.DataFrame(rows, columns=LOAD)


def capacity(
    brief: Project, requests: pd.DataFrame, *, deployments: list[Deployment] | None = None
) -> pd.DataFrame:
    """The greatest load within the SLO, `max_rps`, and the least above it that failed, `high`.

    `p95_s` with its bounds pools the requests of all passing loads from `min_rps` on: more load
    is not faster, so it speaks for `min_rps` as well.
    """
    probes = summarise(requests, slo_s=brief.requirements.slo_s)
    rows: list[tuple[Any, ...]] = []
    for deployment in brief.deployments if deployments is None else deployments:
        if (figures := deployment.published) and deployment.endpoint is None:
            basis = f"published ({figures.source}, {figures.checked_on})"
            rows.append((deployment.name, deployment.model, figures.max_rps, *[NAN] * 5, 0, basis))
    measured = requests[~requests["deployment"].isin(unmeasured(requests))]
    for name, sent in measured.groupby("deployment", sort=False):
        loads = probes[probes["deployment"] == name]
        high = loads.loc[~loads["within_slo"], "offered_rps"].min()
        passed = loads.loc[loads["within_slo"] & ~(loads["offered_rps"] >= high), "offered_rps"]
        low = passed.max() if len(passed) else 0.0
        enough = passed[passed >= (brief.requirements.min_rps or 0.0)]
        pool = sent.loc[sent["offered_rps"].isin(enough), "latency_s"]
        bracket, p95 = (low, low, high), stats.quantile(pool, 0.95)
        rows.append((name, sent["repo_id"].iloc[0], *bracket, *p95, len(pool), "measured here"))
    return pd.DataFrame(rows, columns=CAPACITY)
