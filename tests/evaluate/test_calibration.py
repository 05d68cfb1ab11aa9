"""How far a judge can be trusted, and whether corrected scores cover what people would say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from briefs import brief
from scored import gathered as scored_gathered
from scored import grade, score_answers, summarise
from sklearn.metrics import cohen_kappa_score
from test_judged import JUDGE, a_judge, answers, judged_brief

from lib import decide, endpoints, pages, tables
from lib.brief.deployment import Deployment
from lib.brief.project import Project
from lib.brief.sections import Requirements
from lib.errors import PlaybookError
from lib.evaluate import judge as calibration
from lib.evaluate import kinds, steps
from lib.stats import intervals as stats
from lib.stats.judge_errors import Rates


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "RESAMPLES", 300)


GOOD = {"id": "c1", "input": "q", "output": "fine", "human": "pass"}
BAD = {"id": "c2", "output": "awful", "human": "fail"}


def calibrated(folder: Path, *lines: Any, kind: str = "judged", **changes: Any) -> Project:
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (folder / "human.jsonl").write_bytes(b"".join(text + b"\n" for text in texts))
    return judged_brief(folder, kind, **({"calibration": "human.jsonl"} | changes))


def table_of(pairs: list[tuple[Any, Any]], *, ratings: bool = False) -> pd.DataFrame:
    """Calibration items by people's and the judge's verdict; None is a judge's failure."""
    return pd.DataFrame(
        {
            "item_id": [f"c{n}" for n in range(len(pairs))],
            "human": [human for human, _ in pairs],
            "verdict": [None if ratings else said for _, said in pairs],
            "rating": [said if ratings else None for _, said in pairs],
            "judge_error": ["judge: ?" if said is None else "" for _, said in pairs],
        }
    )


def counts(both: int, missed: int, leaked: int, neither: int) -> pd.DataFrame:
    """People's and the judge's pass and fail, by how often they met."""
    return table_of(
        [("pass", "pass")] * both
        + [("pass", "fail")] * missed
        + [("fail", "pass")] * leaked
        + [("fail", "fail")] * neither
    )


# --- the file


def test_calibration_items_are_read(tmp_path: Path) -> None:
    table = calibration.load_labelled(calibrated(tmp_path, GOOD, BAD | {"note": "kept out"}))
    assert list(table.columns) == ["item_id", "input", "target", "output", "human"]
    assert table["human"].to_list() == ["pass", "fail"]
    assert table["input"].to_list() == ["q", ""]


