"""Verdicts: the strictest rule wins, what is not known is review, and nothing is dropped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from briefs import brief

from lib import legal, tables
from lib.errors import PlaybookError
from lib.project import Policy, load_project

CLASS = {
    "mit": "permissive",
    "apache-2.0": "permissive",
    "gemma": "conditional",
    "cc-by-nc-4.0": "non-commercial",
    "no-maas": "conditional",
    "unread": "unknown",
}
COMMERCIAL = {"cc-by-nc-4.0": "no", "unread": "unknown", "no-maas": "conditional"}


def licenses() -> pd.DataFrame:
    """Six texts with every column of the shipped table, so that new columns do no harm here."""
    frame = pd.DataFrame(index=range(len(CLASS)), columns=tables.licenses().columns, dtype=object)
    frame["license"] = list(CLASS)
    frame["full_name"] = [f"Text of {name}" for name in CLASS]
    frame["license_class"] = list(CLASS.values())
    frame["commercial_use"] = [COMMERCIAL.get(name, "yes") for name in CLASS]
    frame["conditions"] = [f"Do what {name} says." for name in CLASS]
    frame.loc[frame["license"] == "no-maas", "services_excluded"] = (
        "ai-assistant; model-as-a-service"
    )
    frame["read"] = ["not read" if name == "unread" else "full text" for name in CLASS]
    return frame.astype(tables.licenses().dtypes.to_dict())


def models(*rows: tuple[str | None, str | None]) -> pd.DataFrame:
    """One model for each licence and country, with every column of the shipped catalogue."""
    frame = pd.DataFrame(index=range(len(rows)), columns=tables.models().columns, dtype=object)
    frame["repo_id"] = [f"org/m{i}" for i in range(len(rows))]
    frame["family"] = [f"F{i % 2}" for i in range(len(rows))]
    frame["license"] = [license for license, _ in rows]
    frame["country"] = [country for _, country in rows]
    frame["modality"] = "text"
    return frame.astype(tables.models().dtypes.to_dict())


def judge_one(license: str | None, country: str | None = "France", **policy: Any) -> pd.Series:
    """The row of one model; another one makes every country known."""
    catalogue = models((license, country), ("mit", "France"), ("mit", "China"))
    judged = legal.judge(catalogue, licenses(), Policy(**policy))
    assert len(judged) == 3
    return judged.iloc[0]


LISTED: dict[str, Any] = {"licenses": ["permissive", "conditional", "non-commercial"]}


@pytest.mark.parametrize(
    ("license", "policy", "verdict", "reasons"),
    [
        ("mit", {}, "allowed", "licence mit allows it"),
        ("mit", {"licenses": ["mit"]}, "allowed", "licence mit allows it"),
        (
            "apache-2.0",
            {"licenses": ["mit"]},
            "blocked",
            "licence apache-2.0 is not among policy.licenses",
        ),
        ("gemma", {}, "blocked", "licence gemma is not among policy.licenses"),
        ("gemma", {"licenses": ["permissive", "gemma"]}, "conditional", "licence gemma sets cond"),
        ("gemma", {"licenses": ["conditional"]}, "conditional", "licence gemma sets conditions"),
        ("mit", {"licenses": ["conditional"]}, "blocked", "licence mit is not among policy.licen"),
        (
            "cc-by-nc-4.0",
            LISTED,
            "blocked",
            "licence cc-by-nc-4.0 is non-commercial and the use is product",
        ),
        (
            "cc-by-nc-4.0",
            LISTED | {"use": "internal"},
            "review",
            "licence cc-by-nc-4.0 is non-commercial and the use is internal",
        ),
        (
            "cc-by-nc-4.0",
            {"licenses": ["cc-by-nc-4.0"], "use": "redistribution"},
            "blocked",
            "licence cc-by-nc-4.0 is non-commercial and the use is redistribution",
        ),
        ("no-maas", LISTED, "conditional", "licence no-maas sets conditions"),
        (
            "no-maas",
            LISTED | {"use": "model-as-a-service"},
            "review",
            "licence no-maas wants an agreement for model-as-a-service",
        ),
        ("unread", {}, "review", "the text of unread has not been read"),
        ("unread", {"licenses": ["unread"]}, "review", "the text of unread has not been read"),
        ("brand-new", {}, "review", "licence brand-new is not in data/licenses.csv"),
        (None, {}, "review", "no licence is recorded"),
        (None, LISTED | {"use": "internal"}, "review", "no licence is recorded"),
    ],
)
def test_verdicts(license: str | None, policy: dict[str, Any], verdict: str, reasons: str) -> None:
    row = judge_one(license, **policy)
    assert (row["verdict"], row["reasons"].startswith(reasons)) == (verdict, True), row["reasons"]
    assert "; " not in row["reasons"]


@pytest.mark.parametrize(("column", "value"), [("read", "not read"), ("commercial_use", "unknown")])
def test_what_nobody_read_is_review_whatever_its_class(column: str, value: str) -> None:
    texts = licenses()
    texts.loc[texts["license"] == "mit", column] = value
    row = legal.judge(models(("mit", "France")), texts, Policy(licenses=["mit"])).iloc[0]
    assert (row["verdict"], row["reasons"]) == ("review", "the text of mit has not been read")


@pytest.mark.parametrize(
    ("country", "countries", "verdict", "reasons"),
    [
        (None, None, "allowed", "licence mit allows it"),
        (None, ["France"], "review", "country unknown"),
        ("France", ["France"], "allowed", "licence mit allows it"),
        ("China", None, "allowed", "licence mit allows it"),
        (
            "China",
            ["France"],
            "blocked",
            "developer's country China is not among policy.countries",
        ),
    ],
)
def test_countries(
    country: str | None, countries: list[str] | None, verdict: str, reasons: str
) -> None:
    row = judge_one("mit", country, countries=countries)
    assert (row["verdict"], row["reasons"]) == (verdict, reasons)


def test_the_strictest_rule_wins_and_only_its_level_is_told() -> None:
    row = judge_one(None, "China", countries=["France"])
    assert row["verdict"] == "blocked"
    assert row["reasons"] == "developer's country China is not among policy.countries"
    row = judge_one("gemma", "China", countries=["France"])
    assert row["reasons"] == (
        "licence gemma is not among policy.licenses;"
        " developer's country China is not among policy.countries"
    )
    row = judge_one("gemma", None, licenses=["gemma"], countries=["France"])
    assert (row["verdict"], row["reasons"]) == ("review", "country unknown")
    row = judge_one("unread", None, countries=["France"])
    assert row["reasons"] == "the text of unread has not been read; country unknown"


def test_conditions_are_told_whatever_the_verdict() -> None:
    assert judge_one("gemma")["conditions"] == "Do what gemma says."
    assert judge_one(None)["conditions"] == ""


def test_nothing_is_dropped_or_reordered() -> None:
    catalogue = models(("mit", "France"), (None, None), ("gemma", "China"), ("new", "France"))
    catalogue.index = pd.Index([7, 3, 9, 1])
    before = catalogue.copy()
    judged = legal.judge(catalogue, licenses(), Policy(licenses=["mit"], countries=["France"]))
    pd.testing.assert_frame_equal(catalogue, before)
    pd.testing.assert_frame_equal(judged[list(catalogue.columns)], catalogue)
    assert list(judged["verdict"]) == ["allowed", "review", "blocked", "review"]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (
            {"licenses": ["apache-2"]},
            "policy.licenses: nobody here knows 'apache-2'; did you mean 'apache-2.0'?",
        ),
        ({"licenses": ["permisive"]}, "nobody here knows 'permisive'; did you mean 'permissive'?"),
        ({"licenses": ["MIT"]}, "policy.licenses: nobody here knows 'MIT'"),
        ({"licenses": ["unknown"]}, "policy.licenses: nobody here knows 'unknown'"),
        ({"licenses": ["qqqq"]}, "policy.licenses: nobody here knows 'qqqq'; see data/"),
        (
            {"countries": ["Frence"]},
            "policy.countries: nobody here knows 'Frence'; did you mean 'France'?",
        ),
    ],
)
def test_misspelt_names_in_the_policy(policy: dict[str, Any], message: str) -> None:
    with pytest.raises(PlaybookError, match=re.escape(message)):
        judge_one("mit", **policy)


@pytest.mark.parametrize("use", ["internal", "product", "model-as-a-service", "redistribution"])
@pytest.mark.parametrize("countries", [None, ["United States", "France"]])
def test_every_shipped_model_has_one_of_four_verdicts(
    use: Any, countries: list[str] | None
) -> None:
    catalogue, texts = tables.models(), tables.licenses()
    policy = Policy(licenses=["permissive", "gemma"], use=use, countries=countries)
    judged = legal.judge(catalogue, texts, policy)
    assert list(judged["repo_id"]) == list(catalogue["repo_id"])
    assert set(judged["verdict"]) == {"allowed", "conditional", "review", "blocked"}
    assert (judged["reasons"].str.len() > 10).all()
    allowed = judged[judged["verdict"] == "allowed"]
    permissive = texts.loc[texts["license_class"] == "permissive", "license"]
    assert set(allowed["license"]) <= set(permissive)
    assert not len(judged[judged["license"].isna() & (judged["verdict"] == "allowed")])
    if countries:
        chosen = judged[judged["verdict"].isin(["allowed", "conditional"])]
        assert set(chosen["country"]) <= set(countries)


def test_shipped_models_of_the_default_project() -> None:
    project = load_project("review-sentiment")
    judged = legal.judge(tables.models(), tables.licenses(), project.policy).set_index("repo_id")
    found = {d.model: judged.loc[d.model, "verdict"] for d in project.deployments}
    assert found == {
        "google/gemma-3-270m": "conditional",
        "HuggingFaceTB/SmolLM2-135M-Instruct": "allowed",
    }


def test_families_are_counted() -> None:
    catalogue = models(("mit", "France"), ("mit", "France"), ("gemma", "France"))
    counts = legal.by_family(legal.judge(catalogue, licenses(), Policy()))
    assert list(counts.columns) == ["allowed", "conditional", "review", "blocked", "models"]
    assert counts.loc["F0"].to_list() == [1, 0, 0, 1, 2]
    assert list(counts.index) == ["F0", "F1"]


def test_admit(tmp_path: Path) -> None:
    deployments = [
        {
            "name": name,
            "model": f"org/{name}",
            "endpoint": {"base_url": "http://h"},
            "price": {"usd_per_hour": 1},
        }
        for name in ("good", "terms", "drifted", "large", "stranger")
    ]
    project = brief(tmp_path, "deployments", deployments)
    shortlist = pd.DataFrame(
        {
            "repo_id": ["org/good", "org/terms", "org/drifted", "org/large"],
            "why": ["tier low", "tier low", "tier low", "tier high; wanted low"],
        }
    )
    metadata = pd.DataFrame(
        {
            "repo_id": ["org/good", "org/terms", "org/drifted"],
            "verdict": ["allowed", "conditional", "review"],
        }
    )
    admitted = legal.admit(project, shortlist, metadata)
    assert admitted[["admitted", "verdict", "why"]].to_numpy().tolist() == [
        ["yes", "allowed", "on the shortlist"],
        ["yes", "conditional", "on the shortlist"],
        ["no", "review", "step 3: review"],
        ["no", "", "tier high; wanted low"],
        ["no", "", "not in data/models.csv: add it, with its licence and source"],
    ]
    assert list(admitted["deployment"]) == [d.name for d in project.deployments]
