"""What rows of predictions stand for: told from the config, seen in the outputs, and obeyed by the space."""

from __future__ import annotations

import pytest
import torch

from autokd.config import load_config
from autokd.detectors import pair_of, prediction_layout_of, taps_of, taps_of_teachers, unpaired_taps
from autokd.space import restrict_to_taps
from tests.support.mmdet_cases import DENSE, NUM_CLASSES, QUERY, TWO_STAGE, section

DATA = "data: {{format: shapes, image_size_px: [{}, {}]}}\n"


@pytest.mark.parametrize("size", [(96, 128), (100, 141)])
@pytest.mark.parametrize("name", DENSE)
def test_a_heads_rows_are_as_many_as_it_gives(name, size, make):
    detector = make(name)
    with torch.no_grad():
        outputs = detector.eval()(torch.rand(1, 3, *size))
    assert prediction_layout_of(section(name), size).number == outputs.class_logits.shape[1]


@pytest.mark.parametrize("name", TWO_STAGE)
def test_two_stages_have_no_rows(name):
    assert prediction_layout_of(section(name), (96, 128)) is None


@pytest.mark.parametrize("name", QUERY)
def test_queries_stand_for_no_place(name):
    assert prediction_layout_of(section(name), (96, 128)).cells == ()


@pytest.mark.parametrize("architecture", ["fcos", "retinanet"])
@pytest.mark.parametrize("size", [(100, 140), (352, 416)])
def test_torchvision_heads_have_the_rows_that_they_give(architecture, size):
    from autokd.config import TorchvisionDetector
    from autokd.detectors import build_detector

    config = TorchvisionDetector(architecture=architecture, backbone={"width": 4}, fpn_channels=16)
    detector = build_detector(config, NUM_CLASSES, size).eval()
    with torch.no_grad():
        outputs = detector(torch.rand(1, 3, *size))
    assert prediction_layout_of(config, size).number == outputs.class_logits.shape[1]


def reasons_of(
    teacher: str, student: str, size=(96, 128), sources: str = "feature_map, class_logits, localization"
) -> list[str]:
    distances = "l2, iou" if "localization" in sources else "l2"
    space = f"space: {{terms: 1, sources: [{sources}], distances: [{distances}]}}\n"
    text = DATA.format(*size) + f"teacher: {teacher}\nstudent: {student}\n" + space
    config = load_config(text)
    taps = taps_of(config.student), *taps_of_teachers(config)
    return list(restrict_to_taps(config.space, *taps, unpaired=unpaired_taps(config))[1])


def of_mmdet(name: str, checkpoint: str = "null") -> str:
    train = ", train: {}" if checkpoint == "null" else ""
    return f"{{framework: mmdet, config: {section(name).config}, checkpoint: {checkpoint}{train}}}"


@pytest.mark.parametrize(
    ("teacher", "student", "why"),
    [
        ("retinanet", "gfl", "257 (1 a cell on strides 8, 16, 32, 64, 128), the teacher's 2313 (9 a cell"),
        ("deformable_detr", "dino", "queries, which have no place of their own"),
        ("yolox", "gfl", "the teacher's 252 (1 a cell on strides 8, 16, 32)"),
    ],
)
def test_predictions_of_other_rows_leave_the_space_with_the_reason(teacher, student, why):
    found = [
        reason
        for reason in reasons_of(of_mmdet(teacher), of_mmdet(student))
        if "prediction layouts do not match" in reason
    ]
    assert {"class_logits", "localization"} == {reason.split("'")[1] for reason in found}
    assert all(why in reason for reason in found)


@pytest.mark.parametrize(("teacher", "is_left_out"), [("deformable_detr", True), ("retinanet", False)])
def test_scores_are_laid_on_cells_only_if_the_teachers_candidates_lie_there(teacher, is_left_out):
    found = reasons_of(of_mmdet(teacher), of_mmdet("gfl"), sources="feature_map, teacher_confidence")
    words = "source 'teacher_confidence' weighs cells by the teacher's predictions, but the teacher's are queries"
    assert any(words in reason for reason in found) == is_left_out


def test_a_student_of_queries_that_may_be_promoted_lays_no_scores_on_cells():
    space = "space: {terms: 1, sources: [feature_map, teacher_confidence], distances: [l2]}\n"
    text = f"{DATA.format(96, 128)}teacher: {of_mmdet('retinanet')}\nstudent: {of_mmdet('deformable_detr')}\n{space}"
    config = load_config(text + "search: {promote_after: 4}\n")
    (reason,) = pair_of(config).part_of(config.space)[1]
    assert "those of a promoted student are queries" in reason
    assert pair_of(config, searching=False).part_of(config.space)[1] == ()


@pytest.mark.parametrize("teacher", ["fcos", "gfl", "tood", "reppoints"])
def test_heads_of_one_box_a_cell_are_compared(teacher):
    assert not any("do not match" in reason for reason in reasons_of(of_mmdet(teacher), of_mmdet("atss")))


def test_torchvision_heads_of_other_rows_are_not_compared():
    fcos, retinanet = "{architecture: fcos, train: {}}", "{architecture: retinanet, train: {}}"
    assert any("9 a cell" in reason for reason in reasons_of(retinanet, fcos))
    assert not any("do not match" in reason for reason in reasons_of(fcos, fcos))
    assert not any("do not match" in reason for reason in reasons_of(retinanet, retinanet))


def test_a_head_of_mmdet_and_one_of_torchvision_are_compared_where_their_cells_agree():
    fcos = "{architecture: fcos, train: {}}"
    assert any("do not match" in reason for reason in reasons_of(of_mmdet("gfl"), fcos))  # p3 to p7 against p3 to p5
    assert not any("do not match" in reason for reason in reasons_of(of_mmdet("yolox"), fcos))
