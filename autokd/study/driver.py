"""The search as a driver: asks Optuna for trials, hands jobs to a runtime, tells what came back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from autokd.outcomes import RECURRING_CAUSES, Job, Outcome, Report, is_external, job_digest
from autokd.search import FORGET_ATTR, suggest
from autokd.spec import DistillerSpec, formula
from autokd.storage import TrialRecord, find_by_digest, get_fact, read_record, record_job, record_outcome, set_fact
from autokd.study.observer import Observer, TrialNews
from autokd.study.promotion import Promotion
from autokd.study.reward import Reward

if TYPE_CHECKING:
    import optuna

    from autokd.space import Space

MAX_REPEATS = 200
"""So many duplicates one after another mean that the space holds nothing new."""


@dataclass
class OpenTrial:
    """A trial between ask and tell; ``twins`` are later trials of the same digest that wait for its outcome.

    ``trial`` is None for one that an earlier driver asked for.
    """

    number: int
    trial: optuna.Trial | None
    spec: DistillerSpec
    outcome: Outcome | None = None
    twins: list[OpenTrial] = field(default_factory=list)
    promoted: str = ""

    @property
    def digest(self) -> str:
        """What the student learns from: ``Job.digest``."""
        return job_digest(self.spec, self.promoted)


@dataclass(frozen=True)
class SearchPlan:
    """How much to search: trials to evaluate in all, the panel's size, epochs of a proxy training, its seed."""

    num_trials: int
    panel_size: int
    num_epochs: int
    seed: int


