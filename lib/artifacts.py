"""What one run leaves behind: typed tables between steps, written whole or not at all."""

import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from filelock import FileLock, Timeout

from lib.errors import PlaybookError
from lib.untrusted import as_dict

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = {path.name[:2]: path.stem for path in sorted((ROOT / "notebooks").glob("0*.ipynb"))}

Overrides = dict[str, dict[str, Any]]  # by step, then by key of the brief

RECORD = "06_decision.json"
COLUMNS = {
    "01_legal": "repo_id family developer country license verdict conditions reasons exception"
    " source_url checked_on",
    "02_shortlist": "repo_id tier total_params_b active_params_b params_basis memory_gb fits_on"
    " shortlisted why",
    "03_metadata": "repo_id revision metadata_source retrieved_at license_on_hub drift gated"
    " formats remote_code base_models lineage_verdict context_length downloads likes"
    " last_modified providers security supply_verdict verdict shortlisted why",
    "03_drift": "repo_id field against old new consequence changes_verdict accepted",
    "03_providers": "repo_id provider status context_length input_usd_per_million"
    " output_usd_per_million first_token_latency_ms throughput_tps",
    "04_answers": "deployment repo_id item_id group output outcome score prompt_tokens"
    " completion_tokens latency_s cached",
    "04_scores": "deployment metric value low high n n_failed n_truncated n_refused n_unparsed"
    " n_empty n_retried comparable basis primary standing slice against_baseline",
    "04_pairs": "deployment other difference low high p_value p_adjusted verdict",
    "05_speed": "deployment offered_rps achieved_rps p50_s p95_s ttft_p95_s errors within_slo",
    "05_capacity": "deployment max_rps low high basis",
    "06_tradeoffs": "deployment repo_id hardware basis n quality quality_low quality_high max_rps"
    " rps_low rps_high p95_s usd_per_1k usd_per_1k_low usd_per_1k_high usd_per_1k_correct"
    " dollars on_frontier qualifies why pick",
}


def runs_root() -> Path:
    """The folder all runs live in: `PLAYBOOK_RUNS` (from the repository), or `runs/`."""
    return (ROOT / (os.environ.get("PLAYBOOK_RUNS") or "runs")).resolve()


def hub_cache() -> Path:
    """The folder of the Hub's answers, shared by all runs."""
    return runs_root() / ".hub"


def run_directory(name: str, run_dir: str = "") -> Path:
    """Make a project's run directory: `runs/<name>/`, or `run_dir` as seen from the repository."""
    path = (ROOT / run_dir).resolve() if run_dir else runs_root() / name
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def path_name(path: Path) -> str:
    """A path as messages show it: from the repository on where it lies there."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write into one sentence that says what is kept."""
    try:
        yield
    except OSError as error:
        raise PlaybookError(
            f"{path_name(path)}: cannot write: {error.strerror or error};"
            " what was measured so far is kept, free the disk and run the step again"
        ) from None


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, also when the process dies in the middle."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.draft")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(path: Path, *, wait_s: float = 5.0) -> Iterator[None]:
    """Hold a file alone, PlaybookError after `wait_s`; a process that dies lets it go soon."""
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=wait_s)
    with contextlib.ExitStack() as stack:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(lock)
            except Timeout:
                busy = "is being written by another process; wait for it, or use another run_dir"
                raise PlaybookError(f"{path_name(path)} {busy}") from None
        yield


def sweep(run: Path) -> None:
    """Clear away what a process that was killed left half-written."""
    hour_ago = time.time() - 3600  # others write to the Hub's cache now
    shared = [p for p in hub_cache().glob("**/.*.draft") if p.stat().st_mtime < hour_ago]
    for draft in [*run.glob("**/.*.draft"), *shared]:
        draft.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file; "" where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def save(table: pd.DataFrame, run: Path, name: str) -> None:
    """Write a step's table whole, with the columns of its contract, its hash in the manifest."""
    if lacking := [c for c in COLUMNS[name].split() if c not in table.columns]:
        raise PlaybookError(f"{name}.parquet would lack the column {lacking[0]!r}")
    facts = {"rows": len(table), "written_at": datetime.now(UTC).isoformat(timespec="seconds")}
    _save(table.to_parquet(index=False), run, f"{name}.parquet", **facts)


