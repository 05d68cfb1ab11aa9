"""What would change the pick: the smallest change of each price, of the traffic and of each bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import pandas as pd

from lib.brief import Project
from lib.decide.costs import PRICES, at_traffic
from lib.decide.decision import BARS, TIES, check, choose, qualify
from lib.decide.draws import LATENCIES

STEPS = (1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 4.0, 10.0)  # factors tried, the nearest first
HALVINGS = 14  # of the gap between the last factor that holds and the first that flips

Pick = Callable[[float], str]  # by the factor of a figure


def flip_points(table: pd.DataFrame, brief: Project) -> pd.DataFrame:
    """The smallest change of each figure that changes the pick, the nearest first.

    Columns: the `change`, the `value` now and the one that it `flips_at`, the `factor` between
    them, and the `pick` then ("none" where nobody qualifies). `flips_at` is missing where none of
    `STEPS`, up to ten or down to a tenth, changes the pick; a flip in a window narrower than they
    lie apart, as by whole machines, may be missed. Last come changes that have no value: the pick
    withdrawn, or its licence turned to review, a requirement without a measured figure dropped,
    and another objective.
    """
    now = first(table, brief)
    flips = [(what, value, *_nearest(at, now)) for what, value, at in _figures(table, brief)]
    rows = [(what, value, value * by, by, pick) for what, value, by, pick in flips]
    rows.sort(key=lambda row: abs(math.log(row[3])) if row[3] > 0 else math.inf)
    others = {}
    if now != "none":
        rivals = table[table["deployment"] != now]
        others[f"{now} withdrawn, or its licence in review"] = first(rivals, brief)
    for name in brief.requirements.model_dump(exclude=set(BARS), exclude_none=True):
        bars = brief.requirements.model_copy(update={name: None})
        others[f"without {name}"] = first(table, brief.model_copy(update={"requirements": bars}))
    others |= {f"objective {o}": first(table, brief, o) for o in TIES if o != brief.objective}
    rows += [(change, math.nan, math.nan, math.nan, pick) for change, pick in others.items()]
    return pd.DataFrame(rows, columns=["change", "value", "flips_at", "factor", "pick"])


def first(table: pd.DataFrame, brief: Project, objective: str = "") -> str:
    """The pick from these figures, or "none"."""
    qualified = qualify(table, check(table, brief.requirements))
    return [*choose(qualified, objective or brief.objective)[0], "none"][0]


def _figures(table: pd.DataFrame, brief: Project) -> Iterator[tuple[str, float, Pick]]:
    """Every figure that may turn out otherwise, its value, and the pick by its factor."""

    def with_price(name: str) -> Pick:
        of = table["deployment"] == name
        return lambda factor: first(
            table.assign(**{c: table[c].where(~of, table[c] * factor) for c in PRICES}), brief
        )

    def with_setting(section: str, key: str, value: float) -> Pick:
        def pick(factor: float) -> str:
            values = getattr(brief, section).model_copy(update={key: value * factor})
            other = brief.model_copy(update={section: values})
            return first(at_traffic(table, other), other)

        return pick

    for row in table[table["standing"] == "candidate"].to_dict("records"):
        if not math.isnan(row["usd_per_1k"]):
            name = row["deployment"]
            yield f"price of {name} ($ per 1,000 requests)", row["usd_per_1k"], with_price(name)
    if traffic := brief.traffic:
        day = traffic.requests_per_day
        yield "requests a day", day, with_setting("traffic", "requests_per_day", day)
    for name, bar in BARS.items():  # another latency would need other loads: run step 5 for it
        if name not in LATENCIES and (threshold := getattr(brief.requirements, name, None)):
            yield f"the bar on {bar.noun}", threshold, with_setting("requirements", name, threshold)


def _nearest(pick_at: Pick, now: str) -> tuple[float, str]:
    """The factor nearest to 1, up or down, that changes the pick, and the pick there."""
    for last, step in pairwise((1.0, *STEPS)):
        pairs = []
        for holds, flips in ((last, step), (1 / last, 1 / step)):
            if (pick := pick_at(flips)) == now:
                continue
            for _ in range(HALVINGS):
                middle = math.sqrt(holds * flips)
                if (there := pick_at(middle)) == now:
                    holds = middle
                else:
                    flips, pick = middle, there
            pairs.append((flips, pick))
        if pairs:
            return min(pairs, key=lambda flip: abs(math.log(flip[0])))
    return math.nan, now
