"""at, fgd, mgd and detkds equal their published formulas, computed by NumPy over the levels of a pyramid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autokd.distill import build_distiller
from autokd.presets import load_preset
from tests.support import distill_cases as cases
from tests.support.numpy_formulas import context_block, conv3, scale_mask, softmax

STRIDES = [stride for _, stride in cases.LEVELS.values()]
BOXES = [[[10, 8, 70, 60], [60, 50, 120, 90]], [[20, 20, 100, 80]], []]


def preset_value(name, student, teacher, disturb=False, family=None):
    """The preset's total on a batch with BOXES, and its learned parts by name as NumPy arrays."""
    distiller = build_distiller(load_preset(name, family), student, teacher, num_classes=3)
    if disturb:
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for parameter in distiller.parameters():
                parameter += torch.randn(parameter.shape, generator=generator) * 0.2
    total = distiller(student, teacher, cases.boxes(*BOXES[: len(student.pyramid["p3"])])).total.item()
    return total, {
        key: value.double().numpy() for key, value in distiller.state_dict().items() if torch.is_tensor(value)
    }


def levels_of(*sides):
    """(student, teacher) as float64 arrays, level by level."""
    return list(zip(*([x.detach().double().numpy() for x in side.pyramid.values()] for side in sides)))


@pytest.fixture(params=[1, 3])
def sides(request):
    return [cases.outputs(num_images=request.param, seed=seed) for seed in (0, 1)]


def test_at_is_the_squared_distance_of_unit_attention_maps(sides):
    """AT, section 3.1: Q = vec(mean_c F^2) / its length; the released loss: 1000 mean (Q_S - Q_T)^2."""

    def unit_attention(x):
        flat = (x**2).mean(1).reshape(len(x), -1)
        return flat / np.sqrt((flat**2).sum(1, keepdims=True))

    found, _ = preset_value("at", *sides)
    want = sum(1000 * np.mean((unit_attention(s) - unit_attention(t)) ** 2) for s, t in levels_of(*sides))
    assert found == pytest.approx(want, rel=1e-5)


def attention(x, temperature=0.5):
    """FGD: (H, W) and (C,), N softmax of mean_c |x| and C softmax of mean_s |x|, of one image."""
    cells, channels = np.abs(x).mean(0), np.abs(x).mean((1, 2))
    spatial = cells.size * softmax(cells.ravel() / temperature).reshape(cells.shape)
    return spatial, channels.size * softmax(channels / temperature)


FGD = {
    "anchor_based": (0.5, 1e-3, 5e-4, 5e-4, 5e-6),
    "anchor_free": (0.8, 1.6e-3, 8e-4, 8e-4, 8e-6),
    "two_stage": (0.5, 5e-5, 2.5e-5, 5e-5, 5e-7),
}
"""Temperature, alpha, beta, gamma, lambda of the released configs: RetinaNet, FCOS, Faster R-CNN."""


def fgd(student, teacher, boxes, stride, blocks, constants):
    """FGD of one image on one level: focal, attention and global loss."""
    temperature, alpha, beta, gamma, lambda_ = constants
    (spatial_s, channel_s), (spatial_t, channel_t) = (attention(x, temperature) for x in (student, teacher))
    grid = student.shape[1:]
    # Foreground and background are two masks; scale_mask gives both in one, the background with weight 0 or 1.
    background = scale_mask(boxes, grid, stride, 1.0)
    foreground = scale_mask(boxes, grid, stride, 0.0)
    background = background - foreground
    squares = channel_t[:, None, None] * spatial_t * (student - teacher) ** 2
    focal = alpha * (foreground * squares).sum() + beta * (background * squares).sum()
    of_attention = gamma * (np.abs(channel_s - channel_t).sum() + np.abs(spatial_s - spatial_t).sum())
    everywhere = np.ones(grid, bool)
    context = context_block(student, everywhere, blocks[0]) - context_block(teacher, everywhere, blocks[1])
    return focal + of_attention + lambda_ * (context**2).sum()


@pytest.mark.parametrize("family", FGD)
def test_fgd_is_its_focal_and_global_loss(sides, family):
    found, parts = preset_value("fgd", *sides, disturb=True, family=family)
    prefix = next(key for key in parts if "attention.weight" in key).split("student.")[0]
    want = 0.0
    for level, (student, teacher) in enumerate(levels_of(*sides)):
        heads = (f"{prefix}student.{level}.", f"{prefix}teacher.{level}.")
        blocks = [{key.removeprefix(h): v for key, v in parts.items() if key.startswith(h)} for h in heads]
        num_images = len(student)
        for image in range(num_images):
            loss = fgd(student[image], teacher[image], BOXES[image], STRIDES[level], blocks, FGD[family])
            want += loss / num_images
    assert found == pytest.approx(want, rel=2e-5)


