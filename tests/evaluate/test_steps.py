"""Step 4 as the notebook calls it: a race, a recorded baseline, who may be chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai_stub
import pandas as pd
import pytest
from briefs import BASE

from lib.brief.project import Project
from lib.brief.sections import Requirements
from lib.endpoints import runner, store
from lib.errors import PlaybookError
from lib.evaluate import steps as evaluation
from lib.evaluate.items import load_items
from lib.stats import ranking

N = 120
LABELS = ["positive", "negative"]


def project(folder: Path, url: str, deployments: list[dict[str, Any]], **task: Any) -> Project:
    rows = [{"id": f"i{n}", "input": f"text {n}", "target": LABELS[n % 2]} for n in range(N)]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = [
        {"endpoint": {"base_url": url}, "price": {"usd_per_hour": 1}, "model": "org/a", **one}
        for one in deployments
    ]
    settings = {"kind": "classification", "items": "items.jsonl", "labels": LABELS, **task}
    raw = BASE | {"evaluation": settings, "deployments": named, "objective": "best"}
    return Project(**raw, folder=folder)


def answer(request: openai_stub.Request) -> openai_stub.Reply:
    """The model's name says how often it is right."""
    n = int(request.text.split()[-1])
    share = {"good": 0.95, "fair": 0.9, "bad": 0.3}[request.body["model"]]
    right = (n * 37) % 100 < share * 100
    return openai_stub.Reply(text=LABELS[n % 2 if right else 1 - n % 2])


def candidates(*names: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "model": f"org/{name}", "endpoint": {"base_url": "", "model": name}}
        for name in names
    ]


