"""Verify a run: are its files those of its record, and do its tables still give its decision?"""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from lib import artifacts, decide, tables
from lib.brief import Project
from lib.errors import PlaybookError
from lib.tables import DATA, Row

OK, CHANGED, DIFFERS, INCOMPARABLE = 0, 10, 11, 12  # exit statuses
OF_THE_DAY = {"created_at", "machine", "versions", "basis"}  # of the machine that made the record
MOVES = {"quality": "quality", "max_rps": "rps", "usd_per_month": "usd_per_month"}


def verify(run: Path, *, record: str = "", brief: str = "") -> tuple[int, list[str]]:
    """An exit status, and a sentence for each finding that names its file.

    0: all files are those of the record, and the tables give its decision. 10: a file is another,
    or not in the record, or a link. 11: the tables give another decision. 12: the record cannot be
    read, or was made with another version of it. A run cannot vouch for itself: `record` and
    `brief` are the SHA-256 that the verifier expects of `06_decision.json` and of the project's
    file.
    """
    try:
        decision = read(run)
    except PlaybookError as error:
        return INCOMPARABLE, [str(error)]
    wrong = list(_changed(run, decision))
    if record and record != artifacts.sha256(run / artifacts.RECORD):
        wrong.insert(0, f"{artifacts.RECORD} is not the record expected")
    if brief and brief not in decision["inputs"].values():
        wrong.append("the brief is not the one expected")
    if wrong:
        return CHANGED, wrong
    of_tuning = ["licenses", "clauses", "closed_models"] * bool(decision.get("fine_tuning"))
    for name in (f"data/{table}.csv" for table in ["hardware", *of_tuning]):
        if artifacts.sha256(DATA.parent / name) != decision["inputs"].get(name):
            return INCOMPARABLE, [f"{name} is another than that of the record"]
    differs = [f"{what} comes out differently" for what in _replay(run, decision)]
    same = "every file but logs and executed notebooks is as recorded, the pick the same"
    return (DIFFERS, differs) if differs else (OK, [same])


def read(run: Path) -> Row:
    """The record of a run; PlaybookError where it is missing, damaged or of another version."""
    name = f"{artifacts.path_name(run)}/{artifacts.RECORD}"
    try:
        path = run / artifacts.RECORD
        decision = json.loads(b"" if path.is_symlink() else path.read_bytes())
    except (OSError, ValueError):
        raise PlaybookError(f"{name} is missing or no JSON") from None
    schema = json.loads((DATA / f"schemas/decision-{decide.VERSION}.json").read_bytes())
    if error := best_match(Draft202012Validator(schema).iter_errors(decision)):
        at = ".".join(map(str, error.absolute_path)) or "the record"
        reason = f"no record of version {decide.VERSION} ({at}: {error.message[:100]})"
        raise PlaybookError(f"{name} is {reason}")
    return dict(decision)


def _changed(run: Path, decision: Row) -> Iterator[str]:
    """A sentence for each file that is not as the record has it, or that it does not have."""
    hashes, sealed = _hashes(run), [artifacts.RECORD, "manifest.json"]
    expected = {n: h for n, h in decision["inputs"].items() if n.endswith(".parquet")}
    expected |= decision["outputs"] | {name: hashes.get(name) for name in sealed}
    for name in sorted(expected.keys() | hashes.keys()):
        if not hashes.get(name):
            yield f"{name} is missing in this run, or a link"
        elif name not in expected:
            yield f"{name} is not in the record"
        elif hashes[name] != expected[name]:
            yield f"{name} is another than in the record"
    if hashes.get("manifest.json"):
        if artifacts.manifest_digest(run) != decision.get("manifest"):
            yield "manifest.json is another than in the record"
        elif hashes[artifacts.RECORD] != artifacts.inputs(run).get(artifacts.RECORD):
            yield f"{artifacts.RECORD} is another than in manifest.json"


def _hashes(run: Path) -> dict[str, str]:
    """SHA-256 by name of what people take for a run's result; "" for a link, which is not read.

    Logs, executed notebooks and a signature are left out. Only what a walk meets is read: a name
    in the record may lead out of the run.
    """
    apart = {"logs", "previous", "04_inspect", f"{artifacts.RECORD}.sig"}
    apart |= {f"{stem}.ipynb" for stem in artifacts.NOTEBOOKS.values()}
    paths = {path.relative_to(run).as_posix(): path for path in run.rglob("*")}
    return {
        name: artifacts.sha256(path) if path.is_file() and not path.is_symlink() else ""
        for name, path in paths.items()
        if name.split("/")[0] not in apart and "/." not in f"/{name}"
        if path.is_symlink() or not path.is_dir()
    }


