"""The command line: run the playbook headless."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lib import pipeline
from lib.artifacts import shown
from lib.errors import PlaybookError

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, run it, and return the exit status."""
    cli = argparse.ArgumentParser(prog="python -m lib", description=__doc__)
    commands = cli.add_subparsers(dest="command", required=True)
    _add_run(commands.add_parser("run", help="execute the six notebooks of a project"))
    args = cli.parse_args(argv)
    try:
        sys.stdout.write(f"{args.act(args)}\n")
    except PlaybookError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(
            "stopped; what was measured is kept, the same command goes on from there\n"
        )
        return 130
    return 0


def _add_run(run: argparse.ArgumentParser) -> None:
    run.set_defaults(act=_run)
    run.add_argument("project", help="a name in data/projects/, a folder, or a YAML file")
    run.add_argument("--run-dir", default="", help="where the run's files go (runs/<name>/)")
    run.add_argument(
        "--from", dest="start", default="01", metavar="STEP", help="01 to 06; reuse what is before"
    )
    run.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="override one parameter of the notebooks, as often as needed",
    )
    run.add_argument("--quiet", action="store_true", help="no progress on standard error")


def _run(args: argparse.Namespace) -> str:
    done = pipeline.run(
        args.project,
        # Relative to the caller, as with any command; notebooks resolve to the repository.
        run_dir=str(Path(args.run_dir).resolve()) if args.run_dir else "",
        start=args.start,
        parameters=dict(args.parameters),
        progress=not args.quiet,
    )
    return f"{shown(done)}/report.html"


if __name__ == "__main__":
    sys.exit(main())
