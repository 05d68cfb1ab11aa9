"""The AI bill of materials of what was picked: CycloneDX 1.7, with unknowns marked as such."""

import math
import uuid
from contextlib import suppress

import license_expression as spdx
import pandas as pd

from lib.legal import base_names
from lib.tables import Row, rows

BOM, UNKNOWN = "06_bom.json", "unknown"
FIGURES = {"max_rps": "rps", "p95_s": "p95", "usd_per_1k": "usd_per_1k"}  # and their bounds' stem
# Minimum elements of the G7's "SBOM for AI" (2026) that nothing in a run tells.
UNKNOWN_ELEMENTS = """metadata/author system/producer system/data-flow system/input-output
    models/architecture models/training-properties datasets/training-data datasets/license
    datasets/sensitivity datasets/provenance security/controls security/exploitability
    kpi/security""".split()


def bill_of_materials(
    record: Row, scores: pd.DataFrame, metadata: pd.DataFrame, table: pd.DataFrame
) -> Row:
    """The model that was picked, or the provisional one, with its figures and its descent.

    Without either there is no component. `table` is `qualify`'s.
    """
    project, made_at = record["project"], record["created_at"]
    system = {"type": "application", "bom-ref": "system", "name": project["name"]}
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"{project['name']} {made_at}").urn,
        "version": 1,
        "metadata": {
            "timestamp": made_at,
            "tools": {"components": [{"type": "application", "name": "model-selection-playbook"}]},
            "component": system | {"description": project["task"]},
        },
    }
    if not (choice := record["pick"] or record["provisional"]):
        return bill
    # The model, its weights where we served them, and its card.
    facts = rows(metadata[metadata["repo_id"] == choice["model"]])[0]
    figures = rows(table[table["deployment"] == choice["deployment"]])[0]
    model = _component(facts["repo_id"], facts["revision"]) | _terms(facts)
    model |= _hashes(record["weights"].get(choice["deployment"]))
    of_choice = rows(scores[scores["deployment"] == choice["deployment"]])
    model["modelCard"] = _card(record, of_choice, figures)
    elements = _elements(record, facts, figures).items()
    model["properties"] = [{"name": name, "value": str(v or UNKNOWN)} for name, v in elements]
    # The items that were asked: they say what the figures stand for, and trained nothing.
    items_file = record["brief"]["evaluation"]["items"]
    items = {"type": "data", "bom-ref": "items", "name": items_file or UNKNOWN}
    items |= _hashes(record["inputs"].get(items_file))
    refs = [model["bom-ref"], "items"]
    uses = [{"ref": "system", "dependsOn": refs}, *({"ref": ref} for ref in refs)]
    return bill | {"components": [model, items], "dependencies": uses}


def _component(repo_id: str, revision: str | None = None) -> Row:
    group, _, name = repo_id.rpartition("/")
    purl = f"pkg:huggingface/{repo_id}" + (f"@{revision}" if revision else "")
    version = {"version": revision} if revision else {}
    names = {"type": "machine-learning-model", "bom-ref": purl, "group": group, "name": name}
    return names | version | {"purl": purl}


def _hashes(sha256: str | None) -> Row:
    return {"hashes": [{"alg": "SHA-256", "content": sha256}]} if sha256 else {}


def _terms(facts: Row) -> Row:
    """Supplier, licence and ancestors of a model; what is not known is left out."""
    url = f"https://huggingface.co/{facts['repo_id']}"
    terms: Row = {"externalReferences": [{"type": "distribution", "url": url}]}
    if facts["developer"]:
        terms["supplier"] = {"name": facts["developer"]}
    if facts["license"]:
        terms["licenses"] = [{"license": {"name": facts["license"]}}]
        with suppress(spdx.ExpressionError):  # SPDX does not know every licence
            expression = spdx.get_spdx_licensing().parse(facts["license"], validate=True)
            terms["licenses"] = [{"expression": str(expression)}]
    if names := base_names(facts["base_models"]):
        terms["pedigree"] = {"ancestors": [_component(name) for name in names]}
    return terms


def _card(record: Row, scores: list[Row], figures: Row) -> Row:
    metrics = [_metric(row, row["metric"], part=row["slice"]) for row in scores]
    metrics += [_metric(figures, name, name, stem + "_") for name, stem in FIGURES.items()]
    task = record["brief"]["evaluation"]["kind"]
    return {
        "modelParameters": {"task": task, "datasets": [{"ref": "items"}]},
        "quantitativeAnalysis": {"performanceMetrics": [metric for metric in metrics if metric]},
        "considerations": {
            "useCases": [record["project"]["task"]],
            "technicalLimitations": record["unverified"],
            "performanceTradeoffs": record["sentences"],
        },
    }


def _metric(row: Row, name: str, value: str = "value", stem: str = "", part: str = "") -> Row:
    """A figure of a row with the bounds that it has; empty without a figure."""
    columns = {"value": value, "lowerBound": f"{stem}low", "upperBound": f"{stem}high"}
    facts = {k: row[c] for k, c in columns.items() if row[c] is not None and math.isfinite(row[c])}
    words = {key: f"{number:.6g}" for key, number in facts.items()}
    if not (text := words.pop("value", "")):
        return {}
    interval = {"confidenceInterval": words} if words else {}
    return {"type": name, "value": text, "slice": part or "all"} | interval


def _elements(record: Row, facts: Row, figures: Row) -> Row:
    """What CycloneDX has no field of, and each cluster of the G7's; None is unknown."""
    name, versions = figures["deployment"], record["versions"].items()
    first = facts["base_models"] and not base_names(facts["base_models"])
    return {
        "playbook:deployment": name,
        "playbook:standing": "picked" if record["pick"] else "provisional",
        "playbook:licence-verdict": facts["verdict"],
        "playbook:licence-conditions": facts["conditions"],
        "playbook:served-as": ", ".join(record["served_models"].get(name, [])),
        "g7:metadata/signature": "what is signed is 06_decision.json, which holds this hash",
        "g7:models/version": facts["revision"],
        "g7:models/hash-value": record["weights"].get(name),
        "g7:models/ancestors": "none" if first else facts["base_models"],
        "g7:infrastructure/hardware": figures["hardware"],
        "g7:infrastructure/software": ", ".join(f"{lib} {version}" for lib, version in versions),
        "g7:security/supply-chain": facts["supply_verdict"],
        "g7:kpi/operational": "modelCard.quantitativeAnalysis",
        **{f"g7:{element}": None for element in UNKNOWN_ELEMENTS},
    }
