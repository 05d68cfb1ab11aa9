"""Run the six notebooks headless, in order, into one run directory."""

import contextlib
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import papermill
from papermill import iorw
from papermill.exceptions import PapermillExecutionError
from papermill.parameterize import parameterize_notebook
from traitlets.config import Config

from lib import artifacts, preflight, untrusted
from lib.errors import PlaybookError, did_you_mean, plain
from lib.opening import check_step, open_project

PATHS = {n: artifacts.ROOT / f"notebooks/{stem}.ipynb" for n, stem in artifacts.NOTEBOOKS.items()}

MANAGER = {"transport_encryption": "auto"}  # between runner and kernel: no warning
KERNEL = {
    "config": Config({"KernelManager": MANAGER}),
    # A kernel stopped by Ctrl-C would write a traceback of its own.
    "extra_arguments": ["--IPKernelApp.log_level=CRITICAL"],
}


class _WholeFiles(iorw.LocalHandler):  # type: ignore[misc]
    """Writes executed notebooks whole or not at all; papermill's own would leave half of one.

    A library's exception may quote the headers it sent: no traceback keeps a secret.
    """

    secrets: Sequence[str] = ()

    def write(self, buf: str, path: str) -> None:
        content = untrusted.without(self.secrets, buf).encode(errors="replace")
        artifacts.write_bytes(Path(path), content)


class _Terminal:
    """Standard error for what a notebook prints; a return is obeyed where a line begins with it."""

    def write(self, text: str) -> None:
        sys.stderr.write(re.sub(r"(?m)^[^\r\n].*|[^\r\n]+", lambda line: plain(line[0]), text))

    def flush(self) -> None:
        sys.stderr.flush()


WRITER = _WholeFiles()
iorw.papermill_io.register(os.sep, WRITER)  # absolute paths


def declared_parameters() -> dict[str, dict[str, str]]:
    """The parameters that each notebook declares, and their types, by the notebook's number."""
    types_of = {n: papermill.inspect_notebook(str(path)).values() for n, path in PATHS.items()}
    return {n: {p["name"]: p["inferred_type_name"] for p in ps} for n, ps in types_of.items()}


def run(
    project: str,
    *,
    run_dir: str = "",
    start: str = "01",
    parameters: dict[str, str] | None = None,
    progress: bool = True,
) -> Path:
    """Execute the notebooks of a project, from `start` on, into the run directory it returns.

    A parameter, its value as text, goes to every notebook that declares it. The first notebook
    that fails is a PlaybookError.
    """
    types_of, start = declared_parameters(), start.zfill(2)
    if start not in types_of:
        raise PlaybookError(f"--from {start!r} is not a step; choose one of {', '.join(types_of)}")
    values = _typed(parameters or {}, types_of)
    for name in values:
        if start > (last := max(n for n, names in types_of.items() if name in names)):
            raise PlaybookError(f"parameter {name!r} is of step {last}: run with --from {last}")
    brief = open_project(project)
    variables = preflight.unset_keys(brief) if start < "06" else []  # step 6 asks nobody
    preflight.refuse(brief, preflight.problems(brief) + variables)
    WRITER.secrets = preflight.secrets(brief)
    project, run_path = absolute(project), artifacts.run_directory(brief.name, run_dir)
    with artifacts.alone(run_path / "run", wait_s=30), _noting_ctrl_c() as presses:
        artifacts.sweep(run_path)
        artifacts.retire_decision(run_path)
        for number, names in types_of.items():
            if number < start:
                check_step(number, project, run_path)
                if progress:
                    sys.stderr.write(f"{number} {artifacts.NOTEBOOKS[number]}: reused\n")
                continue
            arguments = {name: value for name, value in values.items() if name in names}
            arguments |= {"project": project, "run_dir": str(run_path)}
            if number == "04":
                preflight.anyone_left(brief, run_path)
            _execute(number, arguments, run_path, progress)
            if presses:
                raise KeyboardInterrupt
    return run_path


def copy(project: str) -> tuple[Path, list[Path]]:
    """Put the notebooks into a project's run directory, to step through; those there are kept."""
    brief = open_project(project)
    project, run_path = absolute(project), artifacts.run_directory(brief.name)
    paths = {number: run_path / path.name for number, path in PATHS.items()}
    older = [path for path in paths.values() if path.exists()]
    ways = {project, brief.file, str(brief.folder), brief.name}  # by name, or as a fleet names it
    # As a notebook's file has it.
    parameters = [json.dumps(f"project = {json.dumps(way)}")[1:-1] for way in ways]
    for path in older:
        text = path.read_text(encoding="utf-8")
        if not any(parameter in text for parameter in parameters):
            text = f"{artifacts.path_name(path)} is of another project of this name"
            raise PlaybookError(f"{text}: give one another `name`, or delete the copies")
    for number, path in paths.items():
        if path not in older:
            _renew(number, project, run_path)
    return run_path, older


