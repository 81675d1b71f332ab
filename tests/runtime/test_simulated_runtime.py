"""The virtual clock: schedules worked out by hand, pruning, waiting, time limits."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

import pytest

from autokd.errors import AutoKDError
from autokd.jobs import Job, Outcome, Report, WorkerResources
from autokd.runtime import WAIT, SimulatedRuntime, Wait
from autokd.testing.scripted_jobs import ListDriver


@dataclass
class Recorded:
    """Factory and evaluator: a job lasts as long as its list says, with a report at each but the last number."""

    seconds: Mapping[str, list[float]]
    closed: list[str] = field(default_factory=list)

    def __call__(self, resources: WorkerResources) -> Recorded:
        return self

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        *reports, end = self.seconds[job.id]
        try:
            for epoch, seconds in enumerate(reports, 1):
                yield Report(job.id, epoch, {"loss": 1.0}, seconds)
        finally:
            self.closed.append(job.id)
        return Outcome(job.id, "finished", {"loss": 1.0}, seconds=end)


class Diary(ListDriver):
    """A driver that keeps (virtual seconds, event)."""

    def __init__(self, ids: list[str], runtime: SimulatedRuntime, **settings: object) -> None:
        super().__init__(ids, **settings)  # type: ignore[arg-type]
        self.runtime = runtime
        self.events: list[tuple[float, str]] = []

    def next_job(self) -> Job | Wait | None:
        job = super().next_job()
        if isinstance(job, Job):
            self._note(f"ask {job.id}")
        return job

    def on_report(self, report: Report) -> bool:
        self._note(f"{report.job_id} epoch {report.epoch}")
        return super().on_report(report)

    def on_outcome(self, outcome: Outcome) -> None:
        self._note(f"{outcome.job_id} {outcome.status} on {outcome.worker[-1]}")
        super().on_outcome(outcome)

    def _note(self, text: str) -> None:
        self.events.append((self.runtime.now_s, text))


JOBS = {"a": [4.0, 10.0], "b": [3.0], "c": [2.0, 5.0], "d": [1.0], "e": [6.0]}


def test_one_worker_does_one_job_after_another() -> None:
    runtime = SimulatedRuntime(1)
    driver = Diary([*JOBS], runtime)
    runtime.run(driver, Recorded(JOBS))
    assert driver.events == [
        (0.0, "ask a"),
        (4.0, "a epoch 1"),
        (10.0, "a finished on 0"),
        (10.0, "ask b"),
        (13.0, "b finished on 0"),
        (13.0, "ask c"),
        (15.0, "c epoch 1"),
        (18.0, "c finished on 0"),
        (18.0, "ask d"),
        (19.0, "d finished on 0"),
        (19.0, "ask e"),
        (25.0, "e finished on 0"),
    ]
    assert (runtime.now_s, runtime.busy_s) == (25.0, 25.0)


def test_three_workers_share_the_jobs_in_the_order_of_virtual_time() -> None:
    """Worker 0: a 0-10. Worker 1: b 0-3, d 3-4, e 4-10. Worker 2: c 0-5. a started before e, so a ends first."""
    runtime = SimulatedRuntime(3)
    driver = Diary([*JOBS], runtime)
    runtime.run(driver, Recorded(JOBS))
    assert driver.events == [
        (0.0, "ask a"),
        (0.0, "ask b"),
        (0.0, "ask c"),
        (2.0, "c epoch 1"),
        (3.0, "b finished on 1"),
        (3.0, "ask d"),
        (4.0, "a epoch 1"),
        (4.0, "d finished on 1"),
        (4.0, "ask e"),
        (5.0, "c finished on 2"),
        (10.0, "a finished on 0"),
        (10.0, "e finished on 1"),
    ]
    assert (runtime.now_s, runtime.busy_s) == (10.0, 25.0)


def test_a_pruned_job_frees_its_worker_at_that_moment() -> None:
    runtime = SimulatedRuntime(3)
    driver = Diary([*JOBS], runtime, stop_after={"c": 1})
    factory = Recorded(JOBS)
    runtime.run(driver, factory)
    assert driver.events == [
        (0.0, "ask a"),
        (0.0, "ask b"),
        (0.0, "ask c"),
        (2.0, "c epoch 1"),
        (2.0, "c pruned on 2"),
        (2.0, "ask d"),
        (3.0, "b finished on 1"),
        (3.0, "ask e"),
        (3.0, "d finished on 2"),
        (4.0, "a epoch 1"),
        (9.0, "e finished on 1"),
        (10.0, "a finished on 0"),
    ]
    assert runtime.busy_s == 10 + 3 + 2 + 1 + 6
    assert driver.outcomes["c"].seconds == 2.0
    assert "c" in factory.closed


def test_workers_that_wait_ask_again_at_the_next_outcome() -> None:
    runtime = SimulatedRuntime(3)
    driver = Diary(["b", "d", "c", "e"], runtime, barriers=(2,))
    runtime.run(driver, Recorded(JOBS))
    asked = {text: seconds for seconds, text in driver.events if text.startswith("ask")}
    assert asked == {"ask b": 0.0, "ask d": 0.0, "ask c": 3.0, "ask e": 3.0}
    assert runtime.now_s == 9.0


def test_the_clock_goes_on_from_run_to_run() -> None:
    runtime = SimulatedRuntime(2)
    runtime.run(ListDriver(["b"]), Recorded(JOBS))
    driver = Diary(["d"], runtime)
    runtime.run(driver, Recorded(JOBS))
    assert driver.events == [(3.0, "ask d"), (4.0, "d finished on 0")]


def test_a_time_limit_ends_a_job_in_virtual_time() -> None:
    runtime = SimulatedRuntime(1)
    driver = Diary(["a", "d"], runtime)
    runtime.run(driver, Recorded(JOBS), job_timeouts_s={"proxy": 7.0})
    assert driver.events[1:3] == [(4.0, "a epoch 1"), (7.0, "a failed on 0")]
    outcome = driver.outcomes["a"]
    assert (outcome.cause, outcome.seconds, len(outcome.reports)) == ("timeout", 7.0, 1)
    assert runtime.now_s == 8.0


def test_a_driver_that_waits_for_nothing_is_told_so() -> None:
    class Idle(ListDriver):
        def next_job(self) -> Wait:
            return WAIT

    with pytest.raises(AutoKDError, match="no job is running"):
        SimulatedRuntime(2).run(Idle([]), Recorded(JOBS))


def test_all_trainings_are_closed_when_the_driver_raises() -> None:
    class Failing(ListDriver):
        def on_report(self, report: Report) -> bool:
            raise OSError("disk full")

    factory = Recorded({"a": [4.0, 10.0], "c": [2.0, 5.0]})
    with pytest.raises(OSError, match="disk full"):
        SimulatedRuntime(2).run(Failing(["a", "c"]), factory)
    assert sorted(factory.closed) == ["a", "c"]


def test_a_runtime_without_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        SimulatedRuntime(0)
