"""A portfolio made from recorded tables: ``autokd benchmark portfolio``."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from autokd.benchmark.file import load_benchmark
from autokd.benchmark.table import BenchmarkRow, DistillerBenchmark
from autokd.errors import BenchmarkError, SpaceError
from autokd.metrics import VAL_AP
from autokd.portfolio import Portfolio, PortfolioRecord
from autokd.space import FREE, PartSpace, Summand, default_parts, summands_of
from autokd.spec import DistillerSpec
from autokd.spec.families import DETECTOR_FAMILIES

Gains = Mapping[int, float]
"""Seed -> gain in val AP over no distillation with the same seed."""


def portfolio_of_tables(paths: Sequence[Path], leave_out: Iterable[str] = ()) -> Portfolio:
    """Return the portfolio of recorded tables, one a pair.

    Distillers that are no sums of parts of the default space are left out.

    Args:
        paths: files of tables.
        leave_out: names of pairs (``name`` of their configurations) that are left out.

    Raises:
        BenchmarkError: if a file is no table, two are of one pair, or a name to leave out is none of theirs.
    """
    tables: dict[str, tuple[Path, DistillerBenchmark]] = {}
    for path in paths:
        table = load_benchmark(path, training_version=None)
        pair = str(table.header.config["name"])
        if pair in tables:
            raise BenchmarkError(f"{path}: a second table of pair {pair!r}, after {tables[pair][0]}. Give one of them.")
        tables[pair] = path, table
    if unknown := sorted(set(leave_out) - tables.keys()):
        raise BenchmarkError(f"--leave-out {', '.join(unknown)}: the pairs are {', '.join(tables)}.")
    left_out, space = set(leave_out), default_parts()
    portfolio = Portfolio((), made_by=_command(paths, sorted(left_out)))
    for pair, (path, table) in tables.items():
        if pair not in left_out:
            origin = f"{path.name}, {len(table)} distillers, recorded at {', '.join(table.header.commits)}"
            portfolio = portfolio.joined(pair, origin, _records(pair, table, space))
    return portfolio


def _command(paths: Sequence[Path], left_out: Sequence[str]) -> str:
    words = ["autokd benchmark portfolio", *(path.name for path in paths)]
    return " ".join([*words, *(f"--leave-out {pair}" for pair in left_out)])


def _records(pair: str, table: DistillerBenchmark, space: PartSpace) -> list[PortfolioRecord]:
    found: dict[tuple[Summand, ...], Gains] = {}
    for row in table:
        summands = located(space, row.spec) if row.spec is not None else None
        gains = _gains(row, table.none)
        if summands is not None and gains and all(each.part != FREE for each in summands):
            found.setdefault(summands, gains)
    shrunken = shrunken_gains(list(found.values()))
    return [PortfolioRecord(summands, {pair: gain}) for summands, gain in zip(found, shrunken, strict=True)]


def located(space: PartSpace, spec: DistillerSpec) -> tuple[Summand, ...] | None:
    """Return a recorded distiller as a sum of parts, by the weights for any family of detectors; None if it is none.

    Args:
        space: the space that offers the parts.
        spec: the distiller.
    """
    for family in (None, *DETECTOR_FAMILIES):
        try:
            return tuple(summands_of(space.for_detectors(family), spec))
        except SpaceError:
            continue
    return None


def _gains(row: BenchmarkRow, none: BenchmarkRow) -> Gains:
    ours, theirs = row.values(VAL_AP), none.values(VAL_AP)
    return {seed: value - theirs[seed] for seed, value in ours.items() if seed in theirs}


def shrunken_gains(gains: Sequence[Gains]) -> list[float]:
    """Return the gain that a further seed of each distiller is expected to show.

    Each mean is shrunk to the mean of all: normal-normal empirical Bayes, as in ``study.noise``, with the variance of a
    gain pooled over distillers with several seeds. Without any, the means stay as they are.

    Args:
        gains: gains of each distiller, by seed.
    """
    means = [statistics.fmean(each.values()) for each in gains]
    repeated = [list(each.values()) for each in gains if len(each) > 1]
    freedom = sum(len(each) - 1 for each in repeated)
    if not freedom or len(means) < 3:
        return means
    noise = math.fsum((value - statistics.fmean(each)) ** 2 for each in repeated for value in each) / freedom
    average = statistics.fmean(means)
    of_means = statistics.fmean(noise / len(each) for each in gains)
    between = max(0.0, statistics.variance(means) - of_means)
    if between + noise == 0:
        return means
    return [
        average + (mean - average) * between / (between + noise / len(each))
        for mean, each in zip(means, gains, strict=True)
    ]


__all__ = ["located", "portfolio_of_tables", "shrunken_gains"]
