"""Licence texts of the shipped tables against a company: verdict, clause and fact of each case."""

from __future__ import annotations

import functools
from typing import Any

import pandas as pd
import pytest
from briefs import BASE

from lib import tables
from lib.brief.project import Project
from lib.brief.sections import Company, Policy
from lib.legal import clauses, licenses
from lib.legal import verdicts as legal

EVERYTHING = ["permissive", "conditional", "non-commercial"]
FACTS: dict[str, Any] = {
    "domicile": "United States",
    "territories": ["United States"],
    "monthly_active_users": 5_000_000,
    "revenue": {"amount": 1_000_000, "currency": "USD", "period": "month"},
    "services": [],
    "publishes_derivatives": False,
    "outputs_train_models": False,
}


def company_brief(company: dict[str, Any] | None = None, **policy: Any) -> Project:
    """A brief that accepts every class of licence; a fact given as None is left out."""
    facts = {k: v for k, v in (FACTS | (company or {})).items() if v is not None}
    return Project(**BASE | {"company": facts, "policy": {"licenses": EVERYTHING} | policy})


@functools.cache
def shipped() -> tuple[pd.DataFrame, pd.DataFrame]:
    return tables.models(), tables.licenses()


def look(
    repo_id: str, company: dict[str, Any] | None = None, *, cells: Any = None, **policy: Any
) -> pd.Series:
    """The judged row of a shipped model, with some of its cells doctored."""
    models, texts = shipped()
    models = models[models["repo_id"] == repo_id].copy()
    assert len(models) == 1, repo_id
    for column, value in (cells or {}).items():
        models[column] = pd.Series(value, index=models.index, dtype=models[column].dtype)
    return legal.judge(models, texts, company_brief(company, **policy)).iloc[0]


def usd(amount: float, period: str = "month") -> dict[str, Any]:
    return {"revenue": {"amount": amount, "currency": "USD", "period": period}}


def users(count: int | None) -> dict[str, Any]:
    return {"monthly_active_users": count}


def told(row: pd.Series) -> str:
    """Where a verdict is explained: reasons of what is out, conditions of what is in."""
    return str(row["reasons" if row["verdict"] in ("blocked", "review") else "conditions"])


def check(row: pd.Series, verdict: str, *parts: str) -> None:
    assert row["verdict"] == verdict, (row["verdict"], row["reasons"])
    for part in parts:
        assert part in told(row), told(row)


LLAMA_3 = "meta-llama/Meta-Llama-3-70B-Instruct"
LLAMA_31 = "meta-llama/Llama-3.1-70B-Instruct"
LLAMA_33 = "meta-llama/Llama-3.3-70B-Instruct"
LLAMA_4 = "meta-llama/Llama-4-Scout-17B-16E-Instruct"
VISION = "meta-llama/Llama-3.2-11B-Vision-Instruct"
TEXT = "meta-llama/Llama-3.2-3B-Instruct"
K2 = "moonshotai/Kimi-K2-Instruct"
K3 = "moonshotai/Kimi-K3"
MAX = "Qwen/Qwen3.8-2.4T-A95B"
FLASH = "Qwen/Qwen3.8-Flash-Next"
GLM = "zai-org/GLM-5.3"
LFM = "LiquidAI/LFM2-8B-A1B"
HUNYUAN = "tencent/Hunyuan-A13B-Instruct"
DEVSTRAL = "mistralai/Devstral-2-123B-Instruct-2512"
COHERE = "CohereLabs/c4ai-command-a-03-2025"
GEMMA = "google/gemma-3-27b-it"
MAAS = {"use": "model-as-a-service"}

BY_USERS = "llama3.3 needs a separate agreement above 700M monthly users "


@pytest.mark.parametrize(
    ("count", "verdict", "part"),
    [
        (5_000_000, "conditional", BY_USERS + "(not reached: at 5M you are at 0.714 %)"),
        (699_999_999, "conditional", "(not reached: at 699,999,999 you are at 100 %)"),
        (700_000_000, "conditional", "(not reached: at 700M you are at 100 %)"),
        (700_000_001, "blocked", "(reached: at 700,000,001 you are at 100 %)"),
        (800_000_000, "blocked", BY_USERS + "(reached: at 800M you are at 114 %)"),
        (0, "conditional", "(not reached: at 0 you are at 0 %)"),
        (4_000, "conditional", "(not reached: at 4,000 you are at 0.000571 %)"),
        (None, "review", BY_USERS[:-1] + ": the brief does not give company.monthly_active_users"),
    ],
)
def test_llama_by_monthly_users(count: int | None, verdict: str, part: str) -> None:
    check(look(LLAMA_33, users(count)), verdict, part)


