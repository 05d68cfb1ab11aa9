"""Drift: what the Hub says now against the catalogue and the last run, and what it changes."""

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
from lib.hub import drift
from lib.legal import verdicts as legal

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
    "context_length": 8192,
    "params_b": 8.0,
    "gguf_params_b": None,
    "renamed_to": None,
}
NUMBERS = {"context_length": "Int64", "params_b": "float", "gguf_params_b": "float"}
TYPES = dict.fromkeys(FACTS, "str") | NUMBERS


def models(*changes: dict[str, Any]) -> pd.DataFrame:
    floats = dict.fromkeys(["total_params_b", "hub_params_b", "context_length"], "float")
    types = dict.fromkeys(MODEL, "str") | floats
    return pd.DataFrame([MODEL | change for change in changes], columns=list(MODEL)).astype(types)


def pulled(*changes: dict[str, Any]) -> pd.DataFrame:
    """A pull, typed as `hub.pull` types it."""
    return pd.DataFrame([FACTS | change for change in changes], columns=list(FACTS)).astype(TYPES)


def told(found: pd.DataFrame) -> list[str]:
    return [f"{r.field}: {r.against} {r.old} -> {r.new}" for r in found.itertuples()]


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
        ({"base_models": "org/x;org/base"}, {"base_model": "org/base; org/y"}, None),
        ({"base_models": None}, {}, None),
        ({}, {"base_model": None}, None),
        ({"renamed_to": "org/b"}, {}, "name: catalogue org/a -> org/b"),
    ],
)
def test_against_the_catalogue(
    hub: dict[str, Any], catalogue: dict[str, Any], expected: str | None
) -> None:
    found = drift.found(models(catalogue), pulled(hub))
    assert told(found) == ([expected] if expected else [])
    assert list(found.columns) == ["repo_id", "field", "against", "old", "new"]


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
    found = drift.found(models({}), pulled(new), pulled(old))
    assert told(found) == ([expected] if expected else [])


def test_what_was_not_verified_is_no_drift() -> None:
    for source in ("catalogue", None):
        table = pulled({"metadata_source": source, "license_on_hub": "gemma", "params_b": 99})
        assert drift.found(models({}), table, table).empty


def test_the_hub_s_own_name_of_a_licence_is_no_drift() -> None:
    catalogue = models({"license": "jamba", "hub_license": None})
    name = "jamba-open-model-license"
    hub = pulled({"license_on_hub": name, "license_name": name})
    assert told(drift.found(catalogue, hub)) == [f"licence: catalogue jamba -> {name}"]
    assert drift.found(catalogue, hub, licenses=tables.licenses()).empty
    nameless = pulled({"license_on_hub": "other"})
    assert len(drift.found(catalogue, nameless, licenses=tables.licenses())) == 1
    written = models({"license": "jamba", "hub_license": "mit"})
    assert len(drift.found(written, hub, licenses=tables.licenses())) == 1


def test_several_models_in_order_and_no_side_effects() -> None:
    catalogue = models({"repo_id": "org/b"}, {}, {"repo_id": "org/c"})
    many = {"license_on_hub": "mit", "params_b": 1, "context_length": 1, "gated": "auto"}
    hub = pulled(many | {"repo_id": "org/c", "base_models": "x/y"}, {"gated": "yes"}, {})
    before = catalogue.copy(), hub.copy()
    found = drift.found(catalogue, hub, pulled({"repo_id": "org/c"}))
    fields = ["licence", "size", "context", "gated", "base model"]
    assert list(found["field"]) == [*fields, *fields, "gated"]
    assert list(found["against"]) == ["catalogue"] * 5 + ["previous run"] * 5 + ["catalogue"]
    assert list(found["repo_id"]) == ["org/c"] * 10 + ["org/a"]
    pd.testing.assert_frame_equal(catalogue, before[0])
    pd.testing.assert_frame_equal(hub, before[1])


def test_a_stranger_and_empty_frames() -> None:
    assert drift.found(models(), pulled({"license_on_hub": "mit"})).empty
    empty = drift.found(models().iloc[:0], pulled().iloc[:0], pulled().iloc[:0])
    weighed = drift.weigh(empty, steps({}), steps({}))
    assert weighed.empty and weighed["changes_verdict"].dtype == bool
    drift.stop(weighed, stop_on="shortlisted", deployed=[])
    assert drift.found(models({}), pulled({}).iloc[:0], pulled({})).empty
    buffer = BytesIO()
    weighed.to_parquet(buffer, index=False)


