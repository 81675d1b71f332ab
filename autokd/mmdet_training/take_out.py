"""Taking the student out of a checkpoint of the training, as plain MMDetection loads it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from autokd.detectors.weights_file import read_content
from autokd.errors import DetectorError
from autokd.mmdet_training.distilled import STUDENT


def take_out_student(checkpoint: Path, student: Path) -> Path:
    """Write the student's weights, with the names of its classes, for ``init_detector(student's config, student)``.

    Checkpoints of a training with EMA hold the averaged weights, so the student has these. No code in the file is run.

    Args:
        checkpoint: a checkpoint that mmengine wrote in a training of a ``DistilledDetector``.
        student: the file to write.

    Returns:
        ``student``.

    Raises:
        DetectorError: if the checkpoint is missing or holds no student.
    """
    if not checkpoint.is_file():
        raise DetectorError(f"{checkpoint}: there is no such checkpoint. mmengine writes them into work_dir.")
    content = read_content(checkpoint)
    state = content.get("state_dict", {}) if isinstance(content, dict) else {}
    weights = {name[len(STUDENT) :]: value for name, value in state.items() if name.startswith(STUDENT)}
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise DetectorError(
            f"{checkpoint}: holds no student of a DistilledDetector. Give a checkpoint of that training; out of one of "
            "a plain detector nothing needs to be taken."
        )
    meta = content.get("meta") or {}
    kept = meta.get("dataset_meta") if isinstance(meta, dict) else None
    classes = kept.get("classes") if isinstance(kept, dict) else None
    about = {"dataset_meta": {"classes": tuple(map(str, classes)), "palette": "random"}} if classes else {}
    torch.save({"meta": about, "state_dict": weights}, student)
    return student
