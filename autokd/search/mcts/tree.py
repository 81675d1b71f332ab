"""The tree of decisions, built from what trials decided; knows neither Optuna nor AutoKD.

A node is the sequence of categorical decisions so far. ``fold`` adds a finished trial for good; ``lay_over`` puts
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


class Move(NamedTuple):
    """One categorical decision: its name, the index of the choice, how many choices it had.

    ``option`` is what the choice is called wherever in the tree it may be met: moves with the same option share
    their all-moves-as-first statistics.
    """

    name: str
    choice: int
    num_choices: int
    option: str


@dataclass(frozen=True, slots=True)
class Record:
    """What one trial decided, in order, and what came of it.

    ``value``: the higher the better; None where there is none (failed, running). ``numbers``: the free numeric
    parameters, each scaled to [0, 1].
    """

    number: int
    moves: tuple[Move, ...]
    numbers: tuple[tuple[str, float], ...]
    value: float | None
    state: State


@dataclass(eq=False, slots=True)
class Decision:
    """A categorical decision met at a node, and the nodes its choices lead to."""

    name: str
    num_choices: int
    children: dict[int, Node] = field(default_factory=dict)

    def is_closed(self) -> bool:
        return len(self.children) == self.num_choices and all(child.closed for child in self.children.values())

    def is_busy(self) -> bool:
        return len(self.children) == self.num_choices and all(child.busy for child in self.children.values())


@dataclass(eq=False, slots=True)
class Node:
    """A place in the tree. More than one decision stands at a node only where a number or the objective's own
    state decides what is asked next."""

    visits: list[int] = field(default_factory=list)
    """Numbers of the finished trials through this node, ascending."""
    decisions: dict[str, Decision] = field(default_factory=dict)
    num_running: int = 0
    closed: bool = False
    busy: bool = False
    ends: int = 0
    open_ends: int = 0
    """Finished trials that ended here, and those of them that had a free number."""

    def child(self, move: Move) -> Node | None:
        decision = self.decisions.get(move.name)
        return None if decision is None else decision.children.get(move.choice)


class Tree:
    """All finished trials, folded; the running ones laid over."""

    def __init__(self) -> None:
        self.root = Node()
        self.records: dict[int, Record] = {}
        self.numbers: list[int] = []
        """Of the finished trials, ascending."""
        self.takers: dict[str, list[int]] = {}
        """Option -> numbers of the finished trials that took it, anywhere, ascending."""
        self.running: list[Record] = []
        self._covered: list[list[Node]] = []

    def fold(self, record: Record) -> None:
        """Add a finished trial: expand its path, count it along the way, close what is exhausted."""
        self.records[record.number] = record
        bisect.insort(self.numbers, record.number)
        for option in {move.option for move in record.moves}:
            bisect.insort(self.takers.setdefault(option, []), record.number)
        path = self._expand(record.moves)
        for node in path:
            bisect.insort(node.visits, record.number)
        leaf = path[-1]
        leaf.ends += 1
        leaf.open_ends += bool(record.numbers)
        _close_upwards(path)

    def lay_over(self, running: Iterable[Record]) -> None:
        """Replace the running trials: each counts as a visit without a value, and keeps its leaf busy."""
        for path in self._covered:
            for node in path:
                node.num_running -= 1
        for path in self._covered:
            _drop_unvisited(path)
            _close_upwards(path)
        self.running = sorted(running, key=lambda record: record.number)
        self._covered = [self._expand(record.moves) for record in self.running]
        for path in self._covered:
            for node in path:
                node.num_running += 1
        for path in self._covered:
            _close_upwards(path)

    def descend(self, moves: Iterable[Move]) -> Node | None:
        """The node at the end of ``moves``; None where no trial has been."""
        node: Node | None = self.root
        for move in moves:
            node = None if node is None else node.child(move)
        return node

    def _expand(self, moves: tuple[Move, ...]) -> list[Node]:
        path = [self.root]
        for move in moves:
            node = path[-1]
            if move.name not in node.decisions:
                node.decisions[move.name] = Decision(move.name, move.num_choices)
            decision = node.decisions[move.name]
            path.append(decision.children.setdefault(move.choice, Node()))
        return path


def _drop_unvisited(path: list[Node]) -> None:
    """Forget what only a running trial had shown: the tree is a function of the trials that there are."""
    for parent in reversed(path[:-1]):
        for name, decision in list(parent.decisions.items()):
            for choice, child in list(decision.children.items()):
                if not child.visits and not child.num_running:
                    del decision.children[choice]
            if not decision.children:
                del parent.decisions[name]


def _close_upwards(path: list[Node]) -> None:
    """Set ``closed`` and ``busy`` from the leaf to the root."""
    for node in reversed(path):
        if node.decisions:
            node.closed = all(decision.is_closed() for decision in node.decisions.values())
            node.busy = all(decision.is_busy() for decision in node.decisions.values())
        else:
            node.closed = node.ends > 0 and node.open_ends == 0
            node.busy = node.closed or (node.num_running > 0 and node.open_ends == 0)
