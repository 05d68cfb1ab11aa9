"""Refreshing the tables: a small diff, nobody's words touched, nothing hostile let in."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hub_stub import CONFIG, Stub, model, running
from huggingface_hub import constants

from lib import tables
from lib.errors import PlaybookError
from tools import refresh_catalogue as tool

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


def answer(repo_id: str, **changes: Any) -> dict[str, Any]:
    return {"repo_id": repo_id, **FACTS} | changes


def silent(repo_id: str, problem: str = "") -> dict[str, Any]:
    facts = dict.fromkeys(FACTS) | {"metadata_source": "catalogue", "problem": problem}
    return {"repo_id": repo_id} | facts | {"retrieved_at": "2026-10-05"}


def metadata(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["repo_id", *FACTS]).astype(DTYPES)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "models.csv").write_text(MODELS, encoding="utf-8", newline="")
    return tmp_path / "models.csv"


@pytest.fixture
def run(table: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`refresh` on the small table, with the Hub's answers given as a frame."""

    def go(answers: pd.DataFrame, **options: Any) -> str:
        def pull(models: pd.DataFrame, cache: Path, **asked: Any) -> SimpleNamespace:
            assert asked["source"] == "hub"
            return SimpleNamespace(metadata=answers[answers["repo_id"].isin(models["repo_id"])])

        monkeypatch.setattr(tool, "pull", pull)
        return tool.refresh(table, cache=table.parent / "cache", **options)

    return go


def refreshed(path: Path, *answers: dict[str, Any]) -> pd.DataFrame:
    return tool.updated(tool.read(path), metadata(*answers))


def cells(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def differing(old: str, new: str) -> list[tuple[str, str]]:
    """Lines that a `git diff` would show, where no row was added."""
    pairs = zip(old.splitlines(), new.splitlines(), strict=True)
    return [(a, b) for a, b in pairs if a != b]


def cell(table: pd.DataFrame, repo_id: str, column: str) -> str:
    return str(table.set_index("repo_id").loc[repo_id, column])


def test_the_shipped_table_survives_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, copy = tables.DATA / "models.csv", tmp_path / "models.csv"
    copy.write_bytes(source.read_bytes())
    monkeypatch.setattr(tool, "pull", lambda *_, **__: SimpleNamespace(metadata=metadata()))
    assert "Nothing written: nothing is new." in tool.refresh(copy, cache=tmp_path)
    assert copy.read_bytes() == source.read_bytes()


def test_no_answer_leaves_every_cell(table: Path) -> None:
    before = tool.read(table)
    for rows in ([], [silent(LLAMA)], [silent(LLAMA, "gone"), silent(QWEN)]):
        pd.testing.assert_frame_equal(refreshed(table, *rows), before)


def test_unchanged_facts_change_only_commit_and_day(run: Callable[..., str], table: Path) -> None:
    run(metadata(answer(LLAMA)))
    ((old, new),) = differing(MODELS, table.read_text())
    assert new == old.replace(",,,2026-10-05", f",{SHA},2026-11-24,2026-10-05")
    assert "Apache-2.0,8,8.0,8.030," in new and '"a ""b"" c"' in new


def test_second_refresh_of_the_day_writes_nothing(run: Callable[..., str], table: Path) -> None:
    answers = metadata(answer(LLAMA, params_b=9.0))
    assert "Written: " in run(answers)
    kept = table.read_bytes(), table.stat().st_ino
    assert "Nothing written: nothing is new." in run(answers)
    assert kept == (table.read_bytes(), table.stat().st_ino)


def test_only_cells_of_the_hub_change(table: Path) -> None:
    facts = answer(LLAMA, license_on_hub="llama9", params_b=70.5537, layers=80, kv_heads=4,
                   head_dim=256, revision=OTHER_SHA)  # fmt: skip
    before = tool.read(table)
    after = refreshed(table, facts)
    assert [tuple(change) for change in tool.changes(before, after)] == [
        (LLAMA, "hub_license", "Apache-2.0", "llama9"),
        (LLAMA, "hub_params_b", "8.030", "70.55"),
        (LLAMA, "layers", "32", "80"),
        (LLAMA, "kv_heads", "8", "4"),
        (LLAMA, "head_dim", "128", "256"),
    ]
    assert tool.changes(before, before) == []
    stamps = ["hub_revision", "hub_checked_on"]
    assert [cell(after, LLAMA, name) for name in stamps] == [OTHER_SHA, "2026-11-24"]
    same = before.columns.difference([*stamps, *tool.FACTS])
    pd.testing.assert_frame_equal(before[same], after[same])


def test_what_a_person_wrote_stays_though_the_hub_disagrees(table: Path) -> None:
    facts = {c: "changed" for c in tables.models().columns if c not in {"repo_id", *FACTS}}
    row = answer(LLAMA) | facts
    before = tool.read(table)
    after = tool.updated(before, pd.DataFrame([row]))
    by_hand = [c for c in before.columns if not c.startswith("hub_")]
    pd.testing.assert_frame_equal(after[by_hand], before[by_hand])
    assert cell(after, LLAMA, "context_length") == "4096"


def test_blank_cells_are_filled(table: Path) -> None:
    after = refreshed(table, answer(GEMMA, params_b=0.26809))
    names = ["hub_license", "hub_params_b", "layers", "kv_heads", "head_dim", "hub_revision"]
    assert [cell(after, GEMMA, n) for n in names] == ["apache-2.0", "0.2681", "32", "8", "128", SHA]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1026.47, "1026"), (12345.6, "12350"), (32.0, "32"), (0.13451, "0.1345"), (5527.1, "5527")],
)
def test_sizes_have_four_digits_and_no_exponent(table: Path, value: float, text: str) -> None:
    assert cell(refreshed(table, answer(GEMMA, params_b=value)), GEMMA, "hub_params_b") == text


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
def test_hostile_fact_keeps_the_cell(table: Path, bad: dict[str, Any]) -> None:
    good = answer(LLAMA)
    before = tool.read(table)
    expected = tool.updated(before, pd.DataFrame([good]))
    after = tool.updated(before, pd.DataFrame([good | bad]).astype(object))
    pd.testing.assert_frame_equal(after, expected)


