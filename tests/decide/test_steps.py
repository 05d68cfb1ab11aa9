"""What was left after each step, and the command that serves the pick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from briefs import brief

from lib.decide.steps import serving


@pytest.mark.parametrize(
    ("endpoint", "command"),
    [
        (None, "vllm serve org/name --revision abc"),
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
    ids=["weights", "gguf", "url", "embedded", "recorded"],
)
def test_the_command(endpoint: dict[str, Any] | None, command: str, tmp_path: Path) -> None:
    one: dict[str, Any] = {"name": "a", "model": "org/name", "hardware": "cpu-2"}
    if endpoint is None:
        one["published"] = {
            "quality": 0.9,
            "max_rps": 1.0,
            "source": "a page",
            "checked_on": "2026-01-08",
        }
    else:
        one["endpoint"] = endpoint
    if endpoint and "base_url" in endpoint:
        one |= {"price": {"usd_per_hour": 1.0}}
    project = brief(tmp_path, "deployments", [one])
    assert serving(project, "a", "abc") == command
