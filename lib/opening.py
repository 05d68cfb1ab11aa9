"""Open a step: the brief, read and held against everything it names."""

from pathlib import Path
from typing import Any

from lib import evaluate
from lib.brief import Project, load_project


def open_project(project: str | Path, **overrides: Any) -> Project:
    """Read a brief as `load_project` does, and have its kind of task check what belongs to it."""
    brief = load_project(project, **overrides)
    evaluate.check(brief)
    return brief
