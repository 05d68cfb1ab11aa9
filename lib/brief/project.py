"""The brief: one `project.yaml` that says what is chosen, for whom and under which policy."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from lib.brief.deployment import Deployment, Prompt
from lib.brief.evaluation import Evaluation
from lib.brief.sections import (
    Candidates,
    Company,
    Exemption,
    Hub,
    Policy,
    Require,
    Requirements,
    Section,
    Size,
    Slug,
    Speed,
)
from lib.errors import PlaybookError, did_you_mean
from lib.tables import DATA

READ_FROM = {"folder", "file"}


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
        if len(marked := [d.name for d in self.deployments if d.baseline]) > 1:
            raise ValueError(f"deployments: {' and '.join(marked)} are marked baseline; mark one")
        for deployment in self.deployments:
            if deployment.price is None and deployment.hardware is None:
                raise ValueError(
                    f"deployments: {deployment.name!r} needs a price,"
                    " or hardware whose price data/hardware.csv knows"
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
    path = _find(str(project))
    raw = _read(path)
    for key, value in overrides.items():
        section, _, name = key.partition("__")
        if value not in ("", 0, None):
            _override(raw, section, name, value)
    if reserved := READ_FROM & raw.keys():
        raise PlaybookError(f"{path}: unknown key {min(reserved)!r}; remove it")
    try:
        return Project(**raw, folder=path.parent.resolve(), file=str(path))
    except ValidationError as error:
        raise PlaybookError(f"{path}: {problem_sentence(error, model=Project)}") from None
    except TypeError:
        raise PlaybookError(f"{path}: the keys at the top must be words") from None


def _find(project: str) -> Path:
    shipped = sorted(path.parent.name for path in (DATA / "projects").glob("*/project.yaml"))
    path = Path(project).expanduser()
    if os.sep not in project and path.suffix not in (".yaml", ".yml"):
        path = DATA / "projects" / project
        if project not in shipped:
            hint = did_you_mean(project, shipped)
            raise PlaybookError(f"no project {project!r} in data/projects; {hint}")
    path = path / "project.yaml" if path.is_dir() else path
    if not path.is_file():
        raise PlaybookError(f"{path}: no such brief; known projects: {', '.join(shipped)}")
    return path


def _read(path: Path) -> dict[Any, Any]:
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
    return raw


def _override(raw: dict[Any, Any], section: str, key: str, value: Any) -> None:
    """Replace one value of the brief, in place."""
    if key in ("licenses", "countries"):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not key:
        raw[section] = value
    elif isinstance(keys := raw.get(section) or {}, dict):  # if not, the validation says so
        either = {"tier": "replaces", "replaces": "tier"}.get(key) if section == "size" else None
        raw[section] = {k: v for k, v in keys.items() if k != either} | {key: value}


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
    first, *more = error.errors(include_url=False)
    inside, location = first["loc"], (*at, *first["loc"])
    key = ".".join(map(str, location)) or "the brief"
    text = f"{key}: {first['msg'].removeprefix('Value error, ')}"
    if first["type"] == "extra_forbidden":
        choices = [*_keys_at(inside[:-1], model), *(others if len(inside) == 1 else ())]
        text = f"unknown key {key!r}; {did_you_mean(str(inside[-1]), choices)}"
    elif first["type"] == "missing":
        text = f"{key} is missing"
    elif key.endswith("_env"):
        text = f"{key}: name an environment variable, such as TOGETHER_API_KEY; never the key"
    elif first["type"] != "value_error" and "endpoint" not in location:  # there may be a secret
        text += f", not {first['input']!r}"
    return text + (f" (and {len(more)} more)" if more else "")


def _keys_at(location: tuple[str | int, ...], model: Any) -> list[str]:
    """The keys that a brief may have at a place below a model."""
    for part in location:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            kinds = [k for k in (annotation, *get_args(annotation)) if isinstance(k, type)]
            model = next(kind for kind in kinds if issubclass(kind, BaseModel))
    return sorted(model.model_fields.keys() - READ_FROM)
