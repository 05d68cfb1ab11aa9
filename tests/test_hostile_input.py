"""Hostile files: each is refused in one sentence, in bounded time and memory, and quoted nowhere.

`check` is run on every case in a process of its own, forked from one that has imported `lib`: its
processor time and memory are the kernel's figures of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

BRIEF: dict[str, Any] = {
    "name": "tiny",
    "task": "t",
    "policy": {"licenses": ["permissive"]},
    "size": {"tier": "any"},
    "evaluation": {
        "kind": "classification", "items": "items.jsonl", "labels": ["positive", "negative"],
    },
    "deployments": [
        {
            "name": "d",
            "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "endpoint": {"recorded": "answers.jsonl"},
            "hardware": "cpu-1",
        }
    ],
}  # fmt: skip
ITEM = '{"id": "1", "input": "fine", "target": "positive"}\n'
ANSWER = '{"id": "1", "output": "positive"}\n'
MOST_CHARACTERS, MOST_CPU_S, MOST_MB = 600, 5, 500
LONG, SECRET = "x" * 300, "hunter2hunter2"
RTL = "a\u202egpj.exe"

Change = Callable[[dict[str, Any]], Any]


class Case(NamedTuple):
    """What is wrong, as the brief's text or a change of it, and words of the sentence."""

    brief: str | bytes | Change
    words: str = ""
    files: dict[str, str | bytes] = {}  # noqa: RUF012  (never changed)


def put(place: str, value: Any) -> Change:
    """A change that sets one dotted key of the brief."""

    def change(brief: dict[str, Any]) -> None:
        *path, last = (int(part) if part.isdigit() else part for part in place.split("."))
        inside: Any = brief
        for part in path:
            inside = inside.setdefault(part, {}) if isinstance(inside, dict) else inside[part]
        inside[last] = value

    return change


def of_kind(kind: str, **options: Any) -> Change:
    """A change to a kind of task that has other options."""
    plain = {"kind": kind, "items": "items.jsonl", **options}
    return put("evaluation", plain)


def added(text: str) -> str:
    return yaml.safe_dump(BRIEF) + text


def body(text: str) -> str:
    """The brief with an `extra_body` of this YAML."""
    return added("").replace("- endpoint:", f"- options: {{extra_body: {text}}}\n  endpoint:")


BOMB = "bomb:\n" + "".join(
    [f"  a0: &a0 [{SECRET}, {SECRET}]\n"]
    + [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 11)]
)
MERGES = "bomb:\n" + "".join(
    [f"  a0: &a0 {{k0: {SECRET}}}\n"]
    + [f"  a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: 1}}\n" for n in range(1, 11)]
)
PLACES = {
    "items": put("evaluation.items", "{}"),
    "recorded": put("deployments.0.endpoint.recorded", "{}"),
    "schema": of_kind("extraction", schema="{}"),
    "tools": of_kind("tool_call", tools="{}"),
}


def at(place: str, path: str) -> Change:
    """The brief with a path in one of the places that name a file."""

    def change(brief: dict[str, Any]) -> None:
        PLACES[place](brief)
        text = json.dumps(brief).replace("{}", path)
        brief |= json.loads(text)

    return change


def judged(calibration: str) -> Change:
    judge = {
        "model": "org/judge", "endpoint": {"base_url": "http://127.0.0.1:9/v1"},
        "user": "{input} {output}", "calibration": calibration,
    }  # fmt: skip
    return of_kind("judged", judge=judge)


