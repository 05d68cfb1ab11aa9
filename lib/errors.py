"""The one error a user of the playbook should ever have to read."""

import difflib
from collections.abc import Iterable


class PlaybookError(Exception):
    """A sentence a stranger can act on: what, where, and what to do next."""


def did_you_mean(word: str, choices: Iterable[str], *, most: int = 1, otherwise: str = "") -> str:
    """The end of such a sentence: `did you mean 'x'?`, or what else to say where nothing is near.

    Args:
        word: What was written.
        choices: What may be written.
        most: Suggestions at most.
        otherwise: Said where no choice is near; left out, all choices are named.
    """
    choices = list(choices)
    near = [repr(choice) for choice in difflib.get_close_matches(word, choices, n=most)]
    return (
        f"did you mean {' or '.join(near)}?"
        if near
        else otherwise or f"known: {', '.join(choices)}"
    )
