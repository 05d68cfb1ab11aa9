"""What was left after each step, and the command that serves the pick."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from briefs import BASE, brief, load_project, write
from tradeoff_rows import table

from lib import tables
from lib.brief import Requirements
from lib.decide import decision, steps
from lib.decide.steps import serving


@pytest.mark.parametrize(
    ("endpoint", "command"),
    [
        (
            {"gguf": "org/name-GGUF/model q4.gguf", "revision": "def"},
            "llama-server --hf-repo org/name-GGUF --hf-file 'model q4.gguf'",
        ),
        (
            {"base_url": "https://a.example/v1", "api_key_env": "A_KEY", "model": "it's"},
            'curl "https://a.example/v1/chat/completions" -H "Authorization: Bearer $A_KEY"'
            ' -H "Content-Type: application/json" -d \'{"model": "it\'"\'"\'s", "messages":'
            ' [{"role": "user", "content": "…"}]}\'',
        ),
        (
            {"base_url": "https://a.example/v1?api-version=2024-05-01-preview", "model": "m"},
            'curl "https://a.example/v1/chat/completions?api-version=2024-05-01-preview"'
            ' -H "Content-Type: application/json" -d \'{"model": "m", "messages":'
            ' [{"role": "user", "content": "…"}]}\'',
        ),
        ({"embedded": "gemma3-270m"}, ""),
        ({"recorded": "answers.jsonl"}, ""),
    ],
    ids=["gguf", "url", "version", "embedded", "recorded"],
)
def test_the_command(endpoint: dict[str, Any], command: str, tmp_path: Path) -> None:
    one: dict[str, Any] = {"name": "a", "model": "org/name", "hardware": "cpu-2"}
    one |= {"endpoint": endpoint, "price": {"usd_per_hour": 1.0}}
    project = brief(tmp_path, "deployments", [one])
    assert serving(project, "a", "abc") == command


def test_weights_without_an_endpoint_are_served_at_their_revision() -> None:
    article, name = load_project("article"), "ministral-3-3b-2xh100"
    command = "vllm serve mistralai/Ministral-3-3B-Instruct-2512"
    assert serving(article, name, None) == command
    assert serving(article, name, "abc") == f"{command} --revision abc"


def test_prices_have_their_dates_and_our_weights_their_hash(tmp_path: Path) -> None:
    project = load_project(write(tmp_path, BASE))
    rows = table(a={}, b={"price_basis": "list price, data/hardware.csv"}, c={"price": None})
    facts: Any = steps.provenance(project, rows)
    dates = [row["checked_on"] for row in facts["prices"]]
    assert (dates[0], dates[2]) == (None, None)
    assert dates[1] == tables.hardware().set_index("hardware")["checked_on"]["cpu-2"]
    assert all(len(sha256) == 64 for sha256 in facts["weights"].values())
    assert facts["weights"].keys() == {
        d.name for d in project.deployments if d.endpoint and d.endpoint.embedded
    }


def test_every_seed_of_the_package_is_in_the_record() -> None:
    code = "\n".join(path.read_text("utf-8") for path in Path("lib").rglob("*.py"))
    seeds = {int(seed) for seed in re.findall(r"(?:default_rng\(|seed: int = )(\d+)", code)}
    assert seeds == set(steps.SEEDS.values())


def test_the_names_that_endpoints_answered_with() -> None:
    answers = pd.DataFrame(
        {"deployment": ["a", "a", "a", "b"], "served_model": ["x-2", "x-1", "x-1", None]}
    )
    assert steps.served_models(answers) == {"a": ["x-1", "x-2"], "b": []}
    assert steps.served_models(answers[["deployment"]]) == {"a": [], "b": []}


@pytest.mark.parametrize(
    ("changes", "model", "tokens", "text"),
    [
        # h100-1 reads 3350 GB a second: 3 billion active parameters of 2 bytes, 100 tokens.
        ({}, {}, 100.0, "about 5.58/s one at a time, estimated"),
        ({"precision": "fp8"}, {}, 100.0, "about 11.2/s one at a time, estimated"),
        ({}, {"weights_gb": 40.0}, 100.0, "about 11.2/s one at a time, estimated"),
        ({}, {"active_params_b": None}, 100.0, ""),
        ({}, {"weights_gb": None}, 100.0, ""),
        ({}, {}, 0.0, ""),
        ({}, {}, None, ""),
        ({"hardware": "cpu-2"}, {}, 100.0, ""),  # whose bandwidth nobody publishes
        ({"model": "org/other"}, {}, 100.0, ""),
    ],
)
def test_a_machine_that_was_not_measured_is_estimated_in_words_that_decide_nothing(
    changes: dict[str, Any], model: dict[str, Any], tokens: float | None, text: str, tmp_path: Path
) -> None:
    lines = ('{"item_id": "0", "output": "positive"}\n', '{"item_id": "1", "output": "positive"}\n')
    (tmp_path / "a.jsonl").write_text("".join(lines))
    given = {"name": "a", "model": "org/name", "endpoint": {"recorded": "a.jsonl"}}
    given |= {"hardware": "h100-1", "price": {"usd_per_hour": 4.0}} | changes
    project = brief(tmp_path, "deployments", [given])
    sizes = {"repo_id": "org/name", "weights_gb": 80.0, "total_params_b": 40.0}
    shortlist = pd.DataFrame([sizes | {"active_params_b": 3.0} | model])
    answers = pd.DataFrame({"deployment": ["a"], "completion_tokens": [tokens]})
    nobody = pd.DataFrame({"deployment": []})
    estimate = steps.estimated_load(project, shortlist, answers, nobody)
    assert estimate.to_dict("records") == [{"deployment": "a", "estimated_load": text}]
    measured = steps.estimated_load(project, shortlist, answers, answers)
    assert measured["estimated_load"].tolist() == [""]
    recorded = {"basis": "recorded (a.jsonl)", "max_rps": float("nan")}
    row = table(a=recorded | dict.fromkeys(["rps_low", "rps_high"], float("nan")))
    row = row.assign(estimated_load=text)
    checks = decision.check(row, Requirements(min_rps=0.001))
    assert checks["verdict"].tolist() == ["not decided"]
    assert checks["note"].str.endswith(f": {text}" if text else "endpoint to measure").all()
    assert decision.qualify(row, checks)["qualifies"].tolist() == ["not decided"]
