"""A queue that explains what was seen under load, and the load it bears within the SLO.

The model: `slots` first-come places, each request a requirement S of work, all in service slowed
alike by s(k) = 1 + a max(0, k - from_k) where k are in service. Under given slots and slowdown the
requirement of every request follows from when requests came and went, so each of them speaks for
every parameter. Slots and slowdown are refitted in every draw of a weighted likelihood bootstrap
(Newton and Raftery 1994), by blocks of requests, and so are carried into the interval.
"""

import heapq
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ANY = 10**6  # slots that are never all taken
MOST = 512  # in service at once in a simulation
MISSES = 0.05  # p95 within the SLO means at most this share outside it
BLOCK = 24  # requests that are resampled together, as a stall meets several
SLOTS = [*range(1, 25), 26, 28, 30, 32, 36, 40, 48, 56, 64, 80, 96, 128, 192, 256]
STEEPNESS = np.array([0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0, 1.15])
UNLIKELY = 10.0  # nats below the rest for a request that a model cannot explain
SIMPLER = 2.0  # nats that a slowdown must gain over none


class Seen(NamedTuple):
    """Requests of all loads on one clock, by arrival; `late_s` is infinite for one cut short."""

    came: Floats
    went: Floats
    answered: NDArray[np.bool_]


class Shape(NamedTuple):
    """Slots, and the slowdown by requests in service."""

    slots: int
    from_k: int
    slope: float

    def slowdown(self, k: NDArray[np.number]) -> Floats:
        """How many times slower k requests in service are than one."""
        slower: Floats = 1.0 + self.slope * np.maximum(0.0, np.asarray(k, float) - self.from_k)
        return slower


class Fit(NamedTuple):
    """Shapes that may be, each request's log-likelihood and requirement under each of them."""

    shapes: list[Shape]
    likelihood: Floats  # shape x request
    work: Floats  # shape x request; below zero: not explained
    peak: int  # most requests in flight that were seen

    @property
    def best(self) -> int:
        """The likeliest shape."""
        return int(np.argmax(self.likelihood.sum(1) - _penalty(self.shapes)))


def _penalty(shapes: list[Shape]) -> Floats:
    return np.array([SIMPLER * (shape.slope > 0) for shape in shapes])


def _timeline(seen: Seen, slots: int) -> tuple[Floats, Floats, Ints, Ints]:
    """Starts under first come, first served; event times and requests in service after each.

    Last, how many were in service as each request went.
    """
    starts, last = np.empty(len(seen.came)), list[float]()
    for i, (came, went) in enumerate(zip(seen.came.tolist(), seen.went.tolist(), strict=True)):
        starts[i] = came if len(last) < slots else max(came, last[0])
        if len(last) < slots:
            heapq.heappush(last, went)
        else:
            heapq.heappushpop(last, went)
    times = np.concatenate([seen.came, seen.went])
    order = np.argsort(times, kind="stable")
    steps = np.repeat([1, -1], len(seen.came))[order]
    inside = np.minimum(np.cumsum(steps), slots)
    at = np.empty(len(times), int)
    at[order] = np.arange(len(times))
    before = inside[np.maximum(at[len(seen.came) :] - 1, 0)]
    return starts, times[order], inside, np.maximum(before, 1)


def _density(y: Floats) -> Floats:
    """The log-density of each value by all others: a Gaussian kernel on a grid, with outliers."""
    spread = min(float(np.std(y)), float(np.subtract(*np.quantile(y, [0.75, 0.25]))) / 1.34)
    h, n = max(0.9 * spread * len(y) ** -0.2, 0.01), len(y)
    low, step = y.min() - 4 * h, h / 4
    place = (y - low) / step
    left = place.astype(int)
    share = place - left
    counts = np.bincount(left, 1 - share, left.max() + 18)
    counts += np.bincount(left + 1, share, left.max() + 18)
    kernel = np.exp(-0.5 * (np.arange(-16, 17) / 4) ** 2) / (h * math.sqrt(2 * math.pi))
    smooth = np.convolve(counts, kernel, "same")
    f = smooth[left] * (1 - share) + smooth[left + 1] * share
    others = np.maximum(f - kernel[16] * ((1 - share) ** 2 + share**2), 0) / max(n - 1, 1)
    result: Floats = np.log(0.99 * others + 0.01 / 16)
    return result


