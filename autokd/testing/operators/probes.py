"""Maps, regions and assertions that several checks use.

Legend: S samples, C channels, H x W cells.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from autokd.distill.feature_pair import FeaturePair
from autokd.spec.operator import Layout, Operator
from autokd.testing.operators import samples

SHAPES = {
    "ordinary": (3, 5, 6, 8),
    "odd": (2, 3, 5, 7),
    "one image": (1, 4, 6, 6),
    "one cell": (2, 4, 1, 1),
    "one number": (1, 1, 1, 1),
    "one row": (2, 3, 1, 9),
    "no samples": (0, 4, 3, 3),
}
FILLS: dict[str, Callable[[Tensor], Tensor]] = {
    "random": lambda x: x,
    "zeros": torch.zeros_like,
    "constant": lambda x: torch.full_like(x, 0.1),
    "large": lambda x: x * 1e4,
    "tiny": lambda x: x * 1e-6,
    "half zeros": lambda x: x * (torch.arange(x.shape[-1]) % 2),
}


def expect(holds: object, row: Operator, what: str, *where: object) -> None:
    """Raise AssertionError, naming the operator, unless ``holds``.

    Not an ``assert``: a third party may run the suite without pytest, or with ``python -O``.
    """
    if not holds:
        place = f" ({', '.join(map(str, where))})" if where else ""
        raise AssertionError(f"{row.kind} '{row.name}': {what}{place}.")


def maps(shape: tuple[int, ...], fill: str = "random") -> tuple[Tensor, Tensor]:
    """Return a student's map that requires a gradient, and a teacher's; equal at every call."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (FILLS[fill](torch.randn(shape, generator=generator)) for _ in range(2))
    return student.requires_grad_(), teacher


def regions_for(shape: tuple[int, ...]) -> dict[str, Tensor | None]:
    """Return weights (S, H, W) of three regions: None for everywhere, some cells of some samples, no cell."""
    mask = torch.zeros(shape[0], *shape[2:])
    some = mask.clone()
    some[: max(shape[0] // 2, 1), : shape[2] // 2 + 1, :1] = 1
    return {"everywhere": None, "some cells": some, "no cell": mask}


def in_layout(student: Tensor, teacher: Tensor, weights: Tensor | None, layout: Layout) -> FeaturePair:
    """Return the two maps as a feature pair of ``layout``, differentiable with respect to the maps."""
    sides = [samples.as_layout(side, layout, weights) for side in (student, teacher)]
    return samples.piece(sides[0], sides[1], samples.weights_as(layout, weights), layout)


def gradient(value: Tensor, tap: Tensor) -> Tensor:
    """Return d value / d tap."""
    (found,) = torch.autograd.grad(value, tap)
    return found


def disturbed(module: nn.Module, size: float) -> nn.Module:
    """Move the module's parameters, if any, away from where they start, which may be the identity."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * size)
    return module
