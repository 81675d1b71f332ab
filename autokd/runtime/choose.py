"""The runtime that a configuration asks for."""

from __future__ import annotations

from autokd.config import RuntimeConfig
from autokd.runtime.contract import Runtime
from autokd.runtime.in_process import InProcessRuntime
from autokd.runtime.resources import own_resources


def make_runtime(config: RuntimeConfig) -> Runtime:
    """In process for ``workers: 0``, else on Ray; RuntimeUnavailableError if Ray cannot serve.

    Ray starts when the context is entered, or at the first ``run``.
    """
    if config.workers == 0:
        return InProcessRuntime(own_resources(config.threads_per_worker, config.gpus_per_worker))
    from autokd.runtime.ray_tune import RayTuneRuntime

    return RayTuneRuntime(
        config.workers,
        address=config.ray_address,
        threads_per_worker=config.threads_per_worker,
        gpus_per_worker=config.gpus_per_worker,
        max_worker_losses=config.max_worker_losses,
    )
