"""What every runtime promises: the driver decides, the runtime executes.

A runtime asks its driver for jobs, carries each to a worker, hands back its reports and, last and exactly
once, its outcome. Whether workers are this process, a Ray cluster, or a simulated clock makes no difference
to the driver.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

from autokd.outcomes import EvaluatorFactory, Job, Outcome, Report


class Wait:
    """The type of ``WAIT``: the driver has nothing to do now, but may have later."""

    def __repr__(self) -> str:
        return "WAIT"


WAIT = Wait()


class Driver(Protocol):
    """The one who decides. All methods are called from the thread that called ``Runtime.run``.

    An exception raised here is a bug or a broken database: the runtime stops its workers and lets it out.
    """

    def next_job(self) -> Job | Wait | None:
        """The next job; WAIT: nothing now, ask again after an outcome; None: no more ever."""
        ...

    def on_report(self, report: Report) -> bool:
        """Take in a report; False stops its job, which then ends with status "pruned"."""
        ...

    def on_outcome(self, outcome: Outcome) -> None:
        """Take in how a job ended."""
        ...


class Runtime(ABC):
    """A context manager that runs jobs; ``run`` may be called several times, one call after another.

    Of one job, reports arrive in the order of their epochs, each epoch once even if a lost worker made the job
    start again, and the outcome last. Jobs of different workers interleave. Failures of a job are outcomes.
    A worker calls the factory once and keeps the evaluator; what the factory raises comes out of ``run``.
    KeyboardInterrupt stops the workers and comes out of ``run``; jobs in flight then have no outcome.
    """

    num_workers: int
    """How many jobs run at a time."""

    @abstractmethod
    def run(
        self,
        driver: Driver,
        factory: EvaluatorFactory,
        *,
        job_timeouts_s: Mapping[str, float | None] | None = None,
    ) -> None:
        """Run jobs until the driver has no more.

        ``job_timeouts_s``: recipe's name -> seconds after which a worker that hangs is killed and the job
        ends as "timeout". Evaluators keep their own deadlines; this catches those that cannot. Only a runtime
        whose workers are other processes can enforce it.
        """

    def close(self) -> None:  # noqa: B027 - most runtimes have something to give back, not all
        """Give back what the runtime holds; called on leaving the context."""

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
