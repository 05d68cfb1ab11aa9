"""Wins and losses in pairs: win shares, sign tests, strengths, the judge's lean.

Everything here takes what `comparison.grade` gives: one row per pair of deployments and item
with `item_id group deployment other basis forward backward result`.
"""

from itertools import combinations

import evalica
import numpy as np
import numpy.typing as npt
import pandas as pd

from lib.stats.intervals import wilson
from lib.stats.paired_tests import compare_pairs, with_verdicts

POINTS = {"win": 1.0, "tie": 0.5, "inconsistent": 0.5, "identical": 0.5, "loss": 0.0}


def _sides(graded: pd.DataFrame) -> pd.DataFrame:
    """One row per decided comparison and side: `deployment item_id group score`."""
    first = graded.assign(score=graded["result"].map(POINTS).astype(float))
    first = first[first["score"].notna()]
    second = first.assign(deployment=first["other"], score=1 - first["score"])
    return pd.concat([first, second])[["deployment", "item_id", "group", "score"]]


def item_scores(graded: pd.DataFrame) -> pd.DataFrame:
    """A deployment's share of wins on each item: a win 1, a tie half, a loss 0.

    A row for every deployment and item with a decided comparison: `deployment item_id score`.
    """
    by = _sides(graded).groupby(["deployment", "item_id"], sort=False)["score"]
    return by.mean().reset_index()


def strengths(graded: pd.DataFrame, *, baseline: str | None = None) -> pd.DataFrame:
    """Bradley–Terry strengths as chances to win; items of a group are drawn together."""
    group = graded["group"].fillna("").astype(str)
    unit = group.where(group.str.strip() != "", "\0" + graded["item_id"])
    contests = graded.assign(score=graded["result"].map(POINTS), unit=unit)
    return bradley_terry(contests, baseline=baseline)


def pairs(graded: pd.DataFrame) -> pd.DataFrame:
    """Compare deployments on their wins against each other: a sign test on items.

    Items on which neither wins (ties, inconsistent verdicts) do not count in the test, but in
    `n` and in `difference`, the share of items won minus the share lost. Two that were only
    compared to the baseline are told apart by what each scored against it on the same items. The
    columns are those of `compare_pairs`, Holm-adjusted over all pairs.
    """
    names = dict.fromkeys([*graded["deployment"], *graded["other"]])
    contests = [_contest(graded, *pair) for pair in combinations(names, 2)]
    tables = [compare_pairs(scored.assign(repo_id=scored["deployment"])) for scored in contests]
    table = pd.concat(tables, ignore_index=True)
    return with_verdicts(table, list(zip(table["deployment"], table["other"], strict=True)))


def _contest(graded: pd.DataFrame, one: str, other: str) -> pd.DataFrame:
    """What two deployments scored on every item against each other, or against the baseline."""
    direct = graded[(graded["deployment"] == one) & (graded["other"] == other)]
    if direct.empty:
        sides = _sides(graded)
        return sides[sides["deployment"].isin((one, other))]
    # A win is a 1 to 0 and a tie a 0 to 0, which makes McNemar's test the sign test.
    decided, items = direct["result"].isin(POINTS), direct[["item_id", "group"]]
    won = [
        items.assign(deployment=name, score=(direct["result"] == result).where(decided))
        for name, result in ((one, "win"), (other, "loss"))
    ]
    return pd.concat(won).astype({"score": "Float64"})


def consistency(graded: pd.DataFrame) -> pd.DataFrame:
    """How far the judge can be relied on: what the swap changed, and where it leans.

    Returns:
        One row per `measure` with `value low high n` (a share of n, Wilson interval):
        `inconsistent` and `no verdict` of the pairs judged; `first of all` verdicts that name a
        position, where 0.5 is no lean.
    """
    judged = graded[graded["basis"] == "judge"]
    both = judged[judged["result"] != "no verdict"]
    verdicts = pd.concat([both["forward"], both["backward"]])
    counted = {
        "inconsistent": both["result"] == "inconsistent",
        "first of all": verdicts[verdicts != "tie"] == "first",
        "no verdict": judged["result"] == "no verdict",
    }
    rows = [
        (measure, hits.mean(), *wilson(int(hits.sum()), len(hits)), len(hits))
        for measure, hits in counted.items()
    ]
    return pd.DataFrame(rows, columns=["measure", "value", "low", "high", "n"])


PRIOR = 1.0  # wins and losses of every pair before anything is judged (Laplace)
RESAMPLES = 1000


def bradley_terry(contests: pd.DataFrame, *, baseline: str | None = None) -> pd.DataFrame:
    """Strengths as the chance to win against the average (the geometric mean) or the baseline.

    One may win much because its opponents are weak; the model takes that out, with ties as half
    a win. Every pair starts with one win and one loss, so that who never lost is not infinitely
    strong. The interval weighs units, never single contests, at random (the Bayesian bootstrap,
    Rubin 1981).

    Args:
        contests: `deployment other score unit`: 1 where the first won, 0 where it lost, missing
            where nothing was decided; what is of one `unit` is drawn together.
        baseline: One of the names.

    Returns:
        `deployment value low high n`, n the decided contests; where there is none, nothing is
        known.
    """
    names = pd.Index(dict.fromkeys([*contests["deployment"], *contests["other"]]))
    pairs = contests[["deployment", "other"]].drop_duplicates()
    pair = contests.groupby(["deployment", "other"], sort=False).ngroup()
    # Points by unit and by pair: a column of wins and one of losses for each.
    scored = contests["score"].notna()
    decided, column = contests[scored], 2 * pair[scored].to_numpy()
    score = decided["score"].to_numpy(dtype=float)
    row, units = pd.factorize(decided["unit"])
    counts = np.zeros((len(units), 2 * len(pairs)))
    np.add.at(counts, (row, column), score)
    np.add.at(counts, (row, column + 1), 1 - score)
    counts = np.vstack([counts, PRIOR * np.eye(counts.shape[1])])
    # Every row keeps some weight, so no draw is without a win or a loss.
    drawn = np.random.default_rng(0).exponential(size=(RESAMPLES, len(counts)))
    chances = [_chances(weights, pairs, names, baseline) for weights in drawn @ counts]
    low, high = np.quantile(chances, [0.025, 0.975], axis=0)
    value = _chances(counts.sum(axis=0), pairs, names, baseline)
    n = pd.concat([decided["deployment"], decided["other"]]).value_counts()
    table = pd.DataFrame({"value": value, "low": low, "high": high}, index=names)
    n = n.reindex(names, fill_value=0)
    return table.where(n > 0).assign(n=n).rename_axis("deployment").reset_index()


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
