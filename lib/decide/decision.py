"""Quality, speed and cost side by side, requirements on their bounds, and the ranking."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from lib.brief import Requirements
from lib.decide.costs import ENDS, dollar_signs, total_load
from lib.decide.steps import known_checks
from lib.stats import ALPHA, beaten_by, holm, items_needed, quality_groups, ratio
from lib.tables import number


class Bar(NamedTuple):
    """What a requirement tests: the column of the value, the better side, its words."""

    value: str
    more_is_better: bool
    wording: str
    noun: str
    ends: str = ""  # of its interval: this, or the value's name, and `_low` or `_high`

    @property
    def columns(self) -> tuple[str, str, str]:
        """The columns of the value and of both ends of its interval."""
        ends = self.ends or self.value
        return self.value, f"{ends}_low", f"{ends}_high"


PEAK = "peak_rps"  # of the traffic: a bar for what gets no machine more, see `cost`
BARS = {
    "min_quality": Bar("quality", True, "quality of at least {}", "quality"),
    "max_p95_s": Bar("p95_s", False, "p95 latency of at most {} s", "p95 latency (s)", "p95"),
    "max_ttft_p95_s": Bar(
        "ttft_p95_s", False, "p95 to the first token of at most {} s", "p95 TTFT (s)", "ttft"
    ),
    "max_itl_p95_s": Bar(
        "itl_p95_s", False, "p95 between tokens of at most {} s", "p95 per token (s)", "itl"
    ),
    "min_rps": Bar("borne_rps", True, "at least {} requests/s", "load (requests/s)", "borne"),
    PEAK: Bar("borne_rps", True, "the peak of {} requests/s", "peak", "borne"),
    "max_usd_per_1k": Bar("usd_per_1k", False, "at most ${} per 1,000 requests", "$ per 1,000"),
    "max_usd_per_month": Bar("usd_per_month", False, "at most ${} a month", "$ a month"),
}
SHOWN_BY_LOAD = ("max_p95_s", "max_ttft_p95_s")  # step 5 models the queue of both
BUSY = "a load was disturbed: run step 5 again while nothing else runs on this machine"
FEW = 10  # items: what would do is not known to a single one
MORE_LOADS = "no load from min_rps on shows it: raise speed.budget_s and run step 5 again"
UNKNOWN = dict.fromkeys(SHOWN_BY_LOAD, MORE_LOADS) | {
    "min_rps": "its capacity is not resolved: raise speed.budget_s and run step 5 again",
    "max_itl_p95_s": "no load from min_rps on shows it, or its endpoint counts no tokens",
    "max_usd_per_1k": "its cost is not known: no capacity, or too few answers count their tokens",
    "max_usd_per_month": "its cost a month is not known: no traffic, no capacity, or no tokens",
}
TIES = {
    "cheapest": "the costs cannot be told apart, so the better quality group goes first,"
    " then the lower cost",
    "best": "a paired test cannot tell their quality apart, so the cheaper goes first",
    "fastest": "the capacities cannot be told apart, so the cheaper goes first",
}


def tradeoffs(
    scores: pd.DataFrame, capacity: pd.DataFrame, cost: pd.DataFrame, pairs: pd.DataFrame
) -> pd.DataFrame:
    """Quality (the primary metric), speed and cost in one row per deployment, with intervals.

    The load that a configuration bears, `borne_rps`, is that of all its replicas. The cost of a
    correct answer is a ratio with an interval of its own.
    `beaten_by` names those that a paired test shows to be better, and `tie_group` 1 holds those
    that nobody beats. `on_frontier` are candidates, among themselves.
    """
    primary = scores[scores["primary"].astype(bool)]
    better = primary["deployment"].map(beaten_by(primary, pairs)).map(", ".join)
    primary = primary.assign(beaten_by=better).assign(tie_group=_quality_groups)
    bases = zip(capacity["deployment"], capacity["basis"], strict=True)
    read = {name: f", load {basis}" for name, basis in bases if basis.startswith("read from")}
    loads = primary["deployment"].map(lambda name: read.get(name, ""))
    primary = primary.assign(basis=primary["basis"] + loads)
    quality = {"value": "quality", "low": "quality_low", "high": "quality_high"}
    speed = capacity.drop(columns=["repo_id", "n", "basis"], errors="ignore")
    speed = speed.rename(columns={"low": "rps_low", "high": "rps_high"})
    table = primary.rename(columns=quality).merge(speed, on="deployment", how="left")
    table = table.merge(cost, on="deployment", how="left")
    table = table.assign(**total_load(table))
    correct = [f"usd_per_1k_correct{end}" for end in ENDS]
    parts = table[[f"{of}{end}" for of in ("usd_per_1k", "quality") for end in ENDS]]
    table[correct] = [ratio(row[:3], row[3:]) for row in parts.to_numpy(dtype=float)]
    table["dollars"] = dollar_signs(table["usd_per_1k"])
    gains = np.column_stack([-table["usd_per_1k"], table["max_rps"], table["quality"]])
    gains[table["standing"] != "candidate"] = np.nan
    return table.assign(on_frontier=frontier(gains))


def _quality_groups(table: pd.DataFrame) -> pd.Series[int]:
    """The groups of equal quality that the rows make among themselves."""
    better = dict(zip(table["deployment"], table["beaten_by"].str.split(", "), strict=True))
    return table["deployment"].map(quality_groups(better))


def frontier(gains: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether no other row is as good in all figures and better in one; missing is never.

    More is better in every column; further axes before them, as of draws, stand for themselves.
    """
    each, other = gains[..., :, None, :], gains[..., None, :, :]
    is_beaten = np.all(each <= other, axis=-1) & np.any(each < other, axis=-1)
    return np.asarray(~is_beaten.any(axis=-1) & ~np.isnan(gains).any(axis=-1))