def test_text_of_strangers_stays_on_one_line() -> None:
    evil = "gemma\n\u202e; verdict: allowed\x1b[2J <script>"
    hub = pulled({"license_on_hub": evil, "renamed_to": "a\nb", "gated": "x\ny"})
    found = drift.found(models({}), hub, pulled({"base_models": "o/\x00" + "p" * 9999}))
    assert len(found) >= 4
    assert all(text.isprintable() and len(text) <= 200 for text in found[["old", "new"]].stack())
    weighed = drift.weigh(found, steps({}), steps({"verdict": "review"}))
    with pytest.raises(PlaybookError) as error:
        drift.stop(weighed, stop_on="shortlisted", deployed=[])
    assert str(error.value).isprintable()


STEP: dict[str, Any] = {
    "repo_id": "org/a",
    "verdict": "allowed",
    "tier": "low",
    "shortlisted": True,
}


def steps(*changes: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([STEP | change for change in changes], columns=list(STEP))


def one(field: str, repo_id: str = "org/a", against: str = "catalogue") -> dict[str, str]:
    return {"repo_id": repo_id, "field": field, "against": against, "old": "x", "new": "y"}


def accept(field: Any, model: str = "org/a") -> Acceptance:
    return Acceptance(model=model, field=field, reason="read on paper")


TEXT = "the permission was given for another text"
OUT = {"verdict": "review", "shortlisted": False}


@pytest.mark.parametrize(
    ("field", "before", "after", "consequence", "changes"),
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
        ("licence", {}, {"repo_id": "org/gone"}, f"allowed → not judged: {TEXT}", True),
        ("size", {}, {"repo_id": "org/gone"}, "tier low → unknown: no longer shortlisted", True),
        ("licence", {"repo_id": "org/z"}, {"repo_id": "org/z"}, "shown only", False),
    ],
)
def test_what_a_drift_means(
    field: str, before: dict[str, Any], after: dict[str, Any], consequence: str, changes: bool
) -> None:
    drifts = pd.DataFrame([one(field)], index=[5])
    row = drift.weigh(drifts, steps(before), steps(after)).loc[5]
    assert row["consequence"].startswith(consequence)
    assert (row["changes_verdict"], row["accepted"]) == (changes, False)


def test_columns_that_one_side_lacks_are_not_compared() -> None:
    drifts = pd.DataFrame([one("size"), one("licence")])
    legal_only = steps(OUT | {"tier": "high"})[["repo_id", "verdict"]]
    weighed = drift.weigh(drifts, steps({}), legal_only)
    assert list(weighed["changes_verdict"]) == [False, True]


def test_accepting() -> None:
    drifts = pd.DataFrame([one("licence"), one("size"), one("licence", "org/b")])
    after = steps(OUT | {"tier": "high"}, OUT | {"repo_id": "org/b"})
    before = steps({}, {"repo_id": "org/b"})
    accepted = [accept("licence", "ORG/A"), accept("gated"), accept("size", "org/c")]
    weighed = drift.weigh(drifts, before, after, accepted=accepted)
    assert list(weighed["accepted"]) == [True, False, False]
    assert list(weighed["changes_verdict"]) == [True, True, True]
    assert weighed["consequence"][0] == "allowed → review: judged on what the Hub says now"
    assert drift.unused(drifts, accepted) == [
        "hub.accept_drift: org/a shows no drift of its gated in this run",
        "hub.accept_drift: org/c shows no drift of its size in this run",
    ]
    with pytest.raises(PlaybookError) as error:
        drift.stop(weighed, stop_on="shortlisted", deployed=[])
    assert "org/a: size" in str(error.value) and "org/b: licence" in str(error.value)
    assert "org/a: licence" not in str(error.value)


def weighed_for(*names: str) -> pd.DataFrame:
    drifts = pd.DataFrame([one("licence", name) for name in names])
    before = steps(*({"repo_id": name} for name in names))
    return drift.weigh(drifts, before, before.assign(**OUT))


