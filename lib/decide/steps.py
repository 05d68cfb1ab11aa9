"""What happened on the way to the decision: how many models each rule left, and who served."""

import json
import shlex

import pandas as pd

from lib.brief import Project
from lib.endpoints import identity, model_objection
from lib.tables import hardware, rows

Frame = pd.DataFrame
# Of every random draw: resampled items, arrivals of requests, chances, and what more items give.
SEEDS = {"bootstrap": 0, "arrivals": 0, "chances": 0, "more_items": 1}


def funnel(
    shortlist: Frame, metadata: Frame, verdicts: Frame, table: Frame
) -> list[dict[str, object]]:
    """How many were left after each step: `step left of`, models first and then deployments."""
    allowed = ~shortlist["why"].str.startswith("step 1") | shortlist["shortlisted"]
    clear = pd.Series([not model_objection(row) for row in rows(metadata)], metadata.index, bool)
    clear &= ~metadata["verdict"].isin(["review", "blocked"])
    deployed = clear & metadata["repo_id"].isin(verdicts["repo_id"])
    counts = [
        ("in the catalogue or the brief", len(shortlist), "models"),
        ("whose licence and country the policy allows", int(allowed.sum()), "models"),
        ("of the size", int(shortlist["shortlisted"].sum()), "models"),
        ("with nothing against them on the Hub", int(clear.sum()), "models"),
        ("with a deployment in the brief", int(deployed.sum()), "models"),
        ("asked or quoted", int(verdicts["admitted"].eq("yes").sum()), "deployments"),
        ("that qualify", int(table["qualifies"].eq("yes").sum()), "deployments"),
    ]
    return [{"step": step, "left": left, "of": of} for step, left, of in counts]


def serving(brief: Project, name: str, revision: str | None) -> str:
    """The command that serves a deployment, or the call that asks it; "" of recorded answers."""
    deployment = next(d for d in brief.deployments if d.name == name)
    end = deployment.endpoint
    if end is None:
        pinned = ["--revision", revision] if revision else []
        return shlex.join(["vllm", "serve", deployment.model, *pinned])
    if end.gguf:
        repo, file = end.gguf.rsplit("/", 1)
        return shlex.join(["llama-server", "--hf-repo", repo, "--hf-file", file])
    if not (end.base_url or end.base_url_env):  # recorded, or embedded in this package
        return ""
    url = end.base_url or f"${end.base_url_env}"
    key = f' -H "Authorization: Bearer ${end.api_key_env}"' if end.api_key_env else ""
    body = {"model": end.model or deployment.model, "messages": [{"role": "user", "content": "…"}]}
    text = shlex.quote(json.dumps(body, ensure_ascii=False))
    return f'curl "{url}/chat/completions"{key} -H "Content-Type: application/json" -d {text}'


def provenance(brief: Project, table: Frame) -> dict[str, object]:
    """Weights' SHA-256 where we served them, the prices with their dates, the seeds."""
    ours = [d for d in brief.deployments if d.endpoint and d.endpoint.embedded]
    prices = table[["deployment", "hardware", "price", "price_basis"]]
    prices = prices.merge(hardware()[["hardware", "checked_on"]], how="left")
    listed = prices["price_basis"].str.endswith("data/hardware.csv", na=False)
    prices = prices.assign(checked_on=prices["checked_on"].where(listed))
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
