"""What the loads of a deployment show: its capacity, by the model if confirmed, else measured."""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import beta, linregress

from lib import stats
from lib.speed import queue_model
from lib.speed.queue_model import MISSES, Floats

Record = dict[str, Any]
Bounds = tuple[float, float, float]
N_DRAWS, LENGTH = 100, 3000
TAIL = 0.02  # outside the interval, on each side
LEAST_WIDTH = 0.02  # of an interval, on each side: simulations are no finer
LEAST = 20  # answers that a model is fitted to
FAILING = 0.01  # of the requests, from which on no model of latencies holds
PARTS = 10  # of a load, to see how misses and backlog scatter
CLUSTERED = 40  # requests of an open loop speak for at most so many that miss independently
STEEPNESS = np.geomspace(2, 40, 12)  # of misses by the logarithm of the rate
LATE_S, LATE_SHARE = 0.02, 0.1  # how late a send may be, or as a share of the median latency
WAITED = 0.2  # of the time that a local server's threads would have worked, without a processor
REPEATS = 3  # disturbed loads that are made again


class Answer(NamedTuple):
    """The rate at which 5 % miss the SLO; with an infinite `high` it is at least `low`."""

    low: float
    middle: float
    high: float
    method: str  # modelled, modelled and confirmed, measured
    drawn: queue_model.Draws | None = None


def assess(records: list[Record], slo_s: float) -> Answer:
    """The capacity by all loads after the warm-up."""
    rng = np.random.default_rng(1)
    records = [r for r in records if r["purpose"] != "warm-up"]
    probes = [r for r in records if not r["in_flight"]]
    outcomes = [r["outcome"] for record in records for r in record["requests"]]
    if outcomes.count("ok") >= LEAST and outcomes.count("failed") <= FAILING * len(outcomes):
        seen = _seen(records)
        drawn = queue_model.draws(seen, N_DRAWS, max(LENGTH, 2 * len(outcomes)), rng)
        if all(_explained(drawn, probe, slo_s, rng) for probe in probes):
            rates = queue_model.bearable(drawn, slo_s, rng)
            low, middle, high = np.quantile(rates, [TAIL, 0.5, 1 - TAIL], method="nearest")
            low, high = min(low, (1 - LEAST_WIDTH) * middle), max(high, (1 + LEAST_WIDTH) * middle)
            if high == math.inf:  # beyond all that was seen
                low = min(low, max(throughput(r) for r in records))
            return Answer(low, middle, high, "modelled" + " and confirmed" * bool(probes), drawn)
    return _measured(probes, slo_s)


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
    figures = [[np.mean(x > slo_s, -1), np.mean(x, -1), np.quantile(x, 0.95, -1), _growth(due, x)]
               for x in (model, real)]  # fmt: skip
    for simulated, there in zip(*figures, strict=True):
        slack = 0.02 * np.abs(simulated).max() + 1 / n
        if not simulated.min() - slack <= there <= simulated.max() + slack:
            return False
    return True


def _growth(due: Floats, latency: Floats) -> Floats:
    """How many more were in flight in the last third than in the first."""
    thirds = [part.sum(-1) for part in np.array_split(latency, 3, axis=-1)]
    return np.asarray((thirds[2] - thirds[0]) / due[-1] * 3)


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
    """Whether an open loop passed, failed or is unresolved, and how its backlog grew.

    A backlog that grows by more than its error fails whatever the latencies.
    """
    late = missed(record, slo_s)
    due, latency = (np.array([r[key] for r in record["requests"]]) for key in ("due_s", "latency_s"))
    times = np.linspace(0, due[-1], 10 * PARTS, endpoint=False)
    inside = np.sum((due[:, None] <= times) & (times < (due + latency)[:, None]), axis=0)
    slope = linregress(np.arange(PARTS), inside.reshape(PARTS, -1).mean(1))
    growth = float(slope.slope * PARTS)
    grows = slope.pvalue < 1e-4 and growth > max(2.0, inside.mean() / 2)
    n, share = _independent(late), float(late.mean())
    low, high = beta.ppf([0.025, 0.975], share * n + [0, 1], (1 - share) * n + [1, 0])
    if record["stopped"] or grows or low > MISSES:
        return "failed", growth
    return ("passed" if high <= MISSES else "unresolved"), growth


def _measured(probes: list[Record], slo_s: float) -> Answer:
    """Misses of the open loops, logistic in the logarithm of the rate; the posterior on a grid."""
    if not probes:
        return Answer(0.0, math.nan, math.inf, "measured")
    rates = np.log([probe["offered_rps"] for probe in probes])
    roots = np.linspace(rates.min() - 1.5, rates.max() + 1.5, 301)
    posterior = np.zeros((len(roots), len(STEEPNESS)))
    for rate, probe in zip(rates, probes, strict=True):
        late = missed(probe, slo_s)
        late = late[len(late) * 2 // 5 :]  # once it is steady
        share, n = late.mean(), min(_independent(late), CLUSTERED)
        if probe["stopped"]:  # and would have gone on to miss
            share = 1.0
        p = expit(logit(MISSES) + STEEPNESS * (rate - roots[:, None]))
        posterior += n * (share * np.log(p) + (1 - share) * np.log1p(-p))
    weight = np.cumsum(np.exp(posterior - posterior.max()).sum(1))
    low, middle, high = np.exp(np.interp([TAIL, 0.5, 1 - TAIL], weight / weight[-1], roots))
    return Answer(low, middle, high if math.log(high) < rates.max() + 1 else math.inf, "measured")


def usable(done: list[Record]) -> list[Record]:
    """Loads to conclude from: disturbed ones are made again, unless there are too many."""
    quiet = [record for record in done if not disturbed(record)]
    return quiet if len(done) - len(quiet) <= REPEATS else done


def disturbed(record: Record) -> bool:
    """Whether the server waited for a processor, or the client could not keep to its schedule."""
    late = np.quantile([r["late_s"] for r in record["requests"]], 0.99)
    usual = np.median([r["latency_s"] for r in record["requests"]])
    unpunctual = not record["in_flight"] and late > max(LATE_S, LATE_SHARE * usual)
    return bool(unpunctual or record["waited"] > WAITED)


def throughput(record: Record) -> float:
    """Answers a second while a load lasted, but for the last ones of a closed loop."""
    ends = np.sort([r["due_s"] + r["latency_s"] for r in record["requests"] if r["outcome"] == "ok"])
    keep = max(len(ends) - int(record["in_flight"]), 1)  # then fewer than that are in flight
    return float(keep / ends[keep - 1]) if len(ends) > 1 else 0.0


def binds(records: list[Record], slo_s: float) -> str:
    """What most misses of the open loops are: `p95 latency` or `errors`; empty without any."""
    sent = [r for record in records if not record["in_flight"] for r in record["requests"]]
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
