"""Non-maximum suppression through mmcv.ops, beside greedy loops in NumPy and torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.ops


def crowded_boxes(num_boxes: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes of 4-20 pixels on 40x40, many overlapping; distinct scores."""
    corner = torch.rand(num_boxes, 2, generator=generator) * 24
    size = 4 + torch.rand(num_boxes, 2, generator=generator) * 16
    scores = (torch.randperm(num_boxes, generator=generator) + 1) / num_boxes
    return torch.cat((corner, corner + size), dim=1), scores


def overlap(one: np.ndarray, other: np.ndarray, offset: int = 0) -> float:
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]) + offset)
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]) + offset)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def greedy(boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int = 0) -> list[int]:
    kept: list[int] = []
    for index in np.argsort(-scores):
        if all(overlap(boxes[index], boxes[better], offset) <= threshold for better in kept):
            kept.append(int(index))
    return kept


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.6])
def test_nms_keeps_what_a_greedy_loop_keeps(mmcv_ops, generator, threshold, offset):
    boxes, scores = crowded_boxes(60, generator)
    dets, kept = mmcv_ops.nms(boxes, scores, threshold, offset=offset)
    expected = greedy(boxes.double().numpy(), scores.double().numpy(), threshold, offset)
    assert kept.tolist() == expected
    assert 0 < len(expected) < 60
    assert torch.equal(dets, torch.cat((boxes, scores[:, None]), dim=1)[kept])


def test_offset_of_one_pixel_changes_the_overlap_of_touching_boxes(mmcv_ops):
    # Widths 4 and 4 that share no area; with a pixel of width more they share 1 of 5 + 5 - 1 columns.
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [4.0, 0.0, 8.0, 4.0]])
    scores = torch.tensor([0.9, 0.8])
    assert mmcv_ops.nms(boxes, scores, 0.1, offset=0)[1].tolist() == [0, 1]
    assert mmcv_ops.nms(boxes, scores, 0.1, offset=1)[1].tolist() == [0]


def test_nms_honors_score_threshold_and_largest_number(mmcv_ops, generator):
    boxes, scores = crowded_boxes(60, generator)
    expected = [k for k in torchvision.ops.nms(boxes, scores, 0.5).tolist() if scores[k] > 0.4]
    assert mmcv_ops.nms(boxes, scores, 0.5, score_threshold=0.4)[1].tolist() == expected
    assert mmcv_ops.nms(boxes, scores, 0.5, score_threshold=0.4, max_num=3)[1].tolist() == expected[:3]


@pytest.mark.parametrize("split_thr", [10000, 1])
def test_batched_nms_suppresses_within_each_class_only(mmcv_ops, generator, split_thr):
    boxes, scores = crowded_boxes(60, generator)
    labels = torch.arange(60) % 3
    config = {"type": "nms", "iou_threshold": 0.4, "split_thr": split_thr}
    dets, kept = mmcv_ops.batched_nms(boxes, scores, labels, config)
    expected = []
    for label in range(3):
        members = np.flatnonzero(labels.numpy() == label)
        picked = greedy(boxes.double().numpy()[members], scores.double().numpy()[members], 0.4)
        expected += members[picked].tolist()
    assert kept.tolist() == sorted(expected, key=lambda index: -float(scores[index]))
    assert torch.equal(dets[:, 4], scores[kept])


def softened(boxes: np.ndarray, scores: np.ndarray, method: str, threshold: float, sigma: float, least: float):
    """Soft-NMS by its definition: take the best that is left, lower the others, drop what is below ``least``."""
    left = {index: float(score) for index, score in enumerate(scores)}
    kept = []
    while left:
        best = max(left, key=lambda index: left[index])
        kept.append((best, left.pop(best)))
        for index in list(left):
            iou = overlap(boxes[best], boxes[index])
            if method == "gaussian":
                left[index] *= float(np.exp(-(iou**2) / sigma))
            elif iou >= threshold:
                left[index] *= 1 - iou if method == "linear" else 0.0
            if left[index] < least:
                del left[index]
    return kept


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms_equals_its_definition(mmcv_ops, generator, method):
    boxes, scores = crowded_boxes(40, generator)
    dets, kept = mmcv_ops.soft_nms(boxes, scores, 0.3, sigma=0.4, min_score=0.05, method=method)
    expected = softened(boxes.double().numpy(), scores.double().numpy(), method, 0.3, 0.4, 0.05)
    assert kept.tolist() == [index for index, _ in expected]
    assert dets[:, 4].numpy() == pytest.approx([score for _, score in expected], abs=1e-5)
    assert torch.equal(dets[:, :4], boxes[kept])


def test_suppression_of_no_boxes_gives_no_boxes(mmcv_ops):
    nothing = torch.zeros(0, 4)
    assert mmcv_ops.nms(nothing, torch.zeros(0), 0.5)[0].shape == (0, 5)
    assert mmcv_ops.soft_nms(nothing, torch.zeros(0))[0].shape == (0, 5)
