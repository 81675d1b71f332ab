"""Each architecture can learn four pictures."""

from __future__ import annotations

import torch


def _pictures(num_images=4, size=64):
    """Dark noise with one bright square (class 0) or dim tall bar (class 1) each."""
    generator = torch.Generator().manual_seed(0)
    images = 0.2 * torch.rand(num_images, 3, size, size, generator=generator)
    targets = []
    for index in range(num_images):
        x, y = torch.randint(4, 30, (2,), generator=generator).tolist()
        width, height, channel = ((24, 24, 0), (12, 30, 1))[index % 2]
        images[index, channel, y : y + height, x : x + width] += 0.8
        targets.append(
            {
                "boxes": torch.tensor([[x, y, x + width, y + height]], dtype=torch.float32),
                "labels": torch.tensor([index % 2]),
            }
        )
    return images, targets


def test_the_loss_halves_on_four_pictures_within_thirty_steps(architecture, make_detector):
    detector = make_detector(architecture, image_size_px=(64, 64)).train()
    images, targets = _pictures()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=2e-3)
    losses = []
    for _ in range(30):
        loss = detector(images, targets, taps=("fpn",)).task_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) / 3 < 0.5 * sum(losses[:3]) / 3
