"""The capacity from all loads of a deployment: by the model if confirmed, else measured."""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import beta, binom, ranksums

from lib import stats
from lib.speed import queue_model
from lib.speed.queue_model import MISSES, Floats

Record = dict[str, Any]
Bounds = tuple[float, float, float]
N_DRAWS, LENGTH = 100, 8000
INSTANT_S = 1e-4  # no answer comes sooner
LEAST = 20  # answers that a model is fitted to
TAIL = 0.02  # outside the interval, on each side
FASTER = 0.85  # of the earlier median: the server was still cold
WIDER = 1.4  # than what is resampled, where no model holds: loads differ by more than their luck
ENDS = np.array([0.0, 1.0])
PARTS = 10  # of a load, to see how misses scatter
LATE_S, LATE_SHARE = 0.02, 0.1  # how late a send may be, or as a share of the median latency


class Answer(NamedTuple):
    """The rate at which 5 % miss the SLO; without `high` it is at least `low`."""

    low: float
    middle: float
    high: float
    method: str  # modelled, modelled and confirmed, measured
    drawn: queue_model.Draws | None = None


def warm(done: list[Record]) -> list[Record]:
    """The loads since the server was warm: none from before one slot was seen to grow faster."""
    start, first = 0, None
    for i, record in enumerate(done):
        if record["purpose"] == "level" and record["in_flight"] == 1:
            first = record
        if record["purpose"] == "again" and first:
            a, b = ([r["latency_s"] for r in x["requests"]] for x in (first, record))
            if np.median(b) < FASTER * np.median(a) and ranksums(a, b).pvalue < 0.002:
                start, first = i + 1, None
    return done[start:]


def seen(records: list[Record]) -> queue_model.Seen:
    """All requests that the server took, on one clock with pauses between loads."""
    came, went, ok, start = list[float](), list[float](), list[bool](), 0.0
    for record in records:
        for request in record["requests"]:
            if request["outcome"] != "failed":
                came.append(start + request["due_s"])
                went.append(came[-1] + max(request["latency_s"], INSTANT_S))
                ok.append(request["outcome"] == "ok")
        start = max(went, default=0.0) + 1.0
    return queue_model.Seen(np.array(came), np.array(went), np.array(ok))


_cache: dict[Any, Answer] = {}


def assess(records: list[Record], slo_s: float) -> Answer:
    """The capacity by all loads since the server was warm."""
    key = (slo_s, len(records), id(records[-1]), len(records[-1]["requests"]))
    if key not in _cache:
        _cache.clear()
        _cache[key] = _assess([r for r in records if r["purpose"] != "warm-up"], slo_s)
    return _cache[key]


def _assess(records: list[Record], slo_s: float) -> Answer:
    rng = np.random.default_rng(1)
    probes = [r for r in records if r["purpose"] == "probe"]
    sent = [r for record in records for r in record["requests"]]
    failing = float(np.mean([r["outcome"] == "failed" for r in sent]))
    data = seen(records)
    if failing < MISSES and data.answered.sum() >= LEAST and not _uneven(records, failing):
        fitted = queue_model.fit(data)
        length = max(LENGTH, 2 * len(sent))
        drawn = queue_model.draws(fitted, N_DRAWS, length, rng)
        rates = queue_model.bearable(drawn, slo_s, rng, failing)
        open_loop = sum(r["outcome"] == "ok" for p in probes for r in p["requests"])
        if open_loop and queue_model.clumped(fitted, open_loop):
            for _ in range(2):
                scale = queue_model.stalled(
                    fitted, data.came[data.answered], float(np.median(rates))
                )
                drawn = queue_model.draws(fitted, N_DRAWS, length, rng, scale)
                rates = queue_model.bearable(drawn, slo_s, rng, failing)
        if all(_explained(drawn, probe, slo_s, failing, rng) for probe in probes):
            low, middle, high = np.quantile(rates, [TAIL, 0.5, 1 - TAIL], method="nearest")
            if high == math.inf:  # beyond all that was seen
                low = min(low, max(achieved(r) for r in records))
            method = "modelled and confirmed" if probes else "modelled"
            return Answer(low, middle, high, method, drawn)
    return measured(probes, slo_s, rng)


def _uneven(records: list[Record], failing: float) -> bool:
    """Whether failures depend on the load."""
    return any(
        (n := sum(r["outcome"] == "failed" for r in record["requests"])) >= 3
        and binom.sf(n - 1, len(record["requests"]), failing) < 0.001
        for record in records
    )


