"""The brief: `project.yaml`, read and validated."""

from lib.brief.deployment import Deployment, Endpoint, Limits, Options, Price
from lib.brief.evaluation import Evaluation, Judge, Name
from lib.brief.project import Project, load_project, problem_sentence
from lib.brief.sections import (
    Candidates,
    Company,
    Exemption,
    Policy,
    Require,
    Requirements,
    Section,
    Size,
)

__all__ = [
    "Candidates", "Company", "Deployment", "Endpoint", "Evaluation", "Exemption", "Judge",
    "Limits", "Name", "Options", "Policy", "Price", "Project", "Require", "Requirements",
    "Section", "Size", "load_project", "problem_sentence",
]  # fmt: skip
