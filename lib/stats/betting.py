"""Who is certainly worse, however often one looks: evidence as wealth won by betting."""

import hashlib
import math
from collections.abc import Collection, Hashable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lib.stats.intervals import ALPHA, Floats, Rows, group_numbers

STAKES = np.array([0.05, 0.1, *np.linspace(0.2, 0.8, 7)])
SHARES = np.log(STAKES / STAKES.sum())  # small stakes matter only after thousands of items


def shuffled_blocks(items: pd.DataFrame, *, block: int = 25) -> list[list[str]]:
    """Shuffle the items into blocks of ids, so that each block is a fair sample of them all.

    The order hangs on the names alone (SHA-256), so that a run is resumed in it. Items of one
    `group` stay together, if it is not blank. A block has `block` items at least, later a tenth of
    what was asked before: few waits for a slowest call.
    """
    numbers = group_numbers(items.get("group"))
    together = items["item_id"].groupby(np.arange(len(items)) if numbers is None else numbers)
    draws = (sorted(ids) for _, ids in together)
    blocks, placed = [list[str]()], 0
    for ids in sorted(draws, key=lambda ids: hashlib.sha256(ids[0].encode()).digest()):
        if len(blocks[-1]) >= max(block, placed / 10):
            placed += len(blocks[-1])
            blocks.append([])
        blocks[-1] += ids
    return blocks


class Bets(NamedTuple):
    """What is bet against a candidate."""

    best: bool  # that a rival is better
    bar: float | None = None  # that its mean score lies below this
    widest: int = 1  # items of the largest group, also of those not asked yet


def race_losers(
    table: pd.DataFrame,
    group: Rows | None,
    racing: Collection[Hashable],
    flawed: Collection[Hashable],
    bets: Bets,
) -> dict[Any, Any]:
    """The candidates that are out, each with the rival that says so most clearly (None: the bar).

    Evidence is wealth won by betting (Waudby-Smith & Ramdas 2023): start with 1 and stake a
    share s on each item, so wealth grows by `1 + s × (rival's score − candidate's)`, averaged
    over a grid of s. If the candidate is as good as the rival, that reaches 1/a with chance a
    at most, however often one looks (Ville). A candidate's wealth is the mean over its rivals;
    against the bar it bets on `bar − score`. It is out at wealth k / 0.05, where k candidates
    race on (Holm): with chance 95 % the race drops nobody who is as good as the best (or the bar).

    `table` holds scores by item and candidate; a missing one is a missing pair, not a loss. The
    `flawed`, whose calls failed too often, are not out for it, and nobody's rivals.
    """
    values, names = table.to_numpy(), table.columns
    sound = ~names.isin(flawed)
    evidence: list[tuple[float, int, int | None]] = []
    for i in np.flatnonzero(sound & names.isin(racing)):
        wealth: list[tuple[float, int | None]] = []
        if bets.bar is not None:
            # In units of the spread of scores on the bar; still no loss above 1.
            gains = (bets.bar - values[:, [i]]) / math.sqrt(max(1 - bets.bar, 1e-4))
            wealth.append((float(_log_wealth(gains, group, bets.widest)[0]), None))
        if bets.best and len(names) > 1:
            against = _log_wealth(values - values[:, [i]], group, bets.widest)
            against[~sound | (np.arange(len(names)) == i)] = -np.inf
            worse = float(np.logaddexp.reduce(against)) - math.log(len(names) - 1)
            wealth.append((worse, int(against.argmax())))
        if wealth:
            mean = float(np.logaddexp.reduce([w for w, _ in wealth])) - math.log(len(wealth))
            evidence.append((mean, int(i), max(wealth, key=lambda won: won[0])[1]))
    n_racing = len(racing)
    out = {}
    for mean, column, rival in sorted(evidence, key=lambda entry: entry[:2], reverse=True):
        # Rivals cannot beat the last one; the bar can.
        if mean < math.log(n_racing / ALPHA) or (n_racing == 1 and rival is not None):
            break
        out[names[column]] = None if rival is None else names[rival]
        n_racing -= 1
    return out


def _log_wealth(gains: Floats, group: Rows | None, widest: int) -> Floats:
    """Logarithm of what a stake of 1 has become, per column; gains are -1 at least."""
    gains = np.nan_to_num(gains)  # nothing is won or lost on an item without a score
    if group is not None:  # one bet a group, scaled so that it cannot lose more than 1
        sums = np.zeros((group.max() + 1, gains.shape[1]))
        np.add.at(sums, group, gains)
        gains = sums / max(widest, np.bincount(group).max())
    grown = np.stack([np.log1p(stake * gains).sum(axis=0) for stake in STAKES], axis=1)
    return np.asarray(np.logaddexp.reduce(grown + SHARES, axis=1))
