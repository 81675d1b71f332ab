"""One search on a table: the project's own study loop, on a virtual clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, TPESampler
from regularised_evolution import RegularisedEvolutionSampler

from autokd.benchmark import BenchmarkEvaluatorFactory, DistillerBenchmark
from autokd.config import ProxyRecipe, SearchConfig
from autokd.errors import BenchmarkError
from autokd.outcomes import EvaluatorFactory, Job, Outcome, Report, WorkerResources
from autokd.runtime import SimulatedRuntime
from autokd.search import make_sampler
from autokd.search.samplers import decision_role
from autokd.space import Space, enumerate_specs
from autokd.study import Reward, SearchDriver, SearchPlan, SilentObserver

Objective = Literal["proxy", "full"]
PANEL_SIZE = ProxyRecipe.model_fields["calibration_trials"].default


def _named(name: str, **settings: str) -> Callable[[int, Space], BaseSampler]:
    def build(seed: int, space: Space) -> BaseSampler:
        return make_sampler(SearchConfig.model_validate({"sampler": name, "seed": seed, **settings}), space)

    return build


SAMPLERS: dict[str, Callable[[int, Space], BaseSampler]] = {
    "mcts": _named("mcts", prior="none"),
    "mcts_prior": _named("mcts"),
    **{name: _named(name) for name in ("random", "nsga2", "gp")},
    # As Optuna's users have it: what it remembers of the search space saves a fifth of the time.
    "tpe": lambda seed, _: TPESampler(multivariate=True, group=True, seed=seed),
    "tpe_univariate": lambda seed, _: TPESampler(seed=seed),
    "evolution": lambda seed, _: RegularisedEvolutionSampler(seed, role=decision_role),
}
"""Those that a space file can name, with the same settings (MCTS without and with its prior of published distillers),
Optuna's default (TPE, every decision by itself) and regularised evolution. Seed and space -> sampler."""


@dataclass(frozen=True)
class FullAsProxy:
    """Answers a search's jobs by the full training: what the search would be with a perfect proxy."""

    benchmark: DistillerBenchmark
    metric: str = "val_ap"

    def __call__(self, resources: WorkerResources) -> FullAsProxy:
        return self

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        recorded = self.benchmark.lookup(job.spec).outcome("full", job.seed)
        if recorded.status != "finished":
            return recorded
        metrics = {"ap": recorded.metrics[self.metric]}
        report = Report(job.id, 1, metrics, recorded.seconds)
        yield report
        return Outcome(job.id, "finished", metrics, reports=(report,), seconds=recorded.seconds)


def cut_after(benchmark: DistillerBenchmark, epochs: int | None) -> DistillerBenchmark:
    """The table as if its proxy had ended after ``epochs`` (None: as it is); BenchmarkError where it has fewer."""
    if epochs is None:
        return benchmark

    def cut(outcome: Outcome) -> Outcome:
        if outcome.status != "finished":
            return outcome
        if len(outcome.reports) < epochs:
            raise BenchmarkError(f"{benchmark.source}: its proxies have {len(outcome.reports)} epochs, not {epochs}.")
        last = outcome.reports[epochs - 1]
        return replace(outcome, reports=outcome.reports[:epochs], metrics=last.metrics, seconds=last.seconds)

    rows = [
        replace(row, proxy={seed: cut(outcome) for seed, outcome in row.proxy.items()})
        for row in [benchmark.none, *benchmark]
    ]
    return DistillerBenchmark(benchmark.header, rows, benchmark.source)


