"""Secrets: whatever fails, and in whatever spelling a key comes back, it is in nothing we leave.

A canary is in every variable that a brief can name. All files are searched: tables column by
column, and every text also with its escapes undone.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai_stub
import pandas as pd
import pytest
import yaml
from openai_stub import Reply, Request, error

from lib.__main__ import main
from lib.endpoints import store

CANARY = "kC/anary+0417~kC"
KEYS = {name: f"sk-{CANARY}-{name[0]}" for name in ("D_API_KEY", "JUDGE_API_KEY")}
OTHERS = {"HF_TOKEN": f"hf_{CANARY}", "OPENAI_API_KEY": f"o{CANARY}"}
OTHERS |= {"OPENAI_CUSTOM_HEADERS": f"X-Key: {CANARY}", "AZURE_API_KEY": f"ab{CANARY}"}
ITEMS = 40
ESCAPE = re.compile(r"\\+u([0-9a-fA-F]{4})")


# --- finding it


def spellings(text: str) -> list[str]:
    """A secret as it might come back: plain, URL-encoded, as base64 in three shifts, escaped."""
    shifted = [text, f"u:{text}", f"Bearer {text}", f"12{text}34"]
    encoded = [base64.b64encode(one.encode()).decode() for one in shifted]
    return [
        text,
        urllib.parse.quote(text, safe=""),
        re.sub("%..", lambda match: match[0].lower(), urllib.parse.quote(text)),
        *encoded,
        *(one.replace("+", "-").replace("/", "_") for one in encoded),
        "".join(f"\\u{ord(c):04x}" for c in text),
        "".join(f"\\\\u{ord(c):04X}" for c in text),
        json.dumps(text).replace("/", "\\/"),
    ]


def leaks(text: str) -> bool:
    """Whether a text holds the canary, also with its escapes undone or within base64."""
    shifts = [base64.b64encode(b"\0" * n + CANARY.encode()).decode() for n in range(3)]
    # Without the characters that hang on what stands before and after.
    inner = [shift[4 * (n > 0) : -4] for n, shift in enumerate(shifts)]
    plain = ESCAPE.sub(lambda match: chr(int(match[1], 16)), text).replace("\\", "")
    views = [text, plain, urllib.parse.unquote(text), urllib.parse.unquote(plain)]
    views += [view.replace("-", "+").replace("_", "/") for view in views]
    return any(part in view for part in [CANARY, *inner] for view in views)


def test_the_search_finds_every_spelling() -> None:
    for spelling in spellings(KEYS["D_API_KEY"]):
        assert leaks(f"x {spelling} y"), spelling
        assert leaks(json.dumps(spelling)), spelling
    assert not leaks("nothing here, sk-*** and *** of a canary")


def assert_clean(folder: Path, *texts: str) -> None:
    """The canary is in no text, and in no file of a folder, also where a table packs its cells."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    contents = {str(path): path.read_bytes().decode("latin-1") for path in files}
    for path in folder.rglob("*.parquet"):
        contents[f"cells of {path}"] = pd.read_parquet(path).to_csv()
    contents |= {f"text {number}": text for number, text in enumerate(texts)}
    for name, content in contents.items():
        assert not leaks(content), name
        assert not leaks(name)


# --- what fails


def echo(request: Request) -> str:
    """What a careless server tells: the key, its address, both in many spellings."""
    sent = request.headers["authorization"].removeprefix("Bearer ")
    return " ".join([request.path, request.headers["authorization"], *spellings(sent)])


def escaped(request: Request) -> bytes:
    """A completion whose texts are the key in JSON's escapes."""
    key = "".join(f"\\u{ord(c):04x}" for c in request.headers["authorization"])
    return (
        f'{{"choices": [{{"message": {{"content": "{key}"}}, "finish_reason": "stop"}}],'
        f' "model": "{key}", "system_fingerprint": "{key}", "provider": "{key}"}}'
    ).encode()


def completion(request: Request, finish: Any = "stop", **message: Any) -> Reply:
    choice = {"message": {"content": "fine", **message}, "finish_reason": finish}
    return Reply(body=json.dumps({"choices": [choice]}).encode())


