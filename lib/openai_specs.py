"""Specs of OpenAI evals: the `evaluation` section that one means, and what it does not carry.

Both forms are read: the open-source registry's YAML (github.com/openai/evals) and the Evals API's
JSON with `testing_criteria`; the platform closes on 30 November 2026.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from lib.artifacts import shown
from lib.errors import PlaybookError
from lib.openai_evals import INPUTS, prompt_text

__all__ = ["openai_evals_brief"]

MAX_SPEC_BYTES = 4_000_000
CLASSIFY = (
    "Answer the question by printing only a single choice from {choices} (without quotes or"
    " punctuation) corresponding to the correct answer with no other text."
)
EXACT = "Reply with the answer only."
FUZZY = ["nfkc", "casefold", "whitespace", "punctuation", "articles"]
TEMPLATE = re.compile(r"\{\{\s*(item|sample)\.([\w.]+)\s*\}\}")
PLACE = re.compile(r"(?<!\{)\{(\w+)\}(?!\})")
Section = dict[str, Any]


def openai_evals_brief(spec_path: Path, *, name: str | None = None) -> dict[str, Any]:
    """The `evaluation` section that a spec of OpenAI evals means, as far as there is one.

    Match and string checks become `exact`, model-graded specs and label models `judged`, ratings
    and score models `scoring`. What is scored otherwise here is said in `notes`, never hidden.

    Args:
        spec_path: A YAML file of the registry (its `modelgraded` specs are looked up beside it),
            a `modelgraded` spec itself, or the Evals API's JSON.
        name: Which eval or criterion, where the file holds several.

    Returns:
        `evaluation` (a dict for project.yaml), `notes` (sentences) and `samples` (the data file
        that the spec names, or "").

    Raises:
        PlaybookError: The file cannot be read, holds several evals, or has none with a
            counterpart here.
    """
    where = shown(spec_path)
    spec = _load(spec_path)
    if isinstance(spec.get("testing_criteria"), list):
        return _from_api(spec, name, where)
    if isinstance(spec.get("prompt"), str | list) and "choice_strings" in spec:
        section, notes = _graded(spec, {}, where)
        return {"evaluation": section, "notes": notes, "samples": ""}
    evals = {k: v for k, v in spec.items() if isinstance(v, dict) and "class" in v}
    aliases = {k: v.get("id") for k, v in spec.items() if isinstance(v, dict)}
    if name is not None:
        evals = {k: v for k, v in evals.items() if k in (name, aliases.get(name))}
    if len(evals) != 1:
        known = ", ".join(list(evals or aliases)[:20]) or "none"
        raise PlaybookError(f"{where}: name one eval of the file; there are {known}")
    (entry,) = evals.values()
    given = entry.get("args")
    args: Section = given if isinstance(given, dict) else {}
    section, notes = _registered(str(entry["class"]), args, spec_path)
    samples = args.get("samples_jsonl")
    return {
        "evaluation": section,
        "notes": notes,
        "samples": samples if isinstance(samples, str) else "",
    }


def _load(path: Path) -> dict[str, Any]:
    where = shown(path)
    try:
        content = path.read_bytes()
        if len(content) > MAX_SPEC_BYTES:
            raise PlaybookError(f"{where}: too large for a spec; a file of items ends in .jsonl")
        loaded = yaml.safe_load(content.decode("utf-8-sig"))  # JSON is YAML too
    except OSError as error:
        raise PlaybookError(f"{where}: cannot read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise PlaybookError(f"{where}: not valid YAML or JSON: {line}{error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        text = " ".join(str(error).split())[:120]
        raise PlaybookError(f"{where}: not valid YAML or JSON: {text}") from None
    if not isinstance(loaded, dict):
        raise PlaybookError(f"{where}: not a spec of OpenAI evals: must be a mapping")
    return {str(key): value for key, value in loaded.items()}


def _exact(rules: list[str], notes: list[str]) -> tuple[Section, list[str]]:
    section: Section = {"kind": "exact", "items": "items.jsonl", "normalise": rules}
    section |= {"prompt": {"system": EXACT, "user": "{input}"}, "max_tokens": 64}
    return section, [*notes, f"prompt.system {EXACT!r} is ours; the items may say so already."]


def _registered(class_name: str, args: Section, path: Path) -> tuple[Section, list[str]]:
    kind = class_name.rpartition(":")[2]
    notes = []
    if args.get("num_few_shot"):
        notes.append("The few-shot examples do not carry over; write them into evaluation.shots.")
    if kind == "Match":
        return _exact(["whitespace"], [*notes, "Match counts every answer that begins with the"
            " ideal; exact wants the whole answer, so scores can be lower."])  # fmt: skip
    if kind == "Includes":
        rules = ["whitespace", "casefold"] if args.get("ignore_case") else ["whitespace"]
        return _exact(rules, [*notes, "Includes counts every answer that contains the ideal;"
            " exact wants the whole answer, so scores can be lower. Where the ideals are a few"
            " labels, kind classification finds them inside an answer."])  # fmt: skip
    if kind == "FuzzyMatch":
        return _exact(FUZZY, [*notes, "FuzzyMatch counts an answer that contains the ideal or is"
            " contained in it; exact wants both alike. There is no f1_score."])  # fmt: skip
    if kind == "ModelBasedClassify":
        named = args.get("modelgraded_spec", args.get("modelgraded_spec_file"))
        spec = named if isinstance(named, dict) else _modelgraded(str(named), path)
        section, more = _graded(spec, args, shown(path))
        return section, notes + more
    raise PlaybookError(
        f"{shown(path)}: {class_name!r:.100} has no counterpart here; there are Match, Includes,"
        " FuzzyMatch and ModelBasedClassify"
    )


def _modelgraded(name: str, path: Path) -> Section:
    if re.fullmatch(r"[\w.-]+", name):
        for folder in (
            path.parent,
            path.parent / "modelgraded",
            path.parent.parent / "modelgraded",
        ):
            if (found := folder / f"{name}.yaml").is_file():
                return _load(found)
    raise PlaybookError(
        f"{shown(path)}: the modelgraded spec {name!r:.80} is not there; put {name:.80}.yaml from"
        " evals/registry/modelgraded beside it"
    )


def _judge(**wording: Any) -> Section:
    """A judge that somebody has yet to name."""
    endpoint = {"base_url_env": "JUDGE_BASE_URL", "api_key_env": "JUDGE_API_KEY"}
    return {"model": "owner/judge", "endpoint": endpoint, **wording}


def _graded(spec: Section, args: Section, where: str) -> tuple[Section, list[str]]:
    """A model-graded spec: choices with scores, chosen by a judge."""
    notes = ["judge.model and judge.endpoint: name the model that judges; the spec names none."]
    choices = spec.get("choice_strings")
    if not isinstance(choices, str | list) or str(choices).startswith("from_") or len(choices) < 2:
        raise PlaybookError(f"{where}: choice_strings {str(choices)[:60]!r} compare several answers"
            " or are no choices; write kind comparison by hand")  # fmt: skip
    labels = [str(choice) for choice in choices]
    prompt = spec.get("prompt")
    messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    system, text = prompt_text(messages, f"{where}: prompt")
    own = {**_arguments(spec, notes), **_arguments({"args": args.get("modelgraded_spec_args")}, [])}
    names = {"completion": "{output}", "ideal": "{target}", "input": "{input}"} | own
    if renamed := args.get("samples_renamings"):
        notes.append(f"samples_renamings {renamed} do not carry over; use evaluation.columns.")
    if args.get("metaeval"):
        notes.append("metaeval: the lines hold answers that people have judged; they are no items"
                     " but fit judge.calibration.")  # fmt: skip
    unknown = sorted({p for p in PLACE.findall(text) if p not in names})
    text = PLACE.sub(lambda found: names.get(found[1], found[0]), text)
    text = text.replace("{{", "{").replace("}}", "}")
    if unknown:
        notes.append(f"judge.user: the fields {', '.join(unknown)} of an item are not shown to"
                     " the judge; only input, target and output are.")  # fmt: skip
    if "{output}" not in text:
        text += "\n\nThe answer: {output}"
        notes.append("judge.user: the answer was not in the prompt and stands at its end now.")
    if str(args.get("eval_type", spec.get("eval_type", ""))).find("cot") >= 0:
        notes.append("The judge reasoned before its choice; here it is asked for the choice alone."
                     " Take the request to reason out of judge.user.")  # fmt: skip
    if isinstance(args.get("multicomp_n"), int) and args["multicomp_n"] > 1:
        raise PlaybookError(f"{where}: compares several answers; write kind comparison by hand")
    text += "\n\n" + CLASSIFY.format(choices=" or ".join(f'"{label}"' for label in labels))
    judge = _judge(**({"system": system} if system else {}), user=text)
    return _by_scores(labels, spec.get("choice_scores"), judge, notes)


def _arguments(spec: Section, notes: list[str]) -> dict[str, str]:
    """Texts that a spec fills into its prompt; of several the first."""
    found = {}
    given = spec.get("args")
    for name, values in given.items() if isinstance(given, dict) else ():
        texts = list(values.items()) if isinstance(values, dict) else []
        if texts:
            found[str(name)] = str(texts[0][1])
            if len(texts) > 1:
                others = ", ".join(str(key) for key, _ in texts[1:])
                notes.append(f"judge.user: {name} is {texts[0][0]!r}; {others} need briefs of"
                             " their own.")  # fmt: skip
    return found


def _by_scores(
    labels: list[str], scores: Any, judge: Section, notes: list[str]
) -> tuple[Section, list[str]]:
    values = {}
    if scores == "from_strings":
        scores = {label: label for label in labels}
    for label, value in scores.items() if isinstance(scores, dict) else ():
        try:
            values[str(label)] = float(value)
        except (TypeError, ValueError):
            notes.append(f"choice_scores: {str(value)[:40]!r} is no number and is left out.")
    section: Section = {"kind": "judged", "items": "items.jsonl", "max_tokens": 512}
    if len(values) > 2 and all(values.get(label) == _as_float(label) for label in labels):
        scale = [min(values.values()), max(values.values())]
        return section | {"kind": "scoring", "judge": judge | {"scale": scale}}, notes
    top = max(values.values(), default=0.0)
    passes = [label for label in labels if values.get(label) == top and values]
    if not passes or len(passes) == len(labels):
        passes = labels[:1]
        notes.append(f"judge.pass_labels: the spec does not say which of {labels} are good;"
                     f" {passes} is a guess, decide yourself.")  # fmt: skip
    elif set(values.values()) - {0.0, top}:
        notes.append(f"choice_scores {values} become pass and fail: only the best passes.")
    return section | {"judge": judge | {"labels": labels, "pass_labels": passes}}, notes


def _as_float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _from_api(spec: Section, name: str | None, where: str) -> Section:
    criteria = [c for c in spec["testing_criteria"] if isinstance(c, dict)]
    if name is not None:
        criteria = [c for c in criteria if c.get("name") == name]
    notes: list[str] = []
    for chosen in criteria:
        converter = CRITERIA.get(str(chosen.get("type")))
        if converter is None:
            notes.append(f"The criterion {_called(chosen)} has no counterpart and is left out.")
            continue
        fields = _fields(spec)
        columns: dict[str, str] = {}
        if asked := next((n for n in INPUTS if n in fields), None):
            columns["input"] = asked
        section, more = converter(chosen, columns, where)
        others = [_called(c) for c in criteria if c is not chosen]
        others = [text for text in others if not any(text in note for note in notes)]
        if others:
            notes.append(f"A brief has one score; left out: {', '.join(others)}.")
        if "input" not in columns:
            notes.append("evaluation.columns: say which field of an item is its input.")
        columns = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
        section |= {"format": "openai-evals"} | ({"columns": columns} if columns else {})
        return {"evaluation": section, "notes": notes + more, "samples": ""}
    types = ", ".join(sorted({str(c.get("type")) for c in criteria})) or "none"
    raise PlaybookError(
        f"{where}: no criterion has a counterpart here (there are {types});"
        f" {', '.join(CRITERIA)} have"[:400]
    )


def _called(criterion: Section) -> str:
    return f"{str(criterion.get('name'))[:80]!r} ({str(criterion.get('type'))[:40]})"


def _fields(spec: Section) -> list[str]:
    """The names of an item's fields, by its schema."""
    config = spec.get("data_source_config")
    config = config if isinstance(config, dict) else {}
    schema = config.get("item_schema")
    if not isinstance(schema, dict):
        outer = config.get("schema")
        properties = outer.get("properties") if isinstance(outer, dict) else None
        schema = properties.get("item") if isinstance(properties, dict) else None
    found = schema.get("properties") if isinstance(schema, dict) else None
    return [str(key) for key in found] if isinstance(found, dict) else []


