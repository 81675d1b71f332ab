"""Each preset equals its published formula, computed by NumPy over the levels of a pyramid."""

from __future__ import annotations

import numpy as np
import pytest

from autokd.distill import build_distiller
from autokd.presets import load_preset, preset_names
from tests.support import distill_cases as cases


def fitnet(student, teacher):
    """FitNets, eq. 3: mean squared error."""
    return np.mean((student - teacher) ** 2)


def pkd(student, teacher, weight=10):
    """PKD's released loss: 0.5 * mean (z_S - z_T)^2, weight 10 (RetinaNet; Faster R-CNN: 6).

    z is per channel over batch and cells, with the unbiased deviation.
    """

    def z(x):
        flat = x.transpose(1, 0, 2, 3).reshape(x.shape[1], -1)
        flat = (flat - flat.mean(1, keepdims=True)) / (flat.std(1, ddof=1, keepdims=True) + 1e-6)
        return flat

    return weight * 0.5 * np.mean((z(student) - z(teacher)) ** 2)


def pkd_by_correlation(student, teacher):
    """PKD, section 3.2: the same as 10 (1 - r) up to (M - 1) / M, r the mean Pearson correlation."""
    channels, count = student.shape[1], student[:, 0].size
    r = [np.corrcoef(student[:, c].ravel(), teacher[:, c].ravel())[0, 1] for c in range(channels)]
    return 10 * (1 - np.mean(r)) * (count - 1) / count


def cwd(student, teacher, temperature=1.0):
    """CWD, eqs. 2-4 and its released loss: weight 10, KL summed over cells, divided by batch and channels."""

    def p(x):
        e = np.exp(x.reshape(*x.shape[:2], -1) / temperature)
        return e / e.sum(-1, keepdims=True)

    divergence = (p(teacher) * np.log(p(teacher) / p(student))).sum()
    return 10 * temperature**2 * divergence / (student.shape[0] * student.shape[1])


def pkd_of_two_stages(student, teacher):
    return pkd(student, teacher, weight=6)


@pytest.mark.parametrize(
    ("name", "family", "formula"),
    [
        ("fitnet", None, fitnet),
        ("pkd", "anchor_free", pkd),
        ("pkd", None, pkd_by_correlation),
        ("pkd", "two_stage", pkd_of_two_stages),
        ("cwd", None, cwd),
    ],
)
@pytest.mark.parametrize("num_images", [1, 3])
def test_preset_equals_its_published_formula(name, family, formula, num_images):
    student, teacher = (cases.outputs(num_images=num_images, seed=seed) for seed in (0, 1))
    found = build_distiller(load_preset(name, family), student, teacher, num_classes=3)(student, teacher).total.item()
    pairs = zip(student.pyramid.values(), teacher.pyramid.values())
    want = sum(formula(*(x.detach().double().numpy() for x in pair)) for pair in pairs)
    assert found == pytest.approx(want, rel=2e-5)


@pytest.mark.parametrize("family", [None, "anchor_free", "two_stage"])
@pytest.mark.parametrize("name", preset_names())
def test_preset_is_canonical_names_its_paper_and_builds(name, family):
    preset = load_preset(name, family)
    assert preset.name == name
    assert "arXiv" in preset.paper or "docs." in preset.paper
    student, teacher = cases.outputs(), cases.outputs(4, seed=1)
    assert build_distiller(preset, student, teacher, num_classes=3)(student, teacher, cases.TARGETS).total > 0
