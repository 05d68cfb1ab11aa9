"""The brief: one `project.yaml` that says what is chosen, for whom and under which policy."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    model_validator,
)

from lib.brief.deployment import Deployment, Endpoint, Price, Prompt
from lib.brief.evaluation import Evaluation
from lib.brief.sections import (
    Candidates,
    Company,
    Exemption,
    Hub,
    Policy,
    Require,
    Requirements,
    Revenue,
    Section,
    Size,
    Slug,
    Speed,
)
from lib.errors import PlaybookError
from lib.tables import DATA

__all__ = [
    "Company",
    "Deployment",
    "Endpoint",
    "Evaluation",
    "Exemption",
    "Policy",
    "Price",
    "Project",
    "Prompt",
    "Requirements",
    "Revenue",
    "Size",
    "Speed",
    "load_project",
    "problem_sentence",
]


class Project(Section):
    """A validated brief and the folder it was read from."""

    name: Slug
    task: str
    policy: Policy
    company: Company = Company()
    exceptions: list[Exemption] = Field(default_factory=list)
    candidates: Candidates = Candidates()
    size: Size
    hub: Hub = Hub()
    require: Require = Require()
    evaluation: Evaluation
    deployments: list[Deployment] = Field(min_length=1)
    speed: Speed = Speed()
    requirements: Requirements = Requirements()
    objective: Literal["cheapest", "best", "fastest"] = "cheapest"
    folder: Path = Field(default=Path(), exclude=True)
    file: str = Field(default="project.yaml", exclude=True)  # for sentences about the brief

    @model_validator(mode="after")
    def _deployments(self) -> Project:
        names = [deployment.name for deployment in self.deployments]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"deployments: the name {twice[0]!r} is used twice")
        if "judge" in names and self.evaluation.judge is not None:
            raise ValueError("deployments: the name 'judge' is taken by evaluation.judge")
        if len(baselines := [d.name for d in self.deployments if d.baseline]) > 1:
            raise ValueError(
                f"deployments: {' and '.join(baselines)} are marked baseline; mark one"
            )
        wanted = "published" if self.evaluation.kind == "published" else "endpoint"
        for deployment in self.deployments:
            if deployment.price is None and deployment.hardware is None:
                raise ValueError(
                    f"deployments: {deployment.name!r} needs a price,"
                    " or hardware whose price data/hardware.csv knows"
                )
            if getattr(deployment, wanted) is None:
                raise ValueError(
                    f"deployments: {deployment.name!r} needs {wanted}"
                    f" because evaluation.kind is {self.evaluation.kind!r}"
                )
        return self

    @property
    def items_path(self) -> Path:
        """The item file named in the brief, beside it."""
        return self.folder / (self.evaluation.items or "")

    def prompt_of(self, deployment: Deployment) -> Prompt:
        """The wording a deployment is asked with: its own where it has one."""
        common = self.evaluation.prompt.model_dump(exclude_none=True)
        return Prompt(**(common | deployment.prompt.model_dump(exclude_none=True)))


def load_project(project: str | Path, **overrides: Any) -> Project:
    """Read and validate a brief.

    Args:
        project: The name of a folder in `data/projects/`, a folder, or a YAML file.
        overrides: `section__key=value` replaces one value of the brief for this run;
            an empty string or zero leaves the brief as it is. Lists are comma-separated.

    Raises:
        PlaybookError: The brief is missing, unreadable or wrong, in one sentence with the key.
    """
    path = _find(project)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise PlaybookError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:  # without its snippet, which may show a secret
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise PlaybookError(f"{path}: not valid YAML: {line}{error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-13-01
        raise PlaybookError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise PlaybookError(f"{path}: empty or not a mapping; start from data/projects/*/")
    for key, value in overrides.items():
        if value not in ("", 0, None):
            section, _, name = key.partition("__")
            if name in ("licenses", "countries"):
                value = [part.strip() for part in value.split(",") if part.strip()]
            if name:
                if not isinstance(old := raw.get(section) or {}, dict):
                    continue  # not a section: the validation below says so
                raw[section] = {**old, name: value}
                if (section, name) in (("size", "tier"), ("size", "replaces")):
                    raw[section].pop("replaces" if name == "tier" else "tier", None)
            else:
                raw[section] = value
    if own := {"folder", "file"} & set(raw):
        raise PlaybookError(f"{path}: unknown key {min(own)!r}; remove it")
    try:
        return Project(**raw, folder=path.parent.resolve(), file=str(path))
    except ValidationError as error:
        raise PlaybookError(f"{path}: {problem_sentence(error, model=Project)}") from None
    except TypeError:
        raise PlaybookError(f"{path}: the keys at the top must be words") from None


def _find(project: str | Path) -> Path:
    text = str(project)
    known = sorted(p.parent.name for p in (DATA / "projects").glob("*/project.yaml"))
    if os.sep not in text and not text.endswith((".yaml", ".yml")):
        path = DATA / "projects" / text / "project.yaml"
        if path.is_file():
            return path
        close = difflib.get_close_matches(text, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
        raise PlaybookError(f"no project {text!r} in data/projects{hint}")
    path = Path(project).expanduser()
    path = path / "project.yaml" if path.is_dir() else path
    if not path.is_file():
        raise PlaybookError(f"{path}: no such brief; known projects: {', '.join(known)}")
    return path


def _fields_at(location: tuple[str | int, ...], model: Any) -> list[str]:
    """The keys a model may have at a place, found by walking the models."""
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        nested = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return sorted(set(model.model_fields) - {"folder", "file"})


def problem_sentence(
    error: ValidationError, *, model: Any, at: tuple[str, ...] = (), others: Iterable[str] = ()
) -> str:
    """The first problem as one sentence; the count says whether there are more.

    Args:
        error: What pydantic found.
        model: The model that was validated.
        at: Where the model stands in the brief.
        others: Further keys that may stand beside those of the model.
    """
    problems = error.errors(include_url=False)
    first = problems[0]
    location = (*at, *first["loc"])
    key = ".".join(str(part) for part in location) or "the brief"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        choices = _fields_at(first["loc"][:-1], model)
        choices += others if len(first["loc"]) == 1 else []
        close = difflib.get_close_matches(str(location[-1]), choices, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(choices)}"
        text = f"unknown key {key!r}; {hint}"
    elif first["type"] == "missing":
        text = f"{key} is missing"
    elif key.endswith("_env"):
        text = f"{key}: name an environment variable, such as TOGETHER_API_KEY; never the key"
    elif first["type"] == "value_error" or "endpoint" in location:  # there a secret may stand
        text = f"{key}: {message}"
    else:
        text = f"{key}: {message}, not {first['input']!r}"
    more = len(problems) - 1
    return text + (f" (and {more} more)" if more else "")
