"""The decision record: plain JSON, every model that is out with its rule, the inputs' hashes."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from briefs import BASE, load_project, write, write_items
from jsonschema import Draft202012Validator
from tradeoff_rows import NAN, PUBLISHED, table

from lib import artifacts, tables
from lib.brief.project import Project
from lib.decide import decision, record
from lib.errors import PlaybookError

CATALOGUE = [  # repo_id, verdict, reasons, shortlisted, why
    ("org/a", "allowed", "licence mit allows it", True, "tier low, fits on cpu-2"),
    ("org/b", "conditional", "licence gemma sets conditions", True, "tier low, fits on cpu-2"),
    ("org/unasked", "allowed", "licence mit allows it", True, "tier low, fits on cpu-2"),
    ("org/drifted", "allowed", "licence mit allows it", True, "tier low, fits on cpu-2"),
    ("org/blocked", "blocked", "licence x is not among policy.licenses", False, "step 1: blocked"),
    ("org/unread", "review", "no licence is recorded", False, "step 1: review"),
    ("org/large", "allowed", "licence mit allows it", False, "tier high; wanted low"),
    ("org/middle", "allowed", "licence mit allows it", False, "between the tiers; wanted low"),
]

REGRET = ("usd_per_month", "usd_per_1k", "quality", "p_unfit")
SCHEMA = json.loads((tables.DATA / "schemas" / "decision-1.json").read_text(encoding="utf-8"))
OUTLOOK: dict[str, Any] = {
    "provisional": None,
    "served_models": {},
    "regret": dict.fromkeys(REGRET),
} | {name: [] for name in ("certainty", "more_items", "flip_points", "slices", "sentences")}


def shortlist() -> pd.DataFrame:
    columns = ["repo_id", "verdict", "reasons", "shortlisted", "why"]
    return pd.DataFrame(CATALOGUE, columns=columns)


def metadata() -> pd.DataFrame:
    short = shortlist().query("shortlisted").drop(columns=["shortlisted", "why"])
    drifted = short["repo_id"] == "org/drifted"
    return short.assign(
        verdict=short["verdict"].where(~drifted, "review"),
        reasons=short["reasons"].where(~drifted, "licence on the Hub is another"),
        revision=None,
        license="mit",
        conditions="",
        exception="",
        metadata_source="catalogue",
        retrieved_at="2026-10-05",
        problem="",
    )


def decide(
    folder: Path,
    measured: pd.DataFrame,
    bars: dict[str, float] | None = None,
    facts: pd.DataFrame | None = None,
    provisional: dict[str, Any] | None = None,
    **more: Any,
) -> tuple[dict[str, Any], Project, Path]:
    raw = BASE | {"requirements": bars or {}} | more
    project = load_project(write(folder, raw))
    write_items(folder, {"id": "1", "input": "x", "target": "positive"})
    run = folder / "run"
    artifacts.save_json({"x": 1}, run, "05_note.json")
    checks = decision.check(measured, project.requirements)
    done = record.decision_record(
        project,
        run,
        table=decision.qualify(measured, checks),
        checks=checks,
        metadata=metadata() if facts is None else facts,
        shortlist=shortlist(),
        outlook=OUTLOOK | {"provisional": provisional},
    )
    record.write_decision(done, run)
    done = json.loads((run / "06_decision.json").read_text(encoding="utf-8"))
    assert list(Draft202012Validator(SCHEMA).iter_errors(done)) == []
    return done, project, run


def test_a_pick(tmp_path: Path) -> None:
    measured = table(a={}, b={"usd_per_1k": 0.5, "usd_per_1k_low": 0.4, "usd_per_1k_high": 0.5})
    done, _, _ = decide(tmp_path, measured, {"min_quality": 0.8})
    assert done["outcome"] == "picked"
    assert done["pick"] == {
        "deployment": "a",
        "model": "org/a",
        "revision": None,
        "license": "mit",
        "verdict": "allowed",
        "conditions": "",
        "exception": "",
        "hardware": "cpu-2",
    }
    assert done["runner_up"]["deployment"] == "b"
    assert done["tie_group"] == ["a", "b"]
    assert done["nearest_miss"] is None
    assert done["tie_rule"] == "a is the cheapest without a tie"
    assert done["summary"] == (
        "a (org/a) is the cheapest configuration that meets every requirement, measured here."
    )


def test_only_equals_that_qualify_are_in_the_picks_tie_group(tmp_path: Path) -> None:
    worse = {"beaten_by": "b", "usd_per_1k_low": 0.4, "usd_per_1k_high": 0.5}
    unfit = {"quality_low": 0.5}
    rows = table(a=worse, b={}, c={"repo_id": "org/a"} | unfit)
    done, _, _ = decide(tmp_path, rows, {"min_quality": 0.8})
    assert (done["pick"]["deployment"], done["tie_group"]) == ("b", ["b"])


def test_a_price_that_was_not_used_is_said_in_words(tmp_path: Path) -> None:
    """A recorded baseline is not loaded, so it has no cost here."""
    recorded = {"standing": "the baseline", "basis": "recorded (today.jsonl)", "repo_id": "org/b"}
    rows = table(a={}, closed=recorded | {"price": None, "price_basis": None})
    done, _, _ = decide(tmp_path, rows)
    assert done["basis"][-2:] == [
        "Price of a: $1/hour, assumed",
        "Price of closed: not used, since no load was offered to divide it by",
    ]
    assert "nan" not in json.dumps(done["basis"])


def test_none_qualifies(tmp_path: Path) -> None:
    worse = {"quality": 0.5, "quality_low": 0.4, "quality_high": 0.6}
    done, _, _ = decide(tmp_path, table(a=worse, b=worse), {"min_quality": 0.8})
    assert done["outcome"] == "none qualifies"
    assert (done["pick"], done["runner_up"], done["tie_group"]) == (None, None, [])
    assert done["nearest_miss"]["deployment"] == "a"
    assert done["summary"] == (
        "None qualifies; the nearest is a: min_quality would have to be 0.4."
    )


def test_not_decided_yet(tmp_path: Path) -> None:
    worse = {"quality": 0.5, "quality_low": 0.4, "quality_high": 0.6}
    done, _, _ = decide(tmp_path, table(a=worse, b={"quality_low": 0.7}), {"min_quality": 0.8})
    assert done["outcome"] == "not decided"
    assert done["summary"].startswith(
        "No configuration is shown to qualify yet; the nearest is b: about "
    )


def test_a_provisional_choice_bears_the_duties_of_its_licence(tmp_path: Path) -> None:
    facts = metadata()
    facts.loc[facts["repo_id"] == "org/b", "conditions"] = "Notice with every copy (§3)"
    chances = {"p_qualifies": 0.7, "p_meets": {"min_quality": 0.7}, "would_settle": "more items"}
    named = {"deployment": "b", "model": "org/b"} | chances
    open_ = table(b={"quality_low": 0.7})
    done, _, _ = decide(tmp_path, open_, {"min_quality": 0.8}, facts, provisional=named)
    assert done["pick"] is None and done["provisional"].items() >= named.items()
    known = [done["provisional"][name] for name in ("license", "verdict", "conditions")]
    assert known == ["mit", "conditional", "Notice with every copy (§3)"]


def test_the_summary_speaks_of_whom_the_page_calls_provisional(tmp_path: Path) -> None:
    """`a` fails by less, but `b` more probably qualifies; one sentence says what settles it."""
    chances = {"p_qualifies": 0.7, "p_meets": {}, "would_settle": ""}
    named = {"deployment": "b", "model": "org/b"} | chances
    rows = table(a={"quality_low": 0.79}, b={"quality_low": 0.7})
    done, _, _ = decide(tmp_path, rows, {"min_quality": 0.8}, provisional=named)
    miss = done["nearest_miss"]
    lead = "No configuration is shown to qualify yet; provisional is b: about "
    assert miss["deployment"] == "b" and done["summary"].startswith(lead)
    assert done["summary"].endswith(f"{miss['would_have_to_give']}.")


@pytest.mark.parametrize("objective", ["cheapest", "best", "fastest"])
def test_who_goes_first_of_a_tie_is_not_called_the_only_one(tmp_path: Path, objective: str) -> None:
    done, _, _ = decide(tmp_path, table(a={}, b={}), objective=objective)
    assert done["summary"] == (
        f"a (org/a) meets every requirement, measured here; it goes first in a tie for {objective}."
    )


def test_the_cost_a_month_comes_with_its_machines(tmp_path: Path) -> None:
    machines = "3 machines (1 spare) at $0.36/hour, 41% used"
    row = {"usd_per_month": 796.0, "machines": machines, "cost_basis": "at 10 requests a day"}
    done, _, _ = decide(tmp_path, table(a=row))
    assert done["summary"].endswith(f"It costs $796 a month at 10 requests a day: {machines}.")


def test_calls_that_failed_are_no_ground_for_a_pick(tmp_path: Path) -> None:
    done, _, _ = decide(tmp_path, table(a={"comparable": "no", "n_failed": 9}))
    assert done["outcome"] == "not decided"
    assert "not comparable: 9 calls failed; run step 4 again" in done["summary"]


def test_every_model_that_is_out_is_listed_with_its_rule(tmp_path: Path) -> None:
    done, _, _ = decide(tmp_path, table(a={}), {"min_quality": 0.8})
    assert done["rejected"] == [
        {
            "what": "org/blocked",
            "step": "1",
            "rule": "blocked: licence x is not among policy.licenses",
        },
        {"what": "org/unread", "step": "1", "rule": "review: no licence is recorded"},
        {"what": "org/large", "step": "2", "rule": "tier high; wanted low"},
        {"what": "org/middle", "step": "2", "rule": "between the tiers; wanted low"},
        {"what": "org/drifted", "step": "3", "rule": "review: licence on the Hub is another"},
        {"what": "org/unasked", "step": "4", "rule": "no deployment of it in the brief"},
        {"what": "b", "step": "4", "rule": "no figures of it: run steps 4 and 5 again"},
    ]
    named = {entry["what"] for entry in done["rejected"]} | {done["pick"]["model"]}
    assert named >= {row[0] for row in CATALOGUE} - {"org/b"}
    assert all(entry["rule"] for entry in done["rejected"])


def test_what_step_3_refused_has_the_rule_that_did_it(tmp_path: Path) -> None:
    facts = metadata().assign(shortlisted=True, why="", supply_verdict="pass", supply_reasons="")
    facts.index = pd.Index(facts["repo_id"].tolist())
    facts.loc["org/unasked", ["supply_verdict", "supply_reasons"]] = "fail", "no safetensors files"
    facts.loc["org/b", ["shortlisted", "why"]] = [False, "tier high on the Hub; wanted low"]
    done, _, _ = decide(tmp_path, table(a={}), facts=facts)
    rules = {(entry["what"], entry["step"]): entry["rule"] for entry in done["rejected"]}
    assert rules["org/unasked", "3"] == "supply chain: fail: no safetensors files"
    assert rules["org/b", "3"] == "tier high on the Hub; wanted low"
    assert rules["b", "4"] == "not asked: step 3: tier high on the Hub; wanted low"
    assert not any("no deployment of it" in rule for rule in rules.values())
    facts.loc["org/unasked", "supply_verdict"] = "unknown"
    done, _, _ = decide(tmp_path, table(a={}), facts=facts)
    rules = {entry["what"]: entry["rule"] for entry in done["rejected"]}
    assert rules["org/unasked"].startswith("supply chain: unknown: no safetensors")


def test_a_host_that_the_policy_denies_is_the_rule(tmp_path: Path) -> None:
    hosted = BASE["deployments"][1] | {
        "endpoint": {"base_url": "https://host/v1"},
        "host": {"provider": "Acme", "country": "Singapore"},
    }
    policy = BASE["policy"] | {"denied_countries": ["sg"]}
    deployments = [BASE["deployments"][1] | {"name": "a", "model": "org/a"}, hosted]
    done, _, _ = decide(tmp_path, table(a={}), policy=policy, deployments=deployments)
    rule = "not asked: its host Acme is in Singapore, which the policy does not allow"
    assert {"what": "b", "step": "4", "rule": rule} in done["rejected"]


def test_configurations_that_lost_are_listed(tmp_path: Path) -> None:
    measured = table(a={}, b={"quality": 0.5, "quality_low": 0.4, "quality_high": 0.6})
    done, _, _ = decide(tmp_path, measured, {"min_quality": 0.8})
    lost = [entry for entry in done["rejected"] if entry["step"] == "6"]
    assert lost == [{"what": "b", "step": "6", "rule": "misses quality of at least 0.8"}]
    done, _, _ = decide(tmp_path, measured)
    lost = [entry for entry in done["rejected"] if entry["step"] == "6"]
    assert lost == [{"what": "b", "step": "6", "rule": "qualifies; preferred was a"}]


def test_json_without_nan(tmp_path: Path) -> None:
    odd = {
        "p95_s": NAN,
        "p95_low": -math.inf,
        "p95_high": math.inf,
        "rps_high": NAN,
        "usd_per_1k_low": NAN,
    }
    done, _, run = decide(tmp_path, table(a=odd, b=odd), {"max_p95_s": 1.0, "min_rps": 1.0})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (run / "06_decision.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse) == done
    first = done["requirements"][0]
    assert (first["low"], first["high"], first["value"]) == (None, None, None)


def test_inputs_and_overrides_are_those_of_the_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    changes = {"02": {"size.tier": "low"}, "06": {"objective": "cheapest"}}
    artifacts.begin(run, "02", {"sub/items.jsonl": "a", "items.jsonl": "b"}, changes["02"])
    artifacts.begin(run, "06", {"items.jsonl": "b", "project.yaml": "c"}, changes["06"])
    done, _, _ = decide(tmp_path, table(a={}))
    note = hashlib.sha256((run / "05_note.json").read_bytes()).hexdigest()
    hashes = {"sub/items.jsonl": "a", "items.jsonl": "b", "project.yaml": "c"}
    assert done["inputs"] == hashes | {"05_note.json": note}
    assert done["overrides"] == changes


def test_what_was_not_verified_is_told(tmp_path: Path) -> None:
    done, _, _ = decide(tmp_path, table(a={}))
    assert done["unverified"][0].startswith(
        "4 of 4 shortlisted models were not verified against the Hub"
    )
    assert "Assumed is the price of a." in done["unverified"]
    assert done["unverified"][-1] == "The licence table is a reading aid, not legal advice."
    assert set(done["versions"]) == set(record.LIBRARIES)


def test_a_pick_outside_the_tier_is_called_so_at_once(tmp_path: Path) -> None:
    why = "outside the tier: tier low; wanted high"
    done, _, _ = decide(tmp_path, table(a={}), facts=metadata().assign(shortlisted=True, why=why))
    assert done["summary"].endswith(f"measured here. a is {why}.")
    assert f"a is {why}." in done["unverified"]


def test_published_figures_are_called_published(tmp_path: Path) -> None:
    done, _, _ = decide(tmp_path, table(a=PUBLISHED))
    assert done["summary"].endswith("meets every requirement, on published figures only.")
    told = "Quality and speed are published figures; nothing was measured here."
    assert told in done["unverified"]
    assert done["basis"][0].startswith("Quality and speed: published (article, 2026-01-08)")


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("org/blocked", "step 1: blocked"),
        ("org/large", "tier high; wanted low"),
        ("org/drifted", "step 3: review"),
        ("org/stranger", "not in data/models.csv"),
    ],
)
def test_a_model_that_is_not_let_through_is_never_chosen(
    tmp_path: Path, model: str, why: str
) -> None:
    deployments = [{**BASE["deployments"][0], "model": model}]
    with pytest.raises(
        PlaybookError, match=f"deployment 'a' has figures but may not be chosen: {why}"
    ):
        decide(tmp_path, table(a={"repo_id": model}), deployments=deployments)
    assert not (tmp_path / "run" / "06_decision.json").exists()
