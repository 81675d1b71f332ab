"""Jobs on a virtual clock: the same study loop with W workers, whose trainings last as long as they say.

What an evaluator yields is taken as having happened after ``Report.seconds`` and ``Outcome.seconds`` of virtual
time (those of a recorded training, mostly), so that hours of search pass in a second, in an exact order.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace

from autokd.errors import AutoKDError
from autokd.outcomes import Evaluator, EvaluatorFactory, Job, Outcome, Report, WorkerResources
from autokd.runtime.containment import pruned, run_guarded
from autokd.runtime.contract import Driver, Runtime, Wait


@dataclass
class _Running:
    """A job on a virtual worker, with its next event; ``began_s`` is virtual."""

    job: Job
    worker: int
    began_s: float
    training: Generator[Report, None, Outcome]
    reports: list[Report] = field(default_factory=list)
    next_event: Report | Outcome | None = None


class SimulatedRuntime(Runtime):
    """``num_workers`` virtual workers; deterministic where the evaluators are.

    Reports and outcomes reach the driver in the order of virtual time; of those at one instant, the job that
    started first is heard first. A worker whose job has ended, or was pruned by a report, asks for the next at
    that very instant; those that were told to wait ask again after it, in the order of their numbers. Each
    worker keeps an evaluator of its own. ``job_timeouts_s`` ends a job in virtual time.

    A driver's methods may read ``now_s``. The clock goes on from one ``run`` to the next. What an evaluator does
    not time itself counts by the wall clock, and an evaluator that hangs, hangs: nothing here is killed.
    """

    def __init__(self, num_workers: int, resources: WorkerResources | None = None) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers is {num_workers}; a simulated runtime has 1 or more.")
        self.num_workers = num_workers
        self.now_s = 0.0
        """Virtual seconds since the runtime was made."""
        self.busy_s = 0.0
        """Virtual seconds that workers spent on jobs that have ended, all of them together."""
        self._resources = resources or WorkerResources()
        self._built: tuple[EvaluatorFactory, dict[int, Evaluator]] | None = None

    def run(
        self,
        driver: Driver,
        factory: EvaluatorFactory,
        *,
        job_timeouts_s: Mapping[str, float | None] | None = None,
    ) -> None:
        simulation = _Simulation(self, driver, factory, job_timeouts_s or {})
        try:
            simulation.go()
        finally:
            simulation.stop()

    def close(self) -> None:
        self._built = None

    def evaluator(self, factory: EvaluatorFactory, worker: int) -> Evaluator:
        """The evaluator of a virtual worker, made when it first has a job of this factory."""
        if self._built is None or self._built[0] is not factory:
            self._built = (factory, {})
        evaluators = self._built[1]
        if worker not in evaluators:
            evaluators[worker] = factory(self._resources)
        return evaluators[worker]


class _Simulation:
    """One ``run``: a queue of each running job's next event, by virtual time."""

    def __init__(
        self,
        runtime: SimulatedRuntime,
        driver: Driver,
        factory: EvaluatorFactory,
        timeouts_s: Mapping[str, float | None],
    ) -> None:
        self._runtime = runtime
        self._driver = driver
        self._factory = factory
        self._timeouts_s = timeouts_s
        self._free = list(range(runtime.num_workers))
        self._queue: list[tuple[float, int, _Running]] = []
        self._heard: _Running | None = None
        self._num_started = 0
        self._has_more = True

    def go(self) -> None:
        self._assign()
        while self._queue:
            self._runtime.now_s, order, running = heapq.heappop(self._queue)
            event, self._heard = running.next_event, running
            if isinstance(event, Report):
                running.reports.append(event)
                if self._driver.on_report(event):
                    self._await_next(order, running)
                    continue
                running.training.close()
                event = pruned(running.job, running.reports)
            assert event is not None, "a queued job has an event"
            self._end(running, event)
            self._assign()

    def stop(self) -> None:
        """Close what still runs, where the driver has raised."""
        for running in (self._heard, *(running for _, _, running in self._queue)):
            if running is not None:
                running.training.close()

    def _assign(self) -> None:
        """Let free workers ask, one after the other, until the driver has nothing for them now."""
        while self._free and self._has_more:
            job = self._driver.next_job()
            if job is None:
                self._has_more = False
            elif isinstance(job, Wait):
                if not self._queue:
                    raise AutoKDError(
                        "The driver waits although no job is running: on a virtual clock nothing can happen that "
                        "ends its waiting. Several drivers of one study cannot be simulated one by one."
                    )
                return
            else:
                self._start(job, self._free.pop(0))

    def _start(self, job: Job, worker: int) -> None:
        evaluator = self._runtime.evaluator(self._factory, worker)
        running = _Running(job, worker, self._runtime.now_s, run_guarded(evaluator, job))
        self._num_started += 1
        self._await_next(self._num_started, running)

    def _await_next(self, order: int, running: _Running) -> None:
        """Queue the job's next event at its virtual time, which never lies before now."""
        try:
            event: Report | Outcome = next(running.training)
        except StopIteration as end:
            event = end.value
        limit_s = self._timeouts_s.get(running.job.recipe)
        if limit_s is not None and event.seconds > limit_s:
            running.training.close()
            event = _timed_out(running, limit_s)
        running.next_event = event
        heapq.heappush(self._queue, (max(self._runtime.now_s, running.began_s + event.seconds), order, running))

    def _end(self, running: _Running, outcome: Outcome) -> None:
        self._runtime.busy_s += self._runtime.now_s - running.began_s
        self._free.append(running.worker)
        self._free.sort()
        self._driver.on_outcome(replace(outcome, worker=f"simulated:{running.worker}"))


def _timed_out(running: _Running, limit_s: float) -> Outcome:
    reports = tuple(running.reports)
    return Outcome(
        running.job.id,
        "failed",
        metrics=reports[-1].metrics if reports else {},
        cause="timeout",
        message=f"the training would have taken more than {limit_s:g} s",
        reports=reports,
        seconds=limit_s,
    )
