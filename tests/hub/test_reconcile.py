"""What the Hub says now against the catalogue and the last run, and what that changes."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from briefs import BASE

from lib import tables
from lib.brief.project import Project
from lib.brief.sections import Acceptance, Hub
from lib.errors import PlaybookError
from lib.hub.drift import compare, consequence, reconcile, stop_on_drift
from lib.hub.facts import Facts, Row, facts_from_hub, recall, remember
from lib.hub.model_info import OF_BASE
from lib.legal import verdicts as legal
from lib.sizing import tiers as sizing

MODEL: dict[str, Any] = {
    "repo_id": "org/a",
    "license": "apache-2.0",
    "hub_license": "apache-2.0",
    "total_params_b": 8.0,
    "hub_params_b": 8.0,
    "context_length": 8192.0,
    "base_model": "org/base",
}
FACTS: dict[str, Any] = {
    "repo_id": "org/a",
    "revision": "a" * 40,
    "metadata_source": "hub",
    "retrieved_at": "2026-11-24T10:00:00+00:00",
    "license_on_hub": "apache-2.0",
    "license_name": None,
    "gated": "no",
    "base_models": "org/base",
    "kv_layout": None,
    "quantization": None,
    "params_by_dtype": None,
    "renamed_to": None,
    "params_b": 8.0,
    "gguf_params_b": None,
    "weights_gb": None,
    "context_length": 8192,
    "layers": None,
    "kv_heads": None,
    "head_dim": None,
}
TYPES = dict.fromkeys(FACTS, "str")
TYPES |= dict.fromkeys(["params_b", "gguf_params_b", "weights_gb"], "float")
TYPES |= dict.fromkeys(["context_length", "layers", "kv_heads", "head_dim"], "Int64")
POLICY = {"licenses": ["permissive", "conditional", "non-commercial"]}


def models(*changes: dict[str, Any]) -> pd.DataFrame:
    floats = dict.fromkeys(["total_params_b", "hub_params_b", "context_length"], "float")
    types = dict.fromkeys(MODEL, "str") | floats
    return pd.DataFrame([MODEL | change for change in changes], columns=list(MODEL)).astype(types)


def pulled(*changes: dict[str, Any]) -> pd.DataFrame:
    """A pull, typed as `hub.pull` types it."""
    return pd.DataFrame([FACTS | change for change in changes], columns=list(FACTS)).astype(TYPES)


def brief(*accepted: tuple[str, str], stop_on: str = "shortlisted", **changes: Any) -> Project:
    """A brief that accepts these drifts of a model's field."""
    entries = [{"model": m, "field": f, "reason": "read on paper"} for m, f in accepted]
    return Project(**BASE | {"hub": {"accept_drift": entries, "stop_on": stop_on}} | changes)


def drifts_of(
    catalogue: pd.DataFrame, hub: pd.DataFrame, previous: pd.DataFrame | None = None
) -> list[Row]:
    earlier: Facts = {} if previous is None else facts_from_hub(previous)
    return compare(catalogue, facts_from_hub(hub), earlier, brief())


def told(drifts: list[Row]) -> list[str]:
    return [f"{d['field']}: {d['against']} {d['old']} -> {d['new']}" for d in drifts]


