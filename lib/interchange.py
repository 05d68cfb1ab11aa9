"""In and out: OpenAI evals become items and a draft brief; a run becomes CSV and Every Eval Ever.

Every Eval Ever is the JSON format of https://github.com/evaleval/every_eval_ever, version 0.3.0.
"""

from __future__ import annotations

import io
import json
import math
import re
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lib.artifacts import shown, write_bytes
from lib.configurations import Endpoint
from lib.deployments import request_options
from lib.errors import PlaybookError
from lib.openai_evals import read_openai_evals
from lib.openai_specs import openai_evals_brief
from lib.project import Deployment, Project
from lib.store import key_of

__all__ = ["convert", "every_eval_ever", "openai_evals_brief", "read_openai_evals", "write"]

SCHEMA_VERSION = "0.3.0"
LIBRARY = "open-model-selection-playbook"
METRICS = {"accuracy": "accuracy", "macro-F1": "f1_macro", "pass rate": "pass_rate", "MRR": "mrr"}
JUDGED = ("scoring", "judged", "comparison")
FORMULA = re.compile(r"[=+\-@\t\r]")
ITEMS, SECTION = "items.jsonl", "evaluation.yaml"


def convert(
    source: Path, target_folder: Path, *, data: Path | None = None, name: str | None = None
) -> str:
    """Turn OpenAI evals into `items.jsonl` and a draft `evaluation.yaml`; nothing is overwritten.

    Args:
        source: A spec (YAML or JSON) or a JSONL file of items alone, which is taken for Match.
        target_folder: Where the files go, made where it is missing.
        data: The items of a spec; left out, the file that it names is looked for beside it.
        name: Which eval of the file.

    Returns:
        What to tell the user: the files, how many items, and what did not carry over.

    Raises:
        PlaybookError: A file is there already, cannot be read or has no counterpart here.
    """
    for made in (target_folder / ITEMS, target_folder / SECTION):
        if made.exists():
            raise PlaybookError(f"{shown(made)} is there already; name another folder")
    alone = source.suffix.lower() in (".jsonl", ".ndjson")
    draft = _PLAIN if alone else openai_evals_brief(source, name=name)
    section, notes = json.loads(json.dumps(draft["evaluation"])), list(draft["notes"])
    path = source if alone else data or _samples(source, draft["samples"])
    lines = []
    if path is None:
        named = f" {draft['samples']!r}" if draft["samples"] else ""
        notes.append(f"The items{named} are not beside the spec; import them by their own name.")
    else:
        items = read_openai_evals(path, split_system=True)
        lines = _written(items, section, notes, shown(path))
    text = yaml.safe_dump({"evaluation": section}, sort_keys=False, allow_unicode=True, width=96)
    comments = "".join(f"# - {' '.join(note.split())}\n" for note in notes)
    head = f"# A draft from {source.name}, for project.yaml. Before you use it:\n{comments}"
    if lines:
        write_bytes(target_folder / ITEMS, "".join(lines).encode())
    write_bytes(target_folder / SECTION, (head + text).encode())
    told = [f"{shown(target_folder / ITEMS)}: {len(lines)} items"] if lines else []
    told.append(f"{shown(target_folder / SECTION)}: kind {section['kind']}, a draft")
    return "\n".join([*told, *(f"- {note}" for note in notes)])


_PLAIN: dict[str, Any] = {
    "evaluation": {"kind": "exact", "items": ITEMS, "normalise": ["whitespace"], "max_tokens": 64},
    "notes": ["The file of items does not say how they are scored; kind exact is a guess."],
    "samples": "",
}


def _samples(spec: Path, named: str) -> Path | None:
    """The data file a spec names: beside it, or in the registry's `data` folder."""
    if not named or Path(named).is_absolute() or ".." in Path(named).parts:
        return None
    folders = (spec.parent, spec.parent / "data", spec.parent.parent / "data")
    found = [f / n for f in folders for n in (named, Path(named).name) if (f / n).is_file()]
    return found[0] if found else None


