"""Loads that other tools offered: what their files say, what is refused, what comes of them.

The files are written here after the tools' own formats: GuideLLM 0.8 (schema 2) and `vllm bench
serve`, of 2026.
"""

from __future__ import annotations

import ast
import json
import math
import shutil
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import pytest
import recording
import yaml
from test_capacity import brief as measured_brief
from test_opening import Steps
from tradeoff_rows import table

from lib import artifacts, preflight, speed, tables
from lib.brief import Requirements
from lib.brief.project import Project
from lib.decide import costs, decision
from lib.errors import PlaybookError
from lib.speed import measurement

Json = dict[str, Any]
NOTHING = pd.DataFrame(columns=measurement.COLUMNS)


def vllm(*, n: int = 200, failed: int = 0, seconds: float = 0.4, **changes: Any) -> Json:
    """A file of `--save-result --percentile-metrics ttft,e2el --metric-percentiles 50,95,99`."""
    answered, rps = n - failed, changes.get("request_rate", 4.0)
    return {
        "date": "20261120-101112",
        "endpoint_type": "openai-chat",
        "backend": "openai-chat",
        "label": None,
        "model_id": "acme/d",
        "tokenizer_id": "acme/d",
        "num_prompts": n,
        "request_rate": 4.0,
        "burstiness": 1.0,
        "max_concurrency": None,
        "duration": n / rps + seconds if isinstance(rps, float) else 30.0,
        "completed": answered,
        "failed": failed,
        "total_input_tokens": 900 * answered,
        "total_output_tokens": 30 * answered,
        "request_throughput": 3.9,
        "median_e2el_ms": 250.0,
        "p95_e2el_ms": seconds * 1000,
        "p99_e2el_ms": 1.2 * seconds * 1000,
        "p95_ttft_ms": 80.0,
        "p99_ttft_ms": 120.0,
    } | changes


def default_vllm(**changes: Any) -> Json:
    """What it writes by default: no latency of whole requests, of 2026 on with `latencies`."""
    run = {key: value for key, value in vllm().items() if "e2el" not in key and "p95" not in key}
    return run | {"mean_tpot_ms": 9.0, "p99_tpot_ms": 30.0, "p99_itl_ms": 31.0} | changes


def spread(p95: float, *, p99: float | None = None, count: int = 200) -> Json:
    """A GuideLLM distribution by status; of nothing all of it is zero."""
    p99 = p95 * 1.2 if p99 is None else p99
    percentiles = {"p001": 0.01, "p01": 0.02, "p05": 0.05, "p10": 0.06, "p25": 0.07}
    percentiles |= {"p50": p95 / 2, "p75": p95 * 0.8, "p90": p95 * 0.9, "p95": p95, "p99": p99}
    percentiles |= {"p999": p99 * 1.2}
    if not count:
        percentiles = dict.fromkeys(percentiles, 0.0)
    one = {"mean": p95 / 2 if count else 0.0, "count": count, "percentiles": percentiles}
    return {"successful": one, "errored": None, "incomplete": None, "total": one}


def guide_load(
    strategy: Json, *, p95: float = 0.4, counts: tuple[int, int, int] = (200, 0, 0), **metrics: Any
) -> Json:
    on_schedule = strategy["type_"] in ("constant", "poisson")
    answered, errored, incomplete = counts
    return {
        "type_": "generative_benchmark",
        "config": {"strategy": strategy, "slo": {"ttft_ms": None}},
        "metrics": {
            "request_totals": {
                "successful": answered, "errored": errored, "incomplete": incomplete,
                "total": sum(counts),
            },
            "requests_per_second": spread(7.8),
            "request_latency": spread(0.9 * p95),
            "request_scheduled_latency": spread(p95, count=200 if on_schedule else 0),
            "time_to_first_token_ms": spread(60.0),
            "time_to_first_output_token_ms": spread(90.0),
            "prompt_token_count": spread(1800.0),
            "output_token_count": spread(60.0),
        } | metrics,
        "warnings": [],
    }  # fmt: skip


