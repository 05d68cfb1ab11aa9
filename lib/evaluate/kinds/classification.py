"""Classification: the answer names one of the labels, or an alias of it."""

import json
import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from lib.brief import Deployment, Project, Section
from lib.endpoints import Call, Item, one_value
from lib.errors import PlaybookError
from lib.evaluate.kinds import defaults, options_of
from lib.evaluate.kinds.defaults import Reader, score_each
from lib.evaluate.scoring import NO_LABEL, Figure, metric_row
from lib.lines import required_text
from lib.reading import find_label
from lib.stats import macro_f1_interval

LEAST = 8  # items of a label: with fewer the interval of macro-F1 is not a 95 % one


class Options(Section):
    """`aliases` are other words for a label; `constrained` asks for JSON by schema."""

    labels: list[str]
    aliases: dict[str, list[str]] = {}
    constrained: bool = False


def check(brief: Project, options: Options) -> None:
    """Labels differ, none is blank, and worked examples use them."""
    labels, aliases = options.labels, options.aliases
    if len(set(labels)) < 2:
        raise ValueError("kind 'classification' needs labels: at least two different ones")
    if strange := sorted(set(aliases) - set(labels)):
        raise ValueError(f"aliases: {strange[0]!r} is not one of {labels}")
    words = [word.strip().casefold() for word in sum(aliases.values(), labels)]
    for word in words:
        if not word or words.count(word) > 1:
            raise ValueError(f"labels: {word!r} is blank or there twice; case does not count")
    for shot in brief.evaluation.shots:
        if shot.target not in labels:
            raise ValueError(f"shots: target {shot.target!r} is not one of {labels}")


def item_reader(brief: Project) -> Reader:
    """The target is one of the labels."""
    labels = options_of(brief).labels

    def read(item: dict[str, Any], where: str) -> dict[str, str]:
        if (target := required_text(item.get("target"), where, "target")) not in labels:
            raise PlaybookError(f"{where}: target {target!r} is not one of {labels}")
        return {"target": target}

    return read


def calls_of(brief: Project, deployment: Deployment) -> Callable[[Item], list[Call]]:
    """One chat an item; constrained, a label comes as `{"label": "positive"}`.

    OpenAI accepts an object at the root only, and llama.cpp and vLLM accept it too.
    """
    options = options_of(brief)
    if not options.constrained and deployment.answer_by == "text":
        return defaults.calls_of(brief, deployment)
    # An example in another form than the one that is enforced would mislead.
    extra: dict[str, Any] = one_value("label", enum=options.labels)
    extra["answer"] = lambda label: json.dumps({"label": label}, ensure_ascii=False)
    return defaults.calls_of(brief, deployment, **extra)


def score(brief: Project, usable: pd.DataFrame, **_: Any) -> pd.DataFrame:
    """Right where the answer names the target; `predicted` is the label it names."""
    options = options_of(brief)

    def grade(output: str, target: str) -> tuple[str, str | None, float]:
        label = find_label(output, options.labels, options.aliases)
        return "answered" if label else "unparsed", label, float(label == target)

    return score_each(usable, grade)


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """Accuracy with a Wilson interval, and macro-F1, whose interval needs `LEAST` items a label."""
    rows = [metric_row("accuracy", scored["score"], scored)]
    if len(scored):
        target = scored["target"].to_numpy(dtype=object)
        predicted = scored["predicted"].fillna(NO_LABEL).to_numpy(dtype=object)
        labels = options_of(brief).labels
        value, low, high = macro_f1_interval(target, predicted, labels, scored.get("group"))
        name = "macro-F1"
        if scored["target"].value_counts().reindex(labels, fill_value=0).min() < LEAST:
            name, low, high = f"{name} (interval: {LEAST} items a label)", math.nan, math.nan
        rows.append({"metric": name, "value": value, "low": low, "high": high})
    return rows


def figure(brief: Project, scored: pd.DataFrame, scores: pd.DataFrame, **_: Any) -> Figure:
    """Confusion matrices: `target` against `predicted`, failed calls left out."""
    answers = scored[scored["outcome"] != "failed"]
    labelled = answers.assign(predicted=answers["predicted"].fillna(NO_LABEL))
    counts = labelled.groupby(["deployment", "target", "predicted"], sort=False).size()
    frame = counts.rename("count").reset_index()
    return "confusion", {"counts": frame, "labels": options_of(brief).labels}
