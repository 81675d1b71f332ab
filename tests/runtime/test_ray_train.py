"""Full trainings on several ranks: what Ray Train gives back, and how the failure of a rank ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from autokd.config import RuntimeConfig
from autokd.errors import RuntimeUnavailableError
from autokd.outcomes import Job, Outcome
from autokd.runtime import InProcessRuntime, Runtime, make_runtime
from autokd.runtime.routed import RoutedRuntime
from tests.support.rank_fakes import of_ranks
from tests.support.runtime_fakes import SPEC, ListDriver, scripted


class FullDriver(ListDriver):
    """Every job is a full training, but for those that are named "proxy"."""

    def __init__(self, ids: list[str], **settings) -> None:
        super().__init__(ids, **settings)
        self._jobs = [Job(j.id, SPEC, "proxy" if "proxy" in j.id else "full", j.seed) for j in self._jobs]


@pytest.mark.ray
@pytest.mark.slow
def test_ranks_work_together_and_the_failure_of_one_ends_as_an_outcome_with_its_cause() -> None:
    driver = FullDriver(["ok", "bug", "die"])
    with make_runtime(RuntimeConfig(workers=0, full_processes=2, threads_per_worker=1, max_worker_losses=0)) as runtime:
        runtime.run(driver, of_ranks)
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
    from tests.support.runtime_fakes import SPEC, scripted
    from autokd.config import RuntimeConfig
    from autokd.outcomes import Job
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


@dataclass
class Noting(InProcessRuntime):
    """Runs jobs here, and notes them."""

    name: str
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def _run_job(self, job, driver, evaluator) -> Outcome:
        self.log.append(f"{self.name} {job.id}")
        return super()._run_job(job, driver, evaluator)


def test_jobs_go_to_the_runtime_of_their_recipe_in_the_drivers_order() -> None:
    log: list[str] = []
    runtime: Runtime = RoutedRuntime(Noting("search", log), Noting("train", log))
    names = ["ok:1 proxy a", "ok:1 proxy b", "ok:1 c", "ok:1 d", "ok:1 proxy e", "ok:1 f"]
    driver = FullDriver(names, barriers=(2, 4))
    runtime.run(driver, scripted)
    assert log == [("search " if "proxy" in name else "train ") + name for name in names]
    assert all(outcome.status == "finished" for outcome in driver.outcomes.values())


def test_a_driver_without_jobs_starts_neither_runtime() -> None:
    log: list[str] = []
    RoutedRuntime(Noting("search", log), Noting("train", log)).run(FullDriver([]), scripted)
    assert log == []


def _failed(cause: str, message: str = "why") -> Outcome:
    return Outcome("job", "failed", cause=cause, message=message)  # type: ignore[arg-type]


LEFT_ALONE = "RuntimeError: [third_party/gloo/gloo/transport/tcp/pair.cc:545] Connection reset by peer"


@pytest.mark.parametrize(
    ("told", "lost", "cause", "rank"),
    [
        ([(0, "error", LEFT_ALONE, 1.0), (1, "out_of_memory", "too much", 2.0)], [], "out_of_memory", "rank 1"),
        ([(0, "error", LEFT_ALONE, 1.0)], [1], "worker_lost", "rank 1"),
        ([(0, "error", LEFT_ALONE, 1.0)], [], "worker_lost", "rank another"),
        ([(0, "error", "KeyError: 0", 2.0), (1, "error", "KeyError: 1", 1.0)], [], "error", "rank 1"),
        ([(0, "error", LEFT_ALONE, 1.0), (1, "error", "KeyError: 1", 2.0)], [], "error", "rank 1"),
        ([], [0, 1], "worker_lost", "rank 0, 1"),
    ],
)
def test_of_several_ranks_failures_the_one_that_caused_the_others_is_told(told, lost, cause, rank) -> None:
    pytest.importorskip("ray")
    from autokd.runtime.ray.train_rank import RankFailed, outcome_of_failures

    failures: dict[int, BaseException] = {r: RankFailed(_failed(c, text), at_s) for r, c, text, at_s in told}
    failures |= {r: RuntimeError("health check") for r in lost}
    outcome = outcome_of_failures(failures, Job("full-1", SPEC, "full"))
    assert (outcome.job_id, outcome.status, outcome.cause) == ("full-1", "failed", cause)
    assert outcome.message.startswith(rank)


def test_absent_ray_train_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "autokd.runtime.ray.train", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeUnavailableError, match="full_processes: 1"):
        make_runtime(RuntimeConfig(workers=0, full_processes=2))