FAILURES: dict[str, Callable[[Request], Reply]] = {
    "refused": lambda r: error(401, echo(r)),
    "forbidden": lambda r: Reply(status=403, body=echo(r).encode(), content_type="text/plain"),
    "not found": lambda r: error(404, f"no route {r.path}"),
    "broken": lambda r: error(500, echo(r)),
    "wrong": lambda r: Reply(status=422, body=json.dumps({"detail": echo(r)}).encode()),
    "a page": lambda r: Reply(body=f"<p>{echo(r)}</p>".encode(), content_type="text/html"),
    "half": lambda r: Reply(body=f'{{"choices": [{{"{echo(r)}'.encode()),
    "an error in a 200": lambda r: Reply(body=json.dumps({"error": echo(r)}).encode()),
    "redirect": lambda r: Reply(
        status=307, body=b"", headers={"Location": f"http://127.0.0.2:9/?{quoted(r)}"}
    ),
    "circle": lambda r: Reply(status=307, body=b"", headers={"Location": f"?{quoted(r)}"}),
    "drop": lambda r: openai_stub.DROP,
    "cut": lambda r: Reply(text=echo(r), action="cut"),
    "hang": lambda r: openai_stub.HANG,
    "header": lambda r: Reply(headers={"X-Provider": echo(r), "Retry-After": echo(r)}, status=429),
    "escaped": lambda r: Reply(body=escaped(r)),
    "content": lambda r: completion(r, content=echo(r)),
    "refusal": lambda r: completion(r, refusal=echo(r)),
    "reason": lambda r: completion(r, finish=echo(r)[:90]),
    "tools": lambda r: completion(
        r, tool_calls=[openai_stub.called(echo(r), json.dumps({"a": echo(r)}))]
    ),
}
# Of these one alone stops all calls, or takes its time.
WORKS = {"escaped", "content", "refusal", "tools"}  # an answer, for `check`
HOPELESS = {"refused", "forbidden", "not found", "hang", "header"}


def quoted(request: Request) -> str:
    return urllib.parse.quote(request.headers["authorization"])


def project(folder: Path, url: str, **evaluation: Any) -> Path:
    """A judged project: keys for the candidate and the judge, a query in a URL of the environment.

    The judge is asked at the same place.
    """
    at = {"base_url": url, "api_key_env": "JUDGE_API_KEY"}
    judge = {"model": "org/judge", "endpoint": at, "user": "Judge: {output}"}
    brief = {
        "name": "canary",
        "task": "t",
        "policy": {"licenses": ["permissive"]},
        "size": {"tier": "any"},
        "evaluation": {
            "kind": "judged", "items": "items.jsonl", "judge": judge, "max_retries": 0,
            "timeout_s": 120, **evaluation,
        },
        "deployments": [
            {
                "name": "d",
                "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
                "endpoint": {"base_url_env": "OUR_URL", "api_key_env": "D_API_KEY"},
                "price": {"input_usd_per_million": 1.0, "output_usd_per_million": 1.0},
            }
        ],
        "speed": {"budget_s": 0.5, "budget_requests": 50},
        "requirements": {"min_quality": 0.5},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "project.yaml").write_text(yaml.safe_dump(brief))
    lines = [json.dumps({"id": f"{n}", "input": f"text {n}"}) + "\n" for n in range(ITEMS)]
    (folder / "items.jsonl").write_text("".join(lines))
    return folder / "project.yaml"


def variables(url: str, runs: Path) -> dict[str, str]:
    """Canaries in all variables; those of the machine's own keys are not among them."""
    query = urllib.parse.urlencode({"api-version": "2026-01-01", "key": f"q{CANARY}"})
    runs.mkdir(parents=True, exist_ok=True)
    places = {"PLAYBOOK_RUNS": str(runs), "TMPDIR": str(runs), "HF_HUB_OFFLINE": "1"}
    return KEYS | OTHERS | places | {"OUR_URL": f"{url}?{query}"}


# --- `check`: one call, which fails


@pytest.mark.parametrize("name", FAILURES)
def test_check_tells_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    with openai_stub.running(FAILURES[name]) as stub:
        for variable, value in variables(stub.url, tmp_path / "runs").items():
            monkeypatch.setenv(variable, value)
        patience = {"timeout_s": 1.0} if name == "hang" else {}
        path = project(tmp_path / "p", stub.url, **patience)
        status = main(["check", str(path)])
        assert {r.headers["authorization"] for r in stub.requests} >= {
            f"Bearer {key}" for key in KEYS.values()
        }
    printed = capfd.readouterr()
    assert status == (0 if name in WORKS else 1), printed.err
    assert_clean(tmp_path, printed.out, printed.err)


