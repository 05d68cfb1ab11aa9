"""The brief: `project.yaml`, read and validated."""

from lib.brief.deployment import (
    LEAST_SECRET,
    Deployment,
    Endpoint,
    Limits,
    Options,
    Price,
    endpoint_url,
)
from lib.brief.project import (
    Evaluation,
    Judge,
    Name,
    Project,
    problem_sentences,
    read_project,
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
    "LEAST_SECRET", "Candidates", "Company", "Deployment", "Endpoint", "Evaluation", "Exemption",
    "Judge", "Limits", "Name", "Options", "Policy", "Price", "Project", "Require",
    "Requirements", "Section", "Size", "Traffic", "endpoint_url", "problem_sentences",
    "read_project",
]  # fmt: skip
