"""An observer that also writes ``progress.json`` into the run directory, for whoever watches the run from outside."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from autokd.storage import RunProgress, StageProgress
from autokd.study.observer import Observer, TrialNews

logger = logging.getLogger(__name__)

TRIALS_STAGE = "trials"
WRITE_EVERY_S = 1.0
"""Least seconds between two writings of the file; what comes in between is written with the next one."""
KEPT_LINES = 40


class ProgressRecorder(Observer):
    """An observer that passes everything on, and records it.

    Args:
        observer: the observer of the caller.
        clock: time in seconds since 1970.
    """

    def __init__(self, observer: Observer, clock: Callable[[], float] = time.time) -> None:
        self._observer = observer
        self._clock = clock
        self._run_dir: Path | None = None
        self._stages: dict[str, StageProgress] = {}
        self._best: TrialNews | None = None
        self._said: deque[str] = deque(maxlen=KEPT_LINES)
        self._began_s = clock()
        self._written_s = 0.0

    @contextmanager
    def recording(self, run_dir: Path) -> Iterator[None]:
        """Write the file while the context lasts; what was recorded before is written too.

        Args:
            run_dir: run directory, which this process holds.
        """
        self._run_dir = run_dir
        earlier = RunProgress.read(run_dir)
        if earlier is not None and earlier.best is not None:
            number = -1 if earlier.best_trial is None else earlier.best_trial
            self._best = TrialNews(number, earlier.best_formula, "finished", earlier.best, earlier.best, 0.0, 0, 0)
        self._write()
        try:
            yield
        finally:
            self._write(is_over=True)

    def stage(self, name: str, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        """Record a stage, and pass it on.

        Args:
            name: name of the stage.
            done: steps done.
            total: steps of the whole stage.
            metrics: metrics to show beside it.
        """
        self._observer.stage(name, done, total, metrics)
        self._record(name, done, total)

    def trial_ended(self, news: TrialNews) -> None:
        """Record a trial, and pass it on.

        Args:
            news: the trial.
        """
        self._observer.trial_ended(news)
        known = None if self._best is None else self._best.value
        if news.value is not None and (known is None or news.value > known):
            self._best = news
        self._record(TRIALS_STAGE, news.done, news.total)

    def say(self, text: str) -> None:
        """Record a line, and pass it on.

        Args:
            text: one or more sentences.
        """
        self._observer.say(text)
        self._said.append(text)
        self._write_soon()

    def _record(self, name: str, done: int, total: int) -> None:
        now, known = self._clock(), self._stages.get(name)
        if known is None:
            first = max(0, done - 1) if name == TRIALS_STAGE else done
            known = StageProgress(
                name=name, done=done, total=total, began_s=self._began_of(now), first_done=first, updated_s=now
            )
        self._stages[name] = known.model_copy(update={"done": done, "total": total, "updated_s": now})
        self._write_soon(is_due=done >= total)

    def _began_of(self, now: float) -> float:
        """Return when a new stage began: with the last news of the one before it."""
        return max((stage.updated_s for stage in self._stages.values()), default=min(now, self._began_s))

    def _write_soon(self, *, is_due: bool = False) -> None:
        if is_due or self._clock() - self._written_s >= WRITE_EVERY_S:
            self._write()

    def _write(self, *, is_over: bool = False) -> None:
        if self._run_dir is None:
            return
        self._written_s = self._clock()
        best = self._best
        progress = RunProgress(
            began_s=self._began_s,
            updated_s=self._written_s,
            is_over=is_over,
            stages=tuple(self._stages.values()),
            best=None if best is None else best.value,
            best_trial=None if best is None or best.number < 0 else best.number,
            best_formula="" if best is None else best.formula,
            said=tuple(self._said),
        )
        try:
            progress.write(self._run_dir)
        except OSError as error:  # a run does not end because nobody can watch it
            logger.warning("the progress of the run cannot be written: %s", error)
