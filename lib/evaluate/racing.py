"""Racing: ask items in blocks and drop the candidates that cannot win any more.

What winning means is the brief's objective. The best has the highest quality, so a candidate
is out once it is certainly worse than another. The cheapest (or fastest) need not be the best,
so there a worse candidate stays, unless it certainly misses `requirements.min_quality`.
`drop` says how certain that is, `run` where racing does not apply.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from lib.brief.project import Deployment, Project
from lib.errors import PlaybookError
from lib.evaluate.scoring import MAX_FAILED_SHARE
from lib.stats.intervals import Rows, codes

__all__ = ["drop", "order", "run"]

GROWTH = 0.1  # a block is no smaller than this share of what was asked before it
STAKES = np.array([0.05, 0.1, *np.linspace(0.2, 0.8, 7)])
SHARES = np.log(STAKES / STAKES.sum())  # small stakes matter only after thousands of items
COLUMNS = ["deployment", "dropped", "after_items", "reason"]
Numbers = npt.NDArray[np.float64]


def order(items: pd.DataFrame, *, group: str | None = None, block: int = 25) -> list[list[str]]:
    """Shuffle the items into blocks, so that each block is a fair sample of them all.

    The order hangs on the names alone (SHA-256), not on the order of the file: a run that is
    resumed, or has got more items, asks those it has in the same order again.

    Args:
        items: With `item_id`.
        group: The column whose items stay together; a blank there is a group of its own.
        block: Items a block at least. After ten blocks they grow, a tenth of what was asked
            before, so that a long race does not wait for the slowest call hundreds of times.

    Returns:
        The item ids of every block; each id is in exactly one.
    """
    ids = items["item_id"].tolist()
    number = codes(items[group] if group else None, len(ids))
    together: dict[object, list[str]] = {}
    for i, item in enumerate(ids):
        together.setdefault(i if number is None else number[i], []).append(item)
    digest = {item: hashlib.sha256(item.encode()).digest() for item in ids}
    shuffled = sorted((sorted(own) for own in together.values()), key=lambda own: digest[own[0]])
    blocks: list[list[str]] = [[]]
    asked = 0
    for own in shuffled:
        if len(blocks[-1]) >= max(block, GROWTH * asked):
            asked += len(blocks[-1])
            blocks.append([])
        blocks[-1] += own
    return blocks


def drop(
    scored: pd.DataFrame,
    *,
    active: Sequence[str],
    objective: str,
    min_quality: float | None = None,
    baseline: Collection[str] = (),
    alpha: float = 0.05,
    widest: int | None = None,
) -> pd.DataFrame:
    """Which candidates cannot win any more, by the items asked so far?

    Evidence is wealth won by betting (Waudby-Smith & Ramdas 2023): start with 1 and stake a
    share s on each item, so wealth grows by `1 + s × (rival's score − candidate's)`, averaged
    over a grid of s. If the candidate is as good as the rival, that reaches 1/a with chance a
    at most, however often one looks (Ville), with graded scores and few items alike. A
    candidate's wealth is the mean over its rivals; against the bar it bets on `min_quality −
    score` instead, and with both the mean of both counts. It is dropped at wealth
    k / alpha, where k candidates are left (Holm, step by step): with chance 1 − alpha the whole
    race drops nobody who is as good as the best (or meets the bar), also where several tie.
    Exact McNemar tests, corrected for looks and candidates, save no more calls (39 % against
    38 % at 1,000 items, the same at 200) and know no graded scores.

    Args:
        scored: From `scoring.score_answers`, all blocks and all deployments so far, those
            dropped before as well. A missing score (a failed call) is a missing pair, not a
            loss. Items with the same `group`, if not blank, are one bet.
        active: Deployments still in the race.
        objective: `best` compares with rivals; `cheapest` and `fastest` only with the bar.
        min_quality: The bar on the mean score, if there is one.
        baseline: Deployments that are neither dropped nor rivals: what they replace is no
            candidate.
        alpha: The error level of the whole race.
        widest: Items of the largest group, also of those not asked yet; the same at each look.

    Returns:
        One row per active deployment: `deployment dropped after_items reason`. More than 2 %
        of calls failed, and a candidate is not dropped and drops nobody: its `reason` says so.
    """
    names = [name for name in dict.fromkeys(scored["deployment"]) if name not in set(baseline)]
    table = scored.pivot(index="item_id", columns="deployment", values="score").astype(float)
    missing = scored["score"].isna().groupby(scored["deployment"]).agg(["sum", "size"])
    flawed = set(missing.index[missing["sum"] > MAX_FAILED_SHARE * missing["size"]])
    groups = scored.drop_duplicates("item_id").set_index("item_id").reindex(table.index)
    number = codes(groups.get("group"), len(table))
    if number is None and (widest or 1) > 1:
        number = np.arange(len(table))  # no two of a group so far
    racing = np.array([name in set(active) for name in names], dtype=bool)
    sound = np.array([name not in flawed for name in names], dtype=bool)
    reasons = _beaten(
        table[names].to_numpy(),
        racing,
        sound,
        best=objective == "best",
        bar=min_quality,
        alpha=alpha,
        group=number,
        widest=widest,
    )
    rows = []
    for name in active:
        reason, dropped = "", False
        if name in baseline:
            reason = "the baseline is never dropped"
        elif name in flawed:
            failed, size = missing.loc[name]
            reason = f"{failed} of {size} calls failed: not comparable, so not dropped for quality"
        elif (rival := reasons.get(names.index(name) if name in names else -1)) is not None:
            dropped = True
            own = table[name]
            if rival < 0:
                reason = f"misses min_quality {min_quality:g}: {own.mean():.3g}"
                reason += f" on {own.count()} items"
            else:
                gap = (table[names[rival]] - own).dropna()
                reason = f"worse than {names[rival]} by {gap.mean():.3g} on {len(gap)} items"
        asked = int(missing["size"].get(name, 0))
        if dropped:
            reason = f"dropped after {asked} items: {reason}"
        rows.append(
            {"deployment": name, "dropped": dropped, "after_items": asked} | {"reason": reason}
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _beaten(
    values: Numbers,
    racing: npt.NDArray[np.bool_],
    sound: npt.NDArray[np.bool_],
    *,
    best: bool,
    bar: float | None,
    alpha: float,
    group: Rows | None = None,
    widest: int | None = None,
) -> dict[int, int]:
    """The columns that are out, each with the rival that says so most clearly (-1: the bar).

    `values` holds items by candidates; only columns both `racing` and `sound` can be out.
    """
    count = values.shape[1]
    found: list[tuple[float, int, int]] = []
    for i in np.flatnonzero(racing & sound):
        parts, rival, miss = [], -1, -np.inf
        if bar is not None:
            # In units of the spread of scores on the bar; still no loss above 1.
            gains = (bar - values[:, [i]]) / math.sqrt(max(1 - bar, 1e-4))
            miss = float(_log_wealth(gains, group, widest)[0])
            parts.append(miss)
        if best and count > 1:
            wealth = _log_wealth(values - values[:, [i]], group, widest)
            wealth[~sound | (np.arange(count) == i)] = -np.inf
            worse = float(np.logaddexp.reduce(wealth)) - np.log(count - 1)
            parts.append(worse)
            rival = int(wealth.argmax()) if worse > miss else -1
        if parts:
            found.append((float(np.logaddexp.reduce(parts)) - np.log(len(parts)), int(i), rival))
    left = int(racing.sum())
    out: dict[int, int] = {}
    for wealth_of, column, rival in sorted(found, reverse=True):
        # Rivals cannot beat the last one; the bar can.
        if wealth_of < np.log(left / alpha) or (left == 1 and rival >= 0):
            break
        out[column] = rival
        left -= 1
    return out


def _log_wealth(gains: Numbers, group: Rows | None, widest: int | None) -> Numbers:
    """Logarithm of what a stake of 1 has become, per column; gains are -1 at least."""
    gains = np.nan_to_num(gains)  # nothing is won or lost on an item without a score
    if group is not None:  # one bet a group, scaled so that it cannot lose more than 1
        sums = np.zeros((group.max() + 1, gains.shape[1]))
        np.add.at(sums, group, gains)
        gains = sums / max(widest or 1, np.bincount(group).max())
    if ((gains == 0) | (abs(gains) == 1)).all():  # right or wrong: counting is faster
        more, less = (gains > 0).sum(axis=0), (gains < 0).sum(axis=0)
        grown = np.outer(more, np.log1p(STAKES)) + np.outer(less, np.log1p(-STAKES))
    else:
        grown = np.stack([np.log1p(stake * gains).sum(axis=0) for stake in STAKES], axis=1)
    wealth: Numbers = np.logaddexp.reduce(grown + SHARES, axis=1)
    return wealth


def run(
    brief: Project,
    deployments: list[Deployment],
    items: pd.DataFrame,
    ask: Callable[[list[Deployment], pd.DataFrame], pd.DataFrame],
    score: Callable[[pd.DataFrame], pd.DataFrame],
    *,
    alpha: float = 0.05,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask the items block by block, only of deployments that can still win.

    Nobody is dropped where quality cannot rule a win out: with another objective than `best`
    and no `min_quality`; and, with `best`, nobody for being worse than another while speed or
    cost has a bar as well, which the better one may miss in a later step. `min_quality` is not
    raced against where the score of an item is not what it tests: a win rate changes with the
    field, and a calibrated judge's score is corrected afterwards.

    The race ends early when one candidate is left, or only such as are the same model and
    answer alike. With a baseline or `min_quality` those are asked the other items too, since
    these tests want all of them; so their intervals are not those of a race stopped at will.

    Args:
        brief: Its `evaluation.block`, `objective` and `requirements` say how it is raced.
        deployments: Those to be asked.
        items: From `items.load_items`.
        ask: Answers of these deployments to these items, such as `answers.ask`; what the store
            holds is not asked again.
        score: Scores of answers, such as `scoring.score_answers` with what it needs; one block
            at a time.
        alpha: The error level of the whole race.

    Returns:
        All answers, those of dropped deployments to the items before; and one row per deployment
        `deployment dropped after_items reason`. A dropped one may not be picked: on its
        few items it may seem tied. So compare those left with each other only.

    Raises:
        PlaybookError: The kind of task is not asked item by item.
    """
    kind = brief.evaluation.kind
    if kind in ("published", "inspect"):
        raise PlaybookError(
            f"evaluation.strategy 'racing' asks item by item, kind {kind!r} does not;"
            " write strategy: full"
        )
    baseline = [d.name for d in deployments if d.baseline]
    objective, bar = _aim(brief)
    group = "group" if "group" in items else None
    number = codes(items[group] if group else None, len(items))
    widest = None if number is None else int(np.bincount(number).max())
    blocks = order(items, group=group, block=brief.evaluation.block)
    if bar is None and (objective != "best" or len(deployments) - len(baseline) < 2):
        blocks = [list(items["item_id"])]
    left, answered, scored = list(deployments), [], []
    log: dict[str, pd.DataFrame] = {}
    for block in blocks:
        answered.append(ask(left, items[items["item_id"].isin(block)]))
        scored.append(score(answered[-1]))
        so_far = pd.concat(scored, ignore_index=True)
        looked = drop(
            so_far,
            active=[d.name for d in left],
            objective=objective,
            min_quality=bar,
            baseline=baseline,
            alpha=alpha,
            widest=widest,
        )
        log |= {str(row["deployment"].iloc[0]): row for _, row in looked.groupby("deployment")}
        out = set(looked.loc[looked["dropped"], "deployment"])
        left = [d for d in left if d.name not in out]
        rivals = [d for d in left if not d.baseline]
        more = bool(baseline) or brief.requirements.min_quality is not None
        if not rivals or (objective == "best" and _alike(so_far, rivals) and not more):
            break
    names = [d.name for d in deployments]
    answers = pd.concat(answered, ignore_index=True)
    place = {name: n for n, name in enumerate(names)}
    row = {item: n for n, item in enumerate(items["item_id"])}
    keys = np.lexsort((answers["item_id"].map(row), answers["deployment"].map(place)))
    return (
        answers.iloc[keys].reset_index(drop=True),
        pd.concat([log[name] for name in names if name in log], ignore_index=True),
    )


def _aim(brief: Project) -> tuple[str, float | None]:
    """The objective and the bar that a race may use; see `run`."""
    needs, evaluation = brief.requirements, brief.evaluation
    others = (needs.max_p95_s, needs.min_rps, needs.max_usd_per_1k)
    undecided = brief.objective == "best" and any(value is not None for value in others)
    calibrated = evaluation.judge is not None and evaluation.judge.calibration is not None
    comparable = evaluation.kind != "comparison" and not calibrated
    return "cheapest" if undecided else brief.objective, needs.min_quality if comparable else None


def _alike(scored: pd.DataFrame, deployments: list[Deployment]) -> bool:
    """Whether all are the same model and gave the same answers; true of a single one."""
    if len({d.model for d in deployments}) > 1:
        return False
    own = scored[scored["deployment"].isin([d.name for d in deployments])]
    answers = own.assign(output=own["output"].fillna("")).groupby("item_id")["output"]
    return bool((answers.nunique() == 1).all())
