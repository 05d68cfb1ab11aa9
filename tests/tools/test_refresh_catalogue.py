"""Refreshing the tables: a small diff, nobody's words touched, nothing hostile let in."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hub_stub import CONFIG, Stub, model, running

from lib import tables
from lib.errors import PlaybookError
from lib.hub import pull as hub
from tools import refresh_catalogue as refresh

TODAY = date(2026, 11, 24)
SHA, OTHER_SHA = "0123456789abcdef0123456789abcdef01234567", "f" * 40
LLAMA, GEMMA, QWEN = "acme/llama", "beta/gemma", "Gamma/qwen"
HEADER = ",".join(
    "repo_id family developer country license hub_license total_params_b active_params_b"
    " hub_params_b context_length layers kv_heads head_dim modality base_model listed_for released"
    " note source_url source hub_revision hub_checked_on checked_on".split()
)
MODELS = f"""\
{HEADER}
{LLAMA},Llama,"Acme, X",,mit,Apache-2.0,8,8.0,8.030,4096,32,8,128,,,choice,,"a ""b"" c",https://x.test/,Hub,,,2026-10-05
{GEMMA},Gemma,Beta,,,,,,,,,,,,,choice,,,https://x.test/b,Hub,,,2026-10-05
{QWEN},Qwen,Gamma,,mit,mit,7,7,7,4096,10,2,64,,,choice,,,https://x.test/c,Hub,{SHA},2026-11-01,2026-10-05
"""
SCORES = f"""\
repo_id,benchmark,score,unit,kind,verified,variant,note,source_url,checked_on
{LLAMA},GPQA,40.10,percent,self-reported,,llama,"pass@1, 0-shot",https://x.test/s,2026-01-01
{GEMMA},MMLU-Pro,55,percent,independent,,,,https://x.test/s,2026-01-01
"""
FACTS: dict[str, Any] = {
    "revision": SHA,
    "metadata_source": "hub",
    "retrieved_at": "2026-11-24T10:00:00+00:00",
    "license_on_hub": "apache-2.0",
    "params_b": 8.0301,
    "layers": 32,
    "kv_heads": 8,
    "head_dim": 128,
    "context_length": 999,
    "problem": "",
}
DTYPES = {"params_b": "Float64", "layers": "Int64", "kv_heads": "Int64", "head_dim": "Int64"}
EVAL: dict[str, Any] = {
    "repo_id": LLAMA,
    "benchmark": "TIGER-Lab/MMLU-Pro",
    "task_id": "mmlu_pro",
    "value": 61.5,
    "date": "2026-03-19",
    "verified": False,
    "source_url": "https://x.test/logs",
    "source_name": "Eval traces",
    "filename": ".eval_results/mmlu_pro.yaml",
}


def answer(repo_id: str, **changes: Any) -> dict[str, Any]:
    return {"repo_id": repo_id, **FACTS} | changes


def silent(repo_id: str, problem: str = "") -> dict[str, Any]:
    facts = dict.fromkeys(FACTS) | {"metadata_source": "catalogue", "problem": problem}
    return {"repo_id": repo_id} | facts | {"retrieved_at": "2026-10-05"}


def metadata(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["repo_id", *FACTS]).astype(DTYPES)


def evals(*changes: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([EVAL | change for change in changes], columns=list(EVAL))


def board(**columns: list[Any]) -> pd.DataFrame:
    return pd.DataFrame({"model_name": [LLAMA, GEMMA, "closed/best"], "provider": "x"} | columns)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models.csv").write_text(MODELS, encoding="utf-8", newline="")
    (tmp_path / "published_scores.csv").write_text(SCORES, encoding="utf-8", newline="")
    return tmp_path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`shipped` on the small tables, with the Hub's answers given as frames."""

    def go(facts: pd.DataFrame, results: pd.DataFrame | None = None, **options: Any) -> str:
        def pull(models: pd.DataFrame, cache: Path, **asked: Any) -> SimpleNamespace:
            assert asked["source"] == "hub"
            wanted = facts[facts["repo_id"].isin(models["repo_id"])]
            return SimpleNamespace(
                metadata=wanted, providers=None, evals=evals() if results is None else results
            )

        monkeypatch.setattr(hub, "pull", pull)
        options = {"leaderboard": str(folder / "none.parquet"), "today": TODAY} | options
        return refresh.shipped(folder=folder, cache=folder / "cache", **options)

    return go


