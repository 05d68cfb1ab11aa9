"""The command line: run the playbook headless."""

import argparse
import sys
from pathlib import Path
from typing import Any

from lib import pipeline
from lib.artifacts import shown
from lib.errors import PlaybookError

STOPPED = "stopped; what was measured is kept, the same command goes on from there\n"


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, run the notebooks, and return the exit status."""
    args = _arguments(argv)
    names = [name for name, _ in args.parameters]
    try:
        if repeated := [name for name in names if names.count(name) > 1]:
            raise PlaybookError(f"-p {repeated[0]} is given twice")
        run = pipeline.run(
            args.project,
            # Relative to the caller, as with any command; notebooks resolve to the repository.
            run_dir=args.run_dir and str(Path(args.run_dir).resolve()),
            start=args.start,
            parameters=dict(args.parameters),
            progress=not args.quiet,
        )
    except PlaybookError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(STOPPED)
        return 130
    sys.stdout.write(f"{shown(run)}/report.html\n")
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    cli = argparse.ArgumentParser(prog="python -m lib", description=__doc__)
    run = cli.add_subparsers(required=True).add_parser("run", help="execute the six notebooks")
    run.add_argument("project", help="a name in data/projects/, a folder, or a YAML file")
    run.add_argument("--run-dir", default="", help="where the run's files go (runs/<name>/)")
    run.add_argument(
        "--from", dest="start", default="01", metavar="STEP", help="01 to 06; reuse those before"
    )
    pairs: Any = {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}
    text = "override a parameter of the notebooks, as often as needed"
    run.add_argument("-p", dest="parameters", help=text, **pairs)
    run.add_argument("--quiet", action="store_true", help="no progress on standard error")
    return cli.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
