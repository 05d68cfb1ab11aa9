"""How strong each side of a tournament is, whoever it met: Bradley and Terry's model (1952)."""

from __future__ import annotations

import evalica
import numpy as np
import numpy.typing as npt
import pandas as pd

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
