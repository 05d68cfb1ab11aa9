"""Exact match: the answer says the target, after the rules of `normalise`."""

from typing import Any, Literal

import pandas as pd

from lib.brief import Project, Section
from lib.errors import PlaybookError
from lib.evaluate.kinds import options_of
from lib.evaluate.kinds.defaults import Reader, json_or_none, score_each
from lib.evaluate.scoring import metric_row
from lib.json_values import canonical
from lib.lines import required_text
from lib.plain_text import normalise
from lib.untrusted import as_list

Rule = Literal["nfkc", "casefold", "whitespace", "punctuation", "articles", "numbers"]


class Options(Section):
    """`normalise` says what does not count in a comparison; see `plain_text.normalise`."""

    normalise: list[Rule] = ["nfkc", "casefold", "whitespace", "punctuation"]


def item_reader(brief: Project) -> Reader:
    """The target is a text, or a list of texts of which any counts."""
    return lambda item, where: {"target": _target(item, where)}


def _target(item: dict[str, Any], where: str) -> str:
    target = item.get("target")
    if not isinstance(target, list):
        text = required_text(target, where, "target")
        # A text that reads like a list of texts is still one text.
        return text if _answers(text) == [text] else canonical([text])
    if not target or not all(isinstance(text, str) and text.strip() for text in target):
        raise PlaybookError(f"{where}: target must be text or a list of it, not {target!r:.200}")
    return canonical(target)


def _answers(target: str) -> list[str]:
    """The answers that count as right: of a JSON list of texts any one, otherwise the text."""
    texts = as_list(json_or_none(target))
    return texts if texts and all(isinstance(text, str) for text in texts) else [target]


def score(brief: Project, usable: pd.DataFrame, **_: Any) -> pd.DataFrame:
    """Right where the answer is an accepted one; `predicted` is the normalised text."""
    rules = options_of(brief).normalise
    targets = usable["target"].unique()
    wanted = {target: {normalise(text, rules) for text in _answers(target)} for target in targets}

    def grade(output: str, target: str) -> tuple[str, str | None, float]:
        text = normalise(output, rules)
        right = text != "" and text in wanted[target]
        return "answered" if text else "unparsed", text or None, float(right)

    return score_each(usable, grade)


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """Accuracy with its interval."""
    return [metric_row("accuracy", scored["score"], scored)]
