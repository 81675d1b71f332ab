"""The tree of categorical decisions: expansion, backpropagation, pending rollouts.

The tree is a pure function of the set of rollouts: the order in which they were added leaves no trace. So a sampler
that reads the study from the start agrees with one that saw every trial end.

An *exhausted* leaf was visited by a finished trial that had no free number: another visit would repeat it. A node is
exhausted if all choices of all its decisions are, and *claimed* if every one of them is exhausted or being visited by
a pending rollout.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

State = Literal["finished", "failed", "running"]


class Action(NamedTuple):
    """One choice of one categorical decision.

    Attributes:
        name: the decision's parameter name.
        choice: index of the choice.
        num_choices: number of choices that the decision has.
        option: name of the choice wherever in the tree it occurs. Actions of equal option share their
            all-moves-as-first statistics.
    """

    name: str
    choice: int
    num_choices: int
    option: str


class Trajectory(NamedTuple):
    """The actions of a trial in order, complete or not, and its free numeric parameters.

    Attributes:
        actions: from the root downwards.
        numbers: (parameter name, value scaled to [0, 1]) of each.
    """

    actions: tuple[Action, ...] = ()
    numbers: tuple[tuple[str, float], ...] = ()

    def with_action(self, action: Action) -> Trajectory:
        """Return the trajectory one decision longer."""
        return Trajectory((*self.actions, action), self.numbers)

    def with_number(self, name: str, unit: float) -> Trajectory:
        """Return the trajectory with one more numeric parameter, whose value is scaled to [0, 1]."""
        return Trajectory(self.actions, (*self.numbers, (name, unit)))


@dataclass(frozen=True, slots=True)
class Rollout:
    """One trial as the tree sees it.

    Attributes:
        number: the trial's number.
        actions: its categorical decisions, from the root downwards.
        numbers: its free numeric parameters, each scaled to [0, 1].
        value: greater is better; None if it failed or is running.
        state: "failed" is every finished trial without a value.
    """

    number: int
    actions: tuple[Action, ...]
    numbers: tuple[tuple[str, float], ...]
    value: float | None
    state: State

    @property
    def trajectory(self) -> Trajectory:
        """Its actions and numbers."""
        return Trajectory(self.actions, self.numbers)


@dataclass(eq=False, slots=True)
class Decision:
    """A categorical decision that trials met at a node, and the nodes to which its choices lead."""

    name: str
    num_choices: int
    children: dict[int, Node] = field(default_factory=dict)

    @property
    def is_exhausted(self) -> bool:
        """Whether every choice was visited and is exhausted."""
        return len(self.children) == self.num_choices and all(child.is_exhausted for child in self.children.values())

    @property
    def is_claimed(self) -> bool:
        """Whether every choice is exhausted or being visited."""
        return len(self.children) == self.num_choices and all(child.is_claimed for child in self.children.values())


@dataclass(eq=False, slots=True)
class Node:
    """A sequence of actions that some trial has taken.

    A node has more than one decision only if a number, or the objective's own state, decides what is asked next.
    """

    trial_numbers: list[int] = field(default_factory=list)
    """Finished trials through this node, ascending; their count is N(n)."""
    decisions: dict[str, Decision] = field(default_factory=dict)
    num_pending: int = 0
    """Running trials through this node."""
    is_exhausted: bool = False
    is_claimed: bool = False
    num_ends: int = 0
    """Finished trials that ended here."""
    num_open_ends: int = 0
    """Those of them that had a free number, which another visit may choose otherwise."""

    def child(self, action: Action) -> Node | None:
        """Return the node below ``action``; None if no trial has taken it."""
        decision = self.decisions.get(action.name)
        return None if decision is None else decision.children.get(action.choice)


class Tree:
    """All finished rollouts, backpropagated, and the pending ones on top of them."""

    def __init__(self) -> None:
        self.root = Node()
        self.rollouts: dict[int, Rollout] = {}
        """Finished trials by number."""
        self.trial_numbers: list[int] = []
        """Numbers of the finished trials, ascending."""
        self.numbers_by_option: dict[str, list[int]] = {}
        """Option -> numbers of the finished trials that took it anywhere in the tree, ascending."""
        self.pending: list[Rollout] = []
        """Running trials, by number."""
        self._pending_paths: list[list[Node]] = []

    def expand(self, actions: Iterable[Action]) -> list[Node]:
        """Return the nodes from the root along ``actions``; nodes that are missing are created."""
        path = [self.root]
        for action in actions:
            node = path[-1]
            if action.name not in node.decisions:
                node.decisions[action.name] = Decision(action.name, action.num_choices)
            decision = node.decisions[action.name]
            path.append(decision.children.setdefault(action.choice, Node()))
        return path

    def backpropagate(self, rollout: Rollout) -> None:
        """Add a finished trial for good: expand its path and count the visit at each of its nodes."""
        # Trials end in any order; sorted insertion keeps the tree, and every sum over it, independent of that order.
        self.rollouts[rollout.number] = rollout
        bisect.insort(self.trial_numbers, rollout.number)
        for option in {action.option for action in rollout.actions}:
            bisect.insort(self.numbers_by_option.setdefault(option, []), rollout.number)
        path = self.expand(rollout.actions)
        for node in path:
            bisect.insort(node.trial_numbers, rollout.number)
        leaf = path[-1]
        leaf.num_ends += 1
        leaf.num_open_ends += bool(rollout.numbers)
        _update_exhausted(path)

    def set_pending(self, running: Iterable[Rollout]) -> None:
        """Replace the pending rollouts: each counts as a visit without a reward and claims its leaf.

        The counts are as in WU-UCT (Liu et al., ICLR 2020). A virtual loss would also enter a bad reward, which
        drives workers away from good subtrees.
        """
        for path in self._pending_paths:
            for node in path:
                node.num_pending -= 1
        # Only after all counts are lowered: pruning a path sees whether another pending rollout still passes it.
        for path in self._pending_paths:
            _prune_unvisited(path)
            _update_exhausted(path)
        self.pending = sorted(running, key=lambda rollout: rollout.number)
        self._pending_paths = [self.expand(rollout.actions) for rollout in self.pending]
        for path in self._pending_paths:
            for node in path:
                node.num_pending += 1
        for path in self._pending_paths:
            _update_exhausted(path)

    def node_at(self, actions: Iterable[Action]) -> Node | None:
        """Return the node below ``actions``; None if no trial has been there."""
        node: Node | None = self.root
        for action in actions:
            node = None if node is None else node.child(action)
        return node


def _prune_unvisited(path: list[Node]) -> None:
    """Remove nodes that only a rollout which is no longer pending had expanded.

    A trial that was forgotten would else leave decisions behind, and the tree would depend on what ran meanwhile.
    """
    for parent in reversed(path[:-1]):
        for name, decision in list(parent.decisions.items()):
            for choice, child in list(decision.children.items()):
                if not child.trial_numbers and not child.num_pending:
                    del decision.children[choice]
            if not decision.children:
                del parent.decisions[name]


def _update_exhausted(path: list[Node]) -> None:
    """Set ``is_exhausted`` and ``is_claimed`` from the leaf to the root, since a node depends on its children."""
    for node in reversed(path):
        if node.decisions:
            node.is_exhausted = all(decision.is_exhausted for decision in node.decisions.values())
            node.is_claimed = all(decision.is_claimed for decision in node.decisions.values())
        else:
            node.is_exhausted = node.num_ends > 0 and node.num_open_ends == 0
            # A pending trial does not claim a leaf that has free numbers: the next one there may choose others.
            node.is_claimed = node.is_exhausted or (node.num_pending > 0 and node.num_open_ends == 0)
