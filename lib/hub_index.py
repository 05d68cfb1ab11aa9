"""The public parquet index of the whole Hub, searched with DuckDB where it lies."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import PurePath
from typing import Any

import duckdb
import fsspec

from lib import hub_http
from lib.errors import PlaybookError
from lib.hub_filters import COPIES, Filters, Found, Repo, repo

from huggingface_hub import constants, errors  # isort: skip  # after hub_http, which sets its switches

__all__ = ["lookup", "search"]

SORTS = {"downloads": "downloads", "likes": "likes", "trending": "trendingScore"}
# DuckDB loads and fetches nothing of its own accord.
CLOSED: dict[str, Any] = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
REASONS: dict[type[Exception], str] = {
    duckdb.IOException: "no such file, or not a readable one; check candidates.index",
    duckdb.InvalidInputException: "not a parquet file; check candidates.index",
    duckdb.OutOfMemoryException: "does not fit the memory limit; allow more",
}
TAGGED_RELATION = (
    "split_part(list_filter({}, lambda t: regexp_matches(t, '^base_model:[^:]+:'))[1], ':', 2)"
)
Fields = dict[str, str]
Types = dict[str, Any]


def search(
    index: str,
    wanted: Filters,
    *,
    token: str | None = None,
    threads: int = 2,
    memory: str = "400MB",
) -> Found:
    """Find the repositories that pass, in one scan of the columns that the filters need.

    Args:
        index: A parquet file or glob, or `hf://datasets/owner/name/file.parquet`.
        wanted: From `hub_filters.filters`.
        token: Sent to the Hub's own host only.
        threads: Threads of DuckDB.
        memory: Memory limit of DuckDB.

    Raises:
        PlaybookError: The index cannot be read, or lacks a column that the filters need.
    """
    if wanted.provider:
        raise PlaybookError(
            f"candidates.provider {wanted.provider!r}: the index does not say who serves a model;"
            " set candidates.via to api"
        )
    with _opened(index, token, threads, memory) as (con, types):
        fields = _fields(types, wanted.sort)
        _check(index, types, fields, wanted)
        unnamed = wanted.names and fields["license_name"] == "NULL"
        if not (wanted.names or wanted.known or "license:other" in wanted.tags):
            fields["license_name"] = "NULL"  # cardData is the largest column: not read for nothing
        where, values = _conditions(fields, wanted)
        columns = ", ".join(f"{sql} AS {name}" for name, sql in fields.items())
        con.execute(
            f"CREATE TEMP TABLE hits AS SELECT *, coalesce(relation IN $copies, FALSE)"
            " OR (params IS NULL AND (gguf_params IS NOT NULL"
            " OR coalesce(list_contains(tags, 'gguf'), FALSE))) AS copied"
            f" FROM (SELECT {columns} FROM read_parquet($index) WHERE {where})",
            values | {"index": index, "copies": COPIES},
        )
        copies = con.execute("SELECT count(*) FROM hits WHERE copied").fetchall()[0][0]
        repos = _repos(
            con.execute(
                "SELECT * EXCLUDE copied FROM hits WHERE NOT copied"
                " ORDER BY score DESC NULLS LAST, downloads DESC NULLS LAST, id LIMIT $limit",
                {"limit": wanted.limit},
            )
        )
        remark = "no licence names in the index: of the tag `other` only models known here"
        as_of = _as_of(con, index, types)
    return Found(repos, copies, f"Hub index {PurePath(index).name}", as_of, remark * bool(unnamed))


def lookup(
    index: str,
    repo_ids: list[str],
    *,
    token: str | None = None,
    threads: int = 2,
    memory: str = "400MB",
) -> list[Repo]:
    """Look up repositories by name, whatever their case; those not listed are left out."""
    with _opened(index, token, threads, memory) as (con, types):
        fields = _fields(types, "downloads")
        columns = ", ".join(f"{sql} AS {name}" for name, sql in fields.items())
        ids = [repo_id.lower() for repo_id in repo_ids]
        return _repos(
            con.execute(
                f"SELECT {columns} FROM read_parquet($index) WHERE lower({fields['id']}) IN $ids",
                {"index": index, "ids": ids},
            )
        )


def _conditions(fields: Fields, wanted: Filters) -> tuple[str, dict[str, Any]]:
    """The WHERE clause and its values; a value of the brief is never part of the text."""
    values: dict[str, Any] = {f"tag{place}": tag for place, tag in enumerate(wanted.tags)}
    # Not list_has_any: it looks at the tags of the rows that other conditions ruled out as well.
    licensed = [f"list_contains({fields['tags']}, ${name})" for name in values]
    if wanted.names or wanted.known:
        licensed.append(
            f"(list_contains({fields['tags']}, 'license:other')"
            f" AND (lower({fields['license_name']}) IN $names OR lower({fields['id']}) IN $known))"
        )
        values |= {"names": wanted.names, "known": wanted.known}
    clauses = []
    if wanted.min_downloads:
        clauses.append(f"{fields['downloads']} >= $min_downloads")
        values["min_downloads"] = wanted.min_downloads
    if wanted.tasks:
        clauses.append(f"{fields['pipeline_tag']} IN $tasks")
        values["tasks"] = wanted.tasks
    sizes = []
    for place, (low, high) in enumerate(wanted.sizes):
        size = f"coalesce({fields['params']}, {fields['gguf_params']})"
        sizes.append(f"{size} BETWEEN $low{place} AND $high{place}")
        values |= {f"low{place}": low * 1e9, f"high{place}": high * 1e9}
    if sizes:
        clauses.append(f"({' OR '.join(sizes)})")
    return " AND ".join([*clauses, f"({' OR '.join(licensed)})"]), values


def _fields(types: Types, sort: str) -> Fields:
    """How each field is read from the columns the index has; `NULL` where it has none."""
    tags = _tags(types)
    relation = (
        f"coalesce({_inner(types, 'baseModels', 'relation')}, {TAGGED_RELATION.format(tags)})"
    )
    return {
        "id": _plain(types, "id"),
        "tags": tags,
        "pipeline_tag": _plain(types, "pipeline_tag"),
        "downloads": _plain(types, "downloads", "DOUBLE"),
        "score": _plain(types, SORTS[sort], "DOUBLE"),
        "license_name": _inner(types, "cardData", "license_name"),
        "params": _inner(types, "safetensors", "total", "DOUBLE"),
        "gguf_params": _inner(types, "gguf", "total", "DOUBLE"),
        "relation": relation if tags != "NULL" else _inner(types, "baseModels", "relation"),
        "bases": _bases(types),
    }


def _plain(types: Types, name: str, cast: str = "VARCHAR") -> str:
    nested = ("list", "array", "struct", "map", "union", "blob")
    known = name in types and types[name].id not in nested
    return f'try_cast("{name}" AS {cast})' if known else "NULL"


def _inner(types: Types, name: str, inner: str, cast: str = "VARCHAR") -> str:
    """A field of a STRUCT, or of an object in JSON text."""
    kind = types.get(name)
    if kind is not None and kind.id == "struct" and inner in dict(kind.children):
        return f'try_cast("{name}"."{inner}" AS {cast})'
    if kind is not None and kind.id in ("varchar", "json"):
        return f"try_cast(try(json_extract_string(\"{name}\", '$.{inner}')) AS {cast})"
    return "NULL"


def _tags(types: Types) -> str:
    kind = types.get("tags")
    if kind is not None and kind.id == "list":
        return 'try_cast("tags" AS VARCHAR[])'
    if kind is not None and kind.id in ("varchar", "json"):
        return 'try(from_json("tags", \'["VARCHAR"]\'))'
    return "NULL"


def _bases(types: Types) -> str:
    kind = types.get("baseModels")
    if kind is None or kind.id not in ("struct", "varchar", "json"):
        return "NULL"
    text = 'to_json("baseModels")' if kind.id == "struct" else '"baseModels"'
    return f"try(json_extract_string({text}, '$.models[*].id'))"


def _check(index: str, types: Types, fields: Fields, wanted: Filters) -> None:
    """Say which necessary column is missing or of a type that cannot be read."""
    needed = {"id": "id", "tags": "tags", "score": SORTS[wanted.sort]}
    needed |= {"downloads": "downloads"} if wanted.min_downloads else {}
    needed |= {"pipeline_tag": "pipeline_tag"} if wanted.tasks else {}
    needed |= {"params": "safetensors"} if wanted.sizes else {}
    for name, column in needed.items():
        if fields[name] == "NULL":
            wrong = f"{column} {str(types.get(column))[:60]}, not usable"
            has = wrong if column in types else ", ".join(types)
            raise PlaybookError(
                f"candidates.index {index!r} needs the column {column!r}; it has {has}"
            )


@contextmanager
def _opened(
    index: str, token: str | None, threads: int, memory: str
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Types]]:
    """A connection that can read the index, and the types of its columns."""
    scheme = index.partition("://")[0] if "://" in index else ""
    if scheme not in ("", "hf"):
        raise PlaybookError(f"candidates.index {index!r}: give a file, a glob or hf://datasets/…")
    files = _hub_files(index, token) if scheme else None
    try:
        limits: dict[str, Any] = {"threads": threads, "memory_limit": memory}
        with (
            tempfile.TemporaryDirectory() as spill,  # else it would be the working directory
            duckdb.connect(config=CLOSED | limits | {"temp_directory": spill}) as con,
        ):
            if files:
                con.register_filesystem(files)
            columns = con.sql("FROM read_parquet($index)", params={"index": index})
            yield con, dict(zip(columns.columns, columns.dtypes, strict=True))
    except duckdb.Error as error:  # without DuckDB's text, which may quote a request's headers
        reason = REASONS.get(type(error), "cannot be read to its end; fetch it again")
        raise PlaybookError(f"candidates.index {index!r}: {reason}") from None


def _hub_files(index: str, token: str | None) -> Any:
    """The Hub as a file system, once the index is known to be there."""
    if hub_http.offline():
        raise PlaybookError(
            f"candidates.index {index!r} is on the Hub and HF_HUB_OFFLINE is set; unset it, give"
            " a local file, or set candidates.source to catalogue"
        )
    try:
        options = {"token": hub_http.allowed(token), "endpoint": constants.ENDPOINT}
        files = fsspec.filesystem("hf", skip_instance_cache=True, **options)
        if files.glob(index):
            return files
        raise FileNotFoundError
    except (FileNotFoundError, errors.RepositoryNotFoundError):
        reason = "the Hub has no such file, or it needs your HF_TOKEN; check the name"
    except Exception as error:  # in our own words: the text of a request's error may quote it
        reason = (
            f"the Hub could not be asked ({type(error).__name__}); check network and HF_ENDPOINT"
        )
    raise PlaybookError(
        f"candidates.index {index!r}: {reason}, or set candidates.source to catalogue"
    )


def _as_of(con: duckdb.DuckDBPyConnection, index: str, types: Types) -> str:
    """The day of the last change in the index, so of the index itself; never after today."""
    last = _plain(types, "lastModified", "TIMESTAMP")
    query = f"SELECT max({last})::DATE FROM read_parquet($index)"
    found = con.execute(query, {"index": index}).fetchall()[0][0]
    return min(found or date.today(), date.today()).isoformat()


def _repos(result: duckdb.DuckDBPyConnection) -> list[Repo]:
    names = [column[0] for column in result.description or []]
    rows = (repo(dict(zip(names, row, strict=True))) for row in result.fetchall())
    return [row for row in rows if row]
