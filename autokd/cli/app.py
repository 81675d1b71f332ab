"""The commands and their options; ``autokd.api`` does the work."""

from __future__ import annotations

import io
import os
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from autokd import api
from autokd.cli.benchmark import benchmark_app
from autokd.cli.ending import ended_by_signals, ending
from autokd.errors import AutoKDError

if TYPE_CHECKING:
    from autokd.config import RunConfig
    from autokd.storage import Results

app = typer.Typer(
    help="Search the distillation loss with which a small object detector learns from a big one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(benchmark_app, name="benchmark")

ConfigFile = Annotated[
    Path, typer.Argument(metavar="CONFIG.yaml", help="Config file: data, detectors, search space, recipes, runtime.")
]
RunDir = Annotated[
    Optional[Path],  # noqa: UP045 (typer reads annotations on Python 3.10)
    typer.Option("--run-dir", help="Folder of the run: study, weights, results, report. Default: runs/NAME."),
]
CacheDir = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--cache-dir",
        envvar="AUTOKD_CACHE",
        help="Folder of trained teachers and cached teacher features, shared by runs. Default: .autokd_cache.",
    ),
]
Workers = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--workers", min=0, help="Number of worker processes; 0: train in this process, without Ray."),
]
RayAddress = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--ray-address", help='Address of a Ray cluster, or "auto". Default: start a local Ray.'),
]
Storage = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--storage",
        help="URL of the study's database (postgresql+psycopg://user@host/db) without a password, or @FILE that holds "
        "it. Default: the environment variable AUTOKD_STORAGE, else study.db of the run.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in the run directory.")]


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
) -> None:
    """Search a distillation loss, train the winner in full beside the baselines, write weights and report."""
    config = _config(config_file, trials=trials, workers=workers, ray_address=ray_address)
    from autokd.cli.storage import chosen_storage  # it loads Optuna, for which an error in the config should not wait

    address = chosen_storage(storage)
    directory = ending.run_dir = api.run_directory(config, run_dir)
    from autokd.cli.live import live_view  # it loads torch, for which an error in the config should not wait

    with live_view() as view:
        results = api.search(
            config,
            run_dir=directory,
            cache_dir=cache_dir,
            storage_url=address,
            resume=resume,
            observer=view,
            forecast_s=forecast,
        )
    _publish(address or directory, config.name, results)
    _print_results(results, directory)


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
    from rich.console import Console

    config = _config(config_file, trials=trials, workers=workers)
    bill = api.plan(config, cache_dir=cache_dir, price=price, gpus=gpus, seconds=seconds)
    from autokd.cli import plan as view

    if as_json:
        typer.echo(view.as_json(bill))
    else:
        Console().print(view.as_table(bill))
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
) -> None:
    """Train the student in full with a given distiller or preset, beside the baselines; no search."""
    config = _config(config_file, workers=workers, ray_address=ray_address)
    directory = ending.run_dir = api.run_directory(config, run_dir, api.distiller_name(distiller))
    from autokd.cli.live import live_view  # it loads torch, for which an error in the config should not wait

    with live_view() as view:
        results = api.distill(
            config,
            distiller,
            gradient_ratio=gradient_ratio,
            run_dir=directory,
            cache_dir=cache_dir,
            resume=resume,
            observer=view,
        )
    _print_results(results, directory)


@app.command()
def evaluate(
    config_file: ConfigFile,
    weights: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="File of weights, e.g. runs/NAME/student.pt.")
    ],
    split: Annotated[Split, typer.Option(help="Split to evaluate on.")] = Split.test,
    teacher: Annotated[bool, typer.Option("--teacher", help="Evaluate the teacher: the weights are its own.")] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Measure COCO AP of given weights on val or test."""
    from rich.console import Console
    from rich.table import Table

    side: Literal["student", "teacher"] = "teacher" if teacher else "student"
    scores = api.evaluate(config_file, weights, split=split.value, side=side, cache_dir=cache_dir)
    table = Table("metric", "value", title=f"{weights} on {split.value}")
    for name, value in scores.items():
        table.add_row(name, f"{value:.4f}")
    Console().print(table)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    cache_dir: CacheDir = None,
    storage: Storage = None,
) -> None:
    """Write report.html of a run anew from its study and results, and print the table of results."""
    from rich.console import Console

    from autokd.cli.storage import chosen_storage
    from autokd.report import results_table
    from autokd.storage import Results
    from autokd.study import write_run_report

    has_own = (run / "study.db").exists()
    address = None if storage is None and has_own else chosen_storage(storage)
    path = write_run_report(run, cache_dir=api.cache_directory(cache_dir), storage_url=address)
    results = Results.read(run / "results.json") if (run / "results.json").exists() else None
    if results is not None:
        Console().print(results_table(results))
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
def data(
    config_file: ConfigFile,
    whole: Annotated[
        bool, typer.Option("--whole", help="Print a digest of every byte of each split, to compare two machines.")
    ] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Print what AutoKD reads of the data of a config: layout, counts, irregularities, images that splits share."""
    from autokd.cli.show import data_lines

    for line in data_lines(_config(config_file), api.cache_directory(cache_dir), whole=whole):
        typer.echo(line)