IN_EU = "grants companies in the European Union no rights to multimodal models"


@pytest.mark.parametrize(
    ("repo_id", "domicile", "verdict", "parts"),
    [
        (LLAMA_4, "Germany", "blocked", [f"llama4 {IN_EU} (domicile: Germany)"]),
        (LLAMA_4, "France", "blocked", [IN_EU, "domicile: France"]),
        (LLAMA_4, "Czech Republic", "blocked", [IN_EU]),
        (LLAMA_4, "Cyprus", "blocked", [IN_EU]),
        (LLAMA_4, "Sweden", "blocked", [IN_EU]),
        (LLAMA_4, "EU", "blocked", [IN_EU, "domicile: European Union"]),
        (LLAMA_4, "European Union", "blocked", [IN_EU]),
        (LLAMA_4, "germany ", "blocked", [IN_EU]),
        (LLAMA_4, "DE", "blocked", [IN_EU]),
        (LLAMA_4, "Switzerland", "conditional", [f"llama4 {IN_EU} (domicile: Switzerland)"]),
        (LLAMA_4, "United Kingdom", "conditional", [IN_EU, "domicile: United Kingdom"]),
        (LLAMA_4, "Norway", "conditional", [IN_EU]),
        (LLAMA_4, "United States", "conditional", ['display "Built with Llama"']),
        (LLAMA_4, None, "review", [IN_EU, "the brief does not give company.domicile"]),
        (LLAMA_4, " ", "review", [IN_EU, "the brief does not give company.domicile"]),
        (LLAMA_33, "Germany", "conditional", ['display "Built with Llama"']),
        (LLAMA_33, None, "conditional", ['display "Built with Llama"']),
        (LLAMA_31, "Germany", "conditional", []),
        (VISION, "France", "blocked", [f"llama3.2 {IN_EU} (domicile: France)"]),
        (VISION, "Japan", "conditional", [f"llama3.2 {IN_EU} (domicile: Japan)"]),
        (TEXT, "France", "conditional", []),
    ],
)
def test_llama_by_domicile(
    repo_id: str, domicile: str | None, verdict: str, parts: list[str]
) -> None:
    check(look(repo_id, {"domicile": domicile}), verdict, *parts)


def test_llama_text_says_nothing_of_the_european_union() -> None:
    assert IN_EU not in look(LLAMA_33, {"domicile": "Germany"})["conditions"]


def test_a_modality_nobody_recorded_is_review() -> None:
    row = look(VISION, {"domicile": "France"}, cells={"modality": None})
    check(row, "review", IN_EU, "data/models.csv does not say whether this model is one")


def test_serving_the_european_union_is_not_sitting_there() -> None:
    check(look(LLAMA_4, {"territories": ["Germany"]}), "conditional")


@pytest.mark.parametrize(
    ("facts", "verdict", "parts"),
    [
        (
            users(5_000_000) | usd(1e6),
            "conditional",
            [
                'display "Kimi K2" above 100M monthly users (not reached: at 5M you are at 5 %)',
                'display "Kimi K2" above a revenue of USD 20M per month'
                " (not reached: at USD 1M per month you are at 5 %)",
            ],
        ),
        (users(99_000_000), "conditional", ["(not reached: at 99M you are at 99 %)"]),
        (users(100_000_000), "conditional", ["(not reached: at 100M you are at 100 %)"]),
        (users(101_000_000), "conditional", ["monthly users (reached: at 101M you are at 101 %)"]),
        (usd(19e6), "conditional", ["(not reached: at USD 19M per month you are at 95 %)"]),
        (usd(20e6), "conditional", ["(not reached: at USD 20M per month you are at 100"]),
        (usd(21e6), "conditional", ["(reached: at USD 21M per month you are at 105 %)"]),
        (usd(19e6 * 12, "year"), "conditional", ["(not reached: at USD 19M per month you are at"]),
        (usd(20e6 * 12, "year"), "conditional", ["(not reached: at USD 20M per month you are at"]),
        (usd(21e6 * 12, "year"), "conditional", ["(reached: at USD 21M per month you are at 105"]),
        (usd(100_000), "conditional", ["(not reached: at USD 100,000 per month you are at 0.5 %)"]),
        (
            users(None),
            "review",
            [
                'display "Kimi K2" above 100M monthly users:'
                " the brief does not give company.monthly_active_users"
            ],
        ),
        (
            {"revenue": None},
            "review",
            [
                'display "Kimi K2" above a revenue of USD 20M per month:'
                " the brief does not give company.revenue"
            ],
        ),
        (
            users(None) | {"revenue": None},
            "review",
            ["company.monthly_active_users; display", "ue"],
        ),
    ],
)
def test_kimi_k2_shows_its_name_from_a_size_on(
    facts: dict[str, Any], verdict: str, parts: list[str]
) -> None:
    check(look(K2, facts), verdict, *parts)


