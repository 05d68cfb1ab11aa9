"""A model's reasoning, which is not its answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache


def visible(output: str, tags: Sequence[str]) -> str:
    """What an answer says to its reader: the text without the model's reasoning.

    Removed are `<think>…</think>` (of any of `tags`, in any case, with attributes), everything
    after an opening tag that is never closed, and everything before a closing tag that was never
    opened, because many chat templates open it in the prompt. Inside reasoning another opening
    tag means nothing. Tags in a code block or between backticks are text about tags.
    """
    if "<" not in output or not tags:
        return output.strip()
    outside, closing = _patterns(tuple(tags))
    kept: list[str] = []
    start = place = 0
    while found := outside.search(output, place):
        place = found.end()
        if found["fence"]:
            end = output.find("```", place)
            place = end + 3 if end >= 0 else place - 1  # a fence left open protects nothing
        elif found["close"]:
            kept, start = [], place
        else:
            kept.append(output[start : found.start()])
            closed = closing[found["name"].casefold()].search(output, place)
            start = place = closed.end() if closed else len(output)
    return "".join([*kept, output[start:]]).strip()


@lru_cache(maxsize=8)
def _patterns(tags: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, re.Pattern[str]]]:
    # Attributes are bounded: a million unclosed "<think " must not take quadratic time.
    names = "|".join(re.escape(tag) for tag in tags)
    opened, closed = rf"<(?P<name>{names})(?:\s[^<>]{{0,200}})?>", rf"</(?:{names})\s{{0,9}}>"
    unquoted = r"(?:(?P<tick>`)|(?<!`))(?:%s)(?(tick)(?!`))"
    outside = "(?P<fence>```)|" + unquoted % rf"{opened}|(?P<close>{closed})"
    flags = re.IGNORECASE | re.ASCII  # otherwise a dotless i would match, and fold to no tag
    ends = {tag: unquoted % rf"</{re.escape(tag)}\s{{0,9}}>" for tag in tags}
    closing = {tag.casefold(): re.compile(end, flags) for tag, end in ends.items()}
    return re.compile(outside, flags), closing