@pytest.mark.parametrize(
    ("hub", "catalogue", "expected"),
    [
        ({}, {}, None),
        ({}, {"hub_license": "Apache-2.0 ".strip()}, None),
        ({"license_on_hub": "Apache-2.0"}, {}, None),
        ({}, {"hub_license": "gemma"}, "licence: catalogue gemma -> apache-2.0"),
        ({}, {"hub_license": None, "license": "mit"}, "licence: catalogue mit -> apache-2.0"),
        ({}, {"hub_license": None, "license": None}, None),
        ({"license_on_hub": None}, {}, "licence: catalogue apache-2.0 -> none"),
        ({"license_on_hub": None}, {"hub_license": "other"}, "licence: catalogue other -> none"),
        ({"license_on_hub": "k", "license_name": "k"}, {"hub_license": "k"}, None),
        ({"license_on_hub": "k", "license_name": "k"}, {"hub_license": "other"}, None),
        (
            {"license_on_hub": "mit", "license_name": "k"},
            {"hub_license": "k"},
            "licence: catalogue k -> mit",
        ),
        (
            {"license_on_hub": "mit, cc-by-nc-4.0"},
            {"hub_license": "mit"},
            "licence: catalogue mit -> mit, cc-by-nc-4.0",
        ),
        ({"params_b": 8.8}, {}, None),
        ({"params_b": 7.2}, {}, None),
        ({"params_b": 8.81}, {}, "size: catalogue 8B -> 8.81B"),
        ({"params_b": 7.19}, {}, "size: catalogue 8B -> 7.19B"),
        ({"params_b": 16.0}, {"hub_params_b": 9.0, "total_params_b": 16.0}, None),
        ({"params_b": 9.0}, {"hub_params_b": 9.0, "total_params_b": 16.0}, None),
        (
            {"params_b": 12.0},
            {"hub_params_b": 9.0, "total_params_b": 16.0},
            "size: catalogue 9B -> 12B",
        ),
        (
            {"params_b": 1040.0},
            {"hub_params_b": None, "total_params_b": 16.0},
            "size: catalogue 16B -> 1,040B",
        ),
        ({"params_b": None}, {"hub_params_b": 99.0}, None),
        (
            {"params_b": None, "gguf_params_b": 70.0},
            {},
            "size: catalogue 8B -> 70B",
        ),
        ({"params_b": float("inf")}, {}, None),
        ({"params_b": 0.0}, {}, None),
        ({}, {"hub_params_b": None, "total_params_b": None}, None),
        ({"context_length": 4096}, {}, "context: catalogue 8,192 tokens -> 4,096 tokens"),
        ({"context_length": None}, {}, None),
        ({}, {"context_length": None}, None),
        ({"gated": "manual"}, {}, "gated: catalogue not recorded -> manual"),
        ({"gated": None}, {}, None),
        ({}, {"base_model": "org/other"}, "base model: catalogue org/other -> org/base"),
        ({}, {"base_model": "ORG/Base"}, None),
        ({"base_models": "org/base"}, {"base_model": "org/base; org/y"}, None),
        (
            {"base_models": "org/x;org/base"},
            {"base_model": "org/base; org/y"},
            "base model: catalogue org/base; org/y -> org/x;org/base",
        ),
        ({"base_models": None}, {}, None),
        ({}, {"base_model": None}, "base model: catalogue none -> org/base"),
        ({}, {"base_model": "none"}, "base model: catalogue none -> org/base"),
        ({"base_models": None}, {"base_model": "none"}, None),
        ({"renamed_to": "org/b"}, {}, "name: catalogue org/a -> org/b"),
    ],
)
def test_against_the_catalogue(
    hub: dict[str, Any], catalogue: dict[str, Any], expected: str | None
) -> None:
    drifts = drifts_of(models(catalogue), pulled(hub))
    assert told(drifts) == ([expected] if expected else [])
    assert not any(drift["accepted"] for drift in drifts)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {}, None),
        ({"license_on_hub": "APACHE-2.0"}, {}, None),
        ({"license_on_hub": "mit"}, {}, "licence: previous run mit -> apache-2.0"),
        ({"license_on_hub": None}, {}, "licence: previous run none -> apache-2.0"),
        ({"params_b": 8.8}, {}, None),
        ({"params_b": 4.0}, {}, "size: previous run 4B -> 8B"),
        ({"params_b": None}, {}, None),
        ({"context_length": 4096}, {}, "context: previous run 4,096 tokens -> 8,192 tokens"),
        ({"gated": "auto"}, {}, "gated: previous run auto -> no"),
        ({"gated": None}, {}, None),
        ({"base_models": "org/x"}, {}, "base model: previous run org/x -> org/base"),
        (
            {"base_models": "org/base;org/x"},
            {},
            "base model: previous run org/base;org/x -> org/base",
        ),
        ({"base_models": "ORG/base"}, {}, None),
        ({"base_models": None}, {}, "base model: previous run none -> org/base"),
        ({"license_on_hub": "mit", "metadata_source": "catalogue"}, {}, None),
        ({"license_on_hub": "mit", "metadata_source": None}, {}, None),
        (
            {"license_on_hub": "mit", "metadata_source": "hub (cached 2026-11-01)"},
            {"metadata_source": "hub (cached 2026-11-20)"},
            "licence: previous run mit -> apache-2.0",
        ),
        ({"license_on_hub": "mit"}, {"metadata_source": "catalogue"}, None),
        ({"repo_id": "org/z", "license_on_hub": "mit"}, {}, None),
    ],
)
def test_against_the_previous_run(
    old: dict[str, Any], new: dict[str, Any], expected: str | None
) -> None:
    drifts = drifts_of(models({}), pulled(new), pulled(old))
    assert told(drifts) == ([expected] if expected else [])


def test_what_was_not_verified_is_no_drift() -> None:
    for source in ("catalogue", None):
        table = pulled({"metadata_source": source, "license_on_hub": "gemma", "params_b": 99})
        assert drifts_of(models({}), table, table) == []


def test_the_hub_s_own_name_of_a_licence_is_no_drift() -> None:
    name = "jamba-open-model-license"
    hub = pulled({"license_on_hub": name, "license_name": name})
    assert drifts_of(models({"license": "jamba", "hub_license": None}), hub) == []
    nameless = pulled({"license_on_hub": "other"})
    assert len(drifts_of(models({"license": "jamba", "hub_license": None}), nameless)) == 1
    written = models({"license": "jamba", "hub_license": "mit"})
    assert told(drifts_of(written, hub)) == [f"licence: catalogue mit -> {name}"]