def refreshed(folder: Path, *rows: dict[str, Any]) -> pd.DataFrame:
    return refresh.models(refresh.read(folder / "models.csv"), metadata(*rows))


def rescored(
    folder: Path, results: pd.DataFrame, leaderboard: pd.DataFrame | None = None
) -> pd.DataFrame:
    given = refresh.read(folder / "published_scores.csv")
    known = [LLAMA, GEMMA, QWEN]
    return refresh.scores(given, results, leaderboard, models=known, today=TODAY)


def cells(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def differing(old: str, new: str) -> list[tuple[str, str]]:
    """Lines that a `git diff` would show, where no row was added."""
    pairs = zip(old.splitlines(), new.splitlines(), strict=True)
    return [(a, b) for a, b in pairs if a != b]


def cell(table: pd.DataFrame, repo_id: str, column: str) -> str:
    return str(table.set_index("repo_id").loc[repo_id, column])


# --- models


def test_shipped_tables_survive_reading_and_writing_byte_for_byte(tmp_path: Path) -> None:
    for name in ("models", "published_scores"):
        source, copy = tables.DATA / f"{name}.csv", tmp_path / f"{name}.csv"
        copy.write_bytes(b"x\n")
        refresh.write(copy, refresh.read(source))
        assert copy.read_bytes() == source.read_bytes()


def test_no_answer_leaves_every_cell(folder: Path) -> None:
    before = refresh.read(folder / "models.csv")
    for rows in ([], [silent(LLAMA)], [silent(LLAMA, "gone"), silent(QWEN)]):
        pd.testing.assert_frame_equal(refreshed(folder, *rows), before)


def test_unchanged_facts_change_only_commit_and_day(run: Callable[..., str], folder: Path) -> None:
    run(metadata(answer(LLAMA)))
    ((old, new),) = differing(MODELS, (folder / "models.csv").read_text())
    assert new == old.replace(",,,2026-10-05", f",{SHA},2026-11-24,2026-10-05")
    assert "Apache-2.0,8,8.0,8.030," in new and '"a ""b"" c"' in new


def test_second_refresh_of_the_day_writes_nothing(run: Callable[..., str], folder: Path) -> None:
    facts, results = metadata(answer(LLAMA, params_b=9.0)), evals({})
    assert "Written: " in run(facts, results)
    kept = {path: (path.read_bytes(), path.stat().st_ino) for path in folder.glob("*.csv")}
    text = run(facts, results)
    assert "Nothing written: nothing is new." in text
    assert kept == {path: (path.read_bytes(), path.stat().st_ino) for path in folder.glob("*.csv")}


def test_only_cells_of_the_hub_change(folder: Path) -> None:
    facts = answer(LLAMA, license_on_hub="llama9", params_b=70.5537, layers=80, kv_heads=4,
                   head_dim=256, revision=OTHER_SHA)  # fmt: skip
    before = refresh.read(folder / "models.csv")
    diff = refresh.changes(before, refreshed(folder, facts), table="models")
    assert diff.to_numpy().tolist() == [
        ["models", LLAMA, "hub_license", "Apache-2.0", "llama9"],
        ["models", LLAMA, "head_dim", "128", "256"],
        ["models", LLAMA, "hub_params_b", "8.030", "70.55"],
        ["models", LLAMA, "kv_heads", "8", "4"],
        ["models", LLAMA, "layers", "32", "80"],
        ["models", LLAMA, "hub_checked_on", "", "2026-11-24"],
        ["models", LLAMA, "hub_revision", "", OTHER_SHA],
    ]


def test_what_a_person_wrote_stays_though_the_hub_disagrees(folder: Path) -> None:
    facts = {c: "changed" for c in tables.models().columns if c not in {"repo_id", *FACTS}}
    row = answer(LLAMA) | facts
    given = refresh.read(folder / "models.csv")
    table = refresh.models(given, pd.DataFrame([row]))
    own = [c for c in given.columns if not c.startswith("hub_")]
    pd.testing.assert_frame_equal(table[own], given[own])
    assert cell(table, LLAMA, "context_length") == "4096"


def test_blank_cells_are_filled(folder: Path) -> None:
    table = refreshed(folder, answer(GEMMA, params_b=0.26809))
    names = ["hub_license", "hub_params_b", "layers", "kv_heads", "head_dim", "hub_revision"]
    assert [cell(table, GEMMA, n) for n in names] == ["apache-2.0", "0.2681", "32", "8", "128", SHA]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1026.47, "1026"), (12345.6, "12350"), (32.0, "32"), (0.13451, "0.1345"), (5527.1, "5527")],
)
def test_sizes_have_four_digits_and_no_exponent(folder: Path, value: float, text: str) -> None:
    assert cell(refreshed(folder, answer(GEMMA, params_b=value)), GEMMA, "hub_params_b") == text


