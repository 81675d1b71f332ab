"""What the commands that search on the table share: options, quiet, where results go."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from recorded.readme import write_table

from autokd.errors import AutoKDError

Report = dict[str, Any]


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """The options of every command."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--table", type=Path, default=HERE / "table.jsonl.gz")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--reward", nargs="+", default=["val_loss", "cka", "ap"])
    parser.add_argument("--epochs", type=int, default=None, help="of the proxy; left out: all that were recorded")
    parser.add_argument("--output", type=Path, default=HERE)
    return parser


def quiet() -> None:
    """Neither Optuna nor a library under it speaks of each of ten thousand trials."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")


def report_on_table(
    name: str,
    options: argparse.Namespace,
    compare: Callable[[argparse.Namespace], Report],
    lines_of: Callable[[Report], Sequence[str]],
) -> Report | None:
    """Compare; write NAME.json into ``options.output``, and where that is this folder the table into README.md.

    None if the table does not allow it: what is wrong has been printed.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    quiet()
    try:
        report = compare(options)
    except AutoKDError as error:
        print(error, file=sys.stderr)
        return None
    options.output.mkdir(parents=True, exist_ok=True)
    rounded = json.loads(json.dumps(report), parse_float=lambda text: float(f"{float(text):.6g}"))
    (options.output / f"{name}.json").write_text(json.dumps(rounded) + "\n", encoding="utf-8")
    lines = lines_of(report)
    if options.output == HERE:
        write_table(HERE / "README.md", name, lines)
    print("\n".join(lines))
    return report