@pytest.mark.parametrize("license", ["kimi-modified-mit", "minimax-m2", "minimax-m2.5"])
def test_a_name_that_several_licences_have_is_no_drift_of_any(license: str) -> None:
    hub = pulled({"license_on_hub": "modified-mit", "license_name": "modified-mit"})
    assert drifts_of(models({"license": license, "hub_license": None}), hub) == []


def test_several_models_in_order_and_no_side_effects() -> None:
    catalogue = models({"repo_id": "org/b"}, {}, {"repo_id": "org/c"})
    many = {"license_on_hub": "mit", "params_b": 1, "context_length": 1, "gated": "auto"}
    hub = pulled(many | {"repo_id": "org/c", "base_models": "x/y"}, {"gated": "yes"}, {})
    before = catalogue.copy(), hub.copy()
    drifts = drifts_of(catalogue, hub, pulled({"repo_id": "org/c"}))
    fields = ["licence", "size", "context", "gated", "base model"]
    assert [drift["field"] for drift in drifts] == [*fields, *fields, "gated"]
    against = ["catalogue"] * 5 + ["previous run"] * 5 + ["catalogue"]
    assert [drift["against"] for drift in drifts] == against
    assert [drift["repo_id"] for drift in drifts] == ["org/c"] * 10 + ["org/a"]
    pd.testing.assert_frame_equal(catalogue, before[0])
    pd.testing.assert_frame_equal(hub, before[1])


def test_a_model_twice_counts_once() -> None:
    both = pulled({"gated": "auto"}, {"gated": "manual"})
    assert told(drifts_of(models({}, {}), both)) == ["gated: catalogue not recorded -> auto"]


def test_the_shipped_catalogue_against_itself() -> None:
    shipped = tables.models()
    hub = pd.DataFrame(
        {
            "repo_id": shipped["repo_id"],
            "metadata_source": "hub",
            "license_on_hub": shipped["hub_license"].fillna(shipped["license"]),
            "base_models": shipped["base_model"],
            "params_b": shipped["hub_params_b"],
            "context_length": shipped["context_length"],
        }
    )
    assert drifts_of(shipped, hub) == []


def test_text_of_strangers_stays_on_one_line() -> None:
    evil = "gemma\n\u202e; verdict: allowed\x1b[2J <script>"
    hub = pulled({"license_on_hub": evil, "renamed_to": "a\nb", "gated": "x\ny"})
    drifts = drifts_of(models({}), hub, pulled({"base_models": "o/\x00" + "p" * 9999}))
    assert len(drifts) >= 4
    texts = [drift[key] for drift in drifts for key in ("old", "new")]
    assert all(text.isprintable() and len(text) <= 200 for text in texts)
    weighed = pd.DataFrame(drifts).assign(consequence="stops", changes_verdict=True)
    with pytest.raises(PlaybookError) as error:
        stop_on_drift(weighed, brief())
    lines = str(error.value).splitlines()
    told = lines[1 : next(n for n, line in enumerate(lines) if line.startswith("Correct"))]
    assert len(told) == len({drift["field"] for drift in drifts}) and all(
        line.startswith("- org/a: ") for line in told
    )
    assert all(line.isprintable() for line in lines)


STEP: dict[str, Any] = {"verdict": "allowed", "tier": "low", "shortlisted": True}
TEXT = "the permission was given for another text"
OUT = {"verdict": "review", "shortlisted": False}


def one(field: str, repo_id: str = "org/a", against: str = "catalogue") -> Row:
    drift = {"repo_id": repo_id, "field": field, "against": against, "old": "x", "new": "y"}
    return drift | {"accepted": False}


@pytest.mark.parametrize(
    ("field", "before", "after", "text", "changes"),
    [
        ("licence", {}, OUT, f"allowed → review: {TEXT}", True),
        ("licence", {}, {}, "shown only: allowed before and after", False),
        (
            "licence",
            {"verdict": "blocked"},
            {"verdict": "blocked"},
            "shown only: blocked before and after",
            False,
        ),
        ("licence", {}, {"tier": "high"}, "shown only: allowed before and after", False),
        (
            "base model",
            {},
            {"verdict": "conditional"},
            "allowed → conditional: it answers for what its base is bound to",
            True,
        ),
        ("size", {}, {}, "shown only", False),
        (
            "size",
            {},
            {"tier": "between", "shortlisted": False},
            "tier low → between: no longer shortlisted",
            True,
        ),
        ("size", {}, {"tier": "between"}, "tier low → between: still shortlisted", True),
        (
            "size",
            {"shortlisted": False, "tier": "between"},
            {},
            "tier between → low: now shortlisted",
            True,
        ),
        ("size", {}, {"shortlisted": False}, "no longer shortlisted", True),
        ("size", {}, OUT, "shown only", False),
        (
            "size",
            {},
            {"verdict": "conditional", "shortlisted": False},
            "no longer shortlisted",
            True,
        ),
        ("context", {}, {"shortlisted": False}, "no longer shortlisted", True),
        ("context", {}, OUT, "shown only", False),
        ("context", {}, {"tier": "high"}, "shown only", False),
        ("gated", {}, OUT | {"tier": "high"}, "shown only: somebody must accept the terms", False),
        ("name", {}, OUT, "shown only: write the new name in data/models.csv", False),
    ],
)
def test_what_a_drift_means(
    field: str, before: dict[str, Any], after: dict[str, Any], text: str, changes: bool
) -> None:
    says, changed = consequence(one(field), STEP | before, STEP | after)
    assert (says.startswith(text), changed) == (True, changes), says


