"""ResNet backbones with a feature pyramid: torchvision's own by name, or a narrow one of chosen width.

torchvision's ``ResNet`` fixes 64 channels in the first stage, and its ``BasicBlock`` refuses other base
widths, so a narrow ResNet is its own short module made of the same blocks under the same names.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from autokd.config import Backbone
from autokd.detectors.torchvision.layout import Layout


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


def build_backbone(config: Backbone, layout: Layout, fpn_channels: int) -> BackboneWithFPN:
    """A ResNet under a feature pyramid that gives exactly ``layout.levels``; nothing is downloaded."""
    if config.name is None:
        body: nn.Module = NarrowResNet(config.blocks, config.width)
        first_stage = config.width
    else:
        official: ResNet = get_model(config.name, weights=None)
        body, first_stage = official, official.inplanes // 8
    backbone = BackboneWithFPN(
        body,
        return_layers={f"layer{stage}": f"p{stage + 1}" for stage in layout.stages},
        in_channels_list=[first_stage * 2 ** (stage - 1) for stage in layout.stages],
        out_channels=fpn_channels,
        extra_blocks=LastLevelP6P7(fpn_channels, fpn_channels) if layout.top == "p6p7" else LastLevelMaxPool(),
    )
    if layout.top == "none":
        backbone.fpn.extra_blocks = None  # the constructor would put a pooled level there
    return backbone
