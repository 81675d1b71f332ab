"""The batches, learned weights and random masks of ``tests/distill/peers`` as torch has them.

Legend: B images, C channels, H x W cells, A candidates of an image, K classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from autokd.detector_outputs import DetectorOutputs
from autokd.distill import Distiller
from tests.distill.peers.batches import NUM_CLASSES, Batch, drawn, learned
from tests.distill.peers.regions import TAU

LEVELS = ("p3", "p4", "p5")
_PREDICTIONS = ("class_logits", "boxes", "edge_logits", "layer_edge_logits", "shared_logits", "shared_boxes")


class PeersHead(nn.Module):
    """The head of ``tests.distill.peers.crossed``, cut before the first activation of either branch."""

    def __init__(self, strides: Mapping[str, int]) -> None:
        super().__init__()
        self.strides = strides

    def finish(
        self, head_maps: Mapping[str, tuple[Tensor, Tensor]], input_size_px: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return class logits (B, A, K) and boxes (B, A, 4)."""
        logits, boxes = [], []
        for level, maps in head_maps.items():
            of_class, of_box = (
                _convolved(x.relu(), f"head.{branch}", 8, 3).relu() for branch, x in zip(("class", "box"), maps)
            )
            logits.append(_convolved(of_class, "head.logits", NUM_CLASSES, 1).flatten(2).mT)
            stride = self.strides[level]
            sides_BA4 = ((0.3 * _convolved(of_box, "head.sides", 4, 1)).exp() * stride).flatten(2).mT
            rows, columns = (torch.arange(num, dtype=of_box.dtype) + 0.5 for num in of_box.shape[2:])
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            centers_A2 = torch.stack([x.flatten(), y.flatten()], -1) * stride
            boxes.append(torch.cat([centers_A2 - sides_BA4[..., :2], centers_A2 + sides_BA4[..., 2:]], -1))
        return torch.cat(logits, 1), torch.cat(boxes, 1)


def _convolved(x_BCHW: Tensor, role: str, num_out: int, side: int) -> Tensor:
    weight = torch.from_numpy(learned(f"{role}.weight", num_out, x_BCHW.shape[1], side, side)).to(x_BCHW)
    bias = torch.from_numpy(learned(f"{role}.bias", num_out)).to(x_BCHW)
    return functional.conv2d(x_BCHW, weight, bias, padding=side // 2)


def outputs_of(
    batch: Batch, side: str, dtype: torch.dtype = torch.float64
) -> tuple[DetectorOutputs, dict[str, Tensor]]:
    """Return the outputs of "student" or "teacher", and all their numbers by name; these require a gradient."""
    numbers = batch.student if side == "student" else batch.teacher
    leaves = {name: torch.from_numpy(x).to(dtype).requires_grad_() for name, x in numbers.items()}
    taps: dict[str, Any] = {name: leaves[name] for name in _PREDICTIONS if name in leaves}
    if any("." in name for name in leaves):
        head_maps = {level: (leaves[f"class.{level}"], leaves[f"box.{level}"]) for level in batch.strides}
        taps["head_maps"] = head_maps
        if side == "teacher":
            taps["head"] = PeersHead(batch.strides)
            taps["class_logits"], taps["boxes"] = taps["head"].finish(head_maps, batch.image_size_px)
    if side == "student" and batch.proposals is not None:
        taps["proposals"] = torch.from_numpy(batch.proposals)
    pyramid = {level: leaves[level] for level in batch.strides}
    return DetectorOutputs(pyramid, batch.strides, image_size_px=batch.image_size_px, **taps), leaves


def targets_of(batch: Batch) -> list[dict[str, Tensor]]:
    """Return boxes and labels of each image."""
    return [
        {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels)}
        for boxes, labels in zip(batch.boxes, batch.labels)
    ]


