"""Before anything is asked: all that would fail later at once, a first call each, a new project."""

import contextlib
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from pydantic import ValidationError

from lib import artifacts, endpoints, evaluate, hub, legal, sizing, speed, tables
from lib.brief import Deployment, Project
from lib.endpoints import Call
from lib.errors import PlaybookError, in_one_list

PROJECTS = tables.DATA / "projects"
TEMPLATE = "hosted-template"
HELLO = {"messages": [{"role": "user", "content": "Answer with the one word ok."}]}
ASKED = "deployment served_model works output prompt_tokens completion_tokens latency_s".split()
FORECAST = "calls usd_high minutes".split()


def problems(brief: Project) -> list[str]:
    """A sentence for everything in a project that would fail in a later step; nothing is sent."""
    sentences, hardware = list[str](), tables.hardware()

    def attempt(check: Callable[..., Any], *args: Any) -> Any:
        try:
            return check(*args)
        except PlaybookError as error:
            sentences.append(str(error).removeprefix(f"{brief.file}: "))
        except ValidationError:
            return None  # of the kind's options: `evaluate.problems` says why

    in_projects = brief.folder.parent == PROJECTS.resolve()
    if in_projects and Path(brief.file).name == "project.yaml" and brief.folder.name != brief.name:
        where = f"its runs would go to runs/{brief.name}/, those of another project"
        sentences.append(f"name: {brief.name} lies in the folder {brief.folder.name}: {where}")
    # Models, licences and sizes by their names.
    models = attempt(hub.catalogue, brief)
    if models is not None:
        attempt(legal.judge, models, tables.licenses(), brief)
        sentences += hub.unknown_models(brief, models) if brief.candidates.source != "hub" else []
    attempt(sizing.wanted_tiers, brief.size, tables.closed_models())
    # Items and other files beside the brief.
    items = attempt(evaluate.load_items, brief) if brief.evaluation.items else None
    ids = [] if items is None else items["item_id"].tolist()
    attempt(evaluate.load_labelled, brief)
    for deployment in brief.deployments:
        if deployment.endpoint and deployment.endpoint.recorded:
            attempt(endpoints.recorded_answers, deployment, brief.folder, ids)
        for file in deployment.load_results:
            alone = deployment.model_copy(update={"load_results": [file]})
            attempt(speed.load_results, brief, [alone])
        # Prices and options.
        attempt(endpoints.price_of, deployment, hardware)
        attempt(endpoints.request_options, brief, deployment)
    return sentences


def unset_keys(brief: Project) -> list[str]:
    """A sentence for each deployment, and the judge, whose key or URL is not in the environment."""
    judge = brief.evaluation.judge
    endpoint_of = [(f"deployment {d.name!r}", d.endpoint) for d in _live(brief)]
    endpoint_of += [("evaluation.judge", judge.endpoint)] if judge else []
    names = [(who, n) for who, e in endpoint_of if e for n in (e.api_key_env, e.base_url_env) if n]
    hint = "is not set; export it in the shell that runs this, never in the brief"
    lacks = [(who, name) for who, name in names if not os.environ.get(name)]
    return [f"{who}: the environment variable {name} {hint}" for who, name in lacks]


def secrets(brief: Project) -> list[str]:
    """The Hub's token, and the secrets of all endpoints the brief names: those worth a search."""
    judge = brief.evaluation.judge
    every = [d.endpoint for d in brief.deployments] + ([judge.endpoint] if judge else [])
    texts = [os.environ.get("HF_TOKEN", "")]
    for one in filter(None, every):
        url = os.environ.get(one.base_url_env or "", "")
        texts += endpoints.Served(url, "", one.api_key_env).secrets
    return [text for text in dict.fromkeys(texts) if len(text) >= 8]  # one of "x" is in any text


