"""The two states of a trial inside the search driver: asked (being trained) and ended (trained, its value unknown)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autokd.jobs import Outcome, job_digest
from autokd.spec import DistillerSpec
from autokd.storage import TrialRecord, read_record

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


@dataclass
class AskedTrial:
    """A trial that Optuna was asked for, and that has not ended.

    Args:
        trial: trial as Optuna handed it out.
        spec: distiller that it evaluates.
        promoted: digest of an earlier trial's student that teaches too; empty: none does.
        reported: epochs whose reward an earlier process has reported.
        pending_duplicates: later trials of the same digest, which get the outcome of this one.
    """

    trial: optuna.Trial
    spec: DistillerSpec
    promoted: str = ""
    reported: frozenset[int] = frozenset()
    pending_duplicates: list[AskedTrial] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """Digest of what the student learns from: ``Job.digest``."""
        return job_digest(self.spec, self.promoted)

    def ended(self, outcome: Outcome) -> EndedTrial:
        """Return the trial with its outcome; trials that wait for it go with it.

        Args:
            outcome: outcome of its job.
        """
        return EndedTrial(self.trial.number, self.spec, outcome, self.promoted, self.pending_duplicates)


@dataclass
class EndedTrial:
    """A trial whose outcome is stored, but whose value Optuna has not been told.

    It knows its number alone: the process that asked for it may be gone.
    """

    number: int
    spec: DistillerSpec
    outcome: Outcome
    promoted: str = ""
    pending_duplicates: list[AskedTrial] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """Digest of what the student learns from: ``Job.digest``."""
        return job_digest(self.spec, self.promoted)

    @classmethod
    def from_record(cls, record: TrialRecord) -> EndedTrial:
        """Return the trial that an earlier process had stored.

        Args:
            record: its record, with distiller and outcome.
        """
        assert record.outcome is not None, "only trained trials are recovered"
        assert record.spec is not None, "every trial of a search has a distiller"
        return cls(record.number, record.spec, record.outcome, record.promoted)


def is_evaluated(trial: FrozenTrial) -> bool:
    """Return whether a trial counts against the budget: it was trained, and ended for a reason of its own.

    Args:
        trial: trial of the study.
    """
    if not trial.state.is_finished():
        return False
    record = read_record(trial)
    was_interrupted = record.outcome is None or record.outcome.cause == "interrupted"
    return record.reused_from is None and not was_interrupted
