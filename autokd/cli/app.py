"""The commands and their options; ``autokd.api`` does the work."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, Optional

import typer

from autokd import api
from autokd.cli import export as exporting
from autokd.cli import init as starting
from autokd.cli import inspection
from autokd.cli import predict as predicting
from autokd.cli import results as looking_back
from autokd.cli.benchmark import benchmark_app
from autokd.cli.cache import cache_app
from autokd.cli.disk_errors import disk_words
from autokd.cli.ending import ended_by_signals, ending
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
from autokd.cli.remote import remote_app
from autokd.cli.serve import serve, token_app
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
app.add_typer(remote_app, name="remote")
app.add_typer(token_app, name="token")
app.add_typer(cache_app, name="cache")


@app.command()
def search(
    config_file: ConfigFile,
    run_dir: RunDir = None,
    trials: Annotated[Optional[int], typer.Option(min=1, help="Number of trials; replaces a budget.")] = None,  # noqa: UP045
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
    directory = ending.run_dir = api.run_directory(config, run_dir)
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
    trials: Annotated[Optional[int], typer.Option(min=1, help="Number of trials; replaces a budget.")] = None,  # noqa: UP045
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
    directory = ending.run_dir = api.run_directory(config, run_dir, api.distiller_name(distiller))
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
def submit(
    config_file: ConfigFile,
    address: Annotated[str, typer.Option(help="Address of the cluster's job server, e.g. http://127.0.0.1:8265.")],
    trials: Annotated[Optional[int], typer.Option(min=1, help="Number of trials; replaces a budget.")] = None,  # noqa: UP045
    storage: Storage = None,
    run_dir: RunDir = None,
    cache_dir: CacheDir = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Print the log of the job until it ends.")
    ] = True,
    send_package: Annotated[
        bool, typer.Option("--send-package", help="Send this autokd too: for nodes that lack it or have another.")
    ] = False,
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
        send_package=send_package,
    )
    typer.echo(job_id)


for command in (looking_back.evaluate, looking_back.report, looking_back.runs, looking_back.compare):
    app.command()(command)
app.command()(looking_back.dashboard)
app.command()(serve)
app.command()(starting.init)
app.command()(predicting.predict)
app.command()(exporting.export)
for look in (inspection.data, inspection.space, inspection.presets, inspection.show, inspection.doctor):
    app.command()(look)


SPIN_COUNT = 3000
"""Number of rounds that a thread of libgomp (torch's OpenMP) spins before it sleeps. With libgomp's default, a hundred
times as many, spinning threads take the cores from each other on a machine that is busy with something else."""


def main() -> None:
    """Run the command line; an AutoKDError ends it with its message and exit code 2, a signal with 128 + its number."""
    replace_what_cannot_be_shown()
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))  # libgomp reads it when torch loads it
    with ended_by_signals():
        try:
            app(args=[with_home(argument) for argument in sys.argv[1:]], standalone_mode=True)
        except AutoKDError as error:
            _refuse(str(error))
        except SystemExit as end:
            if end.code != _INTERRUPTED:
                raise
        except KeyboardInterrupt:
            pass
        except Exception as error:
            words = disk_words(error)
            if words is None:
                raise
            _refuse(words)
        else:
            return
        ending.say()
        sys.exit(ending.exit_code)


def _refuse(words: str) -> NoReturn:
    typer.secho(f"autokd: {words}", err=True, fg="red" if sys.stderr.isatty() else None)
    sys.exit(2)


_INTERRUPTED = 130
"""Exit code in which Typer turns a KeyboardInterrupt, without a word."""


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