BIG = "needs a separate agreement for"


@pytest.mark.parametrize(
    ("repo_id", "facts", "policy", "verdict", "parts"),
    [
        # Kimi K3: model-as-a-service above USD 20M in 12 months
        (K3, usd(21e6, "year"), MAAS, "blocked", [f"kimi-k3 {BIG} model-as-a-service", "105 %"]),
        (K3, usd(20e6, "year"), MAAS, "conditional", ["(not reached: at USD 20M per year"]),
        (K3, usd(19e6, "year"), MAAS, "conditional", ["(not reached: at USD 19M per year"]),
        (K3, usd(2e6), MAAS, "blocked", ["(reached: at USD 24M per year you are at 120 %)"]),
        (K3, {"revenue": None}, MAAS, "review", [BIG, "does not give company.revenue"]),
        (K3, usd(21e6, "year"), {}, "conditional", ['display "Kimi K3"']),
        (K3, usd(900e6, "year"), {"use": "internal"}, "conditional", []),
        (K3, usd(21e6, "year") | {"services": ["ai-assistant"]}, {}, "conditional", []),
        (
            K3,
            usd(21e6, "year") | {"services": ["model-as-a-service"]},
            {},
            "blocked",
            ["agreement for model-as-a-service above a revenue of USD 20M per year (reached"],
        ),
        # Qwen3.8-Max: model-as-a-service or AI assistant above USD 50M in 12 months
        (MAX, usd(51e6, "year"), MAAS, "blocked", [f"{BIG} model-as-a-service and ai-assistant"]),
        (MAX, usd(50e6, "year"), MAAS, "conditional", ["(not reached: at USD 50M per year"]),
        (MAX, usd(21e6, "year"), MAAS, "conditional", ["(not reached: at USD 21M per year"]),
        (MAX, usd(51e6, "year"), {}, "conditional", ['display "Qwen3.8-Max"']),
        (MAX, usd(51e6, "year") | {"services": ["ai-assistant"]}, {}, "blocked", ["102 %"]),
        (MAX, usd(49e6, "year") | {"services": ["ai-assistant"]}, {}, "conditional", ["98 %"]),
        (MAX, {"services": None}, {}, "conditional", ["(not reached: at USD 12M per year"]),
        (MAX, usd(51e6, "year") | {"services": None}, {}, "review", ["give company.services"]),
        (K3, usd(21e6, "year") | {"services": None}, {}, "review", ["give company.services"]),
        (K3, {"revenue": None, "services": None}, {}, "review", ["give company.services"]),
        # Qwen Community License: model-as-a-service or AI assistant at any size
        (
            FLASH,
            usd(1, "year"),
            MAAS,
            "blocked",
            ["qwen-community-1.0 needs a separate agreement for model-as-a-service at any size"],
        ),
        (FLASH, usd(1e9, "year"), MAAS, "blocked", ["at any size (use: model-as-a-service)"]),
        (FLASH, usd(1e5), {}, "conditional", ['display "Qwen3.8-Flash-Next"']),
        (
            FLASH,
            {"services": ["ai-assistant"]},
            {},
            "blocked",
            [f"{BIG} ai-assistant at any size (services: ai-assistant)"],
        ),
        (
            FLASH,
            {"services": None},
            {},
            "review",
            [f"{BIG} ai-assistant at any size: the brief does not give company.services"],
        ),
        # GLM-5.3: model-as-a-service above USD 10B in 12 months
        (GLM, usd(11e9, "year"), MAAS, "blocked", [f"glm-5.3 {BIG} model-as-a-service", "110 %"]),
        (GLM, usd(10e9, "year"), MAAS, "conditional", ["(not reached: at USD 10B per year"]),
        (GLM, usd(11e9, "year"), {}, "conditional", ["must pass a security review"]),
        # their siblings
        ("zai-org/GLM-5.2", usd(11e9, "year"), MAAS, "allowed", []),
        ("zai-org/GLM-5.3-Flash", usd(11e9, "year"), MAAS, "allowed", []),
        ("Qwen/Qwen3.8-27B", usd(1e9), MAAS, "allowed", []),
        ("Qwen/Qwen3.8-27B", {"services": ["ai-assistant"]}, {}, "allowed", []),
        ("google/gemma-4-31B-it", {}, {}, "allowed", []),
        (GEMMA, {}, {}, "conditional", ["follow the acceptable-use policy", "Hand on the terms"]),
    ],
)
def test_siblings_differ_by_service_and_revenue(
    repo_id: str, facts: dict[str, Any], policy: dict[str, Any], verdict: str, parts: list[str]
) -> None:
    check(look(repo_id, facts, **policy), verdict, *parts)


