"""The search as a driver: it asks Optuna for trials, gives their jobs to a runtime, and tells Optuna their rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from autokd.jobs import RECURRING_CAUSES, Job, Outcome, RecipeName, Report, inactive_words, is_external
from autokd.runtime import WAIT, Wait
from autokd.search import FORGET_ATTR, suggest
from autokd.spec import formula
from autokd.storage import (
    StudyFacts,
    TrialRecord,
    ask,
    find_by_digest,
    promoted_of,
    read_record,
    record_job,
    record_outcome,
)
from autokd.storage.optuna_private import reported_steps, set_intermediate_value, set_trial_attr
from autokd.study.calibration import CalibrationTrials
from autokd.study.full_disk import refuse_full_disk
from autokd.study.observer import Observer, TrialNews
from autokd.study.promotion import Promotion
from autokd.study.reward import Reward
from autokd.study.shared_budget import SharedBudget
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

    Several drivers of one study spend one budget: each counts the trials of all in the database, and what one has fixed
    (the scales) holds for all. A driver that finds the budget spent waits until the others' trials have ended, since
    the finalists come from all; it takes over those of a driver that has died.

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
        self._calibrating = CalibrationTrials(study)
        self._budget = SharedBudget(study, owner)
        evaluated = [t for t in study.get_trials(deepcopy=False) if is_evaluated(t)]
        self._num_ended = len(evaluated)
        values = [t.value for t in evaluated if t.state is TrialState.COMPLETE and t.value is not None]
        self._best: float | None = max(values, default=None)

    def next_job(self) -> Job | Wait | None:
        """Return the next trial's job; None if the budget is spent or the space holds nothing new.

        WAIT: the budget is spent if the trials of other drivers end well.
        """
        self._take_over_scales()
        if self._budget.num_started() >= self._plan.num_trials:
            return WAIT if self._awaits_others() else None
        # Those of an earlier process count: a resumed search must not try again what has exhausted the space.
        for _ in range(self._budget.num_repeats, MAX_REPEATS):
            trial = ask(self._study, self._owner)
            asked = AskedTrial(trial, suggest(trial, self._space), self._promoted_for(trial), reported_steps(trial))
            if not self._answer_duplicate(asked):
                job = self._job(asked)
                record_job(trial, job, owner=self._owner)
                if self._budget.puts_back(trial.number, self._plan.num_trials):
                    return WAIT
                self._asked[job.id] = asked
                return job
        self._observer.say(f"search ends: the last {MAX_REPEATS} suggestions were duplicates, the space is exhausted")
        self._plan = replace(self._plan, num_trials=self._budget.num_started())
        return None

    def _promoted_for(self, trial: optuna.Trial) -> str:
        """Return the digest of the student that teaches in a trial: of one that was interrupted, still the same."""
        known = promoted_of(trial)
        if known is not None or self._promotion is None:
            return known or ""
        return self._promotion.digest()

    def _awaits_others(self) -> bool:
        """Return whether trials of other drivers are in flight; those of dead drivers are taken over."""
        for record in self._budget.take_over():
            self.recover(record)
        return bool(self._budget.others())

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
        in_work: Sequence[AskedTrial | EndedTrial] = [*self._asked.values(), *self._calibrating.mine]
        for other in in_work:
            if other.digest == asked.digest:
                other.pending_duplicates.append(asked)
                return True
        return False

    def on_report(self, report: Report) -> bool:
        """Report the reward so far to Optuna.

        Args:
            report: metrics after an epoch.

        Returns:
            False if Optuna's pruner stops the trial.
        """
        asked = self._asked[report.job_id]
        trial = asked.trial
        if self._reward.scales is None or not self._reward.is_known(report.metrics):
            return True
        if report.epoch not in asked.reported:  # by an earlier process: Optuna warns of a step that is reported twice
            trial.report(self._reward.value(report.metrics, report.epoch), report.epoch)
        return report.epoch >= self._plan.num_epochs or not trial.should_prune()

    def on_outcome(self, outcome: Outcome) -> None:
        """Store the outcome of a trial, then tell Optuna its value or keep the trial for calibration.

        Args:
            outcome: outcome of the trial's job.
        """
        refuse_full_disk(outcome)
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
        self._end(EndedTrial.from_record(record))

    def finish(self) -> Reward:
        """Tell Optuna the trials that still wait for calibration.

        Returns:
            The reward with its scales.
        """
        self._take_over_scales()
        if self._reward.scales is None:
            self._fix_scales()
        return self._reward

    def _end(self, ended: EndedTrial) -> None:
        """Tell Optuna a trial whose outcome is stored, or keep it for calibration."""
        self._take_over_scales()
        if self._reward.scales is not None or ended.outcome.status != "finished":
            self._tell(ended)
            return
        self._calibrating.mine.append(ended)
        if len(self._calibrating.outcomes()) >= min(self._plan.calibration_trials, self._plan.num_trials):
            self._fix_scales()

    def _take_over_scales(self) -> None:
        """Take over the scales that another driver of the study has fixed, which hold for all."""
        if self._reward.scales is None:
            self._reward = replace(self._reward, scales=self._facts.reward_scales)
            if self._reward.scales is not None:
                self._tell_calibrating()

    def _fix_scales(self) -> None:
        """Fix the reward's scales by the calibration trials, and tell Optuna their values."""
        self._reward = self._reward.calibrated(
            self._reward.gains(outcome.metrics, self._plan.num_epochs) for outcome in self._calibrating.outcomes()
        )
        assert self._reward.scales is not None
        # Stored before any trial is told: values under these scales must not exist without them.
        self._facts.set_reward_scales(self._reward.scales)
        self._tell_calibrating()

    def _tell_calibrating(self) -> None:
        for ended in self._calibrating.take():
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