@pytest.mark.parametrize(
    "bad",
    [
        {"license_on_hub": "=cmd|' /C calc'!A0"},
        {"license_on_hub": "\n\t@SUM(1)"},
        {"license_on_hub": ["mit"]},
        {"license_on_hub": " \u202e\x00 "},
        {"params_b": "8"},
        {"params_b": float("inf")},
        {"params_b": -1.0},
        {"params_b": 0.0},
        {"params_b": True},
        {"layers": "32; DROP"},
        {"layers": -3},
        {"layers": 0},
        {"layers": 10**12},
        {"layers": True},
        {"kv_heads": 8.5},
        {"head_dim": {"a": 1}},
    ],
)
def test_hostile_fact_keeps_the_cell(folder: Path, bad: dict[str, Any]) -> None:
    good = answer(LLAMA)
    given = refresh.read(folder / "models.csv")
    expected = refresh.models(given, pd.DataFrame([good]))
    found = refresh.models(given, pd.DataFrame([good | bad]).astype(object))
    pd.testing.assert_frame_equal(found, expected)


def test_hostile_text_stays_one_cell_on_one_line(run: Callable[..., str], folder: Path) -> None:
    run(metadata(answer(LLAMA, license_on_hub='a"b,\r\nc\u2028d')))
    text = (folder / "models.csv").read_bytes().decode()
    assert text.count("\n") == MODELS.count("\n") and "\r" not in text
    assert cells(folder / "models.csv")[1][5] == 'a"b, c d'


@pytest.mark.parametrize(
    "unpinned", [{"revision": None}, {"revision": "main"}, {"retrieved_at": None}]
)
def test_an_answer_without_commit_or_day_counts_as_none(
    folder: Path, unpinned: dict[str, Any]
) -> None:
    table = refreshed(folder, answer(LLAMA, params_b=99.0, **unpinned))
    pd.testing.assert_frame_equal(table, refresh.read(folder / "models.csv"))


def test_a_cached_answer_is_dated_by_its_own_day_and_never_goes_back(folder: Path) -> None:
    cached = {"metadata_source": "hub (cached 2026-10-30)", "retrieved_at": "2026-10-30T01:00:00"}
    table = refreshed(folder, answer(LLAMA, **cached), answer(QWEN, params_b=99.0, **cached))
    assert cell(table, LLAMA, "hub_checked_on") == "2026-10-30"
    assert cell(table, QWEN, "hub_checked_on") == "2026-11-01"
    assert cell(table, QWEN, "hub_params_b") == "7"


# --- scores


