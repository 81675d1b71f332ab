"""The tree of decisions, built from what trials decided; knows neither Optuna nor AutoKD.

A node is the sequence of categorical decisions so far. ``backpropagate`` adds a finished trial for good; ``set_pending`` puts
the running ones on top until the next call. A leaf is closed when a finished trial ended there without any free
number among its parameters: another visit would repeat it. A node is closed when all choices of all decisions
seen there are closed, and *busy* when they are closed or being visited by a running trial.

The tree is a pure function of the set of trials: the order in which they were folded does not show.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

State = Literal["finished", "failed", "running"]


class Action(NamedTuple):
    """One categorical decision: its name, the index of the choice, how many choices it had.

    ``option`` is what the choice is called wherever in the tree it may be met: actions with the same option share
    their all-actions-as-first statistics.
    """

    name: str
    choice: int
    num_choices: int
    option: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """What one trial decided, in order, and what came of it.

    ``value``: the higher the better; None where there is none (failed, running). ``numbers``: the free numeric
    parameters, each scaled to [0, 1].
    """

    number: int
    actions: tuple[Action, ...]
    numbers: tuple[tuple[str, float], ...]
    value: float | None
    state: State


@dataclass(eq=False, slots=True)
class Decision:
    """A categorical decision met at a node, and the nodes its choices lead to."""

    name: str
    num_choices: int
    children: dict[int, Node] = field(default_factory=dict)

    def is_exhausted(self) -> bool:
        return len(self.children) == self.num_choices and all(child.is_exhausted for child in self.children.values())

    def is_claimed(self) -> bool:
        return len(self.children) == self.num_choices and all(child.is_claimed for child in self.children.values())


@dataclass(eq=False, slots=True)
class Node:
    """A place in the tree. More than one decision stands at a node only where a number or the objective's own
    state decides what is asked next."""

    trial_numbers: list[int] = field(default_factory=list)
    """Numbers of the finished trials through this node, ascending."""
    decisions: dict[str, Decision] = field(default_factory=dict)
    num_pending: int = 0
    is_exhausted: bool = False
    is_claimed: bool = False
    ends: int = 0
    open_ends: int = 0
    """Finished trials that ended here, and those of them that had a free number."""

    def child(self, action: Action) -> Node | None:
        decision = self.decisions.get(action.name)
        return None if decision is None else decision.children.get(action.choice)


class Tree:
    """All finished trials, folded; the running ones laid over."""

    def __init__(self) -> None:
        self.root = Node()
        self.rollouts: dict[int, Rollout] = {}
        self.trial_numbers: list[int] = []
        """Of the finished trials, ascending."""
        self.numbers_by_option: dict[str, list[int]] = {}
        """Option -> numbers of the finished trials that took it, anywhere, ascending."""
        self.pending: list[Rollout] = []
        self._pending_paths: list[list[Node]] = []

    def backpropagate(self, rollout: Rollout) -> None:
        """Add a finished trial: expand its path, count it along the way, close what is exhausted."""
        self.rollouts[rollout.number] = rollout
        bisect.insort(self.trial_numbers, rollout.number)
        for option in {action.option for action in rollout.actions}:
            bisect.insort(self.numbers_by_option.setdefault(option, []), rollout.number)
        path = self._expand(rollout.actions)
        for node in path:
            bisect.insort(node.trial_numbers, rollout.number)
        leaf = path[-1]
        leaf.ends += 1
        leaf.open_ends += bool(rollout.numbers)
        _update_exhausted(path)

    def set_pending(self, running: Iterable[Rollout]) -> None:
        """Replace the running trials: each counts as a visit without a value, and keeps its leaf busy."""
        for path in self._pending_paths:
            for node in path:
                node.num_pending -= 1
        for path in self._pending_paths:
            _prune_unvisited(path)
            _update_exhausted(path)
        self.pending = sorted(running, key=lambda rollout: rollout.number)
        self._pending_paths = [self._expand(rollout.actions) for rollout in self.pending]
        for path in self._pending_paths:
            for node in path:
                node.num_pending += 1
        for path in self._pending_paths:
            _update_exhausted(path)

    def node_at(self, actions: Iterable[Action]) -> Node | None:
        """The node at the end of ``actions``; None where no trial has been."""
        node: Node | None = self.root
        for action in actions:
            node = None if node is None else node.child(action)
        return node

    def _expand(self, actions: tuple[Action, ...]) -> list[Node]:
        path = [self.root]
        for action in actions:
            node = path[-1]
            if action.name not in node.decisions:
                node.decisions[action.name] = Decision(action.name, action.num_choices)
            decision = node.decisions[action.name]
            path.append(decision.children.setdefault(action.choice, Node()))
        return path


def _prune_unvisited(path: list[Node]) -> None:
    """Forget what only a running trial had shown: the tree is a function of the trials that there are."""
    for parent in reversed(path[:-1]):
        for name, decision in list(parent.decisions.items()):
            for choice, child in list(decision.children.items()):
                if not child.trial_numbers and not child.num_pending:
                    del decision.children[choice]
            if not decision.children:
                del parent.decisions[name]


def _update_exhausted(path: list[Node]) -> None:
    """Set ``closed`` and ``busy`` from the leaf to the root."""
    for node in reversed(path):
        if node.decisions:
            node.is_exhausted = all(decision.is_exhausted() for decision in node.decisions.values())
            node.is_claimed = all(decision.is_claimed() for decision in node.decisions.values())
        else:
            node.is_exhausted = node.ends > 0 and node.open_ends == 0
            node.is_claimed = node.is_exhausted or (node.num_pending > 0 and node.open_ends == 0)
