"""What a user reads of a run: one sentence where it must stop, and a bar while it goes on."""

import contextlib
import difflib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from IPython import display, get_ipython
from tqdm import tqdm


class PlaybookError(Exception):
    """A sentence a stranger can act on: what, where, and what to do next."""


def did_you_mean(word: str, names: Iterable[str], *, most: int = 1, otherwise: str = "") -> str:
    """The end of such a sentence: `did you mean 'x'?`, with up to `most` names near it.

    Where none is near it is `otherwise`, or all names.
    """
    choices = {_sorted_words(name): name for name in names}
    if near := difflib.get_close_matches(_sorted_words(word), choices, n=most):
        return f"did you mean {' or '.join(repr(choices[key]) for key in near)}?"
    return otherwise or f"known: {', '.join(choices.values())}"


def _sorted_words(name: str) -> str:
    """A name by its words, so that `usd_per_million_output` is near `output_usd_per_million`."""
    return " ".join(sorted(re.findall(r"[^\W_]+", name.casefold())))


def in_one_list(problems: Iterable[str]) -> str:
    """All problems at once: a sentence alone, or how many there are and a line for each."""
    parts = [problem.split("\n- ") for problem in problems]  # one may be such a list itself
    lines = list(dict.fromkeys(line for part in parts for line in part[1:] or part))
    return lines[0] if len(lines) == 1 else "\n- ".join([f"{len(lines)} problems:", *lines])


@contextlib.contextmanager
def bar(total: int, what: str, *, show: bool = True) -> "Iterator[tqdm[Any]]":
    """A bar for `total` steps; in a notebook it is not red, no widget, and gone at the end."""
    # Only where it is not passed does tqdm look at TQDM_DISABLE.
    hidden, notebook = {} if show else {"disable": True}, get_ipython() is not None
    file = sys.stdout if notebook else sys.stderr
    with tqdm(total=total, desc=what, mininterval=1.0, file=file, **hidden) as progress:
        visible = not progress.disable
        yield progress
    if visible and notebook:
        display.clear_output()  # type: ignore[no-untyped-call]
