"""The view of a running search: a live panel on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from autokd.cli.terminal import console as open_console
from autokd.study.observer import Observer, SilentObserver, TrialNews

LOG_INTERVAL_S = 10.0
"""Seconds between two lines about the same stage, where the output is no terminal."""


@contextmanager
def live_view(*, is_quiet: bool = False) -> Iterator[Observer]:
    """Yield the observer that fits the standard error stream, and close it at the end.

    Args:
        is_quiet: whether progress is discarded.
    """
    if is_quiet:
        yield SilentObserver()
        return
    console = open_console(is_error=True)
    if not console.is_terminal:
        yield LineView(console)
        return
    view = PanelView(console)
    with Live(view, console=console, refresh_per_second=4, transient=False):
        yield view


class LineView:
    """An observer that writes a line for each event, and redraws nothing."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._written_at: dict[str, float] = {}
        self._began = time.monotonic()

    def stage(self, name: str, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        now = time.monotonic()
        if done < total and now - self._written_at.get(name, -LOG_INTERVAL_S) < LOG_INTERVAL_S:
            return
        self._written_at[name] = now
        self._line(f"{name}: {done}/{total}{_metrics(metrics)}")

    def trial_ended(self, news: TrialNews) -> None:
        self._line(_trial_line(news))

    def say(self, text: str) -> None:
        self._line(text)

    def _line(self, text: str) -> None:
        elapsed = int(time.monotonic() - self._began)
        self._console.print(
            f"[{elapsed // 60:3d}:{elapsed % 60:02d}] {text}", markup=False, highlight=False, soft_wrap=True
        )


class PanelView:
    """An observer that shows the progress of every stage, the time left, the last trials and the best so far."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False), TextColumn("{task.fields[metrics]}"),
            console=console,
        )  # fmt: skip
        self._tasks: dict[str, object] = {}
        self._best: TrialNews | None = None

    def __rich__(self) -> Group:
        best = f"best so far {self._best.value:+.3f}: {self._best.formula}" if self._best else ""
        return Group(self._progress, Text(best))

    def stage(self, name: str, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, metrics="")
        self._progress.update(self._tasks[name], completed=done, total=total, metrics=_metrics(metrics))  # type: ignore[arg-type]

    def trial_ended(self, news: TrialNews) -> None:
        if news.value is not None and (self._best is None or news.value > (self._best.value or 0.0)):
            self._best = news
        self.stage("trials", news.done, news.total)
        self._console.print(_trial_line(news), markup=False, highlight=False)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)


def _metrics(metrics: Mapping[str, float] | None) -> str:
    return "".join(f"  {name} {value:.4g}" for name, value in (metrics or {}).items())


def _trial_line(news: TrialNews) -> str:
    value = f"{news.value:+.3f}" if news.value is not None else (news.cause or "no value")
    return (
        f"trial {news.number} ({news.done}/{news.total}) {news.status} {value} in {news.seconds:.1f} s: {news.formula}"
    )
