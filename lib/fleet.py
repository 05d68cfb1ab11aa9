"""Run many projects side by side, each in a process of its own: none stops the others.

`python -m lib.fleet PROJECT` is such a process. It prints its row as JSON, and stops as after
Ctrl-C when its standard input closes, as it does when whoever started it is killed.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from subprocess import PIPE
from typing import Any

from lib import artifacts, pipeline
from lib.errors import PlaybookError
from lib.opening import open_project
from lib.tables import Row

SCHEDULER = "DASK_SCHEDULER_ADDRESS"


def run(projects: list[str], *, workers: int) -> Iterator[Row]:
    """Run projects, at most `workers` at a time, and yield what happened to each as it ends.

    With `DASK_SCHEDULER_ADDRESS` set the workers are Dask's, which share the folders of projects
    and runs; the project of one that dies goes on at another. A row has `project outcome page
    says`: the decision's outcome or `error`, and the decision or the error in a sentence.
    Without Dask, or a scheduler at that address, it is a PlaybookError.
    """
    names, futures = dict[str, str](), dict[Future[Row], str]()
    with _executor(workers) as executor:
        for project in dict.fromkeys(map(pipeline.absolute, projects)):
            try:
                brief = open_project(project)
            except PlaybookError as error:
                yield _failed(project, str(error))
                continue
            if brief.name not in names:
                futures[executor.submit(run_alone, project)] = project
            elif names[brief.name] != brief.file:
                same = f"its name {brief.name!r} is that of {names[brief.name]} too"
                yield _failed(project, f"{same}: give one another `name`")
            names.setdefault(brief.name, brief.file)
        try:
            for future in as_completed(futures):
                problem = future.exception()
                yield _failed(futures[future], str(problem)) if problem else future.result()
        finally:  # all are over, or somebody stopped this
            for future in futures:
                future.cancel()


@contextlib.contextmanager
def _executor(workers: int) -> Iterator[Executor]:
    """Threads that wait for processes, or Dask's workers, which do."""
    if not (address := os.environ.get(SCHEDULER)):
        with ThreadPoolExecutor(workers) as threads:
            yield threads
        return
    try:
        client = importlib.import_module("distributed").Client(address)
    except (ImportError, OSError, ValueError) as error:
        hint = "pip install 'dask[distributed]', start `dask scheduler` there, or unset it"
        text = f"{SCHEDULER}: {type(error).__name__}; {hint}"  # its address may hold a password
        raise PlaybookError(text) from None
    with client:
        yield client.get_executor(pure=False)


def run_alone(project: str) -> Row:
    """Run a project in a process of its own, and return its row, also where the process dies."""
    command = [sys.executable, "-m", "lib.fleet", project]
    pipes: Any = {"stdin": PIPE, "stdout": PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=artifacts.ROOT, **pipes) as child:
        assert child.stdout is not None
        lines = child.stdout.read().decode(errors="replace").splitlines()
    try:
        return dict(json.loads(lines[-1]))
    except (IndexError, ValueError, TypeError):
        last = f": {lines[-1][:300]}" if lines else ""
        return _failed(project, f"the process of this project ended with {child.returncode}{last}")


def _failed(project: str, sentence: str) -> Row:
    return {"project": project, "outcome": "error", "page": "", "says": sentence}


def _run_here(project: str) -> Row:
    try:
        run_path = pipeline.run(project, progress=False)
    except PlaybookError as error:
        return _failed(project, str(error))
    decision = json.loads((run_path / artifacts.RECORD).read_bytes())
    row = {"project": project, "outcome": decision["outcome"], "says": decision["summary"]}
    return row | {"page": str(run_path / "report.html")}


def _stop_with_parent() -> None:
    while os.read(0, 1):  # raw: a buffered reader's lock would be held at the end
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    sys.stdout.write(json.dumps(_run_here(sys.argv[1])) + "\n")
