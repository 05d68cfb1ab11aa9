"""Models of one's own: rows of the brief beside the catalogue's, and models nobody knows."""

from __future__ import annotations

from typing import Any

import pytest
from briefs import changed

from lib import legal, sizing, tables
from lib.brief import Project
from lib.errors import PlaybookError
from lib.hub import search

BASE = "meta-llama/Llama-3.1-8B-Instruct"
OWN = {"repo_id": "acme/support-8b", "base_model": BASE, "country": "DE"}


def project(*models: dict[str, Any], deployed: str = "acme/support-8b", **more: Any) -> Project:
    raw = changed("models", list(models)) | more
    for deployment in raw["deployments"]:
        deployment["model"] = deployed
    return Project.model_validate(raw)


def row_of(brief: Project) -> dict[str, Any]:
    table, _ = search.candidates(brief)
    return tables.rows(table[table["repo_id"] == "acme/support-8b"])[0]


def test_a_fine_tune_has_what_its_base_has_and_says_who_attests_it() -> None:
    row = row_of(project(OWN))
    base = tables.rows(tables.models().query("repo_id == @BASE"))[0]
    for column in ("license", "total_params_b", "layers", "kv_heads", "head_dim", "family"):
        assert row[column] == base[column] is not None
    assert (row["country"], row["developer"]) == ("Germany", "acme")
    assert row["source"] == "attested in project.yaml"
    _, note = search.candidates(project(OWN))
    assert note.endswith(", and 1 attested in project.yaml")


def test_what_the_brief_says_is_more_than_what_the_base_has() -> None:
    row = row_of(project(OWN | {"license": "mit", "total_params_b": 9, "quantization": "fp8"}))
    assert (row["license"], row["total_params_b"], row["quantization"]) == ("mit", 9, "fp8")


def test_it_answers_for_the_terms_of_its_base() -> None:
    brief = project(OWN | {"license": "mit"}, policy={"licenses": ["permissive"]})
    table, _ = search.candidates(brief)
    judged = legal.judge(table, tables.licenses(), brief).set_index("repo_id")
    own = judged.loc["acme/support-8b"]
    assert own["verdict"] != "allowed" and BASE in own["reasons"] + own["conditions"]


def test_no_row_of_the_catalogue_is_overridden() -> None:
    for models in ([{"repo_id": BASE}], [OWN, OWN], [{"repo_id": BASE.upper()}]):
        with pytest.raises(PlaybookError, match=r"is in data/models.csv already, or here twice"):
            search.catalogue(project(*models))
    assert len(tables.models()) == len(search.catalogue(project(deployed=BASE)))


def test_a_model_that_nobody_knows_stops_step_1_with_the_line_to_add() -> None:
    with pytest.raises(PlaybookError, match="2 problems:\n- deployment 'a': neither") as caught:
        search.candidates(project(deployed="meta-llama/Llama-3.1-8B-Instruc"))
    assert f"did you mean {BASE!r} or " in str(caught.value)
    assert "models: [{repo_id: meta-llama/Llama-3.1-8B-Instruc, base" in str(caught.value)


def test_the_baseline_may_be_a_closed_model() -> None:
    closed: dict[str, Any] = {"name": "now", "model": "openai/gpt-5", "baseline": True}
    closed |= {"endpoint": {"recorded": "x.jsonl"}, "hardware": "cpu-1"}
    raw = changed("deployments.0", closed)
    raw["deployments"][1]["model"] = BASE
    assert search.unknown_models(Project.model_validate(raw), tables.models()) == []


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("repo_id", "no-owner", "repo_id"),
        ("country", "Atlantis", "Atlantis"),
        ("total_params_b", -1, "greater than 0"),
        ("parameters", 8, "Extra inputs"),
        ("kv_layout", "many", "pattern"),
        ("base_model", "Llama", "pattern"),
    ],
)
def test_a_row_is_held_to_the_columns_of_the_table(field: str, value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        project(OWN | {field: value})


def test_it_goes_through_step_2() -> None:
    brief = project(OWN, size={"tier": "high"})
    table, _ = search.candidates(brief)
    judged = legal.judge(table, tables.licenses(), brief).assign(verdict="allowed")
    sized = sizing.shortlist(
        judged, tables.hardware(), brief.size, tiers=["high"], deployments=brief.deployments
    ).set_index("repo_id")
    own = sized.loc["acme/support-8b"]
    assert own["shortlisted"] and own["why"] == "outside the tier: tier low; wanted high"
    # cpu-2 of deployment b holds 7.2 GB; deployment a is hosted by somebody else.
    assert own["too_small"].startswith("b: cpu-2 holds 7.2 GB, the model takes ")
