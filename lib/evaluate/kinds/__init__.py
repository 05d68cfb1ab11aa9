"""The kinds of task, one file each, looked up by name and loaded when used.

A file says what is special about its kind; `defaults.py` has the other functions and constants.
`published` and `inspect` are sources of scores that stand in for asking, behind the same face.
"""

import importlib
import pkgutil
from functools import cache
from types import SimpleNamespace
from typing import Any

from pydantic import ValidationError

from lib.brief import Evaluation, Project, problem_sentences
from lib.errors import PlaybookError, did_you_mean
from lib.evaluate.kinds import defaults

SOURCES = {"published": "lib.evaluate.published", "inspect": "lib.evaluate.inspect_source"}


@cache
def of(name: str) -> SimpleNamespace:
    """What the kind of this name says and does, with the defaults for what its file leaves out."""
    names = sorted({*SOURCES, *(m.name for m in pkgutil.iter_modules(__path__))} - {"defaults"})
    if name not in names:
        raise PlaybookError(f"evaluation: unknown kind {name!r}; {did_you_mean(name, names)}")
    module = importlib.import_module(SOURCES.get(name, f"{__name__}.{name}"))
    return SimpleNamespace(**vars(defaults) | vars(module))


def options_of(brief: Project) -> Any:
    """The options of the brief's kind, as its file defines them."""
    return of(brief.evaluation.kind).Options.model_validate(brief.evaluation.of_kind)


def problems(brief: Project) -> list[str]:
    """A sentence for each key of a brief that does not go with its kind of task."""
    evaluation, sentences = brief.evaluation, list[str]()
    try:
        kind, by_name = of(evaluation.kind), f"kind {evaluation.kind!r}"
        lacking = [d.name for d in brief.deployments if getattr(d, kind.NEEDS) is None]
        sentences += [f"deployment {name!r} needs {kind.NEEDS} for {by_name}" for name in lacking]
        if kind.ASKS_ITEMS and not evaluation.items:
            sentences.append(f"{by_name} needs items: the name of a file of items")
        if kind.JUDGED_BY and evaluation.judge is None:
            sentences.append(f"{by_name} needs judge")
        wording = evaluation.judge.user if evaluation.judge else "".join(kind.JUDGED_BY)
        absent = [place for place in kind.JUDGED_BY if place not in wording]
        sentences += [f"judge.user must contain {place} for {by_name}" for place in absent]
        if not kind.ASKS_ITEMS and evaluation.strategy == "racing":
            sentences.append(f"{by_name} asks no items to race on: strategy: full")
        if not kind.ASKS_ITEMS and evaluation.slices:
            sentences.append(f"slices: {by_name} reads no items to slice")
        sentences = [f"evaluation: {text}" for text in sentences]
        options = options_of(brief)
        if not sentences:  # what the kind's own check may rely on
            kind.check(brief, options)
    except ValidationError as error:
        others = set(Evaluation.model_fields)
        sentences += problem_sentences(error, model=kind.Options, at=("evaluation",), others=others)
    except (PlaybookError, ValueError) as error:
        sentences.append(f"evaluation: {str(error).removeprefix('evaluation: ')}")
    return sentences
