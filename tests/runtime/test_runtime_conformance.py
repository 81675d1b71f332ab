"""What every runtime promises: in process, on a virtual clock, and on Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from autokd.errors import DetectorError
from autokd.runtime import Runtime
from tests.support.runtime_fakes import CAUSES, BuildCounter, ListDriver, broken_factory, scripted

FAILING = [f"raise:{name}" for name in CAUSES]


def test_every_job_ends_with_one_outcome_and_its_reports_in_order(runtime: Runtime) -> None:
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
        assert ":" in outcome.worker


def test_failures_have_their_causes_and_the_run_goes_on(runtime: Runtime) -> None:
    driver = ListDriver([*FAILING, "none", "ok:2", "endless"], stop_after={"endless": 4})
    runtime.run(driver, scripted)
    found = {name: driver.outcomes[f"raise:{name}"].cause for name in CAUSES}
    assert found == CAUSES
    for name in FAILING:
        outcome = driver.outcomes[name]
        assert outcome.status == "failed"
        assert [report.epoch for report in outcome.reports] == [1], "reports before the failure are kept"
        assert outcome.metrics["loss"] > 0
    assert "runtime_fakes.py" in driver.outcomes["raise:bug"].message
    assert "surprise" in driver.outcomes["raise:bug"].message
    assert driver.outcomes["raise:non_finite"].message == "term 0 is nan"
    assert driver.outcomes["none"].cause == "error"
    assert driver.outcomes["ok:2"].status == "finished"
    # A driver that says stop ends an endless job.
    stopped = driver.outcomes["endless"]
    assert (stopped.status, stopped.cause, len(stopped.reports)) == ("pruned", None, 4)
    assert len(driver.reports["endless"]) == 4


def test_a_driver_that_waits_is_asked_again_after_outcomes(runtime: Runtime, tmp_path: Path) -> None:
    names = ["pause:0.5", "pause:0.6", "pause:0.2 b", "ok:2 c", "ok:2 d", "ok:2 e"]
    driver = ListDriver(names, barriers=(2, 4))
    factory = BuildCounter(tmp_path)
    runtime.run(driver, factory)
    assert set(driver.outcomes) == set(names)
    assert driver.started_after["pause:0.2 b"] == {"pause:0.5", "pause:0.6"}
    assert driver.started_after["ok:2 d"] == {"pause:0.5", "pause:0.6", "pause:0.2 b", "ok:2 c"}
    # Waiting costs no evaluator: a worker builds one, barriers or not.
    assert 1 <= len(list(tmp_path.iterdir())) <= runtime.num_workers


def test_a_driver_without_jobs_ends_the_run_at_once(runtime: Runtime) -> None:
    driver = ListDriver([])
    runtime.run(driver, scripted)
    assert not driver.outcomes


def test_what_a_factory_raises_comes_out_of_run(runtime: Runtime) -> None:
    with pytest.raises(DetectorError, match="checkpoint is gone"):
        runtime.run(ListDriver(["ok:1"]), broken_factory)


def test_what_a_driver_raises_comes_out_of_run_and_the_runtime_serves_again(runtime: Runtime) -> None:
    class Failing(ListDriver):
        def on_outcome(self, outcome: object) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        runtime.run(Failing(["ok:1", "hang" if runtime.num_workers > 1 else "ok:1 b"]), scripted)
    driver = ListDriver(["ok:1"])
    runtime.run(driver, scripted)
    assert driver.outcomes["ok:1"].status == "finished"
