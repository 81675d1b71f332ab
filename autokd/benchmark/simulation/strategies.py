"""Strategies compared by replay on recorded pairs: which distiller does each choose, at equal cost in full trainings?

A recorded pair has full trainings of some distillers, measured on their way at the epochs where a budget's candidates
are judged. A strategy may choose among these distillers alone. Its choice rests on val; its worth is the mean gain in
test AP over none of all recorded seeds of the chosen row. The portfolio of a pair is made of the other pairs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autokd.benchmark.file import load_benchmark
from autokd.benchmark.portfolio import located, portfolio_of_tables
from autokd.benchmark.table import BenchmarkRow, DistillerBenchmark
from autokd.errors import BenchmarkError
from autokd.jobs import Outcome
from autokd.metrics import TEST_AP, VAL_AP
from autokd.space import default_parts
from autokd.study.budget import BudgetSplit, split_budget
from autokd.study.finalists import Finalist
from autokd.study.full_race import FullRace
from autokd.study.strategy import rung_values

REWARD = ("val_loss_parts", "cka", "ap")
_SEED = 0
"""Seed with which every row is recorded."""


@dataclass(frozen=True)
class RecordedPair:
    """A recorded pair, and the portfolio of the others.

    Args:
        name: its name.
        table: the table.
        rows: rows with a finished training of seed 0, none left out.
        queue: positions in ``rows`` of the portfolio's distillers, in its order.
        presets: positions of the rows that are one published part or preset.
        num_epochs: epochs of a full training.
    """

    name: str
    table: DistillerBenchmark
    rows: tuple[BenchmarkRow, ...]
    queue: tuple[int, ...]
    presets: tuple[int, ...]
    num_epochs: int

    def worth(self, chosen: int | None) -> float:
        """Return the mean gain in test AP over none of a row; 0 for None, which is none.

        Args:
            chosen: position in ``rows``.
        """
        return 0.0 if chosen is None else self.rows[chosen].gain(self.table.none, TEST_AP)


def recorded_pairs(paths: Sequence[Path]) -> list[RecordedPair]:
    """Read pairs, each with the portfolio that is made of the others.

    Args:
        paths: tables, one a pair; two or more.

    Raises:
        BenchmarkError: if there are fewer than two, or a table lacks the measurements on the way.
    """
    if len(paths) < 2:
        raise BenchmarkError("Strategies are compared on two pairs or more: each needs a portfolio made of the others.")
    pairs, space = [], default_parts()
    for path in paths:
        table = load_benchmark(path, training_version=None)
        name = str(table.header.config["name"])
        rows = tuple(row for row in table if _SEED in row.full and row.full[_SEED].status == "finished")
        sums = {found: i for i, row in enumerate(rows) if row.spec is not None and (found := located(space, row.spec))}
        queue = portfolio_of_tables([other for other in paths if other != path]).queue(space)
        none = table.none.full[_SEED]
        if len(none.reports) < 2 or "ap" not in none.metrics:
            raise BenchmarkError(
                f"{path}: its trainings were not measured on their way. Record them by its own script."
            )
        presets = tuple(i for found, i in sums.items() if len(found) == 1)
        order = tuple(sums[each.summands] for each in queue if each.summands in sums)
        pairs.append(RecordedPair(name, table, rows, order, presets, none.reports[-1].epoch))
    return pairs


Strategy = Callable[[RecordedPair, float, np.random.Generator], "int | None"]
"""Pair, budget and source of random numbers -> position of the chosen row, or None for none."""


def by_budget(pair: RecordedPair, budget: float, rng: np.random.Generator) -> int | None:
    """The default strategy: the portfolio first, rungs, and a race with none."""
    split = split_budget(budget, pair.num_epochs, 2)
    rest = [i for i in rng.permutation(len(pair.rows)).tolist() if i not in pair.queue]
    most = split.candidates[0] if split.candidates[0] <= 8 else math.ceil(2 * split.candidates[0] / 3)
    return _rungs_and_race(pair, split, [*pair.queue[:most], *rest][: split.candidates[0]])


def by_budget_at_random(pair: RecordedPair, budget: float, rng: np.random.Generator) -> int | None:
    """The default strategy's rungs and race without a portfolio: candidates at random."""
    split = split_budget(budget, pair.num_epochs, 2)
    return _rungs_and_race(pair, split, rng.permutation(len(pair.rows)).tolist()[: split.candidates[0]])


