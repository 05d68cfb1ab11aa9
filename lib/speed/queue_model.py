"""A queue that explains what was seen under load, and the load it bears within the SLO.

The model: `slots` first-come places, each request an amount of work, all in service slowed alike
by 1 + slope (k - 1) where they are k. Under given slots and slope the work of every request
follows from when requests came and went, so each of them speaks for every parameter. All are
refitted in every draw of a weighted likelihood bootstrap (Newton and Raftery 1994), by blocks of
requests, and so are carried into the interval.
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
BLOCK = 24  # requests that are resampled together: those that follow each other are alike
UNLIKELY = 10.0  # nats below the rest for a request that a model cannot explain
POSSIBLE, PLAUSIBLE = 200.0, 40.0  # nats below the likeliest, before and after finer slopes
SHARES = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.68, 0.75, 0.82, 0.88, 0.94, 1.0, 1.06])


class Seen(NamedTuple):
    """Requests on one clock, by arrival, and whether each was answered."""

    came: Floats
    went: Floats
    answered: NDArray[np.bool_]


class Shape(NamedTuple):
    """Slots, and how much each further request in service slows all of them."""

    slots: int
    slope: float

    def slowdown(self, k: NDArray[np.number]) -> Floats:
        """How many times slower k requests in flight are than one."""
        return 1.0 + self.slope * (np.clip(k, 1, self.slots) - 1.0)


class Candidate(NamedTuple):
    """A shape that may be, with each request's log-likelihood and work under it."""

    shape: Shape
    terms: Floats
    work: Floats  # below zero: not explained


class Draws(NamedTuple):
    """Models that the data leave possible: a shape each, and its sequence of work."""

    shapes: list[Shape]
    work: Floats  # draw x request of a simulation
    peak: int  # most requests in flight that were seen


def _log_density(y: Floats) -> Floats:
    """Of each value by all others: a Gaussian kernel on a grid, with room for outliers."""
    quartiles = np.quantile(y, [0.25, 0.75])
    spread = min(float(np.std(y)), float(quartiles[1] - quartiles[0]) / 1.34)
    width, n = max(0.9 * spread * len(y) ** -0.2, 0.01), len(y)
    cells = np.rint((y - y.min()) / width * 4).astype(int)
    smooth = gaussian_filter1d(np.bincount(cells).astype(float), 4, mode="constant")
    others = np.maximum(smooth[cells] - 0.25 / math.sqrt(2 * math.pi), 0) / (n - 1) / width * 4
    return np.asarray(np.log(0.99 * others + 0.01 / 16))


def _explain(seen: Seen, slots: int, slopes: Floats) -> list[Candidate]:
    """The work of each request, were there so many slots, and how likely that makes it."""
    # When each was begun, first come first served.
    n, free, starts = len(seen.came), [0.0] * slots, list[float]()
    for came, went in zip(seen.came.tolist(), seen.went.tolist(), strict=True):
        starts.append(max(came, free[0]))
        heapq.heappushpop(free, went)
    # How many were in flight between all comings and goings, and as each went.
    times = np.concatenate([seen.came, seen.went])
    order = np.argsort(times, kind="stable")
    inside, times = np.cumsum(np.repeat([1, -1], n)[order]), times[order]
    at_end = inside[np.argsort(order)[n:]] + 1
    usual = float(np.median((seen.went - seen.came)[seen.answered]))
    candidates = []
    for shape in (Shape(slots, float(slope)) for slope in slopes):
        done = np.cumsum(np.diff(times, prepend=0) / shape.slowdown(np.r_[1, inside[:-1]]))
        work = np.interp(seen.went, times, done) - np.interp(starts, times, done)
        work = np.where(starts > seen.went, -1.0, work)[seen.answered]
        terms, fine = np.full(len(work), -UNLIKELY - math.log(usual)), work > usual * 1e-4
        if fine.sum() > 0.9 * len(work):
            y = np.log(work[fine])
            terms[fine] = _log_density(y) - y
        terms -= np.log(shape.slowdown(at_end[seen.answered]))
        candidates.append(Candidate(shape, terms, work))
    return candidates


def _likely(candidates: list[Candidate], nats: float) -> list[Candidate]:
    """Those within so many nats of the likeliest, which comes first."""
    total = np.array([c.terms.sum() for c in candidates])
    return [candidates[i] for i in np.argsort(-total) if total[i] >= total.max() - nats]


def fit(seen: Seen, peak: int) -> list[Candidate]:
    """Fit slots and slope to all requests: every shape that is not out of the question."""
    candidates = list[Candidate]()
    for slots in [*(s for s in SLOTS if s < peak), ANY]:
        candidates += _explain(seen, slots, SLOPES[: 1 if slots == 1 else None])
    for spread in (1.0, 0.1):  # of slopes around the likeliest of each number of slots
        best = {c.shape.slots: c.shape.slope for c in _likely(candidates, POSSIBLE)[::-1]}
        for slots in best.keys() - {1}:
            i = int(np.searchsorted(SLOPES, best[slots]))
            step = SLOPES[min(i + 1, len(SLOPES) - 1)] - SLOPES[max(i - 1, 0)]
            slopes = best[slots] + spread * step * np.linspace(-0.6, 0.6, 16)
            candidates += _explain(seen, slots, slopes[slopes > 0])
    return _likely(candidates, PLAUSIBLE)


