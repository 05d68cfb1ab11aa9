"""Wins and losses in pairs: win shares, sign tests, Bradley–Terry strengths, the judge's lean.

Everything here takes what `comparison.grade` gives: one row per pair of deployments and item
with `item_id group deployment other basis forward backward result`.
"""

from __future__ import annotations

from itertools import combinations

import evalica
import numpy as np
import numpy.typing as npt
import pandas as pd

from lib.stats.intervals import wilson
from lib.stats.paired_tests import compare_pairs, with_verdicts

__all__ = ["consistency", "item_scores", "pairs", "strengths"]

POINTS = {"win": 1.0, "tie": 0.5, "inconsistent": 0.5, "identical": 0.5, "loss": 0.0}
PRIOR = 1.0  # wins and losses of every pair before anything is judged
RESAMPLES = 1000


def _sides(graded: pd.DataFrame) -> pd.DataFrame:
    """One row per decided comparison and side: `deployment item_id group score`."""
    decided = graded[graded["result"].isin(POINTS)]
    first = decided.assign(score=decided["result"].map(POINTS).astype(float))
    second = first.assign(deployment=first["other"], score=1 - first["score"])
    return pd.concat([first, second])[["deployment", "item_id", "group", "score"]]


def _names(graded: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys([*graded["deployment"], *graded["other"]]))


def item_scores(graded: pd.DataFrame) -> pd.DataFrame:
    """A deployment's share of wins on each item: a win 1, a tie half, a loss 0.

    A row for every deployment and item with a decided comparison: `deployment item_id score n`,
    the mean over its n comparisons there.
    """
    by = _sides(graded).groupby(["deployment", "item_id"], sort=False)["score"]
    return by.agg(score="mean", n="size").reset_index()


def strengths(graded: pd.DataFrame, *, baseline: str | None = None) -> pd.DataFrame:
    """Bradley–Terry strengths as the chance to win against the average or the baseline.

    One may win much because its opponents are weak; the model of Bradley and Terry (1952) takes
    that out, with ties as half a win. Every pair starts with one win and one loss (Laplace), so
    that a candidate that never lost is not infinitely strong. The interval weighs items (or
    groups), never single comparisons, at random (the Bayesian bootstrap, Rubin 1981). Average is
    the geometric mean. Returned is `deployment value low high n`, n the decided comparisons;
    where there is none, nothing is known.
    """
    names = _names(graded)
    matched = list(dict.fromkeys(zip(graded["deployment"], graded["other"], strict=True)))
    column_of = {pair: 2 * place for place, pair in enumerate(matched)}
    # Points by item or group, and by pair: a column of wins and one of losses for each.
    decided = graded[graded["result"].isin(POINTS)]
    group = decided["group"].fillna("").astype(str)
    row, units = pd.factorize(group.where(group.str.strip() != "", "\0" + decided["item_id"]))
    pairs_met = zip(decided["deployment"], decided["other"], strict=True)
    column = np.array([column_of[pair] for pair in pairs_met], int)
    points = decided["result"].map(POINTS).to_numpy(dtype=float)
    counts = np.zeros((len(units), 2 * len(matched)))
    np.add.at(counts, (row, column), points)
    np.add.at(counts, (row, column + 1), 1 - points)
    counts = np.vstack([counts, PRIOR * np.eye(counts.shape[1])])
    # Every row keeps some weight, so no draw is without a win or a loss.
    drawn = np.random.default_rng(0).exponential(size=(RESAMPLES, len(counts)))
    chances = [_chances(weights, matched, names, baseline) for weights in drawn @ counts]
    low, high = np.quantile(chances, [0.025, 0.975], axis=0)
    value = _chances(counts.sum(axis=0), matched, names, baseline)
    table = pd.DataFrame({"deployment": names, "value": value, "low": low, "high": high})
    n = table["deployment"].map(_sides(graded)["deployment"].value_counts()).fillna(0).astype(int)
    figures = table[["value", "low", "high"]].where(n > 0)
    return table.assign(**figures, n=n)


def _chances(
    weights: npt.NDArray[np.float64],
    matched: list[tuple[str, str]],
    names: list[str],
    baseline: str | None,
) -> npt.NDArray[np.float64]:
    """Strengths from wins and losses of every pair, as the chance to win a comparison."""
    fitted = evalica.bradley_terry(
        [one for one, _ in matched for _ in "wl"],
        [other for _, other in matched for _ in "wl"],
        [evalica.Winner.X, evalica.Winner.Y] * len(matched),
        index=pd.Index(names),
        weights=weights,
        limit=10_000,
    )
    strength = fitted.scores.reindex(names).to_numpy(dtype=float)
    average = np.exp(np.log(strength).mean())
    reference = strength[names.index(baseline)] if baseline in names else average
    return np.asarray(strength / (strength + reference))


def pairs(graded: pd.DataFrame) -> pd.DataFrame:
    """Compare deployments on their wins against each other: a sign test on items.

    Items on which neither wins (ties, inconsistent verdicts) do not count in the test, but in
    `n` and in `difference`, the share of items won minus the share lost. Two that were only
    compared to the baseline are told apart by what each scored against it on the same items. The
    columns are those of `compare_pairs`, Holm-adjusted over all pairs.
    """
    contests = [_contest(graded, *names) for names in combinations(_names(graded), 2)]
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
    decided = direct["result"].isin(POINTS)
    won = [
        direct[["item_id", "group"]].assign(
            deployment=name, score=(direct["result"] == result).where(decided)
        )
        for name, result in ((one, "win"), (other, "loss"))
    ]
    return pd.concat(won).astype({"score": "Float64"})


def consistency(graded: pd.DataFrame) -> pd.DataFrame:
    """How far the judge can be relied on: what the swap changed, and where it leans.

    Returns:
        One row per `measure` with `value low high n` (a share of n, Wilson interval):
        `inconsistent` and `no verdict` of the pairs judged; `first of the inconsistent`, how
        often a judge that named one position twice named the first (0.5 is no lean); `first of
        all` verdicts that name a position; `left out` (a call failed) and `identical` of all.
    """
    judged = graded[graded["basis"] == "judge"]
    both = judged[judged["result"] != "no verdict"]
    stuck = both[(both["forward"] == both["backward"]) & (both["forward"] != "tie")]
    verdicts = pd.concat([both["forward"], both["backward"]])
    counted = {
        "inconsistent": both["result"] == "inconsistent",
        "first of the inconsistent": stuck["forward"] == "first",
        "first of all": verdicts[verdicts != "tie"] == "first",
        "no verdict": judged["result"] == "no verdict",
        "left out": graded["result"] == "left out",
        "identical": graded["result"] == "identical",
    }
    rows = [
        (measure, hits.mean(), *wilson(int(hits.sum()), len(hits)), len(hits))
        for measure, hits in counted.items()
    ]
    return pd.DataFrame(rows, columns=["measure", "value", "low", "high", "n"])
