"""The sections of a brief: what each key may hold, and which keys go together."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from lib import places

__all__ = [
    "Acceptance",
    "Candidates",
    "Company",
    "Deployment",
    "Endpoint",
    "Evaluation",
    "Exemption",
    "Host",
    "Hub",
    "Policy",
    "Price",
    "Prompt",
    "Published",
    "Require",
    "Requirements",
    "Revenue",
    "Section",
    "Shot",
    "Size",
    "Slug",
    "Speed",
]

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
EnvName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
Place = Annotated[str, AfterValidator(places.check)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]
RepoId = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]


class Section(BaseModel):
    """A part of a brief: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Policy(Section):
    """What counsel allows: licence ids or classes, countries, the use.

    `countries` are those of the developer and of the developers of its base models,
    `host_countries` those of whoever serves the model; `denied_countries` bars all three.
    """

    licenses: list[str] = Field(default=["permissive"], min_length=1)
    countries: list[str] | None = None
    host_countries: list[Place] | None = None
    denied_countries: list[Place] = []
    use: Literal["internal", "product", "model-as-a-service", "redistribution"] = "product"


class Revenue(Section):
    """The company's revenue; licences count in USD, so convert before you write it down."""

    amount: Annotated[float, Field(ge=0)]
    currency: Literal["USD"]
    period: Literal["month", "year"]


class Company(Section):
    """The company's own facts, which licences ask for. What is left out is not known."""

    domicile: Place | None = None
    territories: list[Place] | None = None
    monthly_active_users: Annotated[int, Field(ge=0)] | None = None
    revenue: Revenue | None = None
    services: list[Literal["model-as-a-service", "redistribution", "ai-assistant"]] | None = None
    publishes_derivatives: bool | None = None
    outputs_train_models: bool | None = None


class Exemption(Section):
    """A written exception for one model; it ends on the day it expires."""

    model: RepoId
    lifts: Literal["review", "conditional"]
    approver: str = Field(min_length=3)
    reason: str = Field(min_length=3)
    expires: date


class Size(Section):
    """How large a model to look at: a tier, or the closed model that is replaced."""

    tier: Literal["low", "medium", "high", "any"] | None = None
    replaces: str | None = None
    fine_tuning: Literal["none", "planned"] = "none"
    precision: Literal["bf16", "fp8", "int8", "int4", "fp4"] = "bf16"
    context_tokens: Annotated[int, Field(ge=128, le=10_000_000)] = 8192
    concurrent_requests: Annotated[int, Field(ge=1, le=100_000)] = 8

    @model_validator(mode="after")
    def _one_of(self) -> Size:
        if (self.tier is None) == (self.replaces is None):
            raise ValueError("give either tier or replaces, not both and not neither")
        return self


class Candidates(Section):
    """Where step 1's models come from: the shipped catalogue, or the whole Hub.

    What is left out is derived: the licences from `policy`, the sizes from `size`.
    """

    source: Literal["catalogue", "hub"] = "catalogue"
    via: Literal["api", "index"] = "api"
    index: str = "hf://datasets/cfahlgren1/hub-stats/models.parquet"
    licenses: list[str] | None = None
    task: str | None = "text-generation"
    min_params_b: Positive | None = None
    max_params_b: Positive | None = None
    provider: str | None = None
    min_downloads: Annotated[int, Field(ge=0)] = 1000
    sort: Literal["downloads", "likes", "trending"] = "downloads"
    limit: Annotated[int, Field(ge=1, le=5000)] = 200


class Acceptance(Section):
    """A drift somebody has looked at: the run goes on with what the Hub says now."""

    model: RepoId
    field: Literal["licence", "size", "context", "gated", "base model"]
    reason: str = Field(min_length=3)


class Hub(Section):
    """How the Hub is asked, and which drift stops the run."""

    max_age_hours: Annotated[float, Field(ge=0)] = 24.0
    stop_on: Literal["shortlisted", "deployed"] = "shortlisted"
    accept_drift: list[Acceptance] = []


class Require(Section):
    """The supply-chain gate: what a repository must show before its weights are used."""

    safetensors: bool = False
    no_remote_code: bool = False
    scanned: bool = False
    not_gated: bool = False
    min_age_days: Annotated[int, Field(ge=0)] | None = None
    max_age_days: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Require:
        if (self.min_age_days or 0) > (self.max_age_days or float("inf")):
            raise ValueError("min_age_days is above max_age_days: no model could pass")
        return self