_ROLES = {
    "Distiller": [(r"(?:(mlp_)?adapters)\.(?P<level>\d)\.(?P<part>.+)", "{kind}.{level}.{part}")],
    "MaskedGeneration": [(r"generators\.(?P<level>\d)\.(?P<part>.+)", "mgd.{level}.{part}")],
    "GlobalContext": [
        (r"(?P<side>\w+)\.(?P<level>\d)\.attention\.(?P<part>\w+)", "fgd.{side}.{level}.attention.{part}"),
        (r"(?P<side>\w+)\.(?P<level>\d)\.change\.0\.(?P<part>\w+)", "fgd.{side}.{level}.first.{part}"),
        (r"(?P<side>\w+)\.(?P<level>\d)\.change\.1\.(?P<part>\w+)", "fgd.{side}.{level}.norm.{part}"),
        (r"(?P<side>\w+)\.(?P<level>\d)\.change\.3\.(?P<part>\w+)", "fgd.{side}.{level}.second.{part}"),
    ],
    "AdaptedAttention": [(r"layers\.(?P<level>\d)\.(?P<part>\w+)", "fbkd.features.{level}.{part}")],
    "AdaptedCellMean": [(r"layers\.(?P<level>\d)\.(?P<part>\w+)", "fbkd.channels.{level}.{part}")],
    "AdaptedChannelMean": [(r"layers\.(?P<level>\d)\.(?P<part>\w+)", "fbkd.cells.{level}.{part}")],
    "StudentProjection": [(r"layers\.(?P<level>\d)\.(?P<part>\w+)", "fbkd.relation.{level}.{part}")],
    "NonLocal": [
        (r"(?P<side>\w+)\.(?P<level>\d)\.out\.(?P<part>\w+)", "fbkd.{side}.{level}.out.{part}"),
        (r"(?P<side>\w+)\.(?P<level>\d)\.embed\.(?P<part>\w+)", "fbkd.{side}.{level}.theta phi g.{part}"),
    ],
    "Crossing": [(r"adapters\.(?P<place>\d)\.(?P<part>\w+)", "crossing.{place}.{part}")],
    "SemanticGuided": [
        (r"adapters\.\d+\.(?P<part>\w+)", "adapter.sgfi.{part}"),
        (r"embed\.(?P<part>.+)", "sgfi.embed.{part}"),
    ],
    "Contrastive": [(r"project_(?P<side>\w+)\.(?P<part>.+)", "contrast.{side}.{part}")],
}
"""Class of a module -> pattern of a parameter's name, and its role. ``level`` becomes the level's name."""


@torch.no_grad()
def give_learned_weights(distiller: Distiller) -> None:
    """Fill every parameter with the peers' weights of its role; AssertionError if one has no role."""
    unfilled = {id(parameter): name for name, parameter in distiller.named_parameters()}
    for module in distiller.modules():
        for name, parameter in module.named_parameters():
            for pattern, role in _ROLES.get(type(module).__name__, ()):
                if match := re.fullmatch(pattern, name):
                    parameter.copy_(torch.from_numpy(_weights(_named(role, match), parameter)))
                    unfilled.pop(id(parameter), None)
            if name == "log_temperature" and type(module).__name__ == "SemanticGuided":
                parameter.fill_(math.log(TAU))
                unfilled.pop(id(parameter), None)
    assert not unfilled, f"no role: {sorted(unfilled.values())}"


def _named(role: str, match: re.Match[str]) -> str:
    found = {"kind": "mlp" if match.group(0).startswith("mlp") else "adapter"} | match.groupdict()
    if "level" in found:
        found["level"] = LEVELS[int(found["level"])]
    if "place" in found:
        found["place"] = f"{('class', 'box')[int(found['place']) % 2]}.{LEVELS[int(found['place']) // 2]}"
    return role.format(**found)


def _weights(role: str, parameter: Tensor) -> np.ndarray:
    shape = tuple(parameter.shape)
    if " " in role:  # three maps in one parameter
        begin, names, part = role.rsplit(".", 2)
        third = (shape[0] // 3, *shape[1:])
        return np.concatenate([learned(f"{begin}.{name}.{part}", *third) for name in names.split()])
    is_second = role.startswith("contrast") and role.endswith("second.weight")
    return learned(role, *shape, scale=0.1 if is_second else 0.4)


class DrawnMasks:
    """Random masks of the peers, in place of ``draw_kept``: terms in their order, levels within a term."""

    def __init__(self, distiller: Distiller) -> None:
        self._roles: Iterator[str] = (
            f"{name.split('.')[0]}.{level}"
            for name in distiller.names
            if "random_mask" in name or "masked_generation" in name
            for level in LEVELS
        )

    def __call__(self, x_SCHW: Tensor, drop: float, inputs: object) -> Tensor:
        """Return which cells are kept, (S, 1, H, W)."""
        return torch.from_numpy(drawn(next(self._roles), len(x_SCHW), 1, *x_SCHW.shape[2:])) >= drop
