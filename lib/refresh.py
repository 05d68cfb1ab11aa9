"""The shipped tables brought up to date from the Hub, as a diff that a person reviews."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from lib import hub, tables
from lib.artifacts import hub_cache, shown, write_bytes
from lib.errors import PlaybookError
from lib.eval_results import BOARD_NOTE, LEADERBOARD, PAGE_NOTE, on_board, on_pages, read_board
from lib.hub_facts import as_cells

__all__ = ["changes", "models", "read", "scores", "shipped", "write"]

STAMPS = ["hub_revision", "hub_checked_on", "checked_on"]
EXAMPLES = 20

Row = dict[Any, Any]


def read(path: Path) -> pd.DataFrame:
    """A table as its cells are written: text, blank where blank."""
    return pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False)


def models(models: pd.DataFrame, metadata: pd.DataFrame) -> pd.DataFrame:
    """The catalogue with the Hub's facts of today; whatever a person wrote stays.

    Args:
        models: The cells of `models.csv`, from `read`.
        metadata: What the Hub answered, from `hub.pull`.

    Returns:
        The same rows. A row the Hub answered for, at a commit, gets `hub_license`, `hub_params_b`
        (billions, 4 digits), `layers`, `kv_heads`, `head_dim`, and always `hub_revision` and
        `hub_checked_on`: that nothing changed is known as of that day too. A fact that the Hub does
        not tell, or tells in a form no such fact has, keeps its cell; so does a row not answered
        for, or answered for earlier than it was last checked.
    """
    answers = as_cells(metadata)
    rows = models.to_dict("records")
    for row in rows:
        answer = answers.get(row["repo_id"])
        if answer and answer["hub_checked_on"] >= row["hub_checked_on"]:
            row |= {c: cell for c, cell in answer.items() if cell and not _same(c, cell, row[c])}
    return pd.DataFrame(rows, columns=models.columns, dtype=str)


def scores(
    published: pd.DataFrame,
    evals: pd.DataFrame,
    leaderboard: pd.DataFrame | None = None,
    *,
    models: Iterable[str],
    today: date,
) -> pd.DataFrame:
    """The published scores with what the Hub shows today; rows written by hand stay untouched.

    Args:
        published: The cells of `published_scores.csv`, from `read`.
        evals: Results on the models' own pages, from `hub.pull`.
        leaderboard: The Hub's leaderboard, used where a model's own page lacks the benchmark.
        models: The `repo_id`s to take.
        today: The day of reading, as `checked_on`.

    Returns:
        All rows, sorted by key. A row of the Hub starts its `note` with "Hub eval results" or
        "OpenEvals leaderboard" (see `eval_results` for its cells); those of a model that was read
        anew replace its earlier ones.
    """
    known = set(models)
    pages = on_pages(evals, known)
    told = {(row["repo_id"], row["dataset"]) for row in pages}
    board = [] if leaderboard is None else on_board(leaderboard, known)
    anew = {PAGE_NOTE: {repo_id for repo_id, _ in told}, BOARD_NOTE: known if board else set()}
    unique: dict[tuple[str, ...], Row] = {}  # the first of a key stays: a person's row, if any
    for row in published.to_dict("records"):
        note = row.get("note", "")
        if not any(note.startswith(of) and row["repo_id"] in ids for of, ids in anew.items()):
            unique[_key("published_scores", row)] = row
    for row in pages + [row for row in board if (row["repo_id"], row["dataset"]) not in told]:
        stamped = row | {"checked_on": today.isoformat()}
        unique.setdefault(_key("published_scores", row), stamped)
    cells = [unique[key] for key in sorted(unique)]
    return pd.DataFrame(cells, columns=published.columns, dtype=str).fillna("")


def changes(old: pd.DataFrame, new: pd.DataFrame, *, table: str) -> pd.DataFrame:
    """One row per cell that differs: `table key column old new`, licences first, dates last.

    Args:
        old: The cells before, from `read`.
        new: The cells after; an added or removed row counts with every cell that is not blank.
        table: The table's name, which says what its key is.
    """
    keys = tables.SCHEMAS[table][0]
    before = old.melt(id_vars=keys, var_name="column", value_name="old")
    after = new.melt(id_vars=keys, var_name="column", value_name="new")
    cells = before.merge(after, how="outer", on=[*keys, "column"]).fillna("")
    cells = cells[cells["old"] != cells["new"]]
    cells = cells.assign(
        table=table,
        key=[" / ".join(filter(None, row)) for row in cells[keys].to_numpy(dtype=object)],
        rank=(cells["column"] != "hub_license") + cells["column"].isin(STAMPS).astype(int),
    ).sort_values("rank", kind="stable", ignore_index=True)
    return cells[["table", "key", "column", "old", "new"]].astype(str)


def write(path: Path, table: pd.DataFrame) -> None:
    """Put cells into a table's file, whole or not at all, once they pass the table's schema.

    Raises:
        PlaybookError: They do not, or the disk refuses; the file is as it was.
    """
    write_bytes(path, _checked(path, table))


def shipped(
    *,
    folder: Path | None = None,
    cache: Path | None = None,
    leaderboard: str = LEADERBOARD,
    only: list[str] | None = None,
    dry_run: bool = False,
    token: str | None = None,
    today: date | None = None,
    progress: bool = False,
) -> str:
    """Refresh `models.csv` and `published_scores.csv` from the Hub.

    Args:
        folder: Where the two tables are; `data/` unless given.
        cache: Where the Hub's answers are kept, so that an interrupted refresh goes on from there.
        leaderboard: The Hub's table of scores, as `hf://…` or a local Parquet file.
        only: The models to ask about, by `repo_id`; all unless given.
        dry_run: Write nothing.
        token: The Hub's token, for higher limits; never sent for the leaderboard.
        today: The day that scores are dated; today unless given.
        progress: Show a bar.

    Returns:
        What was verified and what changed, as text for a terminal.

    Raises:
        PlaybookError: The Hub cannot be reached, `only` names no model of the table, or a table is
            or would become invalid; then both files are as they were.
    """
    paths = {n: (folder or tables.DATA) / f"{n}.csv" for n in ("models", "published_scores")}
    catalogue, _ = (tables.read_table(name, path) for name, path in paths.items())
    asked = catalogue if only is None else catalogue[catalogue["repo_id"].isin(only)]
    if unknown := sorted(set(only or []) - set(asked["repo_id"])):
        raise PlaybookError(
            f"{shown(paths['models'])} has no model {unknown[0]!r}; add its row first, or name one"
            " that is there"
        )
    cache = cache or hub_cache()
    pulled = hub.pull(asked, cache, source="hub", token=token, progress=progress)
    board, problem = read_board(leaderboard)
    old = {name: read(path) for name, path in paths.items()}  # edits made during the wait count
    day = today or datetime.now(UTC).date()
    given = old["published_scores"]
    new = {
        "models": models(old["models"], pulled.metadata),
        "published_scores": scores(given, pulled.evals, board, models=asked["repo_id"], today=day),
    }
    diff = pd.concat([changes(old[name], new[name], table=name) for name in paths])
    files = {path: _checked(path, new[name]) for name, path in paths.items()}
    files = {path: content for path, content in files.items() if content != path.read_bytes()}
    done = f"Written: {', '.join(map(shown, files))}. Read `git diff` and run `make test`."
    if dry_run or not files:
        done = "Nothing written: " + ("this was a dry run." if dry_run else "nothing is new.")
    for path, content in files.items() if not dry_run else ():
        write_bytes(path, content)
    return "\n".join([*_summary(pulled.metadata, diff), *filter(None, [problem]), done])


def _checked(path: Path, table: pd.DataFrame) -> bytes:
    """The cells as a file's content, line ends as they are there, once the schema lets it pass."""
    with path.open("rb") as stream:
        end = "\r\n" if stream.readline().endswith(b"\r\n") else "\n"
    content = table.to_csv(index=False, lineterminator=end).encode()
    with TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        draft.write_bytes(content)
        try:
            tables.read_table(path.stem, draft)
        except PlaybookError as error:
            text = str(error).replace(str(draft), shown(path))
            raise PlaybookError(f"{text}; nothing was written") from None
    return content


