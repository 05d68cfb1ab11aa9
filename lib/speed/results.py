"""Loads that other tools offered: result files of GuideLLM and of `vllm bench serve`.

In an open loop requests leave on schedule, so its rates bound the capacity. A closed loop (a fixed
number in flight, or all at once) slows down with its server: it is shown and bounds nothing. A
`constant` rate is easier to bear than Poisson arrivals, so the source names it. No file says on
which machine or at which revision it was made, or whether a cache answered: who names it vouches.
"""

import json
import math
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from lib.artifacts import path_name
from lib.brief import Deployment, Project, Requirements
from lib.errors import PlaybookError
from lib.speed.estimate import NORMAL_99
from lib.speed.queue_model import MISSES
from lib.tables import Row
from lib.untrusted import as_dict, as_list, as_number, as_text

NAN = math.nan
OPEN, CLOSED = ("constant", "poisson"), ("synchronous", "concurrent", "throughput")
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999}  # GuideLLM's p01 is 1 %, p001 0.1 %
LATE_CLIENT = {"generation_delay_ttft", "root_late"}  # GuideLLM warns: the client was the limit
TOKENS = {"time_to_first_token_ms": "ttft", "inter_token_latency_ms": "itl"}
TOKENS["time_to_first_output_token_ms"] = "ttft_content"
TAILS = ("p95", "p99")
LATE = 1.1  # times as long as its schedule
LEAST = 59  # answers, of which the p95 has an upper bound


def load_results(brief: Project, deployments: list[Deployment]) -> list[Row]:
    """The loads in the `load_results` of deployments, as rows of `05_speed`.

    `loop` is `open` or `closed`, and only an open one has `offered_rps`; `latency_from` is
    `schedule` or `send`; `stopped_early` says that requests were cut off. A request that failed or
    was cut counts as never answered: `passed` means that 95 % of all were within the objective.
    PlaybookError where a file is no whole result of either tool, is of another model, has no p95,
    or has a load without any answer.
    """
    loads = []
    for deployment in deployments:
        served = deployment.endpoint and deployment.endpoint.model
        names = {_last(name) for name in (deployment.model, served) if name}
        for file in deployment.load_results:
            where = path_name(brief.folder / file)
            for load in _read(brief.folder / file, where):
                if load["model"] and _last(load["model"]) not in names:
                    what = f"of the model {load['model']!r}, but {deployment.name!r} is of"
                    hint = "if that is its name there, make it endpoint.model"
                    raise PlaybookError(f"{where}: {what} {deployment.model}; {hint}")
                how = f"{load['tool']}, {load['loop']} loop, from {load['latency_from']}"
                verdict, binds = _verdict(load, brief.requirements)
                who = {"deployment": deployment.name, "repo_id": deployment.model, "file": file}
                says = {"verdict": verdict, "binds": binds, "within_slo": verdict == "passed"}
                loads.append(load | who | says | {"source": f"{file} ({how})"})
    return loads


def bound(loads: list[Row], slo_s: float) -> Row:
    """The capacity by the rows of a deployment, as one of `05_capacity`; {} of closed loops alone.

    It is at least the highest rate that passed below all that failed, which is also `max_rps`, and
    at most the lowest that failed: between them nothing was measured.
    """
    loads = [one for one in loads if one["loop"] == "open"]
    if not loads:
        return {}
    files, tools = (", ".join(dict.fromkeys(one[of] for one in loads)) for of in ("file", "tool"))
    loads.sort(key=lambda one: float(one["offered_rps"]))
    failed = next((one for one in loads if one["verdict"] == "failed"), None)
    high = failed["offered_rps"] if failed else math.inf
    passed = [one for one in loads if one["verdict"] == "passed" and one["offered_rps"] < high]
    low, basis = passed[-1]["offered_rps"] if passed else 0.0, f"read from {files} ({tools})"
    bounds = {"max_rps": low if passed or failed else NAN, "low": low, "binds": ""}
    bounds |= {"high": high, "binds": failed["binds"]} if failed else {}
    p95s = {of: passed[-1].get(of, NAN) for of in ("p95_s", "ttft_p95_s", "itl_p95_s") if passed}
    who = {of: loads[0][of] for of in ("deployment", "repo_id")}
    how = {"n": sum(one["n"] for one in loads), "basis": basis, "method": basis, "slo_s": slo_s}
    return who | bounds | p95s | how | {"disturbed": any(one["disturbed"] for one in loads)}


