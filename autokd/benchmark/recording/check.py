"""Rows of a recorded table, trained again and compared with what is recorded."""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autokd.benchmark.recording.trainer import Trainer
from autokd.benchmark.table import DistillerBenchmark
from autokd.config import ResolvedConfig
from autokd.jobs import Job, RecipeName

NUM_DEVIATIONS = 4
"""Deviations between seeds beyond which a number counts as another one."""
METRICS: dict[RecipeName, tuple[str, ...]] = {"proxy": ("val_loss", "cka"), "full": ("val_ap", "val_loss", "cka")}


@dataclass(frozen=True)
class Comparison:
    """One metric of one row: as recorded, as it came out now, and the standard deviation between seeds."""

    digest: str
    metric: str
    recorded: float
    now: float
    deviation: float

    @property
    def is_outside(self) -> bool:
        """The difference is more than the seeds' noise explains."""
        return abs(self.now - self.recorded) > NUM_DEVIATIONS * self.deviation

    def __str__(self) -> str:
        return (
            f"{self.digest} {self.metric}: {self.recorded:.5f} recorded, {self.now:.5f} now; "
            f"seeds deviate by {self.deviation:.5f}{', OUTSIDE' if self.is_outside else ''}"
        )


def check_rows(
    table: DistillerBenchmark,
    config: ResolvedConfig,
    cache_dir: Path,
    *,
    num_rows: int = 3,
    recipe: RecipeName = "proxy",
    device: str = "cpu",
    random_seed: int | None = None,
) -> Iterator[Comparison]:
    """Train "none" and a few rows again with seed 0.

    Args:
        table: the recorded table.
        config: its space, data, pair and recipes.
        cache_dir: folder of trained teachers and their cached taps.
        num_rows: rows beside "none".
        recipe: recipe to train by.
        device: "cpu" or "cuda".
        random_seed: seed of the choice of rows; None draws other rows each time.

    Yields:
        A comparison for each row and metric.
    """
    rows = random.Random(random_seed).sample(list(table), num_rows)
    with tempfile.TemporaryDirectory(prefix="autokd-check-") as files:
        trainer = Trainer(config, cache_dir, device, Path(files))
        for row in [table.none, *rows]:
            recorded = row.outcome(recipe, 0).metrics
            now = trainer.run(Job(f"check-{row.digest}", row.spec, recipe, 0)).metrics
            for metric in METRICS[recipe]:
                deviation = seed_deviation(table, recipe, metric)
                yield Comparison(row.digest, metric, recorded[metric], now[metric], deviation)


def seed_deviation(table: DistillerBenchmark, recipe: RecipeName, metric: str) -> float:
    """Return the standard deviation between seeds of one spec, pooled over the specs with several; 0 if none has."""
    rows = [list(row.values(metric, recipe).values()) for row in [table.none, *table]]
    rows = [values for values in rows if len(values) > 1]
    freedom = sum(len(values) - 1 for values in rows)
    return (sum(statistics.variance(v) * (len(v) - 1) for v in rows) / freedom) ** 0.5 if freedom else 0.0
