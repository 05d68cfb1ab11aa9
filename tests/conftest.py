"""Every test and every notebook runs offline, without keys, in a scratch folder of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from virtual_time import virtual_time  # noqa: F401  (a fixture)

SCRATCH = Path(tempfile.mkdtemp(prefix="playbook-tests-"))


def pytest_configure(config: pytest.Config) -> None:
    # Kernels inherit these: nbval, papermill and the runner all see the same runs.
    os.environ["PLAYBOOK_RUNS"] = str(SCRATCH)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TQDM_DISABLE"] = "1"
    for name in [n for n in os.environ if n.endswith(("_API_KEY", "_TOKEN"))]:
        del os.environ[name]


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(SCRATCH, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The main job first leaves its answers for the notebooks, which nbval then runs in order.
    items.sort(key=lambda item: item.path.suffix == ".ipynb")
    for item in items:
        if item.path.suffix == ".ipynb":
            item.output_timeout = 600  # type: ignore[attr-defined]  # nbval's own is 5 s