def test_no_calibration_is_an_empty_table(tmp_path: Path) -> None:
    assert calibration.load_labelled(judged_brief(tmp_path)).empty
    assert calibration.load_labelled(brief(tmp_path)).empty


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([GOOD, BAD | {"human": "great"}], r"human\.jsonl line 2: human must be one of"),
        ([GOOD, BAD | {"human": 1}], "line 2: human must be one of"),
        ([GOOD, BAD | {"human": None}], "line 2: human"),
        ([GOOD, BAD | {"human": "x" * 5000}], "line 2: human"),
        ([GOOD, BAD | {"id": 7}], "line 2: id"),
        ([GOOD, {"id": "c2", "human": "fail"}], "line 2: output"),
        ([GOOD, b"[" * 100_000], "line 2"),
        ([GOOD, b"\xff\xfe"], "line 2"),
        ([GOOD, b'{"id": "c2", "output": "\\ud800", "human": "fail"}'], "line 2"),
        ([GOOD, b"null"], "line 2"),
        ([GOOD, BAD, BAD], "the id 'c2' is used twice"),
        ([GOOD], "two or more"),
        ([], "two or more"),
        ([GOOD, GOOD | {"id": "c3"}], "answers that people failed"),
        ([BAD, BAD | {"id": "c3"}], "answers that people passed"),
    ],
)
def test_an_unusable_file_is_named(tmp_path: Path, lines: list[Any], message: str) -> None:
    with pytest.raises(PlaybookError, match=message) as error:
        calibration.load_labelled(calibrated(tmp_path, *lines))
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("human", ["3", True, 0.5, 6, float("nan"), float("inf")])
def test_human_ratings_lie_on_the_scale(tmp_path: Path, human: Any) -> None:
    rated = [GOOD | {"human": 4}, BAD | {"human": human}]
    with pytest.raises(PlaybookError, match=r"line 2: (human|not usable JSON)"):
        calibration.load_labelled(calibrated(tmp_path, *rated, kind="scoring"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match=r"no such file; evaluation\.judge\.calibration"):
        calibration.load_labelled(judged_brief(tmp_path, calibration="nowhere.jsonl"))


# --- agreement


def figure(folder: Path, table: pd.DataFrame, kind: str = "judged") -> tuple[float, float, float]:
    """The agreement that the sentence names, with its interval."""
    said = calibration.trust(calibrated(folder, GOOD, BAD, kind=kind), table)
    name = "κ \\(quadratic weights\\)" if kind == "scoring" else "Cohen's κ"
    found = re.search(rf"{name} (-?[\d.]+) \((-?[\d.]+) to (-?[\d.]+)\)", said)
    assert found, said
    return float(found[1]), float(found[2]), float(found[3])


def test_kappa_of_a_known_table(tmp_path: Path) -> None:
    """Cohen's example on Wikipedia: 20, 5, 10 and 15 of 50 give κ = 0.4."""
    value, low, high = figure(tmp_path, counts(20, 5, 10, 15))
    assert value == 0.4
    assert 0.1 < low < 0.25 < 0.55 < high < 0.7
    assert calibration.rates(counts(20, 5, 10, 15), ["pass"]) == Rates(20, 25, 15, 25)


def test_the_judges_failures_are_not_in_its_agreement(tmp_path: Path) -> None:
    table = table_of([("pass", "pass"), ("fail", "fail"), ("fail", None)] * 3)
    assert figure(tmp_path, table)[0] == 1.0
    said = calibration.trust(calibrated(tmp_path, GOOD, BAD), table)
    assert "6 labelled answers (3 more got no verdict that can be read)" in said
    assert calibration.rates(table, ["pass"]) == Rates(3, 3, 3, 3)


def test_one_label_everywhere_shows_no_agreement(tmp_path: Path) -> None:
    assert figure(tmp_path, table_of([("pass", "pass")] * 9)) == (0.0, 0.0, 0.0)


def test_rating_agreement_is_quadratic_kappa(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    human = rng.integers(1, 6, 60)
    said = np.clip(human + rng.integers(0, 3, 60), 1, 5)
    pairs = list(zip(human.astype(float), said.astype(float), strict=True))
    kappa = cohen_kappa_score(human, said, weights="quadratic")
    value, low, high = figure(tmp_path, table_of(pairs, ratings=True), "scoring")
    assert value == pytest.approx(kappa, abs=0.005) and low < value < high


def test_trust_is_one_sentence(tmp_path: Path) -> None:
    project = calibrated(tmp_path, GOOD, BAD)
    unlabelled = calibration.load_labelled(judged_brief(tmp_path))
    assert "uncalibrated" in calibration.trust(project, unlabelled)
    told = calibration.trust(project, counts(18, 2, 3, 17))
    assert "was measured on 40 labelled answers: " in told
    assert "may be no better than chance" in calibration.trust(project, counts(6, 4, 5, 5))
    assert "not usable" in calibration.trust(project, counts(5, 15, 5, 15))
    silent = table_of([("pass", None), ("fail", None), ("fail", "fail")])
    assert calibration.trust(project, silent).startswith(
        "The judge org/judge cannot be measured on 1 labelled answers (2 more got no verdict that"
    )
    rated = calibrated(tmp_path, GOOD, BAD, kind="scoring")
    unrated = table_of([(1.0, None), (2.0, None)], ratings=True)
    assert "cannot be measured on 0 labelled answers" in calibration.trust(rated, unrated)
    table = table_of([(1.0, 1.0), (2.0, 3.0), (4.0, 4.0), (5.0, 5.0)] * 5, ratings=True)
    assert "quadratic" in calibration.trust(rated, table)


# --- in the scores table


def graded(project: Project, said: dict[str, str]) -> Any:
    """Let the judge answer by the reply it sees."""

    def perform(jobs: Any, run: Path, **_: Any) -> dict[str, Any]:
        return {
            call.key: {
                "error": "",
                "finish_reason": "stop",
                "output": said[call.body["messages"][-1]["content"].rpartition("Reply: ")[2]],
            }
            for _, calls in jobs
            for call in calls
        }

    return perform


def judged_scores(
    project: Project, said: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> pd.DataFrame:
    monkeypatch.setattr(endpoints, "perform", graded(project, said))
    table = answers("x", "y", "z")
    grades = grade(project, table, folder, progress=False)
    rows = score_answers(project, table, graded=grades)
    checked = steps.calibrate(project, folder)
    return summarise(project, rows, checked=checked)


def test_uncalibrated_scores_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"x": "pass", "y": "fail", "z": "pass"}
    scores = judged_scores(judged_brief(tmp_path), said, tmp_path, monkeypatch)
    assert scores["basis"].to_list() == ["measured here, uncalibrated judge"]
    assert scores["primary"].to_list() == [True]


def test_calibrated_scores_are_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        {"id": f"c{n}", "output": f"o{n}", "human": "pass" if n < 10 else "fail"} for n in range(20)
    ]
    said = {"x": "pass", "y": "fail", "z": "pass"}
    said |= {f"o{n}": "pass" if n < 9 or n > 17 else "fail" for n in range(20)}
    scores = judged_scores(calibrated(tmp_path, *lines), said, tmp_path, monkeypatch)
    assert scores["metric"].to_list() == ["pass rate (corrected)", "pass rate"]
    assert scores["primary"].to_list() == [True, False]
    assert scores["value"].to_list() == pytest.approx([(2 / 3 - 0.2) / 0.7, 2 / 3])
    assert scores["low"].iloc[0] < scores["low"].iloc[1]
    assert set(scores["basis"]) == {"measured here, judge measured on 20 labelled answers"}
    assert scores["n"].to_list() == [3, 3]


@pytest.mark.parametrize("bar", [None, 0.5])
def test_a_judge_like_a_coin_decides_nothing_up_to_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bar: float | None
) -> None:
    """Steps 4 to 6 with a judge that says the opposite of people: sentences, figures, no crash."""
    lines = [
        {"id": f"c{n}", "output": f"o{n}", "human": "pass" if n % 2 else "fail"} for n in range(20)
    ]
    said = {"x": "pass", "y": "fail", "z": "pass"}
    said |= {f"o{n}": "fail" if n % 2 else "pass" for n in range(20)}
    project = calibrated(tmp_path, *lines)
    monkeypatch.setattr(endpoints, "perform", graded(project, said))
    table = pd.concat([answers(*"xyz"), answers(*"xyz", deployment="b")], ignore_index=True)
    rows = score_answers(project, table, graded=grade(project, table, tmp_path))
    checked = steps.calibrate(project, tmp_path)
    scores = summarise(project, rows, checked=checked)
    primary = scores[scores["primary"]]
    assert primary["value"].isna().all() and list(primary["low"]) == [0.0, 0.0]
    flaw = "is not shown to be better than chance on 20 labelled answers"
    assert set(scores["basis"]) == {f"measured here, judge {flaw}"}
    told = calibration.trust(project, checked)
    assert flaw in told and "Cohen's κ -1.00" in told and "its scores are not usable" in told
    # a coin sees no difference to the baseline: that is no reason to switch
    first, *others = project.deployments
    first = first.model_copy(update={"baseline": True})
    switched = project.model_copy(update={"deployments": [first, *others]})
    table = steps.non_inferiority(switched, rows, checked)
    assert table[["verdict", "note"]].to_numpy().tolist() == [
        ["not decided", "the judge is not shown to be better than chance"]
    ]
    # its figures are drawn, and nothing qualifies
    pages.score_intervals(primary, metric="pass rate", caption="c", requirement=bar)
    frames = {"items": pd.DataFrame(), "gathered": scored_gathered()}
    pages.draw(steps.detail(project, rows, scores, **frames), caption="c")
    pairs = kinds.of("judged").compare(rows, None)
    speed = pd.DataFrame(
        {"deployment": ["a", "b"], "repo_id": "r", "max_rps": 2.0, "low": 2.0, "high": 3.0,
         "p95_s": 0.5, "p95_low": 0.4, "p95_high": 0.6, "n": 70, "basis": "measured here"}
    )  # fmt: skip
    cost = decide.cost(project, speed, rows, tables.hardware())
    traded = decide.tradeoffs(scores, speed, cost, pairs)
    checks = decide.check(traded, Requirements(min_quality=bar))
    assert set(checks["verdict"]) == {"not decided"} and len(checks) == 2
    traded = decide.qualify(traded, checks)
    assert decide.choose(traded, "best") == ([], "")
    pages.cost_per_correct(traded, caption="c")
    words = {"metric": "pass rate", "caption": "c", "requirements": {"min_quality": bar}}
    for dimension in ("cost", "speed"):
        pages.quality_against(dimension, traded.assign(pick=False), **words)


