"""What a deployment costs: at the traffic of the brief, or at full use where it states none."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lib.brief import Deployment, Project, Requirements, Traffic
from lib.endpoints import Rate, price_of, usd_of_answers
from lib.stats import bootstrap
from lib.tables import number, percent

NAN = float("nan")
ENDS = ("", "_low", "_high")
PER_REQUEST = [f"usd_per_request{end}" for end in ENDS]
PRICES = [f"usd_per_{of}{end}" for of in ("month", "1k") for end in ENDS]
HOURS, DAYS = 730.0, 365 / 12  # of a month
REPORTED = 0.95  # the least share of answers with token counts that may speak for all
VOLUMES = np.geomspace(100, 1e8, 601)  # requests a day at which costs are compared
UNMEASURED = {"max_rps": NAN, "low": NAN, "high": NAN, "basis": "not measured"}
COLUMNS = "deployment hardware price price_basis cost_basis replicas utilisation machines".split()
COLUMNS += [*PRICES, "usd_per_hour", "rps", "rps_most", *PER_REQUEST, "peak_rps"]

Amounts = NDArray[np.float64]
Bounds = tuple[float, float, float]


def cost(
    brief: Project, capacity: pd.DataFrame, answers: pd.DataFrame, hardware: pd.DataFrame
) -> pd.DataFrame:
    """Dollars of every deployment that was asked, loaded or published, with 95 % intervals.

    With `traffic` in the brief they are those of a month (730 hours) at that traffic, and 1,000
    requests cost the month by its requests: a machine by the hour is paid for however little it
    does, `replicas` of it bear the peak at the lower bound of the capacity, and `utilisation` is
    the share of it that is used. Without `traffic` an hourly price is divided by the capacity,
    which is the cost at full use. A token price is multiplied by the tokens of the answers, with
    a bootstrap interval. What is not known is missing, never zero. No machine is added for what is
    priced by token: it must bear `peak_rps` as it is.
    """
    loads = capacity.set_index("deployment").to_dict("index")
    answers_by_name = {name: rows for name, rows in answers.groupby("deployment")}
    with_figures = [d for d in brief.deployments if d.name in loads or d.name in answers_by_name]
    rows = []
    for deployment in with_figures:
        load: Mapping[Any, Any] = loads.get(deployment.name, UNMEASURED)
        rate = price_of(deployment, hardware)
        row = _parts(deployment, rate, load, answers_by_name.get(deployment.name, answers[:0]))
        rows.append(row | _bill(row, brief.traffic, brief.requirements))
    return pd.DataFrame(rows, columns=COLUMNS)


def _parts(
    deployment: Deployment, rate: Rate, load: Mapping[Any, Any], answers: pd.DataFrame
) -> dict[str, Any]:
    """What a bill is made from: dollars an hour and the load that they bear, or of a request."""
    words = f"${number(rate.usd_per_hour or 0, digits=6)}/hour"
    least, most, per_request = load["max_rps"], load["high"], (NAN, NAN, NAN)
    if load["basis"].startswith("published"):
        most = NAN  # which has no interval
    else:
        least, most = load["low"], np.inf if np.isnan(most) else most
    if rate.usd_per_hour is None:
        in_, out = rate.input_usd_per_million, rate.output_usd_per_million
        each = [number(float(usd), digits=6) for usd in (in_, out) if usd is not None]
        words = "${} in, ${} out per million tokens".format(*each)
        per_request = _per_request(deployment, rate, answers)
    return {
        "deployment": deployment.name,
        "hardware": deployment.hardware or "hosted",
        "price": words,
        "price_basis": rate.basis,
        "usd_per_hour": NAN if rate.usd_per_hour is None else rate.usd_per_hour,
        "rps": least if least > 0 else NAN,
        "rps_most": most if least > 0 else NAN,
    } | dict(zip(PER_REQUEST, per_request, strict=True))


def _per_request(deployment: Deployment, rate: Rate, answers: pd.DataFrame) -> Bounds:
    """The mean dollars of an answer; a few that count their tokens do not speak for all."""
    answers = answers[answers["outcome"] != "failed"]
    used = answers.dropna(subset=["prompt_tokens", "completion_tokens"])
    if used.empty or len(used) < REPORTED * len(answers):
        return NAN, NAN, NAN
    dollars = np.array(usd_of_answers(deployment, rate, used))
    return bootstrap(lambda rows: float(dollars[rows].mean()), len(dollars))


def _bill(
    row: Mapping[str, Any], traffic: Traffic | None, requirements: Requirements
) -> dict[str, Any]:
    """A month's dollars and those of 1,000 requests, with replicas and their utilisation."""
    thousand = [row[name] * 1000 for name in PER_REQUEST]
    hourly = not np.isnan(row["usd_per_hour"])
    figures: dict[str, Any] = dict.fromkeys(["replicas", "utilisation", "peak_rps"], NAN)
    figures |= {"cost_basis": "per token", "machines": ""}
    months = [NAN] * 3
    if traffic:
        volume = np.array([traffic.requests_per_day])
        months = [float(usd[0]) for usd in monthly(row, traffic, requirements, volume)]
        figures["cost_basis"] = f"at {traffic.requests_per_day:,.0f} requests a day"
        if hourly:
            replicas = float(_replicas(row["rps"], traffic, requirements, volume)[0])
            used = traffic.requests_per_day / 86_400 / (replicas * row["rps"]) if replicas else NAN
            thousand = [usd / (traffic.requests_per_day * DAYS) * 1000 for usd in months]
            figures |= {"replicas": replicas or NAN, "utilisation": used}
            spare = f" ({traffic.spare} spare)" * bool(traffic.spare)
            count = f"{replicas:.0f} machine{'s' * (replicas > 1)}{spare}"
            figures["machines"] = f"{count} at {row['price']}, {percent(used)} used" * (used > 0)
        else:
            figures["peak_rps"] = traffic.requests_per_day / 86_400 * traffic.peak_factor
    elif hourly:
        figures["cost_basis"] = "at full use: the brief states no traffic"
        usd = row["usd_per_hour"] / 3.6  # per 1,000 requests, at one a second
        dearest, least = usd / row["rps"], usd / row["rps_most"]
        # What no load broke has no least cost.
        thousand = [dearest, least or NAN, NAN if np.isnan(least) else dearest]
    return figures | dict(zip(PRICES, [*months, *thousand], strict=True))


