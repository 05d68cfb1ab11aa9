"""What no measurement says: how many models each rule left, who serves them and until when."""

import json
import math
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from lib.brief import Deployment, Project, Requirements
from lib.endpoints import identity, model_objection
from lib.sizing import bytes_of
from lib.tables import hardware, number, parts, rows

Frame = pd.DataFrame
# Of every random draw: resampled items, arrivals of requests, chances, and what more items give.
SEEDS = {"bootstrap": 0, "arrivals": 0, "chances": 0, "more_items": 1}


def funnel(
    shortlist: Frame, metadata: Frame, verdicts: Frame, table: Frame
) -> list[dict[str, object]]:
    """How many were left after each step: `step left of`, models first and then deployments."""
    is_allowed = ~shortlist["why"].str.startswith("step 1") | shortlist["shortlisted"]
    is_clear = pd.Series([not model_objection(row) for row in rows(metadata)], metadata.index, bool)
    is_clear &= ~metadata["verdict"].isin(["review", "blocked"])
    is_deployed = is_clear & metadata["repo_id"].isin(verdicts["repo_id"])
    counts = [
        ("in the catalogue or the brief", len(shortlist), "models"),
        ("whose licence and country the policy allows", int(is_allowed.sum()), "models"),
        ("of the size", int(shortlist["shortlisted"].sum()), "models"),
        ("with nothing against them on the Hub", int(is_clear.sum()), "models"),
        ("with a deployment in the brief", int(is_deployed.sum()), "models"),
        ("asked or quoted", int(verdicts["admitted"].eq("yes").sum()), "deployments"),
        ("that qualify", int(table["qualifies"].eq("yes").sum()), "deployments"),
    ]
    return [{"step": step, "left": left, "of": of} for step, left, of in counts]


def availability(brief: Project, metadata: Frame) -> Frame:
    """Who else serves each deployment's model, and how long this one is there.

    Columns: `deployment`; `n_providers`, the inference providers that the Hub lists as serving it,
    missing where the Hub was not asked; `own_host`, whether it needs none, as a model of the brief
    on a machine that it pays for; `retires_on`, a day as 2027-03-01 or `never`, missing where not
    known; `lifetime`, what that rests on.
    """
    our_ids = [model.repo_id for model in brief.models]
    facts = {row["repo_id"]: row for row in rows(metadata, ["repo_id", "providers", "revision"])}
    table = []
    for deployment in brief.deployments:
        model = facts.get(deployment.model, {})
        providers = model.get("providers")
        n = float("nan") if providers is None else float(len(parts(providers)))
        ours = _has_machine(deployment) and (not deployment.host or deployment.model in our_ids)
        table.append(
            (deployment.name, n, ours, *_lifetime(deployment, model.get("revision"), ours))
        )
    columns = "deployment n_providers own_host retires_on lifetime".split()
    return pd.DataFrame(table, columns=columns)


def _has_machine(deployment: Deployment) -> bool:
    """Whether it runs here, or on a machine by the hour."""
    end, price = deployment.endpoint, deployment.price
    live = not (end and end.recorded) and (price is None or price.usd_per_hour)
    return bool((end and end.local) or (deployment.hardware and live))


def _lifetime(deployment: Deployment, revision: str | None, ours: bool) -> tuple[str | None, str]:
    """The day it retires, and what that rests on: only pinned weights that we host never do."""
    end, day = deployment.endpoint, deployment.retires_on
    if day:
        return day.isoformat(), f"it retires on {day}, as its provider published"
    if not (ours or (end and end.local)):
        give = "give its retires_on, the day they published"
        return None, f"whoever serves it may retire it: {give}"
    if revision or (end and (end.embedded or end.revision)):
        return "never", "we host it: weights at a pinned revision do not retire"
    give = "give endpoint.revision, or run step 3 with the Hub reachable"
    return None, f"we host it, but no revision is pinned: {give}"


