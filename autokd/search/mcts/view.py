"""A read-only snapshot of the tree, for drawing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from optuna.study import Study, StudyDirection

from .history import History
from .tree import Node


@dataclass(frozen=True, slots=True)
class TreeNode:
    """A node and the results of the trials below it; values are in the study's own units.

    Attributes:
        decision: name of the decision above this node; None at the root.
        choice: the choice that leads here; None at the root.
        visits: finished trials, failed ones included.
        running: running trials.
        mean_value: mean of the trials that have a finite value; None if none has.
        best_value: best of the trials that have a value; None if none has.
        best_trial: number of the trial with that value, the first of equals; None if none has a value.
        is_exhausted: whether every leaf below was visited, so that the search does not enter it again.
        children: nodes below, in the order of decisions' names and of choices.
    """

    decision: str | None
    choice: object
    visits: int
    running: int
    mean_value: float | None
    best_value: float | None
    best_trial: int | None
    is_exhausted: bool
    children: tuple[TreeNode, ...]


def read_tree(study: Study) -> TreeNode:
    """Return the root of the tree of ``study`` from its trials as they are now.

    Args:
        study: a study with one objective; any sampler may have made its trials.

    Returns:
        The root, with all nodes below it.
    """
    history = History()
    found = history.update(study, asking=None)
    sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0

    def snapshot(node: Node, decision: str | None, choice: object) -> TreeNode:
        values = [(rollout.value, -n) for n in node.trial_numbers if (rollout := found.rollouts[n]).value is not None]
        best = max(values, default=None)  # type: ignore[type-var]
        finite = [value for value, _ in values if value is not None and math.isfinite(value)]
        children = tuple(
            snapshot(below.children[index], name, history.labels[name][index])
            for name, below in sorted(node.decisions.items())
            for index in sorted(below.children)
        )
        return TreeNode(
            decision=decision,
            choice=choice,
            visits=len(node.trial_numbers),
            running=node.num_pending,
            mean_value=sign * math.fsum(finite) / len(finite) if finite else None,
            best_value=None if best is None or best[0] is None else sign * best[0],
            best_trial=None if best is None else -best[1],
            is_exhausted=node.is_exhausted,
            children=children,
        )

    return snapshot(found.root, None, None)
