"""The conformance suite of runtimes: what ``autokd.runtime.Runtime`` promises, as tests.

A third party runs it over a runtime of its own by overriding one fixture::

    from autokd.testing.runtimes import RuntimeTestCase

    @pytest.fixture(scope="module")  # one runtime for all tests, if starting one takes long
    def my_runtime():
        with MyRuntime(num_workers=2) as runtime:
            yield runtime

    class TestMyRuntime(RuntimeTestCase):
        @pytest.fixture
        def runtime(self, my_runtime):
            return my_runtime

The jobs are those of ``autokd.testing.scripted_jobs``; they take a few seconds and need no data, detector or GPU.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from autokd.errors import DetectorError
from autokd.jobs import Outcome
from autokd.runtime import Runtime
from autokd.testing.scripted_jobs import CAUSES, BuildCounter, ListDriver, broken_factory, scripted


class _FailingDriver(ListDriver):
    """A driver whose database breaks at the first outcome."""

    def on_outcome(self, outcome: Outcome) -> None:
        raise OSError("disk full")


class RuntimeTestCase:
    """Tests of one runtime; override the fixture ``runtime``.

    A runtime with several workers must be able to end a worker whose job hangs: one test makes the driver raise
    while another job sleeps. Test a runtime that cannot (threads, a virtual clock) with one worker.
    """

    @pytest.fixture
    def runtime(self) -> Runtime:
        """The runtime under test, entered; every test may use the same one."""
        raise NotImplementedError("override the fixture 'runtime' in your test class")

    def test_every_job_ends_with_one_outcome_and_its_reports_in_order(self, runtime: Runtime) -> None:
        driver = ListDriver([f"ok:3 {i}" for i in range(6)])
        runtime.run(driver, scripted)
        assert len(driver.outcomes) == 6
        for seed, (name, outcome) in enumerate(sorted(driver.outcomes.items())):
            loss = 0.1 * seed + 1.0
            assert outcome.status == "finished"
            assert outcome.metrics["loss"] == pytest.approx(loss / 3)
            assert [report.epoch for report in driver.reports[name]] == [1, 2, 3]
            assert [report.metrics["loss"] for report in outcome.reports] == pytest.approx([loss, loss / 2, loss / 3])
            assert outcome.seconds > 0
            assert ":" in outcome.worker, "a worker is named as host:process"

    def test_failed_jobs_have_their_causes_and_the_run_continues(self, runtime: Runtime) -> None:
        failing = [f"raise:{name}" for name in CAUSES]
        driver = ListDriver([*failing, "none", "ok:2"])
        runtime.run(driver, scripted)
        assert {name: driver.outcomes[f"raise:{name}"].cause for name in CAUSES} == CAUSES
        for name in failing:
            outcome = driver.outcomes[name]
            assert outcome.status == "failed"
            assert [report.epoch for report in outcome.reports] == [1], "reports before the failure are kept"
            assert outcome.metrics["loss"] > 0
        assert driver.outcomes["none"].cause == "error"
        assert driver.outcomes["ok:2"].status == "finished"

    def test_the_message_of_a_bug_is_its_traceback_and_of_a_named_cause_its_text(self, runtime: Runtime) -> None:
        driver = ListDriver(["raise:bug", "raise:non_finite"])
        runtime.run(driver, scripted)
        assert "scripted_jobs.py" in driver.outcomes["raise:bug"].message
        assert "surprise" in driver.outcomes["raise:bug"].message
        assert driver.outcomes["raise:non_finite"].message == "term 0 is nan"

    def test_a_driver_prunes_an_endless_job(self, runtime: Runtime) -> None:
        driver = ListDriver(["endless", "ok:1"], stop_after={"endless": 4})
        runtime.run(driver, scripted)
        stopped = driver.outcomes["endless"]
        assert (stopped.status, stopped.cause, len(stopped.reports)) == ("pruned", None, 4)
        assert len(driver.reports["endless"]) == 4
        assert driver.outcomes["ok:1"].status == "finished"

    def test_a_driver_that_waits_is_asked_again_after_outcomes(self, runtime: Runtime, tmp_path: Path) -> None:
        names = ["pause:0.5", "pause:0.6", "pause:0.2 b", "ok:2 c", "ok:2 d", "ok:2 e"]
        driver = ListDriver(names, barriers=(2, 4))
        factory = BuildCounter(tmp_path)
        runtime.run(driver, factory)
        assert set(driver.outcomes) == set(names)
        assert driver.started_after["pause:0.2 b"] == {"pause:0.5", "pause:0.6"}
        assert driver.started_after["ok:2 d"] == {"pause:0.5", "pause:0.6", "pause:0.2 b", "ok:2 c"}
        # Waiting costs no evaluator: a worker builds one, barriers or not.
        assert 1 <= len(list(tmp_path.iterdir())) <= runtime.num_workers

    def test_a_driver_without_jobs_ends_the_run_at_once(self, runtime: Runtime) -> None:
        driver = ListDriver([])
        runtime.run(driver, scripted)
        assert not driver.outcomes

    def test_an_exception_of_the_factory_comes_out_of_run(self, runtime: Runtime) -> None:
        with pytest.raises(DetectorError, match="checkpoint is gone"):
            runtime.run(ListDriver(["ok:1"]), broken_factory)

    def test_an_exception_of_the_driver_comes_out_of_run_and_the_runtime_serves_again(self, runtime: Runtime) -> None:
        second = "hang" if runtime.num_workers > 1 else "ok:1 b"
        with pytest.raises(OSError, match="disk full"):
            runtime.run(_FailingDriver(["ok:1", second]), scripted)
        driver = ListDriver(["ok:1"])
        runtime.run(driver, scripted)
        assert driver.outcomes["ok:1"].status == "finished"
