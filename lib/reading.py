"""What an answer in words says: a label, a rating, a preference, an order, or nothing clear.

One reader for all, which says nothing rather than guess. It tries, in this order: the answer as a
whole; a JSON object's value; what follows the last explicit mark; a line or the beginning that is
a value; a single value in an assertion, in English or as a plain "it is …" of a few languages.
"""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from lib import reading_words as words
from lib.json_values import json_values_of
from lib.plain_text import normalise, one_form, without_layout

MOST_READ = 20_000  # characters of an answer that are read


class _Kind(NamedTuple):
    """What is looked for: its shape in a text, which value a text is, and what claims it."""

    shape: re.Pattern[str]
    value: Callable[[str], Any]
    short: Callable[[str], bool]
    claims: re.Pattern[str]
    rated: bool = False


def find_label(
    text: str, labels: Sequence[str], aliases: Mapping[str, Sequence[str]] | None = None
) -> str | None:
    """The one label (or alias) an answer names, or None where it names none or several.

    "Sentiment: positive." names positive; "positive or negative", "not positive" and "could be
    positive" name nothing. Labels of one or two letters, digits and common words are not read
    within a sentence. Labels that are whole numbers are read like ratings.
    """
    spellings = tuple((label, tuple(others)) for label, others in (aliases or {}).items())
    label: str | None = _read(text, _labels(tuple(labels), spellings))
    return label


def find_rating(text: str, scale: tuple[float, float]) -> float | None:
    """The one rating an answer gives, or None where it gives none, several or one off the scale.

    "4", "Rating: 4", "4/5", "4 out of 5", "4 stars" and "4, because 2 of 3 facts are right" name
    one; "3 errors, so 2", "8/10" on a scale to 5, "80%" and "between 3 and 4" do not.
    """
    low, high = scale
    rating: float | None = _read(text, _numbers(f"{high:g}", rated=True))
    return rating if rating is not None and low <= rating <= high else None


def find_preference(text: str) -> str | None:
    """Which answer a judge names: `first`, `second`, `tie`, or None where that is not clear.

    A or first means the answer shown first, B or second the other. Within a sentence only what
    prefers one is read ("A is better"), not what says something of it ("A is worse").
    """
    for name, letter, digit in (("first", "A", "1"), ("second", "B", "2")):
        numbered = rf"(?i:(?:the )?{words.NAMED})\s*#?[(\[*]*(?:{letter}|{digit})\b[)\]*]*"
        label = rf"(?i:(?:the )?{name} (?:{words.NAMED}|one))"
        text = re.sub(rf"\b(?:{numbered}|{label}\b)", letter, text)
    text = re.sub(r" than (?:[AB]\b|the (?:first|second|other)(?: one)?\b)", "", text)
    value = _read(text, _labels(("A", "B", "tie"), words.PREFERENCES, words.PREFERRED))
    return {"A": "first", "B": "second", "tie": "tie"}.get(value or "")


@lru_cache(maxsize=64)
def _labels(
    labels: tuple[str, ...],
    aliases: tuple[tuple[str, tuple[str, ...]], ...],
    claims: re.Pattern[str] = words.ASSERTED,
) -> _Kind:
    pairs = [(word, label) for label, others in aliases for word in others]
    pairs += [(label, label) for label in labels]
    numbers = {float(word): label for word, label in pairs if re.fullmatch(r"[-+]?\d+", word)}
    if len(numbers) == len(pairs):
        kind = _numbers(f"{max(numbers):g}", rated=False)
        return kind._replace(value=lambda text: numbers.get(kind.value(text)))
    as_it_is = {word: label for word, label in pairs}
    exact = {normalise(word): label for word, label in pairs}
    loose = {words.SPACE.sub(" ", name): label for name, label in exact.items()}

    def value(text: str) -> str | None:
        name = normalise(text)
        other = ("?" in text and "?" not in name) or re.fullmatch(r"[^*]+\*|!.*", text.strip())
        return (
            as_it_is.get(text) if other else exact.get(name, loose.get(words.SPACE.sub(" ", name)))
        )

    def short(text: str) -> bool:
        return (text.isascii() and len(text) < 3) or text.casefold() in words.COMMON

    names = sorted({one_form(word) for word, _ in pairs}, key=len, reverse=True)
    parts = (map(re.escape, words.SPACE.split(name)) for name in names)
    shape = "|".join(r"[-_\s]+".join(part) for part in parts)
    shape = shape if words.ASIAN.search(shape) else f"{words.LEFT}(?:{shape}){words.RIGHT}"
    return _Kind(re.compile(shape, re.IGNORECASE), value, short, claims)


