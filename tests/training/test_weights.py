"""Weights as files, and their digest."""

from __future__ import annotations

import torch

from autokd.training.weights import load_weights, save_weights, weights_digest


def test_a_digest_of_weights_depends_on_content_and_not_on_order():
    weights = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
    assert weights_digest(weights) == weights_digest(dict(reversed(weights.items())))
    for other in (
        {**weights, "w": torch.tensor([1.0, 2.1])},
        {**weights, "w": torch.tensor([[1.0, 2.0]])},
        {**weights, "w": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        {"v": weights["w"], "n": weights["n"]},
    ):
        assert weights_digest(other) != weights_digest(weights)


def test_weights_come_back_as_they_were(tmp_path):
    save_weights(tmp_path / "w.pt", {"w": torch.nn.Parameter(torch.tensor([1.5]))})
    assert load_weights(tmp_path / "w.pt")["w"].tolist() == [1.5]
