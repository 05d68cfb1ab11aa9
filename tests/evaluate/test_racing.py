"""Racing against the full design, in seeded simulations, and its rules one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openai_stub
import pandas as pd
import pytest
from openai_stub import Reply
from scipy.stats import binom, norm
from scored import score_answers, summarise

from lib.brief.deployment import Deployment
from lib.brief.project import Project
from lib.evaluate import answers, racing
from lib.stats import betting
from lib.stats.betting import Bets
from lib.stats.intervals import wilson
from lib.stats.paired_tests import compare_pairs
from lib.stats.ranking import tie_groups

Matrix = npt.NDArray[np.float64]
EIGHT = (0.90, 0.86, 0.84, 0.80, 0.75, 0.70, 0.65, 0.60)
ITEMS = pd.DataFrame({"item_id": [f"i{n}" for n in range(1000)]})
BEST = Bets(best=True)
LOOKS = np.cumsum([len(block) for block in betting.shuffled_blocks(ITEMS)])


def right(rng: np.random.Generator, shares: Any, n: int, alike: float = 0.6) -> Matrix:
    """Items by candidates, right or wrong; hard items are hard for all (a probit model)."""
    hard = rng.normal(size=(n, 1)) * np.sqrt(alike)
    own = rng.normal(size=(n, len(shares))) * np.sqrt(1 - alike)
    return (hard + own < norm.ppf(shares)).astype(float)


def beaten(
    values: Matrix, left: npt.NDArray[np.bool_], bets: Bets, group: Any = None
) -> dict[Any, Any]:
    return betting.race_losers(pd.DataFrame(values), group, list(np.flatnonzero(left)), [], bets)


def race(full: Matrix, bets: Bets = BEST) -> tuple[Matrix, npt.NDArray[np.bool_]]:
    """What a race asks of a full design (the rest is missing), and who is left."""
    asked = np.full_like(full, np.nan)
    left = np.ones(full.shape[1], dtype=bool)
    start = 0
    for stop in LOOKS[LOOKS <= len(full)]:
        asked[start:stop, left] = full[start:stop, left]
        start = stop
        left[list(beaten(asked[:stop], left, bets))] = False
        if not left.any() or (left.sum() == 1 and bets.bar is None):
            break
    return asked, left


def tied(table: Matrix, left: npt.NDArray[np.bool_]) -> list[int]:
    """Those left that exact McNemar tests among them, Holm-adjusted, cannot tell from the best."""
    ids = np.flatnonzero(left)
    if len(ids) == 1:
        return [int(ids[0])]
    firsts, seconds = ids[np.array(np.triu_indices(len(ids), 1))]
    change = table[:, firsts] - table[:, seconds]
    more, less = (change > 0).sum(axis=0), (change < 0).sum(axis=0)
    p = np.minimum(1, 2 * binom.cdf(np.minimum(more, less), more + less, 0.5))
    rank = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[rank] = np.maximum.accumulate(p[rank] * np.arange(len(p), 0, -1))
    best = best_of(table, left)
    equal = (adjusted >= 0.05) & ((firsts == best) | (seconds == best))
    return sorted({best, *map(int, firsts[equal]), *map(int, seconds[equal])})


def best_of(table: Matrix, left: npt.NDArray[np.bool_]) -> int:
    return int(np.where(left, np.nanmean(table, axis=0), -1).argmax())


def everyone(count: int) -> npt.NDArray[np.bool_]:
    return np.ones(count, dtype=bool)


@pytest.mark.parametrize(("alike", "most"), [(0.6, 0.40), (0.75, 0.36), (0.4, 0.42)])
def test_a_race_picks_what_the_full_design_picks(alike: float, most: float) -> None:
    """Issue 5: the same pick with 95 % on 40 % of the calls; the best is lost in under 5 %.

    The pick is the highest score. The aim of 40 % is for a correlation of 0.6 between the
    candidates: the more alike they are, the less a race needs. Where the cheapest of those tied
    is picked, and the better is the dearer, the race picks one of the full design's tie, though
    not always the same: with fewer left, Holm tells more of them apart.
    """
    rng = np.random.default_rng(5)
    runs = 150
    same = cheapest = within = kept = calls = 0.0
    for _ in range(runs):
        full = right(rng, EIGHT, 1000, alike)
        asked, left = race(full)
        ties, of_race = tied(full, everyone(8)), tied(asked, left)
        same += best_of(asked, left) == best_of(full, everyone(8))
        within += of_race[-1] in ties
        cheapest += of_race[-1] == ties[-1]
        kept += left[0]
        calls += np.isfinite(asked).mean()
    counts = {"same": same, "within": within, "cheapest": cheapest, "kept": kept, "calls": calls}
    print(alike, {name: round(count / runs, 3) for name, count in counts.items()})
    assert same / runs >= 0.95 and within / runs >= 0.95
    assert kept / runs >= 0.95
    assert calls / runs <= most


def test_two_near_the_top_are_told_apart_no_better_than_by_the_full_design() -> None:
    rng = np.random.default_rng(6)
    runs, within, kept = 150, 0, 0
    for _ in range(runs):
        full = right(rng, (0.90, 0.895, *EIGHT[2:]), 1000)
        asked, left = race(full)
        within += best_of(asked, left) in tied(full, everyone(8))
        kept += left[0]
    print(f"near-tied: within {within / runs}, kept {kept / runs}")
    assert within / runs >= 0.99 and kept / runs >= 0.95


@pytest.mark.parametrize("kind", ["binary", "graded", "grouped"])
def test_among_equals_nobody_is_dropped(kind: str) -> None:
    """The whole race errs in at most 5 % of runs, looked at after every block."""
    rng = np.random.default_rng(7)
    runs, wrong = 200, 0
    for _ in range(runs):
        bets, group = BEST, None
        if kind == "binary":
            full = right(rng, [0.8] * 4, 500)
        elif kind == "graded":  # one wins often by little and loses seldom by much
            full = np.full((500, 4), 0.5)
            full[:, 0] += np.where(rng.random(500) < 0.9, 0.05, -0.45)
        else:  # five items of a group are right or wrong together
            full = np.repeat(right(rng, [0.8] * 4, 100), 5, axis=0)
            bets = Bets(best=True, widest=5)
        left = everyone(4)
        for stop in LOOKS[LOOKS <= 500]:
            if kind == "grouped":
                stop -= stop % 5
                group = np.arange(stop) // 5
            left[list(beaten(full[:stop], left, bets, group))] = False
        wrong += not left.all()
    print(f"{kind}: {wrong / runs}")
    assert wrong / runs <= 0.05


def test_grouped_items_bet_once() -> None:
    """Taken for independent, items that go together would drop too many of the equals."""
    full = np.repeat(right(np.random.default_rng(8), [0.9, 0.75], 60), 20, axis=0)
    alone = beaten(full, everyone(2), BEST)
    group = np.arange(len(full)) // 20
    together = beaten(full, everyone(2), Bets(best=True, widest=20), group)
    once = beaten(full[::20], everyone(2), BEST)
    assert alone == {1: 0} and together == once == {}


def test_a_race_for_the_cheapest_drops_only_those_below_the_bar() -> None:
    """The better, the dearer; the cheapest that meets 0.75 for certain is 0.80 or 0.84."""
    rng = np.random.default_rng(9)
    runs, same, calls = 100, 0, 0.0
    lost = np.zeros(8)

    def pick(table: Matrix, left: npt.NDArray[np.bool_]) -> int | None:
        counts = np.isfinite(table).sum(axis=0)
        low = [wilson(int(k), int(n))[0] for k, n in zip(np.nansum(table, 0), counts, strict=True)]
        meets = [i for i in range(8) if left[i] and low[i] >= 0.75]
        return meets[-1] if meets else None

    for _ in range(runs):
        full = right(rng, EIGHT, 1000)
        asked, left = race(full, Bets(best=False, bar=0.75))
        same += pick(asked, left) == pick(full, everyone(8))
        calls += np.isfinite(asked).mean()
        lost += ~left
    print(f"cheapest: same {same / runs}, calls {calls / runs:.3f}, dropped {lost / runs}")
    assert same / runs >= 0.99
    assert (lost[:5] / runs <= 0.05).all()  # 0.75 lies on the bar: it meets it
    assert (lost[6:] / runs >= 0.95).all()
    assert calls / runs <= 0.80


def test_on_the_bar_nobody_is_dropped() -> None:
    rng = np.random.default_rng(10)
    wrong = sum(
        not race(right(rng, [0.8] * 5, 1000), Bets(best=False, bar=0.8))[1].all()
        for _ in range(200)
    )
    assert wrong / 200 <= 0.05


def test_a_bar_of_one_is_missed_by_the_first_error() -> None:
    full = np.ones((50, 2))
    full[:3, 1] = 0
    assert beaten(full, everyone(2), Bets(best=False, bar=1.0)) == {1: None}


# Blocks


def test_blocks_hold_every_item_once_in_an_order_of_their_own() -> None:
    blocks = betting.shuffled_blocks(ITEMS)
    ids = [item for block in blocks for item in block]
    assert sorted(ids) == sorted(ITEMS["item_id"]) and ids != list(ITEMS["item_id"])
    assert [len(block) for block in blocks[:11]] == [25] * 11
    assert len(blocks) < 30 and max(map(len, blocks)) <= 100
    assert betting.shuffled_blocks(ITEMS.iloc[::-1]) == blocks
    fewer = [item for block in betting.shuffled_blocks(ITEMS.iloc[:600]) for item in block]
    assert fewer == [item for item in ids if item in set(fewer)]


def test_a_block_is_a_fair_sample() -> None:
    """Items sorted by class, as files often are: the first blocks hold both."""
    first = [int(item[1:]) for block in betting.shuffled_blocks(ITEMS)[:4] for item in block]
    assert 35 <= sum(number < 500 for number in first) <= 65


def test_groups_stay_together() -> None:
    items = ITEMS.assign(group=[f"g{n // 7}" if n % 3 else "" for n in range(1000)])
    blocks = betting.shuffled_blocks(items, block=30)
    place = {item: n for n, block in enumerate(blocks) for item in block}
    grouped = items[items["group"] != ""]
    assert (
        grouped.groupby("group")["item_id"].agg(lambda ids: ids.map(place).nunique()) == 1
    ).all()
    assert len(place) == 1000 and min(map(len, blocks[:-1])) >= 30
    assert len({place[item] for item in items.loc[items["group"] == "", "item_id"]}) > 10


# One look


def scored_of(table: dict[str, Any], **columns: Any) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "deployment": name,
                "repo_id": f"org/{name}",
                "item_id": [f"i{n}" for n in range(len(values))],
                "output": [str(value) for value in values],
                "score": pd.Series(values, dtype="Float64"),
            }
        ).assign(**columns)
        for name, values in table.items()
    ]
    return pd.concat(parts, ignore_index=True)


def look(scored: pd.DataFrame, active: Any, objective: str = "best", **how: Any) -> dict[str, str]:
    bets = Bets(objective == "best", how.get("min_quality"), how.get("widest", 1))
    return racing.drop(scored, list(active), bets, how.get("baseline", ()))


def test_the_reason_names_rival_difference_and_items() -> None:
    scored = scored_of({"good": [1] * 40, "bad": [0, 1] * 20})
    reason = "dropped after 40 items: worse than good by 0.5 on 40 items"
    assert look(scored, ["good", "bad"]) == {"bad": reason}
    for objective in ("cheapest", "fastest"):
        assert look(scored, ["good", "bad"], objective=objective) == {}
    low = look(scored, ["good", "bad"], objective="cheapest", min_quality=0.85)
    assert low["bad"].endswith("misses min_quality 0.85: 0.5 on 40 items")
    assert "good" not in low


def test_a_failed_call_is_a_missing_pair() -> None:
    """A thousand items, 15 failed: neither wins nor losses."""
    good, same = [1.0] * 1000, [1.0] * 985 + [None] * 15
    assert look(scored_of({"a": good, "b": same}), ["a", "b"], min_quality=0.99) == {}


def test_many_failed_calls_are_flagged_and_decide_nothing() -> None:
    table = {"good": [1] * 90 + [None] * 10, "bad": [0] * 100, "worse": [0] * 90 + [None] * 10}
    # `good` is not comparable: it beats nobody
    assert look(scored_of(table), list(table), min_quality=None) == {}
    assert list(look(scored_of(table), list(table), min_quality=0.8)) == ["bad"]


def test_the_baseline_is_neither_dropped_nor_a_rival() -> None:
    for base in ([1] * 100, [0] * 100):
        scored = scored_of({"base": base, "a": [1, 0] * 50, "b": [0, 1] * 50})
        assert look(scored, ["a", "b"], min_quality=0.3, baseline=["base"]) == {}


def test_the_last_one_falls_only_to_the_bar() -> None:
    scored = scored_of({"a": [1] * 60, "b": [0] * 60})
    assert look(scored, ["b"]) == {}
    scored = scored_of({"a": [0] * 60, "b": [0] * 60})
    assert set(look(scored, ["a", "b"], min_quality=0.5)) == {"a", "b"}


def test_groups_of_the_items_count_in_a_look() -> None:
    table = {"a": [1] * 100, "b": [1] * 70 + [0] * 30}
    alone = look(scored_of(table), ["a", "b"])
    groups = [f"g{n // 10}" for n in range(100)]
    grouped = look(scored_of(table, group=groups), ["a", "b"])
    assert list(alone) == ["b"] and not grouped
    wide = scored_of(table, group=[""] * 100)
    assert look(wide, ["a", "b"], widest=20) == {}  # a wide group may still come: stakes are small


# The driver


def brief_of(
    names: str = "abc", *, objective: str = "best", baseline: str = "", **parts: Any
) -> Project:
    return Project.model_validate(
        {
            "name": "t",
            "task": "t",
            "policy": {},
            "size": {"tier": "low"},
            "evaluation": {
                "kind": "exact",
                "items": "items.jsonl",
                "strategy": "racing",
                **parts.pop("evaluation", {}),
            },
            "deployments": [
                {
                    "name": name,
                    "model": parts.get("model", f"org/{name}"),
                    "endpoint": {
                        "base_url": parts.get("urls", {}).get(name, "http://127.0.0.1:1/v1")
                    },
                    "price": {"usd_per_hour": 1},
                    "baseline": name in baseline,
                }
                for name in names
            ],
            "objective": objective,
            "requirements": parts.get("requirements", {}),
        }
    )


class Endpoint:
    """Answers with what it is told, and counts."""

    def __init__(self, full: dict[str, list[float | None]]) -> None:
        self.full = {name: dict(zip(ITEMS["item_id"], v, strict=False)) for name, v in full.items()}
        self.asked: list[tuple[str, str]] = []
        self.rounds = 0

    def ask(self, deployments: list[Deployment], items: pd.DataFrame) -> pd.DataFrame:
        self.rounds += 1
        rows = []
        for deployment in deployments:
            for item in items["item_id"]:
                self.asked.append((deployment.name, item))
                value = self.full[deployment.name][item]
                rows.append((deployment.name, deployment.model, item, str(value), value))
        columns = ["deployment", "repo_id", "item_id", "output", "value"]
        return pd.DataFrame(rows, columns=columns)

    def score(self, answers: pd.DataFrame) -> pd.DataFrame:
        return answers.assign(score=answers["value"].astype("Float64"))


def outcome(
    brief: Project, full: dict[str, list[float | None]]
) -> tuple[Endpoint, pd.DataFrame, dict[str, str]]:
    endpoint = Endpoint(full)
    items = ITEMS.iloc[: len(next(iter(full.values())))]
    answers, dropped = racing.run(brief, items, endpoint.ask, endpoint.score)
    assert len(set(endpoint.asked)) == len(endpoint.asked) == len(answers)
    return endpoint, answers, dropped


GOOD, BAD = [1.0] * 300, [0.0, 1.0] * 150
MIXED = [1.0 if n % 10 else 0.0 for n in range(300)]


def test_a_race_keeps_the_answers_and_tells_who_left_when() -> None:
    _, answers, dropped = outcome(brief_of(), {"a": GOOD, "b": MIXED, "c": BAD})
    counts = answers["deployment"].value_counts()
    assert list(dropped) == ["b", "c"] and counts["c"] < counts["b"] <= counts["a"] < 300
    assert dropped["c"].startswith(f"dropped after {counts['c']} items: worse than a by")
    places = answers["item_id"].str[1:].astype(int)
    assert answers["deployment"].is_monotonic_increasing
    assert places.groupby(answers["deployment"]).agg(lambda p: p.is_monotonic_increasing).all()


def test_a_race_repeats_itself() -> None:
    full: dict[str, list[float | None]] = {"a": GOOD, "b": MIXED, "c": BAD}
    first, second = outcome(brief_of(), full), outcome(brief_of(), full)
    assert first[0].asked == second[0].asked
    pd.testing.assert_frame_equal(first[1], second[1])
    assert first[2] == second[2]


@pytest.mark.parametrize("where", [{"baseline": "z"}, {"requirements": {"min_quality": 0.5}}])
def test_the_last_one_is_asked_all_where_its_score_is_tested(where: dict[str, Any]) -> None:
    """A race stopped at will would spoil the interval that the bar or the margin needs."""
    names = "az" if where.get("baseline") else "a"
    full: dict[str, list[float | None]] = {"a": GOOD, "c": BAD, "z": MIXED}
    full = {name: full[name] for name in f"{names}c"}
    _, answers, dropped = outcome(brief_of(f"{names}c", **where), full)
    counts = answers["deployment"].value_counts()
    assert all(counts[name] == 300 for name in names) and counts["c"] < 100
    assert list(dropped) == ["c"]


def test_the_same_model_with_the_same_answers_ends_the_race() -> None:
    full: dict[str, list[float | None]] = {"a": MIXED, "b": MIXED}
    endpoint, _, dropped = outcome(brief_of("ab", model="org/one"), full)
    assert endpoint.rounds == 1 and not dropped
    assert outcome(brief_of("ab"), full)[0].rounds > 5  # two models that agree so far
    other = [*MIXED[:-1], 0.0]
    assert outcome(brief_of("ab", model="org/one"), {"a": GOOD, "b": other})[0].rounds > 1


def test_where_quality_decides_nothing_all_is_asked_at_once() -> None:
    full: dict[str, list[float | None]] = {"a": GOOD, "b": MIXED, "c": BAD}
    endpoint, answers, dropped = outcome(brief_of(objective="cheapest"), full)
    assert endpoint.rounds == 1 and len(answers) == 900 and not dropped


def test_the_best_may_fall_to_another_bar_later() -> None:
    """So nobody is dropped for being worse; those below min_quality are."""
    full: dict[str, list[float | None]] = {"a": GOOD, "b": MIXED, "c": BAD}
    brief = brief_of(requirements={"max_p95_s": 1.0, "min_quality": 0.8})
    _, answers, dropped = outcome(brief, full)
    assert list(dropped) == ["c"] and "misses min_quality 0.8" in dropped["c"]
    assert answers["deployment"].value_counts()["b"] == 300


JUDGE = {
    "model": "org/judge",
    "endpoint": {"base_url": "http://127.0.0.1:1/v1"},
    "user": "{output}{first}{second}",
}


@pytest.mark.parametrize(
    ("kind", "calibration", "dropped"),
    [("judged", None, True), ("judged", "people.jsonl", False), ("comparison", None, False)],
)
def test_the_bar_counts_only_where_it_tests_the_items_scores(
    kind: str, calibration: str | None, dropped: bool
) -> None:
    evaluation = {"kind": kind, "judge": {**JUDGE, "calibration": calibration}}
    brief = brief_of(
        "ac", objective="cheapest", evaluation=evaluation, requirements={"min_quality": 0.9}
    )
    assert list(outcome(brief, {"a": GOOD, "c": BAD})[2]) == ["c"] * dropped


def test_the_simulated_race_is_the_one_that_runs() -> None:
    full = right(np.random.default_rng(11), EIGHT, 1000)
    place = {item: n for n, item in enumerate(i for b in betting.shuffled_blocks(ITEMS) for i in b)}
    rows = [place[item] for item in ITEMS["item_id"]]
    table = {name: list(full[rows, n]) for n, name in enumerate("abcdefgh")}
    _, answers, dropped = outcome(brief_of("abcdefgh"), table)
    asked, left = race(full)
    counts = answers["deployment"].value_counts()
    assert [counts[name] for name in "abcdefgh"] == list(np.isfinite(asked).sum(axis=0))
    assert [name not in dropped for name in "abcdefgh"] == list(left)
    scored = answers.assign(score=answers["value"])
    scored = scored[~scored["deployment"].isin(dropped)]
    values = scored.groupby("deployment", sort=False)["score"].mean().rename("value").reset_index()
    groups = tie_groups(values, compare_pairs(scored))
    assert sorted(n for n, g in groups.items() if g == 1) == [
        "abcdefgh"[i] for i in tied(asked, left)
    ]


def test_a_race_run_again_asks_nothing(tmp_path: Path) -> None:
    with openai_stub.running() as one, openai_stub.running(Reply("Negative.")) as two:
        brief = brief_of(
            "ab",
            urls={"a": one.url, "b": two.url},
            evaluation={"kind": "classification", "labels": ["positive", "negative"], "block": 5},
        )
        items = ITEMS.iloc[:60].assign(input=ITEMS["item_id"], target="positive", group="")

        def race_of() -> tuple[pd.DataFrame, dict[str, str]]:
            return racing.run(
                brief,
                items,
                lambda left, block: answers.ask(brief, left, block, tmp_path, progress=False),
                lambda block: score_answers(brief, block),
            )

        asked, dropped = race_of()
        counts = len(one.requests), len(two.requests)
        assert counts == (10, 10)  # wealth is 148 after ten to nil, 11 after five; out at 40
        again, dropped_again = race_of()
        assert (len(one.requests), len(two.requests)) == counts
    pd.testing.assert_frame_equal(asked, again)
    assert list(dropped) == ["b"] and dropped_again == dropped
    scores = summarise(brief, score_answers(brief, asked))
    assert list(scores.loc[scores["primary"], "value"]) == [1.0, 0.0]
