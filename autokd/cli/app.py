"""The commands and their options; ``autokd.api`` does the work."""

from __future__ import annotations

import json
import os
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from autokd import api
from autokd.cli import export as exporting
from autokd.cli import inspection
from autokd.cli import predict as predicting
from autokd.cli.benchmark import benchmark_app
from autokd.cli.options import (
    AsJson,
    CacheDir,
    ConfigFile,
    Log,
    Quiet,
    RayAddress,
    Resume,
    RunDir,
    Storage,
    Workers,
    read_config,
    with_home,
)
from autokd.cli.terminal import replace_what_cannot_be_shown
from autokd.errors import AutoKDError

if TYPE_CHECKING:
    from autokd.storage import Results

app = typer.Typer(
    help="Search the distillation loss with which a small object detector learns from a big one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(benchmark_app, name="benchmark")


class Split(str, Enum):
    """Split of the data set."""

    val = "val"
    test = "test"


@app.command()
def search(
    config_file: ConfigFile,
    run_dir: RunDir = None,
    trials: Annotated[Optional[int], typer.Option(min=1, help="Number of trials to evaluate.")] = None,  # noqa: UP045
    workers: Workers = None,
    ray_address: RayAddress = None,
    storage: Storage = None,
    resume: Resume = False,
    cache_dir: CacheDir = None,
    forecast: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds to measure before the start, for one line of what the run costs; 0: no line."
        ),
    ] = 5.0,
    log: Log = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Search a distillation loss, train the winner in full beside the baselines, write weights and report."""
    config = read_config(config_file, trials=trials, workers=workers, ray_address=ray_address)
    from autokd.cli.storage import chosen_storage  # it loads Optuna, for which an error in the config should not wait

    address = chosen_storage(storage)
    directory = api.run_directory(config, run_dir)
    from autokd.cli.live import live_view  # it loads torch, for which an error in the config should not wait

    with live_view(is_quiet=quiet or as_json) as view:
        results = api.search(
            config,
            run_dir=directory,
            cache_dir=cache_dir,
            storage_url=address,
            resume=resume,
            observer=view,
            forecast_s=forecast,
            log=[tracker.value for tracker in log or ()],
        )
    _publish(address or directory, config.name, results)
    _print_results(results, directory, quiet=quiet, as_json=as_json)


@app.command()
def plan(
    config_file: ConfigFile,
    price: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, help="Price of an hour of one GPU, or of the machine if it has none."),
    ] = None,
    gpus: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            min=0, help="Number of GPUs of the run, of the kind that this machine has. Default: this machine's."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds to spend on measuring.")] = 30.0,
    trials: Annotated[Optional[int], typer.Option(min=1, help="Number of trials to evaluate.")] = None,  # noqa: UP045
    workers: Workers = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Forecast disk, memory, hours and money of a search, phase by phase; exit code 1 if it does not fit."""
    from autokd.cli.terminal import console

    config = read_config(config_file, trials=trials, workers=workers)
    bill = api.plan(config, cache_dir=cache_dir, price=price, gpus=gpus, seconds=seconds)
    from autokd.cli import plan as view

    if as_json:
        typer.echo(view.as_json(bill))
    else:
        console().print(view.as_table(bill))
    if bill.excess():
        raise typer.Exit(1)


@app.command()
def distill(
    distiller: Annotated[
        str, typer.Argument(metavar="DISTILLER.yaml", help="YAML file of a distiller, or name of a preset.")
    ],
    config_file: ConfigFile,
    run_dir: RunDir = None,
    gradient_ratio: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            min=0.001, help="Gradient ratio of distillation loss to task loss, in place of the weights in the file."
        ),
    ] = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
    resume: Resume = False,
    cache_dir: CacheDir = None,
    log: Log = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train the student in full with a given distiller or preset, beside the baselines; no search."""
    config = read_config(config_file, workers=workers, ray_address=ray_address)
    directory = api.run_directory(config, run_dir, api.distiller_name(distiller))
    from autokd.cli.live import live_view  # it loads torch, for which an error in the config should not wait

    with live_view(is_quiet=quiet or as_json) as view:
        results = api.distill(
            config,
            distiller,
            gradient_ratio=gradient_ratio,
            run_dir=directory,
            cache_dir=cache_dir,
            resume=resume,
            observer=view,
            log=[tracker.value for tracker in log or ()],
        )
    _print_results(results, directory, quiet=quiet, as_json=as_json)


@app.command()
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


@app.command()
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


@app.command()
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
) -> None:
    """Serve optuna-dashboard of a run on the loopback address (127.0.0.1), for everyone with the printed address."""
    from autokd.cli.storage import chosen_storage
    from autokd_dashboard import serve

    address = chosen_storage(run)
    if address is None:
        raise typer.BadParameter("name a run directory or a database, or set AUTOKD_STORAGE.", param_hint="RUN")
    serve(address, port=port, may_write=write)


@app.command()
def submit(
    config_file: ConfigFile,
    address: Annotated[str, typer.Option(help="Address of the cluster's job server, e.g. http://127.0.0.1:8265.")],
    trials: Annotated[Optional[int], typer.Option(min=1, help="Number of trials to evaluate.")] = None,  # noqa: UP045
    storage: Storage = None,
    run_dir: RunDir = None,
    cache_dir: CacheDir = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Print the log of the job until it ends.")
    ] = True,
) -> None:
    """Submit the search as a job to a Ray cluster."""
    from autokd.cli.jobs import submit_search
    from autokd.cli.storage import storage_for_job

    address_of_storage = storage_for_job(storage)
    config = read_config(config_file, trials=trials)
    job_id = submit_search(
        config,
        address,
        trials=trials,
        storage=address_of_storage,
        run_dir=api.run_directory(config, run_dir),
        cache_dir=api.cache_directory(cache_dir),
        follow=follow,
    )
    typer.echo(job_id)


app.command()(predicting.predict)
app.command()(exporting.export)
for look in (inspection.data, inspection.space, inspection.presets, inspection.show, inspection.doctor):
    app.command()(look)


SPIN_COUNT = 3000
"""Number of rounds that a thread of libgomp (torch's OpenMP) spins before it sleeps. With libgomp's default, a hundred
times as many, spinning threads take the cores from each other on a machine that is busy with something else."""


def main() -> None:
    """Run the command line; an AutoKDError ends it with its message and exit code 2, Ctrl-C with 130."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))  # libgomp reads it when torch loads it
    try:
        replace_what_cannot_be_shown()
        app(args=[with_home(argument) for argument in sys.argv[1:]], standalone_mode=True)
    except AutoKDError as error:
        typer.secho(f"autokd: {error}", err=True, fg="red" if sys.stderr.isatty() else None)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.secho("autokd: interrupted. What has finished is kept; continue with --resume.", err=True)
        sys.exit(130)


def _publish(run: str | Path, study_name: str, results: Results) -> None:
    """Store tree, search curve and results on the study, where optuna-dashboard shows them."""
    from autokd.storage import open_existing
    from autokd_dashboard import publish_tree

    publish_tree(open_existing(run, study_name), results=results)


def _print_results(results: Results, directory: Path, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(results.to_json(), nl=False)
    if quiet or as_json:
        return
    from autokd.cli.terminal import console as open_console
    from autokd.report import results_table

    console = open_console()
    console.print(results_table(results))
    for entry in results.entries:
        if entry.inactive_terms:
            all_of_it = "; all its terms, so that its figures are those of none" if entry.is_inactive else ""
            console.print(f"{entry.name}: term inactive: {', '.join(entry.inactive_terms)}{all_of_it}.", markup=False)
    typer.echo(directory / "report.html")
