"""How true the stated chances and regrets are, in simulated worlds: part of `make bench`.

Every world draws true qualities, lets the candidates answer the same items, and asks who is the
best and how surely. Beside it stands evalstats' bootstrap on the same answers, where that package
is installed. The clock plays no part; the seed is fixed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "stubs"))
from briefs import load_project
from printed import Row, show
from tradeoff_rows import table

from lib.brief import Project, Requirements
from lib.decide import draws
from lib.stats import interval
from lib.tables import DATA

try:
    from evalstats.core.ranking import bootstrap_ranks  # type: ignore[import-not-found]
except ImportError:
    bootstrap_ranks = None

SHAPES = {
    "normal": lambda rng, k: rng.standard_normal(k),
    "uniform": lambda rng, k: 1.7 * rng.uniform(-1, 1, k),
    "heavy tails": lambda rng, k: rng.standard_t(3, k) / 1.7,
    "one ahead": lambda rng, k: rng.exponential(1, k) - 1,
    "many near the top": lambda rng, k: 1 - rng.exponential(1, k),
    "two groups": lambda rng, k: rng.choice([-1, 1], k) + 0.2 * rng.standard_normal(k),
}
# candidates, items, points of spread, clusters
SIZES = [
    (2, 100, 0.02, 0),
    (6, 100, 0.02, 0),
    (6, 400, 0.02, 0),
    (4, 200, 0.03, 20),
    (8, 300, 0.05, 0),
]
DOLLARS = [f"usd_per_{of}{end}" for of in ("1k", "month") for end in ("", "_low", "_high")]
QUALITY = ("quality", "quality_low", "quality_high")
Floats = NDArray[np.float64]


def answers(true: Floats, n: int, clusters: int, rng: np.random.Generator) -> pd.DataFrame:
    """Right or wrong on n shared items, half of whose difficulty all candidates share."""
    own = rng.standard_normal((n, len(true))) * np.sqrt(0.35 if clusters else 0.5)
    group = rng.integers(0, clusters or n, n)
    if clusters:
        own += rng.standard_normal((clusters, len(true)))[group] * np.sqrt(0.15)
    hard = rng.standard_normal((n, 1)) * np.sqrt(0.5)
    right = (hard + own) < norm.ppf(true)
    frames = [
        pd.DataFrame({"deployment": f"m{i}", "repo_id": f"org/m{i}", "score": column.astype(float)})
        for i, column in enumerate(right.T)
    ]
    scored = pd.concat(frames, ignore_index=True)
    labels = np.tile(group.astype(str), len(true)) if clusters else ""
    return scored.assign(item_id=np.tile(np.arange(n).astype(str), len(true)), group=labels)


def measured(scored: pd.DataFrame, prices: Floats) -> pd.DataFrame:
    """The rows of `tradeoffs` that such answers give."""
    rows = {}
    for price, (name, part) in zip(prices, scored.groupby("deployment", sort=False), strict=True):
        bounds = interval(part["score"], part["group"] if part["group"].any() else None)
        quality = dict(zip(QUALITY, bounds, strict=True))
        rows[str(name)] = quality | dict.fromkeys(DOLLARS, price)
    return table(**rows)


def chances(worlds: int) -> Iterator[Row]:
    """Stated and true chance that the top score is the best, and the Brier score."""
    rng, briers = np.random.default_rng(1), []
    for shape, draw in SHAPES.items():
        for k, n, spread, clusters in SIZES:
            outcomes = []
            for _ in range(worlds):
                true = np.clip(rng.uniform(0.6, 0.85) + spread * draw(rng, k), 0.02, 0.98)
                scored = answers(true, n, clusters, rng)
                rows = measured(scored, np.ones(k))
                ours = draws.joint_draws(rows, scored, n=1000).figures["min_quality"].argmax(1)
                top = int(rows["quality"].argmax())
                theirs = np.nan
                if bootstrap_ranks:
                    scores, names = scored["score"].to_numpy().reshape(k, n), [*rows["deployment"]]
                    theirs = bootstrap_ranks(scores, names, n_bootstrap=1000, rng=rng).p_best[top]
                outcomes.append(((ours == top).mean(), theirs, top == true.argmax()))
            said, boasted, right = np.array(outcomes, dtype=float).T
            briers.append((np.mean((said - right) ** 2), np.mean((boasted - right) ** 2)))
            name = f"{shape}, {k} candidates, {n} items" + f", {clusters} clusters" * bool(clusters)
            gap = said.mean() - right.mean()
            words = f"{said.mean():.0%} said, {right.mean():.0%} right"
            yield name, words, "+-5 points", abs(gap) <= 0.05, peer(f"{boasted.mean():.0%} said")
    ours_, theirs_ = np.mean(briers, axis=0)
    better = bool(ours_ < theirs_) if bootstrap_ranks else None
    yield "Brier score over all", f"{ours_:.4f}", "< peer", better, peer(f"{theirs_:.4f}")


def peer(figure: str) -> str:
    return f"evalstats {figure}" if bootstrap_ranks else "no evalstats"


def regrets(worlds: int, project: Project) -> Iterator[Row]:
    """Stated and realised regret of whoever the bounds pick, by objective.

    The candidates lie as far apart as in `chances`; few worlds hold most of the regret.
    """
    rng, bar = np.random.default_rng(2), 0.75
    bars = Requirements(min_quality=bar)
    for objective in ("cheapest", "best"):
        brief = project.model_copy(update={"objective": objective, "requirements": bars})
        outcomes = []
        while len(outcomes) < 4 * worlds:
            spread = rng.choice([0.02, 0.03, 0.05])
            true = np.clip(0.8 + spread * rng.standard_normal(5), 0.02, 0.98)
            prices, scored = rng.uniform(10, 100, 5), answers(true, 200, 0, rng)
            rows, fits = measured(scored, prices), true >= bar
            fit = np.flatnonzero(rows["quality_low"] >= bar)
            if not len(fit):
                continue
            aim = prices if objective == "cheapest" else -rows["quality"].to_numpy()
            at = fit[aim[fit].argmin()]
            loss = draws.regret(draws.joint_draws(rows, scored), brief, f"m{at}")
            said = loss.usd_per_month if objective == "cheapest" else loss.quality
            gain = -prices if objective == "cheapest" else true
            outcomes.append((said, gain[fits].max() - gain[at] if fits[at] else 0.0))
        said, real = np.mean(outcomes, axis=0)
        words = f"{said:.4g} said, {real:.4g} realised"
        yield f"regret, {objective}", words, "+-10 %", abs(said / real - 1) <= 0.1, ""


def rows(worlds: int = 300) -> Iterator[Row]:
    """The chances, then the regrets."""
    project = load_project(DATA / "projects" / "review-sentiment" / "project.yaml")
    return chain(chances(worlds), regrets(worlds, project))


if __name__ == "__main__":
    cli = argparse.ArgumentParser(description=__doc__)
    cli.add_argument("--worlds", type=int, default=300)
    show(rows(cli.parse_args().worlds))
