"""What an answer in words says: a label, a rating, a preference, an order, or nothing clear."""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

RULES = ("nfkc", "casefold", "whitespace", "punctuation")
MOST_READ = 20_000  # characters of an answer that are read
NEGATED = r"(?:not|never|non|\w+n't)(?:[\s-]+(?:an?|the))?[\s-]+"
# A number that stands alone: no part of a word, a date, a time, a ratio or a version.
NUMBER = re.compile(
    r"(?<![\w.,:/])(?<![0-9]-)([-+]?)([0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(\.[0-9]+)?"
    r"(?!\w|[.,:/-][0-9])"
)
MARKS = " ,;:!?\"'`*()[]{}"
ARTICLE = re.compile(r"(?<!\S)(?:an?|the)\s+(?=\S)", re.IGNORECASE)
FENCE = re.compile(r"^```\w*\s*\n(.*?)\n?```$", re.DOTALL)
RATING = re.compile(r"(?<![\w.,/])[-−]?[0-9]{1,9}(?:[.,][0-9]{1,9})?(?![\w/]|[.,][0-9])")
LEADING = re.compile(rf"\W{{0,9}}(?:[a-z]+\W{{1,9}})?({RATING.pattern})\W{{0,3}}(?:[.,;:)!\n]|$)")
TIES = {"tie": ["tied", "draw", "equal", "equally good", "neither"]}
CHAIN = re.compile(r"(?<![0-9])\[?[0-9]{1,6}\]?(?:\s*[>,]\s*\[?[0-9]{1,6}\]?)+")
NOUN = re.compile(r"(?i)(?:documents?|docs?|passages?)\s*#?(?=\s*\[?[0-9])")


def normalise(text: str, rules: Sequence[str] = RULES) -> str:
    """Text for comparison, by those of the `STEPS` that a brief names, always in their order."""
    for rule, step in STEPS.items():
        text = step(text) if rule in rules else text
    return text


def _canonical(found: re.Match[str]) -> str:
    # On the digits themselves: a float would make 0.1 of 0.1000000000000000055.
    sign, whole, fraction = found[1], found[2], (found[3] or "").rstrip("0").rstrip(".")
    if not whole and not found[3]:
        return found[0]
    value = (whole.replace(",", "").lstrip("0") or "0") + fraction
    return ("-" if sign == "-" and value != "0" else "") + value


STEPS: dict[str, Callable[[str], str]] = {
    # One form of every character (full width, ligatures, accents) and of the apostrophe.
    "nfkc": lambda text: unicodedata.normalize("NFKC", text).replace("’", "'"),
    "casefold": str.casefold,
    "whitespace": lambda text: " ".join(text.split()),
    # Around the whole text. What tells answers apart stays: .5 is not 5, ? is not nothing.
    "punctuation": lambda text: text.lstrip(MARKS).rstrip(f".{MARKS}") or text,
    # The English a, an and the before another word.
    "articles": lambda text: ARTICLE.sub("", text),
    # A number that stands alone, by value: 1,000 = 1000.0 = +1000, .50 = 0.5, -0 = 0. A currency
    # sign or a unit stays: $3.50 is $3.5, not 3.5. Dates, times and decimal commas stay text.
    "numbers": lambda text: NUMBER.sub(_canonical, text.replace("−", "-")),
}


def find_label(
    text: str, labels: Sequence[str], aliases: Mapping[str, Sequence[str]] | None = None
) -> str | None:
    """The one label (or alias) an answer names, or None where it names none or several.

    JSON is read first, then the whole answer, then whole words, the longest first: "Sentiment:
    positive." names positive; "positive or negative" and "not positive" name nothing.
    """
    spellings = ((label, tuple(words)) for label, words in (aliases or {}).items())
    names, words = _vocabulary(tuple(labels), tuple(spellings))
    constrained = _from_json(text)
    if constrained is not None and (label := names.get(normalise(constrained))):
        return label
    answer = normalise(text)
    if answer in names:
        return names[answer]
    mentions = {(bool(negation), names[name]) for negation, name in words.findall(answer)}
    negated, label = mentions.pop() if len(mentions) == 1 else (True, "")
    return None if negated else label