def draws(seen: Seen, n_draws: int, length: int, rng: np.random.Generator) -> Draws:
    """Refit the shape to weights of blocks of requests, and resample their work by the same."""
    gone = np.searchsorted(np.sort(seen.went), seen.came)
    peak = int((np.arange(1, len(gone) + 1) - gone).max())
    candidates = fit(seen, peak)
    n = len(candidates[0].terms)
    weights = rng.exponential(1.0, (n_draws, -(-n // BLOCK)))
    likelihood = (
        np.repeat(weights, BLOCK, axis=1)[:, :n] @ np.array([c.terms for c in candidates]).T
    )
    chosen = [candidates[i] for i in likelihood.argmax(1)]
    work = np.empty((n_draws, length))
    for row, (candidate, weight) in enumerate(zip(chosen, weights, strict=True)):
        turns = rng.choice(len(weight), -(-length // BLOCK), p=weight / weight.sum())
        places = (turns[:, None] * BLOCK + np.arange(BLOCK)).ravel()[:length] % n
        work[row] = np.maximum(candidate.work[places], 0.0)
    return Draws([candidate.shape for candidate in chosen], work, peak)


def simulate(due: Floats, work: Floats, shapes: list[Shape]) -> Floats:
    """Latencies of requests due at some times (lane x request) at servers that start empty.

    One event a step in every lane, an arrival or an end; work done is counted alike for all in
    service.
    """
    (lanes, n), slots = work.shape, np.array([shape.slots for shape in shapes])
    slower = np.array([shape.slowdown(np.arange(ANY + 1)) for shape in shapes])
    rows, came, started, inside = np.arange(lanes), *np.zeros((3, lanes), int)
    ends, who = np.full((lanes, ANY + 1), np.inf), np.zeros((lanes, ANY + 1), int)
    now, done, latency = np.zeros(lanes), np.zeros(lanes), np.full((lanes, n), np.nan)
    due, work = np.c_[due, np.full(lanes, np.inf)], np.c_[work, np.zeros(lanes)]
    for _ in range(2 * n):
        slow = slower[rows, inside]
        first = ends[:, : inside.max() + 1].argmin(1)
        t_end, t_next = now + (ends[rows, first] - done) * slow, due[rows, came]
        leaves = t_end <= t_next
        then = np.where(leaves, t_end, t_next)
        done += (then - now) / slow
        now = then
        # Who leaves gives the place to the last one; who comes waits, or takes the next place.
        out, place = np.flatnonzero(leaves), first[leaves]
        index, last = who[out, place], inside[out] - 1
        latency[out, index] = now[out] - due[out, index]
        ends[out, place], who[out, place] = ends[out, last], who[out, last]
        ends[out, last] = np.inf
        inside[out] = last
        came += ~leaves
        begins = np.flatnonzero((started < came) & (inside < slots))
        ends[begins, inside[begins]] = done[begins] + work[begins, started[begins]]
        who[begins, inside[begins]] = started[begins]
        started[begins] += 1
        inside[begins] += 1
    return latency


def bearable(drawn: Draws, slo_s: float, rng: np.random.Generator) -> Floats:
    """For each draw the Poisson rate at which 5 % are late; infinite: beyond what was seen.

    Rates are tried as shares of the most that a server could finish.
    """
    k = np.arange(1, 2 * drawn.peak + 1)
    most = [(np.minimum(k, shape.slots) / shape.slowdown(k)).max() for shape in drawn.shapes]
    rates = SHARES * (most / drawn.work.mean(1))[:, None]
    n, lanes = drawn.work.shape[1], np.repeat(np.arange(len(rates)), len(SHARES))
    due = np.cumsum(rng.exponential(1.0, (len(rates), 1, n)), axis=2) / rates[..., None]
    shapes = [drawn.shapes[i] for i in lanes]
    late = simulate(due.reshape(-1, n), drawn.work[lanes], shapes) > slo_s
    # Halves of a simulation differ by luck alone, which is taken out of how the draws differ.
    first, second = (
        _crossings(rates, late[:, n // 20 : n // 2]),
        _crossings(rates, late[:, n // 2 :]),
    )
    both, luck = (first + second) / 2, (first - second) / 2
    if not np.isfinite(both).all():
        return both
    real = math.sqrt(max(1 - np.var(luck) / max(np.var(both), 1e-12), 0.0))
    return np.asarray(np.median(both) + (both - np.median(both)) * real)


def _crossings(rates: Floats, late: NDArray[np.bool_]) -> Floats:
    """At which of its rates each draw misses too often."""
    misses = np.maximum(late.mean(1), 1e-4).reshape(rates.shape)
    each = zip(np.log(np.maximum.accumulate(misses, axis=1)), rates, strict=True)
    return np.array([np.interp(math.log(MISSES), row, rate, right=math.inf) for row, rate in each])
