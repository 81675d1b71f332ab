"""Jobs, reports and outcomes: what a study and its workers send each other.

Plain values, torch-free and picklable. The study makes jobs, a runtime carries them to a worker, and the worker's
evaluator yields reports (one an epoch) and returns one outcome. A failed job is an outcome with a named cause.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, cast

from autokd.spec import DistillerSpec

Status = Literal["finished", "pruned", "failed"]
Cause = Literal["non_finite", "out_of_memory", "timeout", "worker_lost", "cannot_build", "interrupted", "error"]
RecipeName = Literal["proxy", "full"]
RECIPES: tuple[RecipeName, ...] = ("proxy", "full")

NO_DISTILLATION = "none"
"""Name of the baseline that every run has: training without distillation."""
SEARCHED = "searched"
"""Name of the distiller that a search found, among the entries of the results."""


@dataclass(frozen=True, slots=True)
class CauseMeaning:
    """The meaning of a cause of failure.

    Attributes:
        is_external: the failure came from outside of the distiller (the worker, the user, a bug of AutoKD): it says
            nothing about the distiller, so the sampler forgets the trial and a finalist stays in the race.
        recurs: the same job would fail in the same way on any machine at any time: a duplicate is answered with this
            failure, and a recorded one is a result. The others may end well if they are run again.
    """

    is_external: bool
    recurs: bool


CAUSES: Mapping[Cause, CauseMeaning] = {
    # A loss or a tap held NaN or infinity; the message names it.
    "non_finite": CauseMeaning(is_external=False, recurs=True),
    # The distiller needed more memory than the worker had. A larger worker may do.
    "out_of_memory": CauseMeaning(is_external=False, recurs=False),
    # The job took longer than its recipe's ``timeout_s``. A faster worker may do.
    "timeout": CauseMeaning(is_external=False, recurs=False),
    # The worker's process died, more often than ``runtime.max_worker_losses`` allows.
    "worker_lost": CauseMeaning(is_external=True, recurs=False),
    # The distiller does not fit the pair of detectors.
    "cannot_build": CauseMeaning(is_external=False, recurs=True),
    # The run was ended before the job: it was not evaluated, and a resumed run tries it again.
    "interrupted": CauseMeaning(is_external=True, recurs=False),
    # Any other exception: a bug. The message holds the traceback.
    "error": CauseMeaning(is_external=True, recurs=False),
}

RECURRING_CAUSES: frozenset[Cause] = frozenset(cause for cause, meaning in CAUSES.items() if meaning.recurs)


def is_external(cause: Cause | None) -> bool:
    """Return whether a failure says nothing about the distiller.

    Args:
        cause: the cause of a failed job; None, which is no failure, is not external.
    """
    return cause is not None and CAUSES[cause].is_external


TRAINING_VERSION = 1
"""Version of the training, raised if the same job would end with other weights or numbers: cached weights and recorded
outcomes of older versions are then not used."""


def job_digest(spec: DistillerSpec | None, promoted: str = "") -> str:
    """Return the digest of what a student learns from.

    Args:
        spec: the distiller; None: no distillation.
        promoted: digest of the promoted student that teaches beside the teachers; empty: none does.

    Returns:
        The spec's digest, followed by "+" and ``promoted`` if there is one; empty for no distillation.
    """
    if spec is None:
        return ""
    return f"{spec.digest}+{promoted}" if promoted else spec.digest


@dataclass(frozen=True, slots=True)
class Job:
    """One training to do.

    Attributes:
        id: unique in its run.
        spec: the distiller; None: no distillation.
        recipe: name of the recipe, and so of the kind of training.
        seed: everything random in the training depends on it.
        promoted: digest of an earlier trial's student that teaches beside the teachers; empty: none does.
        stop_after: epoch after which a full training is cut off, to be judged; a later job of the same distiller and
            seed goes on from there. None: it runs to its end.
    """

    id: str
    spec: DistillerSpec | None
    recipe: RecipeName
    seed: int = 0
    promoted: str = ""
    stop_after: int | None = None

    @property
    def digest(self) -> str:
        """Digest of what the student learns from."""
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


def make_rung_job(spec: DistillerSpec | None, seed: int, stop_after: int) -> Job:
    """Return the job of a full training that is cut off.

    Args:
        spec: distiller; None trains without distillation.
        seed: training seed.
        stop_after: epoch after which it is cut off.
    """
    name = job_digest(spec) or NO_DISTILLATION
    return Job(f"rung-{name}-s{seed}-e{stop_after}", spec, "full", seed, stop_after=stop_after)


@dataclass(frozen=True, slots=True)
class Report:
    """Metrics of a job after an epoch.

    Attributes:
        job_id: ``Job.id``.
        epoch: the epoch that has ended, from 1.
        metrics: name of a metric (``autokd.metrics``) -> number.
        seconds: time from the job's begin to this report; 0: the runtime replaces it by its own measurement.
    """

    job_id: str
    epoch: int
    metrics: Mapping[str, float]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a job.

    Attributes:
        job_id: ``Job.id``.
        status: "finished", "pruned" or "failed".
        metrics: those of the last report and, of a full training, those of the final evaluation (``val_ap``, ...).
        cause: why a failed job failed; None for any other.
        message: the error of a failed job.
        reports: all reports of the job.
        seconds: time from the job's begin to its end.
        artifacts: path of each file that the worker wrote, relative to the run directory, by name ("weights",
            "distiller", "detections_test", ...); absolute in outcomes of older versions.
        run_dir: the run directory when the worker wrote them; ``file`` finds them after a move too.
        worker: host and process that ran the job.
        inactive_terms: names of the distiller's relative terms of which no gradient could be measured in the whole
            training; their weight was 0.
        is_inactive: whether these are all terms of the distiller: the training was one without distillation.
    """

    job_id: str
    status: Status
    metrics: Mapping[str, float] = field(default_factory=dict)
    cause: Cause | None = None
    message: str = ""
    reports: tuple[Report, ...] = ()
    seconds: float = 0.0
    artifacts: Mapping[str, str] = field(default_factory=dict)
    run_dir: str = ""
    worker: str = ""
    inactive_terms: tuple[str, ...] = ()
    is_inactive: bool = False

    def __post_init__(self) -> None:
        assert (self.status == "failed") == (self.cause is not None), "a cause goes with failure alone"

    def file(self, name: str, run_dir: Path | None = None) -> Path | None:
        """Return a file that the worker wrote.

        Args:
            name: its name among ``artifacts``.
            run_dir: the run directory as it is called now; None: as it was called then.

        Returns:
            Its path there, or in the directory of then (another driver of the study has one of its own); None: the
            worker wrote none, or it is gone.
        """
        if name not in self.artifacts:
            return None
        folders = [Path(folder) for folder in (run_dir, self.run_dir) if folder]
        return next((path for folder in folders if (path := folder / self.artifacts[name]).is_file()), None)

    def has_files(self, run_dir: Path) -> bool:
        """Return whether every file that the worker wrote is still there.

        Args:
            run_dir: the run directory as it is called now.
        """
        return all(self.file(name, run_dir) is not None for name in self.artifacts)


