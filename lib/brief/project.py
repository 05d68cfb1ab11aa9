"""The brief: one `project.yaml` that says what is chosen, for whom and under which policy."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lib.brief.deployment import Deployment, Endpoint, Options, Price, Priced, Prompt
from lib.brief.sections import (
    Candidates,
    Company,
    Exemption,
    Hub,
    OwnModel,
    Policy,
    Positive,
    Require,
    Requirements,
    Section,
    Size,
    Slug,
    Speed,
    Traffic,
)
from lib.brief.yaml_file import read_mapping
from lib.errors import PlaybookError, did_you_mean, in_one_list
from lib.tables import DATA

READ_FROM = {"folder", "file"}  # where the brief lies, which it does not say itself
Location = tuple[int | str, ...]  # of a value in the brief
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Shot(Section):
    """One worked example shown before the item, with the fields that the wording names."""

    model_config = ConfigDict(extra="allow", frozen=True)

    input: str = ""
    target: str


class JudgeShot(Shot):
    """One worked example, with the wording's fields: a label, a rating, or A, B or tie."""

    target: str = ""
    output: str = ""
    first: str = ""
    second: str = ""
    verdict: str


class Judge(Section):
    """The model that grades answers: asked, priced and identified like a deployment.

    `user` may hold any field of the items and `{output}`; for a comparison `{first}` and
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
    answer_by: Literal["text", "schema"] = "text"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
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
    slices: list[Name] = []
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


class Project(Section):
    """A validated brief and the folder it was read from."""

    name: Slug
    task: str
    policy: Policy
    company: Company = Company()
    exceptions: list[Exemption] = []
    candidates: Candidates = Candidates()
    models: list[OwnModel] = []
    size: Size
    hub: Hub = Hub()
    require: Require = Require()
    evaluation: Evaluation
    deployments: list[Priced] = Field(min_length=1)
    speed: Speed = Speed()
    traffic: Traffic | None = None
    requirements: Requirements = Requirements()
    objective: Literal["cheapest", "best", "fastest"] = "cheapest"
    folder: Path = Field(default=Path(), exclude=True)
    file: str = Field(default="project.yaml", exclude=True)  # for sentences about the brief

    @model_validator(mode="after")
    def _deployments(self) -> Self:
        names = [deployment.name for deployment in self.deployments]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"deployments: the name {min(repeated)!r} is used twice")
        if "judge" in names and self.evaluation.judge is not None:
            raise ValueError("deployments: the name 'judge' is taken by evaluation.judge")
        if len(marked := [d.name for d in self.deployments if d.baseline]) > 1:
            raise ValueError(f"deployments: {' and '.join(marked)} are marked baseline; mark one")
        return self

    @property
    def items_path(self) -> Path:
        """The item file named in the brief, beside it."""
        return self.folder / (self.evaluation.items or "")

    @property
    def named_files(self) -> list[str]:
        """The files named in the brief, as written: items, recorded answers, labels, a kind's."""
        evaluation = self.evaluation
        names = [evaluation.items, evaluation.judge.calibration if evaluation.judge else None]
        names += [d.endpoint.recorded for d in self.deployments if d.endpoint]
        names += [text.partition("@")[0] for text in _texts(evaluation.of_kind)]
        return [n for n in dict.fromkeys(names) if n and os.path.isfile(self.folder / n)]

    def prompt_of(self, deployment: Deployment) -> Prompt:
        """The wording a deployment is asked with: its own where it has one."""
        common = self.evaluation.prompt.model_dump(exclude_none=True)
        return Prompt(**(common | deployment.prompt.model_dump(exclude_none=True)))


