"""The narrowest student of each framework survives a training step on the largest common image.

In a child process, since a fault in torch's convolutions ends the process: ``autokd.detectors.memory_format``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.support.mmdet_cases import CONFIGS

_STEP = """
import sys
import torch
from pydantic import TypeAdapter
from autokd.config import Detector
from autokd.detectors import build_detector

torch.set_num_threads(1)
for section in map(TypeAdapter(Detector).validate_json, sys.argv[1:]):
    print(section, file=sys.stderr, flush=True)  # a fault leaves the name of the student behind
    detector = build_detector(section, 3, (256, 256)).train()
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-3)
    target = {"boxes": torch.tensor([[40.0, 50.0, 160.0, 200.0]]), "labels": torch.tensor([1])}
    for _ in range(2):
        losses = detector(torch.rand(2, 3, 256, 256), [target] * 2).losses
        sum(losses.values()).backward()
        optimizer.step()
        assert all(loss.isfinite() for loss in losses.values()), losses
    assert all(value.isfinite().all() for value in detector.state_dict().values())
"""


def _train_two_steps(*sections: dict[str, Any]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _STEP, *map(json.dumps, sections)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_narrow_torchvision_students_train_at_256_px():
    _train_two_steps(
        *(
            {"architecture": architecture, "backbone": {"width": width}, "fpn_channels": 2 * width}
            | {"framework": "torchvision"}
            for architecture in ("fcos", "retinanet", "faster_rcnn")
            for width in (4, 8)
        )
    )


_PAIR = """\
data: {format: shapes, image_size_px: [256, 256], num_train: 4, num_val: 2, num_test: 2}
teacher: {backbone: {width: 16}, train: {epochs: 1, batch_size: 2}}
student: {backbone: {width: 8}, box_init: 1}
full: {epochs: 1, batch_size: 2, seeds: [0], baselines: [none], num_views: 1}
runtime: {workers: 0}
"""


def test_a_narrow_student_is_distilled_at_256_px_from_the_command_line(tmp_path):
    (tmp_path / "pair.yaml").write_text(_PAIR)
    done = subprocess.run(
        [sys.executable, "-m", "autokd", "distill", "pkd", "pair.yaml", "--run-dir", "run"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "AUTOKD_CACHE": "cache"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "student.pt").is_file()


@pytest.mark.skipif(importlib.util.find_spec("mmengine") is None, reason="needs MMDetection")
def test_a_narrow_mmdet_student_trains_at_256_px():
    options = {"model.backbone.base_channels": 4, "model.neck.in_channels": [4, 8, 16, 32]}
    _train_two_steps({"framework": "mmdet", "config": str(CONFIGS / "retinanet.py"), "options": options})
