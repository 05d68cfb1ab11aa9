"""Orders of documents, and wins and losses in pairs: measures, chance, strengths, ties.

What is about pairs takes what `comparison.grade` gives: one row per pair of deployments and item
with `item_id group deployment other basis forward backward result`.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

import evalica
import ir_measures
import numpy as np
import numpy.typing as npt
import pandas as pd
from ir_measures import RR, R, nDCG

from lib.stats.intervals import RESAMPLES
from lib.stats.paired_tests import by_item, pair_row, twins, with_verdicts

POINTS = {"win": 1.0, "tie": 0.5, "inconsistent": 0.5, "identical": 0.5, "loss": 0.0}


def both_sides(graded: pd.DataFrame) -> pd.DataFrame:
    """Every comparison as either of the two sees it, with its `score` where it is decided."""
    results = graded["result"].replace({"win": "loss", "loss": "win"})
    swapped = {"deployment": graded["other"], "other": graded["deployment"], "result": results}
    sides = pd.concat([graded, graded.assign(**swapped)])
    return sides.assign(score=sides["result"].map(POINTS).astype(float))


def pairs(graded: pd.DataFrame, scored: pd.DataFrame) -> pd.DataFrame:
    """Compare the deployments of `scored` on their wins against each other: a sign test on items.

    Items on which neither wins do not count in the test, but in `n` and in `difference`, the share
    of items won minus the share lost. Two that were only compared to the baseline are told apart
    by what each scored against it. The columns and Holm's adjustment are as in `compare_pairs`.
    """
    answering = set(scored["deployment"])
    names = [n for n in dict.fromkeys([*graded["deployment"], *graded["other"]]) if n in answering]
    rows = [pair_row(*_contest(graded, *two), *two) for two in combinations(names, 2)]
    return with_verdicts(rows, twins(scored))


def _contest(graded: pd.DataFrame, one: str, other: str) -> tuple[pd.DataFrame, pd.Series | None]:
    """What two deployments scored on every item against each other, or against the baseline."""
    direct = graded[(graded["deployment"] == one) & (graded["other"] == other)]
    if direct.empty:
        sides = both_sides(graded)
        table, group = by_item(sides[sides["deployment"].isin((one, other))])
        return table.reindex(columns=[one, other]), group
    # A win is a 1 to 0 and a tie a 0 to 0, which makes McNemar's test the sign test.
    decided = direct[direct["result"].isin(POINTS)]
    won = pd.DataFrame({one: decided["result"] == "win", other: decided["result"] == "loss"})
    return won.astype(float), decided["group"]


def beaten_by(scores: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, list[str]]:
    """By deployment, the highest `value` first: all that are better by the verdict of their pair.

    Where no pair was tested, values are compared, and what a race dropped is worse than the rest.
    """
    verdicts: dict[tuple[str, str], bool] = {}
    for first, second, verdict in pairs[["deployment", "other", "verdict"]].to_numpy():
        verdicts |= {(first, second): verdict == "worse", (second, first): verdict == "better"}
    tested_names = {name for name, _ in verdicts}
    ranked = scores.sort_values("value", ascending=False, kind="stable")
    rank = {
        n: (n in tested_names, value) for n, value in ranked[["deployment", "value"]].to_numpy()
    }
    return {
        name: [other for other in rank if verdicts.get((name, other), rank[other] > rank[name])]
        for name in rank
    }


def quality_groups(better: Mapping[str, Collection[str]]) -> dict[str, int]:
    """Number deployments by quality, from `beaten_by`: group 1 are those that none of them beats.

    Group 2 are those that only group 1 beats, and so on; who beat each other in a circle are equal.
    """
    names = list(better)
    wins = np.array([[b == a or b in better[a] for b in names] for a in names], dtype=bool)
    above = np.linalg.matrix_power(wins.reshape(len(names), len(names)), len(names))
    above &= ~above.T
    group = np.ones(len(names), dtype=int)
    for _ in names:
        group = 1 + (above * group).max(axis=1, initial=0)
    return dict(zip(names, group.tolist(), strict=True))


def tie_groups(scores: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, int]:
    """The `quality_groups` of all deployments, the highest value first."""
    return quality_groups(beaten_by(scores, pairs))


def strengths(graded: pd.DataFrame, *, baseline: str | None = None) -> pd.DataFrame:
    """Bradley–Terry: the chance to win against the average (the geometric mean) or the baseline.

    Ties are half a win; every pair starts with one win and one loss, so that who never lost is not
    infinitely strong. The interval weighs groups at random (the Bayesian bootstrap, Rubin 1981).
    Returned is `deployment value low high n`, n the decided contests.
    """
    names = pd.Index(dict.fromkeys([*graded["deployment"], *graded["other"]]))
    pairs = graded[["deployment", "other"]].drop_duplicates()
    # Points by group and by pair: a column of wins and one of losses for each.
    column = 2 * graded.groupby(["deployment", "other"], sort=False).ngroup()
    score = graded["result"].map(POINTS).astype(float)
    decided = graded.assign(column=column, score=score).dropna(subset="score")
    unit = decided["group"].where(decided["group"] != "", "\0" + decided["item_id"])
    row, units = pd.factorize(unit)
    counts = np.zeros((len(units), 2 * len(pairs)))
    np.add.at(counts, (row, decided["column"]), decided["score"])
    np.add.at(counts, (row, decided["column"] + 1), 1 - decided["score"])
    counts = np.vstack([counts, np.eye(counts.shape[1])])
    # Every row keeps some weight, so no draw is without a win or a loss.
    drawn = np.random.default_rng(0).exponential(size=(RESAMPLES, len(counts)))
    chances = [_chances(weights, pairs, names, baseline) for weights in drawn @ counts]
    low, high = np.quantile(chances, [0.025, 0.975], axis=0)
    value = _chances(counts.sum(axis=0), pairs, names, baseline)
    n = pd.concat([decided["deployment"], decided["other"]]).value_counts()
    n = n.reindex(names, fill_value=0)
    table = pd.DataFrame({"value": value, "low": low, "high": high}, index=names).where(n > 0)
    return table.assign(n=n).rename_axis("deployment").reset_index()


def _chances(
    weights: npt.NDArray[np.float64], pairs: pd.DataFrame, names: pd.Index, baseline: str | None
) -> npt.NDArray[np.float64]:
    """Strengths from wins and losses of every pair, as the chance to win a contest."""
    fitted = evalica.bradley_terry(
        pairs["deployment"].repeat(2).tolist(),
        pairs["other"].repeat(2).tolist(),
        [evalica.Winner.X, evalica.Winner.Y] * len(pairs),
        index=names,
        weights=weights,
        limit=10_000,
    )
    strength = fitted.scores.reindex(names).to_numpy(dtype=float)
    average = np.exp(np.log(strength).mean())
    reference = strength[names.get_loc(baseline)] if baseline in names else average
    return np.asarray(strength / (strength + reference))


Grades = dict[str, int]


def ranking_measures(
    grades: dict[str, Grades], orders: Mapping[str, Sequence[str]], *, k: int
) -> pd.DataFrame:
    """nDCG@k, MRR and R@k of every query, by ir_measures (trec_eval's definitions).

    `orders` are the documents of every query, best first, and their queries the index of what is
    returned. nDCG has linear gain; a grade of 1 or more is relevant to MRR and recall. What is not
    graded is not relevant, and a query without a relevant document scores 0.
    """
    names = {nDCG @ k: f"nDCG@{k}", RR: "MRR", R @ k: f"R@{k}"}
    # Scores that fall strictly: trec_eval would break ties by the documents' names.
    run = {q: {d: float(len(ids) - n) for n, d in enumerate(ids)} for q, ids in orders.items()}
    table = pd.DataFrame(0.0, index=list(orders), columns=[*names.values()])
    for metric in ir_measures.iter_calc(list(names), grades, run):
        table.loc[metric.query_id, names[metric.measure]] = metric.value
    return table


def ranking_by_chance(grades: Grades, ids: Sequence[str], *, k: int) -> dict[str, float]:
    """The `ranking_measures` of a query's documents in orders drawn at random, on average."""
    random = np.random.default_rng(0)
    orders = {str(n): random.permutation(ids).tolist() for n in range(50)}
    table = ranking_measures(dict.fromkeys(orders, grades), orders, k=k)
    return {str(name): float(mean) for name, mean in table.mean().items()}
