"""The budget in full trainings: what it pays, and that it is neither overdrawn nor left unused."""

from __future__ import annotations

import pytest

from autokd.config import load_config
from autokd.detectors import resolve
from autokd.errors import ConfigError
from autokd.study.budget import cut_epochs, split_budget

FILE = "data: {format: shapes}\nteacher: {train: {}}\nstudent: {}\n"


def trainings(split) -> float:
    """The cost, counted training by training: (epochs from, epochs to) of each, "none" of the first rung included."""
    epochs = 0
    for i, cut in enumerate(split.cuts):
        before = split.cuts[i - 1] if i else 0
        is_last = i == len(split.cuts) - 1
        with_none = split.none_races if is_last or i else True
        epochs += (split.candidates[i] + with_none) * (cut - before)
    return epochs / split.cuts[-1] + sum(count + 1 for count in split.rounds)


@pytest.mark.parametrize("num_epochs", [1, 3, 5, 20, 60])
@pytest.mark.parametrize("budget", [2, 4, 6, 10, 25, 50])
def test_a_budget_is_used_and_not_overdrawn(budget, num_epochs):
    split = split_budget(budget, num_epochs, 3)
    assert split.cost == pytest.approx(trainings(split))
    assert split.cost <= budget
    assert split.cost >= 0.6 * min(budget, 20), "fewer epochs make coarser steps"
    assert list(split.candidates) == sorted(split.candidates, reverse=True)
    assert all(count >= 2 for count in split.rounds)


def test_ten_full_trainings_of_twenty_epochs():
    split = split_budget(10, 20, 3)
    assert (split.cuts, split.candidates, split.none_races, split.rounds) == ((2, 7, 20), (18, 6, 3), True, (2,))


def test_a_small_budget_tries_few_and_a_large_one_races_over_more_seeds():
    assert split_budget(2, 20, 3).rounds == ()
    assert len(split_budget(50, 20, 3).rounds) == 3
    assert split_budget(50, 20, 3).candidates[0] > 5 * split_budget(10, 20, 3).candidates[0]


def test_cuts_are_the_first_epochs_at_or_behind_a_tenth_and_a_third():
    assert [cut_epochs(n) for n in (1, 2, 4, 20, 30)] == [(1,), (1, 2), (1, 2, 4), (2, 7, 20), (3, 10, 30)]


def test_a_file_of_three_sections_searches_by_a_budget_and_any_older_key_chooses_proxies():
    config = resolve(load_config(FILE))
    assert config.search.budget == 10
    assert config.full.baselines == ("none",)
    for more in ("search: {trials: 5}", "search: {finalists: 2}", "proxy: {epochs: 1}", "search: {budget: null}"):
        assert resolve(load_config(FILE + more)).search.budget is None
    assert resolve(load_config(FILE + "search: {enqueue: [fitnet], seed: 1}")).search.budget == 10
    with pytest.raises(ConfigError, match="found budget 10 beside trials"):
        load_config(FILE + "search: {budget: 10, trials: 4}")


def test_a_resolved_file_has_either_a_budget_or_the_keys_that_follow_from_one():
    from autokd.config import config_digest, config_yaml

    for more in ("", "search: {trials: 5}\n"):
        config = resolve(load_config(FILE + more))
        again = resolve(load_config(config_yaml(config)))
        assert config_digest(again) == config_digest(config)
        assert ("budget" in config.model_dump()["search"]) != ("trials" in config.model_dump()["search"])
