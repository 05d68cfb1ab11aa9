"""Racing: ask items in blocks and drop the candidates that cannot win any more.

For the best that is who is certainly worse than another; the cheapest or fastest need not be the
best, so there only who certainly misses `requirements.min_quality`.
"""

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd

from lib.brief import Deployment, Project
from lib.evaluate import kinds
from lib.evaluate.scoring import MAX_FAILED_SHARE
from lib.stats import Bets, by_item, group_numbers, race_losers, shuffled_blocks


def drop(
    scored: pd.DataFrame, active: list[str], bets: Bets, baseline: Collection[str] = ()
) -> dict[str, str]:
    """Which of the `active` deployments cannot win any more, by the items asked so far, and why?

    `scored` is from `steps.score`: all blocks and all deployments so far. Items of one
    `group` are one bet; a `baseline` is neither active nor a rival.
    """
    names = [name for name in dict.fromkeys(scored["deployment"]) if name not in baseline]
    table, groups = by_item(scored)
    numbers = group_numbers(groups)
    if numbers is None and bets.widest > 1:
        numbers = np.arange(len(table))  # no two of a group so far
    calls = scored["score"].isna().groupby(scored["deployment"]).agg(["sum", "size"])
    flawed = list(calls.index[calls["sum"] > MAX_FAILED_SHARE * calls["size"]])
    reasons = {}
    for name, rival in race_losers(table[names], numbers, active, flawed, bets).items():
        gap = (table[name] if rival is None else table[rival] - table[name]).dropna()
        by = f"worse than {rival} by" if rival else f"misses min_quality {bets.bar:g}:"
        figure = f"{gap.mean():.3g} on {len(gap)} items"
        reasons[str(name)] = f"dropped after {calls['size'][name]} items: {by} {figure}"
    return reasons


def run(
    brief: Project,
    items: pd.DataFrame,
    ask: Callable[[list[Deployment], pd.DataFrame], pd.DataFrame],
    score: Callable[[pd.DataFrame], pd.DataFrame],
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Ask the items block by block, only of deployments of the brief that can still win.

    Where quality cannot rule a win out all is asked at once. The race ends early when one
    candidate is left, or only such as are the same model and answer alike; with a baseline or
    `min_quality`, whose tests want all items, those are asked the other items too.

    `ask` and `score` take one block at a time. Returned are all answers, and why deployments were
    dropped, by name.
    """
    # What a win is, and in which order the items are asked.
    names = [d.name for d in brief.deployments]
    baseline = [d.name for d in brief.deployments if d.baseline]
    numbers = group_numbers(items.get("group"))
    bets = _bets(brief, 1 if numbers is None else int(np.bincount(numbers).max()))
    blocks = shuffled_blocks(items, block=brief.evaluation.block)
    if bets.bar is None and not (bets.best and len(names) - len(baseline) > 1):
        blocks = [list(items["item_id"])]
    whole = bool(baseline) or brief.requirements.min_quality is not None
    # Ask, score and look, block by block.
    left, answered, scored, dropped = brief.deployments, [], [], dict[str, str]()
    for block in blocks:
        answered.append(ask(left, items[items["item_id"].isin(block)]))
        scored.append(score(answered[-1]))
        so_far = pd.concat(scored, ignore_index=True)
        dropped |= drop(so_far, [d.name for d in left if not d.baseline], bets, baseline)
        left = [d for d in left if d.name not in dropped]
        rivals = [d for d in left if not d.baseline]
        if not rivals or (bets.best and not whole and _alike(so_far, rivals)):
            break
    # All in the order of the brief and of the items.
    answers = pd.concat(answered, ignore_index=True)
    rank = {name: place for place, name in enumerate(names)}
    row = {item: place for place, item in enumerate(items["item_id"])}
    keys = np.lexsort((answers["item_id"].map(row), answers["deployment"].map(rank)))
    reasons = {name: dropped[name] for name in names if name in dropped}
    return answers.iloc[keys].reset_index(drop=True), reasons


def _bets(brief: Project, widest: int) -> Bets:
    """What a race may bet on.

    Not on rivals while speed or cost has a bar as well, which the better one may miss later. Not
    on the bar where an item's score is not what it tests: a calibrated judge's is corrected
    afterwards, and a win rate is one against the whole field, which then nobody may leave.
    """
    needs, evaluation = brief.requirements, brief.evaluation
    relative = kinds.of(evaluation.kind).RELATIVE
    other_bars = needs.model_dump(exclude={"min_quality"}, exclude_none=True)
    best = brief.objective == "best" and not other_bars
    calibrated = evaluation.judge is not None and evaluation.judge.calibration is not None
    if relative or calibrated:
        return Bets(best and not (relative and needs.min_quality), None, widest)
    return Bets(best, needs.min_quality, widest)


def _alike(scored: pd.DataFrame, deployments: list[Deployment]) -> bool:
    """Whether all are the same model and gave the same answers; true of a single one."""
    if len({d.model for d in deployments}) > 1:
        return False
    rows = scored[scored["deployment"].isin([d.name for d in deployments])]
    return bool((rows["output"].fillna("").groupby(rows["item_id"]).nunique() == 1).all())
