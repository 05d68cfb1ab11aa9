"""Tiers at their very bounds, memory, the smallest machine; and nothing is dropped silently."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from lib import tables
from lib.brief.sections import Size
from lib.errors import PlaybookError
from lib.sizing import tiers as sizing

NAN = float("nan")


@pytest.mark.parametrize(
    ("billions", "tier"),
    [
        (0.135, "low"),
        (31.999, "low"),
        (32, "between"),
        (69.99, "between"),
        (70, "medium"),
        (250, "medium"),
        (250.01, "between"),
        (299.99, "between"),
        (300, "high"),
        (2800, "high"),
        (NAN, "unknown"),
    ],
)
def test_tier_bounds(billions: float, tier: str) -> None:
    assert list(sizing.tier_of(pd.Series([billions]))) == [tier]


@pytest.mark.parametrize(
    ("size", "tiers"),
    [
        ({"tier": "low"}, ["low"]),
        ({"tier": "medium"}, ["medium"]),
        ({"tier": "high"}, ["high"]),
        ({"tier": "low", "fine_tuning": "planned"}, ["low"]),
        ({"tier": "medium", "fine_tuning": "planned"}, ["low", "medium"]),
        ({"tier": "high", "fine_tuning": "planned"}, ["medium", "high"]),
        ({"tier": "any"}, ["low", "medium", "high", "between"]),
        ({"replaces": "gpt-5-nano"}, ["low"]),
        ({"replaces": "gpt-5-mini", "fine_tuning": "planned"}, ["low", "medium"]),
        ({"replaces": "claude-opus-4-5"}, ["high"]),
    ],
)
def test_wanted_tiers(size: dict[str, str], tiers: list[str]) -> None:
    assert sizing.wanted_tiers(Size.model_validate(size), tables.closed_models()) == tiers


def test_an_unknown_closed_model() -> None:
    message = (
        "size.replaces: 'gpt-5-nanno' is not in data/closed_models.csv; did you mean 'gpt-5-na"
    )
    with pytest.raises(PlaybookError, match=re.escape(message)):
        sizing.wanted_tiers(Size(replaces="gpt-5-nanno"), tables.closed_models())
    with pytest.raises(PlaybookError, match=r"'zzzz' is not in .*; give size\.tier$"):
        sizing.wanted_tiers(Size(replaces="zzzz"), tables.closed_models())


HARDWARE = pd.DataFrame(
    [
        ("gpu-big", 144.0, 4.0),
        ("cpu-2", 7.2, 0.08),
        ("gpu-dear", 72.0, 3.0),
        ("gpu-cheap", 72.0, 2.0),
        ("gpu-unpriced", 72.0, NAN),
        ("cpu-64", 200.0, 1.0),
    ],
    columns=["hardware", "usable_gb", "usd_per_hour"],
)


def shortlist(
    *rows: tuple[float, float, str], precision: str = "bf16", tiers: tuple[str, ...] = ("low",)
) -> pd.DataFrame:
    judged = pd.DataFrame(rows, columns=["total_params_b", "active_params_b", "verdict"])
    judged = judged.assign(
        listed_for="choice",
        hub_params_b=NAN,
        context_length=NAN,
        repo_id=[f"org/m{i}" for i in range(len(rows))],
    )
    size = Size.model_validate({"tier": "any", "precision": precision})
    return sizing.shortlist(judged, HARDWARE, size, tiers=list(tiers))


@pytest.mark.parametrize(
    ("precision", "memory_gb"),
    [("bf16", 25.2), ("fp8", 12.6), ("int8", 12.6), ("int4", 7.56), ("fp4", 7.56)],
)
def test_memory_by_precision(precision: str, memory_gb: float) -> None:
    sized = shortlist((10, 10, "allowed"), precision=precision)
    assert sized["memory_gb"].iloc[0] == pytest.approx(memory_gb)


@pytest.mark.parametrize(
    ("total", "active", "machine"),
    [
        (2, 2, "cpu-2"),  # 5.04 GB
        (2.857, 2, "cpu-2"),  # 7.2 GB: just what is usable
        (2.858, 2, "gpu-cheap"),  # a little more: the next machine, the cheaper of equals
        (3, 2.001, "gpu-cheap"),  # too many active weights for a CPU
        (3, NAN, "gpu-cheap"),  # active unknown: all are
        (28.571, 30, "gpu-cheap"),  # 72 GB
        (28.572, 3, "gpu-big"),
        (57.2, 2, "cpu-64"),
        (57.2, 3, None),
        (500, 2, None),
        (NAN, NAN, None),
    ],
)
def test_the_smallest_machine(total: float, active: float, machine: str | None) -> None:
    sized = shortlist((total, active, "allowed"), tiers=("low", "between", "medium", "high"))
    found = sized["fits_on"].iloc[0]
    assert (None if pd.isna(found) else found) == machine
    assert bool(sized["shortlisted"].iloc[0]) == (total == total)  # somebody else may host it


def test_why_and_nothing_dropped() -> None:
    sized = shortlist(
        (3, 3, "allowed"),
        (3, 3, "conditional"),
        (3, 3, "review"),
        (400, 3, "blocked"),
        (NAN, NAN, "allowed"),
        (40, 40, "allowed"),
        (100, 100, "allowed"),
    )
    assert list(sized["repo_id"]) == [f"org/m{i}" for i in range(7)]
    assert list(sized["shortlisted"]) == [True, True] + [False] * 5
    assert list(sized["why"]) == [
        "tier low, fits on gpu-cheap",
        "tier low, fits on gpu-cheap",
        "step 1: review",
        "step 1: blocked",
        "parameter count unknown",
        "between the tiers; wanted low",
        "tier medium; wanted low",
    ]


def test_too_large_for_every_machine() -> None:
    sized = shortlist((1000, 30, "allowed"), tiers=("high",))
    assert list(sized["shortlisted"]) == [True]
    assert list(sized["why"]) == ["tier high, fits on no machine of data/hardware.csv"]


def test_between_the_tiers_is_shortlisted_where_any_is_wanted() -> None:
    sized = shortlist((40, 3, "allowed"), tiers=("low", "medium", "high", "between"))
    assert list(sized["shortlisted"]) == [True]
    assert list(sized["why"]) == ["tier between, fits on gpu-big"]


def test_the_shipped_catalogue_is_kept_whole() -> None:
    judged = tables.models().assign(verdict="allowed")
    size = Size(tier="any")
    tiers = sizing.wanted_tiers(size, tables.closed_models())
    sized = sizing.shortlist(judged, tables.hardware(), size, tiers=tiers)
    assert list(sized["repo_id"]) == list(judged["repo_id"])
    assert set(sized["tier"]) == {"low", "between", "medium", "high", "unknown"}
    assert not sized.loc[sized["tier"] == "unknown", "shortlisted"].any()
    fits, counted = sized["fits_on"].notna(), sized["tier"] != "unknown"
    assert (sized["shortlisted"] == (counted & (sized["listed_for"] == "choice"))).all()
    lineage = sized["why"].str.startswith("a base model, listed only because")
    assert (lineage == (sized["listed_for"] == "lineage")).all()
    machines = tables.hardware().set_index("hardware")["usable_gb"]
    assert (sized.loc[fits, "fits_on"].map(machines) >= sized.loc[fits, "memory_gb"]).all()
    on_cpu = sized[fits & sized["fits_on"].str.startswith("cpu-")]
    assert (on_cpu["active_params_b"].fillna(on_cpu["total_params_b"]) <= 2).all()


def test_a_context_that_is_too_short_is_said() -> None:
    judged = pd.DataFrame(
        {
            "repo_id": ["org/short", "org/long", "org/unknown"],
            "verdict": "allowed",
            "listed_for": "choice",
            "total_params_b": 1.0,
            "active_params_b": 1.0,
            "hub_params_b": NAN,
            "context_length": [4096, 8192, NAN],
        }
    )
    sized = sizing.shortlist(judged, HARDWARE, Size(tier="low"), tiers=["low"])
    assert list(sized["shortlisted"]) == [True] * 3
    assert list(sized["why"]) == [
        "tier low, fits on cpu-2; context 4,096 tokens is less than the 8,192 of"
        " size.context_tokens",
        "tier low, fits on cpu-2",
        "tier low, fits on cpu-2",
    ]


def published() -> pd.DataFrame:
    columns = ["repo_id", "benchmark", "score", "unit", "kind", "source_url", "checked_on"]
    rows = [
        ("org/m0", "X", 50.0),
        ("org/m0", "X", 60.0),
        ("org/m0", "Y", 99.0),
        ("org/m1", "X", 70.0),
        ("org/gone", "X", 80.0),
    ]
    facts = ("percent", "independent", "https://x", "2026-01-01")
    return pd.DataFrame([(*row, *facts) for row in rows], columns=columns)


def test_benchmark_points_take_the_best_variant() -> None:
    sized = shortlist((3, 3, "allowed"), (NAN, NAN, "allowed")).assign(family="F")
    points = sizing.benchmark_points(sized, published(), benchmark="X")
    assert points[["repo_id", "score", "total_params_b"]].to_numpy().tolist() == [["org/m0", 60, 3]]


def test_an_unknown_benchmark_lists_the_known() -> None:
    sized = shortlist((3, 3, "allowed")).assign(family="F")
    with pytest.raises(
        PlaybookError, match=r"benchmark 'Z' is not in published_scores; known: X, Y$"
    ):
        sizing.benchmark_points(sized, published(), benchmark="Z")
