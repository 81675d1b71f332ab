"""Between Tune and the driver: a searcher that asks for jobs and a scheduler that hands back what they give.

Every job is a Tune trial. A job whose worker was lost is suggested again as a new trial. Where the driver
says WAIT, an idle trial keeps the actor at hand: Tune would end it, and with it an evaluator that cost
imports and data loading.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ray import cloudpickle
from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from autokd.outcomes import Job, Outcome, Report
from autokd.runtime.containment import pruned, shortened
from autokd.runtime.contract import Driver, Wait
from autokd.runtime.ray.tune_worker import Assignment, Event
from autokd.runtime.ray.worker_process import FactoryFailure

_T = TypeVar("_T")

_ASK_AGAIN_S = 1.0
"""Waiting drivers are asked after every outcome, and this often besides: another driver on the same database
may have changed what there is to do."""


class RunAborted(BaseException):
    """Carries an exception of the driver or of the factory through Tune, which would swallow an Exception."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class _Running:
    """A job in flight."""

    job: Job
    timeout_s: float | None
    began_s: float
    reports: list[Report] = field(default_factory=list)


class Bridge:
    """All that is known in the driver's process about one call of ``Runtime.run``."""

    def __init__(self, driver: Driver, max_worker_losses: int, job_timeouts_s: Mapping[str, float | None]) -> None:
        self._driver = driver
        self._max_worker_losses = max_worker_losses
        self._job_timeouts_s = job_timeouts_s
        self._running: dict[str, _Running] = {}
        self._to_start: deque[Job] = deque()
        self._losses: Counter[str] = Counter()
        self._last_epoch: Counter[str] = Counter()
        self._is_exhausted = False
        self._ask_at_s = 0.0

    def next_assignment(self, trial_id: str) -> Assignment | None:
        """The next assignment; None when all is done, or when the last jobs are still in flight."""
        if not self.has_work():
            return None if self._is_exhausted else Assignment(None)
        job = self._to_start.popleft()
        timeout_s = self._job_timeouts_s.get(job.recipe)
        self._running[trial_id] = _Running(job, timeout_s, time.monotonic())
        return Assignment(job, timeout_s)

    @property
    def is_finished(self) -> bool:
        """No job is in flight and none will come."""
        return self._is_exhausted and not self._running and not self._to_start

    @property
    def exhausted(self) -> bool:
        """The driver said that there are no more jobs ever."""
        return self._is_exhausted

    def has_work(self) -> bool:
        """Whether a job is ready to start; asks the driver where it may have changed its mind."""
        if not self._to_start and not self._is_exhausted and time.monotonic() >= self._ask_at_s:
            job = self._call(self._driver.next_job)
            if job is None:
                self._is_exhausted = True
            elif isinstance(job, Wait):
                self._ask_at_s = time.monotonic() + _ASK_AGAIN_S
            else:
                self._to_start.append(job)
        return bool(self._to_start)

    def mark_started(self, trial_id: str) -> None:
        """The actor of a trial is there: its job's time counts from now."""
        if trial_id in self._running:
            self._running[trial_id].began_s = time.monotonic()

    def handle_event(self, trial_id: str, event: Event) -> bool:
        """Hand an event to the driver; False ends the trial."""
        if isinstance(event.content, FactoryFailure):
            raise RunAborted(cloudpickle.loads(event.content.pickled))
        running = self._running.get(trial_id)
        if running is None:  # an idle trial
            return not (self.has_work() or self._is_exhausted)
        content = event.content
        assert content is not None, "a job's events are reports and an outcome"
        if isinstance(content, Outcome):
            self._end(trial_id, content)
            return False
        running.reports.append(content)
        if content.epoch <= self._last_epoch[running.job.id]:  # told before its worker was lost
            return True
        self._last_epoch[running.job.id] = content.epoch
        if self._call(lambda: self._driver.on_report(content)):
            return True
        self._end(trial_id, pruned(running.job, running.reports, event.worker))
        return False

    def handle_lost_worker(self, trial_id: str, reason: str) -> None:
        """The actor of a trial died: start its job again, or give it up."""
        running = self._running.pop(trial_id, None)
        if running is None:
            return
        job, seconds = running.job, time.monotonic() - running.began_s
        self._losses[job.id] += 1
        timed_out = running.timeout_s is not None and seconds >= running.timeout_s
        if not timed_out and self._losses[job.id] <= self._max_worker_losses:
            self._to_start.append(job)
            return
        if timed_out:
            message = f"the worker did not answer within {running.timeout_s:g} s and was killed."
        else:
            message = f"the worker died {self._losses[job.id]} times. {reason}"
        outcome = Outcome(
            job.id,
            "failed",
            cause="timeout" if timed_out else "worker_lost",
            message=shortened(message),
            metrics=running.reports[-1].metrics if running.reports else {},
            reports=tuple(running.reports),
            seconds=seconds,
        )
        self._end(trial_id, outcome)

    def _end(self, trial_id: str, outcome: Outcome) -> None:
        self._running.pop(trial_id, None)
        self._ask_at_s = 0.0
        self._call(lambda: self._driver.on_outcome(outcome))

    def _call(self, method: Callable[[], _T]) -> _T:
        try:
            return method()
        except Exception as error:
            raise RunAborted(error) from error


class JobSearcher(Searcher):
    """Tune's side of asking."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def suggest(self, trial_id: str) -> Any:
        assignment = self._bridge.next_assignment(trial_id)
        if assignment is not None:
            return {"assignment": assignment}
        return Searcher.FINISHED if self._bridge.is_finished else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the scheduler has handed over the outcome already."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what the search knows is in the study's database."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a search is resumed from its study's database, not from Tune")

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing, as ``save``."""

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing, as ``save``."""


class JobScheduler(FIFOScheduler):
    """Tune's side of reporting."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        goes_on = self._bridge.handle_event(trial.trial_id, result["event"])
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._bridge.handle_lost_worker(trial.trial_id, str(trial.get_error() or ""))


class TrialStartCallback(Callback):
    """Tells the bridge when a trial's actor starts on it."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._bridge.mark_started(trial.trial_id)
