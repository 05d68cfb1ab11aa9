"""The AI bill of materials: valid CycloneDX 1.7, figures with intervals, unknowns marked."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from tradeoff_rows import NAN, table

from lib.decide import bom

COMMIT, SHA256 = "0" * 39 + "a", "b" * 64
FACTS = {
    "repo_id": "org/a",
    "revision": COMMIT,
    "developer": "Org <script>",
    "license": "apache-2.0",
    "verdict": "conditional",
    "conditions": "Pass on the licence",
    "base_models": "base/one; base/two",
    "supply_verdict": "pass",
}
RECORD: dict[str, Any] = {
    "pick": {"deployment": "a", "model": "org/a"},
    "provisional": None,
    "brief": {"evaluation": {"items": "items.jsonl", "kind": "classification"}},
    "project": {"name": "reviews", "task": "Tell good from bad"},
    "created_at": "2026-11-26T19:32:00+00:00",
    "inputs": {"items.jsonl": SHA256},
    "weights": {"a": SHA256},
    "served_models": {"a": ["a-2026"]},
    "versions": {"pandas": "3.1.1"},
    "machine": "Linux, 2 cores",
    "unverified": ["The licence table is a reading aid."],
    "sentences": ["a is the right choice with a probability of 90%."],
}
SCORES = pd.DataFrame(
    [
        ("a", "accuracy", 0.9, 0.85, 0.94, ""),
        ("a", "accuracy", 0.8, 0.6, 0.9, "language=de"),
        ("a", "F1", 0.9, NAN, NAN, ""),
        ("b", "accuracy", 0.1, 0.0, 0.2, ""),
    ],
    columns=["deployment", "metric", "value", "low", "high", "slice"],
)


def bill(facts: dict[str, Any] | None = None, **record: Any) -> dict[str, Any]:
    metadata = pd.DataFrame([FACTS | (facts or {})])
    made = bom.bill_of_materials(RECORD | record, SCORES, metadata, table(a={}, b={}))
    assert faults(made) is None
    return made


def faults(made: dict[str, Any]) -> object:
    return JsonStrictValidator(SchemaVersion.V1_7).validate_str(json.dumps(made))


def properties(made: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in made["components"][0]["properties"]}


def test_the_model_at_its_revision_with_licence_weights_and_descent() -> None:
    model, items = bill()["components"]
    purl = PackageURL.from_string(model["purl"])
    assert (purl.type, purl.namespace, purl.name) == ("huggingface", "org", "a")
    assert purl.version == model["version"] == COMMIT
    assert model["licenses"] == [{"expression": "Apache-2.0"}]
    assert model["hashes"] == [{"alg": "SHA-256", "content": SHA256}] == items["hashes"]
    bases = [base["purl"] for base in model["pedigree"]["ancestors"]]
    assert bases == ["pkg:huggingface/base/one", "pkg:huggingface/base/two"]
    assert model["modelCard"]["modelParameters"]["datasets"] == [{"ref": items["bom-ref"]}]


def test_figures_have_their_intervals_and_slices() -> None:
    card = bill()["components"][0]["modelCard"]
    metrics = card["quantitativeAnalysis"]["performanceMetrics"]
    assert metrics[:3] == [
        {
            "type": "accuracy",
            "value": "0.9",
            "slice": "all",
            "confidenceInterval": {"lowerBound": "0.85", "upperBound": "0.94"},
        },
        {
            "type": "accuracy",
            "value": "0.8",
            "slice": "language=de",
            "confidenceInterval": {"lowerBound": "0.6", "upperBound": "0.9"},
        },
        {"type": "F1", "value": "0.9", "slice": "all"},
    ]
    assert {"max_rps", "usd_per_1k"} <= {metric["type"] for metric in metrics}
    assert "nan" not in json.dumps(metrics).lower()


def test_what_is_not_known_is_said() -> None:
    unknown = {"revision": None, "base_models": None, "license": "gemma", "developer": None}
    made = bill(unknown, weights={}, served_models={}, inputs={})
    model = made["components"][0]
    assert model["licenses"] == [{"license": {"name": "gemma"}}]
    assert model["purl"] == "pkg:huggingface/org/a"
    assert not {"version", "hashes", "pedigree", "supplier"} & model.keys()
    said = properties(made)
    for element in ("models/version", "models/hash-value", "models/ancestors", "metadata/author"):
        assert said[f"g7:{element}"] == "unknown"
    clusters = {name.partition(":")[2].partition("/")[0] for name in said if name[:3] == "g7:"}
    assert clusters == {
        "metadata", "system", "models", "datasets", "infrastructure", "security", "kpi",
    }  # fmt: skip


@pytest.mark.parametrize("cell", ["none", "None"])
def test_a_first_release_has_no_ancestors_which_is_known(cell: str) -> None:
    made = bill({"base_models": cell})
    assert "pedigree" not in made["components"][0]
    assert properties(made)["g7:models/ancestors"] == "none"


def test_a_provisional_choice_is_marked_and_no_choice_is_no_component() -> None:
    choice = RECORD["pick"]
    assert properties(bill())["playbook:standing"] == "picked"
    assert properties(bill(pick=None, provisional=choice))["playbook:standing"] == "provisional"
    assert "components" not in bill(pick=None)


def test_the_validator_refuses_what_is_not_in_the_standard() -> None:
    assert faults(bill() | {"unheard_of": 1}) is not None
