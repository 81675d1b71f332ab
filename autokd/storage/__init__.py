"""Everything that a search knows: Optuna studies with AutoKD's attributes, the run's folder, its results.

Torch-free. ``record`` and ``facts`` hold the names of all attributes; nothing else reads or writes them.
"""

from autokd.storage.digests import find_by_digest
from autokd.storage.facts import PromotedStudent, StudyFacts
from autokd.storage.reclaim import Reclaimed, reclaim_running
from autokd.storage.record import TrialRecord, read_record, record_job, record_outcome
from autokd.storage.results import (
    Entry,
    FinalistResult,
    ProxyFidelity,
    Race,
    RaceRound,
    Results,
    SearchSummary,
    TeacherResult,
)
from autokd.storage.run_directory import RunDirectory
from autokd.storage.studies import open_existing, open_study, storage_url

__all__ = [
    "Entry",
    "FinalistResult",
    "PromotedStudent",
    "ProxyFidelity",
    "Race",
    "RaceRound",
    "Reclaimed",
    "Results",
    "RunDirectory",
    "SearchSummary",
    "StudyFacts",
    "TeacherResult",
    "TrialRecord",
    "find_by_digest",
    "open_existing",
    "open_study",
    "read_record",
    "reclaim_running",
    "record_job",
    "record_outcome",
    "storage_url",
]
