"""Time that jumps: an event loop whose clock goes to whatever is next, and a network in memory.

Under the fixture `virtual_time` calls and loads run on this loop and `openai_stub.running` serves
from memory, through the whole HTTP client. A minute then takes no time, and what is asserted
about speed is the same on a busy machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any, cast

import httpcore2
import openai_stub
import pytest
from openai_stub import Stub


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits: where only a timer is left, its moment is now."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        poll = self._selector.select  # type: ignore[attr-defined]

        def select(timeout: float | None) -> Any:
            if timeout is None:
                raise RuntimeError("nothing is left to wait for: outside virtual time this hangs")
            self.now += timeout
            return poll(0)

        self._selector.select = select  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Do it at once: the clock must not jump while a thread works."""
        future = self.create_future()
        future.set_result(func(*args))
        return future


def run(work: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
    """Run a coroutine function to its end on a loop of its own."""
    with contextlib.closing(VirtualLoop()) as loop:
        return loop.run_until_complete(work(*args))


class _Stream(httpcore2.AsyncNetworkStream):
    """The client's end of a connection; the stub's protocol has the other, a transport."""

    def __init__(self, stub: Stub) -> None:
        self.protocol = openai_stub.Connection(stub)
        self.received, self.arrived, self.over = bytearray(), asyncio.Event(), False
        transport = SimpleNamespace(write=self._feed, close=self._end, is_closing=self._is_over)
        self.protocol.connection_made(cast(asyncio.Transport, transport))

    def _feed(self, data: bytes) -> None:
        self.received += data
        self.arrived.set()

    def _end(self) -> None:
        if not self.over:
            self.over = True
            self.arrived.set()
            self.protocol.connection_lost(None)

    def _is_over(self) -> bool:
        return self.over

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            async with asyncio.timeout(timeout):
                await self.arrived.wait()
        except TimeoutError:
            raise httpcore2.ReadTimeout from None
        data = bytes(self.received[:max_bytes])
        del self.received[:max_bytes]
        if not self.received and not self.over:
            self.arrived.clear()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self.over:
            raise httpcore2.WriteError
        self.protocol.data_received(buffer)

    async def aclose(self) -> None:
        self._end()

    def get_extra_info(self, info: str) -> Any:
        return self.arrived.is_set() if info == "is_readable" else None


class Network(httpcore2.AsyncNetworkBackend):
    """All stubs of a test, by host and port, and the loop that they and their clients share."""

    def __init__(self) -> None:
        self.loop, self.stubs = VirtualLoop(), dict[tuple[str, int], Stub]()

    @contextlib.contextmanager
    def serving(self, stub: Stub) -> Iterator[Stub]:
        host, port = "127.0.0.1", 1024 + len(self.stubs)
        self.stubs[host, port] = stub
        stub.url = f"http://{host}:{port}/v1"
        yield stub

    async def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> _Stream:
        if (host, port) not in self.stubs:
            raise httpcore2.ConnectError(f"nobody serves at {host}:{port}")
        return _Stream(self.stubs[host, port])

    @contextlib.contextmanager
    def portal(self) -> Iterator[SimpleNamespace]:
        """What `runner.run_blocking` opens."""
        yield SimpleNamespace(call=lambda work, *args: self.loop.run_until_complete(work(*args)))


def install(monkeypatch: pytest.MonkeyPatch) -> Network:
    """Let calls and loads of `lib` go to this network, in its time."""
    network = Network()
    pool = functools.partial(httpcore2.AsyncConnectionPool, network_backend=network)
    monkeypatch.setattr(httpcore2, "AsyncConnectionPool", pool)
    monkeypatch.setattr(openai_stub, "in_memory", network.serving)
    # By name: what sets variables for `lib` must come before its import.
    runner = "lib.endpoints.runner"
    monkeypatch.setattr(f"{runner}.start_blocking_portal", network.portal)
    monkeypatch.setattr(f"{runner}.time", SimpleNamespace(monotonic=network.loop.time))
    return network


@pytest.fixture
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualLoop]:
    """Calls, loads and stubs in virtual time; the loop's `now` is the clock."""
    with contextlib.closing(install(monkeypatch).loop) as loop:
        yield loop
