"""The contract of every runtime: a driver decides, a runtime executes.

A runtime asks its driver for jobs, carries each to a worker, and hands back the job's reports and, last and exactly
once, its outcome. The driver is the same whether workers are this process, a Ray cluster or a simulated clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, TypeVar

from autokd.jobs import EvaluatorFactory, Job, Outcome, Report


class Wait:
    """The type of ``WAIT``: the driver has no job now, and may have one later."""

    def __repr__(self) -> str:
        return "WAIT"


WAIT = Wait()


class Driver(Protocol):
    """The side that decides. All methods are called from the thread that called ``Runtime.run``.

    An exception of a driver's method is a bug or a broken database: the runtime stops its workers and raises it.
    """

    def next_job(self) -> Job | Wait | None:
        """Choose the next job.

        Returns:
            A job; ``WAIT`` if there is none now: the runtime asks again after an outcome; None if there will be none.
        """
        ...

    def on_report(self, report: Report) -> bool:
        """Receive a report.

        Args:
            report: metrics of a job after an epoch.

        Returns:
            False stops the report's job, which then ends with status "pruned".
        """
        ...

    def on_outcome(self, outcome: Outcome) -> None:
        """Receive the outcome of a job that has ended.

        Args:
            outcome: the last that the driver receives of its job.
        """
        ...


RuntimeT = TypeVar("RuntimeT", bound="Runtime")


class Runtime(ABC):
    """A context manager that runs jobs; ``run`` may be called several times, one call after another.

    Reports of one job arrive in the order of their epochs, each epoch once even if a lost worker made the job start
    again, and the outcome arrives last. Jobs of different workers interleave. A failed job has an outcome; it raises
    nothing. A worker calls the factory once and keeps the evaluator. KeyboardInterrupt stops the workers and comes out
    of ``run``; jobs in flight then have no outcome.

    ``autokd.testing.runtimes.RuntimeTestCase`` tests all of this.
    """

    num_workers: int
    """Number of jobs that run at a time."""

    @abstractmethod
    def run(
        self,
        driver: Driver,
        factory: EvaluatorFactory,
        *,
        job_timeouts_s: Mapping[str, float | None] | None = None,
    ) -> None:
        """Run jobs until the driver has no more.

        Args:
            driver: source of the jobs, receiver of reports and outcomes.
            factory: makes a worker's evaluator; picklable.
            job_timeouts_s: recipe's name -> seconds after which a worker that hangs is killed and its job ends as
                "timeout". Evaluators keep their own deadlines; this limit catches those that cannot. Only a runtime
                whose workers are other processes can enforce it.

        Raises:
            Exception: whatever the driver or the factory raises.
        """

    def close(self) -> None:  # noqa: B027 - a default for runtimes that hold nothing
        """Release what the runtime holds; called when the context is left."""

    def __enter__(self: RuntimeT) -> RuntimeT:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
