"""How long a server asks us to wait, and secrets as pages and queries spell them."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from lib.untrusted import retry_after, without


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "Mon, 99 Foo"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_a_date() -> None:
    seconds = retry_after({"retry-after": formatdate(time.time() + 9000, usegmt=True)})
    assert seconds is not None and 1000 < seconds <= 9000
    assert retry_after({"retry-after": formatdate(time.time() - 30, usegmt=True)}) == 0


@pytest.mark.parametrize(
    "spelling",
    [
        "kC%252Fanary%252Babc%20key",  # encoded again by a redirect
        "kC&#x2F;anary&#43;abc key",  # a page that escapes
        "kC/anary+abc+key",  # a + in a query, which is read as a space
    ],
)
def test_a_secret_is_found_as_pages_and_queries_spell_it(spelling: str) -> None:
    assert without(["kC/anary+abc key"], f"x {spelling} y") == "x *** y"
