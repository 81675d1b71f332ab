"""The tree and the curve against small searches whose numbers stand beside them."""

from __future__ import annotations

import itertools
import json

from autokd.report.curve import best_so_far, search_curve
from autokd.report.tree import draw_tree, joined, most_visited, visited_nodes
from autokd.report.view import TrialView
from tests.support.report_samples import make_trials


def trial(number: int, value: float | None, *answers: str, status: str = "finished", **more: object) -> TrialView:
    path = tuple((f"d{depth}", answer) for depth, answer in enumerate(answers))
    return TrialView(number, status, value, path, **more)  # type: ignore[arg-type]


#          all (4: 1, 3, 5, -)
#         /                    \
#   a (3: 1, 3, -)          b > y (1: 5)
#   /        \
# x (2: 1, 3)  y (1: -)
SEARCH = (
    trial(0, 1.0, "a", "x"),
    trial(1, 3.0, "a", "x"),
    trial(2, None, "a", "y", status="failed", cause="timeout", message="<b>slow</b>"),
    trial(3, 5.0, "b", "y"),
)


def test_visits_and_means_are_those_of_the_trials_below_a_node() -> None:
    nodes = {tuple(answer for _, answer in node.path): node for node in visited_nodes(SEARCH)}
    assert {path: len(node.trials) for path, node in nodes.items()} == {
        (): 4, ("a",): 3, ("a", "x"): 2, ("a", "y"): 1, ("b",): 1, ("b", "y"): 1,
    }  # fmt: skip
    assert {path: node.mean for path, node in nodes.items()} == {
        (): 3.0, ("a",): 2.0, ("a", "x"): 2.0, ("a", "y"): None, ("b",): 5.0, ("b", "y"): 5.0,
    }  # fmt: skip


def test_decisions_without_an_alternative_are_joined() -> None:
    shown = {tuple(answer for _, answer in node.steps) for node in joined(visited_nodes(SEARCH))}
    assert shown == {(), ("a",), ("x",), ("y",), ("b", "y")}


def test_every_box_of_the_tree_hangs_below_a_box_and_is_no_wider_than_it() -> None:
    icicle = draw_tree(make_trials(60)).data[0]
    visits = dict(zip(icicle.ids, icicle.values, strict=True))
    below: dict[str, int] = {}
    for parent, count in zip(icicle.parents, icicle.values, strict=True):
        below[parent] = below.get(parent, 0) + count
    assert below.pop("") == 60
    assert all(total <= visits[parent] for parent, total in below.items())


def test_a_large_tree_keeps_its_most_visited_boxes() -> None:
    answers = itertools.product("abcdefgh", repeat=3)
    nodes = joined(visited_nodes([trial(i, 1.0, *path) for i, path in enumerate(answers)]))
    kept = most_visited(nodes, 20)
    assert len(nodes) == 1 + 8 + 64 + 512
    assert len(kept) == 20
    assert {node.parent for node in kept} <= {None, *(node.path for node in kept)}


def test_best_so_far_follows_the_direction_and_skips_what_has_no_value() -> None:
    trials = [trial(0, 2.0), trial(1, None, status="failed"), trial(2, 1.0), trial(3, 3.0), trial(4, float("nan"))]
    assert best_so_far(trials) == [(0, 2.0), (2, 2.0), (3, 3.0)]
    assert best_so_far(trials, "minimize") == [(0, 2.0), (2, 1.0), (3, 1.0)]


def test_the_curve_tells_kinds_of_trials_apart() -> None:
    trials = make_trials()
    figure = search_curve(trials)
    numbers = {trace.name: set(trace.x) for trace in figure.data if trace.name != "best so far"}
    assert numbers["enqueued preset"] == {0, 1, 2}
    assert numbers["failed"] == {9, 17, 23}
    assert numbers["pruned"] == {12, 29}
    assert numbers["reused"] == {31}
    assert numbers["running"] == {39}
    assert sum(map(len, numbers.values())) == len(trials)


def test_figures_hold_words_as_words() -> None:
    texts = search_curve(SEARCH).to_json() + draw_tree(SEARCH).to_json()
    assert "<b>slow</b>" not in texts
    assert "timeout" in texts


def test_figures_are_plain_json_lists_that_any_plotly_reads() -> None:
    for figure in (search_curve(make_trials()), draw_tree(make_trials())):
        text = figure.to_json()
        json.loads(text)
        assert "bdata" not in text
        assert len(text) < 60_000


def test_a_tree_without_forks_is_one_box() -> None:
    assert list(draw_tree([trial(0, 1.0, "a", "x"), trial(1, 2.0, "a", "x")]).data[0].values) == [2]


def test_a_search_without_trials_is_said_to_be_empty() -> None:
    assert "No trial" in search_curve(()).to_json()
    assert "no tree" in draw_tree(()).to_json()


def test_a_search_in_which_all_failed_is_still_drawn() -> None:
    failed = [trial(i, None, "a" if i % 2 else "b", status="failed", cause="error") for i in range(4)]
    assert [trace.name for trace in search_curve(failed).data] == ["failed"]
    assert list(draw_tree(failed).data[0].values) == [4, 2, 2]