def guide(*loads: Json, model: str | None = "acme/d", version: Any = 2) -> Json:
    return {
        "metadata": {"version": version, "guidellm_version": "0.8.1"},
        "config": {"spec": {"backend": {"kind": "openai_http", "model": model}}},
        "benchmarks": list(loads),
        "conclusions": [],
    }


def warned(code: str) -> Json:
    return {"warnings": [{"code": code, "message": "…", "observed": 1.0, "threshold": 0.2}]}


def rate(rps: float, **more: Any) -> Json:
    return {"type_": "constant", "rate": rps, **more}


def brief(folder: Path, *files: Any, slo_s: float = 0.5, **deployment: Any) -> Project:
    """A brief whose one deployment names these files; text and bytes are written as they are."""
    names = []
    for number, content in enumerate(files):
        names.append(f"load-{number}.json")
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / names[-1]).write_text(text, "utf-8")
    raw = measured_brief(slo_s=slo_s).model_dump()
    raw["deployments"][0] |= {"load_results": names or ["gone.json"]} | deployment
    return Project.model_validate(raw | {"folder": folder})


def loads(folder: Path, *files: Any, **more: Any) -> list[Json]:
    project = brief(folder, *files, **more)
    return speed.load_results(project, project.deployments)


def capacity(folder: Path, *files: Any, **more: Any) -> list[Json]:
    table = speed.capacity(brief(folder, *files, **more), NOTHING)
    rows: list[Json] = table.to_dict("records")
    return rows


# --- what the files say


def test_a_vllm_file_is_an_open_loop_from_send(tmp_path: Path) -> None:
    (load,) = loads(tmp_path, vllm(failed=2))
    figures = {
        "offered_rps": 4.0, "achieved_rps": 3.9, "p50_s": 0.25, "p95_s": 0.4, "ttft_p95_s": 0.08,
        "n": 200, "errors": 2, "prompt_tokens": 900, "completion_tokens": 30, "loop": "open",
        "latency_from": "send", "stopped_early": False, "disturbed": False,
    }  # fmt: skip
    assert {key: load[key] for key in figures} == figures
    assert load["source"] == "load-0.json (vllm bench serve, poisson, open loop, from send)"
    assert "ttft_content_p95_s" not in load and math.isnan(load["concurrency"])


def test_a_guidellm_report_has_a_row_for_each_load(tmp_path: Path) -> None:
    report = guide(
        guide_load({"type_": "synchronous"}),
        guide_load({"type_": "concurrent", "streams": 8}),
        guide_load({"type_": "throughput", "max_concurrency": 512}, p95=9.0),
        guide_load(rate(2.0)),
        guide_load(rate(8.0) | {"type_": "poisson"}, p95=0.7, counts=(195, 3, 2)),
    )
    rows = loads(tmp_path, report)
    assert [row["loop"] for row in rows] == ["closed"] * 3 + ["open"] * 2
    assert [row["verdict"] for row in rows] == ["closed loop"] * 3 + ["passed", "failed"]
    assert [row["latency_from"] for row in rows] == ["send"] * 3 + ["schedule"] * 2
    # A distribution of nothing holds zeros: they are not the latency of a closed loop.
    assert [round(row["p95_s"], 3) for row in rows] == [0.36, 0.36, 8.1, 0.4, 0.7]
    figures = {
        "offered_rps": 8.0, "n": 200, "errors": 3, "stopped_early": True, "ttft_p95_s": 0.06,
        "ttft_content_p95_s": 0.09, "achieved_rps": 3.9, "prompt_tokens": 900.0, "p50_s": 0.35,
    }  # fmt: skip
    assert {key: rows[4][key] for key in figures} == figures
    assert rows[1]["concurrency"] == 8 and rows[2]["concurrency"] == 512
    assert rows[4]["source"] == "load-0.json (GuideLLM 0.8.1, poisson, open loop, from schedule)"


def test_what_did_not_stream_has_no_first_token(tmp_path: Path) -> None:
    nothing = spread(0.0, count=0)
    metrics = {"time_to_first_token_ms": nothing, "time_to_first_output_token_ms": None}
    (load,) = loads(tmp_path, guide(guide_load(rate(2.0), **metrics)))
    assert math.isnan(load["ttft_p95_s"]) and math.isnan(load["ttft_content_p95_s"])


