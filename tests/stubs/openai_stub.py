"""A small OpenAI-compatible server on loopback: scripted answers, and a record of what was asked.

In a test: `with openai_stub.running(behave) as stub:`; in its own process:
`python tests/stubs/openai_stub.py --delay 0.05` prints its URL and serves until stdin closes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast


@dataclass
class Request:
    """One request as it arrived; `number` counts from 1."""

    number: int
    headers: dict[str, str]
    body: dict[str, Any]
    at: float
    path: str = ""

    @property
    def text(self) -> str:
        """The last message, which is the item; of a ranking the query."""
        if "query" in self.body:
            return str(self.body["query"])
        return str(self.body["messages"][-1]["content"])


@dataclass
class Reply:
    """How one request is answered; `body` replaces the chat completion altogether."""

    text: Any = "positive"
    delay_s: float = 0.0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = "application/json"
    # "drop": close unanswered; "hang": never answer; "cut": close half-way;
    # "trickle": a byte at a time, without end; "flood": as much as is taken, without end
    action: str = ""
    finish_reason: Any = "stop"
    refusal: str | None = None
    reasoning: str | None = None  # sent apart, as `reasoning_content`
    tool_calls: Any = None  # in OpenAI's form; `called` makes one
    scores: Any = None  # of a ranking, one a document; left out, the later the better
    usage: Any = field(
        default_factory=lambda: {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
    )


def error(status: int, message: str = "no", **headers: str) -> Reply:
    """An error in the shape OpenAI-compatible servers send."""
    body = json.dumps({"error": {"message": message}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, body=body, headers=named)


def called(name: Any, arguments: Any) -> dict[str, Any]:
    """One tool call in the shape OpenAI-compatible servers send."""
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


HTML = Reply(body=b"<html><body>Please log in</body></html>", content_type="text/html")
EMPTY = Reply(body=b"")
BROKEN_JSON = Reply(body=b'{"choices": [{"mess')
DROP = Reply(action="drop")
HANG = Reply(action="hang")
Behaviour = Callable[[Request], Reply]
TRICKLE_S = 0.05  # between two bytes


class Stub:
    """The server: its URL, how it behaves, and everything it was asked."""

    def __init__(self, behave: Behaviour | Reply | None, service_s: float) -> None:
        self.behave: Behaviour | Reply = behave or Reply()
        self.service_s = service_s  # greater than 0: one worker, first come, first served
        self.url = ""
        self.requests: list[Request] = []
        self.active = self.most_active = 0
        self.waiting: deque[tuple[Connection, Request, Reply]] = deque()
        self.busy = False

    @property
    def texts(self) -> list[str]:
        """The items asked, in order of arrival."""
        return [request.text for request in self.requests]

    def take(
        self, connection: Connection, headers: dict[str, str], body: bytes, path: str = ""
    ) -> None:
        """Record a request and answer it in its time."""
        loop = asyncio.get_running_loop()
        parsed = json.loads(body) if body else {}
        request = Request(len(self.requests) + 1, headers, parsed, loop.time(), path)
        self.requests.append(request)
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        connection.pending += 1
        reply = self.behave if isinstance(self.behave, Reply) else self.behave(request)
        if reply.action == "hang":
            return
        if self.service_s:
            self.waiting.append((connection, request, reply))
            self._serve_next()
        elif reply.delay_s:
            loop.call_later(reply.delay_s, connection.answer, request, reply)
        else:
            connection.answer(request, reply)

    def _serve_next(self) -> None:
        while self.waiting and not self.busy:
            connection, request, reply = self.waiting.popleft()
            if not connection.transport.is_closing():  # whoever hung up is not served
                self.busy = True
                asyncio.get_running_loop().call_later(
                    self.service_s + reply.delay_s, self._served, connection, request, reply
                )

    def _served(self, connection: Connection, request: Request, reply: Reply) -> None:
        self.busy = False
        connection.answer(request, reply)
        self._serve_next()


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, stub: Stub) -> None:
        self.stub, self.buffer, self.pending = stub, b"", 0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.stub.active -= self.pending
        self.pending = 0

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = self.buffer[:end].decode("latin-1").split("\r\n")
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            size = int(headers.get("content-length", 0))
            if len(self.buffer) < end + 4 + size:
                return
            body = self.buffer[end + 4 : end + 4 + size]
            self.buffer = self.buffer[end + 4 + size :]
            self.stub.take(self, headers, body, first.split(" ")[1])

    def answer(self, request: Request, reply: Reply) -> None:
        if self.transport.is_closing():
            return
        if reply.action in ("trickle", "flood"):
            kind = "text/event-stream" if request.body.get("stream") else "application/json"
            head = f"HTTP/1.1 200 X\r\nContent-Type: {kind}\r\nContent-Length: 99999999999\r\n\r\n"
            self.transport.write(head.encode())
            self._trickle(reply.body or b" ", 0.0 if reply.action == "flood" else TRICKLE_S)
            return
        self.pending -= 1
        self.stub.active -= 1
        if reply.action == "drop":
            self.transport.close()
            return
        stream = bool(request.body.get("stream")) and reply.body is None and reply.status == 200
        body = _events(request, reply) if stream else reply.body
        if body is None:
            ranking = request.path.endswith("/rerank")
            shaped = _ranking(request, reply) if ranking else _completion(reply)
            body = json.dumps(shaped).encode()
        kind = "text/event-stream" if stream else reply.content_type
        size = len(body) * (2 if reply.action == "cut" else 1)
        head = f"HTTP/1.1 {reply.status} X\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        self.transport.write(head.encode() + b"\r\n" + body)
        if reply.action == "cut":
            self.transport.close()

    def _trickle(self, data: bytes, every_s: float) -> None:
        if not self.transport.is_closing():
            # What is not taken yet must not pile up here.
            if every_s or self.transport.get_write_buffer_size() < 2**20:
                self.transport.write(data)
            asyncio.get_running_loop().call_later(every_s or 0.001, self._trickle, data, every_s)


def _completion(reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.text, "refusal": reply.refusal}
    message |= {"reasoning_content": reply.reasoning} if reply.reasoning else {}
    message |= {"tool_calls": reply.tool_calls} if reply.tool_calls is not None else {}
    choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
    body: dict[str, Any] = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    return body | {"choices": [choice]} | ({"usage": reply.usage} if reply.usage else {})


def _ranking(request: Request, reply: Reply) -> dict[str, Any]:
    """Best first, as rerank endpoints answer."""
    scores = reply.scores or list(range(len(request.body["documents"])))
    results = [{"index": i, "relevance_score": score} for i, score in enumerate(scores)]
    results.sort(key=lambda r: -r["relevance_score"])
    return {"model": "m", "results": results} | ({"usage": reply.usage} if reply.usage else {})


def _events(request: Request, reply: Reply) -> bytes:
    steps = [{"delta": {"content": reply.text}, "finish_reason": None}]
    if reply.action != "cut":
        steps.append({"delta": {}, "finish_reason": reply.finish_reason})
    chunks = [
        {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, **step}]}
        for step in steps
    ]
    if reply.usage and request.body.get("stream_options", {}).get("include_usage"):
        chunks.append(chunks[0] | {"choices": [], "usage": reply.usage})
    done = [] if reply.action == "cut" else ["[DONE]"]
    return "".join(f"data: {line}\n\n" for line in [*map(json.dumps, chunks), *done]).encode()


in_memory: Callable[[Stub], contextlib.AbstractContextManager[Stub]] | None = None


@contextlib.contextmanager
def running(
    behave: Behaviour | Reply | None = None, *, service_s: float = 0.0, port: int = 0
) -> Iterator[Stub]:
    """Serve from a thread until the block ends; under the fixture `virtual_time` from memory."""
    stub = Stub(behave, service_s)
    if in_memory is not None:
        with in_memory(stub):
            yield stub
        return
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(
        loop.create_server(lambda: Connection(stub), "127.0.0.1", port, backlog=2048)
    )
    stub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def main() -> None:
    """Serve until standard input closes."""
    cli = argparse.ArgumentParser()
    cli.add_argument("--delay", type=float, default=0.0)
    cli.add_argument("--port", type=int, default=0)
    cli.add_argument("--log", default=os.devnull, help="gets a line of JSON for every request")
    args = cli.parse_args()

    def behave(request: Request) -> Reply:
        log.write(json.dumps([request.text, bool(request.body.get("stream"))]) + "\n")
        log.flush()
        return Reply(delay_s=args.delay)

    with open(args.log, "a") as log, running(behave, port=args.port) as stub:
        sys.stdout.write(stub.url + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
