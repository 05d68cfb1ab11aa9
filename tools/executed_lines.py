"""How many lines of `lib` somebody must read to follow the default run.

Runs the shipped example under coverage, runner and all six notebooks, and counts the lines of
every function of which the run executed a line of the body: from `def` to the last line, docstring
included. A nested function is part of its outer one.

    python -m tools.executed_lines --top 10
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from coverage import Coverage

LIB = Path(__file__).resolve().parents[1] / "lib"
CONFIG = """[run]
source = {lib}
parallel = true
patch = subprocess
sigterm = true
data_file = {data}
"""


class Function(NamedTuple):
    """A function that was executed, and how long it is."""

    file: str
    name: str
    lines: int

    @property
    def room(self) -> str:
        """The folder of `lib` it lies in."""
        folder, slash, _ = self.file.partition("/")
        return folder if slash else "ground and roof"


def executed_lines(project: str, runs: Path | None = None) -> dict[Path, set[int]]:
    """The lines that a run executes, by file, in the runner and in every process it starts.

    Args:
        project: As for `python -m lib run`.
        runs: The folder of runs, whose answers and probes are not asked for again; a scratch one
            unless given.
    """
    with tempfile.TemporaryDirectory() as scratch:
        config, data = Path(scratch, "coveragerc"), Path(scratch, "data", "coverage")
        data.parent.mkdir()
        config.write_text(CONFIG.format(lib=LIB, data=data))
        runs = runs or Path(scratch, "runs")
        paths = {"PYTHONPATH": str(LIB.parent), "PLAYBOOK_RUNS": str(runs.resolve())}
        command = [sys.executable, "-m", "coverage", "run", f"--rcfile={config}"]
        command += ["-m", "lib", "run", project]
        subprocess.run(command, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"} | paths)
        coverage = Coverage(data_file=str(data), config_file=str(config))
        coverage.combine()
        measured = coverage.get_data()
        files = [file for file in measured.measured_files() if file.endswith(".py")]
        return {Path(file): set(measured.lines(file) or ()) for file in files}


def functions(path: Path, executed: set[int], root: Path = LIB) -> Iterator[Function]:
    """The outermost functions and methods of a file with an executed line in their body."""
    for name, node in _outermost(ast.parse(path.read_text(encoding="utf-8"))):
        last = node.end_lineno or node.lineno
        if executed & set(range(node.body[0].lineno, last + 1)):
            yield Function(path.relative_to(root).as_posix(), name, last - node.lineno + 1)


def _outermost(
    tree: ast.AST, prefix: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
        else:
            inner = f"{prefix}{node.name}." if isinstance(node, ast.ClassDef) else prefix
            yield from _outermost(node, inner)


def table(executed: list[Function], top: int = 0) -> str:
    """Lines and functions by room, with the largest functions of each."""
    lines = []
    for room in sorted({function.room for function in executed}):
        inside = sorted((f for f in executed if f.room == room), key=lambda f: -f.lines)
        lines.append(f"{sum(f.lines for f in inside):6,} {room} ({len(inside)} functions)")
        lines += [f"{f.lines:14} {f.file}: {f.name}" for f in inside[:top]]
    total, files = sum(f.lines for f in executed), len({f.file for f in executed})
    return "\n".join([*lines, f"{total:6,} lines: {len(executed)} functions in {files} files"])


def main(argv: list[str] | None = None) -> None:
    """Run the example and print the counts."""
    cli = argparse.ArgumentParser(prog="python -m tools.executed_lines", description=__doc__)
    cli.add_argument("--project", default="review-sentiment")
    cli.add_argument("--top", type=int, default=0, help="print the N largest functions of a room")
    cli.add_argument("--reuse", type=Path, metavar="RUNS", help="a folder of runs to go on with")
    args = cli.parse_args(argv)
    executed = executed_lines(args.project, args.reuse)
    print(
        table([f for path in sorted(executed) for f in functions(path, executed[path])], args.top)
    )


if __name__ == "__main__":
    main()