def _try(seen: Seen, slots: int, from_ks: list[int], slopes: Floats | None) -> Fit:
    starts, times, inside, at_end = _timeline(seen, slots)
    gaps, peak = np.diff(times, append=times[-1]), int(inside.max())
    shapes = []
    for from_k in from_ks:
        if from_k == 1 or from_k < min(slots, peak):
            grid = STEEPNESS / from_k if slopes is None else slopes
            first = 0 if from_k == from_ks[0] or slopes is not None else 1
            shapes += [Shape(slots, from_k, float(a)) for a in grid[first if peak > 1 else 0 :]]
    if peak == 1:
        shapes = [Shape(slots, 1, 0.0)]
    likelihood, work = [], []
    use = seen.answered
    usual = float(np.median((seen.went - seen.came)[use]))
    for shape in shapes:
        done = np.concatenate([[0.0], np.cumsum(gaps / shape.slowdown(inside))])[:-1]
        s = np.interp(seen.went, times, done) - np.interp(starts, times, done)
        s = np.where(starts > seen.went, -1.0, s)[use]
        fine = s > usual * 1e-4
        terms = np.full(len(s), -UNLIKELY - math.log(usual))
        if fine.sum() > 0.9 * len(s):
            y = np.log(s[fine])
            terms[fine] = _density(y) - y
        likelihood.append(terms - np.log(shape.slowdown(at_end[use])))
        work.append(s)
    return Fit(shapes, np.array(likelihood), np.array(work), peak)


def _joined(fits: list[Fit], keep: float) -> Fit:
    shapes = [shape for fit in fits for shape in fit.shapes]
    likelihood = np.concatenate([fit.likelihood for fit in fits])
    work, total = np.concatenate([fit.work for fit in fits]), likelihood.sum(1) - _penalty(shapes)
    near = np.flatnonzero(total > total.max() - keep)
    return Fit([shapes[i] for i in near], likelihood[near], work[near], max(f.peak for f in fits))


def fit(seen: Seen) -> Fit:
    """Fit slots and slowdown to all requests; keeps every shape that is not out of the question."""
    peak = int(_timeline(seen, ANY)[2].max())
    slots = [*(s for s in SLOTS if s < peak), ANY]
    joined = _joined([_try(seen, s, [1, 4, 16], None) for s in slots], 60.0)
    for _ in range(3 if peak > 1 else 0):  # finer slopes, beside the likeliest ones
        fits = [joined]
        best: dict[tuple[int, int], Shape] = {}
        for i in np.argsort(-joined.likelihood.sum(1)):
            best.setdefault(joined.shapes[i][:2], joined.shapes[i])
        for shape in list(best.values())[:4]:
            slopes = np.array([s.slope for s in joined.shapes if s[:2] == shape[:2]])
            unit = 0.01 / shape.from_k
            low = slopes[slopes < shape.slope].max(initial=max(0.0, shape.slope - unit))
            high = slopes[slopes > shape.slope].min(initial=shape.slope + 30 * unit)
            new = np.setdiff1d(np.linspace(low, high, 9), slopes)
            if len(new) and shape.slots > 1:
                fits.append(_try(seen, shape.slots, [shape.from_k], new))
        joined = _joined(fits, 40.0)
    return joined


def clumped(fitted: Fit, last: int) -> bool:
    """Whether long requirements come together, as in a stall, among the last requests."""
    work = fitted.work[fitted.best, -last:]
    if np.std(work) < 0.05 * np.mean(work):
        return False
    work = np.minimum(work, 20 * np.median(work))
    work = work - work.mean()
    correlation = float(np.mean(work[1:] * work[:-1]) / np.mean(work**2))
    return correlation > max(0.2, 4 / math.sqrt(len(work)))


class Draws(NamedTuple):
    """Models that the data leave possible: a shape each, and its sequence of requirements."""

    shapes: list[Shape]
    work: Floats  # draw x request of a simulation
    mean: Floats
    peak: int


