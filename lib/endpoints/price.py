"""What a deployment costs: by the hour or by token, never zero where it is not known."""

from __future__ import annotations

from typing import NamedTuple

import genai_prices
import pandas as pd

from lib.brief.project import Deployment, Price
from lib.errors import PlaybookError

__all__ = ["Rate", "price_of"]


class Rate(NamedTuple):
    """What a deployment costs: by the hour or by million tokens, and where that comes from."""

    usd_per_hour: float | None
    input_usd_per_million: float | None
    output_usd_per_million: float | None
    basis: str


def price_of(deployment: Deployment, hardware: pd.DataFrame) -> Rate:
    """The price of a deployment: the brief's, genai-prices', or the machine's list price.

    Raises:
        PlaybookError: No price is known; an unknown price is never taken for zero.
    """
    price = deployment.price
    if price is None:
        return _machine_price(deployment, hardware)
    if price.provider:
        return _provider_price(deployment, price)
    basis = price.basis + (f" ({price.source_url})" if price.source_url else "")
    return Rate(
        price.usd_per_hour, price.input_usd_per_million, price.output_usd_per_million, basis
    )


def _machine_price(deployment: Deployment, hardware: pd.DataFrame) -> Rate:
    priced = hardware.dropna(subset=["usd_per_hour"]).set_index("hardware")
    if deployment.hardware not in priced.index:
        raise PlaybookError(
            f"deployment {deployment.name!r}: data/hardware.csv has no price for"
            f" {deployment.hardware!r}; give price in the brief or one of {', '.join(priced.index)}"
        )
    row = priced.loc[[deployment.hardware or ""]].iloc[0]
    return Rate(float(row["usd_per_hour"]), None, None, f"{row['price_basis']}, data/hardware.csv")


def _provider_price(deployment: Deployment, price: Price) -> Rate:
    model = price.model or deployment.model
    # A request's worth: a million tokens at once would be in the tier for long prompts.
    thousand = genai_prices.Usage(input_tokens=1_000, output_tokens=1_000)
    try:
        quote = genai_prices.calc_price(thousand, model_ref=model, provider_id=price.provider)
        if None in (quote.model_price.input_mtok, quote.model_price.output_mtok):
            raise LookupError  # listed without a price, which calc_price takes for zero
    except LookupError:
        raise PlaybookError(
            f"deployment {deployment.name!r}: genai-prices knows no price of {model!r} at"
            f" {price.provider!r}; give price.model as that provider names it, or"
            " input_usd_per_million and output_usd_per_million"
        ) from None
    return Rate(
        None,
        float(quote.input_price * 1000),
        float(quote.output_price * 1000),
        f"list price of {price.provider}, genai-prices",
    )
