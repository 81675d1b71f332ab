"""Predictions of a decoder for reference boxes that are the same for every detector (KD-DETR, arXiv:2211.08071).

Points are drawn once and for all, so that the teacher's predictions for them are stored as any other tap. The content
of a query is the detector's own: its encoder's vector at the center of the box, as two-stage decoders have it.

Legend: B images, C channels, N cells of all levels, P points, M classes of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

NUM_POINTS = 100
"""Shared queries of an image."""
TYPES = ("rt_detr", "rt_detr_v2", "d_fine", "deimv2")
"""Model types whose decoders take reference boxes and contents as they are given."""
_SIDES = (0.05, 0.1, 0.2, 0.4)
"""Sides of the boxes relative to the image: of RT-DETR's anchors, level by level."""
_PLASTIC = 1.32471795724474602596
"""Root of x^3 = x + 1: its powers spread points in a plane evenly (R2 sequence, Roberts 2018)."""


@cache
def shared_points() -> tuple[tuple[float, float, float, float], ...]:
    """Return the reference boxes: center and size relative to the image, spread evenly, in four sizes by turns."""
    points = []
    for index in range(1, NUM_POINTS + 1):
        x, y = (0.5 + index / _PLASTIC) % 1, (0.5 + index / _PLASTIC**2) % 1
        side = _SIDES[index % len(_SIDES)]
        points.append((0.02 + 0.96 * x, 0.02 + 0.96 * y, side, side))
    return tuple(points)


@contextmanager
def recorded_arguments(decoder: nn.Module, wanted: bool) -> Iterator[dict[str, Any]]:
    """Yield what the decoder is called with in a forward within the context; nothing if it is not wanted.

    Args:
        decoder: the model's decoder.
        wanted: whether to record.
    """
    arguments: dict[str, Any] = {}
    if not wanted:
        yield arguments
        return

    def hook(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        arguments.update(kwargs)

    handle = decoder.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield arguments
    finally:
        handle.remove()


def predict_shared(inner: Any, arguments: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Run a decoder on the shared queries.

    Args:
        inner: the model without its loss, with ``enc_output`` and ``decoder``.
        arguments: what the decoder was called with for the same images.

    Returns:
        Class logits (B, P, M), and boxes (B, P, 4) as center and size relative to the input.
    """
    memory_BNC = arguments["encoder_hidden_states"]
    points_P4 = memory_BNC.new_tensor(shared_points())
    cells_P = _cells(arguments["spatial_shapes_list"], memory_BNC.device)
    content_BPC = inner.enc_output(memory_BNC[:, cells_P]).detach()
    given = {
        **arguments,
        "inputs_embeds": content_BPC,
        "reference_points": points_P4.logit().expand(len(memory_BNC), -1, -1),
        "encoder_attention_mask": None,  # of denoising queries
    }
    output = inner.decoder(**given)
    return output.intermediate_logits[:, -1], output.intermediate_reference_points[:, -1]


def _cells(sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """Return the index of the cell at the center of each point, on the level of its size, (P,)."""
    starts = [sum(height * width for height, width in sizes[:level]) for level in range(len(sizes))]
    found = []
    for x, y, side, _ in shared_points():
        level = min(_SIDES.index(side), len(sizes) - 1)
        height, width = sizes[level]
        found.append(starts[level] + int(y * height) * width + int(x * width))
    return torch.tensor(found, device=device)
