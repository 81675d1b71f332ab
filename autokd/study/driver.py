"""The search as a driver: it asks Optuna for trials, gives their jobs to a runtime, and tells Optuna their rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from autokd.jobs import RECURRING_CAUSES, Job, Outcome, RecipeName, Report, inactive_words, is_external
from autokd.search import FORGET_ATTR, suggest
from autokd.spec import formula
from autokd.storage import StudyFacts, TrialRecord, find_by_digest, read_record, record_job, record_outcome
from autokd.storage.optuna_private import set_intermediate_value, set_trial_attr
from autokd.study.observer import Observer, TrialNews
from autokd.study.promotion import Promotion
from autokd.study.reward import Reward
from autokd.study.trials import AskedTrial, EndedTrial, is_evaluated

if TYPE_CHECKING:
    import optuna

    from autokd.space import AnySpace

MAX_REPEATS = 200
"""Number of duplicates in a row after which the space counts as exhausted."""


@dataclass(frozen=True)
class SearchPlan:
    """Size of a search.

    Args:
        num_trials: trials to evaluate in all, those of earlier processes included.
        calibration_trials: number of finished trials that fix the scales of the reward.
        num_epochs: reports of one trial's training.
        seed: training seed of all trials.
        recipe: recipe of the trials' trainings.
        stop_after: epoch after which they are cut off; None: they run to their end.
    """

    num_trials: int
    calibration_trials: int
    num_epochs: int
    seed: int
    recipe: RecipeName = "proxy"
    stop_after: int | None = None


class SearchDriver:
    """Driver of a study until ``plan.num_trials`` are evaluated; duplicates are answered from the database.

    The first finished trials are the calibration trials of the reward: their gains fix its scales. Until then they have
    no value, so they stay in the database as running, with their outcome stored, and are told together.

    Args:
        study: Optuna study, whose sampler suggests and whose pruner stops trials.
        space: space to search.
        reward: reward against training without distillation; its scales may still be unknown.
        plan: size of the search.
        observer: receiver of progress.
        owner: mark of this run, written on each trial, by which a resumed run finds its own.
        promotion: rule by which a good student joins the teachers; None: none does.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: AnySpace,
        reward: Reward,
        plan: SearchPlan,
        observer: Observer,
        owner: str = "",
        promotion: Promotion | None = None,
    ) -> None:
        self._study = study
        self._facts = StudyFacts(study)
        self._space = space
        self._reward = reward
        self._plan = plan
        self._observer = observer
        self._owner = owner
        self._promotion = promotion
        self._asked: dict[str, AskedTrial] = {}
        self._calibrating: list[EndedTrial] = []
        evaluated = [t for t in study.get_trials(deepcopy=False) if is_evaluated(t)]
        self._num_started = self._num_ended = len(evaluated)
        values = [t.value for t in evaluated if t.state is TrialState.COMPLETE and t.value is not None]
        self._best: float | None = max(values, default=None)

    # ------------------------------------------------------------------------------------------- ask

    def next_job(self) -> Job | None:
        """Return the next trial's job, or None if the budget is spent or the space holds nothing new."""
        if self._num_started >= self._plan.num_trials:
            return None
        for _ in range(MAX_REPEATS):
            trial = self._study.ask()
            promoted = self._promotion.digest() if self._promotion is not None else ""
            asked = AskedTrial(trial, suggest(trial, self._space), promoted)
            if not self._answer_duplicate(asked):
                job = self._job(asked)
                record_job(trial, job, owner=self._owner)
                self._asked[job.id] = asked
                self._num_started += 1
                return job
        self._observer.say(f"search ends: the last {MAX_REPEATS} suggestions were duplicates, the space is exhausted")
        self._plan = replace(self._plan, num_trials=self._num_started)
        return None

    def _job(self, asked: AskedTrial) -> Job:
        plan = self._plan
        return Job(
            f"trial-{asked.trial.number:05d}", asked.spec, plan.recipe, plan.seed, asked.promoted, plan.stop_after
        )

    def _answer_duplicate(self, asked: AskedTrial) -> bool:
        """Answer a duplicate from the database, or let it wait for the equal trial that is in work."""
        known = find_by_digest(
            self._study, asked.digest, recipe=self._plan.recipe, seed=self._plan.seed, causes=RECURRING_CAUSES
        )
        if known is not None:
            self._tell_reused(asked, known)
            return True
        in_work: Sequence[AskedTrial | EndedTrial] = [*self._asked.values(), *self._calibrating]
        for other in in_work:
            if other.digest == asked.digest:
                other.pending_duplicates.append(asked)
                return True
        return False

    # ---------------------------------------------------------------------------------------- events

    def on_report(self, report: Report) -> bool:
        """Report the reward so far to Optuna.

        Args:
            report: metrics after an epoch.

        Returns:
            False if Optuna's pruner stops the trial.
        """
        trial = self._asked[report.job_id].trial
        if self._reward.scales is None or not self._reward.is_known(report.metrics):
            return True
        trial.report(self._reward.value(report.metrics, report.epoch), report.epoch)
        return report.epoch >= self._plan.num_epochs or not trial.should_prune()

    def on_outcome(self, outcome: Outcome) -> None:
        """Store the outcome of a trial, then tell Optuna its value or keep the trial for calibration.

        Args:
            outcome: outcome of the trial's job.
        """
        asked = self._asked.pop(outcome.job_id)
        record_outcome(asked.trial, outcome)
        if words := inactive_words(outcome):
            self._observer.say(f"trial {asked.trial.number}: {words}")
        self._end(asked.ended(outcome))

    def recover(self, record: TrialRecord) -> None:
        """Take over a trial whose outcome an earlier process had stored without telling Optuna its value.

        Args:
            record: the trial, with distiller and outcome.
        """
        self._num_started += 1
        self._end(EndedTrial.from_record(record))

    def finish(self) -> Reward:
        """Tell Optuna the trials that still wait for calibration.

        Returns:
            The reward with its scales.
        """
        if self._reward.scales is None:
            self._fix_scales()
        return self._reward

    # ------------------------------------------------------------------------------------------ tell

    def _end(self, ended: EndedTrial) -> None:
        """Tell Optuna a trial whose outcome is stored, or keep it for calibration."""
        if self._reward.scales is None:
            # Another driver of the same study may have fixed the scales meanwhile: they hold for all.
            self._reward = replace(self._reward, scales=self._facts.reward_scales)
        if self._reward.scales is not None or ended.outcome.status != "finished":
            self._tell(ended)
            return
        self._calibrating.append(ended)
        if len(self._calibrating) >= min(self._plan.calibration_trials, self._plan.num_trials):
            self._fix_scales()

    def _fix_scales(self) -> None:
        """Fix the reward's scales by the calibration trials, and tell Optuna their values."""
        trials, self._calibrating = self._calibrating, []
        self._reward = self._reward.calibrated(
            self._reward.gains(ended.outcome.metrics, self._plan.num_epochs) for ended in trials
        )
        assert self._reward.scales is not None
        # Stored before any trial is told: values under these scales must not exist without them.
        self._facts.set_reward_scales(self._reward.scales)
        for ended in trials:
            self._tell(ended)

    def _tell(self, ended: EndedTrial) -> None:
        """Tell Optuna how a trial ended, and the duplicates that wait for it."""
        value = self._value(ended.outcome)
        if value is not None:
            self._report_missing(ended)
            frozen = self._study.tell(ended.number, value)
            if not ended.outcome.is_inactive:
                self._best = value if self._best is None else max(self._best, value)
        else:
            state = TrialState.PRUNED if ended.outcome.status == "pruned" else TrialState.FAIL
            if is_external(ended.outcome.cause):
                # Before the trial is told: Optuna refuses attributes of a finished trial.
                set_trial_attr(self._study, ended.number, FORGET_ATTR, True)
            frozen = self._study.tell(ended.number, state=state)
        self._num_ended += 1
        self._announce(ended, frozen)
        for duplicate in ended.pending_duplicates:
            self._tell_reused(duplicate, frozen)

    def _value(self, outcome: Outcome) -> float | None:
        if outcome.status != "finished":
            return None
        if outcome.is_inactive:
            # Without a term that acts the training is that of "none", whose reward is 0 by definition.
            return 0.0
        value = self._reward.value(outcome.metrics, self._plan.num_epochs)
        return value if math.isfinite(value) else None

    def _report_missing(self, ended: EndedTrial) -> None:
        """Report the rewards after each epoch of a trial that ended before the scales were known."""
        reported = self._study.get_trials(deepcopy=False)[ended.number].intermediate_values
        for report in ended.outcome.reports:
            if report.epoch not in reported and self._reward.is_known(report.metrics):
                value = self._reward.value(report.metrics, report.epoch)
                set_intermediate_value(self._study, ended.number, report.epoch, value)

    def _tell_reused(self, asked: AskedTrial, known: FrozenTrial) -> None:
        """End a duplicate as the equal trial ended, without training it."""
        record_job(asked.trial, self._job(asked), owner=self._owner, reused_from=known.number)
        outcome = read_record(known).outcome
        if outcome is not None:
            record_outcome(asked.trial, replace(outcome, seconds=0.0, reports=()))
        if known.state is TrialState.PRUNED:
            # Samplers know a pruned trial by its last intermediate value alone.
            for epoch, value in known.intermediate_values.items():
                asked.trial.report(value, epoch)
        if known.state is TrialState.COMPLETE:
            self._study.tell(asked.trial, known.value)
        else:
            self._study.tell(asked.trial, state=known.state)

    def _announce(self, ended: EndedTrial, frozen: FrozenTrial) -> None:
        self._observer.trial_ended(
            TrialNews(
                number=frozen.number,
                formula=formula(ended.spec),
                status=ended.outcome.status,
                value=frozen.value if frozen.state is TrialState.COMPLETE else None,
                best=self._best,
                seconds=ended.outcome.seconds,
                done=self._num_ended,
                total=self._plan.num_trials,
                cause=ended.outcome.cause,
            )
        )