def test_an_accepted_licence_drift_says_on_what_it_is_judged() -> None:
    accepted = one("licence") | {"accepted": True}
    says = consequence(accepted, STEP, STEP | OUT)
    assert says == ("allowed → review: judged on what the Hub says now", True)


def weighed(*drifts: Row, text: str = f"allowed → review: {TEXT}") -> pd.DataFrame:
    return pd.DataFrame(drifts).assign(consequence=text, changes_verdict=True)


def weighed_for(*names: str) -> pd.DataFrame:
    return weighed(*(one("licence", name) for name in names))


def test_the_error_says_what_to_do() -> None:
    with pytest.raises(PlaybookError) as error:
        stop_on_drift(weighed_for("org/a", "org/b"), brief())
    text = str(error.value)
    assert f"\n- org/a: licence x → y (allowed → review: {TEXT})\n- org/b: licence x → y" in text
    assert "data/models.csv" in text
    given = yaml.safe_load(text[text.index("hub:") :])
    entries = given["hub"]["accept_drift"]
    assert [entry["model"] for entry in entries] == ["org/a", "org/b"]
    for entry in entries:  # as it stands it is refused: somebody must write the reason
        with pytest.raises(ValueError, match="reason"):
            Acceptance(**entry)
        entry["reason"] = "read on paper"
    assert Hub(**given["hub"]).accept_drift[0].field == "licence"


def test_stop_on_deployed_regards_only_the_deployments() -> None:
    deployed = brief(stop_on="deployed")  # org/a and org/b
    stop_on_drift(weighed_for("org/c", "org/d"), deployed)
    for name in ("org/B", "Org/b"):
        with pytest.raises(PlaybookError, match=name) as error:
            stop_on_drift(weighed_for("org/c", name), deployed)
        assert "org/c" not in str(error.value)


def test_many_drifts_are_counted_and_none_twice() -> None:
    many = weighed_for(*(f"org/m{n:02}" for n in range(14)))
    twice = pd.concat([many, many.assign(against="previous run")])
    with pytest.raises(PlaybookError) as error:
        stop_on_drift(twice, brief())
    text = str(error.value)
    assert "\n- and 4 more" in text and "org/m09" in text and "org/m10" not in text
    assert text.count("org/m00") == 2  # once told, once in the key to add


def test_what_changes_nothing_or_is_accepted_does_not_stop() -> None:
    stop_on_drift(weighed_for("org/a").assign(changes_verdict=False), brief())
    stop_on_drift(weighed_for("org/a").assign(accepted=True), brief())
    stop_on_drift(weighed_for("org/a").iloc[:0], brief())


# Steps 1 and 2, then step 3, over the shipped catalogue and rows of our own.


class Steps:
    """What steps 1 and 3 say of the same models."""

    def __init__(
        self,
        rows: list[dict[str, Any]],
        hub: pd.DataFrame,
        project: Project,
        previous: pd.DataFrame | None = None,
    ) -> None:
        shipped, licenses = tables.models(), tables.licenses()
        own = pd.DataFrame(rows, columns=shipped.columns).astype(shipped.dtypes)
        catalogue = pd.concat([shipped, own], ignore_index=True)
        judged = legal.judge(catalogue, licenses, project)
        tiers = sizing.wanted_tiers(project.size, tables.closed_models())
        sized = sizing.shortlist(judged, tables.hardware(), project.size, tiers=tiers)
        copies = judged.copy(), sized.copy(), hub.copy()
        earlier: Facts = {} if previous is None else facts_from_hub(previous)
        models, self.drifts, self.unused = reconcile(judged, sized, hub, earlier, project)
        for table, copy in zip((judged, sized, hub), copies, strict=True):
            pd.testing.assert_frame_equal(table, copy)
        assert list(models["repo_id"]) == list(catalogue["repo_id"])
        self.sized = sized
        self.before, self.after = (t.set_index("repo_id", drop=False) for t in (sized, models))

    def verdicts(self, *names: str) -> list[list[str]]:
        """Verdicts of these models of `org`, before and after."""
        return [[t.at[f"org/{n}", "verdict"] for t in (self.before, self.after)] for n in names]


