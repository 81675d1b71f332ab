"""Trainings: the loop, teachers and their caches, measurements, and the evaluator that runs jobs.

- ``loop`` is the one training loop; ``distillation`` and ``optim`` are the parts of its step.
- ``teacher`` obtains teachers and caches their outputs; ``assets`` holds what the trainings of a process share.
- ``measure`` has validation loss, CKA and COCO AP.
- ``parallel`` and ``shards`` let several processes share a training.
- ``checkpoint`` saves a training while it runs, so that it goes on after an interruption.
- ``jobs`` has the two kinds of job; ``evaluator`` runs them in a worker, ``preparation`` goes before a search.
"""

from autokd.training.checkpoint.checkpoints import CHECKPOINTS_FOLDER, CheckpointFile, Checkpoints
from autokd.training.distillation import Distillation
from autokd.training.evaluator import CHECKPOINT_ARTIFACT, TrainingEvaluator, TrainingEvaluatorFactory
from autokd.training.jobs.files import PROMOTED_FOLDER
from autokd.training.jobs.proxy_training import STUDENT_ARTIFACT
from autokd.training.length import Length, recipe_length
from autokd.training.loop import EpochResult, Schedule, StudentExtras, train
from autokd.training.measure.average_precision import AveragePrecision, PrecisionMeter
from autokd.training.measure.validation import Validation, validate
from autokd.training.preparation import Preparation, prepare
from autokd.training.teacher.cache import LiveTeacher, TeacherCache
from autokd.training.teacher.obtain import WEIGHTS_FILE, OnProgress, Teacher, TeacherScore, file_digest

__all__ = [
    "CHECKPOINTS_FOLDER",
    "CHECKPOINT_ARTIFACT",
    "PROMOTED_FOLDER",
    "STUDENT_ARTIFACT",
    "WEIGHTS_FILE",
    "AveragePrecision",
    "CheckpointFile",
    "Checkpoints",
    "Distillation",
    "EpochResult",
    "Length",
    "LiveTeacher",
    "OnProgress",
    "PrecisionMeter",
    "Preparation",
    "Schedule",
    "StudentExtras",
    "Teacher",
    "TeacherCache",
    "TeacherScore",
    "TrainingEvaluator",
    "TrainingEvaluatorFactory",
    "Validation",
    "file_digest",
    "prepare",
    "recipe_length",
    "train",
    "validate",
]
