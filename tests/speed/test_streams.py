"""Streams as they are: what counts as a whole answer, two first tokens, and an end to each."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import openai_stub
import pytest
from openai_stub import Reply, Request, error
from test_requests import brief, items, measure
from virtual_time import VirtualLoop, run

from lib import replies, speed
from lib.errors import PlaybookError

DONE = "data: [DONE]\n\n"


def event(**chunk: Any) -> str:
    return f"data: {json.dumps(chunk)}\n\n"


def chunk(reason: Any = None, **delta: Any) -> str:
    return event(choices=[{"index": 0, "delta": delta, "finish_reason": reason}])


def sse(*events: str, kind: str = "text/event-stream") -> Reply:
    return Reply(body="".join(events).encode(), content_type=kind)


ROLE, TEXT, STOP = chunk(role="assistant", content=""), chunk(content="positive"), chunk("stop")
USAGE = event(choices=[], usage={"prompt_tokens": 10, "completion_tokens": 1})
WHOLE = [ROLE, TEXT, STOP, DONE]


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize(
    "events",
    [
        WHOLE,
        [ROLE, TEXT, DONE],  # no reason, but all of it
        [ROLE, TEXT, chunk("EndTurn")],  # no [DONE], but a reason
        [*WHOLE[:3], USAGE, DONE],
        [event(id="", model="", prompt_filter_results=[]), *WHOLE],  # Azure's first chunk
        [event(choices=[]), *WHOLE],
        [chunk(content=None), chunk(reasoning_content="hm"), *WHOLE],
        [": a comment\n\n", "event: ping\nid: 7\n\n", *WHOLE],
        [chunk(content=[{"type": "text", "text": "a"}]), STOP, DONE],
        [chunk("length", reasoning_content="hm"), DONE],
        [event(error=None, choices=[]), *WHOLE],
        ["".join(WHOLE).replace("\n", "\r\n")],
        [*WHOLE, "data: never read\n\n"],
    ],
)
def test_a_whole_answer(tmp_path: Path, events: list[str]) -> None:
    with openai_stub.running(sse(*events)) as stub:
        requests = measure(brief({"base_url": stub.url}), tmp_path)
    assert (requests["outcome"] == "ok").all()


ODD = ["null", "7", '"x"', "[]", '{"choices": 7}', '{"choices": "abc"}', '{"choices": [7]}',
       '{"choices": [{"delta": 7}]}', '{"choices": [{"delta": {"content": 7}}]}', "{", "\x00",
       '{"choices": [{"finish_reason": {}, "delta": []}]}', "[" * 100_000]  # fmt: skip


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize(
    "events",
    [
        [],
        [DONE],
        [ROLE, DONE],
        [ROLE, TEXT],
        [TEXT, chunk("network_error"), DONE],
        [TEXT, chunk("who knows"), DONE],
        [TEXT, event(error={"message": "died"}), DONE],
        [TEXT, "event: error\ndata: {}\n\n", event(error="died"), DONE],
        [TEXT, event(object="error", message="died"), DONE],
        ["<html>"],
        *([TEXT, f"data: {text}\n\n", DONE] for text in ODD),
    ],
)
def test_no_whole_answer_and_no_traceback(
    tmp_path: Path, events: list[str], capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Odd chunks come from the 22nd request on: the first probe has its answers."""
    odd, whole = sse(*events), sse(*WHOLE)
    with openai_stub.running(lambda r: odd if r.number > 22 else whole) as stub:
        requests = measure(brief({"base_url": stub.url}), tmp_path)
    assert "failed" in set(requests["outcome"])
    assert "Traceback" not in capfd.readouterr().err and not caplog.records


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize("kind", ["application/json", "text/html; charset=utf-8"])
def test_another_kind_of_reply_is_no_stream(tmp_path: Path, kind: str) -> None:
    with openai_stub.running(sse(*WHOLE, kind=kind)) as stub:
        with pytest.raises(PlaybookError, match="no request of the first probe was answered"):
            measure(brief({"base_url": stub.url}), tmp_path)


@pytest.mark.parametrize("drip", [b" ", b": a comment\n\n", TEXT.encode()])
def test_a_stream_without_an_end_is_left(
    tmp_path: Path, virtual_time: VirtualLoop, drip: bytes
) -> None:
    """One of forty drips for good: every call has one total time, warm-ups too."""
    endless, start = Reply(action="trickle", body=drip), virtual_time.now
    with openai_stub.running(lambda r: Reply() if r.number % 20 else endless) as stub:
        requests = measure(brief({"base_url": stub.url}), tmp_path)
    assert virtual_time.now - start < 3 * 30 + 10
    assert "TimeoutError" in set(requests["error"]) or "cut" in set(requests["outcome"])
    assert (requests["outcome"] == "ok").sum() > 10


def test_a_flood_is_read_up_to_a_limit(tmp_path: Path) -> None:
    flood = Reply(action="flood", body=TEXT.encode() * 500)
    with openai_stub.running(lambda r: flood if r.number == 4 else Reply()) as stub:
        requests = measure(brief({"base_url": stub.url}), tmp_path)
    assert (requests["outcome"] == "failed").sum() == 1