FROM_10M = "lfm1.0 needs a separate agreement from a revenue of USD 10M per year "
NO_RIGHTS = "mistral-modified-mit needs a separate agreement above a revenue of USD 20M per month "


@pytest.mark.parametrize(
    ("repo_id", "facts", "verdict", "part"),
    [
        (LFM, usd(9.9e6, "year"), "conditional", FROM_10M + "(not reached: at USD 9.9M per year"),
        (LFM, usd(10e6, "year"), "blocked", "(reached: at USD 10M per year you are at 100"),
        (LFM, usd(10.1e6, "year"), "blocked", FROM_10M + "(reached: at USD 10.1M per year you"),
        (LFM, usd(9.9e6 / 12), "conditional", "(not reached: at USD 9.9M per year you are at 99 %"),
        (LFM, usd(10e6 / 12), "blocked", "(reached: at USD 10M per year"),
        (LFM, usd(833_333.33), "conditional", "not reached: at USD 9,999,999.96 per year you are"),
        (LFM, usd(10.1e6 / 12), "blocked", "(reached: at USD 10.1M per year you are at 101 %)"),
        (LFM, {"revenue": None}, "review", "the brief does not give company.revenue"),
        (DEVSTRAL, usd(19.9e6), "conditional", NO_RIGHTS + "(not reached: at USD 19.9M per month"),
        (DEVSTRAL, usd(20e6), "conditional", "you are at 100 %)"),
        (DEVSTRAL, usd(20_000_001), "blocked", "(reached: at USD 20,000,001 per month you are at"),
        (DEVSTRAL, usd(21e6), "blocked", NO_RIGHTS + "(reached: at USD 21M per month you are at"),
        # a year's revenue near the limit of a month: the month may peak
        (DEVSTRAL, usd(240e6, "year"), "review", "100 % on average, and a month may peak"),
        (DEVSTRAL, usd(120_000_012, "year"), "review", "50 % on average, and a month may peak"),
        (DEVSTRAL, usd(120e6, "year"), "conditional", "(not reached: at USD 10M per month you are"),
        (DEVSTRAL, usd(240_000_012, "year"), "blocked", "(reached: at USD 20,000,001 per month"),
        (DEVSTRAL, usd(500e6, "year"), "blocked", "(reached: at USD 41.6667M per month"),
        (DEVSTRAL, {"revenue": None}, "review", "the brief does not give company.revenue"),
    ],
)
def test_revenue_over_month_and_year(
    repo_id: str, facts: dict[str, Any], verdict: str, part: str
) -> None:
    check(look(repo_id, facts), verdict, part)


