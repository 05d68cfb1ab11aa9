"""What was left after each step, and the command that serves the pick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from briefs import brief

from lib.brief import load_project
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
        ({"embedded": "gemma3-270m"}, ""),
        ({"recorded": "answers.jsonl"}, ""),
    ],
    ids=["gguf", "url", "embedded", "recorded"],
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
