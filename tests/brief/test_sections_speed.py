"""The older keys of `speed` are a budget; what is no number is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from lib.brief.sections import Speed


@pytest.mark.parametrize(
    ("keys", "budget_s"),
    [
        ({"probe_s": 0.5, "min_requests": 20, "max_probes": 2, "ceiling_rps": 40}, 1.0),
        ({"max_probes": 4}, 20.0),
        ({"ceiling_rps": 8}, 40.0),
        ({"probe_s": 2, "budget_s": 30}, 30.0),
        ({}, 40.0),
    ],
)
def test_older_keys_are_a_budget(keys: dict[str, float], budget_s: float) -> None:
    assert Speed(**keys).budget_s == budget_s


@pytest.mark.parametrize(
    "keys",
    [
        {"probe_s": "long"},
        {"probe_s": -1},
        {"probes": 3},
        {"max_probes": float("inf")},
        {"budget_requests": 10**9},
    ],
)
def test_nonsense_is_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Speed(**keys)
