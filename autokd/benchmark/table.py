"""The table in memory: rows by spec, each with how its recorded trainings ended."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from autokd.benchmark.identity import Header
from autokd.config import NO_DISTILLATION
from autokd.errors import BenchmarkError
from autokd.outcomes import Outcome, RecipeName
from autokd.spec import DistillerSpec, formula


@dataclass(frozen=True)
class BenchmarkRow:
    """One spec (None: no distillation) with its outcomes by seed.

    Of a full training, ``metrics`` hold ``val_ap``, ``test_ap``, ``val_loss``, ``cka`` and AP by class; of a proxy
    training, each of ``reports`` holds the metrics after an epoch and the seconds until then.
    """

    spec: DistillerSpec | None
    full: Mapping[int, Outcome] = field(default_factory=lambda: MappingProxyType({}))
    proxy: Mapping[int, Outcome] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def digest(self) -> str:
        return NO_DISTILLATION if self.spec is None else self.spec.digest

    def outcomes(self, recipe: RecipeName) -> Mapping[int, Outcome]:
        return self.proxy if recipe == "proxy" else self.full

    def outcome(self, recipe: RecipeName, seed: int) -> Outcome:
        """How that training ended; BenchmarkError if it is not recorded."""
        found = self.outcomes(recipe)
        if seed not in found:
            seeds = ", ".join(map(str, sorted(found))) or "none"
            raise BenchmarkError(
                f"{_named(self.spec)}: no {recipe} training with seed {seed} is recorded; seeds there: {seeds}."
            )
        return found[seed]

    def curve(self, seed: int = 0, recipe: RecipeName = "proxy") -> dict[int, Mapping[str, float]]:
        """Metrics after each epoch."""
        return {report.epoch: report.metrics for report in self.outcome(recipe, seed).reports}

    def values(self, metric: str, recipe: RecipeName = "full") -> dict[int, float]:
        """A metric at the end of each training that finished, by seed."""
        return {
            seed: outcome.metrics[metric]
            for seed, outcome in sorted(self.outcomes(recipe).items())
            if outcome.status == "finished" and metric in outcome.metrics
        }

    def mean(self, metric: str, recipe: RecipeName = "full") -> float:
        """Mean over the seeds of ``values``; BenchmarkError if there is none."""
        values = self.values(metric, recipe)
        if not values:
            raise BenchmarkError(f"{_named(self.spec)}: no finished {recipe} training has {metric!r}.")
        return statistics.fmean(values.values())

    def gain(self, base: BenchmarkRow, metric: str, recipe: RecipeName = "full", *, but: int | None = None) -> float:
        """Mean difference to ``base`` over the seeds that both have, without seed ``but``; NaN where there is none.

        Equal seeds share initial weights and order of images, and a seed that fails to learn spoils both.
        """
        ours, theirs = self.values(metric, recipe), base.values(metric, recipe)
        seeds = ours.keys() & theirs.keys() - {but}
        return statistics.fmean(ours[seed] - theirs[seed] for seed in seeds) if seeds else math.nan

    def seconds(self, recipe: RecipeName, seed: int = 0) -> float:
        """How long that training took."""
        return self.outcome(recipe, seed).seconds


class DistillerBenchmark:
    """A table: ``lookup(spec)`` answers in microseconds, by the canonical spec and nothing near it."""

    def __init__(self, header: Header, rows: Iterable[BenchmarkRow], source: str = "<memory>") -> None:
        self.header = header
        self.source = source
        self._by_digest = {row.digest: row for row in rows}
        # Hashing a canonical spec costs microseconds, its digest a good part of a millisecond.
        self._by_spec = {row.spec.canonical(): row for row in self._by_digest.values() if row.spec is not None}

    def __len__(self) -> int:
        """Specs recorded, "none" apart."""
        return len(self._by_spec)

    def __iter__(self) -> Iterator[BenchmarkRow]:
        """The rows of specs, "none" apart, in the table's order."""
        return iter(self._by_spec.values())

    def __contains__(self, spec: DistillerSpec | None) -> bool:
        return self._find(spec) is not None

    @property
    def none(self) -> BenchmarkRow:
        """The trainings without distillation; BenchmarkError if there are none."""
        return self.lookup(None)

    def lookup(self, spec: DistillerSpec | None) -> BenchmarkRow:
        """The row of ``spec`` (None: no distillation); BenchmarkError if it is not recorded."""
        row = self._find(spec)
        if row is not None:
            return row
        held = f"{len(self)} of the space's {self.header.num_specs:,} specs"
        raise BenchmarkError(f"{self.source}: {_named(spec)} is not in the table, which holds {held}.")

    def _find(self, spec: DistillerSpec | None) -> BenchmarkRow | None:
        if spec is None:
            return self._by_digest.get(NO_DISTILLATION)
        return self._by_spec.get(spec) or self._by_digest.get(spec.digest)

    def missing(self, recipe: RecipeName, seed: int) -> int:
        """How many specs of the space have no such training recorded."""
        return self.header.num_specs - sum(seed in row.outcomes(recipe) for row in self)

    def require(self, recipe: RecipeName, seed: int = 0) -> None:
        """BenchmarkError unless every spec, and "none", has this training."""
        self.none.outcome(recipe, seed)
        if missing := self.missing(recipe, seed):
            raise BenchmarkError(
                f"{self.source}: a partial table: of {self.header.num_specs:,} specs {missing:,} have no {recipe} "
                f"training with seed {seed}. A search could ask for any of them: finish the recording first."
            )


def _named(spec: DistillerSpec | None) -> str:
    return "no distillation" if spec is None else f"{formula(spec)} ({spec.digest})"
