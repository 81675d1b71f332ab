"""Presets of relations equal their published formulas, computed by NumPy with loops over the levels of a pyramid.

Legend: B images, S regions, C channels, H x W cells.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from autokd.detector_outputs import DetectorOutputs
from autokd.distill import build_distiller
from autokd.distill.transforms.adaptation import (
    AdaptedAttention,
    AdaptedCellMean,
    AdaptedChannelMean,
    StudentProjection,
)
from autokd.distill.transforms.non_local import NonLocal
from autokd.presets import load_preset
from tests.support import distill_cases as cases
from tests.support.numpy_formulas import conv3, huber, region_cells

TARGETS = {
    1: cases.boxes([[10, 8, 70, 60], [60, 50, 120, 90], [0, 0, 30, 90]]),
    3: cases.boxes([[10, 8, 70, 60], [60, 50, 120, 90]], [], [[20, 20, 100, 80], [3, 3, 40, 40]]),
}


def found_and_levels(name: str, num_images: int):
    """The preset's value, and student and teacher of each level in float64."""
    student, teacher = (cases.outputs(num_images=num_images, seed=seed) for seed in (0, 1))
    distiller = build_distiller(load_preset(name), student, teacher, num_classes=3)
    found = distiller(student, teacher, TARGETS[num_images]).total.item()
    pairs = zip(student.pyramid.values(), teacher.pyramid.values())
    levels = [tuple(x.detach().double().numpy() for x in pair) for pair in pairs]
    return found, levels, (student, teacher), distiller


def sp(x_BCHW):
    """Rows of inner products of images, each divided by its length."""
    rows = np.array([[(a * b).sum() for b in x_BCHW] for a in x_BCHW])
    return np.array([row / np.sqrt((row**2).sum()) for row in rows])


@pytest.mark.parametrize("num_images", [1, 3])
def test_sp_is_the_squared_distance_of_similarity_matrices_by_the_square_of_the_batch(num_images):
    found, levels, _, _ = found_and_levels("sp", num_images)
    want = sum(3000 * ((sp(s) - sp(t)) ** 2).sum() / num_images**2 for s, t in levels)
    assert found == pytest.approx(want, rel=1e-5, abs=1e-6)
    assert (want > 1) == (num_images > 1), "a single image has no other to be like"


@pytest.mark.parametrize("num_images", [1, 3])
def test_gram_is_the_mean_squared_difference_of_gram_matrices(num_images):
    found, levels, _, _ = found_and_levels("gram", num_images)
    want = 0.0
    for student, teacher in levels:
        gaps = [
            ((s[c] * s[d]).mean() - (t[c] * t[d]).mean()) ** 2
            for s, t in zip(student, teacher)
            for c, d in np.ndindex(6, 6)
        ]
        want += np.mean(gaps)
    assert found == pytest.approx(want, rel=1e-5)


def embeddings(outputs: DetectorOutputs, level: str, num_images: int) -> np.ndarray:
    """(S, C): the mean vector of each box."""
    map_BCHW = outputs.pyramid[level].detach().double().numpy()
    boxes = [(image, box) for image, target in enumerate(TARGETS[num_images]) for box in target["boxes"]]
    return np.array([region_cells(map_BCHW[b], box, outputs.strides[level], 1)[:, 0, 0] for b, box in boxes])


def rkd_distance(s: np.ndarray, t: np.ndarray) -> float:
    pairs = list(permutations(range(len(s)), 2))
    length = {(side, i, j): np.linalg.norm(v[i] - v[j]) for side, v in enumerate((s, t)) for i, j in pairs}
    mean = [np.mean([length[side, i, j] for i, j in pairs]) for side in range(2)]
    return np.mean([huber(length[0, i, j] / mean[0] - length[1, i, j] / mean[1]) for i, j in pairs])


def rkd_angle(s: np.ndarray, t: np.ndarray) -> float:
    def cosine(v, i, j, k):
        first, second = v[i] - v[j], v[k] - v[j]
        return first @ second / (np.linalg.norm(first) * np.linalg.norm(second))

    return np.mean([huber(cosine(s, *ijk) - cosine(t, *ijk)) for ijk in permutations(range(len(s)), 3)])


