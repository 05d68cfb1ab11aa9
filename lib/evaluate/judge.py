"""The judge: a model that is asked about answers, as a deployment is asked about items.

What a candidate wrote is hostile: it cannot end the place in the wording that it stands in.
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from lib import endpoints, legal, tables
from lib.artifacts import path_name
from lib.brief import Deployment, Judge, Options, Project
from lib.endpoints import FIELD, Call, answer_identity, one_value, request_options
from lib.errors import PlaybookError
from lib.evaluate import kinds
from lib.json_values import text_of
from lib.lines import read_json_lines, required_file, validated
from lib.plain_text import visible
from lib.stats import Rates, corrected_mean, corrected_rate, judge_agreement

TEXTS = ["input", "target", "output", "first", "second"]  # the judge's own words
TAG = re.compile(r"</?\s*([A-Za-z][\w-]*)[^<>]*>")
# Tokens such as <|im_end|> would end the turn itself: llama.cpp reads them inside a text too.
CONTROL = ("s", "bos", "eos", "start_of_turn", "end_of_turn")
ENDS = {"length": "cut off; raise judge.options.max_tokens or give judge.options.stop"}
ENDS |= dict.fromkeys(("content_filter", "refusal"), "refused")


def judge_of(brief: Project) -> Judge:
    """The judge, which the brief of a kind that needs one has."""
    assert brief.evaluation.judge is not None
    return brief.evaluation.judge


def as_deployment(judge: Judge) -> Deployment:
    """The judge as a deployment named `judge`, so that it is asked, priced and cached like one."""
    endpoint, model = judge.endpoint, judge.model
    if endpoint.recorded:
        raise PlaybookError("judge.endpoint: recorded outputs cannot judge; name a live one")
    if not endpoint.local and not endpoint.model:
        endpoint = endpoint.model_copy(update={"model": model})
    options = {"temperature": 0.0, "max_tokens": 16, "stop": []}
    is_repo = re.fullmatch(r"[\w.-]+/[\w.-]+", model)
    return Deployment(
        name="judge",
        model=model if is_repo else "judge/" + re.sub(r"[^\w.-]+", "-", model),
        endpoint=endpoint,
        options=Options(**options | judge.options.model_dump(exclude_none=True)),
        hardware=judge.hardware,
        price=judge.price,
    )


def messages(judge: Judge, /, **texts: str) -> list[dict[str, str]]:
    """The chat turns of one judgement, of `TEXTS` and the item's fields that the wording names."""
    turns = [("system", _wording(judge.system, texts))] if judge.system else []
    for shot in judge.shots:
        turns.append(("user", _wording(judge.user, shot.model_dump())))
        wording = '{"verdict": "{verdict}"}' if judge.answer_by == "schema" else judge.answer
        turns.append(("assistant", wording.replace("{verdict}", shot.verdict)))
    turns.append(("user", _wording(judge.user, texts)))
    return [{"role": role, "content": content} for role, content in turns]


def _wording(template: str, texts: dict[str, str]) -> str:
    """The wording with its texts, none of which can pass for a part of the wording."""
    names = "|".join(re.escape(name) for name in {*TAG.findall(template), *CONTROL})
    opening = re.compile(rf"<(?=[|｜]|\s*/?\s*(?:{names})\b)", re.IGNORECASE)

    def safe(match: re.Match[str]) -> str:
        text = opening.sub("&lt;", texts.get(match[1], ""))
        # Further lines are indented: none is like a line of the wording, or closes a ``` fence.
        return "\n    ".join(text.splitlines())

    return FIELD.sub(safe, template)