def test_latencies_of_a_default_vllm_file_give_its_p95(tmp_path: Path) -> None:
    """They are in seconds, and a failed request has a place among them."""
    times = [0.0] * 4 + [0.1] * 180 + [0.6] * 16
    run = default_vllm(completed=196, failed=4, latencies=times, queue_times=[0.0] * 200)
    (load,) = loads(tmp_path, run)
    assert (load["p50_s"], load["p95_s"], load["errors"]) == (0.1, 0.6, 4)
    assert math.isnan(load["ttft_p95_s"]), "its p99 is no p95"
    # With --save-detailed the errors tell which one failed, whatever time it took.
    times = [30.0] * 4 + [0.1] * 196
    run |= {"latencies": times, "errors": ["timed out"] * 4 + [""] * 196}
    assert loads(tmp_path, run)[0]["p95_s"] == 0.1
    del run["errors"]
    with pytest.raises(PlaybookError, match="no p95"):
        loads(tmp_path, run)


@pytest.mark.parametrize("rate", [4.0, "inf"])
def test_with_a_limit_in_flight_requests_wait_in_the_client(
    tmp_path: Path, rate: float | str
) -> None:
    """A closed loop, whatever the rate: no capacity comes of it."""
    run = default_vllm(request_rate=rate, max_concurrency=4, latencies=[0.1] * 200)
    for file in (run, run | {"queue_times": [0.0] * 150 + [2.0] * 50}):
        (load,) = loads(tmp_path, file)
        assert (load["loop"], load["latency_from"], load["p95_s"]) == ("closed", "send", 0.1)
        assert (load["verdict"], load["concurrency"]) == ("closed loop", 4)
        assert not capacity(tmp_path, file)


def test_appended_results_are_one_a_line(tmp_path: Path) -> None:
    text = "\n".join(json.dumps(vllm(request_rate=r)) for r in (1.0, 2.0)) + "\n"
    assert [load["offered_rps"] for load in loads(tmp_path, text)] == [1.0, 2.0]
    with pytest.raises(PlaybookError, match=r"load-0\.json line 3: incomplete"):
        loads(tmp_path, text + json.dumps(vllm(completed=3)))


@pytest.mark.parametrize(
    ("burstiness", "word"), [("1.0", "poisson"), ("0.5", "gamma"), ("Infinity", "gamma")]
)
def test_the_source_names_how_requests_arrive(tmp_path: Path, burstiness: str, word: str) -> None:
    text = json.dumps(vllm()).replace('"burstiness": 1.0', f'"burstiness": {burstiness}')
    (row,) = capacity(tmp_path, text)
    assert row["basis"] == f"read from load-0.json (vllm bench serve, {word})"
    (row,) = capacity(tmp_path, guide(guide_load(rate(3.0))))
    assert row["basis"] == "read from load-0.json (GuideLLM 0.8.1, constant)"


# --- what comes of it


def test_open_loops_bound_the_capacity(tmp_path: Path) -> None:
    files = [vllm(request_rate=r, seconds=s) for r, s in [(8.0, 0.9), (2.0, 0.3), (4.0, 0.41)]]
    (row,) = capacity(tmp_path, *files, vllm(request_rate="inf", seconds=0.1))
    assert (row["low"], row["max_rps"], row["high"], row["p95_s"]) == (4.0, 4.0, 8.0, 0.41)
    assert (
        row["basis"]
        == "read from load-0.json, load-1.json, load-2.json (vllm bench serve, poisson)"
    )
    assert row["method"] == row["basis"]
    assert (row["n"], row["binds"], row["slo_s"]) == (600, "p95 latency", 0.5)


def test_limits_of_the_endpoint_bound_what_files_say(tmp_path: Path) -> None:
    files = [vllm(request_rate=r, seconds=s) for r, s in [(4.0, 0.41), (8.0, 0.9)]]
    limits: Json = {"requests_per_minute": 60}
    (row,) = capacity(tmp_path, *files, limits=limits)
    assert (row["low"], row["max_rps"], row["high"]) == (1.0, 1.0, 1.0)
    assert row["binds"] == "limits of the endpoint"
    (row,) = capacity(tmp_path, *files, limits={"requests_per_minute": 6000})
    assert (row["low"], row["high"], row["binds"]) == (4.0, 8.0, "p95 latency")