def test_results_become_rows_with_their_basis(folder: Path) -> None:
    found = rescored(folder, evals({}, {"verified": True, "filename": "b.yaml", "value": 60}))
    rows = found[found["note"].str.startswith("Hub eval results")].to_dict("records")
    assert rows[1] == {
        "repo_id": LLAMA,
        "benchmark": "MMLU-Pro",
        "score": "61.5",
        "unit": "percent",
        "kind": "self-reported",
        "verified": "no",
        "variant": "Hub mmlu_pro mmlu_pro",
        "note": "Hub eval results; mmlu_pro; Eval traces; run 2026-03-19",
        "source_url": "https://x.test/logs",
        "checked_on": "2026-11-24",
    }
    assert (rows[0]["kind"], rows[0]["verified"]) == ("independent", "yes")
    assert found["benchmark"].tolist() == ["GPQA", "MMLU-Pro", "MMLU-Pro", "MMLU-Pro"]


def test_no_verdict_on_the_hub_is_a_blank(folder: Path) -> None:
    found = rescored(folder, evals({"verified": None}))
    assert found["verified"].tolist() == ["", "", ""]
    assert found["kind"].tolist()[1] == "self-reported"


@pytest.mark.parametrize(
    ("change", "benchmark", "score", "unit"),
    [
        ({"benchmark": "Idavidrein/gpqa", "task_id": "diamond"}, "GPQA", "61.5", "percent"),
        ({"benchmark": "Idavidrein/gpqa", "task_id": "main"}, "Idavidrein/gpqa main", "61.5",
         "percent"),
        ({"benchmark": "Idavidrein/gpqa", "task_id": "diamond", "value": 0.412},
         "Idavidrein/gpqa diamond", "0.412", "as given"),
        ({"benchmark": "TIGER-Lab/MMLU-Pro", "task_id": None, "value": 1},
         "TIGER-Lab/MMLU-Pro", "1", "as given"),
        ({"benchmark": "cais/hle", "task_id": "default", "value": 20.9}, "cais/hle", "20.9",
         "percent"),
        ({"benchmark": "someone/arena", "task_id": None, "value": 1312.25}, "someone/arena",
         "1312.25", "as given"),
    ],
)  # fmt: skip
def test_units_are_stated_never_guessed(
    folder: Path, change: dict[str, Any], benchmark: str, score: str, unit: str
) -> None:
    found = rescored(folder, evals(change))
    row = found[found["note"].str.startswith("Hub")].iloc[0]
    assert (row["benchmark"], row["score"], row["unit"]) == (benchmark, score, unit)


@pytest.mark.parametrize(
    "bad",
    [
        {"repo_id": "not/listed"},
        {"repo_id": None},
        {"benchmark": "=cmd|x"},
        {"benchmark": "../../etc"},
        {"benchmark": None},
        {"task_id": 'a"b\nc'},
        {"value": "61.5"},
        {"value": None},
        {"value": True},
        {"value": float("nan")},
        {"value": float("inf")},
        {"value": -5.0},
        {"value": 615.0},
    ],
)
def test_what_is_no_score_is_left_out(folder: Path, bad: dict[str, Any]) -> None:
    before = refresh.read(folder / "published_scores.csv")
    results = pd.DataFrame([EVAL | bad]).astype(object)
    pd.testing.assert_frame_equal(rescored(folder, results), before)


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "http://x.test", 'https://x.test/"onload=', "https://a/../b",
            "https://x.test/\nb", None, 7]
)  # fmt: skip
def test_a_strange_source_is_replaced_by_the_model_page(folder: Path, url: object) -> None:
    results = evals({"source_url": url, "source_name": '../=x"\n,', "filename": "../../a b.yaml"})
    found = rescored(folder, results.astype(object))
    row = found[found["note"].str.startswith("Hub")].iloc[0]
    assert row["source_url"] == f"https://huggingface.co/{LLAMA}"
    assert row["variant"] == "Hub a-b mmlu_pro"
    assert row["note"] == 'Hub eval results; mmlu_pro; =x" ,; run 2026-03-19'


