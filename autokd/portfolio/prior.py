"""The prior of a space of parts: what the options of the tree were worth over recorded pairs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from autokd.errors import SpaceError
from autokd.portfolio.file import PortfolioRecord
from autokd.portfolio.greedy import worths
from autokd.space import ADD, STOP, PartSpace, decisions_of_sum

SCALE = 2.0
"""Opinion of an option of the best worth against one of the mean worth: as far apart as the logs of counts of published
distillers lie, for which the weight of the progressive bias was chosen."""


def portfolio_prior(space: PartSpace, records: Sequence[PortfolioRecord]) -> Mapping[str, float]:
    """Return what the options of a space were worth, as an opinion before any trial.

    The worth of an option on a pair is that of the best recorded distiller that takes it, in units of the best of all
    on that pair; its worth is the mean over the pairs where it was recorded. Options that were never recorded have the
    mean of their decision's others.

    Args:
        space: the space of the search.
        records: recorded distillers, with their gains.

    Returns:
        Option, named "role=choice" as in the tree of ``MCTSSampler(role=decision_role)`` -> opinion, about 0.
    """
    best: dict[tuple[str, str], dict[str, float]] = {}
    for record, worth in zip(records, worths([record.gains for record in records]), strict=True):
        for option in _options(space, record):
            for pair, value in worth.items():
                found = best.setdefault(option, {})
                found[pair] = max(found.get(pair, -1.0), value)
    by_role: dict[str, dict[str, float]] = {}
    for (role, choice), of_pairs in best.items():
        if of_pairs:
            by_role.setdefault(role, {})[choice] = statistics.fmean(of_pairs.values())
    prior: dict[str, float] = {}
    for role, values in by_role.items():
        mean = statistics.fmean(values.values())
        prior |= {f"{role}={choice!r}": SCALE * (value - mean) for choice, value in values.items()}
    return prior


def _options(space: PartSpace, record: PortfolioRecord) -> Iterable[tuple[str, str]]:
    """Yield role and choice of every decision that leads to a record; none if the space does not offer it."""
    try:
        decisions = decisions_of_sum(space, record.summands)
    except (SpaceError, AssertionError):
        return
    for name, choice in decisions.items():
        role = name.partition(".")[2].partition("(")[0]
        if role != "more" or choice in (ADD, STOP):
            yield role, str(choice)
