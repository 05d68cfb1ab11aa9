"""The command line: run the playbook headless, and look after its tables."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lib import catalogue, interchange, pipeline, refresh
from lib.artifacts import shown
from lib.errors import PlaybookError

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, run it, and return the exit status."""
    cli = argparse.ArgumentParser(prog="python -m lib", description=__doc__)
    commands = cli.add_subparsers(dest="command", required=True)
    _add_run(commands.add_parser("run", help="execute the six notebooks of a project"))
    _add_catalogue(commands.add_parser("catalogue", help="look after the tables in data/"))
    _add_import(commands.add_parser("import", help="take over OpenAI evals as items and a brief"))
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


def _add_catalogue(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(dest="action", required=True)
    check = actions.add_parser("check", help="list what is stale, unresolved or contradictory")
    check.set_defaults(act=_check)
    check.add_argument("--today", default="", metavar="YYYY-MM-DD", help="count ages to this day")
    check.add_argument("--days", type=int, default=90, help="older rows are stale (90)")
    check.add_argument("--all", action="store_true", help="every row, not the first of each")
    renew = actions.add_parser("refresh", help="rewrite the Hub's facts in data/ from the Hub")
    renew.set_defaults(act=_refresh)
    renew.add_argument("models", nargs="*", metavar="MODEL", help="only these repositories")
    renew.add_argument("--dry-run", action="store_true", help="say what would change")


def _add_import(command: argparse.ArgumentParser) -> None:
    command.set_defaults(act=_import)
    command.add_argument("source", type=Path, help="a spec (YAML, JSON) or a JSONL file of items")
    command.add_argument("folder", type=Path, help="where items.jsonl and evaluation.yaml go")
    command.add_argument("--data", type=Path, help="the items of a spec, if not where it says")
    command.add_argument("--name", help="which eval of the spec")


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


def _check(args: argparse.Namespace) -> str:
    problems = catalogue.check_shipped(today=args.today, days=args.days)
    return catalogue.render(problems, every=args.all)


def _import(args: argparse.Namespace) -> str:
    return interchange.convert(args.source, args.folder, data=args.data, name=args.name)


def _refresh(args: argparse.Namespace) -> str:
    return refresh.shipped(only=args.models or None, dry_run=args.dry_run, progress=True)


if __name__ == "__main__":
    sys.exit(main())
