"""How long a server asks us to wait."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from lib.untrusted import retry_after


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