def _written(
    items: list[dict[str, Any]], section: dict[str, Any], notes: list[str], where: str
) -> list[str]:
    """The lines of items.jsonl; a system text that all share goes into the section's prompt."""
    columns = section.pop("columns", {})
    section.pop("format", None)
    systems = {item.pop("system", "") for item in (dict(item) for item in items)}
    shared = len(systems) == 1
    lines = []
    for number, raw in enumerate(items, start=1):
        item = {k: v for k, v in raw.items() if k != "system"}
        for ours, theirs in columns.items():
            if theirs not in raw:
                raise PlaybookError(f"{where} item {number}: has no field {theirs!r}")
            item[ours] = raw[theirs]
        if not isinstance(item.get("input"), str) or not item["input"].strip():
            raise PlaybookError(
                f"{where} item {number}: no input; its fields are {', '.join(map(str, raw))}"[:300]
            )
        if not shared and raw.get("system"):
            item["input"] = f"{raw['system']}\n\n{item['input']}"
        lines.append(json.dumps(item, ensure_ascii=False) + "\n")
    if shared and (system := systems.pop()):
        section["prompt"] = {"system": system, "user": "{input}"}
        notes[:] = [note for note in notes if not note.startswith("prompt.system")]
    elif not shared:
        section.pop("prompt", None)
        notes.append("The items have different system texts, which stand before their inputs now.")
    _few_labels(items, section, notes)
    return lines


def _few_labels(items: list[dict[str, Any]], section: dict[str, Any], notes: list[str]) -> None:
    targets = [item.get("target") for item in items]
    if section["kind"] == "exact" and all(isinstance(target, str) for target in targets):
        labels = sorted({str(target) for target in targets})
        if 2 <= len(labels) <= 12 and len(items) >= 3 * len(labels):
            notes.append(f"The targets are {len(labels)} labels: kind classification with labels"
                         f" {labels} also finds one inside a sentence."[:400])  # fmt: skip


def every_eval_ever(
    brief: Project,
    scored: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    organization: str = "unknown",
    created: float | None = None,
) -> list[dict[str, Any]]:
    """The scores as documents of Every Eval Ever 0.3.0, one per deployment.

    Addresses of endpoints are left out; inputs and outputs are not part of the documents.

    Args:
        brief: The brief.
        scored: From `scoring.score_answers`; the documents are identified by its content.
        scores: From `scoring.summarise`.
        organization: Who ran the evaluation.
        created: When, in seconds since 1970; left out, now.

    Returns:
        One document a deployment, in the order of `scores`; a metric without a value is left out.
    """
    stamp = str(int(time.time() if created is None else created))
    known = {deployment.name: deployment for deployment in brief.deployments}
    documents = []
    for name, rows in scores.groupby("deployment", sort=False):
        deployment = known[str(name)]
        own = scored[scored["deployment"] == name] if len(scored) else scored
        told = [c for c in ("item_id", "outcome", "score") if c in own]
        content = key_of(own[told].astype("str").to_numpy().tolist(), rows["value"].tolist())
        identity = f"{brief.name}/{deployment.model.replace('/', '_')}/{name}-{content[:12]}"
        results = [
            _result(brief, deployment, {str(k): v for k, v in row.items()}, identity)
            for row in rows.to_dict("records")
            if isinstance(row["value"], int | float) and math.isfinite(row["value"])
        ]
        documents.append(
            {
                "schema_version": SCHEMA_VERSION,
                "evaluation_id": identity,
                "retrieved_timestamp": stamp,
                "source_metadata": {
                    "source_name": brief.name,
                    "source_type": "documentation" if deployment.published else "evaluation_run",
                    "source_organization_name": organization,
                    "evaluator_relationship": "third_party",
                },
                "eval_library": {
                    "name": "inspect_ai" if brief.evaluation.kind == "inspect" else LIBRARY,
                    "version": "unknown" if brief.evaluation.kind == "inspect" else _version(),
                },
                "model_info": _model(deployment),
                "evaluation_results": results,
            }
        )
    return documents


def _version() -> str:
    try:
        return version(LIBRARY)
    except PackageNotFoundError:
        return "unknown"


def _served(endpoint: Endpoint | None) -> dict[str, str]:
    local = bool(endpoint and endpoint.local)
    return {
        "deployment_type": "self_deployed" if local else "unknown",
        "model_availability": "open_weights" if local else "unknown",
    }


def _model(deployment: Deployment) -> dict[str, Any]:
    details = _served(deployment.endpoint) | {"configuration": deployment.name}
    if deployment.host:
        details["deployment_type"] = "externally_managed"
    details |= {"precision": deployment.precision} if deployment.precision else {}
    info: dict[str, Any] = {"name": deployment.model, "id": deployment.model}
    info["developer"] = deployment.model.partition("/")[0]
    info |= {"inference_platform": deployment.host.provider} if deployment.host else {}
    info |= {"inference_engine": {"name": deployment.engine}} if deployment.engine else {}
    return info | {"additional_details": details}


