"""One screen of what the Hub confirmed, contradicted or left open."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lib.hub import facts
from lib.hub.drift import drift_texts

COLUMNS = ["repo_id", "metadata_source", *(column for column, _ in facts.RESTS_ON.values())]
HUB = {
    "metadata_source": "hub",
    "revision": "a" * 40,
    "license_on_hub": "mit",
    "params_b": 7.0,
    "context_length": 8192,
    "gated": "no",
    "base_models": None,
    "formats": "safetensors",
    "remote_code": False,
    "security": "clean",
}


def metadata(**models: dict[str, Any]) -> pd.DataFrame:
    rows = [{"repo_id": f"org/{name}", **HUB, **changes} for name, changes in models.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def counts(pulled: pd.DataFrame, *drifts: tuple[str, str]) -> dict[str, tuple[int, int, int]]:
    rows = [(f"org/{name}", field, "catalogue", "old", "new") for name, field in drifts]
    told = pd.DataFrame(rows, columns=["repo_id", "field", "against", "old", "new"], dtype="str")
    table = facts.overview(pulled, told)
    assert (table[["verified", "drifted", "unknown"]].sum(axis=1) == len(pulled)).all()
    return {fact: (v, d, u) for fact, v, d, u in table.itertuples(index=False)}


def test_what_only_the_catalogue_says_is_unknown() -> None:
    table = counts(metadata(a={"metadata_source": "catalogue"}, b={}))
    assert table.pop("base model") == (0, 0, 2)  # the Hub's silence is no answer
    assert set(table.values()) == {(1, 0, 1)}


def test_what_drifted_is_not_verified_and_is_counted_once() -> None:
    table = counts(metadata(a={}, b={}), ("a", "licence"), ("a", "licence"), ("b", "size"))
    assert table["licence"] == (1, 1, 0)
    assert table["size"] == (1, 1, 0)
    assert table["gating"] == (2, 0, 0)


def test_a_drift_counts_also_where_the_hub_now_says_nothing() -> None:
    assert counts(metadata(a={"license_on_hub": None}), ("a", "licence"))["licence"] == (0, 1, 0)


def test_unscanned_and_missing_are_unknown() -> None:
    table = counts(metadata(a={"security": "unknown", "remote_code": None, "revision": None}))
    for fact in ("security scan", "remote code", "revision"):
        assert table[fact] == (0, 0, 1)
    assert table["base model"] == (0, 0, 1)
    assert counts(metadata(a={"base_models": "a/b"}))["base model"] == (1, 0, 0)
    assert counts(metadata(a={"security": "issues"}))["security scan"] == (1, 0, 0)


def test_an_empty_pull() -> None:
    assert set(counts(metadata()).values()) == {(0, 0, 0)}


def test_drifts_of_a_model_in_one_text() -> None:
    rows = [
        ("org/a", "licence", "catalogue", "mit", "other"),
        ("org/a", "size", "previous run", "7B", "8B"),
    ]
    told = pd.DataFrame(rows, columns=["repo_id", "field", "against", "old", "new"], dtype="str")
    repo_ids = pd.Series(["org/b", "org/a"], dtype="str")
    text = "licence: catalogue mit, Hub other; size: previous run 7B, Hub 8B"
    assert list(drift_texts(told, repo_ids)) == ["", text]
    assert list(drift_texts(told.iloc[:0], repo_ids)) == ["", ""]
