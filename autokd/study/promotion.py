"""Student-as-teacher: a good student of an earlier trial joins the teachers of later trials.

After BOSS (trials of a search also learn from the best students of earlier ones) and ORC (a student that is good enough
teaches). Here the best student after a number of finished trials, with the weights that its proxy training gave it,
teaches all later trials beside the teachers. Its digest is part of theirs (``Job.digest``), so that a training with it
is not confused with one of the same distiller without it. Finalists and winners that learned from it do so in every
further training.
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
    """Rule that promotes one student in a study; it is stored in the database and in the run directory.

    Args:
        study: study of the search.
        after: number of finished trials after which the best student is promoted.
        run_dir: run directory, which keeps the student's weights.
        observer: receiver of progress.
    """

    def __init__(self, study: optuna.Study, after: int, run_dir: Path, observer: Observer) -> None:
        self._study = study
        self._after = after
        self._run_dir = run_dir
        self._observer = observer
        self._digest = ""

    def digest(self) -> str:
        """Return the digest of the promoted student, promoting it if it is time; empty: there is none yet."""
        if not self._digest:
            self._digest = self._known() or self._promote()
        return self._digest

    def _known(self) -> str:
        """Return the digest that an earlier process, or another driver of the study, has stored; empty: none."""
        known = StudyFacts(self._study).promoted
        return known.digest if known is not None else ""

    def _promote(self) -> str:
        found = [read_record(t) for t in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
        trained = [record for record in found if record.reused_from is None and record.value is not None]
        candidates = [record for record in trained if self._weights_of(record) is not None]
        if len(trained) < self._after or not candidates:
            return ""
        best = max(candidates, key=lambda record: (record.value, -record.number))
        weights, value = self._weights_of(best), best.value
        assert weights is not None, "candidates have weights"
        assert value is not None, "candidates have a value"
        digest = file_digest(weights)
        copy_file_atomically(weights, self._run_dir / PROMOTED_FOLDER / digest / WEIGHTS_FILE)
        StudyFacts(self._study).set_promoted(PromotedStudent(digest, best.number, value))
        self._observer.say(
            f"promotion: the student of trial {best.number} (reward {value:+.3f}) joins the teachers of all later "
            f"trials: {best.formula}"
        )
        return digest

    def _weights_of(self, record: TrialRecord) -> Path | None:
        if record.outcome is None or record.outcome.is_inactive:  # a student of none has nothing to pass on
            return None
        return record.outcome.file(STUDENT_ARTIFACT, self._run_dir)


__all__ = ["Promotion"]
