"""OpenAI evals in; CSV and Every Eval Ever out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import briefs
import jsonschema
import pandas as pd
import pytest
import yaml

from lib import interchange, scoring
from lib.errors import PlaybookError
from lib.interchange import convert, openai_evals_brief, read_openai_evals
from lib.items import load_items
from lib.project import Evaluation, Project

SCHEMA = json.loads((Path(__file__).parent / "every_eval_ever.schema.json").read_text())
# In the shape of the registry's own files; the wording is ours.
REGISTRY = {
    "mine": {"id": "mine.dev.v0", "metrics": ["accuracy"]},
    "mine.dev.v0": {
        "class": "evals.elsuite.basic.match:Match",
        "args": {"samples_jsonl": "mine/samples.jsonl"},
    },
}
GRADED: dict[str, Any] = {
    "prompt": "Task: {input}\nGood: {ideal}\nGiven: {completion}\nBy: {criteria}. Use {{}}.",
    "choice_strings": "YN",
    "choice_scores": {"Y": 1.0, "N": 0.0},
    "eval_type": "cot_classify",
    "args": {"criteria": {"short": "is it short?", "kind": "is it kind?"}},
    "input_outputs": {"input": "completion"},
}
LABELS: dict[str, Any] = {
    "type": "label_model",
    "name": "tone",
    "model": "gpt-x",
    "input": [
        {"role": "developer", "content": "You grade tone."},
        {"role": "user", "content": [
            {"type": "input_text",
             "text": "Q {{item.question}} A {{ sample.output_text }} R {{item.best}} {{item.who}}"}
        ]},
    ],
    "labels": ["polite", "rude"],
    "passing_labels": ["polite"],
}  # fmt: skip


def api(*criteria: dict[str, Any]) -> dict[str, Any]:
    properties = {"question": {"type": "string"}, "best": {"type": "string"}, "who": {}}
    config = {"type": "custom", "schema": {"properties": {"item": {"properties": properties}}}}
    return {
        "id": "eval_1",
        "object": "eval",
        "data_source_config": config,
        "testing_criteria": list(criteria),
    }


def put(folder: Path, content: Any, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".jsonl"):
        lines = [x if isinstance(x, bytes) else json.dumps(x).encode() for x in content]
        path.write_bytes(b"\n".join(lines) + b"\n")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(
            json.dumps(content)
            if name.endswith("json")
            else yaml.safe_dump(content, sort_keys=False)
        )
    return path


def chat(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in turns]


def valid(draft: dict[str, Any]) -> Evaluation:
    """The section as the brief's own validation sees it."""
    return Evaluation.model_validate(draft["evaluation"])


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ({"input": "a", "ideal": "b"}, {"id": "1", "input": "a", "target": "b"}),
        ({"input": "a", "ideal": ["b"]}, {"id": "1", "input": "a", "target": "b"}),
        ({"input": "a", "ideal": ["b", "c"]}, {"id": "1", "input": "a", "target": ["b", "c"]}),
        ({"input": "a", "ideal": 4, "id": 7}, {"id": "7", "input": "a", "target": "4"}),
        ({"input": "a", "extra": 1}, {"id": "1", "input": "a", "extra": 1}),
        ({"input": chat(("system", "S"), ("user", "U")), "ideal": "x"},
         {"id": "1", "input": "S\n\nU", "target": "x"}),
        ({"input": chat(("user", "U"), ("assistant", "A"), ("user", "V")), "ideal": "x"},
         {"id": "1", "input": "User: U\nAssistant: A\nUser: V", "target": "x"}),
        ({"item": {"question": "q", "label": "l"}},
         {"id": "1", "input": "q", "target": "l", "question": "q", "label": "l"}),
        ({"datasource_item": {"prompt": "q", "answer": True}, "datasource_item_id": 3},
         {"id": "3", "input": "q", "target": "true", "prompt": "q", "answer": True}),
        ({"item": {"strange": "q"}}, {"id": "1", "strange": "q"}),
    ],
)  # fmt: skip
def test_lines_become_items(tmp_path: Path, line: Any, wanted: dict[str, Any]) -> None:
    assert read_openai_evals(put(tmp_path, [line], "a.jsonl")) == [wanted]


