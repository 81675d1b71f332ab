"""Commands about what runs have found: evaluate, report, dashboard, runs, compare."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from autokd import api
from autokd.cli.options import AsJson, CacheDir, ConfigFile, Storage


class Split(str, Enum):
    """Split of the data set."""

    val = "val"
    test = "test"


def evaluate(
    config_file: ConfigFile,
    weights: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="File of weights, e.g. runs/NAME/student.pt.")
    ],
    split: Annotated[Split, typer.Option(help="Split to evaluate on.")] = Split.test,
    teacher: Annotated[bool, typer.Option("--teacher", help="Evaluate the teacher: the weights are its own.")] = False,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    """Measure COCO AP of given weights on val or test."""
    from rich.table import Table
    from rich.text import Text

    from autokd.cli.terminal import console

    side: Literal["student", "teacher"] = "teacher" if teacher else "student"
    scores = api.evaluate(config_file, weights, split=split.value, side=side, cache_dir=cache_dir)
    if as_json:
        typer.echo(json.dumps(scores, indent=1))
        return
    table = Table("metric", "value", title=Text(f"{weights} on {split.value}"))  # a path may have brackets
    for name, value in scores.items():
        table.add_row(Text(name), f"{value:.4f}")
    console().print(table)


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    cache_dir: CacheDir = None,
    storage: Storage = None,
) -> None:
    """Write report.html of a run anew from its study and results, and print the table of results."""
    from autokd.cli.storage import chosen_storage
    from autokd.cli.terminal import console
    from autokd.report import results_table
    from autokd.storage import Results
    from autokd.study import write_run_report

    has_own = (run / "study.db").exists()
    address = None if storage is None and has_own else chosen_storage(storage)
    path = write_run_report(run, cache_dir=api.cache_directory(cache_dir), storage_url=address)
    results = Results.read(run / "results.json") if (run / "results.json").exists() else None
    if results is not None:
        console().print(results_table(results))
    typer.echo(path)


def dashboard(
    run: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            metavar="RUN",
            help="Run directory, URL of a database without a password, or @FILE that holds one. "
            "Default: AUTOKD_STORAGE.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Port; if it is taken, the next free one.")] = 8080,
    write: Annotated[bool, typer.Option("--write", help="Let the pages change and delete studies.")] = False,
    price: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, help="Price of an hour of the run, to show its cost."),
    ] = None,
) -> None:
    """Serve the pages of a run, live while it runs, on the loopback address, for everyone with the printed address.

    Optuna's dashboard is below /optuna; of a database it is all that is served.
    """
    from autokd.cli.storage import chosen_storage
    from autokd_dashboard import serve

    address = chosen_storage(run)
    if address is None:
        raise typer.BadParameter("name a run directory or a database, or set AUTOKD_STORAGE.", param_hint="RUN")
    serve(address, port=port, may_write=write, price=price)


def runs(
    folders: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Argument(metavar="[FOLDER]...", help="Folders of run directories. Default: runs."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List run directories, the latest first: state, trials, best reward, winner, age."""
    from autokd.cli.comparison import age_words, runs_table
    from autokd.cli.terminal import console
    from autokd.storage import list_runs

    found = [run for folder in folders or [api.RUNS] for run in list_runs(folder)]
    if as_json:
        typer.echo(json.dumps([run.to_data() for run in found], indent=1))
    elif found:
        console().print(runs_table(found, age_words))
    else:
        typer.echo(f"no run directory in {', '.join(map(str, folders or [api.RUNS]))}")


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Run directory.")],
    others: Annotated[list[Path], typer.Argument(metavar="B...", help="Run directories to compare it with.")],
    picture: Annotated[Path, typer.Option("--picture", help="PNG file of the comparison.")] = Path("comparison.png"),
    as_json: AsJson = False,
) -> None:
    """Compare runs: results, search curves, and the settings that differ, as a table and a picture."""
    from autokd.cli.comparison import comparison_view
    from autokd.cli.terminal import console
    from autokd.report import compare_runs, draw_comparison

    found = compare_runs([first, *others])
    draw_comparison(found, picture)
    if as_json:
        typer.echo(json.dumps(found.to_data() | {"picture": str(picture)}, indent=1))
        return
    console().print(comparison_view(found))
    typer.echo(picture)
