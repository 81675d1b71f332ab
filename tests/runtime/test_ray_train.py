"""Full trainings on several ranks: results of Ray Train, failures of a rank, and the routing of jobs."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autokd.config import RuntimeConfig
from autokd.errors import RuntimeUnavailableError
from autokd.jobs import EvaluatorFactory, Job, Outcome, RecipeName, Report
from autokd.runtime import Driver, InProcessRuntime, Runtime, Wait, make_runtime
from autokd.runtime.routed import RoutedRuntime
from autokd.testing.scripted_jobs import SPEC, ListDriver, scripted
from tests.support.rank_fakes import rank_evaluator


def recipe_of(job_id: str) -> RecipeName:
    return "proxy" if "proxy" in job_id else "full"


@pytest.mark.ray
@pytest.mark.slow
def test_ranks_work_together_and_the_failure_of_one_ends_as_an_outcome_with_its_cause() -> None:
    driver = ListDriver(["ok", "bug", "die"], recipe_of=recipe_of)
    with make_runtime(RuntimeConfig(workers=0, full_processes=2, threads_per_worker=1, max_worker_losses=0)) as runtime:
        runtime.run(driver, rank_evaluator)
    ok = driver.outcomes["ok"]
    assert (ok.status, ok.metrics) == ("finished", {"sum of ranks": 3.0, "rank": 0.0})
    assert [report.epoch for report in driver.reports["ok"]] == [1, 2]
    assert driver.outcomes["bug"].cause == "error"
    assert driver.outcomes["bug"].message.startswith("rank 1: ")
    assert "surprise" in driver.outcomes["bug"].message
    assert driver.outcomes["die"].cause == "worker_lost"
    assert "rank" in driver.outcomes["die"].message


SCRIPT = """
    import sys
    sys.path.insert(0, {here!r})
    from autokd.testing.scripted_jobs import SPEC, scripted
    from autokd.config import RuntimeConfig
    from autokd.jobs import Job
    from autokd.runtime import make_runtime

    class OneJob:
        jobs = [Job("hang", SPEC, "full")]
        def next_job(self):
            print("training", flush=True)
            return self.jobs.pop() if self.jobs else None

    try:
        with make_runtime(RuntimeConfig(workers=0, full_processes=2, threads_per_worker=1)) as runtime:
            runtime.run(OneJob(), scripted)
    except KeyboardInterrupt:
        import ray
        print("interrupted", ray.is_initialized(), flush=True)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_ctrl_c_ends_the_ranks_and_comes_out_of_run(tmp_path: Path) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(textwrap.dedent(SCRIPT.format(here=str(Path(__file__).parents[2]))))
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        time.sleep(12)  # ranks are starting, or hang
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert "interrupted False" in said


# ------------------------------------------------------------------------------------- without Ray


class Logged(InProcessRuntime):
    """Runs jobs in this process and writes down which."""

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__()
        self.name, self.log = name, log

    def run(self, driver: Driver, factory: EvaluatorFactory, **settings: Any) -> None:
        super().run(LoggingDriver(driver, self), factory, **settings)


@dataclass
class LoggingDriver:
    """Passes everything on to a driver, and the id of each job to the runtime's log."""

    driver: Driver
    runtime: Logged

    def next_job(self) -> Job | Wait | None:
        job = self.driver.next_job()
        if isinstance(job, Job):
            self.runtime.log.append(f"{self.runtime.name} {job.id}")
        return job

    def on_report(self, report: Report) -> bool:
        return self.driver.on_report(report)

    def on_outcome(self, outcome: Outcome) -> None:
        self.driver.on_outcome(outcome)


def test_jobs_go_to_the_runtime_of_their_recipe_in_the_drivers_order() -> None:
    log: list[str] = []
    runtime: Runtime = RoutedRuntime(Logged("search", log), Logged("train", log))
    names = ["ok:1 proxy a", "ok:1 proxy b", "ok:1 c", "ok:1 d", "ok:1 proxy e", "ok:1 f"]
    driver = ListDriver(names, barriers=(2, 4), recipe_of=recipe_of)
    runtime.run(driver, scripted)
    assert log == [("search " if "proxy" in name else "train ") + name for name in names]
    assert all(outcome.status == "finished" for outcome in driver.outcomes.values())


def test_a_driver_without_jobs_starts_neither_runtime() -> None:
    log: list[str] = []
    RoutedRuntime(Logged("search", log), Logged("train", log)).run(ListDriver([]), scripted)
    assert log == []


def _failed(cause: str, message: str = "why") -> Outcome:
    return Outcome("job", "failed", cause=cause, message=message)  # type: ignore[arg-type]


PEER_LOST = "RuntimeError: [third_party/gloo/gloo/transport/tcp/pair.cc:545] Connection reset by peer"


@pytest.mark.parametrize(
    ("failed", "lost", "cause", "rank"),
    [
        ([(0, "error", PEER_LOST, 1.0), (1, "out_of_memory", "too much", 2.0)], [], "out_of_memory", "rank 1"),
        ([(0, "error", PEER_LOST, 1.0)], [1], "worker_lost", "rank 1"),
        ([(0, "error", PEER_LOST, 1.0)], [], "worker_lost", "rank another"),
        ([(0, "error", "KeyError: 0", 2.0), (1, "error", "KeyError: 1", 1.0)], [], "error", "rank 1"),
        ([(0, "error", PEER_LOST, 1.0), (1, "error", "KeyError: 1", 2.0)], [], "error", "rank 1"),
        ([], [0, 1], "worker_lost", "rank 0, 1"),
    ],
)
def test_the_failure_that_caused_those_of_other_ranks_is_reported(failed, lost, cause, rank) -> None:
    pytest.importorskip("ray")
    from autokd.runtime.ray.train_rank import RankFailed, outcome_of_failures

    failures: dict[int, BaseException] = {r: RankFailed(_failed(c, text), at_s) for r, c, text, at_s in failed}
    failures |= {r: RuntimeError("health check") for r in lost}
    outcome = outcome_of_failures(failures, Job("full-1", SPEC, "full"))
    assert (outcome.job_id, outcome.status, outcome.cause) == ("full-1", "failed", cause)
    assert outcome.message.startswith(rank)


def test_absent_ray_train_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "autokd.runtime.ray.train", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeUnavailableError, match="full_processes: 1"):
        make_runtime(RuntimeConfig(workers=0, full_processes=2))