CASES: dict[str, Case] = {
    "alias bomb": Case(added(BOMB), "too much by its aliases"),
    "merge bomb": Case(added(MERGES), "too much by its aliases"),
    "alias of a long text": Case(
        added(f"x: &a {'y' * 50_000}\nz: [{', '.join(['*a'] * 5000)}]\n"), "by its aliases"
    ),
    "list in itself": Case(added("x: &a [*a, *a]\n"), "levels deep"),
    "extra_body in itself": Case(body("&a {b: *a}"), "levels deep"),
    "brackets in the brief": Case(added("x: " + "[" * 50_000), "levels deep"),
    "indents in the brief": Case(
        added("x:\n" + "".join(" " * n + "- \n" for n in range(1, 600))), "levels deep"
    ),
    "brackets in an item": Case(put("task", "t"), "a JSON array", {"items.jsonl": "[" * 50_000}),
    "brackets inside an item": Case(
        put("task", "t"), "levels deep", {"items.jsonl": '{"id": ' + "[" * 50_000}
    ),
    "brackets in an answer": Case(
        put("task", "t"), "levels deep", {"answers.jsonl": '{"id": ' + '{"a":' * 50_000}
    ),
    "brackets in a schema": Case(
        at("schema", "s.json"), "levels deep", {"s.json": '{"a":' * 50_000}
    ),
    "a list of 10 MB": Case(added("x: [" + "1, " * 3_400_000 + "]\n"), "more than 200 kB"),
    "many wrong keys": Case(added("".join(f"k{n}: 1\n" for n in range(15_000))), "unknown key"),
    "many wrong deployments": Case(put("deployments", ["x"] * 40_000), "deployments.0"),
    "many labels": Case(
        put("evaluation.labels", [f"l{n}" for n in range(15_000)] + ["l0"]), "there twice"
    ),
    "a long label": Case(put("evaluation.labels", [LONG, "b"]), "target 'positive' is not"),
    "a long name": Case(put("name", LONG), "name"),
    "a long deployment": Case(put("deployments.0.name", LONG), "deployments.0.name"),
    "a long model": Case(put("deployments.0.model", f"org/{LONG}"), "model"),
    "a long kind": Case(put("evaluation.kind", LONG), "kind"),
    "a long key": Case(put("evaluation." + LONG, 1), "unknown key"),
    "a longer key": Case(put("x" * 100_000, 1), "unknown key"),
    "a long machine": Case(put("deployments.0.hardware", LONG), "hardware"),
    "a long licence": Case(put("policy.licenses", [LONG]), "licen"),
    "a long country": Case(put("policy.countries", [LONG]), "countries"),
    "a long closed model": Case(put("size", {"replaces": LONG}), "replaces"),
    "a long slice": Case(put("evaluation.slices", ["y" * 190]), "slices"),
    "a long column": Case(put("evaluation.columns", {"input": LONG}), "columns"),
    "a long provider": Case(
        put("deployments.0", BRIEF["deployments"][0] | {"price": {"provider": LONG}}), "no price"
    ),
    "a right-to-left name": Case(put("name", RTL), "name"),
    "a right-to-left key": Case(put(RTL, 1), "unknown key"),
    "a right-to-left alias": Case(added(f"x: *{RTL}\n"), "not valid YAML"),
    "a right-to-left tag": Case(f"name: !{RTL} a\n", "not valid YAML"),
    "a right-to-left label": Case(put("evaluation.labels", [RTL, RTL.upper()]), "labels"),
    "a port": Case(
        put("deployments.0.endpoint", {"embedded": "smollm2-135m", "port": 99999}), "endpoint.port"
    ),
    "a port of a URL": Case(
        put("deployments.0.endpoint", {"base_url": f"http://{SECRET}:99999/v1"}), "base_url"
    ),
    "python": Case("name: !!python/object/apply:os.system [id]\n", "not valid YAML"),
    "python in a list": Case(added("x: [!!python/name:os.system ]\n"), "not valid YAML"),
    "a zero byte": Case(added("x: a\0b\n"), "not valid YAML"),
    "an escaped zero byte": Case(put("evaluation.items", "a\0b"), "zero byte"),
    "half a pair as a task": Case(added("").replace("task: t", 'task: "\\ud800"'), "surrogate"),
    "half a pair as a label": Case(
        added("").replace("- negative", '- "\\ud800"'), "surrogate"
    ),
    "half a pair as a file": Case(
        added("").replace("items: items.jsonl", 'items: "\\ud800"'), "surrogate"
    ),
    "half a pair as a key": Case(added('"\\ud800": 1\n'), "surrogate"),
    "half a pair in a body": Case(body('{b: "\\ud800"}'), "surrogate"),
    "no number": Case(put("evaluation.temperature", float("nan")), "temperature"),
    "no number in a body": Case(
        put("deployments.0.options", {"extra_body": {"x": [float("inf")]}}), "extra_body"
    ),
    "a date in a body": Case(body("{b: 2026-01-01}"), "extra_body"),
    "no number in whole ones": Case(put("evaluation.max_tokens", float("inf")), "max_tokens"),
    "a hexadecimal number": Case(added(f"x: 0x{'f' * 50_000}\n"), "digits"),
    "a number of minutes": Case(added(f"x: 1{':59' * 40_000}\n"), "digits"),
    "no number in an item": Case(
        put("task", "t"), "NaN", {"items.jsonl": '{"id": "1", "input": NaN}'}
    ),
    "a long number in an item": Case(
        put("task", "t"), "line 1", {"items.jsonl": '{"id": ' + "9" * 900_000 + "}"}
    ),
    "a line of 300 MB": Case(put("task", "t"), "an item has at most", {"items.jsonl": b"sparse"}),
    "an answer of 300 MB": Case(
        put("task", "t"), "an item has at most", {"answers.jsonl": b"sparse"}
    ),
    "a cell of 300 MB": Case(
        put("evaluation.format", "csv"), "too long", {"items.jsonl": b"sparse"}
    ),
    "a schema of 300 MB": Case(at("schema", "s.json"), "longer than", {"s.json": b"sparse"}),
    "items elsewhere": Case(put("evaluation.items", "../" * 20 + "etc/passwd"), "not JSON"),
    "items elsewhere as CSV": Case(
        lambda b: (at("items", "../" * 20 + "etc/passwd")(b), put("evaluation.format", "csv")(b)),
        "a single column",
    ),
    "the environment": Case(put("evaluation.items", "/proc/self/environ"), "not JSON"),
    "the environment as CSV": Case(
        lambda b: (at("items", "/proc/self/environ")(b), put("evaluation.format", "csv")(b)),
        "a single column",
    ),
    "the environment as answers": Case(at("recorded", "/proc/self/environ"), "not JSON"),
    "the environment as a schema": Case(at("schema", "/proc/self/environ"), "not JSON"),
    "the environment as labels": Case(judged("/proc/self/environ"), "not JSON"),
    "a text as a schema": Case(at("schema", "s.json"), "schema", {"s.json": f'"{SECRET}"'}),
    "a text as tools": Case(at("tools", "s.json"), "tools", {"s.json": f'"{SECRET}"'}),
    "a text as an item": Case(put("task", "t"), "object", {"items.jsonl": f'"{SECRET}"'}),
    **{
        f"{place} at {name}": Case(at(place, path), "no such file")
        for place in PLACES
        for name, path in {
            "a device": "/dev/zero", "a pipe": "fifo", "a folder": "folder", "a long name": LONG,
            "a longer path": "y/" * 3000,
        }.items()
    },
    "labels at a device": Case(judged("/dev/zero"), "no such file"),
    "labels at a pipe": Case(judged("fifo"), "no such file"),
    "labels at a long name": Case(judged(LONG), "no such file"),
}  # fmt: skip