def check(table: pd.DataFrame, requirements: Requirements) -> pd.DataFrame:
    """Test every deployment against every requirement, on the bound of its interval.

    The `verdict` is `met` when the worse bound meets it, `not met` when the better one misses it,
    otherwise `not decided`, and the `note` says what would decide it. Quality that has no figure,
    or is not comparable, is not decided also where the brief sets no bar for it.
    """
    rows: list[tuple[Any, ...]] = []
    records: list[dict[Any, Any]] = table.to_dict("records")
    for row, (name, bar) in product(records, BARS.items()):
        threshold = row[PEAK] if name == PEAK else getattr(requirements, name)
        if name == "min_quality" and (row["comparable"] == "no" or math.isnan(row["quality"])):
            threshold = threshold or 0.0
        if pd.notna(threshold):
            words = bar.wording.format(number(threshold, digits=3 if name == PEAK else 15))
            wanted = words if threshold else "comparable quality"
            interval = [float(row[column]) for column in bar.columns]
            verdict = _verdict(name, row, threshold, *interval)
            if name in SHOWN_BY_LOAD and verdict[0] == "not decided":
                # The capacity is the load up to which p95 keeps to the objective of step 5.
                of_it = row["slo_s"] <= (threshold if name == "max_p95_s" else row["slo_s"])
                enough = 0.0 < row["borne_low"] >= (requirements.min_rps or 0.0)
                if of_it and enough and not str(row["basis"]).startswith("published"):
                    most = f"{number(row['rps_low'])}/s"
                    verdict = "met", f"by the capacity: p95 keeps to the objective up to {most}"
            rows.append((row["deployment"], name, wanted, threshold, *interval, *verdict))
    rows += [(r["deployment"], *one) for r in records for one in known_checks(r, requirements)]
    names = "deployment requirement wanted threshold value low high verdict note"
    return _among_many(pd.DataFrame(rows, columns=names.split()), table)


