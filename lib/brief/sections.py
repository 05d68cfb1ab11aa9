"""The sections of a brief: what each key may hold, and which keys go together."""

from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from lib import places

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
EnvName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
Place = Annotated[str, BeforeValidator(places.canonical)]
Country = Annotated[Place, AfterValidator(places.one_country)]
Countries = Annotated[list[Place], AfterValidator(places.members)]
Files = Annotated[list[str], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]
RepoId = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]


def _dollars(currency: str) -> str:
    if currency != "USD":
        way = "convert the amount, licences count in USD, and write currency: USD"
        raise ValueError(f"{way} instead of {currency[:40]!r}")
    return currency


class Section(BaseModel):
    """A part of a brief: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Policy(Section):
    """What counsel allows: licence ids or classes, countries, the use.

    `countries` are those of the developer and of the developers of its base models,
    `host_countries` those of whoever serves the model; `denied_countries` bars all three. Each is
    kept by its one English name, and the European Union by its members.
    """

    licenses: list[str] = Field(default=["permissive"], min_length=1)
    countries: Countries | None = None
    host_countries: Countries | None = None
    denied_countries: Countries = []
    use: Literal["internal", "product", "model-as-a-service", "redistribution"] = "product"


class Revenue(Section):
    """The company's revenue, in USD because licences count in it."""

    amount: Annotated[float, Field(ge=0)]
    currency: Annotated[str, AfterValidator(_dollars)]
    period: Literal["month", "year"]


class Company(Section):
    """The company's own facts, which licences ask for. What is left out is not known."""

    domicile: Place | None = None
    territories: list[Place] | None = None
    monthly_active_users: Count | None = None
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


class OwnModel(Section):
    """A model that data/models.csv lacks, in its columns, as the brief's writer attests it."""

    repo_id: RepoId
    family: str | None = None
    developer: str | None = None
    country: Country | None = None
    license: str | None = None
    base_model: str | None = Field(default=None, pattern=r"^(none|[\w.-]+/[\w.-]+(;|$))")
    modality: Literal["text", "multimodal"] | None = None
    total_params_b: Positive | None = None
    active_params_b: Positive | None = None
    context_length: Positive | None = None
    layers: Positive | None = None
    kv_heads: Positive | None = None
    head_dim: Positive | None = None
    quantization: str | None = None
    file_gb: Positive | None = None
    kv_layout: str | None = Field(default=None, pattern=r"^\d+x\d+(@\d+)?(;\d+x\d+(@\d+)?)*$")
    released: date | None = None
    note: str | None = None
    source_url: str | None = None
    checked_on: date | None = None


class Size(Section):
    """How large a model to look at: a tier, or the closed model that is replaced."""

    tier: Literal["low", "medium", "high", "any"] | None = None
    replaces: str | None = None
    fine_tuning: Literal["none", "planned"] = "none"
    precision: Literal["bf16", "fp8", "int8", "int4", "fp4"] = "bf16"
    context_tokens: Annotated[int, Field(ge=128, le=10_000_000)] = 8192
    concurrent_requests: Annotated[int, Field(ge=1, le=100_000)] = 8

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.tier is None) == (self.replaces is None):
            raise ValueError("give either tier or replaces, not both and not neither")
        return self


class Candidates(Section):
    """Where step 1's models come from: the shipped catalogue, or the whole Hub.

    What is left out is derived: the licences from `policy`, the sizes from `size`.
    """

    source: Literal["catalogue", "hub"] = "catalogue"
    licenses: list[str] | None = None
    task: str | None = "text-generation"
    min_params_b: Positive | None = None
    max_params_b: Positive | None = None
    provider: str | None = None
    min_downloads: Count = 1000
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
    min_age_days: Count | None = None
    max_age_days: Count | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if (self.min_age_days or 0) > (self.max_age_days or float("inf")):
            raise ValueError("min_age_days is above max_age_days: no model could pass")
        return self


OLDER_SPEED = {"probe_s", "min_requests", "max_probes", "ceiling_rps"}


class Speed(Section):
    """What a deployment's load may take, in seconds and requests; a load that began is ended.

    A slow one may take as long as 60 of its answers: less would show nothing.

    With `prefix: unique` no prompt begins like one before, so no cache of prompts is measured.
    """

    budget_s: Positive = 40.0
    budget_requests: int = Field(default=1500, ge=50, le=100_000)
    prefix: Literal["unique", "shared"] = "unique"

    @model_validator(mode="before")
    @classmethod
    def _of_older_briefs(cls, keys: Any) -> Any:
        """So many probes of a length are a budget; other bounds of them have no more meaning."""
        if not isinstance(keys, dict) or not keys.keys() & OLDER_SPEED:
            return keys
        try:
            usual = float(keys.get("probe_s", 5.0)) * int(keys.get("max_probes", 8))
        except (TypeError, ValueError, OverflowError):
            return keys  # refused as unknown
        return {"budget_s": usual} | {k: v for k, v in keys.items() if k not in OLDER_SPEED}


class Traffic(Section):
    """What the service bears in a day, and is paid for; `spare` machines stand by beside the peak.

    `min_replicas: 0` lets a machine by the hour go while nobody asks.
    """

    requests_per_day: Positive
    peak_factor: Annotated[float, Field(ge=1)] = 4.0
    min_replicas: Count = 1
    spare: Count = 0


class Requirements(Section):
    """What the service needs, met only when the bound of its interval meets it.

    A request is one item with all its calls: of a pointwise ranking the whole query. `ttft` is the
    time to its first token of any kind, `itl` the mean time between two tokens of an answer. What
    has no interval, as who serves the model and until when, must be known.
    """

    min_quality: Share | None = None
    max_p95_s: Positive | None = None
    max_ttft_p95_s: Positive | None = None
    max_itl_p95_s: Positive | None = None
    min_rps: Positive | None = None
    max_usd_per_1k: Positive | None = None
    max_usd_per_month: Positive | None = None
    min_providers: Annotated[int, Field(ge=1)] | None = None
    not_retired_before: date | None = None

    @property
    def slo_s(self) -> float:
        """The latency that 95 % of requests must keep: the brief's, or two seconds."""
        return self.max_p95_s or 2.0