def test_hostile_text_stays_one_cell_on_one_line(run: Callable[..., str], table: Path) -> None:
    run(metadata(answer(LLAMA, license_on_hub='a"b,\r\nc\u2028d')))
    text = table.read_bytes().decode()
    assert text.count("\n") == MODELS.count("\n") and "\r" not in text
    assert cells(table)[1][5] == 'a"b, c d'


@pytest.mark.parametrize(
    "unpinned", [{"revision": None}, {"revision": "main"}, {"retrieved_at": None}]
)
def test_an_answer_without_commit_or_day_counts_as_none(
    table: Path, unpinned: dict[str, Any]
) -> None:
    after = refreshed(table, answer(LLAMA, params_b=99.0, **unpinned))
    pd.testing.assert_frame_equal(after, tool.read(table))


def test_a_cached_answer_is_dated_by_its_own_day_and_never_goes_back(table: Path) -> None:
    cached = {"metadata_source": "hub (cached 2026-10-30)", "retrieved_at": "2026-10-30T01:00:00"}
    after = refreshed(table, answer(LLAMA, **cached), answer(QWEN, params_b=99.0, **cached))
    assert cell(after, LLAMA, "hub_checked_on") == "2026-10-30"
    assert cell(after, QWEN, "hub_checked_on") == "2026-11-01"
    assert cell(after, QWEN, "hub_params_b") == "7"


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with running() as stub:
        monkeypatch.setattr(constants, "ENDPOINT", stub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.delenv(proxy, raising=False)
            monkeypatch.delenv(proxy.lower(), raising=False)
        yield stub


def test_everything_in_one_go(run: Callable[..., str], table: Path) -> None:
    answers = metadata(
        answer(LLAMA, license_on_hub="llama9", params_b=9.0),
        silent(GEMMA, "the Hub knows no such repository"),
        answer(QWEN, license_on_hub="mit", params_b=7.0, layers=10, kv_heads=2, head_dim=64),
    )
    assert run(answers).splitlines()[:-1] == [
        "2 of 3 models verified, 1 kept.",
        "  beta/gemma: the Hub knows no such repository",
        "models.csv: 2 cells changed besides commits and dates.",
        "  A licence may change a verdict: read its text, then edit `license`.",
        "  acme/llama hub_license: Apache-2.0 -> llama9",
        "  acme/llama hub_params_b: 8.030 -> 9",
    ]
    assert len(differing(MODELS, table.read_text())) == 2


def test_dry_run_tells_the_same_and_writes_nothing(run: Callable[..., str], table: Path) -> None:
    answers = metadata(answer(LLAMA, params_b=9.0))
    dry = run(answers, dry_run=True)
    assert table.read_text() == MODELS
    assert dry.splitlines()[:-1] == run(answers).splitlines()[:-1]
    assert dry.endswith("Nothing written: this was a dry run.")


def test_only_asks_about_the_named_models(run: Callable[..., str], table: Path) -> None:
    answers = metadata(answer(LLAMA), answer(QWEN, params_b=99.0))
    assert run(answers, only=[LLAMA]).startswith("1 of 1 models verified, 0 kept.")
    assert len(differing(MODELS, table.read_text())) == 1
    with pytest.raises(PlaybookError, match=r"models.csv has no model 'acme/lama'; add its row"):
        run(answers, only=[LLAMA, "acme/lama"])


def test_edits_made_during_the_wait_are_kept(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: Any, **__: Any) -> SimpleNamespace:
        table.write_text(MODELS.replace("Acme, X", "Acme SA"))
        return SimpleNamespace(metadata=metadata(answer(LLAMA)))

    monkeypatch.setattr(tool, "pull", slow)
    tool.refresh(table, cache=table.parent)
    text = table.read_text()
    assert "Acme SA" in text and SHA in text.splitlines()[1]


def test_a_table_that_would_break_its_schema_stays(
    run: Callable[..., str], table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def doctored(models: pd.DataFrame, metadata: pd.DataFrame) -> pd.DataFrame:
        return models.assign(listed_for="rumour")

    monkeypatch.setattr(tool, "updated", doctored)
    with pytest.raises(PlaybookError, match=r"models.csv: .*'rumour'.*nothing was writt"):
        run(metadata(answer(LLAMA, params_b=9.0)))
    assert table.read_text() == MODELS and [*table.parent.iterdir()] == [table]


def test_a_broken_table_is_refused_before_anything_is_asked(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "pull", None)
    table.write_text(MODELS.replace("8.030", "eight"))
    with pytest.raises(PlaybookError, match=r"models.csv: column 'hub_params_b'.*'eight'"):
        tool.refresh(table, cache=table.parent)


def test_line_ends_stay_as_they_are(run: Callable[..., str], table: Path) -> None:
    table.write_bytes(MODELS.replace("\n", "\r\n").encode())
    run(metadata(answer(LLAMA)))
    content = table.read_bytes()
    assert SHA.encode() in content.splitlines()[1]
    assert content.count(b"\r\n") == content.count(b"\n") == MODELS.count("\n")


def test_offline_is_one_sentence_and_changes_nothing(table: Path) -> None:
    with pytest.raises(PlaybookError, match="HF_HUB_OFFLINE is set") as error:
        tool.refresh(table, cache=table.parent / "cache")
    assert "\n" not in str(error.value)
    assert table.read_text() == MODELS


def test_the_command_ends_in_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "pull", None)
    assert tool.main(["--dry-run", "no/such"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err == "error: data/models.csv has no model 'no/such'; add its row first\n"


def test_answers_of_a_hub_reach_the_table(stub: Stub, table: Path) -> None:
    stub.serve(LLAMA, model(LLAMA))
    stub.serve(QWEN, model(QWEN, cardData={"license": "other", "license_name": "=evil"}, tags=[]))
    stub.serve_config(QWEN, CONFIG | {"kv_lora_rank": 512, "qk_rope_head_dim": 64})
    text = tool.refresh(table, cache=table.parent / "cache")
    assert text.startswith("2 of 3 models verified, 1 kept.\n  beta/gemma: ")
    models = tables.read_table("models", table).set_index("repo_id")
    assert models.loc[LLAMA, ["hub_params_b", "layers", "kv_heads", "head_dim"]].tolist() == [
        8.0, 32, 8, 128,
    ]  # fmt: skip
    assert models.loc[[LLAMA, QWEN], "hub_revision"].tolist() == [SHA, SHA]
    assert models.loc[QWEN, "hub_license"] == "mit" and pd.isna(models.loc[GEMMA, "hub_revision"])
    # Latent attention keeps no heads: the Hub tells none, and nothing is made up.
    assert models.loc[QWEN, ["layers", "kv_heads", "head_dim"]].tolist() == [32, 2, 64]