RUN = """
import json, os, resource, signal, sys, traceback
from lib.__main__ import main
def limited(argv, out):
    os.dup2(os.open(out, os.O_CREAT | os.O_WRONLY), 2); os.dup2(2, 1); os.close(0)
    signal.alarm(300)  # for what waits for ever
    resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
    size = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, size + 2**30))
    try:
        return main(argv)
    except BaseException:
        traceback.print_exc()
        return 99
main(["check", sys.argv[1]])  # what is read once is read now
done = {}
for name, (argv, out) in json.load(sys.stdin).items():
    pid = os.fork()
    if not pid:
        status = limited(argv, out)
        sys.stderr.flush(), sys.stdout.flush()
        os._exit(status)
    _, status, used = os.wait4(pid, 0)
    cpu_s = used.ru_utime + used.ru_stime
    done[name] = [os.waitstatus_to_exitcode(status), cpu_s, used.ru_maxrss / 1024]
print("\\n" + json.dumps(done))
"""


def written(folder: Path, case: Case) -> Path:
    """The case as files in a folder of its own."""
    folder.mkdir()
    (folder / "folder").mkdir()
    os.mkfifo(folder / "fifo")
    for name, content in ({"items.jsonl": ITEM, "answers.jsonl": ANSWER} | case.files).items():
        with (folder / name).open("wb") as stream:
            if content == b"sparse":
                stream.truncate(300_000_000)
            else:
                stream.write(content if isinstance(content, bytes) else content.encode())
    text = case.brief
    if callable(text):
        brief = json.loads(json.dumps(BRIEF))
        text(brief)
        text = yaml.safe_dump(brief, allow_unicode=False)
    path = folder / "project.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


class Outcome(NamedTuple):
    status: int
    cpu_s: float
    memory_mb: float
    said: str


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What became of every case, and of a brief in which nothing is wrong."""
    base = tmp_path_factory.mktemp("hostile")
    cases = {"sound": Case(added(""))} | CASES
    jobs = {}
    for number, (name, case) in enumerate(cases.items()):
        path = written(base / str(number), case)
        jobs[name] = ["check", str(path)], str(base / f"{number}.txt")
    env = os.environ | {"PLAYBOOK_RUNS": str(base / "runs"), "OUR_SECRET": SECRET}
    done = subprocess.run(
        [sys.executable, "-c", RUN, jobs["sound"][0][1]], input=json.dumps(jobs), env=env,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    figures = json.loads(done.stdout.splitlines()[-1])
    return {
        name: Outcome(*figures[name], Path(out).read_text("utf-8", errors="replace"))
        for name, (_, out) in jobs.items()
    }


def test_a_sound_brief_passes(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["sound"].status == 0, outcomes["sound"]


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_in_one_sentence(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]
    assert outcome.status == 1 and "Traceback" not in outcome.said, outcome.said[-3000:]
    error = outcome.said[outcome.said.index("error: ") :]
    assert CASES[name].words in error
    for sentence in error.splitlines():
        assert len(sentence) < MOST_CHARACTERS, sentence
        assert sentence.isprintable()
    assert SECRET not in outcome.said and "root:" not in outcome.said
    assert outcome.cpu_s < MOST_CPU_S and outcome.memory_mb < MOST_MB