def _templated(text: str, columns: dict[str, str], notes: list[str]) -> str:
    """A text of the API in the brief's terms; its first item field but the input is the target."""

    def replace(found: re.Match[str]) -> str:
        space, field = found[1], found[2]
        if space == "sample":
            if field != "output_text":
                notes.append(f"sample.{field} is shown as the answer's text.")
            return "{output}"
        if field == columns.get("input"):
            return "{input}"
        if columns.setdefault("target", field) == field:
            return "{target}"
        notes.append(f"item.{field} is not shown to the judge; only input, target and output are.")
        return f"[{field}]"

    return TEMPLATE.sub(replace, text)


def _string_check(
    criterion: Section, columns: dict[str, str], where: str
) -> tuple[Section, list[str]]:
    notes: list[str] = []
    operation = criterion.get("operation")
    if operation not in ("eq", "like", "ilike"):
        raise PlaybookError(f"{where}: the operation {str(operation)[:40]!r} of a string check has"
            " no counterpart here; eq, like and ilike have")  # fmt: skip
    reference = _templated(str(criterion.get("reference")), columns, [])
    if reference != "{target}":
        notes.append(f"The reference {str(criterion.get('reference'))[:120]!r} is not one field of"
                     " an item; write a target for each.")  # fmt: skip
    if operation != "eq":
        notes.append(f"{operation} counts every answer that contains the reference; exact wants the"
                     " whole answer, so scores can be lower.")  # fmt: skip
    return _exact(["casefold"] if operation == "ilike" else [], notes)


