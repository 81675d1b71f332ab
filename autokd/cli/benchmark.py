"""``autokd benchmark``: record a table of distillers, and compare samplers on it.

Lists are separated by commas. Each command imports what it needs when it runs, as in ``app``.
"""

from __future__ import annotations

import math
import signal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from autokd.benchmark.recording.plan import Amount
    from autokd.benchmark.recording.table import Part
    from autokd.config import ResolvedConfig
    from autokd.jobs import RecipeName

benchmark_app = typer.Typer(
    help="Record a table of distillers, and compare samplers on it.", no_args_is_help=True, add_completion=False
)


class Recipe(str, Enum):
    """Recipe of a training."""

    proxy = "proxy"
    full = "full"


class Device(str, Enum):
    """Device of the trainings."""

    cpu = "cpu"
    cuda = "cuda"


class Objective(str, Enum):
    """What a simulated search sees."""

    proxy = "proxy"
    full = "full"


ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Space, data, detectors and recipes.")]
TableFile = Annotated[Path, typer.Argument(metavar="TABLE", help="A recorded table, e.g. table.jsonl.gz.")]
TableOption = Annotated[
    Optional[Path],  # noqa: UP045 (typer reads annotations on Python 3.10)
    typer.Option("--table", help="File of the table. Default: table.jsonl.gz beside CONFIG.yaml."),
]
Scratch = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--scratch", help="Folder of claims and results, shared by all processes. Default: runs/NAME-record."),
]
CacheDir = Annotated[Path, typer.Option("--cache-dir", envvar="AUTOKD_CACHE", help="Teachers and their taps.")]
Recipes = Annotated[str, typer.Option("--recipes", help="Recipes of the trainings.")]
Seeded = Annotated[int, typer.Option("--seeded", min=0, help="Specs that are trained with every further seed.")]
Best = Annotated[int, typer.Option("--best", min=0, help="Best specs that are trained with every further seed, too.")]
Seeds = Annotated[str, typer.Option("--seeds", help="Further seeds.")]
NoneSeeds = Annotated[int, typer.Option("--none-seeds", min=1, help="Seeds of the training without distillation.")]
OnDevice = Annotated[Device, typer.Option("--device", help="Device of the trainings.")]

CACHE = Path(".autokd_cache")
BOTH = "proxy,full"


@benchmark_app.command()
def record(
    config_file: ConfigFile,
    scratch: Scratch = None,
    cache_dir: CacheDir = CACHE,
    recipes: Recipes = BOTH,
    device: OnDevice = Device.cpu,
    seeded: Seeded = 108,
    best: Best = 12,
    seeds: Seeds = "1,2",
    none_seeds: NoneSeeds = 8,
    minutes: Annotated[float, typer.Option(help="Begin no training after so many minutes.")] = math.inf,
    part: Annotated[str, typer.Option(metavar="I/N", help="Record one of N parts, in a folder of its own.")] = "1/1",
) -> None:
    """Train what is left of a table; may run in any number of processes and be interrupted."""
    from autokd.benchmark.recording.table import record_table

    config = _config(config_file)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        done = record_table(
            config,
            _amount(seeded, best, seeds, none_seeds),
            scratch or _scratch_of(config),
            cache_dir,
            recipes=_recipes(recipes),
            device=device.value,
            minutes=minutes,
            part=_part(part),
        )
    except KeyboardInterrupt:
        typer.echo("interrupted: the training under way is lost, all others are kept.", err=True)
        raise typer.Exit(130) from None
    if done.is_time_over:
        typer.echo(f"time is over after {done.num_trainings} trainings.")
    else:
        typer.echo(f"nothing is left that no process holds; {done.num_trainings} trainings done here.")


@benchmark_app.command()
def status(
    config_file: ConfigFile,
    scratch: Scratch = None,
    recipes: Recipes = BOTH,
    seeded: Seeded = 108,
    best: Best = 12,
    seeds: Seeds = "1,2",
    none_seeds: NoneSeeds = 8,
) -> None:
    """Print what is recorded, what runs, and the hours that are left."""
    from autokd.benchmark.recording.table import status_lines

    config = _config(config_file)
    amount = _amount(seeded, best, seeds, none_seeds)
    lines = status_lines(config, amount, scratch or _scratch_of(config), recipes=_recipes(recipes))
    typer.echo("\n".join(lines))


@benchmark_app.command()
def collect(
    config_file: ConfigFile,
    folders: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Argument(metavar="[SCRATCH]...", help="Scratch folders. Default: runs/NAME-record."),
    ] = None,
    table: TableOption = None,
) -> None:
    """Write the table of everything that is recorded."""
    from autokd.benchmark.recording.table import collect_table

    config = _config(config_file)
    path = table or _table_beside(config_file)
    written = collect_table(config, folders or [_scratch_of(config)], path)
    num_specs = written.header.num_specs
    partial = "" if len(written) == num_specs else f" (partial: {num_specs} in the space)"
    typer.echo(f"{path}: {len(written)} specs{partial}, {path.stat().st_size / 1000:.0f} kB")