def test_a_rate_that_passed_above_one_that_failed_is_no_bound(tmp_path: Path) -> None:
    files = [vllm(request_rate=r, seconds=s) for r, s in [(2.0, 0.3), (4.0, 0.9), (8.0, 0.4)]]
    (row,) = capacity(tmp_path, *files)
    assert (row["low"], row["high"]) == (2.0, 4.0)


@pytest.mark.parametrize(
    ("bars", "verdict", "binds"),
    [
        ({"max_ttft_p95_s": 0.1, "max_itl_p95_s": 0.02}, "passed", ""),
        ({"max_ttft_p95_s": 0.07}, "failed", "TTFT"),
        ({"max_itl_p95_s": 0.01}, "failed", "inter-token latency"),
    ],
)
def test_objectives_on_tokens_hold_of_files_too(
    tmp_path: Path, bars: dict[str, float], verdict: str, binds: str
) -> None:
    for n, file in enumerate([vllm(p95_tpot_ms=15.0), guide(guide_load(
        rate(4.0), time_to_first_token_ms=spread(80.0), inter_token_latency_ms=spread(15.0)
    ))]):  # fmt: skip
        folder = tmp_path / str(n)
        folder.mkdir()
        project = brief(folder, file)
        needs = project.requirements.model_copy(update=bars)
        project = project.model_copy(update={"requirements": needs})
        (row,) = speed.load_results(project, project.deployments)
        assert (row["verdict"], row["binds"]) == (verdict, binds)
    # What the file does not tell is not known to be kept.
    folder = tmp_path / "untold"
    folder.mkdir()
    project = brief(folder, vllm(p95_ttft_ms=None))
    needs = project.requirements.model_copy(update={"max_ttft_p95_s": 9.0, "max_itl_p95_s": 9.0})
    project = project.model_copy(update={"requirements": needs})
    (row,) = speed.load_results(project, project.deployments)
    assert row["verdict"] == "unresolved"


@pytest.mark.parametrize(
    ("file", "bars", "verdict"),
    [
        # Of 800, 8 failed and p99 of the others is late: more than 5 % of all miss it.
        (vllm(n=800, failed=8, seconds=0.3), {"max_ttft_p95_s": 0.1}, "unresolved"),
        (vllm(n=800, failed=8, seconds=0.3), {"max_ttft_p95_s": 0.13}, "passed"),
        (guide(guide_load(rate(4.0), p95=0.3, counts=(792, 8, 0))), {"max_ttft_p95_s": 0.07},
         "unresolved"),
        (guide(guide_load(rate(4.0), p95=0.3, counts=(792, 8, 0))), {"max_ttft_p95_s": 0.1},
         "passed"),
        # Latency counts the client's queue, the time to the first token leaves it out.
        (guide(guide_load(rate(4.0, max_concurrency=4))), {"max_ttft_p95_s": 0.1}, "unresolved"),
        # 0 is that of no stream, and of answers of one token each.
        (vllm(p95_ttft_ms=0.0), {"max_ttft_p95_s": 0.1}, "unresolved"),
        (vllm(p95_tpot_ms=0.0), {"max_itl_p95_s": 0.1}, "unresolved"),
    ],
)  # fmt: skip
def test_objectives_on_tokens_hold_of_all_requests_or_are_not_known_to(
    tmp_path: Path, file: Json, bars: dict[str, float], verdict: str
) -> None:
    project = brief(tmp_path, file)
    needs = project.requirements.model_copy(update=bars)
    project = project.model_copy(update={"requirements": needs})
    (row,) = speed.load_results(project, project.deployments)
    assert row["verdict"] == verdict


def test_a_latency_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match="no p95 latency of whole requests"):
        loads(tmp_path, vllm(seconds=0.0))


def test_few_answers_show_no_p95(tmp_path: Path) -> None:
    """A p95 at the objective shows nothing: what is surely 95 % of so many must be within it."""
    verdicts = [loads(tmp_path, vllm(n=n))[0]["verdict"] for n in (100, 200)]
    assert verdicts == ["unresolved", "passed"]
    assert loads(tmp_path, vllm(n=200, seconds=0.45))[0]["verdict"] == "unresolved"
    assert loads(tmp_path, vllm(n=200, seconds=0.9))[0]["verdict"] == "failed"


