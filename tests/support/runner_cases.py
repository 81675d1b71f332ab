"""A plain training config of MMDetection on a few generated images, as a user would have it."""

from __future__ import annotations

from pathlib import Path

CONFIGS = Path(__file__).parents[1] / "detectors" / "mmdet" / "configs"
CLASSES = ("disc", "square", "triangle", "star", "ring", "cross")

TRAINING = """
_base_ = "{model}"
classes = {classes}
data_root = "{root}/"
model = dict({head})
pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=(96, 64), keep_ratio=True),
    dict(type="RandomFlip", prob={flip}),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(96, 64), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="CocoDataset",
        data_root=data_root,
        ann_file="instances_train.json",
        data_prefix=dict(img="images/"),
        metainfo=dict(classes=classes),
        pipeline=pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoDataset",
        data_root=data_root,
        ann_file="instances_val.json",
        data_prefix=dict(img="images/"),
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric", ann_file=data_root + "instances_val.json", metric="bbox")
test_evaluator = val_evaluator
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=2, val_interval=2)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05))
param_scheduler = [dict(type="MultiStepLR", by_epoch=True, milestones=[1], gamma=0.1)]
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=1), logger=dict(type="LoggerHook", interval=1))
randomness = dict(seed=0)
"""

DISTILLED = """
_base_ = "student.py"
custom_imports = dict(imports=["autokd.mmdet_training"])
model = dict(
    _delete_=True,
    type="DistilledDetector",
    student={{{{_base_.model}}}},
    teacher={teacher},
    distiller="{distiller}",
    classes={{{{_base_.classes}}}},
)
"""
