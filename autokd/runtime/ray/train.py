"""Full trainings on several processes that share each batch: Ray Train's ``TorchTrainer``, one job at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

try:
    from ray.train.torch import TorchConfig
    from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
    from ray.train.v2.torch.torch_trainer import TorchTrainer
except ImportError as error:
    from autokd.errors import RuntimeUnavailableError

    raise RuntimeUnavailableError(
        f'Ray Train cannot be imported ({error}). Install it (pip install "ray[train,default]", 2.60 or later), or set '
        "runtime.full_processes: 1."
    ) from error

from autokd.errors import RuntimeUnavailableError
from autokd.jobs import EvaluatorFactory, Job, Outcome, WorkerResources
from autokd.runtime.containment import pruned, shortened
from autokd.runtime.contract import Driver, Runtime, Wait
from autokd.runtime.ray.session import RaySession, quiet_environment
from autokd.runtime.ray.train_rank import TASK, RankTask, outcome_of_failures, require_outcome, train_rank
from autokd.runtime.ray.worker_process import WorkerSetup
from autokd.temporary import own_folder

_ASK_AGAIN_S = 1.0
"""Seconds between two questions to a driver that waits."""
_NO_RETRIES = FailureConfig(max_failures=0, controller_failure_limit=0)
"""This module runs the jobs of lost ranks again. Ray Train counts a rank that dies at once as the controller's failure
and would retry for ever."""


class _Trainer(TorchTrainer):
    """A trainer that leaves Ctrl-C to Python.

    Ray Train's handler would exit the process, before the study has stored its interruption.
    """

    def _register_sigint_handler(self, controller: Any) -> None:
        """Do nothing: KeyboardInterrupt comes out of ``fit``, and leaving Ray ends the ranks."""


class RayTrainRuntime(Runtime):
    """A runtime of one job at a time, which all ranks train together.

    Each rank's evaluator finds torch's process group and takes its part of the batches (``autokd.training``). A rank
    that fails ends the others. The driver receives a job's reports when the job has ended: ranks do not report to it.

    Args:
        processes: number of ranks.
        address: host:port of a Ray cluster, or "auto"; None starts a Ray on this machine.
        threads_per_worker: threads of a rank; 0: an equal part of the cores.
        gpus_per_worker: GPUs of a rank; "auto": an equal part of the GPUs.
        max_worker_losses: number of times that a job is run again after a rank died.
        num_cpus: CPUs of a Ray that is started here; ``processes`` if that is more.
    """

    num_workers = 1

    def __init__(
        self,
        processes: int,
        *,
        address: str | None = None,
        threads_per_worker: int = 0,
        gpus_per_worker: float | Literal["auto"] = "auto",
        max_worker_losses: int = 1,
        num_cpus: int = 1,
    ) -> None:
        self._processes = processes
        self._threads_per_worker = threads_per_worker
        self._gpus_per_worker = gpus_per_worker
        self._max_worker_losses = max_worker_losses
        self._session = RaySession(address, num_cpus=max(processes, num_cpus))
        self._was_preempted = False

    def __enter__(self) -> RayTrainRuntime:
        self._session.open()
        return self

    def close(self) -> None:
        """Leave Ray, and stop it if it was started here."""
        self._session.close()

    def run(
        self,
        driver: Driver,
        factory: EvaluatorFactory,
        *,
        job_timeouts_s: Mapping[str, float | None] | None = None,
    ) -> None:
        self._session.open()
        try:
            while (job := driver.next_job()) is not None:
                if isinstance(job, Wait):
                    time.sleep(_ASK_AGAIN_S)
                    continue
                _hand_over(driver, job, self._outcome(job, factory, (job_timeouts_s or {}).get(job.recipe)))
        except BaseException:
            self._session.close()  # kills ranks in the middle of a training; the next ``run`` opens a new session
            raise

    def _outcome(self, job: Job, factory: EvaluatorFactory, timeout_s: float | None) -> Outcome:
        """Run a job, and again if ranks were lost; those of preempted nodes do not count."""
        resources = self._session.divide(self._processes, self._threads_per_worker, self._gpus_per_worker)
        task = RankTask(WorkerSetup.of_this_process(factory, resources), job, timeout_s)
        losses = 0
        while losses <= self._max_worker_losses:
            began_s = time.monotonic()
            self._was_preempted = False
            outcome = self._fit(task)
            if outcome.cause != "worker_lost":
                return outcome
            if self._was_preempted:
                continue
            losses += 1
            # A rank that reached its hard limit has killed itself; only the time tells it from one that died.
            seconds = time.monotonic() - began_s
            if timeout_s is not None and seconds >= timeout_s:
                message = f"a rank did not answer within {timeout_s:g} s and was killed."
                return replace(outcome, cause="timeout", message=message, seconds=seconds)
            outcome = replace(outcome, message=shortened(f"ranks died {losses} times. {outcome.message}"))
        return outcome

    def _fit(self, task: RankTask) -> Outcome:
        try:
            # Ray Train keeps checkpoints and results there; the study stores what a job returns.
            with quiet_environment(), own_folder() as files:
                each_rank: Any = train_rank  # Ray Train returns the first rank's value, but its types say None
                trainer = _Trainer(
                    each_rank,
                    train_loop_config={TASK: task},
                    scaling_config=self._scaling(task.worker.resources),
                    torch_config=TorchConfig(backend=_backend(task.worker.resources)),
                    run_config=RunConfig(name="job", storage_path=str(files), failure_config=_NO_RETRIES),
                )
                result: Any = trainer.fit()
        except WorkerGroupError as error:
            self._was_preempted = any(getattr(each, "preempted", False) for each in error.worker_failures.values())
            return outcome_of_failures(error.worker_failures, task.job)
        except TrainingFailedError as error:
            return Outcome(task.job.id, "failed", cause="worker_lost", message=shortened(str(error)))
        return require_outcome(getattr(result, "return_value", None), task.job)

    def _scaling(self, resources: WorkerResources) -> ScalingConfig:
        each: dict[str, float] = {"CPU": self._session.cpus_of(resources)}
        if resources.gpu_fraction > 0:
            each["GPU"] = resources.gpu_fraction
        for name, amount in each.items():
            there = self._session.total(name)
            if amount * self._processes > there:
                raise RuntimeUnavailableError(
                    f"runtime.full_processes is {self._processes}, each with {amount:g} {name}, but Ray has {there:g} "
                    f"{name}. Lower it, or threads_per_worker or gpus_per_worker, or join a larger cluster."
                )
        return ScalingConfig(num_workers=self._processes, use_gpu=resources.gpu_fraction > 0, resources_per_worker=each)


def _backend(resources: WorkerResources) -> str:
    """Return the backend of torch.distributed: NCCL refuses two ranks on one GPU."""
    return "nccl" if resources.gpu_fraction >= 1 else "gloo"


def _hand_over(driver: Driver, job: Job, outcome: Outcome) -> None:
    """Give the driver a job's reports and its outcome; a job that it stops at a report ends there as pruned."""
    for number, report in enumerate(outcome.reports, start=1):
        if not driver.on_report(report):
            driver.on_outcome(pruned(job, list(outcome.reports[:number]), outcome.worker))
            return
    driver.on_outcome(outcome)
