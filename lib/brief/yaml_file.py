"""The YAML of a brief: bounded, and with no key twice."""

import re
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from lib.errors import PlaybookError

MOST_BYTES, MOST_DEPTH = 200_000, 64
MOST_UNFOLDED = 1_000_000  # characters and values, every alias counted where it stands
MOST_DIGITS = 40
NO_TEXT = re.compile("[\0\ud800-\udfff]")  # a zero byte, half a surrogate pair


def _without_repeats(loader: Any, node: Any, deep: bool = False) -> Any:
    """A mapping, but for a key given twice, of which YAML would quietly keep the last."""
    keys = set[str]()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in keys:
            problem = f"the key {key.value[:60]!r} is given twice"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
        keys.add(key.value if isinstance(key, yaml.ScalarNode) else "")
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


def _within_bounds(loader: Any, document: Any) -> Any:
    """A document whose aliases do not make a mountain, or a circle, of it."""
    unfolded, nodes = 0, [(document, 0)]
    while nodes:
        node, depth = nodes.pop()
        unfolded += 1 + len(node.value)
        scalar = isinstance(node, yaml.ScalarNode)
        number = scalar and node.tag.endswith((":int", ":float"))
        problem = ""
        if unfolded > MOST_UNFOLDED or depth > MOST_DEPTH:
            problem = f"too much by its aliases, or nested more than {MOST_DEPTH} levels deep"
        elif number and len(node.value) > MOST_DIGITS:
            problem = f"a number of more than {MOST_DIGITS} digits"
        elif scalar and NO_TEXT.search(node.value):
            problem = "a zero byte or half a surrogate pair, which is no text"
        if problem:
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
        if not scalar:
            mapping = isinstance(node, yaml.MappingNode)
            parts = chain.from_iterable(node.value) if mapping else node.value
            nodes += [(part, depth + 1) for part in parts]
    return yaml.SafeLoader.construct_document(loader, document)


OURS = {"construct_mapping": _without_repeats, "construct_document": _within_bounds}
LOADER: Any = type("Loader", (yaml.SafeLoader,), OURS)


def read_mapping(path: Path) -> dict[Any, Any]:
    """The mapping of a YAML file; a PlaybookError, which shows nothing of it, where it is none."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            way = "put items, schemas and tools into files beside it"
            raise PlaybookError(f"{path}: more than {MOST_BYTES // 1000} kB; {way}")
        raw = yaml.load(content.decode("utf-8"), LOADER)
    except OSError as error:
        raise PlaybookError(f"{path}: cannot be read: {error.strerror}") from None
    except RecursionError:
        raise PlaybookError(f"{path}: nested more than {MOST_DEPTH} levels deep") from None
    except UnicodeDecodeError as error:
        raise PlaybookError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:  # without its snippet, which may show a secret
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise PlaybookError(f"{path}: not valid YAML: {line}{error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-13-01
        raise PlaybookError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise PlaybookError(f"{path}: empty or not a mapping; start from data/projects/*/")
    return raw
