"""Reranking: known values by hand, ties, hostile answers, and what chance scores."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from briefs import changed, load_project, write
from scored import calls_of

from lib.brief.project import Project
from lib.errors import PlaybookError
from lib.evaluate.kinds import reranking
from lib.reading import find_order
from lib.stats.ranking import ranking_by_chance, ranking_measures

DOCS = {"d1": "one", "d2": "two", "d3": "three", "d4": "four"}


def ranking_brief(folder: Path, method: str = "pointwise", user: str = "{input}") -> Project:
    ranking = {"method": method, "k": 2, "relevant": ["yes"]}
    evaluation = {"kind": "reranking", "items": "items.jsonl", "ranking": ranking}
    return load_project(
        write(folder, changed("evaluation", {**evaluation, "prompt": {"user": user}}))
    )


def item(name: str = "q1", target: dict[str, int] | None = None, **texts: str) -> dict[str, Any]:
    listed = [{"id": d, "text": t} for d, t in (texts or DOCS).items()]
    grades = {"d2": 2, "d4": 1} if target is None else target
    return {
        "item_id": name,
        "input": "which?",
        "documents": json.dumps(listed),
        "target": json.dumps(grades),
    }


def answered(*outputs: str, items: list[str] | None = None) -> pd.DataFrame:
    names = items or ["q1"] * len(outputs)
    return pd.DataFrame({"deployment": "a", "item_id": names, "output": outputs, "group": ""})


def order_of(brief: Project, output: str) -> list[str] | None:
    items = pd.DataFrame([item()])
    row = reranking.score(brief, answered(output), items=items).iloc[0]
    return json.loads(row["predicted"]) if isinstance(row["predicted"], str) else None


SHOWN = [d for d, _ in reranking.documents(item())]


def by_chance(items: pd.DataFrame, *, k: int) -> pd.DataFrame:
    rows = items.to_dict("records")
    return pd.DataFrame(
        [ranking_by_chance(json.loads(r["target"]), json_ids(r), k=k) for r in rows]
    )


def json_ids(row: Any) -> list[str]:
    return [document["id"] for document in json.loads(row["documents"])]


def test_measures_by_hand_with_graded_relevance() -> None:
    grades = {"q": {"a": 3, "b": 0, "c": 1, "d": 2}}
    table = ranking_measures(grades, {"q": ["b", "a", "c", "d"]}, k=3)
    dcg = 0 / 1 + 3 / math.log2(3) + 1 / math.log2(4)
    best = 3 / 1 + 2 / math.log2(3) + 1 / math.log2(4)
    row = table.iloc[0]
    assert row["nDCG@3"] == pytest.approx(dcg / best)
    assert row["MRR"] == 0.5
    assert row["R@3"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("order", "ndcg"), [("ab", 1.0), ("ba", 1 / math.log2(3)), ("xa", 1 / math.log2(3)), ("xy", 0)]
)
def test_one_relevant_document_scores_by_its_place(order: str, ndcg: float) -> None:
    table = ranking_measures({"q": {"a": 1}}, {"q": list(order)}, k=2)
    assert table["nDCG@2"].item() == pytest.approx(ndcg)


def test_the_order_counts_and_not_the_names_of_documents() -> None:
    names = ["z", "m", "a"]
    for relevant in names:
        for order in (names, names[::-1]):
            table = ranking_measures({"q": {relevant: 1}}, {"q": order}, k=3)
            assert table["MRR"].item() == pytest.approx(1 / (order.index(relevant) + 1))


def test_a_query_without_a_relevant_document_scores_nothing() -> None:
    table = ranking_measures({"q": {"a": 0}, "p": {"a": 1}}, {"q": ["a"], "p": ["a"]}, k=5)
    assert table.loc["q"].tolist() == [0.0, 0.0, 0.0]
    assert table.loc["p"].tolist() == [1.0, 1.0, 1.0]


def test_the_order_of_the_file_gives_nothing_away() -> None:
    turned = item() | {"documents": json.dumps(json.loads(item()["documents"])[::-1])}
    assert reranking.documents(item()) == reranking.documents(turned)
    first = [reranking.documents(item(f"q{n}"))[0][0] for n in range(400)]
    assert all(60 <= first.count(d) <= 140 for d in DOCS), "each is first about as often"


def test_a_model_that_says_yes_to_everything_scores_what_chance_scores(tmp_path: Path) -> None:
    brief = ranking_brief(tmp_path)
    items = pd.DataFrame([item(f"q{n}") for n in range(2000)])
    yes = answered(*[json.dumps(dict.fromkeys(DOCS, "yes"))] * 2000, items=list(items["item_id"]))
    scored = reranking.score(brief, yes, items=items)
    chance = by_chance(items[:1], k=2).iloc[0]
    assert scored["score"].mean() == pytest.approx(chance["nDCG@2"], abs=0.06)
    for name in ("MRR", "R@2"):
        mean = np.mean([json.loads(text)[name] for text in scored["detail"]])
        assert mean == pytest.approx(chance[name], abs=0.06)


def test_chance_of_one_relevant_document_in_three_by_hand() -> None:
    row = by_chance(pd.DataFrame([item(target={"a": 1}, a="", b="", c="")]), k=2).iloc[0]
    assert row["nDCG@2"] == pytest.approx((1 + 1 / math.log2(3)) / 3, abs=0.1)
    assert row["MRR"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3, abs=0.1)
    assert row["R@2"] == pytest.approx(2 / 3, abs=0.1)


def test_chance_is_defined_where_nothing_is_relevant_and_where_all_is() -> None:
    items = pd.DataFrame([item(target={}), item("q2", target=dict.fromkeys(DOCS, 1))])
    table = by_chance(items, k=10)
    assert table.iloc[0].tolist() == [0.0, 0.0, 0.0]
    assert table.iloc[1].tolist() == pytest.approx([1.0, 1.0, 1.0])


def prompts(brief: Project, item: Any) -> dict[str, str]:
    made = calls_of(brief, brief.deployments[0], item)
    return {call.part: call.body["messages"][-1]["content"] for call in made}


def test_pointwise_asks_for_each_document_and_fills_in_one_pass(tmp_path: Path) -> None:
    brief = ranking_brief(tmp_path, user="Q {input} D {document}")
    hostile = item(d1="{input}", d2="{document}") | {"input": "{document} {x}"}
    asked = prompts(brief, hostile)
    assert asked == {"d1": "Q {document} {x} D {input}", "d2": "Q {document} {x} D {document}"}


def test_listwise_asks_once_and_numbers_the_documents_as_shown(tmp_path: Path) -> None:
    brief = ranking_brief(tmp_path, "listwise")
    ((part, text),) = prompts(brief, item()).items()
    assert part == ""
    assert "which?" in text
    for number, name in enumerate(SHOWN, start=1):
        assert f"[{number}] {DOCS[name]}\n" in text


@pytest.mark.parametrize(
    ("method", "place"), [("pointwise", "document"), ("listwise", "documents")]
)
def test_a_wording_without_a_place_for_documents_is_an_error(
    tmp_path: Path, method: str, place: str
) -> None:
    brief = ranking_brief(tmp_path, method, user="Q {input}?")
    with pytest.raises(PlaybookError, match=rf"'a'.*\{{{place}\}}.*'{method}'"):
        prompts(brief, item())


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("2 > 1 > 3", [2, 1, 3]),
        ("[2] > [1] > [3]", [2, 1, 3]),
        ("[2, 1, 3]", [2, 1, 3]),
        ('{"order": [3, 1]}', [3, 1]),
        ("Of the 4 documents: Document 2 > Document 1 > Document 4.", [2, 1, 4]),
        ("1 > 2? No: 3 > 2 > 1", [3, 2, 1]),
        ("1 > 2\nBetter: 2 > 1", [2, 1]),
        ("The best is [3], then [1].", [3, 1]),
        ("2\n1\n3", [2, 1, 3]),
        ("4", [4]),
        ("2>1", [2, 1]),
    ],
)
def test_listwise_answers_are_read(text: str, order: list[int]) -> None:
    assert find_order(text, 4) == order


@pytest.mark.parametrize(
    "text",
    [
        "",
        "none",
        "I like 2 documents",
        "9 > 8",
        "[7]",
        "1111111111111 of 2",
        "2 > 2 > 9 > 0 > 1",
        "> , >",
        "٢ > ١",
    ],
)
def test_listwise_answers_that_name_no_order_are_not_usable(text: str) -> None:
    assert find_order(text, 4) is None


@pytest.mark.parametrize("text", ["1 > " * 200_000, "[" * 200_000, "1" * 200_000, "1 " * 200_000])
def test_a_hostile_listwise_answer_takes_no_time(text: str) -> None:
    find_order(text, 4)


def test_what_a_listwise_answer_leaves_out_comes_last_as_shown(tmp_path: Path) -> None:
    order = order_of(ranking_brief(tmp_path, "listwise"), "3")
    assert order == [SHOWN[2], SHOWN[0], SHOWN[1], SHOWN[3]]


def test_pointwise_puts_the_yes_documents_first_and_keeps_ties_as_shown(tmp_path: Path) -> None:
    said = dict.fromkeys(SHOWN, "No.") | {SHOWN[3]: "Yes!", SHOWN[1]: "<think>no?</think> yes"}
    order = order_of(ranking_brief(tmp_path), json.dumps(said))
    assert order == [SHOWN[1], SHOWN[3], SHOWN[0], SHOWN[2]]


def test_scores_of_a_rerank_endpoint_order_the_documents(tmp_path: Path) -> None:
    said = {SHOWN[0]: -3, SHOWN[1]: 0.5, SHOWN[2]: 0.9, "unknown": 99}
    brief = ranking_brief(tmp_path, "rerank")
    assert order_of(brief, json.dumps(said)) == [SHOWN[2], SHOWN[1], SHOWN[0], SHOWN[3]]
    scored = reranking.score(brief, answered(json.dumps(said)), items=pd.DataFrame([item()]))
    assert json.loads(scored["detail"].item())["passed_over"] == 1


@pytest.mark.parametrize("method", ["rerank", "pointwise", "listwise"])
@pytest.mark.parametrize(
    "output",
    ["", "null", "[]", "{}", "3.5", '{"d1": null}', '{"d1": true}', '{"d1": ["yes"]}',
     '{"x": "yes"}', "{" * 100_000, '{"d1": NaN}', '{"d1": Infinity}',
     '{"d1": ' + "9" * 4000 + "}"],
)  # fmt: skip
def test_outputs_of_a_wrong_shape_are_unparsed(tmp_path: Path, method: str, output: str) -> None:
    items = pd.DataFrame([item()])
    row = reranking.score(ranking_brief(tmp_path, method), answered(output), items=items).iloc[0]
    assert (row["outcome"], row["score"], row["predicted"]) == ("unparsed", 0.0, None)


def test_each_answer_is_scored_on_its_own_item_and_keeps_its_row(tmp_path: Path) -> None:
    items = pd.DataFrame([item("q1", target={"d1": 1}), item("q2", target={"d2": 1})])
    only = json.dumps(dict.fromkeys(DOCS, "no") | {"d1": "yes"})
    rows = answered(only, only, "{}", items=["q2", "q1", "q2"]).set_axis([7, 3, 5])
    scored = reranking.score(ranking_brief(tmp_path), rows, items=items)
    assert list(scored.index) == [7, 3, 5]
    assert scored.loc[3, "score"] == 1.0
    assert scored.loc[7, "score"] < 1.0
    assert scored.loc[5, "outcome"] == "unparsed"


def test_metrics_hold_ndcg_first_and_count_unusable_answers_as_zero(tmp_path: Path) -> None:
    brief = ranking_brief(tmp_path)
    items = pd.DataFrame([item(f"q{n}", target={"d1": 1}) for n in range(4)])
    only = json.dumps(dict.fromkeys(DOCS, "no") | {"d1": "yes"})
    rows = answered(only, only, only, "{}", items=list(items["item_id"]))
    scored = rows.join(reranking.score(brief, rows, items=items))
    metrics = reranking.metrics(brief, scored)
    assert [m["metric"] for m in metrics] == ["nDCG@2", "MRR", "R@2"]
    assert [m["value"] for m in metrics] == [0.75, 0.75, 0.75]
    assert all(m["low"] < 0.75 < m["high"] for m in metrics)