class SearchDriver:
    """Drives a study until ``plan.num_trials`` are evaluated; duplicates are answered from the database.

    The first few finished trials form the reward's panel. They are told when their spread is known; until then
    they stand in the database as running, with their outcome stored.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        reward: Reward,
        plan: SearchPlan,
        observer: Observer,
        owner: str = "",
        promotion: Promotion | None = None,
    ) -> None:
        self._study = study
        self._space = space
        self._reward = reward
        self._plan = plan
        self._observer = observer
        self._owner = owner
        self._promotion = promotion
        self._open: dict[str, OpenTrial] = {}
        self._panel: list[OpenTrial] = []
        evaluated = [t for t in study.get_trials(deepcopy=False) if is_evaluated(t)]
        self._num_started = self._num_ended = len(evaluated)
        values = [t.value for t in evaluated if t.state is TrialState.COMPLETE and t.value is not None]
        self._best: float | None = max(values, default=None)

    # ---------------------------------------------------------------------------------------- asking

    def next_job(self) -> Job | None:
        """The next job, or None when the budget is spent or the space holds nothing new."""
        if self._num_started >= self._plan.num_trials:
            return None
        for _ in range(MAX_REPEATS):
            trial = self._study.ask()
            promoted = self._promotion.digest() if self._promotion is not None else ""
            opened = OpenTrial(trial.number, trial, suggest(trial, self._space), promoted=promoted)
            if not self._is_answered(opened):
                job = self._job(opened)
                record_job(trial, job, owner=self._owner)
                self._open[job.id] = opened
                self._num_started += 1
                return job
        self._observer.say(f"{MAX_REPEATS} suggestions in a row were known already: the space holds nothing new.")
        self._plan = replace(self._plan, num_trials=self._num_started)
        return None

    def _job(self, opened: OpenTrial) -> Job:
        return Job(f"trial-{opened.number:05d}", opened.spec, "proxy", self._plan.seed, opened.promoted)

    def _is_answered(self, opened: OpenTrial) -> bool:
        """Answer a duplicate from the database, or let it wait for its twin that is being evaluated."""
        known = find_by_digest(self._study, opened.digest, seed=self._plan.seed, causes=RECURRING_CAUSES)
        if known is not None:
            self._tell_reused(opened, known)
            return True
        for other in [*self._open.values(), *self._panel]:
            if other.digest == opened.digest:
                other.twins.append(opened)
                return True
        return False

    # --------------------------------------------------------------------------------------- hearing

    def on_report(self, report: Report) -> bool:
        """Report the reward so far to Optuna; False if its pruner gives the trial up."""
        trial = self._open[report.job_id].trial
        assert trial is not None, "adopted trials have ended"
        if self._reward.scales is None or not self._reward.is_known(report.metrics):
            return True
        trial.report(self._reward.value(report.metrics, report.epoch), report.epoch)
        return report.epoch >= self._plan.num_epochs or not trial.should_prune()

    def on_outcome(self, outcome: Outcome) -> None:
        """Store the outcome and tell its value, or keep it for the panel."""
        opened = self._open.pop(outcome.job_id)
        opened.outcome = outcome
        assert opened.trial is not None, "adopted trials have ended"
        record_outcome(opened.trial, outcome)
        self._settle(opened)

    def adopt(self, record: TrialRecord) -> None:
        """Take in a trial whose outcome an earlier driver had stored but not told."""
        assert record.outcome is not None
        assert record.spec is not None
        self._num_started += 1
        self._settle(OpenTrial(record.number, None, record.spec, record.outcome, promoted=record.promoted))

    def finish(self) -> Reward:
        """Tell what the panel still holds; return the reward with its scales."""
        if self._reward.scales is None:
            self._fix_scales()
        return self._reward

    # ---------------------------------------------------------------------------------------- telling

    def _settle(self, opened: OpenTrial) -> None:
        """Tell a trial whose outcome is stored, or keep it for the panel.

        Another driver of the same study may have fixed the scales meanwhile: they hold for all.
        """
        assert opened.outcome is not None
        if self._reward.scales is None:
            self._reward = replace(self._reward, scales=get_fact(self._study, "reward_scales"))
        if self._reward.scales is not None or opened.outcome.status != "finished":
            self._close(opened)
            return
        self._panel.append(opened)
        if len(self._panel) >= min(self._plan.panel_size, self._plan.num_trials):
            self._fix_scales()

    def _fix_scales(self) -> None:
        """Fix the reward's scales by the panel, and tell its trials."""
        panel, self._panel = self._panel, []
        gains = [
            self._reward.gains(opened.outcome.metrics, self._plan.num_epochs)
            for opened in panel
            if opened.outcome is not None
        ]
        self._reward = self._reward.calibrated(gains)
        assert self._reward.scales is not None
        set_fact(self._study, "reward_scales", self._reward.scales)
        for opened in panel:
            self._close(opened)

    def _close(self, opened: OpenTrial) -> None:
        """Tell Optuna how a trial ended, and its twins with it."""
        outcome = opened.outcome
        assert outcome is not None
        value = self._value(outcome)
        if outcome.status == "finished" and value is not None:
            self._report_missing(opened.number, outcome)
            frozen = self._study.tell(opened.number, value)
            self._best = value if self._best is None else max(self._best, value)
        else:
            state = TrialState.PRUNED if outcome.status == "pruned" else TrialState.FAIL
            if is_external(outcome.cause):
                trial_id = self._study.get_trials(deepcopy=False)[opened.number]._trial_id
                self._study._storage.set_trial_user_attr(trial_id, FORGET_ATTR, True)
            frozen = self._study.tell(opened.number, state=state)
        self._num_ended += 1
        self._announce(opened, frozen)
        for twin in opened.twins:
            self._tell_reused(twin, frozen)

    def _value(self, outcome: Outcome) -> float | None:
        if outcome.status != "finished":
            return None
        value = self._reward.value(outcome.metrics, self._plan.num_epochs)
        return value if math.isfinite(value) else None

    def _report_missing(self, number: int, outcome: Outcome) -> None:
        """Intermediate values of a trial that ended before the scales were known."""
        trial, storage = self._study.get_trials(deepcopy=False)[number], self._study._storage
        for report in outcome.reports:
            if report.epoch not in trial.intermediate_values and self._reward.is_known(report.metrics):
                value = self._reward.value(report.metrics, report.epoch)
                storage.set_trial_intermediate_value(trial._trial_id, report.epoch, value)

    def _tell_reused(self, opened: OpenTrial, known: FrozenTrial) -> None:
        """End a duplicate as its twin ended, without training."""
        assert opened.trial is not None, "adopted trials have an outcome of their own"
        record_job(opened.trial, self._job(opened), owner=self._owner, reused_from=known.number)
        outcome = read_record(known).outcome
        if outcome is not None:
            record_outcome(opened.trial, replace(outcome, seconds=0.0, reports=()))
        if known.state is TrialState.PRUNED:
            # Its last intermediate value is all that samplers have of a pruned trial.
            for epoch, value in known.intermediate_values.items():
                opened.trial.report(value, epoch)
        if known.state is TrialState.COMPLETE:
            self._study.tell(opened.trial, known.value)
        else:
            self._study.tell(opened.trial, state=known.state)

    def _announce(self, opened: OpenTrial, frozen: FrozenTrial) -> None:
        outcome = opened.outcome
        assert outcome is not None
        self._observer.trial_ended(
            TrialNews(
                number=frozen.number,
                formula=formula(opened.spec),
                status=outcome.status,
                value=frozen.value if frozen.state is TrialState.COMPLETE else None,
                best=self._best,
                seconds=outcome.seconds,
                done=self._num_ended,
                total=self._plan.num_trials,
                cause=outcome.cause,
            )
        )


def is_evaluated(trial: FrozenTrial) -> bool:
    """Whether a trial counts against the budget: it was trained and ended for a reason of its own."""
    if not trial.state.is_finished():
        return False
    record = read_record(trial)
    was_interrupted = record.outcome is None or record.outcome.cause == "interrupted"
    return record.reused_from is None and not was_interrupted
