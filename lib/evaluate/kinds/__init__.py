"""The kinds of task, one file each, looked up by name and loaded when used.

A file says what is special about its kind; `defaults.py` has the other functions and constants,
and says what each takes and gives. `published` and `inspect` are no kinds but sources of scores
that stand in for asking, behind the same face.
"""

import importlib
import pkgutil
from functools import cache
from types import SimpleNamespace
from typing import Any

from pydantic import ValidationError

from lib.brief import Evaluation, Project, problem_sentences
from lib.errors import PlaybookError, did_you_mean, in_one_list
from lib.evaluate.kinds import defaults

SOURCES = {"published": "lib.evaluate.published", "inspect": "lib.evaluate.inspect_source"}


@cache
def of(name: str) -> SimpleNamespace:
    """What the kind of this name says and does, with the defaults for what its file leaves out."""
    names = sorted({*SOURCES, *(m.name for m in pkgutil.iter_modules(__path__))} - {"defaults"})
    if name not in names:
        raise PlaybookError(f"unknown kind {name!r}; {did_you_mean(name, names)}")
    module = importlib.import_module(SOURCES.get(name, f"{__name__}.{name}"))
    return SimpleNamespace(**vars(defaults) | vars(module))


def options_of(brief: Project) -> Any:
    """The options of the brief's kind, as its file defines them."""
    return of(brief.evaluation.kind).Options.model_validate(brief.evaluation.of_kind)


def check(brief: Project) -> None:
    """Hold a brief against its kind of task; a PlaybookError says which key is wrong."""
    evaluation = brief.evaluation
    try:
        kind = of(evaluation.kind)
        for name in [d.name for d in brief.deployments if getattr(d, kind.NEEDS) is None]:
            raise ValueError(f"deployment {name!r} needs {kind.NEEDS} for kind {evaluation.kind!r}")
        options = options_of(brief)
        if kind.ASKS_ITEMS and not evaluation.items:
            raise ValueError(f"kind {evaluation.kind!r} needs items: the name of a file of items")
        for place in kind.JUDGED_BY:
            if evaluation.judge is None:
                raise ValueError(f"kind {evaluation.kind!r} needs judge")
            if place not in evaluation.judge.user:
                raise ValueError(f"judge.user must contain {place} for kind {evaluation.kind!r}")
        if not kind.ASKS_ITEMS and evaluation.strategy == "racing":
            raise ValueError(f"kind {evaluation.kind!r} asks no items to race on: strategy: full")
        if not kind.ASKS_ITEMS and evaluation.slices:
            raise ValueError(f"slices: kind {evaluation.kind!r} reads no items to slice")
        kind.check(brief, options)
    except ValidationError as error:
        others = set(Evaluation.model_fields)
        texts = problem_sentences(error, model=kind.Options, at=("evaluation",), others=others)
        raise PlaybookError(f"{brief.file}: {in_one_list(texts)}") from None
    except (PlaybookError, ValueError) as error:
        raise PlaybookError(f"{brief.file}: evaluation: {error}") from None
