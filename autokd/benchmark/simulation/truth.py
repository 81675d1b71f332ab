"""The recorded worth of every distiller of a table, against which simulated searches are judged."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from autokd.benchmark.replay import BenchmarkEvaluatorFactory
from autokd.benchmark.table import DistillerBenchmark
from autokd.errors import BenchmarkError
from autokd.jobs import EvaluatorFactory, Job, Outcome, Report, WorkerResources
from autokd.space import PartSpace, Space, enumerate_specs
from autokd.study import Reward

Objective = Literal["proxy", "full"]


class Truth:
    """Score by full training and reward by the proxy of every spec of a table.

    Attributes:
        rows: rows of the part of the space that is searched; S of them.
        index: position in ``rows`` of each spec's digest.
        score: array (S,), mean gain in ``metric`` over "none", seed by seed. A spec whose full training failed has the
            lowest of all.
        reward: array (S,), reward of the proxy training with seed 0. Its parts are standardized over all specs, so
            that a reward means the same in every search.
        num_top: number of specs that count as the best.
        top_score, top_reward: positions of the best specs by score and by reward.
        num_epochs: epochs of a proxy training.
    """

    def __init__(
        self,
        benchmark: DistillerBenchmark,
        parts: Sequence[str],
        metric: str = "val_ap",
        top: float = 0.01,
        only: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Read scores and rewards from a table.

        Args:
            benchmark: a table in which every spec and "none" have a proxy and a full training with seed 0.
            parts: metrics that the reward adds.
            metric: metric of the full training that gives the score.
            top: share of the specs that count as the best, at least one spec.
            only: slot -> options of the part of the space that is searched; left out: the whole space. Settings are
                tuned on one half of a table and judged on the other.

        Raises:
            BenchmarkError: if the table is partial, lacks a metric, or ``only`` names what the space lacks.
        """
        for recipe in ("proxy", "full"):
            benchmark.require(recipe)
        self.benchmark = benchmark
        space = benchmark.header.read_space()
        if isinstance(space, PartSpace):
            raise BenchmarkError(
                f"{benchmark.source}: a table of sums of parts, of which few are recorded: no sampler can search it. "
                "'autokd benchmark portfolio' reads it."
            )
        self.space = part_of(space, only or {})
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
        """Replace NaN (a failed training) by the lowest value: a search must not gain by a failure."""
        array = np.array(values, dtype=float)
        array[np.isnan(array)] = np.nanmin(array)
        return array

    def objective(self, kind: Objective) -> tuple[EvaluatorFactory, Reward, int]:
        """Return what a search sees: its evaluators, its reward, and the epochs of a trial."""
        if kind == "proxy":
            return BenchmarkEvaluatorFactory(self.benchmark), self.reference, self.num_epochs
        none = self.benchmark.none.outcome("full", 0)
        return FullAsProxy(self.benchmark, self.metric), Reward(("ap",), {1: {"ap": none.metrics[self.metric]}}), 1


@dataclass(frozen=True)
class FullAsProxy:
    """Evaluator that answers a search's jobs by the full training, as a perfect proxy would."""

    benchmark: DistillerBenchmark
    metric: str = "val_ap"

    def __call__(self, resources: WorkerResources) -> FullAsProxy:
        """Return itself: a table serves any worker."""
        return self

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        """Yield one report, whose ``ap`` is the metric of the full training, and return the outcome."""
        recorded = self.benchmark.lookup(job.spec).outcome("full", job.seed)
        if recorded.status != "finished":
            return recorded
        metrics = {"ap": recorded.metrics[self.metric]}
        report = Report(job.id, 1, metrics, recorded.seconds)
        yield report
        return Outcome(job.id, "finished", metrics, reports=(report,), seconds=recorded.seconds)


def cut_after(benchmark: DistillerBenchmark, epochs: int | None) -> DistillerBenchmark:
    """Return the table as if its proxy trainings had ended after ``epochs``; None returns it as it is.

    Raises:
        BenchmarkError: if a proxy training has fewer epochs.
    """
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


def part_of(space: Space, only: Mapping[str, Sequence[str]]) -> Space:
    """Return the space with the options of some slots restricted.

    Args:
        space: the whole space.
        only: slot -> labels of the options that stay.

    Raises:
        BenchmarkError: if the space lacks a slot or an option.
    """
    for name, labels in only.items():
        known = {slot.name: {option.label for option in slot.options} for slot in space.slots}
        if name not in known or not set(labels) <= known[name]:
            raise BenchmarkError(f"only {name}={','.join(labels)}: the space has {known.get(name) or sorted(known)}.")
    slots = tuple(
        replace(slot, options=tuple(o for o in slot.options if slot.name not in only or o.label in only[slot.name]))
        for slot in space.slots
    )
    return replace(space, slots=slots, document=None)
