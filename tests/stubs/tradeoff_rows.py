"""Trade-off tables as steps 4 and 5 leave them, with one configuration after the other."""

from __future__ import annotations

from typing import Any

import pandas as pd

NAN = float("nan")
ROW: dict[str, Any] = {
    "deployment": "a",
    "repo_id": "org/a",
    "metric": "accuracy",
    "basis": "measured here",
    "comparable": "yes",
    "standing": "candidate",
    "against_baseline": "",
    "n": 100,
    "n_failed": 0,
    "quality": 0.9,
    "quality_low": 0.85,
    "quality_high": 0.95,
    "beaten_by": "",
    "tie_group": 1,
    "max_rps": 4.0,
    "estimated_load": "",
    "rps_low": 4.0,
    "rps_high": 5.0,
    "slo_s": NAN,
    "peak_rps": NAN,
    "binds": "",
    "p95_s": 0.5,
    "p95_low": 0.4,
    "p95_high": 0.6,
    "ttft_p95_s": 0.2,
    "ttft_low": 0.1,
    "ttft_high": 0.3,
    "itl_p95_s": 0.02,
    "itl_low": 0.01,
    "itl_high": 0.03,
    "hardware": "cpu-2",
    "price": "$1/hour",
    "price_basis": "assumed",
    "usd_per_1k": 0.2,
    "usd_per_1k_low": 0.1,
    "usd_per_1k_high": 0.2,
    "cost_basis": "at full use: the brief states no traffic",
    "replicas": NAN,
    "machines": "",
    "utilisation": NAN,
    "usd_per_month": NAN,
    "usd_per_month_low": NAN,
    "usd_per_month_high": NAN,
}
PUBLISHED = {
    "basis": "published (article, 2026-01-08)",
    "n": 0,
    **dict.fromkeys(
        ["quality_low", "quality_high", "rps_low", "rps_high", "p95_s", "p95_low", "p95_high"], NAN
    ),
    **dict.fromkeys(["usd_per_1k_low", "usd_per_1k_high"], NAN),
}


def table(**rows: dict[str, Any]) -> pd.DataFrame:
    """One configuration a keyword: `table(a={}, b={"quality": 0.8})`."""
    named = [ROW | {"deployment": name, "repo_id": f"org/{name}"} | r for name, r in rows.items()]
    frame = pd.DataFrame(named, columns=list(ROW))
    ends = {"max_rps": "borne_rps", "rps_low": "borne_low", "rps_high": "borne_high"}
    frame = frame.assign(**{borne: frame[name] for name, borne in ends.items()})
    # What the bill is made from: so many dollars a request.
    each = {f"usd_per_request{e}": frame[f"usd_per_1k{e}"] / 1000 for e in ("", "_low", "_high")}
    return frame.assign(usd_per_hour=NAN, rps=NAN, rps_most=NAN, **each)
