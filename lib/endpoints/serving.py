"""Deployments: where a model answers, started here when it is an embedded one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import select
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import openai

from lib.artifacts import shown
from lib.brief.project import Deployment, Project
from lib.endpoints import model_server as embedded
from lib.endpoints.weights import WEIGHTS, weights_path
from lib.errors import PlaybookError
from lib.hub import models as hub

__all__ = [
    "Served",
    "client",
    "identity",
    "machine",
    "pinned",
    "recorded_path",
    "redacted",
    "request_options",
    "scrub",
    "serving",
]

START_TIMEOUT_S = 120.0
OURS = {"model", "messages", "stream", "n"}
URL = re.compile(r"https?://[^\s/@]+(/\S*)?")


class Served(NamedTuple):
    """An endpoint that answers now; the key stays in its environment variable."""

    base_url: str
    model: str
    api_key_env: str | None


def identity(deployment: Deployment, folder: Path = Path()) -> dict[str, Any]:
    """What makes two deployments answer alike: the weights or the endpoint, never its name.

    Args:
        deployment: Of a brief.
        folder: The brief's folder, which a recorded file hangs off.
    """
    endpoint = deployment.endpoint
    if endpoint is None:
        return {"model": deployment.model}
    if endpoint.recorded:
        path = recorded_path(deployment, folder)
        return {"recorded": hashlib.sha256(path.read_bytes()).hexdigest()}
    if endpoint.embedded:
        weights = WEIGHTS[endpoint.embedded]
        return {"sha256": weights.sha256, "template": weights.template, "threads": endpoint.threads}
    if endpoint.gguf:
        return {
            "gguf": endpoint.gguf,
            "revision": endpoint.revision,
            "threads": endpoint.threads,
        }
    who = {"url": _base_url(deployment), "model": endpoint.model or deployment.model}
    return who | ({"revision": endpoint.revision} if endpoint.revision else {})


def pinned(deployment: Deployment) -> bool:
    """Whether it is certain which weights answer, so that an answer of another run still holds.

    A hosted model may change behind its name, unless the endpoint declares a `revision`.
    """
    endpoint = deployment.endpoint
    return endpoint is not None and bool(endpoint.embedded or endpoint.revision)


def recorded_path(deployment: Deployment, folder: Path) -> Path:
    """The file of recorded outputs, beside the brief.

    Raises:
        PlaybookError: It is not there.
    """
    endpoint = deployment.endpoint
    assert endpoint is not None
    path = folder / (endpoint.recorded or "")
    if not path.is_file():
        raise PlaybookError(
            f"{shown(path)}: no such file; endpoint.recorded of {deployment.name!r} names it"
        )
    return path


def machine() -> str:
    """The machine a load was measured on, as far as a capacity depends on it."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def request_options(brief: Project, deployment: Deployment | None = None) -> dict[str, Any]:
    """The options every request is sent with: the brief's, or the deployment's own.

    `options.extra_body` has the last word; a key that it sets to null is not sent at all, as
    endpoints want that refuse `temperature` or know `max_completion_tokens` only.

    Raises:
        PlaybookError: `extra_body` sets what the playbook sets itself.
    """
    evaluation = brief.evaluation
    options: dict[str, Any] = {
        "temperature": evaluation.temperature,
        "max_tokens": evaluation.max_tokens,
    }
    options |= {"stop": evaluation.stop} if evaluation.stop else {}
    if deployment is None:
        return options
    own = deployment.options.model_dump(exclude_none=True)
    extra = own.pop("extra_body")
    if taken := sorted(OURS & set(extra)):
        raise PlaybookError(
            f"deployment {deployment.name!r}: options.extra_body may not set {taken[0]!r};"
            " the playbook does"
        )
    options |= own | extra
    return {key: value for key, value in options.items() if value is not None and value != []}


def _base_url(deployment: Deployment) -> str:
    endpoint = deployment.endpoint
    assert endpoint is not None
    if endpoint.base_url_env:
        url = os.environ.get(endpoint.base_url_env, "")
        if not URL.fullmatch(url):
            raise PlaybookError(
                f"deployment {deployment.name!r}: set the environment variable"
                f" {endpoint.base_url_env} to the endpoint's URL, such as http://127.0.0.1:8000/v1"
            )
        return url
    return endpoint.base_url or ""


