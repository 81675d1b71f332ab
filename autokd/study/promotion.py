"""A good student is promoted: it joins the teachers of later trials instead of being thrown away.

BOSS (a search whose trials also learn from the best students of earlier ones) and ORC (a student that is good enough
teaches). Here: after a number of finished trials the best student so far, as its proxy training left it, teaches all
later trials beside the teachers. What is trained with it is told apart everywhere by its digest (``Job.digest``); a
finalist or winner that learned from it learns from it again in every further training.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from autokd.files import copy_file_atomically
from autokd.storage import PromotedStudent, StudyFacts, TrialRecord, read_record
from autokd.study.observer import Observer
from autokd.training import PROMOTED_FOLDER, STUDENT_ARTIFACT, WEIGHTS_FILE, file_digest

if TYPE_CHECKING:
    import optuna


class Promotion:
    """Promotes once in a study; what was promoted stands in the database and in the run directory."""

    def __init__(self, study: optuna.Study, after: int, run_dir: Path, observer: Observer) -> None:
        """after: so many finished trials."""
        self._study = study
        self._after = after
        self._folder = run_dir / PROMOTED_FOLDER
        self._observer = observer
        self._digest = ""

    def digest(self) -> str:
        """That of the promoted student; empty until there is one. Looks whether it is time."""
        if not self._digest:
            self._digest = self._known() or self._promote()
        return self._digest

    def _known(self) -> str:
        """What an earlier sitting, or another driver of the study, has promoted."""
        known = StudyFacts(self._study).promoted
        return known.digest if known is not None else ""

    def _promote(self) -> str:
        found = [read_record(t) for t in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
        trained = [record for record in found if record.reused_from is None and record.value is not None]
        candidates = [record for record in trained if _weights_of(record) is not None]
        if len(trained) < self._after or not candidates:
            return ""
        best = max(candidates, key=lambda record: (record.value, -record.number))
        weights, value = _weights_of(best), best.value
        assert weights is not None, "candidates have weights"
        assert value is not None, "candidates have a value"
        digest = file_digest(weights)
        copy_file_atomically(weights, self._folder / digest / WEIGHTS_FILE)
        StudyFacts(self._study).set_promoted(PromotedStudent(digest, best.number, value))
        self._observer.say(
            f"promotion: the student of trial {best.number} (reward {value:+.3f}) joins the teachers of all later "
            f"trials: {best.formula}"
        )
        return digest


def _weights_of(record: TrialRecord) -> Path | None:
    path = record.outcome.artifacts.get(STUDENT_ARTIFACT) if record.outcome is not None else None
    return Path(path) if path and Path(path).is_file() else None


__all__ = ["Promotion"]
