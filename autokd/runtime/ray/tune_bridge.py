"""The bridge between Ray Tune and the driver: a searcher that asks for jobs, a scheduler that hands back their events.

Every job is a trial of Tune. A job whose worker was lost becomes a new trial. If the driver returns ``WAIT``, an idle
trial keeps the actor alive: Tune would end it, and with it an evaluator that cost imports and data loading.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray
from ray import cloudpickle
from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from autokd.jobs import Job, Outcome, Report
from autokd.runtime.containment import pruned, shortened
from autokd.runtime.contract import Driver, Wait
from autokd.runtime.ray.tune_worker import Assignment, Event, Preempted
from autokd.runtime.ray.worker_process import FactoryFailure

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_ASK_AGAIN_S = 1.0
"""Seconds after which a driver that waits is asked again even without an outcome: another driver on the same database
may have ended its waiting."""


_FROZEN_S = 10.0
"""Seconds after its hard limit in which a worker that is alive has ended itself; one that is frozen (a stopped process,
a file system that hangs) cannot."""

_ACTOR_START_S = 180.0
"""Seconds that the start of an actor, its imports and data included, may take before its job goes to another one."""


class RunAborted(BaseException):
    """An exception of the driver or of the factory on its way out of ``tune.run``.

    It is a BaseException, since Tune catches every Exception of a searcher or a scheduler and goes on.

    Args:
        error: the exception itself.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class _Running:
    """A job in flight; ``began_s`` is monotonic time."""

    job: Job
    timeout_s: float | None
    began_s: float
    reports: list[Report] = field(default_factory=list)
    is_preempted: bool = False
    is_killed: bool = False
    has_begun: bool = False

    def is_overdue(self, now_s: float) -> bool:
        """Whether the job's hard limit, which its worker keeps itself, passed without the worker's end."""
        return self.timeout_s is not None and not self.is_killed and now_s > self.began_s + self.timeout_s + _FROZEN_S


class Bridge:
    """State of one call of ``Runtime.run``, in the driver's process.

    Args:
        driver: the driver.
        max_worker_losses: number of times in a row that a job is run again after its worker died without an epoch more.
        job_timeouts_s: recipe's name -> hard limit of a job in seconds.
    """

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
        """Return the next assignment; None if the driver has no more jobs, though some may be in flight."""
        if not self.has_work():
            return None if self._is_exhausted else Assignment(None)
        job = self._to_start.popleft()
        timeout_s = self._job_timeouts_s.get(job.recipe)
        self._running[trial_id] = _Running(job, timeout_s, time.monotonic())
        return Assignment(job, timeout_s)

    @property
    def is_finished(self) -> bool:
        """Whether no job is in flight and none will come."""
        return self._is_exhausted and not self._running and not self._to_start

    def without_actor(self) -> set[str]:
        """Return the trials that have waited for an actor longer than one takes to start: no node may have room."""
        latest_s = time.monotonic() - _ACTOR_START_S
        return {name for name, each in self._running.items() if not each.has_begun and each.began_s < latest_s}

    @property
    def awaits_an_actor(self) -> bool:
        """Whether a job was handed over whose actor is not ready yet."""
        return any(not running.has_begun for running in self._running.values())

    def has_work(self) -> bool:
        """Whether a job is ready to start; asks the driver if its last answer may be out of date."""
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
        """Start the clock of a trial's job, whose actor is ready; waiting for a place on the cluster does not count."""
        if trial_id in self._running:
            self._running[trial_id].began_s = time.monotonic()
            self._running[trial_id].has_begun = True

    def overdue(self) -> list[str]:
        """Return the trials whose workers should have killed themselves, once each: those are frozen, and not dead."""
        now_s = time.monotonic()
        found = [name for name, running in self._running.items() if running.is_overdue(now_s)]
        for name in found:
            self._running[name].is_killed = True
        return found

    def handle_event(self, trial_id: str, event: Event) -> bool:
        """Hand a worker's event to the driver.

        Args:
            trial_id: the trial of Tune.
            event: its event.

        Returns:
            False: the trial ends.

        Raises:
            RunAborted: with what the factory or the driver raised.
        """
        if isinstance(event.content, FactoryFailure):
            raise RunAborted(cloudpickle.loads(event.content.pickled))
        running = self._running.get(trial_id)
        if running is None:  # an idle trial ends as soon as its actor has something to do, or never will have
            return not (self.has_work() or self._is_exhausted)
        content = event.content
        assert content is not None, "a job's events are reports and an outcome"
        if isinstance(content, Outcome):
            self._end(trial_id, content)
            return False
        if isinstance(content, Preempted):
            running.is_preempted = True
            return True  # the actor's next step ends it
        running.reports.append(content)
        # A job that runs again after its worker died repeats epochs; the driver gets each once.
        if content.epoch <= self._last_epoch[running.job.id]:
            return True
        self._last_epoch[running.job.id] = content.epoch
        self._losses.pop(running.job.id, None)  # it has gone on since: its next loss is the first one again
        if self._call(lambda: self._driver.on_report(content)):
            return True
        self._end(trial_id, pruned(running.job, running.reports, event.worker))
        return False

    def handle_lost_worker(self, trial_id: str, reason: str) -> None:
        """Start the job of a trial whose actor died again, or end it as a failure.

        An actor that had said that it was asked to end is no failure, and is not counted.

        Args:
            trial_id: the trial of Tune.
            reason: Ray's words.
        """
        running = self._running.pop(trial_id, None)
        if running is None:
            return
        job, seconds = running.job, time.monotonic() - running.began_s
        if running.is_preempted:
            self._to_start.append(job)
            return
        self._losses[job.id] += 1
        # A worker that reached its hard limit has killed itself, and the driver sees a dead actor in both cases: only
        # the time tells them apart. A job that hangs is not run again, since it would hang again.
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
        self._ask_at_s = 0.0  # an outcome may end the driver's waiting
        self._call(lambda: self._driver.on_outcome(outcome))

    def _call(self, method: Callable[[], _T]) -> _T:
        try:
            return method()
        except Exception as error:
            raise RunAborted(error) from error


