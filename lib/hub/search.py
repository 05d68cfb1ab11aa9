"""Candidates from the whole Hub instead of the catalogue, as rows of the catalogue."""

import math
import re
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import pandas as pd

from lib import tables
from lib.brief import Project
from lib.errors import PlaybookError, did_you_mean, in_one_list
from lib.hub.client import Client
from lib.hub.listing import Repo, Wanted, look_up, queries, read_list
from lib.hub.models import GENERATIONS
from lib.legal import CLASSES, base_names, class_of, keys_on_hub
from lib.sizing import BOUNDS, wanted_tiers
from lib.tables import Row, rows

# These answer text as well; the Hub lists most of today's general models under the second.
CHAT = ["text-generation", "image-text-to-text"]
MODALITY = {"text-generation": "text"} | dict.fromkeys(
    ("image-text-to-text", "any-to-any", "audio-text-to-text", "video-text-to-text"), "multimodal"
)
ATTESTED = "attested in project.yaml"
# What a fine-tune has in common with its base.
OF_BASE = """family license modality total_params_b active_params_b context_length layers kv_heads
    head_dim kv_layout""".split()


def candidates(brief: Project, *, today: date | None = None) -> tuple[pd.DataFrame, str]:
    """The catalogue, or what the brief wants of the whole Hub, and that in one sentence.

    A PlaybookError where the Hub cannot be read, or nothing passes.
    """
    dates, as_of = tables.models()["checked_on"], (today or date.today()).isoformat()
    models = catalogue(brief, as_of=as_of)
    if brief.candidates.source == "hub":
        models, note = _on_hub(brief, models, as_of)
    else:
        facts = f"facts of {dates.min()} to {dates.max()}"
        note = f"{len(dates)} models of data/models.csv, {facts}"
        note += f", and {len(brief.models)} {ATTESTED}" if brief.models else ""
    if problems := unknown_models(brief, models):
        raise PlaybookError(f"{brief.file}: {in_one_list(problems)}")
    return models, note


def catalogue(brief: Project, *, as_of: str = "") -> pd.DataFrame:
    """The shipped catalogue and the brief's own `models`, as rows of it.

    What an own row leaves out it has from its first base: a fine-tune keeps the shape and, as far
    as nobody says otherwise, the licence. Its country is its own. One that is in the catalogue, or
    there twice, is a PlaybookError.
    """
    shipped_models, rows_of_brief = tables.models(), list[Row]()
    by_name = {row["repo_id"].lower(): row for row in rows(shipped_models)}
    for model in brief.models:
        name, owner = model.repo_id.lower(), model.repo_id.split("/")[0]
        if name in by_name:
            text = f"models: {model.repo_id} is in data/models.csv already, or here twice"
            raise PlaybookError(f"{brief.file}: {text}; take the row out of the brief")
        base = by_name.get((model.base_model or "").split(";")[0].strip().lower(), {})
        row = {"family": owner, "developer": owner, "listed_for": "choice"}
        row |= {key: base[key] for key in OF_BASE if base.get(key) is not None}
        row |= {"source": ATTESTED, "source_url": Path(brief.file).name, "checked_on": as_of}
        row |= model.model_dump(mode="json", exclude_none=True)
        rows_of_brief.append(by_name.setdefault(name, row))
    table = pd.DataFrame(rows_of_brief, columns=shipped_models.columns)
    table = table.astype(shipped_models.dtypes)
    return pd.concat([shipped_models, table], ignore_index=True) if len(table) else shipped_models


def unknown_models(brief: Project, models: pd.DataFrame) -> list[str]:
    """A sentence for each deployment but the baseline whose model nobody knows."""
    known_ids, problems = [*models["repo_id"]], []
    for deployment in (d for d in brief.deployments if not d.baseline):
        if (name := deployment.model) in known_ids:
            continue
        hint = did_you_mean(name, known_ids, most=3, otherwise="none is near it.")
        line = f"{{repo_id: {name}, base_model: …, license: …, country: …, total_params_b: …}}"
        problems.append(
            f"deployment {deployment.name!r}: neither data/models.csv nor the brief knows"
            f" {name!r}; {hint} If it is your own, add it to the brief: models: [{line}]"
        )
    return problems


def _on_hub(brief: Project, catalogue: pd.DataFrame, as_of: str) -> tuple[pd.DataFrame, str]:
    """The most popular, the models the brief names, and all bases; the catalogue's rows stay."""
    licenses, hub = tables.licenses(), Client(timeout_s=30.0)
    wanted = _search_terms(brief, catalogue, licenses)
    # One list per licence, task and range of sizes, put together; the most popular first.
    lists = list(hub.each(partial(read_list, hub, wanted), queries(wanted)))
    repos = {repo["repo_id"].lower(): repo for passing, _ in lists for repo in passing}
    order = sorted(repos.values(), key=lambda r: (-r["score"], -r["downloads"], r["repo_id"]))
    originals = [repo["repo_id"] for repo in order if not repo["copy"]][: wanted.rest.limit]
    if not originals:
        way = "loosen candidates, or set candidates.source to catalogue"
        raise PlaybookError(f"candidates: nothing in the Hub API passes ({wanted}); {way}")
    # Rows by lower-case name: the catalogue's, or else as the Hub describes a repository.
    describe = describer(catalogue, licenses, as_of)
    rows_by_name: dict[str, Row | None] = {key: describe(repo) for key, repo in repos.items()}
    rows_by_name |= {row["repo_id"].lower(): row for row in rows(catalogue)}
    table: dict[str, Row] = {}

    def add(names: list[str], **changes: str) -> int:
        """Add what is not there yet and is to be had; how many that were."""
        new = {name.lower(): name for name in names if name.lower() not in table}
        unknown = {key: name for key, name in new.items() if key not in rows_by_name}
        answers = hub.each(partial(look_up, hub), unknown.values())
        for key, repo in zip(unknown, answers, strict=True):
            rows_by_name[key] = describe(repo) if repo else None
        before = len(table)
        table.update({key: row | changes for key in new if (row := rows_by_name[key])})
        return len(table) - before

    in_brief = [deployment.model for deployment in brief.deployments]
    in_brief += [exception.model for exception in brief.exceptions]
    counts = [add(originals), add(in_brief), 0]
    for _ in range(GENERATIONS):
        made_from = [base for row in table.values() for base in base_names(row["base_model"])]
        counts[2] += add(made_from, listed_for="lineage")
    # What was found and left out, in words.
    copies = sum(repo["copy"] for repo in order)
    note = (
        f"{counts[0]:,} candidates from the Hub API of {as_of};"
        f" {copies:,} quantised copies, adapters and GGUF-only repositories left out;"
        f" {counts[1]} more named in the brief, {counts[2]} base models"
    )
    if not_on_hub := [name for name in dict.fromkeys(in_brief) if name.lower() not in table]:
        note += f"; not found: {', '.join(not_on_hub)}"
    if cut := sum(not complete for _, complete in lists):
        note += f"; {cut} of {len(lists)} lists were longer than could be read: raise min_downloads"
    models = pd.DataFrame(list(table.values()), columns=catalogue.columns)
    return models.astype(catalogue.dtypes), note