def _verdict(load: Row, needs: Requirements) -> tuple[str, str]:
    """As of a load of our own, but by percentiles, and which objective a failed one misses.

    What was late, or the client held up, or has too few answers to bound a p95, is unresolved.
    """
    if load["loop"] == "closed":
        return "closed loop", ""
    if load["disturbed"]:
        return "unresolved", ""
    if load["errors"] > MISSES * load["n"]:
        return "failed", "errors"
    p95s = {
        "p95 latency": (load["p95_s"], needs.slo_s),
        "TTFT": (load["ttft_p95_s"], needs.max_ttft_p95_s),
        "inter-token latency": (load["itl_p95_s"], needs.max_itl_p95_s),
    }
    objectives = {noun: (p95, most) for noun, (p95, most) in p95s.items() if most}
    if missed := [noun for noun, (p95, most) in objectives.items() if p95 > most]:
        return "failed", missed[0]
    # So many of those answered are surely 95 % of all: the next percentile that the file has.
    share = (1 - MISSES) * load["n"] / load["answered"]
    share += NORMAL_99 * math.sqrt(MISSES * (1 - MISSES) / load["n"])
    all_s = min((s for q, s in load["seconds"].items() if q > share - 1e-9), default=math.inf)
    unknown = load["late"] or any(math.isnan(p95) for p95, _ in objectives.values())
    if load["answered"] < load["n"]:  # of tokens that is p99, where there is one
        tails = {"TTFT": load["ttft_p99_s"], "inter-token latency": load["itl_p99_s"]}
        kept = [share <= 0.99 and tails[n] <= objectives[n][1] for n in tails if n in objectives]
        unknown |= not all(kept)
    passes = all_s <= needs.slo_s and load["answered"] >= LEAST and not unknown
    return ("passed" if passes else "unresolved"), ""


def _last(name: str) -> str:
    """The last part of a model's name, which a local path shares with its repository."""
    return name.rstrip("/").rpartition("/")[2].casefold()


def _read(path: Path, where: str) -> Iterator[Row]:
    """The loads of a file: one document, or one a line as `--append-result` writes them."""
    try:
        text = path.read_text("utf-8-sig")
        try:
            documents = [json.loads(text)]
        except json.JSONDecodeError:
            documents = [json.loads(line) for line in text.splitlines() if line.strip()]
    except OSError:
        raise PlaybookError(f"{where}: no such file; load_results names it") from None
    except (ValueError, RecursionError):
        raise PlaybookError(f"{where}: not whole JSON, as of a run that was stopped") from None
    for line, document in enumerate(documents or [None], start=1):
        place = f"{where} line {line}" if len(documents) > 1 else where
        keys = as_dict(document).keys()
        if "benchmarks" not in keys and not {"request_rate", "completed"} <= keys:
            ways = "GuideLLM (--output kind=json) or vllm bench serve (--save-result)"
            raise PlaybookError(f"{place}: unknown format; load_results are JSON of {ways}")
        yield from (_guidellm if "benchmarks" in keys else _vllm)(document, place)


def _at(value: Any, key: str) -> Any:
    """What a dotted key holds."""
    for part in key.split("."):
        value = as_dict(value).get(part)
    return value


def _number(document: Row, where: str, key: str, default: float | None = None) -> float:
    """The number at a dotted key, or the default; PlaybookError where there is neither."""
    value = _at(document, key)
    number = default if value is None else as_number(value)
    if number is None or number < 0:
        raise PlaybookError(f"{where}: {key} must be a number from 0, not {value!r:.80}")
    return number


def _tokens_s(milliseconds: float, *, whole: bool = True) -> float:
    """A percentile of tokens in seconds, missing where it is 0, as of no token, or not `whole`."""
    return milliseconds / 1000 if milliseconds and whole else NAN


def _load(
    where: str, tool: str, counts: list[float], seconds: dict[float, float], *,
    rate: float, took_s: float,
) -> Row:  # fmt: skip
    """What both tools tell of a load: who answered, failed and was cut, and latencies by share."""
    answered, errors, cut = map(int, counts)
    if counts != [answered, errors, cut] or cut < 0:
        raise PlaybookError(f"{where}: its counts of requests are not whole, or do not add up")
    if not answered:
        raise PlaybookError(f"{where}: no request was answered, so its latencies are none")
    if not rate:
        raise PlaybookError(f"{where}: its rate is 0, at which nothing is offered")
    if not took_s:
        raise PlaybookError(f"{where}: its duration or achieved rate is 0, but it has answers")
    seconds = {share: s for share, s in seconds.items() if s > 0}
    if 0.95 not in seconds:
        way = "run vllm bench serve with --percentile-metrics ttft,e2el --metric-percentiles 95,99"
        raise PlaybookError(f"{where}: no p95 latency of whole requests, and p99 is none; {way}")
    n, loop = answered + errors + cut, "closed" if math.isnan(rate) else "open"
    how = {"tool": tool, "loop": loop, "offered_rps": rate, "stopped_early": cut > 0}
    told: Row = {"n": n, "answered": answered, "errors": errors, "seconds": seconds}
    told |= {"p50_s": seconds.get(0.5, NAN), "p95_s": seconds[0.95]}
    return how | told | {"late": took_s > LATE * n / rate + max(seconds.values())}


