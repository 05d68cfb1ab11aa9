"""The YAML of a brief, in which no key may stand twice."""

from pathlib import Path
from typing import Any

import yaml

from lib.errors import PlaybookError


def _without_repeats(loader: Any, node: Any, deep: bool = False) -> Any:
    """A mapping, but for a key given twice, of which YAML would quietly keep the last."""
    keys = set[str]()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in keys:
            problem = f"the key {key.value[:60]!r} is given twice"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
        keys.add(key.value if isinstance(key, yaml.ScalarNode) else "")
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


LOADER: Any = type("Loader", (yaml.SafeLoader,), {"construct_mapping": _without_repeats})


def read_mapping(path: Path) -> dict[Any, Any]:
    """The mapping of a YAML file; a PlaybookError, which shows nothing of it, where it is none."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), LOADER)
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
