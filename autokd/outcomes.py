"""What passes between the one who decides and the one who executes: jobs, reports, outcomes.

Plain values, torch-free and picklable: the study makes jobs, a runtime carries them to a worker, training
answers with reports (one an epoch) and one outcome. A failed trial is an outcome with a named cause.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, cast

from autokd.spec import DistillerSpec

Status = Literal["finished", "pruned", "failed"]
Cause = Literal["non_finite", "out_of_memory", "timeout", "worker_lost", "cannot_build", "interrupted", "error"]
RecipeName = Literal["proxy", "full"]

NO_DISTILLATION = "none"
"""Name of the baseline that every run has: training without distillation."""
SEARCHED = "searched"
"""Name of the distiller that a search found, among the entries of the results."""

TRAINING_VERSION = 1
"""Raised when the same job would train other weights, or end with other numbers: older cached weights and recorded
outcomes are then not taken."""


def job_digest(spec: DistillerSpec | None, promoted: str = "") -> str:
    """The spec's digest; "+" and a promoted student's digest behind it, where one teaches; empty: no distillation."""
    if spec is None:
        return ""
    return f"{spec.digest}+{promoted}" if promoted else spec.digest


@dataclass(frozen=True, slots=True)
class Job:
    """One training to be done: a distiller (None: no distillation), a recipe's name and a seed."""

    id: str
    spec: DistillerSpec | None
    recipe: RecipeName
    seed: int = 0
    promoted: str = ""
    """Digest of an earlier trial's student that teaches beside the teachers; empty: none does."""

    @property
    def digest(self) -> str:
        """Identifies what the student learns from."""
        return job_digest(self.spec, self.promoted)


@dataclass(frozen=True, slots=True)
class JobId:
    """Identity of a job by what it trains; ``str()`` gives the job's id, for example "full-none-s0".

    Equal trainings have equal ids, so a stored outcome answers for every later job of the same id. Trials of a search
    are named by their number instead, because a search may evaluate one digest in several trials.

    Args:
        recipe: "proxy" or "full".
        digest: ``Job.digest``, or another name of the distiller; empty is read as NO_DISTILLATION.
        seed: training seed.
    """

    recipe: RecipeName
    digest: str
    seed: int

    def __post_init__(self) -> None:
        if not self.digest:  # one spelling only: ids of equal trainings must compare equal
            object.__setattr__(self, "digest", NO_DISTILLATION)

    def __str__(self) -> str:
        return f"{self.recipe}-{self.digest}-s{self.seed}"

    @classmethod
    def parse(cls, text: str) -> JobId:
        """Return the identity that ``text`` was made from.

        Args:
            text: result of ``str()``. The digest may hold dashes itself.

        Raises:
            ValueError: if ``text`` names something else, for example a trial.
        """
        found = _JOB_ID.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not a job's id of the form RECIPE-DIGEST-sSEED.")
        return cls(cast(RecipeName, found["recipe"]), found["digest"], int(found["seed"]))


_JOB_ID = re.compile(r"(?P<recipe>proxy|full)-(?P<digest>.+)-s(?P<seed>\d+)")


def make_job(spec: DistillerSpec | None, recipe: RecipeName, seed: int = 0, promoted: str = "") -> Job:
    """Return the job of a training, with its ``JobId`` as id.

    Args:
        spec: distiller; None trains without distillation.
        recipe: "proxy" or "full".
        seed: training seed.
        promoted: digest of an earlier trial's student that teaches beside the teachers; empty: none does.
    """
    return Job(str(JobId(recipe, job_digest(spec, promoted), seed)), spec, recipe, seed, promoted)


@dataclass(frozen=True, slots=True)
class Report:
    """Metrics after ``epoch`` (1-based) of a job; ``seconds`` since the job began."""

    job_id: str
    epoch: int
    metrics: Mapping[str, float]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended.

    ``metrics`` are those of the last epoch and, for a full training, of the final evaluation
    (``val_ap``, ``test_ap``, ...). ``artifacts`` maps a name (``weights``, ``distiller``, ``detections_test``)
    to a file that the worker wrote. ``worker`` tells processes apart.
    """

    job_id: str
    status: Status
    metrics: Mapping[str, float] = field(default_factory=dict)
    cause: Cause | None = None
    message: str = ""
    reports: tuple[Report, ...] = ()
    seconds: float = 0.0
    artifacts: Mapping[str, str] = field(default_factory=dict)
    worker: str = ""

    def __post_init__(self) -> None:
        assert (self.status == "failed") == (self.cause is not None), "a cause goes with failure alone"


class Evaluator(Protocol):
    """Runs jobs in a worker process, one at a time; made once a worker and reused for every job.

    ``evaluate`` yields a report after each epoch and returns the outcome. Closing the generator stops the
    training (a pruned trial). Expected failures (non-finite, out of memory, time-out, a spec that cannot be
    built) come back as failed outcomes; an exception that escapes is a bug, and the runtime records it as
    ``cause="error"`` with its traceback.
    """

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]: ...


@dataclass(frozen=True, slots=True)
class WorkerResources:
    """What one worker may use. ``num_threads`` 0 leaves torch's default; ``device`` is "cpu" or "cuda"."""

    num_threads: int = 1
    device: str = "cpu"
    gpu_fraction: float = 0.0


class EvaluatorFactory(Protocol):
    """Picklable; called once in each worker process."""

    def __call__(self, resources: WorkerResources) -> Evaluator: ...