def missed(record: Record, slo_s: float) -> Floats:
    """1 for each request that failed or was late."""
    late = [r["outcome"] != "ok" or r["latency_s"] > slo_s for r in record["requests"]]
    return np.array(late, float)


def achieved(record: Record) -> float:
    """Answers a second of a load."""
    ends = [r["due_s"] + r["latency_s"] for r in record["requests"] if r["outcome"] == "ok"]
    return len(ends) / max(*ends, INSTANT_S) if ends else 0.0


def verdict(record: Record, slo_s: float) -> tuple[str, float]:
    """Whether an open loop passed, failed or is unresolved, and how its backlog grew.

    Misses by an interval that is wider where they come in clusters; a backlog that grows by more
    than its error fails whatever the latencies.
    """
    late, requests = missed(record, slo_s), record["requests"]
    due, latency = (np.array([r[key] for r in requests]) for key in ("due_s", "latency_s"))
    times = np.linspace(0, due[-1], 10 * PARTS, endpoint=False)
    inside = np.sum((due[:, None] <= times) & (times < (due + latency)[:, None]), axis=0)
    parts = inside.reshape(PARTS, -1).mean(1)
    thirds = parts[:3].mean(), parts[-3:].mean()
    error = np.std(np.diff(parts)) / math.sqrt(2) * math.sqrt(2 / 3) * 2  # neighbours are alike
    growth = float(thirds[1] - thirds[0])
    grows = growth > 3 * error + 1 and thirds[1] > 1.5 * thirds[0]
    shares = np.array([part.mean() for part in np.array_split(late, PARTS)])
    spread = np.var(shares, ddof=1) / PARTS
    share = float(late.mean())
    n = min(len(late), share * (1 - share) / spread) if spread > 0 else len(late)
    low, high = beta.ppf([0.025, 0.975], share * n + ENDS, (1 - share) * n + ENDS[::-1])
    if record["stopped"] or grows or low > MISSES:
        return "failed", growth
    return ("passed" if high <= MISSES or share == 0 else "unresolved"), growth


def disturbed(record: Record) -> bool:
    """Whether the client could not keep to its schedule."""
    if record["in_flight"] or len(record["requests"]) < 20:
        return False
    late = np.quantile([r["late_s"] for r in record["requests"]], 0.99)
    usual = np.median([r["latency_s"] for r in record["requests"]])
    return bool(late > max(LATE_S, LATE_SHARE * usual))


def binds(records: list[Record], slo_s: float) -> str:
    """What most misses of the open loops are: `p95 latency` or `errors`; empty without any."""
    sent = [r for record in records if not record["in_flight"] for r in record["requests"]]
    failed = sum(r["outcome"] == "failed" for r in sent)
    late = sum(r["outcome"] != "failed" and r["latency_s"] > slo_s for r in sent)
    return ("errors" if failed > late else "p95 latency") if failed + late else ""


