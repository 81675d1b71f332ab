"""Trainings: the loop, the cached teacher, validation and COCO AP, and the evaluator that runs jobs.

``loop`` is the one training loop; ``teacher_cache`` keeps the teacher's taps; ``validation``, ``cka`` and
``average_precision`` measure; ``provisions`` holds what the trainings of a process share; ``prepare`` makes it
before a search; ``TrainingEvaluatorFactory`` is what a runtime carries to its workers.
"""

from autokd.training.distillation import Distillation
from autokd.training.evaluator import PROMOTED_FOLDER, STUDENT_ARTIFACT, TrainingEvaluator, TrainingEvaluatorFactory
from autokd.training.loop import EpochResult, train
from autokd.training.measure.average_precision import AveragePrecision, PrecisionMeter
from autokd.training.measure.validation import Validation, validate
from autokd.training.preparation import Preparation, prepare
from autokd.training.teacher.cache import LiveTeacher, TeacherCache
from autokd.training.teacher.obtain import WEIGHTS_FILE, OnProgress, Teacher, TeacherScore, file_digest

__all__ = [
    "PROMOTED_FOLDER",
    "STUDENT_ARTIFACT",
    "WEIGHTS_FILE",
    "AveragePrecision",
    "EpochResult",
    "Distillation",
    "LiveTeacher",
    "OnProgress",
    "PrecisionMeter",
    "Preparation",
    "Teacher",
    "TeacherCache",
    "TeacherScore",
    "TrainingEvaluator",
    "TrainingEvaluatorFactory",
    "Validation",
    "file_digest",
    "prepare",
    "train",
    "validate",
]
