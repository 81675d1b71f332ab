"""The reward: gains against "none", standardised by a panel, added."""

from __future__ import annotations

import numpy as np
import pytest

from autokd.study.reward import Reward

NONE = {1: {"val_loss": 2.0, "cka": 0.4}, 2: {"val_loss": 1.5, "cka": 0.5}}
PANEL = [{"val_loss": 1.4, "cka": 0.55}, {"val_loss": 1.2, "cka": 0.60}, {"val_loss": 1.6, "cka": 0.45}]


def reward() -> Reward:
    plain = Reward(("val_loss", "cka"), NONE)
    return plain.calibrated(plain.gains(metrics, 2) for metrics in PANEL)


def test_value_equals_the_sum_of_z_scores_around_none():
    loss_gains = np.array([0.0, *(1.5 - m["val_loss"] for m in PANEL)])
    cka_gains = np.array([0.0, *(m["cka"] - 0.5 for m in PANEL)])
    expected = loss_gains[2] / loss_gains.std(ddof=1) + cka_gains[2] / cka_gains.std(ddof=1)
    assert reward().value(PANEL[1], 2) == pytest.approx(expected)


def test_none_is_worth_nothing_at_every_epoch():
    assert reward().value(NONE[1], 1) == 0.0
    assert reward().value(NONE[2], 2) == 0.0


def test_lower_loss_and_higher_similarity_are_better():
    base = {"val_loss": 1.5, "cka": 0.5}
    assert reward().value(base | {"val_loss": 1.4}, 2) > 0 > reward().value(base | {"cka": 0.4}, 2)


def test_a_part_without_differences_adds_nothing_and_breaks_nothing():
    flat = Reward(("val_loss", "cka"), NONE).calibrated([{"val_loss": 0.1, "cka": 0.0}, {"val_loss": 0.3, "cka": 0.0}])
    assert flat.value({"val_loss": 1.4, "cka": 0.5}, 2) > 0
