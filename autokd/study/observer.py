"""How a run tells what it is doing, to whoever looks: a terminal, a log, a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TrialNews:
    """One trial has ended. ``value`` is None where it has none; ``best`` is the best value so far."""

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
    """Told from the driver's thread; must return quickly."""

    def stage(self, name: str, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        """Work of one kind goes on: ``done`` of ``total`` steps (epochs, jobs, images)."""

    def trial_ended(self, news: TrialNews) -> None: ...

    def say(self, text: str) -> None:
        """One line worth keeping: a warning, a decision, a file written."""


class SilentObserver:
    """Says nothing."""

    def stage(self, name: str, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        pass

    def trial_ended(self, news: TrialNews) -> None:
        pass

    def say(self, text: str) -> None:
        pass