class Truth:
    """What the table says of every spec: its score by full training, and its reward by the proxy.

    ``score`` is the mean gain in ``metric`` over "none", seed by seed; a spec whose full training failed has the
    lowest. ``reward`` is standardised over all specs, so that it means the same in every search. ``only`` keeps a
    part of the space, for settings that are tuned on one half of a table and judged on the other: slot -> labels.
    """

    def __init__(
        self,
        benchmark: DistillerBenchmark,
        parts: Sequence[str],
        metric: str = "val_ap",
        top: float = 0.01,
        only: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        for recipe in ("proxy", "full"):
            benchmark.require(recipe)
        self.benchmark = benchmark
        self.space = part_of(benchmark.header.read_space(), only or {})
        self.parts, self.metric = tuple(parts), metric
        none = benchmark.none.outcome("proxy", 0)
        if lacking := [part for part in parts if part not in none.metrics]:
            raise BenchmarkError(f"{benchmark.source}: no {', '.join(lacking)} was recorded of the proxy trainings.")
        self.num_epochs = len(none.reports)
        self.reference = Reward(self.parts, benchmark.none.curve(0))
        kept = {spec.digest for spec in enumerate_specs(self.space)}
        self.rows = rows = [row for row in benchmark if row.digest in kept]
        self.index = {row.digest: i for i, row in enumerate(rows)}
        self.score = self._filled([row.gain(benchmark.none, metric) for row in rows])
        proxies = [row.outcome("proxy", 0) for row in rows]
        gains = [self.reference.gains(p.metrics, self.num_epochs) if p.status == "finished" else None for p in proxies]
        reward = self.reference.calibrated(gain for gain in gains if gain is not None)
        ended = [p.metrics if p.status == "finished" else None for p in proxies]
        self.reward = self._filled([math.nan if m is None else reward.value(m, self.num_epochs) for m in ended])
        self.num_top = max(1, math.ceil(top * len(rows)))
        self.top_score, self.top_reward = (
            set(np.argsort(-values, kind="stable")[: self.num_top].tolist()) for values in (self.score, self.reward)
        )

    @staticmethod
    def _filled(values: Sequence[float]) -> np.ndarray:
        array = np.array(values, dtype=float)
        array[np.isnan(array)] = np.nanmin(array)
        return array

    def objective(self, kind: Objective) -> tuple[EvaluatorFactory, Reward, int]:
        """What a search sees: its evaluators, its reward, epochs of a trial."""
        if kind == "proxy":
            return BenchmarkEvaluatorFactory(self.benchmark), self.reference, self.num_epochs
        none = self.benchmark.none.outcome("full", 0)
        return FullAsProxy(self.benchmark, self.metric), Reward(("ap",), {1: {"ap": none.metrics[self.metric]}}), 1


def part_of(space: Space, only: Mapping[str, Sequence[str]]) -> Space:
    """The space with the options of some slots restricted to ``only``; BenchmarkError for a slot or option it lacks."""
    for name, labels in only.items():
        known = {slot.name: {option.label for option in slot.options} for slot in space.slots}
        if name not in known or not set(labels) <= known[name]:
            raise BenchmarkError(f"only {name}={','.join(labels)}: the space has {known.get(name) or sorted(known)}.")
    slots = tuple(
        replace(slot, options=tuple(o for o in slot.options if slot.name not in only or o.label in only[slot.name]))
        for slot in space.slots
    )
    return replace(space, slots=slots)


@dataclass
class Trace:
    """Trials of one search in the order in which they ended: indices of the table's rows, virtual seconds."""

    rows: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    finished: list[bool] = field(default_factory=list)
    """False: pruned, or failed."""
    busy_s: float = 0.0

    def first(self, wanted: set[int]) -> int | None:
        """How many trials had ended with the first of ``wanted``; None if there was none."""
        return next((n for n, row in enumerate(self.rows, 1) if row in wanted), None)


class _Watched:
    """A driver that writes a trace, and asks for no more when ``is_enough``."""

    def __init__(
        self, driver: SearchDriver, runtime: SimulatedRuntime, index: dict[str, int], is_enough: Callable[[Trace], bool]
    ) -> None:
        self._driver, self._runtime, self._index, self._is_enough = driver, runtime, index, is_enough
        self._row: dict[str, int] = {}
        self.trace = Trace()
        self._is_over = False

    def next_job(self) -> Job | None:
        job = None if self._is_over else self._driver.next_job()
        if job is not None:
            assert job.spec is not None, "trials have a distiller"
            self._row[job.id] = self._index[job.spec.digest]
        return job

    def on_report(self, report: Report) -> bool:
        return self._driver.on_report(report)

    def on_outcome(self, outcome: Outcome) -> None:
        self._driver.on_outcome(outcome)
        if not self._is_over:
            self.trace.rows.append(self._row[outcome.job_id])
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
    """Search the table's space until ``num_trials`` are evaluated, or earlier if ``is_enough`` says so."""
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner or NopPruner())
    factory, reward, num_epochs = truth.objective(objective)
    plan = SearchPlan(num_trials, PANEL_SIZE, num_epochs, 0)
    driver = SearchDriver(study, truth.space, reward, plan, SilentObserver())
    with SimulatedRuntime(num_workers) as runtime:
        watched = _Watched(driver, runtime, truth.index, is_enough)
        runtime.run(watched, factory)
        watched.trace.busy_s = runtime.busy_s
    return watched.trace
