"""What fine-tuning has to gain: candidates one tier below, and those that are tuned already."""

from itertools import product

from pandas import DataFrame as Frame
from pandas import concat

from lib.brief import Project
from lib.legal import ancestors, bases, findings, judge
from lib.sizing import wanted_tiers
from lib.tables import Row, closed_models, licenses, number, parts, rows

GAPS, ENDS = ["gap", "gap_low", "gap_high"], ["difference", "low", "high"]
COLUMNS = ["deployment", "repo_id", *GAPS, "derivatives", "other", *ENDS, "p_adjusted"]
SWAP = {"deployment": "other", "other": "deployment", "low": "high", "high": "low"}


def fine_tuning(
    brief: Project, table: Frame, pairs: Frame, shortlist: Frame, metadata: Frame
) -> Row | None:
    """What to expect of fine-tuning, from `tradeoffs`; None where the brief does not plan it.

    `candidates`: their `gap` up to the bar, the verdict on `derivatives` that are published, and of
    those that `models` says were made from an asked one (`other`) the paired `difference` to it.
    """
    tiers = wanted_tiers(brief.size, closed_models())
    below = tiers[0] if len(tiers) == 2 else "none"
    if brief.size.fine_tuning != "planned":
        return None
    pool = table[table["standing"] == "candidate"].merge(metadata[["repo_id", "tier"]])
    # The gap: a figure that is not comparable leaves none.
    quality = pool[["quality", "quality_high", "quality_low"]].where(pool["comparable"] != "no")
    gap = (brief.requirements.min_quality or float("nan")) - quality.astype(float)
    # Before and after: the pairs of step 4, from either side.
    base_of = {model.repo_id: parts(model.base_model) for model in brief.models}
    names = table[["deployment", "repo_id"]].to_numpy().tolist()
    tuned = [(a, b) for (a, x), (b, y) in product(names, names) if y in base_of.get(x, [])]
    turned = pairs.rename(columns=SWAP)
    turned[ENDS] *= -1
    after = concat([pairs, turned])[["deployment", *COLUMNS[6:]]]
    after = Frame(tuned, columns=["deployment", "other"], dtype="str").merge(after, how="left")
    pool = pool.join(gap.set_axis(GAPS, axis=1)).merge(after, on="deployment", how="left")
    pool = pool[pool["tier"].eq(below) | pool["other"].notna()].sort_values("gap")
    if pool.empty and below == "none":
        return None
    pool["derivatives"] = pool["repo_id"].map(_derivatives(brief, shortlist, metadata))
    says = [f"Of the tier below ({below}) no gap to a bar is known"]
    for row in rows(pool.dropna(subset="gap"))[:1]:
        says = [f"{row['deployment']} is nearest to the bar, with {_points(row, GAPS)} to gain"]
        says = [f"{row['deployment']} reaches the bar as it is"] if row["gap"] <= 0 else says
    for row in rows(pool.dropna(subset="difference")):
        says.append(f"{row['deployment']} gained {_points(row, ENDS)} over {row['other']}")
    return {"candidates": rows(pool, COLUMNS), "sentence": f"{'; '.join(says)}."}


def _points(row: Row, names: list[str]) -> str:
    value, *ends = (number(100 * row[name]) for name in names if row[name] is not None)
    return f"{value} points{' [{}, {}]'.format(*ends) if len(ends) == 2 else ''}"


def _derivatives(brief: Project, shortlist: Frame, metadata: Frame) -> dict[str, str]:
    """By model, the verdict on a fine-tuned one that is published, with the clauses on it."""
    now, texts = shortlist["repo_id"].map(metadata.set_index("repo_id")["license"]), licenses()
    models = shortlist.assign(license=now.fillna(shortlist["license"]))  # after drift
    company = brief.company.model_copy(update={"publishes_derivatives": True})
    brief, direct = brief.model_copy(update={"company": company}), bases(models)
    judged = {row["repo_id"]: row for row in rows(judge(models, texts, brief))}
    read = {*texts.loc[texts["read"].isin(["full text", "partly"]), "license"]}
    answers = {}
    for repo_id, about in findings(models, texts, brief).items():
        line = [judged[n] for n in (repo_id, *ancestors(repo_id, direct)) if n in judged]
        # What a text says of derivatives is known only where somebody here has read it.
        says = [
            f"not read on derivatives: {key}"
            for key in sorted({one["license"] or "none on record" for one in line} - read)
        ]
        verdict = judged[repo_id]["verdict"]
        verdict = "review" if says and verdict != "blocked" else verdict
        says += [f.clause for f in about if f.fact.startswith("publishes derivatives")]
        answers[repo_id] = ": ".join(filter(None, [verdict, "; ".join(says)]))
    return answers
