"""Attributes that AutoKD stores on an Optuna study: facts of a run, and outcomes of jobs that are no trials.

The names of all study attributes are written here and nowhere else. Each fact is one attribute and one commit, so that
a process that dies leaves either the old value or the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import optuna

from autokd.config import TeacherOutputs
from autokd.jobs import Outcome, RecipeName
from autokd.storage.json_codec import from_json, to_json
from autokd.storage.record import outcome_from_json, outcome_to_json
from autokd.storage.results import Race

_PREFIX = "autokd:"
_OUTCOME_PREFIX = "autokd:outcome:"
_BEAT_PREFIX = "autokd:heartbeat:"


@dataclass(frozen=True, slots=True)
class PromotedStudent:
    """A student of an earlier trial that teaches later trials.

    Args:
        digest: digest of its weights.
        trial: number of the trial that trained it.
        value: reward of that trial.
    """

    digest: str
    trial: int
    value: float


class StudyFacts:
    """Facts of a run, read from and written to its Optuna study.

    Every property reads the database anew, because another driver of the same study may have written meanwhile.

    Args:
        study: study that keeps the facts.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    @property
    def config_digest(self) -> str | None:
        """Digest of the resolved configuration that the study belongs to; None: not bound yet."""
        found = self._get("config_digest")
        return None if found is None else str(found)

    def set_config_digest(self, digest: str) -> None:
        """Store the digest of the configuration.

        Args:
            digest: ``autokd.config.config_digest`` of it.
        """
        self._set("config_digest", digest)

    @property
    def contents(self) -> dict[str, str]:
        """Digests of the files that the configuration names, by their place in it; empty: not stored yet."""
        return dict(self._get("contents") or {})

    def set_contents(self, digests: Mapping[str, str]) -> None:
        """Store the digests of the files that the configuration names.

        Args:
            digests: place in the configuration -> digest of the file's content.
        """
        self._set("contents", digests)

    @property
    def reward_scales(self) -> dict[str, float] | None:
        """Spread by which each part of the reward is divided; None before the calibration trials have ended."""
        found = self._get("reward_scales")
        return dict(found) if found else None

    def set_reward_scales(self, scales: Mapping[str, float]) -> None:
        """Store the scales of the reward, which hold for all drivers of the study from now on.

        Args:
            scales: name of a metric -> spread of its gains, above 0.
        """
        self._set("reward_scales", scales)

    @property
    def teacher_outputs(self) -> dict[RecipeName, TeacherOutputs] | None:
        """Place of the teachers' outputs of each recipe; None before it is decided."""
        found = self._get("teacher_outputs")
        return None if found is None else dict(found)

    def set_teacher_outputs(self, places: Mapping[RecipeName, TeacherOutputs]) -> None:
        """Store the places, which hold for all processes of the run from now on.

        Args:
            places: recipe's name -> "live", "memory" or "disk".
        """
        self._set("teacher_outputs", places)

    @property
    def race(self) -> Race | None:
        """Race of the finalists; None before it has ended, and without a search."""
        found = self._get("race")
        return None if found is None else Race.model_validate(found)

    def set_race(self, race: Race) -> None:
        """Store the race of the finalists.

        Args:
            race: rounds and finalists, the winner first.
        """
        self._set("race", race.model_dump(mode="json"))

    @property
    def seconds_used(self) -> float:
        """Wall time of all processes that have worked on the run one after another, in seconds."""
        return float(self._get("seconds_used") or 0.0)

    def set_seconds_used(self, seconds: float) -> None:
        """Store the wall time of the run.

        Args:
            seconds: total of all processes so far.
        """
        self._set("seconds_used", seconds)

    @property
    def promoted(self) -> PromotedStudent | None:
        """Student that teaches later trials; None: none has been promoted."""
        found = self._get("promoted")
        return None if not found else PromotedStudent(str(found["digest"]), int(found["trial"]), float(found["value"]))

    def set_promoted(self, student: PromotedStudent) -> None:
        """Store which student teaches later trials.

        Args:
            student: its digest, trial and reward.
        """
        self._set("promoted", asdict(student))

    def heartbeats(self, owners: Iterable[str]) -> dict[str, int]:
        """Return how many signs of life the drivers of some runs have given; 0: none yet.

        Args:
            owners: marks of the runs (``RunDirectory.owner``).
        """
        stored = self._study.user_attrs
        return {owner: int(stored.get(_BEAT_PREFIX + owner, 0)) for owner in owners}

    def set_heartbeat(self, owner: str, number: int) -> None:
        """Store a sign of life of a driver.

        Args:
            owner: mark of its run.
            number: another number than the last.
        """
        self._study.set_user_attr(_BEAT_PREFIX + owner, number)

    def job_outcomes(self) -> dict[str, Outcome]:
        """Return the stored outcomes of jobs that are no trials, by job id: references, finalists, full trainings."""
        stored = {name: value for name, value in self._study.user_attrs.items() if name.startswith(_OUTCOME_PREFIX)}
        return {name.removeprefix(_OUTCOME_PREFIX): outcome_from_json(value) for name, value in stored.items()}

    def finished_outcomes(self) -> dict[str, Outcome]:
        """Return the stored outcomes that finished, by job id.

        A resumed run trains the failed ones again, since the reason for the failure may be gone.
        """
        return {job_id: outcome for job_id, outcome in self.job_outcomes().items() if outcome.status == "finished"}

    def add_job_outcome(self, outcome: Outcome) -> None:
        """Store how a job that is no trial ended.

        Each job has an attribute of its own, so that several drivers of one study do not overwrite each other's.

        Args:
            outcome: outcome of the job; an earlier one of the same id is replaced.
        """
        self._study.set_user_attr(_OUTCOME_PREFIX + outcome.job_id, outcome_to_json(outcome))

    def _get(self, name: str) -> Any:
        stored = self._study.user_attrs.get(_PREFIX + name)
        return from_json(stored)

    def _set(self, name: str, value: Any) -> None:
        self._study.set_user_attr(_PREFIX + name, to_json(value))