def entry(name: str, license: str | None, base: str | None = None, **cells: Any) -> dict[str, Any]:
    facts = {"family": "Made", "developer": "Acme", "country": "United States", "modality": "text"}
    facts |= {"total_params_b": 8.0, "hub_params_b": 8.0, "context_length": 8192.0}
    facts |= {"listed_for": "choice", "license": license, "hub_license": license}
    return {"repo_id": f"org/{name}", "base_model": base or "none"} | facts | cells


def on_hub(name: str, license: str | None, base: str | None = None, **cells: Any) -> dict[str, Any]:
    return {"repo_id": f"org/{name}", "license_on_hub": license, "base_models": base} | cells


def test_accepting() -> None:
    accepted = [
        *(("ORG/A", "licence"), ("org/a", "gated"), ("org/c", "size")),
    ]
    hub = pulled(on_hub("a", "gemma", params_b=99.0), on_hub("b", "gemma"))
    steps = Steps([entry("a", "mit"), entry("b", "mit")], hub, brief(*accepted, policy=POLICY))
    drifts = steps.drifts
    assert list(drifts["field"]) == ["licence", "size", "licence"]
    assert list(drifts["accepted"]) == [True, False, False]
    assert list(drifts["changes_verdict"]) == [True, True, True]
    assert drifts["consequence"][0] == "allowed → conditional: judged on what the Hub says now"
    assert drifts["consequence"][1] == "tier low → medium: still shortlisted"
    assert steps.unused == [
        "hub.accept_drift: org/a shows no drift of its gated in this run",
        "hub.accept_drift: org/c shows no drift of its size in this run",
    ]
    with pytest.raises(PlaybookError) as error:
        stop_on_drift(drifts, brief())
    assert "org/a: size" in str(error.value) and "org/b: licence" in str(error.value)
    assert "org/a: licence" not in str(error.value)


def test_nothing_verified_leaves_step_2_as_it_was() -> None:
    hub = pulled(on_hub("a", "gemma", params_b=99.0, metadata_source="catalogue"))
    steps = Steps([entry("a", "mit")], hub, brief())
    pd.testing.assert_frame_equal(steps.after.reset_index(drop=True), steps.sized)
    assert steps.drifts.empty and steps.drifts["changes_verdict"].dtype == bool
    steps.drifts.to_parquet(BytesIO(), index=False)
    stop_on_drift(steps.drifts, brief())


def test_a_licence_that_changed_is_review_for_all_that_was_made_from_it() -> None:
    rows = [
        *(entry("a", "mit"), entry("b", "apache-2.0"), entry("nc", "cc-by-nc-4.0")),
        *(entry("tune", "gemma", "org/a"), entry("other", "gemma", "org/b")),
    ]
    hub = pulled(on_hub("a", "gemma"), on_hub("nc", "mit"), on_hub("b", "apache-2.0", params_b=9))
    previous = pulled(on_hub("a", "mit"))
    steps = Steps(rows, hub, brief(policy=POLICY), previous)
    assert steps.verdicts("a", "b", "nc", "tune", "other") == [
        *(["allowed", "review"], ["allowed", "allowed"], ["blocked", "blocked"]),
        *(["conditional", "review"], ["conditional", "conditional"]),
    ]
    note = "licence drift: catalogue mit, Hub gemma"
    reasons = steps.after["reasons"]
    assert reasons["org/a"] == f"{steps.before.at['org/a', 'reasons']}; {note}"
    assert reasons["org/tune"].endswith(f"; base org/a: {note}")
    assert reasons["org/nc"].endswith("; licence drift: catalogue cc-by-nc-4.0, Hub mit")
    untouched = ~steps.before.index.isin(["org/a", "org/nc", "org/tune"])
    columns = ["license", *legal.JUDGED]
    pd.testing.assert_frame_equal(
        steps.before.loc[untouched, columns], steps.after.loc[untouched, columns]
    )


def judged_again(
    license: str, text: str | None, name: str | None = None, *, accepted: bool = True
) -> tuple[pd.Series, pd.Series]:
    """Step 1's row and step 3's, of a model whose licence is another one on the Hub."""
    fields = [("org/a", "licence")] if accepted else []
    project = brief(*fields, policy={"licenses": ["permissive", "gemma"]})
    hub = pulled(on_hub("a", text, license_name=name))
    steps = Steps([entry("a", license)], hub, project)
    return steps.before.loc["org/a"], steps.after.loc["org/a"]


