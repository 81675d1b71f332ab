"""Distillation inside a training of MMDetection's own: mmengine's ``Runner``, the user's pipeline and schedule.

A config takes it in by two lines and a wrapped model:

    _base_ = "my_student.py"
    custom_imports = dict(imports=["autokd.mmdet_training"])
    model = dict(
        _delete_=True,
        type="DistilledDetector",
        student={{_base_.model}},
        teacher=dict(config="my_teacher.py", checkpoint="my_teacher.pth"),
        distiller="best_distiller.yaml",
    )

``python -m autokd.mmdet_training work_dirs/.../epoch_12.pth student.pth`` takes the student out of a checkpoint. Lower
floors do not import this package; it may import mmengine.
"""

from autokd.mmcv_ops import provide_mmcv_ops

provide_mmcv_ops()  # before the imports below, which import mmcv's operators

from autokd.mmdet_training.distilled import DistilledDetector  # noqa: E402
from autokd.mmdet_training.take_out import take_out_student  # noqa: E402

__all__ = ["DistilledDetector", "take_out_student"]
