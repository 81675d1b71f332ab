"""The loop of docs/ultralytics.md, run on small models if ultralytics is installed; AutoKD does not depend on it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def _code() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "ultralytics.md").read_text(), re.DOTALL)
    return code


def test_the_loop_is_valid_python_whether_or_not_ultralytics_is_there():
    compile(_code(), "docs/ultralytics.md", "exec")


def test_the_loop_trains_a_student_of_ultralytics():
    ultralytics = pytest.importorskip("ultralytics", reason="AGPL-3.0: pip install ultralytics to run this test")
    names = {"__name__": "loop"}
    exec(_code(), names)
    torch.manual_seed(0)
    student, teacher = (ultralytics.YOLO("yolo11n.yaml").model for _ in range(2))
    from ultralytics.cfg import get_cfg

    student.args = get_cfg()
    batch = {
        "img": torch.rand(2, 3, 64, 64),
        "cls": torch.zeros(2, 1),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.3, 0.3, 0.2, 0.2]]),
        "batch_idx": torch.tensor([0.0, 1.0]),
    }
    losses = list(names["training_steps"](student, teacher, [batch] * 2))
    assert len(losses) == 2
    assert all(loss > 0 for loss in losses)
