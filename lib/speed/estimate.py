"""What the loads of a deployment show: its capacity, by the model if confirmed, else measured."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import linregress, norm, t

from lib.brief import Limits
from lib.speed import queue_model
from lib.speed.queue_model import MISSES, Floats, Queues
from lib.tables import Row

TAIL = 0.02  # outside the interval, on each side
SMALL = 100  # requests, of which a bootstrap sees about half of what varies: tails are rare
LEAST = 60  # answers that a model is fitted to
FAILING = 0.01  # of the requests, from which on no model of latencies holds
PARTS = 10  # of a load, to see how misses and backlog scatter
NORMAL_99, T_99 = norm.ppf(0.99), t.ppf(0.99, PARTS - 1)
LATE_S, LATE_SHARE = 0.02, 0.1  # how late a send may be, or as a share of the median latency
WAITED = 0.2  # of the time that a local server's threads would have worked, without a processor
LONG = 2000  # tokens of a request that neither bounds nor counts them
REPEATS = 2  # disturbed loads that are made again


class Answer(NamedTuple):
    """The rate at which 5 % miss the SLO; with an infinite `high` it is at least `low`."""

    low: float
    middle: float
    high: float
    method: str  # modelled, modelled and confirmed, or measured


def assess(loads: list[Row], slo_s: float, ttft_s: float | None = None) -> Answer:
    """The capacity by the model, or where loads contradict it by these alone.

    With an objective on the first token the queue before it bears what it bears, too.
    """
    # Between the greatest load that passed and the least that failed; as a load ends before a
    # backlog of one SLO shows, what passed bears a little less for good.
    rated = [(float(load["offered_rps"]), verdict(load, slo_s)[0], load) for load in loads]
    least = min((rate for rate, word, _ in rated if word == "failed"), default=math.inf)
    most = 0.0
    for rate, word, load in rated:
        if word == "passed" and rate < least:
            unseen = slo_s / load["requests"][-1]["due_s"] if least < math.inf else 0.0
            most = max(most, rate / (1 + unseen))
    middle = math.sqrt((most or least / 4) * least) if least < math.inf else most
    measured = Answer(most, middle, least, "measured")
    outcomes = [r["outcome"] for load in loads for r in load["requests"]]
    failed = outcomes.count("failed") > FAILING * len(outcomes)
    if failed or outcomes.count("ok") < LEAST:
        return measured
    rng = np.random.default_rng(1)
    limits = {"latency_s": slo_s} | ({"ttft_s": ttft_s} if ttft_s else {})
    fits = [(queue_model.drawn_queues(*_one_clock(loads, of), rng), s) for of, s in limits.items()]
    rates = np.min([queue_model.bearable_rates(*one, rng) for one in fits], axis=0)
    low, middle, high = np.quantile(rates, [TAIL, 0.5, 1 - TAIL], method="nearest").tolist()
    if middle < math.inf:
        wider = 1 + SMALL / len(outcomes)
        low, high = (middle * (bound / middle) ** wider for bound in (low, high))
    if high == math.inf:  # beyond all that was seen
        low = min(low, max(map(throughput, loads)))
    # No queue says how far apart tokens come: a load below that misses it contradicts the model.
    slow = [[r.get("slow") == "inter-token latency" for r in load["requests"]] for load in loads]
    far = [load["offered_rps"] for load, s in zip(loads, slow, strict=True) if np.mean(s) > MISSES]
    # Nor may a load have more or fewer late than the model, which is wrong there.
    contradicted = low > least or min(far, default=math.inf) <= high
    if contradicted or any(_unlike(load, fits, slo_s) for load in loads):
        return measured
    probes = any(load["purpose"] == "probe" for load in loads)
    return Answer(low, middle, high, "modelled and confirmed" if probes else "modelled")


def _unlike(load: Row, fits: list[tuple[Queues, float]], slo_s: float) -> bool:
    """Whether more or fewer requests of a load were late than these queues would have had late."""
    due = np.array([r["due_s"] for r in load["requests"]])
    late = np.max([queue_model.late_shares(queues, due, s) for queues, s in fits], axis=0)
    few, many = np.quantile(late, [TAIL, 1 - TAIL]).tolist()
    few -= NORMAL_99 * math.sqrt(few * (1 - few) / len(due))
    many += NORMAL_99 * math.sqrt(max(many * (1 - many), MISSES * (1 - MISSES)) / len(due))
    return not few <= late_requests(load, slo_s).mean() <= many


def _one_clock(loads: list[Row], until: str = "latency_s") -> tuple[Floats, Floats]:
    """When the requests that were taken came and went, with pauses between loads."""
    came, went, start = list[float](), list[float](), 0.0
    for load in loads:
        for request in load["requests"]:
            if request["outcome"] == "ok":
                came.append(start + request["due_s"])
                went.append(came[-1] + max(request[until], 1e-4))
        start = max(went, default=0.0) + 1.0
    return np.array(came), np.array(went)


def late_requests(record: Row, slo_s: float) -> Floats:
    """1 for each request that failed or was late, in latency or by an objective on its tokens."""
    return np.array([bool(reasons(request, slo_s)) for request in record["requests"]], float)


def reasons(request: Row, slo_s: float) -> list[str]:
    """Why a request missed the objectives: errors, TTFT, inter-token latency, p95 latency."""
    if request["outcome"] == "failed":
        return ["errors"]
    late = request["outcome"] != "ok" or request["latency_s"] > slo_s
    slow = request.get("slow") or ""  # an objective on tokens that it missed
    return [slow] * bool(slow) + ["p95 latency"] * late


def verdict(record: Row, slo_s: float) -> tuple[str, float]:
    """Whether a load passed, failed or is unresolved, and how its backlog grew.

    A backlog that grows by more than its error fails whatever the latencies.
    """
    late = late_requests(record, slo_s)
    due = np.array([r["due_s"] for r in record["requests"]])
    latency = np.array([r["latency_s"] for r in record["requests"]])
    times = np.linspace(0, due[-1], 10 * PARTS, endpoint=False)
    inside = np.sum((due[:, None] <= times) & (times < (due + latency)[:, None]), axis=0)
    slope = linregress(np.arange(PARTS), inside.reshape(PARTS, -1).mean(1))
    growth = float(slope.slope * PARTS)
    grows = slope.pvalue < 1e-4 and growth > max(2.0, inside.mean() / 2)
    # Misses follow each other: they scatter as their parts do, and no less than single ones would.
    shares = [part.mean() for part in np.array_split(late, PARTS)]
    alone = NORMAL_99 * math.sqrt(MISSES * (1 - MISSES) / len(late))
    error = max(T_99 * float(np.std(shares, ddof=1)) / math.sqrt(PARTS), alone)
    if record["stopped"] or grows or late.mean() - error > MISSES:
        return "failed", growth
    return ("passed" if late.mean() + error <= MISSES else "unresolved"), growth


def conclusive_loads(done: list[Row]) -> list[Row]:
    """Loads to conclude from: disturbed ones are made again, unless there are too many."""
    quiet = [record for record in done if not disturbance(record)]
    return quiet if len(done) - len(quiet) <= REPEATS else done


def disturbance(record: Row) -> bool:
    """Whether a load's server waited for a processor, or its client could not keep to schedule."""
    late = np.quantile([r["late_s"] for r in record["requests"]], 0.99)
    usual = np.median([r["latency_s"] for r in record["requests"]])
    unpunctual = late > max(LATE_S, LATE_SHARE * usual)
    return bool(record["offered_rps"] and (unpunctual or record["waited"] > WAITED))


def allowed_rps(limits: Limits, *, calls: float, tokens: float) -> float:
    """The requests a second that an endpoint allows, where each takes so many calls and tokens."""
    by_calls, by_tokens = limits.requests_per_minute, limits.tokens_per_minute
    return min((by_calls or math.inf) / calls, (by_tokens or math.inf) / tokens) / 60


def tokens_taken(requests: list[Row], otherwise: float) -> float:
    """The mean tokens of those that counted them, read and written."""
    counts = pd.DataFrame(requests).reindex(columns=["prompt_tokens", "completion_tokens"])
    mean = float(counts.astype(float).sum(axis=1, skipna=False).mean())
    return mean if mean > 0 else otherwise


def throughput(record: Row) -> float:
    """Answers a second until the last one."""
    ends = [r["due_s"] + r["latency_s"] for r in record["requests"] if r["outcome"] == "ok"]
    return len(ends) / max(*ends, 1e-4) if ends else 0.0
