"""Scripted jobs for tests of runtimes: an evaluator controlled by a job's id, and a driver with a list of ids.

The ids; a space and any text behind it only make an id unique:

======================  =========================================================================
``ok:N``                N reports, then finished
``endless``             reports without an end; the driver must stop it
``raise:NAME``          raises ``RAISED[NAME]`` after the first report
``none``                returns no outcome
``pause:SECONDS``       sleeps after the first report, then a second report and finished
``hang``                sleeps for ten minutes after the first report
``freeze``              stops its process (SIGSTOP) after the first report, where that exists
``die``                 ends its process after the first report
``die_once:FILE``       likewise, unless FILE exists, which it writes
======================  =========================================================================

The loss of a job is (1 + seed / 10) / epoch, and a job's seed is its place in the list. Everything here can be pickled
and is imported without pytest, as workers in other processes need.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Generator
from pathlib import Path

from autokd.errors import DetectorError, DistillError, NonFiniteError, SpecError
from autokd.jobs import Cause, Evaluator, Job, Outcome, RecipeName, Report, WorkerResources
from autokd.runtime import WAIT, Wait
from autokd.spec import DistillerSpec, Step, TermSpec, Weight

SPEC = DistillerSpec((TermSpec(Step("feature_map"), (), Step("l2"), Weight("relative", 40.0)),), name="fitnet")
"""The distiller of every job, which a worker must receive unchanged."""


class OutOfMemoryError(RuntimeError):
    """Stands for torch.cuda.OutOfMemoryError, which runtimes recognize by its name."""


class _Unpicklable(Exception):
    """An exception that pickles and cannot be unpickled, since its constructor takes other arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd constructor")


RAISED: dict[str, BaseException] = {
    "non_finite": NonFiniteError("term 0 is nan"),
    "cuda_memory": OutOfMemoryError("CUDA error"),
    "cpu_memory": MemoryError(),
    "allocator": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    "timeout": TimeoutError("deadline of 3 s passed"),
    "distill": DistillError("no boxes"),
    "spec": SpecError("bad step"),
    "detector": DetectorError("no such layer"),
    "bug": KeyError("surprise"),
    "odd": _Unpicklable(1, 2),
    "exit": SystemExit(3),
}
"""Name -> the exception that a job ``raise:NAME`` raises."""
CAUSES: dict[str, Cause] = {
    "non_finite": "non_finite",
    "cuda_memory": "out_of_memory",
    "cpu_memory": "out_of_memory",
    "allocator": "out_of_memory",
    "timeout": "timeout",
    "distill": "cannot_build",
    "spec": "cannot_build",
    "detector": "cannot_build",
    "bug": "error",
    "odd": "error",
    "exit": "error",
}
"""Name -> the cause with which such a job's outcome must end."""


class ScriptedEvaluator:
    """An evaluator that does what a job's id says; its metrics count the jobs that it has run.

    Args:
        resources: what the worker may use; the number of threads is a metric of every outcome.
    """

    def __init__(self, resources: WorkerResources) -> None:
        self._resources = resources
        self._num_jobs = 0

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        """Run one job.

        Args:
            job: a job whose id is a script, as the module's table says.

        Yields:
            Reports with the metrics "loss" and "num_jobs".

        Returns:
            A finished outcome with the metrics "loss" and "threads".
        """
        self._num_jobs += 1
        assert job.spec == SPEC, "a job arrives as it was sent"
        what, _, argument = job.id.split(" ")[0].partition(":")
        loss = 0.1 * job.seed + 1.0
        yield Report(job.id, 1, {"loss": loss, "num_jobs": self._num_jobs})
        if what == "raise":
            raise RAISED[argument]
        if what == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        if what == "none":
            return None  # type: ignore[return-value]
        if what == "pause":
            time.sleep(float(argument))
        if what == "hang":
            time.sleep(600)
        if what == "die":
            os._exit(7)
        if what == "die_once" and not Path(argument).exists():
            Path(argument).write_text("died")
            os._exit(7)
        last = int(argument) if what == "ok" else 10**6 if what == "endless" else 2
        for epoch in range(2, last + 1):
            yield Report(job.id, epoch, {"loss": loss / epoch, "num_jobs": self._num_jobs})
        return Outcome(job.id, "finished", {"loss": loss / last, "threads": self._resources.num_threads})


def scripted(resources: WorkerResources) -> Evaluator:
    """Return a ``ScriptedEvaluator``: the factory for ``Runtime.run``.

    Args:
        resources: what the worker may use.
    """
    return ScriptedEvaluator(resources)


def broken_factory(resources: WorkerResources) -> Evaluator:
    """Fail as a factory does if a worker lacks the teacher's weights.

    Args:
        resources: what the worker may use.

    Returns:
        Nothing: it always raises.

    Raises:
        DetectorError: always.
    """
    raise DetectorError("the teacher's checkpoint is gone")


class BuildCounter:
    """A factory that leaves a file for each evaluator that it builds, in any process.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, resources: WorkerResources) -> Evaluator:
        (self._folder / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        return ScriptedEvaluator(resources)


def _always_proxy(job_id: str) -> RecipeName:
    return "proxy"


class ListDriver:
    """A driver with a list of jobs; it keeps what it receives and asserts the order of reports and outcomes.

    Args:
        ids: ids of the jobs, in order.
        stop_after: id -> number of the report at which the job is stopped.
        barriers: places in the list; a job there is handed out once all earlier ones have ended.
        recipe_of: recipe of a job, by its id.

    Attributes:
        reports: id -> reports, as they arrived.
        outcomes: id -> outcome.
        num_waits: number of times that it returned ``WAIT``.
        started_after: id -> jobs that had ended when it was handed out.
    """

    def __init__(
        self,
        ids: list[str],
        *,
        stop_after: dict[str, int] | None = None,
        barriers: tuple[int, ...] = (),
        recipe_of: Callable[[str], RecipeName] = _always_proxy,
    ) -> None:
        self._jobs = [Job(job_id, SPEC, recipe_of(job_id), seed) for seed, job_id in enumerate(ids)]
        self._stop_after = stop_after or {}
        self._barriers = barriers
        self._next = 0
        self.reports: dict[str, list[Report]] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.num_waits = 0
        self.started_after: dict[str, set[str]] = {}

    def next_job(self) -> Job | Wait | None:
        """Return the next job of the list."""
        if self._next == len(self._jobs):
            return None
        if self._next in self._barriers and len(self.outcomes) < self._next:
            self.num_waits += 1
            return WAIT
        job = self._jobs[self._next]
        self._next += 1
        self.started_after[job.id] = set(self.outcomes)
        return job

    def on_report(self, report: Report) -> bool:
        """Keep a report.

        Args:
            report: a report of a job in work.

        Returns:
            False at the report at which ``stop_after`` stops the job.
        """
        assert report.job_id not in self.outcomes, "a report after the outcome"
        self.reports.setdefault(report.job_id, []).append(report)
        return report.epoch < self._stop_after.get(report.job_id, 10**9)

    def on_outcome(self, outcome: Outcome) -> None:
        """Keep an outcome.

        Args:
            outcome: how a job of the list ended.
        """
        assert outcome.job_id not in self.outcomes, "a second outcome"
        self.outcomes[outcome.job_id] = outcome