def test_of_duplicates_the_verified_then_the_latest_stays(folder: Path) -> None:
    late = {"date": "2026-09-01", "value": 62.0}
    for changes, score in (([{}, late], "62"), ([late, {"verified": True}, {}], "61.5")):
        found = rescored(folder, evals(*changes))
        assert found.loc[found["variant"] == "Hub mmlu_pro mmlu_pro", "score"].tolist() == [score]
        assert not found.duplicated(["benchmark", "repo_id", "variant"]).any()


def test_rows_written_by_hand_are_never_changed(folder: Path) -> None:
    hand = (
        SCORES
        + f"{LLAMA},MMLU-Pro,1,percent,self-reported,,Hub mmlu_pro mmlu_pro,,https://y.test,2026-01-01\n"
    )
    (folder / "published_scores.csv").write_text(hand)
    found = rescored(folder, evals({}), board(mmluPro_score=[70.0, 71.0, 99.0]))
    lines = found.to_csv(index=False, lineterminator="\n").splitlines()
    assert set(hand.splitlines()) <= set(lines)
    assert len(lines) == len(hand.splitlines()) + 1  # GEMMA on the leaderboard


def test_own_rows_follow_the_hub_and_others_stay(folder: Path) -> None:
    path = folder / "published_scores.csv"
    first = rescored(folder, evals({}, {"filename": "old.yaml"}, {"repo_id": QWEN}))
    refresh.write(path, first)
    second = rescored(folder, evals({"value": 63.25}))
    diff = refresh.changes(first, second, table="published_scores")
    key = f"MMLU-Pro / {LLAMA} / Hub"
    assert diff.loc[diff["column"] == "score", ["key", "old", "new"]].to_numpy().tolist() == [
        [f"{key} mmlu_pro mmlu_pro", "61.5", "63.25"],
        [f"{key} old mmlu_pro", "61.5", ""],
    ]
    assert QWEN in set(second["repo_id"])


def test_leaderboard_fills_what_pages_lack(folder: Path) -> None:
    wide = board(
        mmluPro_score=[70.0, 71.5, 99.0], aime2026_score=[None, 0.5, 90.0],
        aggregate_score=[50.0, 50.0, 50.0], mmluPro_rank=[1, 2, 3], evil_score=["=1", None, "x"],
    )  # fmt: skip
    found = rescored(folder, evals({}), wide)
    rows = found[found["note"] == "OpenEvals leaderboard"]
    columns = ["repo_id", "benchmark", "score", "unit", "kind", "verified", "variant"]
    assert rows[columns].to_numpy().tolist() == [
        [GEMMA, "MMLU-Pro", "71.5", "percent", "self-reported", "", "OpenEvals"],
        [GEMMA, "OpenEvals/aime2026", "0.5", "as given", "self-reported", "", "OpenEvals"],
    ]


def test_leaderboard_of_another_shape_changes_nothing(folder: Path) -> None:
    path = folder / "published_scores.csv"
    refresh.write(path, rescored(folder, evals(), board(mmluPro_score=[70.0, 71.0, 99.0])))
    before = refresh.read(path)
    for odd in (pd.DataFrame(), pd.DataFrame({"name": [LLAMA], "mmluPro_score": [1.5]})):
        pd.testing.assert_frame_equal(rescored(folder, evals(), odd), before)
    pd.testing.assert_frame_equal(rescored(folder, evals(), None), before)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with running() as stub:
        monkeypatch.setattr(hub.constants, "ENDPOINT", stub.url)
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.delenv(proxy, raising=False)
            monkeypatch.delenv(proxy.lower(), raising=False)
        yield stub


# --- the whole


