"""Checkpoints load under the present torch, and a plain MMDetection script works with one line in its config."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

pytest.importorskip("mmengine", reason="mmengine is not installed: pip install 'autokd[mmdet]'")


def runner_checkpoint(state: dict) -> dict:
    """What mmengine's Runner saves: torch's default of ``weights_only`` refuses numpy scalars and history buffers."""
    from mmengine.logging import MessageHub

    hub = MessageHub("checkpoint test")
    hub.update_scalar("train/loss", 1.5)
    hub.update_scalar("val/map", np.float64(0.3))
    meta = {
        "epoch": 1,
        "cfg": "model = dict()",
        "dataset_meta": {"classes": ("a",)},
        "hook_msgs": {"best": np.float64(0.3)},
    }
    return {"meta": meta, "state_dict": state, "message_hub": hub.state_dict()}


def mmdetection_2_checkpoint(state: dict) -> dict:
    meta = {"CLASSES": ("a", "b"), "PALETTE": np.zeros((2, 3)), "config": "model = dict()"}
    return {"meta": meta, "state_dict": state}


def checkpoint_with_config(state: dict) -> dict:
    """Some hooks store the parsed config itself."""
    from mmengine.config import ConfigDict

    return {"meta": {"cfg": ConfigDict(a=1)}, "state_dict": state}


@pytest.mark.parametrize("content", [runner_checkpoint, mmdetection_2_checkpoint, checkpoint_with_config, lambda s: s])
def test_checkpoints_of_every_origin_load_in_mmengine(content, tmp_path):
    from mmengine.runner import load_checkpoint

    saved, loaded = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    path = tmp_path / "saved.pth"
    torch.save(content(saved.state_dict()), path)
    load_checkpoint(loaded, str(path), map_location="cpu", strict=True)
    assert torch.equal(loaded.weight, saved.weight)


CONFIG = """
custom_imports = dict(imports=["autokd.mmcv_ops.provided"])
default_scope = "mmdet"
model = dict(
    type="FasterRCNN",
    data_preprocessor=dict(type="DetDataPreprocessor", pad_size_divisor=32),
    backbone=dict(type="ResNet", depth=18, base_channels=8, num_stages=2, strides=(1, 2), dilations=(1, 1),
                  out_indices=(0, 1), norm_cfg=dict(type="BN")),
    neck=dict(type="FPN", in_channels=[8, 16], out_channels=8, num_outs=2),
    rpn_head=dict(
        type="RPNHead", in_channels=8, feat_channels=8,
        anchor_generator=dict(type="AnchorGenerator", scales=[4], ratios=[1.0], strides=[4, 8]),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder"),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True), loss_bbox=dict(type="L1Loss")),
    roi_head=dict(
        type="StandardRoIHead",
        bbox_roi_extractor=dict(type="SingleRoIExtractor", out_channels=8, featmap_strides=[4, 8],
                                roi_layer=dict(type="RoIAlign", output_size=3, sampling_ratio=0)),
        bbox_head=dict(type="Shared2FCBBoxHead", in_channels=8, fc_out_channels=8, roi_feat_size=3, num_classes=2,
                       bbox_coder=dict(type="DeltaXYWHBBoxCoder"),
                       loss_cls=dict(type="CrossEntropyLoss"), loss_bbox=dict(type="L1Loss"))),
    train_cfg=None,
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0),
                  rcnn=dict(score_thr=0.0, nms=dict(type="soft_nms", iou_threshold=0.5), max_per_img=5)))
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type="LoadImageFromFile"), dict(type="Resize", scale=(64, 64), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"))]))
"""

SCRIPT = """
import sys
import numpy as np
import torch
from mmdet.apis import inference_detector, init_detector

torch.set_num_threads(1)
torch.manual_seed(0)
config, checkpoint = sys.argv[1:]
first = init_detector(config, None, device="cpu", palette="random")
torch.save({"state_dict": first.state_dict(), "meta": {"dataset_meta": {"classes": ("a", "b")}}}, checkpoint)
model = init_detector(config, checkpoint, device="cpu", palette="random")
same = all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), model.state_dict().values()))
found = inference_detector(model, np.full((48, 64, 3), 128, np.uint8)).pred_instances
print("loaded", same, len(found.bboxes), model.dataset_meta["classes"])
"""


@pytest.mark.slow
def test_plain_mmdetection_script_works_with_one_line_in_its_config(tmp_path):
    pytest.importorskip("mmdet", reason="mmdet is not installed: pip install 'autokd[mmdet]'")
    (tmp_path / "config.py").write_text(CONFIG)
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "config.py"), str(tmp_path / "weights.pth")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "loaded True 5 ('a', 'b')" in done.stdout, done.stdout + done.stderr
