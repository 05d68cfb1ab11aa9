"""The one error a user of the playbook should ever have to read."""

import difflib
from collections.abc import Iterable


class PlaybookError(Exception):
    """A sentence a stranger can act on: what, where, and what to do next."""


def did_you_mean(word: str, choices: Iterable[str], *, most: int = 1, otherwise: str = "") -> str:
    """The end of such a sentence: `did you mean 'x'?`, with up to `most` choices near the word.

    Where none is near it is `otherwise`, or all choices.
    """
    choices = list(choices)
    near = [repr(choice) for choice in difflib.get_close_matches(word, choices, n=most)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return otherwise or f"known: {', '.join(choices)}"
