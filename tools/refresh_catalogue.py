"""The shipped tables brought up to date from the Hub, as a diff that a person reviews."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from lib import tables
from lib.artifacts import hub_cache, shown, write_bytes
from lib.errors import PlaybookError
from lib.hub import pull as hub
from lib.hub.model_info import as_text

__all__ = ["changes", "models", "read", "shipped", "write"]

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
    only: list[str] | None = None,
    dry_run: bool = False,
    token: str | None = None,
    progress: bool = False,
) -> str:
    """Refresh `models.csv` from the Hub.

    Args:
        folder: Where the two tables are; `data/` unless given.
        cache: Where the Hub's answers are kept, so that an interrupted refresh goes on from there.
        only: The models to ask about, by `repo_id`; all unless given.
        dry_run: Write nothing.
        token: The Hub's token, for higher limits.
        progress: Show a bar.

    Returns:
        What was verified and what changed, as text for a terminal.

    Raises:
        PlaybookError: The Hub cannot be reached, `only` names no model of the table, or a table is
            or would become invalid; then the file is as it was.
    """
    path = (folder or tables.DATA) / "models.csv"
    catalogue = tables.read_table("models", path)
    asked = catalogue if only is None else catalogue[catalogue["repo_id"].isin(only)]
    if unknown := sorted(set(only or []) - set(asked["repo_id"])):
        raise PlaybookError(
            f"{shown(path)} has no model {unknown[0]!r}; add its row first, or name one"
            " that is there"
        )
    cache = cache or hub_cache()
    pulled = hub.pull(asked, cache, source="hub", token=token, progress=progress)
    old = read(path)  # edits made during the wait count
    new = models(old, pulled.metadata)
    diff = changes(old, new, table="models")
    content = _checked(path, new)
    done = f"Written: {shown(path)}. Read `git diff` and run `make test`."
    if dry_run or content == path.read_bytes():
        done = "Nothing written: " + ("this was a dry run." if dry_run else "nothing is new.")
    else:
        write_bytes(path, content)
    return "\n".join([*_summary(pulled.metadata, diff), done])


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


def as_cells(metadata: pd.DataFrame) -> dict[str, dict[str, str]]:
    """The cells of each model that the Hub answered for, at a commit.

    Args:
        metadata: From `hub.pull`.

    Returns:
        By `repo_id`: `hub_license`, `hub_params_b` (billions, 4 digits), `layers`, `kv_heads`,
        `head_dim`, blank where the Hub does not tell or tells what no such fact can be; and
        `hub_revision` and `hub_checked_on`, the day of the answer.
    """
    plain, answers = metadata.astype(object), {}
    for row in plain.where(plain.notna(), None).to_dict("records"):
        day = re.match(r"\d{4}-\d\d-\d\d", str(row["retrieved_at"]))
        pinned = re.fullmatch(r"[0-9a-f]{40}", str(row["revision"]))
        if str(row["metadata_source"]).startswith("hub") and day and pinned:
            stamps = {"hub_revision": pinned[0], "hub_checked_on": day[0]}
            answers[row["repo_id"]] = {c: tell(row) for c, tell in FACTS.items()} | stamps
    return answers


def _license(row: Row) -> str:
    text = as_text(row["license_on_hub"]) or ""
    return "" if text[:1] in "=+-@" else text  # a spreadsheet would run it; no licence starts so


def _billions(row: Row) -> str:
    value = row["params_b"]
    fits = type(value) in (int, float) and 1e-6 < value < 1e6
    return f"{float(f'{value:.4g}'):.10g}" if fits else ""


def _count(column: str) -> Callable[[Row], str]:
    def told(row: Row) -> str:
        value = row[column]
        return str(value) if type(value) is int and 0 < value < 10**6 else ""

    return told


FACTS: dict[str, Callable[[Row], str]] = {
    "hub_license": _license,
    "hub_params_b": _billions,
    "layers": _count("layers"),
    "kv_heads": _count("kv_heads"),
    "head_dim": _count("head_dim"),
}


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, refresh, and return the exit status."""
    cli = argparse.ArgumentParser(prog="python -m tools.refresh_catalogue", description=__doc__)
    cli.add_argument("models", nargs="*", metavar="MODEL", help="only these repositories")
    cli.add_argument("--dry-run", action="store_true", help="say what would change")
    args = cli.parse_args(argv)
    try:
        print(shipped(only=args.models or None, dry_run=args.dry_run, progress=True))
    except PlaybookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