@pytest.mark.parametrize("num_images", [1, 3])
def test_rkd_is_25_times_the_distance_wise_and_50_times_the_angle_wise_loss(num_images):
    found, _, pair, _ = found_and_levels("rkd", num_images)
    want = 0.0
    for level in pair[0].pyramid:
        vectors = [embeddings(outputs, level, num_images) for outputs in pair]
        want += 25 * rkd_distance(*vectors) + 50 * rkd_angle(*vectors)
    assert found == pytest.approx(want, rel=1e-4)


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


FBKD = {"one_stage": (0.5, 4e-4, 2e-2), "two_stage": (0.1, 7e-5, 4e-3)}
"""Temperature, weight of masked features and of relations, weight of attention, as released."""


def fbkd(student, teacher, blocks, layers, constants):
    """FBKD, section 3: attention-guided distillation (masked features, attention) and non-local distillation.

    ``layers`` are the adaptation layers of the release, in the order of the terms.
    """
    temperature, of_maps, of_attention = constants
    to_features, to_cells, to_channels, to_relation = layers
    masked = spatial = channel = relation = 0.0
    for s, t in zip(student, teacher):
        cells = [np.abs(x).mean(0) for x in (s, t)]
        channels = [np.abs(x).mean((1, 2)) for x in (s, t)]
        spatial_mask = s[0].size * softmax((cells[0] + cells[1]).ravel() / temperature).reshape(s[0].shape)
        channel_mask = len(s) * softmax((channels[0] + channels[1]) / temperature)
        masked += sum(
            (channel_mask[c] * spatial_mask * (t[c] - project(s, to_features)[c]) ** 2).sum() for c in range(len(s))
        )
        spatial += ((conv3(cells[0][None], to_cells["weight"], to_cells["bias"])[0] - cells[1]) ** 2).sum()
        channel += ((to_channels["weight"] @ channels[0] + to_channels["bias"] - channels[1]) ** 2).sum()
        relation += ((project(non_local(s, blocks[0]), to_relation) - non_local(t, blocks[1])) ** 2).sum()
    return of_maps * (np.sqrt(masked) + np.sqrt(relation)) + of_attention * (np.sqrt(spatial) + np.sqrt(channel))


def project(x_CHW: np.ndarray, layer: dict[str, np.ndarray]) -> np.ndarray:
    return np.tensordot(layer["weight"][:, :, 0, 0], x_CHW, 1) + layer["bias"][:, None, None]


def non_local(x_CHW: np.ndarray, block: dict[str, np.ndarray]) -> np.ndarray:
    """x_i + W mean_j <theta x_i, phi x_j> g x_j, with the N x N products written out."""
    x = x_CHW.reshape(len(x_CHW), -1)
    embedded = block["embed.weight"][..., 0] @ x + block["embed.bias"][:, None]
    theta, phi, g = np.split(embedded, 3)
    said = np.array([((theta[:, i] @ phi) * g).mean(1) for i in range(x.shape[1])]).T
    return (x + block["out.weight"][..., 0] @ said + block["out.bias"][:, None]).reshape(x_CHW.shape)


@pytest.mark.parametrize("has_learned", [False, True])
@pytest.mark.parametrize("num_images", [1, 3])
@pytest.mark.parametrize("family", FBKD)
def test_fbkd_is_masked_imitation_attention_imitation_and_non_local_imitation(num_images, has_learned, family):
    student, teacher = (cases.outputs(num_images=num_images, seed=seed) for seed in (0, 1))
    distiller = build_distiller(load_preset("fbkd", family), student, teacher, num_classes=3)
    kinds = (NonLocal, AdaptedAttention, AdaptedChannelMean, AdaptedCellMean, StudentProjection)
    step, *adapted = (next(module for module in distiller.modules() if isinstance(module, kind)) for kind in kinds)
    if has_learned:
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for parameter in [parameter for each in (step, *adapted) for parameter in each.parameters()]:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    found = distiller(student, teacher).total.item()
    want = 0.0
    for i, level in enumerate(student.pyramid):
        maps = [outputs.pyramid[level].detach().double().numpy() for outputs in (student, teacher)]
        blocks = [
            {name: value.double().numpy() for name, value in side[i].state_dict().items()}
            for side in (step.student, step.teacher)
        ]
        layers = [
            {name: value.double().numpy() for name, value in each.layers[i].state_dict().items()} for each in adapted
        ]
        want += fbkd(*maps, blocks, layers, FBKD[family])
    assert found == pytest.approx(want, rel=2e-5)
