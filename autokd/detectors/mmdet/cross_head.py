"""Dense heads of MMDetection cut in two: the tap ``head_maps``, and a frozen head that predicts from such maps.

The cut lies before the activation whose output enters the last block (convolution, normalization, ReLU) of each
branch, as in ``autokd.detectors.torchvision.cross_head``. CrossKD, arXiv:2306.11369, section 3.2.

Legend: B images, C channels, H x W cells, A candidate boxes of an image, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from autokd.detector_outputs import HeadMaps
from autokd.detectors.cross_head import check_head_maps
from autokd.detectors.labels import LabelMap
from autokd.detectors.mmdet.dense_heads import DenseHead
from autokd.tensors import full_precision

CUT_HEADS = ("RetinaHead", "FCOSHead", "ATSSHead", "GFLHead", "RepPointsHead")
"""Heads whose branches ``cls_convs`` and ``reg_convs`` serve all levels and meet nowhere before their last block."""


@contextmanager
def maps_at_cut(head: Any, levels: Sequence[str]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Yield a mapping that one forward of ``head`` within the context fills: level -> (class, box branch's map)."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    by_branch: tuple[list[Tensor], list[Tensor]] = ([], [])
    with ExitStack() as hooks:
        for branch, maps in zip((head.cls_convs, head.reg_convs), by_branch):
            # A copy: mmcv's activations overwrite their input.
            hook = _at_cut(branch).register_forward_pre_hook(lambda _, given, to=maps: to.append(given[0].clone()))
            hooks.callback(hook.remove)
        yield found
    found.update((level, (full_precision(one), full_precision(other))) for level, one, other in zip(levels, *by_branch))


class FrozenMmdetHead(nn.Module):
    """A copy of a dense head, cut in two: see ``autokd.detector_outputs.CrossHead``.

    Its weights and its mode never change; gradient flows through it to the maps.
    """

    def __init__(self, head: Any, reader: DenseHead, strides: Mapping[str, int], labels: LabelMap) -> None:
        super().__init__()
        self._rest = copy.deepcopy(head)
        self._rest.zero_grad(set_to_none=True)
        branches = self._rest.cls_convs, self._rest.reg_convs
        self._begins = nn.ModuleList(branch[:-1] for branch in branches)
        activations = [_activation(branch) for branch in branches]
        for activation in filter(None, activations):
            activation.inplace = False  # it would overwrite the maps that it is given
        ends = [[module for module in (act, branch[-1]) if module] for act, branch in zip(activations, branches)]
        self._class_map = _Given()
        # mmdet's ``forward_single`` gives one map of a level to both branches, but at the cut each branch has its own.
        # So the box branch gets its map as the input, and a module before the class branch puts the other in its place.
        self._rest.cls_convs = nn.ModuleList([self._class_map, *ends[0]])
        self._rest.reg_convs = nn.ModuleList(ends[1])
        self._reader, self._strides, self._labels = reader, dict(strides), labels
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenMmdetHead:
        """Stay in evaluation mode, whatever an enclosing module does."""
        super().train(False)
        self._rest.training = True  # the head alone, not its children: the readers expect the form of training
        return self

    def begin(self, pyramid: Mapping[str, Tensor]) -> HeadMaps:
        """Return the maps at the cut, (B, C, H, W) for each branch of each level."""
        class_begin, box_begin = self._begins
        return {level: (_through(class_begin, tap), _through(box_begin, tap)) for level, tap in pyramid.items()}

    def finish(self, head_maps: HeadMaps, input_size_px: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return (B, A, K) class logits and (B, A, 4) boxes in pixels, in the order of the detector's own taps.

        Args:
            head_maps: maps at the cut, of this detector or of another one.
            input_size_px: (height, width) of the padded input that the maps describe.

        Raises:
            DetectorError: if the levels are not this head's, or their cells do not cover the input.
        """
        check_head_maps(head_maps, self._strides, input_size_px)
        class_maps, box_maps = zip(*(head_maps[level] for level in self._strides))
        self._class_map.maps = list(class_maps)
        outputs = self._rest(tuple(box_maps))
        class_logits_BAM = full_precision(self._reader.class_logits(self._rest, outputs))
        return self._labels.select(class_logits_BAM), full_precision(self._reader.boxes(self._rest, outputs))


class _Given(nn.Module):
    """Returns the next of its maps at each call, whatever the argument; levels are called fine to coarse."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[Tensor] = []

    def forward(self, _: Tensor) -> Tensor:
        return self.maps.pop(0)


def _activation(branch: Any) -> Any:
    """The activation that ends the last block but one; None if there is no such block, or it ends otherwise."""
    if len(branch) < 2:
        return None
    return branch[-2].activate if _ends_in_activation(branch[-2]) else None


def _ends_in_activation(block: Any) -> bool:
    return bool(getattr(block, "with_activation", False)) and block.order[-1] == "act"


def _at_cut(branch: Any) -> nn.Module:
    """The module whose input is the map at the cut."""
    activation = _activation(branch)
    return branch[-1] if activation is None else activation


def _through(blocks: Any, map_BCHW: Tensor) -> Tensor:
    """Return the map at the cut; ``blocks`` are those before the last one of a branch."""
    for block in blocks[:-1]:
        map_BCHW = block(map_BCHW)
    for block in blocks[-1:]:
        map_BCHW = block(map_BCHW, activate=False) if _ends_in_activation(block) else block(map_BCHW)
    return map_BCHW