def test_worked_examples_keep_their_roles(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "S"},
        {"role": "system", "content": "q", "name": "example_user"},
        {"role": "system", "content": "a", "name": "example_assistant"},
        {"role": "user", "content": "u"},
    ]
    path = put(tmp_path, [{"input": turns, "ideal": "x"}], "a.jsonl")
    (item,) = read_openai_evals(path, split_system=True)
    assert (item["system"], item["input"]) == ("S", "User: q\nAssistant: a\nUser: u")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"input": ', "line 2: not JSON"),
        (b'{"input": "\xff"}', "line 2: not UTF-8"),
        (b'{"input": "\\ud800"}', "line 2: not UTF-8"),
        (b"[1]", "line 2: must be an object"),
        (b"[" * 90_000, "line 2: not JSON"),
        (b'{"input": "a", "x": NaN}', "line 2: not JSON"),
        (b'{"ideal": "a"}', "line 2: has no input"),
        (b'{"input": 3}', "line 2: input must be text"),
        (b'{"input": []}', "line 2: input must be text"),
        (b'{"input": [{"content": "a"}]}', "line 2: input: a chat message"),
        (b'{"input": [{"role": "user", "content": [{"type": "input_image"}]}]}', "only text"),
        (b'{"item": "a"}', "line 2: item must be an object"),
        (b'"' + b"x" * 1_000_001 + b'"', "line 2: longer than 1 MB"),
    ],
)  # fmt: skip
def test_a_broken_line_is_one_sentence(tmp_path: Path, line: bytes, said: str) -> None:
    path = put(tmp_path, [{"input": "fine"}, line], "a.jsonl")
    with pytest.raises(PlaybookError, match=said) as raised:
        read_openai_evals(path)
    assert len(str(raised.value)) < 400


def test_the_brief_reads_them_by_their_format(tmp_path: Path) -> None:
    lines = [{"input": chat(("user", f"u{i}")), "ideal": ["yes", "y"]} for i in range(3)]
    put(tmp_path, lines, "items.jsonl")
    section = {"kind": "exact", "items": "items.jsonl", "format": "openai-evals"}
    items = load_items(briefs.brief(tmp_path, "evaluation", section))
    assert items["input"].tolist() == ["u0", "u1", "u2"]
    assert json.loads(items["target"].iloc[0]) == ["yes", "y"]


@pytest.mark.parametrize(
    ("name", "args", "rules", "said"),
    [
        ("match:Match", {}, ["whitespace"], "begins with"),
        ("includes:Includes", {}, ["whitespace"], "contains"),
        ("includes:Includes", {"ignore_case": True}, ["whitespace", "casefold"], "contains"),
        ("fuzzy_match:FuzzyMatch", {"num_few_shot": 3},
         ["nfkc", "casefold", "whitespace", "punctuation", "articles"], "few-shot"),
    ],
)  # fmt: skip
def test_string_matches_become_exact_and_say_how_they_differ(
    tmp_path: Path, name: str, args: dict[str, Any], rules: list[str], said: str
) -> None:
    spec = {"e.v0": {"class": f"evals.elsuite.basic.{name}", "args": args}}
    draft = openai_evals_brief(put(tmp_path, spec, "e.yaml"))
    assert valid(draft).kind == "exact" and valid(draft).normalise == rules
    assert said in " ".join(draft["notes"])


def test_a_model_graded_spec_becomes_judged(tmp_path: Path) -> None:
    put(tmp_path, GRADED, "registry/modelgraded/mg.yaml")
    args = {"modelgraded_spec": "mg", "samples_jsonl": "a.jsonl"}
    spec = {"e": {"class": "evals.elsuite.modelgraded.classify:ModelBasedClassify", "args": args}}
    draft = openai_evals_brief(put(tmp_path, spec, "registry/evals/e.yaml"))
    judge = valid(draft).judge
    assert judge is not None and judge.labels == ["Y", "N"] and judge.pass_labels == ["Y"]
    wanted = "Task: {input}\nGood: {target}\nGiven: {output}\nBy: is it short?. Use {}."
    assert judge.user.startswith(wanted) and '"Y" or "N"' in judge.user
    notes = " ".join(draft["notes"])
    assert "kind need briefs" in notes and "reasoned before" in notes
    assert draft["samples"] == "a.jsonl"


