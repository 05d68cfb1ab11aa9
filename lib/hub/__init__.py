"""What the Hub says: pull, drift, supply chain, search."""

from lib.hub.client import token_problem
from lib.hub.drift import drift_texts, reconcile, stop_on_drift
from lib.hub.facts import overview, recall, remember, supply_verdicts
from lib.hub.models import budget, download_gguf, pull
from lib.hub.search import candidates, catalogue, unknown_models

__all__ = [
    "budget", "candidates", "catalogue", "download_gguf", "drift_texts", "overview", "pull",
    "recall", "reconcile", "remember", "stop_on_drift", "supply_verdicts",
    "token_problem", "unknown_models",
]  # fmt: skip
