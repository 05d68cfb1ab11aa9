"""The brief: `project.yaml`, read and validated."""

from lib.brief.deployment import ENDPOINT_URL, Deployment, Endpoint, Limits, Options, Price
from lib.brief.project import (
    Evaluation,
    Judge,
    Name,
    Project,
    load_project,
    problem_sentence,
)
from lib.brief.sections import (
    Candidates,
    Company,
    Exemption,
    Policy,
    Require,
    Requirements,
    Section,
    Size,
    Traffic,
)

__all__ = [
    "ENDPOINT_URL", "Candidates", "Company", "Deployment", "Endpoint", "Evaluation", "Exemption",
    "Judge", "Limits", "Name", "Options", "Policy", "Price", "Project", "Require", "Requirements",
    "Section", "Size", "Traffic", "load_project", "problem_sentence",
]  # fmt: skip
