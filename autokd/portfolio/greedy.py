"""The order in which a portfolio is tried: each distiller covers pairs that those before it do not.

The greedy construction of auto-sklearn 2.0 (Feurer et al., JMLR 23, 2022, section 3.1): the next member is the one
whose addition raises most the mean over pairs of the best member's worth. Once no member raises it, the cover is
complete, and the next one begins with those that are left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Gains = Mapping[str, float]
"""Name of a pair -> gain over no distillation on it, in AP."""


def greedy_order(gains: Sequence[Gains]) -> list[int]:
    """Return the positions of candidates in the order in which a search should try them.

    A candidate that was not recorded on a pair counts there as no distillation; one that gains nothing on the mean of
    its pairs is left out.

    Args:
        gains: gains of each candidate.
    """
    worth = worths(gains)
    left = [i for i, each in enumerate(worth) if each and math.fsum(each.values()) > 0]
    order: list[int] = []
    while left:
        cover = _one_cover(worth, left)
        order += cover
        left = [i for i in left if i not in cover]
    return order


def worths(gains: Sequence[Gains]) -> list[dict[str, float]]:
    """Return each candidate's gains in units of the best gain on their pair, so that pairs weigh alike.

    Pairs on which nothing gains are left out; what loses as much as the best gains, or more, has -1.

    Args:
        gains: gains of each candidate.
    """
    best: dict[str, float] = {}
    for each in gains:
        for pair, gain in each.items():
            best[pair] = max(best.get(pair, 0.0), gain)
    return [{pair: max(-1.0, gain / best[pair]) for pair, gain in each.items() if best[pair] > 0} for each in gains]


def _one_cover(worth: Sequence[Gains], left: Sequence[int]) -> list[int]:
    reached: dict[str, float] = {}
    cover: list[int] = []
    while True:
        scored = [(_raise(worth[i], reached), math.fsum(worth[i].values()), -i) for i in left if i not in cover]
        if not scored or max(scored)[0] <= 1e-9:
            # The first of a cover raises it, since each that is left gains something somewhere.
            return cover
        chosen = -max(scored)[2]
        cover.append(chosen)
        for pair, value in worth[chosen].items():
            reached[pair] = max(reached.get(pair, 0.0), value)


def _raise(worth: Gains, reached: Gains) -> float:
    return math.fsum(max(0.0, value - reached.get(pair, 0.0)) for pair, value in worth.items())
