"""Step 3 as a person runs it, against a Hub on loopback: verified, drifted, stopped, accepted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import papermill
import pytest
import yaml
from hub_stub import CONFIG, Stub, files, model, running
from papermill.exceptions import PapermillExecutionError

from lib import artifacts, tables
from lib.legal import base_names

BRIEF = {
    "name": "on-the-hub",
    "task": "any",
    "policy": {"licenses": ["apache-2.0", "mit"], "countries": ["France"]},
    "size": {"tier": "low", "context_tokens": 1024},
    "evaluation": {"kind": "classification", "items": "items.jsonl", "labels": ["a", "b"]},
    "deployments": [
        {
            "name": "nemo",
            "model": "mistralai/Mistral-Nemo-Instruct-2407",
            "endpoint": {"base_url": "http://127.0.0.1:9/v1"},
            "hardware": "h100-1",
        }
    ],
}
DRIFTED = "mistralai/Mistral-7B-Instruct-v0.3"


@pytest.fixture(scope="module")
def steps_1_and_2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with the artefacts of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "items.jsonl").write_text('{"id": "1", "input": "x", "target": "a"}\n')
    (folder / "project.yaml").write_text(yaml.safe_dump(BRIEF))
    for number in ("01", "02"):
        execute(number, folder, folder / "run")
    return folder / "run"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stub]:
    with running() as stub:
        monkeypatch.setenv("HF_ENDPOINT", stub.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("PLAYBOOK_ROUTER_URL", f"{stub.url}/v1/models")
        monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path / "runs"))
        yield stub


def execute(number: str, folder: Path, run: Path, **changes: object) -> None:
    (folder / "project.yaml").write_text(yaml.safe_dump(BRIEF | changes))
    notebook = artifacts.ROOT / "notebooks" / f"{artifacts.NOTEBOOKS[number]}.ipynb"
    run.mkdir(exist_ok=True)
    papermill.execute_notebook(
        str(notebook),
        str(run / notebook.name),
        {"project": str(folder / "project.yaml"), "run_dir": str(run)},
        progress_bar=False,
    )


def serve(stub: Stub, run: Path) -> list[str]:
    """Serve every shortlisted model as the catalogue has it; its facts are all confirmed."""
    sized = artifacts.load(run, "02_shortlist")
    short = sized[sized["shortlisted"]].merge(tables.models()[["repo_id"]], on="repo_id")
    for row in short.itertuples():
        license_ = row.license if pd.isna(row.hub_license) else row.hub_license
        size = row.total_params_b if pd.isna(row.hub_params_b) else row.hub_params_b
        base = base_names(None if pd.isna(row.base_model) else str(row.base_model))
        elements = int(float(size) * 1e9)
        stub.serve(
            row.repo_id,
            model(
                row.repo_id,
                cardData={"license": license_},
                tags=[],
                baseModels={"relation": "finetune", "models": [{"id": name} for name in base]},
                safetensors={"parameters": {"BF16": elements}, "total": elements},
            ),
        )
        stub.serve_files(row.repo_id, files(row.repo_id))
        context = {} if pd.isna(row.context_length) else {
            "max_position_embeddings": int(row.context_length)
        }  # fmt: skip
        stub.serve_config(row.repo_id, CONFIG | context)
    return list(short["repo_id"])


def test_verified_drifted_stopped_accepted(
    hub: Stub, steps_1_and_2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(steps_1_and_2, run)
    names = serve(hub, run)
    assert DRIFTED in names
    assert len(names) >= 5

    execute("03", tmp_path, run)
    metadata = artifacts.load(run, "03_metadata").set_index("repo_id")
    assert (metadata["metadata_source"] == "hub").all()
    assert metadata["revision"].notna().all()
    assert list(metadata["drift"].unique()) == [""]
    assert set(metadata["security"]) == {"clean"}
    assert metadata["kv_layout"].eq("32x2048").all()
    asked = len(hub.asked)

    execute("03", tmp_path, run)  # again: everything is in the cache
    assert len(hub.asked) <= asked + 1  # the router's list is not kept
    again = artifacts.load(run, "03_metadata")
    assert again["metadata_source"].str.startswith("hub (cached").all()

    changed = {"cardData": {"license": "other", "license_name": "new-terms"}, "tags": []}
    hub.serve(DRIFTED, model(DRIFTED, baseModels={"models": []}, **changed))
    for kept in (tmp_path / "runs" / ".hub").rglob("*.json"):
        if kept.parent.name != "projects":
            kept.unlink()
    written = (run / "03_metadata.parquet").stat().st_mtime_ns
    with pytest.raises(PapermillExecutionError, match=r"accept_drift") as stopped:
        execute("03", tmp_path, run)
    assert f"{DRIFTED}: licence apache-2.0 → new-terms" in stopped.value.evalue
    assert (run / "03_metadata.parquet").stat().st_mtime_ns == written
    drifts = artifacts.load(run, "03_drift")
    assert set(drifts.loc[drifts["changes_verdict"], "against"]) == {"catalogue", "previous run"}

    accepted = {"model": DRIFTED, "field": "licence", "reason": "counsel read it"}
    others = [
        {"model": row.repo_id, "field": row.field, "reason": "known"}
        for row in drifts[drifts["repo_id"] != DRIFTED].itertuples()
    ]
    execute("03", tmp_path, run, hub={"accept_drift": [accepted, *others]})
    metadata = artifacts.load(run, "03_metadata").set_index("repo_id")
    assert metadata.at[DRIFTED, "verdict"] == "review"
    assert "licence: catalogue apache-2.0, Hub new-terms" in metadata.at[DRIFTED, "drift"]

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = len(hub.asked)
    execute("03", tmp_path, run, hub={"accept_drift": [accepted, *others]})
    assert len(hub.asked) == before


def test_the_supply_chain_gate_in_a_run(hub: Stub, steps_1_and_2: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(steps_1_and_2, run)
    names = serve(hub, run)
    issues = {"scansDone": True, "filesWithIssues": [{"path": "x.bin", "level": "unsafe"}]}
    hub.serve_files(names[0], files(names[0], securityRepoStatus=issues))
    hub.serve_files(names[1], files(names[1], securityRepoStatus={"scansDone": False}))
    execute("03", tmp_path, run, require={"scanned": True})
    verdicts = artifacts.load(run, "03_metadata").set_index("repo_id")["supply_verdict"]
    assert verdicts[names[0]] == "fail"
    assert verdicts[names[1]] == "unknown"
    assert (verdicts.drop(names[:2]) == "pass").all()