def _among_many(checks: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Quality that is `met` must also be so among as many candidates as were tried (Holm 1979).

    Of many just under the bar one passes it by luck. A model that is served twice counts once.
    """
    rows = checks.merge(table[["deployment", "repo_id", "standing", "n"]]).set_index(checks.index)
    rows = rows[rows["requirement"].eq("min_quality") & rows["low"].notna()]
    rows = rows[rows["standing"] == "candidate"]
    figures = rows[["value", "low", "threshold"]].to_numpy(dtype=float).T
    error = (figures[0] - figures[1]) / norm.isf(ALPHA / 2)
    z = ((figures[0] - figures[2]) / np.maximum(error, 1e-9)).clip(-30, 30)
    models = list(rows[["repo_id", "value", "low"]].itertuples(index=False, name=None))
    p_adjusted = np.array([p for p, _ in holm(models, norm.sf(z))])
    for at in np.flatnonzero((p_adjusted > ALPHA) & rows["verdict"].eq("met").to_numpy()).tolist():
        more = rows["n"].iloc[at] * ((norm.isf(ALPHA / len(set(models))) / z[at]) ** 2 - 1)
        note = f"met alone, but one of {len(set(models))} candidates may be so by luck"
        note += f": about {max(more, FEW):,.0f} more items would show it"
        checks.loc[rows.index[at], ["verdict", "note"]] = "not decided", note
    return checks


def _verdict(
    name: str, row: Mapping[Any, Any], wanted: float, value: float, low: float, high: float
) -> tuple[str, str]:
    basis = str(row["basis"])
    if basis.startswith("published"):
        return "not decided", "a published figure has no interval: measure it"
    of_load = name not in ("min_quality", "max_usd_per_1k", "max_usd_per_month")
    busy = BUSY * (of_load and row.get("disturbed") in (True,))
    if basis.startswith("recorded") and ", load" not in basis and of_load and math.isnan(value):
        guess = row["estimated_load"] and f": {row['estimated_load']}" * (name == "min_rps")
        return "not decided", f"recorded answers: there is no endpoint to measure{guess}"
    missed_by = {"TTFT": "max_ttft_p95_s", "inter-token latency": "max_itl_p95_s"}
    if row["max_rps"] == 0 and name == missed_by.get(row["binds"], "max_p95_s"):
        return "not met", "no load tried stayed within it"
    if name == "min_quality" and row["comparable"] == "no":
        why = f"{row['n_failed']} calls failed" if row["n_failed"] else "the model changed"
        return "not decided", f"not comparable: {why}; run step 4 again"
    is_load = name in ("min_rps", PEAK)
    nearer = "an open loop nearer to it, in load_results, would do" * (", load read" in basis)
    if math.isnan(value) and not (nearer and (is_load or name == "max_p95_s")):
        what = UNKNOWN.get("min_rps" if is_load else name) or f"its quality has no figure: {basis}"
        return "not decided", busy or what
    # Turned so that more is better: met at the worse bound, missed at the better one.
    sign = 1 if BARS[name].more_is_better else -1
    worse, better = (low, high) if sign == 1 else (high, low)
    if sign * worse >= sign * wanted:
        return "met", ""
    # A load that failed is itself the bound: the capacity lies below it.
    ends = " to ".join(dict.fromkeys(number(end, beside=wanted) for end in (low, high)))
    ends = f"at least {number(low, beside=wanted)}" if math.isnan(high) else ends
    against_peak = f"it bears {ends}/s, your peak is {number(wanted)}/s" * (name == PEAK)
    if sign * better < sign * wanted or (is_load and high == wanted):
        return "not met", against_peak
    if name != "min_quality":
        note = busy or nearer or "more requests or probes would do"
        return "not decided", f"{against_peak or 'the interval is too wide'}: {note}"
    if math.isnan(low + high):
        return "not decided", f"no interval of {row['metric']} can be trusted on so few items"
    n = int(row["n"])
    if (total := items_needed(value, wanted, n=n, low=low, high=high)) is None:
        return "not decided", "the measured quality lies on the bar: no number of items decides it"
    way = "meets" if value > wanted else "misses"
    note = f"about {max(total - n, FEW):,} more items would show that it {way} it, if this holds"
    return "not decided", note


def qualify(table: pd.DataFrame, checks: pd.DataFrame) -> pd.DataFrame:
    """Add `qualifies` (`yes`, `no`, `not decided`) and `why`; only a `candidate` can qualify."""
    failures = checks[checks["verdict"] != "met"].groupby(["deployment", "verdict"])["wanted"]
    wanted = failures.agg("; ".join).to_dict()
    answers = []
    for row in table.to_dict("records"):
        misses, open_ = (wanted.get((row["deployment"], v)) for v in ("not met", "not decided"))
        cases = [
            (row["standing"] != "candidate", "no", row["standing"]),
            (row["against_baseline"] == "worse", "no", "worse than the baseline beyond the margin"),
            (misses, "no", f"misses {misses}"),
            (open_, "not decided", f"not shown: {open_}"),
            (row["max_rps"] > 0, "yes", "meets every requirement"),
            (row["max_rps"] == 0, "not decided", "no load tried stayed within the objective"),
            (True, "not decided", "its capacity is not known: run step 5 again"),
        ]
        answers.append(next(words for holds, *words in cases if holds))
    return table.assign(qualifies=[word for word, _ in answers], why=[why for _, why in answers])


def choose(table: pd.DataFrame, objective: str) -> tuple[list[str], str]:
    """The deployments that qualify in order of preference, and the first one's rule, of `TIES`.

    Groups of equals are made among those that can still be preferred: a baseline or an unfit one
    that both of two tie with does not make them equal.
    """
    rivals = table[table["qualifies"] == "yes"]
    order, rule = list[str](), ""
    by = ["tie_group", "usd_per_1k"] if objective == "cheapest" else ["usd_per_1k"]
    while len(rivals):
        equals = rivals[_ties(rivals, objective)].assign(tie_group=_quality_groups)
        tie = equals.sort_values(by, kind="stable")["deployment"]
        alone = f"{tie.iloc[0]} is the {objective} without a tie"
        ties = f"{', '.join(tie)} tie for {objective}: {TIES[objective]}"
        rule = rule or (ties if len(tie) > 1 else alone)
        order.append(str(tie.iloc[0]))
        rivals = rivals[rivals["deployment"] != order[-1]]
    return order, rule


def _ties(table: pd.DataFrame, objective: str) -> pd.Series[bool]:
    """The leader, and all that cannot be told apart from it."""
    if objective == "best":
        return _quality_groups(table) == 1
    # By the value of a rival, not its better bound: to be measured badly must not win a tie. What
    # no load broke may bear any and cost next to nothing; published, it says what it says.
    has_interval = table["rps_low"].notna()
    if objective == "cheapest":
        dollars = table["usd_per_1k"]
        leader: Any = dollars.fillna(np.inf).idxmin()
        no_load_broke_it = has_interval & dollars.notna() & table["usd_per_1k_low"].isna()
        most = table["usd_per_1k_high"].fillna(np.inf).where(has_interval, dollars)
        overlaps = no_load_broke_it | (dollars <= most[leader])
    else:
        rps = table["max_rps"]
        leader = rps.fillna(-np.inf).idxmax()
        no_load_broke_it = has_interval & table["rps_high"].isna()
        overlaps = no_load_broke_it | (rps >= table["rps_low"].where(has_interval, rps)[leader])
    return pd.Series(overlaps | (table.index == leader))


def nearest_miss(checks: pd.DataFrame) -> dict[str, Any] | None:
    """The deployment that fails the fewest requirements by the least, and what must give.

    One that is only not decided is nearer than one that is known to miss. Returned are
    `deployment requirement wanted measured would_have_to_give`; None where nothing was missed.
    """
    failures = checks[checks["verdict"] != "met"]
    if failures.empty:
        return None
    more = failures["requirement"].map(lambda name: name not in BARS or BARS[name].more_is_better)
    bound = failures["low"].where(more, failures["high"])
    gap = ((bound - failures["threshold"]).abs() / failures["threshold"]).fillna(np.inf)
    ends = [number(b, beside=t) for b, t in zip(bound, failures["threshold"], strict=True)]
    text = failures["requirement"] + " would have to be " + ends
    give = failures["note"].where(failures["note"] != "", text)
    failures = failures.assign(gap=gap, give=give, misses=failures["verdict"] == "not met")
    groups = [group for _, group in failures.groupby("deployment", sort=False)]
    nearest = min(groups, key=lambda group: (group["misses"].sum(), len(group), group["gap"].max()))
    worst = (nearest := nearest.sort_values("gap", kind="stable")[::-1]).iloc[0]
    figures = [number(worst[c], beside=worst["threshold"]) for c in ("value", "low", "high")]
    figure = "no figure" if math.isnan(worst["value"]) else "{} [{}, {}]".format(*figures)
    words = {"measured": figure, "would_have_to_give": " and ".join(nearest["give"])}
    return {key: worst[key] for key in ("deployment", "requirement", "wanted")} | words
