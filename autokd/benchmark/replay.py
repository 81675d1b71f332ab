"""Evaluators that answer jobs from a table instead of training them."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

from autokd.benchmark.table import DistillerBenchmark
from autokd.jobs import Job, Outcome, Report, WorkerResources


@dataclass(frozen=True)
class BenchmarkEvaluatorFactory:
    """Factory and evaluator in one: every job ends with the recorded metrics and seconds.

    ``runtime.SimulatedRuntime`` lets the recorded seconds pass on its virtual clock.
    """

    benchmark: DistillerBenchmark

    def __call__(self, resources: WorkerResources) -> BenchmarkEvaluatorFactory:
        """Return itself: a table serves any worker."""
        return self

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        """Yield the recorded reports and return the recorded outcome, under the job's id.

        Raises:
            BenchmarkError: if the training is not recorded. A runtime turns it into a failed outcome;
                ``DistillerBenchmark.require`` checks beforehand that every training is.
        """
        recorded = self.benchmark.lookup(job.spec).outcome(job.recipe, job.seed)
        reports = tuple(replace(report, job_id=job.id) for report in recorded.reports)
        yield from reports
        return replace(recorded, job_id=job.id, reports=reports)
