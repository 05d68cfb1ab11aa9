"""The `deployments` section of a brief: a model on hardware at a price, and how it is asked."""

import contextlib
import operator
import re
from datetime import date
from typing import Annotated, Literal, Self

import httpx2
import pydantic
from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from lib.brief.sections import Country, EnvName, Files, Positive, RepoId, Section, Share, Slug

LEAST_SECRET = 12  # characters: an API's version in a query is no secret, and is in many texts
WAYS = ("embedded", "gguf", "base_url", "base_url_env", "recorded")


def endpoint_url(text: str) -> str:
    """An endpoint's URL that can be asked; a ValueError, which shows nothing of it, if not."""
    with contextlib.suppress(httpx2.InvalidURL):
        url = httpx2.URL(text)  # as what sends the requests reads it: two parsers, two hosts
        port = 80 if url.port is None else url.port
        secret = url.userinfo or url.fragment or not text.isprintable() or " " in text
        if url.scheme in ("http", "https") and url.host and 0 < port < 2**16 and not secret:
            return text
    raise ValueError("must be http(s)://host/…, a port a number, without user name and password")


class Prompt(Section):
    """How an item becomes chat messages: `{word}` is the item's field of that name.

    An item's own `messages` are sent as they are, a `system` here in place of theirs.
    """

    system: str | None = None
    user: str | None = None
    answer: str | None = None

    @field_validator("user", "answer")
    @classmethod
    def _has_its_place(cls, value: str | None, field: ValidationInfo) -> str | None:
        if value is not None and field.field_name == "answer" and "{target}" not in value:
            raise ValueError("must contain {target}")
        if value is not None and not re.search(r"\{\w+\}", value):
            raise ValueError("must contain a field of the items, such as {input}")
        return value


class Endpoint(Section):
    """Where it answers: an embedded model, a GGUF on the Hub, a URL, or a file beside the brief."""

    embedded: Literal["gemma3-270m", "smollm2-135m"] | None = None
    gguf: str | None = None
    revision: str | None = None
    threads: int = Field(default=1, ge=1, le=256)
    port: int = Field(default=0, ge=0, le=65535)
    base_url: str | None = None
    base_url_env: EnvName | None = None
    api_key_env: EnvName | None = None
    model: str | None = None
    recorded: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        ways = [way for way in WAYS if getattr(self, way)]
        if len(ways) != 1:
            choice = f"{', '.join(WAYS[:-1])} or {WAYS[-1]}"
            raise ValueError(f"give exactly one of {choice}, not {' and '.join(ways) or 'none'}")
        if self.gguf and not (self.gguf.count("/") >= 2 and self.revision):
            raise ValueError("gguf is owner/name/file.gguf and needs revision: the commit to pin")
        if self.base_url:
            try:
                endpoint_url(self.base_url)
            except ValueError as error:
                raise ValueError(f"base_url {error}") from None
            query = httpx2.URL(self.base_url).params.items()
            for name in [k for k, v in query if len(v) >= LEAST_SECRET and k != "api-version"]:
                way = "which no brief holds; put the URL in a variable and give base_url_env"
                raise ValueError(f"base_url: {name!r:.40} in its query may be a key, {way}")
        return self

    @property
    def local(self) -> bool:
        """Whether the playbook starts this model server itself."""
        return bool(self.embedded or self.gguf)


class Price(Section):
    """Dollars: by the hour, by token, or looked up by provider in genai-prices."""

    usd_per_hour: Positive | None = None
    input_usd_per_million: Annotated[float, Field(ge=0)] | None = None
    output_usd_per_million: Annotated[float, Field(ge=0)] | None = None
    provider: str | None = None
    model: str | None = None
    basis: Literal["assumed", "list price", "contract"] = "assumed"
    source_url: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        by_token = self.input_usd_per_million is not None
        if by_token != (self.output_usd_per_million is not None):
            raise ValueError("give input_usd_per_million and output_usd_per_million together")
        if by_token + (self.usd_per_hour is not None) + (self.provider is not None) != 1:
            raise ValueError("give one of usd_per_hour, token prices or provider")
        if self.basis == "list price" and not self.provider and not self.source_url:
            raise ValueError("basis 'list price' needs source_url")
        return self


class Published(Section):
    """Figures somebody else measured; shown as such and never called measured."""

    quality: Share
    max_rps: Positive
    source: str
    checked_on: str


class Host(Section):
    """Who serves a hosted endpoint, and from which country's jurisdiction."""

    provider: str
    country: Country


class Options(Section):
    """What a request is sent with, beside its messages; what is left out is the brief's."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1, le=131072)
    stop: list[str] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    extra_body: dict[str, pydantic.JsonValue] = {}


class Limits(Section):
    """What an endpoint may be asked: in flight, and requests and tokens a minute."""

    concurrency: int | None = Field(default=None, ge=1, le=1024)
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None


class Deployment(Section):
    """A configuration: a model on hardware at a price, with the wording and options it needs.

    `answer_by: schema` asks for a label as JSON by schema, in text where the endpoint refuses.
    `precision` and `engine` are what the endpoint declares. The `baseline` is the one that the
    others must not be worse than: mostly the closed model in use today. `load_results` names files
    of GuideLLM or `vllm bench serve`, beside the brief, that stand in for the loads of step 5.
    `retires_on` is the day that its provider published; of weights that we host there is none.
    """

    name: Slug
    model: RepoId
    endpoint: Endpoint | None = None
    published: Published | None = None
    load_results: Files = Field(default=[], exclude_if=operator.not_)  # older hashes stay the same
    prompt: Prompt = Prompt()
    options: Options = Options()
    limits: Limits = Limits()
    answer_by: Literal["text", "schema"] = "text"
    baseline: bool = False
    precision: str | None = None
    engine: str | None = None
    host: Host | None = None
    retires_on: date | None = None
    hardware: str | None = None
    price: Price | None = None

    @model_validator(mode="after")
    def _one_capacity(self) -> Self:
        if self.published and self.load_results:
            raise ValueError("give published or load_results, not both: each says what it bears")
        return self


def _has_a_price(deployment: Deployment) -> Deployment:
    if not (deployment.price or deployment.hardware):
        need = "a price, or hardware whose price data/hardware.csv knows"
        raise ValueError(f"{deployment.name!r} needs {need}")
    return deployment


Priced = Annotated[Deployment, AfterValidator(_has_a_price)]  # a judge's may be unknown