@pytest.mark.parametrize(("family", "weight", "drop"), [("one_stage", 2e-5, 0.65), ("two_stage", 5e-7, 0.45)])
def test_mgd_is_the_squared_distance_of_the_completed_map(sides, family, weight, drop):
    """MGD, section 3.1: the sum over channels and cells by the batch, weights and shares of the released configs."""
    found, parts = preset_value("mgd", *sides, disturb=True, family=family)
    generator = torch.Generator().manual_seed(0)  # the first step's
    prefix = next(key for key in parts if "generators" in key).split("generators")[0]
    want = 0.0
    for level, (student, teacher) in enumerate(levels_of(*sides)):
        kept = (torch.rand(len(student), 1, *student.shape[2:], generator=generator) >= drop).numpy()
        of = [parts[f"{prefix}generators.{level}.{i}.{kind}"] for i in (0, 2) for kind in ("weight", "bias")]
        for left, target in zip(student * kept, teacher):
            completed = conv3(np.maximum(conv3(left, *of[:2]), 0), *of[2:])
            want += weight / len(student) * ((completed - target) ** 2).sum()
    assert found == pytest.approx(want, rel=1e-5)


def unit(x, axes):
    """x by its length over axes; zeros stay."""
    length = np.sqrt((x**2).sum(axes, keepdims=True))
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def over_samples(x):
    """Channel attention with its root, maxima of 2 x 2 cells, zeros beyond the edge, length 1 over the samples."""
    pooled = []
    for image in x:
        scaled = image * np.sqrt(attention(image)[1])[:, None, None]
        scaled = np.pad(scaled, ((0, 0), (0, scaled.shape[1] % 2), (0, scaled.shape[2] % 2)))
        pooled.append(np.max([scaled[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0))
    return unit(np.array(pooled), 0)


def over_patches(x):
    """Patches of 4 x 4 cells, zeros beyond the edge, each channel of a patch of length 1."""
    x = np.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % 4), (0, -x.shape[3] % 4)))
    patches = [[x[..., r : r + 4, c : c + 4] for c in range(0, x.shape[3], 4)] for r in range(0, x.shape[2], 4)]
    return unit(np.array(patches), (-2, -1))


def masks(boxes, grid, stride):
    """1 / (cells of the box) in boxes, and 1 / (cells outside) outside, of one image."""
    foreground = scale_mask(boxes, grid, stride, 0.0)
    return foreground, scale_mask(boxes, grid, stride, 1.0) - foreground


def detkds(family, student, teacher, boxes, stride, kept):
    """The released recipes: RetinaNet, FCOS, Faster R-CNN."""
    total = {"anchor_based": 6, "anchor_free": 5, "two_stage": 2}[family] * np.abs(
        over_samples(student) - over_samples(teacher)
    ).mean()
    if family == "two_stage":
        return total
    of_images = [masks(of_image, student.shape[2:], stride) for of_image in boxes]
    for part, weight in ((0, 2), (1, 1)):
        factor = np.array([both[part] for both in of_images])[:, None]
        if family == "anchor_based":
            ends = [over_patches(x * factor) for x in (student, teacher)]
        else:
            ends = [unit(x * factor * kept[part], 1) for x in (student, teacher)]
        total += weight * np.abs(ends[0] - ends[1]).mean()
    return total


@pytest.mark.parametrize("family", ["anchor_based", "anchor_free", "two_stage"])
def test_detkds_is_the_released_recipe_of_the_family(sides, family):
    found, _ = preset_value("detkds", *sides, family=family)
    generator = torch.Generator().manual_seed(0)  # the first step's
    levels, kept = levels_of(*sides), {}
    if family == "anchor_free":
        # Terms are evaluated in canonical order: the background's mask of every level is drawn first.
        for part in (1, 0):
            for level, (student, _) in enumerate(levels):
                drawn = torch.rand(len(student), 1, *student.shape[2:], generator=generator) >= 0.65
                kept[level, part] = drawn.numpy()
    want = 0.0
    for level, (student, teacher) in enumerate(levels):
        of_level = [kept.get((level, part)) for part in (0, 1)]
        want += detkds(family, student, teacher, BOXES[: len(student)], STRIDES[level], of_level)
    assert found == pytest.approx(want, rel=1e-5)


def test_the_first_term_of_detkds_has_no_gradient_if_a_batch_has_one_image():
    student, teacher = (cases.outputs(num_images=1, seed=seed) for seed in (0, 1))
    distiller = build_distiller(load_preset("detkds", "two_stage"), student, teacher, num_classes=3)
    total = distiller(student, teacher).total
    assert total > 0
    assert not any(part.any() for part in torch.autograd.grad(total, list(student.pyramid.values())))
