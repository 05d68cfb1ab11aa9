"""Answers that are there already: appended as they come, never lost, or recorded elsewhere."""

import contextlib
import errno
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, TypeAdapter, model_validator

from lib.artifacts import alone, path_name, writing
from lib.brief import Deployment
from lib.errors import PlaybookError
from lib.lines import read_json_lines, required_file, validated
from lib.replies import ReplyError, finish_of, usage_of
from lib.tables import Row


def key_of(*parts: Any) -> str:
    """A stable key of anything JSON can say: the identity of a request or a probe."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:32]


def read_records(path: Path, wanted: Container[str] | None = None) -> dict[str, Row]:
    """The newest record of each `key`, of the `wanted` ones only, if given; half a line is none."""
    records: dict[str, Row] = {}
    if not path.exists():
        return records
    with path.open("rb") as stream:
        for line in stream:
            checksum, _, text = line.rstrip(b"\n").partition(b" ")
            if line.endswith(b"\n") and checksum == f"{zlib.crc32(text):08x}".encode():
                record = json.loads(text)
                if wanted is None or record["key"] in wanted:
                    records[record["key"]] = record
    return records


@contextlib.contextmanager
def appending_records(path: Path) -> Iterator[Callable[[Row], None]]:
    """Hold the file alone, where no other process does, and yield a function that appends."""

    def append(record: Row) -> None:
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        content = text.encode(errors="replace")  # half of a surrogate pair is not text
        line = f"{zlib.crc32(content):08x} ".encode() + content + b"\n"
        with writing(path):
            if (written := stream.write(line)) < len(line):
                # The disk took a part: it must not spoil the next record.
                os.ftruncate(stream.fileno(), stream.tell() - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with alone(path), contextlib.ExitStack() as stack:
        with writing(path):
            stream = stack.enter_context(path.open("a+b", buffering=0))
            end = stream.tell()
            if end and os.pread(stream.fileno(), 1, end - 1) != b"\n":
                stream.write(b"\n")  # a crash left half a line
        yield append


Count = Annotated[float, Field(ge=0, le=1e9)]


class _Called(BaseModel):
    """A tool that was called, by itself or in OpenAI's form with `function` around it."""

    name: str
    arguments: Annotated[
        str, BeforeValidator(lambda v: v if isinstance(v, str) else json.dumps(v))
    ] = ""

    @model_validator(mode="before")
    @classmethod
    def _unwrapped(cls, value: Any) -> Any:
        return value.get("function", value) if isinstance(value, dict) else value


class _Line(BaseModel):
    """A line of the file."""

    id: str = Field(min_length=1, validation_alias=AliasChoices("item_id", "id"))
    output: str | None = None
    finish_reason: str | None = None
    error: str | None = None
    tool_calls: list[_Called] | None = None
    latency_s: Count | None = None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    cached_tokens: Count | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        try:
            self.finish_reason = finish_of({"finish_reason": self.finish_reason})
        except ReplyError as error:
            self.error = self.error or str(error)
        if self.output is None and not self.tool_calls and not self.error:
            raise ValueError("has neither output nor tool_calls nor error")
        return self


def recorded_path(deployment: Deployment, folder: Path) -> Path:
    """The file of recorded outputs, beside the brief; PlaybookError where there is none."""
    endpoint = deployment.endpoint
    path = folder / (endpoint.recorded if endpoint and endpoint.recorded else "")
    return required_file(path, f"endpoint.recorded of {deployment.name!r}")


def recorded_answers(deployment: Deployment, folder: Path, item_ids: list[str]) -> list[Row]:
    """The recorded outputs of items, in their order, as facts of an answer.

    An `item_id` counts before `id`, which may be the completion's. An item without a line is a
    failed call. PlaybookError where no item has one, or a line is not usable or there twice.
    """
    answers = _recorded_lines(deployment, folder)
    if item_ids and not any(item_id in answers for item_id in item_ids):
        raise PlaybookError(
            f"{path_name(recorded_path(deployment, folder))}: has no line for any item, such as"
            f" {item_ids[0]!r}; its id must be that of the items file"
        )
    missing = dict.fromkeys(_Line.model_fields) | {"retries": None}
    missing["error"] = "not recorded: the file has no line for this item"
    return [answers.get(item_id, missing) for item_id in item_ids]


def recorded_elsewhere(deployment: Deployment, folder: Path, item_ids: list[str]) -> str:
    """What the recorded lines are of that are none of the items, in a sentence, or ""."""
    strangers = sorted(_recorded_lines(deployment, folder).keys() - set(item_ids))
    return f"{len(strangers)} lines of no item, such as {strangers[0]!r:.80}" if strangers else ""


def _recorded_lines(deployment: Deployment, folder: Path) -> dict[str, Row]:
    answers, a_line = dict[str, Row](), TypeAdapter(_Line)
    for where, line in read_json_lines(recorded_path(deployment, folder), wanted="id and output"):
        facts = validated(a_line, line, where).model_dump()
        facts |= usage_of(facts, wrote=bool(facts["output"] or facts["tool_calls"]))
        if facts["id"] in answers:
            raise PlaybookError(f"{where}: {facts['id']!r} is there twice")
        answers[facts["id"]] = facts | {"error": facts["error"] or "", "retries": None}
    return answers