@pytest.mark.parametrize("amount", [1, 7, 10e6, 20e6, 33_333_333.33, 1e9 / 3, 9.99e11])
@pytest.mark.parametrize(("period", "months"), [("year", 12), ("month", 1)])
def test_revenue_of_the_same_period_is_not_rounded(amount: float, period: str, months: int) -> None:
    terms = licenses.terms_by_key(shipped()[1])["lfm1.0"]
    terms |= {"agreement_revenue_usd": amount, "agreement_revenue_months": months}
    company = Company(**FACTS | usd(amount, period))
    policy = Policy(licenses=EVERYTHING)
    findings = clauses.assess(terms, company, policy, multimodal=False)
    assert any(f.fact.endswith("you are at 100 %") for f in findings), findings


PLACES = "the European Union or the United Kingdom or South Korea"


@pytest.mark.parametrize(
    ("territories", "verdict", "part"),
    [
        (["United Kingdom"], "blocked", f"no rights in {PLACES} (territories: United Kingdom)"),
        (["UK"], "blocked", "(territories: United Kingdom)"),
        (["South Korea"], "blocked", "(territories: South Korea)"),
        (["Korea"], "blocked", "(territories: South Korea)"),
        (["Italy"], "blocked", "(territories: Italy)"),
        (["European Union"], "blocked", "(territories: European Union)"),
        (["United States", "Spain", "Japan"], "blocked", "(territories: Spain)"),
        (["Worldwide"], "blocked", "(territories: Worldwide)"),
        (["Europe"], "blocked", "(territories: Europe)"),
        (["Eastern Asia"], "blocked", "(territories: Eastern Asia)"),
        (["Eurozone"], "blocked", "(territories: Eurozone)"),
        (["United States", "Reunion"], "blocked", "(territories: Réunion)"),
        (["Northern Ireland"], "blocked", "(territories: United Kingdom)"),
        (["Hong Kong", "Greenland"], "conditional", "(territories: Hong Kong, Greenland)"),
        (["United States"], "conditional", f"{PLACES} (territories: United States)"),
        (["Switzerland", "Norway"], "conditional", "(territories: Switzerland, Norway)"),
        (None, "review", f"no rights in {PLACES}: the brief does not give company.territories"),
        ([], "review", "the brief does not give company.territories"),
    ],
)
def test_hunyuan_by_territory(territories: list[str] | None, verdict: str, part: str) -> None:
    check(look(HUNYUAN, {"territories": territories}), verdict, part)


def test_hunyuan_binds_the_seat_as_well_as_the_market() -> None:
    check(look(HUNYUAN, {"domicile": "Germany"}), "blocked", "(domicile: Germany)")
    check(look(HUNYUAN, {"domicile": None}), "review", "does not give company.domicile")


@pytest.mark.parametrize(
    ("policy", "verdict", "part"),
    [
        ({"use": "internal"}, "review", "counsel must say whether internal use by a company is"),
        ({"use": "product"}, "blocked", "cc-by-nc-4.0 allows no commercial use (use: product)"),
        (MAAS, "blocked", "allows no commercial use (use: model-as-a-service)"),
        ({"licenses": ["cc-by-nc-4.0"], "use": "internal"}, "review", "is non-commercial"),
        ({"licenses": ["permissive"]}, "blocked", "cc-by-nc-4.0 is not among policy.licenses"),
    ],
)
def test_non_commercial(policy: dict[str, Any], verdict: str, part: str) -> None:
    check(look(COHERE, **policy), verdict, part)


NOT_READ = "has not been read"