def _similarity(
    criterion: Section, columns: dict[str, str], where: str
) -> tuple[Section, list[str]]:
    _templated(str(criterion.get("reference")), columns, [])
    metric, least = criterion.get("evaluation_metric"), criterion.get("pass_threshold")
    return _exact(FUZZY, [f"{str(metric)[:40]} of at least {str(least)[:20]} does not carry over:"
        " exact wants the same text, which is stricter. Kind judged may fit better."])  # fmt: skip


def _wording(
    criterion: Section, columns: dict[str, str], where: str, notes: list[str]
) -> dict[str, str]:
    messages = criterion.get("input")
    listed = messages if isinstance(messages, list) else []
    system, text = prompt_text(listed, f"{where}: input of {_called(criterion)}")
    said = f"{str(criterion.get('model'))[:80]!r}"
    notes.append(f"judge.model and judge.endpoint: the spec's judge is {said}.")
    system, text = _templated(system, columns, notes), _templated(text, columns, notes)
    if any(place in system for place in ("{input}", "{target}", "{output}")):
        system, text = "", f"{system}\n\n{text}"  # only the user's text has places
    if "{output}" not in text:
        text += "\n\nThe answer: {output}"
    return ({"system": system} if system else {}) | {"user": text}


def _label_model(
    criterion: Section, columns: dict[str, str], where: str
) -> tuple[Section, list[str]]:
    notes: list[str] = []
    labels, passing = criterion.get("labels"), criterion.get("passing_labels")
    if not isinstance(labels, list) or not isinstance(passing, list):
        raise PlaybookError(f"{where}: {_called(criterion)} needs labels and passing_labels")
    wording = _wording(criterion, columns, where, notes)
    wording["user"] += "\n\n" + CLASSIFY.format(choices=" or ".join(f'"{x}"' for x in labels))
    judge = _judge(**wording, labels=labels, pass_labels=passing)
    return {"kind": "judged", "items": "items.jsonl", "max_tokens": 512, "judge": judge}, notes


def _score_model(
    criterion: Section, columns: dict[str, str], where: str
) -> tuple[Section, list[str]]:
    notes: list[str] = []
    scale = criterion.get("range") or [0, 1]
    wording = _wording(criterion, columns, where, notes)
    wording["user"] += "\n\nAnswer with one number from {} to {} and nothing else.".format(*scale)
    if (least := criterion.get("pass_threshold")) is not None:
        notes.append(f"pass_threshold {str(least)[:20]} does not carry over: the mean rating is"
                     " reported; requirements.min_quality can bound it.")  # fmt: skip
    judge = _judge(**wording, scale=scale)
    return {"kind": "scoring", "items": "items.jsonl", "max_tokens": 512, "judge": judge}, notes


CRITERIA = {
    "string_check": _string_check,
    "text_similarity": _similarity,
    "label_model": _label_model,
    "score_model": _score_model,
}
