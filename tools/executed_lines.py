"""How many lines a reader must know to follow the default run.

Runs the shipped example under coverage, runner and all six notebooks, and counts the lines of
every function of `lib` of which the run executed at least one line of the body: from `def` to the
last line, docstring included. A nested function is part of its outer one.

    python -m tools.executed_lines [--top N] [--reuse RUNS]
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import lib as lib_package

CONFIG = """[run]
source = {lib}
parallel = true
patch = subprocess
sigterm = true
data_file = {data}
"""


class Function(NamedTuple):
    """A function that was executed."""

    room: str
    file: str
    name: str
    lines: int


def main(argv: list[str] | None = None) -> int:
    """Run the example, or read what an earlier run left, and print the counts."""
    cli = argparse.ArgumentParser(prog="python -m tools.executed_lines", description=__doc__)
    cli.add_argument("--project", default="review-sentiment")
    cli.add_argument("--top", type=int, default=0, help="print the N largest functions of a room")
    cli.add_argument("--reuse", help="a folder of runs: answers recorded there are not asked again")
    args = cli.parse_args(argv)
    if importlib.util.find_spec("coverage") is None:
        sys.exit("pip install coverage")
    lib = Path(lib_package.__path__[0])
    with tempfile.TemporaryDirectory() as scratch:
        runs = Path(args.reuse).resolve() if args.reuse else Path(scratch) / "runs"
        executed = executed_lines(args.project, lib, runs, Path(scratch))
    functions = [f for path in sorted(executed) for f in functions_of(path, lib, executed[path])]
    print(table(functions, args.top))
    return 0


def executed_lines(project: str, lib: Path, runs: Path, scratch: Path) -> dict[Path, set[int]]:
    """The lines that a run executes, by file, in the runner and in every kernel."""
    from coverage import Coverage  # no dependency of the playbook

    config, data = scratch / "coveragerc", scratch / "data" / "coverage"
    data.parent.mkdir()
    config.write_text(CONFIG.format(lib=lib, data=data))
    environment = os.environ | {
        "PYTHONPATH": str(lib.parent),
        "PLAYBOOK_RUNS": str(runs),
        "HF_HUB_OFFLINE": "1",
    }
    command = ["coverage", "run", f"--rcfile={config}", "-m", "lib", "run", project]
    subprocess.run([sys.executable, "-m", *command], cwd=lib.parent, env=environment, check=True)
    coverage = Coverage(data_file=str(data), config_file=str(config))
    coverage.combine()
    lines = coverage.get_data()
    files = [path for path in lines.measured_files() if path.endswith(".py")]  # no templates
    return {Path(path): set(lines.lines(path) or ()) for path in files}


def functions_of(path: Path, lib: Path, executed: set[int]) -> Iterator[Function]:
    """The outermost functions and methods of a file with an executed line in their body."""
    inside = path.relative_to(lib)
    room = inside.parts[0] if len(inside.parts) > 1 else "ground and roof"
    for name, node in outermost(ast.parse(path.read_text(encoding="utf-8"))):
        last = node.end_lineno or node.lineno
        if executed & set(range(node.body[0].lineno, last + 1)):
            yield Function(room, str(inside), name, last - node.lineno + 1)


def outermost(
    tree: ast.AST, prefix: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Functions and methods, but not what is nested in them."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
        else:
            yield from outermost(
                node, prefix + (f"{node.name}." if isinstance(node, ast.ClassDef) else "")
            )


def table(functions: list[Function], top: int) -> str:
    """Lines and functions by room, with the largest functions of each."""
    text = []
    for room in sorted({f.room for f in functions}):
        inside = sorted((f for f in functions if f.room == room), key=lambda f: -f.lines)
        text.append(f"{sum(f.lines for f in inside):6,} {room} ({len(inside)} functions)")
        text += [f"{f.lines:14} {f.file}: {f.name}" for f in inside[:top]]
    files = len({f.file for f in functions})
    total = sum(f.lines for f in functions)
    text.append(f"{total:6,} lines: {len(functions)} functions in {files} files")
    return "\n".join(text)


if __name__ == "__main__":
    sys.exit(main())
