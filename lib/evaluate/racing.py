"""Racing: ask items in blocks and drop the candidates that cannot win any more.

What winning means is the brief's objective. The best has the highest quality, so a candidate
is out once it is certainly worse than another. The cheapest (or fastest) need not be the best,
so there a worse candidate stays, unless it certainly misses `requirements.min_quality`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Hashable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from lib.brief.deployment import Deployment
from lib.brief.project import Project
from lib.evaluate import kinds
from lib.evaluate.scoring import MAX_FAILED_SHARE
from lib.stats.intervals import ALPHA, Rows, group_numbers

__all__ = ["Bets", "beaten", "drop", "order", "run"]

GROWTH = 0.1  # a block is no smaller than this share of what was asked before it
STAKES = np.array([0.05, 0.1, *np.linspace(0.2, 0.8, 7)])
SHARES = np.log(STAKES / STAKES.sum())  # small stakes matter only after thousands of items
Numbers = npt.NDArray[np.float64]


def order(items: pd.DataFrame, *, group: str | None = None, block: int = 25) -> list[list[str]]:
    """Shuffle the items into blocks of ids, so that each block is a fair sample of them all.

    The order hangs on the names alone (SHA-256): a run that is resumed, or has got more items,
    asks those it has in the same order again. Items with the same entry in the column `group`
    stay together, if it is not blank. A block has `block` items at least, later a tenth of what
    was asked before: a long race must not wait for the slowest call hundreds of times.
    """
    numbers = group_numbers(items[group]) if group else None
    together = items["item_id"].groupby(np.arange(len(items)) if numbers is None else numbers)
    draws = (sorted(ids) for _, ids in together)
    blocks: list[list[str]] = [[]]
    asked = 0
    for ids in sorted(draws, key=lambda ids: hashlib.sha256(ids[0].encode()).digest()):
        if len(blocks[-1]) >= max(block, GROWTH * asked):
            asked += len(blocks[-1])
            blocks.append([])
        blocks[-1] += ids
    return blocks


class Bets(NamedTuple):
    """What is bet against a candidate."""

    best: bool  # that a rival is better
    bar: float | None = None  # that its mean score lies below this
    widest: int = 1  # items of the largest group, also of those not asked yet


def beaten(
    table: pd.DataFrame,
    group: Rows | None,
    racing: Collection[Hashable],
    flawed: Collection[Hashable],
    bets: Bets,
) -> dict[Hashable, Hashable | None]:
    """The candidates that are out, each with the rival that says so most clearly (None: the bar).

    Evidence is wealth won by betting (Waudby-Smith & Ramdas 2023): start with 1 and stake a
    share s on each item, so wealth grows by `1 + s × (rival's score − candidate's)`, averaged
    over a grid of s. If the candidate is as good as the rival, that reaches 1/a with chance a
    at most, however often one looks (Ville), with graded scores and few items alike. A
    candidate's wealth is the mean over its rivals; against the bar it bets on `bar − score`
    instead, and with both the mean of both counts. It is out at wealth k / 0.05, where k
    candidates are left (Holm, step by step): with chance 95 % the whole race drops nobody who is
    as good as the best (or meets the bar), also where several tie.

    `table` holds scores by item and candidate; a missing one is a missing pair, not a loss. The
    `flawed`, whose calls failed too often, are not out for it, and nobody's rivals.
    """
    values, names, others = table.to_numpy(), list(table.columns), table.shape[1] - 1
    sound = ~table.columns.isin(flawed)
    evidence: list[tuple[float, int, int | None]] = []
    for i in np.flatnonzero(sound & table.columns.isin(racing)):
        wealths, rival = [], None
        if bets.bar is not None:
            # In units of the spread of scores on the bar; still no loss above 1.
            gains = (bets.bar - values[:, [i]]) / math.sqrt(max(1 - bets.bar, 1e-4))
            wealths.append(float(_log_wealth(gains, group, bets.widest)[0]))
        if bets.best and others > 0:
            against = _log_wealth(values - values[:, [i]], group, bets.widest)
            against[~sound | (np.arange(len(names)) == i)] = -np.inf
            worse = float(np.logaddexp.reduce(against)) - math.log(others)
            rival = int(against.argmax()) if worse > max(wealths, default=-np.inf) else None
            wealths.append(worse)
        if wealths:
            mean = float(np.logaddexp.reduce(wealths)) - math.log(len(wealths))
            evidence.append((mean, int(i), rival))
    left = len(racing)
    out: dict[Hashable, Hashable | None] = {}
    for wealth, column, rival in sorted(evidence, key=lambda entry: entry[:2], reverse=True):
        # Rivals cannot beat the last one; the bar can.
        if wealth < math.log(left / ALPHA) or (left == 1 and rival is not None):
            break
        out[names[column]] = None if rival is None else names[rival]
        left -= 1
    return out


def _log_wealth(gains: Numbers, group: Rows | None, widest: int) -> Numbers:
    """Logarithm of what a stake of 1 has become, per column; gains are -1 at least."""
    gains = np.nan_to_num(gains)  # nothing is won or lost on an item without a score
    if group is not None:  # one bet a group, scaled so that it cannot lose more than 1
        sums = np.zeros((group.max() + 1, gains.shape[1]))
        np.add.at(sums, group, gains)
        gains = sums / max(widest, np.bincount(group).max())
    if ((gains == 0) | (abs(gains) == 1)).all():  # right or wrong: counting is faster
        more, less = (gains > 0).sum(axis=0), (gains < 0).sum(axis=0)
        grown = np.outer(more, np.log1p(STAKES)) + np.outer(less, np.log1p(-STAKES))
    else:
        grown = np.stack([np.log1p(stake * gains).sum(axis=0) for stake in STAKES], axis=1)
    wealth: Numbers = np.logaddexp.reduce(grown + SHARES, axis=1)
    return wealth


def drop(
    scored: pd.DataFrame, active: list[str], bets: Bets, baseline: Collection[str] = ()
) -> pd.DataFrame:
    """Which of the `active` deployments cannot win any more, by the items asked so far?

    `scored` is from `steps.score_answers`: all blocks and all deployments so far, those dropped
    before as well. Items with the same `group`, if not blank, are one bet. A `baseline` is neither
    dropped nor a rival.

    Returns:
        One row per active deployment: `deployment dropped after_items reason`.
    """
    names = [name for name in dict.fromkeys(scored["deployment"]) if name not in baseline]
    table = scored.pivot(index="item_id", columns="deployment", values="score").astype(float)
    groups = scored.drop_duplicates("item_id").set_index("item_id").reindex(table.index)
    numbers = group_numbers(groups.get("group"))
    if numbers is None and bets.widest > 1:
        numbers = np.arange(len(table))  # no two of a group so far
    calls = scored["score"].isna().groupby(scored["deployment"]).agg(["sum", "size"])
    flawed = list(calls.index[calls["sum"] > MAX_FAILED_SHARE * calls["size"]])
    out = beaten(table[names], numbers, [n for n in active if n in names], flawed, bets)
    rows = []
    for name in active:
        asked, reason = int(calls["size"].get(name, 0)), ""
        if name in baseline:
            reason = "the baseline is never dropped"
        elif name in flawed:
            reason = f"{calls['sum'][name]} of {asked} calls failed: not comparable,"
            reason += " so not dropped for quality"
        elif name in out and out[name] is None:
            mean = f"{table[name].mean():.3g} on {table[name].count()} items"
            reason = f"dropped after {asked} items: misses min_quality {bets.bar:g}: {mean}"
        elif name in out:
            gap = (table[out[name]] - table[name]).dropna()
            less = f"{gap.mean():.3g} on {len(gap)} items"
            reason = f"dropped after {asked} items: worse than {out[name]} by {less}"
        rows.append((name, name in out, asked, reason))
    return pd.DataFrame(rows, columns=["deployment", "dropped", "after_items", "reason"])


def run(
    brief: Project,
    deployments: list[Deployment],
    items: pd.DataFrame,
    ask: Callable[[list[Deployment], pd.DataFrame], pd.DataFrame],
    score: Callable[[pd.DataFrame], pd.DataFrame],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask the items block by block, only of deployments that can still win.

    Where quality cannot rule a win out all is asked at once. The race ends early when one
    candidate is left, or only such as are the same model and answer alike. With a baseline or
    `min_quality` those are asked the other items too, since these tests want all of them; so
    their intervals are not those of a race stopped at will.

    `ask` gives the answers of some deployments to some items, and `score` the scores of answers,
    one block at a time.

    Returns:
        All answers, those of dropped deployments to the items before; and `deployment dropped
        after_items reason`. A dropped one may not be picked: on its few items it may seem tied.
    """
    # What a win is, and in which order the items are asked.
    baseline = [d.name for d in deployments if d.baseline]
    group = "group" if "group" in items else None
    numbers = group_numbers(items[group]) if group else None
    bets = _bets(brief, 1 if numbers is None else int(np.bincount(numbers).max()))
    blocks = order(items, group=group, block=brief.evaluation.block)
    if bets.bar is None and not (bets.best and len(deployments) - len(baseline) > 1):
        blocks = [list(items["item_id"])]
    # Ask, score and look, block by block.
    left, answered, scored, looks = list(deployments), [], [], []
    for block in blocks:
        answered.append(ask(left, items[items["item_id"].isin(block)]))
        scored.append(score(answered[-1]))
        so_far = pd.concat(scored, ignore_index=True)
        looks.append(drop(so_far, [d.name for d in left], bets, baseline))
        left = [d for d, out in zip(left, looks[-1]["dropped"], strict=True) if not out]
        rivals = [d for d in left if not d.baseline]
        whole = bool(baseline) or brief.requirements.min_quality is not None
        if not rivals or (bets.best and not whole and _alike(so_far, rivals)):
            break
    # All answers in the order of the brief and of the items, and the last look at each.
    answers = pd.concat(answered, ignore_index=True)
    rank = {d.name: n for n, d in enumerate(deployments)}
    row = {item: n for n, item in enumerate(items["item_id"])}
    keys = np.lexsort((answers["item_id"].map(row), answers["deployment"].map(rank)))
    log = pd.concat(looks).drop_duplicates("deployment", keep="last").set_index("deployment")
    return answers.iloc[keys].reset_index(drop=True), log.loc[list(rank)].reset_index()


def _bets(brief: Project, widest: int) -> Bets:
    """What a race may bet on.

    Not on rivals while speed or cost has a bar as well, which the better one may miss in a later
    step. Not on the bar where the score of an item is not what it tests: a win rate changes with
    the field, and a calibrated judge's score is corrected afterwards.
    """
    needs, evaluation = brief.requirements, brief.evaluation
    later = (needs.max_p95_s, needs.min_rps, needs.max_usd_per_1k)
    best = brief.objective == "best" and all(bar is None for bar in later)
    calibrated = evaluation.judge is not None and evaluation.judge.calibration is not None
    comparable = not kinds.of(evaluation.kind).RELATIVE and not calibrated
    return Bets(best, needs.min_quality if comparable else None, widest)


def _alike(scored: pd.DataFrame, deployments: list[Deployment]) -> bool:
    """Whether all are the same model and gave the same answers; true of a single one."""
    if len({d.model for d in deployments}) > 1:
        return False
    mine = scored[scored["deployment"].isin([d.name for d in deployments])]
    answers = mine.assign(output=mine["output"].fillna("")).groupby("item_id")["output"]
    return bool((answers.nunique() == 1).all())
