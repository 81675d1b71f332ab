"""Containment by itself, the division of resources, and what in-process runs promise besides."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import get_args

import pytest

from autokd.config import RuntimeConfig
from autokd.jobs import (
    CAUSES,
    RECURRING_CAUSES,
    Cause,
    Evaluator,
    Job,
    JobFailed,
    Outcome,
    Report,
    WorkerResources,
    is_external,
)
from autokd.runtime import InProcessRuntime, make_runtime, run_guarded
from autokd.runtime.resources import divide
from autokd.testing.scripted_jobs import ListDriver, scripted

JOB = Job("j", None, "proxy")


class Recording:
    """Reports for ever; remembers that it was closed, and raises ``at_end`` then."""

    def __init__(self, raises: BaseException | None = None, at_end: Exception | None = None) -> None:
        self.raises, self.at_end, self.closed = raises, at_end, False

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        try:
            epoch = 0
            while True:
                epoch += 1
                yield Report("another id", epoch, {"loss": 1})
                if self.raises is not None:
                    raise self.raises
        finally:
            self.closed = True
            if self.at_end is not None:
                raise self.at_end


def test_ctrl_c_passes_through_after_closing_the_training() -> None:
    evaluator = Recording(raises=KeyboardInterrupt())
    training = run_guarded(evaluator, JOB)
    next(training)
    with pytest.raises(KeyboardInterrupt):
        next(training)
    assert evaluator.closed


def test_closing_closes_the_training_and_contains_what_it_raises() -> None:
    evaluator = Recording(at_end=OSError("disk full"))
    training = run_guarded(evaluator, JOB)
    next(training)
    training.close()
    assert evaluator.closed


def test_reports_carry_the_id_of_their_job_and_plain_numbers() -> None:
    report = next(run_guarded(Recording(), JOB))
    assert report.job_id == "j"
    assert type(report.metrics["loss"]) is float
    assert report.seconds > 0


def test_what_evaluate_itself_raises_is_contained() -> None:
    class NoGenerator:
        def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
            raise MemoryError

    with pytest.raises(StopIteration) as end:
        next(run_guarded(NoGenerator(), JOB))
    assert end.value.value.cause == "out_of_memory"


def test_a_job_that_failed_on_its_way_keeps_what_it_had_measured_and_written() -> None:
    class Failing:
        def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
            yield Report(job.id, 1, {"loss": 2.0})
            try:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nSee the documentation of torch")
            except RuntimeError as error:
                raise JobFailed({"loss": 2.0, "val_ap": 0.5}, {"weights": "student.pt"}) from error

    training = run_guarded(Failing(), JOB)
    next(training)
    with pytest.raises(StopIteration) as end:
        next(training)
    outcome = end.value.value
    assert (outcome.cause, outcome.message) == ("out_of_memory", "CUDA out of memory. Tried to allocate 2 GiB")
    assert (outcome.metrics, outcome.artifacts) == ({"loss": 2.0, "val_ap": 0.5}, {"weights": "student.pt"})
    assert [report.metrics for report in outcome.reports] == [{"loss": 2.0}]


def test_every_cause_has_a_meaning_and_a_row_in_the_docs() -> None:
    assert set(CAUSES) == set(get_args(Cause))
    assert {"non_finite", "cannot_build"} == RECURRING_CAUSES
    assert [cause for cause in CAUSES if is_external(cause)] == ["worker_lost", "interrupted", "error"]
    assert not is_external(None)
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert [cause for cause in CAUSES if f"| `{cause}` |" not in page] == []


def test_the_evaluator_in_process_is_built_once_for_several_runs() -> None:
    built = []

    def factory(resources: WorkerResources) -> Evaluator:
        built.append(resources)
        return scripted(resources)

    with InProcessRuntime() as runtime:
        runtime.run(ListDriver(["ok:1", "ok:2"]), factory)
        runtime.run(ListDriver(["ok:1"]), factory)
        assert len(built) == 1
        runtime.run(ListDriver(["ok:1"]), lambda resources: factory(resources))
        assert len(built) == 2


@pytest.mark.parametrize(
    ("nodes", "gpus", "workers", "threads", "fraction"),
    [
        ([8], 0, 2, 4, 0.0),
        ([2], 0, 5, 1, 0.0),  # more workers than cores
        ([4, 4, 4], 0, 2, 4, 0.0),  # no worker spans two nodes
        ([4, 4, 4], 0, 4, 2, 0.0),  # three threads would leave a worker without a place
        ([16], 4, 2, 8, 1.0),  # a whole card each, no more
        ([16], 1, 3, 5, 1 / 3),
        ([16], 2, 3, 5, 0.5),  # a card holds a whole number of workers
    ],
)
def test_cores_and_cards_are_divided(
    nodes: list[float], gpus: float, workers: int, threads: int, fraction: float
) -> None:
    resources = divide(nodes, gpus, workers=workers)
    assert resources == WorkerResources(threads, "cuda" if fraction else "cpu", pytest.approx(fraction))


def test_settings_overrule_the_division() -> None:
    assert divide([8], 1, workers=2, threads_per_worker=7, gpus_per_worker=0) == WorkerResources(7, "cpu", 0.0)


def test_no_workers_means_in_process_with_the_threads_asked_for() -> None:
    driver = ListDriver(["ok:1"])
    with make_runtime(RuntimeConfig(workers=0, threads_per_worker=3, gpus_per_worker=0)) as runtime:
        runtime.run(driver, scripted)
    assert driver.outcomes["ok:1"].metrics["threads"] == 3


def test_the_runtime_is_imported_without_torch_and_without_ray() -> None:
    script = "import sys, autokd.runtime, autokd.storage; print(sorted({'torch', 'ray'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
