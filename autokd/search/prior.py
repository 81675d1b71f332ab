"""A prior of a space's options: how often published distillers take them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from autokd.spec.vocabulary import IDENTITY

if TYPE_CHECKING:
    from autokd.space import Slot, Space
    from autokd.spec import DistillerSpec, TermSpec


def published_prior(space: Space, specs: Iterable[DistillerSpec]) -> Mapping[str, float]:
    """Count how often published distillers take each option of the space.

    The count of an option is the number of terms that take its operator, plus 1 (add-one smoothing); a term without any
    operator of a slot of transformations counts for "none". Options of one operator with different numbers share its
    count.

    Args:
        space: the space whose options are counted.
        specs: published distillers.

    Returns:
        Option, named "role=choice" as in the tree of ``MCTSSampler(role=decision_role)`` -> log of its count, minus the
        mean log over the slot's options.
    """
    terms = [term for spec in specs for term in spec.terms]
    prior: dict[str, float] = {}
    for slot in space.slots:
        names = [option.step.name for option in slot.options]
        taken = Counter(name for term in terms if (name := _operator_of(term, slot)) in names)
        # Logs: a softmax of the prior is then proportional to the counts. Centered: the average option has no bias.
        logs = [math.log(taken[name] + 1) for name in names]
        mean = math.fsum(logs) / len(logs)
        for option, log in zip(slot.options, logs):
            prior[f"{slot.name}={option.label!r}"] = log - mean
    return prior


def _operator_of(term: TermSpec, slot: Slot) -> str:
    """Return the name of the operator that the term has in ``slot``."""
    if slot.kind == "source":
        return term.source.name
    if slot.kind == "distance":
        return term.distance.name
    offered = {option.step.name for option in slot.options}
    return next((step.name for step in term.transforms if step.name in offered), IDENTITY)