def gathered(
    brief: Project, run: Path
) -> tuple[evaluation.Gathered, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    items = load_items(brief)
    run.mkdir(exist_ok=True)
    got = evaluation.gather(brief, brief.deployments, items, run)
    scored = evaluation.score(brief, got, items)
    checked = evaluation.calibrate(brief, run)
    named: dict[str, Any] = {"deployments": brief.deployments, "gathered": got}
    return got, scored, evaluation.summarise(brief, scored, checked, **named), items


def test_a_race_drops_the_hopeless_and_never_picks_it(tmp_path: Path) -> None:
    with openai_stub.running(answer) as stub:
        three = candidates("good", "fair", "bad")
        for one in three:
            one["endpoint"]["base_url"] = stub.url
        brief = project(tmp_path, stub.url, three, strategy="racing", block=20)
        got, scored, scores, _ = gathered(brief, tmp_path / "run")
        sent = len(stub.requests)
        again = gathered(brief, tmp_path / "run")[1]
    assert sent < 3 * N
    assert len(stub.requests) == sent  # nothing is asked twice
    pd.testing.assert_frame_equal(scored, again)
    assert list(got.dropped) == ["bad"]
    standing = scores.drop_duplicates("deployment").set_index("deployment")["standing"]
    after = scored["deployment"].eq("bad").sum()
    assert standing["bad"].startswith(f"dropped after {after} items: worse than ")
    assert list(standing[["good", "fair"]]) == ["candidate", "candidate"]
    pairs = evaluation.compare(brief, scored, got)
    assert set(pairs["deployment"]) | set(pairs["other"]) == {"good", "fair"}
    assert set(ranking.tie_groups(scores[scores["primary"]], pairs)) == {"good", "fair", "bad"}


def test_a_recorded_baseline_is_compared_and_not_chosen(tmp_path: Path) -> None:
    rows = [{"item_id": f"i{n}", "output": LABELS[n % 2]} for n in range(N)]
    (tmp_path / "today.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    today = {"name": "today", "baseline": True, "endpoint": {"recorded": "today.jsonl"}}
    with openai_stub.running(answer) as stub:
        (good,) = candidates("good")
        good["endpoint"]["base_url"] = stub.url
        brief = project(tmp_path, stub.url, [today, good], margin=0.2)
        _, scored, scores, _ = gathered(brief, tmp_path / "run")
        assert len(stub.requests) == N
    switch = evaluation.non_inferiority(brief, scored)
    assert switch[["deployment", "baseline", "verdict"]].to_numpy().tolist() == [
        ["good", "today", "good enough"]
    ]
    told = scores[scores["primary"]].set_index("deployment")
    assert told.at["today", "basis"] == "recorded (today.jsonl)"
    assert told.at["today", "standing"] == evaluation.BASELINE
    assert told.at["good", "standing"] == "candidate"


def test_without_a_baseline_nothing_is_said_of_a_switch(tmp_path: Path) -> None:
    brief = project(tmp_path, "http://127.0.0.1:9/v1", [{"name": "good"}])
    row = {"deployment": "good", "repo_id": "org/good", "item_id": "i1", "score": 1.0}
    scored = pd.DataFrame([row])
    got = evaluation.Gathered(scored, None, {})
    assert evaluation.non_inferiority(brief, scored).empty
    assert evaluation.judge_notes(brief, pd.DataFrame(), brief.deployments, got) == []
    assert evaluation.calibrate(brief, tmp_path).empty


def test_the_budget_counts_answers_and_stops_with_what_is_kept(tmp_path: Path) -> None:
    with openai_stub.running(answer) as stub:
        (good,) = candidates("good")
        good["endpoint"]["base_url"] = stub.url
        good["price"] = {"input_usd_per_million": 1000.0, "output_usd_per_million": 1000.0}
        brief = project(tmp_path, stub.url, [good], max_usd=0.8, concurrency=1)
        with pytest.raises(PlaybookError, match=r"max_usd of \$0.8 would be exceeded"):
            gathered(brief, tmp_path / "run")
        assert 0 < len(stub.requests) < N


def test_a_judge_that_always_names_the_first_is_pointed_out(tmp_path: Path) -> None:
    """Every verdict is lost in the swap, and the lean is said."""
    with openai_stub.running(
        lambda request: openai_stub.Reply(
            text="first" if request.body["model"] == "judge" else str(request.body["model"])
        )
    ) as stub:
        two = candidates("good", "fair")
        for one in two:
            one["endpoint"]["base_url"] = stub.url
        judge = {
            "model": "org/judge",
            "endpoint": {"base_url": stub.url, "model": "judge"},
            "user": "{input}: {first} or {second}?",
        }
        brief = project(tmp_path, stub.url, two, kind="comparison", judge=judge)
        got, _, scores, _ = gathered(brief, tmp_path / "run")
    notes = evaluation.judge_notes(brief, pd.DataFrame(), brief.deployments, got)
    assert notes[0].startswith("the judge: the swap of places changed the verdict in 100% of 120")
    assert notes[1].startswith("the judge: it named the first answer in 100% of 240 verdicts")
    assert scores.loc[scores["primary"], "value"].tolist() == [0.5, 0.5]
    strength = scores[scores["metric"].str.contains("Bradley")]
    assert strength["value"].tolist() == pytest.approx([0.5, 0.5])


STRENGTH = {"good": 3, "fair": 3, "today": 2, "bad": 1, "worse": 0}
JUDGE = {"model": "org/judge", "user": "{first}\n{second}"}


def judge_by_strength(request: openai_stub.Request) -> openai_stub.Reply:
    """Candidates sign what they write, and the judge prefers the stronger."""
    if request.body["model"] != "judge":
        return openai_stub.Reply(f"{request.body['model']} {request.text.split()[-1]}")
    first, second = (STRENGTH[line.split()[0]] for line in request.text.split("\n"))
    return openai_stub.Reply("tie" if first == second else "first" if first > second else "second")


def contest(folder: Path, url: str, *names: str, **raw: Any) -> Project:
    """A race of comparisons; `today`, if there, is the baseline."""
    some = candidates(*names)
    for one in some:
        one["endpoint"]["base_url"] = url
        one["baseline"] = one["name"] == "today"
    judge = JUDGE | {"endpoint": {"base_url": url, "model": "judge"}}
    brief = project(folder, url, some, kind="comparison", strategy="racing", block=20, judge=judge)
    return brief.model_copy(update=raw)


def test_who_is_judged_against_whom_does_not_hang_on_who_is_dropped(tmp_path: Path) -> None:
    """Five, so only against the baseline; so it stays when three are left, and all paid counts."""
    with openai_stub.running(judge_by_strength) as stub:
        brief = contest(tmp_path, stub.url, *STRENGTH)
        got, scored, scores, _ = gathered(brief, tmp_path / "run")
        verdicts = sum(r.body["model"] == "judge" for r in stub.requests)
        sent = len(stub.requests)
        assert gathered(brief, tmp_path / "run")[1].equals(scored)
        assert len(stub.requests) == sent
    assert set(got.dropped) == {"bad", "worse"}
    assert got.graded is not None and set(got.graded["other"]) == {"today"}
    judged = got.graded[got.graded["basis"] == "judge"]
    assert len(judged) == len(got.graded) and verdicts == 2 * len(judged)
    after = scored["deployment"].eq("bad").sum()
    assert judged["deployment"].value_counts().to_dict() == {
        "good": N, "fair": N, "bad": after, "worse": after,
    }  # fmt: skip
    values = scores[scores["primary"]].set_index("deployment")["value"]
    assert values[["good", "fair", "bad"]].to_list() == [1.0, 1.0, 0.0]
    pairs = evaluation.compare(brief, scored, got)
    assert set(pairs["deployment"]) | set(pairs["other"]) == {"good", "fair", "today"}


def test_with_a_bar_on_the_win_rate_nobody_leaves_the_field(tmp_path: Path) -> None:
    """Else the rate would be one against others, and the last one have no opponent."""
    bar = Requirements(min_quality=0.5)
    with openai_stub.running(judge_by_strength) as stub:
        brief = contest(tmp_path, stub.url, "good", "bad", requirements=bar)
        got, _, scores, _ = gathered(brief, tmp_path / "run")
    assert got.dropped == {} and scores["n"].eq(N).all()


def test_a_race_starts_servers_and_reads_its_answers_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, read = list[str](), list[str]()
    serve, records = runner.serving, store.read_records

    def serving(deployment: Any, **how: Any) -> Any:
        started.append(deployment.name)
        return serve(deployment, **how)

    def read_records(path: Path, *wanted: Any) -> Any:
        read.append(path.name)
        return records(path, *wanted)

    monkeypatch.setattr(runner, "serving", serving)
    monkeypatch.setattr(store, "read_records", read_records)
    with openai_stub.running(judge_by_strength) as stub:
        brief = contest(tmp_path, stub.url, "good", "today", "bad")
        got, *_ = gathered(brief, tmp_path / "run")
    assert len(got.dropped) == 1
    assert sorted(started) == ["bad", "good", "judge", "today"]
    assert read == [runner.STORE]