def test_everything_in_one_go(run: Callable[..., str], folder: Path) -> None:
    path = folder / "board.parquet"
    board(mmluPro_score=[70.0, 71.0, 99.0]).to_parquet(path)
    facts = metadata(
        answer(LLAMA, license_on_hub="llama9", params_b=9.0),
        silent(GEMMA, "the Hub knows no such repository"),
        answer(QWEN, license_on_hub="mit", params_b=7.0, layers=10, kv_heads=2, head_dim=64),
    )
    text = run(facts, evals({}), leaderboard=str(path))
    assert text.splitlines()[:-1] == [
        "2 of 3 models verified, 1 kept.",
        "  beta/gemma: the Hub knows no such repository",
        "models.csv: 0 rows added, 0 removed, 2 cells changed besides commits and dates.",
        "  A licence may change a verdict: read its text, then edit `license`.",
        "  acme/llama hub_license: Apache-2.0 -> llama9",
        "  acme/llama hub_params_b: 8.030 -> 9",
        "published_scores.csv: 2 rows added, 0 removed, 0 cells changed besides commits and dates.",
        "  MMLU-Pro / acme/llama / Hub mmlu_pro mmlu_pro score: (blank) -> 61.5",
        "  MMLU-Pro / beta/gemma / OpenEvals score: (blank) -> 71",
    ]
    assert len(differing(MODELS, (folder / "models.csv").read_text())) == 2
    rows = cells(folder / "published_scores.csv")
    assert len(rows) == 5 and rows[1:] == sorted(rows[1:], key=lambda r: (r[1], r[0], r[6]))


def test_dry_run_tells_the_same_and_writes_nothing(run: Callable[..., str], folder: Path) -> None:
    facts = metadata(answer(LLAMA, params_b=9.0))
    dry = run(facts, evals({}), dry_run=True)
    assert (folder / "models.csv").read_text() == MODELS
    assert (folder / "published_scores.csv").read_text() == SCORES
    wet = run(facts, evals({}))
    assert dry.splitlines()[:-1] == wet.splitlines()[:-1]
    assert dry.endswith("Nothing written: this was a dry run.")


def test_only_asks_about_the_named_models(run: Callable[..., str], folder: Path) -> None:
    path = folder / "board.parquet"
    board(mmluPro_score=[70.0, 71.0, 99.0]).to_parquet(path)
    facts = metadata(answer(LLAMA), answer(QWEN, params_b=99.0))
    text = run(facts, only=[LLAMA], leaderboard=str(path))
    assert text.startswith("1 of 1 models verified, 0 kept.")
    assert len(differing(MODELS, (folder / "models.csv").read_text())) == 1
    assert [row[0] for row in cells(folder / "published_scores.csv")[1:]] == [LLAMA, LLAMA, GEMMA]
    with pytest.raises(PlaybookError, match=r"models.csv has no model 'acme/lama'; add its row"):
        run(facts, only=[LLAMA, "acme/lama"])


def test_a_missing_leaderboard_is_said_and_the_rest_goes_on(run: Callable[..., str]) -> None:
    text = run(metadata(answer(LLAMA)), evals({}))
    assert "Leaderboard not read (FileNotFoundError): its earlier scores are kept." in text
    assert "published_scores.csv: 1 rows added" in text


