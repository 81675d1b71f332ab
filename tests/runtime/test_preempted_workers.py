"""Workers that are asked to end are no failures, and workers that die count only while their job does not go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from autokd.config import RuntimeConfig
from autokd.jobs import Job, JobPreempted, Outcome, Report, WorkerResources
from autokd.runtime import InProcessRuntime, make_runtime
from autokd.testing.scripted_jobs import SPEC, ListDriver
from tests.support.preemptible import NUM_EPOCHS, Preemptible


class OneJob:
    """A driver of one job, which keeps what it is told."""

    def __init__(self) -> None:
        self._jobs = [Job("a", SPEC, "proxy")]
        self.outcomes: list[Outcome] = []

    def next_job(self) -> Job | None:
        return self._jobs.pop() if self._jobs else None

    def on_report(self, report: Report) -> bool:
        return True

    def on_outcome(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


@pytest.fixture
def bridge():
    from autokd.runtime.ray.tune_bridge import Bridge

    def make(max_worker_losses: int):
        driver = OneJob()
        return Bridge(driver, max_worker_losses, {}), driver

    return make


def report_epoch(bridge, trial_id: str, epoch: int) -> None:
    from autokd.runtime.ray.tune_worker import Event

    assert bridge.handle_event(trial_id, Event("worker", Report("a", epoch, {})))


def test_a_preempted_workers_job_is_started_again_however_often(bridge):
    from autokd.runtime.ray.tune_worker import Event, Preempted

    ours, driver = bridge(0)
    for number in range(5):
        assignment = ours.next_assignment(f"t{number}")
        assert assignment is not None
        assert assignment.job is not None
        assert ours.handle_event(f"t{number}", Event("worker", Preempted()))
        ours.handle_lost_worker(f"t{number}", "it ended itself")
    assert driver.outcomes == []
    assert ours.next_assignment("t9").job.id == "a"


def test_losses_count_anew_after_an_epoch_more(bridge):
    ours, driver = bridge(1)
    for epoch in range(1, 5):
        ours.next_assignment(f"t{epoch}")
        for done in range(1, epoch + 1):  # a job that goes on reports its earlier epochs again
            report_epoch(ours, f"t{epoch}", done)
        ours.handle_lost_worker(f"t{epoch}", "killed")
    assert driver.outcomes == []
    ours.next_assignment("last")
    report_epoch(ours, "last", 4)
    ours.handle_lost_worker("last", "killed")
    assert [outcome.cause for outcome in driver.outcomes] == ["worker_lost"], "it died twice in one epoch"


def test_a_run_in_this_process_ends_as_by_ctrl_c(tmp_path):
    driver = ListDriver([f"SIGTERM {tmp_path}"])
    with pytest.raises(JobPreempted):
        InProcessRuntime(WorkerResources()).run(driver, Preemptible)
    assert issubclass(JobPreempted, KeyboardInterrupt)
    assert driver.outcomes == {}


@pytest.mark.ray
@pytest.mark.slow
def test_workers_that_get_signals_lose_no_job(tmp_path: Path) -> None:
    """SIGTERM is not counted at all; SIGKILL hits once in an epoch, so that one loss in a row is allowed."""
    names = [f"{name} {tmp_path}" for name in ("SIGTERM", "SIGKILL")]
    for name, max_worker_losses in zip(names, (0, 1), strict=True):
        driver = ListDriver([name])
        with make_runtime(
            RuntimeConfig(workers=1, max_worker_losses=max_worker_losses, threads_per_worker=1)
        ) as runtime:
            runtime.run(driver, Preemptible)
        outcome = driver.outcomes[name]
        assert outcome.status == "finished", outcome.message
        assert outcome.metrics == {"epochs": float(NUM_EPOCHS)}, "nothing was computed twice"
        assert [report.epoch for report in driver.reports[name]] == [1, 2, 3, 4]
        assert len({report.metrics["pid"] for report in driver.reports[name]}) == NUM_EPOCHS, "each by another process"
