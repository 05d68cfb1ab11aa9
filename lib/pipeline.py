"""Run the six notebooks headless, in order, into one run directory."""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from lib import artifacts
from lib.brief.project import load_project
from lib.errors import PlaybookError

__all__ = ["declared_parameters", "run"]

RUNNER_OWNS = ("project", "run_dir")


def notebook_paths() -> dict[str, Path]:
    """The notebooks by their two-digit number, in the order they run."""
    folder = artifacts.ROOT / "notebooks"
    return {number: folder / f"{stem}.ipynb" for number, stem in artifacts.NOTEBOOKS.items()}


def declared_parameters() -> dict[str, dict[str, str]]:
    """The parameters of each notebook and their declared types."""
    return {
        number: {
            name: facts["inferred_type_name"]
            for name, facts in papermill.inspect_notebook(str(path)).items()
        }
        for number, path in notebook_paths().items()
    }


def run(
    project: str,
    *,
    run_dir: str = "",
    start: str = "01",
    parameters: dict[str, str] | None = None,
    progress: bool = True,
) -> Path:
    """Execute the notebooks of a project, from `start` on, and return the run directory.

    Each executed notebook is saved in the run directory and is its step's log. A parameter
    goes to every notebook that declares it.

    Args:
        project: A name in `data/projects/`, a folder or a YAML file.
        run_dir: Where the run's files go; `runs/<name>/` if empty.
        start: First step to execute, such as `04`; earlier artefacts are reused.
        parameters: Parameter names and their values as text.
        progress: Say which notebook and which cell runs, on standard error.

    Raises:
        PlaybookError: An unknown parameter or step, a missing artefact, or the first
            notebook that failed, with its own sentence.
    """
    declared = declared_parameters()
    given = _typed(parameters or {}, declared)
    numbers = list(declared)
    if start not in numbers:
        raise PlaybookError(f"--from {start!r} is not a step; choose one of {', '.join(numbers)}")
    brief = load_project(project)
    # A path is relative to the caller; a notebook may be started anywhere.
    is_path = os.sep in project or project.endswith((".yaml", ".yml"))
    target = str(Path(project).expanduser().resolve()) if is_path else project
    run_path = artifacts.run_directory(brief.name, run_dir)
    _reuse(run_path, [number for number in numbers if number < start], progress)
    with _noting_ctrl_c() as pressed:
        for number in numbers[numbers.index(start) :]:
            own = {k: v for k, v in given.items() if k in declared[number]}
            parameters_ = {"project": target, "run_dir": str(run_path), **own}
            _execute(number, parameters_, run_path, progress)
            if pressed:
                raise KeyboardInterrupt
    return run_path


@contextlib.contextmanager
def _noting_ctrl_c() -> Iterator[list[int]]:
    """Note Ctrl-C as well as raising it: an exception in a destructor or callback is lost."""
    pressed: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        logging.disable()  # what dies with the kernel is no news
        signal.default_int_handler(number, frame)

    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as under nohup
    if ignored or threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _typed(given: dict[str, str], declared: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Values in the type their notebook declares; papermill alone would guess or only warn."""
    types = {name: kind for own in declared.values() for name, kind in own.items()}
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in types or name in RUNNER_OWNS:
            known = sorted(set(types) - set(RUNNER_OWNS))
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            raise PlaybookError(f"no notebook has a parameter {name!r}; {hint}")
        try:
            value: Any = {"int": int, "float": float}.get(types[name], str)(text)
        except ValueError:
            raise PlaybookError(f"parameter {name!r} must be {types[name]}, not {text!r}") from None
        values[name] = value
    return values


def _reuse(run: Path, numbers: list[str], progress: bool) -> None:
    """Say which steps are reused, and refuse where their files are not there."""
    known = artifacts.existing(run)
    for number in numbers:
        needed = [f"{name}.parquet" for name in artifacts.COLUMNS if name.startswith(number)]
        if lacking := [file for file in needed if file not in known]:
            raise PlaybookError(
                f"cannot reuse step {number}: {artifacts.shown(run)} has no {lacking[0]};"
                f" run again with --from {number}"
            )
        _say(f"{number} {artifacts.NOTEBOOKS[number]}: reused", progress)


def _execute(number: str, parameters: dict[str, Any], run: Path, progress: bool) -> None:
    path = notebook_paths()[number]
    bar = {"desc": f"{number}/06 {path.stem[3:]:<15}", "leave": True} if progress else False
    try:
        papermill.execute_notebook(
            str(path),
            str(run / path.name),
            parameters,
            progress_bar=bar,
            stderr_file=sys.stderr if progress else None,
            # Loopback traffic between runner and kernel is encrypted, and the warning is gone.
            config=Config({"KernelManager": {"transport_encryption": "auto"}}),
            # A kernel stopped by Ctrl-C would write a traceback of its own.
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        )
    except PapermillExecutionError as error:
        said = error.evalue if error.ename == "PlaybookError" else f"{error.ename}: {error.evalue}"
        raise PlaybookError(
            f"{path.stem}, cell {error.exec_count}: {said}"
            f" (the executed notebook is {artifacts.shown(run / path.name)})"
        ) from None
    except DeadKernelError:
        raise PlaybookError(
            f"{path.stem}: the kernel died, which is mostly too little memory;"
            " what was measured is kept, the same command goes on from there"
        ) from None
    except OSError as error:
        raise PlaybookError(
            f"{artifacts.shown(run / path.name)}: {error.strerror or error}"
        ) from None


def _say(text: str, progress: bool) -> None:
    if progress:
        sys.stderr.write(text + "\n")