@app.command()
def space(
    config_file: ConfigFile,
    samples: Annotated[int, typer.Option(min=0, help="Number of random distillers to print.")] = 3,
) -> None:
    """Print the search space of a config: its choices, its size, and the options that the detectors cannot supply."""
    from rich.console import Console

    from autokd.cli.show import space_view

    Console().print(space_view(_config(config_file), samples))


@app.command()
def presets() -> None:
    """List the presets: published distillation losses, with formula and paper."""
    from rich.console import Console

    from autokd.cli.show import presets_table

    Console().print(presets_table())


@app.command()
def show(
    distiller: Annotated[
        str, typer.Argument(metavar="DISTILLER.yaml", help="YAML file of a distiller, or name of a preset.")
    ],
) -> None:
    """Print a distiller as a formula, one for each family of detectors for which it has terms of its own."""
    from autokd.cli.show import distiller_lines

    api.read_distiller(distiller)  # it names the most similar preset if there is neither a preset nor a file
    typer.echo("\n".join(distiller_lines(distiller)))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the installation and print the commands that repair it; exit code 1 if AutoKD cannot run."""
    from rich.console import Console

    from autokd.cli import doctor

    findings = doctor.examine()
    if as_json:
        typer.echo(doctor.as_json(findings))
    else:
        Console().print(doctor.as_table(findings))
    if not doctor.base_works(findings):
        raise typer.Exit(1)


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
    config = _config(config_file, trials=trials)
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


SPIN_COUNT = 3000
"""Number of rounds that a thread of libgomp (torch's OpenMP) spins before it sleeps. With libgomp's default, a hundred
times as many, spinning threads take the cores from each other on a machine that is busy with something else."""


def main() -> None:
    """Run the command line; an AutoKDError ends it with its message and exit code 2, a signal with 128 + its number."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale without the table's characters must not end a run
            stream.reconfigure(errors="replace")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))  # libgomp reads it when torch loads it
    with ended_by_signals():
        try:
            app(standalone_mode=True)
        except AutoKDError as error:
            typer.secho(f"autokd: {error}", err=True, fg="red" if sys.stderr.isatty() else None)
            sys.exit(2)
        except SystemExit as end:
            if end.code != _INTERRUPTED:
                raise
        except KeyboardInterrupt:
            pass
        else:
            return
        ending.say()
        sys.exit(ending.exit_code)


_INTERRUPTED = 130
"""Exit code in which Typer turns a KeyboardInterrupt, without a word."""


def _config(
    path: Path, *, trials: int | None = None, workers: int | None = None, ray_address: str | None = None
) -> RunConfig:
    from autokd.config import load_config

    config = load_config(path)
    search_updates = {"trials": trials} if trials is not None else {}
    runtime_updates: dict[str, object] = {"workers": workers} if workers is not None else {}
    if ray_address is not None:
        runtime_updates["ray_address"] = ray_address
    return config.model_copy(
        update={
            "search": config.search.model_copy(update=search_updates),
            "runtime": config.runtime.model_copy(update=runtime_updates),
        }
    )


def _publish(run: str | Path, study_name: str, results: Results) -> None:
    """Store tree, search curve and results on the study, where optuna-dashboard shows them."""
    from autokd.storage import open_existing
    from autokd_dashboard import publish_tree

    publish_tree(open_existing(run, study_name), results=results)


def _print_results(results: Results, directory: Path) -> None:
    from rich.console import Console

    from autokd.report import results_table

    console = Console()
    console.print(results_table(results))
    for entry in results.entries:
        if entry.inactive_terms:
            all_of_it = "; all its terms, so that its figures are those of none" if entry.is_inactive else ""
            console.print(f"{entry.name}: term inactive: {', '.join(entry.inactive_terms)}{all_of_it}.", markup=False)
    console.print(f"{directory / 'report.html'}", soft_wrap=True)
