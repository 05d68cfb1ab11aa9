"""Licence, use and country against the brief's policy: a verdict per model, with its rule."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

from lib.errors import PlaybookError
from lib.project import Policy, Project

__all__ = ["CLASSES", "VERDICTS", "admit", "by_family", "judge"]

VERDICTS = ["allowed", "conditional", "review", "blocked"]
CLASSES = ["permissive", "conditional", "non-commercial"]

ALLOWED, CONDITIONAL, REVIEW, BLOCKED = range(4)
Mask = npt.NDArray[np.bool_]


def judge(models: pd.DataFrame, licenses: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """Give every model a verdict and the rules that gave it; no model is dropped.

    The strictest rule wins. What is not known is `review`, never `allowed`.

    Args:
        models: The catalogue, from `tables.models`.
        licenses: Licence texts, from `tables.licenses`.
        policy: The brief's policy.

    Returns:
        The models with `license_class verdict conditions reasons` added: `conditions` is
        what the licence asks of you, `reasons` the rules behind the verdict.

    Raises:
        PlaybookError: The policy names a licence, class or country nobody has heard of.
    """
    _check_names("policy.licenses", policy.licenses, [*CLASSES, *licenses["license"]])
    countries = sorted(models["country"].dropna().unique())
    _check_names("policy.countries", policy.countries or [], countries)
    terms = licenses.set_index("license")[
        ["full_name", "license_class", "commercial_use", "conditions", "services_excluded", "read"]
    ]
    judged = models.join(terms, on="license", validate="many_to_one")
    use, key = policy.use, judged["license"]
    commercial = judged["commercial_use"]
    named = judged["license_class"].notna() & (judged["license_class"] != "unknown")
    permitted = key.isin(policy.licenses) | judged["license_class"].isin(policy.licenses)
    services = judged["services_excluded"].fillna("").str.split(";")
    excluded = np.array([use in [s.strip() for s in listed] for listed in services], dtype=bool)
    country = judged["country"]
    limited = policy.countries is not None

    rules: list[tuple[int, Mask, Iterable[str]]] = [
        (REVIEW, _mask(key.isna()), _same(judged, "no licence is recorded")),
        (
            REVIEW,
            _mask(key.notna() & judged["full_name"].isna()),
            "licence " + key.fillna("") + " is not in data/licenses.csv",
        ),
        (
            REVIEW,
            _mask(
                (judged["license_class"] == "unknown")
                | (commercial == "unknown")
                | (judged["read"] == "not read")
            ),
            "the text of " + key.fillna("") + " has not been read",
        ),
        (
            BLOCKED,
            _mask(named & ~permitted),
            "licence " + key.fillna("") + " is not among policy.licenses",
        ),
        (
            REVIEW if use == "internal" else BLOCKED,
            _mask(commercial == "no"),
            "licence " + key.fillna("") + f" is non-commercial and the use is {use}",
        ),
        (
            REVIEW,
            excluded,
            "licence " + key.fillna("") + f" wants an agreement for {use}",
        ),
        (
            CONDITIONAL,
            _mask(named & (judged["license_class"] != "permissive") & (commercial != "no")),
            "licence " + key.fillna("") + " sets conditions",
        ),
        (REVIEW, _mask(country.isna() & limited), _same(judged, "country unknown")),
        (
            BLOCKED,
            _mask(country.notna() & ~country.isin(policy.countries or []) & limited),
            "developer's country " + country.fillna("") + " is not among policy.countries",
        ),
    ]
    level = np.zeros(len(judged), dtype=int)
    for severity, applies, _ in rules:
        level[applies] = np.maximum(level[applies], severity)
    reasons: list[list[str]] = [[] for _ in range(len(judged))]
    for severity, applies, texts in rules:
        wording = list(texts)
        for row in np.flatnonzero(applies & (level == severity)):
            reasons[row].append(wording[row])
    licence_given = "licence " + key.fillna("") + " allows it"
    return judged.assign(
        verdict=np.array(VERDICTS)[level],
        conditions=judged["conditions"].fillna(""),
        reasons=[
            "; ".join(texts) or given for texts, given in zip(reasons, licence_given, strict=True)
        ],
    ).drop(columns=["commercial_use", "services_excluded", "read"])


def by_family(judged: pd.DataFrame) -> pd.DataFrame:
    """Count models by family and verdict, the largest families first."""
    counts = pd.crosstab(judged["family"], judged["verdict"])
    counts = counts.reindex(columns=VERDICTS, fill_value=0)
    counts["models"] = counts.sum(axis=1)
    return counts.sort_values(["models"], ascending=False, kind="stable").rename_axis(columns=None)


def admit(brief: Project, shortlist: pd.DataFrame, metadata: pd.DataFrame) -> pd.DataFrame:
    """Say which deployments of the brief may be asked, and why the others are not.

    Args:
        brief: The brief.
        shortlist: Step 2's table, with `why` for every model.
        metadata: Step 3's table, with the verdict after licence drift.

    Returns:
        One row per deployment: `deployment repo_id admitted verdict why`.
    """
    after = metadata.set_index("repo_id")["verdict"]
    why = shortlist.set_index("repo_id")["why"]
    rows = []
    for deployment in brief.deployments:
        repo_id = deployment.model
        verdict = after.get(repo_id, "")
        if verdict in ("allowed", "conditional"):
            reason = "on the shortlist"
        elif verdict:
            reason = f"step 3: {verdict}"
        else:
            reason = why.get(repo_id, "not in data/models.csv: add it, with its licence and source")
        admitted = "yes" if verdict in ("allowed", "conditional") else "no"
        rows.append((deployment.name, repo_id, admitted, verdict, reason))
    return pd.DataFrame(rows, columns=["deployment", "repo_id", "admitted", "verdict", "why"])


def _mask(condition: pd.Series[bool]) -> Mask:
    return condition.to_numpy(dtype=bool, na_value=False)


def _same(judged: pd.DataFrame, text: str) -> list[str]:
    return [text] * len(judged)


def _check_names(key: str, given: list[str], known: list[str]) -> None:
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "see data/"
            raise PlaybookError(f"{key}: nobody here knows {name!r}; {hint}")