@lru_cache(maxsize=64)
def _numbers(high: str, *, rated: bool) -> _Kind:
    # Of two or three labels "1/2" may be a half or both.
    of = "/|out of" if rated or float(high) > 2 else "out of"
    end = rf"(?:\s*(?:{of})\s*{re.escape(high)}(?:\.0+)?(?![\d/]|[.,]\d))?"
    end += r"(?:\s*(?:star|point)s?)?"
    whole = re.compile(rf"[\s\"'(\[*]*({words.NUMBER}){end}[\s\"')\]*.,;:!]*", re.IGNORECASE)

    def value(text: str) -> float | None:
        match = whole.fullmatch(one_form(text))
        return float(match[1].replace(",", ".")) if match else None

    shape = re.compile(
        rf"{words.LEFT}(?<![0-9][.,:]){words.NUMBER}{end}{words.RIGHT}", re.IGNORECASE
    )
    return _Kind(shape, value, lambda _: True, words.RATED if rated else words.ASSERTED, rated)


@lru_cache(maxsize=1024)
def _read(text: str, kind: _Kind) -> Any:
    """The value of an answer by the first way that finds one; None where that is not clear."""
    if len(text) > MOST_READ:  # a long draft may come before the answer
        text = f"(cut) {text[-MOST_READ:]}"
    if (value := kind.value(text)) is not None:
        return value
    decided, value = _from_json(text, kind)
    if decided:
        return value
    text = without_layout(text)
    if (value := kind.value(text)) is not None:
        return value
    text, values = _tokens(text, kind)
    if words.TAKEN_BACK.search(re.split(words.ANY, text)[-1]):
        return None
    lines = [line for line in text.split("\n") if line.strip()]
    first = words.ONLY.fullmatch(lines[0]) if lines else None
    has_mark, code = _marked(text, kind)
    if not has_mark:
        codes = {_of_line(line, kind) for line in lines} - {""}
        leading = "" if codes else _leading(text)
        codes = {leading} if leading else codes | {_claimed(text, kind)} - {""}
        code = codes.pop() if len(codes) == 1 else ""
        if code and {*words.OR_ELSE.findall(text.split(code, 1)[1])} - {code}:
            return None
    elif first and first[1] != code:  # another than the first line: a further question was made up
        return None
    rest = text.rpartition(code or "\n")[2]
    others = {*re.findall(words.ANY, rest)} - {code}
    return None if others and words.TAKES_BACK.search(rest) else values.get(code)


def _tokens(text: str, kind: _Kind) -> tuple[str, dict[str, Any]]:
    """The text with a private character for every value, and what each stands for."""
    values: dict[str, Any] = {}
    places: dict[Any, int] = {}

    def token(match: re.Match[str]) -> str:
        name, value, rest = match[0], kind.value(match[0]), text[match.end() : match.end() + 9]
        short = kind.short(name)
        # "it" is no IT and the article no A, but where they stand alone.
        if short and str(value).isupper() and not name.isupper() and not name.isdigit():
            alone = text[: match.start()].rstrip(" \"'(")[-1:] in ("", ":", "=", "\n")
            if not rest.startswith(")") and not (alone and re.match(r"\W*(?:\n|$)", rest)):
                return name
        place = places.setdefault(value, len(places))
        plane = words.LETTER if re.fullmatch("[a-zA-Z]", name) else words.SHORT
        code = chr((plane if short else words.LONG) + min(place, 1000))
        values[code] = value if place < 1000 else None
        return code

    text = words.SIGNS.sub(" ", words.REFUSAL.sub(" not ", kind.shape.sub(token, text)))
    text = words.QUOTED.sub(" ", re.sub(r'\A"([^"]*)"\Z', r"\1", text))
    return re.sub(r"[^\S\n]+", " ", text), values


def _from_json(text: str, kind: _Kind) -> tuple[bool, Any]:
    """Whether a JSON object or list decides what the answer is, and the value it gives."""
    values, whole = json_values_of(text)
    members = (_member(value, kind) for value in values)
    results = {member for member in members if member is not None}
    keyed = any(isinstance(v, dict) and any(map(words.IS_ANSWER.fullmatch, v)) for v in values)
    return whole or keyed, results.pop() if len(results) == 1 else None


def _member(value: Any, kind: _Kind, *, needs_name: bool = False) -> Any:
    """The one value that a JSON value gives; truths, nulls and shares from 0 to 1 are no label."""
    if isinstance(value, list):
        return _member(value[0], kind, needs_name=needs_name) if len(value) == 1 else None
    if isinstance(value, dict):
        answers = [key for key in value if words.IS_ANSWER.fullmatch(key)]
        no_answer = words.ASIDE_OR_COUNT.fullmatch if kind.rated else words.ASIDE.fullmatch
        keys = answers or [k for k in value if not no_answer(k) and kind.value(k) is None]
        members = (_member(value[key], kind, needs_name=bool(answers)) for key in keys)
        results = {member for member in members if member is not None}
        flags = {kind.value(k): flag for k, flag in value.items() if isinstance(flag, bool)}
        sound = all((name in results) == flag for name, flag in flags.items() if name is not None)
        return results.pop() if len(results) == 1 and sound else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        share = isinstance(value, float) and 0 <= value <= 1
        value = f"{value:g}" if kind.rated or (needs_name and not share) else None
    if not isinstance(value, str):
        return None
    text, values = _tokens(without_layout(value), kind)
    whole = kind.value(value)
    return values.get(_leading(text)) if whole is None else whole


