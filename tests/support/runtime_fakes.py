"""Evaluators and drivers for the tests of runtimes. A job's id says what its evaluator does.

"ok:3": three reports, then finished. "raise:NAME", "pause:SECONDS", "die", "die_once:FILE" (FILE
remembers), "hang", "none" (returns no outcome), "endless". What follows a space only tells ids apart.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from pathlib import Path

from autokd.errors import DetectorError, DistillError, NonFiniteError, SpecError
from autokd.outcomes import Evaluator, Job, Outcome, Report, WorkerResources
from autokd.runtime import WAIT, Wait
from autokd.spec import DistillerSpec, Step, TermSpec, Weight

SPEC = DistillerSpec((TermSpec(Step("whole"), (), Step("l2"), Weight("relative", 40.0)),), name="fitnet")


class OutOfMemoryError(RuntimeError):
    """As torch.cuda.OutOfMemoryError: known by its name."""


class _Unpicklable(Exception):
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
CAUSES = {
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


class ScriptedEvaluator:
    def __init__(self, resources: WorkerResources) -> None:
        self._resources = resources
        self._num_jobs = 0

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        self._num_jobs += 1
        assert job.spec == SPEC, "a job arrives as it was sent"
        what, _, argument = job.id.split(" ")[0].partition(":")
        yield Report(job.id, 1, {"loss": 0.1 * job.seed + 1.0, "num_jobs": self._num_jobs})
        if what == "raise":
            raise RAISED[argument]
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
            yield Report(job.id, epoch, {"loss": (0.1 * job.seed + 1.0) / epoch, "num_jobs": self._num_jobs})
        threads = self._resources.num_threads
        return Outcome(job.id, "finished", {"loss": (0.1 * job.seed + 1.0) / last, "threads": threads})


def scripted(resources: WorkerResources) -> Evaluator:
    return ScriptedEvaluator(resources)


def broken_factory(resources: WorkerResources) -> Evaluator:
    raise DetectorError("the teacher's checkpoint is gone")


class BuildCounter:
    """A factory that leaves a file for each evaluator it builds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, resources: WorkerResources) -> Evaluator:
        (self._folder / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        return ScriptedEvaluator(resources)


class ListDriver:
    """Hands out jobs in order; after those in ``barriers`` it waits until all earlier ones have ended."""

    def __init__(self, ids: list[str], *, stop_after: dict[str, int] | None = None, barriers: tuple[int, ...] = ()):
        self._jobs = [Job(name, SPEC, "proxy", seed) for seed, name in enumerate(ids)]
        self._stop_after = stop_after or {}
        self._barriers = barriers
        self._next = 0
        self.reports: dict[str, list[Report]] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.num_waits = 0
        self.started_after: dict[str, set[str]] = {}

    def next_job(self) -> Job | Wait | None:
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
        assert report.job_id not in self.outcomes, "a report after the outcome"
        self.reports.setdefault(report.job_id, []).append(report)
        return report.epoch < self._stop_after.get(report.job_id, 10**9)

    def on_outcome(self, outcome: Outcome) -> None:
        assert outcome.job_id not in self.outcomes, "a second outcome"
        self.outcomes[outcome.job_id] = outcome


class ResourceReporter:
    """Both factory and evaluator: tells what its worker was given."""

    def __init__(self, resources: WorkerResources) -> None:
        self._resources = resources

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        yield Report(job.id, 1, {})
        metrics = {
            "threads": self._resources.num_threads,
            "omp_threads": int(os.environ.get("OMP_NUM_THREADS", 0)),
            "gpu_fraction": self._resources.gpu_fraction,
            "is_cuda": self._resources.device == "cuda",
        }
        return Outcome(job.id, "finished", metrics)