def _replay(run: Path, decision: Row) -> Iterator[str]:
    """What the tables of steps 2 to 5 give otherwise than the record and step 6 say."""
    try:
        brief = Project.model_validate(decision["brief"])
        names = "04_scores 04_pairs 04_answers 05_capacity 06_tradeoffs 03_metadata 02_shortlist"
        scores, pairs, answers, capacity, before, metadata, shortlist = (
            artifacts.load(run, name) for name in names.split()
        )
        cost = decide.cost(brief, capacity, answers, tables.hardware())
        table = decide.tradeoffs(scores, capacity, cost, pairs)
        table = table.merge(decide.availability(brief, metadata))
        table = table.merge(decide.estimated_load(brief, shortlist, answers, capacity))
        checks = decide.check(table, brief.requirements)
        table = decide.qualify(table, checks)
        outlook = decide.outlook(table, checks, scores, answers, brief)
        outlook["fine_tuning"] = decide.fine_tuning(brief, table, pairs, shortlist, metadata)
        again = decide.decision_record(
            brief, run, table=table, checks=checks, metadata=metadata, shortlist=shortlist,
            outlook=outlook,
        )  # fmt: skip
    except (PlaybookError, ValueError, LookupError, TypeError) as error:
        yield f"{artifacts.RECORD}: the replay stopped ({str(error)[:200]}), so everything"
        return
    for name in [key for key in again if key not in OF_THE_DAY]:
        if _plain(again[name]) != _plain(decision.get(name)):
            yield f"{artifacts.RECORD}: {name}"
    table["pick"] = table["deployment"].isin([(again["pick"] or {}).get("deployment")])
    for name in before.columns:
        one, two = (_plain(tables.rows(frame, [name])) for frame in (table, before))
        if one != two:
            yield f"06_tradeoffs.parquet: {name}"


def _plain(value: Any) -> Any:
    """As JSON has it, to six digits: the last ones may differ between processors."""
    return json.loads(json.dumps(value, default=str), parse_float=lambda text: f"{float(text):.6g}")


def diff(first: Path, second: Path) -> list[str]:
    """What changed from one run to another, a sentence each; first whether they compare at all."""
    one, two = read(first), read(second)
    alike = _items(one) == _items(two) and one["project"]["metric"] == two["project"]["metric"]
    compare = "compare" if alike else "do not compare: items or metric differ"
    lines = [f"The scores {compare}."]
    for name in sorted(one["inputs"].keys() | two["inputs"].keys()):
        stale = one["inputs"].get(name) != two["inputs"].get(name)
        if stale and not name.endswith((".parquet", " in the brief")):
            lines.append(f"Another {name}.")
    before, after = (_values(record["brief"]) for record in (one, two))
    for key in before | after:
        was, now = (values.get(key, "none") for values in (before, after))
        change = f"{was} → {now}" if len(was + now) < 150 else "another text"
        lines += [f"{key}: {change}."] * (was != now)
    old, new = (
        artifacts.load(run, "06_tradeoffs").set_index("deployment") for run in (first, second)
    )
    lines += [f"Only in the first: {name}." for name in old.index.difference(new.index)]
    lines += [f"Only in the second: {name}." for name in new.index.difference(old.index)]
    for name in old.index.intersection(new.index):
        lines += _moved(name, old.loc[name], new.loc[name])
    was, now = (
        str((record["pick"] or {}).get("deployment", record["outcome"])) for record in (one, two)
    )
    pick = f"is {was}, as before" if was == now else f"was {was}, now {now}"
    return [*lines, f"The pick {pick}."]


def _values(value: Any, key: str = "") -> dict[str, str]:
    """The values of a brief by dotted key; of a list by its entries' names, or its words sorted."""
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        names = [entry.get("name") or entry.get("repo_id") for entry in value]
        alone = all(names) and len({*names}) == len(names)
        value = dict(zip(names if alone else count(1), value, strict=False))
    if isinstance(value, dict):
        parts = (_values(inner, f"{key}.{part}".lstrip(".")) for part, inner in value.items())
        return {name: text for values in parts for name, text in values.items()}
    value = ", ".join(sorted(map(str, value))) if isinstance(value, list) else value
    return {} if value in (None, "") else {key: str(value)}


def _items(decision: Row) -> str:
    return str(decision["inputs"].get(decision["brief"]["evaluation"]["items"], ""))


def _moved(name: str, old: "pd.Series[Any]", new: "pd.Series[Any]") -> Iterator[str]:
    """The figures of a deployment that left the interval they had, and its price."""
    for value, ends in MOVES.items():
        low, high, now = old[f"{ends}_low"], old[f"{ends}_high"], new[value]
        if now < low or now > high:
            yield f"{name}: {value} was {tables.number(old[value])}, now {tables.number(now)}."
    was, price = ("not known" if pd.isna(row["price"]) else row["price"] for row in (old, new))
    if was != price:
        yield f"{name}: the price was {was}, now {price}."
