"""The `evaluation` section of a brief: what is asked, how it is scored, and who judges."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from lib.brief.deployment import Endpoint, Options, Price, Prompt
from lib.brief.sections import Positive, Section

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


class Evaluation(Section):
    """What is asked of every deployment and how the answer is scored.

    What a kind of task wants to know beside this stays as given in `of_kind`: the file of the
    kind, in `lib/evaluate/kinds/`, says what it may be.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    kind: str
    items: str | None = None
    format: Literal["jsonl", "csv"] = "jsonl"
    columns: dict[str, str] = {}
    group: str | None = None
    judge: Judge | None = None
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

    @property
    def of_kind(self) -> dict[str, Any]:
        """The options of the kind of task, as given."""
        return dict(self.model_extra or {})