def test_calibrated_ratings_lose_the_bias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"id": f"c{n}", "output": f"o{n}", "human": 1 + n % 4} for n in range(20)]
    said = {"x": "4", "y": "5", "z": "3"} | {f"o{n}": str(2 + n % 4) for n in range(20)}
    project = calibrated(tmp_path, *lines, kind="scoring")
    scores = judged_scores(project, said, tmp_path, monkeypatch)
    assert scores["metric"].to_list() == ["mean rating (corrected)", "mean rating", "rating"]
    assert scores["value"].to_list() == pytest.approx([0.5, 0.75, 4.0])
    assert scores["primary"].to_list() == [True, False, False]


def test_other_kinds_keep_their_scores(tmp_path: Path) -> None:
    scores = pd.DataFrame({"deployment": ["a"], "basis": ["measured here"]})
    assert kinds.of("exact").correct(brief(tmp_path), scores, scores, scores) is scores


# --- the judge's own family


def test_a_judge_of_a_candidates_family_is_pointed_out() -> None:
    models = pd.DataFrame(
        {
            "repo_id": ["Qwen/Q-72B", "Qwen/Q-7B", "else/tuned", "meta/L"],
            "family": ["Qwen", "Qwen", "Tuned", "Llama"],
            "base_model": [None, None, "Qwen/Q-7B", None],
        }
    )
    candidates = [
        Deployment.model_validate({"name": name, "model": model, "price": {"usd_per_hour": 1}})
        for name, model in [
            ("same", "Qwen/Q-7B"), ("child", "else/tuned"), ("other", "meta/L"), ("new", "qwen/x"),
        ]
    ]  # fmt: skip
    judge = a_judge(model="Qwen/Q-72B")
    sentences = calibration.same_family(judge, candidates, models)
    assert [text.split("'")[1] for text in sentences] == ["same", "child", "new"]
    assert "both of the family Qwen: a judge may favour its own kind" in sentences[0]
    assert calibration.same_family(a_judge(model="gpt-5-mini"), candidates, models) == []
    assert len(calibration.same_family(judge, candidates, models.iloc[:0])) == 2
    assert JUDGE["model"] == "org/judge"


@pytest.mark.parametrize(
    ("shot", "refused"),
    [
        ({"input": "q", "output": "fine", "verdict": "pass"}, True),
        ({"output": "fine", "verdict": "pass"}, True),  # judged by the output alone
        ({"input": "another", "output": "fine", "verdict": "pass"}, False),
        ({"input": "q", "output": "good", "verdict": "pass"}, False),
    ],
)
def test_a_worked_example_of_the_judge_is_no_test(
    tmp_path: Path, shot: dict[str, str], refused: bool
) -> None:
    project = calibrated(tmp_path, GOOD, BAD, shots=[shot])
    if refused:
        with pytest.raises(PlaybookError, match="item 'c1' is also a shot"):
            calibration.load_labelled(project)
    else:
        assert len(calibration.load_labelled(project)) == 2