@pytest.mark.usefixtures("virtual_time")
def test_the_first_token_and_the_first_of_the_answer_are_two_numbers(tmp_path: Path) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for wait_s, text in (2, ROLE), (3, chunk(reasoning_content="hm")), (4, TEXT), (5, DONE):
            await asyncio.sleep(wait_s)
            yield text.encode()

    async def read() -> tuple[float, float | None]:
        start = asyncio.get_running_loop().time()
        timed = await replies.read_events(
            httpx2.Response(200, content=parts(), request=httpx2.Request("POST", "http://h"))
        )
        return timed.first_token - start, (timed.first_content or 0) - start

    assert run(read) == (5, 9)
    with openai_stub.running(sse(*WHOLE)) as stub:
        both = speed.summarise(measure(brief({"base_url": stub.url}), tmp_path), slo_s=20)
    assert both[["ttft_p95_s", "ttft_content_p95_s"]].notna().all(axis=None)
    with openai_stub.running(sse(chunk("length", reasoning="hm"), DONE)) as stub:
        requests = measure(brief({"base_url": stub.url}), tmp_path / "thoughts")
    assert requests["ttft_content_s"].isna().all() and requests["ttft_s"].notna().all()


@pytest.mark.usefixtures("virtual_time")
def test_quick_refusals_at_first_end_that_deployment_only(tmp_path: Path) -> None:
    def busy(request: Request) -> Reply:
        return error(429, "quota")

    with openai_stub.running(busy) as one, openai_stub.running() as two:
        project = brief({"base_url": one.url}, {"base_url": two.url})
        requests = measure(project, tmp_path, items())
        seen = len(one.requests)
    sentences = speed.silent_deployments(requests)
    words = "'a': no request of the first probe was answered: RateLimitError"
    assert sentences == {"a": words} and seen < 30
    capacity = speed.capacity(project, requests).set_index("deployment")
    assert list(capacity.index) == ["b"] and capacity.at["b", "n"] > 30
    loads = speed.summarise(requests, slo_s=20).set_index("deployment")
    assert set(loads.index) == {"b"}


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize(
    ("bars", "binds"),
    [
        ({}, ""),
        ({"max_ttft_p95_s": 0.9}, "TTFT"),
        ({"max_itl_p95_s": 0.05}, "inter-token latency"),
        ({"max_ttft_p95_s": 1.5, "max_itl_p95_s": 0.15}, ""),
    ],
)
def test_objectives_on_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bars: dict[str, float], binds: str
) -> None:
    """First token after 1 s, then a tenth of a second between two of eleven."""
    usage = event(choices=[], usage={"prompt_tokens": 10, "completion_tokens": 11})

    async def read(response: Any) -> replies.Timed:
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(1.0)
        first = clock()
        await asyncio.sleep(1.0)
        return (await whole(response))._replace(first_token=first)

    whole = replies.read_events
    monkeypatch.setattr(replies, "read_events", read)
    with openai_stub.running(sse(*WHOLE[:3], usage)) as stub:
        bars = {"max_p95_s": 20} | bars
        speeds = {"budget_requests": 900}
        project = brief({"base_url": stub.url}, requirements=bars, speed=speeds)
        requests = measure(project, tmp_path)
    (row,) = speed.capacity(project, requests).to_dict("records")
    assert row["binds"] == binds and (row["low"] > 0) == (binds == "")
    if not binds:
        assert row["ttft_low"] == pytest.approx(1.0, abs=0.01) == row["ttft_high"]
        assert row["itl_low"] == pytest.approx(0.1, abs=0.01) == row["itl_high"]
        # Only several machines bear so much: a latency at it is not known, a pace of tokens is.
        needs = project.requirements.model_copy(update={"min_rps": 1e6})
        project = project.model_copy(update={"requirements": needs})
        (row,) = speed.capacity(project, requests).to_dict("records")
        assert row["itl_high"] == pytest.approx(0.1, abs=0.01)
        assert math.isnan(row["p95_s"]) and math.isnan(row["ttft_p95_s"])
    loads = speed.summarise(requests, slo_s=20)
    assert loads["ttft_p95_s"].between(0.99, 1.01).all()
    assert loads["itl_p95_s"].between(0.099, 0.101).all()


@pytest.mark.usefixtures("virtual_time")
def test_uncounted_tokens_have_no_time_between_them(tmp_path: Path) -> None:
    """An objective on it is then not known to be kept, never kept."""
    with openai_stub.running(sse(*WHOLE)) as stub:
        project = brief({"base_url": stub.url}, requirements={"max_p95_s": 20, "max_itl_p95_s": 1})
        (row,) = speed.capacity(project, measure(project, tmp_path)).to_dict("records")
    assert math.isnan(row["itl_p95_s"]) and row["binds"] == ""


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize("shown", [False, True])
def test_thoughts_that_are_counted_and_do_not_come_leave_no_time_between_tokens(
    tmp_path: Path, shown: bool
) -> None:
    """A hundred hidden thoughts would make ten tokens look ten times as fast."""
    details = {"reasoning_tokens": 100}
    counts = {"prompt_tokens": 10, "completion_tokens": 110, "completion_tokens_details": details}
    usage = event(choices=[], usage=counts)
    thoughts = [chunk(reasoning_content="hm")] * shown
    with openai_stub.running(sse(*thoughts, *WHOLE[:3], usage, DONE)) as stub:
        project = brief({"base_url": stub.url}, requirements={"max_p95_s": 20, "max_itl_p95_s": 1})
        requests = measure(project, tmp_path)
    assert requests["itl_s"].notna().all() == shown
    assert shown or math.isnan(speed.capacity(project, requests)["itl_p95_s"].iloc[0])
