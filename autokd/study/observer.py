"""Progress of a run, for a terminal, a log, a notebook or a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TrialNews:
    """A trial that has ended.

    Args:
        number: number of the trial in its study.
        formula: distiller as one line.
        status: "finished", "pruned" or "failed".
        value: reward; None if the trial has none.
        best: best reward of the search so far; None before the first.
        seconds: duration of the trial's training.
        done: number of trials evaluated so far.
        total: number of trials to evaluate.
        cause: cause of the failure; None if it did not fail.
    """

    number: int
    formula: str
    status: str
    value: float | None
    best: float | None
    seconds: float
    done: int
    total: int
    cause: str | None = None


class Observer(Protocol):
    """Receiver of progress. Its methods are called in the driver's thread and must return quickly."""

    def stage(self, name: str, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        """Receive the progress of one stage.

        Args:
            name: name of the stage, such as "teacher" or "full trainings".
            done: steps done: epochs, jobs or images.
            total: steps of the whole stage.
            metrics: metrics to show beside it; None: there are none.
        """

    def trial_ended(self, news: TrialNews) -> None:
        """Receive a trial that has ended.

        Args:
            news: the trial.
        """

    def say(self, text: str) -> None:
        """Receive a line worth keeping: a warning, a decision, a file that was written.

        Args:
            text: one or more sentences.
        """


class SilentObserver(Observer):
    """An observer that discards all progress."""

    def stage(self, name: str, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        pass

    def trial_ended(self, news: TrialNews) -> None:
        pass

    def say(self, text: str) -> None:
        pass