def test_one_side_alone_is_one_bound(tmp_path: Path) -> None:
    (row,) = capacity(tmp_path, vllm())
    assert (row["low"], row["max_rps"]) == (4.0, 4.0) and math.isnan(row["high"])
    assert row["binds"] == ""
    (row,) = capacity(tmp_path, vllm(seconds=0.9))
    assert (row["low"], row["max_rps"], row["high"]) == (0.0, 0.0, 4.0)


def test_a_closed_loop_is_shown_and_is_no_capacity(tmp_path: Path) -> None:
    project = brief(tmp_path, vllm(request_rate="inf", max_concurrency=8))
    assert speed.capacity(project, NOTHING).empty
    results = speed.load_results(project, project.deployments)
    (row,) = speed.summarise(NOTHING, slo_s=0.5, results=results).to_dict("records")
    assert (row["verdict"], row["within_slo"], row["concurrency"]) == ("closed loop", False, 8)
    assert math.isnan(row["offered_rps"]) and row["p95_s"] == 0.4
    assert row["source"] == "load-0.json (vllm bench serve, concurrent, closed loop, from send)"


@pytest.mark.parametrize(
    ("counts", "p95", "p99", "verdict"),
    [
        ((200, 0, 0), 0.4, 9.9, "unresolved"),  # 200 do not show that 95 % of all are
        ((200, 0, 0), 0.4, 0.5, "passed"),
        ((198, 2, 0), 0.4, 9.9, "unresolved"),  # 95 % of all are 96 % of those answered
        ((198, 2, 0), 0.4, 0.4, "passed"),
        ((198, 0, 2), 0.4, 9.9, "unresolved"),
        ((189, 11, 0), 0.1, 0.1, "failed"),
        ((180, 0, 20), 0.1, 0.1, "unresolved"),  # cut at the end: it may have been answered
        ((180, 0, 20), 0.6, 0.7, "failed"),
    ],
)
def test_what_was_not_answered_counts_as_late(
    tmp_path: Path, counts: tuple[int, int, int], p95: float, p99: float, verdict: str
) -> None:
    latency = spread(p95, p99=p99)
    load = guide_load(rate(3.0), counts=counts, request_scheduled_latency=latency)
    assert loads(tmp_path, guide(load))[0]["verdict"] == verdict
    (row,) = capacity(tmp_path, guide(load))
    assert row["binds"] == {"failed": "errors" if counts[1] else "p95 latency"}.get(verdict, "")


@pytest.mark.parametrize(
    ("rps", "achieved", "p95", "counts", "verdict"),
    [
        (20.0, 3.9, 0.4, (200, 0, 0), "unresolved"),  # in 51 s, where 10 s and an answer would do
        (20.0, 17.0, 0.4, (200, 0, 0), "unresolved"),
        (20.0, 19.0, 0.4, (200, 0, 0), "passed"),
        (20.0, 18.5, 0.4, (792, 0, 8), "passed"),  # what was cut at the end was sent too
        (20.0, 3.9, 40.0, (200, 0, 0), "failed"),  # the server fell behind
        (20.0, 3.9, 0.4, (180, 20, 0), "failed"),  # the last waited for their time-out
    ],
)
def test_a_rate_that_was_never_sent_is_not_passed(
    tmp_path: Path,
    rps: float,
    achieved: float,
    p95: float,
    counts: tuple[int, int, int],
    verdict: str,
) -> None:
    speeds = spread(2 * achieved)
    file = guide(guide_load(rate(rps), p95=p95, counts=counts, requests_per_second=speeds))
    (load,) = loads(tmp_path, file)
    assert (load["achieved_rps"], load["verdict"]) == (achieved, verdict)
    (row,) = capacity(tmp_path, file)
    assert row["low"] == (rps if verdict == "passed" else 0.0)


