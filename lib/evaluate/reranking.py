"""Reranking: documents put into an order by a rerank endpoint or a chat model, and how good it is.

The documents of an item are always shown in an order that depends on their ids alone, never on
the file, so a file that lists the relevant ones first gives nothing away: a model that says yes to
everything scores what chance scores (`by_chance`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import ir_measures
import pandas as pd
from ir_measures import RR, R, nDCG

from lib.brief.project import Deployment, Project
from lib.endpoints import store
from lib.errors import PlaybookError
from lib.evaluate.labels import find_label
from lib.evaluate.scoring import measured, visible

__all__ = [
    "by_chance",
    "documents",
    "metrics",
    "parse_order",
    "prompts",
    "ranking_measures",
    "score",
]

Order = list[str]
POINTWISE = (
    "Query: {input}\nDocument: {document}\nDoes the document answer the query? Answer yes or no."
)
LISTWISE = (
    "Query: {input}\n{documents}\nPut the documents in order, the most relevant first."
    " Answer with their numbers only, like 2 > 1 > 3."
)
MAX_ANSWER = 20_000  # characters of an answer that are read
NUMBER = r"\[?[0-9]{1,6}\]?"
CHAIN = re.compile(rf"(?<![0-9]){NUMBER}(?:\s*[>,]\s*{NUMBER})+")
NOUN = re.compile(r"(?i)(?:documents?|docs?|passages?)\s*#?(?=\s*\[?[0-9])")


def documents(item: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The documents of an item as (id, text), in the order they are shown to every model.

    The order is that of a hash of item and document id: the same in every run, on every
    machine, and independent of the order in the file.
    """
    shown = [(str(d["id"]), str(d["text"])) for d in json.loads(item["documents"])]
    return sorted(shown, key=lambda d: store.key_of(str(item["item_id"]), d[0]))


