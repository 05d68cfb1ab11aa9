"""The Hub's own list of models, asked query by query for what a brief wants."""

import math
import re
from itertools import product
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from huggingface_hub import constants

from lib.brief import Candidates
from lib.errors import PlaybookError
from lib.hub.client import Client, Failed, Unreachable, host
from lib.hub.model_info import page_facts, valid_id
from lib.legal import base_names
from lib.untrusted import as_dict, as_list, as_number, as_text

EXPAND = """baseModels cardData downloads gguf likes pipeline_tag safetensors tags
    trendingScore""".split()
SORTS = {"downloads": "downloads", "likes": "likes", "trending": "trendingScore"}
PAGES = 10  # read of a list at most; the anonymous quota is 500 requests in five minutes
FORMAT = re.compile(r"(?i)awq|gptq|gguf|exl\d|bnb|mlx|qat|onnx|fp[48]|int[48]|[2-8]-?bit|w\da\d")
MISSING = (401, 403, 404, 410)
PROBLEMS = dict.fromkeys((401, 403), "the Hub refuses HF_TOKEN; check or unset it")
PROBLEMS[400] = "the Hub refuses the query; check candidates.task and candidates.provider"
Repo = dict[str, Any]


class Wanted(NamedTuple):
    """What is asked of the Hub; sizes are ranges in billions, of which one must hold.

    Licences have the Hub's names, `other: name` where the tag is `other`; `known_ids` are those
    repositories with that tag which the catalogue knows as one of them.
    """

    licenses: list[str]
    known_ids: set[str]
    tasks: list[str]
    sizes: list[tuple[float, float]]
    rest: Candidates

    def __str__(self) -> str:
        sizes = " or ".join(f"{low:g}-{high:g}B" for low, high in self.sizes) or "any"
        return (
            f"licences {', '.join(self.licenses)}; sizes {sizes}; task"
            f" {' or '.join(self.tasks) or 'any'}; provider {self.rest.provider or 'any'};"
            f" at least {self.rest.min_downloads:,} downloads"
        )


def queries(wanted: Wanted) -> list[dict[str, Any]]:
    """One for each licence, task and range of sizes: a query cannot say "or"."""
    tags = [f"license:{name.partition(': ')[0]}" for name in wanted.licenses]
    tags += ["license:other"] * bool(wanted.known_ids)
    ranges = [{"min": low, "max": high} for low, high in wanted.sizes] or [{}]
    return [
        {
            "filter": [tag],
            "pipeline_tag": task,
            "num_parameters": ",".join(
                f"{bound}:{_count(size)}" for bound, size in sizes.items() if 0 < size < math.inf
            ),
            "inference_provider": wanted.rest.provider or "",
            "sort": SORTS[wanted.rest.sort],
            "limit": min(max(wanted.rest.limit, 100), 1000),
            "expand": EXPAND,
        }
        for tag, task, sizes in product(dict.fromkeys(tags), wanted.tasks or [""], ranges)
    ]


def _count(billions: float) -> str:
    """As the Hub writes it: 32B, or 500M where it is no whole number."""
    return f"{billions:.0f}B" if billions == int(billions) else f"{billions * 1000:.0f}M"


def read_list(hub: Client, wanted: Wanted, query: dict[str, Any]) -> tuple[list[Repo], bool]:
    """What passes of one list, and whether it was read as far as it matters."""
    rest, passing = wanted.rest, list[Repo]()
    query = {key: value for key, value in query.items() if value}
    for _ in range(PAGES):
        answer, onward = _ask(hub, "", query)
        repos = [repo for raw in as_list(answer) if (repo := _repo(raw, SORTS[rest.sort]))]
        for repo in repos:
            by_name = "other" in repo["licenses"] and repo["repo_id"].lower() in wanted.known_ids
            if by_name or not repo["licenses"].isdisjoint(wanted.licenses):
                passing += [repo] * (repo["downloads"] >= rest.min_downloads)
        ended = rest.sort == "downloads" and repos and repos[-1]["downloads"] < rest.min_downloads
        if not onward or ended or sum(not repo["copy"] for repo in passing) >= rest.limit:
            return passing, True
        query = parse_qs(urlsplit(onward).query)  # never its host: the token would go with it
    return passing, False


def look_up(hub: Client, repo_id: str) -> Repo | None:
    """A repository by name; None where it is not there to see."""
    answer, _ = _ask(hub, f"/{repo_id}", {"expand": EXPAND}) if valid_id(repo_id) else (None, None)
    repo = _repo(answer, "downloads")
    return repo if repo and repo["repo_id"].lower() == repo_id.lower() else None


def _ask(hub: Client, path: str, query: dict[str, Any]) -> tuple[Any, str | None]:
    """An answer and the next page's URL; nothing for a repository that is not there to see."""
    try:
        return hub.get(f"{constants.ENDPOINT}/api/models{path}", query)
    except Unreachable as error:
        reason = f"{host()} cannot be asked ({error}); check the network and HF_ENDPOINT"
    except Failed as error:
        if path and error.status in MISSING:
            return None, None
        reason = PROBLEMS.get(error.status, str(error))
    raise PlaybookError(f"candidates: {reason}, or set candidates.source to catalogue")


def _repo(raw: object, popularity: str) -> Repo | None:
    """The facts of one repository and how it stands; None where its name is not one's."""
    raw = as_dict(raw)
    repo_id, tags = raw.get("id"), [tag for tag in as_list(raw.get("tags")) if isinstance(tag, str)]
    if not isinstance(repo_id, str) or not valid_id(repo_id) or "/" not in repo_id:
        return None
    facts, relation = page_facts(raw, repo_id), as_dict(raw.get("baseModels")).get("relation")
    licenses = {tag[8:].lower() for tag in tags if tag.startswith("license:")}
    if "other" in licenses and facts["license_name"]:
        licenses.add(f"other: {facts['license_name'].lower()}")
    tagged = [tag.split(":")[1] for tag in tags if re.match(r"base_model:\w+:", tag)]
    kind, owner = relation or next(iter(tagged), None), repo_id.split("/")[0].lower()
    owners = {name.split("/")[0].lower() for name in base_names(facts["base_models"])}
    # Some owners tag the instruct release of their own base so; its name has no number format.
    own_release = kind == "quantized" and owners == {owner} and not FORMAT.search(repo_id)
    gguf_only = not facts["params_b"] and bool(facts["gguf_params_b"] or "gguf" in tags)
    return facts | {
        "repo_id": repo_id,
        "task": as_text(raw.get("pipeline_tag")),
        "licenses": licenses,
        "downloads": facts["downloads"] or 0,
        "score": as_number(raw.get(popularity)) or 0.0,
        "copy": gguf_only or (kind in ("quantized", "adapter") and not own_release),
    }
