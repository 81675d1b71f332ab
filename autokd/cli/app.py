"""The commands and their options; the work is done on the floors below."""

from __future__ import annotations

import os
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from autokd.cli.benchmark import benchmark_app
from autokd.errors import AutoKDError

if TYPE_CHECKING:
    from autokd.config import RunConfig
    from autokd.spec import DistillerSpec
    from autokd.storage import Results

app = typer.Typer(
    help="Searches for the loss with which a small object detector learns from a big one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(benchmark_app, name="benchmark")

SpaceFile = Annotated[Path, typer.Argument(metavar="SPACE.yaml", help="Data, detectors, space and recipes.")]
RunDir = Annotated[
    Optional[Path],  # noqa: UP045 (typer reads annotations on Python 3.10)
    typer.Option("--run-dir", help="Where everything of this run is kept. Default: runs/NAME."),
]
CacheDir = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--cache-dir", envvar="AUTOKD_CACHE", help="Teachers and their taps, shared by runs."),
]
Workers = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--workers", min=0, help="Processes that train; 0: in this process, without Ray."),
]
RayAddress = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--ray-address", help='A cluster\'s address, or "auto". Default: a local Ray.'),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what the run directory holds.")]


class Split(str, Enum):
    """Part of the data set."""

    val = "val"
    test = "test"


@app.command()
def search(
    space_file: SpaceFile,
    run_dir: RunDir = None,
    trials: Annotated[Optional[int], typer.Option(min=1, help="Trials to evaluate.")] = None,  # noqa: UP045
    workers: Workers = None,
    ray_address: RayAddress = None,
    storage: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Database URL (sqlite:///..., postgresql://...). Default: study.db in the run directory."),
    ] = None,
    resume: Resume = False,
    cache_dir: CacheDir = None,
) -> None:
    """Search a distiller, retrain the winner beside baselines, write weights, distiller and report."""
    from autokd.cli.live import live_view
    from autokd.study import run_search

    config = _config(space_file, trials=trials, workers=workers, ray_address=ray_address)
    directory = run_dir or Path("runs") / config.name
    with live_view() as view:
        results = run_search(
            config, directory, cache_dir=_cache(cache_dir), storage_url=storage, resume=resume, observer=view
        )
    _publish(storage or directory, config.name, results)
    _print_results(results, directory)


@app.command()
def distill(
    distiller: Annotated[str, typer.Argument(metavar="DISTILLER.yaml", help="A distiller's file, or a preset.")],
    space_file: SpaceFile,
    run_dir: RunDir = None,
    strength: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0.001, help="Train at this gradient ratio instead of the weights that the file gives."),
    ] = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
    resume: Resume = False,
    cache_dir: CacheDir = None,
) -> None:
    """Train the student in full with a given distiller or preset, beside the file's baselines."""
    from autokd.cli.live import live_view
    from autokd.study import run_distill

    config = _config(space_file, workers=workers, ray_address=ray_address)
    spec = _distiller(distiller)
    if strength is not None:
        spec = spec.with_strength(strength)
    directory = run_dir or Path("runs") / f"{config.name}-{spec.name or Path(distiller).stem}"
    with live_view() as view:
        results = run_distill(config, spec, directory, cache_dir=_cache(cache_dir), resume=resume, observer=view)
    _print_results(results, directory)


@app.command()
def evaluate(
    space_file: SpaceFile,
    weights: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="A student's weights, e.g. runs/NAME/student.pt.")
    ],
    split: Annotated[Split, typer.Option(help="On which part of the data.")] = Split.test,
    teacher: Annotated[bool, typer.Option("--teacher", help="The weights are the teacher's.")] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Print COCO AP of given weights on the data of a space file."""
    from rich.console import Console
    from rich.table import Table

    from autokd.study import evaluate_weights

    side: Literal["student", "teacher"] = "teacher" if teacher else "student"
    config = _config(space_file)
    scores = evaluate_weights(config, weights, split.value, side, cache_dir=_cache(cache_dir))
    table = Table("metric", "value", title=f"{weights} on {split.value}")
    for name, value in scores.items():
        table.add_row(name, f"{value:.4f}")
    Console().print(table)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    cache_dir: CacheDir = None,
    storage: Annotated[Optional[str], typer.Option(help="Database URL, if the run used another.")] = None,  # noqa: UP045
) -> None:
    """Write report.html of a run again, from its database and results, and print its table."""
    from rich.console import Console

    from autokd.report import results_table
    from autokd.storage import Results
    from autokd.study import write_run_report

    path = write_run_report(run, cache_dir=_cache(cache_dir), storage_url=storage)
    results = Results.read(run / "results.json") if (run / "results.json").exists() else None
    if results is not None:
        Console().print(results_table(results))
    typer.echo(path)


@app.command()
def dashboard(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, or a database URL.")],
    port: Annotated[int, typer.Option(help="On the loopback address; the next free one if taken.")] = 8080,
) -> None:
    """Serve Optuna's dashboard of a run on the loopback address."""
    from autokd_dashboard import serve

    serve(run, port=port)