def notes(brief: Project) -> list[str]:
    """A sentence for what a run can do without, but its reader would miss."""
    template = "task: still the template's; say what yours is, and put your own items in"
    texts, items = [template] if "(replace this" in brief.task else [], pd.DataFrame()
    with contextlib.suppress(PlaybookError):  # which is among the problems
        items = evaluate.load_items(brief)
    talks: list[str] = items["messages"].dropna().tolist() if "messages" in items else []
    n = sum('"role": "system"' in turns or '"role": "developer"' in turns for turns in talks)
    if brief.evaluation.prompt.system and n:
        way = "takes the place of the system turn that they have; leave it out to send theirs"
        texts.append(f"{n} conversations: evaluation.prompt.system {way}")
    for deployment in brief.deployments:
        lines = list[dict[str, Any]]()
        if len(items) and deployment.endpoint and deployment.endpoint.recorded:
            with contextlib.suppress(PlaybookError):
                ids = items["item_id"].tolist()
                lines = endpoints.recorded_answers(deployment, brief.folder, ids)
        answers = [line for line in lines if line["output"] is not None or not line["error"]]
        if n_lacking := len(lines) - len(answers):
            few = "above 2 % its score is not comparable"
            rest = f"{n_lacking} of {len(lines)} items have no recorded answer; {few}"
            texts.append(f"deployment {deployment.name!r}: {rest}")
        by_token = deployment.price and not deployment.price.usd_per_hour
        if by_token and any(line["completion_tokens"] is None for line in answers):
            need = "prompt_tokens and completion_tokens to every line for its cost"
            texts.append(f"deployment {deployment.name!r}: add {need}")
    return texts


def refuse(brief: Project, sentences: Iterable[str], *, then: str = "") -> None:
    """PlaybookError that lists the problems of a brief, where there are any."""
    if texts := list(sentences):
        raise PlaybookError(f"{brief.file}: {in_one_list(texts)}{then}")


def _live(brief: Project) -> list[Deployment]:
    """The deployments that are asked: neither published nor recorded."""
    measurable = [d for d in brief.deployments if d.endpoint and not d.published]
    return [d for d in measurable if d.endpoint and not d.endpoint.recorded]


def anyone_left(brief: Project, run: Path) -> None:
    """PlaybookError where steps 1 to 3 let no deployment through that could be chosen."""
    if (run / "03_metadata.parquet").exists():
        short, metadata = (artifacts.load(run, f"0{n}") for n in ("2_shortlist", "3_metadata"))
        endpoints.admitted(brief, endpoints.admit(brief, short, metadata))


def objections(brief: Project) -> dict[str, str]:
    """Why the policy bars a deployment, by its name; what only the Hub knows is open."""
    hosts = {d.name: legal.host_objection(d, brief.policy) for d in brief.deployments}
    reasons = {name: f"not asked: {why}" for name, why in hosts.items() if why}
    with contextlib.suppress(PlaybookError):  # which is among the problems
        verdicts = legal.judge(hub.catalogue(brief), tables.licenses(), brief)
        out = verdicts[verdicts["verdict"].isin(["review", "blocked"])].set_index("repo_id")
        by_model = (out["verdict"] + ": " + out["reasons"]).to_dict()
        candidates = [d for d in brief.deployments if not d.baseline and d.model in by_model]
        reasons |= {d.name: f"not asked, step 1: {by_model[d.model]}" for d in candidates}
    return reasons


def check(brief: Project) -> tuple[pd.DataFrame, list[str]]:
    """Ask each live endpoint one call; a row each with what a run will take, and all problems.

    What the licence or the policy bars is not called, and its row says why. Minutes are about: the
    calls of step 4 at the latency of this one call, and what the loads of step 5 may take.
    """
    sentences = [*problems(brief), *unset_keys(brief), *filter(None, [hub.token_problem()])]
    judge, faults, items = brief.evaluation.judge, " ".join(sentences), pd.DataFrame()
    with contextlib.suppress(PlaybookError):  # which is among the problems
        items = evaluate.load_items(brief)
    reasons = objections(brief)
    ready = [d for d in _live(brief) if f"deployment {d.name!r}" not in faults]
    ready = [d for d in ready if d.name not in reasons]
    run = artifacts.runs_root() / brief.name
    plans = [pd.DataFrame(columns=["deployment", *FORECAST, "cached"])] * 2
    if len(items) and ready:
        plans = [evaluate.dry_run(brief, ready, items, run)]
        plans += [speed.dry_run(brief, items, ready, run)]
    judges = [evaluate.as_deployment(judge)] if judge and "evaluation.judge:" not in faults else []
    table: list[dict[str, Any]] = [{"deployment": n, "works": why} for n, why in reasons.items()]
    if reasons and not {d.name for d in brief.deployments if not d.baseline} - reasons.keys():
        sentences.append("deployments: the policy lets nobody through who could be chosen")
    for deployment in ready + judges:
        few = items.head(0 if deployment in judges else 1)
        row = _first_call(brief, deployment, few)
        if not row["works"].startswith("yes"):
            sentences.append(f"{deployment.name}: {row['works']}")
        table.append(row | _forecast(brief, deployment, plans, row.get("latency_s") or 0.0))
    return pd.DataFrame(table, columns=[*ASKED, *FORECAST]), sentences


