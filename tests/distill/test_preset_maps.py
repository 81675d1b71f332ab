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


def preset_value(name, student, teacher, disturb=False):
    """The preset's total on a batch with BOXES, and its learned parts by name as NumPy arrays."""
    distiller = build_distiller(load_preset(name), student, teacher, num_classes=3)
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


def fgd(student, teacher, boxes, stride, blocks, alpha=1e-3, beta=5e-4, gamma=1e-3, lambda_=5e-6):
    """FGD of one image on one level: focal, attention and global loss."""
    (spatial_s, channel_s), (spatial_t, channel_t) = attention(student), attention(teacher)
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


def test_fgd_is_its_focal_and_global_loss(sides):
    found, parts = preset_value("fgd", *sides, disturb=True)
    prefix = next(key for key in parts if "attention.weight" in key).split("student.")[0]
    want = 0.0
    for level, (student, teacher) in enumerate(levels_of(*sides)):
        heads = (f"{prefix}student.{level}.", f"{prefix}teacher.{level}.")
        blocks = [{key.removeprefix(h): v for key, v in parts.items() if key.startswith(h)} for h in heads]
        num_images = len(student)
        for image in range(num_images):
            loss = fgd(student[image], teacher[image], BOXES[image], STRIDES[level], blocks)
            want += loss / num_images
    assert found == pytest.approx(want, rel=2e-5)


def test_mgd_is_the_squared_distance_of_the_completed_map(sides):
    """MGD, section 3.1: 2e-5 / B times the sum over channels and cells; cells dropped with probability 0.65."""
    found, parts = preset_value("mgd", *sides, disturb=True)
    generator = torch.Generator().manual_seed(0)  # the first step's
    prefix = next(key for key in parts if "generators" in key).split("generators")[0]
    want = 0.0
    for level, (student, teacher) in enumerate(levels_of(*sides)):
        kept = (torch.rand(len(student), 1, *student.shape[2:], generator=generator) >= 0.65).numpy()
        of = [parts[f"{prefix}generators.{level}.{i}.{kind}"] for i in (0, 2) for kind in ("weight", "bias")]
        for left, target in zip(student * kept, teacher):
            completed = conv3(np.maximum(conv3(left, *of[:2]), 0), *of[2:])
            want += 2e-5 / len(student) * ((completed - target) ** 2).sum()
    assert found == pytest.approx(want, rel=1e-5)


def test_detkds_is_its_recipe(sides):
    """DetKDS: channel attention (FGD's, each side's own), max-pool 2, L2 over samples, mean |s - t|."""

    def recipe(x):
        out = []
        for image in x:
            scaled = image * attention(image)[1][:, None, None]
            height, width = -(-scaled.shape[1] // 2), -(-scaled.shape[2] // 2)
            cells = [
                [scaled[:, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].max((1, 2)) for c in range(width)]
                for r in range(height)
            ]
            out.append(np.array(cells))
        return np.array(out) / np.sqrt((np.array(out) ** 2).sum(0))

    found, _ = preset_value("detkds", *sides)
    want = sum(np.abs(recipe(s) - recipe(t)).mean() for s, t in levels_of(*sides))
    assert found == pytest.approx(want, rel=1e-5)
