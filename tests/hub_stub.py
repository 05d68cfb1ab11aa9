"""A small Hub on loopback: recorded-shape answers, scripted failures, and what was asked."""

from __future__ import annotations

import contextlib
import copy
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

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


def model(repo_id: str, **changes: object) -> dict[str, Any]:
    return copy.deepcopy(MODEL) | {"id": repo_id} | changes


@dataclass
class Answer:
    """One scripted answer; `body` is JSON unless it is bytes."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    length: int | None = None


@dataclass
class Stub:
    url: str = ""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, list[str]], dict[str, str]]] = field(default_factory=list)

    def serve(self, repo_id: str, *answers: object) -> None:
        """Answer with each in turn, then with the last again and again."""
        self.answers[f"/api/models/{repo_id}"] = [
            answer if isinstance(answer, Answer) else Answer(answer) for answer in answers
        ]

    @property
    def paths(self) -> list[str]:
        return [path for path, _, _ in self.asked]


@contextlib.contextmanager
def running() -> Iterator[Stub]:
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            headers = {key.lower(): value for key, value in self.headers.items()}
            stub.asked.append((parts.path, parse_qs(parts.query), headers))
            script = stub.answers.get(parts.path)
            missing = Answer({"error": "not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            answer = missing if not script else script.pop(0) if len(script) > 1 else script[0]
            time.sleep(answer.delay_s)
            is_bytes = isinstance(answer.body, bytes)
            body = answer.body if is_bytes else json.dumps(answer.body).encode()
            with contextlib.suppress(OSError):
                self.send_response(answer.status)
                for key, value in answer.headers.items():
                    self.send_header(key, value)
                if not {"Content-Length", "content-length"} & set(answer.headers):
                    self.send_header("Content-Length", str(answer.length or len(body)))
                if answer.length:
                    self.close_connection = True
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
