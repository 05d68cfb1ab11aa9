"""A small Hub on loopback: recorded-shape answers, scripted failures, and what was asked."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from huggingface_hub import constants

from lib.hub import client

SHA = "0123456789abcdef0123456789abcdef01234567"
MODEL: dict[str, Any] = {
    "_id": "6512f1c3d2a1",
    "id": "acme/large",
    "sha": SHA,
    "lastModified": "2026-10-01T12:00:00.000Z",
    "gated": False,
    "downloads": 1234,
    "likes": 56,
    "library_name": "transformers",
    "tags": ["transformers", "license:apache-2.0", "base_model:acme/base"],
    "cardData": {"license": "apache-2.0"},
    "config": {"architectures": ["LlamaForCausalLM"], "model_type": "llama"},
    "safetensors": {"parameters": {"BF16": 8_000_000_000}, "total": 8_000_000_000},
    "siblings": [{"rfilename": "README.md"}, {"rfilename": "model-00001-of-00002.safetensors"}],
    "baseModels": {"relation": "finetune", "models": [{"_id": "1", "id": "acme/base"}]},
    "inferenceProviderMapping": {
        "together": {"status": "live", "providerId": "acme/Large", "task": "conversational"},
        "fal-ai": {"status": "staging", "providerId": "x", "task": "conversational"},
        "novita": {"status": "live", "providerId": "y", "task": "conversational"},
    },
}


FILES: dict[str, Any] = {
    "siblings": [
        {"rfilename": "README.md", "size": 5_000},
        {"rfilename": "model-00001-of-00002.safetensors", "size": 9_000_000_000},
        {"rfilename": "model-00002-of-00002.safetensors", "size": 7_000_000_000},
    ],
    "securityRepoStatus": {"scansDone": True, "filesWithIssues": []},
}
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "max_position_embeddings": 131072,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
}
ROUTED: dict[str, Any] = {
    "id": "acme/large",
    "object": "model",
    "created": 1_760_000_000,
    "owned_by": "acme",
    "providers": [
        {
            "provider": "together",
            "status": "live",
            "context_length": 65536,
            "pricing": {"input": 0.6, "output": 1.8},
            "supports_tools": True,
            "supports_structured_output": True,
            "first_token_latency_ms": 320.5,
            "throughput": 88.2,
            "is_model_author": False,
        },
        {"provider": "novita", "status": "live", "is_model_author": False},
    ],
}


def model(repo_id: str, **changes: object) -> dict[str, Any]:
    return copy.deepcopy(MODEL) | {"id": repo_id} | changes


def files(repo_id: str, **changes: object) -> dict[str, Any]:
    """The answer to `?securityStatus=true&blobs=true`."""
    return copy.deepcopy(FILES) | {"id": repo_id, "sha": SHA} | changes


@dataclass
class Answer:
    """One scripted answer; `body` is JSON unless it is bytes."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    length: int | None = None


GATED_FILE = Answer({"error": "Access restricted"}, 401, {"X-Error-Code": "GatedRepo"})
NOT_FOUND = Answer({"error": "not found"}, 404, {"X-Error-Code": "RepoNotFound"})


