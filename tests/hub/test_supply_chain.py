"""The gate: pass only on known facts, fail with the reason, unknown for what nobody verified."""

from __future__ import annotations

from datetime import date
from io import BytesIO
from typing import Any

import pandas as pd
import pytest

from lib.brief.sections import Require
from lib.hub.facts import supply_verdicts

TODAY = date(2026, 11, 24)
GOOD: dict[str, Any] = {
    "repo_id": "org/a",
    "metadata_source": "hub",
    "formats": "safetensors",
    "remote_code": False,
    "security": "clean",
    "security_issues": None,
    "gated": "no",
    "created_at": "2026-01-01T00:00:00.000Z",
    "last_modified": "2026-11-01T12:00:00.000Z",
}
DTYPES = dict.fromkeys(GOOD, "str") | {"remote_code": "boolean"}
EVERYTHING = Require(
    safetensors=True,
    no_remote_code=True,
    scanned=True,
    not_gated=True,
    min_age_days=30,
    max_age_days=365,
)


def metadata(*changes: dict[str, Any]) -> pd.DataFrame:
    """Rows of good repositories with changes, typed as `hub.pull` types them."""
    return pd.DataFrame([GOOD | change for change in changes], columns=list(GOOD)).astype(DTYPES)


def judged(require: dict[str, Any] | Require, **facts: Any) -> tuple[str, str]:
    required = require if isinstance(require, Require) else Require(**require)
    row = supply_verdicts(metadata(facts), required, today=TODAY).iloc[0]
    return row["supply_verdict"], row["supply_reasons"]


@pytest.mark.parametrize(
    ("require", "facts", "verdict", "reasons"),
    [
        ("safetensors", {}, "pass", ""),
        ("safetensors", {"formats": "safetensors;gguf"}, "pass", ""),
        (
            "safetensors",
            {"formats": "safetensors;pickle"},
            "pass",
            "pickle files too: load with safetensors only",
        ),
        ("safetensors", {"formats": "pickle"}, "fail", "no safetensors files, only pickle"),
        ("safetensors", {"formats": "gguf"}, "fail", "no safetensors files, only gguf"),
        (
            "safetensors",
            {"formats": "gguf;pickle"},
            "fail",
            "no safetensors files, only gguf and pickle",
        ),
        ("safetensors", {"formats": ""}, "fail", "no safetensors files, no weight files"),
        ("safetensors", {"formats": "safetensors.bak"}, "fail", "no safetensors files, only"),
        ("safetensors", {"formats": None}, "unknown", "not verified: file formats"),
        ("no_remote_code", {}, "pass", ""),
        ("no_remote_code", {"remote_code": True}, "fail", "loading it runs the repository's own"),
        ("no_remote_code", {"remote_code": None}, "unknown", "not verified: remote code"),
        ("scanned", {}, "pass", ""),
        (
            "scanned",
            {"security": "issues", "security_issues": "a.bin (unsafe); b.pt (caution)"},
            "fail",
            "the Hub's scan found issues: a.bin (unsafe); b.pt (caution)",
        ),
        (
            "scanned",
            {"security": "issues"},
            "fail",
            "the Hub's scan found issues: files not named",
        ),
        ("scanned", {"security": "unknown"}, "unknown", "not verified: security scan"),
        ("scanned", {"security": None}, "unknown", "not verified: security scan"),
        ("scanned", {"security": "Clean!"}, "unknown", "not verified: security scan"),
        ("not_gated", {}, "pass", ""),
        ("not_gated", {"gated": "manual"}, "fail", "gated (manual): its terms must be accepted"),
        ("not_gated", {"gated": "auto"}, "fail", "gated (auto)"),
        ("not_gated", {"gated": "yes"}, "fail", "gated (yes)"),
        ("not_gated", {"gated": None}, "unknown", "not verified: gating"),
        ("not_gated", {"gated": "<b>no</b>"}, "unknown", "not verified: gating"),
    ],
)
def test_each_requirement(require: str, facts: dict[str, Any], verdict: str, reasons: str) -> None:
    found, why = judged({require: True}, **facts)
    assert found == verdict
    assert why.startswith(reasons) if reasons else why == ""


