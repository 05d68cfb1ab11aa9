"""A queue that explains what was seen under load, and the load it bears within the SLO.

The model: `slots` first-come places, each request an amount of work, all in service slowed alike
by 1 + slope (k - 1) where they are k. Under given slots and slope the work of every request
follows from when requests came and went, so each of them speaks for every parameter. All are
refitted in every draw of a weighted likelihood bootstrap (Newton and Raftery 1994), by blocks of
requests, and so are carried into the interval. What loads meet less than about five times, as a
stall every half minute, is not: there the interval may be too high (`benchmarks/capacity.py`).
"""

import heapq
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

Floats = NDArray[np.float64]

MISSES = 0.05  # p95 within the SLO means at most this share outside it
ANY = 512  # slots that are never all taken
SLOTS = [*range(1, 25), 26, 28, 30, 32, 36, 40, 48, 56, 64, 80, 96, 128, 192, 256]
SLOPES = np.array([0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0, 1.15])
BLOCK, BLOCKS = 24, 20  # requests that are resampled together, as they are alike; at least so many
UNLIKELY = 10.0  # nats below the rest for a request that a model cannot explain
POSSIBLE, PLAUSIBLE = 200.0, 40.0  # nats below the likeliest, before and after finer slopes
SHARES = np.array([0.05, 0.15, 0.3, 0.45, 0.58, 0.68, 0.76, 0.83, 0.89, 0.95, 1.02])
N_DRAWS, LENGTH = 100, 4000  # of the bootstrap; requests of each simulation


class Shape(NamedTuple):
    """Slots, and how much each further request in service slows all of them."""

    slots: int
    slope: float

    def slowdown(self, k: NDArray[np.number]) -> Floats:
        """How many times slower k requests in flight are than one."""
        return np.asarray(1.0 + self.slope * (np.clip(k, 1, self.slots) - 1.0))


class Queues(NamedTuple):
    """Shapes that may be, the work of requests drawn under each, and the most seen in flight."""

    shapes: list[Shape]
    work: Floats  # a row for each shape
    peak: int


class Candidate(NamedTuple):
    """A shape that may be, with each request's log-likelihood and work under it."""

    shape: Shape
    terms: Floats
    work: Floats  # below zero: not explained


def _log_density(y: Floats) -> Floats:
    """Of each value by all others: a Gaussian kernel on a grid, with room for outliers."""
    quartiles = np.quantile(y, [0.25, 0.75])
    spread = min(float(np.std(y)), float(quartiles[1] - quartiles[0]) / 1.34)
    width, n = max(0.9 * spread * len(y) ** -0.2, 0.01), len(y)
    cells = np.rint((y - y.min()) / width * 4).astype(int)
    smooth = gaussian_filter1d(np.bincount(cells).astype(float), 4, mode="constant")
    others = np.maximum(smooth[cells] - 0.25 / math.sqrt(2 * math.pi), 0) / (n - 1) / width * 4
    return np.asarray(np.log(0.99 * others + 0.01 / 16))


def _explain(came: Floats, went: Floats, slots: int, slopes: Floats) -> list[Candidate]:
    """The work of each request, were there so many slots, and how likely that makes it."""
    # When each was begun, first come first served.
    n, free, starts = len(came), [0.0] * slots, list[float]()
    for begin, end in zip(came.tolist(), went.tolist(), strict=True):
        starts.append(max(begin, free[0]))
        heapq.heappushpop(free, end)
    # How many were in flight between all comings and goings, and as each went.
    times = np.concatenate([came, went])
    order = np.argsort(times, kind="stable")
    inside, times = np.cumsum(np.repeat([1, -1], n)[order]), times[order]
    at_end, usual = inside[np.argsort(order)[n:]] + 1, float(np.median(went - came))
    candidates = []
    for shape in (Shape(slots, float(slope)) for slope in slopes):
        done = np.cumsum(np.diff(times, prepend=0) / shape.slowdown(np.r_[1, inside[:-1]]))
        work = np.interp(went, times, done) - np.interp(starts, times, done)
        work[starts > went] = -1.0
        terms, fine = np.full(n, -UNLIKELY - math.log(usual)), work > usual * 1e-4
        if fine.sum() > 0.9 * n:
            y = np.log(work[fine])
            terms[fine] = _log_density(y) - y
        candidates.append(Candidate(shape, terms - np.log(shape.slowdown(at_end)), work))
    return candidates


def _likely(candidates: list[Candidate], nats: float) -> list[Candidate]:
    """Those within so many nats of the likeliest, which comes first."""
    total = np.array([c.terms.sum() for c in candidates])
    return [candidates[i] for i in np.argsort(-total) if total[i] >= total.max() - nats]


def fit(came: Floats, went: Floats, peak: int) -> list[Candidate]:
    """Fit slots and slope to all requests: every shape that is not out of the question."""
    candidates = list[Candidate]()
    for slots in [*(s for s in SLOTS if s < peak), ANY]:
        candidates += _explain(came, went, slots, SLOPES[: 1 if slots == 1 else None])
    for spread in (1.0, 0.1):  # of slopes around the likeliest of each number of slots
        best = {c.shape.slots: c.shape.slope for c in _likely(candidates, POSSIBLE)[::-1]}
        for slots in best.keys() - {1}:
            i = int(np.searchsorted(SLOPES, best[slots]))
            step = SLOPES[min(i + 1, len(SLOPES) - 1)] - SLOPES[max(i - 1, 0)]
            slopes = best[slots] + spread * step * np.linspace(-0.6, 0.6, 16)
            candidates += _explain(came, went, slots, slopes[slopes > 0])
    return _likely(candidates, PLAUSIBLE)