@pytest.mark.parametrize(
    "secret",
    [
        ("D_API_KEY", f"{CANARY}\r\nX-Other: {CANARY}"),
        ("D_API_KEY", f"{CANARY}é\u202e"),
        ("D_API_KEY", f" {CANARY}\x00"),
        ("OUR_URL", f"http://user:{CANARY}@127.0.0.1:9/v1"),
        ("OUR_URL", f"http://127.0.0.1:{CANARY}/v1"),
        ("OUR_URL", f"{CANARY}"),
        ("OUR_URL", f"http://127.0.0.1:9/v1?key={CANARY}"),
        ("HTTP_PROXY", f"http://user:{CANARY}@127.0.0.1:9"),
        ("HF_ENDPOINT", f"http://user:{CANARY}@127.0.0.1:9"),
    ],
    ids=lambda pair: f"{pair[0]} {pair[1][:5]!r}",
)
def test_check_tells_no_secret_that_cannot_be_sent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    secret: tuple[str, str],
) -> None:
    name, value = secret
    set_variables = variables("http://somewhere.invalid/v1", tmp_path / "runs") | {name: value}
    for variable, text in set_variables.items():
        if "\0" not in text:  # which no environment holds
            monkeypatch.setenv(variable, text)
    assert main(["check", str(project(tmp_path / "p", "http://127.0.0.1:9/v1"))]) == 1
    printed = capfd.readouterr()
    assert_clean(tmp_path, printed.out, printed.err)


@pytest.mark.parametrize("place", ["extra_headers", "headers", "api_key", "auth"])
def test_a_key_in_the_brief_is_not_repeated(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], place: str
) -> None:
    path = project(tmp_path / "p", "http://127.0.0.1:9/v1")
    brief = yaml.safe_load(path.read_text())
    for value in (CANARY, {"Authorization": f"Bearer {CANARY}"}, [CANARY]):
        for inside in (
            brief["deployments"][0]["endpoint"],
            brief["evaluation"]["judge"]["endpoint"],
        ):
            inside[place] = value
            path.write_text(yaml.safe_dump(brief))
            assert main(["check", str(path)]) == 1
            del inside[place]
    printed = capfd.readouterr()
    assert place in printed.err and not leaks(printed.out + printed.err)


def test_a_schedulers_password_is_not_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path))
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", f"tls://user:{CANARY}@127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["fleet", "article"]) == 1
    printed = capfd.readouterr()
    assert "DASK_SCHEDULER_ADDRESS" in printed.err and not leaks(printed.out + printed.err)


# --- whole runs


def mixed(request: Request) -> Reply:
    """Every other item fails, each in its own way; so does every other judgement."""
    shapes = [FAILURES[name] for name in FAILURES if name not in HOPELESS]
    number = re.search(r"text (\d+)", request.text)
    turn = int(number[1]) if number else request.number
    if turn % 2:
        return shapes[turn // 2 % len(shapes)](request)
    return Reply("pass" if "Judge" in request.text else f"fine text {turn}")


def lib(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lib", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def fleet_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Any, Any]]:
    """A whole run, by `fleet`, whose endpoint is as careless as it can be."""
    base = tmp_path_factory.mktemp("secrets")
    with openai_stub.running(mixed) as stub:
        env = os.environ | variables(stub.url, base / "runs")
        path = project(base / "p", stub.url)
        yield base, path, lib("fleet", str(path), "--workers", "1", env=env), env


def test_a_whole_run_leaves_no_secret(fleet_run: tuple[Path, Path, Any, Any]) -> None:
    base, _, done, _ = fleet_run
    run = base / "runs" / "canary"
    assert (run / "report.html").exists() and done.returncode in (0, 20, 21), done
    answers = store.read_records(run / "04_answers.jsonl")
    assert "***" in json.dumps(list(answers.values()))  # it did come back
    assert_clean(base, done.stdout, done.stderr)


BUG = """
import sys
if any("ipykernel" in word for word in sys.orig_argv):
    import openai
    async def post(self, *_, **__):
        try:
            raise ValueError(f"headers: {self.auth_headers}")
        except ValueError as error:
            raise RuntimeError("a bug", self.api_key, str(self._custom_query)) from error
    openai.AsyncOpenAI.post = post
"""


def test_an_exception_in_a_cell_leaves_no_secret(
    fleet_run: tuple[Path, Path, Any, Any], tmp_path: Path
) -> None:
    """One that quotes the headers it sent; papermill writes its traceback into the notebook."""
    base, path, _, env = fleet_run
    shutil.copytree(base / "runs" / "canary", tmp_path / "runs" / "canary")
    (tmp_path / "runs" / "canary" / "04_answers.jsonl").unlink()
    env = env | {"PLAYBOOK_RUNS": str(tmp_path / "runs"), "TMPDIR": str(tmp_path / "runs")}
    (tmp_path / "sitecustomize.py").write_text(BUG)
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), env.get("PYTHONPATH", "")])
    done = lib("run", str(path), "--from", "04", env=env)
    assert done.returncode == 1 and "RuntimeError: ('a bug', '***'" in done.stderr
    assert "a bug" in (tmp_path / "runs" / "canary" / "04_evaluate.ipynb").read_text()
    assert_clean(tmp_path, done.stdout, done.stderr)
