"""The finalists race over seeds: each round costs one more proxy training for those that can still win.

As in F-Race (Birattari et al., GECCO 2002; its "t-race" with paired tests and no adjustment for their number), seeds
being the instances. A race is a pure function of its trials and outcomes, so that a resumed run finds the same rounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from scipy.special import stdtr

from autokd.metrics import VAL_AP
from autokd.outcomes import Job, Outcome, is_external
from autokd.spec import formula
from autokd.storage import FinalistResult, Race, RaceRound
from autokd.study.finalists import Finalist, finalist_job, finalist_jobs, full_finalist_job, reference_job
from autokd.study.noise import Noise, Shrinkage, expected_rewards, mean_over, residual_noise
from autokd.study.reward import Reward, reference_curve

CONFIDENCE = 0.95
"""Of each test that drops a finalist; one-sided."""


class FinalistRace:
    """Ask ``jobs`` for the next round, tell ``finish_round`` how they ended, until ``is_over``; then ``result``.

    A finalist falls after a round if the leader (the best mean) is ahead of it by a paired t-test over the seeds that
    both have: t = mean difference / sqrt(2 s^2 / n), one-sided. s^2 is the residual variance pooled over all finalists
    and "none" (``noise.residual_noise``), with its degrees of freedom: two or three seeds of one pair alone would tell
    nothing. The rewards that made them finalists count: as each was the best of many, the first leader is a little
    favoured by that, which costs less than a round.

    It falls too if a training of it fails. Not where the failure says nothing of it (a lost worker): it then only
    lacks that seed. A round whose "none" failed has no say.
    """

    def __init__(self, trials: Sequence[Finalist], count: int, reward: Reward, own_seed: int = 0) -> None:
        """trials: the finished ones of distinct digest, best first, all with ``own_seed``; the first ``count`` race."""
        self._trials = {trial.digest: trial.value for trial in trials}
        self._finalists = {each.digest: each for each in trials[:count]}
        self._rewards = {digest: {own_seed: each.value} for digest, each in self._finalists.items()}
        self._reward = reward
        self._own_seed = own_seed
        self._standing = list(self._finalists)
        self._fell: dict[str, tuple[int, str]] = {}
        self._rounds: list[RaceRound] = []
        self._num_trainings = 0
        self._full_seed: int | None = None
        self._full_val_ap: dict[str, float] = {}

    @property
    def is_over(self) -> bool:
        """There is nothing more to decide, whatever seeds are left."""
        return len(self._standing) <= 1

    @property
    def rounds(self) -> Sequence[RaceRound]:
        return self._rounds

    def jobs(self, seed: int) -> list[Job]:
        """The next round's: "none" first, then those that stand."""
        return finalist_jobs([self._finalists[digest] for digest in self._standing], [seed])

    def finish_round(self, seed: int, outcomes: Mapping[str, Outcome]) -> RaceRound:
        """Take in the outcomes of ``jobs(seed)``, by job id; return who leads and who fell."""
        entered = tuple(self._standing)
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
        standing = [digest for digest in entered if digest not in reasons]
        leader = self._leader(standing)
        reasons |= {digest: reason for digest in standing if (reason := self._loses(digest, leader, noise))}
        fell = tuple(digest for digest in entered if digest in reasons)
        self._standing = [digest for digest in entered if digest not in fell]
        self._fell |= {digest: (len(self._rounds) + 1, reasons[digest]) for digest in fell}
        known = noise.deviation if noise.freedom else None
        return self._close_round(
            RaceRound(seed=seed, leader=leader, entered=entered, fell=fell, noise=known, freedom=noise.freedom)
        )

    def winner(self) -> Finalist:
        """The best val AP of those trained in full; without, of those that stand the one that is expected to be best,
        and where all failed, of the last to do so."""
        return self._finalists[self._ranked(self._shrinkage())[0]]

    def result(self) -> Race:
        """Rounds and finalists, the winner first."""
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
        """A full training of each of the best ``count``, whoever stands first: the race is over."""
        return [
            full_finalist_job(self._finalists[digest], seed) for digest in self._by_proxy(self._shrinkage())[:count]
        ]

    def finish_in_full(self, seed: int, outcomes: Mapping[str, Outcome]) -> None:
        """Take in the outcomes of ``full_jobs``, by job id: from now on the best val AP wins.

        The proxy's bias is the same for all seeds; only the training that counts can see it.
        """
        self._full_seed = seed
        for digest, finalist in self._finalists.items():
            outcome = outcomes.get(full_finalist_job(finalist, seed).id)
            if outcome is not None and outcome.status == "finished":
                self._full_val_ap[digest] = outcome.metrics[VAL_AP]

    # -------------------------------------------------------------------------------------- deciding

    def _leader(self, standing: Sequence[str]) -> str:
        """The best mean over the seeds that all have; the first of equals. Empty where nobody stands."""
        if not standing:
            return ""
        shared = sorted(set.intersection(*(set(self._rewards[digest]) for digest in standing)))
        return max(standing, key=lambda digest: mean_over(self._rewards[digest], shared))

    def _loses(self, digest: str, leader: str, noise: Noise) -> str:
        """Why the leader is surely ahead of ``digest``; empty if it is not."""
        ours, theirs = self._rewards[digest], self._rewards[leader]
        shared = sorted(set(ours) & set(theirs))
        gap = mean_over(theirs, shared) - mean_over(ours, shared)
        if digest == leader or len(shared) < 2 or noise.freedom == 0 or gap <= 0:
            return ""
        error = math.sqrt(2 * noise.variance / len(shared))
        t = gap / error if error > 0 else math.inf
        p = float(stdtr(noise.freedom, -t))
        if p > 1 - CONFIDENCE:
            return ""
        return f"{gap:.3f} behind the leader over {len(shared)} seeds (t {t:.2f}, {noise.freedom} df, p {p:.4f})"

    def _close_round(self, ended: RaceRound) -> RaceRound:
        self._rounds.append(ended)
        return ended

    # --------------------------------------------------------------------------------------- telling

    def _shrinkage(self) -> Shrinkage | None:
        return expected_rewards(self._trials, self._rewards, residual_noise(self._rewards), self._own_seed)

    def _ranked(self, shrinkage: Shrinkage | None) -> list[str]:
        """Those trained in full by val AP, then the others as the proxy has them."""
        by_proxy = self._by_proxy(shrinkage)
        return sorted(by_proxy, key=lambda digest: -self._full_val_ap.get(digest, -math.inf))

    def _by_proxy(self, shrinkage: Shrinkage | None) -> list[str]:
        """Those that stand first, then by how long they stood; among them by expected reward, then by mean."""

        def key(digest: str) -> tuple[float, float, float]:
            rewards = self._rewards[digest]
            mean = mean_over(rewards, list(rewards))
            expected = mean if shrinkage is None else shrinkage.expected[digest].mean
            return -self._fell.get(digest, (math.inf, ""))[0], -expected, -mean

        return sorted(self._finalists, key=key)

    def _result_of(self, digest: str, shrinkage: Shrinkage | None) -> FinalistResult:
        rewards = self._rewards[digest]
        fell_in, reason = self._fell.get(digest, (None, ""))
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
        if not self._standing:
            return "every finalist's training failed"
        if len(self._standing) == 1:
            return f"one finalist was left after round {len(self._rounds)}: the winner is clear"
        return f"the seeds were spent with {len(self._standing)} finalists still standing: the winner is not clear"


def round_words(ended: RaceRound) -> str:
    """A line for whoever watches."""
    if not ended.leader and not ended.fell:
        return f'finalists, seed {ended.seed}: "none" failed, so the round has no say'
    left = len(ended.entered) - len(ended.fell)
    return f"finalists, seed {ended.seed}: {len(ended.fell)} of {len(ended.entered)} fell, {left} left"


def winner_words(race: Race) -> str:
    """The winner, with what it is expected to be worth beside the run that made it a finalist."""
    best = race.finalists[0]
    words = f"winner of the search: {best.formula} (reward {best.rewards[0]:+.3f} in its trial"
    if best.expected is not None:
        words += f", {best.mean:+.3f} over {len(best.seeds)} seeds, {best.expected:+.3f} expected"
    if best.full_val_ap is not None:
        words += f", val AP {best.full_val_ap:.4f} in full"
    return f"{words}); {race.verdict}"


__all__ = ["CONFIDENCE", "FinalistRace", "round_words", "winner_words"]