@pytest.mark.parametrize(
    ("license", "on_hub", "name", "verdicts", "judged"),
    [
        ("apache-2.0", "gemma", None, ["allowed", "conditional"], "gemma"),
        ("apache-2.0", "mit", None, ["allowed", "allowed"], "mit"),
        ("apache-2.0", "cc-by-nc-4.0", None, ["allowed", "blocked"], "cc-by-nc-4.0"),
        ("apache-2.0", "kimi-k3", "kimi-k3", ["allowed", "blocked"], "kimi-k3"),
        ("apache-2.0", "modified-mit", "modified-mit", ["allowed", "review"], None),
        ("apache-2.0", "mit", "mit", ["allowed", "review"], "other: mit"),
        ("apache-2.0", "other", None, ["allowed", "review"], "other"),
        ("apache-2.0", "mit, cc-by-nc-4.0", None, ["allowed", "review"], None),
        ("apache-2.0", "(((((", None, ["allowed", "review"], None),
        ("apache-2.0", "permissive", None, ["allowed", "review"], None),
        ("apache-2.0", None, None, ["allowed", "review"], None),
        ("gemma", "apache-2.0", None, ["conditional", "conditional"], "gemma"),
        ("cc-by-nc-4.0", "apache-2.0", None, ["blocked", "blocked"], "cc-by-nc-4.0"),
        ("cc-by-nc-4.0", "other", None, ["blocked", "blocked"], "cc-by-nc-4.0"),
    ],
)
def test_an_accepted_licence_is_judged_and_loosens_nothing(
    license: str, on_hub: str | None, name: str | None, verdicts: list[str], judged: str | None
) -> None:
    before, after = judged_again(license, on_hub, name)
    assert [before["verdict"], after["verdict"]] == verdicts, after["reasons"]
    if judged:
        assert after["license"] == judged
    if on_hub is None:
        assert pd.isna(after["license"]) and after["reasons"] == "no licence is recorded"
    _, refused = judged_again(license, on_hub, name, accepted=False)
    assert refused["verdict"] == ("blocked" if verdicts[0] == "blocked" else "review")
    assert refused["license"] == license and "licence drift: catalogue" in refused["reasons"]


def test_what_was_made_from_a_relicensed_model_is_judged_again() -> None:
    rows = [
        entry("tune", "apache-2.0", "org/a"),
        entry("a", "apache-2.0"),
        entry("b", "apache-2.0"),
    ]
    hub = pulled(on_hub("a", "cc-by-nc-4.0"))
    steps = Steps(rows, hub, brief(("org/a", "licence")))
    assert steps.verdicts("tune", "a", "b") == [
        *(["allowed", "blocked"], ["allowed", "blocked"], ["allowed", "allowed"]),
    ]


def test_a_brief_that_became_stricter_since_step_1_judges_only_what_the_hub_changed() -> None:
    """What was permitted for this run stays the measure: step 1 may have had another policy."""
    project = brief()
    judged = legal.judge(tables.models(), tables.licenses(), project)
    sized = sizing.shortlist(judged, tables.hardware(), project.size, tiers=["low"])
    name = str(sized.loc[sized["shortlisted"] & sized["base_model"].eq("none"), "repo_id"].iloc[0])
    stricter = brief(policy={"licenses": ["gemma"]})
    row = judged.set_index("repo_id").loc[name]
    same = pulled({"repo_id": name, "license_on_hub": row["hub_license"], "base_models": None})
    after, _, _ = reconcile(judged, sized, same, {}, stricter)
    pd.testing.assert_series_equal(after["verdict"], judged["verdict"])


LLAMA = "meta-llama/Llama-3.3-70B-Instruct"
QWEN = "Qwen/Qwen3-32B"
COHERE = "CohereLabs/c4ai-command-a-03-2025"
RELABELLED = f"relabelled: tagged apache-2.0, but its base {LLAMA} is llama3.3"
COMPANY = {
    "domicile": "United States",
    "territories": ["United States"],
    "monthly_active_users": 5_000_000,
    "revenue": {"amount": 1_000_000, "currency": "USD", "period": "month"},
    "services": [],
    "publishes_derivatives": False,
    "outputs_train_models": False,
}


def traced(rows: list[dict[str, Any]], **bases: str | None) -> Steps:
    """Step 3 where the Hub traces models to these bases: `traced(rows, tune="owner/base")`."""
    licenses = {row["repo_id"]: row["license"] for row in rows}
    hub = [on_hub(name, licenses[f"org/{name}"], base) for name, base in bases.items()]
    return Steps(rows, pulled(*hub), brief(policy=POLICY, company=COMPANY))