def client(served: Served, *, timeout_s: float, max_retries: int) -> openai.AsyncOpenAI:
    """An OpenAI client of an endpoint; the key is read from the environment only here."""
    key = os.environ.get(served.api_key_env, "") if served.api_key_env else "none"
    http_client = None
    if served.base_url.startswith("http://127.0.0.1"):
        # A proxy set for the outside world must not see requests to our own port.
        http_client = openai.DefaultAsyncHttpxClient(trust_env=False)
    return openai.AsyncOpenAI(
        base_url=served.base_url,
        api_key=key,
        timeout=timeout_s,
        max_retries=max_retries,
        http_client=http_client,
    )


def redacted(text: str, served: Served) -> str:
    """Text without the endpoint's key, should the endpoint have sent it back."""
    key = os.environ.get(served.api_key_env, "") if served.api_key_env else ""
    return text.replace(key, "***") if key else text


def scrub(text: str, served: Served) -> str:
    """An error message without the key, on one line and of bounded length."""
    line = " ".join(redacted(text, served).split())[:300]
    return line.encode("utf-8", "replace").decode()


@contextlib.contextmanager
def serving(deployment: Deployment, *, logs: Path) -> Iterator[Served]:
    """Yield a deployment's endpoint, starting and stopping a local model server if need be.

    Args:
        deployment: With an `endpoint`.
        logs: Folder for the server's own log, one file a deployment.

    Raises:
        PlaybookError: The key's variable is unset, or the server does not start.
    """
    endpoint = deployment.endpoint
    assert endpoint is not None
    if endpoint.recorded:
        raise PlaybookError(
            f"deployment {deployment.name!r} is a file of recorded outputs: nothing can be asked"
            " of it"
        )
    if endpoint.local:
        with _local_server(deployment, logs) as served:
            yield served
        return
    if endpoint.api_key_env and not os.environ.get(endpoint.api_key_env):
        raise PlaybookError(
            f"deployment {deployment.name!r}: the environment variable"
            f" {endpoint.api_key_env} is not set; export the key there, never in the brief"
        )
    yield Served(_base_url(deployment), endpoint.model or deployment.model, endpoint.api_key_env)


@contextlib.contextmanager
def _local_server(deployment: Deployment, logs: Path) -> Iterator[Served]:
    endpoint = deployment.endpoint
    assert endpoint is not None
    if endpoint.embedded:
        path, weights = weights_path(endpoint.embedded)
        template = weights.template
    else:
        path = hub.download_gguf(endpoint.gguf or "", endpoint.revision or "")
        template = ""
    if endpoint.port:
        _refuse_used_port(deployment.name, endpoint.port)
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{deployment.name}.log"
    # By path and with -P, so that no folder called `lib` where the caller stands is in the way.
    command = [sys.executable, "-P", embedded.__file__, str(path), "--alias", deployment.name]
    command += ["--threads", str(endpoint.threads), "--port", str(endpoint.port)]
    command += ["--template", template] if template else []
    with log.open("wb") as stderr:
        # The child serves until its standard input closes: also when this process is killed.
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
        )
        try:
            yield Served(_address(child, deployment.name, log), deployment.name, None)
        finally:
            with contextlib.suppress(OSError):
                child.stdin.close()  # type: ignore[union-attr]
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            child.stdout.close()  # type: ignore[union-attr]


def _refuse_used_port(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise PlaybookError(
                f"deployment {name!r}: endpoint.port {port} is in use;"
                " leave it out to take a free one"
            ) from None


def _address(child: subprocess.Popen[bytes], name: str, log: Path) -> str:
    """Wait until the server says where it is and answers its health check."""
    assert child.stdout is not None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_TIMEOUT_S
    said = select.select([child.stdout], [], [], START_TIMEOUT_S)[0]
    line = child.stdout.readline() if said else b""
    if line:
        address: str = json.loads(line)["address"]
        while child.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), opener.open(f"{address}/health", timeout=5) as reply:
                if reply.status == 200:
                    return f"{address}/v1"
            time.sleep(0.05)
    lines = [text for text in log.read_text(errors="replace").split("\n") if text.strip()]
    # llama.cpp marks errors with E; the first says what is wrong, the last only that it stopped.
    reason = next((text for text in lines if " E " in text), lines[-1] if lines else "no message")
    raise PlaybookError(
        f"deployment {name!r}: the model server did not start: {reason[:200]} ({shown(log)})"
    )
