"""The kinds of task, one file each, looked up by name and loaded when used.

A file says what is special about its kind, in the functions and constants of `Kind` by their
names; `defaults.py` has the others, and says what each takes and gives. `published` and `inspect`
are no kinds but sources of scores that stand in for asking, behind the same face.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from pydantic import ValidationError

from lib.brief.evaluation import Evaluation
from lib.brief.project import Project, problem_sentence
from lib.brief.sections import Section
from lib.errors import PlaybookError, did_you_mean
from lib.evaluate.kinds import defaults

__all__ = ["Kind", "check", "of", "options_of"]

SOURCES = {"published": "lib.evaluate.published", "inspect": "lib.evaluate.inspect_source"}


class Kind(NamedTuple):
    """What step 4 needs to know of a kind of task; see `defaults.py` for each."""

    Options: type[Section]
    ASKS_ITEMS: bool
    JSON_FIELDS: tuple[str, ...]
    JUDGED_BY: tuple[str, ...]
    CALIBRATED: bool
    RATED: bool
    RELATIVE: bool
    MARKS: tuple[str, str, str]
    check: Callable[..., None]
    item_reader: Callable[..., Any]
    calls_of: Callable[..., Any]
    answer_of: Callable[..., Any]
    visible: Callable[..., str]
    gather: Callable[..., Any]
    judge_calls: Callable[..., tuple[int, int]]
    grade: Callable[..., Any]
    read_verdicts: Callable[..., Any]
    score: Callable[..., Any]
    metrics: Callable[..., Any]
    joint_scores: Callable[..., Any]
    compare: Callable[..., Any]
    judge_notes: Callable[..., list[str]]
    correct: Callable[..., Any]
    figure: Callable[..., Any]


@cache
def of(name: str) -> Kind:
    """The kind of this name, its defaults filled in.

    Raises:
        PlaybookError: There is none.
    """
    names = sorted({*SOURCES, *(m.name for m in pkgutil.iter_modules(__path__))} - {"defaults"})
    if name not in names:
        raise PlaybookError(f"unknown kind {name!r}; {did_you_mean(name, names)}")
    module = importlib.import_module(SOURCES.get(name, f"{__name__}.{name}"))
    return Kind(**{f: getattr(module, f, getattr(defaults, f)) for f in Kind._fields})


def options_of(brief: Project) -> Any:
    """The options of the brief's kind, as its file defines them."""
    return of(brief.evaluation.kind).Options.model_validate(brief.evaluation.of_kind)


def check(brief: Project) -> None:
    """Hold a brief against its kind of task: its options, its judge, its worked examples.

    Raises:
        PlaybookError: One sentence with the key that is wrong.
    """
    evaluation = brief.evaluation
    try:
        kind = of(evaluation.kind)
        options = options_of(brief)
        _check_common(brief, kind)
        kind.check(brief, options)
    except ValidationError as error:
        others = set(Evaluation.model_fields)
        at = ("evaluation",)
        text = problem_sentence(error, model=kind.Options, at=at, others=others)
        raise PlaybookError(f"{brief.file}: {text}") from None
    except (PlaybookError, ValueError) as error:
        raise PlaybookError(f"{brief.file}: evaluation: {error}") from None


def _check_common(brief: Project, kind: Kind) -> None:
    evaluation = brief.evaluation
    if kind.ASKS_ITEMS and not evaluation.items:
        raise ValueError(f"kind {evaluation.kind!r} needs items: the name of a file of items")
    if kind.JUDGED_BY and evaluation.judge is None:
        raise ValueError(f"kind {evaluation.kind!r} needs judge")
    for place in kind.JUDGED_BY:
        if evaluation.judge and place not in evaluation.judge.user:
            raise ValueError(f"judge.user must contain {place} for kind {evaluation.kind!r}")