def inactive_words(outcome: Outcome) -> str:
    """Return the sentence on an outcome's inactive terms; empty if all were active.

    Args:
        outcome: outcome of a finished job.
    """
    if not outcome.inactive_terms:
        return ""
    listed = ", ".join(outcome.inactive_terms)
    if outcome.is_inactive:
        return (
            f"term inactive: {listed}; every term of the distiller is, so this is a training without distillation. No "
            "gradient of it could be measured on these data: choose other terms, or images with more to compare."
        )
    return f"term inactive: {listed}; no gradient could be measured on these data, so the weight was 0."


class JobFailed(Exception):
    """Raised ``from`` the exception that ended a job, with what the job had measured and written by then."""

    def __init__(self, metrics: Mapping[str, float], artifacts: Mapping[str, str]) -> None:
        super().__init__("the job failed; __cause__ says why")
        self.metrics, self.artifacts = metrics, artifacts


class JobPreempted(KeyboardInterrupt):
    """Raised by a job whose process was asked to end (SIGTERM): it is no failure, and goes on when it is run again.

    It passes the guards of jobs, and ends a run in the driver's process, as Ctrl-C does.
    """


class JobStopped(BaseException):
    """Thrown into a job's generator in place of closing it, if the driver stops the job for good (a pruned trial).

    An evaluator may tidy up what would have let the job go on; one that does not catch it is closed.
    """


class Evaluator(Protocol):
    """Runs jobs in a worker process, one at a time; made once a worker and reused for every job."""

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        """Run a job.

        Closing the generator stops the job; throwing ``JobStopped`` stops it for good. The runtime (``run_guarded``)
        alone turns exceptions into failed outcomes with a named cause.

        Args:
            job: the training to do.

        Yields:
            A report after each epoch.

        Returns:
            The outcome of a job that ends well.

        Raises:
            JobFailed: if the job fails; its ``__cause__`` is the exception that ended the job. An evaluator that has
                no metrics or files to report may raise that exception itself.
        """
        ...


@dataclass(frozen=True, slots=True)
class WorkerResources:
    """Resources of one worker.

    Attributes:
        num_threads: torch's threads; 0 leaves torch's default.
        device: "cpu" or "cuda".
        gpu_fraction: part of a card, from 0 to 1.
    """

    num_threads: int = 1
    device: str = "cpu"
    gpu_fraction: float = 0.0


class EvaluatorFactory(Protocol):
    """Makes an evaluator; picklable, and called once in each worker process."""

    def __call__(self, resources: WorkerResources) -> Evaluator: ...
