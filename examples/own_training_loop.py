"""A distillation loss in a training loop of one's own: plain PyTorch, detectors that are not AutoKD's.

    python examples/own_training_loop.py

A small fully convolutional detector (the student) learns to find squares, with a larger one as its teacher. AutoKD sees
of both nothing but maps and their strides: ``DetectorOutputs``. The same four lines serve in Lightning's
``training_step``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

import autokd

SIDE_PX, STRIDE, BATCH = 64, 8, 8


class GridDetector(nn.Module):
    """One map of stride 8, and a logit a cell: is there the center of a square?"""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, width, 3, 2, 1), nn.Conv2d(width, width, 3, 2, 1), nn.Conv2d(width, width, 3, 2, 1)]
        self.body = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map and the logits."""
        maps = self.body(images_BCHW)
        return maps, self.head(maps)


def scenes(generator: torch.Generator) -> tuple[Tensor, Tensor, list[dict[str, Tensor]]]:
    """Return noisy images with a bright square each, the grid of its center, and its box."""
    images = 0.3 * torch.rand(BATCH, 3, SIDE_PX, SIDE_PX, generator=generator)
    grid = torch.zeros(BATCH, 1, SIDE_PX // STRIDE, SIDE_PX // STRIDE)
    targets = []
    for index in range(BATCH):
        x, y = torch.randint(0, SIDE_PX - 16, (2,), generator=generator).tolist()
        images[index, :, y : y + 16, x : x + 16] += 0.6
        grid[index, 0, (y + 8) // STRIDE, (x + 8) // STRIDE] = 1
        boxes = torch.tensor([[x, y, x + 16, y + 16]], dtype=torch.float32)
        targets.append({"boxes": boxes, "labels": torch.zeros(1, dtype=torch.int64)})
    return images, grid, targets


def task_loss(logits: Tensor, grid: Tensor) -> Tensor:
    """Return the student's own loss."""
    return functional.binary_cross_entropy_with_logits(logits, grid, pos_weight=torch.tensor(20.0))


def outputs_of(maps: Tensor, loss: Tensor | None) -> autokd.DetectorOutputs:
    """Return what a distiller reads of a detector."""
    losses = None if loss is None else {"task": loss}
    return autokd.DetectorOutputs(pyramid={"p3": maps}, strides={"p3": STRIDE}, losses=losses)


def train(student: GridDetector, teacher: GridDetector | None, steps: int, seed: int = 0) -> list[float]:
    """Train a detector, with distillation if there is a teacher; return its own losses."""
    generator = torch.Generator().manual_seed(seed)
    distiller = None
    parameters = list(student.parameters())
    history = []
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    for _ in range(steps):
        images, grid, targets = scenes(generator)
        maps, logits = student(images)
        loss = task_loss(logits, grid)
        history.append(float(loss))
        total = loss
        if teacher is not None:
            with torch.no_grad():
                outputs_t = outputs_of(teacher(images)[0], None)
            outputs_s = outputs_of(maps, loss)
            if distiller is None:  # the first outputs say which channels its adapter joins
                spec = autokd.load_preset("pkd").with_gradient_ratio(1.0)
                distiller = autokd.build_distiller(spec, student=outputs_s, teacher=outputs_t, num_classes=1)
                optimizer.add_param_group({"params": list(distiller.parameters())})
            total = loss + distiller(outputs_s, outputs_t, targets).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return history


def main(steps: int = 60) -> tuple[float, float]:
    """Train a teacher, then a student without and with it; return the students' last losses."""
    torch.manual_seed(0)
    teacher = GridDetector(24)
    train(teacher, None, 2 * steps, seed=1)
    teacher.eval().requires_grad_(False)
    found = []
    for guide in (None, teacher):
        torch.manual_seed(1)
        found.append(sum(train(GridDetector(8), guide, steps)[-10:]) / 10)
    return found[0], found[1]


if __name__ == "__main__":
    alone, taught = main()
    print(f"loss of the student's last steps: {alone:.3f} alone, {taught:.3f} with the teacher")