def portfolio_in_full(pair: RecordedPair, budget: float, rng: np.random.Generator) -> int | None:
    """The portfolio one by one in full, the best val AP wins."""
    return _best_in_full(pair, pair.queue[: int(budget)])


def random_in_full(pair: RecordedPair, budget: float, rng: np.random.Generator) -> int | None:
    """Distillers at random in full, the best val AP wins."""
    return _best_in_full(pair, rng.permutation(len(pair.rows)).tolist()[: int(budget)])


def presets_in_full(pair: RecordedPair, budget: float, rng: np.random.Generator) -> int | None:
    """Presets at random in full, one by one, the best val AP wins."""
    return _best_in_full(pair, rng.permutation(pair.presets).tolist()[: int(budget)])


def asha(pair: RecordedPair, budget: float, rng: np.random.Generator) -> int | None:
    """Successive halving of random candidates by AP alone, thirds promoted, the best val AP at the end wins (ASHA)."""
    return _halving(pair, budget, rng, first_cut=0)


def hyperband(pair: RecordedPair, budget: float, rng: np.random.Generator) -> int | None:
    """Brackets of successive halving that begin at each cut, the budget shared equally (Hyperband)."""
    num_cuts = len(_cuts(pair))
    found = [_halving(pair, budget / num_cuts, rng, first_cut=cut) for cut in range(num_cuts)]
    return _best_in_full(pair, [each for each in found if each is not None])


STRATEGIES: dict[str, Strategy] = {
    "budget": by_budget,
    "budget, candidates at random": by_budget_at_random,
    "portfolio in full": portfolio_in_full,
    "random in full": random_in_full,
    "presets in full": presets_in_full,
    "ASHA": asha,
    "Hyperband": hyperband,
}