def _result(
    brief: Project, deployment: Deployment, row: dict[str, Any], identity: str
) -> dict[str, Any]:
    evaluation, metric = brief.evaluation, str(row["metric"])
    value, low, high = (float(row[key]) for key in ("value", "low", "high"))
    slug = re.sub(r"[^a-z0-9]+", "_", metric.casefold()).strip("_")
    rated = metric == "rating" and evaluation.judge is not None
    bounds = evaluation.judge.scale if rated and evaluation.judge else (0.0, 1.0)
    config: dict[str, Any] = {
        "metric_id": METRICS.get(metric, f"{LIBRARY}.{slug}"),
        "metric_name": metric,
        "metric_unit": "points" if rated else "proportion",
        "lower_is_better": metric == "malformed calls",
        "score_type": "continuous",
        "min_score": min(bounds[0], value),
        "max_score": max(bounds[1], value),
    }
    if evaluation.kind in JUDGED and (judge := evaluation.judge) is not None:
        info = {"name": judge.model, "id": judge.model, "additional_details": _served(None)}
        told: dict[str, Any] = {"model_info": info}
        if judge.options.temperature is not None:
            told["temperature"] = judge.options.temperature
        config["llm_scoring"] = {"judges": [told], "input_prompt": judge.user}
    uncertainty: dict[str, Any] = {"num_samples": int(row["n"])}
    if math.isfinite(low) and math.isfinite(high):
        interval = {"lower": low, "upper": high, "confidence_level": 0.95}
        uncertainty = {"confidence_interval": interval} | uncertainty
    counts = {key: str(row[key]) for key in row if key.startswith("n_")}
    result = {
        "evaluation_result_id": f"{identity}#{slug}",
        "evaluation_name": brief.name,
        "source_data": {
            "dataset_name": evaluation.inspect.task if evaluation.inspect else brief.name,
            "source_type": "other",
            "additional_details": {"items": evaluation.items or "", "task": brief.task},
        },
        "metric_config": config,
        "score_details": {
            "score": value,
            "uncertainty": uncertainty,
            "details": counts | {key: str(row[key]) for key in ("comparable", "basis")},
        },
    }
    if not (deployment.published or evaluation.kind == "inspect"):
        result["generation_config"] = _generation(brief, deployment)
    return result


def _generation(brief: Project, deployment: Deployment) -> dict[str, Any]:
    options, prompt = request_options(brief, deployment), brief.prompt_of(deployment)
    typed = {k: options.pop(k) for k in ("temperature", "max_tokens", "top_p") if k in options}
    details = {k: v if isinstance(v, str) else json.dumps(v) for k, v in options.items()}
    details |= {"system": prompt.system} if prompt.system else {}
    args = typed | {"prompt_template": prompt.user or "{input}"}
    return {"generation_args": args} | ({"additional_details": details} if details else {})


def write(
    brief: Project,
    run: Path,
    scored: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    organization: str = "unknown",
    created: float | None = None,
) -> list[Path]:
    """Write what others read into `exports/` of the run.

    `scores.csv` and `answers.csv` are the tables; there a text that a spreadsheet would take
    for a formula has an apostrophe in front. `every_eval_ever/` has a JSON document per
    deployment. A file of an earlier run is replaced.

    Returns:
        The files written.
    """
    folder = run / "exports"
    files = {"scores.csv": _csv(scores), "answers.csv": _csv(scored)}
    documents = every_eval_ever(brief, scored, scores, organization=organization, created=created)
    for name, document in zip(scores["deployment"].unique(), documents, strict=True):
        text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
        files[f"every_eval_ever/{name}.json"] = text.encode(errors="replace")
    for relative, content in files.items():
        write_bytes(folder / relative, content)
    return [folder / relative for relative in files]


def _csv(table: pd.DataFrame) -> bytes:
    def safe(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        text = value.replace("\0", "�")
        return f"'{text}" if FORMULA.match(text) else text

    texts = table.select_dtypes(include=["object", "str"]).columns
    stream = io.StringIO()
    cells = table.assign(**{str(name): table[name].map(safe) for name in texts})
    cells.to_csv(stream, index=False, lineterminator="\n")
    return stream.getvalue().encode(errors="replace")