class JobSearcher(Searcher):
    """Tune's searcher: suggests assignments in place of parameters."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def suggest(self, trial_id: str) -> Any:
        if self._bridge.awaits_an_actor and not self._bridge.has_work():
            return None  # no idle trial: an actor without a job takes the job that waits for another one to start
        assignment = self._bridge.next_assignment(trial_id)
        if assignment is not None:
            return {"assignment": assignment}
        # FINISHED ends the whole run, so not while a job may still be lost and start again; None: ask again later.
        return Searcher.FINISHED if self._bridge.is_finished else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the scheduler has handed over the outcome."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the state of a search is in the study's database."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("A search resumes from its study's database, not from Tune: run it again.")

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Do nothing, as ``save``."""

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Do nothing, as ``save``."""


class JobScheduler(FIFOScheduler):
    """Tune's scheduler: hands events to the bridge, which says whether a trial continues."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Choose a trial that has waited long for an actor; of others Tune itself starts all, new ones on free actors.

        The trial that FIFO chooses, the first that waits, takes a free actor even if an actor of its own is about to
        start, which Tune then ends: as long as jobs are shorter than an actor's start, a lost actor, or one of a node
        that joins late, would never come up.
        """
        overdue = self._bridge.without_actor()
        return next((trial for trial in tune_controller.get_live_trials() if trial.trial_id in overdue), None)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        continues = self._bridge.handle_event(trial.trial_id, result["event"])
        return str(TrialScheduler.CONTINUE if continues else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._bridge.handle_lost_worker(trial.trial_id, str(trial.get_error() or ""))


class ClockCallback(Callback):
    """A callback that keeps the time of jobs: it reports the start of a trial's actor, and kills frozen actors."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._bridge.mark_started(trial.trial_id)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        overdue = set(self._bridge.overdue())
        for trial in trials:
            if trial.trial_id in overdue and trial.temporary_state.ray_actor is not None:
                logger.warning("job %s: its worker is frozen, and is killed", trial.trial_id)
                # Tune then sees a dead actor, as if the worker had ended itself.
                ray.kill(trial.temporary_state.ray_actor)