@benchmark_app.command()
def check(
    config_file: ConfigFile,
    table: TableOption = None,
    cache_dir: CacheDir = CACHE,
    rows: Annotated[int, typer.Option(min=0, help='Rows to train again, beside "none".')] = 3,
    recipe: Annotated[Recipe, typer.Option(help="Recipe to train by.")] = Recipe.proxy,
    device: OnDevice = Device.cpu,
    random_seed: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Seed of the choice of rows. Default: other rows each time."),
    ] = None,
) -> None:
    """Train a few rows again and compare; exit code 1 if a number lies outside the noise between seeds."""
    from autokd.benchmark import load_benchmark
    from autokd.benchmark.recording.check import NUM_DEVIATIONS, check_rows

    config = _config(config_file)
    recorded = load_benchmark(table or _table_beside(config_file), config=config, space=config.space)
    num_outside = 0
    for found in check_rows(
        recorded,
        config,
        cache_dir,
        num_rows=rows,
        recipe=recipe.value,
        device=device.value,
        random_seed=random_seed,
    ):
        typer.echo(found)
        num_outside += found.is_outside
    typer.echo(f"{num_outside} numbers outside {NUM_DEVIATIONS} deviations")
    if num_outside:
        raise typer.Exit(1)


@benchmark_app.command()
def compare(
    table: TableFile,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Folder of comparison.json, .csv and .svg; the table goes into a README.md there. "
            "Default: that of TABLE."
        ),
    ] = None,
    samplers: Annotated[Optional[str], typer.Option(help="Samplers. Default: all.")] = None,  # noqa: UP045
    workers: Annotated[str, typer.Option(help="Numbers of workers.")] = "1,4,16",
    repeats: Annotated[int, typer.Option(min=1, help="Searches of each sampler (slow ones have fewer).")] = 100,
    objective: Annotated[Objective, typer.Option(help="What a search sees: a perfect proxy is full.")] = (
        Objective.proxy
    ),
    reward: Annotated[str, typer.Option(help="Metrics of the proxy that the reward adds.")] = "val_loss,cka,ap",
    metric: Annotated[str, typer.Option(help="Metric of the full training: val_ap or test_ap.")] = "val_ap",
    epochs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Epochs of the proxy. Default: all that were recorded."),
    ] = None,
    top: Annotated[float, typer.Option(help="Share of the specs that count as the best.")] = 0.01,
    trials: Annotated[int, typer.Option(min=1, help="Evaluated specs of a search at most.")] = 120,
    regret_at: Annotated[str, typer.Option(help="Numbers of trials after which the regret is read.")] = "20,40,80",
    only: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="SLOT=LABEL,LABEL", help="Search a part of the space; may be given several times."),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that share the work.")] = 2,
) -> None:
    """Compare samplers by searches on a recorded table, on a virtual clock."""
    from autokd.benchmark.simulation.comparison import Plan, Settings, compare_samplers
    from autokd.benchmark.simulation.reports import ratio_lines, write_comparison
    from autokd.benchmark.simulation.samplers import SAMPLERS

    names = _words(samplers) if samplers is not None else tuple(SAMPLERS)
    if unknown := [name for name in names if name not in SAMPLERS]:
        raise typer.BadParameter(f"{', '.join(unknown)}: the samplers are {', '.join(SAMPLERS)}.")
    settings = Settings(
        table=str(table),
        reward=_words(reward),
        metric=metric,
        top=top,
        objective=objective.value,
        trials=trials,
        regret_at=tuple(sorted(_numbers(regret_at))),
        only=tuple(_restriction(text) for text in only or ()),
        epochs=epochs,
    )
    report = compare_samplers(settings, Plan(names, _numbers(workers), repeats, processes))
    write_comparison(report, output or table.parent)
    typer.echo("\n".join(ratio_lines(report)))


@benchmark_app.command()
def portfolio(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLE...", help="Recorded tables, one a pair.")],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="File to write. Default: the portfolio is printed."),
    ] = None,
    leave_out: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="PAIR", help="Pair that is left out; may be given several times."),
    ] = None,
) -> None:
    """Make the portfolio of distillers that were best over recorded pairs; searches try them first."""
    from autokd.benchmark.portfolio import portfolio_of_tables
    from autokd.files import write_text_atomically
    from autokd.portfolio import portfolio_text

    text = portfolio_text(portfolio_of_tables(tables, leave_out or ()))
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text_atomically(output, text)


@benchmark_app.command()
def strategies(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLE...", help="Recorded tables, one a pair; two or more.")],
    budget: Annotated[float, typer.Option(min=2, help="Cost of each search in full trainings.")] = 10.0,
    repeats: Annotated[int, typer.Option(min=1, help="Searches of each strategy.")] = 200,
) -> None:
    """Compare search strategies by replay on recorded pairs, each with the portfolio of the other pairs."""
    from autokd.benchmark.simulation.strategies import recorded_pairs, replay, replay_lines

    pairs = recorded_pairs(tables)
    typer.echo("\n".join(replay_lines(pairs, replay(pairs, budget, repeats))))


def _config(path: Path) -> ResolvedConfig:
    from autokd.benchmark.recording.settings import read_config

    return read_config(path)


def _scratch_of(config: ResolvedConfig) -> Path:
    return Path("runs") / f"{config.name}-record"


def _table_beside(config_file: Path) -> Path:
    return config_file.parent / "table.jsonl.gz"


def _amount(seeded: int, best: int, seeds: str, none_seeds: int) -> Amount:
    from autokd.benchmark.recording.plan import Amount

    return Amount(seeded, best, _numbers(seeds), none_seeds)


def _recipes(text: str) -> list[RecipeName]:
    try:
        return [Recipe(word).value for word in _words(text)]
    except ValueError:
        raise typer.BadParameter(f"{text!r}: write proxy, full, or both with a comma.") from None


def _part(text: str) -> Part:
    from autokd.benchmark.recording.table import Part

    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise typer.BadParameter(f"{text!r}: write 1/3, 2/3 or 3/3.")
    return Part(int(number) - 1, int(count))


def _restriction(text: str) -> tuple[str, tuple[str, ...]]:
    slot, _, labels = text.partition("=")
    return slot, _words(labels)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in _words(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: write whole numbers with commas between them.") from None