def absolute(project: str) -> str:
    """A project as it is found from any folder: a path is relative to the caller, a name is not."""
    if os.sep in project or project.endswith((".yaml", ".yml")):
        return str(Path(project).expanduser().resolve())
    return project


def _renew(number: str, project: str, run: Path) -> None:
    """Write a notebook as committed, for a run; one there that was edited goes to `previous/`."""
    path, fresh = run / PATHS[number].name, iorw.load_notebook_node(str(PATHS[number]))
    for cell in fresh.cells:
        cell.source = cell.source.replace("](../", f"]({os.path.relpath(artifacts.ROOT, run)}/")
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    fresh = parameterize_notebook(fresh, {"project": project, "run_dir": str(run)})
    before = None
    with contextlib.suppress(OSError, ValueError):  # none there, or its writing was cut off
        before = _sources(iorw.load_notebook_node(str(path)))
    if before not in (None, _sources(fresh)):
        (run / "previous").mkdir(exist_ok=True)
        path.replace(run / "previous" / path.name)
    with artifacts.writing(path):
        iorw.write_ipynb(fresh, str(path))


def _sources(notebook: Any) -> list[str]:
    """The cells as somebody wrote them: all but the parameters of one run."""
    tag = "injected-parameters"
    return [c.source for c in notebook.cells if tag not in c.metadata.get("tags", [])]


def _typed(texts: dict[str, str], types_of: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Values in the type their notebook declares; papermill alone would guess or only warn."""
    types = {name: kind for names in types_of.values() for name, kind in names.items()}
    choices, values = sorted(types.keys() - {"project", "run_dir"}), dict[str, Any]()
    for name, text in texts.items():
        if name not in choices:
            hint = f"{did_you_mean(name, choices)} What is none of them is set in the brief."
            raise PlaybookError(f"no notebook has a parameter {name!r}; {hint}")
        try:
            values[name] = {"int": int, "float": float}.get(types[name], str)(text)
        except ValueError:
            raise PlaybookError(f"parameter {name!r} must be {types[name]}, not {text!r}") from None
    return values


@contextlib.contextmanager
def _noting_ctrl_c() -> Iterator[list[int]]:
    """Note Ctrl-C as well as raising it: an exception in a destructor or callback is lost."""
    presses: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        presses.append(number)
        logging.disable()  # what dies with the kernel is no news
        signal.default_int_handler(number, frame)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGINT, note)
    try:
        yield presses
    finally:
        signal.signal(signal.SIGINT, before)


def _execute(number: str, parameters: dict[str, Any], run: Path, progress: bool) -> None:
    path, log = PATHS[number], run / PATHS[number].name
    options: dict[str, Any] = {"progress_bar": False}
    if progress:
        bar = {"desc": f"{number}/06 {path.stem[3:]:<15}", "leave": True}
        options = {"progress_bar": bar, "stdout_file": _Terminal(), "stderr_file": _Terminal()}
    # Here, what a killed run leaves is replaced by the next.
    manager = MANAGER | {"connection_file": str(run / ".kernel.json")}
    options |= KERNEL | {"config": Config({"KernelManager": manager})}
    try:
        with artifacts.writing(log):
            _renew(number, parameters["project"], run)
            place = str(log).replace("{", "{{").replace("}", "}}")  # papermill formats it
            # On a busy machine a kernel takes long to start.
            papermill.execute_notebook(place, place, parameters, start_timeout=600, **options)
    except PapermillExecutionError as error:
        kind = "" if error.ename == "PlaybookError" else f"{error.ename}: "
        text = f"{path.stem}, cell {error.exec_count}: {kind}{error.evalue}"
        text = untrusted.without(WRITER.secrets, text)
        saved = f"the executed notebook is {artifacts.path_name(log)}"
        raise PlaybookError(f"{text} ({saved})") from None
    except RuntimeError:  # DeadKernelError, or another where it dies as it starts
        died = "the kernel died, which is mostly too little memory; what was measured is kept"
        raise PlaybookError(f"{path.stem}: {died}, the same command goes on from there") from None
