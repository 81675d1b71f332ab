"""F-Race over seeds: each round trains the finalists that can still win with one more seed, and eliminates others.

After F-Race (Birattari et al., GECCO 2002), in its "t-race" form with paired tests and no adjustment for their number;
the seeds are the instances. A race is a pure function of its trials and outcomes, so that a resumed run has the same
rounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from scipy.special import stdtr

from autokd.jobs import Job, Outcome, is_external
from autokd.metrics import VAL_AP
from autokd.spec import formula
from autokd.storage import FinalistResult, Race, RaceRound
from autokd.study.finalists import Finalist, finalist_job, finalist_jobs, full_finalist_job, reference_job
from autokd.study.noise import Noise, Shrinkage, expected_rewards, mean_over, residual_noise
from autokd.study.reward import Reward, reference_curve

CONFIDENCE = 0.95
"""Confidence of each one-sided test that eliminates a finalist."""


class FinalistRace:
    """A race of the best trials: run ``jobs(seed)``, give their outcomes to ``finish_round``, until ``is_over``.

    A round eliminates a finalist if the leader (the best mean) is ahead of it by a paired t-test over the seeds that
    both have: t = mean difference / sqrt(2 s^2 / n), one-sided. s^2 is the residual variance pooled over all finalists
    and "none" (``noise.residual_noise``), with its degrees of freedom: two or three seeds of one pair alone would say
    nothing. The rewards that made them finalists count too. Each was the best of many and is biased upwards, which
    favors the first leader a little; that costs less than a round.

    A finalist is eliminated as well if a training of it fails, unless the failure says nothing about it (a lost
    worker): it then only lacks that seed. A round whose "none" failed eliminates nobody.

    Args:
        trials: finished trials of distinct digest, best first; the first ``count`` race, all inform the prior.
        count: number of finalists.
        reward: reward of the search, with its scales.
        own_seed: seed of the trials.
    """

    def __init__(self, trials: Sequence[Finalist], count: int, reward: Reward, own_seed: int = 0) -> None:
        self._trials = {trial.digest: trial.value for trial in trials}
        self._finalists = {each.digest: each for each in trials[:count]}
        self._rewards = {digest: {own_seed: each.value} for digest, each in self._finalists.items()}
        self._reward = reward
        self._own_seed = own_seed
        self._remaining = list(self._finalists)
        self._eliminated: dict[str, tuple[int, str]] = {}
        self._rounds: list[RaceRound] = []
        self._num_trainings = 0
        self._full_seed: int | None = None
        self._full_val_ap: dict[str, float] = {}

    @property
    def is_over(self) -> bool:
        """Whether at most one finalist is left, so that further seeds decide nothing."""
        return len(self._remaining) <= 1

    @property
    def rounds(self) -> Sequence[RaceRound]:
        """Rounds so far."""
        return self._rounds

    def jobs(self, seed: int) -> list[Job]:
        """Return the jobs of the next round: "none" first, then the finalists that are left.

        Args:
            seed: training seed of the round.
        """
        return finalist_jobs([self._finalists[digest] for digest in self._remaining], [seed])

    def finish_round(self, seed: int, outcomes: Mapping[str, Outcome]) -> RaceRound:
        """Add the outcomes of a round, and eliminate finalists by them.

        Args:
            seed: training seed of the round.
            outcomes: outcomes of ``jobs(seed)`` by job id.

        Returns:
            The round: who leads, who was eliminated.
        """
        entered = tuple(self._remaining)
        self._num_trainings += len(entered)
        none = outcomes[reference_job(seed).id]
        if none.status != "finished":
            return self._close_round(RaceRound(seed=seed, entered=entered))
        seeded = Reward(self._reward.parts, reference_curve(none), self._reward.scales)
        reasons: dict[str, str] = {}
        for digest in entered:
            outcome = outcomes[finalist_job(self._finalists[digest], seed).id]
            if outcome.status == "finished" and seeded.is_known(outcome.metrics):
                self._rewards[digest][seed] = seeded.value(outcome.metrics, seeded.num_epochs)
            elif not is_external(outcome.cause):
                reasons[digest] = f"its training with seed {seed} failed ({outcome.cause or 'no finite reward'})"
        noise = residual_noise(self._rewards)
        remaining = [digest for digest in entered if digest not in reasons]
        leader = self._leader(remaining)
        reasons |= {digest: reason for digest in remaining if (reason := self._loses(digest, leader, noise))}
        eliminated = tuple(digest for digest in entered if digest in reasons)
        self._remaining = [digest for digest in entered if digest not in eliminated]
        self._eliminated |= {digest: (len(self._rounds) + 1, reasons[digest]) for digest in eliminated}
        known = noise.deviation if noise.freedom else None
        return self._close_round(
            RaceRound(seed=seed, leader=leader, entered=entered, fell=eliminated, noise=known, freedom=noise.freedom)
        )

    def winner(self) -> Finalist:
        """Return the winner: the best val AP if some finalists were trained in full, else the best expected reward.

        The expected reward decides among the finalists that are left, or that were eliminated last if none is left.
        """
        return self._finalists[self._ranked(self._shrinkage())[0]]

    def result(self) -> Race:
        """Return rounds and finalists, the winner first."""
        shrinkage = self._shrinkage()
        return Race(
            finalists=tuple(self._result_of(digest, shrinkage) for digest in self._ranked(shrinkage)),
            rounds=tuple(self._rounds),
            verdict=self._verdict(),
            trainings=self._num_trainings,
            full_seed=self._full_seed,
            prior_mean=None if shrinkage is None else shrinkage.prior_mean,
            between=None if shrinkage is None else shrinkage.between,
        )

    def full_jobs(self, count: int, seed: int) -> list[Job]:
        """Return a full training of each of the best finalists, those that are left first.

        Args:
            count: number of finalists to train.
            seed: training seed, none of the reported ones.
        """
        return [
            full_finalist_job(self._finalists[digest], seed) for digest in self._by_proxy(self._shrinkage())[:count]
        ]

    def finish_in_full(self, seed: int, outcomes: Mapping[str, Outcome]) -> None:
        """Add the outcomes of ``full_jobs``; the best val AP wins from then on.

        The proxy's bias is the same with every seed, so no further proxy training could correct it.

        Args:
            seed: training seed.
            outcomes: outcomes by job id.
        """
        self._full_seed = seed
        for digest, finalist in self._finalists.items():
            outcome = outcomes.get(full_finalist_job(finalist, seed).id)
            if outcome is not None and outcome.status == "finished":
                self._full_val_ap[digest] = outcome.metrics[VAL_AP]

    # -------------------------------------------------------------------------------------- deciding

    def _leader(self, remaining: Sequence[str]) -> str:
        """Return the best mean over the seeds that all have; the first of equals; empty if none is left."""
        if not remaining:
            return ""
        shared = sorted(set.intersection(*(set(self._rewards[digest]) for digest in remaining)))
        return max(remaining, key=lambda digest: mean_over(self._rewards[digest], shared))

    def _loses(self, digest: str, leader: str, noise: Noise) -> str:
        """Return why the leader is significantly ahead of ``digest``; empty if it is not."""
        ours, theirs = self._rewards[digest], self._rewards[leader]
        shared = sorted(set(ours) & set(theirs))
        gap = mean_over(theirs, shared) - mean_over(ours, shared)
        if digest == leader or len(shared) < 2 or noise.freedom == 0 or gap <= 0:
            return ""
        error = math.sqrt(2 * noise.variance / len(shared))  # a difference of two rewards: "none" cancels
        t = gap / error if error > 0 else math.inf
        p = float(stdtr(noise.freedom, -t))
        if p > 1 - CONFIDENCE:
            return ""
        return f"{gap:.3f} behind the leader over {len(shared)} seeds (t {t:.2f}, {noise.freedom} df, p {p:.4f})"

    def _close_round(self, ended: RaceRound) -> RaceRound:
        self._rounds.append(ended)
        return ended

    # --------------------------------------------------------------------------------------- results

    def _shrinkage(self) -> Shrinkage | None:
        return expected_rewards(self._trials, self._rewards, residual_noise(self._rewards), self._own_seed)

    def _ranked(self, shrinkage: Shrinkage | None) -> list[str]:
        """Return the digests: those trained in full by val AP, then the others as the proxy ranks them."""
        by_proxy = self._by_proxy(shrinkage)
        return sorted(by_proxy, key=lambda digest: -self._full_val_ap.get(digest, -math.inf))

    def _by_proxy(self, shrinkage: Shrinkage | None) -> list[str]:
        """Return the digests by the round that eliminated them, the last first, then by expected reward and mean."""

        def key(digest: str) -> tuple[float, float, float]:
            rewards = self._rewards[digest]
            mean = mean_over(rewards, list(rewards))
            expected = mean if shrinkage is None else shrinkage.expected[digest].mean
            return -self._eliminated.get(digest, (math.inf, ""))[0], -expected, -mean

        return sorted(self._finalists, key=key)

    def _result_of(self, digest: str, shrinkage: Shrinkage | None) -> FinalistResult:
        rewards = self._rewards[digest]
        fell_in, reason = self._eliminated.get(digest, (None, ""))
        expectation = None if shrinkage is None else shrinkage.expected[digest]
        return FinalistResult(
            digest=digest,
            formula=formula(self._finalists[digest].spec),
            seeds=tuple(rewards),
            rewards=tuple(rewards.values()),
            mean=mean_over(rewards, list(rewards)),
            expected=None if expectation is None else expectation.mean,
            expected_deviation=None if expectation is None else expectation.deviation,
            fell_in=fell_in,
            reason=reason,
            full_val_ap=self._full_val_ap.get(digest),
        )

    def _verdict(self) -> str:
        count = len(self._full_val_ap)
        if self._full_seed is None:
            return self._verdict_of_race()
        if count == 0:
            return f"{self._verdict_of_race()}; the finalists' full trainings failed, so the race decided"
        return f"{self._verdict_of_race()}; of {count} trained in full the best val AP won"

    def _verdict_of_race(self) -> str:
        if len(self._finalists) == 1:
            return "one finalist: no race"
        if not self._remaining:
            return "every finalist's training failed"
        if len(self._remaining) == 1:
            return f"one finalist was left after round {len(self._rounds)}: the winner is clear"
        return f"no seed was left with {len(self._remaining)} finalists still in the race: the winner is not clear"


def round_words(ended: RaceRound) -> str:
    """Return a round as a line for the observer.

    Args:
        ended: the round.
    """
    if not ended.leader and not ended.fell:
        return f'finalists, seed {ended.seed}: "none" failed, so the round eliminates nobody'
    left = len(ended.entered) - len(ended.fell)
    return f"finalists, seed {ended.seed}: {len(ended.fell)} of {len(ended.entered)} eliminated, {left} left"


def winner_words(race: Race) -> str:
    """Return a line about the winner: the reward of its trial, beside the reward that is expected of it.

    Args:
        race: race with at least one finalist.
    """
    best = race.finalists[0]
    words = f"winner of the search: {best.formula} (reward {best.rewards[0]:+.3f} in its trial"
    if best.expected is not None:
        words += f", {best.mean:+.3f} over {len(best.seeds)} seeds, {best.expected:+.3f} expected"
    if best.full_val_ap is not None:
        words += f", val AP {best.full_val_ap:.4f} in full"
    return f"{words}); {race.verdict}"


__all__ = ["CONFIDENCE", "FinalistRace", "round_words", "winner_words"]