def _same(column: str, told: str, cell: str) -> bool:
    """Whether a cell says what the Hub tells, so that its own way of writing stays."""
    if column in ("hub_license", *STAMPS):
        return told.lower() == cell.lower()
    return cell != "" and float(told) == float(cell)


def _key(table: str, row: Row) -> tuple[str, ...]:
    return tuple(row[column] for column in tables.SCHEMAS[table][0])


def _summary(metadata: pd.DataFrame, diff: pd.DataFrame) -> list[str]:
    """What was verified and what changed; licences first, since they change verdicts."""
    verified = len(as_cells(metadata))
    lines = [f"{verified} of {len(metadata)} models verified, {len(metadata) - verified} kept."]
    problems = metadata[metadata["problem"].fillna("") != ""]
    lines += [f"  {row.repo_id}: {row.problem}" for row in problems.head(EXAMPLES).itertuples()]
    if len(problems) > EXAMPLES:
        lines.append(f"  and {len(problems) - EXAMPLES} more")
    facts = diff[~diff["column"].isin(STAMPS)]
    for table in dict.fromkeys(diff["table"]):
        own = facts[facts["table"] == table]
        added = own["key"][(own["column"] == "source_url") & (own["old"] == "")]
        removed = own["key"][(own["column"] == "source_url") & (own["new"] == "")]
        whole = own["key"].isin([*added, *removed])
        lines.append(
            f"{table}.csv: {len(added)} rows added, {len(removed)} removed, {(~whole).sum()} cells"
            " changed besides commits and dates."
        )
        own = own[~whole | (own["column"] == "score")]
        if "hub_license" in set(own["column"]):
            lines.append("  A licence may change a verdict: read its text, then edit `license`.")
        for row in own.head(EXAMPLES).itertuples():
            lines.append(
                f"  {row.key} {row.column}: {row.old or '(blank)'} -> {row.new or '(blank)'}"
            )
        if len(own) > EXAMPLES:
            lines.append(f"  and {len(own) - EXAMPLES} more")
    return lines
