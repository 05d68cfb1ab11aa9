"""Who else serves a model, and until when: two requirements that nothing unknown meets."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from briefs import brief
from test_draws import RIGHT, answers, measured, usd
from test_outlook import SLICES
from test_record import decide
from tradeoff_rows import NAN, PUBLISHED, table

from lib.brief import Requirements
from lib.decide import availability, check, choose, outlook, qualify
from lib.decide.decision import nearest_miss
from lib.decide.flips import flip_points
from lib.errors import PlaybookError
from lib.pages import grid

HOURLY, BY_TOKEN = {"usd_per_hour": 1.0}, {"input_usd_per_million": 1, "output_usd_per_million": 1}
URL = {"base_url": "https://host/v1"}
HOST = {"provider": "Acme", "country": "France"}
KNOWN = {"n_providers": 2.0, "own_host": False, "retires_on": "never", "lifetime": "we host it"}
UNKNOWN = {"n_providers": NAN, "own_host": False, "retires_on": None}
UNKNOWN |= {"lifetime": "whoever serves it may retire it"}
BARS = {"min_providers": Requirements(min_providers=2)}
BARS["not_retired_before"] = Requirements(not_retired_before=date(2027, 6, 30))


def metadata(providers: str | None = None, revision: str | None = None) -> pd.DataFrame:
    return pd.DataFrame([{"repo_id": "org/a", "providers": providers, "revision": revision}])


def facts(folder: Path, facts: pd.DataFrame, **keys: Any) -> Any:
    given = {"name": "a", "model": "org/a", "endpoint": URL, "price": HOURLY} | keys
    return availability(brief(folder, "deployments", [given]), facts).iloc[0]


@pytest.mark.parametrize(
    ("keys", "revision", "retires_on", "words"),
    [
        ({"endpoint": {"embedded": "smollm2-135m"}}, None, "never", "pinned revision"),
        ({"endpoint": {"gguf": "org/g/q4.gguf", "revision": "abc"}}, None, "never", "we host it"),
        ({"hardware": "h100-1"}, "abc", "never", "we host it"),
        ({"hardware": "h100-1", "endpoint": URL | {"revision": "abc"}}, None, "never", "we host"),
        ({"hardware": "h100-1"}, None, None, "no revision is pinned: give endpoint.revision"),
        # Somebody else's, whatever machine it runs on.
        ({}, "abc", None, "whoever serves it may retire it: give its retires_on"),
        ({"hardware": "h100-1", "host": HOST}, "abc", None, "may retire it"),
        ({"hardware": "h100-1", "price": BY_TOKEN}, "abc", None, "may retire it"),
        ({"hardware": "h100-1", "price": {"provider": "together"}}, "abc", None, "may retire it"),
        ({"hardware": "h100-1", "endpoint": {"recorded": "a.jsonl"}}, "abc", None, "may retire"),
        # What its provider published goes first, on a machine of ours too.
        ({"retires_on": date(2027, 3, 1)}, None, "2027-03-01", "it retires on 2027-03-01, as its"),
        ({"retires_on": "2027-03-01", "hardware": "h100-1"}, "abc", "2027-03-01", "it retires on"),
    ],
)
def test_only_pinned_weights_of_our_own_never_retire(
    keys: dict[str, Any], revision: str | None, retires_on: str | None, words: str, tmp_path: Path
) -> None:
    lines = [f'{{"item_id": "{n}", "output": "positive"}}\n' for n in range(2)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    if "provider" in keys.get("price", {}):  # who is priced by name must be known by it
        keys = keys | {"model": "openai/gpt-oss-120b"}
    known = metadata(revision=revision).assign(repo_id=keys.get("model", "org/a"))
    row = facts(tmp_path, known, **keys)
    assert (row["retires_on"], words in row["lifetime"]) == (retires_on, True), row["lifetime"]


@pytest.mark.parametrize(
    ("providers", "n"), [("together;novita", 2.0), ("together", 1.0), ("", 0.0), (None, NAN)]
)
def test_what_the_hub_was_not_asked_is_no_zero(
    providers: str | None, n: float, tmp_path: Path
) -> None:
    assert facts(tmp_path, metadata(providers))["n_providers"] == pytest.approx(n, nan_ok=True)
    assert math.isnan(facts(tmp_path, metadata("x;y"), model="org/b")["n_providers"])


@pytest.mark.parametrize(
    ("name", "known", "verdict", "note"),
    [
        ("min_providers", 2.0, "met", ""),
        ("min_providers", 1.0, "not met", ""),
        ("min_providers", 0.0, "not met", ""),
        ("min_providers", NAN, "not decided", "not known who serves it: run step 3 with the Hub"),
        ("not_retired_before", "2027-06-30", "met", "why"),
        ("not_retired_before", "2027-06-29", "not met", "why"),
        ("not_retired_before", "never", "met", "why"),
        ("not_retired_before", None, "not decided", "why"),
        ("not_retired_before", NAN, "not decided", "why"),
    ],
)
@pytest.mark.parametrize("basis", [{}, PUBLISHED], ids=["measured", "published"])
def test_the_verdict(name: str, known: Any, verdict: str, note: str, basis: dict[str, Any]) -> None:
    column = {"min_providers": "n_providers"}.get(name, "retires_on")
    given = {"lifetime": "why", "own_host": False, column: pd.Series([known], dtype=object)}
    rows = table(a=basis).assign(**given)
    (row,) = check(rows, BARS[name]).to_dict("records")
    assert (row["requirement"], row["verdict"]) == (name, verdict)
    assert row["note"].startswith(note) and bool(row["note"]) == bool(note)
    judged = qualify(rows, check(rows, BARS[name])).iloc[0]
    assert judged["qualifies"] == {"met": "yes", "not met": "no"}.get(verdict, verdict)
    assert verdict in grid(check(rows, BARS[name])).to_string()


def test_a_fine_tune_of_ours_on_a_machine_by_the_hour_does_not_retire(tmp_path: Path) -> None:
    given = {"name": "a", "model": "org/a", "endpoint": URL, "price": HOURLY, "host": HOST}
    project = brief(tmp_path, "deployments", [given | {"hardware": "h100-1"}])
    attested = project.model_copy(update={"models": [SimpleNamespace(repo_id="org/a")]})
    days = [availability(one, metadata(revision="abc"))["retires_on"].iloc[0]
            for one in (project, attested)]  # fmt: skip
    assert days == [None, "never"]


def test_what_we_host_needs_no_provider(tmp_path: Path) -> None:
    """A fine-tune of one's own is on no provider, and a machine of one's own is none."""
    hourly, by_token = {"usd_per_hour": 1.0}, {"provider": "openai", "model": "gpt-5-mini"}
    host = {"provider": "acme", "country": "Germany"}
    cases = [
        ({"hardware": "h100-1", "price": hourly}, True),
        ({"hardware": "h100-1", "price": hourly, "host": host}, False),  # rented, perhaps
        ({"price": by_token}, False),
    ]
    for changes, ours in cases:
        assert facts(tmp_path, metadata("x;y"), **changes)["own_host"] == ours
    row = table(a={}).assign(n_providers=NAN, own_host=True, retires_on=None, lifetime="")
    (one,) = check(row, BARS["min_providers"]).to_dict("records")
    assert (one["verdict"], one["note"]) == ("met", "we host it: it needs no provider")


@pytest.mark.parametrize("name", BARS)
def test_what_is_not_known_is_never_picked(name: str, tmp_path: Path) -> None:
    """The cheaper one would be the pick, and nobody knows its chance; without the bar it is."""
    scored = answers(a=RIGHT > 0, b=RIGHT > 0)
    bars = BARS[name].model_dump(exclude_none=True)
    project = brief(tmp_path, "requirements", bars | {"min_quality": 0.5})
    rows = measured(scored, a=usd(90.0), b=usd(30.0))
    rows = rows.assign(**{key: [KNOWN[key], UNKNOWN[key]] for key in KNOWN})
    checks = check(rows, project.requirements)
    judged = qualify(rows, checks)
    assert choose(judged, "cheapest")[0] == ["a"]
    sure = outlook(judged, checks, SLICES, scored, project)["certainty"]
    assert [(row["deployment"], row["p_qualifies"], row["p_pick"]) for row in sure] == [("a", 1, 1)]
    flips = flip_points(rows, project).set_index("change")
    assert flips.loc[f"without {name}", "pick"] == "b"
    # Nobody is provisional of whom it is not known.
    alone = rows[1:].reset_index(drop=True)
    checks = check(alone, project.requirements)
    judged = qualify(alone, checks)
    said = outlook(judged, checks, SLICES, scored[scored["deployment"] == "b"], project)
    assert said["provisional"] is None and said["certainty"] == []
    assert not any("without" in change for change in flip_points(alone, brief(tmp_path))["change"])


def test_the_record_and_the_nearest_miss_have_them(tmp_path: Path) -> None:
    bars = {"min_providers": 3, "not_retired_before": date(2027, 6, 30)}
    rows = table(a=KNOWN, b=UNKNOWN)
    for name in KNOWN:
        rows[name] = [KNOWN[name], UNKNOWN[name]]
    done, _, _ = decide(tmp_path, rows, bars)  # type: ignore[arg-type]
    verdicts = {(c["deployment"], c["requirement"]): c["verdict"] for c in done["requirements"]}
    assert verdicts == {
        ("a", "min_providers"): "not met", ("a", "not_retired_before"): "met",
        ("b", "min_providers"): "not decided", ("b", "not_retired_before"): "not decided",
    }  # fmt: skip
    assert done["pick"] is None and done["outcome"] == "not decided"
    wanted = [c["wanted"] for c in done["requirements"]]
    assert wanted[:2] == ["at least 3 inference providers", "service at least until 2027-06-30"]
    assert done["brief"]["requirements"]["not_retired_before"] == "2027-06-30"
    assert {"what": "a", "step": "6", "rule": "misses at least 3 inference providers"} in done[
        "rejected"
    ]
    miss = nearest_miss(check(rows[:1], Requirements(min_providers=3)))
    assert miss and miss["would_have_to_give"] == "min_providers would have to be 2"


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("requirements", {"min_providers": 0}, "requirements.min_providers: Input should be gre"),
        ("requirements", {"min_providers": 1.5}, "requirements.min_providers: Input should be a"),
        ("requirements", {"not_retired_before": "soon"}, "requirements.not_retired_before: Input"),
        ("deployments.0.retires_on", "2027-13-01", "deployments.0.retires_on: Input should be"),
    ],
)
def test_what_is_no_count_and_no_day_is_refused(
    where: str, value: Any, words: str, tmp_path: Path
) -> None:
    with pytest.raises(PlaybookError, match=words):
        brief(tmp_path, where, value)
