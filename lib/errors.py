"""What a user reads of a run: one sentence where it must stop, and a bar while it goes on."""

import contextlib
import difflib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from IPython import display, get_ipython
from tqdm import tqdm

MOST_SENTENCES = 40


class PlaybookError(Exception):
    """A sentence a stranger can act on: what, where, and what to do next.

    Whatever it quotes, a line is of bounded length, without what a terminal obeys.
    """

    def __init__(self, text: str) -> None:
        super().__init__("\n".join(plain(line, 500) for line in text.split("\n")))


def plain(line: str, most: int = 10_000) -> str:
    """A line, cut in its middle, in which a terminal finds nothing to obey."""
    line = line if len(line) <= most else f"{line[: most // 2]} … {line[-most // 2 :]}"
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in line)


def did_you_mean(word: str, names: Iterable[str], *, most: int = 1, otherwise: str = "") -> str:
    """The end of such a sentence: up to `most` names near a word, else `otherwise` or all names."""
    choices = {_sorted_words(name): name for name in names}
    if near := difflib.get_close_matches(_sorted_words(word), choices, n=most):
        return f"did you mean {' or '.join(repr(choices[key]) for key in near)}?"
    return otherwise or f"known: {', '.join(choices.values())}"


def _sorted_words(name: str) -> str:
    """A name by its words, so that `usd_per_million_output` is near `output_usd_per_million`."""
    return " ".join(sorted(re.findall(r"[^\W_]+", name.casefold())))


def in_one_list(problems: Iterable[str]) -> str:
    """All problems at once: a sentence alone, or how many there are and a line for most."""
    parts = [problem.split("\n- ") for problem in problems]  # one may be such a list itself
    lines = list(dict.fromkeys(line for part in parts for line in part[1:] or part))
    if len(lines) == 1:
        return lines[0]
    many = len(lines) if len(lines) <= MOST_SENTENCES else f"more than {MOST_SENTENCES}"
    return "\n- ".join([f"{many} problems:", *lines[:MOST_SENTENCES]])


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
