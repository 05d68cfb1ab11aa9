"""A project of recorded answers and loads, and its executed notebooks, alike on every machine.

`place` puts what was recorded into a run directory under the keys that this machine would look
for. `python tests/recorded/recording.py` makes the notebooks here anew from those in `notebooks/`;
with `--loads` it records the loads again first, which a changed search for the capacity needs.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
NOTEBOOKS = sorted((HERE.parents[1] / "notebooks").glob("0*.ipynb"))
PARAMETERS = {'project: str = "review-sentiment"': 'project: str = "project.yaml"'}
SERVICE_S = {"ministral": 0.02, "gemma": 0.15, "smollm2": 0.4}  # of one request, one at a time
AGAIN = "no load like this was recorded: run `python tests/recorded/recording.py --loads`"


def place(run: Path) -> None:
    """Write the recorded answers and loads to a run directory, as steps 4 and 5 keep them."""
    from lib import evaluate, speed
    from lib.endpoints import STORE, appending_records
    from lib.endpoints.attempts import blank
    from lib.evaluate import plan
    from lib.opening import open_project
    from lib.speed import measurement

    brief = open_project(HERE / "project.yaml")
    items, answers = evaluate.load_items(brief), _lines("answers.jsonl")
    recorded = {(a.pop("deployment"), a.pop("id")): a for a in answers}
    names = {name for name, _ in recorded}
    deployments = [d for d in brief.deployments if d.name in names]
    run.mkdir(parents=True, exist_ok=True)
    with appending_records(run / STORE) as append:
        for deployment in deployments:
            keys = plan(brief, deployment, items).keys()
            for item_id, key in zip(items["item_id"], keys, strict=True):
                facts = {"retries": 0, "usd": 0.0, "cached": False}
                facts |= recorded[deployment.name, item_id]
                append(blank(key, deployment.model) | facts)
    loads = {(p["model"], tuple(p["load"])): p["record"] for p in _lines("loads.jsonl")}

    async def offer(brief: Any, served: Any, items: Any, following: Any, done: Any, _: Any) -> Any:
        assert (served.model, (*following, len(done))) in loads, AGAIN
        return loads[served.model, (*following, len(done))]

    with mock.patch.object(measurement, "offer", offer):
        speed.measure(brief, items, deployments, run, progress=False)


def record_loads() -> None:
    """Measure stubs that answer one request at a time, in virtual time."""
    import openai_stub
    import pytest
    import virtual_time

    from lib import evaluate, speed
    from lib.opening import open_project
    from lib.speed import measurement

    brief, real, lines = open_project(HERE / "project.yaml"), measurement.offer, list[str]()
    live = [d for d in brief.deployments if d.endpoint and d.endpoint.base_url]

    async def offer(brief: Any, served: Any, items: Any, following: Any, done: Any, _: Any) -> Any:
        record = await real(brief, served, items, following, done)
        facts = {"model": served.model, "load": [*following, len(done)], "record": record}
        lines.append(json.dumps(facts, separators=(",", ":")) + "\n")
        return record

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as run:
        network = virtual_time.install(patch)
        for name, service_s in SERVICE_S.items():
            network.stubs[f"{name}.example", 80] = openai_stub.Stub(None, service_s)
        patch.setattr(measurement, "offer", offer)
        asked = [d for d in live if "qwen" not in d.name]
        speed.measure(brief, evaluate.load_items(brief), asked, Path(run), progress=False)
    (HERE / "loads.jsonl").write_text("".join(lines))


def copied(path: Path) -> nbformat.NotebookNode:
    """The code of a shipped notebook for the recorded project; no cell's output is ignored."""
    notebook = nbformat.read(path, 4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in notebook.cells:
        for shipped, here in PARAMETERS.items():
            cell.source = cell.source.replace(shipped, here)
        cell.metadata = {"tags": [t for t in cell.metadata.get("tags", []) if t == "parameters"]}
        cell.outputs, cell.execution_count = [], None
    return notebook


def make_notebooks() -> None:
    """Run every copy and keep it with its outputs, without pictures, which nbval passes over."""
    from lib import artifacts
    from lib.pipeline import KERNEL

    place(artifacts.run_directory("recorded"))
    for path in NOTEBOOKS:
        notebook = copied(path)
        options = {"timeout": None, "record_timing": False, **KERNEL}
        NotebookClient(notebook, resources={"metadata": {"path": str(HERE)}}, **options).execute()
        for cell in notebook.cells:
            for output in cell.outputs:
                for kind in [k for k in output.get("data", {}) if k.startswith("image/")]:
                    del output["data"][kind]
        nbformat.write(notebook, HERE / path.name)


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / name).read_text().splitlines()]


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent / "stubs"))
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    with tempfile.TemporaryDirectory() as runs:
        os.environ["PLAYBOOK_RUNS"] = runs
        if "--loads" in sys.argv:
            record_loads()
        make_notebooks()
