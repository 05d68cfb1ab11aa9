"""Values from outside (files, the Hub, endpoints): what is of another shape becomes nothing.

Replies are read up to a limit, and a secret that comes back is recognised.
"""

import base64
import contextlib
import functools
import math
import re
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, cast

import httpx2

MOST_BYTES = 2**23  # of a reply, as sent and unpacked: a long answer has a hundredth of it

# What a terminal takes for a command: control sequences, strings such as a title, single letters.
ESCAPES = re.compile(
    r"(?s)(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])"
    r"[^\x07\x1b\x9c]{0,500}(?:\x07|\x1b\\|\x9c)?|\x1b."
)


def as_dict(value: object) -> dict[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: object, most: int = 200) -> str | None:
    """Hostile text on one line: no escape sequences, control or direction characters, cut off."""
    text = ESCAPES.sub(" ", value[:10_000]) if isinstance(value, str) else ""
    text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())[:most] or None


def as_count(value: object) -> int | None:
    """A whole number from 0 that a table can hold."""
    return value if type(value) is int and 0 <= value < 2**63 else None


def as_number(value: object) -> float | None:
    """A finite number that a table can hold; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**63:
        return None
    return float(value) if math.isfinite(value) else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a server asks us to wait, given as a number or a date."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        with contextlib.suppress(ValueError):
            if 0 <= (seconds := float(headers.get(name, "")) / unit) < math.inf:
                return seconds
    with contextlib.suppress(ValueError, OverflowError, OSError):
        date = parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, date.timestamp() - time.time())
    return None


async def same_host_only(response: httpx2.Response) -> None:
    """Stop a redirect to another host: the item would go there, and its answer would count."""
    if response.has_redirect_location:
        here, there = response.url, response.url.join(response.headers["location"])
        upgrade = (here.scheme, there.scheme) == ("http", "https") and here.host == there.host
        if (here.scheme, here.netloc) != (there.scheme, there.netloc) and not upgrade:
            raise httpx2.TooManyRedirects("it sends us on to another host, which is not followed")


async def bounded(response: httpx2.Response) -> None:
    """Let a reply be read up to `MOST_BYTES`, both as it comes and when unpacked."""
    encoding = response.headers.pop("content-encoding", "identity")
    if "," in encoding:  # each layer multiplies
        raise httpx2.DecodingError("packed more than once")
    stream = cast(httpx2.AsyncByteStream, response.stream)
    once = _Limited(stream, stream.aclose)
    packed = httpx2.Response(200, headers={"content-encoding": encoding}, stream=once)
    response.stream = _Limited(packed.aiter_bytes(), packed.aclose)


class _Limited(httpx2.AsyncByteStream):
    """A stream that is an error once it is too long."""

    def __init__(self, parts: AsyncIterable[bytes], close: Callable[[], Awaitable[None]]) -> None:
        self._parts, self._close = parts, close

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        length = 0
        async for part in self._parts:
            length += len(part)
            if length > MOST_BYTES:
                raise httpx2.DecodingError(f"a reply of more than {MOST_BYTES >> 20} MiB")
            yield part

    async def aclose(self) -> None:
        await self._close()


def without(secrets: Iterable[str], text: str) -> str:
    """A text with *** for each of the secrets, in whatever spelling."""
    for secret in secrets:
        text = spellings(secret).sub("***", text)
    return text


@functools.lru_cache(maxsize=64)
def spellings(key: str) -> re.Pattern[str]:
    """What finds a key as it is, URL-encoded, as in JSON or HTML, and within base64."""
    content = key.encode()
    each = (
        r"(?:\\{{0,16}}{0}|%(?:25){{0,4}}(?i:{1:02x})|\\{{1,16}}u00(?i:{1:02x})"
        r"|&#(?:{1:d}|(?i:x0{{0,4}}{1:x}));)"  # no *: all may be backslashes
    )
    # A space is what a + in a query means.
    ways = ["".join(each.format(re.escape(chr(b)) if b != 32 else "[ +]", b) for b in content)]
    for before in range(3 if len(content) >= 8 else 0):  # bytes before it in its group of three
        padded = b"\0" * before + content
        text = base64.b64encode(padded).decode()
        # Without the characters that hang on what stands before and after.
        inner = re.escape(text[-(-before * 8 // 6) : len(padded) * 8 // 6])
        ways.append(inner.replace(r"\+", "[+-]").replace("/", "[/_]"))
    return re.compile("|".join(ways))
