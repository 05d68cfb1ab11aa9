"""JSON that models write: read strictly, within bounds, and compared."""

import json
import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from lib.plain_text import RULES, normalise
from lib.untrusted import as_list

MAX_CHARACTERS = 1_000_000  # of an answer that is read as JSON
MAX_DEPTH = 64
MAX_STARTS = 100  # places where an object may begin
FENCE = re.compile(r"\A```\w*\s*\n(.*?)\n?```\Z", re.DOTALL)
BRACE = re.compile(r"[{}]")


def canonical(value: Any) -> str:
    """A JSON value as text: keys sorted, characters as they are."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def text_of(value: Any) -> str:
    """A JSON value as a field's text: text as it is, nothing as "", the rest canonical."""
    return value if isinstance(value, str) else "" if value is None else canonical(value)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key is given twice")
    return value


DECODER = json.JSONDecoder(
    parse_float=_finite, parse_constant=_finite, object_pairs_hook=_no_key_twice
)


def parse_json(text: str, start: int | None = None) -> Any:
    """Read hostile text as one JSON value; with a `start` from there on, leaving what follows.

    A ValueError where it is no strict JSON, too large or deep, or holds half a surrogate pair.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"longer than {MAX_CHARACTERS:,} characters")
    try:
        value = DECODER.decode(text) if start is None else DECODER.raw_decode(text, start)[0]
        if _too_deep(value):
            raise RecursionError
        canonical(value).encode()
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair (\\ud800 to \\udfff)") from None
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep") from None
    return value


def _too_deep(value: Any, depth: int = 0) -> bool:
    parts = value.values() if isinstance(value, dict) else as_list(value)
    return depth == MAX_DEPTH or any(_too_deep(part, depth + 1) for part in parts)


def find_object(text: str) -> dict[str, Any]:
    """The first of `find_objects`; a ValueError, which says why, where there is none."""
    problems = list[str]()
    for value in find_objects(text, problems):
        return value
    raise ValueError(next(iter(problems), "no JSON object"))


def find_objects(text: str, problems: list[str]) -> Iterator[dict[str, Any]]:
    """The JSON objects that an answer holds, in a code fence or with words around them.

    An object that breaks off is passed over as a whole: what is nested in it is not the answer.
    What is wrong with it is put to the `problems`.
    """
    place, starts = text.find("{"), 0
    while place >= 0 and (starts := starts + 1) <= MAX_STARTS:
        try:
            yield dict(parse_json(text, place))
        except json.JSONDecodeError as error:
            problems.append(f"not JSON: {error.msg}")
        # The next one may begin where the braces of this one are closed.
        depth, start, place = 0, place, -1
        for brace in BRACE.finditer(text, start):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                place = text.find("{", brace.end())
                break


def json_values_of(text: str) -> tuple[list[Any], bool]:
    """The JSON values an answer is or holds, and whether it is one as a whole."""
    inner = FENCE.sub(r"\1", text.strip()).strip()
    inner = inner.replace("'", '"') if inner[:2] == "{'" else inner
    try:
        if isinstance(value := parse_json(inner), dict | list | str):
            return [value], True
    except json.JSONDecodeError:
        with suppress(ValueError):
            objects = [*find_objects(text, [])]
            broken = not objects and inner[:2] in ('{"', "{'")
            return ([None], True) if broken else (objects, False)
    except ValueError:  # a key that is there twice, or too deep
        return [None], True
    return [], False


def flatten(value: Mapping[str, Any], whole: Container[str], at: str = "") -> dict[str, Any]:
    """An object's fields by dotted name (`address.city`); a list is one field, and so is {}.

    Objects named in `whole` are compared as a whole and stay one field; `at` names the object.
    """
    fields: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{at}.{key}" if at else key
        if isinstance(inner, dict) and inner and name not in whole:
            fields |= flatten(inner, whole, name)
        else:
            fields[name] = inner
    return fields


def same(wanted: Any, answer: Any, rule: str, rules: Sequence[str] = RULES) -> bool:
    """Whether the answer's JSON value of a field is the one the item expects.

    `exact`: equal, where true is not 1 but 1 is 1.0; `normalised`: text by `rules` of
    `plain_text.normalise`; `number`: equal to nine digits, also as text such as "$1,000.50"; `set`:
    lists of the same members, normalised, whatever their order and repeats. With no rule, "", text
    is normalised, a list a set, and anything else exact.
    """
    by_type: dict[type, str] = {str: "normalised", list: "set"}
    rule = rule or by_type.get(type(wanted), "exact")
    if rule == "number":
        a, b = _number(wanted), _number(answer)
        return a is not None and b is not None and math.isclose(a, b, rel_tol=1e-9)
    if rule == "set" and isinstance(wanted, list) and isinstance(answer, list):
        return _members(wanted, rules) == _members(answer, rules)
    if rule == "normalised" and isinstance(wanted, str) and isinstance(answer, str):
        return normalise(wanted, rules) == normalise(answer, rules)
    return _comparable(wanted) == _comparable(answer)


def _members(values: list[Any], rules: Sequence[str]) -> set[Any]:
    return {normalise(v, rules) if isinstance(v, str) else (_comparable(v),) for v in values}


def _comparable(value: Any) -> str:
    """Canonical text in which 1 and 1.0 are one number, and true is another value."""
    return canonical(json.loads(canonical(value), parse_float=_whole))


def _whole(number: str) -> float:
    return int(value) if (value := float(number)).is_integer() else value


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        text = normalise(value.strip().strip("$€£¥ "), ["nfkc", "numbers"])
        value = text if re.fullmatch(r"-?[0-9]{1,300}(\.[0-9]+)?", text) else None
    with suppress(TypeError, OverflowError):  # no number, or an integer of more than 308 digits
        return None if isinstance(value, bool) else float(value)
    return None