def _guidellm(report: Row, where: str) -> Iterator[Row]:
    """The loads of a GuideLLM report; latencies are seconds, what ends in `_ms` milliseconds."""
    if (version := _at(report, "metadata.version")) != 2:
        raise PlaybookError(f"{where}: metadata.version {version!r:.80} is not read; known: 2")
    if not as_list(report["benchmarks"]):
        raise PlaybookError(f"{where}: benchmarks is empty, as of a run that was stopped")
    tool = f"GuideLLM {as_text(_at(report, 'metadata.guidellm_version')) or 'without version'}"
    for number, benchmark in enumerate(map(as_dict, report["benchmarks"])):
        here = f"{where} benchmarks.{number}"
        get = partial(_number, benchmark, here)
        kind = _at(benchmark, "config.strategy.type_")
        if kind not in OPEN + CLOSED:
            reason = f"has no one rate; known: {', '.join(OPEN + CLOSED)}"
            raise PlaybookError(f"{here}: config.strategy.type_ {kind!r:.80} {reason}")
        codes = {as_text(_at(one, "code")) for one in as_list(benchmark.get("warnings"))}
        if "dataset_incomplete" in codes:
            raise PlaybookError(f"{here}: incomplete, its data ended before the run did")
        # Only what runs on a schedule has latencies from it.
        of, is_open = "metrics.{}.successful.{}".format, kind in OPEN
        name = "request_scheduled_latency" if is_open else "request_latency"
        seconds = {q: get(of(name, f"percentiles.{p}"), NAN) for p, q in SHARES.items()}
        words = ("successful", "errored", "incomplete")
        counts = [get(f"metrics.request_totals.{word}") for word in words]
        rate = get("config.strategy.rate") if is_open else NAN
        achieved = get(of("requests_per_second", "mean"))
        took_s = achieved and counts[0] / achieved
        load = _load(here, f"{tool}, {kind}", counts, seconds, rate=rate, took_s=took_s)
        cap = get("config.strategy.max_concurrency", get("config.strategy.streams", NAN))
        queued = is_open and not math.isnan(cap)  # in the client, which no time to a token counts
        for (name, stem), p in product(TOKENS.items(), TAILS):
            figure = get(of(name, f"percentiles.{p}"), NAN)
            load[f"{stem}_{p}_s"] = _tokens_s(figure, whole=stem == "itl" or not queued)
        yield load | {
            "model": as_text(_at(report, "config.spec.backend.model")),
            "latency_from": "schedule" if is_open else "send",
            "achieved_rps": achieved,
            "concurrency": cap,
            "prompt_tokens": get(of("prompt_token_count", "mean"), NAN),
            "completion_tokens": get(of("output_token_count", "mean"), NAN),
            "disturbed": bool(codes & LATE_CLIENT),
        }


def _vllm(run: Row, where: str) -> Iterator[Row]:
    """The load of a `vllm bench serve` file: arrays are seconds, `_ms` at the end milliseconds."""
    get = partial(_number, run, where)
    if (ramp := run.get("ramp_up_strategy")) is not None:
        raise PlaybookError(f"{where}: ramp_up_strategy {ramp!r:.80} has no one rate; leave it out")
    wanted, answered, failed = get("num_prompts"), get("completed"), get("failed")
    if (left := wanted - answered - failed) > 0:
        raise PlaybookError(f"{where}: incomplete, {answered + failed:g} of {wanted:g} requests")
    at_once, cap = run["request_rate"] in ("inf", math.inf), get("max_concurrency", NAN)
    # Where it limits how many are in flight, they wait in the client: a closed loop.
    rate = get("request_rate") if math.isnan(cap) and not at_once else NAN
    # The percentiles that it was told to write, or those of its arrays, where a failed request has
    # a place too, without a time or with an error.
    keys = {0.5: "median", 0.95: "p95", 0.99: "p99"}
    seconds = {share: get(f"{key}_e2el_ms", NAN) / 1000 for share, key in keys.items()}
    times, errors = as_list(run.get("latencies")), as_list(run.get("errors"))
    each = zip(times, errors or [""] * len(times), strict=False)
    clean = [float(s) for s, error in each if as_number(s) and not error]
    if len(clean) == answered:
        shares = (0.5, 0.95, 0.96, 0.97, 0.98, 0.99, 0.999, 1.0)
        seconds = {q: float(np.quantile(clean or NAN, q, method="inverted_cdf")) for q in shares}
    arrivals = "poisson" if run.get("burstiness", 1) == 1 else "gamma"
    tool = f"vllm bench serve, {'concurrent' if math.isnan(rate) else arrivals}"
    load = _load(where, tool, [answered, failed, left], seconds, rate=rate, took_s=get("duration"))
    yield load | {
        "model": as_text(run.get("model_id")),
        "latency_from": "send",
        "achieved_rps": get("request_throughput"),
        "concurrency": cap,
        **{f"ttft_{p}_s": _tokens_s(get(f"{p}_ttft_ms", NAN)) for p in TAILS},
        **{f"itl_{p}_s": _tokens_s(get(f"{p}_tpot_ms", NAN)) for p in TAILS},
        "prompt_tokens": get("total_input_tokens", NAN) / answered,
        "completion_tokens": get("total_output_tokens", NAN) / answered,
        "disturbed": load["late"],  # no latency from the send shows it
    }
