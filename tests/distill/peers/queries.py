"""Losses of heads on queries, and of maps beside a backbone: KD-DETR, D-FINE's localization, RT-DETRv4's, Lightly's.

Legend: B images, C channels, H x W cells, K classes, P shared queries, L decoder layers, E bins.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from tests.distill.peers.batches import IMAGE_SIZE_PX, NUM_BINS, NUM_CLASSES, Batch
from tests.distill.peers.complex_step import Array, Leaves, absolute, log_sigmoid, log_softmax, normalized, sigmoid
from tests.distill.peers.geometry import overlaps, paired_overlaps
from tests.distill.peers.maps import adapted

NUM_SHARED, NUM_LAYERS = 12, 2


def with_queries(given: Batch, seed: int = 8) -> Batch:
    """Return the batch with answers to shared queries, and with the student's edges after each decoder layer."""
    random = np.random.default_rng(seed)
    shape = (given.num_images, NUM_SHARED)
    sides: list[dict[str, Array]] = []
    for _ in range(2):
        low = random.uniform(0, 90, size=(*shape, 2))
        boxes = np.concatenate([low, low + random.uniform(5, 50, size=(*shape, 2))], -1)
        sides.append({"shared_logits": random.normal(size=(*shape, NUM_CLASSES)) * 1.5 - 1, "shared_boxes": boxes})
    num = given.student["class_logits"].shape[1]
    layers = {"layer_edge_logits": random.normal(size=(given.num_images, NUM_LAYERS, num, 4, NUM_BINS)) * 2}
    return Batch(
        given.student | sides[0] | layers,
        given.teacher | sides[1],
        given.boxes,
        given.labels,
        given.strides,
        given.image_size_px,
    )


def feature_kd(batch: Batch, student: Leaves) -> Array:
    """RT-DETRv4: 1 - cosine over the channels, a mean over the cells of the coarsest level."""
    level = list(batch.strides)[-1]
    teacher = batch.teacher[level]
    s = normalized(adapted(student[level], level, teacher.shape[1]), 1)
    return (1 - (s * normalized(teacher, 1)).sum(1)).mean()


def lightly(student: Array, teacher: Array, level: str) -> Array:
    """Mean squared difference between vectors of length 1."""
    return ((normalized(student, 1) - normalized(teacher, 1)) ** 2).mean()


def kd_detr(batch: Batch, student: Leaves) -> Array:
    """KD-DETR: binary KL, 5 L1 and 2 (1 - GIoU) of the answers to shared queries, by the teacher's top probability."""
    z_s, z_t = student["shared_logits"], batch.teacher["shared_logits"]
    p = sigmoid(z_t)
    of_classes = p * (log_sigmoid(z_t) - log_sigmoid(z_s)) + (1 - p) * (log_sigmoid(-z_t) - log_sigmoid(-z_s))
    boxes_s, boxes_t = student["shared_boxes"], batch.teacher["shared_boxes"]
    of_sides = absolute(_relative(boxes_s) - _relative(boxes_t)).sum(-1)
    of_overlap = 1 - paired_overlaps(boxes_s, boxes_t, is_generalized=True)
    weights = p.max(-1)
    return (weights * (of_classes.sum(-1) + 5 * of_sides + 2 * of_overlap)).sum() / weights.sum()


def d_fine_localization(batch: Batch, student: Leaves) -> Array:
    """D-FINE's loss_ddf from the teacher's last layer: 1.5 T^2 KL at T 5 of each edge, of every layer."""
    total, weight = 0.0, 0.0
    for image in range(batch.num_images):
        for s, t in zip(*matched(batch, image)):
            of_teacher = log_softmax(batch.teacher["edge_logits"][image, t] / 5, -1)
            of_layers = log_softmax(student["layer_edge_logits"][image, :, s] / 5, -1)
            kl = (np.exp(of_teacher) * (of_teacher - of_layers)).sum(-1)
            score = sigmoid(batch.teacher["class_logits"][image, t]).max()
            total, weight = total + score * kl.sum(), weight + score * kl.size
    return 1.5 * 25 * total / weight


def matched(batch: Batch, image: int) -> tuple[Array, Array]:
    """Return the indices of student and teacher of the least sum of |p_s - p_t| + 5 L1 + 2 (1 - GIoU)."""
    boxes_s, boxes_t = batch.student["boxes"][image], batch.teacher["boxes"][image]
    p_s, p_t = (sigmoid(side["class_logits"][image]) for side in (batch.student, batch.teacher))
    cost = np.abs(p_s[:, None] - p_t[None]).sum(-1)
    cost += 5 * np.abs(_relative(boxes_s)[:, None] - _relative(boxes_t)[None]).sum(-1)
    iou = overlaps(boxes_s, boxes_t)
    area_s, area_t = ((x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (boxes_s, boxes_t))
    sums = area_s[:, None] + area_t[None]
    union = sums / (1 + iou)
    low = np.minimum(boxes_s[:, None, :2], boxes_t[None, :, :2])
    high = np.maximum(boxes_s[:, None, 2:], boxes_t[None, :, 2:])
    cost += 2 * (1 - (iou - 1 + union / (high - low).prod(-1)))
    return linear_sum_assignment(cost)


def _relative(boxes: Array) -> Array:
    height, width = IMAGE_SIZE_PX
    low, high = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([(low + high) / 2, high - low], -1) / np.array([width, height, width, height])
