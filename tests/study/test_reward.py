"""The reward: gains against "none", standardized by a panel, added."""

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


def test_each_part_of_the_loss_has_a_scale_of_its_own_and_the_sum_counts_for_nothing():
    def measured(boxes, classes, cka):
        return {"val_loss": boxes + classes, "val_loss/boxes": boxes, "val_loss/classes": classes, "cka": cka}

    panel = [measured(0.9, 12.0, 0.5), measured(0.7, 9.0, 0.6)]
    plain = Reward(("val_loss_parts", "cka"), {1: measured(1.0, 10.0, 0.4)})
    reward = plain.calibrated(plain.gains(metrics, 1) for metrics in panel)
    assert reward.metrics == ("val_loss/boxes", "val_loss/classes", "cka")
    gains = {"val_loss/boxes": [0.0, 0.1, 0.3], "val_loss/classes": [0.0, -2.0, 1.0], "cka": [0.0, 0.1, 0.2]}
    wanted = sum(column[2] / np.std(column, ddof=1) for column in gains.values())
    assert reward.value(panel[1], 1) == pytest.approx(wanted)
    assert not reward.is_known({"val_loss": 1.0, "cka": 0.5})


def test_a_loss_without_parts_is_its_own():
    assert Reward(("val_loss_parts", "cka"), NONE).metrics == ("val_loss", "cka")