def replay(pairs: Sequence[RecordedPair], budget: float, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Return strategy -> pair -> the test gain of the chosen distiller in each repeat.

    Args:
        pairs: the pairs.
        budget: cost of each search in full trainings.
        repeats: repeats with other random numbers, the same for each strategy.
    """
    return {
        name: {
            pair.name: [pair.worth(strategy(pair, budget, np.random.default_rng(seed))) for seed in range(repeats)]
            for pair in pairs
        }
        for name, strategy in STRATEGIES.items()
    }


def replay_lines(pairs: Sequence[RecordedPair], found: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterator[str]:
    """Yield the lines of a Markdown table: test AP gained over none, in points, a column a pair.

    Args:
        pairs: the pairs.
        found: result of ``replay``.
    """
    yield "| strategy | " + " | ".join(pair.name for pair in pairs) + " | mean |"
    yield "|---" * (len(pairs) + 2) + "|"
    fixed = {
        "best preset in hindsight": [max(pair.worth(i) for i in pair.presets) for pair in pairs],
        "best of all in hindsight": [max(pair.worth(i) for i in range(len(pair.rows))) for pair in pairs],
    }
    means = {name: [statistics.fmean(of_pairs[pair.name]) for pair in pairs] for name, of_pairs in found.items()}
    for name, values in (means | fixed).items():
        cells = [f"{100 * value:+.2f}" for value in (*values, statistics.fmean(values))]
        yield f"| {name} | " + " | ".join(cells) + " |"


# -------------------------------------------------------------------------------------- replayed trainings


def _rungs_and_race(pair: RecordedPair, split: BudgetSplit, left: Sequence[int]) -> int | None:
    for rung in range(1, len(split.cuts)):
        values = _values(pair, left, split.cuts[rung - 1])
        ranked = sorted(values, key=lambda i: -values[i])
        chosen = ranked[: split.candidates[rung]]
        if len(chosen) > 1 and not any(i in pair.presets for i in chosen):
            chosen[-1] = next((i for i in ranked if i in pair.presets), chosen[-1])
        left = chosen
    return _race(pair, split, left)


def _race(pair: RecordedPair, split: BudgetSplit, racers: Sequence[int]) -> int | None:
    positions = {spec.digest: i for i in racers if (spec := pair.rows[i].spec) is not None}
    finalists = [Finalist(spec, 0.0) for i in racers if (spec := pair.rows[i].spec) is not None]
    race = FullRace(finalists, _SEED, none_races=split.none_races)
    race.finish_round(_SEED, _outcomes(pair, race, _SEED))
    further = sorted(set(pair.table.none.full) - {_SEED})
    for count, seed in zip(split.rounds, further, strict=False):
        race.keep_best(count)
        outcomes = _outcomes(pair, race, seed)
        if len(outcomes) == len(race.jobs(seed)):  # a seed that was not recorded of all racers says nothing
            race.finish_round(seed, outcomes)
    winner = race.winner()
    return None if winner is None else positions[winner.digest]


def _outcomes(pair: RecordedPair, race: FullRace, seed: int) -> dict[str, Outcome]:
    rows = {job.id: pair.table.lookup(job.spec) for job in race.jobs(seed)}
    return {job_id: row.full[seed] for job_id, row in rows.items() if seed in row.full}


def _values(pair: RecordedPair, candidates: Sequence[int], cut: int) -> dict[int, float]:
    """Return the worth of candidates at a cut, as the study's rungs judge them."""
    outcomes = {str(i): _cut_off(pair.rows[i].full[_SEED], cut) for i in candidates}
    parts = tuple(part for part in REWARD if part != "cka" or "cka" in next(iter(outcomes.values())).metrics)
    return {int(i): value for i, value in rung_values(outcomes, parts).items() if math.isfinite(value)}


def _cut_off(outcome: Outcome, cut: int) -> Outcome:
    reports = tuple(report for report in outcome.reports if report.epoch <= cut)
    return Outcome(outcome.job_id, "finished", reports[-1].metrics, reports=reports)


def _halving(pair: RecordedPair, budget: float, rng: np.random.Generator, first_cut: int) -> int | None:
    """Promote the best third by AP at each cut, of as many candidates as the budget pays."""
    cuts = _cuts(pair)[first_cut:]
    count = 1
    while _halving_cost(count + 1, cuts) <= budget and count < len(pair.rows):
        count += 1
    left = rng.permutation(len(pair.rows)).tolist()[:count]
    for cut in cuts[:-1]:
        by_ap = sorted(left, key=lambda i: -_cut_off(pair.rows[i].full[_SEED], cut).metrics.get("ap", 0.0))
        left = by_ap[: math.ceil(len(by_ap) / 3)]
    return _best_in_full(pair, left)


def _halving_cost(count: int, cuts: Sequence[int]) -> float:
    epochs, before = 0, 0
    for cut in cuts:
        epochs += count * (cut - before)
        count, before = math.ceil(count / 3), cut
    return epochs / cuts[-1]


def _cuts(pair: RecordedPair) -> tuple[int, ...]:
    return split_budget(2, pair.num_epochs, 1).cuts


def _best_in_full(pair: RecordedPair, candidates: Sequence[int]) -> int | None:
    """Return the best by val AP of seed 0; None if none is better than all."""
    none = pair.table.none.full[_SEED].metrics[VAL_AP]
    values = {i: pair.rows[i].full[_SEED].metrics[VAL_AP] for i in candidates}
    best = max(values, key=lambda i: values[i], default=None)
    return None if best is None or values[best] < none else best


__all__ = ["STRATEGIES", "RecordedPair", "recorded_pairs", "replay", "replay_lines"]