def save_json(value: Any, run: Path, name: str) -> None:
    """Write a JSON document whole, its hash in the manifest."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, default=str)
    _save(text.encode(), run, name)


def _save(content: bytes, run: Path, file: str, **facts: Any) -> None:
    write_bytes(run / file, content)
    facts |= {"sha256": hashlib.sha256(content).hexdigest()}
    with _changing(run) as manifest:
        made_from, files = manifest["steps"].get(file[:2], {}), manifest["files"]
        for name in (name for name in made_from if name.endswith(".parquet")):
            if files.get(name, {}).get("sha256") != made_from[name]:
                raise PlaybookError(f"{name} was written again meanwhile: run this step again")
        files[file] = facts | {"made_from": made_from}


@contextlib.contextmanager
def _changing(run: Path) -> Iterator[dict[str, dict[str, Any]]]:
    with alone(run / "manifest.json", wait_s=30):
        yield (manifest := _manifest(run))
        write_bytes(run / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True).encode())


def _manifest(run: Path) -> dict[str, dict[str, Any]]:
    """`files` written and what `steps` began with; empty where damaged: steps must run again."""
    manifest: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError, ValueError):
        manifest = as_dict(json.loads((run / "manifest.json").read_bytes()))
    parts = {part: as_dict(manifest.get(part)) for part in ("files", "steps")}
    return {part: {k: as_dict(v) for k, v in values.items()} for part, values in parts.items()}


def begin(run: Path, step: str, made_from: dict[str, str], changes: dict[str, Any]) -> None:
    """Note what a step is made from, and its changes; what it wrote, and a decision, are void."""
    with _changing(run) as manifest:
        manifest["steps"][step] = made_from
        for file in [file for file in manifest["files"] if file[:2] in (step, "06")]:
            del manifest["files"][file]
        by_step = {k: v for k, v in (overrides(run) | {step: changes}).items() if v}
        write_bytes(run / "overrides.yaml", yaml.safe_dump(by_step).encode())


def retire_decision(run: Path) -> None:
    """Move an older decision and its page to `previous/`: what is run now may end without one."""
    for path in (run / "06_decision.json", run / "report.html"):
        if path.exists():
            with writing(path):
                (run / "previous").mkdir(exist_ok=True)
                path.replace(run / "previous" / path.name)


def made_from(run: Path, step: str) -> dict[str, str]:
    """What the tables of a finished step were made from; PlaybookError where one is missing."""
    files = _manifest(run)["files"]
    for name in (name for name in COLUMNS if name.startswith(step)):
        if f"{name}.parquet" not in files:
            way = f"run notebooks/{NOTEBOOKS[step]}.ipynb first, or --from {step}"
            missing = f"{name}.parquet is missing in {path_name(run)}, or unfinished"
            raise PlaybookError(f"{missing}; {way}")
        hashes: dict[str, str] = files[f"{name}.parquet"].get("made_from", {})
    return hashes


def inputs(run: Path) -> dict[str, str]:
    """SHA-256 of all that a run's files were made from, and of the files: by name."""
    manifest, hashes = _manifest(run), dict[str, str]()
    for made_from_hashes in manifest["steps"].values():
        hashes |= made_from_hashes
    hashes |= {file: entry.get("sha256", "") for file, entry in manifest["files"].items()}
    return dict(sorted(hashes.items()))


def manifest_digest(run: Path) -> str:
    """SHA-256 of the manifest but for the record's entry, which holds it; "" if tampered with."""
    manifest = _manifest(run)
    text = json.dumps(manifest, indent=1, sort_keys=True).encode()
    of_step = {"made_from": manifest["steps"].get("06")}
    entry = manifest["files"].pop(RECORD, of_step)
    honest = {key: entry[key] for key in entry.keys() - {"sha256"}} == of_step
    if not honest or sha256(run / "manifest.json") != hashlib.sha256(text).hexdigest():
        return ""
    return hashlib.sha256(json.dumps(manifest, indent=1, sort_keys=True).encode()).hexdigest()


def overrides(run: Path) -> Overrides:
    """What the run sets differently from the brief: by step, then by key."""
    path = run / "overrides.yaml"
    try:
        by_step = as_dict(yaml.safe_load(path.read_bytes())) if path.exists() else {}
    except yaml.YAMLError:
        way = "is no valid YAML; delete it and run again"
        raise PlaybookError(f"{path_name(path)} {way}") from None
    return {str(step): as_dict(keys) for step, keys in by_step.items()}


def load(run: Path, name: str) -> pd.DataFrame:
    """Read a step's table; one missing or damaged is a PlaybookError with the notebook to run."""
    path, again = run / f"{name}.parquet", f"run notebooks/{NOTEBOOKS[name[:2]]}.ipynb"
    if not path.exists():
        raise PlaybookError(f"{path.name} is missing in {path_name(run)}; {again} first")
    content, entry = path.read_bytes(), _manifest(run)["files"].get(path.name)
    if entry is None:
        raise PlaybookError(f"{path_name(run)}/manifest.json does not know {path.name}; {again}")
    if entry.get("sha256") != hashlib.sha256(content).hexdigest():
        raise PlaybookError(f"{path_name(path)} is damaged or was edited; {again} again")
    return pd.read_parquet(BytesIO(content))
