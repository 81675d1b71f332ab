"""Dense heads cut in two inside their branches: the tap ``head_maps``, and a frozen head that predicts from such maps.

The cut lies before the activation whose output enters the last block (convolution, normalization, ReLU) of each
branch's tower, so that maps are aligned before it: an aligned map has negative numbers, which no block behind an
activation has seen. A tower of one block is cut before it, at the pyramid itself. CrossKD, arXiv:2306.11369, section
3.2 and its released code.

Legend: B images, C channels, H x W cells, A candidate boxes of an image, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from autokd.detector_outputs import HeadMaps
from autokd.detectors.cross_head import check_head_maps
from autokd.detectors.torchvision.anchors import AnchorTable

Decode = Callable[[Tensor, Tensor], Tensor]
"""(B, A, 4) regressed numbers, (A, 4) anchors -> (B, A, 4) xyxy px."""


def _branches(head: Any) -> tuple[Any, Any]:
    return head.classification_head, head.regression_head


def _layers(tower: nn.Sequential) -> list[nn.Module]:
    """The layers of a tower: torchvision's FCOS lists them, its RetinaNet lists blocks of them."""
    return [layer for part in tower for layer in (part if isinstance(part, nn.Sequential) else (part,))]


def _cut(layers: list[nn.Module]) -> int:
    """Index of the activation before the last convolution; 0 if the tower has one block."""
    last = max(i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d))
    return max(last - 1, 0)


@contextmanager
def maps_at_cut(head: Any, pyramid: Mapping[str, Tensor]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Yield a mapping that one forward of ``head`` within the context fills: level -> (class, box branch's map)."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    by_branch: tuple[list[Tensor], list[Tensor]] = ([], [])
    hooks = []
    for branch, maps in zip(_branches(head), by_branch):
        layers = _layers(branch.conv)
        cut = _cut(layers)
        if cut == 0:
            maps.extend(pyramid.values())
        else:
            # A copy: RetinaNet's activation overwrites its input.
            hooks.append(layers[cut].register_forward_pre_hook(lambda _, given, to=maps: to.append(given[0].clone())))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
    found.update(zip(pyramid, zip(*by_branch)))


class FrozenCrossHead(nn.Module):
    """A copy of a torchvision dense head, cut in two: see ``autokd.detector_outputs.CrossHead``.

    Its weights and its mode never change; gradient flows through it to the maps.
    """

    def __init__(self, head: Any, anchors: AnchorTable, strides: Mapping[str, int], decode: Decode) -> None:
        super().__init__()
        self._rest = copy.deepcopy(head)
        self._rest.zero_grad(set_to_none=True)
        begins = []
        for branch in _branches(self._rest):
            layers = _layers(branch.conv)
            cut = _cut(layers)
            begins.append(nn.Sequential(*layers[:cut]))
            if isinstance(activation := layers[cut], nn.ReLU):
                activation.inplace = False  # it would overwrite the maps that it is given
            branch.conv = nn.Sequential(*layers[cut:])
        self._begins = nn.ModuleList(begins)
        self._anchors = copy.deepcopy(anchors)
        self._strides = dict(strides)
        self._decode = decode
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenCrossHead:
        """Stay in evaluation mode, whatever an enclosing module does."""
        return super().train(False)

    def begin(self, pyramid: Mapping[str, Tensor]) -> HeadMaps:
        """Return the maps at the cut, (B, C, H, W) for each branch of each level."""
        class_begin, box_begin = self._begins
        return {level: (class_begin(map_BCHW), box_begin(map_BCHW)) for level, map_BCHW in pyramid.items()}

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
        class_branch, box_branch = _branches(self._rest)
        class_logits_BAK = class_branch(list(class_maps))
        deltas = box_branch(list(box_maps))
        deltas_BA4 = deltas[0] if isinstance(deltas, tuple) else deltas  # FCOS returns center-ness beside
        cells = tuple((map_BCHW.shape[-2], map_BCHW.shape[-1]) for map_BCHW in box_maps)
        anchors_A4, _ = self._anchors(cells, deltas_BA4.device)
        return class_logits_BAK.float(), self._decode(deltas_BA4.float(), anchors_A4)
