"""A progress bar with rate and time left, on standard error; `TQDM_DISABLE=1` hides it."""

from typing import Any

from tqdm import tqdm


def bar(total: int, what: str, *, show: bool = True) -> "tqdm[Any]":
    """A bar for `total` steps of something."""
    # Only where it is not passed does tqdm look at TQDM_DISABLE.
    hidden = {} if show else {"disable": True}
    return tqdm(total=total, desc=what, mininterval=1.0, **hidden)
