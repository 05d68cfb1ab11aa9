"""Answers in words: which label one names (`classification`), or whether it says it (`exact`)."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd

from lib.brief.project import Project
from lib.evaluate.scoring import NO_LABEL, clusters, measured
from lib.stats import paired_tests as stats

__all__ = ["RULES", "accepted", "find_label", "metrics", "normalise", "score"]

RULES = ("nfkc", "casefold", "whitespace", "punctuation")
NEGATED = r"(?:not|never|non|\w+n't)(?:[\s-]+(?:an?|the))?[\s-]+"
# A number that stands alone: no part of a word, a date, a time, a ratio or a version.
NUMBER = re.compile(
    r"(?<![\w.,:/])(?<![0-9]-)([-+]?)([0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(\.[0-9]+)?"
    r"(?!\w|[.,:/-][0-9])"
)
FENCE = re.compile(r"^```\w*\s*\n(.*?)\n?```$", re.DOTALL)


def normalise(text: str, rules: Sequence[str] = RULES) -> str:
    """Text for comparison, by the rules a brief names; always in this order.

    - `nfkc`: one form of every character (full width, ligatures, combined accents), and the
      typographic apostrophe as the plain one.
    - `casefold`: capitals do not count.
    - `whitespace`: a run of white space is one space; none at the ends.
    - `punctuation`: punctuation, quotes and brackets around the whole text do not count. What
      tells one answer from another stays: .5 is not 5, <5 is not >5, ? is not nothing.
    - `articles`: the English words a, an and the do not count before another word.
    - `numbers`: a number that stands alone is compared by value: 1,000 = 1000 = 1000.0 = +1000,
      .50 = 0.5, -0 = 0. A currency sign or a unit beside it stays, so $3.50 is $3.5 and not
      3.5, and 5% is not 5. Dates, times, exponents and decimal commas stay text.
    """
    done = text
    if "nfkc" in rules:
        done = unicodedata.normalize("NFKC", done).replace("’", "'")
    if "casefold" in rules:
        done = done.casefold()
    if "whitespace" in rules:
        done = " ".join(done.split())
    if "punctuation" in rules:
        done = done.lstrip(" ,;:!?\"'`*()[]{}").rstrip(" .,;:!?\"'`*()[]{}") or done
    if "articles" in rules:
        done = re.sub(r"(?<!\S)(?:an?|the)\s+(?=\S)", "", done, flags=re.IGNORECASE)
    if "numbers" in rules:
        done = NUMBER.sub(_canonical, done.replace("−", "-"))
    return done


def _canonical(found: re.Match[str]) -> str:
    # On the digits themselves: a float would make 0.1 of 0.1000000000000000055.
    sign, whole, fraction = found[1], found[2], (found[3] or "").rstrip("0").rstrip(".")
    if not whole and not found[3]:
        return found[0]
    value = (whole.replace(",", "").lstrip("0") or "0") + fraction
    return ("-" if sign == "-" and value != "0" else "") + value


def accepted(target: str) -> list[str]:
    """The answers that count as right: of a JSON list of texts any one, otherwise the text."""
    if target.startswith("["):
        try:
            several = json.loads(target)
        except (ValueError, RecursionError):
            return [target]
        if isinstance(several, list) and several and all(isinstance(t, str) for t in several):
            return several
    return [target]


def find_label(
    text: str, labels: Sequence[str], aliases: Mapping[str, Sequence[str]] | None = None
) -> str | None:
    """The one label an answer names, or None where it names none or several.

    A JSON answer is read first: a text, an object with the key `label`, or one with a single
    value, in a code fence or not. Then the whole answer is compared, then whole words, the
    longest first: "Sentiment: positive." names positive; "positive or negative" names nothing,
    nor does "not positive" unless that is a label. An alias counts as its label.
    """
    names, words = _vocabulary(
        tuple(labels), tuple((label, tuple(own)) for label, own in (aliases or {}).items())
    )
    constrained = _from_json(text)
    if constrained is not None and (label := names.get(normalise(constrained))):
        return label
    answer = normalise(text)
    if answer in names:
        return names[answer]
    found = {(bool(negation), names[name]) for negation, name in words.findall(answer)}
    negated, label = found.pop() if len(found) == 1 else (True, "")
    return None if negated else label


@lru_cache(maxsize=64)
def _vocabulary(
    labels: tuple[str, ...], aliases: tuple[tuple[str, tuple[str, ...]], ...]
) -> tuple[dict[str, str], re.Pattern[str]]:
    pairs = [(word, label) for label, own in aliases for word in own]
    names = {normalise(word): label for word, label in pairs}
    names |= {normalise(label): label for label in labels}
    listed = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return names, re.compile(rf"(?<!\w)({NEGATED})??({listed})(?!\w)")


def _from_json(text: str) -> str | None:
    inner = text.strip()
    inner = found[1].strip() if (found := FENCE.match(inner)) else inner
    if inner[:1] not in ("{", '"'):
        return None
    try:
        value: Any = json.loads(inner)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        value = value.get("label", next(iter(value.values())) if len(value) == 1 else None)
    return value if isinstance(value, str) else None


def score(brief: Project, asked: pd.DataFrame, **_: Any) -> pd.DataFrame:
    """Score usable answers as right or wrong; see `lib.scoring` for columns.

    `predicted` is the label an answer names, or for kind `exact` the normalised text.
    """
    evaluation = brief.evaluation
    if evaluation.kind == "classification":
        predicted = [find_label(t, evaluation.labels, evaluation.aliases) for t in asked["output"]]
        right = [p == target for p, target in zip(predicted, asked["target"], strict=True)]
    else:
        rules = evaluation.normalise
        predicted = [normalise(text, rules) or None for text in asked["output"]]
        wanted = {
            target: {normalise(text, rules) for text in accepted(target)}
            for target in asked["target"].unique()
        }
        right = [p in wanted[target] for p, target in zip(predicted, asked["target"], strict=True)]
    return pd.DataFrame(
        {
            "outcome": ["answered" if p else "unparsed" for p in predicted],
            "predicted": predicted,
            "score": [float(r) for r in right],
        },
        index=asked.index,
    )


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """Accuracy with a Wilson interval, and macro-F1 with a bootstrap one for classification."""
    rows = [measured("accuracy", scored["score"], scored, primary=True)]
    if brief.evaluation.kind == "classification" and len(scored):
        value, low, high = stats.macro_f1_interval(
            scored["target"].to_numpy(dtype=object),
            scored["predicted"].fillna(NO_LABEL).to_numpy(dtype=object),
            brief.evaluation.labels,
            clusters(scored),
        )
        rows.append({"metric": "macro-F1", "value": value, "low": low, "high": high})
    return rows
