"""The recorded answers and loads are in place before nbval runs the first notebook here."""

from __future__ import annotations

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    from recording import place

    from lib import artifacts
    from lib.endpoints import STORE

    run = artifacts.run_directory("recorded")
    if item.path.suffix == ".ipynb" and not (run / STORE).exists():
        place(run)
