"""How sure the pick is and what being wrong costs: figures drawn anew, the choice replayed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lib.brief import Project, Requirements
from lib.decide.decision import BARS, PEAK, SHOWN_BY_LOAD, frontier
from lib.decide.steps import known_checks
from lib.stats import by_item, twins

N_DRAWS = 4000
Z95 = 1.959964  # half an interval in standard errors
SPREADS = np.geomspace(0.005, 3, 40)  # of the true qualities, in standard deviations of an item
USUAL_SPREAD = 0.05  # scale of the same: about 2 points where 85 % are right
LATENCIES = ("max_p95_s", "max_ttft_p95_s", "max_itl_p95_s")
AIMS = {"cheapest": "max_usd_per_1k", "best": "min_quality", "fastest": "min_rps"}
AIMS_IN_A_TIE = {"cheapest": "min_quality", "best": "max_usd_per_1k", "fastest": "max_usd_per_1k"}
DOLLARS = ("max_usd_per_1k", "max_usd_per_month")
MORE_ITEMS = (25, 50, 100, 200, 400, 800, 1600)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Draws(NamedTuple):
    """What may be true, a row per draw and a column per candidate; missing where unknown."""

    names: list[str]
    figures: dict[str, Floats]  # by the requirement that bounds them
    table: pd.DataFrame  # the rows of the candidates, as they were measured

    def gain(self, requirement: str) -> Floats:
        """The figures that a requirement bounds, turned so that more is better."""
        figures = self.figures[requirement]
        return figures if BARS[requirement].more_is_better else -figures


def certainty(table: pd.DataFrame, draws: Draws, brief: Project) -> pd.DataFrame:
    """Add `p_pick p_qualifies p_frontier`: how probable each is, all that was measured considered.

    In every draw the gates are tested and the objective applied as if the figures were known.
    Missing where a figure has no interval, as a published one, or is not known at all.
    """
    meets = meets_all(draws, brief.requirements)
    best = first_choice(draws, meets, brief.objective)
    gains = [draws.gain(requirement) for requirement in AIMS.values()]
    by_name = pd.DataFrame(index=draws.names)
    by_name["p_pick"] = (best[:, None] == np.arange(len(draws.names))).mean(axis=0)
    by_name["p_qualifies"] = meets.mean(axis=0)
    by_name["p_frontier"] = frontier(np.stack(gains, axis=2)).mean(axis=0)
    dollars = brief.requirements.model_dump(include=set(DOLLARS), exclude_none=True)
    not_known = [np.isnan(draws.figures[name]).any(axis=0) for name in ("min_rps", *dollars)]
    has_open_check = [
        any(verdict == "not decided" for *_, verdict, _ in known_checks(row, brief.requirements))
        for row in draws.table.to_dict("records")
    ]
    not_known.append(np.array(has_open_check, bool))
    by_name[np.any(not_known, axis=0)] = np.nan
    return table.join(by_name, on="deployment")


def joint_draws(table: pd.DataFrame, scored: pd.DataFrame, *, n: int = N_DRAWS) -> Draws:
    """Draw the true figures of all candidates with an interval, from what was measured.

    Quality is drawn to the candidates' common mean (`shrinkage`), with the correlation of their
    scores on the shared items; copies of one model have one quality. Load, latency and dollars
    are split normal on their logarithms: half of each interval is 1.96 standard errors. What
    bears more costs less.
    """
    rng = np.random.default_rng(0)
    rows = table.dropna(subset=["quality", "quality_low", "quality_high"])
    rows = rows[rows["standing"] == "candidate"]
    rows = rows[(rows["comparable"] != "no") & rows["basis"].str.startswith("measured")]
    rows = rows[rows["against_baseline"] != "worse"]
    quality = _quality(rows, scored, rng, n)
    z, late = rng.standard_normal((2, n, len(rows)))
    figures = {
        "min_quality": quality,
        "min_rps": _split(rows, "min_rps", z),
        **{name: _split(rows, name, late) for name in LATENCIES},
        **{name: _split(rows, name, -z) for name in DOLLARS},
    }
    return Draws(rows["deployment"].tolist(), figures, rows)


def _quality(rows: pd.DataFrame, scored: pd.DataFrame, rng: np.random.Generator, n: int) -> Floats:
    """Draws of quality, correlated as the scores on shared items are: without any they are not."""
    if rows.empty:
        return np.empty((n, 0))
    one_of = twins(scored[scored["deployment"].isin(rows["deployment"])])
    firsts = list(dict.fromkeys(rows["deployment"].map(one_of)))
    models = rows.set_index("deployment").loc[firsts]
    error = ((models["quality_high"] - models["quality_low"]) / 2 / Z95).to_numpy(float)
    scores, group = by_item(scored[scored["deployment"].isin(firsts)])
    # What two share on an item they need not share within a cluster.
    unit = scores.index if group is None else group.where(group != "", "\0" + group.index)
    totals = (scores - scores.mean()).groupby(unit).sum(min_count=1).reindex(columns=firsts)
    correlation = totals.corr(min_periods=10).fillna(0.0).to_numpy(copy=True)
    np.fill_diagonal(correlation, 1.0)
    deviation = max(float(scores.std().mean()), 1e-9)
    values, scatter = models["quality"].to_numpy(float), correlation * np.outer(error, error)
    true_values = shrinkage(values, scatter, deviation, rng, n)
    return true_values[:, [firsts.index(one_of[name]) for name in rows["deployment"]]]


def shrinkage(
    values: Floats, scatter: Floats, deviation: float, rng: np.random.Generator, n: int
) -> Floats:
    """Draw true values behind estimates with a covariance, shrunk to their common mean.

    Empirical Bayes with a normal prior whose mean is flat, and whose spread is averaged over
    `SPREADS`, times the standard deviation of an item, by its marginal likelihood and a hyperprior
    that avoids equality (Chung et al. 2013, Psychometrika 78:685) with heavy tails. The best of
    many estimates is best partly by luck; a plain bootstrap takes the luck for truth.
    """
    k = len(values)
    noise, axes = np.linalg.eigh(scatter)
    noise = np.maximum(noise, 0.0)
    ones = axes.sum(axis=0)
    on_axes = values @ axes
    spreads = SPREADS * deviation
    weights = 1 / (noise + spreads[:, None] ** 2)  # of every axis, a row per spread
    information = (weights * ones**2).sum(axis=1)
    means = (weights * ones * on_axes).sum(axis=1) / information
    residuals = on_axes - means[:, None] * ones
    fit = np.log(weights).sum(axis=1) - np.log(information) - (weights * residuals**2).sum(axis=1)
    # In proportion to the spread near zero; a step of the grid is as wide as its spread.
    fit += 4 * np.log(SPREADS) - 4 * np.log1p((SPREADS / USUAL_SPREAD) ** 2)
    chances = np.exp((fit - fit.max()) / 2)
    at = rng.choice(len(spreads), size=n, p=chances / chances.sum())
    mean = (means[at] + rng.standard_normal(n) / np.sqrt(information[at]))[:, None] * ones
    pull = spreads[at, None] ** 2 * weights[at]  # 1 keeps the estimate, 0 takes the mean
    luck = rng.standard_normal((n, k)) * np.sqrt(pull * noise)
    return np.asarray((mean + pull * (on_axes - mean) + luck) @ axes.T)


def _split(rows: pd.DataFrame, requirement: str, z: Floats) -> Floats:
    """Draws of positive figures from their intervals; a bound not known is the value."""
    value, low, high = (rows[name].to_numpy(float) for name in BARS[requirement].columns)
    with np.errstate(divide="ignore", invalid="ignore"):
        below, above = np.log(value / low) / Z95, np.log(high / value) / Z95
    below, above = (np.where(np.isfinite(sd), np.maximum(sd, 0.0), 0.0) for sd in (below, above))
    return np.asarray(value * np.exp(z * np.where(z < 0, below, above)))


def meets_each(draws: Draws, bars: Requirements) -> dict[str, Flags]:
    """Who meets each requirement of the brief, by draw; what is not known meets none.

    Whatever the brief asks, quality must have a figure and some load must be borne.
    """
    rps, peak = draws.figures["min_rps"], draws.table[PEAK].to_numpy(float)
    meets = {"load": rps > 0}
    if not np.isnan(peak).all():
        meets[PEAK] = ~(rps < peak)
    for name, figures in draws.figures.items():
        bar = getattr(bars, name)
        if bar is None and name == "min_quality":
            bar = -np.inf
        if bar is not None:
            meets[name] = figures >= bar if BARS[name].more_is_better else figures <= bar
    holds, slo_s = (rps >= (bars.min_rps or 0.0)) & (rps > 0), draws.table["slo_s"]
    for name in meets.keys() & SHOWN_BY_LOAD:  # as the capacity says, where it is of this objective
        of_it = slo_s <= (bars.max_p95_s if name == "max_p95_s" else slo_s)
        meets[name] = np.where(of_it.to_numpy(), holds, meets[name])
    for at, row in enumerate(draws.table.to_dict("records")):
        for name, *_, verdict, _ in known_checks(row, bars):
            meets.setdefault(name, np.ones_like(rps, bool))[:, at] = verdict == "met"
    return meets


def meets_all(draws: Draws, bars: Requirements) -> Flags:
    """Who meets every requirement, by draw."""
    return np.asarray(np.all(list(meets_each(draws, bars).values()), axis=0))


def first_choice(draws: Draws, meets: Flags, objective: str) -> NDArray[np.intp]:
    """The column of whoever qualifies and is first by the objective, by draw; -1 where nobody.

    What is drawn decides a tie as `TIES` says; the last word has the order, as in `choose`.
    """
    ahead = meets & (draws.gain(AIMS[objective]) > -np.inf)
    for aim in (AIMS[objective], AIMS_IN_A_TIE[objective]):
        worth = np.where(ahead & ~np.isnan(draws.gain(aim)), draws.gain(aim), -np.inf)
        most = worth.max(axis=1, keepdims=True, initial=-np.inf)
        ahead &= np.isclose(worth, most, rtol=1e-9, atol=0.0)
    return np.asarray(np.hstack([~ahead.any(axis=1, keepdims=True), ahead]).argmax(axis=1) - 1)


def regret(draws: Draws, brief: Project, choice: str) -> dict[str, float]:
    """What choosing this one may cost against the best that qualifies, on average over the draws.

    `usd_per_month usd_per_1k quality` are of the draws in which the choice qualifies; `p_unfit` is
    the share in which it does not, which no price can pay for.
    """
    losses = dict.fromkeys(["usd_per_month", "usd_per_1k", "quality", "p_unfit"], np.nan)
    if choice not in draws.names:
        return losses
    meets, at = meets_all(draws, brief.requirements), draws.names.index(choice)
    best, fit = first_choice(draws, meets, brief.objective), meets[:, at]
    row = np.arange(len(best))
    gains = [draws.gain(name) for name in ("max_usd_per_month", "max_usd_per_1k", "min_quality")]
    means = [np.where(fit, gain[row, best] - gain[:, at], 0.0).mean() for gain in gains]
    return dict(zip(losses, map(float, [*means, 1 - fit.mean()]), strict=True))


def worth_of_items(checks: pd.DataFrame, draws: Draws, brief: Project, choice: str) -> pd.DataFrame:
    """What so many more items would be worth: `items p_other worth`, a row per number of them.

    Every draw is taken for the truth, the items are drawn from it, the bound of the interval that
    they give is tested again, and the choice is made anew (preposterior analysis; Raiffa and
    Schlaifer 1961); while it meets the bar, quality changes it only beyond 1.96 standard errors of
    the difference, as if independent. `worth` is the gain where the new one truly qualifies, at
    least 0 as the choice may be kept: dollars a month, per 1,000 requests without traffic, or
    points of quality where the objective is `best`. `p_other` is how often the choice would change.
    """
    columns, rows = ["items", "p_other", "worth"], draws.table
    if choice not in draws.names:
        return pd.DataFrame(columns=columns)
    # Who may be chosen once its quality is shown, and what its items say so far.
    others = checks[(checks["requirement"] != "min_quality") & (checks["verdict"] != "met")]
    open_to = (~rows["deployment"].isin(others["deployment"]) & rows["max_rps"].gt(0)).to_numpy()
    n = rows["n"].to_numpy(float)
    error = ((rows["quality_high"] - rows["quality_low"]) / 2 / Z95).to_numpy(float)
    measured, dollars, load = rows[["quality", "usd_per_1k", "borne_rps"]].to_numpy(float).T
    at, fit = draws.names.index(choice), meets_all(draws, brief.requirements)
    priceless = np.isnan(draws.figures["max_usd_per_month"]).all()
    cost_bar = "max_usd_per_1k" if priceless else "max_usd_per_month"
    gain = draws.gain(cost_bar if brief.objective == "cheapest" else AIMS[brief.objective])
    noise = np.random.default_rng(1).standard_normal(gain.shape)
    bar, draw = brief.requirements.min_quality or -np.inf, np.arange(len(noise))
    leads = {"cheapest": dollars < dollars[at], "fastest": load > load[at]}
    ahead = leads.get(brief.objective, False) | (np.arange(len(load)) == at)  # whatever the items
    # Every number of items: their mean, the bound that is tested, the choice, its true gain.
    worths = []
    for more in MORE_ITEMS:
        fresh = draws.figures["min_quality"] + noise * error * np.sqrt(n / more)
        mean = (n * measured + more * fresh) / (n + more)
        after = Z95 * error * np.sqrt(n / (n + more))
        may = (mean - after >= bar) & open_to
        may &= ahead | (mean - mean[:, [at]] > np.hypot(after, after[at])) | ~may[:, [at]]
        usd, rps = dollars + 0 * mean, load + 0 * mean
        figures = {"min_quality": mean, "max_usd_per_1k": usd, "min_rps": rps}
        then = first_choice(draws._replace(figures=figures), may, brief.objective)
        then = np.where(then < 0, at, then)
        better = np.where(fit[draw, then], gain[draw, then] - gain[draw, at], 0.0)
        worths.append((more, float((then != at).mean()), max(float(better.mean()), 0.0)))
    return pd.DataFrame(worths, columns=columns)