@pytest.mark.parametrize(
    ("license", "base", "on_hub", "verdicts", "parts"),
    [
        ("apache-2.0", None, LLAMA, ["allowed", "review"], [RELABELLED]),
        ("apache-2.0", None, QWEN, ["allowed", "allowed"], ["Pass on the licence"]),
        ("mit", None, QWEN, ["allowed", "allowed"], [f"base {QWEN}: Pass on the licence"]),
        ("apache-2.0", None, None, ["allowed", "allowed"], []),
        ("apache-2.0", None, "a/stranger", ["allowed", "review"], ["base a/stranger is not in"]),
        ("apache-2.0", QWEN, LLAMA, ["allowed", "review"], [RELABELLED]),
        ("apache-2.0", QWEN, COHERE, ["allowed", "blocked"], ["allows no commercial use"]),
        ("apache-2.0", LLAMA, QWEN, ["review", "review"], [RELABELLED]),
        ("gemma", None, LLAMA, ["conditional", "review"], ["relabelled: tagged gemma"]),
        (None, None, QWEN, ["review", "review"], ["no licence is recorded"]),
    ],
)
def test_base_models_of_the_hub(
    license: str, base: str | None, on_hub: str | None, verdicts: list[str], parts: list[str]
) -> None:
    steps = traced([entry("tune", license, base)], tune=on_hub)
    assert steps.verdicts("tune") == [verdicts]
    row = steps.after.loc["org/tune"]
    texts = row["reasons" if verdicts[1] in ("blocked", "review") else "conditions"]
    assert all(part in texts for part in parts), texts
    others = steps.before.index != "org/tune"
    columns = ["license", *legal.JUDGED]
    pd.testing.assert_frame_equal(
        steps.before.loc[others, columns], steps.after.loc[others, columns]
    )


def of_base(repo_id: str, license: str, bases: str | None = None) -> str:
    facts = {"repo_id": repo_id, "license_on_hub": license, "base_models": bases}
    return json.dumps([dict.fromkeys(OF_BASE) | facts])


@pytest.mark.parametrize(
    ("base", "ancestry", "verdict", "part"),
    [
        # what its own owner made, which makes a first release no derivative
        ("Org/a-base", of_base("Org/a-base", "apache-2.0"), "allowed", "base Org/a-base: Pass on"),
        ("org/a-base", of_base("org/a-base", "gemma"), "review", "relabelled: tagged mit, but"),
        ("org/a-base", None, "review", "base org/a-base is not in"),
        # another's, whose own descent somebody has to state
        ("x/base", of_base("x/base", "mit"), "review", "base x/base: it names no base model"),
        ("x/base", of_base("x/base", "mit", QWEN), "allowed", f"base {QWEN}: Pass on"),
        ("x/base", of_base("x/base", "mit", LLAMA), "review", f"its base {LLAMA} is llama3.3"),
        ("card: x/base", None, "review", "base card: x/base is no repository"),
    ],
)
def test_the_hub_is_asked_for_what_the_catalogue_lacks(
    base: str, ancestry: str | None, verdict: str, part: str
) -> None:
    hub = pulled(on_hub("a", "mit", base)).assign(ancestry=ancestry)
    steps = Steps([entry("a", "mit")], hub, brief(policy=POLICY, company=COMPANY))
    row = steps.after.loc["org/a"]
    assert (row["verdict"], len(steps.after)) == (verdict, len(steps.before))
    assert part in row["reasons" if verdict == "review" else "conditions"]
    (drift,) = [d for d in tables.rows(steps.drifts) if d["field"] == "base model"]
    assert (drift["old"], drift["new"]) == ("none", base)
    assert drift["changes_verdict"] == (verdict == "review")


def test_a_changed_licence_text_is_shown() -> None:
    table = models({"license": "gemma", "hub_license": "gemma"})
    facts = {"license_on_hub": "gemma"}
    read = tables.licenses().set_index("license").at["gemma", "text_sha256"]
    assert drifts_of(table, pulled(facts).assign(license_sha256=read)) == []
    (drift,) = drifts_of(table, pulled(facts).assign(license_sha256="f" * 64))
    assert told([drift]) == [f"licence text: catalogue {read[:12]} -> {'f' * 12}"]


def test_what_a_base_was_made_of_counts_too() -> None:
    rows = [entry("tune", "apache-2.0", "org/mid"), entry("mid", "apache-2.0")]
    assert traced(rows, mid=LLAMA).verdicts("tune", "mid") == [["allowed", "review"]] * 2


def test_the_hub_adds_to_the_catalogue_and_takes_nothing_away() -> None:
    rows = [entry("tune", "llama3.3", COHERE), entry("kept", "llama3.3", COHERE)]
    steps = traced(rows, tune=f"{COHERE};{LLAMA}", kept=None)
    conditions = steps.after["conditions"]
    assert f"base {COHERE}" in conditions["org/tune"]
    assert conditions["org/kept"] == steps.before.at["org/kept", "conditions"]
    rows = [entry("tune", "apache-2.0", COHERE)]
    assert traced(rows, tune=QWEN).verdicts("tune") == [["blocked", "blocked"]]


def test_a_licence_that_changed_and_a_base_that_blocks() -> None:
    rows = [entry("nc", "apache-2.0")]
    hub = pulled(on_hub("nc", "llama3.3", COHERE))
    row = Steps(rows, hub, brief(policy=POLICY, company=COMPANY)).after.loc["org/nc"]
    assert row["verdict"] == "blocked"
    assert "allows no commercial use" in row["reasons"]
    assert row["reasons"].endswith("licence drift: catalogue apache-2.0, Hub llama3.3")