def _replicas(
    rps: float, traffic: Traffic, requirements: Requirements, volumes: Amounts
) -> Amounts:
    """Machines that bear the peak, or `min_rps` where it is more; 0 where they run by need."""
    peak = np.maximum(volumes / 86_400 * traffic.peak_factor, requirements.min_rps or 0.0)
    if not traffic.min_replicas:
        return np.zeros_like(volumes)
    return np.maximum(np.ceil(peak / rps - 1e-9), traffic.min_replicas) + traffic.spare


def monthly(
    row: Mapping[str, Any], traffic: Traffic, requirements: Requirements, volumes: Amounts
) -> tuple[Amounts, Amounts, Amounts]:
    """Dollars a month at so many requests a day, with their bounds, from a row of `cost`.

    An hourly price is planned at the lower bound of the capacity. With `min_replicas: 0` machines
    are paid for in whole hours of work a day, the best that scaling to zero can do.
    """
    if np.isnan(row["usd_per_hour"]):
        value, low, high = (volumes * DAYS * row[name] for name in PER_REQUEST)
        return value, low, high

    def dollars(rps: float) -> Amounts:
        hours = _replicas(rps, traffic, requirements, volumes) * HOURS
        if not traffic.min_replicas:
            hours = np.ceil(volumes / rps / 3600 - 1e-9) * DAYS + traffic.spare * HOURS
        return hours * float(row["usd_per_hour"])

    planned_usd, best_usd = dollars(row["rps"]), dollars(row["rps_most"])
    return planned_usd, best_usd, np.where(np.isnan(best_usd), NAN, planned_usd)


