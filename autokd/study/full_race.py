"""The last race: full trainings over paired seeds, in which "none", the best presets and the best sums stand.

Sequential halving (Karnin et al., ICML 2013), a best-arm identification with a fixed budget: each round trains the
racers that are left with one more seed, beside "none", and then keeps the better half. The decision rests on shrunken
gains in val AP (``noise``); of distillers that these cannot tell apart the simpler one wins, "none" being the simplest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autokd.jobs import Job, Outcome, make_job
from autokd.metrics import VAL_AP
from autokd.spec import formula
from autokd.storage import FinalistResult, Race, RaceRound
from autokd.study.finalists import Finalist
from autokd.study.noise import Expectation, Shrinkage, expected_rewards, mean_over, residual_noise

TIE = 0.25
"""Gains that differ by less than this part of their difference's posterior standard deviation count as equal: an error
of less than one in ten over a coin's."""
UNKNOWN_NOISE = 0.007
"""Standard deviation of one seed's val AP where no seed was repeated: the middle of .005 to .009, which were measured
on photographs (``experiments/bccd``)."""


class FullRace:
    """A race: run ``jobs``, give their outcomes to ``finish_round``, for each seed; then ask for the winner.

    Args:
        racers: distillers that are trained to the end, best first.
        own_seed: seed with which all of them are trained, in the first round.
        none_races: whether "none" is trained in the first round too; it is in all others.
    """

    def __init__(self, racers: Sequence[Finalist], own_seed: int, *, none_races: bool) -> None:
        self._racers = {each.digest: each for each in racers}
        self._own_seed = own_seed
        self._none_races = none_races
        self._remaining = list(self._racers)
        self._gains: dict[str, dict[int, float]] = {digest: {} for digest in self._racers}
        self._eliminated: dict[str, tuple[int, str]] = {}
        self._rounds: list[RaceRound] = []
        self._num_trainings = 0

    def jobs(self, seed: int) -> list[Job]:
        """Return the jobs of the next round: "none" first, if it races, then the racers that are left.

        Args:
            seed: training seed of the round.
        """
        none = [make_job(None, "full", seed)] if self._has_none(seed) else []
        return none + [self._job(digest, seed) for digest in self._remaining]

    def keep_best(self, count: int) -> None:
        """Eliminate all but the best of the racers that are left.

        Args:
            count: racers that stay.
        """
        shrinkage = self._shrinkage()
        ranked = sorted(self._remaining, key=lambda digest: -self._expected(digest, shrinkage).mean)
        for digest in ranked[count:]:
            self._eliminated[digest] = len(self._rounds), "not among the better half"
        self._remaining = ranked[:count]

    def finish_round(self, seed: int, outcomes: Mapping[str, Outcome]) -> RaceRound:
        """Add the outcomes of a round; racers whose training failed are out.

        Args:
            seed: training seed of the round.
            outcomes: outcomes of ``jobs(seed)`` by job id.

        Returns:
            The round.
        """
        entered = tuple(self._remaining)
        self._num_trainings += len(entered)
        none = _val_ap(outcomes, make_job(None, "full", seed)) if self._has_none(seed) else 0.0
        failed: list[str] = []
        for digest in entered:
            val_ap = _val_ap(outcomes, self._job(digest, seed))
            if val_ap is None:
                failed.append(digest)
                self._eliminated[digest] = len(self._rounds) + 1, f"its full training with seed {seed} failed"
            elif none is not None:
                self._gains[digest][seed] = val_ap - none
        self._remaining = [digest for digest in entered if digest not in failed]
        noise = residual_noise(self._known())
        leader = max(self._remaining, key=self._mean, default="")
        found = RaceRound(
            seed=seed,
            leader=leader,
            entered=entered,
            fell=tuple(failed),
            noise=noise.deviation if noise.freedom else None,
            freedom=noise.freedom,
        )
        self._rounds.append(found)
        return found

    def winner(self) -> Finalist | None:
        """Return the winner; None if it is "none"."""
        shrinkage = self._shrinkage()
        if not self._remaining:
            return None
        expected = {digest: self._expected(digest, shrinkage) for digest in self._remaining}
        best = max(expected.values(), key=lambda each: each.mean)
        if self._none_is_known and best.mean < TIE * best.deviation:
            return None
        tied = [digest for digest, each in expected.items() if _is_tied(best, each)]
        return self._racers[
            min(tied, key=lambda digest: (len(self._racers[digest].spec.terms), -expected[digest].mean))
        ]

    def result(self) -> Race:
        """Return rounds and racers, the winner first."""
        shrinkage, winner = self._shrinkage(), self.winner()

        def key(digest: str) -> tuple[bool, float, float]:
            fell = self._eliminated.get(digest, (math.inf, ""))[0]
            return winner is None or digest != winner.digest, -fell, -self._expected(digest, shrinkage).mean

        return Race(
            finalists=tuple(self._result_of(digest, shrinkage) for digest in sorted(self._racers, key=key)),
            rounds=tuple(self._rounds),
            verdict=self._verdict(winner),
            trainings=self._num_trainings,
            prior_mean=None if shrinkage is None else shrinkage.prior_mean,
            between=None if shrinkage is None else shrinkage.between,
            in_full=True,
        )

    # -------------------------------------------------------------------------------------- deciding

    @property
    def _none_is_known(self) -> bool:
        return any(self._has_none(ended.seed) for ended in self._rounds)

    def _has_none(self, seed: int) -> bool:
        return self._none_races or seed != self._own_seed

    def _job(self, digest: str, seed: int) -> Job:
        return make_job(self._racers[digest].spec, "full", seed)

    def _known(self) -> dict[str, dict[int, float]]:
        return {digest: gains for digest, gains in self._gains.items() if gains}

    def _mean(self, digest: str) -> float:
        gains = self._gains[digest]
        return mean_over(gains, list(gains)) if gains else -math.inf

    def _shrinkage(self) -> Shrinkage | None:
        known = self._known()
        first = {digest: gains[self._own_seed] for digest, gains in known.items() if self._own_seed in gains}
        return expected_rewards(first, known, residual_noise(known), self._own_seed) if first else None

    def _expected(self, digest: str, shrinkage: Shrinkage | None) -> Expectation:
        if shrinkage is not None and digest in shrinkage.expected:
            return shrinkage.expected[digest]
        # Two noises: that of the training, and that of "none".
        return Expectation(self._mean(digest), math.sqrt(2) * UNKNOWN_NOISE)

    def _verdict(self, winner: Finalist | None) -> str:
        if not self._remaining:
            return "every full training failed"
        if winner is None:
            return 'no racer is surely better than "none", which won: no distiller helps here'
        seeds = len(self._gains[winner.digest])
        return f"the best expected val AP of {len(self._racers)} full trainings won, after {seeds} seeds"

    def _result_of(self, digest: str, shrinkage: Shrinkage | None) -> FinalistResult:
        gains = self._gains[digest]
        fell_in, reason = self._eliminated.get(digest, (None, ""))
        expected = shrinkage.expected.get(digest) if shrinkage is not None else None
        return FinalistResult(
            digest=digest,
            formula=formula(self._racers[digest].spec),
            seeds=tuple(gains),
            rewards=tuple(gains.values()),
            mean=self._mean(digest) if gains else None,
            expected=None if expected is None else expected.mean,
            expected_deviation=None if expected is None else expected.deviation,
            fell_in=fell_in,
            reason=reason,
        )


def race_words(race: Race) -> str:
    """Return a line about the end of a race in full trainings.

    Args:
        race: the race.
    """
    if not race.finalists:
        return f"race: {race.verdict}"
    best = race.finalists[0]
    gain = "" if best.mean is None else f" (val AP {best.mean:+.4f} against none over {len(best.seeds)} seeds)"
    return f"race: {best.formula}{gain}; {race.verdict}"


def _val_ap(outcomes: Mapping[str, Outcome], job: Job) -> float | None:
    outcome = outcomes.get(job.id)
    if outcome is None or outcome.status != "finished" or outcome.is_inactive:
        return None
    value = outcome.metrics.get(VAL_AP)
    return None if value is None or not math.isfinite(value) else value


def _is_tied(best: Expectation, other: Expectation) -> bool:
    return best.mean - other.mean <= TIE * math.hypot(best.deviation, other.deviation)


__all__ = ["FullRace", "race_words"]
