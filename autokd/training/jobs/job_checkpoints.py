"""The checkpoints of a job: their file in the run directory, and the key that says which job it belongs to."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from autokd.config import ProxyRecipe
from autokd.detectors import structure_text
from autokd.files import digest_of
from autokd.jobs import TRAINING_VERSION, Job
from autokd.training.assets import TrainingAssets
from autokd.training.checkpoint.checkpoints import CHECKPOINTS_FOLDER, CheckpointFile, Checkpoints
from autokd.training.shards import RankGroup
from autokd.training.teacher.obtain import file_digest
from autokd.training.unlabeled import unlabeled_images

logger = logging.getLogger(__name__)

_WITHOUT_EFFECT = {"timeout_s", "timeout_factor", "seeds", "baselines", "baseline_gradient_ratio", "calibration_trials"}
"""Settings of a recipe that change nothing in the course of one training."""


def checkpoints_of(job: Job, assets: TrainingAssets, run_dir: Path) -> Checkpoints:
    """Return the checkpoints of a job; those of a training that has none if the configuration wants none.

    All ranks of a training go on from the same state: if they read different ones (a folder that they do not share),
    all begin anew.

    Args:
        job: the job. Its id plays no part: an interrupted trial that is tried again has another one.
        assets: what the job reads.
        run_dir: the run directory.
    """
    every_s = assets.config.runtime.checkpoint_every_s
    key, ranks = job_key(job, assets), RankGroup.current()
    path = run_dir / CHECKPOINTS_FOLDER / f"{key}.checkpoint"
    if every_s is None:
        if job.stop_after is None and not path.exists():
            return Checkpoints()
        every_s = math.inf  # one that is cut off leaves its state for the next, or goes on from one that it finds
    is_cut = job.stop_after is not None
    checkpoints = CheckpointFile(path, key, every_s, keeps_last=is_cut, is_writer=ranks.rank == 0)
    if is_cut and _num_epochs(checkpoints) > (job.stop_after or 0):
        checkpoints.forget_saved()  # that of a later cut
    if not ranks.agree_on(_num_steps(checkpoints)):
        logger.warning("%s: the ranks do not read the same checkpoint, so the training begins anew.", path)
        checkpoints.forget_saved()
    return checkpoints


def job_key(job: Job, assets: TrainingAssets) -> str:
    """Return the digest of everything that a job's training depends on, but for the epoch after which it is cut off.

    All cuts of a full training (``Job.stop_after``) have one key. Of a proxy with ``of_epochs``, that epoch is
    ``epochs``: a training cut off later goes on from the same checkpoint.
    """
    config, recipe, data = assets.config, assets.data.recipe(job.recipe), assets.data.of(job.recipe)
    parts: dict[str, Any] = {
        "job": job.digest,
        "kind": job.recipe,
        "seed": job.seed,
        "student": structure_text(config.student),
        "weights": file_digest(config.student.checkpoint),
        "data": [data.train.fingerprint, data.val.fingerprint],
        "version": TRAINING_VERSION,
    }
    without = set(_WITHOUT_EFFECT)
    if isinstance(recipe, ProxyRecipe):
        if recipe.of_epochs is not None:
            without.add("epochs")
        if recipe.warm_start is not None and recipe.warm_start.epochs > 0:
            parts["warm_start"] = assets.students.warm_start_key(job.seed)
    if job.recipe == "full" and (pipeline := assets.data.pipeline) is not None:
        parts["pipeline"] = pipeline.digest
    if job.spec is not None:
        parts["teachers"] = [teacher.digest for teacher in assets.teachers.all]
        parts["teacher_weights"] = config.teacher_weights
        if (images := unlabeled_images(config.data, data.train)) is not None:
            parts["unlabeled"] = [images.fingerprint, config.data.model_dump()["unlabeled_ratio"]]
    return digest_of(recipe=recipe.model_dump(mode="json", exclude=without), **parts)


def _num_epochs(checkpoints: Checkpoints) -> int:
    """Return the epochs that are complete in a checkpoint."""
    saved = checkpoints.saved
    return 0 if saved is None else int(saved["position"]["epoch"]) - 1


def _num_steps(checkpoints: Checkpoints) -> int:
    saved = checkpoints.saved
    return 0 if saved is None else int(saved["position"]["step"])
