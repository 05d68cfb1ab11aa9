"""How sure the pick is: stated chances against simulated worlds, and what is not known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from briefs import brief
from tradeoff_rows import NAN, PUBLISHED, table

from lib.brief import Project, Requirements
from lib.decide import decision, draws
from lib.stats import interval

ITEMS = 100
RIGHT = np.arange(ITEMS) % 10


def answers(**right: Any) -> pd.DataFrame:
    """Right (1) or wrong (0) on every item, by deployment."""
    frames = [
        pd.DataFrame({"deployment": name, "repo_id": f"org/{name}", "score": list(scores)})
        for name, scores in right.items()
    ]
    scored = pd.concat(frames, ignore_index=True)
    item = scored.groupby("deployment").cumcount()
    return scored.assign(item_id=item.astype(str), group="")


def measured(scored: pd.DataFrame, **rows: dict[str, Any]) -> pd.DataFrame:
    """Rows of `tradeoffs` whose quality is that of the answers."""
    quality = {
        name: dict(zip(("quality", "quality_low", "quality_high"), interval(part), strict=True))
        for name, part in scored.groupby("deployment")["score"]
    }
    return table(**{name: {**quality[name], **rows.get(name, {})} for name in quality})


def usd(value: float) -> dict[str, float]:
    names = ("usd_per_1k", "usd_per_1k_low", "usd_per_1k_high", "usd_per_month",
             "usd_per_month_low", "usd_per_month_high")  # fmt: skip
    return dict.fromkeys(names, value)


def certainty(rows: pd.DataFrame, scored: pd.DataFrame, project: Project) -> pd.DataFrame:
    return draws.certainty(rows, draws.joint_draws(rows, scored), project)


def test_stated_chances_are_true_where_a_bootstrap_boasts() -> None:
    """Six candidates a few points apart on 100 items: 400 worlds (seeded)."""
    rng, stated, boasted, right = np.random.default_rng(7), [], [], []
    for _ in range(400):
        true = 0.75 + 0.02 * rng.standard_normal(6)
        scatter = np.diag(true * (1 - true) / ITEMS)
        values = true + rng.standard_normal(6) * np.sqrt(np.diag(scatter))
        drawn = draws.shrinkage(values, scatter, 0.43, rng, 500)
        plain = values + rng.standard_normal((500, 6)) * np.sqrt(np.diag(scatter))
        top = values.argmax()
        stated.append((drawn.argmax(axis=1) == top).mean())
        boasted.append((plain.argmax(axis=1) == top).mean())
        right.append(top == true.argmax())
    assert abs(np.mean(stated) - np.mean(right)) < 0.05
    assert np.mean(boasted) - np.mean(right) > 0.1


def test_with_many_items_the_chance_is_not_understated() -> None:
    """Six candidates a few points apart on 400 items: a prior near zero shrinks them all."""
    rng, stated, right = np.random.default_rng(8), [], []
    for _ in range(800):
        true = 0.75 + 0.02 * rng.standard_normal(6)
        scatter = np.diag(true * (1 - true) / 400)
        values = true + rng.standard_normal(6) * np.sqrt(np.diag(scatter))
        drawn = draws.shrinkage(values, scatter, 0.43, rng, 500)
        stated.append((drawn.argmax(axis=1) == values.argmax()).mean())
        right.append(values.argmax() == true.argmax())
    assert abs(np.mean(stated) - np.mean(right)) < 0.05


def test_what_is_far_apart_is_not_shrunk() -> None:
    values, scatter = np.array([0.9, 0.5, 0.1]), np.eye(3) * 0.001
    drawn = draws.shrinkage(values, scatter, 0.4, np.random.default_rng(0), 2000)
    assert drawn.mean(axis=0) == pytest.approx(values, abs=0.02)
    assert drawn.std(axis=0) == pytest.approx([0.0316] * 3, rel=0.1)


def test_in_clusters_a_difference_is_as_unsure_as_the_clusters_make_it() -> None:
    """Two share how hard an item is, but each has clusters of its own that it is good at."""
    rng, n_clusters, size = np.random.default_rng(9), 60, 10
    cluster = np.repeat(np.arange(n_clusters), size)
    skill = rng.standard_normal((n_clusters, 2))[cluster] + [0.9, -0.6]
    own = rng.standard_normal((len(cluster), 2))
    right = (skill + 0.3 * own + 3 * rng.standard_normal((len(cluster), 1)) > 0).astype(float)
    scored = answers(a=right[:, 0], b=right[:, 1]).assign(group=np.tile(cluster.astype(str), 2))
    rows = measured(scored)
    for name in ("a", "b"):
        part = scored[scored["deployment"] == name]
        bounds = interval(part["score"], part["group"])
        columns = ["quality", "quality_low", "quality_high"]
        rows.loc[rows["deployment"] == name, columns] = list(bounds)
    drawn = draws.joint_draws(rows, scored, n=20_000).figures["min_quality"]
    difference = (right[:, 0] - right[:, 1]).reshape(n_clusters, size).mean(axis=1)
    error = difference.std(ddof=1) / np.sqrt(n_clusters)
    assert np.diff(drawn).std() == pytest.approx(error, rel=0.15)


@pytest.mark.parametrize("names", [["a"], []])
def test_one_candidate_or_none(names: list[str], tmp_path: Path) -> None:
    scored = answers(a=RIGHT > 2)
    rows = measured(scored)[: len(names)]
    sure = certainty(rows, scored, brief(tmp_path))
    assert sure["p_pick"].to_list() == [1.0] * len(names)


def test_copies_of_one_model_have_one_quality(tmp_path: Path) -> None:
    scored = answers(one=RIGHT > 2, two=RIGHT > 2, other=RIGHT > 3)
    scored["repo_id"] = scored["repo_id"].replace({"org/two": "org/one"})
    drawn = draws.joint_draws(measured(scored), scored)
    quality = dict(zip(drawn.names, drawn.figures["min_quality"].T, strict=True))
    assert (quality["one"] == quality["two"]).all() and (quality["one"] != quality["other"]).all()


def test_the_chances_are_those_of_the_gates_and_the_objective(tmp_path: Path) -> None:
    scored = answers(good=RIGHT > 0, cheap=RIGHT > 1, baseline=RIGHT >= 0)
    rows = measured(
        scored, good=usd(2.0), cheap=usd(1.0), baseline={"standing": "the baseline"} | usd(0.1)
    )
    bars = brief(tmp_path, "requirements", {"min_quality": 0.8, "max_p95_s": 0.55})
    sure = certainty(rows, scored, bars).set_index("deployment")
    assert np.isnan(sure.loc["baseline", "p_pick"])
    assert sure["p_pick"].sum() <= 1
    # p95 is 0.5 [0.4, 0.6]: half an interval is log(0.6 / 0.5), 1.96 errors; independent of it
    # the quality of `cheap`, 0.8 on the bar, is drawn up to that of `good`
    for name in ("good", "cheap"):
        assert sure.loc[name, "p_qualifies"] < 0.87
    assert sure.loc["cheap", "p_pick"] == pytest.approx(sure.loc["cheap", "p_qualifies"])
    assert 0 < sure.loc["good", "p_pick"] < sure.loc["good", "p_qualifies"]


@pytest.mark.parametrize("names", [["weak", "strong"], ["weak", "middle", "strong"]])
def test_of_the_same_dollars_the_better_one_is_the_right_choice(
    names: list[str], tmp_path: Path
) -> None:
    right = {"weak": RIGHT > 4, "middle": RIGHT > 3, "strong": RIGHT > 0}
    found, free = [], brief(tmp_path, "requirements", {})
    for order in (names, names[::-1]):
        scored = answers(**{name: right[name] for name in order})
        rows = measured(scored, **{name: usd(0.5) for name in order})
        rows = rows.set_index("deployment").loc[order].reset_index()
        sure = certainty(rows, scored, free).set_index("deployment")
        found.append(sure["p_pick"][names].to_list())
    assert found[0] == pytest.approx(found[1], abs=0.01)
    assert found[0][-1] > 0.95 and sum(found[0]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("objective", "figures", "choice"),
    [
        ("cheapest", {"max_usd_per_1k": [0.3, 0.1 + 0.2, 0.3], "min_quality": [0.5, 0.9, 0.7]}, 1),
        ("best", {"max_usd_per_1k": [3.0, 2.0, 1.0], "min_quality": [0.9, 0.9, 0.7]}, 1),
        ("fastest", {"max_usd_per_1k": [3.0, NAN, 1.0], "min_rps": [9.0, 9.0, 9.0]}, 2),
        ("fastest", {"max_usd_per_1k": [NAN, NAN, 1.0], "min_rps": [9.0, 9.0, 2.0]}, 0),
        ("fastest", {"max_usd_per_1k": [3.0, 2.0, 2.0], "min_rps": [np.inf] * 3}, 1),
        ("cheapest", {"max_usd_per_1k": [NAN] * 3, "min_quality": [0.9] * 3}, -1),
    ],
)
def test_a_tie_in_a_draw_goes_to_the_next_aim(
    objective: str, figures: dict[str, list[float]], choice: int
) -> None:
    drawn = {name: np.array([values]) for name, values in figures.items()}
    of = draws.Draws(["a", "b", "c"], drawn, pd.DataFrame())
    assert draws.first_choice(of, np.ones((1, 3), bool), objective).tolist() == [choice]


@pytest.mark.parametrize(
    "unknown",
    [PUBLISHED, {"comparable": "no"}, {"quality_low": NAN, "quality_high": NAN}],
    ids=["published", "not comparable", "no interval"],
)
def test_what_has_no_interval_has_no_chance_stated(unknown: dict[str, Any], tmp_path: Path) -> None:
    scored = answers(a=RIGHT > 1, b=RIGHT > 2)
    sure = certainty(measured(scored, b=unknown), scored, brief(tmp_path))
    assert sure["p_pick"].notna().to_list() == [True, False]


@pytest.mark.parametrize("figure", ["usd_per_1k", "borne_rps"])
def test_of_a_figure_that_is_not_known_no_chance_is_stated(figure: str, tmp_path: Path) -> None:
    scored = answers(a=RIGHT > 1, b=RIGHT > 2)
    rows = measured(scored)
    rows.loc[0, figure] = NAN
    bars = brief(tmp_path, "requirements", {"max_usd_per_1k": 9, "min_rps": 0.1, "max_p95_s": 9})
    sure = certainty(rows, scored, bars)
    for chance in ("p_pick", "p_qualifies", "p_frontier"):
        assert sure[chance].isna().to_list() == [True, False]


def test_a_latency_that_is_not_known_meets_no_bar(tmp_path: Path) -> None:
    scored = answers(a=RIGHT > 1)
    rows = measured(scored).assign(p95_s=NAN)
    bars = brief(tmp_path, "requirements", {"max_p95_s": 9})
    assert certainty(rows, scored, bars)["p_qualifies"].to_list() == [0.0]


@pytest.mark.parametrize("bar", [{"max_p95_s": 1.0}, {"max_p95_s": 1.0, "max_ttft_p95_s": 0.5}])
def test_p95_is_drawn_with_the_capacity_where_that_is_of_the_objective(
    bar: dict[str, float], tmp_path: Path
) -> None:
    scored = answers(a=RIGHT > 1)
    load = {"slo_s": 1.0, "p95_s": NAN, "max_rps": 2.0, "rps_low": 1.0, "rps_high": 4.0}
    load |= dict.fromkeys(["ttft_p95_s", "ttft_low", "ttft_high"], NAN)
    bars = brief(tmp_path, "requirements", {"min_rps": 2.0, **bar})
    sure = certainty(measured(scored, a=load), scored, bars)
    assert sure["p_qualifies"].iloc[0] == pytest.approx(0.5, abs=0.05)


def world(rng: np.random.Generator) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    true = np.clip(0.8 + 0.05 * rng.standard_normal(5), 0, 1)
    hard = rng.random(200)[:, None]
    right = (0.5 * hard + 0.5 * rng.random((200, 5))) < np.quantile(
        0.5 * rng.random((4000, 1)) + 0.5 * rng.random((4000, 1)), true, axis=0
    ).ravel()
    scored = answers(**{f"m{i}": column for i, column in enumerate(right.T)})
    prices = {f"m{i}": usd(price) for i, price in enumerate(rng.uniform(10, 100, 5))}
    return true, scored, measured(scored, **prices)


@pytest.mark.parametrize("objective", ["cheapest", "best"])
def test_stated_regret_is_realised(objective: str, tmp_path: Path) -> None:
    """Over 120 worlds (seeded), for whoever the bounds pick; `make bench` has the fine figure."""
    rng, bar = np.random.default_rng(3), 0.75
    project = brief(tmp_path, "requirements", {"min_quality": bar})
    project = project.model_copy(update={"objective": objective})
    stated, realised = [], []
    for _ in range(120):
        true, scored, rows = world(rng)
        fit = rows[rows["quality_low"] >= bar]
        if len(fit):
            by = "usd_per_1k" if objective == "cheapest" else "quality"
            at = fit[by].idxmin() if objective == "cheapest" else fit[by].idxmax()
            loss = draws.regret(draws.joint_draws(rows, scored), project, f"m{at}")
            dollars, fits = rows["usd_per_month"].to_numpy(), true >= bar
            if objective == "cheapest":
                stated.append(loss["usd_per_month"])
                realised.append(dollars[at] - dollars[fits].min() if fits[at] else 0.0)
            else:
                stated.append(loss["quality"])
                realised.append(true[fits].max() - true[at] if fits[at] else 0.0)
    assert len(stated) > 60
    assert np.mean(stated) == pytest.approx(np.mean(realised), rel=0.3)


def test_more_items_are_worth_what_they_may_save(tmp_path: Path) -> None:
    """`cheap` lies a little over the bar, so items may show it; where it lies far below, never."""
    project = brief(tmp_path, "requirements", {"min_quality": 0.75})
    for cheap, worth_it in ((RIGHT > 1, True), (RIGHT > 5, False)):
        scored = answers(good=RIGHT > 0, cheap=cheap)
        rows = measured(scored, good=usd(90.0), cheap=usd(30.0))
        checks = decision.check(rows, project.requirements)
        worth = draws.worth_of_items(checks, draws.joint_draws(rows, scored), project, "good")
        assert worth["items"].is_monotonic_increasing
        assert (worth["worth"].max() > 20) == worth_it  # of the 60 that it may save
        assert worth["worth"].max() <= 60


@pytest.mark.parametrize(
    ("objective", "price"), [("best", 90.0), ("cheapest", 30.0)], ids=["best", "same dollars"]
)
def test_few_items_do_not_break_a_tie_of_quality(
    objective: str, price: float, tmp_path: Path
) -> None:
    """`cheap` is the choice of a tie though 3 of 100 answers fewer are right; 25 more show little.

    A better one that is far off is shown: there the choice does change.
    """
    project = brief(tmp_path, "requirements", {}).model_copy(update={"objective": objective})
    changes = []
    for wrong in (23, 60):
        scored = answers(cheap=np.arange(ITEMS) >= wrong, dear=np.arange(ITEMS)[::-1] >= 20)
        rows = measured(scored, cheap=usd(30.0), dear=usd(price))
        checks = decision.check(rows, project.requirements)
        worth = draws.worth_of_items(checks, draws.joint_draws(rows, scored), project, "cheap")
        changes.append(worth["p_other"].iloc[0])
    assert changes[0] < 0.1 and changes[1] > 0.9


def test_nothing_is_worth_asking_where_nobody_was_chosen(tmp_path: Path) -> None:
    scored = answers(a=RIGHT > 1)
    rows = measured(scored)
    checks = decision.check(rows, Requirements())
    assert draws.worth_of_items(checks, draws.joint_draws(rows, scored), brief(tmp_path), "").empty


@pytest.mark.parametrize(
    ("row", "p"), [({}, 1.0), ({"peak_rps": 4.9}, 0.0), ({"peak_rps": 3.2}, 1.0)]
)
def test_a_chance_counts_the_peak(row: dict[str, Any], p: float, tmp_path: Path) -> None:
    project = brief(tmp_path, "requirements", {"min_rps": 3.0})
    scored = answers(a=RIGHT > 0)
    load = {"borne_rps": 4.0, "borne_low": 3.5, "borne_high": 4.5}
    sure = certainty(measured(scored, a=load | row).assign(**load), scored, project)
    assert sure["p_qualifies"].iloc[0] == pytest.approx(p, abs=0.02)