@pytest.mark.parametrize(
    ("license", "verdict", "part"),
    [
        ("other-unnamed", "review", f"the text of other-unnamed {NOT_READ}"),
        ("other", "review", "licence other is not in data/licenses.csv"),
        ("unknown", "review", f"the text of unknown {NOT_READ}"),
        ("jamba", "review", f"the text of jamba {NOT_READ}"),
        (None, "review", "no licence is recorded"),
        ("", "review", "no licence is recorded"),
        ("  ", "review", "'  ' is not a licence expression"),
        ("acme-1.0", "review", "licence acme-1.0 is not in data/licenses.csv"),
        ("MIT", "allowed", ""),
        ("MIT OR cc-by-nc-4.0", "allowed", "Keep the copyright line"),
        ("cc-by-nc-4.0 or mit", "allowed", ""),
        ("MIT OR acme-1.0", "allowed", ""),
        ("cc-by-nc-4.0 OR acme-1.0", "review", "licence acme-1.0 is not in data/licenses.csv"),
        ("MIT AND cc-by-nc-4.0", "blocked", "licence cc-by-nc-4.0 allows no commercial use"),
        ("MIT AND acme-1.0", "review", "licence acme-1.0 is not in data/licenses.csv"),
        ("Apache-2.0 AND llama3.3", "conditional", 'display "Built with Llama"'),
        ("(MIT OR gemma) AND Apache-2.0", "allowed", ""),
        ("MIT AND (gemma OR acme-1.0)", "conditional", "follow the acceptable-use policy"),
        ("0BSD", "allowed", "Keep the notices of 0BSD"),
        ("blueoak-1.0.0", "allowed", "Keep the notices of BlueOak-1.0.0"),
        ("EUPL-1.2", "review", "licence EUPL-1.2 is not in data/licenses.csv"),
        ("GPL-3.0", "conditional", "source included"),
        ("GPL-2.0-only", "conditional", "source included"),
        ("CC-BY-NC-3.0", "review", "licence CC-BY-NC-3.0 is not in data/licenses.csv"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "review", "is not in data/licenses.csv"),
        ("Fair", "review", "licence Fair is not in data/licenses.csv"),
        ("fair", "review", "is not in data/licenses.csv"),
        ("JSON", "review", "is not in data/licenses.csv"),
        ("MS-LPL", "review", "is not in data/licenses.csv"),
        ("GPL-3.0-or-later", "conditional", "source included"),
        ("gpl-3.0+", "conditional", "source included"),
        ("AGPL-3.0-or-later", "conditional", "network service"),
        ("nvidia-open-model-license", "conditional", "Carry the NVIDIA licence line"),
        ("stabilityai-ai-community", "blocked", "above a revenue of USD 1M"),
        ("LFM1.0", "blocked", "lfm1.0 needs a separate agreement"),
        ("modified-mit", "review", "the text of modified-mit (kimi-modified-mit or minimax-m2"),
        ("MIT AND", "review", "'MIT AND' is not a licence expression"),
        ("))((", "review", "'))((' is not a licence expression"),
        ("MIT, Apache", "review", "'MIT, Apache' is not a licence expression"),
        ("MIT/Apache-2.0", "review", "is not a licence expression"),
        ("see the LICENSE file", "review", "is not in data/licenses.csv"),
    ],
)
def test_licence_keys_and_expressions(license: str | None, verdict: str, part: str) -> None:
    check(look("Qwen/Qwen3-32B", cells={"license": license}), verdict, part)