@dataclass
class Stub:
    url: str = ""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, list[str]], dict[str, str]]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    delay_s: float = 0.0
    quota: int | None = None  # API requests per window, like the Hub's fixed windows
    window_s: float = 300.0
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    window: tuple[float, int] = (0.0, 0)
    clock: Callable[[], float] = time.monotonic
    held_from: float = math.inf  # requests from this number on wait until `let_go` is set
    let_go: threading.Event = field(default_factory=threading.Event)

    def serve(self, repo_id: str, *answers: object) -> None:
        """Answer with each in turn, then with the last again and again."""
        self.script(f"/api/models/{repo_id}", *answers)

    def serve_files(self, repo_id: str, *answers: object) -> None:
        """The same for `?securityStatus=true&blobs=true`; left out, `files(repo_id)`."""
        self.script(f"/api/models/{repo_id}?blobs", *answers)

    def serve_config(self, repo_id: str, *answers: object, sha: str = SHA) -> None:
        """The same for config.json; left out, `CONFIG`."""
        self.script(f"/{repo_id}/resolve/{sha}/config.json", *answers)

    def serve_router(self, *answers: object) -> None:
        """The same for the router's `/v1/models`."""
        self.script("/v1/models", *answers)

    def list_pages(self, *pages: object) -> None:
        """`GET /api/models?…` answers page by page, with `Link: <…>; rel="next"`."""
        for place, page in enumerate(pages):
            self.script(f"/api/models?cursor={place}", page)

    def script(self, key: str, *answers: object) -> None:
        self.answers[key] = [a if isinstance(a, Answer) else Answer(a) for a in answers]

    @property
    def paths(self) -> list[str]:
        return [path for path, _, _ in self.asked]

    def key(self, path: str, query: dict[str, list[str]]) -> str:
        if path == "/api/models":
            return f"{path}?cursor={query.get('cursor', ['0'])[0]}"
        return f"{path}?blobs" if "blobs" in query else path

    def answer(self, path: str, query: dict[str, list[str]]) -> Answer:
        key = self.key(path, query)
        with self.lock:
            if script := self.answers.get(key):
                found = script.pop(0) if len(script) > 1 else script[0]
            else:
                found = self.default(path, query)
        if path == "/api/models":
            place = int(query.get("cursor", ["0"])[0]) + 1
            if f"{path}?cursor={place}" in self.answers:
                onward = urlencode({**query, "cursor": [str(place)]}, doseq=True)
                link = {"Link": f'<{self.url}{path}?{onward}>; rel="next"'}
                found = Answer(found.body, found.status, link | found.headers, found.delay_s)
        return found

    def default(self, path: str, query: dict[str, list[str]]) -> Answer:
        """Files and a config for every model that is served, and a router that routes nothing."""
        if path == "/v1/models":
            return Answer({"object": "list", "data": []})
        if path == "/api/models":
            return Answer([])
        repo_id, _, end = path.removeprefix("/").partition("/resolve/")
        if end.endswith("/config.json") and f"/api/models/{repo_id}" in self.answers:
            return Answer(CONFIG)
        if "blobs" in query and path in self.answers:
            return Answer(files(path.removeprefix("/api/models/")))
        return NOT_FOUND

    def limited(self, path: str) -> tuple[bool, dict[str, str]]:
        """Whether the fixed window is used up, and the headers that tell."""
        if self.quota is None or not path.startswith("/api/"):
            return False, {}
        with self.lock:
            began, used = self.window
            now = self.clock()
            if now - began >= self.window_s:
                began, used = now, 0
            self.window = (began, used + 1)
        left, resets = max(0, self.quota - used - 1), int(began + self.window_s - now) + 1
        policy = f'"fixed window";"api";q={self.quota};w={int(self.window_s)}'
        headers = {"RateLimit": f'"api";r={left};t={resets}', "RateLimit-Policy": policy}
        return used >= self.quota, headers


def point_at(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a stub the endpoint, with no proxy between and no wait between attempts."""
    monkeypatch.setattr(constants, "ENDPOINT", stub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(client, "PAUSES_S", (0.0,) * len(client.PAUSES_S))
    no_sleep = SimpleNamespace(sleep=lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.utils._http.time", no_sleep)
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    for name in (*proxies, *map(str.lower, proxies), "HF_HUB_OFFLINE", "PLAYBOOK_ROUTER_URL"):
        monkeypatch.delenv(name, raising=False)


class Clock:
    """A time that only waiting moves, for the stub and for whoever asks it."""

    def __init__(self) -> None:
        self.now, self._lock = 1000.0, threading.Lock()

    def time(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        """Until this many seconds are over; side by side they pass for all who wait."""
        until = self.now + seconds
        with self._lock:
            self.now = max(self.now, until)
        return False

    def install(self, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the stub's windows and the client's waits be in this time."""
        event = SimpleNamespace(wait=self.wait, is_set=lambda: False, set=lambda: None)
        fake = SimpleNamespace(Event=lambda: event, Lock=threading.Lock)
        stub.clock = self.time
        monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=self.time))
        monkeypatch.setattr(client, "threading", fake)
        # Whoever reads while another thread waits must not seem to have read that long.
        monkeypatch.setattr(client, "DRIP", 10**6)


@contextlib.contextmanager
def running() -> Iterator[Stub]:
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            headers = {key.lower(): value for key, value in self.headers.items()}
            with stub.lock:
                stub.asked.append((parts.path, query, headers))
                stub.in_flight += 1
                stub.most_in_flight = max(stub.most_in_flight, stub.in_flight)
                held = len(stub.asked) >= stub.held_from
            try:
                if held:
                    stub.let_go.wait()
                over, told = stub.limited(parts.path)
                answer = Answer({"error": "slow down"}, 429) if over else None
                answer = answer or stub.answer(parts.path, query)
                time.sleep(stub.delay_s + answer.delay_s)
            finally:
                with stub.lock:
                    stub.in_flight -= 1
            with contextlib.suppress(OSError):
                self.reply(answer, told)

        def reply(self, answer: Answer, told: dict[str, str]) -> None:
            body = answer.body
            if not isinstance(body, bytes):
                body = json.dumps(body).encode()
            stub.statuses.append(answer.status)
            self.send_response(answer.status)
            headers = {key.lower(): value for key, value in (told | answer.headers).items()}
            headers.setdefault("content-length", str(answer.length or len(body)))
            for key, value in headers.items():
                self.send_header(key, value)
            if answer.length:
                self.close_connection = True
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that went away is none of the stub's business; anything else is printed."""
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        stub.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()
