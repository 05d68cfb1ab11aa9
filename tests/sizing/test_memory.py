"""The cache layer by layer, what stands in for it, and how near published logs it comes."""

from __future__ import annotations

import pandas as pd
import pytest

from lib import tables
from lib.brief import Size
from lib.sizing import tiers as memory

NAN = float("nan")


@pytest.mark.parametrize(
    ("layout", "context", "elements"),
    [
        ("32x2048", 1, 32 * 2048),
        ("32x2048", 8192, 32 * 2048 * 8192),
        ("5x512;22x512@512", 8192, 5 * 512 * 8192 + 22 * 512 * 512),
        ("5x512;22x512@512", 100, 27 * 512 * 100),  # inside the window every layer counts
        ("61x576", 1000, 61 * 576 * 1000),
        ("", 1000, 0),
    ],
)
def test_cache_by_layer(layout: str, context: int, elements: int) -> None:
    assert memory.cache_gb(layout, context) == pytest.approx(elements * 2 / 1e9)


SIZE = Size(tier="low", context_tokens=1000, concurrent_requests=2)


def estimate(size: Size = SIZE, **facts: object) -> pd.Series:  # type: ignore[type-arg]
    models = pd.DataFrame([{"total_params_b": 10.0, **facts}])
    return memory.estimate(models, size).iloc[0]


def test_the_cache_counts_once_a_request() -> None:
    four = SIZE.model_copy(update={"concurrent_requests": 4})
    once = memory.cache_gb("5x512;22x512@512", 1000)
    assert estimate(four, kv_layout="5x512;22x512@512")["kv_gb"] == pytest.approx(4 * once)


SHAPE = {"layers": 10.0, "kv_heads": 4.0, "head_dim": 100.0}
PLAIN_GB = 2 * 10 * 4 * 100 * 1000 * 2 * 2 / 1e9


@pytest.mark.parametrize(
    ("facts", "kv_gb", "basis"),
    [
        ({"kv_layout": "10x50", **SHAPE}, 10 * 50 * 1000 * 2 * 2 / 1e9, "every layer of config"),
        ({"kv_layout": None, **SHAPE}, PLAIN_GB, "all layers at full context: upper bound"),
        (SHAPE, PLAIN_GB, "all layers at full context: upper bound"),
        (SHAPE | {"head_dim": NAN}, 4.0, "weights plus 20 %"),
        ({}, 4.0, "weights plus 20 %"),
    ],
)
def test_the_best_basis_there_is(facts: dict[str, object], kv_gb: float, basis: str) -> None:
    row = estimate(**facts)
    assert row["kv_gb"] == pytest.approx(kv_gb)
    assert row["memory_gb"] == pytest.approx(1.05 * (20 + kv_gb))
    assert row["memory_basis"].startswith(basis)


@pytest.mark.parametrize(
    ("files", "weights"), [(21.0, 21.0), (10.0, 10.0), (2.0, 20.0), (50.0, 20.0), (NAN, 20.0)]
)
def test_files_count_where_they_are_of_that_precision_or_a_lower_one(
    files: float, weights: float
) -> None:
    assert estimate(file_gb=files)["weights_gb"] == weights


def test_an_unknown_size_is_unknown() -> None:
    row = estimate(total_params_b=NAN)
    assert row["memory_basis"] == "unknown"
    assert pd.isna(row["memory_gb"])


def test_no_models() -> None:
    empty = pd.DataFrame({"total_params_b": pd.Series(dtype=float)})
    assert memory.estimate(empty, SIZE).empty


def test_against_published_logs() -> None:
    table = memory.against_measurements(tables.memory_measurements())
    error = table["error"].abs()
    assert len(table) >= 8
    assert error.median() < 0.01
    # One log gives a worker's memory but the tokens of the smaller worker.
    least = table["note"].fillna("").str.contains("least of both")
    # The state of recurrent layers is in the logged memory, and not a matter of tokens.
    recurrent = table["note"].fillna("").str.contains("recurrent")
    assert error[~least & ~recurrent].max() < 0.02
    assert table.loc[recurrent, "error"].between(-0.10, 0).all()
    assert error[least].max() < 0.15


def test_heads_are_split_over_devices_and_a_latent_cache_is_not() -> None:
    rows = pd.DataFrame(
        {
            "kv_layout": ["10x1024", "10x1024", "10x1024", "10x576"],
            "kv_heads": [4.0, 4.0, 4.0, NAN],
            "kv_dtype": ["bf16", "bf16", "fp8", "bf16"],
            "tensor_parallel": [2, 8, 1, 8],
            "kv_gib": 1.0,
            "kv_tokens": 1000,
        }
    )
    kb = memory.against_measurements(rows)["predicted_kb"]
    assert list(kb) == pytest.approx([10.24, 5.12, 10.24, 11.52])