def with_item(brief: Project, rows: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Rows with what the judge's wording names of their item, `input` and `target` too."""
    columns = ["input", "target", *further_fields(judge_of(brief))]
    return rows.join(items.set_index("item_id").reindex(columns=columns), on="item_id")


def further_fields(judge: Judge) -> list[str]:
    """The fields of an item that the judge's wording names, beside the judge's own words."""
    names = FIELD.findall(f"{judge.system}\n{judge.user}")
    return [name for name in dict.fromkeys(names) if name not in TEXTS]


def ask(
    brief: Project, rows: pd.DataFrame, run: Path, *, label: str = "verdicts", **calls: Any
) -> pd.DataFrame:
    """Ask the judge about every row of texts for `messages`; equal questions are asked once.

    Added are `said`, the judge's answer without its reasoning, and `judge_error`, why there is
    none, or "". `label` and `calls` are for `endpoints.perform`.
    """
    judge = judge_of(brief)
    deployment = as_deployment(judge)
    who, options = answer_identity(brief, deployment), request_options(brief, deployment)
    texts = rows[rows.columns.intersection([*TEXTS, *further_fields(judge)])].astype(str)
    options |= _schema(brief) if judge.answer_by == "schema" else {}
    bodies = [{"messages": messages(judge, **row), **options} for row in tables.rows(texts)]
    keys = [endpoints.key_of(who, body) for body in bodies]
    once = [Call(key, "chat", body) for key, body in dict(zip(keys, bodies, strict=True)).items()]
    records = endpoints.perform([(deployment, once)], run, brief=brief, label=label, **calls)
    models = [records[key].get("served_model") for key in keys]
    usual = pd.Series(models, dtype=object).mode().get(0)
    read = [_read(records[key], brief.evaluation.reasoning_tags, usual) for key in keys]
    return rows.assign(said=[text for text, _ in read], judge_error=[why for _, why in read])


def _schema(brief: Project) -> dict[str, Any]:
    """The option for a verdict as JSON: a rating on the scale, A, B or tie, or a label."""
    judge, kind = judge_of(brief), kinds.of(brief.evaluation.kind)
    if kind.RATED:
        return one_value("verdict", "number", minimum=judge.scale[0], maximum=judge.scale[1])
    sides = ["A", "B", "tie"] if "{first}" in kind.JUDGED_BY else None
    return one_value("verdict", enum=sides or judge.labels)


def _read(record: dict[str, Any], tags: list[str], usual: str | None) -> tuple[str, str]:
    """The judge's answer and why it cannot be used; one that was cut off may lack its point."""
    text = visible(str(record["output"] or ""), tags).strip()[:10_000]
    if record["error"]:
        return "", f"judge: {record['error']}"
    if (reason := record["finish_reason"] or "stop") != "stop":
        return text, f"judge: {ENDS.get(reason, f'did not end by itself ({reason!s:.40})')}"
    if (model := record.get("served_model") or usual) != usual:  # it judges by its own measure
        return text, f"judge: answered by {model!r:.80}, most others by {usual!r:.80}"
    return text, "" if text else "judge: empty answer"


class Labelled(BaseModel):
    """One answer and what people said of it, with the item's fields that the wording names."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(min_length=1)
    input: str = ""
    target: str = ""
    output: str
    human: str | float


def load_labelled(brief: Project) -> pd.DataFrame:
    """Of `judge.calibration` `item_id input target output human`, and what the wording names."""
    judge = brief.evaluation.judge
    if judge is None or judge.calibration is None:
        return pd.DataFrame()
    path = required_file(brief.folder / judge.calibration, "evaluation.judge.calibration")
    where, rated = path_name(path), kinds.of(brief.evaluation.kind).RATED
    columns = ["item_id", "input", "target", "output", "human", *further_fields(judge)]
    lines = read_json_lines(path, wanted="id, output and human")
    table = pd.DataFrame([_label_row(raw, at, judge, rated) for at, raw in lines], columns=columns)
    for name in table.loc[table["item_id"].duplicated(), "item_id"]:
        raise PlaybookError(f"{where}: the id {name!r} is used twice")
    if len(table) < 2:
        raise PlaybookError(f"{where}: {len(table)} items; a judge is measured on two or more")
    passes = table["human"].isin(judge.pass_labels)
    if not rated and passes.nunique() == 1:
        missing = "failed" if passes.all() else "passed"
        raise PlaybookError(f"{where}: add answers that people {missing}; there is none")
    return table


def _label_row(raw: dict[str, Any], where: str, judge: Judge, rated: bool) -> tuple[Any, ...]:
    item = validated(TypeAdapter(Labelled), raw, where)
    low, high = judge.scale
    fits, wanted = item.human in judge.labels, f"one of {judge.labels}"
    if rated:
        fits = isinstance(item.human, float | int) and low <= item.human <= high
        wanted = f"a number from {low:g} to {high:g}"
    if not fits:
        raise PlaybookError(f"{where}: human must be {wanted}, not {item.human!r:.80}")
    if any(shot.output == item.output and shot.input in ("", item.input) for shot in judge.shots):
        raise PlaybookError(f"{where}: item {item.id!r} is also a shot; such an example is no test")
    texts, further = item.model_dump(), further_fields(judge)
    if lacking := [name for name in further if name not in texts]:
        raise PlaybookError(f"{where}: no {lacking[0]!r}, which the judge's wording names")
    return *list(texts.values())[:5], *(text_of(texts[name]) for name in further)


def rates(checked: pd.DataFrame, pass_labels: list[str]) -> Rates:
    """Count the judge's right verdicts among the answers that people passed, and failed."""
    judged = checked[checked["judge_error"] == ""]
    human, passed = (judged[column].isin(pass_labels) for column in ("human", "verdict"))
    return Rates(*(int(n.sum()) for n in (human & passed, human, ~human & ~passed, ~human)))


def flaw(brief: Project, checked: pd.DataFrame) -> str:
    """Why the judge's scores say nothing: labels show it no better than chance, or nothing."""
    judge, judged = judge_of(brief), checked[checked["judge_error"] == ""]
    if len(judged) < 2:
        return "cannot be measured"
    tells = kinds.of(brief.evaluation.kind).RATED or rates(checked, judge.pass_labels).youden > 0
    return "" if tells else "is not shown to be better than chance"


def trust(brief: Project, checked: pd.DataFrame) -> str:
    """One sentence: how far the judge's scores can be relied on, by `steps.calibrate`."""
    judge = judge_of(brief)
    if checked.empty:
        return (
            f"The judge {judge.model} is uncalibrated: how often it is right is not known;"
            " label some answers yourselves and name the file in judge.calibration."
        )
    judged = checked[checked["judge_error"] == ""]
    answers = f"{len(judged)} labelled answers"
    if unread := len(checked) - len(judged):
        answers += f" ({unread} more got no verdict that can be read)"
    why, rated, figure = flaw(brief, checked), kinds.of(brief.evaluation.kind).RATED, ""
    if len(judged) > 1:
        both = judged[["human", "rating" if rated else "verdict"]].to_numpy(float if rated else str)
        value, low, high = judge_agreement(*both.T, rated=rated)
        name = "κ (quadratic weights)" if rated else "Cohen's κ"
        figure = f"{name} {value:.2f} ({low:.2f} to {high:.2f})"
    if why:
        return (
            f"The judge {judge.model} {why} on {answers}{figure and f' ({figure})'}:"
            " its scores are not usable; try another wording or another judge."
        )
    doubt = "" if low > 0 else "; it may be no better than chance, so label more answers"
    return f"The judge {judge.model} was measured on {answers}: {figure}{doubt}."


def same_family(judge: Judge, deployments: list[Deployment], models: pd.DataFrame) -> list[str]:
    """One sentence for each candidate that is of the judge's own family, or else of its owner."""
    families, direct = models.set_index("repo_id")["family"].dropna(), legal.bases(models)

    def kin(repo_id: str) -> dict[str, str]:
        line = [repo_id, *legal.ancestors(repo_id, direct)]
        names = (str(families.get(one, one.split("/")[0])) for one in line)
        return {name.casefold(): name for name in names}

    judges = kin(judge.model)
    return [
        f"the judge {judge.model} and the candidate {d.name!r} ({d.model}) are both of the family"
        f" {judges[min(shared)]}: a judge may favour its own kind, so judge with another model"
        " or look at the calibration of this candidate's answers"
        for d in deployments
        if (shared := judges.keys() & kin(d.model).keys())
    ]


def correct(
    brief: Project, scores: pd.DataFrame, scored: pd.DataFrame, checked: pd.DataFrame
) -> pd.DataFrame:
    """Say in every score's basis how its judge was measured, and correct the score if it was.

    Each deployment is led by its corrected figure, now the primary one; it is missing where the
    judge has a `flaw`. Comparisons go on using the judge's own scores: its errors on both cancel
    in a paired test, as long as it favours neither.
    """
    judge = judge_of(brief)
    if checked.empty:
        return scores.assign(basis=scores["basis"] + ", uncalibrated judge")
    measured = checked[checked["judge_error"] == ""]
    bias = measured["rating"].astype(float) - pd.to_numeric(measured["human"], errors="coerce")
    bias /= judge.scale[1] - judge.scale[0]
    correction: Any = partial(corrected_rate, counts=rates(checked, judge.pass_labels))
    if kinds.of(brief.evaluation.kind).RATED:
        correction = partial(corrected_mean, bias=bias)
    parts = []
    for name, figures in scores.groupby("deployment", sort=False):
        rows = scored[(scored["deployment"] == name) & (scored["outcome"] != "failed")]
        values, judged = rows["score"].to_numpy(dtype=float), rows["outcome"] == "answered"
        value, low, high = correction(values, judged, groups=rows.get("group"))
        first = figures[figures["primary"].astype(bool)].assign(value=value, low=low, high=high)
        first["metric"] += " (corrected)"
        parts += [first, figures.assign(primary=False)]
    basis = f", judge {flaw(brief, checked) or 'measured'} on {len(measured)} labelled answers"
    scores = pd.concat(parts, ignore_index=True) if parts else scores
    return scores.assign(basis=scores["basis"] + basis)
