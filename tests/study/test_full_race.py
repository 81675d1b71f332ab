"""The race of full trainings: who wins, that "none" may, and that ties go to the simpler loss."""

from __future__ import annotations

import numpy as np
import pytest

from autokd.jobs import Job, Outcome
from autokd.space import Summand, default_parts
from autokd.study.finalists import Finalist
from autokd.study.full_race import FullRace, race_words

SPACE = default_parts()
SPECS = [
    SPACE.sum_of(parts)
    for parts in (
        [Summand("fitnet")],
        [Summand("fitnet"), Summand("cwd")],
        [Summand("g_detkd_sgfi")],
        [Summand("g_detkd_sgfi"), Summand("cwd"), Summand("mgd")],
    )
]
NONE_AP = {3: 0.40, 0: 0.35, 1: 0.38, 2: 0.41}


def hold(race: FullRace, seed: int, gains: dict[int, float | None]) -> list[Job]:
    jobs, outcomes = race.jobs(seed), {}
    for job in jobs:
        gain = 0.0 if job.spec is None else gains[SPECS.index(job.spec)]
        if gain is None:
            outcomes[job.id] = Outcome(job.id, "failed", cause="non_finite", message="NaN")
        else:
            outcomes[job.id] = Outcome(job.id, "finished", {"val_ap": NONE_AP[seed] + gain})
    race.finish_round(seed, outcomes)
    return jobs


def make_race(*numbers: int, none_races: bool = True) -> FullRace:
    return FullRace([Finalist(SPECS[i], 0.0) for i in numbers], 3, none_races=none_races)


def test_gains_are_paired_by_seed_and_the_best_wins():
    race = make_race(0, 1, 2)
    assert hold(race, 3, {0: 0.01, 1: 0.05, 2: 0.04})[0].id == "full-none-s3"
    race.keep_best(2)
    hold(race, 0, {1: 0.05, 2: 0.04})
    assert race.winner().spec == SPECS[1]
    found = race.result()
    assert [each.digest for each in found.finalists] == [SPECS[i].digest for i in (1, 2, 0)]
    assert found.finalists[0].seeds == (3, 0)
    assert found.finalists[0].rewards == pytest.approx((0.05, 0.05))
    assert found.finalists[2].fell_in == 1
    assert found.trainings == 5
    assert "+0.0500 against none over 2 seeds" in race_words(found)


def test_none_wins_where_nothing_gains_and_the_race_says_so():
    race = make_race(0, 2)
    hold(race, 3, {0: -0.02, 2: -0.03})
    hold(race, 0, {0: -0.01, 2: -0.02})
    assert race.winner() is None
    assert 'no racer is surely better than "none"' in race.result().verdict


def test_what_noise_cannot_tell_from_none_is_none():
    race = make_race(0, 2)
    hold(race, 3, {0: 0.02, 2: -0.03})
    hold(race, 0, {0: -0.019, 2: 0.02})
    assert race.winner() is None


def test_a_tie_goes_to_the_simpler_loss():
    race = make_race(3, 2, 0)
    hold(race, 3, {3: 0.056, 2: 0.059, 0: 0.01})
    hold(race, 0, {3: 0.052, 2: 0.050, 0: 0.02})
    hold(race, 1, {3: 0.052, 2: 0.050, 0: 0.01})
    assert race.result().finalists[0].digest == SPECS[2].digest == race.winner().digest
    gap = {each.digest: each.mean for each in race.result().finalists}
    assert gap[SPECS[3].digest] > gap[SPECS[2].digest], "the sum of three parts has the better mean"


def test_a_failed_training_is_out_and_a_race_of_failures_has_no_winner():
    race = make_race(0, 1)
    hold(race, 3, {0: 0.05, 1: None})
    assert race.winner().spec == SPECS[0]
    hold(race, 0, {0: None})
    assert race.winner() is None
    assert race.result().verdict == "every full training failed"


def test_without_none_the_best_val_ap_decides():
    race = make_race(0, 2, none_races=False)
    assert [job.spec for job in hold(race, 3, {0: -0.3, 2: -0.2})] == [SPECS[0], SPECS[2]]
    assert race.winner().spec == SPECS[2]


def test_the_race_errs_seldom_in_simulation():
    """Four racers, gains of deviation .015, noise .007 a training: the winner's true gain against the best's."""
    regrets, harmful = [], 0
    for repeat in range(60):
        rng = np.random.default_rng(repeat)
        truth = rng.normal(0.005, 0.015, 4)
        race = make_race(0, 1, 2, 3)
        for seed, keep in ((3, 4), (0, 2), (1, 2)):
            race.keep_best(keep)
            none = rng.normal(0, 0.007)
            hold(race, seed, {i: float(truth[i] + rng.normal(0, 0.007) - none) for i in range(4)})
        winner = race.winner()
        gained = 0.0 if winner is None else truth[SPECS.index(winner.spec)]
        regrets.append(max(truth.max(), 0.0) - gained)
        harmful += gained < -0.005
    assert np.mean(regrets) < 0.004
    assert harmful <= 1
