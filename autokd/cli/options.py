"""Arguments and options that several commands take."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from autokd.config import RunConfig


class Tracker(str, Enum):
    """Tracker of experiments."""

    tensorboard = "tensorboard"
    mlflow = "mlflow"
    wandb = "wandb"
    csv = "csv"


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
Log = Annotated[
    Optional[list[Tracker]],  # noqa: UP045
    typer.Option("--log", help="Tracker of curves, parameters and results; may be repeated."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no table.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in the run directory.")]


def with_home(argument: str) -> str:
    """Return an argument with the home folder in place of ``~``, as the shell does, also after ``--option=``.

    Args:
        argument: an argument of the command line.
    """
    option, separator, value = argument.partition("=")
    if separator and option.startswith("--"):
        return f"{option}={os.path.expanduser(value)}"
    return os.path.expanduser(argument)


def read_config(
    path: Path, *, trials: int | None = None, workers: int | None = None, ray_address: str | None = None
) -> RunConfig:
    """Return the configuration of a file, with the values of options in place of its own.

    Args:
        path: the config file.
        trials: number of trials; None: the file's.
        workers: number of worker processes; None: the file's.
        ray_address: address of a Ray cluster; None: the file's.

    Raises:
        ConfigError: if the file is wrong.
    """
    from autokd.config import load_config

    config = load_config(path)
    # A number of trials is asked for in place of the file's budget.
    search_updates = {"trials": trials, "budget": None} if trials is not None else {}
    runtime_updates: dict[str, object] = {"workers": workers} if workers is not None else {}
    if ray_address is not None:
        runtime_updates["ray_address"] = ray_address
    return config.model_copy(
        update={
            "search": config.search.model_copy(update=search_updates),
            "runtime": config.runtime.model_copy(update=runtime_updates),
        }
    )
