"""Reranking: documents put into an order by a rerank endpoint or a chat model, and how good it is.

They are shown in an order that depends on their ids alone, so that a file which lists the relevant
ones first gives nothing away.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from lib import plain_text
from lib.brief import Deployment, Name, Project, Section
from lib.endpoints import Call, Item, chat_calls, key_of
from lib.errors import PlaybookError
from lib.evaluate.kinds import defaults, options_of
from lib.evaluate.kinds.defaults import GRADES, Reader, by_metric, json_or_none, visible_or_record
from lib.evaluate.scoring import Figure, metric_row
from lib.json_values import canonical
from lib.lines import validated
from lib.reading import find_label, find_order
from lib.stats import ranking_by_chance, ranking_measures
from lib.tables import rows
from lib.untrusted import as_dict, as_list, as_number

JSON_FIELDS = ("target", "documents")
PLACES = ("document", "documents")
visible = visible_or_record
MARKS = GRADES
WORDINGS = {
    "pointwise": "Query: {input}\nDocument: {document}\n"
    "Does the document answer the query? Answer yes or no.",
    "listwise": "Query: {input}\n{documents}\nPut the documents in order, the most relevant first."
    " Answer with their numbers only, like 2 > 1 > 3.",
}


class Ranking(Section):
    """By a /v1/rerank endpoint, or a chat model asked for all documents at once (`listwise`).

    With `pointwise` it is asked for each document; an answer in `relevant` is a yes.
    """

    method: Literal["rerank", "pointwise", "listwise"] = "pointwise"
    k: int = Field(default=10, ge=1, le=1000)
    relevant: list[Name] = Field(default=["yes"], min_length=1)


class Options(Section):
    """How documents are ranked."""

    ranking: Ranking = Ranking()


class _Document(TypedDict):
    id: Annotated[str, Field(min_length=1)]
    text: Annotated[str, Field(pattern=r"\S")]


DOCUMENTS = TypeAdapter(Annotated[list[_Document], Field(min_length=2)])
Grade = Annotated[int, Field(ge=0, le=1000)]
TARGET = TypeAdapter(Annotated[dict[str, Grade], Field(min_length=1)])


def item_reader(brief: Project) -> Reader:
    """`documents` are texts or `id` and `text`; the target grades them, or lists relevant ids."""
    return _read


def _read(item: dict[str, Any], where: str) -> dict[str, str]:
    # Documents without ids are counted from 1.
    texts = [
        {"id": str(number), "text": document} if isinstance(document, str) else document
        for number, document in enumerate(as_list(item.get("documents")), start=1)
    ]
    checked_documents = validated(DOCUMENTS, texts, where, "documents")
    ids = [document["id"] for document in checked_documents]
    name, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise PlaybookError(f"{where}: the document id {name!r} is used {count} times")
    target = item.get("target")
    if isinstance(target, list) and all(isinstance(name, str) for name in target):
        target = dict.fromkeys(target, 1)
    grades = validated(TARGET, target, where, "target")
    if strange := [name for name in grades if name not in ids]:
        text = f"{where}: target names {strange[0]!r}, which is no document: {', '.join(ids)}"
        raise PlaybookError(text[:400])
    if not any(grades.values()):
        raise PlaybookError(f"{where}: no document is relevant, so every order is as good")
    return {"target": canonical(grades), "documents": canonical(checked_documents)}


def documents(item: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The documents of an item as (id, text), in the order they are shown: by a hash of the ids."""
    texts_by_id = [(str(d["id"]), str(d["text"])) for d in json.loads(item["documents"])]
    return sorted(texts_by_id, key=lambda d: key_of(str(item["item_id"]), d[0]))


def calls_of(brief: Project, deployment: Deployment) -> Callable[[Item], list[Call]]:
    """The calls of an item: one, or pointwise one a document.

    A chat's wording holds the query, `{input}`, and pointwise `{document}`, listwise `{documents}`,
    which becomes a numbered list. For one that is only `{input}`, the default, see `WORDINGS`.
    """
    method = options_of(brief).ranking.method
    if method == "rerank":
        extra = {k: v for k, v in deployment.options.extra_body.items() if v is not None}

        def rerank(item: Item) -> list[Call]:
            texts = [text for _, text in documents(item)]
            body = {"query": item["input"], "documents": texts, "top_n": len(texts), **extra}
            return [Call("", "rerank", body)]

        return rerank
    wording = brief.prompt_of(deployment).user or "{input}"
    wording = WORDINGS[method] if wording.strip() == "{input}" else wording
    place = "{documents}" if method == "listwise" else "{document}"
    if place not in wording:
        text = f"prompt.user must contain {place} where ranking.method is {method!r}"
        raise PlaybookError(f"deployment {deployment.name!r}: {text}")
    chat = chat_calls(brief, deployment, user=wording)

    def calls(item: Item) -> list[Call]:
        in_order = documents(item)
        if method == "pointwise":
            return [chat({**item, "document": text}, name) for name, text in in_order]
        numbered = "\n".join(f"[{n}] {text}" for n, (_, text) in enumerate(in_order, start=1))
        return [chat({**item, "documents": numbered})]

    return calls