def stalled(fitted: Fit, came: Floats, rate: float) -> Floats:
    """Weights of requests: a stall comes by the hour, not by the request.

    Blocks with long requirements weigh by how much more often one falls into so many requests at
    a rate than into so many of theirs.
    """
    blocks = np.arange(len(came)) // BLOCK
    work = fitted.work[fitted.best]
    longest = np.maximum.reduceat(work, np.arange(0, len(came), BLOCK))
    ends = came[np.minimum((np.arange(blocks[-1] + 1) + 1) * BLOCK, len(came) - 1)]
    gaps = np.maximum((ends - came[::BLOCK]) / BLOCK, 1e-9)
    scale = np.where(longest > 2.5 * np.median(work), np.clip(1 / (rate * gaps), 0.3, 3), 1.0)
    return np.asarray(scale[blocks], float)


def draws(
    fitted: Fit, n_draws: int, length: int, rng: np.random.Generator, scale: Floats | None = None
) -> Draws:
    """Refit the shape to weights of the requests, and resample requirements by the same."""
    n = fitted.likelihood.shape[1]
    blocks = np.arange(n) // BLOCK
    weights = rng.exponential(1.0, (n_draws, blocks[-1] + 1))[:, blocks]
    if scale is not None:  # and how often stalls come is known from a few
        weights *= np.where(scale != 1, scale * np.exp(rng.normal(0, 0.4, (n_draws, 1))), 1.0)
    weights /= weights.mean(1, keepdims=True)
    chosen = np.argmax(weights @ fitted.likelihood.T - _penalty(fitted.shapes), axis=1)
    works, means = np.empty((n_draws, length)), np.empty(n_draws)
    for row, (which, weight) in enumerate(zip(chosen, weights, strict=True)):
        work = np.maximum(fitted.work[which], 0.0)
        means[row] = np.average(work, weights=weight)
        cumulated = np.cumsum(weight[::BLOCK])
        turns = -(-length // BLOCK)
        first = np.searchsorted(cumulated, rng.random(turns) * cumulated[-1]) * BLOCK
        places = (first[:, None] + np.arange(BLOCK)).ravel()[:length] % n
        works[row] = work[places]
    return Draws([fitted.shapes[i] for i in chosen], works, means, fitted.peak)


def simulate(due: Floats, work: Floats, shapes: list[Shape]) -> Floats:
    """Latencies of requests due at some times (lane x request) at servers that start empty."""
    plain = np.array([shape.slope == 0 and shape.slots < ANY for shape in shapes])
    latency = np.empty(work.shape)
    for rows, run in ((np.flatnonzero(plain), _first_come), (np.flatnonzero(~plain), _slowed)):
        if len(rows):
            latency[rows] = run(due[rows], work[rows], [shapes[i] for i in rows])
    return latency


def _first_come(due: Floats, work: Floats, shapes: list[Shape]) -> Floats:
    slots = np.array([shape.slots for shape in shapes])
    free = np.where(np.arange(slots.max()) < slots[:, None], 0.0, np.inf)
    flat, rows = free.reshape(-1), np.arange(len(slots)) * slots.max()
    latency = np.empty((work.shape[1], len(slots)))
    for i, (now, need) in enumerate(zip(due.T.copy(), work.T.copy(), strict=True)):
        place = rows + free.argmin(1)
        ends = np.maximum(flat[place], now) + need
        flat[place] = ends
        np.subtract(ends, now, out=latency[i])
    result: Floats = latency.T
    return result


def _slowed(due: Floats, work: Floats, shapes: list[Shape]) -> Floats:
    """One event a step in every lane; work done is counted alike for all in service."""
    (lanes, n), most = work.shape, MOST
    slots = np.minimum([shape.slots for shape in shapes], most)
    table = np.array([s.slowdown(np.arange(most + 1)) for s in shapes])
    rows, columns = np.arange(lanes), int(min(slots.max(), 8))
    ends, who = np.full((lanes, columns), np.inf), np.zeros((lanes, columns), int)
    came, started, inside = (np.zeros(lanes, int) for _ in range(3))
    now, done, latency = np.zeros(lanes), np.zeros(lanes), np.full((lanes, n), np.nan)
    due, work = np.c_[due, np.full(lanes, np.inf)], np.c_[work, np.zeros(lanes)]
    for _ in range(2 * n):
        slow = table[rows, inside]
        first = ends.argmin(1)
        t_end = now + (ends[rows, first] - done) * slow
        t_next = due[rows, came]
        leaves = t_end <= t_next
        then = np.minimum(t_end, t_next)
        done += np.where(np.isfinite(then), then - now, 0.0) / slow
        now = np.where(np.isfinite(then), then, now)
        # Who leaves frees a place; who comes waits, or takes a free one.
        out = np.flatnonzero(leaves & np.isfinite(then))
        index = who[out, first[out]]
        latency[out, index] = now[out] - due[out, index]
        ends[out, first[out]] = np.inf
        inside[out] -= 1
        came += ~leaves & np.isfinite(then)
        begins = np.flatnonzero((started < came) & (inside < slots))
        if len(begins) and inside[begins].max() >= ends.shape[1]:
            ends = np.c_[ends, np.full(ends.shape, np.inf)]
            who = np.c_[who, np.zeros_like(who)]
        place = ends[begins].argmax(1)
        ends[begins, place] = done[begins] + work[begins, started[begins]]
        who[begins, place] = started[begins]
        started[begins] += 1
        inside[begins] += 1
    return latency


def bearable(drawn: Draws, slo_s: float, rng: np.random.Generator, failing: float = 0.0) -> Floats:
    """For each draw the Poisson rate at which 5 % are late or fail; infinite: beyond what was seen.

    Rates are tried as shares of what the server could finish; the same luck for all of them.
    """
    n_draws, n = drawn.work.shape
    if any(shape.slope or shape.slots == ANY for shape in drawn.shapes):
        n //= 2  # which is slower
    k = [np.arange(1, min(s.slots, 2 * drawn.peak) + 1) for s in drawn.shapes]
    most = np.array([(i / s.slowdown(i)).max() for i, s in zip(k, drawn.shapes, strict=True)])
    most /= drawn.mean
    allowed = (MISSES - failing) / (1 - failing)
    if allowed <= 0:
        return np.zeros(n_draws)
    due = np.cumsum(rng.exponential(1.0, (n_draws, n)), axis=1)

    def misses(shares: Floats, rows: Ints, length: int) -> Floats:
        """Share of late requests (row x share)."""
        lanes = np.repeat(rows, shares.shape[1])
        rates = (shares * most[rows, None]).ravel()
        shapes = [drawn.shapes[i] for i in lanes]
        late = simulate(due[lanes, :length] / rates[:, None], drawn.work[lanes, :length], shapes)
        skipped = length // 20
        share: Floats = (~(late[:, skipped:] <= slo_s)).mean(1)
        return share.reshape(len(rows), -1)

    # Roughly where, by a few draws; then all draws around it.
    few = np.arange(min(n_draws, 8))
    coarse = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.78, 0.85, 0.91, 0.96, 1.02])
    wide = misses(np.tile(coarse, (len(few), 1)), few, n // 4)
    middle = np.median([_crossing(coarse, row, allowed) for row in wide])
    fine = np.clip(middle, 0.03, 1.0) * np.array([0.6, 0.75, 0.86, 0.93, 1.0, 1.06, 1.13, 1.3])
    all_ = np.arange(n_draws)
    narrow = misses(np.tile(fine, (n_draws, 1)), all_, n)
    rates: Floats = most * np.array([_crossing(fine, row, allowed) for row in narrow])
    return rates


def _crossing(shares: Floats, misses: Floats, allowed: float) -> float:
    """Where misses reach what is allowed, straight in the logarithm between two shares."""
    misses = np.maximum.accumulate(misses)
    if misses[0] >= allowed:
        return float(shares[0] * allowed / misses[0])
    if misses[-1] < allowed:
        return math.inf
    at = int(np.argmax(misses >= allowed))
    a, b = np.log(np.maximum(misses[at - 1 : at + 1], 1e-4))
    part = (math.log(allowed) - a) / (b - a)
    return float(shares[at - 1] + part * (shares[at] - shares[at - 1]))