@pytest.mark.parametrize(
    "file",
    [
        guide(guide_load(rate(3.0)) | warned("generation_delay_ttft")),
        guide(guide_load(rate(3.0)) | warned("root_late")),
        vllm(duration=70.0),  # of 50 s: not that many were sent a second
    ],
)
def test_a_client_that_was_late_decides_nothing(tmp_path: Path, file: Json) -> None:
    (row,) = capacity(tmp_path, file)
    assert row["disturbed"] and row["low"] == 0.0 and math.isnan(row["max_rps"])


# --- what is refused, by name and in one sentence


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (vllm(completed=120), "incomplete, 120 of 200 requests"),
        (vllm(n=200, failed=200, seconds=0.0, median_e2el_ms=0.0), "no request was answered"),
        (guide(guide_load(rate(1.0), p95=0.0, counts=(0, 9, 0))), "0: no request was answered"),
        (default_vllm(), "no p95 latency .*--metric-percentiles"),
        (guide(guide_load({"type_": "synchronous"}, request_latency=None)), "no p95 latency"),
        (guide(guide_load(rate(2.0), request_scheduled_latency=None)), "no p95 latency"),
        (vllm() | {"failed": None}, "failed must be a number from 0, not None"),
        (guide(guide_load(rate(1.0)) | warned("dataset_incomplete")), "benchmarks.0: incomplete"),
        (guide(), "benchmarks is empty"),
        (guide(guide_load(rate(1.0)), version=1), "metadata.version 1 is not read; known: 2"),
        (guide(guide_load({"type_": "trace"})), "'trace' has no one rate; known: constant"),
        (guide(guide_load({"type_": "constant"})), "config.strategy.rate must be a number"),
        (vllm(ramp_up_strategy="linear"), "ramp_up_strategy 'linear' has no one rate"),
        (vllm(request_rate="fast"), "request_rate must be a number from 0, not 'fast'"),
        (vllm(duration=60.0) | {"request_rate": 0.0}, "its rate is 0, at which nothing is offered"),
        (vllm(duration=None), "duration must be a number from 0, not None"),
        (vllm(duration=0), "its duration or achieved rate is 0, but it has answers"),
        (vllm(duration=0, request_rate="inf"), "its duration or achieved rate is 0"),
        (guide(guide_load(rate(1.0), requests_per_second=spread(0.0))), "achieved rate is 0"),
        *[(vllm(**c), "its counts of requests are not whole, or do not add up") for c in (
            {"num_prompts": 199.5}, {"completed": 199.5, "failed": 0.5}, {"completed": 201},
            {"num_prompts": 200.5, "completed": 200.5},
        )],
        (guide(guide_load(rate(1.0), counts=(199.5, 0, 0))), "0: its counts .* not whole"),
        (vllm(num_prompts=300.5), "incomplete, 200 of 300.5 requests"),
        (vllm(p95_e2el_ms="400"), "p95_e2el_ms must be a number from 0, not '400'"),
        (vllm(p95_e2el_ms=-1.0), "p95_e2el_ms must be a number from 0, not -1"),
        (vllm(model_id="/models/other-7b"), "model '/models/other-7b', but 'd' is of acme/d"),
        (guide(guide_load(rate(1.0)), model="acme/e"), "of the model 'acme/e'"),
        ({"aiperf_version": "0.13.0", "request_latency": {"unit": "ms"}}, "unknown format"),
        ([{"name": "x"}], "unknown format; load_results are JSON of GuideLLM"),
        ("", "unknown format"),
        (json.dumps(vllm())[:-40], "not whole JSON, as of a run that was stopped"),
        ("[" * 100_000, "not whole JSON"),
    ],
)  # fmt: skip
def test_what_decides_nothing_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(PlaybookError, match=rf"load-0\.json.*{said}") as told:
        loads(tmp_path, content)
    assert "\n" not in str(told.value) and len(str(told.value)) < 400


def test_a_missing_file_and_another_name_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(PlaybookError, match=r"gone\.json: no such file; load_results names it"):
        loads(tmp_path)
    assert loads(tmp_path, vllm(model_id="/models/D"))
    alias = {"base_url": "http://h/v1", "model": "our-alias"}
    assert loads(tmp_path, vllm(model_id="our-alias"), endpoint=alias)


