"""A table of licence cases: around every threshold, place and lineage, each with its clause."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from test_licenses import company_brief, shipped
from test_lineage import catalogue, row

from lib.legal import verdicts as legal

with (Path(__file__).parent / "cases.csv").open(encoding="utf-8", newline="") as file:
    CASES = list(csv.DictReader(file))
# Models that the cases are made from, besides those of the shipped catalogue.
MADE = [
    row("a/free", "apache-2.0", "Qwen/Qwen3-8B"),
    row("a/of-llama", "mit", "meta-llama/Llama-3.3-70B-Instruct"),
    row("a/ring", "mit", "a/tune"),
    row("a/above-ring", "mit", "a/above-ring"),
    row("a/blank", "mit", None),
    row("a/gpl", "gpl-3.0"),
    row("a/by-sa", "cc-by-sa-4.0"),
    row("a/mpl", "mpl-2.0"),
    row("b/no-derivatives", "cc-by-nd-4.0"),
]
YES_OR_NO = {"yes": True, "no": False, "": None}


def company(text: str) -> dict[str, Any]:
    """The facts of a case: `users=5 seat=Germany`; blank is not given, `only=` gives none."""
    facts: dict[str, Any] = {}
    keys = "domicile territories monthly_active_users revenue services publishes_derivatives"
    for part in text.replace("United Kingdom", "UK").replace("South Korea", "KR").split():
        key, _, value = part.partition("=")
        match key:
            case "users":
                facts["monthly_active_users"] = int(value) if value else None
            case "year" | "month":
                facts["revenue"] = {"amount": float(value), "currency": "USD", "period": key}
            case "revenue":
                facts["revenue"] = None
            case "seat":
                facts["domicile"] = value or None
            case "market":
                facts["territories"] = [value] if value else None
            case "services":
                facts["services"] = [value] if value else None
            case "publishes":
                facts["publishes_derivatives"] = YES_OR_NO[value]
            case "train":
                facts["outputs_train_models"] = YES_OR_NO[value]
            case "only":
                facts |= dict.fromkeys([*keys.split(), "outputs_train_models"])
            case _:
                raise ValueError(part)
    return facts


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['model']}-{case['facts']}")
def test_case(case: dict[str, str]) -> None:
    own = [row("a/tune", case["license"], case["base"] or None)] if case["license"] else []
    models = catalogue(*own, *MADE)
    wanted = models["repo_id"].isin([case["model"], *(one["repo_id"] for one in MADE)])
    known = wanted | ~models["repo_id"].str.startswith(("a/", "b/"))
    brief = company_brief(company(case["facts"]), use=case["use"])
    judged = legal.judge(models[known], shipped()[1], brief).set_index("repo_id")
    got = judged.loc[case["model"]]
    assert got["verdict"] == case["verdict"], (case["why"], got["reasons"], got["conditions"])


def test_every_kind_of_case_has_several() -> None:
    assert len(CASES) >= 150 and len({case["clause"] for case in CASES}) >= 50
    assert {case["verdict"] for case in CASES} == {"allowed", "conditional", "review", "blocked"}
    assert all(case["why"] and case["clause"] for case in CASES)
