"""The AI bill of materials of what was picked: CycloneDX 1.7, with unknowns marked as such."""

import math
import uuid
from contextlib import suppress

import license_expression as spdx
import pandas as pd

from lib.legal import base_names
from lib.tables import Row, rows

BOM, UNKNOWN = "06_bom.json", "unknown"
FIGURES = {  # of a deployment: column, and the stem of its bounds
    "max_rps": "rps",
    "p95_s": "p95",
    "usd_per_1k": "usd_per_1k",
    "usd_per_month": "usd_per_month",
}


def bill_of_materials(
    record: Row, scores: pd.DataFrame, metadata: pd.DataFrame, table: pd.DataFrame
) -> Row:
    """The model that was picked, or the provisional one, with its figures and its descent.

    Without either there is no component. `table` is `qualify`'s. Hashes and revisions are those
    of the record.
    """
    choice = record["pick"] or record["provisional"]
    evaluation, made_at = record["brief"]["evaluation"], record["created_at"]
    system: Row = {"type": "application", "bom-ref": "system", "name": record["project"]["name"]}
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"{system['name']} {made_at}").urn,
        "version": 1,
        "metadata": {
            "timestamp": made_at,
            "tools": {"components": [{"type": "application", "name": "model-selection-playbook"}]},
            "component": system | {"description": record["project"]["task"]},
        },
    }
    if not choice:
        return bill
    facts = rows(metadata[metadata["repo_id"] == choice["model"]])[0]
    figures = rows(table[table["deployment"] == choice["deployment"]])[0]
    model = _model(facts, record["weights"].get(choice["deployment"], ""))
    metrics = [
        _metric(row["metric"], [row["value"], row["low"], row["high"]], row["slice"])
        for row in rows(scores[scores["deployment"] == choice["deployment"]])
    ]
    metrics += [
        _metric(name, [figures[c] for c in (name, f"{stem}_low", f"{stem}_high")])
        for name, stem in FIGURES.items()
    ]
    # The items that were asked: they say what the figures stand for, and trained nothing.
    sha256 = record["inputs"].get(evaluation["items"], "")
    items: Row = {"type": "data", "bom-ref": "items", "name": str(evaluation["items"] or UNKNOWN)}
    items |= {"data": [{"type": "dataset", "description": "evaluated on these, not trained"}]}
    model["modelCard"] = {
        "modelParameters": {"task": evaluation["kind"], "datasets": [{"ref": "items"}]},
        "quantitativeAnalysis": {"performanceMetrics": [m for m in metrics if m]},
        "considerations": {
            "useCases": [record["project"]["task"]],
            "technicalLimitations": record["unverified"],
            "performanceTradeoffs": record["sentences"],
        },
    }
    known = {
        "playbook:deployment": choice["deployment"],
        "playbook:standing": "picked" if record["pick"] else "provisional",
        "playbook:licence-verdict": facts["verdict"],
        "playbook:licence-conditions": facts["conditions"],
        "playbook:served-as": ", ".join(record["served_models"].get(choice["deployment"], [])),
    } | _minimum_elements(record, facts, figures)
    model["properties"] = [{"name": k, "value": str(v or UNKNOWN)} for k, v in known.items()]
    parts = [model["bom-ref"], "items"]
    return bill | {
        "components": [model, items | _hashes(sha256)],
        "dependencies": [{"ref": "system", "dependsOn": parts}, *({"ref": ref} for ref in parts)],
    }


def _hashes(sha256: str) -> Row:
    return {"hashes": [{"alg": "SHA-256", "content": sha256}]} if sha256 else {}


def _model(facts: Row, sha256: str) -> Row:
    """The component of a repository, with its licence and those that it was made from."""
    component = _named(facts["repo_id"], facts["revision"])
    component["externalReferences"] = [
        {"type": "distribution", "url": f"https://huggingface.co/{facts['repo_id']}"}
    ]
    if facts["developer"]:
        component["supplier"] = {"name": facts["developer"]}
    if license_ := facts["license"]:
        component["licenses"] = [{"license": {"name": license_}}]
        with suppress(spdx.ExpressionError):  # a licence of its own has no name there
            expression = spdx.get_spdx_licensing().parse(license_, validate=True)
            component["licenses"] = [{"expression": str(expression)}]
    if names := base_names(facts["base_models"]):
        component["pedigree"] = {"ancestors": [_named(name, None) for name in names]}
    return component | _hashes(sha256)


def _named(repo_id: str, revision: str | None) -> Row:
    group, _, name = repo_id.rpartition("/")
    version = {"version": revision} if revision else {}
    purl = f"pkg:huggingface/{repo_id}" + (f"@{revision}" if revision else "")
    head = {"type": "machine-learning-model", "bom-ref": purl, "group": group, "name": name}
    return head | version | {"purl": purl}


def _metric(name: str, interval: list[float | None], part: str = "") -> Row:
    """A figure with the bounds it has; empty without a figure."""
    value, *ends = (math.nan if end is None else float(end) for end in interval)
    bounds = zip(("lowerBound", "upperBound"), ends, strict=True)
    known = {end: f"{bound:.6g}" for end, bound in bounds if math.isfinite(bound)}
    metric: Row = {"type": name, "value": f"{value:.6g}", "slice": part or "all"}
    metric |= {"confidenceInterval": known} if known else {}
    return metric if math.isfinite(value) else {}


def _minimum_elements(record: Row, facts: Row, figures: Row) -> Row:
    """What the G7's minimum elements (2026) ask for and CycloneDX has no field of; None unknown."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    none = facts["base_models"] is not None and not base_names(facts["base_models"])
    return {
        "g7:metadata/author": None,
        "g7:metadata/signature": "detached, of 06_decision.json, which holds this file's SHA-256",
        "g7:system/producer": None,
        "g7:system/data-flow": None,
        "g7:system/input-output": None,
        "g7:models/version": facts["revision"],
        "g7:models/ancestors": "none" if none else facts["base_models"],
        "g7:models/hash-value": record["weights"].get(figures["deployment"]),
        "g7:models/architecture": None,
        "g7:models/training-properties": None,
        "g7:datasets/training-data": None,
        "g7:datasets/license": None,
        "g7:datasets/sensitivity": None,
        "g7:datasets/provenance": None,
        "g7:infrastructure/hardware": figures["hardware"],
        "g7:infrastructure/software": f"{versions}; {record['machine']}",
        "g7:security/supply-chain": facts["supply_verdict"],
        "g7:security/controls": None,
        "g7:security/exploitability": None,
        "g7:kpi/operational": "modelCard.quantitativeAnalysis",
        "g7:kpi/security": None,
    }
