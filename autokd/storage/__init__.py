"""Storage of a run: an Optuna study with AutoKD's attributes, the run directory, the results.

``record`` and ``facts`` define the attributes of trials and studies; nothing else reads or writes them. Torch-free.
"""

from autokd.storage.address import PASSWORD_REMEDY, STORAGE_VARIABLE, has_secret, read_address, shown
from autokd.storage.digests import find_by_digest
from autokd.storage.facts import PromotedStudent, StudyFacts
from autokd.storage.grpc_proxy import open_proxy
from autokd.storage.heartbeat import heartbeat
from autokd.storage.in_flight import Reclaimed, ask, is_in_flight, owner_of, reclaim_running
from autokd.storage.progress import RunProgress, StageProgress
from autokd.storage.record import TrialRecord, promoted_of, read_record, record_job, record_outcome
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
from autokd.storage.runs import RunInfo, list_runs
from autokd.storage.student_card import StudentCard
from autokd.storage.studies import open_existing, open_study, storage_url

__all__ = [
    "PASSWORD_REMEDY",
    "STORAGE_VARIABLE",
    "Entry",
    "FinalistResult",
    "PromotedStudent",
    "ProxyFidelity",
    "Race",
    "RaceRound",
    "Reclaimed",
    "Results",
    "RunDirectory",
    "RunInfo",
    "RunProgress",
    "SearchSummary",
    "StageProgress",
    "StudentCard",
    "StudyFacts",
    "TeacherResult",
    "TrialRecord",
    "ask",
    "find_by_digest",
    "has_secret",
    "heartbeat",
    "is_in_flight",
    "list_runs",
    "open_existing",
    "open_proxy",
    "open_study",
    "owner_of",
    "promoted_of",
    "read_address",
    "read_record",
    "reclaim_running",
    "record_job",
    "record_outcome",
    "shown",
    "storage_url",
]
