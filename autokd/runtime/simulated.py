"""Jobs on a virtual clock: the unchanged study loop with W workers, for evaluators that replay recorded trainings.

A report or an outcome happens ``Report.seconds`` or ``Outcome.seconds`` of virtual time after its job's start, so hours
of search pass in a second, in an exact order. This is a discrete-event simulation with one queue.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace

from autokd.errors import AutoKDError
from autokd.jobs import Evaluator, EvaluatorFactory, Job, Outcome, Report, WorkerResources
from autokd.runtime.containment import pruned, run_guarded
from autokd.runtime.contract import Driver, Runtime, Wait


@dataclass
class _Running:
    """A job on a virtual worker, with its next event; ``began_s`` is in virtual time."""

    job: Job
    worker: int
    began_s: float
    training: Generator[Report, None, Outcome]
    reports: list[Report] = field(default_factory=list)
    next_event: Report | Outcome | None = None


class SimulatedRuntime(Runtime):
    """Virtual workers, deterministic if the evaluators are.

    Reports and outcomes reach the driver in the order of virtual time; at one instant, those of the job that started
    first come first. A worker whose job has ended or was pruned asks for the next job at that instant; workers that got
    ``WAIT`` ask again after it, in the order of their numbers. Each worker has an evaluator of its own.
    ``job_timeouts_s`` ends a job in virtual time. The clock continues from one ``run`` to the next.

    Events without ``seconds`` are timed by the wall clock. An evaluator that hangs is not killed.

    Args:
        num_workers: number of virtual workers, at least 1.
        resources: resources that each evaluator is built with.

    Raises:
        ValueError: for fewer than 1 worker.
    """

    def __init__(self, num_workers: int, resources: WorkerResources | None = None) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers is {num_workers}; a simulated runtime has 1 or more.")
        self.num_workers = num_workers
        self.now_s = 0.0
        """Virtual seconds since the runtime was made; a driver's methods may read it."""
        self.busy_s = 0.0
        """Sum of the virtual seconds that workers spent on jobs that have ended."""
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
        """Drop the workers' evaluators."""
        self._built = None

    def evaluator(self, factory: EvaluatorFactory, worker: int) -> Evaluator:
        """Return the evaluator of a virtual worker, made at its first job of this factory.

        Args:
            factory: makes the evaluator; another factory than before drops those that were made.
            worker: number of the worker.
        """
        if self._built is None or self._built[0] is not factory:
            self._built = (factory, {})
        evaluators = self._built[1]
        if worker not in evaluators:
            evaluators[worker] = factory(self._resources)
        return evaluators[worker]


class _Simulation:
    """One ``run``: a queue with the next event of each running job.

    An entry is (virtual time, order of start, job): the order decides between events at one instant, so that a run is
    deterministic and two jobs are never compared themselves.
    """

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
        self._current: _Running | None = None
        self._num_started = 0
        self._has_more = True

    def go(self) -> None:
        """Process events until no job is running."""
        self._assign()
        while self._queue:
            self._runtime.now_s, order, running = heapq.heappop(self._queue)
            event, self._current = running.next_event, running
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
        """Close the trainings that still run, which happens only if the driver has raised."""
        # The current job was taken from the queue, and its training is open if the driver raised in ``on_report``.
        for running in (self._current, *(running for _, _, running in self._queue)):
            if running is not None:
                running.training.close()

    def _assign(self) -> None:
        """Let free workers ask, one after the other, until the driver has no job now."""
        while self._free and self._has_more:
            job = self._driver.next_job()
            if job is None:
                self._has_more = False
            elif isinstance(job, Wait):
                if not self._queue:
                    raise AutoKDError(
                        "The driver returned WAIT although no job is running: on a virtual clock nothing else can "
                        "happen that ends its waiting. Simulate one driver of a study at a time."
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
        """Queue the job's next event at its virtual time, which is never before now."""
        try:
            event: Report | Outcome = next(running.training)
        except StopIteration as end:
            event = end.value
        limit_s = self._timeouts_s.get(running.job.recipe)
        if limit_s is not None and event.seconds > limit_s:
            running.training.close()
            event = _timed_out(running, limit_s)
        running.next_event = event
        # A recorded job may report less time at a later event, and the clock must not run backwards.
        heapq.heappush(self._queue, (max(self._runtime.now_s, running.began_s + event.seconds), order, running))

    def _end(self, running: _Running, outcome: Outcome) -> None:
        self._runtime.busy_s += self._runtime.now_s - running.began_s
        self._free.append(running.worker)
        self._free.sort()  # the worker with the lowest number asks first, in whatever order they became free
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
