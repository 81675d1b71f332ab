"""Subsets by rule: shares of classes, distances between features, and what must hold of any of them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autokd.data import k_center_indices, stratified_indices, subset_indices
from autokd.errors import DataError


def uneven_set(seed: int, num_images: int = 200) -> np.ndarray:
    """(N, 4) boxes by class: one common, one in every tenth image, one in two images, one in none."""
    rng = np.random.default_rng(seed)
    boxes_NK = np.zeros((num_images, 4), dtype=np.int64)
    boxes_NK[:, 0] = rng.poisson(9, num_images)
    boxes_NK[:, 1] = rng.random(num_images) < 0.1
    boxes_NK[rng.permutation(num_images)[:2], 2] = 1
    return boxes_NK


def share_error(boxes_NK: np.ndarray, indices) -> float:
    """Chi-squared distance of the subset's boxes to its part of all boxes, class by class."""
    part_K, totals_K = boxes_NK[list(indices)].sum(axis=0), boxes_NK.sum(axis=0)
    expected_K = totals_K * len(indices) / len(boxes_NK)
    known = totals_K > 0
    return float(((part_K - expected_K)[known] ** 2 / expected_K[known]).sum())


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
def test_a_stratified_subset_keeps_the_shares_of_boxes_and_shows_every_class(fraction):
    errors = {"random": [], "stratified": []}
    for seed in range(10):
        boxes_NK = uneven_set(seed)
        chosen = stratified_indices(boxes_NK, fraction, seed)
        assert len(chosen) == round(200 * fraction)
        shown = boxes_NK[list(chosen)].sum(axis=0) > 0
        assert shown.tolist() == [True, True, True, False]
        part = boxes_NK[list(chosen), 0].mean() / boxes_NK[:, 0].mean()
        assert part == pytest.approx(1, abs=0.06)  # as many boxes an image as in all
        known_NK = boxes_NK[:, :2]  # the third class cannot keep its share: it has two boxes, and one must be there
        errors["stratified"].append(share_error(known_NK, chosen))
        errors["random"].append(share_error(known_NK, subset_indices(200, fraction, seed)))
    assert np.mean(errors["stratified"]) < 0.5 * np.mean(errors["random"])


def test_a_part_that_is_too_small_for_every_class_shows_the_most_classes_if_that_is_no_error():
    boxes_NK = np.eye(6, dtype=np.int64)
    boxes_NK[3] = [1, 1, 0, 1, 0, 0]
    with pytest.raises(DataError, match="cannot show every class"):
        stratified_indices(boxes_NK, 0.3, 0)
    assert set(stratified_indices(boxes_NK, 0.3, 0, shows_every_class=False)) >= {3}
    assert len(stratified_indices(boxes_NK, 0.3, 0, shows_every_class=False)) == 2


def test_shares_are_exact_where_they_can_be():
    """Half of 20 images of three kinds: the counts of all classes halve exactly."""
    boxes_NK = np.repeat([[4, 0, 0], [2, 2, 0], [0, 2, 4], [2, 0, 0]], 5, axis=0)[:20]
    boxes_NK = np.concatenate([boxes_NK, boxes_NK])
    for seed in range(5):
        chosen = stratified_indices(boxes_NK, 0.5, seed)
        assert share_error(boxes_NK, chosen) < 0.2


def test_every_class_is_shown_by_as_few_images_as_need_be():
    boxes_NK = np.eye(5, dtype=np.int64)[[0, 0, 0, 0, 0, 0, 1, 2, 3, 4]]
    for seed in range(5):
        assert set(range(6, 10)) < set(stratified_indices(boxes_NK, 0.5, seed))
    with pytest.raises(DataError, match=r"4 of 10 images cannot show every class.*takes 5.*at least 0\.5.*random"):
        stratified_indices(boxes_NK, 0.4, 3)


def test_images_without_boxes_are_chosen_too():
    """Otherwise the subset would hold more boxes an image than the set does."""
    boxes_NK = np.array([[3, 1]] * 10 + [[0, 0]] * 30)
    chosen = np.array(stratified_indices(boxes_NK, 0.5, 0))
    assert 4 <= (chosen < 10).sum() <= 6


@given(
    st.integers(1, 40), st.floats(0.01, 1.0), st.integers(0, 3), st.sampled_from(["random", "stratified", "k_center"])
)
@settings(deadline=None, max_examples=60)
def test_a_subset_holds_so_many_different_images_in_rising_order(num_images, fraction, seed, rule):
    rng = np.random.default_rng([seed, num_images])
    boxes_NK, features_NC = rng.integers(1, 3, (num_images, 2)), rng.normal(size=(num_images, 3))
    features_NC[num_images // 2 :] = 0.0  # alike
    choose = {
        "random": lambda: subset_indices(num_images, fraction, seed),
        "stratified": lambda: stratified_indices(boxes_NK, fraction, seed),
        "k_center": lambda: k_center_indices(features_NC, fraction, seed),
    }[rule]
    chosen = choose()
    assert len(chosen) == len(set(chosen)) == max(1, int(np.ceil(num_images * fraction - 1e-9)))
    assert list(chosen) == sorted(chosen)
    assert set(chosen) <= set(range(num_images))
    assert choose() == chosen


def test_a_seed_draws_another_subset():
    boxes_NK, features_NC = uneven_set(0), np.random.default_rng(0).normal(size=(200, 5))
    assert stratified_indices(boxes_NK, 0.2, 0) != stratified_indices(boxes_NK, 0.2, 1)
    assert k_center_indices(features_NC, 0.1, 0) != k_center_indices(features_NC, 0.1, 1)


def farthest_points(features_NC: np.ndarray, first: int, count: int) -> list[int]:
    """Gonzalez's traversal, every distance computed anew at every step."""
    chosen = [first]
    while len(chosen) < count:
        to_chosen = np.linalg.norm(features_NC[:, None] - features_NC[None, chosen], axis=2).min(axis=1)
        chosen.append(int(to_chosen.argmax()))
    return chosen


@pytest.mark.parametrize("seed", range(4))
def test_k_center_takes_the_farthest_image_each_time(seed):
    features_NC = np.random.default_rng(seed).normal(size=(60, 4)) + 100.0
    [first] = k_center_indices(features_NC, 1 / 60, seed)
    assert k_center_indices(features_NC, 0.3, seed) == tuple(sorted(farthest_points(features_NC, first, 18)))


@pytest.mark.parametrize("seed", range(4))
def test_k_center_is_within_twice_the_best_of_all_choices(seed):
    features_NC = np.random.default_rng(seed).normal(size=(11, 2))
    distances_NN = np.linalg.norm(features_NC[:, None] - features_NC[None], axis=2)

    def radius(chosen) -> float:
        return float(distances_NN[list(chosen)].min(axis=0).max())

    best = min(radius(chosen) for chosen in combinations(range(11), 4))
    assert best <= radius(k_center_indices(features_NC, 4 / 11, seed)) <= 2 * best


def test_boxes_by_class_leave_crowds_out(coco):
    coco.data["annotations"].append(
        {"id": 14, "image_id": 3, "category_id": 1, "bbox": [0, 0, 60, 40], "area": 2400, "iscrowd": 1}
    )
    assert coco.load().boxes_by_class().tolist() == [[1, 1], [0, 1], [0, 0]]