def p95_at(records: list[Record], answer: Answer, slo_s: float, rate: float) -> Bounds:
    """The p95 latency at a rate, with its interval: by the model, or of all loads from there on."""
    if not rate <= (answer.middle if math.isfinite(answer.middle) else answer.low):
        return math.nan, math.nan, math.nan
    if answer.drawn:
        rng, drawn = np.random.default_rng(2), answer.drawn
        due = np.cumsum(rng.exponential(1 / rate, drawn.work.shape), axis=1)
        latency = queue_model.simulate(due, drawn.work, drawn.shapes)[:, LENGTH // 20 :]
        low, middle, high = np.quantile(np.quantile(latency, 0.95, axis=1), [TAIL, 0.5, 1 - TAIL])
        return float(middle), float(low), float(high)
    within = (r for r in records if rate <= r["offered_rps"] <= max(answer.low, rate))
    return stats.quantile([r["latency_s"] for record in within for r in record["requests"]], 0.95)


def _explained(
    drawn: queue_model.Draws, probe: Record, slo_s: float, failing: float,
    rng: np.random.Generator,
) -> bool:  # fmt: skip
    """Whether the model, sent the same schedule, sees such misses, latencies and backlog."""
    requests = [r for r in probe["requests"] if r["outcome"] != "failed"]
    due, real = (np.array([r[key] for r in requests]) for key in ("due_s", "latency_s"))
    shift = rng.integers(0, drawn.work.shape[1] - len(due), len(drawn.shapes) * 2)
    lanes = np.tile(np.arange(len(drawn.shapes)), 2)
    work = np.array([drawn.work[i, s : s + len(due)] for i, s in zip(lanes, shift, strict=True)])
    shapes = [drawn.shapes[i] for i in lanes]
    model = queue_model.simulate(np.tile(due, (len(lanes), 1)), work, shapes)
    model = np.minimum(model, due[-1] + 3 * slo_s - due)  # as the client stops waiting
    low, high = np.quantile(_measures(due, model, slo_s), [0.004, 0.996], axis=1)
    slack = 0.02 * np.abs(high) + 1 / len(due)
    there = _measures(due, real, slo_s)
    return bool(np.all((low - slack <= there) & (there <= high + slack)))


def _measures(due: Floats, latency: Floats, slo_s: float) -> Floats:
    """Misses, mean, p95 and the growth of what is in flight, from the first third to the last."""
    thirds = [np.sum(part, axis=-1) for part in np.array_split(latency, 3, axis=-1)]
    growth = (thirds[2] - thirds[0]) / due[-1] * 3
    p95 = np.quantile(latency, 0.95, axis=-1)
    return np.stack([(latency > slo_s).mean(-1), latency.mean(-1), p95, growth])


def measured(probes: list[Record], slo_s: float, rng: np.random.Generator) -> Answer:
    """Misses by rate, logistic in its logarithm, with a bootstrap by blocks of time."""
    if not probes:
        return Answer(0.0, math.nan, math.inf, "measured")
    rates, blocks = [], []
    for probe in probes:
        late = missed(probe, slo_s)
        due = np.array([r["due_s"] for r in probe["requests"]])
        late = late[due >= max(min(3 * slo_s, 0.5 * due[-1]), 0.4 * due[-1])]
        if probe["stopped"]:
            late = np.append(late, np.ones(len(late)))
        parts = np.array_split(late, 10)
        rates.append(probe["offered_rps"])
        blocks.append([(part.sum(), len(part)) for part in parts])
    table = np.array(blocks)  # probe x block x (missed, sent)
    x = np.log(rates)
    centre = x.mean()
    picks = rng.integers(0, 10, (400, len(x), 10))
    drawn = table[np.arange(len(x))[None, :, None], picks].sum(2)  # draw x probe x 2
    drawn = np.concatenate([table.sum(1)[None], drawn])
    roots = _roots(x - centre, drawn[..., 0], drawn[..., 1]) + centre
    low, high = np.quantile(roots[1:], [TAIL, 1 - TAIL])
    middle = roots[0]
    low, high = middle - WIDER * max(middle - low, 0.07), middle + WIDER * max(high - middle, 0.07)
    share = table.sum(1)[:, 0] / table.sum(1)[:, 1]
    top = math.inf if share.max() < MISSES else math.exp(high)
    return Answer(math.exp(low), math.exp(middle), top, "measured")


def _roots(x: Floats, misses: Floats, sent: Floats) -> Floats:
    """Where a logistic of x, of steepness 10 give or take 6, reaches the misses allowed."""
    y, n = misses + 0.2, sent + 1.0
    a, b = np.full(len(y), -2.0), np.full(len(y), 10.0)
    weight = np.minimum(1.0, 40 / n)  # requests that follow each other miss together
    for _ in range(40):
        p = expit(np.clip(a[:, None] + b[:, None] * x, -12, 12))
        g, h = (y - n * p) * weight, n * p * (1 - p) * weight
        ga, gb = g.sum(1) - (a + 2) / 16, (g * x).sum(1) - (b - 10) / 36
        haa, hab, hbb = h.sum(1) + 1 / 16, (h * x).sum(1), (h * x * x).sum(1) + 1 / 36
        det = haa * hbb - hab**2
        a += np.clip((hbb * ga - hab * gb) / det, -2, 2)
        b = np.clip(b + np.clip((haa * gb - hab * ga) / det, -3, 3), 1.5, 60)
    root: Floats = (logit(MISSES) - a) / b
    return root


def next_measured(probes: list[Record], answer: Answer) -> float:
    """Around the answer, on the side where less was sent; far from all where all are alike."""
    rates = [p["offered_rps"] for p in probes]
    if not math.isfinite(answer.high):
        return float(max(rates) * 1.4)
    middle = min(max(answer.middle, min(rates) / 2), max(rates) * 1.5)
    below = sum(rate <= middle for rate in rates)
    return float(middle) * (1.1 if below > len(rates) / 2 else 0.88)
