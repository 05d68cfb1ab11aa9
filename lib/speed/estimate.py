"""What the loads of a deployment show: its capacity, by the model if confirmed, else measured."""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import beta, linregress

from lib import stats
from lib.speed import queue_model
from lib.speed.queue_model import MISSES, Floats

Record = dict[str, Any]
Bounds = tuple[float, float, float]
N_DRAWS, LENGTH = 100, 3000
TAIL = 0.02  # outside the interval, on each side
LEAST = 20  # answers that a model is fitted to
FAILING = 0.01  # of the requests, from which on no model of latencies holds
DOUBT = 3.5  # standard deviations, by which no figure of an open loop is off by luck
ENDS = np.array([0.0, 1.0])  # what Clopper and Pearson add to misses, for either bound
PARTS = 10  # of a load, to see how misses and backlog scatter
LATE_S, LATE_SHARE = 0.02, 0.1  # how late a send may be, or as a share of the median latency
WAITED = 0.2  # of the time that a local server's threads would have worked, without a processor
REPEATS = 3  # disturbed loads that are made again


class Answer(NamedTuple):
    """The rate at which 5 % miss the SLO; with an infinite `high` it is at least `low`."""

    low: float
    middle: float
    high: float
    method: str  # modelled and confirmed, or measured
    drawn: queue_model.Draws | None = None


def assess(records: list[Record], slo_s: float) -> Answer:
    """The capacity by all loads after the warm-up."""
    rng, loads = np.random.default_rng(1), [r for r in records if r["offered_rps"]]
    outcomes = [r["outcome"] for load in loads for r in load["requests"]]
    if outcomes.count("ok") >= LEAST and outcomes.count("failed") <= FAILING * len(outcomes):
        longest = max(len(load["requests"]) for load in loads)
        drawn = queue_model.draws(_seen(loads), N_DRAWS, max(LENGTH, 2 * longest), rng)
        if all(_explained(drawn, load, slo_s, rng) for load in loads):
            rates = queue_model.bearable(drawn, slo_s, rng)
            low, middle, high = np.quantile(rates, [TAIL, 0.5, 1 - TAIL], method="nearest")
            if high == math.inf:  # beyond all that was seen
                low = min(low, max(map(throughput, loads)))
            return Answer(low, middle, high, "modelled and confirmed", drawn)
    # Between the greatest load that passed and the least that failed.
    verdicts = [(load["offered_rps"], verdict(load, slo_s)[0]) for load in loads]
    high = min((rate for rate, word in verdicts if word == "failed"), default=math.inf)
    low = max((rate for rate, word in verdicts if word == "passed" and rate < high), default=0.0)
    return Answer(low, math.sqrt(low * high) if high < math.inf else low, high, "measured")


def _seen(records: list[Record]) -> queue_model.Seen:
    """All requests that the server took, on one clock with pauses between loads."""
    rows, start = list[tuple[float, float, bool]](), 0.0
    for record in records:
        for r in record["requests"]:
            came = start + r["due_s"]
            rows.append((came, came + max(r["latency_s"], 1e-4), r["outcome"] == "ok"))
        start = max(went for _, went, _ in rows) + 1.0
    came, went, answered = map(np.array, zip(*rows, strict=True))
    return queue_model.Seen(came, went, answered)


def _explained(
    drawn: queue_model.Draws, probe: Record, slo_s: float, rng: np.random.Generator
) -> bool:
    """Whether the model, sent the same schedule, sees such misses, latencies and backlog."""
    due, real = (np.array([r[key] for r in probe["requests"]]) for key in ("due_s", "latency_s"))
    n, lanes = len(due), len(drawn.shapes)
    first = rng.integers(0, drawn.work.shape[1] - n + 1, (lanes, 1))
    work = np.take_along_axis(drawn.work, first + np.arange(n), axis=1)
    model = queue_model.simulate(np.tile(due, (lanes, 1)), work, drawn.shapes)
    model = np.minimum(model, due[-1] + 3 * slo_s - due)  # as the client stops waiting
    for simulated, there in [
        ((model > slo_s).mean(1), (real > slo_s).mean()),
        (model.mean(1), real.mean()),
    ]:
        slack = 0.02 * np.mean(simulated) + 1 / n
        if abs(there - np.mean(simulated)) > DOUBT * np.std(simulated) + slack:
            return False
    return True