def _first_call(brief: Project, deployment: Deployment, items: pd.DataFrame) -> dict[str, Any]:
    """The first call about the items through the client of step 4; without items a greeting."""
    patient = {"max_retries": 0, "max_usd": None}
    alone = brief.model_copy(update={"evaluation": brief.evaluation.model_copy(update=patient)})
    row = {"deployment": deployment.name}
    greeting = Call("hello", "chat", HELLO | endpoints.request_options(brief, deployment))
    try:
        calls = evaluate.plan(brief, deployment, items) if len(items) else [greeting]
        call = next(iter(calls))
        with TemporaryDirectory() as folder:
            jobs = [(deployment, [call])]
            record = endpoints.perform(jobs, Path(folder), brief=alone, progress=False)[call.key]
            outcome = "answered"
            if len(items) and not record["error"]:
                outcome = evaluate.first_outcome(alone, deployment, items, Path(folder))
    except PlaybookError as error:
        text = str(error).partition("; answers are kept")[0]  # here none is
        return row | {"works": text.removeprefix(f"deployment {deployment.name!r}: ")}
    served = record.get("served_model") or record["served"]
    works = "yes" if outcome == "answered" else f"yes, but this answer does not count: {outcome}"
    return record | row | {"served_model": served, "works": record["error"] or works}


def _forecast(
    brief: Project, deployment: Deployment, plans: list[pd.DataFrame], latency_s: float
) -> dict[str, Any]:
    """The most calls and dollars, and about how many minutes, of steps 4 and 5."""
    columns, name = ["calls", "cached", "usd_high"], deployment.name
    answers, loads = (p.loc[p["deployment"] == name, columns].astype(float).sum() for p in plans)
    local = deployment.endpoint and deployment.endpoint.local
    at_once = 1 if local else deployment.limits.concurrency or brief.evaluation.concurrency
    pace_s = 60 / (deployment.limits.requests_per_minute or math.inf)
    seconds = (answers["calls"] - answers["cached"]) * max(latency_s / at_once, pace_s)
    seconds += speed.seconds_allowed(brief, latency_s) if loads["calls"] else 0.0
    usd = answers["usd_high"] + loads["usd_high"]
    with contextlib.suppress(PlaybookError):  # a judge's price need not be known
        hourly = endpoints.price_of(deployment, tables.hardware()).usd_per_hour
        usd += (hourly or 0.0) * seconds / 3600
    calls = int((answers + loads)["calls"] - answers["cached"] - loads["cached"])
    return {"calls": calls, "usd_high": usd, "minutes": seconds / 60}


def new(name: str) -> Path:
    """Write `data/projects/<name>/`, ready to run, and return it; nothing there is overwritten."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise PlaybookError(f"{name!r} is no name for a project: a-z, 0-9, dots and dashes, please")
    folder = PROJECTS / name
    if folder.exists():
        raise PlaybookError(f"{artifacts.path_name(folder)} is there already; choose another name")
    with artifacts.writing(folder):
        shutil.copytree(PROJECTS / TEMPLATE, folder)
        for path in (folder / "project.yaml", folder / "README.md"):
            path.write_text(path.read_text("utf-8").replace(TEMPLATE, name), "utf-8")
    return folder