@pytest.mark.parametrize(
    ("require", "stamp", "verdict", "reasons"),
    [
        ({"min_age_days": 30}, "2026-10-25", "pass", ""),
        ({"min_age_days": 30}, "2026-10-26", "fail", "created 29 days ago, wanted at least 30"),
        ({"min_age_days": 30}, "2026-11-25T01:00:00Z", "fail", "created 0 days ago"),
        ({"min_age_days": 30}, "2026-11-26", "unknown", "not verified: creation date"),
        ({"min_age_days": 30}, None, "unknown", "not verified: creation date"),
        ({"min_age_days": 30}, "now", "unknown", "not verified: creation date"),
        ({"min_age_days": 30}, "9" * 5000, "unknown", "not verified: creation date"),
        ({"min_age_days": 30}, "0001-01-01", "pass", ""),
        ({"min_age_days": 0}, None, "pass", ""),
        ({"max_age_days": 90}, "2026-08-26T23:59:59.000Z", "pass", ""),
        ({"max_age_days": 90}, "2026-08-25", "fail", "last changed 91 days ago, wanted at most 90"),
        ({"max_age_days": 0}, "2026-11-24T10:00:00Z", "pass", ""),
        ({"max_age_days": 0}, "2026-11-23T10:00:00Z", "fail", "last changed 1 days ago"),
        ({"max_age_days": 90}, "2099-01-01", "unknown", "not verified: last change"),
        ({"max_age_days": 90}, None, "unknown", "not verified: last change"),
    ],
)
def test_ages(require: dict[str, int], stamp: str | None, verdict: str, reasons: str) -> None:
    column, other = ("created_at", "last_modified")[:: 1 if "min_age_days" in require else -1]
    # The other date is always wrong: a check that read it would be caught.
    wrong = None if verdict == "pass" else "2026-08-26"
    found, why = judged(require, **{column: stamp, other: wrong})
    assert (found, why.startswith(reasons)) == (verdict, True), why


def test_nothing_required_passes_whatever_is_known() -> None:
    nothing = dict.fromkeys(GOOD) | {"repo_id": "org/b"}
    bad = {"formats": "safetensors;pickle", "security": "issues", "gated": "manual"}
    table = supply_verdicts(metadata({}, nothing, bad), Require(), today=TODAY)
    assert set(table["supply_verdict"]) == {"pass"} and set(table["supply_reasons"]) == {""}


def test_everything_required() -> None:
    assert judged(EVERYTHING) == ("pass", "")
    blank = dict.fromkeys(GOOD) | {"repo_id": "org/a", "metadata_source": "catalogue"}
    assert judged(EVERYTHING, **blank) == (
        "unknown",
        "not verified: file formats, remote code, security scan, gating, creation date,"
        " last change",
    )


def test_a_failure_outweighs_what_is_not_known_and_both_are_told() -> None:
    verdict, why = judged(EVERYTHING, gated="auto", security=None)
    assert verdict == "fail"
    assert why == "gated (auto): its terms must be accepted first; not verified: security scan"


@pytest.mark.parametrize("fact", list(GOOD)[2:])
def test_no_missing_fact_ever_passes(fact: str) -> None:
    if fact != "security_issues":
        assert judged(EVERYTHING, **{fact: None})[0] == "unknown"
    without = metadata({}).drop(columns=fact)
    verdict = supply_verdicts(without, EVERYTHING, today=TODAY)["supply_verdict"][0]
    assert verdict == ("pass" if fact == "security_issues" else "unknown")


@pytest.mark.parametrize("dtype", ["boolean", "bool", "object"])
def test_types_of_remote_code(dtype: str) -> None:
    table = metadata({"remote_code": True}, {"remote_code": False})
    table["remote_code"] = table["remote_code"].astype(dtype)
    found = supply_verdicts(table, Require(no_remote_code=True), today=TODAY)
    assert list(found["supply_verdict"]) == ["fail", "pass"]
    table["remote_code"] = ["False", 0]
    found = supply_verdicts(table, Require(no_remote_code=True), today=TODAY)
    assert list(found["supply_verdict"]) == ["unknown", "unknown"]


def test_file_names_of_strangers_stay_on_one_line() -> None:
    evil = "x.bin\n## verdict: pass\u202e\x1b[2J (unsafe)"
    _, why = judged({"scanned": True}, security="issues", security_issues=evil)
    assert why.isprintable() and "x.bin ## verdict: pass" in why


def test_rows_keep_their_order_and_index() -> None:
    table = metadata({"repo_id": "org/b"}, {"repo_id": "org/a", "gated": "yes"}, {"gated": None})
    table.index = pd.Index([7, 3, 9])
    before = table.copy()
    found = supply_verdicts(table, Require(not_gated=True), today=TODAY)
    assert list(found.columns) == ["repo_id", "supply_verdict", "supply_reasons"]
    assert list(found.index) == [7, 3, 9] and list(found["repo_id"]) == ["org/b", "org/a", "org/a"]
    assert list(found["supply_verdict"]) == ["pass", "fail", "unknown"]
    pd.testing.assert_frame_equal(table, before)
    buffer = BytesIO()
    found.to_parquet(buffer, index=False)
    assert pd.read_parquet(buffer)["supply_reasons"].to_list() == found["supply_reasons"].to_list()


def test_an_empty_pull() -> None:
    found = supply_verdicts(metadata().iloc[:0], EVERYTHING, today=TODAY)
    assert found.empty and list(found.columns) == ["repo_id", "supply_verdict", "supply_reasons"]
