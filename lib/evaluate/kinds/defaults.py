"""What a kind of task does unless its own file says otherwise: text is asked for and compared."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lib import plain_text
from lib.brief import Deployment, Project, Section
from lib.endpoints import Call, Item, chat_calls
from lib.evaluate.scoring import Figure, outcome_shares
from lib.lines import required_text
from lib.stats import compare_pairs

NEEDS = "endpoint"  # what a deployment must have: an endpoint or published figures
ASKS_ITEMS = True  # whether items are read and asked one by one
PLACES: tuple[str, ...] = ()  # of a wording that are the kind's own, beside the items' fields
JSON_FIELDS: tuple[str, ...] = ()  # fields of an item that are JSON, also in a cell of a CSV file
JUDGED_BY: tuple[str, ...] = ()  # what the judge's wording must hold; () for a kind without judge
RATED = False  # whether the judge gives numbers, not labels
UNPLANNED = ""  # why nobody can say before how much will be asked
RELATIVE = False  # whether an answer's score hangs on who else was asked
MARKS = ("right", "partly right", "wrong")  # an answer of score 1, between, and 0, to its reader
GRADES = ("full score", "partial score", "score 0")  # the same where nothing is right or wrong

Reader = Callable[[dict[str, Any], str], dict[str, str]]
visible = plain_text.visible


class Options(Section):
    """The keys of `evaluation` that belong to the kind."""


def check(brief: Project, options: Any) -> None:
    """Raise a ValueError where the options do not go with the rest of the brief."""


def item_reader(brief: Project) -> Reader:
    """A function of an item of the file and its place, to the fields that are this kind's.

    `target` is among them, as text. An item that is not usable is a PlaybookError.
    """
    return lambda item, where: {"target": required_text(item.get("target"), where, "target")}


def any_item(item: dict[str, Any], where: str) -> dict[str, str]:
    """Of a kind whose options are wrong: no item is refused for what only they could say."""
    return {}


def calls_of(brief: Project, deployment: Deployment, **extra: Any) -> Callable[[Item], list[Call]]:
    """A function of an item to its calls, without keys; `extra` is for `requests.chat_calls`."""
    chat = chat_calls(brief, deployment, **extra)
    return lambda item: [chat(item)]


def answer_of(brief: Project, item: Item, records: list[tuple[str, Any]]) -> dict[str, Any]:
    """The facts of an item's answer from the records of its calls, as (part, record)."""
    record = records[0][1]
    calls = record.get("tool_calls")
    return {**record, "output": json.dumps(calls, ensure_ascii=False)} if calls else record


def gather(brief: Project, deployments: list[Deployment], run: Path) -> pd.DataFrame | None:
    """All answers of a source that stands in for asking; None where items are asked."""
    return None


def judge_calls(deployments: list[Deployment]) -> list[dict[str, str]]:
    """The judge's calls about an item: for each, whose answer stands in which place."""
    return []


def grade(brief: Project, answers: pd.DataFrame, items: pd.DataFrame, **judge: Any) -> Any:
    """The judge's records of `visible_answers`, None without a judge; `judge` is for `ask`."""
    return None


# Of the judge's records, what it `said` as `verdict` and `rating`; then labels can measure it.
read_verdicts: Callable[..., pd.DataFrame] | None = None


def score(brief: Project, usable: pd.DataFrame, **_: Any) -> pd.DataFrame:
    """What each usable answer is worth; every kind has its own.

    It takes the answers that can be read, with `output` made visible, and perhaps `items` and what
    the judge `graded`. Returned is one row each, same index: `outcome` (answered, unparsed, failed
    without a verdict), `predicted` (text or None), `score` (0 to 1) and perhaps `detail` (text).
    """
    raise NotImplementedError


def score_each(usable: pd.DataFrame, grade: Callable[[str, str], tuple[Any, ...]]) -> pd.DataFrame:
    """As `score` gives it, each row from a function of the answer's output and target."""
    table = pd.DataFrame([*map(grade, usable["output"], usable["target"])], usable.index)
    return table.set_axis(["outcome", "predicted", "score", "detail"][: table.shape[1]], axis=1)


def metrics(brief: Project, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows from `scoring.metric_row` of one deployment's answers; every kind has its own.

    Failed calls are not among them. The first metric is the primary one: requirements test it.
    """
    raise NotImplementedError


def joint_scores(brief: Project, graded: pd.DataFrame | None) -> pd.DataFrame:
    """Figures of all deployments together: `deployment metric value low high n`."""
    return pd.DataFrame(columns=["deployment"])


def compare(scored: pd.DataFrame, graded: pd.DataFrame | None) -> pd.DataFrame:
    """Every pair of deployments on the same items, in the columns of `stats.compare_pairs`."""
    return compare_pairs(scored)


def judge_notes(brief: Project, graded: Any, checked: pd.DataFrame) -> list[str]:
    """What to know about the judge, in sentences."""
    return []


def correct(brief: Project, scores: Any, scored: Any, checked: pd.DataFrame) -> Any:
    """The scores corrected for the judge's measured mistakes."""
    return scores


def figure(brief: Project, scored: pd.DataFrame, scores: pd.DataFrame, **_: Any) -> Figure:
    """Which generic figure shows where candidates go wrong; it may take `items` and `graded`."""
    marks = scored["score"].astype(float).map({1.0: "right", 0.0: "wrong"}).fillna("partly right")
    tones = {"right": "good", "partly right": "fair", "wrong": "bad"}
    metric = scores.loc[scores["primary"], "metric"].iloc[0]
    return outcome_shares(scored, marks, tones, title="What became of the answers", metric=metric)


def visible_or_record(output: str, tags: Sequence[str]) -> str:
    """As `visible`; JSON as a whole is the record of several calls or documents and stays."""
    return output if isinstance(json_or_none(output), dict | list) else visible(output, tags)


def json_or_none(text: str) -> Any:
    """The value of a text that may be JSON which we wrote; None where it is none."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    return None


def by_metric(
    scores: pd.DataFrame, names: Mapping[str, str], best: str
) -> list[tuple[str, pd.DataFrame]]:
    """Frames of small multiples: a metric each under its title, the best deployment on top."""
    by_metric = dict(list(scores.set_index("deployment").groupby("metric")))
    order = by_metric[best].sort_values("value", ascending=False, kind="stable").index
    return [(title, by_metric[name].reindex(order).reset_index()) for name, title in names.items()]