@pytest.mark.parametrize("hostile", [{"code": []}, [], "x", None, 7])
def test_hostile_parts_are_nothing(tmp_path: Path, hostile: Any) -> None:
    loads(tmp_path, guide(guide_load(rate(1.0)) | {"warnings": [hostile]}))
    loads(tmp_path, vllm(latencies=[hostile] * 200, queue_times=[hostile] * 200, errors=hostile))
    for key in ("metrics", "config"):
        with pytest.raises(PlaybookError, match="load-0"):
            loads(tmp_path, guide(guide_load(rate(1.0)) | {key: hostile}))


# --- in the brief and its run


def test_one_file_or_a_list_and_never_beside_published(tmp_path: Path) -> None:
    assert brief(tmp_path, load_results="a.json").deployments[0].load_results == ["a.json"]
    assert "load_results" not in measured_brief().deployments[0].model_dump(), "hashes as before"
    figures = {"quality": 0.9, "max_rps": 2.0, "source": "x", "checked_on": "2026-01-01"}
    with pytest.raises(ValueError, match="give published or load_results, not both"):
        brief(tmp_path, vllm(), published=figures)


def test_the_brief_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"id": "1", "input": "x", "target": "y"}\n')
    problems = preflight.problems(brief(tmp_path, default_vllm()))
    assert any("load-0.json: no p95 latency" in problem for problem in problems)
    assert not any("load-0" in problem for problem in preflight.problems(brief(tmp_path, vllm())))


def test_nothing_is_sent(tmp_path: Path) -> None:
    project = brief(tmp_path, vllm())
    items = pd.DataFrame([{"item_id": "i", "input": "x", "target": "y"}])
    (row,) = speed.dry_run(project, items, project.deployments, tmp_path).to_dict("records")
    assert (row["calls"], row["basis"]) == (0, "read from load-0.json")
    assert speed.measure(project, items, project.deployments, tmp_path, progress=False).empty


def test_only_step_5_stands_on_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "problems", lambda _: [])
    monkeypatch.setenv("SOME_API_KEY", "x")
    steps = Steps(tmp_path)
    for step in ("01", "02", "03", "04", "05"):
        steps.go(step)
    unread = steps.stale()
    (tmp_path / "vllm.json").write_text(json.dumps(vllm()))
    steps.write("deployments.0.load_results", "vllm.json")
    assert set(steps.stale()) - set(unread) == {"06"} and "another load" in steps.stale()["06"]
    steps.go("05")
    assert "vllm.json" in artifacts.inputs(steps.run) and not steps.stale()
    (tmp_path / "vllm.json").write_text(json.dumps(vllm(failed=1)))
    assert "step 05" in steps.stale()["06"] and "another vllm.json" in steps.stale()["06"]


@pytest.mark.parametrize("basis", ["measured here", "recorded (old.jsonl)"])
@pytest.mark.parametrize(
    ("min_rps", "rps", "p95"),
    [(4.0, "met", "met"), (5.0, "not decided", "not decided"), (8.0, "not met", "not decided")],
)
def test_a_requirement_is_met_only_where_the_bound_meets_it(
    tmp_path: Path, basis: str, min_rps: float, rps: str, p95: str
) -> None:
    files = [vllm(request_rate=r, seconds=s) for r, s in [(4.0, 0.41), (8.0, 0.9)]]
    project = brief(tmp_path, *files, price={"usd_per_hour": 3.6}, hardware=None)
    bounds = speed.capacity(project, NOTHING)
    answers = pd.DataFrame(columns=["deployment", "outcome", "prompt_tokens", "completion_tokens"])
    cost = costs.cost(project, bounds, answers, tables.hardware())
    # At full use: $3.6 an hour at no less than 4 requests a second.
    assert cost[["rps", "rps_most"]].to_numpy().tolist() == [[4.0, 8.0]]
    assert cost["usd_per_1k_high"].tolist() == [0.25]
    scores = table(d={"basis": basis})[["deployment", "metric", "basis", "comparable", "standing"]]
    scores = scores.assign(against_baseline="", n=100, n_failed=0, primary=True)
    scores = scores.assign(repo_id="acme/d", value=0.9, low=0.85, high=0.95)
    pairs = pd.DataFrame(columns=artifacts.COLUMNS["04_pairs"].split())
    both = decision.tradeoffs(scores, bounds, cost, pairs)
    read = "read from load-0.json, load-1.json (vllm bench serve, poisson)"
    assert both["basis"].tolist() == [f"{basis}, load {read}"]
    checks = decision.check(both, Requirements(max_p95_s=0.5, min_rps=min_rps, max_usd_per_1k=0.25))
    notes = checks[checks["verdict"] == "not decided"]["note"]
    assert set(notes) <= {
        "the interval is too wide: an open loop nearer to it, in load_results, would do"
    }
    verdicts = checks.set_index("requirement")["verdict"].to_dict()
    assert verdicts == {"max_p95_s": p95, "min_rps": rps, "max_usd_per_1k": "met"}


