"""That something is little work, on whatever machine and beside whatever else it does."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


@contextlib.contextmanager
def little_work() -> Iterator[None]:
    """At most two minutes of this process's own CPU time, where the wrong algorithm takes hours."""
    start = time.process_time()
    yield
    assert time.process_time() - start < 120