def _marked(text: str, kind: _Kind) -> tuple[bool, str]:
    """Whether an explicit mark has a value in its line, and what the last such mark says."""
    for mark in reversed([*words.MARK.finditer(text)]):
        rest = text[mark.end() :]
        line = rest.split("\n", 1)[0]
        if re.search(words.ANY, line):
            before = re.split(r"[.!?\n]" if mark["is"] else r"[.!?,;\n]", text[: mark.start()])[-1]
            if words.DOUBT.search(before):
                return True, ""
            only = words.ONLY.fullmatch(line)
            return True, only[1] if only else (
                _leading(rest) or _claimed(line, kind) or _claimed(f"it is {line}", kind)
            )
    return False, ""


def _of_line(line: str, kind: _Kind) -> str:
    """The value a line consists of, perhaps after a key: "Tone: positive"."""
    if keyed := words.KEYED.fullmatch(line.strip()):
        key, line = filter(None, keyed.groups())
        counts = kind.rated and re.search(r"[^s]s$", key)
        if counts or words.DOUBT.search(key) or words.BESIDE.search(key):
            return ""
    only = words.ONLY.fullmatch(words.RATED_WORDS.sub("", line) if kind.rated else line)
    return only[1] if only else ""


def _leading(text: str) -> str:
    """The value that an answer begins with, followed by a stop, unless it is taken back."""
    match = words.LEADING.match(text)
    if not match or words.LABELLED_LIST.match(text):
        return ""
    rest = text[match.end() :]
    others = set(re.findall(words.ANY, rest)) - {match[1]}
    return "" if others and words.AGAIN.search(rest) else match[1]


def _claimed(text: str, kind: _Kind) -> str:
    """The single value that the sentences of a text assert."""
    pro, contra = set[str](), set[str]()
    for sentence in words.SENTENCES.split(text):
        match = None if words.OTHERWISE.search(sentence) else kind.claims.search(sentence)
        codes = {code for code in match.groups() if code} if match else set[str]()
        others = {*re.findall(words.WORD, words.SET_ASIDE.sub("", sentence))} - codes
        pro |= codes if not others else set()
        doubtful = words.ANY if words.DOUBT.search(sentence) else "$^"
        contra |= {*re.findall(doubtful, sentence)} - codes
    sure = len(pro) == 1 and not pro & contra and not words.AGAIN.search(text)
    return pro.pop() if sure else ""


def find_order(text: str, n: int) -> list[int] | None:
    """The order a listwise answer gives: numbers from 1 to n, each at most once.

    Read are, in this order: a JSON list, the longest chain such as `2 > 1 > 3` or `[2, 1, 3]`
    (of equally long ones the last) after the last mark or anywhere, all numbers in brackets, or
    an answer of numbers alone. A number that is there twice or that no document has spoils it.
    """
    text = words.NOUN.sub("", one_form(html.unescape(text[:MOST_READ])))
    before, *after = words.AGAIN.split(text)
    if after and words.CHAIN.search("".join([before, *after[:-1]])):  # the last one alone counts
        text = next(iter(words.CHAIN.findall(after[-1])), "")
    numbers = [] if words.NO_ORDER.search(text) else _list_of(text)
    for part in (re.split(words.MARK, text)[-1], text) if numbers is None else ():
        chains = [re.findall(r"[0-9]+", chain) for chain in words.CHAIN.findall(part)]
        numbers = numbers or max(reversed(chains), key=len, default=None)
    if numbers is None and not words.NO_LIST.search(text):
        alone = re.fullmatch(r"[0-9,\s]+", text)
        numbers = re.findall(r"[0-9]{1,6}" if alone else r"(?<=\[)[0-9]{1,6}(?=\])", text)
    order = [int(number) for number in numbers or ()]
    sound = len(set(order)) == len(order) and all(1 <= number <= n for number in order)
    return order if order and sound else None


def _list_of(text: str) -> list[str] | None:
    objects = json_values_of(text)[0]
    value = next(iter(objects), None)
    if isinstance(value, dict):
        if any(another != value for another in objects):
            return []
        lists = {key: v for key, v in value.items() if isinstance(v, list)}
        picks = [v for key, v in lists.items() if words.IS_ANSWER.fullmatch(key)]
        picks = picks or [v for key, v in lists.items() if not words.ASIDE.fullmatch(key)]
        value = picks[0] if len(picks) == 1 else [None] * len(lists)
    texts = [str(member) for member in value] if isinstance(value, list) else []
    sound = all(re.fullmatch("[0-9]{1,6}", text) for text in texts)
    return (texts if sound else []) if texts else None