@pytest.mark.parametrize(
    ("changes", "kind", "passes", "said"),
    [
        ({"choice_scores": None}, "judged", ["Y"], "guess"),
        ({"choice_strings": ["a", "b", "c"], "choice_scores": {"a": 0, "b": 0.5, "c": 1}},
         "judged", ["c"], "only the best"),
        ({"choice_strings": ["a", "b"], "choice_scores": {"a": 1, "b": 1}}, "judged", ["a"],
         "guess"),
        ({"choice_strings": "12345", "choice_scores": "from_strings"}, "scoring", None, ""),
        ({"choice_scores": {"Y": "much", "N": 0}}, "judged", ["N"], "no number"),
    ],
)  # fmt: skip
def test_choices_and_their_scores(
    tmp_path: Path, changes: dict[str, Any], kind: str, passes: list[str] | None, said: str
) -> None:
    draft = openai_evals_brief(put(tmp_path, GRADED | changes, "mg.yaml"))
    evaluation = valid(draft)
    assert evaluation.kind == kind and evaluation.judge is not None
    assert said in " ".join(draft["notes"])
    if passes is None:
        assert evaluation.judge.scale == (1.0, 5.0)
    else:
        assert evaluation.judge.pass_labels == passes


def test_a_label_model_becomes_judged(tmp_path: Path) -> None:
    python = {"type": "python", "name": "code", "source": "print(1)"}
    draft = openai_evals_brief(put(tmp_path, api(python, LABELS), "eval.json"))
    evaluation = valid(draft)
    assert evaluation.kind == "judged" and evaluation.judge is not None
    assert evaluation.columns == {"input": "question", "target": "best"}
    assert evaluation.judge.system == "You grade tone."
    assert evaluation.judge.user.startswith("Q {input} A {output} R {target} [who]")
    assert evaluation.judge.pass_labels == ["polite"]
    notes = " ".join(draft["notes"])
    assert "'code' (python) has no counterpart" in notes and "item.who is not shown" in notes
    assert "'gpt-x'" in notes and notes.count("'code'") == 1


def test_a_score_model_becomes_scoring(tmp_path: Path) -> None:
    grader = LABELS | {"type": "score_model", "range": [1, 7], "pass_threshold": 5}
    draft = openai_evals_brief(put(tmp_path, api(grader), "eval.json"))
    evaluation = valid(draft)
    assert evaluation.kind == "scoring" and evaluation.judge is not None
    assert evaluation.judge.scale == (1, 7) and "from 1 to 7" in evaluation.judge.user
    assert "pass_threshold 5" in " ".join(draft["notes"])


@pytest.mark.parametrize(
    ("operation", "rules", "said"),
    [("eq", [], ""), ("like", [], "lower"), ("ilike", ["casefold"], "lower")],
)
def test_a_string_check_becomes_exact(
    tmp_path: Path, operation: str, rules: list[str], said: str
) -> None:
    check = {"type": "string_check", "name": "c", "operation": operation,
             "input": "{{sample.output_text}}", "reference": "{{ item.best }}"}  # fmt: skip
    similar = {"type": "text_similarity", "name": "s", "evaluation_metric": "bleu",
               "reference": "{{item.best}}", "pass_threshold": 0.8}  # fmt: skip
    draft = openai_evals_brief(put(tmp_path, api(check, similar), "eval.json"))
    assert valid(draft).normalise == rules
    assert valid(draft).columns == {"input": "question", "target": "best"}
    notes = " ".join(draft["notes"])
    assert said in notes and "left out: 's' (text_similarity)" in notes
    other = openai_evals_brief(tmp_path / "eval.json", name="s")
    assert "bleu of at least 0.8 does not carry over" in other["notes"][0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe", "not valid YAML"),
        (b"a: 1\nb: {1", "line 2: "),
        (b"- 1", "must be a mapping"),
        (b"a: 1", "name one eval"),
        (b"a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ({"a": {"class": "x:Match"}, "b": {"class": "x:Match"}}, "there are a, b"),
        ({"a": {"class": "evals.elsuite.basic.json_match:JsonMatch"}}, "no counterpart"),
        ({"a": {"class": "x:ModelBasedClassify", "args": {"modelgraded_spec": "../../etc/x"}}},
         "is not there"),
        ({"a": {"class": "x:ModelBasedClassify", "args": 3}}, "is not there"),
        (GRADED | {"choice_strings": "from_n"}, "comparison by hand"),
        (GRADED | {"prompt": [3]}, "chat message"),
        (api({"type": "python"}), "no criterion"),
        (api(), "no criterion"),
        (api({"type": "string_check", "operation": "ne"}), "'ne'"),
        (api({"type": "label_model", "input": 3, "labels": [], "passing_labels": []}), "input"),
        (api({"type": "label_model"}), "needs labels"),
    ],
)  # fmt: skip
def test_a_spec_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, content: Any, said: str
) -> None:
    with pytest.raises(PlaybookError, match=said) as raised:
        openai_evals_brief(put(tmp_path, content, "spec.yaml"))
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500


