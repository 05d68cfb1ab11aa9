"""Exact match: the answer says the target, after the rules of `normalise`."""

import json
from typing import Any, Literal

import pandas as pd

from lib.brief import Project, Section
from lib.errors import PlaybookError
from lib.evaluate.kinds import options_of
from lib.evaluate.kinds.defaults import Reader, score_each, text_target
from lib.evaluate.scoring import Figure, clusters, means, measured, outcome_shares
from lib.json_values import canonical
from lib.plain_text import normalise

LEAST = 5  # items of a group: fewer say nothing
PANELS = 7
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
        text = text_target(item, where)
        # A text that reads like a list of texts is still one text.
        return text if _accepted(text) == [text] else canonical([text])
    if not target or not all(isinstance(text, str) and text.strip() for text in target):
        raise PlaybookError(
            f"{where}: target must be text or a list of texts, any of which counts,"
            f" not {target!r:.200}"
        )
    return canonical(target)


def _accepted(target: str) -> list[str]:
    """The answers that count as right: of a JSON list of texts any one, otherwise the text."""
    if target.startswith("["):
        try:
            several = json.loads(target)
        except (ValueError, RecursionError):
            return [target]
        if isinstance(several, list) and several and all(isinstance(t, str) for t in several):
            return several
    return [target]


def score(brief: Project, usable: pd.DataFrame, **_: Any) -> pd.DataFrame:
    """Right where the answer is an accepted one; `predicted` is the normalised text."""
    rules = options_of(brief).normalise
    targets = usable["target"].unique()
    wanted = {target: {normalise(text, rules) for text in _accepted(target)} for target in targets}

    def grade(output: str, target: str) -> tuple[str, str | None, float]:
        text = normalise(output, rules)
        right = text != "" and text in wanted[target]
        return "answered" if text else "unparsed", text or None, float(right)

    return score_each(usable, grade)


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """Accuracy with its interval."""
    return [measured("accuracy", scored["score"], scored, primary=True)]


def figure(brief: Project, scored: pd.DataFrame, scores: pd.DataFrame, **_: Any) -> Figure:
    """Accuracy overall and in the groups where all candidates together are weakest."""
    if clusters(scored) is None:
        return outcome_shares(scored, title="What became of the answers", metric="accuracy")
    sizes = scored.groupby("group")["item_id"].nunique()
    enough = (scored["group"].str.strip() != "") & (scored["group"].map(sizes) >= LEAST)
    large_groups = scored[enough]
    hardest = large_groups.groupby("group")["score"].mean().sort_values(kind="stable").index
    overall = means(scored)
    tables = [("all items", overall)]
    for group in hardest[:PANELS]:
        of_group = means(large_groups[large_groups["group"] == group]).set_index("deployment")
        panel = of_group.reindex(overall["deployment"]).reset_index()
        tables.append((f"{group}, n = {sizes[group]}", panel))
    title = "Accuracy by group, the hardest first"
    title += f" ({PANELS} of {len(hardest)})" if len(hardest) > PANELS else ""
    return "multiples", {"tables": tables, "title": title}