@app.command()
def space(
    space_file: SpaceFile,
    samples: Annotated[int, typer.Option(min=0, help="Print this many random distillers.")] = 3,
) -> None:
    """Show the tree of choices, its size, and what the pair cannot supply."""
    from rich.console import Console

    from autokd.cli.show import space_view

    Console().print(space_view(_config(space_file), samples))


@app.command()
def presets() -> None:
    """List the published distillers that come with AutoKD."""
    from rich.console import Console

    from autokd.cli.show import presets_table

    Console().print(presets_table())


@app.command()
def show(
    distiller: Annotated[str, typer.Argument(metavar="DISTILLER.yaml", help="A distiller's file, or a preset.")],
) -> None:
    """Print a distiller as a formula that a person can read."""
    from autokd.spec import formula_lines

    spec = _distiller(distiller)
    if spec.name:
        typer.echo(f"{spec.name}  {spec.paper}".rstrip())
    typer.echo("\n".join(formula_lines(spec.canonical())))
    typer.echo(f"digest {spec.digest}")


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what is installed, what is missing or broken, and what to type; exit code 1 if AutoKD cannot work."""
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
    space_file: SpaceFile,
    address: Annotated[str, typer.Option(help="Of the cluster's job server, e.g. http://127.0.0.1:8265.")],
    trials: Annotated[Optional[int], typer.Option(min=1, help="Trials to evaluate.")] = None,  # noqa: UP045
    storage: Annotated[Optional[str], typer.Option(help="Database URL that the cluster can reach.")] = None,  # noqa: UP045
    run_dir: RunDir = None,
    cache_dir: CacheDir = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Print the job's log until it ends.")] = True,
) -> None:
    """Send the search as a Ray job to a cluster."""
    from autokd.cli.jobs import submit_search

    config = _config(space_file, trials=trials)
    job_id = submit_search(
        config,
        address,
        trials=trials,
        storage=storage,
        run_dir=run_dir or Path("runs") / config.name,
        cache_dir=_cache(cache_dir),
        follow=follow,
    )
    typer.echo(job_id)


SPIN_COUNT = 3000
"""Rounds that torch's threads wait for one another before they sleep. libgomp's own, a hundred times as many, let two
threads hold up each other's training where something else is busy on the machine."""


def main() -> None:
    """Run the command line; AutoKD's own errors end it with their message and exit code 2."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))  # read when torch is loaded, which is not yet
    try:
        app(standalone_mode=True)
    except AutoKDError as error:
        typer.secho(f"autokd: {error}", err=True, fg="red" if sys.stderr.isatty() else None)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.secho("autokd: interrupted; what is finished is kept. Go on with --resume.", err=True)
        sys.exit(130)


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


def _cache(path: Path | None) -> Path:
    return (path or Path(".autokd_cache")).absolute()


def _distiller(name: str) -> DistillerSpec:
    from autokd.presets import load_preset, preset_names
    from autokd.spec import DistillerSpec

    if name in preset_names() or not Path(name).suffix:
        return load_preset(name)
    return DistillerSpec.from_yaml(Path(name))


def _publish(run: str | Path, study_name: str, results: Results) -> None:
    """Put tree, curve and table on the study, for whoever opens its database with Optuna's dashboard."""
    from autokd.storage import open_existing
    from autokd_dashboard import publish_tree

    publish_tree(open_existing(run, study_name), results=results)


def _print_results(results: Results, directory: Path) -> None:
    from rich.console import Console

    from autokd.report import results_table

    console = Console()
    console.print(results_table(results))
    console.print(f"{directory / 'report.html'}", soft_wrap=True)