def test_an_expression_answers_to_the_facts_too() -> None:
    both = {"license": "Apache-2.0 AND llama3.3"}
    check(look("Qwen/Qwen3-32B", users(800_000_000), cells=both), "blocked", "700M monthly users")
    check(look("Qwen/Qwen3-32B", cells=both, licenses=["permissive"]), "blocked", "llama3.3 is not")
    check(look("Qwen/Qwen3-32B", cells={"license": "MIT OR gemma"}, licenses=["mit"]), "allowed")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("mit", "permissive"),
        ("MIT", "permissive"),
        ("0bsd", "permissive"),
        ("gemma", "conditional"),
        ("MIT OR gemma", "permissive"),
        ("MIT AND gemma", "conditional"),
        ("MIT AND (cc-by-nc-4.0 OR acme)", "non-commercial"),
        ("acme", "unknown"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "unknown"),
        ("MIT AND", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_class_of(expression: str | None, expected: str) -> None:
    assert licenses.class_of(expression, licenses.terms_by_key(shipped()[1])) == expected


NOT_TRAIN = "outputs may not train other models, says "


@pytest.mark.parametrize(
    ("repo_id", "train", "verdict", "part"),
    [
        (LLAMA_3, True, "blocked", f"{NOT_TRAIN}llama3 (outputs train models: yes)"),
        (LLAMA_3, False, "conditional", f"{NOT_TRAIN}llama3 (outputs train models: no)"),
        (LLAMA_3, None, "review", f"{NOT_TRAIN}llama3: the brief does not give company.outputs_tr"),
        (LLAMA_31, True, "conditional", 'a model trained on outputs must begin with "Llama" (outp'),
        (LLAMA_31, False, "conditional", "(outputs train models: no)"),
        (LLAMA_31, None, "review", "the brief does not give company.outputs_train_models"),
        ("Qwen/Qwen2.5-72B", True, "conditional", "must credit the original, says qwen (outputs"),
        (HUNYUAN, True, "blocked", f"{NOT_TRAIN}tencent-hunyuan (outputs train models: yes)"),
        (HUNYUAN, False, "conditional", f"{NOT_TRAIN}tencent-hunyuan (outputs train models: no)"),
        (HUNYUAN, None, "review", "the brief does not give company.outputs_train_models"),
        (GEMMA, True, "conditional", "a model trained on outputs is a derivative, under the terms"),
        (GEMMA, None, "conditional", "under the terms of gemma (outputs train models: not given)"),
        ("nvidia/Nemotron-Flash-3B-Instruct", True, "blocked", "allows no commercial use"),
        (GEMMA, False, "conditional", "Hand on the terms"),
        (K2, True, "conditional", 'display "Kimi K2"'),
        ("zai-org/GLM-5.2", True, "allowed", ""),
        ("zai-org/GLM-5.2", None, "allowed", ""),
    ],
)
def test_outputs_that_train_models(
    repo_id: str, train: bool | None, verdict: str, part: str
) -> None:
    check(look(repo_id, {"outputs_train_models": train}), verdict, part)


NAMED = 'the name of a derivative must begin with "Llama" (publishes derivatives: '


@pytest.mark.parametrize(
    ("facts", "policy", "part"),
    [
        ({"publishes_derivatives": True}, {}, f"{NAMED}yes)"),
        ({"publishes_derivatives": False}, {}, f"{NAMED}no)"),
        ({"publishes_derivatives": None}, {}, f"{NAMED}not given)"),
        ({"publishes_derivatives": None}, {"use": "redistribution"}, f"{NAMED}yes)"),
        ({"publishes_derivatives": False}, {"use": "redistribution"}, f"{NAMED}no)"),
    ],
)
def test_names_of_derivatives(facts: dict[str, Any], policy: dict[str, Any], part: str) -> None:
    check(look(LLAMA_33, facts, **policy), "conditional", part)


@pytest.mark.parametrize(
    ("repo_id", "use", "verdict", "part"),
    [
        (
            "LGAI-EXAONE/K-EXAONE-236B-A23B",
            "redistribution",
            "blocked",
            "k-exaone needs a separate agreement for redistribution at any size (use: redistributi",
        ),
        ("LGAI-EXAONE/K-EXAONE-236B-A23B", "product", "conditional", 'begin with "K-EXAONE"'),
        (GEMMA, "redistribution", "conditional", "Hand on the terms"),
        (COHERE, "redistribution", "blocked", "allows no commercial use (use: redistribution)"),
        ("zai-org/GLM-5.2", "redistribution", "allowed", "Keep the copyright line"),
    ],
)
def test_redistribution(repo_id: str, use: str, verdict: str, part: str) -> None:
    check(look(repo_id, use=use), verdict, part)


def test_everything_that_is_missing_is_named_once() -> None:
    row = look(LLAMA_4, dict.fromkeys(FACTS))
    assert row["verdict"] == "review"
    for key in ("domicile", "monthly_active_users", "outputs_train_models"):
        assert row["reasons"].count(f"the brief does not give company.{key}") == 1


def test_every_finding_of_every_text_names_clause_and_fact() -> None:
    table = licenses.terms_by_key(shipped()[1])
    for facts in (FACTS, {}):
        for terms in table.values():
            company = Company(**facts)
            found = clauses.assess(terms, company, Policy(licenses=EVERYTHING), multimodal=True)
            assert found
            for finding in found:
                assert finding.rule and finding.clause and finding.fact
                assert "nan" not in finding.clause and "None" not in finding.clause
                assert finding.clause[-1] != "."


def test_without_facts_no_text_with_a_limit_is_let_through() -> None:
    table = licenses.terms_by_key(shipped()[1])
    limits = ("agreement_mau", "agreement_revenue_usd", "display_revenue_usd")
    for name, terms in table.items():
        if any(terms[key] for key in limits) and terms["agreement_scope"] != "model-as-a-service":
            found = clauses.assess(terms, Company(), Policy(licenses=EVERYTHING), multimodal=False)
            assert licenses.worst(found) >= clauses.REVIEW, name