def _texts(value: Any) -> list[str]:
    """All texts in a value of YAML, however deep."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value] if isinstance(value, str) else [text for part in inner for text in _texts(part)]


def read_project(project: str | Path, **overrides: Any) -> tuple[Project, list[str]]:
    """A brief without what is wrong in it, and a sentence for each key that is.

    It is the name of a folder in `data/projects/`, a folder or a YAML file. An override
    `section__key=value` replaces a value (not "", 0). PlaybookError where too little is left of
    the brief, or an override is what is wrong.
    """
    raw = read_mapping(path := _find(str(project)))
    changes = {key: value for key, value in overrides.items() if value not in ("", 0, None)}
    for key, value in changes.items():
        _override(raw, *key.partition("__")[::2], value)
    if reserved := READ_FROM & raw.keys():
        raise PlaybookError(f"{path}: unknown key {min(reserved)!r}; remove it")
    at = {"folder": path.parent.resolve(), "file": str(path)}
    try:
        return Project(**raw, **at), []
    except ValidationError as error:
        problems = list(problem_sentences(error, model=Project))
        keys = [key.replace("__", ".") for key in changes]
        if of_run := [text for text in problems if text.startswith(tuple(keys or "\n"))]:
            raise PlaybookError(f"set for this run: {in_one_list(of_run)}") from None
        with contextlib.suppress(ValidationError):
            places = {one["loc"] for one in error.errors(include_url=False)}
            places = {p[:2] if p[:1] == ("deployments",) else p for p in places}  # the whole one
            return Project(**_without(raw, places), **at), problems
        raise PlaybookError(f"{path}: {in_one_list(problems)}") from None
    except TypeError:
        raise PlaybookError(f"{path}: the keys at the top must be words") from None


def _without(value: Any, places: set[Location], here: Location = ()) -> Any:
    """A value of YAML, which lies here in the brief, without what lies at these places."""
    if not isinstance(value, dict | list):
        return value
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    rest = {k: _without(v, places, (*here, k)) for k, v in pairs if (*here, k) not in places}
    return rest if isinstance(value, dict) else list(rest.values())


def _find(project: str) -> Path:
    shipped_names = sorted(path.parent.name for path in (DATA / "projects").glob("*/project.yaml"))
    path = Path(project).expanduser()
    if os.sep not in project and path.suffix not in (".yaml", ".yml"):
        path = DATA / "projects" / project
        if project not in shipped_names:
            hint = did_you_mean(project, shipped_names)
            raise PlaybookError(f"no project {project!r} in data/projects; {hint}")
    path = path / "project.yaml" if os.path.isdir(path) else path
    if not os.path.isfile(path):
        raise PlaybookError(f"{path}: no such brief; known projects: {', '.join(shipped_names)}")
    return path


def _override(raw: dict[Any, Any], section: str, key: str, value: Any) -> None:
    """Replace one value of the brief, in place."""
    if key in ("licenses", "countries") and isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not key:
        raw[section] = value
    elif isinstance(keys := raw.get(section) or {}, dict):  # if not, the validation says so
        either = {"tier": "replaces", "replaces": "tier"}.get(key) if section == "size" else None
        raw[section] = {k: v for k, v in keys.items() if k != either} | {key: value}


def problem_sentences(
    error: ValidationError, *, model: Any, at: tuple[str, ...] = (), others: Iterable[str] = ()
) -> Iterator[str]:
    """A sentence for each problem of the `model` at a place; `others` are keys beside its own."""
    errors = error.errors(include_url=False)[:200]  # a hint for each of 40,000 takes seconds
    numbers = {one["loc"][:-1] for one in errors if one["type"].endswith("_parsing")}
    for one in errors:
        inside, location = one["loc"], (*at, *one["loc"])
        key = ".".join(map(str, location)) or "the brief"
        text = f"{key}: {one['msg'].removeprefix('Value error, ')}"
        if one["type"] == "extra_forbidden":
            choices = [*_keys_at(inside[:-1], model), *(others if len(inside) == 1 else ())]
            text = f"unknown key {key!r}; {did_you_mean(str(inside[-1]), choices)}"
        elif one["type"] == "invalid_key":  # {max_usd_per_month: $3,000} has two keys
            if inside[:-1] in numbers:
                continue
            way = "between braces a comma ends a value: write 3000 for 3,000"
            text = f"{key}: a number is no key; {way}"
        elif one["type"] == "missing":
            text = f"{key} is missing"
        elif key.endswith("_env"):
            text = f"{key}: name an environment variable, such as TOGETHER_API_KEY; never the key"
        elif one["type"] != "value_error" and "endpoint" not in location:  # may be a secret
            text += f", not {one['input']!r:.200}"
            if one["type"] == "string_type" and isinstance(one["input"], bool | int | float | date):
                text += "; YAML reads yes, no, numbers and dates as such: put quotes around it"
        yield text


def _keys_at(location: tuple[str | int, ...], model: Any) -> list[str]:
    """The keys that a brief may have at a place below a model."""
    for part in location:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            parts = [annotation, *get_args(annotation)]
            parts += [inner for part in parts[1:] for inner in get_args(part)]  # of an Annotated
            kinds = [part for part in parts if isinstance(part, type)]
            model = next(kind for kind in kinds if issubclass(kind, BaseModel))
    return sorted(model.model_fields.keys() - READ_FROM)
