"""One search on a table: the study loop of ``autokd search``, on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler

from autokd.benchmark.simulation.truth import Objective, Truth
from autokd.config import ProxyRecipe
from autokd.jobs import Job, Outcome, Report
from autokd.runtime import SimulatedRuntime, Wait
from autokd.study import SearchDriver, SearchPlan, SilentObserver

NUM_CALIBRATION_TRIALS = ProxyRecipe.model_fields["calibration_trials"].default


@dataclass
class Trace:
    """The trials of one search in the order in which they ended; N of them."""

    rows: list[int] = field(default_factory=list)
    """Positions of their specs in ``Truth.rows``."""
    seconds: list[float] = field(default_factory=list)
    """Virtual time of each trial's end, since the search began."""
    finished: list[bool] = field(default_factory=list)
    """False: pruned or failed."""
    busy_s: float = 0.0
    """Virtual seconds that all workers together trained."""

    def first(self, wanted: set[int]) -> int | None:
        """Return the number of trials that had ended with the first of the wanted rows; None if there was none."""
        return next((n for n, row in enumerate(self.rows, 1) if row in wanted), None)


class _TracingDriver:
    """A driver that writes a trace, and asks for no further job once ``is_enough`` is true."""

    def __init__(
        self, driver: SearchDriver, runtime: SimulatedRuntime, index: dict[str, int], is_enough: Callable[[Trace], bool]
    ) -> None:
        self._driver, self._runtime, self._index, self._is_enough = driver, runtime, index, is_enough
        self._row_of_job: dict[str, int] = {}
        self.trace = Trace()
        self._is_over = False

    def next_job(self) -> Job | Wait | None:
        job = None if self._is_over else self._driver.next_job()
        if isinstance(job, Job):
            assert job.spec is not None, "a trial has a distiller"
            self._row_of_job[job.id] = self._index[job.spec.digest]
        return job

    def on_report(self, report: Report) -> bool:
        return self._driver.on_report(report)

    def on_outcome(self, outcome: Outcome) -> None:
        self._driver.on_outcome(outcome)
        # Trials that other workers still run when the search is over end later; they are not part of the trace.
        if not self._is_over:
            self.trace.rows.append(self._row_of_job[outcome.job_id])
            self.trace.seconds.append(self._runtime.now_s)
            self.trace.finished.append(outcome.status == "finished")
            self._is_over = self._is_enough(self.trace)


def run_search(
    truth: Truth,
    sampler: BaseSampler,
    *,
    num_workers: int = 1,
    num_trials: int = 80,
    objective: Objective = "proxy",
    pruner: BasePruner | None = None,
    is_enough: Callable[[Trace], bool] = lambda trace: False,
) -> Trace:
    """Search the space of a table.

    Args:
        truth: the table, and the metrics that the reward adds.
        sampler: any sampler of Optuna.
        num_workers: trials that run at a time.
        num_trials: evaluated specs after which the search ends; a repeated spec is answered from the study and does
            not count.
        objective: "proxy" shows the search the proxy's reward, "full" the metric of the full training.
        pruner: pruner of Optuna; None prunes nothing.
        is_enough: true of the trace so far ends the search earlier.

    Returns:
        The trials in the order in which they ended.
    """
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner or NopPruner())
    factory, reward, num_epochs = truth.objective(objective)
    plan = SearchPlan(num_trials, NUM_CALIBRATION_TRIALS, num_epochs, 0)
    driver = SearchDriver(study, truth.space, reward, plan, SilentObserver())
    runtime = SimulatedRuntime(num_workers)
    with runtime:
        tracing = _TracingDriver(driver, runtime, truth.index, is_enough)
        runtime.run(tracing, factory)
        tracing.trace.busy_s = runtime.busy_s
    return tracing.trace
