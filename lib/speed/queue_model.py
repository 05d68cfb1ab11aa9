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
POSSIBLE = 40.0  # nats below the likeliest, where a model is still tried
SHARES = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.78, 0.85, 0.91, 0.96, 1.02])
AROUND = np.array([0.65, 0.8, 0.92, 1.0, 1.08, 1.2, 1.35])


class Seen(NamedTuple):
    """Requests of all loads on one clock, by arrival, and whether each was answered."""

    came: Floats
    went: Floats
    answered: NDArray[np.bool_]

    def in_flight(self) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
        """Times when requests came or went, how many there were after each, and as each went."""
        times = np.concatenate([self.came, self.went])
        order = np.argsort(times, kind="stable")
        inside = np.cumsum(np.repeat([1, -1], len(self.came))[order])
        place = np.argsort(order)[len(self.came) :]
        return times[order], inside, inside[place] + 1


class Shape(NamedTuple):
    """Slots, and how much each further request in service slows all of them."""

    slots: int
    slope: float

    def slowdown(self, k: NDArray[np.number]) -> Floats:
        """How many times slower k requests in flight are than one."""
        return 1.0 + self.slope * (np.clip(k, 1, self.slots) - 1.0)


class Fit(NamedTuple):
    """Shapes that may be, each request's log-likelihood and work under each of them."""

    shapes: list[Shape]
    likelihood: Floats  # shape x request
    work: Floats  # shape x request; below zero: not explained


class Draws(NamedTuple):
    """Models that the data leave possible: a shape each, and its sequence of work."""

    shapes: list[Shape]
    work: Floats  # draw x request of a simulation
    peak: int  # most requests in flight that were seen

    def most(self) -> Floats:
        """Requests a second that each could finish with twice as many in flight as were seen."""
        k = np.arange(1, 2 * self.peak + 1)
        rates = [(np.minimum(k, shape.slots) / shape.slowdown(k)).max() for shape in self.shapes]
        return np.asarray(rates / self.work.mean(1))


def _log_density(y: Floats) -> Floats:
    """Of each value by all others: a Gaussian kernel on a grid, with room for outliers."""
    quartiles = np.quantile(y, [0.25, 0.75])
    spread = min(float(np.std(y)), float(quartiles[1] - quartiles[0]) / 1.34)
    width, n = max(0.9 * spread * len(y) ** -0.2, 0.01), len(y)
    cells = np.rint((y - y.min()) / width * 4).astype(int)
    smooth = gaussian_filter1d(np.bincount(cells).astype(float), 4, mode="constant")
    others = np.maximum(smooth[cells] - 0.25 / math.sqrt(2 * math.pi), 0) / (n - 1) / width * 4
    return np.asarray(np.log(0.99 * others + 0.01 / 16))


def _explain(seen: Seen, slots: int, slopes: Floats) -> Fit:
    """The work of each request, were there so many slots, and how likely that makes it."""
    free, starts = [0.0] * slots, np.empty(len(seen.came))
    for i, (came, went) in enumerate(zip(seen.came.tolist(), seen.went.tolist(), strict=True)):
        starts[i] = max(came, free[0])
        heapq.heappushpop(free, went)
    times, inside, at_end = seen.in_flight()
    use, gaps = seen.answered, np.diff(times)
    usual = float(np.median((seen.went - seen.came)[use]))
    shapes = [Shape(slots, float(slope)) for slope in slopes]
    likelihood, works = [], []
    for shape in shapes:
        done = np.concatenate([[0.0], np.cumsum(gaps / shape.slowdown(inside[:-1]))])
        work = np.interp(seen.went, times, done) - np.interp(starts, times, done)
        work = np.where(starts > seen.went, -1.0, work)[use]
        terms = np.full(len(work), -UNLIKELY - math.log(usual))
        fine = work > usual * 1e-4
        if fine.sum() > 0.9 * len(work):
            y = np.log(work[fine])
            terms[fine] = _log_density(y) - y
        likelihood.append(terms - np.log(shape.slowdown(at_end[use])))
        works.append(work)
    return Fit(shapes, np.array(likelihood), np.array(works))


