"""The table in memory: rows by spec, each with the outcomes of its recorded trainings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from autokd.benchmark.identity import Header
from autokd.errors import BenchmarkError
from autokd.jobs import NO_DISTILLATION, Outcome, RecipeName
from autokd.spec import DistillerSpec, formula


@dataclass(frozen=True)
class BenchmarkRow:
    """One spec with its outcomes by training seed."""

    spec: DistillerSpec | None
    """The distiller; None: no distillation."""
    full: Mapping[int, Outcome] = field(default_factory=lambda: MappingProxyType({}))
    """Full trainings; their ``metrics`` hold ``val_ap``, ``test_ap``, ``val_loss``, ``cka`` and AP by class."""
    proxy: Mapping[int, Outcome] = field(default_factory=lambda: MappingProxyType({}))
    """Proxy trainings; each of their ``reports`` holds the metrics after an epoch and the seconds until then."""

    @property
    def digest(self) -> str:
        """Digest of the spec; "none" for no distillation."""
        return NO_DISTILLATION if self.spec is None else self.spec.digest

    def outcomes(self, recipe: RecipeName) -> Mapping[int, Outcome]:
        """Return the outcomes by one recipe, by seed."""
        return self.proxy if recipe == "proxy" else self.full

    def outcome(self, recipe: RecipeName, seed: int) -> Outcome:
        """Return the outcome of one training.

        Raises:
            BenchmarkError: if it is not recorded.
        """
        found = self.outcomes(recipe)
        if seed not in found:
            seeds = ", ".join(map(str, sorted(found))) or "none"
            raise BenchmarkError(
                f"{_named(self.spec)}: no {recipe} training with seed {seed} is recorded; seeds there: {seeds}."
            )
        return found[seed]

    def curve(self, seed: int = 0, recipe: RecipeName = "proxy") -> dict[int, Mapping[str, float]]:
        """Return the metrics after each epoch of one training, by epoch (from 1).

        Raises:
            BenchmarkError: if it is not recorded.
        """
        return {report.epoch: report.metrics for report in self.outcome(recipe, seed).reports}

    def values(self, metric: str, recipe: RecipeName = "full") -> dict[int, float]:
        """Return a metric at the end of each finished training, by seed; trainings without the metric are left out."""
        return {
            seed: outcome.metrics[metric]
            for seed, outcome in sorted(self.outcomes(recipe).items())
            if outcome.status == "finished" and metric in outcome.metrics
        }

    def mean(self, metric: str, recipe: RecipeName = "full") -> float:
        """Return the mean of ``values`` over the seeds.

        Raises:
            BenchmarkError: if no finished training has the metric.
        """
        values = self.values(metric, recipe)
        if not values:
            raise BenchmarkError(f"{_named(self.spec)}: no finished {recipe} training has {metric!r}.")
        return statistics.fmean(values.values())

    def gain(self, base: BenchmarkRow, metric: str, recipe: RecipeName = "full", *, but: int | None = None) -> float:
        """Return the mean difference to another row over the seeds that both have.

        Differences are taken seed by seed, since equal seeds share initial weights and the order of images, and a seed
        at which a training fails to learn lowers both rows.

        Args:
            base: the other row, e.g. the table's ``none``.
            metric: metric at the end of the trainings.
            recipe: recipe of the trainings.
            but: seed that is left out; None leaves out none.

        Returns:
            The mean difference; NaN if no seed is shared.
        """
        ours, theirs = self.values(metric, recipe), base.values(metric, recipe)
        seeds = ours.keys() & theirs.keys() - {but}
        return statistics.fmean(ours[seed] - theirs[seed] for seed in seeds) if seeds else math.nan

    def seconds(self, recipe: RecipeName, seed: int = 0) -> float:
        """Return the seconds of one training.

        Raises:
            BenchmarkError: if it is not recorded.
        """
        return self.outcome(recipe, seed).seconds


class DistillerBenchmark:
    """A table: rows by canonical spec. A spec that is not in it has no row; there is no interpolation."""

    def __init__(self, header: Header, rows: Iterable[BenchmarkRow], source: str = "<memory>") -> None:
        """Make a table.

        Args:
            header: space, recipes and origin of the numbers.
            rows: rows of specs and of no distillation.
            source: name of the file, for errors.
        """
        self.header = header
        self.source = source
        self._by_digest = {row.digest: row for row in rows}
        # A second index by spec: hashing a canonical spec takes microseconds, its digest most of a millisecond.
        self._by_spec = {row.spec.canonical(): row for row in self._by_digest.values() if row.spec is not None}

    def __len__(self) -> int:
        """Return the number of recorded specs, without "none"."""
        return len(self._by_spec)

    def __iter__(self) -> Iterator[BenchmarkRow]:
        """Yield the rows of specs, without "none", in the table's order."""
        return iter(self._by_spec.values())

    def __contains__(self, spec: DistillerSpec | None) -> bool:
        """Return whether there is a row of the spec (None: no distillation)."""
        return self._find(spec) is not None

    @property
    def none(self) -> BenchmarkRow:
        """Row of the trainings without distillation.

        Raises:
            BenchmarkError: if there are none.
        """
        return self.lookup(None)

    def lookup(self, spec: DistillerSpec | None) -> BenchmarkRow:
        """Return the row of a spec (None: no distillation).

        Raises:
            BenchmarkError: if it is not recorded.
        """
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
        """Return the number of specs of the space whose training by that recipe and seed is not recorded."""
        return self.header.num_specs - sum(seed in row.outcomes(recipe) for row in self)

    def require(self, recipe: RecipeName, seed: int = 0) -> None:
        """Check that every spec of the space, and "none", has a training by one recipe and seed.

        Raises:
            BenchmarkError: if the table is partial.
        """
        self.none.outcome(recipe, seed)
        if missing := self.missing(recipe, seed):
            raise BenchmarkError(
                f"{self.source}: a partial table: of {self.header.num_specs:,} specs {missing:,} have no {recipe} "
                f"training with seed {seed}. A search could ask for any of them: finish the recording first."
            )


def _named(spec: DistillerSpec | None) -> str:
    return "no distillation" if spec is None else f"{formula(spec)} ({spec.digest})"
