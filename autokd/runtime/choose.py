"""The runtime that a configuration asks for."""

from __future__ import annotations

from autokd.config import RuntimeConfig
from autokd.runtime.contract import Runtime
from autokd.runtime.local import InProcessRuntime
from autokd.runtime.resources import own_resources
from autokd.runtime.routed import RoutedRuntime


def make_runtime(config: RuntimeConfig) -> Runtime:
    """In process for ``workers: 0``, else on Ray; RuntimeUnavailableError if Ray cannot serve.

    With ``full_processes`` above 1, full trainings go to Ray Train, whatever ``workers`` says of the other jobs.
    Ray starts when the context is entered, or at the first ``run``.
    """
    searching = _search_runtime(config)
    if config.full_processes == 1:
        return searching
    from autokd.runtime.ray.train import RayTrainRuntime

    training = RayTrainRuntime(
        config.full_processes,
        address=config.ray_address,
        threads_per_worker=config.threads_per_worker,
        gpus_per_worker=config.gpus_per_worker,
        max_worker_losses=config.max_worker_losses,
        num_cpus=config.workers,
    )
    return RoutedRuntime(searching, training)


def _search_runtime(config: RuntimeConfig) -> Runtime:
    if config.workers == 0:
        return InProcessRuntime(own_resources(config.threads_per_worker, config.gpus_per_worker))
    from autokd.runtime.ray.tune import RayTuneRuntime

    return RayTuneRuntime(
        config.workers,
        address=config.ray_address,
        threads_per_worker=config.threads_per_worker,
        gpus_per_worker=config.gpus_per_worker,
        max_worker_losses=config.max_worker_losses,
    )
