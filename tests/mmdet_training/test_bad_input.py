"""What cannot train is refused by a run before it trains or writes anything, with the section and the remedy."""

from __future__ import annotations

import pytest
import torch

from autokd.config import load_config
from autokd.errors import DetectorError
from autokd.study import run_search
from tests.support.runner_cases import CLASSES, CONFIGS

SPACE = """
data: {{root: {root}, train: instances_train.json, val: instances_val.json, image_size_px: [64, 96]}}
teacher: {{{teacher}}}
student: {{framework: mmdet, {student}}}
runtime: {{workers: 0}}
"""
CARAFE = """
_base_ = "{config}"
model = dict(neck=dict(_delete_=True, type="FPN_CARAFE", in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5))
"""


@pytest.fixture
def refused(folder, shapes, tmp_path):
    """The message with which a run of such a pair ends; nothing of it is left."""

    def message(student="config: {folder}/student.py", teacher="train: {{}}", **settings) -> str:
        where = folder(**settings)
        (where / "carafe.py").write_text(CARAFE.format(config=CONFIGS / "gfl.py"))
        sides = {"student": student.format(folder=where), "teacher": teacher.format(folder=where)}
        config = load_config(SPACE.format(root=shapes, **sides))
        with pytest.raises(DetectorError) as error:
            run_search(config, tmp_path / "run", cache_dir=tmp_path / "cache")
        assert not (tmp_path / "run").exists()
        assert not (tmp_path / "cache" / "teachers").exists()
        return str(error.value)

    return message


def test_a_config_that_is_not_there(refused):
    text = refused("config: {folder}/studend.py")
    assert "studend.py" in text
    assert "is no file" in text


def test_a_students_checkpoint_of_another_model(refused):
    """Its teacher would have been trained first."""
    wide = {"model.neck.out_channels": 24, "model.bbox_head.in_channels": 24}
    text = refused("config: {folder}/student.py, checkpoint: {folder}/teacher.pth", options=wide)
    assert text.startswith("student: ")
    assert "the weights do not fit the model" in text


def test_a_teacher_that_does_not_know_the_classes(refused):
    names = (*CLASSES[:-1], "hexagon")
    text = refused(
        teacher=f"framework: mmdet, config: {CONFIGS}/gfl.py, checkpoint: {{folder}}/teacher.pth", names=names
    )
    assert text.startswith("teacher: ")
    assert "cross" in text


def test_an_operator_that_is_absent(refused):
    from autokd.mmcv_ops import provide_mmcv_ops

    if provide_mmcv_ops() == "compiled":
        pytest.skip("a compiled mmcv has every operator")
    text = refused("config: {folder}/carafe.py")
    assert text.startswith("student: ")
    assert "carafe" in text
    assert "mim install onedl-mmcv" in text


def test_trying_detectors_draws_no_random_numbers(folder, shapes):
    from autokd.detectors import try_detectors

    where = folder()
    config = load_config(SPACE.format(root=shapes, student=f"config: {where}/student.py", teacher="train: {}"))
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    try_detectors(config, CLASSES, (64, 96))
    assert torch.equal(torch.rand(3), expected)