def test_the_error_says_what_to_do() -> None:
    with pytest.raises(PlaybookError) as error:
        drift.stop(weighed_for("org/a", "org/b"), stop_on="shortlisted", deployed=[])
    text = str(error.value)
    assert f"org/a: licence x → y (allowed → review: {TEXT}); org/b: licence x → y" in text
    assert "data/models.csv" in text
    given = yaml.safe_load(text[text.index("hub: ") :])
    entries = given["hub"]["accept_drift"]
    assert [entry["model"] for entry in entries] == ["org/a", "org/b"]
    for entry in entries:  # as it stands it is refused: somebody must write the reason
        with pytest.raises(ValueError, match="reason"):
            Acceptance(**entry)
        entry["reason"] = "read on paper"
    assert Hub(**given["hub"]).accept_drift[0].field == "licence"


def test_stop_on_deployed_regards_only_the_deployments() -> None:
    weighed = weighed_for("org/a", "org/b")
    drift.stop(weighed, stop_on="deployed", deployed=["org/c"])
    drift.stop(weighed, stop_on="deployed", deployed=[])
    for name in ("org/B", "Org/b"):
        weighed = weighed_for("org/a", name)
        with pytest.raises(PlaybookError, match=name) as error:
            drift.stop(weighed, stop_on="deployed", deployed=iter(["Org/B"]))
    assert "org/a" not in str(error.value)


def test_many_drifts_are_counted_and_none_twice() -> None:
    weighed = weighed_for(*(f"org/m{n:02}" for n in range(14)))
    twice = pd.concat([weighed, weighed.assign(against="previous run")])
    with pytest.raises(PlaybookError) as error:
        drift.stop(twice, stop_on="shortlisted", deployed=[])
    text = str(error.value)
    assert "; and 4 more" in text and "org/m09" in text and "org/m10" not in text
    assert text.count("org/m00") == 2  # once told, once in the key to add


def test_what_changes_nothing_does_not_stop() -> None:
    drifts = pd.DataFrame([one(f) for f in ("licence", "size", "context", "gated", "name")])
    drift.stop(drift.weigh(drifts, steps({}), steps({})), stop_on="shortlisted", deployed=[])


LEGAL = pd.DataFrame(
    {
        "repo_id": ["org/a", "org/b", "org/blocked", "org/tune"],
        "verdict": ["allowed", "allowed", "blocked", "conditional"],
        "reasons": ["on the list", "", "country", "duties"],
    }
)
NOTE = "licence drift: catalogue x, Hub y"


@pytest.mark.parametrize("blank", ["", None])
def test_relicense(blank: str | None) -> None:
    before = LEGAL.assign(reasons=["on the list", blank, blank, "duties"])
    kept = before.copy()
    drifts = pd.DataFrame(
        [
            *(one("licence"), one("licence", against="previous run"), one("size", "org/b")),
            *(one("licence", "org/blocked"), one("licence", "org/absent")),
        ]
    )
    after = drift.relicense(before, drifts)
    assert list(after["verdict"]) == ["review", "allowed", "blocked", "conditional"]
    assert after["reasons"][0] == f"on the list; {NOTE}" and after["reasons"][2] == NOTE
    pd.testing.assert_frame_equal(before, kept)
    pd.testing.assert_frame_equal(drift.relicense(before, drifts.iloc[:0]), before)
    assert drift.relicense(before.iloc[:0], drifts).empty


def test_relicense_takes_what_was_made_from_it_along() -> None:
    made = LEGAL.assign(base_model=[None, "org/a", None, "org/b;org/x"])
    after = drift.relicense(made, pd.DataFrame([one("licence")]))
    assert list(after["verdict"]) == ["review", "review", "blocked", "review"]
    assert after["reasons"][3] == f"duties; base org/a: {NOTE}"


def test_an_accepted_licence_is_left_to_rejudging() -> None:
    drifts = pd.DataFrame([one("licence"), one("licence", "org/b")])
    after = drift.relicense(LEGAL, drift.mark(drifts, [accept("licence")]))
    assert list(after["verdict"]) == ["allowed", "review", "blocked", "conditional"]


COUNSEL = {"licenses": ["permissive", "gemma"]}


