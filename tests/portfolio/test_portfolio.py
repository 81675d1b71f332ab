"""The portfolio: covers, leave-one-out, the prior, and the file that is shipped."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest

from autokd.benchmark.portfolio import located, shrunken_gains
from autokd.config import SearchConfig
from autokd.errors import SpaceError, SpecError
from autokd.portfolio import (
    Portfolio,
    PortfolioRecord,
    greedy_order,
    load_portfolio,
    portfolio_prior,
    portfolio_text,
)
from autokd.presets import load_preset
from autokd.search import decision_role, make_sampler, suggest
from autokd.space import Summand, default_parts


def record(part: str, **gains: float) -> PortfolioRecord:
    return PortfolioRecord((Summand(part),), gains)


def test_each_member_covers_what_those_before_it_do_not():
    """In units of the pair's best: a (1, .5, 0), b (.9, .6, 0), c (0, 0, 1), d (-.1, 1, -); by hand."""
    gains = [{"x": 10, "y": 0.5, "z": 0}, {"x": 9, "y": 0.6, "z": 0}, {"x": 0, "y": 0, "z": 3}, {"x": -1, "y": 1}]
    # a and b add 1.5 each, a first by its position; c adds 1; d adds .5. The next cover begins with b.
    assert greedy_order(gains) == [0, 2, 3, 1]


def test_what_gains_nothing_is_not_queued():
    assert greedy_order([{"x": 1.0}, {"x": -0.5}, {}]) == [0]
    assert greedy_order([{"x": -1.0}]) == []


def test_a_portfolio_without_a_pair_knows_nothing_of_it():
    """Whatever the left-out pair's gains are, queue and prior are the same: this is what leave-one-out means."""
    portfolio, space = load_portfolio(), default_parts()
    assert portfolio.pairs, "the shipped portfolio was made from records"
    for pair in portfolio.pairs:
        changed = replace(portfolio, records=tuple(_shuffled(portfolio.records, pair)))
        ours, theirs = portfolio.without([pair]), changed.without([pair])
        assert ours == theirs
        assert [each.summands for each in ours.queue(space)] == [each.summands for each in theirs.queue(space)]
        assert portfolio_prior(space, ours.records) == portfolio_prior(space, theirs.records)
        assert pair not in ours.pairs
        assert all(pair not in each.gains for each in ours.records)
    with pytest.raises(SpaceError, match=r"portfolio_without: nowhere"):
        portfolio.without(["nowhere"])


def _shuffled(records, pair):
    for i, each in enumerate(records):
        yield replace(each, gains={**each.gains, pair: 0.3 - 0.01 * i}) if pair in each.gains else each


def test_the_shipped_portfolio_is_what_its_text_says_and_every_member_is_offered():
    portfolio, space = load_portfolio(), default_parts()
    assert portfolio.made_by.startswith("autokd benchmark portfolio")
    queue = portfolio.queue(space)
    assert len(queue) >= 5
    best = {pair: max(each.gains.get(pair, 0.0) for each in portfolio.records) for pair in portfolio.pairs}
    first = queue[: len(portfolio.pairs)]
    for pair, gain in best.items():
        assert max(each.gains.get(pair, 0.0) for each in first) >= 0.8 * gain, "the first ones cover every pair"


def test_text_and_file_are_the_same_portfolio(tmp_path):
    portfolio = load_portfolio()
    path = tmp_path / "portfolio.yaml"
    path.write_text(portfolio_text(portfolio))
    again = load_portfolio(path)
    assert {each.summands: each.gains for each in again.records} == {e.summands: e.gains for e in portfolio.records}
    path.write_text(portfolio_text(portfolio).replace("part: ", "part: no_", 1))
    with pytest.raises(SpecError, match="which is no preset"):
        load_portfolio(path)


def test_the_prior_prefers_what_was_best_and_names_options_as_the_tree_does():
    space = default_parts()
    records = [record("fitnet", x=4.0), record("kd", x=1.0), PortfolioRecord((Summand("fitnet", 10.0),), {"x": 2.0})]
    prior = portfolio_prior(space, records)
    # Best of fitnet 1, of kd .25: worths 1 and .25, mean .625, times 2.
    assert prior["family='maps'"] == pytest.approx(0.75)
    assert prior["family='logits'"] == pytest.approx(-0.75)
    assert prior["strength='1'"] == pytest.approx(2 * (1 - 0.75))
    study = optuna.create_study(sampler=make_sampler(SearchConfig(), space, portfolio=Portfolio(tuple(records))))
    seen = set()
    for _ in range(8):
        trial = study.ask()
        suggest(trial, space)
        seen |= {f"{decision_role(name)}={choice!r}" for name, choice in trial.params.items()}
        study.tell(trial, 0.0)
    named = {option for option in seen if option.startswith(("family=", "strength=", "more="))}
    assert {"family='maps'", "strength='1'", "more='stop'"} <= set(prior)
    assert named & set(prior), "the tree's options have the prior's names"


def test_a_recorded_distiller_is_found_whatever_family_its_weights_are_of():
    space = default_parts()
    for family in ("anchor_based", "two_stage"):
        spec = load_preset("fgd", family)
        assert located(space, spec) == (Summand("fgd@published"),)
        assert located(space, spec.with_gradient_ratio(300)) == (Summand("fgd", 0.1),)
    assert located(space, load_preset("fgd").with_gradient_ratio(7)) is None


def test_gains_shrink_with_their_noise():
    """Two seeds each: noise variance .5 (mean of 0, .5 and 1), of a mean .25; means 0, 2 and 4.5, variance 5.083."""
    gains = [{0: 0.0, 1: 0.0}, {0: 1.5, 1: 2.5}, {0: 4.5 - 0.5**0.5, 1: 4.5 + 0.5**0.5}]
    mean = 6.5 / 3
    between = ((0 - mean) ** 2 + (2 - mean) ** 2 + (4.5 - mean) ** 2) / 2 - 0.25
    factor = between / (between + 0.25)
    assert shrunken_gains(gains) == pytest.approx([mean + (each - mean) * factor for each in (0, 2, 4.5)])
    assert shrunken_gains([{0: 1.0}, {0: 2.0}, {0: 3.0}]) == [1.0, 2.0, 3.0], "nothing is known of the noise"


def test_records_of_one_more_pair_join_those_of_equal_distillers():
    portfolio = Portfolio((record("fitnet", x=1.0),), {"x": "a table"})
    joined = portfolio.joined("run", "runs/a", [record("fitnet", run=0.5), record("cwd", run=0.7)])
    assert [dict(each.gains) for each in joined.records] == [{"x": 1.0, "run": 0.5}, {"run": 0.7}]
    assert joined.pairs == {"x": "a table", "run": "runs/a"}
