"""How good an order of documents is, and what an order drawn at random would score."""

import math
from collections.abc import Collection, Mapping, Sequence

import ir_measures
import pandas as pd
from ir_measures import RR, R, nDCG

Grades = Mapping[str, int]


def ranking_measures(
    grades: Mapping[str, Grades], orders: Mapping[str, Sequence[str]], *, k: int
) -> pd.DataFrame:
    """nDCG@k, MRR and R@k of every query, by ir_measures (trec_eval's definitions).

    nDCG has linear gain and a log2 discount (Järvelin and Kekäläinen 2002, as trec_eval counts
    it); a grade of 1 or more is relevant to MRR and recall. A query without a relevant document
    scores 0.

    Args:
        grades: By query and document; what is not graded is not relevant.
        orders: By query, the documents, best first.
        k: Where nDCG and recall are cut off; MRR looks at the whole order.

    Returns:
        One row per query of `orders`, which is the index: `nDCG@k MRR R@k`.
    """
    names = {nDCG @ k: f"nDCG@{k}", RR: "MRR", R @ k: f"R@{k}"}
    # Scores that fall strictly: trec_eval would break ties by the documents' names.
    run = {q: {d: float(len(ids) - n) for n, d in enumerate(ids)} for q, ids in orders.items()}
    judged = {q: {d: int(grade) for d, grade in grades[q].items()} for q in orders}
    table = pd.DataFrame(0.0, index=list(orders), columns=[*names.values()])
    for metric in ir_measures.iter_calc(list(names), judged, run):
        table.loc[metric.query_id, names[metric.measure]] = metric.value
    return table


def ranking_by_chance(grades: Grades, shown: Collection[str], *, k: int) -> dict[str, float]:
    """What an order drawn at random scores on average on a query: the bar for any skill.

    The expectation itself, not a simulation: of nDCG@k the mean grade takes every place; of
    MRR the first relevant place is negative hypergeometric; of R@k it is the share shown.

    Args:
        grades: By document.
        shown: The documents that are put into order.
        k: As in `ranking_measures`.
    """
    grade = {d: max(int(g), 0) for d, g in grades.items()}
    drawn = [grade.get(d, 0) for d in shown]
    n, relevant = len(drawn), sum(g > 0 for g in drawn)
    total = sum(g > 0 for g in grade.values())
    best = _gain(sorted(grade.values(), reverse=True)[:k])
    mean, none_yet = 0.0, 1.0
    for place in range(1, n + 1 if relevant else 1):
        hit = min(1.0, relevant / (n - place + 1))
        mean, none_yet = mean + none_yet * hit / place, none_yet * (1 - hit)
    return {
        f"nDCG@{k}": _gain([sum(drawn) / n] * min(k, n)) / best if best else 0.0,
        "MRR": mean,
        f"R@{k}": relevant / total * min(k, n) / n if total else 0.0,
    }


def _gain(grades: Sequence[float]) -> float:
    return float(sum(g / math.log2(place + 1) for place, g in enumerate(grades, start=1)))
