"""Published formulas in NumPy, in float64 and with loops, against which operators and presets are compared.

Legend: B images, A candidate boxes of an image, K classes, C channels, H x W cells.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from autokd.detector_outputs import DetectorOutputs
from tests.support import distill_cases as cases


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def numbers(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().double().numpy() for tensor in tensors]


def intersection_over_union(a, b):
    common = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / union, union


def generalized(a, b):
    iou, union = intersection_over_union(a, b)
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return iou - (hull - union) / hull


def expected_labels(teacher: DetectorOutputs, targets) -> np.ndarray:
    """(B, A): the class of the object that the teacher's box overlaps most, -1 below an IoU of 0.5."""
    (candidates_BA4,) = numbers(teacher.boxes)
    labels = np.full(candidates_BA4.shape[:2], -1)
    for b, a in np.ndindex(*labels.shape):
        overlaps = [intersection_over_union(candidates_BA4[b, a], box)[0] for box in numbers(*targets[b]["boxes"])]
        if overlaps and max(overlaps) >= 0.5:
            labels[b, a] = targets[b]["labels"][int(np.argmax(overlaps))]
    return labels


def labeled_targets(teacher: DetectorOutputs) -> list[dict[str, Tensor]]:
    """Objects at some of the teacher's boxes, a little smaller than they are, of different classes."""
    found = []
    for image, candidates in enumerate(teacher.boxes.detach()):
        inside = (candidates[:, :2] >= 0).all(1) & (candidates[:, 2] <= 128) & (candidates[:, 3] <= 96)
        chosen = candidates[inside][3 :: 4 + image]
        sides = chosen[:, 2:] - chosen[:, :2]
        boxes = torch.cat([chosen[:, :2], chosen[:, :2] + 0.85 * sides], 1)
        found.append({"boxes": boxes, "labels": torch.arange(len(boxes)) % cases.NUM_CLASSES})
    return found


def aligned(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    out = np.empty_like(student)
    for channel in range(student.shape[1]):
        s, t = student[:, channel], teacher[:, channel]
        out[:, channel] = (s - s.mean()) / (s.std(ddof=1) + 1e-6) * t.std(ddof=1) + t.mean()
    return out


def crossed(student: DetectorOutputs, teacher: DetectorOutputs) -> tuple[np.ndarray, np.ndarray]:
    """CrossKD, section 3.2: the student's maps, aligned, through the second half of ``cases.TinyHead`` by loops."""
    head = teacher.head
    logits_weight, sides_weight = numbers(head.logits, head.sides)
    logits, boxes = [], []
    for name, stride in teacher.strides.items():
        class_map, box_map = (
            aligned(*numbers(student.head_maps[name][branch], teacher.head_maps[name][branch])) for branch in (0, 1)
        )
        for row, column in np.ndindex(*class_map.shape[2:]):
            left, top, right, bottom = (np.exp(box_map[:, :, row, column] @ sides_weight.T) * stride).T
            x, y = (column + 0.5) * stride, (row + 0.5) * stride
            logits.append(class_map[:, :, row, column] @ logits_weight.T)
            boxes.append(np.stack([x - left, y - top, x + right, y + bottom], 1))
    return np.stack(logits, 1), np.stack(boxes, 1)


def decoupled(student_K, teacher_K, label, alpha, beta, temperature):
    """DKD, eqs. 5-7, for one candidate."""
    p, q = softmax(teacher_K / temperature), softmax(student_K / temperature)
    among_p, among_q = (softmax(np.delete(x, label) / temperature) for x in (teacher_K, student_K))
    target = p[label] * np.log(p[label] / q[label]) + (1 - p[label]) * np.log((1 - p[label]) / (1 - q[label]))
    return temperature**2 * (alpha * target + beta * (among_p * np.log(among_p / among_q)).sum())


def huber(difference: float) -> float:
    return difference**2 / 2 if abs(difference) < 1 else abs(difference) - 0.5


def conv3(x_CHW, weight, bias):
    padded = np.pad(x_CHW, ((0, 0), (1, 1), (1, 1)))
    out = np.empty((len(weight), *x_CHW.shape[1:]))
    for channel, row, column in np.ndindex(out.shape):
        out[channel, row, column] = (weight[channel] * padded[:, row : row + 3, column : column + 3]).sum()
    return out + bias[:, None, None]


def context_block(x_CHW, mask, of):
    """GCNet's simplified block: softmax-weighted mean of the cells, two linear maps with LayerNorm and ReLU."""
    cells = x_CHW[:, mask]
    context = cells @ softmax(of["attention.weight"].ravel() @ cells + of["attention.bias"])
    hidden = of["change.0.weight"] @ context + of["change.0.bias"]
    hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-5) * of["change.1.weight"] + of["change.1.bias"]
    return x_CHW + (of["change.3.weight"] @ np.maximum(hidden, 0) + of["change.3.bias"])[:, None, None]


def box_cells(box, grid, stride):
    """(rows, columns) whose centers the box holds."""
    x1, y1, x2, y2 = (edge / stride for edge in box)
    return [r for r in range(grid[0]) if y1 <= r + 0.5 < y2], [c for c in range(grid[1]) if x1 <= c + 0.5 < x2]


def scale_mask(boxes, grid, stride, background):
    """FGD, section 3.1, for one image: foreground 1/((h + 1)(w + 1)), background share."""
    mask = np.zeros(grid)
    for box in boxes:
        rows, columns = box_cells(box, grid, stride)
        height, width = rows[-1] - rows[0], columns[-1] - columns[0]
        for row in rows:
            for column in columns:
                mask[row, column] = max(mask[row, column], 1 / ((height + 1) * (width + 1)))
    outside = mask == 0
    mask[outside] = background / max(outside.sum(), 1)
    return mask


def interpolation_means(low, high, length, size):
    """(size, length): the mean of each cell's linear interpolation weight over equal parts of [low, high], in cells.

    The weight is linear between cell centers, so that the trapezoidal rule over the centers and both ends is exact.
    """
    centers, edges = np.arange(length) + 0.5, np.linspace(low, high, size + 1)
    found = np.empty((size, length))
    for part, (start, end) in enumerate(pairwise(edges)):
        at = np.unique([start, *centers[(start < centers) & (centers < end)], end])
        for cell in range(length):
            weight = np.interp(at, centers, np.eye(length)[cell])
            found[part, cell] = ((weight[1:] + weight[:-1]) / 2 * np.diff(at)).sum() / (end - start)
    return found


def region_cells(map_CHW, box_px, stride, size):
    """(C, size, size): the means of the interpolated map over the equal parts of a box."""
    x1, y1, x2, y2 = (float(edge) / stride for edge in box_px)
    rows = interpolation_means(y1, y2, map_CHW.shape[1], size)
    columns = interpolation_means(x1, x2, map_CHW.shape[2], size)
    return np.einsum("yh,xw,chw->cyx", rows, columns, map_CHW)


def own_level(box_px, num_levels):
    """Global Knowledge's release: floor(log2(side / 56)) as an index from the finest level on."""
    side = np.sqrt(float((box_px[2] - box_px[0]) * (box_px[3] - box_px[1])))
    return int(np.clip(np.floor(np.log2(side / 56)), 0, num_levels - 1))
