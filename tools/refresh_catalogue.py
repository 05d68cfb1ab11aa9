"""`data/models.csv` brought up to date from the Hub, as a diff that a person reviews."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pandas as pd

from lib import tables
from lib.artifacts import hub_cache, path_name, write_bytes
from lib.errors import PlaybookError, plain
from lib.hub import pull
from lib.tables import rows
from lib.untrusted import as_count, as_number, as_text

FACTS = ["hub_license", "hub_params_b", "layers", "kv_heads", "head_dim"]  # licences first
EXAMPLES = 20


class Change(NamedTuple):
    """A cell that the Hub told otherwise."""

    repo_id: str
    column: str
    old: str
    new: str


def refresh(
    path: Path = tables.DATA / "models.csv",
    *,
    cache: Path | None = None,
    only: list[str] | None = None,
    dry_run: bool = False,
    progress: bool = False,
) -> str:
    """Ask the Hub about the models of a table, and write what it tells into the table.

    Args:
        path: The table.
        cache: Where the Hub's answers are kept, so that an interrupted refresh goes on from there.
        only: The models to ask about, by `repo_id`; all unless given.
        dry_run: Write nothing.
        progress: Show a bar.

    Returns:
        What was verified and what changed, as text for a terminal.

    Raises:
        PlaybookError: The Hub cannot be reached, `only` names no model of the table, or the table
            is or would become invalid; then the file is as it was.
    """
    # Ask about the models.
    asked = tables.read_table("models", path)
    if only is not None:
        if unknown := sorted(set(only) - set(asked["repo_id"])):
            raise PlaybookError(f"{path_name(path)} has no model {unknown[0]!r}; add its row first")
        asked = asked[asked["repo_id"].isin(only)]
    metadata = pull(asked, cache or hub_cache(), source="hub", progress=progress).metadata
    # Put what the Hub told into the cells; edits made during the wait count.
    old = read(path)
    new = updated(old, metadata)
    content = _checked(path, new)
    # Write, and say what was done.
    done = f"Written: {path_name(path)}. Read `git diff` and run `make test`."
    if dry_run or content == path.read_bytes():
        done = "Nothing written: " + ("this was a dry run." if dry_run else "nothing is new.")
    else:
        write_bytes(path, content)
    return "\n".join([*_answers(metadata), *_changes(changes(old, new)), done])


def read(path: Path) -> pd.DataFrame:
    """A table as its cells are written: text, blank where blank."""
    return pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False)


def updated(models: pd.DataFrame, metadata: pd.DataFrame) -> pd.DataFrame:
    """The catalogue with the Hub's facts of today; whatever a person wrote stays.

    Args:
        models: The cells of `models.csv`, from `read`.
        metadata: What the Hub answered, from `pull`.

    Returns:
        The same rows. A row the Hub answered for, at a commit, gets `FACTS` (billions with 4
        digits), and always `hub_revision` and `hub_checked_on`: that nothing changed is known as
        of that day too. A fact that the Hub does not tell, or tells in a form no such fact has,
        keeps its cell; so does a row not answered for, or answered for before it was last checked.
    """
    answers = {row["repo_id"]: row for row in rows(metadata) if _answered(row)}
    table = models.to_dict("records")
    for row in table:
        answer = answers.get(row["repo_id"])
        if answer and (day := answer["retrieved_at"][:10]) >= row["hub_checked_on"]:
            cells = {c: cell for c, cell in _cells(answer).items() if not _same(cell, row[c])}
            row |= cells | {"hub_revision": answer["revision"], "hub_checked_on": day}
    return pd.DataFrame(table, columns=models.columns, dtype=str)


def changes(old: pd.DataFrame, new: pd.DataFrame) -> list[Change]:
    """The facts that differ between two states of the table, licences first."""
    return [
        Change(repo_id, column, before, after)
        for column in FACTS
        for repo_id, before, after in zip(old["repo_id"], old[column], new[column], strict=True)
        if before != after
    ]


def _answered(row: dict[Any, Any]) -> bool:
    """Whether the Hub answered for a model, at a commit and on a day."""
    return (
        str(row["metadata_source"]).startswith("hub")
        and re.fullmatch(r"[0-9a-f]{40}", str(row["revision"])) is not None
        and re.match(r"\d{4}-\d\d-\d\d", str(row["retrieved_at"])) is not None
    )


def _cells(answer: dict[Any, Any]) -> dict[str, str]:
    """The facts as cells; what the Hub does not tell, or cannot mean, is left out."""
    license_, size = as_text(answer["license_on_hub"]), as_number(answer["params_b"])
    cells = {}
    if license_ and license_[0] not in "=+-@":  # a spreadsheet would run it; no licence starts so
        cells["hub_license"] = license_
    if size and 1e-6 < size < 1e6:
        cells["hub_params_b"] = f"{float(f'{size:.4g}'):.10g}"
    for column in ("layers", "kv_heads", "head_dim"):
        if (count := as_count(answer[column])) and count < 10**6:
            cells[column] = str(count)
    return cells


def _same(fact: str, cell: str) -> bool:
    """Whether a cell says what the Hub tells, so that its own way of writing stays."""
    try:
        return float(fact) == float(cell)
    except ValueError:
        return fact.lower() == cell.lower()


def _checked(path: Path, table: pd.DataFrame) -> bytes:
    """The cells as a file's content, line ends as they are there, once the schema lets it pass."""
    end = "\r\n" if b"\r\n" in path.read_bytes() else "\n"
    content = table.to_csv(index=False, lineterminator=end).encode()
    with TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        draft.write_bytes(content)
        try:
            tables.read_table("models", draft)
        except PlaybookError as error:
            text = str(error).replace(str(draft), path_name(path))
            raise PlaybookError(f"{text}; nothing was written") from None
    return content


def _answers(metadata: pd.DataFrame) -> list[str]:
    """How many models were verified, and why others were not."""
    answers = rows(metadata)
    verified = sum(map(_answered, answers))
    problems = [f"  {row['repo_id']}: {row['problem']}" for row in answers if row["problem"]]
    count = f"{verified} of {len(answers)} models verified, {len(answers) - verified} kept."
    return [count, *_some(problems)]


def _changes(cells: list[Change]) -> list[str]:
    """Which facts changed; licences first, since they change verdicts."""
    lines = [f"models.csv: {len(cells)} cells changed besides commits and dates."]
    if any(cell.column == "hub_license" for cell in cells):
        lines.append("  A licence may change a verdict: read its text, then edit `license`.")
    return lines + _some(
        [f"  {cell.repo_id} {cell.column}: {cell.old or '(blank)'} -> {cell.new}" for cell in cells]
    )


def _some(lines: list[str]) -> list[str]:
    more = len(lines) - EXAMPLES
    return lines[:EXAMPLES] + ([f"  and {more} more"] if more > 0 else [])


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, refresh, and return the exit status."""
    cli = argparse.ArgumentParser(prog="python -m tools.refresh_catalogue", description=__doc__)
    cli.add_argument("models", nargs="*", metavar="MODEL", help="only these repositories")
    cli.add_argument("--dry-run", action="store_true", help="say what would change")
    args = cli.parse_args(argv)
    try:
        text = refresh(only=args.models or None, dry_run=args.dry_run, progress=True)
        print("\n".join(map(plain, text.split("\n"))))  # a terminal obeys nothing of the Hub's
    except PlaybookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
