"""Who may be asked: what steps 1 to 3 let through, on a host and from a repository that pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from briefs import BASE, brief, changed

from lib.brief.project import Project
from lib.endpoints import requests
from lib.errors import PlaybookError


def test_admit(tmp_path: Path) -> None:
    deployments = [
        {
            "name": name,
            "model": f"org/{name}",
            "endpoint": {"base_url": "http://h"},
            "price": {"usd_per_hour": 1},
        }
        for name in ("good", "terms", "drifted", "large", "stranger")
    ]
    project = brief(tmp_path, "deployments", deployments)
    shortlist = pd.DataFrame(
        {
            "repo_id": ["org/good", "org/terms", "org/drifted", "org/large"],
            "why": ["tier low", "tier low", "tier low", "tier high; wanted low"],
        }
    )
    metadata = pd.DataFrame(
        {
            "repo_id": ["org/good", "org/terms", "org/drifted"],
            "verdict": ["allowed", "conditional", "review"],
            "exception": ["", "exception by X", ""],
        }
    )
    admitted = requests.admit(project, shortlist, metadata)
    assert admitted[["admitted", "verdict", "why"]].to_numpy().tolist() == [
        ["yes", "allowed", "on the shortlist"],
        ["yes", "conditional", "on the shortlist"],
        ["no", "review", "step 3: review"],
        ["no", "", "tier high; wanted low"],
        ["no", "", "not in data/models.csv: add it, with its licence and source"],
    ]
    assert list(admitted["exception"]) == ["", "exception by X", "", "", ""]
    assert list(admitted["deployment"]) == [d.name for d in project.deployments]


HOST = {"provider": "Serving Inc", "country": "Singapore"}
NO_HOST = "its host is not in the brief: give deployments.host.provider and country"
BARRED = "its host Serving Inc is in Singapore, which the policy does not allow"
URL = {"base_url": "https://host/v1"}


@pytest.mark.parametrize(
    ("endpoint", "host", "policy", "why"),
    [
        (URL, HOST, {}, ""),
        (URL, None, {}, ""),
        (URL, HOST, {"denied_countries": ["Singapore"]}, BARRED),
        (URL, HOST, {"denied_countries": ["sg"]}, BARRED),
        (URL, HOST | {"country": "SGP"}, {"denied_countries": ["singapore"]}, BARRED),
        (URL, HOST, {"denied_countries": ["China"]}, ""),
        (URL, HOST, {"host_countries": ["United States", "France"]}, BARRED),
        (URL, HOST, {"host_countries": ["Singapore"]}, ""),
        (URL, HOST, {"host_countries": []}, BARRED),
        (
            URL,
            HOST,
            {"host_countries": ["Singapore"], "denied_countries": ["Singapore"]},
            BARRED,
        ),
        (URL, HOST, {"countries": ["France"]}, ""),
        (URL, None, {"denied_countries": ["China"]}, NO_HOST),
        (URL, None, {"host_countries": ["France"]}, NO_HOST),
        ({"embedded": "smollm2-135m"}, None, {"host_countries": ["France"]}, ""),
        ({"embedded": "smollm2-135m"}, HOST, {"denied_countries": ["Singapore"]}, ""),
        ({"gguf": "o/n/f.gguf", "revision": "abc"}, None, {"denied_countries": ["China"]}, ""),
    ],
)
def test_hosts(
    endpoint: dict[str, Any], host: dict[str, str] | None, policy: dict[str, Any], why: str
) -> None:
    deployment = {"name": "a", "model": "org/a", "endpoint": endpoint, "host": host}
    deployments = [deployment | {"price": {"usd_per_hour": 1}}]
    project = Project(**BASE | {"policy": policy, "deployments": deployments})
    shortlist = pd.DataFrame({"repo_id": ["org/a"], "why": ["tier low"]})
    for verdict in ("allowed", "conditional", "review", "blocked"):
        metadata = pd.DataFrame({"repo_id": ["org/a"], "verdict": [verdict], "exception": [""]})
        row = requests.admit(project, shortlist, metadata).iloc[0]
        cleared = verdict in ("allowed", "conditional")
        assert row["admitted"] == ("yes" if cleared and not why else "no")
        state = [] if cleared else [f"step 3: {verdict}"]
        expected = "; ".join([*state, *filter(None, [why])])
        assert row["why"] == (expected or "on the shortlist")


def one(**supply: Any) -> pd.Series:
    """The row of one deployment whose model step 3 let through, with these columns more."""
    hosted = {"name": "a", "model": "org/a", "endpoint": URL, "price": {"usd_per_hour": 1}}
    project = Project(**BASE | {"deployments": [hosted]})
    shortlist = pd.DataFrame({"repo_id": ["org/a"], "why": ["tier low"]})
    facts = {"repo_id": "org/a", "verdict": "allowed", "exception": ""} | supply
    return requests.admit(project, shortlist, pd.DataFrame([facts])).iloc[0]


AGAIN = "; run step 3 with the Hub reachable"


@pytest.mark.parametrize(
    ("supply", "why"),
    [
        ({}, "on the shortlist"),
        ({"supply_verdict": "pass", "supply_reasons": ""}, "on the shortlist"),
        ({"supply_verdict": "pass", "supply_reasons": "pickle files too"}, "on the shortlist"),
        (
            {"supply_verdict": "fail", "supply_reasons": "no safetensors files, only pickle"},
            "supply chain: fail: no safetensors files, only pickle",
        ),
        (
            {"supply_verdict": "unknown", "supply_reasons": "not verified: gating"},
            f"supply chain: unknown: not verified: gating{AGAIN}",
        ),
        (
            {"supply_verdict": None, "supply_reasons": None},
            f"supply chain: unknown: not verified{AGAIN}",
        ),
        (
            {"supply_verdict": "PASS", "supply_reasons": ""},
            f"supply chain: unknown: not verified{AGAIN}",
        ),
    ],
)
def test_only_what_passes_the_supply_chain_gate_is_asked(supply: dict[str, Any], why: str) -> None:
    row = one(**supply)
    assert row["why"] == why
    assert row["admitted"] == ("yes" if why == "on the shortlist" else "no")


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"shortlisted": True, "why": "tier low, fits on cpu-2"}, "on the shortlist"),
        ({"shortlisted": False, "why": "tier high; wanted low"}, "step 3: tier high; wanted low"),
        ({"shortlisted": False, "why": "x", "supply_verdict": "fail"}, "step 3: x"),
    ],
)
def test_a_model_that_the_hub_s_facts_take_off_the_shortlist(
    facts: dict[str, Any], why: str
) -> None:
    row = one(**{"supply_verdict": "pass", "supply_reasons": ""} | facts)
    assert (row["why"], row["admitted"]) == (why, "yes" if why == "on the shortlist" else "no")


def test_everything_that_bars_it_is_told_at_once() -> None:
    row = one(
        verdict="review",
        reasons="its licence is unknown",
        supply_verdict="fail",
        supply_reasons="gated",
        too_small="other: x\na: h100-1 holds 72 GB, the model takes 90 GB or more",
    )
    assert (row["admitted"], row["why"]) == (
        "no",
        "step 3: review: its licence is unknown; supply chain: fail: gated;"
        " h100-1 holds 72 GB, the model takes 90 GB or more",
    )


def test_outside_the_tier_is_asked_and_marked() -> None:
    row = one(shortlisted=True, why="outside the tier: tier low; wanted high")
    assert (row["admitted"], row["why"]) == ("yes", "outside the tier: tier low; wanted high")


def test_nobody_left_is_one_sentence_with_every_reason(tmp_path: Path) -> None:
    raw = changed("deployments.1.baseline", True)
    project = Project(**raw)
    nothing = pd.DataFrame(columns=["repo_id", "verdict", "exception"])
    shortlist = pd.DataFrame({"repo_id": ["org/a"], "why": ["step 1: blocked"]})
    verdicts = requests.admit(project, shortlist, nothing)
    assert list(verdicts["admitted"]) == ["no", "yes"]
    with pytest.raises(PlaybookError, match=r"may be asked and chosen:\n- a: step 1: blocked$"):
        requests.admitted(project, verdicts)


def test_a_model_that_step_3_never_saw(tmp_path: Path) -> None:
    project = brief(tmp_path)
    nothing = pd.DataFrame(
        columns=["repo_id", "verdict", "exception", "supply_verdict", "supply_reasons"]
    )
    shortlist = pd.DataFrame({"repo_id": ["org/a"], "why": ["tier high; wanted low"]})
    admitted = requests.admit(project, shortlist, nothing)
    assert list(admitted["admitted"]) == ["no", "no"]
    assert list(admitted["why"]) == [
        "tier high; wanted low",
        "not in data/models.csv: add it, with its licence and source",
    ]
