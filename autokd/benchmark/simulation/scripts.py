"""Options and output that the scripts of an experiment on a recorded table share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from autokd.benchmark.simulation.reports import Report, quiet, write_report
from autokd.errors import AutoKDError


def parser_of(doc: str | None, folder: Path) -> argparse.ArgumentParser:
    """Return a parser of the options that every such script has.

    Args:
        doc: docstring of the script; its first line becomes the description.
        folder: folder of the experiment: where the table is read, and where results are written, if no option says
            otherwise.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--table", type=Path, default=folder / "table.jsonl.gz")
    parser.add_argument("--repeats", type=int, default=100, help="searches of each kind")
    parser.add_argument("--reward", nargs="+", default=["val_loss", "cka", "ap"], help="metrics that the reward adds")
    parser.add_argument("--epochs", type=int, default=None, help="of the proxy; left out: all that were recorded")
    parser.add_argument("--output", type=Path, default=folder)
    return parser


def run_script(
    name: str,
    options: argparse.Namespace,
    compute: Callable[[argparse.Namespace], Report],
    lines_of: Callable[[Report], Sequence[str]],
) -> int:
    """Compute a report; write NAME.json into ``options.output``, and its table into the README there.

    Args:
        name: name of the file, and of the table in the README.
        options: options of the script.
        compute: options -> report, as plain data.
        lines_of: report -> its table, lines of Markdown.

    Returns:
        Exit code: 2 if the table does not allow it, with the reason on stderr.
    """
    quiet()
    try:
        report = compute(options)
        write_report(name, report, lines_of(report), options.output)
    except AutoKDError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
