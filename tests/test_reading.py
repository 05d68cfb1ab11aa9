"""Which label an answer names, and when two texts are the same answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answer_rows import metrics_of, scored_one
from briefs import brief
from effort import little_work
from sklearn.metrics import f1_score

from lib import plain_text, reading
from lib.brief.project import Project
from lib.evaluate.kinds.classification import LEAST
from lib.evaluate.kinds.exact import _answers
from lib.stats import intervals as stats

SENTIMENT = ["positive", "negative"]
ALL = ["nfkc", "casefold", "whitespace", "punctuation", "articles", "numbers"]


def exact(tmp_path: Path, **more: Any) -> Project:
    return brief(tmp_path, "evaluation", {"kind": "exact", "items": "items.jsonl", **more})


def shapes() -> Iterator[tuple[str, str, str]]:
    """What is looked for, an answer, and what it says: "-" where that is not clear.

    In the file ¦ stands between answers, ⏎ for a new line and \\u for what cannot be seen.
    """
    wanted = value = ""
    for line in Path(__file__).with_name("answer_shapes.txt").read_text("utf-8").splitlines():
        if line.startswith("# "):
            wanted = line[2:]
        elif line.startswith("= "):
            value = line[2:]
        else:
            for text in line[2:].split(" ¦ "):
                plain = re.sub(r"\\u(\w{4})", lambda match: chr(int(match[1], 16)), text)
                yield wanted, plain.replace("⏎", "\n").replace("\\\\", "\\"), value


def read(wanted: str, text: str) -> str:
    if wanted == "rating 1 to 5":
        rating = reading.find_rating(text, (1.0, 5.0))
        return "-" if rating is None else f"{rating:g}"
    if wanted == "order of 4":
        return " ".join(map(str, reading.find_order(text, 4) or "-"))
    if wanted == "preference":
        return reading.find_preference(text) or "-"
    return reading.find_label(text, wanted.split("|")) or "-"


SHAPES = list(shapes())


def test_there_are_shapes_of_every_kind() -> None:
    assert len(SHAPES) > 3400
    unclear = sum(value == "-" for _, _, value in SHAPES)
    assert 1900 < unclear < 2400


@pytest.mark.parametrize("wanted", dict.fromkeys(wanted for wanted, _, _ in SHAPES))
def test_answers_are_read_or_not_at_all(wanted: str) -> None:
    own = [(text, value) for kind, text, value in SHAPES if kind == wanted]
    assert {text: read(wanted, text) for text, _ in own} == dict(own)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("positive", "positive"),
        ("Sentiment: positive.", "positive"),
        ("**Negative**", "negative"),
        ("Sentiment: **positive**", "positive"),
        ('"positive"', "positive"),
        ("The review is negative, clearly negative.", "negative"),
        ("POSITIVE\nbecause it is good", "positive"),
        ("positive or negative", None),
        ("neither positive nor negative", None),
        ("not positive", None),
        ("It is not positive.", None),
        ("This isn't a positive review", None),
        ("This isn’t positive", None),
        ("non-negative", None),
        ("positively", None),
        ("nonpositive", None),
        ("", None),
        ("...", None),
    ],
)
def test_find_label(text: str, label: str | None) -> None:
    assert reading.find_label(text, SENTIMENT) == label


@pytest.mark.parametrize(
    ("text", "among", "label"),
    [
        ("not positive", ["positive", "not positive"], "not positive"),
        ("Sentiment: not positive", ["positive", "not positive"], "not positive"),
        ("Sentiment: positive", ["positive", "not positive"], "positive"),
        ("positive, not not positive", ["positive", "not positive"], "positive"),
        ("I would say very bad.", ["bad", "very bad"], "very bad"),
        ("the language is c++", ["c", "c++"], "c++"),
        ("the language is c", ["c", "c++"], None),
        ("the label is c", ["c", "c++"], "c"),
        ("a.b", ["a.b", "a-b"], "a.b"),
        ("say axb", ["a.b", "a-b"], None),
        ("level [1]", ["[1]", "[2]"], "[1]"),
        ("the grade is A+", ["A", "A+"], "A+"),
        ("x*", ["x*", "y"], "x*"),
        ("Ergebnis: ÄRGERLICH!", ["ärgerlich", "froh"], "ärgerlich"),
        ("caf\u0065\u0301", ["café", "tea"], "café"),
        ("ＰＯＳＩＴＩＶＥ", SENTIMENT, "positive"),
        ("情感：积极", ["积极", "消极"], "积极"),
        ("👍", ["👍", "👎"], "👍"),
        ("STRASSE", ["straße", "weg"], "straße"),
        ("!", ["!", "?"], "!"),
        ("", ["!", "?"], None),
        ("yes", ["Yes", "No"], "Yes"),
        ("No, it is not", ["Yes", "No"], "No"),
    ],
)
def test_find_label_among(text: str, among: list[str], label: str | None) -> None:
    assert reading.find_label(text, among) == label


ALIASES = {"positive": ["good", "thumbs up"], "negative": ["bad"]}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Good!", "positive"),
        ("I would say: thumbs up", "positive"),
        ("good, so positive", "positive"),
        ("good or bad", None),
        ("positive, not bad", "positive"),
        ("not good", None),
        ("goodness", None),
        ('{"label": "Positive"}', "positive"),
        ('{"label": "good", "reason": "not bad at all"}', "positive"),
        ('```json\n{"label": "negative"}\n```', "negative"),
        ('{"sentiment": "bad"}', "negative"),
        ('"negative"', "negative"),
        ('{"label": "neither", "other": "positive"}', None),
        ('{"label": ["positive", "negative"]}', None),
        ('{"label": null}', None),
        ("{" * 5000, None),
        ('{"a":' * 5000 + "1", None),
    ],
)
def test_aliases_and_constrained_answers(text: str, label: str | None) -> None:
    assert reading.find_label(text, SENTIMENT, ALIASES) == label


@pytest.mark.parametrize(
    "text",
    ["a" * 1_000_000, "not " * 250_000, "- " * 500_000, "not" + "-" * 1_000_000, "1" * 10**6],
)
def test_a_million_characters_take_no_time(text: str) -> None:
    with little_work():
        assert reading.find_label(text, SENTIMENT) is None
        plain_text.normalise(text, ALL)


def test_classification_with_aliases(tmp_path: Path) -> None:
    project = brief(tmp_path, "evaluation.aliases", ALIASES)
    row = scored_one(project, output="Good")
    assert (row["outcome"], row["predicted"], row["score"]) == ("answered", "positive", 1.0)
    row = scored_one(project, output="hm")
    assert (row["outcome"], row["predicted"], row["score"]) == ("unparsed", None, 0.0)


def test_macro_f1_is_sklearns(tmp_path: Path) -> None:
    said = ["positive"] * 30 + ["negative"] * 12 + ["hm"] * 3
    wanted = ["positive"] * 24 + ["negative"] * 21
    rows = [{"output": o, "target": t} for o, t in zip(said, wanted, strict=True)]
    scores = metrics_of(brief(tmp_path), *rows)
    row = scores.loc["macro-F1"]
    assert row["value"] == pytest.approx(f1_score(wanted, said, labels=SENTIMENT, average="macro"))
    # by hand: positive 24 of 30 said and 24 wanted; negative 12 of 12 said and 21 wanted
    assert row["value"] == pytest.approx((48 / 54 + 24 / 33) / 2)
    assert row["low"] < row["value"] < row["high"]
    assert scores["primary"].to_dict() == {"accuracy": True, "macro-F1": False}


@pytest.mark.parametrize(("rare", "trusted"), [(LEAST, True), (LEAST - 1, False)])
def test_macro_f1_with_few_items_of_a_label_has_no_interval(
    tmp_path: Path, rare: int, trusted: bool
) -> None:
    targets = ["positive"] * 30 + ["negative"] * rare
    scores = metrics_of(brief(tmp_path), *({"output": t, "target": t} for t in targets))
    name = "macro-F1" if trusted else f"macro-F1 (interval: {LEAST} items a label)"
    assert scores.loc[name, "value"] == 1
    assert scores.loc[name, ["low", "high"]].notna().all() == trusted


@pytest.mark.parametrize(
    ("each", "least", "most"),
    # Of 3 to 77 labels, even or not, 0.6 to 0.95 right: 0.17 to 0.89 at one item a label, 0.75 to
    # 0.97 at two, 0.88 to 0.98 at five, 0.92 to 0.98 at eight.
    [(2, 0.0, 0.87), (LEAST, 0.9, 0.99)],
)
def test_how_many_items_a_label_needs(each: int, least: float, most: float) -> None:
    labels, right = 77, 0.6
    random = np.random.default_rng(2)
    wrong = random.dirichlet(np.full(labels, 0.3), labels) * (1 - np.eye(labels))
    chances = wrong / wrong.sum(axis=1, keepdims=True) * (1 - right) + right * np.eye(labels)
    truth = float((2 * np.diag(chances) / (1 + chances.sum(axis=0))).mean())
    target = np.repeat(np.arange(labels), each)
    inside = 0
    for _ in range(300):
        drawn = (random.random((len(target), 1)) > chances.cumsum(axis=1)[target]).sum(axis=1)
        _, low, high = stats.macro_f1_interval(target, drawn.clip(max=labels - 1), range(labels))
        inside += low <= truth <= high
    assert least <= inside / 300 <= most


def test_exact_has_no_f1(tmp_path: Path) -> None:
    assert list(metrics_of(exact(tmp_path), {}, {}).index) == ["accuracy"]


@pytest.mark.parametrize(
    ("output", "target", "score"),
    [
        ("Paris", "paris", 1.0),
        (" Paris.\n", "Paris", 1.0),
        ("The  answer", "the answer", 1.0),
        ("42", "42", 1.0),
        ("4 2", "42", 0.0),
        ("It is Paris", "Paris", 0.0),
        (".5", "5", 0.0),
        ("<5", ">5", 0.0),
        ("-5", "5", 0.0),
        ("?", "?", 1.0),
        ("?", "!", 0.0),
    ],
)
def test_exact_match(tmp_path: Path, output: str, target: str, score: float) -> None:
    row = scored_one(exact(tmp_path), output=output, target=target)
    assert (row["outcome"], row["score"]) == ("answered", score)


@pytest.mark.parametrize(
    ("rules", "text", "normal"),
    [
        (["casefold"], " The Answer.", " the answer."),
        (["whitespace"], " The\t Answer. ", "The Answer."),
        (["punctuation"], '"The Answer."', "The Answer"),
        (["nfkc"], "ﬁve ½ Ａ isn’t", "five 1⁄2 A isn't"),
        (["articles"], "The cat and a dog", "cat and dog"),
        (["articles"], "option A", "option A"),
        (["articles"], "A", "A"),
        (["articles"], "another theme", "another theme"),
        (["numbers"], "1,000", "1000"),
        (["numbers"], "1000.0", "1000"),
        (["numbers"], "+1,234,567.50", "1234567.5"),
        (["numbers"], ".50", "0.5"),
        (["numbers"], "007", "7"),
        (["numbers"], "-0.0", "0"),
        (["numbers"], "−5", "-5"),
        (["numbers"], "$3.50", "$3.5"),
        (["numbers"], "5%", "5%"),
        (["numbers"], "2020-01-02 12:00 1/02 v1.10 1e3", "2020-01-02 12:00 1/02 v1.10 1e3"),
        (["numbers"], "1.000,50 or 1,00", "1.000,50 or 1,00"),
        (["numbers"], "it is 3.10 km.", "it is 3.1 km."),
        ([], "  As It Is. ", "  As It Is. "),
        (ALL, "The answer is 1,000.00.", "answer is 1000"),
    ],
)
def test_rules(rules: list[str], text: str, normal: str) -> None:
    assert plain_text.normalise(text, rules) == normal
    assert plain_text.normalise(normal, rules) == normal


def test_the_briefs_rules_are_used(tmp_path: Path) -> None:
    numbers = exact(tmp_path, normalise=["whitespace", "numbers"])
    assert scored_one(numbers, output="1,000.0", target="1000")["score"] == 1.0
    assert scored_one(numbers, output="KM", target="km")["score"] == 0.0
    assert scored_one(exact(tmp_path), output="1,000.0", target="1000")["score"] == 0.0


def test_any_of_several_targets_counts(tmp_path: Path) -> None:
    several = json.dumps(["Paris", "City of Light"])
    project = exact(tmp_path)
    assert scored_one(project, output="city of light", target=several)["score"] == 1.0
    assert scored_one(project, output="Lyon", target=several)["score"] == 0.0
    assert scored_one(project, output="[broken", target="[broken")["score"] == 1.0
    assert _answers("[1, 2]") == ["[1, 2]"]


def test_accuracy_is_clustered_by_group(tmp_path: Path) -> None:
    rows = [{"output": "negative" if i % 20 < 8 else "positive"} for i in range(200)]
    alone = metrics_of(brief(tmp_path), *rows).loc["accuracy"]
    assert (alone["low"], alone["high"]) == stats.wilson(120, 200)
    together = [row | {"group": f"g{i % 20}"} for i, row in enumerate(rows)]
    grouped = metrics_of(brief(tmp_path), *together).loc["accuracy"]
    assert grouped["value"] == alone["value"] == 0.6
    assert grouped["high"] - grouped["low"] > 2 * (alone["high"] - alone["low"])
