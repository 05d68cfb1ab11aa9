"""Open a step: the brief with what this run sets differently, and what the step stands on."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from lib import artifacts, evaluate, preflight
from lib.artifacts import Overrides
from lib.brief import Project, read_project
from lib.endpoints import key_of
from lib.errors import PlaybookError
from lib.tables import DATA


class Reads(NamedTuple):
    """What a step is made from: keys of the brief, tables of `data/`, tables of earlier steps."""

    brief: str
    data: str
    steps: str = ""


# A price, the objective, and a bar on quality or cost belong to step 6: no paid answer grows stale
# by them. The bars on latency and load say what step 5 measures.
READS = {
    "01": Reads(
        "policy company exceptions candidates models", "models licenses clauses closed_models"
    ),
    "02": Reads("size placed", "hardware closed_models", "01_legal"),
    "03": Reads(
        "policy company exceptions size hub require placed",
        "models licenses clauses hardware closed_models",
        "01_legal 02_shortlist",
    ),
    "04": Reads("policy evaluation asked files", "models", "02_shortlist 03_metadata"),
    "05": Reads("policy wording asked files speed load", "", "02_shortlist 03_metadata"),
    "06": Reads(
        "requirements objective traffic deployments file",
        "hardware",
        "02_shortlist 03_metadata 04_answers 04_scores 04_pairs 05_capacity",
    ),
}
OF_STEP_6 = {"price", "hardware", "retires_on"}  # of a deployment: nothing is asked otherwise
PATIENCE = {"max_usd", "concurrency", "timeout_s", "total_timeout_s", "max_retries"}
# Of an answer: no load depends on it.
SCORING = {"judge", "margin", "strategy", "block", "group", "slices"}


def open_project(project: str | Path, **overrides: Any) -> Project:
    """Read a brief and have its kind of task check what belongs to it.

    PlaybookError lists what is wrong, and what will be in a later step as far as one can see.
    """
    brief, problems = read_project(project, **overrides)
    if problems := [*problems, *evaluate.problems(brief)]:
        later = [*preflight.problems(brief), *preflight.unset_keys(brief)]
        preflight.refuse(brief, [*problems, *later])
    return brief


def open_run(
    step: str, project: str | Path, run_dir: str = "", **overrides: Any
) -> tuple[Project, Path, str]:
    """Open a step, such as `04`: its brief, its run directory, and what it stands on in a sentence.

    Step 1 refuses what would fail in a later one, and says which keys are not set yet.
    An override `section__key=value` replaces a value of the brief from this step on; "" and 0
    override nothing. What the step wrote before counts no more, and neither does a decision. An
    earlier step that is missing, or was made from something else than what is there now, is a
    PlaybookError.
    """
    run = artifacts.run_directory(open_project(project).name, run_dir)
    artifacts.retire_decision(run)
    changes = {k.replace("__", "."): v for k, v in overrides.items() if v not in ("", 0, None)}
    by_step = artifacts.overrides(run) | {step: changes}
    brief = _brief(project, by_step, step)
    for number in sorted(_steps_below(step)):
        _check(number, brief, run)
    if step == "01":
        preflight.refuse(brief, preflight.problems(brief))
    artifacts.begin(run, step, _made_from(step, brief, run), changes)
    later = [*preflight.unset_keys(brief), *preflight.notes(brief)] if step == "01" else []
    return brief, run, " ".join([_standing(step, brief, by_step), *later])


def check_step(number: str, project: str | Path, run: Path) -> None:
    """PlaybookError where a step is not finished, or was made from what has changed since."""
    _check(number, _brief(project, artifacts.overrides(run), number), run)


def _check(number: str, brief: Project, run: Path) -> None:
    now, then = _made_from(number, brief, run), artifacts.made_from(run, number)
    for name in [name for name in now | then if now.get(name) != then.get(name)]:
        raise PlaybookError(
            f"step {number} in {artifacts.path_name(run)} was made from another {name} than there"
            f" is now; run notebooks/{artifacts.NOTEBOOKS[number]}.ipynb again, or --from {number}"
        )


def _steps_below(step: str) -> set[str]:
    direct = {name[:2] for name in READS[step].steps.split()}
    return direct.union(*map(_steps_below, direct))


def _brief(project: str | Path, by_step: Overrides, step: str) -> Project:
    """The brief as a step reads it: with what it and the steps before set differently."""
    keys: dict[str, Any] = {}
    for number in sorted(number for number in by_step if number <= step):
        keys |= {key.replace(".", "__"): value for key, value in by_step[number].items()}
    return open_project(project, **keys)


def _made_from(step: str, brief: Project, run: Path) -> dict[str, str]:
    """The hash of everything a step reads: parts of the brief, files it names, tables."""
    reads, evaluation = READS[step], brief.evaluation
    parts = brief.model_dump(mode="json", exclude={"evaluation": PATIENCE | {"judge"}})
    judge = evaluation.judge and evaluation.judge.model_dump(mode="json", exclude=OF_STEP_6)
    parts["evaluation"]["judge"] = judge
    parts["deployed"] = [deployment.model for deployment in brief.deployments]
    # A deployment's name is read where its machine is.
    places = [
        (d.hardware and d.name, d.model, d.hardware, d.precision, d.endpoint)
        for d in brief.deployments
    ]
    machines = [[*place, e and (e.gguf, bool(e.recorded))] for *place, e in places]
    parts["placed"] = sorted({json.dumps(place) for place in machines})
    apart = OF_STEP_6 | {"load_results"}
    parts["asked"] = [d.model_dump(mode="json", exclude=apart) for d in brief.deployments]
    parts["wording"] = {k: v for k, v in parts["evaluation"].items() if k not in SCORING}
    needs = brief.requirements
    results = [[d.name, *d.load_results] for d in brief.deployments if d.load_results]
    bars = [needs.slo_s, needs.max_ttft_p95_s, needs.max_itl_p95_s, needs.min_rps]
    parts["load"] = [*bars, *results]
    part_names = reads.brief.split()
    if step == "01" and brief.candidates.source == "hub":
        part_names += ["size", "deployed"]
    if evaluation.strategy == "racing" and step == "04":  # who is dropped depends on them
        part_names += ["requirements", "objective"]
    hashes = {f"{part} in the brief": key_of(parts[part]) for part in part_names if part in parts}
    files = {"files": brief.named_files, "file": [Path(brief.file).name]}
    names = [name for _, *names in results for name in names]
    files["load"] = [name for name in names if (brief.folder / name).is_file()]
    paths = {name: brief.folder / name for part in part_names for name in files.get(part, ())}
    paths |= {f"data/{name}.csv": DATA / f"{name}.csv" for name in reads.data.split()}
    hashes |= {name: artifacts.sha256(path) for name, path in paths.items()}
    hash_of = artifacts.inputs(run)
    return hashes | {f"{t}.parquet": hash_of.get(f"{t}.parquet", "") for t in reads.steps.split()}


def _standing(step: str, brief: Project, by_step: Overrides) -> str:
    below = READS[step].steps.replace(" ", ", ") or "the brief and data/ alone"
    changes = ", ".join(
        f"{key}: {value} (step {number})"
        for number, keys in sorted(by_step.items())
        for key, value in keys.items()
        if number <= step
    )
    return f"{brief.name}: stands on {below}. Set differently for this run: {changes or 'nothing'}."