def misses(
    due: Floats, work: Floats, shapes: list[Shape], slo_s: float, *, after: float = 0.1
) -> Floats:
    """The share of requests due at some times (lane x request) that a server answers too late.

    One event a step in every lane, an arrival or an end; work done is counted alike for all in
    service. The server starts empty, so what comes before a share `after` does not count.
    """
    (lanes, n), slots = work.shape, np.array([shape.slots for shape in shapes])
    slower = np.array([shape.slowdown(np.arange(ANY + 1)) for shape in shapes])
    rows, came, started, inside, late, ended = np.arange(lanes), *np.zeros((5, lanes), int)
    ends, since = np.full((2, lanes, ANY + 1), np.inf)
    now, done = np.zeros((2, lanes))
    due, work = np.c_[due, np.full(lanes, np.inf)], np.c_[work, np.zeros(lanes)]
    for step in range(2 * n):
        slow = slower[rows, inside]
        first = ends[:, : inside.max() + 1].argmin(1)
        t_end, t_next = now + (ends[rows, first] - done) * slow, due[rows, came]
        leaves = t_end <= t_next
        then = np.where(leaves, t_end, t_next)
        done += (then - now) / slow
        now = then
        # Who leaves gives the place to the last one; who comes waits, or takes the next place.
        if step >= 2 * n * after:
            late += leaves & (now - since[rows, first] > slo_s)
            ended += leaves
        out, place = np.flatnonzero(leaves), first[leaves]
        last = inside[out] - 1
        ends[out, place], since[out, place] = ends[out, last], since[out, last]
        ends[out, last] = np.inf
        inside[out] = last
        came += ~leaves
        begins = np.flatnonzero((started < came) & (inside < slots))
        place, who = inside[begins], started[begins]
        ends[begins, place] = done[begins] + work[begins, who]
        since[begins, place] = due[begins, who]
        started[begins] += 1
        inside[begins] += 1
    return np.asarray(late / ended)


def drawn_queues(came: Floats, went: Floats, rng: np.random.Generator) -> Queues:
    """Queues that may be behind what was seen: requests on one clock, by arrival."""
    n, gone = len(came), np.searchsorted(np.sort(went), came)
    peak = int((np.arange(1, n + 1) - gone).max())
    candidates = fit(came, went, peak)
    # Refit to weights of blocks of requests, and resample their work by the same.
    block = max(min(BLOCK, n // BLOCKS), 1)
    weights = rng.exponential(1.0, (N_DRAWS, -(-n // block)))
    terms = np.array([candidate.terms for candidate in candidates])
    chosen = (np.repeat(weights, block, axis=1)[:, :n] @ terms.T).argmax(1)
    shapes, work = [candidates[i].shape for i in chosen], np.empty((N_DRAWS, LENGTH))
    for row, (i, weight) in enumerate(zip(chosen, weights, strict=True)):
        blocks = rng.choice(len(weight), -(-LENGTH // block), p=weight / weight.sum())
        places = (blocks[:, None] * block + np.arange(block)).ravel()[:LENGTH] % n
        work[row] = np.maximum(candidates[i].work[places], 0.0)
    return Queues(shapes, work, peak)


def late_shares(queues: Queues, due: Floats, slo_s: float) -> Floats:
    """The share that each of the queues answers too late of requests due at these times."""
    work = queues.work[:, : len(due)]
    due = np.tile(due[: work.shape[1]], (N_DRAWS, 1))
    return misses(due, work, queues.shapes, slo_s, after=0.0)


def bearable_rates(queues: Queues, slo_s: float, rng: np.random.Generator) -> Floats:
    """Poisson rates at which 5 % are late, one of each queue; infinite: beyond what was seen."""
    # Simulate each at shares of the most that it could finish; more than that piles up.
    shapes, work, peak = queues
    k = np.arange(1, 2 * peak + 1)
    served = [(np.minimum(k, shape.slots) / shape.slowdown(k)).max() for shape in shapes]
    most = np.array(served) / work.mean(1)
    ends = np.where([shape.slots < ANY for shape in shapes], most, math.inf)
    rates = SHARES * most[:, None]
    due = np.cumsum(rng.exponential(1.0, (N_DRAWS, 1, LENGTH)), axis=2) / rates[..., None]
    lanes = np.repeat(np.arange(N_DRAWS), len(SHARES))
    late = misses(due.reshape(-1, LENGTH), work[lanes], [shapes[i] for i in lanes], slo_s)
    logs = np.log(np.maximum.accumulate(np.maximum(late, 1e-4).reshape(rates.shape), axis=1))
    wanted, each = math.log(MISSES), zip(logs, rates, ends, strict=True)
    return np.array([np.interp(wanted, row, rate, right=end) for row, rate, end in each])
