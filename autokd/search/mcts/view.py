"""A read-only picture of the tree, for drawing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from optuna.study import Study, StudyDirection

from .history import History
from .tree import Node


@dataclass(frozen=True, slots=True)
class TreeNode:
    """A place in the tree and what trials found below it; values are in the study's own units.

    ``decision`` and ``choice`` are the last step to this node (None at the root). ``visits`` counts finished
    trials, failed ones among them; ``mean_value`` and ``best_value`` are of those that have a value, None where
    there is none. ``best_trial`` is the number of the best. ``closed``: exhausted, not entered again.
    """

    decision: str | None
    choice: object
    visits: int
    running: int
    mean_value: float | None
    best_value: float | None
    best_trial: int | None
    closed: bool
    children: tuple[TreeNode, ...]


def read_tree(study: Study) -> TreeNode:
    """The root of the tree of ``study`` as its trials stand now; children in the order of the choices."""
    history = History()
    found = history.update(study, asking=None)
    sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0

    def picture(node: Node, decision: str | None, choice: object) -> TreeNode:
        values = [(rollout.value, -n) for n in node.trial_numbers if (rollout := found.rollouts[n]).value is not None]
        best = max(values, default=None)  # type: ignore[type-var]
        finite = [value for value, _ in values if value is not None and math.isfinite(value)]
        children = tuple(
            picture(below.children[index], name, history.labels[name][index])
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
            closed=node.is_exhausted,
            children=children,
        )

    return picture(found.root, None, None)