def test_edits_made_during_the_wait_are_kept(
    run: Callable[..., str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(path: str) -> tuple[None, str]:
        edited = MODELS.replace("Acme, X", "Acme SA")
        (folder / "models.csv").write_text(edited)
        return None, ""

    monkeypatch.setattr(refresh, "read_board", slow)
    run(metadata(answer(LLAMA)))
    text = (folder / "models.csv").read_text()
    assert "Acme SA" in text and SHA in text.splitlines()[1]


def test_a_table_that_would_break_its_schema_leaves_both_files(
    run: Callable[..., str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = refresh.scores

    def doctored(*args: Any, **options: Any) -> pd.DataFrame:
        return whole(*args, **options).assign(kind="rumour")

    monkeypatch.setattr(refresh, "scores", doctored)
    with pytest.raises(PlaybookError, match=r"published_scores.csv: .*'rumour'.*nothing was writt"):
        run(metadata(answer(LLAMA, params_b=9.0)))
    assert (folder / "models.csv").read_text() == MODELS
    assert (folder / "published_scores.csv").read_text() == SCORES
    assert {path.name for path in folder.iterdir()} == {"models.csv", "published_scores.csv"}


def test_a_broken_table_is_refused_before_anything_is_asked(
    run: Callable[..., str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "published_scores.csv").write_text(SCORES.replace("40.10", "forty"))
    with pytest.raises(PlaybookError, match=r"published_scores.csv: column 'score'.*'forty'"):
        run(metadata(answer(LLAMA)))
    assert (folder / "models.csv").read_text() == MODELS


def test_line_ends_stay_as_they_are(folder: Path) -> None:
    path = folder / "models.csv"
    path.write_bytes(MODELS.replace("\n", "\r\n").encode())
    refresh.write(path, refreshed(folder, answer(LLAMA)))
    content = path.read_bytes()
    assert content.count(b"\r\n") == content.count(b"\n") == MODELS.count("\n")


def test_no_token_is_sent_for_the_leaderboard(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    table, problem = eval_results.read_board(eval_results.LEADERBOARD)
    assert table is None and problem.startswith("Leaderboard not read (")
    assert stub.asked and not any("authorization" in headers for _, _, headers in stub.asked)


def test_offline_is_one_sentence_and_changes_nothing(folder: Path) -> None:
    with pytest.raises(PlaybookError, match="HF_HUB_OFFLINE is set") as error:
        refresh.shipped(folder=folder, cache=folder / "cache")
    assert "\n" not in str(error.value)
    assert (folder / "models.csv").read_text() == MODELS


def test_answers_of_a_hub_reach_the_tables(stub: Stub, folder: Path) -> None:
    result = {
        "filename": ".eval_results/gpqa.yaml",
        "verified": True,
        "data": {"dataset": {"id": "Idavidrein/gpqa", "task_id": "diamond"}, "value": 71.25},
    }
    broken = {"filename": "x.yaml", "error": "Invalid input"}
    stub.serve(LLAMA, model(LLAMA, evalResults=[result, broken]))
    stub.serve(QWEN, model(QWEN, cardData={"license": "other", "license_name": "=evil"}, tags=[]))
    stub.serve_config(QWEN, CONFIG | {"kv_lora_rank": 512, "qk_rope_head_dim": 64})
    text = refresh.shipped(folder=folder, cache=folder / "cache", today=TODAY)
    assert text.startswith("2 of 3 models verified, 1 kept.\n  beta/gemma: ")
    table = tables.read_table("models", folder / "models.csv").set_index("repo_id")
    assert table.loc[LLAMA, ["hub_params_b", "layers", "kv_heads", "head_dim"]].tolist() == [
        8.0, 32, 8, 128,
    ]  # fmt: skip
    assert table.loc[[LLAMA, QWEN], "hub_revision"].tolist() == [SHA, SHA]
    assert table.loc[QWEN, "hub_license"] == "mit" and pd.isna(table.loc[GEMMA, "hub_revision"])
    # Latent attention keeps no heads: the Hub tells none, and nothing is made up.
    assert table.loc[QWEN, ["layers", "kv_heads", "head_dim"]].tolist() == [32, 2, 64]
    score = cells(folder / "published_scores.csv")[1]
    assert score[:7] == [
        LLAMA, "GPQA", "71.25", "percent", "independent", "yes", "Hub gpqa diamond",
    ]  # fmt: skip


def test_changes_of_equal_tables_are_none(folder: Path) -> None:
    for name in ("models", "published_scores"):
        table = refresh.read(folder / f"{name}.csv")
        diff = refresh.changes(table, table.copy(), table=name)
        assert diff.empty and [*diff.columns] == ["table", "key", "column", "old", "new"]