def missed(record: Record, slo_s: float) -> Floats:
    """1 for each request that failed or was late."""
    late = [r["outcome"] != "ok" or r["latency_s"] > slo_s for r in record["requests"]]
    return np.array(late, float)


def _independent(late: Floats) -> float:
    """How many independent requests scatter as much: those that miss follow each other."""
    share = float(late.mean())
    spread = np.var([part.mean() for part in np.array_split(late, PARTS)], ddof=1) / PARTS
    return min(len(late), share * (1 - share) / spread) if spread > 0 else len(late)


def verdict(record: Record, slo_s: float) -> tuple[str, float]:
    """Whether a load passed, failed or is unresolved, and how its backlog grew.

    A backlog that grows by more than its error fails whatever the latencies.
    """
    late = missed(record, slo_s)
    due, latency = (
        np.array([r[key] for r in record["requests"]]) for key in ("due_s", "latency_s")
    )
    times = np.linspace(0, due[-1], 10 * PARTS, endpoint=False)
    inside = np.sum((due[:, None] <= times) & (times < (due + latency)[:, None]), axis=0)
    slope = linregress(np.arange(PARTS), inside.reshape(PARTS, -1).mean(1))
    growth = float(slope.slope * PARTS)
    grows = slope.pvalue < 1e-4 and growth > max(2.0, inside.mean() / 2)
    n, share = _independent(late), float(late.mean())
    low, high = beta.ppf([0.01, 0.99], share * n + ENDS, (1 - share) * n + ENDS[::-1])
    if record["stopped"] or grows or low > MISSES:
        return "failed", growth
    return ("passed" if high <= MISSES else "unresolved"), growth


def usable(done: list[Record]) -> list[Record]:
    """Loads to conclude from: disturbed ones are made again, unless there are too many."""
    quiet = [record for record in done if not disturbed(record)]
    return quiet if len(done) - len(quiet) <= REPEATS else done


def disturbed(record: Record) -> bool:
    """Whether the server waited for a processor, or the client could not keep to its schedule."""
    late = np.quantile([r["late_s"] for r in record["requests"]], 0.99)
    usual = np.median([r["latency_s"] for r in record["requests"]])
    unpunctual = record["offered_rps"] > 0 and late > max(LATE_S, LATE_SHARE * usual)
    return bool(unpunctual or record["waited"] > WAITED)


def throughput(record: Record) -> float:
    """Answers a second until the last one."""
    ends = [r["due_s"] + r["latency_s"] for r in record["requests"] if r["outcome"] == "ok"]
    return len(ends) / max(*ends, 1e-4) if ends else 0.0


def binds(records: list[Record], slo_s: float) -> str:
    """What most misses of the open loops are: `p95 latency` or `errors`; empty without any."""
    sent = [r for record in records if record["offered_rps"] for r in record["requests"]]
    failed = sum(r["outcome"] == "failed" for r in sent)
    late = sum(r["outcome"] != "failed" and r["latency_s"] > slo_s for r in sent)
    return ("errors" if failed > late else "p95 latency") if failed + late else ""


def p95_at(records: list[Record], answer: Answer, rate: float) -> Bounds:
    """The p95 latency at a rate, with its interval: by the model, or of the loads from there on."""
    if answer.drawn and rate <= answer.low:
        rng, drawn = np.random.default_rng(2), answer.drawn
        due = np.cumsum(rng.exponential(1 / rate, drawn.work.shape), axis=1)
        latency = queue_model.simulate(due, drawn.work, drawn.shapes)[:, LENGTH // 20 :]
        low, middle, high = np.quantile(np.quantile(latency, 0.95, axis=1), [TAIL, 0.5, 1 - TAIL])
        return float(middle), float(low), float(high)
    within = [r for r in records if rate <= r["offered_rps"] <= answer.low]
    return stats.quantile([r["latency_s"] for record in within for r in record["requests"]], 0.95)