def _search_terms(brief: Project, catalogue: pd.DataFrame, licenses: pd.DataFrame) -> Wanted:
    """The brief's `candidates`, with licences and sizes derived where they are left out."""
    rest, on_hub = brief.candidates, keys_on_hub(rows(licenses))
    stated = rest.licenses or brief.policy.licenses
    texts = licenses[licenses["license"].isin(stated) | licenses["license_class"].isin(stated)]
    names = [name for name, keys in on_hub.items() if texts["license"].isin(keys).any()]
    for name in stated:
        if name in {*licenses["license"], *licenses["license_class"]}:
            continue
        choices = {*CLASSES, *licenses["license"], *on_hub, "other"}
        if name not in choices and class_of(name, {}) == CLASSES[-1]:
            hint = did_you_mean(name, sorted(choices), most=3, otherwise="add it there")
            text = f"{name!r} is not in data/licenses.csv; {hint}"
            raise PlaybookError(f"candidates.licenses: {text}")
        names.append(name.lower())
    others = texts[texts["hub_license"].str.contains(r"\bother\b", na=False)]
    has_text = catalogue["license"].isin(others["license"])
    return Wanted(
        licenses=names,
        known_ids=set(catalogue.loc[has_text, "repo_id"].str.lower()),
        tasks=CHAT if rest.task == CHAT[0] else [rest.task] if rest.task else [],
        sizes=_sizes(brief),
        rest=rest,
    )


def _sizes(brief: Project) -> list[tuple[float, float]]:
    """The tiers' ranges; a bound that the brief gives makes them one."""
    rest, tiers = brief.candidates, wanted_tiers(brief.size, tables.closed_models())
    ranges = [] if "between" in tiers else [BOUNDS[tier] for tier in tiers]
    if rest.min_params_b is None and rest.max_params_b is None:
        return ranges
    low = rest.min_params_b or (ranges[0][0] if ranges else 0.0)
    high = rest.max_params_b or (ranges[-1][1] if ranges else math.inf)
    if low > high:
        way = "give min_params_b and max_params_b, or another size.tier"
        raise PlaybookError(f"candidates: no size lies from {low:g}B to {high:g}B; {way}")
    return [(low, high)]


def describer(catalogue: pd.DataFrame, licenses: pd.DataFrame, as_of: str) -> Callable[[Repo], Row]:
    """What makes a row of a repository that the catalogue lacks; blank where nobody says."""
    people = catalogue.assign(owner=catalogue["repo_id"].str.lower().str.partition("/")[0])
    people = people.drop_duplicates(["owner", "developer", "country"])
    by_owner = {row["owner"]: row for row in rows(people.drop_duplicates("owner", keep=False))}
    families = sorted(catalogue["family"].unique(), key=len, reverse=True)
    on_hub = keys_on_hub(rows(licenses))

    def row(repo: Repo) -> Row:
        repo_id = repo["repo_id"]
        owner, name = repo_id.split("/", 1)
        person = by_owner.get(owner.lower(), {"developer": owner, "country": None})
        of_family = (f for f in families if re.match(rf"(?i:{re.escape(f)})(?![a-z])", name))
        return {
            "repo_id": repo_id,
            "family": next(of_family, owner),  # Qwen3-8B is a Qwen; Yijing-7B is not a Yi
            "developer": person["developer"],
            "country": person["country"],
            "license": _license(repo, on_hub),
            "hub_license": repo["license_on_hub"],
            "hub_params_b": repo["params_b"] or repo["gguf_params_b"],
            "modality": MODALITY.get(repo["task"] or ""),
            "base_model": repo["base_models"],
            "listed_for": "choice",
            "source_url": f"https://huggingface.co/{repo_id}",
            "source": f"Hub API, {as_of}",
            "checked_on": as_of,
        }

    return row


def _license(repo: Repo, on_hub: dict[str, list[str]]) -> str | None:
    """The key of the licence table; none where that could be several."""
    name = f"other: {repo['license_name']}" if repo["license_name"] else repo["license_on_hub"]
    name = str(name or "").lower()
    standard = name != "other" and re.fullmatch(r"[\w.+-]+", name)
    keys = on_hub.get(name, [name] if standard else [])  # the table lacks some standard licences
    return keys[0] if len(keys) == 1 else None
