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


# What takes longest goes first, so that no core waits for it at the end.
LONG = ("test_crash.py", "test_playbook.py", "test_secrets.py", "test_hostile_input.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The main job first leaves its answers for the notebooks, which nbval then runs in order.
    items.sort(key=lambda item: (item.path.suffix == ".ipynb", item.path.name not in LONG))
    for item in items:
        notebook = item.path.suffix == ".ipynb"
        place = item.path.parent.name if notebook else item.path.name
        group = "notebooks" if place == "test_playbook.py" else place
        item.add_marker(pytest.mark.xdist_group(group))
        if notebook:
            item.output_timeout = 600  # type: ignore[attr-defined]  # nbval's own is 5 s
