"""Feature extractors below the pyramid: torchvision's classifiers without their classifying end, and narrow ResNets.

torchvision's ``ResNet`` fixes 64 channels in the first stage, and its ``BasicBlock`` refuses other base widths, so a
narrow ResNet is its own short module made of the same blocks under the same names.

Legend: B images, C channels, H x W cells.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock

from autokd.config import Backbone

_PROBE_PX = 64
_STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class BodyPlan:
    """The parts of a body: children by name, as its stages use them.

    Attributes:
        stem: children before the first stage.
        stages: children of the four stages, whose maps have the strides 4, 8, 16 and 32.
        channels: channels of the last map of each stage.
        is_channels_last: whether the maps are (B, H, W, C), as Swin's are.
    """

    stem: tuple[str, ...]
    stages: tuple[tuple[str, ...], ...]
    channels: tuple[int, ...]
    is_channels_last: bool = False

    def frozen(self, num_trainable: int) -> tuple[str, ...]:
        """Return the children that are not trained, if ``num_trainable`` parts are, counted from the coarsest."""
        parts = (self.stem, *self.stages)
        return tuple(child for part in parts[: len(parts) - num_trainable] for child in part)


class NarrowResNet(nn.Module):
    """The body of a ResNet of basic blocks whose stages are width, 2, 4 and 8 x width channels wide.

    The names of its parameters are those of ``torchvision.models.ResNet`` without the classifier.
    """

    def __init__(self, blocks: Sequence[int], width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        channels_in = width
        for stage, num_blocks in enumerate(blocks):
            channels = width * 2**stage
            setattr(self, f"layer{stage + 1}", _stage(channels_in, channels, num_blocks, stride=1 if stage == 0 else 2))
            channels_in = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the last stage's map; the pyramid taps the earlier ones."""
        map_BCHW = images_BCHW
        for child in self.children():
            map_BCHW = child(map_BCHW)
        return map_BCHW


def _stage(channels_in: int, channels: int, num_blocks: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or channels_in != channels:
        shortcut = nn.Sequential(
            nn.Conv2d(channels_in, channels, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(channels)
        )
    blocks = [BasicBlock(channels_in, channels, stride, shortcut)]
    blocks += [BasicBlock(channels, channels) for _ in range(num_blocks - 1)]
    return nn.Sequential(*blocks)


class ChannelsFirst(IntermediateLayerGetter):
    """Taps of a body whose maps are (B, H, W, C) inside, as (B, C, H, W)."""

    def forward(self, images_BCHW: Tensor) -> OrderedDict[str, Tensor]:
        """Return level -> map."""
        taps = super().forward(images_BCHW)
        return OrderedDict((level, map_BHWC.permute(0, 3, 1, 2)) for level, map_BHWC in taps.items())


def new_body(config: Backbone) -> nn.Module:
    """Return the body of a configuration, randomly initialized."""
    if config.name is None:
        return NarrowResNet(config.blocks, config.width)
    return _features(get_model(config.name, weights=None))


def plan_of(config: Backbone) -> BodyPlan:
    """Return the parts of a configuration's body, without its weights."""
    if config.name is None:
        return BodyPlan(_RESNET_STEM, _RESNET_STAGES, tuple(config.width * 2**stage for stage in range(4)))
    return plan_of_official(config.name)


_RESNET_STEM = ("conv1", "bn1", "relu", "maxpool")
_RESNET_STAGES = (("layer1",), ("layer2",), ("layer3",), ("layer4",))


@cache
def plan_of_official(name: str) -> BodyPlan:
    """Return the parts of a classifier of torchvision, found by an image without content.

    A stage is all children whose maps have its stride. The first child of ConvNeXt and Swin cuts the image into
    patches of stride 4: it is the stem.
    """
    with torch.device("meta"):  # neither memory nor random numbers
        body = _features(get_model(name, weights=None)).eval()
        map_BCHW = torch.empty(1, 3, _PROBE_PX, _PROBE_PX)
        if hasattr(body, "layer4"):
            channels = tuple(_channels(getattr(body, f"layer{stage}")) for stage in range(1, 5))
            return BodyPlan(_RESNET_STEM, _RESNET_STAGES, channels)
        is_channels_last = name.startswith("swin")
        rows, depth = (1, -1) if is_channels_last else (2, 1)
        found: list[tuple[str, int, int]] = []
        for child, module in body.named_children():
            map_BCHW = module(map_BCHW)
            found.append((child, _PROBE_PX // map_BCHW.shape[rows], map_BCHW.shape[depth]))
    stages = [[entry for entry in found[1:] if entry[1] == stride] for stride in _STRIDES]
    in_stages = {entry[0] for stage in stages for entry in stage}
    return BodyPlan(
        tuple(entry[0] for entry in found if entry[0] not in in_stages),
        tuple(tuple(entry[0] for entry in stage) for stage in stages),
        tuple(stage[-1][2] for stage in stages),
        is_channels_last,
    )


def _features(classifier: nn.Module) -> nn.Module:
    features = getattr(classifier, "features", classifier)
    assert isinstance(features, nn.Module)
    return features


def _channels(stage: nn.Module) -> int:
    """Return the channels that a stage of a ResNet gives: those of its last convolution."""
    return [module.out_channels for module in stage[-1].children() if isinstance(module, nn.Conv2d)][-1]  # type: ignore[index]
