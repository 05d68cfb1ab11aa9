"""Open a step: the brief, read and held against everything it names."""

from pathlib import Path
from typing import Any

from lib import evaluate
from lib.brief import Project, load_project

__all__ = ["open_project"]


def open_project(project: str | Path, **overrides: Any) -> Project:
    """Read and validate a brief, and have its kind of task check what belongs to it.

    Args:
        project: The name of a folder in `data/projects/`, a folder, or a YAML file.
        overrides: `section__key=value` replaces one value for this run; see `load_project`.

    Raises:
        PlaybookError: The brief is missing, unreadable or wrong, in one sentence with the key.
    """
    brief = load_project(project, **overrides)
    evaluate.check(brief)
    return brief
