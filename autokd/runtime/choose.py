"""Choice of the runtime by the configuration."""

from __future__ import annotations

from autokd.config import RuntimeConfig
from autokd.runtime.contract import Runtime
from autokd.runtime.local import InProcessRuntime
from autokd.runtime.resources import own_resources
from autokd.runtime.routed import RoutedRuntime


def make_runtime(config: RuntimeConfig) -> Runtime:
    """Return the runtime of a configuration's section "runtime".

    Jobs run in this process for ``workers: 0``, else on Ray Tune. With ``full_processes`` above 1, full trainings run
    on Ray Train, whatever ``workers`` is, and the other jobs as before. Ray starts when the context is entered, or at
    the first ``run``.

    Args:
        config: the section.

    Returns:
        A runtime that has not started yet; enter it as a context.

    Raises:
        RuntimeUnavailableError: if Ray is needed and cannot be imported.
    """
    proxies = _search_runtime(config)
    if config.full_processes == 1:
        return proxies
    # Imported here: a run in this process needs no Ray, and its import takes seconds.
    from autokd.runtime.ray.train import RayTrainRuntime

    full = RayTrainRuntime(
        config.full_processes,
        address=config.ray_address,
        threads_per_worker=config.threads_per_worker,
        gpus_per_worker=config.gpus_per_worker,
        max_worker_losses=config.max_worker_losses,
        num_cpus=config.workers,
    )
    return RoutedRuntime(proxies, full)


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
