"""The memory of a deployment: its own precision, or the published one; hosted ones need none."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from lib import tables
from lib.brief import Deployment, Size
from lib.sizing import tiers as sizing

URL = {"base_url": "https://host/v1"}
GGUF = {"gguf": "o/n/model-Q4_K_M.gguf", "revision": "abc"}


def sized(model: str, tier: str = "high", **deployment: Any) -> pd.Series:
    raw = {"name": "d", "model": model, "endpoint": URL, "price": {"usd_per_hour": 1}}
    deployments = [Deployment.model_validate(raw | deployment)]
    judged = tables.models().assign(verdict="allowed")
    size, machines = Size.model_validate({"tier": tier}), tables.hardware()
    table = sizing.shortlist(judged, machines, size, tiers=[tier], deployments=deployments)
    return table.set_index("repo_id").loc[model]


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ("bf16", 2), ("FP16", 2), ("fp8", 1), ("w8a8", 1), ("compressed-tensors 8-bit", 1),
        ("mxfp4", 0.6), ("NVFP4", 0.6), ("awq 4-bit", 0.6), ("W4A16", 0.6), ("int4", 0.6),
        ("model-Q4_K_M.gguf", 0.6), ("Q8_0", 1), ("Q5_K_S", 0.8), ("fp32", 4),
    ],
)  # fmt: skip
def test_precisions_in_anybody_s_words(words: str, size: float) -> None:
    assert sizing.bytes_of(words) == size


def test_no_precision_is_none() -> None:
    assert pd.isna(sizing.bytes_of(None)) and pd.isna(sizing.bytes_of("as usual"))


def test_gpt_oss_120b_fits_one_gpu_of_80_gb_as_published() -> None:
    row = sized("openai/gpt-oss-120b", "medium", hardware="h100-1")
    assert row["weights_gb"] == 65.2 and row["memory_gb"] <= 72
    assert (row["fits_on"][-2:], row["too_small"]) == ("-1", "")


def test_deepseek_is_fp8_and_its_cache_comes_from_its_layers() -> None:
    row = sized("deepseek-ai/DeepSeek-V3", hardware="h200-8")
    assert row["weights_gb"] == 671 and row["kv_gb"] == pytest.approx(4.6, abs=0.05)
    assert (row["fits_on"], row["too_small"]) == ("h200-8", "")


def test_a_hosted_model_needs_no_machine() -> None:
    row = sized("moonshotai/Kimi-K3")
    assert row["shortlisted"] and row["too_small"] == "" and pd.isna(row["fits_on"])


@pytest.mark.parametrize(
    ("precision", "endpoint", "fits"),
    [("bf16", URL, False), ("fp8", URL, True), (None, URL, False), (None, GGUF, True)],
)
def test_the_precision_of_a_deployment_decides_its_memory(
    precision: str | None, endpoint: dict[str, str], fits: bool
) -> None:
    words: dict[str, Any] = {"precision": precision, "endpoint": endpoint, "hardware": "l40s-1"}
    row = sized("Qwen/Qwen3-32B", "low", **words)
    assert (row["too_small"] == "") == fits
    if not fits:
        assert row["too_small"].startswith(
            "d: l40s-1 holds 43.2 GB, the model takes 71.1 GB or more"
        )


def test_what_is_recorded_ran_somewhere() -> None:
    recorded = {"endpoint": {"recorded": "x.jsonl"}, "hardware": "cpu-1"}
    assert sized("Qwen/Qwen3-32B", "low", **recorded)["too_small"] == ""


def test_outside_the_tier_is_said_of_what_is_deployed_alone() -> None:
    row = sized("Qwen/Qwen3-32B", "high")
    assert row["shortlisted"] and row["why"].startswith("outside the tier: tier ")
    judged, machines = tables.models().assign(verdict="allowed"), tables.hardware()
    others = sizing.shortlist(judged, machines, Size(tier="high"), tiers=["high"])
    assert not others.set_index("repo_id").loc["Qwen/Qwen3-32B", "shortlisted"]
