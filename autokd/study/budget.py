"""The budget of a search in full trainings, split between the rungs of successive halving and the race.

A candidate trains on the full recipe's own schedule and is judged after a tenth and after a third of it; a third of the
candidates, then half, are continued from their checkpoints (successive halving: Jamieson and Talwalkar, AISTATS 2016).
Those that reach the end race: sequential halving (Karnin et al., ICML 2013) over paired seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

CUTS = (1 / 10, 1 / 3)
"""Parts of a full training after which a candidate is judged."""
MOST_RACERS = 8
"""Candidates that are trained to the end at most: the race tells the best of few apart better than of many."""
MOST_CANDIDATES = 2000


@dataclass(frozen=True)
class BudgetSplit:
    """Trainings that a budget pays.

    Args:
        cuts: epochs after which candidates are judged; the last is the end of a full training.
        candidates: candidates that reach each of ``cuts``, "none" not counted.
        none_races: whether "none" is trained to the end beside them.
        rounds: racers of each further round, one seed a round, "none" not counted.
    """

    cuts: tuple[int, ...]
    candidates: tuple[int, ...]
    none_races: bool
    rounds: tuple[int, ...]

    @property
    def cost(self) -> float:
        """Cost in full trainings, every training of "none" included."""
        ends = (0, *self.cuts)
        paid = 0.0
        for i, count in enumerate(self.candidates):
            is_last = i == len(self.cuts) - 1
            nones = int(self._none_reaches(i)) if not is_last else int(self.none_races)
            paid += (count + nones) * (ends[i + 1] - ends[i]) / self.cuts[-1]
        return paid + sum(count + 1 for count in self.rounds)

    def _none_reaches(self, rung: int) -> bool:
        # The first rung's rewards are gains over "none". Later ones compare candidates, for which it is needed only on
        # the way to the end.
        return rung == 0 or self.none_races


@lru_cache(maxsize=256)
def split_budget(budget: float, num_epochs: int, num_seeds: int) -> BudgetSplit:
    """Return the largest search that a budget pays.

    Args:
        budget: cost in full trainings, 2 or more.
        num_epochs: epochs of a full training.
        num_seeds: seeds of the reported trainings, which are the seeds of the race's further rounds.
    """
    cuts = cut_epochs(num_epochs)
    # Fewer rounds if the next larger search with as many is too dear, so that most of the budget is used.
    found = [_largest(budget, cuts, rounds) for rounds in range(_num_rounds(budget, num_seeds), -1, -1)]
    return next((each for each in found if each.cost >= 0.8 * budget), max(found, key=lambda each: each.cost))


def _largest(budget: float, cuts: tuple[int, ...], num_rounds: int) -> BudgetSplit:
    best = _split(1, cuts, 0, none_races=False)
    for candidates in range(1, MOST_CANDIDATES):
        found = _split(candidates, cuts, num_rounds, none_races=budget >= 4)
        if found.cost > budget:  # and so are all larger ones
            break
        best = found
    return best


def cut_epochs(num_epochs: int) -> tuple[int, ...]:
    """Return the epochs after which candidates are judged, the end of the training included.

    Args:
        num_epochs: epochs of a full training.
    """
    early = {math.ceil(part * num_epochs - 1e-9) for part in CUTS}
    return (*sorted(epoch for epoch in early if epoch < num_epochs), num_epochs)


def _num_rounds(budget: float, num_seeds: int) -> int:
    """Return the further seeds of the race: one from 6 full trainings on, two from 20, three from 40."""
    return min(num_seeds, sum(budget >= least for least in (6, 20, 40)))


def _split(candidates: int, cuts: tuple[int, ...], num_rounds: int, *, none_races: bool) -> BudgetSplit:
    counts = [candidates]
    for rung in range(1, len(cuts)):
        share = 3 if rung == 1 and len(cuts) > 2 else 2
        counts.append(math.ceil(counts[-1] / share))
    counts[-1] = min(counts[-1], MOST_RACERS)
    rounds: list[int] = []
    racing = counts[-1]
    for _ in range(num_rounds if racing > 1 else 0):
        racing = max(2, math.ceil(racing / 2))
        rounds.append(racing)
    return BudgetSplit(cuts, tuple(counts), none_races, tuple(rounds))