def estimated_load(brief: Project, shortlist: Frame, answers: Frame, capacity: Frame) -> Frame:
    """The load of machines that step 5 could not measure, which decides nothing.

    Columns: `deployment estimated_load`, a text, "" where a part of it is not known. One request
    at a time, bound by memory: bandwidth by the gigabytes of the active weights is tokens a second,
    and by the mean tokens of an answer requests a second. Batches bear more, long prompts less.
    """
    bandwidth: dict[Any, float] = hardware().set_index("hardware")["bandwidth_gb_s"].to_dict()
    unmeasured_answers = answers[~answers["deployment"].isin(capacity["deployment"])]
    tokens = unmeasured_answers.groupby("deployment")["completion_tokens"].mean().to_dict()
    models, nan = {row["repo_id"]: row for row in rows(shortlist)}, float("nan")
    texts = dict[str, str]()
    for d in brief.deployments:
        model, bytes_each = models.get(d.model, {}), bytes_of(d.precision)
        weights, total, active = (
            model.get(name) or nan for name in ("weights_gb", "total_params_b", "active_params_b")
        )
        active_gb = active * (weights / total if math.isnan(bytes_each) else bytes_each)
        rps = bandwidth.get(d.hardware, nan) / active_gb / (tokens.get(d.name) or nan)
        texts[d.name] = f"about {number(rps)}/s one at a time, estimated" * (rps > 0)
    return pd.DataFrame({"deployment": texts.keys(), "estimated_load": texts.values()})


def known_checks(row: Mapping[Any, Any], bars: Requirements) -> Iterator[tuple[Any, ...]]:
    """A row of `check` for each requirement on what `availability` says; not known is not met."""
    if bars.min_providers is not None:
        n, wanted = row["n_providers"], f"at least {bars.min_providers} inference providers"
        verdict = "met" if n >= bars.min_providers else "not met" if n >= 0 else "not decided"
        note = "" if n >= 0 else "not known who serves it: run step 3 with the Hub reachable"
        if row["own_host"]:
            verdict, note = "met", "we host it: it needs no provider"
        yield "min_providers", wanted, bars.min_providers, n, n, n, verdict, note
    if day := bars.not_retired_before:
        end, no_figures = row["retires_on"], [float("nan")] * 4
        verdict = "not decided"
        if isinstance(end, str):  # days in ISO form, and "never" after them, are in order as texts
            verdict = "met" if end >= day.isoformat() else "not met"
        wanted = f"service at least until {day}"
        yield "not_retired_before", wanted, *no_figures, verdict, row["lifetime"]


def serving(brief: Project, name: str, revision: str | None) -> str:
    """The command that serves a deployment, or the call that asks it; "" of recorded answers."""
    deployment = next(d for d in brief.deployments if d.name == name)
    end = deployment.endpoint
    if end is None:
        revision_flags = ["--revision", revision] if revision else []
        return shlex.join(["vllm", "serve", deployment.model, *revision_flags])
    if end.gguf:
        repo, file = end.gguf.rsplit("/", 1)
        return shlex.join(["llama-server", "--hf-repo", repo, "--hf-file", file])
    if not (end.base_url or end.base_url_env):  # recorded, or embedded in this package
        return ""
    url, _, query = (end.base_url or f"${end.base_url_env}").partition("?")
    key = f' -H "Authorization: Bearer ${end.api_key_env}"' if end.api_key_env else ""
    body = {"model": end.model or deployment.model, "messages": [{"role": "user", "content": "…"}]}
    text = shlex.quote(json.dumps(body, ensure_ascii=False))
    url = f"{url.rstrip('/')}/chat/completions" + f"?{query}" * bool(query)
    return f'curl "{url}"{key} -H "Content-Type: application/json" -d {text}'


def provenance(brief: Project, table: Frame) -> dict[str, object]:
    """Weights' SHA-256 where we served them, the prices with their dates, the seeds."""
    ours = [d for d in brief.deployments if d.endpoint and d.endpoint.embedded]
    prices = table[["deployment", "hardware", "price", "price_basis"]]
    prices = prices.merge(hardware()[["hardware", "checked_on"]], how="left")
    in_our_list = prices["price_basis"].str.endswith("data/hardware.csv", na=False)
    prices = prices.assign(checked_on=prices["checked_on"].where(in_our_list))
    return {
        "weights": {d.name: str(identity(d)["sha256"]) for d in ours},
        "prices": rows(prices.drop(columns="hardware")),
        "seeds": SEEDS,
    }


def served_models(answers: Frame) -> dict[str, list[str]]:
    """The names that the endpoints said they answered with, by deployment; [] where they do not."""
    names = answers.reindex(columns=["deployment", "served_model"])
    return {
        str(deployment): sorted(set(group.dropna().astype(str)))
        for deployment, group in names.groupby("deployment")["served_model"]
    }