@lru_cache(maxsize=64)
def _vocabulary(
    labels: tuple[str, ...], aliases: tuple[tuple[str, tuple[str, ...]], ...]
) -> tuple[dict[str, str], re.Pattern[str]]:
    pairs = [(word, label) for label, own in aliases for word in own]
    names = {normalise(word): label for word, label in pairs}
    names |= {normalise(label): label for label in labels}
    listed = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return names, re.compile(rf"(?<!\w)({NEGATED})??({listed})(?!\w)")


def _from_json(text: str) -> str | None:
    inner = FENCE.sub(r"\1", text.strip()).strip()
    if inner[:1] not in ("{", '"'):
        return None
    try:
        value: Any = json.loads(inner)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        value = value.get("label", next(iter(value.values())) if len(value) == 1 else None)
    return value if isinstance(value, str) else None


def find_rating(text: str, scale: tuple[float, float]) -> float | None:
    """The one rating an answer gives, or None where it gives none, several or one off the scale.

    "4", "Rating: 4", "4/5", "4 out of 5", "4.5" and "4, because 2 of 3 facts are right" name
    one; "3 errors, so 2", "8/10" on a scale to 5 and "between 3 and 4" do not.
    """
    low, high = (f"{bound:g}" for bound in scale)
    answer = unicodedata.normalize("NFKC", text[:10_000]).casefold().replace("*", "")
    ends = rf"(?<![\w.]){re.escape(low)}\s*(?:-|–|—|to|\.\.)\s*{re.escape(high)}(?![\w/]|\.[0-9])"
    answer = re.sub(ends, " ", answer)
    answer = re.sub(rf"\s*(?:/|out of)\s*{re.escape(high)}(?:\.0)?(?![\w/]|\.[0-9])", " ", answer)
    named = {match.replace(",", ".").replace("−", "-") for match in RATING.findall(answer)}
    if len(named) > 1:
        leading = LEADING.match(answer)
        named = {leading[1].replace(",", ".").replace("−", "-")} if leading else set()
    if len(named) != 1 or re.search(r"[0-9]\s*/\s*[0-9]", answer):
        return None
    rating = float(named.pop())
    return rating if scale[0] <= rating <= scale[1] else None


def find_preference(text: str) -> str | None:
    """Which answer a judge names: `first`, `second`, `tie`, or None where that is not clear.

    A capital A or first means the answer shown first, a capital B or second the other; a small
    a or b, 1 or 2 count only as the whole answer. A judge that names two decides nothing.
    """
    said = text[:MOST_READ]
    for name, letter, digit in (("first", "A", "1"), ("second", "B", "2")):
        # Before the words: to find_label a capital A is the article.
        alone = rf"^\W*(?:{letter.lower()}|{digit})\W*$"
        said = re.sub(rf"(?<!\w){letter}(?!\w)|{alone}", f" {name} ", said)
    return find_label(said, ["first", "second", "tie"], TIES)


def find_order(text: str, n: int) -> tuple[list[int], int] | None:
    """The order a listwise answer gives: numbers from 1 to n, each once, and how many it spoils.

    Read are, in this order: the longest chain such as `2 > 1 > 3`, `[2] > [1]` or `[2, 1, 3]`
    (of equally long ones the last), all numbers in brackets, or an answer of numbers alone.
    Numbers that are there twice or that no document has are passed over and counted. None where
    nothing is usable.
    """
    answer = NOUN.sub("", text[:MOST_READ])
    chains = [re.findall(r"[0-9]+", chain) for chain in CHAIN.findall(answer)]
    numbers: list[str] = max(reversed(chains), key=len, default=[])
    numbers = numbers or re.findall(r"\[([0-9]{1,6})\]", answer)
    if not numbers and re.fullmatch(r"[0-9\s]+", answer):
        numbers = re.findall(r"[0-9]{1,6}", answer)
    order = [number for number in dict.fromkeys(map(int, numbers)) if 1 <= number <= n]
    return (order, len(numbers) - len(order)) if order else None


def visible(output: str, tags: Sequence[str]) -> str:
    """An answer without the model's reasoning: `<think>…</think>` of any of `tags`.

    An opening tag never closed ends it, a closing tag never opened starts it: many chat templates
    open it in the prompt. Tags in a code block or between backticks are text about tags.
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
