"""The house rules of the design: one order of rooms, one door each, no circles, and small.

`python tests/test_house.py` prints the table of rooms, their sizes and what they stand on.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
FLOORS = [
    ["ground"],
    ["brief", "stats"],
    ["legal", "sizing"],
    ["hub"],
    ["endpoints"],
    ["evaluate"],
    ["speed"],
    ["decide"],
    ["roof"],
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ROOMS = [room for rooms in FLOORS for room in rooms] + ["pages"]  # which stands on the ground
ROOF = {"__init__", "__main__", "fleet", "opening", "pipeline", "preflight", "verify"}
MOST_LINES = {
    "file": 300,
    "room": 1500,
    "evaluate": 2963,
    "ground": 1957,
    "endpoints": 1523,
    "decide": 1647,
    "pages": 1544,
    "decide and pages": 3191,
    "lib": 16_315,
}
MOST_FILES, MOST_REQUIREMENTS = 104, 26
KINDS = "lib/evaluate/kinds/"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
OPTIONAL = {"inspect_ai", "dask", "distributed"}

Sources = dict[str, str]  # by path from the repository's root
Rule = Callable[[Sources], list[str]]


class Import(NamedTuple):
    """`from lib.x import name` somewhere in a file; `used` are attributes if it is a room."""

    path: str
    line: int
    module: str
    name: str
    inside_function: bool
    used: frozenset[str]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: from {self.module} import {self.name}"


# --- reading


def house() -> Sources:
    """Everything the rules are about: `lib`, the notebooks' code, the tools."""
    paths = [*ROOT.glob("lib/**/*.py"), *ROOT.glob("lib/**/*.j2"), *ROOT.glob("tools/*.py")]
    sources = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}
    for path in ROOT.glob("notebooks/*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        sources[f"notebooks/{path.name}"] = "\n".join(code)
    return sources


def room_of(path: str) -> str:
    """The room a file belongs to; whoever is outside `lib` may use what the roof may use."""
    folder, *inside = path.split("/")
    if folder != "lib":
        return "roof"
    if len(inside) > 1:
        return inside[0]
    return "roof" if inside[0].removesuffix(".py") in ROOF else "ground"


def module_of(path: str) -> str:
    """A file's dotted name: `lib/hub/__init__.py` is `lib.hub`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def trees(sources: Sources) -> dict[str, ast.Module]:
    return {path: ast.parse(text) for path, text in sources.items() if not path.endswith(".j2")}


def imports(sources: Sources) -> Iterator[Import]:
    """What is taken from `lib`, wherever it is written."""
    for path, tree in trees(sources).items():
        functions = [
            n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        nested = {id(node) for function in functions for node in ast.walk(function)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                taken = [(alias.name, "*", "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                taken = [(module, alias.name, alias.asname or alias.name) for alias in node.names]
            else:
                continue
            for module, name, alias in taken:
                if module.split(".")[0] in ("lib", ""):
                    used = attributes(tree, alias) if module == "lib" else frozenset[str]()
                    yield Import(path, node.lineno, module, name, id(node) in nested, used)


def attributes(tree: ast.AST, name: str) -> frozenset[str]:
    """The attributes of a name that a file uses."""
    return frozenset(
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == name
    )


def target(taken: Import, sources: Sources) -> str:
    """The path of the file that an import reads first."""
    files = {module_of(path): path for path in sources if path.startswith("lib/")}
    return files.get(f"{taken.module}.{taken.name}") or files.get(taken.module, "")


def listed(tree: ast.Module) -> set[str] | None:
    """The names in `__all__`; None where a file has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


# --- the rules, each a list of what breaks it


def against_the_order(sources: Sources) -> list[str]:
    """Imports of a room that does not come before, and imports hidden in a function."""
    problems = []
    for taken in imports(sources):
        here, there = room_of(taken.path), room_of(target(taken, sources) or "lib/gone.py")
        if not target(taken, sources):
            problems.append(f"{taken}: no such file in lib")
        elif taken.inside_function and taken.path.startswith("lib/"):
            problems.append(f"{taken}: inside a function")
        elif here == "pages" and there not in ("pages", "ground"):
            problems.append(f"{taken}: pages stand on the ground alone, not on {there}")
        elif there == "pages" and here not in ("pages", "roof"):
            problems.append(f"{taken}: pages are for notebooks and the roof, not for {here}")
        elif here != there and "pages" not in (here, there) and FLOOR[there] >= FLOOR[here]:
            problems.append(f"{taken}: {there} does not come before {here}")
    for path, tree in trees(sources).items():
        if path.startswith("lib/") and room_of(path) != "evaluate":  # which looks up its kinds
            calls = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
            if any(re.search(r"(import_module|__import__)\(.*(lib\.|__)", call) for call in calls):
                problems.append(f"{path}: imports by a name that is made at run time")
    return problems


def past_the_door(sources: Sources) -> list[str]:
    """Names taken from a room that its `__all__` does not list, and other ways around the door."""
    doors = {
        room_of(path): listed(tree) or set()
        for path, tree in trees(sources).items()
        if path.startswith("lib/") and path.count("/") == 2 and path.endswith("/__init__.py")
    }
    problems = []
    for taken in imports(sources):
        room = room_of(target(taken, sources))
        if taken.name == "*" or not taken.module.startswith("lib"):
            problems.append(f"{taken}: write `from lib.room import name`")
        elif room_of(taken.path) == room and taken.path.startswith("lib/"):
            continue  # inside a room, and between files of the ground or of the roof
        elif room not in doors:
            names = {taken.name, *taken.used}
            problems += [f"{taken}: {n} is private" for n in sorted(names) if n.startswith("_")]
        elif taken.module == "lib":
            hidden = sorted(taken.used - doors[room])
            problems += [f"{taken}: {room}.{name} is not in its __all__" for name in hidden]
        elif taken.module != f"lib.{room}" or taken.name not in doors[room]:
            problems.append(f"{taken}: not in __all__ of lib/{room}/__init__.py")
    return problems


def false_doors(sources: Sources) -> list[str]:
    """Names in an `__all__` that its file does not have, or has from elsewhere and is no door."""
    problems = []
    for path, tree in trees(sources).items():
        defined, brought = set[str](), set[str]()
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                brought |= {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                defined.add(node.name)
            else:
                defined |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        for name in sorted((listed(tree) or set()) - defined):
            if name not in brought:
                problems.append(f"{path}: {name} is in __all__ and nowhere else")
            elif not path.endswith("/__init__.py") and not path.startswith(KINDS):
                # A kind may answer with another kind's function.
                problems.append(f"{path}: {name} is handed on; only a room's __init__ does that")
    return problems


def circles(sources: Sources) -> list[str]:
    """Files of one room that import each other in a circle; one circle a room."""
    graphs: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for taken in imports(sources):
        there = target(taken, sources)
        if room_of(there) == room_of(taken.path) and there.startswith("lib/"):
            graphs[room_of(there)][taken.path].add(there)
    problems = []
    for room, graph in graphs.items():
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            problems.append(f"{room}: {' < '.join(error.args[1])}")
    return problems


def asked_for_the_kind(sources: Sources) -> list[str]:
    """Comparisons with `.kind` outside the kinds of task."""
    problems = []
    for path, tree in trees(sources).items():
        if path.startswith("lib/") and not path.startswith(KINDS):
            for node in ast.walk(tree):
                sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
                if any(isinstance(side, ast.Attribute) and side.attr == "kind" for side in sides):
                    problems.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    return problems


def sizes(sources: Sources) -> dict[str, int]:
    """Lines of each file of `lib`."""
    return {path: len(t.splitlines()) for path, t in sources.items() if path.startswith("lib/")}


def too_large(sources: Sources) -> list[str]:
    """Files, rooms and a whole that hold more than they should."""
    files, rooms = sizes(sources), defaultdict[str, int](int)
    for path, lines in files.items():
        rooms[room_of(path)] += lines
    wholes = {
        "decide and pages": rooms["decide"] + rooms["pages"],
        "lib": sum(files.values()),
    }
    limits = [(path, lines, MOST_LINES["file"]) for path, lines in files.items()]
    limits += [(r, lines, MOST_LINES.get(r, MOST_LINES["room"])) for r, lines in rooms.items()]
    limits += [(whole, lines, MOST_LINES[whole]) for whole, lines in wholes.items()]
    problems = [
        f"{name}: {lines} lines, at most {most}" for name, lines, most in limits if lines > most
    ]
    if len(files) > MOST_FILES:
        problems.append(f"lib: {len(files)} files, at most {MOST_FILES}")
    return problems


def table(sources: Sources) -> str:
    """Rooms with files, lines, and the rooms they stand on."""
    files, below = sizes(sources), defaultdict[str, set[str]](set)
    for taken in imports(sources):
        if taken.path.startswith("lib/"):
            below[room_of(taken.path)].add(room_of(target(taken, sources)))
    rows = [f"{'room':<10}{'files':>6}{'lines':>8}  stands on"]
    for room in ROOMS:
        lines = [n for path, n in files.items() if room_of(path) == room]
        floor = " ".join(r for r in ROOMS if r in below[room] and r != room)
        rows.append(f"{room:<10}{len(lines):>6}{sum(lines):>8,}  {floor}")
    rows.append(f"{'lib':<10}{len(files):>6}{sum(files.values()):>8,}")
    return "\n".join(rows)


# --- requirements


def requirements() -> dict[str, str]:
    """Direct requirements with the reason that stands beside each."""
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    pairs = [line.partition("#")[::2] for line in lines if line.strip()]
    return {line.strip(): reason.strip() for line, reason in pairs}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def brought(lines: list[str]) -> set[str]:
    """The packages that come with some requirements, and they themselves."""
    packages, queue = set[str](), [Requirement(line) for line in lines]
    while queue:
        wanted = queue.pop()
        if (name := plain(wanted.name)) not in packages or wanted.extras:
            packages.add(name)
            needs = [Requirement(text) for text in requires(wanted.name) or []]
            extras = wanted.extras or {""}
            queue += [
                Requirement(need.name)
                for need in needs
                if not need.marker or any(need.marker.evaluate({"extra": e}) for e in extras)
            ]
    return packages


def strangers(sources: Sources, packages: set[str]) -> list[str]:
    """Imports of packages that no requirement brings."""
    distributions, problems = packages_distributions(), []
    for path, tree in trees(sources).items():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - OPTIONAL:
                if name not in {*sys.stdlib_module_names, "lib", "tools"} and not packages & {
                    plain(package) for package in distributions.get(name, [])
                }:
                    problems.append(f"{path}: {name} is in no requirement")
    return problems


# --- the house as it stands

RULES: list[Rule] = [
    against_the_order,
    past_the_door,
    false_doors,
    circles,
    asked_for_the_kind,
    too_large,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_nothing_in_the_house_is(rule: Rule) -> None:
    problems = rule(house())
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems)


def test_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    text = table(house())
    with capsys.disabled():
        print(f"\n{text}")
    assert all(room in text for room in ROOMS)


def test_requirements_are_few_and_each_has_its_reason() -> None:
    assert len(requirements()) <= MOST_REQUIREMENTS
    assert all(requirements().values())


def test_every_import_comes_with_a_requirement() -> None:
    weights = (ROOT / "requirements-weights.txt").read_text("utf-8").splitlines()
    names = {plain(line.split("==")[0]) for line in weights if "==" in line}
    packages = names | brought([line for line in requirements() if line != "-e ."])
    assert strangers(house(), packages) == []
    spoilt = {"lib/a.py": "import os, yaml.reader\nfrom matplotlib import pyplot\nimport no_such"}
    assert strangers(spoilt, packages) == ["lib/a.py: no_such is in no requirement"]
    assert len(strangers(spoilt, {"pyyaml"})) == 2


# --- the rules themselves: a small house, and ways to spoil it

SMALL = {
    "lib/__init__.py": "",
    "lib/errors.py": "class PlaybookError(Exception): ...\ndef _private(): ...",
    "lib/tables.py": "from lib.errors import PlaybookError",
    "lib/pipeline.py": "from lib import artifacts, hub\nhub.pull()",
    "lib/artifacts.py": "from lib.errors import PlaybookError",
    "lib/brief/__init__.py": "from lib.brief.project import Project\n__all__ = ['Project']",
    "lib/brief/project.py": "from lib import tables\nclass Project: ...",
    "lib/legal/__init__.py": "from lib.legal.verdicts import judge\n__all__ = ['judge']",
    "lib/legal/verdicts.py": "from lib.brief import Project\nfrom lib.legal.clauses import x\n"
    "def judge(): ...",
    "lib/legal/clauses.py": "x = 1",
    "lib/hub/__init__.py": "from lib.hub.client import pull\n__all__ = ['pull']",
    "lib/hub/client.py": "from lib import legal\ndef pull(): legal.judge()",
    "lib/pages/__init__.py": "from lib.pages.plots import draw\n__all__ = ['draw']",
    "lib/pages/plots.py": "from lib.tables import x\ndef draw(): ...",
    "lib/pages/page.html.j2": "<p>",
    "lib/evaluate/kinds/exact.py": "def asks(task): return task.kind == 'exact'",
    "notebooks/01.ipynb": "from lib.pages import draw\nfrom lib import legal\nlegal.judge()",
}
CLAUSES, CLIENT, TABLES = "lib/legal/clauses.py", "lib/hub/client.py", "lib/tables.py"
PLOTS, TEMPLATE, NOTEBOOK = "lib/pages/plots.py", "lib/pages/page.html.j2", "notebooks/01.ipynb"
SPELLING = "write `from lib.room import name`"
SPOILT: dict[Rule, list[tuple[str, str, str]]] = {
    against_the_order: [
        (CLAUSES, "from lib.hub import pull", "hub does not come before legal"),
        (CLAUSES, "from lib.stats import x", "no such file in lib"),
        (TABLES, "from lib.brief import Project", "brief does not come before ground"),
        (TABLES, "from lib import pipeline", "roof does not come before ground"),
        (CLIENT, "def f():\n from lib.legal import judge", "inside a function"),
        (CLIENT, "importlib.import_module('lib.speed')", "a name that is made at run time"),
        (PLOTS, "from lib.brief import Project", "pages stand on the ground alone, not on brief"),
        (CLIENT, "from lib.pages import draw", "for notebooks and the roof, not for hub"),
    ],
    past_the_door: [
        (CLIENT, "from lib.legal.clauses import x", "not in __all__ of lib/legal"),
        (CLIENT, "from lib.legal import x", "not in __all__ of lib/legal"),
        (CLIENT, "from lib.legal import clauses", "not in __all__ of lib/legal"),
        (CLIENT, "from lib import legal as law\nlaw.x", "legal.x is not in its __all__"),
        (CLIENT, "import lib.legal", SPELLING),
        (CLIENT, "from lib.legal import *", SPELLING),
        (CLIENT, "from ..legal import judge", SPELLING),
        (CLIENT, "from lib.errors import _private", "_private is private"),
        (NOTEBOOK, "from lib.hub import Session", "not in __all__ of lib/hub"),
        ("tools/check.py", "from lib.hub.client import pull", "not in __all__ of lib/hub"),
    ],
    false_doors: [
        ("lib/hub/__init__.py", "__all__ = ['pull']", "pull is in __all__ and nowhere else"),
        (CLIENT, "from lib.legal import judge\n__all__ = ['judge']", "judge is handed on"),
    ],
    circles: [
        (CLAUSES, "from lib.legal.verdicts import judge", "legal: "),
        (CLAUSES, "from lib.legal import judge", "lib/legal/__init__.py"),
        (TABLES, "from lib import errors, tables", "ground: "),
    ],
    asked_for_the_kind: [
        (CLIENT, "if brief.kind == 'exact': ...", "brief.kind == 'exact'"),
        (CLIENT, "x = brief.kind in ('a', 'b')", "brief.kind in ('a', 'b')"),
    ],
    too_large: [(TEMPLATE, "x\n" * 301, "page.html.j2: 301 lines, at most 300")],
}
CASES = [(rule, *case) for rule, cases in SPOILT.items() for case in cases]


def test_a_sound_house_breaks_no_rule() -> None:
    assert [problem for rule in RULES for problem in rule(SMALL)] == []
    lines = [" ".join(line.split()) for line in table(SMALL).splitlines()]
    assert {"hub 2 4 legal", "roof 2 2 ground hub", "pages 3 5 ground", "lib 16 26"} <= set(lines)


def test_every_rule_can_be_broken() -> None:
    assert set(SPOILT) == set(RULES)


@pytest.mark.parametrize(("rule", "path", "text", "problem"), CASES)
def test_a_spoilt_house_is_told(rule: Rule, path: str, text: str, problem: str) -> None:
    (sentence,) = rule(SMALL | {path: text})
    assert path in sentence and problem in sentence


def test_rooms_and_the_house_have_their_size() -> None:
    def problems(room: str, files: int) -> list[str]:
        return too_large({f"lib/{room}/f{n}.py": "x\n" * 300 for n in range(files)})

    assert problems("hub", 5) == problems("evaluate", 9) == problems("decide", 5) == []
    assert problems("legal", 6) == ["legal: 1800 lines, at most 1500"]
    most = MOST_LINES
    assert problems("evaluate", 11) == [f"evaluate: 3300 lines, at most {most['evaluate']}"]
    both = f"decide and pages: 3300 lines, at most {most['decide and pages']}"
    assert problems("pages", 11)[1] == both
    assert problems("evaluate", 60)[1] == f"lib: 18000 lines, at most {most['lib']}"
    many = {f"lib/hub/f{n}.py": "" for n in range(MOST_FILES + 1)}
    assert too_large(many) == [f"lib: {MOST_FILES + 1} files, at most {MOST_FILES}"]


if __name__ == "__main__":
    print(table(house()))
