"""Jobs answered from a table instead of by trainings."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

from autokd.benchmark.table import DistillerBenchmark
from autokd.outcomes import Job, Outcome, Report, WorkerResources


@dataclass(frozen=True)
class BenchmarkEvaluatorFactory:
    """Factory and evaluator in one: every job ends as the table says, with the recorded metrics and seconds.

    Under ``runtime.SimulatedRuntime`` the recorded seconds pass on its virtual clock. A job whose training is not
    recorded raises BenchmarkError, which a runtime makes a failed outcome; ``DistillerBenchmark.require`` tells
    beforehand whether that can happen.
    """

    benchmark: DistillerBenchmark

    def __call__(self, resources: WorkerResources) -> BenchmarkEvaluatorFactory:
        return self

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        """Yield the recorded reports and return the recorded outcome, under the job's id."""
        recorded = self.benchmark.lookup(job.spec).outcome(job.recipe, job.seed)
        reports = tuple(replace(report, job_id=job.id) for report in recorded.reports)
        yield from reports
        return replace(recorded, job_id=job.id, reports=reports)