def test_a_run_whose_capacity_comes_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded project through all notebooks: one is loaded, two are read from files."""
    monkeypatch.setenv("PLAYBOOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    for name in ("items.jsonl", "closed.jsonl"):
        shutil.copy(recording.HERE / name, tmp_path)
    raw = yaml.safe_load((recording.HERE / "project.yaml").read_text("utf-8"))
    by_name = {deployment["name"]: deployment for deployment in raw["deployments"]}
    by_name["gemma-3-270m"]["load_results"] = ["vllm-3.json", "vllm-9.json"]
    by_name["ministral-3-3b"]["load_results"] = "benchmarks.json"
    (tmp_path / "project.yaml").write_text(yaml.safe_dump(raw), "utf-8")
    for rps, seconds in ((3.0, 1.2), (9.0, 4.0)):
        run = vllm(request_rate=rps, seconds=seconds, model_id="google/gemma-3-270m")
        (tmp_path / f"vllm-{rps:g}.json").write_text(json.dumps(run))
    closed = guide_load({"type_": "concurrent", "streams": 8})
    report = guide(closed, model="mistralai/Ministral-3-3B-Instruct-2512")
    (tmp_path / "benchmarks.json").write_text(json.dumps(report))
    recording.place(run_dir := artifacts.run_directory("recorded"))
    shown = list[str]()
    for path in recording.NOTEBOOKS:
        names: Json = {"display": lambda *values: None}
        for cell in recording.copied(path).cells:
            body = ast.parse(cell.source).body
            last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
            exec(compile(ast.Module(body, []), path.name, "exec"), names)
            if last:
                shown.append(
                    repr(eval(compile(ast.Expression(last.value), path.name, "eval"), names))
                )
    text = "\n".join(shown)
    assert "Load was offered to 1 of 4 deployments." in text
    for source in (
        "vllm-3.json (vllm bench serve, poisson, open loop, from send)",
        "benchmarks.json (GuideLLM 0.8.1, concurrent, closed loop, from send)",
        "read from vllm-3.json, vllm-9.json (vllm bench serve, poisson)",
    ):
        assert source in text, text
    loads = artifacts.load(run_dir, "05_speed").set_index("deployment")
    assert set(loads["source"].loc["smollm2-135m"]) == {""}
    assert loads["verdict"].loc["gemma-3-270m"].tolist() == ["passed", "failed"]
    bounds = artifacts.load(run_dir, "05_capacity").set_index("deployment")
    assert "ministral-3-3b" not in bounds.index
    assert bounds.loc["gemma-3-270m", ["low", "high"]].tolist() == [3.0, 9.0]
    record = json.loads((run_dir / artifacts.RECORD).read_text("utf-8"))
    checks = {(c["deployment"], c["requirement"]): c["verdict"] for c in record["requirements"]}
    assert checks["gemma-3-270m", "min_rps"] == checks["gemma-3-270m", "max_p95_s"] == "met"
    assert checks["ministral-3-3b", "min_rps"] == "not decided"
    read = "read from vllm-3.json, vllm-9.json (vllm bench serve, poisson)"
    assert f"The load of gemma-3-270m is {read}: not measured here." in record["unverified"]
    assert any(f"measured here, load {read}" in line for line in record["basis"])
    assert {"vllm-3.json", "vllm-9.json", "benchmarks.json"} <= set(record["inputs"])
