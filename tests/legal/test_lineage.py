"""Derivatives: whatever a model was made of counts."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from test_licenses import check, company_brief, shipped, users

from lib.legal import verdicts as legal
from lib.legal import verdicts as lineage

LLAMA = "meta-llama/Llama-3.3-70B-Instruct"
QWEN = "Qwen/Qwen3-32B"
COHERE = "CohereLabs/c4ai-command-a-03-2025"
KIMI = "moonshotai/Kimi-K2-Instruct"


def row(
    repo_id: str, license: str | None, base: str | None = "none", **cells: Any
) -> dict[str, Any]:
    known = {"family": "Made", "developer": "Acme", "country": "United States", "modality": "text"}
    return {"repo_id": repo_id, "license": license, "base_model": base} | known | cells


def catalogue(*rows: dict[str, Any]) -> pd.DataFrame:
    """The shipped catalogue with rows of our own at its end."""
    models = shipped()[0]
    made = pd.DataFrame(list(rows), columns=models.columns).astype(models.dtypes.to_dict())
    return pd.concat([models, made], ignore_index=True)


def judged(
    *rows: dict[str, Any], company: dict[str, Any] | None = None, **policy: Any
) -> pd.DataFrame:
    brief = company_brief(company, **policy)
    return legal.judge(catalogue(*rows), shipped()[1], brief).set_index("repo_id", drop=False)


MERGE = f"{QWEN};{COHERE}"
RELABELLED = f"relabelled: tagged apache-2.0, but its base {LLAMA} is llama3.3"


@pytest.mark.parametrize(
    ("rows", "facts", "policy", "verdict", "parts"),
    [
        ([row("a/tune", "apache-2.0", LLAMA)], {}, {}, "review", [RELABELLED]),
        ([row("a/tune", "llama3.3", LLAMA)], {}, {}, "conditional", ['display "Built with Llama"']),
        (
            [row("a/tune", "apache-2.0", LLAMA)],
            users(800_000_000),
            {},
            "blocked",
            [f"base {LLAMA}: llama3.3 needs a separate agreement", "reached: at 800M"],
        ),
        (
            [row("a/tune", "apache-2.0", LLAMA)],
            {},
            {"licenses": ["permissive"]},
            "blocked",
            [f"base {LLAMA}: licence llama3.3 is not among policy.licenses"],
        ),
        (
            [row("a/tune", "gemma", LLAMA)],
            {},
            {},
            "review",
            [f"relabelled: tagged gemma, but its base {LLAMA} is llama3.3"],
        ),
        (
            [row("a/tune", "gemma", KIMI)],
            {"revenue": None},
            {},
            "review",
            [f'base {KIMI}: display "Kimi K2" above a revenue of', "not give company.revenue"],
        ),
        ([row("a/tune", "apache-2.0", QWEN)], {}, {}, "allowed", []),
        ([row("a/tune", "mit", QWEN)], {}, {}, "allowed", [f"base {QWEN}: Pass on the licence"]),
        # a chain of three, however long ago the licence was set
        (
            [row("a/tune", "mit", "a/mid"), row("a/mid", "mit", LLAMA)],
            {},
            {},
            "review",
            [f"relabelled: tagged mit, but its base {LLAMA} is llama3.3"],
        ),
        (
            [row("a/tune", "mit", "a/mid"), row("a/mid", "apache-2.0", "a/old"), row("a/old", "x")],
            {},
            {},
            "review",
            ["base a/old: licence x is not in data/licenses.csv"],
        ),
        # a merge answers for all
        ([row("a/tune", "apache-2.0", f"{QWEN}; zai-org/GLM-5.2")], {}, {}, "allowed", []),
        (
            [row("a/tune", "apache-2.0", MERGE)],
            {},
            {},
            "blocked",
            [f"base {COHERE}: licence cc-by-nc-4.0 allows no commercial use (use: product)"],
        ),
        (
            [row("a/tune", "apache-2.0", MERGE)],
            {},
            {"use": "internal"},
            "review",
            [f"base {COHERE}: licence cc-by-nc-4.0 is non-commercial", "relabelled"],
        ),
        # a ring has no known root
        (
            [row("a/tune", "mit", "a/b"), row("a/b", "mit", "a/tune")],
            {},
            {},
            "review",
            ["by its base models it was made from itself"],
        ),
        ([row("a/tune", "mit", "a/tune")], {}, {}, "review", ["it was made from itself"]),
        (
            [row("a/tune", "mit", "a/b"), row("a/b", "mit", "a/c"), row("a/c", "mit", "a/b")],
            {},
            {},
            "review",
            ["base a/b: by its base models it was made from itself"],
        ),
        (
            [row("a/tune", "mit", "a/b"), row("a/b", "mit", f"a/tune;{LLAMA}")],
            {},
            {},
            "review",
            ["relabelled: tagged mit"],
        ),
        # what nobody knows
        (
            [row("a/tune", "mit", "a/stranger")],
            {},
            {},
            "review",
            ["base a/stranger is not in data/models.csv, so its licence is not known"],
        ),
        (
            [row("a/tune", "mit", "a/b"), row("a/b", None)],
            {},
            {},
            "review",
            ["base a/b: no licence is recorded"],
        ),
        (
            [row("a/tune", "mit", "a/b"), row("a/b", "jamba")],
            {},
            {},
            "review",
            ["base a/b: the text of jamba has not been read"],
        ),
        # expressions have a class as well
        ([row("a/tune", "mit", "a/b"), row("a/b", "MIT OR gemma")], {}, {}, "allowed", []),
        ([row("a/tune", "mit", "a/b"), row("a/b", "0bsd")], {}, {}, "allowed", []),
        (
            [row("a/tune", "MIT OR Apache-2.0", LLAMA)],
            {},
            {},
            "review",
            ["relabelled: tagged MIT OR Apache-2.0"],
        ),
        # a text model cut out of a multimodal one
        (
            [row("a/tune", "llama4", "meta-llama/Llama-4-Scout-17B-16E-Instruct")],
            {"domicile": "Germany"},
            {},
            "blocked",
            ["grants companies in the European Union no rights", "domicile: Germany"],
        ),
        # the developers of its bases
        (
            [row("a/tune", "apache-2.0", QWEN)],
            {},
            {"denied_countries": ["China"]},
            "blocked",
            [f"the developer of base {QWEN} is in China: denied by policy.denied_countries"],
        ),
        (
            [row("a/tune", "apache-2.0", QWEN)],
            {},
            {"countries": ["United States"]},
            "blocked",
            [f"the developer of base {QWEN} is in China: not among policy.countries"],
        ),
        (
            [row("a/tune", "mit", "a/b"), row("a/b", "mit", QWEN)],
            {},
            {"denied_countries": ["China"]},
            "blocked",
            [f"the developer of base {QWEN} is in China"],
        ),
        (
            [row("a/tune", "mit", "a/b"), row("a/b", "mit", country=None)],
            {},
            {"denied_countries": ["China"]},
            "review",
            ["country of the developer of base a/b unknown"],
        ),
        (
            [row("a/tune", "mit", "a/b"), row("a/b", "mit", country=None)],
            {},
            {},
            "allowed",
            [],
        ),
    ],
)
def test_a_derivative_answers_for_its_bases(
    rows: list[dict[str, Any]],
    facts: dict[str, Any],
    policy: dict[str, Any],
    verdict: str,
    parts: list[str],
) -> None:
    check(judged(*rows, company=facts, **policy).loc["a/tune"], verdict, *parts)


@pytest.mark.parametrize(
    ("repo_id", "verdict", "part"),
    [
        (
            "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
            "review",
            f"relabelled: tagged mit, but its base {LLAMA} is llama3.3",
        ),
        ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "allowed", ""),
        ("nvidia/Llama-3_3-Nemotron-Super-49B-v1_5", "conditional", 'display "Built with Llama"'),
        ("google/gemma-3-270m-it", "conditional", "Hand on the terms"),
    ],
)
def test_shipped_derivatives(repo_id: str, verdict: str, part: str) -> None:
    check(judged().loc[repo_id], verdict, part)


def test_a_distilled_llama_is_blocked_where_llama_is() -> None:
    row = judged(licenses=["permissive"]).loc["deepseek-ai/DeepSeek-R1-Distill-Llama-70B"]
    check(row, "blocked", f"base {LLAMA}: licence llama3.3 is not among policy.licenses")


def test_duties_of_one_licence_are_told_once() -> None:
    conditions = judged(row("a/tune", "llama3.3", LLAMA)).at["a/tune", "conditions"]
    assert conditions.count("display") == 1 and "base" not in conditions


def test_a_base_without_a_licence_is_no_relabelling() -> None:
    reasons = judged(row("a/tune", "mit", "a/b"), row("a/b", None)).loc["a/tune", "reasons"]
    assert reasons == "base a/b: no licence is recorded"


def test_bases_and_ancestors() -> None:
    models = pd.DataFrame(
        {
            "repo_id": ["a", "b", "c", "d"],
            "base_model": ["b; c ;", "C;b", "Was/D", None],
            "former_names": [None, None, None, "was/d"],
        }
    )
    direct = lineage.bases(models)
    assert direct == {"a": ["b", "c"], "b": ["c", "b"], "c": ["d"]}
    assert lineage.ancestors("a", direct) == ["b", "c", "d"]
    assert lineage.ancestors("d", direct) == []
    assert lineage.bases(models.assign(base_model="None")) == {repo_id: [] for repo_id in "abcd"}
    assert lineage.bases(models.assign(base_model=" ; ")) == {}
    assert lineage.ancestors("a", {"a": ["b"], "b": ["c"], "c": ["a"]}) == ["b", "c"]


def test_a_long_chain_ends() -> None:
    direct = {f"m{n}": [f"m{n + 1}"] for n in range(2_000)}
    assert lineage.ancestors("m0", direct)[-1] == "m2000"