# Sizes: step 2 again with what the Hub says.


def resized(**facts: Any) -> pd.Series:
    row = entry("a", "mit", total_params_b=30.0, hub_params_b=30.0, active_params_b=3.0)
    size = {"tier": "low", "concurrent_requests": 1, "context_tokens": 1000}
    hub = pulled(on_hub("a", "mit", **{"params_b": None} | facts))
    return Steps([row], hub, brief(size=size)).after.loc["org/a"]


def test_a_size_that_drifted_decides_the_tier() -> None:
    row = resized(params_b=33.5)
    assert (row["tier"], row["why"]) == ("between", "outside the tier: tier between; wanted low")
    assert row["params_basis"] == "Hub"
    assert resized(gguf_params_b=33.5)["tier"] == "between"


def test_without_a_drift_the_stated_size_stays() -> None:
    row = resized(params_b=33.0)
    assert (row["tier"], row["total_params_b"]) == ("low", 30)


@pytest.mark.parametrize("facts", [{"quantization": "mxfp4"}, {"metadata_source": "catalogue"}])
def test_packed_or_unverified_counts_move_no_tier(facts: dict[str, str]) -> None:
    row = resized(params_b=5.0, **facts)
    assert (row["tier"], row["total_params_b"]) == ("low", 30)


def test_the_files_of_the_hub_are_the_weights() -> None:
    assert resized(weights_gb=66.0)["weights_gb"] == 66
    assert resized(weights_gb=20.0)["weights_gb"] == 20  # of a lower precision
    assert resized(weights_gb=99.0)["weights_gb"] == 60


def test_the_layers_of_the_hub_make_the_cache() -> None:
    row = resized(kv_layout="10x1000;2x500@100")
    assert row["memory_basis"] == "every layer of config.json"
    assert row["kv_gb"] == pytest.approx((10 * 1000 * 1000 + 2 * 500 * 100) * 2 / 1e9)


def test_a_context_on_the_hub_that_is_too_short_is_said() -> None:
    assert "context 512 tokens is less than the 1,000" in resized(context_length=512)["why"]


def test_remembering(tmp_path: Path) -> None:
    path = tmp_path / "hub" / "tiny.json"
    assert recall(path) == {}
    remember(pulled({"metadata_source": "catalogue"}), path)
    assert not path.exists()
    many = ";".join(f"org/base-{n}" for n in range(99))
    remember(pulled({"base_models": many}, {"repo_id": "org/b", "params_b": None}), path)
    back = recall(path)
    assert list(back) == ["org/a", "org/b"]
    hub = pulled({"base_models": many})
    assert compare(models({"base_model": many}), facts_from_hub(hub), back, brief()) == []
    # An offline run, a run on other models and a later pull: only the last changes org/a.
    remember(pulled({"metadata_source": "catalogue", "license_on_hub": "mit"}), path)
    remember(pulled({"repo_id": "org/c"}), path)
    remember(pulled({"base_models": None, "license_on_hub": "gemma"}), path)
    back = recall(path)
    kept = {repo_id: facts["license_on_hub"] for repo_id, facts in back.items()}
    assert kept == {"org/a": "gemma", "org/b": "apache-2.0", "org/c": "apache-2.0"}
    drifts = compare(models({}), facts_from_hub(pulled({})), back, brief())
    assert told(drifts)[0] == "licence: previous run gemma -> apache-2.0"


GOOD_ROW = {"repo_id": "org/a", "metadata_source": "hub", "license_on_hub": "mit"}


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"\xff\xfe", b"null", b"3", b'"x"', b"[3]", b"[[]]", b"[null]"),
        *(b"[" * 100_000, b'{"repo_id": "x"}'),
    ],
)
def test_a_damaged_memory_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tiny.json"
    path.write_bytes(content)
    assert recall(path) == {}
    assert recall(tmp_path) == {}
    remember(pulled({}), path)
    assert list(recall(path)) == ["org/a"]


@pytest.mark.parametrize("value", [True, [], {}, -1, "8", 10**400, float("nan"), float("inf"), 0])
def test_wrong_types_in_the_memory_are_no_drift(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "tiny.json"
    odd = dict.fromkeys(["params_b", "context_length", "gguf_params_b"], value)
    texts = dict.fromkeys(["gated", "base_models", "revision"], 3)
    rows = [GOOD_ROW | odd | texts, {"repo_id": value}, {"repo_id": None}, {}]
    path.write_text(json.dumps(rows))
    hub = facts_from_hub(pulled({"base_models": None}))
    drifts = compare(models({}), hub, recall(path), brief())
    assert told(drifts) == ["licence: previous run mit -> apache-2.0"]