def test_a_registry_eval_is_converted_whole(tmp_path: Path) -> None:
    lines = [
        {"input": chat(("system", "Say one word."), ("user", f"u{i}")), "ideal": "ab"[i % 2]}
        for i in range(8)
    ]
    put(tmp_path, lines, "registry/data/mine/samples.jsonl")
    told = convert(put(tmp_path, REGISTRY, "registry/evals/mine.yaml"), tmp_path / "out")
    assert "8 items" in told and "labels ['a', 'b']" in told and "prompt.system" not in told
    draft = yaml.safe_load((tmp_path / "out" / "evaluation.yaml").read_text())
    project = briefs.changed("evaluation", draft["evaluation"])
    brief = briefs.load_project(briefs.write(tmp_path / "out", project))
    items = load_items(brief)
    assert items["input"].tolist() == [f"u{i}" for i in range(8)]
    assert brief.evaluation.prompt.system == "Say one word."
    with pytest.raises(PlaybookError, match="there already"):
        convert(tmp_path / "registry/evals/mine.yaml", tmp_path / "out")


def test_different_system_texts_stay_with_their_items(tmp_path: Path) -> None:
    lines = [{"input": chat(("system", f"S{i}"), ("user", "u")), "ideal": "x"} for i in range(2)]
    told = convert(put(tmp_path, lines, "a.jsonl"), tmp_path / "out")
    written = (tmp_path / "out" / "items.jsonl").read_text().splitlines()
    assert [json.loads(line)["input"] for line in written] == ["S0\n\nu", "S1\n\nu"]
    assert "different system texts" in told


def test_items_of_the_api_are_converted_under_their_own_names(tmp_path: Path) -> None:
    lines = [{"item": {"question": f"q{i}", "best": "b", "answer": "not this"}} for i in range(2)]
    data = put(tmp_path, lines, "a.jsonl")
    told = convert(put(tmp_path, api(LABELS), "eval.json"), tmp_path / "out", data=data)
    first = json.loads((tmp_path / "out" / "items.jsonl").read_text().splitlines()[0])
    assert (first["input"], first["target"]) == ("q0", "b") and "kind judged" in told
    with pytest.raises(PlaybookError, match="no field 'question'"):
        bad = put(tmp_path, [{"item": {"x": "q"}}], "b.jsonl")
        convert(tmp_path / "eval.json", tmp_path / "other", data=bad)


@pytest.mark.parametrize("named", ["/etc/passwd", "../../secret.jsonl"])
def test_a_spec_does_not_lead_out_of_its_folder(tmp_path: Path, named: str) -> None:
    put(tmp_path, [{"input": "secret", "ideal": "x"}], "secret.jsonl")
    spec = {"e": {"class": "x:Match", "args": {"samples_jsonl": named}}}
    told = convert(put(tmp_path, spec, "a/b/e.yaml"), tmp_path / "out")
    assert "not beside the spec" in told and not (tmp_path / "out" / "items.jsonl").exists()


def scored(folder: Path) -> tuple[Project, pd.DataFrame, pd.DataFrame]:
    brief = briefs.brief(folder)
    rows = [
        {"deployment": name, "repo_id": f"org/{name}", "item_id": f"i{i}", "group": "",
         "target": "positive", "output": "=cmd|' /C calc'!A1" if i else "positive",
         "finish_reason": "stop", "error": "" if i < 3 else "timeout", "retries": 0,
         "prompt_tokens": 1, "completion_tokens": 1, "latency_s": 0.1, "cached": False}
        for name in ("a", "b") for i in range(4)
    ]  # fmt: skip
    table = scoring.score_answers(brief, pd.DataFrame(rows))
    return brief, table, scoring.summarise(brief, table)


