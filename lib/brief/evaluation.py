"""The `evaluation` section of a brief: what is asked, how it is scored, and who judges."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from lib.brief.deployment import Endpoint, Options, Price, Prompt
from lib.brief.sections import Positive, Section

__all__ = ["Evaluation", "InspectTask", "Judge", "JudgeShot", "Ranking", "Shot"]

Kind = Literal[
    "classification",
    "exact",
    "extraction",
    "scoring",
    "judged",
    "comparison",
    "reranking",
    "tool_call",
    "inspect",
    "published",
]
Rule = Literal["nfkc", "casefold", "whitespace", "punctuation", "articles", "numbers"]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Shot(Section):
    """One worked example shown before the item."""

    input: str
    target: str


class JudgeShot(Section):
    """One worked example of judging: the verdict is a label, a rating, or A, B or tie."""

    input: str = ""
    target: str = ""
    output: str = ""
    first: str = ""
    second: str = ""
    verdict: str


class Judge(Section):
    """The model that grades answers: asked, priced and identified like a deployment.

    `user` may hold `{input}`, `{target}` and `{output}`; for a comparison `{first}` and
    `{second}` instead of `{output}`. Of `labels` those in `pass_labels` count as right; a
    rating lies in `scale`. `calibration` names a JSONL file of answers with human labels.
    """

    model: str
    endpoint: Endpoint
    hardware: str | None = None
    price: Price | None = None
    system: str | None = None
    user: str
    answer: str = "{verdict}"
    shots: list[JudgeShot] = []
    labels: list[Name] = Field(default=["pass", "fail"], min_length=2)
    pass_labels: list[Name] = Field(default=["pass"], min_length=1)
    scale: tuple[float, float] = (1.0, 5.0)
    calibration: str | None = None
    options: Options = Options(temperature=0.0, max_tokens=16)

    @model_validator(mode="after")
    def _consistent(self) -> Judge:
        if strange := sorted(set(self.pass_labels) - set(self.labels)):
            raise ValueError(f"pass_labels: {strange[0]!r} is not one of labels {self.labels}")
        if set(self.pass_labels) == set(self.labels):
            raise ValueError("pass_labels holds all labels: every answer would pass")
        if not self.scale[0] < self.scale[1]:
            raise ValueError(f"scale {list(self.scale)}: write the lower end first")
        return self


class Ranking(Section):
    """How documents are ranked: by a /v1/rerank endpoint, or by a chat model.

    A chat model is asked for each document (`pointwise`; an answer in `relevant` is a yes) or
    for all at once (`listwise`).
    """

    method: Literal["rerank", "pointwise", "listwise"] = "pointwise"
    k: int = Field(default=10, ge=1, le=1000)
    relevant: list[Name] = Field(default=["yes"], min_length=1)


class InspectTask(Section):
    """A task of Inspect, by name (`inspect_evals/gsm8k`) or file (`tasks.py@mine`)."""

    task: str = Field(min_length=1)
    args: dict[str, Any] = {}
    limit: int | None = Field(default=None, ge=1)
    metric: str | None = None


class Evaluation(Section):
    """What is asked of every deployment and how the answer is scored."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True
    )

    kind: Kind
    items: str | None = None
    format: Literal["jsonl", "csv"] = "jsonl"
    columns: dict[str, str] = {}
    group: str | None = None
    labels: list[str] = []
    aliases: dict[str, list[str]] = {}
    constrained: bool = False
    normalise: list[Rule] = ["nfkc", "casefold", "whitespace", "punctuation"]
    json_schema: dict[str, Any] | str | None = Field(default=None, alias="schema")
    fields: dict[str, Literal["exact", "normalised", "number", "set"]] = {}
    tools: list[dict[str, Any]] | str = []
    ranking: Ranking = Ranking()
    judge: Judge | None = None
    inspect: InspectTask | None = None
    prompt: Prompt = Prompt(user="{input}", answer="{target}")
    shots: list[Shot] = []
    reasoning_tags: list[Name] = ["think", "thinking", "reasoning"]
    margin: float = Field(default=0.05, gt=0, lt=1)
    strategy: Literal["full", "racing"] = "full"
    block: int = Field(default=25, ge=5)
    max_usd: Positive | None = None
    max_tokens: int = Field(default=16, ge=1, le=131072)
    temperature: float = Field(default=0.0, ge=0, le=2)
    stop: list[str] = []
    concurrency: int = Field(default=8, ge=1, le=1024)
    timeout_s: Positive = 60.0
    total_timeout_s: Positive | None = None
    max_retries: int = Field(default=4, ge=0, le=20)

    @model_validator(mode="after")
    def _complete(self) -> Evaluation:
        self._check_labels()
        if self.kind not in ("published", "inspect") and not self.items:
            raise ValueError(f"kind {self.kind!r} needs items: the name of a file of items")
        needs = {
            "extraction": "schema",
            "tool_call": "tools",
            "inspect": "inspect",
            **dict.fromkeys(("scoring", "judged", "comparison"), "judge"),
        }
        if (key := needs.get(self.kind)) and not getattr(
            self, key.replace("schema", "json_schema")
        ):
            raise ValueError(f"kind {self.kind!r} needs {key}")
        if self.judge is not None and self.kind in ("scoring", "judged", "comparison"):
            wanted = ["{first}", "{second}"] if self.kind == "comparison" else ["{output}"]
            if lacking := [place for place in wanted if place not in self.judge.user]:
                raise ValueError(f"judge.user must contain {lacking[0]} for kind {self.kind!r}")
        return self

    def _check_labels(self) -> None:
        if self.kind == "classification" and len(set(self.labels)) < 2:
            raise ValueError("kind 'classification' needs labels: at least two different ones")
        if strange := sorted(set(self.aliases) - set(self.labels)):
            raise ValueError(f"aliases: {strange[0]!r} is not one of {self.labels}")
        words = [*self.labels, *(word for own in self.aliases.values() for word in own)]
        folded = [word.strip().casefold() for word in words]
        for word in folded:
            if not word or folded.count(word) > 1:
                raise ValueError(f"labels: {word!r} is blank or there twice; case does not count")
        for shot in self.shots:
            if self.kind == "classification" and shot.target not in self.labels:
                raise ValueError(f"shots: target {shot.target!r} is not one of {self.labels}")