class Prompt(Section):
    """How an item becomes chat messages; `{input}` and `{target}` are replaced."""

    system: str | None = None
    user: str | None = None
    answer: str | None = None

    @field_validator("user")
    @classmethod
    def _asks(cls, value: str | None) -> str | None:
        if value is not None and "{input}" not in value:
            raise ValueError("must contain {input}")
        return value

    @field_validator("answer")
    @classmethod
    def _answers(cls, value: str | None) -> str | None:
        if value is not None and "{target}" not in value:
            raise ValueError("must contain {target}")
        return value


class Shot(Section):
    """One worked example shown before the item."""

    input: str
    target: str


class Evaluation(Section):
    """What is asked of every deployment and how the answer is scored."""

    kind: Literal["classification", "exact", "published"]
    items: str | None = None
    labels: list[str] = []
    prompt: Prompt = Prompt(user="{input}", answer="{target}")
    shots: list[Shot] = []
    max_tokens: int = Field(default=16, ge=1, le=32768)
    temperature: float = Field(default=0.0, ge=0, le=2)
    stop: list[str] = []
    concurrency: int = Field(default=8, ge=1, le=1024)
    timeout_s: Positive = 60.0
    max_retries: int = Field(default=4, ge=0, le=20)

    @model_validator(mode="after")
    def _complete(self) -> Evaluation:
        if self.kind != "published" and not self.items:
            raise ValueError(f"kind {self.kind!r} needs items: the name of a JSONL file")
        if self.kind == "classification" and len(set(self.labels)) < 2:
            raise ValueError("kind 'classification' needs labels: at least two different ones")
        folded = [label.strip().casefold() for label in self.labels]
        for label in folded:
            if not label or folded.count(label) > 1:
                raise ValueError(f"labels: {label!r} is blank or there twice; case does not count")
        for shot in self.shots:
            if self.kind == "classification" and shot.target not in self.labels:
                raise ValueError(f"shots: target {shot.target!r} is not one of {self.labels}")
        return self


class Endpoint(Section):
    """Where a deployment answers: an embedded model, a GGUF file on the Hub, or a URL."""

    embedded: Literal["gemma3-270m", "smollm2-135m"] | None = None
    gguf: str | None = None
    revision: str | None = None
    threads: int = Field(default=1, ge=1, le=256)
    port: int = Field(default=0, ge=0, le=65535)
    base_url: str | None = None
    base_url_env: EnvName | None = None
    api_key_env: EnvName | None = None
    model: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Endpoint:
        given = [k for k in ("embedded", "gguf", "base_url", "base_url_env") if getattr(self, k)]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of embedded, gguf, base_url or base_url_env,"
                f" not {' and '.join(given) or 'none'}"
            )
        if self.gguf and not (self.gguf.count("/") >= 2 and self.revision):
            raise ValueError("gguf is owner/name/file.gguf and needs revision: the commit to pin")
        if self.base_url and not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", self.base_url):
            raise ValueError("base_url must be http(s)://host/…, without user name and password")
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
    def _one_of(self) -> Price:
        tokens = (self.input_usd_per_million is None) + (self.output_usd_per_million is None)
        if tokens == 1:
            raise ValueError("give input_usd_per_million and output_usd_per_million together")
        ways = (self.usd_per_hour is not None) + (tokens == 0) + (self.provider is not None)
        if ways != 1:
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
    country: Place


class Deployment(Section):
    """A configuration: a model on hardware at a price, with the wording it needs."""

    name: Slug
    model: RepoId
    endpoint: Endpoint | None = None
    published: Published | None = None
    prompt: Prompt = Prompt()
    host: Host | None = None
    hardware: str | None = None
    price: Price | None = None


class Speed(Section):
    """How long and how often load is offered; probes end early when the SLO is lost."""

    probe_s: Positive = 5.0
    min_requests: int = Field(default=20, ge=5)
    max_probes: int = Field(default=8, ge=2, le=50)
    ceiling_rps: Positive = 64.0


class Requirements(Section):
    """What the service needs. Each is met only when the bound of its interval meets it."""

    min_quality: Share | None = None
    max_p95_s: Positive | None = None
    min_rps: Positive | None = None
    max_usd_per_1k: Positive | None = None

    @property
    def slo_s(self) -> float:
        """The latency that 95 % of requests must keep: the brief's, or two seconds."""
        return self.max_p95_s or 2.0
