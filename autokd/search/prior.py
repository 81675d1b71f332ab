"""What published distillers choose, as a first opinion of a space's options."""

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
    """Option of a decision, as ``decision_role`` and the tree name it -> log of how often ``specs`` take it, about 0.

    For each slot, the terms of all ``specs`` that take one of its operators are counted (no operator of a slot of
    transformations counts as "none"), one count is added to each option, and the logs are centred over the options.
    Options of one operator with different numbers share its count.
    """
    terms = [term for spec in specs for term in spec.terms]
    prior: dict[str, float] = {}
    for slot in space.slots:
        names = [option.step.name for option in slot.options]
        taken = Counter(name for term in terms if (name := _operator_of(term, slot)) in names)
        logs = [math.log(taken[name] + 1) for name in names]
        mean = math.fsum(logs) / len(logs)
        for option, log in zip(slot.options, logs):
            prior[f"{slot.name}={option.label!r}"] = log - mean
    return prior


def _operator_of(term: TermSpec, slot: Slot) -> str:
    """The operator that a term has where the space has ``slot``."""
    if slot.kind == "source":
        return term.source.name
    if slot.kind == "distance":
        return term.distance.name
    offered = {option.step.name for option in slot.options}
    return next((step.name for step in term.transforms if step.name in offered), IDENTITY)
