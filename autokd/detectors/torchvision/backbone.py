"""Bodies under a feature pyramid: torchvision's own by name, or a narrow ResNet of chosen width."""

from __future__ import annotations

from pathlib import Path

from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from autokd.config import TorchvisionDetector
from autokd.detectors.torchvision.bodies import ChannelsFirst, new_body, plan_of
from autokd.detectors.torchvision.layout import Layout
from autokd.detectors.torchvision.norms import norm_of, replace_batch_norms
from autokd.detectors.weights_file import SHOWN, check_finite, read_state_dict, without_prefix
from autokd.errors import DetectorError, name_list

_OPTIONAL_SUFFIX = "num_batches_tracked"


def build_backbone(config: TorchvisionDetector, layout: Layout) -> BackboneWithFPN:
    """Return the body under a feature pyramid that gives exactly ``layout.levels``, randomly initialized."""
    body, plan, fpn_channels = new_body(config.backbone), plan_of(config.backbone), config.fpn_channels
    levels = {plan.stages[stage - 1][-1]: f"p{stage + 1}" for stage in layout.stages}
    backbone = BackboneWithFPN(
        body,
        return_layers=levels,
        in_channels_list=[plan.channels[stage - 1] for stage in layout.stages],
        out_channels=fpn_channels,
        extra_blocks=LastLevelP6P7(fpn_channels, fpn_channels) if layout.top == "p6p7" else LastLevelMaxPool(),
    )
    if layout.top == "none":
        backbone.fpn.extra_blocks = None  # the constructor would put a pooled level there
    if plan.is_channels_last:
        backbone.body = ChannelsFirst(body, levels)
    replace_batch_norms(backbone.body, norm_of(config))
    return backbone


def load_body(body: nn.Module, path: Path) -> None:
    """Load the weights of a classifier, of its features, or of a detector over the same body into a body.

    Args:
        body: the part of a detector below the pyramid.
        path: file of weights, read as data.

    Raises:
        DetectorError: if the file cannot be read, or lacks weights of the body.
    """
    expected = body.state_dict()
    weights = without_prefix(read_state_dict(path), expected, path)
    found = {name: value for name, value in weights.items() if name in expected}
    wrong = [
        f"{name}: {tuple(found[name].shape)} instead of {tuple(value.shape)}" if name in found else name
        for name, value in expected.items()
        if not name.endswith(_OPTIONAL_SUFFIX) and (name not in found or found[name].shape != value.shape)
    ]
    if wrong:
        raise DetectorError(
            f"{path}: not the weights of this backbone: {len(wrong)} of its {len(expected)} are missing or of another "
            f"shape ({name_list(wrong, limit=SHOWN)}). Set backbone.name, or blocks and width, to those of the file."
        )
    check_finite(found, path)
    body.load_state_dict(found, strict=False)
