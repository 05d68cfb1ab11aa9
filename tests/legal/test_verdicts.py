"""Verdicts: the strictest rule wins, what is not known is review, and nothing is dropped."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pandas as pd
import pytest
from briefs import BASE, load_project

from lib import tables
from lib.brief.project import Project
from lib.errors import PlaybookError
from lib.legal import verdicts as legal

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
    frame["modality"], frame["base_model"] = "text", "none"
    return frame.astype(tables.models().dtypes.to_dict())


def under(company: dict[str, Any] | None = None, **policy: Any) -> Project:
    """A brief with this policy and these facts about the company."""
    return Project(**BASE | {"policy": policy, "company": company or {}})


def judge_one(license: str | None, country: str | None = "France", **policy: Any) -> pd.Series:
    """The row of one model; another one makes every country known."""
    company = {"services": []} if policy.pop("services_known", True) else {}
    catalogue = models((license, country), ("mit", "France"), ("mit", "China"))
    judged = legal.judge(catalogue, licenses(), under(company, **policy))
    assert len(judged) == 3
    return judged.iloc[0]


LISTED: dict[str, Any] = {"licenses": ["permissive", "conditional", "non-commercial"]}


@pytest.mark.parametrize(
    ("license", "policy", "verdict", "reasons"),
    [
        ("mit", {}, "allowed", "no condition but the usual notices"),
        ("mit", {"licenses": ["mit"]}, "allowed", "no condition but the usual notices"),
        (
            "apache-2.0",
            {"licenses": ["mit"]},
            "blocked",
            "licence apache-2.0 is not among policy.licenses",
        ),
        ("gemma", {}, "blocked", "licence gemma is not among policy.licenses"),
        (
            "gemma",
            {"licenses": ["permissive", "gemma"]},
            "conditional",
            "its licence sets conditions",
        ),
        ("gemma", {"licenses": ["conditional"]}, "conditional", "its licence sets conditions"),
        ("mit", {"licenses": ["conditional"]}, "blocked", "licence mit is not among policy.licen"),
        (
            "cc-by-nc-4.0",
            LISTED,
            "blocked",
            "licence cc-by-nc-4.0 allows no commercial use (use: product)",
        ),
        (
            "cc-by-nc-4.0",
            LISTED | {"use": "internal"},
            "review",
            "licence cc-by-nc-4.0 is non-commercial: counsel must say whether internal use by a"
            " company is commercial (use: internal)",
        ),
        (
            "cc-by-nc-4.0",
            {"licenses": ["cc-by-nc-4.0"], "use": "redistribution"},
            "blocked",
            "licence cc-by-nc-4.0 allows no commercial use (use: redistribution)",
        ),
        ("no-maas", LISTED, "conditional", "its licence sets conditions"),
        (
            "no-maas",
            LISTED | {"use": "model-as-a-service"},
            "blocked",
            "no-maas needs a separate agreement for model-as-a-service at any size"
            " (use: model-as-a-service)",
        ),
        (
            "no-maas",
            LISTED | {"services_known": False},
            "review",
            "no-maas needs a separate agreement for ai-assistant at any size:"
            " the brief does not give company.services; no-maas needs a separate agreement for"
            " model-as-a-service at any size: the brief does not give company.services",
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
    assert row["reasons"].count("; ") == reasons.count("; ")


@pytest.mark.parametrize(("column", "value"), [("read", "not read"), ("commercial_use", "unknown")])
def test_what_nobody_read_is_review_whatever_its_class(column: str, value: str) -> None:
    texts = licenses()
    texts.loc[texts["license"] == "mit", column] = value
    row = legal.judge(models(("mit", "France")), texts, under(licenses=["mit"])).iloc[0]
    assert (row["verdict"], row["reasons"]) == ("review", "the text of mit has not been read")


@pytest.mark.parametrize(
    ("country", "countries", "verdict", "reasons"),
    [
        (None, None, "allowed", "no condition but the usual notices"),
        (None, ["France"], "review", "country of the developer unknown"),
        ("France", ["France"], "allowed", "no condition but the usual notices"),
        ("China", None, "allowed", "no condition but the usual notices"),
        (
            "China",
            ["France"],
            "blocked",
            "the developer is in China: not among policy.countries",
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
    assert row["reasons"] == "the developer is in China: not among policy.countries"
    row = judge_one("gemma", "China", countries=["France"])
    assert row["reasons"] == (
        "licence gemma is not among policy.licenses;"
        " the developer is in China: not among policy.countries"
    )
    row = judge_one("gemma", None, licenses=["gemma"], countries=["France"])
    assert (row["verdict"], row["reasons"]) == ("review", "country of the developer unknown")
    row = judge_one("unread", None, countries=["France"])
    assert (
        row["reasons"] == "the text of unread has not been read; country of the developer unknown"
    )


def test_conditions_are_told_whatever_the_verdict() -> None:
    assert judge_one("gemma")["conditions"] == "Do what gemma says (the text in short)"
    assert judge_one(None)["conditions"] == ""


def test_nothing_is_dropped_or_reordered() -> None:
    catalogue = models(("mit", "France"), (None, None), ("gemma", "China"), ("new", "France"))
    catalogue.index = pd.Index([7, 3, 9, 1])
    before = catalogue.copy()
    judged = legal.judge(catalogue, licenses(), under(licenses=["mit"], countries=["France"]))
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
    project = under(licenses=["permissive", "gemma"], use=use, countries=countries)
    judged = legal.judge(catalogue, texts, project)
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
    judged = legal.judge(tables.models(), tables.licenses(), project).set_index("repo_id")
    found = {d.model: judged.loc[d.model, "verdict"] for d in project.deployments}
    assert found == {
        "google/gemma-3-270m": "conditional",
        "HuggingFaceTB/SmolLM2-135M-Instruct": "allowed",
    }


def test_families_are_counted() -> None:
    catalogue = models(("mit", "France"), ("mit", "France"), ("gemma", "France"))
    counts = legal.by_family(legal.judge(catalogue, licenses(), under()))
    assert list(counts.columns) == ["allowed", "conditional", "review", "blocked", "models"]
    assert counts.loc["F0"].to_list() == [1, 0, 0, 1, 2]
    assert list(counts.index) == ["F0", "F1"]


def excepted(model: str = "org/m0", **entry: Any) -> dict[str, Any]:
    signed = {"approver": "Ada Counsel", "reason": "read on paper", "expires": "2027-06-30"}
    return {"model": model, "lifts": "review"} | signed | entry


SIGNED = "exception by Ada Counsel until 2027-06-30: read on paper"
BEFORE, DAY, AFTER = date(2027, 6, 29), date(2027, 6, 30), date(2027, 7, 1)


@pytest.mark.parametrize(
    ("license", "entry", "today", "verdict", "exception"),
    [
        ("unread", {}, BEFORE, "conditional", SIGNED),
        ("unread", {}, DAY, "review", f"expired {SIGNED}"),
        ("unread", {}, AFTER, "review", f"expired {SIGNED}"),
        ("gemma", {"lifts": "conditional"}, BEFORE, "allowed", SIGNED),
        ("gemma", {"lifts": "conditional"}, DAY, "conditional", f"expired {SIGNED}"),
        (
            "gemma",
            {},
            BEFORE,
            "conditional",
            f"without effect, the verdict is conditional: {SIGNED}",
        ),
        (
            "unread",
            {"lifts": "conditional"},
            BEFORE,
            "review",
            f"without effect, the verdict is review: {SIGNED}",
        ),
        ("mit", {}, BEFORE, "allowed", f"without effect, the verdict is allowed: {SIGNED}"),
        (
            "cc-by-nc-4.0",
            {},
            BEFORE,
            "blocked",
            f"without effect, blocked is never lifted: {SIGNED}",
        ),
        (
            "cc-by-nc-4.0",
            {"lifts": "conditional"},
            BEFORE,
            "blocked",
            f"without effect, blocked is never lifted: {SIGNED}",
        ),
        ("unread", {"model": "org/other"}, BEFORE, "review", ""),
    ],
)
def test_exceptions(
    license: str, entry: dict[str, Any], today: date, verdict: str, exception: str
) -> None:
    policy = {"licenses": ["permissive", "conditional"]}
    project = Project(**BASE | {"policy": policy, "exceptions": [excepted(**entry)]})
    judged = legal.judge(
        models((license, "France"), (license, "France")), licenses(), project, today=today
    )
    plain = legal.judge(models((license, "France")), licenses(), under(**policy)).iloc[0]
    row, other = judged.iloc[0], judged.iloc[1]
    assert (row["verdict"], row["exception"]) == (verdict, exception)
    assert row["conditions"] == plain["conditions"]
    assert row["reasons"].removesuffix(" (lifted)") == plain["reasons"]
    assert row["reasons"].endswith(" (lifted)") == (row["exception"] == SIGNED)
    assert (other["verdict"], other["exception"]) == (plain["verdict"], "")


def test_an_exception_runs_out_by_itself() -> None:
    for expires, verdict in ((date.today(), "review"), (date.max, "conditional")):
        project = Project(**BASE | {"exceptions": [excepted(expires=expires)]})
        row = legal.judge(models(("unread", "France")), licenses(), project).iloc[0]
        assert row["verdict"] == verdict


@pytest.mark.parametrize(
    ("country", "policy", "verdict", "reason"),
    [
        ("China", {"denied_countries": ["China"]}, "blocked", "denied by policy.denied_countries"),
        ("China", {"denied_countries": ["CN"]}, "blocked", "denied by policy.denied_countries"),
        ("China", {"denied_countries": ["china"]}, "blocked", "denied by policy.denied_countries"),
        ("France", {"denied_countries": ["EU"]}, "blocked", "denied by policy.denied_countries"),
        ("France", {"countries": ["Eurozone"]}, "allowed", "no condition"),
        ("United States", {"countries": ["usa"]}, "allowed", "no condition"),
        ("France", {"denied_countries": ["China"]}, "allowed", "no condition"),
        (None, {"denied_countries": ["China"]}, "review", "country of the developer unknown"),
        (
            "France",
            {"countries": ["France"], "denied_countries": ["France"]},
            "blocked",
            "the developer is in France: denied by policy.denied_countries",
        ),
        ("France", {"host_countries": ["China"]}, "allowed", "no condition"),
    ],
)
def test_denied_countries(
    country: str | None, policy: dict[str, Any], verdict: str, reason: str
) -> None:
    row = judge_one("mit", country, **policy)
    assert row["verdict"] == verdict and reason in row["reasons"]


def test_what_if() -> None:
    catalogue = models(
        ("mit", "France"),
        ("gemma", "France"),
        ("gemma", "France"),
        ("gemma", "China"),
        ("mit", "China"),
        ("unread", "France"),
        ("unread", None),
    )
    project = under(countries=["France"])
    found = legal.findings(catalogue, licenses(), project)
    assert list(found) == list(catalogue["repo_id"])
    table = legal.what_if(found, catalogue)
    assert table.to_numpy().tolist() == [
        ["accept licence gemma", 3, 2, "F0, F1"],
        ["accept country China", 2, 1, "F0"],
        ["read the licence text", 2, 1, "F1"],
        ["record the country", 1, 0, ""],
    ]


def test_what_if_keeps_its_promise() -> None:
    catalogue = models(("gemma", "France"), ("gemma", "France"), ("gemma", "China"))
    project = under(countries=["France"])
    table = legal.what_if(legal.findings(catalogue, licenses(), project), catalogue)
    relaxed = under(countries=["France"], licenses=["permissive", "gemma"])
    after = legal.judge(catalogue, licenses(), relaxed)["verdict"]
    assert table.at[0, "alone"] == after.isin(["allowed", "conditional"]).sum() == 2


def test_what_if_with_nothing_in_the_way() -> None:
    catalogue = models(("mit", "France"))
    table = legal.what_if(legal.findings(catalogue, licenses(), under()), catalogue)
    assert table.empty and list(table.columns) == ["rule", "touches", "alone", "families"]


def test_twenty_thousand_rows() -> None:
    shipped = tables.models()
    copies = -(-20_000 // len(shipped))
    catalogue = pd.concat([shipped] * copies, ignore_index=True).head(20_000)
    catalogue["repo_id"] += [f"-{n // len(shipped)}" for n in range(len(catalogue))]
    judged = legal.judge(catalogue, tables.licenses(), load_project("review-sentiment"))
    assert list(judged["repo_id"]) == list(catalogue["repo_id"])
    assert judged["verdict"].isin(legal.VERDICTS).all() and judged["reasons"].ne("").all()
    one = judged["verdict"].iloc[: len(shipped)].tolist()
    assert judged["verdict"].iloc[len(shipped) : 2 * len(shipped)].tolist() == one