def test_documents_keep_to_the_schema(tmp_path: Path) -> None:
    brief, table, scores = scored(tmp_path)
    documents = interchange.every_eval_ever(brief, table, scores, created=1.0)
    assert len(documents) == 2
    for document in documents:
        jsonschema.validate(json.loads(json.dumps(document, allow_nan=False)), SCHEMA)
    first = documents[0]
    assert first["schema_version"] == SCHEMA["version"] and first["retrieved_timestamp"] == "1"
    result = first["evaluation_results"][0]
    row = scores.iloc[0]
    assert result["metric_config"]["metric_id"] == row["metric"] == "accuracy"
    assert result["score_details"]["score"] == row["value"] == pytest.approx(1 / 3)
    assert result["score_details"]["details"]["n_failed"] == "1"
    uncertainty = result["score_details"]["uncertainty"]
    assert uncertainty["num_samples"] == 3
    assert uncertainty["confidence_interval"]["upper"] == row["high"]
    assert "https://host" not in json.dumps(documents) and "SOME_API_KEY" not in json.dumps(first)
    assert first["evaluation_id"] != documents[1]["evaluation_id"]


def test_the_schema_is_one_that_can_fail(tmp_path: Path) -> None:
    brief, table, scores = scored(tmp_path)
    (document, _) = interchange.every_eval_ever(brief, table, scores)
    del document["evaluation_results"][0]["metric_config"]["min_score"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


def test_a_judge_and_a_rating_are_declared(tmp_path: Path) -> None:
    judge = {"model": "org/j", "endpoint": {"base_url": "https://j/v1"}, "user": "{output}"}
    section = {"kind": "scoring", "items": "items.jsonl", "judge": judge}
    brief = briefs.brief(tmp_path, "evaluation", section)
    row = {"deployment": "a", "repo_id": "org/a", "low": 3.0, "high": 4.5, "n": 9, "n_failed": 0,
           "comparable": "yes", "basis": "measured here", "primary": False}  # fmt: skip
    scores = pd.DataFrame(
        [row | {"metric": "rating", "value": 4.0}, row | {"metric": "empty", "value": float("nan")}]
    )
    (document,) = interchange.every_eval_ever(brief, pd.DataFrame(), scores)
    jsonschema.validate(document, SCHEMA)
    (result,) = document["evaluation_results"]
    assert (result["metric_config"]["min_score"], result["metric_config"]["max_score"]) == (1, 5)
    assert result["metric_config"]["llm_scoring"]["judges"][0]["model_info"]["id"] == "org/j"


def test_the_same_run_has_the_same_identity(tmp_path: Path) -> None:
    brief, table, scores = scored(tmp_path)
    one, two = (
        interchange.every_eval_ever(brief, table, scores, created=float(t))[0] for t in (1, 2)
    )
    assert one["evaluation_id"] == two["evaluation_id"]
    other = table.assign(score=1 - table["score"])
    assert (
        interchange.every_eval_ever(brief, other, scores)[0]["evaluation_id"]
        != (one["evaluation_id"])
    )


def test_files_are_written_and_no_cell_is_a_formula(tmp_path: Path) -> None:
    brief, table, scores = scored(tmp_path)
    paths = interchange.write(brief, tmp_path, table, scores, created=1.0)
    names = [str(path.relative_to(tmp_path / "exports")) for path in paths]
    assert names == [
        "scores.csv",
        "answers.csv",
        "every_eval_ever/a.json",
        "every_eval_ever/b.json",
    ]
    back = pd.read_csv(tmp_path / "exports" / "answers.csv")
    assert back["output"].tolist()[:2] == ["positive", "'=cmd|' /C calc'!A1"]
    assert len(back) == len(table)
    figures = pd.read_csv(tmp_path / "exports" / "scores.csv")
    assert figures["value"].tolist() == pytest.approx(scores["value"].tolist())