def prompts(
    brief: Project, deployment: Deployment, item: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """The user turns of an item as (part, text): one a document, or one for all of them.

    `{input}` is the query; pointwise a wording holds `{document}` too, listwise `{documents}`,
    which becomes a numbered list. A wording that is only `{input}`, the brief's default, is
    replaced by the module's own. Placeholders inside a query or a document stay as they are.

    Returns:
        Pointwise (document id, text) for each document; listwise one ("", text).

    Raises:
        PlaybookError: The wording has no place for the documents.
    """
    method = brief.evaluation.ranking.method
    place, default = (
        ("{documents}", LISTWISE) if method == "listwise" else ("{document}", POINTWISE)
    )
    wording = brief.prompt_of(deployment).user or "{input}"
    wording = default if wording.strip() == "{input}" else wording
    if place not in wording:
        raise PlaybookError(
            f"deployment {deployment.name!r}: prompt.user must contain {place}"
            f" because ranking.method is {method!r}"
        )
    query, shown = str(item["input"]), documents(item)
    if method == "listwise":
        listed = "\n".join(f"[{n}] {text}" for n, (_, text) in enumerate(shown, start=1))
        return [("", _filled(wording, {"input": query, "documents": listed}))]
    return [(name, _filled(wording, {"input": query, "document": text})) for name, text in shown]


def _records(items: pd.DataFrame) -> list[dict[str, Any]]:
    columns = [str(name) for name in items.columns]
    rows = items.itertuples(index=False, name=None)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _filled(wording: str, values: Mapping[str, str]) -> str:
    # In one pass: a query that says {document} must not be given one.
    return re.sub(r"\{(\w+)\}", lambda m: values.get(m[1], m[0]), wording)


def parse_order(text: str, n: int) -> tuple[list[int], int] | None:
    """The order a listwise answer gives: numbers from 1 to n, each once, and how many it spoils.

    Read are, in this order: the longest chain such as `2 > 1 > 3`, `[2] > [1]` or `[2, 1, 3]`
    (of equally long ones the last), all numbers in brackets, or an answer of numbers alone.
    Numbers that are there twice or that no document has are passed over and counted.

    Returns:
        The numbers and the count of those passed over; None where nothing is usable.
    """
    answer = NOUN.sub("", text[:MAX_ANSWER])
    chains = [re.findall(r"[0-9]+", chain) for chain in CHAIN.findall(answer)]
    numbers: list[str] = max(reversed(chains), key=len, default=[])
    numbers = numbers or re.findall(r"\[([0-9]{1,6})\]", answer)
    if not numbers and re.fullmatch(r"[0-9\s]+", answer):
        numbers = re.findall(r"[0-9]{1,6}", answer)
    order = [number for number in dict.fromkeys(map(int, numbers)) if 1 <= number <= n]
    return (order, len(numbers) - len(order)) if order else None


def _ranked(brief: Project, output: str, shown: Order) -> tuple[Order, int] | None:
    """All documents in the order an output puts them, and how much of it was passed over.

    What the output does not mention comes last, and ties stay, in the order shown.
    """
    ranking = brief.evaluation.ranking
    if ranking.method == "listwise":
        parsed = parse_order(output, len(shown))
        named, spoilt = parsed or ([], 0)
        first = [shown[number - 1] for number in named]
        return ([*first, *(d for d in shown if d not in set(first))], spoilt) if parsed else None
    try:
        answers = json.loads(output)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answers, dict):
        return None
    if ranking.method == "pointwise":
        tags = brief.evaluation.reasoning_tags
        read = {d: visible(a, tags) for d, a in answers.items() if isinstance(a, str)}
        said = {d: a[:MAX_ANSWER] for d, a in read.items() if a}
        value = {d: float(find_label(a, ranking.relevant) is not None) for d, a in said.items()}
    else:
        value = {d: float(v) for d, v in answers.items() if _is_number(v)}
    usable = {d: v for d, v in value.items() if d in set(shown)}
    order = sorted(shown, key=lambda d: -usable.get(d, -math.inf))
    return (order, len(answers) - len(usable)) if usable else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def score(
    brief: Project,
    asked: pd.DataFrame,
    *,
    items: pd.DataFrame | None = None,
    graded: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """nDCG@k of each answer's order, for `scoring.score_answers`.

    `predicted` is the order as a JSON list of document ids; `detail` is JSON text with all
    measures and `passed_over`, how much of the answer named no document or one twice.

    Raises:
        PlaybookError: The items are not given.
    """
    if items is None:
        raise PlaybookError("kind 'reranking' is scored with the items: they hold the documents")
    k = brief.evaluation.ranking.k
    known = {item["item_id"]: item for item in _records(items)}
    shown = {name: [d for d, _ in documents(item)] for name, item in known.items()}
    rows = zip(asked["item_id"], asked["output"], strict=True)
    ranked = [_ranked(brief, str(output), shown[item]) for item, output in rows]
    grades = {name: json.loads(item["target"]) for name, item in known.items()}
    # One query per answer: the same item is there once for every deployment.
    of_row = dict(zip(map(str, range(len(asked))), asked["item_id"], strict=True))
    orders = {row: given[0] for row, given in zip(of_row, ranked, strict=True) if given}
    table = ranking_measures({row: grades[of_row[row]] for row in orders}, orders, k=k)
    by_row = table.set_index("item_id").round(6).to_dict("index")
    scored = []
    for row, given in zip(of_row, ranked, strict=True):
        if given is None:
            scored.append({"outcome": "unparsed", "predicted": None, "score": 0.0, "detail": None})
            continue
        measures = {**by_row[row], "passed_over": given[1]}
        scored.append(
            {
                "outcome": "answered",
                "predicted": json.dumps(given[0], ensure_ascii=False),
                "score": by_row[row][f"nDCG@{k}"],
                "detail": json.dumps(measures),
            }
        )
    return pd.DataFrame(scored, index=asked.index)


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """nDCG@k (primary), MRR and R@k with their intervals, for `scoring.summarise`.

    An answer that cannot be used scores 0 in all three.
    """
    k = brief.evaluation.ranking.k
    details = scored.get("detail", pd.Series(None, scored.index, object))
    told = [json.loads(text) if isinstance(text, str) and text else {} for text in details]
    rest = [measured(name, [t.get(name, 0.0) for t in told], scored) for name in ("MRR", f"R@{k}")]
    return [measured(f"nDCG@{k}", scored["score"], scored, primary=True), *rest]


def ranking_measures(
    grades: Mapping[str, Mapping[str, int]], orders: Mapping[str, Order], *, k: int
) -> pd.DataFrame:
    """nDCG@k, MRR and R@k of every query, by ir_measures (trec_eval's definitions).

    nDCG has linear gain and a log2 discount (Järvelin and Kekäläinen 2002, as trec_eval counts
    it); a grade of 1 or more is relevant to MRR and recall. A query without a relevant document
    scores 0.

    Args:
        grades: By item and document, 0 for not relevant; what is not graded is not relevant.
        orders: By item, the documents, best first.
        k: Where nDCG and recall are cut off; MRR looks at the whole order.

    Returns:
        One row per item of `orders`: `item_id`, `nDCG@k`, `MRR`, `R@k`.
    """
    names = {nDCG @ k: f"nDCG@{k}", RR: "MRR", R @ k: f"R@{k}"}
    # Scores that fall strictly: trec_eval would break ties by the documents' names.
    run = {q: {d: float(len(ids) - n) for n, d in enumerate(ids)} for q, ids in orders.items()}
    judged = {q: {d: int(grade) for d, grade in grades[q].items()} for q in orders}
    table = pd.DataFrame(
        0.0, index=pd.Index(list(orders), name="item_id"), columns=[*names.values()]
    )
    for metric in ir_measures.iter_calc(list(names), judged, run):
        table.loc[metric.query_id, names[metric.measure]] = metric.value
    return table.reset_index()


def by_chance(items: pd.DataFrame, *, k: int) -> pd.DataFrame:
    """What an order drawn at random scores on average on each item: the bar for any skill.

    The expectation itself, not a simulation: of nDCG@k the mean grade takes every place; of
    MRR the first relevant place is negative hypergeometric; of R@k it is the share shown.

    Returns:
        One row per item: `item_id`, `nDCG@k`, `MRR`, `R@k`.
    """
    rows = []
    for item in _records(items):
        grades = {d: max(int(g), 0) for d, g in json.loads(item["target"]).items()}
        shown = [grades.get(d, 0) for d, _ in documents(item)]
        n, relevant, total = (
            len(shown),
            sum(g > 0 for g in shown),
            sum(g > 0 for g in grades.values()),
        )
        best = _dcg(sorted(grades.values(), reverse=True)[:k])
        drawn = _dcg([sum(shown) / n] * min(k, n))
        rows.append(
            {
                "item_id": item["item_id"],
                f"nDCG@{k}": drawn / best if best else 0.0,
                "MRR": _reciprocal_rank(relevant, n),
                f"R@{k}": relevant / total * min(k, n) / n if total else 0.0,
            }
        )
    return pd.DataFrame(rows, columns=["item_id", f"nDCG@{k}", "MRR", f"R@{k}"])


def _reciprocal_rank(relevant: int, n: int) -> float:
    """The mean of 1 / place of the first of some relevant documents among n in random order."""
    mean, none_yet = 0.0, 1.0
    for place in range(1, n + 1 if relevant else 1):
        hit = min(1.0, relevant / (n - place + 1))
        mean, none_yet = mean + none_yet * hit / place, none_yet * (1 - hit)
    return mean


def _dcg(grades: list[Any]) -> float:
    return float(sum(g / math.log2(place + 1) for place, g in enumerate(grades, start=1)))
