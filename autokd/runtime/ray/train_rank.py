"""One rank of a full training that several processes share; Ray Train runs ``train_rank`` in each of its workers."""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ray import cloudpickle

from autokd.errors import AutoKDError
from autokd.jobs import Job, Outcome, WorkerResources, is_external
from autokd.runtime.containment import run_guarded, shortened
from autokd.runtime.ray.worker_process import FactoryFailure, WorkerSetup, pickled_error, prepare_process

TASK = "task"
# Texts in which gloo and NCCL complain that another rank is gone; they have no exception of their own.
_SIGNS_OF_A_LOST_PEER = ("gloo/transport", "DistBackendError", "NCCL", "Connection closed by peer")


@dataclass(frozen=True, slots=True)
class RankTask:
    """A job as every rank receives it.

    Attributes:
        worker: setup of the process.
        job: the job, the same for all ranks.
        timeout_s: hard limit in seconds after which a rank kills itself.
    """

    worker: WorkerSetup
    job: Job
    timeout_s: float | None


class RankFailed(Exception):
    """Ends a rank, and with it all others.

    Args:
        content: a failed outcome, or the failure of the factory.
        at_s: time of the failure, seconds since the epoch; the ranks may be on several machines.
    """

    def __init__(self, content: Outcome | FactoryFailure, at_s: float) -> None:
        super().__init__(content, at_s)  # pickling an exception calls its class with these
        self.content, self.at_s = content, at_s


def train_rank(config: Mapping[str, Any]) -> Outcome:
    """Run the job in the process group that Ray Train has made.

    Args:
        config: the ``RankTask`` under ``TASK``.

    Returns:
        This rank's outcome; that of the first rank is the job's.

    Raises:
        RankFailed: if this rank fails. A failed outcome is raised, not returned: the other ranks wait for this one in a
            collective operation, and only an exception makes Ray Train stop them.
    """
    task: RankTask = config[TASK]
    prepare_process(task.worker)
    if task.timeout_s is not None:
        faulthandler.dump_traceback_later(task.timeout_s, exit=True, file=sys.__stderr__ or 2)
    try:
        try:
            evaluator = cloudpickle.loads(task.worker.factory)(_with_own_gpu(task.worker.resources))
        except Exception as error:  # noqa: BLE001 - carried to the driver, which raises it
            raise RankFailed(FactoryFailure(pickled_error(error)), time.time()) from None
        training = run_guarded(evaluator, task.job)
        while True:
            try:
                next(training)  # the outcome has all reports; the driver gets them after the job
            except StopIteration as end:
                outcome: Outcome = end.value
                break
    finally:
        faulthandler.cancel_dump_traceback_later()
    if outcome.status == "failed":
        raise RankFailed(outcome, time.time())
    return outcome


def _with_own_gpu(resources: WorkerResources) -> WorkerResources:
    """Name this rank's own GPU: a worker may see all of its node's, and "cuda" would mean the first for every rank."""
    if resources.device == "cpu":
        return resources
    import torch
    from ray.train.torch import get_device

    torch.cuda.set_device(get_device())
    return replace(resources, device=str(get_device()))


def outcome_of_failures(failures: Mapping[int, BaseException], job: Job) -> Outcome:
    """Find the failure that caused the others: ranks that wait for a failed one fail too.

    A named cause comes first, then a rank whose process died, then the earliest bug.

    Args:
        failures: rank -> its exception.
        job: the job.

    Returns:
        The job's outcome, whose message begins with the rank.

    Raises:
        Exception: whatever the factory raised, if an evaluator could not be built.
    """
    reported = {rank: error for rank, error in failures.items() if isinstance(error, RankFailed)}
    for error in reported.values():
        if isinstance(error.content, FactoryFailure):
            raise cloudpickle.loads(error.content.pickled)
    ended = sorted((e.at_s, rank, e.content) for rank, e in reported.items() if isinstance(e.content, Outcome))
    for _, rank, outcome in ended:
        if outcome.cause is not None and not is_external(outcome.cause):
            return _with_rank(outcome, rank, job)
    lost = {rank: error for rank, error in failures.items() if rank not in reported}
    bugs = [(rank, outcome) for _, rank, outcome in ended if not _is_consequence(outcome)]
    if bugs and not lost:
        rank, outcome = bugs[0]
        return _with_rank(outcome, rank, job)
    names = ", ".join(str(rank) for rank in sorted(lost)) or "another"
    reason = "; ".join(str(error) for error in lost.values()) or (ended[0][2].message if ended else "")
    message = shortened(f"rank {names} was lost. {reason}")
    seconds = max((outcome.seconds for _, _, outcome in ended), default=0.0)
    return Outcome(job.id, "failed", cause="worker_lost", message=message, seconds=seconds)


def _is_consequence(outcome: Outcome) -> bool:
    """Whether a rank failed only because another one was gone."""
    return any(sign in outcome.message for sign in _SIGNS_OF_A_LOST_PEER)


def _with_rank(outcome: Outcome, rank: int, job: Job) -> Outcome:
    return replace(outcome, job_id=job.id, message=f"rank {rank}: {outcome.message}", artifacts={})


def require_outcome(value: object, job: Job) -> Outcome:
    """Return ``value`` if it is the first rank's outcome.

    Raises:
        AutoKDError: if this version of Ray does not return it.
    """
    if not isinstance(value, Outcome):
        raise AutoKDError(
            f"Ray Train returned {type(value).__name__} for {job.id}, not the first rank's outcome. Use Ray 2.60 or "
            "later, or set runtime.full_processes: 1."
        )
    return value