def dollar_signs(usd_per_1k: pd.Series[float]) -> pd.Series[str]:
    """`$` for the cheapest, one more `$` for each dearer configuration, at most five."""
    return usd_per_1k.rank(method="dense").clip(upper=5).fillna(0).map(lambda n: "$" * int(n))


def total_load(table: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """The load that all replicas of every row bear: `borne_rps borne_low borne_high`."""
    machines = table["replicas"].where(table["replicas"] > 0, 1.0).fillna(1.0)
    names = {"borne_rps": "max_rps", "borne_low": "rps_low", "borne_high": "rps_high"}
    return {name: table[of] * machines for name, of in names.items()}


def at_traffic(table: pd.DataFrame, brief: Project) -> pd.DataFrame:
    """The rows of `tradeoffs` as they would be at another traffic or `min_rps`, in `brief`."""
    records: list[dict[Any, Any]] = table.to_dict("records")
    bills = [_bill(row, brief.traffic, brief.requirements) for row in records]
    table = table.assign(**pd.DataFrame(bills, index=table.index))
    return table.assign(**total_load(table))


def by_volume(brief: Project, costs: pd.DataFrame) -> pd.DataFrame:
    """Dollars a month over requests a day: `deployment hourly requests_per_day usd low high`."""
    traffic = brief.traffic or Traffic(requests_per_day=1.0)
    points: list[tuple[Any, ...]] = []
    for row in costs.to_dict("records"):
        who = row["deployment"], not np.isnan(row["usd_per_hour"])
        dollars = monthly(row, traffic, brief.requirements, VOLUMES)  # type: ignore[arg-type]
        points += [(*who, *point) for point in zip(VOLUMES, *dollars, strict=True)]
    return pd.DataFrame(points, columns="deployment hourly requests_per_day usd low high".split())


def crossings(brief: Project, costs: pd.DataFrame) -> pd.DataFrame:
    """From how many requests a day on a machine by the hour is never again dearer than an API.

    Columns: `machine api requests_per_day low high`, in which a volume may be the word `never`.
    The bounds hold the better end of one cost against the worse of the other.
    """
    hourly, rows = costs["usd_per_hour"].notna(), []
    for machine, api in product(*(costs[own].to_dict("records") for own in (hourly, ~hourly))):
        usd, least, most = (api[name] for name in PER_REQUEST)
        rps, rps_most = machine["rps"], machine["rps_most"]
        pairs = (rps, usd), (rps_most, most), (np.minimum(rps, rps_most), least)
        turns = [_turn(brief, machine, *pair) for pair in pairs]
        words = ["never" if volume == np.inf else volume for volume in turns]
        rows.append((machine["deployment"], api["deployment"], *words))
    table = pd.DataFrame(rows, columns="machine api requests_per_day low high".split())
    return table.dropna(subset="requests_per_day")


def _turn(brief: Project, machine: Mapping[Any, Any], rps: float, usd: float) -> float:
    """The last volume at which the steps of `monthly` cross `usd` a request; infinite for none."""
    traffic, hour = brief.traffic or Traffic(requests_per_day=1.0), machine["usd_per_hour"]
    least, step, price = float(np.isfinite(rps)), rps * 3600, hour * DAYS  # paid by need
    if traffic.min_replicas:
        step, price = rps * 86_400 / traffic.peak_factor, hour * HOURS
        least = max(np.ceil((brief.requirements.min_rps or 0) / rps - 1e-9), traffic.min_replicas)
    token, spare = usd * DAYS, hour * HOURS * traffic.spare
    saving = token * step - price if token else -np.inf  # of a machine in full use
    if not saving > 0:
        return NAN if np.isnan(saving) else np.inf
    # For good from where these pay for the spare ones and for one more that has no work yet.
    count = max(least, np.ceil((price + spare) / saving - 1e-9))
    return float(count * price + spare) / token
