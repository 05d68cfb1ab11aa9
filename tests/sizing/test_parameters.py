"""Which count of parameters wins, and that packed weights move no tier."""

from __future__ import annotations

import pandas as pd
import pytest

from lib import tables
from lib.sizing import tiers as parameters

NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 80),
        ("Qwen/Qwen3-30B-A3B", 30),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 0.135),
        ("Qwen/Qwen2.5-1.5B", 1.5),
        ("google/gemma-3-270m", 0.27),
        ("openai/gpt-oss-120b", 120),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", NAN),
        ("google/gemma-4-E4B-it", NAN),
        ("org/3B-model", 3),
        ("7B/model", NAN),
        ("org/phi-4", NAN),
        ("org/model-v0.2B5", NAN),
    ],
)
def test_in_name(name: str, billions: float) -> None:
    found = parameters.in_name(pd.Series([name], dtype="str")).iloc[0]
    assert found == pytest.approx(billions, nan_ok=True)


def settled(
    stated: float = NAN, on_hub: float = NAN, name: str = "a/b", quantization: str | None = None
) -> tuple[float, str]:
    row = {"repo_id": name, "total_params_b": stated, "hub_params_b": on_hub}
    table = parameters.settle(pd.DataFrame([row | {"quantization": quantization}]))
    return table["total_params_b"].iloc[0], table["params_basis"].iloc[0]


@pytest.mark.parametrize(
    ("given", "total", "basis"),
    [
        ({"stated": 100, "on_hub": 110}, 100, "stated, Hub agrees"),
        ({"stated": 100, "on_hub": 90}, 100, "stated, Hub agrees"),
        ({"stated": 100, "on_hub": 110.1}, 100, "stated; the Hub counts 110.1B"),
        ({"stated": 1000, "on_hub": 65.4}, 1000, "stated; the Hub counts 65.4B"),
        ({"stated": 7}, 7, "stated"),
        ({"on_hub": 7}, 7, "Hub"),
        ({"on_hub": 7, "name": "org/model-14B"}, 7, "Hub"),
        ({}, NAN, "unknown"),
        ({"name": "org/model-14B"}, 14, "name"),
    ],
)
def test_settle(given: dict[str, float], total: float, basis: str) -> None:
    count, text = settled(**given)  # type: ignore[arg-type]
    assert count == pytest.approx(total, nan_ok=True)
    assert text == basis


def test_packed_weights_move_no_tier() -> None:
    """A 120B model whose four-bit weights the Hub counts as 65B stays in its tier."""
    packed = {"quantization": "mxfp4"}
    assert settled(stated=120, on_hub=65, **packed)[0] == 120
    assert settled(on_hub=65, name="org/model-120B-FP4", **packed) == (
        120,
        "name; the Hub counts packed weights: 65B",
    )
    assert settled(on_hub=118, name="org/model-120B-FP4", **packed) == (118, "Hub")


def test_packed_weights_without_a_stated_count_or_a_name_are_unknown() -> None:
    count, basis = settled(on_hub=65, quantization="mxfp4")
    assert (pd.isna(count), basis) == (True, "unknown")


@pytest.mark.parametrize(
    ("types", "packed"),
    [
        ("BF16:8000000000", False),
        ("BF16:2000;U8:98000", True),
        ("F16:1200;I32:800", True),
        ("BF16:250;U32:1000", True),  # MLX
        ("BF16:2000;F8_E4M3:98000", True),
        ("BF16:1000000;I32:8", False),  # a buffer
        ("U8:junk", False),
        ("", False),
        (None, False),
    ],
)
def test_packed_by_the_types_of_the_tensors(types: str | None, packed: bool) -> None:
    assert list(parameters.packed_weights(pd.DataFrame({"params_by_dtype": [types]}))) == [packed]


def test_nvfp4_whose_config_is_silent_moves_no_tier() -> None:
    """Nemotron 3 Nano NVFP4: 31.6B, the Hub counts 101.6B, config.json names no method."""
    row = {"repo_id": "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4", "hub_params_b": 101.6}
    row |= {"total_params_b": NAN, "quantization": None}
    told = pd.DataFrame([row | {"params_by_dtype": "U8:15;F8_E4M3:2;BF16:1"}])
    settled = parameters.settle(told).iloc[0]
    assert settled["total_params_b"] == 30
    assert settled["params_basis"] == "name; the Hub counts packed weights: 101.6B"


def test_columns_that_are_not_there_yet() -> None:
    table = parameters.settle(tables.models())
    assert list(table["repo_id"]) == list(tables.models()["repo_id"])
    assert set(table["params_basis"].str.partition(";")[0]) <= {
        *("stated, Hub agrees", "stated", "Hub", "name", "unknown"),
    }


def test_no_models() -> None:
    empty = tables.models().iloc[:0]
    assert parameters.settle(empty).empty
