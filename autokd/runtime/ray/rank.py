"""One rank of a full training that several processes share: what Ray Train runs in each of its workers."""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ray import cloudpickle

from autokd.errors import AutoKDError
from autokd.outcomes import Job, Outcome, WorkerResources, is_external
from autokd.runtime.containment import run_guarded, shortened
from autokd.runtime.ray.worker import Broken, WorkerSetup, pickled_error, prepare_process

TASK = "task"
_SIGNS_OF_A_LOST_PEER = ("gloo/transport", "DistBackendError", "NCCL", "Connection closed by peer")


@dataclass(frozen=True, slots=True)
class RankTask:
    """A job as every rank is given it. ``timeout_s``: the hard limit after which a rank ends itself."""

    worker: WorkerSetup
    job: Job
    timeout_s: float | None


class RankFailed(Exception):
    """Ends a rank, and with it all others. ``told``: a failed outcome, or a factory that could not build."""

    def __init__(self, told: Outcome | Broken, at_s: float) -> None:
        super().__init__(told, at_s)
        self.told, self.at_s = told, at_s


def train_rank(config: Mapping[str, Any]) -> Outcome:
    """Run the job within the process group that Ray Train has made; the first rank's outcome is the job's.

    RankFailed where this rank fails: the others wait for it in an exchange and would wait for long.
    """
    task: RankTask = config[TASK]
    prepare_process(task.worker)
    if task.timeout_s is not None:
        faulthandler.dump_traceback_later(task.timeout_s, exit=True, file=sys.__stderr__ or 2)
    try:
        try:
            evaluator = cloudpickle.loads(task.worker.factory)(_on_own_card(task.worker.resources))
        except Exception as error:  # noqa: BLE001 - carried to the driver, which raises it
            raise RankFailed(Broken(pickled_error(error)), time.time()) from None
        training = run_guarded(evaluator, task.job)
        while True:
            try:
                next(training)
            except StopIteration as end:
                outcome: Outcome = end.value
                break
    finally:
        faulthandler.cancel_dump_traceback_later()
    if outcome.status == "failed":
        raise RankFailed(outcome, time.time())
    return outcome


def _on_own_card(resources: WorkerResources) -> WorkerResources:
    """Workers of a node may see all of its cards; each has one of them."""
    if resources.device == "cpu":
        return resources
    import torch
    from ray.train.torch import get_device

    torch.cuda.set_device(get_device())
    return replace(resources, device=str(get_device()))


def failure_of(failures: Mapping[int, BaseException], job: Job) -> Outcome:
    """How a job ended whose ranks failed so; several do, since a rank that is left alone fails too.

    A named cause goes first, then a rank whose process died, then the earliest bug. AutoKDError, or whatever the
    factory raised, where no evaluator could be built.
    """
    told = {rank: error for rank, error in failures.items() if isinstance(error, RankFailed)}
    for error in told.values():
        if isinstance(error.told, Broken):
            raise cloudpickle.loads(error.told.pickled)
    ended = sorted((error.at_s, rank, error.told) for rank, error in told.items() if isinstance(error.told, Outcome))
    for _, rank, outcome in ended:
        if not is_external(outcome.cause):
            return _of_rank(outcome, rank, job)
    lost = {rank: error for rank, error in failures.items() if rank not in told}
    bugs = [(rank, outcome) for _, rank, outcome in ended if not _is_left_alone(outcome)]
    if bugs and not lost:
        rank, outcome = bugs[0]
        return _of_rank(outcome, rank, job)
    names = ", ".join(str(rank) for rank in sorted(lost)) or "another"
    reason = "; ".join(str(error) for error in lost.values()) or (ended[0][2].message if ended else "")
    message = shortened(f"rank {names} was lost. {reason}")
    seconds = max((outcome.seconds for _, _, outcome in ended), default=0.0)
    return Outcome(job.id, "failed", cause="worker_lost", message=message, seconds=seconds)


def _is_left_alone(outcome: Outcome) -> bool:
    """Whether a rank failed because another one no longer answered."""
    return any(sign in outcome.message for sign in _SIGNS_OF_A_LOST_PEER)


def _of_rank(outcome: Outcome, rank: int, job: Job) -> Outcome:
    return replace(outcome, job_id=job.id, message=f"rank {rank}: {outcome.message}", artifacts={})


def require_first(value: object, job: Job) -> Outcome:
    """The first rank's outcome; AutoKDError where this Ray does not hand it back."""
    if not isinstance(value, Outcome):
        raise AutoKDError(
            f"Ray Train gave {type(value).__name__} for {job.id}, not the first rank's outcome. Use Ray 2.60 or later, "
            "or set runtime.full_processes: 1."
        )
    return value