def fit(seen: Seen) -> Fit:
    """Fit slots and slope to all requests; keeps every shape that is not out of the question."""
    peak = int(seen.in_flight()[1].max())
    fits = [_explain(seen, slots, SLOPES[: len(SLOPES) if slots > 1 else 1])
            for slots in [*(s for s in SLOTS if s < peak), ANY]]  # fmt: skip
    for _ in range(3):  # finer slopes, beside the likeliest one of each number of slots
        best = max(float(one.likelihood.sum(1).max()) for one in fits)
        for one in [f for f in fits if f.likelihood.sum(1).max() > best - POSSIBLE]:
            slopes = np.array([shape.slope for shape in one.shapes])
            likeliest = slopes[one.likelihood.sum(1).argmax()]
            low = slopes[slopes < likeliest].max(initial=likeliest)
            high = slopes[slopes > likeliest].min(initial=likeliest)
            if high > low and one.shapes[0].slots > 1:
                finer = np.setdiff1d(np.linspace(low, high, 9), slopes)
                new = _explain(seen, one.shapes[0].slots, finer)
                fits[fits.index(one)] = _joined([one, new])
    joined = _joined(fits)
    near = np.flatnonzero(joined.likelihood.sum(1) > joined.likelihood.sum(1).max() - POSSIBLE)
    return Fit([joined.shapes[i] for i in near], joined.likelihood[near], joined.work[near])


def _joined(fits: list[Fit]) -> Fit:
    shapes, likelihood, work = zip(*fits, strict=True)
    return Fit(sum(shapes, []), np.concatenate(likelihood), np.concatenate(work))


def draws(seen: Seen, n_draws: int, length: int, rng: np.random.Generator) -> Draws:
    """Refit the shape to weights of blocks of requests, and resample their work by the same."""
    fitted, peak = fit(seen), int(seen.in_flight()[1].max())
    n = fitted.likelihood.shape[1]
    weights = rng.exponential(1.0, (n_draws, -(-n // BLOCK)))
    each = np.repeat(weights, BLOCK, axis=1)[:, :n]
    chosen = np.argmax(each @ fitted.likelihood.T, axis=1)
    work = np.empty((n_draws, length))
    for row, (which, weight) in enumerate(zip(chosen, weights, strict=True)):
        turns = rng.choice(len(weight), -(-length // BLOCK), p=weight / weight.sum())
        places = (turns[:, None] * BLOCK + np.arange(BLOCK)).ravel()[:length] % n
        work[row] = np.maximum(fitted.work[which, places], 0.0)
    return Draws([fitted.shapes[i] for i in chosen], work, peak)


def simulate(due: Floats, work: Floats, shapes: list[Shape]) -> Floats:
    """Latencies of requests due at some times (lane x request) at servers that start empty.

    One event a step in every lane, an arrival or an end; work done is counted alike for all in
    service. Requests that never end have none.
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

    Rates are tried as shares of the most it could finish, roughly by a few draws, then around
    that by all of them. Two halves of a simulation differ by luck alone, which is taken out.
    """
    few, n = Draws(drawn.shapes[:8], drawn.work[:8], drawn.peak), drawn.work.shape[1]
    rough = np.median(_crossings(few, SHARES, n // 4, slo_s, rng))
    around = np.clip(rough, 0.03, 1.0) * AROUND
    halves = drawn.most() * _crossings(drawn, around, n, slo_s, rng)
    rates = halves.mean(0)
    if not np.isfinite(rates).all():
        return np.asarray(rates)
    luck = np.var(halves[0] - halves[1]) / 4
    real = math.sqrt(max(1 - luck / max(np.var(rates), 1e-12), 0.0))
    return np.asarray(np.median(rates) + real * (rates - np.median(rates)))


def _crossings(
    drawn: Draws, shares: Floats, n: int, slo_s: float, rng: np.random.Generator
) -> Floats:
    """At which share of the most it could finish a draw misses too often (half x draw)."""
    rates = shares * drawn.most()[:, None]
    due = np.cumsum(rng.exponential(1.0, (len(rates), 1, n)), axis=2) / rates[..., None]
    lanes = np.repeat(np.arange(len(rates)), len(shares))
    shapes = [drawn.shapes[i] for i in lanes]
    late = simulate(due.reshape(-1, n), drawn.work[lanes, :n], shapes)[:, n // 20 :] > slo_s
    crossings = []
    for half in np.array_split(late, 2, axis=1):
        misses = np.maximum(half.mean(1), 1e-4).reshape(rates.shape)
        logs = np.log(np.maximum.accumulate(misses, axis=1))
        wanted = math.log(MISSES)
        crossings.append([np.interp(wanted, row, shares, right=math.inf) for row in logs])
    return np.array(crossings)
