"""The command line: begin a project, check it, run it headless, or open it in JupyterLab."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lib import fleet, pages, pipeline, preflight, verify
from lib.artifacts import ROOT, path_name, runs_root, write_bytes
from lib.errors import PlaybookError, plain
from lib.opening import open_project

STATUS = {"picked": 0, "none qualifies": 20, "not decided": 21}  # of `run`, for CI
STOPPED = "stopped; what was measured is kept, the same command goes on from there\n"


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, do what it says, and return the exit status."""
    args = _arguments(argv)
    try:
        return args.command(args) or 0
    except PlaybookError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(STOPPED)
        return 130


def _say(*lines: str) -> None:
    """Print lines: all that comes from files and endpoints passes here."""
    sys.stdout.write("".join(f"{plain(line)}\n" for line in lines))
    sys.stdout.flush()


def _run(args: argparse.Namespace) -> int:
    names = [name for name, _ in args.parameters]
    if repeats := [name for name in names if names.count(name) > 1]:
        raise PlaybookError(f"-p {repeats[0]} is given twice")
    run = pipeline.run(
        args.project,
        # Relative to the caller, as with any command; notebooks resolve to the repository.
        run_dir=args.run_dir and str(Path(args.run_dir).resolve()),
        start=args.start,
        parameters=dict(args.parameters),
        progress=not args.quiet,
    )
    decision = json.loads((run / "06_decision.json").read_bytes())
    second = "No other configuration qualifies."
    if decision["runner_up"]:
        second = f"The next best is {decision['runner_up']['deployment']}."
    _say(f"{decision['summary']} {second}", *decision["sentences"])
    for one in decision["not_asked"]:
        _say(f"Not asked: {one['deployment']} ({one['repo_id']}): {one['why']}")
    _say(f"{path_name(run)}/report.html")
    return STATUS[decision["outcome"]]


def _fleet(args: argparse.Namespace) -> int:
    """One line a project as it ends; the worst outcome of all is the status."""
    outcomes, page = list[dict[str, Any]](), runs_root() / "fleet.html"
    if args.workers < 1:
        raise PlaybookError(f"--workers must be 1 or more, not {args.workers}")
    for row in fleet.run(args.projects, workers=args.workers):
        link = quote(os.path.relpath(row["page"], page.parent)) if row["page"] else ""
        name, page_name = (path_name(Path(row[key])) for key in ("project", "page"))
        outcomes.append(row | {"project": name, "link": link})
        words = [row["outcome"], " ".join(row["says"].split()), *([page_name] if link else [])]
        _say(f"{name}: {' · '.join(words)}")
        write_bytes(page, pages.fleet_page(outcomes).encode())
    _say(path_name(page))
    statuses = {STATUS.get(row["outcome"], 1) for row in outcomes}
    return 1 if 1 in statuses else max(statuses)


def _new(args: argparse.Namespace) -> None:
    folder = preflight.new(args.name)
    _say(f"{path_name(folder)}/ is there: project.yaml, items.jsonl, README.md")
    _say(f"next: python -m lib check {args.name}")


def _check(args: argparse.Namespace) -> None:
    brief = open_project(args.project)
    table, problems = preflight.check(brief)
    says = "Calls and dollars are the most; minutes are about, at the latency of this one call."
    view = pages.table(table, rows=99, says=says, empty="There is no endpoint to ask.")
    _say(*view.text.split("\n"))
    then = f"\nnext: mend this, then python -m lib check {args.project}"
    preflight.refuse(brief, problems, then=then)
    _say(*(f"note: {text}" for text in preflight.notes(brief)))
    n_barred = int(table["works"].str.startswith("not asked").sum())
    bars = f"{n_barred} of {len(brief.deployments)} deployments will not be asked, see above"
    ready = bars if n_barred else "Everything is there"
    _say(f"{ready}. next: python -m lib run {args.project}")


def _verify(args: argparse.Namespace) -> int:
    status, findings = verify.verify(Path(args.run), record=args.record, brief=args.brief)
    _say(*findings)
    return status


def _diff(args: argparse.Namespace) -> None:
    _say(*verify.diff(Path(args.first), Path(args.second)))


def _lab(args: argparse.Namespace) -> None:
    """JupyterLab takes this process; its root is the repository, for links to `data/`."""
    folder = ROOT / "notebooks"
    if args.project:
        folder, older = pipeline.copy(args.project)
        for path in older:
            sys.stderr.write(f"{path_name(path)} is kept; delete it for a fresh copy\n")
    root = ROOT if folder.is_relative_to(ROOT) else folder
    first = quote((folder / pipeline.PATHS["01"].name).relative_to(root).as_posix())
    command = [sys.executable, "-m", "jupyterlab", "--allow-root", f"--ServerApp.root_dir={root}"]
    os.execv(command[0], [*command, f"--LabApp.default_url=/lab/tree/{first}", *args.options])


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    cli = argparse.ArgumentParser(prog="python -m lib", description=__doc__)
    commands = cli.add_subparsers(required=True)

    def command(act: Callable[..., Any], text: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(act.__name__.strip("_"), help=text)
        parser.set_defaults(command=act)
        return parser

    run = command(_run, "execute the six notebooks")
    run.add_argument("project", help="a name in data/projects/, a folder, or a YAML file")
    run.add_argument("--run-dir", default="", help="where the run's files go (runs/<name>/)")
    text = "01 to 06; reuse those before"
    run.add_argument("--from", dest="start", default="01", metavar="STEP", help=text)
    pairs: Any = {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}
    text = "override a parameter of the notebooks, as often as needed"
    run.add_argument("-p", dest="parameters", help=text, **pairs)
    run.add_argument("--quiet", action="store_true", help="no progress on standard error")
    many = command(_fleet, "run many projects; one that fails stops no other")
    many.add_argument("projects", nargs="+", metavar="project", help="as for run")
    text = "projects at a time; 1 where models run on this machine, or they disturb each other"
    most = max((os.cpu_count() or 2) // 2, 1)
    many.add_argument("--workers", type=int, default=most, metavar="N", help=text)
    new = command(_new, "write a project of your own, ready to run")
    new.add_argument("name", help="its name, and its folder's in data/projects/")
    check = command(_check, "look for all problems, and ask each endpoint once")
    check.add_argument("project", help="as for run")
    proof = command(_verify, "are its files as recorded, its decision the same?")
    proof.add_argument("run", help="a run directory")
    sha256: Any = {"default": "", "metavar": "SHA256"}
    proof.add_argument("--record", help="expected of 06_decision.json", **sha256)
    proof.add_argument("--brief", help="expected of the project's file", **sha256)
    changes = command(_diff, "what changed from one run to another")
    changes.add_argument("first", help="a run directory")
    changes.add_argument("second", help="another")
    lab = command(_lab, "open JupyterLab, on a project's own copies if named")
    lab.add_argument("project", nargs="?", default="", help="as for run")
    lab.add_argument("options", nargs=argparse.REMAINDER, help="options of JupyterLab")
    return cli.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
