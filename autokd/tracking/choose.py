"""From the names of ``--log`` to trackers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Literal, get_args

from autokd.errors import ConfigError, one_of
from autokd.tracking.contract import TrackedRun, Tracker, Trackers

TrackerName = Literal["tensorboard", "mlflow", "wandb", "csv"]
TRACKERS: tuple[TrackerName, ...] = get_args(TrackerName)
_HOMES: dict[TrackerName, str] = {
    "tensorboard": "autokd.tracking.tensorboard_events:TensorBoardTracker",
    "mlflow": "autokd.tracking.mlflow_store:MlflowTracker",
    "wandb": "autokd.tracking.wandb_runs:WandbTracker",
    "csv": "autokd.tracking.csv_files:CsvTracker",
}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse names of no tracker, and trackers whose library is not installed, before anything is trained.

    Args:
        names: names of trackers.

    Raises:
        ConfigError: if there is no such tracker.
        MissingExtraError: if its library is not installed.
    """
    for name in names:
        _tracker_class(name).check_installed()


@contextmanager
def open_trackers(names: Sequence[str], run: TrackedRun) -> Iterator[Trackers]:
    """Yield the trackers of some names, and close them at the end, whatever ended it.

    Args:
        names: names of ``TRACKERS``.
        run: the run.

    Raises:
        ConfigError: if there is no such tracker.
        MissingExtraError: if its library is not installed.
    """
    trackers = Trackers([_tracker_class(name)(run) for name in dict.fromkeys(names)])
    try:
        yield trackers
    except BaseException:
        trackers.close(is_complete=False)
        raise
    trackers.close(is_complete=True)


def _tracker_class(name: str) -> type[Tracker]:
    if name not in _HOMES:
        raise ConfigError("--log: " + one_of(name, list(TRACKERS), noun="tracker"))
    module, _, attribute = _HOMES[name].partition(":")
    found: type[Tracker] = getattr(import_module(module), attribute)
    return found