def answer_of(brief: Project, item: Item, records: list[tuple[str, Any]]) -> dict[str, Any]:
    """The facts of an item whose documents were ranked, by one call or by one each.

    Several calls have their summed tokens and retries and the longest latency.
    """
    method, first = options_of(brief).ranking.method, records[0][1]
    if method == "listwise":
        return defaults.answer_of(brief, item, records)
    answers = pd.DataFrame([record for _, record in records], dtype=object)
    if failed := [error for error in answers["error"] if error]:
        return {**first, "error": failed[0], "output": None}
    if method == "rerank":
        scores = zip(documents(item), json.loads(first["output"]), strict=False)
        by_id = {name: score for (name, _), score in scores if score is not None}
        return {**first, "output": json.dumps(by_id, ensure_ascii=False)}
    names = ["retries", "prompt_tokens", "completion_tokens", "cached_tokens"]
    # One that is not known makes the sum unknown; records may be older than a name.
    sums = answers.reindex(columns=names).sum(skipna=False).replace({math.nan: None}).to_dict()
    reasons = [*answers["finish_reason"]]
    return {
        **first,
        **sums,
        "output": json.dumps({name: r["output"] for name, r in records}, ensure_ascii=False),
        "finish_reason": next((r for r in reasons if r != "stop"), reasons[0]),
        "latency_s": max(answers["latency_s"].dropna(), default=None),
        "cached": answers["cached"].map(bool).all(),
    }


def _ranking(brief: Project, output: str, names: list[str]) -> tuple[list[str], int] | None:
    """All documents in the order an output puts them, and how much of it was passed over.

    What the output does not mention comes last, and ties stay, in the order shown.
    """
    if options_of(brief).ranking.method == "listwise":
        order = find_order(output, len(names))
        first = [names[number - 1] for number in order or ()]
        return ([*first, *(d for d in names if d not in set(first))], 0) if order else None
    answers = as_dict(json_or_none(output))
    values = {name: _value(brief, answer) for name, answer in answers.items()}
    usable = {name: v for name, v in values.items() if v is not None and name in names}
    ranked = sorted(names, key=lambda name: -usable.get(name, -math.inf))
    return (ranked, len(values) - len(usable)) if usable else None


def _value(brief: Project, answer: Any) -> float | None:
    """How relevant an answer says that one document is; None where it says nothing."""
    if options_of(brief).ranking.method == "rerank":
        return as_number(answer)
    tags = brief.evaluation.reasoning_tags
    text = plain_text.visible(answer, tags) if isinstance(answer, str) else ""
    if not text:
        return None
    return float(find_label(text, options_of(brief).ranking.relevant) is not None)


def score(brief: Project, usable: pd.DataFrame, *, items: pd.DataFrame, **_: Any) -> pd.DataFrame:
    """nDCG@k of each answer's order, which `predicted` has as a JSON list of document ids.

    `detail` has all measures and `passed_over`, how much of the answer named no document.
    """
    k = options_of(brief).ranking.k
    item_of = {item["item_id"]: item for item in rows(items)}
    documents_of = {name: [d for d, _ in documents(item)] for name, item in item_of.items()}
    pairs = zip(usable["item_id"], usable["output"], strict=True)
    ranked = [_ranking(brief, str(output), documents_of[name]) for name, output in pairs]
    # One query per answer: the same item is there once for every deployment.
    orders = {str(n): order[0] for n, order in enumerate(ranked) if order}
    targets = {str(n): item_of[name]["target"] for n, name in enumerate(usable["item_id"])}
    grades = {n: json.loads(targets[n]) for n in orders}
    measures = ranking_measures(grades, orders, k=k).round(6).to_dict("index")
    scored: list[tuple[Any, ...]] = [("unparsed", None, 0.0, "")] * len(ranked)
    for n, order in enumerate(ranked):
        if order is not None:
            detail = json.dumps({**measures[str(n)], "passed_over": order[1]})
            predicted = json.dumps(order[0], ensure_ascii=False)
            scored[n] = ("answered", predicted, measures[str(n)][f"nDCG@{k}"], detail)
    columns = ["outcome", "predicted", "score", "detail"]
    return pd.DataFrame(scored, columns=columns, index=usable.index)


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """nDCG@k (primary), MRR and R@k; an answer that cannot be used scores 0 in all three."""
    k = options_of(brief).ranking.k
    details = [json.loads(text or "{}") for text in scored["detail"]]
    rest = [metric_row(n, [d.get(n, 0.0) for d in details], scored) for n in ("MRR", f"R@{k}")]
    return [metric_row(f"nDCG@{k}", scored["score"], scored), *rest]


def figure(
    brief: Project, scored: pd.DataFrame, scores: pd.DataFrame, *, items: Any, **_: Any
) -> Figure:
    """The three measures, and what an order drawn at random would score."""
    k = options_of(brief).ranking.k
    names = {name: name for name in (f"nDCG@{k}", "MRR", f"R@{k}")}
    tables = by_metric(scores, names, f"nDCG@{k}")
    chance = [
        ranking_by_chance(json.loads(item["target"]), [d for d, _ in documents(item)], k=k)
        for item in rows(items)
    ]
    title = "How good the order is; dashed: an order drawn at random"
    references = pd.DataFrame(chance).mean().to_dict()
    return "multiples", {"tables": tables, "title": title, "references": references}