def judged_again(
    license: str, on_hub: str | None, name: str | None = None, *, accepted: bool = True
) -> tuple[pd.Series, pd.Series]:
    """Step 1's row and step 3's, of a model whose licence is another one on the Hub."""
    project = Project(**BASE | {"policy": COUNSEL})
    texts, shipped = tables.licenses(), tables.models()
    row = shipped[shipped["base_model"].isna()].iloc[[0]]
    catalogue = row.assign(repo_id="org/a", license=license, hub_license=license)
    catalogue["country"] = "France"
    hub = pulled({"license_on_hub": on_hub, "license_name": name, "base_models": None})
    before = legal.judge(catalogue, texts, project)
    drifts = drift.found(before, hub, licenses=texts)
    marked = drift.mark(drifts, [accept("licence")] if accepted else [])
    now = drift.relicensed(marked, hub, texts)
    again = legal.rejudge(before, hub, texts, project, relicensed=now)
    after = drift.relicense(again, marked)
    assert list(after.columns) == list(before.columns)
    return before.iloc[0], after.iloc[0]


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
    project = Project(**BASE | {"policy": {"licenses": ["permissive"]}})
    texts = tables.licenses()
    catalogue = tables.models().iloc[[0, 0, 0]].reset_index(drop=True)
    catalogue["repo_id"] = ["org/tune", "org/a", "org/other"]
    catalogue["base_model"] = ["org/a", None, None]
    catalogue[["license", "hub_license"]] = "apache-2.0"
    before = legal.judge(catalogue, texts, project)
    hub = pulled({"base_models": None})
    now: dict[str, str | None] = {"org/a": "cc-by-nc-4.0"}
    after = legal.rejudge(before, hub, texts, project, relicensed=now)
    assert list(before["verdict"]) == ["allowed"] * 3
    assert list(after["verdict"]) == ["blocked", "blocked", "allowed"]
    plain = legal.rejudge(before, hub, texts, project)
    pd.testing.assert_frame_equal(plain, before)


def test_remembering(tmp_path: Path) -> None:
    path = tmp_path / "hub" / "tiny.json"
    assert drift.recall(path) is None
    drift.remember(pulled({"metadata_source": "catalogue"}), path)
    assert not path.exists()
    many = ";".join(f"org/base-{n}" for n in range(99))
    drift.remember(pulled({"base_models": many}, {"repo_id": "org/b", "params_b": None}), path)
    back = drift.recall(path)
    assert back is not None and list(back["repo_id"]) == ["org/a", "org/b"]
    assert drift.found(models({"base_model": None}), pulled({"base_models": many}), back).empty
    # An offline run, a run on other models and a later pull: only the last changes org/a.
    drift.remember(pulled({"metadata_source": "catalogue", "license_on_hub": "mit"}), path)
    drift.remember(pulled({"repo_id": "org/c"}), path)
    drift.remember(pulled({"base_models": None, "license_on_hub": "gemma"}), path)
    back = drift.recall(path)
    assert back is not None
    kept = back.set_index("repo_id")["license_on_hub"].to_dict()
    assert kept == {"org/a": "gemma", "org/b": "apache-2.0", "org/c": "apache-2.0"}
    found = drift.found(models({}), pulled({}), back)
    assert told(found)[0] == "licence: previous run gemma -> apache-2.0"


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
    assert drift.recall(path) is None
    assert drift.recall(tmp_path) is None
    drift.remember(pulled({}), path)
    assert drift.recall(path) is not None


@pytest.mark.parametrize("value", [True, [], {}, -1, "8", 10**400, float("nan"), float("inf"), 0])
def test_wrong_types_in_the_memory_are_no_drift(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "tiny.json"
    odd = dict.fromkeys(["params_b", "context_length", "gguf_params_b"], value)
    texts = dict.fromkeys(["gated", "base_models", "revision"], 3)
    rows = [GOOD_ROW | odd | texts, {"repo_id": value}, {"repo_id": None}, {}]
    path.write_text(json.dumps(rows))
    back = drift.recall(path)
    found = drift.found(models({}), pulled({"base_models": None}), back)
    assert told(found) == ["licence: previous run mit -> apache-2.0"]


def test_a_model_twice_counts_once() -> None:
    both = pulled({"gated": "auto"}, {"gated": "manual"})
    assert told(drift.found(models({}, {}), both)) == ["gated: catalogue not recorded -> auto"]


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
    assert drift.found(shipped, hub, licenses=tables.licenses()).empty
